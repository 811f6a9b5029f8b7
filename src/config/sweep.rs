//! `[sweep]`: how often calendars are looked at though nothing was announced.

use jiff::SignedDuration;
use serde::Deserialize;

use super::layers::Checks;

/// How often calendars are looked at though nothing was announced.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    proven_secs: u32,
    unproven_secs: u32,
    unwatched_secs: u32,
}

impl Sweep {
    /// Where notifications are proven to arrive.
    pub fn proven(&self) -> SignedDuration {
        SignedDuration::from_secs(self.proven_secs.into())
    }

    /// Where they are not, or not yet.
    pub fn unproven(&self) -> SignedDuration {
        SignedDuration::from_secs(self.unproven_secs.into())
    }

    /// Where there is no living subscription.
    pub fn unwatched(&self) -> SignedDuration {
        SignedDuration::from_secs(self.unwatched_secs.into())
    }

    pub(super) fn check(&self, checks: &mut Checks<'_>) {
        checks.within(
            "sweep.proven_secs",
            self.proven_secs.into(),
            900..=86_400,
            "it is how late a change may show that Microsoft 365 failed to announce",
        );
        for (key, secs) in
            [("sweep.unproven_secs", self.unproven_secs), ("sweep.unwatched_secs", self.unwatched_secs)]
        {
            checks.within(key, secs.into(), 60..=14_400, "each sweep is a request per mailbox");
            if secs > self.proven_secs {
                checks.refuse(
                    key,
                    "is longer than `sweep.proven_secs`",
                    "look more often where less is known, not less often",
                );
            }
        }
    }
}
