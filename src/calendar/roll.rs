//! When a mailbox's window is rolled: once a night, by a round from its new start.
//!
//! A window is frozen in its link, so that time alone brings nothing new into it. Rolling reads everything,
//! which costs the most of all reads; it is spread over the hours in which people sleep and servers rest.

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

/// The first hour of the night: the date has changed everywhere in the company by then.
const FIRST_HOUR: i8 = 1;

/// How long the night is.
const NIGHT_SECS: i32 = 4 * 3600;

/// The first moment after `after` at which this mailbox's window is rolled. `zone` is the company's, `share` in
/// `[0, 1)` is the mailbox's own place in the night.
pub fn next_roll(after: Timestamp, zone: &TimeZone, share: f64) -> Timestamp {
    let into_the_night = SignedDuration::from_secs((f64::from(NIGHT_SECS) * share) as i64);
    let on = |date: Date| {
        let clock = date.at(FIRST_HOUR, 0, 0, 0).checked_add(into_the_night).ok()?;
        zone.to_ambiguous_timestamp(clock).compatible().ok()
    };
    let today = after.to_zoned(zone.clone()).date();
    let nights = [Some(today), today.tomorrow().ok()];
    let moment = nights.into_iter().flatten().filter_map(on).find(|moment| *moment > after);
    moment.unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stockholm() -> TimeZone {
        TimeZone::get("Europe/Stockholm").unwrap()
    }

    #[test]
    fn each_mailbox_has_its_own_moment_of_the_night() {
        for (after, share, moment) in [
            ("2026-11-23T07:00:00Z", 0.0, "2026-11-24T00:00:00Z"),
            ("2026-11-23T07:00:00Z", 0.5, "2026-11-24T02:00:00Z"),
            ("2026-11-24T01:00:00Z", 0.5, "2026-11-24T02:00:00Z"),
            // At the moment itself it has been done.
            ("2026-11-24T02:00:00Z", 0.5, "2026-11-25T02:00:00Z"),
            // 02:30 does not exist on that night.
            ("2027-03-27T12:00:00Z", 0.375, "2027-03-28T01:30:00Z"),
            // It exists twice.
            ("2026-10-24T12:00:00Z", 0.375, "2026-10-25T00:30:00Z"),
        ] {
            let after = after.parse().unwrap();
            assert_eq!(next_roll(after, &stockholm(), share), moment.parse().unwrap(), "{after} {share}");
        }
    }

    proptest! {
        #[test]
        fn no_window_waits_for_much_longer_than_a_day(
            secs in 1_700_000_000_i64..2_000_000_000, share in 0.0..1.0_f64
        ) {
            let after = Timestamp::from_second(secs).unwrap();
            let waits = next_roll(after, &stockholm(), share).duration_since(after);
            prop_assert!(waits.is_positive() && waits <= SignedDuration::from_hours(25), "{waits}");
        }
    }
}
