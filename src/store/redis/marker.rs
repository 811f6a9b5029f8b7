//! Marks of many requests, one call at a time: those that come while a call is under way go with the next one.
//!
//! A call costs the same for one mark as for many, on both sides; so under load this is what an acknowledgement costs, and
//! without load nobody waits for anybody. There is one call at a time: with two under way each has half of the marks, and
//! the calls are what Redis is busy with.
//!
//! Announcements of a call are one parcel. A long one is written to Redis beside the script, in the same message: the script would hash it byte
//! by byte, and copy it twice.

use std::{collections::HashSet, sync::Arc, time::Duration};

use foldhash::quality::RandomState;
use jiff::Timestamp;
use redis::Value;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinSet, yield_now},
    time::{Instant, timeout_at},
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    Inner, keys,
    line::{add_entry, lines_of},
    value::{Args, bytes},
};
use crate::{
    chain::Chain,
    model::{EventId, ItemVersion, MailboxId},
    queue::{Mark, StoreError, Tally},
};

/// Requests that may wait: with calls of 1 ms the last waits some tens of milliseconds.
const WAITING: usize = 8_192;

/// Marks after which a call takes no further request, and most of one request: so a call has a thousand at most, some 3 ms of Redis. (A script
/// can hand 8,000 values to a command.)
const FULL: usize = 512;

/// How often at most whatever can run goes first before a call is made up. It goes on as long as that brings more requests: each time
/// connections that have something to be read are looked for, and what was read from them is made into requests.
const GIVES_WAY: usize = 8;

/// Mailboxes that are known at most, in some 4 MB; with more of them all are looked for again.
const MOST_KNOWN: usize = 200_000;

/// Bytes of a parcel to begin with, those of a call that is full; the room is used again by the next one.
const PARCEL_BYTES: usize = 128 << 10;

/// Room that is not kept for the next one, in bytes.
const MOST_PARCEL_BYTES: usize = 1 << 20;

/// Bytes of a parcel from which on it does not go by the script.
const LONG: usize = 4 << 10;

struct Request {
    marks: Vec<Mark>,
    patience: Option<Patience>,
    reply: oneshot::Sender<Result<Tally, StoreError>>,
}

/// Until when somebody waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    end: Instant,
    /// Once this is past, it is not put into a call any more: too short a time would be left for all that are in it.
    half: Instant,
}

impl Patience {
    /// From now on for so long.
    pub(super) fn of(within: Duration) -> Self {
        let now = Instant::now();
        Self { end: now + within, half: now + within / 2 }
    }
}

/// The task that gathers marks. It ends when this is dropped; what it has accepted is answered or refused.
pub(super) struct Marker {
    requests: mpsc::Sender<Request>,
    /// Ends with the marker.
    _task: JoinSet<()>,
}

impl Marker {
    pub(super) fn start(inner: Arc<Inner>) -> Self {
        let (requests, waiting) = mpsc::channel(WAITING);
        let mut task = JoinSet::new();
        task.spawn(gather(inner, waiting));
        Self { requests, _task: task }
    }

    /// Stores marks; they are in Redis when this returns `Ok`.
    pub(super) async fn mark(
        &self,
        mut marks: Vec<Mark>,
        patience: Option<Patience>,
    ) -> Result<Tally, StoreError> {
        let mut tally = Tally::default();
        while marks.len() > FULL {
            let rest = marks.split_off(FULL);
            tally += self.ask(std::mem::replace(&mut marks, rest), patience).await?;
        }
        if !marks.is_empty() {
            tally += self.ask(marks, patience).await?;
        }
        Ok(tally)
    }

    async fn ask(&self, marks: Vec<Mark>, patience: Option<Patience>) -> Result<Tally, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(Request { marks, patience, reply }).map_err(|_| {
            metrics::counter!("narvaro_store_busy_total").increment(1);
            StoreError::Busy
        })?;
        answer.await.unwrap_or_else(|gone| Err(StoreError::Unavailable(Box::new(gone))))
    }
}

/// Mailboxes that were there since the last change of a company. One that goes is known here a moment longer: what is then marked
/// for it is dropped when it is taken out of the inbox.
#[derive(Default)]
struct Known {
    as_of: u64,
    mailboxes: HashSet<MailboxId, RandomState>,
}

impl Known {
    /// Those after so many changes.
    fn bring_up(&mut self, changes: u64) {
        if self.as_of != changes || self.mailboxes.len() > MOST_KNOWN {
            *self = Self { as_of: changes, mailboxes: HashSet::default() };
        }
    }
}

async fn gather(inner: Arc<Inner>, mut waiting: mpsc::Receiver<Request>) {
    let mut known = Known::default();
    let mut room = Vec::with_capacity(PARCEL_BYTES);
    for number in 0_u64.. {
        let Some(first) = waiting.recv().await else { return };
        give_way(&waiting).await;
        known.bring_up(inner.changes());
        let mut batch = Batch::new(inner.clock.now(), room);
        batch.add(first, &known);
        while batch.len() < FULL
            && let Ok(next) = waiting.try_recv()
        {
            batch.add(next, &known);
        }
        room = store(&inner, &mut known, batch, number).await;
        room.clear();
        room.shrink_to(MOST_PARCEL_BYTES);
    }
}

/// Lets requests come that are on their way: what a call costs is shared by all that are in it.
async fn give_way(waiting: &mpsc::Receiver<Request>) {
    yield_now().await;
    for _ in 1..GIVES_WAY {
        let before = waiting.len();
        yield_now().await;
        if waiting.len() == before {
            break;
        }
    }
}

/// Stores and answers; returns the room of the parcel.
async fn store(inner: &Inner, known: &mut Known, mut batch: Batch, number: u64) -> Vec<u8> {
    if batch.len() == 0 {
        return batch.parcel;
    }
    let name = format!("{}:{number}", inner.replica);
    let stored = run(inner, &batch, &name);
    let answer = match batch.end {
        Some(end) => timeout_at(end, stored).await.unwrap_or(Err(StoreError::Late)),
        None => stored.await,
    };
    let room = std::mem::take(&mut batch.parcel);
    match answer {
        Ok(letters) if letters.len() == batch.len() => batch.answer(&letters, known),
        Ok(_) => {
            batch.refuse(|| StoreError::Unavailable("the answer tells of another number of marks".into()))
        }
        Err(StoreError::Late) => batch.refuse(|| StoreError::Late),
        Err(error) => {
            let said = Chain(&error).to_string();
            batch.refuse(|| StoreError::Unavailable(said.clone().into()));
        }
    }
    room
}

/// Stores; a letter for each mark.
async fn run(inner: &Inner, batch: &Batch, name: &str) -> Result<Vec<u8>, StoreError> {
    if batch.parcel.len() >= LONG {
        let parcel = (&*format!("{}parcel:{name}", inner.prefix), &*batch.parcel);
        let args = batch.args(inner.time(), name, &[]);
        if let Some(answer) = inner.run_with(&keys::MARK, parcel, args).await? {
            return letters(answer);
        }
    }
    letters(inner.run(&keys::MARK, batch.args(inner.time(), name, &batch.parcel)).await?)
}

/// Marks of some requests, as they go to Redis.
struct Batch {
    now: Timestamp,
    made: Instant,
    requests: Vec<Taken>,
    /// Announcements are stored together, and told from one another by their fingerprints alone.
    announced: usize,
    fingerprints: Vec<u8>,
    parcel: Vec<u8>,
    /// Announcements whose mailboxes may not be there.
    looked_for: Vec<(usize, MailboxId)>,
    others: usize,
    args_of_others: Args,
    /// When the first of them gives up, and with it all; the call may go on for a while beside the next one.
    end: Option<Instant>,
}

/// A request whose marks are in a batch.
struct Taken {
    announced: usize,
    others: usize,
    reply: oneshot::Sender<Result<Tally, StoreError>>,
}

impl Batch {
    /// One whose parcel is put together in `room`.
    fn new(now: Timestamp, room: Vec<u8>) -> Self {
        Self {
            now,
            made: Instant::now(),
            requests: Vec::new(),
            announced: 0,
            fingerprints: Vec::new(),
            parcel: room,
            looked_for: Vec::new(),
            others: 0,
            args_of_others: Args::default(),
            end: None,
        }
    }

    fn len(&self) -> usize {
        self.announced + self.others
    }

    fn add(&mut self, request: Request, known: &Known) {
        if let Some(Patience { end, half }) = request.patience {
            if half < self.made {
                drop(request.reply.send(Err(StoreError::Late)));
                return;
            }
            self.end = Some(self.end.map_or(end, |other| other.min(end)));
        }
        let (announced, others) = (self.announced, self.others);
        for mark in &request.marks {
            match announcement(mark, self.now) {
                Some(fingerprint) => {
                    if !known.mailboxes.contains(&mark.mailbox) {
                        self.looked_for.push((self.announced, mark.mailbox));
                    }
                    self.fingerprints.extend_from_slice(&fingerprint);
                    add_entry(&mut self.parcel, mark);
                    self.announced += 1;
                }
                None => {
                    self.args_of_others = other(std::mem::take(&mut self.args_of_others), mark, self.now);
                    self.others += 1;
                }
            }
        }
        let (announced, others) = (self.announced - announced, self.others - others);
        self.requests.push(Taken { announced, others, reply: request.reply });
    }

    /// Arguments of `mark.lua`.
    fn args(&self, time: String, name: &str, parcel: &[u8]) -> Args {
        let args = Args::with_capacity(6 + 2 * self.looked_for.len() + 5 * self.others)
            .add(time)
            .add(self.announced)
            .bytes(self.fingerprints.clone())
            .add(name)
            .bytes(parcel.to_vec())
            .add(self.looked_for.len());
        let looked_for = self.looked_for.iter();
        let args = looked_for.fold(args, |args, (place, mailbox)| args.add(place + 1).add(mailbox));
        args.append(self.args_of_others.clone())
    }

    /// Tells each request what became of its marks: a letter each, those of announcements first.
    fn answer(self, letters: &[u8], known: &mut Known) {
        let there = self.looked_for.iter().filter(|(place, _)| letters[*place] != b'u');
        known.mailboxes.extend(there.map(|(_, mailbox)| *mailbox));
        let (mut announced, mut others) = letters.split_at(self.announced);
        for request in self.requests {
            let mut tally = Tally::default();
            for (letters, count) in [(&mut announced, request.announced), (&mut others, request.others)] {
                let (own, rest) = letters.split_at(count);
                tally += tally_of(own);
                *letters = rest;
            }
            // Whoever has given up needs no answer.
            drop(request.reply.send(Ok(tally)));
        }
    }

    fn refuse(self, why: impl Fn() -> StoreError) {
        for request in self.requests {
            drop(request.reply.send(Err(why())));
        }
    }
}

/// The fingerprint of a mark that says which version of an item it is of, and is due now.
fn announcement(mark: &Mark, now: Timestamp) -> Option<[u8; 8]> {
    let hint = mark.hint.as_ref().filter(|_| mark.at <= now)?;
    Some(fingerprint(mark.mailbox, &hint.item, hint.version?))
}

fn other(args: Args, mark: &Mark, now: Timestamp) -> Args {
    let (line, short) = lines_of(mark);
    args.add(mark.mailbox.0)
        // What is due now is due by the clock of Redis; a replica's own may be late.
        .maybe((mark.at > now).then(|| mark.at.as_microsecond()))
        .add(mark.reason.urgency() as u8)
        .bytes(line.into_bytes())
        .bytes(short.into_bytes())
}

fn letters(answer: Value) -> Result<Vec<u8>, StoreError> {
    Ok(bytes(answer)?.unwrap_or_default())
}

fn tally_of(letters: &[u8]) -> Tally {
    let mut tally = Tally::default();
    for letter in letters {
        match letter {
            b'm' => tally.marked += 1,
            b'd' => tally.duplicate += 1,
            b'c' => tally.coalesced += 1,
            _ => tally.unknown += 1,
        }
    }
    tally
}

/// Of a version of an item of a mailbox: the same at every replica (an announcement that two replicas hash otherwise is looked at twice, no
/// more). 64 bits: among the 100,000 of a window the chance that a new one is taken for an old one is one in 10^9.
fn fingerprint(mailbox: MailboxId, item: &EventId, version: ItemVersion) -> [u8; 8] {
    let seed = mailbox.0.rotate_left(32) ^ version.bits();
    xxh3_64_with_seed(item.as_str().as_bytes(), seed).to_be_bytes()
}
