//! Who follows the changes, and how far each has said that it acts on them.
//!
//! A consumer is there from its first snapshot until it is removed; what it has
//! acknowledged is durable, and is what a receipt of this node may speak of.

use std::collections::BTreeMap;

use hashpact_core::id::{Slug, UnixMillis};
use rocksdb::WriteBatch;

use super::cursor::{ChangeCursor, CursorError, Place};
use super::log::{LogState, read_record};
use super::rows::{self, ConsumerRecord, SizeRecord};
use super::{Noted, Whole, WholeStanding, load_once, note, reading};
use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::FeedInfo;
use crate::keys::FeedNo;
use crate::record::{seal, unseal};
use crate::store::{Inner, Store, hold};

/// Consumers at one time: each keeps the log from being let go.
pub const CONSUMERS_MAX: usize = 64;
/// Consumers of one owner.
pub const CONSUMERS_PER_OWNER: usize = 32;
/// Consumers with the first ones of further owners: some followers keep nobody out.
const CONSUMERS_IN_ALL: usize = 256;

/// One that follows the changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Its name.
    pub name: Slug,
    /// Whoever registered it, in words.
    pub owner: String,
    /// When it began to follow: at its newest snapshot.
    pub since: UnixMillis,
    /// What it has acknowledged.
    pub acked: ChangeCursor,
    /// When it did.
    pub acked_at: UnixMillis,
    /// Records of the log that it has not acknowledged.
    pub behind: u64,
    /// What it would go on from is no longer kept: it is to start over.
    pub lost: bool,
    /// Up to which leaf it acts on each feed; empty until its snapshot is acknowledged.
    /// Without a feed of which leaves were cut off since: of those that are there now it
    /// has acknowledged none, of whatever index.
    pub sizes: BTreeMap<FeedNo, u64>,
}

impl Store {
    /// Lets a consumer start with everything, as a new one or over; `None` where there
    /// is no room for another. What it acknowledged before no longer counts.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn begin_snapshot(
        &self,
        name: &Slug,
        owner: &str,
        whole: &dyn Fn(&FeedInfo) -> Whole,
        now: UnixMillis,
    ) -> Result<Option<ChangeCursor>> {
        let inner = &*self.inner;
        let mut held = hold(&inner.changes.noted);
        let known = read_all(inner)?;
        if !has_room(&known, name, owner) {
            return Ok(None);
        }
        let logs = load_once(inner, &mut held)?.is_some();
        if !logs {
            // Crash: what an earlier log left is gone, or is the next time.
            let mut batch = WriteBatch::default();
            rows::delete_log(inner, &mut batch)?;
            inner.write_synced(batch, "beginning the log of changes")?;
        }
        let noted = held.get_or_insert_with(|| Noted::begin(LogState::begin(now)));
        note(inner, noted, whole, now, logs)?;
        let number = noted.log.newest();
        let tag = noted.log.tag(inner, number)?.unwrap_or_default();
        let cursor = ChangeCursor::after(number, tag).at(Place::Snapshot { feed: 0, from: 0 });
        let shown = noted.feeds.iter();
        let shown = shown.filter(|(_, feed)| feed.whole.standing != WholeStanding::Nothing);
        let record = ConsumerRecord {
            owner: owner.to_owned(),
            since_ms: now.0,
            acked: cursor.to_bytes(),
            acked_ms: now.0,
            sizes: Vec::new(),
            snapshot: shown
                .map(|(no, feed)| SizeRecord {
                    feed: no.0,
                    size: feed.shown.size,
                })
                .collect(),
        };
        // Crash: before, a log without its consumer, which nobody reads, and which the
        // next beginning removes; after, the consumer is there.
        let mut batch = WriteBatch::default();
        noted.log.put(inner, &mut batch)?;
        put(inner, &mut batch, name, &record)?;
        inner.write_synced(batch, "registering a consumer")?;
        Ok(Some(cursor))
    }

    /// Takes a consumer's word that it acts on everything up to `cursor`; an older one
    /// than it gave before changes nothing. `None` for a consumer that there is not.
    ///
    /// # Errors
    /// What RocksDB answers; inside, why the cursor cannot be taken.
    pub fn acknowledge(
        &self,
        name: &Slug,
        cursor: &ChangeCursor,
        now: UnixMillis,
    ) -> Result<Option<std::result::Result<Consumer, CursorError>>> {
        let inner = &*self.inner;
        let mut held = hold(&inner.changes.noted);
        let Some(noted) = load_once(inner, &mut held)? else {
            return Ok(None);
        };
        let mut all = read_all(inner)?;
        let Some(mut record) = all.remove(name) else {
            return Ok(None);
        };
        if let Err(error) = reading::check(inner, noted, cursor)? {
            return Ok(Some(Err(error)));
        }
        let acked = acked_of(&record)?;
        if cursor.order() > acked.order() {
            let gap = acked.number < noted.log.gone();
            if gap {
                // Records between were let go: what it acts on is not known any more.
                return Ok(Some(Err(CursorError::TooOld)));
            }
            take(inner, &mut record, &acked, cursor)?;
            record.acked = cursor.to_bytes();
            record.acked_ms = now.0;
            let mut everybody = cursor.number;
            for other in all.values() {
                everybody = everybody.min(acked_of(other)?.number);
            }
            // Crash: before, the older acknowledgement stands, and what follows is told
            // again; after, the new one.
            let mut batch = WriteBatch::default();
            let mut log = noted.log.clone();
            log.acknowledged(inner, &mut batch, everybody)?;
            log.put(inner, &mut batch)?;
            put(inner, &mut batch, name, &record)?;
            inner.write_synced(batch, "acknowledging changes")?;
            noted.log = log;
        }
        let cuts = rows::cuts(inner)?;
        consumer(noted, &cuts, name.clone(), &record).map(|consumer| Some(Ok(consumer)))
    }

    /// Forgets a consumer; answers whether there was one. With the last one the log
    /// goes.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn remove_consumer(&self, name: &Slug) -> Result<bool> {
        let inner = &*self.inner;
        let mut held = hold(&inner.changes.noted);
        let mut all = read_all(inner)?;
        if all.remove(name).is_none() {
            return Ok(false);
        }
        // Crash: before, it is there; after, it is not, and the log with the last one.
        let mut batch = WriteBatch::default();
        batch.delete_cf(
            inner.cf(Family::Changes)?,
            rows::consumer_key(name.as_str()),
        );
        if all.is_empty() {
            rows::delete_log(inner, &mut batch)?;
        }
        inner.write_synced(batch, "removing a consumer")?;
        if all.is_empty() {
            *held = None;
        }
        Ok(true)
    }

    /// Everybody who follows, by name.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn consumers(&self) -> Result<Vec<Consumer>> {
        let inner = &*self.inner;
        let mut held = hold(&inner.changes.noted);
        let Some(noted) = load_once(inner, &mut held)? else {
            return Ok(Vec::new());
        };
        let cuts = rows::cuts(inner)?;
        let all = read_all(inner)?.into_iter();
        all.map(|(name, record)| consumer(noted, &cuts, name, &record))
            .collect()
    }

    /// Up to which leaf every consumer acts on a feed; `None` without consumers. What a
    /// receipt may say waits for it.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn consumed(&self, no: FeedNo) -> Result<Option<u64>> {
        let consumers = self.consumers()?;
        let sizes = consumers.iter();
        Ok(sizes
            .map(|one| one.sizes.get(&no).copied().unwrap_or(0))
            .min())
    }
}

/// Whether a consumer may be there: each owner has its share, and its first one beside
/// all of others.
fn has_room(known: &BTreeMap<Slug, ConsumerRecord>, name: &Slug, owner: &str) -> bool {
    let own = known.values().filter(|record| record.owner == owner);
    match own.count() {
        _ if known.contains_key(name) => true,
        0 => known.len() < CONSUMERS_IN_ALL,
        own => own < CONSUMERS_PER_OWNER && known.len() < CONSUMERS_MAX,
    }
}

/// Whether anybody follows.
pub(super) fn any(inner: &Inner) -> Result<bool> {
    let (from, to) = rows::consumers();
    let mut any = false;
    inner.scan(Family::Changes, &from, &to, |_, _| {
        any = true;
        Ok(false)
    })?;
    Ok(any)
}

fn read_all(inner: &Inner) -> Result<BTreeMap<Slug, ConsumerRecord>> {
    let (from, to) = rows::consumers();
    let mut all = BTreeMap::new();
    inner.scan(Family::Changes, &from, &to, |key, value| {
        let name = key.get(1..).and_then(|name| std::str::from_utf8(name).ok());
        let name = name.and_then(|name| Slug::parse(name).ok());
        let name = name.ok_or(StoreError::corrupt("a consumer's name"))?;
        all.insert(name, unseal(value, "a consumer")?);
        Ok(true)
    })?;
    Ok(all)
}

fn put(inner: &Inner, batch: &mut WriteBatch, name: &Slug, record: &ConsumerRecord) -> Result<()> {
    let family = inner.cf(Family::Changes)?;
    batch.put_cf(family, rows::consumer_key(name.as_str()), seal(record));
    Ok(())
}

fn acked_of(record: &ConsumerRecord) -> Result<ChangeCursor> {
    ChangeCursor::from_bytes(&record.acked)
        .map_err(|_| StoreError::corrupt("a consumer's acknowledgement"))
}

/// Reckons what a consumer acts on once it has everything from `acked` to `cursor`.
fn take(
    inner: &Inner,
    record: &mut ConsumerRecord,
    acked: &ChangeCursor,
    cursor: &ChangeCursor,
) -> Result<()> {
    if cursor.in_snapshot() {
        return Ok(());
    }
    if acked.in_snapshot() {
        record.sizes = std::mem::take(&mut record.snapshot);
    }
    let sizes = record.sizes.iter().map(|size| (size.feed, size.size));
    let mut sizes: BTreeMap<u32, u64> = sizes.collect();
    for number in acked.number.saturating_add(1)..=cursor.number {
        let change = read_record(inner, number)?;
        if change.gone {
            sizes.remove(&change.feed);
        } else {
            sizes.insert(change.feed, change.size);
        }
    }
    let sizes = sizes.into_iter();
    record.sizes = sizes
        .map(|(feed, size)| SizeRecord { feed, size })
        .collect();
    Ok(())
}

/// A consumer, where `cuts` were not compared yet.
fn consumer(
    noted: &Noted,
    cuts: &BTreeMap<FeedNo, u64>,
    name: Slug,
    record: &ConsumerRecord,
) -> Result<Consumer> {
    let acked = acked_of(record)?;
    // ⚠ Sizes are of the leaves that were there: after a cut others take their indexes.
    let stands = |no: &FeedNo| {
        noted.feeds.get(no).is_none_or(|feed| {
            acked.number >= feed.cut_number && !feed.loses_by(cuts.get(no).copied())
        })
    };
    let sizes = record.sizes.iter();
    let sizes = sizes.map(|one| (FeedNo(one.feed), one.size));
    Ok(Consumer {
        name,
        owner: record.owner.clone(),
        since: UnixMillis(record.since_ms),
        acked,
        acked_at: UnixMillis(record.acked_ms),
        behind: noted.log.newest().saturating_sub(acked.number),
        lost: acked.number < noted.log.gone(),
        sizes: sizes.filter(|(no, _)| stands(no)).collect(),
    })
}
