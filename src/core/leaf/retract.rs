//! Retract and erase: what a publisher takes back.

use bytes::Bytes;

use super::rules::{self, Lines};
use crate::id::UnixMillis;
use crate::reject::Rejection;
use crate::wire;

const RETRACT: &str = "retract leaf";
const ERASE: &str = "erase leaf";
const NOTE_MAX_BYTES: usize = 500;
const LEGAL_BASIS_MAX_BYTES: usize = 500;
/// Ranges that fit one leaf beside the longest note, whatever their indexes: 16
/// bytes each at most.
pub const RANGES_PER_LEAF: usize = 400;

/// Consecutive indexes, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IndexRange {
    /// The first index.
    pub first: u64,
    /// How many.
    pub count: u64,
}

impl IndexRange {
    /// One past the last index.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.first.saturating_add(self.count)
    }

    /// Gathers ascending indexes into the fewest ranges; what does not ascend is
    /// left out.
    pub fn gather(indexes: impl IntoIterator<Item = u64>) -> Vec<Self> {
        let mut ranges: Vec<Self> = Vec::new();
        for index in indexes {
            match ranges.last_mut() {
                Some(last) if index < last.end() => {}
                Some(last) if index == last.end() => last.count = last.count.saturating_add(1),
                _ => ranges.push(Self {
                    first: index,
                    count: 1,
                }),
            }
        }
        ranges
    }
}

/// The publisher withdraws entries of its own; permanent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retract {
    /// The leaves withdrawn: ascending, apart from each other, before this leaf.
    pub indexes: Vec<IndexRange>,
    /// Why.
    pub reason: RetractReason,
    /// For people, at most 500 bytes.
    pub note: String,
    /// Whether receivers should recheck what they did because of these entries.
    pub recheck: bool,
    /// When, by the publisher's clock.
    pub created: UnixMillis,
    /// By the publisher's identity key; needed for a mass retraction.
    pub identity_signature: Option<[u8; 64]>,
}

/// Why an entry is withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetractReason {
    /// It was wrong.
    Wrong,
    /// It stands elsewhere already.
    Duplicate,
    /// The source withdrew it.
    SourceWithdrew,
    /// The law requires it.
    Legal,
    /// Another reason.
    Other,
}

/// Retracts, and asks every holder to drop the payloads and keep the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erase {
    /// The leaves erased: ascending, apart from each other, before this leaf.
    pub indexes: Vec<IndexRange>,
    /// The law it rests on, 1 to 500 bytes.
    pub legal_basis: String,
    /// When, by the publisher's clock.
    pub created: UnixMillis,
}

impl Retract {
    /// Encodes the payload, with fresh random bytes as `salt`.
    ///
    /// # Errors
    /// [`Rejection::Invalid`] for a broken rule, [`Rejection::TooLarge`].
    pub fn encode(&self, salt: [u8; 16]) -> Result<Bytes, Rejection> {
        self.check()?;
        rules::encode(&wire::Retract {
            salt: Bytes::copy_from_slice(&salt),
            indexes: to_wire(&self.indexes),
            reason: match self.reason {
                RetractReason::Wrong => wire::RetractReason::Wrong,
                RetractReason::Duplicate => wire::RetractReason::Duplicate,
                RetractReason::SourceWithdrew => wire::RetractReason::SourceWithdrew,
                RetractReason::Legal => wire::RetractReason::Legal,
                RetractReason::Other => wire::RetractReason::Other,
            }
            .into(),
            note: self.note.clone(),
            recheck: self.recheck,
            created_ms: self.created.0,
            identity_signature: self
                .identity_signature
                .map(|signature| Bytes::copy_from_slice(&signature))
                .unwrap_or_default(),
        })
    }

    pub(super) fn read(payload: &Bytes, index: u64) -> Result<Self, Rejection> {
        let message: wire::Retract = rules::decode(RETRACT, payload)?;
        rules::salt(RETRACT, &message.salt)?;
        let reason = match message.reason() {
            wire::RetractReason::Wrong => Some(RetractReason::Wrong),
            wire::RetractReason::Duplicate => Some(RetractReason::Duplicate),
            wire::RetractReason::SourceWithdrew => Some(RetractReason::SourceWithdrew),
            wire::RetractReason::Legal => Some(RetractReason::Legal),
            wire::RetractReason::Other => Some(RetractReason::Other),
            wire::RetractReason::Unspecified => None,
        };
        let identity_signature = match message.identity_signature.as_ref() {
            [] => None,
            bytes => Some(bytes.try_into().map_err(|_| {
                Rejection::invalid(RETRACT, "the identity signature has not 64 bytes")
            })?),
        };
        let retract = Self {
            indexes: from_wire(&message.indexes),
            reason: rules::enumerated("retraction reason", reason)?,
            note: message.note,
            recheck: message.recheck,
            created: UnixMillis(message.created_ms),
            identity_signature,
        };
        retract.check()?;
        rules::before(RETRACT, retract.indexes.last().map(IndexRange::end), index)?;
        Ok(retract)
    }

    fn check(&self) -> Result<(), Rejection> {
        rules::canonical(RETRACT, &self.indexes)?;
        rules::text("retraction note", &self.note, NOTE_MAX_BYTES, Lines::Many)
    }
}

impl Erase {
    /// Encodes the payload, with fresh random bytes as `salt`.
    ///
    /// # Errors
    /// [`Rejection::Invalid`] for a broken rule, [`Rejection::TooLarge`].
    pub fn encode(&self, salt: [u8; 16]) -> Result<Bytes, Rejection> {
        self.check()?;
        rules::encode(&wire::Erase {
            salt: Bytes::copy_from_slice(&salt),
            indexes: to_wire(&self.indexes),
            legal_basis: self.legal_basis.clone(),
            created_ms: self.created.0,
        })
    }

    pub(super) fn read(payload: &Bytes, index: u64) -> Result<Self, Rejection> {
        let message: wire::Erase = rules::decode(ERASE, payload)?;
        rules::salt(ERASE, &message.salt)?;
        let erase = Self {
            indexes: from_wire(&message.indexes),
            legal_basis: message.legal_basis,
            created: UnixMillis(message.created_ms),
        };
        erase.check()?;
        rules::before(ERASE, erase.indexes.last().map(IndexRange::end), index)?;
        Ok(erase)
    }

    fn check(&self) -> Result<(), Rejection> {
        rules::canonical(ERASE, &self.indexes)?;
        if self.legal_basis.is_empty() {
            return Err(Rejection::invalid(ERASE, "no legal basis"));
        }
        let basis = self.legal_basis.as_str();
        rules::text("legal basis", basis, LEGAL_BASIS_MAX_BYTES, Lines::Many)
    }
}

fn to_wire(ranges: &[IndexRange]) -> Vec<wire::IndexRange> {
    let range = |range: &IndexRange| wire::IndexRange {
        first: range.first,
        count: range.count,
    };
    ranges.iter().map(range).collect()
}

fn from_wire(ranges: &[wire::IndexRange]) -> Vec<IndexRange> {
    let range = |range: &wire::IndexRange| IndexRange {
        first: range.first,
        count: range.count,
    };
    ranges.iter().map(range).collect()
}
