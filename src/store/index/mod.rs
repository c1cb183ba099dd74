//! Indexing: what stored leaves mean for look-ups, liveness and references.
//!
//! A few leaves wait in memory and become part of the committing batch; many go
//! through a spill into sorted files. Indexing a leaf twice writes the same rows,
//! so a crash between `indexed` and `stored` costs nothing but the time.

pub(crate) mod derive;
pub(crate) mod killers;
pub(crate) mod taking;

use std::sync::Arc;

use bytes::Bytes;
use hashpact_core::leaf::{Leaf, RawLeaf};
use hashpact_core::liveness::Liveness;
use hashpact_core::merkle::CompactRange;
use hashpact_priority::let_others;
use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use self::derive::{Derived, derive};
use self::taking::Taking;
use crate::bulk::{self, Spill};
use crate::counts::FeedCounts;
use crate::error::Result;
use crate::families::Family;
use crate::feeds::{self, FeedState, HeadRef, Said};
use crate::frame_room::FrameClaim;
use crate::held::{self, Held};
use crate::keys::{self, FeedNo};
use crate::pairs::Pairs;
use crate::quarantine::Marks;
use crate::record::{FeedRow, POSTING_MAX_BYTES, seal, seal_index, seal_reference};
use crate::store::{Inner, read};
use crate::watch::{Coming, UnderWay};

/// Bytes of rows of a bulk load that are not sorted, per batch.
const BATCH_BYTES: usize = 4 << 20;

/// Takes a feed's leaves in order and gathers what they mean.
pub(crate) struct Indexer {
    state: Arc<FeedState>,
    /// The next index to take.
    next: u64,
    waiting: Vec<(u64, RawLeaf)>,
    spill: Option<Spill>,
    outcome: Outcome,
    coming: Coming,
    pairs: Pairs,
    frames: FrameClaim,
    /// The allow list that it began under.
    allowed: u64,
    /// Rows that are not sorted: killers, entries, opinions.
    rows: WriteBatch,
    /// A posting's value while it is written.
    value: Vec<u8>,
}

/// What a commit changes about its feed.
pub(crate) struct Outcome {
    indexed: u64,
    /// Of the leaves of this commit alone: erasing and refilling change the feed's
    /// own counts meanwhile.
    counts: FeedCounts,
    describe: Option<(u64, Bytes)>,
    /// Name and kind by the describe leaf in force.
    said: Option<Said>,
    killers: Killers,
    /// Held until look-ups see the leaves.
    under_way: Option<UnderWay>,
    /// What the gate holds back.
    marks: Marks,
}

/// The leaves of a commit that make others dead.
enum Killers {
    Few(Vec<(u64, u8, Leaf)>),
    Many,
}

/// Killers that are applied one by one; more are read back from their family.
const FEW_KILLERS: usize = 4_096;

impl Indexer {
    /// Begins after what is indexed.
    pub(crate) fn new(inner: &Inner, state: &Arc<FeedState>, indexed: u64) -> Self {
        let in_force = read(&state.live).describe.clone();
        Self {
            state: Arc::clone(state),
            next: indexed,
            waiting: Vec::new(),
            spill: None,
            outcome: Outcome {
                indexed,
                counts: FeedCounts::default(),
                describe: None,
                said: in_force.and_then(|(index, payload)| feeds::said_by(index, &payload)),
                killers: Killers::Few(Vec::new()),
                under_way: None,
                marks: Marks::default(),
            },
            coming: Coming::default(),
            pairs: Pairs::default(),
            frames: FrameClaim::new(Arc::clone(state)),
            allowed: inner.allowed.generation(),
            rows: WriteBatch::default(),
            value: Vec::with_capacity(POSTING_MAX_BYTES),
        }
    }

    /// Whether what was taken goes in as files.
    pub(crate) const fn is_bulk(&self) -> bool {
        self.spill.is_some()
    }

    /// The next index to take.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// Takes leaves from index `first` on. When that is beyond [`Indexer::next`],
    /// they are taken when the writer catches up.
    pub(crate) fn add(&mut self, inner: &Inner, first: u64, leaves: &[RawLeaf]) -> Result<()> {
        if first != self.next {
            return Ok(());
        }
        let count = u64::try_from(leaves.len()).unwrap_or(u64::MAX);
        self.next = first.saturating_add(count);
        if self.spill.is_none() {
            self.waiting.extend((first..).zip(leaves.iter().cloned()));
            let waiting = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
            if waiting >= inner.options.bulk_from_leaves {
                self.begin_bulk(inner)?;
            }
            return Ok(());
        }
        for (index, leaf) in (first..).zip(leaves) {
            let_others();
            self.take(inner, index, leaf)?;
        }
        Ok(())
    }

    /// Adds all of it to the batch that commits it, or ingests it and adds what is
    /// left.
    pub(crate) fn finish(&mut self, inner: &Inner, batch: &mut WriteBatch) -> Result<Outcome> {
        for (index, leaf) in std::mem::take(&mut self.waiting) {
            let_others();
            let mut derived = derive(inner, &self.state, index, &leaf)?;
            self.pairs.check(inner, self.state.no, &mut derived)?;
            self.frames.check(inner, &mut derived);
            put_sorted(inner, batch, self.state.no, &derived)?;
            put_rows(inner, batch, self.state.no, &derived)?;
            self.coming
                .note(inner, (self.state.no, index), &derived.postings);
            self.outcome.note(index, derived);
        }
        if let Some(spill) = self.spill.take() {
            self.write_rows(inner)?;
            bulk::load(inner, spill)?;
        }
        self.outcome.under_way = self.coming.finish(inner, self.state.no);
        self.outcome.indexed = self.next;
        let next = Outcome::after(&self.outcome);
        Ok(std::mem::replace(&mut self.outcome, next))
    }

    /// What [`Indexer::finish`] gave is durable.
    pub(crate) const fn keep_frames(&mut self) {
        self.frames.keep();
    }

    /// Whether the allow list is another than when it began.
    pub(crate) fn is_of_another_list(&self, inner: &Inner) -> bool {
        self.allowed != inner.allowed.generation()
    }

    /// What the leaves taken would take out, once they count. For a bulk load `read`
    /// reads a leaf that is stored.
    pub(crate) fn taking(
        &mut self,
        inner: &Inner,
        read: impl Fn(u64) -> Result<RawLeaf>,
    ) -> Result<Taking> {
        let mut taking = Taking::default();
        for (index, leaf) in &self.waiting {
            taking.note(*index, leaf);
        }
        if self.spill.is_none() {
            return Ok(taking);
        }
        // Crash: as for every such row.
        self.write_rows(inner)?;
        let mut wanted = Vec::new();
        let no = self.state.no;
        let (from, to) = (self.outcome.indexed, self.next);
        let (from, to) = (keys::numbered(no, from), keys::numbered(no, to));
        inner.scan(Family::Killers, &from, &to, |key, row| {
            let (index, kills) = killers::read((key, row))?;
            if taking.note_row(index, kills) {
                wanted.push(index);
            }
            Ok(true)
        })?;
        for index in wanted {
            taking.retractions.insert(index, read(index)?);
        }
        Ok(taking)
    }

    fn begin_bulk(&mut self, inner: &Inner) -> Result<()> {
        self.spill = Some(Spill::new(inner));
        for (index, leaf) in std::mem::take(&mut self.waiting) {
            self.take(inner, index, &leaf)?;
        }
        Ok(())
    }

    /// Takes one leaf of a bulk load.
    fn take(&mut self, inner: &Inner, index: u64, leaf: &RawLeaf) -> Result<()> {
        let mut derived = derive(inner, &self.state, index, leaf)?;
        let no = self.state.no;
        self.pairs.check(inner, no, &mut derived)?;
        self.frames.check(inner, &mut derived);
        if let Some(spill) = &mut self.spill {
            for (key, record) in &derived.postings {
                self.value.clear();
                record.write(&mut self.value);
                spill.put(Family::Signals, &keys::signal(key, no, index), &self.value)?;
            }
            if let Some((digest, content)) = &derived.reference {
                let value = seal_reference(index, content);
                spill.put(Family::Refs, &keys::reference(no, digest), &value)?;
            }
        }
        put_rows(inner, &mut self.rows, no, &derived)?;
        self.coming.note(inner, (no, index), &derived.postings);
        self.outcome.note(index, derived);
        if self.rows.size_in_bytes() >= BATCH_BYTES {
            self.write_rows(inner)?;
        }
        Ok(())
    }

    /// Crash: these rows name indexes that are not indexed yet; readers filter
    /// them, and the next commit writes the same ones.
    fn write_rows(&mut self, inner: &Inner) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        inner.write_unsynced(rows, "indexing leaves")
    }
}

/// Rows of a small commit that a bulk load would sort.
pub(crate) fn put_sorted(
    inner: &Inner,
    batch: &mut WriteBatch,
    no: FeedNo,
    derived: &Derived,
) -> Result<()> {
    for (key, record) in &derived.postings {
        let key = keys::signal(key, no, derived.index);
        let mut value = Vec::with_capacity(POSTING_MAX_BYTES);
        record.write(&mut value);
        batch.put_cf(inner.cf(Family::Signals)?, key, value);
    }
    if let Some((digest, content)) = &derived.reference {
        let value = seal_reference(derived.index, content);
        batch.put_cf(inner.cf(Family::Refs)?, keys::reference(no, digest), value);
    }
    Ok(())
}

/// Rows that are few, or come in order.
pub(crate) fn put_rows(
    inner: &Inner,
    batch: &mut WriteBatch,
    no: FeedNo,
    derived: &Derived,
) -> Result<()> {
    if let Some(killer) = &derived.killer {
        let key = keys::numbered(no, derived.index);
        batch.put_cf(inner.cf(Family::Killers)?, key, seal(killer));
    }
    if let Some(retraction) = &derived.retraction {
        retraction.put(inner, batch, no)?;
    }
    if let Some(replaces) = derived.replaces {
        let key = keys::numbered(no, replaces.first);
        batch.put_cf(inner.cf(Family::Entries)?, key, seal_index(derived.index));
    }
    if let Some(opinion) = &derived.opinion {
        opinion.put(inner, batch)?;
    }
    Ok(())
}

impl Outcome {
    fn after(done: &Self) -> Self {
        Self {
            indexed: done.indexed,
            counts: FeedCounts::default(),
            describe: None,
            said: done.said.clone(),
            killers: Killers::Few(Vec::new()),
            under_way: None,
            marks: Marks::default(),
        }
    }

    /// What the gate holds back, to be made durable with the commit.
    pub(crate) fn take_marks(&mut self) -> Marks {
        std::mem::take(&mut self.marks)
    }

    fn note(&mut self, index: u64, derived: Derived) {
        let counts = &mut self.counts;
        counts.postings = counts.postings.saturating_add(derived.counted());
        counts.frames = counts.frames.saturating_add(derived.frames);
        let count = derived.sort.counter(counts);
        *count = count.saturating_add(1);
        for lot in &derived.held {
            self.marks.add(*lot, index);
        }
        if let Some(payload) = derived.describe {
            self.describe(index, payload);
        }
        if let Some((kind, leaf)) = derived.killing {
            self.killers.push(index, kind, leaf);
        }
    }

    /// Takes a describe leaf in force, unless it would make the feed another set:
    /// what a feed is called and what it holds never change.
    fn describe(&mut self, index: u64, payload: Bytes) {
        let says = feeds::said_by(index, &payload);
        if self.said.is_none() || self.said == says {
            self.said = says;
            self.describe = Some((index, payload));
        }
    }

    /// Writes the outcome to the feed's row.
    pub(crate) fn apply_to(&self, row: &mut FeedRow) {
        row.indexed = self.indexed;
        row.counts = FeedCounts::read(&row.counts).plus(&self.counts).to_row();
        if let Some((index, _)) = &self.describe {
            row.describe_plus_one = index.saturating_add(1);
        }
    }

    /// Lets look-ups see the outcome, after it is durable.
    pub(crate) fn publish(
        self,
        inner: &Inner,
        state: &FeedState,
        row: FeedRow,
        frontier: &CompactRange,
        elided: Option<RoaringTreemap>,
    ) -> Result<()> {
        let held = self.held(inner, state, row.indexed)?;
        let counted = self.liveness(inner, state, row.indexed)?;
        let mut live = state.live_mut();
        if let Some(liveness) = counted {
            live.liveness = liveness;
        }
        live.liveness.extend_plain(row.indexed);
        if self.describe.is_some() {
            live.describe = self.describe;
        }
        if let Some(held) = held {
            live.held = held;
        }
        live.row = row;
        live.frontier = frontier.clone();
        if let Some(elided) = elided {
            live.elided = elided;
        }
        live.recount();
        Ok(())
    }

    /// What is dead with the leaves of this commit; `None` where none of them kills.
    /// ⚠ Reckoned beside what look-ups read, which wait for nothing here: a publisher
    /// can make it as long as it likes. The feed's one writer is who changes it.
    fn liveness(&self, inner: &Inner, state: &FeedState, indexed: u64) -> Result<Option<Liveness>> {
        if let Killers::Few(leaves) = &self.killers {
            if leaves.is_empty() {
                return Ok(None);
            }
            let mut liveness = read(&state.live).liveness.clone();
            if count_killers(inner, state.no, &mut liveness, leaves) {
                return Ok(Some(liveness));
            }
        }
        killers::rebuild(inner, state.no, indexed).map(Some)
    }

    /// What answers though it is dead, where leaves in quarantine may have killed it, or
    /// retractions that are held.
    fn held(&self, inner: &Inner, state: &FeedState, indexed: u64) -> Result<Option<Held>> {
        let kills = match &self.killers {
            Killers::Few(leaves) => !leaves.is_empty(),
            Killers::Many => true,
        };
        let (retractions, quarantine) = {
            let live = read(&state.live);
            (
                live.held.retractions().clone(),
                Arc::clone(&live.quarantine),
            )
        };
        // ⚠ With the retractions that are held before this commit counts: what they
        // take out never stops answering in between.
        if !kills || (retractions.is_empty() && !quarantine.withholds_leaves()) {
            return Ok(None);
        }
        held::compute(inner, state.no, indexed, retractions, &quarantine).map(Some)
    }
}

/// Counts killers one by one; answers false when only a rebuild gives the truth.
fn count_killers(
    inner: &Inner,
    no: FeedNo,
    liveness: &mut Liveness,
    leaves: &[(u64, u8, Leaf)],
) -> bool {
    leaves.iter().all(|(index, kind, leaf)| {
        let replaces_of = |earlier| killers::replaces_of(inner, no, earlier);
        let change = liveness.apply(*index, *kind, leaf, replaces_of);
        change.is_ok_and(|change| !change.needs_rebuild)
    })
}

impl Killers {
    fn push(&mut self, index: u64, kind: u8, leaf: Leaf) {
        match self {
            Self::Few(leaves) if leaves.len() < FEW_KILLERS => leaves.push((index, kind, leaf)),
            Self::Few(_) | Self::Many => *self = Self::Many,
        }
    }
}

impl FeedRow {
    pub(crate) fn set_applied(&mut self, head: HeadRef) {
        self.applied_epoch = head.epoch;
        self.applied_size = head.size;
        self.applied_root = head.root.0.to_vec();
    }

    pub(crate) fn set_unapplied(&mut self) {
        self.applied_epoch = 0;
        self.applied_size = 0;
        self.applied_root = Vec::new();
    }
}
