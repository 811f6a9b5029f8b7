//! The store of many replicas: a Redis, alone, behind Sentinels, or a Cluster.
//!
//! Everything is in Redis and every step is one Lua script there ([`keys`] has the table of keys), so replicas share one order
//! of work and no two of them hold a mailbox at a time. Times are those of Redis: a replica whose clock is wrong keeps nothing
//! too long, and takes nothing too early but edges that it holds ahead, which it shows by its own clock.
//!
//! - [`marker`]: marks of many requests go in one call; a 202 rests on its answer. Announcements go into an inbox, all of a call in one
//!   step; whoever looks next what is due takes them to their mailboxes (`take_in` in `common.lua`). [`announced`] tells those that come again.
//! - [`due`]: leases, and being woken: a script that makes something due publishes it, and a replica that waits looks again.
//!   What it holds itself it counts itself ([`holding`]): shares are those of a process, not of all.
//! - [`ahead`]: edges that are leased before they are due, and recalled where something changes meanwhile.
//! - [`records`], [`trail`], [`replicas`]: companies, what people did, and who else is there.
//! - [`at_rest`], [`faults`]: the whole of it without a service, to be moved and checked.
//!
//! **What a crash of Redis loses.** As much as its persistence says (the start says it too). Nothing of it is trusted
//! afterwards: whoever finds that Redis was started anew, or that another server took over, makes every mailbox due once
//! ([`replicas`]), so that what a notification had told is found in the calendar. That is looked after before anything is leased by a new
//! connection, and a turn reads the calendar before it takes what a phone shows for set by hand: it may be ours, and lost.
//!
//! **Away.** A call is bounded and never repeated blindly: its outcome may be unknown. Marks are refused then (503, and Graph
//! comes again), turns go on with what they hold, and what they cannot settle is repeated once their lease has ended. A lease
//! whose answer got lost on the way is handed back with the next call that succeeds.

mod ahead;
mod announced;
mod at_rest;
pub mod check;
mod cluster;
mod dial;
mod due;
mod faults;
mod holding;
mod keys;
mod line;
pub mod link;
mod listener;
mod marker;
mod node;
mod records;
mod remedy;
mod replicas;
pub mod script;
pub mod settings;
mod trail;
mod value;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use jiff::{SignedDuration, Timestamp};
use tokio::{sync::Notify, time::Instant};
use tracing::warn;

use self::{
    ahead::{NextEdges, RecallsRead},
    due::NextLook,
    holding::Holding,
    marker::Marker,
    value::Args,
};
pub use self::{
    at_rest::AtRest,
    check::{CheckError, Server},
    dial::DialError,
    link::{Link, LinkError},
    listener::Listener,
    script::Script,
    settings::{Address, Form, LinkSettings, Login},
};
use crate::{
    chain::Chain,
    clock::SharedClock,
    model::{CompanyId, Generation, MailboxId},
    queue::{AHEAD_HOLD, Shares, StoreError},
};

/// The layout of keys that this version writes.
const LAYOUT: u64 = 1;

/// How to use Redis.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// Where it is.
    pub link: LinkSettings,
    /// First part of all keys.
    pub prefix: String,
    /// How many mailboxes this process may lease at a time.
    pub shares: Shares,
    /// Entries of the audit trail that are kept.
    pub trail_entries: u64,
}

/// Why Redis cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no way to it.
    #[error(transparent)]
    Link(#[from] link::OpenError),
    /// It will not do.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// A later version has written what is there.
    #[error(
        "what Redis has under `{prefix}` has layout {found}, and this version knows layouts up to {LAYOUT}: use the newer version"
    )]
    Newer {
        /// First part of its keys.
        prefix: String,
        /// Its layout.
        found: u64,
    },
    /// What is there cannot be read.
    #[error(transparent)]
    Store(StoreError),
    /// Its user lacks rights.
    #[error(
        "the user of Redis may not do what the service needs ({said}): give it `~{{{prefix}}}:* &{{{prefix}}}:* +@all -@admin +config|get`, or name the prefix that it is for in `store.prefix`"
    )]
    NotAllowed {
        /// The first part of the service's keys.
        prefix: String,
        /// What Redis said.
        said: String,
    },
    /// A copy into it was begun and not finished.
    #[error("the store in Redis under `{prefix}` is not whole: a copy into it was begun and not finished")]
    Incomplete {
        /// The first part of its keys.
        prefix: String,
    },
}

impl OpenError {
    /// Why one of the first scripts did not run.
    fn of_first_steps(error: StoreError, prefix: &str) -> Self {
        let said = Chain(&error).to_string();
        // A script passes on what the command in it was told, with the place in the script before or behind it.
        if ["NOPERM", "can't run this command", "can't access", "can't publish"]
            .iter()
            .any(|no| said.contains(no))
        {
            Self::NotAllowed { prefix: prefix.to_owned(), said }
        } else {
            Self::Store(error)
        }
    }
}

/// The store in Redis, as one replica sees it.
pub struct Redis {
    inner: Arc<Inner>,
    marker: Marker,
    due: Listener,
    edges: Listener,
    recalls: Listener,
    recalls_read: Mutex<RecallsRead>,
    /// Something became free in this process.
    room: Notify,
    next_look: Mutex<Option<NextLook>>,
    next_edges: Mutex<Option<NextEdges>>,
    /// Leases of turns that are over and could not be settled.
    abandoned: Mutex<Vec<(MailboxId, Generation)>>,
    /// How long after its edge a lease that is given ahead is held, in microseconds, as last asked for.
    ahead_hold_us: AtomicU64,
    /// Whether this process has announced itself.
    signed_on: AtomicBool,
    /// Held while leases are on their way here. By that connection it is the Redis that was there before, or every mailbox knows that it is not.
    leasing: tokio::sync::Mutex<Option<Instant>>,
}

/// What the store and its marker share.
struct Inner {
    link: Link,
    /// `{narvaro}:`.
    prefix: String,
    /// This process since this opening, told apart from all others.
    replica: String,
    clock: SharedClock,
    holding: Mutex<Holding>,
    trail_entries: u64,
    companies: Listener,
    /// Mailboxes that this process has seen go.
    gone: AtomicU64,
    /// Whether Redis may hold leases for this process of which it knows nothing: an answer got lost.
    may_hold_unknown: AtomicBool,
}

impl Redis {
    /// Connects and looks whether this Redis will do.
    ///
    /// # Errors
    /// [`OpenError`] says what stands in the way.
    pub async fn open(settings: &RedisSettings, clock: SharedClock) -> Result<Self, OpenError> {
        let link = Link::open(&settings.link).await?;
        for warning in check::check(&link).await?.iter().filter_map(Server::warning) {
            warn!("{warning}");
        }
        let prefix = format!("{{{}}}:", settings.prefix);
        let ask = async |script| {
            let answer = ask(&link, script, &prefix).await;
            answer.map_err(|error| OpenError::of_first_steps(error, &settings.prefix))
        };
        let found = ask(&keys::LAYOUT).await?;
        if found > LAYOUT {
            return Err(OpenError::Newer { prefix, found });
        }
        if ask(&keys::INCOMPLETE).await? == 1 {
            return Err(OpenError::Incomplete { prefix });
        }
        ask(&keys::MAY).await?;
        let replica = fresh_name();
        let [due, edges, recalls] = link.listen_to(
            ["due".to_owned(), "edges".to_owned(), format!("recall:{replica}")]
                .map(|channel| format!("{prefix}{channel}")),
        );
        let companies = link.listen(format!("{prefix}companies"));
        let inner = Arc::new(Inner {
            link,
            prefix,
            replica,
            clock,
            holding: Mutex::new(Holding::new(settings.shares)),
            trail_entries: settings.trail_entries,
            companies,
            gone: AtomicU64::new(0),
            may_hold_unknown: AtomicBool::new(false),
        });
        let marker = Marker::start(Arc::clone(&inner));
        Ok(Self {
            inner,
            marker,
            due,
            edges,
            recalls,
            recalls_read: Mutex::default(),
            room: Notify::new(),
            next_look: Mutex::default(),
            next_edges: Mutex::default(),
            abandoned: Mutex::default(),
            ahead_hold_us: AtomicU64::new(u64::try_from(AHEAD_HOLD.as_micros()).unwrap_or(u64::MAX)),
            signed_on: AtomicBool::new(false),
            leasing: tokio::sync::Mutex::default(),
        })
    }
}

impl Inner {
    async fn run(&self, script: &Script, args: Args) -> Result<redis::Value, StoreError> {
        let answer = self.link.run(script, &self.prefix, args.into_inner()).await;
        answer.map_err(|error| StoreError::Unavailable(Box::new(error)))
    }

    /// With a value that the script looks for; `None` where [`run`](Self::run) has to give it that.
    async fn run_with(
        &self,
        script: &Script,
        value: (&str, &[u8]),
        args: Args,
    ) -> Result<Option<redis::Value>, StoreError> {
        let answer = self.link.run_with(script, &self.prefix, value, args.into_inner()).await;
        answer.map_err(|error| StoreError::Unavailable(Box::new(error)))
    }

    /// What a script is told of the time: nothing, so that it takes that of Redis, unless a test moves the clock.
    fn time(&self) -> String {
        if self.clock.is_real() { String::new() } else { self.clock.now().as_microsecond().to_string() }
    }

    /// How many changes of companies and mailboxes this process knows of.
    fn changes(&self) -> u64 {
        self.companies.count() + self.gone.load(Ordering::Acquire)
    }

    fn holding(&self) -> MutexGuard<'_, Holding> {
        self.holding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far this process's clock is ahead of the store's: `before` was taken here before the store was asked what it is there. What
    /// the call took makes this process look too early, never too late.
    fn skew(&self, before: Timestamp, store_now: Timestamp) -> SignedDuration {
        if self.clock.is_real() { before.duration_since(store_now) } else { SignedDuration::ZERO }
    }

    fn lost_an_answer(&self) {
        self.may_hold_unknown.store(true, Ordering::Release);
    }
}

/// What a script says that wants to know nothing; 0 where it says nothing.
async fn ask(link: &Link, script: &Script, prefix: &str) -> Result<u64, StoreError> {
    let answer = link.run(script, prefix, Vec::<Vec<u8>>::new()).await;
    value::number(answer.map_err(|error| StoreError::Unavailable(Box::new(error)))?)
}

/// A name that nobody else has: sixteen random digits.
fn fresh_name() -> String {
    let mut bytes = [0_u8; 8];
    // Only fails where the system has no randomness at all, and then nothing works; equal names cost a lease's time.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Shares of this process and what it holds of them, as scripts want it.
fn with_counts(mut args: Args, holding: &mut Holding, now: Timestamp) -> Args {
    let shares = holding.shares();
    args = args.add(shares.showing_per_company).add(shares.reading_per_company);
    for (company, count) in holding.counts(now) {
        args = args.add(company).add(count.showing).add(count.reading);
    }
    args
}

fn company_of(text: &str) -> Result<CompanyId, StoreError> {
    text.parse().map_err(|error| StoreError::Corrupt { what: "company id", source: Box::new(error) })
}
