//! What the store keeps of what people did: the audit trail, and jobs that outlive the process.
//!
//! An entry names a token, a company and an outcome; never a secret, and nothing out of a calendar. It is written in the
//! same step as what it tells of, where that is in the database too.

use async_trait::async_trait;
use jiff::Timestamp;

use crate::{
    model::{CompanyId, MailboxId},
    queue::StoreError,
};

/// Something that somebody did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub who: String,
    /// What: one word for scripts.
    pub what: &'static str,
    /// To which company; `None`: to all.
    pub company: Option<CompanyId>,
    /// What came of it.
    pub outcome: String,
}

/// An entry of the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrailEntry {
    /// Its number; grows with time.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub who: String,
    /// What.
    pub what: String,
    /// To which company.
    pub company: Option<CompanyId>,
    /// What came of it.
    pub outcome: String,
}

/// Which entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrailQuery {
    /// Only of this company.
    pub company: Option<CompanyId>,
    /// Only from then on.
    pub since: Option<Timestamp>,
    /// Only those with lower numbers.
    pub before: Option<u64>,
    /// Most entries.
    pub most: usize,
}

/// A job as stored; the document's meaning is its owner's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecord {
    /// Its name.
    pub id: String,
    /// How far it has come.
    pub document: Vec<u8>,
    /// How often that was stored since it was opened.
    pub version: u64,
    /// Whether somebody wants it ended.
    pub cancelled: bool,
}

impl JobRecord {
    /// A job that is about to be opened.
    pub fn new(id: String, document: Vec<u8>) -> Self {
        Self { id, document, version: 0, cancelled: false }
    }
}

/// The store's side of both.
#[async_trait]
pub trait Trail: Send + Sync + 'static {
    /// Adds an entry; the oldest go, beyond as many as are kept.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn note(&self, deed: Deed) -> Result<(), StoreError>;

    /// Entries, the newest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn trail(&self, query: TrailQuery) -> Result<Vec<TrailEntry>, StoreError>;

    /// Keeps a new job with the mailboxes it is about, and who started it. Of jobs that have no mailboxes left only
    /// the newest hundred are kept. [`Records::revision`](super::records::Records::revision) grows.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: there is no such job.
    async fn open_job(&self, job: JobRecord, mailboxes: Vec<MailboxId>, deed: Deed)
    -> Result<(), StoreError>;

    /// Keeps how far a job has come, and takes off the mailboxes that it is done with. What is stored has the next version;
    /// whether it is cancelled stays as it is. `false`, and nothing has changed, where the stored version is not `job`'s:
    /// somebody else works it off.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn advance_job(&self, job: JobRecord, done: Vec<MailboxId>) -> Result<bool, StoreError>;

    /// Keeps how a job ended, takes off all its mailboxes, and writes it down. As [`advance_job`](Self::advance_job)
    /// where somebody else works it off.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn close_job(&self, job: JobRecord, deed: Deed) -> Result<bool, StoreError>;

    /// Wants a job ended, and writes down who wants it; whoever works it off sees to it.
    /// [`Records::revision`](super::records::Records::revision) grows. `false`, and nothing has changed, where there is no such
    /// job, it has no mailboxes left, or it was cancelled before.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: nothing has changed.
    async fn cancel_job(&self, id: &str, deed: Deed) -> Result<bool, StoreError>;

    /// All jobs, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn jobs(&self) -> Result<Vec<JobRecord>, StoreError>;

    /// One job.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn job(&self, id: &str) -> Result<Option<JobRecord>, StoreError>;

    /// Mailboxes that a job is not done with.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn left_of_job(&self, id: &str) -> Result<Vec<MailboxId>, StoreError>;
}
