//! The zone in which a mailbox's days begin.
//!
//! Calendar servers spell zones as Windows names ("W. Europe Standard Time") or IANA names. A name is
//! resolved or it is an error, never guessed; the mailbox then falls back to its company's zone, and that
//! to Europe/Stockholm, and what was wrong is kept to be shown.

use icu_time::zone::{WindowsParser, iana::IanaParserExtended};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// Zone of last resort.
pub const LAST_RESORT: &str = "Europe/Stockholm";

/// Windows names that are no longer in the Unicode tables and still stand in old mailboxes.
const OLD_NAMES: [(&str, &str); 4] = [
    ("Kamchatka Standard Time", "Asia/Kamchatka"),
    ("Mid-Atlantic Standard Time", "Atlantic/South_Georgia"),
    ("Mexico Standard Time", "America/Mexico_City"),
    ("Mexico Standard Time 2", "America/Chihuahua"),
];

/// A zone name that means nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the time zone `{}` is neither a Windows nor an IANA name", spelled.escape_debug())]
pub struct ZoneError {
    /// As it was spelled.
    pub spelled: String,
}

/// Where a mailbox's zone came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZoneSource {
    /// The mailbox's own setting.
    Mailbox,
    /// The company's setting, as the mailbox's cannot be had or understood.
    Company,
    /// Neither can be had or understood.
    LastResort,
}

/// A mailbox's zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// The mailbox's zone as the calendar server spells it, where it said one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spelled: Option<String>,
    /// IANA name that is used.
    pub name: String,
    /// Whose setting that is.
    pub source: ZoneSource,
}

impl Default for Zone {
    fn default() -> Self {
        Self { spelled: None, name: LAST_RESORT.to_owned(), source: ZoneSource::LastResort }
    }
}

impl Zone {
    /// The mailbox's zone, else the company's, else Europe/Stockholm.
    pub fn choose(spelled: Option<&str>, company: &str) -> Self {
        let own = spelled.and_then(|name| resolve(name).ok()).map(|name| (name, ZoneSource::Mailbox));
        let (name, source) = own
            .or_else(|| resolve(company).ok().map(|name| (name, ZoneSource::Company)))
            .unwrap_or_else(|| (LAST_RESORT.to_owned(), ZoneSource::LastResort));
        Self { spelled: spelled.map(str::to_owned), name, source }
    }

    /// What is wrong with the mailbox's own zone, if it said one and it cannot be used.
    pub fn problem(&self) -> Option<ZoneError> {
        let spelled = self.spelled.as_ref().filter(|_| self.source != ZoneSource::Mailbox)?;
        Some(ZoneError { spelled: spelled.clone() })
    }

    /// The zone's rules; those of UTC if a stored name has since left the time zone database.
    pub fn rules(&self) -> TimeZone {
        TimeZone::get(&self.name).unwrap_or(TimeZone::UTC)
    }
}

/// The IANA name of a zone given by its Windows or IANA name.
///
/// # Errors
/// [`ZoneError`] for a name that neither table knows, as `tzone://Microsoft/Custom`.
pub fn resolve(spelled: &str) -> Result<String, ZoneError> {
    let name = spelled.trim();
    from_old(name)
        .or_else(|| from_windows(name))
        .or_else(|| from_iana(name))
        .filter(|name| TimeZone::get(name).is_ok())
        .ok_or_else(|| ZoneError { spelled: spelled.chars().take(120).collect() })
}

fn from_old(name: &str) -> Option<String> {
    OLD_NAMES.iter().find(|(old, _)| *old == name).map(|(_, iana)| (*iana).to_owned())
}

/// By the Unicode tables, as seen from Sweden: "W. Europe Standard Time" is Europe/Stockholm here.
fn from_windows(name: &str) -> Option<String> {
    let parser = WindowsParser::new();
    let zone = parser.parse(name, "SE".parse().ok()).or_else(|| parser.parse(name, None))?;
    IanaParserExtended::new()
        .iter()
        .find(|known| known.time_zone == zone)
        .map(|known| known.canonical.to_owned())
}

fn from_iana(name: &str) -> Option<String> {
    TimeZone::get(name).ok().and_then(|zone| zone.iana_name().map(str::to_owned))
}

/// The first instant of `date` in `zone`: where midnight is skipped, the moment of the skip; where it
/// comes twice, its first coming.
pub fn start_of(date: Date, zone: &TimeZone) -> Timestamp {
    let midnight = zone.to_ambiguous_timestamp(date.at(0, 0, 0, 0));
    let skipped = matches!(midnight.offset(), jiff::tz::AmbiguousOffset::Gap { .. });
    let Ok(earlier) = midnight.earlier() else {
        return if date.year() < 0 { Timestamp::MIN } else { Timestamp::MAX };
    };
    if skipped {
        zone.following(earlier).next().map_or(earlier, |transition| transition.timestamp())
    } else {
        earlier
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn windows_and_iana_names_are_understood() {
        for (spelled, name) in [
            ("W. Europe Standard Time", "Europe/Stockholm"),
            ("Europe/Stockholm", "Europe/Stockholm"),
            ("europe/stockholm", "Europe/Stockholm"),
            (" Europe/Oslo ", "Europe/Oslo"),
            ("FLE Standard Time", "Europe/Kiev"),
            ("Eastern Standard Time", "America/New_York"),
            ("India Standard Time", "Asia/Kolkata"),
            ("UTC", "Etc/UTC"),
            ("Kamchatka Standard Time", "Asia/Kamchatka"),
        ] {
            let zone = resolve(spelled).unwrap();
            let same = TimeZone::get(&zone).unwrap() == TimeZone::get(name).unwrap();
            assert!(zone == name || same, "{spelled} became {zone}");
        }
    }

    #[test]
    fn a_name_that_means_nothing_is_an_error_and_falls_back() {
        for spelled in
            ["tzone://Microsoft/Custom", "", "Customized Time Zone", "../etc/passwd", "Mars/Phobos"]
        {
            assert!(resolve(spelled).is_err(), "{spelled}");
            let zone = Zone::choose(Some(spelled), "Europe/Oslo");
            assert_eq!((zone.name.as_str(), zone.source), ("Europe/Oslo", ZoneSource::Company), "{spelled}");
            assert_eq!(zone.problem().unwrap().spelled, spelled);
        }
        let zone = Zone::choose(None, "nowhere");
        assert_eq!((zone.name.as_str(), zone.source), (LAST_RESORT, ZoneSource::LastResort));
        assert_eq!(zone.problem(), None);
    }

    #[test]
    fn a_day_starts_at_its_first_instant_even_where_midnight_is_skipped_or_doubled() {
        for (zone, day, start) in [
            ("Europe/Stockholm", date(2026, 3, 29), "2026-03-28T23:00:00Z"),
            ("Europe/Stockholm", date(2026, 10, 26), "2026-10-25T23:00:00Z"),
            // Midnight is skipped: 23:59:59 is followed by 01:00:00.
            ("America/Sao_Paulo", date(2018, 11, 4), "2018-11-04T03:00:00Z"),
            ("Africa/Cairo", date(2024, 4, 26), "2024-04-25T22:00:00Z"),
            // The skipped hour lies across midnight: 23:30 is followed by 00:30.
            ("America/Toronto", date(1919, 3, 31), "1919-03-31T04:30:00Z"),
            // Midnight comes twice: 01:00 is followed by 00:00.
            ("America/Havana", date(2024, 11, 3), "2024-11-03T04:00:00Z"),
            // A whole day that never was.
            ("Pacific/Apia", date(2011, 12, 30), "2011-12-30T10:00:00Z"),
            ("Australia/Lord_Howe", date(2026, 4, 5), "2026-04-04T13:00:00Z"),
        ] {
            let start_of_day = start_of(day, &TimeZone::get(zone).unwrap());
            assert_eq!(start_of_day, start.parse().unwrap(), "{zone} {day}");
        }
    }
}
