//! Who is due, in memory: the embedded store has one process, so the order of work need not be on disk.
//!
//! On disk are each mailbox's own due time and the log of marks not yet worked off; from these two this index
//! is built at start. It is pure: the caller passes the time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    hash::BuildHasher,
};

use foldhash::quality::RandomState;
use jiff::Timestamp;

use crate::{
    model::{CompanyId, Generation, MailboxId},
    queue::{Depth, Gathered, Mark, Tally, Urgency},
};

/// Fingerprints of marks made lately, to know a second delivery again. 64 bits keyed at start: one chance
/// in 10^14 that a new mark is taken for an old one. 2^15 of them are about a minute at 500 a second,
/// and 1 MB. The hash is fast and no shield: what is hashed comes from Graph, or it is not a mark.
const SEEN: usize = 1 << 15;

/// How long a mailbox rests whose turn could not be stored.
const STORE_PAUSE: jiff::SignedDuration = jiff::SignedDuration::from_secs(2);

/// How many mailboxes become ready in one go, so that a full hour does not hold the lock for long.
const PROMOTE: usize = 4_096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Not due by itself, or leased.
    Nowhere,
    /// Due later.
    Timed(Timestamp),
    /// Due.
    Ready(Urgency, Timestamp),
}

#[derive(Debug, Default)]
struct Waiting {
    gathered: Gathered,
    due: Option<Timestamp>,
    /// First entry of the log that is not worked off; `None` for marks that need not survive.
    first_entry: Option<u64>,
}

#[derive(Debug)]
struct Held {
    generation: Generation,
    until: Timestamp,
    gathered: Gathered,
    first_entry: Option<u64>,
    settling: bool,
}

#[derive(Debug)]
struct Slot {
    company: u32,
    due: Option<Timestamp>,
    urgency: Urgency,
    place: Place,
    waiting: Option<Box<Waiting>>,
    held: Option<Box<Held>>,
}

#[derive(Debug)]
struct CompanyQueue {
    id: CompanyId,
    ready: BTreeSet<(Urgency, Timestamp, MailboxId)>,
    leased: usize,
    head: Option<(Urgency, Timestamp)>,
}

/// A lease as the index gives it; the store adds the documents.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) mailbox: MailboxId,
    pub(super) company: CompanyId,
    pub(super) generation: Generation,
    pub(super) until: Timestamp,
    pub(super) gathered: Gathered,
}

/// The index.
#[derive(Debug)]
pub(super) struct DueIndex {
    slots: HashMap<MailboxId, Slot, RandomState>,
    companies: Vec<CompanyQueue>,
    numbers: HashMap<CompanyId, u32>,
    /// Companies that have something ready and room for a lease, by their most urgent.
    heads: BTreeSet<(Urgency, Timestamp, u32)>,
    timed: BTreeSet<(Timestamp, MailboxId)>,
    leases: BTreeSet<(Timestamp, MailboxId)>,
    /// Log entries not worked off, with how many mailboxes have them as their first.
    entries: BTreeMap<u64, usize>,
    seen: HashSet<u64, RandomState>,
    seen_order: VecDeque<u64>,
    hasher: RandomState,
    ready: usize,
    next_generation: u64,
    most_per_company: usize,
}

impl DueIndex {
    /// An empty index; generations start above those of every earlier `epoch`.
    pub(super) fn new(epoch: u32, most_per_company: usize) -> Self {
        Self {
            slots: HashMap::default(),
            companies: Vec::new(),
            numbers: HashMap::new(),
            heads: BTreeSet::new(),
            timed: BTreeSet::new(),
            leases: BTreeSet::new(),
            entries: BTreeMap::new(),
            seen: HashSet::default(),
            seen_order: VecDeque::new(),
            hasher: RandomState::default(),
            ready: 0,
            next_generation: (u64::from(epoch) << 32) + 1,
            most_per_company: most_per_company.max(1),
        }
    }

    /// Adds a mailbox; one that is known already stays as it is.
    pub(super) fn add(
        &mut self,
        mailbox: MailboxId,
        company: &CompanyId,
        due: Option<Timestamp>,
        urgency: Urgency,
        now: Timestamp,
    ) {
        if self.slots.contains_key(&mailbox) {
            return;
        }
        let company = self.number(company);
        let slot = Slot { company, due, urgency, place: Place::Nowhere, waiting: None, held: None };
        self.slots.insert(mailbox, slot);
        self.place(mailbox, now);
    }

    fn number(&mut self, company: &CompanyId) -> u32 {
        if let Some(number) = self.numbers.get(company) {
            return *number;
        }
        let number = u32::try_from(self.companies.len()).unwrap_or(u32::MAX);
        self.companies.push(CompanyQueue {
            id: company.clone(),
            ready: BTreeSet::new(),
            leased: 0,
            head: None,
        });
        self.numbers.insert(company.clone(), number);
        number
    }

    fn fingerprint(&self, mark: &Mark) -> Option<u64> {
        let hint = mark.hint.as_ref()?;
        Some(self.hasher.hash_one((mark.mailbox, hint.item.as_str(), hint.version?)))
    }

    /// Takes out of `marks` what need not be stored, and counts it.
    pub(super) fn sift(&self, marks: &mut Vec<Mark>) -> Tally {
        let mut tally = Tally::default();
        marks.retain(|mark| {
            let Some(slot) = self.slots.get(&mark.mailbox) else {
                tally.unknown += 1;
                return false;
            };
            if self.fingerprint(mark).is_some_and(|print| self.seen.contains(&print)) {
                tally.duplicate += 1;
                return false;
            }
            // Only what is durable covers: a mark that needs no entry must not stand for one that does.
            let covered = slot.waiting.as_ref().is_some_and(|waiting| {
                waiting.first_entry.is_some()
                    && waiting.due.is_some_and(|due| due <= mark.at)
                    && waiting.gathered.covers(mark)
            });
            if covered {
                tally.coalesced += 1;
            } else {
                tally.marked += 1;
            }
            !covered
        });
        tally
    }

    /// Enters a mark that is durable as entry `entry` of the log, or that need not be.
    pub(super) fn enter(&mut self, mark: Mark, entry: Option<u64>, now: Timestamp) {
        if entry.is_some()
            && let Some(print) = self.fingerprint(&mark)
        {
            self.remember(print);
        }
        let Some(slot) = self.slots.get_mut(&mark.mailbox) else { return };
        let (mailbox, at) = (mark.mailbox, mark.at);
        let waiting = slot.waiting.get_or_insert_default();
        waiting.gathered.add(mark);
        waiting.due = Some(waiting.due.map_or(at, |due| due.min(at)));
        if waiting.first_entry.is_none()
            && let Some(entry) = entry
        {
            waiting.first_entry = Some(entry);
            *self.entries.entry(entry).or_default() += 1;
        }
        self.place(mailbox, now);
    }

    fn remember(&mut self, print: u64) {
        if self.seen.insert(print) {
            self.seen_order.push_back(print);
            if self.seen_order.len() > SEEN
                && let Some(oldest) = self.seen_order.pop_front()
            {
                self.seen.remove(&oldest);
            }
        }
    }

    /// Puts a mailbox where its due times say.
    fn place(&mut self, mailbox: MailboxId, now: Timestamp) {
        let Some(slot) = self.slots.get(&mailbox) else { return };
        let place = if slot.held.is_some() { Place::Nowhere } else { slot.wanted_place(now) };
        self.move_to(mailbox, place);
    }

    fn move_to(&mut self, mailbox: MailboxId, place: Place) {
        let Some(slot) = self.slots.get_mut(&mailbox) else { return };
        let before = std::mem::replace(&mut slot.place, place);
        if before == place {
            return;
        }
        let company = slot.company;
        match before {
            Place::Nowhere => {}
            Place::Timed(at) => {
                self.timed.remove(&(at, mailbox));
            }
            Place::Ready(urgency, at) => {
                self.ready -= 1;
                self.queue(company).ready.remove(&(urgency, at, mailbox));
            }
        }
        match place {
            Place::Nowhere => {}
            Place::Timed(at) => {
                self.timed.insert((at, mailbox));
            }
            Place::Ready(urgency, at) => {
                self.ready += 1;
                self.queue(company).ready.insert((urgency, at, mailbox));
            }
        }
        self.refresh_head(company);
    }

    fn queue(&mut self, company: u32) -> &mut CompanyQueue {
        &mut self.companies[company as usize]
    }

    fn refresh_head(&mut self, company: u32) {
        let most = self.most_per_company;
        let queue = self.queue(company);
        let head = if queue.leased < most {
            queue.ready.first().map(|(urgency, at, _)| (*urgency, *at))
        } else {
            None
        };
        let before = std::mem::replace(&mut queue.head, head);
        if before == head {
            return;
        }
        if let Some((urgency, at)) = before {
            self.heads.remove(&(urgency, at, company));
        }
        if let Some((urgency, at)) = head {
            self.heads.insert((urgency, at, company));
        }
    }

    fn promote(&mut self, now: Timestamp) {
        for _ in 0..PROMOTE {
            match self.timed.first() {
                Some((at, mailbox)) if *at <= now => {
                    let mailbox = *mailbox;
                    self.place(mailbox, now);
                }
                _ => return,
            }
        }
    }

    /// Takes back leases whose time is over.
    fn reclaim(&mut self, now: Timestamp) {
        while let Some(&(until, mailbox)) = self.leases.first() {
            if until > now {
                return;
            }
            metrics::counter!("narvaro_leases_expired_total").increment(1);
            self.take_back(mailbox, now);
        }
    }

    fn take_back(&mut self, mailbox: MailboxId, now: Timestamp) {
        let Some(held) = self.unhold(mailbox) else { return };
        let Some(slot) = self.slots.get_mut(&mailbox) else { return };
        let waiting = slot.waiting.get_or_insert_default();
        waiting.gathered.merge(&held.gathered);
        waiting.due = Some(now);
        let later = waiting.first_entry;
        if held.first_entry.is_some() {
            waiting.first_entry = held.first_entry;
            if let Some(later) = later {
                self.forget_entry(later);
            }
        }
        self.place(mailbox, now);
    }

    fn unhold(&mut self, mailbox: MailboxId) -> Option<Box<Held>> {
        let slot = self.slots.get_mut(&mailbox)?;
        let held = slot.held.take()?;
        let company = slot.company;
        self.leases.remove(&(held.until, mailbox));
        self.queue(company).leased -= 1;
        self.refresh_head(company);
        Some(held)
    }

    fn forget_entry(&mut self, entry: u64) {
        if let Some(count) = self.entries.get_mut(&entry) {
            *count -= 1;
            if *count == 0 {
                self.entries.remove(&entry);
            }
        }
    }

    /// Leases up to `most` due mailboxes until `until`.
    pub(super) fn take(&mut self, most: usize, now: Timestamp, until: Timestamp) -> Vec<Taken> {
        self.reclaim(now);
        self.promote(now);
        let mut taken = Vec::with_capacity(most.min(self.ready));
        while taken.len() < most {
            let Some(&(_, _, company)) = self.heads.first() else { break };
            let Some(&(_, _, mailbox)) = self.queue(company).ready.first() else { break };
            self.move_to(mailbox, Place::Nowhere);
            let generation = Generation(self.next_generation);
            self.next_generation += 1;
            let Some(slot) = self.slots.get_mut(&mailbox) else { break };
            let waiting = slot.waiting.take().map(|waiting| *waiting).unwrap_or_default();
            slot.held = Some(Box::new(Held {
                generation,
                until,
                gathered: waiting.gathered.clone(),
                first_entry: waiting.first_entry,
                settling: false,
            }));
            self.leases.insert((until, mailbox));
            let queue = self.queue(company);
            queue.leased += 1;
            let id = queue.id.clone();
            self.refresh_head(company);
            taken.push(Taken { mailbox, company: id, generation, until, gathered: waiting.gathered });
        }
        taken
    }

    /// Whether the lease stands.
    pub(super) fn holds(&self, mailbox: MailboxId, generation: Generation, now: Timestamp) -> bool {
        self.held(mailbox, generation).is_some_and(|held| held.until > now || held.settling)
    }

    fn held(&self, mailbox: MailboxId, generation: Generation) -> Option<&Held> {
        self.slots.get(&mailbox)?.held.as_deref().filter(|held| held.generation == generation)
    }

    fn set_until(&mut self, mailbox: MailboxId, until: Timestamp) {
        if let Some(held) = self.slots.get_mut(&mailbox).and_then(|slot| slot.held.as_deref_mut()) {
            let before = std::mem::replace(&mut held.until, until);
            self.leases.remove(&(before, mailbox));
            self.leases.insert((until, mailbox));
        }
    }

    /// Prolongs a lease; `false` where it is lost.
    pub(super) fn extend(
        &mut self,
        mailbox: MailboxId,
        generation: Generation,
        now: Timestamp,
        until: Timestamp,
    ) -> bool {
        let holds = self.holds(mailbox, generation, now);
        if holds {
            self.set_until(mailbox, until);
        }
        holds
    }

    /// Begins to settle: from here on the lease cannot run out, until [`settled`](Self::settled) or
    /// [`not_settled`](Self::not_settled). `false` where it is lost.
    pub(super) fn settling(&mut self, mailbox: MailboxId, generation: Generation, now: Timestamp) -> bool {
        if !self.holds(mailbox, generation, now) {
            return false;
        }
        self.set_until(mailbox, Timestamp::MAX);
        if let Some(held) = self.slots.get_mut(&mailbox).and_then(|slot| slot.held.as_deref_mut()) {
            held.settling = true;
        }
        true
    }

    /// The settling failed: the lease ends after a pause, as a store that cannot be written now will not be able to
    /// at once; then what it had gathered is due again.
    pub(super) fn not_settled(&mut self, mailbox: MailboxId, now: Timestamp) {
        if let Some(held) = self.slots.get_mut(&mailbox).and_then(|slot| slot.held.as_deref_mut()) {
            held.settling = false;
        }
        self.set_until(mailbox, now.checked_add(STORE_PAUSE).unwrap_or(now));
    }

    /// The turn is stored: the mailbox is due again at `due`, or earlier if marked meanwhile.
    pub(super) fn settled(
        &mut self,
        mailbox: MailboxId,
        due: Option<Timestamp>,
        urgency: Urgency,
        now: Timestamp,
    ) {
        if let Some(entry) = self.unhold(mailbox).and_then(|held| held.first_entry) {
            self.forget_entry(entry);
        }
        if let Some(slot) = self.slots.get_mut(&mailbox) {
            slot.due = due;
            slot.urgency = urgency;
        }
        self.place(mailbox, now);
    }

    /// The mailbox is gone.
    pub(super) fn remove(&mut self, mailbox: MailboxId) {
        let held = self.unhold(mailbox);
        self.move_to(mailbox, Place::Nowhere);
        let Some(slot) = self.slots.remove(&mailbox) else { return };
        let entries =
            [held.and_then(|held| held.first_entry), slot.waiting.and_then(|waiting| waiting.first_entry)];
        for entry in entries.into_iter().flatten() {
            self.forget_entry(entry);
        }
    }

    /// Hands a lease back; `false` where it is lost.
    pub(super) fn release(&mut self, mailbox: MailboxId, generation: Generation, now: Timestamp) -> bool {
        let holds = self.holds(mailbox, generation, now);
        if holds {
            self.take_back(mailbox, now);
        }
        holds
    }

    /// The first entry of the log that is still needed; `None`: none is.
    pub(super) fn first_needed_entry(&self) -> Option<u64> {
        self.entries.keys().next().copied()
    }

    /// When [`take`](Self::take) has something to give: `Some(now)` or earlier if at once.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        if let Some((_, at, _)) = self.heads.first() {
            return Some(*at);
        }
        let timed = self.timed.first().map(|(at, _)| *at);
        let lease = self.leases.first().map(|(at, _)| *at).filter(|at| *at < Timestamp::MAX);
        match (timed, lease) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// How full it is.
    pub(super) fn depth(&self, now: Timestamp) -> Depth {
        let overdue = self.timed.iter().take_while(|(at, _)| *at <= now).count();
        let waiting = self.timed.first().map(|(at, _)| *at).filter(|at| *at <= now);
        Depth {
            oldest_due: self.heads.iter().map(|(_, at, _)| *at).chain(waiting).min(),
            mailboxes: self.slots.len(),
            due: self.ready + overdue,
            leased: self.leases.len(),
            next: self.timed.iter().nth(overdue).map(|(at, _)| *at),
        }
    }
}

impl Slot {
    fn wanted_place(&self, now: Timestamp) -> Place {
        let own = self.due.map(|at| (at, self.urgency));
        let marked = self.waiting.as_ref().and_then(|waiting| {
            let urgency = waiting.gathered.reasons.iter().map(|reason| reason.urgency()).min();
            Some((waiting.due?, urgency.unwrap_or(self.urgency)))
        });
        let ready = [own, marked].into_iter().flatten().filter(|(at, _)| *at <= now);
        if let Some(urgency) = ready.clone().map(|(_, urgency)| urgency).min() {
            let since = ready.map(|(at, _)| at).min().unwrap_or(now);
            return Place::Ready(urgency, since);
        }
        match own.into_iter().chain(marked).map(|(at, _)| at).min() {
            Some(at) => Place::Timed(at),
            None => Place::Nowhere,
        }
    }
}
