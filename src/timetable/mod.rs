//! Pure: what a calendar says, held against a company's words, becomes a timetable.
//!
//! A [`Timetable`] is what is left of a mailbox's calendar once its subjects have been matched: for each
//! event with a profile its times, the word that chose it and whether it counts. It holds no subject, no
//! organiser and no category, and can be stored. Each of its operations gives the same timetable as a
//! complete read of the same calendar would, and says what it changed.
//!
//! Whole days are kept as dates and become instants only in [`Timetable::spans`], so that a changed zone
//! or new daylight-saving rules need no new read. A change of rules does need one ([`Timetable::rebuild`]),
//! as the words are matched against subjects that are not kept.
//!
//! A timetable knows which words it was made by ([`Matcher::digest`]). Why not which apply: outcomes that bind a person
//! who invites from outside ([`Hold`]) are taken anew when the words change, and must not be when a colleague is added.

mod counting;
mod entry;
mod fold;
mod hold;
mod judgement;
mod matcher;
mod span;
mod words;
mod zone;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use entry::{Cause, Counts, Entry, EventKey, Exclusion, HeldBack, interval_of};
pub use hold::Hold;
pub use judgement::{Hit, Judgement, Lost, LostBecause, MatchRule, NoProfile, Owner, Warning};
pub(crate) use matcher::digest_of;
pub use matcher::{Matcher, RuleError};
pub use span::Span;
pub use words::{MAX_CHARS, WordError, join, parse_list, same};
pub use zone::{LAST_RESORT, Zone, ZoneError, ZoneSource, resolve, start_of};

use crate::model::{CalendarEvent, EventId, EventKind, ExternalChange, Interval, Response, Rules};
use counting::{Reading, is_external};
use hold::holder;

/// Version of the stored form.
pub const SCHEMA: u32 = 1;

/// One mailbox's events that have a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timetable {
    /// Version of the stored form.
    pub schema: u32,
    /// The entries, by event id.
    pub entries: Vec<Entry>,
    /// Outcomes that bind accepted invitations from outside, by event or series.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub holds: BTreeMap<EventId, Hold>,
    /// The zone in which the mailbox's days begin.
    pub zone: Zone,
    /// What the last complete read covered.
    pub window: Interval,
    /// What its words were chosen by ([`Matcher::digest`]); `None` where that was not kept yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words_digest: Option<u64>,
    /// What a newer release wrote and this one does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What an operation did to a timetable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Events that have an entry now and had none.
    pub added: Vec<EventId>,
    /// Events whose entry says something else now.
    pub changed: Vec<EventId>,
    /// Events that had an entry and have none now.
    pub removed: Vec<EventId>,
    /// Whether anything at all is to be stored anew: an entry, a hold, the zone, the window.
    pub stored_form: bool,
}

impl Changes {
    /// How many events have another entry than before, or one where they had none, or none any more.
    pub fn count(&self) -> usize {
        self.added.len() + self.changed.len() + self.removed.len()
    }

    /// Whether all entries are as before.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }
}

impl Default for Timetable {
    fn default() -> Self {
        let never = jiff::Timestamp::UNIX_EPOCH;
        Self {
            schema: SCHEMA,
            entries: Vec::new(),
            holds: BTreeMap::new(),
            zone: Zone::default(),
            window: Interval::new(never, never),
            words_digest: None,
            extra: Map::new(),
        }
    }
}

impl Timetable {
    /// Replaces everything by what a complete read of `window` brought.
    pub fn rebuild(
        &mut self,
        rules: &Rules,
        matcher: &Matcher,
        events: &[CalendarEvent],
        window: Interval,
        zone: Zone,
    ) -> Changes {
        let before = self.clone();
        let words_changed = self.words_digest.is_some_and(|digest| digest != matcher.digest());
        self.schema = SCHEMA;
        self.window = window;
        self.zone = zone;
        self.words_digest = Some(matcher.digest());
        self.entries.clear();
        // The most typical event of a series speaks first where several are new to it.
        let mut events: Vec<&CalendarEvent> = events.iter().collect();
        events
            .sort_by_key(|event| (holder(event), speaks_after(event.kind), event.original_start, &event.id));
        self.renew_holds(rules, matcher, &events, words_changed);
        for event in events {
            self.place(rules, matcher, event);
        }
        self.holds.retain(|_, hold| !hold.carriers.is_empty() || hold.outlives(window));
        self.entries.sort_by(|one, other| one.key.event.cmp(&other.key.event));
        self.entries.dedup_by(|one, other| one.key.event == other.key.event);
        self.changes_since(&before)
    }

    /// Takes in one event as it is now, whether it is new, changed or no longer of interest.
    pub fn upsert(&mut self, rules: &Rules, matcher: &Matcher, event: &CalendarEvent) -> Changes {
        self.changed_by(|timetable| timetable.put(rules, matcher, event))
    }

    /// Forgets an event, or with the id of a series all its occurrences.
    pub fn remove(&mut self, id: &EventId) -> Changes {
        self.changed_by(|timetable| timetable.drop_event(id))
    }

    /// Replaces all occurrences of a series by those given, as they touch the window.
    pub fn replace_series(
        &mut self,
        rules: &Rules,
        matcher: &Matcher,
        series: &EventId,
        events: &[CalendarEvent],
    ) -> Changes {
        self.changed_by(|timetable| timetable.put_series(rules, matcher, series, events))
    }

    /// Takes in what a round brought: what is gone, series with all their occurrences, and single events. As if
    /// [`remove`](Self::remove), [`replace_series`](Self::replace_series) and [`upsert`](Self::upsert) were called
    /// for each of them.
    pub fn take_in(
        &mut self,
        rules: &Rules,
        matcher: &Matcher,
        gone: &[EventId],
        series: &[(EventId, Vec<CalendarEvent>)],
        events: &[CalendarEvent],
    ) -> Changes {
        self.changed_by(|timetable| {
            for id in gone {
                timetable.drop_event(id);
            }
            for (id, occurrences) in series {
                timetable.put_series(rules, matcher, id, occurrences);
            }
            for event in events {
                timetable.put(rules, matcher, event);
            }
        })
    }

    fn changed_by(&mut self, change: impl FnOnce(&mut Self)) -> Changes {
        let before = self.clone();
        change(self);
        self.entries.sort_by(|one, other| one.key.event.cmp(&other.key.event));
        self.changes_since(&before)
    }

    fn put(&mut self, rules: &Rules, matcher: &Matcher, event: &CalendarEvent) {
        let key = EventKey::from(event);
        self.entries.retain(|entry| !entry.key.names_same(&key) && entry.key.event != key.event);
        self.place(rules, matcher, event);
    }

    fn drop_event(&mut self, id: &EventId) {
        self.entries.retain(|entry| entry.key.event != *id && entry.key.series.as_ref() != Some(id));
        for (held, hold) in &mut self.holds {
            hold.drop_carrier(id);
            if held == id {
                hold.carriers.clear();
                hold.diverged.clear();
            }
        }
    }

    fn put_series(&mut self, rules: &Rules, matcher: &Matcher, series: &EventId, events: &[CalendarEvent]) {
        self.entries.retain(|entry| entry.key.series.as_ref() != Some(series));
        if let Some(hold) = self.holds.get_mut(series) {
            hold.carriers.retain(|id| events.iter().any(|event| event.id == *id));
            hold.diverged.retain(|id| events.iter().any(|event| event.id == *id));
        }
        let mut events: Vec<&CalendarEvent> = events.iter().collect();
        events.sort_by_key(|event| (speaks_after(event.kind), event.original_start, &event.id));
        for event in events {
            self.entries.retain(|entry| entry.key.event != event.id);
            self.place(rules, matcher, event);
        }
    }

    /// Sets the zone in which the mailbox's days begin; says whether that changed anything.
    pub fn set_zone(&mut self, zone: Zone) -> bool {
        let changed = self.zone != zone;
        self.zone = zone;
        changed
    }

    /// Whether an event with this id, or an occurrence of a series with it, has an entry.
    pub fn knows(&self, id: &EventId) -> bool {
        self.entries.iter().any(|entry| entry.key.event == *id || entry.key.series.as_ref() == Some(id))
    }

    /// The entry that `key` names.
    pub fn entry(&self, key: &EventKey) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key.names_same(key))
    }

    /// The times at which counted events steer the phone, by start.
    pub fn spans(&self, rules: &Rules) -> Vec<Span> {
        span::spans(rules, self)
    }

    /// Puts an event's entry in, and its hold in order. The old entry is gone already.
    fn place(&mut self, rules: &Rules, matcher: &Matcher, event: &CalendarEvent) {
        let interval = interval_of(&event.when, &self.zone.rules());
        let zero = interval.is_empty();
        // A zero-length event touches the window with its one instant: it is kept to be explained.
        let touches = interval.overlaps(&self.window) || zero && self.window.contains(interval.start);
        let reading = Reading::of(matcher, event);
        self.tend_hold(rules, event, &reading, interval.end, touches);
        if !touches {
            return;
        }
        let held = self.holds.get(holder(event)).filter(|_| binds(rules, event)).map(|hold| hold.hit.clone());
        self.entries.extend(counting::entry(rules, event, reading, held.as_ref()));
    }

    fn tend_hold(
        &mut self,
        rules: &Rules,
        event: &CalendarEvent,
        reading: &Reading,
        end: jiff::Timestamp,
        touches: bool,
    ) {
        let id = holder(event);
        let is_master = event.kind == EventKind::SeriesMaster;
        if binds(rules, event) {
            if reading.may_be_held() && (touches || is_master) {
                let is_series = event.series.is_some() || is_master;
                let window = self.window;
                let hold = self
                    .holds
                    .entry(id.clone())
                    .or_insert_with(|| Hold::new(reading.hit().cloned(), is_series, window));
                if !is_master {
                    hold.carry(&event.id, reading.hit(), end, window);
                }
            } else if !touches && let Some(hold) = self.holds.get_mut(id) {
                hold.drop_carrier(&event.id);
            }
        } else if let Some(hold) = self.holds.get_mut(id) {
            let was_bound = hold.drop_carrier(&event.id) || *id == event.id;
            if was_bound && hold.carriers.is_empty() {
                self.holds.remove(id);
            }
        }
    }

    /// Before a complete read is placed: carriers are counted anew, and after a change of words outcomes
    /// that no change from outside has touched follow the new ones.
    fn renew_holds(
        &mut self,
        rules: &Rules,
        matcher: &Matcher,
        events: &[&CalendarEvent],
        words_changed: bool,
    ) {
        let mut renewed: BTreeMap<&EventId, Option<Hit>> = BTreeMap::new();
        if words_changed {
            for event in events.iter().filter(|event| binds(rules, event)) {
                let id = holder(event);
                let diverged = self.holds.get(id).is_some_and(|hold| hold.diverged.contains(&event.id));
                let reading = Reading::of(matcher, event);
                if !diverged && reading.may_be_held() {
                    renewed.entry(id).or_insert_with(|| reading.hit().cloned());
                }
            }
        }
        // Where all that is seen of those once bound is not accepted any more, the hold has ended.
        let ended: Vec<EventId> = events
            .iter()
            .filter(|event| !binds(rules, event))
            .filter(|event| {
                let hold = self.holds.get(holder(event));
                hold.is_some_and(|hold| hold.carriers.contains(&event.id) || *holder(event) == event.id)
            })
            .map(|event| holder(event).clone())
            .filter(|id| !events.iter().any(|other| holder(other) == id && binds(rules, other)))
            .collect();
        self.holds.retain(|id, _| !ended.contains(id));
        for (id, hold) in &mut self.holds {
            hold.carriers.clear();
            hold.diverged.clear();
            if let Some(hit) = renewed.remove(id) {
                hold.hit = hit;
            }
            if hold.hit.as_ref().is_some_and(|hit| rules.profile(&hit.profile).is_none()) {
                hold.hit = None;
            }
        }
    }

    fn changes_since(&self, before: &Self) -> Changes {
        let by_id = |timetable: &Self| -> BTreeMap<EventId, Entry> {
            timetable.entries.iter().map(|entry| (entry.key.event.clone(), entry.clone())).collect()
        };
        let (old, new) = (by_id(before), by_id(self));
        let mut changes = Changes { stored_form: self != before, ..Changes::default() };
        for (id, entry) in &new {
            match old.get(id) {
                None => changes.added.push(id.clone()),
                Some(known) if known != entry => changes.changed.push(id.clone()),
                Some(_) => {}
            }
        }
        changes.removed = old.into_keys().filter(|id| !new.contains_key(id)).collect();
        changes
    }
}

/// Whether the event is an accepted invitation from outside whose outcome is to be held.
fn binds(rules: &Rules, event: &CalendarEvent) -> bool {
    rules.counting.external_subject_change == ExternalChange::Hold
        && event.response == Response::Accepted
        && is_external(rules, event)
}

/// The master speaks for its series before the occurrences, and these before the exceptions.
fn speaks_after(kind: EventKind) -> u8 {
    match kind {
        EventKind::SeriesMaster => 0,
        EventKind::Single | EventKind::Occurrence => 1,
        EventKind::Exception => 2,
    }
}

#[cfg(test)]
pub(crate) mod tests;
