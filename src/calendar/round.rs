//! A round: all that a calendar's window holds, or what has changed in it since the round before.

use std::{collections::HashMap, fmt};

use serde::{Deserialize, Serialize};

use crate::model::{CalendarEvent, EventId, ItemVersion};

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
    /// In which version the round had an item, of those that it names a version of.
    pub versions: HashMap<EventId, ItemVersion>,
    /// Where the next round goes on.
    pub link: DeltaLink,
}

impl Round {
    /// Whether this says how an item is of which that version was announced; a round may lag behind what it follows,
    /// and speak of an older one.
    pub fn answers(&self, item: &EventId, announced: Option<ItemVersion>) -> bool {
        let Some(announced) = announced else { return false };
        // Deleted, or moved out of what is read. (Moved back in the moment by which the round lags, it would be missed
        // until the next one.)
        if self.gone.contains(item) {
            return true;
        }
        // Series are not as the round had them: each was read anew after it.
        let of_series = |(series, occurrences): &(EventId, Vec<CalendarEvent>)| {
            series == item || occurrences.iter().any(|occurrence| occurrence.id == *item)
        };
        let spoken_of = self.versions.get(item) == Some(&announced) || self.series.iter().any(of_series);
        spoken_of && !announced.is_of_deleted()
    }

    /// What of it lasts whole days, which begin by the clocks of the mailbox.
    pub fn whole_days(&self) -> impl Iterator<Item = &CalendarEvent> {
        let of_series = self.series.iter().flat_map(|(_, occurrences)| occurrences);
        self.events.iter().chain(of_series).filter(|event| event.is_of_whole_days())
    }

    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.series.is_empty() && self.gone.is_empty()
    }
}
