//! The golden vectors of trees and chunks: `tests/vectors/{merkle,capture}.json`.
//! `tests/verify_proofs.py` recomputes both from the documents alone.

use std::fmt::{Display, Write as _};

use bytes::Bytes;
use data_encoding::HEXLOWER;

use super::{CompactRange, NodeId, consistency_proof, inclusion_proof};
use crate::checkpoint::{Checkpoint, Origin, sign};
use crate::id::{CoalitionName, Digest, FeedId};
use crate::keys::SecretKey;
use crate::leaf::RawLeaf;

const SIZE: u64 = 21;

fn leaf(i: u64) -> RawLeaf {
    let kind = if i == 0 { 1 } else { 2 };
    let leaf = RawLeaf::new(kind, Bytes::from(format!("leaf {i}")));
    if i.is_multiple_of(5) {
        leaf.elided()
    } else {
        leaf
    }
}

fn range(begin: u64, end: u64) -> CompactRange {
    let mut range = CompactRange::empty(begin);
    range.extend((begin..end).map(|i| leaf(i).hash()));
    range
}

#[expect(clippy::unnecessary_wraps, reason = "what proofs fetch with may fail")]
fn node(id: NodeId) -> Result<Digest, std::convert::Infallible> {
    Ok(range(id.begin(), id.end()).hashes()[0])
}

fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    format!("[{}]", items.join(", "))
}

fn lines(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<_> = items
        .into_iter()
        .map(|item| format!("    {item}"))
        .collect();
    format!("[\n{}\n  ]", items.join(",\n"))
}

fn hashes(hashes: &[Digest]) -> String {
    list(hashes.iter().map(|hash| format!("\"{hash}\"")))
}

fn leaf_json(i: u64) -> String {
    let leaf = leaf(i);
    let body = match leaf.payload() {
        Some(payload) => format!("\"payload_hex\": \"{}\"", HEXLOWER.encode(payload)),
        None => format!("\"digest_hex\": \"{}\"", leaf.payload_digest()),
    };
    format!("{{\"kind\": {}, {body}}}", leaf.kind)
}

fn merkle() -> String {
    let pairs = [(0, 0), (0, 21), (1, 20), (3, 3), (5, 13), (8, 16), (13, 21)];
    let ranges = pairs.map(|(begin, end)| {
        let hashes = hashes(range(begin, end).hashes());
        format!("{{\"begin\": {begin}, \"end\": {end}, \"hashes\": {hashes}}}")
    });
    let pairs = [(0, 1), (0, 21), (5, 7), (12, 13), (20, 21)];
    let inclusion = pairs.map(|(index, size)| {
        let proof = hashes(&inclusion_proof(index, size, node).unwrap().unwrap());
        format!("{{\"index\": {index}, \"size\": {size}, \"proof\": {proof}}}")
    });
    let pairs = [(1, 21), (4, 7), (6, 13), (16, 21), (20, 21), (21, 21)];
    let consistency = pairs.map(|(old, new)| {
        let proof = hashes(&consistency_proof(old, new, node).unwrap().unwrap());
        format!("{{\"old\": {old}, \"new\": {new}, \"proof\": {proof}}}")
    });
    let roots = (0..=SIZE).map(|size| format!("\"{}\"", range(0, size).root().unwrap()));
    let fields = [
        ("leaves", lines((0..SIZE).map(leaf_json))),
        ("roots", lines(roots)),
        ("compact_ranges", lines(ranges)),
        ("inclusion", lines(inclusion)),
        ("consistency", lines(consistency)),
    ];
    object(&fields)
}

fn capture() -> String {
    let key = SecretKey::from_seed(&[1; 32]);
    let checkpoint = Checkpoint {
        origin: Origin {
            coalition: CoalitionName::parse("csa-coalition.example").unwrap(),
            feed: FeedId(Digest([0xab; 32])),
            epoch: 1,
        },
        size: SIZE,
        root: range(0, SIZE).root().unwrap(),
    };
    let note = String::from_utf8(sign(&checkpoint, &key)).unwrap();
    let chunks = [(0, 5), (5, 13), (13, 20)].map(|(from, to)| {
        let before = hashes(range(0, from).hashes());
        let after = hashes(range(to, SIZE).hashes());
        let leaves = list((from..to).map(leaf_json));
        let bounds = format!("\"from\": {from}, \"to\": {to}");
        format!("{{{bounds}, \"before\": {before}, \"after\": {after}, \"leaves\": {leaves}}}")
    });
    let fields = [
        ("note", format!("\"{}\"", note.replace('\n', "\\n"))),
        ("feed_key", format!("\"{}\"", key.public())),
        ("chunks", lines(chunks)),
    ];
    object(&fields)
}

fn object(fields: &[(&str, String)]) -> String {
    let mut text = "{\n".to_owned();
    for (i, (name, value)) in fields.iter().enumerate() {
        let comma = if i + 1 < fields.len() { "," } else { "" };
        writeln!(text, "  \"{name}\": {value}{comma}").unwrap();
    }
    text + "}\n"
}

/// Compares with the file, or writes it when `HASHPACT_WRITE_VECTORS` is set.
fn check(name: &str, text: &str) {
    let path = crate::here().join("../../tests/vectors").join(name);
    if std::env::var_os("HASHPACT_WRITE_VECTORS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{name}");
}

#[test]
fn the_tree_vectors_are_what_the_tree_gives() {
    check("merkle.json", &merkle());
}

#[test]
fn the_captured_chunks_are_what_the_tree_gives() {
    check("capture.json", &capture());
}
