//! The driver against a real server on this machine, with a clock that only the test moves.

mod auth;
mod guarding;
mod ordering;
mod presets;
mod reading;
mod retries;
mod templates;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderMap, Method, Uri},
    response::{IntoResponse, Response},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value as Json;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use super::{HttpPbx, HttpPbxConfig, ProcessLimits};
use crate::{
    clock::{Clock, Sleep},
    model::{AsteriskState, AsteriskTerms, Extension, Generation, Outward, PbxTerms, Profile, Shown, Wanted},
    presence::{PbxDriver, PbxError, Stands, Write},
};

/// When the tests take place.
const NOW: &str = "2026-11-23T08:00:00Z";

/// One request as it arrived.
#[derive(Debug, Clone)]
struct Seen {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| std::str::from_utf8(value.as_bytes()).unwrap())
    }

    fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A server that answers as the test says and remembers what it was asked.
struct Server {
    base: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    count: watch::Receiver<usize>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// `answer` gets each request and its number, from 0.
    async fn start<F, A>(answer: F) -> Self
    where
        F: Fn(Seen, usize) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response> + Send,
    {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (counter, count) = watch::channel(0);
        let log = seen.clone();
        let handler = move |request: Request<Body>| {
            let (log, counter, answer) = (log.clone(), counter.clone(), answer.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
                let request = Seen { method: parts.method, uri: parts.uri, headers: parts.headers, body };
                let number = {
                    let mut log = log.lock().unwrap();
                    log.push(request.clone());
                    log.len() - 1
                };
                counter.send_replace(number + 1);
                answer(request, number).await
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await.unwrap() });
        Self { base, seen, count, _tasks: tasks }
    }

    /// A server that always answers alike.
    async fn always(status: u16, body: &'static str) -> Self {
        Self::start(move |_, _| async move { answer(status, body) }).await
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    async fn until_asked(&self, times: usize) {
        self.count.clone().wait_for(|count| *count >= times).await.unwrap();
    }
}

fn answer(status: u16, body: &'static str) -> Response {
    (axum::http::StatusCode::from_u16(status).unwrap(), body).into_response()
}

/// A clock that stands still until the test moves it.
#[derive(Debug)]
struct ManualClock {
    now: watch::Sender<Timestamp>,
    waiting: watch::Sender<Vec<Timestamp>>,
}

impl ManualClock {
    fn new() -> Arc<Self> {
        let now = watch::Sender::new(NOW.parse().unwrap());
        Arc::new(Self { now, waiting: watch::Sender::new(Vec::new()) })
    }

    fn advance(&self, by: Duration) {
        self.now.send_modify(|now| *now += SignedDuration::try_from(by).unwrap());
    }

    /// The moment that the `n`-th sleeper, from 1, waits for; waits until there is one.
    async fn sleeper(&self, n: usize) -> Timestamp {
        self.waiting.subscribe().wait_for(|waiting| waiting.len() >= n).await.unwrap()[n - 1]
    }

    /// Moves to where the `n`-th sleeper wakes; returns how long that took.
    async fn pass_sleep(&self, n: usize) -> SignedDuration {
        let until = self.sleeper(n).await;
        let wait = until.duration_since(self.now());
        self.now.send_modify(|now| *now = until.max(*now));
        wait
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    fn sleep_until(&self, at: Timestamp) -> Sleep {
        self.waiting.send_modify(|waiting| waiting.push(at));
        let mut now = self.now.subscribe();
        Box::pin(async move {
            now.wait_for(|now| *now >= at).await.unwrap();
        })
    }
}

/// A driver, its server and its clock.
struct Bench {
    pbx: Arc<HttpPbx>,
    clock: Arc<ManualClock>,
    server: Server,
}

impl Bench {
    /// `settings` is the table `[pbx.http]` without `base_url`; `BASE` in it is the server's address.
    fn new(server: Server, settings: &str) -> Self {
        let clock = ManualClock::new();
        let config = config(&settings.replace("BASE", &server.base), &server.base);
        let pbx = HttpPbx::new(&config, loopback(), "acme".parse().unwrap(), clock.clone()).unwrap();
        Self { pbx, clock, server }
    }

    async fn set(&self, wanted: &Wanted) -> Result<Shown, PbxError> {
        self.set_as(wanted, 1, "t-1").await
    }

    async fn set_as(&self, wanted: &Wanted, generation: u64, transition: &str) -> Result<Shown, PbxError> {
        set(&self.pbx, "1001", wanted, generation, transition).await
    }
}

/// Sets `wanted`; the test has half a minute on its clock.
async fn set(
    pbx: &HttpPbx,
    extension: &str,
    wanted: &Wanted,
    generation: u64,
    transition: &str,
) -> Result<Shown, PbxError> {
    let extension: Extension = extension.parse().unwrap();
    pbx.set(write(&extension, wanted, generation, transition)).await
}

fn write<'a>(
    extension: &'a Extension,
    wanted: &'a Wanted,
    generation: u64,
    transition: &'a str,
) -> Write<'a> {
    Write {
        extension,
        wanted,
        previous: None,
        generation: Generation(generation),
        transition,
        within: Duration::from_secs(30),
        stands: Stands::new(&|_| true),
    }
}

fn config(settings: &str, base: &str) -> HttpPbxConfig {
    toml::from_str(&format!("base_url = \"{base}\"\nallow_plain_http = true\n{settings}")).unwrap()
}

fn loopback() -> ProcessLimits {
    ProcessLimits { allow_loopback: true, ..ProcessLimits::default() }
}

/// A minimal `set` request, the last table of settings.
const SET: &str = "[set]\nmethod = \"POST\"\npath = \"/set\"\njson = { state = \"{profile.id}\" }\n";

fn terms(http: &[(&str, &str)]) -> PbxTerms {
    let http: BTreeMap<_, _> = http.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    PbxTerms { asterisk: AsteriskTerms { state: AsteriskState::Away, dnd: false }, http }
}

fn outward(label: &str) -> Outward {
    Outward {
        profile: "meeting".parse().unwrap(),
        label: label.to_owned(),
        note: String::new(),
        until: None,
        available_at: None,
        terms: terms(&[("state", "away"), ("status", "away"), ("name", "Away"), ("presence", "Meeting")]),
    }
}

fn meeting() -> Wanted {
    Wanted::Profile(outward("Möte"))
}

fn until_three() -> Wanted {
    let until = Some("2026-11-23T14:00:00Z".parse().unwrap());
    Wanted::Profile(Outward { note: "till 15:00".to_owned(), until, ..outward("Möte") })
}

fn profile(id: &str, http: &[(&str, &str)]) -> Profile {
    Profile {
        id: id.parse().unwrap(),
        name_sv: id.to_owned(),
        name_en: id.to_owned(),
        label: None,
        sensitive: false,
        triggers: Vec::new(),
        own_triggers: Vec::new(),
        before_start_secs: 0,
        after_end_secs: 0,
        calendar_may_not_override: false,
        is_available: false,
        pbx: terms(http),
    }
}
