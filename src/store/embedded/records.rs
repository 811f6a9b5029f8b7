//! Companies: their documents, and which mailboxes they have.

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{
    Embedded, schema, trail,
    writer::{Revised, mailboxes_of, parsed},
};
use crate::{
    company::{
        records::{Applied, CompanyRecord, MailboxRecord, Records},
        trail::Deed,
    },
    model::{CompanyId, Extension},
    queue::{Reason, StoreError},
};

fn company_of(row: &Row<'_>) -> rusqlite::Result<CompanyRecord> {
    Ok(CompanyRecord {
        id: parsed(0, &row.get::<_, String>(0)?)?,
        revision: row.get::<_, i64>(1)?.cast_unsigned(),
        applied: row.get(2)?,
        draft: row.get(3)?,
        standing: row.get(4)?,
    })
}

#[async_trait]
impl Records for Embedded {
    async fn companies(&self) -> Result<Vec<CompanyRecord>, StoreError> {
        self.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT id, revision, applied, draft, standing FROM company ORDER BY id")?;
            let rows = statement.query_map([], company_of)?;
            rows.collect()
        })
    }

    async fn company(
        &self,
        company: &CompanyId,
    ) -> Result<Option<(CompanyRecord, Vec<MailboxRecord>)>, StoreError> {
        self.read(|connection| {
            // Both see the same moment.
            let transaction = connection.unchecked_transaction()?;
            let record = transaction
                .prepare_cached("SELECT id, revision, applied, draft, standing FROM company WHERE id = ?1")?
                .query_row([company.as_str()], company_of)
                .optional()?;
            record.map(|record| Ok((record, mailboxes_of(&transaction, Some(company))?))).transpose()
        })
    }

    async fn revisions(&self) -> Result<Vec<(CompanyId, u64)>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT id, revision FROM company ORDER BY id")?;
            let rows = statement.query_map([], |row| {
                Ok((parsed(0, &row.get::<_, String>(0)?)?, row.get::<_, i64>(1)?.cast_unsigned()))
            })?;
            rows.collect()
        })
    }

    async fn revision(&self) -> Result<u64, StoreError> {
        Ok(*self.shared.revision.borrow())
    }

    async fn changed(&self, since: u64) {
        let mut newest = self.shared.revision.subscribe();
        // The sender lives as long as the store does.
        drop(newest.wait_for(|newest| *newest > since).await);
    }

    async fn mailboxes(&self) -> Result<Vec<MailboxRecord>, StoreError> {
        self.read(|connection| mailboxes_of(connection, None))
    }

    async fn save_draft(&self, company: &CompanyId, draft: Option<Vec<u8>>) -> Result<(), StoreError> {
        const SET: &str = "INSERT INTO company (id, draft) VALUES (?1, ?2)
             ON CONFLICT (id) DO UPDATE SET draft = excluded.draft";
        let company = company.clone();
        let write = move |transaction: &Transaction<'_>| {
            transaction.execute(SET, params![company.as_str(), draft]).map(|rows| rows as u64)
        };
        self.write(write).await.map(drop)
    }

    async fn apply_noted(
        &self,
        company: &CompanyId,
        document: Vec<u8>,
        users: Vec<Extension>,
        deed: Option<Deed>,
    ) -> Result<Applied, StoreError> {
        let (company, kept) = (company.clone(), self.trail_entries);
        let write = move |transaction: &Transaction<'_>| {
            note(transaction, deed, kept)?;
            apply(transaction, company, &document, &users)
        };
        let Revised { revision, mailboxes, .. } = self.revise(write).await?;
        Ok(Applied { revision, mailboxes })
    }

    async fn set_standing_noted(
        &self,
        company: &CompanyId,
        standing: Vec<u8>,
        deed: Option<Deed>,
    ) -> Result<u64, StoreError> {
        const SET: &str = "INSERT INTO company (id, revision, standing) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, standing = excluded.standing";
        let (company, kept) = (company.clone(), self.trail_entries);
        let write = move |transaction: &Transaction<'_>| {
            note(transaction, deed, kept)?;
            let revision = schema::next_revision(transaction)?;
            transaction.execute(SET, params![company.as_str(), revision.cast_signed(), standing])?;
            let mailboxes = mailboxes_of(transaction, Some(&company))?;
            Ok(Revised { revision, company: Some(company), mailboxes, reason: Some(Reason::Consent) })
        };
        Ok(self.revise(write).await?.revision)
    }

    async fn forget(&self, company: &CompanyId) -> Result<(), StoreError> {
        const FORGET: &str = "DELETE FROM company WHERE id = ?1
             AND NOT EXISTS (SELECT 1 FROM mailbox WHERE mailbox.company = ?1)";
        let company = company.clone();
        let write = move |transaction: &Transaction<'_>| {
            let gone = transaction.execute(FORGET, [company.as_str()])?;
            let revision = if gone == 1 { schema::next_revision(transaction)? } else { 0 };
            Ok(Revised { revision, ..Revised::default() })
        };
        self.revise(write).await.map(drop)
    }

    async fn spend(&self, ticket: &str, expires: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
        let ticket = ticket.to_owned();
        let changed = self
            .write(move |transaction| {
                transaction.execute("DELETE FROM spent_ticket WHERE expires < ?1", [now.as_second()])?;
                let changed = transaction.execute(
                    "INSERT OR IGNORE INTO spent_ticket (ticket, expires) VALUES (?1, ?2)",
                    params![ticket, expires.as_second()],
                )?;
                Ok(changed as u64)
            })
            .await?;
        Ok(changed == 1)
    }
}

fn note(transaction: &Transaction<'_>, deed: Option<Deed>, kept: u64) -> rusqlite::Result<()> {
    deed.map_or(Ok(()), |deed| trail::note(transaction, &deed, kept))
}

fn apply(
    transaction: &Transaction<'_>,
    company: CompanyId,
    document: &[u8],
    users: &[Extension],
) -> rusqlite::Result<Revised> {
    let revision = schema::next_revision(transaction)?;
    transaction.execute(
        "INSERT INTO company (id, revision, applied) VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, applied = excluded.applied, draft = NULL",
        params![company.as_str(), revision.cast_signed(), document],
    )?;
    transaction.execute("UPDATE mailbox SET retired = 1 WHERE company = ?1", [company.as_str()])?;
    let mut statement = transaction.prepare_cached(
        "INSERT INTO mailbox (company, extension) VALUES (?1, ?2)
         ON CONFLICT (company, extension) DO UPDATE SET retired = 0",
    )?;
    for extension in users {
        statement.execute(params![company.as_str(), extension.as_str()])?;
    }
    let mailboxes = mailboxes_of(transaction, Some(&company))?;
    Ok(Revised { revision, company: Some(company), mailboxes, reason: Some(Reason::Applied) })
}
