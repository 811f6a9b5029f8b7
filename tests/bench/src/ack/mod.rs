//! What it costs to take a notification: the receiver on its embedded store against a route that reads the body.
//!
//! Both servers are processes of their own, started from this program and served by the same listener on two threads.
//! A round gives both the very same requests, one after the other; the order alternates. Processor time is the
//! kernel's, of all threads: the one that appends to the store's log with its `fdatasync` is in it. Not in it, and
//! printed beside it, are two threads that stand in for turns: the queue's consumer and the database's writer.
//! What the kernel does for the disk in threads of its own is charged to no process.

mod contest;
pub(crate) mod deliveries;
pub(crate) mod load;
mod rivals;
pub(crate) mod serve;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};

use self::{
    deliveries::Deliveries,
    load::{ClosedLoop, Connection},
    serve::CONSUMER,
};
use crate::{
    process::Server,
    report::{self, Promise, median, percentile},
};

/// The counter of notifications that were stored.
const MARKED: &str = "narvaro_notifications_total.marked";

/// The counter of the groups in which they were stored.
const APPENDS: &str = "narvaro_store_appends_total";

/// Share of the notifications that must really have been stored for the figures to be of this path.
const MARKED_AT_LEAST: f64 = 0.999;

/// Mailboxes that notifications are about, in turn.
const MAILBOXES: u64 = 1_000;

/// Notifications in a large POST.
const BATCH: usize = 100;

/// Large POSTs a second: a hundred thousand notifications. Not a closed loop, because nothing that takes turns keeps up
/// with what the receiver takes in then; waiting marks would coalesce, and the figures be of another path.
const LARGE_PACE: u32 = 1_000;

/// Requests a second where the time to the answer is measured, and connections they are spread over: each has
/// 64 ms from one of its requests to the next, so that a slow answer delays no other request.
const PACE: u32 = 500;
const PACED_CONNECTIONS: usize = 32;

/// Where the receiver stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum StoreKind {
    /// A file.
    Embedded,
    /// A Redis, together with receivers of other makes.
    Redis,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Which store
    #[arg(long, value_enum, default_value_t = StoreKind::Embedded)]
    store: StoreKind,
    /// Rounds of each kind; medians are taken over them
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(3..))]
    rounds: u32,
    /// Requests a round with one notification each
    #[arg(long, default_value_t = 30_000)]
    posts: usize,
    /// Requests a round with 100 notifications each; on Redis as many as make the notifications of the others
    #[arg(long, default_value_t = 1_500)]
    large_posts: usize,
    /// On Redis, the bare route and the receiver alone
    #[arg(long)]
    without_rivals: bool,
    /// On Redis, another build of this program, whose receiver is measured in the same rounds
    #[arg(long)]
    beside: Option<PathBuf>,
    /// Connections of the closed loop
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Seconds of a round at 500 requests a second
    #[arg(long, default_value_t = 10)]
    paced_seconds: u32,
    /// Where the store's folder is made; it should be on the disk that the service will use
    #[arg(long, default_value = ".")]
    folder: PathBuf,
}

/// The two servers and what they are given.
struct Bench {
    bare: Server,
    ack: Server,
    deliveries: Deliveries,
    connections: usize,
    sent: usize,
}

/// What a round cost, in microseconds of processor time a request.
struct Cost {
    bare: f64,
    ack: f64,
    /// Of that, the thread that appends to the log.
    store: f64,
    /// Notifications in one append.
    per_append: f64,
}

/// Measures, prints, and returns whether all promises are kept.
pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    let folder = tempfile::Builder::new().prefix("narvaro-bench-").tempdir_in(&options.folder)?;
    if options.store == StoreKind::Redis {
        return contest::run(options, folder.path());
    }
    report::print_machine();
    let mut deliveries = Deliveries::new(MAILBOXES)?;
    println!("bodies: {} bytes with one notification, the same for both servers", deliveries.body_bytes()?);
    println!("store: {} (fsync on)", options.folder.canonicalize()?.display());
    let (bare, ack) = (Server::start("bare", folder.path())?, Server::start("ack", folder.path())?);
    let mut bench = Bench { bare, ack, deliveries, connections: options.connections, sent: 0 };
    bench.cost_round(0, options.posts / 5, 1)?;

    println!(
        "\nprocessor time (µs a POST): one notification each, closed loop of {} connections; {BATCH} each, {LARGE_PACE} POST/s",
        options.connections
    );
    println!(
        "{:>5} {:>14} {:>10} {:>10} {:>16} {:>8} {:>20}",
        "round", "notifications", "bare", "ack", "of that, store", "ratio", "turns (not counted)"
    );
    let (mut single, mut large) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        single.push(bench.cost_round(round, options.posts, 1)?);
        large.push(bench.cost_round(round, options.large_posts, BATCH)?);
    }

    println!("\ntime to the answer at {PACE} POST/s (ms: p50, p99, p99.9)");
    let paced = bench.paced_rounds(options.rounds, options.paced_seconds)?;

    let counts = bench.counts()?;
    let marked = ratio(counts[MARKED], bench.sent as u64);
    println!("\nstored: {} of {} notifications ({:.3} %)", counts[MARKED], bench.sent, 100.0 * marked);
    for (name, count) in counts.iter().filter(|(name, count)| **count > 0 && *name != MARKED) {
        println!("  {name}: {count}");
    }
    explain(&single)?;

    let alone = |cost: &Cost| cost.ack * BATCH as f64;
    let in_batch = single.iter().zip(&large).map(|(single, large)| large.ack / alone(single)).collect();
    let rss = bench.ack.resident_mib()?;
    println!("resident: bare {:.1} MiB, ack {rss:.1} MiB", bench.bare.resident_mib()?);
    let promises = [
        Promise::at_least("share of the notifications that were really stored", marked, MARKED_AT_LEAST, ""),
        Promise::at_least(
            "processor time of the bare route / ours, 1 notification a POST",
            median_of(&single, |cost| cost.bare / cost.ack)?,
            0.40,
            "",
        ),
        Promise::at_most(
            "a notification in a POST of 100 / one alone",
            median(in_batch).context("no rounds")?,
            0.25,
            "",
        ),
        Promise::at_most(
            "p99 of the answer at 500 POST/s / the bare route's",
            median(paced).context("no rounds")?,
            3.0,
            "",
        ),
        Promise::at_most("resident memory after the run", rss, 30.0, " MiB"),
    ];
    Ok(report::judge(&promises))
}

fn median_of(costs: &[Cost], pick: fn(&Cost) -> f64) -> anyhow::Result<f64> {
    median(costs.iter().map(pick).collect()).context("no rounds")
}

fn explain(single: &[Cost]) -> anyhow::Result<()> {
    let of = |pick| median_of(single, pick);
    let (bare, ack, store) = (of(|cost| cost.bare)?, of(|cost| cost.ack)?, of(|cost| cost.store)?);
    let per_append = of(|cost| cost.per_append)?;
    println!(
        "what limits it: of {ack:.1} µs a POST, {bare:.1} are HTTP itself, {store:.1} the thread that stores \
         ({per_append:.1} notifications a time), {:.1} the rest: parse, verify, look for doubles, hand over and wake",
        ack - bare - store
    );
    Ok(())
}

impl Bench {
    fn cost_round(&mut self, round: u32, posts: usize, notifications: usize) -> anyhow::Result<Cost> {
        let requests = self.deliveries.make(posts, notifications);
        self.sent += posts * notifications;
        let connections = self.connections;
        let counted = self.counts()?;
        let [bare, ack] = self.alternate(round % 2 == 1, |server| {
            let before = server.cpu_time()?;
            if notifications == 1 {
                ClosedLoop::open(server.port, connections)?.send(&requests)?;
            } else {
                load::paced(server.port, PACED_CONNECTIONS, Duration::from_secs(1) / LARGE_PACE, &requests)?;
            }
            Ok(server.cpu_time()?.since(&before))
        })?;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / posts as f64;
        // What stands in for turns is no part of the acknowledged path.
        let turns = ack.of(CONSUMER) + ack.of("store-writer");
        let now = self.counts()?;
        let cost = Cost {
            bare: each(bare.total()),
            ack: each(ack.total() - turns),
            store: each(ack.of("store-marker")),
            per_append: ratio(now[MARKED] - counted[MARKED], now[APPENDS] - counted[APPENDS]),
        };
        println!(
            "{round:>5} {notifications:>14} {:>10.1} {:>10.1} {:>16.1} {:>8.2} {:>20.1}",
            cost.bare,
            cost.ack,
            cost.store,
            cost.bare / cost.ack,
            each(turns),
        );
        Ok(cost)
    }

    /// Ratios of the two p99, one for each round.
    fn paced_rounds(&mut self, rounds: u32, seconds: u32) -> anyhow::Result<Vec<f64>> {
        let mut ratios = Vec::new();
        for round in 1..=rounds {
            let posts = (PACE * seconds) as usize;
            let requests = self.deliveries.make(posts, 1);
            self.sent += posts;
            let times = self.alternate(round % 2 == 1, |server| {
                load::paced(server.port, PACED_CONNECTIONS, Duration::from_secs(1) / PACE, &requests)
            })?;
            let [bare, ack] = times
                .map(|times| [0.5, 0.99, 0.999].map(|share| 1e3 * percentile(&times, share).as_secs_f64()));
            println!(
                "{round:>5} bare {:.2} {:.2} {:.2}   ack {:.2} {:.2} {:.2}",
                bare[0], bare[1], bare[2], ack[0], ack[1], ack[2]
            );
            ratios.push(ack[1] / bare[1]);
        }
        Ok(ratios)
    }

    /// Does the same with both, the one after the other; returns bare's first.
    fn alternate<T>(
        &self,
        bare_first: bool,
        mut with: impl FnMut(&Server) -> anyhow::Result<T>,
    ) -> anyhow::Result<[T; 2]> {
        if bare_first {
            let bare = with(&self.bare)?;
            Ok([bare, with(&self.ack)?])
        } else {
            let ack = with(&self.ack)?;
            Ok([with(&self.bare)?, ack])
        }
    }

    fn counts(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let body = Connection::open(self.ack.side_port)?.ask("/counts")?;
        let counts: BTreeMap<String, u64> = serde_json::from_str(&body)?;
        for name in [MARKED, APPENDS] {
            ensure!(counts.contains_key(name), "the server does not count `{name}`");
        }
        Ok(counts)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn ratio(of: u64, to: u64) -> f64 {
    of as f64 / to.max(1) as f64
}
