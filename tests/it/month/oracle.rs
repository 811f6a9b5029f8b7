//! The second opinion: what an extension should show, recomputed from the simulator's calendar.
//!
//! Written from the words of `semantics.md` alone (5.1 matching of the words used here, 5.2 which event wins, 5.3
//! which events count, 5.4.5 until when), and shares nothing with the service.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use narvaro_sim::{EventInfo, Response, ShowAs, Sim};

/// The profiles by rank, highest first, with their standard trigger words.
const PROFILES: [(&str, &[&str]); 12] = [
    ("sick", &["sick"]),
    ("holiday", &["holiday", "hol"]),
    ("parental-leave", &["parental leave"]),
    ("on-leave", &["on leave", "tjl"]),
    ("do-not-disturb", &["do not disturb", "dnd"]),
    ("away-on-business", &["away on business", "tjr"]),
    ("gone-for-the-day", &["gone for the day", "gfd"]),
    ("out-of-office", &["out of office"]),
    ("temporarily-unavailable", &["temporarily unavailable", "ute"]),
    ("lunch", &["lunch", "lun"]),
    ("meeting", &["meeting", "möt"]),
    ("available", &["available"]),
];

const AVAILABLE: usize = PROFILES.len() - 1;

/// A profile's full name that has one of the words in it: it swallows the word.
const NAMES: [&str; 2] = ["ute på arbete", "tillfälligt ute"];

/// How far ahead the end of what shows is looked for; no chain of events drawn here is longer.
const AHEAD: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Showing {
    pub(super) profile: String,
    /// `None` also for the base, of which no end is told.
    pub(super) until: Option<Timestamp>,
}

impl Showing {
    /// The base: nothing steers the phone.
    pub(super) fn base() -> Self {
        Self { profile: PROFILES[AVAILABLE].0.to_owned(), until: None }
    }
}

/// Whether the subject is marked as that of a cancelled event, as the simulator and its people mark them.
pub(super) fn is_cancelled(subject: &str) -> bool {
    subject.starts_with("Canceled:")
}

/// The profile, by rank, that a subject's words ask for.
pub(super) fn profile_of(subject: &str) -> Option<usize> {
    if is_cancelled(subject) {
        return None;
    }
    let folded = subject.to_lowercase();
    let words: Vec<&str> =
        folded.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    let mut hits: Vec<(usize, usize, Option<usize>)> = Vec::new();
    let mut look_for = |phrase: &str, profile| {
        let phrase: Vec<&str> = phrase.split(' ').collect();
        for (place, found) in words.windows(phrase.len()).enumerate() {
            if found == phrase {
                hits.push((place, place + phrase.len(), profile));
            }
        }
    };
    for (rank, (_, triggers)) in PROFILES.iter().enumerate() {
        triggers.iter().for_each(|trigger| look_for(trigger, Some(rank)));
    }
    NAMES.iter().for_each(|name| look_for(name, None));
    let swallowed = |hit: &(usize, usize, Option<usize>)| {
        hits.iter().any(|other| other.0 <= hit.0 && hit.1 <= other.1 && other.1 - other.0 > hit.1 - hit.0)
    };
    hits.iter().filter(|hit| !swallowed(hit)).filter_map(|hit| hit.2).min()
}

/// What was seen when an invitation from outside was accepted, by event or series: it binds.
pub(super) type Held = HashMap<String, Option<usize>>;

/// The profile of an event that counts.
fn counts(event: &EventInfo, held: &Held) -> Option<usize> {
    if event.is_cancelled || is_cancelled(&event.subject) || event.start >= event.end {
        return None;
    }
    let answered = match event.response {
        Response::Organizer => true,
        Response::Accepted => event.show_as != ShowAs::Free,
        Response::None | Response::TentativelyAccepted | Response::Declined | Response::NotResponded => false,
    };
    let now = profile_of(&event.subject);
    let bound = || held.get(event.series.as_ref().unwrap_or(&event.id)).copied();
    if answered { bound().unwrap_or(now) } else { None }
}

struct Candidate {
    start: Timestamp,
    end: Timestamp,
    rank: usize,
}

/// Which profile decides at `at`; a shorter *Available* is a hole in what is longer.
fn winner(candidates: &[Candidate], at: Timestamp) -> usize {
    let running: Vec<&Candidate> = candidates.iter().filter(|one| one.start <= at && at < one.end).collect();
    let length = |one: &Candidate| one.end.duration_since(one.start);
    let hole = running.iter().filter(|one| one.rank == AVAILABLE).map(|one| length(one)).min();
    let standing =
        running.iter().filter(|one| one.rank == AVAILABLE || hole.is_none_or(|hole| hole >= length(one)));
    standing.map(|one| one.rank).min().unwrap_or(AVAILABLE)
}

/// A calendar's rows, by event or series.
pub(super) type Calendar = BTreeMap<String, Vec<EventInfo>>;

/// A calendar as it stands, from a day before `at` on.
pub(super) fn calendar(sim: &Sim, alias: &str, at: Timestamp) -> Calendar {
    let mut calendar = Calendar::new();
    for row in sim.view(alias, at - SignedDuration::from_hours(24), at + AHEAD).unwrap() {
        calendar.entry(row.series.clone().unwrap_or_else(|| row.id.clone())).or_default().push(row);
    }
    calendar
}

/// What an extension should show at `at`.
pub(super) fn expected<'a>(
    rows: impl IntoIterator<Item = &'a EventInfo>,
    held: &Held,
    at: Timestamp,
) -> Showing {
    let candidates: Vec<Candidate> = rows
        .into_iter()
        .filter(|event| event.end > at)
        .filter_map(|event| {
            Some(Candidate { start: event.start, end: event.end, rank: counts(event, held)? })
        })
        .collect();
    let rank = winner(&candidates, at);
    if rank == AVAILABLE {
        return Showing::base();
    }
    let mut edges: Vec<Timestamp> = candidates.iter().flat_map(|one| [one.start, one.end]).collect();
    edges.sort();
    let until = edges.into_iter().find(|edge| *edge > at && winner(&candidates, *edge) != rank);
    Showing { profile: PROFILES[rank].0.to_owned(), until }
}

/// Combinations that are tried at most; with more no judgement is possible.
const COMBINATIONS: usize = 4_096;

/// Whether a calendar of which some edits are not known yet explains what shows: `before` has what the edits found,
/// and each event or series may still be as one of them found it. `None` where that could be too much.
pub(super) fn explained(
    shows: &Showing,
    now: &Calendar,
    before: &[&Calendar],
    held: &Held,
    at: Timestamp,
) -> Option<bool> {
    let edited: BTreeSet<&String> = before.iter().flat_map(|calendar| calendar.keys()).collect();
    let versions: Vec<Vec<&[EventInfo]>> = edited
        .iter()
        .map(|name| {
            let all = [now].into_iter().chain(before.iter().copied().filter(|old| old.contains_key(*name)));
            all.map(|calendar| calendar.get(*name).map_or(&[][..], Vec::as_slice)).collect()
        })
        .collect();
    let all = versions.iter().try_fold(1_usize, |all, versions| all.checked_mul(versions.len()));
    let all = all.filter(|all| *all <= COMBINATIONS)?;
    let known: Vec<&EventInfo> =
        now.iter().filter(|(name, _)| !edited.contains(name)).flat_map(|(_, rows)| rows).collect();
    let explains = |mut combination| {
        let mut rows = known.clone();
        for versions in &versions {
            rows.extend(versions[combination % versions.len()]);
            combination /= versions.len();
        }
        expected(rows, held, at) == *shows
    };
    Some((0..all).any(explains))
}

#[test]
fn the_second_opinion_reads_the_words_used_here() {
    for (subject, profile) in [
        ("MÖT: styrgrupp", Some("meeting")),
        ("Lunch meeting", Some("lunch")),
        ("Sv: LUN stan", Some("lunch")),
        ("Temporarily unavailable", Some("temporarily-unavailable")),
        ("Ute på arbete", None),
        ("UTE en stund", Some("temporarily-unavailable")),
        ("Bemöta HOLM", None),
        ("Canceled: MÖT", None),
    ] {
        assert_eq!(profile_of(subject).map(|rank| PROFILES[rank].0), profile, "{subject}");
    }
}
