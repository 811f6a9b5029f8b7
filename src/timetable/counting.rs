//! Which events count, and with which profile (`semantics.md` 5.3).

use super::{
    entry::{Cause, Counts, Entry, EventKey, Exclusion, HeldBack},
    judgement::{Hit, Judgement, NoProfile},
    matcher::Matcher,
};
use crate::model::{CalendarEvent, EventKind, Response, Rules, Sensitivity, ShowAs, When};

/// What an event's texts say, before anything is asked about its owner or times.
#[derive(Debug)]
pub(super) struct Reading {
    judgement: Judgement,
    readable: bool,
}

impl Reading {
    pub(super) fn of(matcher: &Matcher, event: &CalendarEvent) -> Self {
        match &event.subject {
            Some(subject) => {
                let judgement = matcher.judge_event(subject.expose(), &event.categories);
                Self { judgement, readable: true }
            }
            None => Self {
                judgement: Judgement { winner: None, losers: Vec::new(), none: None, warnings: Vec::new() },
                readable: false,
            },
        }
    }

    /// The word that decides.
    pub(super) fn hit(&self) -> Option<&Hit> {
        self.judgement.winner.as_ref()
    }

    /// Whether what it says may be held: it was read, and not as that of a cancelled event.
    pub(super) fn may_be_held(&self) -> bool {
        self.readable && self.judgement.none != Some(NoProfile::CancellationMark)
    }
}

/// Whether the organiser's address lies outside the company. An event without such an address is not
/// external: a server leaves it out for the company's own old-style addresses.
pub(super) fn is_external(rules: &Rules, event: &CalendarEvent) -> bool {
    event.response != Response::Organizer
        && event.organizer_domain.as_ref().is_some_and(|domain| {
            !rules.counting.internal_domains.iter().any(|own| own.eq_ignore_ascii_case(domain))
        })
}

/// The timetable's entry for an event; `None` where it has nothing to say of it.
///
/// `held` is the outcome that was seen first after acceptance, where it binds.
pub(super) fn entry(
    rules: &Rules,
    event: &CalendarEvent,
    reading: Reading,
    held: Option<&Option<Hit>>,
) -> Option<Entry> {
    if event.kind == EventKind::SeriesMaster {
        return None;
    }
    let now = reading.judgement.winner.clone();
    let bound = held.map_or_else(|| now.clone(), Clone::clone);
    let differs = held.is_some() && profile_of(&bound) != profile_of(&now);
    let mark = reading.judgement.none.as_ref().and_then(mark_exclusion).filter(|mark| {
        // An outside organiser's later opt-out mark is a change of subject like any other.
        !(held.is_some() && *mark == Exclusion::OptOutMark)
    });

    let would_be = reading.judgement.losers.first().filter(|_| mark.is_some()).map(|lost| lost.hit.clone());
    let word = bound.or(would_be);
    let fallback = || if mark.is_some() { None } else { fallback(rules, event) };
    let mut cause = word.map(Cause::Word).or_else(fallback);
    let mut counts = match mark.or_else(|| exclusion(rules, event)) {
        Some(reason) => Counts::Excluded(reason),
        None => Counts::Counted,
    };
    if cause.is_none() {
        if !reading.readable {
            counts = Counts::Excluded(Exclusion::SubjectNotReadable);
        } else if differs {
            cause = now.clone().map(Cause::Word);
            counts = Counts::Excluded(Exclusion::HeldWithout);
        } else {
            return None;
        }
    }
    Some(Entry {
        key: EventKey::from(event),
        kind: event.kind,
        when: event.when,
        cause,
        losers: reading.judgement.losers,
        warnings: reading.judgement.warnings,
        counts,
        last_modified: event.last_modified,
        held_back: differs.then(|| HeldBack { profile: now.map(|hit| hit.profile) }),
        extra: serde_json::Map::new(),
    })
}

fn profile_of(hit: &Option<Hit>) -> Option<&crate::model::ProfileId> {
    hit.as_ref().map(|hit| &hit.profile)
}

fn mark_exclusion(none: &NoProfile) -> Option<Exclusion> {
    match none {
        NoProfile::CancellationMark => Some(Exclusion::CancellationMark),
        NoProfile::OptOutMark => Some(Exclusion::OptOutMark),
        _ => None,
    }
}

/// Why an event with a profile does not count; the reason that its owner would think of first.
fn exclusion(rules: &Rules, event: &CalendarEvent) -> Option<Exclusion> {
    let counting = &rules.counting;
    if event.cancelled {
        return Some(Exclusion::Cancelled);
    }
    match event.response {
        Response::Declined => return Some(Exclusion::Declined),
        Response::None if !counting.unanswered => return Some(Exclusion::Unanswered),
        Response::Tentative if !counting.tentative => return Some(Exclusion::Tentative),
        Response::Organizer | Response::Accepted | Response::None | Response::Tentative => {}
    }
    if event.show_as == ShowAs::Free && event.response != Response::Organizer {
        return Some(Exclusion::FreeInvitation);
    }
    if counting.ignore_private && event.sensitivity == Sensitivity::Private {
        return Some(Exclusion::Private);
    }
    if counting.internal_only && is_external(rules, event) {
        return Some(Exclusion::ExternalOrganizer);
    }
    if counting.showas_for_trigger.as_ref().is_some_and(|kinds| !kinds.contains(&event.show_as)) {
        return Some(Exclusion::ShowsAs(event.show_as));
    }
    match event.when {
        When::AllDay { .. } if !counting.all_day => Some(Exclusion::AllDay),
        When::AllDay { first, last } if last <= first => Some(Exclusion::ZeroLength),
        When::Timed(interval) if interval.is_empty() => Some(Exclusion::ZeroLength),
        When::AllDay { .. } | When::Timed(_) => None,
    }
}

/// The profile of an event without a word, by how it shows.
fn fallback(rules: &Rules, event: &CalendarEvent) -> Option<Cause> {
    let fallback = &rules.counting.fallback;
    let profile = match event.show_as {
        ShowAs::Busy => fallback.busy.as_ref(),
        ShowAs::Oof => fallback.oof.as_ref(),
        ShowAs::WorkingElsewhere => fallback.working_elsewhere.as_ref(),
        ShowAs::Free | ShowAs::Tentative | ShowAs::Unknown => None,
    }?;
    rules.profile(profile).map(|profile| Cause::Fallback(event.show_as, profile.id.clone()))
}
