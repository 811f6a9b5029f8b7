//! Calendar items: from Graph's JSON to [`CalendarEvent`].
//!
//! What has no field here (body, attendees, location, links) is skipped by the parser and never becomes a value.
//! Enumerations may grow, so they are read as text and an unknown word falls to the careful side.
//! Facts: <https://learn.microsoft.com/graph/api/resources/event>.
//!
//! Rows of delta are events too, and less: a removed one has its id alone, and an occurrence may be *thin*, with
//! its times and its series' id and nothing else. [`WireEvent::inherit`] gives it what it has from its series.
//! Facts: <https://learn.microsoft.com/graph/delta-query-events>.

use chrono::{DateTime as WireInstant, Utc};
use jiff::{Timestamp, civil, tz::TimeZone};
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::wire::unreadable;
use crate::{
    calendar::ReadError,
    model::{CalendarEvent, EventId, EventKind, Interval, Response, Sensitivity, ShowAs, Subject, When},
    timetable,
};

/// <https://learn.microsoft.com/graph/api/resources/event>
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireEvent {
    id: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    series_master_id: Option<String>,
    original_start: Option<WireInstant<Utc>>,
    /// Missing altogether, or `null` for "no text": two things.
    #[serde(default, deserialize_with = "even_if_null")]
    subject: Option<Option<String>>,
    start: Option<WireMoment>,
    end: Option<WireMoment>,
    is_all_day: Option<bool>,
    is_cancelled: Option<bool>,
    is_organizer: Option<bool>,
    show_as: Option<String>,
    sensitivity: Option<String>,
    response_status: Option<WireResponse>,
    categories: Option<Vec<String>>,
    organizer: Option<WireRecipient>,
    last_modified_date_time: Option<WireInstant<Utc>>,
    #[serde(rename = "@removed")]
    removed: Option<IgnoredAny>,
}

/// <https://learn.microsoft.com/graph/api/resources/responsestatus>
#[derive(Clone, Deserialize)]
struct WireResponse {
    response: Option<String>,
}

/// <https://learn.microsoft.com/graph/api/resources/recipient>, without the name.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRecipient {
    email_address: Option<WireAddress>,
}

#[derive(Clone, Deserialize)]
struct WireAddress {
    address: Option<String>,
}

/// <https://learn.microsoft.com/graph/api/resources/datetimetimezone>
#[derive(Deserialize)]
#[serde(try_from = "WireMomentText")]
struct WireMoment {
    wall: civil::DateTime,
    zone: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMomentText {
    date_time: String,
    time_zone: Option<String>,
}

impl TryFrom<WireMomentText> for WireMoment {
    type Error = &'static str;

    fn try_from(text: WireMomentText) -> Result<Self, &'static str> {
        // An offset is not expected; where one stands, it says more than the zone's name.
        if let Ok(instant) = text.date_time.parse::<Timestamp>() {
            let wall = TimeZone::UTC.to_datetime(instant);
            return Ok(Self { wall, zone: "UTC".to_owned() });
        }
        let wall = text.date_time.parse().map_err(|_quotes_the_text| "not a date and time")?;
        Ok(Self { wall, zone: text.time_zone.unwrap_or_else(|| "UTC".to_owned()) })
    }
}

impl WireMoment {
    /// The instant; a wall time that does not exist, or exists twice, is taken as calendars do (`compatible`).
    fn instant(&self, place: &str) -> Result<Timestamp, ReadError> {
        let zone = named(&self.zone).ok_or_else(|| unreadable(format!("{place}.timeZone")))?;
        let instant = zone.to_ambiguous_timestamp(self.wall).compatible();
        instant.map_err(|_out_of_range| unreadable(format!("{place}.dateTime")))
    }
}

/// The zone of this name. We ask for UTC, so the tables are hardly ever opened.
fn named(name: &str) -> Option<TimeZone> {
    if name.eq_ignore_ascii_case("UTC") {
        return Some(TimeZone::UTC);
    }
    TimeZone::get(&timetable::resolve(name).ok()?).ok()
}

fn even_if_null<'de, D: Deserializer<'de>>(document: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(document).map(Some)
}

impl WireEvent {
    /// Its id, as the server has it.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The id of its series.
    pub(super) fn series(&self) -> Option<&str> {
        self.series_master_id.as_deref()
    }

    /// Whether it only says that the event is gone from what is read.
    pub(super) fn is_removed(&self) -> bool {
        self.removed.is_some()
    }

    /// Whether it is a series.
    pub(super) fn is_master(&self) -> bool {
        self.kind() == EventKind::SeriesMaster
    }

    /// Whether it lacks what an event of a series may have from its series.
    pub(super) fn is_thin(&self) -> bool {
        self.subject.is_none() && matches!(self.kind(), EventKind::Occurrence | EventKind::Exception)
    }

    /// Takes what a thin occurrence lacks from its series; `false` where that cannot tell: an exception may differ
    /// in everything, and a series may be thin itself.
    pub(super) fn inherit(&mut self, master: &Self) -> bool {
        if self.kind() != EventKind::Occurrence || master.subject.is_none() {
            return false;
        }
        fn fill<T: Clone>(own: &mut Option<T>, inherited: &Option<T>) {
            if own.is_none() {
                own.clone_from(inherited);
            }
        }
        fill(&mut self.subject, &master.subject);
        fill(&mut self.is_all_day, &master.is_all_day);
        fill(&mut self.is_cancelled, &master.is_cancelled);
        fill(&mut self.is_organizer, &master.is_organizer);
        fill(&mut self.show_as, &master.show_as);
        fill(&mut self.sensitivity, &master.sensitivity);
        fill(&mut self.response_status, &master.response_status);
        fill(&mut self.categories, &master.categories);
        fill(&mut self.organizer, &master.organizer);
        fill(&mut self.last_modified_date_time, &master.last_modified_date_time);
        true
    }

    fn kind(&self) -> EventKind {
        event_kind(self.kind.as_deref(), self.series_master_id.is_some())
    }

    /// The event in our words; `place` says where in the document it stands.
    ///
    /// # Errors
    /// [`ReadError::Unreadable`] for a zone that cannot be mapped or a time beyond the calendar.
    pub(super) fn into_event(self, place: &str) -> Result<CalendarEvent, ReadError> {
        let when = self.when(place)?;
        let response = self.response();
        let id = |text: String, field: &str| {
            text.parse::<EventId>().map_err(|_quotes_the_id| unreadable(format!("{place}.{field}")))
        };
        let kind = self.kind();
        let original_start = match (self.original_start, kind, when) {
            (Some(start), _, _) => instant(start),
            // What is not an exception is where the pattern has it.
            (None, EventKind::Occurrence, When::Timed(interval)) => Some(interval.start),
            _ => None,
        };
        Ok(CalendarEvent {
            id: id(self.id, "id")?,
            series: self.series_master_id.map(|series| id(series, "seriesMasterId")).transpose()?,
            kind,
            original_start,
            // To Graph, an event without a subject has an empty one; the right to read it is ours with all else.
            subject: self.subject.map(|text| Subject::new(text.unwrap_or_default())),
            when,
            show_as: show_as(self.show_as.as_deref()),
            sensitivity: sensitivity(self.sensitivity.as_deref()),
            response,
            cancelled: self.is_cancelled.unwrap_or(false),
            categories: self.categories.unwrap_or_default(),
            organizer_domain: self.organizer.and_then(|who| who.email_address?.address).and_then(domain),
            last_modified: self.last_modified_date_time.and_then(instant),
        })
    }

    /// All-day events are floating days: Graph writes midnight in UTC and means midnight at home, so the date
    /// part is taken and the zone is not looked at.
    fn when(&self, place: &str) -> Result<When, ReadError> {
        let missing = |field: &str| unreadable(format!("{place}.{field}"));
        let start = self.start.as_ref().ok_or_else(|| missing("start"))?;
        let end = self.end.as_ref().ok_or_else(|| missing("end"))?;
        if self.is_all_day.unwrap_or(false) {
            return Ok(When::AllDay { first: start.wall.date(), last: end.wall.date() });
        }
        let start = start.instant(&format!("{place}.start"))?;
        let end = end.instant(&format!("{place}.end"))?;
        Ok(When::Timed(Interval::new(start, end)))
    }

    /// `none` stands on one's own appointments, and on somebody else's event that waits for an answer.
    fn response(&self) -> Response {
        let answered = self.response_status.as_ref().and_then(|status| status.response.as_deref());
        match lower(answered).as_str() {
            "organizer" => Response::Organizer,
            "accepted" => Response::Accepted,
            "tentativelyaccepted" => Response::Tentative,
            "declined" => Response::Declined,
            _ if self.is_organizer.unwrap_or(false) => Response::Organizer,
            _ => Response::None,
        }
    }
}

fn event_kind(kind: Option<&str>, has_series: bool) -> EventKind {
    match lower(kind).as_str() {
        "singleinstance" => EventKind::Single,
        "occurrence" => EventKind::Occurrence,
        "exception" => EventKind::Exception,
        "seriesmaster" => EventKind::SeriesMaster,
        _ if has_series => EventKind::Occurrence,
        _ => EventKind::Single,
    }
}

fn show_as(text: Option<&str>) -> ShowAs {
    match lower(text).as_str() {
        "free" => ShowAs::Free,
        "tentative" => ShowAs::Tentative,
        "busy" => ShowAs::Busy,
        "oof" => ShowAs::Oof,
        "workingelsewhere" => ShowAs::WorkingElsewhere,
        _ => ShowAs::Unknown,
    }
}

/// A label that is not known is a label: private.
fn sensitivity(text: Option<&str>) -> Sensitivity {
    match lower(text).as_str() {
        "" | "normal" => Sensitivity::Normal,
        _ => Sensitivity::Private,
    }
}

/// The part after the last `@`; an Exchange-internal address (`/O=...`) has none.
fn domain(address: String) -> Option<String> {
    let (_, domain) = address.rsplit_once('@')?;
    (!domain.is_empty()).then(|| domain.to_lowercase())
}

fn instant(wire: WireInstant<Utc>) -> Option<Timestamp> {
    let nanos = i32::try_from(wire.timestamp_subsec_nanos()).ok()?;
    Timestamp::new(wire.timestamp(), nanos).ok()
}

fn lower(text: Option<&str>) -> String {
    text.unwrap_or_default().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{
        super::{testing::fixture, wire},
        *,
    };

    fn read(value: &Value) -> Result<CalendarEvent, ReadError> {
        wire::read::<WireEvent>(&serde_json::to_vec(value).unwrap())?.into_event("event")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn timed(start: &str, end: &str) -> When {
        When::Timed(Interval::new(at(start), at(end)))
    }

    #[test]
    fn a_single_event_is_read_with_all_that_decides() {
        let event = read(&fixture("event-single.json")).unwrap();
        assert_eq!(event.when, timed("2026-11-23T09:00:00Z", "2026-11-23T10:30:00Z"));
        assert_eq!(event.kind, EventKind::Single);
        assert_eq!(event.subject.unwrap().expose(), "#dnd Focus: rate card review");
        assert_eq!(event.show_as, ShowAs::Busy);
        assert_eq!(event.response, Response::Organizer);
        assert_eq!(event.categories, ["Deep work"]);
        assert_eq!(event.organizer_domain.as_deref(), Some("contoso.example"));
        assert_eq!(event.last_modified, Some(at("2026-11-20T13:45:09.1122334Z")));
        assert!(!event.cancelled);
    }

    #[test]
    fn an_all_day_event_is_its_dates_whatever_zone_is_written_beside_them() {
        let mut value = fixture("event-all-day.json");
        let days = When::AllDay { first: civil::date(2026, 12, 24), last: civil::date(2026, 12, 29) };
        assert_eq!(read(&value).unwrap().when, days);
        value["start"]["timeZone"] = json!("tzone://Microsoft/Custom");
        value["end"]["timeZone"] = json!("Pacific Standard Time");
        assert_eq!(read(&value).unwrap().when, days);
    }

    #[test]
    fn an_occurrence_an_exception_and_a_master_are_told_apart() {
        let occurrence = read(&fixture("event-occurrence.json")).unwrap();
        assert_eq!(occurrence.kind, EventKind::Occurrence);
        assert_eq!(occurrence.original_start, Some(at("2026-11-23T07:00:00Z")));
        let exception = read(&fixture("event-exception.json")).unwrap();
        assert_eq!(exception.kind, EventKind::Exception);
        assert_eq!(exception.series, occurrence.series);
        let master = read(&fixture("event-series-master.json")).unwrap();
        assert_eq!((master.kind, Some(master.id)), (EventKind::SeriesMaster, occurrence.series));
    }

    #[test]
    fn a_cancelled_invitation_and_a_private_event_say_so() {
        let cancelled = read(&fixture("event-cancelled.json")).unwrap();
        assert!(cancelled.cancelled);
        assert_eq!(cancelled.organizer_domain.as_deref(), Some("fabrikam.example"));
        assert_eq!(cancelled.response, Response::Accepted);
        assert_eq!(read(&fixture("event-private.json")).unwrap().sensitivity, Sensitivity::Private);
    }

    #[test]
    fn a_foreign_event_without_an_answer_is_unanswered_and_ones_own_is_not() {
        let mut value = fixture("event-single.json");
        for (response, own, expected) in [
            ("none", false, Response::None),
            ("none", true, Response::Organizer),
            ("notResponded", false, Response::None),
            ("TentativelyAccepted", false, Response::Tentative),
            ("declined", false, Response::Declined),
            ("brandNew", false, Response::None),
        ] {
            value["responseStatus"]["response"] = json!(response);
            value["isOrganizer"] = json!(own);
            assert_eq!(read(&value).unwrap().response, expected, "{response} {own}");
        }
        value["responseStatus"] = Value::Null;
        assert_eq!(read(&value).unwrap().response, Response::None);
    }

    #[test]
    fn every_show_as_is_known_and_an_unknown_one_is_kept_as_such() {
        let page: wire::Page<WireEvent> =
            wire::read(&serde_json::to_vec(&fixture("events-showas-matrix.json")).unwrap()).unwrap();
        let shown: Vec<_> =
            page.value.into_iter().map(|event| event.into_event("e").unwrap().show_as).collect();
        assert_eq!(
            shown,
            [
                ShowAs::Free,
                ShowAs::Tentative,
                ShowAs::Busy,
                ShowAs::Oof,
                ShowAs::WorkingElsewhere,
                ShowAs::Unknown
            ]
        );
        let mut value = fixture("event-single.json");
        value["showAs"] = json!("napping");
        assert_eq!(read(&value).unwrap().show_as, ShowAs::Unknown);
    }

    #[test]
    fn wall_times_in_a_named_zone_become_instants() {
        let mut value = fixture("event-single.json");
        value["start"] =
            json!({"dateTime": "2026-07-01T09:00:00.0000000", "timeZone": "W. Europe Standard Time"});
        value["end"] = json!({"dateTime": "2026-07-01T10:00:00.0000000", "timeZone": "Europe/Stockholm"});
        assert_eq!(read(&value).unwrap().when, timed("2026-07-01T07:00:00Z", "2026-07-01T08:00:00Z"));
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_place_and_not_by_its_text() {
        let mut value = fixture("event-single.json");
        value["end"]["timeZone"] = json!("tzone://Microsoft/Custom");
        assert!(
            matches!(read(&value), Err(ReadError::Unreadable { place }) if place == "event.end.timeZone")
        );
        value["start"]["dateTime"] = json!("confidential");
        let error = read(&value).unwrap_err();
        assert!(matches!(&error, ReadError::Unreadable { place } if place == "start"), "{error:?}");
        assert!(!format!("{error:?} {error}").contains("confidential"));
        let mut value = fixture("event-single.json");
        value["subject"] = json!({"secret": 1});
        assert!(matches!(read(&value), Err(ReadError::Unreadable { place }) if place == "subject"));
    }

    #[test]
    fn an_empty_subject_is_readable_and_a_missing_one_is_not() {
        let mut value = fixture("event-single.json");
        value["subject"] = Value::Null;
        assert_eq!(read(&value).unwrap().subject.unwrap().expose(), "");
        value.as_object_mut().unwrap().remove("subject");
        assert_eq!(read(&value).unwrap().subject, None);
    }
}
