//! What very many mailboxes cost: memory in Redis and what it is made of, memory and start of a replica, and what everything does
//! while nothing happens; with few mailboxes and with many, so that it shows what grows.
//!
//! See [`seeded`](crate::seeded) for how there come to be so many, and what is left out.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use axum::{Router, extract::State, http::StatusCode, routing::put};
use jiff::{SignedDuration, Timestamp};
use narvaro::clock::{Clock, SystemClock};
use narvaro_sim::{EventSpec, Sim, SimOptions};
use tokio_util::sync::CancellationToken;

use crate::{
    redis::Client,
    report::{Promise, judge, print_machine},
    seeded::{Crowd, CrowdPlan, Event, READ, USERS, listen},
    service::until,
};

/// The fewer mailboxes to compare with.
const FEW: usize = USERS;

/// Calendars that are read, for all others.
const CALENDARS: usize = 10;

/// Events with a profile in each, over the four weeks to come.
const EVENTS: i64 = 20;

/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(30);

/// Changes of calendars whose cost is counted.
const CHANGES: usize = 50;

const LIMIT: Duration = Duration::from_secs(60);

/// The kind of key that has the turns' documents.
const DOCUMENTS: &str = "state";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Mailboxes, in companies of a thousand
    #[arg(long, default_value_t = 100_000)]
    mailboxes: usize,
    #[arg(long, default_value_t = 2)]
    replicas: usize,
    /// The service's binary; beside this program unless given
    #[arg(long)]
    narvaro: Option<PathBuf>,
}

/// What so many mailboxes cost.
struct Cost {
    mailboxes: usize,
    /// Bytes of Redis by kind of key, all mailboxes together.
    kinds: BTreeMap<String, Kind>,
    /// What Redis uses in all, above an empty one.
    used: u64,
    started_in: Vec<Duration>,
    resident_mib: Vec<f64>,
    /// Processor seconds while nothing happened: of replicas, and of Redis.
    idle_replicas: f64,
    idle_redis: f64,
    /// What Redis was sent while nothing happened, a second.
    idle_commands: f64,
    /// What Redis was sent for each change of a calendar, by command.
    of_change: BTreeMap<String, f64>,
}

#[derive(Default)]
struct Kind {
    keys: usize,
    bytes: u64,
}

impl Cost {
    /// Bytes a mailbox, without documents.
    fn per_mailbox(&self) -> f64 {
        let documents = self.kinds.get(DOCUMENTS).map_or(0, |kind| kind.bytes);
        (self.used - documents) as f64 / self.mailboxes as f64
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    print_machine();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        ensure!(options.mailboxes.is_multiple_of(USERS), "mailboxes come in companies of {USERS}");
        let few = measure(options, FEW).await?;
        let many = measure(options, options.mailboxes).await?;
        Ok(report(&few, &many))
    })
}

async fn measure(options: &Options, mailboxes: usize) -> anyhow::Result<Cost> {
    let folder = tempfile::Builder::new().prefix("narvaro-bench-").tempdir_in(".")?;
    let sim = Sim::start(SimOptions::default()).await?;
    let told = Arc::new(AtomicUsize::new(0));
    let (listener, address) = listen().await?;
    let count = async |State(told): State<Arc<AtomicUsize>>| {
        told.fetch_add(1, Ordering::AcqRel);
        StatusCode::OK
    };
    let routes = Router::new()
        .route("/{company}/extensions/{extension}/presence", put(count))
        .with_state(Arc::clone(&told));
    let over = CancellationToken::new();
    let _ends_with_us = over.clone().drop_guard();
    tokio::spawn(narvaro::app::listener::serve(listener, routes, 1_000, over));

    let now = Timestamp::from_second(SystemClock.now().as_second())?;
    let plan = CrowdPlan {
        folder: folder.path(),
        binary: options.narvaro.as_deref(),
        replicas: options.replicas,
        companies: mailboxes / USERS,
        pbx: address,
        concurrency: 8,
        calendars: (0..CALENDARS).map(|_| calendar(now)).collect(),
    };
    let crowd = Crowd::gather(&sim, plan, now + SignedDuration::from_hours(24)).await?;
    println!("\n{mailboxes} mailboxes are there");
    let mut started_in = Vec::new();
    for place in 0..options.replicas {
        let began = Instant::now();
        crowd.fleet.start_again(place).await?;
        started_in.push(began.elapsed());
    }
    crowd.until_quiet().await?;
    let mut client = crowd.redis.client()?;
    let used = used(&mut client)?;
    let kinds = kinds(&mut client)?;
    let resident = |place| crowd.fleet.resident_mib(place);
    let resident_mib = (0..options.replicas).map(resident).collect::<anyhow::Result<_>>()?;
    let (idle_replicas, idle_redis, idle_commands) = idle(&crowd).await?;
    let of_change = changes(&sim, &crowd, &told).await?;
    Ok(Cost {
        mailboxes,
        kinds,
        used,
        started_in,
        resident_mib,
        idle_replicas,
        idle_redis,
        idle_commands,
        of_change,
    })
}

/// Bytes that Redis uses, without what an empty one does and what it keeps for connections and its file.
fn used(client: &mut Client) -> anyhow::Result<u64> {
    let memory = client.info("memory")?;
    let bytes = |name: &str| -> anyhow::Result<u64> {
        Ok(memory.get(name).with_context(|| format!("no `{name}` in INFO memory"))?.parse()?)
    };
    let others = ["used_memory_startup", "mem_clients_normal", "mem_aof_buffer", "mem_replication_backlog"];
    let others: u64 = others.into_iter().map(bytes).sum::<anyhow::Result<u64>>()?;
    Ok(bytes("used_memory")?.saturating_sub(others))
}

fn calendar(now: Timestamp) -> Vec<Event> {
    let event = |n: i64| {
        let start = now + SignedDuration::from_hours(24 + n * 28 * 24 / EVENTS);
        let word = if n % 4 == 0 { "LUN" } else { "MÖT" };
        Event { word, start, end: start + SignedDuration::from_hours(1) }
    };
    (0..EVENTS).map(event).collect()
}

/// Bytes by kind of key, as Redis itself counts them.
fn kinds(client: &mut Client) -> anyhow::Result<BTreeMap<String, Kind>> {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut cursor = "0".to_owned();
    loop {
        let page = client.ask(&["SCAN", &cursor, "COUNT", "5000"])?;
        let [next, found] = page.list() else { anyhow::bail!("an odd answer to SCAN") };
        for key in found.list() {
            let name = key.text().split_once("}:").map_or(key.text(), |(_, name)| name);
            let kind = name.split(':').next().unwrap_or(name).to_owned();
            keys.entry(kind).or_default().push(key.text().to_owned());
        }
        cursor = next.text().to_owned();
        if cursor == "0" {
            break;
        }
    }
    let mut kinds = BTreeMap::new();
    for (kind, mut names) in keys {
        names.sort();
        names.dedup();
        let mut bytes = 0;
        if names.len() < FEW {
            // Few, and perhaps large: counted whole, not by sample.
            for name in &names {
                bytes += client.ask(&["MEMORY", "USAGE", name, "SAMPLES", "0"])?.number();
            }
        } else {
            let replies = client.ask_each(&["MEMORY", "USAGE"], &names)?;
            bytes = replies.iter().map(crate::redis::Reply::number).sum();
        }
        kinds.insert(kind, Kind { keys: names.len(), bytes: u64::try_from(bytes)? });
    }
    Ok(kinds)
}

/// Processor seconds of replicas and Redis, and commands a second, while nothing happens.
async fn idle(crowd: &Crowd) -> anyhow::Result<(f64, f64, f64)> {
    let spent = || -> anyhow::Result<(Duration, Duration, u64)> {
        let mut replicas = Duration::ZERO;
        for place in 0..crowd.fleet.len() {
            replicas += crowd.fleet.cpu_time(place)?;
        }
        let sent = crowd.redis.client()?.info("stats")?;
        let sent = sent.get("total_commands_processed").context("no count of commands")?.parse()?;
        Ok((replicas, crowd.redis.cpu_time()?.total(), sent))
    };
    let before = spent()?;
    tokio::time::sleep(IDLE).await;
    let after = spent()?;
    let commands = (after.2 - before.2) as f64 / IDLE.as_secs_f64();
    Ok(((after.0 - before.0).as_secs_f64(), (after.1 - before.1).as_secs_f64(), commands))
}

/// What Redis is sent for one change of a calendar after the other: notification, turn, reading and writing.
async fn changes(sim: &Sim, crowd: &Crowd, told: &AtomicUsize) -> anyhow::Result<BTreeMap<String, f64>> {
    let before = crowd.redis.client()?.calls()?;
    let began = Timestamp::from_second(SystemClock.now().as_second())?;
    for n in 0..CHANGES {
        let wanted = told.load(Ordering::Acquire) + 1;
        let user = format!("u{:05}@{READ}.example", n % CALENDARS);
        let end = began + SignedDuration::from_hours(4) + SignedDuration::from_mins(i64::try_from(n)?);
        sim.add_event(&user, EventSpec::new("HOL").at(began, end))?;
        until("the phone is told", LIMIT, || told.load(Ordering::Acquire) >= wanted).await?;
        // The turn ends after it has told the phone.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let after = crowd.redis.client()?.calls()?;
    let each = after.into_iter().map(|(name, calls)| {
        let calls = calls - before.get(&name).copied().unwrap_or(0);
        (name, calls as f64 / CHANGES as f64)
    });
    Ok(each.filter(|(_, calls)| *calls > 0.01).collect())
}

fn report(few: &Cost, many: &Cost) -> bool {
    for cost in [few, many] {
        println!("\n{} mailboxes, bytes a mailbox in Redis by kind of key:", cost.mailboxes);
        let mut sum = 0;
        for (name, kind) in &cost.kinds {
            sum += kind.bytes;
            let each = kind.bytes as f64 / cost.mailboxes as f64;
            println!("  {name:<16} {:>9} keys {:>12} bytes {each:>9.1} a mailbox", kind.keys, kind.bytes);
        }
        let rest = cost.used as f64 - sum as f64;
        println!(
            "  {:<16} {:>14} {:>12.0} bytes {:>9.1} a mailbox",
            "the rest",
            "",
            rest,
            rest / cost.mailboxes as f64
        );
        println!(
            "start of a replica {:.2?}, resident {:.1?} MiB; idle for {IDLE:?}: {:.2} s of processor time of all replicas, {:.2} s of \
             Redis, {:.1} commands a second",
            cost.started_in, cost.resident_mib, cost.idle_replicas, cost.idle_redis, cost.idle_commands
        );
        println!("commands a change of a calendar, those of scripts too: {:.2?}", cost.of_change);
    }
    let resident = |cost: &Cost| cost.resident_mib.iter().copied().fold(0.0, f64::max);
    let more = (resident(many) - resident(few)) * 1024.0 * 1024.0 / (many.mailboxes - few.mailboxes) as f64;
    println!("a replica's memory for each mailbox more: {more:.0} bytes");
    judge(&[
        Promise::at_most("bytes of Redis a mailbox, without the document", many.per_mailbox(), 1_000.0, " B"),
        Promise::at_most(
            "processor time of idle replicas, many mailboxes / few",
            (many.idle_replicas + 0.05) / (few.idle_replicas + 0.05),
            1.5,
            "",
        ),
        Promise::at_most(
            "processor time of an idle Redis, many mailboxes / few",
            (many.idle_redis + 0.05) / (few.idle_redis + 0.05),
            1.5,
            "",
        ),
        Promise::at_most(
            "commands an idle Redis is sent, many mailboxes / few",
            (many.idle_commands + 1.0) / (few.idle_commands + 1.0),
            1.2,
            "",
        ),
    ])
}
