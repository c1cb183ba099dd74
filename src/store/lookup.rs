//! Look-ups: who says what of a signal, what an own entry's latest version is.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashpact_core::id::UnixMillis;
use rocksdb::{DBRawIterator, ReadOptions};

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::FeedState;
use crate::keys::{self, FeedNo, IndexKey};
use crate::record::{PostingRecord, unseal_index, unseal_reference};
use crate::store::{FeedTable, Inner, Store, read};

/// Postings of one feed for one value that are passed by since they say nothing: some
/// 20 ms. A publisher can say a value as often as it likes, and take it back.
const PASSED_MAX: usize = 16_384;

/// What one live publish leaf says of a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// The feed.
    pub feed: FeedNo,
    /// The leaf's index.
    pub index: u64,
    /// The index of the entry's first version, which names the entry.
    pub first: u64,
    /// PDQ quality, where the publisher gave it.
    pub quality: Option<u8>,
    /// The number of the media kind in the proto.
    pub media_kind: u8,
    /// The number of the basis in the proto.
    pub basis: u8,
    /// The classification; `None` means that it has to be read from the leaf.
    pub classification: Option<Arc<str>>,
    /// When it was published, by the publisher's clock.
    pub published: UnixMillis,
    /// Whether only retractions that are held for review take it back.
    pub held: bool,
}

/// What is said of one signal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Postings {
    /// In the order of feed and index.
    pub postings: Vec<Posting>,
    /// Whether a feed has more than were asked for.
    pub more: bool,
}

/// An own entry found by its source reference or its signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// The index of the latest version.
    pub index: u64,
    /// The digest of that version's content: equal content need not be said again.
    pub content: [u8; 16],
    /// Whether that version is live.
    pub live: bool,
}

impl Store {
    /// Looks signals up: for each key the postings of live leaves below each
    /// feed's `indexed`, in the order of feed and index. Feeds that do not answer
    /// are left out. Keys are sought in order, whatever the order they come in.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn lookup(&self, keys: &[IndexKey]) -> Result<Vec<Vec<Posting>>> {
        let found = self.lookup_bounded(keys, usize::MAX)?;
        Ok(found.into_iter().map(|found| found.postings).collect())
    }

    /// The same, with at most `per_feed` postings of one feed for each key: however
    /// often a publisher says a signal, or has said it and taken it back, the others'
    /// words are found, and soon. After 16,384 that say nothing the rest of a feed is
    /// left out.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn lookup_bounded(&self, keys: &[IndexKey], per_feed: usize) -> Result<Vec<Postings>> {
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_unstable_by_key(|n| keys.get(*n));
        self.seek(keys, &order, per_feed)
    }

    /// The live leaves of one feed that carry a signal, with what is in quarantine: for
    /// whoever takes own entries back. ⚠ What others say of the signal is not read: they
    /// can say it as often as they like.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`](crate::StoreError::UnknownFeed), or what RocksDB
    /// answers.
    pub fn live_with(&self, no: FeedNo, key: &IndexKey) -> Result<Vec<u64>> {
        let indexed = self.feed(no)?.indexed;
        let feeds = self.inner.feeds();
        let (from, to) = (keys::signal(key, no, 0), keys::signal(key, no, indexed));
        let mut live = Vec::new();
        self.inner.scan(Family::Signals, &from, &to, |key, value| {
            let posting = live_posting(&self.inner, &feeds, (key, value), true)?;
            live.extend(posting.map(|posting| posting.index));
            Ok(true)
        })?;
        Ok(live)
    }

    fn seek(&self, keys: &[IndexKey], order: &[usize], per_feed: usize) -> Result<Vec<Postings>> {
        let mut found = vec![Postings::default(); keys.len()];
        let mut seeker = Seeker::new(&self.inner)?;
        let mut before: Option<usize> = None;
        // Whoever asks for all gets all.
        let passed_max = if per_feed == usize::MAX {
            usize::MAX
        } else {
            PASSED_MAX
        };
        let bounds = (per_feed, passed_max);
        for n in order.iter().copied() {
            let same = before.filter(|before| keys.get(*before) == keys.get(n));
            let known = same.and_then(|before| found.get(before).cloned());
            let (Some(key), Some(found)) = (keys.get(n), found.get_mut(n)) else {
                continue;
            };
            match known {
                Some(known) => *found = known,
                None => seeker.seek(key, bounds, found)?,
            }
            before = Some(n);
        }
        Ok(found)
    }

    /// The first indexes of one feed's entries of which any version carries a signal,
    /// dead or alive, as far as they are held whole.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn entries_with(&self, no: FeedNo, key: &IndexKey) -> Result<BTreeSet<u64>> {
        let indexed = self.feed(no)?.indexed;
        let (from, to) = (keys::signal(key, no, 0), keys::signal(key, no, indexed));
        let mut firsts = BTreeSet::new();
        self.inner.scan(Family::Signals, &from, &to, |key, value| {
            let (_, index) = keys::read_signal(key)?;
            let back = PostingRecord::read(value)?.first_back;
            firsts.insert(index.saturating_sub(back));
            Ok(true)
        })?;
        Ok(firsts)
    }

    /// Looks own entries up by 16-byte digests of references or signals.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn lookup_refs(&self, no: FeedNo, digests: &[[u8; 16]]) -> Result<Vec<Option<Reference>>> {
        let state = self.inner.feed(no)?;
        let keys: Vec<_> = digests
            .iter()
            .map(|digest| keys::reference(no, digest))
            .collect();
        let family = self.inner.cf(Family::Refs)?;
        let rows = self.inner.db.batched_multi_get_cf(family, &keys, false);
        let live = read(&state.live);
        rows.into_iter()
            .map(|row| {
                let row = row.map_err(StoreError::engine("looking references up"))?;
                let Some(row) = row else { return Ok(None) };
                let (index, content) = unseal_reference(&row)?;
                Ok((index < live.row.indexed).then(|| Reference {
                    index,
                    content,
                    live: !live.liveness.is_dead(index),
                }))
            })
            .collect()
    }

    /// The latest version of the entry that began at `first`: `first` itself where
    /// nothing replaced it.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`], or what RocksDB answers.
    pub fn latest_version(&self, no: FeedNo, first: u64) -> Result<u64> {
        let indexed = self.feed(no)?.indexed;
        let row = self.inner.get(Family::Entries, keys::numbered(no, first))?;
        let latest = row.map_or(Ok(first), |row| unseal_index(&row))?;
        Ok(if latest < indexed { latest } else { first })
    }
}

/// One iterator for a whole batch.
pub(crate) struct Seeker<'s> {
    inner: &'s Inner,
    feeds: Arc<FeedTable>,
    iterator: DBRawIterator<'s>,
}

impl<'s> Seeker<'s> {
    pub(crate) fn new(inner: &'s Inner) -> Result<Self> {
        let mut options = ReadOptions::default();
        // Only then the filter over kind and value is asked.
        options.set_prefix_same_as_start(true);
        Ok(Self {
            inner,
            feeds: inner.feeds(),
            iterator: inner
                .db
                .raw_iterator_cf_opt(inner.cf(Family::Signals)?, options),
        })
    }

    /// Adds what is said of a key: of each feed so many postings, after passing so many
    /// by that say nothing.
    pub(crate) fn seek(
        &mut self,
        key: &IndexKey,
        (per_feed, passed_max): (usize, usize),
        found: &mut Postings,
    ) -> Result<()> {
        self.iterator.seek(key);
        let (mut feed, mut of_feed, mut passed) = (None, 0, 0);
        while let Some((at, value)) = self.iterator.item() {
            if !at.starts_with(key) {
                break;
            }
            let (no, _) = keys::read_signal(at)?;
            if feed != Some(no) {
                (feed, of_feed, passed) = (Some(no), 0, 0);
            }
            let posting = live_posting(self.inner, &self.feeds, (at, value), false)?;
            let full = match &posting {
                Some(_) => of_feed == per_feed,
                None => passed == passed_max,
            };
            if full {
                found.more = true;
                let Some(next) = no.0.checked_add(1) else {
                    break;
                };
                self.iterator.seek(keys::signal(key, FeedNo(next), 0));
                continue;
            }
            match posting {
                Some(posting) => {
                    of_feed += 1;
                    found.postings.push(posting);
                }
                None => passed += 1,
            }
            self.iterator.next();
        }
        self.iterator
            .status()
            .map_err(StoreError::engine("looking signals up"))
    }
}

fn live_posting(
    inner: &Inner,
    feeds: &FeedTable,
    (key, value): (&[u8], &[u8]),
    all: bool,
) -> Result<Option<Posting>> {
    let (no, index) = keys::read_signal(key)?;
    let shown = feeds.by_no.get(&no);
    let kind = keys::kind_of(key.first().copied().unwrap_or(0));
    let shown = shown.and_then(|state| state.shows(kind, index, all));
    let Some(held) = shown else {
        return Ok(None);
    };
    let record = PostingRecord::read(value)?;
    Ok(Some(Posting {
        feed: no,
        index,
        first: index.saturating_sub(record.first_back),
        quality: record.quality,
        media_kind: record.media_kind,
        basis: record.basis,
        classification: inner.classes.text(record.class),
        published: record.published,
        held,
    }))
}

impl FeedState {
    /// Whether look-ups see the leaf by a signal of this kind, and if so, whether it
    /// is held for review.
    fn shows(&self, kind: u8, index: u64, all: bool) -> Option<bool> {
        let live = read(&self.live);
        let answers = index < live.row.indexed && live.status.answers();
        if !answers || (!all && live.quarantine.withholds(kind, index)) {
            return None;
        }
        if live.liveness.is_dead(index) {
            live.held.answers(index)
        } else {
            // Alive because a roster cut off what had killed it.
            Some(live.doubted.contains(index))
        }
    }
}
