//! Why a phone shows what it shows, as data and in sentences.

use super::Mailbox;
use crate::{
    decide::{Beaten, Decision, Explanation, Lasting, WhyLost},
    model::{CalendarEvent, Language, Response, Subject},
    timetable::{
        Exclusion, Matcher,
        tests::{all_day, external, own, rules, t},
    },
};

fn lines(decision: &Decision, language: Language) -> Vec<String> {
    let zone = jiff::tz::TimeZone::get("Europe/Stockholm").unwrap();
    decision.explanation.lines(language, &zone)
}

fn why(explanation: &Explanation) -> Vec<(String, WhyLost)> {
    explanation.losers.iter().map(|lost| (lost.event.event.to_string(), lost.why.clone())).collect()
}

#[test]
fn every_event_that_is_on_is_accounted_for() {
    let unanswered = CalendarEvent { response: Response::None, ..own("u", "Sick", "09:00", "12:00") };
    let events = [
        own("m", "MÖT", "10:00", "11:00"),
        own("l", "Lunch meeting", "10:00", "12:00"),
        own("t", "TJR", "08:00", "17:00"),
        own("a", "Available", "10:20", "12:00"),
        unanswered,
        own("later", "MÖT", "15:00", "16:00"),
    ];
    let decision = Mailbox::new(rules(), &events).at(t("10:30"));
    assert_eq!(decision.deciding.unwrap().event.as_str(), "m");
    assert_eq!(
        why(&decision.explanation),
        [
            ("t".to_owned(), WhyLost::Beaten(Beaten::Hole)),
            ("u".to_owned(), WhyLost::Excluded(Exclusion::Unanswered)),
            ("l".to_owned(), WhyLost::Beaten(Beaten::Hole)),
            ("a".to_owned(), WhyLost::Beaten(Beaten::Rank)),
        ]
    );
}

#[test]
fn an_override_or_a_locked_base_is_named_as_what_lies_over_the_event() {
    let events = [own("m", "MÖT", "10:00", "11:00")];
    let mut mailbox = Mailbox::new(rules(), &events);
    mailbox.change("available", Lasting::OnPhone(None), t("10:15"));
    let decision = mailbox.at(t("10:30"));
    assert_eq!(why(&decision.explanation), [("m".to_owned(), WhyLost::Overridden)]);
    assert_eq!(decision.explanation.override_.as_ref().unwrap().set_at, t("10:15"));
    let mut locked = Mailbox::new(rules(), &events);
    locked.rules.profiles[0].calendar_may_not_override = true;
    locked.base("sick", None, t("08:00"));
    let decision = locked.at(t("10:30"));
    assert_eq!(why(&decision.explanation), [("m".to_owned(), WhyLost::BaseLocked)]);
    assert!(decision.explanation.base.locked);
}

#[test]
fn the_sentences_read_well_in_both_languages() {
    let events =
        [all_day("h", "HOL", "2026-11-23", "2026-11-27"), own("m", "Lunch meeting", "10:00", "11:00")];
    let mut rules = rules();
    rules.profiles.reverse();
    let decision = Mailbox::new(rules, &events).at(t("10:30"));
    assert_eq!(
        lines(&decision, Language::Sv),
        [
            "Klockan 10:30 visas “Möte”.",
            "Det kommer av händelsen 10:00–11:00: triggerordet “Meeting” hittades som helt ord (företagets ord).",
            "Ordet “Lunch” (“Lunch”) avgjorde inte: profilen har lägre rang.",
            "Utan kalendern visas “Tillgänglig”.",
            "Händelsen 00:00–27 nov (“Semester”, “HOL”) avgör inte: en annan händelses profil har högre rang.",
            "Det ändras 11:00 till “Semester”, sedan 27 nov till “Tillgänglig”.",
        ]
    );
    assert_eq!(
        lines(&decision, Language::En),
        [
            "At 10:30 the phone shows “Meeting”.",
            "That comes from the event 10:00–11:00: the trigger word “Meeting” was found as a whole word (the \
             company's word).",
            "The word “Lunch” (“Lunch”) did not decide: the profile has a lower rank.",
            "Without the calendar the phone shows “Available”.",
            "The event 00:00–27 Nov (“Holiday”, “HOL”) does not decide: another event's profile has a higher rank.",
            "It changes at 11:00 to “Holiday”, then at 27 Nov to “Available”.",
        ]
    );
}

#[test]
fn an_override_is_told_with_its_end() {
    let mut mailbox = Mailbox::new(rules(), &[own("m", "MÖT", "10:00", "11:00")]);
    mailbox.change("available", Lasting::OnPhone(None), t("10:15"));
    assert_eq!(
        lines(&mailbox.at(t("10:30")), Language::Sv)[..2],
        [
            "Klockan 10:30 visas “Tillgänglig”.",
            "Det valdes för hand kl. 10:15 (“Tillgänglig”) och gäller före kalendern under händelsen 10:00–11:00, \
             senast till 11:00.",
        ]
    );
}

#[test]
fn a_held_change_and_a_negation_are_told() {
    let rules = rules();
    let matcher = Matcher::new(&rules).unwrap();
    let lunch = external("e", "Not available", "10:00", "11:00");
    let mut mailbox = Mailbox::new(rules.clone(), std::slice::from_ref(&lunch));
    let warned = lines(&mailbox.at(t("10:30")), Language::En);
    assert!(
        warned.iter().any(|line| line.contains("a negating word stands before “Available”")),
        "{warned:?}"
    );
    let renamed = CalendarEvent { subject: Some(Subject::new("Sick")), ..lunch };
    mailbox.timetable.upsert(&rules, &matcher, &renamed);
    let held = lines(&mailbox.at(t("10:30")), Language::En);
    assert!(held.iter().any(|line| line.contains("it would give “Sick”")), "{held:?}");
}

#[test]
fn the_explanation_survives_being_stored() {
    let mut mailbox = Mailbox::new(rules(), &[own("m", "MÖT", "10:00", "11:00")]);
    mailbox.change("available", Lasting::UntilChanged, t("10:15"));
    let decision = mailbox.at(t("10:30"));
    let stored = serde_json::to_string(&decision).unwrap();
    assert_eq!(serde_json::from_str::<Decision>(&stored).unwrap(), decision);
}
