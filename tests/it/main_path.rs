//! The main job: a calendar event moves a phone.

use crate::world::{World, at};

#[tokio::test]
async fn an_event_moves_the_phone_at_its_start_and_back_at_its_end() {
    let world = World::new().await;
    assert_eq!(world.shows("201").profile, "available");
    world.event("MÖT: budget", "2026-11-23 10:00", "2026-11-23 11:00");
    world.settle().await;
    assert_eq!(world.shows("201").profile, "available", "not before it starts");
    world.advance_to("2026-11-23 10:00").await;
    world.until_shows("201", "meeting").await;
    let shown = world.shows("201");
    assert_eq!(shown.text.as_deref(), Some("Möte till 11:00"));
    assert_eq!(shown.until.as_deref(), Some(at("2026-11-23 11:00").to_string().as_str()));
    assert_eq!(world.shows("202").profile, "available");
    world.advance_to("2026-11-23 11:00").await;
    world.until_shows("201", "available").await;
    world.end().await;
}
