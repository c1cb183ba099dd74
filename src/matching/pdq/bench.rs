//! Data to measure an index with, and the linear scan to measure it against.
//!
//! Everything is made from a seed, so that a run can be repeated.

use std::ops::RangeInclusive;

use super::index::linear;
use super::value::{Words, to_bytes, to_words};
use super::{DEFAULT_DISTANCE, PdqIndex};

/// How values are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Each bit by chance.
    Random,
    /// Families of 64 near-duplicates: each up to 24 bits away from the family's first.
    Clustered,
    /// The first 128 bits are the same in all.
    EqualPrefix,
    /// Each 16-bit word is one of four, so that a value shares every word with a quarter of all others.
    EqualWords,
}

impl Data {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Random,
        Self::Clustered,
        Self::EqualPrefix,
        Self::EqualWords,
    ];

    /// The name used on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Clustered => "clustered",
            Self::EqualPrefix => "equal-prefix",
            Self::EqualWords => "equal-words",
        }
    }

    /// Makes `count` values.
    #[must_use]
    pub fn values(self, count: usize, seed: u64) -> Vec<[u8; 32]> {
        let mut chance = Chance(seed);
        let pool: [Words; 4] = std::array::from_fn(|_| chance.words());
        let [prefix, ..] = pool;
        let mut head = prefix;
        (0..count)
            .map(|number| match self {
                Self::Random => to_bytes(&chance.words()),
                Self::Clustered => {
                    if number.is_multiple_of(64) {
                        head = chance.words();
                    }
                    let flips = chance.below(25);
                    chance.flipped(to_bytes(&head), flips)
                }
                Self::EqualPrefix => {
                    let [a, b, _, _] = prefix;
                    to_bytes(&[a, b, chance.next(), chance.next()])
                }
                Self::EqualWords => chance.mixed(&pool),
            })
            .collect()
    }
}

/// Makes `count` queries: every other one is a value of the set with up to `distance` bits flipped, the rest is random.
#[must_use]
pub fn queries(values: &[[u8; 32]], count: usize, distance: u32, seed: u64) -> Vec<[u8; 32]> {
    // Not the numbers that the values of this seed are made of.
    let mut chance = Chance(!seed);
    (0..count)
        .map(|number| {
            let place = chance.below(values.len().max(1) as u64);
            let known = usize::try_from(place).ok().and_then(|at| values.get(at));
            match known {
                Some(value) if number.is_multiple_of(2) => {
                    let flips = chance.below(u64::from(distance) + 1);
                    chance.flipped(*value, flips)
                }
                _ => to_bytes(&chance.words()),
            }
        })
        .collect()
}

/// The same values, packed, answered by looking at each: never wrong.
#[derive(Debug)]
pub struct Reference {
    values: Vec<Words>,
}

/// An answer of an index that is not that of the linear scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "query {query} within {distance}: {found} values found, {expected} expected, {wrong} of those found are wrong"
)]
pub struct Mismatch {
    /// Which query.
    pub query: usize,
    /// The distance asked for.
    pub distance: u32,
    /// How many values the index found.
    pub found: usize,
    /// How many the scan found.
    pub expected: usize,
    /// How many of those that the index found the scan did not find so.
    pub wrong: usize,
}

impl Reference {
    /// Packs values; the same value twice is one.
    #[must_use]
    pub fn new(values: &[[u8; 32]]) -> Self {
        let mut values: Vec<_> = values.iter().map(to_words).collect();
        values.sort_unstable();
        values.dedup();
        Self { values }
    }

    /// Tells `visit` each value within `max` of `value` with its distance: a SIMD linear scan.
    pub fn query(&self, value: &[u8; 32], max: u32, mut visit: impl FnMut(&[u8; 32], u32)) {
        linear::scan(&self.values, &to_words(value), max, |at, distance| {
            if let Some(words) = self.values.get(at) {
                visit(&to_bytes(words), distance);
            }
        });
    }

    /// Compares the answers of an index, one by one and in a batch, with those of the scan; returns the number of matches.
    ///
    /// # Errors
    ///
    /// The first [`Mismatch`].
    pub fn check(
        &self,
        index: &PdqIndex,
        queries: &[[u8; 32]],
        max: u32,
    ) -> Result<usize, Mismatch> {
        self.check_each(index, queries, max..=max)
    }

    /// As [`check`](Self::check), at each of several distances; each query is scanned for once.
    ///
    /// # Errors
    ///
    /// The first [`Mismatch`].
    pub fn check_each(
        &self,
        index: &PdqIndex,
        queries: &[[u8; 32]],
        distances: RangeInclusive<u32>,
    ) -> Result<usize, Mismatch> {
        let all: Vec<Vec<([u8; 32], u32)>> = queries
            .iter()
            .map(|query| {
                let mut near = Vec::new();
                self.query(query, *distances.end(), |value, distance| {
                    near.push((*value, distance));
                });
                near.sort_unstable();
                near
            })
            .collect();
        let mut matches = 0;
        for max in distances {
            let mut batch = vec![Vec::new(); queries.len()];
            let _ = index.query_batch(queries, max, |query, value, distance| {
                if let Some(found) = batch.get_mut(query) {
                    found.push((*value, distance));
                }
            });
            for (number, ((query, found), all)) in queries.iter().zip(batch).zip(&all).enumerate() {
                let within = all.iter().filter(|(_, distance)| *distance <= max);
                let expected: Vec<_> = within.copied().collect();
                let mut single = Vec::new();
                let _ = index.query(query, max, |value, distance| {
                    single.push((*value, distance));
                });
                for mut found in [single, found] {
                    found.sort_unstable();
                    if found != expected {
                        return Err(Mismatch::of(number, max, &found, &expected));
                    }
                }
                matches += expected.len();
            }
        }
        Ok(matches)
    }
}

impl Mismatch {
    fn of(
        query: usize,
        distance: u32,
        found: &[([u8; 32], u32)],
        expected: &[([u8; 32], u32)],
    ) -> Self {
        let wrong = found
            .iter()
            .filter(|found| expected.binary_search(found).is_err())
            .count();
        Self {
            query,
            distance,
            found: found.len(),
            expected: expected.len(),
            wrong,
        }
    }
}

/// Checks an index at the default distance and on both sides of it.
///
/// # Errors
///
/// The first [`Mismatch`].
pub fn check(
    index: &PdqIndex,
    values: &[[u8; 32]],
    queries: &[[u8; 32]],
) -> Result<usize, Mismatch> {
    let reference = Reference::new(values);
    let mut matches = 0;
    for max in [0, 10, 21, DEFAULT_DISTANCE, 32, 40] {
        matches += reference.check(index, queries, max)?;
    }
    Ok(matches)
}

/// Numbers by chance, the same for the same seed (`SplitMix64`).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn words(&mut self) -> Words {
        std::array::from_fn(|_| self.next())
    }

    /// Flips so many bits; the same one may be flipped back.
    fn flipped(&mut self, mut value: [u8; 32], flips: u64) -> [u8; 32] {
        for _ in 0..flips {
            let bit = self.below(256);
            if let Some(byte) = usize::try_from(bit / 8)
                .ok()
                .and_then(|at| value.get_mut(at))
            {
                *byte ^= 1 << (bit % 8);
            }
        }
        value
    }

    /// Takes each 16-bit word from one of the pool.
    fn mixed(&mut self, pool: &[Words; 4]) -> [u8; 32] {
        let mut mixed = [0; 4];
        for (at, word) in mixed.iter_mut().enumerate() {
            for part in 0..4 {
                let from = usize::try_from(self.below(4)).unwrap_or(0);
                let source = pool
                    .get(from)
                    .and_then(|words| words.get(at))
                    .copied()
                    .unwrap_or(0);
                *word |= source & (0xffff << (16 * part));
            }
        }
        to_bytes(&mixed)
    }
}
