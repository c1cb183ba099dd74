//! Putting payloads where leaves are held as their records and should not be: they
//! were elided without reason, were dead and live again, or are dead only by what is
//! held for review.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hashpact_core::chunk::VerifiedChunk;
use hashpact_core::leaf::{ERASE, PUBLISH, RETRACT, RawLeaf};
use hashpact_core::puller::{Growth, GrowthLimit};
use hashpact_core::reject::Rejection;
use rocksdb::WriteBatch;

use super::FeedWriter;
use super::quarantine::Beside;
use super::records::needs_room;
use crate::counts::FeedCounts;
use crate::error::Result;
use crate::families::Family;
use crate::feeds;
use crate::frame_room::FrameClaim;
use crate::index::derive::{Derived, Sort, derive};
use crate::index::taking::Taking;
use crate::index::{Indexer, killers, put_rows, put_sorted};
use crate::keys;
use crate::leaves::{page_end, page_start};
use crate::pairs::Pairs;
use crate::quarantine::Reason;
use crate::record::{unseal_index, unseal_reference};
use crate::space::leaf_bytes;
use crate::store::{hold, read};
use crate::{elided, held, watch};

/// On what terms payloads are put back.
#[derive(Debug, Clone, Copy, Default)]
pub struct RefillTerms {
    /// The roster is stale: publish leaves wait.
    pub stale: bool,
    /// There is no room: what can wait stays a record.
    pub records_only: bool,
    /// The feed's growth, and what it may grow by; `None` where nothing counts.
    pub growth: Option<(Growth, GrowthLimit)>,
}

/// What a refill put back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refilled {
    /// Leaves.
    pub leaves: u64,
    /// Publish leaves among them that count as growth.
    pub counted: u64,
    /// Of these, those over the limit: they are held back.
    pub over_growth: u64,
}

/// Leaves by page.
type Coming = BTreeMap<u64, BTreeMap<u64, RawLeaf>>;

impl FeedWriter {
    /// Puts the payloads of a verified chunk where indexed leaves are held as records
    /// and are wanted whole. Dead leaves keep their records: what was erased does not
    /// come back.
    ///
    /// ⚠ What comes so grows the feed as what comes with its payload does: a helper
    /// would else elide first and bring in any number afterwards. What this node left
    /// out itself, for want of room, was counted when it came.
    ///
    /// # Errors
    /// [`Rejection::NotAnExtension`] where the chunk has another leaf than the one held;
    /// what disk and RocksDB answer, and then nothing of the chunk is refilled.
    pub fn refill(&mut self, chunk: &VerifiedChunk, terms: &RefillTerms) -> Result<Refilled> {
        self.sync()?;
        let (wanted, without_room) = {
            let live = read(&self.state.live);
            (live.wanted(), live.quarantine.without_room())
        };
        let mut coming = Coming::new();
        let mut counted = Vec::new();
        for (index, leaf) in chunk.leaves() {
            if !wanted.contains(index) || leaf.is_elided() {
                continue;
            }
            let known = without_room.contains(index);
            if terms.records_only && needs_room(leaf) {
                if !known {
                    self.quarantine(Reason::NoRoom, [index]);
                }
                continue;
            }
            if known {
                self.beside.marks.has_room(index);
            }
            let page = coming.entry(page_start(index)).or_default();
            page.insert(index, leaf.clone());
            if leaf.kind == PUBLISH {
                let counts = terms.growth.is_some_and(|(growth, _)| growth.counts(index));
                if counts && !known {
                    counted.push(index);
                }
                if terms.stale {
                    self.quarantine(Reason::StaleRoster, [index]);
                }
            }
        }
        let refilled = self.count_growth(&coming, counted, terms);
        if refilled.leaves > 0 || !self.beside.marks.is_empty() {
            self.put_back(&coming)?;
        }
        Ok(refilled)
    }

    /// What a [`FeedWriter::refill`] with this chunk would take out.
    #[must_use]
    pub fn taking_of(&self, chunk: &VerifiedChunk) -> Taking {
        let wanted = read(&self.state.live).wanted();
        let mut taking = Taking::default();
        for (index, leaf) in chunk.leaves() {
            if wanted.contains(index) && !leaf.is_elided() {
                taking.note(index, leaf);
            }
        }
        taking
    }

    /// Holds back what is over the limit, and notes the growth with what is put back.
    fn count_growth(
        &mut self,
        coming: &Coming,
        counted: Vec<u64>,
        terms: &RefillTerms,
    ) -> Refilled {
        let length = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let mut refilled = Refilled {
            leaves: coming.values().map(|page| length(page.len())).sum(),
            counted: length(counted.len()),
            over_growth: 0,
        };
        if let Some((mut growth, limit)) = terms.growth
            && refilled.counted > 0
        {
            refilled.over_growth = growth.add_now(refilled.counted, limit);
            let over = usize::try_from(refilled.over_growth).unwrap_or(usize::MAX);
            let first = counted.len().saturating_sub(over);
            self.quarantine(Reason::OverGrowth, counted.into_iter().skip(first));
            self.note_growth(growth);
        }
        refilled
    }

    fn put_back(&mut self, coming: &Coming) -> Result<()> {
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
        let mut values = watch::Coming::default();
        let mut pairs = Pairs::default();
        let mut frames = FrameClaim::new(Arc::clone(&self.state));
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
                row.bytes = row
                    .bytes
                    .saturating_add(leaf_bytes(leaf))
                    .saturating_sub(leaf_bytes(held));
                *held = leaf.clone();
                elided.remove(index);
                let mut derived = derive(inner, state, index, leaf)?;
                pairs.check(inner, no, &mut derived)?;
                frames.check(inner, &mut derived);
                count(&mut counts, &derived);
                values.note(inner, (no, index), &derived.postings);
                for lot in &derived.held {
                    self.beside.marks.add(*lot, index);
                }
                killing |= derived.killer.is_some();
                match leaf.kind {
                    // What it names is looked at again.
                    ERASE => row.erased = row.erased.min(index),
                    RETRACT => row.heard = row.heard.min(index),
                    _ => {}
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
        let told = values.finish(inner, no);
        let turn = hold(&state.quarantine_turn);
        let held_back = self.beside.put(inner, state, &mut batch)?;
        inner.write_synced(batch, "refilling leaves")?;
        frames.keep();
        // Before the leaves answer.
        state.set_quarantine(held_back);
        drop(turn);
        let rebuilt = killing
            .then(|| killers::rebuild(inner, no, row.indexed))
            .transpose()?;
        // What is held answers in the moment in which it is dead.
        let retractions = read(&state.live).held.retractions().clone();
        let quarantine = Arc::clone(&read(&state.live).quarantine);
        let held = held::compute(inner, no, row.indexed, retractions, &quarantine)?;
        {
            let mut live = state.live_mut();
            live.row = row;
            live.held = held;
            live.elided = elided;
            live.describe = describe;
            if let Some(liveness) = rebuilt {
                live.liveness = liveness;
            }
            live.recount();
        }
        drop(told);
        self.beside = Beside::default();
        self.pending.reload(inner)?;
        if self.indexer.next() == read(&state.live).row.indexed {
            let next = self.indexer.next();
            self.indexer = Indexer::new(&self.inner, &self.state, next);
        }
        Ok(())
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
    counts.postings = counts.postings.saturating_add(derived.counted());
    counts.frames = counts.frames.saturating_add(derived.frames);
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
