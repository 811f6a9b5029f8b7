//! Trigger words against subjects.

use proptest::prelude::*;

use super::{profile, rules, subjects::SUBJECTS};
use crate::{
    company::standard::{self, TriggerSet},
    model::{Language, MatchMode, Position, Rules},
    timetable::{LostBecause, MatchRule, Matcher, NoProfile, Owner, RuleError, Warning},
};

fn with_words(id: &str, words: &[&str]) -> Rules {
    let mut rules = rules();
    for profile in &mut rules.profiles {
        profile.triggers.clear();
        if profile.id.as_str() == id {
            profile.triggers = words.iter().map(|&word| word.to_owned()).collect();
        }
    }
    rules
}

fn give(rules: &mut Rules, id: &str, words: &[&str]) {
    let found = rules.profiles.iter_mut().find(|profile| profile.id.as_str() == id).unwrap();
    found.triggers.extend(words.iter().map(|&word| word.to_owned()));
}

fn give_own(rules: &mut Rules, id: &str, words: &[&str]) {
    let found = rules.profiles.iter_mut().find(|profile| profile.id.as_str() == id).unwrap();
    found.own_triggers.extend(words.iter().map(|&word| word.to_owned()));
}

fn winner(rules: &Rules, subject: &str) -> String {
    let matcher = Matcher::new(rules).unwrap();
    let judged = matcher.judge(subject).winner;
    assert_eq!(judged.as_ref(), matcher.winner(subject), "the quick way agrees on {subject:?}");
    judged.map(|hit| hit.profile.to_string()).unwrap_or_default()
}

fn check(rules: &Rules, table: &[(&str, &str)]) {
    for (subject, expected) in table {
        assert_eq!(winner(rules, subject), *expected, "{subject:?}");
    }
}

#[test]
fn the_default_words_hit_what_they_should_and_nothing_near_it() {
    assert!(SUBJECTS.len() >= 200, "{}", SUBJECTS.len());
    check(&rules(), SUBJECTS);
}

#[test]
fn the_set_of_words_that_swedes_write_hits_what_they_write() {
    let mut rules = rules();
    assert_eq!(standard::add_set(&mut rules.profiles, TriggerSet::SvWords), []);
    check(
        &rules,
        &[
            ("Möte med Anna", "meeting"),
            ("Mötet", "meeting"),
            ("Mo\u{308}tesrum", "meeting"),
            ("MÖT", "meeting"),
            ("Bemöta", ""),
            ("Lunchmöte", ""),
            ("Semester", "holiday"),
            ("Semestern", "holiday"),
            ("Sjuk", "sick"),
            ("Sjuk hemma", "sick"),
            ("Sjukgymnast", ""),
            ("Sjukskriven", "sick"),
            ("Föräldraledig", "parental-leave"),
            ("Fo\u{308}ra\u{308}ldraledig", "parental-leave"),
            ("Tjänsteresa till Oslo", "away-on-business"),
            ("Tjänstledig", "on-leave"),
            ("Stör ej", "do-not-disturb"),
            ("Gått för dagen", "gone-for-the-day"),
            ("Ute på arbete", "out-of-office"),
            ("Tillfälligt ute", "temporarily-unavailable"),
            ("Tillgänglig", "available"),
            ("Möte på semestern", "holiday"),
        ],
    );
}

#[test]
fn the_norwegian_and_english_sets_hit_their_words() {
    let mut rules = rules();
    standard::add_set(&mut rules.profiles, TriggerSet::No);
    standard::add_set(&mut rules.profiles, TriggerSet::En);
    check(
        &rules,
        &[
            ("MØT: styret", "meeting"),
            ("møte", "meeting"),
            ("FER", "holiday"),
            ("SYK", "sick"),
            ("PER", "on-leave"),
            ("Lunsj", "lunch"),
            ("Person", ""),
            ("Vacation", "holiday"),
            ("OOO", "out-of-office"),
        ],
    );
}

#[test]
fn the_edge_rule_holds_only_where_the_trigger_has_a_letter_or_digit() {
    let rules = with_words("meeting", &["C++", ".NET", "#ute", "(x)"]);
    check(
        &rules,
        &[
            ("C++", "meeting"),
            ("C++kurs", "meeting"),
            ("c++11", "meeting"),
            ("C+++", "meeting"),
            ("ABC++", ""),
            ("1C++", ""),
            ("C+", ""),
            (".NET", "meeting"),
            ("ASP.NET", "meeting"),
            (".NETTO", ""),
            ("#ute", "meeting"),
            ("a#ute", "meeting"),
            ("#uten", ""),
            ("a(x)b", "meeting"),
        ],
    );
}

#[test]
fn a_star_last_makes_a_prefix_and_elsewhere_a_star() {
    let rules = with_words("meeting", &["MÖT*", "a*b", "Stora möte *"]);
    check(
        &rules,
        &[
            ("Möte", "meeting"),
            ("mötet", "meeting"),
            ("MÖT", "meeting"),
            ("MÖT1", "meeting"),
            ("Bemöta", ""),
            ("möt\u{301}", ""),
            ("a*b", "meeting"),
            ("ab", ""),
            ("axb", ""),
            ("a*bc", ""),
        ],
    );
}

#[test]
fn phrases_with_commas_are_one_trigger() {
    check(
        &with_words("meeting", &["Hej, på dig"]),
        &[("Hej, på dig", "meeting"), ("hej,  på\tdig!", "meeting"), ("Hej på dig", ""), ("Hej", "")],
    );
}

#[test]
fn full_case_folding_joins_sharp_s_ligatures_and_final_sigma() {
    check(
        &with_words("meeting", &["Straße", "o\u{fb03}ce", "ΟΔΟΣ", "I’m away"]),
        &[
            ("STRASSE 5", "meeting"),
            ("strasse", "meeting"),
            ("STRA\u{1e9e}E", "meeting"),
            ("OFFICE", "meeting"),
            ("Office", "meeting"),
            ("οδος", "meeting"),
            ("οδοσ", "meeting"),
            ("i'm away", "meeting"),
            ("I‘m away", "meeting"),
            ("Im away", ""),
        ],
    );
}

#[test]
fn the_prefix_mode_takes_every_trigger_for_a_prefix() {
    let mut rules = rules();
    rules.matching.mode = MatchMode::Prefix;
    check(
        &rules,
        &[
            ("Möten", "meeting"),
            ("Holidays", "holiday"),
            ("Sickla", "sick"),
            ("Bemöta", ""),
            ("Stockholm", ""),
            ("Ute på arbete", ""),
        ],
    );
}

#[test]
fn the_contains_mode_finds_words_inside_words_and_names_do_not_swallow() {
    let mut rules = rules();
    rules.matching.mode = MatchMode::Contains;
    check(
        &rules,
        &[
            ("Stockholm", "holiday"),
            ("minuter", "temporarily-unavailable"),
            ("Ute på arbete", "temporarily-unavailable"),
            ("Temporarily unavailable", "temporarily-unavailable"),
            ("Unavailable", "available"),
            ("möt\u{301}", ""),
        ],
    );
    let hit = Matcher::new(&rules).unwrap().judge("Stockholm").winner.unwrap();
    assert_eq!(hit.rule, MatchRule::Contains);
}

#[test]
fn at_the_start_means_after_punctuation_and_brackets() {
    let mut rules = rules();
    rules.matching.position = Position::Start;
    check(
        &rules,
        &[
            ("MÖT: styrgrupp", "meeting"),
            ("  [MÖT] styrgrupp", "meeting"),
            ("– (möt)", "meeting"),
            ("Sv: MÖT", "meeting"),
            ("Styrgrupp MÖT", ""),
            ("Meeting about holiday", "meeting"),
            ("1 MÖT", ""),
        ],
    );
    let judged = Matcher::new(&rules).unwrap().judge("Styrgrupp MÖT");
    assert_eq!(judged.none, Some(NoProfile::NotAtStart));
    assert_eq!(judged.losers[0].because, LostBecause::NotAtStart);
}

#[test]
fn diacritics_are_folded_only_where_the_company_wants_it() {
    let mut rules = rules();
    rules.matching.fold_diacritics = true;
    check(
        &rules,
        &[
            ("mot", "meeting"),
            ("MØT", "meeting"),
            ("MÖT", "meeting"),
            ("Mo\u{308}t", "meeting"),
            ("Inställt: MÖT", ""),
        ],
    );
}

#[test]
fn names_are_triggers_only_where_the_company_wants_it() {
    let mut rules = rules();
    let judged = Matcher::new(&rules).unwrap().judge("Semester");
    assert_eq!(
        judged.none,
        Some(NoProfile::ProfileName { profile: profile("holiday"), name: "Semester".into() })
    );
    rules.matching.name_is_trigger = true;
    check(
        &rules,
        &[
            ("Semester", "holiday"),
            ("Ute på arbete", "out-of-office"),
            ("Gått för dagen", "gone-for-the-day"),
            ("Möte med Anna", "meeting"),
            ("Möten", ""),
        ],
    );
    assert_eq!(Matcher::new(&rules).unwrap().judge("Semester").winner.unwrap().rule, MatchRule::Name);
}

#[test]
fn a_full_name_swallows_the_word_inside_it_and_says_so() {
    let judged = Matcher::new(&rules()).unwrap().judge("Ute på arbete");
    let name = "Ute på arbete".to_owned();
    assert_eq!(judged.winner, None);
    assert_eq!(
        judged.none,
        Some(NoProfile::ProfileName { profile: profile("out-of-office"), name: name.clone() })
    );
    assert_eq!(judged.losers.len(), 1);
    assert_eq!(judged.losers[0].hit.word, "UTE");
    assert_eq!(judged.losers[0].because, LostBecause::InsideName(name));
}

#[test]
fn the_longest_word_swallows_those_inside_it() {
    let mut rules = with_words("available", &["Available", "sjuk hem"]);
    give(&mut rules, "sick", &["Sjuk"]);
    give(&mut rules, "temporarily-unavailable", &["not available"]);
    check(
        &rules,
        &[
            ("Not available", "temporarily-unavailable"),
            ("Sjuk hemma", "sick"),
            ("Sjuk hem", "available"),
            ("sjuk hem, sjuk", "sick"),
        ],
    );
    let judged = Matcher::new(&rules).unwrap().judge("Not available");
    assert_eq!(judged.losers[0].because, LostBecause::InsideWord("not available".into()));
}

#[test]
fn of_two_profiles_the_higher_wins_and_both_are_told() {
    let judged = Matcher::new(&rules()).unwrap().judge("Lunch meeting MÖT");
    assert_eq!(judged.winner.unwrap().profile, profile("lunch"));
    let lost: Vec<_> = judged.losers.iter().map(|lost| (lost.hit.word.as_str(), &lost.because)).collect();
    assert_eq!(lost, [("Meeting", &LostBecause::LowerRank), ("MÖT", &LostBecause::LowerRank)]);
    let judged = Matcher::new(&rules()).unwrap().judge("MÖT meeting");
    assert_eq!(judged.winner.unwrap().word, "MÖT");
    assert_eq!(judged.losers[0].because, LostBecause::FurtherRight);
}

#[test]
fn the_users_word_beats_the_same_word_of_the_company() {
    let mut rules = rules();
    give_own(&mut rules, "meeting", &["hol"]);
    let judged = Matcher::new(&rules).unwrap().judge("HOL: Kreta");
    let won = judged.winner.unwrap();
    assert_eq!((won.profile, won.owner), (profile("meeting"), Owner::User));
    assert_eq!(judged.losers[0].because, LostBecause::UsersOwnWord);
    assert_eq!(winner(&rules, "Holiday"), "holiday");
}

#[test]
fn the_same_word_in_two_profiles_is_refused_for_one_owner() {
    let mut both = rules();
    give(&mut both, "meeting", &["Möte", "Lunch"]);
    give(&mut both, "sick", &["mo\u{308}TE"]);
    let problems = Matcher::problems(&both);
    assert_eq!(problems.len(), 2);
    assert_eq!(Matcher::new(&both).unwrap_err(), problems[0]);
    let duplicate = |word: &str, first, second| RuleError::Duplicate {
        word: word.into(),
        first: profile(first),
        second: profile(second),
        owner: Owner::Company,
    };
    assert_eq!(problems, [duplicate("Möte", "sick", "meeting"), duplicate("Lunch", "lunch", "meeting")]);
    let mut own = rules();
    give_own(&mut own, "meeting", &["x"]);
    give_own(&mut own, "sick", &["X"]);
    assert!(matches!(&Matcher::problems(&own)[..], [RuleError::Duplicate { owner: Owner::User, .. }]));
    let mut once = rules();
    give(&mut once, "meeting", &["MEETING"]);
    assert_eq!(Matcher::problems(&once), []);
}

#[test]
fn a_word_that_cannot_be_used_names_its_profile() {
    let mut rules = rules();
    give(&mut rules, "lunch", &["*"]);
    let error = Matcher::new(&rules).unwrap_err();
    let said = crate::chain::Chain(&error).to_string();
    assert!(said.contains("lunch") && said.contains("`*`"), "{said}");
}

#[test]
fn marks_leave_the_event_aside_and_name_the_words_all_the_same() {
    let mut rules = rules();
    rules.matching.opt_out_mark = true;
    let matcher = Matcher::new(&rules).unwrap();
    for (subject, reason) in [
        ("Avbokat: Lunch", NoProfile::CancellationMark),
        ("*Lunch", NoProfile::OptOutMark),
        ("Sv: * Lunch", NoProfile::OptOutMark),
    ] {
        let judged = matcher.judge(subject);
        assert_eq!((judged.winner, judged.none), (None, Some(reason)), "{subject}");
        assert_eq!(judged.losers[0].because, LostBecause::EventIgnored);
        assert_eq!(matcher.winner(subject), None);
    }
    assert_eq!(winner(&super::rules(), "*Lunch"), "lunch");
    assert_eq!(matcher.judge("Budget").none, Some(NoProfile::NothingMatched));
}

#[test]
fn a_negated_word_counts_and_is_warned_of() {
    let matcher = Matcher::new(&rules()).unwrap();
    for subject in ["Not available", "inte available", "EJ available", "I am not  available"] {
        let judged = matcher.judge(subject);
        assert_eq!(judged.warnings, [Warning::Negated { word: "Available".into() }], "{subject}");
    }
    for subject in ["Available, not", "Knot available", "Do not disturb"] {
        assert_eq!(matcher.judge(subject).warnings, [], "{subject}");
    }
}

#[test]
fn categories_match_only_where_the_company_wants_them() {
    let mut rules = with_words("holiday", &["cat:Semester", "cat:Led*"]);
    give(&mut rules, "sick", &["Sick"]);
    give(&mut rules, "available", &["Available"]);
    let categories = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let judge = |rules: &Rules, subject: &str, names: &[&str]| {
        let judged = Matcher::new(rules).unwrap().judge_event(subject, &categories(names));
        judged.winner.map(|hit| hit.profile.to_string()).unwrap_or_default()
    };
    assert_eq!(judge(&rules, "Kreta", &["Semester"]), "");
    assert_eq!(judge(&rules, "cat:Semester", &[]), "");
    rules.matching.categories = true;
    assert_eq!(judge(&rules, "Kreta", &["Jobb", "SEMESTER"]), "holiday");
    assert_eq!(judge(&rules, "Kreta", &["Ledighet"]), "holiday");
    assert_eq!(judge(&rules, "Kreta", &["Semestern"]), "");
    assert_eq!(judge(&rules, "Sick", &["Semester"]), "sick");
    assert_eq!(judge(&rules, "Available", &["Semester"]), "holiday");
    assert_eq!(judge(&rules, "Avbokat: Kreta", &["Semester"]), "");
}

#[test]
fn a_profile_without_words_is_never_set() {
    let rules = with_words("meeting", &[]);
    check(&rules, &[("Meeting", ""), ("Sick", ""), ("", "")]);
    let nobody = Rules { profiles: Vec::new(), ..rules };
    check(&nobody, &[("Meeting", "")]);
}

#[test]
fn an_endless_subject_is_read_only_at_its_beginning() {
    let endless = format!("{}MÖT", "ö ".repeat(1_000_000));
    check(&rules(), &[(endless.as_str(), ""), (&format!("MÖT {endless}"), "meeting")]);
}

#[test]
fn the_judgement_holds_nothing_of_the_subject() {
    let judged = Matcher::new(&rules()).unwrap().judge("Lunch med Hemligsson om MÖT");
    let stored = serde_json::to_string(&judged).unwrap() + &format!("{judged:?}");
    assert!(!stored.contains("Hemligsson") && !stored.contains("hemligsson"), "{stored}");
}

proptest! {
    #[test]
    fn any_subject_is_judged_without_panic_and_both_ways_agree(
        subject in "(\\PC|möt|ute|HOL|Ute på arbete|:| |\u{308}|\u{ad}){0,12}",
        start in any::<bool>(),
        fold in any::<bool>(),
        mode in 0..3_usize,
    ) {
        let mut rules = rules();
        rules.language = Language::En;
        rules.matching.mode = [MatchMode::Word, MatchMode::Prefix, MatchMode::Contains][mode];
        rules.matching.position = if start { Position::Start } else { Position::Anywhere };
        rules.matching.fold_diacritics = fold;
        let matcher = Matcher::new(&rules).unwrap();
        let judged = matcher.judge(&subject);
        prop_assert_eq!(judged.winner.as_ref(), matcher.winner(&subject));
        prop_assert_eq!(judged.winner.is_none(), judged.none.is_some());
    }

    #[test]
    fn a_word_with_free_edges_is_found_wherever_it_stands(
        before in "([a-zåäöé]{1,6}[ :;,.(/-]){0,3}",
        after in "([ :;,.)/-][a-zåäöé]{1,6}){0,3}",
    ) {
        let rules = with_words("meeting", &["qqq"]);
        let subject = format!("{before}QQQ{after}");
        let cancelled = ["canceled:", "cancelled:", "avbokat:", "avbokad:", "inställt:", "avlyst:"];
        prop_assume!(!cancelled.iter().any(|mark| subject.starts_with(mark)));
        prop_assert_eq!(winner(&rules, &subject), "meeting");
    }
}

/// What is stored with timetables: another number after an upgrade would make every hold be taken anew.
#[test]
fn the_digest_of_the_same_words_is_the_same_in_every_release() {
    let mut rules = with_words("lunch", &["Lunch", "LUN"]);
    rules.profiles.retain(|profile| profile.id.as_str() == "lunch");
    give_own(&mut rules, "lunch", &["Fika"]);
    // The beginning of the SHA-256 of `[[["lunch",["Lunch","Lunch"],[["Lunch","LUN"],["Fika"]]]],{"mode":"word",
    // "position":"anywhere","fold_diacritics":false,"name_is_trigger":false,"opt_out_mark":false,"categories":false}]`,
    // without the line's end.
    assert_eq!(format!("{:016x}", Matcher::new(&rules).unwrap().digest()), "4caf2ed013d072a4");
}
