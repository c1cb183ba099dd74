//! The index of all live PDQ values, in memory: every value within a distance, none missed.
//!
//! It maps a value to the values near it; what is said about those is the store's to tell. Each distinct value is held
//! once, with a count of how often it was inserted.
//!
//! Shape: a few immutable [segments](segment), each with a multi-index of its own, and a short [tail] of the newest
//! values that is scanned. A full tail becomes a small segment; [`PdqIndex::merge`] makes large ones of small ones, and
//! the caller runs it from a background task. Removing a value sets its count to nothing; the next merge drops it.
//! Queries take no lock and wait for nobody: they read the list of segments as it was when they began, with the counts
//! as they are.
//!
//! Bounds: some 90 to 105 bytes per value with all overhead, twice that of the segments merged while a merge
//! runs; at most about ten segments. A query whose buckets hold more than one value in sixteen, whatever was put into
//! them by whom, is answered by a linear scan, so that no choice of values makes it slower than that.

mod arch;
mod layout;
pub(crate) mod linear;
mod load;
mod search;
mod segment;
mod slot;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use self::segment::Segment;
use self::tail::Tail;
use self::writer::Writer;
use super::MAX_DISTANCE;
use super::value::{Words, to_bytes, to_words};

/// A distance was asked for at which a match means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("distance {asked} is more than {MAX_DISTANCE}, the largest that can be asked for")]
pub struct DistanceTooLarge {
    /// What was asked for.
    pub asked: u32,
}

/// What an index holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Distinct live values.
    pub values: usize,
    /// Segments, the tail not counted.
    pub segments: usize,
    /// Values in the tail, removed ones too.
    pub tail: usize,
    /// Values of segments that were removed and not yet dropped by a merge.
    pub removed: usize,
    /// Bytes held.
    pub memory_bytes: usize,
}

/// All live PDQ values; shared between threads by reference.
#[derive(Debug)]
pub struct PdqIndex {
    state: ArcSwap<State>,
    writer: Mutex<Writer>,
    /// Held while a merge runs: one at a time.
    merging: Mutex<()>,
    values: AtomicUsize,
}

/// What queries see: replaced as a whole when segments change.
#[derive(Debug)]
struct State {
    /// Oldest first.
    segments: Vec<Arc<Segment>>,
    tail: Arc<Tail>,
}

impl Default for PdqIndex {
    fn default() -> Self {
        Self::new()
    }
}

impl PdqIndex {
    /// Makes an empty index.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            segments: Vec::new(),
            tail: Arc::new(Tail::new()),
        };
        Self {
            state: ArcSwap::from_pointee(state),
            writer: Mutex::default(),
            merging: Mutex::default(),
            values: AtomicUsize::new(0),
        }
    }

    /// Builds an index of `values`, on so many threads: how a node starts.
    ///
    /// Takes about 100 bytes per value while it builds. A value that occurs twice has a count of two.
    #[must_use]
    pub fn build(values: impl IntoIterator<Item = [u8; 32]>, threads: usize) -> Self {
        let index = Self::new();
        index.extend(values, threads);
        index
    }

    /// Counts the distinct live values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.load(Ordering::Relaxed)
    }

    /// Says whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Says whether this very value is held.
    #[must_use]
    pub fn contains(&self, value: &[u8; 32]) -> bool {
        self.state.load().find(&to_words(value)).is_some()
    }

    /// Tells `visit` each live value within `max` of `value`, once, with its distance, in no order.
    ///
    /// # Errors
    ///
    /// [`DistanceTooLarge`] if `max` is more than [`MAX_DISTANCE`].
    pub fn query(
        &self,
        value: &[u8; 32],
        max: u32,
        mut visit: impl FnMut(&[u8; 32], u32),
    ) -> Result<(), DistanceTooLarge> {
        self.query_batch(std::slice::from_ref(value), max, |_, value, distance| {
            visit(value, distance);
        })
    }

    /// Tells `visit` the position of a query, and each live value within `max` of it, once, with its distance.
    ///
    /// Faster than as many single queries, because 32 at a time share what is in the processor's cache.
    ///
    /// # Errors
    ///
    /// [`DistanceTooLarge`] if `max` is more than [`MAX_DISTANCE`].
    pub fn query_batch(
        &self,
        queries: &[[u8; 32]],
        max: u32,
        mut visit: impl FnMut(usize, &[u8; 32], u32),
    ) -> Result<(), DistanceTooLarge> {
        if max > MAX_DISTANCE {
            return Err(DistanceTooLarge { asked: max });
        }
        let state = self.state.load();
        for (batch, queries) in queries.chunks(search::BATCH).enumerate() {
            let first = batch * search::BATCH;
            let mut words = [[0; 4]; search::BATCH];
            for (words, query) in words.iter_mut().zip(queries) {
                *words = to_words(query);
            }
            let words = words.get(..queries.len()).unwrap_or_default();
            state.query(words, max, |query, value, distance| {
                visit(first + query, &to_bytes(value), distance);
            });
        }
        Ok(())
    }

    /// Tells what is held.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.state.load();
        let in_segments: usize = state.segments.iter().map(|segment| segment.len()).sum();
        let live: usize = state
            .segments
            .iter()
            .map(|segment| segment.live().count())
            .sum();
        Stats {
            values: self.len(),
            segments: state.segments.len(),
            tail: state.tail.len(),
            removed: in_segments - live.min(in_segments),
            memory_bytes: state
                .segments
                .iter()
                .map(|segment| segment.memory())
                .sum::<usize>()
                + tail::CAPACITY * 33,
        }
    }

    /// Locks what writers share. A writer that panicked left whole states behind: they are replaced at once.
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a live value is.
enum Place {
    Tail(usize),
    /// Number of the segment, number within it.
    Segment(usize, usize),
}

impl State {
    fn query(&self, queries: &[Words], max: u32, mut visit: impl FnMut(usize, &Words, u32)) {
        search::with_buffers(|buffers| {
            for segment in &self.segments {
                search::search(segment, queries, max, buffers, |query, value, distance| {
                    if let Some(words) = segment.values().get(value) {
                        visit(query, words, distance);
                    }
                });
            }
        });
        for (at, query) in queries.iter().enumerate() {
            self.tail
                .search(query, max, |words, distance| visit(at, words, distance));
        }
    }

    fn find(&self, words: &Words) -> Option<Place> {
        if let Some(at) = self.tail.find(words) {
            return Some(Place::Tail(at));
        }
        let mut segments = self.segments.iter().enumerate();
        segments.find_map(|(number, segment)| Some(Place::Segment(number, segment.find(words)?)))
    }
}
