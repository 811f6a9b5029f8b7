//! The audit trail and the jobs.

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{
    Embedded, schema,
    writer::{Revised, parsed},
};
use crate::{
    company::trail::{Deed, JobRecord, Trail, TrailEntry, TrailQuery},
    model::MailboxId,
    queue::StoreError,
};

/// Ended jobs that are remembered.
const JOBS_KEPT: i64 = 100;

/// Adds an entry and lets go of the oldest beyond `kept`. Numbers have no gaps, so that the oldest is found by counting.
pub(super) fn note(transaction: &Transaction<'_>, deed: &Deed, kept: u64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT INTO trail (at, who, what, company, outcome) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            deed.at.as_microsecond(),
            deed.who,
            deed.what,
            deed.company.as_ref().map(|company| company.as_str()),
            deed.outcome
        ])?;
    let oldest = transaction.last_insert_rowid().saturating_sub(i64::try_from(kept).unwrap_or(i64::MAX));
    transaction.prepare_cached("DELETE FROM trail WHERE number <= ?1")?.execute([oldest]).map(drop)
}

/// Keeps how far a job has come; `false` where somebody else has done so meanwhile.
fn keep(transaction: &Transaction<'_>, job: &JobRecord) -> rusqlite::Result<bool> {
    let kept = transaction
        .prepare_cached("UPDATE job SET document = ?2, version = version + 1 WHERE id = ?1 AND version = ?3")?
        .execute(params![job.id, job.document, job.version.cast_signed()])?;
    Ok(kept == 1)
}

fn job_of(row: &Row<'_>) -> rusqlite::Result<JobRecord> {
    Ok(JobRecord {
        id: row.get(0)?,
        document: row.get(1)?,
        version: row.get::<_, i64>(2)?.cast_unsigned(),
        cancelled: row.get(3)?,
    })
}

#[async_trait]
impl Trail for Embedded {
    async fn note(&self, deed: Deed) -> Result<(), StoreError> {
        let kept = self.trail_entries;
        self.write(move |transaction| note(transaction, &deed, kept).map(|()| 1)).await.map(drop)
    }

    async fn trail(&self, query: TrailQuery) -> Result<Vec<TrailEntry>, StoreError> {
        let TrailQuery { company, since, before, most } = query;
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT number, at, who, what, company, outcome FROM trail
                 WHERE (?1 IS NULL OR company = ?1) AND at >= ?2 AND number < ?3 ORDER BY number DESC LIMIT ?4",
            )?;
            let since = since.map_or(i64::MIN, Timestamp::as_microsecond);
            let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let company = company.as_ref().map(|company| company.as_str());
            let rows = statement.query_map(params![company, since, before, most], |row| {
                let company: Option<String> = row.get(4)?;
                Ok(TrailEntry {
                    number: row.get::<_, i64>(0)?.cast_unsigned(),
                    at: Timestamp::from_microsecond(row.get(1)?).unwrap_or(Timestamp::UNIX_EPOCH),
                    who: row.get(2)?,
                    what: row.get(3)?,
                    company: company.map(|company| parsed(4, &company)).transpose()?,
                    outcome: row.get(5)?,
                })
            })?;
            rows.collect()
        })
    }

    async fn open_job(
        &self,
        job: JobRecord,
        mailboxes: Vec<MailboxId>,
        deed: Deed,
    ) -> Result<(), StoreError> {
        let kept = self.trail_entries;
        self.revise(move |transaction| {
            transaction
                .execute("INSERT INTO job (id, document) VALUES (?1, ?2)", params![job.id, job.document])?;
            let mut add =
                transaction.prepare_cached("INSERT INTO job_mailbox (job, mailbox) VALUES (?1, ?2)")?;
            for mailbox in &mailboxes {
                add.execute(params![job.id, mailbox.0.cast_signed()])?;
            }
            transaction.execute(
                "DELETE FROM job WHERE id NOT IN (SELECT job FROM job_mailbox) AND number NOT IN
                 (SELECT number FROM job ORDER BY number DESC LIMIT ?1)",
                [JOBS_KEPT],
            )?;
            note(transaction, &deed, kept)?;
            Ok(Revised { revision: schema::next_revision(transaction)?, ..Revised::default() })
        })
        .await
        .map(drop)
    }

    async fn advance_job(&self, job: JobRecord, done: Vec<MailboxId>) -> Result<bool, StoreError> {
        let advance = move |transaction: &Transaction<'_>| {
            if !keep(transaction, &job)? {
                return Ok(0);
            }
            let mut take =
                transaction.prepare_cached("DELETE FROM job_mailbox WHERE job = ?1 AND mailbox = ?2")?;
            for mailbox in &done {
                take.execute(params![job.id, mailbox.0.cast_signed()])?;
            }
            Ok(1)
        };
        Ok(self.write(advance).await? == 1)
    }

    async fn close_job(&self, job: JobRecord, deed: Deed) -> Result<bool, StoreError> {
        let kept = self.trail_entries;
        let close = move |transaction: &Transaction<'_>| {
            if !keep(transaction, &job)? {
                return Ok(0);
            }
            transaction.execute("DELETE FROM job_mailbox WHERE job = ?1", [&job.id])?;
            note(transaction, &deed, kept).map(|()| 1)
        };
        Ok(self.write(close).await? == 1)
    }

    async fn cancel_job(&self, id: &str, deed: Deed) -> Result<bool, StoreError> {
        const CANCEL: &str = "UPDATE job SET cancelled = 1 WHERE id = ?1 AND cancelled = 0
             AND EXISTS (SELECT 1 FROM job_mailbox WHERE job = ?1)";
        let (id, kept) = (id.to_owned(), self.trail_entries);
        let cancel = move |transaction: &Transaction<'_>| {
            if transaction.execute(CANCEL, [id])? == 0 {
                return Ok(Revised::default());
            }
            note(transaction, &deed, kept)?;
            Ok(Revised { revision: schema::next_revision(transaction)?, ..Revised::default() })
        };
        Ok(self.revise(cancel).await?.revision > 0)
    }

    async fn jobs(&self) -> Result<Vec<JobRecord>, StoreError> {
        self.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT id, document, version, cancelled FROM job ORDER BY number")?;
            let rows = statement.query_map([], job_of)?;
            rows.collect()
        })
    }

    async fn job(&self, id: &str) -> Result<Option<JobRecord>, StoreError> {
        const JOB: &str = "SELECT id, document, version, cancelled FROM job WHERE id = ?1";
        self.read(|connection| connection.prepare_cached(JOB)?.query_row([id], job_of).optional())
    }

    async fn left_of_job(&self, id: &str) -> Result<Vec<MailboxId>, StoreError> {
        self.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT mailbox FROM job_mailbox WHERE job = ?1 ORDER BY mailbox")?;
            let rows =
                statement.query_map([id], |row| Ok(MailboxId(row.get::<_, i64>(0)?.cast_unsigned())))?;
            rows.collect()
        })
    }
}
