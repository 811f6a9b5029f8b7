//! One calendar item as read from a calendar server, for the length of a turn.
//!
//! It is the only type that holds a subject, it is never stored, and what could identify a person's
//! doings prints as `[redacted]` (invariant I5).

use std::fmt;

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use serde::{Deserialize, Serialize};

use super::{EventId, Interval};

/// A subject line. It can be read by the trigger matcher and by nothing that prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Subject(String);

impl Subject {
    /// Wraps the text of a subject.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for matching only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// When an event takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Between two instants.
    Timed(Interval),
    /// Whole days in the mailbox's own zone, `last` not included.
    AllDay {
        /// First day.
        first: Date,
        /// Day after the last.
        last: Date,
    },
}

/// What kind of calendar item it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Stands alone.
    Single,
    /// One of a series, as the pattern has it.
    Occurrence,
    /// One of a series, changed by hand.
    Exception,
    /// The series itself: never a time at which something happens.
    SeriesMaster,
}

/// How the event shows in the owner's calendar (`showAs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShowAs {
    /// Free.
    Free,
    /// Tentative.
    Tentative,
    /// Busy.
    Busy,
    /// Out of office (`oof`).
    Oof,
    /// Working elsewhere.
    WorkingElsewhere,
    /// Anything the calendar server says that is none of the others.
    Unknown,
}

/// The label on the event that speaks of privacy (`sensitivity`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sensitivity {
    /// Nothing special.
    Normal,
    /// Personal, private or confidential.
    Private,
}

/// What the owner answered to the invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// It is the owner's own event: an appointment or a meeting the owner calls.
    Organizer,
    /// Accepted.
    Accepted,
    /// Tentatively accepted.
    Tentative,
    /// Declined.
    Declined,
    /// Not answered (`notResponded`, and `none` on somebody else's event).
    None,
}

/// One calendar item.
#[derive(Clone, PartialEq, Eq)]
pub struct CalendarEvent {
    /// Immutable id.
    pub id: EventId,
    /// Id of the series it belongs to.
    pub series: Option<EventId>,
    /// What kind of item.
    pub kind: EventKind,
    /// Slot in the series' pattern; with the series' id it names an occurrence for good.
    pub original_start: Option<Timestamp>,
    /// Subject; `None` where the right to read it is missing.
    pub subject: Option<Subject>,
    /// When it takes place.
    pub when: When,
    /// How it shows.
    pub show_as: ShowAs,
    /// Privacy label.
    pub sensitivity: Sensitivity,
    /// The owner's answer.
    pub response: Response,
    /// Whether the organiser cancelled it.
    pub cancelled: bool,
    /// Category names (user text: never stored).
    pub categories: Vec<String>,
    /// Domain part of the organiser's address, in lower case, where there is one.
    pub organizer_domain: Option<String>,
    /// Last change, where the server tells.
    pub last_modified: Option<Timestamp>,
}

impl CalendarEvent {
    /// Whether it lasts whole days.
    pub fn is_of_whole_days(&self) -> bool {
        matches!(self.when, When::AllDay { .. })
    }

    /// Whether it takes place in this time, wherever its days begin.
    pub fn may_touch(&self, time: Interval) -> bool {
        match self.when {
            When::Timed(interval) => interval.start < time.end && time.start < interval.end,
            When::AllDay { first, last } => {
                let day = SignedDuration::from_hours(24);
                let date = |at: Timestamp| at.to_zoned(TimeZone::UTC).date();
                first <= date(time.end + day) && date(time.start - day) <= last
            }
        }
    }
}

impl fmt::Debug for CalendarEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CalendarEvent")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("when", &self.when)
            .field("show_as", &self.show_as)
            .field("response", &self.response)
            .field("cancelled", &self.cancelled)
            .finish_non_exhaustive()
    }
}
