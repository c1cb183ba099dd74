//! Heads: the signed states of feeds, with what witnesses and readers added.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use hashpact_core::checkpoint::SignedCheckpoint;
use hashpact_core::id::{Digest, UnixMillis};
use hashpact_core::limits::DAY_MS;
use hashpact_core::verified::Verified;
use rocksdb::WriteBatch;

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::HeadRef;
use crate::keys::{self, FeedNo};
use crate::record::{HeadRecord, seal, unseal};
use crate::store::{Inner, Store};

/// Commits of heads after which those of a feed are pruned.
pub(crate) const PRUNE_EVERY: u32 = 256;
/// Heads that are kept whatever their age: peers compare theirs with them.
pub(crate) const NEWEST_KEPT: usize = 64;
const MINUTE_MS: u64 = 60_000;
/// Of older heads one is kept for so long each: a minute in the last two days, by which
/// it is told when retractions came; an hour in the last month; then a day.
const STEPS: [(u64, u64); 2] = [(2 * DAY_MS, MINUTE_MS), (30 * DAY_MS, 60 * MINUTE_MS)];

/// What pruning looks at of a head.
struct Kept {
    at: HeadRef,
    received: UnixMillis,
    /// Witnesses or readers signed beside it.
    vouched: bool,
}

/// The heads, of those in the order of epochs and sizes, that nothing needs: not the
/// applied one, not an epoch's first or last, none of the newest, and for each stretch
/// of time not the last, or the last that others vouch for, which proofs are made with.
fn superfluous(heads: &[Kept], applied: Option<HeadRef>, now: UnixMillis) -> Vec<HeadRef> {
    let old = heads.len().saturating_sub(NEWEST_KEPT);
    let mut of_stretch: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    for (place, head) in heads.iter().enumerate().take(old) {
        let best = of_stretch
            .entry(stretch(head.received, now))
            .or_insert(place);
        let worse = heads
            .get(*best)
            .is_some_and(|best| best.vouched && !head.vouched);
        if !worse {
            *best = place;
        }
    }
    let chosen: BTreeSet<usize> = of_stretch.into_values().collect();
    let edge = |place: usize| {
        let epoch = |place: Option<usize>| Some(heads.get(place?)?.at.epoch);
        let own = epoch(Some(place));
        epoch(place.checked_sub(1)) != own || epoch(place.checked_add(1)) != own
    };
    let heads = heads.iter().enumerate().take(old);
    heads
        .filter(|(place, head)| {
            !chosen.contains(place) && !edge(*place) && Some(head.at) != applied
        })
        .map(|(_, head)| head.at)
        .collect()
}

/// Names the stretch of time that a head is of: its length and its number.
pub(crate) fn stretch(received: UnixMillis, now: UnixMillis) -> (u64, u64) {
    let age = now.since(received);
    let step = STEPS.iter().find(|(up_to, _)| age < *up_to);
    let length = step.map_or(DAY_MS, |(_, length)| *length);
    (length, received.0 / length)
}

/// A signed head as it is kept and announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    at: HeadRef,
    note: Bytes,
    /// C2SP cosignature lines, checked by the caller.
    pub cosignatures: Vec<Bytes>,
    /// Envelopes with receipts, checked by the caller.
    pub receipts: Vec<Bytes>,
    /// When this node had it first.
    pub received: UnixMillis,
}

impl Head {
    /// Takes a verified checkpoint.
    #[must_use]
    pub fn new(checkpoint: &Verified<SignedCheckpoint>, received: UnixMillis) -> Self {
        Self {
            at: HeadRef {
                epoch: checkpoint.checkpoint.origin.epoch,
                size: checkpoint.checkpoint.size,
                root: checkpoint.checkpoint.root,
            },
            note: checkpoint.note.clone(),
            cosignatures: Vec::new(),
            receipts: Vec::new(),
            received,
        }
    }

    /// Epoch, size and root.
    #[must_use]
    pub const fn at(&self) -> HeadRef {
        self.at
    }

    /// The note as the publisher signed it.
    #[must_use]
    pub const fn note(&self) -> &Bytes {
        &self.note
    }

    pub(crate) fn record(&self) -> Vec<u8> {
        seal(&HeadRecord {
            root: self.at.root.0.to_vec(),
            note: self.note.clone(),
            cosignatures: self.cosignatures.clone(),
            receipts: self.receipts.clone(),
            received_ms: self.received.0,
        })
    }

    pub(crate) fn read(epoch: u32, size: u64, record: &[u8]) -> Result<Self> {
        let record: HeadRecord = unseal(record, "a head")?;
        let root =
            Digest::from_slice(&record.root).map_err(|_| StoreError::corrupt("a head's root"))?;
        Ok(Self {
            at: HeadRef { epoch, size, root },
            note: record.note,
            cosignatures: record.cosignatures,
            receipts: record.receipts,
            received: UnixMillis(record.received_ms),
        })
    }
}

impl Store {
    /// Keeps a head, or what was added to one, durably. It need not be applied yet.
    ///
    /// # Errors
    /// [`StoreError::HeadMismatch`] when another root is kept for its epoch and
    /// size: that is evidence, and the caller has both.
    pub fn put_head(&self, no: FeedNo, head: &Head) -> Result<()> {
        self.inner.feed(no)?;
        // Crash: before, the head is asked for again; after, it is kept.
        let mut batch = WriteBatch::default();
        self.inner.put_head(&mut batch, no, head)?;
        self.inner.write_synced(batch, "keeping a head")
    }

    /// The head of one epoch and size.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn head(&self, no: FeedNo, epoch: u32, size: u64) -> Result<Option<Head>> {
        let record = self.inner.get(Family::Heads, keys::head(no, epoch, size))?;
        record
            .map(|record| Head::read(epoch, size, &record))
            .transpose()
    }

    /// The head that was committed last.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`], or what RocksDB answers.
    pub fn applied_head(&self, no: FeedNo) -> Result<Option<Head>> {
        match self.feed(no)?.applied {
            Some(at) => self.head(no, at.epoch, at.size),
            None => Ok(None),
        }
    }

    /// The first head that is kept of a feed: of its first epoch, the smallest.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn oldest_head(&self, no: FeedNo) -> Result<Option<Head>> {
        let mut oldest = None;
        self.inner.scan_feed(Family::Heads, no, |key, record| {
            let (_, epoch, size) = keys::read_head(key)?;
            oldest = Some(Head::read(epoch, size, record)?);
            Ok(false)
        })?;
        Ok(oldest)
    }

    /// The heads kept of a feed, newest first, at most `limit`.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn heads(&self, no: FeedNo, limit: usize) -> Result<Vec<Head>> {
        let mut options = rocksdb::ReadOptions::default();
        options.set_iterate_lower_bound(keys::feed_prefix(no));
        let family = self.inner.cf(Family::Heads)?;
        let mut iterator = self.inner.db.raw_iterator_cf_opt(family, options);
        iterator.seek_for_prev(keys::head(no, u32::MAX, u64::MAX));
        let mut heads = Vec::new();
        while let Some((key, record)) = iterator.item() {
            if heads.len() == limit {
                break;
            }
            let (_, epoch, size) = keys::read_head(key)?;
            heads.push(Head::read(epoch, size, record)?);
            iterator.prev();
        }
        iterator
            .status()
            .map_err(StoreError::engine("reading heads"))?;
        Ok(heads)
    }

    /// Forgets heads that nothing needs any more; answers how many went. See [`keep`].
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn prune_heads(&self, no: FeedNo, now: UnixMillis) -> Result<usize> {
        let applied = self.feed(no)?.applied;
        self.inner.prune_heads(no, applied, now)
    }
}

impl Inner {
    pub(crate) fn prune_heads(
        &self,
        no: FeedNo,
        applied: Option<HeadRef>,
        now: UnixMillis,
    ) -> Result<usize> {
        let mut kept = Vec::new();
        self.scan_feed(Family::Heads, no, |key, record| {
            let (_, epoch, size) = keys::read_head(key)?;
            let head = Head::read(epoch, size, record)?;
            kept.push(Kept {
                at: head.at,
                received: head.received,
                vouched: !head.cosignatures.is_empty() || !head.receipts.is_empty(),
            });
            Ok(true)
        })?;
        // Crash: before, the heads are pruned another time.
        let mut batch = WriteBatch::default();
        for head in superfluous(&kept, applied, now) {
            let key = keys::head(no, head.epoch, head.size);
            batch.delete_cf(self.cf(Family::Heads)?, key);
        }
        let gone = batch.len();
        self.write_unsynced(batch, "pruning heads")?;
        Ok(gone)
    }

    /// Adds a head to a batch, unless another root is kept for its epoch and size.
    pub(crate) fn put_head(&self, batch: &mut WriteBatch, no: FeedNo, head: &Head) -> Result<()> {
        let HeadRef { epoch, size, root } = head.at;
        let key = keys::head(no, epoch, size);
        let mut head = head.clone();
        if let Some(record) = self.get(Family::Heads, key)? {
            let kept = Head::read(epoch, size, &record)?;
            if kept.at.root != root {
                return Err(StoreError::HeadMismatch {
                    size,
                    held: self.stored(no)?,
                });
            }
            // The same head again takes nothing away that stands beside it.
            if head.cosignatures.is_empty() {
                head.cosignatures = kept.cosignatures;
            }
            if head.receipts.is_empty() {
                head.receipts = kept.receipts;
            }
        }
        batch.put_cf(self.cf(Family::Heads)?, key, head.record());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000 * DAY_MS);

    fn head(epoch: u32, size: u64, age_ms: u64, vouched: bool) -> Kept {
        Kept {
            at: HeadRef {
                epoch,
                size,
                root: Digest::of(b"root"),
            },
            received: UnixMillis(NOW.0 - age_ms),
            vouched,
        }
    }

    /// Sizes that stay, less the newest, which always do.
    fn stay(old: Vec<Kept>, applied: Option<u64>) -> Vec<u64> {
        let mut heads = old;
        let count = heads.len();
        let last = heads.last().map_or(0, |last| last.at.epoch);
        heads.extend((0..64).map(|n| head(last, 1_000_000 + n, 0, false)));
        let applied = applied.and_then(|size| heads.iter().find(|h| h.at.size == size));
        let gone = superfluous(&heads, applied.map(|head| head.at), NOW);
        let stays = heads.iter().take(count).filter(|h| !gone.contains(&h.at));
        stays.map(|head| head.at.size).collect()
    }

    #[test]
    fn one_head_of_each_minute_hour_or_day_stays_by_age() {
        let minute = |n: u64| head(0, 2 + n, DAY_MS - n * 20_000, false);
        // The first stays as the epoch's; then one of three, as minutes end.
        assert_eq!(stay((0..7).map(minute).collect(), None), [2, 4, 7, 8]);
        let hour = |n: u64| head(0, 2 + n, 10 * DAY_MS - n * 20 * MINUTE_MS, false);
        assert_eq!(stay((0..7).map(hour).collect(), None), [2, 4, 7, 8]);
        let day = |n: u64| head(0, 2 + n, 100 * DAY_MS - n * DAY_MS / 3, false);
        assert_eq!(stay((0..7).map(day).collect(), None), [2, 4, 7, 8]);
    }

    #[test]
    fn the_applied_head_and_those_at_the_ends_of_epochs_stay() {
        let of = |epoch, sizes: std::ops::Range<u64>| {
            sizes.map(move |size| head(epoch, size, 100 * DAY_MS, false))
        };
        let heads = of(0, 1..6).chain(of(1, 10..16)).collect();
        assert_eq!(stay(heads, Some(12)), [1, 5, 10, 12, 15]);
    }

    #[test]
    fn of_one_stretch_the_last_that_others_vouch_for_stays() {
        let vouched = |size: u64| size == 4 || size == 5;
        let heads = (1..9).map(|size| head(0, size, 100 * DAY_MS, vouched(size)));
        assert_eq!(stay(heads.collect(), None), [1, 5]);
    }
}
