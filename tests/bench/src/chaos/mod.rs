//! Several replicas in the middle of everything that can go wrong: nothing acknowledged is lost, no phone is told something old
//! after something new, and no mailbox has two turns at a time.
//!
//! The replicas are processes of the service's binary behind a load balancer, on a Redis in one of its forms; Graph and the PBX are
//! the simulators, in this process. Calendars change at a steady rate, each change so that a phone has to show something else,
//! and Graph tells each by a POST, which it repeats until it is acknowledged. Half of the calendars change once only, so that no
//! later change makes up for one that was lost. Meanwhile replicas are killed, stopped for longer
//! than a lease and woken, and restarted in turn; connections to Redis are cut or fall silent; Redis itself is killed, to come
//! back with what it had written or to be followed by another. At the end all of that stops, and what phones show is
//! held against what calendars say.
//!
//! What is judged is seen from outside: in what the simulators were asked, and when. A write carries the generation of its turn (in its
//! idempotency key), and each replica has a secret of its own for the app, so that Graph's log tells who read which calendar.

mod faults;
mod journal;
mod town;

use std::{
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use narvaro_sim::{Fault, FaultKind, PbxFault, Sim, SimOptions};

use self::{
    faults::{Done, STOPS_WITHIN, Stage, expected},
    journal::{Findings, Watch},
    town::Town,
};
use crate::{
    dice::Dice,
    fleet::{Fleet, FleetPlan},
    relay::Relay,
    report::{Promise, judge, millis, print_machine},
    service::until,
    site::{Form, Site},
};

/// Length of a lease: the shortest that is allowed, so that it is outlasted often.
pub(crate) const LEASE: Duration = Duration::from_secs(15);

/// How long the start may take: subscriptions are made within the budgets that Graph sets.
const START_WITHIN: Duration = Duration::from_secs(300);

/// How long after the last fault everything has to be as it should: a lease of somebody who is gone, and the longest wait
/// before something is tried again.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);

/// How long it has to stay so.
const STAYS: Duration = Duration::from_secs(3);

/// What Graph and the PBX take for an answer.
const GRAPH_TAKES: u64 = 30;
const PBX_TAKES: u64 = 15;

/// What the simulator notes against whoever is slow: here that is on purpose.
const ON_PURPOSE: &str = "slow-endpoint";

/// What it notes where two requests change one phone at a time.
const TWO_AT_ONCE: &str = "pbx-two-in-flight";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long things go wrong
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// How Redis is set up
    #[arg(long, value_enum, default_value_t = Form::Single)]
    form: Form,
    #[arg(long, default_value_t = 3)]
    replicas: usize,
    #[arg(long, default_value_t = 2_000)]
    mailboxes: usize,
    /// Changes a second, and so notifications
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Throws the dice of an earlier run again; of a new run it is printed
    #[arg(long)]
    seed: Option<u64>,
    /// The service's binary; beside this program unless given
    #[arg(long)]
    narvaro: Option<PathBuf>,
    /// Keeps all folders, with what replicas and Redis have logged, in this one
    #[arg(long)]
    keep: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    print_machine();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<bool> {
    let seed = options.seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed}: `--seed {seed}` throws the same dice again");
    let temporary = tempfile::Builder::new().prefix("narvaro-chaos-").tempdir()?;
    let folder = match &options.keep {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            folder.canonicalize()?
        }
        None => temporary.path().to_owned(),
    };
    let sim =
        Sim::start(SimOptions { rng_seed: seed, journal_limit: 500_000, ..SimOptions::default() }).await?;
    let town = Town::found(&sim, options.mailboxes.div_ceil(400), options.mailboxes)?;
    let began = Instant::now();
    let stage = Arc::new(set_up(options, &sim, &town, &folder).await?);
    println!(
        "{} mailboxes of {} companies looked up, watched, read and shown by {} replicas after {:.1} s",
        town.mailboxes.len(),
        town.companies.len(),
        stage.fleet.len(),
        began.elapsed().as_secs_f64()
    );
    sim.fault(Fault::lasting(FaultKind::Slow { millis: GRAPH_TAKES }));
    for company in &town.companies {
        sim.pbx().fault(company, u32::MAX, PbxFault::Slow { millis: PBX_TAKES });
    }
    sim.delivery(|knobs| {
        knobs.duplicate = 0.02;
        knobs.reorder = 0.05;
    });
    let watch = Watch::from_now(&sim, &town);
    let run = Run { sim: Arc::new(sim), town: Arc::new(Mutex::new(town)), stage, watch };
    run.go(options, seed).await
}

async fn set_up(
    options: &Options,
    sim: &Sim,
    town: &Town,
    folder: &std::path::Path,
) -> anyhow::Result<Stage> {
    let form = options.form;
    ensure!(form != Form::Embedded || options.replicas == 1, "a file takes one replica: `--replicas 1`");
    let site = Site::start(form, folder)?;
    let mut ways = Vec::new();
    if let Some(port) = site.port() {
        for _ in 0..options.replicas {
            ways.push(Relay::start(&[port]).await?);
        }
    }
    let stores = (0..options.replicas).map(|place| site.url(ways.get(place).map(|way| way.port))).collect();
    let plan = FleetPlan {
        binary: options.narvaro.as_deref(),
        folder,
        stores,
        more: &|_| format!("[queue]\nlease_secs = {}\n[pbx]\ntimeout_secs = 5\n", LEASE.as_secs()),
        log: "warn,narvaro::app=info",
    };
    let fleet = Fleet::start(sim, plan, &town.tenants).await?;
    for (company, id) in town.companies.iter().enumerate() {
        let file = fleet.folder(0).join(format!("{id}.toml"));
        std::fs::write(&file, town.file(sim, company, 16))?;
        let mut apply = fleet.command(0, &["apply", "--json"]);
        let applied = apply.arg(&file).stdout(Stdio::null()).status()?;
        ensure!(applied.success(), "the company `{id}` could not be applied");
    }
    let all = town.mailboxes.len();
    until("every mailbox is watched", START_WITHIN, || sim.subscriptions().len() == all).await?;
    until("every phone is told", START_WITHIN, || town.wrong(sim).is_empty()).await?;
    Ok(Stage { fleet, site: Mutex::new(site), ways, form, done: Mutex::default() })
}

struct Run {
    sim: Arc<Sim>,
    town: Arc<Mutex<Town>>,
    stage: Arc<Stage>,
    watch: Watch,
}

impl Run {
    async fn go(mut self, options: &Options, seed: u64) -> anyhow::Result<bool> {
        let began = Instant::now();
        let end = began + Duration::from_secs_f64(60.0 * options.minutes);
        let over = Arc::new(AtomicBool::new(false));
        let changes = tokio::spawn(change(
            Arc::clone(&self.sim),
            Arc::clone(&self.town),
            Dice::of(seed, "changes"),
            options.rate,
            60.0 * options.minutes,
            Arc::clone(&over),
        ));
        let of_replicas = Arc::clone(&self.stage).trouble_replicas(Dice::of(seed, "replicas"), began, end);
        let of_redis = Arc::clone(&self.stage).trouble_redis(Dice::of(seed, "redis"), began, end);
        let (of_replicas, of_redis) = (tokio::spawn(of_replicas), tokio::spawn(of_redis));
        while Instant::now() < end || !of_replicas.is_finished() || !of_redis.is_finished() {
            ensure!(!changes.is_finished(), "calendars are no longer changed");
            self.look()?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        of_replicas.await??;
        of_redis.await??;
        over.store(true, Ordering::Release);
        let changed = changes.await??;
        let lasted = began.elapsed();
        let settled = self.settle().await?;
        self.judge(options, changed, lasted, settled).await
    }

    fn look(&mut self) -> anyhow::Result<()> {
        let stage = Arc::clone(&self.stage);
        let done = stage.done.lock().unwrap_or_else(PoisonError::into_inner);
        self.watch.wakings.clone_from(&done.wakings);
        self.watch.endings.clone_from(&done.endings);
        drop(done);
        let town = self.town.lock().unwrap_or_else(PoisonError::into_inner);
        self.watch.look(&self.sim, &town)
    }

    /// Waits until everything is as it should be, and stays so; how long that took, or `None`.
    async fn settle(&mut self) -> anyhow::Result<Option<Duration>> {
        self.stage.fleet.until_all_ready().await?;
        let began = Instant::now();
        let mut right_since: Option<Instant> = None;
        while began.elapsed() < SETTLES_WITHIN + STAYS {
            self.sim.retry_now();
            self.look()?;
            let wrong = self.town.lock().unwrap_or_else(PoisonError::into_inner).wrong(&self.sim).len();
            if wrong > 0 || self.sim.outstanding() > 0 {
                right_since = None;
            } else if right_since.get_or_insert_with(Instant::now).elapsed() >= STAYS {
                return Ok(right_since.map(|since| since.duration_since(began)));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(None)
    }

    async fn judge(
        self,
        options: &Options,
        changed: usize,
        lasted: Duration,
        settled: Option<Duration>,
    ) -> anyhow::Result<bool> {
        let Self { sim, town, stage, watch } = self;
        let found = watch.found;
        let done = std::mem::take(&mut *stage.done.lock().unwrap_or_else(PoisonError::into_inner));
        let per_second = changed as f64 / lasted.as_secs_f64();
        tell(&found, &done, changed, lasted);
        tell_metrics(&stage.fleet).await?;
        tell_log(&stage.fleet)?;
        let town = town.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong = town.wrong(&sim);
        for place in wrong.iter().take(10) {
            let mailbox = &town.mailboxes[*place];
            let shown = sim.pbx().presence(&town.companies[mailbox.company], &mailbox.extension);
            println!("  wrong: mailbox {place} shows {shown:?} and not {:?}", mailbox.shows);
        }
        for line in found.overtaken.iter().chain(&found.overlaps).take(10) {
            println!("  {line}");
        }
        let violations = sim.violations();
        let objections = |wanted: &dyn Fn(&str) -> bool| {
            let rules = violations.iter().filter_map(|entry| match &entry.record {
                narvaro_sim::Record::Violation { rule, detail } if wanted(rule) => {
                    Some((*rule, detail.clone()))
                }
                _ => None,
            });
            rules.collect::<Vec<_>>()
        };
        let others = objections(&|rule| rule != ON_PURPOSE && rule != TWO_AT_ONCE);
        for (rule, detail) in others.iter().take(10) {
            println!("  the simulator objects: {rule}: {detail}");
        }
        let missing = expected(options.form).iter().filter(|name| !done.faults.contains_key(*name)).count();
        let slowest = done.stops.iter().max().copied().unwrap_or_default();
        let settled = settled.unwrap_or(Duration::MAX).as_secs_f64().min(9_999.0);
        let promises = [
            Promise::no_more("phones that show something else than their calendars say", wrong.len(), 0),
            Promise::at_most(
                "until all showed it after the last fault",
                settled,
                SETTLES_WITHIN.as_secs_f64(),
                " s",
            ),
            Promise::no_more(
                "notifications that were given up or never acknowledged",
                found.discarded + sim.outstanding(),
                0,
            ),
            Promise::no_more(
                "writes of an older turn after a newer one was acknowledged",
                found.overtaken.len(),
                0,
            ),
            Promise::no_more("writes whose turn is not known", found.unnamed, 0),
            Promise::no_more(
                "two writes to one phone at a time",
                objections(&|rule| rule == TWO_AT_ONCE).len(),
                0,
            ),
            Promise::no_more("mailboxes in two replicas' hands at a time", found.overlaps.len(), 0),
            Promise::no_more("other objections of the simulator", others.len(), 0),
            Promise::no_more("kinds of faults that did not happen", missing, 0),
            Promise::no_more("orderly stops that ended otherwise", done.bad_stops.len(), 0),
            Promise::at_most("slowest orderly stop", slowest.as_secs_f64(), STOPS_WITHIN.as_secs_f64(), " s"),
            Promise::at_least("changes a second", per_second, 0.9 * f64::from(options.rate), ""),
        ];
        Ok(judge(&promises))
    }
}

/// Changes calendars at a steady rate until it is over, spreading those that change once over `seconds`; how many changes that
/// were.
async fn change(
    sim: Arc<Sim>,
    town: Arc<Mutex<Town>>,
    mut dice: Dice,
    rate: u32,
    seconds: f64,
    over: Arc<AtomicBool>,
) -> anyhow::Result<usize> {
    let once = town.lock().unwrap_or_else(PoisonError::into_inner).once();
    #[expect(clippy::cast_precision_loss, reason = "some thousand mailboxes")]
    let share = once as f64 / (f64::from(rate) * seconds);
    let mut owed = 0.0;
    let mut beat = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut changed = 0;
    while !over.load(Ordering::Acquire) {
        beat.tick().await;
        owed += share;
        let once = owed >= 1.0;
        if once {
            owed -= 1.0;
        }
        town.lock().unwrap_or_else(PoisonError::into_inner).change(&sim, &mut dice, once)?;
        changed += 1;
    }
    Ok(changed)
}

fn tell(found: &Findings, done: &Done, changed: usize, lasted: Duration) {
    println!("\n{changed} changes in {:.0} s, {} notifications", lasted.as_secs_f64(), found.notifications);
    println!(
        "POSTs by what came of them: {:?}; {} notifications acknowledged",
        found.posts, found.acknowledged
    );
    let distribution = |name: &str, times: &[Duration]| {
        let mut sorted = times.to_vec();
        sorted.sort();
        let at = |share| millis(&sorted, share);
        println!(
            "{name}: n {}, p50 {:.0} ms, p99 {:.0} ms, p99.9 {:.0} ms, worst {:.0} ms",
            sorted.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        );
    };
    distribution("answer to a notification", &found.answers);
    distribution("from an acknowledgement to the phone, faults included", &found.took);
    println!(
        "the PBX was changed {} times ({} attempts failed); Graph was asked {} times, by replica {:?}",
        found.writes, found.writes_failed, found.graph_calls, found.calls_of
    );
    println!(
        "requests of a replica just woken, beside those of another: {} (reads; its writes are judged); of one that cut them off to stop: {}",
        found.woken, found.cut_off
    );
    for (name, times) in &done.faults {
        println!("{times:>4} × {name}");
    }
    distribution("orderly stops", &done.stops);
    distribution("Redis away", &done.outages);
    done.bad_stops.iter().for_each(|stop| println!("  {stop}"));
}

/// What replicas count themselves; those that ended took their counts with them.
async fn tell_metrics(fleet: &Fleet) -> anyhow::Result<()> {
    const WANTED: [&str; 8] = [
        "narvaro_leases_expired_total",
        "narvaro_turns_total",
        "narvaro_turns_unsettled_total",
        "narvaro_turns_put_off_total",
        "narvaro_unannounced_changes_total",
        "narvaro_resyncs_total",
        "narvaro_reads_failed_total",
        "narvaro_presence_writes_failed_total",
    ];
    let mut sums = std::collections::BTreeMap::new();
    for place in 0..fleet.len() {
        let metrics = fleet.metrics(place).await.context("metrics")?;
        for (name, value) in metrics.into_iter().filter(|(name, _)| WANTED.contains(&name.as_str())) {
            *sums.entry(name).or_insert(0.0) += value;
        }
    }
    println!("replicas say of their last lives: {sums:?}");
    println!("replicas that ended by themselves and were started again: {}", fleet.restarts());
    Ok(())
}

/// Which complaints were logged how often.
fn tell_log(fleet: &Fleet) -> anyhow::Result<()> {
    let mut kinds = std::collections::BTreeMap::new();
    for line in fleet.log()? {
        let Some((level, rest)) =
            ["ERROR ", "WARN "].iter().find_map(|level| Some((*level, line.split_once(level)?.1)))
        else {
            continue;
        };
        // Without what is different each time.
        let words = rest.split(['=', ';']).next().unwrap_or(rest);
        let words: String = words.chars().filter(|c| !c.is_ascii_digit()).take(100).collect();
        *kinds.entry(format!("{level}{words}")).or_insert(0_usize) += 1;
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
    for (words, times) in kinds.iter().take(12) {
        println!("{times:>6} × {words}");
    }
    Ok(())
}
