//! What an operator does, beside looking: jobs of renewal, and the audit trail that says who did what.

use std::{collections::HashMap, sync::Arc};

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
    model::{CompanyId, MailboxId},
    queue::StoreError,
};

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
        let pieces = self.pieces(request.company.as_ref(), request.user.as_deref())?;
        // A user without a company named is in one all the same, and the job is about that one.
        let only = request.user.as_ref().and_then(|_| pieces.first().map(|piece| piece.company.clone()));
        let company = request.company.or(only);
        let _one_at_a_time = self.jobs.starting.lock().await;
        if let Some(known) = self.jobs.under_way(company.as_ref(), request.user.as_deref()) {
            let JobInfo { job, progress, .. } = known.info();
            return Ok(JobStarted { job, total: progress.total, under_way: true });
        }
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
        let record = JobRecord::new(id.0.clone(), renewal::document(&info));
        let mailboxes = pieces.iter().map(|piece| piece.mailbox).collect();
        self.store.open_job(record, mailboxes, deed).await.map_err(store)?;
        self.run_job(info, 0, Feeder::new(pieces)).await;
        Ok(JobStarted { job: id, total, under_way: false })
    }

    pub(super) async fn cancel_job(self, id: JobId) -> Result<JobProgress, OperationError> {
        let job = self.jobs.find(&id).ok_or(OperationError::NoSuchJob(id))?;
        let info = job.info();
        if !info.progress.finished && !info.progress.cancelled {
            self.note("cancel", info.company.as_ref(), format!("job {}", info.job)).await;
        }
        Ok(job.cancel())
    }

    async fn run_job(&self, info: JobInfo, version: u64, feeder: Feeder) {
        let means = Means {
            store: Arc::clone(&self.store),
            offices: Arc::clone(&self.offices),
            clock: Arc::clone(&self.clock),
            pace: Arc::clone(&self.jobs.pace),
            shutdown: self.tasks.shutdown(),
        };
        let job = self.jobs.enter(info, version);
        let mut runner = Runner::new(job, means, self.turns.ended(), feeder);
        runner.begin().await;
        self.tasks.spawn("renewal", runner.run());
    }

    /// Goes on with the jobs that the service had when it stopped.
    pub(in crate::app) async fn resume_jobs(&self) -> Result<(), StoreError> {
        let users = self.pieces(None, None).unwrap_or_default();
        let users: HashMap<MailboxId, Piece> =
            users.into_iter().map(|piece| (piece.mailbox, piece)).collect();
        for record in self.store.jobs().await? {
            let info = match renewal::stored(&record) {
                Ok(info) => info,
                Err(error) => {
                    warn!(error = %Chain(&error), "Stored job {} cannot be read and is left alone", record.id);
                    continue;
                }
            };
            if info.progress.finished {
                self.jobs.enter(info, record.version);
                continue;
            }
            let left = self.store.left_of_job(&record.id).await?;
            let (mut pieces, mut gone) = (Vec::with_capacity(left.len()), Vec::new());
            for mailbox in left {
                match users.get(&mailbox) {
                    Some(piece) => pieces.push(piece.clone()),
                    None => gone.push(mailbox),
                }
            }
            let (mut info, mut version) = (info, record.version);
            let lost = gone.len() as u64;
            if lost > 0 {
                // Their users were taken out or switched off meanwhile.
                info.progress.done += lost;
                *info.progress.reasons.entry("removed".to_owned()).or_default() += lost;
                let document = renewal::document(&info);
                self.store.advance_job(JobRecord { document, ..record }, gone).await?;
                version += 1;
            }
            let cancelled = info.progress.cancelled;
            let pieces = if cancelled { Vec::new() } else { pieces };
            // What was fed just before the service stopped is not known any more: one window is let go by.
            let feeder = Feeder::new(pieces).resting_until(self.clock.now() + WINDOW);
            self.run_job(info, version, feeder).await;
        }
        Ok(())
    }
}
