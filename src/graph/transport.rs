//! Sends requests to Graph: signed, in good time, within limits, counted; and reads what comes back.
//!
//! Promises: the token goes to our Graph's own host only (no redirects; next pages are checked where they are
//! built); the headers are the same on every page and every try; nothing is retried but one 401, with a new
//! token; nothing sleeps, a wait is returned as [`ReadError::Throttled`].
//! Logged and counted are the operation, the mailbox's object id, status, code and request id; never an address,
//! an item's id or what the body says. Bodies are neither asked for nor taken compressed, so none grows on the way.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Method, Response,
    header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use secrecy::ExposeSecret;

use super::{
    auth::{Token, TokenKeeper},
    builder::Call,
    gates::{Gates, Scope},
    refusal::{self, CallError, Refusal},
};
use crate::{calendar::ReadError, clock::SharedClock};

/// Longest answer that is read. Calendar views carry their events' bodies.
pub(super) const LONGEST_ANSWER: usize = 16 * 1024 * 1024;

/// For a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// For the next piece of an answer.
const READ: Duration = Duration::from_secs(45);

/// For all of it: setting up a subscription waits for Graph to call us, twice, up to 10 s each.
const ALL: Duration = Duration::from_secs(90);

/// Who we are, as Microsoft asks applications to say.
const USER_AGENT: &str = concat!("narvaro/", env!("CARGO_PKG_VERSION"));

/// The client that all requests go through, to Graph and to the login service.
///
/// # Errors
/// Where the machine's roots of trust cannot be read.
pub(super) fn http_client(loopback: bool) -> reqwest::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd()
        .connect_timeout(CONNECT)
        .read_timeout(READ)
        .timeout(ALL)
        .https_only(!loopback);
    if loopback {
        builder = builder.no_proxy();
    }
    builder.build()
}

/// An answer that did not arrive whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("the answer broke off")]
    BrokeOff(#[source] reqwest::Error),
}

/// Reads an answer's body up to `limit` bytes.
pub(super) async fn read_body(mut answer: Response, limit: usize) -> Result<Bytes, BodyError> {
    let mut body = BytesMut::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| BodyError::BrokeOff(error.without_url()))? {
        if body.len() + piece.len() > limit {
            return Err(BodyError::TooLong(limit));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// Sends one tenant's requests.
pub(super) struct Transport {
    client: reqwest::Client,
    tokens: Arc<TokenKeeper>,
    gates: Gates,
    clock: SharedClock,
}

impl Transport {
    pub(super) fn new(client: reqwest::Client, tokens: Arc<TokenKeeper>, clock: SharedClock) -> Self {
        Self { client, tokens, gates: Gates::default(), clock }
    }

    /// Sends a request and returns the body of a successful answer.
    pub(super) async fn send(&self, call: &Call) -> Result<Bytes, CallError> {
        let _place = self.gates.enter(&call.scope).await;
        // Looked at after the place was given: one of the calls ahead may have been told to wait.
        if let Some(left) = self.gates.pause_left(&call.scope, self.clock.now()) {
            return Err(ReadError::Throttled { retry_after: Some(left) }.into());
        }
        let chain = azure_core::Uuid::new_v4().to_string();
        let token = self.tokens.token().await.map_err(ReadError::from)?;
        match self.attempt(call, &token, &chain).await {
            Err(CallError::Refused(refusal)) if refusal.status == 401 && self.tokens.renounce(&token) => {
                let token = self.tokens.token().await.map_err(ReadError::from)?;
                self.attempt(call, &token, &chain).await
            }
            outcome => outcome,
        }
    }

    async fn attempt(&self, call: &Call, token: &Token, chain: &str) -> Result<Bytes, CallError> {
        let answer = match self.request(call, token, chain)?.send().await {
            Ok(answer) => answer,
            Err(error) => {
                count(call, "unanswered");
                return Err(ReadError::Unreachable(Box::new(error.without_url())).into());
            }
        };
        let status = answer.status();
        count(call, status.as_str());
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let now = self.clock.now();
        let retry_after = header(RETRY_AFTER.as_str()).and_then(|value| refusal::retry_after(value, now));
        let request_id = header("request-id").map(str::to_owned);
        let body = read_body(answer, LONGEST_ANSWER).await;
        if status.is_success() {
            return body.map_err(|error| ReadError::Unreachable(Box::new(error)).into());
        }
        let body = body.unwrap_or_default();
        let refusal = Refusal::read(status.as_u16(), &body, retry_after, request_id.as_deref());
        self.note(call, &refusal, chain);
        if let (429 | 503 | 504 | 509, Some(wait)) = (refusal.status, retry_after) {
            self.gates.pause(&call.scope, wait, now);
        }
        Err(CallError::Refused(refusal))
    }

    fn request(&self, call: &Call, token: &Token, chain: &str) -> Result<reqwest::RequestBuilder, ReadError> {
        let bearer = format!("Bearer {}", token.secret.expose_secret());
        let mut bearer = HeaderValue::try_from(bearer)
            .map_err(|_quotes_the_token| ReadError::Unreadable { place: "access_token".to_owned() })?;
        bearer.set_sensitive(true);
        let mut request = self
            .client
            .request(call.method.clone(), call.url.clone())
            .header(AUTHORIZATION, bearer)
            .header(ACCEPT, "application/json")
            .header("client-request-id", chain)
            .header("Prefer", preferences(call));
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        } else if matches!(call.method, Method::POST | Method::PUT | Method::PATCH) {
            // Graph answers 411 to one without a length.
            request = request.header(CONTENT_LENGTH, "0").body(Bytes::new());
        }
        Ok(request)
    }

    fn note(&self, call: &Call, refusal: &Refusal, chain: &str) {
        let mailbox = match &call.scope {
            Scope::Mailbox(object) => Some(object.as_str()),
            Scope::Directory | Scope::Subscriptions => None,
        };
        tracing::info!(
            operation = call.operation,
            mailbox.object = mailbox,
            status = refusal.status,
            code = refusal.code,
            request_id = refusal.request_id,
            client_request_id = chain,
            "Graph refused `{}`",
            call.operation
        );
    }
}

/// Immutable ids on every request: with the other kind an event would have two names. Times in UTC, which has
/// no gaps. Bodies as text, a fraction of the HTML, because views cannot leave them out.
fn preferences(call: &Call) -> String {
    let mut prefer =
        r#"IdType="ImmutableId", outlook.timezone="UTC", outlook.body-content-type="text""#.to_owned();
    if let Some(size) = call.page_size {
        prefer.push_str(&format!(", odata.maxpagesize={size}"));
    }
    prefer
}

fn count(call: &Call, status: &str) {
    metrics::counter!(
        "narvaro_graph_requests_total",
        "operation" => call.operation,
        "status" => status.to_owned()
    )
    .increment(1);
}
