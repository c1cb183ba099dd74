//! Documents: a change that nobody signed is refused, or is none; one that is
//! signed again is refused with a reason or obeys every rule.

use bytes::Bytes;
use prost::Message as _;

use super::{absent, message, mutations};
use crate::card::tests::{Keys, card, signed as signed_card};
use crate::card::{CardBook, NodeCard};
use crate::enrol::{EnrolmentRequest, VerifiedRequest};
use crate::envelope::{Envelope, EnvelopeDraft, PayloadType};
use crate::id::{Digest, FeedId};
use crate::keys::{Identity, SecretKey};
use crate::limits::DAY_MS;
use crate::reject::Rejection;
use crate::roster::tests::{
    NOW, admin, identity, newcomer, next, number, signed, slug, with_members,
};
use crate::roster::{Group, Revocation, Role, Roster, RosterChain};
use crate::suspension::{Suspension, SuspensionBook};
use crate::wire;

/// Says the digest of the payload that was accepted.
type Verdict = Result<Digest, Rejection>;

/// Changes every field of the envelope and of its payload, with the signatures
/// that were made for the original.
fn unsigned_changes_are_refused(
    name: &str,
    envelope: &Envelope,
    accept: impl Fn(Envelope) -> Verdict,
) {
    let kind = envelope.kind();
    let original = envelope.payload_digest();
    assert_eq!(accept(envelope.clone()), Ok(original), "the sample is good");
    for change in mutations(&message("core.v1.Envelope"), envelope.as_bytes()) {
        let verdict = Envelope::decode(change.bytes.into(), kind).and_then(&accept);
        if let Ok(accepted) = verdict {
            // The very same document with a signature twice, or spelled otherwise. No
            // signature of the samples can be spared.
            let harmless = ["twice", "not canonical", "bit 40", "unknown field"];
            let is_harmless = harmless.iter().any(|how| change.what.contains(how));
            assert!(is_harmless, "{}", change.what);
            assert_eq!(accepted, original, "{}", change.what);
        }
    }
    let changed = mutations(&message(name), envelope.payload());
    assert!(changed.len() > 50, "{} changes of {name}", changed.len());
    for change in changed {
        let mut message = wire::Envelope::decode(envelope.as_bytes().clone()).unwrap();
        message.payload = change.bytes.into();
        let verdict = Envelope::decode(message.encode_to_vec().into(), kind).and_then(&accept);
        let code = verdict.expect_err(&change.what).code();
        assert!(!code.is_empty());
    }
}

/// Changes every field of the payload and signs each again with the right keys.
/// Says how many were refused.
fn signed_changes(
    name: &str,
    envelope: &Envelope,
    sign: impl Fn(EnvelopeDraft) -> Result<Envelope, Rejection>,
    accept: impl Fn(Envelope) -> Verdict,
) -> usize {
    let mut refused = 0;
    for change in mutations(&message(name), envelope.payload()) {
        let payload = Bytes::from(change.bytes);
        let digest = Digest::of(&payload);
        let signed = sign(EnvelopeDraft::new(envelope.kind(), payload));
        match signed.and_then(&accept) {
            Ok(accepted) => assert_eq!(accepted, digest, "{}", change.what),
            Err(_) => refused += 1,
        }
    }
    refused
}

/// A roster with something in every field.
fn full_roster(chain: &RosterChain) -> Roster {
    next(chain, |r| {
        let mut west = newcomer("west", 104);
        west.roles = vec![Role::Witness, Role::Observe];
        r.admit(west).unwrap();
        r.rotate_identity(number(1), identity(111)).unwrap();
        r.groups = vec![Group {
            name: slug("lines"),
            members: vec![number(1), number(2)],
        }];
        r.revocations = vec![Revocation {
            feed: FeedId(Digest::of(b"feed")),
            key: SecretKey::from_seed(&[60; 32]).public(),
            last_good_size: 10,
            last_good_root: Digest::of(b"root"),
            next_epoch: 1,
        }];
        r.witness_threshold = 1;
        r.feed_growth_per_hour = Some(5_000);
        r.lifted_suspensions = vec![Digest::of(b"suspension")];
        assert!(!r.former_geneses.is_empty());
    })
}

fn offered(chain: &RosterChain) -> impl Fn(Envelope) -> Verdict {
    |envelope| {
        let mut chain = chain.clone();
        chain.accept(envelope, NOW)?;
        // What was accepted is what one could write.
        chain.roster().encode()?;
        Ok(chain.current().digest())
    }
}

#[test]
fn every_field_of_a_roster_is_protected() {
    let chain = with_members();
    let envelope = signed(&full_roster(&chain), &[1, 2]);
    let left_out = absent(&message("core.v1.Roster"), envelope.payload());
    assert_eq!(left_out, [""; 0]);
    unsigned_changes_are_refused("core.v1.Roster", &envelope, offered(&chain));
}

#[test]
fn administrators_can_sign_no_roster_that_breaks_a_rule() {
    let chain = with_members();
    let envelope = signed(&full_roster(&chain), &[1, 2]);
    let sign = |mut draft: EnvelopeDraft| draft.sign(&admin(1)).sign(&admin(2)).finish();
    let refused = signed_changes("core.v1.Roster", &envelope, sign, offered(&chain));
    assert!(refused > 200, "{refused}");
}

fn full_card(chain: &RosterChain, keys: &Keys) -> NodeCard {
    let mut card = card(chain, "north", 3, keys);
    card.member = Some(number(1));
    card.nodes[0].witness_keys = vec![SecretKey::from_seed(&[40; 32]).public()];
    card.contact.phone = "+1 555 0100".to_owned();
    card
}

fn sign_card(mut draft: EnvelopeDraft, signer: u8, keys: &Keys) -> Result<Envelope, Rejection> {
    keys.sign(&mut draft);
    draft
        .sign(&SecretKey::<Identity>::from_seed(&[signer; 32]))
        .sign(&SecretKey::<crate::keys::Witness>::from_seed(&[40; 32]))
        .finish()
}

fn presented(chain: &RosterChain) -> impl Fn(Envelope) -> Verdict {
    |envelope| {
        let mut book = CardBook::default();
        book.accept(envelope, chain, NOW)?;
        let version = book.newest(number(1)).ok_or(Rejection::NotFound)?;
        version.card().encode()?;
        Ok(version.digest())
    }
}

#[test]
fn every_field_of_a_node_card_is_protected() {
    let (chain, keys) = (with_members(), Keys::of(11));
    let draft = full_card(&chain, &keys).to_envelope().unwrap();
    let envelope = sign_card(draft, 101, &keys).unwrap();
    let left_out = absent(&message("core.v1.NodeCard"), envelope.payload());
    assert_eq!(left_out, [""; 0]);
    unsigned_changes_are_refused("core.v1.NodeCard", &envelope, presented(&chain));
    let sign = |draft| sign_card(draft, 101, &keys);
    let refused = signed_changes("core.v1.NodeCard", &envelope, sign, presented(&chain));
    assert!(refused > 100, "{refused}");
}

#[test]
fn every_field_of_a_suspension_is_protected() {
    let chain = with_members();
    let suspension = Suspension {
        genesis: chain.genesis(),
        roster_version: chain.version(),
        member: number(2),
        issued: NOW,
        expires: NOW.plus(7 * DAY_MS),
        reason: "key lost".to_owned(),
        admin: admin(1).public(),
    };
    let sign = |mut draft: EnvelopeDraft| draft.sign(&admin(1)).finish();
    let envelope = sign(suspension.to_envelope().unwrap()).unwrap();
    let accept = |envelope| {
        let mut book = SuspensionBook::default();
        book.accept(envelope, &chain, NOW)?;
        Ok(book.all()[0].digest())
    };
    let left_out = absent(&message("core.v1.Suspension"), envelope.payload());
    assert_eq!(left_out, [""; 0]);
    unsigned_changes_are_refused("core.v1.Suspension", &envelope, accept);
    let refused = signed_changes("core.v1.Suspension", &envelope, sign, accept);
    assert!(refused > 30, "{refused}");
}

#[test]
fn every_field_of_an_enrolment_request_is_protected() {
    let (chain, keys) = (with_members(), Keys::of(11));
    let card = card(&chain, "newcomer", 1, &keys);
    let request = EnrolmentRequest {
        genesis: chain.genesis(),
        slug: slug("newcomer"),
        display_name: "Newcomer".to_owned(),
        organisation_kind: "hotline".to_owned(),
        roles: vec![Role::Publish, Role::Subscribe],
        identity: identity(120),
        created: NOW,
        card: signed_card(&card, 120, &[&keys]),
    };
    let sign = |mut draft: EnvelopeDraft| {
        let key = SecretKey::<Identity>::from_seed(&[120; 32]);
        draft.sign(&key).finish()
    };
    let envelope = sign(request.to_envelope().unwrap()).unwrap();
    let accept = |envelope: Envelope| {
        let digest = envelope.payload_digest();
        let verified = VerifiedRequest::verify(envelope, NOW)?;
        verified.check_against(&chain, &CardBook::default())?;
        Ok(digest)
    };
    let left_out = absent(&message("core.v1.EnrolmentRequest"), envelope.payload());
    assert_eq!(left_out, [""; 0]);
    unsigned_changes_are_refused("core.v1.EnrolmentRequest", &envelope, accept);
    let refused = signed_changes("core.v1.EnrolmentRequest", &envelope, sign, accept);
    assert!(refused > 40, "{refused}");
    assert_eq!(envelope.kind(), PayloadType::EnrolmentRequest);
}
