//! Whatever is dropped, refused, joined with another or put off is counted, with its reason (I9).

use narvaro::{
    model::MailboxId,
    webhook::client_state::{Claim, Resource, StateKey, StateKeys},
};
use narvaro_sim::{EventSpec, Fault, FaultFilter, FaultKind, PbxFault, UserSpec};
use secrecy::SecretSlice;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::service::Service;

const KEY: &str = "a key of clientState that this test knows";

/// The service's key.
fn keys() -> StateKeys {
    let name: String =
        Sha256::digest(KEY.as_bytes()).iter().take(3).map(|byte| format!("{byte:02x}")).collect();
    StateKeys::new(StateKey::new(&name, &SecretSlice::from(KEY.as_bytes().to_vec())).unwrap(), None)
}

/// A `clientState` under the service's key.
fn seal(tenant: &str, mailbox: u64, resource: Resource) -> String {
    let claim = Claim { mailbox: MailboxId(mailbox), resource, generation: 1 };
    keys().seal(&"acme".parse().unwrap(), claim, &tenant.parse().unwrap())
}

fn item(state: &str, tenant: &str, id: &str, version: Option<&str>) -> Value {
    json!({
        "subscriptionId": "s", "clientState": state, "tenantId": tenant, "changeType": "updated",
        "resourceData": { "id": id, "@odata.etag": version.unwrap_or("") },
    })
}

async fn running() -> Service {
    let mut service = Service::new().await;
    service.sim.add_user(&service.tenant, UserSpec::new("anna@acme.example")).unwrap();
    service.start(&[("NARVARO__KEYS__CLIENT_STATE", KEY)]).await;
    service.apply(&service.company(&["anna@acme.example"], "")).await;
    service.until_read(1).await;
    service
}

/// Asserts that `act` makes each counter grow by exactly so much, and no other outcome of notifications or requests.
async fn grows(service: &Service, expected: &[(&str, u64)], act: impl AsyncFnOnce()) {
    let families =
        ["narvaro_notifications_total", "narvaro_webhook_refused_total", "narvaro_consent_calls_total"];
    let read = async || -> Vec<(String, u64)> {
        let metrics = service.metrics().await;
        let lines = metrics.lines().filter(|line| families.iter().any(|family| line.starts_with(family)));
        lines
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(name, n)| (name.to_owned(), n.parse().unwrap()))
            .collect()
    };
    let before = read().await;
    act().await;
    let grown: Vec<(String, u64)> = read()
        .await
        .into_iter()
        .map(|(name, now)| {
            let was = before.iter().find(|(known, _)| *known == name).map_or(0, |(_, was)| *was);
            (name, now - was)
        })
        .filter(|(_, grown)| *grown > 0)
        .collect();
    let mut expected: Vec<(String, u64)> =
        expected.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
    let mut grown = grown;
    expected.sort();
    grown.sort();
    assert_eq!(grown, expected);
}

fn outcome(name: &str) -> String {
    format!("narvaro_notifications_total{{outcome=\"{name}\"}}")
}

fn refused(name: &str) -> String {
    format!("narvaro_webhook_refused_total{{reason=\"{name}\"}}")
}

#[tokio::test]
async fn i9_every_notification_that_is_dropped_or_joined_is_counted() {
    let service = running().await;
    let tenant = service.tenant.clone();
    let genuine = service.sim.subscriptions()[0].client_state.clone().unwrap();
    let post = async |items: Vec<Value>| {
        let answer =
            service.client.post(service.notify_url()).json(&json!({ "value": items })).send().await.unwrap();
        assert_eq!(answer.status(), 202);
    };
    grows(&service, &[(&outcome("client_state_not_ours"), 4)], async || {
        let contacts = seal(&tenant, 1, Resource::Contacts);
        let other_tenant = "b81e7c40-55d2-4f0a-8f63-7a9e20c5d6e1";
        post(vec![
            item("forged", &tenant, "a", None),
            item("", &tenant, "a", None),
            item(&contacts, &tenant, "a", None),
            item(&genuine, other_tenant, "a", None),
        ])
        .await;
    })
    .await;
    grows(&service, &[(&outcome("unknown_mailbox"), 2)], async || {
        let nobody = seal(&tenant, 999_999, Resource::Events);
        post(vec![item(&nobody, &tenant, "a", None), item(&nobody, &tenant, "b", None)]).await;
    })
    .await;
    grows(&service, &[(&outcome("unknown_kind"), 2)], async || {
        let mut lifecycle = item(&genuine, &tenant, "a", None);
        lifecycle["lifecycleEvent"] = json!("ofTheFuture");
        let mut change = item(&genuine, &tenant, "a", None);
        change["changeType"] = json!("ofTheFuture");
        post(vec![lifecycle, change]).await;
    })
    .await;
    grows(&service, &[(&outcome("unreadable"), 3)], async || {
        post(vec![json!("odd"), json!({ "clientState": [1] }), json!(7)]).await;
    })
    .await;
    let turns = async || service.counter("narvaro_turns_total").await;
    let before = turns().await;
    grows(&service, &[(&outcome("marked"), 1), (&outcome("duplicate"), 2)], async || {
        for _ in 0..3 {
            post(vec![item(&genuine, &tenant, "a", Some("W/\"1\""))]).await;
        }
    })
    .await;
    // While a turn hangs, marks wait: what says nothing new is joined with them.
    service.sim.fault(Fault::lasting(FaultKind::Slow { millis: 5_000 }));
    service.until("the turn before has begun", async || turns().await > before).await;
    let before = turns().await;
    post(vec![item(&genuine, &tenant, "b", None)]).await;
    service.until("a turn hangs", async || turns().await > before).await;
    let seen = service.sim.journal().last_seq();
    grows(&service, &[(&outcome("marked"), 1), (&outcome("coalesced"), 3)], async || {
        for _ in 0..4 {
            post(vec![item(&genuine, &tenant, "c", None)]).await;
        }
    })
    .await;
    assert_eq!(service.sim.journal().last_seq(), seen, "the turn hangs still");
    service.sim.clear_faults();
}

#[tokio::test]
async fn i9_what_is_said_of_replaced_subscriptions_is_counted() {
    let service = running().await;
    let genuine = service.sim.subscriptions()[0].client_state.clone().unwrap();
    let keys = keys();
    let claim = keys.open(&genuine, &service.tenant).unwrap();
    let replaced = keys.seal(
        &"acme".parse().unwrap(),
        Claim { generation: claim.generation - 1, ..claim },
        &service.tenant.parse().unwrap(),
    );
    let counted = async |reason| {
        service.counter(&format!("narvaro_notifications_replaced_total{{reason=\"{reason}\"}}")).await
    };
    let tell = async |state: &str, kind: &str| {
        let mut item = item(state, &service.tenant, "a", None);
        item["lifecycleEvent"] = json!(kind);
        let post = service.client.post(service.notify_url()).json(&json!({ "value": [item] }));
        assert_eq!(post.send().await.unwrap().status(), 202);
    };
    for (kind, reason) in
        [("subscriptionRemoved", "removed"), ("reauthorizationRequired", "reauthorize"), ("missed", "missed")]
    {
        tell(&replaced, kind).await;
        service.until("it is counted", async || counted(reason).await == 1).await;
    }
    let reads = async || service.counter("narvaro_reads_total{kind=\"delta\"}").await;
    let before = reads().await;
    tell(&genuine, "missed").await;
    service.until("what changed is read", async || reads().await > before).await;
    assert_eq!(counted("missed").await, 1, "what the living one says is not counted");
    assert_eq!(service.sim.subscriptions()[0].client_state.as_ref(), Some(&genuine), "it lives on");
}

#[tokio::test]
async fn i9_every_request_that_is_refused_is_counted() {
    let service = running().await;
    let post = async |kind: &str, body: Vec<u8>| {
        let request = service.client.post(service.notify_url()).header("content-type", kind).body(body);
        request.send().await.unwrap().status().as_u16()
    };
    grows(&service, &[(&refused("not_json"), 3)], async || {
        for body in ["", "{}", "[1]"] {
            assert_eq!(post("application/json", body.into()).await, 400);
        }
    })
    .await;
    grows(&service, &[(&refused("wrong_type"), 1)], async || {
        assert_eq!(post("text/plain", b"{}".to_vec()).await, 415);
    })
    .await;
    grows(&service, &[(&refused("too_large"), 2)], async || {
        for _ in 0..2 {
            assert_eq!(post("application/json", vec![b' '; 65_537]).await, 413);
        }
    })
    .await;
    grows(&service, &[("narvaro_consent_calls_total{outcome=\"not_ours\"}", 2)], async || {
        let url = service.notify_url().replace("/graph/v1/notify", "/consent/callback");
        for query in ["", "?admin_consent=True&state=forged&tenant=3f6c1a52-0b7e-4c1d-9a55-1c2f7e9b4d10"] {
            assert_eq!(service.client.get(format!("{url}{query}")).send().await.unwrap().status(), 400);
        }
    })
    .await;
}

#[tokio::test]
async fn i9_failed_reads_writes_and_subscriptions_are_counted() {
    let service = running().await;
    let spec = || EventSpec { in_secs: Some(-60), for_secs: Some(3_600), ..EventSpec::new("MÖT") };
    assert_eq!(service.counter("narvaro_reads_failed_total").await, 0);
    let denied = FaultKind::Status { status: 403, code: Some("ErrorAccessDenied".into()), retry_after: None };
    service.sim.fault(
        Fault::next(1, denied).only(FaultFilter { method: Some("GET".into()), ..FaultFilter::default() }),
    );
    service.sim.add_event("anna@acme.example", spec()).unwrap();
    service
        .until("the read has failed", async || service.counter("narvaro_reads_failed_total").await == 1)
        .await;
    assert_eq!(service.counter("narvaro_presence_writes_failed_total").await, 0);
    service.sim.pbx().fault("acme", 1, PbxFault::Status { status: 403, retry_after: None });
    let (status, body) = service.admin("POST", "/sync", Some(json!({ "all": true }))).await;
    assert_eq!(status, 200, "{body}");
    service
        .until("the write has failed", async || {
            service.counter("narvaro_presence_writes_failed_total").await == 1
        })
        .await;
    assert_eq!(service.counter("narvaro_subscriptions_failed_total").await, 0);
    let filter = FaultFilter {
        path: Some("subscriptions".into()),
        method: Some("PATCH".into()),
        ..FaultFilter::default()
    };
    service.sim.fault(Fault::lasting(FaultKind::Empty { status: 500 }).only(filter));
    let (status, body) = service.admin("POST", "/subscriptions/renew", Some(json!({ "all": true }))).await;
    assert_eq!(status, 200, "{body}");
    service
        .until("the renewal has failed", async || {
            service.counter("narvaro_subscriptions_failed_total").await >= 1
        })
        .await;
}
