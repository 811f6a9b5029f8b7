//! Carries requests to Graph and brings what it answers: one request alone, or some as one batch.
//!
//! Promises: the token goes to our Graph's own host only (no redirects; next pages are checked where they are
//! built); the headers are the same on every page and every try, alone or as a part; a part's answer becomes what it
//! would have become alone. Bodies are neither asked for nor taken compressed, so none grows on the way, and one that
//! breaks off is no answer.
//! Logged and counted are the operation, the mailbox's object id, status, code and request id; never an address,
//! an item's id or what the body says.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{
    Method, RequestBuilder, Response,
    header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use secrecy::ExposeSecret;
use url::Url;

use super::{
    auth::Token,
    batch,
    builder::Call,
    gates::Scope,
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

/// How a batch is called in metrics and logs.
const BATCH: &str = "batch";

/// What came of a request: the body of a successful answer, or why there is none.
pub(super) type Outcome = Result<Bytes, CallError>;

/// A batch that was answered without one of its parts.
#[derive(Debug, thiserror::Error)]
#[error("the answer to the batch does not mention it")]
struct NotMentioned;

/// A request with the `client-request-id` that all its tries have.
#[derive(Clone, Copy)]
pub(super) struct Sent<'a> {
    pub(super) call: &'a Call,
    pub(super) chain: &'a str,
}

/// An answer as it came, to a request or to a part of one.
struct Raw {
    status: u16,
    retry_after: Option<Duration>,
    request_id: Option<String>,
    body: Result<Bytes, BodyError>,
}

/// Carries one tenant's requests.
pub(super) struct Courier {
    pub(super) client: reqwest::Client,
    /// `https://graph.microsoft.com/v1.0/`
    pub(super) root: Url,
    pub(super) clock: SharedClock,
}

impl Courier {
    /// Sends a request alone.
    pub(super) async fn alone(&self, Sent { call, chain }: Sent<'_>, token: &Token) -> Outcome {
        let request = self.client.request(call.method.clone(), call.url.clone());
        let mut request = signed(request, token, chain)?.header("Prefer", preferences(call));
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        } else if matches!(call.method, Method::POST | Method::PUT | Method::PATCH) {
            // Graph answers 411 to one without a length.
            request = request.header(CONTENT_LENGTH, "0").body(Bytes::new());
        }
        understood(self.answer_to(request, call.operation).await?)
    }

    /// Sends some as one.
    ///
    /// # Errors
    /// Where they failed as one; what comes of each is in its own outcome.
    pub(super) async fn together(&self, sent: &[Sent<'_>], token: &Token) -> Result<Vec<Outcome>, CallError> {
        let parts =
            sent.iter().map(|&Sent { call, chain }| batch::Part { call, chain, prefer: preferences(call) });
        let mut url = self.root.clone();
        url.set_path(&format!("{}$batch", self.root.path()));
        let chain = new_chain();
        let request = signed(self.client.post(url), token, &chain)?
            .header(CONTENT_TYPE, "application/json")
            .body(batch::write(&self.root, parts.collect())?);
        let raw = self.answer_to(request, BATCH).await?;
        let request_id = raw.request_id.clone();
        let body = understood(raw).inspect_err(|error| {
            if let CallError::Refused(refusal) = error {
                tell(BATCH, None, refusal, &chain);
            }
        })?;
        let answers = batch::read(&body, sent.len(), self.clock.now())?;
        let outcomes = sent.iter().zip(answers).map(|(&Sent { call, .. }, answer)| {
            let Some(answer) = answer else {
                count(call.operation, "unanswered");
                return Err(ReadError::Unreachable(Box::new(NotMentioned)).into());
            };
            count(call.operation, &answer.status.to_string());
            understood(Raw {
                status: answer.status,
                retry_after: answer.retry_after,
                request_id: answer.request_id.or_else(|| request_id.clone()),
                body: Ok(answer.body),
            })
        });
        Ok(outcomes.collect())
    }

    async fn answer_to(&self, request: RequestBuilder, operation: &'static str) -> Result<Raw, CallError> {
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                count(operation, "unanswered");
                return Err(ReadError::Unreachable(Box::new(error.without_url())).into());
            }
        };
        count(operation, answer.status().as_str());
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let now = self.clock.now();
        Ok(Raw {
            status: answer.status().as_u16(),
            retry_after: header(RETRY_AFTER.as_str()).and_then(|value| refusal::retry_after(value, now)),
            request_id: header("request-id").map(str::to_owned),
            body: read_body(answer, LONGEST_ANSWER).await,
        })
    }
}

/// A name for a request and all its tries, for Microsoft's support.
pub(super) fn new_chain() -> String {
    azure_core::Uuid::new_v4().to_string()
}

fn signed(request: RequestBuilder, token: &Token, chain: &str) -> Result<RequestBuilder, ReadError> {
    let bearer = format!("Bearer {}", token.secret.expose_secret());
    let mut bearer = HeaderValue::try_from(bearer)
        .map_err(|_quotes_the_token| ReadError::Unreadable { place: "access_token".to_owned() })?;
    bearer.set_sensitive(true);
    Ok(request
        .header(AUTHORIZATION, bearer)
        .header(ACCEPT, "application/json")
        .header("client-request-id", chain))
}

fn understood(Raw { status, retry_after, request_id, body }: Raw) -> Outcome {
    if (200..300).contains(&status) {
        return body.map_err(|error| ReadError::Unreachable(Box::new(error)).into());
    }
    let body = body.unwrap_or_default();
    Err(CallError::Refused(Refusal::read(status, &body, retry_after, request_id.as_deref())))
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

/// Logs a refusal of a call.
pub(super) fn note(Sent { call, chain }: Sent<'_>, refusal: &Refusal) {
    let mailbox = match &call.scope {
        Scope::Mailbox(object) => Some(object.as_str()),
        Scope::Directory | Scope::Subscriptions | Scope::Batch => None,
    };
    tell(call.operation, mailbox, refusal, chain);
}

fn tell(operation: &'static str, mailbox: Option<&str>, refusal: &Refusal, chain: &str) {
    tracing::info!(
        operation,
        mailbox.object = mailbox,
        status = refusal.status,
        code = refusal.code,
        request_id = refusal.request_id,
        client_request_id = chain,
        "Graph refused `{operation}`"
    );
}

fn count(operation: &'static str, status: &str) {
    metrics::counter!(
        "narvaro_graph_requests_total",
        "operation" => operation,
        "status" => status.to_owned()
    )
    .increment(1);
}
