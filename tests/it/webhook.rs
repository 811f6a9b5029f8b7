//! The webhook by HTTP: handshake, notifications, and whatever else may arrive there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use narvaro::{
    app::listener,
    clock::{ManualClock, SharedClock},
    model::{Extension, MailboxId, TenantId},
    queue::{Depth, DueStore, Lease, Mark, Reason, Settled, Shares, StoreError, Tally, Urgency},
    store::{
        Store,
        embedded::{Embedded, EmbeddedSettings},
    },
    webhook::{
        Receiver, ReceiverLimits,
        client_state::{Claim, Resource, StateKey, StateKeys},
        sealed::{BoxLimits, SealedBox},
    },
};
use secrecy::SecretSlice;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::items;

const TENANT: &str = "3f6c1a52-0b7e-4c1d-9a55-1c2f7e9b4d10";

/// A store whose writes can be made to fail or to hang.
struct Faulty {
    inner: Embedded,
    fails: AtomicBool,
    hangs: AtomicBool,
}

#[async_trait]
impl DueStore for Faulty {
    async fn mark(&self, marks: Vec<Mark>) -> Result<Tally, StoreError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("the disk is full".into()));
        }
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.inner.mark(marks).await
    }
    async fn lease(&self, most: usize, hold: Duration) -> Result<Vec<Lease>, StoreError> {
        self.inner.lease(most, hold).await
    }
    async fn wait(&self) {
        self.inner.wait().await;
    }
    async fn extend(&self, lease: &Lease, hold: Duration) -> Result<jiff::Timestamp, StoreError> {
        self.inner.extend(lease, hold).await
    }
    async fn begin_reading(&self, lease: &Lease) -> Result<bool, StoreError> {
        self.inner.begin_reading(lease).await
    }
    async fn intend(&self, lease: &Lease, intent: Vec<u8>) -> Result<(), StoreError> {
        self.inner.intend(lease, intent).await
    }
    async fn settle(&self, lease: &Lease, settled: Settled) -> Result<(), StoreError> {
        self.inner.settle(lease, settled).await
    }
    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.inner.release(lease).await
    }
    async fn look(&self, mailbox: MailboxId) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.look(mailbox).await
    }
    async fn depth(&self) -> Result<Depth, StoreError> {
        self.inner.depth().await
    }
}

struct Hook {
    _folder: tempfile::TempDir,
    store: Arc<Faulty>,
    keys: StateKeys,
    mailbox: MailboxId,
    base: String,
    client: reqwest::Client,
    shutdown: CancellationToken,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn hook() -> Hook {
    hook_with(ReceiverLimits::default()).await
}

async fn hook_with(limits: ReceiverLimits) -> Hook {
    let folder = tempfile::tempdir().unwrap();
    let clock: SharedClock = ManualClock::at("2026-11-23T08:00:00Z".parse().unwrap());
    let settings =
        EmbeddedSettings { path: folder.path().join("narvaro.db"), shares: Shares::of(8), trail_entries: 3 };
    let inner = Embedded::open(&settings, Arc::clone(&clock)).unwrap();
    let users: Vec<Extension> = vec!["201".parse().unwrap()];
    let company = "acme".parse().unwrap();
    let records: &dyn Store = &inner;
    let applied = records.apply(&company, vec![], users).await.unwrap();
    let mailbox = applied.mailboxes[0].id;
    let lease = inner.lease(1, Duration::from_secs(60)).await.unwrap().remove(0);
    let next = Settled::Next { state: vec![], due: None, urgency: Urgency::Now, to_read: None };
    inner.settle(&lease, next).await.unwrap();

    let store = Arc::new(Faulty { inner, fails: AtomicBool::new(false), hangs: AtomicBool::new(false) });
    let key = StateKey::new("k1", &SecretSlice::from(vec![7; 32])).unwrap();
    let keys = StateKeys::new(key, None);
    let queue: Arc<dyn DueStore> = store.clone();
    let sealed = SealedBox::new(BoxLimits::default(), Arc::clone(&clock));
    let receiver = Receiver::new(keys.clone(), queue, sealed, clock, limits);
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", socket.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    tokio::spawn(listener::serve(socket, receiver.routes(), 64, shutdown.clone()));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    Hook { _folder: folder, store, keys, mailbox, base, client, shutdown }
}

impl Hook {
    fn state(&self) -> String {
        self.state_for(Resource::Events)
    }

    fn state_for(&self, resource: Resource) -> String {
        let claim = Claim { mailbox: self.mailbox, resource, generation: 1 };
        self.keys.seal(&"acme".parse().unwrap(), claim, &TENANT.parse::<TenantId>().unwrap())
    }

    fn item(&self, id: &str) -> Value {
        json!({
            "subscriptionId": "a4c2e0f8-7b1d-4935-86ca-5e9f3d2b1c07",
            "subscriptionExpirationDateTime": "2026-11-29T20:15:00.0000000Z",
            "clientState": self.state(),
            "changeType": "updated",
            "resource": format!("Users/7b0a9f1c-3d52-4e86-8c17-2f6e5d4c3b21/Events/{id}"),
            "tenantId": TENANT,
            "resourceData": {
                "@odata.type": "#Microsoft.Graph.Event",
                "@odata.id": format!("Users/7b0a9f1c-3d52-4e86-8c17-2f6e5d4c3b21/Events/{id}"),
                "@odata.etag": format!("W/\"{id}\""),
                "id": id,
            }
        })
    }

    fn url(&self) -> String {
        format!("{}/graph/v1/notify", self.base)
    }

    async fn post(&self, body: &Value) -> u16 {
        self.post_bytes(body.to_string().into_bytes()).await
    }

    async fn post_bytes(&self, body: Vec<u8>) -> u16 {
        let request = self.client.post(self.url()).header("content-type", "application/json").body(body);
        request.send().await.unwrap().status().as_u16()
    }

    /// What has gathered for the mailbox since the last look.
    async fn gathered(&self) -> Option<narvaro::queue::Gathered> {
        let lease = self.store.lease(1, Duration::from_secs(60)).await.unwrap().pop()?;
        let next = Settled::Next { state: vec![], due: None, urgency: Urgency::Now, to_read: None };
        self.store.settle(&lease, next).await.unwrap();
        Some(lease.gathered)
    }
}

#[tokio::test]
async fn a_handshake_is_answered_with_the_decoded_token_as_plain_text() {
    let hook = hook().await;
    for path in ["notify", "lifecycle"] {
        let url = format!(
            "{}/graph/v1/{path}?t=contoso&validationToken=Validation%3a+Testing+client+application+%3Cb%3E%26+%C3%B6",
            hook.base
        );
        let answer =
            hook.client.post(url).header("content-type", "text/plain; charset=utf-8").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        assert!(kind.starts_with("text/plain"), "{kind}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        assert_eq!(answer.text().await.unwrap(), "Validation: Testing client application <b>& ö");
    }
    let url = format!("{}?validationToken={}", hook.url(), "x".repeat(5_000));
    assert_eq!(hook.client.post(url).send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn a_handshake_needs_no_store() {
    let hook = hook().await;
    hook.store.fails.store(true, Ordering::SeqCst);
    let answer = hook.client.post(format!("{}?validationToken=abc", hook.url())).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, "abc"));
}

#[tokio::test]
async fn a_genuine_notification_marks_its_mailbox() {
    let hook = hook().await;
    assert_eq!(hook.post(&json!({ "value": [hook.item("AAk=")] })).await, 202);
    let gathered = hook.gathered().await.unwrap();
    assert!(gathered.reasons.contains(Reason::Notification));
    assert_eq!(items(&gathered), ["AAk="]);
}

#[tokio::test]
async fn i7_what_does_not_verify_is_dropped_and_answered_as_if_it_did() {
    let hook = hook().await;
    let good = hook.item("AAk=");
    let change = |name: &str, value: Value| {
        let mut item = good.clone();
        item[name] = value;
        item
    };
    let mut without = good.clone();
    without.as_object_mut().unwrap().remove("clientState");
    let foreign = [
        change("clientState", json!("wrong-secret")),
        change("clientState", json!("")),
        change("clientState", json!(hook.state().replace('1', "2"))),
        change("clientState", json!(null)),
        change("tenantId", json!("b81e7c40-55d2-4f0a-8f63-7a9e20c5d6e1")),
        change("tenantId", json!(null)),
        change("clientState", json!("x".repeat(100_000))),
        without,
    ];
    for item in foreign {
        assert_eq!(hook.post(&json!({ "value": [item] })).await, 202);
        assert_eq!(hook.gathered().await, None, "{item}");
    }
}

#[tokio::test]
async fn a_state_made_for_contacts_does_not_speak_for_events() {
    let hook = hook().await;
    let mut item = hook.item("AAk=");
    item["clientState"] = json!(hook.state_for(Resource::Contacts));
    assert_eq!(hook.post(&json!({ "value": [item] })).await, 202);
    assert_eq!(hook.gathered().await, None);
}

#[tokio::test]
async fn odd_but_genuine_notifications_are_understood() {
    let hook = hook().await;
    let mut upper = hook.item("upper");
    upper["changeType"] = json!("Updated");
    upper["resourceData"].as_object_mut().unwrap().remove("@odata.etag");
    upper["sequenceNumber"] = json!(17);
    let mut no_id = hook.item("x");
    no_id["resourceData"] = json!(null);
    let odd = json!("not an object");
    let mut wrong_type = hook.item("wrong");
    wrong_type["clientState"] = json!({ "deep": [1, 2, 3] });
    assert_eq!(hook.post(&json!({ "value": [odd, wrong_type, upper], "validationTokens": null })).await, 202);
    assert_eq!(items(&hook.gathered().await.unwrap()), ["upper"]);
    assert_eq!(hook.post(&json!({ "value": [no_id] })).await, 202);
    assert!(hook.gathered().await.unwrap().overflow, "a change without an item asks for a complete read");
    assert_eq!(hook.post(&json!({ "value": [] })).await, 202);
}

#[tokio::test]
async fn lifecycle_notifications_become_reasons_and_unknown_kinds_do_not() {
    let hook = hook().await;
    for (event, reason) in [
        ("missed", Some(Reason::Missed)),
        ("reauthorizationRequired", Some(Reason::Reauthorize)),
        ("SubscriptionRemoved", Some(Reason::Removed)),
        ("somethingOfTheFuture", None),
    ] {
        let item = json!({
            "subscriptionId": "a4c2e0f8-7b1d-4935-86ca-5e9f3d2b1c07",
            "tenantId": TENANT, "clientState": hook.state(), "lifecycleEvent": event,
        });
        assert_eq!(hook.post(&json!({ "value": [item] })).await, 202);
        let gathered = hook.gathered().await;
        assert_eq!(
            gathered.is_some_and(|gathered| reason.is_some_and(|r| gathered.reasons.contains(r))),
            reason.is_some()
        );
    }
}

#[tokio::test]
async fn thousands_of_items_in_one_post_are_taken() {
    let hook = hook().await;
    let items: Vec<Value> = (0..5_000).map(|n| hook.item(&format!("item-{n}"))).collect();
    assert_eq!(hook.post(&json!({ "value": items })).await, 202);
    assert!(hook.gathered().await.unwrap().overflow);
}

#[tokio::test]
async fn hostile_requests_get_the_documented_status() {
    let hook = hook_with(ReceiverLimits { body_bytes: 100_000, ..ReceiverLimits::default() }).await;
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = hook.client.request(method.parse().unwrap(), hook.url()).send().await.unwrap();
        assert_eq!(answer.status(), 405, "{method}");
    }
    let send = async |kind: &str, encoding: &str, body: Vec<u8>| {
        let request =
            hook.client.post(hook.url()).header("content-type", kind).header("content-encoding", encoding);
        request.body(body).send().await.unwrap().status().as_u16()
    };
    assert_eq!(send("text/plain", "identity", b"{}".to_vec()).await, 415);
    assert_eq!(send("application/json", "gzip", vec![0x1f, 0x8b]).await, 415);
    assert_eq!(send("application/json; charset=utf-8", "identity", b"{\"value\":[]}".to_vec()).await, 202);
    assert_eq!(hook.client.post(hook.url()).body("{}").send().await.unwrap().status(), 415);
    for body in
        ["", "{", "[]", "{}", "null", "\"x\"", "{\"value\":{}}", "{\"value\":null}", "\u{feff}{\"value\":[]}"]
    {
        assert_eq!(hook.post_bytes(body.into()).await, 400, "{body}");
    }
    assert_eq!(hook.post_bytes(vec![0xff, 0xfe, 0x00]).await, 400, "not UTF-8");
    let deep = format!("{{\"value\":{}{}}}", "[".repeat(40_000), "]".repeat(40_000));
    assert_eq!(hook.post_bytes(deep.into_bytes()).await, 400, "nested too deeply");
    let deep_in_unknown = format!("{{\"x\":{}{},\"value\":[]}}", "[".repeat(40_000), "]".repeat(40_000));
    assert!([202, 400].contains(&hook.post_bytes(deep_in_unknown.into_bytes()).await));
    assert_eq!(hook.post_bytes(vec![b' '; 100_001]).await, 413);
    let other = hook.client.post(format!("{}/elsewhere", hook.base)).send().await.unwrap();
    assert_eq!(other.status(), 404);
    assert_eq!(hook.post(&json!({ "value": [hook.item("still alive")] })).await, 202);
}

#[tokio::test]
async fn i1_without_a_store_the_answer_is_503_and_the_next_delivery_is_taken() {
    let hook = hook().await;
    hook.store.fails.store(true, Ordering::SeqCst);
    assert_eq!(hook.post(&json!({ "value": [hook.item("AAk=")] })).await, 503);
    hook.store.fails.store(false, Ordering::SeqCst);
    assert_eq!(hook.post(&json!({ "value": [hook.item("AAk=")] })).await, 202);
    assert!(hook.gathered().await.is_some());
}

#[tokio::test]
async fn i1_a_store_that_hangs_is_not_waited_for() {
    let limits = ReceiverLimits { store_within: Duration::from_millis(20), ..ReceiverLimits::default() };
    let hook = hook_with(limits).await;
    hook.store.hangs.store(true, Ordering::SeqCst);
    assert_eq!(hook.post(&json!({ "value": [hook.item("AAk=")] })).await, 503);
}

#[tokio::test]
async fn more_requests_than_allowed_are_sent_away() {
    let hook = hook_with(ReceiverLimits { requests: 1, ..ReceiverLimits::default() }).await;
    hook.store.hangs.store(true, Ordering::SeqCst);
    let first = {
        let (client, url) = (hook.client.clone(), hook.url());
        let body = json!({ "value": [hook.item("a")] }).to_string();
        tokio::spawn(async move {
            client.post(url).header("content-type", "application/json").body(body).send().await
        })
    };
    // The one place is taken once the handler is in the store; until then a second request may still get it.
    let limit = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let status = hook.post(&json!({ "value": [] })).await;
        if status == 503 {
            break;
        }
        assert!(tokio::time::Instant::now() < limit, "never full");
    }
    first.abort();
}
