//! The private side of the service: what an operator asks, and the HTTP surface that carries it.
//!
//! This module declares [`Operations`], the port that the running service implements, the plain types that
//! travel over it, and [`router()`], which serves it under `/admin/v1/` together with `/health/live`,
//! `/health/ready` and `/metrics`. It promises that nothing under `/admin/` is answered without the token, that
//! every refusal is a problem document (RFC 9457) with a `type` that scripts may rely on, and that bodies are
//! bounded. It does not decide anything itself, and it is never served on the public listener.
//!
//! Why one token and no users: the listener is private, the people behind it are the operator's own
//! technicians, and who did what belongs to the reverse proxy in front where that is asked for.

mod auth;
mod operations;
mod problem;
mod request;
mod router;
mod types;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

pub use crate::health::{Health, HealthReport, Severity};
pub use operations::{OperationError, Operations};
pub use problem::Problem;
pub use router::{Surface, router};
pub use types::{
    ApplyReport, ApplyRequest, CheckLine, CheckReport, CompanyStatus, CompanySummary, Consent, ConsentUrl,
    ExplainRequest, Explained, Exported, JobId, JobProgress, JobStarted, MailboxStatus, PbxLink,
    RemoveReport, RemoveRequest, RenewRequest, Scope, ShownPresence, Status, SubscriptionInfo, SyncRequest,
    Synced, Tried, TryRequest,
};
