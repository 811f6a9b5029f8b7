//! How soon a phone follows: from a notification's receipt, and at the second an event starts.
//!
//! The service runs as its own binary against the simulator, which runs here and writes down when it delivered a
//! notification and when its PBX was told. Both share the machine, so the figures hold the simulator's own time too.
//!
//! `--troubled-company` compares instead: one company beside another of the same size and load, while Graph answers
//! that one and while it answers 429, in alternation.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use anyhow::ensure;
use clap::Args;
use narvaro_sim::{EventSpec, Fault, FaultFilter, FaultKind, Record, Sim, SimOptions};

use crate::{
    report::{Promise, judge, millis, print_machine},
    service::{Company, Service, extension, until},
};

/// How long the whole may take to come to rest.
const LIMIT: Duration = Duration::from_secs(180);

/// The company that is measured.
const LOAD: Company = Company { id: "load" };

/// The company beside it that gets into trouble.
const TROUBLE: Company = Company { id: "trouble" };

/// Pairs of a calm and a troubled round.
const PAIRS: usize = 3;

#[derive(Args)]
pub(crate) struct Options {
    /// Mailboxes; each gets one notification and one start of an event
    #[arg(long, default_value_t = 1_000)]
    mailboxes: usize,
    /// Notifications a second
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Seconds until all events start at once
    #[arg(long, default_value_t = 20)]
    lead_secs: i64,
    /// Only that every change arrives: for debug builds and busy machines, whose times say nothing
    #[arg(long)]
    arrive_only: bool,
    /// Compare how soon phones follow with Graph answering 429 to another company, and without
    #[arg(long)]
    troubled_company: bool,
    /// The service's binary; beside this program unless given
    #[arg(long)]
    narvaro: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    print_machine();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<bool> {
    let folder = tempfile::tempdir()?;
    let sim = Sim::start(SimOptions::default()).await?;
    let companies: &[Company] = if options.troubled_company { &[LOAD, TROUBLE] } else { &[LOAD] };
    let tenants: Vec<String> = companies
        .iter()
        .map(|company| company.enrol(&sim, options.mailboxes))
        .collect::<anyhow::Result<_>>()?;
    let service = Service::start(&sim, options.narvaro.as_deref(), folder.path(), &tenants)?;
    let began = std::time::Instant::now();
    for (company, tenant) in companies.iter().zip(&tenants) {
        service.apply(&sim, *company, tenant, options.mailboxes)?;
    }
    let all = options.mailboxes * companies.len();
    until("every mailbox is watched", LIMIT, || sim.subscriptions().len() == all).await?;
    for company in companies {
        until("every phone is told", LIMIT, || sim.pbx().all(company.id).len() == options.mailboxes).await?;
    }
    println!(
        "{all} mailboxes looked up, watched, read and shown in {:.1} s; resident {:.1} MiB",
        began.elapsed().as_secs_f64(),
        service.resident_mib()?
    );
    let kept = match tenants.get(1) {
        Some(troubled) => beside_trouble(&sim, options, troubled).await?,
        None => promptness(&sim, options).await?,
    };
    ensure!(sim.violations().is_empty(), "the simulator objects: {:#?}", sim.violations());
    println!("resident after it all {:.1} MiB", service.resident_mib()?);
    Ok(kept)
}

async fn promptness(sim: &Sim, options: &Options) -> anyhow::Result<bool> {
    let receipt = notifications(sim, options, &[LOAD]).await?;
    let edges = edges(sim, options).await?;
    for (name, sorted) in [("receipt to presence", &receipt), ("start to presence", &edges)] {
        let (p50, p99, worst) = (millis(sorted, 0.5), millis(sorted, 0.99), millis(sorted, 1.0));
        println!("{name}: n {}, p50 {p50:.1} ms, p99 {p99:.1} ms, worst {worst:.1} ms", sorted.len());
    }
    if options.arrive_only {
        println!("Every change arrived; times are not judged.");
        return Ok(true);
    }
    Ok(judge(&[
        Promise::at_most(
            &format!("{} notifications a second, receipt to presence, p99", options.rate),
            millis(&receipt, 0.99),
            1_000.0,
            " ms",
        ),
        Promise::at_most(
            &format!("{} events start in one second, start to presence, p99", options.mailboxes),
            millis(&edges, 0.99),
            250.0,
            " ms",
        ),
    ]))
}

/// Both companies have the same changes in every round; only whether Graph answers the second differs.
async fn beside_trouble(sim: &Sim, options: &Options, troubled: &str) -> anyhow::Result<bool> {
    let (mut calm, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        calm.extend(notifications(sim, options, &[LOAD, TROUBLE]).await?);
        clear(sim, options).await?;
        let throttle = FaultKind::Throttle { retry_after: Some(5.0) };
        sim.fault(Fault::lasting(throttle).only(FaultFilter::tenant(troubled)));
        beside.extend(notifications(sim, options, &[LOAD, TROUBLE]).await?);
        sim.clear_faults();
        clear(sim, options).await?;
    }
    calm.sort();
    beside.sort();
    for (name, sorted) in [("without trouble", &calm), ("beside a company in trouble", &beside)] {
        let (p50, p99, worst) = (millis(sorted, 0.5), millis(sorted, 0.99), millis(sorted, 1.0));
        println!("{name}: n {}, p50 {p50:.1} ms, p99 {p99:.1} ms, worst {worst:.1} ms", sorted.len());
    }
    let ratio = millis(&beside, 0.99) / millis(&calm, 0.99);
    if options.arrive_only {
        println!("Every change arrived; p99 grew to {ratio:.2} of what it was, which is not judged.");
        return Ok(true);
    }
    Ok(judge(&[Promise::at_most(
        "a company beside one in trouble, p99 of receipt to presence",
        ratio,
        1.10,
        "",
    )]))
}

/// Takes all events away again, and waits until every phone of both companies has followed.
async fn clear(sim: &Sim, options: &Options) -> anyhow::Result<()> {
    for company in [LOAD, TROUBLE] {
        for n in 0..options.mailboxes {
            for (event, _) in sim.events(&company.alias(n))? {
                sim.delete_event(&company.alias(n), &event.id)?;
            }
        }
    }
    for company in [LOAD, TROUBLE] {
        let free = || sim.pbx().all(company.id).values().all(|shown| shown.profile == "available");
        until("every phone is as before", LIMIT, free).await?;
    }
    Ok(())
}

/// Creates an event that is on already in each mailbox of each company, so many a second and company; from the delivery
/// to the PBX in the first company.
async fn notifications(sim: &Sim, options: &Options, companies: &[Company]) -> anyhow::Result<Vec<Duration>> {
    let first = sim.journal().last_seq();
    let mut beat = tokio::time::interval(Duration::from_secs(1) / options.rate);
    for n in 0..options.mailboxes {
        beat.tick().await;
        // Beside another company, events last until they are taken away.
        let lasts = if companies.len() > 1 { 3_600 } else { options.lead_secs / 2 };
        let spec = || EventSpec { in_secs: Some(-60), for_secs: Some(60 + lasts), ..EventSpec::new("LUN") };
        for company in companies {
            sim.add_event(&company.alias(n), spec())?;
        }
    }
    until("every phone shows it", LIMIT, || shown(sim, first, "lunch").len() == options.mailboxes).await?;
    let mailboxes: HashMap<String, String> = (0..options.mailboxes)
        .map(|n| Ok((sim.user_id(&LOAD.alias(n))?, extension(n))))
        .collect::<anyhow::Result<_>>()?;
    let of_subscription: HashMap<String, &String> = sim
        .subscriptions()
        .into_iter()
        .filter_map(|known| Some((known.id, mailboxes.get(&known.user)?)))
        .collect();
    // The journal notes an attempt when its answer is there: the receipt was so much earlier.
    let mut received: HashMap<&String, u64> = HashMap::new();
    for entry in sim.journal().since(first) {
        if let Record::Delivery(attempt) = &entry.record {
            for subscription in &attempt.subscriptions {
                if let Some(extension) = of_subscription.get(subscription) {
                    received.entry(extension).or_insert(entry.elapsed_ms.saturating_sub(attempt.took_ms));
                }
            }
        }
    }
    let mut took: Vec<Duration> = shown(sim, first, "lunch")
        .iter()
        .filter_map(|(extension, at)| {
            Some(Duration::from_millis(at.saturating_sub(*received.get(extension)?)))
        })
        .collect();
    ensure!(took.len() == options.mailboxes, "only {} deliveries were found in the journal", took.len());
    took.sort();
    Ok(took)
}

/// Lets an event start in every mailbox at the same second; from the start to the PBX.
async fn edges(sim: &Sim, options: &Options) -> anyhow::Result<Vec<Duration>> {
    let first = sim.journal().last_seq();
    let now = sim.clock().now();
    let start = jiff::Timestamp::from_second(now.as_second() + options.lead_secs)?;
    let end = jiff::Timestamp::from_second(start.as_second() + 3_600)?;
    for n in 0..options.mailboxes {
        sim.add_event(&LOAD.alias(n), EventSpec::new("MÖT").at(start, end))?;
    }
    until("every phone shows it", LIMIT, || shown(sim, first, "meeting").len() == options.mailboxes).await?;
    let mut took = Vec::with_capacity(options.mailboxes);
    for entry in sim.journal().since(first) {
        if let Record::Pbx(write) = &entry.record
            && write.profile == "meeting"
        {
            let late = entry.at.duration_since(start);
            ensure!(!late.is_negative(), "extension {} was told {late:?} before the start", write.extension);
            took.push(late.unsigned_abs());
        }
    }
    took.sort();
    Ok(took)
}

/// Extensions of the measured company that were told a profile since an entry of the journal, with when.
fn shown(sim: &Sim, since: u64, profile: &str) -> HashMap<String, u64> {
    let mut shown = HashMap::new();
    for entry in sim.journal().since(since) {
        if let Record::Pbx(write) = &entry.record
            && write.company == LOAD.id
            && write.profile == profile
        {
            shown.entry(write.extension.clone()).or_insert(entry.elapsed_ms);
        }
    }
    shown
}
