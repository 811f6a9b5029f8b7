//! What the timetable promises, and the makings of calendars for these tests and those of `decide`.

mod counting;
mod matching;
mod operations;
pub(crate) mod subjects;

use jiff::Timestamp;

use crate::{
    company::standard,
    model::{
        CalendarEvent, Counting, EndTo, EventId, EventKind, Interval, Language, Matching, OverrideRule,
        ProfileId, Response, Rules, Sensitivity, ShowAs, Subject, When,
    },
    timetable::{Matcher, Timetable, Zone},
};

/// The standard profiles with every setting at its default.
pub(crate) fn rules() -> Rules {
    Rules {
        language: Language::Sv,
        time_zone: "Europe/Stockholm".into(),
        profiles: standard::profiles(Language::Sv),
        matching: Matching::default(),
        counting: Counting { internal_domains: vec!["acme.example".into()], ..Counting::default() },
        bridge_secs: 0,
        end_to: EndTo::Base,
        override_rule: OverrideRule::UntilEventEnd,
    }
}

pub(crate) fn profile(id: &str) -> ProfileId {
    id.parse().unwrap()
}

pub(crate) fn event_id(id: &str) -> EventId {
    id.parse().unwrap()
}

pub(crate) fn ts(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A moment on the 23rd of November 2026 by Stockholm's clocks (one hour ahead of UTC): `t("10:30")`.
pub(crate) fn t(time: &str) -> Timestamp {
    ts(&format!("2026-11-23T{time}:00+01:00"))
}

pub(crate) fn timed(from: Timestamp, to: Timestamp) -> When {
    When::Timed(Interval::new(from, to))
}

/// An appointment of the owner's own, `from` and `to` as [`t`] takes them.
pub(crate) fn own(id: &str, subject: &str, from: &str, to: &str) -> CalendarEvent {
    CalendarEvent {
        id: event_id(id),
        series: None,
        kind: EventKind::Single,
        original_start: None,
        subject: Some(Subject::new(subject)),
        when: timed(t(from), t(to)),
        show_as: ShowAs::Busy,
        sensitivity: Sensitivity::Normal,
        response: Response::Organizer,
        cancelled: false,
        categories: Vec::new(),
        organizer_domain: Some("acme.example".into()),
        last_modified: None,
    }
}

/// An invitation by somebody outside the company, accepted.
pub(crate) fn external(id: &str, subject: &str, from: &str, to: &str) -> CalendarEvent {
    CalendarEvent {
        response: Response::Accepted,
        organizer_domain: Some("elsewhere.example".into()),
        ..own(id, subject, from, to)
    }
}

/// Own whole days `[first, last)`.
pub(crate) fn all_day(id: &str, subject: &str, first: &str, last: &str) -> CalendarEvent {
    let when = When::AllDay { first: first.parse().unwrap(), last: last.parse().unwrap() };
    CalendarEvent { when, show_as: ShowAs::Free, ..own(id, subject, "00:00", "00:00") }
}

pub(crate) fn window() -> Interval {
    Interval::new(ts("2026-11-22T00:00:00Z"), ts("2026-12-28T00:00:00Z"))
}

pub(crate) fn stockholm() -> Zone {
    Zone::choose(Some("W. Europe Standard Time"), "Europe/Stockholm")
}

/// A timetable read in full.
pub(crate) fn timetable(rules: &Rules, events: &[CalendarEvent]) -> Timetable {
    let mut timetable = Timetable::default();
    timetable.rebuild(rules, &Matcher::new(rules).unwrap(), events, window(), stockholm());
    timetable
}
