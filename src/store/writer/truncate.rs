//! Cutting off leaves that were never signed.

use std::collections::HashMap;

use hashpact_core::leaf::RawLeaf;
use hashpact_core::merkle::CompactRange;
use hashpact_core::page;
use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use super::{FeedWriter, Pending, backwards, uncount};
use crate::counts::FeedCounts;
use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::HeadRef;
use crate::heads::Head;
use crate::index::Indexer;
use crate::index::derive::{Derived, derive};
use crate::index::killers;
use crate::keys;
use crate::leaves::{PAGE_LEVEL, page_end, page_start};
use crate::record::{FeedRow, seal_index, seal_reference};
use crate::space::leaf_bytes;
use crate::store::{hold, read};
use crate::{changes, elided, frame_room};

impl FeedWriter {
    /// Discards the leaves from `size` on, what was appended and not stored too,
    /// with everything derived from them. For leaves of this node's own beyond what
    /// the sign-state file covers: nobody else has seen them.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] below the applied head; what disk and RocksDB
    /// answer, and then the feed has some size between `size` and the old one.
    pub fn truncate_unsigned(&mut self, size: u64) -> Result<()> {
        let row = read(&self.state.live).row.clone();
        let applied = row.applied().map_or(0, |head| head.size);
        if size < applied || size > self.size() {
            return Err(StoreError::OutOfRange {
                from: applied,
                to: size,
                held: self.size(),
            });
        }
        // ⚠ Before it is forgotten what waits.
        let uncounted = frame_room::uncounted(&read(&self.state.live).quarantine);
        super::quarantine::cut(&self.inner, &self.state, size)?;
        self.beside = super::Beside::default();
        let outcome = self.cut_to(size, row, &uncounted);
        hold(&self.inner.page_hashes).forget(self.state.no);
        let (frontier, indexed) = {
            let live = read(&self.state.live);
            (live.frontier.clone(), live.row.indexed)
        };
        self.pending = Pending::new(&self.inner, self.state.no, frontier)?;
        self.indexer = Indexer::new(&self.inner, &self.state, indexed);
        outcome
    }

    fn cut_to(&mut self, size: u64, mut row: FeedRow, uncounted: &RoaringTreemap) -> Result<()> {
        let latest = killers::versions_below(&self.inner, self.state.no, size)?;
        while row.stored > size {
            let from = page_start(row.stored.saturating_sub(1)).max(size);
            row = self.cut(from, &row, (&latest, uncounted))?;
        }
        let liveness = killers::rebuild(&self.inner, self.state.no, row.indexed)?;
        let describe = self.describe_below(&row)?;
        row.erased = row.erased.min(row.indexed);
        row.heard = row.heard.min(row.indexed);
        row.describe_plus_one = describe
            .as_ref()
            .map_or(0, |(index, _)| index.saturating_add(1));
        // Crash: before, the row names a describe leaf that is gone, and the feed
        // opens without one; the truncation is asked for again at start.
        let mut batch = WriteBatch::default();
        self.state.put_row(&self.inner, &mut batch, &row)?;
        self.inner.write_synced(batch, "cutting leaves off")?;
        let mut live = self.state.live_mut();
        live.liveness = liveness;
        live.describe = describe;
        live.row = row;
        live.recount();
        drop(live);
        frame_room::load(&self.inner, &self.state)
    }

    /// Cuts off the leaves from `from` on, all of one page. `latest` are the versions that
    /// stand in the end, `uncounted` the leaves whose frames are in no count.
    fn cut(
        &self,
        from: u64,
        row: &FeedRow,
        (latest, uncounted): (&HashMap<u64, u64>, &RoaringTreemap),
    ) -> Result<FeedRow> {
        let no = self.state.no;
        let start = page_start(from);
        let leaves = self.inner.leaves(no, row.stored, start, row.stored)?;
        let node = |node| self.inner.node(no, row.stored, node);
        let frontier = CompactRange::fetch(0, from, node)?;
        let mut next = row.clone();
        next.set_frontier(&frontier);
        next.indexed = row.indexed.min(from);
        // Nobody compares the feed with what was logged of it between the two.
        let _cutting = hold(&self.inner.changes.cutting);
        // Crash: before, the feed is as it was; after, it is shorter by these
        // leaves and everything derived from them.
        let mut batch = WriteBatch::default();
        changes::put_cut(&self.inner, &mut batch, no, from)?;
        let mut counts = FeedCounts::read(&row.counts);
        for (index, leaf) in backwards(start, &leaves) {
            if index >= from {
                next.bytes = next.bytes.saturating_sub(leaf_bytes(leaf));
                let derived = derive(&self.inner, &self.state, index, leaf)?;
                self.remove(&mut batch, &derived, latest)?;
                if index < row.indexed {
                    uncount(&mut counts, &derived, !uncounted.contains(index));
                }
            }
        }
        next.counts = counts.to_row();
        self.cut_rows(&mut batch, from, row.stored, &leaves)?;
        let mut elided = read(&self.state.live).elided.clone();
        if elided.remove_range(from..) > 0 {
            elided::put(&self.inner, &mut batch, no, &elided, from..row.stored)?;
        }
        for head in self.heads_beyond(from)? {
            batch.delete_cf(self.inner.cf(Family::Heads)?, head);
        }
        self.state.put_row(&self.inner, &mut batch, &next)?;
        self.inner.write_synced(batch, "cutting leaves off")?;
        let mut live = self.state.live_mut();
        live.row = next.clone();
        live.frontier = frontier;
        live.elided = elided;
        Ok(next)
    }

    /// Turns a page that is cut back into single leaves.
    fn cut_rows(
        &self,
        batch: &mut WriteBatch,
        from: u64,
        stored: u64,
        leaves: &[RawLeaf],
    ) -> Result<()> {
        let no = self.state.no;
        let start = page_start(from);
        let tail = self.inner.cf(Family::Tail)?;
        if stored == page_end(from) {
            let page = start / hashpact_core::limits::PAGE_LEAVES;
            batch.delete_cf(self.inner.cf(Family::Pages)?, keys::numbered(no, page));
            for (index, leaf) in (start..from).zip(leaves) {
                let mut plain = Vec::new();
                page::put_plain(leaf, &mut plain)?;
                batch.put_cf(tail, keys::numbered(no, index), plain);
            }
            for level in PAGE_LEVEL..=40 {
                if stored.trailing_zeros() >= u32::from(level) {
                    let index = (stored >> level).saturating_sub(1);
                    batch.delete_cf(self.inner.cf(Family::Tree)?, keys::tree(no, level, index));
                }
            }
        } else {
            for index in from..stored {
                batch.delete_cf(tail, keys::numbered(no, index));
            }
        }
        Ok(())
    }

    fn remove(
        &self,
        batch: &mut WriteBatch,
        derived: &Derived,
        latest: &HashMap<u64, u64>,
    ) -> Result<()> {
        let no = self.state.no;
        for (key, _) in &derived.postings {
            let key = keys::signal(key, no, derived.index);
            batch.delete_cf(self.inner.cf(Family::Signals)?, key);
        }
        if derived.killer.is_some() {
            let key = keys::numbered(no, derived.index);
            batch.delete_cf(self.inner.cf(Family::Killers)?, key);
        }
        if derived.retraction.is_some() {
            let key = keys::numbered(no, derived.index);
            batch.delete_cf(self.inner.cf(Family::Retractions)?, key);
        }
        if let Some(opinion) = &derived.opinion {
            batch.delete_cf(self.inner.cf(Family::Opinions)?, &opinion.key);
        }
        if let Some(replaces) = derived.replaces {
            let key = keys::numbered(no, replaces.first);
            let entries = self.inner.cf(Family::Entries)?;
            match latest.get(&replaces.first) {
                None => batch.delete_cf(entries, key),
                Some(latest) => batch.put_cf(entries, key, seal_index(*latest)),
            }
        }
        self.remove_reference(batch, derived, latest)
    }

    /// Gives the reference back to the version before, if that has the same one.
    fn remove_reference(
        &self,
        batch: &mut WriteBatch,
        derived: &Derived,
        latest: &HashMap<u64, u64>,
    ) -> Result<()> {
        let Some((digest, _)) = derived.reference else {
            return Ok(());
        };
        let key = keys::reference(self.state.no, &digest);
        let refs = self.inner.cf(Family::Refs)?;
        if let Some(replaces) = derived.replaces {
            let previous = *latest.get(&replaces.first).unwrap_or(&replaces.first);
            let leaf = self.leaf(previous)?;
            let before = derive(&self.inner, &self.state, previous, &leaf)?;
            if let Some((same, content)) = before.reference
                && same == digest
            {
                batch.put_cf(refs, key, seal_reference(previous, &content));
                return Ok(());
            }
        }
        batch.delete_cf(refs, key);
        Ok(())
    }

    /// The newest head kept that has at most `size` leaves.
    pub(super) fn newest_head_within(&self, size: u64) -> Result<Option<HeadRef>> {
        let mut newest = None;
        self.inner
            .scan_feed(Family::Heads, self.state.no, |key, record| {
                let (_, epoch, at) = keys::read_head(key)?;
                if at <= size {
                    newest = Some(Head::read(epoch, at, record)?.at());
                }
                Ok(true)
            })?;
        Ok(newest)
    }

    pub(super) fn heads_beyond(&self, size: u64) -> Result<Vec<Vec<u8>>> {
        let mut beyond = Vec::new();
        self.inner
            .scan_feed(Family::Heads, self.state.no, |key, _| {
                if keys::read_head(key)?.2 > size {
                    beyond.push(key.to_vec());
                }
                Ok(true)
            })?;
        Ok(beyond)
    }

    /// The describe leaf in force below `indexed`, searched from the end.
    fn describe_below(&self, row: &FeedRow) -> Result<Option<(u64, bytes::Bytes)>> {
        let held = row.describe_plus_one.checked_sub(1);
        let mut end = row.indexed;
        if let Some(index) = held
            && index < end
        {
            end = index.saturating_add(1);
        }
        while end > 0 {
            let start = page_start(end.saturating_sub(1));
            let leaves = self.inner.leaves(self.state.no, row.stored, start, end)?;
            for (index, leaf) in backwards(start, &leaves) {
                if leaf.kind == hashpact_core::leaf::DESCRIBE {
                    let derived = derive(&self.inner, &self.state, index, leaf)?;
                    if let Some(payload) = derived.describe {
                        return Ok(Some((index, payload)));
                    }
                }
            }
            end = start;
        }
        Ok(None)
    }
}
