//! Leases, and being woken.

use std::{
    sync::{MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use redis::Value;

use super::{
    Redis, company_of, keys,
    line::gathered,
    marker::Patience,
    value::{Answer, Args, bytes, is_found, number},
    with_counts,
};
use crate::{
    model::{CompanyId, Generation, MailboxId},
    queue::{Depth, DueStore, Lease, Mark, Settled, StoreError, Tally},
};

/// A replica that waits looks again after this time, though nothing woke it: a message may get lost with a connection. In real
/// time, because so do messages.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Leases that are handed back in one call: some 5 ms of Redis.
const AT_ONCE: usize = 500;

/// When there is something to lease, as far as the last look told.
#[derive(Debug, Clone, Copy)]
pub(super) struct NextLook {
    /// How many messages had been heard when it was taken.
    heard: u64,
    /// By this process's clock.
    at: Option<Timestamp>,
}

impl Redis {
    /// What every call about one lease begins with.
    fn about(&self, lease: &Lease) -> Args {
        Args::with_capacity(8).add(self.inner.time()).add(lease.mailbox.0).add(lease.generation.0)
    }

    /// Counts a lease no longer.
    fn let_go(&self, mailbox: MailboxId, generation: Generation) {
        if self.inner.holding().end(mailbox, generation) {
            self.look_now();
        }
    }

    fn look_now(&self) {
        *self.next_look() = None;
        self.room.notify_one();
    }

    fn next_look(&self) -> MutexGuard<'_, Option<NextLook>> {
        self.next_look.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lease that was given for reading, if it still stands.
    async fn still_reads(&self, lease: &Lease) -> Result<bool, StoreError> {
        let args = self.about(lease).add(0);
        let answer = self.inner.run(&keys::READ, args).await?;
        self.found(lease, answer).map(|_| true)
    }

    /// Hands back what an answer that got lost may have left behind, or, at a stop, all that nobody will settle any more.
    pub(super) async fn tidy_up(&self) -> Result<(), StoreError> {
        let _alone = self.leasing.lock().await;
        self.hand_back_unknown().await
    }

    fn lost(&self, lease: &Lease) -> StoreError {
        self.let_go(lease.mailbox, lease.generation);
        StoreError::LeaseLost { mailbox: lease.mailbox, generation: lease.generation }
    }

    fn found(&self, lease: &Lease, answer: Value) -> Result<Value, StoreError> {
        if is_found(&answer) { Ok(answer) } else { Err(self.lost(lease)) }
    }

    fn end(&self, lease: &Lease, answer: Value) -> Result<(), StoreError> {
        self.found(lease, answer)?;
        self.let_go(lease.mailbox, lease.generation);
        Ok(())
    }

    fn abandoned(&self) -> MutexGuard<'_, Vec<(MailboxId, Generation)>> {
        self.abandoned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands back what is known to have been given up; where that fails, the next time.
    async fn hand_back_abandoned(&self) -> Result<(), StoreError> {
        loop {
            let some: Vec<_> = {
                let mut abandoned = self.abandoned();
                let from = abandoned.len().saturating_sub(AT_ONCE);
                abandoned.drain(from..).collect()
            };
            if some.is_empty() {
                return Ok(());
            }
            let args =
                some.iter().fold(Args::default().add(self.inner.time()), |args, (mailbox, generation)| {
                    args.add(mailbox.0).add(generation.0)
                });
            if let Err(error) = self.inner.run(&keys::ABANDON, args).await {
                self.abandoned().extend(some);
                return Err(error);
            }
        }
    }

    /// Hands back what was given up, and what Redis holds for this process without its knowing, after an answer got lost.
    pub(super) async fn hand_back_unknown(&self) -> Result<(), StoreError> {
        self.hand_back_abandoned().await?;
        if !self.inner.may_hold_unknown.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let handed_back = self.hand_back().await;
        if handed_back.is_err() {
            self.inner.lost_an_answer();
        }
        handed_back
    }

    /// Hands back everything that Redis holds for this process and that it does not know of. Not while it leases: what it is just
    /// being given it does not know of yet.
    async fn hand_back(&self) -> Result<(), StoreError> {
        let known: Vec<_> = {
            let holding = self.inner.holding();
            holding.all().chain(holding.all_ahead()).collect()
        };
        for set in ["leases", "ahead"] {
            let mut args = Args::default().add(self.inner.time()).add(&self.inner.replica).add(set);
            for (mailbox, generation) in &known {
                args = args.add(mailbox.0).add(generation.0);
            }
            self.inner.run(&keys::HAND_BACK, args).await?;
        }
        Ok(())
    }

    fn lease_args(&self, most: usize, hold: Duration) -> Args {
        let now = self.inner.clock.now();
        let mut holding = self.inner.holding();
        let room = holding.reading_room(now);
        let args = Args::default()
            .add(self.inner.time())
            .add(most)
            .add(hold.as_micros())
            .add(&self.inner.replica)
            .add(room);
        with_counts(args, &mut holding, now)
    }

    /// Reads an answer to a lease; `skew` is how far this process's clock is ahead of the store's.
    fn leases(&self, answer: &mut Answer, skew: SignedDuration) -> Result<Vec<Lease>, StoreError> {
        let mut leases = Vec::new();
        while !answer.is_empty() {
            let lease = given(answer, skew)?;
            let (mailbox, generation) = (lease.mailbox, lease.generation);
            self.inner.holding().begin(mailbox, generation, lease.company.clone(), lease.until, lease.reads);
            leases.push(lease);
        }
        Ok(leases)
    }
}

/// Reads one lease as `give` in the scripts lists it.
pub(super) fn given(answer: &mut Answer, skew: SignedDuration) -> Result<Lease, StoreError> {
    let mailbox = MailboxId(answer.number()?);
    let company = company_of(&answer.text()?)?;
    let revision = answer.number()?;
    let generation = Generation(answer.number()?);
    let until = answer.time()?.unwrap_or_default() + skew;
    let lines = answer.text()?;
    let since = answer.time()?;
    let reads = answer.number()? == 2;
    let gathered = gathered(&lines, since);
    let (state, intent) = (answer.bytes()?, answer.maybe_bytes()?);
    Ok(Lease { mailbox, company, revision, generation, until, gathered, reads, ahead: None, state, intent })
}

#[async_trait]
impl DueStore for Redis {
    async fn mark(&self, marks: Vec<Mark>) -> Result<Tally, StoreError> {
        self.marker.mark(marks, None).await
    }

    async fn mark_within(&self, marks: Vec<Mark>, within: Duration) -> Result<Tally, StoreError> {
        self.marker.mark(marks, Some(Patience::of(within))).await
    }

    async fn lease(&self, most: usize, hold: Duration) -> Result<Vec<Lease>, StoreError> {
        let mut sure_of = self.leasing.lock().await;
        self.make_sure(&mut sure_of).await?;
        self.hand_back_unknown().await?;
        // Before the look: what is heard from here on may be news to it.
        let heard = self.due.count();
        let before = self.inner.clock.now();
        let args = self.lease_args(most, hold);
        let answer = match self.if_still_sure(*sure_of, self.inner.run(&keys::LEASE, args).await).await {
            Ok(answer) => answer,
            Err(error) => {
                self.inner.lost_an_answer();
                return Err(error);
            }
        };
        let mut answer = Answer::list(answer)?;
        let store_now = answer.time()?.unwrap_or_default();
        let next = answer.time()?;
        metrics::counter!("narvaro_leases_expired_total").increment(answer.number()?);
        // From before the call: what it took makes this process look too early, never too late.
        let skew = self.inner.skew(before, store_now);
        let leases = self.leases(&mut answer, skew);
        if leases.is_err() {
            self.inner.lost_an_answer();
        }
        *self.next_look() = Some(NextLook { heard, at: next.map(|at| at + skew) });
        leases
    }

    async fn wait(&self) {
        let Some(next) = *self.next_look() else { return };
        let timed = async {
            match next.at {
                Some(at) => self.inner.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.due.heard_since(next.heard) => {}
            () = self.room.notified() => {}
            () = timed => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }

    async fn extend(&self, lease: &Lease, hold: Duration) -> Result<Timestamp, StoreError> {
        let before = self.inner.clock.now();
        let answer = self.inner.run(&keys::HOLD, self.about(lease).add(hold.as_micros())).await?;
        let answer = bytes(self.found(lease, answer)?)?.unwrap_or_default();
        let until = String::from_utf8_lossy(&answer).parse().ok();
        let until = until.and_then(|at| Timestamp::from_microsecond(at).ok()).unwrap_or(before);
        self.inner.holding().extend(lease.mailbox, lease.generation, before + hold);
        Ok(until)
    }

    async fn begin_reading(&self, lease: &Lease) -> Result<bool, StoreError> {
        let (mailbox, generation) = (lease.mailbox, lease.generation);
        let now = self.inner.clock.now();
        let reads_already = self.inner.holding().is_reading(mailbox, generation);
        if reads_already {
            return self.still_reads(lease).await;
        }
        let args = {
            let mut holding = self.inner.holding();
            if !holding.has_room_to_read(&lease.company, now) {
                return Ok(false);
            }
            let mut args = self.about(lease).add(holding.shares().reading_per_company);
            for (company, count) in holding.counts(now) {
                args = args.add(company).add(count.reading);
            }
            // The place is taken while Redis is asked: others of this process ask too.
            holding.set_reading(mailbox, generation, true);
            args
        };
        let answer = self.inner.run(&keys::READ, args).await.and_then(|answer| self.found(lease, answer));
        let begun = answer.and_then(number).map(|answer| answer == 1);
        if matches!(begun, Ok(true)) {
            // There is room for another one to show.
            self.look_now();
        } else {
            self.inner.holding().set_reading(mailbox, generation, false);
        }
        begun
    }

    async fn intend(&self, lease: &Lease, intent: Vec<u8>) -> Result<(), StoreError> {
        let answer = self.inner.run(&keys::INTEND, self.about(lease).bytes(intent)).await?;
        self.found(lease, answer).map(drop)
    }

    async fn settle(&self, lease: &Lease, settled: Settled) -> Result<(), StoreError> {
        let is_gone = matches!(settled, Settled::Gone);
        let (script, args) = match settled {
            Settled::Next { state, due, urgency, to_read } => {
                let args = self
                    .about(lease)
                    .bytes(state)
                    .maybe(due.map(Timestamp::as_microsecond))
                    .add(urgency as u8)
                    .maybe(to_read.map(|urgency| urgency as u8));
                (&keys::SETTLE, args)
            }
            Settled::Gone => (&keys::GONE, self.about(lease)),
        };
        let answer = self.inner.run(script, args).await?;
        if is_gone {
            self.inner.gone.fetch_add(1, Ordering::AcqRel);
        }
        self.end(lease, answer)
    }

    async fn lease_ahead(
        &self,
        most: usize,
        ahead: Duration,
        hold: Duration,
        full: &[CompanyId],
    ) -> Result<Vec<Lease>, StoreError> {
        self.take_ahead(most, ahead, hold, full).await
    }

    async fn wait_ahead(&self, ahead: Duration) {
        self.wait_for_edges(ahead).await;
    }

    async fn recalled(&self) -> Vec<(MailboxId, Generation)> {
        self.read_recalled().await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        // What was announced ahead was not written, or it would not be released.
        let announced_in_vain = u8::from(lease.ahead.is_some() && lease.intent.is_none());
        let answer = self.inner.run(&keys::RELEASE, self.about(lease).add(announced_in_vain)).await?;
        self.end(lease, answer)
    }

    fn abandon(&self, mailbox: MailboxId, generation: Generation) {
        self.let_go(mailbox, generation);
        self.abandoned().push((mailbox, generation));
    }

    async fn look(&self, mailbox: MailboxId) -> Result<Option<Vec<u8>>, StoreError> {
        bytes(self.inner.run(&keys::LOOK, Args::default().add(mailbox.0)).await?)
    }

    async fn depth(&self) -> Result<Depth, StoreError> {
        let args = {
            let now = self.inner.clock.now();
            let mut holding = self.inner.holding();
            let room = u8::from(holding.reading_room(now) > 0);
            let args = Args::default()
                .add(self.inner.time())
                .add(self.ahead_hold_us.load(Ordering::Relaxed))
                .add(room);
            with_counts(args, &mut holding, now)
        };
        let mut answer = Answer::list(self.inner.run(&keys::DEPTH, args).await?)?;
        let mut count = || answer.number().map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        let (mailboxes, due, leased) = (count()?, count()?, count()?);
        Ok(Depth { mailboxes, due, leased, oldest_due: answer.time()?, next: answer.time()? })
    }
}
