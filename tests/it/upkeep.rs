//! Weeks of service: subscriptions, the rolling window, restarts, and Graph in trouble for a while.

use jiff::SignedDuration;
use narvaro_sim::{EventSpec, Fault, FaultFilter, FaultKind, LifecycleKind, Record};

use crate::world::{ANNA, World, at};

const BO: &str = "bo@acme.example";

#[tokio::test]
async fn over_weeks_each_mailbox_has_exactly_one_subscription_and_it_never_lapses() {
    let world = World::new().await;
    let renewals = |world: &World| {
        world.sim.journal().graph_calls().into_iter().filter(|call| call.method == "PATCH").count()
    };
    for hour in 1..=(22 * 8) {
        world.advance(SignedDuration::from_hours(3)).await;
        for alias in [ANNA, BO] {
            let live = world.subscriptions(alias);
            assert_eq!(live.len(), 1, "of {alias} after {} hours", 3 * hour);
            let left = live[0].expires.duration_since(world.now());
            assert!(left > SignedDuration::from_hours(48), "{left} left after {} hours", 3 * hour);
        }
    }
    let ended = world.sim.journal().count(|record| matches!(record, Record::SubscriptionEnded { .. }));
    assert_eq!(ended, 0);
    // 22 days at half of seven days each: six for each mailbox, give or take the spread.
    let renewed = renewals(&world);
    assert!((8..=18).contains(&renewed), "{renewed} renewals");
    // And they still report.
    world.add(EventSpec::new("MÖT").at(world.now(), world.now() + SignedDuration::from_hours(1)));
    world.settle().await;
    assert_eq!(world.shows("201").profile, "meeting");
    world.end().await;
}

#[tokio::test]
async fn an_event_beyond_the_window_is_picked_up_before_it_starts() {
    let world = World::new().await;
    // 40 days ahead: the window reaches 35. The notification alone brings it to no timetable.
    world.event("HOL", "2027-01-02 09:00", "2027-01-02 17:00");
    world.settle().await;
    for _ in 0..39 {
        world.advance(SignedDuration::from_hours(24)).await;
        assert_eq!(world.shows("201").profile, "available");
    }
    world.advance_to("2027-01-02 08:59").await;
    assert_eq!(world.shows("201").profile, "available");
    let calls = world.sim.journal().graph_calls().len();
    world.advance_to("2027-01-02 09:00").await;
    assert_eq!(world.shows("201").profile, "holiday");
    assert_eq!(world.sim.journal().graph_calls().len(), calls, "it was known before");
    world.end().await;
}

#[tokio::test]
async fn a_restart_a_minute_before_an_edge_does_not_miss_it() {
    let mut world = World::new().await;
    world.event("MÖT", "2026-11-23 10:00", "2026-11-23 11:00");
    world.settle().await;
    world.advance_to("2026-11-23 10:00").await;
    assert_eq!(world.shows("201").profile, "meeting");
    world.advance_to("2026-11-23 10:59").await;
    let before = world.sim.journal().pbx_writes().len();
    world.restart().await;
    world.settle().await;
    assert_eq!(world.sim.journal().pbx_writes().len(), before, "a restart alone changes nothing");
    world.advance_to("2026-11-23 11:00").await;
    assert_eq!(world.shows("201").profile, "available");
    world.end().await;
}

#[tokio::test]
async fn an_edge_that_passed_while_the_service_was_down_is_made_good() {
    let mut world = World::new().await;
    world.event("MÖT", "2026-11-23 10:00", "2026-11-23 11:00");
    world.settle().await;
    world.stop().await;
    let half_past = at("2026-11-23 10:30");
    world.sim.set_time(half_past);
    world.clock.advance_to(half_past);
    world.start().await;
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 11:00");
    world.stop().await;
    let noon = at("2026-11-23 12:00");
    world.sim.set_time(noon);
    world.clock.advance_to(noon);
    world.start().await;
    world.settle().await;
    assert_eq!(world.shows("201").profile, "available");
    world.end().await;
}

#[tokio::test]
async fn what_was_announced_while_the_service_was_down_is_read_at_start() {
    let mut world = World::new().await;
    world.stop().await;
    world.sim.delivery(|knobs| knobs.drop = 1.0);
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 11:00");
    world.sim.delivery(|knobs| knobs.drop = 0.0);
    world.start().await;
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 11:00");
    world.end().await;
}

#[tokio::test]
async fn a_removed_subscription_is_made_anew_and_what_was_lost_is_caught_up() {
    let world = World::new().await;
    let old = world.subscriptions(ANNA)[0].id.clone();
    world.sim.delivery(|knobs| knobs.drop = 1.0);
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 11:00");
    world.settle().await;
    assert_eq!(world.shows("201").profile, "available", "it was lost");
    world.sim.delivery(|knobs| knobs.drop = 0.0);
    world.sim.lifecycle(&old, LifecycleKind::SubscriptionRemoved).unwrap();
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 11:00");
    let new = world.subscriptions(ANNA);
    assert_eq!(new.len(), 1);
    assert_ne!(new[0].id, old);
    world.end().await;
}

#[tokio::test]
async fn after_missed_everything_is_read() {
    let world = World::new().await;
    world.sim.delivery(|knobs| knobs.drop = 1.0);
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 11:00");
    world.settle().await;
    world.sim.delivery(|knobs| knobs.drop = 0.0);
    let subscription = world.subscriptions(ANNA)[0].id.clone();
    world.sim.lifecycle(&subscription, LifecycleKind::Missed).unwrap();
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 11:00");
    assert_eq!(world.subscriptions(ANNA)[0].id, subscription, "it goes on as it is");
    world.end().await;
}

#[tokio::test]
async fn reauthorization_is_answered_by_a_renewal() {
    let world = World::new().await;
    world.advance(SignedDuration::from_hours(2)).await;
    let before = world.subscriptions(ANNA)[0].clone();
    world.sim.lifecycle(&before.id, LifecycleKind::ReauthorizationRequired).unwrap();
    world.settle().await;
    let after = world.subscriptions(ANNA)[0].clone();
    assert_eq!(after.id, before.id);
    assert!(after.expires > before.expires);
    world.end().await;
}

#[tokio::test]
async fn a_subscription_that_vanished_without_a_word_is_made_anew_by_upkeep() {
    let world = World::new().await;
    world.sim.expire_subscription(&world.subscriptions(ANNA)[0].id);
    world.event("MÖT", "2026-11-23 09:00", "2026-12-23 11:00");
    world.settle().await;
    // The sweep finds the event within hours, the renewal the missing subscription at half its life.
    world.advance(SignedDuration::from_hours(5)).await;
    assert_eq!(world.shows("201").profile, "meeting");
    for _ in 0..5 {
        world.advance(SignedDuration::from_hours(24)).await;
    }
    assert_eq!(world.subscriptions(ANNA).len(), 1);
    world.end().await;
}

async fn graph_in_trouble_for_a_while(trouble: FaultKind, expected: &str) {
    let world = World::new().await;
    world.event("MÖT", "2026-11-23 08:10", "2026-11-23 08:20");
    world.settle().await;
    world.sim.fault(Fault::lasting(trouble));
    let late = world.event("Lunch", "2026-11-23 08:30", "2026-11-23 10:00");
    world.settle().await;
    world.expect_trouble(expected).await;
    for (time, profile) in [("08:10", "meeting"), ("08:20", "available"), ("08:30", "available")] {
        world.advance_to(&format!("2026-11-23 {time}")).await;
        assert_eq!(world.shows("201").profile, profile, "at {time}");
    }
    world.sim.clear_faults();
    world.advance_to("2026-11-23 09:00").await;
    assert_eq!(world.anna(), "lunch: Lunch till 10:00");
    assert_eq!(world.health().await, "fine");
    world.sim.delete_event(ANNA, &late).unwrap();
    world.settle().await;
    assert_eq!(world.shows("201").profile, "available");
    world.end().await;
}

#[tokio::test]
async fn graph_answering_503_for_half_an_hour_is_got_over() {
    let unavailable = FaultKind::Status { status: 503, code: None, retry_after: None };
    graph_in_trouble_for_a_while(unavailable, "graph_unreachable").await;
}

#[tokio::test]
async fn graph_throttling_for_half_an_hour_is_got_over_and_never_asked_early() {
    graph_in_trouble_for_a_while(FaultKind::Throttle { retry_after: Some(120.0) }, "throttled").await;
}

#[tokio::test]
async fn one_throttled_mailbox_does_not_hold_up_another() {
    let world = World::new().await;
    let anna = world.sim.user_id(ANNA).unwrap();
    let throttle = FaultKind::Throttle { retry_after: Some(600.0) };
    world.sim.fault(Fault::lasting(throttle).only(FaultFilter::mailbox(&anna)));
    for alias in [ANNA, BO] {
        let spec = EventSpec::new("MÖT").at(at("2026-11-23 07:30"), at("2026-11-23 11:00"));
        world.sim.add_event(alias, spec).unwrap();
    }
    world.settle().await;
    assert_eq!(
        (world.shows("201").profile, world.shows("202").profile),
        ("available".into(), "meeting".into())
    );
    world.sim.clear_faults();
    world.advance(SignedDuration::from_mins(15)).await;
    assert_eq!(world.shows("201").profile, "meeting");
    world.end().await;
}

#[tokio::test]
async fn a_renewal_that_was_asked_for_and_fails_is_tried_again_with_growing_pauses() {
    let world = World::new().await;
    let patch = FaultFilter {
        path: Some("subscriptions".into()),
        method: Some("PATCH".into()),
        ..FaultFilter::default()
    };
    let status = FaultKind::Status { status: 500, code: None, retry_after: None };
    world.sim.fault(Fault::lasting(status).only(patch));
    let asked = narvaro::admin::RenewRequest { user: Some("201".to_owned()), ..Default::default() };
    world.operations().renew(asked).await.unwrap();
    world.settle().await;
    world.expect_trouble("graph_unreachable").await;
    let tries = || world.sim.journal().graph_calls().iter().filter(|call| call.method == "PATCH").count();
    for _ in 0..600 {
        world.advance(SignedDuration::from_secs(1)).await;
    }
    assert!((4..=12).contains(&tries()), "{} tries in ten minutes", tries());
    world.sim.clear_faults();
    world.advance(SignedDuration::from_mins(30)).await;
    assert_eq!(world.health().await, "fine");
    world.end().await;
}

#[tokio::test]
async fn a_renewal_counts_only_once_the_subscription_is_renewed() {
    let world = World::new().await;
    for (subject, start) in [("MÖT", "2026-11-23 08:01"), ("Lunch", "2026-11-23 08:02")] {
        world.event(subject, start, "2026-11-23 09:00");
    }
    world.settle().await;
    let patch = FaultFilter {
        path: Some("subscriptions".into()),
        method: Some("PATCH".into()),
        ..FaultFilter::default()
    };
    world.sim.fault(Fault::lasting(FaultKind::Slow { millis: 600_000 }).only(patch));
    let asked = narvaro::admin::RenewRequest { user: Some("201".to_owned()), ..Default::default() };
    let job = world.operations().renew(asked).await.unwrap().job;
    let progress = async || world.operations().job(job.clone()).await.unwrap();
    world.until("the renewal hangs", async || world.app().depth().await.unwrap().leased == 1).await;
    // The turn ends for an edge and puts the renewal off.
    let edge = at("2026-11-23 08:01");
    world.sim.set_time(edge);
    world.clock.advance_to(edge);
    world
        .until("the renewal hangs again", async || {
            world.app().depth().await.unwrap().leased == 1 && world.shows("201").profile == "meeting"
        })
        .await;
    assert_eq!(progress().await.done, 0, "nothing has been renewed");
    world.sim.clear_faults();
    world.advance_to("2026-11-23 08:02").await;
    world.until("the job has ended", async || progress().await.finished).await;
    let progress = progress().await;
    assert!(progress.done == 1 && progress.failed.is_empty(), "{progress:?}");
    world.end().await;
}

#[tokio::test]
async fn a_renewal_counts_though_the_reading_after_it_is_put_off() {
    let world = World::new().await;
    for (subject, start) in [("MÖT", "2026-11-23 08:01"), ("Lunch", "2026-11-23 08:02")] {
        world.event(subject, start, "2026-11-23 09:00");
    }
    world.settle().await;
    let view = FaultFilter { path: Some("calendarView".into()), ..FaultFilter::default() };
    // Given up, they are gone when the faults are: how many of them have begun by then is a race.
    world.sim.fault(Fault::lasting(FaultKind::Hang).only(view));
    let anna = || Some("201".to_owned());
    world
        .operations()
        .sync_now(narvaro::admin::SyncRequest { user: anna(), ..Default::default() })
        .await
        .unwrap();
    world.until("the reading hangs", async || world.sim.hung() == 1).await;
    let asked = narvaro::admin::RenewRequest { user: anna(), ..Default::default() };
    let job = world.operations().renew(asked).await.unwrap().job;
    // Each edge cuts the reading short; the turn after the first has been asked for the renewal too.
    let edge = async |local: &str| {
        world.sim.set_time(at(local));
        world.clock.advance_to(at(local));
    };
    edge("2026-11-23 08:01").await;
    let renewals = || world.sim.journal().graph_calls().iter().filter(|call| call.method == "PATCH").count();
    // The reading behind it hangs once the answer to the renewal is known.
    world.until("the subscription is renewed", async || renewals() == 1 && world.sim.hung() == 2).await;
    edge("2026-11-23 08:02").await;
    let progress = async || world.operations().job(job.clone()).await.unwrap();
    world.until("the job has ended", async || progress().await.finished).await;
    let progress = progress().await;
    assert!(progress.renewed == 1 && progress.failed.is_empty(), "{progress:?}");
    world.sim.clear_faults();
    world.advance_to("2026-11-23 08:30").await;
    world.end().await;
}

#[tokio::test]
async fn a_renewal_without_consent_ends_and_tells_why() {
    let world = World::bare().await;
    world.apply(&world.company(crate::world::Pbx::Http, "")).await;
    world.settle().await;
    let job = world.operations().renew(narvaro::admin::RenewRequest::default()).await.unwrap().job;
    world
        .until("the job has ended", async || world.operations().job(job.clone()).await.unwrap().finished)
        .await;
    let progress = world.operations().job(job).await.unwrap();
    assert_eq!(progress.failed.len(), 2, "{progress:?}");
    let cause = world.mailbox("acme", "201").await.health.cause;
    assert!(progress.failed.iter().all(|failure| failure.ends_with(&cause)), "{progress:?}");
    world.end().await;
}
