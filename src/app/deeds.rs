//! What an operator does, beside looking: jobs of renewal, and the audit trail that says who did what.

use std::{collections::HashMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    feeder::{Feeder, Piece, WINDOW},
    operations::{Service, store},
    renewal::{self, Means, Runner},
};
use crate::{
    admin::{
        AuditLine, AuditRequest, JobId, JobInfo, JobProgress, JobStarted, OperationError, Page, PageRequest,
        RenewRequest,
    },
    chain::Chain,
    company::trail::{Deed, JobRecord, TrailQuery},
    counted::counted,
    model::{CompanyId, MailboxId, Others},
    queue::{Duty, StoreError},
};

/// How often it is looked after jobs that are under way, though nothing has changed.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(5);

impl Service {
    /// An entry of the audit trail in the name of whoever asks.
    pub(super) fn deed(&self, what: &'static str, company: Option<&CompanyId>, outcome: String) -> Deed {
        Deed { at: self.clock.now(), who: self.who.to_string(), what, company: company.cloned(), outcome }
    }

    /// Writes down what has been done already. That it could not be written is told in the log: the deed stands.
    pub(super) async fn note(&self, what: &'static str, company: Option<&CompanyId>, outcome: String) {
        if let Err(error) = self.store.note(self.deed(what, company, outcome)).await {
            warn!(error = %Chain(&error), "`{what}` by `{}` is not in the audit trail", self.who);
        }
    }

    pub(super) async fn read_trail(&self, request: AuditRequest) -> Result<Page<AuditLine>, OperationError> {
        let AuditRequest { company, since, after, limit } = request;
        let before = after.map(|after| {
            after
                .parse()
                .map_err(|_| OperationError::Refused(format!("`{after}` is no place in the audit trail")))
        });
        let most = PageRequest { after: None, limit }.most();
        let query = TrailQuery { company, since, before: before.transpose()?, most: most + 1 };
        let mut entries = self.store.trail(query).await.map_err(store)?;
        let more = entries.len() > most;
        entries.truncate(most);
        let next = entries.last().filter(|_| more).map(|last| last.number.to_string());
        let line = |entry: crate::company::trail::TrailEntry| AuditLine {
            number: entry.number,
            at: entry.at,
            who: entry.who,
            what: entry.what,
            company: entry.company,
            outcome: entry.outcome,
        };
        Ok(Page { items: entries.into_iter().map(line).collect(), next })
    }

    pub(super) async fn start_renewal(self, request: RenewRequest) -> Result<JobStarted, OperationError> {
        let pieces = self.pieces(request.company.as_ref(), request.user.as_deref()).await?;
        // A user without a company named is in one all the same, and the job is about that one.
        let only = request.user.as_ref().and_then(|_| pieces.first().map(|piece| piece.company.clone()));
        let company = request.company.or(only);
        let _one_at_a_time = self.jobs.starting.lock().await;
        if let Some(known) = self.job_under_way(company.as_ref(), request.user.as_deref()).await? {
            let JobInfo { job, progress, .. } = known;
            return Ok(JobStarted { job, total: progress.total, under_way: true });
        }
        // Before the job has begun, so that whoever works it off knows that nobody else has.
        self.membership.hold(Duty::Jobs).await;
        let id = JobId(crate::graph::fresh_nonce());
        let total = pieces.len() as u64;
        let info = JobInfo {
            job: id.clone(),
            by: self.who.to_string(),
            started: self.clock.now(),
            company,
            user: request.user,
            language: request.language,
            progress: JobProgress { total, ..JobProgress::default() },
        };
        let deed = self.deed(
            "renew",
            info.company.as_ref(),
            format!("job {id}: {}", counted(total, "mailbox", "mailboxes")),
        );
        let record = JobRecord::new(id.0.clone(), renewal::document(&info, &Others::default()));
        let mailboxes = pieces.iter().map(|piece| piece.mailbox).collect();
        self.store.open_job(record, mailboxes, deed).await.map_err(store)?;
        // It is stored. Where nothing comes of this, whoever works jobs off finds it.
        if let Err(error) = self.tend_jobs().await {
            warn!(error = %Chain(&error), "Job {id} waits for the store");
        }
        Ok(JobStarted { job: id, total, under_way: false })
    }

    pub(super) async fn cancel_job(self, id: JobId) -> Result<JobProgress, OperationError> {
        let mut info = self.job_info(&id).await?;
        if info.progress.finished {
            return Ok(info.progress);
        }
        let deed = self.deed("cancel", info.company.as_ref(), format!("job {id}"));
        self.store.cancel_job(&id.0, deed).await.map_err(store)?;
        if let Some(job) = self.jobs.find(&id.0) {
            return Ok(job.cancel());
        }
        info.progress.cancelled = true;
        Ok(info.progress)
    }

    /// How a job stands: as it is known here, else as it is stored.
    pub(super) async fn job_info(&self, id: &JobId) -> Result<JobInfo, OperationError> {
        if let Some(job) = self.jobs.find(&id.0) {
            return Ok(job.info());
        }
        let record = self.store.job(&id.0).await.map_err(store)?;
        record.and_then(|record| readable(&record)).ok_or_else(|| OperationError::NoSuchJob(id.clone()))
    }

    /// All jobs, the newest first.
    pub(super) async fn all_jobs(&self) -> Result<Vec<JobInfo>, OperationError> {
        let records = self.store.jobs().await.map_err(store)?;
        let newest_first = records.iter().rev();
        let known = newest_first.filter_map(|record| match self.jobs.find(&record.id) {
            Some(job) => Some(job.info()),
            None => readable(record),
        });
        Ok(known.collect())
    }

    /// The job that is under way for these mailboxes.
    async fn job_under_way(
        &self,
        company: Option<&CompanyId>,
        user: Option<&str>,
    ) -> Result<Option<JobInfo>, OperationError> {
        let same = |info: &JobInfo| {
            let ends = info.progress.finished || info.progress.cancelled;
            !ends && info.company.as_ref() == company && info.user.as_deref() == user
        };
        Ok(self.all_jobs().await?.into_iter().find(same))
    }

    /// Works off whatever jobs there are, as long as that is this process's duty, until `shutdown`.
    pub(in crate::app) async fn keep_jobs(self: Arc<Self>, shutdown: CancellationToken) {
        let (mut followed, mut duties) = (self.offices.followed(), self.membership.changes());
        loop {
            let open = self.tend_jobs().await.unwrap_or_else(|error| {
                warn!(error = %Chain(&error), "Jobs wait for the store");
                true
            });
            let again = self.clock.sleep_until(self.clock.now() + LOOK_AGAIN);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = followed.changed() => {}
                () = duties.changed(), if open => {}
                () = again, if open => {}
            }
        }
    }

    /// Takes up the jobs that nobody works off, ends those that somebody wants ended, and leaves all of them to another
    /// process where that has the duty. Whether there are any.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: some may wait.
    pub(in crate::app) async fn tend_jobs(&self) -> Result<bool, StoreError> {
        let _one_at_a_time = self.jobs.tending.lock().await;
        let open = self.store.jobs().await?.into_iter().filter_map(|record| {
            let info = readable(&record).filter(|info| !info.progress.finished)?;
            Some((record, info))
        });
        let open: Vec<(JobRecord, JobInfo)> = open.collect();
        if open.is_empty() {
            return Ok(false);
        }
        let Some(since) = self.membership.hold(Duty::Jobs).await else {
            self.jobs.let_go();
            return Ok(true);
        };
        for (record, info) in open {
            match self.jobs.find(&record.id) {
                Some(job) if record.cancelled => drop(job.cancel()),
                Some(_) => {}
                None => self.take_up(record, info, since).await?,
            }
        }
        Ok(true)
    }

    /// Goes on with a job where it is, or begins with it. `since`: since when this process alone has worked jobs off.
    async fn take_up(
        &self,
        mut record: JobRecord,
        mut info: JobInfo,
        since: Timestamp,
    ) -> Result<(), StoreError> {
        // Another process may have started it for users that are not known here yet.
        self.offices.catch_up().await?;
        let users = self.pieces(None, None).await.unwrap_or_default();
        let users: HashMap<MailboxId, Piece> =
            users.into_iter().map(|piece| (piece.mailbox, piece)).collect();
        let left = self.store.left_of_job(&record.id).await?;
        let (mut pieces, mut gone) = (Vec::with_capacity(left.len()), Vec::new());
        for mailbox in left {
            match users.get(&mailbox) {
                Some(piece) => pieces.push(piece.clone()),
                None => gone.push(mailbox),
            }
        }
        let is_new = record.version == 0 && since <= info.started;
        let lost = gone.len() as u64;
        if lost > 0 {
            // Their users were taken out or switched off meanwhile.
            info.progress.done += lost;
            *info.progress.reasons.entry("removed".to_owned()).or_default() += lost;
            record.document = renewal::document(&info, &renewal::others(&record));
            if !self.store.advance_job(record.clone(), gone).await? {
                return Ok(());
            }
            record.version += 1;
        }
        let pieces = if info.progress.cancelled { Vec::new() } else { pieces };
        let feeder = Feeder::new(pieces);
        // What was fed just before it stopped is not known any more: one window is let go by.
        let feeder = if is_new { feeder } else { feeder.resting_until(self.clock.now() + WINDOW) };
        self.run_job(info, record, feeder).await;
        Ok(())
    }

    async fn run_job(&self, info: JobInfo, record: JobRecord, feeder: Feeder) {
        let let_go = self.tasks.shutdown();
        let means = Means {
            store: Arc::clone(&self.store),
            offices: Arc::clone(&self.offices),
            clock: Arc::clone(&self.clock),
            pace: Arc::clone(&self.jobs.pace),
            membership: Arc::clone(&self.membership),
            let_go: let_go.clone(),
        };
        let (job, entered) = self.jobs.enter(info, record, let_go);
        let mut runner = Runner::new(job, means, self.turns.ended(), feeder);
        runner.begin().await;
        self.tasks.spawn("renewal", async move {
            let _entered = entered;
            runner.run().await;
        });
    }
}

/// A stored job; one that cannot be read is told of and left alone.
fn readable(record: &JobRecord) -> Option<JobInfo> {
    renewal::stored(record)
        .inspect_err(|error| {
            warn!(error = %Chain(error), "Stored job {} cannot be read and is left alone", record.id);
        })
        .ok()
}
