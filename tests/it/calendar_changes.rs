//! What people do to their calendars while the service runs, through the whole path: notification, read, decision,
//! presence at the PBX.

use jiff::civil::date;
use narvaro_sim::{EventSpec, Response, Sensitivity, SeriesSpec, ShowAs};

use crate::world::{ANNA, World, at};

const AVAILABLE: &str = "available: Tillgänglig";

/// A world at 10:15, in the middle of Anna's meeting from 10:00 to 11:00; the meeting's id.
async fn in_a_meeting() -> (World, String) {
    let world = World::new().await;
    let id = world.event("MÖT: budget", "2026-11-23 10:00", "2026-11-23 11:00");
    world.settle().await;
    world.advance_to("2026-11-23 10:00").await;
    world.advance_to("2026-11-23 10:15").await;
    assert_eq!(world.anna(), "meeting: Möte till 11:00");
    (world, id)
}

#[tokio::test]
async fn an_event_that_is_made_while_it_runs_shows_at_once() {
    let world = World::new().await;
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 09:00");
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 09:00");
    assert_eq!(world.shows("202").profile, "available", "nobody else is concerned");
    world.end().await;
}

#[tokio::test]
async fn an_extended_event_shows_its_new_end_and_lasts_until_then() {
    let (world, id) = in_a_meeting().await;
    let longer = EventSpec::default().at(at("2026-11-23 10:00"), at("2026-11-23 12:00"));
    world.patch(&id, longer).await;
    assert_eq!(world.anna(), "meeting: Möte till 12:00");
    world.advance_to("2026-11-23 11:00").await;
    assert_eq!(world.anna(), "meeting: Möte till 12:00");
    world.advance_to("2026-11-23 12:00").await;
    assert_eq!(world.anna(), AVAILABLE);
    world.end().await;
}

#[tokio::test]
async fn an_event_that_is_cut_to_the_past_ends_at_once() {
    let (world, id) = in_a_meeting().await;
    world.patch(&id, EventSpec::default().at(at("2026-11-23 10:00"), at("2026-11-23 10:10"))).await;
    assert_eq!(world.anna(), AVAILABLE);
    world.end().await;
}

#[tokio::test]
async fn an_event_that_is_moved_to_later_ends_at_once_and_comes_back() {
    let (world, id) = in_a_meeting().await;
    world.patch(&id, EventSpec::default().at(at("2026-11-23 13:00"), at("2026-11-23 14:00"))).await;
    assert_eq!(world.anna(), AVAILABLE);
    world.advance_to("2026-11-23 13:00").await;
    assert_eq!(world.anna(), "meeting: Möte till 14:00");
    world.advance_to("2026-11-23 14:00").await;
    assert_eq!(world.anna(), AVAILABLE);
    world.end().await;
}

#[tokio::test]
async fn a_deleted_event_ends_at_once() {
    let (world, id) = in_a_meeting().await;
    world.sim.delete_event(ANNA, &id).unwrap();
    world.settle().await;
    assert_eq!(world.anna(), AVAILABLE);
    world.end().await;
}

#[tokio::test]
async fn a_cancelled_event_ends_at_once() {
    let (world, id) = in_a_meeting().await;
    world.sim.cancel_event(ANNA, &id).unwrap();
    world.settle().await;
    assert_eq!(world.anna(), AVAILABLE);
    world.end().await;
}

#[tokio::test]
async fn a_renamed_event_is_matched_anew() {
    let (world, id) = in_a_meeting().await;
    world.patch(&id, EventSpec::new("Lunch med Bo")).await;
    assert_eq!(world.anna(), "lunch: Lunch till 11:00");
    world.patch(&id, EventSpec::new("Budget")).await;
    assert_eq!(world.anna(), AVAILABLE, "no word, no profile");
    world.patch(&id, EventSpec::new("möt, igen")).await;
    assert_eq!(world.anna(), "meeting: Möte till 11:00");
    world.end().await;
}

#[tokio::test]
async fn back_to_back_events_of_one_profile_are_one_state_without_a_gap() {
    let world = World::new().await;
    world.event("MÖT ett", "2026-11-23 10:00", "2026-11-23 11:00");
    world.event("MÖT två", "2026-11-23 11:00", "2026-11-23 12:00");
    world.settle().await;
    let before = world.sim.journal().pbx_writes().len();
    for (time, shows) in [
        ("2026-11-23 10:00", "meeting: Möte till 12:00"),
        ("2026-11-23 11:00", "meeting: Möte till 12:00"),
        ("2026-11-23 12:00", AVAILABLE),
    ] {
        world.advance_to(time).await;
        assert_eq!(world.anna(), shows, "at {time}");
    }
    let profiles: Vec<String> =
        world.sim.journal().pbx_writes().split_off(before).into_iter().map(|write| write.profile).collect();
    assert_eq!(profiles, ["meeting", "available"]);
    world.end().await;
}

#[tokio::test]
async fn where_events_overlap_the_higher_profile_shows_and_the_other_returns() {
    let world = World::new().await;
    world.event("MÖT", "2026-11-23 10:00", "2026-11-23 12:00");
    world.event("Lunch", "2026-11-23 10:30", "2026-11-23 11:30");
    world.settle().await;
    for (time, shows) in [
        ("2026-11-23 10:00", "meeting: Möte till 10:30"),
        ("2026-11-23 10:30", "lunch: Lunch till 11:30"),
        ("2026-11-23 11:30", "meeting: Möte till 12:00"),
        ("2026-11-23 12:00", AVAILABLE),
    ] {
        world.advance_to(time).await;
        assert_eq!(world.anna(), shows, "at {time}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_whole_day_is_one_of_the_mailboxs_own_zone() {
    let world = World::new().await;
    // UTC+2, an hour ahead of the company: the day begins at 23:00 by the company's clocks.
    world.sim.set_time_zone(ANNA, "FLE Standard Time").unwrap();
    world.advance_to("2026-11-23 09:00").await;
    world.add(EventSpec::new("HOL").all_day(date(2026, 11, 25), 1));
    world.settle().await;
    world.advance_to("2026-11-24 22:59").await;
    assert_eq!(world.shows("201").profile, "available");
    world.advance_to("2026-11-24 23:00").await;
    assert_eq!(world.shows("201").profile, "holiday");
    world.advance_to("2026-11-25 22:59").await;
    assert_eq!(world.shows("201").profile, "holiday");
    world.advance_to("2026-11-25 23:00").await;
    assert_eq!(world.shows("201").profile, "available");
    world.end().await;
}

#[tokio::test]
async fn a_series_steers_by_each_occurrence_with_its_exceptions() {
    let world = World::new().await;
    let spec = EventSpec::new("MÖT: morgon").at(at("2026-11-23 09:00"), at("2026-11-23 09:30"));
    let master = world.add(spec.series(SeriesSpec::daily(4)));
    world.settle().await;
    let moved = world.sim.occurrence(ANNA, &master, date(2026, 11, 24)).unwrap().id;
    world.patch(&moved, EventSpec::default().at(at("2026-11-24 13:00"), at("2026-11-24 13:30"))).await;
    let gone = world.sim.occurrence(ANNA, &master, date(2026, 11, 25)).unwrap().id;
    world.sim.delete_event(ANNA, &gone).unwrap();
    world.settle().await;
    for (time, profile) in [
        ("2026-11-23 09:00", "meeting"),
        ("2026-11-23 09:30", "available"),
        ("2026-11-24 09:00", "available"),
        ("2026-11-24 13:00", "meeting"),
        ("2026-11-24 13:30", "available"),
        ("2026-11-25 09:10", "available"),
        ("2026-11-26 09:00", "meeting"),
        ("2026-11-26 09:30", "available"),
        ("2026-11-27 09:10", "available"),
    ] {
        world.advance_to(time).await;
        assert_eq!(world.shows("201").profile, profile, "at {time}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_series_that_is_deleted_during_an_occurrence_ends_at_once() {
    let world = World::new().await;
    let spec = EventSpec::new("MÖT: morgon").at(at("2026-11-23 07:30"), at("2026-11-23 09:30"));
    let master = world.add(spec.series(SeriesSpec::daily(4)));
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 09:30");
    world.sim.delete_event(ANNA, &master).unwrap();
    world.settle().await;
    assert_eq!(world.anna(), AVAILABLE);
    world.advance_to("2026-11-24 08:00").await;
    assert_eq!(world.anna(), AVAILABLE);
    world.end().await;
}

#[tokio::test]
async fn an_event_in_another_calendar_of_the_same_user_does_not_count() {
    let world = World::new().await;
    let spec = EventSpec::new("MÖT").at(at("2026-11-23 07:30"), at("2026-11-23 09:30"));
    world.add(spec.clone().in_secondary_calendar());
    world.settle().await;
    assert_eq!(world.anna(), AVAILABLE);
    world.add(spec);
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 09:30", "the same in the default calendar does");
    world.end().await;
}

#[tokio::test]
async fn an_occurrence_with_a_word_in_another_calendar_does_not_count_though_its_series_has_none() {
    let world = World::new().await;
    let spec = EventSpec::new("Avstämning").at(at("2026-11-22 07:30"), at("2026-11-22 09:30"));
    let master = world.add(spec.series(SeriesSpec::daily(4)).in_secondary_calendar());
    world.settle().await;
    let today = world.sim.occurrence(ANNA, &master, date(2026, 11, 23)).unwrap().id;
    world.sim.patch_event(ANNA, &today, EventSpec::new("MÖT")).unwrap();
    world.settle().await;
    assert_eq!(world.anna(), AVAILABLE);
    world.end().await;
}

#[tokio::test]
async fn a_private_event_counts_and_so_does_a_free_one_of_ones_own() {
    let world = World::new().await;
    let spec = EventSpec::new("MÖT hos läkaren").at(at("2026-11-23 07:30"), at("2026-11-23 08:30"));
    world.add(spec.sensitivity(Sensitivity::Private));
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 08:30");
    let spec = EventSpec::new("Lunch").at(at("2026-11-23 08:30"), at("2026-11-23 09:00"));
    world.add(spec.show_as(ShowAs::Free));
    world.settle().await;
    world.advance_to("2026-11-23 08:30").await;
    assert_eq!(world.anna(), "lunch: Lunch till 09:00");
    world.end().await;
}

#[tokio::test]
async fn an_invitation_steers_from_when_it_is_accepted_until_it_is_declined() {
    let world = World::new().await;
    let spec = EventSpec::new("MÖT").at(at("2026-11-23 07:30"), at("2026-11-23 09:30"));
    let id = world.add(spec.invited_by("bo@acme.example", Response::NotResponded));
    world.settle().await;
    assert_eq!(world.anna(), AVAILABLE);
    for (response, shows) in [
        (Response::TentativelyAccepted, AVAILABLE),
        (Response::Accepted, "meeting: Möte till 09:30"),
        (Response::Declined, AVAILABLE),
    ] {
        world.sim.respond(ANNA, &id, response).unwrap();
        world.settle().await;
        assert_eq!(world.anna(), shows, "{response:?}");
    }
    world.end().await;
}

#[tokio::test]
async fn an_outside_organiser_cannot_change_the_profile_of_an_accepted_invitation() {
    let world = World::new().await;
    let spec = EventSpec::new("MÖT").at(at("2026-11-23 07:30"), at("2026-11-23 09:30"));
    let id = world.add(spec.invited_by("mallory@elsewhere.example", Response::Accepted));
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 09:30");
    world.patch(&id, EventSpec::new("Sick")).await;
    assert_eq!(world.anna(), "meeting: Möte till 09:30", "the profile is held");
    world.patch(&id, EventSpec::default().at(at("2026-11-23 07:30"), at("2026-11-23 10:00"))).await;
    assert_eq!(world.anna(), "meeting: Möte till 10:00", "times are followed");
    // After a complete read it is held too.
    world.advance_to("2026-11-23 09:59").await;
    let asked = narvaro::admin::SyncRequest::default();
    world.operations().sync_now(asked).await.unwrap();
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 10:00");
    world.end().await;
}

#[tokio::test]
async fn a_word_inside_another_word_does_nothing() {
    let world = World::new().await;
    for subject in ["Stockholm", "Bemöta", "Plunch", "mot förmodan", "Holmen"] {
        world.event(subject, "2026-11-23 07:30", "2026-11-23 09:30");
    }
    world.settle().await;
    assert_eq!(world.anna(), AVAILABLE);
    world.event("HOL i Stockholm", "2026-11-23 07:30", "2026-11-23 09:30");
    world.settle().await;
    assert_eq!(world.shows("201").profile, "holiday");
    world.end().await;
}

#[tokio::test]
async fn many_changes_at_once_come_to_what_the_calendar_says_in_the_end() {
    let world = World::new().await;
    // More items than are read one by one.
    let ids: Vec<String> = (0..40)
        .map(|n| world.event(&format!("MÖT {n}"), "2026-11-23 07:30", &format!("2026-11-23 09:{n:02}")))
        .collect();
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 09:39");
    for id in &ids[1..] {
        world.sim.delete_event(ANNA, id).unwrap();
    }
    world.settle().await;
    assert_eq!(world.anna(), "meeting: Möte till 09:00");
    world.end().await;
}
