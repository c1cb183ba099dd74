//! How an index changes: one writer at a time, under a lock that queries do not take.
//!
//! A value is live in at most one place. What was removed is never revived where it lies but inserted anew at the end:
//! a query may be between the two, and must not see it twice. What is being merged stays in place until the merged
//! segment replaces it; counts that change meanwhile are noted and carried over.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashpact_priority::let_others_at_times;

use super::segment::{MANY, MAX_LEN, Segment};
use super::tail::Tail;
use super::{PdqIndex, Place, State};
use crate::pdq::value::{Words, to_words};

/// A writer merges what is at most so large at once; larger segments are left to [`PdqIndex::merge`].
pub(super) const INLINE_MAX: usize = 32_768;

/// A merge takes a segment in as soon as those after it hold one in so many of its values.
const MERGE_RATIO: usize = 4;

/// Batches of fewer new values go to the tail.
const MIN_SEGMENT: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Writer {
    /// Exact counts of values held more often than a byte can say.
    many: HashMap<Words, u64>,
    pub(super) merge: Option<Merge>,
}

/// A merge under way.
#[derive(Debug)]
pub(super) struct Merge {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Values in `from..to` whose count changed since.
    changed: Vec<Words>,
}

impl Merge {
    pub(super) const fn new(from: usize, to: usize) -> Self {
        Self {
            from,
            to,
            changed: Vec::new(),
        }
    }

    /// Gives the values of `merged` the counts that they have in the segments `old` by now.
    pub(super) fn carry_over(&self, old: &[Arc<Segment>], merged: &Segment) {
        for words in &self.changed {
            let count = old
                .iter()
                .find_map(|segment| Some(segment.count(segment.find(words)?)));
            if let Some(at) = merged.find(words) {
                merged.set_count(at, count.unwrap_or(0));
            }
        }
    }
}

/// From which segment on they are to be merged if so many values come after them.
pub(super) fn merge_from(segments: &[Arc<Segment>], coming: usize) -> Option<usize> {
    let mut after = coming;
    let mut from = None;
    for (number, segment) in segments.iter().enumerate().rev() {
        if segment.len() <= after * MERGE_RATIO {
            from = Some(number);
        }
        after += segment.len();
    }
    from
}

impl PdqIndex {
    /// Inserts a value; returns how often it is held now.
    pub fn insert(&self, value: &[u8; 32]) -> u64 {
        self.add(&to_words(value), 1)
    }

    /// Removes a value once; returns how often it is still held, or nothing if it was not held.
    pub fn remove(&self, value: &[u8; 32]) -> Option<u64> {
        let words = to_words(value);
        let mut writer = self.writer();
        let state = self.state.load();
        let place = state.find(&words)?;
        let left = writer.held(&state, &place, &words).saturating_sub(1);
        self.hold(&mut writer, &state, &place, &words, left);
        Some(left)
    }

    /// Sets how often a value is held, whatever it was before; nought removes it.
    ///
    /// For callers that know the count and may say the same thing twice.
    pub fn set(&self, value: &[u8; 32], count: u64) {
        let words = to_words(value);
        let mut writer = self.writer();
        let state = self.state.load();
        match state.find(&words) {
            Some(place) => self.hold(&mut writer, &state, &place, &words, count),
            None if count > 0 => self.append(&mut writer, &state, &words, count),
            None => {}
        }
    }

    /// Inserts many values at once: much cheaper per value than one by one.
    ///
    /// Writers wait until it is done; queries do not. All of them are seen at once, except for those held already.
    pub fn extend(&self, values: impl IntoIterator<Item = [u8; 32]>, threads: usize) {
        let mut all: Vec<Words> = values.into_iter().map(|value| to_words(&value)).collect();
        all.sort_unstable();
        let mut writer = self.writer();
        let state = self.state.load_full();
        let mut new: Vec<(Words, u8)> = Vec::new();
        for run in all.chunk_by(|a, b| a == b) {
            let (Some(words), count) = (run.first(), run.len() as u64) else {
                continue;
            };
            if let Some(place) = state.find(words) {
                let held = writer.held(&state, &place, words);
                self.hold(
                    &mut writer,
                    &state,
                    &place,
                    words,
                    held.saturating_add(count),
                );
            } else {
                new.push((*words, writer.byte(words, count)));
            }
        }
        drop(all);
        self.values.fetch_add(new.len(), Ordering::Relaxed);
        if new.len() < MIN_SEGMENT {
            for (words, byte) in new {
                self.push(&mut writer, &words, byte);
            }
        } else {
            self.append_segment(&writer, &state, new, Arc::clone(&state.tail), threads);
        }
    }

    /// Merges segments if enough has gathered; says whether it did. To be called from a background task, again as long
    /// as it says so.
    ///
    /// Takes about a second per million values on one thread; writers and queries go on meanwhile.
    pub fn merge(&self, threads: usize) -> bool {
        self.merge_segments(threads, |segments| {
            let half_dead = || segments.iter().position(|segment| half_dead(segment));
            merge_from(segments, 0).or_else(half_dead)
        })
    }

    /// Merges all segments into one and drops what was removed: for when a bulk load is over, or nothing else to do.
    pub fn compact(&self, threads: usize) -> bool {
        self.merge_segments(threads, |segments| {
            let worth = segments.len() > 1
                || segments
                    .iter()
                    .any(|segment| segment.live().count() < segment.len());
            worth.then_some(0)
        })
    }

    fn merge_segments(
        &self,
        threads: usize,
        choose: impl FnOnce(&[Arc<Segment>]) -> Option<usize>,
    ) -> bool {
        let Ok(_alone) = self.merging.try_lock() else {
            return false;
        };
        let chosen = {
            let mut writer = self.writer();
            let state = self.state.load();
            let Some(from) = choose(&state.segments) else {
                return false;
            };
            let chosen: Vec<_> = state.segments.iter().skip(from).cloned().collect();
            writer.merge = Some(Merge::new(from, state.segments.len()));
            chosen
        };
        let values = merge_live(&chosen).inspect(|_| let_others_at_times());
        let merged = Segment::build(values, threads);
        self.install(&chosen, merged);
        true
    }

    /// Replaces the segments that were merged.
    fn install(&self, old: &[Arc<Segment>], merged: Segment) {
        let mut writer = self.writer();
        let Some(merge) = writer.merge.take() else {
            return;
        };
        merge.carry_over(old, &merged);
        let state = self.state.load();
        let mut segments = state.segments.clone();
        let merged = (merged.len() > 0).then(|| Arc::new(merged));
        segments.splice(merge.from..merge.to.min(segments.len()), merged);
        self.state.store(Arc::new(State {
            segments,
            tail: Arc::clone(&state.tail),
        }));
    }

    pub(super) fn add(&self, words: &Words, count: u64) -> u64 {
        let mut writer = self.writer();
        let state = self.state.load();
        if let Some(place) = state.find(words) {
            let held = writer.held(&state, &place, words).saturating_add(count);
            self.hold(&mut writer, &state, &place, words, held);
            return held;
        }
        self.append(&mut writer, &state, words, count);
        count
    }

    /// Sets the count of a live value.
    fn hold(&self, writer: &mut Writer, state: &State, place: &Place, words: &Words, count: u64) {
        let byte = writer.byte(words, count);
        match *place {
            Place::Tail(at) => state.tail.set_count(at, byte),
            Place::Segment(number, at) => {
                if let Some(segment) = state.segments.get(number) {
                    segment.set_count(at, byte);
                }
                writer.note(number, words);
            }
        }
        if count == 0 {
            self.values.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Appends a value that is nowhere live.
    fn append(&self, writer: &mut Writer, state: &State, words: &Words, count: u64) {
        let byte = writer.byte(words, count);
        self.values.fetch_add(1, Ordering::Relaxed);
        if !state.tail.push(words, byte) {
            self.seal(writer);
            self.push(writer, words, byte);
        }
    }

    fn push(&self, writer: &mut Writer, words: &Words, byte: u8) {
        if !self.state.load().tail.push(words, byte) {
            self.seal(writer);
            self.state.load().tail.push(words, byte);
        }
    }

    /// Makes a segment of the tail.
    fn seal(&self, writer: &Writer) {
        let state = self.state.load();
        let mut values: Vec<_> = state.tail.all().filter(|(_, count)| *count > 0).collect();
        values.sort_unstable();
        self.append_segment(writer, &state, values, Arc::new(Tail::new()), 1);
    }

    /// Appends a segment of `values`, sorted, taking in the small ones before it; queries see both changes at once.
    fn append_segment(
        &self,
        writer: &Writer,
        state: &State,
        values: Vec<(Words, u8)>,
        tail: Arc<Tail>,
        threads: usize,
    ) {
        let mut segments = state.segments.clone();
        let fixed = writer.merge.as_ref().map_or(0, |merge| merge.to);
        let mut taken = Vec::new();
        let mut len = values.len();
        while let Some(last) =
            segments.pop_if(|last| last.len() <= 2 * len && last.len() + len <= INLINE_MAX)
        {
            if segments.len() < fixed {
                segments.push(last);
                break;
            }
            len += last.len();
            taken.push(last);
        }
        let segment = if taken.is_empty() {
            Segment::build(values.into_iter().take(MAX_LEN), threads)
        } else {
            taken.push(Arc::new(Segment::plain(values)));
            Segment::build(merge_live(&taken), threads)
        };
        if segment.len() > 0 {
            segments.push(Arc::new(segment));
        }
        self.state.store(Arc::new(State { segments, tail }));
    }
}

impl Writer {
    /// How often a value is held.
    fn held(&self, state: &State, place: &Place, words: &Words) -> u64 {
        let byte = match *place {
            Place::Tail(at) => state.tail.count(at),
            Place::Segment(number, at) => state
                .segments
                .get(number)
                .map_or(0, |segment| segment.count(at)),
        };
        if byte < MANY {
            u64::from(byte)
        } else {
            self.many.get(words).copied().unwrap_or(u64::from(MANY))
        }
    }

    /// The byte that stands for a count; larger counts are noted.
    fn byte(&mut self, words: &Words, count: u64) -> u8 {
        match u8::try_from(count) {
            Ok(byte) if byte < MANY => {
                self.many.remove(words);
                byte
            }
            _ => {
                self.many.insert(*words, count);
                MANY
            }
        }
    }

    /// Notes that a count changed in a segment that is being merged.
    fn note(&mut self, number: usize, words: &Words) {
        if let Some(merge) = &mut self.merge
            && (merge.from..merge.to).contains(&number)
        {
            merge.changed.push(*words);
        }
    }
}

/// Says whether half of a segment was removed.
fn half_dead(segment: &Segment) -> bool {
    segment.live().count() * 2 < segment.len()
}

/// Merges the live values of segments in order. They are live in one segment only.
pub(super) fn merge_live(segments: &[Arc<Segment>]) -> impl Iterator<Item = (Words, u8)> + '_ {
    let mut sources: Vec<_> = segments
        .iter()
        .map(|segment| segment.live().peekable())
        .collect();
    std::iter::from_fn(move || {
        let next = |source: &mut std::iter::Peekable<_>| {
            source.peek().map(|(words, _): &(Words, u8)| *words)
        };
        let least = sources
            .iter_mut()
            .filter_map(|source| Some((next(source)?, source)))
            .min_by_key(|(words, _)| *words);
        least?.1.next()
    })
}
