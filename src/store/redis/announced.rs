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

/// What was read of a log.
#[derive(Debug, Default)]
struct Log {
    fingerprints: HashSet<Fingerprint, RandomState>,
    /// In bytes.
    read: usize,
    /// The last of it: a log may have got lost, and grown again.
    last: Option<Fingerprint>,
}

impl Log {
    fn read_on(&mut self, more: &[u8]) {
        self.fingerprints.extend(fingerprints(more));
        self.read += more.len();
        self.last = fingerprints(more).next_back().or(self.last);
    }

    /// Makes it one of which nothing was read, with room for as many as `like` has.
    fn begin_anew(&mut self, like: &Self) {
        self.fingerprints.clear();
        self.fingerprints.shrink_to(like.fingerprints.len());
        (self.read, self.last) = (0, None);
    }

    fn add_place(&self, args: Args) -> Args {
        args.add(self.read).bytes(self.last.map(|last| Fingerprint::bytes_of(&[last])).unwrap_or_default())
    }
}

/// What a replica has read of the logs.
#[derive(Debug, Default)]
pub(super) struct Announced {
    /// Number of the newer log; 0 before anything was read, which is as good as any other that is long past.
    window: u64,
    here: Log,
    /// The one before it.
    before: Log,
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

/// What becomes of marks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// They are stored, but for those whose letter says otherwise; and this was added to the log before them.
    Stored { letters: Vec<u8>, here: Vec<u8> },
    /// Nothing was done: this is to be read first.
    Behind(Unread),
}

impl Outcome {
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
        !self.before.fingerprints.contains(&fingerprint) && self.here.fingerprints.insert(fingerprint)
    }

    /// One that was noted has not been stored.
    pub(super) fn take_back(&mut self, fingerprint: Fingerprint) {
        self.here.fingerprints.remove(&fingerprint);
    }

    /// How far the logs were read, as `mark.lua` wants it.
    pub(super) fn add_place(&self, args: Args) -> Args {
        self.before.add_place(self.here.add_place(args.add(self.window)))
    }

    /// Reads what others had added before what was `stored` was.
    pub(super) fn go_on(&mut self, here: &[u8], stored: impl Iterator<Item = Fingerprint>) {
        self.here.read_on(here);
        for fingerprint in stored {
            self.here.read += Fingerprint::BYTES;
            self.here.last = Some(fingerprint);
        }
    }

    /// Reads what there is; nothing may be noted that is not stored.
    pub(super) fn catch_up(&mut self, unread: &Unread) {
        if !unread.follows {
            self.here.begin_anew(&Log::default());
        }
        if !unread.follows || self.window != unread.window {
            self.here.read_on(&unread.before);
            std::mem::swap(&mut self.here, &mut self.before);
            self.here.begin_anew(&self.before);
            self.window = unread.window;
        }
        self.here.read_on(&unread.here);
    }
}

fn fingerprints(log: &[u8]) -> impl DoubleEndedIterator<Item = Fingerprint> {
    let (all, _) = log.as_chunks();
    all.iter().map(|bytes| Fingerprint(u64::from_be_bytes(*bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(numbers: &[u64]) -> Vec<u8> {
        Fingerprint::bytes_of(&numbers.iter().copied().map(Fingerprint).collect::<Vec<_>>())
    }

    fn unread(window: u64, follows: bool, before: &[u64], here: &[u64]) -> Unread {
        Unread { window, follows, before: log(before), here: log(here) }
    }

    /// Those of the first hundred that are known.
    fn known(announced: &mut Announced) -> Vec<u64> {
        (0..100)
            .filter(|number| {
                let is_new = announced.note(Fingerprint(*number));
                if is_new {
                    announced.take_back(Fingerprint(*number));
                }
                !is_new
            })
            .collect()
    }

    #[test]
    fn what_is_read_and_what_is_stored_is_known_for_this_log_and_the_next() {
        let mut announced = Announced::default();
        announced.catch_up(&unread(7, false, &[1], &[2, 3]));
        assert!(announced.note(Fingerprint(4)) && !announced.note(Fingerprint(4)));
        announced.go_on(&log(&[5]), [Fingerprint(4)].into_iter());
        assert_eq!(known(&mut announced), [1, 2, 3, 4, 5]);
        announced.catch_up(&unread(8, true, &[6], &[7]));
        assert_eq!(known(&mut announced), [2, 3, 4, 5, 6, 7]);
        announced.catch_up(&unread(9, true, &[], &[]));
        assert_eq!(known(&mut announced), [7]);
    }

    #[test]
    fn where_the_caller_begins_anew_nothing_of_before_is_known() {
        let mut announced = Announced::default();
        announced.catch_up(&unread(7, false, &[1], &[2, 3]));
        announced.catch_up(&unread(7, false, &[4], &[5]));
        assert_eq!(known(&mut announced), [4, 5]);
    }

    #[test]
    fn the_place_is_behind_what_was_stored_last_and_behind_the_log_before() {
        let place = |announced: &Announced| announced.add_place(Args::default()).into_inner();
        let expected = |window: u64, here: (usize, &[u64]), before: (usize, &[u64])| {
            let bytes = |number: usize| number.to_string().into_bytes();
            vec![window.to_string().into_bytes(), bytes(here.0), log(here.1), bytes(before.0), log(before.1)]
        };
        let mut announced = Announced::default();
        assert_eq!(place(&announced), expected(0, (0, &[]), (0, &[])));
        announced.catch_up(&unread(7, false, &[1], &[2, 3]));
        assert_eq!(place(&announced), expected(7, (16, &[3]), (8, &[1])));
        announced.go_on(&log(&[4]), std::iter::empty());
        assert_eq!(place(&announced), expected(7, (24, &[4]), (8, &[1])));
        announced.go_on(&log(&[5]), [6, 7].map(Fingerprint).into_iter());
        assert_eq!(place(&announced), expected(7, (48, &[7]), (8, &[1])));
        announced.catch_up(&unread(7, true, &[], &[8]));
        assert_eq!(place(&announced), expected(7, (56, &[8]), (8, &[1])));
        announced.catch_up(&unread(8, true, &[9], &[]));
        assert_eq!(place(&announced), expected(8, (0, &[]), (64, &[9])));
        announced.catch_up(&unread(9, true, &[], &[]));
        assert_eq!(place(&announced), expected(9, (0, &[]), (0, &[])));
    }

    #[test]
    fn an_answer_tells_what_is_stored_or_what_is_to_be_read() {
        let text = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
        let stored = Outcome::from_value(Value::Array(vec![text(b""), text(&log(&[1]))])).unwrap();
        assert_eq!(stored, Outcome::Stored { letters: Vec::new(), here: log(&[1]) });
        let numbers = [Value::Nil, Value::Int(7), Value::Int(1)];
        let behind = numbers.into_iter().chain([text(&log(&[1])), text(&log(&[2]))]).collect();
        let behind = Outcome::from_value(Value::Array(behind)).unwrap();
        assert_eq!(behind, Outcome::Behind(unread(7, true, &[1], &[2])));
        assert!(Outcome::from_value(text(b"mm")).is_err());
    }
}
