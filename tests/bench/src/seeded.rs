//! Very many mailboxes without as many calendars: a few are read by the service from the simulator, and what their turns left
//! behind is given to all others.
//!
//! The companies of the many are applied by the service's own command line. They have not consented, so that nobody asks
//! for their calendars, and their states are written through the store as turns write theirs, while no replica runs. What that
//! leaves out: Graph, tokens, and the reading of calendars.

use std::{
    collections::HashMap,
    path::Path,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use narvaro::{
    clock::{Clock, SystemClock},
    model::MailboxId,
    queue::{Lease, Mark, Reason, Settled, Shares, Urgency},
    store::Store,
    turn::state::MailboxState,
};
use narvaro_sim::{EventSpec, Sim, TenantSpec, UserSpec};
use tokio::net::TcpListener;

use crate::{
    fleet::{Fleet, FleetPlan},
    redis::RedisServer,
    service::{extension, until},
};

/// The company whose calendars are read.
pub(crate) const READ: &str = "read";

/// Mailboxes of one of the other companies.
pub(crate) const USERS: usize = 1_000;

/// Mailboxes that are leased and settled in one go.
const AT_ONCE: usize = 1_000;

/// Settles under way at a time.
const SETTLING: usize = 64;

/// How long one of them is held.
const HOLD: Duration = Duration::from_secs(120);

/// How long something of all mailboxes may take.
const LIMIT: Duration = Duration::from_secs(900);

/// An event of a mailbox that is read.
pub(crate) struct Event {
    pub(crate) word: &'static str,
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
}

/// Redis and replicas with very many mailboxes.
pub(crate) struct Crowd {
    pub(crate) fleet: Fleet,
    pub(crate) redis: RedisServer,
    pub(crate) companies: usize,
}

/// What is wanted of a crowd.
pub(crate) struct CrowdPlan<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) binary: Option<&'a Path>,
    pub(crate) replicas: usize,
    pub(crate) companies: usize,
    /// Where the PBX of all companies is; each has a path of its own there.
    pub(crate) pbx: String,
    /// Calls at a time to one PBX.
    pub(crate) concurrency: usize,
    /// Calendars that are read; what comes of them is given to the many in turn.
    pub(crate) calendars: Vec<Vec<Event>>,
}

pub(crate) fn company(n: usize) -> String {
    format!("many-{n:03}")
}

fn alias(company: &str, n: usize) -> String {
    format!("u{n:05}@{company}.example")
}

/// A company file; without a tenant it has not consented.
pub(crate) fn company_file(
    id: &str,
    tenant: Option<&str>,
    pbx: &str,
    concurrency: usize,
    users: usize,
) -> String {
    let tenant = tenant.map(|tenant| format!("tenant = \"{tenant}\"\n")).unwrap_or_default();
    let mut file = format!(
        "id = \"{id}\"\nname = \"{id}\"\n[integration]\nkind = \"microsoft365\"\n{tenant}\
         [pbx]\nkind = \"http\"\n[pbx.http]\nbase_url = \"{pbx}/{id}\"\nallow_plain_http = true\nconcurrency = {concurrency}\n\
         [pbx.http.set]\nmethod = \"PUT\"\npath = \"/extensions/{{extension}}/presence\"\n\
         json = {{ profile = \"{{profile.id}}\", text = \"{{text}}\", until = \"{{until|json}}\" }}\n"
    );
    for n in 0..users {
        file.push_str(&format!(
            "[[users]]\nextension = \"{}\"\nalias = \"{}\"\n",
            extension(n),
            alias(id, n)
        ));
    }
    file
}

/// Applies a company with the command line of one replica.
pub(crate) fn apply(fleet: &Fleet, id: &str, file: &str) -> anyhow::Result<()> {
    let path = fleet.folder(0).join(format!("{id}.toml"));
    std::fs::write(&path, file)?;
    let applied = fleet.command(0, &["apply", "--json"]).arg(&path).stdout(Stdio::null()).status()?;
    ensure!(applied.success(), "the company `{id}` could not be applied");
    Ok(())
}

impl Crowd {
    /// Makes it; at the end no replica runs, and every mailbox is due at `due`.
    pub(crate) async fn gather(sim: &Sim, plan: CrowdPlan<'_>, due: Timestamp) -> anyhow::Result<Self> {
        let redis = RedisServer::start(&plan.folder.join("redis"), None, &[])?;
        let tenant = sim.add_tenant(TenantSpec::new(&format!("{READ}.example")))?;
        for (n, events) in plan.calendars.iter().enumerate() {
            sim.add_user(&tenant, UserSpec::new(&alias(READ, n)))?;
            for event in events {
                sim.add_event(&alias(READ, n), EventSpec::new(event.word).at(event.start, event.end))?;
            }
        }
        let fleet = FleetPlan {
            binary: plan.binary,
            folder: plan.folder,
            stores: vec![redis.url(); plan.replicas],
            more: &|_| String::new(),
            log: "warn,narvaro::app=info",
        };
        let fleet = Fleet::start(sim, fleet, std::slice::from_ref(&tenant)).await?;
        let crowd = Self { fleet, redis, companies: plan.companies };
        let read = company_file(READ, Some(&tenant), &plan.pbx, plan.concurrency, plan.calendars.len());
        apply(&crowd.fleet, READ, &read)?;
        until("the calendars are read", LIMIT, || sim.subscriptions().len() == plan.calendars.len()).await?;
        for n in 0..plan.companies {
            let id = company(n);
            apply(&crowd.fleet, &id, &company_file(&id, None, &plan.pbx, plan.concurrency, USERS))?;
        }
        crowd.until_quiet().await?;
        for place in 0..crowd.fleet.len() {
            crowd.fleet.terminate(place).await?;
        }
        crowd.give(plan.calendars.len(), due).await?;
        Ok(crowd)
    }

    /// Waits until replicas ask Redis next to nothing.
    pub(crate) async fn until_quiet(&self) -> anyhow::Result<()> {
        let scripts = || anyhow::Ok(self.redis.client()?.calls()?.get("evalsha").copied().unwrap_or(0));
        let end = Instant::now() + LIMIT;
        let (mut before, mut quiet) = (scripts()?, 0);
        while quiet < 3 {
            ensure!(Instant::now() < end, "not within {LIMIT:?}: turns come to an end");
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = scripts()?;
            quiet = if now - before < 50 { quiet + 1 } else { 0 };
            before = now;
        }
        Ok(())
    }

    /// The store, as a replica more would have it, that may hold all mailboxes at a time.
    pub(crate) async fn store(&self) -> anyhow::Result<Arc<dyn Store>> {
        let shares = Shares::of(4 * self.companies * USERS + AT_ONCE);
        crate::shared::open(&self.redis.url(), shares, Arc::new(SystemClock)).await
    }

    /// Gives what turns have left behind of the calendars that were read to all others, which are due at `due` from then on.
    async fn give(&self, calendars: usize, due: Timestamp) -> anyhow::Result<()> {
        let store = self.store().await?;
        let (mut read, mut many) = (Vec::new(), HashMap::new());
        for mailbox in store.mailboxes().await? {
            let place = mailbox.extension.as_str().parse::<usize>()? - extension(0).parse::<usize>()?;
            if mailbox.company.as_str() == READ {
                read.push((place, mailbox.id));
            } else {
                many.insert(mailbox.id, (alias(mailbox.company.as_str(), place), place));
            }
        }
        read.sort();
        ensure!(read.len() == calendars, "only {} calendars were read", read.len());
        let mut states = Vec::new();
        for (_, mailbox) in read {
            let document = store.look(mailbox).await?.context("a mailbox without a state")?;
            let state = MailboxState::read(&document)?;
            ensure!(state.timetable.is_some(), "a calendar was not read");
            states.push(state);
        }
        let mut all: Vec<MailboxId> = many.keys().copied().collect();
        all.sort();
        for some in all.chunks(AT_ONCE) {
            let now = SystemClock.now();
            let marks = some.iter().map(|mailbox| Mark::new(*mailbox, now, Reason::Asked)).collect();
            store.mark(marks).await?;
            let mut left = some.len();
            while left > 0 {
                let leases = store.lease(AT_ONCE, HOLD).await?;
                ensure!(!leases.is_empty(), "{left} mailboxes are not to be had");
                left = left
                    .saturating_sub(leases.iter().filter(|lease| many.contains_key(&lease.mailbox)).count());
                let settles = leases.iter().map(|lease| settle(&*store, lease, &many, &states, due));
                stream::iter(settles).buffer_unordered(SETTLING).try_collect::<()>().await?;
            }
        }
        Ok(())
    }
}

async fn settle(
    store: &dyn Store,
    lease: &Lease,
    many: &HashMap<MailboxId, (String, usize)>,
    states: &[MailboxState],
    due: Timestamp,
) -> anyhow::Result<()> {
    let state = match many.get(&lease.mailbox) {
        Some((alias, place)) => {
            let mut state = states[place % states.len()].clone();
            state.alias.clone_from(alias);
            serde_json::to_vec(&state)?
        }
        // One of those that were read.
        None => lease.state.clone(),
    };
    let next = Settled::Next { state, due: Some(due), urgency: Urgency::Now, to_read: None };
    Ok(store.settle(lease, next).await?)
}

/// A port of this process that answers like a PBX.
pub(crate) async fn listen() -> anyhow::Result<(TcpListener, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    Ok((listener, address))
}
