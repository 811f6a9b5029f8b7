//! Pure: timetable × base × override × now → what the phone should show, until when, why, and when to look
//! again. No I/O, no clock: the moment is handed in and the next one handed out.
//!
//! The same inputs give the same decision on every replica (invariant I12). The effective state is computed
//! from its layers each time; nothing is restored (invariant I11). Between `now` and
//! [`Decision::next_edge`] the decision stays what it is.
//!
//! Choices where the field leaves room: a locked base hides the calendar, but not an override made after
//! it; a bridged gap comes before leads and tails, as it joins one state; the tail of an overridden event
//! is overridden with it, so that nobody is shown as away for the few minutes after.

mod course;
mod explain;
mod layers;
mod manual;
mod note;
mod scene;
mod sentences;

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

pub use course::{Beaten, Phase};
pub use explain::{BaseNote, Decider, Explanation, LostEvent, Names, OverrideNote, WhyLost};
pub use layers::{Base, Layers, Override, What};
pub use manual::{Lasting, ManualChange, manual_change};

use crate::{
    model::{Interval, Outward, Profile, ProfileId, Rules, Shown, Wanted},
    timetable::{EventKey, Timetable},
};
use course::Deciding;
use scene::{Face, Scene, Source};

/// Which layer the shown state comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// A change made by hand during an event.
    Override,
    /// An event.
    Calendar,
    /// What was set by hand otherwise, or Available.
    Base,
}

/// One change of what shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// What shows from then on; `None` for something found on the PBX that is no profile of ours.
    pub profile: Option<ProfileId>,
}

/// What shows for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// For how long.
    pub interval: Interval,
    /// What; `None` for something found on the PBX that is no profile of ours.
    pub profile: Option<ProfileId>,
    /// From which layer, at its start.
    pub layer: Layer,
    /// By which event, at its start.
    pub event: Option<EventKey>,
}

/// What should show at one moment, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What the PBX should show.
    pub wanted: Wanted,
    /// Its profile, where it is one of ours.
    pub profile: Option<ProfileId>,
    /// Which layer it comes from.
    pub layer: Layer,
    /// The event that decides, or whose override does.
    pub deciding: Option<EventKey>,
    /// When the shown profile changes; absent for a base without expiry.
    pub until: Option<Timestamp>,
    /// The first moment at which the user is really available; absent if so now, or if none is known.
    pub available_at: Option<Timestamp>,
    /// When the decision has to be made anew; always after the moment it was made for.
    pub next_edge: Option<Timestamp>,
    /// What has run out is gone from these: they are to be stored in place of those handed in.
    pub layers: Layers,
    /// Why.
    pub explanation: Explanation,
    /// The next two changes of what shows, as far as known.
    pub next_changes: Vec<Change>,
    /// What shows already if the base says the same as the event: then the event's start writes nothing.
    pub same_as_base: Option<Wanted>,
}

impl Decision {
    /// Whether the PBX has to be told, if `last` is what it was told, or found to show, last.
    ///
    /// A new return time or text alone is told while an event decides, and not for a base.
    pub fn must_write(&self, last: Option<&Wanted>) -> bool {
        let Some(last) = last else { return true };
        if self.same_as_base.as_ref().is_some_and(|base| says_same(base, last, Texts::Compared)) {
            return false;
        }
        let texts = if self.layer == Layer::Base { Texts::Ignored } else { Texts::Compared };
        !says_same(&self.wanted, last, texts)
    }
}

/// Whether return time and note are part of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Texts {
    Compared,
    Ignored,
}

fn says_same(one: &Wanted, other: &Wanted, texts: Texts) -> bool {
    match (one, other) {
        (Wanted::Profile(one), Wanted::Profile(other)) => {
            let same = one.profile == other.profile && one.label == other.label && one.terms == other.terms;
            same && (texts == Texts::Ignored || one.until == other.until && one.note == other.note)
        }
        (Wanted::AsFound(one), Wanted::AsFound(other)) => one == other,
        (Wanted::Profile(_), Wanted::AsFound(_)) | (Wanted::AsFound(_), Wanted::Profile(_)) => false,
    }
}

/// What the phone should show at `now`.
pub fn decide(rules: &Rules, timetable: &Timetable, layers: &Layers, now: Timestamp) -> Decision {
    let scene = Scene::new(rules, timetable, layers, now);
    let zone = timetable.zone.rules();
    let source = scene.at(now);
    let until = scene.until(source, now);
    let available_at = scene.available_at(now);
    let next_changes = next_changes(&scene, now);
    let told = Told { rules, zone: &zone, now, until, available_at };
    let (layer, deciding) = layer_of(source);
    Decision {
        wanted: told.wanted(&scene, source),
        profile: scene.profile(source).map(|profile| profile.id.clone()),
        layer,
        deciding: deciding.cloned(),
        until,
        available_at,
        next_edge: next_edge(&scene, &zone, now, until),
        explanation: explain::explain(timetable, &scene, now, next_changes.clone()),
        next_changes,
        same_as_base: same_as_base(&told, &scene, source),
        layers: scene.layers,
    }
}

/// What will show in `[from, to)`, if nothing is changed by anyone; neighbours that look the same are one.
pub fn preview(
    rules: &Rules,
    timetable: &Timetable,
    layers: &Layers,
    from: Timestamp,
    to: Timestamp,
) -> Vec<Stretch> {
    if to <= from {
        return Vec::new();
    }
    let scene = Scene::new(rules, timetable, layers, from);
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut face: Option<Face<'_>> = None;
    for at in std::iter::once(from).chain(scene.edges(from)).take_while(|at| *at < to) {
        let source = scene.at(at);
        if face.replace(scene.face(source)) == Some(scene.face(source)) {
            continue;
        }
        if let Some(last) = stretches.last_mut() {
            last.interval.end = at;
        }
        let (layer, event) = layer_of(source);
        stretches.push(Stretch {
            interval: Interval::new(at, to),
            profile: scene.profile(source).map(|profile| profile.id.clone()),
            layer,
            event: event.cloned(),
        });
    }
    stretches
}

fn layer_of<'a>(source: Source<'a>) -> (Layer, Option<&'a EventKey>) {
    match source {
        Source::Override(override_) => (Layer::Override, Some(&override_.event)),
        Source::Calendar(Deciding { span, .. }) => (Layer::Calendar, Some(&span.event)),
        Source::Base(_) => (Layer::Base, None),
    }
}

fn next_changes(scene: &Scene<'_>, now: Timestamp) -> Vec<Change> {
    let mut face = scene.face(scene.at(now));
    let mut changes = Vec::new();
    for at in scene.edges(now) {
        let source = scene.at(at);
        if scene.face(source) != face {
            face = scene.face(source);
            changes.push(Change { at, profile: scene.profile(source).map(|profile| profile.id.clone()) });
            if changes.len() == 2 {
                break;
            }
        }
    }
    changes
}

/// The next moment at which layer, event, face, base or text is another.
fn next_edge(
    scene: &Scene<'_>,
    zone: &TimeZone,
    now: Timestamp,
    until: Option<Timestamp>,
) -> Option<Timestamp> {
    let signature = scene.signature(scene.at(now));
    let turns = scene.edges(now).find(|at| scene.signature(scene.at(*at)) != signature);
    let base_ends = scene.layers.base.as_ref().and_then(|base| base.until);
    let reads_otherwise = until.and_then(|until| note::note_changes_at(zone, now, until));
    [turns, base_ends, reads_otherwise].into_iter().flatten().min()
}

/// What is needed to put a state in the PBX's terms.
struct Told<'a> {
    rules: &'a Rules,
    zone: &'a TimeZone,
    now: Timestamp,
    until: Option<Timestamp>,
    available_at: Option<Timestamp>,
}

impl Told<'_> {
    fn wanted(&self, scene: &Scene<'_>, source: Source<'_>) -> Wanted {
        let found = match source {
            Source::Override(Override { what: What::AsFound { shown, .. }, .. })
            | Source::Base(Some(Base { what: What::AsFound { shown, .. }, .. })) => Some(shown),
            _ => None,
        };
        match (found, scene.profile(source)) {
            (Some(shown), _) => Wanted::AsFound(shown.clone()),
            (None, Some(profile)) => Wanted::Profile(self.outward(profile)),
            // A company without any profile of being there: nothing to say.
            (None, None) => Wanted::AsFound(Shown::default()),
        }
    }

    fn outward(&self, profile: &Profile) -> Outward {
        let language = self.rules.language;
        Outward {
            profile: profile.id.clone(),
            label: profile.outward_label(language).to_owned(),
            note: self
                .until
                .map(|until| note::note(language, self.zone, self.now, until))
                .unwrap_or_default(),
            until: self.until,
            available_at: self.available_at,
            terms: profile.pbx.clone(),
        }
    }
}

/// Where an event decides what the base says anyway: what the base shows by itself.
fn same_as_base(told: &Told<'_>, scene: &Scene<'_>, source: Source<'_>) -> Option<Wanted> {
    let Source::Calendar(_) = source else { return None };
    let base = Source::Base(scene.base_at(told.now));
    if scene.face(base) != scene.face(source) {
        return None;
    }
    let by_itself = Told { until: None, available_at: None, ..*told };
    match base {
        Source::Base(Some(base)) if base.until.is_some() => None,
        base => Some(by_itself.wanted(scene, base)),
    }
}

#[cfg(test)]
mod tests;
