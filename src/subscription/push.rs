//! Whether what changes is announced, judged over a company: one lost notification is life, lost ones in a row are a
//! proxy, a firewall or an address that leads elsewhere.
//!
//! Fed with what turns see: a change that was announced, and a change that only a sweep found. Two of the
//! latter within an hour and none of the former in between, and push is not relied on: calendars are polled instead.
//! The next change that is announced ends that. Silence proves nothing either way; and that one was lost at noon says
//! nothing in the evening, if others have been announced since.
//!
//! Kept in memory: after a restart everything is read anyway.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use crate::model::CompanyId;

/// Two unannounced changes as close as this are no accident.
const IN_A_ROW: SignedDuration = SignedDuration::from_hours(1);

/// What is known of one company's notifications. Pure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PushHealth {
    announced_at: Option<Timestamp>,
    unannounced_at: Option<Timestamp>,
    suspicious_since: Option<Timestamp>,
}

impl PushHealth {
    /// A notification for a change arrived.
    pub fn announced(&mut self, at: Timestamp) {
        self.announced_at = self.announced_at.max(Some(at));
        self.unannounced_at = None;
        self.suspicious_since = None;
    }

    /// A round found a change, made at `changed_at`, that no notification had announced.
    pub fn found_unannounced(&mut self, changed_at: Timestamp, at: Timestamp) {
        if self.announced_at.is_some_and(|announced| announced > changed_at) {
            return;
        }
        let before = self.unannounced_at.replace(at);
        if before.is_some_and(|before| at.duration_since(before) <= IN_A_ROW) {
            self.suspicious_since.get_or_insert(at);
        }
    }

    /// Since when notifications are not relied on.
    pub fn suspicious_since(&self) -> Option<Timestamp> {
        self.suspicious_since
    }

    /// When a notification for a change arrived last.
    pub fn announced_at(&self) -> Option<Timestamp> {
        self.announced_at
    }
}

/// [`PushHealth`] of one company, shared by its turns; tells when it changes.
#[derive(Debug, Default)]
pub struct Push(Mutex<PushHealth>);

impl Push {
    fn health(&self) -> MutexGuard<'_, PushHealth> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it stands.
    pub fn now(&self) -> PushHealth {
        *self.health()
    }

    /// A notification for a change of this company arrived.
    pub fn announced(&self, company: &CompanyId, at: Timestamp) {
        let mut health = self.health();
        if health.suspicious_since().is_some() {
            info!(company.id = %company, "Notifications for company `{company}` arrive again");
        }
        health.announced(at);
    }

    /// A round found a change of this company, made at `changed_at`, that no notification had announced. Whether push is
    /// not relied on from now on.
    pub fn found_unannounced(&self, company: &CompanyId, changed_at: Timestamp, at: Timestamp) -> bool {
        let mut health = self.health();
        let before = health.suspicious_since();
        health.found_unannounced(changed_at, at);
        let begins = before.is_none() && health.suspicious_since().is_some();
        if begins {
            warn!(company.id = %company, "Changes of company `{company}` are not announced: its calendars are polled");
            metrics::counter!("narvaro_push_unreliable_total").increment(1);
        }
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + 60 * minute).unwrap()
    }

    fn after(course: &[(char, i64)]) -> PushHealth {
        let mut health = PushHealth::default();
        for (what, minute) in course {
            match what {
                'a' => health.announced(at(*minute)),
                _ => health.found_unannounced(at(*minute), at(*minute)),
            }
        }
        health
    }

    #[test]
    fn two_unannounced_changes_within_an_hour_and_none_announced_between_are_suspicious() {
        for (course, since) in [
            (&[][..], None),
            (&[('u', 0)], None),
            (&[('u', 0), ('u', 60)], Some(60)),
            (&[('u', 0), ('u', 61)], None),
            (&[('u', 0), ('u', 61), ('u', 90)], Some(90)),
            (&[('u', 0), ('a', 10), ('u', 20)], None),
            (&[('u', 0), ('u', 10), ('u', 30)], Some(10)),
            (&[('a', 0), ('u', 10), ('u', 20)], Some(20)),
        ] {
            assert_eq!(after(course).suspicious_since(), since.map(at), "{course:?}");
        }
    }

    #[test]
    fn silence_ends_no_suspicion_and_an_announced_change_does() {
        let mut health = after(&[('u', 0), ('u', 10)]);
        health.found_unannounced(at(10_000), at(10_000));
        assert_eq!(health.suspicious_since(), Some(at(10)));
        health.announced(at(10_001));
        assert_eq!((health.suspicious_since(), health.announced_at()), (None, Some(at(10_001))));
        health.found_unannounced(at(10_002), at(10_002));
        assert_eq!(health.suspicious_since(), None, "it begins anew");
    }

    #[test]
    fn what_was_lost_before_the_last_that_was_announced_says_nothing_of_now() {
        let mut health = after(&[('a', 100)]);
        for found in [110, 120, 130] {
            health.found_unannounced(at(99), at(found));
        }
        assert_eq!(health.suspicious_since(), None);
        for found in [140, 150] {
            health.found_unannounced(at(101), at(found));
        }
        assert_eq!(health.suspicious_since(), Some(at(150)));
    }
}
