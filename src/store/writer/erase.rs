//! Dropping the payloads that an erase leaf names: the records stay, and with them
//! the tree; payloads, postings and references go.
//!
//! What counts is below the applied head, so signed; and what is held for review
//! drops nothing: a stolen feed key must not make everybody forget.

use std::collections::BTreeSet;

use hashpact_core::leaf::{IndexRange, RawLeaf};
use hashpact_core::limits::PAGE_LEAVES;
use hashpact_core::liveness::{Kills, Liveness};
use hashpact_core::page;
use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use super::{FeedWriter, uncount};
use crate::counts::FeedCounts;
use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::index::derive::{Derived, Sort, derive};
use crate::index::killers;
use crate::keys;
use crate::leaves::{page_end, page_start};
use crate::record::{
    KillerRecord, seal_index, seal_reference, unseal, unseal_index, unseal_reference,
};
use crate::space::leaf_bytes;
use crate::store::{hold, read};
use crate::{elided, frame_room, held, purge};

/// What erase leaves of a stretch of a feed name.
#[derive(Default)]
struct Erases {
    /// By their index.
    leaves: Vec<(u64, Vec<IndexRange>)>,
    /// Whether there is a retraction of any sort.
    retractions: bool,
}

/// What the leaves of one page lose together.
struct Going {
    batch: WriteBatch,
    counts: FeedCounts,
    indexes: BTreeSet<u64>,
    keys: Vec<(Family, Vec<u8>)>,
    /// Leaves whose frames are in no count, and those that have none in the index.
    uncounted: (RoaringTreemap, RoaringTreemap),
    /// Frames that leave the index.
    frames: u64,
}

impl FeedWriter {
    /// Drops the payloads that erase leaves below the applied head name, and
    /// everything derived from them; answers how many went. Erase leaves that are
    /// held for review drop only what a retraction names that is not. Ask for it after
    /// each commit: it does nothing when there is no new erase leaf. What was deleted
    /// leaves the disk with [`crate::Store::purge`].
    ///
    /// # Errors
    /// What disk and RocksDB answer; then the rest is dropped the next time.
    pub fn drop_erased(&mut self) -> Result<u64> {
        self.sync()?;
        let row = read(&self.state.live).row.clone();
        let end = row.applied().map_or(0, |head| head.size).min(row.indexed);
        let begin = row.erased.min(end);
        if begin == end {
            return Ok(0);
        }
        let held = held::without(&self.inner, &self.state)?;
        let mut erases = self.erases(begin, end)?;
        if let Some((retractions, _)) = &held
            && erases.retractions
        {
            // A new retraction may speak for what an earlier, held one names.
            let earlier = retractions.range(..begin);
            for index in earlier.copied().collect::<Vec<_>>() {
                let more = self.erases(index, index.saturating_add(1))?;
                erases.leaves.extend(more.leaves);
            }
        }
        if !erases.retractions {
            // Looked at again after a crash, and nothing found.
            self.state.live_mut().row.erased = end;
            return Ok(0);
        }
        // What is dead and whole. ⚠ Pages with nothing of it are not read: an erase leaf
        // may name a whole large feed, and another one the same.
        let (mut left, mut left_of_held) = {
            let live = read(&self.state.live);
            let retracted = held.as_ref().map(|(_, without)| without.retracted());
            let retracted = retracted.unwrap_or_default() - &live.elided;
            (live.liveness.dead() - &live.elided, retracted)
        };
        let mut gone = 0_u64;
        for (erase, ranges) in &erases.leaves {
            let speaks = held.as_ref().filter(|(all, _)| all.contains(erase));
            let without = speaks.map(|(_, without)| without);
            let left = if without.is_some() {
                &mut left_of_held
            } else {
                &mut left
            };
            for range in ranges {
                gone = gone.saturating_add(self.drop_range(*range, end, without, left)?);
            }
        }
        self.erased_to(end, gone > 0)?;
        Ok(gone)
    }

    /// Notes how far erase leaves were followed. A page at a time was dropped before,
    /// so a crash here drops nothing twice.
    fn erased_to(&mut self, end: u64, dropped: bool) -> Result<()> {
        let mut row = read(&self.state.live).row.clone();
        row.erased = end;
        // Crash: before, the same erase leaves are looked at again, and what they name
        // is found dropped; after, they are not.
        let mut batch = WriteBatch::default();
        self.state.put_row(&self.inner, &mut batch, &row)?;
        self.inner.write_synced(batch, "noting what was erased")?;
        self.state.live_mut().row = row;
        if dropped {
            self.forget_dropped()?;
            // Whoever keeps values in memory forgets those that went.
            self.inner.tell_dropped();
            return Ok(());
        }
        self.state.live_mut().recount();
        Ok(())
    }

    /// Up to where retract leaves were asked whether they ask to recheck; 0 where that was
    /// never noted.
    #[must_use]
    pub fn heard(&self) -> u64 {
        read(&self.state.live).row.heard
    }

    /// Notes it. Where one of them did ask, for good: it is not to be told again after it
    /// was acknowledged. Else it goes with the next commit.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn heard_to(&mut self, end: u64, asked: bool) -> Result<()> {
        let mut row = read(&self.state.live).row.clone();
        row.heard = end;
        if asked {
            // Crash: before, they are heard again; after, they are not.
            let mut batch = WriteBatch::default();
            self.state.put_row(&self.inner, &mut batch, &row)?;
            self.inner.write_synced(batch, "noting what was heard")?;
        }
        self.state.live_mut().row = row;
        Ok(())
    }

    /// Takes from memory what payloads that were dropped had said.
    pub(super) fn forget_dropped(&mut self) -> Result<()> {
        let indexed = read(&self.state.live).row.indexed;
        let liveness = killers::rebuild(&self.inner, self.state.no, indexed)?;
        {
            let mut live = self.state.live_mut();
            live.liveness = liveness;
            live.recount();
        }
        self.pending.reload(&self.inner)
    }

    /// What the erase leaves of a range of indexes name.
    fn erases(&self, from: u64, to: u64) -> Result<Erases> {
        let no = self.state.no;
        let mut erases = Erases::default();
        let (first, last) = (keys::numbered(no, from), keys::numbered(no, to));
        self.inner
            .scan(Family::Killers, &first, &last, |key, value| {
                let record: KillerRecord = unseal(value, "a killer's row")?;
                erases.retractions |= record.names_ranges();
                if record.erases()
                    && let Kills::Always(ranges) = record.read()?
                {
                    erases.leaves.push((keys::read_numbered(key)?.1, ranges));
                }
                Ok(true)
            })?;
        Ok(erases)
    }

    /// Drops what a range has of the leaves that are `left`, which are fewer then.
    fn drop_range(
        &self,
        range: IndexRange,
        end: u64,
        without: Option<&Liveness>,
        left: &mut RoaringTreemap,
    ) -> Result<u64> {
        let mut gone = 0_u64;
        let (mut at, end) = (range.first, range.end().min(end));
        while let Some(next) = first_from(left, at).filter(|next| *next < end) {
            let to = page_end(next).min(end);
            let is_dead = |index| match without {
                Some(without) => without.is_retracted(index),
                None => read(&self.state.live).liveness.is_dead(index),
            };
            gone = gone.saturating_add(self.drop_within(next, to, &is_dead)?);
            left.remove_range(next..to);
            at = to;
        }
        Ok(gone)
    }

    /// Drops the payloads of `[from, to)`, all of one page, as far as they are dead by
    /// what the caller says.
    pub(super) fn drop_within(
        &self,
        from: u64,
        to: u64,
        is_dead: &dyn Fn(u64) -> bool,
    ) -> Result<u64> {
        let no = self.state.no;
        let mut row = read(&self.state.live).row.clone();
        let start = page_start(from);
        let mut leaves = {
            let end = page_end(from).min(row.stored);
            self.inner.leaves(no, row.stored, start, end)?
        };
        let mut going = Going {
            // Crash: before, the payloads are there and dropped the next time; after,
            // those of this page are gone with all that was derived from them, and
            // the row says that they lie in files still.
            batch: WriteBatch::default(),
            counts: FeedCounts::read(&row.counts),
            indexes: BTreeSet::new(),
            keys: Vec::new(),
            uncounted: {
                let quarantine = &read(&self.state.live).quarantine;
                let without = frame_room::without_frames(quarantine);
                (frame_room::uncounted(quarantine), without)
            },
            frames: 0,
        };
        for (index, leaf) in (start..).zip(&leaves) {
            if (from..to).contains(&index) && !leaf.is_elided() && is_dead(index) {
                going.indexes.insert(index);
            }
        }
        if going.indexes.is_empty() {
            return Ok(0);
        }
        for (index, leaf) in (start..).zip(&mut leaves) {
            if going.indexes.contains(&index) {
                self.forget(&mut going, index, leaf)?;
                let record = leaf.elided();
                let less = leaf_bytes(leaf).saturating_sub(leaf_bytes(&record));
                row.bytes = row.bytes.saturating_sub(less);
                *leaf = record;
            }
        }
        self.put_page(&mut going.batch, start, &leaves)?;
        let mut elided = read(&self.state.live).elided.clone();
        elided.extend(going.indexes.iter().copied());
        let indexes = going.indexes.iter().copied();
        elided::put(&self.inner, &mut going.batch, no, &elided, indexes)?;
        row.counts = going.counts.to_row();
        self.state.put_row(&self.inner, &mut going.batch, &row)?;
        {
            let mut purges = hold(&self.inner.purges);
            purge::put(&self.inner, &mut going.batch, no)?;
            self.inner.write_synced(going.batch, "dropping payloads")?;
            let places = purges.due.entry(no).or_default();
            places.add(start / PAGE_LEAVES, going.keys);
        }
        frame_room::give_back(&self.state, going.frames);
        let mut live = self.state.live_mut();
        live.row = row;
        live.elided = elided;
        Ok(u64::try_from(going.indexes.len()).unwrap_or(0))
    }

    /// Removes the rows of a leaf whose payload goes, where they name that leaf.
    fn forget(&self, going: &mut Going, index: u64, leaf: &RawLeaf) -> Result<()> {
        let no = self.state.no;
        let derived = derive(&self.inner, &self.state, index, leaf)?;
        let (uncounted, without) = &going.uncounted;
        uncount(&mut going.counts, &derived, !uncounted.contains(index));
        if !without.contains(index) {
            going.frames = going.frames.saturating_add(derived.frames);
        }
        let elided = Sort::Elided.counter(&mut going.counts);
        *elided = elided.saturating_add(1);
        for (key, _) in &derived.postings {
            let key = keys::signal(key, no, index).to_vec();
            going.batch.delete_cf(self.inner.cf(Family::Signals)?, &key);
            going.keys.push((Family::Signals, key));
        }
        if derived.killer.is_some() {
            let key = keys::numbered(no, index);
            going.batch.delete_cf(self.inner.cf(Family::Killers)?, key);
        }
        if let Some(opinion) = derived.opinion.as_ref().map(|opinion| opinion.key.clone()) {
            let opinions = self.inner.cf(Family::Opinions)?;
            going.batch.delete_cf(opinions, &opinion);
            going.keys.push((Family::Opinions, opinion));
        }
        self.forget_version(going, &derived)?;
        self.forget_reference(going, &derived)
    }

    /// The entry's latest version becomes the one before, if that is held whole.
    fn forget_version(&self, going: &mut Going, derived: &Derived) -> Result<()> {
        let Some(replaces) = derived.replaces else {
            return Ok(());
        };
        let key = keys::numbered(self.state.no, replaces.first);
        let entries = self.inner.cf(Family::Entries)?;
        let latest = self.inner.get(Family::Entries, key)?;
        if latest.map(|row| unseal_index(&row)).transpose()? != Some(derived.index) {
            return Ok(());
        }
        let before = self.version_before(going, derived)?;
        match before.filter(|before| before.replaces.is_some_and(|r| r.first == replaces.first)) {
            Some(before) => going.batch.put_cf(entries, key, seal_index(before.index)),
            None => going.batch.delete_cf(entries, key),
        }
        Ok(())
    }

    fn forget_reference(&self, going: &mut Going, derived: &Derived) -> Result<()> {
        let Some((digest, _)) = derived.reference else {
            return Ok(());
        };
        let key = keys::reference(self.state.no, &digest);
        let refs = self.inner.cf(Family::Refs)?;
        let latest = self.inner.get(Family::Refs, key)?;
        let latest = latest.map(|row| unseal_reference(&row)).transpose()?;
        if latest.is_none_or(|(latest, _)| latest != derived.index) {
            return Ok(());
        }
        let before = self.version_before(going, derived)?;
        let same = before.and_then(|before| Some((before.index, before.reference?)));
        match same.filter(|(_, (same, _))| *same == digest) {
            Some((index, (_, content))) => {
                going
                    .batch
                    .put_cf(refs, key, seal_reference(index, &content));
            }
            None => going.batch.delete_cf(refs, key),
        }
        going.keys.push((Family::Refs, key.to_vec()));
        Ok(())
    }

    /// The newest of a leaf's earlier versions that is held whole and stays so.
    fn version_before(&self, going: &Going, derived: &Derived) -> Result<Option<Derived>> {
        let Some(killer) = &derived.killer else {
            return Ok(None);
        };
        let Kills::WhileAlive(earlier) = killer.read()? else {
            return Ok(None);
        };
        for index in earlier.into_iter().rev() {
            let leaf = self.leaf(index)?;
            if !leaf.is_elided() && !going.indexes.contains(&index) {
                return derive(&self.inner, &self.state, index, &leaf).map(Some);
            }
        }
        Ok(None)
    }

    /// Writes the leaves of one page anew, whole or not.
    pub(super) fn put_page(
        &self,
        batch: &mut WriteBatch,
        start: u64,
        leaves: &[RawLeaf],
    ) -> Result<()> {
        let no = self.state.no;
        let whole = u64::try_from(leaves.len()).is_ok_and(|count| count == PAGE_LEAVES);
        if whole {
            let key = keys::numbered(no, start / PAGE_LEAVES);
            batch.put_cf(self.inner.cf(Family::Pages)?, key, page::encode(leaves)?);
            return Ok(());
        }
        let tail = self.inner.cf(Family::Tail)?;
        for (index, leaf) in (start..).zip(leaves) {
            let mut plain = Vec::new();
            page::put_plain(leaf, &mut plain)?;
            batch.put_cf(tail, keys::numbered(no, index), plain);
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

fn first_from(leaves: &RoaringTreemap, at: u64) -> Option<u64> {
    let mut leaves = leaves.iter();
    leaves.advance_to(at);
    leaves.next()
}
