//! The match journal: what look-ups answered that somebody acts on, for a while, so that
//! it is found again when an entry turns out to be wrong; and which retractions asked for
//! that.
//!
//! | key in `journal` | value |
//! |---|---|
//! | 1, number | an answer: when, of what kind and keyed digest, with which verdict, by which entries |
//! | 2, feed id, leaf | a retraction whose publisher asked to recheck, until it is acknowledged |
//!
//! Own records of this node: nothing here follows from leaves, and `verify` has nothing to
//! compare it with. No value of a signal is here, and nothing of an entry but its name.
//! Feeds stand by their ids: a row outlives the feed's number.

use std::ops::Range;

use hashpact_core::id::{Digest, FeedId, UnixMillis};
use hashpact_core::policy::Verdict;
use prost::Message;
use rocksdb::WriteBatch;

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::record::{seal, unseal};
use crate::store::{Inner, Store, hold};

/// Retractions of one publisher that wait to be acknowledged: whoever asks more often is
/// not heard better for it, and keeps nobody else out.
pub const RECHECKS_PER_PUBLISHER: usize = 256;
/// Of all of them.
pub const RECHECKS_MAX: usize = 16_384;

const ANSWER: u8 = 1;
const RECHECK: u8 = 2;
/// Bytes of a feed id.
const ID_BYTES: usize = 32;

/// One answer that somebody acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRow {
    /// When it was given.
    pub at: UnixMillis,
    /// The number of the kind of signal that was asked for.
    pub kind: u8,
    /// What was asked for, as a digest that only this node makes.
    pub digest: [u8; 16],
    /// What the policy made of it.
    pub verdict: Verdict,
    /// The caller's own name for it; may be empty.
    pub reference: String,
    /// The entries that matched.
    pub entries: Vec<JournalEntry>,
}

/// An entry that matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JournalEntry {
    /// The feed.
    pub feed: FeedId,
    /// The version that answered.
    pub index: u64,
    /// The entry's first version, which names it.
    pub first: u64,
}

/// A retraction whose publisher asked to recheck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecheckAsked {
    /// The feed.
    pub feed: FeedId,
    /// The retraction.
    pub leaf: u64,
    /// When this node took it.
    pub at: UnixMillis,
}

#[derive(Clone, PartialEq, Message)]
struct AnswerRecord {
    #[prost(uint64, tag = "1")]
    at_ms: u64,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(bytes = "vec", tag = "3")]
    digest: Vec<u8>,
    /// Its place among the verdicts.
    #[prost(uint32, tag = "4")]
    verdict: u32,
    #[prost(string, tag = "5")]
    reference: String,
    #[prost(message, repeated, tag = "6")]
    feeds: Vec<FeedRecord>,
}

/// The entries of one feed, one after the other.
#[derive(Clone, PartialEq, Message)]
struct FeedRecord {
    #[prost(bytes = "vec", tag = "1")]
    feed: Vec<u8>,
    #[prost(uint64, repeated, tag = "2")]
    indexes: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    firsts: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct RecheckRecord {
    #[prost(uint64, tag = "1")]
    at_ms: u64,
}

/// There was nothing of it before: older programs, which do not know of it, refuse the
/// store from here on.
pub(crate) fn migrate(inner: &Inner) -> Result<()> {
    inner.cf(Family::Journal).map(drop)
}

impl Store {
    /// The numbers of the answers kept; empty where there are none.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn journal_numbers(&self) -> Result<Range<u64>> {
        let inner = &*self.inner;
        let mut first = None;
        let (from, to) = (answer_key(0), [RECHECK]);
        inner.scan(Family::Journal, &from, &to, |key, _| {
            first = Some(number(key)?);
            Ok(false)
        })?;
        let Some(first) = first else { return Ok(0..0) };
        let mut iterator = inner.db.raw_iterator_cf(inner.cf(Family::Journal)?);
        iterator.seek_for_prev(answer_key(u64::MAX));
        let last = iterator.key().map(number).transpose()?.unwrap_or(first);
        iterator
            .status()
            .map_err(StoreError::engine("reading the match journal"))?;
        Ok(first..last.saturating_add(1))
    }

    /// Adds answers, the first of them with this number, and lets go of all below `keep`.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn write_journal(&self, first: u64, rows: &[JournalRow], keep: u64) -> Result<()> {
        let inner = &*self.inner;
        let family = inner.cf(Family::Journal)?;
        let mut batch = WriteBatch::default();
        if keep > 0 {
            batch.delete_range_cf(family, answer_key(0), answer_key(keep));
        }
        for (number, row) in (first..).zip(rows) {
            batch.put_cf(family, answer_key(number), seal(&record(row)));
        }
        // Crash: before, these answers are not in the journal, and none is let go; after,
        // both. Not synced: with the machine the last seconds may be lost, and nothing
        // else hangs on them.
        inner.write_unsynced(batch, "writing the match journal")
    }

    /// Forgets every answer.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn clear_journal(&self) -> Result<()> {
        let inner = &*self.inner;
        let family = inner.cf(Family::Journal)?;
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(family, vec![ANSWER], vec![RECHECK]);
        // Crash: before, it is done by the next start; after, they are gone.
        inner.write_synced(batch, "clearing the match journal")?;
        inner
            .db
            .compact_range_cf(family, Some([ANSWER]), Some([RECHECK]));
        Ok(())
    }

    /// Calls `visit` with the answers from this number on, until it answers false.
    ///
    /// # Errors
    /// What RocksDB or `visit` answers.
    pub fn scan_journal(
        &self,
        from: u64,
        mut visit: impl FnMut(u64, JournalRow) -> Result<bool>,
    ) -> Result<()> {
        let (from, to) = (answer_key(from), [RECHECK]);
        self.inner.scan(Family::Journal, &from, &to, |key, value| {
            visit(number(key)?, read_row(value)?)
        })
    }

    /// Notes that a retraction asks to recheck; answers whether it is noted, now or
    /// before. It is not where too many wait already. Those of feeds that are gone go.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn put_recheck(&self, asked: &RecheckAsked) -> Result<bool> {
        let inner = &*self.inner;
        let _turn = hold(&inner.catalogue);
        let key = recheck_key(&asked.feed, asked.leaf);
        if inner.get(Family::Journal, &key)?.is_some() {
            return Ok(true);
        }
        let family = inner.cf(Family::Journal)?;
        let feeds = inner.feeds();
        let publisher = |feed: &FeedId| {
            let state = feeds.by_no.get(feeds.by_id.get(feed)?)?;
            Some(state.publisher)
        };
        let asks = publisher(&asked.feed);
        let (mut all, mut same) = (0_usize, 0_usize);
        let mut batch = WriteBatch::default();
        for one in self.rechecks()? {
            match publisher(&one.feed) {
                None => batch.delete_cf(family, recheck_key(&one.feed, one.leaf)),
                by => {
                    all = all.saturating_add(1);
                    same = same.saturating_add(usize::from(by == asks));
                }
            }
        }
        let fits = asks.is_some() && all < RECHECKS_MAX && same < RECHECKS_PER_PUBLISHER;
        if fits {
            let record = RecheckRecord { at_ms: asked.at.0 };
            batch.put_cf(family, key, seal(&record));
        }
        // Crash: before, nobody is told of it by this node; after, until acknowledged.
        inner.write_synced(batch, "noting a recheck")?;
        Ok(fits)
    }

    /// The retractions that ask to recheck and are not acknowledged.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn rechecks(&self) -> Result<Vec<RecheckAsked>> {
        let mut found = Vec::new();
        let (from, to) = ([RECHECK], [RECHECK.saturating_add(1)]);
        self.inner.scan(Family::Journal, &from, &to, |key, value| {
            let wrong = || StoreError::corrupt("the key of a recheck");
            let rest = key.get(1..).ok_or_else(wrong)?;
            let (feed, leaf) = rest.split_at_checked(ID_BYTES).ok_or_else(wrong)?;
            let leaf = <[u8; 8]>::try_from(leaf).map_err(|_| wrong())?;
            let record: RecheckRecord = unseal(value, "a recheck")?;
            found.push(RecheckAsked {
                feed: feed_id(feed)?,
                leaf: u64::from_be_bytes(leaf),
                at: UnixMillis(record.at_ms),
            });
            Ok(true)
        })?;
        Ok(found)
    }

    /// Takes rechecks off the list.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn end_rechecks(&self, ended: &[RecheckAsked]) -> Result<()> {
        let inner = &*self.inner;
        let mut batch = WriteBatch::default();
        for one in ended {
            batch.delete_cf(inner.cf(Family::Journal)?, recheck_key(&one.feed, one.leaf));
        }
        // Crash: before, they are asked for again; after, they are done.
        inner.write_synced(batch, "acknowledging rechecks")
    }
}

fn answer_key(number: u64) -> Vec<u8> {
    [&[ANSWER][..], &number.to_be_bytes()].concat()
}

fn number(key: &[u8]) -> Result<u64> {
    let rest = key.split_first().map(|(_, rest)| <[u8; 8]>::try_from(rest));
    let Some(Ok(number)) = rest else {
        return Err(StoreError::corrupt("the key of an answer"));
    };
    Ok(u64::from_be_bytes(number))
}

fn recheck_key(feed: &FeedId, leaf: u64) -> Vec<u8> {
    [&[RECHECK][..], feed.as_bytes(), &leaf.to_be_bytes()].concat()
}

fn feed_id(bytes: &[u8]) -> Result<FeedId> {
    let wrong = |_| StoreError::corrupt("a feed's id");
    Digest::from_slice(bytes).map(FeedId).map_err(wrong)
}

fn record(row: &JournalRow) -> AnswerRecord {
    let mut feeds: Vec<(FeedId, FeedRecord)> = Vec::new();
    for entry in &row.entries {
        let known = feeds.iter().position(|(id, _)| *id == entry.feed);
        let at = known.unwrap_or(feeds.len());
        if known.is_none() {
            let feed = entry.feed.as_bytes().to_vec();
            let record = FeedRecord {
                feed,
                ..FeedRecord::default()
            };
            feeds.push((entry.feed, record));
        }
        if let Some((_, of)) = feeds.get_mut(at) {
            of.indexes.push(entry.index);
            of.firsts.push(entry.first);
        }
    }
    let verdict = Verdict::ALL.iter().position(|one| *one == row.verdict);
    AnswerRecord {
        at_ms: row.at.0,
        kind: u32::from(row.kind),
        digest: row.digest.to_vec(),
        verdict: verdict.and_then(|at| u32::try_from(at).ok()).unwrap_or(0),
        reference: row.reference.clone(),
        feeds: feeds.into_iter().map(|(_, record)| record).collect(),
    }
}

fn read_row(value: &[u8]) -> Result<JournalRow> {
    let wrong = || StoreError::corrupt("an answer in the match journal");
    let record: AnswerRecord = unseal(value, "an answer in the match journal")?;
    let verdict = usize::try_from(record.verdict).ok();
    let verdict = verdict.and_then(|at| Verdict::ALL.get(at).copied());
    let mut entries = Vec::new();
    for of in record.feeds {
        let feed = feed_id(&of.feed)?;
        let indexes = of.indexes.into_iter().zip(of.firsts);
        entries.extend(indexes.map(|(index, first)| JournalEntry { feed, index, first }));
    }
    Ok(JournalRow {
        at: UnixMillis(record.at_ms),
        kind: u8::try_from(record.kind).map_err(|_| wrong())?,
        digest: record.digest.try_into().map_err(|_| wrong())?,
        verdict: verdict.ok_or_else(wrong)?,
        reference: record.reference,
        entries,
    })
}

#[cfg(test)]
mod tests {
    use hashpact_core::id::MemberNumber;

    use super::*;
    use crate::{FeedKind, FeedNo, NewFeed, StoreOptions};

    fn feed(name: &[u8]) -> FeedId {
        FeedId(Digest::of(name))
    }

    fn create(store: &Store, name: &[u8], publisher: u32) -> FeedNo {
        let new = NewFeed {
            id: feed(name),
            publisher: MemberNumber::new(publisher).unwrap(),
            own: false,
            kind: FeedKind::HashSet,
        };
        store.create_feed(&new).unwrap()
    }

    fn row(at: u64) -> JournalRow {
        let entry = |name: &[u8], index| JournalEntry {
            feed: feed(name),
            index,
            first: index / 2,
        };
        JournalRow {
            at: UnixMillis(at),
            kind: 5,
            digest: [9; 16],
            verdict: Verdict::Enforce,
            reference: format!("upload {at}"),
            entries: vec![entry(b"a", 4), entry(b"a", 7), entry(b"b", 7)],
        }
    }

    fn all(store: &Store) -> Vec<(u64, JournalRow)> {
        let mut found = Vec::new();
        let scanned = store.scan_journal(0, |number, row| {
            found.push((number, row));
            Ok(true)
        });
        scanned.unwrap();
        found
    }

    #[test]
    fn answers_are_kept_over_a_start_and_the_oldest_are_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(dir.path(), &StoreOptions::default()).unwrap();
        let store = open();
        assert_eq!(store.journal_numbers().unwrap(), 0..0);
        store
            .write_journal(0, &[row(1), row(2), row(3)], 0)
            .unwrap();
        store.write_journal(3, &[row(4)], 2).unwrap();
        drop(store);
        let store = open();
        assert_eq!(store.journal_numbers().unwrap(), 2..4);
        assert_eq!(all(&store), [(2, row(3)), (3, row(4))]);
        create(&store, b"a", 1);
        let asked = RecheckAsked {
            feed: feed(b"a"),
            leaf: 1,
            at: UnixMillis(1),
        };
        assert!(store.put_recheck(&asked).unwrap());
        store.clear_journal().unwrap();
        assert_eq!(all(&store), []);
        assert_eq!(store.journal_numbers().unwrap(), 0..0);
        assert_eq!(store.rechecks().unwrap(), [asked], "that is another thing");
    }

    #[test]
    fn one_publisher_fills_no_more_than_its_part_of_the_list_of_rechecks() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
        create(&store, b"a", 1);
        let second = create(&store, b"a2", 1);
        create(&store, b"b", 2);
        let put = |name: &[u8], leaf| {
            let asked = RecheckAsked {
                feed: feed(name),
                leaf,
                at: UnixMillis(7),
            };
            store.put_recheck(&asked).unwrap()
        };
        let noted = (0..250)
            .map(|leaf| put(b"a", leaf))
            .chain((0..250).map(|leaf| put(b"a2", leaf)));
        assert_eq!(noted.filter(|noted| *noted).count(), RECHECKS_PER_PUBLISHER);
        assert!(put(b"a", 4), "noted before");
        assert!(put(b"b", 3));
        assert!(!put(b"unknown", 3));
        assert_eq!(store.rechecks().unwrap().len(), RECHECKS_PER_PUBLISHER + 1);
        // A set that is gone makes room.
        store.drop_feed(second).unwrap();
        assert!(put(b"b", 4));
        let waiting = store.rechecks().unwrap();
        assert_eq!(waiting.len(), 252);
        store.end_rechecks(&waiting).unwrap();
        assert!(store.rechecks().unwrap().is_empty());
    }
}
