//! What a writer holds back of what it appends, and how fast the feed has grown.
//!
//! Both become durable with the leaves: no crash leaves a leaf that counts though it
//! was to be held, nor an emptied bucket.

use hashpact_core::puller::Growth;
use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use super::FeedWriter;
use crate::error::Result;
use crate::families::Family;
use crate::feeds::{FeedState, PART_GROWTH, part};
use crate::keys::FeedNo;
use crate::quarantine::{LotName, Marks, Pending, Reason, WHOLE_LEAF};
use crate::record::{GrowthRecord, seal, unseal};
use crate::store::{Inner, Store};

/// What goes into the next batch beside the leaves.
#[derive(Default)]
pub(crate) struct Beside {
    pub(super) marks: Marks,
    growth: Option<Growth>,
}

impl FeedWriter {
    /// Holds leaves back as a whole. To be said before they are appended, so that
    /// they are never durable without it.
    pub fn quarantine(&mut self, reason: Reason, indexes: impl IntoIterator<Item = u64>) {
        let kind = WHOLE_LEAF;
        for index in indexes {
            self.beside.marks.add(LotName { reason, kind }, index);
        }
    }

    /// Remembers how fast the feed has grown, with the leaves appended next.
    pub const fn note_growth(&mut self, growth: Growth) {
        self.beside.growth = Some(growth);
    }
}

impl Beside {
    /// Adds it to a batch; the caller holds the feed's turn of the quarantine.
    pub(super) fn put(
        &self,
        inner: &Inner,
        state: &FeedState,
        batch: &mut WriteBatch,
    ) -> Result<Pending> {
        if let Some(growth) = self.growth {
            let record = GrowthRecord {
                level: growth.level,
                at_ms: growth.at.0,
                from: growth.from,
            };
            batch.put_cf(
                inner.cf(Family::Feeds)?,
                part(state.no, PART_GROWTH),
                seal(&record),
            );
        }
        state.put_marks(inner, batch, &self.marks)
    }
}

impl Store {
    /// How fast a feed has grown, as of the last leaves stored.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn growth(&self, no: FeedNo) -> Result<Growth> {
        let record = self.inner.get(Family::Feeds, part(no, PART_GROWTH))?;
        let Some(record) = record else {
            return Ok(Growth::default());
        };
        let record: GrowthRecord = unseal(&record, "a feed's growth")?;
        Ok(Growth {
            level: record.level,
            at: hashpact_core::id::UnixMillis(record.at_ms),
            from: record.from,
        })
    }
}

/// Forgets what is held of leaves from `size` on, which are cut off.
pub(super) fn cut(inner: &Inner, state: &FeedState, size: u64) -> Result<()> {
    state
        .change_quarantine(inner, |quarantine| {
            let lots = quarantine.lots.iter_mut();
            lots.map(|(name, lot)| {
                let above = |set: &RoaringTreemap| {
                    let mut above = set.iter();
                    above.advance_to(size);
                    above.collect::<RoaringTreemap>()
                };
                let gone = above(&lot.all());
                lot.held -= &gone;
                lot.released -= &gone;
                lot.dropped -= &gone;
                (*name, gone)
            })
            .collect()
        })
        .map(|_| ())
}
