//! A new epoch of a feed: what the roster made void is cut off.
//!
//! What a cut-off leaf had killed is alive again and in doubt: look-ups answer it
//! marked, until a leaf of the new epoch kills it. What only held leaves had killed was
//! never gone, and stands as it did before them: else a stolen key would disarm whole
//! sets after all, by what nobody had acted on.

use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use super::FeedWriter;
use crate::error::{Result, StoreError};
use crate::held;
use crate::index::killers;
use crate::status;
use crate::store::read;

impl FeedWriter {
    /// Cuts off the leaves from `size` on, whether a head over them was applied or
    /// not, and moves the feed to `epoch`. The applied head becomes the newest one
    /// kept that is no larger. Answers how many leaves went.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] beyond what is appended; what disk and RocksDB
    /// answer, and then the feed is still of the epoch before: the same again ends
    /// what was begun.
    pub fn open_epoch(&mut self, epoch: u32, size: u64) -> Result<u64> {
        self.move_to(epoch, size, false)
    }

    /// The same, and with the last step of it the feed is followed again, if it is frozen or
    /// was to go: [`FeedStatus::Frozen`] instead where its publisher is known to have forked
    /// it in `epoch`.
    ///
    /// # Errors
    /// As [`open_epoch`](Self::open_epoch).
    pub fn open_epoch_anew(&mut self, epoch: u32, size: u64) -> Result<u64> {
        self.move_to(epoch, size, true)
    }

    fn move_to(&mut self, epoch: u32, size: u64, follows: bool) -> Result<u64> {
        let before = self.sync()?;
        if size > before {
            return Err(StoreError::OutOfRange {
                from: 0,
                to: size,
                held: before,
            });
        }
        self.doubt_and_unapply(size)?;
        self.truncate_unsigned(size)?;
        self.close_old_epoch(epoch, size, follows)?;
        Ok(before.saturating_sub(size))
    }

    /// Notes what is dead by leaves that go, while these can still be read, and takes
    /// heads over them out of force.
    fn doubt_and_unapply(&self, size: u64) -> Result<()> {
        let (mut row, retractions, old, dead) = {
            let live = read(&self.state.live);
            let retractions = live.held.retractions().clone();
            let dead = live.liveness.dead();
            (live.row.clone(), retractions, live.doubted.clone(), dead)
        };
        // PROTOCOL 11.11: without what was held.
        let dead = held::without(&self.inner, &self.state)?.map_or(dead, |(_, live)| live.dead());
        let stays = killers::rebuild(&self.inner, self.state.no, row.indexed.min(size))?;
        let mut doubted: RoaringTreemap = (dead - stays.dead()) | old;
        doubted.remove_range(size..);
        let newest = self.newest_head_within(size)?;
        match newest {
            Some(head) => row.set_applied(head),
            None => row.set_unapplied(),
        }
        // Crash: before, nothing of the epoch is there; after, leaves that are about
        // to go are beyond every head, and what they killed is known.
        let mut batch = WriteBatch::default();
        held::put(
            &self.inner,
            &mut batch,
            self.state.no,
            (&retractions, &doubted),
        )?;
        self.state.put_row(&self.inner, &mut batch, &row)?;
        self.inner.write_synced(batch, "opening an epoch")?;
        let mut live = self.state.live_mut();
        live.row = row;
        live.doubted = doubted;
        Ok(())
    }

    /// The last step: the epoch counts from here on.
    fn close_old_epoch(&self, epoch: u32, size: u64, follows: bool) -> Result<()> {
        let (mut row, mut retractions, doubted) = {
            let live = read(&self.state.live);
            let retractions = live.held.retractions().clone();
            (live.row.clone(), retractions, live.doubted.clone())
        };
        row.epoch = epoch;
        retractions.retain(|index| *index < size);
        // Crash: before, the epoch is opened again, and there is nothing left to cut;
        // after, it is open.
        let mut batch = WriteBatch::default();
        held::put(
            &self.inner,
            &mut batch,
            self.state.no,
            (&retractions, &doubted),
        )?;
        for head in self.heads_beyond(size)? {
            batch.delete_cf(self.inner.cf(crate::families::Family::Heads)?, head);
        }
        self.state.put_row(&self.inner, &mut batch, &row)?;
        {
            // Who freezes the feed meanwhile waits: whoever has evidence kept it before.
            let mut live = self.state.live_mut();
            let mut next = live.status;
            if follows && next.is_in_doubt() {
                next = status::followed(&self.inner, &self.state, epoch..=epoch)?;
                status::put(&self.inner, &mut batch, &self.state, next)?;
            }
            self.inner.write_synced(batch, "opening an epoch")?;
            live.status = next;
            live.row = row;
            live.held.set_retractions(retractions);
        }
        held::refresh(&self.inner, &self.state)
    }
}
