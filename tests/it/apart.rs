//! Companies beside one another, all-or-nothing, replicas that agree, and keys that are changed (I7, I12, I13, I14).

use jiff::SignedDuration;
use narvaro::admin::{AuditRequest, ExplainRequest, OperationError, SyncRequest};
use narvaro_sim::{EventSpec, Fault, FaultKind, TenantSpec, UserSpec};
use serde_json::json;

use crate::world::{ANNA, Pbx, World, at, scope};

const BO: &str = "bo@acme.example";
const EVA: &str = "eva@beta.example";

fn all_morning(subject: &str) -> EventSpec {
    EventSpec::new(subject).at(at("2026-11-23 07:30"), at("2026-11-23 12:00"))
}

/// `acme` as ever, and `beta` with its own tenant, PBX and an extension of the same number.
pub(crate) async fn two_companies() -> (World, String) {
    let world = World::new().await;
    let beta = world.sim.add_tenant(TenantSpec::new("beta.example")).unwrap();
    world.sim.add_user(&beta, UserSpec::new(EVA)).unwrap();
    world.apply(&world.file("beta", "", "", &world.http_pbx("beta"), &[("201", EVA, "")])).await;
    let (status, page) = world.consent_as("beta", &beta).await;
    assert_eq!(status, 200, "{page}");
    world.until_fine("beta").await;
    (world, beta)
}

async fn post(world: &World, client_state: &str, tenant: &str) -> u16 {
    let item = json!({
        "subscriptionId": "a4c2e0f8-7b1d-4935-86ca-5e9f3d2b1c07", "clientState": client_state, "tenantId": tenant,
        "changeType": "updated", "resourceData": { "id": "AAk=" },
    });
    let request = world.client.post(format!("{}/graph/v1/notify", world.public_url()));
    request.json(&json!({ "value": [item] })).send().await.unwrap().status().as_u16()
}

/// How many Graph requests follow a notification.
async fn calls_after(world: &World, client_state: &str, tenant: &str) -> usize {
    let before = world.sim.journal().graph_calls().len();
    assert_eq!(post(world, client_state, tenant).await, 202);
    world.settle().await;
    world.sim.journal().graph_calls().len() - before
}

#[tokio::test]
async fn i14_what_happens_in_one_company_moves_no_phone_of_another() {
    let (world, _) = two_companies().await;
    world.add(all_morning("MÖT"));
    world.settle().await;
    assert_eq!(world.sim.pbx().presence("acme", "201").profile, "meeting");
    assert_eq!(world.sim.pbx().presence("beta", "201").profile, "available");
    world.sim.add_event(EVA, all_morning("Lunch")).unwrap();
    world.settle().await;
    assert_eq!(world.sim.pbx().presence("acme", "201").profile, "meeting");
    assert_eq!(world.sim.pbx().presence("beta", "201").profile, "lunch");
    world.end().await;
}

#[tokio::test]
async fn i14_a_client_state_speaks_for_its_own_tenant_only() {
    let (world, beta) = two_companies().await;
    let state = |alias: &str| world.subscriptions(alias)[0].client_state.clone().unwrap();
    assert_eq!(calls_after(&world, &state(ANNA), &beta).await, 0);
    assert_eq!(calls_after(&world, &state(EVA), &world.tenant).await, 0);
    let renamed = state(ANNA).replace("acme", "beta");
    assert_eq!(calls_after(&world, &renamed, &beta).await, 0);
    assert_eq!(calls_after(&world, &renamed, &world.tenant).await, 0);
    assert!(calls_after(&world, &state(ANNA), &world.tenant).await > 0, "the genuine one is heard");
    let mailbox = world.sim.user_id(ANNA).unwrap();
    let last = world.sim.journal().graph_calls().pop().unwrap();
    assert!(last.path.contains(&mailbox) && last.tenant == Some(world.tenant.clone()), "{last:?}");
    world.end().await;
}

#[tokio::test]
async fn i14_a_consent_cannot_point_a_company_at_anothers_tenant() {
    let (world, beta) = two_companies().await;
    world.apply(&world.file("gamma", "", "", &world.http_pbx("gamma"), &[("301", EVA, "")])).await;
    let (status, page) = world.consent_as("gamma", &beta).await;
    assert_eq!(status, 409, "{page}");
    let gamma = AuditRequest { company: "gamma".parse().ok(), ..AuditRequest::default() };
    let told = world.operations().audit(gamma).await.unwrap().items;
    assert_eq!(
        (told[0].what.as_str(), told[0].outcome.as_str()),
        ("consent", "refused: the tenant that has consented belongs to another company")
    );
    // A link of one company does not serve another, whatever it is made to say.
    let url = world.consent_url("gamma").await;
    let state = reqwest::Url::parse(&url)
        .unwrap()
        .query_pairs()
        .find(|(name, _)| name == "state")
        .unwrap()
        .1
        .into_owned();
    let (content, signature) = state.split_once('.').unwrap();
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    let content = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(content).unwrap()).unwrap();
    let forged = format!("{}.{signature}", BASE64_URL_SAFE_NO_PAD.encode(content.replace("gamma", "beta")));
    let query = [("admin_consent", "True"), ("tenant", world.tenant.as_str()), ("state", forged.as_str())];
    let call =
        reqwest::Url::parse_with_params(&format!("{}/consent/callback", world.public_url()), &query).unwrap();
    assert_eq!(world.client.get(call).send().await.unwrap().status(), 400);
    world.settle().await;
    assert_eq!(world.mailbox("gamma", "301").await.health.health.name(), "no_consent");
    assert_eq!(world.sim.subscriptions().len(), 3);
    assert_eq!(world.mailbox("beta", "201").await.health.health.name(), "fine");
    world.end().await;
}

#[tokio::test]
async fn i14_an_address_of_another_tenant_is_not_found() {
    let (world, _) = two_companies().await;
    world.apply(&world.file("acme", "", "", &world.http_pbx("acme"), &[("201", EVA, "")])).await;
    world.settle().await;
    world.expect_trouble("unknown_alias").await;
    world.sim.add_event(EVA, all_morning("Lunch")).unwrap();
    world.settle().await;
    assert_eq!(world.sim.pbx().presence("acme", "201").profile, "available");
    world.end().await;
}

#[tokio::test]
async fn i14_an_answer_about_one_company_says_nothing_of_another() {
    let (world, beta) = two_companies().await;
    world.sim.add_event(EVA, all_morning("Lunch")).unwrap();
    world.settle().await;
    let acme = || Some("acme".parse().unwrap());
    let operations = world.operations();
    let ask = |user: &str| ExplainRequest { company: acme(), user: user.into(), at: None, language: None };
    let answers = [
        serde_json::to_string(&operations.status(scope("acme")).await.unwrap()).unwrap(),
        serde_json::to_string(&operations.subscriptions(scope("acme")).await.unwrap()).unwrap(),
        serde_json::to_string(&operations.export("acme".parse().unwrap()).await.unwrap()).unwrap(),
        serde_json::to_string(&operations.explain(ask("201")).await.unwrap()).unwrap(),
        serde_json::to_string(&operations.check(scope("acme")).await.unwrap()).unwrap(),
    ];
    let eva = world.sim.user_id(EVA).unwrap();
    let subscription = world.subscriptions(EVA)[0].id.clone();
    for foreign in ["beta", EVA, &beta, &eva, &subscription] {
        for answer in &answers {
            assert!(!answer.contains(foreign), "{foreign} in {answer}");
        }
    }
    assert!(answers[0].contains("acme") && answers[1].contains(ANNA), "the search can find");
    let asked = operations.explain(ask(EVA)).await;
    assert!(matches!(asked, Err(OperationError::NoSuchUser { .. })), "{asked:?}");
    let both = ExplainRequest { company: None, user: "201".into(), at: None, language: None };
    let asked = operations.explain(both).await;
    assert!(matches!(asked, Err(OperationError::AmbiguousUser { .. })), "{asked:?}");
    let marked =
        operations.sync_now(SyncRequest { company: acme(), ..SyncRequest::default() }).await.unwrap();
    assert_eq!(marked.marked, 2);
    world.end().await;
}

#[tokio::test]
async fn i13_a_refused_file_and_a_dry_run_change_nothing_at_all() {
    let mut world = World::new().await;
    world.add(all_morning("MÖT"));
    world.settle().await;
    let before = world.operations().export("acme".parse().unwrap()).await.unwrap();
    let pbx = world.http_pbx("acme");
    let good = world.file("acme", "", "", &pbx, &[("201", ANNA, "triggers = { lunch = \"MÖT\" }\n")]);
    let bad_user = world.file(
        "acme",
        "",
        "",
        &pbx,
        &[
            ("201", ANNA, "disabled_words = \"MÖT\""),
            ("203", "new@acme.example", ""),
            ("203", "twice@acme.example", ""),
        ],
    );
    let bad_pbx =
        world.file("acme", "", "", &pbx.replace("http://", "gopher://"), &[("201", ANNA, "enabled = false")]);
    let bad_words = world.file("acme", "bridge_secs = 100000", "", &pbx, &[]);
    let seq = world.sim.journal().last_seq();
    for file in [&bad_user, &bad_pbx, &bad_words] {
        let refused = world.try_apply(file, false).await;
        assert!(matches!(refused, Err(OperationError::FileRefused(_))), "{refused:?}");
    }
    let report = world.try_apply(&good, true).await.unwrap();
    assert!(!report.applied && !report.changes.is_empty(), "{report:?}");
    world.settle().await;
    assert_eq!(world.operations().export("acme".parse().unwrap()).await.unwrap(), before);
    assert_eq!(world.sim.journal().last_seq(), seq, "nobody was asked or told anything");
    world.restart().await;
    world.settle().await;
    assert_eq!(world.operations().export("acme".parse().unwrap()).await.unwrap(), before);
    assert_eq!(
        (world.shows("201").profile, world.app().depth().await.unwrap().mailboxes),
        ("meeting".into(), 2)
    );
    world.apply(&good).await;
    world.settle().await;
    assert_eq!(
        (world.shows("201").profile, world.app().depth().await.unwrap().mailboxes),
        ("lunch".into(), 1)
    );
    world.end().await;
}

/// One world with the same calendar, troubles and changes as every other that is made so.
async fn replica() -> World {
    let world = World::new().await;
    // One after the other: what shows in between depends on how many changes one turn meets.
    world.add(all_morning("MÖT"));
    world.settle().await;
    world.event("Lunch", "2026-11-23 11:00", "2026-11-23 13:00");
    world.settle().await;
    world.event("MÖT", "2026-11-23 11:00", "2026-11-23 13:00");
    world.settle().await;
    world.sim.add_event(BO, all_morning("Sick")).unwrap();
    world.settle().await;
    world.advance_to("2026-11-23 11:00").await;
    world.sim.pbx().set_by_hand(
        "acme",
        "202",
        narvaro_sim::PbxPresence { profile: "lunch".into(), ..Default::default() },
    );
    world.advance(SignedDuration::from_mins(1)).await;
    world.sim.fault(Fault::lasting(FaultKind::Drop));
    world.operations().sync_now(SyncRequest::default()).await.unwrap();
    world.settle().await;
    world.advance(SignedDuration::from_mins(20)).await;
    world
}

/// Everything decided, without what the simulator made up at random.
async fn decided(world: &World) -> Vec<String> {
    let mut all = Vec::new();
    for extension in ["201", "202"] {
        let explained = world.explained(extension).await;
        let mut details = explained.details;
        remove_ids(&mut details);
        all.extend(explained.lines);
        all.push(details.to_string());
        let mailbox = world.mailbox("acme", extension).await;
        all.push(format!("{:?} {:?} {:?}", mailbox.shown, mailbox.next_change, mailbox.health.health.name()));
        all.push(format!("{:?}", world.shows(extension)));
    }
    all.push(format!("{:?}", world.app().depth().await.unwrap()));
    all
}

fn remove_ids(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            map.retain(|name, _| !["event", "series", "last_modified"].contains(&name.as_str()));
            map.values_mut().for_each(remove_ids);
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(remove_ids),
        _ => {}
    }
}

#[tokio::test]
async fn i12_two_services_with_the_same_inputs_decide_and_retry_alike() {
    let (one, other) = (replica().await, replica().await);
    for minutes in [0, 7, 45, 120] {
        for world in [&one, &other] {
            world.advance(SignedDuration::from_mins(minutes)).await;
        }
        assert_eq!(decided(&one).await, decided(&other).await, "after {minutes} more minutes");
    }
    let told = |world: &World| -> Vec<String> {
        let writes = world.sim.journal().pbx_writes().into_iter();
        writes
            .map(|write| format!("{} {} {:?} {:?}", write.extension, write.profile, write.text, write.until))
            .collect()
    };
    let (mut first, mut second) = (told(&one), told(&other));
    first.sort();
    second.sort();
    assert_eq!(first, second);
    for world in [one, other] {
        world.sim.clear_faults();
        world.end().await;
    }
}

#[tokio::test]
async fn i7_a_changed_key_is_taken_up_and_the_old_one_is_heard_while_it_is_kept() {
    let mut world = World::bare().await;
    let (old, new) = ("o".repeat(40), "n".repeat(40));
    for alias in [ANNA, BO] {
        world.sim.add_user(&world.tenant, UserSpec::new(alias)).unwrap();
    }
    world.state_keys = [old.clone(), String::new()];
    world.stop().await;
    world.start().await;
    world.apply(&world.company(Pbx::Http, "")).await;
    world.consent("acme").await;
    world.until_fine("acme").await;
    let state = world.subscriptions(ANNA)[0].client_state.clone().unwrap();
    let tenant = world.tenant.clone();
    assert!(calls_after(&world, &state, &tenant).await > 0);

    world.state_keys = [new.clone(), old];
    world.restart().await;
    world.settle().await;
    assert!(
        calls_after(&world, &state, &tenant).await > 0,
        "the subscription made under the old key is heard"
    );
    let id = world.add(all_morning("MÖT"));
    world.settle().await;
    assert_eq!(world.shows("201").profile, "meeting");

    // Within the week that the old key is to be kept, every subscription is under the new one.
    for _ in 0..7 {
        world.advance(SignedDuration::from_hours(24)).await;
    }
    world.state_keys = [new, String::new()];
    world.restart().await;
    world.settle().await;
    assert_eq!(
        calls_after(&world, &state, &tenant).await,
        0,
        "the old state is not heard without the old key"
    );
    world.sim.delete_event(ANNA, &id).unwrap();
    let now = world.now();
    world.add(EventSpec::new("DND").at(now, now + SignedDuration::from_hours(1)));
    world.settle().await;
    assert_eq!(world.shows("201").profile, "do-not-disturb");
    for alias in [ANNA, BO] {
        assert_eq!(world.subscriptions(alias).len(), 1);
    }
    world.end().await;
}
