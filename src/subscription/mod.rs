//! Keeps watches on mailboxes alive: created, renewed at half life, created anew when gone; and judges whether what
//! they should announce is announced ([`Push`]).
//!
//! Declares [`WatchKeeper`], implemented by `graph/`.

mod push;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

pub use push::{Push, PushHealth};

use crate::{
    calendar::{MailboxRef, ReadError},
    model::SubscriptionId,
};

/// A watch that is to be set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchRequest {
    /// The mailbox to watch.
    pub mailbox: MailboxRef,
    /// Where notifications go.
    pub notification_url: String,
    /// Where lifecycle notifications go.
    pub lifecycle_url: String,
    /// The secret that each notification will carry; at most 128 characters.
    pub client_state: String,
    /// How long it should live.
    pub until: Timestamp,
}

/// A watch as the calendar server confirmed it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Watch {
    /// Its name there.
    pub id: SubscriptionId,
    /// When it ends, in the server's own words: what was asked for is not trusted.
    pub expires: Timestamp,
}

/// A watch of this application as the calendar server lists it, whoever set it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedWatch {
    /// Its name there.
    pub id: SubscriptionId,
    /// The mailbox whose events it watches; `None` where it watches something else.
    pub mailbox: Option<MailboxRef>,
    /// Where its notifications go.
    pub reports_to: String,
}

impl ListedWatch {
    /// Whether it watches that mailbox's events.
    pub fn is_on(&self, mailbox: &MailboxRef) -> bool {
        self.mailbox.as_ref().is_some_and(|own| own.object.eq_ignore_ascii_case(&mailbox.object))
    }
}

/// One page of the list of watches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchPage {
    /// What stands on it.
    pub watches: Vec<ListedWatch>,
    /// What to ask for the next one with; `None` on the last.
    pub next: Option<String>,
}

/// Why a watch could not be set up or renewed.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Another one for the same mailbox and resource exists (409).
    #[error("a subscription for this mailbox exists already")]
    Exists {
        /// Which one, where the server said so: a hint, its words are no contract.
        named: Option<SubscriptionId>,
    },
    /// Another one exists that reports to somebody else: it is not ours to end.
    #[error("another installation of the application watches this mailbox and reports to `{host}`")]
    Elsewhere {
        /// Whose host that is.
        host: String,
    },
    /// It is gone: create it anew (404 at renewal).
    #[error("the subscription is gone")]
    Gone,
    /// Our notification address could not be reached or did not answer as it must.
    #[error("the calendar server could not validate our notification address: {reason}")]
    EndpointRefused {
        /// The server's code and message; they speak of our endpoint only.
        reason: String,
    },
    /// Too many subscriptions on this mailbox, over all applications.
    #[error("the mailbox has as many subscriptions as it may have")]
    Quota,
    /// All that a read can meet too.
    #[error("cannot reach the mailbox")]
    Read(#[source] ReadError),
}

/// Watches of one company's mailboxes.
#[async_trait]
pub trait WatchKeeper: Send + Sync + 'static {
    /// Sets up a watch; the server calls our notification address before this returns.
    ///
    /// # Errors
    /// [`WatchError::Exists`] calls for [`look`](Self::look) or [`find`](Self::find), and [`remove`](Self::remove).
    async fn create(&self, request: &WatchRequest) -> Result<Watch, WatchError>;

    /// Extends a watch until `until`.
    ///
    /// # Errors
    /// [`WatchError::Gone`] calls for [`create`](Self::create).
    async fn renew(&self, id: &SubscriptionId, until: Timestamp) -> Result<Watch, WatchError>;

    /// Ends a watch; one that is gone already counts as ended.
    ///
    /// # Errors
    /// All that a read can meet.
    async fn remove(&self, id: &SubscriptionId) -> Result<(), WatchError>;

    /// One watch of this application; `None` where it is gone.
    ///
    /// # Errors
    /// All that a read can meet.
    async fn look(&self, id: &SubscriptionId) -> Result<Option<ListedWatch>, WatchError>;

    /// Watches of this application on that mailbox's events, whoever set them up. It reads the whole list, which a
    /// calendar server allows seldom: [`look`](Self::look) is better where a name is known.
    ///
    /// # Errors
    /// All that a read can meet.
    async fn find(&self, mailbox: &MailboxRef) -> Result<Vec<ListedWatch>, WatchError>;

    /// A page of all watches of this application on the company: the first one, or the one that `next` names.
    ///
    /// # Errors
    /// All that a read can meet; [`ReadError::Throttled`] where the list was asked for often enough.
    async fn list(&self, next: Option<&str>) -> Result<WatchPage, WatchError>;
}

/// How watches are set up: where they report to, how long they live, when they are renewed.
#[derive(Debug, Clone)]
pub struct WatchPlan {
    /// Where notifications go.
    pub notification_url: String,
    /// Where lifecycle notifications go.
    pub lifecycle_url: String,
    /// Makes the secret each watch carries.
    pub keys: crate::webhook::client_state::StateKeys,
    /// How long a watch is asked to live. Graph allows 10,080 minutes for events and refuses more, so a margin is kept.
    pub life: SignedDuration,
}

/// What Graph allows for events and contacts without resource data, less a quarter of an hour for clocks that differ.
pub const LONGEST_LIFE: SignedDuration = SignedDuration::from_mins(10_080 - 15);

impl WatchPlan {
    /// Until when a watch is asked for.
    pub fn until(&self, now: Timestamp) -> Timestamp {
        now.checked_add(self.life).unwrap_or(Timestamp::MAX)
    }

    /// When a watch that `expires` is renewed: at half its life, spread by a tenth of it each way by `share` in
    /// `[0, 1)`, so that those set up together do not return together.
    pub fn renew_at(&self, now: Timestamp, expires: Timestamp, share: f64) -> Timestamp {
        let life = expires.duration_since(now).as_secs_f64().max(0.0);
        let after = SignedDuration::from_secs_f64(life * (0.4 + 0.2 * share));
        now.checked_add(after).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretSlice;

    use super::*;
    use crate::webhook::client_state::{StateKey, StateKeys};

    #[test]
    fn a_watch_is_renewed_around_half_its_life() {
        let key = StateKey::new("a", &SecretSlice::from(vec![1; 32])).unwrap();
        let plan = WatchPlan {
            notification_url: String::new(),
            lifecycle_url: String::new(),
            keys: StateKeys::new(key, None),
            life: LONGEST_LIFE,
        };
        let now = Timestamp::UNIX_EPOCH;
        let expires = now + SignedDuration::from_hours(100);
        let at = |share| plan.renew_at(now, expires, share).duration_since(now);
        assert_eq!(at(0.0), SignedDuration::from_hours(40));
        assert!((at(0.999) - SignedDuration::from_hours(60)).abs() < SignedDuration::from_mins(10));
        assert_eq!(plan.renew_at(now, now, 0.5), now);
    }
}
