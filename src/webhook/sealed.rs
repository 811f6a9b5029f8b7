//! What notifications brought of their items, sealed as it came, until the mailbox's turn reads the item.
//!
//! A company may have its events sent along with the notifications ("rich" notifications). The receiver does not open
//! them: it puts them here, after `clientState` has verified, and marks the mailbox as always. The turn takes out
//! what waits for the item that it reads; where nothing waits it fetches, so whatever is lost here costs one
//! request and no truth. That is why this is memory, bounded in bytes and in age, and not the store.
//!
//! An answer of [`SealedBox::take`] is all that was brought of an item, or nothing: when one notification of several
//! came without, or was too much to keep, the others are not to be trusted to be the newest.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

use crate::{
    clock::SharedClock,
    model::{EventId, MailboxId},
};

/// Most notifications of one item that are kept: opening each costs an RSA operation, fetching is cheaper then.
const MOST_PER_ITEM: usize = 8;

/// An item as it came: texts in base64, nothing of it looked at.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Our name of the certificate that it is sealed for.
    pub certificate: String,
    /// The key of the data, sealed for the certificate.
    pub key: String,
    /// The MAC of the data.
    pub signature: String,
    /// The data, under the key.
    pub data: String,
    /// Who vouches for the delivery that it came with.
    pub delivery: Arc<Delivered>,
}

impl Sealed {
    fn bytes(&self) -> usize {
        let own = [&self.certificate, &self.key, &self.signature, &self.data];
        let tokens = self.delivery.tokens.iter().map(String::len).sum::<usize>();
        own.into_iter().map(String::len).sum::<usize>() + tokens
    }
}

/// What a delivery says of itself as a whole.
#[derive(PartialEq, Eq)]
pub struct Delivered {
    /// Its validation tokens.
    pub tokens: Vec<String>,
    /// The tenants that its notifications name, in lower case; an empty text for one that names none.
    pub tenants: BTreeSet<String>,
}

/// How much is kept, and how long.
#[derive(Debug, Clone, Copy)]
pub struct BoxLimits {
    /// Memory for everything that waits, in bytes.
    pub bytes: usize,
    /// What has waited longer than this is as good as nothing.
    pub age: SignedDuration,
}

impl Default for BoxLimits {
    /// An item has about 2.5 KB, with its token 4 KB: ten thousand wait in 40 MB. A turn comes within seconds, and
    /// one that comes much later has more than single items to read.
    fn default() -> Self {
        Self { bytes: 40 << 20, age: SignedDuration::from_mins(10) }
    }
}

/// Holds what was brought.
pub struct SealedBox {
    clock: SharedClock,
    limits: BoxLimits,
    inner: Mutex<Inner>,
}

type Key = (MailboxId, EventId);

#[derive(Default)]
struct Inner {
    waiting: HashMap<Key, Waiting>,
    /// Who came first.
    order: BTreeMap<u64, Key>,
    arrivals: u64,
    bytes: usize,
    /// Mailboxes that something was brought for.
    mailboxes: HashSet<MailboxId>,
}

struct Waiting {
    arrival: u64,
    since: Timestamp,
    brought: Vec<Sealed>,
    /// Whether a notification of it came without, or could not be kept.
    incomplete: bool,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.brought.iter().map(Sealed::bytes).sum()
    }
}

impl SealedBox {
    /// An empty one.
    pub fn new(limits: BoxLimits, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self { clock, limits, inner: Mutex::default() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, notifications of this mailbox are expected to bring their items.
    pub fn expect(&self, mailbox: MailboxId) {
        self.inner().mailboxes.insert(mailbox);
    }

    /// Whether they are: where they are not, one that comes without need not be [put](Self::put).
    pub fn expects(&self, mailbox: MailboxId) -> bool {
        self.inner().mailboxes.contains(&mailbox)
    }

    /// Notes that a notification of an item came, with the item or without.
    pub fn put(&self, mailbox: MailboxId, item: EventId, sealed: Option<Sealed>) {
        let now = self.clock.now();
        let mut inner = self.inner();
        inner.add((mailbox, item), sealed, now);
        let outdated = inner.drop_while(|_, first| now.duration_since(first.since) > self.limits.age);
        count("expired", outdated);
        let most = self.limits.bytes;
        count("overflow", inner.drop_while(|bytes, _| bytes > most));
    }

    /// Takes out what was brought of an item: all that is to be known of it, or nothing.
    pub fn take(&self, mailbox: MailboxId, item: &EventId) -> Vec<Sealed> {
        let mut inner = self.inner();
        let Some(waiting) = inner.remove(&(mailbox, item.clone())) else { return Vec::new() };
        let outdated = self.clock.now().duration_since(waiting.since) > self.limits.age;
        count("expired", if outdated { waiting.brought.len() } else { 0 });
        if outdated || waiting.incomplete { Vec::new() } else { waiting.brought }
    }
}

impl Inner {
    fn add(&mut self, key: Key, sealed: Option<Sealed>, now: Timestamp) {
        if !self.waiting.contains_key(&key) {
            self.arrivals += 1;
            self.order.insert(self.arrivals, key.clone());
        }
        let arrival = self.arrivals;
        let waiting = self.waiting.entry(key).or_insert_with(|| Waiting {
            arrival,
            since: now,
            brought: Vec::new(),
            incomplete: false,
        });
        match sealed {
            // The same delivery again.
            Some(sealed) if waiting.brought.contains(&sealed) => {}
            Some(sealed) if waiting.brought.len() < MOST_PER_ITEM => {
                self.bytes += sealed.bytes();
                waiting.brought.push(sealed);
            }
            Some(_) => {
                waiting.incomplete = true;
                count("overflow", 1);
            }
            None => waiting.incomplete = true,
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Waiting> {
        let waiting = self.waiting.remove(key)?;
        self.order.remove(&waiting.arrival);
        self.bytes -= waiting.bytes();
        Some(waiting)
    }

    /// Drops the longest waiting as long as `is_over` says so of all bytes and that one; how many notifications it cost.
    fn drop_while(&mut self, is_over: impl Fn(usize, &Waiting) -> bool) -> usize {
        let mut dropped = 0;
        while let Some(key) = self.order.values().next().cloned()
            && self.waiting.get(&key).is_some_and(|first| is_over(self.bytes, first))
        {
            dropped += self.remove(&key).map_or(0, |waiting| waiting.brought.len());
        }
        dropped
    }
}

fn count(outcome: &'static str, notifications: usize) {
    metrics::counter!("narvaro_rich_notifications_total", "outcome" => outcome)
        .increment(notifications as u64);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

    const ANNA: MailboxId = MailboxId(1);

    fn item(id: &str) -> EventId {
        id.parse().unwrap()
    }

    fn sealed(data: &str) -> Sealed {
        let delivery = Delivered { tokens: Vec::new(), tenants: BTreeSet::new() };
        let text = || "x".to_owned();
        let delivery = Arc::new(delivery);
        Sealed { certificate: text(), key: text(), signature: text(), data: data.to_owned(), delivery }
    }

    fn with(bytes: usize) -> (Arc<SealedBox>, Arc<ManualClock>) {
        let clock = ManualClock::at("2026-11-23T08:00:00Z".parse().unwrap());
        let limits = BoxLimits { bytes, age: SignedDuration::from_mins(10) };
        (SealedBox::new(limits, Arc::clone(&clock) as SharedClock), clock)
    }

    fn texts(taken: &[Sealed]) -> Vec<&str> {
        taken.iter().map(|one| one.data.as_str()).collect()
    }

    #[test]
    fn all_that_was_brought_of_an_item_is_taken_once() {
        let (kept, _) = with(1_000);
        kept.put(ANNA, item("a"), Some(sealed("1")));
        kept.put(ANNA, item("a"), Some(sealed("2")));
        kept.put(ANNA, item("a"), Some(sealed("2")));
        kept.put(MailboxId(2), item("a"), Some(sealed("another's")));
        assert_eq!(texts(&kept.take(ANNA, &item("a"))), ["1", "2"]);
        assert!(kept.take(ANNA, &item("a")).is_empty());
        assert_eq!(texts(&kept.take(MailboxId(2), &item("a"))), ["another's"]);
        assert_eq!(kept.inner().bytes, 0);
        assert!(kept.inner().order.is_empty());
    }

    #[test]
    fn one_notification_without_makes_the_others_worth_nothing() {
        let (kept, _) = with(1_000);
        kept.put(ANNA, item("a"), Some(sealed("1")));
        kept.put(ANNA, item("a"), None);
        assert!(kept.take(ANNA, &item("a")).is_empty());
        // In whatever order they come.
        kept.put(ANNA, item("a"), None);
        kept.put(ANNA, item("a"), Some(sealed("1")));
        assert!(kept.take(ANNA, &item("a")).is_empty());
        kept.put(ANNA, item("a"), Some(sealed("2")));
        assert_eq!(texts(&kept.take(ANNA, &item("a"))), ["2"]);
    }

    #[test]
    fn more_than_is_kept_of_one_item_is_worth_nothing() {
        let (kept, _) = with(1_000);
        for n in 0..=MOST_PER_ITEM {
            kept.put(ANNA, item("a"), Some(sealed(&n.to_string())));
        }
        assert!(kept.take(ANNA, &item("a")).is_empty());
    }

    #[test]
    fn too_much_drops_the_longest_waiting_with_all_that_was_brought_of_it() {
        let (kept, _) = with(35);
        kept.put(ANNA, item("a"), Some(sealed("0123456789")));
        kept.put(ANNA, item("b"), Some(sealed("0123456789")));
        kept.put(ANNA, item("a"), Some(sealed("9876543210")));
        assert!(kept.take(ANNA, &item("a")).is_empty());
        assert_eq!(texts(&kept.take(ANNA, &item("b"))), ["0123456789"]);
        assert_eq!(kept.inner().bytes, 0);
    }

    #[test]
    fn what_has_waited_too_long_is_worth_nothing() {
        let (kept, clock) = with(1_000);
        kept.put(ANNA, item("a"), Some(sealed("1")));
        kept.put(ANNA, item("b"), Some(sealed("1")));
        clock.advance(Duration::from_secs(601));
        assert!(kept.take(ANNA, &item("a")).is_empty());
        kept.put(ANNA, item("c"), Some(sealed("1")));
        assert_eq!(kept.inner().waiting.len(), 1);
    }
}
