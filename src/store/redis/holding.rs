//! What this process holds: leases that it was given, counted by company, because its shares are its own.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use crate::{
    model::{CompanyId, Generation, MailboxId},
    queue::Shares,
};

#[derive(Debug)]
struct Held {
    company: CompanyId,
    until: Timestamp,
    reads: bool,
}

/// Leases of this process. One that has run out counts no longer: Redis gives its mailbox to somebody else.
///
/// Those that were given ahead of an edge wait, or show it: they need no worker and are no part of any share, until they
/// read. They may be very many, and are never gone through while leases are asked for.
#[derive(Debug)]
pub(super) struct Holding {
    shares: Shares,
    leases: HashMap<(MailboxId, Generation), Held>,
    ahead: HashMap<(MailboxId, Generation), Held>,
}

/// Leases of one company, for showing and for reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) showing: usize,
    pub(super) reading: usize,
}

impl Holding {
    /// Nothing yet.
    pub(super) fn new(shares: Shares) -> Self {
        Self { shares, leases: HashMap::new(), ahead: HashMap::new() }
    }

    /// The shares of this process.
    pub(super) fn shares(&self) -> Shares {
        self.shares
    }

    /// A lease begins.
    pub(super) fn begin(
        &mut self,
        mailbox: MailboxId,
        generation: Generation,
        company: CompanyId,
        until: Timestamp,
        reads: bool,
    ) {
        self.leases.insert((mailbox, generation), Held { company, until, reads });
    }

    /// A lease begins that was given ahead of an edge.
    pub(super) fn begin_ahead(
        &mut self,
        mailbox: MailboxId,
        generation: Generation,
        company: CompanyId,
        until: Timestamp,
    ) {
        self.ahead.insert((mailbox, generation), Held { company, until, reads: false });
    }

    /// A lease has ended, or was lost. Whether that made room for another one.
    pub(super) fn end(&mut self, mailbox: MailboxId, generation: Generation) -> bool {
        let ahead = self.ahead.remove(&(mailbox, generation)).is_some();
        self.leases.remove(&(mailbox, generation)).is_some() || !ahead
    }

    /// A lease goes on.
    pub(super) fn extend(&mut self, mailbox: MailboxId, generation: Generation, until: Timestamp) {
        let lease = (mailbox, generation);
        if let Some(held) = self.leases.get_mut(&lease).or_else(|| self.ahead.get_mut(&lease)) {
            held.until = until;
        }
    }

    /// Whether there is room for a lease of this company to read, from here on.
    pub(super) fn has_room_to_read(&mut self, company: &CompanyId, now: Timestamp) -> bool {
        let counts = self.counts(now);
        let of_company = counts.get(company).map_or(0, |count| count.reading);
        of_company < self.shares.reading_per_company && self.reading_room(now) > 0
    }

    /// Whether a lease reads from here on. One that was given ahead is one like any other then.
    pub(super) fn set_reading(&mut self, mailbox: MailboxId, generation: Generation, reads: bool) {
        if let Some(held) = self.ahead.remove(&(mailbox, generation)) {
            self.leases.insert((mailbox, generation), held);
        }
        if let Some(held) = self.leases.get_mut(&(mailbox, generation)) {
            held.reads = reads;
        }
    }

    /// Whether a lease reads already.
    pub(super) fn is_reading(&self, mailbox: MailboxId, generation: Generation) -> bool {
        self.leases.get(&(mailbox, generation)).is_some_and(|held| held.reads)
    }

    /// How many more may read.
    pub(super) fn reading_room(&mut self, now: Timestamp) -> usize {
        self.forget_lapsed(now);
        let reading = self.leases.values().filter(|held| held.reads).count();
        self.shares.reading.saturating_sub(reading)
    }

    /// Leases by company.
    pub(super) fn counts(&mut self, now: Timestamp) -> BTreeMap<CompanyId, Count> {
        self.forget_lapsed(now);
        let mut counts: BTreeMap<CompanyId, Count> = BTreeMap::new();
        for held in self.leases.values() {
            let count = counts.entry(held.company.clone()).or_default();
            if held.reads { count.reading += 1 } else { count.showing += 1 }
        }
        counts
    }

    /// Nobody will settle any of them any more.
    pub(super) fn forget_all(&mut self) {
        self.leases.clear();
        self.ahead.clear();
    }

    /// Forgets those that were given ahead and that nobody has ended: their turn has failed.
    pub(super) fn forget_lapsed_ahead(&mut self, now: Timestamp) {
        self.ahead.retain(|_, held| held.until > now);
    }

    /// All that were given ahead.
    pub(super) fn all_ahead(&self) -> impl Iterator<Item = (MailboxId, Generation)> {
        self.ahead.keys().copied()
    }

    /// All others.
    pub(super) fn all(&self) -> impl Iterator<Item = (MailboxId, Generation)> {
        self.leases.keys().copied()
    }

    fn forget_lapsed(&mut self, now: Timestamp) {
        self.leases.retain(|_, held| held.until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn room_is_counted_by_company_and_in_all_and_what_has_run_out_counts_no_longer() {
        let acme: CompanyId = "acme".parse().unwrap();
        let beta: CompanyId = "beta".parse().unwrap();
        let shares = Shares { showing_per_company: 2, reading: 3, reading_per_company: 2 };
        let mut holding = Holding::new(shares);
        for n in 1..=2 {
            holding.begin(MailboxId(n), Generation(n), acme.clone(), at(10 * n as i64), true);
        }
        assert!(!holding.has_room_to_read(&acme, at(0)));
        assert!(holding.has_room_to_read(&beta, at(0)));
        holding.begin(MailboxId(3), Generation(3), beta.clone(), at(30), false);
        holding.set_reading(MailboxId(3), Generation(3), true);
        assert_eq!(holding.reading_room(at(0)), 0);
        assert!(holding.has_room_to_read(&acme, at(10)), "the first has run out");
        holding.extend(MailboxId(2), Generation(2), at(40));
        holding.end(MailboxId(3), Generation(3));
        assert_eq!(holding.counts(at(35))[&acme], Count { showing: 0, reading: 1 });
    }
}
