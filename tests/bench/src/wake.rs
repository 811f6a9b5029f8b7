//! How soon a turn begins on another replica: one process takes notifications and no turns, another takes turns and no
//! notifications, both on one Redis.
//!
//! Both are made of what the service is made of: the receiver with its store, and the store with its dispatcher. What is left
//! out is the turn itself, which settles at once. Each mark is of a mailbox that nobody has marked since its last turn,
//! so that each has a turn of its own, and each has to wake the other replica.
//!
//! Two times are taken of each: from the mark, which is when the receiver got the request, to the start of the turn; and from
//! outside, from the moment the 202 was here. Both processes and this one read the same clock.

use std::{
    collections::HashMap,
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use async_trait::async_trait;
use axum::{Json, Router, routing::get};
use narvaro::{
    clock::{Clock, SystemClock},
    queue::{
        Dispatcher, DispatcherSettings, DueStore, HeldAhead, Lease, Settled, Shares, StoreError, TakesTurns,
        Urgency,
    },
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    ack::{
        deliveries::Deliveries,
        load::{self, Connection},
    },
    process::Server,
    redis::{self, RedisServer},
    report::{Promise, judge, millis, print_machine},
};

/// Connections over which marks come: each has 64 ms from one to the next.
const CONNECTIONS: usize = 64;

/// Workers, as many as the service has unless told otherwise.
const WORKERS: usize = 64;

/// Length of a lease, as long as the service's.
const HOLD: Duration = Duration::from_secs(90);

/// How long after the last mark its turn may begin, until it counts as lost.
const LIMIT: Duration = Duration::from_secs(30);

/// What a quiet mailbox's document has, about.
const STATE_BYTES: usize = 512;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Marks a second
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// For how long
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Where Redis keeps its file
    #[arg(long, default_value = ".")]
    folder: PathBuf,
}

/// The start of a turn, as the replica that takes turns has noted it.
#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    mailbox: u64,
    /// When it was marked, and when the turn began: microseconds since 1970.
    marked: i64,
    begun: i64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    print_machine();
    println!("Redis {} (appendonly, everysec)", redis::version()?);
    let folder = tempfile::Builder::new().prefix("narvaro-bench-").tempdir_in(&options.folder)?;
    let redis = RedisServer::start(folder.path(), None, &[])?;
    let mailboxes = u64::from(options.rate * options.seconds);
    let serve = |kind: &str| {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.args(["serve", kind, "--mailboxes", &mailboxes.to_string(), "--redis", &redis.url()]);
        command.arg("--store").arg(folder.path());
        Server::launch(kind, command)
    };
    // The receiver applies the company, and works off what that makes due.
    let receiver = serve("ack").context("the replica that takes notifications")?;
    let turns = serve("turns").context("the replica that takes turns")?;
    let requests = Deliveries::new(mailboxes)?.make(usize::try_from(mailboxes)?, 1);
    let calls = redis.client()?.calls()?;
    let began = Instant::now();
    let answered = answered(receiver.port, options.rate, &requests)?;
    let begun = until_all_begun(&turns, requests.len())?;
    println!(
        "{} marks in {:.1} s, {} turns; CPU of the receiver {:.1} s, of the other replica {:.1} s, of Redis {:.1} s",
        requests.len(),
        began.elapsed().as_secs_f64(),
        begun.len(),
        receiver.cpu_time()?.total().as_secs_f64(),
        turns.cpu_time()?.total().as_secs_f64(),
        redis.cpu_time()?.total().as_secs_f64()
    );
    tell_calls(&calls, &redis, requests.len())?;
    judge_times(options, &begun, &answered)
}

/// What Redis was asked for each mark and its turn.
fn tell_calls(
    before: &std::collections::BTreeMap<String, u64>,
    redis: &RedisServer,
    marks: usize,
) -> anyhow::Result<()> {
    let now = redis.client()?.calls()?;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let each = now.iter().map(|(name, calls)| {
        let more = calls - before.get(name).copied().unwrap_or(0);
        format!("{name} {:.2}", more as f64 / marks as f64)
    });
    println!(
        "calls of Redis a mark with its turn (what scripts call is counted too): {}",
        each.collect::<Vec<_>>().join(", ")
    );
    Ok(())
}

/// When each request's answer was here, by mailbox: microseconds since 1970.
fn answered(port: u16, rate: u32, requests: &[Vec<u8>]) -> anyhow::Result<HashMap<u64, i64>> {
    let answers = load::paced_answers(port, CONNECTIONS, Duration::from_secs(1) / rate, requests)?;
    // Mailboxes are numbered from 1, and come in order.
    Ok(answers.into_iter().map(|(place, at)| (place as u64 + 1, at.as_microsecond())).collect())
}

fn until_all_begun(turns: &Server, wanted: usize) -> anyhow::Result<Vec<Begun>> {
    let end = Instant::now() + LIMIT;
    loop {
        let count: usize = Connection::open(turns.side_port)?.ask("/count")?.trim().parse()?;
        if count >= wanted || Instant::now() > end {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(serde_json::from_str(&Connection::open(turns.side_port)?.ask("/begun")?)?)
}

fn judge_times(options: &Options, begun: &[Begun], answered: &HashMap<u64, i64>) -> anyhow::Result<bool> {
    let micros = |from: i64, to: i64| Duration::from_micros(u64::try_from(to - from).unwrap_or(0));
    let mut of_mark: Vec<_> = begun.iter().map(|turn| micros(turn.marked, turn.begun)).collect();
    let mut of_answer: Vec<_> =
        begun.iter().filter_map(|turn| Some(micros(*answered.get(&turn.mailbox)?, turn.begun))).collect();
    ensure!(!of_mark.is_empty(), "no turn has begun");
    of_mark.sort();
    of_answer.sort();
    for (name, sorted) in [("mark to turn", &of_mark), ("202 to turn (0: before it)", &of_answer)] {
        let [p50, p90, p99, p999, worst] = [0.5, 0.9, 0.99, 0.999, 1.0].map(|share| millis(sorted, share));
        println!(
            "{name}: n {}, p50 {p50:.2} ms, p90 {p90:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, worst {worst:.2} ms",
            sorted.len()
        );
    }
    let mailboxes: std::collections::HashSet<u64> = begun.iter().map(|turn| turn.mailbox).collect();
    Ok(judge(&[
        Promise::no_more("marks whose turn never began", answered.len() - mailboxes.len(), 0),
        Promise::at_most(
            &format!("{} marks a second, from the mark to the turn elsewhere, p99", options.rate),
            millis(&of_mark, 0.99),
            20.0,
            " ms",
        ),
    ]))
}

/// Takes turns that only note when they began.
struct Noting {
    store: Arc<dyn DueStore>,
    begun: Arc<Mutex<Vec<Begun>>>,
}

#[async_trait]
impl TakesTurns for Noting {
    async fn take(&self, lease: Lease) -> Result<(), StoreError> {
        let begun = SystemClock.now().as_microsecond();
        if let Some(since) = lease.gathered.since {
            let noted = Begun { mailbox: lease.mailbox.0, marked: since.as_microsecond(), begun };
            self.begun.lock().unwrap_or_else(PoisonError::into_inner).push(noted);
        }
        let next = Settled::Next {
            state: vec![b'x'; STATE_BYTES],
            due: None,
            urgency: Urgency::Upkeep,
            to_read: None,
        };
        self.store.settle(&lease, next).await
    }

    async fn take_ahead(&self, lease: Lease, _held: HeldAhead) -> Result<(), StoreError> {
        self.take(lease).await
    }
}

/// The replica that takes turns; serves until the process is ended.
pub(crate) async fn serve(url: &str) -> anyhow::Result<()> {
    let clock = Arc::new(SystemClock);
    let store: Arc<dyn DueStore> = crate::shared::open(url, Shares::of(WORKERS), Arc::clone(&clock)).await?;
    let begun: Arc<Mutex<Vec<Begun>>> = Arc::default();
    let turns = Arc::new(Noting { store: Arc::clone(&store), begun: Arc::clone(&begun) });
    let settings = DispatcherSettings { workers: WORKERS, hold: HOLD };
    let never = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let counted = Arc::clone(&begun);
    let count = move || counted.lock().unwrap_or_else(PoisonError::into_inner).len().to_string();
    let all = move || Json(std::mem::take(&mut *begun.lock().unwrap_or_else(PoisonError::into_inner)));
    let side =
        Router::new().route("/count", get(async move || count())).route("/begun", get(async move || all()));
    let port = listener.local_addr()?.port();
    std::io::stdout().write_all(format!("{port} {port}\n").as_bytes())?;
    tokio::join!(
        Dispatcher::new(store, turns, clock, settings).run(never.clone()),
        narvaro::app::listener::serve(listener, side, CONNECTIONS, never),
    );
    Ok(())
}
