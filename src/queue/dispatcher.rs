//! Hands due mailboxes to turns: one loop, as many turns at a time as there are workers.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info_span, warn};

use super::{DueStore, HeldAhead, Lease, STORE_PAUSE, StoreError};
use crate::chain::Chain;
use crate::clock::SharedClock;
use crate::model::{Generation, MailboxId};

/// Whoever takes a mailbox's turn and settles it.
#[async_trait]
pub trait TakesTurns: Send + Sync + 'static {
    /// Takes the turn. The lease is settled or released when this returns, or it has been lost.
    async fn take(&self, lease: Lease) -> Result<(), StoreError>;

    /// Takes the turn of a mailbox that was leased [ahead](DueStore::lease_ahead), at the instant for which it was: until then it is made
    /// ready, and handed back where it is recalled. Settled, released or lost when this returns, as above.
    async fn take_ahead(&self, lease: Lease, held: HeldAhead) -> Result<(), StoreError>;
}

/// How turns are handed out.
#[derive(Debug, Clone, Copy)]
pub struct DispatcherSettings {
    /// Turns at a time.
    pub workers: usize,
    /// Length of a lease; longer than the longest single call to an outside system.
    pub hold: Duration,
}

/// The worker loop.
pub struct Dispatcher {
    store: Arc<dyn DueStore>,
    turns: Arc<dyn TakesTurns>,
    clock: SharedClock,
    settings: DispatcherSettings,
}

impl Dispatcher {
    /// A loop over `store` that hands leases to `turns`.
    pub fn new(
        store: Arc<dyn DueStore>,
        turns: Arc<dyn TakesTurns>,
        clock: SharedClock,
        settings: DispatcherSettings,
    ) -> Self {
        Self { store, turns, clock, settings }
    }

    /// Runs until `shutdown`, then waits for the turns under way. Dropped before, it cuts them off: they are repeated, as
    /// after a crash.
    pub async fn run(self, shutdown: CancellationToken) {
        let workers = u32::try_from(self.settings.workers).unwrap_or(u32::MAX).max(1);
        let permits = Arc::new(Semaphore::new(workers as usize));
        let mut under_way = JoinSet::new();
        loop {
            let permit = tokio::select! {
                () = shutdown.cancelled() => break,
                permit = Arc::clone(&permits).acquire_owned() => permit,
            };
            // The semaphore is never closed.
            let Ok(first) = permit else { break };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.store.wait() => {}
            }
            let free = permits.available_permits() + 1;
            let leases = match self.store.lease(free.min(32), self.settings.hold).await {
                Ok(leases) => leases,
                Err(error) => {
                    error!(error = %Chain(&error), "Due mailboxes could not be taken from the store, will retry");
                    let at = self.clock.now() + STORE_PAUSE;
                    tokio::select! {
                        () = shutdown.cancelled() => break,
                        () = self.clock.sleep_until(at) => continue,
                    }
                }
            };
            while under_way.try_join_next().is_some() {}
            let mut first = Some(first);
            for lease in leases {
                let permit = match first.take() {
                    Some(permit) => permit,
                    None => match Arc::clone(&permits).acquire_owned().await {
                        Ok(permit) => permit,
                        Err(_) => break,
                    },
                };
                let turns = Arc::clone(&self.turns);
                let store = Arc::clone(&self.store);
                let (mailbox, generation) = (lease.mailbox, lease.generation);
                let span = info_span!("turn", mailbox.id = %lease.mailbox, generation = %lease.generation);
                under_way.spawn(
                    async move {
                        see_through(&*store, mailbox, generation, turns.take(lease)).await;
                        drop(permit);
                    }
                    .instrument(span),
                );
            }
        }
        while under_way.join_next().await.is_some() {}
    }
}

/// Takes note of how a turn ends. One that panics loses its lease by time and is repeated; the others go on.
pub(super) async fn see_through(
    store: &dyn DueStore,
    mailbox: MailboxId,
    generation: Generation,
    turn: impl Future<Output = Result<(), StoreError>>,
) {
    match AssertUnwindSafe(turn).catch_unwind().await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            metrics::counter!("narvaro_turns_unsettled_total").increment(1);
            warn!(error = %Chain(&error), "A turn could not be settled; it will be repeated");
            store.abandon(mailbox, generation);
        }
        Err(_) => {
            metrics::counter!("narvaro_turns_panicked_total").increment(1);
            error!("A turn has failed; it will be repeated. Please report this");
        }
    }
}
