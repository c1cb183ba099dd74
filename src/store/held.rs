//! What is dead in the feed and still answered: what only retractions kill that are
//! held for review (marked), and what only leaves in quarantine replace (marked, for
//! the publisher has said something newer; not where a stale roster alone is why, which
//! disarms nothing).
//!
//! Whether a retraction is held is the node's to say (a mass retraction without the
//! identity key's signature); this module keeps the answer and what follows for
//! look-ups and elision: nobody's payload goes because of them. It changes nothing
//! about proofs or counts.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashpact_core::liveness::Liveness;
use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::{FeedState, part};
use crate::index::killers;
use crate::keys::FeedNo;
use crate::quarantine::Quarantine;
use crate::record::{HeldRecord, seal, unseal};
use crate::store::{Inner, Store, read};

/// The part of the feeds family with the held retractions.
pub(crate) const PART_HELD: u8 = 2;

/// What is held in a feed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    /// Retract and erase leaves that are held.
    retractions: BTreeSet<u64>,
    /// Leaves that are dead by these or by leaves in quarantine alone.
    marked: RoaringTreemap,
    /// Leaves that are dead by leaves that a stale roster alone holds back.
    kept: RoaringTreemap,
}

impl Held {
    /// The retractions that are held.
    pub(crate) const fn retractions(&self) -> &BTreeSet<u64> {
        &self.retractions
    }

    /// Takes others; what follows from them is computed by [`refresh`].
    pub(crate) fn set_retractions(&mut self, retractions: BTreeSet<u64>) {
        self.retractions = retractions;
    }

    /// Whether the dead leaf answers all the same, and if so, whether marked.
    pub(crate) fn answers(&self, index: u64) -> Option<bool> {
        if self.kept.contains(index) {
            return Some(false);
        }
        self.marked.contains(index).then_some(true)
    }

    /// The dead leaves that answer marked.
    pub(crate) const fn marked(&self) -> &RoaringTreemap {
        &self.marked
    }

    /// The dead leaves that answer all the same: they are wanted whole.
    pub(crate) fn leaves(&self) -> RoaringTreemap {
        &self.marked | &self.kept
    }
}

impl Store {
    /// From which leaf on retractions were not followed yet, so were perhaps neither
    /// reviewed nor, where they erase, carried out; `None` when there are none.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`], or what RocksDB answers.
    pub fn unsettled(&self, no: FeedNo) -> Result<Option<u64>> {
        let from = read(&self.inner.feed(no)?.live).row.erased;
        let found = self.retractions(no, from, 1)?;
        Ok((!found.is_empty()).then_some(from))
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

    /// Whether a leaf is dead by what is held alone, so that it still answers.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`].
    pub fn is_held(&self, no: FeedNo, index: u64) -> Result<bool> {
        let state = self.inner.feed(no)?;
        let held = read(&state.live).held.answers(index).is_some();
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
        let doubted = read(&state.live).doubted.clone();
        put(inner, &mut batch, no, (&retractions, &doubted))?;
        inner.write_synced(batch, "holding retractions")?;
        state.live_mut().held.retractions = retractions;
        refresh(inner, &state)
    }

    /// How many live leaves of a feed are to be reviewed because a roster cut off
    /// what had killed them.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`].
    pub fn doubted(&self, no: FeedNo) -> Result<u64> {
        let state = self.inner.feed(no)?;
        let live = read(&state.live);
        Ok((&live.doubted - live.liveness.dead()).len())
    }
}

/// Adds what is held, and what is in doubt, to a batch.
pub(crate) fn put(
    inner: &Inner,
    batch: &mut WriteBatch,
    no: FeedNo,
    (retractions, doubted): (&BTreeSet<u64>, &RoaringTreemap),
) -> Result<()> {
    let mut bitmap = Vec::new();
    if !doubted.is_empty() {
        doubted
            .serialize_into(&mut bitmap)
            .map_err(|_| StoreError::corrupt("a bitmap cannot be written"))?;
    }
    let record = HeldRecord {
        retractions: retractions.iter().copied().collect(),
        doubted: bitmap,
    };
    batch.put_cf(inner.cf(Family::Feeds)?, part(no, PART_HELD), seal(&record));
    Ok(())
}

/// Retractions that are held, and what would be dead without them; `None` where none
/// are.
pub(crate) fn without(
    inner: &Inner,
    state: &FeedState,
) -> Result<Option<(BTreeSet<u64>, Liveness)>> {
    let (indexed, retractions) = {
        let live = read(&state.live);
        (live.row.indexed, live.held.retractions.clone())
    };
    if retractions.is_empty() {
        return Ok(None);
    }
    let liveness =
        killers::rebuild_without(inner, state.no, indexed, |i| retractions.contains(&i))?;
    Ok(Some((retractions, liveness)))
}

/// Reads what is held in a feed, whose liveness and quarantine are loaded.
pub(crate) fn load(inner: &Inner, state: &FeedState) -> Result<()> {
    if let Some(record) = inner.get(Family::Feeds, part(state.no, PART_HELD))? {
        let record: HeldRecord = unseal(&record, "held retractions")?;
        let mut live = state.live_mut();
        live.held.retractions = record.retractions.into_iter().collect();
        if !record.doubted.is_empty() {
            live.doubted = RoaringTreemap::deserialize_from(record.doubted.as_slice())
                .map_err(|_| StoreError::corrupt("a bitmap of leaves in doubt"))?;
        }
    }
    refresh(inner, state)
}

/// Computes anew what answers though it is dead, after leaves, held retractions or
/// the quarantine changed.
pub(crate) fn refresh(inner: &Inner, state: &FeedState) -> Result<()> {
    let (indexed, retractions, quarantine) = {
        let live = read(&state.live);
        let retractions = live.held.retractions.clone();
        (live.row.indexed, retractions, Arc::clone(&live.quarantine))
    };
    let held = compute(inner, state.no, indexed, retractions, &quarantine)?;
    state.live_mut().held = held;
    Ok(())
}

/// What is held once `indexed` leaves are.
pub(crate) fn compute(
    inner: &Inner,
    no: FeedNo,
    indexed: u64,
    retractions: BTreeSet<u64>,
    quarantine: &Quarantine,
) -> Result<Held> {
    if retractions.is_empty() && !quarantine.withholds_leaves() {
        return Ok(Held::default());
    }
    let dead = killers::rebuild(inner, no, indexed)?.dead();
    let kept = killers::rebuild_without(inner, no, indexed, |index| quarantine.is_stale(index))?;
    let without = killers::rebuild_without(inner, no, indexed, |index| {
        retractions.contains(&index)
            || quarantine.is_stale(index)
            || quarantine.withholds_leaf(index)
    })?;
    Ok(Held {
        retractions,
        marked: &dead - without.dead(),
        kept: dead - kept.dead(),
    })
}
