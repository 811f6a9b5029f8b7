//! A company's profiles: the standard ones, the words of its sets, its own changes and additions, by rank.

use super::{
    file::{AsteriskEntry, CompanyFile, DEFAULT_SET, ProfileEntry},
    standard::{self, Skipped, TriggerSet},
};
use crate::{
    model::{AsteriskState, AsteriskTerms, PbxTerms, Profile, ProfileId},
    timetable::same,
};

/// Where a trigger word of a profile comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The default set.
    Default,
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
    resolve_and_tell(file).0
}

/// The profiles, and the words of added sets that were left out since another profile has them.
pub(super) fn resolve_and_tell(file: &CompanyFile) -> (Vec<Profile>, Vec<Skipped>) {
    let mut profiles = standard::profiles(file.language);
    for profile in &mut profiles {
        profile.triggers.clear();
    }
    for entry in &file.profiles {
        match profiles.iter_mut().find(|profile| profile.id == entry.id) {
            Some(profile) => change(profile, entry),
            None => insert(&mut profiles, entry),
        }
    }
    for Trigger { profile, word, .. } in chosen_triggers(file) {
        if let Some(profile) = profiles.iter_mut().find(|candidate| candidate.id == profile)
            && !profile.triggers.iter().any(|known| same(known, &word))
        {
            profile.triggers.push(word);
        }
    }
    let skipped = add_sets(&mut profiles, file);
    (by_rank(profiles, &file.profile_order), skipped)
}

/// Adds the words of the sets besides the default one: what was typed goes before them, and a profile whose words
/// were replaced stays as typed.
fn add_sets(profiles: &mut [Profile], file: &CompanyFile) -> Vec<Skipped> {
    let typed = profiles.to_vec();
    let sets = file.trigger_sets.iter().filter_map(|name| TriggerSet::by_name(name));
    let skipped: Vec<Skipped> = sets.flat_map(|set| standard::add_set(profiles, set)).collect();
    for (profile, typed) in profiles.iter_mut().zip(typed) {
        if replaces_words(file, &profile.id) {
            profile.triggers = typed.triggers;
        }
    }
    skipped.into_iter().filter(|skipped| !replaces_words(file, &skipped.profile)).collect()
}

/// The words of the default set and of the file, in the order in which they take hold. No two profiles may share one.
pub(super) fn chosen_triggers(file: &CompanyFile) -> Vec<Trigger> {
    let mut triggers = Vec::new();
    if file.trigger_sets.iter().any(|set| set == DEFAULT_SET) {
        for profile in standard::profiles(file.language) {
            if !replaces_words(file, &profile.id) {
                triggers.extend(of(&profile.id, &profile.triggers, &Origin::Default));
            }
        }
    }
    for (index, entry) in file.profiles.iter().enumerate() {
        let key = |key: &str| Origin::Key(format!("profiles[{index}].{key}"));
        if let Some(words) = &entry.triggers {
            triggers.extend(of(&entry.id, words, &key("triggers")));
        }
        triggers.extend(of(&entry.id, &entry.add_triggers, &key("add_triggers")));
    }
    triggers
}

/// The words of one profile.
pub(super) fn of(profile: &ProfileId, words: &[String], origin: &Origin) -> Vec<Trigger> {
    let trigger =
        |word: &String| Trigger { profile: profile.clone(), word: word.clone(), origin: origin.clone() };
    words.iter().map(trigger).collect()
}

fn replaces_words(file: &CompanyFile, id: &ProfileId) -> bool {
    file.profiles.iter().any(|entry| entry.id == *id && entry.triggers.is_some())
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
