//! What became known of a company while running: which tenant consented, and when.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::TenantId;

/// A company's standing, as stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Standing {
    /// The tenant that consented.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tenant: Option<TenantId>,
    /// When it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) consented_at: Option<Timestamp>,
    /// Members of other versions.
    #[serde(flatten)]
    others: serde_json::Map<String, serde_json::Value>,
}

impl Standing {
    /// A tenant has consented.
    pub(super) fn consented(mut self, tenant: TenantId, at: Timestamp) -> Self {
        self.tenant = Some(tenant);
        self.consented_at = Some(at);
        self
    }

    pub(super) fn write(&self) -> Vec<u8> {
        #[expect(clippy::expect_used, reason = "proven")]
        serde_json::to_vec(self).expect("keys are texts and no value can refuse")
    }
}
