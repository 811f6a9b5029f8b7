//! A strict stand-in for Graph and its login service, fixtures, and a clock that stands still.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet};
use url::Url;

use super::{AppCredential, Cloud, Graph, GraphCompany, GraphConfig};
use crate::clock::{Clock, SharedClock, Sleep};

pub(super) const TENANT: &str = "3f6c1a52-0b7e-4c1d-9a55-1c2f7e9b4d10";
pub(super) const CLIENT: &str = "6d2f4b8e-91c7-4a3d-b0e5-5f7c8a1e2d34";
pub(super) const ANNA: &str = "7b0a9f1c-3d52-4e86-8c17-2f6e5d4c3b21";

macro_rules! fixtures {
    ($($name:literal),* $(,)?) => {
        /// A recorded document by its name.
        pub(super) fn fixture(name: &str) -> Value {
            let text = match name {
                $($name => include_str!(concat!("fixtures/", $name)),)*
                other => panic!("no fixture `{other}`"),
            };
            serde_json::from_str(text).unwrap()
        }
    };
}

fixtures!(
    "admin-consent-callbacks.json",
    "batch-response-mixed.json",
    "calendarview-delta-410.json",
    "calendarview-delta-empty-page-with-nextlink.json",
    "calendarview-delta-final-page.json",
    "calendarview-delta-page1.json",
    "calendarview-delta-removed.json",
    "errors.json",
    "event-all-day.json",
    "event-cancelled.json",
    "event-exception.json",
    "event-get-deleted-404.json",
    "event-instances.json",
    "event-occurrence.json",
    "event-private.json",
    "event-series-master.json",
    "event-single.json",
    "events-showas-matrix.json",
    "subscription-create-response.json",
    "subscription-list-response.json",
    "subscription-renew.json",
    "token-errors.json",
    "users-lookup.json",
);

/// A certificate and its RSA key, both as PEM.
pub(super) fn certificate() -> (String, String) {
    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let params = rcgen::CertificateParams::new(vec!["narvaro.example".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// A clock that is moved by hand. Whoever sleeps by it fails the test, unless that was allowed.
pub(super) struct HandClock {
    now: Mutex<Timestamp>,
    may_sleep: AtomicBool,
}

impl HandClock {
    pub(super) fn advance(&self, by: Duration) {
        let mut now = self.now.lock().unwrap();
        *now = now.checked_add(by).unwrap();
    }

    /// From now on whoever sleeps wakes at once, and the clock has moved to that moment.
    pub(super) fn let_sleep(&self) {
        self.may_sleep.store(true, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }

    fn sleep_until(&self, at: Timestamp) -> Sleep {
        assert!(self.may_sleep.load(Ordering::Relaxed), "nothing here may sleep");
        let mut now = self.now.lock().unwrap();
        *now = at.max(*now);
        Box::pin(std::future::ready(()))
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }
}

/// What is answered.
#[derive(Clone)]
pub(super) struct Reply(StatusCode, Vec<(&'static str, String)>, Vec<u8>);

impl Reply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        let json = ("content-type", "application/json".to_owned());
        Self(StatusCode::from_u16(status).unwrap(), vec![json], serde_json::to_vec(body).unwrap())
    }

    pub(super) fn text(status: u16, body: &str) -> Self {
        Self(StatusCode::from_u16(status).unwrap(), Vec::new(), body.as_bytes().to_vec())
    }

    pub(super) fn refusal(status: u16, code: &str) -> Self {
        Self::json(status, &json!({"error": {"code": code, "message": "as you like it"}}))
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.1.push((name, value.to_owned()));
        self
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = Response::builder().status(self.0);
        for (name, value) in self.1 {
            response = response.header(name, value);
        }
        response.body(Body::from(self.2)).unwrap()
    }
}

#[derive(Default)]
struct Script {
    /// Answers of Graph, in order, to requests and to parts of batches alike.
    graph: VecDeque<Reply>,
    /// Answers to whole batches; when none is left, batches are answered part by part.
    batches: VecDeque<Reply>,
    /// Answers to requests whose target has this in it, ever again.
    always: Vec<(&'static str, Reply)>,
    /// How long the next requests have to wait for their answers.
    held: VecDeque<oneshot::Receiver<()>>,
    /// Answers of the login service, in order; when none is left, tokens `token-1`, `token-2`, ...
    login: VecDeque<Reply>,
    tokens: u32,
    seen: Vec<Seen>,
}

/// Graph and its login service, on the loopback, for as long as it is held.
pub(super) struct Fake {
    pub(super) base: Url,
    pub(super) clock: Arc<HandClock>,
    script: Arc<Mutex<Script>>,
    _server: JoinSet<()>,
}

impl Fake {
    pub(super) async fn start() -> Self {
        let script = Arc::new(Mutex::new(Script::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let app = Router::new().fallback(answer).with_state(Arc::clone(&script));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.unwrap() });
        let clock = Arc::new(HandClock {
            now: Mutex::new("2026-11-22T20:00:00Z".parse().unwrap()),
            may_sleep: AtomicBool::new(false),
        });
        Self { base, clock, script, _server: server }
    }

    /// Graph's next answer.
    pub(super) fn graph(&self, reply: Reply) -> &Self {
        self.script.lock().unwrap().graph.push_back(reply);
        self
    }

    /// The answer to the next batch as a whole.
    pub(super) fn batch(&self, reply: Reply) -> &Self {
        self.script.lock().unwrap().batches.push_back(reply);
        self
    }

    /// The answer to every request whose target has `part` in it.
    pub(super) fn always(&self, part: &'static str, reply: Reply) -> &Self {
        self.script.lock().unwrap().always.push((part, reply));
        self
    }

    /// Keeps the next request waiting until what this returns is dropped.
    pub(super) fn hold(&self) -> oneshot::Sender<()> {
        let (release, held) = oneshot::channel();
        self.script.lock().unwrap().held.push_back(held);
        release
    }

    /// Waits until Graph has seen so many requests, parts of batches included.
    pub(super) async fn until_seen(&self, count: usize) {
        while self.seen().len() < count {
            tokio::task::yield_now().await;
        }
    }

    /// The login service's next answer.
    pub(super) fn login(&self, reply: Reply) -> &Self {
        self.script.lock().unwrap().login.push_back(reply);
        self
    }

    /// Requests that Graph saw, parts of batches included and batches left out.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.all().into_iter().filter(|seen| !is_login(seen) && !is_batch(seen)).collect()
    }

    /// Batches that Graph saw.
    pub(super) fn batches(&self) -> Vec<Seen> {
        self.all().into_iter().filter(is_batch).collect()
    }

    /// Requests that the login service saw.
    pub(super) fn logins(&self) -> Vec<Seen> {
        self.all().into_iter().filter(is_login).collect()
    }

    /// Whether all that was to be answered has been asked for.
    pub(super) fn is_done(&self) -> bool {
        let script = self.script.lock().unwrap();
        script.graph.is_empty() && script.batches.is_empty() && script.login.is_empty()
    }

    fn all(&self) -> Vec<Seen> {
        self.script.lock().unwrap().seen.clone()
    }

    pub(super) fn company(&self) -> Arc<GraphCompany> {
        self.company_with(AppCredential::Secret("s3cret".into()))
    }

    pub(super) fn company_with(&self, credential: AppCredential) -> Arc<GraphCompany> {
        let cloud = Cloud::custom(self.base.clone(), self.base.clone(), true).unwrap();
        let clock: SharedClock = Arc::clone(&self.clock) as SharedClock;
        let config = GraphConfig { cloud, client_id: CLIENT.to_owned(), credential };
        Graph::new(config, clock).unwrap().company(TENANT.parse().unwrap())
    }
}

fn is_login(seen: &Seen) -> bool {
    seen.target.ends_with("/oauth2/v2.0/token")
}

fn is_batch(seen: &Seen) -> bool {
    seen.target == "/v1.0/$batch"
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Reply {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let target = parts.uri.path_and_query().unwrap().to_string();
    let seen = Seen { method: parts.method, target, headers: parts.headers, body };
    let held = {
        let mut script = script.lock().unwrap();
        script.seen.push(seen.clone());
        if is_login(&seen) { None } else { script.held.pop_front() }
    };
    if let Some(held) = held {
        // The sender is dropped and never used.
        let _released = held.await;
    }
    let mut script = script.lock().unwrap();
    if is_login(&seen) {
        return script.log_in();
    }
    if seen.method == Method::POST && !seen.headers.contains_key(header::CONTENT_LENGTH) {
        return Reply::text(411, "");
    }
    if is_batch(&seen) {
        return script.batches.pop_front().unwrap_or_else(|| script.part_by_part(&seen));
    }
    script.next(&seen.target)
}

impl Script {
    fn log_in(&mut self) -> Reply {
        self.login.pop_front().unwrap_or_else(|| {
            self.tokens += 1;
            let token = format!("token-{}", self.tokens);
            Reply::json(200, &json!({"token_type": "Bearer", "expires_in": 3600, "access_token": token}))
        })
    }

    fn next(&mut self, target: &str) -> Reply {
        if let Some((_, reply)) = self.always.iter().find(|(part, _)| target.contains(part)) {
            return reply.clone();
        }
        self.graph.pop_front().unwrap_or_else(|| Reply::text(599, "not in the script"))
    }

    /// Takes a batch apart, and puts the answers together with the last in front.
    fn part_by_part(&mut self, batch: &Seen) -> Reply {
        let document: Value = serde_json::from_slice(&batch.body).unwrap();
        let mut responses = VecDeque::new();
        for part in document["requests"].as_array().unwrap() {
            let mut headers = batch.headers.clone();
            let token = headers.remove(header::AUTHORIZATION).unwrap();
            headers.clear();
            headers.insert(header::AUTHORIZATION, token);
            for (name, value) in part["headers"].as_object().unwrap() {
                let name: header::HeaderName = name.parse().unwrap();
                headers.insert(name, value.as_str().unwrap().parse().unwrap());
            }
            let method = part["method"].as_str().unwrap().parse().unwrap();
            let target = format!("/v1.0{}", part["url"].as_str().unwrap());
            let Reply(status, answered, body) = self.next(&target);
            self.seen.push(Seen { method, target, headers, body: Bytes::new() });
            let headers: serde_json::Map<_, _> =
                answered.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            responses.push_front(
                json!({"id": part["id"], "status": status.as_u16(), "headers": headers, "body": body}),
            );
        }
        Reply::json(200, &json!({ "responses": responses }))
    }
}
