//! When something that runs out is worth an alarm: 30, 14, 7 days and one before.

use hashpact_core::id::UnixMillis;
use hashpact_core::limits::DAY_MS;

/// Days before the end, most urgent last.
const DAYS: [u64; 4] = [30, 14, 7, 1];

/// How near an end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Stage {
    /// More than 30 days.
    #[default]
    Far,
    /// At most 30 days.
    Month,
    /// At most 14 days.
    Fortnight,
    /// At most 7 days.
    Week,
    /// At most one day.
    Day,
    /// It has run out.
    Over,
}

impl Stage {
    /// Reads the clock against an end.
    #[must_use]
    pub fn of(end: UnixMillis, now: UnixMillis) -> Self {
        if end <= now {
            return Self::Over;
        }
        let left_ms = end.since(now);
        let passed = DAYS.iter().filter(|days| left_ms <= **days * DAY_MS);
        match passed.count() {
            0 => Self::Far,
            1 => Self::Month,
            2 => Self::Fortnight,
            3 => Self::Week,
            _ => Self::Day,
        }
    }

    /// For metrics: 0 far, then one more for each threshold that is passed; 5 is
    /// over.
    #[must_use]
    pub const fn level(self) -> u8 {
        match self {
            Self::Far => 0,
            Self::Month => 1,
            Self::Fortnight => 2,
            Self::Week => 3,
            Self::Day => 4,
            Self::Over => 5,
        }
    }
}

/// What is said of it: nothing while the end is far.
#[must_use]
pub fn notice(what: &str, end: UnixMillis, now: UnixMillis) -> Option<String> {
    let days = end.since(now) / DAY_MS;
    match Stage::of(end, now) {
        Stage::Far => None,
        Stage::Over => Some(format!("{what} has expired")),
        Stage::Day => Some(format!("ALARM: {what} expires within a day")),
        Stage::Week => Some(format!("ALARM: {what} expires in {days} days")),
        Stage::Month | Stage::Fortnight => Some(format!("{what} expires in {days} days")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_begins_at_each_of_30_14_7_and_1_days() {
        let now = UnixMillis(1_790_000_000_000);
        let level = |days: u64, more: u64| Stage::of(now.plus(days * DAY_MS + more), now).level();
        for (step, days) in (1..).zip(DAYS) {
            assert_eq!(level(days, 1), step - 1, "{days} days and a moment");
            assert_eq!(level(days, 0), step, "{days} days");
        }
        assert_eq!(Stage::of(now, now), Stage::Over);
        assert_eq!(notice("it", now.plus(31 * DAY_MS), now), None);
        let week = notice("it", now.plus(6 * DAY_MS), now).unwrap();
        assert!(week.starts_with("ALARM: it expires in 6 days"), "{week}");
    }
}
