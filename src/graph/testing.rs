//! A strict stand-in for Graph and its login service, fixtures, and a clock that stands still.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
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
use tokio::{net::TcpListener, task::JoinSet};
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
    "rich-notification.json",
    "rich-notification-vector.json",
    "subscription-create-response.json",
    "subscription-list-response.json",
    "subscription-renew.json",
    "token-errors.json",
    "users-lookup.json",
    "validation-tokens.json",
);

/// A certificate and its RSA key, both as PEM.
pub(super) fn certificate() -> (String, String) {
    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let params = rcgen::CertificateParams::new(vec!["narvaro.example".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// A clock that is moved by hand.
pub(super) struct HandClock(Mutex<Timestamp>);

impl HandClock {
    pub(super) fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap();
        *now = now.checked_add(by).unwrap();
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    fn sleep_until(&self, _: Timestamp) -> Sleep {
        panic!("nothing here may sleep")
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
    /// Answers of Graph, in order.
    graph: VecDeque<Reply>,
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
        let clock = Arc::new(HandClock(Mutex::new("2026-11-22T20:00:00Z".parse().unwrap())));
        Self { base, clock, script, _server: server }
    }

    /// Graph's next answer.
    pub(super) fn graph(&self, reply: Reply) -> &Self {
        self.script.lock().unwrap().graph.push_back(reply);
        self
    }

    /// The login service's next answer.
    pub(super) fn login(&self, reply: Reply) -> &Self {
        self.script.lock().unwrap().login.push_back(reply);
        self
    }

    /// Requests that Graph saw.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.all().into_iter().filter(|seen| !is_login(seen)).collect()
    }

    /// Requests that the login service saw.
    pub(super) fn logins(&self) -> Vec<Seen> {
        self.all().into_iter().filter(is_login).collect()
    }

    /// Whether all that was to be answered has been asked for.
    pub(super) fn is_done(&self) -> bool {
        let script = self.script.lock().unwrap();
        script.graph.is_empty() && script.login.is_empty()
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

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Reply {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let target = parts.uri.path_and_query().unwrap().to_string();
    let seen = Seen { method: parts.method, target, headers: parts.headers, body };
    let mut script = script.lock().unwrap();
    script.seen.push(seen.clone());
    if is_login(&seen) {
        if let Some(reply) = script.login.pop_front() {
            return reply;
        }
        script.tokens += 1;
        let token = format!("token-{}", script.tokens);
        return Reply::json(200, &json!({"token_type": "Bearer", "expires_in": 3600, "access_token": token}));
    }
    if seen.method == Method::POST && !seen.headers.contains_key(header::CONTENT_LENGTH) {
        return Reply::text(411, "");
    }
    script.graph.pop_front().unwrap_or_else(|| Reply::text(599, "not in the script"))
}
