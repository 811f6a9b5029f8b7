//! What an Asterisk shows and we did not write, told apart: a person's change, a loss, a write cut half way (5.4.5).

use jiff::SignedDuration;
use narvaro::{admin::PbxLink, clock::Clock};
use narvaro_sim::Record;

use crate::world::{Pbx, World, at, scope};

const EXTENSION: &str = "201";
const LAMP: &str = "Custom:DND201";

/// State, name, message and lamp in one line.
fn shows(world: &World) -> String {
    let presence = world.sim.ami().presence(EXTENSION);
    let lamp = world.sim.ami().device(LAMP).unwrap_or_default();
    format!("{} {} {} {lamp}", presence.state, presence.subtype, presence.message)
}

const AVAILABLE: &str = "available Tillgänglig  NOT_INUSE";
const CLOSED: &str = "dnd Stör ej till 11:00 BUSY";

async fn until_shows(world: &World, wanted: &str) {
    world.until(wanted, async || shows(world) == wanted).await;
    world.settle().await;
}

async fn until_up(world: &World) {
    let up = async || world.sim.ami().sessions() == 1 && link(world).await == PbxLink::Up;
    world.advance_until("the link is up", up).await;
}

async fn link(world: &World) -> PbxLink {
    let status = world.operations().status(scope("acme")).await.unwrap();
    status.companies.into_iter().next().unwrap().pbx
}

/// Waits until the service has taken note of what was set by hand: the label in its status.
async fn until_noted(world: &World, label: &str) {
    let noted =
        async || world.mailbox("acme", EXTENSION).await.shown.is_some_and(|shown| shown.label == label);
    world.until("the change is noted", noted).await;
    world.settle().await;
}

/// In an event that closes the extension, from 10:00 to 11:00.
async fn in_an_event() -> World {
    let world = World::with(Pbx::Asterisk).await;
    until_shows(&world, AVAILABLE).await;
    world.event("DND: fokus", "2026-11-23 10:00", "2026-11-23 11:00");
    world.settle().await;
    world.advance_to("2026-11-23 10:00").await;
    until_shows(&world, CLOSED).await;
    world
}

fn actions(world: &World, since: u64, wanted: &str) -> usize {
    let entries = world.sim.journal().since(since);
    entries
        .iter()
        .filter(|entry| matches!(&entry.record, Record::Ami { action, .. } if action == wanted))
        .count()
}

#[tokio::test]
async fn a_write_of_ours_is_not_read_back() {
    let world = in_an_event().await;
    let before = world.sim.journal().last_seq();
    world.advance_to("2026-11-23 11:00").await;
    until_shows(&world, AVAILABLE).await;
    // Events keep their order: once this change is noted, the events of our write were dealt with.
    world.sim.ami().set_by_hand("202", "away", "Lunch", "");
    let noted = async || actions(&world, before, "Getvar") > 0;
    world.until("the change by hand is read", noted).await;
    world.settle().await;
    let of_201 = |entry: &narvaro_sim::Entry| matches!(&entry.record, Record::Ami { action, subject, .. } if action == "Getvar" && subject.contains(EXTENSION));
    let entries = world.sim.journal().since(before);
    assert_eq!(entries.iter().filter(|entry| of_201(entry)).count(), 0);
    assert!(actions(&world, before, "Setvar") >= 2);
    world.end().await;
}

#[tokio::test]
async fn a_pbx_that_lost_everything_is_told_again() {
    let world = in_an_event().await;
    world.sim.ami().restart(true);
    until_up(&world).await;
    until_shows(&world, CLOSED).await;
    world.advance_to("2026-11-23 11:00").await;
    until_shows(&world, AVAILABLE).await;
    world.sim.ami().restart(true);
    until_up(&world).await;
    until_shows(&world, AVAILABLE).await;
    world.end().await;
}

#[tokio::test]
async fn clearing_everything_by_hand_while_the_link_stands_is_a_persons_change() {
    let world = in_an_event().await;
    world.sim.ami().set_by_hand(EXTENSION, "not_set", "", "");
    until_noted(&world, "upptagen").await;
    world.sim.ami().set_device_by_hand(LAMP, "NOT_INUSE");
    until_noted(&world, "Tillgänglig").await;
    let gone = "not_set   NOT_INUSE";
    world.advance_to("2026-11-23 10:30").await;
    assert_eq!(shows(&world), gone);
    world.advance_to("2026-11-23 11:00").await;
    until_shows(&world, AVAILABLE).await;
    world.end().await;
}

#[tokio::test]
async fn a_persons_change_while_the_link_is_cut_is_respected() {
    let world = in_an_event().await;
    world.sim.ami().turn(|knobs| knobs.down = true);
    world.sim.ami().cut();
    world.until("the loss is noticed", async || link(&world).await != PbxLink::Up).await;
    world.sim.ami().set_by_hand(EXTENSION, "away", "Lunch", "");
    world.sim.ami().turn(|knobs| knobs.down = false);
    until_up(&world).await;
    until_noted(&world, "Lunch").await;
    world.advance_to("2026-11-23 10:30").await;
    assert_eq!(shows(&world), "away Lunch  BUSY");
    world.advance_to("2026-11-23 11:00").await;
    until_shows(&world, AVAILABLE).await;
    world.end().await;
}

#[tokio::test]
async fn a_write_that_was_made_by_half_is_finished_and_not_taken_for_a_persons() {
    let mut world = World::with(Pbx::Asterisk).await;
    until_shows(&world, AVAILABLE).await;
    world.event("DND: fokus", "2026-11-23 10:00", "2026-11-23 11:00");
    world.settle().await;
    // The lamp is set, the presence is not; then the link breaks and everything is read back.
    world.sim.ami().turn(|knobs| knobs.fail_setvar = 1);
    world.advance_to("2026-11-23 10:00").await;
    assert_eq!(shows(&world), "available Tillgänglig  BUSY");
    world.sim.ami().cut();
    world.until("the loss is noticed", async || link(&world).await != PbxLink::Up).await;
    until_up(&world).await;
    until_shows(&world, CLOSED).await;
    world.advance_to("2026-11-23 11:00").await;
    until_shows(&world, AVAILABLE).await;
    // The simulator complains of every refusal, of the one that it was told to make too.
    let complaints = world.sim.violations();
    let refusal = |entry: &narvaro_sim::Entry| matches!(&entry.record, Record::Violation { rule, .. } if *rule == "ami-refused-setvar");
    assert!(complaints.len() == 1 && refusal(&complaints[0]), "{complaints:#?}");
    world.stop().await;
}

#[tokio::test]
async fn what_a_crash_took_back_is_written_again() {
    let world = in_an_event().await;
    world.sim.ami().turn(|knobs| knobs.down = true);
    world.sim.ami().cut();
    world.until("the loss is noticed", async || link(&world).await != PbxLink::Up).await;
    // As its disk had it a second ago.
    world.sim.ami().set_by_hand(EXTENSION, "available", "Tillgänglig", "");
    world.sim.ami().turn(|knobs| knobs.down = false);
    until_up(&world).await;
    until_shows(&world, CLOSED).await;
    world.end().await;
}

#[tokio::test]
async fn the_same_long_after_our_write_is_a_persons_change() {
    let world = in_an_event().await;
    world.advance_to("2026-11-23 10:10").await;
    world.sim.ami().turn(|knobs| knobs.down = true);
    world.sim.ami().cut();
    world.until("the loss is noticed", async || link(&world).await != PbxLink::Up).await;
    world.sim.ami().set_by_hand(EXTENSION, "available", "Tillgänglig", "");
    world.sim.ami().set_device_by_hand(LAMP, "NOT_INUSE");
    world.sim.ami().turn(|knobs| knobs.down = false);
    until_up(&world).await;
    until_noted(&world, "Tillgänglig").await;
    world.advance_to("2026-11-23 10:30").await;
    assert_eq!(shows(&world), AVAILABLE);
    world.end().await;
}

#[tokio::test]
async fn a_pbx_that_was_away_for_long_is_right_within_seconds_of_its_return() {
    let world = in_an_event().await;
    world.sim.ami().turn(|knobs| knobs.down = true);
    world.sim.ami().restart(true);
    world.until("the loss is noticed", async || link(&world).await != PbxLink::Up).await;
    // In steps, so that it knocks again and again, each time in vain, before the simulator is back.
    for minute in 1..=10 {
        let knocks = at("2026-11-23 10:00") + SignedDuration::from_mins(minute);
        world.advance_to_instant(knocks).await;
        let later = knocks + SignedDuration::from_secs(1);
        world.advance_until("it has knocked", async || world.clock.now() >= later).await;
    }
    world.sim.ami().turn(|knobs| knobs.down = false);
    let took = world.advance_until(CLOSED, async || shows(&world) == CLOSED).await;
    assert!(took.as_secs() <= 10, "{took:#}");
    world.end().await;
}
