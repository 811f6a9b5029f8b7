//! Who is due, in memory: the embedded store has one process, so the order of work need not be on disk.
//!
//! On disk are each mailbox's own due time and the log of marks not yet worked off; from these two this index
//! is built at start. It is pure: the caller passes the time.
//!
//! Every company has two lanes. In the one wait mailboxes that are due, in the other those whose turn has shown and
//! found no room for reading ([`crate::queue`] says why). A mailbox may wait in both at a time: the first lease that it
//! gets takes it out of both.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    hash::BuildHasher,
};

use foldhash::quality::RandomState;
use jiff::Timestamp;

use crate::{
    model::{CompanyId, Generation, MailboxId},
    queue::{Depth, Gathered, Mark, Shares, Tally, Urgency},
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

/// What a lease is held for, and what is waited for: an index into what there is of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// The turn's beginning, which shows what is known.
    Showing = 0,
    /// The rest, which waits for the calendar server.
    Reading = 1,
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
    held_for: For,
}

#[derive(Debug)]
struct Slot {
    company: u32,
    due: Option<Timestamp>,
    urgency: Urgency,
    place: Place,
    /// How urgently it waits for room to read, and since when.
    to_read: Option<(Urgency, Timestamp)>,
    /// Where it stands in the lane for reading; like `to_read`, except while it is leased.
    reading_place: Option<(Urgency, Timestamp)>,
    waiting: Option<Box<Waiting>>,
    held: Option<Box<Held>>,
}

#[derive(Debug)]
struct CompanyQueue {
    id: CompanyId,
    revision: u64,
    lanes: [Lane; 2],
}

#[derive(Debug, Default)]
struct Lane {
    ready: BTreeSet<(Urgency, Timestamp, MailboxId)>,
    leased: usize,
    head: Option<(Urgency, Timestamp)>,
}

/// A lease as the index gives it; the store adds the documents.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) mailbox: MailboxId,
    pub(super) company: CompanyId,
    pub(super) revision: u64,
    pub(super) generation: Generation,
    pub(super) until: Timestamp,
    pub(super) gathered: Gathered,
    pub(super) reads: bool,
}

/// The index.
#[derive(Debug)]
pub(super) struct DueIndex {
    slots: HashMap<MailboxId, Slot, RandomState>,
    companies: Vec<CompanyQueue>,
    numbers: HashMap<CompanyId, u32>,
    /// Companies that have something ready in a lane and room for a lease, by their most urgent.
    heads: [BTreeSet<(Urgency, Timestamp, u32)>; 2],
    timed: BTreeSet<(Timestamp, MailboxId)>,
    leases: BTreeSet<(Timestamp, MailboxId)>,
    /// Log entries not worked off, with how many mailboxes have them as their first.
    entries: BTreeMap<u64, usize>,
    seen: HashSet<u64, RandomState>,
    seen_order: VecDeque<u64>,
    hasher: RandomState,
    ready: usize,
    /// Leases held for reading, of all companies.
    reading: usize,
    next_generation: u64,
    shares: Shares,
}

impl DueIndex {
    /// An empty index; generations start above those of every earlier `epoch`.
    pub(super) fn new(epoch: u32, shares: Shares) -> Self {
        Self {
            slots: HashMap::default(),
            companies: Vec::new(),
            numbers: HashMap::new(),
            heads: Default::default(),
            timed: BTreeSet::new(),
            leases: BTreeSet::new(),
            entries: BTreeMap::new(),
            seen: HashSet::default(),
            seen_order: VecDeque::new(),
            hasher: RandomState::default(),
            ready: 0,
            reading: 0,
            next_generation: (u64::from(epoch) << 32) + 1,
            shares,
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
        let slot = Slot {
            company,
            due,
            urgency,
            place: Place::Nowhere,
            to_read: None,
            reading_place: None,
            waiting: None,
            held: None,
        };
        self.slots.insert(mailbox, slot);
        self.place(mailbox, now);
    }

    fn number(&mut self, company: &CompanyId) -> u32 {
        if let Some(number) = self.numbers.get(company) {
            return *number;
        }
        let number = u32::try_from(self.companies.len()).unwrap_or(u32::MAX);
        self.companies.push(CompanyQueue { id: company.clone(), revision: 0, lanes: Default::default() });
        self.numbers.insert(company.clone(), number);
        number
    }

    /// A company has changed: leases from now on are of this revision.
    pub(super) fn revise(&mut self, company: &CompanyId, revision: u64) {
        let number = self.number(company);
        self.companies[number as usize].revision = revision;
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
        let (place, reading) =
            if slot.held.is_some() { (Place::Nowhere, None) } else { (slot.wanted_place(now), slot.to_read) };
        self.move_to(mailbox, place, reading);
    }

    fn move_to(&mut self, mailbox: MailboxId, place: Place, reading: Option<(Urgency, Timestamp)>) {
        let Some(slot) = self.slots.get_mut(&mailbox) else { return };
        let company = slot.company;
        let was_ready = slot.is_ready();
        let before = std::mem::replace(&mut slot.place, place);
        let reading_before = std::mem::replace(&mut slot.reading_place, reading);
        let is_ready = slot.is_ready();
        self.ready = self.ready + usize::from(is_ready) - usize::from(was_ready);
        if before != place {
            match before {
                Place::Nowhere => {}
                Place::Timed(at) => {
                    self.timed.remove(&(at, mailbox));
                }
                Place::Ready(urgency, at) => {
                    self.lane(company, For::Showing).ready.remove(&(urgency, at, mailbox));
                }
            }
            match place {
                Place::Nowhere => {}
                Place::Timed(at) => {
                    self.timed.insert((at, mailbox));
                }
                Place::Ready(urgency, at) => {
                    self.lane(company, For::Showing).ready.insert((urgency, at, mailbox));
                }
            }
            self.refresh_head(company, For::Showing);
        }
        if reading_before != reading {
            let lane = self.lane(company, For::Reading);
            if let Some((urgency, since)) = reading_before {
                lane.ready.remove(&(urgency, since, mailbox));
            }
            if let Some((urgency, since)) = reading {
                lane.ready.insert((urgency, since, mailbox));
            }
            self.refresh_head(company, For::Reading);
        }
    }

    fn lane(&mut self, company: u32, lane: For) -> &mut Lane {
        &mut self.companies[company as usize].lanes[lane as usize]
    }

    fn refresh_head(&mut self, company: u32, lane: For) {
        let most = match lane {
            For::Showing => self.shares.showing_per_company,
            For::Reading => self.shares.reading_per_company,
        };
        let queue = self.lane(company, lane);
        let first = queue.ready.first().map(|(urgency, at, _)| (*urgency, *at));
        let head = first.filter(|_| queue.leased < most);
        let before = std::mem::replace(&mut queue.head, head);
        if before == head {
            return;
        }
        let heads = &mut self.heads[lane as usize];
        if let Some((urgency, at)) = before {
            heads.remove(&(urgency, at, company));
        }
        if let Some((urgency, at)) = head {
            heads.insert((urgency, at, company));
        }
    }

    /// Counts a lease that begins (or ends) to be held for something.
    fn count(&mut self, company: u32, held_for: For, begins: bool) {
        let change = |count: usize| if begins { count + 1 } else { count - 1 };
        let lane = self.lane(company, held_for);
        lane.leased = change(lane.leased);
        if held_for == For::Reading {
            self.reading = change(self.reading);
        }
        self.refresh_head(company, held_for);
    }

    /// Who is next: the most urgent and longest waiting of both lanes, as far as there is room.
    fn next(&self) -> Option<(Urgency, Timestamp, u32, For)> {
        let [showing, reading] = &self.heads;
        let showing = showing.first().map(|(urgency, at, company)| (*urgency, *at, *company, For::Showing));
        let reading = reading.first().map(|(urgency, at, company)| (*urgency, *at, *company, For::Reading));
        let reading = reading.filter(|_| self.reading < self.shares.reading);
        // The first of equals: showing.
        showing.into_iter().chain(reading).min_by_key(|(urgency, at, ..)| (*urgency, *at))
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
        self.count(company, held.held_for, false);
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
            let Some((_, _, company, held_for)) = self.next() else { break };
            let Some(&(_, _, mailbox)) = self.lane(company, held_for).ready.first() else { break };
            self.move_to(mailbox, Place::Nowhere, None);
            let generation = Generation(self.next_generation);
            self.next_generation += 1;
            let Some(slot) = self.slots.get_mut(&mailbox) else { break };
            let waiting = slot.waiting.take().map(|waiting| *waiting).unwrap_or_default();
            let reads = held_for == For::Reading;
            slot.to_read.take_if(|_| reads);
            slot.held = Some(Box::new(Held {
                generation,
                until,
                gathered: waiting.gathered.clone(),
                first_entry: waiting.first_entry,
                settling: false,
                held_for,
            }));
            self.leases.insert((until, mailbox));
            self.count(company, held_for, true);
            let CompanyQueue { id: company, revision, .. } = &self.companies[company as usize];
            taken.push(Taken {
                mailbox,
                company: company.clone(),
                revision: *revision,
                generation,
                until,
                gathered: waiting.gathered,
                reads,
            });
        }
        taken
    }

    /// Holds a lease for reading from here on, if there is room and nobody has waited longer for it; `None` where the
    /// lease is lost.
    pub(super) fn begin_reading(
        &mut self,
        mailbox: MailboxId,
        generation: Generation,
        now: Timestamp,
    ) -> Option<bool> {
        if !self.holds(mailbox, generation, now) {
            return None;
        }
        let slot = self.slots.get(&mailbox)?;
        let (company, held_for) = (slot.company, slot.held.as_ref()?.held_for);
        if held_for == For::Reading {
            return Some(true);
        }
        let share = self.shares.reading_per_company;
        let is_room = self.reading < self.shares.reading && self.lane(company, For::Reading).leased < share;
        if !is_room || !self.heads[For::Reading as usize].is_empty() {
            return Some(false);
        }
        let slot = self.slots.get_mut(&mailbox)?;
        slot.to_read = None;
        slot.held.as_mut()?.held_for = For::Reading;
        self.count(company, For::Showing, false);
        self.count(company, For::Reading, true);
        Some(true)
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

    /// The turn is stored: the mailbox is due again at `due`, or earlier if marked meanwhile, or as soon as there is room
    /// if it is still `to_read`.
    pub(super) fn settled(
        &mut self,
        mailbox: MailboxId,
        due: Option<Timestamp>,
        urgency: Urgency,
        to_read: Option<Urgency>,
        now: Timestamp,
    ) {
        if let Some(entry) = self.unhold(mailbox).and_then(|held| held.first_entry) {
            self.forget_entry(entry);
        }
        if let Some(slot) = self.slots.get_mut(&mailbox) {
            slot.due = due;
            slot.urgency = urgency;
            // Who was handed out for a mark meanwhile keeps the place in the lane.
            let since = slot.to_read.map_or(now, |(_, since)| since);
            slot.to_read = to_read.map(|urgency| (urgency, since));
        }
        self.place(mailbox, now);
    }

    /// The mailbox is gone.
    pub(super) fn remove(&mut self, mailbox: MailboxId) {
        let held = self.unhold(mailbox);
        self.move_to(mailbox, Place::Nowhere, None);
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

    /// Hands all leases back, but those of turns that are being stored.
    pub(super) fn release_all(&mut self, now: Timestamp) {
        let held: Vec<MailboxId> = self.leases.iter().map(|(_, mailbox)| *mailbox).collect();
        for mailbox in held {
            let settling = self.slots.get(&mailbox).and_then(|slot| slot.held.as_deref());
            if settling.is_some_and(|held| !held.settling) {
                self.take_back(mailbox, now);
            }
        }
    }

    /// The first entry of the log that is still needed; `None`: none is.
    pub(super) fn first_needed_entry(&self) -> Option<u64> {
        self.entries.keys().next().copied()
    }

    /// When [`take`](Self::take) has something to give: `Some(now)` or earlier if at once.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        if let Some((_, at, ..)) = self.next() {
            return Some(at);
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
        let twice = self
            .timed
            .iter()
            .take(overdue)
            .filter(|(_, mailbox)| self.slots.get(mailbox).is_some_and(Slot::is_ready));
        let [showing, reading] = &self.heads;
        let is_room = self.reading < self.shares.reading;
        let heads = showing.iter().chain(reading.iter().filter(|_| is_room));
        Depth {
            oldest_due: heads.map(|(_, at, _)| *at).chain(waiting).min(),
            mailboxes: self.slots.len(),
            due: self.ready + overdue - twice.count(),
            leased: self.leases.len(),
            next: self.timed.iter().nth(overdue).map(|(at, _)| *at),
        }
    }
}

impl Slot {
    /// Whether it waits in a lane.
    fn is_ready(&self) -> bool {
        matches!(self.place, Place::Ready(..)) || self.reading_place.is_some()
    }

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
