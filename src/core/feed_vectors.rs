//! The golden vectors of a feed's identity, a signed retraction and a page:
//! `tests/vectors/feed.json`. `tests/verify_proofs.py --feed` recomputes them from the
//! documents alone.

use std::fmt::Write as _;

use bytes::Bytes;
use data_encoding::HEXLOWER;

use crate::checkpoint::Origin;
use crate::id::{CoalitionName, Digest, FeedId, Slug};
use crate::keys::{Identity, SecretKey};
use crate::leaf::tests::samples;
use crate::leaf::{IndexRange, Leaf, RETRACT, RawLeaf, Retract, read};
use crate::merkle::CompactRange;
use crate::page;
use crate::standing;

const COALITION: &str = "csa-coalition.example";
const PUBLISHER: &str = "northstar";
const EPOCH: u32 = 2;
const SALT: [u8; 16] = [0xbb; 16];

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

fn object(name: &str, fields: &[(&str, String)]) -> String {
    let mut text = format!("  \"{name}\": {{\n");
    for (at, (field, value)) in fields.iter().enumerate() {
        let comma = if at + 1 < fields.len() { "," } else { "" };
        writeln!(text, "    \"{field}\": {value}{comma}").unwrap();
    }
    text + "  }"
}

fn quoted(text: impl std::fmt::Display) -> String {
    format!("\"{text}\"")
}

/// The describe leaf of the leaf vectors, as the first of a feed.
fn identity() -> (FeedId, String) {
    let genesis = Digest::of(b"genesis");
    let publisher = Slug::parse(PUBLISHER).unwrap();
    let (_, first, _) = samples().swap_remove(0);
    let payload = first.payload().unwrap();
    let feed = FeedId::derive(&genesis, &publisher, payload);
    let origin = Origin {
        coalition: CoalitionName::parse(COALITION).unwrap(),
        feed,
        epoch: EPOCH,
    };
    let fields = [
        ("coalition", quoted(COALITION)),
        ("genesis_digest", quoted(genesis)),
        ("publisher", quoted(PUBLISHER)),
        ("first_payload", quoted(hex(payload))),
        ("feed_id", quoted(hex(feed.as_bytes()))),
        ("epoch", EPOCH.to_string()),
        ("origin", quoted(origin)),
    ];
    (feed, object("feed", &fields))
}

/// A retraction of two ranges, signed by the identity key as well.
fn retraction(feed: &FeedId) -> String {
    let key = SecretKey::<Identity>::from_seed(&[3; 32]);
    let (_, sample, _) = samples().swap_remove(2);
    let Leaf::Retract(sample) = read(&sample, 1_000) else {
        panic!("no retraction");
    };
    let mut retract = Retract {
        indexes: vec![
            IndexRange { first: 4, count: 1 },
            IndexRange {
                first: 9,
                count: 300,
            },
        ],
        identity_signature: None,
        ..*sample
    };
    let bytes = standing::retraction_signing_bytes(feed, &retract);
    let signature = key.sign(&bytes);
    retract.identity_signature = Some(signature);
    assert!(standing::verify_retraction(feed, &retract, &key.public()).is_ok());
    let payload = retract.encode(SALT).unwrap();
    let raw = RawLeaf::new(RETRACT, payload.clone());
    assert!(matches!(read(&raw, 1_000), Leaf::Retract(_)));
    let fields = [
        ("identity_key", quoted(key.public())),
        ("payload", quoted(hex(&payload))),
        ("signing_bytes", quoted(hex(&bytes))),
        ("signature", quoted(hex(&signature))),
    ];
    object("retraction", &fields)
}

fn leaf(i: u64) -> RawLeaf {
    let kind = if i == 0 { 1 } else { 2 };
    let leaf = RawLeaf::new(kind, Bytes::from(format!("leaf {i}")));
    if i.is_multiple_of(5) {
        leaf.elided()
    } else {
        leaf
    }
}

/// A zstd frame that holds its content as it is, for readers without zstd: one
/// segment, a content size of two bytes, one raw block.
fn stored_frame(plain: &[u8]) -> Bytes {
    let size = u16::try_from(plain.len() - 256).unwrap();
    let block = u32::try_from(plain.len() << 3 | 1).unwrap().to_le_bytes();
    let head = [0x28, 0xb5, 0x2f, 0xfd, 0x60];
    [&head[..], &size.to_le_bytes(), &block[..3], plain]
        .concat()
        .into()
}

fn a_page() -> String {
    let leaves: Vec<RawLeaf> = (0..256).map(leaf).collect();
    let plain = page::encode_plain(&leaves).unwrap();
    let (wire, stored) = (page::encode(&leaves).unwrap(), stored_frame(&plain));
    for frame in [&wire, &stored] {
        assert_eq!(page::decode(frame).unwrap(), leaves);
    }
    let mut range = CompactRange::empty(0);
    range.extend(leaves.iter().map(RawLeaf::hash));
    let fields = [
        ("root", quoted(range.root().unwrap())),
        ("plain", quoted(hex(&plain))),
        ("wire", quoted(hex(&wire))),
        ("wire_not_compressed", quoted(hex(&stored))),
    ];
    object("page", &fields)
}

#[test]
fn the_vectors_of_a_feed_are_what_this_version_writes() {
    let (feed, identity) = identity();
    let parts = [identity, retraction(&feed), a_page()];
    let text = format!("{{\n{}\n}}\n", parts.join(",\n"));
    let path = crate::here().join("../../tests/vectors/feed.json");
    if std::env::var_os("HASHPACT_WRITE_VECTORS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), text);
}
