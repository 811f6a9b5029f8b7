//! The store's files without a service: to be read as a whole, written as a whole, and checked.
//!
//! No thread is started and no start is counted. Opened to be read, nothing is changed but what SQLite itself does with a
//! log that a crash has left behind.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, Row, Transaction, params};

use super::{
    Lock, OpenError, lock,
    mark_log::{MarkLog, not_worked_off},
    private, records, schema, trail, urgency_of,
    writer::parsed,
};
use crate::{
    company::{
        records::{CompanyRecord, MailboxRecord},
        trail::{JobRecord, TrailEntry},
    },
    counted::counted,
    model::{CompanyId, Extension, Generation, MailboxId},
    queue::{Gathered, Mark, StoreError},
    store::portable::{BeginError, Fault, Numbers, Piece, Portable, SpentTicket, StoredJob, StoredMailbox},
};

/// Tables that hold something, and what they hold.
const TABLES: [(&str, &str, &str); 5] = [
    ("company", "company", "companies"),
    ("mailbox", "mailbox", "mailboxes"),
    ("trail", "entry of the audit trail", "entries of the audit trail"),
    ("job", "job", "jobs"),
    ("spent_ticket", "spent consent link", "spent consent links"),
];

/// What SQLite itself says of a damaged file: more lines than these say nothing new.
const MOST_TOLD: usize = 20;

/// The files of an embedded store, held so that no service starts on them.
pub struct Files {
    path: PathBuf,
    connection: Mutex<Connection>,
    /// What is not worked off, once it has been read; writing makes it be read anew.
    waiting: Mutex<Option<HashMap<MailboxId, Gathered>>>,
    /// The log of marks while it is written, and the first entry of the copy.
    log: Mutex<Option<(MarkLog, u64)>>,
    _lock: Lock,
}

impl Files {
    /// Opens what is there, to read it.
    ///
    /// # Errors
    /// [`OpenError`], also where there is nothing, or what an earlier version wrote.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        if !path.exists() {
            return Err(OpenError::Absent { path: path.to_owned() });
        }
        let lock = lock(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connect = || -> Result<Connection, schema::SchemaError> {
            let connection = Connection::open_with_flags(path, flags)?;
            connection.pragma_update(None, "query_only", true)?;
            schema::check(&connection)?;
            Ok(connection)
        };
        let connection = connect().map_err(|source| OpenError::Schema { path: path.to_owned(), source })?;
        Ok(Self::over(path, connection, lock))
    }

    /// Opens it to be written, and makes it where there is nothing.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn create(path: &Path) -> Result<Self, OpenError> {
        let lock = lock(path)?;
        private(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        let connect = || -> Result<Connection, schema::SchemaError> {
            let mut connection = Connection::open(path)?;
            if schema::is_blank(&connection)? {
                schema::configure(&connection, schema::WRITER_CACHE_KIB)?;
                schema::prepare(&mut connection)?;
            } else {
                schema::check(&connection)?;
                schema::configure(&connection, schema::WRITER_CACHE_KIB)?;
            }
            Ok(connection)
        };
        let connection = connect().map_err(|source| OpenError::Schema { path: path.to_owned(), source })?;
        Ok(Self::over(path, connection, lock))
    }

    fn over(path: &Path, connection: Connection, lock: Lock) -> Self {
        Self {
            path: path.to_owned(),
            connection: Mutex::new(connection),
            waiting: Mutex::default(),
            log: Mutex::default(),
            _lock: lock,
        }
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        held(&self.connection)
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        read(&self.connection()).map_err(unavailable)
    }

    fn write<T>(&self, write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(unavailable)?;
        let written = write(&transaction).map_err(unavailable)?;
        transaction.commit().map_err(unavailable)?;
        Ok(written)
    }

    /// What has gathered for a mailbox and is not worked off.
    fn fill_in(&self, mailboxes: &mut [StoredMailbox]) -> Result<(), StoreError> {
        let mut waiting = held(&self.waiting);
        let known = match &mut *waiting {
            Some(known) => known,
            unread => unread.insert(gathered(&self.path).map_err(unavailable)?),
        };
        for mailbox in mailboxes {
            mailbox.gathered = known.get(&mailbox.record.id).cloned().unwrap_or_default();
        }
        Ok(())
    }

    fn put_marks(&self, mailboxes: &[StoredMailbox]) -> Result<(), StoreError> {
        let marks: Vec<Mark> =
            mailboxes.iter().flat_map(|mailbox| mailbox.gathered.marks(mailbox.record.id)).collect();
        if marks.is_empty() {
            return Ok(());
        }
        *held(&self.waiting) = None;
        let mut log = held(&self.log);
        let (log, first) = log.as_mut().ok_or_else(|| unavailable("no copy into the store was begun"))?;
        // All of what is copied is still to be worked off.
        log.append(&marks, Some(*first)).map(drop).map_err(unavailable)
    }
}

fn held<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Unavailable(error.into())
}

fn gathered(path: &Path) -> std::io::Result<HashMap<MailboxId, Gathered>> {
    let mut all: HashMap<MailboxId, Gathered> = HashMap::new();
    for mark in not_worked_off(path)?.into_iter().flat_map(|record| record.marks) {
        all.entry(mark.mailbox).or_default().add(mark);
    }
    Ok(all)
}

fn mailbox(row: &Row<'_>) -> rusqlite::Result<StoredMailbox> {
    let due: Option<i64> = row.get(4)?;
    Ok(StoredMailbox {
        record: MailboxRecord {
            id: MailboxId(row.get::<_, i64>(0)?.cast_unsigned()),
            company: parsed(1, &row.get::<_, String>(1)?)?,
            extension: parsed(2, &row.get::<_, String>(2)?)?,
            retired: row.get(3)?,
        },
        due: due.and_then(|due| Timestamp::from_microsecond(due).ok()),
        urgency: urgency_of(row.get(5)?),
        intent: row.get(6)?,
        state: row.get(7)?,
        gathered: Gathered::default(),
    })
}

fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

/// What is in it, in words; `None`: nothing.
fn has(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let mut parts = Vec::new();
    for (table, one, many) in TABLES {
        let rows: i64 =
            connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
        if rows > 0 {
            parts.push(counted(rows.cast_unsigned(), one, many));
        }
    }
    Ok((!parts.is_empty()).then(|| parts.join(", ")))
}

fn clear(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    for (table, ..) in TABLES {
        transaction.execute(&format!("DELETE FROM {table}"), [])?;
    }
    transaction.execute("DELETE FROM job_mailbox", []).map(drop)
}

fn put_companies(transaction: &Transaction<'_>, companies: Vec<CompanyRecord>) -> rusqlite::Result<()> {
    let mut add = transaction.prepare_cached(
        "INSERT INTO company (id, revision, applied, draft, standing) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for CompanyRecord { id, revision, applied, draft, standing } in companies {
        add.execute(params![id.as_str(), revision.cast_signed(), applied, draft, standing])?;
    }
    Ok(())
}

fn put_mailboxes(transaction: &Transaction<'_>, mailboxes: Vec<StoredMailbox>) -> rusqlite::Result<()> {
    let mut add = transaction.prepare_cached(
        "INSERT INTO mailbox (id, company, extension, retired, due, urgency, intent, state)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for StoredMailbox { record, state, intent, due, urgency, gathered: _ } in mailboxes {
        let MailboxRecord { id, company, extension, retired } = record;
        add.execute(params![
            id.0.cast_signed(),
            company.as_str(),
            extension.as_str(),
            retired,
            due.map(Timestamp::as_microsecond),
            urgency as i64,
            intent,
            state
        ])?;
    }
    Ok(())
}

fn put_trail(transaction: &Transaction<'_>, entries: Vec<TrailEntry>) -> rusqlite::Result<()> {
    let mut add = transaction.prepare_cached(
        "INSERT INTO trail (number, at, who, what, company, outcome) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for TrailEntry { number, at, who, what, company, outcome } in entries {
        let company = company.as_ref().map(CompanyId::as_str);
        add.execute(params![number.cast_signed(), at.as_microsecond(), who, what, company, outcome])?;
    }
    Ok(())
}

fn put_jobs(transaction: &Transaction<'_>, jobs: Vec<StoredJob>) -> rusqlite::Result<()> {
    let mut add = transaction
        .prepare_cached("INSERT INTO job (id, document, version, cancelled) VALUES (?1, ?2, ?3, ?4)")?;
    let mut add_left =
        transaction.prepare_cached("INSERT INTO job_mailbox (job, mailbox) VALUES (?1, ?2)")?;
    for StoredJob { record: JobRecord { id, document, version, cancelled }, left } in jobs {
        add.execute(params![id, document, version.cast_signed(), cancelled])?;
        for mailbox in left {
            add_left.execute(params![id, mailbox.0.cast_signed()])?;
        }
    }
    Ok(())
}

fn put_tickets(transaction: &Transaction<'_>, tickets: Vec<SpentTicket>) -> rusqlite::Result<()> {
    let mut add = transaction.prepare_cached("INSERT INTO spent_ticket (ticket, expires) VALUES (?1, ?2)")?;
    for SpentTicket { ticket, expires } in tickets {
        add.execute(params![ticket, expires.as_second()])?;
    }
    Ok(())
}

#[async_trait]
impl Portable for Files {
    fn name(&self) -> String {
        format!("embedded:{}", self.path.display())
    }

    async fn in_use(&self) -> Result<Option<String>, StoreError> {
        // Nobody else can have it: the lock is ours.
        Ok(None)
    }

    async fn is_incomplete(&self) -> Result<bool, StoreError> {
        self.read(schema::is_incomplete)
    }

    async fn numbers(&self) -> Result<Numbers, StoreError> {
        self.read(|connection| {
            // Each start has its own upper half.
            let next_start = (u64::from(schema::epoch(connection)?) + 1) << 32;
            Ok(Numbers {
                mailbox: schema::highest_number(connection, "mailbox")?,
                trail: schema::highest_number(connection, "trail")?,
                generation: Generation(next_start - 1),
                revision: schema::revision(connection)?,
            })
        })
    }

    async fn companies(&self) -> Result<Vec<CompanyRecord>, StoreError> {
        self.read(records::companies)
    }

    async fn mailboxes_after(
        &self,
        after: Option<MailboxId>,
        most: usize,
    ) -> Result<Vec<StoredMailbox>, StoreError> {
        let after = after.map_or(i64::MIN, |after| after.0.cast_signed());
        let mut mailboxes: Vec<StoredMailbox> = self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, company, extension, retired, due, urgency, intent, state FROM mailbox
                 WHERE id > ?1 ORDER BY id LIMIT ?2",
            )?;
            statement.query_map([after, limit(most)], mailbox)?.collect()
        })?;
        self.fill_in(&mut mailboxes)?;
        Ok(mailboxes)
    }

    async fn trail_after(&self, after: Option<u64>, most: usize) -> Result<Vec<TrailEntry>, StoreError> {
        let after = after.map_or(i64::MIN, u64::cast_signed);
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT number, at, who, what, company, outcome FROM trail
                 WHERE number > ?1 ORDER BY number LIMIT ?2",
            )?;
            statement.query_map([after, limit(most)], trail::entry)?.collect()
        })
    }

    async fn jobs(&self) -> Result<Vec<StoredJob>, StoreError> {
        self.read(|connection| {
            let mut jobs = connection
                .prepare_cached("SELECT id, document, version, cancelled FROM job ORDER BY number")?;
            let mut left = connection
                .prepare_cached("SELECT mailbox FROM job_mailbox WHERE job = ?1 ORDER BY mailbox")?;
            let records = jobs.query_map([], trail::job_of)?;
            records
                .map(|record| {
                    let record = record?;
                    let number = |row: &Row<'_>| row.get::<_, i64>(0);
                    let left = left.query_map([&record.id], number)?;
                    let left = left.map(|id| id.map(|id| MailboxId(id.cast_unsigned())));
                    Ok(StoredJob { left: left.collect::<rusqlite::Result<_>>()?, record })
                })
                .collect()
        })
    }

    async fn tickets(&self) -> Result<Vec<SpentTicket>, StoreError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT ticket, expires FROM spent_ticket ORDER BY ticket")?;
            let tickets = statement.query_map([], |row| {
                let expires = Timestamp::from_second(row.get(1)?).unwrap_or(Timestamp::MAX);
                Ok(SpentTicket { ticket: row.get(0)?, expires })
            })?;
            tickets.collect()
        })
    }

    async fn faults(&self) -> Result<Vec<Fault>, StoreError> {
        let mut faults = self.read(|connection| {
            let mut faults = damage(connection)?;
            faults.extend(misspelt(connection)?);
            Ok(faults)
        })?;
        if let Err(error) = not_worked_off(&self.path) {
            faults.push(Fault::new(
                "the log of marks",
                format!("it cannot be read: {error}"),
                "mend the file's rights, or move it away: every start asks each calendar what has changed",
            ));
        }
        Ok(faults)
    }

    async fn begin(&self, numbers: &Numbers) -> Result<(), BeginError> {
        let not_empty = self.write(|transaction| {
            if schema::is_incomplete(transaction)? {
                clear(transaction)?;
            } else if let Some(has) = has(transaction)? {
                return Ok(Some(has));
            }
            schema::set_incomplete(transaction, true)?;
            schema::raise_number(transaction, "mailbox", numbers.mailbox)?;
            schema::raise_number(transaction, "trail", numbers.trail)?;
            let epoch = u32::try_from(numbers.generation.0 >> 32).unwrap_or(u32::MAX - 1);
            schema::raise_epoch(transaction, epoch)?;
            schema::raise_revision(transaction, numbers.revision)?;
            Ok(None)
        })?;
        if let Some(has) = not_empty {
            return Err(BeginError::NotEmpty { has });
        }
        let (mut log, _) = MarkLog::open(&self.path).map_err(unavailable)?;
        // Of what was in it before nothing is needed any more.
        log.close(None).map_err(unavailable)?;
        let first = log.next_entry();
        *held(&self.log) = Some((log, first));
        *held(&self.waiting) = None;
        Ok(())
    }

    async fn put(&self, piece: Piece) -> Result<(), StoreError> {
        if let Piece::Mailboxes(mailboxes) = &piece {
            self.put_marks(mailboxes)?;
        }
        self.write(|transaction| match piece {
            Piece::Companies(companies) => put_companies(transaction, companies),
            Piece::Mailboxes(mailboxes) => put_mailboxes(transaction, mailboxes),
            Piece::Trail(entries) => put_trail(transaction, entries),
            Piece::Jobs(jobs) => put_jobs(transaction, jobs),
            Piece::Tickets(tickets) => put_tickets(transaction, tickets),
        })
    }

    async fn complete(&self) -> Result<(), StoreError> {
        *held(&self.log) = None;
        self.write(|transaction| schema::set_incomplete(transaction, false))
    }
}

/// What SQLite finds in its own file.
fn damage(connection: &Connection) -> rusqlite::Result<Vec<Fault>> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({MOST_TOLD})"))?;
    let said: Vec<String> =
        statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<_>>()?;
    let told = said.into_iter().filter(|said| said != "ok");
    let fault = |said: String| {
        Fault::new(
            "the database",
            said,
            "go back to the newest copy of the files that is whole; what has changed since is read anew",
        )
    };
    Ok(told.map(fault).collect())
}

/// Ids and times that this version cannot read.
fn misspelt(connection: &Connection) -> rusqlite::Result<Vec<Fault>> {
    let mut faults = Vec::new();
    let mut note = |place: String, said: String| {
        let remedy = "go back to a copy of the files from before; no version of the service writes this";
        faults.push(Fault::new(place, said, remedy));
    };
    let mut companies = connection.prepare("SELECT id FROM company")?;
    for id in companies.query_map([], |row| row.get::<_, String>(0))? {
        if let Err(error) = id?.parse::<CompanyId>() {
            note("a company".to_owned(), error.to_string());
        }
    }
    let mut mailboxes = connection.prepare("SELECT id, company, extension, due, urgency FROM mailbox")?;
    let mut rows = mailboxes.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let place = || format!("mailbox {id}");
        if let Err(error) = row.get::<_, String>(1)?.parse::<CompanyId>() {
            note(place(), error.to_string());
        }
        if let Err(error) = row.get::<_, String>(2)?.parse::<Extension>() {
            note(place(), error.to_string());
        }
        let due: Option<i64> = row.get(3)?;
        if let Some(due) = due.filter(|due| Timestamp::from_microsecond(*due).is_err()) {
            note(place(), format!("it is due at {due}, which is no time"));
        }
        let urgency: i64 = row.get(4)?;
        if !(0..=2).contains(&urgency) {
            note(place(), format!("its urgency is {urgency}, which is none"));
        }
    }
    Ok(faults)
}
