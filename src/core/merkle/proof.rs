//! RFC 6962's inclusion and consistency proofs, for where others check them.
//!
//! Between nodes compact ranges travel; these forms stand in files for courts and
//! for tools that know Certificate Transparency.

use super::range::{CompactRange, count};
use super::{NodeId, empty_root, node_hash};
use crate::id::Digest;
use crate::reject::Rejection;

/// Writes the proof that leaf `index` is in the tree of `size` leaves: siblings
/// from the leaf up. None when the tree has no such leaf.
///
/// # Errors
/// Whatever `fetch`, which reads a stored subtree hash, fails with.
pub fn inclusion_proof<E>(
    index: u64,
    size: u64,
    mut fetch: impl FnMut(NodeId) -> Result<Digest, E>,
) -> Result<Option<Vec<Digest>>, E> {
    let steps = Path::new(NodeId { level: 0, index }, size);
    steps
        .map(|steps| steps.map(|step| step.sibling(size, &mut fetch)).collect())
        .transpose()
}

/// Checks that `leaf`, a leaf hash, is leaf `index` of the tree of `size` leaves
/// with `root`.
///
/// # Errors
/// [`Rejection::Invalid`] for an index beyond the tree, [`Rejection::ProofLength`]
/// for another number of hashes than index and size dictate,
/// [`Rejection::WrongRoot`] when they lead elsewhere.
pub fn verify_inclusion(
    leaf: &Digest,
    index: u64,
    size: u64,
    proof: &[Digest],
    root: &Digest,
) -> Result<(), Rejection> {
    let steps = Path::new(NodeId { level: 0, index }, size).ok_or_else(|| {
        let why = format!("a tree of {size} leaves has no leaf {index}");
        Rejection::invalid("inclusion proof", why)
    })?;
    count("inclusion proof", proof.len(), steps.clone().count())?;
    let hash = steps.zip(proof).fold(*leaf, |hash, (step, sibling)| {
        if step.sibling_is_left {
            node_hash(sibling, &hash)
        } else {
            node_hash(&hash, sibling)
        }
    });
    let to = index.saturating_add(1);
    same_root(&hash, root, || Rejection::WrongRoot { from: index, to })
}

/// Writes the proof that the tree of `old_size` leaves is a prefix of the tree of
/// `new_size`. Empty for equal sizes and for the empty tree, which is a prefix of
/// every tree. None when the old tree is the larger one.
///
/// # Errors
/// Whatever `fetch`, which reads a stored subtree hash, fails with.
pub fn consistency_proof<E>(
    old_size: u64,
    new_size: u64,
    mut fetch: impl FnMut(NodeId) -> Result<Digest, E>,
) -> Result<Option<Vec<Digest>>, E> {
    if old_size > new_size {
        return Ok(None);
    }
    let Some(start) = Start::new(old_size, new_size) else {
        return Ok(Some(Vec::new()));
    };
    let mut proof = Vec::new();
    if !start.is_old_root {
        proof.push(fetch(start.node)?);
    }
    for step in start.path {
        proof.push(step.sibling(new_size, &mut fetch)?);
    }
    Ok(Some(proof))
}

/// Checks that the tree of `old_size` leaves with `old_root` is a prefix of the
/// tree of `new_size` leaves with `new_root`.
///
/// # Errors
/// [`Rejection::HeadWentBack`] when the old tree is the larger one,
/// [`Rejection::ProofLength`] for another number of hashes than the sizes dictate,
/// [`Rejection::NotAnExtension`] or [`Rejection::WrongRoot`] when the hashes do not
/// lead to the old or the new root.
pub fn verify_consistency(
    old_size: u64,
    new_size: u64,
    proof: &[Digest],
    old_root: &Digest,
    new_root: &Digest,
) -> Result<(), Rejection> {
    if old_size > new_size {
        return Err(Rejection::HeadWentBack {
            held: old_size,
            got: new_size,
        });
    }
    let Some(start) = Start::new(old_size, new_size) else {
        return verify_trivial(old_size, new_size, proof, old_root, new_root);
    };
    let own = usize::from(!start.is_old_root);
    let need = start.path.clone().count().saturating_add(own);
    count("consistency proof", proof.len(), need)?;
    let (seed, siblings) = match proof.split_first() {
        Some((first, rest)) if !start.is_old_root => (first, rest),
        Some(_) | None => (old_root, proof),
    };
    let (mut old, mut new) = (*seed, *seed);
    for (step, sibling) in start.path.zip(siblings) {
        if step.sibling_is_left {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
        } else {
            new = node_hash(&new, sibling);
        }
    }
    same_root(&old, old_root, || Rejection::NotAnExtension {
        held: old_size,
    })?;
    same_root(&new, new_root, || Rejection::WrongRoot {
        from: old_size,
        to: new_size,
    })
}

/// The two cases without hashes: equal sizes, and from the empty tree.
fn verify_trivial(
    old_size: u64,
    new_size: u64,
    proof: &[Digest],
    old_root: &Digest,
    new_root: &Digest,
) -> Result<(), Rejection> {
    count("consistency proof", proof.len(), 0)?;
    let expected = if old_size == 0 {
        &empty_root()
    } else {
        new_root
    };
    same_root(expected, old_root, || Rejection::NotAnExtension {
        held: old_size,
    })?;
    if new_size == 0 {
        return same_root(new_root, &empty_root(), || Rejection::WrongRoot {
            from: 0,
            to: 0,
        });
    }
    Ok(())
}

fn same_root(
    computed: &Digest,
    expected: &Digest,
    otherwise: impl FnOnce() -> Rejection,
) -> Result<(), Rejection> {
    if computed == expected {
        Ok(())
    } else {
        Err(otherwise())
    }
}

/// Where a consistency proof begins: the largest perfect subtree at the old tree's
/// end, and its path in the new tree.
struct Start {
    node: NodeId,
    /// The node is the whole old tree, so its hash is not sent.
    is_old_root: bool,
    path: Path,
}

impl Start {
    /// None when the sizes are equal or the old tree is empty.
    fn new(old_size: u64, new_size: u64) -> Option<Self> {
        if old_size == new_size {
            return None;
        }
        let last = old_size.checked_sub(1)?;
        let level = old_size.trailing_zeros();
        let node = NodeId {
            level: u8::try_from(level).ok()?,
            index: last.checked_shr(level)?,
        };
        Some(Self {
            node,
            is_old_root: node.index == 0,
            path: Path::new(node, new_size)?,
        })
    }
}

/// One sibling on the way from a node to the root.
struct Step {
    sibling: NodeId,
    sibling_is_left: bool,
}

impl Step {
    /// Reads the sibling's hash. At the tree's right edge the sibling is not
    /// perfect and is put together from perfect ones.
    fn sibling<E>(
        &self,
        size: u64,
        fetch: &mut impl FnMut(NodeId) -> Result<Digest, E>,
    ) -> Result<Digest, E> {
        let end = self.sibling.end().min(size);
        let range = CompactRange::fetch(self.sibling.begin(), end, fetch)?;
        Ok(range.folded().unwrap_or_else(empty_root)) // never empty: it begins within the tree
    }
}

/// The siblings from a node of a tree up to its root.
#[derive(Clone)]
struct Path {
    node: NodeId,
    /// The index of the tree's last node at the node's level.
    last: u64,
}

impl Path {
    /// None when the tree of `size` leaves has no such node.
    fn new(node: NodeId, size: u64) -> Option<Self> {
        let last = size.checked_sub(1)?.checked_shr(u32::from(node.level))?;
        (node.index <= last).then_some(Self { node, last })
    }
}

impl Iterator for Path {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        while self.last > 0 {
            let NodeId { level, index } = self.node;
            let sibling_is_left = index & 1 == 1;
            let sibling = NodeId {
                level,
                index: index ^ 1,
            };
            let exists = sibling.index <= self.last;
            self.node = NodeId {
                level: level.saturating_add(1),
                index: index >> 1,
            };
            self.last >>= 1;
            if exists {
                return Some(Step {
                    sibling,
                    sibling_is_left,
                });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
    use proptest::prelude::*;
    use sha2::Sha256;

    use super::super::tests::{fetch, mth, nodes, record};
    use super::super::{Record, leaf_hash};
    use super::*;

    const SIZES: u64 = 68;

    fn oracle(size: u64) -> MemoryBackedTree<Sha256, Record> {
        let mut tree = MemoryBackedTree::new();
        (0..size).for_each(|i| tree.push(record(i)));
        tree
    }

    fn bytes(proof: &[Digest]) -> Vec<u8> {
        proof.iter().flat_map(|hash| hash.0).collect()
    }

    #[test]
    fn inclusion_proofs_equal_those_of_another_implementation() {
        let nodes = nodes(SIZES);
        for size in 1..SIZES {
            let tree = oracle(size);
            let root = mth(0, size);
            assert_eq!(tree.root().as_bytes().as_slice(), root.0);
            for index in 0..size {
                let proof = inclusion_proof(index, size, fetch(&nodes))
                    .unwrap()
                    .unwrap();
                let theirs = tree.prove_inclusion(usize::try_from(index).unwrap());
                assert_eq!(theirs.as_bytes(), bytes(&proof), "{index} of {size}");
                let leaf = leaf_hash(&record(index));
                assert_eq!(verify_inclusion(&leaf, index, size, &proof, &root), Ok(()));
            }
        }
    }

    #[test]
    fn consistency_proofs_equal_those_of_another_implementation() {
        let nodes = nodes(SIZES);
        for new in 1..SIZES {
            let tree = oracle(new);
            for old in 1..=new {
                let proof = consistency_proof(old, new, fetch(&nodes)).unwrap().unwrap();
                let theirs = tree.prove_consistency(usize::try_from(new - old).unwrap());
                assert_eq!(theirs.as_bytes(), bytes(&proof), "{old} to {new}");
                let roots = (mth(0, old), mth(0, new));
                assert_eq!(
                    verify_consistency(old, new, &proof, &roots.0, &roots.1),
                    Ok(())
                );
            }
        }
    }

    #[test]
    fn the_empty_tree_is_a_prefix_of_every_tree() {
        let nodes = nodes(9);
        assert_eq!(consistency_proof(0, 9, fetch(&nodes)), Ok(Some(vec![])));
        assert_eq!(
            verify_consistency(0, 9, &[], &empty_root(), &mth(0, 9)),
            Ok(())
        );
        assert_eq!(
            verify_consistency(0, 0, &[], &empty_root(), &empty_root()),
            Ok(())
        );
        assert!(verify_consistency(0, 9, &[], &mth(0, 1), &mth(0, 9)).is_err());
        assert!(verify_consistency(0, 0, &[], &empty_root(), &mth(0, 1)).is_err());
    }

    #[test]
    fn what_is_not_in_the_tree_has_no_proof() {
        let nodes = nodes(4);
        assert_eq!(inclusion_proof(4, 4, fetch(&nodes)), Ok(None));
        assert_eq!(inclusion_proof(0, 0, fetch(&nodes)), Ok(None));
        assert_eq!(consistency_proof(4, 3, fetch(&nodes)), Ok(None));
        let leaf = leaf_hash(&record(4));
        assert!(verify_inclusion(&leaf, 4, 4, &[], &leaf).is_err());
        assert!(verify_inclusion(&leaf, 0, 0, &[], &leaf).is_err());
        assert_eq!(
            verify_consistency(4, 3, &[], &mth(0, 4), &mth(0, 3)),
            Err(Rejection::HeadWentBack { held: 4, got: 3 })
        );
    }

    #[test]
    fn a_proof_that_is_too_long_or_too_short_is_refused_by_its_count() {
        let nodes = nodes(40);
        for (old, new) in [(0, 5), (5, 5), (4, 7), (7, 40), (32, 40)] {
            let proof = consistency_proof(old, new, fetch(&nodes)).unwrap().unwrap();
            for bad in resized(&proof) {
                let verdict = verify_consistency(old, new, &bad, &mth(0, old), &mth(0, new));
                assert_eq!(verdict.map_err(|r| r.code()), Err("proof_length"));
            }
        }
        for (index, size) in [(0, 1), (6, 7), (13, 40), (39, 40)] {
            let proof = inclusion_proof(index, size, fetch(&nodes))
                .unwrap()
                .unwrap();
            let leaf = leaf_hash(&record(index));
            for bad in resized(&proof) {
                let verdict = verify_inclusion(&leaf, index, size, &bad, &mth(0, size));
                assert_eq!(verdict.map_err(|r| r.code()), Err("proof_length"));
            }
        }
    }

    /// The proof with one hash more, at either end, and one fewer.
    fn resized(proof: &[Digest]) -> Vec<Vec<Digest>> {
        let extra = Digest([7; 32]);
        let mut all = vec![[proof, &[extra]].concat(), [&[extra], proof].concat()];
        if let Some((_, fewer)) = proof.split_last() {
            all.push(fewer.to_vec());
            all.push(proof[1..].to_vec());
        }
        all
    }

    proptest! {
        #[test]
        fn large_trees_agree_with_another_implementation(
            a in 1_u64..3_000, b in 1_u64..3_000, index in any::<prop::sample::Index>(),
        ) {
            let (old, new) = (a.min(b), a.max(b));
            let nodes = nodes(new);
            let root = |size| RootHash::<Sha256>::new(mth(0, size).0.into(), size);
            let proof = consistency_proof(old, new, fetch(&nodes)).unwrap().unwrap();
            let theirs = ConsistencyProof::try_from_bytes(bytes(&proof)).unwrap();
            prop_assert!(root(new).verify_consistency(&root(old), &theirs).is_ok());
            let index = index.index(usize::try_from(new).unwrap()) as u64;
            let proof = inclusion_proof(index, new, fetch(&nodes)).unwrap().unwrap();
            let theirs = InclusionProof::try_from_bytes(bytes(&proof)).unwrap();
            prop_assert!(root(new).verify_inclusion(&record(index), index, &theirs).is_ok());
        }

        #[test]
        fn a_flipped_bit_in_any_hash_is_refused(
            a in 1_u64..200, b in 1_u64..200, which in any::<prop::sample::Index>(), bit in 0_usize..256,
        ) {
            let (old, new) = (a.min(b), a.max(b));
            let nodes = nodes(new);
            let proof = consistency_proof(old, new, fetch(&nodes)).unwrap().unwrap();
            let mut all = [proof.clone(), vec![mth(0, old), mth(0, new)]].concat();
            let at = which.index(all.len());
            all[at].0[bit / 8] ^= 1 << (bit % 8);
            let (proof, roots) = all.split_at(proof.len());
            prop_assert!(verify_consistency(old, new, proof, &roots[0], &roots[1]).is_err());

            let index = old - 1;
            let proof = inclusion_proof(index, new, fetch(&nodes)).unwrap().unwrap();
            let mut all = [proof.clone(), vec![leaf_hash(&record(index)), mth(0, new)]].concat();
            let at = which.index(all.len());
            all[at].0[bit / 8] ^= 1 << (bit % 8);
            let (proof, ends) = all.split_at(proof.len());
            prop_assert!(verify_inclusion(&ends[0], index, new, proof, &ends[1]).is_err());
        }

        #[test]
        fn another_index_or_size_is_refused(size in 2_u64..200, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
            let nodes = nodes(size);
            let (index, other) = (a.index(usize::try_from(size).unwrap()) as u64, b.index(usize::try_from(size).unwrap()) as u64);
            let proof = inclusion_proof(index, size, fetch(&nodes)).unwrap().unwrap();
            let leaf = leaf_hash(&record(index));
            let verdict = verify_inclusion(&leaf, other, size, &proof, &mth(0, size));
            prop_assert_eq!(verdict.is_ok(), index == other);
        }
    }
}
