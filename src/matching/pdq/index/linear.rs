//! The linear scan: what small sets are searched with, what the index is measured against, and what it falls back to.

use super::arch;
use crate::pdq::value::{Words, differing_bits};

/// Values looked at before what was found is handed over: 16 KiB of them.
const BLOCK: usize = 512;

/// Tells `each` the number and distance of every value within `max` of `query`.
pub(crate) fn scan(values: &[Words], query: &Words, max: u32, mut each: impl FnMut(usize, u32)) {
    let mut distances = [0_u32; BLOCK];
    for (block, values) in values.chunks(BLOCK).enumerate() {
        if !arch::run_counting(Measure {
            values,
            query,
            max,
            distances: &mut distances,
        }) {
            continue;
        }
        for (at, &distance) in distances.iter().take(values.len()).enumerate() {
            if distance <= max {
                each(block * BLOCK + at, distance);
            }
        }
    }
}

struct Measure<'a> {
    values: &'a [Words],
    query: &'a Words,
    max: u32,
    distances: &'a mut [u32; BLOCK],
}

impl pulp::NullaryFnOnce for Measure<'_> {
    type Output = bool;

    /// Fills in the distances; says whether any is near enough.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "inherits the caller's instruction set"
    )]
    fn call(self) -> bool {
        let mut least = u32::MAX;
        for (value, distance) in self.values.iter().zip(self.distances.iter_mut()) {
            *distance = differing_bits(value, self.query);
            least = least.min(*distance);
        }
        least <= self.max
    }
}
