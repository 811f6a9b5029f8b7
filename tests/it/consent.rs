//! The company administrator's consent: links, the call that comes back, and consent withdrawn.

use jiff::SignedDuration;
use narvaro::admin::AuditRequest;
use narvaro_sim::{ConsentAnswer, TenantSpec, UserSpec};

use crate::world::{ANNA, CLIENT_ID, Pbx, World};

async fn unconsented() -> World {
    let world = World::bare().await;
    for alias in [ANNA, "bo@acme.example"] {
        world.sim.add_user(&world.tenant, UserSpec::new(alias)).unwrap();
    }
    world.apply(&world.company(Pbx::Http, "")).await;
    world.settle().await;
    world
}

/// The `state` of a consent address.
fn state_of(url: &str) -> String {
    let url = reqwest::Url::parse(url).unwrap();
    url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned()
}

/// What the audit trail tells of consents, the newest first.
async fn consents(world: &World) -> Vec<String> {
    let page = world.operations().audit(AuditRequest::default()).await.unwrap();
    page.items.into_iter().filter(|line| line.what == "consent").map(|line| line.outcome).collect()
}

/// Calls the callback as anybody could.
async fn call_back(world: &World, pairs: &[(&str, &str)]) -> u16 {
    let url = reqwest::Url::parse_with_params(&format!("{}/consent/callback", world.public_url()), pairs);
    world.client.get(url.unwrap()).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn before_consent_every_mailbox_says_what_is_missing_and_nobody_is_asked() {
    let world = unconsented().await;
    world.expect_trouble("no_consent").await;
    assert_eq!(world.sim.journal().graph_calls().len(), 0);
    assert_eq!(world.sim.subscriptions(), []);
    world.consent("acme").await;
    world.until_fine("acme").await;
    assert_eq!(world.health().await, "fine");
    world.end().await;
}

#[tokio::test]
async fn a_link_is_good_for_one_use() {
    let world = unconsented().await;
    let url = world.consent_url("acme").await;
    assert_eq!(world.open_consent(&url, &world.tenant).await.0, 200);
    let (status, page) = world.open_consent(&url, &world.tenant).await;
    assert_eq!(status, 400, "{page}");
    assert!(page.contains("gäller inte längre"), "{page}");
    world.until_fine("acme").await;
    world.end().await;
}

#[tokio::test]
async fn a_spent_link_stays_spent_over_a_restart() {
    let mut world = unconsented().await;
    let url = world.consent_url("acme").await;
    assert_eq!(world.open_consent(&url, &world.tenant).await.0, 200);
    world.until_fine("acme").await;
    world.restart().await;
    world.settle().await;
    assert_eq!(world.open_consent(&url, &world.tenant).await.0, 400);
    world.end().await;
}

#[tokio::test]
async fn a_link_is_good_for_half_an_hour() {
    let world = unconsented().await;
    let url = world.consent_url("acme").await;
    world.advance(SignedDuration::from_mins(30)).await;
    assert_eq!(world.open_consent(&url, &world.tenant).await.0, 400);
    world.expect_trouble("no_consent").await;
    world.end().await;
}

#[tokio::test]
async fn a_call_that_is_forged_or_no_consent_changes_nothing() {
    let world = unconsented().await;
    world.sim.consent(&world.tenant, CLIENT_ID).unwrap();
    let state = state_of(&world.consent_url("acme").await);
    let tenant = world.tenant.clone();
    let mut forged = state.clone();
    let last = forged.pop().unwrap();
    forged.push(if last == 'A' { 'B' } else { 'A' });
    for pairs in [
        vec![("admin_consent", "True"), ("tenant", tenant.as_str()), ("state", forged.as_str())],
        vec![("admin_consent", "True"), ("tenant", tenant.as_str()), ("state", "")],
        vec![("admin_consent", "True"), ("tenant", tenant.as_str())],
        vec![("admin_consent", "False"), ("tenant", tenant.as_str()), ("state", state.as_str())],
        vec![("tenant", tenant.as_str()), ("state", state.as_str())],
        vec![("admin_consent", "True"), ("tenant", "organizations"), ("state", state.as_str())],
        vec![
            ("admin_consent", "True"),
            ("tenant", tenant.as_str()),
            ("tenant", "x"),
            ("state", state.as_str()),
        ],
        vec![],
    ] {
        assert_eq!(call_back(&world, &pairs).await, 400, "{pairs:?}");
        world.settle().await;
        world.expect_trouble("no_consent").await;
    }
    let good = [("admin_consent", "True"), ("tenant", tenant.as_str()), ("state", state.as_str())];
    assert_eq!(call_back(&world, &good).await, 200, "and the link is still good");
    world.until_fine("acme").await;
    world.end().await;
}

#[tokio::test]
async fn a_declined_consent_changes_nothing_whichever_page_says_so() {
    let world = unconsented().await;
    for answer in [ConsentAnswer::RefuseV1, ConsentAnswer::RefuseV2] {
        world.sim.login(|knobs| knobs.consent_answer = answer);
        let (status, page) = world.consent_as("acme", &world.tenant).await;
        assert_eq!(status, 200);
        assert!(page.contains("avböjdes"), "{page}");
        world.settle().await;
        world.expect_trouble("no_consent").await;
    }
    let declined = "refused: the company's administrator has declined";
    assert_eq!(consents(&world).await, [declined, declined]);
    world.sim.login(|knobs| knobs.consent_answer = ConsentAnswer::Grant);
    world.consent("acme").await;
    world.until_fine("acme").await;
    world.end().await;
}

#[tokio::test]
async fn a_consent_of_another_tenant_than_the_file_names_is_refused() {
    let world = World::bare().await;
    world.sim.add_user(&world.tenant, UserSpec::new(ANNA)).unwrap();
    let other = world.sim.add_tenant(TenantSpec::new("other.example")).unwrap();
    let tenant = format!("tenant = \"{}\"", world.tenant);
    world.apply(&world.file("acme", "", &tenant, &world.http_pbx("acme"), &[("201", ANNA, "")])).await;
    // Microsoft's page leads to the named tenant only; a made-up call does not have to.
    let state = state_of(&world.consent_url("acme").await);
    let pairs = [("admin_consent", "True"), ("tenant", other.as_str()), ("state", state.as_str())];
    for _ in 0..3 {
        assert_eq!(call_back(&world, &pairs).await, 409);
    }
    let refused = "refused: another tenant than the company's has consented";
    assert_eq!(consents(&world).await, [refused], "once for each link");
    world.settle().await;
    assert_eq!(world.sim.subscriptions(), []);
    world.consent("acme").await;
    world.until_fine("acme").await;
    world.end().await;
}

#[tokio::test]
async fn withdrawn_consent_is_told_with_its_cure_and_got_over_when_given_again() {
    let world = World::new().await;
    world.event("MÖT", "2026-11-23 07:30", "2026-11-23 09:00");
    world.settle().await;
    world.sim.revoke_consent(&world.tenant, CLIENT_ID, true).unwrap();
    world.event("Sick", "2026-11-23 07:30", "2026-11-23 16:00");
    world.settle().await;
    world.expect_trouble("consent_withdrawn").await;
    assert_eq!(world.shows("201").profile, "meeting", "what is known goes on");
    world.advance_to("2026-11-23 09:00").await;
    assert_eq!(world.shows("201").profile, "available");
    // Given again behind our back: noticed within the hour.
    world.sim.consent(&world.tenant, CLIENT_ID).unwrap();
    world.advance(SignedDuration::from_mins(40)).await;
    assert_eq!(world.shows("201").profile, "sick");
    assert_eq!(world.health().await, "fine");
    assert_eq!(world.subscriptions(ANNA).len(), 1);
    // Given again by our link: at once.
    world.sim.revoke_consent(&world.tenant, CLIENT_ID, true).unwrap();
    world.operations().sync_now(narvaro::admin::SyncRequest::default()).await.unwrap();
    world.settle().await;
    world.expect_trouble("consent_withdrawn").await;
    world.consent("acme").await;
    world.settle().await;
    assert_eq!(world.health().await, "fine");
    world.end().await;
}

#[tokio::test]
async fn consent_that_microsoft_has_not_spread_yet_is_waited_for() {
    let world = unconsented().await;
    // The callback comes, and the login does not know of it yet.
    let state = state_of(&world.consent_url("acme").await);
    let tenant = world.tenant.clone();
    let pairs = [("admin_consent", "True"), ("tenant", tenant.as_str()), ("state", state.as_str())];
    assert_eq!(call_back(&world, &pairs).await, 200);
    world.settle().await;
    world.expect_trouble("no_consent").await;
    world.sim.consent(&world.tenant, CLIENT_ID).unwrap();
    world.advance(SignedDuration::from_mins(40)).await;
    world.until_fine("acme").await;
    assert_eq!(world.health().await, "fine");
    world.end().await;
}
