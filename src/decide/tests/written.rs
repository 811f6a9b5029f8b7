//! What the PBX is told: texts, times, and when it is told at all.

use super::{Mailbox, found};
use crate::{
    decide::{Base, What},
    model::{CalendarEvent, Language, Outward, Wanted},
    timetable::tests::{all_day, own, profile, rules, t, timed, ts},
};

fn outward(wanted: &Wanted) -> &Outward {
    match wanted {
        Wanted::Profile(outward) => outward,
        Wanted::AsFound(_) => panic!("a profile of ours"),
    }
}

fn note(language: Language, event: CalendarEvent, now: &str) -> String {
    let mut rules = rules();
    rules.language = language;
    let decision = Mailbox::new(rules, &[event]).at(ts(now));
    outward(&decision.wanted).note.clone()
}

#[test]
fn the_note_tells_the_return_time_in_the_companys_language_and_the_mailboxs_zone() {
    let until =
        |end: &str| CalendarEvent { when: timed(t("08:00"), ts(end)), ..own("e", "HOL", "00:00", "00:00") };
    let now = "2026-11-23T09:00:00Z";
    for (end, sv, en) in [
        ("2026-11-23T15:00:00+01:00", "till 15:00", "until 15:00"),
        ("2026-11-23T15:00:59+01:00", "till 15:00", "until 15:00"),
        ("2026-12-03T15:00:00+01:00", "till 3 dec 15:00", "until 3 Dec 15:00"),
        ("2026-12-03T00:00:00+01:00", "till 3 dec", "until 3 Dec"),
        ("2026-11-24T00:00:00+01:00", "till 24 nov", "until 24 Nov"),
        ("2027-05-01T08:30:00+02:00", "till 1 maj 08:30", "until 1 May 08:30"),
        ("2028-03-01T00:00:00+01:00", "till 1 mars 2028", "until 1 Mar 2028"),
    ] {
        assert_eq!(note(Language::Sv, until(end), now), sv, "{end}");
        assert_eq!(note(Language::En, until(end), now), en, "{end}");
    }
    assert_eq!(note(Language::Sv, all_day("d", "HOL", "2026-11-23", "2026-12-04"), now), "till 4 dec");
}

#[test]
fn the_note_is_made_anew_when_the_day_comes_and_no_earlier() {
    let event = CalendarEvent {
        when: timed(t("08:00"), ts("2026-11-24T15:00:00+01:00")),
        ..own("e", "TJR", "00:00", "00:00")
    };
    let mut mailbox = Mailbox::new(rules(), &[event]);
    let first = mailbox.at(t("09:00"));
    assert_eq!(outward(&first.wanted).note, "till 24 nov 15:00");
    let midnight = ts("2026-11-24T00:00:00+01:00");
    assert_eq!(first.next_edge, Some(midnight));
    let second = mailbox.at(midnight);
    assert_eq!(outward(&second.wanted).note, "till 15:00");
    assert!(second.must_write(Some(&first.wanted)));
    assert_eq!(second.next_edge, Some(ts("2026-11-24T15:00:00+01:00")));
}

#[test]
fn a_sensitive_profile_shows_its_label_and_never_its_name() {
    let mut rules = rules();
    let decision = Mailbox::new(rules.clone(), &[own("e", "Sick", "08:00", "15:00")]).at(t("09:00"));
    let told = outward(&decision.wanted);
    assert_eq!((told.label.as_str(), told.note.as_str()), ("Frånvarande", "till 15:00"));
    rules.profiles[0].label = None;
    rules.language = Language::En;
    let decision = Mailbox::new(rules, &[own("e", "Sick", "08:00", "15:00")]).at(t("09:00"));
    assert_eq!(outward(&decision.wanted).label, "Away");
}

#[test]
fn an_extended_meeting_is_told_and_an_unchanged_one_is_not() {
    let mut mailbox = Mailbox::new(rules(), &[own("m", "MÖT", "10:00", "11:00")]);
    let first = mailbox.at(t("10:00"));
    assert!(first.must_write(None));
    assert!(!mailbox.at(t("10:10")).must_write(Some(&first.wanted)));
    mailbox.recalendar(&[own("m", "MÖT", "10:00", "11:30")]);
    assert!(mailbox.at(t("10:20")).must_write(Some(&first.wanted)));
}

#[test]
fn a_new_return_time_alone_is_not_told_for_a_base() {
    let mut mailbox = Mailbox::new(rules(), &[]);
    mailbox.base("lunch", Some(t("13:00")), t("11:00"));
    let first = mailbox.at(t("12:00"));
    mailbox.recalendar(&[own("m", "MÖT", "12:30", "14:00")]);
    let second = mailbox.at(t("12:10"));
    assert_eq!(second.until, Some(t("12:30")));
    assert!(!second.must_write(Some(&first.wanted)));
}

#[test]
fn nothing_is_told_at_the_start_of_an_event_whose_profile_shows_already() {
    let event = [own("m", "MÖT", "10:00", "11:00")];
    let mut ours = Mailbox::new(rules(), &event);
    ours.base("meeting", None, t("09:00"));
    let before = ours.at(t("09:30"));
    let during = ours.at(t("10:00"));
    assert!(!during.must_write(Some(&before.wanted)));
    assert!(!ours.at(t("11:00")).must_write(Some(&before.wanted)));

    let mut theirs = Mailbox::new(rules(), &event);
    let what = What::AsFound { shown: found("away"), profile: Some(profile("meeting")) };
    theirs.layers.base = Some(Base::new(what, t("09:00")));
    let before = theirs.at(t("09:30"));
    assert_eq!(before.wanted, Wanted::AsFound(found("away")));
    assert!(!theirs.at(t("10:00")).must_write(Some(&before.wanted)));
    assert!(!theirs.at(t("11:00")).must_write(Some(&before.wanted)));
}

#[test]
fn a_hole_that_grows_is_told_though_the_base_says_available_too() {
    let trip = own("t", "TJR", "08:00", "17:00");
    let mut mailbox = Mailbox::new(rules(), &[trip.clone(), own("a", "Available", "10:00", "11:00")]);
    let first = mailbox.at(t("10:00"));
    assert_eq!(outward(&first.wanted).note, "till 11:00");
    mailbox.recalendar(&[trip, own("a", "Available", "10:00", "11:30")]);
    assert!(mailbox.at(t("10:30")).must_write(Some(&first.wanted)));
}

#[test]
fn changed_terms_of_a_profile_are_told_even_for_a_base() {
    let mut mailbox = Mailbox::new(rules(), &[]);
    let first = mailbox.at(t("09:00"));
    mailbox.rules.profiles[11].pbx.asterisk.state = crate::model::AsteriskState::Chat;
    assert!(mailbox.at(t("09:00")).must_write(Some(&first.wanted)));
}
