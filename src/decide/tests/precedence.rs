//! Which event wins (`semantics.md` 5.2), and leads, tails and bridges.

use jiff::SignedDuration;
use proptest::prelude::*;

use super::Mailbox;
use crate::{
    decide::preview,
    model::{CalendarEvent, Rules},
    timetable::tests::{all_day, own, rules, t, timed, ts},
};

fn shows(rules: &Rules, events: &[CalendarEvent], time: &str) -> String {
    Mailbox::new(rules.clone(), events).shows(t(time))
}

/// What shows over the day, as `10:00 lunch`, from midnight.
fn course(rules: &Rules, events: &[CalendarEvent]) -> Vec<String> {
    let mailbox = Mailbox::new(rules.clone(), events);
    let zone = mailbox.timetable.zone.rules();
    preview(rules, &mailbox.timetable, &mailbox.layers, t("00:00"), t("23:59"))
        .into_iter()
        .map(|stretch| {
            let start = zone.to_datetime(stretch.interval.start).time().strftime("%H:%M").to_string();
            format!("{start} {}", stretch.profile.unwrap())
        })
        .collect()
}

fn with_shift(rules: &mut Rules, id: &str, lead: i32, tail: i32) {
    let profile = rules.profiles.iter_mut().find(|profile| profile.id.as_str() == id).unwrap();
    (profile.before_start_secs, profile.after_end_secs) = (lead, tail);
}

#[test]
fn the_start_belongs_to_an_event_and_its_end_does_not() {
    let events = [own("e", "Lunch", "12:00", "13:00")];
    assert_eq!(course(&rules(), &events), ["00:00 available", "12:00 lunch", "13:00 available"]);
    let mut mailbox = Mailbox::new(rules(), &events);
    let nano = SignedDuration::from_nanos(1);
    assert_eq!(mailbox.shows(t("12:00") - nano), "available");
    assert_eq!(mailbox.shows(t("13:00") - nano), "lunch");
}

#[test]
fn rank_decides_and_a_meeting_does_not_break_a_holiday() {
    let events = [all_day("h", "HOL", "2026-11-23", "2026-11-27"), own("m", "MÖT", "10:00", "11:00")];
    assert_eq!(shows(&rules(), &events, "10:30"), "holiday");
    let mut other = rules();
    other.profiles.reverse();
    assert_eq!(shows(&other, &events, "10:30"), "meeting");
}

#[test]
fn a_shorter_available_makes_a_hole_in_a_longer_event() {
    let events = [own("t", "TJR", "08:00", "17:00"), own("a", "Available", "10:00", "11:00")];
    assert_eq!(
        course(&rules(), &events),
        [
            "00:00 available",
            "08:00 away-on-business",
            "10:00 available",
            "11:00 away-on-business",
            "17:00 available"
        ]
    );
}

#[test]
fn an_available_as_long_as_its_rival_is_no_hole_and_shorter_rivals_stand() {
    let same = [own("t", "TJR", "10:00", "11:00"), own("a", "Available", "10:00", "11:00")];
    assert_eq!(shows(&rules(), &same, "10:30"), "away-on-business");
    let within = [
        own("t", "HOL", "08:00", "17:00"),
        own("a", "Available", "10:00", "12:00"),
        own("m", "MÖT", "10:30", "11:00"),
    ];
    assert_eq!(
        course(&rules(), &within)[1..],
        [
            "08:00 holiday",
            "10:00 available",
            "10:30 meeting",
            "11:00 available",
            "12:00 holiday",
            "17:00 available"
        ]
    );
}

#[test]
fn holes_are_measured_in_instants() {
    // On the day of 25 hours a whole day is longer than 24 hours and 30 minutes.
    let day = all_day("h", "HOL", "2026-10-25", "2026-10-26");
    let from = ts("2026-10-24T22:00:00Z");
    let long = |minutes| CalendarEvent {
        when: timed(from, from + SignedDuration::from_mins(minutes)),
        ..own("a", "Available", "00:00", "00:00")
    };
    let october = crate::model::Interval::new(ts("2026-10-20T00:00:00Z"), ts("2026-11-20T00:00:00Z"));
    for (minutes, expected) in [(24 * 60 + 30, "available"), (25 * 60, "holiday")] {
        let rules = rules();
        let mut mailbox = Mailbox::new(rules.clone(), &[]);
        let matcher = crate::timetable::Matcher::new(&rules).unwrap();
        let events = [day.clone(), long(minutes)];
        mailbox.timetable.rebuild(&rules, &matcher, &events, october, crate::timetable::tests::stockholm());
        assert_eq!(mailbox.shows(ts("2026-10-25T10:00:00Z")), expected, "{minutes}");
    }
}

#[test]
fn of_one_rank_the_shorter_then_the_later_then_the_last_changed_then_the_smallest_id_wins() {
    let deciding = |events: &[CalendarEvent]| {
        let mut mailbox = Mailbox::new(rules(), events);
        mailbox.at(t("10:30")).deciding.unwrap().event.to_string()
    };
    let long = own("long", "MÖT", "09:00", "12:00");
    let early = own("early", "MÖT", "09:30", "11:00");
    let late = own("late", "MÖT", "10:00", "11:30");
    assert_eq!(deciding(&[long.clone(), early.clone()]), "early");
    assert_eq!(deciding(&[long, early, late.clone()]), "late");
    let changed = |id: &str, at: Option<&str>| CalendarEvent {
        id: id.parse().unwrap(),
        last_modified: at.map(ts),
        ..late.clone()
    };
    let (old, new) = (Some("2026-11-01T00:00:00Z"), Some("2026-11-02T00:00:00Z"));
    assert_eq!(deciding(&[changed("a", old), changed("b", new)]), "b");
    assert_eq!(deciding(&[changed("a", None), changed("b", old)]), "b");
    assert_eq!(deciding(&[changed("b", old), changed("a", old)]), "a");
}

#[test]
fn back_to_back_events_of_one_profile_do_not_flap() {
    let events = [own("a", "MÖT", "10:00", "11:00"), own("b", "Meeting", "11:00", "12:00")];
    assert_eq!(course(&rules(), &events), ["00:00 available", "10:00 meeting", "12:00 available"]);
    let mut mailbox = Mailbox::new(rules(), &events);
    let (first, second) = (mailbox.at(t("10:30")), mailbox.at(t("11:30")));
    assert_eq!((first.until, &first.wanted), (Some(t("12:00")), &second.wanted));
    assert_eq!(first.next_edge, Some(t("11:00")), "another event decides");
    assert!(!second.must_write(Some(&first.wanted)));
}

#[test]
fn short_gaps_between_events_of_one_profile_are_bridged() {
    let mut rules = rules();
    rules.bridge_secs = 300;
    let meeting = |id: &str, from: &str, to: &str| own(id, "MÖT", from, to);
    let bridged = [meeting("a", "10:00", "11:00"), meeting("b", "11:05", "12:00")];
    assert_eq!(course(&rules, &bridged), ["00:00 available", "10:00 meeting", "12:00 available"]);
    let mut mailbox = Mailbox::new(rules.clone(), &bridged);
    assert_eq!(
        mailbox.at(t("11:02")).deciding.unwrap().event.as_str(),
        "a",
        "the gap is the earlier event's"
    );
    let wide = [meeting("a", "10:00", "11:00"), meeting("b", "11:06", "12:00")];
    assert_eq!(course(&rules, &wide)[2..], ["11:00 available", "11:06 meeting", "12:00 available"]);
    let across =
        [meeting("a", "10:00", "11:00"), own("l", "LUN", "11:01", "11:02"), meeting("b", "11:03", "12:00")];
    assert_eq!(course(&rules, &across)[2..5], ["11:00 available", "11:01 lunch", "11:02 available"]);
    rules.bridge_secs = 100_000;
    let far = [meeting("a", "10:00", "11:00"), meeting("b", "11:11", "12:00")];
    assert_eq!(course(&rules, &far)[2], "11:00 available", "ten minutes at most");
}

#[test]
fn leads_and_tails_fill_only_time_that_is_nobodys_own() {
    let mut rules = rules();
    with_shift(&mut rules, "meeting", 300, 600);
    let alone = [own("m", "MÖT", "10:00", "11:00")];
    assert_eq!(course(&rules, &alone), ["00:00 available", "09:55 meeting", "11:10 available"]);
    let beside = [
        own("l", "Available", "09:00", "09:57"),
        own("m", "MÖT", "10:00", "11:00"),
        own("x", "Available", "11:05", "12:00"),
    ];
    assert_eq!(course(&rules, &beside), ["00:00 available", "09:57 meeting", "11:05 available"]);
    with_shift(&mut rules, "meeting", -120, -60);
    assert_eq!(course(&rules, &alone), ["00:00 available", "10:02 meeting", "10:59 available"]);
}

#[test]
fn a_tail_does_not_outrank_an_event_in_its_own_time() {
    let mut rules = rules();
    with_shift(&mut rules, "sick", 0, 900);
    let events = [own("s", "Sick", "09:00", "10:00"), own("m", "MÖT", "10:05", "11:00")];
    assert_eq!(course(&rules, &events)[1..], ["09:00 sick", "10:05 meeting", "11:00 available"]);
}

#[test]
fn a_multi_day_event_is_one_span_and_early_beginnings_count() {
    let long = CalendarEvent {
        when: timed(ts("2026-11-01T08:00:00Z"), ts("2026-12-24T12:00:00Z")),
        ..own("h", "HOL", "00:00", "00:00")
    };
    let mut mailbox = Mailbox::new(rules(), &[long]);
    let decision = mailbox.at(t("03:00"));
    assert_eq!(decision.until, Some(ts("2026-12-24T12:00:00Z")));
    assert_eq!(decision.next_changes.len(), 1);
}

#[test]
fn a_series_with_a_moved_and_a_deleted_occurrence() {
    let one = |id: &str, day: &str, from: &str, to: &str| {
        let at = |time: &str| ts(&format!("{day}T{time}:00+01:00"));
        CalendarEvent {
            series: Some("series".parse().unwrap()),
            original_start: Some(at("09:00")),
            when: timed(at(from), at(to)),
            ..own(id, "MÖT", "00:00", "00:00")
        }
    };
    // Tuesday is as planned, Wednesday moved to the afternoon, Thursday deleted.
    let events = [one("o1", "2026-11-24", "09:00", "10:00"), one("o2", "2026-11-25", "15:00", "16:00")];
    let mut mailbox = Mailbox::new(rules(), &events);
    for (at, expected) in [
        ("2026-11-24T08:30:00Z", "meeting"),
        ("2026-11-25T08:30:00Z", "available"),
        ("2026-11-25T14:30:00Z", "meeting"),
        ("2026-11-26T08:30:00Z", "available"),
    ] {
        assert_eq!(mailbox.shows(ts(at)), expected, "{at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_winner_does_not_depend_on_the_order_of_events(
        (events, shuffled) in prop::collection::vec((0..12_usize, 0..20_i64, 1..20_i64, 0..3_i64), 1..7)
            .prop_map(|drawn| drawn.into_iter().enumerate().map(overlapping).collect::<Vec<_>>())
            .prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle())),
        minute in 0..200_i64,
    ) {
        let now = t("08:00") + SignedDuration::from_mins(minute);
        let one = Mailbox::new(rules(), &events).at(now);
        let other = Mailbox::new(rules(), &shuffled).at(now);
        prop_assert_eq!(one, other);
    }
}

const WORDS: [&str; 12] = [
    "Sick",
    "HOL",
    "Parental leave",
    "TJL",
    "DND",
    "TJR",
    "GFD",
    "Out of office",
    "UTE",
    "LUN",
    "MÖT",
    "Available",
];

fn overlapping((number, (word, start, length, changed)): (usize, (usize, i64, i64, i64))) -> CalendarEvent {
    let start = t("08:00") + SignedDuration::from_mins(5 * start);
    CalendarEvent {
        when: timed(start, start + SignedDuration::from_mins(5 * length)),
        last_modified: (changed > 0).then(|| t("00:00") + SignedDuration::from_mins(changed)),
        ..own(&format!("e{number}"), WORDS[word], "00:00", "00:00")
    }
}
