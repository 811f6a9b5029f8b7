//! Marks of many requests, one call at a time: those that come while a call is under way go with the next one.
//!
//! A call costs the same for one mark as for many, on both sides; so under load this is what an acknowledgement costs, and
//! without load nobody waits for anybody. There is one call at a time: with two under way each has half of the marks, and
//! the calls are what Redis is busy with.

use std::{collections::HashSet, sync::Arc};

use jiff::Timestamp;
use redis::Value;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinSet, yield_now},
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    Inner, keys,
    line::{add_entry, lines_of},
    value::{Args, bytes},
};
use crate::{
    model::{ItemVersion, MailboxId},
    queue::{Mark, StoreError, Tally},
};

/// Requests that may wait: with calls of 1 ms the last waits some tens of milliseconds.
const WAITING: usize = 8_192;

/// Marks after which a call takes no further request, and most of one request: so a call has a thousand at most, some 3 ms of Redis. (A script
/// can hand 8,000 values to a command.)
const FULL: usize = 512;

/// How often whatever can run goes first before a call is made up: once for connections that have something to be read, and once for the
/// requests that are read from them.
const GIVES_WAY: usize = 2;

/// Mailboxes that are known at most, in some 4 MB; with more of them all are looked for again.
const MOST_KNOWN: usize = 200_000;

/// Bytes of an announcement in a parcel, about.
const ENTRY_BYTES: usize = 256;

struct Request {
    marks: Vec<Mark>,
    reply: oneshot::Sender<Result<Tally, StoreError>>,
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
    pub(super) async fn mark(&self, mut marks: Vec<Mark>) -> Result<Tally, StoreError> {
        let mut tally = Tally::default();
        while marks.len() > FULL {
            let rest = marks.split_off(FULL);
            tally += self.ask(std::mem::replace(&mut marks, rest)).await?;
        }
        tally += self.ask(marks).await?;
        Ok(tally)
    }

    async fn ask(&self, marks: Vec<Mark>) -> Result<Tally, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(Request { marks, reply }).map_err(|_| {
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
    mailboxes: HashSet<MailboxId>,
}

impl Known {
    /// Those after so many changes.
    fn bring_up(&mut self, changes: u64) {
        if self.as_of != changes || self.mailboxes.len() > MOST_KNOWN {
            *self = Self { as_of: changes, mailboxes: HashSet::new() };
        }
    }
}

async fn gather(inner: Arc<Inner>, mut waiting: mpsc::Receiver<Request>) {
    let mut known = Known::default();
    while let Some(first) = waiting.recv().await {
        for _ in 0..GIVES_WAY {
            yield_now().await;
        }
        let mut marks = first.marks.len();
        let mut requests = vec![first];
        while marks < FULL
            && let Ok(next) = waiting.try_recv()
        {
            marks += next.marks.len();
            requests.push(next);
        }
        known.bring_up(inner.changes());
        store(&inner, &mut known, requests).await;
    }
}

async fn store(inner: &Inner, known: &mut Known, requests: Vec<Request>) {
    let now = inner.clock.now();
    let marks = || requests.iter().flat_map(|request| &request.marks);
    let (total, announced) = (marks().count(), marks().filter(|mark| is_announcement(mark, now)).count());
    let announcements = || marks().filter(|mark| is_announcement(mark, now));
    let (mut fingerprints, mut parcel) =
        (Vec::with_capacity(8 * announced), Vec::with_capacity(ENTRY_BYTES * announced));
    let mut looked_for = Vec::new();
    for (place, mark) in announcements().enumerate() {
        fingerprints.extend_from_slice(&fingerprint(mark));
        add_entry(&mut parcel, mark);
        if !known.mailboxes.contains(&mark.mailbox) {
            looked_for.push((place, mark.mailbox));
        }
    }
    let args = Args::with_capacity(5 + 2 * looked_for.len() + 5 * (total - announced));
    let args = args.add(inner.time()).add(announced).bytes(fingerprints).bytes(parcel).add(looked_for.len());
    let args = looked_for.iter().fold(args, |args, (place, mailbox)| args.add(place + 1).add(mailbox));
    let args =
        marks().filter(|mark| !is_announcement(mark, now)).fold(args, |args, mark| other(args, mark, now));
    let answer = match inner.run(&keys::MARK, args).await.and_then(letters) {
        Ok(letters) if letters.len() == total => Ok(letters),
        Ok(_) => Err("the answer tells of another number of marks".to_owned()),
        Err(error) => Err(crate::chain::Chain(&error).to_string()),
    };
    let letters = answer.as_deref().unwrap_or_default();
    let there = |(place, _): &&(usize, MailboxId)| letters.get(*place).is_some_and(|letter| *letter != b'u');
    known.mailboxes.extend(looked_for.iter().filter(there).map(|(_, mailbox)| *mailbox));
    let (mut announced, mut others) = letters.split_at_checked(announced).unwrap_or_default();
    for Request { marks, reply } in requests {
        let outcome = match &answer {
            Ok(_) => {
                let mut letter = |mark| {
                    let letters = if is_announcement(mark, now) { &mut announced } else { &mut others };
                    letters.split_off_first().copied()
                };
                Ok(tally(marks.iter().filter_map(&mut letter)))
            }
            Err(said) => Err(StoreError::Unavailable(said.clone().into())),
        };
        // Whoever has given up needs no answer.
        drop(reply.send(outcome));
    }
}

/// Whether a mark says which version of an item it is of, and is due now. Such marks are stored together, and told from one another
/// by their fingerprints alone.
fn is_announcement(mark: &Mark, now: Timestamp) -> bool {
    mark.at <= now && mark.hint.as_ref().is_some_and(|hint| hint.version.is_some())
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

fn tally(letters: impl Iterator<Item = u8>) -> Tally {
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
/// more). 64 bits: among the 100,000 of a
/// window the chance that a new one is taken for an old one is one in 10^9.
fn fingerprint(mark: &Mark) -> [u8; 8] {
    let (item, version) = mark.hint.as_ref().map_or(("", None), |hint| (hint.item.as_str(), hint.version));
    let seed = mark.mailbox.0.rotate_left(32) ^ version.map(ItemVersion::bits).unwrap_or_default();
    xxh3_64_with_seed(item.as_bytes(), seed).to_be_bytes()
}
