//! The store without a service: read as a whole, and written as a whole.
//!
//! Nobody signs on, nothing is listened to, and opened to be read nothing is changed. What a lease holds is read as what waits,
//! since nobody will settle it.
//!
//! A copy that is written has a name, which stands in `meta` until it is complete: a service does not start meanwhile,
//! and of two copies into one store the one that began first is refused its next step.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use redis::Value;
use tokio::sync::Mutex;

use super::{
    OpenError, check,
    faults::{find_faults, find_obstacles},
    fresh_name, keys,
    line::{entries, gathered, lines_of},
    link::Link,
    records, replicas,
    script::Script,
    settings::LinkSettings,
    trail,
    value::{Answer, Args, number},
};
use crate::{
    company::{
        records::{CompanyRecord, MailboxRecord},
        trail::TrailEntry,
    },
    counted::counted,
    model::{Generation, MailboxId},
    queue::{GONE_AFTER, Gathered, StoreError, Urgency},
    store::portable::{BeginError, Fault, Numbers, Piece, Portable, SpentTicket, StoredJob, StoredMailbox},
};

/// Mailboxes in one answer: with states of 100 KB, 10 MB.
const READ: usize = 100;

/// Parcels of the inbox in one answer: of up to a thousand entries of 250 bytes each, 4 MB.
const PARCELS: usize = 16;

/// Numbers that are gone through in one call: some 3 ms of Redis.
pub(super) const NUMBERS: u64 = 500;

/// Things in one call that writes.
const WRITTEN: usize = 300;

/// Bytes after which a call that writes takes nothing more.
const FULL: usize = 1_000_000;

/// The store in Redis, as nobody works on it.
pub struct AtRest {
    link: Link,
    /// `{narvaro}:`.
    pub(super) prefix: String,
    pub(super) database: u32,
    name: String,
    /// What the copy is called that is written through this.
    copying: String,
    /// Which mailboxes there are, by number, once that has been read; writing makes it be read anew.
    roll: Mutex<Option<Arc<Vec<MailboxRecord>>>>,
    /// What is on its way to mailboxes, once that has been read; clearing makes it be read anew.
    inbox: Mutex<Option<Arc<HashMap<MailboxId, Gathered>>>>,
}

impl AtRest {
    /// Connects and looks whether this Redis will do. `name` is what to call it in messages.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(settings: &LinkSettings, prefix: &str, name: String) -> Result<Self, OpenError> {
        let link = Link::open(settings).await?;
        check::check(&link).await?;
        let prefix = format!("{{{prefix}}}:");
        Ok(Self {
            link,
            prefix,
            database: settings.database,
            name,
            copying: fresh_name(),
            roll: Mutex::default(),
            inbox: Mutex::default(),
        })
    }

    pub(super) async fn run(&self, script: &Script, args: Args) -> Result<Value, StoreError> {
        let answer = self.link.run(script, &self.prefix, args.into_inner()).await;
        answer.map_err(|error| StoreError::Unavailable(Box::new(error)))
    }

    /// What every call that writes begins with.
    fn writing(&self) -> Args {
        Args::default().add(&self.copying)
    }

    /// Runs a script that answers 0 where another copy was begun.
    async fn write(&self, script: &Script, args: Args) -> Result<(), StoreError> {
        match number(self.run(script, args).await?)? {
            1 => Ok(()),
            _ => Err(StoreError::Unavailable("another copy into it was begun meanwhile".into())),
        }
    }

    /// Which mailboxes there are, by number.
    pub(super) async fn roll(&self) -> Result<Arc<Vec<MailboxRecord>>, StoreError> {
        let mut known = self.roll.lock().await;
        if let Some(roll) = &*known {
            return Ok(Arc::clone(roll));
        }
        let mut roll = Vec::new();
        for (company, _) in records::revisions(self.run(&keys::REVISIONS, Args::default()).await?)? {
            let users = self.run(&keys::USERS, Args::default().add(&company)).await?;
            roll.extend(records::users(&company, Answer::list(users)?)?);
        }
        roll.sort_unstable_by_key(|mailbox| mailbox.id);
        Ok(Arc::clone(known.insert(Arc::new(roll))))
    }

    /// What `meta` says of numbers, the time, and how many mailboxes it says that there are.
    pub(super) async fn counted_on(&self) -> Result<(Numbers, u64), StoreError> {
        let mut answer = Answer::list(self.run(&keys::NUMBERS, Args::default()).await?)?;
        let (mailbox, trail) = (answer.number()?, answer.number()?);
        let (generation, revision, now) = (answer.number()?, answer.number()?, answer.number()?);
        let generation = Generation(generation.max(now));
        Ok((Numbers { mailbox, trail, generation, revision }, answer.number()?))
    }

    /// What is on its way to mailboxes.
    async fn inbox(&self) -> Result<Arc<HashMap<MailboxId, Gathered>>, StoreError> {
        let mut known = self.inbox.lock().await;
        if let Some(inbox) = &*known {
            return Ok(Arc::clone(inbox));
        }
        let mut inbox: HashMap<MailboxId, Gathered> = HashMap::new();
        let mut read = 0;
        loop {
            let mut answer =
                Answer::list(self.run(&keys::INBOX, Args::default().add(read).add(PARCELS)).await?)?;
            if answer.is_empty() {
                return Ok(Arc::clone(known.insert(Arc::new(inbox))));
            }
            while !answer.is_empty() {
                read += 1;
                let (came_at, parcel) = (answer.time()?, answer.text()?);
                for (mailbox, line) in entries(&parcel) {
                    inbox.entry(mailbox).or_default().merge(&gathered(line, came_at));
                }
            }
        }
    }

    async fn read(&self, records: &[MailboxRecord]) -> Result<Vec<StoredMailbox>, StoreError> {
        let inbox = self.inbox().await?;
        let args = records.iter().fold(Args::default(), |args, record| args.add(record.id.0));
        let mut answer = Answer::list(self.run(&keys::MAILBOXES, args).await?)?;
        records
            .iter()
            .map(|record| mailbox(record.clone(), answer.inner_list()?, inbox.get(&record.id)))
            .collect()
    }

    async fn put_companies(&self, companies: Vec<CompanyRecord>) -> Result<(), StoreError> {
        let mut call = Call::of(self, &keys::PUT_COMPANIES, self.writing());
        for CompanyRecord { id, revision, applied, draft, standing } in companies {
            let args = Args::default().add(id).add(revision);
            call.add([applied, draft, standing].into_iter().fold(args, with)).await?;
        }
        call.end().await
    }

    async fn put_mailboxes(&self, mailboxes: Vec<StoredMailbox>) -> Result<(), StoreError> {
        *self.roll.lock().await = None;
        let generation = self.counted_on().await?.0.generation;
        let mut call = Call::of(self, &keys::PUT_MAILBOXES, self.writing().add(generation.0));
        for StoredMailbox { record, state, intent, due, urgency, gathered } in mailboxes {
            let MailboxRecord { id, company, extension, retired } = record;
            let urgent = gathered.reasons.iter().map(|reason| reason.urgency() as u8).min();
            let args = Args::default()
                .add(id.0)
                .add(company)
                .add(extension)
                .add(if retired { "r" } else { "" })
                .maybe(due.map(Timestamp::as_microsecond))
                .add(urgency as u8)
                .maybe(gathered.since.map(Timestamp::as_microsecond))
                .maybe(urgent)
                .add(lines(id, &gathered))
                .bytes(state);
            call.add(with(args, intent)).await?;
        }
        call.end().await
    }

    async fn put_jobs(&self, jobs: Vec<StoredJob>) -> Result<(), StoreError> {
        for StoredJob { record, left } in jobs {
            let args = self.writing().add(&record.id).bytes(record.document);
            let args = args.add(record.version).add(u8::from(record.cancelled));
            let args = left.iter().fold(args, |args, mailbox| args.add(mailbox.0));
            self.write(&keys::PUT_JOB, args).await?;
        }
        Ok(())
    }

    async fn clear(&self, last: u64) -> Result<(), StoreError> {
        *self.roll.lock().await = None;
        *self.inbox.lock().await = None;
        for (first, last) in pieces(last) {
            self.write(&keys::CLEAR_MAILBOXES, self.writing().add(first).add(last)).await?;
        }
        self.write(&keys::CLEAR, self.writing()).await
    }
}

/// A call that gathers things until it is full.
struct Call<'a> {
    store: &'a AtRest,
    script: &'a Script,
    head: Args,
    things: usize,
    args: Args,
}

impl<'a> Call<'a> {
    fn of(store: &'a AtRest, script: &'a Script, head: Args) -> Self {
        Self { store, script, args: head.clone(), head, things: 0 }
    }

    async fn add(&mut self, thing: Args) -> Result<(), StoreError> {
        self.args = std::mem::take(&mut self.args).append(thing);
        self.things += 1;
        if self.things == WRITTEN || self.args.size() > FULL { self.send().await } else { Ok(()) }
    }

    async fn send(&mut self) -> Result<(), StoreError> {
        let args = std::mem::replace(&mut self.args, self.head.clone());
        self.things = 0;
        self.store.write(self.script, args).await
    }

    async fn end(mut self) -> Result<(), StoreError> {
        if self.things > 0 { self.send().await } else { Ok(()) }
    }
}

/// From 1 to `last`, in pieces: the first and the last of each.
pub(super) fn pieces(last: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..last.div_ceil(NUMBERS))
        .map(move |piece| (piece * NUMBERS + 1, last.min(piece.saturating_add(1) * NUMBERS)))
}

fn with(args: Args, document: Option<Vec<u8>>) -> Args {
    args.add(u8::from(document.is_some())).bytes(document.unwrap_or_default())
}

/// What has gathered, as it waits.
fn lines(mailbox: MailboxId, gathered: &Gathered) -> String {
    let lines: String =
        gathered.marks(mailbox).iter().map(|mark| lines_of(mark).0).map(|line| line + "\n").collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

fn mailbox(
    record: MailboxRecord,
    mut answer: Answer,
    announced: Option<&Gathered>,
) -> Result<StoredMailbox, StoreError> {
    let (due, urgency) = (answer.time()?, answer.number()?);
    let since = answer.time()?.into_iter().chain(answer.time()?).min();
    let waiting = answer.text()? + &answer.text()?;
    let mut gathered = if waiting.is_empty() { Gathered::default() } else { gathered(&waiting, since) };
    if let Some(announced) = announced {
        gathered.merge(announced);
    }
    Ok(StoredMailbox {
        record,
        due,
        urgency: match urgency {
            0 => Urgency::Now,
            1 => Urgency::Soon,
            _ => Urgency::Upkeep,
        },
        gathered,
        state: answer.bytes()?,
        intent: answer.maybe_bytes()?,
    })
}

/// What is in it, in words.
fn has(counts: Value) -> Result<String, StoreError> {
    let mut counts = Answer::list(counts)?;
    let mut parts = Vec::new();
    for (one, many) in [
        ("company", "companies"),
        ("mailbox", "mailboxes"),
        ("entry of the audit trail", "entries of the audit trail"),
        ("job", "jobs"),
        ("spent consent link", "spent consent links"),
    ] {
        let count = counts.number()?;
        if count > 0 {
            parts.push(counted(count, one, many));
        }
    }
    Ok(parts.join(", "))
}

#[async_trait]
impl Portable for AtRest {
    fn name(&self) -> String {
        self.name.clone()
    }

    async fn in_use(&self) -> Result<Option<String>, StoreError> {
        let args = Args::default().add("").add(GONE_AFTER.as_micros());
        let alive = replicas::alive(self.run(&keys::REPLICAS, args).await?)?;
        let names: Vec<String> = alive.into_iter().map(|alive| format!("`{}`", alive.replica.name)).collect();
        let told = || {
            format!(
                "{} at work on it: {}",
                counted(names.len(), "process is", "processes are"),
                names.join(", ")
            )
        };
        Ok((!names.is_empty()).then(told))
    }

    async fn is_incomplete(&self) -> Result<bool, StoreError> {
        Ok(number(self.run(&keys::INCOMPLETE, Args::default()).await?)? == 1)
    }

    async fn numbers(&self) -> Result<Numbers, StoreError> {
        let (mut numbers, _) = self.counted_on().await?;
        if let Some(last) = self.roll().await?.last() {
            numbers.mailbox = numbers.mailbox.max(last.id.0);
        }
        for (first, last) in pieces(numbers.mailbox) {
            let newest = self.run(&keys::NEWEST, Args::default().add(first).add(last)).await?;
            numbers.generation = numbers.generation.max(Generation(number(newest)?));
        }
        Ok(numbers)
    }

    async fn companies(&self) -> Result<Vec<CompanyRecord>, StoreError> {
        records::companies(self.run(&keys::COMPANIES, Args::default()).await?)
    }

    async fn mailboxes_after(
        &self,
        after: Option<MailboxId>,
        most: usize,
    ) -> Result<Vec<StoredMailbox>, StoreError> {
        let roll = self.roll().await?;
        let from = roll.partition_point(|mailbox| after.is_some_and(|after| mailbox.id <= after));
        let wanted = &roll[from..roll.len().min(from.saturating_add(most))];
        let mut mailboxes = Vec::with_capacity(wanted.len());
        for piece in wanted.chunks(READ) {
            mailboxes.extend(self.read(piece).await?);
        }
        Ok(mailboxes)
    }

    async fn trail_after(&self, after: Option<u64>, most: usize) -> Result<Vec<TrailEntry>, StoreError> {
        let args = Args::default().add(after.map_or(-1, u64::cast_signed)).add(most);
        let mut answer = Answer::list(self.run(&keys::TRAIL_AFTER, args).await?)?;
        let mut entries = Vec::new();
        while !answer.is_empty() {
            entries.push(trail::entry(&answer.text()?)?);
        }
        entries.reverse();
        Ok(entries)
    }

    async fn jobs(&self) -> Result<Vec<StoredJob>, StoreError> {
        let mut jobs = Vec::new();
        for record in trail::jobs(self.run(&keys::JOBS, Args::default()).await?)? {
            let left = self.run(&keys::LEFT_OF_JOB, Args::default().add(&record.id)).await?;
            jobs.push(StoredJob { record, left: trail::left(left)? });
        }
        Ok(jobs)
    }

    async fn tickets(&self) -> Result<Vec<SpentTicket>, StoreError> {
        let mut answer = Answer::list(self.run(&keys::TICKETS, Args::default()).await?)?;
        let mut tickets = Vec::new();
        while !answer.is_empty() {
            let ticket = answer.text()?;
            let expires = answer.time()?.map(Timestamp::as_second).unwrap_or(i64::MAX);
            let expires = Timestamp::from_second(expires).unwrap_or(Timestamp::MAX);
            tickets.push(SpentTicket { ticket, expires });
        }
        tickets.sort_unstable();
        Ok(tickets)
    }

    async fn obstacles(&self) -> Result<Vec<Fault>, StoreError> {
        find_obstacles(self).await
    }

    async fn faults(&self) -> Result<Vec<Fault>, StoreError> {
        find_faults(self).await
    }

    async fn begin(&self, numbers: &Numbers) -> Result<(), BeginError> {
        let Numbers { mailbox, trail, generation, revision } = numbers;
        let args = self.writing().add(mailbox).add(trail).add(generation.0).add(revision);
        match self.run(&keys::BEGIN, args).await? {
            counts @ Value::Array(_) => Err(BeginError::NotEmpty { has: has(counts)? }),
            last => Ok(self.clear(number(last)?).await?),
        }
    }

    async fn put(&self, piece: Piece) -> Result<(), StoreError> {
        match piece {
            Piece::Companies(companies) => self.put_companies(companies).await,
            Piece::Mailboxes(mailboxes) => self.put_mailboxes(mailboxes).await,
            Piece::Trail(entries) => {
                let mut call = Call::of(self, &keys::PUT_TRAIL, self.writing());
                for entry in entries {
                    call.add(Args::default().bytes(trail::line_of(entry))).await?;
                }
                call.end().await
            }
            Piece::Jobs(jobs) => self.put_jobs(jobs).await,
            Piece::Tickets(tickets) => {
                let mut call = Call::of(self, &keys::PUT_TICKETS, self.writing());
                for SpentTicket { ticket, expires } in tickets {
                    call.add(Args::default().add(expires.as_microsecond()).add(ticket)).await?;
                }
                call.end().await
            }
        }
    }

    async fn complete(&self) -> Result<(), StoreError> {
        self.write(&keys::COMPLETE, self.writing()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_all_numbers_once() {
        for last in [0, 1, NUMBERS - 1, NUMBERS, NUMBERS + 1, 3 * NUMBERS] {
            let all: Vec<u64> = pieces(last).flat_map(|(first, last)| first..=last).collect();
            assert_eq!(all, (1..=last).collect::<Vec<_>>());
        }
    }
}
