//! The calendar is taken away by somebody's decision, and given back: consent, permission, policy, licence, address.

use jiff::SignedDuration;
use narvaro::admin::SyncRequest;
use narvaro_sim::{EventSpec, MailboxKind, UserSpec};

use crate::world::{ANNA, CLIENT_ID, World, at};

const BO: &str = "bo@acme.example";

async fn sync(world: &World) {
    world.operations().sync_now(SyncRequest::default()).await.unwrap();
    world.settle().await;
}

/// `acme`, Anna and Bo on holiday for a week.
async fn on_holiday() -> World {
    let world = World::new().await;
    for alias in [ANNA, BO] {
        let spec = EventSpec::new("HOL").at(at("2026-11-23 07:30"), at("2026-11-30 17:00"));
        world.sim.add_event(alias, spec).unwrap();
    }
    world.settle().await;
    assert_eq!(shown(&world), ["holiday", "holiday"]);
    world
}

fn shown(world: &World) -> [String; 2] {
    ["201", "202"].map(|extension| world.shows(extension).profile)
}

/// Lets a day go by since now, and asserts that the phones keep `before` until its very end and then show `after`.
async fn a_day_later(world: &World, before: [&str; 2], after: [&str; 2]) {
    let ends = world.now() + SignedDuration::from_hours(24);
    for _ in 0..23 {
        world.advance(SignedDuration::from_hours(1)).await;
        assert_eq!(shown(world), before, "at {}", world.now());
    }
    world.advance_to_instant(ends - SignedDuration::from_secs(1)).await;
    assert_eq!(shown(world), before);
    world.advance_to_instant(ends).await;
    assert_eq!(shown(world), after);
}

#[tokio::test]
async fn without_consent_the_timetable_is_kept_for_a_day_then_let_go_and_comes_back_with_consent() {
    let world = on_holiday().await;
    world.sim.revoke_consent(&world.tenant, CLIENT_ID, true).unwrap();
    sync(&world).await;
    world.expect_trouble("consent_withdrawn").await;
    assert_eq!(world.company_health().await, "consent_withdrawn");
    a_day_later(&world, ["holiday"; 2], ["available"; 2]).await;
    world.advance(SignedDuration::from_hours(5)).await;
    assert_eq!(shown(&world), ["available"; 2], "it stays so");
    world.consent("acme").await;
    world.settle().await;
    assert_eq!(shown(&world), ["holiday"; 2]);
    assert_eq!((world.health().await, world.company_health().await), ("fine".into(), "fine".into()));
    // The day begins anew the next time.
    world.sim.revoke_consent(&world.tenant, CLIENT_ID, true).unwrap();
    sync(&world).await;
    a_day_later(&world, ["holiday"; 2], ["available"; 2]).await;
    world.end().await;
}

#[tokio::test]
async fn consent_that_comes_back_by_itself_within_the_day_is_noticed_and_nothing_moves() {
    let world = on_holiday().await;
    let writes = world.sim.journal().pbx_writes().len();
    world.sim.revoke_consent(&world.tenant, CLIENT_ID, true).unwrap();
    sync(&world).await;
    world.advance(SignedDuration::from_hours(20)).await;
    world.expect_trouble("consent_withdrawn").await;
    world.sim.consent(&world.tenant, CLIENT_ID).unwrap();
    for _ in 0..8 {
        world.advance(SignedDuration::from_hours(1)).await;
    }
    assert_eq!(world.health().await, "fine");
    assert_eq!(
        (shown(&world), world.sim.journal().pbx_writes().len()),
        (["holiday".into(), "holiday".into()], writes)
    );
    world.end().await;
}

#[tokio::test]
async fn a_restart_does_not_begin_the_day_anew() {
    let mut world = on_holiday().await;
    world.sim.revoke_consent(&world.tenant, CLIENT_ID, true).unwrap();
    sync(&world).await;
    let ends = world.now() + SignedDuration::from_hours(24);
    world.advance(SignedDuration::from_hours(20)).await;
    world.restart().await;
    world.settle().await;
    world.advance_to_instant(ends - SignedDuration::from_secs(1)).await;
    assert_eq!(shown(&world), ["holiday"; 2]);
    world.advance_to_instant(ends).await;
    assert_eq!(shown(&world), ["available"; 2]);
    world.end().await;
}

#[tokio::test]
async fn a_permission_withdrawn_from_all_is_a_consent_withdrawn() {
    let world = on_holiday().await;
    world.sim.withdraw_permission(&world.tenant, CLIENT_ID, "Calendars.Read").unwrap();
    world.sim.expire_tokens();
    world.advance(SignedDuration::from_hours(1)).await;
    sync(&world).await;
    world.expect_trouble("access_denied").await;
    assert_eq!(world.company_health().await, "consent_withdrawn");
    a_day_later(&world, ["holiday"; 2], ["available"; 2]).await;
    world.sim.consent(&world.tenant, CLIENT_ID).unwrap();
    world.sim.expire_tokens();
    world.advance(SignedDuration::from_hours(2)).await;
    assert_eq!(shown(&world), ["holiday"; 2]);
    assert_eq!((world.health().await, world.company_health().await), ("fine".into(), "fine".into()));
    world.end().await;
}

#[tokio::test]
async fn a_policy_that_narrows_lets_go_of_the_one_and_not_of_the_other() {
    let world = on_holiday().await;
    world.sim.set_mailbox(ANNA, MailboxKind::Denied).unwrap();
    sync(&world).await;
    world.expect_trouble("access_denied").await;
    assert_eq!(world.company_health().await, "fine", "it is one mailbox alone");
    a_day_later(&world, ["holiday"; 2], ["available", "holiday"]).await;
    world.sim.set_mailbox(ANNA, MailboxKind::Licensed).unwrap();
    world.advance(SignedDuration::from_mins(45)).await;
    assert_eq!((world.health().await, shown(&world)), ("fine".into(), ["holiday".into(), "holiday".into()]));
    world.end().await;
}

#[tokio::test]
async fn a_mailbox_that_moved_away_is_let_go_and_watched_anew_when_it_is_back() {
    let world = on_holiday().await;
    world.sim.set_mailbox(ANNA, MailboxKind::NoMailbox).unwrap();
    sync(&world).await;
    world.expect_trouble("no_mailbox").await;
    a_day_later(&world, ["holiday"; 2], ["available", "holiday"]).await;
    world.sim.set_mailbox(ANNA, MailboxKind::Licensed).unwrap();
    world.advance(SignedDuration::from_mins(45)).await;
    assert_eq!((world.health().await, shown(&world)), ("fine".into(), ["holiday".into(), "holiday".into()]));
    assert_eq!(world.subscriptions(ANNA).len(), 1);
    world.end().await;
}

#[tokio::test]
async fn graph_that_is_only_away_takes_nothing_from_the_phones() {
    let world = on_holiday().await;
    world.sim.fault(narvaro_sim::Fault::lasting(narvaro_sim::FaultKind::Drop));
    for _ in 0..30 {
        world.advance(SignedDuration::from_hours(1)).await;
    }
    world.expect_trouble("graph_unreachable").await;
    assert_eq!(shown(&world), ["holiday"; 2]);
    world.sim.clear_faults();
    world.advance(SignedDuration::from_mins(10)).await;
    assert_eq!(world.health().await, "fine");
    world.end().await;
}

/// Time enough for the subscription to be renewed, with which the alias is looked up.
async fn until_renewed(world: &World) {
    for _ in 0..5 {
        world.advance(SignedDuration::from_hours(24)).await;
    }
}

#[tokio::test]
async fn a_user_who_is_renamed_and_keeps_the_address_is_told_of() {
    let world = on_holiday().await;
    world.sim.rename_user(ANNA, "anna.berg@acme.example", true).unwrap();
    until_renewed(&world).await;
    world.expect_trouble("alias_not_primary").await;
    assert_eq!(shown(&world), ["holiday"; 2]);
    world.sim.rename_user(ANNA, ANNA, true).unwrap();
    sync(&world).await;
    assert_eq!(world.health().await, "fine");
    world.end().await;
}

#[tokio::test]
async fn a_user_who_is_renamed_and_loses_the_address_is_followed_and_told_of() {
    let world = on_holiday().await;
    let anna = world.sim.user_id(ANNA).unwrap();
    world.sim.rename_user(ANNA, "anna.berg@acme.example", false).unwrap();
    until_renewed(&world).await;
    world.expect_trouble("alias_changed").await;
    assert_eq!(shown(&world), ["holiday"; 2], "the calendar is hers still");
    let now = world.now();
    world.sim.add_event(&anna, EventSpec::new("Sick").at(now, now + SignedDuration::from_mins(10))).unwrap();
    world.settle().await;
    assert_eq!(world.shows("201").profile, "sick");
    let users = [("201", "anna.berg@acme.example", ""), ("202", BO, "")];
    world.apply(&world.file("acme", "", "", &world.http_pbx("acme"), &users)).await;
    world.settle().await;
    assert_eq!(world.health().await, "fine");
    assert_eq!(world.subscriptions(&anna).len(), 1);
    world.end().await;
}

#[tokio::test]
async fn what_kept_the_subscription_is_over_as_soon_as_consent_is_back() {
    let world = on_holiday().await;
    world.sim.revoke_consent(&world.tenant, CLIENT_ID, true).unwrap();
    until_renewed(&world).await;
    world.expect_trouble("consent_withdrawn").await;
    world.consent("acme").await;
    world.settle().await;
    assert_eq!((world.health().await, world.company_health().await), ("fine".into(), "fine".into()));
    world.end().await;
}

#[tokio::test]
async fn an_address_that_a_second_user_has_too_is_told_and_the_first_is_followed() {
    let world = on_holiday().await;
    let second = UserSpec { proxies: vec![ANNA.to_owned()], ..UserSpec::new("anna.berg@acme.example") };
    let second = world.sim.add_user(&world.tenant, second).unwrap();
    until_renewed(&world).await;
    world.expect_trouble("ambiguous_alias").await;
    assert_eq!(shown(&world), ["holiday"; 2]);
    world.sim.remove_user(&second).unwrap();
    sync(&world).await;
    assert_eq!((world.health().await, shown(&world)), ("fine".into(), ["holiday".into(), "holiday".into()]));
    world.end().await;
}

#[tokio::test]
async fn an_address_that_went_to_a_successor_leads_to_the_successors_calendar() {
    let world = on_holiday().await;
    let anna = world.sim.user_id(ANNA).unwrap();
    world.sim.rename_user(ANNA, "anna.berg@acme.example", false).unwrap();
    let eva = world.sim.add_user(&world.tenant, UserSpec::new(ANNA)).unwrap();
    until_renewed(&world).await;
    assert_eq!((world.subscriptions(&anna).len(), world.subscriptions(&eva).len()), (0, 1));
    assert_eq!(shown(&world), ["available", "holiday"], "it is not the successor's holiday");
    let now = world.now();
    world.sim.add_event(&eva, EventSpec::new("Sick").at(now, now + SignedDuration::from_mins(10))).unwrap();
    world.settle().await;
    assert_eq!((world.shows("201").profile, world.health().await), ("sick".into(), "fine".into()));
    world.end().await;
}
