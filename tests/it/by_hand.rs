//! A person changes something on the PBX: it is respected, for as long as it is meant to last (I11).

use jiff::SignedDuration;
use narvaro_sim::{EventSpec, PbxPresence};

use crate::world::{ANNA, LIMIT, Pbx, World, at};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn by_hand(profile: &str, text: &str) -> PbxPresence {
    PbxPresence { profile: profile.to_owned(), text: Some(text.to_owned()), ..PbxPresence::default() }
}

/// Sets something by hand on the HTTP PBX, which is noticed within a minute.
async fn set_by_hand(world: &World, profile: &str, text: &str) {
    world.sim.pbx().set_by_hand("acme", "201", by_hand(profile, text));
    world.advance(MINUTE).await;
}

async fn in_a_meeting() -> (World, String) {
    let world = World::new().await;
    let id = world.event("MÖT", "2026-11-23 08:00", "2026-11-23 09:00");
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 09:00");
    (world, id)
}

#[tokio::test]
async fn i11_a_change_by_hand_during_an_event_wins_until_that_event_ends() {
    let (world, _) = in_a_meeting().await;
    set_by_hand(&world, "lunch", "Lunch").await;
    let writes = world.sim.journal().pbx_writes().len();
    // Another event starts, is edited and deleted; the running one is renamed within its profile.
    let other = world.event("Sick", "2026-11-23 08:10", "2026-11-23 08:50");
    world.settle().await;
    world.advance_to("2026-11-23 08:10").await;
    world.patch(&other, EventSpec::new("Sick igen")).await;
    world.sim.delete_event(ANNA, &other).unwrap();
    world.settle().await;
    world.operations().sync_now(narvaro::admin::SyncRequest::default()).await.unwrap();
    world.settle().await;
    for _ in 0..5 {
        world.advance(MINUTE).await;
    }
    assert_eq!(world.anna(), "lunch: Lunch");
    assert_eq!(world.sim.journal().pbx_writes().len(), writes, "nothing is asserted against it");
    world.advance_to("2026-11-23 09:00").await;
    assert_eq!(world.shows("201").profile, "available", "then normal rules");
    world.event("MÖT", "2026-11-23 09:30", "2026-11-23 10:00");
    world.settle().await;
    world.advance_to("2026-11-23 09:30").await;
    assert_eq!(world.shows("201").profile, "meeting");
    world.end().await;
}

#[tokio::test]
async fn i11_a_change_by_hand_survives_a_restart() {
    let (mut world, _) = in_a_meeting().await;
    set_by_hand(&world, "lunch", "Lunch").await;
    world.restart().await;
    world.settle().await;
    world.advance(MINUTE).await;
    assert_eq!(world.anna(), "lunch: Lunch");
    world.restart().await;
    world.settle().await;
    world.advance_to("2026-11-23 09:00").await;
    assert_eq!(world.shows("201").profile, "available");
    world.end().await;
}

#[tokio::test]
async fn i11_a_change_by_hand_that_was_made_while_the_service_was_down_is_respected() {
    let (mut world, _) = in_a_meeting().await;
    world.stop().await;
    world.sim.pbx().set_by_hand("acme", "201", by_hand("lunch", "Lunch"));
    world.start().await;
    world.settle().await;
    assert_eq!(world.anna(), "lunch: Lunch");
    world.advance_to("2026-11-23 09:00").await;
    assert_eq!(world.shows("201").profile, "available");
    world.end().await;
}

#[tokio::test]
async fn i11_a_change_by_hand_ends_with_an_event_that_is_deleted_or_means_something_else() {
    for delete in [true, false] {
        let (world, id) = in_a_meeting().await;
        set_by_hand(&world, "lunch", "Lunch").await;
        assert_eq!(world.anna(), "lunch: Lunch");
        if delete {
            world.sim.delete_event(ANNA, &id).unwrap();
            world.settle().await;
            assert_eq!(world.shows("201").profile, "available");
        } else {
            world.patch(&id, EventSpec::new("DND")).await;
            assert_eq!(world.shows("201").profile, "do-not-disturb");
        }
        world.end().await;
    }
}

#[tokio::test]
async fn i11_a_change_by_hand_lasts_as_long_as_its_event_is_made_to() {
    let (world, id) = in_a_meeting().await;
    set_by_hand(&world, "lunch", "Lunch").await;
    world.patch(&id, EventSpec::default().at(at("2026-11-23 08:00"), at("2026-11-23 10:00"))).await;
    world.advance_to("2026-11-23 09:30").await;
    assert_eq!(world.anna(), "lunch: Lunch");
    world.advance_to("2026-11-23 10:00").await;
    assert_eq!(world.shows("201").profile, "available");
    world.end().await;
}

#[tokio::test]
async fn i11_what_was_set_by_hand_before_an_event_is_put_back_as_it_was_found() {
    let mut world = World::new().await;
    set_by_hand(&world, "handmade", "Ring mobilen").await;
    assert_eq!(world.anna(), "handmade: Ring mobilen");
    world.event("MÖT", "2026-11-23 09:00", "2026-11-23 10:00");
    world.settle().await;
    world.advance_to("2026-11-23 09:00").await;
    assert_eq!(world.anna(), "meeting: Möte till 10:00");
    world.restart().await;
    world.settle().await;
    world.advance_to("2026-11-23 10:00").await;
    assert_eq!(world.anna(), "handmade: Ring mobilen");
    world.end().await;
}

#[tokio::test]
async fn i11_a_pbx_that_lost_everything_while_the_service_was_down_is_told_again() {
    let (mut world, _) = in_a_meeting().await;
    world.stop().await;
    world.sim.pbx().wipe("acme");
    world.start().await;
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 09:00");
    world.end().await;
}

#[tokio::test]
async fn i11_a_change_by_hand_on_an_asterisk_is_seen_at_once_and_respected() {
    let mut world = World::with(Pbx::Asterisk).await;
    let shows = async |world: &World, state: &str| {
        assert!(
            world.sim.ami().until("201", LIMIT, |shown| shown.state == state).await,
            "{:?}",
            world.sim.ami().presence("201")
        );
        world.settle().await;
    };
    let id = world.event("MÖT", "2026-11-23 08:00", "2026-11-23 09:00");
    shows(&world, "away").await;
    world.sim.ami().set_by_hand("201", "dnd", "", "Stör inte");
    world
        .until("the change is noticed", async || world.explained("201").await.details["override"].is_object())
        .await;
    world.settle().await;
    let other = world.event("Sick", "2026-11-23 08:10", "2026-11-23 08:50");
    world.settle().await;
    world.advance_to("2026-11-23 08:10").await;
    world.sim.delete_event(ANNA, &other).unwrap();
    world.patch(&id, EventSpec::new("MÖT igen")).await;
    world.restart().await;
    assert!(world.sim.ami().until_sessions(1, LIMIT).await);
    world.settle().await;
    let shown = world.sim.ami().presence("201");
    assert_eq!((shown.state.as_str(), shown.message.as_str()), ("dnd", "Stör inte"));
    world.advance_to("2026-11-23 09:00").await;
    shows(&world, "available").await;
    world.event("Lunch", "2026-11-23 08:55", "2026-11-23 10:00");
    shows(&world, "away").await;
    world.end().await;
}
