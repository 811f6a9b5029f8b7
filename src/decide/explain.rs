//! Why a phone shows what it shows: the profile, the event and word that chose it, who lost and why, what
//! lies over it, and when it changes next. The same answer wherever it is asked for.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

use super::{
    Change, Layer,
    course::{Beaten, Deciding, Phase, beaten},
    layer_of,
    scene::{Scene, Source},
    sentences,
};
use crate::{
    model::{Interval, Language, ProfileId},
    timetable::{Cause, Counts, Entry, EventKey, Exclusion, HeldBack, Lost, Timetable, Warning},
};

/// A profile's names, as the company has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// In Swedish.
    pub sv: String,
    /// In English.
    pub en: String,
}

/// The event that decides in the calendar layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decider {
    /// Which.
    pub event: EventKey,
    /// Its own time.
    pub interval: Interval,
    /// In which part of its reach.
    pub phase: Phase,
    /// The word or fallback that gave it its profile.
    pub cause: Cause,
    /// Words of its subject that did not decide.
    pub words_lost: Vec<Lost>,
    /// What a person should look at.
    pub warnings: Vec<Warning>,
    /// A change from outside that was not followed.
    pub held_back: Option<HeldBack>,
}

/// Why an event does not decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyLost {
    /// Another event beat it.
    Beaten(Beaten),
    /// It does not count.
    Excluded(Exclusion),
    /// It would decide, but a change by hand wins over it.
    Overridden,
    /// It would decide, but the base is locked.
    BaseLocked,
}

/// An event that is on and does not decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostEvent {
    /// Which.
    pub event: EventKey,
    /// Its own time.
    pub interval: Interval,
    /// The profile it would set; none where its subject could not be read.
    pub profile: Option<ProfileId>,
    /// The trigger word that was found.
    pub word: Option<String>,
    /// Why.
    pub why: WhyLost,
}

/// A change by hand that wins over the calendar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverrideNote {
    /// What it shows; none for something found on the PBX that is no profile.
    pub profile: Option<ProfileId>,
    /// When it was made.
    pub set_at: Timestamp,
    /// The event with which it ends.
    pub event: EventKey,
    /// That event's time.
    pub event_time: Interval,
    /// An end of its own.
    pub until: Option<Timestamp>,
}

/// The base, whether it shows or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseNote {
    /// What it shows; none for something found on the PBX that is no profile.
    pub profile: Option<ProfileId>,
    /// When it was set; none for Available by default.
    pub set_at: Option<Timestamp>,
    /// When it runs out.
    pub until: Option<Timestamp>,
    /// Whether the calendar must keep off it.
    pub locked: bool,
    /// Whether an older base is hidden by an event that came after it.
    pub hides_older: bool,
}

/// Why a phone shows what it shows at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The moment.
    pub at: Timestamp,
    /// What shows; none for something found on the PBX that is no profile.
    pub profile: Option<ProfileId>,
    /// Which layer decides.
    pub layer: Layer,
    /// The event that decides, unless another layer lies over the calendar.
    pub decider: Option<Decider>,
    /// The change by hand in force.
    #[serde(rename = "override")]
    pub override_: Option<OverrideNote>,
    /// The base.
    pub base: BaseNote,
    /// Events that are on and do not decide, by start.
    pub losers: Vec<LostEvent>,
    /// The next two changes.
    pub next_changes: Vec<Change>,
    /// Names of all profiles that are spoken of.
    pub names: BTreeMap<ProfileId, Names>,
}

impl Explanation {
    /// The explanation in sentences, times as the clock on the wall in `zone` shows them.
    pub fn lines(&self, language: Language, zone: &TimeZone) -> Vec<String> {
        sentences::lines(self, language, zone)
    }

    /// The first of those sentences for a phone that is known to show something else still.
    pub fn should_show(&self, language: Language, zone: &TimeZone) -> String {
        sentences::should_show(self, language, zone)
    }

    fn profiles(&self) -> impl Iterator<Item = &ProfileId> {
        let decider = self.decider.iter().flat_map(|decider| {
            let lost = decider.words_lost.iter().map(|lost| &lost.hit.profile);
            let held = decider.held_back.iter().filter_map(|held| held.profile.as_ref());
            std::iter::once(decider.cause.profile()).chain(lost).chain(held)
        });
        let layers = [
            self.profile.as_ref(),
            self.base.profile.as_ref(),
            self.override_.as_ref().and_then(|known| known.profile.as_ref()),
        ];
        let losers = self.losers.iter().filter_map(|lost| lost.profile.as_ref());
        let next = self.next_changes.iter().filter_map(|change| change.profile.as_ref());
        decider.chain(layers.into_iter().flatten()).chain(losers).chain(next)
    }
}

/// Explains what `scene` shows at `at`.
pub(super) fn explain(
    timetable: &Timetable,
    scene: &Scene<'_>,
    at: Timestamp,
    next_changes: Vec<Change>,
) -> Explanation {
    let source = scene.at(at);
    let calendar = scene.course.at(at);
    let mut explanation = Explanation {
        at,
        profile: scene.profile(source).map(|profile| profile.id.clone()),
        layer: layer_of(source).0,
        decider: match source {
            Source::Calendar(deciding) => decider(timetable, deciding),
            Source::Override(_) | Source::Base(_) => None,
        },
        override_: scene.layers.override_.as_ref().map(|known| OverrideNote {
            profile: known.what.profile().cloned(),
            set_at: known.set_at,
            event: known.event.clone(),
            event_time: scene.course.find(&known.event).map_or(known.event_time, |span| span.interval),
            until: known.until,
        }),
        base: base_note(scene, at),
        losers: losers(timetable, scene, calendar.as_ref(), source, at),
        next_changes,
        names: BTreeMap::new(),
    };
    explanation.names = names(scene, &explanation);
    explanation
}

fn names(scene: &Scene<'_>, explanation: &Explanation) -> BTreeMap<ProfileId, Names> {
    explanation
        .profiles()
        .filter_map(|id| scene.rules.profile(id))
        .map(|profile| {
            let names = Names { sv: profile.name_sv.clone(), en: profile.name_en.clone() };
            (profile.id.clone(), names)
        })
        .collect()
}

fn decider(timetable: &Timetable, deciding: Deciding<'_>) -> Option<Decider> {
    let entry = timetable.entry(&deciding.span.event)?;
    Some(Decider {
        event: entry.key.clone(),
        interval: deciding.span.interval,
        phase: deciding.phase,
        cause: entry.cause.clone()?,
        words_lost: entry.losers.clone(),
        warnings: entry.warnings.clone(),
        held_back: entry.held_back.clone(),
    })
}

fn base_note(scene: &Scene<'_>, at: Timestamp) -> BaseNote {
    let base = scene.base_at(at);
    BaseNote {
        profile: scene.profile(Source::Base(base)).map(|profile| profile.id.clone()),
        set_at: base.map(|base| base.set_at),
        until: base.and_then(|base| base.until),
        locked: base.is_some_and(|base| scene.is_locked(base)),
        hides_older: base.is_none() && scene.layers.base.as_ref().is_some_and(|base| base.hidden),
    }
}

fn losers(
    timetable: &Timetable,
    scene: &Scene<'_>,
    calendar: Option<&Deciding<'_>>,
    source: Source<'_>,
    at: Timestamp,
) -> Vec<LostEvent> {
    let zone = timetable.zone.rules();
    let over_calendar = match source {
        Source::Override(_) => Some(WhyLost::Overridden),
        Source::Base(_) => Some(WhyLost::BaseLocked),
        Source::Calendar(_) => None,
    };
    let counted = scene.course.reaching(at).filter_map(|span| {
        let why = match calendar {
            Some(won) if won.span.event == span.event => over_calendar.clone()?,
            Some(won) => WhyLost::Beaten(beaten(&scene.course, span, won, at)),
            None => return None,
        };
        timetable.entry(&span.event).map(|entry| lost_event(entry, span.interval, why))
    });
    let excluded = timetable.entries.iter().filter_map(|entry| {
        let Counts::Excluded(reason) = entry.counts else { return None };
        let interval = entry.interval(&zone);
        interval.contains(at).then(|| lost_event(entry, interval, WhyLost::Excluded(reason)))
    });
    let mut losers: Vec<LostEvent> = counted.chain(excluded).collect();
    losers.sort_by(|one, other| (one.interval.start, &one.event).cmp(&(other.interval.start, &other.event)));
    losers
}

fn lost_event(entry: &Entry, interval: Interval, why: WhyLost) -> LostEvent {
    LostEvent {
        event: entry.key.clone(),
        interval,
        profile: entry.profile().cloned(),
        word: entry.cause.as_ref().and_then(Cause::word).map(str::to_owned),
        why,
    }
}
