//! Edges that are held before their time.
//!
//! At a full hour very many edges are due at one instant. Leased when they are due, each asks the store three times while all
//! others do, and there are only so many workers. So whatever can be done before is done before: an edge is leased up to
//! [`AheadSettings::ahead`] early, decided for its instant, and what it will write is announced. At the instant nothing is left but
//! to hand the write to the PBX's driver, without a word to the store; and that is done for all edges of the instant before
//! anything else of theirs goes on ([`HeldAhead::hand_over`]). Such a turn needs no worker: it waits for nobody but the clock, and
//! later for the PBX, whose driver bounds what is under way.
//!
//! What keeps it right:
//! - whatever is marked meanwhile [recalls](DueStore::recalled) the lease: it is handed back, and the turn of the mark follows at once, as if
//!   nothing had been held;
//! - the lease lasts [`AheadSettings::hold`] longer than the instant, and no write is sent unless the lease surely stands until the
//!   write's end. So a process that dies while it holds edges makes them that late at most, and one that was stopped for longer writes
//!   nothing (I3);
//! - a process that stops hands back what it holds, and another one takes it, ahead again if there is time;
//! - bounds: so many of a process, three quarters of them of one company (I10). What is beyond them is leased when it is due, as ever.
//!
//! Where the store goes away between lease and instant, the edge is shown all the same.
//!
//! What it does not do:
//! - be fair to companies among what is looked at ahead: a very large one may fill that, until it has its three quarters. The edges of the
//!   others are then leased when they are due, and only there each company has its turn;
//! - hear of a change at once: marks are announced first, and a lease is recalled when somebody takes them in, by whatever is asked of the
//!   store next;
//! - follow a change to what a dead process holds before that hold has ended. Nobody hands it back.
//!
//! Only a store that is far away needs this. The embedded one leases nothing ahead: there, a lease is a look into memory.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info_span};

use super::{DueStore, Lease, STORE_PAUSE, StoreError, TakesTurns, dispatcher::see_through};
use crate::{
    chain::Chain,
    clock::SharedClock,
    model::{CompanyId, Generation, MailboxId},
};

/// How long after its instant an edge is held at least ([`AheadSettings::hold`]).
pub const AHEAD_HOLD: Duration = Duration::from_secs(10);

/// Leases in one call: some 5 ms of the store, so that others come in between.
const BATCH: usize = 128;

/// Turns that are made ready at a time, each with a question to the store.
const PREPARING: usize = 128;

/// How many edges are held, and how early.
#[derive(Debug, Clone, Copy)]
pub struct AheadSettings {
    /// How long before it is due an edge is taken; zero: never.
    pub ahead: Duration,
    /// How long after its instant an edge is held: where its holder dies, it is at most that late. [`AHEAD_HOLD`], or longer where a write to a
    /// PBX may take longer: none begins that the hold may not outlast.
    pub hold: Duration,
    /// Most that this process holds.
    pub most: usize,
}

/// The loop that takes edges ahead.
pub struct Ahead {
    store: Arc<dyn DueStore>,
    turns: Arc<dyn TakesTurns>,
    clock: SharedClock,
    settings: AheadSettings,
    preparing: Arc<Semaphore>,
    held: Arc<Held>,
}

/// What a turn is given with a lease that was given ahead.
pub struct HeldAhead {
    /// Is cancelled when the store wants the lease back.
    pub recalled: CancellationToken,
    preparing: Option<OwnedSemaphorePermit>,
    instant: Arc<SameInstant>,
    in_hand: bool,
}

impl HeldAhead {
    /// The turn asks nothing any more before its instant: another one may be made ready.
    pub fn is_prepared(&mut self) {
        self.preparing = None;
    }

    /// The turn has decided what to do at the instant, and needs to ask nobody for it: others wait at the instant until it is
    /// [handed over](Self::hand_over).
    pub fn is_ready(&mut self) {
        self.is_prepared();
        if !std::mem::replace(&mut self.in_hand, true) {
            self.instant.one_more();
        }
    }

    /// What was to be done at the instant is done, or nothing is to be done: others need not wait for this one any more.
    pub fn hand_over(&mut self) {
        if std::mem::take(&mut self.in_hand) {
            self.instant.one_less();
        }
    }

    /// Returns once all edges of the instant are handed over. So that at a full hour no answer of a PBX, and nothing that is stored, comes
    /// between.
    pub async fn all_handed_over(&mut self) {
        self.hand_over();
        let mut in_hand = self.instant.in_hand.subscribe();
        // The sender is held by this one.
        drop(in_hand.wait_for(|in_hand| *in_hand == 0).await);
    }
}

impl Drop for HeldAhead {
    fn drop(&mut self) {
        self.hand_over();
    }
}

/// Edges of one instant that are ready, and still to be handed over.
#[derive(Default)]
struct SameInstant {
    in_hand: watch::Sender<usize>,
}

impl SameInstant {
    fn one_more(&self) {
        self.in_hand.send_modify(|in_hand| *in_hand += 1);
    }

    /// Whoever waits is woken by the last only.
    fn one_less(&self) {
        self.in_hand.send_if_modified(|in_hand| {
            *in_hand = in_hand.saturating_sub(1);
            *in_hand == 0
        });
    }
}

/// All that this process holds ahead, waiting or already at work.
#[derive(Default)]
struct Held {
    books: Mutex<Books>,
    fewer: Notify,
}

#[derive(Default)]
struct Books {
    tokens: HashMap<(MailboxId, Generation), CancellationToken>,
    companies: BTreeMap<CompanyId, usize>,
    /// Recalls of what is not known: it may be on its way here.
    recalled_early: HashSet<(MailboxId, Generation)>,
    instants: BTreeMap<Timestamp, std::sync::Weak<SameInstant>>,
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> usize {
        self.lock().tokens.len()
    }

    /// Companies of which `share` or more are held.
    fn full(&self, share: usize) -> Vec<CompanyId> {
        let books = self.lock();
        books
            .companies
            .iter()
            .filter(|(_, held)| **held >= share)
            .map(|(company, _)| company.clone())
            .collect()
    }

    /// Takes in what was leased in one call.
    fn begin(&self, leases: &[Lease]) -> Vec<HeldAhead> {
        let mut books = self.lock();
        books.instants.retain(|_, instant| instant.strong_count() > 0);
        let held = leases.iter().map(|lease| books.begin(lease)).collect();
        // Whatever was recalled before this call was answered is here, or was never to come.
        books.recalled_early.clear();
        held
    }

    fn end(&self, company: &CompanyId, lease: (MailboxId, Generation)) {
        let mut books = self.lock();
        books.tokens.remove(&lease);
        if let Some(held) = books.companies.get_mut(company) {
            *held -= 1;
            if *held == 0 {
                books.companies.remove(company);
            }
        }
        drop(books);
        self.fewer.notify_one();
    }

    fn recall(&self, recalled: Vec<(MailboxId, Generation)>) {
        let mut books = self.lock();
        for lease in recalled {
            match books.tokens.get(&lease) {
                Some(token) => token.cancel(),
                None => drop(books.recalled_early.insert(lease)),
            }
        }
    }
}

impl Books {
    fn begin(&mut self, lease: &Lease) -> HeldAhead {
        let recalled = CancellationToken::new();
        let key = (lease.mailbox, lease.generation);
        if self.recalled_early.contains(&key) {
            recalled.cancel();
        }
        self.tokens.insert(key, recalled.clone());
        *self.companies.entry(lease.company.clone()).or_default() += 1;
        let at = lease.ahead.unwrap_or(Timestamp::MIN);
        let known = self.instants.get(&at).and_then(std::sync::Weak::upgrade);
        let instant = known.unwrap_or_else(|| {
            let instant = Arc::<SameInstant>::default();
            self.instants.insert(at, Arc::downgrade(&instant));
            instant
        });
        HeldAhead { recalled, preparing: None, instant, in_hand: false }
    }
}

impl Ahead {
    /// A loop over `store` that hands edges to `turns` before they are due.
    pub fn new(
        store: Arc<dyn DueStore>,
        turns: Arc<dyn TakesTurns>,
        clock: SharedClock,
        settings: AheadSettings,
    ) -> Self {
        let preparing = Arc::new(Semaphore::new(PREPARING));
        Self { store, turns, clock, settings, preparing, held: Arc::default() }
    }

    /// Runs until `shutdown`, then waits until what is held is handed back or shown.
    pub async fn run(self, shutdown: CancellationToken) {
        if self.settings.ahead.is_zero() {
            return;
        }
        let ends = async {
            let mut turns = JoinSet::new();
            // What is on its way here comes to its end first: it is to be handed back.
            self.take_edges(&mut turns, &shutdown).await;
            while turns.join_next().await.is_some() {}
        };
        tokio::select! {
            () = ends => {}
            // What is shown in the last moments can still be recalled.
            () = self.hear_recalls() => {}
        }
    }

    async fn hear_recalls(&self) {
        loop {
            self.held.recall(self.store.recalled().await);
        }
    }

    async fn take_edges(&self, turns: &mut JoinSet<()>, shutdown: &CancellationToken) {
        let until = async |comes: &mut (dyn Future<Output = ()> + Send + Unpin)| {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = comes => {}
            }
        };
        while !shutdown.is_cancelled() {
            until(&mut self.store.wait_ahead(self.settings.ahead)).await;
            if let Err(error) = self.take_all(turns, shutdown).await {
                error!(error = %Chain(&error), "Edges could not be taken ahead from the store, will retry");
                until(&mut self.clock.sleep_until(self.clock.now() + STORE_PAUSE)).await;
            }
        }
    }

    /// Takes edges until there are no more.
    async fn take_all(
        &self,
        turns: &mut JoinSet<()>,
        shutdown: &CancellationToken,
    ) -> Result<(), StoreError> {
        while !shutdown.is_cancelled() {
            while turns.try_join_next().is_some() {}
            let room = self.settings.most.saturating_sub(self.held.count());
            if room == 0 {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = self.held.fewer.notified() => {}
                }
                continue;
            }
            let full = self.held.full((self.settings.most * 3 / 4).max(1));
            let (ahead, most) = (self.settings.ahead, room.min(BATCH));
            let leases = self.store.lease_ahead(most, ahead, self.settings.hold, &full).await?;
            if leases.is_empty() {
                return Ok(());
            }
            for (held, lease) in self.held.begin(&leases).into_iter().zip(leases) {
                self.start(held, lease, turns).await;
            }
        }
        Ok(())
    }

    async fn start(&self, mut held: HeldAhead, lease: Lease, turns: &mut JoinSet<()>) {
        // The semaphore is never closed.
        held.preparing = Arc::clone(&self.preparing).acquire_owned().await.ok();
        let (all, store, by) = (Arc::clone(&self.held), Arc::clone(&self.store), Arc::clone(&self.turns));
        let (company, mailbox, generation) = (lease.company.clone(), lease.mailbox, lease.generation);
        let span = info_span!("turn", mailbox.id = %mailbox, generation = %generation);
        let turn = async move {
            see_through(&*store, mailbox, generation, by.take_ahead(lease, held)).await;
            all.end(&company, (mailbox, generation));
        };
        turns.spawn(turn.instrument(span));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::queue::Gathered;

    fn lease(mailbox: u64, company: &str) -> Lease {
        Lease {
            mailbox: MailboxId(mailbox),
            company: company.parse().unwrap(),
            revision: 1,
            generation: Generation(1),
            until: Timestamp::MAX,
            gathered: Gathered::default(),
            reads: false,
            ahead: Some(Timestamp::UNIX_EPOCH),
            state: Vec::new(),
            intent: None,
        }
    }

    #[tokio::test]
    async fn who_asks_nothing_any_more_makes_room_for_the_next_and_is_waited_for_only_once_it_is_ready() {
        let (held, places) = (Held::default(), Arc::new(Semaphore::new(1)));
        let mut begun = held.begin(&[lease(1, "acme"), lease(2, "acme")]);
        let (mut other, mut first) = (begun.remove(1), begun.remove(0));
        first.preparing = Some(Arc::clone(&places).acquire_owned().await.unwrap());
        assert_eq!(places.available_permits(), 0);
        first.is_prepared();
        assert_eq!(
            places.available_permits(),
            1,
            "it waits for its instant, though it could not be made ready"
        );
        assert!(other.all_handed_over().now_or_never().is_some(), "nor is it waited for");
        first.preparing = Some(Arc::clone(&places).acquire_owned().await.unwrap());
        first.is_ready();
        assert_eq!(places.available_permits(), 1);
        assert!(other.all_handed_over().now_or_never().is_none());
    }

    #[test]
    fn a_recall_is_heard_though_it_comes_before_the_lease_that_it_is_about() {
        let held = Held::default();
        held.recall(vec![(MailboxId(1), Generation(1)), (MailboxId(9), Generation(1))]);
        let begun = held.begin(&[lease(1, "acme"), lease(2, "acme")]);
        assert!(begun[0].recalled.is_cancelled() && !begun[1].recalled.is_cancelled());
        held.recall(vec![(MailboxId(2), Generation(1))]);
        assert!(begun[1].recalled.is_cancelled());
        assert!(!held.begin(&[lease(9, "acme")])[0].recalled.is_cancelled(), "that was about an earlier one");
    }

    #[test]
    fn a_company_that_has_its_share_is_named_until_less_is_held_of_it() {
        let held = Held::default();
        let _begun = held.begin(&[lease(1, "acme"), lease(2, "acme"), lease(3, "beta")]);
        let acme: CompanyId = "acme".parse().unwrap();
        assert_eq!((held.full(2), held.count()), (vec![acme.clone()], 3));
        held.end(&acme, (MailboxId(1), Generation(1)));
        assert_eq!((held.full(2), held.count()), (vec![], 2));
    }

    #[test]
    fn nothing_goes_on_before_all_that_are_ready_for_the_instant_have_handed_over_or_gone() {
        let held = Held::default();
        let mut begun = held.begin(&[lease(1, "acme"), lease(2, "acme"), lease(3, "acme"), lease(4, "acme")]);
        // The fourth is still being made ready: nobody waits for it.
        begun[..3].iter_mut().for_each(HeldAhead::is_ready);
        let (mut first, rest) = (begun.remove(0), begun);
        let mut waits = Box::pin(first.all_handed_over());
        let mut rest = rest.into_iter();
        assert!(waits.as_mut().now_or_never().is_none());
        drop(rest.next());
        assert!(waits.as_mut().now_or_never().is_none());
        rest.next().unwrap().hand_over();
        assert!(waits.as_mut().now_or_never().is_some());
    }
}
