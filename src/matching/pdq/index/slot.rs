//! One slot of a segment: which values have which key.
//!
//! Values are numbered in order; a *bucket* is the values with one key. Three parts lead from a key to them:
//!
//! * a bitmap of the keys that occur, with the number of ones before every 256 bits: key → number of its bucket;
//! * a bitmap over the postings, a one where a bucket starts, sampled at every 16th: bucket → range of postings;
//! * the postings, value numbers sorted by key, of three bytes while three suffice.
//!
//! So a slot of 23 bits costs 1.1 MiB, and 3.4 (4.4) bytes for each value, however the keys are distributed.
//! The first slot needs no postings: values are sorted, so its postings are 0, 1, 2, …

use super::layout::{BALLS, Flips, Shape, WORD_BITS};
use crate::pdq::value::Words;

/// Every so manieth start of a bucket is sampled.
const SAMPLE: usize = 16;

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
    starts: Box<[u64]>,
    samples: Box<[u32]>,
    postings: Postings,
}

#[derive(Debug)]
enum Postings {
    /// Posting i is value i.
    Same,
    Narrow(Box<[[u8; 3]]>),
    Wide(Box<[u32]>),
}

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
            starts: vec![0; values.len() / 64 + 1].into_boxed_slice(),
            samples: Box::default(),
            postings: Postings::Same,
        };
        sort_by_key(shape, values, buffers);
        slot.fill(&buffers.pairs);
        if shape.offset > 0 {
            slot.postings = Postings::pack(&buffers.pairs);
        }
        slot
    }

    /// Fills the bitmaps from pairs sorted by key.
    fn fill(&mut self, pairs: &[u64]) {
        let mut samples = Vec::new();
        let (mut buckets, mut last) = (0_usize, None);
        for (at, pair) in pairs.iter().enumerate() {
            let key = pair >> 32;
            if last.replace(key) == Some(key) {
                continue;
            }
            let key = usize::try_from(key).unwrap_or(usize::MAX);
            if let Some(word) = self.keys.as_flattened_mut().get_mut(key / 64) {
                *word |= 1 << (key % 64);
            }
            if let Some(word) = self.starts.get_mut(at / 64) {
                *word |= 1 << (at % 64);
            }
            if buckets.is_multiple_of(SAMPLE) {
                samples.push(number(at));
            }
            buckets += 1;
        }
        self.samples = samples.into_boxed_slice();
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

    /// Finds the postings of a bucket: where they start and how many there are.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "inherits the caller's instruction set"
    )]
    pub(super) fn run(&self, bucket: u32, values: usize) -> (u32, u32) {
        let start = self.start_of(bucket as usize);
        let rest = self.starts.get(start / 64).copied().unwrap_or(0) >> (start % 64) >> 1;
        let end = if rest != 0 {
            start
                .wrapping_add(1)
                .wrapping_add(rest.trailing_zeros() as usize)
        } else {
            self.start_of(bucket.wrapping_add(1) as usize).min(values)
        };
        (number(start), number(end.wrapping_sub(start)))
    }

    /// Finds where a bucket starts; past the last one, `usize::MAX`.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "inherits the caller's instruction set"
    )]
    fn start_of(&self, bucket: usize) -> usize {
        let Some(&sample) = self.samples.get(bucket / SAMPLE) else {
            return usize::MAX;
        };
        let mut left = bucket % SAMPLE;
        let mut at = sample as usize / 64;
        let Some(&word) = self.starts.get(at) else {
            return usize::MAX;
        };
        let mut word = word & (u64::MAX << (sample % 64));
        loop {
            let ones = word.count_ones() as usize;
            if left < ones {
                break;
            }
            left = left.wrapping_sub(ones);
            at = at.wrapping_add(1);
            match self.starts.get(at) {
                Some(&next) => word = next,
                None => return usize::MAX,
            }
        }
        for _ in 0..left {
            word &= word.wrapping_sub(1);
        }
        at.wrapping_mul(64)
            .wrapping_add(word.trailing_zeros() as usize)
    }

    /// Names the values of a range of postings.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "inherits the caller's instruction set"
    )]
    pub(super) fn values(&self, start: u32, len: u32, mut each: impl FnMut(u32)) {
        let range = start as usize..start.wrapping_add(len) as usize;
        match &self.postings {
            Postings::Same => (start..start.wrapping_add(len)).for_each(each),
            Postings::Narrow(ids) => {
                for &[a, b, c] in ids.get(range).unwrap_or_default() {
                    each(u32::from_le_bytes([a, b, c, 0]));
                }
            }
            Postings::Wide(ids) => ids
                .get(range)
                .unwrap_or_default()
                .iter()
                .copied()
                .for_each(each),
        }
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        let postings = match &self.postings {
            Postings::Same => 0,
            Postings::Narrow(ids) => size_of_val(&**ids),
            Postings::Wide(ids) => size_of_val(&**ids),
        };
        let bitmaps = size_of_val(&*self.keys) + size_of_val(&*self.ranks);
        postings + bitmaps + size_of_val(&*self.starts) + size_of_val(&*self.samples)
    }
}

impl Postings {
    fn pack(pairs: &[u64]) -> Self {
        let id = |pair: &u64| number(usize::try_from(pair & u64::from(u32::MAX)).unwrap_or(0));
        if pairs.len() > 1 << 24 {
            return Self::Wide(pairs.iter().map(id).collect());
        }
        let narrow = pairs.iter().map(|pair| {
            let [a, b, c, _] = id(pair).to_le_bytes();
            [a, b, c]
        });
        Self::Narrow(narrow.collect())
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
    let pairs = values
        .iter()
        .enumerate()
        .map(|(id, value)| (u64::from(shape.key(value)) << 32) | id as u64);
    buffers.pairs.extend(pairs);
    if shape.offset == 0 {
        return;
    }
    buffers.other.resize(values.len(), 0);
    for pass in 0..shape.bits.div_ceil(8) {
        let digit = |pair: u64| ((pair >> (32 + 8 * pass)) & 0xff) as usize;
        let mut next = [0_usize; 256];
        for &pair in &buffers.pairs {
            if let Some(count) = next.get_mut(digit(pair)) {
                *count += 1;
            }
        }
        let mut start = 0;
        for count in &mut next {
            start += std::mem::replace(count, start);
        }
        for &pair in &buffers.pairs {
            if let Some(at) = next.get_mut(digit(pair)) {
                if let Some(place) = buffers.other.get_mut(*at) {
                    *place = pair;
                }
                *at += 1;
            }
        }
        std::mem::swap(&mut buffers.pairs, &mut buffers.other);
    }
}
