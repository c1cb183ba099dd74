//! Evidence files: what is written is read, and a change of any field is refused.

use proptest::prelude::*;

use super::*;
use crate::envelope::Envelope;
use crate::hostile::{absent, message, mutations};
use crate::leaf::PUBLISH;
use crate::merkle::CompactRange;
use crate::proof::tests::{describe, note, publisher_card, range};
use crate::roster::RosterChain;
use crate::roster::tests::{NOW, change, code, identity, next, number, signed, slug, with_members};

fn history(fork: u8, first: &Bytes, size: u8) -> Vec<RawLeaf> {
    let leaf = |n| {
        let fork = if n < 40 { 0 } else { fork };
        RawLeaf::new(PUBLISH, Bytes::copy_from_slice(&[n, fork]))
    };
    let first = RawLeaf::new(DESCRIBE, first.clone());
    std::iter::once(first).chain((1..size).map(leaf)).collect()
}

fn rosters(chain: &RosterChain) -> Vec<Bytes> {
    chain
        .from_version(1)
        .map(|v| v.as_bytes().clone())
        .collect()
}

/// 60 leaves of one history and 100 of another of north's set.
fn forked_at(m: u8, n: u8, shown: bool) -> (Digest, EvidenceFile) {
    let chain = with_members();
    let payload = describe(&chain).encode([1; 16]).unwrap();
    let feed = FeedId::derive(&chain.genesis(), &slug("north"), &payload);
    let (one, two) = (history(1, &payload, m), history(2, &payload, n));
    let root = |leaves: &[RawLeaf]| range(leaves).root().unwrap();
    let mut between = CompactRange::empty(u64::from(m));
    between.extend(two[usize::from(m)..].iter().map(RawLeaf::hash));
    let fork = ForkEvidence {
        feed,
        smaller: note(&chain, feed, u64::from(m), root(&one)).1,
        larger: note(&chain, feed, u64::from(n), root(&two)).1,
        before: range(&two[..usize::from(m)]).hashes().to_vec(),
        between: between.hashes().to_vec(),
        node_cards: vec![publisher_card(&chain).as_bytes().clone()],
    };
    let file = EvidenceFile {
        roster_version: chain.version(),
        rosters: rosters(&chain),
        evidence: Evidence::Fork {
            fork,
            first_payload: shown.then_some(payload),
        },
    };
    (chain.genesis(), file)
}

pub(crate) fn forked() -> (Digest, EvidenceFile) {
    forked_at(60, 100, true)
}

pub(crate) fn two_rosters() -> (Digest, EvidenceFile) {
    let chain = with_members();
    let roster = |days: u64| {
        let roster = next(&chain, |r| {
            r.expires = NOW.plus(days * crate::limits::DAY_MS);
        });
        signed(&roster, &[1, 2])
    };
    let file = EvidenceFile {
        roster_version: chain.version(),
        rosters: rosters(&chain),
        evidence: Evidence::Documents(DocumentEvidence::new(roster(100), roster(200))),
    };
    (chain.genesis(), file)
}

pub(crate) fn two_cards() -> (Digest, EvidenceFile) {
    use crate::card::tests::{Keys, card, signed};
    let chain = with_members();
    let keys = Keys::of(11);
    let card = |phone: &str| -> Envelope {
        let mut card = card(&chain, "north", 3, &keys);
        card.contact.phone = phone.to_owned();
        signed(&card, 101, &[&keys])
    };
    let evidence = DocumentEvidence::new(card("+1 555 0100"), card("+1 555 0199"));
    let file = EvidenceFile {
        roster_version: chain.version(),
        rosters: rosters(&chain),
        evidence: Evidence::Documents(evidence),
    };
    (chain.genesis(), file)
}

/// The same under a roster that replaced north's identity key.
pub(crate) fn rotated((_, mut file): (Digest, EvidenceFile)) -> (Digest, EvidenceFile) {
    let mut chain = with_members();
    let accepted = change(&mut chain, |roster| {
        roster.rotate_identity(number(1), identity(111)).unwrap();
    });
    accepted.unwrap();
    (file.roster_version, file.rosters) = (chain.version(), rosters(&chain));
    (chain.genesis(), file)
}

/// The same under a roster that closed its epoch at so many leaves.
fn closed_at(
    (_, mut file): (Digest, EvidenceFile),
    key: PublicKey<Feed>,
    (size, root): (u64, Digest),
) -> (Digest, EvidenceFile) {
    let mut chain = with_members();
    let mut feed = None;
    change_fork(&mut file, |fork| feed = Some(fork.feed));
    let accepted = change(&mut chain, |roster| {
        roster.revoke_feed_key(feed.unwrap(), key, size, root);
    });
    accepted.unwrap();
    (file.roster_version, file.rosters) = (chain.version(), rosters(&chain));
    (chain.genesis(), file)
}

/// A fork by a key that a roster revoked, beyond both heads.
pub(crate) fn by_a_revoked_key() -> (Digest, EvidenceFile) {
    closed_at(forked(), own_key(), (200, Digest::of(b"what went on")))
}

fn own_key() -> PublicKey<Feed> {
    crate::card::tests::Keys::of(11).feed.public()
}

fn verify(genesis: &Digest, body: Vec<u8>) -> Result<Guilt, Rejection> {
    let file = EvidenceFile::from_body(&body.into())?;
    file.verify(genesis).map(Verified::into_inner)
}

fn change_fork(file: &mut EvidenceFile, how: impl FnOnce(&mut ForkEvidence)) {
    match &mut file.evidence {
        Evidence::Fork { fork, .. } => how(fork),
        Evidence::Documents(_) => unreachable!("a fork"),
    }
}

#[test]
fn evidence_of_a_fork_names_the_member_and_both_heads() {
    for (m, n) in [(60, 100), (41, 41), (100, 101)] {
        let (genesis, file) = forked_at(m, n, true);
        let read = EvidenceFile::decode(&file.encode().into()).unwrap();
        assert_eq!(read, file);
        let guilt = read.verify(&genesis).unwrap();
        let ProvenEvidence::Fork {
            member, set, fork, ..
        } = &guilt.proven
        else {
            panic!("{guilt:?}");
        };
        assert_eq!(*member, number(1));
        assert_eq!(set.as_ref().unwrap().to_string(), "north/confirmed");
        assert_eq!(
            (fork.smaller.size(), fork.larger.size()),
            (u64::from(m), u64::from(n))
        );
    }
    // Without leaf 0 it says whose keys they are, and names no set.
    let (genesis, file) = forked_at(60, 100, false);
    let guilt = file.verify(&genesis).unwrap();
    assert!(matches!(
        guilt.proven,
        ProvenEvidence::Fork { set: None, .. }
    ));
}

#[test]
fn evidence_of_two_documents_names_who_signed_both() {
    let (genesis, file) = two_rosters();
    let proven = file.verify(&genesis).unwrap().into_inner().proven;
    assert_eq!(proven, ProvenEvidence::Rosters { version: 3 });
    let (genesis, file) = two_cards();
    let proven = file.verify(&genesis).unwrap().into_inner().proven;
    let expected = ProvenEvidence::NodeCards {
        member: number(1),
        slug: slug("north"),
        version: 3,
        replaced_in: None,
    };
    assert_eq!(proven, expected);
}

// ⚠ PROTOCOL 14.14: whoever finds a replaced identity key can make such a file.
#[test]
fn evidence_by_a_replaced_identity_key_says_which_roster_replaced_it() {
    let replaced = |proven: ProvenEvidence| match proven {
        ProvenEvidence::Fork { replaced_in, .. }
        | ProvenEvidence::NodeCards { replaced_in, .. } => replaced_in,
        ProvenEvidence::Rosters { .. } => unreachable!("of a member"),
    };
    for before in [forked(), two_cards()] {
        let proven = before.1.verify(&before.0).unwrap().into_inner().proven;
        assert_eq!(replaced(proven), None);
        let (genesis, file) = rotated(before);
        let read = EvidenceFile::decode(&file.encode().into()).unwrap();
        let after = read.verify(&genesis).unwrap().into_inner().proven;
        assert_eq!(replaced(after), Some(3));
    }
}

// ⚠ PROTOCOL 14.14: whoever finds a revoked feed key can make such a file, below the size
// at which the epoch was closed.
#[test]
fn evidence_by_a_revoked_feed_key_says_which_roster_revoked_it() {
    let doubt = |(genesis, file): (Digest, EvidenceFile)| {
        let read = EvidenceFile::decode(&file.encode().into()).unwrap();
        let proven = read.verify(&genesis).unwrap().into_inner().proven;
        let ProvenEvidence::Fork { doubt, fork, .. } = proven else {
            unreachable!("a fork");
        };
        (doubt.key_revoked_in, doubt.epoch_closed_in, fork)
    };
    let (revoked, closed, fork) = doubt(forked());
    assert_eq!((revoked, closed), (None, None));
    let (revoked, closed, _) = doubt(by_a_revoked_key());
    assert_eq!((revoked, closed), (Some(3), Some(3)));
    // Another key of the member: closed, and signed by its owner.
    let other = crate::card::tests::Keys::of(66).feed.public();
    let beyond = (200, Digest::of(b"what went on"));
    let (revoked, closed, _) = doubt(closed_at(forked(), other, beyond));
    assert_eq!((revoked, closed), (None, Some(3)));
    // Of one head the roster says that it stands: the other may be anybody's.
    let good = (100, fork.larger.root());
    let (revoked, closed, _) = doubt(closed_at(forked(), own_key(), good));
    assert_eq!((revoked, closed), (Some(3), Some(3)));
}

#[test]
fn evidence_of_an_epoch_that_no_roster_in_the_file_opened_shows_nothing() {
    let mut later = with_members();
    let (genesis, mut file) = forked();
    change_fork(&mut file, |fork| {
        let opened = change(&mut later, |roster| {
            let other = crate::card::tests::Keys::of(66).feed.public();
            roster.revoke_feed_key(fork.feed, other, 1, Digest::of(b"leaf 0"));
        });
        opened.unwrap();
        for told in [&mut fork.smaller, &mut fork.larger] {
            let text = crate::note::Note::parse(told).unwrap().text;
            let body = crate::checkpoint::Checkpoint::parse_body(&text).unwrap();
            *told = note(&later, fork.feed, body.size, body.root).1;
        }
    });
    assert_eq!(code(file.verify(&genesis)), "wrong_epoch");
    (file.roster_version, file.rosters) = (later.version(), rosters(&later));
    assert_eq!(code(file.verify(&genesis)), "accepted");
}

#[test]
fn histories_that_agree_and_proofs_that_lead_nowhere_blame_nobody() {
    let (genesis, file) = forked_at(30, 35, true);
    assert_eq!(code(file.verify(&genesis)), "invalid", "the two agree");
    let (genesis, mut file) = forked();
    change_fork(&mut file, |fork| fork.between[0] = Digest::of(b"made up"));
    assert_eq!(code(file.verify(&genesis)), "wrong_root");
    let (genesis, mut file) = forked();
    change_fork(&mut file, |fork| fork.between.push(Digest::of(b"one more")));
    assert_eq!(code(file.verify(&genesis)), "proof_length");
    let (genesis, mut file) = forked();
    change_fork(&mut file, |fork| {
        std::mem::swap(&mut fork.smaller, &mut fork.larger);
    });
    assert_eq!(code(file.verify(&genesis)), "invalid");
}

#[test]
fn a_payload_of_another_feed_or_a_card_of_another_member_is_refused() {
    let (genesis, mut file) = forked();
    let chain = with_members();
    if let Evidence::Fork { first_payload, .. } = &mut file.evidence {
        *first_payload = Some(describe(&chain).encode([2; 16]).unwrap());
    }
    assert_eq!(code(file.verify(&genesis)), "wrong_first_leaf");
    let (genesis, mut file) = forked();
    change_fork(&mut file, |fork| fork.node_cards.clear());
    assert_eq!(code(file.verify(&genesis)), "invalid");
    let other = {
        use crate::card::tests::{Keys, card, signed};
        let keys = Keys::of(12);
        signed(&card(&chain, "south", 1, &keys), 102, &[&keys])
    };
    let (genesis, mut file) = forked();
    change_fork(&mut file, |fork| {
        fork.node_cards.push(other.as_bytes().clone());
    });
    assert_eq!(code(file.verify(&genesis)), "invalid");
}

#[test]
fn every_field_of_an_evidence_file_is_protected() {
    let descriptor = message("core.v1.EvidenceFile");
    let mut left_out = Vec::new();
    for (genesis, file) in [forked(), two_rosters(), two_cards()] {
        let body = file.to_wire().encode_to_vec();
        left_out.push(absent(&descriptor, &body));
        verify(&genesis, body.clone()).unwrap();
        let mut refused = std::collections::BTreeSet::new();
        for change in mutations(&descriptor, &body) {
            // It stands for who the feed is of, and a file may be without it.
            if change.what.contains("first_payload") && change.what.contains("removed") {
                continue;
            }
            let rejection = verify(&genesis, change.bytes).expect_err(&change.what);
            refused.insert(rejection.code());
        }
        assert!(refused.len() > 3, "{refused:?}");
    }
    // Together the samples have every field.
    let everywhere = |name: &&String| left_out.iter().all(|left| left.contains(name));
    assert_eq!(left_out[0].iter().find(everywhere), None);
}

/// The evidence within: as nodes tell it, so that no change of it is taken either.
#[test]
fn every_field_of_the_fork_in_a_file_is_protected() {
    let (genesis, file) = forked();
    let Evidence::Fork { fork, .. } = &file.evidence else {
        unreachable!("a fork");
    };
    let changed = mutations(&message("core.v1.ForkEvidence"), &fork.encode());
    assert!(changed.len() > 80, "{}", changed.len());
    for change in changed {
        let mut message = file.to_wire();
        message.fork = change.bytes.into();
        let verdict = verify(&genesis, message.encode_to_vec());
        verdict.expect_err(&change.what);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        let _ = EvidenceFile::decode(&bytes);
        let _ = EvidenceFile::from_body(&bytes);
    }
}
