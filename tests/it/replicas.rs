//! Several processes on one store: they come, change things and go, and nobody can tell from outside.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use narvaro::{
    admin::{ApplyRequest, JobId, OperationError, Operations, RemoveRequest, RenewRequest, Scope},
    queue::{Duty, Mark, Reason, Replicas},
    store::Store,
};
use narvaro_sim::{EventSpec, Fault, FaultFilter, FaultKind, Record};

use crate::world::{ANNA, Beside, Pbx, World, at, scope};

/// Longer than a duty is held and a process counts as there.
const SILENCE: i64 = 16;

/// As long as a lease lasts that nobody extends.
const LEASE: i64 = 90;

const ZEBRA: &str = "[[profiles]]\nid = \"meeting\"\nadd_triggers = \"Zebra\"\n";

fn zebra(world: &World) -> String {
    format!("{}{ZEBRA}", world.company(Pbx::Http, ""))
}

async fn apply_at(beside: &Beside, text: String) {
    let request = ApplyRequest { text, file: "company.toml".to_owned(), dry_run: false };
    assert!(beside.app.operations().apply(request).await.unwrap().applied);
}

async fn knows(operations: &Arc<dyn Operations>, company: &str) -> bool {
    !matches!(operations.status(scope(company)).await, Err(OperationError::NoSuchCompany(_)))
}

#[tokio::test]
async fn i13_who_leases_right_after_another_has_applied_goes_by_the_new_rules() {
    let world = World::shared().await;
    let other = world.beside().await;
    world.event("Zebra", "2026-11-23 07:30", "2026-11-23 09:30");
    world.settle().await;
    assert_eq!(world.shows("201").profile, "available");
    // The one that applies takes no turns; the other is told of nothing but by its leases.
    world.handle().idle();
    other.handle.deafen();
    // While it cannot read what was applied, nobody's turn is taken.
    other.handle.fail_to_read(5);
    world.apply(&zebra(&world)).await;
    world.settle().await;
    assert_eq!(other.handle.to_fail(), 0);
    assert_eq!(world.shows("201").profile, "meeting");
    // And back again, the other way about: no word is left of what was applied before.
    apply_at(&other, world.company(Pbx::Http, "")).await;
    world.settle().await;
    assert_eq!(world.shows("201").profile, "available");
    other.app.stop().await;
    world.end().await;
}

#[tokio::test]
async fn what_one_applies_gets_consent_for_and_removes_the_others_follow() {
    let world = World::shared().await;
    let other = world.beside().await;
    let operations = other.app.operations();
    world.sim.add_user(&world.tenant, narvaro_sim::UserSpec::new("carl@acme.example")).unwrap();
    let pbx = world.http_pbx("beta");
    let integration = format!("tenant = \"{}\"", world.tenant);
    let beta = world.file("beta", "", &integration, &pbx, &[("301", "carl@acme.example", "")]);
    world.apply(&beta).await;
    world
        .until("the other one tells how beta stands", async || {
            let status = operations.status(scope("beta")).await.unwrap();
            status.companies[0].mailboxes.iter().all(|mailbox| mailbox.subscription_expires.is_some())
        })
        .await;
    world.settle().await;
    let company = "beta".parse().unwrap();
    world.operations().remove(company, RemoveRequest { dry_run: false }).await.unwrap();
    for operations in [world.operations(), operations] {
        world.until("nobody knows beta any more", async || !knows(&operations, "beta").await).await;
    }
    assert_eq!(other.app.depth().await.unwrap().mailboxes, 2);
    other.app.stop().await;
    world.end().await;
}

#[tokio::test]
async fn a_link_to_a_pbx_that_stays_the_same_outlives_what_another_applies() {
    let world = World::shared_with(Pbx::Asterisk).await;
    let other = world.beside().await;
    world.until("both are linked", async || world.sim.ami().sessions() == 2).await;
    let logins = || {
        let login = |record: &Record| matches!(record, Record::Ami { action, .. } if action == "Login");
        world.sim.journal().count(login)
    };
    let before = logins();
    world.event("Zebra", "2026-11-23 07:30", "2026-11-23 09:30");
    world.settle().await;
    world.handle().idle();
    world.apply(&format!("{}{ZEBRA}", world.company(Pbx::Asterisk, ""))).await;
    world.settle().await;
    let shown = world.sim.ami().presence("201");
    assert!(format!("{shown:?}").contains("dnd") || format!("{shown:?}").contains("away"), "{shown:?}");
    assert_eq!((logins(), world.sim.ami().sessions()), (before, 2));
    other.app.stop().await;
    world.end().await;
}

async fn finished(world: &World, operations: &Arc<dyn Operations>, job: &JobId) {
    let ended = async || operations.job(job.clone()).await.unwrap().finished;
    world.until("the job has ended", ended).await;
}

fn renewals(world: &World) -> usize {
    world.sim.journal().graph_calls().iter().filter(|call| call.method == "PATCH").count()
}

/// Renewals hang until the faults are cleared.
fn hang_renewals(world: &World) {
    let filter = FaultFilter { method: Some("PATCH".into()), ..FaultFilter::path("subscriptions") };
    world.sim.fault(Fault::lasting(FaultKind::Hang).only(filter));
}

#[tokio::test]
async fn a_job_asked_for_anywhere_is_worked_off_by_one_and_told_by_all() {
    let world = World::shared().await;
    let other = world.beside().await;
    assert!(world.handle().has(Duty::Jobs) && !other.handle.has(Duty::Jobs));
    let operations = other.app.operations();
    let started = operations.renew(RenewRequest::default()).await.unwrap();
    assert_eq!((started.total, started.under_way), (2, false));
    for operations in [&operations, &world.operations()] {
        // Turns that the other process takes are found out by looking.
        let ended = async || {
            world.elapse(1).await;
            operations.job(started.job.clone()).await.unwrap().finished
        };
        world.until("the job has ended", ended).await;
        let jobs = operations.jobs(None).await.unwrap();
        assert_eq!((jobs.len(), jobs[0].progress.renewed), (1, 2), "{jobs:?}");
    }
    assert_eq!(renewals(&world), 2, "each once");
    let lines = world.operations().audit(Default::default()).await.unwrap().items;
    assert_eq!(lines.iter().filter(|line| line.what == "renew_ended").count(), 1);
    other.app.stop().await;
    world.end().await;
}

#[tokio::test]
async fn a_job_is_ended_early_by_whoever_is_asked() {
    let world = World::shared().await;
    let other = world.beside().await;
    let operations = other.app.operations();
    hang_renewals(&world);
    let job = world.operations().renew(RenewRequest::default()).await.unwrap().job;
    assert!(world.operations().renew(RenewRequest::default()).await.unwrap().under_way);
    assert!(operations.renew(RenewRequest::default()).await.unwrap().under_way, "the other one joins it too");
    assert!(operations.cancel(job.clone()).await.unwrap().cancelled);
    finished(&world, &operations, &job).await;
    let progress = world.operations().job(job).await.unwrap();
    assert_eq!((progress.cancelled, progress.done), (true, 0), "{progress:?}");
    let lines = world.operations().audit(Default::default()).await.unwrap().items;
    let done: Vec<&str> = lines.iter().take(2).map(|line| line.what.as_str()).collect();
    assert_eq!(done, ["renew_ended", "cancel"]);
    world.sim.clear_faults();
    world.elapse(300).await;
    other.app.stop().await;
    world.end().await;
}

#[tokio::test]
async fn a_job_goes_on_when_whoever_worked_it_off_is_killed() {
    let mut world = World::shared().await;
    let other = world.beside().await;
    hang_renewals(&world);
    let job = other.app.operations().renew(RenewRequest::default()).await.unwrap().job;
    world.until("the renewals hang", async || world.app().depth().await.unwrap().leased == 2).await;
    let killed = world.ask(other);
    assert!(killed.handle.has(Duty::Jobs));
    killed.handle.kill();
    world.sim.clear_faults();
    world.elapse(SILENCE).await;
    world.until("the other has the duty", async || world.handle().has(Duty::Jobs)).await;
    // What the killed one held is free once its leases have run out.
    world.elapse(120).await;
    finished(&world, &world.operations(), &job).await;
    let progress = world.operations().job(job).await.unwrap();
    assert_eq!((progress.renewed, progress.done), (2, 2), "{progress:?}");
    world.end().await;
}

#[tokio::test]
async fn a_removal_comes_to_its_end_though_whoever_follows_it_is_killed() {
    let mut world = World::shared().await;
    let other = world.beside().await;
    assert!(world.handle().has(Duty::Removals));
    let killed = world.ask(other);
    killed.handle.kill();
    world.operations().remove("acme".parse().unwrap(), RemoveRequest { dry_run: false }).await.unwrap();
    world.until("both have left", async || world.app().depth().await.unwrap().mailboxes == 0).await;
    assert!(knows(&world.operations(), "acme").await, "nobody has the duty");
    world.elapse(SILENCE).await;
    world.until("acme is forgotten", async || !knows(&world.operations(), "acme").await).await;
    world.end().await;
}

fn lists(world: &World) -> usize {
    let calls = world.sim.journal().graph_calls();
    calls.iter().filter(|call| call.method == "GET" && call.path.ends_with("/subscriptions")).count()
}

/// Lets two hours go by in which no duty runs out: the comparison after a start comes within one and three quarters.
async fn two_hours(world: &World) {
    for _ in 0..720 {
        world.move_to(world.now() + SignedDuration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.settle().await;
}

#[tokio::test]
async fn the_night_is_one_s_until_that_leaves() {
    let mut world = World::shared().await;
    let other = world.beside().await;
    assert!(world.handle().has(Duty::Upkeep));
    two_hours(&world).await;
    assert_eq!(lists(&world), 1, "the other one has not done it too");
    world.ask(other).app.stop().await;
    world.elapse(6).await;
    world.until("the other has the duty", async || world.handle().has(Duty::Upkeep)).await;
    two_hours(&world).await;
    assert_eq!(lists(&world), 2, "it does as after a start");
    world.end().await;
}

#[tokio::test]
async fn what_a_process_holds_when_it_stops_is_another_s_at_once() {
    let mut world = World::shared().await;
    let filter = FaultFilter { path: Some("calendarView".into()), ..FaultFilter::default() };
    world.sim.fault(Fault::lasting(FaultKind::Hang).only(filter));
    world
        .sim
        .add_event(ANNA, EventSpec::new("MÖT").at(at("2026-11-23 07:30"), at("2026-11-23 17:00")))
        .unwrap();
    world.operations().sync_now(Default::default()).await.unwrap();
    world.until("both calendars hang", async || world.app().depth().await.unwrap().leased == 2).await;
    let other = world.beside().await;
    other.handle.idle();
    // Time stands still from here on: no lease runs out.
    let stopped = world.ask(other);
    stopped.app.stop().await;
    world.sim.clear_faults();
    assert!(!world.handle().has(Duty::Jobs), "not taken hold of yet");
    assert_eq!(world.handle().replicas().await.unwrap().len(), 1, "the one that has left is gone");
    assert_eq!(world.app().depth().await.unwrap().leased, 0);
    let third = world.beside().await;
    world.settle().await;
    assert_eq!(world.shows("201").profile, "meeting");
    assert!(third.handle.has(Duty::Jobs), "and so are its duties");
    third.app.stop().await;
    world.end().await;
}

#[tokio::test]
async fn leases_of_turns_that_were_cut_off_are_handed_back_too() {
    let mut world = World::shared().await;
    let other = world.beside().await;
    other.handle.idle();
    world.handle().idle();
    let store: &dyn Store = world.handle();
    let mailbox = store.mailboxes().await.unwrap()[0].id;
    store.mark(vec![Mark::new(mailbox, world.now(), Reason::Asked)]).await.unwrap();
    // As a turn that the end has cut off would leave it.
    world.handle().hold_one().await;
    let stopped = world.ask(other);
    assert_eq!(world.app().depth().await.unwrap().leased, 1);
    stopped.app.stop().await;
    let depth = world.app().depth().await.unwrap();
    assert_eq!((depth.leased, depth.due), (0, 1));
    let third = world.beside().await;
    world.settle().await;
    third.app.stop().await;
    world.end().await;
}

#[tokio::test]
async fn i3_a_turn_that_reads_after_its_lease_that_it_may_write_writes_nothing() {
    let mut world = World::shared().await;
    let mut allowed = world.handle().stop();
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 09:30");
    allowed.changed().await.unwrap();
    // Another one takes over, and the calendar goes on.
    world.handle().idle();
    let other = world.beside().await;
    world.event("DND", "2026-11-23 07:30", "2026-11-23 09:30");
    world.move_to(world.now() + SignedDuration::from_secs(LEASE));
    world.until_shows("201", "do-not-disturb").await;
    let stopped = world.ask(other);
    stopped.handle.go_on();
    // Turns under way come to their end first.
    stopped.app.stop().await;
    assert_eq!(world.shows("201").profile, "do-not-disturb");
    world.end().await;
}

#[tokio::test]
async fn status_names_the_processes_where_there_are_several() {
    let world = World::shared().await;
    assert_eq!(world.operations().status(Scope::default()).await.unwrap().replicas, []);
    let other = world.beside().await;
    for operations in [world.operations(), other.app.operations()] {
        let replicas = operations.status(Scope::default()).await.unwrap().replicas;
        assert_eq!(replicas.len(), 2);
        assert_ne!(replicas[0].name, replicas[1].name);
        assert_eq!(replicas.iter().filter(|one| one.answers).count(), 1);
        assert!(
            replicas.iter().all(|one| one.version == env!("CARGO_PKG_VERSION") && one.seen == world.now())
        );
    }
    other.app.stop().await;
    assert_eq!(world.operations().status(Scope::default()).await.unwrap().replicas, []);
    world.end().await;
}
