//! How soon a phone follows: from a notification's receipt, and at the second an event starts.
//!
//! The service runs as its own binary against the simulator, which runs here and writes down when it delivered a
//! notification and when its PBX was told. Both share the machine, so the figures hold the simulator's own time too.
//!
//! `--troubled-company` compares instead: one company beside another of the same size and load, while Graph answers
//! that one and while it answers 429, in alternation.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Args;
use narvaro_sim::{
    AppSpec, EventSpec, Fault, FaultFilter, FaultKind, Record, Sim, SimOptions, TenantSpec, UserSpec,
};

use crate::report::{Promise, judge, percentile, print_machine};

const CLIENT_ID: &str = "6d2f4b8e-91c7-4a3d-b0e5-5f7c8a1e2d34";
const SECRET: &str = "a-client-secret-of-the-simulator";

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
    let tenants: Vec<String> =
        companies.iter().map(|company| company.enrol(&sim, options)).collect::<anyhow::Result<_>>()?;
    let service = Service::start(&sim, options, folder.path(), &tenants)?;
    let began = std::time::Instant::now();
    for (company, tenant) in companies.iter().zip(&tenants) {
        service.apply(&sim, options, *company, tenant)?;
    }
    let all = options.mailboxes * companies.len();
    until("every mailbox is watched", || sim.subscriptions().len() == all).await?;
    for company in companies {
        until("every phone is told", || sim.pbx().all(company.id).len() == options.mailboxes).await?;
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
        let (p50, p99, worst) = (ms(sorted, 0.5), ms(sorted, 0.99), ms(sorted, 1.0));
        println!("{name}: n {}, p50 {p50:.1} ms, p99 {p99:.1} ms, worst {worst:.1} ms", sorted.len());
    }
    if options.arrive_only {
        println!("Every change arrived; times are not judged.");
        return Ok(true);
    }
    Ok(judge(&[
        Promise::at_most(
            &format!("{} notifications a second, receipt to presence, p99", options.rate),
            ms(&receipt, 0.99),
            1_000.0,
            " ms",
        ),
        Promise::at_most(
            &format!("{} events start in one second, start to presence, p99", options.mailboxes),
            ms(&edges, 0.99),
            250.0,
            " ms",
        ),
    ]))
}

fn ms(sorted: &[Duration], share: f64) -> f64 {
    percentile(sorted, share).as_secs_f64() * 1_000.0
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
        let (p50, p99, worst) = (ms(sorted, 0.5), ms(sorted, 0.99), ms(sorted, 1.0));
        println!("{name}: n {}, p50 {p50:.1} ms, p99 {p99:.1} ms, worst {worst:.1} ms", sorted.len());
    }
    let ratio = ms(&beside, 0.99) / ms(&calm, 0.99);
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
        until("every phone is as before", free).await?;
    }
    Ok(())
}

/// A company of the load.
#[derive(Clone, Copy)]
struct Company {
    id: &'static str,
}

impl Company {
    fn alias(self, n: usize) -> String {
        format!("u{n:05}@{}.example", self.id)
    }

    /// Makes its tenant and its users; the tenant's id.
    fn enrol(self, sim: &Sim, options: &Options) -> anyhow::Result<String> {
        let tenant = sim.add_tenant(TenantSpec::new(&format!("{}.example", self.id)))?;
        for n in 0..options.mailboxes {
            sim.add_user(&tenant, UserSpec::new(&self.alias(n)))?;
        }
        Ok(tenant)
    }
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
    until("every phone shows it", || shown(sim, first, "lunch").len() == options.mailboxes).await?;
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
    until("every phone shows it", || shown(sim, first, "meeting").len() == options.mailboxes).await?;
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

fn extension(n: usize) -> String {
    (100_000 + n).to_string()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let end = std::time::Instant::now() + LIMIT;
    while !holds() {
        ensure!(std::time::Instant::now() < end, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// The service as a child process; ended when dropped.
struct Service {
    child: Child,
    binary: PathBuf,
    folder: PathBuf,
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    fn start(sim: &Sim, options: &Options, folder: &Path, tenants: &[String]) -> anyhow::Result<Self> {
        let free = || std::net::TcpListener::bind("127.0.0.1:0")?.local_addr();
        let (public, private) = (free()?, free()?);
        let mut app = AppSpec::new(CLIENT_ID, SECRET);
        app.redirect_uris = vec![format!("http://{public}/consent/callback")];
        sim.add_app(app)?;
        for tenant in tenants {
            sim.consent(tenant, CLIENT_ID)?;
        }
        let base = sim.base_url();
        fs::write(
            folder.join("narvaro.toml"),
            format!(
                "[listen]\npublic = \"{public}\"\nprivate = \"{private}\"\n\
                 [webhook]\npublic_url = \"http://{public}\"\n\
                 [graph]\nclient_id = \"{CLIENT_ID}\"\ncloud = \"custom\"\ngraph_base = \"{base}\"\n\
                 login_authority = \"{base}\"\nallow_plain_http_loopback = true\n\
                 [log]\nlevel = \"warn\"\n"
            ),
        )?;
        let binary = match &options.narvaro {
            Some(binary) => binary.clone(),
            None => std::env::current_exe()?.with_file_name("narvaro"),
        };
        let mut child = Command::new(&binary)
            .arg("serve")
            .current_dir(folder)
            .env("NARVARO__GRAPH__CLIENT_SECRET", SECRET)
            .env("NARVARO__LOG__LEVEL", "warn,narvaro::app=info")
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("`{}` cannot be started; build it first", binary.display()))?;
        let mut lines = BufReader::new(child.stderr.take().context("the service has no output")?).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("Ready"));
        ensure!(ready, "the service ended before it was ready");
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln_line(&line)));
        Ok(Self { child, binary, folder: folder.to_owned() })
    }

    fn apply(&self, sim: &Sim, options: &Options, company: Company, tenant: &str) -> anyhow::Result<()> {
        let id = company.id;
        let mut file = format!(
            "id = \"{id}\"\nname = \"{id}\"\n[integration]\nkind = \"microsoft365\"\ntenant = \"{tenant}\"\n\
             [pbx]\nkind = \"http\"\n[pbx.http]\nbase_url = \"{}\"\nallow_plain_http = true\nconcurrency = 32\n\
             [pbx.http.set]\nmethod = \"PUT\"\npath = \"/extensions/{{extension}}/presence\"\n\
             json = {{ profile = \"{{profile.id}}\", text = \"{{text}}\", until = \"{{until|json}}\" }}\n",
            sim.pbx_url(id)
        );
        for n in 0..options.mailboxes {
            file.push_str(&format!(
                "[[users]]\nextension = \"{}\"\nalias = \"{}\"\n",
                extension(n),
                company.alias(n)
            ));
        }
        let name = format!("{id}.toml");
        fs::write(self.folder.join(&name), file)?;
        let done = Command::new(&self.binary)
            .args(["apply", &name, "--json"])
            .current_dir(&self.folder)
            .stdout(Stdio::null())
            .status()?;
        ensure!(done.success(), "the company could not be applied");
        Ok(())
    }

    fn resident_mib(&self) -> anyhow::Result<f64> {
        crate::process::resident_mib(self.child.id())
    }
}

#[expect(clippy::print_stderr, reason = "what the service complains of belongs to what was measured")]
fn eprintln_line(line: &str) {
    eprintln!("{line}");
}
