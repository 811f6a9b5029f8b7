//! A store that several processes share, within one: each has a handle, by which it is known, and can be cut off from it
//! as if it had been killed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use narvaro::{
    clock::{Clock, ManualClock, SharedClock},
    company::{
        records::{Applied, CompanyRecord, MailboxRecord, Records},
        trail::{Deed, JobRecord, Trail, TrailEntry, TrailQuery},
    },
    model::{CompanyId, Extension, MailboxId},
    queue::{
        Depth, DueStore, Duty, GONE_AFTER, Lease, Mark, Replica, ReplicaRecord, Replicas, Settled,
        StoreError, Tally,
    },
    store::embedded::{Embedded, EmbeddedSettings},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the processes share.
pub(crate) struct Shared {
    store: Embedded,
    clock: Arc<ManualClock>,
    duties: Mutex<HashMap<Duty, (usize, Timestamp)>>,
    announced: Mutex<BTreeMap<String, (usize, ReplicaRecord)>>,
    handles: Mutex<usize>,
}

impl Shared {
    pub(crate) fn open(settings: &EmbeddedSettings, clock: &Arc<ManualClock>) -> Arc<Self> {
        let store = Embedded::open(settings, Arc::clone(clock) as SharedClock).unwrap();
        let (duties, announced, handles) = Default::default();
        Arc::new(Self { store, clock: Arc::clone(clock), duties, announced, handles })
    }

    /// As one more process has it.
    pub(crate) fn handle(self: &Arc<Self>) -> Arc<Handle> {
        let mut handles = self.handles.lock().unwrap();
        *handles += 1;
        Arc::new(Handle {
            shared: Arc::clone(self),
            number: *handles,
            held: Mutex::default(),
            dead: CancellationToken::new(),
            idle: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
            unread: AtomicUsize::new(0),
            stopped: watch::Sender::new(false),
            allowed: watch::Sender::new(0),
        })
    }
}

/// What one process has of it.
pub(crate) struct Handle {
    shared: Arc<Shared>,
    number: usize,
    held: Mutex<HashMap<MailboxId, Lease>>,
    dead: CancellationToken,
    idle: AtomicBool,
    deaf: AtomicBool,
    unread: AtomicUsize,
    stopped: watch::Sender<bool>,
    allowed: watch::Sender<usize>,
}

impl Handle {
    /// Cuts the process off: from now on nothing of what it does counts.
    pub(crate) fn kill(&self) {
        self.dead.cancel();
    }

    /// Has the process take no turns.
    pub(crate) fn idle(&self) {
        self.idle.store(true, Ordering::SeqCst);
    }

    /// Leases what is due, for an hour, and does nothing about it.
    pub(crate) async fn hold_one(&self) {
        let leases = self.shared.store.lease(1, Duration::from_secs(3_600)).await.unwrap();
        assert_eq!(leases.len(), 1);
        self.held.lock().unwrap().extend(leases.into_iter().map(|lease| (lease.mailbox, lease)));
    }

    /// Has the process read no more what the store answers to its turns, as when it is stopped; tells when a turn is told that it
    /// may write.
    pub(crate) fn stop(&self) -> watch::Receiver<usize> {
        self.stopped.send_replace(true);
        self.allowed.subscribe()
    }

    /// Has turns read what they were told. Nothing is known of their leases yet.
    pub(crate) fn go_on(&self) {
        self.stopped.send_replace(false);
    }

    /// Has nothing told to the process of what others change.
    pub(crate) fn deafen(&self) {
        self.deaf.store(true, Ordering::SeqCst);
    }

    /// Has so many of the process's readings of a company fail.
    pub(crate) fn fail_to_read(&self, times: usize) {
        self.unread.store(times, Ordering::SeqCst);
    }

    /// How many are still to fail.
    pub(crate) fn to_fail(&self) -> usize {
        self.unread.load(Ordering::SeqCst)
    }

    /// Whether the process has a duty.
    pub(crate) fn has(&self, duty: Duty) -> bool {
        let (duties, now) = (self.shared.duties.lock().unwrap(), self.shared.clock.now());
        duties.get(&duty).is_some_and(|(holder, until)| *holder == self.number && *until > now)
    }

    /// The store, for whoever is alive.
    fn store(&self) -> Result<&Embedded, StoreError> {
        if self.dead.is_cancelled() {
            return Err(StoreError::Unavailable("cut off".into()));
        }
        Ok(&self.shared.store)
    }
}

#[async_trait]
impl DueStore for Handle {
    async fn mark(&self, marks: Vec<Mark>) -> Result<Tally, StoreError> {
        self.store()?.mark(marks).await
    }
    async fn lease(&self, most: usize, hold: Duration) -> Result<Vec<Lease>, StoreError> {
        if self.idle.load(Ordering::SeqCst) {
            return Ok(Vec::new());
        }
        let leases = self.store()?.lease(most, hold).await?;
        self.held.lock().unwrap().extend(leases.iter().map(|lease| (lease.mailbox, lease.clone())));
        Ok(leases)
    }
    async fn wait(&self) {
        if self.idle.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        tokio::select! {
            () = self.shared.store.wait() => {}
            () = self.dead.cancelled() => std::future::pending().await,
        }
    }
    async fn extend(&self, lease: &Lease, hold: Duration) -> Result<Timestamp, StoreError> {
        if *self.stopped.borrow() {
            return std::future::pending().await;
        }
        self.store()?.extend(lease, hold).await
    }
    async fn begin_reading(&self, lease: &Lease) -> Result<bool, StoreError> {
        self.store()?.begin_reading(lease).await
    }
    async fn intend(&self, lease: &Lease, intent: Vec<u8>) -> Result<(), StoreError> {
        let outcome = self.store()?.intend(lease, intent).await;
        self.allowed.send_modify(|times| *times += 1);
        self.stopped.subscribe().wait_for(|stopped| !stopped).await.unwrap();
        outcome
    }
    async fn settle(&self, lease: &Lease, settled: Settled) -> Result<(), StoreError> {
        self.store()?.settle(lease, settled).await
    }
    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.store()?.release(lease).await
    }
    async fn look(&self, mailbox: MailboxId) -> Result<Option<Vec<u8>>, StoreError> {
        self.store()?.look(mailbox).await
    }
    async fn depth(&self) -> Result<Depth, StoreError> {
        self.store()?.depth().await
    }
}

#[async_trait]
impl Records for Handle {
    async fn companies(&self) -> Result<Vec<CompanyRecord>, StoreError> {
        self.store()?.companies().await
    }
    async fn company(
        &self,
        company: &CompanyId,
    ) -> Result<Option<(CompanyRecord, Vec<MailboxRecord>)>, StoreError> {
        let fails = self.unread.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if fails.is_ok() {
            return Err(StoreError::Unavailable("away for a moment".into()));
        }
        self.store()?.company(company).await
    }
    async fn revisions(&self) -> Result<Vec<(CompanyId, u64)>, StoreError> {
        self.store()?.revisions().await
    }
    async fn revision(&self) -> Result<u64, StoreError> {
        self.store()?.revision().await
    }
    async fn changed(&self, since: u64) {
        self.shared.store.changed(since).await;
        if self.deaf.load(Ordering::SeqCst) || self.dead.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }
    async fn mailboxes(&self) -> Result<Vec<MailboxRecord>, StoreError> {
        self.store()?.mailboxes().await
    }
    async fn save_draft(&self, company: &CompanyId, draft: Option<Vec<u8>>) -> Result<(), StoreError> {
        self.store()?.save_draft(company, draft).await
    }
    async fn apply_noted(
        &self,
        company: &CompanyId,
        document: Vec<u8>,
        users: Vec<Extension>,
        deed: Option<Deed>,
    ) -> Result<Applied, StoreError> {
        self.store()?.apply_noted(company, document, users, deed).await
    }
    async fn set_standing_noted(
        &self,
        company: &CompanyId,
        standing: Vec<u8>,
        deed: Option<Deed>,
    ) -> Result<u64, StoreError> {
        self.store()?.set_standing_noted(company, standing, deed).await
    }
    async fn forget(&self, company: &CompanyId) -> Result<(), StoreError> {
        self.store()?.forget(company).await
    }
    async fn spend(&self, ticket: &str, expires: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
        self.store()?.spend(ticket, expires, now).await
    }
}

#[async_trait]
impl Trail for Handle {
    async fn note(&self, deed: Deed) -> Result<(), StoreError> {
        self.store()?.note(deed).await
    }
    async fn trail(&self, query: TrailQuery) -> Result<Vec<TrailEntry>, StoreError> {
        self.store()?.trail(query).await
    }
    async fn open_job(
        &self,
        job: JobRecord,
        mailboxes: Vec<MailboxId>,
        deed: Deed,
    ) -> Result<(), StoreError> {
        self.store()?.open_job(job, mailboxes, deed).await
    }
    async fn advance_job(&self, job: JobRecord, done: Vec<MailboxId>) -> Result<bool, StoreError> {
        self.store()?.advance_job(job, done).await
    }
    async fn close_job(&self, job: JobRecord, deed: Deed) -> Result<bool, StoreError> {
        self.store()?.close_job(job, deed).await
    }
    async fn cancel_job(&self, id: &str, deed: Deed) -> Result<bool, StoreError> {
        self.store()?.cancel_job(id, deed).await
    }
    async fn jobs(&self) -> Result<Vec<JobRecord>, StoreError> {
        self.store()?.jobs().await
    }
    async fn job(&self, id: &str) -> Result<Option<JobRecord>, StoreError> {
        self.store()?.job(id).await
    }
    async fn left_of_job(&self, id: &str) -> Result<Vec<MailboxId>, StoreError> {
        self.store()?.left_of_job(id).await
    }
}

#[async_trait]
impl Replicas for Handle {
    async fn announce(&self, me: &Replica) -> Result<(), StoreError> {
        self.store()?;
        let record = ReplicaRecord { replica: me.clone(), seen: self.shared.clock.now() };
        self.shared.announced.lock().unwrap().insert(me.name.clone(), (self.number, record));
        Ok(())
    }
    async fn replicas(&self) -> Result<Vec<ReplicaRecord>, StoreError> {
        self.store()?;
        let (announced, now) = (self.shared.announced.lock().unwrap(), self.shared.clock.now());
        let records = announced.values().map(|(_, record)| record);
        Ok(records.filter(|record| record.seen + GONE_AFTER > now).cloned().collect())
    }
    async fn hold_duty(&self, duty: Duty, hold: Duration) -> Result<bool, StoreError> {
        self.store()?;
        let (mut duties, now) = (self.shared.duties.lock().unwrap(), self.shared.clock.now());
        let free = duties.get(&duty).is_none_or(|(holder, until)| *holder == self.number || *until <= now);
        if free {
            duties.insert(duty, (self.number, now + hold));
        }
        Ok(free)
    }
    async fn leave(&self) -> Result<(), StoreError> {
        let store = self.store()?;
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        for lease in held.values() {
            match store.release(lease).await {
                Ok(()) | Err(StoreError::LeaseLost { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.shared.duties.lock().unwrap().retain(|_, (holder, _)| *holder != self.number);
        self.shared.announced.lock().unwrap().retain(|_, (number, _)| *number != self.number);
        Ok(())
    }
}
