//! The full hour: very many meetings start at the same instant.
//!
//! Several replicas on one Redis, and a PBX for each company, which is this process: it notes when it was told what, and how many
//! requests it had at a time. Of every tenth mailbox the edge changes nothing, since a holiday is on that ranks higher: its
//! phone is not told. Just before the hour a company is applied whose calendars nobody has read yet.
//!
//! Judged is how soon each edge is decided and handed to its driver, by the replicas' own metric: the PBX is in this process, and shares
//! the processors with them. From outside, from the instant to the arrival of the request at the PBX, lag is printed: it holds the
//! wait for one of the PBX's few connections too. See [`seeded`](crate::seeded) for what is left out.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::put,
};
use jiff::{SignedDuration, Timestamp};
use narvaro::{
    clock::{Clock, SystemClock},
    queue::Shares,
};
use narvaro_sim::{Record, Sim, SimOptions, TenantSpec, UserSpec};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    fleet::Fleet,
    report::{Promise, judge, millis, print_machine},
    seeded::{Crowd, CrowdPlan, Event, READ, USERS, apply, company_file, listen},
    service::until,
};

/// The company that comes just before the hour.
const NEW: &str = "newcomers";

/// How long the edges may take in all.
const LIMIT: Duration = Duration::from_secs(300);

/// Calls at a time to one PBX.
const CONCURRENCY: usize = 8;

/// Requests that the PBX takes at a time.
const PBX_CONNECTIONS: usize = 10_000;

/// Within which every edge has to be decided and handed over; a bound of the histogram.
const SCHEDULED_WITHIN: Duration = Duration::from_secs(1);

/// `queue.workers` of each replica, unless it is set.
const WORKERS: usize = 64;

/// How long everything has to be quiet until nothing is expected any more.
const QUIET: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Mailboxes, in companies of a thousand
    #[arg(long, default_value_t = 100_000)]
    mailboxes: usize,
    #[arg(long, default_value_t = 3)]
    replicas: usize,
    /// Mailboxes of the company that is new
    #[arg(long, default_value_t = 1_000)]
    newcomers: usize,
    /// Seconds from the start of the set-up to the hour; it has to be over by then
    #[arg(long, default_value_t = 240)]
    lead_secs: i64,
    /// Times are printed and not judged: for debug builds
    #[arg(long)]
    untimed: bool,
    /// The service's binary; beside this program unless given
    #[arg(long)]
    narvaro: Option<PathBuf>,
}

/// What the PBX was told.
#[derive(Default)]
struct Pbx {
    told: Mutex<Vec<Told>>,
    under_way: Mutex<HashMap<String, Arc<UnderWay>>>,
}

#[derive(Default)]
struct UnderWay {
    now: AtomicUsize,
    most: AtomicUsize,
}

struct Told {
    company: String,
    extension: String,
    profile: String,
    at: Timestamp,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn told(
    State(pbx): State<Arc<Pbx>>,
    Path((company, extension)): Path<(String, String)>,
    Json(body): Json<Value>,
) -> StatusCode {
    let at = SystemClock.now();
    let under_way = Arc::clone(lock(&pbx.under_way).entry(company.clone()).or_default());
    let now = under_way.now.fetch_add(1, Ordering::AcqRel) + 1;
    under_way.most.fetch_max(now, Ordering::AcqRel);
    let profile = body["profile"].as_str().unwrap_or_default().to_owned();
    lock(&pbx.told).push(Told { company, extension, profile, at });
    // The others come in before it is answered, as they would while a PBX works.
    tokio::task::yield_now().await;
    under_way.now.fetch_sub(1, Ordering::AcqRel);
    StatusCode::OK
}

pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    print_machine();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<bool> {
    ensure!(options.mailboxes.is_multiple_of(USERS), "mailboxes come in companies of {USERS}");
    let folder = tempfile::Builder::new().prefix("narvaro-bench-").tempdir_in(".")?;
    let sim = Sim::start(SimOptions { journal_limit: 1_000_000, ..SimOptions::default() }).await?;
    let pbx = Arc::new(Pbx::default());
    let (listener, address) = listen().await?;
    let routes = Router::new()
        .route("/{company}/extensions/{extension}/presence", put(told))
        .with_state(Arc::clone(&pbx));
    let over = CancellationToken::new();
    let _ends_with_us = over.clone().drop_guard();
    tokio::spawn(narvaro::app::listener::serve(listener, routes, PBX_CONNECTIONS, over));

    let hour = Timestamp::from_second(SystemClock.now().as_second() + options.lead_secs)?;
    let plan = CrowdPlan {
        folder: folder.path(),
        binary: options.narvaro.as_deref(),
        replicas: options.replicas,
        companies: options.mailboxes / USERS,
        pbx: address.clone(),
        concurrency: CONCURRENCY,
        calendars: calendars(hour),
    };
    let crowd = Crowd::gather(&sim, plan, hour).await?;
    for place in 0..options.replicas {
        crowd.fleet.start_again(place).await?;
    }
    crowd.until_quiet().await?;
    let left = hour.duration_since(SystemClock.now());
    ensure!(left > SignedDuration::from_secs(5), "the set-up took too long: a greater `--lead-secs`");
    println!("set up {} s before the hour", left.as_secs());
    let scheduled_before = Scheduled::read(&crowd.fleet).await?;
    let before = lock(&pbx.told).len();
    newcomers(&sim, &crowd, options, &address, hour).await?;
    until_over(&pbx, options.mailboxes).await?;
    let scheduled = Scheduled::read(&crowd.fleet).await?.since(&scheduled_before);
    report(options, &sim, &crowd, &pbx, &scheduled, before, hour)
}

/// How soon edges were decided and handed to their drivers, as all replicas together tell it.
#[derive(Default)]
struct Scheduled {
    /// Edges by the upper bound of their lag in microseconds, each with all below it; the last bound is without end.
    up_to: BTreeMap<u64, f64>,
    held_ahead: f64,
}

impl Scheduled {
    async fn read(fleet: &Fleet) -> anyhow::Result<Self> {
        let mut all = Self::default();
        for place in 0..fleet.len() {
            for (name, value) in fleet.metrics(place).await? {
                if let Some(bound) = name.strip_prefix("narvaro_edge_scheduling_seconds_bucket{le=\"") {
                    *all.up_to.entry(bound_of(bound.trim_end_matches("\"}"))?).or_default() += value;
                } else if name == "narvaro_edges_held_ahead_total{outcome=\"taken\"}" {
                    all.held_ahead += value;
                }
            }
        }
        Ok(all)
    }

    fn since(mut self, before: &Self) -> Self {
        for (bound, value) in &mut self.up_to {
            *value -= before.up_to.get(bound).copied().unwrap_or(0.0);
        }
        self.held_ahead -= before.held_ahead;
        self
    }

    fn all(&self) -> f64 {
        self.up_to.values().last().copied().unwrap_or(0.0)
    }

    /// Edges that came later than a bound of the histogram.
    fn later_than(&self, bound: Duration) -> f64 {
        let bound = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        self.all() - self.up_to.get(&bound).copied().unwrap_or(0.0)
    }

    /// Within which all edges came.
    fn last(&self) -> Duration {
        let last = self.up_to.iter().find(|(_, edges)| **edges >= self.all());
        last.map_or(Duration::MAX, |(bound, _)| Duration::from_micros(*bound))
    }

    fn print(&self) {
        println!(
            "edges decided and handed to their drivers: {:.0}, of which {:.0} were held ahead",
            self.all(),
            self.held_ahead
        );
        let mut below = 0.0;
        for (bound, edges) in &self.up_to {
            let bound = match *bound {
                u64::MAX => "later".to_owned(),
                bound => format!("within {:?}", Duration::from_micros(bound)),
            };
            println!("  {bound:>16}: {:>8.0}", edges - below);
            below = *edges;
        }
    }
}

/// A bound in microseconds.
fn bound_of(seconds: &str) -> anyhow::Result<u64> {
    if seconds == "+Inf" {
        return Ok(u64::MAX);
    }
    Ok(u64::try_from(Duration::from_secs_f64(seconds.parse()?).as_micros())?)
}

/// Nine whose edge changes what shows, and one whose edge does not.
fn calendars(hour: Timestamp) -> Vec<Vec<Event>> {
    let meeting = || Event { word: "MÖT", start: hour, end: hour + SignedDuration::from_hours(1) };
    let day = SignedDuration::from_hours(8);
    let mut calendars: Vec<Vec<Event>> = (0..9).map(|_| vec![meeting()]).collect();
    calendars.push(vec![Event { word: "HOL", start: hour - day, end: hour + day }, meeting()]);
    calendars
}

/// Applies a company that is all to be read, so that it is just being read at the hour.
async fn newcomers(
    sim: &Sim,
    crowd: &Crowd,
    options: &Options,
    pbx: &str,
    hour: Timestamp,
) -> anyhow::Result<()> {
    let tenant = sim.add_tenant(TenantSpec::new(&format!("{NEW}.example")))?;
    for n in 0..options.newcomers {
        sim.add_user(&tenant, UserSpec::new(&format!("u{n:05}@{NEW}.example")))?;
    }
    sim.consent(&tenant, crate::service::CLIENT_ID)?;
    let file = company_file(NEW, Some(&tenant), pbx, CONCURRENCY, options.newcomers);
    SystemClock.sleep_until(hour - SignedDuration::from_secs(1)).await;
    tokio::task::block_in_place(|| apply(&crowd.fleet, NEW, &file))
}

/// Waits until every phone was told that has to be, and then as long as others might be.
async fn until_over(pbx: &Pbx, mailboxes: usize) -> anyhow::Result<()> {
    let wanted = mailboxes - mailboxes / 10;
    let count = || lock(&pbx.told).iter().filter(|told| is_edge(told)).count();
    until("every phone is told", LIMIT, || count() >= wanted).await?;
    tokio::time::sleep(QUIET).await;
    Ok(())
}

fn is_edge(told: &Told) -> bool {
    told.profile == "meeting" && told.company != READ && told.company != NEW
}

fn report(
    options: &Options,
    sim: &Sim,
    crowd: &Crowd,
    pbx: &Pbx,
    scheduled: &Scheduled,
    before: usize,
    hour: Timestamp,
) -> anyhow::Result<bool> {
    scheduled.print();
    let all = lock(&pbx.told);
    let many = || all[before..].iter().filter(|told| told.company != READ && told.company != NEW);
    let early = many().filter(|told| told.at < hour).count();
    let mut lags: Vec<Duration> = many()
        .filter(|told| is_edge(told))
        .map(|told| told.at.duration_since(hour).try_into().unwrap_or_default())
        .collect();
    lags.sort();
    let last = hour + SignedDuration::try_from(lags.last().copied().unwrap_or_default())?;
    let phones: std::collections::HashSet<_> = many().map(|told| (&told.company, &told.extension)).collect();
    let skipped = options.mailboxes / 10;
    let told_in_vain =
        many().filter(|told| !is_edge(told)).count() + (lags.len() - phones.len().min(lags.len()));
    let under_way = lock(&pbx.under_way);
    let most = under_way.values().map(|company| company.most.load(Ordering::Acquire)).max().unwrap_or(0);
    let reads = |until: Timestamp| {
        let mut mailboxes = std::collections::HashSet::new();
        for entry in sim.journal().entries().iter().filter(|entry| entry.at >= hour && entry.at <= until) {
            if let Record::Graph(call) = &entry.record
                && call.status == 200
                && call.path.contains("calendarView")
            {
                mailboxes.extend(call.mailbox.clone());
            }
        }
        mailboxes.len()
    };
    let at = |share| millis(&lags, share);
    println!(
        "from the hour to the PBX: n {}, p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, p99.9 {:.0} ms, last {:.0} ms",
        lags.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    for tenth in 1..10 {
        println!("  {:>3} % after {:>8.0} ms", tenth * 10, at(f64::from(tenth) / 10.0));
    }
    println!(
        "first readings of new mailboxes done when the last edge was told: {} of {}; most requests to one PBX at a time: {most}",
        reads(last),
        options.newcomers
    );
    println!(
        "Redis: {:.1} s of processor time since its start",
        crowd.redis.cpu_time()?.total().as_secs_f64()
    );
    let (edges, mailboxes) = (scheduled.all(), options.mailboxes);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of edges")]
    let handed_over = edges as usize;
    let mut promises = vec![
        Promise::no_fewer("edges decided and handed to their drivers", handed_over, mailboxes - skipped),
        Promise::no_fewer("phones that were told", phones.len(), options.mailboxes - skipped),
        Promise::no_more("phones that were told before the hour", early, 0),
        Promise::no_more("phones that were told though nothing changed, or twice", told_in_vain, 0),
        Promise::no_more("requests to one PBX at a time", most, CONCURRENCY * options.replicas),
    ];
    if options.untimed {
        println!("Times are not judged.");
    } else {
        let late = scheduled.later_than(SCHEDULED_WITHIN);
        let between = reads(
            SignedDuration::try_from(scheduled.last())
                .ok()
                .and_then(|last| hour.checked_add(last).ok())
                .unwrap_or(Timestamp::MAX),
        );
        promises.push(Promise::at_most(
            &format!(
                "of {} edges at one instant, handed to their drivers later than {SCHEDULED_WITHIN:?}",
                options.mailboxes
            ),
            late,
            0.0,
            "",
        ));
        promises.push(Promise::no_more(
            "first readings of new mailboxes that came between, beside those that were under way",
            between,
            options.replicas * Shares::of(WORKERS).reading,
        ));
    }
    Ok(judge(&promises))
}
