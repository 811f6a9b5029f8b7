//! What will happen when: drawn before the month begins, so that a seed tells all of it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp, civil::Weekday};
use narvaro_sim::FaultKind;

use super::{
    dice::Dice,
    people::{COMPANIES, Person},
};

/// Something that happens.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// This person does something to their calendar.
    Edit(usize),
    /// All extensions are compared.
    Sample,
    Fault(Fault),
}

/// Something that goes wrong, or right again.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// Notifications take up to 20 minutes, or go at once again.
    Slow(bool),
    /// 429 for a company, or for one mailbox.
    Storm {
        company: usize,
        mailbox: Option<usize>,
        lasting: SignedDuration,
        retry_after: u64,
    },
    /// The next few requests fail.
    Hiccup {
        times: u32,
        kind: FaultKind,
    },
    RemovedSilently(usize),
    RemovedWithNotice(usize),
    Missed(usize),
    Reauthorize(usize),
    DeltaExpired(usize),
    /// Graph answers 503 and delivers nothing.
    Outage,
    OutageOver,
    TokensDown,
    TokensBack,
    ConsentRevoked(usize),
    ConsentRestored {
        company: usize,
        by_page: bool,
    },
    ServiceDown,
    ServiceUp,
    /// The company takes a user out of the service.
    SwitchedOff(usize),
    SwitchedOn(usize),
}

impl Fault {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Slow(_) => "slow spells of delivery (from and to)",
            Self::Storm { .. } => "429 storms",
            Self::Hiccup { .. } => "hiccups",
            Self::RemovedSilently(_) => "subscriptions removed silently",
            Self::RemovedWithNotice(_) => "subscriptions removed with notice",
            Self::Missed(_) => "`missed`",
            Self::Reauthorize(_) => "`reauthorizationRequired`",
            Self::DeltaExpired(_) => "delta links expired",
            Self::Outage => "outages of 2 h",
            Self::OutageOver => "outages over",
            Self::TokensDown => "token endpoint down 30 min",
            Self::TokensBack => "token endpoint back",
            Self::ConsentRevoked(_) => "consents revoked",
            Self::ConsentRestored { .. } => "consents restored",
            Self::ServiceDown => "service stopped",
            Self::ServiceUp => "service started",
            Self::SwitchedOff(_) => "users switched off",
            Self::SwitchedOn(_) => "users switched on",
        }
    }
}

/// How a month is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) seed: u64,
    pub(super) mailboxes: usize,
    pub(super) from: Timestamp,
    pub(super) days: i64,
    pub(super) faults: bool,
    /// About how far apart the samples are.
    pub(super) sample_every: SignedDuration,
    /// Least that the clock is moved, in whole seconds: what is planned or due meanwhile waits for it, and what falls on
    /// one stop is done together.
    pub(super) stride: SignedDuration,
}

impl Form {
    pub(super) fn to(&self) -> Timestamp {
        self.from + SignedDuration::from_hours(24 * self.days)
    }
}

/// All that will happen, in order.
pub(super) struct Plan {
    acts: BTreeMap<(Timestamp, usize), Act>,
    from: Timestamp,
    stride: SignedDuration,
}

impl Plan {
    pub(super) fn draw(form: &Form, people: &[Person], dice: &mut Dice) -> Self {
        let mut plan = Self { acts: BTreeMap::new(), from: form.from, stride: form.stride };
        for (number, person) in people.iter().enumerate() {
            plan.edits(form, number, person, dice);
        }
        for at in dice.moments(form.from, form.to(), form.sample_every) {
            plan.put(at, Act::Sample);
        }
        if form.faults {
            plan.faults(form, people.len(), dice);
        }
        plan
    }

    /// Puts an act at the first stop of the clock that is not before `at`.
    fn put(&mut self, at: Timestamp, act: Act) {
        let stride = self.stride.as_secs();
        let strides = at.duration_since(self.from).as_secs().div_euclid(stride);
        let on_stop = self.from + SignedDuration::from_secs(strides * stride);
        let at = if on_stop < at { on_stop + self.stride } else { on_stop };
        self.acts.insert((at, self.acts.len()), act);
    }

    /// When the next thing happens.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.acts.first_key_value().map(|((at, _), _)| *at)
    }

    /// What happens at `now` or should have before.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<Act> {
        self.acts.first_entry().filter(|first| first.key().0 <= now).map(|first| first.remove())
    }

    fn edits(&mut self, form: &Form, number: usize, person: &Person, dice: &mut Dice) {
        for day in 0..form.days {
            let noon = form.from + SignedDuration::from_hours(24 * day + 12);
            let date = noon.to_zoned(person.zone()).date();
            let weekend = matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday);
            for _ in 0..dice.within(0, if weekend { 3 } else { 9 }) {
                let morning = date.at(6, 0, 0, 0).to_zoned(person.zone()).unwrap().timestamp();
                let at = morning + SignedDuration::from_secs(dice.within(0, 14 * 3_600));
                if at > form.from && at < form.to() {
                    self.put(at, Act::Edit(number));
                }
            }
        }
    }

    fn faults(&mut self, form: &Form, people: usize, dice: &mut Dice) {
        let (from, to) = (form.from, form.to());
        let hours = SignedDuration::from_hours;
        let mut often = |every: SignedDuration, dice: &mut Dice, draw: &mut dyn FnMut(&mut Dice) -> Fault| {
            for at in dice.moments(from, to, every) {
                let fault = draw(dice);
                self.put(at, Act::Fault(fault));
            }
        };
        often(hours(30), dice, &mut |dice| {
            let mailbox = dice.percent(40).then(|| dice.index(people));
            let company = mailbox.unwrap_or_else(|| dice.index(COMPANIES.len())) % COMPANIES.len();
            let retry_after = u64::try_from(dice.within(1, 120)).unwrap();
            Fault::Storm { company, mailbox, lasting: dice.minutes(3, 25), retry_after }
        });
        often(hours(5), dice, &mut |dice| {
            let kinds = [
                FaultKind::Drop,
                FaultKind::DropAfter,
                FaultKind::CutBody,
                FaultKind::Html { status: 502 },
                FaultKind::Empty { status: 504 },
                FaultKind::Status { status: 503, code: None, retry_after: Some(20.0) },
                FaultKind::Throttle { retry_after: Some(10.0) },
            ];
            let kind = kinds[dice.index(kinds.len())].clone();
            Fault::Hiccup { times: u32::try_from(dice.within(1, 6)).unwrap(), kind }
        });
        // Of each mailbox about once in so many days.
        let each = |days: i64| SignedDuration::from_secs(days * 86_400 / i64::try_from(people).unwrap());
        often(each(15), dice, &mut |dice| Fault::RemovedSilently(dice.index(people)));
        often(each(15), dice, &mut |dice| Fault::RemovedWithNotice(dice.index(people)));
        often(each(15), dice, &mut |dice| Fault::Missed(dice.index(people)));
        often(each(10), dice, &mut |dice| Fault::Reauthorize(dice.index(people)));
        often(each(10), dice, &mut |dice| Fault::DeltaExpired(dice.index(people)));
        self.spells(form, hours(9), dice, &mut |dice| {
            (Fault::Slow(true), dice.minutes(60, 180), Fault::Slow(false))
        });
        self.spells(form, hours(40), dice, &mut |dice| {
            (Fault::ServiceDown, dice.minutes(0, 15), Fault::ServiceUp)
        });
        self.spells(form, each(60), dice, &mut |dice| {
            let person = dice.index(people);
            (Fault::SwitchedOff(person), dice.minutes(120, 2_000), Fault::SwitchedOn(person))
        });
        self.restarts_within_storms(dice);
        self.once(form, dice, |_| (Fault::Outage, hours(2), Fault::OutageOver));
        self.once(form, dice, |_| (Fault::TokensDown, SignedDuration::from_mins(30), Fault::TokensBack));
        // One comes back within the day in which timetables are kept, one after it.
        let company = dice.index(COMPANIES.len());
        for (company, by_page, hours) in [(company, true, (1, 5)), (company + 1, false, (26, 40))] {
            let company = company % COMPANIES.len();
            self.once(form, dice, |dice| {
                let restored = Fault::ConsentRestored { company, by_page };
                (Fault::ConsentRevoked(company), dice.minutes(hours.0 * 60, hours.1 * 60), restored)
            });
        }
    }

    /// What was told to wait must not be remembered in memory alone.
    fn restarts_within_storms(&mut self, dice: &mut Dice) {
        let storms: Vec<Timestamp> = self
            .acts
            .iter()
            .filter(|(_, act)| matches!(act, Act::Fault(Fault::Storm { mailbox: None, .. })))
            .map(|((at, _), _)| *at)
            .collect();
        for storm in storms {
            let at = storm + dice.minutes(1, 5);
            self.put(at, Act::Fault(Fault::ServiceDown));
            self.put(at, Act::Fault(Fault::ServiceUp));
        }
    }

    /// Something that ends again, about every so often; nothing of it is left at the end.
    fn spells(
        &mut self,
        form: &Form,
        every: SignedDuration,
        dice: &mut Dice,
        draw: &mut dyn FnMut(&mut Dice) -> (Fault, SignedDuration, Fault),
    ) {
        let mut free = form.from;
        for at in dice.moments(form.from, form.to(), every) {
            let (begins, lasting, ends) = draw(dice);
            if at >= free && at + lasting < form.to() {
                self.put(at, Act::Fault(begins));
                self.put(at + lasting, Act::Fault(ends));
                free = at + lasting;
            }
        }
    }

    /// Something that happens once, in the middle part of the month.
    fn once(
        &mut self,
        form: &Form,
        dice: &mut Dice,
        draw: impl FnOnce(&mut Dice) -> (Fault, SignedDuration, Fault),
    ) {
        let length = form.to().duration_since(form.from).as_secs();
        let at = form.from + SignedDuration::from_secs(dice.within(length / 10, length * 8 / 10));
        let (begins, lasting, ends) = draw(dice);
        self.put(at, Act::Fault(begins));
        self.put(at + lasting, Act::Fault(ends));
    }
}
