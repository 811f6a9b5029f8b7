//! Moments as people write and read them.

use jiff::{
    Timestamp, Zoned,
    civil::{DateTime, Time},
    tz::TimeZone,
};

/// `2026-11-23 15:00` in that zone; UTC, and said so, where the zone is not known.
pub(super) fn shown(at: Timestamp, zone: &str) -> String {
    match at.in_tz(zone) {
        Ok(zoned) => zoned.strftime("%Y-%m-%d %H:%M").to_string(),
        Err(_) => at.strftime("%Y-%m-%d %H:%MZ").to_string(),
    }
}

/// The same, or `-`.
pub(super) fn shown_or_dash(at: Option<Timestamp>, zone: &str) -> String {
    at.map_or_else(|| "-".to_owned(), |at| shown(at, zone))
}

/// A moment as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Moment {
    /// With an offset: `2026-11-23T15:00:00+01:00`.
    Exact(Timestamp),
    /// In the company's zone: `2026-11-23 15:00`.
    Local(DateTime),
    /// Today in the company's zone: `15:00`.
    Today(Time),
}

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let exact = text.parse().map(Self::Exact);
        let local = || text.parse().map(Self::Local);
        let today = || Time::strptime("%H:%M", text).map(Self::Today);
        exact.or_else(|_| today()).or_else(|_| local()).map_err(|_| {
            "write `15:00`, `2026-11-23 15:00` (both in the company's time zone) or `2026-11-23T15:00:00+01:00`".to_owned()
        })
    }
}

impl Moment {
    /// The instant meant; a time that the clocks skip is the moment they jump to.
    pub(super) fn instant(&self, now: Timestamp, zone: &str) -> Option<Timestamp> {
        let zone = || TimeZone::get(zone).ok();
        match self {
            Self::Exact(at) => Some(*at),
            Self::Local(at) => at.to_zoned(zone()?).ok().map(|at| at.timestamp()),
            Self::Today(time) => {
                let today = Zoned::new(now, zone()?).date();
                today.to_datetime(*time).to_zoned(zone()?).ok().map(|at| at.timestamp())
            }
        }
    }
}
