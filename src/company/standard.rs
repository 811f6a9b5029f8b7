//! The profiles that a company starts with, and the sets of trigger words it may add.
//!
//! The default triggers are exactly those of the product's article; they are few and partly English. The
//! other sets hold what people write, and are added by choice, as more words mean more false hits.
//! What PBXs are told is a starting point: a company may change every part of it.

use std::collections::BTreeMap;

use crate::{
    model::{AsteriskState, AsteriskTerms, Language, PbxTerms, Profile, ProfileId},
    timetable::same,
};

/// Ids of the standard profiles, highest rank first.
pub const RANKED: [&str; 12] = [
    "sick",
    "holiday",
    "parental-leave",
    "on-leave",
    "do-not-disturb",
    "away-on-business",
    "gone-for-the-day",
    "out-of-office",
    "temporarily-unavailable",
    "lunch",
    "meeting",
    "available",
];

/// A set of trigger words that one click adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TriggerSet {
    /// Words that Swedes write.
    SvWords,
    /// Norwegian codes and words.
    No,
    /// More English words.
    En,
}

impl TriggerSet {
    /// All sets.
    pub const ALL: [Self; 3] = [Self::SvWords, Self::No, Self::En];

    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::SvWords => "sv-words",
            Self::No => "no",
            Self::En => "en",
        }
    }

    /// The set with that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.name() == name)
    }

    /// Its words for a standard profile; none for others.
    pub fn words(self, profile: &str) -> &'static [&'static str] {
        match self {
            Self::SvWords => sv_words(profile),
            Self::No => no(profile),
            Self::En => en(profile),
        }
    }
}

/// A word that a set could not add, as another profile has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The word.
    pub word: &'static str,
    /// Which profile it would have been for.
    pub profile: ProfileId,
    /// Which has it.
    pub holder: ProfileId,
}

/// Adds a set's words to the profiles that have their standard ids. A word that a profile already has is
/// left alone; one that another profile has is not added and returned.
pub fn add_set(profiles: &mut [Profile], set: TriggerSet) -> Vec<Skipped> {
    let mut skipped = Vec::new();
    for index in 0..profiles.len() {
        for &word in set.words(profiles[index].id.as_str()) {
            match profiles.iter().position(|known| known.triggers.iter().any(|trigger| same(trigger, word))) {
                None => profiles[index].triggers.push(word.to_owned()),
                Some(holder) if holder == index => {}
                Some(holder) => skipped.push(Skipped {
                    word,
                    profile: profiles[index].id.clone(),
                    holder: profiles[holder].id.clone(),
                }),
            }
        }
    }
    skipped
}

/// The twelve standard profiles, highest rank first. Outward labels are in `language`.
pub fn profiles(language: Language) -> Vec<Profile> {
    use AsteriskState::{Available, Away, Dnd, Xa};
    let mut profiles = vec![
        profile("sick", ["Sjuk", "Sick"], &["Sick"], Xa),
        profile("holiday", ["Semester", "Holiday"], &["Holiday", "HOL"], Xa),
        profile("parental-leave", ["Föräldraledig", "Parental leave"], &["Parental leave"], Xa),
        profile("on-leave", ["Tjänstledig", "On leave"], &["On leave", "TJL"], Xa),
        profile("do-not-disturb", ["Stör ej", "Do not disturb"], &["Do not disturb", "DND"], Dnd),
        profile("away-on-business", ["Tjänsteresa", "Away on business"], &["Away on business", "TJR"], Xa),
        profile("gone-for-the-day", ["Gått för dagen", "Gone for the day"], &["Gone for the day", "GFD"], Xa),
        profile("out-of-office", ["Ute på arbete", "Out of office"], &["Out of office"], Away),
        profile(
            "temporarily-unavailable",
            ["Tillfälligt ute", "Temporarily unavailable"],
            &["Temporarily unavailable", "UTE"],
            Away,
        ),
        profile("lunch", ["Lunch", "Lunch"], &["Lunch", "LUN"], Away),
        profile("meeting", ["Möte", "Meeting"], &["Meeting", "MÖT"], Away),
        profile("available", ["Tillgänglig", "Available"], &["Available"], Available),
    ];
    for profile in &mut profiles {
        profile.is_available = profile.id.as_str() == "available";
        profile.pbx.asterisk.dnd = profile.id.as_str() == "do-not-disturb";
        if matches!(profile.id.as_str(), "sick" | "parental-leave") {
            profile.sensitive = true;
            profile.label = Some(neutral_label(language).to_owned());
        }
    }
    profiles
}

/// What others see of an absence whose reason is nobody's business.
pub fn neutral_label(language: Language) -> &'static str {
    match language {
        Language::Sv => "Frånvarande",
        Language::En => "Away",
    }
}

#[expect(clippy::expect_used, reason = "constants, and a test builds them all")]
fn profile(id: &str, [name_sv, name_en]: [&str; 2], triggers: &[&str], state: AsteriskState) -> Profile {
    Profile {
        id: id.parse().expect("standard ids are slugs"),
        name_sv: name_sv.to_owned(),
        name_en: name_en.to_owned(),
        label: None,
        sensitive: false,
        triggers: triggers.iter().map(|&word| word.to_owned()).collect(),
        own_triggers: Vec::new(),
        before_start_secs: 0,
        after_end_secs: 0,
        calendar_may_not_override: false,
        is_available: false,
        pbx: PbxTerms { asterisk: AsteriskTerms { state, dnd: false }, http: http_names(id) },
    }
}

/// Names that request templates may use, as the interfaces of common PBXs spell them.
fn http_names(id: &str) -> BTreeMap<String, String> {
    let [code, rpid, basic, threecx, broadworks, yeastar, wazo] = match id {
        "sick" => ["SJU", "away", "closed", "Out of office", "Unavailable", "off_work", "unavailable"],
        "holiday" => ["HOL", "vacation", "closed", "Out of office", "Vacation", "off_work", "unavailable"],
        "parental-leave" => {
            ["PAR", "away", "closed", "Out of office", "Unavailable", "off_work", "unavailable"]
        }
        "on-leave" => {
            ["TJL", "permanent-absence", "closed", "Out of office", "Unavailable", "off_work", "unavailable"]
        }
        "do-not-disturb" => {
            ["DND", "busy", "closed", "Custom 1", "Unavailable", "do_not_disturb", "unavailable"]
        }
        "away-on-business" => {
            ["TJR", "travel", "closed", "Out of office", "Business Trip", "business_trip", "away"]
        }
        "gone-for-the-day" => {
            ["GFD", "away", "closed", "Out of office", "Gone for the Day", "off_work", "unavailable"]
        }
        "out-of-office" => ["ARB", "away", "closed", "Out of office", "Out Of Office", "away", "away"],
        "temporarily-unavailable" => ["UTE", "away", "closed", "Away", "Temporarily Out", "away", "away"],
        "lunch" => ["LUN", "meal", "closed", "Away", "Lunch", "lunch", "away"],
        "meeting" => ["MÖT", "meeting", "closed", "Away", "Meeting", "do_not_disturb", "away"],
        _ => ["", "working", "open", "Available", "None", "available", "available"],
    };
    [
        ("code", code),
        ("rpid", rpid),
        ("basic", basic),
        ("threecx", threecx),
        ("broadworks", broadworks),
        ("yeastar", yeastar),
        ("wazo", wazo),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

/// `Sjuk` is no prefix: `Sjuk*` would take every visit to the physiotherapist (sjukgymnast) for an illness.
fn sv_words(profile: &str) -> &'static [&'static str] {
    match profile {
        "sick" => &["Sjuk", "Sjukskriven", "Sjukdag", "Sjukfrånvaro"],
        "holiday" => &["Semester*"],
        "parental-leave" => &["Föräldraledig*"],
        "on-leave" => &["Tjänstledig*"],
        "do-not-disturb" => &["Stör ej"],
        "away-on-business" => &["Tjänsteresa*"],
        "gone-for-the-day" => &["Gått för dagen", "Gått hem"],
        "out-of-office" => &["Ute på arbete", "Ute på uppdrag"],
        "temporarily-unavailable" => &["Tillfälligt ute"],
        "meeting" => &["Möte*"],
        "available" => &["Tillgänglig"],
        _ => &[],
    }
}

fn no(profile: &str) -> &'static [&'static str] {
    match profile {
        "sick" => &["SYK", "Sykmeldt"],
        "holiday" => &["FER", "Ferie*"],
        "parental-leave" => &["Foreldrepermisjon"],
        "on-leave" => &["PER", "Permisjon"],
        "do-not-disturb" => &["Ikke forstyrr"],
        "away-on-business" => &["Tjenestereise*"],
        "gone-for-the-day" => &["Gått for dagen"],
        "out-of-office" => &["Ute på oppdrag"],
        "temporarily-unavailable" => &["Ute et øyeblikk"],
        "lunch" => &["Lunsj"],
        "meeting" => &["MØT", "Møte*"],
        "available" => &["Tilgjengelig"],
        _ => &[],
    }
}

fn en(profile: &str) -> &'static [&'static str] {
    match profile {
        "sick" => &["Sick leave", "Sick day"],
        "holiday" => &["Vacation", "Annual leave", "Holidays"],
        "parental-leave" => &["Maternity leave", "Paternity leave"],
        "on-leave" => &["Leave of absence"],
        "do-not-disturb" => &["Focus time"],
        "away-on-business" => &["Business trip"],
        "gone-for-the-day" => &["Left for the day", "Gone home"],
        "out-of-office" => &["OOO", "Working off-site"],
        "temporarily-unavailable" => &["Back soon", "BRB"],
        "meeting" => &["Meetings"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timetable::join;

    #[test]
    fn the_default_set_is_that_of_the_article_in_the_order_of_rank() {
        let table: Vec<(String, String, String)> = profiles(Language::Sv)
            .iter()
            .map(|profile| (profile.name_sv.clone(), profile.name_en.clone(), join(&profile.triggers)))
            .collect();
        let expected = [
            ("Sjuk", "Sick", "Sick"),
            ("Semester", "Holiday", "Holiday; HOL"),
            ("Föräldraledig", "Parental leave", "Parental leave"),
            ("Tjänstledig", "On leave", "On leave; TJL"),
            ("Stör ej", "Do not disturb", "Do not disturb; DND"),
            ("Tjänsteresa", "Away on business", "Away on business; TJR"),
            ("Gått för dagen", "Gone for the day", "Gone for the day; GFD"),
            ("Ute på arbete", "Out of office", "Out of office"),
            ("Tillfälligt ute", "Temporarily unavailable", "Temporarily unavailable; UTE"),
            ("Lunch", "Lunch", "Lunch; LUN"),
            ("Möte", "Meeting", "Meeting; MÖT"),
            ("Tillgänglig", "Available", "Available"),
        ];
        assert_eq!(table, expected.map(|(sv, en, words)| (sv.into(), en.into(), words.into())));
        let ids: Vec<String> = profiles(Language::En).into_iter().map(|profile| profile.id.into()).collect();
        assert_eq!(ids, RANKED);
    }

    #[test]
    fn only_available_is_available_and_only_do_not_disturb_closes_the_extension() {
        for profile in profiles(Language::Sv) {
            assert_eq!(profile.is_available, profile.id.as_str() == "available");
            assert_eq!(profile.pbx.asterisk.dnd, profile.id.as_str() == "do-not-disturb");
            assert_eq!(profile.pbx.http.len(), 7, "{}", profile.id);
        }
    }

    #[test]
    fn illness_and_parental_leave_are_not_named_to_others() {
        for (language, label) in [(Language::Sv, "Frånvarande"), (Language::En, "Away")] {
            for profile in profiles(language).iter().filter(|profile| profile.sensitive) {
                assert_eq!(profile.outward_label(language), label, "{}", profile.id);
            }
        }
        assert_eq!(profiles(Language::Sv).iter().filter(|profile| profile.sensitive).count(), 2);
    }

    #[test]
    fn every_set_can_be_added_with_the_others_and_a_second_time_adds_nothing() {
        let mut all = profiles(Language::Sv);
        for set in TriggerSet::ALL {
            assert_eq!(add_set(&mut all, set), [], "{}", set.name());
            assert_eq!(TriggerSet::by_name(set.name()), Some(set));
        }
        let before = all.clone();
        assert!(TriggerSet::ALL.into_iter().flat_map(|set| add_set(&mut all, set)).next().is_none());
        assert_eq!(all, before);
    }

    #[test]
    fn a_word_that_another_profile_has_is_not_added_and_named() {
        let mut all = profiles(Language::Sv);
        all[0].triggers.push("stör EJ".into());
        let skipped = add_set(&mut all, TriggerSet::SvWords);
        assert_eq!(skipped.len(), 1);
        assert_eq!((skipped[0].word, skipped[0].holder.as_str()), ("Stör ej", "sick"));
    }
}
