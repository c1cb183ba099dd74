//! Times of single calls, and what is said of them.

use std::time::Duration;

use serde::Serialize;

use super::rounded;

/// Times of calls, in the order that they ended.
#[derive(Debug, Default)]
pub(super) struct Times(Vec<Duration>);

/// Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    pub(super) max: f64,
}

impl Times {
    pub(super) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(super) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(super) fn count(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap_or(u64::MAX)
    }

    /// The nearest ranks; zeros where nothing was measured.
    pub(super) fn latency(&self) -> Latency {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = |thousandths: usize| {
            let rank = (sorted.len() * thousandths).div_ceil(1_000).max(1) - 1;
            let time = sorted.get(rank).copied().unwrap_or_default();
            rounded(time.as_secs_f64() * 1_000.0)
        };
        Latency {
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p999: at(999),
            max: at(1_000),
        }
    }
}

impl Latency {
    pub(super) fn line(&self) -> String {
        format!("{:.2} / {:.2} ms", self.p50, self.p99)
    }

    /// Median and the slowest, of a few.
    pub(super) fn worst(&self) -> String {
        format!("{:.1} / {:.1} ms (p50 / slowest)", self.p50, self.max)
    }

    /// Median and tail.
    pub(super) fn tail(&self) -> String {
        format!("{:.2} / {:.2} / {:.2} ms", self.p50, self.p99, self.p999)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut times = Times::default();
        (1..=200)
            .rev()
            .for_each(|ms| times.push(Duration::from_millis(ms)));
        let expected = Latency {
            p50: 100.0,
            p90: 180.0,
            p99: 198.0,
            p999: 200.0,
            max: 200.0,
        };
        assert_eq!(times.latency(), expected);
        assert_eq!(Times::default().latency().max.to_bits(), 0);
    }
}
