//! Tests of raw and typed leaves.

use proptest::prelude::*;

use super::*;
use crate::id::{FeedId, MemberNumber, SetName, Slug, UnixMillis};
use crate::reject::Rejection;
use crate::signal::Signal;
use crate::wire;

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

fn digest(byte: u8) -> Digest {
    Digest([byte; 32])
}

fn describe() -> Describe {
    Describe {
        genesis: digest(1),
        feed_kind: FeedKind::HashSet,
        name: SetName::parse("northstar/confirmed").unwrap(),
        title: "Confirmed by two reviewers".to_owned(),
        grants: vec![
            Grant {
                grantee: Grantee::Member(MemberNumber::new(7).unwrap()),
                relay: true,
            },
            Grant {
                grantee: Grantee::Group(Slug::parse("platforms").unwrap()),
                relay: false,
            },
            Grant {
                grantee: Grantee::All,
                relay: false,
            },
        ],
        terms: Terms {
            source: Source::OwnWork,
            may_share: true,
            text: "Matching only.\nNo onward use.".to_owned(),
        },
        classification_scheme: Some(Slug::parse("tc").unwrap()),
        created: UnixMillis(1_767_571_200_000),
        identity_signature: None,
    }
}

// Else a stolen feed key could take a set from everybody at once.
#[test]
fn who_may_read_is_signed_by_the_identity_key_for_one_leaf_and_these_grants() {
    let key = crate::keys::SecretKey::<crate::keys::Identity>::from_seed(&[4; 32]);
    let feed = FeedId(digest(9));
    let mut said = describe();
    let verify = |said: &Describe, feed: &FeedId, index| {
        said.verify_grants(feed, index, &key.public()).is_ok()
    };
    assert!(!verify(&said, &feed, 7), "unsigned");
    said.identity_signature = Some(key.sign(&said.grants_signing_bytes(&feed, 7)));
    assert!(verify(&said, &feed, 7));
    let payload = said.encode([0; 16]).unwrap();
    assert_eq!(Describe::read(&payload).unwrap(), said);
    assert!(!verify(&said, &FeedId(digest(8)), 7), "another feed");
    assert!(!verify(&said, &feed, 8), "said again later");
    let changes: [fn(&mut Describe); 4] = [
        |said| drop(said.grants.pop()),
        |said| said.grants[0].relay = !said.grants[0].relay,
        |said| said.grants[0].grantee = Grantee::Group(Slug::parse("others").unwrap()),
        |said| said.created = UnixMillis(5),
    ];
    for change in changes {
        let mut changed = said.clone();
        change(&mut changed);
        assert!(!verify(&changed, &feed, 7));
    }
}

fn publish() -> Publish {
    let pdq = "PDQ:f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22";
    let sha256 = format!("SHA256:{}", "a1".repeat(32));
    Publish {
        media_kind: MediaKind::Image,
        signals: vec![
            Signal::parse_spec(&sha256).unwrap(),
            Signal::parse_spec(pdq)
                .and_then(|pdq| pdq.with_quality(Some(98)))
                .unwrap(),
        ],
        classification: Some(Classification::parse("A1").unwrap()),
        labels: vec!["synthetic".to_owned()],
        basis: Basis::Human,
        source_reference: "syn-0001".to_owned(),
        first_seen: Some(UnixMillis(1_767_484_800_000)),
        expires: None,
        replaces: vec![3, 9],
        published: UnixMillis(1_767_571_201_000),
    }
}

fn retract() -> Retract {
    Retract {
        indexes: vec![
            IndexRange { first: 3, count: 2 },
            IndexRange { first: 9, count: 1 },
        ],
        reason: RetractReason::Wrong,
        note: "taken in by mistake".to_owned(),
        recheck: true,
        created: UnixMillis(1_767_571_202_000),
        identity_signature: Some([5; 64]),
    }
}

fn opinion() -> Opinion {
    Opinion {
        subject: Subject::Entry {
            feed: FeedId(digest(2)),
            first: 3,
            kind: Some(5),
        },
        stance: Stance::Negative,
        confidence: 90,
        reason_id: 4,
        note: "a meme".to_owned(),
        replaces: vec![1],
        created: UnixMillis(1_767_571_203_000),
    }
}

fn erase() -> Erase {
    Erase {
        indexes: vec![IndexRange { first: 4, count: 1 }],
        legal_basis: "court order".to_owned(),
        created: UnixMillis(1_767_571_204_000),
    }
}

const SALT: [u8; 16] = [0xaa; 16];

/// One leaf of each kind as a publisher makes it, with what it reads as.
pub(crate) fn samples() -> Vec<(&'static str, RawLeaf, Leaf)> {
    let payload = |payload: Result<Bytes, Rejection>| payload.unwrap();
    vec![
        (
            "describe",
            RawLeaf::new(DESCRIBE, payload(describe().encode(SALT))),
            Leaf::Describe(describe().into()),
        ),
        (
            "publish",
            RawLeaf::new(PUBLISH, payload(publish().encode(SALT))),
            Leaf::Publish(publish().into()),
        ),
        (
            "retract",
            RawLeaf::new(RETRACT, payload(retract().encode(SALT))),
            Leaf::Retract(retract().into()),
        ),
        (
            "opinion",
            RawLeaf::new(OPINION, payload(opinion().encode(SALT))),
            Leaf::Opinion(opinion().into()),
        ),
        (
            "erase",
            RawLeaf::new(ERASE, payload(erase().encode(SALT))),
            Leaf::Erase(erase().into()),
        ),
    ]
}

#[test]
fn leaves_read_back_as_written_and_ignore_unknown_fields() {
    for (name, leaf, read_as) in samples() {
        assert_eq!(read(&leaf, 10), read_as, "{name}");
        // Field 1,000, a varint: of a version to come.
        let mut longer = leaf.payload().unwrap().to_vec();
        longer.extend([0xc0, 0x3e, 1]);
        assert_eq!(read(&RawLeaf::new(leaf.kind, longer.into()), 10), read_as);
        assert_eq!(read(&leaf.elided(), 10), Leaf::Elided);
    }
    let unknown = RawLeaf::new(77, Bytes::from_static(b"\xff"));
    assert_eq!(read(&unknown, 10), Leaf::Unknown(77));
}

#[test]
fn golden_vectors_are_what_this_version_writes() {
    use std::fmt::Write as _;
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let mut text = String::from("[\n");
    for (number, (name, leaf, _)) in samples().into_iter().enumerate() {
        let separator = if number == 0 { "" } else { ",\n" };
        let payload = hex(leaf.payload().unwrap());
        let record = hex(&leaf.record());
        let (kind, hash) = (leaf.kind, leaf.hash());
        write!(
            text,
            "{separator}  {{\n    \"name\": \"{name}\",\n    \"kind\": {kind},\n    \
             \"payload\": \"{payload}\",\n    \"record\": \"{record}\",\n    \
             \"leaf_hash\": \"{hash}\"\n  }}"
        )
        .unwrap();
    }
    text.push_str("\n]\n");
    let path = crate::here().join("../../tests/vectors/leaf.json");
    assert_eq!(std::fs::read_to_string(path).unwrap(), text);
}

/// Encodes a changed wire message of the sample leaf and says whether it is void.
fn is_void<M: prost::Message + Default>(
    kind: u8,
    payload: &Bytes,
    index: u64,
    change: impl FnOnce(&mut M),
) -> bool {
    let mut message = M::decode(payload.clone()).unwrap();
    change(&mut message);
    let leaf = RawLeaf::new(kind, message.encode_to_vec().into());
    matches!(read(&leaf, index), Leaf::Void(_))
}

fn publish_is_void(index: u64, change: impl FnOnce(&mut wire::Publish)) -> bool {
    is_void(PUBLISH, &publish().encode(SALT).unwrap(), index, change)
}

#[test]
fn publish_leaves_that_break_a_rule_are_void() {
    assert!(!publish_is_void(10, |_| {}));
    assert!(publish_is_void(9, |_| {}), "replaces itself");
    let changes: [fn(&mut wire::Publish); 17] = [
        |m| m.salt = Bytes::from_static(&[1; 15]),
        |m| m.signals.clear(),
        |m| m.signals = vec![m.signals[0].clone(); 33],
        |m| m.signals.push(m.signals[0].clone()),
        |m| m.signals[0].value = Bytes::from_static(&[1; 31]),
        |m| m.signals[0].quality_plus_one = 1,
        |m| m.signals[1].quality_plus_one = 102,
        |m| m.media_kind = 0,
        |m| m.media_kind = 99,
        |m| m.basis = 0,
        |m| m.replaces = vec![9, 3],
        |m| m.replaces = vec![3, 3],
        |m| m.classification = "tc:".to_owned(),
        |m| m.labels = vec![String::new()],
        |m| m.labels = vec!["x".to_owned(); 33],
        |m| m.labels = vec!["\u{1b}[2J".to_owned()],
        |m| m.source_reference = "x".repeat(257),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert!(publish_is_void(10, change), "change {number}");
    }
}

#[test]
fn signals_of_unknown_kinds_are_left_out_and_void_nothing() {
    let mut message: wire::Publish =
        prost::Message::decode(publish().encode(SALT).unwrap()).unwrap();
    message.signals[0].kind = 99;
    let payload = prost::Message::encode_to_vec(&message);
    let Leaf::Publish(read) = read(&RawLeaf::new(PUBLISH, payload.into()), 10) else {
        panic!("void");
    };
    assert_eq!(read.signals, publish().signals[1..]);
}

#[test]
fn describe_leaves_that_break_a_rule_are_void() {
    let payload = describe().encode(SALT).unwrap();
    let changes: [fn(&mut wire::Describe); 11] = [
        |m| m.salt = Bytes::new(),
        |m| m.genesis_digest = Bytes::from_static(&[1; 31]),
        |m| m.feed_kind = 0,
        |m| m.name = "Northstar".to_owned(),
        |m| m.title = "x".repeat(201),
        |m| m.grants.push(m.grants[0].clone()),
        |m| m.grants[0].grantee = None,
        |m| m.terms = None,
        |m| m.terms.as_mut().unwrap().source = 0,
        |m| m.terms.as_mut().unwrap().list_owner = "somebody".to_owned(),
        |m| m.terms.as_mut().unwrap().may_share = false,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert!(is_void(DESCRIBE, &payload, 10, change), "change {number}");
    }
}

#[test]
fn grants_without_the_right_to_share_are_refused_and_void() {
    let mut bound = describe();
    bound.terms.source = Source::ThirdParty {
        list_owner: "somebody".to_owned(),
    };
    let payload = bound.encode(SALT).unwrap();
    bound.terms.may_share = false;
    assert!(bound.encode(SALT).is_err());
    let mut message: wire::Describe = prost::Message::decode(payload).unwrap();
    message.terms.as_mut().unwrap().may_share = false;
    let payload = prost::Message::encode_to_vec(&message);
    let Leaf::Describe(read) = read(&RawLeaf::new(DESCRIBE, payload.into()), 10) else {
        panic!("void");
    };
    assert!(read.grants.is_empty());
}

#[test]
fn a_describe_leaf_belongs_to_one_coalition_and_publisher() {
    let northstar = Slug::parse("northstar").unwrap();
    let other = Slug::parse("other").unwrap();
    assert_eq!(describe().check_belongs(&digest(1), &northstar), Ok(()));
    assert!(describe().check_belongs(&digest(2), &northstar).is_err());
    assert!(describe().check_belongs(&digest(1), &other).is_err());
}

#[test]
fn ranges_that_are_not_canonical_are_void() {
    let retracts = retract().encode(SALT).unwrap();
    let erases = erase().encode(SALT).unwrap();
    let range = |(first, count)| wire::IndexRange { first, count };
    for (ranges, index) in [
        (vec![], 10),
        (vec![(3, 0)], 10),
        (vec![(9, 1), (3, 1)], 20),
        (vec![(3, 2), (4, 2)], 20),
        (vec![(3, 2), (5, 2)], 20),
        (vec![(3, 8)], 10),
        (vec![(3, u64::MAX)], 10),
        (vec![(u64::MAX, 1)], 10),
    ] {
        let ranges: Vec<_> = ranges.into_iter().map(range).collect();
        let for_erase = ranges.clone();
        assert!(is_void(
            RETRACT,
            &retracts,
            index,
            |m: &mut wire::Retract| {
                m.indexes = ranges;
            }
        ));
        assert!(is_void(ERASE, &erases, index, |m: &mut wire::Erase| {
            m.indexes = for_erase;
        }));
    }
}

#[test]
fn other_leaves_that_break_a_rule_are_void() {
    let payload = retract().encode(SALT).unwrap();
    let changes: [fn(&mut wire::Retract); 4] = [
        |m| m.salt = Bytes::from_static(&[1; 17]),
        |m| m.reason = 0,
        |m| m.note = "x".repeat(501),
        |m| m.identity_signature = Bytes::from_static(&[1; 63]),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert!(is_void(RETRACT, &payload, 10, change), "retract {number}");
    }
    let payload = opinion().encode(SALT).unwrap();
    let changes: [fn(&mut wire::Opinion); 5] = [
        |m| m.subject = None,
        |m| m.stance = 0,
        |m| m.confidence = 101,
        |m| m.replaces = vec![10],
        |m| m.note = "\u{202e}".to_owned(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert!(is_void(OPINION, &payload, 10, change), "opinion {number}");
    }
    let payload = erase().encode(SALT).unwrap();
    let no_basis = |m: &mut wire::Erase| m.legal_basis.clear();
    assert!(is_void(ERASE, &payload, 10, no_basis));
}

#[test]
fn a_payload_over_the_limit_is_refused_by_encode() {
    let mut long = publish();
    long.replaces = (0..3_000).map(|i| i * 1_000).collect();
    assert_eq!(long.encode(SALT).unwrap_err().code(), "too_large");
    let ranges = (0..number(RANGES_PER_LEAF)).map(|i| IndexRange {
        first: (1 << 39) + i * (1 << 20),
        count: 1 << 19,
    });
    let full = Retract {
        indexes: ranges.collect(),
        note: "x".repeat(500),
        ..retract()
    };
    assert!(full.encode(SALT).is_ok());
}

fn number(count: usize) -> u64 {
    count.try_into().unwrap()
}

#[test]
fn indexes_gather_into_ranges() {
    let ranges = IndexRange::gather([1, 2, 2, 3, 7, 9, 10]);
    let pairs: Vec<(u64, u64)> = ranges.iter().map(|r| (r.first, r.count)).collect();
    assert_eq!(pairs, [(1, 3), (7, 1), (9, 2)]);
}

proptest! {
    #[test]
    fn no_payload_panics(kind in 1_u8..6, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&RawLeaf::new(kind, bytes.into()), 10);
    }

    #[test]
    fn changed_payloads_never_panic(which in 0_usize..5, at in any::<usize>(), bit in 0_u8..8) {
        let (_, leaf, _) = samples().swap_remove(which);
        let mut bytes = leaf.payload().unwrap().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let _ = read(&RawLeaf::new(leaf.kind, bytes.into()), 10);
    }
}
