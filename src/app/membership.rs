//! This process among those that share the store: it says that it is there, and takes hold of what one of them does for all.
//!
//! Every process asks for every duty all the time, and whoever got one keeps it: which one it is does not matter, as long
//! as there is one. What a duty is about starts over at whoever gets it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    chain::Chain,
    clock::SharedClock,
    queue::{ANNOUNCE_EVERY, Duty, GONE_AFTER, Replica, StoreError},
    store::Store,
};

/// How long a duty is held after it was asked for: as long as a silent process counts as there.
const HOLD: Duration = GONE_AFTER;

/// A duty that this process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    since: Timestamp,
    until: Timestamp,
}

/// This process among others.
pub(super) struct Membership {
    store: Arc<dyn Store>,
    clock: SharedClock,
    me: Replica,
    held: watch::Sender<HashMap<Duty, Held>>,
    /// How many processes work on the store, this one among them, as far as is known.
    processes: Arc<AtomicU32>,
    /// Processes of which it was told that they sign with another key.
    told_of_keys: Mutex<BTreeSet<String>>,
    /// Why this process could not be announced the last time.
    unannounced: Mutex<Option<String>>,
}

impl Membership {
    /// Keeps up `processes` too: how many of them there are.
    pub(super) fn new(
        store: Arc<dyn Store>,
        clock: SharedClock,
        key: &str,
        processes: Arc<AtomicU32>,
    ) -> Arc<Self> {
        let me = Replica {
            name: name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: clock.now(),
            key: key.to_owned(),
        };
        processes.store(1, Ordering::Relaxed);
        let (held, told_of_keys, unannounced) =
            (watch::Sender::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { store, clock, me, held, processes, told_of_keys, unannounced })
    }

    pub(super) fn clock(&self) -> SharedClock {
        Arc::clone(&self.clock)
    }

    /// Its own name.
    pub(super) fn name(&self) -> &str {
        &self.me.name
    }

    /// Why the store takes nothing from this process, as a store does that is full and can be read. Asked anew where it refused the last time.
    pub(super) async fn still_refused(&self) -> Option<String> {
        let refused = self.unannounced().is_some();
        if refused {
            self.show_itself().await;
        }
        self.unannounced().clone()
    }

    fn unannounced(&self) -> MutexGuard<'_, Option<String>> {
        self.unannounced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody else works on the store, as far as is known.
    pub(super) fn is_alone(&self) -> bool {
        self.processes.load(Ordering::Relaxed) <= 1
    }

    /// Tells when a duty is got or lost from now on.
    pub(super) fn changes(&self) -> Changes {
        Changes(self.held.subscribe())
    }

    /// Takes hold of a duty. Since when it has been held; `None` where another process has it. While the store does not
    /// answer it stays held for as long as it was.
    pub(super) async fn hold(&self, duty: Duty) -> Option<Timestamp> {
        let now = self.clock.now();
        let before = self.held.borrow().get(&duty).copied();
        match self.store.hold_duty(duty, HOLD).await {
            Ok(true) => {
                let since = before.map_or(now, |held| held.since);
                let until = now.checked_add(HOLD).unwrap_or(Timestamp::MAX);
                self.set(duty, Some(Held { since, until }));
                Some(since)
            }
            Ok(false) => {
                self.set(duty, None);
                None
            }
            Err(error) => {
                warn!(error = %Chain(&error), "The store does not say who has the duty `{}`", duty.name());
                before.filter(|held| held.until > now).map(|held| held.since)
            }
        }
    }

    fn set(&self, duty: Duty, now: Option<Held>) {
        self.held.send_if_modified(|all| {
            let before = match now {
                Some(held) => all.insert(duty, held),
                None => all.remove(&duty),
            };
            if before.is_none() && now.is_some() {
                info!("This process has the duty `{}`", duty.name());
            }
            before.is_some() != now.is_some()
        });
    }

    /// Says that this process is there, and takes hold of whatever duty is free.
    pub(super) async fn show_up(&self) {
        self.show_itself().await;
        for duty in Duty::ALL {
            self.hold(duty).await;
        }
    }

    async fn show_itself(&self) {
        let outcome = self.announce().await;
        if let Err(error) = &outcome {
            warn!(error = %Chain(error), "This process could not be announced to others on the store");
        }
        *self.unannounced() = outcome.err().map(|error| Chain(&error).to_string());
    }

    async fn announce(&self) -> Result<(), StoreError> {
        self.store.announce(&self.me).await?;
        let all = self.store.replicas().await?;
        let others: Vec<&Replica> =
            all.iter().map(|one| &one.replica).filter(|one| one.name != self.me.name).collect();
        let processes = u32::try_from(others.len() + 1).unwrap_or(u32::MAX);
        self.processes.store(processes, Ordering::Relaxed);
        self.tell_of_other_keys(&others);
        Ok(())
    }

    /// Says once of each process that signs with another key.
    fn tell_of_other_keys(&self, others: &[&Replica]) {
        let differs = |one: &&&Replica| !one.key.is_empty() && one.key != self.me.key;
        let now: BTreeSet<String> = others.iter().filter(differs).map(|one| one.name.clone()).collect();
        let mut told = self.told_of_keys.lock().unwrap_or_else(PoisonError::into_inner);
        for name in now.difference(&told) {
            warn!(
                "Process `{name}` signs `clientState` with another key: give all the same `keys.client_state_file`, and while you change it the old one as `keys.client_state_previous_file`; else each refuses notifications for what the other subscribed to"
            );
        }
        *told = now;
    }

    /// Does so again and again until `shutdown`.
    pub(super) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let every = SignedDuration::try_from(ANNOUNCE_EVERY).unwrap_or(SignedDuration::from_secs(5));
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.clock.sleep_until(self.clock.now() + every) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.show_up() => {}
            }
        }
    }
}

/// Tells of duties that are got or lost.
pub(super) struct Changes(watch::Receiver<HashMap<Duty, Held>>);

impl Changes {
    /// Returns when one was got or lost since the last time.
    pub(super) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // Whoever could tell is gone, and so will this be.
            std::future::pending::<()>().await;
        }
    }
}

/// The host's name for people, and something random: containers may have one name and one process number.
fn name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "narvaro" } else { host.trim() };
    let random: String = crate::graph::fresh_nonce().chars().take(8).collect();
    format!("{host}-{random}")
}
