//! How often a member may call, over all its connections.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use hashpact_core::id::MemberNumber;

use crate::settings::Settings;

/// One bucket of calls for each member. As many buckets as the roster has members,
/// since only a key on a card gets here.
#[derive(Debug)]
pub(crate) struct CallLimiter {
    buckets: DefaultKeyedRateLimiter<MemberNumber>,
    clock: DefaultClock,
}

impl CallLimiter {
    pub(crate) fn new(settings: &Settings) -> Self {
        let rate = NonZeroU32::new(settings.calls_per_second).unwrap_or(NonZeroU32::MIN);
        let burst = NonZeroU32::new(settings.calls_burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(rate).allow_burst(burst);
        Self {
            buckets: RateLimiter::keyed(quota),
            clock: DefaultClock::default(),
        }
    }

    /// Takes one call out of the member's bucket, or says how long until it can.
    pub(crate) fn take(&self, member: MemberNumber) -> Result<(), Duration> {
        let now = self.clock.now();
        let taken = self.buckets.check_key(&member);
        taken.map_err(|not_until| not_until.wait_time_from(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_members_flood_leaves_the_others_alone() {
        let settings = Settings {
            calls_per_second: 1,
            calls_burst: 3,
            ..Settings::default()
        };
        let limiter = CallLimiter::new(&settings);
        let member = |number| MemberNumber::new(number).unwrap();
        let granted = (0..10).filter(|_| limiter.take(member(1)).is_ok()).count();
        assert_eq!(granted, 3);
        let wait = limiter.take(member(1)).unwrap_err();
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        assert!(limiter.take(member(2)).is_ok());
    }
}
