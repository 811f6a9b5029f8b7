//! A change made by hand, on the phone or in the portal, becomes a layer (`semantics.md` 5.5).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    layers::{Base, Layers, Override, What},
    scene::Scene,
};
use crate::{
    model::{OverrideRule, Rules},
    timetable::{Span, Timetable},
};

/// For how long a person wants a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lasting {
    /// Made on the phone, with the end that the phone was given, if any.
    OnPhone(Option<Timestamp>),
    /// For the rest of the event that is on; where none is, as `UntilChanged`.
    RestOfEvent,
    /// Until the person changes it.
    UntilChanged,
    /// Up to this moment.
    Until(Timestamp),
}

impl Lasting {
    fn end(self) -> Option<Timestamp> {
        match self {
            Self::OnPhone(until) => until,
            Self::Until(until) => Some(until),
            Self::RestOfEvent | Self::UntilChanged => None,
        }
    }
}

/// A change made by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManualChange {
    /// What was chosen.
    pub what: What,
    /// For how long.
    pub lasting: Lasting,
}

/// The layers after a change by hand at `now`.
///
/// An end that has passed already is taken for none on the phone, and makes the change void elsewhere.
/// A second change during an override is bound to the event that the calendar alone would show then.
/// Where a locked base is replaced while an event is on, the change wins over that event too: it was made
/// by hand, and nothing is asserted against that.
pub fn manual_change(
    rules: &Rules,
    timetable: &Timetable,
    layers: &Layers,
    change: ManualChange,
    now: Timestamp,
) -> Layers {
    let scene = Scene::new(rules, timetable, layers, now);
    let lasting = match change.lasting {
        Lasting::OnPhone(Some(until)) if until <= now => Lasting::OnPhone(None),
        Lasting::Until(until) if until <= now => return scene.layers,
        lasting => lasting,
    };
    let was_locked = scene.base_at(now).is_some_and(|base| scene.is_locked(base));
    let deciding = scene.course.at(now).map(|deciding| deciding.span);
    let mut after = scene.layers.clone();
    after.override_ = deciding
        .filter(|_| rules.override_rule != OverrideRule::CalendarWins)
        .map(|span| over(span, &change.what, lasting, now));
    let event = deciding.filter(|_| !was_locked);
    if event.is_none_or(|span| outlasts(lasting, span)) {
        let extra = after.base.take().map(|base| base.extra).unwrap_or_default();
        after.base = Some(Base { until: lasting.end(), extra, ..Base::new(change.what, now) });
    }
    after
}

fn over(span: &Span, what: &What, lasting: Lasting, now: Timestamp) -> Override {
    Override {
        event: span.event.clone(),
        event_profile: span.profile.clone(),
        event_time: span.interval,
        what: what.clone(),
        // Holds beyond the event's end too: the event may be extended past it.
        until: lasting.end(),
        set_at: now,
        extra: serde_json::Map::new(),
    }
}

/// Whether the person asked for more than the event's own time.
fn outlasts(lasting: Lasting, span: &Span) -> bool {
    match lasting {
        Lasting::UntilChanged => true,
        Lasting::OnPhone(Some(until)) | Lasting::Until(until) => until > span.interval.end,
        Lasting::OnPhone(None) | Lasting::RestOfEvent => false,
    }
}
