//! What the store keeps of companies: their applied documents, drafts, consent, and which mailboxes they have.

use async_trait::async_trait;
use jiff::Timestamp;

use super::trail::Deed;
use crate::{
    model::{CompanyId, Extension, MailboxId},
    queue::StoreError,
};

/// A company as stored; the documents' meaning is this module's, not the store's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompanyRecord {
    /// Which company.
    pub id: CompanyId,
    /// Grows with each apply, with what becomes known and with the company's end: the same number, the same documents. A company
    /// that was forgotten and comes back goes on above what it had; 0 is before everything.
    pub revision: u64,
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
    /// The company's revision by now.
    pub revision: u64,
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

    /// One company with all its mailboxes, both of the same moment.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn company(
        &self,
        company: &CompanyId,
    ) -> Result<Option<(CompanyRecord, Vec<MailboxRecord>)>, StoreError>;

    /// The revision of each company.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn revisions(&self) -> Result<Vec<(CompanyId, u64)>, StoreError>;

    /// A number that grows whenever the revision of some company does, a company is forgotten, a mailbox is
    /// [gone](crate::queue::Settled::Gone), or a [job](super::trail::Trail) is opened or cancelled.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn revision(&self) -> Result<u64, StoreError>;

    /// Returns once [`revision`](Self::revision) is greater than `since`: woken, without polling.
    async fn changed(&self, since: u64);

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
    /// others, and the draft gone. All its mailboxes are due because of it, the retired ones
    /// ([`Retired`](crate::queue::Reason::Retired)) too. All of it or nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: nothing has changed, or all of it and the answer was lost.
    async fn apply(
        &self,
        company: &CompanyId,
        document: Vec<u8>,
        users: Vec<Extension>,
    ) -> Result<Applied, StoreError> {
        self.apply_noted(company, document, users, None).await
    }

    /// As [`apply`](Self::apply), and writes down in the same step who did it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: nothing has changed, or all of it and the answer was lost.
    async fn apply_noted(
        &self,
        company: &CompanyId,
        document: Vec<u8>,
        users: Vec<Extension>,
        deed: Option<Deed>,
    ) -> Result<Applied, StoreError>;

    /// Stores what became known while running, and makes the company's mailboxes due because of that
    /// ([`Consent`](crate::queue::Reason::Consent)), in one step. Returns the company's revision by now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: nothing has changed, or all of it and the answer was lost.
    async fn set_standing(&self, company: &CompanyId, standing: Vec<u8>) -> Result<u64, StoreError> {
        self.set_standing_noted(company, standing, None).await
    }

    /// As [`set_standing`](Self::set_standing), and writes down in the same step through whom it became known.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: nothing has changed, or all of it and the answer was lost.
    async fn set_standing_noted(
        &self,
        company: &CompanyId,
        standing: Vec<u8>,
        deed: Option<Deed>,
    ) -> Result<u64, StoreError>;

    /// Takes a company out that has no mailboxes left; one that has some stays as it is.
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
