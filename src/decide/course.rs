//! The calendar layer by itself: which event decides at an instant (`semantics.md` 5.2 and 5.4.4).
//!
//! The order among events that run at the same time is total, so that every replica decides alike,
//! whatever order the events came in.

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    model::Rules,
    timetable::{EventKey, Span, Timetable},
};

/// Most that a gap between events of one profile may measure to be bridged.
const MAX_BRIDGE_SECS: u32 = 600;

/// In which part of its reach an event decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// In its own time.
    Own,
    /// Before it, by the profile's lead.
    Lead,
    /// After it, by the profile's tail.
    Tail,
    /// After it, up to the next event of the same profile.
    Bridge,
}

/// The event that decides, and why it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deciding<'a> {
    pub(super) span: &'a Span,
    pub(super) phase: Phase,
}

/// Why one of two events that run at the same time lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Beaten {
    /// A shorter event says Available within it.
    Hole,
    /// The other's profile has a higher rank.
    Rank,
    /// The other is shorter.
    Shorter,
    /// The other starts later.
    LaterStart,
    /// The other was changed later.
    LaterModified,
    /// The other's id is smaller; only to make the order total.
    SmallerId,
    /// The other is in its own time, this one in its lead or tail.
    NotOwnTime,
}

/// The calendar layer of one mailbox.
#[derive(Debug)]
pub(super) struct Course {
    /// By start of reach.
    spans: Vec<Span>,
    /// For each span, the latest end of reach up to and with it: where a search backwards may stop.
    latest_end: Vec<Timestamp>,
    own_starts: Vec<Timestamp>,
    own_ends: Vec<Timestamp>,
    edges: Vec<Timestamp>,
    bridge: SignedDuration,
}

impl Course {
    pub(super) fn new(rules: &Rules, timetable: &Timetable) -> Self {
        let mut spans = timetable.spans(rules);
        spans.sort_by(|one, other| (one.reach.start, &one.event).cmp(&(other.reach.start, &other.event)));
        let latest_end = spans
            .iter()
            .scan(Timestamp::MIN, |latest, span| {
                *latest = (*latest).max(span.reach.end);
                Some(*latest)
            })
            .collect();
        let sorted = |edge: fn(&Span) -> Timestamp| {
            let mut edges: Vec<Timestamp> = spans.iter().map(edge).collect();
            edges.sort_unstable();
            edges
        };
        let own_starts = sorted(|span| span.own.start);
        let own_ends = sorted(|span| span.own.end);
        let mut edges = [sorted(|span| span.reach.start), sorted(|span| span.reach.end)].concat();
        edges.extend(own_starts.iter().chain(&own_ends));
        edges.sort_unstable();
        edges.dedup();
        let bridge = SignedDuration::from_secs(i64::from(rules.bridge_secs.min(MAX_BRIDGE_SECS)));
        Self { spans, latest_end, own_starts, own_ends, edges, bridge }
    }

    pub(super) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The span that `key` names.
    pub(super) fn find(&self, key: &EventKey) -> Option<&Span> {
        self.spans.iter().find(|span| span.event.names_same(key))
    }

    /// Edges of spans in `(after, up_to]`, by time.
    pub(super) fn edges(&self, after: Timestamp, up_to: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        let first = self.edges.partition_point(|edge| *edge <= after);
        self.edges[first..].iter().copied().take_while(move |edge| *edge <= up_to)
    }

    /// Spans that reach over `at`.
    pub(super) fn reaching(&self, at: Timestamp) -> impl Iterator<Item = &Span> + '_ {
        let first_later = self.spans.partition_point(|span| span.reach.start <= at);
        (0..first_later)
            .rev()
            .take_while(move |index| self.latest_end[*index] > at)
            .map(|index| &self.spans[index])
            .filter(move |span| span.reach.contains(at))
    }

    /// The event that decides at `at`.
    pub(super) fn at(&self, at: Timestamp) -> Option<Deciding<'_>> {
        if let Some(span) = winner(self.reaching(at).filter(|span| span.own.contains(at))) {
            return Some(Deciding { span, phase: Phase::Own });
        }
        if let Some(span) = self.bridged(at) {
            return Some(Deciding { span, phase: Phase::Bridge });
        }
        winner(self.reaching(at)).map(|span| {
            let phase = if at < span.own.start { Phase::Lead } else { Phase::Tail };
            Deciding { span, phase }
        })
    }

    /// In a gap that is nobody's own time: the earlier of two events of one profile that lie close enough.
    fn bridged(&self, at: Timestamp) -> Option<&Span> {
        if self.bridge <= SignedDuration::ZERO {
            return None;
        }
        let ended = self.own_ends.partition_point(|end| *end <= at).checked_sub(1)?;
        let gap_start = self.own_ends[ended];
        let gap_end = *self.own_starts.get(self.own_starts.partition_point(|start| *start <= at))?;
        if gap_end.duration_since(gap_start) > self.bridge {
            return None;
        }
        let before = winner(self.spans.iter().filter(|span| span.own.end == gap_start))?;
        let after = winner(self.spans.iter().filter(|span| span.own.start == gap_end))?;
        (before.profile == after.profile).then_some(before)
    }
}

/// The best of spans that run at the same time.
fn winner<'a>(running: impl Iterator<Item = &'a Span>) -> Option<&'a Span> {
    let running: Vec<&Span> = running.collect();
    let hole = running.iter().filter(|span| span.available).map(|span| span.interval.length()).min();
    running.into_iter().filter(|span| !is_struck(span, hole)).min_by(|one, other| order(one, other))
}

/// Whether a running Available that is shorter makes a hole in `span`.
fn is_struck(span: &Span, hole: Option<SignedDuration>) -> bool {
    !span.available && hole.is_some_and(|hole| hole < span.interval.length())
}

/// The better comes first.
fn order(one: &Span, other: &Span) -> Ordering {
    one.rank
        .cmp(&other.rank)
        .then_with(|| one.interval.length().cmp(&other.interval.length()))
        .then_with(|| other.interval.start.cmp(&one.interval.start))
        .then_with(|| other.last_modified.cmp(&one.last_modified))
        .then_with(|| one.event.cmp(&other.event))
}

/// Why `lost` was beaten by `won`, both reaching over `at`.
pub(super) fn beaten(course: &Course, lost: &Span, won: &Deciding<'_>, at: Timestamp) -> Beaten {
    let own = won.phase == Phase::Own;
    if own && !lost.own.contains(at) || won.phase == Phase::Bridge {
        return Beaten::NotOwnTime;
    }
    let hole = course
        .reaching(at)
        .filter(|span| span.available && (!own || span.own.contains(at)))
        .map(|span| span.interval.length())
        .min();
    let won = won.span;
    if is_struck(lost, hole) {
        Beaten::Hole
    } else if won.rank != lost.rank {
        Beaten::Rank
    } else if won.interval.length() != lost.interval.length() {
        Beaten::Shorter
    } else if won.interval.start != lost.interval.start {
        Beaten::LaterStart
    } else if won.last_modified != lost.last_modified {
        Beaten::LaterModified
    } else {
        Beaten::SmallerId
    }
}
