//! What a feed's status means for look-ups, and how it is kept.
//!
//! ⚠ It has a record of its own: the feed's row is the writer's, which reads it when it
//! begins to store and writes it when that is done, maybe seconds later. Who freezes a feed
//! meanwhile neither waits for that nor is undone by it, nor takes back what it stored.

use std::ops::RangeInclusive;

use rocksdb::WriteBatch;

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::{FeedState, FeedStatus, Live, identities, part, part_row};
use crate::forks::{self, ForkName};
use crate::keys::FeedNo;
use crate::store::{Inner, Store};

/// The part of the feeds family that says what the node may do with the feed.
pub(crate) const PART_STATUS: u8 = 7;

impl Store {
    /// Says what the node may do with a feed, durably. Nothing is said of a feed that is being
    /// removed.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`], or what RocksDB answers.
    pub fn set_feed_status(&self, no: FeedNo, status: FeedStatus) -> Result<()> {
        self.change_status(no, |_| Ok(Some(status))).map(drop)
    }

    /// Freezes a feed, durably, unless it answers nothing; answers whether it is frozen.
    ///
    /// # Errors
    /// As [`Store::set_feed_status`].
    pub fn freeze_feed(&self, no: FeedNo) -> Result<bool> {
        let now = self.change_status(no, |live| {
            Ok(live.status.answers().then_some(FeedStatus::Frozen))
        })?;
        Ok(now == FeedStatus::Frozen)
    }

    /// Lets a feed be followed, or again, durably: [`FeedStatus::Frozen`] instead where its
    /// publisher is known to have forked it in one of `epochs`, whoever keeps evidence of that
    /// at this moment. Answers which.
    ///
    /// # Errors
    /// As [`Store::set_feed_status`].
    pub fn follow_feed(&self, no: FeedNo, epochs: RangeInclusive<u32>) -> Result<FeedStatus> {
        let state = self.inner.feed(no)?;
        self.change_status(no, |_| followed(&self.inner, &state, epochs).map(Some))
    }

    /// Changes the status to what `change` answers of the feed as it is, if anything; answers
    /// what it is then. Other changes of the feed wait.
    fn change_status(
        &self,
        no: FeedNo,
        change: impl FnOnce(&Live) -> Result<Option<FeedStatus>>,
    ) -> Result<FeedStatus> {
        let inner = &*self.inner;
        let state = inner.feed(no)?;
        let mut live = state.live_mut();
        if live.status == FeedStatus::Dropping {
            return Ok(live.status);
        }
        let next = change(&live)?.unwrap_or(live.status);
        if next == live.status {
            return Ok(next);
        }
        // Crash: before, the old status stands; after, the new one.
        let mut batch = WriteBatch::default();
        put(inner, &mut batch, &state, next)?;
        inner.write_synced(batch, "changing a feed's status")?;
        live.status = next;
        Ok(next)
    }
}

/// What a feed is that is to be followed; to be asked while its state is held for writing.
/// ⚠ Evidence is kept before the feed is frozen for it, and that waits for this.
pub(crate) fn followed(
    inner: &Inner,
    state: &FeedState,
    epochs: RangeInclusive<u32>,
) -> Result<FeedStatus> {
    let (feed, publisher) = (state.id, state.publisher);
    for epoch in epochs {
        if forks::knows(inner, publisher, &ForkName { feed, epoch })? {
            return Ok(FeedStatus::Frozen);
        }
    }
    Ok(FeedStatus::Active)
}

/// Adds the status to a batch.
pub(crate) fn put(
    inner: &Inner,
    batch: &mut WriteBatch,
    state: &FeedState,
    status: FeedStatus,
) -> Result<()> {
    let record = status.number().to_be_bytes();
    batch.put_cf(
        inner.cf(Family::Feeds)?,
        part(state.no, PART_STATUS),
        record,
    );
    Ok(())
}

/// Reads a feed's status.
pub(crate) fn load(inner: &Inner, no: FeedNo) -> Result<FeedStatus> {
    let record = inner.get(Family::Feeds, part(no, PART_STATUS))?;
    let number = record.and_then(|record| <[u8; 4]>::try_from(record).ok());
    let number = number.ok_or(StoreError::corrupt("a feed's status"))?;
    FeedStatus::read(u32::from_be_bytes(number))
}

/// Schema 8 to 9: what rows said of it until then.
pub(crate) fn migrate(inner: &Inner) -> Result<()> {
    let mut batch = WriteBatch::default();
    for (no, _) in identities(inner)? {
        let status = FeedStatus::read(part_row(inner, no)?.status_before)?;
        let record = status.number().to_be_bytes();
        batch.put_cf(inner.cf(Family::Feeds)?, part(no, PART_STATUS), record);
    }
    // Crash: before, it runs again; after, each feed has a record.
    inner.write_synced(batch, "giving each feed's status a record")
}

impl FeedStatus {
    /// Whether what look-ups find of it is to be reviewed, whatever else is said.
    #[must_use]
    pub const fn is_in_doubt(self) -> bool {
        match self {
            Self::Frozen | Self::Leaving => true,
            Self::Active | Self::Silent | Self::Dropping => false,
        }
    }

    /// Whether look-ups find the feed's entries.
    #[must_use]
    pub const fn answers(self) -> bool {
        match self {
            Self::Active | Self::Frozen | Self::Leaving => true,
            Self::Silent | Self::Dropping => false,
        }
    }

    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Active => 0,
            Self::Frozen => 1,
            Self::Silent => 2,
            Self::Dropping => 3,
            Self::Leaving => 4,
        }
    }

    pub(crate) const fn read(number: u32) -> Result<Self> {
        match number {
            0 => Ok(Self::Active),
            1 => Ok(Self::Frozen),
            2 => Ok(Self::Silent),
            3 => Ok(Self::Dropping),
            4 => Ok(Self::Leaving),
            _ => Err(StoreError::corrupt("a feed's status")),
        }
    }
}
