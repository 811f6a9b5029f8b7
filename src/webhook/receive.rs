//! From request to answer.

use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::BytesMut;
use futures_util::future::poll_immediate;
use http_body_util::BodyExt;
use metrics::Counter;
use tokio::sync::Semaphore;
use tracing::warn;

use super::{
    client_state::{Resource, StateKeys},
    notification::{self, Item, Kind, NotADelivery, Rest},
    sealed::{Delivered, Sealed, SealedBox},
};
use crate::{
    chain::Chain,
    clock::SharedClock,
    model::{EventId, MailboxId},
    queue::{DueStore, Hint, Mark, Reason, Tally},
};

/// Longest validation token that is echoed, in bytes once decoded; Microsoft's have about 120.
const MOST_TOKEN: usize = 4_096;

/// How much a receiver takes upon itself.
#[derive(Debug, Clone, Copy)]
pub struct ReceiverLimits {
    /// Longest body, in bytes.
    pub body_bytes: usize,
    /// Requests under way at a time.
    pub requests: usize,
    /// Memory that bodies under way may take together, in bytes.
    pub bodies_bytes: usize,
    /// How long a body may take to arrive; Graph itself gives up after 3 s, and after 10 s when it tries again.
    pub body_within: Duration,
    /// How long the store may take; Graph waits 3 s at the first attempt.
    pub store_within: Duration,
}

impl Default for ReceiverLimits {
    fn default() -> Self {
        Self {
            body_bytes: 8 << 20,
            requests: 512,
            bodies_bytes: 64 << 20,
            body_within: Duration::from_secs(10),
            store_within: Duration::from_secs(2),
        }
    }
}

/// The receiver: it knows the keys, the queue, the box for what is brought and the time, and nothing else.
pub struct Receiver {
    keys: StateKeys,
    queue: Arc<dyn DueStore>,
    sealed: Arc<SealedBox>,
    clock: SharedClock,
    limits: ReceiverLimits,
    under_way: Semaphore,
    /// In KiB.
    bodies: Semaphore,
    counts: Counts,
}

/// One counter for each thing that can become of a request or a notification (I9).
struct Counts {
    marked: Counter,
    duplicate: Counter,
    coalesced: Counter,
    unknown_mailbox: Counter,
    not_ours: Counter,
    unknown_kind: Counter,
    unreadable: Counter,
    handshakes: Counter,
    refused_shape: Counter,
    refused_size: Counter,
    refused_slow: Counter,
    refused_type: Counter,
    refused_load: Counter,
    refused_store: Counter,
}

impl Counts {
    fn new() -> Self {
        let item = |outcome| metrics::counter!("narvaro_notifications_total", "outcome" => outcome);
        let refused = |reason| metrics::counter!("narvaro_webhook_refused_total", "reason" => reason);
        Self {
            marked: item("marked"),
            duplicate: item("duplicate"),
            coalesced: item("coalesced"),
            unknown_mailbox: item("unknown_mailbox"),
            not_ours: item("client_state_not_ours"),
            unknown_kind: item("unknown_kind"),
            unreadable: item("unreadable"),
            handshakes: metrics::counter!("narvaro_webhook_handshakes_total"),
            refused_shape: refused("not_json"),
            refused_size: refused("too_large"),
            refused_slow: refused("too_slow"),
            refused_type: refused("wrong_type"),
            refused_load: refused("too_many"),
            refused_store: refused("store"),
        }
    }
}

impl Receiver {
    /// A receiver that marks in `queue` what verifies under `keys`, and puts what is brought with it into `sealed`.
    pub fn new(
        keys: StateKeys,
        queue: Arc<dyn DueStore>,
        sealed: Arc<SealedBox>,
        clock: SharedClock,
        limits: ReceiverLimits,
    ) -> Arc<Self> {
        let under_way = Semaphore::new(limits.requests);
        let bodies = Semaphore::new((limits.bodies_bytes / 1024).max(limits.body_bytes / 1024 + 1));
        Arc::new(Self { keys, queue, sealed, clock, limits, under_way, bodies, counts: Counts::new() })
    }

    /// The two addresses Graph is given. Each takes both kinds, because Graph may be told one address for both.
    pub fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/graph/v1/notify", post(receive))
            .route("/graph/v1/lifecycle", post(receive))
            .with_state(Arc::clone(self))
    }

    /// How much memory a body may take: what it says of itself, and the most it may have where it says nothing.
    fn kib_of(&self, headers: &HeaderMap) -> u32 {
        let said = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let bytes: usize = said.unwrap_or(self.limits.body_bytes).min(self.limits.body_bytes);
        u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX)
    }

    /// Notifications that verify, as marks.
    fn marks(&self, body: &[u8]) -> Result<Vec<Mark>, NotADelivery> {
        let now = self.clock.now();
        let mut marks = Vec::new();
        let mut brought = Brought::default();
        let rest = notification::read(body, |items| {
            marks.reserve_exact(items.len());
            for item in items {
                let mark = self.mark_of(item, now);
                brought.note(item, mark.as_ref(), &self.sealed);
                marks.extend(mark);
            }
            brought.note_tenants(items);
        })?;
        self.counts.unreadable.increment(rest.unreadable as u64);
        // Before the marks, so that the turn they lead to finds it.
        brought.put_into(&self.sealed, rest);
        Ok(marks)
    }

    fn mark_of(&self, item: &Item<'_>, now: jiff::Timestamp) -> Option<Mark> {
        let tenant = item.tenant_id.as_deref().unwrap_or("");
        let claim = item.client_state.as_deref().and_then(|state| self.keys.open(state, tenant));
        let Some(claim) = claim.filter(|claim| claim.resource == Resource::Events) else {
            self.counts.not_ours.increment(1);
            return None;
        };
        match item.kind() {
            Kind::Changed { item, version } => {
                let hint = item.and_then(|item| Some(Hint { item: item.parse().ok()?, version }));
                Some(Mark {
                    mailbox: claim.mailbox,
                    at: now,
                    reason: Reason::Notification,
                    watch: Some(claim.generation),
                    hint,
                })
            }
            Kind::Lifecycle(reason) => Some(Mark::of_watch(claim.mailbox, now, reason, claim.generation)),
            Kind::Unknown => {
                self.counts.unknown_kind.increment(1);
                None
            }
        }
    }

    fn count(&self, tally: Tally) {
        self.counts.marked.increment(tally.marked as u64);
        self.counts.duplicate.increment(tally.duplicate as u64);
        self.counts.coalesced.increment(tally.coalesced as u64);
        self.counts.unknown_mailbox.increment(tally.unknown as u64);
    }

    async fn store(&self, marks: Vec<Mark>) -> StatusCode {
        if marks.is_empty() {
            return StatusCode::ACCEPTED;
        }
        match self.queue.mark_within(marks, self.limits.store_within).await {
            Ok(tally) => {
                self.count(tally);
                StatusCode::ACCEPTED
            }
            Err(error) => {
                self.counts.refused_store.increment(1);
                warn!(error = %Chain(&error), "Notifications were not taken: the sender will deliver them again");
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }
}

/// What a delivery brings, until all of it is read.
#[derive(Default)]
struct Brought {
    tenants: BTreeSet<String>,
    items: Vec<(MailboxId, EventId, Option<Unvouched>)>,
}

/// An item, before it is known who vouches for it.
struct Unvouched {
    certificate: String,
    key: String,
    signature: String,
    data: String,
    watch: u32,
}

impl Brought {
    fn note(&mut self, item: &Item<'_>, mark: Option<&Mark>, sealed: &SealedBox) {
        let named = mark.and_then(|mark| Some((mark.mailbox, mark.watch?, mark.hint.as_ref()?)));
        let Some((mailbox, watch, hint)) = named else { return };
        if !sealed.expects(mailbox) {
            return;
        }
        let unvouched = item.encrypted().map(|it| Unvouched {
            certificate: it.encryption_certificate_id.to_string(),
            key: it.data_key.to_string(),
            signature: it.data_signature.to_string(),
            data: it.data.to_string(),
            watch,
        });
        self.items.push((mailbox, hint.item.clone(), unvouched));
    }

    /// Of all that came, where any of it is wanted.
    fn note_tenants(&mut self, items: &[Item<'_>]) {
        if !self.items.is_empty() {
            let tenants = items.iter().map(|item| item.tenant_id.as_deref().unwrap_or_default());
            self.tenants.extend(tenants.map(str::to_ascii_lowercase));
        }
    }

    fn put_into(mut self, sealed: &SealedBox, rest: Rest) {
        if self.items.is_empty() {
            return;
        }
        if rest.unreadable > 0 {
            // Nobody can tell whose it is, so that nobody vouches for all.
            self.tenants.insert(String::new());
        }
        let delivery = Arc::new(Delivered { tokens: rest.tokens, tenants: self.tenants });
        for (mailbox, item, unvouched) in self.items {
            let content = unvouched.map(|Unvouched { certificate, key, signature, data, watch }| Sealed {
                certificate,
                key,
                signature,
                data,
                watch,
                delivery: Arc::clone(&delivery),
            });
            sealed.put(mailbox, item, content);
        }
    }
}

async fn receive(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    if let Some(token) = request.uri().query().and_then(validation_token) {
        receiver.counts.handshakes.increment(1);
        return handshake(token);
    }
    let Ok(_under_way) = receiver.under_way.try_acquire() else {
        receiver.counts.refused_load.increment(1);
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    if !is_plain_json(request.headers()) {
        receiver.counts.refused_type.increment(1);
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let Ok(memory) = receiver.bodies.try_acquire_many(receiver.kib_of(request.headers())) else {
        receiver.counts.refused_load.increment(1);
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let mut collected = pin!(collect(request.into_body(), receiver.limits.body_bytes));
    let body = match poll_immediate(&mut collected).await {
        // Most come with their head, and need no timer.
        Some(collected) => Ok(collected),
        None => tokio::time::timeout(receiver.limits.body_within, collected).await,
    };
    let body = match body {
        Ok(Ok(body)) => body,
        Err(_) => {
            receiver.counts.refused_slow.increment(1);
            return StatusCode::REQUEST_TIMEOUT.into_response();
        }
        Ok(Err(status)) => {
            receiver.counts.refused_size.increment(1);
            return status.into_response();
        }
    };
    let marks = receiver.marks(&body);
    // Head and body are gone before the wait for the disk: the connection uses its buffer again, where it would have
    // to make a new one, and a request that waits holds its marks only.
    drop((body, memory));
    let Ok(marks) = marks else {
        receiver.counts.refused_shape.increment(1);
        return StatusCode::BAD_REQUEST.into_response();
    };
    receiver.store(marks).await.into_response()
}

/// A body as a whole. What comes at once is not copied; of what comes in parts each is let go of as soon as it is copied, so that the
/// connection reads the next into the same buffer.
async fn collect(mut body: Body, most: usize) -> Result<Bytes, StatusCode> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(most).min(most);
    let mut parts = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(part) = frame.map_err(|_| StatusCode::BAD_REQUEST)?.into_data() else { continue };
        if parts.len() + part.len() > most {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        if parts.is_empty() {
            if body.is_end_stream() {
                return Ok(part);
            }
            parts.reserve(announced);
        }
        parts.extend_from_slice(&part);
    }
    Ok(parts.freeze())
}

fn is_plain_json(headers: &HeaderMap) -> bool {
    let json = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        let essence = value.split(';').next().unwrap_or("").trim();
        essence.eq_ignore_ascii_case("application/json")
    });
    let encoded = headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    json && !encoded
}

/// The token of a handshake, decoded once as a form is: `+` is a space.
fn validation_token(query: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "validationToken")
        .map(|(_, token)| token.into_owned())
}

fn handshake(token: String) -> Response {
    if token.len() > MOST_TOKEN {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (StatusCode::OK, headers, token).into_response()
}
