//! A load: many values at once, built into one segment with those it belongs to while queries and writers go on.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use hashpact_priority::let_others_at_times;

use super::segment::{MANY, MAX_LEN, Segment};
use super::writer::{Merge, merge_from, merge_live};
use super::{PdqIndex, State};
use crate::pdq::value::{Words, to_words};

impl PdqIndex {
    /// Inserts many values at once, as [`extend`](Self::extend) does, and merges segments as [`merge`](Self::merge)
    /// would afterwards. Queries never look in one place more than before, and other writers go on meanwhile.
    ///
    /// Takes about a second per million values of what is merged, on one thread, and twice its memory. All of them
    /// are seen at once, except for those held already.
    pub fn load(&self, values: impl IntoIterator<Item = [u8; 32]>, threads: usize) {
        let mut all: Vec<Words> = values.into_iter().map(|value| to_words(&value)).collect();
        all.sort_unstable_by(|a, b| {
            let_others_at_times();
            a.cmp(b)
        });
        // A merge under way ends first: its segment is one that this may take in.
        let _alone = self.merging.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, from) = {
            let mut writer = self.writer();
            let state = self.state.load_full();
            let to = state.segments.len();
            let from = merge_from(&state.segments, all.len()).unwrap_or(to);
            writer.merge = Some(Merge::new(from, to));
            (state, from)
        };
        let chosen: Vec<_> = state.segments.iter().skip(from).cloned().collect();
        // What is held somewhere is counted where it lies, once the rest is in.
        let mut held = Vec::new();
        let new = all.chunk_by(|a, b| a == b).filter_map(|run| {
            let_others_at_times();
            let (words, count) = (*run.first()?, run.len() as u64);
            if state.find(&words).is_some() {
                held.push((words, count));
                return None;
            }
            let byte = u8::try_from(count).ok().filter(|byte| *byte < MANY);
            if byte.is_none() {
                held.push((words, count.saturating_sub(1)));
            }
            Some((words, byte.unwrap_or(1)))
        });
        let new = Segment::plain(new.take(MAX_LEN));
        drop(all);
        let new = Arc::new(new);
        let parts: Vec<_> = chosen.iter().chain([&new]).cloned().collect();
        let values = merge_live(&parts).inspect(|_| let_others_at_times());
        let merged = Segment::build(values, threads);
        self.install_load(&parts, &new, merged, &mut held);
        drop(parts);
        for (words, count) in held {
            self.add(&words, count);
        }
    }

    /// Replaces the segments that were merged; notes in `held` what somebody else inserted meanwhile.
    fn install_load(
        &self,
        parts: &[Arc<Segment>],
        new: &Segment,
        merged: Segment,
        held: &mut Vec<(Words, u64)>,
    ) {
        let mut writer = self.writer();
        let Some(merge) = writer.merge.take() else {
            return;
        };
        merge.carry_over(parts, &merged);
        let state = self.state.load();
        let mut added = new.len();
        let later = state.segments.iter().skip(merge.to);
        let later = later.flat_map(|segment| segment.live());
        for (words, count) in later.chain(state.tail.all()) {
            let at = merged.find(&words).filter(|_| count > 0);
            if let Some(at) = at {
                held.push((words, u64::from(merged.count(at))));
                merged.set_count(at, 0);
                added = added.saturating_sub(1);
            }
        }
        self.values.fetch_add(added, Ordering::Relaxed);
        let mut segments = state.segments.clone();
        let merged = (merged.len() > 0).then(|| Arc::new(merged));
        segments.splice(merge.from..merge.to.min(segments.len()), merged);
        self.state.store(Arc::new(State {
            segments,
            tail: Arc::clone(&state.tail),
        }));
    }
}
