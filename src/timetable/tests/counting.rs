//! Which events count, with which profile, and what binds an accepted invitation.

use jiff::Timestamp;

use super::{all_day, event_id, external, own, profile, rules, stockholm, t, timed, timetable, window};
use crate::{
    model::{
        CalendarEvent, EventKind, ExternalChange, Fallback, Response, Rules, Sensitivity, ShowAs, Subject,
    },
    timetable::{Counts, Exclusion, HeldBack, Matcher, Timetable},
};

/// `Ok(profile)` where the event counts, the reason where it does not, `None` without an entry.
fn verdict(rules: &Rules, event: CalendarEvent) -> Option<Result<String, Exclusion>> {
    let timetable = timetable(rules, &[event]);
    only(&timetable)
}

fn only(timetable: &Timetable) -> Option<Result<String, Exclusion>> {
    let entry = timetable.entries.first()?;
    Some(match entry.counts {
        Counts::Counted => Ok(entry.profile().unwrap().to_string()),
        Counts::Excluded(reason) => Err(reason),
    })
}

fn meeting() -> CalendarEvent {
    own("e", "Meeting", "10:00", "11:00")
}

fn invitation(response: Response) -> CalendarEvent {
    CalendarEvent { response, ..meeting() }
}

fn counted(profile: &str) -> Option<Result<String, Exclusion>> {
    Some(Ok(profile.to_owned()))
}

#[test]
fn the_owners_own_event_counts_however_it_shows() {
    for show_as in [
        ShowAs::Free,
        ShowAs::Tentative,
        ShowAs::Busy,
        ShowAs::Oof,
        ShowAs::WorkingElsewhere,
        ShowAs::Unknown,
    ] {
        assert_eq!(
            verdict(&rules(), CalendarEvent { show_as, ..meeting() }),
            counted("meeting"),
            "{show_as:?}"
        );
    }
    let mut rules = rules();
    rules.counting.showas_for_trigger = Some(vec![ShowAs::Busy, ShowAs::Oof]);
    assert_eq!(verdict(&rules, meeting()), counted("meeting"));
    let free = CalendarEvent { show_as: ShowAs::Free, ..meeting() };
    assert_eq!(verdict(&rules, free), Some(Err(Exclusion::ShowsAs(ShowAs::Free))));
}

#[test]
fn an_invitation_steers_nothing_before_it_is_accepted() {
    let mut rules = rules();
    let judged = |rules: &Rules, response| verdict(rules, invitation(response));
    assert_eq!(judged(&rules, Response::Accepted), counted("meeting"));
    assert_eq!(judged(&rules, Response::None), Some(Err(Exclusion::Unanswered)));
    assert_eq!(judged(&rules, Response::Tentative), Some(Err(Exclusion::Tentative)));
    assert_eq!(judged(&rules, Response::Declined), Some(Err(Exclusion::Declined)));
    rules.counting.tentative = true;
    rules.counting.unanswered = true;
    assert_eq!(judged(&rules, Response::None), counted("meeting"));
    assert_eq!(judged(&rules, Response::Tentative), counted("meeting"));
    assert_eq!(judged(&rules, Response::Declined), Some(Err(Exclusion::Declined)));
}

#[test]
fn somebody_elses_free_event_never_counts() {
    let free = CalendarEvent { show_as: ShowAs::Free, ..invitation(Response::Accepted) };
    assert_eq!(verdict(&rules(), free), Some(Err(Exclusion::FreeInvitation)));
}

#[test]
fn a_cancelled_event_never_counts_by_its_flag_or_by_its_subject() {
    assert_eq!(
        verdict(&rules(), CalendarEvent { cancelled: true, ..meeting() }),
        Some(Err(Exclusion::Cancelled))
    );
    let marked = own("e", "Avbokat: Meeting", "10:00", "11:00");
    assert_eq!(verdict(&rules(), marked), Some(Err(Exclusion::CancellationMark)));
    let mut fallback = rules();
    fallback.counting.fallback = Fallback { busy: Some(profile("meeting")), ..Fallback::default() };
    assert_eq!(verdict(&fallback, own("e", "Avbokat: budget", "10:00", "11:00")), None);
}

#[test]
fn private_events_count_unless_the_company_leaves_them_out() {
    let private = || CalendarEvent { sensitivity: Sensitivity::Private, ..meeting() };
    assert_eq!(verdict(&rules(), private()), counted("meeting"));
    let mut rules = rules();
    rules.counting.ignore_private = true;
    assert_eq!(verdict(&rules, private()), Some(Err(Exclusion::Private)));
}

#[test]
fn an_event_whose_subject_may_not_be_read_is_no_match_and_is_explained() {
    let hidden = CalendarEvent { subject: None, ..meeting() };
    assert_eq!(verdict(&rules(), hidden.clone()), Some(Err(Exclusion::SubjectNotReadable)));
    let mut rules = rules();
    rules.counting.fallback.busy = Some(profile("meeting"));
    assert_eq!(verdict(&rules, hidden), counted("meeting"));
}

#[test]
fn whole_days_and_events_without_length() {
    let day = || all_day("e", "HOL", "2026-11-23", "2026-11-24");
    assert_eq!(verdict(&rules(), day()), counted("holiday"));
    let mut off = rules();
    off.counting.all_day = false;
    assert_eq!(verdict(&off, day()), Some(Err(Exclusion::AllDay)));
    assert_eq!(verdict(&rules(), own("e", "HOL", "10:00", "10:00")), Some(Err(Exclusion::ZeroLength)));
    assert_eq!(
        verdict(&rules(), all_day("e", "HOL", "2026-11-23", "2026-11-23")),
        Some(Err(Exclusion::ZeroLength))
    );
}

#[test]
fn without_a_word_nothing_happens_unless_the_company_wants_a_fallback() {
    let plain = |show_as| CalendarEvent { show_as, ..own("e", "Budget", "10:00", "11:00") };
    assert_eq!(verdict(&rules(), plain(ShowAs::Busy)), None);
    let mut rules = rules();
    rules.counting.fallback = Fallback {
        busy: Some(profile("meeting")),
        oof: Some(profile("holiday")),
        working_elsewhere: Some(profile("out-of-office")),
    };
    for (show_as, expected) in [
        (ShowAs::Busy, counted("meeting")),
        (ShowAs::Oof, counted("holiday")),
        (ShowAs::WorkingElsewhere, counted("out-of-office")),
        (ShowAs::Free, None),
        (ShowAs::Tentative, None),
    ] {
        assert_eq!(verdict(&rules, plain(show_as)), expected, "{show_as:?}");
    }
    let unanswered = CalendarEvent { response: Response::None, ..plain(ShowAs::Busy) };
    assert_eq!(verdict(&rules, unanswered), Some(Err(Exclusion::Unanswered)));
    assert_eq!(verdict(&rules, own("e", "Lunch", "10:00", "11:00")), counted("lunch"));
    rules.matching.opt_out_mark = true;
    assert_eq!(verdict(&rules, own("e", "* Budget", "10:00", "11:00")), None);
}

#[test]
fn a_series_itself_is_no_event_and_what_does_not_touch_the_window_is_not_kept() {
    let master = CalendarEvent { kind: EventKind::SeriesMaster, ..meeting() };
    assert_eq!(verdict(&rules(), master), None);
    let before = window().start;
    let hour = jiff::SignedDuration::from_hours(1);
    let at = |from: Timestamp, to: Timestamp| CalendarEvent { when: timed(from, to), ..meeting() };
    assert_eq!(verdict(&rules(), at(before - hour, before)), None);
    assert_eq!(verdict(&rules(), at(before - hour, before + hour)), counted("meeting"));
    assert_eq!(verdict(&rules(), at(window().end, window().end + hour)), None);
}

#[test]
fn external_means_an_address_outside_the_companys_domains() {
    let mut rules = rules();
    rules.counting.internal_only = true;
    let from = |domain: Option<&str>| CalendarEvent {
        response: Response::Accepted,
        organizer_domain: domain.map(str::to_owned),
        ..meeting()
    };
    assert_eq!(verdict(&rules, from(Some("acme.example"))), counted("meeting"));
    assert_eq!(verdict(&rules, from(Some("ACME.example"))), counted("meeting"));
    assert_eq!(verdict(&rules, from(None)), counted("meeting"));
    for domain in ["elsewhere.example", "sub.acme.example", "evil-acme.example"] {
        assert_eq!(verdict(&rules, from(Some(domain))), Some(Err(Exclusion::ExternalOrganizer)), "{domain}");
    }
}

fn renamed(event: &CalendarEvent, subject: &str) -> CalendarEvent {
    CalendarEvent { subject: Some(Subject::new(subject)), ..event.clone() }
}

/// A timetable that has seen these events one after the other.
fn seen(rules: &Rules, events: &[&CalendarEvent]) -> Timetable {
    let matcher = Matcher::new(rules).unwrap();
    let mut timetable = timetable(rules, &[]);
    for event in events {
        timetable.upsert(rules, &matcher, event);
    }
    timetable
}

#[test]
fn what_was_seen_at_acceptance_is_held_against_the_external_organiser() {
    let rules = rules();
    let lunch = external("e", "Lunch", "10:00", "11:00");
    for (later, held_back) in [
        ("Sick", Some(HeldBack { profile: Some(profile("sick")) })),
        ("Budget", Some(HeldBack { profile: None })),
        ("Lunch again", None),
        ("LUN", None),
    ] {
        let timetable = seen(&rules, &[&lunch, &renamed(&lunch, later)]);
        assert_eq!(only(&timetable), counted("lunch"), "{later}");
        assert_eq!(timetable.entries[0].held_back, held_back, "{later}");
    }
}

#[test]
fn an_invitation_that_had_no_word_at_acceptance_gets_none_later() {
    let rules = rules();
    let plain = external("e", "Budget", "10:00", "11:00");
    let timetable = seen(&rules, &[&plain, &renamed(&plain, "Sick")]);
    assert_eq!(only(&timetable), Some(Err(Exclusion::HeldWithout)));
    assert_eq!(only(&seen(&rules, &[&plain, &renamed(&plain, "Sick"), &plain])), None);
}

#[test]
fn the_first_read_after_acceptance_decides_and_not_one_before_it() {
    let rules = rules();
    let lunch = external("e", "Lunch", "10:00", "11:00");
    let unanswered = CalendarEvent { response: Response::None, ..renamed(&lunch, "Sick") };
    assert_eq!(only(&seen(&rules, &[&unanswered, &lunch])), counted("lunch"));
}

#[test]
fn the_hold_ends_when_the_invitation_is_no_longer_accepted() {
    let rules = rules();
    let lunch = external("e", "Lunch", "10:00", "11:00");
    let sick = renamed(&lunch, "Sick");
    for response in [Response::Declined, Response::Tentative, Response::None] {
        let left = CalendarEvent { response, ..sick.clone() };
        assert_eq!(only(&seen(&rules, &[&lunch, &left, &sick])), counted("sick"), "{response:?}");
    }
}

#[test]
fn times_follow_and_an_inside_organiser_is_followed() {
    let rules = rules();
    let lunch = external("e", "Lunch", "10:00", "11:00");
    let moved = CalendarEvent { when: timed(t("12:00"), t("13:00")), ..renamed(&lunch, "Sick") };
    let timetable = seen(&rules, &[&lunch, &moved]);
    assert_eq!((only(&timetable), timetable.entries[0].when), (counted("lunch"), moved.when));
    let inside = CalendarEvent { organizer_domain: Some("acme.example".into()), ..lunch };
    assert_eq!(only(&seen(&rules, &[&inside, &renamed(&inside, "Sick")])), counted("sick"));
}

#[test]
fn cancellation_by_the_subject_is_no_held_change() {
    let rules = rules();
    let lunch = external("e", "Lunch", "10:00", "11:00");
    let cancelled = renamed(&lunch, "Canceled: Lunch");
    assert_eq!(only(&seen(&rules, &[&lunch, &cancelled])), Some(Err(Exclusion::CancellationMark)));
    assert_eq!(only(&seen(&rules, &[&lunch, &cancelled, &renamed(&lunch, "Sick")])), counted("lunch"));
}

#[test]
fn the_company_may_choose_to_follow() {
    let mut rules = rules();
    rules.counting.external_subject_change = ExternalChange::Follow;
    let lunch = external("e", "Lunch", "10:00", "11:00");
    let timetable = seen(&rules, &[&lunch, &renamed(&lunch, "Sick")]);
    assert_eq!(only(&timetable), counted("sick"));
    assert!(timetable.holds.is_empty());
}

fn occurrence(id: &str, subject: &str, day: &str) -> CalendarEvent {
    let at = |time: &str| super::ts(&format!("{day}T{time}:00+01:00"));
    CalendarEvent {
        series: Some(event_id("series")),
        kind: EventKind::Occurrence,
        original_start: Some(at("10:00")),
        when: timed(at("10:00"), at("11:00")),
        ..external(id, subject, "10:00", "11:00")
    }
}

#[test]
fn a_series_is_held_by_its_master_and_so_are_occurrences_that_come_later() {
    let rules = rules();
    let matcher = Matcher::new(&rules).unwrap();
    let mut timetable = timetable(&rules, &[occurrence("o1", "Lunch", "2026-11-24")]);
    // The window rolls past the first, and the organiser renames the series.
    let rolled =
        crate::model::Interval::new(super::ts("2026-11-25T00:00:00Z"), super::ts("2027-01-01T00:00:00Z"));
    timetable.rebuild(&rules, &matcher, &[], rolled, stockholm());
    assert!(timetable.entries.is_empty() && !timetable.holds.is_empty());
    timetable.rebuild(&rules, &matcher, &[occurrence("o2", "Sick", "2026-12-24")], rolled, stockholm());
    assert_eq!(only(&timetable), counted("lunch"));
    // One declined occurrence does not end the hold on the others.
    let declined = CalendarEvent { response: Response::Declined, ..occurrence("o2", "Sick", "2026-12-24") };
    let events = [declined, occurrence("o3", "Sick", "2026-12-31")];
    timetable.rebuild(&rules, &matcher, &events, rolled, stockholm());
    let counted_profiles: Vec<_> = timetable.spans(&rules).into_iter().map(|span| span.profile).collect();
    assert_eq!(counted_profiles, [profile("lunch")]);
}

#[test]
fn holds_are_forgotten_once_they_can_bind_nothing() {
    let rules = rules();
    let matcher = Matcher::new(&rules).unwrap();
    let at = |start: &str, end: &str| crate::model::Interval::new(super::ts(start), super::ts(end));
    let mut single = timetable(&rules, &[external("e", "Lunch", "10:00", "11:00")]);
    single.rebuild(&rules, &matcher, &[], at("2026-11-25T00:00:00Z", "2027-01-01T00:00:00Z"), stockholm());
    assert!(single.holds.is_empty(), "a single event that is over");
    let mut series = timetable(&rules, &[occurrence("o1", "Lunch", "2026-11-24")]);
    series.rebuild(&rules, &matcher, &[], at("2027-11-25T00:00:00Z", "2027-12-28T00:00:00Z"), stockholm());
    assert!(!series.holds.is_empty(), "a series may come once a year");
    series.rebuild(&rules, &matcher, &[], at("2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"), stockholm());
    assert!(series.holds.is_empty(), "a series that has not been seen for more than a year");
}

#[test]
fn new_words_of_the_company_reach_held_events_that_nobody_tampered_with() {
    let old = rules();
    let mut new = rules();
    crate::company::standard::add_set(&mut new.profiles, crate::company::standard::TriggerSet::SvWords);
    let honest = external("a", "Möte med Anna", "10:00", "11:00");
    let tampered = external("b", "Budget", "12:00", "13:00");
    let mut timetable = timetable(&old, &[honest.clone(), tampered.clone()]);
    let matcher = Matcher::new(&old).unwrap();
    timetable.upsert(&old, &matcher, &renamed(&tampered, "Sick"));
    let events = [honest, renamed(&tampered, "Sick")];
    timetable.rebuild(&new, &Matcher::new(&new).unwrap(), &events, window(), stockholm());
    let counts: Vec<_> = timetable.entries.iter().map(|entry| (entry.profile(), entry.counts)).collect();
    assert_eq!(
        counts,
        [
            (Some(&profile("meeting")), Counts::Counted),
            (Some(&profile("sick")), Counts::Excluded(Exclusion::HeldWithout))
        ]
    );
}

#[test]
fn the_same_words_hold_what_was_renamed_unseen_and_other_words_take_it_anew() {
    let old = rules();
    let other = {
        let mut other = rules();
        crate::company::standard::add_set(&mut other.profiles, crate::company::standard::TriggerSet::SvWords);
        other
    };
    let lunch = external("e", "Lunch", "10:00", "11:00");
    let mut timetable = timetable(&old, std::slice::from_ref(&lunch));
    let mut read = |rules: &Rules, subject| {
        let (matcher, events) = (Matcher::new(rules).unwrap(), [renamed(&lunch, subject)]);
        timetable.rebuild(rules, &matcher, &events, window(), stockholm());
        only(&timetable)
    };
    let counting = Rules { time_zone: "Europe/Helsinki".into(), bridge_secs: 60, ..old.clone() };
    assert_eq!(read(&counting, "Sick"), counted("lunch"));
    assert_eq!(read(&counting, "Lunch"), counted("lunch"));
    assert_eq!(read(&other, "Sjuk"), counted("sick"));
    assert_eq!(read(&old, "Lunch"), counted("lunch"), "there and back is a change each time");
}

#[test]
fn what_was_stored_before_words_had_a_digest_stays_held() {
    let rules = rules();
    let matcher = Matcher::new(&rules).unwrap();
    let lunch = external("e", "Lunch", "10:00", "11:00");
    let mut stored = serde_json::to_value(timetable(&rules, std::slice::from_ref(&lunch))).unwrap();
    stored.as_object_mut().unwrap().remove("words_digest").unwrap();
    stored["rules_version"] = 7.into();
    let mut timetable: Timetable = serde_json::from_value(stored).unwrap();
    assert_eq!((timetable.words_digest, only(&timetable)), (None, counted("lunch")));
    timetable.rebuild(&rules, &matcher, &[renamed(&lunch, "Sick")], window(), stockholm());
    assert_eq!((timetable.words_digest, only(&timetable)), (Some(matcher.digest()), counted("lunch")));
}
