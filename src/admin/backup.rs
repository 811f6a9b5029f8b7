//! The configuration as it is taken out of the service and put back.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::model::CompanyId;

/// All that is configured of one company: nothing of calendars, and no secrets but those that its file itself holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompanyBackup {
    /// Which company.
    pub id: CompanyId,
    /// What is applied, as stored; absent where nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Value>,
    /// What is saved and not applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<String>,
    /// What became known while running: which tenant has consented, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Value>,
    /// What is stored and could not be taken, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

impl std::fmt::Debug for CompanyBackup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is applied may hold a PBX's secret.
        f.debug_struct("CompanyBackup").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A company to be put back.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// The company as it was taken out.
    pub company: CompanyBackup,
    /// What to call the file in messages.
    pub file: String,
    /// Whether only to say what would change. To be said either way.
    pub dry_run: bool,
}
