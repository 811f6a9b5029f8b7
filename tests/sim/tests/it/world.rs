//! What all tests start from: a simulator with two tenants, and an endpoint of a product.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use narvaro_sim::{AppSpec, Sim, SimOptions, TenantSpec, UserSpec};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const APP: &str = "6d2f4b8e-91c7-4a3d-b0e5-5f7c8a1e2d34";
pub(crate) const SECRET: &str = "s3cret~value";
pub(crate) const SCOPE: &str = "https://graph.microsoft.com/.default";
pub(crate) const CONTOSO: &str = "3f6c1a52-0b7e-4c1d-9a55-1c2f7e9b4d10";
pub(crate) const FABRIKAM: &str = "b81e7c40-55d2-4f0a-8f63-7a9e20c5d6e1";
pub(crate) const ANNA: &str = "anna@contoso.example";
pub(crate) const BO: &str = "bo@fabrikam.example";

pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) http: reqwest::Client,
    pub(crate) token: String,
    pub(crate) anna: String,
    pub(crate) bo: String,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(SimOptions::default()).await
    }

    pub(crate) async fn with(options: SimOptions) -> Self {
        let sim = Sim::start(options).await.unwrap();
        for (id, domain) in [(CONTOSO, "contoso.example"), (FABRIKAM, "fabrikam.example")] {
            sim.add_tenant(TenantSpec {
                id: id.to_owned(),
                domain: domain.to_owned(),
                ..TenantSpec::default()
            })
            .unwrap();
        }
        sim.add_app(AppSpec {
            redirect_uris: vec!["https://presence.example.net/callback".to_owned()],
            ..AppSpec::new(APP, SECRET)
        })
        .unwrap();
        sim.consent(CONTOSO, APP).unwrap();
        let anna = sim
            .add_user(
                CONTOSO,
                UserSpec {
                    proxies: vec!["anna.berg@contoso.example".to_owned()],
                    upn: "aberg@corp.contoso.example".to_owned(),
                    ..UserSpec::new(ANNA)
                },
            )
            .unwrap();
        let bo = sim.add_user(FABRIKAM, UserSpec::new(BO)).unwrap();
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        let mut world = Self { sim, http, token: String::new(), anna, bo };
        world.token = world.token_for(CONTOSO).await;
        world
    }

    pub(crate) async fn ask_token(&self, tenant: &str, form: &[(&str, &str)]) -> (u16, Value) {
        let url = format!("{}/{tenant}/oauth2/v2.0/token", self.sim.login_url());
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let answer = self
            .http
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub(crate) async fn token_for(&self, tenant: &str) -> String {
        let (status, body) = self
            .ask_token(
                tenant,
                &[
                    ("grant_type", "client_credentials"),
                    ("client_id", APP),
                    ("client_secret", SECRET),
                    ("scope", SCOPE),
                ],
            )
            .await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    /// A Graph request with token and immutable ids; `path` may be a whole URL.
    pub(crate) fn graph(&self, method: Method, path: &str) -> RequestBuilder {
        self.plain(method, path).header("prefer", "IdType=\"ImmutableId\"")
    }

    /// The same without a preference for ids.
    pub(crate) fn plain(&self, method: Method, path: &str) -> RequestBuilder {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}{path}", self.sim.graph_url())
        };
        self.http.request(method, url).bearer_auth(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.graph(Method::GET, path)).await
    }

    pub(crate) fn subscription(&self, hook: &Hook) -> Value {
        let expires = self.sim.clock().now() + jiff::SignedDuration::from_hours(72);
        json!({
            "changeType": "created,updated,deleted",
            "notificationUrl": hook.url("/notify?t=contoso"),
            "lifecycleNotificationUrl": hook.url("/lifecycle"),
            "resource": format!("/users/{}/events", self.anna),
            "expirationDateTime": expires.to_string(),
            "clientState": "state-1",
        })
    }

    pub(crate) async fn create(&self, body: &Value) -> (u16, Value) {
        answer(self.graph(Method::POST, "/subscriptions").json(body)).await
    }

    pub(crate) async fn subscribe(&self, hook: &Hook) -> String {
        let (status, body) = self.create(&self.subscription(hook)).await;
        assert_eq!(status, 201, "{body}");
        body["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn view(&self, from: &str, to: &str, more: &str) -> Vec<Value> {
        let path = format!(
            "/users/{}/calendarView?startDateTime={from}&endDateTime={to}&$orderby=start/dateTime&$top=1000{more}",
            self.anna
        );
        let (status, body) = self.get(&path).await;
        assert_eq!(status, 200, "{body}");
        body["value"].as_array().unwrap().clone()
    }

    pub(crate) fn rules_broken(&self) -> Vec<String> {
        self.sim
            .violations()
            .iter()
            .map(|entry| match &entry.record {
                narvaro_sim::Record::Violation { rule, .. } => (*rule).to_owned(),
                other => format!("{other:?}"),
            })
            .collect()
    }
}

pub(crate) async fn answer(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// How an endpoint answers a validation request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    Right,
    Accepted,
    Json,
    StillEncoded,
    Newline,
    Never,
}

pub(crate) struct HookState {
    pub(crate) handshake: Handshake,
    /// Statuses for the next notifications; 0 = never answer; empty = 202.
    pub(crate) statuses: Vec<u16>,
    pub(crate) posts: Vec<(String, Value)>,
    pub(crate) validations: Vec<String>,
}

/// The product's endpoint.
pub(crate) struct Hook {
    address: String,
    pub(crate) state: Arc<Mutex<HookState>>,
    changed: watch::Sender<usize>,
}

impl Hook {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hook = Self {
            address: listener.local_addr().unwrap().to_string(),
            state: Arc::new(Mutex::new(HookState {
                handshake: Handshake::Right,
                statuses: Vec::new(),
                posts: Vec::new(),
                validations: Vec::new(),
            })),
            changed: watch::Sender::new(0),
        };
        let (state, changed) = (hook.state.clone(), hook.changed.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(talk(stream, state.clone(), changed.clone()));
            }
        });
        hook
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn handshake(&self, handshake: Handshake) {
        self.state.lock().unwrap().handshake = handshake;
    }

    /// Notifications received, whatever was answered.
    pub(crate) fn items(&self) -> Vec<Value> {
        self.state
            .lock()
            .unwrap()
            .posts
            .iter()
            .flat_map(|(_, body)| body["value"].as_array().unwrap().clone())
            .collect()
    }

    pub(crate) async fn until(&self, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                changed.borrow_and_update();
                let items = self.items();
                if holds(&items) {
                    return items;
                }
                changed.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(LIMIT, wait).await;
        waited.unwrap_or_else(|_| panic!("still only {:#?}", self.items()))
    }
}

async fn talk(mut stream: TcpStream, state: Arc<Mutex<HookState>>, changed: watch::Sender<usize>) {
    let mut buffer = Vec::new();
    loop {
        let Some((head, body, used)) = next_request(&mut stream, &buffer).await else {
            return;
        };
        buffer.drain(..used.min(buffer.len()));
        let target = head.split(' ').nth(1).unwrap().to_owned();
        let token = target.split_once("validationToken=").map(|(_, token)| token.to_owned());
        let text = if let Some(encoded) = token {
            let decoded: String = form_urlencoded::parse(format!("t={encoded}").as_bytes())
                .map(|(_, value)| value.into_owned())
                .collect();
            let handshake = {
                let mut state = state.lock().unwrap();
                state.validations.push(target.clone());
                state.handshake
            };
            match handshake {
                Handshake::Right => reply(200, "text/plain; charset=utf-8", &decoded),
                Handshake::Accepted => reply(202, "text/plain", &decoded),
                Handshake::Json => reply(200, "application/json", &decoded),
                Handshake::StillEncoded => reply(200, "text/plain", &encoded),
                Handshake::Newline => reply(200, "text/plain", &format!("{decoded}\n")),
                Handshake::Never => return std::future::pending().await,
            }
        } else {
            let status = {
                let mut state = state.lock().unwrap();
                state.posts.push((target, serde_json::from_slice(&body).unwrap()));
                if state.statuses.is_empty() { 202 } else { state.statuses.remove(0) }
            };
            changed.send_modify(|count| *count += 1);
            if status == 0 {
                return std::future::pending().await;
            }
            reply(status, "text/plain", "")
        };
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn reply(status: u16, kind: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Reads a request with a length; answers head, body and the bytes used of `seen`.
async fn next_request(stream: &mut TcpStream, seen: &[u8]) -> Option<(String, Vec<u8>, usize)> {
    let mut bytes = seen.to_vec();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length: usize = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, value)| value.trim().parse().unwrap());
            if bytes.len() >= end + 4 + length {
                let body = bytes[end + 4..end + 4 + length].to_vec();
                return Some((head, body, end + 4 + length));
            }
        }
        let mut more = [0_u8; 65_536];
        let count = stream.read(&mut more).await.ok()?;
        if count == 0 {
            return None;
        }
        bytes.extend_from_slice(&more[..count]);
    }
}
