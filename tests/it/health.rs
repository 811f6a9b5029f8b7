//! Each thing that can stand in the way is brought about, told with cause and cure, and mended.

use jiff::SignedDuration;
use narvaro::{
    admin::{PbxLink, Scope, SyncRequest},
    model::Language,
};
use narvaro_sim::{
    AppSpec, EventSpec, Fault, FaultFilter, FaultKind, MailboxKind, PbxAuth, PbxFault, UserKind, UserSpec,
};

use crate::world::{ANNA, CLIENT_ID, Pbx, SECRET, World, at};

const A_WHILE: SignedDuration = SignedDuration::from_mins(45);

async fn sync(world: &World) {
    world.operations().sync_now(SyncRequest::default()).await.unwrap();
    world.settle().await;
}

/// Time goes by and the mailbox stands well again; a new event then moves the phone.
async fn mended(world: &World) {
    world.advance(A_WHILE).await;
    assert_eq!(world.health().await, "fine");
    let now = world.now();
    world.add(EventSpec::new("Sick").at(now, now + SignedDuration::from_mins(5)));
    world.settle().await;
    assert_eq!(world.shows("201").profile, "sick");
}

fn app(world: &World, secret: &str) {
    let mut app = AppSpec::new(CLIENT_ID, secret);
    app.redirect_uris = vec![format!("{}/consent/callback", world.public_url())];
    world.sim.add_app(app).unwrap();
}

#[tokio::test]
async fn a_wrong_client_secret() {
    let world = World::new().await;
    app(&world, "the secret was changed at Microsoft");
    world.sim.expire_tokens();
    world.advance(SignedDuration::from_hours(2)).await;
    sync(&world).await;
    world.expect_trouble("wrong_credentials").await;
    let health = world.mailbox("acme", "201").await.health;
    assert!(format!("{health:?}").contains("7000215"), "Microsoft's number helps its support: {health:?}");
    app(&world, SECRET);
    mended(&world).await;
    world.end().await;
}

#[tokio::test]
async fn an_alias_that_nobody_has() {
    let world = World::bare().await;
    world.apply(&world.file("acme", "", "", &world.http_pbx("acme"), &[("201", ANNA, "")])).await;
    world.consent("acme").await;
    world.settle().await;
    world.expect_trouble("unknown_alias").await;
    world.sim.add_user(&world.tenant, UserSpec::new(ANNA)).unwrap();
    mended(&world).await;
    world.end().await;
}

#[tokio::test]
async fn a_mailbox_without_a_licence() {
    let world = World::new().await;
    world.sim.set_mailbox(ANNA, MailboxKind::NoMailbox).unwrap();
    sync(&world).await;
    world.expect_trouble("no_mailbox").await;
    world.sim.set_mailbox(ANNA, MailboxKind::Licensed).unwrap();
    mended(&world).await;
    world.end().await;
}

#[tokio::test]
async fn a_guest() {
    let world = World::bare().await;
    let spec = UserSpec { kind: UserKind::Guest, mailbox: MailboxKind::NoMailbox, ..UserSpec::new(ANNA) };
    world.sim.add_user(&world.tenant, spec).unwrap();
    world.apply(&world.file("acme", "", "", &world.http_pbx("acme"), &[("201", ANNA, "")])).await;
    world.consent("acme").await;
    world.settle().await;
    world.expect_trouble("no_mailbox").await;
    let calls = world.sim.journal().graph_calls().len();
    world.advance(SignedDuration::from_hours(2)).await;
    let more = world.sim.journal().graph_calls().len() - calls;
    assert!(more <= 20, "no storm: {more} calls in two hours");
    world.end().await;
}

#[tokio::test]
async fn a_mailbox_that_a_policy_keeps_from_us() {
    let world = World::new().await;
    world.sim.set_mailbox(ANNA, MailboxKind::Denied).unwrap();
    sync(&world).await;
    world.expect_trouble("access_denied").await;
    assert_eq!(world.mailbox("acme", "202").await.health.health.name(), "fine");
    world.sim.set_mailbox(ANNA, MailboxKind::Licensed).unwrap();
    mended(&world).await;
    world.end().await;
}

#[tokio::test]
async fn a_permission_taken_out_of_the_grant() {
    let world = World::new().await;
    world.sim.withdraw_permission(&world.tenant, CLIENT_ID, "Calendars.Read").unwrap();
    world.advance(SignedDuration::from_hours(2)).await;
    sync(&world).await;
    world.expect_trouble("access_denied").await;
    world.sim.consent(&world.tenant, CLIENT_ID).unwrap();
    world.advance(SignedDuration::from_hours(2)).await;
    mended(&world).await;
    world.end().await;
}

#[tokio::test]
async fn a_user_who_was_removed_from_the_directory() {
    let world = World::new().await;
    let spec = EventSpec::new("MÖT").at(at("2026-11-23 07:30"), at("2026-11-23 09:00"));
    world.add(spec);
    world.settle().await;
    world.sim.remove_user(ANNA).unwrap();
    sync(&world).await;
    let health = world.health().await;
    assert!(["user_gone", "unknown_alias"].contains(&health.as_str()), "{health}");
    world.expect_trouble(&health).await;
    world.advance_to("2026-11-23 09:00").await;
    assert_eq!(world.shows("201").profile, "available", "the phone does not stay behind");
    // The same person, created anew, is another object.
    world.sim.add_user(&world.tenant, UserSpec::new(ANNA)).unwrap();
    mended(&world).await;
    assert_eq!(world.subscriptions(ANNA).len(), 1);
    world.end().await;
}

#[tokio::test]
async fn graph_out_of_reach() {
    let world = World::new().await;
    world.sim.fault(Fault::lasting(FaultKind::Drop));
    sync(&world).await;
    world.expect_trouble("graph_unreachable").await;
    world.sim.clear_faults();
    mended(&world).await;
    world.end().await;
}

#[tokio::test]
async fn an_http_pbx_that_does_not_answer() {
    let world = World::new().await;
    world.sim.pbx().fault("acme", 100_000, PbxFault::Drop);
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 16:00");
    world.pass(30).await;
    world.expect_trouble("pbx_unreachable").await;
    world.sim.pbx().clear_faults("acme");
    world.pass(120).await;
    assert_eq!(world.shows("201").profile, "meeting", "made up for as soon as it is back");
    mended(&world).await;
    world.end().await;
}

#[tokio::test]
async fn an_http_pbx_that_does_not_accept_our_credentials() {
    let world = World::new().await;
    let auth = PbxAuth::Bearer { token: "another".to_owned() };
    world.sim.pbx().set_auth("acme", auth);
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 16:00");
    world.pass(5).await;
    world.expect_trouble("pbx_denied").await;
    world.sim.pbx().set_auth("acme", PbxAuth::None);
    mended(&world).await;
    world.end().await;
}

#[tokio::test]
async fn an_asterisk_that_is_away() {
    let world = World::with(Pbx::Asterisk).await;
    let link = async || {
        let status = world.operations().status(Scope::default()).await.unwrap();
        status.companies.into_iter().next().unwrap()
    };
    assert_eq!(link().await.pbx, PbxLink::Up);
    world.sim.ami().turn(|knobs| knobs.down = true);
    world.sim.ami().cut();
    world.until("the link is down", async || matches!(link().await.pbx, PbxLink::Down { .. })).await;
    let health = link().await.health;
    assert_eq!(health.health.name(), "pbx_unreachable");
    assert!(!health.cause.is_empty() && !health.cure.is_empty());
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 16:00");
    world.settle().await;
    world.expect_trouble("pbx_unreachable").await;
    world.sim.ami().turn(|knobs| knobs.down = false);
    world.pass(120).await;
    world.until("the link is up", async || link().await.pbx == PbxLink::Up).await;
    world.settle().await;
    assert_eq!(world.sim.ami().presence("201").state, "away", "made up for as soon as it is back");
    assert_eq!(world.health().await, "fine");
    world.end().await;
}

#[tokio::test]
async fn an_asterisk_that_does_not_accept_our_secret() {
    let world = World::with(Pbx::Asterisk).await;
    world.sim.ami().turn(|knobs| knobs.refuse_logins = true);
    world.sim.ami().cut();
    let company = async || world.operations().status(Scope::default()).await.unwrap().companies.remove(0);
    let denied = async || matches!(company().await.pbx, PbxLink::Denied { .. });
    world.advance_until("the login is refused", denied).await;
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 16:00");
    world.settle().await;
    world.expect_trouble("pbx_denied").await;
    assert_eq!(company().await.health.health.name(), "pbx_denied");
    let checks = world.operations().check(Scope::default()).await.unwrap().checks;
    let wrong: Vec<_> = checks.iter().filter(|line| !line.ok).collect();
    assert!(wrong.iter().any(|line| line.what == "acme: PBX"), "{wrong:?}");
    for line in wrong {
        assert!(line.said.starts_with("The PBX does not accept our account"), "{line:?}");
        assert!(line.cure.as_deref().is_some_and(|cure| cure.contains("secret")), "{line:?}");
    }
    world.sim.ami().turn(|knobs| knobs.refuse_logins = false);
    mended_asterisk(&world).await;
    world.end().await;
}

async fn mended_asterisk(world: &World) {
    world.advance(A_WHILE).await;
    let up =
        async || world.operations().status(Scope::default()).await.unwrap().companies[0].pbx == PbxLink::Up;
    world.advance_until("the link is up", up).await;
    assert_eq!(world.sim.ami().presence("201").state, "away");
    assert_eq!(world.health().await, "fine");
}

#[tokio::test]
async fn status_check_and_subscriptions_are_in_the_language_asked_for() {
    let world = World::bare().await;
    world.apply(&world.file("acme", "", "", &world.http_pbx("acme"), &[("201", ANNA, "")])).await;
    world.settle().await;
    let operations = world.operations();
    for (language, cause) in [
        (None, "The company's administrator has not given consent"),
        (Some(Language::En), "The company's administrator has not given consent"),
        (Some(Language::Sv), "Företagets administratör har inte gett sitt medgivande"),
    ] {
        let scope = || Scope { company: None, language };
        let company = operations.status(scope()).await.unwrap().companies.remove(0);
        let subscriptions = operations.subscriptions(scope()).await.unwrap();
        let checks = operations.check(scope()).await.unwrap().checks;
        let told = checks.iter().find(|line| line.what == "acme: Microsoft 365").unwrap();
        for said in [
            &company.health.cause,
            &company.mailboxes[0].health.cause,
            &subscriptions[0].health.cause,
            &told.said,
        ] {
            assert!(said.starts_with(cause), "{language:?}: {said}");
        }
    }
    world.end().await;
}

#[tokio::test]
async fn a_notification_address_that_microsoft_cannot_reach() {
    let world = World::new().await;
    let refused = FaultKind::Status { status: 400, code: Some("ValidationError".into()), retry_after: None };
    let create = FaultFilter {
        path: Some("subscriptions".into()),
        method: Some("POST".into()),
        ..FaultFilter::default()
    };
    world.sim.fault(Fault::lasting(refused).only(create));
    let subscription = world.subscriptions(ANNA)[0].id.clone();
    world.sim.lifecycle(&subscription, narvaro_sim::LifecycleKind::SubscriptionRemoved).unwrap();
    world.settle().await;
    world.expect_trouble("notification_endpoint_refused").await;
    // Meanwhile the calendar is polled.
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 08:30");
    world.advance(SignedDuration::from_mins(6)).await;
    assert_eq!(world.shows("201").profile, "meeting");
    world.sim.clear_faults();
    mended(&world).await;
    world.end().await;
}

#[tokio::test]
async fn where_all_is_well_check_finds_nothing() {
    let world = World::new().await;
    let report = world.operations().check(Scope::default()).await.unwrap();
    assert!(report.ok(), "{report:#?}");
    world.end().await;
}
