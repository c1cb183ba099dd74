//! Each rule by itself, with chains that administrators sign.

use super::*;
use crate::roster::tests::{NOW, change, founded, identity, newcomer, number};

/// A founded coalition whose version 2 has so many members, witnesses all.
fn with_witnesses(count: u8) -> RosterChain {
    let mut chain = founded();
    change(&mut chain, |roster| {
        for seed in 0..count {
            let mut new = newcomer(&format!("w{seed}"), 100 + seed);
            new.roles.push(Role::Witness);
            roster.admit(new).unwrap();
        }
    })
    .unwrap();
    chain
}

fn grown(chain: &RosterChain, name: &str) -> RosterChain {
    let mut chain = chain.clone();
    let rename = |roster: &mut Roster| roster.members[0].display_name = name.to_owned();
    change(&mut chain, rename).unwrap();
    chain
}

fn state(tree: &RosterTree, version: u64) -> (u64, Digest) {
    (version, tree.head(version).unwrap().root)
}

fn settled() -> RosterWitness {
    let mut witness = RosterWitness::default();
    witness.settle();
    witness
}

fn said(witness: u32, version: u64) -> Said {
    Said {
        witness: number(witness),
        size: version,
        at: NOW,
        since: NOW,
    }
}

fn judged(chain: &RosterChain, said: &[Said]) -> Judged {
    judge(chain, said, 0, true, (NOW, NOW))
}

#[test]
fn everybody_computes_one_checkpoint_of_a_version_whatever_came_later() {
    let two = with_witnesses(4);
    let three = grown(&two, "three");
    let (small, large) = (RosterTree::of(&two), RosterTree::of(&three));
    assert_eq!((small.version(), large.version()), (2, 3));
    assert_eq!(small.head(2), large.head(2));
    let body = large.head(3).unwrap().body();
    let genesis = two.genesis();
    let origin = format!("csa-coalition.example/roster/{genesis}");
    assert_eq!(body.lines().next(), Some(origin.as_str()));
    assert_eq!((body.lines().nth(1), body.lines().count()), (Some("3"), 3));
    assert_eq!((large.head(0), large.head(4)), (None, None));
    // What is not held can be named on what is.
    let digest = three.current().digest();
    assert_eq!(small.head_with(3, digest), large.head(3));
    assert_eq!(small.head_with(4, digest), None);
    assert_eq!(small.head_with(0, digest), None);
}

#[test]
fn the_root_is_that_of_rfc_6962_over_the_records() {
    let chain = with_witnesses(1);
    let tree = RosterTree::of(&chain);
    let leaf = |version: u64| {
        let record = [&[0, 0][..], &chain.at(version).unwrap().digest().0].concat();
        Digest::of(&record)
    };
    assert_eq!(tree.head(1).unwrap().root, leaf(1));
    let node = [&[1][..], &leaf(1).0, &leaf(2).0].concat();
    assert_eq!(tree.head(2).unwrap().root, Digest::of(&node));
}

#[test]
fn a_version_is_recorded_then_signed_and_signed_again_in_time() {
    let tree = RosterTree::of(&with_witnesses(1));
    let mut witness = settled();
    let head = tree.head(2).unwrap();
    assert_eq!(witness.next(NOW, &tree), Next::Record(head.clone()));
    witness.hold(Some(state(&tree, 2)));
    assert_eq!(witness.next(NOW, &tree), Next::Sign(head.clone()));
    witness.signed(NOW, 2);
    let until = NOW.plus(RENEW_MS);
    assert_eq!(witness.next(NOW, &tree), Next::Wait(Some(until)));
    assert_eq!(witness.next(until, &tree), Next::Sign(head));
}

#[test]
fn with_another_key_a_version_is_signed_again_once_others_take_a_second_word_on_it() {
    let tree = RosterTree::of(&with_witnesses(1));
    let mut witness = settled();
    let head = tree.head(2).unwrap();
    witness.hold(Some(state(&tree, 2)));
    witness.signed(NOW, 2);
    witness.rekeyed();
    let until = NOW.plus(AGAIN_MS);
    assert_eq!(witness.next(NOW, &tree), Next::Wait(Some(until)));
    assert_eq!(witness.next(until, &tree), Next::Sign(head));
    witness.signed(until, 2);
    let renewed = until.plus(RENEW_MS);
    assert_eq!(witness.next(until, &tree), Next::Wait(Some(renewed)));
}

#[test]
fn nothing_is_recorded_before_the_peers_were_heard() {
    let tree = RosterTree::of(&with_witnesses(1));
    let witness = RosterWitness::default();
    assert_eq!(witness.next(NOW, &tree), Next::Wait(None));
}

#[test]
fn the_second_roster_of_a_version_is_never_cosigned() {
    let two = with_witnesses(4);
    let (one, other) = (grown(&two, "one"), grown(&two, "other"));
    let (one, other) = (RosterTree::of(&one), RosterTree::of(&other));
    let differs = Next::Differs { version: 3 };
    let mut witness = settled();
    witness.hold(Some(state(&one, 3)));
    assert_eq!(witness.next(NOW, &other), differs);
    // A version later it is no better.
    let later = RosterTree::of(&grown(&grown(&two, "other"), "later"));
    assert_eq!(witness.next(NOW, &later), differs);
}

#[test]
fn a_witness_whose_disk_was_restored_believes_its_own_word() {
    let two = with_witnesses(4);
    let (one, other) = (grown(&two, "one"), grown(&two, "other"));
    let (before, one, other) = (
        RosterTree::of(&two),
        RosterTree::of(&one),
        RosterTree::of(&other),
    );
    let mut witness = settled();
    witness.hold(Some(state(&before, 2)));
    let (version, root) = state(&one, 3);
    witness.own_word(version, root);
    assert_eq!(witness.next(NOW, &before), Next::Behind { version: 3 });
    assert_eq!(witness.next(NOW, &other), Next::Differs { version: 3 });
    assert!(matches!(witness.next(NOW, &one), Next::Record(_)));
    // An older word takes nothing back.
    witness.own_word(2, Digest::of(b"another"));
    assert!(matches!(witness.next(NOW, &one), Next::Record(_)));
}

#[test]
fn a_quorum_is_of_those_whom_the_version_before_names() {
    let two = with_witnesses(4);
    // Administrators whose keys were stolen name judges of their own.
    let mut forged = two.clone();
    change(&mut forged, |roster| {
        for member in &mut roster.members {
            member.roles.retain(|role| *role != Role::Witness);
        }
        for seed in 0..4 {
            let mut new = newcomer(&format!("x{seed}"), 150 + seed);
            new.roles.push(Role::Witness);
            roster.admit(new).unwrap();
        }
    })
    .unwrap();
    let own: Vec<Said> = (5..=8).map(|witness| said(witness, 3)).collect();
    let of_forged = judged(&forged, &own);
    assert_eq!(of_forged.quorum, None);
    // Nor a version later, when their judges stand in the version before.
    let later = grown(&forged, "later");
    let own: Vec<Said> = (5..=8).map(|witness| said(witness, 4)).collect();
    assert_eq!(judged(&later, &own).quorum, None);
    // Up to what was reached before nobody is asked again.
    let known = judge(&later, &own, 3, true, (NOW, NOW));
    assert_eq!(known.quorum, Some(4));
}

#[test]
fn a_version_is_reached_once_enough_have_cosigned_it_or_a_later_one() {
    let two = with_witnesses(4);
    let three = grown(&two, "three");
    let mut words = vec![said(1, 3), said(2, 3)];
    assert_eq!(judged(&three, &words).quorum, None);
    words.push(said(3, 2));
    let judged_two = judged(&three, &words);
    assert_eq!(
        (judged_two.quorum, judged_two.threshold),
        (Some(2), Some(3))
    );
    words.push(said(4, 3));
    assert_eq!(judged(&three, &words).quorum, Some(3));
}

#[test]
fn two_rosters_of_one_version_share_more_than_a_third_of_their_witnesses() {
    let two = with_witnesses(4);
    let words: Vec<Said> = (1..=2).map(|witness| said(witness, 3)).collect();
    for name in ["one", "other"] {
        assert_eq!(judged(&grown(&two, name), &words).quorum, None);
    }
}

#[test]
fn who_changed_its_identity_key_does_not_count_for_that_version() {
    let two = with_witnesses(4);
    let mut three = two.clone();
    change(&mut three, |roster| {
        let member = &mut roster.members[0];
        member.former_identities.push(member.identity);
        member.identity = identity(199);
    })
    .unwrap();
    let words: Vec<Said> = (1..=3).map(|witness| said(witness, 3)).collect();
    assert_eq!(judged(&three, &words).quorum, None);
    let all: Vec<Said> = (1..=4).map(|witness| said(witness, 3)).collect();
    assert_eq!(judged(&three, &all).quorum, Some(3));
}

#[test]
fn below_four_witnesses_they_can_be_replaced() {
    let two = with_witnesses(2);
    let mut three = two.clone();
    change(&mut three, |roster| {
        for member in &mut roster.members {
            member.roles.retain(|role| *role != Role::Witness);
        }
        let mut new = newcomer("x", 150);
        new.roles.push(Role::Witness);
        roster.admit(new).unwrap();
    })
    .unwrap();
    assert_eq!(judged(&three, &[said(3, 3)]).quorum, Some(3));
}

#[test]
fn the_chain_is_stale_when_nobody_has_spoken_of_the_newest_version() {
    let three = grown(&with_witnesses(4), "three");
    let late = NOW.plus(FRESH_MS + 1);
    let at = |said: &[Said], now| judge(&three, said, 0, true, (NOW, now)).stale;
    assert!(!at(&[], NOW.plus(FRESH_MS)), "they still may");
    assert!(at(&[], late));
    let word = |version| Said {
        at: late,
        ..said(1, version)
    };
    assert!(at(&[word(2)], late), "of an older one");
    assert!(!at(&[word(3)], late));
    assert!(
        !judge(&three, &[], 0, false, (NOW, late)).stale,
        "nobody can"
    );
}
