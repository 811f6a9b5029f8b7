//! The whole service while its Redis is away.

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use narvaro_sim::{Fault, FaultKind};
use serde_json::json;

use crate::world::{ANNA, LIMIT, World, at};

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
