//! Whom Graph may be asked about now: four calls at a time per mailbox, and pauses for exactly whom they concern.
//!
//! A pause is as long as Graph asked for, or, where it named no time, doubles with each refusal in a row.
//! Nothing here sleeps: a call that has to stay away is told the time that is left, and the queue waits.
//! The one exception is the place among the four, which is waited for; each call ahead of it has a time-out.
//! Limits: <https://learn.microsoft.com/graph/throttling-limits> (2026-02).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::backoff::Backoff;
use crate::calendar::ReadError;

/// Outlook's limit per application and mailbox.
const CALLS_PER_MAILBOX: usize = 4;

/// From this many on, what is no longer in use is cleared away.
const CLEAR_FROM: usize = 1024;

/// Pauses where Graph named no time: a first one that is over before the queue's own, and no longer than a minute,
/// since whoever asks next may be luckier.
const UNTIMED: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// After this long without a call, refusals are no longer in a row.
const FORGET: SignedDuration = SignedDuration::from_hours(1);

/// Whom a call concerns, and so whom a pause concerns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    /// One mailbox, by its object id.
    Mailbox(String),
    /// The directory of the tenant.
    Directory,
    /// The subscriptions of the tenant.
    Subscriptions,
    /// Joining requests, whomever they concern.
    Batch,
}

/// Why calls have to stay away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// Graph wants us to be slower.
    Throttled,
    /// Something there is broken.
    Fault(String),
}

#[derive(Debug)]
struct Pause {
    until: Timestamp,
    cause: Cause,
    /// Refusals in a row that named no time.
    untimed: u32,
}

/// The gates of one tenant.
#[derive(Debug, Default)]
pub(super) struct Gates {
    places: Mutex<HashMap<String, Arc<Semaphore>>>,
    pauses: Mutex<HashMap<Scope, Pause>>,
}

impl Gates {
    /// A place among the calls to this mailbox; other scopes have no such limit.
    pub(super) async fn enter(&self, scope: &Scope) -> Option<OwnedSemaphorePermit> {
        let Scope::Mailbox(object) = scope else { return None };
        let places = {
            let mut map = held(&self.places);
            if map.len() >= CLEAR_FROM {
                map.retain(|_, places| Arc::strong_count(places) > 1);
            }
            Arc::clone(
                map.entry(object.clone()).or_insert_with(|| Arc::new(Semaphore::new(CALLS_PER_MAILBOX))),
            )
        };
        // The semaphore is never closed; if it were, going on without a place would be the lesser harm.
        places.acquire_owned().await.ok()
    }

    /// Keeps calls of this scope away until `now + wait`.
    pub(super) fn pause(&self, scope: &Scope, wait: Duration, cause: Cause, now: Timestamp) {
        let Ok(until) = now.checked_add(wait) else { return };
        let mut pauses = held(&self.pauses);
        pauses.retain(|_, pause| pause.until.duration_since(now) > -FORGET);
        match pauses.get_mut(scope) {
            Some(pause) if pause.until >= until => {}
            Some(pause) => (pause.until, pause.cause) = (until, cause),
            None => drop(pauses.insert(scope.clone(), Pause { until, cause, untimed: 0 })),
        }
    }

    /// Keeps calls of this scope away for a time that grows with each refusal in a row, and tells it. Calls that were
    /// under way together count as one.
    pub(super) fn pause_untimed(&self, scope: &Scope, cause: Cause, now: Timestamp) -> Duration {
        if let Some(left) = self.left(scope, now) {
            return left;
        }
        let untimed = held(&self.pauses).get(scope).map_or(0, |pause| pause.untimed).saturating_add(1);
        let wait = UNTIMED.wait(untimed, scope);
        self.pause(scope, wait, cause, now);
        if let Some(pause) = held(&self.pauses).get_mut(scope) {
            pause.untimed = untimed;
        }
        wait
    }

    /// Somebody of this scope was answered: the next refusal is the first.
    pub(super) fn answered(&self, scope: &Scope, now: Timestamp) {
        let mut pauses = held(&self.pauses);
        match pauses.get_mut(scope) {
            Some(pause) if pause.until > now => pause.untimed = 0,
            Some(_) => drop(pauses.remove(scope)),
            None => {}
        }
    }

    /// How long calls of this scope still have to stay away.
    pub(super) fn left(&self, scope: &Scope, now: Timestamp) -> Option<Duration> {
        let until = held(&self.pauses).get(scope)?.until;
        Duration::try_from(until.duration_since(now)).ok().filter(|left| !left.is_zero())
    }

    /// Refuses calls of this scope that have to stay away.
    pub(super) fn check(&self, scope: &Scope, now: Timestamp) -> Result<(), ReadError> {
        let Some(left) = self.left(scope, now) else { return Ok(()) };
        Err(match held(&self.pauses).get(scope).map(|pause| pause.cause.clone()) {
            Some(Cause::Fault(cause)) => ReadError::LeftAlone { left, cause },
            Some(Cause::Throttled) | None => ReadError::Throttled { retry_after: Some(left) },
        })
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn anna() -> Scope {
        Scope::Mailbox("anna".to_owned())
    }

    #[test]
    fn a_pause_keeps_its_own_scope_away_until_it_ends_and_is_never_shortened() {
        let gates = Gates::default();
        gates.pause(&anna(), Duration::from_secs(10), Cause::Throttled, at(0));
        gates.pause(&anna(), Duration::from_secs(2), Cause::Throttled, at(1));
        assert_eq!(gates.left(&anna(), at(4)), Some(Duration::from_secs(6)));
        assert_eq!(gates.left(&Scope::Mailbox("bo".to_owned()), at(4)), None);
        for scope in [Scope::Directory, Scope::Subscriptions, Scope::Batch] {
            assert_eq!(gates.left(&scope, at(4)), None);
        }
        gates.answered(&anna(), at(4));
        assert_eq!(gates.left(&anna(), at(4)), Some(Duration::from_secs(6)), "what Graph asked for is kept");
        assert_eq!(gates.left(&anna(), at(10)), None);
    }

    #[test]
    fn a_pause_without_a_time_doubles_with_each_refusal_in_a_row_up_to_a_minute() {
        let gates = Gates::default();
        let mut now = at(0);
        for plain in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
            let wait = gates.pause_untimed(&anna(), Cause::Throttled, now);
            assert!((plain * 0.79..=plain * 1.21).contains(&wait.as_secs_f64()), "{wait:?} for {plain}");
            let again = gates.pause_untimed(&anna(), Cause::Throttled, now);
            assert_eq!(again, wait, "calls under way together count as one");
            now = now.checked_add(wait).unwrap();
        }
        gates.answered(&anna(), now);
        assert!(gates.pause_untimed(&anna(), Cause::Throttled, now) < Duration::from_secs(2));
        let later = now + FORGET + SignedDuration::from_secs(2);
        gates.pause(&Scope::Directory, Duration::from_secs(1), Cause::Throttled, later);
        assert_eq!(held(&gates.pauses).len(), 1, "what is long over is forgotten");
    }

    #[test]
    fn who_stays_away_is_told_why() {
        let gates = Gates::default();
        gates.pause(&anna(), Duration::from_secs(2), Cause::Throttled, at(0));
        let second = Duration::from_secs(1);
        assert!(matches!(
            gates.check(&anna(), at(1)),
            Err(ReadError::Throttled { retry_after: Some(left) }) if left == second
        ));
        gates.pause(&Scope::Directory, Duration::from_secs(2), Cause::Fault("status 503".to_owned()), at(0));
        assert!(matches!(
            gates.check(&Scope::Directory, at(1)),
            Err(ReadError::LeftAlone { left, cause }) if left == second && cause == "status 503"
        ));
        assert!(gates.check(&Scope::Subscriptions, at(1)).is_ok());
    }

    #[tokio::test]
    async fn a_fifth_call_to_a_mailbox_waits_and_another_mailbox_does_not() {
        let gates = Gates::default();
        let anna = anna();
        let mut places = Vec::new();
        for _ in 0..4 {
            places.push(gates.enter(&anna).await.unwrap());
        }
        let mut fifth = std::pin::pin!(gates.enter(&anna));
        assert!(futures_util::poll!(fifth.as_mut()).is_pending());
        assert!(gates.enter(&Scope::Mailbox("bo".to_owned())).await.is_some());
        places.pop();
        assert!(futures_util::poll!(fifth.as_mut()).is_ready());
    }
}
