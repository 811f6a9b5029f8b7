//! The one thread that writes the database: it takes whatever has gathered and commits it as one transaction.
//!
//! While a commit is on its way to the disk the next group gathers by itself: a lone turn's result is committed at once,
//! and under load a commit carries many.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use tokio::sync::mpsc;
use tracing::error;

use super::{Reply, Shared};
use crate::{
    chain::Chain,
    company::records::{Applied, MailboxRecord},
    model::{CompanyId, Extension, Generation, MailboxId},
    queue::{Settled, StoreError, Urgency},
};

/// Most commands in one transaction: bounds how long the first of a group waits for the last.
const GROUP: usize = 512;

/// Statements of the caller's own; they return how many rows they changed.
pub(super) type Statements = Box<dyn FnOnce(&Transaction<'_>) -> rusqlite::Result<u64> + Send>;

/// A piece of writing.
pub(super) enum Command {
    Intend { mailbox: MailboxId, generation: Generation, intent: Vec<u8>, reply: Reply<()> },
    Settle { mailbox: MailboxId, generation: Generation, settled: Settled, reply: Reply<()> },
    Apply { company: CompanyId, document: Vec<u8>, users: Vec<Extension>, reply: Reply<Applied> },
    Write { write: Statements, reply: Reply<u64> },
}

/// What is to be done in memory, and answered, once the transaction is durable.
enum After {
    Intended { reply: Reply<()> },
    Settled { mailbox: MailboxId, next: Next, reply: Reply<()> },
    Applied { applied: Applied, reply: Reply<Applied> },
    Written { changed: u64, reply: Reply<u64> },
}

/// Where a mailbox stands once its turn is stored.
enum Next {
    Due { due: Option<Timestamp>, urgency: Urgency, to_read: Option<Urgency> },
    Gone,
}

pub(super) struct Writer {
    connection: Connection,
    shared: Arc<Shared>,
    commits: metrics::Counter,
}

impl Writer {
    pub(super) fn new(connection: Connection, shared: Arc<Shared>) -> Self {
        let commits = metrics::counter!("narvaro_store_commits_total");
        Self { connection, shared, commits }
    }

    /// Runs until every sender is gone.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut group = Vec::with_capacity(GROUP);
        while commands.blocking_recv_many(&mut group, GROUP) > 0 {
            self.commit(std::mem::replace(&mut group, Vec::with_capacity(GROUP)));
        }
        if let Err(error) = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            error!(error = %Chain(&error), "The store's log could not be folded into its file at the end");
        }
    }

    fn commit(&mut self, group: Vec<Command>) {
        let now = self.shared.clock.now();
        let mut after = Vec::with_capacity(group.len());
        match self.write_group(group, &mut after, now) {
            Ok(()) => {
                self.commits.increment(1);
                self.finish(after);
            }
            Err(error) => {
                error!(error = %Chain(&error), "The store could not be written");
                metrics::counter!("narvaro_store_commits_failed_total").increment(1);
                self.fail(after, error, now);
            }
        }
    }

    fn write_group(
        &mut self,
        group: Vec<Command>,
        after: &mut Vec<After>,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        // Each command leaves its `After` before the first statement that can fail, so that a failure reaches it.
        let transaction = match self.connection.transaction() {
            Ok(transaction) => transaction,
            Err(error) => {
                for command in group {
                    refuse(command);
                }
                return Err(error);
            }
        };
        let mut failed = None;
        for command in group {
            if failed.is_some() {
                refuse(command);
                continue;
            }
            if let Err(error) = write_one(&transaction, &self.shared, command, after, now) {
                failed = Some(error);
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        transaction.commit()
    }

    fn finish(&self, after: Vec<After>) {
        let now = self.shared.clock.now();
        {
            let mut index = self.shared.index();
            for done in &after {
                match done {
                    After::Applied { applied, .. } => {
                        for mailbox in &applied.mailboxes {
                            index.add(mailbox.id, &mailbox.company, None, Urgency::Soon, now);
                        }
                    }
                    After::Settled { mailbox, next: Next::Gone, .. } => index.remove(*mailbox),
                    After::Settled { mailbox, next: Next::Due { due, urgency, to_read }, .. } => {
                        index.settled(*mailbox, *due, *urgency, *to_read, now);
                    }
                    After::Intended { .. } | After::Written { .. } => {}
                }
            }
        }
        self.shared.changed.notify_waiters();
        for done in after {
            // A receiver that has given up needs no answer.
            match done {
                After::Intended { reply } | After::Settled { reply, .. } => {
                    drop(reply.send(Ok(())));
                }
                After::Applied { applied, reply } => drop(reply.send(Ok(applied))),
                After::Written { changed, reply } => drop(reply.send(Ok(changed))),
            }
        }
    }

    fn fail(&self, after: Vec<After>, error: rusqlite::Error, now: Timestamp) {
        let error = Arc::new(error);
        let unavailable = || StoreError::Unavailable(Box::new(Arc::clone(&error)));
        for done in after {
            match done {
                After::Intended { reply } => drop(reply.send(Err(unavailable()))),
                After::Settled { mailbox, reply, .. } => {
                    self.shared.index().not_settled(mailbox, now);
                    drop(reply.send(Err(unavailable())));
                }
                After::Applied { reply, .. } => drop(reply.send(Err(unavailable()))),
                After::Written { reply, .. } => drop(reply.send(Err(unavailable()))),
            }
        }
        self.shared.changed.notify_waiters();
    }
}

fn refuse(command: Command) {
    match command {
        Command::Intend { reply, .. } | Command::Settle { reply, .. } => {
            drop(reply.send(Err(StoreError::Busy)));
        }
        Command::Apply { reply, .. } => drop(reply.send(Err(StoreError::Busy))),
        Command::Write { reply, .. } => drop(reply.send(Err(StoreError::Busy))),
    }
}

fn write_one(
    transaction: &Transaction<'_>,
    shared: &Shared,
    command: Command,
    after: &mut Vec<After>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    match command {
        Command::Intend { mailbox, generation, intent, reply } => {
            if !shared.index().holds(mailbox, generation, now) {
                drop(reply.send(Err(StoreError::LeaseLost { mailbox, generation })));
                return Ok(());
            }
            after.push(After::Intended { reply });
            transaction
                .prepare_cached("UPDATE mailbox SET intent = ?2 WHERE id = ?1")?
                .execute(params![mailbox.0.cast_signed(), intent])
                .map(drop)
        }
        Command::Settle { mailbox, generation, settled, reply } => {
            if !shared.index().settling(mailbox, generation, now) {
                drop(reply.send(Err(StoreError::LeaseLost { mailbox, generation })));
                return Ok(());
            }
            settle(transaction, mailbox, settled, reply, after)
        }
        Command::Apply { company, document, users, reply } => {
            // The answer is made below; a failure must still reach whoever waits.
            match apply(transaction, &company, &document, &users) {
                Ok(applied) => {
                    after.push(After::Applied { applied, reply });
                    Ok(())
                }
                Err(error) => {
                    after.push(After::Applied { applied: Applied::default(), reply });
                    Err(error)
                }
            }
        }
        Command::Write { write, reply } => match write(transaction) {
            Ok(changed) => {
                after.push(After::Written { changed, reply });
                Ok(())
            }
            Err(error) => {
                after.push(After::Written { changed: 0, reply });
                Err(error)
            }
        },
    }
}

fn settle(
    transaction: &Transaction<'_>,
    mailbox: MailboxId,
    settled: Settled,
    reply: Reply<()>,
    after: &mut Vec<After>,
) -> rusqlite::Result<()> {
    match settled {
        Settled::Next { state, due, urgency, to_read } => {
            after.push(After::Settled { mailbox, next: Next::Due { due, urgency, to_read }, reply });
            transaction
                .prepare_cached(
                    "UPDATE mailbox SET state = ?2, due = ?3, urgency = ?4, intent = NULL WHERE id = ?1",
                )?
                .execute(params![
                    mailbox.0.cast_signed(),
                    state,
                    due.map(Timestamp::as_microsecond),
                    urgency as i64
                ])
                .map(drop)
        }
        Settled::Gone => {
            let deleted = transaction
                .prepare_cached("DELETE FROM mailbox WHERE id = ?1 AND retired = 1")
                .and_then(|mut statement| statement.execute([mailbox.0.cast_signed()]));
            // A user who was taken in again meanwhile stays: what marked the mailbox then is still to be worked off.
            let gone = deleted.as_ref().is_ok_and(|rows| *rows == 1);
            let stays = Next::Due { due: None, urgency: Urgency::Upkeep, to_read: None };
            let next = if gone { Next::Gone } else { stays };
            after.push(After::Settled { mailbox, next, reply });
            deleted.map(drop)
        }
    }
}

fn apply(
    transaction: &Transaction<'_>,
    company: &CompanyId,
    document: &[u8],
    users: &[Extension],
) -> rusqlite::Result<Applied> {
    transaction.execute(
        "INSERT INTO company (id, applied) VALUES (?1, ?2)
         ON CONFLICT (id) DO UPDATE SET applied = excluded.applied, draft = NULL",
        params![company.as_str(), document],
    )?;
    transaction.execute("UPDATE mailbox SET retired = 1 WHERE company = ?1", [company.as_str()])?;
    let mut statement = transaction.prepare_cached(
        "INSERT INTO mailbox (company, extension) VALUES (?1, ?2)
         ON CONFLICT (company, extension) DO UPDATE SET retired = 0",
    )?;
    for extension in users {
        statement.execute(params![company.as_str(), extension.as_str()])?;
    }
    let mailboxes = mailboxes_of(transaction, Some(company))?;
    Ok(Applied { mailboxes })
}

/// Mailboxes of a company, or of all.
pub(super) fn mailboxes_of(
    connection: &Connection,
    company: Option<&CompanyId>,
) -> rusqlite::Result<Vec<MailboxRecord>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, company, extension, retired FROM mailbox WHERE ?1 IS NULL OR company = ?1 ORDER BY id",
    )?;
    let rows = statement.query_map([company.map(CompanyId::as_str)], |row| {
        Ok(MailboxRecord {
            id: MailboxId(row.get::<_, i64>(0)?.cast_unsigned()),
            company: parsed(1, &row.get::<_, String>(1)?)?,
            extension: parsed(2, &row.get::<_, String>(2)?)?,
            retired: row.get(3)?,
        })
    })?;
    rows.collect()
}

/// An identifier read back from the file.
pub(super) fn parsed<T>(column: usize, text: &str) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

/// One value, or `None`.
pub(super) fn maybe<T: rusqlite::types::FromSql>(
    connection: &Connection,
    sql: &str,
    key: i64,
) -> rusqlite::Result<Option<T>> {
    connection.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()
}
