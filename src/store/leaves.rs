//! Reading a feed's leaves, its tree, and the chunks that are served from them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use hashpact_core::chunk::ChunkParts;
use hashpact_core::id::Digest;
use hashpact_core::leaf::RawLeaf;
use hashpact_core::limits::{CHUNK_MAX_LEAVES, CHUNK_PLAIN_MAX_BYTES, PAGE_LEAVES};
use hashpact_core::merkle::{CompactRange, NodeId, node_hash, proof};
use hashpact_core::page;

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::FeedState;
use crate::keys::{self, FeedNo};
use crate::store::{Inner, Store, hold, read};

/// The level of a page's root in the tree.
pub(crate) const PAGE_LEVEL: u8 = 8;
/// Pages whose leaf hashes are kept: 8 KiB each.
const PAGE_HASHES_MAX: usize = 64;

/// Leaf hashes of whole pages that proofs asked for lately.
#[derive(Default)]
pub(crate) struct PageHashes {
    by_page: HashMap<(FeedNo, u64), Arc<[Digest]>>,
    order: VecDeque<(FeedNo, u64)>,
}

impl Store {
    /// Reads the leaves `[from, to)`. The caller bounds the range.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] beyond the stored size.
    pub fn read_leaves(&self, no: FeedNo, from: u64, to: u64) -> Result<Vec<RawLeaf>> {
        self.inner.leaves(no, self.inner.stored(no)?, from, to)
    }

    /// Reads one leaf.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] beyond the stored size.
    pub fn read_leaf(&self, no: FeedNo, index: u64) -> Result<RawLeaf> {
        let mut leaves = self.read_leaves(no, index, index.saturating_add(1))?;
        leaves.pop().ok_or(StoreError::corrupt("a leaf is missing"))
    }

    /// Reads whole pages in wire form.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] beyond the last whole page.
    pub fn read_pages_wire(&self, no: FeedNo, first: u64, count: u64) -> Result<Vec<Bytes>> {
        let stored = self.inner.stored(no)?;
        let end = first.saturating_add(count);
        in_range(
            first.saturating_mul(PAGE_LEAVES),
            end.saturating_mul(PAGE_LEAVES),
            stored,
        )?;
        (first..end)
            .map(|page| self.inner.page_wire(no, page))
            .collect()
    }

    /// The compact range `[a, b)`: at most two pages are read for its ends.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] beyond the stored size.
    pub fn range(&self, no: FeedNo, a: u64, b: u64) -> Result<CompactRange> {
        let stored = self.inner.stored(no)?;
        in_range(a, b, stored)?;
        CompactRange::fetch(a, b, |node| self.inner.node(no, stored, node))
    }

    /// The compact range `[0, size)`.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] beyond the stored size.
    pub fn frontier(&self, no: FeedNo, size: u64) -> Result<CompactRange> {
        let state = self.inner.feed(no)?;
        let frontier = read(&state.live).frontier.clone();
        if frontier.end() == size {
            return Ok(frontier);
        }
        self.range(no, 0, size)
    }

    /// The root of the tree over the first `size` leaves.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] beyond the stored size.
    pub fn root_at(&self, no: FeedNo, size: u64) -> Result<Digest> {
        self.frontier(no, size)?
            .root()
            .ok_or(StoreError::corrupt("a range from 0 has no root"))
    }

    /// The RFC 6962 proof that leaf `index` is in the tree of `size` leaves.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] for an index or a size beyond what is stored.
    pub fn inclusion_proof(&self, no: FeedNo, index: u64, size: u64) -> Result<Vec<Digest>> {
        let stored = self.inner.stored(no)?;
        in_range(index, size, stored)?;
        proof::inclusion_proof(index, size, |node| self.inner.node(no, stored, node))?.ok_or(
            StoreError::OutOfRange {
                from: index,
                to: size,
                held: stored,
            },
        )
    }

    /// Cuts a chunk to serve: from `from` to at most `to_max`, proved against the
    /// head of `head_size` leaves. Whole pages go out as they are stored until
    /// they are `target_bytes` together; at least one page or ragged end is sent
    /// when there is anything to send.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] unless `from ≤ to_max ≤ head_size ≤ stored`.
    pub fn chunk(
        &self,
        no: FeedNo,
        from: u64,
        to_max: u64,
        head_size: u64,
        target_bytes: usize,
    ) -> Result<ChunkParts> {
        self.chunk_with(no, from, to_max, head_size, target_bytes, false)
    }

    /// As [`Store::chunk`], with dead leaves as their records where `elide` says
    /// so and nothing beyond the head makes them dead.
    ///
    /// # Errors
    /// As [`Store::chunk`].
    pub fn chunk_with(
        &self,
        no: FeedNo,
        from: u64,
        to_max: u64,
        head_size: u64,
        target_bytes: usize,
        elide: bool,
    ) -> Result<ChunkParts> {
        let elide = elide.then_some(head_size);
        let stored = self.inner.stored(no)?;
        in_range(from, to_max, head_size.min(stored))?;
        in_range(to_max, head_size, stored)?;
        let lead_end = if from.is_multiple_of(PAGE_LEAVES) {
            from
        } else {
            page_end(from).min(to_max)
        };
        let leading = self.plain(no, stored, from, lead_end, elide)?;
        let run = self.whole_pages(no, (lead_end, to_max), target_bytes, leading.len(), elide)?;
        let mut to = run.end;
        let mut trailing = Bytes::new();
        if run.room && to_max.saturating_sub(run.end) < PAGE_LEAVES {
            let rest = self.plain(no, stored, run.end, to_max, elide)?;
            if run.plain.saturating_add(rest.len()) <= CHUNK_PLAIN_MAX_BYTES {
                (to, trailing) = (to_max, rest);
            }
        }
        Ok(ChunkParts {
            from,
            to,
            leading,
            pages: run.pages,
            trailing,
            before: self.frontier(no, from)?.hashes().to_vec(),
            after: self.range(no, to, head_size)?.hashes().to_vec(),
        })
    }

    fn plain(
        &self,
        no: FeedNo,
        stored: u64,
        from: u64,
        to: u64,
        elide: Option<u64>,
    ) -> Result<Bytes> {
        if from == to {
            return Ok(Bytes::new());
        }
        let mut leaves = self.inner.leaves(no, stored, from, to)?;
        if let Some(head_size) = elide {
            let state = self.inner.feed(no)?;
            for index in state.elidable(from, to, head_size) {
                elide_at(&mut leaves, from, index);
            }
        }
        Ok(page::encode_plain(&leaves)?)
    }

    /// Whole pages from leaf `from` until `target_bytes`, beside `plain` bytes of
    /// leading leaves.
    fn whole_pages(
        &self,
        no: FeedNo,
        (from, to_max): (u64, u64),
        target_bytes: usize,
        plain: usize,
        elide: Option<u64>,
    ) -> Result<Run> {
        let mut run = Run {
            pages: Vec::new(),
            end: from,
            plain,
            room: from.is_multiple_of(PAGE_LEAVES),
        };
        let mut bytes = plain;
        while run.room && to_max.saturating_sub(run.end) >= PAGE_LEAVES {
            let wire = self.served_page(no, run.end, elide)?;
            let plain = run.plain.saturating_add(page::plain_len(&wire)?);
            let first = run.end == from;
            bytes = bytes.saturating_add(wire.len());
            run.room = plain <= CHUNK_PLAIN_MAX_BYTES
                && (first || bytes <= target_bytes)
                && run.end.saturating_sub(from) < CHUNK_MAX_LEAVES - 3 * PAGE_LEAVES;
            if !run.room {
                break;
            }
            run.plain = plain;
            run.pages.push(wire);
            run.end = page_end(run.end);
        }
        Ok(run)
    }
}

impl Store {
    /// The page that begins at `start`, without its dead leaves' payloads when they
    /// may be left out.
    fn served_page(&self, no: FeedNo, start: u64, elide: Option<u64>) -> Result<Bytes> {
        let wire = self.inner.page_wire(no, start / PAGE_LEAVES)?;
        let Some(head_size) = elide else {
            return Ok(wire);
        };
        let state = self.inner.feed(no)?;
        let dead = state.elidable(start, page_end(start), head_size);
        if dead.is_empty() {
            return Ok(wire);
        }
        let mut leaves = page::decode(&wire)?;
        for index in dead {
            elide_at(&mut leaves, start, index);
        }
        Ok(page::encode(&leaves)?)
    }
}

impl FeedState {
    /// Leaves of a range that may be sent as their records for a head.
    fn elidable(&self, from: u64, to: u64, head_size: u64) -> Vec<u64> {
        let live = read(&self.live);
        if live.liveness.is_all_alive() {
            return Vec::new();
        }
        // PROTOCOL 12.8: what only held retractions make dead keeps its payload.
        let may = |index: &u64| {
            live.liveness.may_elide(*index, head_size) && live.held.answers(*index).is_none()
        };
        (from..to).filter(may).collect()
    }
}

fn elide_at(leaves: &mut [RawLeaf], first: u64, index: u64) {
    let at = usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX);
    if let Some(leaf) = leaves.get_mut(at) {
        *leaf = leaf.elided();
    }
}

/// Whole pages for a chunk.
struct Run {
    pages: Vec<Bytes>,
    /// One past the last leaf.
    end: u64,
    /// Plain bytes, leading leaves included.
    plain: usize,
    /// Whether more may follow.
    room: bool,
}

impl Inner {
    /// A feed's stored size.
    pub(crate) fn stored(&self, no: FeedNo) -> Result<u64> {
        Ok(read(&self.feed(no)?.live).row.stored)
    }

    /// One whole page in wire form.
    pub(crate) fn page_wire(&self, no: FeedNo, page: u64) -> Result<Bytes> {
        self.get(Family::Pages, keys::numbered(no, page))?
            .map(Bytes::from)
            .ok_or(StoreError::corrupt("a page is missing"))
    }

    /// The leaves `[from, to)` of a feed with `stored` leaves.
    pub(crate) fn leaves(
        &self,
        no: FeedNo,
        stored: u64,
        from: u64,
        to: u64,
    ) -> Result<Vec<RawLeaf>> {
        in_range(from, to, stored)?;
        let tail_from = page_start(stored);
        let mut out = Vec::new();
        let mut at = from;
        while at < to {
            let end = page_end(at).min(to);
            let held = out.len();
            if at >= tail_from {
                self.tail_leaves(no, at, end, &mut out)?;
            }
            // ⚠ What the tail has no more is in a page: the batch that fills one takes
            // its leaves from the tail, maybe since `stored` was read.
            if out.len().saturating_sub(held) < span(at, end) {
                out.truncate(held);
                self.paged_leaves(no, at, end, &mut out)?;
            }
            at = end;
        }
        if out.len() == span(from, to) {
            Ok(out)
        } else {
            Err(StoreError::corrupt("leaves are missing"))
        }
    }

    /// Leaves within one page that is whole.
    fn paged_leaves(&self, no: FeedNo, from: u64, to: u64, out: &mut Vec<RawLeaf>) -> Result<()> {
        let page = self.get(Family::Pages, keys::numbered(no, from / PAGE_LEAVES))?;
        let page = page.ok_or(StoreError::corrupt("leaves are missing"))?;
        let leaves = page::decode(&Bytes::from(page))
            .map_err(|_| StoreError::corrupt("a page cannot be read"))?;
        out.extend(leaves.into_iter().skip(in_page(from)).take(span(from, to)));
        Ok(())
    }

    fn tail_leaves(&self, no: FeedNo, from: u64, to: u64, out: &mut Vec<RawLeaf>) -> Result<()> {
        let (from, to) = (keys::numbered(no, from), keys::numbered(no, to));
        self.scan(Family::Tail, &from, &to, |_, plain| {
            let leaf = page::decode_leaf(&Bytes::copy_from_slice(plain))
                .map_err(|_| StoreError::corrupt("a leaf cannot be read"))?;
            out.push(leaf);
            Ok(true)
        })
    }

    /// The hash of one perfect subtree: stored from page roots up, from the leaves
    /// of one page below.
    pub(crate) fn node(&self, no: FeedNo, stored: u64, node: NodeId) -> Result<Digest> {
        if node.level >= PAGE_LEVEL {
            let record = self
                .get(Family::Tree, keys::tree(no, node.level, node.index))?
                .ok_or(StoreError::corrupt("a tree node is missing"))?;
            return Digest::from_slice(&record)
                .map_err(|_| StoreError::corrupt("a tree node has another length"));
        }
        let (begin, end) = (node.begin(), node.end());
        let start = page_start(begin);
        let hashes = self.leaf_hashes(no, stored, start)?;
        let skip = in_page(begin);
        hashes
            .get(skip..skip.saturating_add(span(begin, end)))
            .map(subtree)
            .ok_or(StoreError::corrupt("a tree node is beyond the leaves"))
    }

    /// The leaf hashes of the page that begins at `start`, as far as it is stored.
    fn leaf_hashes(&self, no: FeedNo, stored: u64, start: u64) -> Result<Arc<[Digest]>> {
        let whole = page_end(start) <= stored;
        let key = (no, start);
        if whole && let Some(hashes) = hold(&self.page_hashes).by_page.get(&key) {
            return Ok(Arc::clone(hashes));
        }
        let leaves = self.leaves(no, stored, start, page_end(start).min(stored))?;
        let hashes: Arc<[Digest]> = leaves.iter().map(RawLeaf::hash).collect();
        if whole {
            hold(&self.page_hashes).keep(key, Arc::clone(&hashes));
        }
        Ok(hashes)
    }
}

impl PageHashes {
    fn keep(&mut self, key: (FeedNo, u64), hashes: Arc<[Digest]>) {
        if self.by_page.insert(key, hashes).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > PAGE_HASHES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_page.remove(&oldest);
        }
    }

    /// Forgets what was cached of a feed whose leaves were cut off.
    pub(crate) fn forget(&mut self, no: FeedNo) {
        self.by_page.retain(|key, _| key.0 != no);
        self.order.retain(|key| key.0 != no);
    }
}

/// RFC 6962's hash of a perfect subtree by its leaf hashes.
fn subtree(hashes: &[Digest]) -> Digest {
    match hashes {
        [] => hashpact_core::merkle::empty_root(),
        [one] => *one,
        many => {
            let (left, right) = many.split_at(many.len() / 2);
            node_hash(&subtree(left), &subtree(right))
        }
    }
}

/// The first index of the page that `index` is in.
pub(crate) const fn page_start(index: u64) -> u64 {
    index - index % PAGE_LEAVES
}

/// The first index of the page after the one that `index` is in.
pub(crate) const fn page_end(index: u64) -> u64 {
    page_start(index).saturating_add(PAGE_LEAVES)
}

/// How far into its page an index is.
pub(crate) fn in_page(index: u64) -> usize {
    usize::try_from(index % PAGE_LEAVES).unwrap_or(0)
}

fn span(from: u64, to: u64) -> usize {
    usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX)
}

const fn in_range(from: u64, to: u64, held: u64) -> Result<()> {
    if from <= to && to <= held {
        Ok(())
    } else {
        Err(StoreError::OutOfRange { from, to, held })
    }
}

#[cfg(test)]
mod tests {
    use hashpact_core::id::{FeedId, MemberNumber};
    use hashpact_core::leaf::PUBLISH;

    use super::*;
    use crate::{FeedKind, NewFeed, StoreOptions};

    fn leaf(number: u64) -> RawLeaf {
        RawLeaf::new(PUBLISH, Bytes::copy_from_slice(&number.to_be_bytes()))
    }

    #[test]
    fn leaves_are_read_by_who_saw_them_in_the_tail_before_their_page_was_full() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &StoreOptions::default()).unwrap();
        let new = NewFeed {
            id: FeedId(Digest::of(b"feed")),
            publisher: MemberNumber::new(1).unwrap(),
            own: true,
            kind: FeedKind::HashSet,
        };
        let no = store.create_feed(&new).unwrap();
        let mut writer = store.writer(no).unwrap();
        let leaves: Vec<RawLeaf> = (0..600).map(leaf).collect();
        writer.append(&leaves[..200]).unwrap();
        writer.sync().unwrap();
        let (seen, before) = (store.inner.stored(no).unwrap(), store.root_at(no, 200));
        assert_eq!(seen, 200);
        // Another thread goes on with what it knew.
        writer.append(&leaves[200..]).unwrap();
        writer.sync().unwrap();
        for (from, to) in [(0, 200), (7, 8), (199, 200)] {
            let read = store.inner.leaves(no, seen, from, to).unwrap();
            assert_eq!(read, leaves[at(from)..at(to)], "{from} to {to}");
        }
        let range = CompactRange::fetch(0, 200, |node| store.inner.node(no, seen, node));
        assert_eq!(range.unwrap().root(), before.ok());
    }

    fn at(index: u64) -> usize {
        usize::try_from(index).unwrap()
    }
}
