//! What notifications brought of their items, sealed as it came, until the mailbox's turn reads the item.
//!
//! A company may have its events sent along with the notifications ("rich" notifications). The receiver does not open
//! them: it puts them here, after `clientState` has verified, and marks the mailbox as always. The turn takes out
//! what waits for the item that it reads; where nothing waits it fetches, so whatever is lost here costs one
//! request and no truth. That is why this is memory, bounded in bytes and in age, and not the store.
//!
//! An answer of [`SealedBox::take`] is all that was brought of an item, or nothing: when one notification of several
//! came without, or was too much to keep, the others are not to be trusted to be the newest. It says as well since when
//! nothing was lost: what was changed before that may have a successor that was dropped here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    mem::size_of,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

use crate::{
    clock::SharedClock,
    model::{EventId, MailboxId},
};

/// Most notifications of one item that are kept: opening each costs an RSA operation, fetching is cheaper then.
const MOST_PER_ITEM: usize = 8;

/// What an item takes beside its ids and what was brought of it, about, in bytes: its places in both maps.
const PLACE_BYTES: usize = 256;

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
    /// Which of the mailbox's subscriptions it came by, by its generation.
    pub watch: u32,
    /// Who vouches for the delivery that it came with.
    pub delivery: Arc<Delivered>,
}

impl Sealed {
    fn bytes(&self) -> usize {
        let own = [&self.certificate, &self.key, &self.signature, &self.data];
        let tokens = self.delivery.tokens.iter().map(String::len).sum::<usize>();
        own.into_iter().map(String::len).sum::<usize>() + tokens + size_of::<Self>()
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

/// What was brought of an item.
pub struct Taken {
    /// All of it, or nothing.
    pub sealed: Vec<Sealed>,
    /// Nothing that came for the mailbox after this was dropped.
    pub complete_since: Timestamp,
}

type Key = (MailboxId, EventId);

fn place_bytes((_, item): &Key) -> usize {
    PLACE_BYTES + 2 * item.as_str().len()
}

#[derive(Default)]
struct Inner {
    waiting: HashMap<Key, Waiting>,
    /// Who came first.
    order: BTreeMap<u64, Key>,
    arrivals: u64,
    bytes: usize,
    /// Mailboxes whose items are expected, and since when nothing that was brought for them was dropped.
    complete_since: HashMap<MailboxId, Timestamp>,
}

struct Waiting {
    arrival: u64,
    since: Timestamp,
    latest: Timestamp,
    /// Nothing where a notification came without, or could not be kept.
    brought: Option<Vec<Sealed>>,
}

impl Waiting {
    fn brought(&self) -> &[Sealed] {
        self.brought.as_deref().unwrap_or_default()
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
        let now = self.clock.now();
        self.inner().complete_since.entry(mailbox).or_insert(now);
    }

    /// Whether they are: where they are not, nothing need be [put](Self::put).
    pub fn expects(&self, mailbox: MailboxId) -> bool {
        self.inner().complete_since.contains_key(&mailbox)
    }

    /// Notes that a notification of an item came, with the item or without.
    pub fn put(&self, mailbox: MailboxId, item: EventId, sealed: Option<Sealed>) {
        let now = self.clock.now();
        let mut inner = self.inner();
        if !inner.complete_since.contains_key(&mailbox) {
            return;
        }
        inner.add((mailbox, item), sealed, now);
        let outdated = inner.drop_while(|_, first| now.duration_since(first.since) > self.limits.age);
        count("expired", outdated);
        let most = self.limits.bytes;
        count("overflow", inner.drop_while(|bytes, _| bytes > most));
    }

    /// Takes out what was brought of an item: all that is to be known of it, or nothing.
    pub fn take(&self, mailbox: MailboxId, item: &EventId) -> Taken {
        let now = self.clock.now();
        let mut inner = self.inner();
        let complete_since = inner.complete_since.get(&mailbox).copied().unwrap_or(now);
        let waiting = inner.remove(&(mailbox, item.clone()));
        let outdated =
            waiting.as_ref().is_some_and(|waiting| now.duration_since(waiting.since) > self.limits.age);
        let mut sealed = waiting.and_then(|waiting| waiting.brought).unwrap_or_default();
        if outdated {
            count("expired", sealed.len());
            sealed.clear();
        }
        Taken { sealed, complete_since }
    }
}

impl Inner {
    fn add(&mut self, key: Key, sealed: Option<Sealed>, now: Timestamp) {
        let waiting = match self.waiting.entry(key) {
            Entry::Occupied(waiting) => waiting.into_mut(),
            Entry::Vacant(place) => {
                self.arrivals += 1;
                self.order.insert(self.arrivals, place.key().clone());
                self.bytes += place_bytes(place.key());
                let brought = Some(Vec::new());
                place.insert(Waiting { arrival: self.arrivals, since: now, latest: now, brought })
            }
        };
        waiting.latest = now;
        let Some(brought) = &mut waiting.brought else { return };
        match sealed {
            // The same delivery again.
            Some(sealed) if brought.contains(&sealed) => {}
            Some(sealed) if brought.len() < MOST_PER_ITEM => {
                self.bytes += sealed.bytes();
                brought.push(sealed);
            }
            incomplete => {
                count("overflow", usize::from(incomplete.is_some()));
                self.bytes -= brought.iter().map(Sealed::bytes).sum::<usize>();
                waiting.brought = None;
            }
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Waiting> {
        let waiting = self.waiting.remove(key)?;
        self.order.remove(&waiting.arrival);
        self.bytes -= place_bytes(key) + waiting.brought().iter().map(Sealed::bytes).sum::<usize>();
        Some(waiting)
    }

    /// Drops the longest waiting as long as `is_over` says so of all bytes and that one; how many notifications it cost.
    fn drop_while(&mut self, is_over: impl Fn(usize, &Waiting) -> bool) -> usize {
        let mut dropped = 0;
        while let Some(key) = self.order.values().next().cloned()
            && self.waiting.get(&key).is_some_and(|first| is_over(self.bytes, first))
        {
            let Some(waiting) = self.remove(&key) else { break };
            dropped += waiting.brought().len();
            let since = self.complete_since.entry(key.0).or_insert(waiting.latest);
            *since = waiting.latest.max(*since);
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
    use crate::clock::{Clock, ManualClock};

    const ANNA: MailboxId = MailboxId(1);

    fn item(id: &str) -> EventId {
        id.parse().unwrap()
    }

    fn sealed(data: &str) -> Sealed {
        let delivery = Delivered { tokens: Vec::new(), tenants: BTreeSet::new() };
        let text = || "x".to_owned();
        let delivery = Arc::new(delivery);
        let data = data.to_owned();
        Sealed { certificate: text(), key: text(), signature: text(), data, watch: 1, delivery }
    }

    fn with(bytes: usize) -> (Arc<SealedBox>, Arc<ManualClock>) {
        let clock = ManualClock::at("2026-11-23T08:00:00Z".parse().unwrap());
        let limits = BoxLimits { bytes, age: SignedDuration::from_mins(10) };
        let kept = SealedBox::new(limits, Arc::clone(&clock) as SharedClock);
        kept.expect(ANNA);
        kept.expect(MailboxId(2));
        (kept, clock)
    }

    /// Room for this many items, with ten bytes brought of each.
    fn room_for(items: usize) -> usize {
        items * (place_bytes(&(ANNA, item("a"))) + sealed("0123456789").bytes())
    }

    fn taken(kept: &SealedBox, mailbox: MailboxId, id: &str) -> Vec<String> {
        kept.take(mailbox, &item(id)).sealed.into_iter().map(|one| one.data).collect()
    }

    #[test]
    fn all_that_was_brought_of_an_item_is_taken_once() {
        let (kept, _) = with(room_for(20));
        kept.put(ANNA, item("a"), Some(sealed("1")));
        kept.put(ANNA, item("a"), Some(sealed("2")));
        kept.put(ANNA, item("a"), Some(sealed("2")));
        kept.put(MailboxId(2), item("a"), Some(sealed("another's")));
        assert_eq!(taken(&kept, ANNA, "a"), ["1", "2"]);
        assert!(taken(&kept, ANNA, "a").is_empty());
        assert_eq!(taken(&kept, MailboxId(2), "a"), ["another's"]);
        assert_eq!(kept.inner().bytes, 0);
        assert!(kept.inner().order.is_empty());
    }

    #[test]
    fn one_notification_without_makes_the_others_worth_nothing() {
        let (kept, _) = with(room_for(20));
        kept.put(ANNA, item("a"), Some(sealed("1")));
        kept.put(ANNA, item("a"), None);
        assert!(taken(&kept, ANNA, "a").is_empty());
        // In whatever order they come.
        kept.put(ANNA, item("a"), None);
        kept.put(ANNA, item("a"), Some(sealed("1")));
        assert!(taken(&kept, ANNA, "a").is_empty());
        kept.put(ANNA, item("a"), Some(sealed("2")));
        assert_eq!(taken(&kept, ANNA, "a"), ["2"]);
    }

    #[test]
    fn more_than_is_kept_of_one_item_is_worth_nothing() {
        let (kept, _) = with(room_for(20));
        for n in 0..=MOST_PER_ITEM {
            kept.put(ANNA, item("a"), Some(sealed(&n.to_string())));
        }
        assert!(taken(&kept, ANNA, "a").is_empty());
    }

    #[test]
    fn too_much_drops_the_longest_waiting_with_all_that_was_brought_of_it() {
        let (kept, _) = with(room_for(2) + 10);
        kept.put(ANNA, item("a"), Some(sealed("0123456789")));
        kept.put(ANNA, item("b"), Some(sealed("0123456789")));
        kept.put(ANNA, item("a"), Some(sealed("9876543210")));
        assert!(taken(&kept, ANNA, "a").is_empty());
        assert_eq!(taken(&kept, ANNA, "b"), ["0123456789"]);
        assert_eq!(kept.inner().bytes, 0);
    }

    #[test]
    fn what_has_waited_too_long_is_worth_nothing() {
        let (kept, clock) = with(room_for(20));
        kept.put(ANNA, item("a"), Some(sealed("1")));
        kept.put(ANNA, item("b"), Some(sealed("1")));
        clock.advance(Duration::from_secs(601));
        assert!(taken(&kept, ANNA, "a").is_empty());
        kept.put(ANNA, item("c"), Some(sealed("1")));
        assert_eq!(kept.inner().waiting.len(), 1);
    }

    #[test]
    fn nothing_is_kept_for_a_mailbox_that_brings_nothing() {
        let (kept, _) = with(room_for(20));
        kept.put(MailboxId(3), item("a"), Some(sealed("1")));
        kept.put(MailboxId(3), item("b"), None);
        assert!(kept.inner().waiting.is_empty());
        assert_eq!(kept.inner().bytes, 0);
    }

    #[test]
    fn what_comes_without_or_empty_takes_room_too() {
        let (kept, _) = with(room_for(3));
        for n in 0..100 {
            kept.put(ANNA, item(&format!("without {n}")), None);
            kept.put(ANNA, item(&format!("empty {n}")), Some(sealed("")));
        }
        let inner = kept.inner();
        assert!(inner.bytes <= room_for(3));
        assert!(inner.waiting.len() < 10);
        assert_eq!(inner.order.len(), inner.waiting.len());
    }

    #[test]
    fn what_is_worth_nothing_takes_no_room_for_its_content() {
        let (kept, _) = with(room_for(20));
        kept.put(ANNA, item("a"), Some(sealed("0123456789")));
        kept.put(ANNA, item("a"), None);
        assert_eq!(kept.inner().bytes, place_bytes(&(ANNA, item("a"))));
        assert!(taken(&kept, ANNA, "a").is_empty());
        assert_eq!(kept.inner().bytes, 0);
    }

    #[test]
    fn what_was_dropped_is_told_by_the_moment_since_when_all_is_here() {
        let (kept, clock) = with(room_for(2));
        let begun = clock.now();
        let since = |mailbox: MailboxId| kept.take(mailbox, &item("none")).complete_since;
        kept.put(ANNA, item("a"), Some(sealed("0123456789")));
        clock.advance(Duration::from_secs(60));
        kept.put(ANNA, item("a"), Some(sealed("0")));
        assert_eq!((since(ANNA), since(MailboxId(2))), (begun, begun));
        // Too much: the newest of what was dropped counts.
        clock.advance(Duration::from_secs(60));
        kept.put(MailboxId(2), item("b"), Some(sealed("0123456789")));
        let first = begun + SignedDuration::from_mins(1);
        assert_eq!((since(ANNA), since(MailboxId(2))), (first, begun));
        // Too long.
        clock.advance(Duration::from_secs(601));
        kept.put(ANNA, item("c"), Some(sealed("0")));
        let second = begun + SignedDuration::from_mins(2);
        assert_eq!((since(ANNA), since(MailboxId(2))), (first, second));
        // To be expected once more makes nothing complete or incomplete.
        kept.expect(ANNA);
        assert_eq!(since(ANNA), first);
    }
}
