//! Cosignatures of members with witness keys on several nodes of one card.

use super::*;

/// The sample, with a second witness node on the card of the first witness, which signs
/// with the key of its first node or of that second one.
fn cosigned_by(second: bool) -> (Vec<bool>, usize) {
    let (genesis, mut proof) = sample();
    let chain = coalition();
    let (keys, more) = (Keys::of(20), Keys::of(30));
    let key = if second { witness(9) } else { witness(0) };
    let mut both = card(&chain, "w0", 1, &keys);
    both.nodes[0].witness_keys = vec![witness(0).public()];
    let mut node = card(&chain, "w0", 1, &more).nodes.remove(0);
    node.name = slug("two");
    node.witness_keys = vec![witness(9).public()];
    both.nodes.push(node);
    let mut draft = both.to_envelope().unwrap();
    draft.sign(&SecretKey::<Identity>::from_seed(&[110; 32]));
    keys.sign(&mut draft);
    more.sign(&mut draft);
    draft.sign(&witness(0)).sign(&witness(9));
    proof.node_cards[1] = draft.finish().unwrap().as_bytes().clone();
    let (_, leaves) = leaves(&chain);
    let (checkpoint, _) = note(&chain, proof.feed, SIZE, range(&leaves).root().unwrap());
    let name = checkpoint::witness_name(&checkpoint.origin.coalition, &slug("w0"));
    let line = checkpoint::cosign(&checkpoint.body(), &name, &key, NOW.0 / 1_000 + 60);
    proof.cosignatures[0] = line.into();
    let proven = proof.verify(&genesis).unwrap();
    let counts = proven.cosigned.iter().map(|by| by.counts).collect();
    (counts, proven.quorum.cosigned)
}

#[test]
fn of_a_members_witness_nodes_the_first_on_its_card_counts_towards_the_quorum() {
    assert_eq!(cosigned_by(false), (vec![true, true, true], 3));
    assert_eq!(cosigned_by(true), (vec![false, true, true], 2));
}
