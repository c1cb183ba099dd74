//! The raw path of a bulk load, without leaves, proofs or protocol: the limit that
//! `hashpact bench pull` is measured against.

use std::path::Path;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::bulk::{self, Spill};
use crate::error::Result;
use crate::families::Family;
use crate::keys::{self, FeedNo};
use crate::options::StoreOptions;
use crate::record::PostingRecord;
use crate::store::Store;

/// How long each stage of the limit took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitReport {
    /// Leaves hashed and indexed.
    pub leaves: u64,
    /// SHA-256 of payload and record of each leaf, and of the tree's nodes.
    pub hash: Duration,
    /// Postings partitioned into the spill.
    pub spill: Duration,
    /// Partitions sorted, written as files, ingested.
    pub files: Duration,
}

/// A bench entry's payload in bytes.
const PAYLOAD_BYTES: usize = 134;

/// Hashes `leaves` payloads and puts two postings for each through the same spill
/// and files as a bulk load, into a store of its own at `dir`, which must be empty.
///
/// # Errors
/// What disk and RocksDB answer.
pub fn bench_limit(dir: &Path, leaves: u64, threads: usize) -> Result<LimitReport> {
    let options = StoreOptions {
        bulk_threads: threads,
        ..StoreOptions::default()
    };
    let store = Store::open(dir, &options)?;
    let mut spill = Spill::new(&store.inner);
    let (mut hash, mut put) = (Duration::ZERO, Duration::ZERO);
    let mut payload = [0_u8; PAYLOAD_BYTES];
    let mut root = [0_u8; 32];
    let mut at = 0;
    while at < leaves {
        let end = at.saturating_add(4_096).min(leaves);
        let begun = Instant::now();
        let digests: Vec<[u8; 32]> = (at..end)
            .map(|index| {
                payload[..8].copy_from_slice(&index.to_be_bytes());
                let digest: [u8; 32] = Sha256::digest(payload).into();
                let leaf: [u8; 32] = Sha256::digest(digest).into();
                let mut node = Sha256::new();
                node.update(root);
                node.update(leaf);
                root = node.finalize().into();
                digest
            })
            .collect();
        let hashed = Instant::now();
        for (index, digest) in (at..end).zip(&digests) {
            put_postings(&mut spill, index, digest, &root)?;
        }
        hash += hashed.duration_since(begun);
        put += hashed.elapsed();
        at = end;
    }
    let begun = Instant::now();
    bulk::load(&store.inner, spill)?;
    Ok(LimitReport {
        leaves,
        hash,
        spill: put,
        files: begun.elapsed(),
    })
}

/// Two postings: the digest, and another value of the same randomness.
fn put_postings(spill: &mut Spill, index: u64, digest: &[u8; 32], mask: &[u8; 32]) -> Result<()> {
    let record = PostingRecord {
        media_kind: 1,
        basis: 1,
        quality: Some(100),
        class: 0,
        published: hashpact_core::id::UnixMillis(index),
        first_back: 0,
    };
    let mut value = Vec::with_capacity(crate::record::POSTING_MAX_BYTES);
    record.write(&mut value);
    let mut key = [3; 33];
    key[1..].copy_from_slice(digest);
    spill.put(
        Family::Signals,
        &keys::signal(&key, FeedNo(1), index),
        &value,
    )?;
    key[0] = 5;
    for (byte, mask) in key[1..].iter_mut().zip(mask) {
        *byte ^= mask;
    }
    spill.put(
        Family::Signals,
        &keys::signal(&key, FeedNo(1), index),
        &value,
    )
}
