//! The whole service on Redis: while Redis is away, and edges that are held ahead of their time.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use narvaro::{admin::SyncRequest, clock::ManualClock};
use narvaro_sim::{EventSpec, Fault, FaultKind, PbxFault, PbxPresence};
use serde_json::json;

use crate::world::{ANNA, LIMIT, Pbx, World, at};

/// How long an edge is held after its instant: `pbx.timeout_secs`, and 20 s.
const HOLD_AHEAD: SignedDuration = SignedDuration::from_secs(30);

/// Lets the service's time go on until what waits for the store has had it.
async fn comes_back(world: &World) {
    world.spoil_store(false);
    let end = Instant::now() + LIMIT;
    loop {
        world.clock.advance(Duration::from_secs(1));
        world.sim.set_time(world.now());
        if let Ok(depth) = world.app().depth().await
            && depth.leased == 0
            && depth.due == 0
        {
            return;
        }
        assert!(Instant::now() < end, "nothing goes on");
        tokio::task::yield_now().await;
    }
}

/// A service whose PBX can only be written to, and of whose mailbox 201 a meeting that begins at 08:01 is held ahead at 08:00:50.
async fn holding() -> (World, String) {
    let world = World::on_redis().await;
    let pbx = world.http_pbx("acme");
    let write_only = pbx.split("[pbx.http.restore]").next().unwrap();
    world.apply(&world.file("acme", "", "", write_only, &[("201", ANNA, "")])).await;
    let event = world.event("MÖT", "2026-11-23 08:01", "2026-11-23 09:00");
    world.settle().await;
    world.move_to(edge() - SignedDuration::from_secs(10));
    world.until("the edge is held, and announced", async || world.held_ahead() == (1, 1)).await;
    world.settle().await;
    (world, event)
}

fn edge() -> Timestamp {
    at("2026-11-23 08:01")
}

/// What the PBX was told since the meeting is known.
fn told(world: &World) -> Vec<String> {
    let writes = world.sim.journal().pbx_writes().into_iter();
    let ours = writes.filter(|write| !write.by_hand && write.profile != "available");
    ours.map(|write| write.profile).collect()
}

#[tokio::test]
async fn i6_an_edge_that_is_held_ahead_is_shown_at_its_instant_and_once() {
    let (world, _) = holding().await;
    assert_eq!(told(&world), [""; 0], "not before");
    world.move_to(edge());
    world.until_shows("201", "meeting").await;
    assert_eq!((world.held_ahead(), told(&world)), ((0, 0), vec!["meeting".to_owned()]));
    world.advance_to("2026-11-23 09:00").await;
    assert_eq!(world.shows("201").profile, "available", "the next edge too");
    world.end().await;
}

#[tokio::test]
async fn an_event_that_is_changed_while_its_edge_is_held_shows_as_it_is_then() {
    let (world, event) = holding().await;
    world.patch(&event, EventSpec::new("Lunch").at(at("2026-11-23 08:01"), at("2026-11-23 09:00"))).await;
    world.until("the new edge is held", async || world.held_ahead() == (1, 1)).await;
    world.move_to(edge());
    world.until_shows("201", "lunch").await;
    assert_eq!(told(&world), ["lunch"]);
    world.end().await;
}

#[tokio::test]
async fn an_event_that_is_put_off_while_its_edge_is_held_shows_later() {
    let (world, event) = holding().await;
    world.patch(&event, EventSpec::new("MÖT").at(at("2026-11-23 08:02"), at("2026-11-23 09:00"))).await;
    world.advance_to("2026-11-23 08:01").await;
    assert_eq!(told(&world), [""; 0]);
    world.advance_to("2026-11-23 08:02").await;
    world.until_shows("201", "meeting").await;
    world.end().await;
}

#[tokio::test]
async fn i6_an_edge_that_is_held_ahead_is_shown_at_its_instant_though_redis_has_gone_away() {
    let (world, _) = holding().await;
    world.move_to(edge() - SignedDuration::from_secs(5));
    world.spoil_store(true);
    world.move_to(edge());
    assert!(world.sim.pbx().until("acme", "201", LIMIT, |shown| shown.profile == "meeting").await);
    comes_back(&world).await;
    world.settle().await;
    assert_eq!(told(&world), ["meeting"]);
    world.advance_to("2026-11-23 09:00").await;
    assert_eq!(world.shows("201").profile, "available", "it was known as ours");
    world.end().await;
}

#[tokio::test]
async fn i6_an_edge_is_shown_at_its_instant_though_redis_went_away_before_its_write_could_be_announced() {
    let world = World::on_redis().await;
    world.event("MÖT", "2026-11-23 08:01", "2026-11-23 09:00");
    world.settle().await;
    world.move_to(edge() - SignedDuration::from_secs(10));
    // This PBX is read back at the instant: before, nobody knows what is to be written.
    world.until("the edge is held", async || world.held_ahead() == (1, 0)).await;
    world.settle().await;
    world.spoil_store(true);
    world.move_to(edge());
    assert!(world.sim.pbx().until("acme", "201", LIMIT, |shown| shown.profile == "meeting").await);
    comes_back(&world).await;
    world.settle().await;
    // Unless the turn could be settled in time, another one makes sure.
    assert!(told(&world).iter().all(|profile| profile == "meeting"), "{:?}", told(&world));
    world.advance(SignedDuration::from_mins(60)).await;
    assert_eq!(world.shows("201").profile, "available", "it was known as ours");
    world.end().await;
}

#[tokio::test]
async fn an_edge_whose_holder_is_told_to_stop_is_shown_on_time_by_another() {
    let (mut world, _) = holding().await;
    let other = world.beside_on_redis(&world.clock).await;
    world.stop().await;
    world.until("the other one holds it", async || world.held_ahead() == (1, 1)).await;
    assert_eq!(told(&world), [""; 0]);
    world.move_to(edge());
    assert!(world.sim.pbx().until("acme", "201", LIMIT, |shown| shown.profile == "meeting").await);
    other.stop().await;
    assert_eq!(told(&world), ["meeting"]);
    world.start().await;
    world.end().await;
}

#[tokio::test]
async fn what_is_held_in_the_last_moments_of_a_process_can_still_be_recalled() {
    let (mut world, event) = holding().await;
    let other = world.beside_on_redis(&world.clock).await;
    world.move_to(edge() - SignedDuration::from_secs(1));
    world.sim.delivery(|knobs| knobs.drop = 1.0);
    let change = EventSpec::new("Lunch").at(edge(), at("2026-11-23 09:00"));
    world.sim.patch_event(ANNA, &event, change).unwrap();
    let operations = other.operations();
    let stops = async { tokio::join!(world.stop(), operations.sync_now(SyncRequest::default())) };
    // It would show the edge yet, and time does not go on: were the recall not heard, it would be cut off after 20 s.
    let (_, marked) = tokio::time::timeout(Duration::from_secs(15), stops).await.unwrap();
    marked.unwrap();
    world.until("the other one holds it", async || world.held_ahead() == (1, 1)).await;
    assert_eq!(told(&world), [""; 0]);
    world.move_to(edge());
    assert!(world.sim.pbx().until("acme", "201", LIMIT, |shown| shown.profile == "lunch").await);
    other.stop().await;
    assert_eq!(told(&world), ["lunch"]);
    world.sim.delivery(|knobs| knobs.drop = 0.0);
    world.start().await;
    world.end().await;
}

#[tokio::test]
async fn i3_a_holder_that_was_stopped_until_its_hold_ran_out_writes_nothing() {
    let (mut world, _) = holding().await;
    // The other one's time goes on, the holder's stands still.
    let clock = ManualClock::at(world.now());
    let other = world.beside_on_redis(&clock).await;
    let late = edge() + HOLD_AHEAD;
    world.sim.set_time(late);
    clock.advance_to(late);
    assert!(world.sim.pbx().until("acme", "201", LIMIT, |shown| shown.profile == "meeting").await);
    world.until("its turn has ended", async || other.depth().await.unwrap().leased == 0).await;
    world.sim.pbx().set_by_hand("acme", "201", PbxPresence { profile: "lunch".into(), ..Default::default() });
    world.clock.advance_to(late);
    // A stop waits for what is held.
    world.stop().await;
    other.stop().await;
    assert_eq!((told(&world), world.shows("201").profile.as_str()), (vec!["meeting".to_owned()], "lunch"));
    world.start().await;
    world.end().await;
}

#[tokio::test]
async fn i6_an_edge_that_a_worker_holds_is_shown_though_redis_is_away() {
    let world = World::on_redis().await;
    let pbx = world.http_pbx("acme");
    let write_only = pbx.split("[pbx.http.restore]").next().unwrap();
    world.apply(&world.file("acme", "", "", write_only, &[("201", ANNA, "")])).await;
    world.event("MÖT", "2026-11-23 08:01", "2026-11-23 09:00");
    world.settle().await;
    world.sim.fault(Fault::lasting(FaultKind::Hang));
    world.event("Lunch", "2026-11-23 13:00", "2026-11-23 14:00");
    world.until("the turn reads", async || world.app().depth().await.unwrap().leased == 1).await;
    world.spoil_store(true);
    let edge = at("2026-11-23 08:01");
    world.sim.set_time(edge);
    world.clock.advance_to(edge);
    assert!(world.sim.pbx().until("acme", "201", LIMIT, |shown| shown.profile == "meeting").await);
    world.sim.clear_faults();
    comes_back(&world).await;
    world.settle().await;
    assert_eq!(world.shows("201").profile, "meeting");
    world.advance(SignedDuration::from_mins(60)).await;
    assert_eq!(world.shows("201").profile, "available", "it was known as ours");
    world.end().await;
}

/// A service whose Redis has lost a meeting that is shown, from 08:05 to 08:30, and is back at `back`.
async fn a_meeting_is_lost(back: &str) -> World {
    let world = World::on_redis().await;
    world.save_redis();
    world.event("MÖT", "2026-11-23 08:05", "2026-11-23 08:30");
    world.settle().await;
    world.advance_to("2026-11-23 08:05").await;
    assert_eq!(world.anna(), "meeting: Möte till 08:30");
    world.crash_redis(back);
    world
}

/// Lets it find out that its Redis is another.
async fn finds_out(world: &World) {
    comes_back(world).await;
    world.advance(SignedDuration::from_mins(1)).await;
    world.settle().await;
}

#[tokio::test]
async fn i11_what_was_shown_before_redis_lost_it_is_known_as_ours_while_its_event_is_on() {
    let world = a_meeting_is_lost("2026-11-23 08:06").await;
    finds_out(&world).await;
    assert_eq!(world.anna(), "meeting: Möte till 08:30");
    world.advance_to("2026-11-23 08:30").await;
    assert_eq!(world.shows("201").profile, "available", "it ends as any other");
    world.end().await;
}

#[tokio::test]
async fn i11_what_was_shown_before_redis_lost_it_is_known_as_ours_though_its_event_is_over() {
    let world = a_meeting_is_lost("2026-11-23 08:40").await;
    assert_eq!(world.anna(), "meeting: Möte till 08:30");
    finds_out(&world).await;
    assert_eq!(world.shows("201").profile, "available");
    world.end().await;
}

#[tokio::test]
async fn i11_what_was_shown_before_redis_lost_it_is_known_as_ours_though_the_pbx_is_away_too() {
    let world = a_meeting_is_lost("2026-11-23 08:40").await;
    world.sim.pbx().fault("acme", 100_000, PbxFault::Drop);
    comes_back(&world).await;
    world.pass(90).await;
    world.sim.pbx().clear_faults("acme");
    for _ in 0..6 {
        world.advance(SignedDuration::from_mins(1)).await;
    }
    assert_eq!(world.shows("201").profile, "available");
    world.end().await;
}

#[tokio::test]
async fn i11_a_change_by_hand_is_respected_though_redis_has_lost_what_it_was_told_last() {
    let world = a_meeting_is_lost("2026-11-23 08:06").await;
    let lunch = PbxPresence { profile: "lunch".into(), text: Some("Lunch".into()), ..PbxPresence::default() };
    world.sim.pbx().set_by_hand("acme", "201", lunch);
    finds_out(&world).await;
    assert_eq!(world.anna(), "lunch: Lunch");
    world.end().await;
}

#[tokio::test]
async fn i4_where_the_calendar_cannot_be_read_either_what_shows_is_left_alone() {
    let world = a_meeting_is_lost("2026-11-23 08:06").await;
    world.sim.fault(Fault::lasting(FaultKind::Status { status: 503, code: None, retry_after: None }));
    finds_out(&world).await;
    assert_eq!(world.anna(), "meeting: Möte till 08:30");
    world.sim.clear_faults();
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 08:30");
    world.end().await;
}

#[tokio::test]
async fn i1_while_redis_is_away_a_notification_is_refused_in_time_and_presence_follows_once_it_is_back() {
    let world = World::on_redis().await;
    let subscription = world.subscriptions(ANNA)[0].clone();
    let item = json!({
        "subscriptionId": subscription.id, "clientState": subscription.client_state,
        "tenantId": subscription.tenant, "changeType": "updated", "resourceData": { "id": "AAk=" },
    });
    let notify = async || {
        let began = Instant::now();
        let request = world.client.post(format!("{}/graph/v1/notify", world.public_url()));
        let status = request.json(&json!({ "value": [item] })).send().await.unwrap().status().as_u16();
        // Microsoft Graph waits three seconds for an answer.
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        status
    };
    world.spoil_store(true);
    for _ in 0..3 {
        assert_eq!(notify().await, 503);
    }
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 09:00");
    comes_back(&world).await;
    world.until("notifications are taken", async || notify().await == 202).await;
    world.advance(SignedDuration::from_mins(1)).await;
    world.settle().await;
    assert_eq!(world.shows("201").profile, "meeting");
    world.end().await;
}

#[tokio::test]
async fn who_cannot_write_to_a_redis_that_is_full_is_not_ready_and_says_so() {
    let world = World::on_redis().await;
    assert!(world.operations().ready().await.is_ok());
    world.fill_redis(true);
    let ready = async || {
        world.advance(SignedDuration::from_secs(5)).await;
        world.operations().ready().await
    };
    world.until("it is not ready", async || ready().await.is_err()).await;
    let said = world.operations().ready().await.unwrap_err();
    assert!(said.contains("takes nothing") && said.contains("maxmemory"), "{said}");
    // Though what is left of others that were there could be taken away.
    world.clock.advance(Duration::from_mins(1));
    assert!(world.operations().ready().await.is_err());
    world.fill_redis(false);
    assert!(world.operations().ready().await.is_ok(), "it is asked again at once");
    comes_back(&world).await;
    world.end().await;
}

#[tokio::test]
async fn a_change_that_redis_did_not_answer_is_not_said_to_have_changed_nothing_and_can_be_repeated() {
    let world = World::on_redis().await;
    let path = world.folder.path().join("acme.toml");
    let changed = world.company(Pbx::Http, "").replace("\"acme AB\"", "\"Changed AB\"");
    assert!(changed.contains("Changed"), "{changed}");
    std::fs::write(&path, changed).unwrap();
    let [file, backup] =
        [path.display().to_string(), world.folder.path().join("b.json").display().to_string()];
    assert_eq!(world.narvaro(&["backup", &backup]).await.0, 0);
    world.spoil_store(true);
    for (command, hint) in [
        (["apply", &file], "hint: it may have been done or not: "),
        (["restore", &backup], "hint: it may have been done or not: "),
        (["backup", "-"], "hint: nothing was changed: "),
    ] {
        let (code, said) = world.narvaro(&command).await;
        assert_eq!(code, 1, "{command:?}: {said}");
        assert!(said.contains("error: the store does not answer\n") && said.contains(hint), "{said}");
    }
    comes_back(&world).await;
    for _ in 0..2 {
        let (code, said) = world.narvaro(&["apply", &file]).await;
        assert_eq!(code, 0, "{said}");
    }
    let (_, said) = world.narvaro(&["export", "acme"]).await;
    assert!(said.contains("Changed AB"), "{said}");
    world.end().await;
}
