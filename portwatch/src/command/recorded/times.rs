//! From a time as it is written to a moment of a session. All in nanoseconds since the Unix epoch.

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

use crate::cli::When;

/// A time of day is the last one up to the end.
pub fn moment(when: &When, ended: u64, zone: &TimeZone) -> u64 {
    match when {
        When::Exact(ns) => *ns,
        When::Local(local) => local
            .to_zoned(zone.clone())
            .map_or(0, |x| ns(x.timestamp())),
        When::Before(before) => {
            ended.saturating_sub(u64::try_from(before.as_nanos()).unwrap_or(u64::MAX))
        }
        When::TimeOfDay(time) => {
            let today = day(ended, zone);
            match on(today, *time, zone) {
                ts if ts <= ended => ts,
                _ => today.yesterday().map_or(0, |day| on(day, *time, zone)),
            }
        }
    }
}

/// The first such time of day at this moment or later.
pub fn first_after(time: Time, start: u64, zone: &TimeZone) -> u64 {
    let today = day(start, zone);
    match on(today, time, zone) {
        ts if ts >= start => ts,
        _ => today.tomorrow().map_or(u64::MAX, |day| on(day, time, zone)),
    }
}

fn day(ns: u64, zone: &TimeZone) -> Date {
    let timestamp = Timestamp::from_nanosecond(i128::from(ns)).unwrap_or_default();
    zone.to_datetime(timestamp).date()
}

fn on(day: Date, time: Time, zone: &TimeZone) -> u64 {
    let zoned = day.to_datetime(time).to_zoned(zone.clone());
    zoned.map_or(0, |x| ns(x.timestamp()))
}

fn ns(timestamp: Timestamp) -> u64 {
    u64::try_from(timestamp.as_nanosecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2023-11-14 22:13:20 in UTC.
    const ENDED: u64 = 1_700_000_000_000_000_000;
    const HOUR: u64 = 3_600_000_000_000;

    fn when(text: &str) -> When {
        text.parse().unwrap()
    }

    #[test]
    fn a_time_of_day_is_the_last_one_before_the_end() {
        let utc = TimeZone::UTC;
        for (text, before_end) in [
            ("22:13:20", 0),
            ("21:13:20", HOUR),
            ("23:13:20", 23 * HOUR),
            ("2023-11-14 20:13:20", 2 * HOUR),
            ("2023-11-14T21:13:20+01:00", 2 * HOUR),
            ("-2h", 2 * HOUR),
        ] {
            let ts = moment(&when(text), ENDED, &utc);
            assert_eq!(ENDED - ts, before_end, "{text}");
        }
        let east = TimeZone::fixed(jiff::tz::offset(5));
        assert_eq!(moment(&when("03:13:20"), ENDED, &east), ENDED);
        assert_eq!(
            moment(&when("2023-11-15 02:13:20"), ENDED, &east),
            ENDED - HOUR
        );
    }

    #[test]
    fn a_time_of_day_as_an_end_follows_the_beginning() {
        let time = |text: &str| text.parse().unwrap();
        let after = |text: &str| first_after(time(text), ENDED, &TimeZone::UTC) - ENDED;
        assert_eq!(after("22:13:20"), 0);
        assert_eq!(after("23:13:20"), HOUR);
        assert_eq!(after("21:13:20"), 23 * HOUR);
    }
}
