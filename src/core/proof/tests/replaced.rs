//! ⚠ Whoever finds an identity key that was replaced can sign cards with it for ever: a
//! proof by such a card says so, and no quorum is made of them.

use super::*;
use crate::roster::tests::identity;

/// The coalition after these members replaced their identity keys: version 4.
fn rotated(members: &[u32]) -> RosterChain {
    let mut chain = coalition();
    let accepted = change(&mut chain, |r| {
        for n in members {
            let key = identity(150 + u8::try_from(*n).unwrap());
            r.rotate_identity(number(*n), key).unwrap();
        }
    });
    accepted.unwrap();
    chain
}

/// A proof under a roster that replaced the identity keys of its publisher and of a witness.
pub(crate) fn sample() -> Proof {
    let (feed, leaves) = leaves(&coalition());
    let chain = rotated(&[1, 3]);
    proof_of(&chain, feed, &leaves, (ENTRY, SIZE, &[4], &[0, 1])).1
}

/// The sample, by this chain and these cards.
fn proved_by(chain: &RosterChain, edit: impl FnOnce(&mut Proof)) -> Proven {
    let (feed, leaves) = leaves(&coalition());
    let (genesis, mut proof) = proof_of(chain, feed, &leaves, (ENTRY, SIZE, &[4], &[0, 1, 2]));
    edit(&mut proof);
    let file = Bytes::from(proof.encode().unwrap());
    let read = Proof::decode(&file).unwrap();
    read.verify(&genesis).unwrap().into_inner()
}

#[test]
fn a_proof_by_a_replaced_identity_key_says_so_unless_the_present_one_names_the_key() {
    let before = proved_by(&coalition(), |_| ());
    assert_eq!(before.publisher.replaced_in, None);
    let chain = rotated(&[1]);
    let after = proved_by(&chain, |_| ());
    assert_eq!(after.publisher.replaced_in, Some(4));
    let keys = Keys::of(11);
    let present = signed(&card(&chain, "north", 1, &keys), 151, &keys, None);
    let after = proved_by(&chain, |p| p.node_cards[0] = present.as_bytes().clone());
    assert_eq!(after.publisher.replaced_in, None);
    assert_eq!(after.publisher.card_version, 1);
}

#[test]
fn a_head_that_the_finder_of_a_replaced_key_makes_says_by_what() {
    let chain = rotated(&[1]);
    let own = Keys::of(66);
    let forged_card = signed(&card(&chain, "north", 900, &own), 101, &own, None);
    let forged = proved_by(&chain, |proof| {
        let (checkpoint, _) = note(&chain, proof.feed, SIZE, {
            let (_, leaves) = leaves(&coalition());
            range(&leaves).root().unwrap()
        });
        proof.note = checkpoint::sign(&checkpoint, &own.feed).into();
        proof.node_cards = vec![forged_card.as_bytes().clone()];
        proof.cosignatures.clear();
    });
    assert_eq!(forged.publisher.replaced_in, Some(4));
    assert_eq!(forged.publisher.card_version, 900);
}

#[test]
fn cosignatures_by_cards_of_replaced_identity_keys_make_no_quorum() {
    let before = proved_by(&coalition(), |_| ());
    assert!(before.quorum.is_reached());
    // Of south nothing is in the proof; w0 and w1 are members 3 and 4.
    let chain = rotated(&[2, 3, 4]);
    let after = proved_by(&chain, |_| ());
    let said: Vec<_> = after.cosigned.iter().map(|by| by.replaced_in).collect();
    assert_eq!(said, [Some(4), Some(4), None]);
    let counts: Vec<bool> = after.cosigned.iter().map(|by| by.counts).collect();
    assert_eq!(counts, [false, false, true]);
    assert_eq!((after.quorum.witnesses, after.quorum.cosigned), (4, 1));
    assert!(!after.quorum.is_reached());
    // A card of the present identity key brings the same key back.
    let keys = Keys::of(20);
    let mut again = card(&chain, "w0", 1, &keys);
    again.nodes[0].witness_keys = vec![witness(0).public()];
    let again = signed(&again, 153, &keys, Some(&witness(0)));
    let back = proved_by(&chain, |p| p.node_cards[1] = again.as_bytes().clone());
    assert_eq!(back.quorum.cosigned, 2);
    assert_eq!(back.cosigned[0].replaced_in, None);
}
