//! What the operator sees of the quarantine, and decides.
//!
//! Owns no state: the lots are the feed's. Callers have checked that they may decide;
//! a decision is durable before it is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use roaring::RoaringTreemap;

use super::{Decision, LotName, Reason};
use crate::error::Result;
use crate::feeds::FeedState;
use crate::frame_room;
use crate::keys::FeedNo;
use crate::store::{Store, read};

/// One lot of a feed, as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LotInfo {
    /// Its name.
    pub name: LotName,
    /// Leaves that wait; dead ones are not counted.
    pub held: u64,
    /// Leaves that the operator released.
    pub released: u64,
    /// Leaves that the operator dropped.
    pub dropped: u64,
    /// The first and the last leaf that waits; zeros where none does.
    pub first: u64,
    /// The last one.
    pub last: u64,
}

/// A leaf in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedLeaf {
    /// Its index.
    pub index: u64,
    /// The lots that withhold it.
    pub lots: Vec<LotName>,
    /// Whether the operator dropped it.
    pub dropped: bool,
}

/// Which leaves of a feed are meant.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    /// Of this reason only.
    pub reason: Option<Reason>,
    /// These only; all where `None`.
    pub leaves: Option<BTreeSet<u64>>,
}

/// A lot with the number of its leaves, and where they lie: first indexes and counts.
pub type WaitingLot = (LotName, u64, Vec<(u64, u64)>);

/// Leaves of all lots that are looked at for where they lie: some 1 ms.
const SCANNED_MAX: usize = 65_536;

/// The first ranges of ascending indexes.
fn ranges(indexes: impl Iterator<Item = u64>, limit: usize) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for index in indexes {
        let full = ranges.len() >= limit;
        match ranges.last_mut() {
            Some((first, count)) if first.saturating_add(*count) == index => {
                *count = count.saturating_add(1);
            }
            Some(_) | None if full => break,
            Some(_) | None => ranges.push((index, 1)),
        }
    }
    ranges
}

impl Store {
    /// The lots of a feed.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`].
    pub fn quarantine(&self, no: FeedNo) -> Result<Vec<LotInfo>> {
        let state = self.inner.feed(no)?;
        let live = read(&state.live);
        let infos = live.quarantine.lots.iter().map(|(name, lot)| LotInfo {
            name: *name,
            held: live.liveness.count_living(&lot.held),
            released: lot.released.len(),
            dropped: lot.dropped.len(),
            first: lot.held.min().unwrap_or(0),
            last: lot.held.max().unwrap_or(0),
        });
        Ok(infos.collect())
    }

    /// The feeds in which leaves wait for this reason, dead ones included: quick enough
    /// to be asked all the time.
    #[must_use]
    pub fn feeds_waiting(&self, reason: Reason) -> Vec<FeedNo> {
        let feeds = self.inner.feeds();
        let waits = |state: &&Arc<FeedState>| {
            let live = read(&state.live);
            let mut lots = live.quarantine.lots.iter();
            lots.any(|(name, lot)| name.reason == reason && !lot.held.is_empty())
        };
        feeds
            .by_no
            .values()
            .filter(waits)
            .map(|state| state.no)
            .collect()
    }

    /// How many leaves of a feed wait, for any reason.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`].
    pub fn waiting(&self, no: FeedNo) -> Result<u64> {
        let state = self.inner.feed(no)?;
        let live = read(&state.live);
        let mut waiting = RoaringTreemap::new();
        let lots = live.quarantine.lots.values();
        lots.for_each(|lot| waiting |= &lot.held);
        Ok(live.liveness.count_living(&waiting))
    }

    /// Leaves of a feed that wait, from index `from` on, or with `dropped` those that
    /// the operator dropped; dead ones are left out.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`].
    pub fn quarantined(
        &self,
        no: FeedNo,
        reason: Option<Reason>,
        dropped: bool,
        from: u64,
        limit: usize,
    ) -> Result<Vec<QuarantinedLeaf>> {
        let state = self.inner.feed(no)?;
        let live = read(&state.live);
        let mut found: BTreeMap<u64, Vec<LotName>> = BTreeMap::new();
        for (name, lot) in &live.quarantine.lots {
            let set = if dropped { &lot.dropped } else { &lot.held };
            let mut leaves = set.iter();
            leaves.advance_to(from);
            let living = leaves.filter(|index| !live.liveness.is_dead(*index));
            if reason.is_none_or(|reason| reason == name.reason) {
                for index in living.take(limit) {
                    found.entry(index).or_default().push(*name);
                }
            }
        }
        let leaf = |(index, lots)| QuarantinedLeaf {
            index,
            lots,
            dropped,
        };
        Ok(found.into_iter().take(limit).map(leaf).collect())
    }

    /// What of a feed waits, of the lots that are asked for: how many leaves, and where
    /// the first of them lie, as first index and count, in at most `limit` ranges over
    /// all lots; dead ones are left out.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`].
    pub fn waiting_ranges(
        &self,
        no: FeedNo,
        asked: impl Fn(&LotName) -> bool,
        limit: usize,
    ) -> Result<Vec<WaitingLot>> {
        let state = self.inner.feed(no)?;
        let live = read(&state.live);
        let lots = live.quarantine.lots.iter();
        let counted = lots
            .filter(|(name, _)| asked(name))
            .map(|(name, lot)| (*name, live.liveness.count_living(&lot.held), &lot.held));
        let waiting: Vec<_> = counted.filter(|(_, count, _)| *count > 0).collect();
        let each = limit.checked_div(waiting.len()).unwrap_or(0);
        let scanned = SCANNED_MAX.checked_div(waiting.len()).unwrap_or(0);
        let told = waiting.into_iter().map(|(name, count, held)| {
            let living = held.iter().take(scanned);
            let living = living.filter(|index| !live.liveness.is_dead(*index));
            (name, count, ranges(living, each))
        });
        Ok(told.collect())
    }

    /// Which lots withhold a leaf.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`].
    pub fn withheld(&self, no: FeedNo, index: u64) -> Result<Vec<LotName>> {
        let state = self.inner.feed(no)?;
        let live = read(&state.live);
        let lots = live.quarantine.lots.iter();
        let of = lots.filter(|(_, lot)| lot.withholds(index));
        Ok(of.map(|(name, _)| *name).collect())
    }

    /// Carries the operator's decision out, durably; answers how many leaves it
    /// changed. A release takes dropped leaves, too, where they are named.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`], or what RocksDB answers.
    pub fn decide_quarantine(
        &self,
        no: FeedNo,
        chosen: &Chosen,
        decision: Decision,
    ) -> Result<u64> {
        let named: Option<RoaringTreemap> = chosen
            .leaves
            .as_ref()
            .map(|leaves| leaves.iter().copied().collect());
        let state = self.inner.feed(no)?;
        let of_frames = chosen.reason.is_none_or(|reason| reason == Reason::Frames);
        let videos = match decision {
            Decision::Release if of_frames => videos_of(&state, named.as_ref()),
            Decision::Release | Decision::Drop => RoaringTreemap::new(),
        };
        // Before all else: once released they are found by their frames.
        frame_room::let_in(&self.inner, &state, &videos)?;
        state.change_quarantine(&self.inner, |quarantine| {
            let lots = quarantine.lots.iter_mut();
            let mut changed: BTreeMap<LotName, RoaringTreemap> = lots
                .filter(|(name, _)| chosen.reason.is_none_or(|reason| reason == name.reason))
                .map(|(name, lot)| {
                    let all = lot.held.clone();
                    (*name, lot.decide(named.as_ref().unwrap_or(&all), decision))
                })
                .collect();
            *changed.entry(frame_room::LOT).or_default() |= videos;
            changed
        })
    }

    /// Takes all leaves that wait for one reason out of quarantine, as if they had
    /// never been held; answers how many.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`], or what RocksDB answers.
    pub fn lift_quarantine(&self, no: FeedNo, reason: Reason) -> Result<u64> {
        let state = self.inner.feed(no)?;
        state.change_quarantine(&self.inner, |quarantine| {
            let lots = quarantine.lots.iter_mut();
            lots.filter(|(name, _)| name.reason == reason)
                .map(|(name, lot)| (*name, std::mem::take(&mut lot.held)))
                .collect()
        })
    }
}

/// The videos without frames that a release is about.
fn videos_of(state: &FeedState, named: Option<&RoaringTreemap>) -> RoaringTreemap {
    let live = read(&state.live);
    match (live.quarantine.lots.get(&frame_room::LOT), named) {
        (None, _) => RoaringTreemap::new(),
        (Some(lot), None) => lot.held.clone(),
        (Some(lot), Some(named)) => (&lot.held | &lot.dropped) & named,
    }
}
