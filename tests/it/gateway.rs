//! The Graph gateway of each company: within limits, and never in the way of another company (I10, B2, B5).

use jiff::SignedDuration;
use narvaro_sim::{EventSpec, Fault, FaultFilter, FaultKind, Record, TenantSpec, UserSpec};

use crate::world::{LIMIT, World};

/// Mailboxes of a company in trouble: more than there are workers.
const MANY: usize = 80;

const EVA: &str = "eva@calm.example";

/// A company `calm` of one, and a company `acme` of many, both read.
async fn two_companies(many: usize) -> World {
    let world = World::bare().await;
    let aliases: Vec<String> = (0..many).map(alias).collect();
    for alias in &aliases {
        world.sim.add_user(&world.tenant, UserSpec::new(alias)).unwrap();
    }
    let extensions: Vec<String> = (0..many).map(|n| format!("{}", 300 + n)).collect();
    let users: Vec<_> =
        extensions.iter().zip(&aliases).map(|(one, alias)| (one.as_str(), alias.as_str(), "")).collect();
    world.apply(&world.file("acme", "", "", &world.http_pbx("acme"), &users)).await;
    world.consent("acme").await;
    world.until_fine("acme").await;
    let calm = world.sim.add_tenant(TenantSpec::new("calm.example")).unwrap();
    world.sim.add_user(&calm, UserSpec::new(EVA)).unwrap();
    world.apply(&world.file("calm", "", "", &world.http_pbx("calm"), &[("201", EVA, "")])).await;
    let (status, page) = world.consent_as("calm", &calm).await;
    assert_eq!(status, 200, "{page}");
    world.until_fine("calm").await;
    world
}

fn alias(n: usize) -> String {
    format!("u{n}@acme.example")
}

/// Lets an hour go by in which each mailbox of `acme` has a change every five minutes and its Graph has `trouble`.
/// Changes of `calm` reach its phone meanwhile before the clock moves, and before any call that hangs has ended: those
/// take 45 s, which is more than the limit of a wait.
async fn delays_no_other(trouble: FaultKind, many: usize) {
    let world = two_companies(many).await;
    let before = world.sim.journal().last_seq();
    world.sim.fault(Fault::lasting(trouble.clone()).only(FaultFilter::tenant(&world.tenant)));
    let lasting = |subject: &str| {
        let now = world.now();
        EventSpec::new(subject).at(now - SignedDuration::from_mins(1), now + SignedDuration::from_mins(4))
    };
    let calm = async |profile: &str| {
        let pbx = world.sim.pbx();
        assert!(pbx.until("calm", "201", LIMIT, |shown| shown.profile == profile).await, "{trouble:?}");
    };
    for _ in 0..12 {
        for n in 0..many {
            world.sim.add_event(&alias(n), lasting("Lunch")).unwrap();
        }
        world.sim.add_event(EVA, lasting("MÖT")).unwrap();
        calm("meeting").await;
        for _ in 0..10 {
            let to = world.now() + SignedDuration::from_secs(30);
            if matches!(trouble, FaultKind::Hang) {
                world.move_to(to)
            } else {
                world.advance_to_instant(to).await
            }
        }
        calm("available").await;
    }
    world.sim.clear_faults();
    // What was missed is made up for by itself.
    let (start, end) = (world.now(), world.now() + SignedDuration::from_hours(3));
    for n in 0..many {
        world.sim.add_event(&alias(n), EventSpec::new("Lunch").at(start, end)).unwrap();
    }
    for _ in 0..15 {
        world.advance(SignedDuration::from_mins(1)).await;
    }
    let shown = world.sim.pbx().all("acme");
    assert_eq!(shown.values().filter(|shown| shown.profile == "lunch").count(), many);
    let asked = world.sim.journal().since(before);
    let met = asked.iter().filter(
        |entry| matches!(&entry.record, Record::Graph(call) if call.fault.is_some() && !call.in_batch),
    );
    let met = met.count();
    assert!(met > 0, "there was trouble");
    if matches!(trouble, FaultKind::Drop) {
        // A tenth of two for each mailbox every half minute, as it would be if nobody held back.
        assert!(met < 2 * 120 * many / 10, "{met} calls to a Graph that is away");
    }
    world.end().await;
}

#[tokio::test]
async fn i10_a_company_that_is_throttled_for_an_hour_delays_no_other() {
    delays_no_other(FaultKind::Throttle { retry_after: Some(30.0) }, 12).await;
}

#[tokio::test]
async fn i10_a_company_that_is_throttled_without_a_time_for_an_hour_delays_no_other() {
    delays_no_other(FaultKind::Throttle { retry_after: None }, 24).await;
}

#[tokio::test]
async fn i10_a_company_whose_graph_says_nothing_for_an_hour_delays_no_other() {
    delays_no_other(FaultKind::Hang, MANY).await;
}

#[tokio::test]
async fn i10_a_company_whose_graph_hangs_up_for_an_hour_delays_no_other_and_is_hardly_asked() {
    delays_no_other(FaultKind::Drop, 24).await;
}

/// Many changes at once while answers take their time: small requests meet, go as batches, and every phone follows.
#[tokio::test]
async fn a_burst_of_changes_goes_in_batches_and_reaches_every_phone() {
    let world = two_companies(MANY).await;
    let before = world.sim.journal().last_seq();
    let slow = FaultKind::Slow { millis: 100 };
    world.sim.fault(Fault::lasting(slow).only(FaultFilter::tenant(&world.tenant)));
    let (start, end) = (world.now(), world.now() + SignedDuration::from_hours(3));
    for n in 0..MANY {
        world.sim.add_event(&alias(n), EventSpec::new("Lunch").at(start, end)).unwrap();
    }
    world.settle().await;
    let shown = world.sim.pbx().all("acme");
    assert_eq!(shown.values().filter(|shown| shown.profile == "lunch").count(), MANY);
    let since = world.sim.journal().since(before);
    let parts = since.iter().filter(|entry| matches!(&entry.record, Record::Graph(call) if call.in_batch));
    assert!(parts.count() > MANY / 2);
    world.sim.clear_faults();
    world.end().await;
}
