//! Retractions that are held for review: what they name is dead in the feed, and
//! still answered, marked.
//!
//! Whether a retraction is held is the node's to say (a mass retraction without the
//! identity key's signature); this module keeps the answer and what follows for
//! look-ups. It changes nothing about proofs, elision or counts.

use std::collections::BTreeSet;

use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::{FeedState, part};
use crate::index::killers;
use crate::keys::{self, FeedNo};
use crate::record::{HeldRecord, KillerRecord, seal, unseal};
use crate::store::{Inner, Store, read, write};

/// The part of the feeds family with the held retractions.
const PART_HELD: u8 = 2;

/// What is held in a feed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    /// Retract and erase leaves that are held.
    retractions: BTreeSet<u64>,
    /// Leaves that are dead by these alone.
    leaves: RoaringTreemap,
}

impl Held {
    /// Whether the leaf is dead by held retractions alone.
    pub(crate) fn holds(&self, index: u64) -> bool {
        self.leaves.contains(index)
    }
}

impl Store {
    /// The retract and erase leaves of a feed from `from` on, below what is indexed,
    /// the last one first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`], or what RocksDB answers.
    pub fn retractions(&self, no: FeedNo, from: u64, limit: usize) -> Result<Vec<u64>> {
        let inner = &*self.inner;
        let indexed = self.feed(no)?.indexed;
        let mut options = rocksdb::ReadOptions::default();
        options.set_iterate_lower_bound(keys::numbered(no, from));
        options.set_iterate_upper_bound(keys::numbered(no, indexed));
        let family = inner.cf(Family::Killers)?;
        let mut iterator = inner.db.raw_iterator_cf_opt(family, options);
        iterator.seek_to_last();
        let mut found = Vec::new();
        while let Some((key, record)) = iterator.item() {
            let record: KillerRecord = unseal(record, "a killer's row")?;
            if record.names_ranges() {
                found.push(keys::read_numbered(key)?.1);
                if found.len() == limit {
                    break;
                }
            }
            iterator.prev();
        }
        iterator
            .status()
            .map_err(StoreError::engine("reading killers"))?;
        Ok(found)
    }

    /// The retractions of a feed that are held for review.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`].
    pub fn held_retractions(&self, no: FeedNo) -> Result<BTreeSet<u64>> {
        let state = self.inner.feed(no)?;
        let held = read(&state.live).held.retractions.clone();
        Ok(held)
    }

    /// Whether a leaf is dead by held retractions alone.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`].
    pub fn is_held(&self, no: FeedNo, index: u64) -> Result<bool> {
        let state = self.inner.feed(no)?;
        let held = read(&state.live).held.holds(index);
        Ok(held)
    }

    /// Says which retractions of a feed are held, durably; look-ups answer what is
    /// dead by these alone, marked, from here on.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`], or what RocksDB answers.
    pub fn hold_retractions(&self, no: FeedNo, retractions: BTreeSet<u64>) -> Result<()> {
        let inner = &*self.inner;
        let state = inner.feed(no)?;
        // Crash: before, the old retractions are held, after, the new ones; what is
        // dead by them is computed anew at each open.
        let mut batch = WriteBatch::default();
        let record = HeldRecord {
            retractions: retractions.iter().copied().collect(),
        };
        batch.put_cf(inner.cf(Family::Feeds)?, part(no, PART_HELD), seal(&record));
        inner.write_synced(batch, "holding retractions")?;
        let held = compute(inner, &state, retractions)?;
        write(&state.live).held = held;
        Ok(())
    }
}

/// Reads what is held in a feed, whose liveness is loaded.
pub(crate) fn load(inner: &Inner, state: &FeedState) -> Result<Held> {
    match inner.get(Family::Feeds, part(state.no, PART_HELD))? {
        None => Ok(Held::default()),
        Some(record) => {
            let record: HeldRecord = unseal(&record, "held retractions")?;
            compute(inner, state, record.retractions.into_iter().collect())
        }
    }
}

fn compute(inner: &Inner, state: &FeedState, retractions: BTreeSet<u64>) -> Result<Held> {
    if retractions.is_empty() {
        return Ok(Held::default());
    }
    let (indexed, dead) = {
        let live = read(&state.live);
        (live.row.indexed, live.liveness.dead())
    };
    let without = killers::rebuild_without(inner, state.no, indexed, &retractions)?;
    Ok(Held {
        retractions,
        leaves: dead - without.dead(),
    })
}
