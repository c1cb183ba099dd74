//! What a forger can sign itself does not verify, and a change of any field is refused.

use proptest::prelude::*;

use super::*;

#[test]
fn a_describe_leaf_of_another_set_is_refused() {
    let chain = coalition();
    let (feed, honest) = leaves(&chain);
    let with = |edit: &dyn Fn(&mut Describe)| {
        let mut said = describe(&chain);
        edit(&mut said);
        let mut leaves = honest.clone();
        leaves[5] = RawLeaf::new(DESCRIBE, said.encode([5; 16]).unwrap());
        let (genesis, proof) = proof_of(&chain, feed, &leaves, (ENTRY, SIZE, &[], &[]));
        proof.verify(&genesis).map(|proven| proven.title.clone())
    };
    assert_eq!(
        with(&|said| said.title = "New".to_owned()),
        Ok("New".to_owned())
    );
    assert_eq!(
        code(with(&|said| said.name = "north/unreviewed".parse_name())),
        "invalid"
    );
    assert_eq!(
        code(with(&|said| said.feed_kind = FeedKind::Opinions)),
        "invalid"
    );
}

#[test]
fn every_field_of_a_proof_is_protected() {
    let (genesis, proof) = sample();
    let descriptor = message("core.v1.Proof");
    let body = proof.to_wire().unwrap().encode_to_vec();
    assert_eq!(absent(&descriptor, &body), [""; 0]);
    let whole = verify(&genesis, body.clone()).unwrap();
    let mut refused = std::collections::BTreeSet::new();
    let changed = mutations(&descriptor, &body);
    assert!(changed.len() > 300, "{}", changed.len());
    for change in changed {
        let rejection = verify(&genesis, change.bytes).expect_err(&change.what);
        refused.insert(rejection.code());
    }
    for code in [
        "bad_signature",
        "wrong_root",
        "proof_length",
        "invalid",
        "malformed",
    ] {
        assert!(refused.contains(code), "{code} of {refused:?}");
    }
    assert_eq!(whole.cosigned.len(), 3);
}

#[test]
fn what_a_forger_can_sign_itself_is_refused_as_well() {
    let (genesis, proof) = sample();
    let refused = |how: &dyn Fn(&mut Proof)| {
        let mut changed = proof.clone();
        how(&mut changed);
        code(changed.verify(&genesis))
    };
    // Another coalition's chain, whole and rightly signed.
    assert_eq!(code(proof.verify(&Digest::of(b"another"))), "wrong_genesis");
    // A shorter chain that says it is shorter: nothing in it is wrong but the witnesses.
    assert_eq!(
        refused(&|p| {
            p.rosters.pop();
            p.roster_version = 2;
        }),
        "unknown"
    );
    assert_eq!(
        refused(&|p| p.node_cards.push(p.node_cards[0].clone())),
        "invalid"
    );
    let chain = coalition();
    let spare = witness_card(&chain, 3).as_bytes().clone();
    assert_eq!(refused(&|p| p.node_cards.push(spare.clone())), "invalid");
    // A leaf beside those that the proof says it has, and one that names another entry.
    let (_, leaves) = leaves(&chain);
    assert_eq!(
        refused(&|p| p.leaves.push(proved(&leaves, 1, SIZE))),
        "invalid"
    );
    let other = |p: &mut Proof| {
        p.named_by = vec![6];
        p.leaves.retain(|leaf| [0, 2, 5].contains(&leaf.index));
        p.leaves.push(proved(&leaves, 6, SIZE));
    };
    assert_eq!(refused(&other), "invalid");
    // A leaf that publishes nothing.
    let erase = |p: &mut Proof| {
        (p.index, p.named_by) = (8, vec![]);
        p.leaves = [0, 5, 8].map(|index| proved(&leaves, index, SIZE)).to_vec();
    };
    assert_eq!(refused(&erase), "invalid");
    // A feed that another member began, under this one's name.
    let own = |p: &mut Proof| p.feed = FeedId(Digest::of(b"own"));
    assert_eq!(refused(&own), "wrong_first_leaf");
}

#[test]
fn a_head_that_the_roster_cut_off_proves_nothing() {
    let (_, proof) = sample();
    let mut chain = coalition();
    let (feed, leaves) = leaves(&chain);
    let revoke = |chain: &mut RosterChain, size: u64, root: Digest| {
        change(chain, |r| {
            r.revocations.push(Revocation {
                feed,
                key: SecretKey::<Feed>::from_seed(&[77; 32]).public(),
                last_good_size: size,
                last_good_root: root,
                next_epoch: 1,
            });
        })
        .unwrap();
    };
    let root = |size: usize| range(&leaves[..size]).root().unwrap();
    let judged = |size: u64, root: Digest| {
        let mut chain = chain.clone();
        revoke(&mut chain, size, root);
        let mut proof = proof.clone();
        proof.roster_version = chain.version();
        proof.rosters = chain
            .from_version(1)
            .map(|v| v.as_bytes().clone())
            .collect();
        code(proof.verify(&chain.genesis()))
    };
    assert_eq!(judged(SIZE, root(9)), "accepted");
    assert_eq!(judged(SIZE, Digest::of(b"another history")), "invalid");
    assert_eq!(judged(8, root(8)), "invalid");
    // And one of an epoch that no roster opened.
    revoke(&mut chain, 8, root(8));
    let (_, beyond) = note(&chain, feed, SIZE, root(9));
    let mut early = proof.clone();
    early.note = beyond;
    early.cosignatures.clear();
    early.node_cards.truncate(1);
    assert_eq!(code(early.verify(&chain.genesis())), "wrong_epoch");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        let _ = Proof::decode(&bytes);
        let _ = Proof::from_body(&bytes);
    }

    #[test]
    fn one_byte_of_a_proof_changed_anywhere_is_refused(at in any::<prop::sample::Index>(), byte: u8) {
        let (genesis, proof) = sample();
        let mut body = proof.to_wire().unwrap().encode_to_vec();
        let at = at.index(body.len());
        prop_assume!(body[at] != byte);
        body[at] = byte;
        prop_assert!(verify(&genesis, body).is_err(), "byte {at}");
    }
}
