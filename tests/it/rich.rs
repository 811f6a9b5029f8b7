//! Events that are sent along with notifications: used without a request where they hold, and fetched where they do not
//! (B4). Nobody outside can tell the two apart.

use std::fs;

use jiff::{SignedDuration, Timestamp};
use narvaro_sim::{
    EventSpec, Fault, FaultFilter, FaultKind, PbxPresence, Record, SeriesSpec, Tamper, TokenVersion, UserSpec,
};
use serde_json::Value;

use crate::{
    support::service::Service,
    world::{ANNA, LIMIT, Pbx, World, at},
};

const EVA: &str = "eva@acme.example";
const AVAILABLE: &str = "available: Tillgänglig";

/// Everything that can be tampered with, and what it is counted as.
const TAMPERED: [(Tamper, &str); 10] = [
    (Tamper::Key, "bad_key"),
    (Tamper::Data, "bad_signature"),
    (Tamper::Signature, "bad_signature"),
    (Tamper::TokenSignature, "bad_token"),
    (Tamper::Audience, "bad_token"),
    (Tamper::Issuer, "bad_token"),
    (Tamper::Expired, "bad_token"),
    (Tamper::Publisher, "bad_token"),
    (Tamper::Tenant, "bad_token"),
    (Tamper::UnknownKey, "unknown_signer"),
];

fn with_rich(file: &str) -> String {
    let kind = "kind = \"microsoft365\"";
    assert!(file.contains(kind));
    file.replace(kind, &format!("{kind}\nrich = true"))
}

/// A world whose company has its events sent along.
async fn rich() -> World {
    let world = World::bare().await;
    for alias in [ANNA, "bo@acme.example"] {
        world.sim.add_user(&world.tenant, UserSpec::new(alias)).unwrap();
    }
    world.apply(&with_rich(&world.company(Pbx::Http, ""))).await;
    world.consent("acme").await;
    world.until_fine("acme").await;
    minute(&world).await;
    world
}

/// A minute later: what is changed then is newer than what was read, however clocks differ.
async fn minute(world: &World) {
    world.advance(SignedDuration::from_mins(1)).await;
}

/// A second later: what is changed then is newer than what was sent along before.
async fn second(world: &World) {
    world.advance(SignedDuration::from_secs(1)).await;
}

/// A world at 10:15, in the middle of Anna's meeting from 10:00 to 11:00; the meeting's id.
async fn in_a_meeting() -> (World, String) {
    let world = rich().await;
    let id = world.event("MÖT: budget", "2026-11-23 10:00", "2026-11-23 11:00");
    world.settle().await;
    world.advance_to("2026-11-23 10:00").await;
    world.advance_to("2026-11-23 10:15").await;
    assert_eq!(world.anna(), "meeting: Möte till 11:00");
    (world, id)
}

fn until(end: &str) -> EventSpec {
    EventSpec::default().at(at("2026-11-23 10:00"), at(&format!("2026-11-23 {end}")))
}

/// Requests to Graph that `act` leads to, as `GET events`.
async fn requests(world: &World, act: impl AsyncFnOnce()) -> Vec<String> {
    let before = world.sim.journal().last_seq();
    act().await;
    world.settle().await;
    let entries = world.sim.journal().since(before);
    let calls = entries.iter().filter_map(|entry| match &entry.record {
        Record::Graph(call) => Some(call.clone()),
        _ => None,
    });
    calls
        .map(|call| {
            let what = ["events", "calendarView", "mailboxSettings", "subscriptions", "instances"];
            let what = what.into_iter().rev().find(|what| call.path.contains(what)).unwrap_or(&call.path);
            format!("{} {what}", call.method)
        })
        .collect()
}

fn looked_up(world: &World) -> usize {
    world.sim.journal().count(|record| matches!(record, Record::SigningKeys { .. }))
}

fn certificate_of(world: &World) -> Option<String> {
    let [subscription] = &world.subscriptions(ANNA)[..] else { panic!("not exactly one") };
    subscription.certificate_id.clone()
}

const NONE: [&str; 0] = [];

#[tokio::test]
async fn b4_a_change_reaches_the_pbx_without_a_request() {
    let (world, id) = in_a_meeting().await;
    for (spec, shows) in [
        (until("12:00"), "meeting: Möte till 12:00"),
        (EventSpec::new("Frånvarande"), AVAILABLE),
        (EventSpec::new("MÖT igen"), "meeting: Möte till 12:00"),
        (until("10:05"), AVAILABLE),
    ] {
        second(&world).await;
        let made = requests(&world, async || world.patch(&id, spec).await).await;
        assert_eq!(made, NONE, "{shows}");
        assert_eq!(world.anna(), shows);
    }
    // Metadata and keys, once for all of it.
    assert_eq!(looked_up(&world), 2);
    world.end().await;
}

#[tokio::test]
async fn b4_a_new_event_reaches_the_pbx_without_a_request_once_the_default_calendar_is_known() {
    let world = rich().await;
    let first = async || drop(world.event("MÖT", "2026-11-23 10:00", "2026-11-23 11:00"));
    assert_eq!(requests(&world, first).await, ["GET calendarView"]);
    second(&world).await;
    let now = async || drop(world.event("MÖT", "2026-11-23 07:00", "2026-11-23 09:00"));
    assert_eq!(requests(&world, now).await, NONE);
    assert_eq!(world.anna(), "meeting: Möte till 09:00");
    // In another calendar it does not count, however it is made known.
    second(&world).await;
    let spec = EventSpec::new("HOL").at(at("2026-11-23 07:00"), at("2026-11-23 12:00"));
    let elsewhere = async || drop(world.add(spec.in_secondary_calendar()));
    assert_eq!(requests(&world, elsewhere).await, ["GET calendarView"]);
    assert_eq!(world.anna(), "meeting: Möte till 09:00");
    world.end().await;
}

#[tokio::test]
async fn b4_both_forms_of_tokens_are_accepted() {
    let (world, id) = in_a_meeting().await;
    world.sim.rich(|knobs| knobs.token_version = TokenVersion::V1);
    second(&world).await;
    assert_eq!(requests(&world, async || world.patch(&id, until("12:00")).await).await, NONE);
    assert_eq!(world.anna(), "meeting: Möte till 12:00");
    world.end().await;
}

#[tokio::test]
async fn b4_what_is_tampered_with_is_fetched_and_the_presence_is_right() {
    let (world, id) = in_a_meeting().await;
    for (n, (tamper, _)) in TAMPERED.into_iter().enumerate() {
        world.sim.rich(|knobs| knobs.tamper = Some(tamper));
        // Between two changes a key that nobody knows may be looked up again.
        world.advance(SignedDuration::from_mins(1)).await;
        let end = format!("12:{:02}", n + 10);
        let made = requests(&world, async || world.patch(&id, until(&end)).await).await;
        assert_eq!(made, ["GET events"], "{tamper:?}");
        assert_eq!(world.anna(), format!("meeting: Möte till {end}"), "{tamper:?}");
    }
    world.sim.rich(|knobs| *knobs = Default::default());
    minute(&world).await;
    assert_eq!(requests(&world, async || world.patch(&id, until("13:00")).await).await, NONE);
    assert_eq!(world.anna(), "meeting: Möte till 13:00");
    assert!(world.sim.journal().deliveries().iter().all(|delivery| delivery.status == Some(202)));
    world.end().await;
}

#[tokio::test]
async fn b4_a_tenant_that_sends_nothing_along_is_served_as_any_other() {
    let (world, id) = in_a_meeting().await;
    world.sim.rich(|knobs| knobs.null_tokens = true);
    second(&world).await;
    let made = requests(&world, async || world.patch(&id, until("12:00")).await).await;
    assert_eq!(made, ["GET events"]);
    assert_eq!(world.anna(), "meeting: Möte till 12:00");
    world.end().await;
}

#[tokio::test]
async fn b4_a_delivery_that_is_played_again_changes_nothing() {
    let (world, id) = in_a_meeting().await;
    second(&world).await;
    world.patch(&id, until("12:00")).await;
    second(&world).await;
    world.patch(&id, until("13:00")).await;
    second(&world).await;
    // The last one, and the one before it.
    for back in [0, 1] {
        assert_eq!(world.sim.replay(back).await, Some(202));
        world.settle().await;
        assert_eq!(world.anna(), "meeting: Möte till 13:00");
    }
    // The word is taken out, so that nothing is kept of the event; then what had the word comes again.
    world.patch(&id, EventSpec::new("Frånvarande")).await;
    assert_eq!(world.anna(), AVAILABLE);
    second(&world).await;
    assert_eq!(world.sim.replay(1).await, Some(202));
    world.settle().await;
    assert_eq!(world.anna(), AVAILABLE);
    // So does an event that is gone, in this life of the service and in the next.
    world.patch(&id, EventSpec::new("MÖT")).await;
    assert_eq!(world.anna(), "meeting: Möte till 13:00");
    second(&world).await;
    world.sim.delete_event(ANNA, &id).unwrap();
    world.settle().await;
    assert_eq!(world.anna(), AVAILABLE);
    let mut world = world;
    for _ in 0..2 {
        second(&world).await;
        assert_eq!(world.sim.replay(0).await, Some(202));
        world.settle().await;
        assert_eq!(world.anna(), AVAILABLE);
        world.restart().await;
    }
    world.end().await;
}

#[tokio::test]
async fn b4_of_several_changes_the_newest_shows_in_whatever_order_they_come() {
    let (world, id) = in_a_meeting().await;
    second(&world).await;
    world.sim.delivery(|knobs| {
        knobs.cut = true;
        knobs.retry_base_ms = 600_000;
    });
    world.sim.patch_event(ANNA, &id, until("12:00")).unwrap();
    let failed = |record: &Record| matches!(record, Record::Delivery(attempt) if attempt.status.is_none());
    assert!(world.sim.journal().until(LIMIT, failed).await.is_some());
    world.sim.delivery(|knobs| knobs.cut = false);
    world.sim.set_time(world.now() + SignedDuration::from_secs(1));
    world.sim.patch_event(ANNA, &id, until("13:00")).unwrap();
    let shows = |shown: &PbxPresence| shown.text.as_deref() == Some("Möte till 13:00");
    assert!(world.sim.pbx().until("acme", "201", LIMIT, shows).await);
    world.sim.retry_now();
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 13:00");
    world.end().await;
}

/// What is brought, and lost with a fetch that fails, leaves older news no way in.
#[tokio::test]
async fn b4_after_a_fetch_that_failed_an_older_delivery_does_not_count() {
    let (world, id) = in_a_meeting().await;
    second(&world).await;
    // Its delivery does not arrive, and will be tried again.
    world.sim.delivery(|knobs| {
        knobs.cut = true;
        knobs.retry_base_ms = 600_000;
    });
    world.sim.patch_event(ANNA, &id, until("12:00")).unwrap();
    let failed = |record: &Record| matches!(record, Record::Delivery(attempt) if attempt.status.is_none());
    assert!(world.sim.journal().until(LIMIT, failed).await.is_some());
    world.sim.delivery(|knobs| knobs.cut = false);
    world.sim.set_time(world.now() + SignedDuration::from_secs(1));
    // It is gone; nobody can tell, because Graph is out of order.
    world.sim.fault(Fault::lasting(FaultKind::Status { status: 503, code: None, retry_after: None }));
    world.sim.delete_event(ANNA, &id).unwrap();
    let refused = |record: &Record| matches!(record, Record::Graph(call) if call.status == 503);
    assert!(world.sim.journal().until(LIMIT, refused).await.is_some());
    // What was changed before comes now, and then Graph is well again.
    world.sim.retry_now();
    world.settle().await;
    world.sim.clear_faults();
    minute(&world).await;
    world.advance(SignedDuration::from_mins(5)).await;
    assert_eq!(world.anna(), AVAILABLE);
    world.end().await;
}

#[tokio::test]
async fn a_series_and_its_occurrences_are_fetched() {
    let (world, _) = in_a_meeting().await;
    second(&world).await;
    let spec = EventSpec::new("MÖT: varje dag")
        .at(at("2026-11-24 10:00"), at("2026-11-24 11:00"))
        .series(SeriesSpec::daily(3));
    let made = requests(&world, async || drop(world.add(spec))).await;
    assert!(made.contains(&"GET instances".to_owned()), "{made:?}");
    world.advance_to("2026-11-25 10:00").await;
    assert_eq!(world.anna(), "meeting: Möte till 11:00");
    world.end().await;
}

#[tokio::test]
async fn turning_it_on_and_off_makes_the_subscription_anew() {
    let world = World::new().await;
    let plain = world.subscriptions(ANNA).remove(0);
    assert_eq!(plain.certificate_id, None);
    world.apply(&with_rich(&world.company(Pbx::Http, ""))).await;
    world.settle().await;
    let rich = world.subscriptions(ANNA).remove(0);
    assert_ne!(rich.id, plain.id);
    assert!(rich.resource.contains("?$select=id,type,"), "{}", rich.resource);
    assert!(rich.certificate_id.is_some());
    assert!(rich.expires <= world.now() + SignedDuration::from_hours(24));
    assert_eq!(world.subscriptions(ANNA).len(), 1);
    world.apply(&world.company(Pbx::Http, "")).await;
    world.settle().await;
    let again = world.subscriptions(ANNA);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].certificate_id, None);
    world.end().await;
}

#[tokio::test]
async fn what_a_subscription_brings_that_was_left_behind_is_not_the_next_users() {
    let (world, id) = in_a_meeting().await;
    // The extension is given to Eva while Graph does not let go of Anna, who is told of no more.
    world.sim.add_user(&world.tenant, UserSpec::new(EVA)).unwrap();
    let end = FaultFilter { method: Some("DELETE".into()), ..FaultFilter::path("subscriptions") };
    world.sim.fault(Fault::lasting(FaultKind::Drop).only(end));
    let users = [("201", EVA, ""), ("202", "bo@acme.example", "")];
    world.apply(&with_rich(&world.file("acme", "", "", &world.http_pbx("acme"), &users))).await;
    world.settle().await;
    world.sim.clear_faults();
    assert_eq!((world.subscriptions(ANNA).len(), world.anna()), (1, AVAILABLE.to_owned()));
    minute(&world).await;
    world.patch(&id, until("12:00")).await;
    world.settle().await;
    assert_eq!(world.anna(), AVAILABLE, "it is Anna who has a meeting");
    world.end().await;
}

#[tokio::test]
async fn it_is_renewed_in_time_day_after_day() {
    let world = rich().await;
    let made = world.subscriptions(ANNA).remove(0);
    for _ in 0..12 {
        world.advance(SignedDuration::from_hours(6)).await;
        let kept = world.subscriptions(ANNA);
        assert_eq!(kept.iter().map(|one| &one.id).collect::<Vec<_>>(), [&made.id]);
    }
    assert_eq!(certificate_of(&world), made.certificate_id);
    world.end().await;
}

#[tokio::test]
async fn after_a_year_a_new_certificate_takes_over_at_the_renewal_and_nothing_is_lost_in_between() {
    let (mut world, id) = in_a_meeting().await;
    let subscription = world.subscriptions(ANNA).remove(0);
    let first = certificate_of(&world);
    world.stop().await;
    let path = world.folder.path().join("encryption.keys");
    let mut keys: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let a_year_ago: Timestamp = world.now() - SignedDuration::from_hours(366 * 24);
    keys[0]["made"] = a_year_ago.to_string().into();
    fs::write(&path, keys.to_string()).unwrap();
    world.start().await;
    world.until_fine("acme").await;
    minute(&world).await;
    // Until the subscription is renewed, events are sealed for the old one.
    assert_eq!(certificate_of(&world), first);
    assert_eq!(requests(&world, async || world.patch(&id, until("23:00")).await).await, NONE);
    assert_eq!(world.anna(), "meeting: Möte till 23:00");
    // Half of its life later it is renewed, with the new one.
    while certificate_of(&world) == first {
        world.advance(SignedDuration::from_mins(30)).await;
        assert!(world.now() < at("2026-11-23 22:45"), "it is not renewed");
    }
    assert_eq!(world.subscriptions(ANNA).remove(0).id, subscription.id);
    // The calendar may have been read in the same turn.
    minute(&world).await;
    assert_eq!(requests(&world, async || world.patch(&id, until("23:30")).await).await, NONE);
    assert_eq!(world.anna(), "meeting: Möte till 23:30");
    world.end().await;
}

#[tokio::test]
async fn b4_signing_keys_are_looked_up_by_turns_and_seldom() {
    let (world, id) = in_a_meeting().await;
    second(&world).await;
    world.patch(&id, until("12:00")).await;
    let before = looked_up(&world);
    world.sim.rich(|knobs| knobs.tamper = Some(Tamper::UnknownKey));
    world.advance(SignedDuration::from_mins(5)).await;
    for n in 0..4 {
        second(&world).await;
        world.patch(&id, until(&format!("12:{}", n + 10))).await;
    }
    assert_eq!(looked_up(&world), before + 2, "once more in five minutes");
    world.end().await;
}

#[tokio::test]
async fn b4_what_is_refused_is_counted_with_its_reason_and_nothing_that_was_opened_is_kept() {
    let mut service = Service::new().await;
    service.sim.add_user(&service.tenant, UserSpec::new(ANNA)).unwrap();
    service.start(&[]).await;
    service.apply(&with_rich(&service.company(&[ANNA], ""))).await;
    service.until_read(1).await;
    let spec = EventSpec { in_secs: Some(-60), for_secs: Some(3_600), ..EventSpec::new("MÖT amnesmarke7q") };
    let id = service.sim.add_event(ANNA, spec).unwrap().id;
    let shown = async |profile: &str| {
        let shows = |shown: &PbxPresence| shown.profile == profile;
        assert!(service.sim.pbx().until("acme", "201", LIMIT, shows).await, "{profile}");
    };
    shown("meeting").await;
    let count = async |outcome: &str| {
        let name = format!("narvaro_rich_notifications_total{{outcome=\"{outcome}\"}}");
        service.counter(&name).await
    };
    // Microsoft's clock is ahead, so that what is changed is newer than any look.
    service.sim.advance_time(SignedDuration::from_mins(1));
    // One word after the other, so that each change shows.
    let mut words = [("HOL amnesmarke7q", "holiday"), ("MÖT amnesmarke7q", "meeting")].into_iter().cycle();
    let none = [(None, "used")];
    let cases = TAMPERED.into_iter().map(|(tamper, outcome)| (Some(tamper), outcome)).chain(none);
    for (tamper, outcome) in cases {
        service.sim.rich(|knobs| knobs.tamper = tamper);
        let before = count(outcome).await;
        let (subject, profile) = words.next().unwrap();
        service.sim.patch_event(ANNA, &id, EventSpec::new(subject)).unwrap();
        shown(profile).await;
        assert_eq!(count(outcome).await, before + 1, "{tamper:?}");
    }
    let before = count("nothing_brought").await;
    service.sim.rich(|knobs| knobs.null_tokens = true);
    service.sim.patch_event(ANNA, &id, EventSpec::new("LUN amnesmarke7q")).unwrap();
    shown("lunch").await;
    assert_eq!(count("nothing_brought").await, before + 1);
    assert!(service.sim.journal().deliveries().iter().all(|delivery| delivery.status == Some(202)));
    // Where it was opened, it is forgotten (I5).
    let log = ("log".to_owned(), service.log().into_bytes());
    let kept = service.files().into_iter().chain([log]);
    for (name, text) in kept {
        let marker = b"amnesmarke7q";
        let found = text.to_ascii_lowercase().windows(marker.len()).any(|window| window == marker);
        assert!(!found, "{name} holds what was opened");
    }
}
