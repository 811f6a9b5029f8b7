//! The one thread that writes the database: it takes whatever has gathered and commits it as one transaction.
//!
//! While a commit is on its way to the disk the next group gathers by itself: a lone turn's result is committed at once,
//! and under load a commit carries many.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use tokio::sync::mpsc;
use tracing::error;

use super::{Reply, Shared, due::DueIndex, schema};
use crate::{
    chain::Chain,
    company::records::MailboxRecord,
    model::{CompanyId, Generation, MailboxId},
    queue::{Mark, Reason, Settled, StoreError, Urgency},
};

/// Most commands in one transaction: bounds how long the first of a group waits for the last.
const GROUP: usize = 512;

/// Statements of the caller's own; they return how many rows they changed.
pub(super) type Statements = Box<dyn FnOnce(&Transaction<'_>) -> rusqlite::Result<u64> + Send>;

/// Statements that give something a new revision.
pub(super) type Revision = Box<dyn FnOnce(&Transaction<'_>) -> rusqlite::Result<Revised> + Send>;

/// What got a new revision.
#[derive(Debug, Default)]
pub(super) struct Revised {
    /// The revision; 0 where nothing has changed after all.
    pub(super) revision: u64,
    /// Of which company; `None`: of none that is there.
    pub(super) company: Option<CompanyId>,
    /// Its mailboxes, and why they are due.
    pub(super) mailboxes: Vec<MailboxRecord>,
    pub(super) reason: Option<Reason>,
}

/// A piece of writing.
pub(super) enum Command {
    Intend { mailbox: MailboxId, generation: Generation, intent: Vec<u8>, reply: Reply<()> },
    Settle { mailbox: MailboxId, generation: Generation, settled: Settled, reply: Reply<()> },
    Revise { write: Revision, reply: Reply<Revised> },
    Write { write: Statements, reply: Reply<u64> },
}

/// What is to be done in memory, and answered, once the transaction is durable.
enum After {
    Intended { reply: Reply<()> },
    Settled { mailbox: MailboxId, next: Next, reply: Reply<()> },
    Revised { revised: Revised, reply: Reply<Revised> },
    Written { changed: u64, reply: Reply<u64> },
}

/// Where a mailbox stands once its turn is stored.
enum Next {
    Due { due: Option<Timestamp>, urgency: Urgency, to_read: Option<Urgency> },
    Gone { revision: u64 },
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
                    After::Revised { revised, .. } => revise(&mut index, revised, now),
                    After::Settled { mailbox, next: Next::Gone { .. }, .. } => index.remove(*mailbox),
                    After::Settled { mailbox, next: Next::Due { due, urgency, to_read }, .. } => {
                        index.settled(*mailbox, *due, *urgency, *to_read, now);
                    }
                    After::Intended { .. } | After::Written { .. } => {}
                }
            }
        }
        self.shared.changed.notify_waiters();
        let newest = after.iter().map(|done| match done {
            After::Revised { revised, .. } => revised.revision,
            After::Settled { next: Next::Gone { revision }, .. } => *revision,
            _ => 0,
        });
        self.shared.revised(newest.max().unwrap_or(0));
        for done in after {
            // A receiver that has given up needs no answer.
            match done {
                After::Intended { reply } | After::Settled { reply, .. } => {
                    drop(reply.send(Ok(())));
                }
                After::Revised { revised, reply } => drop(reply.send(Ok(revised))),
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
                After::Revised { reply, .. } => drop(reply.send(Err(unavailable()))),
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
        Command::Revise { reply, .. } => drop(reply.send(Err(StoreError::Busy))),
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
        Command::Revise { write, reply } => match write(transaction) {
            Ok(revised) => {
                after.push(After::Revised { revised, reply });
                Ok(())
            }
            Err(error) => {
                // A failure must still reach whoever waits.
                after.push(After::Revised { revised: Revised::default(), reply });
                Err(error)
            }
        },
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
            let gone = delete_retired(transaction, mailbox);
            // A user who was taken in again meanwhile stays: what marked the mailbox then is still to be worked off.
            let stays = Next::Due { due: None, urgency: Urgency::Upkeep, to_read: None };
            let next =
                gone.as_ref().ok().copied().flatten().map_or(stays, |revision| Next::Gone { revision });
            after.push(After::Settled { mailbox, next, reply });
            gone.map(drop)
        }
    }
}

/// The new revision once it is deleted; `None` where its user is in the company.
fn delete_retired(transaction: &Transaction<'_>, mailbox: MailboxId) -> rusqlite::Result<Option<u64>> {
    let deleted = transaction
        .prepare_cached("DELETE FROM mailbox WHERE id = ?1 AND retired = 1")?
        .execute([mailbox.0.cast_signed()])?;
    (deleted == 1).then(|| schema::next_revision(transaction)).transpose()
}

/// Brings memory in step with what has got a new revision.
fn revise(index: &mut DueIndex, revised: &Revised, now: Timestamp) {
    if let Some(company) = &revised.company {
        index.revise(company, revised.revision);
    }
    for mailbox in &revised.mailboxes {
        index.add(mailbox.id, &mailbox.company, None, Urgency::Soon, now);
        let retired = mailbox.retired.then_some(Reason::Retired);
        for reason in revised.reason.into_iter().chain(retired) {
            index.enter(Mark::new(mailbox.id, now, reason), None, now);
        }
    }
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
