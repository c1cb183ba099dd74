//! Keys and values of the family `opinions`, and the migration that fills it.
//!
//! | part of a key | bytes |
//! |---|---|
//! | 1, feed id, first index (of an entry); or 2, kind and 32 bytes (of a signal) | 41, 34 |
//! | the member's number, the id of its opinions feed, the leaf's index | 4, 32, 8 |
//!
//! Whole ids, so that every node reads the opinions about one subject in one order.

use hashpact_core::id::{Digest, FeedId, MemberNumber, UnixMillis};
use hashpact_core::leaf::{self, Leaf, Opinion, RawLeaf, Stance, Subject};
use rocksdb::WriteBatch;

use super::prefix_of;
use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::{opinion_feeds, part_row};
use crate::keys::IndexKey;
use crate::leaves::page_end;
use crate::record::version;
use crate::store::Inner;

pub(super) const ENTRY: u8 = 1;
pub(super) const SIGNAL: u8 = 2;
const ENTRY_BYTES: usize = 41;
const SIGNAL_BYTES: usize = 34;
/// Member, feed, index.
const BY_BYTES: usize = 44;
/// Version, stance, confidence, kind, reason, time.
pub(crate) const OPINION_VALUE_BYTES: usize = 19;

/// What a value says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) stance: Stance,
    pub(super) confidence: u8,
    pub(super) kind: Option<u32>,
    pub(super) reason_id: u32,
    pub(super) created: UnixMillis,
}

/// Who says it, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct By {
    pub(crate) member: MemberNumber,
    pub(crate) feed: FeedId,
    pub(crate) index: u64,
}

/// Where the opinions about all entries of a feed begin.
pub(super) fn feed_prefix(feed: &FeedId) -> [u8; 33] {
    let mut key = [ENTRY; 33];
    key[1..].copy_from_slice(feed.as_bytes());
    key
}

/// Where the opinions about an entry begin.
pub(super) fn entry_prefix(feed: &FeedId, first: u64) -> [u8; ENTRY_BYTES] {
    let mut key = [ENTRY; ENTRY_BYTES];
    key[1..33].copy_from_slice(feed.as_bytes());
    key[33..].copy_from_slice(&first.to_be_bytes());
    key
}

/// Where the opinions about a signal begin.
pub(super) fn signal_prefix(signal: &IndexKey) -> [u8; SIGNAL_BYTES] {
    let mut key = [SIGNAL; SIGNAL_BYTES];
    key[1..].copy_from_slice(signal);
    key
}

pub(super) fn key(
    (member, feed): (MemberNumber, FeedId),
    index: u64,
    subject: &Subject,
) -> Vec<u8> {
    let mut key = prefix_of(subject);
    key.extend_from_slice(&member.value().to_be_bytes());
    key.extend_from_slice(feed.as_bytes());
    key.extend_from_slice(&index.to_be_bytes());
    key
}

/// What the opinion of a key is about: all but who says it.
pub(super) fn subject_of(key: &[u8]) -> &[u8] {
    let end = key.len().saturating_sub(BY_BYTES);
    key.get(..end).unwrap_or(key)
}

/// Reads who says the opinion of a key.
pub(crate) fn read_key(key: &[u8]) -> Result<By> {
    let wrong = || StoreError::corrupt("an opinion's key");
    let by = key.get(subject_of(key).len()..).ok_or_else(wrong)?;
    let (member, rest) = by.split_first_chunk::<4>().ok_or_else(wrong)?;
    let (feed, index) = rest.split_first_chunk::<32>().ok_or_else(wrong)?;
    let index: [u8; 8] = index.try_into().map_err(|_| wrong())?;
    Ok(By {
        member: MemberNumber::new(u32::from_be_bytes(*member)).map_err(|_| wrong())?,
        feed: FeedId(Digest(*feed)),
        index: u64::from_be_bytes(index),
    })
}

/// The entry that a subject is; `None` for a signal.
pub(super) fn entry_of(subject: &[u8]) -> Option<(FeedId, u64)> {
    let (kind, rest) = subject.split_first()?;
    let (feed, first) = rest.split_first_chunk::<32>()?;
    let first: [u8; 8] = first.try_into().ok()?;
    (*kind == ENTRY).then(|| (FeedId(Digest(*feed)), u64::from_be_bytes(first)))
}

pub(super) fn value(opinion: &Opinion) -> [u8; OPINION_VALUE_BYTES] {
    let mut out = [0; OPINION_VALUE_BYTES];
    out[0] = version();
    out[1] = match opinion.stance {
        Stance::Positive => 1,
        Stance::Seed => 2,
        Stance::Negative => 3,
    };
    out[2] = opinion.confidence;
    let kind = match &opinion.subject {
        Subject::Entry { kind, .. } => kind.unwrap_or_default(),
        Subject::OwnSignal(_) => 0,
    };
    out[3..7].copy_from_slice(&kind.to_be_bytes());
    out[7..11].copy_from_slice(&opinion.reason_id.to_be_bytes());
    out[11..].copy_from_slice(&opinion.created.0.to_be_bytes());
    out
}

pub(super) fn read_value(value: &[u8]) -> Result<Value> {
    let wrong = || StoreError::corrupt("an opinion's row");
    let row: &[u8; OPINION_VALUE_BYTES] = value.try_into().map_err(|_| wrong())?;
    if row[0] != version() {
        return Err(wrong());
    }
    let number = |at: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&row[at..at + 4]);
        u32::from_be_bytes(bytes)
    };
    let mut created = [0; 8];
    created.copy_from_slice(&row[11..]);
    Ok(Value {
        stance: match row[1] {
            1 => Stance::Positive,
            2 => Stance::Seed,
            3 => Stance::Negative,
            _ => return Err(wrong()),
        },
        confidence: row[2],
        kind: Some(number(3)).filter(|kind| *kind > 0),
        reason_id: number(7),
        created: UnixMillis(u64::from_be_bytes(created)),
    })
}

/// Schema 1 to 2: opinions that were stored before they were indexed get their rows.
/// It runs before feeds are loaded, and writes the same rows when it runs again.
pub(crate) fn migrate(inner: &Inner) -> Result<()> {
    for (no, new) in opinion_feeds(inner)? {
        let row = part_row(inner, no)?;
        let mut at = 0;
        while at < row.indexed {
            let end = page_end(at).min(row.indexed);
            let leaves = inner.leaves(no, row.stored, at, end)?;
            // Crash: before, the page is read again; after, it has its rows.
            let mut batch = WriteBatch::default();
            for (index, raw) in (at..).zip(&leaves) {
                if let Some(opinion) = opinion_of(raw, index) {
                    let key = key((new.publisher, new.id), index, &opinion.subject);
                    batch.put_cf(inner.cf(Family::Opinions)?, key, value(&opinion));
                }
            }
            inner.write_synced(batch, "indexing opinions")?;
            at = end;
        }
    }
    Ok(())
}

/// The opinion that a leaf is, if it is one.
pub(crate) fn opinion_of(raw: &RawLeaf, index: u64) -> Option<Opinion> {
    match leaf::read(raw, index) {
        Leaf::Opinion(opinion) => Some(*opinion),
        Leaf::Describe(_)
        | Leaf::Publish(_)
        | Leaf::Retract(_)
        | Leaf::Erase(_)
        | Leaf::Unknown(_)
        | Leaf::Void(_)
        | Leaf::Elided => None,
    }
}
