//! How a segment answers queries.
//!
//! In stages over many look-ups each, so that the processor waits for many of them at once: which words of the key
//! bitmaps hold a key near enough; which buckets those are; what their heads say; the values of those that hold many; their
//! distances. One query goes through all slots at each stage; a batch goes slot by slot, so that a slot's bitmaps stay
//! in the cache.

use std::cell::Cell;

use super::arch;
use super::linear;
use super::segment::Segment;
use super::slot::{Bucket, Hit};
use crate::pdq::value::{Words, differing_bits};

/// Queries that are answered together.
pub(super) const BATCH: usize = 32;

/// A query that has more candidates than one in so many values is scanned for instead: a candidate costs a cache miss
/// or two, a value scanned about a nanosecond.
const SCAN_RATIO: usize = 16;

/// A bucket to be read.
#[derive(Clone, Copy)]
struct Ranked {
    rank: u32,
    slot: u16,
    query: u16,
}

/// Numbers of values to be read.
#[derive(Clone, Copy)]
struct Run {
    start: u32,
    len: u32,
    slot: u16,
    query: u16,
}

/// A value to be compared.
#[derive(Clone, Copy)]
struct Candidate {
    value: u32,
    slot: u16,
    query: u16,
}

/// A value near enough to a query.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) value: u32,
    pub(super) query: u16,
    pub(super) distance: u16,
}

/// What a search needs room for, kept per thread.
#[derive(Default)]
pub(super) struct Buffers {
    hits: Vec<Hit>,
    buckets: Vec<Ranked>,
    runs: Vec<Run>,
    candidates: Vec<Candidate>,
    found: Vec<Found>,
    /// Candidates so far, per query.
    totals: Vec<usize>,
}

thread_local! {
    static BUFFERS: Cell<Option<Box<Buffers>>> = const { Cell::new(None) };
}

/// Lends this thread's buffers; a search within a search gets others.
pub(super) fn with_buffers<T>(work: impl FnOnce(&mut Buffers) -> T) -> T {
    let mut buffers = BUFFERS.take().unwrap_or_default();
    let out = work(&mut buffers);
    BUFFERS.set(Some(buffers));
    out
}

/// Tells `each` the number of the query, the number of the value and the distance of every live value within `max` of a
/// query, once each. At most [`BATCH`] queries. Answers for how many of them it compared all values: never slower than
/// that, however many look-alikes there are.
pub(super) fn search(
    segment: &Segment,
    queries: &[Words],
    max: u32,
    buffers: &mut Buffers,
    mut each: impl FnMut(usize, usize, u32),
) -> usize {
    let budget = segment.len() / SCAN_RATIO;
    let reaches = segment.reaches(max);
    buffers.start(
        queries.len(),
        if reaches.is_some() { 0 } else { usize::MAX },
    );
    if let Some(reaches) = reaches {
        arch::run(Search {
            segment,
            queries,
            max,
            reaches,
            budget,
            buffers: &mut *buffers,
        });
        for found in &buffers.found {
            let (query, value) = (usize::from(found.query), found.value as usize);
            let answered = buffers
                .totals
                .get(query)
                .is_some_and(|total| *total <= budget);
            if answered && segment.count(value) > 0 {
                each(query, value, u32::from(found.distance));
            }
        }
    }
    let mut scanned = 0;
    for (at, query) in queries.iter().enumerate() {
        if buffers.totals.get(at).is_some_and(|total| *total > budget) {
            scanned += 1;
            linear::scan(segment.values(), query, max, |value, distance| {
                if segment.count(value) > 0 {
                    each(at, value, distance);
                }
            });
        }
    }
    scanned
}

impl Buffers {
    fn start(&mut self, queries: usize, total: usize) {
        self.found.clear();
        self.totals.clear();
        self.totals.resize(queries, total);
    }
}

struct Search<'a> {
    segment: &'a Segment,
    queries: &'a [Words],
    max: u32,
    reaches: &'a [usize],
    budget: usize,
    buffers: &'a mut Buffers,
}

impl pulp::NullaryFnOnce for Search<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "inherits the caller's instruction set"
    )]
    fn call(mut self) {
        let slots = self.segment.slots().len();
        let step = if self.queries.len() < 4 { slots } else { 1 };
        let mut first = 0;
        while first < slots {
            let end = first.wrapping_add(step).min(slots);
            let hits = self.probe(first, end);
            self.rank(hits);
            self.locate();
            self.list();
            self.compare();
            first = end;
        }
    }
}

#[expect(
    clippy::inline_always,
    reason = "inherits the caller's instruction set"
)]
impl Search<'_> {
    /// Looks at the key bitmaps of the slots `first..end`; leaves the hits in the buffer and returns how many.
    #[inline(always)]
    fn probe(&mut self, first: usize, end: usize) -> usize {
        let slots = self
            .segment
            .slots()
            .iter()
            .zip(self.reaches)
            .enumerate()
            .take(end)
            .skip(first);
        let words: usize = slots
            .clone()
            .map(|(_, (slot, reach))| slot.words(*reach))
            .sum();
        let room = words.wrapping_mul(self.queries.len());
        if self.buffers.hits.len() < room {
            self.buffers.hits.resize(room, Hit::default());
        }
        let mut at = 0;
        for (number, (slot, &reach)) in slots {
            for (query, words) in self.queries.iter().enumerate() {
                at = slot.probe(
                    slot.shape.key(words),
                    reach,
                    (short(number), short(query)),
                    &mut self.buffers.hits,
                    at,
                );
            }
        }
        at
    }

    #[inline(always)]
    fn rank(&mut self, hits: usize) {
        let Buffers {
            hits: all, buckets, ..
        } = &mut *self.buffers;
        buckets.clear();
        for hit in all.iter().take(hits) {
            if let Some(slot) = self.segment.slots().get(usize::from(hit.slot)) {
                slot.buckets(*hit, |rank| {
                    buckets.push(Ranked {
                        rank,
                        slot: hit.slot,
                        query: hit.query,
                    });
                });
            }
        }
    }

    #[inline(always)]
    fn locate(&mut self) {
        let Buffers {
            buckets,
            runs,
            candidates,
            totals,
            ..
        } = &mut *self.buffers;
        runs.clear();
        candidates.clear();
        for &Ranked { rank, slot, query } in buckets.iter() {
            let found = self.segment.slots().get(usize::from(slot));
            let held = match found.and_then(|slot| slot.bucket(rank)) {
                Some(Bucket::One(value)) => {
                    candidates.push(Candidate { value, slot, query });
                    1
                }
                Some(Bucket::Many(start, len)) => {
                    runs.push(Run {
                        start,
                        len,
                        slot,
                        query,
                    });
                    len as usize
                }
                None => 0,
            };
            if let Some(total) = totals.get_mut(usize::from(query)) {
                *total = total.saturating_add(held);
            }
        }
    }

    #[inline(always)]
    fn list(&mut self) {
        let Buffers {
            runs,
            candidates,
            totals,
            ..
        } = &mut *self.buffers;
        for &Run {
            start,
            len,
            slot,
            query,
        } in runs.iter()
        {
            if totals
                .get(usize::from(query))
                .is_none_or(|total| *total > self.budget)
            {
                continue;
            }
            if let Some(found) = self.segment.slots().get(usize::from(slot)) {
                found.values(start, len, |value| {
                    candidates.push(Candidate { value, slot, query });
                });
            }
        }
    }

    #[inline(always)]
    fn compare(&mut self) {
        let Buffers {
            candidates, found, ..
        } = &mut *self.buffers;
        for &Candidate { value, slot, query } in candidates.iter() {
            let Some(words) = self.segment.values().get(value as usize) else {
                continue;
            };
            let Some(asked) = self.queries.get(usize::from(query)) else {
                continue;
            };
            let distance = differing_bits(words, asked);
            if distance <= self.max
                && first_slot(self.segment, self.reaches, words, asked) == usize::from(slot)
            {
                found.push(Found {
                    value,
                    query,
                    distance: short(distance as usize),
                });
            }
        }
    }
}

/// The first slot in which two values are near enough to be found: where the pair is told, once.
#[cold]
fn first_slot(segment: &Segment, reaches: &[usize], a: &Words, b: &Words) -> usize {
    let near = |slot: &super::slot::Slot, reach: usize| {
        ((slot.shape.key(a) ^ slot.shape.key(b)).count_ones() as usize) < reach
    };
    let slots = segment.slots().iter().zip(reaches);
    slots
        .enumerate()
        .find(|(_, (slot, reach))| near(slot, **reach))
        .map_or(usize::MAX, |(number, _)| number)
}

/// Numbers of slots, of queries in a batch, and distances fit 16 bits.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "inherits the caller's instruction set"
)]
fn short(n: usize) -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "at most 64, 32 and 256")]
    let n = n as u16;
    n
}
