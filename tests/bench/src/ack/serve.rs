//! The two servers: the receiver on its store, and a bare route. Both are served by the same code.
//!
//! The server with the store has a consumer, as the service has: it leases what is due and settles it. Without one
//! a mailbox would soon have more items waiting than are kept, and from then on marks would coalesce in memory
//! and never reach the disk. It runs each time [`DRAIN_EVERY`] notifications were stored, so that its
//! work is in proportion to theirs, in a thread of its own, so that its processor time can be told from the path's.

use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use axum::{
    Json, Router,
    body::Bytes,
    http::StatusCode,
    routing::{get, post},
};
use clap::ValueEnum;
use futures_util::future::try_join_all;
use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use narvaro::{
    app::listener,
    clock::SystemClock,
    model::Extension,
    queue::{Settled, Shares, StoreError, Urgency},
    store::{
        Store,
        embedded::{Embedded, EmbeddedSettings},
    },
    webhook::{
        Receiver, ReceiverLimits,
        sealed::{BoxLimits, SealedBox},
    },
};
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::sync::CancellationToken;

use super::deliveries::{self, COMPANY};

/// Notifications of a mailbox between two rounds of the consumer, where sixteen are kept. The rest is room for what arrives
/// while a round is under way.
const DRAIN_EVERY: u64 = 4;

/// Mailboxes that the consumer leases in one step.
const DRAINED_AT_ONCE: usize = 1_000;

/// Name of the consumer's thread.
pub(super) const CONSUMER: &str = "consumer";

/// Bytes of the document that the consumer settles with, about as many as a quiet mailbox's timetable has.
const STATE_BYTES: usize = 512;

const HOLD: Duration = Duration::from_secs(30);
const CONNECTIONS: usize = 256;

/// Which server.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Kind {
    /// Reads the body and answers 202.
    Bare,
    /// Verifies, stores and answers 202.
    Ack,
    /// Takes turns, and no notifications.
    Turns,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    kind: Kind,
    /// Folder for the store
    #[arg(long)]
    store: PathBuf,
    /// Redis in place of a file; what it holds is then worked off only when asked for
    #[arg(long)]
    redis: Option<String>,
    /// Mailboxes that notifications are about
    #[arg(long, default_value_t = super::MAILBOXES)]
    mailboxes: u64,
}

/// Serves until the process is ended.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    // As many threads as there are cores for it, as the service has.
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(options))
}

async fn serve(options: &Options) -> anyhow::Result<()> {
    let drain_every = if options.redis.is_some() { u64::MAX } else { DRAIN_EVERY * options.mailboxes };
    let counts = Counts { drain_every, ..Counts::default() };
    metrics::set_global_recorder(counts.clone())
        .map_err(|_| anyhow::anyhow!("counters are set up already"))?;
    let mut side = Router::new();
    if let (Kind::Turns, Some(url)) = (options.kind, &options.redis) {
        return crate::wake::serve(url).await;
    }
    let router = match options.kind {
        Kind::Bare => Router::new().route("/graph/v1/notify", post(async |_: Bytes| StatusCode::ACCEPTED)),
        Kind::Turns => anyhow::bail!("turns are taken from a store that is shared: `--redis`"),
        Kind::Ack => {
            let store = open(options).await?;
            let due = Arc::clone(&counts.drain_due);
            let router = acknowledging(Arc::clone(&store), options, due).await?;
            side = side.route("/drain", get(async move || drained(&*store).await));
            router
        }
    };
    let side = side.route("/counts", get(async move || Json(counts.read())));

    let main_listener = TcpListener::bind("127.0.0.1:0").await?;
    let side_listener = TcpListener::bind("127.0.0.1:0").await?;
    let ports = format!("{} {}\n", main_listener.local_addr()?.port(), side_listener.local_addr()?.port());
    std::io::stdout().write_all(ports.as_bytes())?;
    let never = CancellationToken::new();
    tokio::join!(
        listener::serve(main_listener, router, CONNECTIONS, never.clone()),
        listener::serve(side_listener, side, CONNECTIONS, never),
    );
    Ok(())
}

async fn open(options: &Options) -> anyhow::Result<Arc<dyn Store>> {
    let clock = Arc::new(SystemClock);
    let shares = Shares::of(2 * usize::try_from(options.mailboxes)?);
    if let Some(url) = &options.redis {
        return crate::shared::open(url, shares, clock).await;
    }
    let path = options.store.join("narvaro.db");
    Ok(Arc::new(Embedded::open(&EmbeddedSettings { path, shares, trail_entries: 1_000 }, clock)?))
}

async fn acknowledging(
    store: Arc<dyn Store>,
    options: &Options,
    drain_due: Arc<Notify>,
) -> anyhow::Result<Router> {
    let users = (1..=options.mailboxes)
        .map(|number| format!("{number}").parse())
        .collect::<Result<Vec<Extension>, _>>()?;
    let applied = store.apply(&COMPANY.parse()?, b"{}".to_vec(), users).await?;
    let expected = applied.mailboxes.iter().map(|mailbox| mailbox.id.0).eq(1..=options.mailboxes);
    anyhow::ensure!(expected, "the store numbers mailboxes otherwise than the load does");

    drain(&*store).await.context("the consumer failed")?;
    if options.redis.is_none() {
        consume(Arc::clone(&store), drain_due)?;
    }
    let clock = Arc::new(SystemClock);
    let sealed = SealedBox::new(BoxLimits::default(), Arc::clone(&clock) as _);
    Ok(Receiver::new(deliveries::keys()?, store, sealed, clock, ReceiverLimits::default()).routes())
}

fn consume(queue: Arc<dyn Store>, due: Arc<Notify>) -> anyhow::Result<()> {
    let consumer = tokio::runtime::Builder::new_current_thread().build()?;
    std::thread::Builder::new().name(CONSUMER.to_owned()).spawn(move || {
        let outcome = consumer.block_on(async {
            loop {
                due.notified().await;
                drain(&*queue).await?;
            }
        });
        let Err::<(), StoreError>(_) = outcome else { return };
        // Without a consumer the figures are of another path; the load sees the connection go.
        std::process::abort();
    })?;
    Ok(())
}

/// Leases all that is due and settles it; how many mailboxes that were.
async fn drain(queue: &dyn Store) -> Result<usize, StoreError> {
    let mut drained = 0;
    loop {
        let leases = queue.lease(DRAINED_AT_ONCE, HOLD).await?;
        if leases.is_empty() {
            return Ok(drained);
        }
        drained += leases.len();
        let settled = || Settled::Next {
            state: vec![b'x'; STATE_BYTES],
            due: None,
            urgency: Urgency::Upkeep,
            to_read: None,
        };
        try_join_all(leases.iter().map(|lease| queue.settle(lease, settled()))).await?;
    }
}

/// The same for whoever asks over HTTP.
async fn drained(queue: &dyn Store) -> (StatusCode, String) {
    match drain(queue).await {
        Ok(drained) => (StatusCode::OK, drained.to_string()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

/// The metrics' counters, by name and labels.
#[derive(Clone, Default)]
struct Counts {
    counters: Arc<Mutex<BTreeMap<String, Arc<Count>>>>,
    drain_due: Arc<Notify>,
    drain_every: u64,
}

/// One counter; that of marks wakes the consumer.
struct Count {
    value: AtomicU64,
    drain_due: Option<Arc<Notify>>,
    drain_every: u64,
}

impl CounterFn for Count {
    fn increment(&self, by: u64) {
        let before = self.value.fetch_add(by, Ordering::Relaxed);
        if let Some(drain_due) = &self.drain_due
            && before / self.drain_every != (before + by) / self.drain_every
        {
            drain_due.notify_one();
        }
    }

    fn absolute(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
    }
}

impl Counts {
    fn read(&self) -> BTreeMap<String, u64> {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.iter().map(|(name, count)| (name.clone(), count.value.load(Ordering::Relaxed))).collect()
    }
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels = key.labels().map(|label| label.value());
        let name = std::iter::once(key.name()).chain(labels).collect::<Vec<_>>().join(".");
        let drain_due = (name == super::MARKED).then(|| Arc::clone(&self.drain_due));
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let drain_every = self.drain_every;
        let count = || Arc::new(Count { value: AtomicU64::new(0), drain_due, drain_every });
        let count = counters.entry(name).or_insert_with(count);
        Counter::from_arc(Arc::clone(count))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
