//! Marks of many requests, one call at a time: those that come while a call is under way go with the next one.
//!
//! A call costs the same for one mark as for many, on both sides; so under load this is what an acknowledgement costs, and
//! without load nobody waits for anybody. There is one call at a time: with two under way each has half of the marks, and
//! the calls are what Redis is busy with.
//!
//! Which of them are new is known here, as far as was read of what all replicas have announced ([`announced`](super::announced)). Where more has
//! been announced than a script compares, or a new log has begun, Redis does nothing but say so, and the call is made up again. A call is made in
//! any case, though nothing in it may be new: only Redis can tell whether what was read still holds.
//!
//! Announcements of a call are one parcel. A long one is written to Redis beside the script, in the same message: the script would hash it byte
//! by byte, and copy it twice.

use std::{collections::HashSet, sync::Arc, time::Duration};

use foldhash::quality::RandomState;
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinSet, yield_now},
    time::{Instant, timeout_at},
};

use super::{
    Inner,
    announced::{Announced, Fingerprint, Outcome},
    keys,
    line::{add_entry, lines_of},
    value::Args,
};
use crate::{
    chain::Chain,
    model::MailboxId,
    queue::{Mark, StoreError, Tally},
};

/// Requests that may wait: with calls of 1 ms the last waits some tens of milliseconds.
const WAITING: usize = 8_192;

/// Marks after which a call takes no further request, and most of one request: so a call has a thousand at most, less than 1 ms of Redis. (A script
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

/// How often a call is made up, at most: again where others have announced what is to be read first. Twice is enough, unless a new log begins
/// between the two.
const ATTEMPTS: u32 = 3;

/// Bytes of what others have announced that a script compares at the first attempt, at most: 8,000 announcements, and some 2 ms. What is more
/// than that is read first; after that there may be as much again, where others are many.
const MOST_UNREAD: usize = 64 << 10;

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
        let request = Request { marks, patience, reply };
        if patience.is_some() {
            self.requests.try_send(request).map_err(|_| {
                metrics::counter!("narvaro_store_busy_total").increment(1);
                StoreError::Busy
            })?;
        } else {
            // Nobody waits for this one, so it waits for its turn.
            let sent = self.requests.send(request).await;
            sent.map_err(|_| StoreError::Unavailable("the store is closed".into()))?;
        }
        answer.await.unwrap_or_else(|gone| Err(StoreError::Unavailable(Box::new(gone))))
    }
}

/// What the marker keeps from call to call.
struct Memory {
    mailboxes: Known,
    announced: Announced,
    /// Of the parcel before.
    room: Vec<u8>,
}

impl Memory {
    fn new() -> Self {
        let room = Vec::with_capacity(PARCEL_BYTES);
        Self { mailboxes: Known::default(), announced: Announced::default(), room }
    }

    /// Notes what was stored, with a letter for each mark; and what others have stored before that.
    fn stored(&mut self, call: Call, letters: &[u8], others: &[u8]) {
        let there = call.looked_for.iter().filter(|(place, _)| letters[*place] != b'u');
        self.mailboxes.numbers.extend(there.map(|(_, mailbox)| *mailbox));
        let new = || call.fingerprints.iter().zip(letters).filter(|(_, letter)| **letter == b'm');
        if new().count() < call.fingerprints.len() {
            self.take_back(&call);
            for (fingerprint, _) in new() {
                self.announced.note(*fingerprint);
            }
        }
        self.announced.go_on(others, new().map(|(fingerprint, _)| *fingerprint));
        self.keep_room(call);
    }

    /// Of a call that may have been run all the same, what was stored is found in the log by the next one.
    fn not_stored(&mut self, call: Call) {
        self.take_back(&call);
        self.keep_room(call);
    }

    fn take_back(&mut self, call: &Call) {
        call.fingerprints.iter().for_each(|fingerprint| self.announced.take_back(*fingerprint));
    }

    fn keep_room(&mut self, call: Call) {
        self.room = call.parcel;
        self.room.clear();
        self.room.shrink_to(MOST_PARCEL_BYTES);
    }
}

/// Mailboxes that were there since the last change of a company. One that goes is known here a moment longer: what is then marked
/// for it is dropped when it is taken out of the inbox.
#[derive(Default)]
struct Known {
    as_of: u64,
    numbers: HashSet<MailboxId, RandomState>,
}

impl Known {
    /// Those after so many changes.
    fn bring_up(&mut self, changes: u64) {
        if self.as_of != changes || self.numbers.len() > MOST_KNOWN {
            *self = Self { as_of: changes, numbers: HashSet::default() };
        }
    }
}

async fn gather(inner: Arc<Inner>, mut waiting: mpsc::Receiver<Request>) {
    let mut memory = Memory::new();
    for number in 0_u64.. {
        let Some(first) = waiting.recv().await else { return };
        give_way(&waiting).await;
        memory.mailboxes.bring_up(inner.changes());
        let mut batch = Batch::new(inner.clock.now());
        batch.add(first);
        while batch.marks < FULL
            && let Ok(next) = waiting.try_recv()
        {
            batch.add(next);
        }
        store(&inner, &mut memory, batch, number).await;
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

/// Stores and answers.
async fn store(inner: &Inner, memory: &mut Memory, batch: Batch, number: u64) {
    if batch.requests.is_empty() {
        return;
    }
    for attempt in 1..=ATTEMPTS {
        let call = Call::new(&batch, memory);
        // Another one each time: whatever is left of a parcel must not be taken for that of another attempt.
        let name = format!("{}:{number}:{attempt}", inner.replica);
        let most_unread = if attempt == 1 { MOST_UNREAD } else { usize::MAX };
        let stored = run(inner, &call, &memory.announced, &name, most_unread);
        let answer = match batch.end {
            Some(end) => timeout_at(end, stored).await.unwrap_or(Err(StoreError::Late)),
            None => stored.await,
        };
        match answer {
            Ok(Outcome::Stored { letters, here }) if letters.len() == call.len() => {
                batch.answer(&call, &letters);
                return memory.stored(call, &letters, &here);
            }
            Ok(Outcome::Stored { .. }) => {
                batch.refuse(&StoreError::Unavailable("the answer tells of another number of marks".into()));
                return memory.not_stored(call);
            }
            Ok(Outcome::Behind(unread)) => {
                memory.not_stored(call);
                memory.announced.catch_up(&unread);
            }
            Err(error) => {
                batch.refuse(&error);
                return memory.not_stored(call);
            }
        }
    }
    batch.refuse(&StoreError::Unavailable("others announce more than can be read meanwhile".into()));
}

/// What Redis says to a call.
async fn run(
    inner: &Inner,
    call: &Call,
    announced: &Announced,
    name: &str,
    most_unread: usize,
) -> Result<Outcome, StoreError> {
    let place = || announced.add_place(Args::default().add(inner.time())).add(most_unread);
    let args = |parcel| call.args(place(), name, parcel);
    if call.parcel.len() >= LONG {
        let parcel = (&*format!("{}parcel:{name}", inner.prefix), &*call.parcel);
        if let Some(answer) = inner.run_with(&keys::MARK, parcel, args(&[])).await? {
            return Outcome::from_value(answer);
        }
    }
    Outcome::from_value(inner.run(&keys::MARK, args(&call.parcel)).await?)
}

/// Requests that go in one call.
struct Batch {
    now: Timestamp,
    made: Instant,
    requests: Vec<Request>,
    /// Of all of them.
    marks: usize,
    /// When the first of them gives up, and with it all; the call may go on for a while beside the next one.
    end: Option<Instant>,
}

impl Batch {
    fn new(now: Timestamp) -> Self {
        Self { now, made: Instant::now(), requests: Vec::new(), marks: 0, end: None }
    }

    fn add(&mut self, request: Request) {
        if let Some(Patience { end, half }) = request.patience {
            if half < self.made {
                drop(request.reply.send(Err(StoreError::Late)));
                return;
            }
            self.end = Some(self.end.map_or(end, |other| other.min(end)));
        }
        self.marks += request.marks.len();
        self.requests.push(request);
    }

    /// Tells each request what became of its marks: a letter for each that was sent, those of announcements first.
    fn answer(self, call: &Call, letters: &[u8]) {
        let (mut announced, mut others) = letters.split_at(call.fingerprints.len());
        for (request, sent) in self.requests.into_iter().zip(&call.sent) {
            let mut tally = Tally {
                duplicate: request.marks.len() - sent.announcements - sent.others,
                ..Tally::default()
            };
            for (letters, count) in [(&mut announced, sent.announcements), (&mut others, sent.others)] {
                let (own, rest) = letters.split_at(count);
                tally += tally_of(own);
                *letters = rest;
            }
            // Whoever has given up needs no answer.
            drop(request.reply.send(Ok(tally)));
        }
    }

    fn refuse(self, why: &StoreError) {
        // That the store cannot take it is what each is told anyhow; this is the reason.
        let said = match why {
            StoreError::Unavailable(reason) => Chain(&**reason).to_string(),
            why => Chain(why).to_string(),
        };
        for request in self.requests {
            let error = match why {
                StoreError::Late => StoreError::Late,
                _ => StoreError::Unavailable(said.clone().into()),
            };
            drop(request.reply.send(Err(error)));
        }
    }
}

/// Marks as they go to Redis: those that nobody has announced before, as far as is known here.
struct Call {
    /// Announcements are stored together, and told from one another by their fingerprints alone.
    fingerprints: Vec<Fingerprint>,
    parcel: Vec<u8>,
    /// Announcements whose mailboxes may not be there.
    looked_for: Vec<(usize, MailboxId)>,
    others: usize,
    args_of_others: Args,
    /// Of each request.
    sent: Vec<Sent>,
}

/// How many marks of a request are sent.
struct Sent {
    announcements: usize,
    others: usize,
}

impl Call {
    /// What is announced with it is noted.
    fn new(batch: &Batch, memory: &mut Memory) -> Self {
        let mut call = Self {
            fingerprints: Vec::with_capacity(batch.marks),
            parcel: std::mem::take(&mut memory.room),
            looked_for: Vec::new(),
            others: 0,
            args_of_others: Args::default(),
            sent: Vec::with_capacity(batch.requests.len()),
        };
        for request in &batch.requests {
            let before = (call.fingerprints.len(), call.others);
            for mark in &request.marks {
                call.add(mark, batch.now, memory);
            }
            let (announcements, others) = (call.fingerprints.len() - before.0, call.others - before.1);
            call.sent.push(Sent { announcements, others });
        }
        call
    }

    fn add(&mut self, mark: &Mark, now: Timestamp, memory: &mut Memory) {
        let Some(fingerprint) = announcement(mark, now) else {
            self.args_of_others = other(std::mem::take(&mut self.args_of_others), mark, now);
            self.others += 1;
            return;
        };
        if !memory.announced.note(fingerprint) {
            return;
        }
        if !memory.mailboxes.numbers.contains(&mark.mailbox) {
            self.looked_for.push((self.fingerprints.len(), mark.mailbox));
        }
        add_entry(&mut self.parcel, mark);
        self.fingerprints.push(fingerprint);
    }

    fn len(&self) -> usize {
        self.fingerprints.len() + self.others
    }

    /// Arguments of `mark.lua`, behind time and place.
    fn args(&self, place: Args, name: &str, parcel: &[u8]) -> Args {
        let args = place
            .add(self.fingerprints.len())
            .bytes(Fingerprint::bytes_of(&self.fingerprints))
            .add(name)
            .bytes(parcel.to_vec())
            .add(self.looked_for.len());
        let looked_for = self.looked_for.iter();
        let args = looked_for.fold(args, |args, (place, mailbox)| args.add(place + 1).add(mailbox));
        args.append(self.args_of_others.clone())
    }
}

/// The fingerprint of a mark that says which version of an item it is of, and is due now.
fn announcement(mark: &Mark, now: Timestamp) -> Option<Fingerprint> {
    let hint = mark.hint.as_ref().filter(|_| mark.at <= now)?;
    Some(Fingerprint::of(mark.mailbox, &hint.item, hint.version?))
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
