//! Leaves that are held as their record alone: which they are, and which of them
//! nothing makes dead.
//!
//! The set is kept as bitmaps beside the leaves, written in the batch that stores,
//! drops or refills them; what is missing of it follows from it and from what is
//! dead, and is never stored. [`Store::verify`] compares it with the leaves.

use hashpact_core::leaf::IndexRange;
use hashpact_core::limits::PAGE_LEAVES;
use roaring::{RoaringBitmap, RoaringTreemap};
use rocksdb::WriteBatch;

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::{FeedState, Live};
use crate::keys::{self, FeedNo};
use crate::record::version;
use crate::store::{Inner, Store, read};

/// Leaves of one bitmap: at most 8 KiB of it.
const BLOCK: u64 = 65_536;

/// What a feed holds as records alone that it should hold whole, one range a page:
/// from the first such leaf of the page to the last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Elisions {
    /// Leaves that were counted: what is at or beyond this index is not decided.
    pub size: u64,
    /// Nothing below `size` makes them dead: they were elided without reason.
    pub unjustified: Vec<IndexRange>,
    /// Nothing makes them dead, and this node had no room for them: nobody's fault.
    pub no_room: Vec<IndexRange>,
    /// Retractions make them dead that are held for review.
    pub held: Vec<IndexRange>,
}

impl Store {
    /// Finds the indexed leaves that are held as records alone and should not be.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`].
    pub fn elisions(&self, no: FeedNo) -> Result<Elisions> {
        let state = self.inner.feed(no)?;
        let live = read(&state.live);
        let mut unjustified = live.unjustified();
        let no_room = &unjustified & live.quarantine.without_room();
        unjustified -= &no_room;
        Ok(Elisions {
            size: live.row.indexed,
            unjustified: by_page(&unjustified),
            no_room: by_page(&no_room),
            held: by_page(&(&live.elided & live.held.leaves())),
        })
    }

    /// Those of the leaves `[from, to)` that are held as records alone.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`].
    pub fn elided_within(&self, no: FeedNo, from: u64, to: u64) -> Result<Vec<u64>> {
        Ok(self.inner.feed(no)?.elided_within(from, to))
    }
}

impl FeedState {
    /// Those of the leaves `[from, to)` that are held as records alone.
    pub(crate) fn elided_within(&self, from: u64, to: u64) -> Vec<u64> {
        within(&read(&self.live).elided, from, to)
    }
}

impl Live {
    /// The indexed leaves that are records alone and not dead.
    pub(crate) fn unjustified(&self) -> RoaringTreemap {
        if self.elided.is_empty() {
            return RoaringTreemap::new();
        }
        let mut unjustified = &self.elided - self.liveness.dead();
        unjustified.remove_range(self.row.indexed..);
        unjustified
    }

    /// The indexed leaves that are records alone and wanted whole.
    pub(crate) fn wanted(&self) -> RoaringTreemap {
        let mut wanted = self.unjustified();
        wanted |= &self.elided & self.held.leaves();
        wanted
    }

    /// Counts what is missing anew, after leaves, or what is dead, changed.
    pub(crate) fn recount(&mut self) {
        self.missing = self.unjustified().len();
    }
}

/// Reads which leaves of a feed are records alone.
pub(crate) fn load(inner: &Inner, no: FeedNo) -> Result<RoaringTreemap> {
    let mut all = RoaringTreemap::new();
    inner.scan_feed(Family::Elided, no, |key, value| {
        let wrong = || StoreError::corrupt("a bitmap of elided leaves");
        let (_, block) = keys::read_numbered(key)?;
        let bitmap = match value.split_first() {
            Some((found, body)) if *found == version() => {
                RoaringBitmap::deserialize_from(body).map_err(|_| wrong())?
            }
            Some(_) | None => return Err(wrong()),
        };
        let start = block.saturating_mul(BLOCK);
        all.extend(
            bitmap
                .into_iter()
                .map(|low| start.saturating_add(low.into())),
        );
        Ok(true)
    })?;
    Ok(all)
}

/// Adds the bitmaps that hold any of `touched`, ascending, to a batch, as they are in
/// `all`.
pub(crate) fn put(
    inner: &Inner,
    batch: &mut WriteBatch,
    no: FeedNo,
    all: &RoaringTreemap,
    touched: impl IntoIterator<Item = u64>,
) -> Result<()> {
    let family = inner.cf(Family::Elided)?;
    let mut blocks: Vec<u64> = touched.into_iter().map(|index| index / BLOCK).collect();
    blocks.dedup();
    for block in blocks {
        let start = block.saturating_mul(BLOCK);
        let end = start.saturating_add(BLOCK);
        let low = within(all, start, end).into_iter();
        let low = low.filter_map(|index| u32::try_from(index.saturating_sub(start)).ok());
        let bitmap: RoaringBitmap = low.collect();
        let key = keys::numbered(no, block);
        if bitmap.is_empty() {
            batch.delete_cf(family, key);
            continue;
        }
        let mut value = vec![version()];
        // Writing to memory cannot fail.
        let _ = bitmap.serialize_into(&mut value);
        batch.put_cf(family, key, value);
    }
    Ok(())
}

/// Those of a set that are in `[from, to)`.
pub(crate) fn within(set: &RoaringTreemap, from: u64, to: u64) -> Vec<u64> {
    if set.is_empty() {
        return Vec::new();
    }
    let mut all = set.iter();
    all.advance_to(from);
    all.take_while(|index| *index < to).collect()
}

/// One range a page, so that a hostile set stays small.
fn by_page(set: &RoaringTreemap) -> Vec<IndexRange> {
    let mut ranges: Vec<IndexRange> = Vec::new();
    for index in set {
        match ranges.last_mut() {
            Some(last) if last.first / PAGE_LEAVES == index / PAGE_LEAVES => {
                last.count = index.saturating_sub(last.first).saturating_add(1);
            }
            Some(_) | None => ranges.push(IndexRange {
                first: index,
                count: 1,
            }),
        }
    }
    ranges
}
