//! Proof files: what is written verifies. Who counts as a witness is in `quorum`, what a
//! forger can sign itself and a change of any field in `refused`, what a replaced identity
//! key signs in `replaced`, what a revoked feed key signs in `revoked`.

mod nodes;
mod quorum;
mod refused;
pub(crate) mod replaced;
pub(crate) mod revoked;

use super::*;
use crate::card::NodeCard;
use crate::card::tests::{Keys, card};
use crate::checkpoint::{Checkpoint, Origin};
use crate::envelope::Envelope;
use crate::hostile::{absent, message, mutations};
use crate::keys::{Feed, Identity, SecretKey};
use crate::leaf::{
    Basis, DESCRIBE, Describe, ERASE, Erase, FeedKind, Grant, Grantee, IndexRange, MediaKind,
    PUBLISH, RETRACT, Retract, Source, Terms,
};
use crate::merkle::{CompactRange, NodeId, proof::inclusion_proof};
use crate::note::SignatureLine;
use crate::roster::tests::{NOW, change, code, newcomer, number, slug, with_members};
use crate::roster::{Revocation, Role, RosterChain};
use crate::signal::Signal;
use crate::{checkpoint, standing};

/// The entry that proofs are about: its first version.
pub(crate) const ENTRY: u64 = 2;
const SIZE: u64 = 9;

fn witness(n: u8) -> SecretKey<Witness> {
    SecretKey::from_seed(&[60 + n; 32])
}

/// North publishes, south reads, four others are witnesses, of whom three decide.
fn coalition() -> RosterChain {
    let mut chain = with_members();
    let accepted = change(&mut chain, |r| {
        for n in 0..4 {
            let mut one = newcomer(&format!("w{n}"), 110 + n);
            one.roles = vec![Role::Witness];
            r.admit(one).unwrap();
        }
        r.witness_threshold = 3;
    });
    accepted.unwrap();
    chain
}

/// A card of a witness.
fn witness_card(chain: &RosterChain, n: u8) -> Envelope {
    let keys = Keys::of(20 + n);
    let mut card = card(chain, &format!("w{n}"), 1, &keys);
    card.nodes[0].witness_keys = vec![witness(n).public()];
    signed(&card, 110 + n, &keys, Some(&witness(n)))
}

fn signed(
    card: &NodeCard,
    identity: u8,
    keys: &Keys,
    witness: Option<&SecretKey<Witness>>,
) -> Envelope {
    let mut draft = card.to_envelope().unwrap();
    keys.sign(&mut draft);
    draft.sign(&SecretKey::<Identity>::from_seed(&[identity; 32]));
    if let Some(witness) = witness {
        draft.sign(witness);
    }
    draft.finish().unwrap()
}

pub(crate) fn publisher_card(chain: &RosterChain) -> Envelope {
    let keys = Keys::of(11);
    signed(&card(chain, "north", 3, &keys), 101, &keys, None)
}

pub(crate) fn describe(chain: &RosterChain) -> Describe {
    Describe {
        genesis: chain.genesis(),
        feed_kind: FeedKind::HashSet,
        name: "north/confirmed".parse_name(),
        title: "Confirmed".to_owned(),
        grants: vec![Grant {
            grantee: Grantee::All,
            relay: false,
        }],
        terms: Terms {
            source: Source::OwnWork,
            may_share: true,
            text: String::new(),
        },
        classification_scheme: Some(slug("tc")),
        created: NOW,
        identity_signature: None,
    }
}

trait ParseName {
    fn parse_name(&self) -> crate::id::SetName;
}

impl ParseName for str {
    fn parse_name(&self) -> crate::id::SetName {
        crate::id::SetName::parse(self).unwrap()
    }
}

fn publish(n: u8, replaces: &[u64]) -> RawLeaf {
    let said = Publish {
        media_kind: MediaKind::Image,
        signals: vec![
            Signal::parse_spec(&format!("SHA256:{}", format!("{n:02x}").repeat(32))).unwrap(),
        ],
        classification: Some(crate::leaf::Classification::parse("A1").unwrap()),
        labels: vec!["synthetic".to_owned()],
        basis: Basis::Human,
        source_reference: format!("case-{n}"),
        first_seen: Some(NOW),
        expires: None,
        replaces: replaces.to_vec(),
        published: NOW.plus(u64::from(n)),
    };
    RawLeaf::new(PUBLISH, said.encode([n; 16]).unwrap())
}

/// The leaves of a feed in which entry 2 is replaced by 4, then both are withdrawn and
/// erased.
fn leaves(chain: &RosterChain) -> (FeedId, Vec<RawLeaf>) {
    let mut said = describe(chain);
    let first = said.encode([1; 16]).unwrap();
    let feed = FeedId::derive(&chain.genesis(), &slug("north"), &first);
    said.title = "Confirmed by two".to_owned();
    let ranges = || [2, 4].map(|first| IndexRange { first, count: 1 }).to_vec();
    let mut retract = Retract {
        indexes: ranges(),
        reason: RetractReason::Wrong,
        note: "taken in by mistake".to_owned(),
        recheck: true,
        created: NOW.plus(70),
        identity_signature: None,
    };
    let key = SecretKey::<Identity>::from_seed(&[101; 32]);
    let bytes = standing::retraction_signing_bytes(&feed, &retract);
    retract.identity_signature = Some(key.sign(&bytes));
    let erase = Erase {
        indexes: ranges(),
        legal_basis: "an order".to_owned(),
        created: NOW.plus(80),
    };
    let leaves = vec![
        RawLeaf::new(DESCRIBE, first),
        publish(1, &[]),
        publish(2, &[]),
        publish(3, &[]),
        publish(4, &[2]),
        RawLeaf::new(DESCRIBE, said.encode([5; 16]).unwrap()),
        publish(6, &[]),
        RawLeaf::new(RETRACT, retract.encode([7; 16]).unwrap()),
        RawLeaf::new(ERASE, erase.encode([8; 16]).unwrap()),
    ];
    (feed, leaves)
}

pub(crate) fn range(leaves: &[RawLeaf]) -> CompactRange {
    let mut range = CompactRange::empty(0);
    range.extend(leaves.iter().map(RawLeaf::hash));
    range
}

pub(crate) fn note(
    chain: &RosterChain,
    feed: FeedId,
    size: u64,
    root: Digest,
) -> (Checkpoint, Bytes) {
    let checkpoint = Checkpoint {
        origin: Origin {
            coalition: chain.roster().coalition.clone(),
            feed,
            epoch: chain.roster().epoch(feed),
        },
        size,
        root,
    };
    let note = checkpoint::sign(&checkpoint, &Keys::of(11).feed);
    (checkpoint, note.into())
}

fn proved(leaves: &[RawLeaf], index: u64, size: u64) -> ProofLeaf {
    let at = |index: u64| usize::try_from(index).unwrap();
    let node = |node: NodeId| {
        let mut range = CompactRange::empty(node.begin());
        range.extend(
            leaves[at(node.begin())..at(node.end())]
                .iter()
                .map(RawLeaf::hash),
        );
        Ok::<_, ()>(range.hashes()[0])
    };
    ProofLeaf {
        index,
        leaf: leaves[at(index)].clone(),
        inclusion: inclusion_proof(index, size, node).unwrap().unwrap(),
    }
}

/// The cosignature of a witness.
fn line(checkpoint: &Checkpoint, n: u8, time_s: u64) -> Bytes {
    let name = checkpoint::witness_name(&checkpoint.origin.coalition, &slug(&format!("w{n}")));
    checkpoint::cosign(&checkpoint.body(), &name, &witness(n), time_s).into()
}

/// A proof of a leaf below the first `size`, with cosignatures of these witnesses.
pub(crate) fn proof_at(
    index: u64,
    size: u64,
    named_by: &[u64],
    witnesses: &[u8],
) -> (Digest, Proof) {
    let chain = coalition();
    let (feed, leaves) = leaves(&chain);
    proof_of(&chain, feed, &leaves, (index, size, named_by, witnesses))
}

fn proof_of(
    chain: &RosterChain,
    feed: FeedId,
    leaves: &[RawLeaf],
    (index, size, named_by, witnesses): (u64, u64, &[u64], &[u8]),
) -> (Digest, Proof) {
    let held = &leaves[..usize::try_from(size).unwrap()];
    let (checkpoint, note) = note(chain, feed, size, range(held).root().unwrap());
    let line = |n: &u8| line(&checkpoint, *n, NOW.0 / 1_000 + 60);
    let describe_index = if size > 5 { 5 } else { 0 };
    let wanted = Proof::wanted(index, describe_index, named_by);
    let cards = std::iter::once(publisher_card(chain))
        .chain(witnesses.iter().map(|n| witness_card(chain, *n)));
    let proof = Proof {
        feed,
        index,
        roster_version: chain.version(),
        rosters: chain
            .from_version(1)
            .map(|v| v.as_bytes().clone())
            .collect(),
        node_cards: cards.map(|card| card.as_bytes().clone()).collect(),
        note,
        cosignatures: witnesses.iter().map(line).collect(),
        describe_index,
        named_by: named_by.to_vec(),
        leaves: wanted
            .into_iter()
            .map(|index| proved(leaves, index, size))
            .collect(),
    };
    (chain.genesis(), proof)
}

/// Everything there is: replaced, withdrawn, erased, cosigned by three of four.
pub(crate) fn sample() -> (Digest, Proof) {
    proof_at(ENTRY, SIZE, &[4, 7, 8], &[0, 1, 2])
}

fn verify(genesis: &Digest, body: Vec<u8>) -> Result<Proven, Rejection> {
    let proof = Proof::from_body(&body.into())?;
    proof
        .verify(genesis)
        .map(crate::verified::Verified::into_inner)
}

#[test]
fn a_proof_shows_who_published_what_and_at_which_head() {
    let (genesis, proof) = proof_at(ENTRY, 4, &[], &[]);
    let file = Bytes::from(proof.encode().unwrap());
    let read = Proof::decode(&file).unwrap();
    assert_eq!(read, proof);
    let proven = read.verify(&genesis).unwrap();
    assert_eq!(proven.entry.to_string(), "north/confirmed#2");
    assert_eq!(
        (proven.publisher.number, proven.publisher.card_version),
        (number(1), 3)
    );
    assert_eq!(proven.publisher.node, slug("one"));
    assert_eq!(proven.head.size(), 4);
    assert_eq!(proven.state, Shown::Published);
    let said = proven.said.as_ref().unwrap();
    assert_eq!(said.source_reference, "case-2");
    assert_eq!(proven.title, "Confirmed");
    let quorum = Quorum {
        roster_version: 3,
        witnesses: 4,
        cosigned: 0,
        threshold: 3,
    };
    assert_eq!(proven.quorum, quorum);
    assert!(!proven.quorum.is_reached());
}

#[test]
fn what_withdraws_an_entry_stands_in_its_proof() {
    let (genesis, proof) = sample();
    let proven = proof.verify(&genesis).unwrap();
    assert_eq!(proven.state, Shown::Erased);
    assert_eq!(
        proven.title, "Confirmed by two",
        "the describe leaf in force"
    );
    let how: Vec<_> = proven
        .named_by
        .iter()
        .map(|naming| (naming.index, &naming.how))
        .collect();
    let retracts = How::Retracts {
        reason: RetractReason::Wrong,
        note: "taken in by mistake".to_owned(),
        recheck: true,
        identity_signed: true,
    };
    let erases = How::Erases {
        legal_basis: "an order".to_owned(),
    };
    assert_eq!(how, [(4, &How::Replaces), (7, &retracts), (8, &erases)]);
    let states = [
        (5, &[4][..], Shown::Replaced),
        (8, &[4, 7], Shown::Retracted),
    ];
    for (size, named_by, state) in states {
        let (genesis, proof) = proof_at(ENTRY, size, named_by, &[]);
        assert_eq!(proof.verify(&genesis).unwrap().state, state);
    }
    // The later version is an entry's version as well, and named by its first.
    let (genesis, proof) = proof_at(4, 8, &[7], &[]);
    let proven = proof.verify(&genesis).unwrap();
    assert_eq!(proven.entry.first, 2);
    assert_eq!(proven.state, Shown::Retracted);
}

#[test]
fn an_erased_entry_is_proved_by_its_record_alone() {
    let (genesis, mut proof) = sample();
    let shown = proof
        .leaves
        .iter_mut()
        .find(|leaf| leaf.index == ENTRY)
        .unwrap();
    let digest = shown.leaf.payload_digest();
    shown.leaf = shown.leaf.elided();
    let proven = proof.verify(&genesis).unwrap();
    assert_eq!(proven.said, None);
    assert_eq!(proven.payload, digest);
}
