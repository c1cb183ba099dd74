//! How long to wait before a peer is dialled again.

use std::time::Duration;

use hashpact_core::puller::Waits;

/// A session that lasted so long was a good one: the next wait is a first one.
const GOOD_SESSION: Duration = Duration::from_secs(10);

/// How long to wait after a session that began then: after a good one as after a
/// first failure.
pub(super) fn pause(waits: Waits, failures: &mut u32, began: tokio::time::Instant) -> Duration {
    *failures = if began.elapsed() >= GOOD_SESSION {
        0
    } else {
        failures.saturating_add(1)
    };
    wait(waits, *failures)
}

/// Exponential, with full jitter.
pub(super) fn wait(waits: Waits, failures: u32) -> Duration {
    Duration::from_millis(waits.span_ms(failures)).mul_f64(rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_are_drawn_from_the_whole_span() {
        let waits = Waits {
            first_ms: 1_000,
            longest_ms: 60_000,
        };
        let longest = |failures| {
            let draws = (0..200).map(|_| wait(waits, failures).as_millis());
            draws.max().unwrap()
        };
        assert!(longest(0) <= 1_000 && longest(1) <= 1_000);
        assert!(longest(3) > 2_000 && longest(3) <= 4_000);
        assert!(longest(40) > 30_000 && longest(40) <= 60_000);
        let shortest = (0..200).map(|_| wait(waits, 9).as_millis()).min();
        assert!(shortest.unwrap() < 6_000);
    }
}
