//! The timetable's operations: each gives what a complete read of the same calendar would.

use proptest::prelude::*;

use super::{all_day, event_id, external, own, rules, stockholm, t, timed, timetable, ts, window};
use crate::{
    model::{CalendarEvent, EventKind, Response, ShowAs, Subject, When},
    timetable::{Counts, EventKey, Matcher, Timetable, Zone},
};

fn one_of_series(id: &str, slot: i64, subject: &str) -> CalendarEvent {
    let start = ts("2026-11-23T08:00:00Z") + jiff::SignedDuration::from_hours(24 * slot);
    CalendarEvent {
        series: Some(event_id("series")),
        kind: EventKind::Occurrence,
        original_start: Some(start),
        when: timed(start, start + jiff::SignedDuration::from_hours(1)),
        ..own(id, subject, "08:00", "09:00")
    }
}

#[test]
fn operations_say_what_they_changed() {
    let rules = rules();
    let matcher = Matcher::new(&rules).unwrap();
    let mut timetable = timetable(&rules, &[]);
    let lunch = own("e", "Lunch", "12:00", "13:00");
    assert_eq!(timetable.upsert(&rules, &matcher, &lunch).added, [event_id("e")]);
    let same = timetable.upsert(&rules, &matcher, &lunch);
    assert!(same.is_empty() && !same.stored_form);
    let longer = CalendarEvent { when: timed(t("12:00"), t("14:00")), ..lunch.clone() };
    assert_eq!(timetable.upsert(&rules, &matcher, &longer).changed, [event_id("e")]);
    let wordless = CalendarEvent { subject: Some(Subject::new("Budget")), ..lunch.clone() };
    assert_eq!(timetable.upsert(&rules, &matcher, &wordless).removed, [event_id("e")]);
    timetable.upsert(&rules, &matcher, &lunch);
    assert!(timetable.knows(&event_id("e")));
    assert_eq!(timetable.remove(&event_id("e")).removed, [event_id("e")]);
    assert!(timetable.remove(&event_id("e")).is_empty());
}

#[test]
fn a_series_is_replaced_and_removed_as_a_whole() {
    let rules = rules();
    let matcher = Matcher::new(&rules).unwrap();
    let single = own("single", "Lunch", "12:00", "13:00");
    let week: Vec<_> = (0..5).map(|slot| one_of_series(&format!("o{slot}"), slot, "MÖT")).collect();
    let mut timetable = timetable(&rules, &[&week[..], &[single]].concat());
    let moved: Vec<_> = (2..4).map(|slot| one_of_series(&format!("o{slot}"), slot, "LUN")).collect();
    let changes = timetable.replace_series(&rules, &matcher, &event_id("series"), &moved);
    assert_eq!(changes.changed, [event_id("o2"), event_id("o3")]);
    assert_eq!(changes.removed, [event_id("o0"), event_id("o1"), event_id("o4")]);
    assert_eq!(timetable.remove(&event_id("series")).removed, [event_id("o2"), event_id("o3")]);
    assert!(timetable.knows(&event_id("single")));
}

#[test]
fn an_occurrence_that_becomes_an_exception_under_another_id_is_not_counted_twice() {
    let rules = rules();
    let matcher = Matcher::new(&rules).unwrap();
    let mut timetable = timetable(&rules, &[one_of_series("o0", 0, "MÖT"), one_of_series("o1", 1, "MÖT")]);
    let exception = CalendarEvent {
        id: event_id("x0"),
        kind: EventKind::Exception,
        when: timed(t("15:00"), t("16:00")),
        ..one_of_series("o0", 0, "LUN")
    };
    let changes = timetable.upsert(&rules, &matcher, &exception);
    assert_eq!((changes.added, changes.removed), (vec![event_id("x0")], vec![event_id("o0")]));
    assert_eq!(timetable.spans(&rules).len(), 2);
}

#[test]
fn unknown_fields_of_a_newer_release_survive() {
    let rules = rules();
    let events = [external("e", "Lunch", "12:00", "13:00"), all_day("d", "HOL", "2026-12-01", "2026-12-03")];
    let mut stored = serde_json::to_value(timetable(&rules, &events)).unwrap();
    stored["novel"] = 1.into();
    stored["entries"][0]["novel"] = 2.into();
    stored["holds"]["e"]["novel"] = 3.into();
    let read: Timetable = serde_json::from_value(stored.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), stored);
    assert_eq!(read.extra["novel"], 1);
}

#[test]
fn the_stored_form_holds_no_subject_no_organiser_and_no_category() {
    let mut rules = rules();
    rules.matching.categories = true;
    let event = CalendarEvent {
        categories: vec!["Hemlig kategori".into()],
        ..external("e", "Lunch med Hemligsson", "12:00", "13:00")
    };
    let timetable = timetable(&rules, &[event]);
    let stored = serde_json::to_string(&timetable).unwrap() + &format!("{timetable:?}");
    for secret in ["Hemlig", "hemlig", "elsewhere.example"] {
        assert!(!stored.contains(secret), "{secret} in {stored}");
    }
}

#[test]
fn whole_days_follow_the_mailboxes_zone_without_a_new_read() {
    let rules = rules();
    let mut timetable = timetable(&rules, &[all_day("d", "HOL", "2026-12-01", "2026-12-03")]);
    let span = |timetable: &Timetable| timetable.spans(&rules)[0].interval;
    assert_eq!(span(&timetable).start, ts("2026-11-30T23:00:00Z"));
    assert_eq!(span(&timetable).end, ts("2026-12-02T23:00:00Z"));
    assert!(timetable.set_zone(Zone::choose(Some("Eastern Standard Time"), "Europe/Stockholm")));
    assert_eq!(span(&timetable).start, ts("2026-12-01T05:00:00Z"));
}

#[test]
fn leads_and_tails_stretch_or_cut_a_span_within_a_quarter_of_an_hour() {
    let mut rules = rules();
    let meeting = rules.profiles.iter_mut().find(|profile| profile.id.as_str() == "meeting").unwrap();
    (meeting.before_start_secs, meeting.after_end_secs) = (120, -60);
    let events = [own("e", "MÖT", "10:00", "11:00"), own("tiny", "MÖT", "12:00", "12:01")];
    let spans = timetable(&rules, &events).spans(&rules);
    assert_eq!(spans.len(), 1, "an event that its early end uses up has no span");
    assert_eq!((spans[0].reach.start, spans[0].own.start), (t("09:58"), t("10:00")));
    assert_eq!(
        (spans[0].own.end, spans[0].reach.end, spans[0].interval.end),
        (t("10:59"), t("10:59"), t("11:00"))
    );
    let meeting = rules.profiles.iter_mut().find(|profile| profile.id.as_str() == "meeting").unwrap();
    (meeting.before_start_secs, meeting.after_end_secs) = (100_000, 0);
    assert_eq!(timetable(&rules, &events).spans(&rules)[0].reach.start, t("09:45"));
}

/// One of a few events, in one of its possible states.
fn any_event() -> impl Strategy<Value = CalendarEvent> {
    let subjects = ["Lunch", "MÖT", "Sick", "Budget", "Avbokat: MÖT", "Available"];
    let responses = [Response::Organizer, Response::Accepted, Response::Declined, Response::None];
    (0..6_i64, 0..subjects.len(), 0..responses.len(), any::<(bool, bool)>(), -2..40_i64).prop_map(
        move |(number, subject, response, (outside, series), day)| {
            let id = format!("{}{number}", if series { "o" } else { "e" });
            let event = one_of_series(&id, number, subjects[subject]);
            let start = ts("2026-11-23T08:00:00Z") + jiff::SignedDuration::from_hours(24 * day);
            CalendarEvent {
                series: event.series.filter(|_| series),
                original_start: event.original_start.filter(|_| series),
                kind: if series { EventKind::Occurrence } else { EventKind::Single },
                when: timed(start, start + jiff::SignedDuration::from_hours(3)),
                response: responses[response],
                show_as: ShowAs::Busy,
                organizer_domain: Some(if outside { "elsewhere.example" } else { "acme.example" }.into()),
                ..event
            }
        },
    )
}

fn outline(timetable: &Timetable) -> Vec<(EventKey, When, Counts)> {
    timetable.entries.iter().map(|entry| (entry.key.clone(), entry.when, entry.counts)).collect()
}

proptest! {
    #[test]
    fn single_changes_come_to_the_same_as_a_complete_read(
        before in prop::collection::vec(any_event(), 0..6),
        changes in prop::collection::vec((any_event(), any::<bool>()), 0..8),
    ) {
        let rules = rules();
        let matcher = Matcher::new(&rules).unwrap();
        let mut calendar: Vec<CalendarEvent> = Vec::new();
        for event in before {
            calendar.retain(|known| known.id != event.id);
            calendar.push(event);
        }
        let mut stepwise = timetable(&rules, &calendar);
        for (event, gone) in changes {
            let mut whole = stepwise.clone();
            calendar.retain(|known| known.id != event.id);
            let (id, series) = (event.id.clone(), event.series.clone());
            if !gone {
                calendar.push(event.clone());
            }
            match series {
                // As a turn does: of a series that changed all occurrences are read.
                Some(series) => {
                    let occurrences: Vec<_> =
                        calendar.iter().filter(|known| known.series.as_ref() == Some(&series)).cloned().collect();
                    stepwise.replace_series(&rules, &matcher, &series, &occurrences);
                }
                None if gone => drop(stepwise.remove(&id)),
                None => drop(stepwise.upsert(&rules, &matcher, &event)),
            }
            // A complete read has only what touches the window.
            let touching: Vec<_> = calendar.iter().filter(|event| {
                crate::timetable::interval_of(&event.when, &stockholm().rules()).overlaps(&window())
            }).cloned().collect();
            whole.rebuild(&rules, &matcher, &touching, window(), stockholm());
            // What an event that does not count would have been is told from what was known when it was read, and may
            // differ; what counts, and what steers the phone, may not.
            prop_assert_eq!(outline(&whole), outline(&stepwise));
            prop_assert_eq!(whole.spans(&rules), stepwise.spans(&rules));
        }
    }

    #[test]
    fn the_order_in_which_a_complete_read_comes_is_of_no_matter(
        events in prop::collection::vec(any_event(), 0..8).prop_shuffle(),
    ) {
        let rules = rules();
        let mut distinct: Vec<CalendarEvent> = Vec::new();
        for event in events {
            if distinct.iter().all(|known| known.id != event.id) {
                distinct.push(event);
            }
        }
        let forward = timetable(&rules, &distinct);
        distinct.reverse();
        prop_assert_eq!(forward, timetable(&rules, &distinct));
    }
}
