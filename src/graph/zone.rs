//! Time zone names as Graph writes them: `UTC`, IANA names, and Windows names.

use icu_time::zone::{TimeZone as ZoneId, WindowsParser, iana::IanaParserExtended};
use jiff::tz::TimeZone;

/// The zone of this name; `None` where nobody can say, as with `tzone://Microsoft/Custom`.
///
/// A Windows name without a country means its first city: "W. Europe Standard Time" is Berlin's, whose clocks go
/// as Stockholm's do.
pub(super) fn named(name: &str) -> Option<TimeZone> {
    let name = name.trim();
    if name.eq_ignore_ascii_case("UTC") {
        return Some(TimeZone::UTC);
    }
    from_windows(name).or_else(|| TimeZone::get(name).ok())
}

fn from_windows(name: &str) -> Option<TimeZone> {
    let zone = WindowsParser::new().parse(name, None)?;
    TimeZone::get(iana_name(zone)?).ok()
}

fn iana_name(zone: ZoneId) -> Option<&'static str> {
    IanaParserExtended::new().iter().find(|known| known.time_zone == zone).map(|known| known.canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_iana_and_windows_names_are_known_and_custom_ones_are_not() {
        let name = |given: &str| named(given).and_then(|zone| zone.iana_name().map(str::to_owned));
        assert_eq!(name("UTC").as_deref(), Some("UTC"));
        assert_eq!(name("Europe/Stockholm").as_deref(), Some("Europe/Stockholm"));
        assert_eq!(name("W. Europe Standard Time").as_deref(), Some("Europe/Berlin"));
        assert_eq!(name("Pacific Standard Time").as_deref(), Some("America/Los_Angeles"));
        for unknown in ["", "tzone://Microsoft/Custom", "Customized Time Zone", "Nowhere Standard Time"] {
            assert_eq!(name(unknown), None, "{unknown}");
        }
    }
}
