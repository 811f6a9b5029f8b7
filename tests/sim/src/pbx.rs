//! The HTTP PBX stand-in: one presence per extension, with several ways to log in, faults,
//! and a check of signed requests.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::sync::watch;

use crate::{
    error::SimError,
    http::{Ending, Reply, Request},
    journal::{PbxWrite, Record, millis},
    lock,
    world::World,
};

/// How the PBX wants its callers to prove who they are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum PbxAuth {
    /// Not at all.
    #[default]
    None,
    /// HTTP Basic.
    Basic {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
    /// A fixed bearer token.
    Bearer {
        /// The token.
        token: String,
    },
    /// A key in a header.
    ApiKey {
        /// Header name.
        header: String,
        /// The key.
        key: String,
    },
    /// Tokens from `/pbx/oauth/token`.
    OAuth2 {
        /// Client id.
        client_id: String,
        /// Client secret.
        client_secret: String,
        /// Life of a token.
        lifetime_secs: u32,
    },
}

/// What goes wrong with the next writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum PbxFault {
    /// Answers a status and does nothing.
    Status {
        /// HTTP status.
        status: u16,
        /// Seconds in `Retry-After`.
        #[serde(default)]
        retry_after: Option<f64>,
    },
    /// Answers right, but late.
    Slow {
        /// Milliseconds of delay.
        millis: u64,
    },
    /// Does nothing and drops the connection.
    Drop,
    /// Applies the change and drops the connection without an answer.
    CutAfterApply,
    /// Answers 200 with this `errcode` in the body and does nothing.
    Errcode {
        /// The code, not 0.
        errcode: i64,
    },
}

/// What an extension shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PbxPresence {
    /// Profile name; empty = nothing was ever set.
    pub profile: String,
    /// Text for others.
    pub text: Option<String>,
    /// End, as written.
    pub until: Option<String>,
    /// Whether it was set by hand.
    pub manual: bool,
}

#[derive(Default)]
pub(crate) struct PbxState {
    companies: Mutex<HashMap<String, Company>>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Company {
    auth: PbxAuth,
    signing_secret: Option<String>,
    faults: VecDeque<(PbxFault, u32)>,
    extensions: HashMap<String, PbxPresence>,
    in_flight: HashMap<String, u32>,
    tokens: HashMap<String, Timestamp>,
    wait_until: Option<Timestamp>,
}

/// Counts a request in flight for an extension.
struct Busy<'a> {
    state: &'a PbxState,
    company: &'a str,
    extension: &'a str,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(company) = lock(&self.state.companies).get_mut(self.company)
            && let Some(count) = company.in_flight.get_mut(self.extension)
        {
            *count = count.saturating_sub(1);
        }
    }
}

impl PbxState {
    fn with<T>(&self, company: &str, act: impl FnOnce(&mut Company) -> T) -> T {
        act(lock(&self.companies).entry(company.to_owned()).or_default())
    }

    pub(crate) fn presence(&self, company: &str, extension: &str) -> PbxPresence {
        self.with(company, |company| company.extensions.get(extension).cloned().unwrap_or_default())
    }

    pub(crate) fn all(&self, company: &str) -> HashMap<String, PbxPresence> {
        self.with(company, |company| company.extensions.clone())
    }

    pub(crate) fn companies(&self) -> Vec<String> {
        lock(&self.companies).keys().cloned().collect()
    }

    pub(crate) fn set_auth(&self, company: &str, auth: PbxAuth) {
        self.with(company, |company| {
            company.auth = auth;
            company.tokens.clear();
        });
    }

    pub(crate) fn set_signing_secret(&self, company: &str, secret: Option<String>) {
        self.with(company, |company| company.signing_secret = secret);
    }

    pub(crate) fn add_fault(&self, company: &str, fault: PbxFault, times: u32) {
        self.with(company, |company| company.faults.push_back((fault, times)));
    }

    pub(crate) fn clear_faults(&self, company: &str) {
        self.with(company, |company| company.faults.clear());
    }

    pub(crate) fn revoke_tokens(&self, company: &str) {
        self.with(company, |company| company.tokens.clear());
    }

    pub(crate) fn wipe(&self, company: &str) {
        self.with(company, |company| company.extensions.clear());
        self.changed.send_modify(|count| *count += 1);
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn set_by_hand(&self, world: &World, company: &str, extension: &str, presence: PbxPresence) {
        world.journal.write(Record::Pbx(PbxWrite {
            company: company.to_owned(),
            extension: extension.to_owned(),
            status: 200,
            applied: true,
            profile: presence.profile.clone(),
            text: presence.text.clone(),
            until: presence.until.clone(),
            request_id: None,
            by_hand: true,
            took_ms: 0,
        }));
        self.with(company, |company| {
            company.extensions.insert(extension.to_owned(), PbxPresence { manual: true, ..presence })
        });
        self.changed.send_modify(|count| *count += 1);
    }
}

/// Everything under `/pbx`.
pub(crate) async fn handle(world: &Arc<World>, request: &Request, rest: &[&str]) -> Reply {
    match rest {
        ["oauth", "token"] => token(world, request),
        [company, "extensions", extension, "presence"] => match request.method.as_str() {
            "GET" => match authorize(world, request, company) {
                Ok(()) => Reply::json(200, &json!(world.pbx.presence(company, extension))),
                Err(reply) => *reply,
            },
            "PUT" => put(world, request, company, extension).await,
            _ => Reply::empty(405),
        },
        _ => Reply::json(404, &json!({"errcode": 404, "errmsg": "no such page"})),
    }
}

fn token(world: &World, request: &Request) -> Reply {
    if request.method != "POST" {
        return Reply::empty(405);
    }
    let form: HashMap<String, String> = request.form().into_iter().collect();
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let (mut id, mut secret) = (field("client_id").to_owned(), field("client_secret").to_owned());
    if let Some((user, password)) = basic(request) {
        (id, secret) = (user, password);
    }
    if field("grant_type") != "client_credentials" {
        return Reply::json(400, &json!({"error": "unsupported_grant_type"}));
    }
    let now = world.clock.now();
    let mut companies = lock(&world.pbx.companies);
    for company in companies.values_mut() {
        let PbxAuth::OAuth2 { client_id, client_secret, lifetime_secs } = &company.auth else {
            continue;
        };
        if *client_id == id && *client_secret == secret {
            let token = format!("pbx.{}", uuid::Uuid::new_v4().simple());
            let life = SignedDuration::from_secs(i64::from(*lifetime_secs));
            let until = now.checked_add(life).unwrap_or(Timestamp::MAX);
            company.tokens.insert(token.clone(), until);
            return Reply::json(
                200,
                &json!({"token_type": "Bearer", "access_token": token, "expires_in": lifetime_secs}),
            );
        }
    }
    Reply::json(401, &json!({"error": "invalid_client"}))
}

fn basic(request: &Request) -> Option<(String, String)> {
    let encoded = request.header("authorization")?.strip_prefix("Basic ")?;
    let text = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn authorize(world: &World, request: &Request, company: &str) -> Result<(), Box<Reply>> {
    let bearer = || request.header("authorization")?.strip_prefix("Bearer ");
    let now = world.clock.now();
    let good = world.pbx.with(company, |company| match &company.auth {
        PbxAuth::None => true,
        PbxAuth::Basic { user, password } => {
            basic(request).is_some_and(|(u, p)| u == *user && p == *password)
        }
        PbxAuth::Bearer { token } => bearer() == Some(token.as_str()),
        PbxAuth::ApiKey { header, key } => request.header(header) == Some(key.as_str()),
        PbxAuth::OAuth2 { .. } => {
            bearer().and_then(|token| company.tokens.get(token)).is_some_and(|until| *until > now)
        }
    });
    if good {
        Ok(())
    } else {
        Err(Box::new(Reply::json(401, &json!({"errcode": 401, "errmsg": "unauthorized"}))))
    }
}

/// Checks a Standard Webhooks signature.
fn signature_problem(request: &Request, secret: &str, now: Timestamp) -> Option<String> {
    let need = |name: &str| request.header(name).ok_or_else(|| format!("{name} missing"));
    let check = || -> Result<(), String> {
        let (id, at) = (need("webhook-id")?, need("webhook-timestamp")?);
        let signatures = need("webhook-signature")?;
        let secs: i64 = at.parse().map_err(|_| "webhook-timestamp is no number")?;
        if (now.as_second() - secs).abs() > 300 {
            return Err(format!("webhook-timestamp is off by {} s", now.as_second() - secs));
        }
        let key = BASE64_STANDARD
            .decode(secret.strip_prefix("whsec_").unwrap_or(secret))
            .map_err(|_| "the configured secret is not base64")?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| "key length")?;
        mac.update(format!("{id}.{at}.").as_bytes());
        mac.update(&request.body);
        let right = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        if signatures.split(' ').any(|one| one.strip_prefix("v1,") == Some(right.as_str())) {
            Ok(())
        } else {
            Err("signature does not fit".to_owned())
        }
    };
    check().err()
}

async fn put(world: &Arc<World>, request: &Request, company: &str, extension: &str) -> Reply {
    let state = &world.pbx;
    let (now, started) = (world.clock.now(), Instant::now());
    let mut write = PbxWrite {
        company: company.to_owned(),
        extension: extension.to_owned(),
        request_id: request
            .header("webhook-id")
            .or_else(|| request.header("idempotency-key"))
            .map(str::to_owned),
        ..PbxWrite::default()
    };
    let before = state.with(company, |company| {
        let count = company.in_flight.entry(extension.to_owned()).or_default();
        *count += 1;
        *count - 1
    });
    let _busy = Busy { state, company, extension };
    if before > 0 {
        world.journal.violation(
            "pbx-two-in-flight",
            format!("{company}/{extension}: {} requests at once", before + 1),
        );
    }
    let reply = apply(world, request, &mut write, now).await;
    write.status = if reply.ending == Ending::NoAnswer { 0 } else { reply.status };
    write.took_ms = millis(started);
    world.journal.write(Record::Pbx(write));
    if reply.status == 200 || reply.ending == Ending::NoAnswer {
        state.changed.send_modify(|count| *count += 1);
    }
    reply
}

async fn apply(world: &World, request: &Request, write: &mut PbxWrite, now: Timestamp) -> Reply {
    let state = &world.pbx;
    let company = write.company.clone();
    let refuse = |status: u16, why: String| Reply::json(status, &json!({"errcode": status, "errmsg": why}));
    if let Err(reply) = authorize(world, request, &company) {
        return *reply;
    }
    let (secret, early) = state.with(&company, |company| {
        let early = company.wait_until.is_some_and(|until| now < until);
        (company.signing_secret.clone(), early)
    });
    if early {
        world.journal.violation("pbx-retry-after-ignored", format!("{company}/{}", write.extension));
    }
    if let Some(secret) = secret
        && let Some(problem) = signature_problem(request, &secret, now)
    {
        world.journal.violation("pbx-signature", format!("{company}: {problem}"));
        return refuse(401, problem);
    }
    let body: Value = match request.json() {
        Ok(body) => body,
        Err(problem) => return refuse(400, problem),
    };
    let (presence, unknown) = read_presence(&body);
    if !unknown.is_empty() {
        world.journal.violation("pbx-unknown-member", unknown.join(", "));
    }
    let Some(presence) = presence else {
        return refuse(400, "profile is missing".to_owned());
    };
    write.profile.clone_from(&presence.profile);
    write.text.clone_from(&presence.text);
    write.until.clone_from(&presence.until);
    let fault = state.with(&company, |company| {
        while company.faults.front().is_some_and(|(_, times)| *times == 0) {
            company.faults.pop_front();
        }
        let (fault, times) = company.faults.front_mut()?;
        *times -= 1;
        Some(fault.clone())
    });
    let mut dropped = false;
    match fault {
        None => {}
        Some(PbxFault::Slow { millis }) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        Some(PbxFault::CutAfterApply) => dropped = true,
        Some(PbxFault::Drop) => return Reply::no_answer(),
        Some(PbxFault::Errcode { errcode }) => {
            return Reply::json(200, &json!({"errcode": errcode, "errmsg": "failed"}));
        }
        Some(PbxFault::Status { status, retry_after }) => {
            let reply = refuse(status, "injected by the simulator".to_owned());
            let Some(secs) = retry_after else {
                return reply;
            };
            let wait = SignedDuration::try_from_secs_f64(secs).unwrap_or_default();
            state.with(&company, |company| {
                company.wait_until = now.checked_add(wait).ok();
            });
            return reply.header("retry-after", secs.to_string());
        }
    }
    state.with(&company, |company| {
        company.wait_until = None;
        company.extensions.insert(write.extension.clone(), presence);
    });
    write.applied = true;
    if dropped {
        return Reply::no_answer();
    }
    Reply::json(200, &json!({"errcode": 0, "errmsg": "SUCCESS"}))
}

fn read_presence(body: &Value) -> (Option<PbxPresence>, Vec<String>) {
    let text = |name: &str| body[name].as_str().map(str::to_owned);
    let unknown = body
        .as_object()
        .map(|map| {
            map.keys()
                .filter(|key| !["profile", "text", "until", "manual"].contains(&key.as_str()))
                .cloned()
                .collect()
        })
        .unwrap_or_default();
    let presence = text("profile").map(|profile| PbxPresence {
        profile,
        text: text("text"),
        until: text("until"),
        manual: false,
    });
    (presence, unknown)
}

/// Reads a presence that a person sets.
pub(crate) fn by_hand(body: &Value) -> Result<PbxPresence, SimError> {
    serde_json::from_value(body.clone()).map_err(|error| SimError::invalid(error.to_string()))
}
