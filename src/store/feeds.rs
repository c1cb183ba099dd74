//! Feeds: who publishes them, how far they are stored and indexed, what is dead.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use hashpact_core::id::{Digest, FeedId, MemberNumber, SetName};
use hashpact_core::leaf::{self, Leaf, RawLeaf};
use hashpact_core::liveness::Liveness;
use hashpact_core::merkle::CompactRange;
use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use crate::changes::ChangePulse;
use crate::counts::FeedCounts;
use crate::elided;
use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::frame_room;
use crate::heads::PRUNE_EVERY;
use crate::held::{self, Held};
use crate::index::killers;
use crate::keys::{self, FeedNo};
use crate::leaving::{self, Leaving};
use crate::quarantine::Quarantine;
use crate::record::{FeedIdentity, FeedRow, seal, unseal};
use crate::space;
use crate::status;
use crate::store::{Busy, Inner, Store, hold, read};
use crate::unconfirmed;

/// The part of the feeds family that changes with every commit.
const PART_ROW: u8 = 0;
/// The part that hardly ever changes.
const PART_IDENTITY: u8 = 1;
/// The part that says how fast the feed has grown.
pub(crate) const PART_GROWTH: u8 = 3;
/// The part that says that dropped payloads may lie in files.
pub(crate) const PART_PURGE: u8 = 4;
/// Where the next feed's number stands, in `meta`.
const NEXT_FEED: &[u8] = b"next feed";

/// What a feed holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FeedKind {
    /// Entries of one hash set.
    HashSet,
    /// One member's opinions.
    Opinions,
}

/// What the node may do with a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FeedStatus {
    /// It is pulled or published, and answers look-ups.
    Active,
    /// It stands as it was verified: the publisher forked it, or a key leaked.
    /// It answers look-ups; the node caps their verdict at review.
    Frozen,
    /// As [`Frozen`](Self::Frozen): its grant to this member ended, though not by a word
    /// that is acted on at once; see [`Leaving`].
    Leaving,
    /// It answers nothing: the publisher is suspended or access is in doubt.
    Silent,
    /// It is being removed; what is left of it answers nothing.
    Dropping,
}

/// What makes a new feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewFeed {
    /// The feed's id.
    pub id: FeedId,
    /// The publisher's permanent number.
    pub publisher: MemberNumber,
    /// Whether this node writes it: then references are kept for imports.
    pub own: bool,
    /// What it holds.
    pub kind: FeedKind,
}

/// What never changes of what describe leaves say.
pub(crate) type Said = (SetName, leaf::FeedKind);

/// Name and kind by a describe leaf.
pub(crate) fn said_by(index: u64, payload: &Bytes) -> Option<Said> {
    let raw = RawLeaf::new(leaf::DESCRIBE, payload.clone());
    match leaf::read(&raw, index) {
        Leaf::Describe(describe) => Some((describe.name, describe.feed_kind)),
        Leaf::Publish(_)
        | Leaf::Retract(_)
        | Leaf::Opinion(_)
        | Leaf::Erase(_)
        | Leaf::Unknown(_)
        | Leaf::Void(_)
        | Leaf::Elided => None,
    }
}

/// A head without its signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadRef {
    /// The feed's epoch.
    pub epoch: u32,
    /// Leaves below the head.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Digest,
}

/// A feed as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedInfo {
    /// The number in this store.
    pub no: FeedNo,
    /// The feed's id.
    pub id: FeedId,
    /// The publisher's permanent number.
    pub publisher: MemberNumber,
    /// Whether this node writes it.
    pub own: bool,
    /// What it holds.
    pub kind: FeedKind,
    /// What the node may do with it.
    pub status: FeedStatus,
    /// When it goes and why, where it is [`FeedStatus::Leaving`].
    pub leaving: Option<Leaving>,
    /// The store was restored, and nobody has said since that this is all of the feed.
    pub unconfirmed: bool,
    /// The epoch that is pulled or published: the newest of the one that was opened
    /// here and that of the applied head.
    pub epoch: u32,
    /// Leaves that are durable and verified.
    pub stored: u64,
    /// Leaves that look-ups, liveness and references reflect; at most `stored`.
    pub indexed: u64,
    /// The head that was committed last; its size is at most `indexed`.
    pub applied: Option<HeadRef>,
    /// The describe leaf in force below `indexed`: its index and payload.
    pub describe: Option<(u64, Bytes)>,
    /// Indexed leaves by sort.
    pub counts: FeedCounts,
    /// Dead publish and opinion leaves below `indexed`.
    pub dead: u64,
    /// Stored leaves that are held as their record alone.
    pub elided: u64,
    /// Of these, below `indexed`, those that nothing makes dead: they were elided
    /// without reason, and nothing is said of them.
    pub missing: u64,
    /// What the stored leaves take of the disk, roughly: their payloads, and a little
    /// for each.
    pub bytes: u64,
}

/// A feed in memory.
pub(crate) struct FeedState {
    pub(crate) no: FeedNo,
    pub(crate) id: FeedId,
    pub(crate) publisher: MemberNumber,
    pub(crate) own: bool,
    pub(crate) kind: FeedKind,
    /// Whether the feed has a writer.
    pub(crate) busy: Busy,
    /// One change of the quarantine at a time.
    pub(crate) quarantine_turn: Mutex<()>,
    /// Heads committed since the old ones were pruned.
    pub(crate) heads_unpruned: AtomicU32,
    /// Frames of its videos that are in the index, or about to be.
    pub(crate) frames: AtomicU64,
    pub(crate) live: RwLock<Live>,
    /// Grows with every change of `live`.
    pub(crate) version: AtomicU64,
    pub(crate) pulse: ChangePulse,
}

/// What changes about a feed, always as one durable state.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) row: FeedRow,
    pub(crate) status: FeedStatus,
    pub(crate) leaving: Option<Leaving>,
    pub(crate) unconfirmed: bool,
    /// The compact range [0, stored).
    pub(crate) frontier: CompactRange,
    /// What is dead below `indexed`.
    pub(crate) liveness: Liveness,
    /// What of that look-ups answer all the same, marked.
    pub(crate) held: Held,
    /// Leaves to be reviewed while they are alive: a roster cut off what had killed
    /// them.
    pub(crate) doubted: RoaringTreemap,
    /// What look-ups do not answer though it lives.
    pub(crate) quarantine: Arc<Quarantine>,
    pub(crate) describe: Option<(u64, Bytes)>,
    /// Stored leaves that are held as their record alone.
    pub(crate) elided: RoaringTreemap,
    /// How many of them are indexed and not dead.
    pub(crate) missing: u64,
}

impl Store {
    /// Makes an empty feed.
    ///
    /// # Errors
    /// [`StoreError::FeedExists`], or what RocksDB answers.
    pub fn create_feed(&self, new: &NewFeed) -> Result<FeedNo> {
        let inner = &*self.inner;
        let _turn = hold(&inner.catalogue);
        let mut table = (*inner.feeds()).clone();
        if let Some(no) = table.by_id.get(&new.id) {
            return Err(StoreError::FeedExists(*no));
        }
        let no = next_number(inner)?;
        let state = FeedState::new(no, new, &inner.pulse);
        // Crash: before, nothing of the feed exists; after, it is there and empty.
        let mut batch = WriteBatch::default();
        let feeds = inner.cf(Family::Feeds)?;
        batch.put_cf(feeds, part(no, PART_IDENTITY), seal(&state.identity()));
        state.put_row(inner, &mut batch, &read(&state.live).row)?;
        status::put(inner, &mut batch, &state, FeedStatus::Active)?;
        let next =
            no.0.checked_add(1)
                .ok_or(StoreError::corrupt("feed numbers ran out"))?;
        batch.put_cf(inner.cf(Family::Meta)?, NEXT_FEED, next.to_be_bytes());
        inner.write_synced(batch, "making a feed")?;
        table.insert(state.into());
        inner.replace_feeds(table);
        Ok(no)
    }

    /// Lists all feeds, in the order that they were made.
    #[must_use]
    pub fn feeds(&self) -> Vec<FeedInfo> {
        let table = self.inner.feeds();
        table.by_no.values().map(|state| state.info()).collect()
    }

    /// The ids of all feeds, in no order.
    #[must_use]
    pub fn feed_ids(&self) -> Vec<FeedId> {
        let table = self.inner.feeds();
        table.by_no.values().map(|state| state.id).collect()
    }

    /// Finds a feed by its id.
    #[must_use]
    pub fn feed_no(&self, id: &FeedId) -> Option<FeedNo> {
        self.inner.feeds().by_id.get(id).copied()
    }

    /// One feed as it stands.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`].
    pub fn feed(&self, no: FeedNo) -> Result<FeedInfo> {
        Ok(self.inner.feed(no)?.info())
    }

    /// Whether the publish or opinion leaf `index` is dead by what is indexed.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`].
    pub fn is_dead(&self, no: FeedNo, index: u64) -> Result<bool> {
        let state = self.inner.feed(no)?;
        let dead = read(&state.live).liveness.is_dead(index);
        Ok(dead)
    }

    /// Calls `look` with what is dead in a feed; appends wait for it, so be quick.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`].
    pub fn with_liveness<R>(&self, no: FeedNo, look: impl FnOnce(&Liveness) -> R) -> Result<R> {
        let state = self.inner.feed(no)?;
        let live = read(&state.live);
        Ok(look(&live.liveness))
    }
}

impl FeedState {
    fn new(no: FeedNo, new: &NewFeed, pulse: &ChangePulse) -> Self {
        Self {
            no,
            id: new.id,
            publisher: new.publisher,
            own: new.own,
            kind: new.kind,
            busy: Busy::new(false),
            quarantine_turn: Mutex::default(),
            // The first commit after a start looks.
            heads_unpruned: AtomicU32::new(PRUNE_EVERY),
            frames: AtomicU64::new(0),
            live: RwLock::new(Live {
                row: FeedRow::default(),
                status: FeedStatus::Active,
                leaving: None,
                unconfirmed: false,
                frontier: CompactRange::empty(0),
                liveness: Liveness::default(),
                held: Held::default(),
                doubted: RoaringTreemap::new(),
                quarantine: Arc::default(),
                describe: None,
                elided: RoaringTreemap::new(),
                missing: 0,
            }),
            version: AtomicU64::new(0),
            pulse: pulse.clone(),
        }
    }

    /// Reads all feeds, with what is dead in each from its killers.
    pub(crate) fn load_all(inner: &Inner) -> Result<Vec<Self>> {
        let identities = identities(inner)?.into_iter();
        let mut states: Vec<Self> = identities
            .map(|(no, new)| Self::new(no, &new, &inner.pulse))
            .collect();
        for state in &mut states {
            state.load(inner)?;
        }
        Ok(states)
    }

    fn load(&mut self, inner: &Inner) -> Result<()> {
        let mut row = part_row(inner, self.no)?;
        if row.bytes == 0 {
            // A store from before this was counted.
            row.bytes = row.stored.saturating_mul(space::LEAF_BYTES_GUESS);
        }
        let hashes = row
            .frontier
            .chunks(32)
            .map(Digest::from_slice)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| StoreError::corrupt("a feed's frontier"))?;
        let frontier = CompactRange::from_hashes(0, row.stored, hashes)
            .map_err(|_| StoreError::corrupt("a feed's frontier"))?;
        let live = Live {
            status: status::load(inner, self.no)?,
            leaving: leaving::load(inner, self.no)?,
            unconfirmed: unconfirmed::load(inner, self.no)?,
            frontier,
            liveness: killers::rebuild(inner, self.no, row.indexed)?,
            held: Held::default(),
            doubted: RoaringTreemap::new(),
            quarantine: Arc::new(Quarantine::load(inner, self.no)?),
            describe: self.load_describe(inner, &row)?,
            elided: elided::load(inner, self.no)?,
            missing: 0,
            row,
        };
        *self.live_mut() = live;
        held::load(inner, self)?;
        frame_room::load(inner, self)?;
        self.live_mut().recount();
        Ok(())
    }

    fn load_describe(&self, inner: &Inner, row: &FeedRow) -> Result<Option<(u64, Bytes)>> {
        let Some(index) = row.describe_plus_one.checked_sub(1) else {
            return Ok(None);
        };
        let leaves = inner.leaves(self.no, row.stored, index, index.saturating_add(1))?;
        let payload = leaves.first().and_then(|leaf| leaf.payload().cloned());
        Ok(payload.map(|payload| (index, Bytes::copy_from_slice(&payload))))
    }

    /// What callers see of the feed.
    pub(crate) fn info(&self) -> FeedInfo {
        self.info_of(&read(&self.live))
    }

    /// The feed as it stands, with its compact range and dead leaves, all of one
    /// moment.
    pub(crate) fn standing(&self) -> (FeedInfo, CompactRange, RoaringTreemap) {
        let live = read(&self.live);
        (
            self.info_of(&live),
            live.frontier.clone(),
            live.liveness.dead(),
        )
    }

    pub(crate) fn info_of(&self, live: &Live) -> FeedInfo {
        FeedInfo {
            no: self.no,
            id: self.id,
            publisher: self.publisher,
            own: self.own,
            kind: self.kind,
            status: live.status,
            leaving: live.leaving.filter(|_| live.status == FeedStatus::Leaving),
            unconfirmed: live.unconfirmed,
            epoch: live.row.epoch.max(live.row.applied_epoch),
            stored: live.row.stored,
            indexed: live.row.indexed,
            applied: live.row.applied(),
            describe: live.describe.clone(),
            counts: FeedCounts::read(&live.row.counts),
            dead: live.liveness.dead_count(),
            elided: live.elided.len(),
            missing: live.missing,
            bytes: live.row.bytes,
        }
    }

    /// Adds the row to a batch.
    pub(crate) fn put_row(
        &self,
        inner: &Inner,
        batch: &mut WriteBatch,
        row: &FeedRow,
    ) -> Result<()> {
        batch.put_cf(inner.cf(Family::Feeds)?, part(self.no, PART_ROW), seal(row));
        Ok(())
    }

    /// Removes all parts of the feed's row.
    pub(crate) fn delete_row(&self, inner: &Inner, batch: &mut WriteBatch) -> Result<()> {
        let feeds = inner.cf(Family::Feeds)?;
        for of in [
            PART_ROW,
            PART_IDENTITY,
            held::PART_HELD,
            PART_GROWTH,
            PART_PURGE,
            status::PART_STATUS,
            leaving::PART_LEAVING,
            unconfirmed::PART_UNCONFIRMED,
        ] {
            batch.delete_cf(feeds, part(self.no, of));
        }
        Ok(())
    }

    /// Takes the feed for one writer.
    pub(crate) fn take(&self) -> Result<()> {
        if self.busy.swap(true, Ordering::AcqRel) {
            Err(StoreError::FeedBusy(self.no))
        } else {
            Ok(())
        }
    }

    fn identity(&self) -> FeedIdentity {
        FeedIdentity {
            id: self.id.as_bytes().to_vec(),
            publisher: self.publisher.value(),
            own: self.own,
            kind: self.kind.number(),
        }
    }
}

impl FeedIdentity {
    fn read(&self) -> Result<NewFeed> {
        let wrong = || StoreError::corrupt("a feed's identity");
        Ok(NewFeed {
            id: FeedId::from_slice(&self.id).map_err(|_| wrong())?,
            publisher: MemberNumber::new(self.publisher).map_err(|_| wrong())?,
            own: self.own,
            kind: FeedKind::read(self.kind)?,
        })
    }
}

impl FeedRow {
    pub(crate) fn applied(&self) -> Option<HeadRef> {
        let root = Digest::from_slice(&self.applied_root).ok()?;
        Some(HeadRef {
            epoch: self.applied_epoch,
            size: self.applied_size,
            root,
        })
    }

    pub(crate) fn set_frontier(&mut self, frontier: &CompactRange) {
        self.stored = frontier.end();
        self.frontier = frontier.hashes().iter().flat_map(|hash| hash.0).collect();
    }
}

impl FeedKind {
    const fn number(self) -> u32 {
        match self {
            Self::HashSet => 1,
            Self::Opinions => 2,
        }
    }

    const fn read(number: u32) -> Result<Self> {
        match number {
            1 => Ok(Self::HashSet),
            2 => Ok(Self::Opinions),
            _ => Err(StoreError::corrupt("a feed's kind")),
        }
    }
}

pub(crate) fn part(no: FeedNo, part: u8) -> [u8; 5] {
    let mut key = [part; 5];
    key[..4].copy_from_slice(&keys::feed_prefix(no));
    key
}

/// The key of a feed's row.
pub(crate) fn row_key(no: FeedNo) -> [u8; 5] {
    part(no, PART_ROW)
}

/// What every feed in the store is.
pub(crate) fn identities(inner: &Inner) -> Result<Vec<(FeedNo, NewFeed)>> {
    let mut identities = Vec::new();
    inner.scan(Family::Feeds, &[], &[0xff; 8], |key, value| {
        if let Some((&PART_IDENTITY, no)) = key.split_last() {
            let no = <[u8; 4]>::try_from(no)
                .map_err(|_| StoreError::corrupt("a feed's key has another length"))?;
            let identity: FeedIdentity = unseal(value, "a feed's identity")?;
            identities.push((FeedNo(u32::from_be_bytes(no)), identity.read()?));
        }
        Ok(true)
    })?;
    Ok(identities)
}

/// The opinions feeds in the store, before feeds are loaded.
pub(crate) fn opinion_feeds(inner: &Inner) -> Result<Vec<(FeedNo, NewFeed)>> {
    let mut feeds = identities(inner)?;
    feeds.retain(|(_, new)| new.kind == FeedKind::Opinions);
    Ok(feeds)
}

/// Reads a feed's row.
pub(crate) fn part_row(inner: &Inner, no: FeedNo) -> Result<FeedRow> {
    let record = inner
        .get(Family::Feeds, part(no, PART_ROW))?
        .ok_or(StoreError::corrupt("a feed has no row"))?;
    unseal(&record, "a feed's row")
}

/// Numbers of removed feeds are not given again: bulk files may still name them.
fn next_number(inner: &Inner) -> Result<FeedNo> {
    let Some(record) = inner.get(Family::Meta, NEXT_FEED)? else {
        return Ok(FeedNo(1));
    };
    <[u8; 4]>::try_from(record)
        .map(|bytes| FeedNo(u32::from_be_bytes(bytes)))
        .map_err(|_| StoreError::corrupt("the next feed's number"))
}
