//! Feeds: leaves, pages, notes, cosignatures, evidence. Chunks as they travel are
//! changed where they are read, by the tests of the crate that does.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;

use super::{Mutation, Value, absent, message, mutations, records};
use crate::checkpoint::{self, Checkpoint, Origin};
use crate::chunk::{self, ChunkParts, PinnedHead};
use crate::evidence::ForkEvidence;
use crate::id::{CoalitionName, Digest, FeedId};
use crate::keys::{Feed, SecretKey, Witness};
use crate::leaf::tests;
use crate::leaf::{DESCRIBE, ERASE, Leaf, OPINION, PUBLISH, RETRACT, RawLeaf, read};
use crate::merkle::CompactRange;
use crate::page;
use crate::wire;

fn descriptor_of(kind: u8) -> prost_reflect::MessageDescriptor {
    message(match kind {
        DESCRIBE => "core.v1.Describe",
        PUBLISH => "core.v1.Publish",
        RETRACT => "core.v1.Retract",
        OPINION => "core.v1.Opinion",
        ERASE => "core.v1.Erase",
        other => panic!("kind {other}"),
    })
}

/// The samples, the describe leaf with the identity key's signature of its grants.
fn samples() -> Vec<(&'static str, RawLeaf, Leaf)> {
    let mut samples = tests::samples();
    if let (_, leaf, Leaf::Describe(describe)) = &mut samples[0] {
        describe.identity_signature = Some([5; 64]);
        *leaf = RawLeaf::new(DESCRIBE, describe.encode([6; 16]).unwrap());
    }
    samples
}

fn range(from: u64, leaves: &[RawLeaf]) -> CompactRange {
    let mut range = CompactRange::empty(from);
    for leaf in leaves {
        range.push(leaf.hash());
    }
    range
}

#[test]
fn every_field_of_a_leaf_is_in_its_hash() {
    let leaves: Vec<RawLeaf> = samples().into_iter().map(|(_, leaf, _)| leaf).collect();
    let whole = range(0, &leaves);
    let head = PinnedHead {
        size: leaves.len() as u64,
        root: whole.root().unwrap(),
    };
    let chunk_of = |leaves: &[RawLeaf]| ChunkParts {
        to: head.size,
        trailing: page::encode_plain(leaves).unwrap(),
        ..ChunkParts::default()
    };
    assert!(chunk::verify(&chunk_of(&leaves), &head).is_ok());
    let mut changed = 0;
    for (at, good) in leaves.iter().enumerate() {
        let payload = good.payload().unwrap();
        for change in mutations(&descriptor_of(good.kind), payload) {
            let bad = RawLeaf::new(good.kind, change.bytes.into());
            // Whatever it is, reading it is defined.
            let _ = read(&bad, 100);
            if bad.payload().unwrap().len() > crate::limits::LEAF_PAYLOAD_MAX_BYTES {
                continue;
            }
            let mut leaves = leaves.clone();
            leaves[at] = bad;
            let refused = chunk::verify(&chunk_of(&leaves), &head).unwrap_err();
            assert_eq!(refused.code(), "wrong_root", "{}", change.what);
            changed += 1;
        }
    }
    assert!(changed > 500, "{changed}");
}

#[test]
fn a_field_of_the_wrong_shape_makes_a_leaf_void_and_nothing_else() {
    for (name, leaf, _) in samples() {
        let descriptor = descriptor_of(leaf.kind);
        let payload = leaf.payload().unwrap();
        let mut voided = 0;
        for change in mutations(&descriptor, payload) {
            let read = read(&RawLeaf::new(leaf.kind, change.bytes.into()), 100);
            voided += usize::from(matches!(read, Leaf::Void(_)));
            assert!(!matches!(read, Leaf::Unknown(_) | Leaf::Elided));
            if change.what.contains("endless") || change.what.contains("too long") {
                assert!(matches!(read, Leaf::Void(_)), "{}", change.what);
            }
        }
        assert!(voided > 20, "{name}: {voided}");
    }
}

const SIZE: u64 = 1_300;

fn leaf(i: u64) -> RawLeaf {
    RawLeaf::new(PUBLISH, Bytes::copy_from_slice(&i.to_be_bytes()))
}

fn leaves(from: u64, to: u64) -> Vec<RawLeaf> {
    (from..to).map(leaf).collect()
}

/// The leaves 250 to 1,050: some before a page, three pages, some after.
fn sample_chunk() -> (ChunkParts, PinnedHead) {
    let hashes = |range: CompactRange| range.hashes().to_vec();
    let plain = |from, to| page::encode_plain(&leaves(from, to)).unwrap();
    let page = |from| page::encode(&leaves(from, from + 256)).unwrap();
    let parts = ChunkParts {
        from: 250,
        to: 1_050,
        leading: plain(250, 256),
        pages: [256, 512, 768].map(page).to_vec(),
        trailing: plain(1_024, 1_050),
        before: hashes(range(0, &leaves(0, 250))),
        after: hashes(range(1_050, &leaves(1_050, SIZE))),
    };
    let root = range(0, &leaves(0, SIZE)).root().unwrap();
    (parts, PinnedHead { size: SIZE, root })
}

#[test]
fn no_byte_of_a_page_is_changed_unseen() {
    let (good, head) = sample_chunk();
    let verified = chunk::verify(&good, &head).unwrap();
    for at in (0..good.pages[1].len()).step_by(7) {
        let mut bad = good.clone();
        let mut page = bad.pages[1].to_vec();
        page[at] ^= 1 << (at % 8);
        bad.pages[1] = page.into();
        if let Ok(same) = chunk::verify(&bad, &head) {
            // Zstd has spare bits; the leaves are what counts.
            assert!(same.leaves().eq(verified.leaves()), "byte {at}");
        }
    }
}

fn coalition() -> CoalitionName {
    CoalitionName::parse("csa-coalition.example").unwrap()
}

fn feed() -> FeedId {
    FeedId(Digest([7; 32]))
}

pub(super) fn key() -> SecretKey<Feed> {
    SecretKey::from_seed(&[1; 32])
}

pub(super) fn checkpoint(size: u64, root: Digest) -> Checkpoint {
    Checkpoint {
        origin: Origin {
            coalition: coalition(),
            feed: feed(),
            epoch: 3,
        },
        size,
        root,
    }
}

/// Changes every line, and every word of a line, of a text.
fn line_mutations(text: &str) -> Vec<Mutation> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut all = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let bare = line.trim_end();
        let mut instead = vec![
            String::new(),
            line.repeat(2),
            "\n".to_owned(),
            bare.to_owned(),
            format!("{bare}\r\n"),
            format!("{bare} \n"),
            format!(" {line}"),
            format!("0{line}"),
            format!("+{line}"),
            format!("{bare}0\n"),
            format!("{bare}=\n"),
            format!("{}\n", bare.to_uppercase()),
            format!("{}\n", "9".repeat(40)),
            format!("{}\n", u64::MAX),
            format!("{}\n", "x".repeat(5_000)),
            format!("{line}\u{2014} more AAAAAAAA\n"),
        ];
        for (word, _) in bare.match_indices(['/', ' ', '=']) {
            instead.push(format!("{}\n", &bare[..word]));
            instead.push(format!("{}//{}\n", &bare[..word], &bare[word..]));
        }
        for line in instead {
            let mut changed = lines.clone();
            changed[at] = &line;
            all.push(Mutation {
                what: format!(
                    "line {at} as {:?}",
                    line.chars().take(20).collect::<String>()
                ),
                bytes: changed.concat().into_bytes(),
            });
        }
    }
    all.push(Mutation {
        what: "no UTF-8".to_owned(),
        bytes: [text.as_bytes(), b"\xff\n"].concat(),
    });
    all.retain(|change| change.bytes != text.as_bytes());
    all
}

#[test]
fn every_line_of_a_note_is_protected() {
    let note = checkpoint::sign(&checkpoint(1_234, Digest::of(b"root")), &key());
    let check = |note: &[u8]| {
        let keys = |epoch| {
            if epoch == 3 {
                vec![key().public()]
            } else {
                vec![]
            }
        };
        checkpoint::verify(note, &coalition(), &feed(), keys)
    };
    assert!(check(&note).is_ok());
    let mut codes = BTreeSet::new();
    for change in line_mutations(std::str::from_utf8(&note).unwrap()) {
        let refused = check(&change.bytes).map(|_| ()).expect_err(&change.what);
        codes.insert(refused.code());
    }
    assert!(codes.len() > 2, "{codes:?}");
}

#[test]
fn every_word_of_a_cosignature_is_protected() {
    let witness = SecretKey::<Witness>::from_seed(&[2; 32]);
    let body = checkpoint(1_234, Digest::of(b"root")).body();
    let line = checkpoint::cosign(&body, "w.example", &witness, 1_800_000_000);
    let check = |body: &str, line: &[u8]| {
        checkpoint::verify_cosignature(body, line, "w.example", &witness.public())
    };
    assert!(check(&body, line.as_bytes()).is_ok());
    for change in line_mutations(&line) {
        assert!(check(&body, &change.bytes).is_err(), "{}", change.what);
    }
    for change in line_mutations(&body) {
        let Ok(body) = std::str::from_utf8(&change.bytes) else {
            continue;
        };
        assert!(check(body, line.as_bytes()).is_err(), "{}", change.what);
    }
}

/// Two histories that differ from leaf 40 on: 64 leaves of one, 100 of the other.
pub(super) fn sample_evidence() -> ForkEvidence {
    let history = |fork: u64, from: u64, to: u64| {
        let leaf = |i: u64| leaf(if i < 40 { i } else { i + fork });
        range(from, &(from..to).map(leaf).collect::<Vec<_>>())
    };
    let note = |fork, size| {
        let root = history(fork, 0, size).root().unwrap();
        Bytes::from(checkpoint::sign(&checkpoint(size, root), &key()))
    };
    ForkEvidence {
        feed: feed(),
        smaller: note(1_000, 60),
        larger: note(2_000, 100),
        before: history(2_000, 0, 60).hashes().to_vec(),
        between: history(2_000, 60, 100).hashes().to_vec(),
        node_cards: vec![Bytes::from_static(b"card")],
    }
}

#[test]
fn every_field_of_evidence_is_protected() {
    let descriptor = message("core.v1.ForkEvidence");
    let bytes = sample_evidence().encode();
    assert_eq!(absent(&descriptor, &bytes), [""; 0]);
    let check = |bytes: Vec<u8>| {
        ForkEvidence::decode(&bytes.into())?.verify(
            &coalition(),
            |_| vec![key().public()],
            |_| None,
        )
    };
    let fork = check(bytes.clone()).unwrap();
    for change in mutations(&descriptor, &bytes) {
        if let Ok(same) = check(change.bytes) {
            // The cards are checked where the keys are taken from them.
            assert_eq!(*same, *fork, "{}", change.what);
        }
    }
}

#[test]
fn the_samples_leave_no_field_of_a_leaf_out() {
    let mut left_out = Vec::new();
    for (_, leaf, _) in samples() {
        left_out.extend(absent(&descriptor_of(leaf.kind), leaf.payload().unwrap()));
    }
    // Own work names no owner; an entry may stay for ever.
    let expected = [
        "hashpact.core.v1.Terms.list_owner",
        "hashpact.core.v1.Publish.expires_ms",
    ];
    assert_eq!(left_out, expected);
}

#[test]
fn mutations_reach_the_fields_of_messages_within_messages() {
    let (_, describe, _) = samples().swap_remove(0);
    let payload = describe.payload().unwrap();
    let all = mutations(&descriptor_of(DESCRIBE), payload);
    let has = |part: &str| all.iter().any(|change| change.what.contains(part));
    assert!(has("Grant.relay#1 huge") && has("Terms.text#2 empty"));
    let whole: Vec<u8> = records(payload)
        .iter()
        .flat_map(super::Record::encode)
        .collect();
    assert_eq!(whole, payload[..]);
    assert!(matches!(records(payload)[0].value, Value::Bytes(_)));
    assert!(wire::Describe::decode(payload.clone()).is_ok());
}
