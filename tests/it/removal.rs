//! A company is removed: its phones are given back, its subscriptions deleted, and then nobody knows it any more.

use narvaro::admin::{OperationError, PageRequest, RemoveReport, RemoveRequest};
use narvaro_sim::{EventSpec, PbxFault};

use crate::world::{ANNA, Pbx, World, at, scope};

const BO: &str = "bo@acme.example";

async fn remove(world: &World, dry_run: bool) -> Result<RemoveReport, OperationError> {
    world.operations().remove("acme".parse().unwrap(), RemoveRequest { dry_run }).await
}

async fn is_known(world: &World) -> bool {
    !matches!(world.operations().status(scope("acme")).await, Err(OperationError::NoSuchCompany(_)))
}

async fn until_forgotten(world: &World) {
    world.until("the company is forgotten", async || !is_known(world).await).await;
}

/// Company `acme` with both users in a meeting.
async fn in_a_meeting() -> World {
    let world = World::new().await;
    for alias in [ANNA, BO] {
        let spec = EventSpec::new("MÖT").at(at("2026-11-23 07:30"), at("2026-11-23 17:00"));
        world.sim.add_event(alias, spec).unwrap();
    }
    world.settle().await;
    assert_eq!(both(&world), ["meeting", "meeting"]);
    world
}

fn both(world: &World) -> [String; 2] {
    ["201", "202"].map(|extension| world.shows(extension).profile)
}

#[tokio::test]
async fn a_removed_company_gives_its_phones_back_and_is_forgotten() {
    let mut world = in_a_meeting().await;
    let report = remove(&world, false).await.unwrap();
    assert!(report.leaving && report.goes.len() == 3, "{report:?}");
    world.settle().await;
    until_forgotten(&world).await;
    assert_eq!(both(&world), ["available", "available"]);
    assert_eq!((world.subscriptions(ANNA), world.subscriptions(BO)), (vec![], vec![]));
    assert_eq!(world.app().depth().await.unwrap().mailboxes, 0);
    assert!(matches!(remove(&world, false).await, Err(OperationError::NoSuchCompany(_))));
    world.restart().await;
    world.settle().await;
    assert!(!is_known(&world).await, "and stays so");
    // It can come again, as any new company: without the consent that went with it.
    world.apply(&world.company(Pbx::Http, "")).await;
    world.settle().await;
    assert_eq!(world.health().await, "no_consent");
    world.consent("acme").await;
    world.until_fine("acme").await;
    assert_eq!(both(&world), ["meeting", "meeting"]);
    world.end().await;
}

#[tokio::test]
async fn a_dry_run_says_what_would_go_and_takes_nothing() {
    let world = in_a_meeting().await;
    let report = remove(&world, true).await.unwrap();
    assert!(!report.leaving);
    assert!(report.goes[0].contains("acme AB") && report.goes[1].contains("201"), "{report:?}");
    world.settle().await;
    let status = world.operations().status(scope("acme")).await.unwrap();
    assert!(!status.companies[0].leaving);
    assert_eq!(both(&world), ["meeting", "meeting"]);
    world.end().await;
}

#[tokio::test]
async fn a_removal_that_the_pbx_holds_up_goes_on_after_a_restart() {
    let mut world = in_a_meeting().await;
    world.sim.pbx().fault("acme", 100_000, PbxFault::Status { status: 503, retry_after: None });
    remove(&world, false).await.unwrap();
    world.pass(20).await;
    assert_eq!(both(&world), ["meeting", "meeting"]);
    let status = world.operations().status(scope("acme")).await.unwrap().companies.remove(0);
    assert!(status.leaving && status.health.health.name() == "leaving", "{status:?}");
    let held_up: Vec<_> = status.mailboxes.iter().map(|mailbox| mailbox.health.health.name()).collect();
    assert_eq!(held_up, ["pbx_unreachable", "pbx_unreachable"], "and says what it waits for");
    assert_eq!(status.mailboxes[0].alias, ANNA);
    let list =
        world.operations().mailboxes("acme".parse().unwrap(), None, PageRequest::default()).await.unwrap();
    assert_eq!(list.items, status.mailboxes, "and so does the list");

    world.restart().await;
    world.pass(20).await;
    let status = world.operations().status(scope("acme")).await.unwrap();
    assert!(status.companies[0].leaving, "a restart does not forget that");
    world.sim.pbx().clear_faults("acme");
    world.advance_until("the company is forgotten", async || !is_known(&world).await).await;
    assert_eq!(both(&world), ["available", "available"]);
    assert_eq!((world.subscriptions(ANNA), world.subscriptions(BO)), (vec![], vec![]));
    world.end().await;
}

#[tokio::test]
async fn a_company_that_is_applied_again_before_it_is_gone_stays() {
    let world = in_a_meeting().await;
    world.sim.pbx().fault("acme", 100_000, PbxFault::Status { status: 503, retry_after: None });
    remove(&world, false).await.unwrap();
    // Step by step: a turn that tries again waits for time to go by.
    let held_up = async || {
        world.elapse(1).await;
        let status = world.operations().status(scope("acme")).await.unwrap();
        status.companies[0].mailboxes.iter().all(|one| one.health.health.name() == "pbx_unreachable")
    };
    world.until("the PBX holds the removal up", held_up).await;
    assert_eq!(world.company_health().await, "leaving");
    assert!(remove(&world, false).await.unwrap().leaving, "asking again changes nothing");
    world.sim.pbx().clear_faults("acme");
    world.apply(&world.company(Pbx::Http, "")).await;
    world.pass(120).await;
    world.advance_to("2026-11-23 09:00").await;
    let status = world.operations().status(scope("acme")).await.unwrap();
    assert!(!status.companies[0].leaving);
    assert_eq!((world.health().await, world.company_health().await), ("fine".into(), "fine".into()));
    assert_eq!(both(&world), ["meeting", "meeting"]);
    assert_eq!((world.subscriptions(ANNA).len(), world.subscriptions(BO).len()), (1, 1));
    world.end().await;
}
