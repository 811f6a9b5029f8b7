//! What a month comes to in numbers.

use std::{collections::BTreeMap, fmt};

use jiff::SignedDuration;
use narvaro_sim::{GraphCall, Journal, Record};

use super::{bound::Bounds, plan::Form};

/// Numbers of a month.
pub(super) struct Figures {
    form: Form,
    bounds: Bounds,
    pub(super) edits: BTreeMap<&'static str, u64>,
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) samples: u64,
    pub(super) comparisons: u64,
    /// Comparisons that differed.
    pub(super) differing: u64,
    /// Those of them of which nothing could be said: with very many young edits, or an event that left the calendar.
    pub(super) unjudged: u64,
    /// Those of them that edits younger than the bound do not explain.
    pub(super) beyond: u64,
    /// How often an extension came to differ, and how long that lasted at most.
    pub(super) spells: u64,
    pub(super) worst: SignedDuration,
    /// How long a mailbox was without a subscription at most, from sample to sample.
    pub(super) unwatched: SignedDuration,
    notified: u64,
    lost: u64,
    /// Subscriptions that nobody renewed in time.
    pub(super) lapsed: u64,
    requests: BTreeMap<&'static str, u64>,
    /// Requests that joined others; each of those counts for itself, as Graph counts.
    batches: u64,
    refused: u64,
    /// Simulated days that requests were counted in, the quiet end included.
    pub(super) counted_days: f64,
    seen: u64,
}

impl Figures {
    pub(super) fn new(form: &Form, bounds: Bounds, journal: &Journal) -> Self {
        Self {
            form: *form,
            bounds,
            edits: BTreeMap::new(),
            faults: BTreeMap::new(),
            samples: 0,
            comparisons: 0,
            differing: 0,
            unjudged: 0,
            beyond: 0,
            spells: 0,
            worst: SignedDuration::ZERO,
            unwatched: SignedDuration::ZERO,
            notified: 0,
            lost: 0,
            lapsed: 0,
            requests: BTreeMap::new(),
            batches: 0,
            refused: 0,
            counted_days: 0.0,
            seen: journal.last_seq(),
        }
    }

    /// Counts what the journal has gathered; it is bounded, so this has to come before it overflows.
    pub(super) fn count(&mut self, journal: &Journal) {
        for entry in journal.since(self.seen) {
            assert_eq!(entry.seq, self.seen + 1, "the journal overflowed");
            self.seen = entry.seq;
            match &entry.record {
                Record::Graph(call) if call.path.ends_with("/$batch") => self.batches += 1,
                Record::Graph(call) => {
                    *self.requests.entry(kind(call)).or_default() += 1;
                    self.refused += u64::from(!(200..300).contains(&call.status));
                }
                Record::Notified { .. } => self.notified += 1,
                Record::Lost { .. } => self.lost += 1,
                Record::SubscriptionEnded { reason: "expired", .. } => self.lapsed += 1,
                _ => {}
            }
        }
    }

    pub(super) fn uncounted(&self, journal: &Journal) -> u64 {
        journal.last_seq() - self.seen
    }

    pub(super) fn edited(&mut self, what: &'static str) {
        *self.edits.entry(what).or_default() += 1;
    }

    pub(super) fn all_edits(&self) -> u64 {
        self.edits.values().sum()
    }

    fn mailbox_days(&self) -> f64 {
        f64::from(u32::try_from(self.form.mailboxes).unwrap()) * self.counted_days
    }

    /// Requests to Graph per mailbox and day, by kind.
    fn rates(&self) -> Vec<(&'static str, f64)> {
        self.requests.iter().map(|(kind, count)| (*kind, number(*count) / self.mailbox_days())).collect()
    }

    /// The least: one fetch per change, a renewal at half of seven days, one roll of the window a day.
    fn floor(&self) -> [(&'static str, f64); 3] {
        [("change", number(self.all_edits()) / self.mailbox_days()), ("renewal", 2.0 / 7.0), ("roll", 1.0)]
    }
}

fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

pub(super) fn kind(call: &GraphCall) -> &'static str {
    let last = call.path.rsplit('/').next().unwrap_or_default();
    match (call.method.as_str(), last) {
        (_, "delta" | "delta()") if call.query.contains("deltatoken=") => "round from a link",
        (_, "delta" | "delta()") if call.query.contains("skiptoken=") => "further page of a round",
        (_, "delta" | "delta()") => "round from the start",
        ("POST", "subscriptions") => "create",
        ("GET", "subscriptions") => "list",
        ("PATCH", _) => "renew",
        ("DELETE", _) => "delete",
        (_, "calendarView") => "view",
        (_, "instances") => "instances",
        (_, "timeZone") => "zone",
        (_, "users") => "user",
        _ => "event",
    }
}

fn sum(rates: &[(&'static str, f64)]) -> f64 {
    rates.iter().map(|(_, rate)| rate).sum()
}

fn list_rates(rates: &[(&'static str, f64)]) -> String {
    rates.iter().map(|(name, rate)| format!("{rate:.2} {name}")).collect::<Vec<_>>().join(", ")
}

fn list(counts: &BTreeMap<&'static str, u64>) -> String {
    counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Form { seed, mailboxes, days, .. } = self.form;
        writeln!(f, "{mailboxes} mailboxes, {days} days, seed {seed}")?;
        writeln!(f, "  {} edits: {}", self.all_edits(), list(&self.edits))?;
        writeln!(f, "  {} notifications, {} lost", self.notified, self.lost)?;
        writeln!(f, "  faults: {}", list(&self.faults))?;
        writeln!(
            f,
            "  {} samples, {} comparisons, {} of them differing, {} of these not judged, {} beyond the bound ({:#})",
            self.samples, self.comparisons, self.differing, self.unjudged, self.beyond, self.bounds.change
        )?;
        writeln!(f, "  {} times an edit did not show at once; at most for {:#}", self.spells, self.worst)?;
        writeln!(
            f,
            "  without a subscription for {:#} at most, where nothing stood in the way {:#} are promised",
            self.unwatched, self.bounds.watched_again
        )?;
        let (rates, floor) = (self.rates(), self.floor());
        writeln!(
            f,
            "  requests: {}; {} of them refused or cut; {} batches",
            list(&self.requests),
            self.refused,
            self.batches
        )?;
        writeln!(f, "  per mailbox and day: {}", list_rates(&rates))?;
        write!(
            f,
            "  together {:.2}, {:.1} times the floor of {:.2} ({})",
            sum(&rates),
            sum(&rates) / sum(&floor),
            sum(&floor),
            list_rates(&floor)
        )
    }
}
