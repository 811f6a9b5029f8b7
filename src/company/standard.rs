//! Placeholder until the standard set arrives.

use crate::model::{AsteriskState, AsteriskTerms, PbxTerms, Profile};

/// The set every company has unless it says otherwise.
pub const DEFAULT_SET: &str = "sv-default";

/// Names of all sets.
pub const SETS: [&str; 2] = ["sv-default", "sv-words"];

/// Profiles by rank, without words.
pub fn profiles() -> Vec<Profile> {
    let terms = |state| PbxTerms { asterisk: AsteriskTerms { state, dnd: false }, http: Default::default() };
    [("sick", "Sjuk", "Sick"), ("meeting", "Möte", "Meeting"), ("available", "Tillgänglig", "Available")]
        .into_iter()
        .filter_map(|(id, sv, en)| {
            Some(Profile {
                id: id.parse().ok()?,
                name_sv: sv.into(),
                name_en: en.into(),
                label: None,
                sensitive: id == "sick",
                triggers: vec![],
                own_triggers: vec![],
                before_start_secs: 0,
                after_end_secs: 0,
                calendar_may_not_override: false,
                is_available: id == "available",
                pbx: terms(AsteriskState::Away),
            })
        })
        .collect()
}

/// Words of a set, by profile.
pub fn words(set: &str) -> Option<Vec<(&'static str, &'static str)>> {
    match set {
        "sv-default" => Some(vec![("sick", "Sick"), ("meeting", "Meeting; MÖT"), ("available", "Available")]),
        "sv-words" => Some(vec![("sick", "Sjuk*"), ("meeting", "Möte*")]),
        _ => None,
    }
}
