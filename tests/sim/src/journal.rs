//! The journal: everything the simulator was asked and did, as typed entries in order, so that
//! a test asserts on what was really sent. It is bounded; what falls out is counted.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use crate::{clock::SimClock, lock};

/// One line of the journal.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Running number, from 1, without gaps.
    pub seq: u64,
    /// Simulator time.
    pub at: Timestamp,
    /// Real milliseconds since the simulator started.
    pub elapsed_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub record: Record,
}

/// One request to Graph and its answer.
#[derive(Debug, Clone, Default, Serialize)]
pub struct GraphCall {
    /// HTTP method.
    pub method: String,
    /// Path without the query, still percent-encoded.
    pub path: String,
    /// Raw query.
    pub query: String,
    /// Tenant of the token, if the token was good.
    pub tenant: Option<String>,
    /// Which of the app's secrets its token was had with, from 0: tells processes apart that were each given another one.
    pub secret: Option<usize>,
    /// Object id of the mailbox or user in the path, if it exists.
    pub mailbox: Option<String>,
    /// Status answered; 0 if the connection was dropped without an answer.
    pub status: u16,
    /// Graph error code answered, if any.
    pub code: Option<String>,
    /// The client's `client-request-id`.
    pub client_request_id: Option<String>,
    /// All `Prefer` headers, joined.
    pub prefer: Option<String>,
    /// Whether `Prefer: IdType="ImmutableId"` was among them.
    pub immutable_id: bool,
    /// By how many seconds it came before the time that a `Retry-After` had named.
    pub early_secs: Option<f64>,
    /// Whether it was a part of a batch; the batch itself has an entry as well.
    pub in_batch: bool,
    /// Name of the injected fault that shaped this answer.
    pub fault: Option<String>,
    /// Milliseconds from request to answer.
    pub took_ms: u64,
}

/// One POST of notifications to the product.
#[derive(Debug, Clone, Serialize)]
pub struct DeliveryAttempt {
    /// Where it was sent.
    pub url: String,
    /// Ids of the notifications in the POST.
    pub notifications: Vec<String>,
    /// Subscriptions they belong to, in the same order.
    pub subscriptions: Vec<String>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Status answered, if there was an answer in time.
    pub status: Option<u16>,
    /// Why there was none.
    pub error: Option<String>,
    /// What follows.
    pub outcome: DeliveryOutcome,
    /// Whether these are lifecycle notifications.
    pub lifecycle: bool,
    /// Milliseconds until the answer or the time-out.
    pub took_ms: u64,
}

/// What a delivery attempt leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryOutcome {
    /// Any 2xx in time.
    Delivered,
    /// Will be sent again.
    Retry,
    /// Given up after the horizon.
    Discarded,
}

/// One write to the HTTP PBX stand-in.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PbxWrite {
    /// Company in the path.
    pub company: String,
    /// Extension in the path.
    pub extension: String,
    /// Status answered; 0 if the connection was dropped.
    pub status: u16,
    /// Whether the state was changed, whatever was answered.
    pub applied: bool,
    /// Profile written.
    pub profile: String,
    /// Text written.
    pub text: Option<String>,
    /// End written.
    pub until: Option<String>,
    /// `webhook-id` or `idempotency-key` of the request.
    pub request_id: Option<String>,
    /// Set by hand through the control API, not by the product.
    pub by_hand: bool,
    /// Milliseconds from request to answer.
    pub took_ms: u64,
}

/// What happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// A token was asked for.
    Token {
        /// Tenant in the path, as sent.
        tenant: String,
        /// Client id, as sent.
        client_id: String,
        /// `secret`, `certificate`, `federated` or `none`.
        credential: &'static str,
        /// Status answered.
        status: u16,
        /// AADSTS number answered.
        code: Option<u32>,
    },
    /// The login service's metadata or signing keys were asked for.
    SigningKeys {
        /// Which of the two.
        path: String,
    },
    /// The admin consent page was asked for.
    Consent {
        /// Tenant that signed in.
        tenant: String,
        /// Client id, as sent.
        client_id: String,
        /// Status answered.
        status: u16,
        /// `granted`, `refused` or the problem.
        outcome: String,
    },
    /// A Graph request.
    Graph(GraphCall),
    /// A validation handshake with the product's endpoint.
    Handshake {
        /// URL without the token.
        url: String,
        /// Whether this was the lifecycle URL.
        lifecycle: bool,
        /// Why it failed.
        problem: Option<String>,
        /// Milliseconds it took.
        took_ms: u64,
    },
    /// A change made a notification.
    Notified {
        /// Notification id.
        id: String,
        /// Subscription it is for.
        subscription: String,
        /// Object id of the mailbox.
        mailbox: String,
        /// `created`, `updated`, `deleted` or the lifecycle event.
        change: String,
        /// Item id as sent, empty for lifecycle.
        item: String,
    },
    /// A notification was thrown away by a knob, or its subscription is gone.
    Lost {
        /// Notification id.
        id: String,
        /// Subscription it was for.
        subscription: String,
        /// Why.
        reason: &'static str,
    },
    /// A delivery attempt.
    Delivery(DeliveryAttempt),
    /// A subscription ended without being deleted by the product.
    SubscriptionEnded {
        /// Subscription id.
        subscription: String,
        /// Why.
        reason: &'static str,
    },
    /// A write to the HTTP PBX.
    Pbx(PbxWrite),
    /// An AMI action.
    Ami {
        /// Session number.
        session: u64,
        /// Action name, as sent.
        action: String,
        /// Variable, key or extension acted on.
        subject: String,
        /// Whether it succeeded.
        ok: bool,
    },
    /// AMI state was written.
    AmiWrite {
        /// `presence`, `device` or `db`.
        what: &'static str,
        /// Extension, device or family/key.
        name: String,
        /// New value, decoded.
        value: String,
        /// Set by hand, not by the product.
        by_hand: bool,
    },
    /// The product broke a rule.
    Violation {
        /// Short stable name of the rule.
        rule: &'static str,
        /// What was seen.
        detail: String,
    },
}

/// The list of entries; cheap to share.
pub struct Journal {
    clock: SimClock,
    started: Instant,
    limit: usize,
    inner: Mutex<Lines>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Lines {
    lines: VecDeque<Arc<Entry>>,
    violations: Vec<Arc<Entry>>,
    last: u64,
    dropped: u64,
}

impl Journal {
    pub(crate) fn new(clock: SimClock, limit: usize) -> Self {
        Self {
            clock,
            started: Instant::now(),
            limit: limit.max(1),
            inner: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }

    pub(crate) fn write(&self, record: Record) {
        let at = self.clock.now();
        let elapsed_ms = millis(self.started);
        let mut inner = lock(&self.inner);
        inner.last += 1;
        let seq = inner.last;
        let entry = Arc::new(Entry { seq, at, elapsed_ms, record });
        if matches!(entry.record, Record::Violation { .. }) && inner.violations.len() < self.limit {
            inner.violations.push(entry.clone());
        }
        inner.lines.push_back(entry);
        if inner.lines.len() > self.limit {
            inner.lines.pop_front();
            inner.dropped += 1;
        }
        drop(inner);
        self.changed.send_replace(seq);
    }

    pub(crate) fn violation(&self, rule: &'static str, detail: impl Into<String>) {
        let detail = detail.into();
        tracing::warn!(rule, detail, "violation");
        self.write(Record::Violation { rule, detail });
    }

    /// All entries that are still kept.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        self.since(0)
    }

    /// Entries with a number above `seq`.
    pub fn since(&self, seq: u64) -> Vec<Arc<Entry>> {
        let inner = lock(&self.inner);
        let first = inner.lines.partition_point(|entry| entry.seq <= seq);
        inner.lines.range(first..).cloned().collect()
    }

    /// Number of the newest entry; 0 if there is none.
    pub fn last_seq(&self) -> u64 {
        lock(&self.inner).last
    }

    /// How many old entries were thrown away to keep the bound.
    pub fn dropped(&self) -> u64 {
        lock(&self.inner).dropped
    }

    /// All violations; they outlive the bound on ordinary entries.
    pub fn violations(&self) -> Vec<Arc<Entry>> {
        lock(&self.inner).violations.clone()
    }

    /// Empties the journal; numbers go on.
    pub fn clear(&self) {
        let mut inner = lock(&self.inner);
        inner.lines.clear();
        inner.violations.clear();
    }

    /// Entries for which `wanted` holds.
    pub fn find(&self, wanted: impl Fn(&Record) -> bool) -> Vec<Arc<Entry>> {
        let inner = lock(&self.inner);
        inner.lines.iter().filter(|entry| wanted(&entry.record)).cloned().collect()
    }

    /// How many entries `wanted` holds for.
    pub fn count(&self, wanted: impl Fn(&Record) -> bool) -> usize {
        let inner = lock(&self.inner);
        inner.lines.iter().filter(|entry| wanted(&entry.record)).count()
    }

    /// All Graph requests.
    pub fn graph_calls(&self) -> Vec<GraphCall> {
        self.pick(|record| match record {
            Record::Graph(call) => Some(call.clone()),
            _ => None,
        })
    }

    /// All delivery attempts.
    pub fn deliveries(&self) -> Vec<DeliveryAttempt> {
        self.pick(|record| match record {
            Record::Delivery(attempt) => Some(attempt.clone()),
            _ => None,
        })
    }

    /// All writes to the HTTP PBX.
    pub fn pbx_writes(&self) -> Vec<PbxWrite> {
        self.pick(|record| match record {
            Record::Pbx(write) => Some(write.clone()),
            _ => None,
        })
    }

    fn pick<T>(&self, wanted: impl Fn(&Record) -> Option<T>) -> Vec<T> {
        let inner = lock(&self.inner);
        inner.lines.iter().filter_map(|entry| wanted(&entry.record)).collect()
    }

    /// Waits until at least `count` entries satisfy `wanted`; false if `limit` passes first.
    pub async fn until_count(&self, count: usize, limit: Duration, wanted: impl Fn(&Record) -> bool) -> bool {
        let mut changed = self.changed.subscribe();
        let mut seen = 0;
        let mut from = 0;
        tokio::time::timeout(limit, async {
            loop {
                changed.borrow_and_update();
                for entry in self.since(from) {
                    from = entry.seq;
                    seen += usize::from(wanted(&entry.record));
                }
                if seen >= count {
                    return;
                }
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        })
        .await
        .is_ok()
    }

    /// Waits for the first entry that satisfies `wanted`; `None` if `limit` passes first.
    pub async fn until(&self, limit: Duration, wanted: impl Fn(&Record) -> bool) -> Option<Arc<Entry>> {
        if self.until_count(1, limit, &wanted).await { self.find(wanted).into_iter().next() } else { None }
    }
}

pub(crate) fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
