//! How long to leave something alone that failed several times in a row and named no time of its own.
//!
//! Waits double up to a bound and are spread by up to a fifth each way, so that those who failed together do not
//! return together. The spread depends on who waits and on the count alone: every replica waits alike (I12).

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// Waits that double from the first to the longest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    pub(super) first: Duration,
    pub(super) longest: Duration,
}

impl Backoff {
    /// The wait of `who` after so many failures in a row (1 is the first).
    pub(super) fn wait(&self, failures: u32, who: impl Hash) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(self.longest).mul_f64(0.8 + share(who, failures) * 0.4)
    }
}

/// A number in `[0, 1)` that depends on nothing but its arguments.
fn share(who: impl Hash, failures: u32) -> f64 {
    let mut hasher = DefaultHasher::new();
    (who, failures).hash(&mut hasher);
    f64::from(u32::try_from(hasher.finish() >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX).next_up()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

    proptest! {
        #[test]
        fn waits_grow_up_to_a_bound_and_are_the_same_everywhere(failures in 1_u32..1_000_000, who: u64) {
            let wait = BACKOFF.wait(failures, who);
            let plain = BACKOFF.first.saturating_mul(1 << (failures - 1).min(10)).min(BACKOFF.longest);
            prop_assert!(wait >= plain.mul_f64(0.799) && wait <= plain.mul_f64(1.201), "{wait:?}");
            prop_assert_eq!(wait, BACKOFF.wait(failures, who));
        }
    }

    #[test]
    fn those_who_failed_together_do_not_return_together() {
        let waits: BTreeSet<_> = (0..100).map(|who| BACKOFF.wait(4, who)).collect();
        assert!(waits.len() > 90, "{}", waits.len());
    }
}
