//! The one writer of a feed: appends leaves, makes them durable, indexes them,
//! commits heads.
//!
//! Two cursors: `stored` (leaves are durable and verified) and `indexed`
//! (look-ups, liveness and references reflect them); `stored ≥ indexed`, both
//! durable, both only growing, save by [`FeedWriter::truncate_unsigned`].
//!
//! Appended leaves are in memory until [`FeedWriter::sync`] or
//! [`FeedWriter::commit`], or until enough pages wait; nothing counts before it is
//! durable. Dropping a writer drops what was not made durable, no more.
//!
//! Blocking: every method may wait for the disk.

mod epoch;
mod erase;
mod pending;
mod quarantine;
mod records;
mod refill;
mod retain;
mod truncate;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashpact_core::chunk::VerifiedChunk;
use hashpact_core::leaf::RawLeaf;
use hashpact_core::merkle::CompactRange;
use hashpact_core::reject::Rejection;
use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use self::pending::Pending;
use self::quarantine::Beside;
pub use self::refill::{RefillTerms, Refilled};
pub use self::retain::DroppedDead;
use crate::counts::FeedCounts;
use crate::error::{Result, StoreError};
use crate::feeds::{FeedInfo, FeedState};
use crate::heads::{Head, PRUNE_EVERY};
use crate::index::Indexer;
use crate::index::derive::Derived;
use crate::index::taking::Taking;
use crate::keys::FeedNo;
use crate::store::{Inner, Store, hold, read};
use crate::{allowed, elided};

/// The writer of one feed.
pub struct FeedWriter {
    inner: Arc<Inner>,
    state: Arc<FeedState>,
    pending: Pending,
    indexer: Indexer,
    beside: Beside,
}

/// Where a commit left the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Leaves stored; equal to `indexed` after a commit.
    pub stored: u64,
    /// The first leaf that this commit indexed.
    pub indexed_from: u64,
    /// Leaves indexed.
    pub indexed: u64,
}

impl Store {
    /// Takes a feed for writing. Leaves that a crash left stored but not indexed
    /// are indexed by the next commit.
    ///
    /// # Errors
    /// [`StoreError::FeedBusy`] while it has a writer.
    pub fn writer(&self, no: FeedNo) -> Result<FeedWriter> {
        let state = self.inner.feed(no)?;
        state.take()?;
        let writer = FeedWriter::open(Arc::clone(&self.inner), Arc::clone(&state));
        if writer.is_err() {
            state.busy.store(false, Ordering::Release);
        }
        writer
    }
}

impl FeedWriter {
    fn open(inner: Arc<Inner>, state: Arc<FeedState>) -> Result<Self> {
        let (frontier, next) = {
            let live = read(&state.live);
            (live.frontier.clone(), live.row.indexed)
        };
        let pending = Pending::new(&inner, state.no, frontier)?;
        let indexer = Indexer::new(&inner, &state, next);
        Ok(Self {
            inner,
            state,
            pending,
            indexer,
            beside: Beside::default(),
        })
    }

    /// The feed's number.
    #[must_use]
    pub fn feed_no(&self) -> FeedNo {
        self.state.no
    }

    /// The feed as it is durable.
    #[must_use]
    pub fn info(&self) -> FeedInfo {
        self.state.info()
    }

    /// Leaves appended, whether durable or not.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.pending.frontier().end()
    }

    /// The compact range of all leaves appended, whether durable or not.
    #[must_use]
    pub const fn frontier(&self) -> &CompactRange {
        self.pending.frontier()
    }

    /// Appends leaves of this node's own; answers the index of the first.
    ///
    /// # Errors
    /// A payload over its limit, or what disk and RocksDB answer.
    pub fn append(&mut self, leaves: &[RawLeaf]) -> Result<u64> {
        let first = self.size();
        self.catch_up()?;
        self.push_all(first, leaves)?;
        self.sync_when_full()?;
        Ok(first)
    }

    /// Appends a verified chunk; its pages are stored as they came.
    ///
    /// # Errors
    /// [`StoreError::IndexGap`] unless the chunk begins at [`FeedWriter::size`];
    /// [`Rejection::NotAnExtension`] when it was verified against other leaves
    /// than these; what disk and RocksDB answer.
    pub fn append_verified(&mut self, chunk: &VerifiedChunk) -> Result<()> {
        let expected = self.continues(chunk)?;
        self.catch_up()?;
        let mut at = self.push_all(expected, &chunk.lead)?;
        for page in &chunk.pages {
            self.pending.push_page(&page.wire, page.root)?;
            self.pending.note_leaves(at, &page.leaves);
            self.indexer.add(&self.inner, at, &page.leaves)?;
            at = self.size();
        }
        self.push_all(at, &chunk.trail)?;
        self.sync_when_full()
    }

    /// Checks that a chunk follows what is appended; answers where it begins.
    fn continues(&self, chunk: &VerifiedChunk) -> Result<u64> {
        let expected = self.size();
        if chunk.from != expected {
            return Err(StoreError::IndexGap {
                expected,
                got: chunk.from,
            });
        }
        if &chunk.before != self.frontier() {
            return Err(Rejection::NotAnExtension { held: expected }.into());
        }
        Ok(expected)
    }

    /// Makes all appended leaves durable; answers the stored size.
    ///
    /// # Errors
    /// What disk and RocksDB answer; then nothing more counts than before.
    pub fn sync(&mut self) -> Result<u64> {
        if self.pending.is_empty() {
            return Ok(self.size());
        }
        // Crash: before, `stored` stands and the pages that were ingested beyond
        // it count for nothing; after, leaves, tree and `stored` are all there.
        let mut batch = WriteBatch::default();
        let mut row = read(&self.state.live).row.clone();
        self.pending.write(&self.inner, &mut batch)?;
        self.pending.bring(&mut row);
        let elided = self.put_elided(&mut batch)?;
        self.state.put_row(&self.inner, &mut batch, &row)?;
        let turn = hold(&self.state.quarantine_turn);
        let held_back = self.beside.put(&self.inner, &self.state, &mut batch)?;
        self.inner.write_synced(batch, "storing leaves")?;
        self.state.set_quarantine(held_back);
        drop(turn);
        self.beside = Beside::default();
        {
            let mut live = self.state.live_mut();
            live.row = row;
            live.frontier = self.pending.frontier().clone();
            if let Some(elided) = elided {
                live.elided = elided;
            }
        }
        self.pending.written();
        Ok(self.size())
    }

    /// Makes all appended leaves durable and indexed, and `head`, when given, the
    /// applied one. A few leaves go in as one atomic batch; many go in as files
    /// that are ingested first, and then `indexed` moves.
    ///
    /// # Errors
    /// [`StoreError::HeadMismatch`] when the leaves do not lead to the head; what
    /// disk and RocksDB answer; then nothing more counts than before.
    pub fn commit(&mut self, head: Option<&Head>) -> Result<Committed> {
        self.catch_up()?;
        if let Some(head) = head {
            self.check(head)?;
        }
        if self.indexer.is_bulk() {
            // Files are ingested before the batch: their postings must not name
            // leaves that a crash could replace by others.
            self.sync()?;
        }
        // Crash: before, leaves may be stored and not indexed, and are indexed by
        // the next commit; postings of theirs that were ingested are filtered by
        // `indexed` until then. After, all of it counts.
        let mut batch = WriteBatch::default();
        let mut row = read(&self.state.live).row.clone();
        let indexed_from = row.indexed;
        self.pending.write(&self.inner, &mut batch)?;
        let mut outcome = self.indexer.finish(&self.inner, &mut batch)?;
        self.beside.marks.extend(outcome.take_marks());
        self.pending.bring(&mut row);
        outcome.apply_to(&mut row);
        if let Some(head) = head {
            self.inner.put_head(&mut batch, self.state.no, head)?;
            row.set_applied(head.at());
        }
        let elided = self.put_elided(&mut batch)?;
        self.state.put_row(&self.inner, &mut batch, &row)?;
        let turn = hold(&self.state.quarantine_turn);
        let held_back = self.beside.put(&self.inner, &self.state, &mut batch)?;
        self.inner.write_synced(batch, "committing leaves")?;
        self.indexer.keep_frames();
        // Before the leaves answer.
        self.state.set_quarantine(held_back);
        drop(turn);
        self.beside = Beside::default();
        let committed = Committed {
            stored: row.stored,
            indexed_from,
            indexed: row.indexed,
        };
        self.pending.written();
        let frontier = self.pending.frontier();
        outcome.publish(&self.inner, &self.state, row, frontier, elided)?;
        if self.indexer.is_of_another_list(&self.inner) {
            let mut leaves = RoaringTreemap::new();
            leaves.insert_range(committed.indexed_from..committed.indexed);
            allowed::apply_to(&self.inner, &self.state, &leaves)?;
        }
        self.indexer = Indexer::new(&self.inner, &self.state, committed.indexed);
        if let Some(head) = head {
            self.prune_heads(head)?;
        }
        Ok(committed)
    }

    /// Prunes the feed's heads every so often: a publisher makes as many as it likes.
    fn prune_heads(&self, newest: &Head) -> Result<()> {
        let unpruned = &self.state.heads_unpruned;
        if unpruned.fetch_add(1, Ordering::Relaxed) >= PRUNE_EVERY {
            unpruned.store(0, Ordering::Relaxed);
            let (no, applied) = (self.state.no, Some(newest.at()));
            self.inner.prune_heads(no, applied, newest.received)?;
        }
        Ok(())
    }

    /// What the next commit would take out. Leaves of a bulk load are made durable.
    ///
    /// # Errors
    /// What disk and RocksDB answer.
    pub fn taking(&mut self) -> Result<Taking> {
        self.catch_up()?;
        if self.indexer.is_bulk() {
            self.sync()?;
        }
        let stored = read(&self.state.live).row.stored;
        let (inner, no) = (&*self.inner, self.state.no);
        let mut taking = self.indexer.taking(inner, |index| {
            let mut leaf = inner.leaves(no, stored, index, index.saturating_add(1))?;
            leaf.pop().ok_or(StoreError::corrupt("a leaf is missing"))
        })?;
        taking.elided.extend(self.pending.elided());
        Ok(taking)
    }

    /// Commits a head over leaves that are appended already: [`FeedWriter::commit`].
    ///
    /// # Errors
    /// As [`FeedWriter::commit`].
    pub fn commit_head(&mut self, head: &Head) -> Result<Committed> {
        self.commit(Some(head))
    }

    fn push_all(&mut self, first: u64, leaves: &[RawLeaf]) -> Result<u64> {
        for leaf in leaves {
            self.pending.push(leaf, leaf.hash())?;
        }
        self.pending.note_leaves(first, leaves);
        self.indexer.add(&self.inner, first, leaves)?;
        Ok(self.size())
    }

    /// Adds which of the appended leaves are records alone to the batch that stores
    /// them; answers all that are then, if there are more than before.
    fn put_elided(&self, batch: &mut WriteBatch) -> Result<Option<RoaringTreemap>> {
        let new = self.pending.elided();
        if new.is_empty() {
            return Ok(None);
        }
        let mut all = read(&self.state.live).elided.clone();
        all.extend(new.iter().copied());
        elided::put(&self.inner, batch, self.state.no, &all, new.iter().copied())?;
        Ok(Some(all))
    }

    fn sync_when_full(&mut self) -> Result<()> {
        if self.pending.bytes() >= self.inner.options.unsynced_max_bytes {
            self.sync()?;
        }
        Ok(())
    }

    /// Hands the indexer what is stored and not indexed.
    fn catch_up(&mut self) -> Result<()> {
        let stored = read(&self.state.live).row.stored;
        while self.indexer.next() < stored {
            let from = self.indexer.next();
            let to = crate::leaves::page_end(from).min(stored);
            let leaves = self.inner.leaves(self.state.no, stored, from, to)?;
            self.indexer.add(&self.inner, from, &leaves)?;
        }
        Ok(())
    }

    fn check(&self, head: &Head) -> Result<()> {
        let at = head.at();
        let stored = read(&self.state.live).row.stored;
        let root = if at.size == self.size() {
            self.frontier().root()
        } else if at.size <= stored {
            let node = |node| self.inner.node(self.state.no, stored, node);
            CompactRange::fetch(0, at.size, node)?.root()
        } else {
            None
        };
        if root == Some(at.root) {
            Ok(())
        } else {
            Err(StoreError::HeadMismatch {
                size: at.size,
                held: self.size(),
            })
        }
    }
}

impl Drop for FeedWriter {
    fn drop(&mut self) {
        self.state.busy.store(false, Ordering::Release);
    }
}

impl std::fmt::Debug for FeedWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FeedWriter")
            .field("feed", &self.state.no)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

/// Leaves with their indexes, last first.
fn backwards(start: u64, leaves: &[RawLeaf]) -> impl Iterator<Item = (u64, &RawLeaf)> {
    let count = u64::try_from(leaves.len()).unwrap_or(0);
    let indexes = (start..start.saturating_add(count)).rev();
    indexes.zip(leaves.iter().rev())
}

/// Takes a leaf out of the counts; `frames` says whether its frames are in them.
fn uncount(counts: &mut FeedCounts, derived: &Derived, frames: bool) {
    let of_frames = if frames { derived.frames } else { 0 };
    let others = derived.counted().saturating_sub(derived.frames);
    let postings = others.saturating_add(of_frames);
    counts.postings = counts.postings.saturating_sub(postings);
    counts.frames = counts.frames.saturating_sub(of_frames);
    let count = derived.sort.counter(counts);
    *count = count.saturating_sub(1);
}
