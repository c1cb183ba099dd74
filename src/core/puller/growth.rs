//! How fast a feed may grow: a leaky bucket of publish leaves, with two marks.
//!
//! PROTOCOL 18.1: up to the limit a leaf is taken; above it, up to the hard cap, it is
//! stored and quarantined; at the cap nothing more is stored until the bucket has
//! leaked. The first pull of a feed does not count; leaves of it that come later, in
//! place of records, neither. All others do, however they come. The level is part of what the
//! store holds of a feed, so that neither a restart nor a new connection empties it.

use crate::id::UnixMillis;
use crate::reject::Rejection;

const HOUR_MS: u64 = 60 * 60 * 1_000;
/// The shortest rest of a feed at its cap, so that it does not trickle on.
const REST_MIN_MS: u64 = 60 * 1_000;

/// How many publish leaves a feed may grow by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrowthLimit {
    /// In an hour; more are quarantined.
    pub per_hour: u64,
    /// The level at which nothing more is stored.
    pub cap: u64,
}

/// The level of a feed's bucket at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Growth {
    /// Publish leaves that have not leaked yet.
    pub level: u64,
    /// When it was last computed.
    pub at: UnixMillis,
    /// The size of the first head that took effect: what is below it was the first
    /// pull. 0 while there is none, and nothing counts.
    pub from: u64,
}

impl GrowthLimit {
    /// The code and facts of a refusal at the cap.
    #[must_use]
    pub const fn refusal(self) -> Rejection {
        Rejection::GrowthCap {
            per_hour: self.per_hour,
            cap: self.cap,
        }
    }
}

impl Growth {
    /// Whether a leaf counts that is put where its record was held.
    #[must_use]
    pub const fn counts(&self, index: u64) -> bool {
        self.from > 0 && index >= self.from
    }

    /// Adds publish leaves and returns how many of them are over the limit.
    pub(super) fn add(&mut self, now: UnixMillis, publishes: u64, limit: GrowthLimit) -> u64 {
        self.leak(now, limit.per_hour);
        self.add_now(publishes, limit)
    }

    /// The same as of the time that the level is of.
    #[must_use]
    pub fn add_now(&mut self, publishes: u64, limit: GrowthLimit) -> u64 {
        self.level = self.level.saturating_add(publishes);
        self.level.saturating_sub(limit.per_hour).min(publishes)
    }

    /// Whether nothing more may be stored. What came last may have gone over the
    /// cap by one chunk: a chunk larger than the cap would else never be taken.
    pub(super) fn is_capped(&mut self, now: UnixMillis, limit: GrowthLimit) -> bool {
        self.leak(now, limit.per_hour);
        self.level > limit.cap
    }

    /// Milliseconds to rest until the level is down to the cap; 0 below it.
    pub(super) fn rest_ms(&self, limit: GrowthLimit) -> u64 {
        let over = self.level.saturating_sub(limit.cap);
        if over == 0 {
            return 0;
        }
        over.saturating_mul(HOUR_MS)
            .checked_div(limit.per_hour.max(1))
            .unwrap_or(HOUR_MS)
            .max(REST_MIN_MS)
    }

    /// Gives back what was set aside for leaves that did not come.
    pub(super) const fn give_back(&mut self, publishes: u64) {
        self.level = self.level.saturating_sub(publishes);
    }

    pub(super) fn leak(&mut self, now: UnixMillis, per_hour: u64) {
        // A clock that was ahead must not stop the leak until it is caught up with.
        self.at = self.at.min(now);
        let leaked = now
            .since(self.at)
            .saturating_mul(per_hour)
            .checked_div(HOUR_MS)
            .unwrap_or(0);
        if leaked > 0 {
            self.level = self.level.saturating_sub(leaked);
            // Parts of a leaf are not lost, however often this is asked.
            let took_ms = leaked.saturating_mul(HOUR_MS).div_ceil(per_hour.max(1));
            self.at = self.at.plus(took_ms).min(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: GrowthLimit = GrowthLimit {
        per_hour: 1_000,
        cap: 4_000,
    };
    const START: UnixMillis = UnixMillis(1_000_000_000);

    #[test]
    fn what_is_over_the_limit_is_said_from_the_first_leaf_on() {
        let mut growth = Growth::default();
        assert_eq!(growth.add(START, 900, LIMIT), 0);
        assert_eq!(growth.add(START, 300, LIMIT), 200);
        assert_eq!(growth.add(START, 300, LIMIT), 300);
    }

    #[test]
    fn the_bucket_leaks_the_limit_in_an_hour_however_often_it_is_asked() {
        let mut growth = Growth::default();
        growth.add(START, 3_000, LIMIT);
        for ms in 1..=HOUR_MS / 1_000 {
            growth.add(START.plus(ms * 1_000), 0, LIMIT);
        }
        assert_eq!(growth.level, 2_000);
    }

    #[test]
    fn at_the_cap_nothing_more_is_taken_until_it_has_leaked() {
        let mut growth = Growth::default();
        assert!(!growth.is_capped(START, LIMIT));
        growth.add(START, 4_500, LIMIT);
        assert!(growth.is_capped(START, LIMIT));
        let rest = growth.rest_ms(LIMIT);
        assert_eq!(rest, HOUR_MS / 2);
        assert!(!growth.is_capped(START.plus(rest), LIMIT));
    }

    #[test]
    fn a_clock_that_was_ahead_does_not_stop_the_leak() {
        let mut growth = Growth {
            level: 2_000,
            at: START.plus(50 * HOUR_MS),
            from: 1,
        };
        assert_eq!(growth.add(START, 1, LIMIT), 1);
        assert_eq!(growth.add(START.plus(2 * HOUR_MS), 1, LIMIT), 0);
    }
}
