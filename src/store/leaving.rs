//! Feeds that are to go, though not at once: when, and by which leaf.

use hashpact_core::id::UnixMillis;
use rocksdb::WriteBatch;

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::{FeedStatus, part};
use crate::keys::FeedNo;
use crate::status;
use crate::store::{Inner, Store};

/// The part of the feeds family that says when the feed goes.
pub(crate) const PART_LEAVING: u8 = 5;

/// That a feed is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaving {
    /// When.
    pub due: UnixMillis,
    /// The describe leaf that ended the grant, held or not.
    pub index: u64,
}

impl Store {
    /// Says that a feed is to go, durably: until then it is [`FeedStatus::Leaving`], and
    /// [`Store::set_feed_status`] takes it back. One that is frozen, or answers nothing, stays
    /// so; answers whether it is to go.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`], or what RocksDB answers.
    pub fn set_leaving(&self, no: FeedNo, leaving: Leaving) -> Result<bool> {
        let inner = &*self.inner;
        let state = inner.feed(no)?;
        let mut live = state.live_mut();
        match live.status {
            FeedStatus::Active | FeedStatus::Leaving => {}
            FeedStatus::Frozen | FeedStatus::Silent | FeedStatus::Dropping => return Ok(false),
        }
        // Crash: before, the feed stays as it was; after, it is to go. Under another
        // status later the record is not looked at.
        let mut batch = WriteBatch::default();
        let record = [leaving.due.0.to_be_bytes(), leaving.index.to_be_bytes()].concat();
        batch.put_cf(inner.cf(Family::Feeds)?, part(no, PART_LEAVING), record);
        status::put(inner, &mut batch, &state, FeedStatus::Leaving)?;
        inner.write_synced(batch, "noting that a feed is to go")?;
        live.status = FeedStatus::Leaving;
        live.leaving = Some(leaving);
        Ok(true)
    }
}

/// Reads when a feed goes.
pub(crate) fn load(inner: &Inner, no: FeedNo) -> Result<Option<Leaving>> {
    let Some(record) = inner.get(Family::Feeds, part(no, PART_LEAVING))? else {
        return Ok(None);
    };
    let wrong = || StoreError::corrupt("when a feed is to go");
    let (due, index) = record.split_first_chunk::<8>().ok_or_else(wrong)?;
    let index: [u8; 8] = index.try_into().map_err(|_| wrong())?;
    Ok(Some(Leaving {
        due: UnixMillis(u64::from_be_bytes(*due)),
        index: u64::from_be_bytes(index),
    }))
}
