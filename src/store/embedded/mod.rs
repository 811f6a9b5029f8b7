//! The store of a single process: one SQLite file, nothing to install.
//!
//! Three places, each for what it is good at:
//!
//! - the log of marks ([`mark_log`], written by the thread of [`marker`]): what a notification's 202 rests on;
//! - the database (written by the thread of [`writer`]): companies, and each mailbox's state and due time;
//! - memory ([`due`]): who is due next, built anew at start from the other two.
//!
//! A turn takes marks that are in the log and leaves a state in the database; only when that is on disk are the marks
//! done with. A crash between the two repeats the turn, so the two files need not agree to the second.
//!
//! Edges are leased when they are due and never [ahead](crate::queue::ahead): a lease is a look into memory.
//!
//! The files belong to one process: a second one is refused at start by a lock on `FILE.lock`, because
//! two orders of work in two memories would not be one queue.
//!
//! Why not marks in the database too: a commit costs four times an append in processor time, and now and then a
//! checkpoint or the states of many mailboxes come between a notification and its 202. Measured with
//! `scripts/bench.sh`.

mod due;
mod files;
mod mark_log;
mod marker;
mod records;
mod replicas;
mod schema;
mod trail;
mod writer;

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::{
    Notify,
    mpsc::{self, error::TrySendError},
    oneshot, watch,
};

use self::{
    mark_log::{MarkLog, Record},
    marker::{Append, Marker},
};
use due::DueIndex;
pub use files::Files;
pub use schema::SchemaError;
use writer::{Command, Revised, Writer, maybe, parsed};

use crate::{
    clock::SharedClock,
    model::{CompanyId, MailboxId},
    queue::{
        Depth, DueStore, Lease, Mark, Reason, ReplicaRecord, Settled, Shares, StoreError, Tally, Urgency,
    },
};

/// Commands that may wait for each of the two threads: at 10 µs each the last waits 80 ms, far below Graph's 3 s.
const WAITING: usize = 8_192;

/// Connections for reading beside the writer.
const READERS: usize = 2;

/// How to open the file.
#[derive(Debug, Clone)]
pub struct EmbeddedSettings {
    /// The file; made if absent.
    pub path: PathBuf,
    /// How many mailboxes may be leased at a time.
    pub shares: Shares,
    /// Entries of the audit trail that are kept.
    pub trail_entries: u64,
}

/// Why the file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the store `{path}` is in use by another process")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// There is none.
    #[error("there is no store `{path}`")]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// A copy into it was begun and not finished: part of what it should hold is missing.
    #[error("the store `{path}` is not whole: a copy into it was begun and not finished")]
    Incomplete {
        /// The file.
        path: PathBuf,
    },
    /// The file system says no.
    #[error("the store `{path}` cannot be opened")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its tables are not ours.
    #[error("the store `{path}` cannot be used")]
    Schema {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SchemaError,
    },
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the threads share.
struct Shared {
    index: Mutex<DueIndex>,
    changed: Notify,
    /// The newest revision of all.
    revision: watch::Sender<u64>,
    /// Who is there, and when it said so: nobody else could be.
    announced: Mutex<Option<ReplicaRecord>>,
    clock: SharedClock,
}

impl Shared {
    /// The index. A panic while it was held has been counted where it happened; the index itself is never left half changed by the code here.
    fn index(&self) -> MutexGuard<'_, DueIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announced(&self) -> MutexGuard<'_, Option<ReplicaRecord>> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever follows changes.
    fn revised(&self, revision: u64) {
        self.revision.send_if_modified(|newest| {
            let newer = revision > *newest;
            *newest = revision.max(*newest);
            newer
        });
    }
}

/// The embedded store. Dropping it ends its threads once all that was accepted is written.
pub struct Embedded {
    commands: Option<mpsc::Sender<Command>>,
    appends: Option<mpsc::Sender<Append>>,
    shared: Arc<Shared>,
    readers: Vec<Mutex<Connection>>,
    writer: Option<JoinHandle<()>>,
    marker: Option<JoinHandle<()>>,
    trail_entries: u64,
    _lock: Lock,
}

impl Embedded {
    /// Opens the file, builds the queue, and makes every mailbox due once because the service has started.
    ///
    /// # Errors
    /// [`OpenError`] names the file and what stands in the way.
    pub fn open(settings: &EmbeddedSettings, clock: SharedClock) -> Result<Self, OpenError> {
        let path = &settings.path;
        let lock = lock(path)?;
        let schema = |source: SchemaError| OpenError::Schema { path: path.clone(), source };
        let sqlite = |source: rusqlite::Error| schema(source.into());

        let io = |source| OpenError::Io { path: path.clone(), source };
        private(path).map_err(io)?;
        let mut connection = Connection::open(path).map_err(sqlite)?;
        schema::configure(&connection, schema::WRITER_CACHE_KIB).map_err(sqlite)?;
        schema::prepare(&mut connection).map_err(schema)?;
        if schema::is_incomplete(&connection).map_err(sqlite)? {
            return Err(OpenError::Incomplete { path: path.clone() });
        }
        let epoch = schema::next_epoch(&connection).map_err(sqlite)?;

        let mut index = DueIndex::new(epoch, settings.shares);
        let now = clock.now();
        let (log, records) = MarkLog::open(path).map_err(io)?;
        fill(&mut index, &connection, records, now).map_err(sqlite)?;
        let mut readers = Vec::with_capacity(READERS);
        for _ in 0..READERS {
            let reader = Connection::open(path).map_err(sqlite)?;
            schema::configure(&reader, schema::READER_CACHE_KIB).map_err(sqlite)?;
            readers.push(Mutex::new(reader));
        }

        let revision = schema::revision(&connection).map_err(sqlite)?;
        let shared = Arc::new(Shared {
            index: Mutex::new(index),
            changed: Notify::new(),
            revision: watch::Sender::new(revision),
            announced: Mutex::default(),
            clock,
        });
        let (commands, writes) = mpsc::channel(WAITING);
        let (appends, marks) = mpsc::channel(WAITING);
        let writer = Writer::new(connection, Arc::clone(&shared));
        let marker = Marker::new(log, Arc::clone(&shared));
        let writer = Some(thread("store-writer", move || writer.run(writes)).map_err(io)?);
        let marker = Some(thread("store-marker", move || marker.run(marks)).map_err(io)?);
        Ok(Self {
            commands: Some(commands),
            appends: Some(appends),
            shared,
            readers,
            writer,
            marker,
            trail_entries: settings.trail_entries,
            _lock: lock,
        })
    }

    async fn send<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        ask(self.commands.as_ref(), command).await
    }

    async fn write(
        &self,
        write: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<u64> + Send + 'static,
    ) -> Result<u64, StoreError> {
        self.send(|reply| Command::Write { write: Box::new(write), reply }).await
    }

    /// Writes what gives something a new revision.
    async fn revise(
        &self,
        write: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<Revised> + Send + 'static,
    ) -> Result<Revised, StoreError> {
        self.send(|reply| Command::Revise { write: Box::new(write), reply }).await
    }

    /// Reads from the committed file. Rows are few and in the page cache: cheaper than a hop to another thread.
    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let reader = self
            .readers
            .iter()
            .find_map(|reader| reader.try_lock().ok())
            .unwrap_or_else(|| self.readers[0].lock().unwrap_or_else(PoisonError::into_inner));
        read(&reader).map_err(|error| StoreError::Unavailable(Box::new(error)))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // The log last: what turns leave behind says which marks are worked off.
        // A panic of a thread has been printed by the runtime; there is nobody left to tell.
        self.commands = None;
        drop(self.writer.take().map(JoinHandle::join));
        self.appends = None;
        drop(self.marker.take().map(JoinHandle::join));
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// Gives a thread a piece of work and waits for its answer.
async fn ask<C, T>(
    thread: Option<&mpsc::Sender<C>>,
    work: impl FnOnce(Reply<T>) -> C,
) -> Result<T, StoreError> {
    let (reply, answer) = oneshot::channel();
    thread.ok_or(StoreError::Busy)?.try_send(work(reply)).map_err(|refused| match refused {
        TrySendError::Full(_) => {
            metrics::counter!("narvaro_store_busy_total").increment(1);
            StoreError::Busy
        }
        TrySendError::Closed(_) => StoreError::Unavailable("a thread of the store has ended".into()),
    })?;
    match answer.await {
        Ok(outcome) => outcome,
        Err(gone) => Err(StoreError::Unavailable(Box::new(gone))),
    }
}

/// Held while a store is open. It is let go of by word, not with the file: a child process that is just being started has a copy of that for
/// a moment.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Where it cannot be, it goes with the file.
        let _ = self.0.unlock();
    }
}

fn lock(path: &Path) -> Result<Lock, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(io)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options().create(true).truncate(false).write(true).open(name).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

/// Makes the file, for the service's account only, before SQLite would make it for everybody; its companions get its rights.
fn private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().create(true).truncate(false).write(true).mode(0o600).open(path).map(drop)
}

/// Builds the queue from database and log.
fn fill(
    index: &mut DueIndex,
    connection: &Connection,
    records: Vec<Record>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("SELECT id, company, due, urgency FROM mailbox")?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let mailbox = MailboxId(row.get::<_, i64>(0)?.cast_unsigned());
        let company: CompanyId = parsed(1, &row.get::<_, String>(1)?)?;
        let due: Option<i64> = row.get(2)?;
        let urgency = urgency_of(row.get(3)?);
        index.add(mailbox, &company, due.and_then(|due| Timestamp::from_microsecond(due).ok()), urgency, now);
        all.push(mailbox);
    }
    let mut statement = connection.prepare("SELECT id, revision FROM company")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        index.revise(&parsed(0, &row.get::<_, String>(0)?)?, row.get::<_, i64>(1)?.cast_unsigned());
    }
    for record in records {
        for mark in record.marks {
            index.enter(mark, Some(record.entry), now);
        }
    }
    for mailbox in all {
        index.enter(Mark::new(mailbox, now, Reason::Started), None, now);
    }
    Ok(())
}

fn urgency_of(stored: i64) -> Urgency {
    match stored {
        0 => Urgency::Now,
        1 => Urgency::Soon,
        _ => Urgency::Upkeep,
    }
}

fn after(now: Timestamp, hold: Duration) -> Timestamp {
    now.checked_add(hold).unwrap_or(Timestamp::MAX)
}

#[async_trait]
impl DueStore for Embedded {
    async fn mark(&self, mut marks: Vec<Mark>) -> Result<Tally, StoreError> {
        let tally = self.shared.index().sift(&mut marks);
        if !marks.is_empty() {
            ask(self.appends.as_ref(), |reply| Append { marks, reply }).await?;
        }
        Ok(tally)
    }

    async fn lease(&self, most: usize, hold: Duration) -> Result<Vec<Lease>, StoreError> {
        let now = self.shared.clock.now();
        let taken = self.shared.index().take(most, now, after(now, hold));
        let leases = self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT state, intent FROM mailbox WHERE id = ?1")?;
            let mut leases = Vec::with_capacity(taken.len());
            for taken in &taken {
                let (state, intent) = statement
                    .query_row([taken.mailbox.0.cast_signed()], |row| Ok((row.get(0)?, row.get(1)?)))?;
                leases.push(Lease {
                    ahead: None,
                    mailbox: taken.mailbox,
                    company: taken.company.clone(),
                    revision: taken.revision,
                    generation: taken.generation,
                    until: taken.until,
                    gathered: taken.gathered.clone(),
                    reads: taken.reads,
                    state,
                    intent,
                });
            }
            Ok(leases)
        });
        if leases.is_err() {
            let mut index = self.shared.index();
            for taken in taken {
                index.release(taken.mailbox, taken.generation, now);
            }
        }
        leases
    }

    async fn wait(&self) {
        loop {
            let changed = self.shared.changed.notified();
            let wake_at = self.shared.index().wake_at();
            match wake_at {
                Some(at) if at <= self.shared.clock.now() => return,
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = self.shared.clock.sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }

    async fn extend(&self, lease: &Lease, hold: Duration) -> Result<Timestamp, StoreError> {
        let now = self.shared.clock.now();
        let until = after(now, hold);
        if self.shared.index().extend(lease.mailbox, lease.generation, now, until) {
            Ok(until)
        } else {
            Err(lost(lease))
        }
    }

    async fn begin_reading(&self, lease: &Lease) -> Result<bool, StoreError> {
        let now = self.shared.clock.now();
        let begun = self.shared.index().begin_reading(lease.mailbox, lease.generation, now);
        if begun == Some(true) {
            // There is room for another one to show.
            self.shared.changed.notify_waiters();
        }
        begun.ok_or_else(|| lost(lease))
    }

    async fn intend(&self, lease: &Lease, intent: Vec<u8>) -> Result<(), StoreError> {
        let (mailbox, generation) = (lease.mailbox, lease.generation);
        self.send(|reply| Command::Intend { mailbox, generation, intent, reply }).await
    }

    async fn settle(&self, lease: &Lease, settled: Settled) -> Result<(), StoreError> {
        let (mailbox, generation) = (lease.mailbox, lease.generation);
        self.send(|reply| Command::Settle { mailbox, generation, settled, reply }).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        let now = self.shared.clock.now();
        let released = self.shared.index().release(lease.mailbox, lease.generation, now);
        self.shared.changed.notify_waiters();
        if released { Ok(()) } else { Err(lost(lease)) }
    }

    async fn look(&self, mailbox: MailboxId) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|connection| {
            maybe(connection, "SELECT state FROM mailbox WHERE id = ?1", mailbox.0.cast_signed())
        })
    }

    async fn depth(&self) -> Result<Depth, StoreError> {
        Ok(self.shared.index().depth(self.shared.clock.now()))
    }
}

fn lost(lease: &Lease) -> StoreError {
    StoreError::LeaseLost { mailbox: lease.mailbox, generation: lease.generation }
}
