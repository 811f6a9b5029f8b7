//! How fast Graph may be asked: four calls at a time per mailbox, pauses it asked for, and the pace of lists.
//!
//! Nothing here sleeps: a call that has to wait is refused with the time that is left, and the queue waits.
//! The one exception is the place among the four, which is waited for; each call ahead of it has a time-out.
//! Limits: <https://learn.microsoft.com/graph/throttling-limits> (2026-02).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::TenantId;

/// Outlook's limit per application and mailbox.
const CALLS_PER_MAILBOX: usize = 4;

/// From this many on, what is no longer in use is cleared away.
const CLEAR_FROM: usize = 1024;

/// The window in which lists of subscriptions are counted.
const LIST_WINDOW: SignedDuration = SignedDuration::from_secs(20);

/// Lists per window and tenant; Graph allows 25, and another instance may share the application.
const LISTS_PER_TENANT: usize = 10;

/// Lists per window over all tenants; Graph allows 40.
const LISTS_IN_ALL: usize = 20;

/// Whom a call concerns, and so whom a pause concerns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    /// One mailbox, by its object id.
    Mailbox(String),
    /// The directory of the tenant.
    Directory,
    /// The subscriptions of the tenant.
    Subscriptions,
}

/// The gates of one tenant.
#[derive(Debug, Default)]
pub(super) struct Gates {
    places: Mutex<HashMap<String, Arc<Semaphore>>>,
    pauses: Mutex<HashMap<Scope, Timestamp>>,
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
    pub(super) fn pause(&self, scope: &Scope, wait: Duration, now: Timestamp) {
        let Ok(until) = now.checked_add(wait) else { return };
        let mut pauses = held(&self.pauses);
        pauses.retain(|_, until| *until > now);
        let slot = pauses.entry(scope.clone()).or_insert(until);
        *slot = until.max(*slot);
    }

    /// How long calls of this scope still have to stay away.
    pub(super) fn pause_left(&self, scope: &Scope, now: Timestamp) -> Option<Duration> {
        let until = *held(&self.pauses).get(scope)?;
        Duration::try_from(until.duration_since(now)).ok().filter(|left| !left.is_zero())
    }
}

/// The pace of subscription lists, over all tenants of the application.
#[derive(Debug, Default)]
pub(super) struct ListPace {
    recent: Mutex<VecDeque<(Timestamp, TenantId)>>,
}

impl ListPace {
    /// Takes a turn, or says how long to wait for one.
    pub(super) fn take(&self, tenant: &TenantId, now: Timestamp) -> Result<(), Duration> {
        let mut recent = held(&self.recent);
        while recent.front().is_some_and(|(at, _)| now.duration_since(*at) >= LIST_WINDOW) {
            recent.pop_front();
        }
        let of_tenant = || recent.iter().filter(|(_, who)| who == tenant);
        let blocking = if recent.len() >= LISTS_IN_ALL {
            recent.front()
        } else if of_tenant().count() >= LISTS_PER_TENANT {
            of_tenant().next()
        } else {
            None
        };
        if let Some((at, _)) = blocking {
            return Err(Duration::try_from(LIST_WINDOW - now.duration_since(*at)).unwrap_or(Duration::ZERO));
        }
        recent.push_back((now, tenant.clone()));
        Ok(())
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

    fn tenant(n: u8) -> TenantId {
        format!("{n:08}-0000-0000-0000-000000000000").parse().unwrap()
    }

    #[test]
    fn a_pause_keeps_its_own_scope_away_until_it_ends_and_is_never_shortened() {
        let gates = Gates::default();
        let anna = Scope::Mailbox("anna".to_owned());
        gates.pause(&anna, Duration::from_secs(10), at(0));
        gates.pause(&anna, Duration::from_secs(2), at(1));
        assert_eq!(gates.pause_left(&anna, at(4)), Some(Duration::from_secs(6)));
        assert_eq!(gates.pause_left(&Scope::Mailbox("bo".to_owned()), at(4)), None);
        assert_eq!(gates.pause_left(&Scope::Directory, at(4)), None);
        assert_eq!(gates.pause_left(&anna, at(10)), None);
    }

    #[tokio::test]
    async fn a_fifth_call_to_a_mailbox_waits_and_another_mailbox_does_not() {
        let gates = Gates::default();
        let anna = Scope::Mailbox("anna".to_owned());
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

    #[test]
    fn lists_are_paced_per_tenant_and_over_all() {
        let pace = ListPace::default();
        for _ in 0..LISTS_PER_TENANT {
            pace.take(&tenant(1), at(0)).unwrap();
        }
        assert_eq!(pace.take(&tenant(1), at(5)), Err(Duration::from_secs(15)));
        for _ in 0..(LISTS_IN_ALL - LISTS_PER_TENANT) {
            pace.take(&tenant(2), at(5)).unwrap();
        }
        assert_eq!(pace.take(&tenant(3), at(6)), Err(Duration::from_secs(14)));
        assert_eq!(pace.take(&tenant(3), at(20)), Ok(()));
    }
}
