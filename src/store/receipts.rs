//! Receipts: the newest word of each node on each feed, and what of a feed none of this
//! node's may speak of.
//!
//! Checked by the caller; kept unsynced, since whoever made one says it again. How far
//! a node got when is kept beside it where the caller asks for it: a publisher does, of
//! its own feeds, where the root is that of its own leaves.
//!
//! | key in the family `receipts` | value |
//! |---|---|
//! | feed, 0, member, node | newest receipt |
//! | feed, 1, member, node | its steps |

use bytes::Bytes;
use hashpact_core::covered::{Step, Steps};
use hashpact_core::id::{Digest, MemberNumber, Slug, UnixMillis};
use hashpact_core::limits::RECEIPTS_MAX;
use hashpact_core::reject::Rejection;
use prost::Message;
use rocksdb::WriteBatch;

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::HeadRef;
use crate::keys::{self, FeedNo};
use crate::quarantine::{Reason, WHOLE_LEAF};
use crate::record::{KillerRecord, seal, unseal};
use crate::store::{Inner, Store, read};

const NEWEST: u8 = 0;
const STEPS: u8 = 1;

/// A node's newest word on a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptReceipt {
    /// Whose node it is.
    pub member: MemberNumber,
    /// The node.
    pub node: Slug,
    /// The state of the feed that it acts on.
    pub at: HeadRef,
    /// Since when, by its clock.
    pub since: UnixMillis,
    /// When it said so, by its clock.
    pub signed: UnixMillis,
    /// When this node had it first.
    pub heard: UnixMillis,
    /// Whether its root was that of the leaves held here when it was taken: once leaves
    /// below its size are cut off, nobody can look.
    pub compared: bool,
    /// The envelope as received.
    pub envelope: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct ReceiptRecord {
    #[prost(uint32, tag = "1")]
    epoch: u32,
    #[prost(uint64, tag = "2")]
    size: u64,
    #[prost(bytes = "vec", tag = "3")]
    root: Vec<u8>,
    #[prost(uint64, tag = "4")]
    since_ms: u64,
    #[prost(uint64, tag = "5")]
    signed_ms: u64,
    #[prost(uint64, tag = "6")]
    heard_ms: u64,
    #[prost(bytes = "bytes", tag = "7")]
    envelope: Bytes,
    #[prost(bool, tag = "8")]
    compared: bool,
}

#[derive(Clone, PartialEq, Message)]
struct StepRecord {
    #[prost(uint32, tag = "1")]
    epoch: u32,
    #[prost(uint64, tag = "2")]
    size: u64,
    #[prost(uint64, tag = "3")]
    since_ms: u64,
    #[prost(bool, tag = "4")]
    thinned: bool,
}

#[derive(Clone, PartialEq, Message)]
struct StepsRecord {
    #[prost(message, repeated, tag = "1")]
    steps: Vec<StepRecord>,
}

/// Why a receipt stops short of a leaf of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotActedOn {
    /// It is held as its record alone, and nothing makes it dead.
    Missing,
    /// It is a mass retraction that waits for its publisher's identity key.
    HeldRetraction,
    /// It waits in quarantine, though nothing is said against the entry itself.
    Waiting(Reason),
}

/// There was nothing of it before: older programs, which do not know of receipts, refuse
/// the store from here on.
pub(crate) fn migrate(inner: &Inner) -> Result<()> {
    inner.cf(Family::Receipts).map(drop)
}

impl Store {
    /// Keeps the newest word of a node, with `history` how far it got when as well, if its
    /// root was compared: a step says nothing of the history that it was in.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`], [`Rejection::RateLimited`] for another node
    /// than there is room for; what RocksDB answers.
    pub fn put_receipt(&self, no: FeedNo, kept: &KeptReceipt, history: bool) -> Result<()> {
        let inner = &*self.inner;
        inner.feed(no)?;
        let key = key_of(no, NEWEST, kept.member, &kept.node);
        if inner.get(Family::Receipts, &key)?.is_none() && count(inner, no)? >= RECEIPTS_MAX {
            let limit = u64::try_from(RECEIPTS_MAX).unwrap_or(u64::MAX);
            let what = "nodes with receipts of one feed";
            return Err(Rejection::RateLimited { what, limit }.into());
        }
        // Crash: before, the node's word before stands, and it says the newer one again;
        // after, both are kept.
        let mut batch = WriteBatch::default();
        let family = inner.cf(Family::Receipts)?;
        batch.put_cf(family, key, seal(&record_of(kept)));
        if history && kept.compared {
            let mut steps = self.receipt_steps(no, kept.member, &kept.node)?;
            steps.note(kept.at.epoch, kept.at.size, kept.since);
            let key = key_of(no, STEPS, kept.member, &kept.node);
            batch.put_cf(family, key, seal(&record_of_steps(&steps)));
        }
        inner.write_unsynced(batch, "keeping a receipt")
    }

    /// The newest word of one node on a feed.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn receipt(
        &self,
        no: FeedNo,
        member: MemberNumber,
        node: &Slug,
    ) -> Result<Option<KeptReceipt>> {
        let record = self
            .inner
            .get(Family::Receipts, key_of(no, NEWEST, member, node))?;
        record
            .map(|record| read_kept(member, node.clone(), &record))
            .transpose()
    }

    /// The newest words of all nodes on a feed, or of one member's, in their order.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn receipts(&self, no: FeedNo, member: Option<MemberNumber>) -> Result<Vec<KeptReceipt>> {
        let (from, to) = match member {
            Some(member) => {
                let number = member.value();
                let end = prefix(no, NEWEST, number.saturating_add(1));
                (prefix(no, NEWEST, number), end)
            }
            None => (prefix(no, NEWEST, 0), prefix(no, STEPS, 0)),
        };
        let mut all = Vec::new();
        self.inner
            .scan(Family::Receipts, &from, &to, |key, value| {
                let (member, node) = read_key(key)?;
                all.push(read_kept(member, node, value)?);
                Ok(true)
            })?;
        Ok(all)
    }

    /// How far a node got when, where that was kept.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn receipt_steps(&self, no: FeedNo, member: MemberNumber, node: &Slug) -> Result<Steps> {
        let key = key_of(no, STEPS, member, node);
        let Some(record) = self.inner.get(Family::Receipts, key)? else {
            return Ok(Steps::default());
        };
        let record: StepsRecord = unseal(&record, "steps of receipts")?;
        let steps = record.steps.into_iter().map(|step| Step {
            epoch: step.epoch,
            size: step.size,
            since: UnixMillis(step.since_ms),
            thinned: step.thinned,
        });
        Ok(Steps::of(steps.collect()))
    }

    /// Forgets the words of nodes that `keep` does not name; answers how many went.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn forget_receipts(
        &self,
        no: FeedNo,
        keep: &dyn Fn(MemberNumber, &Slug) -> bool,
    ) -> Result<usize> {
        let inner = &*self.inner;
        let family = inner.cf(Family::Receipts)?;
        // Crash: before, they go another time.
        let mut batch = WriteBatch::default();
        inner.scan_feed(Family::Receipts, no, |key, _| {
            let (member, node) = read_key(key)?;
            if !keep(member, &node) {
                batch.delete_cf(family, key);
            }
            Ok(true)
        })?;
        let gone = batch.len();
        if gone > 0 {
            inner.write_unsynced(batch, "forgetting receipts")?;
        }
        Ok(gone)
    }

    /// The first leaf of a feed that this node holds and does not act on, and why; what
    /// it says of later leaves would be no receipt.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`].
    pub fn not_acted_on(&self, no: FeedNo) -> Result<Option<(u64, NotActedOn)>> {
        let state = self.inner.feed(no)?;
        let live = read(&state.live);
        let mut found: Vec<(u64, NotActedOn)> = Vec::new();
        let missing = live.unjustified().min();
        found.extend(missing.map(|index| (index, NotActedOn::Missing)));
        let held = live.held.retractions().first();
        found.extend(held.map(|index| (*index, NotActedOn::HeldRetraction)));
        for (name, lot) in &live.quarantine.lots {
            // What the gate holds back was looked at, and is no longer this node's to do.
            let waits = matches!(name.reason, Reason::OverGrowth | Reason::StaleRoster);
            if let Some(index) = lot.held.min().filter(|_| waits && name.kind == WHOLE_LEAF) {
                found.push((index, NotActedOn::Waiting(name.reason)));
            }
        }
        Ok(found.into_iter().min_by_key(|(index, _)| *index))
    }

    /// The first retract or erase leaf that names a leaf, held or not.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`], or what RocksDB answers.
    pub fn withdrawn_by(&self, no: FeedNo, index: u64) -> Result<Option<u64>> {
        let from = keys::numbered(no, index.saturating_add(1));
        let to = keys::numbered(no, self.feed(no)?.indexed);
        let mut found = None;
        self.inner
            .scan(Family::Killers, &from, &to, |key, record| {
                let record: KillerRecord = unseal(record, "a killer's row")?;
                if record.names_ranges() && record.names(index) {
                    found = Some(keys::read_numbered(key)?.1);
                }
                Ok(found.is_none())
            })?;
        Ok(found)
    }

    /// The newest head kept of an epoch of a feed that covers at most `size` leaves.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn head_at_most(&self, no: FeedNo, epoch: u32, size: u64) -> Result<Option<HeadRef>> {
        let mut options = rocksdb::ReadOptions::default();
        options.set_iterate_lower_bound(keys::head(no, epoch, 0));
        let family = self.inner.cf(Family::Heads)?;
        let mut iterator = self.inner.db.raw_iterator_cf_opt(family, options);
        iterator.seek_for_prev(keys::head(no, epoch, size));
        let found = iterator.item().map(|(key, record)| {
            let (_, epoch, size) = keys::read_head(key)?;
            crate::heads::Head::read(epoch, size, record).map(|head| head.at())
        });
        let found = found.transpose()?;
        iterator
            .status()
            .map_err(StoreError::engine("reading heads"))?;
        Ok(found)
    }

    /// When this node first had a head that covers the leaf `index`, among those kept,
    /// and when it had the one before that.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn first_covered(
        &self,
        no: FeedNo,
        index: u64,
    ) -> Result<Option<(UnixMillis, Option<UnixMillis>)>> {
        let mut before = None;
        let mut found = None;
        for epoch in 0..=self.feed(no)?.epoch {
            let from = keys::head(no, epoch, index.saturating_add(1));
            let to = keys::head(no, epoch, u64::MAX);
            self.inner.scan(Family::Heads, &from, &to, |key, record| {
                let (_, epoch, size) = keys::read_head(key)?;
                found = Some(crate::heads::Head::read(epoch, size, record)?.received);
                Ok(false)
            })?;
            if let Some(at) = self.head_at_most(no, epoch, index)? {
                before = self.head(no, at.epoch, at.size)?.map(|head| head.received);
            }
            if let Some(found) = found {
                return Ok(Some((found, before)));
            }
        }
        Ok(None)
    }

    /// The newest head of a feed that this node had at a time or before, among those kept.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn head_as_of(&self, no: FeedNo, at: UnixMillis) -> Result<Option<(HeadRef, UnixMillis)>> {
        let mut options = rocksdb::ReadOptions::default();
        options.set_iterate_lower_bound(keys::feed_prefix(no));
        let family = self.inner.cf(Family::Heads)?;
        let mut iterator = self.inner.db.raw_iterator_cf_opt(family, options);
        iterator.seek_for_prev(keys::head(no, u32::MAX, u64::MAX));
        while let Some((key, record)) = iterator.item() {
            let (_, epoch, size) = keys::read_head(key)?;
            let head = crate::heads::Head::read(epoch, size, record)?;
            if head.received <= at {
                return Ok(Some((head.at(), head.received)));
            }
            iterator.prev();
        }
        iterator
            .status()
            .map_err(StoreError::engine("reading heads"))?;
        Ok(None)
    }
}

fn count(inner: &Inner, no: FeedNo) -> Result<usize> {
    let mut count = 0_usize;
    let (from, to) = (prefix(no, NEWEST, 0), prefix(no, STEPS, 0));
    inner.scan(Family::Receipts, &from, &to, |_, _| {
        count = count.saturating_add(1);
        Ok(true)
    })?;
    Ok(count)
}

fn prefix(no: FeedNo, part: u8, member: u32) -> Vec<u8> {
    let mut key = keys::feed_prefix(no).to_vec();
    key.push(part);
    key.extend_from_slice(&member.to_be_bytes());
    key
}

fn key_of(no: FeedNo, part: u8, member: MemberNumber, node: &Slug) -> Vec<u8> {
    let mut key = prefix(no, part, member.value());
    key.extend_from_slice(node.as_str().as_bytes());
    key
}

fn read_key(key: &[u8]) -> Result<(MemberNumber, Slug)> {
    let wrong = || StoreError::corrupt("a receipt's key");
    let rest = key.get(5..).ok_or_else(wrong)?;
    let (member, node) = rest.split_first_chunk::<4>().ok_or_else(wrong)?;
    let member = MemberNumber::new(u32::from_be_bytes(*member)).map_err(|_| wrong())?;
    let node = std::str::from_utf8(node).map_err(|_| wrong())?;
    Ok((member, Slug::parse(node).map_err(|_| wrong())?))
}

fn record_of(kept: &KeptReceipt) -> ReceiptRecord {
    ReceiptRecord {
        epoch: kept.at.epoch,
        size: kept.at.size,
        root: kept.at.root.0.to_vec(),
        since_ms: kept.since.0,
        signed_ms: kept.signed.0,
        heard_ms: kept.heard.0,
        compared: kept.compared,
        envelope: kept.envelope.clone(),
    }
}

fn record_of_steps(steps: &Steps) -> StepsRecord {
    let steps = steps.all().iter().map(|step| StepRecord {
        epoch: step.epoch,
        size: step.size,
        since_ms: step.since.0,
        thinned: step.thinned,
    });
    StepsRecord {
        steps: steps.collect(),
    }
}

fn read_kept(member: MemberNumber, node: Slug, record: &[u8]) -> Result<KeptReceipt> {
    let record: ReceiptRecord = unseal(record, "a receipt")?;
    let root = Digest::from_slice(&record.root);
    Ok(KeptReceipt {
        member,
        node,
        at: HeadRef {
            epoch: record.epoch,
            size: record.size,
            root: root.map_err(|_| StoreError::corrupt("a receipt's root"))?,
        },
        since: UnixMillis(record.since_ms),
        signed: UnixMillis(record.signed_ms),
        heard: UnixMillis(record.heard_ms),
        compared: record.compared,
        envelope: record.envelope,
    })
}
