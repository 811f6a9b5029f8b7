//! Stores that are broken on purpose: the contract has to notice each of them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use narvaro::{
    clock::ManualClock,
    company::{
        records::{Applied, CompanyRecord, MailboxRecord, Records},
        trail::{Deed, JobRecord, Trail, TrailEntry, TrailQuery},
    },
    model::{CompanyId, Extension, MailboxId},
    queue::{
        Depth, DueStore, Duty, Lease, Mark, Replica, ReplicaRecord, Replicas, Settled, StoreError, Tally,
        Urgency,
    },
    store::Store,
};

use super::{Bench, HOLD, check, forms};

/// What is wrong with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// A lease does not end by time.
    LeaseForEver,
    /// A turn is settled in two steps: what it had gathered is done with before what it leaves behind is stored.
    SettledInTwo,
    /// Due time first, state later: whoever comes in between takes the turn with the old state.
    StateLate,
    /// A write may be announced by a lease that was lost.
    IntentUnchecked,
    /// A mark that comes during a turn is done with by it.
    MarkSwallowed,
    /// Whoever waits is not woken.
    Sleeps,
}

/// A store that does all as another but for its flaw.
struct Broken {
    inner: Arc<dyn Store>,
    flaw: Flaw,
}

struct BrokenBench {
    inner: Box<dyn Bench>,
    flaw: Flaw,
}

#[async_trait]
impl Bench for BrokenBench {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(Broken { inner: self.inner.store(), flaw: self.flaw })
    }

    fn clock(&self) -> &ManualClock {
        self.inner.clock()
    }

    async fn reopen(&mut self) {
        self.inner.reopen().await;
    }
}

#[async_trait]
impl DueStore for Broken {
    async fn mark(&self, marks: Vec<Mark>) -> Result<Tally, StoreError> {
        self.inner.mark(marks).await
    }

    async fn lease(&self, most: usize, hold: Duration) -> Result<Vec<Lease>, StoreError> {
        let hold = if self.flaw == Flaw::LeaseForEver { HOLD * 1_000 } else { hold };
        let leases = self.inner.lease(most, hold).await?;
        if self.flaw == Flaw::SettledInTwo {
            for lease in &leases {
                let state = lease.state.clone();
                let next = Settled::Next { state, due: None, urgency: Urgency::Now, to_read: None };
                self.inner.settle(lease, next).await?;
            }
        }
        Ok(leases)
    }

    async fn wait(&self) {
        if self.flaw == Flaw::Sleeps {
            std::future::pending::<()>().await;
        }
        self.inner.wait().await;
    }

    async fn extend(&self, lease: &Lease, hold: Duration) -> Result<Timestamp, StoreError> {
        self.inner.extend(lease, hold).await
    }

    async fn begin_reading(&self, lease: &Lease) -> Result<bool, StoreError> {
        self.inner.begin_reading(lease).await
    }

    async fn intend(&self, lease: &Lease, intent: Vec<u8>) -> Result<(), StoreError> {
        match self.inner.intend(lease, intent).await {
            Err(StoreError::LeaseLost { .. }) if self.flaw == Flaw::IntentUnchecked => Ok(()),
            outcome => outcome,
        }
    }

    async fn settle(&self, lease: &Lease, settled: Settled) -> Result<(), StoreError> {
        match (self.flaw, settled) {
            (Flaw::SettledInTwo, _) => Ok(()),
            (Flaw::StateLate, Settled::Next { state, due, urgency, to_read }) => {
                let before = Settled::Next { state: lease.state.clone(), due, urgency, to_read };
                self.inner.settle(lease, before).await?;
                // Too late: nobody holds the lease any more.
                drop(state);
                Ok(())
            }
            (Flaw::MarkSwallowed, settled) => {
                self.inner.settle(lease, settled).await?;
                for again in self.inner.lease(1, HOLD).await? {
                    let state = again.state.clone();
                    let next = Settled::Next { state, due: None, urgency: Urgency::Now, to_read: None };
                    self.inner.settle(&again, next).await?;
                }
                Ok(())
            }
            (_, settled) => self.inner.settle(lease, settled).await,
        }
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.inner.release(lease).await
    }

    async fn look(&self, mailbox: MailboxId) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.look(mailbox).await
    }

    async fn depth(&self) -> Result<Depth, StoreError> {
        self.inner.depth().await
    }
}

#[async_trait]
impl Records for Broken {
    async fn companies(&self) -> Result<Vec<CompanyRecord>, StoreError> {
        self.inner.companies().await
    }

    async fn company(
        &self,
        company: &CompanyId,
    ) -> Result<Option<(CompanyRecord, Vec<MailboxRecord>)>, StoreError> {
        self.inner.company(company).await
    }

    async fn revisions(&self) -> Result<Vec<(CompanyId, u64)>, StoreError> {
        self.inner.revisions().await
    }

    async fn revision(&self) -> Result<u64, StoreError> {
        self.inner.revision().await
    }

    async fn changed(&self, since: u64) {
        self.inner.changed(since).await;
    }

    async fn mailboxes(&self) -> Result<Vec<MailboxRecord>, StoreError> {
        self.inner.mailboxes().await
    }

    async fn save_draft(&self, company: &CompanyId, draft: Option<Vec<u8>>) -> Result<(), StoreError> {
        self.inner.save_draft(company, draft).await
    }

    async fn apply_noted(
        &self,
        company: &CompanyId,
        document: Vec<u8>,
        users: Vec<Extension>,
        deed: Option<Deed>,
    ) -> Result<Applied, StoreError> {
        self.inner.apply_noted(company, document, users, deed).await
    }

    async fn set_standing_noted(
        &self,
        company: &CompanyId,
        standing: Vec<u8>,
        deed: Option<Deed>,
    ) -> Result<u64, StoreError> {
        self.inner.set_standing_noted(company, standing, deed).await
    }

    async fn forget(&self, company: &CompanyId) -> Result<(), StoreError> {
        self.inner.forget(company).await
    }

    async fn spend(&self, ticket: &str, expires: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
        self.inner.spend(ticket, expires, now).await
    }
}

#[async_trait]
impl Trail for Broken {
    async fn note(&self, deed: Deed) -> Result<(), StoreError> {
        self.inner.note(deed).await
    }

    async fn trail(&self, query: TrailQuery) -> Result<Vec<TrailEntry>, StoreError> {
        self.inner.trail(query).await
    }

    async fn open_job(
        &self,
        job: JobRecord,
        mailboxes: Vec<MailboxId>,
        deed: Deed,
    ) -> Result<(), StoreError> {
        self.inner.open_job(job, mailboxes, deed).await
    }

    async fn advance_job(&self, job: JobRecord, done: Vec<MailboxId>) -> Result<bool, StoreError> {
        self.inner.advance_job(job, done).await
    }

    async fn close_job(&self, job: JobRecord, deed: Deed) -> Result<bool, StoreError> {
        self.inner.close_job(job, deed).await
    }

    async fn cancel_job(&self, id: &str, deed: Deed) -> Result<bool, StoreError> {
        self.inner.cancel_job(id, deed).await
    }

    async fn jobs(&self) -> Result<Vec<JobRecord>, StoreError> {
        self.inner.jobs().await
    }

    async fn job(&self, id: &str) -> Result<Option<JobRecord>, StoreError> {
        self.inner.job(id).await
    }

    async fn left_of_job(&self, id: &str) -> Result<Vec<MailboxId>, StoreError> {
        self.inner.left_of_job(id).await
    }
}

#[async_trait]
impl Replicas for Broken {
    async fn announce(&self, me: &Replica) -> Result<(), StoreError> {
        self.inner.announce(me).await
    }

    async fn replicas(&self) -> Result<Vec<ReplicaRecord>, StoreError> {
        self.inner.replicas().await
    }

    async fn hold_duty(&self, duty: Duty, hold: Duration) -> Result<bool, StoreError> {
        self.inner.hold_duty(duty, hold).await
    }

    async fn leave(&self) -> Result<(), StoreError> {
        self.inner.leave().await
    }
}

/// Whether the check holds of that bench.
async fn holds(name: &'static str, bench: Box<dyn Bench>) -> bool {
    // A check ends by a panic, or by never ending.
    let running = tokio::spawn(tokio::time::timeout(Duration::from_secs(60), check(name, bench)));
    matches!(running.await, Ok(Ok(())))
}

/// For each flaw a check that notices it; one that holds of the store without the flaw.
const NOTICED: [(Flaw, &str); 6] = [
    (Flaw::LeaseForEver, "i3_a_lease_that_ran_out_can_neither_announce_a_write_nor_settle"),
    (Flaw::SettledInTwo, "i1_what_was_marked_survives_a_stop_until_it_is_settled"),
    (Flaw::StateLate, "a_mark_makes_its_mailbox_due_with_reason_and_item"),
    (Flaw::IntentUnchecked, "i3_a_lease_that_ran_out_can_neither_announce_a_write_nor_settle"),
    (Flaw::MarkSwallowed, "a_mailbox_is_leased_once_at_a_time_and_a_mark_meanwhile_comes_after"),
    (Flaw::Sleeps, "waiting_ends_with_a_mark_and_with_the_time"),
];

#[tokio::test]
async fn every_flaw_is_noticed_in_the_embedded_form() {
    for (flaw, name) in NOTICED {
        let broken = Box::new(BrokenBench { inner: forms::embedded(), flaw });
        assert!(!holds(name, broken).await, "{flaw:?} is not noticed by `{name}`");
        assert!(holds(name, forms::embedded()).await, "`{name}`");
    }
}

#[tokio::test]
async fn every_flaw_is_noticed_in_redis() {
    for (flaw, name) in NOTICED {
        let broken = Box::new(BrokenBench { inner: forms::redis().await, flaw });
        assert!(!holds(name, broken).await, "{flaw:?} is not noticed by `{name}`");
        assert!(holds(name, forms::redis().await).await, "`{name}`");
    }
}
