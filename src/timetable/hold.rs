//! What binds an accepted invitation from outside: the outcome that the first read after acceptance saw.
//!
//! A later change of the subject by the organiser does not steer the phone. Only the outcome is kept, per
//! event, and per series by its master, so that occurrences which enter the window later are bound too.
//! "No word" is an outcome and binds like any other.
//!
//! Why `diverged` is kept: when the company changes its words, an event whose subject was never seen to
//! change follows the new words; one that was changed from outside does not. Nothing of a subject needs
//! to be stored for that.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::judgement::Hit;
use crate::model::{CalendarEvent, EventId, Interval};

/// How long a hold outlives the last sight of its event: a series may come once a year.
const KEPT_UNSEEN: SignedDuration = SignedDuration::from_hours(400 * 24);

/// The bound outcome of one event or series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// What was seen first; `None`: no word.
    pub hit: Option<Hit>,
    /// Events bound by it that were accepted when last read.
    pub carriers: BTreeSet<EventId>,
    /// Those of them whose subject would now give another profile.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub diverged: BTreeSet<EventId>,
    /// Whether it binds a series.
    #[serde(default)]
    pub is_series: bool,
    /// Start of the window in which it was last seen.
    pub seen: Timestamp,
    /// Latest known end of an event bound by it.
    pub ends: Timestamp,
    /// What a newer release wrote and this one does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Hold {
    pub(super) fn new(hit: Option<Hit>, is_series: bool, window: Interval) -> Self {
        Self {
            hit,
            carriers: BTreeSet::new(),
            diverged: BTreeSet::new(),
            is_series,
            seen: window.start,
            ends: Timestamp::MIN,
            extra: Map::new(),
        }
    }

    /// Notes that `event` was seen, accepted, and what its subject says now.
    pub(super) fn carry(&mut self, event: &EventId, now: Option<&Hit>, end: Timestamp, window: Interval) {
        self.carriers.insert(event.clone());
        self.seen = window.start;
        self.ends = self.ends.max(end);
        if now.map(|hit| &hit.profile) == self.hit.as_ref().map(|hit| &hit.profile) {
            self.diverged.remove(event);
        } else {
            self.diverged.insert(event.clone());
        }
    }

    /// Notes that `event` is not bound by it any more, or is out of sight; says whether it was bound.
    pub(super) fn drop_carrier(&mut self, event: &EventId) -> bool {
        self.diverged.remove(event);
        self.carriers.remove(event)
    }

    /// Whether it may still be needed in `window`, though none of its events was seen there.
    pub(super) fn outlives(&self, window: Interval) -> bool {
        let aged_out = !self.is_series && self.ends <= window.start;
        !aged_out && window.start.duration_since(self.seen) <= KEPT_UNSEEN
    }
}

/// Under which id an event's outcome is held: its series', else its own.
pub(super) fn holder(event: &CalendarEvent) -> &EventId {
    event.series.as_ref().unwrap_or(&event.id)
}
