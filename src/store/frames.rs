//! Frames of videos that were stored before frames had postings: a sweep at the first
//! open by a program that gives them some.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use hashpact_core::signal::SignalKind;
use rocksdb::WriteBatch;

use crate::counts::FeedCounts;
use crate::error::Result;
use crate::families::Family;
use crate::feeds::FeedState;
use crate::index::derive::derive;
use crate::keys::{self, FRAME_KIND, FeedNo};
use crate::store::{Inner, read, write};

/// Where it stands that the sweep is over, in `meta`.
const DONE: &[u8] = b"frames";
/// Leaves of one batch: at most some 7 MB of postings.
const BATCH_LEAVES: usize = 512;

/// Gives the frames of every vPDQ that is held their postings.
pub(crate) fn apply(inner: &Inner) -> Result<()> {
    if inner.get(Family::Meta, DONE)?.is_some() {
        return Ok(());
    }
    let mut videos: BTreeMap<FeedNo, Vec<u64>> = BTreeMap::new();
    let kind = SignalKind::Vpdq.number_byte();
    let (from, to) = ([kind], [kind.saturating_add(1)]);
    inner.scan(Family::Signals, &from, &to, |key, _| {
        let (no, index) = keys::read_signal(key)?;
        videos.entry(no).or_default().push(index);
        Ok(true)
    })?;
    for (no, mut indexes) in videos {
        let Some(state) = inner.feeds().by_no.get(&no).cloned() else {
            continue;
        };
        indexes.sort_unstable();
        indexes.dedup();
        let indexed = read(&state.live).row.indexed;
        // What is beyond is indexed again by the next commit.
        indexes.retain(|index| *index < indexed);
        for indexes in indexes.chunks(BATCH_LEAVES) {
            add(inner, &state, indexes)?;
        }
    }
    // Crash: before, the sweep runs again and finds what it did; after, it is over.
    let mut batch = WriteBatch::default();
    batch.put_cf(inner.cf(Family::Meta)?, DONE, []);
    inner.write_synced(batch, "noting that frames have postings")
}

/// Adds the postings of some leaves' frames, and counts them.
fn add(inner: &Inner, state: &FeedState, indexes: &[u64]) -> Result<()> {
    let mut row = read(&state.live).row.clone();
    let mut counts = FeedCounts::read(&row.counts);
    let mut batch = WriteBatch::default();
    for index in indexes.iter().copied() {
        let leaves = inner.leaves(state.no, row.stored, index, index.saturating_add(1))?;
        for leaf in leaves {
            let derived = derive(inner, state, index, &leaf)?;
            let frames = derived.postings.iter();
            for (key, record) in frames.filter(|(key, _)| key.first() == Some(&FRAME_KIND)) {
                let key = keys::signal(key, state.no, index);
                if inner.get(Family::Signals, key)?.is_some() {
                    continue;
                }
                let mut value = Vec::new();
                record.write(&mut value);
                batch.put_cf(inner.cf(Family::Signals)?, key, value);
                counts.postings = counts.postings.saturating_add(1);
                counts.frames = counts.frames.saturating_add(1);
                state.frames.fetch_add(1, Ordering::AcqRel);
            }
        }
    }
    row.counts = counts.to_row();
    // Crash: before, the next open adds them; after, it finds them and counts none twice.
    state.put_row(inner, &mut batch, &row)?;
    inner.write_synced(batch, "giving frames their postings")?;
    let mut live = write(&state.live);
    live.row = row;
    live.recount();
    Ok(())
}
