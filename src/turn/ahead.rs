//! The turn of an edge that was leased before it is due: made ready, held, and taken at its instant.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    Standing, Turn, Turns,
    roster::Seat,
    state::{MailboxState, Trouble},
};
use crate::{
    chain::Chain,
    decide::Decision,
    model::Shown,
    queue::{HeldAhead, Lease, STORE_PAUSE, StoreError},
};

/// An edge that comes so soon is shown though the service stops: another process would hardly be in time for it.
const LAST_MOMENTS: SignedDuration = SignedDuration::from_secs(2);

/// All that is ready for the instant.
struct Ready {
    seat: Seat,
    state: MailboxState,
    decision: Option<Box<Decision>>,
    announced: Vec<Shown>,
}

impl Turns {
    /// Makes the turn ready, and takes it at its instant; hands the lease back where it is recalled or the service stops.
    pub(super) async fn hold_ahead(&self, mut lease: Lease, mut held: HeldAhead) -> Result<(), StoreError> {
        let instant = lease.ahead.unwrap_or(Timestamp::MIN);
        let recalled = held.recalled.clone();
        // What is large and needed for a moment only is boxed: very many wait here.
        let ready = tokio::select! {
            biased;
            because = self.called_off(&recalled, instant) => Err(because),
            ready = Box::pin(self.make_ready(&mut lease, &mut held, instant)) => Ok(ready?),
        };
        held.is_prepared();
        let ready = match ready {
            Ok(ready) => ready,
            Err(because) => return self.give_back(&lease, because).await,
        };
        let standing = Standing::ahead(&lease, &self.settings);
        let Some(ready) = ready else {
            if let Some(because) = self.wait_for(instant, &recalled).await {
                return self.give_back(&lease, because).await;
            }
            return Box::pin(self.begin(&lease, &standing, None, Some(held))).await;
        };
        let Ready { seat, state, decision, announced } = *ready;
        // Without a decision the turn asks at the instant, and others do not wait for that.
        if decision.is_some() {
            held.is_ready();
        }
        let mut turn = self.turn(&lease, &seat, state, &standing);
        (turn.foreseen, turn.announced, turn.held) = (decision, announced, Some(held));
        if let Some(because) = self.wait_for(instant, &recalled).await {
            drop(turn);
            return self.give_back(&lease, because).await;
        }
        let newest = self.roster.seat(lease.mailbox);
        if newest.is_some_and(|newest| Arc::ptr_eq(&newest.office, &seat.office)) {
            return self.go_through(turn).await;
        }
        // The company is another one by now. Whatever was announced may be left so.
        let Turn { state, mut held, .. } = *turn;
        if let Some(held) = &mut held {
            held.hand_over();
        }
        Box::pin(self.begin(&lease, &standing, Some(state), held)).await
    }

    /// Waits for the instant; why nothing is to be shown at it, where it is called off.
    async fn wait_for(&self, instant: Timestamp, recalled: &CancellationToken) -> Option<&'static str> {
        tokio::select! {
            biased;
            because = self.called_off(recalled, instant) => return Some(because),
            () = self.clock.sleep_until(instant) => {}
        }
        metrics::counter!("narvaro_turns_total").increment(1);
        metrics::counter!("narvaro_edges_held_ahead_total", "outcome" => "taken").increment(1);
        None
    }

    /// Returns when nothing is to be shown under the lease, and why.
    async fn called_off(&self, recalled: &CancellationToken, instant: Timestamp) -> &'static str {
        let stops = async {
            self.shutdown.cancelled().await;
            if self.clock.now() + LAST_MOMENTS >= instant {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = recalled.cancelled() => "recalled",
            () = stops => "handed_back",
        }
    }

    async fn give_back(&self, lease: &Lease, because: &'static str) -> Result<(), StoreError> {
        metrics::counter!("narvaro_edges_held_ahead_total", "outcome" => because).increment(1);
        let _few = self.leaving.acquire().await;
        self.store.release(lease).await
    }

    /// Decides for the instant and announces what will be written; `None` where the turn has to do all of it when it begins.
    async fn make_ready(
        &self,
        lease: &mut Lease,
        held: &mut HeldAhead,
        instant: Timestamp,
    ) -> Result<Option<Box<Ready>>, StoreError> {
        let sits = || self.roster.seat(lease.mailbox).filter(|seat| seat.office.revision >= lease.revision);
        let seat = match sits() {
            Some(seat) => Some(seat),
            None => {
                // Where that fails, the turn tries again, and tells.
                drop(self.offices.bring_up(&lease.company, lease.revision).await);
                sits()
            }
        };
        let Some(seat) = seat else { return Ok(None) };
        let standing = Standing::ahead(lease, &self.settings);
        let mut turn = self.turn(lease, &seat, self.state_of(lease), &standing);
        let decision = turn.foresee(held, instant).await?;
        let Turn { state, announced, .. } = *turn;
        // The document is parsed, and as large as the rest.
        lease.state = Vec::new();
        Ok(Some(Box::new(Ready { seat, state, decision, announced })))
    }
}

impl Turn<'_> {
    /// Decides for a moment that lies ahead, and announces what will be written then. `None` where that hangs on what the PBX shows, or on
    /// something else that is to be found out first.
    async fn foresee(
        &mut self,
        held: &mut HeldAhead,
        instant: Timestamp,
    ) -> Result<Option<Box<Decision>>, StoreError> {
        if self.seat.alias.as_deref() != Some(self.state.alias.as_str()) {
            return Ok(None);
        }
        let driver = self.seat.office.driver.clone();
        let reads = driver.as_ref().is_some_and(|driver| driver.abilities().read_back);
        if reads && self.wants_read_back(instant) {
            return Ok(None);
        }
        let Some(decision) = self.decide(instant) else { return Ok(None) };
        let Some(driver) = driver else { return Ok(Some(decision)) };
        let rests = Trouble::rests(self.state.pbx_trouble.as_ref(), instant);
        if rests || !self.must_write(&*driver, &decision) {
            return Ok(Some(decision));
        }
        let document = self.intent(&driver.render(&decision.wanted));
        Ok(self.announce_before(document, held, instant).await?.then_some(decision))
    }

    /// Whether a write could be announced before the instant. A store that is away may be back in time; meanwhile others are made ready.
    async fn announce_before(
        &self,
        document: Vec<u8>,
        held: &mut HeldAhead,
        instant: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut outcome = self.turns.store.intend(self.lease, document.clone()).await;
        loop {
            match outcome {
                Err(StoreError::Unavailable(error)) if self.now() + STORE_PAUSE < instant => {
                    debug!(error = %Chain(&*error), "A write to extension {} waits to be announced", self.seat.extension);
                }
                Err(StoreError::Unavailable(_)) => return Ok(false),
                outcome => return outcome.map(|()| true),
            }
            held.is_prepared();
            self.turns.clock.sleep_until(self.now() + STORE_PAUSE).await;
            let few = tokio::select! {
                biased;
                few = self.turns.few(self.standing, &self.turns.asking) => few,
                () = self.turns.clock.sleep_until(instant - STORE_PAUSE) => return Ok(false),
            };
            outcome = self.turns.store.intend(self.lease, document.clone()).await;
            drop(few);
        }
    }
}
