//! How long presence may differ from the calendar after a change, and why: the one place for these numbers.

use jiff::{SignedDuration, Timestamp};

/// The longest time between two complete reads of a mailbox (`sweep_every` of `src/app`): what a lost notification costs.
const SWEEP: SignedDuration = SignedDuration::from_hours(4);

/// A read that fails once or twice is tried again after seconds.
const HICCUPS: SignedDuration = SignedDuration::from_mins(10);

/// A change that is older than this shows, where nothing was in trouble meanwhile. Delays of notifications (25 min at
/// most here) are shorter and add nothing.
pub(super) const BOUND: SignedDuration = SignedDuration::from_secs(SWEEP.as_secs() + HICCUPS.as_secs());

/// The same where nothing goes wrong at all: the turn that a notification causes. An event that leaves the default
/// calendar is the exception: its notification does not tell where it lies now, and a complete read has to find out.
pub(super) const BOUND_WITHOUT_FAULTS: SignedDuration = SignedDuration::ZERO;

/// After an outage or a storm: the longest wait between two attempts (5 min and a fifth), or `Retry-After` and a fifth.
pub(super) const AFTER_OUTAGE: SignedDuration = SignedDuration::from_mins(10);

/// After the login service was away: its own back-off (5 min), then the mailbox's.
pub(super) const AFTER_LOGIN: SignedDuration = SignedDuration::from_mins(20);

/// After consent is given back: refusals are remembered for up to 15 min, and a mailbox that meets the memory rests
/// half an hour and a fifth more.
pub(super) const AFTER_CONSENT: SignedDuration = SignedDuration::from_mins(36 + 15 + 36);

/// When a subscription that was removed without a word stands again: at its renewal, at half life and a tenth.
pub(super) const SUBSCRIBED_AGAIN: SignedDuration = SignedDuration::from_hours(7 * 24 * 6 / 10 + 1);

/// Whom a trouble concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Concerns {
    All,
    Company(usize),
    Person(usize),
}

/// A time in which mailboxes could not be read, and how long after it they are read again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trouble {
    pub(super) concerns: Concerns,
    pub(super) from: Timestamp,
    /// `None` while it lasts.
    pub(super) to: Option<Timestamp>,
    pub(super) after: SignedDuration,
}

/// All troubles so far, by beginning.
#[derive(Default)]
pub(super) struct Troubles(Vec<Trouble>);

impl Troubles {
    pub(super) fn begin(&mut self, concerns: Concerns, from: Timestamp, after: SignedDuration) {
        self.0.push(Trouble { concerns, from, to: None, after });
    }

    pub(super) fn spell(
        &mut self,
        concerns: Concerns,
        from: Timestamp,
        to: Timestamp,
        after: SignedDuration,
    ) {
        self.0.push(Trouble { concerns, from, to: Some(to), after });
    }

    pub(super) fn end(&mut self, concerns: Concerns, after: SignedDuration, to: Timestamp) {
        let lasts = |one: &&mut Trouble| one.to.is_none() && one.concerns == concerns && one.after == after;
        self.0.iter_mut().find(lasts).unwrap().to = Some(to);
    }

    /// When a change made at `changed` shows at the latest; `None` while a trouble lasts.
    pub(super) fn deadline(
        &self,
        person: usize,
        company: usize,
        changed: Timestamp,
        bound: SignedDuration,
    ) -> Option<Timestamp> {
        let concerned = |one: &&Trouble| match one.concerns {
            Concerns::All => true,
            Concerns::Company(other) => other == company,
            Concerns::Person(other) => other == person,
        };
        let mut deadline = changed + bound;
        for trouble in self.0.iter().filter(concerned) {
            let over = trouble.to.map(|to| to + trouble.after);
            if trouble.from <= deadline && over.is_none_or(|over| over > changed) {
                deadline = deadline.max(over?);
            }
        }
        Some(deadline)
    }
}
