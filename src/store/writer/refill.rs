//! Putting payloads where leaves are held as their records and should not be: they
//! were elided without reason, were dead and live again, or are dead only by what is
//! held for review.

use std::collections::BTreeMap;

use bytes::Bytes;
use hashpact_core::chunk::VerifiedChunk;
use hashpact_core::leaf::{ERASE, PUBLISH, RawLeaf};
use hashpact_core::reject::Rejection;
use rocksdb::WriteBatch;

use super::FeedWriter;
use super::quarantine::Beside;
use crate::error::Result;
use crate::families::Family;
use crate::feeds::{self, FeedCounts};
use crate::index::derive::{Derived, Sort, derive};
use crate::index::{Indexer, killers, put_rows, put_sorted};
use crate::keys;
use crate::leaves::{page_end, page_start};
use crate::quarantine::Reason;
use crate::record::{unseal_index, unseal_reference};
use crate::store::{hold, read};
use crate::watch::Coming;
use crate::{elided, held};

impl FeedWriter {
    /// Puts the payloads of a verified chunk where indexed leaves are held as records
    /// and are wanted whole; answers how many. Dead leaves keep their records: what was
    /// erased does not come back. With a reason its publish leaves are held back.
    ///
    /// # Errors
    /// [`Rejection::NotAnExtension`] where the chunk has another leaf than the one held;
    /// what disk and RocksDB answer, and then nothing of the chunk is refilled.
    pub fn refill(&mut self, chunk: &VerifiedChunk, hold_back: Option<Reason>) -> Result<u64> {
        self.sync()?;
        let wanted = read(&self.state.live).wanted();
        let mut coming: BTreeMap<u64, BTreeMap<u64, RawLeaf>> = BTreeMap::new();
        for (index, leaf) in chunk.leaves() {
            if wanted.contains(index) && !leaf.is_elided() {
                let page = coming.entry(page_start(index)).or_default();
                page.insert(index, leaf.clone());
                if let (Some(reason), PUBLISH) = (hold_back, leaf.kind) {
                    self.quarantine(reason, [index]);
                }
            }
        }
        if coming.is_empty() {
            return Ok(0);
        }
        self.put_back(&coming)
    }

    fn put_back(&mut self, coming: &BTreeMap<u64, BTreeMap<u64, RawLeaf>>) -> Result<u64> {
        let (inner, state, no) = (&*self.inner, &*self.state, self.state.no);
        let (mut row, mut elided, mut describe) = {
            let live = read(&state.live);
            (live.row.clone(), live.elided.clone(), live.describe.clone())
        };
        let mut counts = FeedCounts::read(&row.counts);
        // Crash: before, the leaves are held as records, and are pulled again; after,
        // they are held whole, with all that is derived from them.
        let mut batch = WriteBatch::default();
        let mut killing = false;
        let mut values = Coming::default();
        for (start, page) in coming {
            let end = page_end(*start).min(row.stored);
            let mut leaves = inner.leaves(no, row.stored, *start, end)?;
            for (index, held) in (*start..).zip(&mut leaves) {
                let Some(leaf) = page.get(&index) else {
                    continue;
                };
                if leaf.hash() != held.hash() {
                    return Err(Rejection::NotAnExtension { held: index }.into());
                }
                *held = leaf.clone();
                elided.remove(index);
                let derived = derive(inner, state, index, leaf)?;
                count(&mut counts, &derived);
                values.note(inner, &derived.postings);
                for lot in &derived.held {
                    self.beside.marks.add(*lot, index);
                }
                killing |= derived.killer.is_some();
                if leaf.kind == ERASE {
                    // What it names is looked at again.
                    row.erased = row.erased.min(index);
                }
                if describes(describe.as_ref(), &derived) {
                    describe = derived.describe.clone().map(|payload| (index, payload));
                }
                self.put_derived(&mut batch, derived)?;
            }
            self.put_page(&mut batch, *start, &leaves)?;
        }
        let indexes = || coming.values().flat_map(BTreeMap::keys).copied();
        elided::put(inner, &mut batch, no, &elided, indexes())?;
        row.counts = counts.to_row();
        row.describe_plus_one = describe.as_ref().map_or(0, |(i, _)| i.saturating_add(1));
        state.put_row(inner, &mut batch, &row)?;
        // Told before look-ups see them.
        let told = values.finish(inner);
        let turn = hold(&state.quarantine_turn);
        let held_back = self.beside.put(inner, state, &mut batch)?;
        inner.write_synced(batch, "refilling leaves")?;
        // Before the leaves answer.
        state.set_quarantine(held_back);
        drop(turn);
        let rebuilt = killing
            .then(|| killers::rebuild(inner, no, row.indexed))
            .transpose()?;
        {
            let mut live = state.live_mut();
            live.row = row;
            live.elided = elided;
            live.describe = describe;
            if let Some(liveness) = rebuilt {
                live.liveness = liveness;
            }
            live.recount();
        }
        drop(told);
        held::refresh(inner, state)?;
        self.beside = Beside::default();
        self.pending.reload(inner)?;
        if self.indexer.next() == read(&state.live).row.indexed {
            let next = self.indexer.next();
            self.indexer = Indexer::new(&self.state, next);
        }
        Ok(u64::try_from(indexes().count()).unwrap_or(0))
    }

    /// Adds what a leaf gives, but no row that names a later version already.
    fn put_derived(&self, batch: &mut WriteBatch, mut derived: Derived) -> Result<()> {
        let (inner, no) = (&*self.inner, self.state.no);
        if let Some(replaces) = derived.replaces {
            let row = inner.get(Family::Entries, keys::numbered(no, replaces.first))?;
            let latest = row.map(|row| unseal_index(&row)).transpose()?;
            if latest.is_some_and(|latest| latest > derived.index) {
                derived.replaces = None;
            }
        }
        if let Some((digest, _)) = &derived.reference {
            let row = inner.get(Family::Refs, keys::reference(no, digest))?;
            let latest = row.map(|row| unseal_reference(&row)).transpose()?;
            if latest.is_some_and(|(latest, _)| latest > derived.index) {
                derived.reference = None;
            }
        }
        put_sorted(inner, batch, no, &derived)?;
        put_rows(inner, batch, no, &derived)
    }
}

fn count(counts: &mut FeedCounts, derived: &Derived) {
    let elided = Sort::Elided.counter(counts);
    *elided = elided.saturating_sub(1);
    let postings = u64::try_from(derived.postings.len()).unwrap_or(0);
    counts.postings = counts.postings.saturating_add(postings);
    let count = derived.sort.counter(counts);
    *count = count.saturating_add(1);
}

/// Whether a describe leaf that came back is in force: the newest, of the same set.
fn describes(in_force: Option<&(u64, Bytes)>, derived: &Derived) -> bool {
    let Some(payload) = &derived.describe else {
        return false;
    };
    in_force.is_none_or(|(at, held)| {
        let said = feeds::said_by(*at, held);
        *at < derived.index && said == feeds::said_by(derived.index, payload)
    })
}
