//! Chance that follows from a seed.

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// The simulation's one source of chance.
#[derive(Debug)]
pub(crate) struct Dice(StdRng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// A number from 0 up to, but not, `end`; 0 where there is none.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        if end == 0 {
            0
        } else {
            self.0.random_range(0..end)
        }
    }

    /// A number of `[from, to]`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from.saturating_add(self.below(to.saturating_sub(from).saturating_add(1)))
    }

    /// Whether something of so many in a thousand happens.
    pub(crate) fn happens(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    /// So many of a list, in an order of its own.
    pub(crate) fn some<T: Clone>(&mut self, of: &[T], count: usize) -> Vec<T> {
        let mut all = of.to_vec();
        all.shuffle(&mut self.0);
        all.truncate(count);
        all
    }

    /// A number for what draws its own chance.
    pub(crate) fn seed(&mut self) -> u64 {
        self.0.random()
    }
}
