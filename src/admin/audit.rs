//! Who did what, as it is told.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::CompanyId;

/// One thing that somebody did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditLine {
    /// Its number; grows with time.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// The name of the token; `consent link` for whoever opened one.
    pub who: String,
    /// What: `apply`, `renew`, `sync`, `consent_link`, `consent`, ...
    pub what: String,
    /// To which company; absent: to all.
    pub company: Option<CompanyId>,
    /// What came of it.
    pub outcome: String,
}

/// Which part of the audit trail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuditRequest {
    /// Only what was done to this company.
    pub company: Option<CompanyId>,
    /// Only from then on.
    pub since: Option<Timestamp>,
    /// `next` of the piece before; absent: from the newest.
    pub after: Option<String>,
    /// Most entries wanted: 500 where absent, and never more than 2,000.
    pub limit: Option<usize>,
}
