//! How long to leave a peer alone after a fault.
//!
//! Exponential with full jitter, so that many nodes that saw the same fault do
//! not come back together. A slip (a cut, a busy peer) is forgiven quickly, a lie
//! (bytes that do not verify) slowly. Randomness is injected by a seed.

use crate::id::UnixMillis;

/// What went wrong with a peer, by how long it is to be left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// The connection or stream was cut, or ended early.
    Cut,
    /// The peer said that it has too much to do.
    Busy,
    /// The peer answered that it serves no such feed or head.
    Refused,
    /// No progress for the time that a stream may go without.
    Silent,
    /// Bytes that do not verify, or break the protocol.
    Lie,
}

impl Fault {
    /// The least time to wait, which keeps retries from spinning.
    #[must_use]
    pub const fn floor_ms(self) -> u64 {
        match self {
            Self::Cut => 50,
            Self::Busy => 250,
            Self::Refused => 1_000,
            Self::Silent => 2_000,
            Self::Lie => 60_000,
        }
    }

    /// The span that jitter is drawn from at the first fault; it doubles.
    #[must_use]
    pub const fn base_ms(self) -> u64 {
        match self {
            Self::Cut => 250,
            Self::Busy => 1_000,
            Self::Refused | Self::Silent => 5_000,
            Self::Lie => 60_000,
        }
    }

    /// The longest span that jitter is drawn from.
    #[must_use]
    pub const fn cap_ms(self) -> u64 {
        match self {
            Self::Cut => 30_000,
            Self::Busy => 60_000,
            Self::Refused => 10 * 60_000,
            Self::Silent => 5 * 60_000,
            Self::Lie => 6 * 60 * 60_000,
        }
    }
}

/// How long an operator lets a node wait after faults that are no lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// The span of the first wait; it doubles. The spans of the faults keep their
    /// relation to one another.
    pub first_ms: u64,
    /// The longest span.
    pub longest_ms: u64,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            first_ms: FIRST_MS,
            longest_ms: 60_000,
        }
    }
}

/// What the spans of the faults stand for.
const FIRST_MS: u64 = 500;

impl Waits {
    /// The span at the `failures`-th failure in a row of a plain kind, from 1.
    #[must_use]
    pub fn span_ms(self, failures: u32) -> u64 {
        let doublings = failures.saturating_sub(1).min(32);
        self.first_ms
            .saturating_mul(1_u64 << doublings)
            .min(self.longest_ms)
    }

    /// The least time and the span of a fault at its `count`-th repetition, from 0.
    fn of(self, fault: Fault, count: u32) -> (u64, u64) {
        let doubled = |base: u64| base.saturating_mul(1_u64 << count.min(32));
        if fault == Fault::Lie {
            return (
                fault.floor_ms(),
                doubled(fault.base_ms()).min(fault.cap_ms()),
            );
        }
        let base = fault.base_ms().saturating_mul(self.first_ms);
        let base = base.checked_div(FIRST_MS).unwrap_or(base);
        let cap = fault.cap_ms().min(self.longest_ms);
        (
            fault.floor_ms().min(self.longest_ms),
            doubled(base).min(cap),
        )
    }
}

/// A seeded source of jitter (`SplitMix64`), with the spans that it is drawn over.
/// Not for secrets.
#[derive(Debug, Clone)]
pub struct Jitter {
    state: u64,
    waits: Waits,
}

impl Jitter {
    /// Begins at `seed`; the same seed gives the same sequence.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::over(Waits::default(), seed)
    }

    /// The same, over other spans.
    #[must_use]
    pub const fn over(waits: Waits, seed: u64) -> Self {
        Self { state: seed, waits }
    }

    /// The next value.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A value from 0 to `max`, both included.
    pub const fn up_to(&mut self, max: u64) -> u64 {
        match self.next_u64().checked_rem(max.saturating_add(1)) {
            Some(value) => value,
            None => 0,
        }
    }
}

/// The faults of one peer, or of one peer for one feed, and until when it is to
/// be left alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    slips: u32,
    lies: u32,
    slip_until: UnixMillis,
    lie_until: UnixMillis,
}

impl Backoff {
    /// Counts a fault and returns until when the peer is to be left alone.
    pub fn fail(&mut self, now: UnixMillis, fault: Fault, jitter: &mut Jitter) -> UnixMillis {
        let count = if fault == Fault::Lie {
            &mut self.lies
        } else {
            &mut self.slips
        };
        let (floor, span) = jitter.waits.of(fault, *count);
        *count = count.saturating_add(1);
        let delay = floor.saturating_add(jitter.up_to(span));
        let until = if fault == Fault::Lie {
            &mut self.lie_until
        } else {
            &mut self.slip_until
        };
        *until = (*until).max(now.plus(delay));
        self.until()
    }

    /// Forgives slips: the peer did what it was asked to. Lies are remembered, so
    /// that the next one is answered by a longer wait.
    pub const fn succeed(&mut self) {
        self.slips = 0;
    }

    /// Until when the peer is to be left alone.
    #[must_use]
    pub fn until(&self) -> UnixMillis {
        self.slip_until.max(self.lie_until)
    }

    /// Says whether the peer may be asked.
    #[must_use]
    pub fn ready(&self, now: UnixMillis) -> bool {
        self.until() <= now
    }

    /// Says whether the peer is left alone because it lied.
    #[must_use]
    pub fn set_aside(&self, now: UnixMillis) -> bool {
        self.lie_until > now
    }

    /// Lies counted.
    #[must_use]
    pub const fn lies(&self) -> u32 {
        self.lies
    }

    /// Says whether nothing is held against the peer any more, so that the record
    /// can be forgotten: every wait is over, and the last lie is a day old.
    #[must_use]
    pub fn forgettable(&self, now: UnixMillis) -> bool {
        self.ready(now) && (self.lies == 0 || now.since(self.lie_until) > crate::limits::DAY_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn mean_delay(fault: Fault, failures: u32) -> u64 {
        let mut jitter = Jitter::new(7);
        let mut total = 0;
        for _ in 0..200 {
            let mut backoff = Backoff::default();
            for _ in 1..failures {
                backoff.fail(UnixMillis(0), fault, &mut jitter);
            }
            backoff.slip_until = UnixMillis(0);
            backoff.lie_until = UnixMillis(0);
            total += backoff.fail(NOW, fault, &mut jitter).since(NOW);
        }
        total / 200
    }

    #[test]
    fn waits_grow_with_every_fault_up_to_a_cap() {
        for fault in [
            Fault::Cut,
            Fault::Busy,
            Fault::Refused,
            Fault::Silent,
            Fault::Lie,
        ] {
            assert!(mean_delay(fault, 1) < mean_delay(fault, 4), "{fault:?}");
            assert!(mean_delay(fault, 60) <= fault.floor_ms() + fault.cap_ms());
        }
    }

    #[test]
    fn an_operator_s_waits_bound_every_fault_but_lies() {
        let waits = Waits {
            first_ms: 50,
            longest_ms: 1_000,
        };
        let longest = |fault, failures: u32| {
            let draw = |seed| {
                let mut jitter = Jitter::over(waits, seed);
                let mut backoff = Backoff::default();
                (0..failures).for_each(|_| {
                    backoff = Backoff {
                        slip_until: NOW,
                        lie_until: NOW,
                        ..backoff
                    };
                    backoff.fail(NOW, fault, &mut jitter);
                });
                backoff.until().since(NOW)
            };
            (0..100).map(draw).max().unwrap()
        };
        assert!(longest(Fault::Cut, 1) <= 50 + 25);
        for fault in [Fault::Cut, Fault::Busy, Fault::Refused, Fault::Silent] {
            assert!(longest(fault, 40) <= 2_000, "{fault:?}");
        }
        assert!(longest(Fault::Lie, 1) >= 60_000);
        assert_eq!((waits.span_ms(0), waits.span_ms(1)), (50, 50));
        assert_eq!((waits.span_ms(3), waits.span_ms(40)), (200, 1_000));
    }

    #[test]
    fn a_lie_costs_more_than_a_cut() {
        assert!(mean_delay(Fault::Lie, 1) > 100 * mean_delay(Fault::Cut, 1));
    }

    #[test]
    fn jitter_spreads_over_the_whole_span() {
        let mut jitter = Jitter::new(1);
        let draws: Vec<u64> = (0..1_000).map(|_| jitter.up_to(100)).collect();
        assert!(draws.iter().any(|d| *d < 5) && draws.iter().any(|d| *d > 95));
        assert!(draws.iter().all(|d| *d <= 100));
        assert_eq!(Jitter::new(3).up_to(0), 0);
    }

    #[test]
    fn success_forgives_slips_and_not_lies() {
        let mut jitter = Jitter::new(1);
        let mut backoff = Backoff::default();
        backoff.fail(NOW, Fault::Cut, &mut jitter);
        backoff.fail(NOW, Fault::Lie, &mut jitter);
        backoff.succeed();
        assert!(backoff.set_aside(NOW));
        assert_eq!(backoff.lies(), 1);
        assert!(!backoff.forgettable(backoff.until()));
    }
}
