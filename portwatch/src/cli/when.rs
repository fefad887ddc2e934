//! A time as it is written.

use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{DateTime, Time};

use super::trace::parse_duration;

/// Which moment it is depends on the session and the time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Nanoseconds since the Unix epoch.
    Exact(u64),
    /// Date and time where the user is.
    Local(DateTime),
    /// Of a day to be found.
    TimeOfDay(Time),
    /// Before the end.
    Before(Duration),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is not a time: write 03:12, 03:12:07, '2026-11-23 03:12', \
                 2026-11-23T03:12:07Z, -10m for ten minutes before the end, or @SECONDS since 1970"
            )
        };
        if let Some(seconds) = text.strip_prefix('@') {
            return epoch(seconds).map(Self::Exact).ok_or_else(wrong);
        }
        if let Some(before) = text.strip_prefix('-') {
            return match parse_duration(before) {
                Ok(before) => Ok(Self::Before(before)),
                Err(_) => Err(wrong()),
            };
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            let ns = u64::try_from(time.as_nanosecond());
            return ns.map(Self::Exact).map_err(|_| wrong());
        }
        (text.parse().map(Self::Local))
            .or_else(|_| text.parse().map(Self::TimeOfDay))
            .map_err(|_| wrong())
    }
}

/// Seconds since the Unix epoch, with up to nine decimals, as nanoseconds.
fn epoch(text: &str) -> Option<u64> {
    let (seconds, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if decimals.len() > 9 || !digits(seconds) || !digits(decimals) {
        return None;
    }
    let seconds: u64 = seconds.parse().ok()?;
    let ns: u64 = format!("{decimals:0<9}").parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(ns)
}

#[cfg(test)]
mod tests {
    use jiff::civil::{date, time};

    use super::*;

    #[test]
    fn times_are_read_as_people_and_programs_write_them() {
        let exact = |ns| Some(When::Exact(ns));
        let minutes = |minutes: u64| Some(When::Before(Duration::from_secs(60 * minutes)));
        let day = date(2023, 11, 14);
        for (text, expected) in [
            ("2023-11-14T22:13:20Z", exact(1_700_000_000_000_000_000)),
            (
                "2023-11-14T23:13:20.000000123+01:00",
                exact(1_700_000_000_000_000_123),
            ),
            ("2023-11-14 22:13:20Z", exact(1_700_000_000_000_000_000)),
            ("2023-11-14 22:13", Some(When::Local(day.at(22, 13, 0, 0)))),
            (
                "2023-11-14T22:13:20.5",
                Some(When::Local(day.at(22, 13, 20, 500_000_000))),
            ),
            ("2023-11-14", Some(When::Local(day.at(0, 0, 0, 0)))),
            ("03:12", Some(When::TimeOfDay(time(3, 12, 0, 0)))),
            ("03:12:07", Some(When::TimeOfDay(time(3, 12, 7, 0)))),
            ("-10m", minutes(10)),
            ("-600", minutes(10)),
            ("@1700000000", exact(1_700_000_000_000_000_000)),
            ("@1700000000.000000123", exact(1_700_000_000_000_000_123)),
            ("@0.5", exact(500_000_000)),
            ("@", None),
            ("@-1", None),
            ("@99999999999999", None),
            ("@1.0000000001", None),
            ("1969-12-31T23:59:59Z", None),
            ("25:00", None),
            ("10m", None),
            ("-soon", None),
            ("noon", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
