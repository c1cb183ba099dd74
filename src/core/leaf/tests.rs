//! Tests of raw and typed leaves.

use super::*;

#[test]
fn eliding_keeps_record_and_hash() {
    let leaf = RawLeaf::new(PUBLISH, Bytes::from_static(b"payload"));
    assert!(leaf.elided().is_elided());
    assert_eq!(leaf.elided().record(), leaf.record());
    assert_eq!(leaf.elided().hash(), leaf.hash());
}

#[test]
fn the_hash_is_that_of_rfc_6962_over_the_record() {
    let leaf = RawLeaf::new(PUBLISH, Bytes::from_static(b"payload"));
    let mut input = vec![0, PUBLISH];
    input.extend(Digest::of(b"payload").as_bytes());
    assert_eq!(leaf.hash(), Digest::of(&input));
    assert_eq!(leaf.record()[..], input[1..]);
}

#[test]
fn the_kind_is_part_of_the_hash() {
    let payload = Bytes::from_static(b"payload");
    assert_ne!(
        RawLeaf::new(PUBLISH, payload.clone()).hash(),
        RawLeaf::new(OPINION, payload).hash()
    );
}

#[test]
fn debug_shows_no_payload() {
    let leaf = RawLeaf::new(PUBLISH, Bytes::from_static(b"secret"));
    assert_eq!(format!("{leaf:?}"), "RawLeaf(2, 6 bytes)");
}
