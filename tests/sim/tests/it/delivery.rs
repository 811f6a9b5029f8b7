//! Delivery of notifications: what they carry, retries, batches, the knobs.

use jiff::{SignedDuration, civil::date};
use narvaro_sim::{DeliveryOutcome, EventSpec, LifecycleKind, Record, SeriesSpec, SimOptions};
use serde_json::json;

use crate::world::{ANNA, BO, FABRIKAM, Hook, LIMIT, World, at};

fn meeting(subject: &str) -> EventSpec {
    EventSpec::new(subject).at(at("2026-11-23T09:00:00Z"), at("2026-11-23T10:00:00Z"))
}

#[tokio::test]
async fn every_change_is_told_with_id_and_client_state_but_without_content() {
    let (world, hook) = (World::new().await, Hook::new().await);
    let subscription = world.subscribe(&hook).await;
    let ids = world.sim.add_event(ANNA, meeting("MÖT")).unwrap();
    world.sim.patch_event(ANNA, &ids.id, EventSpec::new("LUN")).unwrap();
    world.sim.delete_event(ANNA, &ids.id).unwrap();
    let items = hook.until(|items| items.len() == 3).await;
    for item in &items {
        assert_eq!(item["subscriptionId"], subscription.as_str());
        assert_eq!(item["clientState"], "state-1");
        assert_eq!(item["resourceData"]["id"], ids.id.as_str());
        assert!(item["resource"].as_str().unwrap().to_lowercase().contains(&world.anna));
        assert!(!item.to_string().contains("MÖT"));
    }
    let mut kinds: Vec<_> = items.iter().map(|item| item["changeType"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["created", "deleted", "updated"]);
    let target = hook.state.lock().unwrap().posts[0].0.clone();
    assert_eq!(target, "/notify?t=contoso");
    assert!(world.sim.until_delivered(LIMIT).await);
}

#[tokio::test]
async fn an_occurrence_that_is_deleted_shows_as_an_updated_master() {
    let (world, hook) = (World::new().await, Hook::new().await);
    world.subscribe(&hook).await;
    let master = world.sim.add_event(ANNA, meeting("MÖT").series(SeriesSpec::daily(5))).unwrap();
    hook.until(|items| items.len() == 1).await;
    let one = world.sim.occurrence(ANNA, &master.id, date(2026, 11, 24)).unwrap();
    world.sim.delete_event(ANNA, &one.id).unwrap();
    let items = hook.until(|items| items.len() == 2).await;
    assert_eq!(
        (&items[1]["changeType"], &items[1]["resourceData"]["id"]),
        (&json!("updated"), &json!(master.id))
    );
    let two = world.sim.occurrence(ANNA, &master.id, date(2026, 11, 25)).unwrap();
    world.sim.patch_event(ANNA, &two.id, EventSpec::new("LUN")).unwrap();
    let items = hook.until(|items| items.len() == 4).await;
    assert!(items[2..].iter().any(|item| item["resourceData"]["id"] == two.id.as_str()));
    assert!(items[2..].iter().any(|item| item["resourceData"]["id"] == master.id.as_str()));
}

#[tokio::test]
async fn another_calendar_notifies_too() {
    let (world, hook) = (World::new().await, Hook::new().await);
    world.subscribe(&hook).await;
    world.sim.add_event(ANNA, meeting("MÖT").in_secondary_calendar()).unwrap();
    hook.until(|items| items.len() == 1).await;
    assert!(world.view("2026-11-23", "2026-11-24", "").await.is_empty());
}

#[tokio::test]
async fn what_is_refused_or_not_answered_is_sent_again() {
    let (world, hook) = (World::new().await, Hook::new().await);
    world.subscribe(&hook).await;
    hook.state.lock().unwrap().statuses = vec![503, 404, 0, 202];
    world.sim.delivery(|knobs| {
        knobs.retry_base_ms = 20;
        knobs.retry_timeout_ms = 1_000;
    });
    world.sim.add_event(ANNA, meeting("MÖT")).unwrap();
    assert!(world.sim.until_delivered(LIMIT).await);
    let attempts = world.sim.journal().deliveries();
    let seen: Vec<_> = attempts.iter().map(|one| (one.attempt, one.status, one.outcome)).collect();
    assert_eq!(
        seen,
        [
            (1, Some(503), DeliveryOutcome::Retry),
            (2, Some(404), DeliveryOutcome::Retry),
            (3, None, DeliveryOutcome::Retry),
            (4, Some(202), DeliveryOutcome::Delivered),
        ]
    );
    let ids: std::collections::HashSet<_> = hook.items().iter().map(|item| item["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "a retry is the same notification");
}

#[tokio::test]
async fn after_four_hours_a_notification_is_given_up() {
    let (world, hook) = (World::new().await, Hook::new().await);
    world.subscribe(&hook).await;
    world.sim.delivery(|knobs| knobs.cut = true);
    world.sim.add_event(ANNA, meeting("MÖT")).unwrap();
    let tried = |record: &Record| matches!(record, Record::Delivery(_));
    assert!(world.sim.journal().until_count(1, LIMIT, tried).await);
    world.sim.clock().advance(jiff::SignedDuration::from_hours(4));
    world.sim.retry_now();
    assert!(world.sim.until_delivered(LIMIT).await);
    let last = world.sim.journal().deliveries().pop().unwrap();
    assert_eq!(last.outcome, DeliveryOutcome::Discarded);
    assert!(hook.items().is_empty());
}

#[tokio::test]
async fn held_notifications_of_two_tenants_come_in_one_post() {
    let (world, hook) = (World::new().await, Hook::new().await);
    world.subscribe(&hook).await;
    world.sim.consent(FABRIKAM, crate::world::APP).unwrap();
    let token = world.token_for(FABRIKAM).await;
    let other = World { token, anna: world.bo.clone(), ..world };
    other.subscribe(&hook).await;
    other.sim.delivery(|knobs| {
        knobs.hold = true;
        knobs.batch_ms = 300;
    });
    other.sim.add_event(ANNA, meeting("MÖT")).unwrap();
    other.sim.add_event(BO, meeting("LUN")).unwrap();
    assert_eq!((hook.items().len(), other.sim.outstanding()), (0, 2));
    other.sim.delivery(|knobs| knobs.hold = false);
    let items = hook.until(|items| items.len() == 2).await;
    assert_eq!(hook.state.lock().unwrap().posts.len(), 1);
    assert_ne!(items[0]["tenantId"], items[1]["tenantId"]);
}

#[tokio::test]
async fn notifications_can_be_lost_and_doubled() {
    let (world, hook) = (World::new().await, Hook::new().await);
    world.subscribe(&hook).await;
    world.sim.delivery(|knobs| knobs.drop = 1.0);
    world.sim.add_event(ANNA, meeting("MÖT")).unwrap();
    assert_eq!(world.sim.journal().count(|record| matches!(record, Record::Lost { .. })), 1);
    world.sim.delivery(|knobs| {
        knobs.drop = 0.0;
        knobs.duplicate = 1.0;
    });
    world.sim.add_event(ANNA, meeting("LUN")).unwrap();
    let items = hook.until(|items| items.len() == 2).await;
    assert_eq!(items[0], items[1]);
}

#[tokio::test]
async fn lifecycle_notifications_go_to_their_own_url() {
    let (world, hook) = (World::new().await, Hook::new().await);
    let id = world.subscribe(&hook).await;
    world.sim.lifecycle(&id, LifecycleKind::ReauthorizationRequired).unwrap();
    let items = hook.until(|items| items.len() == 1).await;
    assert_eq!(items[0]["lifecycleEvent"], "reauthorizationRequired");
    assert!(items[0]["resource"].is_null());
    assert_eq!(hook.state.lock().unwrap().posts[0].0, "/lifecycle");
    world.sim.lifecycle(&id, LifecycleKind::SubscriptionRemoved).unwrap();
    hook.until(|items| items.len() == 2).await;
    assert!(world.sim.subscriptions().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_mailboxes_notify_without_a_loss() {
    let (world, hook) = (World::new().await, Hook::new().await);
    let mut users = Vec::new();
    for number in 0..1_000 {
        let spec = narvaro_sim::UserSpec::new(&format!("u{number}@contoso.example"));
        users.push(world.sim.add_user(crate::world::CONTOSO, spec).unwrap());
    }
    for user in &users {
        // As fast as a tenant may be.
        world.sim.clock().advance(jiff::SignedDuration::from_millis(40));
        let mut body = world.subscription(&hook);
        body["resource"] = json!(format!("/users/{user}/events"));
        assert_eq!(world.create(&body).await.0, 201);
    }
    for user in &users {
        world.sim.add_event(user, meeting("MÖT")).unwrap();
    }
    hook.until(|items| items.len() == 1_000).await;
    assert!(world.sim.until_delivered(LIMIT).await);
}

#[tokio::test]
async fn on_a_paced_clock_delays_and_retries_wait_for_the_clock_and_can_be_looked_up() {
    let world = World::with(SimOptions { paced: true, ..SimOptions::default() }).await;
    let hook = Hook::new().await;
    world.subscribe(&hook).await;
    let start = world.sim.clock().now();
    world.sim.set_time(start);
    hook.state.lock().unwrap().statuses = vec![503, 202];
    world.sim.delivery(|knobs| {
        (knobs.delay_min_ms, knobs.delay_max_ms) = (20 * 60_000, 20 * 60_000);
        knobs.retry_base_ms = 60_000;
    });
    world.sim.add_event(ANNA, meeting("MÖT")).unwrap();
    let at_rest = async || {
        while world.sim.delivering() > 0 {
            tokio::task::yield_now().await;
        }
    };
    at_rest().await;
    let first = start + SignedDuration::from_mins(20);
    assert_eq!((world.sim.outstanding(), world.sim.next_delivery()), (1, Some(first)));
    assert!(world.sim.journal().deliveries().is_empty());
    world.sim.set_time(first);
    at_rest().await;
    let second = first + SignedDuration::from_mins(1);
    assert_eq!((world.sim.outstanding(), world.sim.next_delivery()), (1, Some(second)));
    assert_eq!(world.sim.journal().deliveries().len(), 1);
    world.sim.set_time(second);
    at_rest().await;
    assert_eq!((world.sim.outstanding(), world.sim.next_delivery()), (0, None));
    assert_eq!(hook.items().len(), 2);
}
