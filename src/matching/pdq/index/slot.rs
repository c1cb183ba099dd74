//! One slot of a segment: which values have which key.
//!
//! Values are numbered in order; a *bucket* is the values with one key. Two parts lead from a key to them:
//!
//! * a bitmap of the keys that occur, with the number of ones before every 256 bits: key → number of its bucket;
//! * a head per bucket: the number of its only value, or where the numbers of its values lie.
//!
//! Most buckets hold one value, so that a look-up waits for memory twice, then for the value. A head has three bytes
//! while three suffice: a slot of 23 bits costs 1.1 MiB, and three to six bytes for each value.

use hashpact_priority::let_others;

use super::layout::{BALLS, Flips, Shape, WORD_BITS};
use super::writer::INLINE_MAX;
use crate::pdq::value::Words;

/// A word of the key bitmap in which some keys looked for occur.
#[derive(Clone, Copy, Default)]
pub(super) struct Hit {
    pub(super) bits: u64,
    pub(super) word: u32,
    pub(super) slot: u16,
    pub(super) query: u16,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) shape: Shape,
    flips: Flips,
    keys: Box<[[u64; 4]]>,
    ranks: Box<[u32]>,
    heads: Heads,
    /// Per bucket of more than one value, how many, then their numbers.
    shared: Box<[u32]>,
}

/// What a bucket's head says is one number; the top bit says which.
#[derive(Debug)]
enum Heads {
    Narrow(Box<[[u8; 3]]>),
    Wide(Box<[u32]>),
}

const NARROW_SHARED: u32 = 1 << 23;
const WIDE_SHARED: u32 = 1 << 31;

/// The values of a bucket.
#[derive(Clone, Copy)]
pub(super) enum Bucket {
    /// The number of the only one.
    One(u32),
    /// Where their numbers start and how many there are.
    Many(u32, u32),
}

/// Values after which a build lets others have the core: some 20 µs.
const STRETCH: usize = 4_096;

/// Buffers of a build, used again for each slot.
#[derive(Default)]
pub(super) struct BuildBuffers {
    pairs: Vec<u64>,
    other: Vec<u64>,
}

impl Shape {
    /// Cuts the key of this slot out of a value.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "inherits the caller's instruction set"
    )]
    pub(super) fn key(self, value: &Words) -> u32 {
        let at = (self.offset / 64) as usize;
        let high = value.get(at).copied().unwrap_or(0);
        let low = value.get(at.wrapping_add(1)).copied().unwrap_or(0);
        let both = (u128::from(high) << 64) | u128::from(low);
        let shift = 128_u32
            .wrapping_sub(self.offset % 64)
            .wrapping_sub(self.bits);
        #[expect(clippy::cast_possible_truncation, reason = "masked to at most 32 bits")]
        let key = (both >> shift) as u32;
        key & (u32::MAX >> 32_u32.wrapping_sub(self.bits))
    }
}

impl Slot {
    /// Builds the slot for `values`, sorted and distinct.
    pub(super) fn build(shape: Shape, values: &[Words], buffers: &mut BuildBuffers) -> Self {
        let words = 1_usize << shape.bits.saturating_sub(WORD_BITS + 2);
        let mut slot = Self {
            shape,
            flips: Flips::new(shape.bits.saturating_sub(WORD_BITS)),
            keys: vec![[0; 4]; words].into_boxed_slice(),
            ranks: Box::default(),
            heads: Heads::Wide(Box::default()),
            shared: Box::default(),
        };
        sort_by_key(shape, values, buffers);
        slot.fill(&buffers.pairs);
        slot
    }

    /// Fills in what leads to the values, from pairs sorted by key.
    fn fill(&mut self, pairs: &[u64]) {
        let mut heads = Vec::new();
        let mut shared = Vec::new();
        for (n, bucket) in pairs.chunk_by(|a, b| a >> 32 == b >> 32).enumerate() {
            if n.is_multiple_of(STRETCH) {
                let_others_in(pairs.len());
            }
            let Some(first) = bucket.first() else {
                continue;
            };
            let key = usize::try_from(first >> 32).unwrap_or(usize::MAX);
            if let Some(word) = self.keys.as_flattened_mut().get_mut(key / 64) {
                *word |= 1 << (key % 64);
            }
            if bucket.len() == 1 {
                heads.push(value_of(*first));
            } else {
                heads.push(WIDE_SHARED | number(shared.len()));
                shared.push(number(bucket.len()));
                shared.extend(bucket.iter().copied().map(value_of));
            }
        }
        self.heads = Heads::pack(heads, pairs.len().max(shared.len()));
        self.shared = shared.into_boxed_slice();
        self.ranks = self
            .keys
            .iter()
            .scan(0_u32, |rank, words| {
                let before = *rank;
                *rank += words.iter().map(|word| word.count_ones()).sum::<u32>();
                Some(before)
            })
            .collect();
    }

    /// How many words [`Slot::probe`] looks at for `reach`.
    pub(super) fn words(&self, reach: usize) -> usize {
        self.flips.within(reach)
    }

    /// Writes into `hits` from `at` on where keys less than `reach` flips from `key` occur; returns the new end.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "inherits the caller's instruction set"
    )]
    pub(super) fn probe(
        &self,
        key: u32,
        reach: usize,
        stamp: (u16, u16),
        hits: &mut [Hit],
        at: usize,
    ) -> usize {
        let (high, low) = (key >> WORD_BITS, (key & 63) as usize);
        let keys = self.keys.as_flattened();
        let mut end = at;
        for flips in 0..reach {
            let radius = reach.wrapping_sub(1).wrapping_sub(flips);
            let ball = BALLS
                .get(radius)
                .and_then(|balls| balls.get(low))
                .copied()
                .unwrap_or(0);
            for mask in self.flips.of(flips) {
                let word = high ^ mask;
                let bits = keys.get(word as usize).copied().unwrap_or(0) & ball;
                if let Some(hit) = hits.get_mut(end) {
                    *hit = Hit {
                        bits,
                        word,
                        slot: stamp.0,
                        query: stamp.1,
                    };
                }
                end = end.wrapping_add(usize::from(bits != 0));
            }
        }
        end
    }

    /// Names the buckets of a hit.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "inherits the caller's instruction set"
    )]
    pub(super) fn buckets(&self, hit: Hit, mut each: impl FnMut(u32)) {
        let (block, within) = ((hit.word / 4) as usize, (hit.word % 4) as usize);
        let Some(words) = self.keys.get(block) else {
            return;
        };
        let mut rank = self.ranks.get(block).copied().unwrap_or(0);
        let mut word = 0;
        for (at, &candidate) in words.iter().enumerate() {
            if at < within {
                rank = rank.wrapping_add(candidate.count_ones());
            }
            if at == within {
                word = candidate;
            }
        }
        let mut bits = hit.bits;
        while bits != 0 {
            let below = (bits & bits.wrapping_neg()).wrapping_sub(1);
            each(rank.wrapping_add((word & below).count_ones()));
            bits &= bits.wrapping_sub(1);
        }
    }

    /// Finds the values of a bucket.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "inherits the caller's instruction set"
    )]
    pub(super) fn bucket(&self, rank: u32) -> Option<Bucket> {
        let at = rank as usize;
        let (head, is_shared) = match &self.heads {
            Heads::Narrow(heads) => {
                let [a, b, c] = *heads.get(at)?;
                let head = u32::from_le_bytes([a, b, c, 0]);
                (head & !NARROW_SHARED, head & NARROW_SHARED != 0)
            }
            Heads::Wide(heads) => {
                let head = *heads.get(at)?;
                (head & !WIDE_SHARED, head & WIDE_SHARED != 0)
            }
        };
        if !is_shared {
            return Some(Bucket::One(head));
        }
        let len = self.shared.get(head as usize)?;
        Some(Bucket::Many(head.wrapping_add(1), *len))
    }

    /// Names the values of a bucket of many.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "inherits the caller's instruction set"
    )]
    pub(super) fn values(&self, start: u32, len: u32, each: impl FnMut(u32)) {
        let range = start as usize..start.wrapping_add(len) as usize;
        self.shared
            .get(range)
            .unwrap_or_default()
            .iter()
            .copied()
            .for_each(each);
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        let heads = match &self.heads {
            Heads::Narrow(heads) => size_of_val(&**heads),
            Heads::Wide(heads) => size_of_val(&**heads),
        };
        heads + size_of_val(&*self.shared) + size_of_val(&*self.keys) + size_of_val(&*self.ranks)
    }
}

impl Heads {
    /// Packs heads that name at most `bound`.
    fn pack(heads: Vec<u32>, bound: usize) -> Self {
        if bound > NARROW_SHARED as usize {
            return Self::Wide(heads.into_boxed_slice());
        }
        let narrow = heads.into_iter().map(|head| {
            let flag = if head & WIDE_SHARED == 0 {
                0
            } else {
                NARROW_SHARED
            };
            let [a, b, c, _] = (head & !WIDE_SHARED | flag).to_le_bytes();
            [a, b, c]
        });
        Self::Narrow(narrow.collect())
    }
}

/// The number of a value out of a pair.
fn value_of(pair: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    let value = pair as u32;
    value
}

/// Lets others have the core in a build of so many values. ⚠ What a writer builds itself,
/// under a lock that others wait for, is small.
fn let_others_in(values: usize) {
    if values > INLINE_MAX {
        let_others();
    }
}

/// Numbers within a segment fit 32 bits: [`super::segment::MAX_LEN`].
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "inherits the caller's instruction set"
)]
fn number(n: usize) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "segments are bounded")]
    let n = n as u32;
    n
}

/// Leaves (key, value number) in `buffers.pairs`, sorted by key, then number: by radix, eight bits a pass.
fn sort_by_key(shape: Shape, values: &[Words], buffers: &mut BuildBuffers) {
    buffers.pairs.clear();
    buffers.pairs.reserve(values.len());
    let mut numbered = values.iter().enumerate();
    while buffers.pairs.len() < values.len() {
        let_others_in(values.len());
        let some = numbered.by_ref().take(STRETCH);
        let pairs = some.map(|(id, value)| (u64::from(shape.key(value)) << 32) | id as u64);
        buffers.pairs.extend(pairs);
    }
    if shape.offset == 0 {
        return;
    }
    buffers.other.resize(values.len(), 0);
    for pass in 0..shape.bits.div_ceil(8) {
        let digit = |pair: u64| ((pair >> (32 + 8 * pass)) & 0xff) as usize;
        let mut next = [0_usize; 256];
        for pairs in buffers.pairs.chunks(STRETCH) {
            let_others_in(values.len());
            for &pair in pairs {
                if let Some(count) = next.get_mut(digit(pair)) {
                    *count += 1;
                }
            }
        }
        let mut start = 0;
        for count in &mut next {
            start += std::mem::replace(count, start);
        }
        for pairs in buffers.pairs.chunks(STRETCH) {
            let_others_in(values.len());
            for &pair in pairs {
                if let Some(at) = next.get_mut(digit(pair)) {
                    if let Some(place) = buffers.other.get_mut(*at) {
                        *place = pair;
                    }
                    *at += 1;
                }
            }
        }
        std::mem::swap(&mut buffers.pairs, &mut buffers.other);
    }
}
