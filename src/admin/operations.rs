//! The port: what an operator may ask of the running service.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    audit::{AuditLine, AuditRequest},
    backup::{CompanyBackup, RestoreRequest},
    jobs::{JobInfo, JobProgress, JobStarted},
    page::{Page, PageRequest},
    types::{
        ApplyReport, ApplyRequest, CheckReport, CompanySummary, ConsentUrl, ExplainRequest, Explained,
        Exported, JobId, MailboxStatus, RemoveReport, RemoveRequest, RenewRequest, Scope, Status,
        SubscriptionInfo, SyncRequest, Synced, Tried, TryRequest, UserInfo,
    },
};
use crate::config::Finding;
use crate::model::{CompanyId, Extension, Language};

/// Why the service did not do what an operator asked.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// There is no such company.
    #[error("there is no company `{0}`")]
    NoSuchCompany(CompanyId),
    /// The company has no such user.
    #[error("company `{company}` has no user with extension or alias `{user}`")]
    NoSuchUser {
        /// The company asked.
        company: CompanyId,
        /// What was asked for.
        user: String,
    },
    /// No company has such a user.
    #[error("no company has a user with extension or alias `{user}`")]
    UnknownUser {
        /// What was asked for.
        user: String,
    },
    /// A user of that name exists in more than one company, and none was named.
    #[error("more than one company has a user `{user}`: name the company")]
    AmbiguousUser {
        /// What was asked for.
        user: String,
    },
    /// The job is not known (any more).
    #[error("there is no job `{0}`")]
    NoSuchJob(JobId),
    /// The company file does not hold: nothing was changed.
    #[error("the company file does not hold")]
    FileRefused(Vec<Finding>),
    /// What is to be restored does not hold: nothing was changed.
    #[error("the backup does not hold")]
    BackupRefused(Vec<Finding>),
    /// It is not said what is to be acted on.
    #[error("the request names neither a company nor a user, nor says that all are meant")]
    ScopeMissing,
    /// It is said twice, and differently.
    #[error("the request names one user and says that all are meant")]
    ScopeAmbiguous,
    /// The request itself makes no sense.
    #[error("{0}")]
    Refused(String),
    /// The extension exists in another company's PBX, or something else stands in the way.
    #[error("user `{extension}` cannot be changed now: {reason}")]
    Conflict {
        /// Whose.
        extension: Extension,
        /// What stands in the way.
        reason: String,
    },
    /// The store does not answer; of what was to be changed nobody knows whether it was.
    #[error("the store does not answer")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Anything else: an error of ours.
    #[error("the service failed")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What an operator may ask of the running service.
#[async_trait]
pub trait Operations: Send + Sync + 'static {
    /// The same, in somebody's name: what they do is written down under it.
    fn on_behalf_of(&self, who: &str) -> Arc<dyn Operations>;

    /// Whether turns are being worked on and the store answers; the sentence says what is missing.
    async fn ready(&self) -> Result<(), String>;

    /// All companies, by id.
    ///
    /// # Errors
    /// [`OperationError::Store`].
    async fn companies(&self) -> Result<Vec<CompanySummary>, OperationError>;

    /// How one company stands, or all.
    ///
    /// # Errors
    /// [`OperationError::NoSuchCompany`].
    async fn status(&self, scope: Scope) -> Result<Status, OperationError>;

    /// Validates a company file, says what it changes and, unless it is a dry run, makes it live: all or nothing.
    ///
    /// # Errors
    /// [`OperationError::FileRefused`] names every place that does not hold.
    async fn apply(&self, request: ApplyRequest) -> Result<ApplyReport, OperationError>;

    /// Takes a company out: phones are given back and subscriptions deleted as if an apply had taken out every user,
    /// and then the company is forgotten. Applying its file again before that takes it back.
    ///
    /// # Errors
    /// [`OperationError::NoSuchCompany`].
    async fn remove(
        &self,
        company: CompanyId,
        request: RemoveRequest,
    ) -> Result<RemoveReport, OperationError>;

    /// The applied company in the format that [`apply`](Self::apply) takes.
    ///
    /// # Errors
    /// [`OperationError::NoSuchCompany`].
    async fn export(&self, company: CompanyId) -> Result<Exported, OperationError>;

    /// All that is configured of all companies, by id; those that are being removed are left out.
    ///
    /// # Errors
    /// [`OperationError::Store`].
    async fn backup(&self, page: PageRequest) -> Result<Page<CompanyBackup>, OperationError>;

    /// Puts a company back as it was taken out, or says what that would change. A consent that became known later stays.
    ///
    /// # Errors
    /// [`OperationError::BackupRefused`] names every place that does not hold; [`OperationError::Refused`] where its tenant belongs to another company here.
    async fn restore(&self, request: RestoreRequest) -> Result<ApplyReport, OperationError>;

    /// An address at which an administrator of the company gives consent; good for one use.
    ///
    /// # Errors
    /// [`OperationError::NoSuchCompany`]; [`OperationError::Refused`] where the company has no Microsoft 365 integration.
    async fn consent_url(&self, company: CompanyId) -> Result<ConsentUrl, OperationError>;

    /// Why a user shows what they show at a moment.
    ///
    /// # Errors
    /// [`OperationError::NoSuchUser`], [`OperationError::UnknownUser`], [`OperationError::AmbiguousUser`].
    async fn explain(&self, request: ExplainRequest) -> Result<Explained, OperationError>;

    /// What a subject would do. The subject is neither stored nor logged.
    ///
    /// # Errors
    /// [`OperationError::NoSuchCompany`], [`OperationError::NoSuchUser`].
    async fn try_subject(&self, request: TryRequest) -> Result<Tried, OperationError>;

    /// Subscriptions of one company, or all.
    ///
    /// # Errors
    /// [`OperationError::NoSuchCompany`].
    async fn subscriptions(&self, scope: Scope) -> Result<Vec<SubscriptionInfo>, OperationError>;

    /// A company's users, by extension.
    ///
    /// # Errors
    /// [`OperationError::NoSuchCompany`].
    async fn users(&self, company: CompanyId, page: PageRequest) -> Result<Page<UserInfo>, OperationError>;

    /// How a company's mailboxes stand, by extension, those that are being taken out too; in English where no language is
    /// named.
    ///
    /// # Errors
    /// [`OperationError::NoSuchCompany`].
    async fn mailboxes(
        &self,
        company: CompanyId,
        language: Option<Language>,
        page: PageRequest,
    ) -> Result<Page<MailboxStatus>, OperationError>;

    /// A company's subscriptions, by extension; in English where no language is named.
    ///
    /// # Errors
    /// [`OperationError::NoSuchCompany`].
    async fn watches(
        &self,
        company: CompanyId,
        language: Option<Language>,
        page: PageRequest,
    ) -> Result<Page<SubscriptionInfo>, OperationError>;

    /// Starts the renewal of subscriptions and returns at once. One that is under way for the same is not started again.
    ///
    /// # Errors
    /// [`OperationError::NoSuchCompany`], [`OperationError::NoSuchUser`].
    async fn renew(&self, request: RenewRequest) -> Result<JobStarted, OperationError>;

    /// Jobs that are remembered, the newest first: those about one company, or all.
    ///
    /// # Errors
    /// [`OperationError::NoSuchCompany`].
    async fn jobs(&self, company: Option<CompanyId>) -> Result<Vec<JobInfo>, OperationError>;

    /// How far a job has come.
    ///
    /// # Errors
    /// [`OperationError::NoSuchJob`].
    async fn job(&self, job: JobId) -> Result<JobProgress, OperationError>;

    /// Ends a job early: what has not begun stays as it is.
    ///
    /// # Errors
    /// [`OperationError::NoSuchJob`].
    async fn cancel(&self, job: JobId) -> Result<JobProgress, OperationError>;

    /// Tries every outside system once.
    ///
    /// # Errors
    /// [`OperationError::NoSuchCompany`]. What is wrong outside is a line of the answer, not an error.
    async fn check(&self, scope: Scope) -> Result<CheckReport, OperationError>;

    /// Marks mailboxes as due now, with a complete read.
    ///
    /// # Errors
    /// [`OperationError::NoSuchCompany`], [`OperationError::NoSuchUser`].
    async fn sync_now(&self, request: SyncRequest) -> Result<Synced, OperationError>;

    /// Who did what, the newest first; to companies that were removed too.
    ///
    /// # Errors
    /// [`OperationError::NoSuchCompany`] where nothing was ever done to such a company; [`OperationError::Refused`] where `after` is none of ours.
    async fn audit(&self, request: AuditRequest) -> Result<Page<AuditLine>, OperationError>;
}
