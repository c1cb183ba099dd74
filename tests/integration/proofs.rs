//! What a running node serves is accepted by implementations that are not ours:
//! Python's own hashes for chunks, Go's note reader for heads.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::HEXLOWER;
use hashpact::keyfile;
use hashpact_core::checkpoint;
use hashpact_core::chunk::ChunkParts;
use hashpact_core::id::Digest;
use hashpact_core::keys::{Feed, PublicKey};
use hashpact_core::leaf::{LeafBody, RawLeaf};
use hashpact_core::page;
use hashpact_net::types::Head;
use serde_json::{Value, json};

use crate::world::signals::entries;
use crate::world::{Member, Reader, World, checkpoint as checkpoint_of};

/// More than a page, not a multiple of one.
const ENTRIES: usize = 700;

/// A publisher's node with a set, and its head as a reader hears it.
fn published(world: &World) -> (Reader, Head) {
    let (publisher, reader) = (world.member("northstar"), world.member("tidepool"));
    publisher.start();
    publisher.create_set("proved", &["all"]);
    publisher.import("proved", &entries("proved", 0..ENTRIES));
    let reader = Reader::dial(reader, publisher);
    let head = reader.heads().into_values().next().expect("a head");
    (reader, head)
}

fn feed_key(publisher: &Member) -> PublicKey<Feed> {
    let path = publisher.folder().join("keys/feed.key");
    keyfile::load::<Feed>(&path).unwrap().public()
}

#[test]
fn chunks_of_a_running_node_are_accepted_by_another_implementation_and_refused_changed() {
    let world = World::new(&["northstar", "tidepool"]);
    let (reader, head) = published(&world);
    let size = checkpoint_of(&head).size;
    assert_eq!(size, ENTRIES as u64 + 1);
    let ranges = [(0, 3), (3, 520), (520, size)];
    let mut chunks = Vec::new();
    for (from, to) in ranges {
        chunks.extend(reader.pull(&head, from, to).unwrap());
    }
    let key = feed_key(world.member("northstar"));
    let capture = json!({
        "note": std::str::from_utf8(&head.note).unwrap(),
        "feed_key": HEXLOWER.encode(key.as_bytes()),
        "chunks": chunks.iter().map(chunk).collect::<Vec<Value>>(),
    });
    let path = world.write("capture.json", capture.to_string());
    let (accepted, said) = python(&[&path]);
    assert!(accepted, "{said}");
    assert_eq!(
        said,
        format!("ok: {size} leaves lead to the signed head of {size}\n")
    );
    for (what, changed) in changes(&capture) {
        let path = world.write("changed.json", changed.to_string());
        let (accepted, said) = python(&[&path]);
        assert!(!accepted && said.starts_with("refused: "), "{what}: {said}");
    }
    // Every field of a small capture, in every way.
    let mut small = capture;
    let ends = [
        reader.pull(&head, 0, 2).unwrap(),
        reader.pull(&head, size - 2, size).unwrap(),
    ];
    small["chunks"] = ends.iter().flatten().map(chunk).collect();
    let path = world.write("small.json", small.to_string());
    let (accepted, said) = python(&[Path::new("--self-test"), &path]);
    assert!(accepted, "{said}");
}

/// The capture with one thing changed, and what.
fn changes(capture: &Value) -> Vec<(&'static str, Value)> {
    let change = |what, pointer: &str, new: &dyn Fn(&Value) -> Value| {
        let mut changed = capture.clone();
        let place = changed.pointer_mut(pointer).unwrap();
        let new = new(place);
        assert_ne!(*place, new, "{what}");
        *place = new;
        (what, changed)
    };
    let flip = |value: &Value| {
        let text = value.as_str().unwrap();
        let first = if text.starts_with('0') { "1" } else { "0" };
        Value::from(format!("{first}{}", &text[1..]))
    };
    let more = |value: &Value| Value::from(value.as_u64().unwrap() + 1);
    let without_last = |value: &Value| {
        let items = value.as_array().unwrap();
        Value::from(&items[..items.len() - 1])
    };
    vec![
        (
            "a payload",
            "/chunks/1/leaves/200/payload_hex",
            &flip as &dyn Fn(&Value) -> Value,
        ),
        ("a leaf's kind", "/chunks/1/leaves/0/kind", &more),
        ("a leaf less", "/chunks/1/leaves", &without_last),
        ("a hash before", "/chunks/1/before/0", &flip),
        ("a hash less after", "/chunks/1/after", &without_last),
        ("a hash after", "/chunks/1/after/0", &flip),
        ("the range", "/chunks/1/from", &more),
        ("the key", "/feed_key", &flip),
    ]
    .into_iter()
    .map(|(what, pointer, new)| change(what, pointer, new))
    .collect()
}

fn chunk(parts: &ChunkParts) -> Value {
    let hex = |digests: &[Digest]| -> Value {
        digests
            .iter()
            .map(|digest| HEXLOWER.encode(digest.as_bytes()))
            .collect()
    };
    let leaves: Vec<Value> = leaves(parts).iter().map(leaf).collect();
    json!({
        "from": parts.from,
        "to": parts.to,
        "before": hex(&parts.before),
        "after": hex(&parts.after),
        "leaves": leaves,
    })
}

fn leaves(parts: &ChunkParts) -> Vec<RawLeaf> {
    let mut leaves = page::decode_plain(&parts.leading, 256).unwrap();
    for wire in &parts.pages {
        leaves.extend(page::decode(wire).unwrap());
    }
    leaves.extend(page::decode_plain(&parts.trailing, 256).unwrap());
    leaves
}

fn leaf(leaf: &RawLeaf) -> Value {
    match &leaf.body {
        LeafBody::Payload(payload) => {
            json!({"kind": leaf.kind, "payload_hex": HEXLOWER.encode(payload)})
        }
        LeafBody::Elided(digest) => {
            json!({"kind": leaf.kind, "digest_hex": HEXLOWER.encode(digest.as_bytes())})
        }
    }
}

/// Runs `tests/verify_proofs.py`: whether it accepts, and what it says.
fn python(arguments: &[&Path]) -> (bool, String) {
    let script = tests_folder().join("verify_proofs.py");
    let output = Command::new("python3").arg(script).args(arguments).output();
    let output = output.expect("python3, which this test needs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn another_tools_note_reader_opens_a_head_of_a_running_node() {
    let world = World::new(&["northstar", "tidepool"]);
    let (_reader, head) = published(&world);
    let origin = checkpoint_of(&head).origin.to_string();
    let vector = json!({
        "note": std::str::from_utf8(&head.note).unwrap(),
        "feed_vkey": checkpoint::vkey(&origin, &feed_key(world.member("northstar"))),
    });
    let path = world.write("head.json", vector.to_string());
    let script = tests_folder().join("sumdb_note/run.sh");
    // Go wants a folder for its cache.
    let cache = world.path().join("go");
    fs::create_dir(&cache).unwrap();
    let output = Command::new("sh")
        .arg(script)
        .arg(&path)
        .env("GOCACHE", &cache)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if said.starts_with("skipped:") {
        crate::skipped::skipped(&format!("Go's reader of signed notes: {}", said.trim()));
        return;
    }
    let trouble = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{trouble}");
    assert!(
        said.starts_with(&format!("ok: signed by {origin}\n")),
        "{said}"
    );
}

fn tests_folder() -> PathBuf {
    crate::checkout().join("tests")
}
