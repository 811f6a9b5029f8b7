//! What the decision promises.

mod edits;
mod explained;
mod layering;
mod oracle;
mod precedence;
mod written;
mod zones;

use jiff::Timestamp;

use super::{Base, Decision, Lasting, Layers, ManualChange, What, decide, manual_change};
use crate::{
    model::{CalendarEvent, Rules, Shown},
    timetable::{
        Timetable,
        tests::{profile, timetable},
    },
};

/// A mailbox: rules, calendar, layers.
struct Mailbox {
    rules: Rules,
    timetable: Timetable,
    layers: Layers,
}

impl Mailbox {
    fn new(rules: Rules, events: &[CalendarEvent]) -> Self {
        let timetable = timetable(&rules, events);
        Self { rules, timetable, layers: Layers::default() }
    }

    /// The calendar is another from now on.
    fn recalendar(&mut self, events: &[CalendarEvent]) {
        self.timetable = timetable(&self.rules, events);
    }

    /// Decides and keeps the cleaned layers, as a turn does.
    fn at(&mut self, now: Timestamp) -> Decision {
        let decision = decide(&self.rules, &self.timetable, &self.layers, now);
        self.layers = decision.layers.clone();
        decision
    }

    fn shows(&mut self, now: Timestamp) -> String {
        self.at(now).profile.map(|profile| profile.to_string()).unwrap_or_default()
    }

    fn change(&mut self, id: &str, lasting: Lasting, now: Timestamp) {
        let change = ManualChange { what: What::Profile(profile(id)), lasting };
        self.layers = manual_change(&self.rules, &self.timetable, &self.layers, change, now);
    }

    fn base(&mut self, id: &str, until: Option<Timestamp>, set_at: Timestamp) {
        self.layers.base = Some(Base { until, ..Base::new(What::Profile(profile(id)), set_at) });
    }
}

fn found(state: &str) -> Shown {
    Shown::of([("state", state)])
}
