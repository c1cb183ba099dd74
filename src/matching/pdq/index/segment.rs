//! An immutable set of values with what finds them, and a count for each that may fall to nothing.

use std::sync::atomic::{AtomicU8, Ordering};

use super::layout::{self, MAX_REACH};
use super::slot::{BuildBuffers, Slot};
use crate::pdq::MAX_DISTANCE;
use crate::pdq::value::Words;

/// Numbers of values, and places in lists half as long again, fit 31 bits.
pub(super) const MAX_LEN: usize = 1 << 30;

/// Fewer values than this are scanned: that is faster than looking at slots.
const MIN_INDEXED: usize = 2_048;

/// A count that says: at least so many; the index knows how many.
pub(super) const MANY: u8 = u8::MAX;

/// Sorted, distinct values, their counts, and the slots that find near ones.
#[derive(Debug)]
pub(super) struct Segment {
    values: Box<[Words]>,
    counts: Box<[AtomicU8]>,
    slots: Vec<Slot>,
    /// Per distance, how far each slot is to be searched; nothing where a linear scan is cheaper.
    reaches: Vec<Option<Box<[usize]>>>,
}

impl Segment {
    /// Builds from sorted, distinct values with their counts.
    pub(super) fn build(entries: impl Iterator<Item = (Words, u8)>, threads: usize) -> Self {
        let mut segment = Self::plain(entries);
        if segment.values.len() >= MIN_INDEXED {
            segment.index(threads.max(1));
        }
        segment
    }

    /// Makes a segment that is only read in order.
    pub(super) fn plain(entries: impl IntoIterator<Item = (Words, u8)>) -> Self {
        let (values, counts): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .map(|(words, count)| (words, AtomicU8::new(count)))
            .unzip();
        Self {
            values: values.into(),
            counts: counts.into(),
            slots: Vec::new(),
            reaches: Vec::new(),
        }
    }

    fn index(&mut self, threads: usize) {
        let shapes = layout::shapes(self.values.len());
        let values = &self.values;
        let share = shapes.len().div_ceil(threads);
        self.slots = std::thread::scope(|scope| {
            let build = |shapes: &[layout::Shape]| {
                let mut buffers = BuildBuffers::default();
                shapes
                    .iter()
                    .map(|shape| Slot::build(*shape, values, &mut buffers))
                    .collect::<Vec<_>>()
            };
            let (mine, others) = shapes.split_at(share.min(shapes.len()));
            let others: Vec<_> = others
                .chunks(share)
                .map(|shapes| scope.spawn(move || build(shapes)))
                .collect();
            let mut slots = build(mine);
            for other in others {
                match other.join() {
                    Ok(built) => slots.extend(built),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            slots
        });
        self.reaches = (0..=MAX_DISTANCE)
            .map(|max| layout::reaches(&shapes, self.values.len(), max))
            .collect();
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    #[inline]
    pub(super) fn values(&self) -> &[Words] {
        &self.values
    }

    #[inline]
    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// How far each slot is to be searched for a distance; nothing: scan.
    pub(super) fn reaches(&self, max: u32) -> Option<&[usize]> {
        let reaches = self.reaches.get(usize::try_from(max).ok()?)?.as_deref()?;
        debug_assert!(reaches.iter().all(|reach| *reach <= MAX_REACH));
        Some(reaches)
    }

    /// Finds a live value.
    pub(super) fn find(&self, words: &Words) -> Option<usize> {
        let at = self.values.binary_search(words).ok()?;
        (self.count(at) > 0).then_some(at)
    }

    /// How often a value is held; [`MANY`] for more than fit.
    #[inline]
    pub(super) fn count(&self, at: usize) -> u8 {
        self.counts
            .get(at)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Sets how often a value is held. Queries see it at once.
    pub(super) fn set_count(&self, at: usize, count: u8) {
        if let Some(place) = self.counts.get(at) {
            place.store(count, Ordering::Relaxed);
        }
    }

    /// Live values in order, with their counts.
    pub(super) fn live(&self) -> impl Iterator<Item = (Words, u8)> + '_ {
        let counts = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        self.values
            .iter()
            .copied()
            .zip(counts)
            .filter(|(_, count)| *count > 0)
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.values)
            + self.counts.len()
            + self.slots.iter().map(Slot::memory).sum::<usize>()
    }
}
