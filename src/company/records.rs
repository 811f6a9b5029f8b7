//! What the store keeps of companies: their applied documents, drafts, consent, and which mailboxes they have.

use async_trait::async_trait;
use jiff::Timestamp;

use crate::{
    model::{CompanyId, Extension, MailboxId},
    queue::StoreError,
};

/// A company as stored; the documents' meaning is this module's, not the store's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompanyRecord {
    /// Which company.
    pub id: CompanyId,
    /// The document the service runs on; `None` while there is only a draft.
    pub applied: Option<Vec<u8>>,
    /// What was saved and not applied.
    pub draft: Option<Vec<u8>>,
    /// What became known while running (tenant, consent); survives every apply.
    pub standing: Option<Vec<u8>>,
}

/// A mailbox as stored, without its turn's document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxRecord {
    /// Which mailbox.
    pub id: MailboxId,
    /// Whose.
    pub company: CompanyId,
    /// The extension it steers.
    pub extension: Extension,
    /// Whether its user was taken out: it still has a turn to clean up after itself.
    pub retired: bool,
}

/// What applying a company did to its mailboxes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// All mailboxes of the company, the retired ones too.
    pub mailboxes: Vec<MailboxRecord>,
}

/// The store's side of companies.
#[async_trait]
pub trait Records: Send + Sync + 'static {
    /// All companies.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn companies(&self) -> Result<Vec<CompanyRecord>, StoreError>;

    /// All mailboxes of all companies.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn mailboxes(&self) -> Result<Vec<MailboxRecord>, StoreError>;

    /// Keeps a draft; it affects nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn save_draft(&self, company: &CompanyId, draft: Option<Vec<u8>>) -> Result<(), StoreError>;

    /// Makes a document live in one step: the document, a mailbox for each extension in `users`, retirement of the
    /// others, and the draft gone. All of it or nothing. Nobody is due because of it before [`make_due`](Self::make_due).
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: nothing has changed.
    async fn apply(
        &self,
        company: &CompanyId,
        document: Vec<u8>,
        users: Vec<Extension>,
    ) -> Result<Applied, StoreError>;

    /// Makes mailboxes due because of what was applied, once turns go by that: a turn by the old rules would have to be
    /// repeated. Need not survive a restart, which makes every mailbox due.
    fn make_due(&self, mailboxes: &[MailboxRecord]);

    /// Stores what became known while running.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn set_standing(&self, company: &CompanyId, standing: Vec<u8>) -> Result<(), StoreError>;

    /// Takes a company out that has no mailboxes left.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn forget(&self, company: &CompanyId) -> Result<(), StoreError>;

    /// Spends a single-use ticket, remembered until `expires`; `false` where it was spent before.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn spend(&self, ticket: &str, expires: Timestamp, now: Timestamp) -> Result<bool, StoreError>;
}
