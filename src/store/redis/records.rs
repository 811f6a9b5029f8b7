//! Companies and which mailboxes they have.

use async_trait::async_trait;
use jiff::Timestamp;
use redis::Value;

use super::{
    Redis, company_of, keys,
    line::lines_of,
    trail::entry_of,
    value::{Answer, Args, is_found, number},
};
use crate::{
    company::{
        records::{Applied, CompanyRecord, MailboxRecord, Records},
        trail::Deed,
    },
    model::{CompanyId, Extension, MailboxId},
    queue::{Mark, Reason, StoreError},
};

impl Redis {
    /// An entry for the trail, and how many are kept.
    pub(super) fn with_deed(&self, args: Args, deed: Option<&Deed>) -> Args {
        args.bytes(deed.map(entry_of).unwrap_or_default()).add(self.inner.trail_entries)
    }

    /// Marks that a change of a company makes: of all its mailboxes, and of those who were taken out.
    fn with_marks(&self, mut args: Args, reason: Reason) -> Args {
        for reason in [reason, Reason::Retired] {
            let (line, _) = lines_of(&Mark::new(MailboxId(0), self.inner.clock.now(), reason));
            args = args.add(reason.urgency() as u8).add(line);
        }
        args
    }

    async fn users_of(&self, company: &CompanyId) -> Result<Vec<MailboxRecord>, StoreError> {
        let answer = self.inner.run(&keys::USERS, Args::default().add(company)).await?;
        users(company, Answer::list(answer)?)
    }
}

/// Extensions and what `users:` has of each.
pub(super) fn users(company: &CompanyId, mut answer: Answer) -> Result<Vec<MailboxRecord>, StoreError> {
    let mut mailboxes = Vec::new();
    while !answer.is_empty() {
        let extension: Result<Extension, _> = answer.text()?.parse();
        let extension =
            extension.map_err(|error| StoreError::Corrupt { what: "extension", source: Box::new(error) })?;
        let value = answer.text()?;
        let digits = value.trim_end_matches('r');
        let id = digits
            .parse()
            .map_err(|error| StoreError::Corrupt { what: "mailbox number", source: Box::new(error) })?;
        mailboxes.push(MailboxRecord {
            id: MailboxId(id),
            company: company.clone(),
            extension,
            retired: digits.len() < value.len(),
        });
    }
    mailboxes.sort_unstable_by_key(|mailbox| mailbox.id);
    Ok(mailboxes)
}

fn company_record(value: Value) -> Result<CompanyRecord, StoreError> {
    let mut answer = Answer::list(value)?;
    Ok(CompanyRecord {
        id: company_of(&answer.text()?)?,
        revision: answer.number()?,
        applied: answer.maybe_bytes()?,
        draft: answer.maybe_bytes()?,
        standing: answer.maybe_bytes()?,
    })
}

/// All companies, by id.
pub(super) fn companies(answer: Value) -> Result<Vec<CompanyRecord>, StoreError> {
    let mut answer = Answer::list(answer)?;
    let mut companies = Vec::new();
    while !answer.is_empty() {
        companies.push(company_record(answer.value()?)?);
    }
    companies.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    Ok(companies)
}

/// All companies with their revisions, by id.
pub(super) fn revisions(answer: Value) -> Result<Vec<(CompanyId, u64)>, StoreError> {
    let mut answer = Answer::list(answer)?;
    let mut revisions = Vec::new();
    while !answer.is_empty() {
        revisions.push((company_of(&answer.text()?)?, answer.number()?));
    }
    revisions.sort_unstable();
    Ok(revisions)
}

#[async_trait]
impl Records for Redis {
    async fn companies(&self) -> Result<Vec<CompanyRecord>, StoreError> {
        companies(self.inner.run(&keys::COMPANIES, Args::default()).await?)
    }

    async fn mailboxes(&self) -> Result<Vec<MailboxRecord>, StoreError> {
        let mut mailboxes = Vec::new();
        // One company at a time: with all of them in one step Redis would do nothing else for too long.
        for (company, _) in self.revisions().await? {
            mailboxes.extend(self.users_of(&company).await?);
        }
        mailboxes.sort_unstable_by_key(|mailbox| mailbox.id);
        Ok(mailboxes)
    }

    async fn save_draft(&self, company: &CompanyId, draft: Option<Vec<u8>>) -> Result<(), StoreError> {
        let args =
            Args::default().add(company).add(u8::from(draft.is_some())).bytes(draft.unwrap_or_default());
        self.inner.run(&keys::DRAFT, args).await.map(drop)
    }

    async fn apply_noted(
        &self,
        company: &CompanyId,
        document: Vec<u8>,
        users_given: Vec<Extension>,
        deed: Option<Deed>,
    ) -> Result<Applied, StoreError> {
        let args =
            Args::with_capacity(9 + users_given.len()).add(self.inner.time()).add(company).bytes(document);
        let mut args = self.with_marks(self.with_deed(args, deed.as_ref()), Reason::Applied);
        for extension in &users_given {
            args = args.add(extension.as_str());
        }
        let mut answer = Answer::list(self.inner.run(&keys::APPLY, args).await?)?;
        let revision = answer.number()?;
        Ok(Applied { revision, mailboxes: users(company, answer.inner_list()?)? })
    }

    async fn set_standing_noted(
        &self,
        company: &CompanyId,
        standing: Vec<u8>,
        deed: Option<Deed>,
    ) -> Result<u64, StoreError> {
        let args = Args::with_capacity(9).add(self.inner.time()).add(company).bytes(standing);
        let args = self.with_marks(self.with_deed(args, deed.as_ref()), Reason::Consent);
        number(self.inner.run(&keys::STANDING, args).await?)
    }

    async fn forget(&self, company: &CompanyId) -> Result<(), StoreError> {
        self.inner.run(&keys::FORGET, Args::default().add(company)).await.map(drop)
    }

    async fn spend(&self, ticket: &str, expires: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
        let seconds = expires.duration_since(now).as_secs().max(1);
        let answer = self
            .inner
            .run(&keys::SPEND, Args::default().add(self.inner.time()).add(ticket).add(seconds))
            .await?;
        Ok(is_found(&answer))
    }

    async fn company(
        &self,
        company: &CompanyId,
    ) -> Result<Option<(CompanyRecord, Vec<MailboxRecord>)>, StoreError> {
        let answer = self.inner.run(&keys::COMPANY, Args::default().add(company)).await?;
        if !is_found(&answer) {
            return Ok(None);
        }
        let mut answer = Answer::list(answer)?;
        let record = company_record(answer.value()?)?;
        Ok(Some((record, users(company, answer.inner_list()?)?)))
    }

    async fn revisions(&self) -> Result<Vec<(CompanyId, u64)>, StoreError> {
        revisions(self.inner.run(&keys::REVISIONS, Args::default()).await?)
    }

    async fn revision(&self) -> Result<u64, StoreError> {
        number(self.inner.run(&keys::REVISION, Args::default()).await?)
    }

    async fn changed(&self, since: u64) {
        loop {
            let heard = self.inner.companies.count();
            // While Redis is away nothing changes that could be read.
            // A Redis that has lost the last of what it was told goes back.
            if self.revision().await.is_ok_and(|revision| revision != since) {
                return;
            }
            self.inner.companies.heard_since(heard).await;
        }
    }
}
