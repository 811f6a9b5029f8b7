//! When to try again: once, here, for calendars, watches and PBXs alike.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use jiff::Timestamp;

use crate::model::{Disposition, MailboxId};

/// How long to wait after failures.
#[derive(Debug, Clone, Copy)]
pub struct RetryPlan {
    /// First wait after a failure that named no time of its own; doubles with each further one.
    pub first: Duration,
    /// Longest wait while trying again makes sense.
    pub longest: Duration,
    /// Wait where a person or a slow process must act first. Exchange keeps a refusal for up to two hours, and asking
    /// meanwhile is reported to prolong it: half an hour, not seconds.
    pub parked: Duration,
}

impl Default for RetryPlan {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(2),
            longest: Duration::from_secs(5 * 60),
            parked: Duration::from_secs(30 * 60),
        }
    }
}

/// When to try again after the `attempts`-th failure in a row (1 is the first). Waits are spread by up to a
/// fifth each way, so that mailboxes that failed together do not return together; the spread depends on mailbox
/// and attempt alone, so that every replica would wait alike (I12).
pub(super) fn retry_at(
    plan: &RetryPlan,
    disposition: Disposition,
    attempts: u32,
    mailbox: MailboxId,
    now: Timestamp,
) -> Timestamp {
    let wait = match disposition {
        // Never earlier than asked for: spread upwards only.
        Disposition::Retry { after: Some(after) } => after.mul_f64(1.0 + spread(mailbox, attempts) / 5.0),
        Disposition::Retry { after: None } => {
            let doubled = plan.first.saturating_mul(1 << attempts.saturating_sub(1).min(16));
            doubled.min(plan.longest).mul_f64(0.8 + spread(mailbox, attempts) * 0.4)
        }
        Disposition::Park | Disposition::Drop => plan.parked.mul_f64(0.8 + spread(mailbox, attempts) * 0.4),
    };
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// A number in `[0, 1)` that only depends on its arguments.
pub(super) fn spread(mailbox: MailboxId, salt: impl Hash) -> f64 {
    let mut hasher = DefaultHasher::new();
    (mailbox, salt).hash(&mut hasher);
    f64::from(u32::try_from(hasher.finish() >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX).next_up()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn wait(disposition: Disposition, attempts: u32, mailbox: u64) -> Duration {
        retry_at(&RetryPlan::default(), disposition, attempts, MailboxId(mailbox), NOW)
            .duration_since(NOW)
            .unsigned_abs()
    }

    proptest! {
        #[test]
        fn a_time_the_far_side_named_is_never_undercut(secs in 0_u64..10_000, attempts in 1_u32..50, id: u64) {
            let after = Duration::from_secs(secs);
            let waited = wait(Disposition::Retry { after: Some(after) }, attempts, id);
            prop_assert!(waited >= after && waited <= after.mul_f64(1.2));
        }

        #[test]
        fn waits_grow_up_to_a_bound_and_never_stop(attempts in 1_u32..1_000_000, id: u64) {
            let waited = wait(Disposition::Retry { after: None }, attempts, id);
            let plan = RetryPlan::default();
            prop_assert!(waited >= plan.first.mul_f64(0.8) && waited <= plan.longest.mul_f64(1.2));
        }
    }

    #[test]
    fn mailboxes_that_failed_together_do_not_return_together() {
        let waits: std::collections::BTreeSet<_> =
            (0..100).map(|id| wait(Disposition::Retry { after: None }, 3, id)).collect();
        assert!(waits.len() > 90);
    }
}
