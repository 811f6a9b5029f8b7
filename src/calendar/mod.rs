//! What a turn reads: rounds over a window, and single changes.
//!
//! Declares [`CalendarSource`] and [`BroughtEvents`], implemented by `graph/` (and later by Exchange on-premises). An answer is
//! complete or it is an error: page two failing never looks like a short day (invariant I4).
//!
//! The truth comes by rounds. One from the start of a window brings all that it holds; it ends with a
//! [`DeltaLink`], from which the next brings what has changed since, at the cost of one request where nothing has.
//! A window is frozen in its link and is rolled every night ([`next_roll`]). How soon after one round the next
//! comes where nothing is announced is decided by [`SweepPlan`] from what is known of push.

mod roll;
mod round;
mod sweep;

use std::time::Duration;

pub use self::{
    roll::next_roll,
    round::{DeltaLink, Round},
    sweep::{Push, PushRecord, SweepPlan},
};
use async_trait::async_trait;

use crate::model::{CalendarEvent, Disposition, EventId, Interval, MailboxId};

/// A mailbox in its calendar server's terms.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct MailboxRef {
    /// Object id of the user (a GUID with Graph); a single path segment.
    pub object: String,
}

/// A user found by its alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The mailbox.
    pub mailbox: MailboxRef,
    /// The primary SMTP address where it differs from the alias asked for: shown, with the remedy, not guessed away.
    pub primary_smtp: Option<String>,
}

/// Why a calendar could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Wait.
    #[error("the calendar server asks us to slow down")]
    Throttled {
        /// Its own wish, if it named one.
        retry_after: Option<Duration>,
    },
    /// It failed several times in a row and is not asked at all until some time has passed.
    #[error("the calendar server failed several times in a row ({cause}) and is left alone for {} s more", left.as_secs().max(1))]
    LeftAlone {
        /// How long that is.
        left: Duration,
        /// What it failed with last.
        cause: String,
    },
    /// No answer, a broken one, or a fault on its side.
    #[error("the calendar server did not answer as it should")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An answer that could not be understood, with the place.
    #[error("the calendar server's answer was not understood at `{place}`")]
    Unreadable {
        /// Path in the document.
        place: String,
    },
    /// The server does not know any more where an earlier round ended, or where this one is: a round from the
    /// start of a window is needed.
    #[error("the calendar server has forgotten where the last read ended")]
    LinkExpired,
    /// Our own credentials are wrong or expired: every company is concerned.
    #[error("the login service refuses our application's credentials: {reason}")]
    Credentials {
        /// The service's code, as `AADSTS7000222`.
        reason: String,
    },
    /// The company has not consented, or has withdrawn its consent.
    #[error("the company has not consented to our application: {reason}")]
    NoConsent {
        /// The service's code.
        reason: String,
    },
    /// This mailbox may not be read: an access policy, a role scope, a missing permission.
    #[error("reading this mailbox is not allowed: {reason}")]
    Denied {
        /// The server's code.
        reason: String,
    },
    /// No user has this alias.
    #[error("no user of the company has that address")]
    UnknownAlias {
        /// The alias asked for.
        alias: String,
    },
    /// More than one user has it.
    #[error("more than one user of the company has that address")]
    AmbiguousAlias {
        /// The alias asked for.
        alias: String,
    },
    /// There is a user, and no mailbox: no licence, a guest, or it is on-premises.
    #[error("the user has no mailbox in the cloud: {reason}")]
    NoMailbox {
        /// The server's code.
        reason: String,
    },
    /// The user is gone.
    #[error("the user is gone: {reason}")]
    Gone {
        /// The server's code.
        reason: String,
    },
    /// The server understood and refused: an error of ours.
    #[error("the calendar server refused the request: {reason}")]
    Refused {
        /// The server's code.
        reason: String,
    },
}

impl ReadError {
    /// What the queue does next.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Throttled { retry_after } => Disposition::Retry { after: *retry_after },
            Self::LeftAlone { left, .. } => Disposition::Retry { after: Some(*left) },
            Self::Unreachable(_) | Self::Unreadable { .. } | Self::LinkExpired | Self::Credentials { .. } => {
                Disposition::Retry { after: None }
            }
            Self::NoConsent { .. }
            | Self::Denied { .. }
            | Self::UnknownAlias { .. }
            | Self::AmbiguousAlias { .. }
            | Self::NoMailbox { .. }
            | Self::Gone { .. }
            | Self::Refused { .. } => Disposition::Park,
        }
    }
}

/// Calendars of one company, read on the application's own authority.
#[async_trait]
pub trait CalendarSource: Send + Sync + 'static {
    /// Finds the user with this address.
    ///
    /// # Errors
    /// [`ReadError::UnknownAlias`], [`ReadError::AmbiguousAlias`], and all that a read can meet.
    async fn resolve(&self, alias: &str) -> Result<Resolved, ReadError>;

    /// The mailbox's time zone as the server spells it (Windows or IANA name); `None` where it has none.
    ///
    /// # Errors
    /// All that a read can meet.
    async fn time_zone(&self, mailbox: &MailboxRef) -> Result<Option<String>, ReadError>;

    /// All events of the default calendar that touch the window, series expanded; with the link of an earlier
    /// round over the same window what has changed since. Never a partial answer.
    ///
    /// # Errors
    /// [`ReadError::LinkExpired`], and all that a read can meet.
    async fn round(
        &self,
        mailbox: &MailboxRef,
        window: Interval,
        since: Option<&DeltaLink>,
    ) -> Result<Round, ReadError>;

    /// One event as it is now; `None` where it is gone or cannot be seen.
    ///
    /// # Errors
    /// All that a read can meet.
    async fn event(&self, mailbox: &MailboxRef, id: &EventId) -> Result<Option<CalendarEvent>, ReadError>;

    /// Occurrences and exceptions of a series that touch the window; empty where the series is gone.
    ///
    /// # Errors
    /// All that a read can meet.
    async fn instances(
        &self,
        mailbox: &MailboxRef,
        series: &EventId,
        window: Interval,
    ) -> Result<Vec<CalendarEvent>, ReadError>;

    /// Whether an event got by its id lies in the default calendar: subscriptions report all calendars, one counts.
    ///
    /// # Errors
    /// All that a read can meet.
    async fn in_default_calendar(
        &self,
        mailbox: &MailboxRef,
        event: &CalendarEvent,
    ) -> Result<bool, ReadError>;

    /// Tries the login and says in a sentence what was found.
    ///
    /// # Errors
    /// What a technician has to mend.
    async fn check(&self) -> Result<String, ReadError>;
}

/// Events that came with their notifications, where a company has them sent along.
#[async_trait]
pub trait BroughtEvents: Send + Sync + 'static {
    /// A round over `whose` calendar begins: what its notifications bring from now on may be newer. Before the first,
    /// nothing that they bring is kept.
    fn expect(&self, whose: MailboxId);

    /// A round over `whose` calendar has ended. It may have shown any event as it was until now, so that what is brought
    /// has to be newer than this.
    fn has_read(&self, whose: MailboxId);

    /// One event as [`CalendarSource::event`] reads it; without a request to the server where what a notification
    /// brought of it is genuine, whole, and newer than all that is known of it. `watch` is the generation of the
    /// subscription that lives: what came by another one may be out of another's calendar, who had the address before.
    ///
    /// # Errors
    /// All that a read can meet.
    async fn event(
        &self,
        whose: MailboxId,
        mailbox: &MailboxRef,
        id: &EventId,
        watch: Option<u32>,
    ) -> Result<Option<CalendarEvent>, ReadError>;

    /// As [`CalendarSource::in_default_calendar`], for the event that was read last; without a request where what was
    /// brought tells.
    ///
    /// # Errors
    /// All that a read can meet.
    async fn in_default_calendar(
        &self,
        whose: MailboxId,
        mailbox: &MailboxRef,
        event: &CalendarEvent,
    ) -> Result<bool, ReadError>;
}
