//! A counted event in instants.

use jiff::{SignedDuration, Timestamp};

use super::{
    Timetable,
    entry::{Counts, EventKey},
};
use crate::model::{Interval, ProfileId, Rules};

/// Most that a profile may start before, or outlive, its event.
const MAX_SHIFT_SECS: i32 = 900;

/// The time at which one counted event steers the phone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Which event.
    pub event: EventKey,
    /// Its profile.
    pub profile: ProfileId,
    /// The profile's rank; 0 is the highest.
    pub rank: usize,
    /// Whether the profile is one of being there: it makes a hole in longer events.
    pub available: bool,
    /// The event's own time, as the calendar has it.
    pub interval: Interval,
    /// Its time cut by a late start or an early end of the profile.
    pub own: Interval,
    /// Its time with an early start or a late end; only fills time that is nobody's own.
    pub reach: Interval,
    /// Last change, where the server tells.
    pub last_modified: Option<Timestamp>,
}

/// All spans, by start and then by event.
pub(super) fn spans(rules: &Rules, timetable: &Timetable) -> Vec<Span> {
    let zone = timetable.zone.rules();
    let counted = timetable.entries.iter().filter(|entry| entry.counts == Counts::Counted);
    let mut spans: Vec<Span> = counted
        .filter_map(|entry| {
            let id = entry.profile()?;
            let (rank, profile) = rules.profiles.iter().enumerate().find(|(_, known)| known.id == *id)?;
            let interval = entry.interval(&zone);
            let lead = profile.before_start_secs.clamp(-MAX_SHIFT_SECS, MAX_SHIFT_SECS);
            let tail = profile.after_end_secs.clamp(-MAX_SHIFT_SECS, MAX_SHIFT_SECS);
            let own = Interval::new(shift(interval.start, -lead.min(0)), shift(interval.end, tail.min(0)));
            let reach = Interval::new(shift(own.start, -lead.max(0)), shift(own.end, tail.max(0)));
            (!own.is_empty()).then(|| Span {
                event: entry.key.clone(),
                profile: id.clone(),
                rank,
                available: profile.is_available,
                interval,
                own,
                reach,
                last_modified: entry.last_modified,
            })
        })
        .collect();
    spans.sort_by(|one, other| (one.reach.start, &one.event).cmp(&(other.reach.start, &other.event)));
    spans
}

fn shift(at: Timestamp, secs: i32) -> Timestamp {
    let by = SignedDuration::from_secs(i64::from(secs));
    at.checked_add(by).unwrap_or(if secs < 0 { Timestamp::MIN } else { Timestamp::MAX })
}
