//! One event as the timetable keeps it: when, which profile, and whether it counts. No subject, no
//! organiser, no categories.

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    judgement::{Hit, Lost, Warning},
    zone::start_of,
};
use crate::model::{CalendarEvent, EventId, EventKind, Interval, ProfileId, ShowAs, When};

/// Names an event, or one occurrence of a series, for good.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventKey {
    /// Id of the item.
    pub event: EventId,
    /// Its series.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<EventId>,
    /// Its slot in the series.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_start: Option<Timestamp>,
}

impl EventKey {
    /// Whether both name the same thing. The slot in the series counts where both have one, as an
    /// occurrence that becomes an exception may get another id.
    pub fn names_same(&self, other: &Self) -> bool {
        match (self.slot(), other.slot()) {
            (Some(one), Some(other)) => one == other,
            _ => self.event == other.event,
        }
    }

    fn slot(&self) -> Option<(&EventId, Timestamp)> {
        self.series.as_ref().zip(self.original_start)
    }
}

impl From<&CalendarEvent> for EventKey {
    fn from(event: &CalendarEvent) -> Self {
        Self { event: event.id.clone(), series: event.series.clone(), original_start: event.original_start }
    }
}

/// Why an event does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exclusion {
    /// The organiser cancelled it.
    Cancelled,
    /// Its subject says that it is cancelled.
    CancellationMark,
    /// Its subject starts with the owner's opt-out mark.
    OptOutMark,
    /// The owner declined.
    Declined,
    /// The owner has not answered.
    Unanswered,
    /// The owner accepted tentatively, and that does not count here.
    Tentative,
    /// It shows as free and is somebody else's.
    FreeInvitation,
    /// It is private, and private events are left out here.
    Private,
    /// It lasts whole days, and such are left out here.
    AllDay,
    /// It does not show as one of the kinds that count here.
    ShowsAs(ShowAs),
    /// Its organiser is outside the company, and such are left out here.
    ExternalOrganizer,
    /// It begins when it ends.
    ZeroLength,
    /// The right to read its subject is missing, so that no word could be found.
    SubjectNotReadable,
    /// It was changed from outside after acceptance so that it would set a profile; at acceptance it set none.
    HeldWithout,
}

/// Whether an event steers the phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counts {
    /// It does.
    Counted,
    /// It does not, and why.
    Excluded(Exclusion),
}

/// What gave the event its profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A trigger word.
    Word(Hit),
    /// No word; how the event shows, by the company's fallback.
    Fallback(ShowAs, ProfileId),
}

impl Cause {
    /// The profile.
    pub fn profile(&self) -> &ProfileId {
        match self {
            Self::Word(hit) => &hit.profile,
            Self::Fallback(_, profile) => profile,
        }
    }

    /// The trigger word as typed in the settings, where a word decided.
    pub fn word(&self) -> Option<&str> {
        match self {
            Self::Word(hit) => Some(&hit.word),
            Self::Fallback(..) => None,
        }
    }
}

/// What an external organiser's later change would have made of the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// The profile the present subject would give; none if it has lost its word.
    pub profile: Option<ProfileId>,
}

/// One event that has a profile, or would have one if it counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which event.
    #[serde(flatten)]
    pub key: EventKey,
    /// What kind of item.
    pub kind: EventKind,
    /// When; whole days stay dates, so that a changed zone needs no new read.
    pub when: When,
    /// What gave it its profile; none only where the subject could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Words found in the subject that did not decide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losers: Vec<Lost>,
    /// What a person should look at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// Whether it steers the phone.
    pub counts: Counts,
    /// Last change, where the server tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<Timestamp>,
    /// A change from outside that was not followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_back: Option<HeldBack>,
    /// What a newer release wrote and this one does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Entry {
    /// The profile it sets, or would set.
    pub fn profile(&self) -> Option<&ProfileId> {
        self.cause.as_ref().map(Cause::profile)
    }

    /// When it takes place, in instants.
    pub fn interval(&self, zone: &TimeZone) -> Interval {
        interval_of(&self.when, zone)
    }
}

/// The instants of `when` in a mailbox's zone.
pub fn interval_of(when: &When, zone: &TimeZone) -> Interval {
    match when {
        When::Timed(interval) => *interval,
        When::AllDay { first, last } => Interval::new(start_of(*first, zone), start_of(*last, zone)),
    }
}
