//! What lies over and under the calendar: the base, and a change made by hand during an event.
//!
//! The layers are stored apart and the effective state is computed from them each time; nothing is ever
//! "restored" to a value that was true once.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    model::{Interval, ProfileId, Rules, Shown},
    timetable::EventKey,
};

/// What a person chose to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A profile of ours, chosen in the portal or by the API.
    Profile(ProfileId),
    /// What was found on the PBX, to be put back as it was found.
    AsFound {
        /// The state in the driver's fields.
        shown: Shown,
        /// The profile it means, where the driver could tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        profile: Option<ProfileId>,
    },
}

impl What {
    /// The profile, where one is known.
    pub fn profile(&self) -> Option<&ProfileId> {
        match self {
            Self::Profile(profile) => Some(profile),
            Self::AsFound { profile, .. } => profile.as_ref(),
        }
    }
}

/// What shows when neither calendar nor override says anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// What.
    pub what: What,
    /// When it runs out; then Available takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// When it was set.
    pub set_at: Timestamp,
    /// Whether an event has come after it, where the company wants Available after events.
    #[serde(default)]
    pub hidden: bool,
    /// What a newer release wrote and this one does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Base {
    /// A base set at `set_at`, without an end.
    pub fn new(what: What, set_at: Timestamp) -> Self {
        Self { what, until: None, set_at, hidden: false, extra: Map::new() }
    }
}

/// A change made by hand during an event: it wins until that event ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// The event that was deciding.
    pub event: EventKey,
    /// That event's profile then: another profile later means another event.
    pub event_profile: ProfileId,
    /// That event's time then.
    pub event_time: Interval,
    /// What was chosen.
    pub what: What,
    /// An end of its own, where the person chose one; it counts if it comes before the event's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// When it was made.
    pub set_at: Timestamp,
    /// What a newer release wrote and this one does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The layers of one mailbox besides its calendar.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    /// The base; none: nobody has set one, or it has run out, and Available shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// The change by hand.
    #[serde(default, rename = "override", skip_serializing_if = "Option::is_none")]
    pub override_: Option<Override>,
    /// What a newer release wrote and this one does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The profile of being there: what shows when nothing else does.
pub(super) fn available(rules: &Rules) -> Option<&ProfileId> {
    rules.profiles.iter().find(|profile| profile.is_available).map(|profile| &profile.id)
}
