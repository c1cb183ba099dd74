//! Compact ranges: the perfect subtree hashes that cover leaves `[begin, end)`.
//!
//! The one primitive that proves everything: two neighbours merge into the range
//! of both, and a range from 0 gives the root.

use super::{NodeId, cover, empty_root, expected_len, node_hash};
use crate::id::Digest;
use crate::limits::FEED_MAX_LEAVES;
use crate::reject::Rejection;

/// The hashes of the perfect subtrees that cover `[begin, end)`, left to right,
/// always exactly as many as the bounds dictate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactRange {
    begin: u64,
    end: u64,
    hashes: Vec<Digest>,
}

impl Default for CompactRange {
    /// The range of no leaves at 0, that of an empty feed.
    fn default() -> Self {
        Self::empty(0)
    }
}

impl CompactRange {
    /// The range `[at, at)` of no leaves.
    #[must_use]
    pub const fn empty(at: u64) -> Self {
        Self {
            begin: at,
            end: at,
            hashes: Vec::new(),
        }
    }

    /// Takes hashes that came with their bounds.
    ///
    /// # Errors
    /// [`Rejection::Invalid`] for bounds that are none or beyond the largest feed,
    /// [`Rejection::ProofLength`] for another number of hashes than the bounds
    /// dictate.
    pub fn from_hashes(begin: u64, end: u64, hashes: Vec<Digest>) -> Result<Self, Rejection> {
        if begin > end || end > FEED_MAX_LEAVES {
            let why = format!("[{begin}, {end}) is no range of leaves");
            return Err(Rejection::invalid("compact range", why));
        }
        count("compact range", hashes.len(), expected_len(begin, end))?;
        Ok(Self { begin, end, hashes })
    }

    /// Reads the hashes of `[begin, end)` from where subtrees are stored.
    ///
    /// # Errors
    /// Whatever `fetch` fails with.
    pub fn fetch<E>(
        begin: u64,
        end: u64,
        fetch: impl FnMut(NodeId) -> Result<Digest, E>,
    ) -> Result<Self, E> {
        let hashes = cover(begin, end).into_iter().map(fetch);
        Ok(Self {
            begin,
            end: end.max(begin),
            hashes: hashes.collect::<Result<_, E>>()?,
        })
    }

    /// The first leaf.
    #[must_use]
    pub const fn begin(&self) -> u64 {
        self.begin
    }

    /// One past the last leaf.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// The subtree hashes, in the order of [`cover`].
    #[must_use]
    pub fn hashes(&self) -> &[Digest] {
        &self.hashes
    }

    /// How many hashes the range `[begin, end)` has.
    #[must_use]
    pub fn expected_len(begin: u64, end: u64) -> usize {
        expected_len(begin, end)
    }

    /// Appends one leaf by its leaf hash.
    pub fn push(&mut self, leaf: Digest) {
        self.append(0, leaf, &mut |_, _| ());
    }

    /// Appends leaves by their leaf hashes.
    pub fn extend(&mut self, leaves: impl IntoIterator<Item = Digest>) {
        for leaf in leaves {
            self.push(leaf);
        }
    }

    /// Appends one leaf, and tells `completed` every perfect subtree that it
    /// completes within this range, the leaf itself included, lowest first.
    pub fn push_with(&mut self, leaf: Digest, completed: &mut impl FnMut(NodeId, Digest)) {
        self.append(0, leaf, completed);
    }

    /// Appends a perfect subtree of 2^level leaves by its hash, and tells
    /// `completed` that subtree and every larger one that it completes.
    ///
    /// # Errors
    /// [`Rejection::Invalid`] when the range does not end where such a subtree may
    /// begin, or would grow beyond the largest feed.
    pub fn append_subtree_with(
        &mut self,
        level: u8,
        hash: Digest,
        completed: &mut impl FnMut(NodeId, Digest),
    ) -> Result<(), Rejection> {
        let width = 1_u64.checked_shl(u32::from(level));
        let end = width.and_then(|width| self.end.checked_add(width));
        let aligned = self.end.trailing_zeros() >= u32::from(level);
        if aligned && end.is_some_and(|end| end <= FEED_MAX_LEAVES) {
            self.append(level, hash, completed);
            Ok(())
        } else {
            let why = format!("no subtree of level {level} begins at {}", self.end);
            Err(Rejection::invalid("compact range", why))
        }
    }

    /// Appends the range that begins where this one ends.
    ///
    /// # Errors
    /// [`Rejection::WrongRange`] when it begins elsewhere.
    pub fn merge(&mut self, right: &Self) -> Result<(), Rejection> {
        self.merge_with(right, &mut |_, _| ())
    }

    /// Appends the range that begins where this one ends, and tells `completed`
    /// each subtree of `right` and every larger one that it completes.
    ///
    /// # Errors
    /// [`Rejection::WrongRange`] when it begins elsewhere.
    pub fn merge_with(
        &mut self,
        right: &Self,
        completed: &mut impl FnMut(NodeId, Digest),
    ) -> Result<(), Rejection> {
        if right.begin != self.end {
            return Err(Rejection::WrongRange {
                expected: self.end,
                got: right.begin,
            });
        }
        for (node, hash) in cover(right.begin, right.end).iter().zip(&right.hashes) {
            self.append(node.level, *hash, completed);
        }
        Ok(())
    }

    /// The root of the tree of the leaves `[0, end)`; none when the range does not
    /// begin at 0.
    #[must_use]
    pub fn root(&self) -> Option<Digest> {
        (self.begin == 0).then(|| self.folded().unwrap_or_else(empty_root))
    }

    /// Hashes the subtrees together from the right. For a range within one subtree
    /// that begins where the subtree begins, that is RFC 6962's hash of its leaves.
    pub(super) fn folded(&self) -> Option<Digest> {
        let mut hashes = self.hashes.iter().rev();
        let last = *hashes.next()?;
        Some(hashes.fold(last, |right, left| node_hash(left, &right)))
    }

    /// Appends a subtree where one may begin: `end` is a multiple of 2^level.
    fn append(&mut self, level: u8, hash: Digest, completed: &mut impl FnMut(NodeId, Digest)) {
        let mut node = NodeId {
            level,
            index: self.end.checked_shr(u32::from(level)).unwrap_or(0),
        };
        let mut hash = hash;
        self.end = node.end();
        completed(node, hash);
        // A left sibling within the range is always the last hash: its own sibling
        // was not there before.
        while let Some(parent) = self.completed_parent(node)
            && let Some(left) = self.hashes.pop()
        {
            hash = node_hash(&left, &hash);
            node = parent;
            completed(node, hash);
        }
        self.hashes.push(hash);
    }

    /// The parent of `node`, a right child whose sibling is within the range.
    fn completed_parent(&self, node: NodeId) -> Option<NodeId> {
        let parent = NodeId {
            level: node.level.checked_add(1)?,
            index: node.index.checked_shr(1)?,
        };
        (node.index & 1 == 1 && parent.begin() >= self.begin).then_some(parent)
    }
}

/// Refuses another number of hashes than the bounds dictate.
pub(super) const fn count(what: &'static str, have: usize, need: usize) -> Result<(), Rejection> {
    if have == need {
        Ok(())
    } else {
        Err(Rejection::ProofLength { what, have, need })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{fetch, mth, nodes, range};
    use super::*;

    #[test]
    fn roots_of_all_small_trees_are_those_of_rfc_6962() {
        for size in 0..70 {
            assert_eq!(range(0, size).root(), Some(mth(0, size)), "size {size}");
        }
    }

    #[test]
    fn a_range_that_does_not_begin_at_0_has_no_root() {
        assert_eq!(range(1, 4).root(), None);
        assert_eq!(CompactRange::empty(3).root(), None);
    }

    #[test]
    fn another_number_of_hashes_than_the_bounds_dictate_is_refused() {
        for (begin, end) in [(0, 0), (0, 7), (3, 3), (3, 21), (256, 1_024)] {
            let hashes = range(begin, end).hashes().to_vec();
            let need = hashes.len();
            let mut more = hashes.clone();
            more.push(Digest([0; 32]));
            assert_eq!(
                CompactRange::from_hashes(begin, end, more),
                Err(Rejection::ProofLength {
                    what: "compact range",
                    have: need + 1,
                    need
                })
            );
            if need > 0 {
                let fewer = hashes[1..].to_vec();
                assert!(CompactRange::from_hashes(begin, end, fewer).is_err());
            }
            assert!(CompactRange::from_hashes(begin, end, hashes).is_ok());
        }
    }

    #[test]
    fn bounds_that_are_no_range_are_refused() {
        assert!(CompactRange::from_hashes(2, 1, vec![]).is_err());
        let beyond = FEED_MAX_LEAVES + 1;
        assert!(CompactRange::from_hashes(beyond, beyond, vec![]).is_err());
        assert!(CompactRange::from_hashes(FEED_MAX_LEAVES, FEED_MAX_LEAVES, vec![]).is_ok());
    }

    #[test]
    fn ranges_that_are_no_neighbours_do_not_merge() {
        let mut left = range(0, 5);
        assert_eq!(
            left.merge(&range(6, 8)),
            Err(Rejection::WrongRange {
                expected: 5,
                got: 6
            })
        );
        assert!(left.merge(&range(4, 8)).is_err());
        assert_eq!(left, range(0, 5));
    }

    #[test]
    fn a_subtree_is_appended_only_where_one_may_begin() {
        let mut nothing = |_: NodeId, _: Digest| ();
        let hash = Digest([9; 32]);
        assert!(
            range(0, 5)
                .append_subtree_with(1, hash, &mut nothing)
                .is_err()
        );
        assert!(
            range(0, 6)
                .append_subtree_with(1, hash, &mut nothing)
                .is_ok()
        );
        assert!(
            range(0, 6)
                .append_subtree_with(64, hash, &mut nothing)
                .is_err()
        );
        assert!(
            CompactRange::empty(FEED_MAX_LEAVES)
                .append_subtree_with(0, hash, &mut nothing)
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn pushed_merged_and_fetched_ranges_are_equal(a in 0_u64..300, b in 0_u64..300, c in 0_u64..300) {
            let mut bounds = [a, b, c];
            bounds.sort_unstable();
            let [a, b, c] = bounds;
            let whole = range(a, c);
            prop_assert_eq!(whole.hashes().len(), expected_len(a, c));
            let mut merged = range(a, b);
            merged.merge(&range(b, c)).unwrap();
            prop_assert_eq!(&merged, &whole);
            let nodes = nodes(c);
            let fetched = CompactRange::fetch(a, c, fetch(&nodes)).unwrap();
            prop_assert_eq!(&fetched, &whole);
        }

        #[test]
        fn merging_reports_the_subtrees_that_pushing_does(a in 0_u64..200, b in 0_u64..200) {
            let (a, b) = (a.min(b), a.max(b));
            let all = nodes(b);
            let mut merged = range(0, a);
            merged.merge_with(&range(a, b), &mut |id, hash| assert_eq!(all.get(&id), Some(&hash))).unwrap();
            prop_assert_eq!(merged.root(), Some(mth(0, b)));
        }

        #[test]
        fn a_changed_hash_changes_the_root(size in 1_u64..200, which in any::<prop::sample::Index>(), bit in 0_usize..256) {
            let good = range(0, size);
            let mut hashes = good.hashes().to_vec();
            let at = which.index(hashes.len());
            hashes[at].0[bit / 8] ^= 1 << (bit % 8);
            let bad = CompactRange::from_hashes(0, size, hashes).unwrap();
            prop_assert_ne!(bad.root(), good.root());
        }
    }
}
