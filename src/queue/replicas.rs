//! Several processes on one store: who they are, and which of them does what only one may do.
//!
//! Turns need none of this, as a lease is one process's by itself. What is done for all mailboxes at once is a [`Duty`]:
//! it is held by one process at a time, for a while, and by another as soon as that one leaves or falls silent.
//!
//! Who calls is known to the store from when it was opened: each process opens its own. A store of one process has every
//! duty and knows of nobody else.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::StoreError;

/// How often a process says that it is there, and takes hold of its duties anew.
pub const ANNOUNCE_EVERY: Duration = Duration::from_secs(5);

/// How long a process may be silent before it counts as gone: two announcements may get lost.
pub const GONE_AFTER: Duration = Duration::from_secs(15);

/// What one process at a time does for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Duty {
    /// Works off the jobs of renewal.
    Jobs,
    /// Follows companies that leave until they are gone.
    Removals,
    /// Compares the subscriptions of tenants by night.
    Upkeep,
}

impl Duty {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Jobs, Self::Removals, Self::Upkeep];

    /// Its name in the store; it never changes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Removals => "removals",
            Self::Upkeep => "upkeep",
        }
    }
}

/// A process that works on the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its name, different from that of any other: its host's, and something random.
    pub name: String,
    /// The version of the service.
    pub version: String,
    /// Since when it runs.
    pub started: Timestamp,
    /// Name of the key that it signs `clientState` with: whoever does not know that key refuses what was signed with it.
    pub key: String,
}

/// A process, and when it was last heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaRecord {
    /// Which one.
    pub replica: Replica,
    /// When it announced itself last, by the store's clock.
    pub seen: Timestamp,
}

/// The store's side of it.
#[async_trait]
pub trait Replicas: Send + Sync + 'static {
    /// Says that this process is there; again every [`ANNOUNCE_EVERY`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn announce(&self, me: &Replica) -> Result<(), StoreError>;

    /// Who has announced itself within [`GONE_AFTER`], by name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn replicas(&self) -> Result<Vec<ReplicaRecord>, StoreError>;

    /// Takes hold of a duty for `hold` from now, or holds on to it; `false` where another process has it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: whoever had it has it no longer than it was held for.
    async fn hold_duty(&self, duty: Duty, hold: Duration) -> Result<bool, StoreError>;

    /// Hands back what this process still holds, leases and duties, as if their time were over, and signs off.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: all of it ends by time.
    async fn leave(&self) -> Result<(), StoreError>;
}
