//! Times as files write them: RFC 3339, a date, or seconds or milliseconds of Unix.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

/// Unix times from here on are milliseconds; in seconds it is the year 5138.
const MILLISECONDS_FROM: u64 = 100_000_000_000;

/// Reads a time as milliseconds since 1970; one without an offset is UTC. `None`
/// for anything else and for times before 1970.
pub(crate) fn parse(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() > 8 {
        let number: u64 = text.parse().ok()?;
        return if number >= MILLISECONDS_FROM {
            format(number).map(|_| number)
        } else {
            number.checked_mul(1_000)
        };
    }
    let time = if let Ok(time) = text.parse::<Timestamp>() {
        time
    } else if text.len() > 10 {
        utc(text.parse().ok()?)?
    } else {
        utc(text.parse::<Date>().ok()?.at(0, 0, 0, 0))?
    };
    u64::try_from(time.as_millisecond()).ok()
}

/// Writes a time as RFC 3339 in UTC; `None` where it is beyond the year 9999.
pub(crate) fn format(milliseconds: u64) -> Option<String> {
    let time = Timestamp::from_millisecond(i64::try_from(milliseconds).ok()?).ok()?;
    Some(time.to_string())
}

fn utc(time: DateTime) -> Option<Timestamp> {
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_767_607_201_000;

    #[test]
    fn every_form_of_a_time_is_read() {
        for text in [
            "2026-01-05T10:00:01Z",
            "2026-01-05T10:00:01.000Z",
            "2026-01-05 10:00:01",
            "2026-01-05T12:00:01+02:00",
            "1767607201",
            "1767607201000",
        ] {
            assert_eq!(parse(text), Some(T), "{text}");
        }
        assert_eq!(parse("2026-01-05"), Some(T - 36_001_000));
    }

    #[test]
    fn what_is_no_time_since_1970_is_refused() {
        for text in [
            "",
            "x",
            "1969-12-31T23:59:59Z",
            "2026-13-01",
            "99999999999999999999",
            "2026",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for milliseconds in [1, 999, T, T + 123] {
            let text = format(milliseconds).unwrap();
            assert_eq!(parse(&text), Some(milliseconds), "{text}");
        }
        assert_eq!(format(u64::MAX), None);
    }
}
