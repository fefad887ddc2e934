//! Times as text. Seconds repeat from event to event, so their text is kept.

use jiff::Timestamp;
use jiff::tz::TimeZone;

const SECOND: u64 = 1_000_000_000;

/// The time zone of this machine, or the one that the user set.
pub fn local() -> TimeZone {
    // To learn its name as well, all zones that there are would be looked through.
    if std::env::var_os("TZ").is_none()
        && let Ok(rules) = std::fs::read("/etc/localtime")
        && let Ok(zone) = TimeZone::tzif("local", &rules)
    {
        return zone;
    }
    TimeZone::system()
}

/// RFC 3339 in UTC with nanoseconds: `2026-11-23T03:12:07.000000123Z`.
#[derive(Debug, Default)]
pub struct Utc {
    second: u64,
    /// `2026-11-23T03:12:07.`; empty before the first use.
    text: String,
}

impl Utc {
    /// Appends nanoseconds since the Unix epoch.
    pub fn push(&mut self, out: &mut Vec<u8>, ns: u64) {
        let second = ns / SECOND;
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = zoned(second, &TimeZone::UTC)
                .strftime("%Y-%m-%dT%H:%M:%S.")
                .to_string();
        }
        out.extend_from_slice(self.text.as_bytes());
        // The leading 1 keeps the zeros.
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(&digits.format(SECOND + ns % SECOND).as_bytes()[1..]);
        out.push(b'Z');
    }

    pub fn text(ns: u64) -> String {
        let mut out = Vec::new();
        Self::default().push(&mut out, ns);
        // Nothing but ASCII was pushed.
        String::from_utf8(out).unwrap_or_default()
    }
}

/// Time of day where the user is, with milliseconds: `03:12:07.123`.
#[derive(Debug)]
pub struct Local {
    zone: TimeZone,
    second: u64,
    /// `03:12:07.`; empty before the first use.
    text: String,
}

impl Local {
    pub fn new(zone: TimeZone) -> Self {
        Self {
            zone,
            second: 0,
            text: String::new(),
        }
    }

    /// Appends nanoseconds since the Unix epoch.
    pub fn push(&mut self, out: &mut String, ns: u64) {
        let second = ns / SECOND;
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = zoned(second, &self.zone).strftime("%H:%M:%S.").to_string();
        }
        out.push_str(&self.text);
        let mut digits = itoa::Buffer::new();
        out.push_str(&digits.format(1000 + ns % SECOND / 1_000_000)[1..]);
    }
}

/// The time of day when it is of today, else the day, or only the year, as in ps(1): `03:12`,
/// `Nov22`, `2025`. All in nanoseconds since the Unix epoch.
pub fn brief(ns: u64, now: u64, zone: &TimeZone) -> String {
    let (then, now) = (zoned(ns / SECOND, zone), zoned(now / SECOND, zone));
    let format = if then.date() == now.date() {
        "%H:%M"
    } else if then.year() == now.year() {
        "%b%d"
    } else {
        "%Y"
    };
    then.strftime(format).to_string()
}

/// The same in full: `03:12:07` of today, else `2026-11-22 03:12:07`.
pub fn full(ns: u64, now: u64, zone: &TimeZone) -> String {
    let (then, now) = (zoned(ns / SECOND, zone), zoned(now / SECOND, zone));
    let format = if then.date() == now.date() {
        "%H:%M:%S"
    } else {
        "%Y-%m-%d %H:%M:%S"
    };
    then.strftime(format).to_string()
}

/// Date and time where the user is: `2026-11-23 03:12:07`.
pub fn dated(ns: u64, zone: &TimeZone) -> String {
    let then = zoned(ns / SECOND, zone);
    then.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The same in milliseconds and with the zone, as `--at` takes it: `2026-11-23 03:12:07.123+01:00`.
pub fn exact(ns: u64, zone: &TimeZone) -> String {
    let then = zoned(ns / SECOND, zone);
    let ms = ns % SECOND / 1_000_000;
    let day = then.strftime("%Y-%m-%d %H:%M:%S");
    format!("{day}.{ms:03}{}", then.strftime("%:z"))
}

/// 2^64 ns are 584 years, well inside what a timestamp can hold; the epoch stands in otherwise.
fn zoned(second: u64, zone: &TimeZone) -> jiff::Zoned {
    let second = i64::try_from(second).unwrap_or_default();
    Timestamp::from_second(second)
        .unwrap_or_default()
        .to_zoned(zone.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_padded_and_follow_the_clock() {
        let mut utc = Utc::default();
        for (ns, expected) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (1_700_000_000_000_000_123, "2023-11-14T22:13:20.000000123Z"),
            (1_700_000_000_999_999_999, "2023-11-14T22:13:20.999999999Z"),
            (1_700_000_001_000_000_000, "2023-11-14T22:13:21.000000000Z"),
            // it may go back: events of several CPUs
            (1_700_000_000_500_000_000, "2023-11-14T22:13:20.500000000Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
        ] {
            let mut out = Vec::new();
            utc.push(&mut out, ns);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn the_zone_without_a_name_has_the_same_times() {
        for month in 0..12 {
            let at = zoned(1_700_000_000 + month * 30 * 86_400, &TimeZone::UTC).timestamp();
            let system = TimeZone::system();
            assert_eq!(local().to_offset(at), system.to_offset(at), "{at}");
        }
    }

    #[test]
    fn a_time_says_no_more_than_it_takes_to_tell_it_from_now() {
        // 2023-11-14 22:13:20
        let now = 1_700_000_000 * SECOND;
        for (seconds_ago, short, long) in [
            (0, "22:13", "22:13:20"),
            (80_000, "00:00", "00:00:00"),
            (80_001, "Nov13", "2023-11-13 23:59:59"),
            (400 * 86_400, "2022", "2022-10-10 22:13:20"),
        ] {
            let then = now - seconds_ago * SECOND;
            assert_eq!(brief(then, now, &TimeZone::UTC), short);
            assert_eq!(full(then, now, &TimeZone::UTC), long);
        }
    }

    #[test]
    fn an_exact_time_can_be_asked_for() {
        let zone = TimeZone::fixed(jiff::tz::offset(-5));
        let text = exact(1_700_000_000_123_999_999, &zone);
        assert_eq!(text, "2023-11-14 17:13:20.123-05:00");
        let read: crate::cli::When = text.parse().unwrap();
        assert_eq!(read, crate::cli::When::Exact(1_700_000_000_123_000_000));
    }

    #[test]
    fn local_time_is_that_of_the_zone() {
        let zone = TimeZone::fixed(jiff::tz::offset(5));
        let mut local = Local::new(zone);
        let mut out = String::new();
        local.push(&mut out, 1_700_000_000_007_999_999);
        assert_eq!(out, "03:13:20.007");
    }
}
