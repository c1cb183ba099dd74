//! Whose cosignatures count: by the newest roster in the file, whatever they say.

use super::*;

#[test]
fn witnesses_count_once_each_and_strangers_not_at_all() {
    let (genesis, proof) = proof_at(ENTRY, SIZE, &[4], &[0, 1]);
    let proven = proof.verify(&genesis).unwrap();
    assert!(!proven.quorum.is_reached());
    assert_eq!(proven.quorum.cosigned, 2);

    let (genesis, mut twice) = sample();
    let line = twice.cosignatures[0].clone();
    twice.cosignatures.push(line);
    assert_eq!(code(twice.verify(&genesis)), "invalid");
    // Who is a member and no witness says nothing for the quorum.
    let (genesis, mut stranger) = sample();
    let mut parsed = SignatureLine::parse(&stranger.cosignatures[0]).unwrap();
    parsed.name = parsed.name.replace("w0", "nobody");
    stranger.cosignatures[0] = parsed.format().into();
    assert_eq!(code(stranger.verify(&genesis)), "unknown");
}

/// The same entry by a chain with one version more, cosigned by these witnesses at a time.
fn judged_after(
    edit: impl FnOnce(&mut crate::roster::Roster),
    witnesses: &[u8],
    time_s: u64,
) -> (Quorum, Vec<bool>) {
    let mut chain = coalition();
    let (feed, leaves) = leaves(&chain);
    let life = crate::limits::DAY_MS;
    let mut later = crate::roster::tests::next(&chain, edit);
    later.issued = NOW.plus(life);
    later.expires = later.issued.plus(100 * life);
    let envelope = crate::roster::tests::signed(&later, &[1, 2]);
    chain.accept(envelope, NOW.plus(life)).unwrap();
    let (genesis, mut proof) = proof_of(&chain, feed, &leaves, (ENTRY, SIZE, &[4], witnesses));
    let (checkpoint, _) = note(&chain, feed, SIZE, range(&leaves).root().unwrap());
    let lines = witnesses.iter().map(|n| line(&checkpoint, *n, time_s));
    proof.cosignatures = lines.collect();
    let proven = proof.verify(&genesis).unwrap();
    let counts = proven.cosigned.iter().map(|by| by.counts).collect();
    (proven.quorum, counts)
}

#[test]
fn a_back_dated_cosignature_chooses_no_roster() {
    let then = NOW.0 / 1_000 + 60;
    let much_later = then + 1_000_000;
    // Version 3 asked for three of four, version 4 asks for four.
    for time_s in [then, much_later] {
        let more = |r: &mut crate::roster::Roster| r.witness_threshold = 4;
        let (quorum, _) = judged_after(more, &[0, 1, 2], time_s);
        assert_eq!((quorum.roster_version, quorum.threshold), (4, 4));
        assert!(!quorum.is_reached());
    }
    // Who left says nothing any more, whatever time it writes.
    for time_s in [then, much_later] {
        let leaves = |r: &mut crate::roster::Roster| r.members[2].roles = vec![Role::Subscribe];
        let (quorum, counts) = judged_after(leaves, &[0, 1, 2], time_s);
        assert_eq!((quorum.witnesses, quorum.cosigned), (3, 2));
        assert_eq!(counts, [false, true, true]);
        assert!(!quorum.is_reached());
    }
}

#[test]
fn a_roster_that_names_no_number_asks_for_more_than_two_thirds_as_nodes_do() {
    let none = |r: &mut crate::roster::Roster| r.witness_threshold = 0;
    let (quorum, _) = judged_after(none, &[0, 1, 2], 1);
    assert_eq!((quorum.threshold, quorum.is_reached()), (3, true));
    assert!(quorum.prevents());
    let (quorum, _) = judged_after(none, &[0, 1], 1);
    assert!(!quorum.is_reached());
    let few = |r: &mut crate::roster::Roster| {
        r.witness_threshold = 0;
        r.members[2].roles = vec![Role::Subscribe];
    };
    let (quorum, _) = judged_after(few, &[1, 2, 3], 1);
    assert_eq!((quorum.threshold, quorum.is_reached()), (3, true));
    assert!(!quorum.prevents(), "three find forks and prevent none");
}

#[test]
fn a_publisher_is_no_witness_of_its_own_feed() {
    let also = |r: &mut crate::roster::Roster| {
        let north = r.members.iter_mut().find(|m| m.slug == slug("north"));
        north.unwrap().roles.push(Role::Witness);
    };
    let mut chain = coalition();
    let (feed, leaves) = leaves(&chain);
    change(&mut chain, also).unwrap();
    let (genesis, mut proof) = proof_of(&chain, feed, &leaves, (ENTRY, SIZE, &[4], &[0, 1]));
    // It has a card with a witness key, and cosigns.
    let keys = Keys::of(11);
    let mut own = card(&chain, "north", 3, &keys);
    own.nodes[0].witness_keys = vec![witness(9).public()];
    let own = signed(&own, 101, &keys, Some(&witness(9)));
    proof.node_cards[0] = own.as_bytes().clone();
    let (checkpoint, _) = note(&chain, feed, SIZE, range(&leaves).root().unwrap());
    let name = checkpoint::witness_name(&checkpoint.origin.coalition, &slug("north"));
    let body = checkpoint.body();
    let line = checkpoint::cosign(&body, &name, &witness(9), NOW.0 / 1_000);
    proof.cosignatures.push(line.into());
    let proven = proof.verify(&genesis).unwrap();
    assert_eq!((proven.quorum.witnesses, proven.quorum.cosigned), (4, 2));
    assert!(
        !proven.quorum.is_reached(),
        "two of the three that it takes"
    );
    let counts: Vec<bool> = proven.cosigned.iter().map(|by| by.counts).collect();
    assert_eq!(counts, [true, true, false]);
}
