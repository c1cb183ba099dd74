//! The newest values: a short list that one thread appends to while others read it.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use crate::pdq::value::{Words, differing_bits};

/// Values held before they become a segment. A query scans them all: about a microsecond.
pub(super) const CAPACITY: usize = 1_024;

#[derive(Debug)]
pub(super) struct Tail {
    values: Box<[[AtomicU64; 4]]>,
    counts: Box<[AtomicU8]>,
    len: AtomicUsize,
}

impl Tail {
    pub(super) fn new() -> Self {
        Self {
            values: (0..CAPACITY).map(|_| Default::default()).collect(),
            counts: (0..CAPACITY).map(|_| AtomicU8::new(0)).collect(),
            len: AtomicUsize::new(0),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Appends a value; only one thread at a time may. Says whether there was room.
    pub(super) fn push(&self, words: &Words, count: u8) -> bool {
        let at = self.len();
        let (Some(place), Some(held)) = (self.values.get(at), self.counts.get(at)) else {
            return false;
        };
        for (place, word) in place.iter().zip(words) {
            place.store(*word, Ordering::Relaxed);
        }
        held.store(count, Ordering::Relaxed);
        // Whoever sees the new length sees the value.
        self.len.store(at + 1, Ordering::Release);
        true
    }

    /// All values with their counts, oldest first; those that are no longer held have none.
    pub(super) fn all(&self) -> impl Iterator<Item = (Words, u8)> + '_ {
        self.values
            .iter()
            .zip(&self.counts)
            .take(self.len())
            .map(|(value, count)| {
                let mut words = [0; 4];
                for (word, place) in words.iter_mut().zip(value) {
                    *word = place.load(Ordering::Relaxed);
                }
                (words, count.load(Ordering::Relaxed))
            })
    }

    /// Finds a live value.
    pub(super) fn find(&self, words: &Words) -> Option<usize> {
        self.all()
            .position(|(value, count)| count > 0 && value == *words)
    }

    pub(super) fn count(&self, at: usize) -> u8 {
        self.counts
            .get(at)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn set_count(&self, at: usize, count: u8) {
        if let Some(place) = self.counts.get(at) {
            place.store(count, Ordering::Relaxed);
        }
    }

    /// Tells `each` the values within `max` of `query` that are held, and their distances.
    pub(super) fn search(&self, query: &Words, max: u32, mut each: impl FnMut(&Words, u32)) {
        super::arch::run(Scan {
            tail: self,
            query,
            max,
            each: &mut each,
        });
    }
}

struct Scan<'a, F> {
    tail: &'a Tail,
    query: &'a Words,
    max: u32,
    each: &'a mut F,
}

impl<F: FnMut(&Words, u32)> pulp::NullaryFnOnce for Scan<'_, F> {
    type Output = ();

    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "inherits the caller's instruction set"
    )]
    fn call(self) {
        for (words, count) in self.tail.all() {
            let distance = differing_bits(&words, self.query);
            if distance <= self.max && count > 0 {
                (self.each)(&words, distance);
            }
        }
    }
}
