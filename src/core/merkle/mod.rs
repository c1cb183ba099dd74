//! The Merkle tree of RFC 6962 over a feed's leaves.
//!
//! Owns: the hashes, which subtrees cover a range of leaves ([`cover`]), compact
//! ranges ([`CompactRange`]) and, written out for other tools, RFC 6962's
//! inclusion and consistency proofs ([`proof`]). Does not own: where hashes are
//! stored, or what a leaf means.
//!
//! Trust: a proof is bytes of a stranger. Each check first counts the hashes: the
//! bounds dictate how many there are, and one too many or too few is refused. A
//! verifier that does not count would blame publishers for what they never signed.
//!
//! Sources: RFC 6962 section 2.1; transparency-dev/merkle `docs/compact_ranges.md`.

pub mod proof;
mod range;
#[cfg(test)]
mod vectors;

use sha2::{Digest as _, Sha256};

pub use self::proof::{consistency_proof, inclusion_proof, verify_consistency, verify_inclusion};
pub use self::range::CompactRange;
use crate::id::Digest;

/// A leaf as the tree sees it: its kind and the SHA-256 of its payload.
pub type Record = [u8; 33];

/// Hashes a leaf's record: SHA-256(0x00 ‖ record).
#[must_use]
pub fn leaf_hash(record: &Record) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update([0x00]);
    hasher.update(record);
    Digest(hasher.finalize().into())
}

/// Hashes two neighbouring subtrees: SHA-256(0x01 ‖ left ‖ right).
#[must_use]
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update([0x01]);
    hasher.update(left.0);
    hasher.update(right.0);
    Digest(hasher.finalize().into())
}

/// The root of the tree without leaves: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Digest {
    Digest::of(b"")
}

/// Names a perfect subtree: the leaves `[index << level, (index + 1) << level)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// 0 for a leaf; the subtree has 2^level leaves. At most 63.
    pub level: u8,
    /// Which subtree of that level, from 0.
    pub index: u64,
}

impl NodeId {
    /// The first leaf of the subtree.
    #[must_use]
    pub fn begin(&self) -> u64 {
        self.index.checked_shl(u32::from(self.level)).unwrap_or(0)
    }

    /// One past the last leaf of the subtree.
    #[must_use]
    pub fn end(&self) -> u64 {
        let next = self.index.saturating_add(1);
        next.checked_shl(u32::from(self.level)).unwrap_or(0)
    }
}

/// Lists the fewest perfect subtrees that cover the leaves `[begin, end)`, left to
/// right: the nodes of that compact range. Empty when `end <= begin`.
#[must_use]
pub fn cover(begin: u64, end: u64) -> Vec<NodeId> {
    let mut nodes = Vec::with_capacity(expected_len(begin, end));
    let mut at = begin;
    while let Some(level) = level_at(at, end) {
        nodes.push(NodeId {
            level,
            index: at.checked_shr(u32::from(level)).unwrap_or(0),
        });
        at = at.saturating_add(width(level));
    }
    nodes
}

/// Counts the perfect subtrees that cover `[begin, end)`: how many hashes a compact
/// range has.
#[must_use]
pub fn expected_len(begin: u64, end: u64) -> usize {
    let mut count = 0_usize;
    let mut at = begin;
    while let Some(level) = level_at(at, end) {
        at = at.saturating_add(width(level));
        count = count.saturating_add(1);
    }
    count
}

/// The level of the largest perfect subtree that begins at leaf `at` and does not
/// pass `end`; none when no leaf is left.
fn level_at(at: u64, end: u64) -> Option<u8> {
    let largest = end.checked_sub(at)?.checked_ilog2()?;
    u8::try_from(at.trailing_zeros().min(largest)).ok()
}

/// The number of leaves in a subtree of `level`.
fn width(level: u8) -> u64 {
    1_u64.checked_shl(u32::from(level)).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// The record of test leaf `i`.
    pub(crate) fn record(i: u64) -> Record {
        let mut record = [0; 33];
        record[0] = 2;
        record[1..].copy_from_slice(&Digest::of(&i.to_be_bytes()).0);
        record
    }

    /// Every perfect subtree of the first `size` test leaves.
    pub(crate) fn nodes(size: u64) -> HashMap<NodeId, Digest> {
        let mut nodes = HashMap::new();
        let mut range = CompactRange::empty(0);
        for i in 0..size {
            range.push_with(leaf_hash(&record(i)), &mut |id, hash| {
                assert_eq!(nodes.insert(id, hash), None, "each subtree completes once");
            });
        }
        nodes
    }

    /// The compact range of test leaves `[begin, end)`.
    pub(crate) fn range(begin: u64, end: u64) -> CompactRange {
        let mut range = CompactRange::empty(begin);
        for i in begin..end {
            range.push(leaf_hash(&record(i)));
        }
        range
    }

    /// RFC 6962's MTH, written as the RFC defines it.
    pub(crate) fn mth(begin: u64, end: u64) -> Digest {
        match end - begin {
            0 => empty_root(),
            1 => leaf_hash(&record(begin)),
            n => {
                let split = begin + (1 << (n - 1).ilog2());
                node_hash(&mth(begin, split), &mth(split, end))
            }
        }
    }

    pub(crate) fn fetch(
        nodes: &HashMap<NodeId, Digest>,
    ) -> impl FnMut(NodeId) -> Result<Digest, Infallible> {
        |id| Ok(*nodes.get(&id).expect("a node of the tree"))
    }

    #[test]
    fn hashes_are_those_of_rfc_6962() {
        assert_eq!(
            empty_root().to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let mut bytes = vec![0x00];
        bytes.extend(record(0));
        assert_eq!(leaf_hash(&record(0)), Digest::of(&bytes));
        let (a, b) = (Digest([1; 32]), Digest([2; 32]));
        let mut bytes = vec![0x01];
        bytes.extend(a.0);
        bytes.extend(b.0);
        assert_eq!(node_hash(&a, &b), Digest::of(&bytes));
    }

    #[test]
    fn every_subtree_is_reported_once_with_its_hash() {
        let size = 77;
        let nodes = nodes(size);
        for (id, hash) in &nodes {
            assert_eq!(*hash, mth(id.begin(), id.end()));
        }
        let expected: u64 = (0..7).map(|level| size >> level).sum();
        assert_eq!(nodes.len() as u64, expected);
    }

    #[test]
    fn a_cover_of_nothing_is_empty() {
        assert_eq!(cover(5, 5), []);
        assert_eq!(cover(6, 5), []);
        assert_eq!(expected_len(6, 5), 0);
    }

    #[test]
    fn covers_of_the_largest_numbers_end() {
        assert_eq!(cover(0, u64::MAX).len(), 64);
        assert_eq!(cover(1, u64::MAX).len(), 126);
        assert_eq!(cover(u64::MAX - 1, u64::MAX).len(), 1);
    }

    proptest! {
        #[test]
        fn a_cover_is_gapless_minimal_and_counted(begin in 0_u64..5_000, len in 0_u64..5_000) {
            let end = begin + len;
            let nodes = cover(begin, end);
            prop_assert_eq!(nodes.len(), expected_len(begin, end));
            let mut at = begin;
            for node in &nodes {
                prop_assert_eq!(node.begin(), at);
                at = node.end();
            }
            prop_assert_eq!(at, end);
            // Minimal: no node's parent lies within the range.
            for node in &nodes {
                let parent = NodeId { level: node.level + 1, index: node.index / 2 };
                prop_assert!(parent.begin() < begin || parent.end() > end);
            }
        }
    }
}
