//! Feeds of others that may be older here than what this node acted on before.
//!
//! A restored store says nothing of itself: what was taken back after the backup is alive
//! in it. Whoever notices a restore marks the feeds, durably, so that a second start does
//! not forget it; what look-ups find of a marked feed is to be reviewed. Who says that a
//! feed is the newest one again is the node's to judge.

use std::sync::Arc;

use rocksdb::WriteBatch;

use crate::error::Result;
use crate::families::Family;
use crate::feeds::{FeedInfo, FeedState, FeedStatus, Live, part};
use crate::keys::FeedNo;
use crate::store::{Inner, Store, read};

/// The part of the feeds family that is there while a feed is unconfirmed.
pub(crate) const PART_UNCONFIRMED: u8 = 6;
/// What it holds: a version.
const RECORD: [u8; 1] = [1];

impl Store {
    /// Marks all feeds that others publish; answers how many were not marked before.
    ///
    /// # Errors
    /// What RocksDB answers; then none is marked.
    pub fn doubt_feeds(&self) -> Result<usize> {
        let feeds = self.inner.feeds();
        let states = feeds.by_no.values().filter(|state| !state.own);
        self.doubt(states.cloned().collect())
    }

    /// Marks one feed, if others publish it; answers whether it was not marked before.
    ///
    /// # Errors
    /// As [`Store::doubt_feeds`], or [`StoreError::UnknownFeed`](crate::StoreError).
    pub fn doubt_feed(&self, no: FeedNo) -> Result<bool> {
        let state = self.inner.feed(no)?;
        if state.own {
            return Ok(false);
        }
        Ok(self.doubt(vec![state])? > 0)
    }

    fn doubt(&self, mut states: Vec<Arc<FeedState>>) -> Result<usize> {
        states.retain(|state| !read(&state.live).unconfirmed);
        let inner = &*self.inner;
        let mut batch = WriteBatch::default();
        for state in &states {
            let key = part(state.no, PART_UNCONFIRMED);
            batch.put_cf(inner.cf(Family::Feeds)?, key, RECORD);
        }
        // Crash: before, whoever noticed notices again; after, they are marked.
        inner.write_synced(batch, "marking feeds that may be old")?;
        for state in &states {
            state.live_mut().unconfirmed = true;
        }
        Ok(states.len())
    }

    /// Takes the mark off a feed; answers whether it had one.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`](crate::StoreError), or what RocksDB answers.
    pub fn confirm_feed(&self, no: FeedNo) -> Result<bool> {
        let inner = &*self.inner;
        let state = inner.feed(no)?;
        if !read(&state.live).unconfirmed {
            return Ok(false);
        }
        // Crash: before, it is asked for again; after, the feed counts.
        let mut batch = WriteBatch::default();
        batch.delete_cf(inner.cf(Family::Feeds)?, part(no, PART_UNCONFIRMED));
        inner.write_synced(batch, "confirming a feed")?;
        state.live_mut().unconfirmed = false;
        Ok(true)
    }

    /// The feeds that are marked, of those that are followed: others are at review anyway, or
    /// answer nothing.
    #[must_use]
    pub fn unconfirmed(&self) -> Vec<FeedInfo> {
        let feeds = self.inner.feeds();
        let infos = feeds.by_no.values().filter_map(|state| {
            let live = read(&state.live);
            is_waiting(&live).then(|| state.info_of(&live))
        });
        infos.collect()
    }

    /// Whether there are such; quick enough to be asked all the time.
    #[must_use]
    pub fn has_unconfirmed(&self) -> bool {
        let feeds = self.inner.feeds();
        let mut states = feeds.by_no.values();
        states.any(|state| is_waiting(&read(&state.live)))
    }
}

fn is_waiting(live: &Live) -> bool {
    live.unconfirmed && live.status == FeedStatus::Active
}

impl FeedInfo {
    /// Whether what look-ups find of it is to be reviewed, whatever else is said.
    #[must_use]
    pub const fn is_in_doubt(&self) -> bool {
        self.status.is_in_doubt() || self.unconfirmed
    }
}

/// Whether a feed is marked.
pub(crate) fn load(inner: &Inner, no: FeedNo) -> Result<bool> {
    let record = inner.get(Family::Feeds, part(no, PART_UNCONFIRMED))?;
    Ok(record.is_some())
}
