//! One mailbox's calendars: events, series with exceptions, and the changes that notify.
//!
//! Series are kept as rules in local time and expanded on reading, so that a series across a
//! daylight saving change keeps its wall time. Ids carry what they name, so that no look-up is
//! needed; default and immutable ids of one event are different strings.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::{
    Span, Timestamp,
    civil::{Date, DateTime, Weekday},
    tz::TimeZone,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{error::SimError, zones};

/// How an event shows its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "Graph's own words")]
pub enum ShowAs {
    Free,
    Tentative,
    #[default]
    Busy,
    Oof,
    WorkingElsewhere,
    Unknown,
}

/// How confidential an event is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "Graph's own words")]
pub enum Sensitivity {
    #[default]
    Normal,
    Personal,
    Private,
    Confidential,
}

/// What the mailbox's owner answered to an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "Graph's own words")]
pub enum Response {
    None,
    #[default]
    Organizer,
    TentativelyAccepted,
    Accepted,
    Declined,
    NotResponded,
}

/// Which of the user's calendars an event lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum CalendarKind {
    /// The one that calendarView shows.
    #[default]
    Default,
    /// Another one: its changes notify, but calendarView does not show it.
    Secondary,
}

/// An instant, or a wall time in the user's zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Moment {
    /// With an offset.
    Instant(Timestamp),
    /// Without one: the mailbox's zone applies.
    Local(DateTime),
}

impl From<Timestamp> for Moment {
    fn from(at: Timestamp) -> Self {
        Self::Instant(at)
    }
}

impl From<DateTime> for Moment {
    fn from(at: DateTime) -> Self {
        Self::Local(at)
    }
}

/// How often a series repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Every {
    /// Every `interval` days.
    Day,
    /// Every `interval` weeks, on `days`.
    Week,
}

/// A day of the week, as Graph spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "names of days")]
pub enum Day {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl Day {
    fn offset(self) -> i64 {
        self as i64
    }

    fn of(day: Weekday) -> Self {
        match day {
            Weekday::Monday => Self::Monday,
            Weekday::Tuesday => Self::Tuesday,
            Weekday::Wednesday => Self::Wednesday,
            Weekday::Thursday => Self::Thursday,
            Weekday::Friday => Self::Friday,
            Weekday::Saturday => Self::Saturday,
            Weekday::Sunday => Self::Sunday,
        }
    }
}

/// The rule of a series; its first start is the event's start.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeriesSpec {
    /// Unit of repetition.
    pub every: Every,
    /// Units between occurrences.
    #[serde(default = "one")]
    pub interval: u32,
    /// Number of occurrences; absent = no end.
    #[serde(default)]
    pub count: Option<u32>,
    /// Days of a weekly series; empty = the day of the first start.
    #[serde(default)]
    pub days: Vec<Day>,
    /// Zone of the wall time (Windows or IANA); absent = the mailbox's.
    #[serde(default)]
    pub zone: Option<String>,
}

fn one() -> u32 {
    1
}

impl SeriesSpec {
    /// A daily series of `count` occurrences.
    pub fn daily(count: u32) -> Self {
        Self { every: Every::Day, interval: 1, count: Some(count), days: Vec::new(), zone: None }
    }

    /// A weekly series of `count` occurrences on the day of its first start.
    pub fn weekly(count: u32) -> Self {
        Self { every: Every::Week, ..Self::daily(count) }
    }

    /// The same in another zone.
    pub fn in_zone(mut self, zone: &str) -> Self {
        self.zone = Some(zone.to_owned());
        self
    }
}

/// What a new event has, or what a patch changes; absent members keep their value.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the members are named after Graph's; the others have a sentence")]
pub struct EventSpec {
    pub subject: Option<String>,
    pub body: Option<String>,
    pub location: Option<String>,
    pub start: Option<Moment>,
    pub end: Option<Moment>,
    /// Starts so many seconds from now.
    pub in_secs: Option<i64>,
    /// Lasts so many seconds.
    pub for_secs: Option<i64>,
    /// Whole days instead of times.
    pub all_day: Option<bool>,
    /// First day of an all-day event.
    pub date: Option<Date>,
    /// Number of days of an all-day event.
    pub days: Option<u32>,
    /// Addresses of attendees.
    pub attendees: Option<Vec<String>>,
    /// Address of the organizer; absent = the mailbox's owner.
    pub organizer: Option<String>,
    pub show_as: Option<ShowAs>,
    pub sensitivity: Option<Sensitivity>,
    pub response: Option<Response>,
    pub is_organizer: Option<bool>,
    pub is_cancelled: Option<bool>,
    pub categories: Option<Vec<String>>,
    /// Has an online meeting.
    pub online: Option<bool>,
    pub calendar: Option<CalendarKind>,
    /// Makes it a series.
    pub series: Option<SeriesSpec>,
}

impl EventSpec {
    /// An event with this subject; times still to be given.
    pub fn new(subject: &str) -> Self {
        Self { subject: Some(subject.to_owned()), ..Self::default() }
    }

    /// From `start` to `end`.
    pub fn at(mut self, start: impl Into<Moment>, end: impl Into<Moment>) -> Self {
        self.start = Some(start.into());
        self.end = Some(end.into());
        self
    }

    /// All day, from `date`, for `days` days.
    pub fn all_day(mut self, date: Date, days: u32) -> Self {
        self.all_day = Some(true);
        self.date = Some(date);
        self.days = Some(days);
        self
    }

    /// Shown as.
    pub fn show_as(mut self, show_as: ShowAs) -> Self {
        self.show_as = Some(show_as);
        self
    }

    /// Marked as.
    pub fn sensitivity(mut self, sensitivity: Sensitivity) -> Self {
        self.sensitivity = Some(sensitivity);
        self
    }

    /// An invitation by `organizer`, answered with `response`.
    pub fn invited_by(mut self, organizer: &str, response: Response) -> Self {
        self.organizer = Some(organizer.to_owned());
        self.is_organizer = Some(false);
        self.response = Some(response);
        self
    }

    /// Repeats.
    pub fn series(mut self, series: SeriesSpec) -> Self {
        self.series = Some(series);
        self
    }

    /// In the user's other calendar.
    pub fn in_secondary_calendar(mut self) -> Self {
        self.calendar = Some(CalendarKind::Secondary);
        self
    }

    fn sets_time(&self) -> bool {
        self.start.is_some()
            || self.end.is_some()
            || self.in_secs.is_some()
            || self.for_secs.is_some()
            || self.all_day.is_some()
            || self.date.is_some()
            || self.days.is_some()
    }
}

/// When an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Timed { start: Timestamp, end: Timestamp },
    AllDay { date: Date, days: u32 },
}

impl When {
    pub(crate) fn overlaps(&self, from: Timestamp, to: Timestamp, zone: &TimeZone) -> bool {
        let (start, end) = self.instants(zone);
        if start == end { start >= from && start < to } else { start < to && end > from }
    }

    pub(crate) fn instants(&self, zone: &TimeZone) -> (Timestamp, Timestamp) {
        match *self {
            Self::Timed { start, end } => (start, end),
            Self::AllDay { date, days } => (
                instant(date.at(0, 0, 0, 0), zone),
                instant(plus_days(date, i64::from(days)).at(0, 0, 0, 0), zone),
            ),
        }
    }
}

pub(crate) fn plus_days(date: Date, days: i64) -> Date {
    Span::new().try_days(days).and_then(|span| date.checked_add(span)).unwrap_or(Date::MAX)
}

pub(crate) fn instant(local: DateTime, zone: &TimeZone) -> Timestamp {
    zone.to_ambiguous_timestamp(local).compatible().unwrap_or(Timestamp::MAX)
}

/// What an event and an exception of a series both have.
#[derive(Debug, Clone)]
pub(crate) struct Fields {
    pub(crate) subject: Option<String>,
    pub(crate) body: String,
    pub(crate) location: String,
    pub(crate) when: When,
    pub(crate) attendees: Vec<String>,
    pub(crate) organizer: Option<String>,
    pub(crate) show_as: ShowAs,
    pub(crate) sensitivity: Sensitivity,
    pub(crate) response: Response,
    pub(crate) responded: Option<Timestamp>,
    pub(crate) is_organizer: bool,
    pub(crate) is_cancelled: bool,
    pub(crate) categories: Vec<String>,
    pub(crate) online: bool,
}

impl Fields {
    fn new(spec: &EventSpec, now: Timestamp, zone: &TimeZone) -> Result<Self, SimError> {
        let timed = spec.start.is_some() || spec.in_secs.is_some();
        if !timed && spec.date.is_none() {
            return Err(SimError::invalid("an event needs start, in_secs or date"));
        }
        let is_organizer =
            spec.is_organizer.unwrap_or(matches!(spec.response, None | Some(Response::Organizer)));
        let mut fields = Self {
            subject: None,
            body: String::new(),
            location: String::new(),
            when: When::Timed { start: now, end: now },
            attendees: Vec::new(),
            organizer: None,
            show_as: if timed { ShowAs::Busy } else { ShowAs::Free },
            sensitivity: Sensitivity::Normal,
            response: if is_organizer { Response::Organizer } else { Response::NotResponded },
            responded: None,
            is_organizer,
            is_cancelled: false,
            categories: Vec::new(),
            online: false,
        };
        fields.apply(spec, now, zone)?;
        Ok(fields)
    }

    fn apply(&mut self, spec: &EventSpec, now: Timestamp, zone: &TimeZone) -> Result<(), SimError> {
        if spec.sets_time() {
            self.when = self.moved(spec, now, zone)?;
        }
        fn set<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(value) = from {
                *to = value.clone();
            }
        }
        if spec.subject.is_some() {
            self.subject.clone_from(&spec.subject);
        }
        if spec.organizer.is_some() {
            self.organizer.clone_from(&spec.organizer);
        }
        set(&mut self.body, &spec.body);
        set(&mut self.location, &spec.location);
        set(&mut self.attendees, &spec.attendees);
        set(&mut self.show_as, &spec.show_as);
        set(&mut self.sensitivity, &spec.sensitivity);
        set(&mut self.is_organizer, &spec.is_organizer);
        set(&mut self.is_cancelled, &spec.is_cancelled);
        set(&mut self.categories, &spec.categories);
        set(&mut self.online, &spec.online);
        if let Some(response) = spec.response {
            self.response = response;
            self.responded =
                (!matches!(response, Response::None | Response::Organizer | Response::NotResponded))
                    .then_some(now);
        }
        Ok(())
    }

    fn moved(&self, spec: &EventSpec, now: Timestamp, zone: &TimeZone) -> Result<When, SimError> {
        let was_all_day = matches!(self.when, When::AllDay { .. });
        let timed = spec.start.is_some() || spec.in_secs.is_some() || spec.all_day == Some(false);
        let all_day = spec.all_day == Some(true)
            || spec.date.is_some()
            || (was_all_day && !timed && spec.end.is_none());
        if all_day {
            let (old_date, old_days) = match self.when {
                When::AllDay { date, days } => (Some(date), days),
                When::Timed { .. } => (None, 1),
            };
            let date = spec
                .date
                .or(match spec.start {
                    Some(Moment::Local(at)) => Some(at.date()),
                    Some(Moment::Instant(at)) => Some(at.to_zoned(zone.clone()).date()),
                    None => None,
                })
                .or(old_date)
                .ok_or_else(|| SimError::invalid("an all-day event needs a date"))?;
            let days = spec.days.unwrap_or(old_days);
            if days == 0 {
                return Err(SimError::invalid("an all-day event has at least one day"));
            }
            return Ok(When::AllDay { date, days });
        }
        let (old_start, old_end) = self.when.instants(zone);
        let resolve = |moment: Moment| match moment {
            Moment::Instant(at) => at,
            Moment::Local(at) => instant(at, zone),
        };
        let later = |at: Timestamp, secs: i64| {
            at.checked_add(jiff::SignedDuration::from_secs(secs))
                .map_err(|_| SimError::invalid("time out of range"))
        };
        let start = match (spec.start, spec.in_secs) {
            (Some(at), _) => resolve(at),
            (None, Some(secs)) => later(now, secs)?,
            (None, None) => old_start,
        };
        let end = match (spec.end, spec.for_secs) {
            (Some(at), _) => resolve(at),
            (None, Some(secs)) => later(start, secs)?,
            (None, None) if spec.start.is_some() || spec.in_secs.is_some() => {
                let length = old_end.duration_since(old_start);
                if length.is_zero() {
                    return Err(SimError::invalid("an event needs end or for_secs"));
                }
                start.checked_add(length).map_err(|_| SimError::invalid("time out of range"))?
            }
            (None, None) => old_end,
        };
        if end < start {
            return Err(SimError::invalid("an event must not end before it starts"));
        }
        Ok(When::Timed { start, end })
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Exception {
    pub(crate) fields: Fields,
    pub(crate) modified: Timestamp,
    pub(crate) version: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) every: Every,
    pub(crate) interval: u32,
    pub(crate) count: Option<u32>,
    pub(crate) days: Vec<Day>,
    pub(crate) zone_name: String,
    pub(crate) zone: TimeZone,
    pub(crate) exceptions: BTreeMap<Date, Exception>,
    pub(crate) cancelled: BTreeSet<Date>,
}

#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) key: u64,
    pub(crate) moves: u8,
    pub(crate) calendar: CalendarKind,
    pub(crate) fields: Fields,
    pub(crate) series: Option<Series>,
    pub(crate) created: Timestamp,
    pub(crate) modified: Timestamp,
    pub(crate) version: u64,
}

/// One row of a view: an event, or an occurrence or exception of one.
pub(crate) struct Row<'a> {
    pub(crate) event: &'a Event,
    /// Day of the slot in the pattern, for occurrences and exceptions.
    pub(crate) slot: Option<Date>,
    /// When it is now.
    pub(crate) when: When,
    /// When the pattern has it.
    pub(crate) original: When,
    pub(crate) exception: Option<&'a Exception>,
}

impl Row<'_> {
    pub(crate) fn fields(&self) -> &Fields {
        self.exception.map_or(&self.event.fields, |exception| &exception.fields)
    }
}

impl Event {
    /// The event itself: single or master.
    pub(crate) fn row(&self) -> Row<'_> {
        Row { event: self, slot: None, when: self.fields.when, original: self.fields.when, exception: None }
    }

    fn first_day(&self, series: &Series) -> Date {
        match self.fields.when {
            When::Timed { start, .. } => start.to_zoned(series.zone.clone()).date(),
            When::AllDay { date, .. } => date,
        }
    }

    /// The pattern's days, in order, until `last`.
    fn days<'a>(&self, series: &'a Series, last: Date) -> impl Iterator<Item = Date> + 'a {
        let first = self.first_day(series);
        let interval = i64::from(series.interval.max(1));
        let days: Vec<i64> = if series.every == Every::Week {
            let mut days: Vec<i64> = if series.days.is_empty() {
                vec![Day::of(first.weekday()).offset()]
            } else {
                series.days.iter().map(|day| day.offset()).collect()
            };
            days.sort_unstable();
            days.dedup();
            days
        } else {
            vec![0]
        };
        let (origin, step) = match series.every {
            Every::Day => (first, interval),
            Every::Week => (plus_days(first, -Day::of(first.weekday()).offset()), interval * 7),
        };
        // Without an end, ten years of days are as good as for ever.
        let count = series.count.map_or(4_000, |count| count as usize);
        (0_i64..)
            .flat_map(move |round| {
                days.clone().into_iter().map(move |day| plus_days(origin, round * step + day))
            })
            .filter(move |date| *date >= first)
            .take(count)
            .take_while(move |date| *date <= last)
    }

    fn slot_when(&self, series: &Series, date: Date) -> When {
        match self.fields.when {
            When::AllDay { days, .. } => When::AllDay { date, days },
            When::Timed { start, end } => {
                let start = start.to_zoned(series.zone.clone()).datetime();
                let end = end.to_zoned(series.zone.clone()).datetime();
                let shift = start.date().until(date).map_or(0, |span| i64::from(span.get_days()));
                let moved =
                    |at: DateTime| instant(plus_days(at.date(), shift).to_datetime(at.time()), &series.zone);
                When::Timed { start: moved(start), end: moved(end) }
            }
        }
    }

    /// The row of one slot, unless it is not in the pattern or cancelled.
    pub(crate) fn slot(&self, date: Date) -> Option<Row<'_>> {
        let series = self.series.as_ref()?;
        if series.cancelled.contains(&date) || !self.days(series, date).any(|day| day == date) {
            return None;
        }
        Some(self.slot_row(series, date))
    }

    fn slot_row<'a>(&'a self, series: &'a Series, date: Date) -> Row<'a> {
        let original = self.slot_when(series, date);
        let exception = series.exceptions.get(&date);
        Row {
            event: self,
            slot: Some(date),
            when: exception.map_or(original, |exception| exception.fields.when),
            original,
            exception,
        }
    }

    /// Single instance, or occurrences and exceptions, that overlap the window.
    pub(crate) fn rows<'a>(
        &'a self,
        from: Timestamp,
        to: Timestamp,
        zone: &TimeZone,
        into: &mut Vec<Row<'a>>,
    ) {
        let Some(series) = &self.series else {
            if self.fields.when.overlaps(from, to, zone) {
                into.push(self.row());
            }
            return;
        };
        let last = plus_days(to.to_zoned(TimeZone::UTC).date(), 1);
        let last = series.exceptions.last_key_value().map_or(last, |(date, _)| last.max(*date));
        for date in self.days(series, last) {
            if series.cancelled.contains(&date) {
                continue;
            }
            let row = self.slot_row(series, date);
            if row.when.overlaps(from, to, zone) {
                into.push(row);
            }
        }
    }

    /// All slots that the pattern has in the next years, cancelled or not.
    pub(crate) fn all_slots(&self) -> Vec<Date> {
        self.series
            .as_ref()
            .map_or_else(Vec::new, |series| self.days(series, Date::MAX).take(1_000).collect())
    }

    pub(crate) fn range_end(&self) -> Option<Date> {
        let series = self.series.as_ref()?;
        series.count?;
        self.days(series, Date::MAX).last()
    }

    pub(crate) fn range_start(&self) -> Option<Date> {
        self.series.as_ref().map(|series| self.first_day(series))
    }

    pub(crate) fn pattern_days(&self) -> Vec<Day> {
        match &self.series {
            Some(series) if series.every == Every::Week && series.days.is_empty() => {
                vec![Day::of(self.first_day(series).weekday())]
            }
            Some(series) if series.every == Every::Week => series.days.clone(),
            _ => Vec::new(),
        }
    }
}

/// What a change was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Hash, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "Graph's own words")]
pub enum ChangeType {
    Created,
    Updated,
    Deleted,
}

impl ChangeType {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
        }
    }
}

/// A change that subscriptions hear of.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) item: ItemRef,
    pub(crate) kind: ChangeType,
    pub(crate) version: u64,
    /// Only for subscriptions with one kind of id: a move between calendars.
    pub(crate) only_immutable: Option<bool>,
}

/// What an item id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ItemRef {
    pub(crate) key: u64,
    pub(crate) moves: u8,
    pub(crate) slot: Option<Date>,
}

const IMMUTABLE: &str = "AAkALgAAAAAAHYQDEapmEc2byACqAC-EWg0A";
const DEFAULT: &str = "AAMkAGZlMDkxYjJhLTRjN2Q/BGAAAAAAA+Rt";
const SUFFIX: &str = "AAA=";

impl ItemRef {
    /// The id string; `mailbox` makes ids of different mailboxes different.
    pub(crate) fn id(&self, mailbox: u32, immutable: bool) -> String {
        let mut raw = [0_u8; 17];
        raw[..8].copy_from_slice(&self.key.to_be_bytes());
        let day = self.slot.map_or(0, |date| epoch_day(date).saturating_add(1_000_000));
        raw[8..12].copy_from_slice(&day.to_be_bytes());
        raw[12..16].copy_from_slice(&mailbox.to_be_bytes());
        if immutable {
            scramble(&mut raw, 0x5a);
            format!("{IMMUTABLE}{}{SUFFIX}", BASE64_URL_SAFE_NO_PAD.encode(raw))
        } else {
            raw[16] = self.moves.wrapping_add(1);
            scramble(&mut raw, 0xc3);
            format!("{DEFAULT}{}{SUFFIX}", BASE64_URL_SAFE_NO_PAD.encode(raw))
        }
    }

    /// Reads an id of this mailbox; the flag tells an immutable one.
    pub(crate) fn parse(id: &str, mailbox: u32) -> Result<(Self, bool), IdProblem> {
        let (rest, immutable) = if let Some(rest) = id.strip_prefix(IMMUTABLE) {
            (rest, true)
        } else if let Some(rest) = id.strip_prefix(DEFAULT) {
            (rest, false)
        } else {
            return Err(IdProblem::Malformed);
        };
        let rest = rest.strip_suffix(SUFFIX).ok_or(IdProblem::Malformed)?;
        let raw = BASE64_URL_SAFE_NO_PAD.decode(rest).map_err(|_| IdProblem::Malformed)?;
        let mut raw: [u8; 17] = raw.try_into().map_err(|_| IdProblem::Malformed)?;
        scramble(&mut raw, if immutable { 0x5a } else { 0xc3 });
        let (key, rest) = raw.split_at(8);
        let (day, rest) = rest.split_at(4);
        let (owner, moves) = rest.split_at(4);
        let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |all, b| all << 8 | u64::from(*b));
        if number(owner) != u64::from(mailbox) {
            return Err(IdProblem::OtherMailbox);
        }
        let day = number(day);
        let slot = match day {
            0 => None,
            day => Some(plus_days(Date::constant(1970, 1, 1), i64::try_from(day).unwrap_or(0) - 1_000_000)),
        };
        let item =
            Self { key: number(key), moves: moves.first().map_or(0, |moves| moves.wrapping_sub(1)), slot };
        Ok((item, immutable))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdProblem {
    Malformed,
    OtherMailbox,
}

fn epoch_day(date: Date) -> u32 {
    let days = Date::constant(1970, 1, 1).until(date).map_or(0, |span| span.get_days());
    u32::try_from(days.max(0)).unwrap_or(0)
}

/// Makes every byte depend on the first eight, so that ids look unlike each other.
fn scramble(raw: &mut [u8; 17], seed: u8) {
    for (at, byte) in raw.iter_mut().enumerate() {
        let at = u8::try_from(at).unwrap_or(0);
        *byte ^= seed.wrapping_mul(at.wrapping_add(7)).rotate_left(3);
    }
}

/// Change key of a version of an item.
pub(crate) fn change_key(mailbox: u32, item: ItemRef, version: u64) -> String {
    let mut hash = Sha256::new();
    hash.update(mailbox.to_be_bytes());
    hash.update(item.key.to_be_bytes());
    hash.update(version.to_be_bytes());
    hash.update(item.slot.map_or(0, epoch_day).to_be_bytes());
    let digest = hash.finalize();
    base64::prelude::BASE64_STANDARD.encode(&digest[..16])
}

/// One user's calendars.
#[derive(Default)]
pub(crate) struct Mailbox {
    pub(crate) events: BTreeMap<u64, Event>,
    /// Items that went away, for delta rounds.
    pub(crate) removed: Vec<(u64, ItemRef)>,
    pub(crate) version: u64,
    pub(crate) delta_generation: u32,
    next: u64,
}

impl Mailbox {
    fn bump(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    pub(crate) fn add(
        &mut self,
        spec: &EventSpec,
        now: Timestamp,
        zone: &TimeZone,
        zone_name: &str,
    ) -> Result<(ItemRef, Vec<Change>), SimError> {
        let mut fields = Fields::new(spec, now, zone)?;
        let series = match &spec.series {
            Some(series) => Some(make_series(series, zone_name, zone)?),
            None => None,
        };
        if let (Some(series), When::Timed { .. }) = (&series, fields.when) {
            // The first occurrence is the first day of the pattern, as Outlook makes it.
            let probe = Event {
                key: 0,
                moves: 0,
                calendar: CalendarKind::Default,
                fields: fields.clone(),
                series: Some(series.clone()),
                created: now,
                modified: now,
                version: 0,
            };
            if let Some(first) = probe.days(series, Date::MAX).next() {
                fields.when = probe.slot_when(series, first);
            }
        }
        let version = self.bump();
        self.next += 1;
        let key = self.next;
        self.events.insert(
            key,
            Event {
                key,
                moves: 0,
                calendar: spec.calendar.unwrap_or_default(),
                fields,
                series,
                created: now,
                modified: now,
                version,
            },
        );
        let item = ItemRef { key, moves: 0, slot: None };
        Ok((item, vec![change(item, ChangeType::Created, version)]))
    }

    pub(crate) fn patch(
        &mut self,
        item: ItemRef,
        spec: &EventSpec,
        now: Timestamp,
        zone: &TimeZone,
        zone_name: &str,
    ) -> Result<Vec<Change>, SimError> {
        let version = self.version + 1;
        let event = self.events.get_mut(&item.key).ok_or_else(|| SimError::not_found("event"))?;
        if let Some(date) = item.slot {
            let row = event.slot(date).ok_or_else(|| SimError::not_found("occurrence"))?;
            let mut fields = row.fields().clone();
            fields.when = row.when;
            fields.apply(spec, now, zone)?;
            event.version = version;
            event.modified = now;
            if let Some(series) = &mut event.series {
                let exception = Exception { fields, modified: now, version };
                series.exceptions.insert(date, exception);
            }
            self.version = version;
            let master = ItemRef { slot: None, ..item };
            return Ok(vec![
                change(master, ChangeType::Updated, version),
                change(item, ChangeType::Updated, version),
            ]);
        }
        let old_slots =
            if spec.sets_time() || spec.series.is_some() { event.all_slots() } else { Vec::new() };
        event.fields.apply(spec, now, zone)?;
        if let Some(series) = &spec.series {
            event.series = Some(make_series(series, zone_name, zone)?);
        } else if spec.sets_time()
            && let Some(series) = &mut event.series
        {
            // Outlook throws exceptions away when the pattern's time changes.
            series.exceptions.clear();
            series.cancelled.clear();
        }
        event.version = version;
        event.modified = now;
        let item = ItemRef { moves: event.moves, ..item };
        for slot in old_slots {
            let slot = Some(slot);
            self.removed.push((version, ItemRef { slot, ..item }));
        }
        let mut changes = Vec::new();
        if let Some(calendar) = spec.calendar
            && calendar != event.calendar
        {
            self.removed.push((version, item));
            event.calendar = calendar;
            event.moves = event.moves.wrapping_add(1);
            let moved = ItemRef { moves: event.moves, ..item };
            changes
                .push(Change { only_immutable: Some(false), ..change(item, ChangeType::Deleted, version) });
            changes
                .push(Change { only_immutable: Some(false), ..change(moved, ChangeType::Created, version) });
            changes.push(Change { only_immutable: Some(true), ..change(item, ChangeType::Updated, version) });
        } else {
            changes.push(change(item, ChangeType::Updated, version));
        }
        self.version = version;
        Ok(changes)
    }

    pub(crate) fn delete(&mut self, item: ItemRef, now: Timestamp) -> Result<Vec<Change>, SimError> {
        let version = self.version + 1;
        let event = self.events.get_mut(&item.key).ok_or_else(|| SimError::not_found("event"))?;
        if let Some(date) = item.slot {
            if event.slot(date).is_none() {
                return Err(SimError::not_found("occurrence"));
            }
            if let Some(series) = &mut event.series {
                series.exceptions.remove(&date);
                series.cancelled.insert(date);
            }
            event.version = version;
            event.modified = now;
            self.version = version;
            self.removed.push((version, item));
            // No item for the occurrence: only the master tells.
            let master = ItemRef { slot: None, ..item };
            return Ok(vec![change(master, ChangeType::Updated, version)]);
        }
        let item = ItemRef { moves: event.moves, ..item };
        for slot in event.all_slots() {
            let slot = Some(slot);
            self.removed.push((version, ItemRef { slot, ..item }));
        }
        self.events.remove(&item.key);
        self.version = version;
        self.removed.push((version, item));
        Ok(vec![change(item, ChangeType::Deleted, version)])
    }
}

fn change(item: ItemRef, kind: ChangeType, version: u64) -> Change {
    Change { item, kind, version, only_immutable: None }
}

fn make_series(spec: &SeriesSpec, zone_name: &str, zone: &TimeZone) -> Result<Series, SimError> {
    let (zone_name, zone) = match &spec.zone {
        Some(name) => (
            name.clone(),
            zones::zone(name).ok_or_else(|| SimError::invalid(format!("unknown time zone `{name}`")))?,
        ),
        None => (zone_name.to_owned(), zone.clone()),
    };
    if spec.interval == 0 || spec.count == Some(0) {
        return Err(SimError::invalid("interval and count start at 1"));
    }
    Ok(Series {
        every: spec.every,
        interval: spec.interval,
        count: spec.count,
        days: spec.days.clone(),
        zone_name,
        zone,
        exceptions: BTreeMap::new(),
        cancelled: BTreeSet::new(),
    })
}
