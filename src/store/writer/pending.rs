//! Leaves that were appended and are not durable yet.

use bytes::Bytes;
use hashpact_core::id::Digest;
use hashpact_core::leaf::RawLeaf;
use hashpact_core::limits::PAGE_LEAVES;
use hashpact_core::merkle::{CompactRange, NodeId};
use hashpact_core::page;
use rocksdb::WriteBatch;

use crate::bulk::SortedFile;
use crate::error::Result;
use crate::families::Family;
use crate::keys::{self, FeedNo};
use crate::leaves::{PAGE_LEVEL, in_page, page_start};
use crate::record::FeedRow;
use crate::space;
use crate::store::Inner;

/// Page bytes from which on pages go in as a file, past log and memory.
const FILE_FROM_BYTES: usize = 4 << 20;

/// What waits: whole pages, the leaves after the last whole page, tree nodes.
pub(super) struct Pending {
    no: FeedNo,
    frontier: CompactRange,
    /// Where the durable leaves end.
    durable: u64,
    pages: Vec<(u64, Bytes)>,
    page_bytes: usize,
    /// All leaves after the last whole page, durable ones included.
    tail: Vec<RawLeaf>,
    nodes: Vec<(NodeId, Digest)>,
    /// Those of the new leaves that are their record alone.
    elided: Vec<u64>,
    /// What the new leaves take.
    leaf_bytes: u64,
}

impl Pending {
    /// Begins after the durable leaves of a feed.
    pub(super) fn new(inner: &Inner, no: FeedNo, frontier: CompactRange) -> Result<Self> {
        let durable = frontier.end();
        Ok(Self {
            no,
            durable,
            pages: Vec::new(),
            page_bytes: 0,
            tail: inner.leaves(no, durable, page_start(durable), durable)?,
            nodes: Vec::new(),
            elided: Vec::new(),
            leaf_bytes: 0,
            frontier,
        })
    }

    pub(super) const fn frontier(&self) -> &CompactRange {
        &self.frontier
    }

    pub(super) const fn bytes(&self) -> usize {
        self.page_bytes
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.durable == self.frontier.end()
    }

    /// Appends one leaf.
    pub(super) fn push(&mut self, leaf: &RawLeaf, hash: Digest) -> Result<()> {
        let nodes = &mut self.nodes;
        self.frontier
            .append_subtree_with(0, hash, &mut |node, hash| {
                if node.level >= PAGE_LEVEL {
                    nodes.push((node, hash));
                }
            })?;
        self.tail.push(leaf.clone());
        if self.frontier.end().is_multiple_of(PAGE_LEAVES) {
            let wire = page::encode(&self.tail)?;
            self.tail.clear();
            self.keep_page(wire);
        }
        Ok(())
    }

    /// Appends a whole page where one may begin.
    pub(super) fn push_page(&mut self, wire: &Bytes, root: Digest) -> Result<()> {
        let nodes = &mut self.nodes;
        self.frontier
            .append_subtree_with(PAGE_LEVEL, root, &mut |node, hash| nodes.push((node, hash)))?;
        self.keep_page(wire.clone());
        Ok(())
    }

    /// Counts what the leaves from `first` on take, and remembers which of them are
    /// records alone.
    pub(super) fn note_leaves(&mut self, first: u64, leaves: &[RawLeaf]) {
        let bytes = leaves.iter().map(space::leaf_bytes).sum();
        self.leaf_bytes = self.leaf_bytes.saturating_add(bytes);
        let elided = (first..).zip(leaves).filter(|(_, leaf)| leaf.is_elided());
        self.elided.extend(elided.map(|(index, _)| index));
    }

    /// Brings a row up to what is appended.
    pub(super) fn bring(&self, row: &mut FeedRow) {
        row.set_frontier(&self.frontier);
        row.bytes = row.bytes.saturating_add(self.leaf_bytes);
    }

    /// The new leaves that are records alone.
    pub(super) fn elided(&self) -> &[u64] {
        &self.elided
    }

    fn keep_page(&mut self, wire: Bytes) {
        let page = (self.frontier.end() / PAGE_LEAVES).saturating_sub(1);
        self.page_bytes = self.page_bytes.saturating_add(wire.len());
        self.pages.push((page, wire));
    }

    /// Adds all of it to a batch; many pages are ingested as a file right away,
    /// where they count for nothing until the batch is written.
    pub(super) fn write(&self, inner: &Inner, batch: &mut WriteBatch) -> Result<()> {
        if self.page_bytes >= FILE_FROM_BYTES {
            let mut file = SortedFile::create(inner, Family::Pages);
            for (page, wire) in &self.pages {
                file.put(&keys::numbered(self.no, *page), wire);
            }
            file.ingest(inner)?;
        } else {
            for (page, wire) in &self.pages {
                batch.put_cf(
                    inner.cf(Family::Pages)?,
                    keys::numbered(self.no, *page),
                    wire,
                );
            }
        }
        for (node, hash) in &self.nodes {
            let key = keys::tree(self.no, node.level, node.index);
            batch.put_cf(inner.cf(Family::Tree)?, key, hash.as_bytes());
        }
        self.write_tail(inner, batch)
    }

    /// Removes the rows of leaves that a page holds now, adds those of new ones.
    fn write_tail(&self, inner: &Inner, batch: &mut WriteBatch) -> Result<()> {
        let family = inner.cf(Family::Tail)?;
        let start = page_start(self.frontier.end());
        if start > self.durable {
            for index in page_start(self.durable)..self.durable {
                batch.delete_cf(family, keys::numbered(self.no, index));
            }
        }
        let first_new = self.durable.max(start);
        for (index, leaf) in (first_new..).zip(self.tail.iter().skip(in_page(first_new))) {
            let mut plain = Vec::new();
            page::put_plain(leaf, &mut plain)?;
            batch.put_cf(family, keys::numbered(self.no, index), plain);
        }
        Ok(())
    }

    /// Reads the durable leaves after the last whole page again.
    pub(super) fn reload(&mut self, inner: &Inner) -> Result<()> {
        let start = page_start(self.frontier.end());
        let held = in_page(self.durable.max(start));
        let durable = inner.leaves(self.no, self.durable, start.min(self.durable), self.durable)?;
        if start <= self.durable {
            for (place, leaf) in self.tail.iter_mut().take(held).zip(durable) {
                *place = leaf;
            }
        }
        Ok(())
    }

    /// Forgets what is durable now.
    pub(super) fn written(&mut self) {
        self.durable = self.frontier.end();
        self.pages.clear();
        self.page_bytes = 0;
        self.nodes.clear();
        self.elided.clear();
        self.leaf_bytes = 0;
    }
}
