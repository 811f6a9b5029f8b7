//! The effective state at any instant: override over locked base over calendar over base (`semantics.md`
//! 5.4 and 5.5). Everything that looks ahead asks the same function as the present does.

use jiff::Timestamp;

use super::{
    course::{Course, Deciding, Phase},
    layers::{Base, Layers, Override, What, available},
};
use crate::{
    model::{EndTo, OverrideRule, Profile, ProfileId, Rules, Shown},
    timetable::{EventKey, Span, Timetable},
};

/// Which layer the state comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    Override(&'a Override),
    Calendar(Deciding<'a>),
    /// `None`: Available, as nobody has set a base that still holds.
    Base(Option<&'a Base>),
}

/// What others can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Face<'a> {
    Profile(&'a ProfileId),
    Found(&'a Shown),
    Nothing,
}

/// What has to stay the same for a decision to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signature<'a> {
    face: Face<'a>,
    layer: u8,
    event: Option<&'a EventKey>,
    phase: Option<Phase>,
}

/// All layers of one mailbox, cleaned of what has run out.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) rules: &'a Rules,
    pub(super) course: Course,
    pub(super) layers: Layers,
    available: Option<&'a ProfileId>,
}

impl<'a> Scene<'a> {
    /// The layers as they stand at `now`.
    pub(super) fn new(rules: &'a Rules, timetable: &Timetable, layers: &Layers, now: Timestamp) -> Self {
        let course = Course::new(rules, timetable);
        let mut scene = Self { rules, course, layers: layers.clone(), available: available(rules) };
        let alive = scene.layers.override_.as_ref().is_some_and(|override_| {
            !scene.has_moved_later(override_, now) && scene.is_alive(override_, now)
        });
        if !alive {
            scene.layers.override_ = None;
        }
        scene.layers.base.take_if(|base| base.until.is_some_and(|until| until <= now));
        let hidden = scene.layers.base.as_ref().is_some_and(|base| scene.is_hidden(base, now));
        if let Some(base) = &mut scene.layers.base {
            base.hidden = hidden;
        }
        scene
    }

    /// Which layer decides at `at`, not before the instant the scene was made for.
    pub(super) fn at(&self, at: Timestamp) -> Source<'_> {
        if let Some(override_) = self.layers.override_.as_ref().filter(|known| self.is_alive(known, at)) {
            return Source::Override(override_);
        }
        let base = self.base_at(at);
        if base.is_some_and(|base| self.is_locked(base)) {
            return Source::Base(base);
        }
        self.course.at(at).map_or(Source::Base(base), Source::Calendar)
    }

    pub(super) fn profile(&self, source: Source<'_>) -> Option<&Profile> {
        let id = match source {
            Source::Override(override_) => override_.what.profile(),
            Source::Calendar(deciding) => Some(&deciding.span.profile),
            Source::Base(Some(base)) => base.what.profile(),
            Source::Base(None) => self.available,
        };
        id.and_then(|id| self.rules.profile(id))
    }

    pub(super) fn face<'s>(&'s self, source: Source<'s>) -> Face<'s> {
        let what = match source {
            Source::Override(override_) => Some(&override_.what),
            Source::Base(Some(base)) => Some(&base.what),
            Source::Base(None) | Source::Calendar(_) => None,
        };
        match (self.profile(source), what) {
            (Some(profile), _) => Face::Profile(&profile.id),
            (None, Some(What::AsFound { shown, .. })) => Face::Found(shown),
            (None, _) => Face::Nothing,
        }
    }

    pub(super) fn signature<'s>(&'s self, source: Source<'s>) -> Signature<'s> {
        let face = self.face(source);
        match source {
            Source::Override(override_) => {
                Signature { face, layer: 0, event: Some(&override_.event), phase: None }
            }
            Source::Calendar(Deciding { span, phase }) => {
                Signature { face, layer: 1, event: Some(&span.event), phase: Some(phase) }
            }
            Source::Base(_) => Signature { face, layer: 2, event: None, phase: None },
        }
    }

    /// Instants after `now` at which another state may begin, by time.
    pub(super) fn edges(&self, now: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        std::iter::successors(self.next_edge(now), |at| self.next_edge(*at))
    }

    fn next_edge(&self, after: Timestamp) -> Option<Timestamp> {
        let base = self.layers.base.as_ref().and_then(|base| base.until);
        let override_ = self.layers.override_.as_ref().and_then(|known| known.until);
        let ends = [base, override_].into_iter().flatten().filter(|end| *end > after);
        ends.chain(self.course.edges(after, Timestamp::MAX).next()).min()
    }

    /// When something else than at `now` begins to show.
    pub(super) fn face_changes_at(&self, now: Timestamp) -> Option<Timestamp> {
        let face = self.face(self.at(now));
        self.edges(now).find(|at| self.face(self.at(*at)) != face)
    }

    /// When the shown profile changes; absent for a base without expiry.
    pub(super) fn until(&self, source: Source<'_>, now: Timestamp) -> Option<Timestamp> {
        match source {
            Source::Base(base) if base.and_then(|base| base.until).is_none() => None,
            _ => self.face_changes_at(now),
        }
    }

    /// The first moment after `now` at which the user is there; absent if so already, or never as far as known.
    pub(super) fn available_at(&self, now: Timestamp) -> Option<Timestamp> {
        let there = |at| self.profile(self.at(at)).is_some_and(|profile| profile.is_available);
        if there(now) { None } else { self.edges(now).find(|at| there(*at)) }
    }

    /// The base that holds at `at` and can be shown.
    pub(super) fn base_at(&self, at: Timestamp) -> Option<&Base> {
        let base = self.layers.base.as_ref()?;
        let runs = base.until.is_none_or(|until| until > at);
        (runs && self.can_show(&base.what) && !self.is_hidden(base, at)).then_some(base)
    }

    /// Whether the calendar has to keep off this base.
    pub(super) fn is_locked(&self, base: &Base) -> bool {
        let profile = base.what.profile().and_then(|id| self.rules.profile(id));
        profile.is_some_and(|profile| profile.calendar_may_not_override)
    }

    /// Whether an event has begun since the base was set, where events end in Available.
    fn is_hidden(&self, base: &Base, at: Timestamp) -> bool {
        let event_since = || {
            !self.is_locked(base)
                && self.course.spans().iter().any(|span| base.set_at < span.own.start && span.own.start <= at)
        };
        self.rules.end_to == EndTo::Available && (base.hidden || event_since())
    }

    /// Whether the rules still have the profile that was chosen.
    fn can_show(&self, what: &What) -> bool {
        match what {
            What::Profile(profile) => self.rules.profile(profile).is_some(),
            What::AsFound { .. } => true,
        }
    }

    fn span_of(&self, override_: &Override) -> Option<&Span> {
        self.course.find(&override_.event).filter(|span| span.profile == override_.event_profile)
    }

    /// Whether the override's event was moved so that it has yet to begin.
    fn has_moved_later(&self, override_: &Override, now: Timestamp) -> bool {
        self.course.find(&override_.event).is_some_and(|span| {
            span.interval.start > now && span.interval.start != override_.event_time.start
        })
    }

    /// Whether the override still wins at `at`: its event runs, or what follows is that event's tail or gap.
    fn is_alive(&self, override_: &Override, at: Timestamp) -> bool {
        let Some(span) = self.span_of(override_).filter(|_| self.can_show(&override_.what)) else {
            return false;
        };
        let its_own = |at| self.course.at(at).is_some_and(|deciding| deciding.span.event == span.event);
        // Another event may have come between the end and the tail in which a person set it.
        let follows = span.own.end.max(override_.set_at.min(at));
        let runs = override_.until.is_none_or(|until| until > at)
            && span.reach.start <= at
            && (at < span.own.end
                || its_own(follows) && self.course.edges(follows, at).all(its_own) && its_own(at));
        let another = |at| self.course.at(at).is_some_and(|deciding| deciding.span.event != span.event);
        match self.rules.override_rule {
            OverrideRule::CalendarWins => false,
            OverrideRule::UntilEventEnd => runs,
            OverrideRule::UntilNextEvent => {
                runs && !self.course.edges(override_.set_at, at).any(another) && !another(at)
            }
        }
    }
}
