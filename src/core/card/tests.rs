//! Node cards: what they hold, who must sign, what is refused.

use p256::ecdsa::signature::Signer as _;
use p256::pkcs8::EncodePublicKey as _;

use super::*;
use crate::id::FeedId;
use crate::keys::SecretKey;
use crate::limits::DAY_MS;
use crate::roster::tests::{NOW, change, code, identity, number, slug, with_members};
use crate::roster::{MemberStatus, Revocation, RosterChain};

/// The keys of one node, from one seed.
pub(crate) struct Keys {
    pub(crate) tls: p256::ecdsa::SigningKey,
    pub(crate) feed: SecretKey<Feed>,
    pub(crate) receipt: SecretKey<Receipt>,
}

impl Keys {
    pub(crate) fn of(seed: u8) -> Self {
        Self {
            tls: p256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap(),
            feed: SecretKey::from_seed(&[seed; 32]),
            receipt: SecretKey::from_seed(&[seed ^ 0x80; 32]),
        }
    }

    fn spki(&self) -> Vec<u8> {
        let key = self.tls.verifying_key().to_public_key_der();
        key.unwrap().into_vec()
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.spki())
    }

    pub(crate) fn sign(&self, draft: &mut EnvelopeDraft) {
        let proof: p256::ecdsa::DerSignature = self.tls.sign(&draft.to_sign());
        draft.add_tls(&self.spki(), proof.as_bytes()).unwrap();
        draft.sign(&self.feed).sign(&self.receipt);
    }
}

pub(crate) fn card(chain: &RosterChain, who: &str, version: u64, keys: &Keys) -> NodeCard {
    NodeCard {
        genesis: chain.genesis(),
        member: None,
        slug: slug(who),
        version,
        issued: NOW,
        expires: NOW.plus(90 * DAY_MS),
        nodes: vec![Node {
            name: slug("one"),
            endpoints: vec![Endpoint::parse("node.north.example:7443").unwrap()],
            tls_keys: vec![keys.digest()],
            feed_keys: vec![FeedKey {
                key: keys.feed.public(),
                sets: SetScope::Only(vec![slug("confirmed")]),
            }],
            witness_keys: Vec::new(),
            receipt_keys: vec![keys.receipt.public()],
        }],
        contact: Contact {
            name: "desk".to_owned(),
            email: "desk@north.example".to_owned(),
            phone: String::new(),
        },
    }
}

/// Signs with an identity key's seed and all of a node's keys.
pub(crate) fn signed(card: &NodeCard, signer: u8, keys: &[&Keys]) -> Envelope {
    let mut draft = card.to_envelope().unwrap();
    draft.sign(&SecretKey::<Identity>::from_seed(&[signer; 32]));
    for keys in keys {
        keys.sign(&mut draft);
    }
    draft.finish().unwrap()
}

/// Offers a card of north that is changed before it is signed.
fn offer(
    book: &mut CardBook,
    chain: &RosterChain,
    version: u64,
    how: impl FnOnce(&mut NodeCard),
) -> Result<CardAccepted, Rejection> {
    let keys = Keys::of(11);
    let mut card = card(chain, "north", version, &keys);
    how(&mut card);
    book.accept(signed(&card, 101, &[&keys]), chain, NOW)
}

fn refused_as(expected: &str, how: impl FnOnce(&mut NodeCard)) {
    let mut book = CardBook::default();
    assert_eq!(code(offer(&mut book, &with_members(), 1, how)), expected);
    assert_eq!(book.all().count(), 0, "nothing is kept");
}

#[test]
fn an_accepted_card_says_whose_a_tls_key_is() {
    let (chain, mut book) = (with_members(), CardBook::default());
    offer(&mut book, &chain, 1, |_| ()).unwrap();
    let owner = book.by_tls_key(&Keys::of(11).digest(), chain.roster(), NOW);
    let expected = KeyOwner {
        member: number(1),
        node: slug("one"),
        card: CardState::Current,
    };
    assert_eq!(owner, Some(expected));
    assert_eq!(
        book.by_tls_key(&Digest::of(b"x"), chain.roster(), NOW),
        None
    );
    assert_eq!(offer(&mut book, &chain, 1, |_| ()), Ok(CardAccepted::Known));
}

#[test]
fn every_key_on_a_card_must_prove_possession() {
    let chain = with_members();
    let (mine, other) = (Keys::of(11), Keys::of(12));
    let base = || card(&chain, "north", 1, &mine);
    let mut stolen_tls = base();
    stolen_tls.nodes[0].tls_keys.push(other.digest());
    let mut stolen_feed = base();
    stolen_feed.nodes[0].feed_keys[0].key = other.feed.public();
    let mut stolen_receipt = base();
    stolen_receipt.nodes[0]
        .receipt_keys
        .push(other.receipt.public());
    let mut stolen_witness = base();
    stolen_witness.nodes[0].witness_keys = vec![SecretKey::from_seed(&[40; 32]).public()];
    for card in [stolen_tls, stolen_feed, stolen_receipt, stolen_witness] {
        let envelope = signed(&card, 101, &[&mine]);
        let refused = CardBook::default().accept(envelope, &chain, NOW);
        assert_eq!(code(refused), "bad_signature");
    }
}

#[test]
fn a_card_needs_the_members_identity_key() {
    let (chain, keys) = (with_members(), Keys::of(11));
    let card = card(&chain, "north", 1, &keys);
    for signer in [102, 1, 55] {
        let refused = CardBook::default().accept(signed(&card, signer, &[&keys]), &chain, NOW);
        assert_eq!(code(refused), "bad_signature");
    }
}

#[test]
fn a_card_of_another_coalition_or_member_is_refused() {
    refused_as("wrong_genesis", |c| c.genesis = Digest::of(b"other"));
    refused_as("unknown", |c| c.slug = slug("nobody"));
    refused_as("invalid", |c| c.member = Some(number(2)));
    refused_as("bad_signature", |c| c.slug = slug("south"));
}

#[test]
fn a_card_outside_its_time_is_refused() {
    refused_as("expired", |c| {
        c.issued = UnixMillis(NOW.0 - 100 * DAY_MS);
        c.expires = UnixMillis(NOW.0 - DAY_MS);
    });
    refused_as("from_the_future", |c| c.issued = NOW.plus(DAY_MS));
    let keys = Keys::of(11);
    let mut long = card(&with_members(), "north", 1, &keys);
    long.expires = NOW.plus(401 * DAY_MS);
    assert_eq!(code(long.encode()), "invalid");
}

#[test]
fn a_card_that_breaks_a_rule_by_itself_cannot_be_made() {
    let (chain, keys) = (with_members(), Keys::of(11));
    let broken = |how: fn(&mut NodeCard)| {
        let mut card = card(&chain, "north", 1, &keys);
        how(&mut card);
        card.encode().is_err()
    };
    assert!(broken(|c| c.version = 0));
    assert!(broken(|c| c.nodes.clear()));
    assert!(broken(|c| c.nodes.push(c.nodes[0].clone())));
    assert!(broken(|c| c.nodes[0].tls_keys.clear()));
    assert!(broken(
        |c| c.nodes[0].tls_keys = (0..5_u8).map(|i| Digest([i; 32])).collect()
    ));
    assert!(broken(|c| {
        let twice = c.nodes[0].tls_keys[0];
        c.nodes[0].tls_keys.push(twice);
    }));
    assert!(broken(|c| {
        let key = *c.nodes[0].feed_keys[0].key.as_bytes();
        c.nodes[0]
            .receipt_keys
            .push(PublicKey::from_slice(&key).unwrap());
    }));
    assert!(broken(|c| c.contact.email.clear()));
}

#[test]
fn a_card_that_goes_back_is_refused_and_gaps_are_allowed() {
    let (chain, mut book) = (with_members(), CardBook::default());
    offer(&mut book, &chain, 5, |_| ()).unwrap();
    assert_eq!(code(offer(&mut book, &chain, 4, |_| ())), "version_gap");
    offer(&mut book, &chain, 9, |_| ()).unwrap();
    assert_eq!(book.all().count(), 2, "old cards are kept");
}

#[test]
fn two_cards_of_one_version_leave_evidence_and_the_first_stays() {
    let (chain, mut book) = (with_members(), CardBook::default());
    offer(&mut book, &chain, 5, |_| ()).unwrap();
    let first = book.newest(number(1)).unwrap().digest();
    let twin = offer(&mut book, &chain, 5, |c| c.contact.name = "x".to_owned());
    assert_eq!(code(twin), "equivocation");
    assert_eq!(book.newest(number(1)).unwrap().digest(), first);
    assert_eq!(book.evidence().len(), 1);
    assert_eq!(book.evidence()[0].held.payload_digest(), first);
}

#[test]
fn evidence_of_a_replaced_key_keeps_none_of_the_present_one_out() {
    let (mut chain, mut book) = (with_members(), CardBook::default());
    offer(&mut book, &chain, 5, |_| ()).unwrap();
    let twin = offer(&mut book, &chain, 5, |c| c.contact.name = "x".to_owned());
    assert_eq!(code(twin), "equivocation");
    let rotated = change(&mut chain, |roster| {
        roster.rotate_identity(number(1), identity(111)).unwrap();
    });
    rotated.unwrap();
    let keys = Keys::of(11);
    let mut offer = |name: &str| {
        let mut card = card(&chain, "north", 5, &keys);
        name.clone_into(&mut card.contact.name);
        book.accept(signed(&card, 111, &[&keys]), &chain, NOW)
    };
    offer("y").unwrap();
    assert_eq!(code(offer("z")), "equivocation");
    assert_eq!(code(offer("w")), "equivocation");
    assert_eq!(book.evidence().len(), 2, "one a key");
}

#[test]
fn a_key_that_two_members_claim_is_refused() {
    let (chain, mut book) = (with_members(), CardBook::default());
    offer(&mut book, &chain, 1, |_| ()).unwrap();
    let keys = Keys::of(11);
    let card = card(&chain, "south", 1, &keys);
    let refused = book.accept(signed(&card, 102, &[&keys]), &chain, NOW);
    assert_eq!(code(refused), "invalid");
    assert!(book.newest(number(2)).is_none());
}

#[test]
fn a_key_of_the_roster_on_a_card_is_refused() {
    let (chain, keys) = (with_members(), Keys::of(11));
    let admin = SecretKey::<Feed>::from_seed(&[1; 32]);
    let mut card = card(&chain, "north", 1, &keys);
    card.nodes[0].feed_keys[0].key = admin.public();
    let mut draft = card.to_envelope().unwrap();
    draft
        .sign(&admin)
        .sign(&SecretKey::<Identity>::from_seed(&[101; 32]));
    keys.sign(&mut draft);
    let refused = CardBook::default().accept(draft.finish().unwrap(), &chain, NOW);
    assert_eq!(code(refused), "invalid");
}

#[test]
fn a_local_endpoint_is_refused_unless_allowed() {
    let local = |c: &mut NodeCard| {
        c.nodes[0].endpoints = vec![Endpoint::parse("169.254.169.254:80").unwrap()];
    };
    refused_as("invalid", local);
    let mut book = CardBook::new(EndpointPolicy::AllowLocal);
    assert!(offer(&mut book, &with_members(), 1, local).is_ok());
}

#[test]
fn keys_rotate_by_a_new_card_and_old_ones_stay_for_proofs() {
    let (chain, mut book) = (with_members(), CardBook::default());
    offer(&mut book, &chain, 1, |_| ()).unwrap();
    let (old, new) = (Keys::of(11), Keys::of(12));
    let second = card(&chain, "north", 2, &new);
    book.accept(signed(&second, 101, &[&new]), &chain, NOW)
        .unwrap();
    let roster = chain.roster();
    assert_eq!(book.by_tls_key(&old.digest(), roster, NOW), None);
    assert!(book.by_tls_key(&new.digest(), roster, NOW).is_some());
    let feed = FeedId(Digest::of(b"feed"));
    let set = slug("confirmed");
    let now = book.current_feed_keys(number(1), &set, feed, 0, (roster, NOW));
    assert_eq!(now, [new.feed.public()]);
    assert_eq!(book.feed_keys(number(1), &set, feed, 0, roster).len(), 2);
    assert!(
        book.feed_keys(number(1), &slug("other"), feed, 0, roster)
            .is_empty()
    );
}

#[test]
fn of_a_members_nodes_the_first_with_witness_keys_cosigns_and_every_key_it_ever_had_is_its_own() {
    let witness = |seed: u8| SecretKey::<Witness>::from_seed(&[seed; 32]);
    let (chain, keys) = (with_members(), [Keys::of(11), Keys::of(12), Keys::of(13)]);
    let of = |version, seeds: [&[u8]; 3]| {
        let mut made = card(&chain, "north", version, &keys[0]);
        for (place, name) in [(1, "two"), (2, "three")] {
            let mut node = card(&chain, "north", version, &keys[place]).nodes.remove(0);
            node.name = slug(name);
            made.nodes.push(node);
        }
        for (node, seeds) in made.nodes.iter_mut().zip(seeds) {
            node.witness_keys = seeds.iter().map(|seed| witness(*seed).public()).collect();
        }
        let mut draft = made.to_envelope().unwrap();
        draft.sign(&SecretKey::<Identity>::from_seed(&[101; 32]));
        for keys in &keys {
            keys.sign(&mut draft);
        }
        for seed in seeds.concat() {
            draft.sign(&witness(seed));
        }
        draft.finish().unwrap()
    };
    let public = |seeds: &[u8]| -> Vec<_> { seeds.iter().map(|s| witness(*s).public()).collect() };
    let mut book = CardBook::default();
    let counted = |book: &CardBook| {
        book.newest(number(1))
            .unwrap()
            .card()
            .witness_keys()
            .to_vec()
    };
    let mut version = 0;
    let mut counts = |seeds: [&[u8]; 3], expected: &[u8]| {
        version += 1;
        book.accept(of(version, seeds), &chain, NOW).unwrap();
        assert_eq!(counted(&book), public(expected));
    };
    counts([&[], &[], &[]], &[]);
    counts([&[], &[40], &[41]], &[40]);
    counts([&[], &[40, 42], &[41]], &[40, 42]);
    counts([&[], &[], &[41]], &[41]);
    let ever: std::collections::BTreeSet<_> = book.witness_keys_ever(number(1)).collect();
    assert_eq!(ever, public(&[40, 41, 42]).iter().collect());
    assert_eq!(book.witness_keys_ever(number(2)).count(), 0);
}

#[test]
fn a_revoked_feed_key_signs_no_later_epoch() {
    let (mut chain, mut book) = (with_members(), CardBook::default());
    offer(&mut book, &chain, 1, |_| ()).unwrap();
    let feed = FeedId(Digest::of(b"feed"));
    let revocation = Revocation {
        feed,
        key: Keys::of(11).feed.public(),
        last_good_size: 3,
        last_good_root: Digest::of(b"root"),
        next_epoch: 1,
    };
    change(&mut chain, |r| r.revocations.push(revocation)).unwrap();
    let keys = |epoch| {
        book.current_feed_keys(
            number(1),
            &slug("confirmed"),
            feed,
            epoch,
            (chain.roster(), NOW),
        )
    };
    assert_eq!(keys(0).len(), 1);
    assert!(keys(1).is_empty());
}

#[test]
fn a_thief_of_an_identity_key_binds_nobody_after_its_rotation() {
    let (mut chain, mut book) = (with_members(), CardBook::default());
    offer(&mut book, &chain, u64::MAX, |_| ()).unwrap();
    change(&mut chain, |r| {
        r.rotate_identity(number(1), identity(111)).unwrap();
    })
    .unwrap();
    let owner = book.by_tls_key(&Keys::of(11).digest(), chain.roster(), NOW);
    assert_eq!(owner.map(|o| o.card), Some(CardState::FormerIdentity));
    assert_eq!(code(offer(&mut book, &chain, 1, |_| ())), "bad_signature");
    let keys = Keys::of(12);
    let card = card(&chain, "north", 1, &keys);
    book.accept(signed(&card, 111, &[&keys]), &chain, NOW)
        .unwrap();
    assert!(book.current(number(1), chain.roster(), NOW).is_some());
}

#[test]
fn a_removed_members_new_card_is_refused_and_the_old_one_known() {
    let (mut chain, mut book) = (with_members(), CardBook::default());
    offer(&mut book, &chain, 1, |_| ()).unwrap();
    change(&mut chain, |r| {
        r.set_status(number(1), MemberStatus::Removed).unwrap();
    })
    .unwrap();
    assert_eq!(code(offer(&mut book, &chain, 2, |_| ())), "unknown");
    let late = NOW.plus(91 * DAY_MS);
    let owner = book.by_tls_key(&Keys::of(11).digest(), chain.roster(), late);
    assert_eq!(owner.map(|o| o.card), Some(CardState::Expired));
}
