//! Chunks: consecutive leaves as they travel, with what proves them.
//!
//! Owns: the one check of a pulled chunk, [`verify`], and of a proof without
//! leaves, [`verify_extension`]. Does not own: page bytes ([`crate::page`]), what
//! leaves mean, or whether the head is the publisher's ([`crate::checkpoint`]).
//!
//! Trust: a chunk comes from any peer and nothing in it is believed. Sizes and
//! counts are checked before anything is decoded; every leaf is hashed from the
//! bytes that are kept; `cr[0,from) + cr[from,to) + cr[to,size)` must merge to the
//! root of the head that the pull is pinned to. Only then is there a
//! [`VerifiedChunk`].

use bytes::Bytes;

use crate::checkpoint::SignedCheckpoint;
use crate::id::Digest;
use crate::leaf::RawLeaf;
use crate::limits::{CHUNK_MAX_LEAVES, CHUNK_PLAIN_MAX_BYTES, PAGE_LEAVES};
use crate::merkle::CompactRange;
use crate::page;
use crate::reject::Rejection;

mod cut;

pub use cut::{cut, prove_at};

const WHAT: &str = "chunk";
/// A page is the subtree of this level: 2^8 leaves.
const PAGE_LEVEL: u8 = 8;
const _: () = assert!(1 << PAGE_LEVEL == PAGE_LEAVES);

/// The verified head that all chunks of one pull are proved against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinnedHead {
    /// The feed's size there.
    pub size: u64,
    /// The root of those leaves.
    pub root: Digest,
}

impl From<&SignedCheckpoint> for PinnedHead {
    fn from(head: &SignedCheckpoint) -> Self {
        Self {
            size: head.size(),
            root: head.root(),
        }
    }
}

/// A chunk as it came, nothing checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChunkParts {
    /// The first index.
    pub from: u64,
    /// One past the last index.
    pub to: u64,
    /// Leaves in plain form up to the first page boundary, or to `to` before it.
    pub leading: Bytes,
    /// Whole pages in wire form.
    pub pages: Vec<Bytes>,
    /// Leaves in plain form after the last whole page.
    pub trailing: Bytes,
    /// The compact range `[0, from)`.
    pub before: Vec<Digest>,
    /// The compact range `[to, head size)`.
    pub after: Vec<Digest>,
}

/// How the leaves `[from, to)` are split: only this split is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Leaves before the first page boundary: none when `from` is on one.
    pub leading: usize,
    /// Whole pages.
    pub pages: usize,
    /// The number of the first whole page, if there is one.
    pub first_page: u64,
    /// Leaves after the last whole page.
    pub trailing: usize,
}

impl Layout {
    /// Splits `[from, to)`; empty when `to <= from`.
    #[must_use]
    pub fn of(from: u64, to: u64) -> Self {
        let to = to.max(from);
        let boundary = from.div_ceil(PAGE_LEAVES).saturating_mul(PAGE_LEAVES);
        let middle = boundary.min(to);
        let rest = to.saturating_sub(middle);
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Self {
            leading: count(middle.saturating_sub(from)),
            pages: count(rest.checked_div(PAGE_LEAVES).unwrap_or(0)),
            first_page: boundary.checked_div(PAGE_LEAVES).unwrap_or(0),
            trailing: count(rest.checked_rem(PAGE_LEAVES).unwrap_or(0)),
        }
    }
}

/// A whole page of a verified chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPage {
    /// The page's number: it begins at leaf 256 × number.
    pub number: u64,
    /// The page as it came; decodes to exactly `leaves`.
    pub wire: Bytes,
    /// The root of its 256 leaves.
    pub root: Digest,
    /// Its leaves.
    pub leaves: Vec<RawLeaf>,
}

/// Leaves that lead to the pinned head's root. Only [`verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedChunk {
    /// The first index.
    pub from: u64,
    /// One past the last index.
    pub to: u64,
    /// The compact range `[0, from)` at the pinned head.
    pub before: CompactRange,
    /// The compact range `[from, to)`.
    pub range: CompactRange,
    /// The leaves before the first whole page.
    pub lead: Vec<RawLeaf>,
    /// The whole pages, in order.
    pub pages: Vec<VerifiedPage>,
    /// The leaves after the last whole page.
    pub trail: Vec<RawLeaf>,
}

impl VerifiedChunk {
    /// Checks that the pinned head extends what is held: the chunk begins where
    /// `held`, the stored compact range from 0, ends, over the same leaves.
    ///
    /// # Errors
    /// [`Rejection::WrongRange`] when it begins elsewhere,
    /// [`Rejection::NotAnExtension`] when the leaves before it are others.
    pub fn check_extends(&self, held: &CompactRange) -> Result<(), Rejection> {
        check_extends(&self.before, held)
    }

    /// All leaves with their indexes, in order.
    pub fn leaves(&self) -> impl Iterator<Item = (u64, &RawLeaf)> {
        let pages = self.pages.iter().flat_map(|page| &page.leaves);
        (self.from..).zip(self.lead.iter().chain(pages).chain(&self.trail))
    }
}

/// Checks a chunk against the head that the pull is pinned to.
///
/// Whether the chunk is what was asked for, and for the first one whether its
/// `before` equals what is held ([`VerifiedChunk::check_extends`]), is for the
/// caller.
///
/// # Errors
/// [`Rejection::Invalid`] for bounds that are no range within the head, or another
/// number of pages or leaves than they dictate; [`Rejection::TooLarge`] and
/// [`Rejection::ProofLength`], before anything is decoded;
/// [`Rejection::Malformed`] for pages or leaves that cannot be read;
/// [`Rejection::WrongRoot`] when all together do not lead to the head's root.
pub fn verify(parts: &ChunkParts, head: &PinnedHead) -> Result<VerifiedChunk, Rejection> {
    verify_by_pages(parts, head, || ())
}

/// As [`verify`]; `between` is called before each page, some 100 µs of work, for who lets
/// others have the core then.
///
/// # Errors
/// As [`verify`].
pub fn verify_by_pages(
    parts: &ChunkParts,
    head: &PinnedHead,
    mut between: impl FnMut(),
) -> Result<VerifiedChunk, Rejection> {
    let layout = check_bounds(parts, head)?;
    let before = CompactRange::from_hashes(0, parts.from, parts.before.clone())?;
    let after = CompactRange::from_hashes(parts.to, head.size, parts.after.clone())?;
    check_plain_size(parts)?;

    let mut range = CompactRange::empty(parts.from);
    let lead = ragged_end(&parts.leading, layout.leading, &mut range)?;
    let numbers = layout.first_page..;
    let pages = numbers
        .zip(&parts.pages)
        .map(|(number, wire)| {
            between();
            whole_page(number, wire, &mut range)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let trail = ragged_end(&parts.trailing, layout.trailing, &mut range)?;

    check_root(&before, &range, &after, head)?;
    Ok(VerifiedChunk {
        from: parts.from,
        to: parts.to,
        before,
        range,
        lead,
        pages,
        trail,
    })
}

/// A proof without leaves, as it came: what a witness pulls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProofParts {
    /// The first index: how much is held.
    pub from: u64,
    /// One past the last index.
    pub to: u64,
    /// The compact range `[0, from)`.
    pub before: Vec<Digest>,
    /// The compact range `[from, to)`.
    pub range: Vec<Digest>,
    /// The compact range `[to, head size)`.
    pub after: Vec<Digest>,
}

/// Checks that the head extends `stored`, the compact range held from 0; returns
/// the compact range `[0, to)`, to be held next.
///
/// # Errors
/// [`Rejection::Invalid`], [`Rejection::ProofLength`], [`Rejection::WrongRoot`] as
/// [`verify`]; [`Rejection::WrongRange`] and [`Rejection::NotAnExtension`] as
/// [`VerifiedChunk::check_extends`].
pub fn verify_extension(
    parts: &ProofParts,
    stored: &CompactRange,
    head: &PinnedHead,
) -> Result<CompactRange, Rejection> {
    check_within(parts.from, parts.to, head)?;
    let mut before = CompactRange::from_hashes(0, parts.from, parts.before.clone())?;
    let range = CompactRange::from_hashes(parts.from, parts.to, parts.range.clone())?;
    let after = CompactRange::from_hashes(parts.to, head.size, parts.after.clone())?;
    check_root(&before, &range, &after, head)?;
    check_extends(&before, stored)?;
    before.merge(&range)?;
    Ok(before)
}

/// All that the numbers alone can show, and how the leaves are split.
fn check_bounds(parts: &ChunkParts, head: &PinnedHead) -> Result<Layout, Rejection> {
    let (from, to) = (parts.from, parts.to);
    check_within(from, to, head)?;
    if from == to {
        return Err(Rejection::invalid(WHAT, "no leaves"));
    }
    let count = to.saturating_sub(from);
    if count > CHUNK_MAX_LEAVES {
        return Err(Rejection::TooLarge {
            what: "leaves of a chunk",
            size: usize::try_from(count).unwrap_or(usize::MAX),
            limit: usize::try_from(CHUNK_MAX_LEAVES).unwrap_or(usize::MAX),
        });
    }
    let layout = Layout::of(from, to);
    if parts.pages.len() != layout.pages {
        let (have, need) = (parts.pages.len(), layout.pages);
        let why = format!("[{from}, {to}) has {need} whole pages, not {have}");
        return Err(Rejection::invalid(WHAT, why));
    }
    Ok(layout)
}

fn check_within(from: u64, to: u64, head: &PinnedHead) -> Result<(), Rejection> {
    if from <= to && to <= head.size {
        Ok(())
    } else {
        let why = format!("[{from}, {to}) is no range of {} leaves", head.size);
        Err(Rejection::invalid(WHAT, why))
    }
}

/// Adds up what decoding would make, by what the frames declare; decoding holds
/// them to it.
fn check_plain_size(parts: &ChunkParts) -> Result<(), Rejection> {
    let ends = parts.leading.len().saturating_add(parts.trailing.len());
    Rejection::cap(WHAT, ends, CHUNK_PLAIN_MAX_BYTES)?;
    let mut plain = ends;
    for wire in &parts.pages {
        plain = plain.saturating_add(page::plain_len(wire)?);
        Rejection::cap(WHAT, plain, CHUNK_PLAIN_MAX_BYTES)?;
    }
    Ok(())
}

/// Decodes the leaves of a ragged end and appends them to the range.
fn ragged_end(
    plain: &Bytes,
    count: usize,
    range: &mut CompactRange,
) -> Result<Vec<RawLeaf>, Rejection> {
    let leaves = page::decode_plain(plain, count)?;
    if leaves.len() != count {
        let why = format!("a ragged end of {} leaves, not {count}", leaves.len());
        return Err(Rejection::invalid(WHAT, why));
    }
    range.extend(leaves.iter().map(RawLeaf::hash));
    Ok(leaves)
}

/// Decodes a page and appends its root to the range.
fn whole_page(
    number: u64,
    wire: &Bytes,
    range: &mut CompactRange,
) -> Result<VerifiedPage, Rejection> {
    let leaves = page::decode(wire)?;
    let mut tree = CompactRange::empty(0);
    tree.extend(leaves.iter().map(RawLeaf::hash));
    let &[root] = tree.hashes() else {
        return Err(Rejection::invalid(WHAT, "a page that is not 256 leaves"));
    };
    range.append_subtree_with(PAGE_LEVEL, root, &mut |_, _| ())?;
    Ok(VerifiedPage {
        number,
        wire: wire.clone(),
        root,
        leaves,
    })
}

fn check_root(
    before: &CompactRange,
    range: &CompactRange,
    after: &CompactRange,
    head: &PinnedHead,
) -> Result<(), Rejection> {
    let mut whole = before.clone();
    whole.merge(range)?;
    whole.merge(after)?;
    if whole.root() == Some(head.root) {
        Ok(())
    } else {
        let (from, to) = (range.begin(), range.end());
        Err(Rejection::WrongRoot { from, to })
    }
}

fn check_extends(before: &CompactRange, held: &CompactRange) -> Result<(), Rejection> {
    if before.end() != held.end() {
        return Err(Rejection::WrongRange {
            expected: held.end(),
            got: before.end(),
        });
    }
    if before == held {
        Ok(())
    } else {
        let held = held.end();
        Err(Rejection::NotAnExtension { held })
    }
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;
