//! One subscription's life: renewed, confirmed, replaced, in somebody's way, lapsed, left (I7, I8).

use jiff::SignedDuration;
use narvaro_sim::{DeliveryOutcome, EventSpec, Fault, FaultFilter, FaultKind, LifecycleKind, UserSpec};
use serde_json::{Value, json};

use crate::world::{ANNA, CLIENT_ID, World, at};

const BO: &str = "bo@acme.example";

fn during(subject: &str) -> EventSpec {
    EventSpec::new(subject).at(at("2026-11-23 07:30"), at("2026-11-23 17:00"))
}

/// Calls of this method to paths that contain this.
fn calls(world: &World, method: &str, path: &str) -> usize {
    let calls = world.sim.journal().graph_calls();
    calls.iter().filter(|call| call.method == method && call.path.contains(path)).count()
}

fn subscriptions_only(method: Option<&str>) -> FaultFilter {
    FaultFilter { method: method.map(str::to_owned), ..FaultFilter::path("subscriptions") }
}

/// Delivers what Graph held back for long.
async fn deliver(world: &World, mut item: Value, client_state: &str) {
    item["clientState"] = json!(client_state);
    item["tenantId"] = json!(world.tenant);
    item["subscriptionId"] = json!("a4c2e0f8-7b1d-4935-86ca-5e9f3d2b1c07");
    let post = world.client.post(format!("{}/graph/v1/lifecycle", world.public_url()));
    let answer = post.json(&json!({ "value": [item] })).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    world.settle().await;
}

#[tokio::test]
async fn what_is_said_of_a_replaced_subscription_does_not_touch_the_one_that_lives() {
    let world = World::new().await;
    let old = world.subscriptions(ANNA)[0].clone();
    world.sim.lifecycle(&old.id, LifecycleKind::SubscriptionRemoved).unwrap();
    world.settle().await;
    let living = world.subscriptions(ANNA)[0].clone();
    assert_ne!(living.id, old.id);
    let old_state = old.client_state.unwrap();

    for kind in ["subscriptionRemoved", "reauthorizationRequired"] {
        let before = (calls(&world, "POST", "subscriptions"), calls(&world, "PATCH", "subscriptions"));
        deliver(&world, json!({ "lifecycleEvent": kind }), &old_state).await;
        assert_eq!((calls(&world, "POST", "subscriptions"), calls(&world, "PATCH", "subscriptions")), before);
        assert_eq!(world.subscriptions(ANNA)[0].id, living.id, "{kind}");
    }
    // A change is a hint, whoever brings it.
    world.sim.delivery(|knobs| knobs.drop = 1.0);
    let id = world.add(during("MÖT"));
    world.settle().await;
    assert_eq!(world.shows("201").profile, "available");
    deliver(&world, json!({ "changeType": "created", "resourceData": { "id": id } }), &old_state).await;
    assert_eq!(world.shows("201").profile, "meeting");

    // Of the living one it is believed, together with a late word of the old one too.
    let state = living.client_state.unwrap();
    world.sim.expire_subscription(&living.id);
    deliver(&world, json!({ "lifecycleEvent": "subscriptionRemoved" }), &state).await;
    let anew = world.subscriptions(ANNA);
    assert_eq!(anew.len(), 1);
    assert_ne!(anew[0].id, living.id);
    world.end().await;
}

#[tokio::test]
async fn a_confirmation_is_one_renewal_however_often_it_is_asked_for_and_then_all_is_read() {
    let world = World::new().await;
    world.advance(SignedDuration::from_hours(2)).await;
    let watch = world.subscriptions(ANNA)[0].clone();
    // What Graph holds back until it is confirmed, and then gives up.
    world.sim.delivery(|knobs| knobs.drop = 1.0);
    world.add(during("MÖT"));
    world.sim.delivery(|knobs| knobs.drop = 0.0);
    let ask = async || {
        world.sim.lifecycle(&watch.id, LifecycleKind::ReauthorizationRequired).unwrap();
        world.settle().await;
    };
    for _ in 0..5 {
        ask().await;
    }
    assert_eq!(calls(&world, "PATCH", "subscriptions"), 1);
    assert_eq!(world.shows("201").profile, "meeting");
    let after = world.subscriptions(ANNA)[0].clone();
    assert_eq!(after.id, watch.id);
    assert!(after.expires > watch.expires);

    // Asked for again so soon it is put off, and not forgotten.
    world.advance(SignedDuration::from_mins(2)).await;
    ask().await;
    world.advance(SignedDuration::from_secs(7 * 60 + 59)).await;
    assert_eq!(calls(&world, "PATCH", "subscriptions"), 1);
    world.advance(SignedDuration::from_secs(1)).await;
    assert_eq!(calls(&world, "PATCH", "subscriptions"), 2);
    world.advance(SignedDuration::from_hours(1)).await;
    assert_eq!(calls(&world, "PATCH", "subscriptions"), 2);
    assert_eq!(calls(&world, "POST", "reauthorize"), 0);
    world.end().await;
}

#[tokio::test]
async fn a_confirmation_is_followed_by_one_round_and_by_no_doubt_of_push() {
    let world = World::new().await;
    let annas = format!("{}/calendarView/delta", world.sim.user_id(ANNA).unwrap());
    let rounds = || calls(&world, "GET", &annas);
    world.advance(SignedDuration::from_mins(1)).await;
    world.add(during("MÖT"));
    world.settle().await;
    world.advance(SignedDuration::from_hours(5)).await;
    world.settle().await;
    let before = rounds();
    world.sim.lifecycle(&world.subscriptions(ANNA)[0].id, LifecycleKind::ReauthorizationRequired).unwrap();
    world.settle().await;
    assert_eq!((calls(&world, "PATCH", "subscriptions"), rounds()), (1, before + 1));
    world.advance(SignedDuration::from_hours(3)).await;
    world.settle().await;
    assert_eq!(rounds(), before + 1, "its notifications arrive");
    world.end().await;
}

#[tokio::test]
async fn a_confirmation_that_fails_is_tried_again() {
    let world = World::new().await;
    world.advance(SignedDuration::from_hours(2)).await;
    let watch = world.subscriptions(ANNA)[0].clone();
    let status = FaultKind::Status { status: 503, code: None, retry_after: None };
    world.sim.fault(Fault::lasting(status).only(subscriptions_only(Some("PATCH"))));
    world.sim.lifecycle(&watch.id, LifecycleKind::ReauthorizationRequired).unwrap();
    world.settle().await;
    world.expect_trouble("graph_unreachable").await;
    world.sim.clear_faults();
    world.advance(SignedDuration::from_mins(10)).await;
    assert_eq!(world.health().await, "fine");
    assert!(world.subscriptions(ANNA)[0].expires > watch.expires);
    world.end().await;
}

/// Company `acme` with Anna alone, whose mailbox is watched already, and that reports to this address.
async fn watched_already(url: impl FnOnce(&World) -> String) -> (World, String) {
    let world = World::bare().await;
    world.sim.add_user(&world.tenant, UserSpec::new(ANNA)).unwrap();
    let planted = world.sim.plant_subscription(CLIENT_ID, ANNA, &url(&world)).unwrap();
    world.apply(&world.file("acme", "", "", &world.http_pbx("acme"), &[("201", ANNA, "")])).await;
    world.consent("acme").await;
    world.settle().await;
    (world, planted)
}

#[tokio::test]
async fn one_of_ours_that_nobody_remembers_makes_way_without_a_list() {
    let (world, planted) = watched_already(|world| format!("{}/graph/v1/notify", world.public_url())).await;
    let found = world.subscriptions(ANNA);
    assert_eq!(found.len(), 1);
    assert_ne!(found[0].id, planted);
    assert_eq!(world.health().await, "fine");
    let lists = world.sim.journal().graph_calls().into_iter();
    assert_eq!(lists.filter(|call| call.method == "GET" && call.path.ends_with("/subscriptions")).count(), 0);
    world.add(during("MÖT"));
    world.settle().await;
    assert_eq!(world.shows("201").profile, "meeting");
    world.end().await;
}

#[tokio::test]
async fn one_of_another_installation_is_left_alone_told_and_polled_around_until_it_ends() {
    let elsewhere = "https://staging.example.org/graph/v1/notify?code=secret";
    let (world, planted) = watched_already(|_| elsewhere.to_owned()).await;
    world.expect_trouble("watched_elsewhere").await;
    let health = world.mailbox("acme", "201").await.health;
    assert!(health.cause.contains("`staging.example.org`") && !format!("{health:?}").contains("secret"));
    assert_eq!(world.subscriptions(ANNA).iter().map(|one| &one.id).collect::<Vec<_>>(), [&planted]);

    world.sim.delivery(|knobs| knobs.drop = 1.0);
    world.add(during("MÖT"));
    world.advance(SignedDuration::from_mins(6)).await;
    assert_eq!(world.shows("201").profile, "meeting", "polled");
    world.sim.delivery(|knobs| knobs.drop = 0.0);
    world.sim.expire_subscription(&planted);
    world.advance(SignedDuration::from_mins(45)).await;
    assert_eq!(world.health().await, "fine");
    assert!(world.subscriptions(ANNA)[0].notification_url.starts_with(&world.public_url()));
    world.end().await;
}

#[tokio::test]
async fn one_that_stands_in_the_way_and_is_not_listed_is_polled_around_until_it_ends() {
    let world = World::new().await;
    let ours = world.subscriptions(ANNA)[0].id.clone();
    let exists = FaultKind::Status { status: 409, code: Some("Conflict".into()), retry_after: None };
    world.sim.fault(Fault::lasting(exists).only(subscriptions_only(Some("POST"))));
    world.sim.lifecycle(&ours, LifecycleKind::SubscriptionRemoved).unwrap();
    world.settle().await;
    world.expect_trouble("subscription_lapsed").await;
    world.add(during("MÖT"));
    world.advance(SignedDuration::from_mins(6)).await;
    assert_eq!(world.shows("201").profile, "meeting", "polled");
    world.sim.clear_faults();
    world.advance(SignedDuration::from_mins(45)).await;
    assert_eq!((world.health().await.as_str(), world.subscriptions(ANNA).len()), ("fine", 1));
    world.end().await;
}

#[tokio::test]
async fn i8_one_that_cannot_be_renewed_lapses_visibly_is_polled_and_comes_back() {
    let world = World::new().await;
    let status = FaultKind::Status { status: 503, code: None, retry_after: None };
    world.sim.fault(Fault::lasting(status).only(subscriptions_only(None)));
    for _ in 0..8 {
        world.advance(SignedDuration::from_hours(24)).await;
    }
    assert_eq!(world.subscriptions(ANNA), [], "it has lapsed");
    world.expect_trouble("graph_unreachable").await;
    let troubles = world.explained("201").await.troubles;
    let told: Vec<_> = troubles.iter().map(|trouble| trouble.health.name()).collect();
    assert_eq!(told, ["graph_unreachable", "subscription_lapsed"], "what is wrong, and what came of it");
    let now = world.now();
    world.add(EventSpec::new("Sick").at(now, now + SignedDuration::from_hours(2)));
    world.advance(SignedDuration::from_mins(6)).await;
    assert_eq!(world.shows("201").profile, "sick", "polled");
    world.sim.clear_faults();
    world.advance(SignedDuration::from_mins(10)).await;
    for alias in [ANNA, BO] {
        assert_eq!(world.subscriptions(alias).len(), 1);
    }
    assert_eq!(world.health().await, "fine");
    world.end().await;
}

#[tokio::test]
async fn a_service_that_slept_through_an_expiry_starts_with_a_new_one_and_a_complete_read() {
    let mut world = World::new().await;
    let old = world.subscriptions(ANNA)[0].id.clone();
    world.stop().await;
    let later = world.now() + SignedDuration::from_hours(9 * 24);
    world.sim.set_time(later);
    world.clock.advance_to(later);
    world.add(EventSpec::new("Sick").at(later, later + SignedDuration::from_hours(2)));
    world.start().await;
    world.settle().await;
    let anew = world.subscriptions(ANNA);
    assert_eq!(anew.len(), 1);
    assert_ne!(anew[0].id, old);
    assert_eq!((world.shows("201").profile, world.health().await), ("sick".into(), "fine".into()));
    world.end().await;
}

#[tokio::test]
async fn a_user_taken_out_while_graph_is_away_leaves_no_subscription_behind() {
    let mut world = World::new().await;
    world.add(during("MÖT"));
    world.settle().await;
    world.sim.fault(Fault::lasting(FaultKind::Drop));
    world.apply(&world.file("acme", "", "", &world.http_pbx("acme"), &[("202", BO, "")])).await;
    world.settle().await;
    assert_eq!(world.shows("201").profile, "available", "the phone does not wait for Graph");
    assert_eq!((world.subscriptions(ANNA).len(), world.app().depth().await.unwrap().mailboxes), (1, 2));
    world.restart().await;
    world.settle().await;
    assert_eq!(world.app().depth().await.unwrap().mailboxes, 2, "what is left to do outlives a restart");
    world.sim.clear_faults();
    world.advance(SignedDuration::from_mins(10)).await;
    assert_eq!((world.subscriptions(ANNA).len(), world.app().depth().await.unwrap().mailboxes), (0, 1));
    world.end().await;
}

#[tokio::test]
async fn a_user_switched_off_while_graph_is_away_is_not_watched_once_it_is_back() {
    let world = World::new().await;
    world.sim.fault(Fault::lasting(FaultKind::Drop));
    let users = [("201", ANNA, "enabled = false"), ("202", BO, "")];
    world.apply(&world.file("acme", "", "", &world.http_pbx("acme"), &users)).await;
    world.settle().await;
    assert_eq!(world.subscriptions(ANNA).len(), 1);
    world.sim.clear_faults();
    world.advance(SignedDuration::from_mins(10)).await;
    assert_eq!((world.subscriptions(ANNA), world.subscriptions(BO).len()), (vec![], 1));
    world.end().await;
}

/// Name of the key in each live subscription's `clientState`.
fn keys_in_use(world: &World) -> Vec<String> {
    let states = world.sim.subscriptions().into_iter().filter_map(|one| one.client_state);
    states.map(|state| state.split('.').nth(1).unwrap().to_owned()).collect()
}

#[tokio::test]
async fn i7_a_new_key_is_taken_up_one_subscription_after_the_other_and_no_change_is_missed() {
    const USERS: usize = 30;
    let mut world = World::bare().await;
    let (old, new) = ("o".repeat(40), "n".repeat(40));
    let users: Vec<_> = (0..USERS).map(|n| (format!("3{n:02}"), format!("user{n}@acme.example"))).collect();
    for (_, alias) in &users {
        world.sim.add_user(&world.tenant, UserSpec::new(alias)).unwrap();
    }
    world.state_keys = [old.clone(), String::new()];
    world.restart().await;
    let lines: Vec<_> =
        users.iter().map(|(extension, alias)| (extension.as_str(), alias.as_str(), "")).collect();
    world.apply(&world.file("acme", "", "", &world.http_pbx("acme"), &lines)).await;
    world.consent("acme").await;
    world.until_fine("acme").await;
    let old_name = keys_in_use(&world)[0].clone();

    world.state_keys = [new.clone(), old];
    world.restart().await;
    world.settle().await;
    let under_old = |world: &World| keys_in_use(world).iter().filter(|name| **name == old_name).count();
    assert_eq!(under_old(&world), USERS, "not all at once");
    let mut left = USERS;
    let mut most = 0;
    for step in 0..(7 * 8) {
        world.advance(SignedDuration::from_hours(3)).await;
        most = most.max(left - under_old(&world));
        left = under_old(&world);
        // Every change is announced and shown, whichever key its subscription was made under.
        let (extension, alias) = &users[step % USERS];
        let now = world.now();
        let spec = EventSpec::new("MÖT").at(now, now + SignedDuration::from_mins(30));
        world.sim.add_event(alias, spec).unwrap();
        world.settle().await;
        assert_eq!(world.shows(extension).profile, "meeting", "{step}");
    }
    assert_eq!((left, keys_in_use(&world).len()), (0, USERS), "within a week");
    assert!(most <= USERS / 3, "{most} of {USERS} within three hours");
    let deliveries = world.sim.journal().deliveries();
    assert!(deliveries.iter().all(|one| one.outcome == DeliveryOutcome::Delivered));

    world.state_keys = [new, String::new()];
    world.restart().await;
    world.settle().await;
    let (extension, alias) = &users[0];
    let now = world.now();
    let spec = EventSpec::new("Sick").at(now, now + SignedDuration::from_mins(30));
    world.sim.add_event(alias, spec).unwrap();
    world.settle().await;
    assert_eq!(world.shows(extension).profile, "sick", "the old key is not needed any more");
    world.end().await;
}
