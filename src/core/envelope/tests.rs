//! Envelopes: bytes as received, signatures that count, mutations.

use p256::ecdsa::signature::Signer as _;
use proptest::prelude::*;

use super::*;
use crate::keys::{Admin, Feed, SecretKey};

fn admin(seed: u8) -> SecretKey<Admin> {
    SecretKey::from_seed(&[seed; 32])
}

fn draft() -> EnvelopeDraft {
    EnvelopeDraft::new(PayloadType::Suspension, Bytes::from_static(b"payload"))
}

/// A P-256 key with the DER of its `SubjectPublicKeyInfo`.
fn p256_key(seed: u8) -> (p256::ecdsa::SigningKey, Vec<u8>) {
    use p256::pkcs8::EncodePublicKey as _;
    let key = p256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap();
    let der = key.verifying_key().to_public_key_der().unwrap().into_vec();
    (key, der)
}

#[test]
fn the_pae_is_that_of_the_dsse_specification() {
    // The example of protocol.md.
    assert_eq!(
        pae("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
}

#[test]
fn an_envelope_keeps_the_bytes_it_was_received_as() {
    let bytes = draft().sign(&admin(1)).finish().unwrap().as_bytes().clone();
    // A field that this version does not know stays.
    let mut longer = bytes.to_vec();
    longer.extend_from_slice(&[0x7a, 0x01, 0xff]);
    let envelope = Envelope::decode(longer.clone().into(), PayloadType::Suspension).unwrap();
    assert_eq!(envelope.as_bytes(), &longer);
    assert_eq!(envelope.payload_digest(), Digest::of(b"payload"));
    assert_eq!(envelope.signers([admin(1).public()]).len(), 1);
}

#[test]
fn one_key_that_signs_a_roster_twice_counts_once() {
    let mut draft = EnvelopeDraft::new(PayloadType::Roster, Bytes::from_static(b"payload"));
    let bytes = draft.sign(&admin(1)).finish().unwrap().as_bytes().clone();
    let mut message = wire::Envelope::decode(bytes).unwrap();
    message.signatures.push(message.signatures[0].clone());
    let envelope = Envelope::decode(message.encode_to_vec().into(), PayloadType::Roster).unwrap();
    let keys = [admin(1).public(), admin(1).public(), admin(2).public()];
    assert_eq!(
        envelope.require_threshold(keys, 2),
        Err(Rejection::ThresholdNotMet {
            what: "roster",
            have: 1,
            need: 2
        })
    );
}

#[test]
fn junk_signatures_of_a_key_before_its_good_one_are_refused_before_any_is_checked() {
    let good = draft().sign(&admin(1)).sign(&admin(2)).finish().unwrap();
    let mut message = wire::Envelope::decode(good.as_bytes().clone()).unwrap();
    let mut junk = message.signatures[0].clone();
    junk.signature = Bytes::from_static(&[0; 64]);
    message.signatures.insert(0, junk);
    let refused = Envelope::decode(message.encode_to_vec().into(), PayloadType::Suspension);
    assert_eq!(refused.map_err(|e| e.code()), Err("malformed"));
}

#[test]
fn signatures_of_unknown_keys_are_ignored_up_to_a_cap() {
    let mut some = draft();
    some.sign(&admin(1));
    for seed in 2..=250 {
        some.sign(&admin(seed));
    }
    let envelope = some.finish().unwrap_err();
    assert_eq!(
        envelope.code(),
        "too_large",
        "4 KiB are full before 256 signatures"
    );

    let empty = [0x1a, 0x00].repeat(ENVELOPE_SIGNATURES_MAX + 1);
    let mut message = Vec::new();
    message.extend_from_slice(draft().finish().unwrap().as_bytes());
    message.extend_from_slice(&empty);
    assert_eq!(
        Envelope::decode(message.into(), PayloadType::Suspension),
        Err(Rejection::TooLarge {
            what: "signatures",
            size: ENVELOPE_SIGNATURES_MAX + 1,
            limit: ENVELOPE_SIGNATURES_MAX
        })
    );

    let mut few = draft();
    few.sign(&admin(1)).sign(&admin(2)).sign(&admin(3));
    let envelope = few.finish().unwrap();
    assert_eq!(envelope.signers([admin(2).public()]).len(), 1);
}

#[test]
fn an_envelope_over_its_size_is_not_decoded() {
    let bytes = Bytes::from(vec![0xff; SMALL_DOCUMENT_MAX_BYTES + 1]);
    assert_eq!(
        Envelope::decode(bytes, PayloadType::Suspension).map_err(|e| e.code()),
        Err("too_large")
    );
}

#[test]
fn a_signature_over_one_payload_type_is_none_over_another() {
    let envelope = draft().sign(&admin(1)).finish().unwrap();
    assert!(Envelope::decode(envelope.as_bytes().clone(), PayloadType::Receipt).is_err());
    let mut message = wire::Envelope::decode(envelope.as_bytes().clone()).unwrap();
    message.payload_type = PayloadType::Receipt.as_str().to_owned();
    let other = Envelope::decode(message.encode_to_vec().into(), PayloadType::Receipt).unwrap();
    assert!(other.signers([admin(1).public()]).is_empty());
}

#[test]
fn a_payload_that_comes_twice_is_refused() {
    let one = draft().sign(&admin(1)).finish().unwrap();
    let mut bytes = one.as_bytes().to_vec();
    bytes.extend_from_slice(&[0x12, 0x01, b'x']);
    let refused = Envelope::decode(bytes.into(), PayloadType::Suspension);
    assert_eq!(refused.map_err(|e| e.code()), Err("malformed"));
}

#[test]
fn signing_in_turn_keeps_payload_and_earlier_signatures() {
    let first = draft().sign(&admin(1)).finish().unwrap();
    let second = EnvelopeDraft::resume(&first)
        .sign(&admin(2))
        .finish()
        .unwrap();
    assert_eq!(first.payload_digest(), second.payload_digest());
    let both = [admin(1).public(), admin(2).public()];
    assert_eq!(second.require_threshold(both, 2), Ok(2));
}

#[test]
fn a_tls_key_proves_possession_with_either_algorithm() {
    let (key, spki) = p256_key(3);
    let mut draft = draft();
    let signature: p256::ecdsa::DerSignature = key.sign(&draft.to_sign());
    draft.add_tls(&spki, signature.as_bytes()).unwrap();

    let feed = SecretKey::<Feed>::from_seed(&[4; 32]);
    let mut ed = tls_spki_of_ed25519(&feed);
    let signature = feed.sign(&draft.to_sign());
    draft.add_tls(&ed, &signature).unwrap();

    let envelope = draft.finish().unwrap();
    let wanted = BTreeSet::from([Digest::of(&spki), Digest::of(&ed), Digest::of(b"other")]);
    assert_eq!(envelope.tls_signers(&wanted).len(), 2);
    assert_eq!(key_digest(&feed.public()), Digest::of(&ed));

    assert!(draft.add_tls(&spki, &signature).is_err());
    ed.push(0);
    assert!(draft.add_tls(&ed, &signature).is_err());
}

#[test]
fn another_encoding_of_a_tls_key_is_refused() {
    let (key, spki) = p256_key(3);
    assert!(TlsKey::from_spki(&spki).is_ok());
    let compressed = key.verifying_key().to_sec1_point(true);
    let mut der = vec![
        0x30, 0x39, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
        0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x22, 0x00,
    ];
    der.extend_from_slice(compressed.as_bytes());
    assert_eq!(
        TlsKey::from_spki(&der).map_err(|e| e.code()),
        Err("invalid")
    );
}

fn tls_spki_of_ed25519(key: &SecretKey<Feed>) -> Vec<u8> {
    let mut der = vec![
        0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
    ];
    der.extend_from_slice(key.public().as_bytes());
    der
}

proptest! {
    #[test]
    fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Envelope::decode(bytes.into(), PayloadType::NodeCard);
    }

    #[test]
    fn a_flipped_bit_of_payload_or_signature_is_noticed(at in 0_usize..10_000, bit in 0_u8..8) {
        let envelope = draft().sign(&admin(1)).finish().unwrap();
        let mut bytes = envelope.as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(changed) = Envelope::decode(bytes.into(), PayloadType::Suspension) {
            prop_assert!(changed.signers([admin(1).public()]).is_empty());
        }
    }
}
