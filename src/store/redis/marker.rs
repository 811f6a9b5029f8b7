//! Marks of many requests, one call at a time: those that come while a call is under way go with the next one.
//!
//! A call costs the same for one mark as for many, on both sides; so under load this is what an acknowledgement costs, and
//! without load nobody waits for anybody. There is one call at a time: with two under way each has half of the marks, and
//! the calls are what Redis is busy with.

use std::sync::Arc;

use jiff::Timestamp;
use redis::Value;
use sha2::{Digest, Sha256};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    Inner, keys,
    line::{add_entry, lines_of},
    value::{Args, bytes},
};
use crate::{
    model::ItemVersion,
    queue::{Hint, Mark, StoreError, Tally},
};

/// Requests that may wait: with calls of 1 ms the last waits some tens of milliseconds.
const WAITING: usize = 8_192;

/// Marks after which a call takes no further request: some 3 ms of Redis.
const FULL: usize = 512;

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
    pub(super) async fn mark(&self, marks: Vec<Mark>) -> Result<Tally, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(Request { marks, reply }).map_err(|_| {
            metrics::counter!("narvaro_store_busy_total").increment(1);
            StoreError::Busy
        })?;
        answer.await.unwrap_or_else(|gone| Err(StoreError::Unavailable(Box::new(gone))))
    }
}

async fn gather(inner: Arc<Inner>, mut waiting: mpsc::Receiver<Request>) {
    while let Some(first) = waiting.recv().await {
        let mut marks = first.marks.len();
        let mut requests = vec![first];
        while marks < FULL
            && let Ok(next) = waiting.try_recv()
        {
            marks += next.marks.len();
            requests.push(next);
        }
        store(&inner, requests).await;
    }
}

async fn store(inner: &Inner, requests: Vec<Request>) {
    let now = inner.clock.now();
    let marks = || requests.iter().flat_map(|request| &request.marks);
    let (total, announced) = (marks().count(), marks().filter(|mark| is_announcement(mark, now)).count());
    let announcements = || marks().filter(|mark| is_announcement(mark, now));
    let (mut fingerprints, mut parcel) = (Vec::with_capacity(8 * announced), Vec::with_capacity(ENTRY_BYTES * announced));
    for mark in announcements() {
        fingerprints.extend_from_slice(&fingerprint(mark));
        add_entry(&mut parcel, mark);
    }
    let args = Args::with_capacity(4 + announced + 5 * (total - announced));
    let args = args.add(inner.time()).add(announced).bytes(fingerprints).bytes(parcel);
    let args = announcements().fold(args, |args, mark| args.add(mark.mailbox.0));
    let args = marks().filter(|mark| !is_announcement(mark, now)).fold(args, |args, mark| other(args, mark, now));
    let answer = match inner.run(&keys::MARK, args).await.and_then(letters) {
        Ok(letters) if letters.len() == total => Ok(letters),
        Ok(_) => Err("the answer tells of another number of marks".to_owned()),
        Err(error) => Err(crate::chain::Chain(&error).to_string()),
    };
    let letters = answer.as_deref().unwrap_or_default();
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

/// Of a version of an item of a mailbox: the same at every replica, whatever its version. 64 bits: among the 100,000 of a
/// window the chance that a new one is taken for an old one is one in 10^9.
fn fingerprint(mark: &Mark) -> [u8; 8] {
    let mut hash = Sha256::new();
    hash.update(mark.mailbox.0.to_be_bytes());
    if let Some(Hint { item, version }) = &mark.hint {
        hash.update(version.map(ItemVersion::bits).unwrap_or_default().to_be_bytes());
        hash.update(item.as_str());
    }
    let hash: [u8; 32] = hash.finalize().into();
    std::array::from_fn(|n| hash[n])
}
