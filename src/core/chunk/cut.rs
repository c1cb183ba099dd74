//! A part of a chunk, proved against the same head.
//!
//! A chunk that lies in a file begins and ends where it was cut once; whoever holds some
//! of its leaves, or asks for some, needs a part of it. A part is as good as the whole:
//! it is verified again by whoever takes it.

use super::{ChunkParts, Layout, PinnedHead, ProofParts, VerifiedChunk, verify};
use crate::leaf::RawLeaf;
use crate::merkle::CompactRange;
use crate::page;
use crate::reject::Rejection;

/// Cuts the leaves `[from, to)` out of a chunk. Pages that stay whole stay as they are.
///
/// # Errors
/// As [`verify`]; [`Rejection::WrongRange`] for leaves that the chunk has not.
pub fn cut(
    parts: &ChunkParts,
    head: &PinnedHead,
    from: u64,
    to: u64,
) -> Result<ChunkParts, Rejection> {
    let whole = verify(parts, head)?;
    check_within(&whole, from, to)?;
    let layout = Layout::of(from, to);
    let lead_end = from.saturating_add(count(layout.leading));
    let trail_begin = to.saturating_sub(count(layout.trailing));
    let last_page = layout.first_page.saturating_add(count(layout.pages));
    let within = |number: &u64| (layout.first_page..last_page).contains(number);
    let pages = whole.pages.iter().filter(|page| within(&page.number));
    let mut before = whole.before.clone();
    before.merge(&range(&whole, whole.from, from))?;
    let mut after = range(&whole, to, whole.to);
    after.merge(&CompactRange::from_hashes(
        whole.to,
        head.size,
        parts.after.clone(),
    )?)?;
    Ok(ChunkParts {
        from,
        to,
        leading: plain(&whole, from, lead_end)?,
        pages: pages.map(|page| page.wire.clone()).collect(),
        trailing: plain(&whole, trail_begin, to)?,
        before: before.hashes().to_vec(),
        after: after.hashes().to_vec(),
    })
}

/// Proves from a chunk alone what is below and above one of its leaves, or its end:
/// the compact ranges `[0, at)` and `[at, head size)`.
///
/// # Errors
/// As [`cut`].
pub fn prove_at(parts: &ChunkParts, head: &PinnedHead, at: u64) -> Result<ProofParts, Rejection> {
    let whole = verify(parts, head)?;
    check_within(&whole, at, at)?;
    let mut before = whole.before.clone();
    before.merge(&range(&whole, whole.from, at))?;
    let mut rest = range(&whole, at, whole.to);
    rest.merge(&CompactRange::from_hashes(
        whole.to,
        head.size,
        parts.after.clone(),
    )?)?;
    Ok(ProofParts {
        from: at,
        to: head.size,
        before: before.hashes().to_vec(),
        range: rest.hashes().to_vec(),
        after: Vec::new(),
    })
}

fn check_within(whole: &VerifiedChunk, from: u64, to: u64) -> Result<(), Rejection> {
    if whole.from <= from && from <= to && to <= whole.to {
        return Ok(());
    }
    Err(Rejection::WrongRange {
        expected: from,
        got: whole.from,
    })
}

/// The leaves `[from, to)` of a chunk.
fn leaves(whole: &VerifiedChunk, from: u64, to: u64) -> impl Iterator<Item = &RawLeaf> {
    let within = move |(index, _): &(u64, &RawLeaf)| (from..to).contains(index);
    whole.leaves().filter(within).map(|(_, leaf)| leaf)
}

fn range(whole: &VerifiedChunk, from: u64, to: u64) -> CompactRange {
    // Made anew from the leaves: a chunk is small, and its range has no parts to give.
    let mut range = CompactRange::empty(from);
    range.extend(leaves(whole, from, to).map(RawLeaf::hash));
    range
}

fn plain(whole: &VerifiedChunk, from: u64, to: u64) -> Result<bytes::Bytes, Rejection> {
    let leaves: Vec<RawLeaf> = leaves(whole, from, to).cloned().collect();
    page::encode_plain(&leaves)
}

fn count(leaves: usize) -> u64 {
    u64::try_from(leaves).unwrap_or(u64::MAX)
}
