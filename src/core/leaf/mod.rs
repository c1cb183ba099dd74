//! Leaves: one record of a feed each.
//!
//! A leaf is a kind and a payload; what is hashed into the feed's tree is the
//! record, `kind ‖ SHA-256(payload)`. So a holder may drop a payload and keep the
//! record, and the tree stays the same.
//!
//! This module owns the raw leaf and its hash, and the typed payloads with their
//! rules. It does not own pages (`page`) nor which leaves are dead (`liveness`).
//! Nothing in a leaf is trusted: [`RawLeaf`] is bytes within their bounds.

pub mod audit;
mod describe;
mod opinion;
mod publish;
mod read;
mod reason;
mod retract;
mod rules;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::id::Digest;

pub use describe::{Describe, FeedKind, Grant, Grantee, Source, Terms};
pub use opinion::{Opinion, Stance, Subject};
pub use publish::{
    Basis, Classification, LABEL_MAX_BYTES, LABELS_MAX, MediaKind, Publish, SIGNALS_MAX,
    SOURCE_REFERENCE_MAX_BYTES,
};
pub use read::{Leaf, read};
pub use reason::{REASONS, Reason};
pub use retract::{Erase, IndexRange, RANGES_PER_LEAF, Retract, RetractReason};

/// The kind byte of a describe leaf.
pub const DESCRIBE: u8 = 1;
/// The kind byte of a publish leaf.
pub const PUBLISH: u8 = 2;
/// The kind byte of a retract leaf.
pub const RETRACT: u8 = 3;
/// The kind byte of an opinion leaf.
pub const OPINION: u8 = 4;
/// The kind byte of an erase leaf.
pub const ERASE: u8 = 5;

/// A leaf's record: the kind, then the SHA-256 of the payload.
pub type Record = [u8; 33];

/// A leaf as it is stored and travels: any kind byte, a payload within the limit
/// or only its digest. Nothing else about it is checked.
#[derive(Clone, PartialEq, Eq)]
pub struct RawLeaf {
    /// The kind byte; kinds that are not known are kept.
    pub kind: u8,
    /// The payload, or its digest.
    pub body: LeafBody,
}

/// What is held of a leaf.
#[derive(Clone, PartialEq, Eq)]
pub enum LeafBody {
    /// The payload's bytes as the publisher made them, at most 8,000.
    Payload(Bytes),
    /// The SHA-256 of a payload that is not held.
    Elided(Digest),
}

impl RawLeaf {
    /// Makes a leaf of `kind` with its payload.
    #[must_use]
    pub const fn new(kind: u8, payload: Bytes) -> Self {
        Self {
            kind,
            body: LeafBody::Payload(payload),
        }
    }

    /// The payload, where it is held.
    #[must_use]
    pub const fn payload(&self) -> Option<&Bytes> {
        match &self.body {
            LeafBody::Payload(payload) => Some(payload),
            LeafBody::Elided(_) => None,
        }
    }

    /// Whether only the record is held.
    #[must_use]
    pub const fn is_elided(&self) -> bool {
        matches!(self.body, LeafBody::Elided(_))
    }

    /// The same leaf without its payload; its record and hash are the same.
    #[must_use]
    pub fn elided(&self) -> Self {
        Self {
            kind: self.kind,
            body: LeafBody::Elided(self.payload_digest()),
        }
    }

    /// The SHA-256 of the payload.
    #[must_use]
    pub fn payload_digest(&self) -> Digest {
        match &self.body {
            LeafBody::Payload(payload) => Digest::of(payload),
            LeafBody::Elided(digest) => *digest,
        }
    }

    /// The record: `kind ‖ SHA-256(payload)`.
    #[must_use]
    pub fn record(&self) -> Record {
        let mut record = [0; 33];
        if let Some((kind, digest)) = record.split_first_mut() {
            *kind = self.kind;
            digest.copy_from_slice(self.payload_digest().as_bytes());
        }
        record
    }

    /// The leaf's hash in the feed's tree: SHA-256 of `0x00 ‖ record` (RFC 6962).
    #[must_use]
    pub fn hash(&self) -> Digest {
        let mut input = [0; 34];
        if let Some((_, record)) = input.split_first_mut() {
            record.copy_from_slice(&self.record());
        }
        Digest(Sha256::digest(input).into())
    }
}

/// Shows kind and length, never the payload: it holds signals.
impl fmt::Debug for RawLeaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawLeaf({}, {:?})", self.kind, self.body)
    }
}

impl fmt::Debug for LeafBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload(payload) => write!(f, "{} bytes", payload.len()),
            Self::Elided(_) => f.write_str("elided"),
        }
    }
}
