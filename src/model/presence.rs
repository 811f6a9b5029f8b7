//! What a PBX is told and what it shows.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{PbxTerms, ProfileId};

/// A profile on its way to the PBX, with the texts ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outward {
    /// Which profile.
    pub profile: ProfileId,
    /// What others see as its name: the outward label, else the name in the company's language.
    pub label: String,
    /// The return time in words, as `till 15:00` or `till 3 dec`; empty without one.
    pub note: String,
    /// When the shown profile changes; `None` for a base without an end.
    pub until: Option<Timestamp>,
    /// When the user is really available again, where that is known.
    pub available_at: Option<Timestamp>,
    /// What PBXs are told for the profile.
    pub terms: PbxTerms,
}

/// What a PBX shows, in the driver's own canonical fields (`state`, `text` ...): equal if and only if the same shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shown(pub BTreeMap<String, String>);

impl Shown {
    /// A state made of these fields.
    pub fn of<const N: usize>(fields: [(&str, &str); N]) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// One field's value, empty where absent.
    pub fn field(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

/// What the PBX should show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// A profile of ours.
    Profile(Outward),
    /// Something a person had set there by hand, put back as it was found.
    AsFound(Shown),
}

/// What was read back from the PBX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readback {
    /// What it shows.
    pub shown: Shown,
    /// Whether that is what a PBX shows that was never told anything.
    pub is_default: bool,
    /// The profile that it means, where the driver can tell.
    pub profile: Option<ProfileId>,
    /// The end that was set along with it on the PBX, where the PBX has such a thing.
    pub until: Option<Timestamp>,
}
