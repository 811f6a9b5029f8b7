//! What makes a mailbox due, and how several such things become one.

use std::ops::AddAssign;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{MOST_HINTS, Urgency};
use crate::model::{EventId, ItemVersion, MailboxId};

/// Why a mailbox is due, when it is not its own timetable that says so. Numbers are stored and below 63; a version side by
/// side with this one may know more of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u8", from = "u64")]
#[repr(u8)]
pub enum Reason {
    /// The calendar server says that an item changed.
    Notification = 0,
    /// It says that it could not deliver some notifications.
    Missed = 1,
    /// It wants the subscription confirmed.
    Reauthorize = 2,
    /// It has removed the subscription.
    Removed = 3,
    /// Rules, users or profiles were applied.
    Applied = 4,
    /// A person asked for it.
    Asked = 5,
    /// The service has started.
    Started = 6,
    /// The PBX says that something may show differently.
    PbxChanged = 7,
    /// The link to the PBX is up again.
    PbxLinkUp = 8,
    /// A person asked for the subscription to be renewed.
    RenewAsked = 9,
    /// The mailbox's user was taken out of the company.
    Retired = 10,
    /// The company's consent changed.
    Consent = 11,
    /// Another store is there, or it was started anew: what it was told last may be lost.
    StoreChanged = 12,
    /// Something that only a newer version knows: everything is read.
    Unknown = 63,
}

/// Those that this version knows, each at its number.
const REASONS: [Reason; 13] = [
    Reason::Notification,
    Reason::Missed,
    Reason::Reauthorize,
    Reason::Removed,
    Reason::Applied,
    Reason::Asked,
    Reason::Started,
    Reason::PbxChanged,
    Reason::PbxLinkUp,
    Reason::RenewAsked,
    Reason::Retired,
    Reason::Consent,
    Reason::StoreChanged,
];

impl Reason {
    /// Short name, for metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Notification => "notification",
            Self::Missed => "missed",
            Self::Reauthorize => "reauthorize",
            Self::Removed => "removed",
            Self::Applied => "applied",
            Self::Asked => "asked",
            Self::Started => "started",
            Self::PbxChanged => "pbx_changed",
            Self::PbxLinkUp => "pbx_link_up",
            Self::RenewAsked => "renew_asked",
            Self::Retired => "retired",
            Self::Consent => "consent",
            Self::StoreChanged => "store_changed",
            Self::Unknown => "unknown",
        }
    }

    /// How urgent a mailbox is that is due because of this.
    pub fn urgency(self) -> Urgency {
        match self {
            Self::Notification | Self::PbxChanged | Self::PbxLinkUp | Self::Asked | Self::Retired => {
                Urgency::Now
            }
            Self::Missed
            | Self::Removed
            | Self::Applied
            | Self::Started
            | Self::Consent
            | Self::StoreChanged
            | Self::Unknown => Urgency::Soon,
            Self::Reauthorize | Self::RenewAsked => Urgency::Upkeep,
        }
    }
}

impl From<Reason> for u8 {
    fn from(reason: Reason) -> Self {
        reason as Self
    }
}

impl From<u64> for Reason {
    fn from(number: u64) -> Self {
        let known = usize::try_from(number).ok().and_then(|number| REASONS.get(number));
        known.copied().unwrap_or(Self::Unknown)
    }
}

/// Most subscriptions of one mailbox that are told apart; more than can be speaking at a time.
const MOST_WATCHES: usize = 8;

/// The bits of those that this version knows.
const KNOWN: u64 = (1 << REASONS.len()) - 1;

/// A set of reasons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reasons(u64);

impl Reasons {
    /// No reason.
    pub const NONE: Self = Self(0);

    /// Adds one.
    pub fn insert(&mut self, reason: Reason) {
        self.0 |= 1 << (reason as u64);
    }

    /// Takes one out; whether it was among them.
    pub fn remove(&mut self, reason: Reason) -> bool {
        let had = self.contains(reason);
        self.0 &= !bits_of(reason);
        had
    }

    /// Whether it is among them.
    pub fn contains(self, reason: Reason) -> bool {
        self.0 & bits_of(reason) != 0
    }

    /// Whether any of these is among them.
    pub fn any(self, reasons: &[Reason]) -> bool {
        reasons.iter().any(|reason| self.contains(*reason))
    }

    /// Both sets.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Reason> {
        REASONS.into_iter().chain([Reason::Unknown]).filter(move |reason| self.contains(*reason))
    }
}

/// By which bits a reason is told. What newer versions say is one thing here.
fn bits_of(reason: Reason) -> u64 {
    match reason {
        Reason::Unknown => !KNOWN,
        known => 1 << (known as u64),
    }
}

/// Which item changed, and into which version: a hint, never data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// The item's immutable id.
    pub item: EventId,
    /// Into which version; the same again is a duplicate. `None`: no version was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<ItemVersion>,
}

impl Hint {
    /// Whether `other` says nothing that this does not say.
    fn covers(&self, other: &Self) -> bool {
        self.item == other.item && (self.version.is_none() || self.version == other.version)
    }
}

/// *Mailbox M is due at time T, because of R.*
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Which mailbox.
    pub mailbox: MailboxId,
    /// From when on.
    pub at: Timestamp,
    /// Why.
    pub reason: Reason,
    /// Which of the mailbox's subscriptions says so, by its generation; `None` where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<u32>,
    /// Which item, for a notification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<Hint>,
}

impl Mark {
    /// Due at `at` because of `reason`, with no particular item.
    pub fn new(mailbox: MailboxId, at: Timestamp, reason: Reason) -> Self {
        Self { mailbox, at, reason, watch: None, hint: None }
    }

    /// Due at `at` because of what is said of, or by, one subscription.
    pub fn of_watch(mailbox: MailboxId, at: Timestamp, reason: Reason, generation: u32) -> Self {
        Self { watch: Some(generation), ..Self::new(mailbox, at, reason) }
    }
}

/// What the marks of one mailbox have come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gathered {
    /// All their reasons.
    #[serde(default)]
    pub reasons: Reasons,
    /// Items that changed, each once; meaningful only while `overflow` is false.
    #[serde(default)]
    pub hints: Vec<Hint>,
    /// Whether more changed than is kept, or a change came without an item: read everything.
    #[serde(default)]
    pub overflow: bool,
    /// For which subscriptions they spoke, each once: whoever made the mark had no way to know which one lives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watches: Vec<(Reason, u32)>,
    /// When the first of them was made: where the time to presence is measured from.
    #[serde(default)]
    pub since: Option<Timestamp>,
}

impl Gathered {
    /// Adds a mark.
    pub fn add(&mut self, mark: Mark) {
        self.reasons.insert(mark.reason);
        self.since = Some(self.since.map_or(mark.at, |since| since.min(mark.at)));
        if let Some(generation) = mark.watch {
            self.add_watch((mark.reason, generation));
        }
        match mark.hint {
            Some(hint) => self.add_hint(hint),
            None => self.overflow |= mark.reason == Reason::Notification,
        }
    }

    fn add_hint(&mut self, hint: Hint) {
        if self.overflow {
            return;
        }
        if let Some(known) = self.hints.iter_mut().find(|known| known.item == hint.item) {
            // Notifications come in any order: of two versions nobody knows which is the newer one.
            known.version = known.version.filter(|version| hint.version == Some(*version));
            return;
        }
        if self.hints.len() == MOST_HINTS {
            self.hints.clear();
            self.overflow = true;
        } else {
            self.hints.push(hint);
        }
    }

    fn add_watch(&mut self, watch: (Reason, u32)) {
        if self.watches.contains(&watch) {
            return;
        }
        self.watches.push(watch);
        if self.watches.len() > MOST_WATCHES {
            // The oldest subscription is the least likely to live.
            self.watches.sort_unstable_by_key(|(_, generation)| std::cmp::Reverse(*generation));
            self.watches.truncate(MOST_WATCHES);
        }
    }

    /// Takes out for which subscriptions this reason spoke.
    pub fn take_watches(&mut self, reason: Reason) -> Vec<u32> {
        let taken = self.watches.extract_if(.., |(other, _)| *other == reason);
        taken.map(|(_, generation)| generation).collect()
    }

    /// Adds what another has gathered.
    pub fn merge(&mut self, other: &Self) {
        self.reasons = self.reasons.union(other.reasons);
        self.since = match (self.since, other.since) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.overflow |= other.overflow;
        for hint in &other.hints {
            self.add_hint(hint.clone());
        }
        if self.overflow {
            self.hints.clear();
        }
        for watch in &other.watches {
            self.add_watch(*watch);
        }
    }

    /// Whether it already says all that `mark` says.
    pub fn covers(&self, mark: &Mark) -> bool {
        self.reasons.contains(mark.reason)
            && mark.watch.is_none_or(|generation| self.watches.contains(&(mark.reason, generation)))
            && match &mark.hint {
                Some(hint) => self.overflow || self.hints.iter().any(|known| known.covers(hint)),
                None => mark.reason != Reason::Notification || self.overflow,
            }
    }

    /// Whether nothing has gathered.
    pub fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }

    /// Marks that come to just this, for a store that keeps marks; each is as old as the oldest.
    pub fn marks(&self, mailbox: MailboxId) -> Vec<Mark> {
        let at = self.since.unwrap_or(Timestamp::UNIX_EPOCH);
        let notification = |watch, hint: Option<&Hint>| {
            let hint = hint.cloned();
            Mark { watch, hint, ..Mark::new(mailbox, at, Reason::Notification) }
        };
        // Which subscription spoke of which item is not kept; that one is said again changes nothing.
        let of_watches = self.watches.iter().map(|(reason, generation)| match reason {
            Reason::Notification => notification(Some(*generation), self.hints.first()),
            other => Mark::of_watch(mailbox, at, *other, *generation),
        });
        let mut marks: Vec<Mark> = of_watches.collect();
        marks.extend(self.hints.iter().map(|hint| notification(None, Some(hint))));
        marks.extend(self.overflow.then(|| notification(None, None)));
        let bare: Vec<Reason> =
            self.reasons.iter().filter(|reason| marks.iter().all(|mark| mark.reason != *reason)).collect();
        marks.extend(bare.into_iter().map(|reason| Mark::new(mailbox, at, reason)));
        marks
    }
}

/// What became of marks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Stored.
    pub marked: usize,
    /// Known already: the same version of the same item was marked before.
    pub duplicate: usize,
    /// Said nothing that was not waiting already.
    pub coalesced: usize,
    /// For a mailbox that does not exist (any more).
    pub unknown: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.marked += other.marked;
        self.duplicate += other.duplicate;
        self.coalesced += other.coalesced;
        self.unknown += other.unknown;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mark(item: Option<&str>) -> Mark {
        Mark {
            mailbox: MailboxId(1),
            at: Timestamp::UNIX_EPOCH,
            reason: Reason::Notification,
            watch: None,
            hint: item.map(|item| Hint { item: item.parse().unwrap(), version: None }),
        }
    }

    #[test]
    fn more_items_than_are_kept_ask_for_a_complete_read() {
        let mut gathered = Gathered::default();
        for n in 0..=MOST_HINTS {
            gathered.add(mark(Some(&format!("item-{n}"))));
        }
        assert!(gathered.overflow);
        assert!(gathered.hints.is_empty());
        assert!(gathered.covers(&mark(Some("item-99"))));
    }

    #[test]
    fn a_notification_without_an_item_asks_for_a_complete_read() {
        let mut gathered = Gathered::default();
        gathered.add(mark(None));
        assert!(gathered.overflow);
    }

    #[test]
    fn the_same_item_is_kept_once() {
        let mut gathered = Gathered::default();
        gathered.add(mark(Some("a")));
        gathered.add(mark(Some("a")));
        assert_eq!(gathered.hints.len(), 1);
        assert!(gathered.covers(&mark(Some("a"))));
        assert!(!gathered.covers(&mark(Some("b"))));
    }

    #[test]
    fn what_is_said_of_another_subscription_is_something_new() {
        let removed =
            |generation| Mark::of_watch(MailboxId(1), Timestamp::UNIX_EPOCH, Reason::Removed, generation);
        let mut gathered = Gathered::default();
        gathered.add(removed(1));
        assert!(gathered.covers(&removed(1)));
        assert!(!gathered.covers(&removed(2)));
        gathered.add(removed(2));
        gathered.add(Mark { watch: Some(2), ..mark(Some("a")) });
        let document = serde_json::to_vec(&gathered).unwrap();
        let mut gathered: Gathered = serde_json::from_slice(&document).unwrap();
        assert_eq!(gathered.take_watches(Reason::Removed), [1, 2]);
        assert!(gathered.take_watches(Reason::Removed).is_empty());
        assert_eq!(gathered.take_watches(Reason::Notification), [2]);
    }

    #[test]
    fn of_many_subscriptions_the_newest_are_kept() {
        let mut gathered = Gathered::default();
        for generation in 0..100 {
            gathered.add(Mark::of_watch(MailboxId(1), Timestamp::UNIX_EPOCH, Reason::Removed, generation));
        }
        let mut kept = gathered.take_watches(Reason::Removed);
        kept.sort_unstable();
        assert_eq!(kept, (92..100).collect::<Vec<_>>());
    }

    fn any_mark() -> impl Strategy<Value = Mark> {
        let hint = proptest::option::of(("[a-e]{1,2}", proptest::option::of(0_u64..3)));
        (0_u64..12, proptest::option::of(0_u32..20), hint, 0_i64..1_000).prop_map(
            |(reason, watch, hint, at)| {
                let reason = Reason::from(reason);
                // Only a notification speaks of an item.
                let hint = hint.filter(|_| reason == Reason::Notification).map(|(item, version)| Hint {
                    item: item.parse().unwrap(),
                    version: version.map(ItemVersion::from_bits),
                });
                Mark { mailbox: MailboxId(1), at: Timestamp::from_second(at).unwrap(), reason, watch, hint }
            },
        )
    }

    proptest! {
        #[test]
        fn what_has_gathered_comes_to_the_same_again_from_its_marks(marks in proptest::collection::vec(any_mark(), 0..40)) {
            let gather = |marks: Vec<Mark>| {
                let mut gathered = Gathered::default();
                marks.into_iter().for_each(|mark| gathered.add(mark));
                gathered
            };
            let gathered = gather(marks);
            prop_assert_eq!(&gather(gathered.marks(MailboxId(1))), &gathered);
        }
    }

    #[test]
    fn every_reason_survives_its_number() {
        for reason in REASONS {
            assert_eq!(Reason::from(u64::from(u8::from(reason))), reason);
        }
        assert_eq!(Reason::from(u64::from(u8::from(Reason::Unknown))), Reason::Unknown);
    }

    #[test]
    fn what_only_a_newer_version_knows_is_one_reason_here() {
        let document = br#"{"reasons":1152921504606846985,"watches":[[3,1],[60,2],[1000,3]],"mood":"new"}"#;
        let mut gathered: Gathered = serde_json::from_slice(document).unwrap();
        let reasons: Vec<_> = gathered.reasons.iter().collect();
        assert_eq!(reasons, [Reason::Notification, Reason::Removed, Reason::Unknown]);
        assert_eq!(gathered.take_watches(Reason::Removed), [1]);
        assert_eq!(gathered.take_watches(Reason::Unknown), [2, 3]);
        assert!(gathered.reasons.remove(Reason::Unknown) && !gathered.reasons.contains(Reason::Unknown));
        let mark = br#"{"mailbox":1,"at":"2026-11-23T08:00:00Z","reason":42,"mood":"new"}"#;
        let mark: Mark = serde_json::from_slice(mark).unwrap();
        assert_eq!(mark.reason, Reason::Unknown);
        gathered.add(mark);
        let again: Gathered = serde_json::from_slice(&serde_json::to_vec(&gathered).unwrap()).unwrap();
        assert!(again.reasons.contains(Reason::Unknown));
    }
}
