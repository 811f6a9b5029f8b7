//! The return time in words, for the PBX's text: `till 15:00`, `until 3 Dec 15:00`.
//!
//! On the day itself the time stands alone; on another day the date stands before it. An end at the start
//! of a day, as whole-day events have it, is told by its date alone: `till 3 dec` means away up to, and
//! back on, the third. From a year ahead the year is added. Never seconds: a fraction of a minute is cut.

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};

use crate::{model::Language, timetable::start_of};

const MONTHS_SV: [&str; 12] =
    ["jan", "feb", "mars", "apr", "maj", "juni", "juli", "aug", "sep", "okt", "nov", "dec"];
const MONTHS_EN: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The note for a state that lasts until `until`, as it reads at `now`.
pub(super) fn note(language: Language, zone: &TimeZone, now: Timestamp, until: Timestamp) -> String {
    let word = match language {
        Language::Sv => "till",
        Language::En => "until",
    };
    format!("{word} {}", moment(language, zone, now, until))
}

/// A moment as people say it at `now`: `15:00`, `3 dec 15:00`, `3 dec`, `3 dec 2028`.
pub(super) fn moment(language: Language, zone: &TimeZone, now: Timestamp, at: Timestamp) -> String {
    let (today, then) = (zone.to_datetime(now).date(), zone.to_datetime(at));
    let time = format!("{:02}:{:02}", then.hour(), then.minute());
    if then.date() == today {
        return time;
    }
    let day = day(language, then.date(), today);
    if start_of(then.date(), zone) == at { day } else { format!("{day} {time}") }
}

/// When a note made at `now` starts to read otherwise, if that is before its end.
pub(super) fn note_changes_at(zone: &TimeZone, now: Timestamp, until: Timestamp) -> Option<Timestamp> {
    let last = zone.to_datetime(until).date();
    let without_year = last.checked_sub(1.year()).ok().map(|date| start_of(date, zone));
    without_year.into_iter().chain([start_of(last, zone)]).find(|at| now < *at && *at < until)
}

fn day(language: Language, date: Date, today: Date) -> String {
    let months = match language {
        Language::Sv => &MONTHS_SV,
        Language::En => &MONTHS_EN,
    };
    let month = usize::try_from(date.month() - 1).ok().and_then(|index| months.get(index)).unwrap_or(&"");
    let soon = date.checked_sub(1.year()).is_ok_and(|year_before| year_before <= today);
    if soon { format!("{} {month}", date.day()) } else { format!("{} {month} {}", date.day(), date.year()) }
}
