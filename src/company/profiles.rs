//! A company's profiles: the standard ones, the words of its sets, its own changes and additions, by rank.

use super::{
    file::{AsteriskEntry, CompanyFile, ProfileEntry},
    standard,
};
use crate::model::{AsteriskState, AsteriskTerms, PbxTerms, Profile, ProfileId};

/// Where a trigger word of a profile comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A set that ships with the service.
    Set(String),
    /// A key in the file.
    Key(String),
}

/// One trigger word of one profile, and where it comes from.
#[derive(Debug, Clone)]
pub(super) struct Trigger {
    pub(super) profile: ProfileId,
    pub(super) word: String,
    pub(super) origin: Origin,
}

/// The profiles with their words, highest rank first.
pub(super) fn resolve(file: &CompanyFile) -> Vec<Profile> {
    let mut profiles = standard::profiles();
    for entry in &file.profiles {
        match profiles.iter_mut().find(|profile| profile.id == entry.id) {
            Some(profile) => change(profile, entry),
            None => insert(&mut profiles, entry),
        }
    }
    for Trigger { profile, word, .. } in triggers(file) {
        if let Some(profile) = profiles.iter_mut().find(|candidate| candidate.id == profile)
            && !profile.triggers.iter().any(|known| super::words::same(known, &word))
        {
            profile.triggers.push(word);
        }
    }
    by_rank(profiles, &file.profile_order)
}

/// All trigger words of the company, in the order in which they take hold.
pub(super) fn triggers(file: &CompanyFile) -> Vec<Trigger> {
    let mut triggers = Vec::new();
    let replaces =
        |id: &ProfileId| file.profiles.iter().any(|entry| entry.id == *id && entry.triggers.is_some());
    for set in &file.trigger_sets {
        for (profile, words) in standard::words(set).into_iter().flatten() {
            let Ok(profile) = profile.parse::<ProfileId>() else { continue };
            if !replaces(&profile) {
                let origin = Origin::Set(set.clone());
                let words = words.split(';').map(str::trim);
                triggers.extend(words.map(|word| Trigger {
                    profile: profile.clone(),
                    word: word.to_owned(),
                    origin: origin.clone(),
                }));
            }
        }
    }
    for (index, entry) in file.profiles.iter().enumerate() {
        let mut add = |key: &str, words: &[String]| {
            let origin = Origin::Key(format!("profiles[{index}].{key}"));
            triggers.extend(words.iter().map(|word| Trigger {
                profile: entry.id.clone(),
                word: word.clone(),
                origin: origin.clone(),
            }));
        };
        if let Some(words) = &entry.triggers {
            add("triggers", words);
        }
        add("add_triggers", &entry.add_triggers);
    }
    triggers
}

fn change(profile: &mut Profile, entry: &ProfileEntry) {
    fn set<T: Clone>(field: &mut T, value: Option<&T>) {
        if let Some(value) = value {
            field.clone_from(value);
        }
    }
    set(&mut profile.name_sv, entry.name_sv.as_ref());
    set(&mut profile.name_en, entry.name_en.as_ref());
    set(&mut profile.sensitive, entry.sensitive.as_ref());
    set(&mut profile.before_start_secs, entry.before_start_secs.as_ref());
    set(&mut profile.after_end_secs, entry.after_end_secs.as_ref());
    set(&mut profile.calendar_may_not_override, entry.calendar_may_not_override.as_ref());
    if let Some(label) = &entry.label {
        // An empty label takes the standard's away.
        profile.label = Some(label.clone()).filter(|label| !label.is_empty());
    }
    let Some(pbx) = &entry.pbx else { return };
    if let Some(AsteriskEntry { state, dnd }) = &pbx.asterisk {
        set(&mut profile.pbx.asterisk.state, state.as_ref());
        set(&mut profile.pbx.asterisk.dnd, dnd.as_ref());
    }
    profile.pbx.http.extend(pbx.http.clone());
}

/// A profile of the company's own ranks below the standard ones and above "Tillgänglig", until `profile_order` says else.
fn insert(profiles: &mut Vec<Profile>, entry: &ProfileEntry) {
    let name_sv = entry.name_sv.clone().unwrap_or_else(|| entry.id.to_string());
    let mut profile = Profile {
        id: entry.id.clone(),
        name_en: entry.name_en.clone().unwrap_or_else(|| name_sv.clone()),
        name_sv,
        label: None,
        sensitive: false,
        triggers: Vec::new(),
        own_triggers: Vec::new(),
        before_start_secs: 0,
        after_end_secs: 0,
        calendar_may_not_override: false,
        is_available: false,
        pbx: PbxTerms {
            asterisk: AsteriskTerms { state: AsteriskState::Away, dnd: false },
            http: std::collections::BTreeMap::new(),
        },
    };
    change(&mut profile, entry);
    let place = profiles.iter().position(|profile| profile.is_available).unwrap_or(profiles.len());
    profiles.insert(place, profile);
}

fn by_rank(mut profiles: Vec<Profile>, order: &[ProfileId]) -> Vec<Profile> {
    let rank = |profile: &Profile| order.iter().position(|id| *id == profile.id).unwrap_or(order.len());
    // Stable: those not named keep the order they have.
    profiles.sort_by_key(rank);
    profiles
}
