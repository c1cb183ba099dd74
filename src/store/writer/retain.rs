//! Dropping the payloads of leaves that have been dead for long, where the node does not
//! keep them: as what is erased, page by page, records and proofs stay.
//!
//! Only publish and opinion leaves are ever dead, so describe, retract and erase leaves
//! keep their payloads. A retraction that is held for review drops nothing of its feed:
//! what it names may live again. What answers though it is dead, since only leaves in
//! quarantine replace it, stays.

use roaring::RoaringTreemap;

use super::FeedWriter;
use crate::error::Result;
use crate::feeds::Live;
use crate::keys::FeedNo;
use crate::leaves::{page_end, page_start};
use crate::store::{Store, read};

/// What was dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DroppedDead {
    /// Payloads.
    pub payloads: u64,
    /// Whether there is more to drop.
    pub more: bool,
}

impl Store {
    /// Whether a feed has payloads that [`FeedWriter::drop_dead`] may find to drop.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`](crate::StoreError::UnknownFeed).
    pub fn has_dead_payloads(&self, no: FeedNo) -> Result<bool> {
        let state = self.inner.feed(no)?;
        let live = read(&state.live);
        Ok(live.held.retractions().is_empty() && !dead_payloads(&live).is_empty())
    }
}

/// The leaves that are dead and whole, and of which nothing answers.
fn dead_payloads(live: &Live) -> RoaringTreemap {
    let mut dead = live.liveness.dead();
    dead -= &live.elided;
    // ⚠ What only leaves in quarantine replace goes on answering.
    dead -= live.held.leaves();
    dead
}

impl FeedWriter {
    /// Drops the payloads of leaves that are dead, and were so by the first `size` leaves
    /// alone, of `pages_max` pages at most. What was deleted leaves the disk with
    /// [`crate::Store::purge`].
    ///
    /// # Errors
    /// What disk and RocksDB answer; then the rest is dropped the next time.
    pub fn drop_dead(&mut self, size: u64, pages_max: usize) -> Result<DroppedDead> {
        self.sync()?;
        let mut dropped = DroppedDead::default();
        if read(&self.state.live).held.retractions().is_empty() {
            let going = self.long_dead(size)?;
            let done = self.drop_pages(going, pages_max, &mut dropped);
            if dropped.payloads > 0 {
                self.forget_dropped()?;
            }
            done?;
            if dropped.payloads > 0 && !dropped.more {
                // In the middle nothing is lost by values in memory that nothing carries.
                self.inner.tell_dropped();
            }
        }
        Ok(dropped)
    }

    fn drop_pages(
        &self,
        mut going: RoaringTreemap,
        pages_max: usize,
        dropped: &mut DroppedDead,
    ) -> Result<()> {
        let mut pages = 0;
        while let Some(index) = going.min() {
            if pages == pages_max {
                dropped.more = true;
                break;
            }
            let (start, end) = (page_start(index), page_end(index));
            // Crash: each page goes by itself, with all that was derived from it; what is
            // left is found dead and whole the next time.
            let gone = self.drop_within(start, end, &|index| going.contains(index))?;
            dropped.payloads = dropped.payloads.saturating_add(gone);
            pages = pages.saturating_add(1);
            going.remove_range(..end);
        }
        Ok(())
    }

    /// The leaves that are dead now and were by the first `size` leaves, as far as they
    /// have payloads that may go.
    fn long_dead(&self, size: u64) -> Result<RoaringTreemap> {
        let mut dead = {
            let live = read(&self.state.live);
            let row = &live.row;
            let applied = row.applied().map_or(0, |head| head.size).min(row.indexed);
            let mut dead = dead_payloads(&live);
            dead.remove_range(size.min(applied)..);
            dead
        };
        if dead.is_empty() {
            return Ok(dead);
        }
        let no = self.state.no;
        let then = crate::index::killers::rebuild(&self.inner, no, size)?;
        dead &= then.dead();
        Ok(dead)
    }
}
