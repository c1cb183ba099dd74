//! Records as stored: the first byte is the record's version.
//!
//! A record of an older version is read by the arm for it and written anew when
//! it changes; the schema's migrations rewrite a family where that is not enough.

use bytes::Bytes;
use hashpact_core::id::UnixMillis;
use prost::Message;

use crate::error::{Result, StoreError};

/// The version that records are written with.
const VERSION: u8 = 1;

/// Prefixes an encoded message with the record's version.
pub(crate) fn seal(message: &impl Message) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.encoded_len().saturating_add(1));
    out.push(VERSION);
    out.extend_from_slice(&message.encode_to_vec());
    out
}

/// Reads what [`seal`] wrote.
pub(crate) fn unseal<M: Message + Default>(record: &[u8], what: &'static str) -> Result<M> {
    match record.split_first() {
        Some((&VERSION, body)) => M::decode(body).map_err(|_| StoreError::corrupt(what)),
        Some(_) | None => Err(StoreError::corrupt(what)),
    }
}

/// The row of a feed that changes with every commit.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FeedRow {
    #[prost(uint64, tag = "1")]
    pub(crate) stored: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) indexed: u64,
    #[prost(uint32, tag = "3")]
    pub(crate) epoch: u32,
    /// The feed's status up to schema 8; since then it has a record of its own.
    #[prost(uint32, tag = "4")]
    pub(crate) status_before: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) applied_epoch: u32,
    #[prost(uint64, tag = "6")]
    pub(crate) applied_size: u64,
    /// Empty while no head was applied.
    #[prost(bytes = "vec", tag = "7")]
    pub(crate) applied_root: Vec<u8>,
    #[prost(uint64, repeated, tag = "8")]
    pub(crate) counts: Vec<u64>,
    /// The compact range [0, stored), 32 bytes each.
    #[prost(bytes = "vec", tag = "9")]
    pub(crate) frontier: Vec<u8>,
    /// What erase leaves below this index name was dropped, as far as they are not held.
    #[prost(uint64, tag = "10")]
    pub(crate) erased: u64,
    /// Index plus one of the describe leaf in force; 0 for none.
    #[prost(uint64, tag = "11")]
    pub(crate) describe_plus_one: u64,
    /// What the stored leaves take, by [`crate::space::leaf_bytes`].
    #[prost(uint64, tag = "12")]
    pub(crate) bytes: u64,
    /// Of retract leaves below this index it was heard whether they ask to recheck; 0 where
    /// that was never noted.
    #[prost(uint64, tag = "13")]
    pub(crate) heard: u64,
}

/// The row of a feed that hardly ever changes.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FeedIdentity {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub(crate) publisher: u32,
    #[prost(bool, tag = "3")]
    pub(crate) own: bool,
    #[prost(uint32, tag = "4")]
    pub(crate) kind: u32,
}

/// A head as stored.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HeadRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) root: Vec<u8>,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) note: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub(crate) cosignatures: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub(crate) receipts: Vec<Bytes>,
    #[prost(uint64, tag = "5")]
    pub(crate) received_ms: u64,
}

/// What a leaf makes dead.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct KillerRecord {
    /// 1: a retract; 2: a publish or opinion, while it is alive; 3: a leaf that kills
    /// nothing and cannot die; 4: an erase.
    #[prost(uint32, tag = "1")]
    pub(crate) kind: u32,
    /// For 1 and 4 the first index and the count of each range, in turn; for 2 indexes.
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) indexes: Vec<u64>,
}

/// Retract and erase leaves of a feed that are held for review.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HeldRecord {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) retractions: Vec<u64>,
    /// Leaves in doubt, as a serialized bitmap; empty for none.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) doubted: Vec<u8>,
}

/// How fast a feed has grown.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct GrowthRecord {
    #[prost(uint64, tag = "1")]
    pub(crate) level: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) at_ms: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) from: u64,
}

/// The leaves of one row of a lot: bitmaps, empty for none.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct QuarantineRecord {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) held: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) released: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) dropped: Bytes,
}

/// The version that rows that are no message begin with.
pub(crate) const fn version() -> u8 {
    VERSION
}

/// A latest index.
pub(crate) fn seal_index(index: u64) -> [u8; 9] {
    let mut out = [VERSION; 9];
    out[1..].copy_from_slice(&index.to_be_bytes());
    out
}

/// Reads what [`seal_index`] wrote.
pub(crate) fn unseal_index(record: &[u8]) -> Result<u64> {
    match record.split_first() {
        Some((&VERSION, body)) => body
            .try_into()
            .map(u64::from_be_bytes)
            .map_err(|_| StoreError::corrupt("an entry's row has another length")),
        Some(_) | None => Err(StoreError::corrupt("an entry's row has another version")),
    }
}

/// An own entry's row: latest index and content digest.
pub(crate) fn seal_reference(index: u64, content: &[u8; 16]) -> [u8; 25] {
    let mut out = [VERSION; 25];
    out[1..9].copy_from_slice(&index.to_be_bytes());
    out[9..].copy_from_slice(content);
    out
}

/// Reads what [`seal_reference`] wrote.
pub(crate) fn unseal_reference(record: &[u8]) -> Result<(u64, [u8; 16])> {
    let wrong = || StoreError::corrupt("a reference's row cannot be read");
    let record: &[u8; 25] = record.try_into().map_err(|_| wrong())?;
    if record[0] != VERSION {
        return Err(wrong());
    }
    let mut index = [0; 8];
    index.copy_from_slice(&record[1..9]);
    let mut content = [0; 16];
    content.copy_from_slice(&record[9..]);
    Ok((u64::from_be_bytes(index), content))
}

/// What a posting says, enough to answer a look-up without the leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PostingRecord {
    pub(crate) media_kind: u8,
    pub(crate) basis: u8,
    pub(crate) quality: Option<u8>,
    pub(crate) class: u16,
    pub(crate) published: UnixMillis,
    /// The leaf's index less the index of the entry's first version.
    pub(crate) first_back: u64,
}

/// A posting's longest value: 4 fixed bytes, 6 of time, a number of up to 6 bytes.
pub(crate) const POSTING_MAX_BYTES: usize = 16;

impl PostingRecord {
    /// Writes version (2 bits), media kind and basis (3 bits each), quality plus
    /// one, class, milliseconds (6 bytes), and the way back to the first version
    /// where there is one.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(VERSION << 6 | (self.media_kind & 7) << 3 | self.basis & 7);
        out.push(self.quality.map_or(0, |q| q.saturating_add(1)));
        out.extend_from_slice(&self.class.to_be_bytes());
        out.extend_from_slice(&self.published.0.to_be_bytes()[2..]);
        let mut rest = self.first_back;
        while rest > 0 {
            let low = u8::try_from(rest & 0x7f).unwrap_or(0);
            rest >>= 7;
            out.push(if rest > 0 { low | 0x80 } else { low });
        }
    }

    /// Reads what [`PostingRecord::write`] wrote.
    pub(crate) fn read(record: &[u8]) -> Result<Self> {
        let wrong = || StoreError::corrupt("a posting cannot be read");
        let (fixed, back) = record.split_first_chunk::<10>().ok_or_else(wrong)?;
        if fixed[0] >> 6 != VERSION || back.len() > 6 {
            return Err(wrong());
        }
        let mut millis = [0; 8];
        millis[2..].copy_from_slice(&fixed[4..]);
        let first_back = back
            .iter()
            .rev()
            .fold(0_u64, |sum, byte| sum << 7 | u64::from(byte & 0x7f));
        Ok(Self {
            media_kind: fixed[0] >> 3 & 7,
            basis: fixed[0] & 7,
            quality: fixed[1].checked_sub(1),
            class: u16::from_be_bytes([fixed[2], fixed[3]]),
            published: UnixMillis(u64::from_be_bytes(millis)),
            first_back,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn postings_read_back_as_written(
            media_kind in 0_u8..8, basis in 0_u8..8, quality in proptest::option::of(0_u8..=100),
            class: u16, millis in 0_u64..1 << 48, first_back in 0_u64..1 << 40,
        ) {
            let record = PostingRecord {
                media_kind, basis, quality, class, published: UnixMillis(millis), first_back,
            };
            let mut bytes = Vec::new();
            record.write(&mut bytes);
            prop_assert!(bytes.len() <= POSTING_MAX_BYTES);
            prop_assert_eq!(PostingRecord::read(&bytes).unwrap(), record);
        }
    }

    #[test]
    fn a_record_of_an_unknown_version_is_refused() {
        let mut sealed = seal(&FeedRow::default());
        sealed[0] = 9;
        assert!(unseal::<FeedRow>(&sealed, "row").is_err());
        assert!(unseal_index(&[9; 9]).is_err());
        assert!(unseal_reference(&[9; 25]).is_err());
    }
}
