//! Frames of videos: how many those of one publisher may have in memory.
//!
//! Whoever keeps an index of near frames holds each of them, some 360 bytes, while a frame
//! is 37 bytes of a leaf: what bounds the disk bounds no memory. So of entries beyond
//! [`publisher_frames_max`](crate::StoreOptions::publisher_frames_max) no frame gets a
//! posting, and their vPDQ waits in quarantine ([`Reason::Frames`]); their other signals
//! count. When there is room again, or an operator says so, they get them
//! ([`Store::let_frames_in`]). Own feeds are not bounded.
//!
//! [`FeedCounts::frames`](crate::FeedCounts) counts what was given as leaves came. What was
//! let in later is in its lot as released, and counted anew at each open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashpact_core::id::MemberNumber;
use hashpact_core::leaf::RawLeaf;
use hashpact_core::signal::SignalKind;
use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use crate::counts::FeedCounts;
use crate::error::Result;
use crate::families::Family;
use crate::feeds::{FeedState, part_row};
use crate::index::derive::{Derived, derive};
use crate::index::put_sorted;
use crate::keys::{self, FRAME_KIND, FeedNo};
use crate::leaves::{page_end, page_start};
use crate::quarantine::{Decision, Lot, LotName, Quarantine, Reason};
use crate::store::{Inner, Store, hold, read};
use crate::watch::Coming;

/// What the frames of one publisher may be where nothing else is set: some 360 MB of
/// memory, by the 360 bytes that a frame takes.
pub const PUBLISHER_FRAMES_MAX: u64 = 1_000_000;
/// The lot of entries whose frames found no room.
pub(crate) const LOT: LotName = LotName {
    reason: Reason::Frames,
    kind: SignalKind::Vpdq.number_byte(),
};
/// Leaves of one batch, and of one round: each has 200 frames at most.
const BATCH_LEAVES: usize = 64;
/// Video entries after which it is looked anew which feeds a publisher has.
const LOOK_EVERY: u32 = 256;

/// The frames that one commit takes room for; given back where it fails.
pub(crate) struct FrameClaim {
    state: Arc<FeedState>,
    claimed: u64,
    /// The publisher's feeds, and how long that was not looked at.
    feeds: Vec<Arc<FeedState>>,
    since: u32,
}

impl FrameClaim {
    pub(crate) const fn new(state: Arc<FeedState>) -> Self {
        Self {
            state,
            claimed: 0,
            feeds: Vec::new(),
            since: 0,
        }
    }

    /// Takes room for the frames of a leaf that is about to be indexed; where there is
    /// none it is held back without them.
    pub(crate) fn check(&mut self, inner: &Inner, derived: &mut Derived) {
        if derived.frames == 0 {
            return;
        }
        let lot = decided(&self.state, derived.index);
        let more = derived.frames;
        let fits = match lot {
            Some(Decided::Released) => {
                self.state.frames.fetch_add(more, Ordering::AcqRel);
                self.claimed = self.claimed.saturating_add(more);
                // They get postings, and stand in no count: see `uncounted`.
                (derived.frames, derived.frames_uncounted) = (0, more);
                return;
            }
            Some(Decided::Withheld) => false,
            None => self.state.own || self.take(inner, more),
        };
        if !fits {
            derived.leave_out_frames();
            derived.held.push(LOT);
        }
    }

    fn take(&mut self, inner: &Inner, more: u64) -> bool {
        if self.since.is_multiple_of(LOOK_EVERY) {
            self.feeds = of_publisher(inner, &self.state);
        }
        self.since = self.since.wrapping_add(1);
        // Taken before it is counted, so that no two commits take the same room.
        self.state.frames.fetch_add(more, Ordering::AcqRel);
        let used = sum(&self.feeds);
        if used > inner.options.publisher_frames_max {
            self.state.frames.fetch_sub(more, Ordering::AcqRel);
            return false;
        }
        self.claimed = self.claimed.saturating_add(more);
        true
    }

    /// They are durable.
    pub(crate) const fn keep(&mut self) {
        self.claimed = 0;
    }
}

impl Drop for FrameClaim {
    fn drop(&mut self) {
        give_back(&self.state, self.claimed);
    }
}

/// What the lot says of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decided {
    Withheld,
    Released,
}

fn decided(state: &FeedState, index: u64) -> Option<Decided> {
    let live = read(&state.live);
    let lot = live.quarantine.lots.get(&LOT)?;
    if lot.withholds(index) {
        return Some(Decided::Withheld);
    }
    lot.released.contains(index).then_some(Decided::Released)
}

/// The leaves whose frames are not in the feed's counts, whatever was decided of them.
pub(crate) fn uncounted(quarantine: &Quarantine) -> RoaringTreemap {
    quarantine.lots.get(&LOT).map(Lot::all).unwrap_or_default()
}

/// The leaves whose frames have no postings.
pub(crate) fn without_frames(quarantine: &Quarantine) -> RoaringTreemap {
    let lot = quarantine.lots.get(&LOT);
    lot.map(|lot| &lot.held | &lot.dropped).unwrap_or_default()
}

/// A leaf's frames go with its payload.
pub(crate) fn give_back(state: &FeedState, frames: u64) {
    let less = |held: u64| Some(held.saturating_sub(frames));
    // It always has something to set.
    let _ = state
        .frames
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
}

fn of_publisher(inner: &Inner, of: &FeedState) -> Vec<Arc<FeedState>> {
    let feeds = inner.feeds();
    let same = feeds
        .by_no
        .values()
        .filter(|state| state.publisher == of.publisher && !state.own);
    same.cloned().collect()
}

fn sum(feeds: &[Arc<FeedState>]) -> u64 {
    let each = feeds
        .iter()
        .map(|state| state.frames.load(Ordering::Acquire));
    each.fold(0, u64::saturating_add)
}

impl Store {
    /// Frames of a feed that are in its index.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`](crate::StoreError).
    pub fn frames(&self, no: FeedNo) -> Result<u64> {
        Ok(self.inner.feed(no)?.frames.load(Ordering::Acquire))
    }

    /// The feeds of which videos wait for room, and whose publishers have some.
    #[must_use]
    pub fn feeds_with_frame_room(&self) -> Vec<FeedNo> {
        let mut waiting = self.feeds_waiting(Reason::Frames);
        if waiting.is_empty() {
            return waiting;
        }
        let feeds = self.inner.feeds();
        let mut used: BTreeMap<MemberNumber, u64> = BTreeMap::new();
        for state in feeds.by_no.values().filter(|state| !state.own) {
            let of_publisher = used.entry(state.publisher).or_default();
            *of_publisher = of_publisher.saturating_add(state.frames.load(Ordering::Acquire));
        }
        let max = self.inner.options.publisher_frames_max;
        waiting.retain(|no| {
            let publisher = feeds.by_no.get(no).map(|state| state.publisher);
            publisher.is_some_and(|of| used.get(&of).is_none_or(|used| *used < max))
        });
        waiting
    }

    /// Gives videos that wait their frames, the first first, as far as there is room, and
    /// a bounded number of them; answers how many.
    ///
    /// # Errors
    /// What the store answers; those before it are in.
    pub fn let_frames_in(&self, no: FeedNo) -> Result<u64> {
        let state = self.inner.feed(no)?;
        let waiting: Vec<u64> = {
            let live = read(&state.live);
            let held = live.quarantine.lots.get(&LOT).map(|lot| &lot.held);
            let living = held.into_iter().flatten();
            let living = living.filter(|index| !live.liveness.is_dead(*index));
            living.take(BATCH_LEAVES).collect()
        };
        let max = self.inner.options.publisher_frames_max;
        let feeds = of_publisher(&self.inner, &state);
        let mut left = max.saturating_sub(sum(&feeds));
        let mut fits = RoaringTreemap::new();
        for index in waiting {
            let frames = match leaf_at(&self.inner, &state, index)? {
                leaf if leaf.is_elided() => 0,
                leaf => derive(&self.inner, &state, index, &leaf)?.frames,
            };
            let Some(rest) = left.checked_sub(frames) else {
                break;
            };
            left = rest;
            fits.insert(index);
        }
        let_in(&self.inner, &state, &fits)?;
        Ok(fits.len())
    }
}

fn leaf_at(inner: &Inner, state: &FeedState, index: u64) -> Result<RawLeaf> {
    let stored = read(&state.live).row.stored;
    let mut leaf = inner.leaves(state.no, stored, index, index.saturating_add(1))?;
    leaf.pop()
        .ok_or(crate::error::StoreError::corrupt("a leaf is missing"))
}

/// Gives leaves of the lot their frames, whatever room there is, and releases them.
pub(crate) fn let_in(inner: &Inner, state: &FeedState, leaves: &RoaringTreemap) -> Result<()> {
    let mut rest = leaves.iter().peekable();
    while rest.peek().is_some() {
        let batch: RoaringTreemap = rest.by_ref().take(BATCH_LEAVES).collect();
        let_batch_in(inner, state, &batch)?;
    }
    Ok(())
}

fn let_batch_in(inner: &Inner, state: &FeedState, leaves: &RoaringTreemap) -> Result<()> {
    let turn = hold(&state.quarantine_turn);
    // ⚠ No payload is dropped meanwhile: else what was erased would get its postings back.
    let payloads = hold(&inner.purges);
    // Crash: before, they wait; after, they are released with all their postings.
    let mut batch = WriteBatch::default();
    let (mut coming, mut more) = (Coming::default(), 0_u64);
    for (index, leaf) in read_all(inner, state, leaves)? {
        if leaf.is_elided() {
            continue;
        }
        let mut derived = derive(inner, state, index, &leaf)?;
        derived.keep_frames_alone();
        more = more.saturating_add(derived.frames);
        put_sorted(inner, &mut batch, state.no, &derived)?;
        coming.note(inner, (state.no, index), &derived.postings);
    }
    let told = coming.finish(inner, state.no);
    let pending = state.put_decision(inner, &mut batch, LOT, leaves, Decision::Release)?;
    inner.write_synced(batch, "letting videos in")?;
    drop(payloads);
    state.frames.fetch_add(more, Ordering::AcqRel);
    state.set_quarantine(pending);
    drop(turn);
    drop(told);
    Ok(())
}

/// Reads leaves, each page once.
pub(crate) fn read_all(
    inner: &Inner,
    state: &FeedState,
    leaves: &RoaringTreemap,
) -> Result<Vec<(u64, RawLeaf)>> {
    let stored = read(&state.live).row.stored;
    let mut all = Vec::new();
    let mut page: Option<(u64, Vec<RawLeaf>)> = None;
    for index in leaves.iter().take_while(|index| *index < stored) {
        let start = page_start(index);
        if page.as_ref().is_none_or(|(at, _)| *at != start) {
            let end = page_end(index).min(stored);
            page = Some((start, inner.leaves(state.no, stored, start, end)?));
        }
        let at = usize::try_from(index.saturating_sub(start)).unwrap_or(usize::MAX);
        let leaf = page.as_ref().and_then(|(_, leaves)| leaves.get(at));
        all.extend(leaf.map(|leaf| (index, leaf.clone())));
    }
    Ok(all)
}

/// Counts the frames of a feed that is loaded: those of its counts, and those that were
/// let in later.
pub(crate) fn load(inner: &Inner, state: &FeedState) -> Result<()> {
    let (counted, released) = {
        let live = read(&state.live);
        let released = live
            .quarantine
            .lots
            .get(&LOT)
            .map(|lot| lot.released.clone());
        (FeedCounts::read(&live.row.counts).frames, released)
    };
    let mut frames = counted;
    for (index, leaf) in read_all(inner, state, &released.unwrap_or_default())? {
        if !leaf.is_elided() {
            frames = frames.saturating_add(derive(inner, state, index, &leaf)?.frames);
        }
    }
    state.frames.store(frames, Ordering::Release);
    Ok(())
}

/// Counts the frames of every feed of a store from before they were counted.
pub(crate) fn migrate(inner: &Inner) -> Result<()> {
    // Of each feed, how far it is indexed, and its frames below.
    let mut feeds: BTreeMap<FeedNo, (u64, u64)> = BTreeMap::new();
    let (from, to) = ([FRAME_KIND], [FRAME_KIND.saturating_add(1)]);
    inner.scan(Family::Signals, &from, &to, |key, _| {
        let (no, index) = keys::read_signal(key)?;
        // What a feed that is gone left is nobody's.
        let indexed = || part_row(inner, no).map_or(0, |row| row.indexed);
        let (indexed, frames) = feeds.entry(no).or_insert_with(|| (indexed(), 0));
        if index < *indexed {
            *frames = frames.saturating_add(1);
        }
        Ok(true)
    })?;
    for (no, (_, counted)) in feeds.into_iter().filter(|(_, (_, n))| *n > 0) {
        let mut row = part_row(inner, no)?;
        let mut counts = FeedCounts::read(&row.counts);
        counts.frames = counted;
        row.counts = counts.to_row();
        // Crash: before, they are counted again; after, they are.
        let mut batch = WriteBatch::default();
        let key = crate::feeds::row_key(no);
        batch.put_cf(inner.cf(Family::Feeds)?, key, crate::record::seal(&row));
        inner.write_synced(batch, "counting frames")?;
    }
    Ok(())
}
