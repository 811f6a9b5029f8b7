//! The private side of the service: what an operator asks, and the HTTP surface that carries it.
//!
//! This module declares [`Operations`], the port that the running service implements, the plain types that
//! travel over it, and [`router()`], which serves it under `/admin/v1/` together with `/health/live`,
//! `/health/ready`, `/metrics` and `/openapi.json`. It promises that nothing under `/admin/` is answered without a
//! token, that a token does no more than its role and sees no other company than its own, that every refusal is a
//! problem document (RFC 9457) with a `type` that scripts may rely on, and that bodies are bounded. It does not
//! decide anything itself, and it is never served on the public listener.
//!
//! Why tokens and no users: the listener is private and the people behind it are the operator's own technicians. A token
//! each gives them a name in the audit trail and a role; passwords and sessions would give no more.

mod audit;
mod auth;
mod jobs;
mod limited;
mod openapi;
mod operations;
mod page;
mod problem;
mod request;
mod router;
mod routes;
mod schemas;
mod types;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

pub use crate::health::{Health, HealthReport, Severity};
pub use audit::{AuditLine, AuditRequest};
pub use auth::{Caller, Token};
pub use jobs::{JobInfo, JobProgress, JobStarted};
pub use openapi::openapi;
pub use operations::{OperationError, Operations};
pub use page::{Page, PageRequest};
pub use problem::Problem;
pub use router::{Surface, router};
pub use types::{
    ApplyReport, ApplyRequest, CheckLine, CheckReport, CompanyStatus, CompanySummary, Consent, ConsentUrl,
    ExplainRequest, Explained, Exported, JobId, MailboxStatus, PbxLink, RemoveReport, RemoveRequest,
    RenewRequest, ReplicaInfo, Scope, ShownPresence, Status, SubscriptionInfo, SyncRequest, Synced, Tried,
    TryRequest, UserInfo,
};
