//! An event that is edited while it runs (`semantics.md` 5.5.5 and 5.6).

use super::Mailbox;
use crate::{
    decide::{Lasting, Layer},
    model::{CalendarEvent, Response, Subject},
    timetable::tests::{own, rules, t, timed},
};

fn meeting() -> CalendarEvent {
    own("m", "MÖT", "10:00", "11:00")
}

fn at(from: &str, to: &str) -> CalendarEvent {
    CalendarEvent { when: timed(t(from), t(to)), ..meeting() }
}

fn renamed(subject: &str) -> CalendarEvent {
    CalendarEvent { subject: Some(Subject::new(subject)), ..meeting() }
}

#[test]
fn an_edit_of_a_running_event_takes_effect_at_once() {
    for (edited, expected) in [
        (vec![at("12:00", "13:00")], "available"),
        (vec![at("10:00", "10:20")], "available"),
        (vec![at("10:00", "12:00")], "meeting"),
        (vec![renamed("Lunch")], "lunch"),
        (vec![renamed("Budget")], "available"),
        (vec![], "available"),
        (vec![CalendarEvent { cancelled: true, ..meeting() }], "available"),
        (vec![renamed("Avbokat: MÖT")], "available"),
        (vec![CalendarEvent { response: Response::Declined, ..meeting() }], "available"),
    ] {
        let mut mailbox = Mailbox::new(rules(), &[meeting()]);
        assert_eq!(mailbox.shows(t("10:30")), "meeting");
        mailbox.recalendar(&edited);
        assert_eq!(mailbox.shows(t("10:30")), expected, "{edited:?}");
    }
}

#[test]
fn an_override_is_kept_or_dropped_by_what_the_edit_was() {
    for (edited, kept) in [
        (vec![meeting()], true),
        (vec![at("10:00", "12:00")], true),
        (vec![at("10:00", "10:45")], true),
        (vec![at("09:45", "12:00")], true),
        (vec![renamed("Meeting, and more")], true),
        (vec![at("10:31", "12:00")], false),
        (vec![at("10:00", "10:20")], false),
        (vec![renamed("Lunch")], false),
        (vec![renamed("Budget")], false),
        (vec![], false),
        (vec![CalendarEvent { cancelled: true, ..meeting() }], false),
    ] {
        let mut mailbox = Mailbox::new(rules(), &[meeting()]);
        mailbox.change("do-not-disturb", Lasting::OnPhone(None), t("10:15"));
        mailbox.recalendar(&edited);
        let decision = mailbox.at(t("10:30"));
        assert_eq!(decision.layer == Layer::Override, kept, "{edited:?}");
        assert_eq!(mailbox.layers.override_.is_some(), kept, "{edited:?}");
    }
}

#[test]
fn a_dropped_override_does_not_come_back() {
    let mut mailbox = Mailbox::new(rules(), &[meeting()]);
    mailbox.change("available", Lasting::OnPhone(None), t("10:15"));
    mailbox.recalendar(&[at("12:00", "13:00")]);
    assert_eq!(mailbox.shows(t("10:30")), "available");
    assert_eq!(mailbox.shows(t("12:30")), "meeting");
    mailbox.recalendar(&[meeting()]);
    assert_eq!(mailbox.shows(t("10:40")), "meeting");
}

#[test]
fn a_kept_override_follows_the_events_new_end() {
    let mut mailbox = Mailbox::new(rules(), &[meeting()]);
    mailbox.change("do-not-disturb", Lasting::OnPhone(None), t("10:15"));
    mailbox.recalendar(&[at("10:00", "12:00")]);
    assert_eq!(mailbox.shows(t("11:30")), "do-not-disturb");
    mailbox.recalendar(&[at("10:00", "11:45")]);
    assert_eq!(mailbox.at(t("11:30")).until, Some(t("11:45")));
    assert_eq!(mailbox.shows(t("11:45")), "available");
}

#[test]
fn an_override_made_in_the_lead_is_not_taken_for_a_moved_event() {
    let mut rules = rules();
    let meeting_profile = rules.profiles.iter_mut().find(|profile| profile.id.as_str() == "meeting").unwrap();
    meeting_profile.before_start_secs = 300;
    let mut mailbox = Mailbox::new(rules, &[meeting()]);
    mailbox.change("lunch", Lasting::OnPhone(None), t("09:57"));
    assert_eq!(mailbox.shows(t("09:58")), "lunch");
    assert_eq!(mailbox.shows(t("10:30")), "lunch");
    assert_eq!(mailbox.shows(t("11:00")), "available");
}

#[test]
fn an_occurrence_is_known_by_its_slot_when_its_id_changes() {
    let series = |id: &str, to: &str| CalendarEvent {
        id: id.parse().unwrap(),
        series: Some("s".parse().unwrap()),
        original_start: Some(t("10:00")),
        ..at("10:00", to)
    };
    let mut mailbox = Mailbox::new(rules(), &[series("occurrence", "11:00")]);
    mailbox.change("available", Lasting::OnPhone(None), t("10:15"));
    mailbox.recalendar(&[series("exception", "11:30")]);
    assert_eq!(mailbox.at(t("11:15")).layer, Layer::Override);
}
