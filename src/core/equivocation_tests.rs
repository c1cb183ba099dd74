//! Two documents of one version, and who is to blame.

use super::*;
use crate::card::tests as cards;
use crate::roster::tests as rosters;

fn two_rosters() -> (RosterChain, DocumentEvidence) {
    let chain = rosters::founded();
    let roster = |name: &str, seed| {
        let next = rosters::next(&chain, |roster| {
            roster.admit(rosters::newcomer(name, seed)).unwrap();
        });
        rosters::signed(&next, &[1, 2])
    };
    let evidence = DocumentEvidence::new(roster("north", 40), roster("south", 41));
    (chain, evidence)
}

fn two_cards() -> (RosterChain, DocumentEvidence) {
    let chain = rosters::with_members();
    let keys = cards::Keys::of(11);
    let card = |contact: &str| {
        let mut card = cards::card(&chain, "north", 3, &keys);
        contact.clone_into(&mut card.contact.name);
        cards::signed(&card, 101, &[&keys])
    };
    let evidence = DocumentEvidence::new(card("one"), card("other"));
    (chain, evidence)
}

fn code<T>(result: Result<T, Rejection>) -> Option<&'static str> {
    result.err().map(|rejection| rejection.code())
}

#[test]
fn two_approved_rosters_of_one_version_are_proof_for_anybody() {
    let (chain, evidence) = two_rosters();
    let decoded = DocumentEvidence::decode(&evidence.encode().into()).unwrap();
    assert_eq!(decoded, evidence);
    let proven = decoded.verify(&chain).unwrap();
    assert_eq!(*proven, Equivocation::Roster { version: 2 });
}

#[test]
fn two_cards_of_one_version_are_proof_for_anybody() {
    let (chain, evidence) = two_cards();
    let decoded = DocumentEvidence::decode(&evidence.encode().into()).unwrap();
    let proven = decoded.verify(&chain).unwrap();
    let Equivocation::NodeCard { version: 3, .. } = *proven else {
        panic!("two cards of version 3")
    };
}

// ⚠ Whoever finds a key that was replaced signs what it likes, for ever.
#[test]
fn two_cards_of_a_replaced_identity_key_are_closed_and_take_no_place_of_the_present_ones() {
    let (mut chain, evidence) = two_cards();
    let before = evidence.verify(&chain).unwrap();
    assert!(!before.is_closed());
    let rotated = rosters::change(&mut chain, |roster| {
        let key = rosters::identity(111);
        roster.rotate_identity(rosters::number(1), key).unwrap();
    });
    rotated.unwrap();
    let version = chain.version();
    let closed = evidence.verify(&chain).unwrap();
    let Equivocation::NodeCard { replaced_in, .. } = *closed else {
        panic!("two cards")
    };
    assert_eq!(replaced_in, Some(version));
    assert!(closed.is_closed());
    assert_ne!(closed.subject(), before.subject());
    let keys = cards::Keys::of(12);
    let card = |contact: &str| {
        let mut card = cards::card(&chain, "north", 3, &keys);
        contact.clone_into(&mut card.contact.name);
        cards::signed(&card, 111, &[&keys])
    };
    let present = DocumentEvidence::new(card("one"), card("other"));
    let present = present.verify(&chain).unwrap();
    assert!(!present.is_closed());
    assert_eq!(present.subject(), before.subject());
}

#[test]
fn one_pair_has_one_encoding_whoever_met_which_first() {
    let (_, evidence) = two_cards();
    let turned = DocumentEvidence::new(evidence.second.clone(), evidence.first.clone());
    assert_eq!(turned.encode(), evidence.encode());
    let message = wire::DocumentEvidence {
        first: evidence.second.as_bytes().clone(),
        second: evidence.first.as_bytes().clone(),
    };
    let refused = DocumentEvidence::decode(&message.encode_to_vec().into());
    assert_eq!(code(refused), Some("invalid"));
}

#[test]
fn the_same_document_twice_is_no_evidence() {
    let (chain, evidence) = two_rosters();
    let same = DocumentEvidence::new(evidence.first.clone(), evidence.first.clone());
    assert_eq!(code(same.verify(&chain)), Some("invalid"));
    let decoded = DocumentEvidence::decode(&same.encode().into());
    assert_eq!(code(decoded), Some("invalid"));
}

#[test]
fn documents_that_would_not_have_been_accepted_blame_nobody() {
    let (chain, evidence) = two_rosters();
    let unapproved = rosters::next(&chain, |roster| {
        roster.admit(rosters::newcomer("west", 42)).unwrap();
    });
    let one_signature = rosters::signed(&unapproved, &[1]);
    let framed = DocumentEvidence::new(evidence.first.clone(), one_signature);
    assert_eq!(code(framed.verify(&chain)), Some("threshold_not_met"));
    let (chain, evidence) = two_cards();
    let keys = cards::Keys::of(11);
    let mut card = cards::card(&chain, "north", 4, &keys);
    card.contact.name = "later".to_owned();
    let later = cards::signed(&card, 101, &[&keys]);
    let apart = DocumentEvidence::new(evidence.first.clone(), later);
    assert_eq!(code(apart.verify(&chain)), Some("invalid"));
    let unsigned = cards::signed(&card, 102, &[&keys]);
    let framed = DocumentEvidence::new(evidence.first, unsigned);
    assert_eq!(code(framed.verify(&chain)), Some("bad_signature"));
}

#[test]
fn no_byte_of_the_evidence_can_be_changed() {
    for (chain, evidence) in [two_rosters(), two_cards()] {
        let good = evidence.encode();
        for at in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let verdict =
                DocumentEvidence::decode(&bad.into()).and_then(|bad| bad.verify(&chain).map(drop));
            assert!(verdict.is_err(), "byte {at}");
        }
    }
}

#[test]
fn evidence_is_bounded_before_it_is_decoded() {
    let large = Bytes::from(vec![0; DOCUMENT_EVIDENCE_MAX_BYTES + 1]);
    assert_eq!(code(DocumentEvidence::decode(&large)), Some("too_large"));
    let junk = Bytes::from_static(b"\xff");
    assert_eq!(code(DocumentEvidence::decode(&junk)), Some("malformed"));
    let empty = Bytes::new();
    assert!(DocumentEvidence::decode(&empty).is_err());
}
