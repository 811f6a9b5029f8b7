//! Which versions were announced lately, by whichever replica: an announcement that comes again is told by this.
//!
//! What is stored is written down in a log in Redis, a new one each minute: a fingerprint of eight bytes for each announcement. Each replica keeps
//! what it has read of the logs of this minute and the one before, and its own part it knows without reading; so it says itself what is new. A
//! call tells how far the caller has read, and is answered with what others have added since, against which `mark.lua` checks as well: so no two
//! replicas take the same announcement, and Redis has next to nothing to do for one.

use std::collections::HashSet;

use foldhash::quality::RandomState;
use redis::Value;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::value::{Answer, Args, is_found};
use crate::{
    model::{EventId, ItemVersion, MailboxId},
    queue::StoreError,
};

/// Bytes of what others have added since that a script checks announcements against, at most, before it lets the caller read them first: some
/// 8,000 announcements, and a millisecond.
const MOST_UNREAD: usize = 64 << 10;

/// A version of an item of a mailbox: the same at every replica (an announcement that two replicas hash otherwise is looked at twice, no
/// more). 64 bits: among the 100,000 of two minutes the chance that a new one is taken for an old one is one in 10^9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    const BYTES: usize = size_of::<u64>();

    pub(super) fn of(mailbox: MailboxId, item: &EventId, version: ItemVersion) -> Self {
        let seed = mailbox.0.rotate_left(32) ^ version.bits();
        Self(xxh3_64_with_seed(item.as_str().as_bytes(), seed))
    }

    /// As they stand in a log.
    pub(super) fn bytes_of(all: &[Self]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES * all.len());
        for Self(bits) in all {
            bytes.extend_from_slice(&bits.to_be_bytes());
        }
        bytes
    }
}

type Fingerprints = HashSet<Fingerprint, RandomState>;

/// What a replica has read of the logs.
#[derive(Debug, Default)]
pub(super) struct Announced {
    /// The number of the newer log; nothing was read before the first.
    window: Option<u64>,
    of_window: Fingerprints,
    of_window_before: Fingerprints,
    /// How much of the newer log was read, in bytes, and the last of it: the log may have got lost and grown again.
    read: u64,
    last: Option<Fingerprint>,
}

/// What the logs have that was not read yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unread {
    window: u64,
    /// Whether it follows what was read; else all of both logs is here.
    follows: bool,
    before: Vec<u8>,
    here: Vec<u8>,
}

/// What a script answers to marks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// They are stored, but for those whose letter says otherwise; and this was added to the log before them.
    Stored { letters: Vec<u8>, here: Vec<u8> },
    /// Nothing was done: this is to be read first.
    Behind(Unread),
}

impl Answered {
    pub(super) fn from_value(value: Value) -> Result<Self, StoreError> {
        let mut answer = Answer::list(value)?;
        let letters = answer.value()?;
        if is_found(&letters) {
            let letters = super::value::bytes(letters)?.unwrap_or_default();
            return Ok(Self::Stored { letters, here: answer.bytes()? });
        }
        Ok(Self::Behind(Unread {
            window: answer.number()?,
            follows: answer.number()? == 1,
            before: answer.bytes()?,
            here: answer.bytes()?,
        }))
    }
}

impl Announced {
    /// Notes one that is about to be stored; `false` where it was announced before.
    pub(super) fn note(&mut self, fingerprint: Fingerprint) -> bool {
        !self.of_window_before.contains(&fingerprint) && self.of_window.insert(fingerprint)
    }

    /// One that was noted has not been stored.
    pub(super) fn take_back(&mut self, fingerprint: Fingerprint) {
        self.of_window.remove(&fingerprint);
    }

    /// How far the logs were read, as `mark.lua` wants it.
    pub(super) fn add_place(&self, args: Args, is_first_try: bool) -> Args {
        let last = self.last.map(|last| Fingerprint::bytes_of(&[last]));
        // Before anything was read, the first log of all is as good as any.
        let args = args.add(self.window.unwrap_or_default()).add(self.read).bytes(last.unwrap_or_default());
        // Where others are many and busy there may be as much again each time.
        args.add(if is_first_try { MOST_UNREAD } else { usize::MAX })
    }

    /// Reads what others had added before what was `stored` was.
    pub(super) fn go_on(&mut self, here: &[u8], stored: impl Iterator<Item = Fingerprint>) {
        self.read_here(here);
        for fingerprint in stored {
            self.read += Fingerprint::BYTES as u64;
            self.last = Some(fingerprint);
        }
    }

    /// Reads what there is; nothing may be noted that is not stored.
    pub(super) fn catch_up(&mut self, unread: &Unread) {
        if !unread.follows {
            self.of_window.clear();
            self.of_window_before.clear();
        }
        if !unread.follows || self.window != Some(unread.window) {
            self.of_window.extend(fingerprints(&unread.before));
            std::mem::swap(&mut self.of_window, &mut self.of_window_before);
            self.of_window.clear();
            // As many as there were may come again.
            self.of_window.shrink_to(self.of_window_before.len());
            (self.window, self.read, self.last) = (Some(unread.window), 0, None);
        }
        self.read_here(&unread.here);
    }

    fn read_here(&mut self, here: &[u8]) {
        self.of_window.extend(fingerprints(here));
        self.read += here.len() as u64;
        self.last = fingerprints(here).next_back().or(self.last);
    }
}

fn fingerprints(log: &[u8]) -> impl DoubleEndedIterator<Item = Fingerprint> {
    let (all, _) = log.as_chunks();
    all.iter().map(|bytes| Fingerprint(u64::from_be_bytes(*bytes)))
}
