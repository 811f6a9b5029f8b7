//! A round: all that a calendar's window holds, or what has changed in it since the round before.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{CalendarEvent, EventId};

/// Where a round ended and the next one goes on: the calendar server's own words, kept and used as they are. The
/// window of the round is frozen in it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeltaLink(String);

impl DeltaLink {
    /// Wraps what the server said.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// What the server said.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DeltaLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It is long, holds the mailbox's id, and says nothing to a person.
        f.write_str("[link]")
    }
}

/// What a round brought. Each event stands in it once, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Events; in a round from the start of a window occurrences of series too, in a later one only those that
    /// belong to no series.
    pub events: Vec<CalendarEvent>,
    /// Series that have changed, each with all its occurrences in the window as they are now; none in a round
    /// from the start of a window.
    pub series: Vec<(EventId, Vec<CalendarEvent>)>,
    /// Events and series that are gone, or have left the window. Some were never known.
    pub gone: Vec<EventId>,
    /// Where the next round goes on.
    pub link: DeltaLink,
}

impl Round {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.series.is_empty() && self.gone.is_empty()
    }
}
