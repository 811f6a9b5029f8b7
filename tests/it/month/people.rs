//! Who lives through the month: companies in two time zones, their people, and what people do to their calendars.

use jiff::{SignedDuration, Timestamp, ToSpan, civil::Date, tz::TimeZone};
use narvaro_sim::{
    CalendarKind, EventIds, EventSpec, Moment, Response, Sensitivity, SeriesSpec, ShowAs, Sim, SimError,
};

use super::{
    dice::Dice,
    oracle::{Calendar, Held, calendar, is_cancelled, profile_of},
};

/// A company of the month.
pub(super) struct Company {
    pub(super) id: &'static str,
    pub(super) domain: &'static str,
    /// As its file has it.
    pub(super) zone: &'static str,
    /// As its mailboxes have it.
    pub(super) windows_zone: &'static str,
}

/// Two of them change to summer time within March, a fortnight apart.
pub(super) const COMPANIES: [Company; 3] = [
    Company {
        id: "acme",
        domain: "acme.example",
        zone: "Europe/Stockholm",
        windows_zone: "W. Europe Standard Time",
    },
    Company {
        id: "globex",
        domain: "globex.example",
        zone: "America/New_York",
        windows_zone: "Eastern Standard Time",
    },
    Company {
        id: "initech",
        domain: "initech.example",
        zone: "Asia/Tokyo",
        windows_zone: "Tokyo Standard Time",
    },
];

/// Subjects with words, in all the ways people write them.
const WITH_WORDS: [&str; 20] = [
    "MÖT: styrgrupp",
    "möt/Anna",
    "Meeting with Bo",
    "Meeting",
    "Lunch",
    "Sv: LUN stan",
    "Lunch meeting",
    "HOL",
    "Holiday in Spain",
    "Sick",
    "DND: rapport",
    "Do not disturb (tenta)",
    "TJR Oslo",
    "Available for questions",
    "Available",
    "UTE en stund",
    "Temporarily unavailable",
    "Out of office",
    "GFD",
    "On leave",
];

/// Subjects without words, some of them near misses.
const WITHOUT_WORDS: [&str; 10] = [
    "Avstämning",
    "Budget Q2",
    "Bemöta kunder",
    "HOLM AB",
    "Motion",
    "mot målet",
    "Lunchen ställs in",
    "Ute på arbete",
    "Unavailable",
    "Canceled: MÖT",
];

/// Among the deeds of [`Person::change`].
const RENAME: i64 = 2;

/// Something in a calendar that can be changed.
struct Item {
    id: String,
    start: Timestamp,
    end: Timestamp,
    what: What,
    /// From outside the company: what acceptance saw binds.
    outside: bool,
    response: Response,
    /// When it was changed last.
    touched: Timestamp,
}

#[derive(Clone, Copy)]
enum What {
    Timed,
    Days,
    Series { first: Date, every: i64, count: i64 },
}

/// An edit, and what it found where it changed something.
pub(super) struct Edit {
    pub(super) at: Timestamp,
    pub(super) what: &'static str,
    pub(super) before: Calendar,
}

/// A person with an extension and a calendar.
pub(super) struct Person {
    pub(super) company: usize,
    pub(super) extension: String,
    pub(super) alias: String,
    pub(super) enabled: bool,
    pub(super) held: Held,
    /// When it was last changed whether the calendar is followed.
    pub(super) switched: Timestamp,
    /// Edits that need not be known yet, as they are made.
    pub(super) young: Vec<Edit>,
    items: Vec<Item>,
}

/// Who asks for a meeting.
enum Inviter {
    Oneself,
    Colleague,
    Outsider,
}

impl Person {
    pub(super) fn new(number: usize, now: Timestamp) -> Self {
        let company = number % COMPANIES.len();
        Self {
            company,
            extension: format!("{}", 1_000 + number),
            alias: format!("p{number}@{}", COMPANIES[company].domain),
            enabled: true,
            held: Held::new(),
            switched: now,
            young: Vec::new(),
            items: Vec::new(),
        }
    }

    pub(super) fn zone(&self) -> TimeZone {
        TimeZone::get(COMPANIES[self.company].zone).unwrap()
    }

    /// Forgets what acceptances saw: a mailbox that is followed anew is read for the first time.
    pub(super) fn see_anew(&mut self, sim: &Sim, now: Timestamp) {
        let subjects: Vec<_> = sim.events(&self.alias).unwrap();
        for (id, _) in std::mem::take(&mut self.held) {
            let subject =
                subjects.iter().find(|(ids, _)| ids.id == id).and_then(|(_, subject)| subject.as_deref());
            see(&mut self.held, &id, subject.unwrap_or_default());
        }
        for item in &mut self.items {
            item.touched = now;
        }
    }

    /// Remembers an edit by what it found where it changed something.
    fn note(&mut self, sim: &Sim, now: Timestamp, what: &'static str, mut before: Calendar) {
        let after = calendar(sim, &self.alias, now);
        let added: Vec<_> = after.keys().filter(|name| !before.contains_key(*name)).cloned().collect();
        before.extend(added.into_iter().map(|name| (name, Vec::new())));
        before.retain(|name, rows| after.get(name) != Some(rows));
        self.young.push(Edit { at: now, what, before });
    }

    /// Does something to the calendar; `seen` tells whether what was done at a moment is known to the service by now.
    /// Answers what was done; nothing where the drawn deed made no sense.
    pub(super) fn edit(
        &mut self,
        sim: &Sim,
        dice: &mut Dice,
        now: Timestamp,
        seen: impl Fn(Timestamp) -> bool,
    ) -> Option<&'static str> {
        self.items.retain(|item| item.end > now - SignedDuration::from_hours(24));
        let before = calendar(sim, &self.alias, now);
        let done = if self.items.is_empty() || dice.percent(45) {
            self.create(sim, dice, now)
        } else {
            let index = dice.index(self.items.len());
            self.change(index, sim, dice, now, seen)
        }?;
        self.note(sim, now, done, before);
        Some(done)
    }

    fn create(&mut self, sim: &Sim, dice: &mut Dice, now: Timestamp) -> Option<&'static str> {
        let subject = subject(dice);
        let mut spec = EventSpec::new(subject);
        let mut inviter = match dice.within(0, 10) {
            0..5 => Inviter::Oneself,
            5..7 => Inviter::Colleague,
            _ => Inviter::Outsider,
        };
        if dice.percent(15) {
            let private = [Sensitivity::Private, Sensitivity::Personal, Sensitivity::Confidential];
            spec = spec.sensitivity(dice.one_of(&private));
        }
        if dice.percent(30) {
            let all = [
                ShowAs::Free,
                ShowAs::Free,
                ShowAs::Tentative,
                ShowAs::Oof,
                ShowAs::WorkingElsewhere,
                ShowAs::Unknown,
            ];
            spec = spec.show_as(dice.one_of(&all));
        }
        let today = now.to_zoned(self.zone()).date();
        let kind = dice.within(0, 100);
        let (what, start, end) = if kind < 8 {
            let (date, days) = (today + dice.within(-1, 4).days(), dice.within(1, 4));
            spec = spec.all_day(date, u32::try_from(days).unwrap());
            let midnight = |date: Date| date.to_zoned(self.zone()).unwrap().timestamp();
            (What::Days, midnight(date), midnight(date + days.days()))
        } else {
            let ahead = if dice.percent(60) { 240 } else { 4_000 };
            let start = rounded(now) + dice.minutes(-60, ahead);
            let length = if dice.percent(3) { SignedDuration::ZERO } else { dice.minutes(3, 60) * 5 };
            let end = start + length;
            let at = |at: Timestamp| Moment::Instant(at);
            spec = spec.at(at(start), at(end));
            if kind < 18 {
                let (every, count) =
                    if dice.percent(70) { (1, dice.within(2, 8)) } else { (7, dice.within(2, 5)) };
                let series = u32::try_from(count).unwrap();
                spec = spec.series(if every == 1 {
                    SeriesSpec::daily(series)
                } else {
                    SeriesSpec::weekly(series)
                });
                let first = start.to_zoned(self.zone()).date();
                let last = end + SignedDuration::from_hours(24 * every * count);
                (What::Series { first, every, count }, start, last)
            } else {
                (What::Timed, start, end)
            }
        };
        if dice.percent(3) {
            spec = spec.in_secondary_calendar();
            inviter = Inviter::Oneself;
        }
        let response = match inviter {
            Inviter::Oneself => Response::Organizer,
            Inviter::Colleague | Inviter::Outsider => dice.one_of(&[
                Response::Accepted,
                Response::Accepted,
                Response::Accepted,
                Response::TentativelyAccepted,
                Response::NotResponded,
                Response::None,
                Response::Declined,
            ]),
        };
        let outside = matches!(inviter, Inviter::Outsider);
        match inviter {
            Inviter::Oneself => {}
            Inviter::Colleague => {
                spec = spec.invited_by(&format!("boss@{}", COMPANIES[self.company].domain), response);
            }
            Inviter::Outsider => spec = spec.invited_by("sales@partner.example", response),
        }
        let id = sim.add_event(&self.alias, spec).unwrap().id;
        if outside && response == Response::Accepted {
            see(&mut self.held, &id, subject);
        }
        self.items.push(Item { id, start, end, what, outside, response, touched: now });
        Some(match what {
            What::Timed => "create",
            What::Days => "create days",
            What::Series { .. } => "create series",
        })
    }

    fn change(
        &mut self,
        index: usize,
        sim: &Sim,
        dice: &mut Dice,
        now: Timestamp,
        seen: impl Fn(Timestamp) -> bool,
    ) -> Option<&'static str> {
        let zone = self.zone();
        let item = &mut self.items[index];
        let alias = self.alias.as_str();
        let patch = |spec: EventSpec| sim.patch_event(alias, &item.id, spec);
        // What an outsider writes after the acceptance must not steer the phone, but only where that was seen.
        let bound = item.outside && item.response == Response::Accepted && seen(item.touched);
        let deed = if bound && dice.percent(60) { RENAME } else { dice.within(0, 11) };
        let done = match deed {
            0 => {
                sim.delete_event(alias, &item.id).unwrap();
                self.items.swap_remove(index);
                return Some("delete");
            }
            1 => {
                sim.cancel_event(alias, &item.id).unwrap();
                self.items.swap_remove(index);
                return Some("cancel");
            }
            RENAME | 3 if !item.outside || bound => {
                let subject = subject(dice);
                patch(EventSpec::new(subject)).unwrap();
                if bound {
                    see(&mut self.held, &item.id, subject);
                }
                "rename"
            }
            4 if item.response != Response::Organizer && item.response != Response::Declined => {
                let answer =
                    dice.one_of(&[Response::Accepted, Response::TentativelyAccepted, Response::Declined]);
                // Whoever takes an acceptance back here does so for good: what bound is not known twice.
                let answer = if item.response == Response::Accepted { Response::Declined } else { answer };
                sim.respond(alias, &item.id, answer).unwrap();
                item.response = answer;
                if item.outside && answer == Response::Accepted {
                    let events = sim.events(alias).unwrap();
                    let subject = events
                        .into_iter()
                        .find(|(ids, _)| ids.id == item.id)
                        .and_then(|(_, subject)| subject);
                    see(&mut self.held, &item.id, &subject.unwrap_or_default());
                }
                "answer"
            }
            5 if item.response == Response::Organizer => {
                let calendar = dice.one_of(&[CalendarKind::Default, CalendarKind::Secondary]);
                patch(EventSpec { calendar: Some(calendar), ..EventSpec::default() }).unwrap();
                "other calendar"
            }
            6 => {
                patch(EventSpec { body: Some(format!("Agenda {now}")), ..EventSpec::default() }).unwrap();
                "body"
            }
            _ => match item.what {
                What::Timed => {
                    let (start, end) = moved(dice, item.start, item.end);
                    patch(EventSpec::default().at(start, end)).unwrap();
                    (item.start, item.end) = (start, end);
                    "move"
                }
                What::Days => {
                    let (date, days) =
                        (now.to_zoned(zone.clone()).date() + dice.within(-1, 4).days(), dice.within(1, 4));
                    patch(EventSpec::default().all_day(date, u32::try_from(days).unwrap())).unwrap();
                    // Once over for a day, nobody moves it back: what bound is forgotten with it.
                    item.end = (date + days.days()).to_zoned(zone).unwrap().timestamp();
                    "move days"
                }
                What::Series { first, every, count } => {
                    let date = first + (every * dice.within(0, count)).days();
                    change_occurrence(sim, alias, &item.id, date, item.outside, &zone, dice)?
                }
            },
        };
        self.items[index].touched = now;
        Some(done)
    }
}

/// What an accepted invitation from outside was first seen to say binds; one that is marked as cancelled says nothing.
fn see(held: &mut Held, id: &str, subject: &str) {
    if !is_cancelled(subject) {
        held.entry(id.to_owned()).or_insert(profile_of(subject));
    }
}

/// Moves, renames or deletes one occurrence; `None` where there is none on that day.
fn change_occurrence(
    sim: &Sim,
    alias: &str,
    series: &str,
    date: Date,
    outside: bool,
    zone: &TimeZone,
    dice: &mut Dice,
) -> Option<&'static str> {
    let ids: Result<EventIds, SimError> = sim.occurrence(alias, series, date);
    let id = ids.ok()?.id;
    Some(match dice.within(0, 3) {
        0 => {
            sim.delete_event(alias, &id).unwrap();
            "delete occurrence"
        }
        1 if !outside => {
            sim.patch_event(alias, &id, EventSpec::new(subject(dice))).unwrap();
            "rename occurrence"
        }
        _ => {
            let start = date.to_zoned(zone.clone()).unwrap().timestamp() + dice.minutes(6 * 60, 20 * 60);
            let spec = EventSpec::default().at(start, start + dice.minutes(10, 200));
            sim.patch_event(alias, &id, spec).unwrap();
            "move occurrence"
        }
    })
}

fn subject(dice: &mut Dice) -> &'static str {
    if dice.percent(65) { dice.one_of(&WITH_WORDS) } else { dice.one_of(&WITHOUT_WORDS) }
}

/// People write whole minutes.
fn rounded(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second() / 60 * 60).unwrap()
}

/// Another time for an event: moved, or only its end.
fn moved(dice: &mut Dice, start: Timestamp, end: Timestamp) -> (Timestamp, Timestamp) {
    if dice.percent(40) {
        let by = dice.minutes(-180, 600);
        (start + by, end + by)
    } else {
        // Longer or shorter, at times down to nothing.
        (start, start.max(end + dice.minutes(-60, 90)))
    }
}
