//! Bytes that are nothing: no decoder panics, and what is in the corpus is read as
//! it was when it was put there.
//!
//! `tests/corpus/‹decoder›/` holds small files: samples that fuzzing starts from,
//! and whatever once broke something. Each is read by its decoder, and by all the
//! others too.

use bytes::Bytes;
use proptest::prelude::*;

use crate::bundle::{CHECK_BYTES, Header, MAGIC, PREFIX_BYTES, Prefix, RecordKind, Tally};
use crate::card::NodeCard;
use crate::checkpoint::{Checkpoint, Origin};
use crate::enrol::VerifiedRequest;
use crate::envelope::{Envelope, PayloadType, TlsKey};
use crate::equivocation::DocumentEvidence;
use crate::evidence::ForkEvidence;
use crate::evidence_file::EvidenceFile;
use crate::id::{Digest, UnixMillis};
use crate::leaf::{RawLeaf, read};
use crate::liveness::Liveness;
use crate::note::{Note, SignatureLine};
use crate::page;
use crate::proof::Proof;
use crate::receipt::Receipt;
use crate::reject::Rejection;
use crate::roster::{Roster, RosterFile};
use crate::suspension::Suspension;

type Decoder = fn(&Bytes) -> bool;

/// Every decoder of bytes from outside; each says whether it took them.
const DECODERS: [(&str, Decoder); 19] = [
    ("envelope", |b| {
        [
            PayloadType::Roster,
            PayloadType::NodeCard,
            PayloadType::EnrolmentRequest,
            PayloadType::Suspension,
            PayloadType::Receipt,
        ]
        .into_iter()
        .any(|kind| Envelope::decode(b.clone(), kind).is_ok())
    }),
    ("roster", |b| Roster::read(b).is_ok()),
    ("roster-file", |b| RosterFile::decode(b.clone()).is_ok()),
    ("card", |b| NodeCard::read(b).is_ok()),
    ("suspension", |b| Suspension::read(b).is_ok()),
    ("request", |b| {
        Envelope::decode(b.clone(), PayloadType::EnrolmentRequest)
            .and_then(|e| VerifiedRequest::verify(e, UnixMillis(1_800_000_000_000)))
            .is_ok()
    }),
    ("tls-key", |b| TlsKey::from_spki(b).is_ok()),
    ("note", |b| Note::parse(b).is_ok()),
    ("signature-line", |b| SignatureLine::parse(b).is_ok()),
    ("checkpoint", |b| {
        std::str::from_utf8(b)
            .is_ok_and(|text| Origin::parse(text).is_ok() | Checkpoint::parse_body(text).is_ok())
    }),
    ("page", |b| page::decode(b).is_ok()),
    ("leaf", |b| {
        let plain = page::decode_plain(b, 1_000);
        if let Ok(leaves) = &plain {
            for leaf in leaves {
                let _ = read(leaf, 1 << 20);
            }
        }
        for kind in 1..7 {
            let _ = read(&RawLeaf::new(kind, b.clone()), 1 << 20);
        }
        page::decode_leaf(b).is_ok() | plain.is_ok()
    }),
    ("evidence", |b| ForkEvidence::decode(b).is_ok()),
    ("liveness", |b| Liveness::from_bytes(b).is_ok()),
    ("bundle", |b| walk(b).is_ok()),
    ("receipt", |b| Receipt::read(b).is_ok()),
    ("document-evidence", |b| DocumentEvidence::decode(b).is_ok()),
    // Whoever reads one of these goes on to verify it.
    ("proof", |b| {
        let read = Proof::decode(b);
        read.is_ok_and(|read| read.verify(&GENESIS).is_err())
    }),
    ("evidence-file", |b| {
        let read = EvidenceFile::decode(b);
        read.is_ok_and(|read| read.verify(&GENESIS).is_err())
    }),
];

/// Of no coalition.
const GENESIS: Digest = Digest([0; 32]);

/// Walks through a bundle as whoever takes it in does.
fn walk(file: &Bytes) -> Result<(), Rejection> {
    let cut = || Rejection::malformed("bundle", "cut");
    let mut rest = file.strip_prefix(MAGIC).ok_or_else(cut)?;
    let mut tally = Tally::default();
    let mut first = true;
    loop {
        let (prefix, after) = rest.split_first_chunk::<PREFIX_BYTES>().ok_or_else(cut)?;
        let prefix = Prefix::read(*prefix)?;
        let (body, after) = after.split_at_checked(prefix.length).ok_or_else(cut)?;
        let (check, after) = after.split_first_chunk::<CHECK_BYTES>().ok_or_else(cut)?;
        prefix.check(body, *check)?;
        if std::mem::take(&mut first) != (prefix.kind == RecordKind::Header) {
            return Err(cut());
        }
        match prefix.kind {
            RecordKind::Header => Header::read(body).map(drop)?,
            RecordKind::End if after.is_empty() => return tally.check_end(body),
            RecordKind::End => return Err(cut()),
            RecordKind::Document | RecordKind::Evidence | RecordKind::Feed | RecordKind::Chunk => {}
        }
        tally.count(*check)?;
        rest = after;
    }
}

fn corpus() -> std::path::PathBuf {
    crate::here().join("../../tests/corpus")
}

/// Files that begin with `bad-` are refused by their decoder, others are taken.
#[test]
fn the_corpus_is_read_as_it_was() {
    for (name, decoder) in DECODERS {
        let folder = std::fs::read_dir(corpus().join(name)).unwrap();
        let files: Vec<_> = folder.map(Result::unwrap).collect();
        assert!(!files.is_empty(), "{name}");
        for file in files {
            let bytes = Bytes::from(std::fs::read(file.path()).unwrap());
            let bad = file.file_name().to_string_lossy().starts_with("bad-");
            assert_eq!(decoder(&bytes), !bad, "{}", file.path().display());
            for (_, decoder) in DECODERS {
                decoder(&bytes);
            }
        }
    }
}

#[test]
fn every_folder_of_the_corpus_has_a_decoder() {
    // Chunks are read where they are converted, by the tests of `hashpact-net`, pictures
    // by those of `hashpact-matching`.
    let known = |name: &str| {
        ["chunk", "image"].contains(&name) || DECODERS.iter().any(|(decoder, _)| *decoder == name)
    };
    for folder in std::fs::read_dir(corpus()).unwrap() {
        let name = folder.unwrap().file_name();
        assert!(known(&name.to_string_lossy()), "{}", name.display());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let bytes = Bytes::from(bytes);
        for (_, decoder) in DECODERS {
            decoder(&bytes);
        }
    }

    /// Bytes that begin like a message get further.
    #[test]
    fn no_fields_make_a_decoder_panic(fields in prop::collection::vec(field(), 0..12)) {
        let bytes = Bytes::from(fields.concat());
        for (_, decoder) in DECODERS {
            decoder(&bytes);
        }
    }
}

fn field() -> impl Strategy<Value = Vec<u8>> {
    let number = 1_u32..15;
    let varint = any::<u64>().prop_map(|value| (0, super::varint(value)));
    let delimited = prop::collection::vec(any::<u8>(), 0..40).prop_map(|value| {
        let bytes = [super::varint(value.len() as u64), value].concat();
        (2, bytes)
    });
    let digest = any::<u8>().prop_map(|byte| (2, [vec![32], vec![byte; 32]].concat()));
    (number, prop_oneof![varint, delimited, digest])
        .prop_map(|(number, (wire_type, value))| [super::key(number, wire_type), value].concat())
}
