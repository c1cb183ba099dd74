//! How 256 bits are cut into slots, and how far each slot is searched for a distance.
//!
//! Pigeonhole: a slot of reach r finds every key within r - 1 flips of its own. Values that differ in at most d bits
//! cannot differ in r or more bits in *every* slot if the reaches add up to d + 1. So reaches of that sum miss nothing,
//! and which slot gets how much of it is only a matter of cost.

/// Keys are looked at 64 at a time: the low bits of a key choose within a word, the others choose the word.
pub(super) const WORD_BITS: u32 = 6;

/// Longest reach: three flips. A fourth costs more look-ups than a linear scan of any set that fits into memory.
pub(super) const MAX_REACH: usize = 4;

/// A cut: bits `offset..offset + bits` of the value, from its first bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) offset: u32,
    pub(super) bits: u32,
}

/// Cost of fetching and comparing one candidate, in units of one word looked at.
const CANDIDATE_COST: f64 = 12.0;

/// Widths of the slots for `len` values. The sum is always 256.
///
/// The more values, the wider the slots, so that a bucket holds about one: random data has
/// 272 candidates in 65,536 values of sixteen slots, 26 in 100,000 of eleven, 13 in 100,000 of ten.
fn widths(len: usize) -> &'static [u32] {
    match len {
        0..160_000 => &[16; 16],
        160_000..6_000_000 => &[20, 23, 23, 23, 23, 24, 24, 24, 24, 24, 24],
        _ => &[25, 25, 25, 25, 25, 25, 26, 26, 27, 27],
    }
}

/// Cuts the value for `len` values.
pub(super) fn shapes(len: usize) -> Vec<Shape> {
    let mut offset = 0;
    widths(len)
        .iter()
        .map(|&bits| {
            let shape = Shape { offset, bits };
            offset += bits;
            shape
        })
        .collect()
}

/// Shares out the reaches for distance `max`, cheapest first; nothing if a linear scan is the cheaper answer.
pub(super) fn reaches(shapes: &[Shape], len: usize, max: u32) -> Option<Box<[usize]>> {
    let mut reaches = vec![0_usize; shapes.len()].into_boxed_slice();
    let mut cost = 0.0;
    for _ in 0..=max {
        let (price, reach) = reaches
            .iter_mut()
            .zip(shapes)
            .filter(|(reach, _)| **reach < MAX_REACH)
            .map(|(reach, shape)| (price(*shape, *reach, len), reach))
            .min_by(|(a, _), (b, _)| a.total_cmp(b))?;
        *reach += 1;
        cost += price;
    }
    (cost < as_float(len)).then_some(reaches)
}

/// What it costs to search `shape` one flip further than `reach` does.
fn price(shape: Shape, reach: usize, len: usize) -> f64 {
    let keys = choose(shape.bits, reach);
    let words = choose(shape.bits.saturating_sub(WORD_BITS), reach);
    let candidates = keys * as_float(len) / 2_f64.powi(shape.bits.cast_signed());
    words + candidates * CANDIDATE_COST
}

/// `n` over `k`.
fn choose(n: u32, k: usize) -> f64 {
    (0..k).fold(1.0, |product, i| {
        product * (f64::from(n) - as_float(i)) / (as_float(i) + 1.0)
    })
}

#[expect(clippy::cast_precision_loss, reason = "an estimate of cost")]
fn as_float(n: usize) -> f64 {
    n as f64
}

/// All masks of `bits` bits with fewer than [`MAX_REACH`] bits set, those with fewer first.
#[derive(Debug)]
pub(super) struct Flips {
    masks: Box<[u32]>,
    /// Where the masks with so many bits set end.
    ends: [usize; MAX_REACH],
}

impl Flips {
    pub(super) fn new(bits: u32) -> Self {
        let mut masks = vec![0_u32];
        let mut ends = [1; MAX_REACH];
        let mut last = 0..1;
        for end in ends.iter_mut().skip(1) {
            let next: Vec<u32> = masks
                .iter()
                .skip(last.start)
                .take(last.len())
                .flat_map(|&mask| {
                    let above = u32::BITS.saturating_sub(mask.leading_zeros());
                    (above..bits).map(move |bit| mask | (1 << bit))
                })
                .collect();
            last = masks.len()..masks.len() + next.len();
            masks.extend(next);
            *end = masks.len();
        }
        Self {
            masks: masks.into_boxed_slice(),
            ends,
        }
    }

    /// Masks with exactly `flips` bits set.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "inherits the caller's instruction set"
    )]
    pub(super) fn of(&self, flips: usize) -> &[u32] {
        let start = flips
            .checked_sub(1)
            .and_then(|before| self.ends.get(before))
            .copied()
            .unwrap_or(0);
        let end = self.ends.get(flips).copied().unwrap_or(0);
        self.masks.get(start..end).unwrap_or_default()
    }

    /// How many masks have fewer than `reach` bits set.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "inherits the caller's instruction set"
    )]
    pub(super) fn within(&self, reach: usize) -> usize {
        reach
            .checked_sub(1)
            .and_then(|flips| self.ends.get(flips))
            .copied()
            .unwrap_or(0)
    }
}

/// Positions within a word that are at most `r` flips from position `p`, as the bits of `BALLS[r][p]`.
pub(super) static BALLS: [[u64; 64]; MAX_REACH] = balls();

#[expect(
    clippy::indexing_slicing,
    reason = "constant evaluation: out of range does not compile"
)]
const fn balls() -> [[u64; 64]; MAX_REACH] {
    let mut balls = [[0; 64]; MAX_REACH];
    let mut radius = 0;
    while radius < MAX_REACH {
        let mut from = 0_usize;
        while from < 64 {
            let mut to = 0_usize;
            while to < 64 {
                if (from ^ to).count_ones() as usize <= radius {
                    balls[radius][from] |= 1 << to;
                }
                to += 1;
            }
            from += 1;
        }
        radius += 1;
    }
    balls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_cuts_all_bits_once() {
        for len in [0, 1_000, 160_000, 1_000_000, 6_000_000, 50_000_000] {
            let shapes = shapes(len);
            assert_eq!(shapes.iter().map(|shape| shape.bits).sum::<u32>(), 256);
            let mut next = 0;
            for shape in shapes {
                assert_eq!(shape.offset, next);
                next += shape.bits;
            }
        }
    }

    #[test]
    fn reaches_add_up_to_the_distance_and_one() {
        for len in [10_000, 1_000_000, 20_000_000] {
            for max in 0..=43 {
                if let Some(reaches) = reaches(&shapes(len), len, max) {
                    assert_eq!(
                        reaches.iter().sum::<usize>(),
                        max as usize + 1,
                        "{len} {max}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_default_distance_is_always_indexed() {
        for len in [4_096, 100_000, 1_000_000, 10_000_000, 100_000_000] {
            assert!(reaches(&shapes(len), len, 31).is_some(), "{len}");
        }
    }

    #[test]
    fn flips_are_all_masks_once() {
        let flips = Flips::new(10);
        assert_eq!(flips.of(0), [0]);
        assert_eq!(
            (flips.of(1).len(), flips.of(2).len(), flips.of(3).len()),
            (10, 45, 120)
        );
        assert_eq!(flips.within(3), 56);
        for count in 0..MAX_REACH {
            let mut masks = flips.of(count).to_vec();
            assert!(
                masks
                    .iter()
                    .all(|mask| mask.count_ones() as usize == count && *mask < 1024)
            );
            masks.sort_unstable();
            masks.dedup();
            assert_eq!(masks.len(), flips.of(count).len());
        }
    }
}
