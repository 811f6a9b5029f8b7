//! The audit trail and the jobs.

use async_trait::async_trait;
use jiff::Timestamp;
use redis::Value;
use serde::{Deserialize, Serialize};

use super::{
    Redis, keys,
    value::{Answer, Args, number},
};
use crate::{
    company::trail::{Deed, JobRecord, Trail, TrailEntry, TrailQuery},
    model::{CompanyId, MailboxId},
    queue::StoreError,
};

/// Ended jobs that are remembered.
const JOBS_KEPT: usize = 100;

/// Entries read in one go.
const PIECE: usize = 500;

/// An entry as it is stored, behind its number and a space.
#[derive(Serialize, Deserialize)]
struct Entry {
    at: Timestamp,
    who: String,
    what: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    company: Option<CompanyId>,
    outcome: String,
}

/// What is written down of a deed.
pub(super) fn entry_of(deed: &Deed) -> Vec<u8> {
    let entry = Entry {
        at: deed.at,
        who: deed.who.clone(),
        what: deed.what.to_owned(),
        company: deed.company.clone(),
        outcome: deed.outcome.clone(),
    };
    // Strings and a time: nothing of it can fail.
    serde_json::to_vec(&entry).unwrap_or_default()
}

/// An entry as it is stored.
pub(super) fn line_of(entry: TrailEntry) -> Vec<u8> {
    let TrailEntry { number, at, who, what, company, outcome } = entry;
    let mut line = format!("{number} ").into_bytes();
    line.extend(serde_json::to_vec(&Entry { at, who, what, company, outcome }).unwrap_or_default());
    line
}

/// An entry, of what is stored of it.
pub(super) fn entry(text: &str) -> Result<TrailEntry, StoreError> {
    let corrupt = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Corrupt {
        what: "audit trail",
        source,
    };
    let (number, document) = text.split_once(' ').ok_or_else(|| corrupt("no number".into()))?;
    let number = number.parse().map_err(|error| corrupt(Box::new(error)))?;
    let entry: Entry = serde_json::from_str(document).map_err(|error| corrupt(Box::new(error)))?;
    let Entry { at, who, what, company, outcome } = entry;
    Ok(TrailEntry { number, at, who, what, company, outcome })
}

impl TrailQuery {
    fn wants(&self, entry: &TrailEntry) -> bool {
        self.company.as_ref().is_none_or(|company| entry.company.as_ref() == Some(company))
            && self.since.is_none_or(|since| entry.at >= since)
            && self.before.is_none_or(|before| entry.number < before)
    }
}

pub(super) fn jobs(answer: Value) -> Result<Vec<JobRecord>, StoreError> {
    let mut answer = Answer::list(answer)?;
    let mut jobs = Vec::new();
    while !answer.is_empty() {
        jobs.push(JobRecord {
            id: answer.text()?,
            document: answer.bytes()?,
            version: answer.number()?,
            cancelled: answer.number()? == 1,
        });
    }
    Ok(jobs)
}

/// Mailboxes that a job is not done with, by number.
pub(super) fn left(answer: Value) -> Result<Vec<MailboxId>, StoreError> {
    let mut answer = Answer::list(answer)?;
    let mut left = Vec::new();
    while !answer.is_empty() {
        left.push(MailboxId(answer.number()?));
    }
    left.sort_unstable();
    Ok(left)
}

#[async_trait]
impl Trail for Redis {
    async fn note(&self, deed: Deed) -> Result<(), StoreError> {
        self.inner.run(&keys::NOTE, self.with_deed(Args::default(), Some(&deed))).await.map(drop)
    }

    async fn trail(&self, query: TrailQuery) -> Result<Vec<TrailEntry>, StoreError> {
        let mut found = Vec::new();
        let mut skip = 0;
        // Entries that are added meanwhile push the others on.
        let mut last = u64::MAX;
        loop {
            let args = Args::default().add(skip).add(PIECE);
            let mut answer = Answer::list(self.inner.run(&keys::TRAIL, args).await?)?;
            if answer.is_empty() {
                return Ok(found);
            }
            while !answer.is_empty() {
                let entry = entry(&answer.text()?)?;
                let is_new = entry.number < last;
                last = last.min(entry.number);
                if is_new && query.wants(&entry) {
                    found.push(entry);
                }
                if found.len() == query.most {
                    return Ok(found);
                }
            }
            skip += PIECE;
        }
    }

    async fn open_job(
        &self,
        job: JobRecord,
        mailboxes: Vec<MailboxId>,
        deed: Deed,
    ) -> Result<(), StoreError> {
        let args = Args::with_capacity(5 + mailboxes.len()).add(&job.id).bytes(job.document).add(JOBS_KEPT);
        let mut args = self.with_deed(args, Some(&deed));
        for mailbox in mailboxes {
            args = args.add(mailbox.0);
        }
        match number(self.inner.run(&keys::OPEN_JOB, args).await?)? {
            1 => Ok(()),
            _ => Err(StoreError::Unavailable(format!("there is a job `{}` already", job.id).into())),
        }
    }

    async fn advance_job(&self, job: JobRecord, done: Vec<MailboxId>) -> Result<bool, StoreError> {
        let mut args = Args::with_capacity(3 + done.len()).add(&job.id).add(job.version).bytes(job.document);
        for mailbox in done {
            args = args.add(mailbox.0);
        }
        Ok(number(self.inner.run(&keys::ADVANCE_JOB, args).await?)? == 1)
    }

    async fn close_job(&self, job: JobRecord, deed: Deed) -> Result<bool, StoreError> {
        let args = Args::default().add(&job.id).add(job.version).bytes(job.document);
        let args = self.with_deed(args, Some(&deed));
        Ok(number(self.inner.run(&keys::CLOSE_JOB, args).await?)? == 1)
    }

    async fn cancel_job(&self, id: &str, deed: Deed) -> Result<bool, StoreError> {
        let args = self.with_deed(Args::default().add(id), Some(&deed));
        Ok(number(self.inner.run(&keys::CANCEL_JOB, args).await?)? == 1)
    }

    async fn jobs(&self) -> Result<Vec<JobRecord>, StoreError> {
        jobs(self.inner.run(&keys::JOBS, Args::default()).await?)
    }

    async fn job(&self, id: &str) -> Result<Option<JobRecord>, StoreError> {
        Ok(jobs(self.inner.run(&keys::JOBS, Args::default().add(id)).await?)?.pop())
    }

    async fn left_of_job(&self, id: &str) -> Result<Vec<MailboxId>, StoreError> {
        left(self.inner.run(&keys::LEFT_OF_JOB, Args::default().add(id)).await?)
    }
}
