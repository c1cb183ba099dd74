//! Dropping the payloads that an erase leaf names: the records stay, and with them
//! the tree; payloads, postings and references go.

use hashpact_core::leaf::{ERASE, IndexRange, Leaf, RawLeaf, read as read_leaf};
use hashpact_core::limits::PAGE_LEAVES;
use hashpact_core::page;
use rocksdb::WriteBatch;

use super::{FeedWriter, backwards, uncount};
use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::FeedCounts;
use crate::index::derive::{Sort, derive};
use crate::index::killers;
use crate::keys;
use crate::leaves::{page_end, page_start};
use crate::record::{KillerRecord, unseal, unseal_index, unseal_reference};
use crate::store::{read, write};

impl FeedWriter {
    /// Drops the payloads that indexed erase leaves name, and everything derived
    /// from them; answers how many went. Ask for it after a commit: it does nothing
    /// when there is no new erase leaf. What was deleted leaves the disk with the
    /// next compaction of its files.
    ///
    /// # Errors
    /// What disk and RocksDB answer; then the rest is dropped the next time.
    pub fn drop_erased(&mut self) -> Result<u64> {
        let row = read(&self.state.live).row.clone();
        let erases = self.erases(row.erased, row.indexed)?;
        let mut gone = 0_u64;
        for range in erases.iter().flatten() {
            let mut at = range.first;
            let end = range.end().min(row.indexed);
            while at < end {
                let to = page_end(at).min(end);
                gone = gone.saturating_add(self.drop_within(at, to)?);
                at = to;
            }
        }
        if row.erased < row.indexed {
            let liveness = killers::rebuild(&self.inner, self.state.no, row.indexed)?;
            self.state.update(&self.inner, |live| {
                live.row.erased = live.row.indexed;
                live.liveness = liveness;
            })?;
        }
        if gone > 0 {
            self.pending.reload(&self.inner)?;
        }
        Ok(gone)
    }

    /// What the erase leaves of a range of indexes name.
    fn erases(&self, from: u64, to: u64) -> Result<Vec<Vec<IndexRange>>> {
        let no = self.state.no;
        let mut killers = Vec::new();
        let (first, last) = (keys::numbered(no, from), keys::numbered(no, to));
        self.inner
            .scan(Family::Killers, &first, &last, |key, value| {
                let record: KillerRecord = unseal(value, "a killer's row")?;
                if record.names_ranges() {
                    killers.push(keys::read_numbered(key)?.1);
                }
                Ok(true)
            })?;
        let mut erases = Vec::new();
        for index in killers {
            let leaf = self.leaf(index)?;
            if leaf.kind == ERASE
                && let Leaf::Erase(erase) = read_leaf(&leaf, index)
            {
                erases.push(erase.indexes.clone());
            }
        }
        Ok(erases)
    }

    /// Drops the payloads of `[from, to)`, all of one page, as far as they are dead.
    fn drop_within(&self, from: u64, to: u64) -> Result<u64> {
        let no = self.state.no;
        let mut row = read(&self.state.live).row.clone();
        let start = page_start(from);
        let end = page_end(from).min(row.stored);
        let mut leaves = self.inner.leaves(no, row.stored, start, end)?;
        let mut counts = FeedCounts::read(&row.counts);
        // Crash: before, the payloads are there and dropped the next time; after,
        // those of this page are gone with all that was derived from them.
        let mut batch = WriteBatch::default();
        let mut changed = Vec::new();
        for (index, leaf) in backwards(start, &leaves) {
            let named = (from..to).contains(&index);
            let dead = read(&self.state.live).liveness.is_dead(index);
            if named && dead && !leaf.is_elided() {
                let derived = derive(&self.inner, &self.state, index, leaf)?;
                uncount(&mut counts, &derived);
                let elided = Sort::Elided.counter(&mut counts);
                *elided = elided.saturating_add(1);
                self.forget(&mut batch, index, &derived)?;
                changed.push(index);
            }
        }
        for index in &changed {
            let at = usize::try_from(index.saturating_sub(start)).unwrap_or(usize::MAX);
            if let Some(leaf) = leaves.get_mut(at) {
                *leaf = leaf.elided();
            }
        }
        if changed.is_empty() {
            return Ok(0);
        }
        self.rewrite(&mut batch, start, &leaves)?;
        row.counts = counts.to_row();
        self.state.put_row(&self.inner, &mut batch, &row)?;
        self.inner.write_synced(batch, "dropping payloads")?;
        write(&self.state.live).row = row;
        Ok(u64::try_from(changed.len()).unwrap_or(0))
    }

    /// Removes the rows of a leaf whose payload goes, where they name that leaf.
    fn forget(
        &self,
        batch: &mut WriteBatch,
        index: u64,
        derived: &crate::index::derive::Derived,
    ) -> Result<()> {
        let no = self.state.no;
        for (key, _) in &derived.postings {
            let key = keys::signal(key, no, index);
            batch.delete_cf(self.inner.cf(Family::Signals)?, key);
        }
        if derived.killer.is_some() {
            let key = keys::numbered(no, index);
            batch.delete_cf(self.inner.cf(Family::Killers)?, key);
        }
        if let Some(replaces) = derived.replaces {
            let key = keys::numbered(no, replaces.first);
            let latest = self.inner.get(Family::Entries, key)?;
            if latest.map(|row| unseal_index(&row)).transpose()? == Some(index) {
                batch.delete_cf(self.inner.cf(Family::Entries)?, key);
            }
        }
        if let Some((digest, _)) = &derived.reference {
            let key = keys::reference(no, digest);
            let latest = self.inner.get(Family::Refs, key)?;
            let latest = latest.map(|row| unseal_reference(&row)).transpose()?;
            if latest.is_some_and(|(latest, _)| latest == index) {
                batch.delete_cf(self.inner.cf(Family::Refs)?, key);
            }
        }
        Ok(())
    }

    fn rewrite(&self, batch: &mut WriteBatch, start: u64, leaves: &[RawLeaf]) -> Result<()> {
        let no = self.state.no;
        let whole = u64::try_from(leaves.len()).is_ok_and(|count| count == PAGE_LEAVES);
        if whole {
            let key = keys::numbered(no, start / PAGE_LEAVES);
            batch.put_cf(self.inner.cf(Family::Pages)?, key, page::encode(leaves)?);
            return Ok(());
        }
        for (index, leaf) in (start..).zip(leaves) {
            let mut plain = Vec::new();
            page::put_plain(leaf, &mut plain)?;
            batch.put_cf(
                self.inner.cf(Family::Tail)?,
                keys::numbered(no, index),
                plain,
            );
        }
        Ok(())
    }

    pub(super) fn leaf(&self, index: u64) -> Result<RawLeaf> {
        let stored = read(&self.state.live).row.stored;
        let end = index.saturating_add(1);
        let mut leaf = self.inner.leaves(self.state.no, stored, index, end)?;
        leaf.pop().ok_or(StoreError::corrupt("a leaf is missing"))
    }
}
