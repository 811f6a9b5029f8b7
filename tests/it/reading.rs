//! How calendars are read: by rounds of delta as the truth, swept where nothing was announced, rolled at night; and
//! what that costs.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp, civil::date};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use narvaro::{
    calendar::{CalendarSource, DeltaLink, ReadError},
    company::standard,
    model::{CalendarEvent, Counting, EndTo, Language, Matching, OverrideRule, Rules},
    timetable::{Matcher, Timetable, Zone},
};
use narvaro_sim::{
    DeltaKnobs, EventSpec, Fault, FaultFilter, FaultKind, GraphCall, LifecycleKind, Occurrences, Record,
    Response, SeriesSpec,
};
use proptest::prelude::*;

use crate::{
    graph_adapter::{World as Adapter, at as utc, lunch, subject, window},
    world::{ANNA, Pbx, World, at},
};

const BO: &str = "bo@acme.example";

// The adapter against a delta that is stricter than Microsoft's.

/// Ids, times and subjects, in the order of their ids.
fn outline(events: &[CalendarEvent]) -> Vec<String> {
    let mut lines: Vec<String> = events
        .iter()
        .map(|event| format!("{} {:?} {:?} {}", event.id, event.kind, event.when, subject(event)))
        .collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn a_round_is_the_same_however_it_is_cut_into_pages_and_however_thin_its_rows_are() {
    let world = Adapter::new().await;
    let series = world.sim.add_event(ANNA, lunch().series(SeriesSpec::daily(6))).unwrap();
    let all_day = EventSpec::new("Ledig").all_day(date(2026, 12, 1), 1).series(SeriesSpec::weekly(2));
    world.sim.add_event(ANNA, all_day).unwrap();
    let moved = world.sim.occurrence(ANNA, &series.id, date(2026, 11, 25)).unwrap();
    world.sim.patch_event(ANNA, &moved.id, EventSpec::new("MÖT")).unwrap();
    for n in 0..4 {
        world.sim.add_event(ANNA, EventSpec { subject: Some(format!("E{n}")), ..lunch() }).unwrap();
    }
    world.sim.delta(|knobs| knobs.occurrences = Occurrences::Full);
    let plain = outline(&world.view().await.unwrap());
    assert_eq!(plain.len(), 12);
    for occurrences in [Occurrences::Full, Occurrences::Thin, Occurrences::ThinWithoutSeries] {
        for (empty_pages, replays, rows_per_page) in
            [(true, false, None), (false, true, Some(1)), (true, true, Some(3))]
        {
            let turned = DeltaKnobs { occurrences, empty_pages, replays, rows_per_page, lagging: false };
            world.sim.delta(|knobs| *knobs = turned.clone());
            assert_eq!(outline(&world.view().await.unwrap()), plain, "{turned:?}");
        }
    }
    world.is_clean();
}

#[tokio::test]
async fn a_later_round_brings_what_changed_and_what_left_the_window() {
    let world = Adapter::new().await;
    let add = |spec: EventSpec| world.sim.add_event(ANNA, spec).unwrap().id;
    let (stays, goes, leaves) = (add(lunch()), add(lunch()), add(lunch()));
    let series = add(lunch().series(SeriesSpec::daily(4)));
    let first = world.company.round(&world.anna, window(), None).await.unwrap();
    let again = world.company.round(&world.anna, window(), Some(&first.link)).await.unwrap();
    assert!(again.is_empty(), "{again:?}");

    world.sim.patch_event(ANNA, &stays, EventSpec::new("MÖT")).unwrap();
    world.sim.delete_event(ANNA, &goes).unwrap();
    let far = EventSpec::default().at(utc("2027-03-01T09:00:00Z"), utc("2027-03-01T10:00:00Z"));
    world.sim.patch_event(ANNA, &leaves, far.clone()).unwrap();
    let cancelled = world.sim.occurrence(ANNA, &series, date(2026, 11, 24)).unwrap().id;
    world.sim.delete_event(ANNA, &cancelled).unwrap();
    let never_known = add(EventSpec { subject: Some("Fjärran".to_owned()), ..far });
    let round = world.company.round(&world.anna, window(), Some(&again.link)).await.unwrap();
    assert_eq!(round.events.len(), 1);
    assert_eq!((round.events[0].id.as_str(), subject(&round.events[0])), (stays.as_str(), "MÖT"));
    let mut gone: Vec<&str> = round.gone.iter().map(|id| id.as_str()).collect();
    let mut expected = [goes.as_str(), &leaves, &cancelled, &never_known];
    gone.sort_unstable();
    expected.sort_unstable();
    assert_eq!(gone, expected);
    assert_eq!(round.series.len(), 1);
    assert_eq!((round.series[0].0.as_str(), round.series[0].1.len()), (series.as_str(), 3));
    world.is_clean();
}

/// Something that happens in a calendar. Numbers choose among what is there.
#[derive(Debug, Clone)]
enum Edit {
    Add { word: usize, day: i64, outside: bool },
    AddSeries { word: usize, day: i64 },
    Rename { which: usize, word: usize },
    Move { which: usize, day: i64 },
    Delete { which: usize },
    RenameOccurrence { which: usize, slot: i64, word: usize },
    DeleteOccurrence { which: usize, slot: i64 },
    Answer { which: usize, accepted: bool },
    ToOtherCalendar { which: usize },
    Forget,
}

const WORDS: [&str; 5] = ["Lunch", "MÖT", "Sick", "Budget", "Avbokat: MÖT"];

fn any_edit() -> impl Strategy<Value = Edit> {
    // Days before, within and after the window, and one that lies across its start.
    let day = prop_oneof![Just(-3), Just(-2), 0..30_i64, Just(50)];
    let (word, which) = (0..WORDS.len(), 0..8_usize);
    prop_oneof![
        4 => (word.clone(), day.clone(), any::<bool>())
            .prop_map(|(word, day, outside)| Edit::Add { word, day, outside }),
        2 => (word.clone(), day.clone()).prop_map(|(word, day)| Edit::AddSeries { word, day }),
        3 => (which.clone(), word.clone()).prop_map(|(which, word)| Edit::Rename { which, word }),
        3 => (which.clone(), day).prop_map(|(which, day)| Edit::Move { which, day }),
        2 => which.clone().prop_map(|which| Edit::Delete { which }),
        2 => (which.clone(), 0..4_i64, word)
            .prop_map(|(which, slot, word)| Edit::RenameOccurrence { which, slot, word }),
        2 => (which.clone(), 0..4_i64).prop_map(|(which, slot)| Edit::DeleteOccurrence { which, slot }),
        1 => (which.clone(), any::<bool>()).prop_map(|(which, accepted)| Edit::Answer { which, accepted }),
        1 => which.prop_map(|which| Edit::ToOtherCalendar { which }),
        1 => Just(Edit::Forget),
    ]
}

/// A calendar under edits: ids of what is there, with the first day of those that are series.
struct Edited<'a> {
    world: &'a Adapter,
    events: Vec<(String, Option<i64>)>,
}

fn on(day: i64) -> (Timestamp, Timestamp) {
    let start = utc("2026-11-23T08:00:00Z") + SignedDuration::from_hours(24 * day);
    (start, start + SignedDuration::from_hours(2))
}

impl Edited<'_> {
    fn make(&mut self, edit: &Edit) {
        let sim = &self.world.sim;
        let spec = |word: usize, day: i64| EventSpec::new(WORDS[word]).at(on(day).0, on(day).1);
        let known = |which: usize| self.events.get(which % self.events.len().max(1)).cloned();
        // An occurrence may have been deleted, and a slot may be none of the series: that edit is none.
        let occurrence = |which, slot: i64| {
            let (series, first) = known(which)?;
            let day = on(first? + slot).0.to_zoned(jiff::tz::TimeZone::UTC).date();
            sim.occurrence(ANNA, &series, day).ok()
        };
        match *edit {
            Edit::Add { word, day, outside } => {
                let spec = spec(word, day);
                let organizer = if outside { "eva@elsewhere.example" } else { "bo@acme.example" };
                let spec = spec.invited_by(organizer, Response::Accepted);
                self.events.push((sim.add_event(ANNA, spec).unwrap().id, None));
            }
            Edit::AddSeries { word, day } => {
                let spec = spec(word, day).series(SeriesSpec::daily(4));
                self.events.push((sim.add_event(ANNA, spec).unwrap().id, Some(day)));
            }
            Edit::Rename { which, word } => {
                if let Some((id, _)) = known(which) {
                    sim.patch_event(ANNA, &id, EventSpec::new(WORDS[word])).unwrap();
                }
            }
            Edit::Move { which, day } => {
                if let Some((id, series)) = known(which) {
                    sim.move_event(ANNA, &id, on(day).0, on(day).1).unwrap();
                    let place = which % self.events.len();
                    self.events[place].1 = series.map(|_| day);
                }
            }
            Edit::Delete { which } => {
                if let Some((id, _)) = known(which) {
                    sim.delete_event(ANNA, &id).unwrap();
                    self.events.retain(|(other, _)| *other != id);
                }
            }
            Edit::RenameOccurrence { which, slot, word } => {
                if let Some(one) = occurrence(which, slot) {
                    sim.patch_event(ANNA, &one.id, EventSpec::new(WORDS[word])).unwrap();
                }
            }
            Edit::DeleteOccurrence { which, slot } => {
                if let Some(one) = occurrence(which, slot) {
                    sim.delete_event(ANNA, &one.id).unwrap();
                }
            }
            Edit::Answer { which, accepted } => {
                if let Some((id, _)) = known(which) {
                    let answer = if accepted { Response::Accepted } else { Response::Declined };
                    sim.respond(ANNA, &id, answer).unwrap();
                }
            }
            Edit::ToOtherCalendar { which } => {
                if let Some((id, _)) = known(which) {
                    sim.patch_event(ANNA, &id, EventSpec::default().in_secondary_calendar()).unwrap();
                }
            }
            Edit::Forget => sim.expire_delta_links(ANNA).unwrap(),
        }
    }
}

fn rules() -> Rules {
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

/// Reads after each group of edits by delta, and holds it against a round from the start.
async fn delta_comes_to_the_same(groups: &[Vec<Edit>], knobs: DeltaKnobs) -> Result<(), TestCaseError> {
    let (rules, zone) = (rules(), Zone::choose(None, "Europe/Stockholm"));
    let matcher = Matcher::new(&rules).unwrap();
    let world = Adapter::new().await;
    world.sim.delta(|turned| *turned = knobs);
    let mut edited = Edited { world: &world, events: Vec::new() };
    let mut timetable = Timetable::default();
    timetable.rebuild(&rules, &matcher, &[], window(), zone.clone());
    let mut link: Option<DeltaLink> = None;
    for edits in groups {
        for edit in edits {
            edited.make(edit);
            world.sim.clock().advance(SignedDuration::from_secs(1));
        }
        let mut whole = timetable.clone();
        let all = world.company.round(&world.anna, window(), None).await.unwrap();
        whole.rebuild(&rules, &matcher, &all.events, window(), zone.clone());
        let later = match &link {
            Some(link) => match world.company.round(&world.anna, window(), Some(link)).await {
                Err(ReadError::LinkExpired) => None,
                outcome => Some(outcome.unwrap()),
            },
            None => None,
        };
        // Forgotten, or the first one: as a turn does then.
        let Some(round) = later else {
            timetable = whole;
            link = Some(all.link);
            continue;
        };
        timetable.take_in(&rules, &matcher, &round.gone, &round.series, &round.events);
        prop_assert_eq!(&timetable.entries, &whole.entries);
        link = Some(round.link);
    }
    world.is_clean();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn random_edits_read_by_delta_come_to_the_same_timetable_as_a_round_from_the_start(
        groups in prop::collection::vec(prop::collection::vec(any_edit(), 1..6), 2..6),
        occurrences in prop::sample::select(vec![
            Occurrences::Full, Occurrences::Thin, Occurrences::ThinWithoutSeries
        ]),
        (empty_pages, replays, small) in any::<(bool, bool, bool)>(),
    ) {
        let rows_per_page = small.then_some(2);
        let knobs = DeltaKnobs { occurrences, empty_pages, replays, rows_per_page, lagging: false };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(delta_comes_to_the_same(&groups, knobs))?;
    }
}

// The whole service.

/// The service's own counters, for tests that run on one thread.
struct Counters {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Counters {
    fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        Self { recorder, handle }
    }

    fn of(&self, name: &str) -> u64 {
        let text = self.handle.render();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    fn reads(&self) -> [u64; 3] {
        ["full", "delta", "items"].map(|kind| self.of(&format!("narvaro_reads_total{{kind=\"{kind}\"}}")))
    }
}

/// Requests for one user's mailbox since `seq`, by what they ask for: `start`, `since`, `page` of a round, or the
/// last part of the path; and the times of those for rounds.
fn asked(world: &World, alias: &str, seq: u64) -> (BTreeMap<String, usize>, Vec<Timestamp>) {
    let user = world.sim.user_id(alias).unwrap();
    let (mut kinds, mut rounds) = (BTreeMap::new(), Vec::new());
    for entry in world.sim.journal().since(seq) {
        let Record::Graph(call) = &entry.record else { continue };
        if call.mailbox.as_deref() != Some(user.as_str()) {
            continue;
        }
        let kind = kind_of(call);
        if kind == "start" || kind == "since" {
            rounds.push(entry.at);
        }
        *kinds.entry(kind).or_default() += 1;
    }
    (kinds, rounds)
}

fn kind_of(call: &GraphCall) -> String {
    let last = call.path.rsplit('/').next().unwrap_or_default();
    let kind = match last {
        "delta()" | "delta" if call.query.contains("startDateTime") => "start",
        "delta()" | "delta" if call.query.contains("deltatoken") => "since",
        "delta()" | "delta" => "page",
        other => other,
    };
    kind.to_owned()
}

fn pages_of(world: &World, alias: &str) -> FaultFilter {
    FaultFilter {
        path: Some("calendarView/delta".into()),
        mailbox: Some(world.sim.user_id(alias).unwrap()),
        ..FaultFilter::default()
    }
}

/// Changes Anna's calendar without a word to the service.
async fn unannounced(world: &World, change: impl FnOnce()) {
    world.sim.delivery(|knobs| knobs.drop = 1.0);
    change();
    world.settle().await;
    world.sim.delivery(|knobs| knobs.drop = 0.0);
}

/// Lets time pass in small steps.
async fn advance_by_steps(world: &World, by: SignedDuration, step: SignedDuration) {
    let end = world.now() + by;
    while world.now() < end {
        world.advance_to_instant((world.now() + step).min(end)).await;
    }
}

#[tokio::test]
async fn a_change_that_push_did_not_announce_is_found_by_the_next_sweep_and_counted() {
    let counters = Counters::new();
    let _here = metrics::set_default_local_recorder(&counters.recorder);
    let world = World::new().await;
    let mut meeting = String::new();
    unannounced(&world, || meeting = world.event("MÖT", "2026-11-23 07:30", "2026-11-23 09:30")).await;
    assert_eq!(world.shows("201").profile, "available", "nobody knows");
    world.advance_to("2026-11-23 08:14").await;
    assert_eq!(world.shows("201").profile, "available");
    world.advance_to("2026-11-23 08:15").await;
    assert_eq!(world.anna(), "meeting: Möte till 09:30");
    assert_eq!(counters.of("narvaro_unannounced_changes_total"), 1);
    // Suspicious now: a quarter of an hour later again, and again for what is gone.
    unannounced(&world, || world.sim.delete_event(ANNA, &meeting).unwrap()).await;
    world.advance_to("2026-11-23 08:30").await;
    assert_eq!(world.shows("201").profile, "available");
    assert_eq!(counters.of("narvaro_unannounced_changes_total"), 2);
    assert_eq!(
        counters.reads(),
        [2, 4, 0],
        "both in full, then their sweeps, and Bo's at once for what Anna's found"
    );
    world.end().await;
}

#[tokio::test]
async fn a_company_whose_changes_are_not_announced_is_polled_until_one_is() {
    let counters = Counters::new();
    let _here = metrics::set_default_local_recorder(&counters.recorder);
    let world = World::new().await;
    // Push is proven to both, so that their sweeps are hours apart.
    world.advance_to("2026-11-23 08:01").await;
    for alias in [ANNA, BO] {
        let tomorrow = (at("2026-11-24 10:00"), at("2026-11-24 11:00"));
        world.sim.add_event(alias, EventSpec::new("HOL").at(tomorrow.0, tomorrow.1)).unwrap();
    }
    world.settle().await;
    assert_eq!(world.company_health().await, "fine");
    world.sim.delivery(|knobs| knobs.drop = 1.0);
    world.event("MÖT", "2026-11-23 08:30", "2026-11-23 20:00");
    world.advance_to("2026-11-23 12:01").await;
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 20:00", "found by the sweep");
    assert_eq!(world.company_health().await, "fine", "one may be lost");
    let lunch = (at("2026-11-23 11:00"), at("2026-11-23 19:00"));
    world.sim.add_event(BO, EventSpec::new("Lunch").at(lunch.0, lunch.1)).unwrap();
    world.event("Lunch", "2026-11-23 12:10", "2026-11-23 19:00");
    world.advance_to("2026-11-23 12:17").await;
    world.settle().await;
    assert_eq!(world.company_health().await, "push_unreliable");
    assert_eq!(world.shows("202").profile, "lunch", "what one mailbox lost, all are looked at for");
    assert_eq!(counters.of("narvaro_push_unreliable_total"), 1);
    // A quarter of an hour is the longest that a change stays unseen now.
    let seq = world.sim.journal().last_seq();
    advance_by_steps(&world, SignedDuration::from_hours(2), SignedDuration::from_mins(1)).await;
    let (_, rounds) = asked(&world, BO, seq);
    assert!(rounds.len() >= 7, "{rounds:?}");
    // By itself it goes back with the first change that is announced.
    world.sim.delivery(|knobs| knobs.drop = 0.0);
    world.event("HOL", "2026-11-25 10:00", "2026-11-25 11:00");
    world.settle().await;
    assert_eq!(world.company_health().await, "fine");
    let seq = world.sim.journal().last_seq();
    advance_by_steps(&world, SignedDuration::from_hours(2), SignedDuration::from_mins(1)).await;
    let (_, rounds) = asked(&world, BO, seq);
    assert!(rounds.len() <= 4, "{rounds:?}");
    world.end().await;
}

#[tokio::test]
async fn what_a_notification_brought_is_not_news_to_the_sweep_though_delta_lags_behind() {
    let counters = Counters::new();
    let _here = metrics::set_default_local_recorder(&counters.recorder);
    let world = World::new().await;
    world.sim.delta(|knobs| knobs.lagging = true);
    world.advance_to("2026-11-23 08:01").await;
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 09:30");
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 09:30");
    let subscription = world.subscriptions(ANNA)[0].id.clone();
    world.sim.lifecycle(&subscription, LifecycleKind::Missed).unwrap();
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 09:30", "a round that sees nothing yet takes nothing away");
    world.sim.delta(|knobs| knobs.lagging = false);
    world.advance_to("2026-11-23 08:20").await;
    assert_eq!(world.anna(), "meeting: Möte till 09:30");
    assert_eq!(counters.of("narvaro_unannounced_changes_total"), 0);
    world.end().await;
}

/// An id as it stands in a path.
fn in_path(id: &str) -> String {
    id.replace('=', "%3D")
}

#[tokio::test]
async fn what_is_announced_is_read_by_one_round_that_proves_the_calendar() {
    let world = World::new().await;
    let by_one_round = BTreeMap::from([("since".to_owned(), 1)]);
    let seq = world.sim.journal().last_seq();
    world.advance_to("2026-11-23 08:10").await;
    let meeting = world.event("MÖT", "2026-11-23 08:00", "2026-11-23 20:00");
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 20:00");
    assert_eq!(asked(&world, ANNA, seq).0, by_one_round);
    assert_eq!(world.mailbox("acme", "201").await.proven_until, Some(world.now()));
    // A deletion is answered by it as well.
    let seq = world.sim.journal().last_seq();
    world.sim.delete_event(ANNA, &meeting).unwrap();
    world.settle().await;
    assert_eq!(world.shows("201").profile, "available");
    assert_eq!(asked(&world, ANNA, seq).0, by_one_round);
    world.end().await;
}

#[tokio::test]
async fn a_round_that_lags_behind_its_notification_is_not_taken_for_an_answer() {
    let world = World::new().await;
    world.advance_to("2026-11-23 08:10").await;
    let meeting = world.event("MÖT", "2026-11-23 08:00", "2026-11-23 20:00");
    world.settle().await;
    world.sim.delta(|knobs| knobs.lagging = true);
    let seq = world.sim.journal().last_seq();
    world.patch(&meeting, EventSpec::default().at(at("2026-11-23 08:00"), at("2026-11-23 21:00"))).await;
    assert_eq!(world.anna(), "meeting: Möte till 21:00");
    let kinds = asked(&world, ANNA, seq).0;
    assert_eq!(kinds, BTreeMap::from([("since".to_owned(), 1), (in_path(&meeting), 1)]));
    world.end().await;
}

#[tokio::test]
async fn sweeps_are_rare_once_push_is_proven_and_grow_rare_where_all_is_silent() {
    let world = World::new().await;
    world.advance_to("2026-11-23 08:01").await;
    world.event("MÖT", "2026-11-23 17:30", "2026-11-23 18:00");
    world.settle().await;
    let seq = world.sim.journal().last_seq();
    advance_by_steps(&world, SignedDuration::from_hours(9), SignedDuration::from_mins(1)).await;
    let hours = |alias: &str| -> Vec<String> {
        let (_, rounds) = asked(&world, alias, seq);
        rounds.iter().map(|at| at.to_zoned(jiff::tz::TimeZone::UTC).strftime("%H:%M").to_string()).collect()
    };
    assert_eq!(hours(ANNA), ["11:01", "15:02"]);
    assert_eq!(hours(BO), ["07:15", "08:00", "11:00"]);
    world.end().await;
}

/// The last profiles written for Anna since `before`.
fn written(world: &World, before: usize) -> Vec<String> {
    let writes = world.sim.journal().pbx_writes().split_off(before);
    writes.into_iter().filter(|write| write.extension == "201").map(|write| write.profile).collect()
}

#[tokio::test]
async fn i4_a_link_forgotten_in_the_middle_of_a_round_loses_nothing_and_changes_nothing_meanwhile() {
    let counters = Counters::new();
    let _here = metrics::set_default_local_recorder(&counters.recorder);
    let world = World::new().await;
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 16:00");
    world.event("Lunch", "2026-11-23 08:20", "2026-11-23 08:40");
    world.settle().await;
    assert_eq!(world.shows("201").profile, "meeting");
    world.sim.delta(|knobs| knobs.rows_per_page = Some(1));
    unannounced(&world, || {
        for n in 0..3 {
            world.event("Annat", &format!("2026-11-24 0{n}:00"), "2026-11-24 07:00");
        }
        world.event("Sick", "2026-11-23 10:00", "2026-11-23 11:00");
    })
    .await;
    let before = world.sim.journal().pbx_writes().len();
    // The first page comes; at the second the link is forgotten, and the round from the start fails for now.
    let gone = FaultKind::Status { status: 410, code: Some("syncStateNotFound".into()), retry_after: None };
    world.sim.fault(Fault::next(1, FaultKind::Slow { millis: 0 }).only(pages_of(&world, ANNA)));
    world.sim.fault(Fault::next(1, gone).only(pages_of(&world, ANNA)));
    let away = FaultKind::Status { status: 503, code: None, retry_after: None };
    world.sim.fault(Fault::lasting(away).only(pages_of(&world, ANNA)));
    let seq = world.sim.journal().last_seq();
    world.advance_to("2026-11-23 08:15").await;
    let (asked, _) = asked(&world, ANNA, seq);
    assert_eq!((asked["since"], asked["page"], asked["start"]), (1, 1, 1), "the full round begins at once");
    assert_eq!(counters.of("narvaro_resyncs_total"), 1);
    assert_eq!(world.health().await, "graph_unreachable");
    for time in ["2026-11-23 08:20", "2026-11-23 08:40"] {
        world.advance_to(time).await;
    }
    assert_eq!(written(&world, before), ["lunch", "meeting"], "known edges come, and nothing else");
    world.sim.clear_faults();
    world.advance_to("2026-11-23 08:50").await;
    assert_eq!(world.health().await, "fine");
    world.advance_to("2026-11-23 10:00").await;
    assert_eq!(world.shows("201").profile, "sick");
    world.advance_to("2026-11-23 11:00").await;
    // The meeting is told its new end when the illness is found, and comes back after it.
    assert_eq!(written(&world, before), ["lunch", "meeting", "meeting", "sick", "meeting"]);
    world.end().await;
}

#[tokio::test]
async fn i4_a_page_of_a_sweep_that_fails_leaves_timetable_and_link_as_they_were() {
    let world = World::new().await;
    world.sim.delta(|knobs| knobs.rows_per_page = Some(1));
    unannounced(&world, || {
        world.event("Lunch", "2026-11-23 07:30", "2026-11-23 10:00");
        world.event("MÖT", "2026-11-23 11:00", "2026-11-23 12:00");
    })
    .await;
    let proven = world.mailbox("acme", "201").await.proven_until;
    world.sim.fault(Fault::next(1, FaultKind::Slow { millis: 0 }).only(pages_of(&world, ANNA)));
    world.sim.fault(Fault::lasting(FaultKind::CutBody).only(pages_of(&world, ANNA)));
    world.advance_to("2026-11-23 08:15").await;
    world.advance_to("2026-11-23 08:20").await;
    assert_eq!(world.shows("201").profile, "available", "the page that came is not taken for the round");
    assert_eq!(world.mailbox("acme", "201").await.proven_until, proven);
    let seq = world.sim.journal().last_seq();
    world.sim.clear_faults();
    world.advance_to("2026-11-23 08:30").await;
    assert_eq!(world.anna(), "lunch: Lunch till 10:00");
    let (asked, _) = asked(&world, ANNA, seq);
    assert_eq!((asked.get("since"), asked.get("start")), (Some(&1), None), "from the same link");
    world.advance_to("2026-11-23 11:00").await;
    assert_eq!(world.shows("201").profile, "meeting");
    assert!(world.mailbox("acme", "201").await.proven_until > proven);
    world.end().await;
}

#[tokio::test]
async fn the_night_brings_a_new_day_into_the_window_and_no_presence_flaps() {
    let world = World::new().await;
    world.event("MÖT", "2026-11-23 20:00", "2026-11-24 08:00");
    // 35 days and a half ahead.
    world.event("HOL", "2026-12-28 20:00", "2026-12-28 22:00");
    world.settle().await;
    world.advance_to("2026-11-23 20:00").await;
    let before = world.sim.journal().pbx_writes().len();
    let seq = world.sim.journal().last_seq();
    let night = SignedDuration::from_hours(10);
    advance_by_steps(&world, night, SignedDuration::from_mins(10)).await;
    let starts = |alias: &str| asked(&world, alias, seq).0.get("start").copied();
    assert_eq!((starts(ANNA), starts(BO)), (Some(1), Some(1)));
    assert_eq!(written(&world, before), ["meeting"], "at midnight its end loses the date, and that is all");
    assert_eq!(world.anna(), "meeting: Möte till 08:00");
    // From here on nothing can be read: what is known then was brought by the night.
    world.sim.fault(Fault::lasting(FaultKind::Status { status: 500, code: None, retry_after: None }));
    world.advance_to("2026-11-24 08:00").await;
    world.advance_to("2026-12-28 20:00").await;
    assert_eq!(world.shows("201").profile, "holiday");
    world.sim.clear_faults();
    world.advance(SignedDuration::from_hours(1)).await;
    world.end().await;
}

#[tokio::test]
async fn a_start_reads_what_changed_and_new_words_read_everything() {
    let mut world = World::new().await;
    // The last marks come back at a start though they were worked off: these, and not the consent before them.
    world.event("MÖT", "2026-11-23 17:00", "2026-11-23 18:00");
    world.settle().await;
    let seq = world.sim.journal().last_seq();
    world.restart().await;
    world.settle().await;
    let (kinds, _) = asked(&world, ANNA, seq);
    assert_eq!((kinds.get("since"), kinds.get("start")), (Some(&1), None), "{kinds:?}");
    unannounced(&world, || {
        world.event("Zebra", "2026-11-23 07:30", "2026-11-23 09:30");
    })
    .await;
    let seq = world.sim.journal().last_seq();
    let words = "[[profiles]]\nid = \"meeting\"\nadd_triggers = \"Zebra\"\n";
    world.apply(&format!("{}{words}", world.company(Pbx::Http, ""))).await;
    world.settle().await;
    assert_eq!(world.shows("201").profile, "meeting");
    let (kinds, _) = asked(&world, ANNA, seq);
    assert_eq!(kinds.get("start"), Some(&1), "{kinds:?}");
    world.end().await;
}

#[tokio::test]
async fn a_quiet_day_costs_one_sweep_at_most_and_one_roll() {
    let world = World::new().await;
    world.event("MÖT", "2026-11-23 10:00", "2026-11-23 11:00");
    world.settle().await;
    let hour = SignedDuration::from_hours(1);
    advance_by_steps(&world, hour * 24, hour / 4).await;
    let seq = world.sim.journal().last_seq();
    advance_by_steps(&world, hour * 24, hour / 12).await;
    let day = world.sim.journal().since(seq);
    for alias in [ANNA, BO] {
        let (kinds, _) = asked(&world, alias, seq);
        // No zone: there is nothing to come that is told by it.
        assert_eq!(kinds.get("start"), Some(&1), "{alias}: {kinds:?}");
        let sweeps = kinds.get("since").copied().unwrap_or_default();
        assert!(sweeps <= 1, "{alias}: {kinds:?}");
        assert_eq!(kinds.values().sum::<usize>(), sweeps + 1, "{alias}: {kinds:?}");
    }
    // Renewals come at half of seven days, and tokens are not Graph's: only the night's list of subscriptions is left.
    let others = day.iter().filter(|entry| match &entry.record {
        Record::Graph(call) => call.mailbox.is_none(),
        _ => false,
    });
    assert_eq!(others.count(), 1);
    world.end().await;
}
