//! Calendars that hang, of more companies than there are workers: edges come on time, turns end, the service stops
//! (I6, I10).

use std::time::{Duration, Instant};

use narvaro::admin::{CheckLine, Scope, SyncRequest};
use narvaro_sim::{EventSpec, Fault, FaultKind, TenantSpec, UserSpec};

use crate::world::{LIMIT, World, at};

/// Of four workers three read at a time.
const WORKERS: usize = 4;
const READING: usize = 3;

/// Companies that change at once.
const SLOW: [&str; 4] = ["slow1", "slow2", "slow3", "slow4"];

/// Longer than any test waits for a state: nobody is answered meanwhile.
const HANGS: FaultKind = FaultKind::Slow { millis: 600_000 };

fn alias(company: &str, extension: &str) -> String {
    format!("u{extension}@{company}.example")
}

/// Four workers; companies with users 201 and 202, each company with a tenant of its own.
async fn crowd(companies: &[&str]) -> World {
    let mut world = World::bare().await;
    world.more_config = format!("[queue]\nworkers = {WORKERS}");
    world.restart().await;
    for company in companies {
        let tenant = world.sim.add_tenant(TenantSpec::new(&format!("{company}.example"))).unwrap();
        let (first, second) = (alias(company, "201"), alias(company, "202"));
        for user in [&first, &second] {
            world.sim.add_user(&tenant, UserSpec::new(user)).unwrap();
        }
        let users = [("201", first.as_str(), ""), ("202", second.as_str(), "")];
        world.apply(&world.file(company, "", "", &world.http_pbx(company), &users)).await;
        assert_eq!(world.consent_as(company, &tenant).await.0, 200);
        world.until_fine(company).await;
    }
    world
}

fn add(world: &World, company: &str, extension: &str, subject: &str, start: &str, end: &str) {
    let event = EventSpec::new(subject).at(at(start), at(end));
    world.sim.add_event(&alias(company, extension), event).unwrap();
}

fn shows(world: &World, company: &str, extension: &str) -> String {
    world.sim.pbx().presence(company, extension).profile
}

/// All users 201 get an event that nobody can read, and as many turns as may wait for it.
async fn hang(world: &World, companies: &[&str]) {
    world.sim.fault(Fault::lasting(HANGS));
    for company in companies {
        add(world, company, "201", "Sick", "2026-11-23 07:30", "2026-11-23 16:00");
    }
    world
        .until("as many read as may, the others wait", async || {
            let depth = world.app().depth().await.unwrap();
            depth.leased == READING.min(companies.len())
                && depth.due == companies.len().saturating_sub(READING)
                && world.sim.outstanding() == 0
        })
        .await;
}

#[tokio::test]
async fn i6_i10_an_edge_finds_a_worker_while_the_calendars_of_many_companies_hang() {
    let companies = [&SLOW[..], &["quick"]].concat();
    let world = crowd(&companies).await;
    // In another company, in one that waits for its calendar, and in one that waits for room to read.
    for company in ["quick", "slow1", "slow2", "slow3", "slow4"] {
        add(&world, company, "202", "Lunch", "2026-11-23 08:01", "2026-11-23 09:00");
    }
    // An edge of a mailbox that cannot read is no less on time.
    for company in SLOW {
        add(&world, company, "201", "Lunch", "2026-11-23 08:01", "2026-11-23 09:00");
    }
    world.settle().await;
    hang(&world, &SLOW).await;
    let edge = at("2026-11-23 08:01");
    world.sim.set_time(edge);
    world.clock.advance_to(edge);
    for (company, extension) in
        companies.iter().map(|company| (*company, "202")).chain(SLOW.map(|company| (company, "201")))
    {
        let shown = world.sim.pbx().until(company, extension, LIMIT, |shown| shown.profile == "lunch").await;
        assert!(shown, "{company} {extension} shows {}", shows(&world, company, extension));
    }
    world.until("reading goes on", async || world.app().depth().await.unwrap().leased == READING).await;
    world.sim.clear_faults();
    // Those that hang give up after four minutes, and all that was put off is read.
    world.elapse(240).await;
    world.pass(5).await;
    for company in SLOW {
        assert_eq!(shows(&world, company, "201"), "sick", "{company}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_turn_that_reads_for_too_long_ends_tells_why_and_is_tried_again() {
    let world = crowd(&["slow1"]).await;
    hang(&world, &["slow1"]).await;
    world.elapse(239).await;
    assert_eq!(world.app().depth().await.unwrap().leased, 1, "not before its time");
    world.pass(1).await;
    let health = world.mailbox("slow1", "201").await.health;
    assert_eq!(health.health.name(), "graph_unreachable");
    assert!(health.cause.contains("240 s"), "{}", health.cause);
    assert_eq!(shows(&world, "slow1", "201"), "available");
    world.sim.clear_faults();
    world.pass(3).await;
    assert_eq!(shows(&world, "slow1", "201"), "sick");
    world.end().await;
}

#[tokio::test]
async fn mailboxes_that_nobody_sees_to_are_told_of_by_check_and_the_store_is_not_blamed() {
    let mut world = World::new().await;
    world.more_config = "[queue]\nworkers = 1".to_owned();
    world.restart().await;
    world.settle().await;
    let checks = async || world.operations().check(Scope::default()).await.unwrap().checks;
    let late = |line: &CheckLine| line.what == "mailboxes";
    assert!(!checks().await.iter().any(late));
    world.sim.fault(Fault::lasting(HANGS));
    world.operations().sync_now(SyncRequest::default()).await.unwrap();
    world.until("one hangs and one waits", async || world.app().depth().await.unwrap().leased == 1).await;
    world.elapse(61).await;
    let told = checks().await;
    assert!(told.iter().any(|line| late(line) && !line.ok && line.cure.is_some()), "{told:?}");
    assert!(told.iter().any(|line| line.what == "store" && line.ok), "{told:?}");
    assert!(world.operations().ready().await.is_err());
    world.sim.clear_faults();
    world.elapse(240).await;
    world.pass(5).await;
    assert!(!checks().await.iter().any(late) && world.operations().ready().await.is_ok());
    world.end().await;
}

#[tokio::test]
async fn the_service_stops_at_once_though_calendars_hang_and_nothing_owed_is_lost() {
    let mut world = crowd(&SLOW).await;
    hang(&world, &SLOW).await;
    let began = Instant::now();
    world.stop().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    world.sim.clear_faults();
    world.start().await;
    world.settle().await;
    for company in SLOW {
        assert_eq!(shows(&world, company, "201"), "sick", "{company}");
    }
    world.end().await;
}
