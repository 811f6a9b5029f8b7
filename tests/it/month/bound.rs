//! How long presence may differ from the calendar after a change, and why: the one place for these numbers. What can be
//! configured is taken from the defaults that the month runs with.

use jiff::{SignedDuration, Timestamp};
use narvaro::config::{Config, Environment};

use super::plan::Form;

/// A request that fails some times in a row is repeated after seconds: here five times at most, each time after as long
/// as `Retry-After` names (20 s and a fifth) or twice as long as before (2 s at first).
const HICCUPS: SignedDuration = SignedDuration::from_mins(3);

/// Tries that a bound has room for; each may wait for the next stop of the clock.
const TRIES: i32 = 6;

/// Waits are spread by so much at most.
const SPREAD: f64 = 1.2;

/// How long a company is left alone whose every request failed, and how long others wait while one finds out whether it
/// is back (`src/graph/circuit.rs`).
const CIRCUIT: SignedDuration = SignedDuration::from_secs(60 + 20);

/// How long a failed login is remembered: one that may pass by itself, and one that a person has to mend
/// (`src/graph/auth.rs`).
const LOGIN_REMEMBERED: SignedDuration = SignedDuration::from_mins(5);
const REFUSAL_REMEMBERED: SignedDuration = SignedDuration::from_mins(15);

/// From one nightly comparison of subscriptions to the next, where summer time ends in between (`src/app/upkeep.rs`).
const NIGHTS_APART: SignedDuration = SignedDuration::from_hours(25);

/// How long a timetable is kept whose calendar is kept from us (`src/turn/present.rs`).
const KEPT_SHUT_OUT: SignedDuration = SignedDuration::from_hours(24);

/// What the service promises.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// A change that is older than this shows, where nothing was in trouble meanwhile. A lost notification costs as long
    /// as a calendar may go without a sweep: the longest is that of a mailbox whose push is trusted. Delays of
    /// notifications (25 min at most here) are shorter and add nothing. Where nothing goes wrong at all, it is nothing:
    /// the turn that the notification causes.
    pub(super) change: SignedDuration,
    /// When a subscription that was removed without a word stands again: after the night that misses it.
    pub(super) watched_again: SignedDuration,
    again: SignedDuration,
    parked: SignedDuration,
    stops: SignedDuration,
}

impl Bounds {
    pub(super) fn of(form: &Form) -> Self {
        let config = Config::parse("defaults", "", &Environment::of([])).unwrap();
        let spread = |wait: std::time::Duration| SignedDuration::try_from(wait.mul_f64(SPREAD)).unwrap();
        let stops = form.stride * TRIES;
        let lost = config.sweep.trusted() + HICCUPS + stops;
        Self {
            change: if form.faults { lost } else { SignedDuration::ZERO },
            watched_again: NIGHTS_APART + HICCUPS + stops,
            again: spread(config.queue.retry_max()),
            parked: spread(config.queue.park()),
            stops,
        }
    }

    /// How long after the end of a trouble whoever met it is read again at the latest.
    pub(super) fn after(&self, trouble: What) -> SignedDuration {
        let waits = match trouble {
            What::Graph => self.again + CIRCUIT,
            What::Login => LOGIN_REMEMBERED + self.again,
            What::Consent => REFUSAL_REMEMBERED + self.parked,
            What::Service => return SignedDuration::ZERO,
        };
        waits + HICCUPS + self.stops
    }
}

/// Whom a trouble concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Concerns {
    All,
    Company(usize),
    Person(usize),
}

/// What is in trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Graph is away, or refuses until later.
    Graph,
    /// The login service is away.
    Login,
    /// The company's consent is withdrawn.
    Consent,
    /// We are away.
    Service,
}

/// A time in which mailboxes could not be read.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    concerns: Concerns,
    what: What,
    from: Timestamp,
    /// `None` while it lasts.
    to: Option<Timestamp>,
}

/// Whether a phone is let go, its calendar having been kept from us for a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LetGo {
    No,
    /// A mailbox finds out when it next asks, and is read some time after it may be.
    Perhaps,
    Surely,
}

/// All troubles so far, by beginning.
pub(super) struct Troubles {
    bounds: Bounds,
    all: Vec<Trouble>,
}

impl Troubles {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, all: Vec::new() }
    }

    pub(super) fn begin(&mut self, concerns: Concerns, what: What, from: Timestamp) {
        self.all.push(Trouble { concerns, what, from, to: None });
    }

    pub(super) fn spell(&mut self, concerns: Concerns, what: What, from: Timestamp, to: Timestamp) {
        self.all.push(Trouble { concerns, what, from, to: Some(to) });
    }

    pub(super) fn end(&mut self, concerns: Concerns, what: What, to: Timestamp) {
        let lasts = |one: &&mut Trouble| one.to.is_none() && one.concerns == concerns && one.what == what;
        self.all.iter_mut().find(lasts).unwrap().to = Some(to);
    }

    /// When a change made at `changed`, which shows `within` so long without trouble, shows at the latest; `None` while a
    /// trouble lasts.
    pub(super) fn deadline(
        &self,
        person: usize,
        company: usize,
        changed: Timestamp,
        within: SignedDuration,
    ) -> Option<Timestamp> {
        self.deadline_but(None, person, company, changed, within)
    }

    /// The same as if one of the troubles was not.
    fn deadline_but(
        &self,
        but: Option<&Trouble>,
        person: usize,
        company: usize,
        changed: Timestamp,
        within: SignedDuration,
    ) -> Option<Timestamp> {
        let mut deadline = changed + within;
        for trouble in self.of(person, company).filter(|one| but.is_none_or(|but| !std::ptr::eq(but, *one))) {
            let over = trouble.to.map(|to| to + self.bounds.after(trouble.what));
            if trouble.from <= deadline && over.is_none_or(|over| over > changed) {
                deadline = deadline.max(over?);
            }
        }
        Some(deadline)
    }

    /// Whether a phone is let go at `now`.
    pub(super) fn let_go(&self, person: usize, company: usize, now: Timestamp) -> LetGo {
        let withdrawn = self.of(person, company).filter(|one| one.what == What::Consent);
        let stands = withdrawn.map(|one| {
            // Other troubles may stand in the way of reading it again, as of noticing.
            let over = one.to.and_then(|to| self.deadline(person, company, to, self.bounds.after(one.what)));
            if now < one.from + KEPT_SHUT_OUT || over.is_some_and(|over| over <= now) {
                return LetGo::No;
            }
            let noticed = self.deadline_but(Some(one), person, company, one.from, self.bounds.change);
            let since = noticed.map(|noticed| noticed + KEPT_SHUT_OUT + HICCUPS + self.bounds.stops);
            let lasts = one.to.is_none_or(|to| now < to);
            if lasts && since.is_some_and(|since| since <= now) { LetGo::Surely } else { LetGo::Perhaps }
        });
        stands.max().unwrap_or(LetGo::No)
    }

    fn of(&self, person: usize, company: usize) -> impl Iterator<Item = &Trouble> {
        self.all.iter().filter(move |one| match one.concerns {
            Concerns::All => true,
            Concerns::Company(other) => other == company,
            Concerns::Person(other) => other == person,
        })
    }
}
