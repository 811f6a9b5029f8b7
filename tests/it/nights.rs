//! What nobody asks for: the nightly comparison of subscriptions, and the self-test of our own address.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use jiff::{SignedDuration, Timestamp};
use narvaro_sim::{EventSpec, Fault, FaultFilter, FaultKind, TenantSpec, UserSpec};

use crate::world::{ANNA, CLIENT_ID, World, at};
use narvaro::admin::Scope;

const BO: &str = "bo@acme.example";
const EVA: &str = "eva@acme.example";
const ELSEWHERE: &str = "https://staging.example.org/graph/v1/notify";

/// `acme` at work, and its night planned: the tenant is known since the start.
async fn ready() -> World {
    let mut world = World::new().await;
    world.restart().await;
    world.settle().await;
    world
}

fn lists(world: &World) -> usize {
    let calls = world.sim.journal().graph_calls();
    calls.iter().filter(|call| call.method == "GET" && call.path.ends_with("/subscriptions")).count()
}

/// Waits until the morning of `day`, when the night's list has been read.
async fn morning(world: &World, day: &str) {
    let before = lists(world);
    world.advance_to(&format!("{day} 05:31")).await;
    world.until("the list is read", async || lists(world) > before).await;
    world.settle().await;
}

/// The time in which an orphan is judged a second time.
async fn until_gone(world: &World, subscription: &str) {
    world.advance(SignedDuration::from_mins(11)).await;
    let gone = async || world.sim.subscriptions().iter().all(|one| one.id != subscription);
    world.until("the orphan is gone", gone).await;
}

#[tokio::test]
async fn a_subscription_that_vanished_without_a_word_is_missed_at_night_and_made_anew() {
    let world = ready().await;
    let lost = world.subscriptions(ANNA)[0].id.clone();
    let kept = world.subscriptions(BO)[0].id.clone();
    world.sim.expire_subscription(&lost);
    // Lost with it; the complete read that comes with the new one finds it.
    world.event("MÖT", "2026-11-24 05:00", "2026-11-24 17:00");
    morning(&world, "2026-11-24").await;
    world.until("it is made anew", async || world.subscriptions(ANNA).len() == 1).await;
    world.settle().await;
    assert_eq!(world.shows("201").profile, "meeting");
    assert_eq!(world.subscriptions(BO)[0].id, kept, "nothing was missing there");
    morning(&world, "2026-11-25").await;
    assert_eq!(lists(&world), 2, "one list a night");
    world.end().await;
}

#[tokio::test]
async fn what_was_found_missing_is_made_anew_though_the_comparison_fails_after_it() {
    let world = ready().await;
    let lost = [ANNA, BO].map(|alias| world.subscriptions(alias)[0].id.clone());
    lost.iter().for_each(|id| world.sim.expire_subscription(id));
    let second = FaultFilter { method: Some("GET".into()), ..FaultFilter::path(&lost[1]) };
    let broken = FaultKind::Status { status: 503, code: None, retry_after: None };
    world.sim.fault(Fault::lasting(broken).only(second));
    world.advance_to("2026-11-24 05:31").await;
    world.advance_until("the first is made anew", async || world.subscriptions(ANNA).len() == 1).await;
    world.settle().await;
    assert!(world.subscriptions(BO).is_empty(), "of that one nothing is known");
    world.sim.clear_faults();
    world.advance(SignedDuration::from_mins(31)).await;
    world.advance_until("the second is too", async || world.subscriptions(BO).len() == 1).await;
    world.settle().await;
    world.end().await;
}

#[tokio::test]
async fn at_night_orphans_of_ours_are_ended_and_nobody_elses() {
    let world = ready().await;
    for alias in [EVA, "ida@acme.example", "per@acme.example"] {
        world.sim.add_user(&world.tenant, UserSpec::new(alias)).unwrap();
    }
    let foreign = world.sim.plant_subscription(CLIENT_ID, "per@acme.example", ELSEWHERE).unwrap();
    // A second company that the operator has told to have the same tenant.
    let tenant = format!("tenant = \"{}\"", world.tenant);
    let users = [("301", "ida@acme.example", "")];
    world.apply(&world.file("beta", "", &tenant, &world.http_pbx("beta"), &users)).await;
    world.until_fine("beta").await;
    // One that still waits for consent has nothing to do with it.
    world.apply(&world.file("gamma", "", "", &world.http_pbx("gamma"), &[("401", EVA, "")])).await;

    // Anna's extension is given to Eva while Graph does not let go of Anna.
    let orphan = world.subscriptions(ANNA)[0].id.clone();
    let end = FaultFilter { method: Some("DELETE".into()), ..FaultFilter::path("subscriptions") };
    world.sim.fault(Fault::lasting(FaultKind::Drop).only(end));
    let users = [("201", EVA, ""), ("202", BO, "")];
    world.apply(&world.file("acme", "", "", &world.http_pbx("acme"), &users)).await;
    world.settle().await;
    world.sim.clear_faults();
    assert_eq!(world.subscriptions(ANNA)[0].id, orphan, "left behind");
    let others: Vec<_> = [EVA, BO, "ida@acme.example", "per@acme.example"]
        .into_iter()
        .map(|alias| world.subscriptions(alias)[0].id.clone())
        .collect();
    assert_eq!(others[3], foreign);

    morning(&world, "2026-11-24").await;
    assert_eq!(world.subscriptions(ANNA).len(), 1, "one look is not enough");
    until_gone(&world, &orphan).await;
    let mut left: Vec<_> = world.sim.subscriptions().into_iter().map(|one| one.id).collect();
    let mut expected = others;
    left.sort();
    expected.sort();
    assert_eq!(left, expected);
    world.end().await;
}

#[tokio::test]
async fn what_a_company_without_a_known_tenant_keeps_is_neither_missed_nor_ended_elsewhere() {
    let mut world = World::new().await;
    let other = world.sim.add_tenant(TenantSpec::new("other.example")).unwrap();
    world.sim.consent(&other, CLIENT_ID).unwrap();
    world.sim.add_user(&other, UserSpec::new("ida@other.example")).unwrap();
    let with = |integration: &str| {
        let users = [("301", "ida@other.example", "")];
        world.file("beta", "", integration, &world.http_pbx("beta"), &users)
    };
    world.apply(&with(&format!("tenant = \"{other}\""))).await;
    world.until_fine("beta").await;
    world.apply(&with("")).await;
    world.restart().await;
    world.settle().await;
    let before: Vec<_> = world.sim.subscriptions().into_iter().map(|one| one.id).collect();
    morning(&world, "2026-11-24").await;
    world.advance(SignedDuration::from_mins(11)).await;
    let asked = world.sim.journal().graph_calls();
    let by_id = asked.iter().filter(|call| call.method == "GET" && call.path.contains("/subscriptions/"));
    assert_eq!(by_id.count(), 0, "it is not asked for where it is not");
    let after: Vec<_> = world.sim.subscriptions().into_iter().map(|one| one.id).collect();
    assert_eq!(after, before);
    world.end().await;
}

#[tokio::test]
async fn a_list_of_many_pages_is_read_to_its_end_and_slowly() {
    let world = ready().await;
    for n in 0..300 {
        let alias = format!("other{n}@acme.example");
        world.sim.add_user(&world.tenant, UserSpec::new(&alias)).unwrap();
        world.sim.plant_subscription(CLIENT_ID, &alias, ELSEWHERE).unwrap();
    }
    world.sim.add_user(&world.tenant, UserSpec::new(EVA)).unwrap();
    let ours = format!("{}/graph/v1/notify", world.public_url());
    let orphan = world.sim.plant_subscription(CLIENT_ID, EVA, &ours).unwrap();
    world.advance_to("2026-11-24 05:31").await;
    let begun = world.now();
    world.advance_until("all pages are read", async || lists(&world) == 4).await;
    assert!(world.now().duration_since(begun) >= SignedDuration::from_secs(9), "three pauses of 3 s");
    until_gone(&world, &orphan).await;
    assert_eq!(world.sim.subscriptions().len(), 302);
    world.end().await;
}

#[tokio::test]
async fn a_night_in_which_graph_is_away_is_made_up_for() {
    let world = ready().await;
    world.sim.expire_subscription(&world.subscriptions(ANNA)[0].id);
    let status = FaultKind::Status { status: 503, code: None, retry_after: None };
    world.sim.fault(Fault::lasting(status).only(FaultFilter::path("subscriptions")));
    morning(&world, "2026-11-24").await;
    assert_eq!(world.subscriptions(ANNA), []);
    world.sim.clear_faults();
    world.advance(SignedDuration::from_mins(31)).await;
    world.until("it is made anew", async || world.subscriptions(ANNA).len() == 1).await;
    world.end().await;
}

#[tokio::test]
async fn an_address_that_stops_answering_is_told_within_five_minutes_and_until_it_answers_again() {
    let mut world = World::new().await;
    let (outside, open) = gate(world.app().public()).await;
    world.outside = Some(outside);
    world.restart().await;
    world.settle().await;
    assert_eq!(world.company_health().await, "fine");
    open.store(false, Ordering::SeqCst);
    world.advance(SignedDuration::from_mins(5)).await;
    let silent = async || world.company_health().await == "notification_address_silent";
    world.until("it is told", silent).await;
    let status = world.operations().status(Scope::default()).await.unwrap();
    let health = &status.companies[0].health;
    assert!(!health.cause.is_empty() && health.cure.contains("webhook.public_url"), "{health:?}");
    open.store(true, Ordering::SeqCst);
    world.advance(SignedDuration::from_mins(5)).await;
    world.until("it is over", async || world.company_health().await == "fine").await;
    world.end().await;
}

/// A way from outside to the service that can be shut.
async fn gate(to: std::net::SocketAddr) -> (String, Arc<AtomicBool>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let outside = format!("http://{}", listener.local_addr().unwrap());
    let open = Arc::new(AtomicBool::new(true));
    let is_open = Arc::clone(&open);
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            let is_open = Arc::clone(&is_open);
            tokio::spawn(async move {
                if is_open.load(Ordering::SeqCst)
                    && let Ok(mut service) = tokio::net::TcpStream::connect(to).await
                {
                    // Either end may be cut.
                    drop(tokio::io::copy_bidirectional(&mut caller, &mut service).await);
                }
            });
        }
    });
    (outside, open)
}

#[tokio::test]
async fn the_phone_follows_through_a_night_of_upkeep() {
    let world = ready().await;
    let starts: Timestamp = at("2026-11-24 02:00");
    world.add(EventSpec::new("Sick").at(starts, starts + SignedDuration::from_hours(1)));
    world.settle().await;
    for (time, profile) in [("01:59", "available"), ("02:00", "sick"), ("03:00", "available")] {
        world.advance_to(&format!("2026-11-24 {time}")).await;
        assert_eq!(world.shows("201").profile, profile, "at {time}");
    }
    world.end().await;
}
