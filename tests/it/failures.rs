//! Graph away, slow or broken: what shows is never changed by a failure, edges come on time without it, and the
//! webhook answers whatever else hangs (I2, I4, I6).

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use narvaro_sim::{EventSpec, Fault, FaultFilter, FaultKind, PbxFault, Record};
use serde_json::json;

use crate::world::{ANNA, LIMIT, Pbx, World, at};

const BO: &str = "bo@acme.example";

/// Everything that Graph can answer and that is no answer.
fn no_answers() -> Vec<FaultKind> {
    vec![
        FaultKind::Status { status: 500, code: None, retry_after: None },
        FaultKind::Status { status: 403, code: Some("ErrorAccessDenied".into()), retry_after: None },
        FaultKind::Status { status: 400, code: Some("ErrorInvalidRequest".into()), retry_after: None },
        FaultKind::Html { status: 200 },
        FaultKind::Html { status: 502 },
        FaultKind::Empty { status: 200 },
        FaultKind::CutBody,
        FaultKind::Drop,
        FaultKind::DropAfter,
        FaultKind::Throttle { retry_after: Some(60.0) },
        FaultKind::Throttle { retry_after: None },
    ]
}

#[tokio::test]
async fn i4_no_failed_read_changes_what_shows_and_known_edges_still_come() {
    for answer in no_answers() {
        let world = World::new().await;
        world.event("MÖT", "2026-11-23 07:30", "2026-11-23 09:00");
        world.event("Lunch", "2026-11-23 11:00", "2026-11-23 12:00");
        world.settle().await;
        assert_eq!(world.shows("201").profile, "meeting");
        let writes = world.sim.journal().pbx_writes().len();
        world.sim.fault(Fault::lasting(answer.clone()));
        // A change of one item, and a complete read: neither comes to anything.
        world.event("Sick", "2026-11-23 07:30", "2026-11-23 16:00");
        world.settle().await;
        world.operations().sync_now(narvaro::admin::SyncRequest::default()).await.unwrap();
        world.settle().await;
        assert_eq!(world.sim.journal().pbx_writes().len(), writes, "{answer:?}");
        for (time, profile) in [("09:00", "available"), ("11:00", "lunch"), ("12:00", "available")] {
            world.advance_to(&format!("2026-11-23 {time}")).await;
            assert_eq!(world.shows("201").profile, profile, "at {time} with {answer:?}");
        }
        assert_ne!(world.health().await, "fine", "{answer:?}");
        world.sim.clear_faults();
        world.advance(SignedDuration::from_mins(45)).await;
        assert_eq!(world.shows("201").profile, "sick", "once mended, after {answer:?}");
        assert_eq!(world.health().await, "fine");
        world.end().await;
    }
}

#[tokio::test]
async fn i4_a_calendar_whose_second_page_fails_is_not_a_short_calendar() {
    for answer in no_answers() {
        let world = World::new().await;
        world.event("MÖT", "2026-11-23 07:30", "2026-11-23 09:00");
        world.settle().await;
        // More than any page holds, all of them before the meeting in the order of the answer.
        world.sim.delivery(|knobs| knobs.drop = 1.0);
        for n in 0..1_100 {
            let hour = n % 7;
            world.event("Annat", &format!("2026-11-23 {hour:02}:00"), &format!("2026-11-23 {hour:02}:10"));
        }
        world.sim.delivery(|knobs| knobs.drop = 0.0);
        let view = || FaultFilter {
            path: Some("calendarView".into()),
            mailbox: Some(world.sim.user_id(ANNA).unwrap()),
            ..FaultFilter::default()
        };
        let seen = world.sim.journal().graph_calls().len();
        world.sim.fault(Fault::next(1, FaultKind::Slow { millis: 0 }).only(view()));
        world.sim.fault(Fault::lasting(answer.clone()).only(view()));
        world.operations().sync_now(narvaro::admin::SyncRequest::default()).await.unwrap();
        world.settle().await;
        let calls = world.sim.journal().graph_calls().split_off(seen);
        let good = calls.iter().filter(|call| call.fault.as_deref() == Some("slow")).count();
        let bad =
            calls.iter().filter(|call| call.fault.is_some() && call.fault.as_deref() != Some("slow")).count();
        assert!(good == 1 && bad >= 1, "the first page came and the second did not: {calls:#?}");
        assert_eq!(world.shows("201").profile, "meeting", "{answer:?}");
        world.advance_to("2026-11-23 09:00").await;
        assert_eq!(world.shows("201").profile, "available", "{answer:?}");
        world.sim.clear_faults();
        world.end().await;
    }
}

#[tokio::test]
async fn i4_after_a_restart_without_graph_the_last_known_calendar_goes_on() {
    let mut world = World::new().await;
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 09:00");
    world.event("Lunch", "2026-11-23 11:00", "2026-11-23 12:00");
    world.settle().await;
    world.sim.fault(Fault::lasting(FaultKind::Drop));
    world.restart().await;
    world.settle().await;
    for (time, profile) in
        [("08:30", "meeting"), ("09:00", "available"), ("11:00", "lunch"), ("12:00", "available")]
    {
        world.advance_to(&format!("2026-11-23 {time}")).await;
        assert_eq!(world.shows("201").profile, profile, "at {time}");
    }
    world.sim.clear_faults();
    world.end().await;
}

#[tokio::test]
async fn a_wait_that_graph_asked_for_is_kept_over_a_restart() {
    let mut world = World::new().await;
    world.sim.throttle_for(
        FaultFilter::mailbox(&world.sim.user_id(ANNA).unwrap()),
        SignedDuration::from_secs(30),
        Duration::from_secs(600),
    );
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 17:00");
    world.settle().await;
    world.advance(SignedDuration::from_mins(5)).await;
    let told =
        world.sim.journal().count(|record| matches!(record, Record::Graph(call) if call.status == 429));
    assert!(told > 0);
    let of_anna = |world: &World| {
        let anna = world.sim.user_id(ANNA).unwrap();
        world.sim.journal().graph_calls().iter().filter(|call| call.mailbox.as_ref() == Some(&anna)).count()
    };
    let before = of_anna(&world);
    world.restart().await;
    world.settle().await;
    assert_eq!(of_anna(&world), before, "asked before the time that Graph named");
    world.advance(SignedDuration::from_mins(8)).await;
    assert_eq!(world.shows("201").profile, "meeting");
    world.end().await;
}

#[tokio::test]
async fn i4_a_series_whose_occurrences_cannot_be_read_stays_as_it_is_known() {
    let world = World::new().await;
    let spec = EventSpec::new("MÖT").at(at("2026-11-23 07:30"), at("2026-11-23 09:00"));
    let master = world.add(spec.series(narvaro_sim::SeriesSpec::daily(3)));
    world.settle().await;
    assert_eq!(world.shows("201").profile, "meeting");
    world.sim.fault(Fault::lasting(FaultKind::CutBody).only(FaultFilter::path("instances")));
    world.patch(&master, EventSpec::new("Lunch")).await;
    assert_eq!(world.shows("201").profile, "meeting");
    world.sim.clear_faults();
    world.advance(SignedDuration::from_mins(5)).await;
    assert_eq!(world.shows("201").profile, "lunch");
    world.end().await;
}

/// Requests to Graph or to the login, and writes to the PBX, since `seq`: `g` and `p` in their order.
fn traffic(world: &World, seq: u64) -> String {
    let entries = world.sim.journal().since(seq);
    let kinds = entries.iter().filter_map(|entry| match &entry.record {
        Record::Graph(_) | Record::Token { .. } => Some('g'),
        Record::Pbx(write) if write.applied => Some('p'),
        _ => None,
    });
    kinds.collect()
}

#[tokio::test]
async fn i6_an_edge_comes_without_any_request_to_graph() {
    let world = World::new().await;
    world.event("MÖT", "2026-11-23 10:00", "2026-11-23 11:00");
    world.settle().await;
    // The sweeps that were due until now are done, and so is the first comparison of subscriptions; the next ones come
    // after the meeting.
    for _ in 0..7 {
        world.advance(SignedDuration::from_mins(15)).await;
    }
    world.advance_to("2026-11-23 09:59").await;
    let listed = async || {
        let calls = world.sim.journal().graph_calls();
        calls.iter().any(|call| call.method == "GET" && call.path.ends_with("/subscriptions"))
    };
    world.until("subscriptions are compared", listed).await;
    world.sim.fault(Fault::lasting(FaultKind::Drop));
    for (time, profile) in [("2026-11-23 10:00", "meeting"), ("2026-11-23 11:00", "available")] {
        let seq = world.sim.journal().last_seq();
        world.advance_to(time).await;
        assert_eq!(world.shows("201").profile, profile);
        assert_eq!(traffic(&world, seq), "p", "at {time}");
    }
    world.sim.clear_faults();
    world.end().await;
}

#[tokio::test]
async fn i6_where_reading_is_due_at_the_edge_too_the_presence_is_written_first() {
    let world = World::new().await;
    world.event("MÖT", "2026-11-23 10:00", "2026-11-23 18:00");
    world.settle().await;
    // The sweep is long due at 18:00, and every request fails.
    world.advance_to("2026-11-23 10:00").await;
    world.sim.fault(Fault::lasting(FaultKind::Drop));
    let seq = world.sim.journal().last_seq();
    world.advance_to("2026-11-23 18:00").await;
    let entries = world.sim.journal().since(seq);
    let anna = world.sim.user_id(ANNA).unwrap();
    // The other mailbox reads at the same time: only Anna's own requests tell.
    let read = entries
        .iter()
        .position(|entry| matches!(&entry.record, Record::Graph(call) if call.path.contains(&anna)));
    let write = entries.iter().position(|entry| matches!(&entry.record, Record::Pbx(write) if write.applied));
    assert!(write.is_some() && read.is_some() && write < read, "written at {write:?}, read at {read:?}");
    assert_eq!(world.shows("201").profile, "available");
    world.sim.clear_faults();
    world.end().await;
}

/// A PBX that says nothing and cannot be read gives no other reason for a turn: what was put off has to come back by itself.
#[tokio::test]
async fn i6_a_read_under_way_is_put_off_when_an_edge_comes_and_made_up_for() {
    let world = World::new().await;
    let pbx = world.http_pbx("acme");
    let write_only = pbx.split("[pbx.http.restore]").next().unwrap();
    world.apply(&world.file("acme", "", "", write_only, &[("201", ANNA, "")])).await;
    world.event("MÖT", "2026-11-23 08:01", "2026-11-23 09:00");
    world.settle().await;
    world.sim.fault(Fault::lasting(FaultKind::Slow { millis: 5_000 }));
    world.event("Lunch", "2026-11-23 08:01", "2026-11-23 09:00");
    world.until("the turn reads", async || world.app().depth().await.unwrap().leased == 1).await;
    let seq = world.sim.journal().last_seq();
    let edge = at("2026-11-23 08:01");
    world.sim.set_time(edge);
    world.clock.advance_to(edge);
    assert!(world.sim.pbx().until("acme", "201", LIMIT, |shown| shown.profile == "meeting").await);
    assert_eq!(traffic(&world, seq), "p", "no read has come back");
    world.sim.clear_faults();
    world.settle().await;
    assert_eq!(world.shows("201").profile, "lunch", "what was put off has been read");
    world.end().await;
}

/// Posts a notification for each live subscription, as Graph would, and says how long the slowest answer took.
async fn slowest_of(world: &World, rounds: usize) -> Duration {
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        for subscription in world.sim.subscriptions() {
            let item = json!({
                "subscriptionId": subscription.id, "clientState": subscription.client_state,
                "tenantId": subscription.tenant, "changeType": "updated",
                "resourceData": { "id": format!("AAk{round}=") },
            });
            let began = Instant::now();
            let request = world.client.post(format!("{}/graph/v1/notify", world.public_url()));
            let answer = request.json(&json!({ "value": [item] })).send().await.unwrap();
            assert_eq!(answer.status(), 202);
            slowest = slowest.max(began.elapsed());
        }
    }
    slowest
}

#[tokio::test]
async fn i2_notifications_are_answered_while_graph_and_pbx_hang() {
    let world = World::new().await;
    world.sim.fault(Fault::lasting(FaultKind::Slow { millis: 6_000 }));
    world.sim.pbx().fault("acme", 1_000, PbxFault::Slow { millis: 6_000 });
    let until = at("2026-11-23 09:00");
    for alias in [ANNA, BO] {
        world.sim.add_event(alias, EventSpec::new("MÖT").at(at("2026-11-23 07:30"), until)).unwrap();
    }
    world.until("both turns hang", async || world.app().depth().await.unwrap().leased == 2).await;
    let seq = world.sim.journal().last_seq();
    let slowest = slowest_of(&world, 20).await;
    assert_eq!(world.app().depth().await.unwrap().leased, 2, "they hang still");
    assert_eq!(traffic(&world, seq), "", "nobody was answered meanwhile");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    world.sim.clear_faults();
    world.sim.pbx().clear_faults("acme");
    world.end().await;
}

#[tokio::test]
async fn i2_notifications_are_answered_while_an_asterisk_says_nothing() {
    let world = World::with(Pbx::Asterisk).await;
    world.sim.ami().turn(|knobs| knobs.mute = true);
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 09:00");
    world.until("the turn hangs", async || world.app().depth().await.unwrap().leased == 1).await;
    let slowest = slowest_of(&world, 20).await;
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    world.sim.ami().turn(|knobs| knobs.mute = false);
    world.sim.ami().cut();
    assert!(
        world.sim.ami().until("201", LIMIT, |shown| shown.state == "away").await || {
            world.advance(SignedDuration::from_mins(5)).await;
            world.sim.ami().until("201", LIMIT, |shown| shown.state == "away").await
        }
    );
    world.end().await;
}

/// Counts turns by what they leave: with the clock standing still, nothing may be due again and again.
#[tokio::test]
async fn a_mailbox_that_loses_its_pbx_while_that_is_away_comes_to_rest() {
    let world = World::new().await;
    world.sim.pbx().fault("acme", 100_000, PbxFault::Drop);
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 16:00");
    world.pass(30).await;
    world.expect_trouble("pbx_unreachable").await;
    world.apply(&world.file("acme", "", "", "", &[("201", ANNA, ""), ("202", BO, "")])).await;
    world.settle().await;
    world.advance_to("2026-11-23 09:00").await;
    world.advance_to("2026-11-23 16:00").await;
    world.end().await;
}

#[tokio::test]
async fn a_pbx_that_was_away_before_there_was_consent_leaves_no_mailbox_restless() {
    let world = World::bare().await;
    let auth = narvaro_sim::PbxAuth::Bearer { token: "another".to_owned() };
    world.sim.pbx().set_auth("acme", auth);
    world.apply(&world.company(Pbx::Http, "")).await;
    world.settle().await;
    // A PBX is not even asked before there is a calendar to hold its answer against.
    world.expect_trouble("no_consent").await;
    world.sim.pbx().set_auth("acme", narvaro_sim::PbxAuth::None);
    world.advance(SignedDuration::from_mins(45)).await;
    world.expect_trouble("no_consent").await;
    world.advance(SignedDuration::from_mins(45)).await;
    world.end().await;
}

#[tokio::test]
async fn an_item_that_graph_refuses_does_not_stand_in_the_way_of_the_others() {
    let world = World::new().await;
    assert!(slowest_of(&world, 1).await < LIMIT, "names an item whose id is none");
    world.settle().await;
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 09:00");
    world.settle().await;
    assert_eq!(world.shows("201").profile, "meeting");
    assert_eq!(world.health().await, "fine");
    world.end().await;
}
