//! Every field of a chunk, changed: it leads to the same leaves under the same head,
//! or is refused. And bytes that are nothing, as every message.

use std::collections::BTreeSet;

use hashpact_core::chunk::{ChunkParts, verify_extension};
use hashpact_core::leaf::{PUBLISH, RawLeaf};
use hashpact_core::merkle::CompactRange;
use hashpact_core::page;
use hashpact_core::reject::Rejection;
use proptest::prelude::*;
use prost::Message as _;

use super::mutated::{has, taken};
use super::mutations::{Record, absent, message, mutations};
use super::*;
use crate::types::ProofParts;
use crate::{convert, wire};

const SIZE: u64 = 1_300;

fn leaves(from: u64, to: u64) -> Vec<RawLeaf> {
    let leaf = |n: u64| RawLeaf::new(PUBLISH, Bytes::copy_from_slice(&n.to_be_bytes()));
    (from..to).map(leaf).collect()
}

fn range(from: u64, to: u64) -> CompactRange {
    let mut range = CompactRange::empty(from);
    range.extend(leaves(from, to).iter().map(RawLeaf::hash));
    range
}

/// The leaves 250 to 1,050, some before a page, three pages, some after; or the
/// proof of them alone.
fn sample_chunk(proof_only: bool) -> (wire::PullItem, PinnedHead) {
    let (before, after) = (range(0, 250), range(1_050, SIZE));
    let (before, after) = (before.hashes().to_vec(), after.hashes().to_vec());
    let part = if proof_only {
        PullPart::Proof(ProofParts {
            from: 250,
            to: 1_050,
            before,
            range: range(250, 1_050).hashes().to_vec(),
            after,
        })
    } else {
        let page = |from| page::encode(&leaves(from, from + 256)).unwrap();
        PullPart::Chunk(ChunkParts {
            from: 250,
            to: 1_050,
            leading: page::encode_plain(&leaves(250, 256)).unwrap(),
            pages: [256, 512, 768].map(page).to_vec(),
            trailing: page::encode_plain(&leaves(1_024, 1_050)).unwrap(),
            before,
            after,
        })
    };
    let head = PinnedHead {
        size: SIZE,
        root: range(0, SIZE).root().unwrap(),
    };
    (part.into(), head)
}

/// What a chunk comes to; `None` for a kind that a later version may add.
fn chunk_of(bytes: &[u8], head: &PinnedHead) -> Result<Option<VerifiedChunk>, Rejection> {
    match taken(bytes, |item| convert::pull_part(item, false))? {
        Some(PullPart::Chunk(parts)) => chunk::verify(&parts, head).map(Some),
        Some(PullPart::Proof(_)) => panic!("a proof where leaves were asked for"),
        None => Ok(None),
    }
}

fn proof_of(bytes: &[u8], head: &PinnedHead) -> Result<Option<CompactRange>, Rejection> {
    match taken(bytes, |item| convert::pull_part(item, true))? {
        Some(PullPart::Proof(parts)) => {
            verify_extension(&parts, &range(0, parts.from.min(SIZE)), head).map(Some)
        }
        Some(PullPart::Chunk(_)) => panic!("leaves where a proof was asked for"),
        None => Ok(None),
    }
}

#[test]
fn every_field_of_a_chunk_is_protected() {
    let (item, head) = sample_chunk(false);
    let bytes = item.encode_to_vec();
    let good = chunk_of(&bytes, &head).unwrap().unwrap();
    let left_out = absent(&message("federation.v1.PullItem"), &bytes);
    assert_eq!(left_out, ["hashpact.federation.v1.Chunk.range"]);
    let mut codes = BTreeSet::new();
    for change in mutations(&message("federation.v1.PullItem"), &bytes) {
        match chunk_of(&change.bytes, &head) {
            Err(rejection) => drop(codes.insert(rejection.code())),
            Ok(Some(same)) => assert_eq!(same, good, "{}", change.what),
            Ok(None) => {}
        }
    }
    has(
        &codes,
        &["malformed", "invalid", "proof_length", "wrong_root"],
    );
}

#[test]
fn every_field_of_a_proof_is_protected() {
    let (item, head) = sample_chunk(true);
    let bytes = item.encode_to_vec();
    let good = proof_of(&bytes, &head).unwrap().unwrap();
    let mut codes = BTreeSet::new();
    for change in mutations(&message("federation.v1.PullItem"), &bytes) {
        match proof_of(&change.bytes, &head) {
            Err(rejection) => drop(codes.insert(rejection.code())),
            Ok(Some(same)) => assert_eq!(same, good, "{}", change.what),
            Ok(None) => {}
        }
    }
    has(
        &codes,
        &["malformed", "invalid", "proof_length", "wrong_root"],
    );
}

#[test]
fn the_corpus_of_chunks_is_read_as_it_was() {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("tests are run by cargo");
    let folder = std::path::PathBuf::from(here).join("../../tests/corpus/chunk");
    let head = sample_chunk(false).1;
    for file in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let chunk = std::fs::read(file.path()).unwrap();
        // The files hold the chunk; what travels has it as its field 1.
        let read = chunk_of(&Record::delimited(1, &chunk).encode(), &head);
        let bad = file.file_name().to_string_lossy().starts_with("bad-");
        assert_eq!(
            matches!(read, Ok(Some(_))),
            !bad,
            "{}",
            file.path().display()
        );
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reading_of_a_message_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let head = sample_head();
        let _ = chunk_of(&bytes, &head);
        let _ = proof_of(&bytes, &head);
        let _ = taken(&bytes, convert::announcement);
        let _ = taken(&bytes, convert::roster_item);
        let _ = taken(&bytes, |r: wire::PullRequest| convert::pull_request(&r));
        let _ = taken(&bytes, |h: wire::HelloRequest| convert::node_info(h.node));
    }
}

fn sample_head() -> PinnedHead {
    PinnedHead {
        size: SIZE,
        root: Digest::of(b"of no leaves"),
    }
}
