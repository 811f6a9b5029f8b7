//! The queue of due mailboxes: *mailbox M is due at time T, because of R*.
//!
//! Everything that ever makes the service look at a mailbox is a [`Mark`]. Marks of one mailbox gather
//! until a worker [leases](DueStore::lease) it; the lease hands over what has gathered and the mailbox's own
//! state, the turn does its work, and [`settle`](DueStore::settle) stores the new state together with the
//! next due time in one step. A crash anywhere before that step repeats the turn, and repeating is harmless.
//!
//! What it promises:
//! - a mark that was answered with `Ok` survives `kill -9` (I1);
//! - one lease per mailbox at a time, and a worker whose lease has ended can neither announce a write
//!   ([`intend`](DueStore::intend)) nor store a result: generations only grow (I3);
//! - marks that arrive during a turn are not lost in it: they make the mailbox due again;
//! - a company in trouble takes at most its share of the leases (I10), and all companies whose calendars are slow take
//!   together at most three quarters of the workers: a span edge finds a free one, whatever hangs (I6).
//!
//! A turn shows first, which takes as long as the PBX, and reads then, which takes as long as the calendar server
//! pleases. So a lease is held for showing at first, and for reading only once there is room
//! ([`begin_reading`](DueStore::begin_reading), [`Shares`]). Where there is none, the turn ends with the reading still
//! owed ([`Settled::Next::to_read`]): the mailbox waits without a worker, in an order of its own, is handed out
//! again when a place is free, and is due for its edges and marks like any other meanwhile.
//!
//! Why not by urgency: a notification is as urgent as an edge, and those of twenty slow companies would fill any number of
//! workers that are kept for what is urgent.
//!
//! At a full hour very many edges fall due at one instant. They are handed out before it, as far as the store can
//! ([`lease_ahead`](DueStore::lease_ahead)), so that at the instant nobody asks the store anything ([`ahead`]).
//!
//! It does not know what a state or an intent says: both are documents of the turn.
//!
//! The module declares the port; `store/` implements it.

pub mod ahead;
mod dispatcher;
mod mark;
mod replicas;

use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

pub use ahead::{AHEAD_HOLD, Ahead, AheadSettings, HeldAhead};
pub use dispatcher::{Dispatcher, DispatcherSettings, TakesTurns};
pub use mark::{Gathered, Hint, Mark, Reason, Reasons, Tally};
pub use replicas::{ANNOUNCE_EVERY, Duty, GONE_AFTER, Replica, ReplicaRecord, Replicas};

use crate::model::{CompanyId, Generation, MailboxId};

/// Most item ids that are kept for one mailbox; with more, a complete read is cheaper than many single ones.
pub const MOST_HINTS: usize = 16;

/// How long a store that failed is left alone before it is asked again: long enough not to spin, short enough that an edge waits no longer
/// than a person notices.
pub(crate) const STORE_PAUSE: SignedDuration = SignedDuration::from_secs(1);

/// How urgent a due mailbox is against others that are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// A span starts or ends, something changed, or a person waits.
    Now = 0,
    /// A first read, or a read after new rules.
    Soon = 1,
    /// Upkeep: renewals, sweeps, the nightly roll.
    Upkeep = 2,
}

/// A mailbox in a worker's hands.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Which mailbox.
    pub mailbox: MailboxId,
    /// Whose.
    pub company: CompanyId,
    /// The company's revision when the lease was given: no turn goes by what was stored before it.
    pub revision: u64,
    /// Greater than that of every lease of this mailbox before.
    pub generation: Generation,
    /// When the lease ends unless extended: by the clock of this process, and never later than for the store, however long its
    /// answer was on its way.
    pub until: Timestamp,
    /// What has gathered since the last lease.
    pub gathered: Gathered,
    /// Whether it is held for the reading that an earlier turn found no room for.
    pub reads: bool,
    /// The instant before which nothing may be done under it, by the calendar's time: it was given [ahead](DueStore::lease_ahead).
    pub ahead: Option<Timestamp>,
    /// The turn's document as it was last stored; empty for a mailbox that never had a turn.
    pub state: Vec<u8>,
    /// What a turn that did not come to its end had announced to write.
    pub intent: Option<Vec<u8>>,
}

/// What a turn leaves behind.
#[derive(Debug, Clone)]
pub enum Settled {
    /// The mailbox goes on.
    Next {
        /// The new document.
        state: Vec<u8>,
        /// When to look again; `None`: only when marked.
        due: Option<Timestamp>,
        /// How urgent that will be.
        urgency: Urgency,
        /// How urgent the reading is that was put off: the mailbox is handed out for it as soon as there is room. Need not
        /// survive a restart, which makes every mailbox due.
        to_read: Option<Urgency>,
    },
    /// The mailbox is gone: nothing of it is left.
    Gone,
}

/// How many mailboxes may be leased at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Of one company, for showing: a PBX that hangs takes no more.
    pub showing_per_company: usize,
    /// For reading.
    pub reading: usize,
    /// Of one company, for reading: a tenant that hangs takes no more.
    pub reading_per_company: usize,
}

impl Shares {
    /// The shares of so many workers: a quarter, at least one of two, never reads; of all workers as of those that
    /// read, one company has at most three quarters, and always one.
    pub fn of(workers: usize) -> Self {
        let three_quarters = |whole: usize| (whole * 3 / 4).max(1);
        let reading = three_quarters(workers);
        Self {
            showing_per_company: three_quarters(workers),
            reading,
            reading_per_company: three_quarters(reading),
        }
    }
}

/// Why the store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot take it now: full, slow or away. Try again.
    #[error("the store cannot take it now")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It has as much waiting as it may have.
    #[error("the store has too much waiting")]
    Busy,
    /// It did not answer in the time it was given.
    #[error("the store did not answer in time")]
    Late,
    /// The lease has ended, or somebody else holds one.
    #[error("the lease of mailbox {mailbox} has ended (generation {generation})")]
    LeaseLost {
        /// Which mailbox.
        mailbox: MailboxId,
        /// The generation that came too late.
        generation: Generation,
    },
    /// What is stored cannot be read.
    #[error("stored {what} cannot be read")]
    Corrupt {
        /// Which document.
        what: &'static str,
        /// Where and why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The store's side of the queue.
#[async_trait]
pub trait DueStore: Send + Sync + 'static {
    /// Makes mailboxes due. When this returns `Ok`, the marks are durable.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and [`StoreError::Busy`]: nothing of `marks` may be counted on.
    async fn mark(&self, marks: Vec<Mark>) -> Result<Tally, StoreError>;

    /// As [`mark`](Self::mark), and ends `within` a time. A mark that was given up may still be stored, which is harmless. A store in which
    /// many requests share a call gives them one timer: they end with the first of them, or at the latest with the call before theirs.
    ///
    /// # Errors
    /// As [`mark`](Self::mark); [`StoreError::Late`] where it took too long.
    async fn mark_within(&self, marks: Vec<Mark>, within: Duration) -> Result<Tally, StoreError> {
        tokio::time::timeout(within, self.mark(marks)).await.unwrap_or(Err(StoreError::Late))
    }

    /// Takes up to `most` due mailboxes, the most urgent and longest due first, each for the length of `hold`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn lease(&self, most: usize, hold: Duration) -> Result<Vec<Lease>, StoreError>;

    /// Returns when a mailbox is due that nobody holds and that [`lease`](Self::lease) would hand out: at once on a mark, without polling.
    async fn wait(&self);

    /// Takes up to `most` mailboxes that are due as [urgently](Urgency::Now) as an edge is, and not yet: within `ahead` from now. Each is
    /// leased until `hold` after it is due, and is no part of anybody's share until it [reads](Self::begin_reading). Those of `full` companies
    /// are left. Where something is marked that is due before then, the lease is [recalled](Self::recalled).
    ///
    /// A store whose leases cost next to nothing gives none: its edges are leased when they are due.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn lease_ahead(
        &self,
        _most: usize,
        _ahead: Duration,
        _hold: Duration,
        _full: &[CompanyId],
    ) -> Result<Vec<Lease>, StoreError> {
        Ok(Vec::new())
    }

    /// Returns when [`lease_ahead`](Self::lease_ahead) may have something, without polling. Never, where it never has.
    async fn wait_ahead(&self, _ahead: Duration) {
        std::future::pending().await
    }

    /// Waits until leases that were given ahead are wanted back, and names them; some may have ended already, and some may be named twice.
    async fn recalled(&self) -> Vec<(MailboxId, Generation)> {
        std::future::pending().await
    }

    /// Holds on to a lease for `hold` from now.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    async fn extend(&self, lease: &Lease, hold: Duration) -> Result<Timestamp, StoreError>;

    /// Holds a lease for reading from now on; `false` where there is no room for that: the turn ends and says that it is
    /// still [to read](Settled::Next::to_read).
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    async fn begin_reading(&self, lease: &Lease) -> Result<bool, StoreError>;

    /// Announces, durably, what is about to be written to a PBX, so that after a crash it is told from a change by hand.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]: then nothing may be written.
    async fn intend(&self, lease: &Lease, intent: Vec<u8>) -> Result<(), StoreError>;

    /// Ends a turn: state and next due time in one step, and what the lease had gathered is done with.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]: nothing was stored.
    async fn settle(&self, lease: &Lease, settled: Settled) -> Result<(), StoreError>;

    /// Hands a lease back untouched: what it had gathered is due again at once. One that was given ahead is due as before, and
    /// what was announced under it counts as not announced.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    async fn release(&self, lease: &Lease) -> Result<(), StoreError>;

    /// A turn is over and could not be settled: what the store still holds for it, it takes back as soon as it can. A store
    /// whose leases only end by time does nothing.
    fn abandon(&self, _mailbox: MailboxId, _generation: Generation) {}

    /// The stored document of a mailbox, for a look from outside a turn.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn look(&self, mailbox: MailboxId) -> Result<Option<Vec<u8>>, StoreError>;

    /// How full the queue is.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn depth(&self) -> Result<Depth, StoreError>;
}

/// How full the queue is, for metrics and tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Mailboxes known.
    pub mailboxes: usize,
    /// Due now and not leased.
    pub due: usize,
    /// Since when something has been due that nobody took, to the nearest company's most urgent.
    pub oldest_due: Option<Timestamp>,
    /// Leased; those that were given ahead count from the instant on for which they are held.
    pub leased: usize,
    /// The earliest due time of those not yet due.
    pub next: Option<Timestamp>,
}
