//! Days that are not 24 hours long.

use jiff::{SignedDuration, Timestamp};

use super::Mailbox;
use crate::{
    model::{CalendarEvent, Interval},
    timetable::{
        Matcher, Zone,
        tests::{all_day, own, rules, timed, ts},
    },
};

fn mailbox(zone: &str, events: &[CalendarEvent], around: Timestamp) -> Mailbox {
    let rules = rules();
    let days = SignedDuration::from_hours(24 * 5);
    let mut mailbox = Mailbox::new(rules.clone(), &[]);
    let window = Interval::new(around - days, around + days);
    let matcher = Matcher::new(&rules).unwrap();
    mailbox.timetable.rebuild(&rules, &matcher, events, window, Zone::choose(Some(zone), "Europe/Stockholm"));
    mailbox
}

#[test]
fn a_whole_day_lasts_from_its_first_instant_to_that_of_the_next() {
    for (zone, day, next, start, minutes) in [
        ("Europe/Stockholm", "2026-03-29", "2026-03-30", "2026-03-28T23:00:00Z", 23 * 60),
        ("Europe/Stockholm", "2026-10-25", "2026-10-26", "2026-10-24T22:00:00Z", 25 * 60),
        ("America/New_York", "2026-03-08", "2026-03-09", "2026-03-08T05:00:00Z", 23 * 60),
        ("America/New_York", "2026-11-01", "2026-11-02", "2026-11-01T04:00:00Z", 25 * 60),
        ("Asia/Kolkata", "2026-03-29", "2026-03-30", "2026-03-28T18:30:00Z", 24 * 60),
        ("Australia/Lord_Howe", "2026-04-05", "2026-04-06", "2026-04-04T13:00:00Z", 24 * 60 + 30),
        ("Australia/Lord_Howe", "2026-10-04", "2026-10-05", "2026-10-03T13:30:00Z", 23 * 60 + 30),
        ("America/Sao_Paulo", "2018-11-04", "2018-11-05", "2018-11-04T03:00:00Z", 23 * 60),
        ("America/Havana", "2024-11-03", "2024-11-04", "2024-11-03T04:00:00Z", 25 * 60),
    ] {
        let start = ts(start);
        let end = start + SignedDuration::from_mins(minutes);
        let mut mailbox = mailbox(zone, &[all_day("d", "HOL", day, next)], start);
        let nano = SignedDuration::from_nanos(1);
        for (at, expected) in
            [(start - nano, "available"), (start, "holiday"), (end - nano, "holiday"), (end, "available")]
        {
            assert_eq!(mailbox.shows(at), expected, "{zone} {day} at {at}");
        }
        assert_eq!(mailbox.at(start).until, Some(end), "{zone} {day}");
    }
}

#[test]
fn timed_events_are_instants_and_do_not_move_with_the_clocks() {
    // 02:30 comes twice in this night; the event is the second coming.
    let (from, to) = (ts("2026-10-25T01:30:00Z"), ts("2026-10-25T01:45:00Z"));
    let event = CalendarEvent { when: timed(from, to), ..own("m", "MÖT", "00:00", "00:00") };
    let mut mailbox = mailbox("Europe/Stockholm", &[event], from);
    assert_eq!(mailbox.shows(ts("2026-10-25T00:35:00Z")), "available");
    assert_eq!(mailbox.shows(ts("2026-10-25T01:35:00Z")), "meeting");
}

#[test]
fn the_note_reads_as_the_clock_on_the_mailboxs_wall() {
    for (zone, note) in [
        ("Europe/Stockholm", "till 15:00"),
        ("America/New_York", "till 09:00"),
        ("Asia/Kolkata", "till 19:30"),
        ("Australia/Lord_Howe", "till 24 nov 01:00"),
    ] {
        let (from, to) = (ts("2026-11-23T10:00:00Z"), ts("2026-11-23T14:00:00Z"));
        let event = CalendarEvent { when: timed(from, to), ..own("m", "MÖT", "00:00", "00:00") };
        let mut mailbox = mailbox(zone, &[event], from);
        let crate::model::Wanted::Profile(outward) = mailbox.at(from).wanted else { panic!("a profile") };
        assert_eq!(outward.note, note, "{zone}");
    }
}
