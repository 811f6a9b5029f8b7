//! Faults that are injected into Graph answers, and the memory of who was told to wait.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{clock::SimClock, http::Request, lock};

/// Which Graph requests a fault meets; absent members meet all.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultFilter {
    /// Tenant GUID.
    pub tenant: Option<String>,
    /// Object id of the mailbox.
    pub mailbox: Option<String>,
    /// Part of the path.
    pub path: Option<String>,
    /// HTTP method.
    pub method: Option<String>,
}

impl FaultFilter {
    /// Meets requests whose path contains `part`.
    pub fn path(part: &str) -> Self {
        Self { path: Some(part.to_owned()), ..Self::default() }
    }

    /// Meets requests for one mailbox (object id).
    pub fn mailbox(id: &str) -> Self {
        Self { mailbox: Some(id.to_owned()), ..Self::default() }
    }

    /// Meets requests of one tenant.
    pub fn tenant(id: &str) -> Self {
        Self { tenant: Some(id.to_owned()), ..Self::default() }
    }
}

/// What happens to a request that a fault meets.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// 429 with `Retry-After`.
    Throttle {
        /// Seconds, may have a fraction; absent = no header.
        retry_after: Option<f64>,
    },
    /// Another status with Graph's error body.
    Status {
        /// HTTP status.
        status: u16,
        /// Error code in the body; absent = one that fits.
        #[serde(default)]
        code: Option<String>,
        /// Seconds in `Retry-After`.
        #[serde(default)]
        retry_after: Option<f64>,
    },
    /// An HTML page instead of JSON.
    Html {
        /// HTTP status.
        status: u16,
    },
    /// A status without a body.
    Empty {
        /// HTTP status.
        status: u16,
    },
    /// The right answer, late.
    Slow {
        /// Milliseconds of delay.
        millis: u64,
    },
    /// Lost on its way: no answer until the faults are cleared, when the connection is dropped; nothing is done.
    Hang,
    /// The right answer, cut in the middle of the body.
    CutBody,
    /// The connection is dropped without an answer, and nothing is done.
    Drop,
    /// The request is carried out, then the connection is dropped.
    DropAfter,
}

impl FaultKind {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Throttle { .. } => "throttle",
            Self::Status { .. } => "status",
            Self::Html { .. } => "html",
            Self::Empty { .. } => "empty",
            Self::Slow { .. } => "slow",
            Self::Hang => "hang",
            Self::CutBody => "cut_body",
            Self::Drop => "drop",
            Self::DropAfter => "drop_after",
        }
    }
}

/// A fault with its reach.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What it meets.
    #[serde(default)]
    pub filter: FaultFilter,
    /// What it does.
    pub fault: FaultKind,
    /// How many requests it meets; absent = no limit.
    #[serde(default)]
    pub times: Option<u32>,
    /// For how many seconds of simulator time it lasts; absent = no limit.
    #[serde(default)]
    pub for_secs: Option<u64>,
}

impl Fault {
    /// Meets the next `times` requests.
    pub fn next(times: u32, fault: FaultKind) -> Self {
        Self { filter: FaultFilter::default(), fault, times: Some(times), for_secs: None }
    }

    /// Lasts until the faults are cleared.
    pub fn lasting(fault: FaultKind) -> Self {
        Self { times: None, ..Self::next(0, fault) }
    }

    /// The same, for some requests only.
    pub fn only(mut self, filter: FaultFilter) -> Self {
        self.filter = filter;
        self
    }
}

struct Active {
    fault: Fault,
    until: Option<Timestamp>,
}

/// When somebody was told to wait, and until when.
#[derive(Clone, Copy)]
struct Told {
    until: Timestamp,
    at: Timestamp,
    real: Instant,
}

#[derive(Default)]
pub(crate) struct Faults {
    active: Mutex<Vec<Active>>,
    waits: Mutex<HashMap<String, Told>>,
    /// How often faults have been cleared.
    cleared: watch::Sender<u64>,
    /// Requests that have begun to hang.
    hung: AtomicUsize,
}

/// A client cannot know of a 429 that it has not read yet.
const READING: Duration = Duration::from_millis(100);

impl Faults {
    pub(crate) fn add(&self, fault: Fault, now: Timestamp) {
        let until = fault.for_secs.map(|secs| {
            now.checked_add(SignedDuration::from_secs(i64::try_from(secs).unwrap_or(i64::MAX)))
                .unwrap_or(Timestamp::MAX)
        });
        lock(&self.active).push(Active { fault, until });
    }

    pub(crate) fn clear(&self) {
        lock(&self.active).clear();
        lock(&self.waits).clear();
        self.cleared.send_modify(|times| *times += 1);
    }

    /// Counts a request that hangs from now on.
    pub(crate) fn hangs(&self) {
        self.hung.fetch_add(1, Ordering::AcqRel);
    }

    /// How many have begun to hang so far.
    pub(crate) fn hung(&self) -> usize {
        self.hung.load(Ordering::Acquire)
    }

    /// Returns when the faults are cleared the next time; called before they are looked at.
    pub(crate) fn cleared(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut cleared = self.cleared.subscribe();
        async move {
            // The sender may go first, which ends the simulator and this with it.
            let _gone = cleared.changed().await;
        }
    }

    pub(crate) fn list(&self) -> Vec<Fault> {
        lock(&self.active).iter().map(|active| active.fault.clone()).collect()
    }

    /// The first fault that meets this request, used up by one.
    pub(crate) fn take(
        &self,
        request: &Request,
        tenant: Option<&str>,
        mailbox: Option<&str>,
        now: Timestamp,
    ) -> Option<FaultKind> {
        let mut active = lock(&self.active);
        if active.is_empty() {
            return None;
        }
        active.retain(|one| one.until.is_none_or(|until| now < until) && one.fault.times != Some(0));
        let same = |wanted: &Option<String>, is: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| is.is_some_and(|is| is.eq_ignore_ascii_case(wanted)))
        };
        let found = active.iter_mut().find(|one| {
            let filter = &one.fault.filter;
            same(&filter.tenant, tenant)
                && same(&filter.mailbox, mailbox)
                && same(&filter.method, Some(request.method.as_str()))
                && filter.path.as_deref().is_none_or(|part| request.path.contains(part))
        })?;
        if let Some(times) = &mut found.fault.times {
            *times -= 1;
        }
        Some(found.fault.fault.clone())
    }

    /// Remembers that `scope` was told to wait. Of answers at one moment the shortest counts: the client may have given up
    /// the others for it.
    pub(crate) fn told_to_wait(&self, scope: &str, secs: f64, now: Timestamp) {
        let until = now
            .checked_add(SignedDuration::try_from_secs_f64(secs.max(0.0)).unwrap_or_default())
            .unwrap_or(Timestamp::MAX);
        let mut waits = lock(&self.waits);
        let same_moment = waits.get(scope).filter(|told| told.at == now).map(|told| told.until);
        let until = same_moment.map_or(until, |told| told.min(until));
        waits.insert(scope.to_owned(), Told { until, at: now, real: Instant::now() });
    }

    /// How long `scope` should still have waited, in seconds, if it did not. On a paced clock everybody has come to
    /// rest, and so knows what was answered, before the time goes on.
    pub(crate) fn came_early(&self, scope: &str, clock: &SimClock, paced: bool) -> Option<f64> {
        let now = clock.now();
        let mut waits = lock(&self.waits);
        if waits.is_empty() {
            return None;
        }
        let Told { until, at, real } = *waits.get(scope)?;
        if now >= until {
            waits.remove(scope);
            return None;
        }
        let unread = if paced && clock.stands() { now == at } else { real.elapsed() < READING };
        if unread {
            return None;
        }
        Some(until.duration_since(now).as_secs_f64())
    }
}
