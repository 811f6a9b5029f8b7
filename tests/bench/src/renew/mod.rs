//! All subscriptions renewed at once: by the command line, with the service killed on the way, and through the API.
//!
//! The service runs as its own binary, the command line as another, and the simulator here: it objects to whatever Graph
//! would not allow, and its journal says which subscription was renewed how often. Meanwhile events start, one a second,
//! each in a mailbox of its own: phones have to follow as if nothing else went on.

mod admin;
mod journal;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use narvaro_sim::{EventSpec, Sim, SimOptions};

use self::{
    admin::Admin,
    journal::{Seen, Start},
};
use crate::{
    report::{Promise, judge, millis, print_machine},
    service::{Company, Service, extension, until},
};

const COMPANIES: [Company; 5] = [
    Company { id: "north" },
    Company { id: "east" },
    Company { id: "south" },
    Company { id: "west" },
    Company { id: "middle" },
];

/// How many the job has under way at once: eight of each company.
const FLIGHTS: usize = 8 * COMPANIES.len();

/// How often the job is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// How many subscriptions the job renews in [`WINDOW`]: of a company, and of all.
const PACE: (usize, usize) = (200, 800);

/// How many the service may change in [`WINDOW`], for whatever reason: of a tenant, and of all. Graph allows 500 and 2,000.
const BUDGETS: (usize, usize) = (450, 1_800);

/// In which changes of subscriptions are counted.
const WINDOW: Duration = Duration::from_secs(20);

/// From an event's creation to its start: by then, its notification has been read.
const LEAD: SignedDuration = SignedDuration::from_secs(4);

/// How soon a phone has to follow.
const PROMPT: Duration = Duration::from_millis(250);

/// More than any step here takes.
const LIMIT: Duration = Duration::from_mins(10);

#[derive(Args)]
pub(crate) struct Options {
    /// Mailboxes, spread over five companies with a tenant each
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..))]
    mailboxes: u32,
    /// Judge no times: for debug builds and busy machines, whose times say nothing
    #[arg(long)]
    untimed: bool,
    /// The service's binary; beside this program unless given
    #[arg(long)]
    narvaro: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    print_machine();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<bool> {
    let mailboxes = usize::try_from(options.mailboxes)?;
    let each = mailboxes / COMPANIES.len();
    let folder = tempfile::tempdir()?;
    // Nothing may fall out of the journal.
    let journal_limit = 100_000 + 60 * mailboxes;
    let sim = Sim::start(SimOptions { journal_limit, ..SimOptions::default() }).await?;
    let tenants: Vec<String> =
        COMPANIES.iter().map(|company| company.enrol(&sim, each)).collect::<anyhow::Result<_>>()?;
    let service = Service::start(&sim, options.narvaro.as_deref(), folder.path(), &tenants)?;
    let mut bench = Bench {
        each,
        all: each * COMPANIES.len(),
        admin: Admin::of(&service)?,
        sim,
        service,
        started: 0,
        late: Vec::new(),
        late_after_restart: Vec::new(),
        peak_mib: 0.0,
        promises: Vec::new(),
    };
    bench.set_up(&tenants).await?;
    bench.by_command_line().await?;
    bench.by_api().await?;
    bench.ended_early().await?;
    bench.at_rest(options.untimed).await
}

struct Bench {
    /// Mailboxes of each company, and of all.
    each: usize,
    all: usize,
    sim: Sim,
    service: Service,
    admin: Admin,
    /// Events that were made to start so far, each in the next mailbox.
    started: usize,
    /// How late phones showed them.
    late: Vec<Duration>,
    /// The same of those that started while the service was down, from when it was ready again.
    late_after_restart: Vec<Duration>,
    peak_mib: f64,
    promises: Vec<Promise>,
}

impl Bench {
    async fn set_up(&mut self, tenants: &[String]) -> anyhow::Result<()> {
        let began = Instant::now();
        for (company, tenant) in COMPANIES.iter().zip(tenants) {
            self.service.apply(&self.sim, *company, tenant, self.each)?;
        }
        let mut told = None;
        let mut states: BTreeMap<String, usize> = BTreeMap::new();
        loop {
            for (state, count) in self.admin.states().await? {
                let most = states.entry(state).or_default();
                *most = count.max(*most);
            }
            let is_told =
                || COMPANIES.iter().all(|company| self.sim.pbx().all(company.id).len() == self.each);
            told = told.or_else(|| is_told().then(|| began.elapsed()));
            if told.is_some() && self.sim.subscriptions().len() == self.all {
                break;
            }
            ensure!(began.elapsed() < LIMIT, "not within {LIMIT:?}: every mailbox is read and watched");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        println!(
            "set-up: {} mailboxes of {} companies read and shown in {:.1} s, watched in {:.1} s; resident {:.1} MiB",
            self.all,
            COMPANIES.len(),
            told.unwrap_or_default().as_secs_f64(),
            began.elapsed().as_secs_f64(),
            self.service.resident_mib()?
        );
        let states: Vec<String> = states.iter().map(|(state, most)| format!("{most} {state}")).collect();
        println!("  at most at once: {}", states.join(", "));
        Ok(())
    }

    /// `narvaro subscriptions renew --all`; the service is killed when two fifths are done.
    async fn by_command_line(&mut self) -> anyhow::Result<()> {
        println!("command line:");
        let starts = self.starts_during(self.all, WINDOW).await?;
        let mut seen = Seen::from_now(&self.sim);
        let began = Instant::now();
        let say = move |what: &str| println!("  {:6.1} s  {what}", began.elapsed().as_secs_f64());
        let mut command = self
            .service
            .command(&["subscriptions", "renew", "--all"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let talk = BufReader::new(command.stderr.take().context("the command has no stderr")?).lines();
        let talk = std::thread::spawn(move || talk.map_while(Result::ok).inspect(|line| say(line)).count());

        seen.until(&self.sim, "two fifths are renewed", |seen| seen.renewals() >= self.all * 2 / 5).await?;
        let killed = self.sim.clock().now();
        self.peak_mib = self.peak_mib.max(self.service.peak_mib()?);
        self.service.kill();
        seen.look(&self.sim);
        let before = seen.renewals();
        say(&format!("the service is killed after {before} renewals"));
        self.service.start_again()?;
        let down = Some((killed, self.sim.clock().now()));
        let known = self.admin.jobs().await?.first().map_or(0, |job| job.progress.done);
        say(&format!("the service is ready again and knows of {known}"));

        let output = tokio::task::spawn_blocking(move || command.wait_with_output()).await??;
        let took = began.elapsed();
        let lines = talk.join().ok().context("the command's stderr could not be read")?;
        let said = String::from_utf8(output.stdout)?;
        say(said.trim());
        ensure!(output.status.success(), "the command ended with {}", output.status);
        ensure!(
            said == format!("Renewed {0} of {0} subscriptions.\n", self.all),
            "the command's summary is another"
        );
        seen.look(&self.sim);
        self.tell(&seen, took);
        self.shown(&mut seen, starts, down).await?;
        let known = usize::try_from(known)?;
        self.promises.extend([
            Promise::no_more(
                "renewals done that the service had forgotten",
                before.saturating_sub(known),
                FLIGHTS,
            ),
            Promise::no_more(
                "subscriptions that were renewed once more",
                seen.renewals() - seen.subscriptions(),
                FLIGHTS,
            ),
            Promise::no_more("renewals of one of those", seen.most_often(), 2),
            Promise::no_fewer("lines that tell of progress", lines, 2),
        ]);
        self.promise_all_within_quotas(&seen);
        Ok(())
    }

    /// The same by a program: begun, and followed to its end.
    async fn by_api(&mut self) -> anyhow::Result<()> {
        let starts = self.starts_during(self.all, Duration::ZERO).await?;
        let mut seen = Seen::from_now(&self.sim);
        let began = Instant::now();
        let started = self.admin.renew_all().await?;
        ensure!(!started.under_way, "the job before has not ended");
        let mut done = 0;
        let progress = loop {
            let progress = self.admin.job(&started.job).await?;
            ensure!(progress.done >= done, "{} were done after {done} were", progress.done);
            done = progress.done;
            if progress.finished {
                break progress;
            }
            ensure!(began.elapsed() < LIMIT, "not within {LIMIT:?}: the job ends");
            tokio::time::sleep(ASK_EVERY).await;
        };
        seen.look(&self.sim);
        println!(
            "API: {} renewed, {} made anew, {} failed of {}",
            progress.renewed,
            progress.made_anew,
            progress.reasons.values().sum::<u64>(),
            progress.total
        );
        self.tell(&seen, began.elapsed());
        self.shown(&mut seen, starts, None).await?;
        self.promises.push(Promise::no_fewer(
            "renewed as the API tells",
            usize::try_from(progress.renewed)?,
            self.all,
        ));
        self.promises.push(Promise::no_more("renewals of one subscription", seen.most_often(), 1));
        self.promise_all_within_quotas(&seen);
        Ok(())
    }

    /// Once more, and ended when half is done.
    async fn ended_early(&mut self) -> anyhow::Result<()> {
        let mut seen = Seen::from_now(&self.sim);
        let began = Instant::now();
        let job = self.admin.renew_all().await?.job;
        let half = self.all / 2;
        seen.until(&self.sim, "half is renewed", |seen| seen.renewals() >= half).await?;
        let answer = self.admin.cancel(&job).await?;
        ensure!(answer.cancelled && !answer.finished, "the job cannot be ended half-way: {answer:?}");
        let asked = Instant::now();
        let ended = loop {
            let progress = self.admin.job(&job).await?;
            if progress.finished {
                break progress;
            }
            ensure!(asked.elapsed() < LIMIT, "not within {LIMIT:?}: a job ends early");
            tokio::time::sleep(ASK_EVERY).await;
        };
        println!(
            "ended early: {} of {} done after {:.1} s, and {:.0} ms to its end",
            ended.done,
            ended.total,
            began.elapsed().as_secs_f64(),
            asked.elapsed().as_secs_f64() * 1_000.0
        );
        // What was under way comes to its end; nothing else may follow.
        tokio::time::sleep(Duration::from_secs(3)).await;
        seen.look(&self.sim);
        let done = usize::try_from(ended.done)?;
        self.promises.extend([
            Promise::no_more(
                "renewals after a job has ended early",
                seen.renewals().saturating_sub(done),
                FLIGHTS,
            ),
            Promise::no_fewer("mailboxes it leaves alone", self.all - seen.subscriptions(), self.all / 10),
        ]);
        Ok(())
    }

    async fn at_rest(mut self, untimed: bool) -> anyhow::Result<bool> {
        self.peak_mib = self.peak_mib.max(self.service.peak_mib()?);
        println!("peak resident {:.1} MiB, at rest {:.1} MiB", self.peak_mib, self.service.resident_mib()?);
        let (p50, p99) = (millis(&self.late, 0.5), millis(&self.late, 0.99));
        let worst = millis(&self.late, 1.0);
        println!(
            "starts meanwhile: n {}, p50 {p50:.1} ms, p99 {p99:.1} ms, worst {worst:.1} ms",
            self.late.len()
        );
        println!(
            "starts while the service was down: n {}, worst {:.1} ms after it was ready",
            self.late_after_restart.len(),
            millis(&self.late_after_restart, 1.0)
        );
        ensure!(self.sim.journal().dropped() == 0, "the journal was too short");
        let states = self.admin.states().await?;
        let fine = states.get("fine").copied().unwrap_or(0);
        self.promises.extend([
            Promise::no_fewer("mailboxes that are fine after it all", fine, self.all),
            Promise::no_more("objections of the simulator", self.sim.violations().len(), 0),
        ]);
        for violation in self.sim.violations().iter().take(10) {
            println!("  {:?}", violation.record);
        }
        if untimed {
            println!("Times are not judged.");
        } else {
            self.promises.push(Promise::at_most(
                "start to presence meanwhile, p99",
                p99,
                PROMPT.as_secs_f64() * 1e3,
                " ms",
            ));
        }
        Ok(judge(&self.promises))
    }

    /// Makes events that start one a second while so many are renewed, and `more` goes by; returns just before the first does.
    async fn starts_during(&mut self, renewals: usize, more: Duration) -> anyhow::Result<Vec<Start>> {
        let windows = (renewals / COMPANIES.len()).div_ceil(PACE.0).max(renewals.div_ceil(PACE.1));
        let lasts = WINDOW * u32::try_from(windows.saturating_sub(1))? + more;
        let first = self.sim.clock().now() + LEAD;
        let starts: Vec<Start> = (0..i64::try_from(lasts.as_secs())?.max(3))
            .map(|second| {
                let (company, n) =
                    (COMPANIES[self.started % COMPANIES.len()], self.started / COMPANIES.len());
                self.started += 1;
                let at = Timestamp::from_second(first.as_second() + 1 + second)?;
                let event = EventSpec::new("MÖT").at(at, at + SignedDuration::from_hours(2));
                self.sim.add_event(&company.alias(n), event)?;
                Ok(Start { company: company.id, extension: extension(n), at })
            })
            .collect::<anyhow::Result<_>>()?;
        let clock = self.sim.clock();
        let soon = first - SignedDuration::from_millis(500);
        until("the first event is about to start", LIMIT, || clock.now() >= soon).await?;
        Ok(starts)
    }

    /// Waits until every phone shows what has started, and notes how late it did.
    async fn shown(
        &mut self,
        seen: &mut Seen,
        starts: Vec<Start>,
        down: Option<(Timestamp, Timestamp)>,
    ) -> anyhow::Result<()> {
        let missing = |seen: &Seen| starts.iter().filter(|start| seen.shown_at(start).is_none()).count();
        let shown = seen.until(&self.sim, "every phone shows it", |seen| missing(seen) == 0).await;
        shown.with_context(|| format!("{} of {} phones show nothing", missing(seen), starts.len()))?;
        let Some(first) = starts.first().map(|start| start.at) else { return Ok(()) };
        for start in &starts {
            let Some(shown) = seen.shown_at(start) else { continue };
            ensure!(shown >= start.at, "extension {} was told before the start", start.extension);
            let (due, late) = match down {
                Some((killed, ready)) if killed <= start.at && start.at < ready => {
                    (ready, &mut self.late_after_restart)
                }
                _ => (start.at, &mut self.late),
            };
            let took: Duration = shown.duration_since(due).try_into().unwrap_or_default();
            if took > PROMPT {
                let since = start.at.duration_since(first).as_secs();
                println!("  {:.0} ms late: what started {since} s after the first", took.as_secs_f64() * 1e3);
            }
            late.push(took);
        }
        self.late.sort();
        self.late_after_restart.sort();
        Ok(())
    }

    fn tell(&self, seen: &Seen, took: Duration) {
        let secs = took.as_secs_f64();
        let (of_tenant, of_all) = seen.most_within(WINDOW);
        println!(
            "  took {secs:.1} s: {:.1} renewals/s, {:.1} requests/s to Graph; changes of subscriptions in {WINDOW:?}: \
             at most {of_tenant} of a tenant, {of_all} of all",
            seen.renewals() as f64 / secs,
            seen.requests() as f64 / secs
        );
    }

    fn promise_all_within_quotas(&mut self, seen: &Seen) {
        let (of_tenant, of_all) = seen.most_within(WINDOW);
        self.promises.extend([
            Promise::no_fewer("subscriptions that were renewed", seen.subscriptions(), self.all),
            Promise::no_more("changes of subscriptions in 20 s, one tenant", of_tenant, BUDGETS.0),
            Promise::no_more("changes of subscriptions in 20 s, all tenants", of_all, BUDGETS.1),
        ]);
    }
}
