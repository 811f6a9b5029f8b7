//! Each thing that can stand in the way is brought about, told with cause and cure, and mended.

use std::{fs, path::Path};

use jiff::SignedDuration;
use narvaro::{
    admin::{HealthReport, PbxLink, Scope, SyncRequest},
    health::{Health, Severity},
    model::Language,
};
use narvaro_sim::{
    AppSpec, EventSpec, Fault, FaultFilter, FaultKind, MailboxKind, PbxAuth, PbxFault, UserKind, UserSpec,
};
use serde_json::json;

use crate::{
    readme,
    world::{ANNA, CLIENT_ID, Pbx, SECRET, World, at},
};

const A_WHILE: SignedDuration = SignedDuration::from_mins(45);

/// Within this the zone of a mailbox is read again.
const ZONE_IS_READ: SignedDuration = SignedDuration::from_hours(25);

/// The test that has a running service come into a state and out of it again.
fn shown_by(state: &Health) -> &'static str {
    match state {
        Health::Fine => {
            "shut_out::without_consent_the_timetable_is_kept_for_a_day_then_let_go_and_comes_back_with_consent"
        }
        Health::Starting => "health::a_first_reading_that_has_not_come_to_its_end",
        Health::Disabled => "users::a_user_who_is_switched_off_is_left_and_taken_back_when_switched_on",
        Health::Leaving => "removal::a_company_that_is_applied_again_before_it_is_gone_stays",
        Health::WrongCredentials { .. } => "health::a_wrong_client_secret",
        Health::NoConsent { .. } => "consent::consent_that_microsoft_has_not_spread_yet_is_waited_for",
        Health::ConsentWithdrawn { .. } => {
            "shut_out::without_consent_the_timetable_is_kept_for_a_day_then_let_go_and_comes_back_with_consent"
        }
        Health::UnknownAlias { .. } => "health::an_alias_that_nobody_has",
        Health::AmbiguousAlias { .. } => "health::an_alias_that_two_have",
        Health::AliasNotPrimary { .. } => "shut_out::a_user_who_is_renamed_and_keeps_the_address_is_told_of",
        Health::AliasChanged { .. } => {
            "shut_out::a_user_who_is_renamed_and_loses_the_address_is_followed_and_told_of"
        }
        Health::NoMailbox { .. } => "health::a_mailbox_without_a_licence",
        Health::UserGone { .. } => "health::a_user_who_was_removed_from_the_directory",
        Health::AccessDenied { .. } => "health::a_mailbox_that_a_policy_keeps_from_us",
        Health::GraphUnreachable { .. } => "health::graph_out_of_reach",
        Health::GraphRefused { .. } => "health::a_request_that_graph_refuses",
        Health::Throttled { .. } => {
            "upkeep::graph_throttling_for_half_an_hour_is_got_over_and_never_asked_early"
        }
        Health::NotificationEndpointRefused { .. } => {
            "health::a_notification_address_that_microsoft_cannot_reach"
        }
        Health::SubscriptionLapsed { .. } => {
            "subscription_life::one_that_stands_in_the_way_and_is_not_listed_is_polled_around_until_it_ends"
        }
        Health::WatchedElsewhere { .. } => {
            "subscription_life::one_of_another_installation_is_left_alone_told_and_polled_around_until_it_ends"
        }
        Health::PushUnreliable { .. } => {
            "reading::a_company_whose_changes_are_not_announced_is_polled_until_one_is"
        }
        Health::NotificationAddressSilent { .. } => {
            "nights::an_address_that_stops_answering_is_told_within_five_minutes_and_until_it_answers_again"
        }
        Health::QuotaReached => "health::a_mailbox_that_too_many_applications_watch",
        Health::PbxMissing => "health::a_company_without_a_pbx",
        Health::PbxUnreachable { .. } => "health::an_http_pbx_that_does_not_answer",
        Health::PbxThrottled => "health::an_http_pbx_that_asks_us_to_slow_down",
        Health::PbxDenied { .. } => "health::an_http_pbx_that_does_not_accept_our_credentials",
        Health::PbxNoSuchExtension { .. } => "health::an_extension_that_the_pbx_does_not_know",
        Health::PbxRefused { .. } => "health::a_change_that_the_pbx_refuses",
        Health::TimeZoneUnknown { .. } => "health::a_time_zone_that_nobody_knows",
        Health::StoreUnavailable { .. } => "health::a_store_that_cannot_be_read",
        Health::CredentialExpires { .. } => {
            "admin::the_end_of_the_client_secret_is_told_thirty_days_ahead_and_not_before"
        }
    }
}

/// Every state that there is, with all its particulars and with as few as it may have.
fn every_state() -> Vec<Health> {
    let texts =
        ["code", "alias", "primary", "said", "host", "extension", "name", "used"].map(|name| (name, "SAID"));
    let moments = ["since", "until", "at"].map(|name| (name, "2026-11-23T13:30:00Z"));
    let read = |state: &str, particulars: &[(&str, &str)]| {
        // What a state does not have is passed over.
        let named = [("state", state)].into_iter().chain(particulars.iter().copied());
        serde_json::from_value::<Health>(named.map(|(name, told)| (name.to_owned(), json!(told))).collect())
    };
    let mut states = Vec::new();
    for name in readme::states() {
        let whole = read(&name, &[&texts[..], &moments[..]].concat());
        states.push(whole.unwrap_or_else(|error| panic!("`{name}`: {error}")));
        states.extend(read(&name, &texts));
    }
    states
}

#[test]
fn every_state_has_its_words_in_both_languages_and_a_test_that_brings_it_about_and_ends_it() {
    for state in every_state() {
        has_its_words(&state);
        let (module, test) = shown_by(&state).split_once("::").unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/{module}.rs"));
        let source = fs::read_to_string(file).unwrap();
        let head = format!("#[tokio::test]\nasync fn {test}() {{\n");
        let body =
            source.split_once(&head).unwrap_or_else(|| panic!("there is no test `{module}::{test}`")).1;
        let body = body.split_once("\n}\n").unwrap().0;
        let variant = format!("{state:?}");
        let variant = variant.split(' ').next().unwrap();
        let names_it =
            body.contains(&format!("\"{}\"", state.name())) || body.contains(&format!("Health::{variant} "));
        assert!(names_it, "`{test}` is not about {state:?}");
    }
}

fn has_its_words(state: &Health) {
    let [swedish, english] = [Language::Sv, Language::En].map(|language| {
        let report = HealthReport::of(state.clone(), language);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["state"], state.name());
        assert_eq!(serde_json::from_value::<HealthReport>(json).unwrap(), report);
        let title = report.title(language);
        assert!(!title.is_empty(), "{state:?}");
        // Where all is well there is nothing to do.
        assert_eq!(report.cure.is_empty(), *state == Health::Fine, "{state:?}");
        for told in [&report.cause, &report.cure].into_iter().filter(|told| !told.is_empty()) {
            assert!(told.ends_with('.'), "{state:?}: {told}");
        }
        for told in [&title, &report.cause, &report.cure] {
            assert!(!told.contains(['{', '}']), "{state:?}: {told}");
        }
        // What the outside system said is what its support asks for.
        let has_particulars = format!("{state:?}").contains("SAID");
        assert_eq!(report.cause.contains("SAID"), has_particulars, "{state:?}: {}", report.cause);
        [title, report.cause, report.cure]
    });
    for (swedish, english) in swedish.into_iter().zip(english).filter(|(swedish, _)| !swedish.is_empty()) {
        assert_ne!(swedish, english, "{state:?}");
    }
}

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
async fn an_alias_that_two_have() {
    let world = World::bare().await;
    world.sim.add_user(&world.tenant, UserSpec::new(ANNA)).unwrap();
    let other = UserSpec { proxies: vec![ANNA.to_owned()], ..UserSpec::new("anna.berg@acme.example") };
    let other = world.sim.add_user(&world.tenant, other).unwrap();
    world.apply(&world.file("acme", "", "", &world.http_pbx("acme"), &[("201", ANNA, "")])).await;
    world.consent("acme").await;
    world.settle().await;
    world.expect_trouble("ambiguous_alias").await;
    assert_eq!(world.sim.subscriptions(), [], "nobody's calendar is taken for hers");
    world.sim.remove_user(&other).unwrap();
    mended(&world).await;
    world.end().await;
}

#[tokio::test]
async fn a_first_reading_that_has_not_come_to_its_end() {
    let world = World::bare().await;
    world.sim.add_user(&world.tenant, UserSpec::new(ANNA)).unwrap();
    world.apply(&world.file("acme", "", "", &world.http_pbx("acme"), &[])).await;
    world.consent("acme").await;
    world.sim.fault(Fault::lasting(FaultKind::Hang).only(FaultFilter::path("calendarView")));
    world.apply(&world.file("acme", "", "", &world.http_pbx("acme"), &[("201", ANNA, "")])).await;
    world.until("the calendar is asked for", async || world.app().depth().await.unwrap().leased == 1).await;
    let health = world.mailbox("acme", "201").await.health;
    assert_eq!((health.health.name().as_str(), health.severity), ("starting", Severity::Fine));
    assert_eq!(world.company_health().await, "fine");
    world.sim.clear_faults();
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
    world.expect_trouble("user_gone").await;
    world.advance_to("2026-11-23 09:00").await;
    world.expect_trouble("unknown_alias").await;
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
async fn a_request_that_graph_refuses() {
    let world = World::new().await;
    let refused =
        FaultKind::Status { status: 400, code: Some("ErrorInvalidRequest".into()), retry_after: None };
    world.sim.fault(Fault::lasting(refused).only(FaultFilter::path("calendarView")));
    sync(&world).await;
    world.expect_trouble("graph_refused").await;
    let health = world.mailbox("acme", "201").await.health;
    assert!(health.cause.contains("ErrorInvalidRequest"), "{health:?}");
    world.sim.clear_faults();
    mended(&world).await;
    world.end().await;
}

#[tokio::test]
async fn a_time_zone_that_nobody_knows() {
    let world = World::new().await;
    world.sim.set_time_zone(ANNA, "tzone://Microsoft/Custom").unwrap();
    world.advance(ZONE_IS_READ).await;
    sync(&world).await;
    world.expect_trouble("time_zone_unknown").await;
    let health = world.mailbox("acme", "201").await.health;
    assert!(
        health.cause.contains("Microsoft/Custom") && health.cause.contains("Europe/Stockholm"),
        "{health:?}"
    );
    world.sim.set_time_zone(ANNA, "W. Europe Standard Time").unwrap();
    world.advance(ZONE_IS_READ).await;
    sync(&world).await;
    mended(&world).await;
    world.end().await;
}

/// The PBX answers changes with a status, until it does not any more.
async fn a_pbx_that_answers(status: u16, state: &str) {
    let world = World::new().await;
    world.sim.pbx().fault("acme", 100_000, PbxFault::Status { status, retry_after: None });
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 16:00");
    world.advance_until("it is told", async || world.health().await == state).await;
    world.expect_trouble(state).await;
    assert_eq!(world.company_health().await, "fine", "it is the extension's alone");
    assert_eq!(world.explained("201").await.troubles[0].health.name(), state);
    world.sim.pbx().clear_faults("acme");
    mended(&world).await;
    world.end().await;
}

#[tokio::test]
async fn an_http_pbx_that_asks_us_to_slow_down() {
    a_pbx_that_answers(429, "pbx_throttled").await;
}

#[tokio::test]
async fn an_extension_that_the_pbx_does_not_know() {
    a_pbx_that_answers(404, "pbx_no_such_extension").await;
}

#[tokio::test]
async fn a_change_that_the_pbx_refuses() {
    a_pbx_that_answers(422, "pbx_refused").await;
}

#[tokio::test]
async fn a_company_without_a_pbx() {
    let world = World::new().await;
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 16:00");
    world.apply(&world.file("acme", "", "", "", &[("201", ANNA, "")])).await;
    world.settle().await;
    assert_eq!(world.company_health().await, "pbx_missing");
    assert_eq!(world.explained("201").await.troubles[0].health.name(), "pbx_missing");
    assert_eq!(world.health().await, "fine", "the calendar is read as before");
    world.apply(&world.file("acme", "", "", &world.http_pbx("acme"), &[("201", ANNA, "")])).await;
    world.settle().await;
    assert_eq!(
        (world.company_health().await.as_str(), world.shows("201").profile.as_str()),
        ("fine", "meeting")
    );
    assert_eq!(world.explained("201").await.troubles, []);
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

/// As many as Microsoft allows for one mailbox, over all applications.
const QUOTA: usize = 1_000;

#[tokio::test]
async fn a_mailbox_that_too_many_applications_watch() {
    let world = World::new().await;
    let ours = world.subscriptions(ANNA)[0].id.clone();
    world.sim.lifecycle(&ours, narvaro_sim::LifecycleKind::SubscriptionRemoved).unwrap();
    let others: Vec<_> = (0..QUOTA)
        .map(|n| {
            world.sim.plant_subscription(&format!("application {n}"), ANNA, "http://127.0.0.1:9/").unwrap()
        })
        .collect();
    world.settle().await;
    world.expect_trouble("quota_reached").await;
    for other in &others {
        world.sim.expire_subscription(other);
    }
    mended(&world).await;
    assert_eq!(world.subscriptions(ANNA).len(), 1);
    world.end().await;
}

#[tokio::test]
async fn a_store_that_cannot_be_read() {
    let world = World::new().await;
    let line = async || {
        let checks = world.operations().check(Scope::default()).await.unwrap().checks;
        checks.into_iter().find(|line| line.what == "store").unwrap()
    };
    let ready = async || world.operations().ready().await;
    world.spoil_store(true);
    let told = line().await;
    let cure = Health::StoreUnavailable { said: String::new() }.cure(Language::En);
    let why = if world.is_on_redis() { "Redis" } else { "company" };
    assert!(!told.ok && told.said.contains(why) && told.cure == Some(cure), "{told:?}");
    assert!(ready().await.is_err());
    world.spoil_store(false);
    world.until("the store answers again", async || line().await.ok && ready().await.is_ok()).await;
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
