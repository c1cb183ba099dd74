//! Keys and records of the family `changes`.

use std::collections::BTreeMap;

use bytes::Bytes;
use hashpact_core::id::{Digest, FeedId};
use prost::Message;
use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use super::shown::Shown;
use super::{FeedShown, Whole, WholeStanding};
use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::keys::{FeedNo, IndexKey, feed_prefix};
use crate::quarantine::{ROW_LEAVES, rows_of};
use crate::record::{seal, unseal, version};
use crate::store::Inner;

const LOG: u8 = 1;
const FEED: u8 = 2;
const LEAVES: u8 = 3;
const CONSUMER: u8 = 4;
const CUT: u8 = 5;
const STATE: u8 = 6;
pub(super) const DISPUTED: u8 = 7;
pub(super) const DISPUTED_SIGNAL: u8 = 8;

/// A record of the log.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LogRecord {
    #[prost(uint32, tag = "1")]
    pub(crate) feed: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) id: Vec<u8>,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    /// Leaves that look-ups answered from.
    #[prost(uint64, tag = "4")]
    pub(crate) size: u64,
    #[prost(bool, tag = "5")]
    pub(crate) gone: bool,
    /// Bitmaps, empty for none.
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) added: Bytes,
    #[prost(bytes = "bytes", tag = "7")]
    pub(crate) others: Bytes,
    #[prost(uint64, tag = "8")]
    pub(crate) at_ms: u64,
    /// Follows from this record and the tag of the one before.
    #[prost(fixed64, tag = "9")]
    pub(crate) tag: u64,
}

/// The state of the log.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StateRecord {
    /// The number of the oldest record kept.
    #[prost(uint64, tag = "1")]
    pub(crate) first: u64,
    /// The number of the next record.
    #[prost(uint64, tag = "2")]
    pub(crate) next: u64,
    #[prost(fixed64, tag = "3")]
    pub(crate) tag_before: u64,
    #[prost(fixed64, tag = "4")]
    pub(crate) tag: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) bytes: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) started_ms: u64,
}

/// A feed as it was logged last.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FeedShownRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) id: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) words: String,
    #[prost(uint32, tag = "4")]
    pub(crate) standing: u32,
    #[prost(uint64, tag = "5")]
    pub(crate) size: u64,
    /// The log's newest number once the latest cut was in it.
    #[prost(uint64, tag = "6")]
    pub(crate) cut_number: u64,
}

/// What is not plain of 65,536 leaves.
#[derive(Clone, PartialEq, Message)]
struct LeavesRecord {
    #[prost(bytes = "bytes", tag = "1")]
    absent: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    review: Bytes,
    #[prost(message, repeated, tag = "3")]
    partial: Vec<PartialRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialRecord {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(bytes = "bytes", tag = "2")]
    leaves: Bytes,
}

/// How much of a feed a consumer acts on.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SizeRecord {
    #[prost(uint32, tag = "1")]
    pub(crate) feed: u32,
    #[prost(uint64, tag = "2")]
    pub(crate) size: u64,
}

/// A consumer.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ConsumerRecord {
    #[prost(string, tag = "1")]
    pub(crate) owner: String,
    #[prost(uint64, tag = "2")]
    pub(crate) since_ms: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) acked: Vec<u8>,
    #[prost(uint64, tag = "4")]
    pub(crate) acked_ms: u64,
    /// What it acts on; empty until its first snapshot is over.
    #[prost(message, repeated, tag = "5")]
    pub(crate) sizes: Vec<SizeRecord>,
    /// What it acts on once its snapshot is over.
    #[prost(message, repeated, tag = "6")]
    pub(crate) snapshot: Vec<SizeRecord>,
}

pub(crate) fn log_key(number: u64) -> [u8; 9] {
    let mut key = [LOG; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

pub(crate) const fn state_key() -> [u8; 1] {
    [STATE]
}

pub(crate) fn consumer_key(name: &str) -> Vec<u8> {
    [&[CONSUMER], name.as_bytes()].concat()
}

/// The keys of all consumers.
pub(crate) const fn consumers() -> ([u8; 1], [u8; 1]) {
    ([CONSUMER], [CONSUMER + 1])
}

pub(crate) fn cut_key(no: FeedNo) -> [u8; 5] {
    keyed(CUT, no)
}

fn keyed(part: u8, no: FeedNo) -> [u8; 5] {
    let mut key = [part; 5];
    key[1..].copy_from_slice(&feed_prefix(no));
    key
}

fn leaves_key(no: FeedNo, row: u32) -> [u8; 9] {
    let mut key = [LEAVES; 9];
    key[1..5].copy_from_slice(&feed_prefix(no));
    key[5..].copy_from_slice(&row.to_be_bytes());
    key
}

/// From which leaf on a feed was cut since it was compared last.
pub(super) fn cut_of(inner: &Inner, no: FeedNo) -> Result<Option<u64>> {
    let found = inner.get(Family::Changes, cut_key(no))?;
    found.as_deref().map(read_cut).transpose()
}

/// The same of all feeds that were cut since.
pub(super) fn cuts(inner: &Inner) -> Result<BTreeMap<FeedNo, u64>> {
    let mut cuts = BTreeMap::new();
    inner.scan(Family::Changes, &[CUT], &[CUT + 1], |key, value| {
        let no = key.get(1..).and_then(|no| <[u8; 4]>::try_from(no).ok());
        let no = no.ok_or(StoreError::corrupt("which feed was cut"))?;
        cuts.insert(FeedNo(u32::from_be_bytes(no)), read_cut(value)?);
        Ok(true)
    })?;
    Ok(cuts)
}

fn read_cut(bytes: &[u8]) -> Result<u64> {
    <[u8; 8]>::try_from(bytes)
        .map(u64::from_be_bytes)
        .map_err(|_| StoreError::corrupt("where a feed was cut"))
}

pub(super) fn delete_cut(inner: &Inner, batch: &mut WriteBatch, no: FeedNo) -> Result<()> {
    batch.delete_cf(inner.cf(Family::Changes)?, cut_key(no));
    Ok(())
}

/// Adds a feed as it is logged to a batch: its row, and the rows of leaves that differ.
pub(super) fn put_feed(
    inner: &Inner,
    batch: &mut WriteBatch,
    no: FeedNo,
    before: Option<&FeedShown>,
    after: &FeedShown,
) -> Result<()> {
    let family = inner.cf(Family::Changes)?;
    batch.put_cf(family, keyed(FEED, no), seal(&after.record()));
    let none = Shown::default();
    let old = before.map_or(&none, |before| &before.shown);
    let new = &after.shown;
    let mut differs = &old.absent ^ &new.absent;
    differs |= &old.review ^ &new.review;
    for kind in old.partial.keys().chain(new.partial.keys()) {
        let of = |shown: &Shown| shown.partial.get(kind).cloned().unwrap_or_default();
        differs |= of(old) ^ of(new);
    }
    for row in rows_of(&differs) {
        let record = LeavesRecord {
            absent: part(&new.absent, row),
            review: part(&new.review, row),
            partial: new
                .partial
                .iter()
                .map(|(kind, leaves)| PartialRecord {
                    kind: u32::from(*kind),
                    leaves: part(leaves, row),
                })
                .filter(|partial| !partial.leaves.is_empty())
                .collect(),
        };
        if record == LeavesRecord::default() {
            batch.delete_cf(family, leaves_key(no, row));
        } else {
            batch.put_cf(family, leaves_key(no, row), seal(&record));
        }
    }
    Ok(())
}

pub(super) fn delete_feed(inner: &Inner, batch: &mut WriteBatch, no: FeedNo) -> Result<()> {
    let family = inner.cf(Family::Changes)?;
    batch.delete_cf(family, keyed(FEED, no));
    batch.delete_cf(family, cut_key(no));
    let next = no.0.checked_add(1).map(FeedNo);
    let end = next.map_or(vec![LEAVES + 1], |next| keyed(LEAVES, next).to_vec());
    batch.delete_range_cf(family, keyed(LEAVES, no).to_vec(), end);
    Ok(())
}

/// Where it stands how opinions dispute an entry; without one, that all were looked at.
pub(super) fn disputed_key(feed: &FeedId, first: u64) -> Vec<u8> {
    [
        &[DISPUTED],
        feed.as_bytes().as_slice(),
        &first.to_be_bytes(),
    ]
    .concat()
}

/// Reads what [`disputed_key`] wrote.
pub(super) fn read_disputed(key: &[u8]) -> Option<(FeedId, u64)> {
    let (feed, first) = key.get(1..)?.split_first_chunk::<32>()?;
    let first = first.try_into().ok()?;
    Some((FeedId(Digest(*feed)), u64::from_be_bytes(first)))
}

/// Where it stands how a signal is disputed.
pub(super) fn disputed_signal_key(signal: &IndexKey) -> Vec<u8> {
    [&[DISPUTED_SIGNAL], signal.as_slice()].concat()
}

/// Reads what [`disputed_signal_key`] wrote.
pub(super) fn read_disputed_signal(key: &[u8]) -> Option<IndexKey> {
    key.get(1..)?.try_into().ok()
}

/// Whether all disputes were looked at once.
pub(super) fn disputes_known(inner: &Inner) -> Result<bool> {
    Ok(inner.get(Family::Changes, [DISPUTED])?.is_some())
}

/// Notes that they were.
pub(super) fn put_disputes_known(inner: &Inner, batch: &mut WriteBatch) -> Result<()> {
    batch.put_cf(inner.cf(Family::Changes)?, [DISPUTED], [version()]);
    Ok(())
}

/// Removes the log and all that was compared; consumers stay.
pub(super) fn delete_log(inner: &Inner, batch: &mut WriteBatch) -> Result<()> {
    let family = inner.cf(Family::Changes)?;
    batch.delete_range_cf(family, vec![LOG], vec![CONSUMER]);
    batch.delete_range_cf(family, vec![DISPUTED], vec![DISPUTED + 1]);
    batch.delete_cf(family, state_key());
    Ok(())
}

/// Reads all feeds as they were logged last.
pub(super) fn load_feeds(inner: &Inner) -> Result<BTreeMap<FeedNo, FeedShown>> {
    let wrong = || StoreError::corrupt("a feed as it was logged");
    let mut feeds = BTreeMap::new();
    inner.scan(Family::Changes, &[FEED], &[LEAVES], |key, value| {
        let no = key.get(1..5).and_then(|no| <[u8; 4]>::try_from(no).ok());
        let no = FeedNo(u32::from_be_bytes(no.ok_or_else(wrong)?));
        let record: FeedShownRecord = unseal(value, "a feed as it was logged")?;
        let shown = FeedShown {
            id: FeedId::from_slice(&record.id).map_err(|_| wrong())?,
            whole: Whole {
                standing: WholeStanding::read(record.standing),
                name: record.name,
                words: record.words,
            },
            shown: Shown {
                size: record.size,
                ..Shown::default()
            },
            version: None,
            cut_number: record.cut_number,
        };
        feeds.insert(no, shown);
        Ok(true)
    })?;
    inner.scan(Family::Changes, &[LEAVES], &[CONSUMER], |key, value| {
        let no = key.get(1..5).and_then(|no| <[u8; 4]>::try_from(no).ok());
        let no = FeedNo(u32::from_be_bytes(no.ok_or_else(wrong)?));
        let record: LeavesRecord = unseal(value, "leaves as they were logged")?;
        if let Some(feed) = feeds.get_mut(&no) {
            feed.shown.absent |= bitmap(&record.absent)?;
            feed.shown.review |= bitmap(&record.review)?;
            for partial in record.partial {
                let kind = u8::try_from(partial.kind).map_err(|_| wrong())?;
                *feed.shown.partial.entry(kind).or_default() |= bitmap(&partial.leaves)?;
            }
        }
        Ok(true)
    })?;
    Ok(feeds)
}

/// The part of a set that lies in one row.
fn part(set: &RoaringTreemap, row: u32) -> Bytes {
    let start = u64::from(row).saturating_mul(ROW_LEAVES);
    let mut window = RoaringTreemap::new();
    window.insert_range(start..start.saturating_add(ROW_LEAVES));
    bytes_of(set & window)
}

/// A set as bytes, empty for none.
pub(crate) fn bytes_of(mut set: RoaringTreemap) -> Bytes {
    let mut bytes = Vec::new();
    if !set.is_empty() {
        set.optimize();
        // Writing to memory cannot fail.
        let _ = set.serialize_into(&mut bytes);
    }
    bytes.into()
}

/// Reads what [`bytes_of`] wrote.
pub(crate) fn bitmap(bytes: &Bytes) -> Result<RoaringTreemap> {
    if bytes.is_empty() {
        return Ok(RoaringTreemap::new());
    }
    RoaringTreemap::deserialize_from(bytes.as_ref())
        .map_err(|_| StoreError::corrupt("a bitmap of changes"))
}
