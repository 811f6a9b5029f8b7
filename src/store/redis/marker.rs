//! Marks of many requests, one call at a time: those that come while a call is under way go with the next one.
//!
//! A call costs the same for one mark as for many, on both sides; so under load this is what an acknowledgement costs, and
//! without load nobody waits for anybody.

use std::sync::Arc;

use redis::Value;
use sha2::{Digest, Sha256};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinSet,
};

use super::{
    Inner, keys,
    line::lines_of,
    value::{Args, bytes},
};
use crate::queue::{Mark, StoreError, Tally};

/// Requests that may wait: with calls of 1 ms the last waits some tens of milliseconds.
const WAITING: usize = 8_192;

/// Marks after which a call takes no further request: some 3 ms of Redis.
const FULL: usize = 512;

/// Calls under way at a time: while Redis works one off, the next is on its way.
const UNDER_WAY: usize = 2;

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
    let free = Arc::new(Semaphore::new(UNDER_WAY));
    let mut calls = JoinSet::new();
    loop {
        // First a place, then what has come until there was one.
        let Ok(place) = Arc::clone(&free).acquire_owned().await else { return };
        let Some(first) = waiting.recv().await else { return };
        let mut marks = first.marks.len();
        let mut requests = vec![first];
        while marks < FULL
            && let Ok(next) = waiting.try_recv()
        {
            marks += next.marks.len();
            requests.push(next);
        }
        let inner = Arc::clone(&inner);
        while calls.try_join_next().is_some() {}
        calls.spawn(async move {
            store(&inner, requests).await;
            drop(place);
        });
    }
}

async fn store(inner: &Inner, requests: Vec<Request>) {
    let marks: usize = requests.iter().map(|request| request.marks.len()).sum();
    let mut args = Args::with_capacity(1 + 6 * marks).add(inner.time());
    let now = inner.clock.now();
    for mark in requests.iter().flat_map(|request| &request.marks) {
        let (line, short) = lines_of(mark);
        args = args
            .add(mark.mailbox.0)
            // What is due now is due by the clock of Redis; a replica's own may be late.
            .maybe((mark.at > now).then(|| mark.at.as_microsecond()))
            .add(mark.reason.urgency() as u8)
            .bytes(fingerprint(mark).unwrap_or_default())
            .bytes(line.into_bytes())
            .bytes(short.into_bytes());
    }
    let answer = match inner.run(&keys::MARK, args).await.and_then(letters) {
        Ok(letters) if letters.len() == marks => Ok(letters),
        Ok(_) => Err("the answer tells of another number of marks".to_owned()),
        Err(error) => Err(crate::chain::Chain(&error).to_string()),
    };
    let mut letters = answer.as_deref().unwrap_or_default();
    for Request { marks, reply } in requests {
        let outcome = match &answer {
            Ok(_) => {
                let (own, others) = letters.split_at(marks.len());
                letters = others;
                Ok(tally(own))
            }
            Err(said) => Err(StoreError::Unavailable(said.clone().into())),
        };
        // Whoever has given up needs no answer.
        drop(reply.send(outcome));
    }
}

fn letters(answer: Value) -> Result<Vec<u8>, StoreError> {
    Ok(bytes(answer)?.unwrap_or_default())
}

fn tally(letters: &[u8]) -> Tally {
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
fn fingerprint(mark: &Mark) -> Option<Vec<u8>> {
    let hint = mark.hint.as_ref()?;
    let mut hash = Sha256::new();
    hash.update(mark.mailbox.0.to_be_bytes());
    hash.update(hint.version?.bits().to_be_bytes());
    hash.update(hint.item.as_str());
    Some(hash.finalize()[..8].to_vec())
}
