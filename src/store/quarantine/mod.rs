//! Quarantine: leaves that are stored, proved and relayed, and that say nothing here.
//!
//! A leaf, or one kind of signal of it, lies in a lot: one reason, and the kind or
//! the whole leaf. In each lot it is held, or the operator has decided: released
//! (it counts) or dropped (it never does, and waits for nobody). A leaf counts when
//! no lot withholds it. What a withheld leaf replaces goes on answering
//! ([`held`](crate::held)).
//!
//! Owns the lots, their rows (family `quarantine`, 65,536 leaves a row) and what the
//! operator decides. Who is to be held is said by the writer's caller (growth, stale
//! roster) or follows from the leaf and the gate ([`gate`](crate::gate)). Liveness,
//! proofs, counts and elision never depend on it.

mod lots;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hashpact_core::signal::HygieneFlag;
use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::FeedState;
use crate::held;
use crate::keys::{self, FeedNo};
use crate::record::{QuarantineRecord, seal, unseal};
use crate::store::{Inner, hold, read};

pub use self::lots::{Chosen, LotInfo, QuarantinedLeaf, WaitingLot};

/// Leaves of one row: a container of a bitmap.
pub(crate) const ROW_LEAVES: u64 = 1 << 16;
/// The kind byte of a lot of whole leaves; signals' kinds begin at 1.
pub const WHOLE_LEAF: u8 = 0;

/// Why a leaf is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The feed grew faster than it may.
    OverGrowth,
    /// The roster had expired more than 14 days before; lifted by a fresh one.
    StaleRoster,
    /// The digest of an empty file.
    EmptyInput,
    /// A value of zeros or ones alone.
    UniformValue,
    /// A PDQ with far fewer or more than 128 bits set.
    UnbalancedPdq,
    /// A PDQ or vPDQ of quality below 50.
    LowQuality,
    /// On a local allow list.
    AllowList,
    /// There was no room for its payload: it is held as its record alone, until there
    /// is.
    NoRoom,
    /// A counted entry says the same MD5 or SHA-1 beside another SHA-256; lifted when
    /// that one goes.
    DigestConflict,
    /// A PDQ near one on a local allow list, or a vPDQ all of whose frames are.
    NearAllowed,
    /// Its signal matches too much of what is asked: it is told, at review. Of no lot
    /// that is stored.
    Flood,
    /// The videos of its publisher take all the memory that they may: it is found by none
    /// of its frames until there is room.
    Frames,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::OverGrowth,
        Self::StaleRoster,
        Self::EmptyInput,
        Self::UniformValue,
        Self::UnbalancedPdq,
        Self::LowQuality,
        Self::AllowList,
        Self::NoRoom,
        Self::DigestConflict,
        Self::NearAllowed,
        Self::Flood,
        Self::Frames,
    ];

    /// The stable code for metrics, commands and logs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::OverGrowth => "over_growth",
            Self::StaleRoster => "stale_roster",
            Self::EmptyInput => "empty_input",
            Self::UniformValue => "uniform_value",
            Self::UnbalancedPdq => "unbalanced_pdq",
            Self::LowQuality => "low_quality",
            Self::AllowList => "allow_list",
            Self::NoRoom => "no_room",
            Self::DigestConflict => "digest_conflict",
            Self::NearAllowed => "near_allowed",
            Self::Flood => "flood",
            Self::Frames => "frames",
        }
    }

    /// The reason of a code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// Whether it follows from the leaf and the gate alone.
    pub(crate) const fn is_derived(self) -> bool {
        match self {
            // What others say at the time is no part of the leaf.
            Self::OverGrowth
            | Self::StaleRoster
            | Self::NoRoom
            | Self::DigestConflict
            | Self::Flood
            | Self::Frames => false,
            Self::EmptyInput
            | Self::UniformValue
            | Self::UnbalancedPdq
            | Self::LowQuality
            | Self::AllowList
            | Self::NearAllowed => true,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::OverGrowth => 1,
            Self::StaleRoster => 2,
            Self::EmptyInput => 3,
            Self::UniformValue => 4,
            Self::UnbalancedPdq => 5,
            Self::LowQuality => 6,
            Self::AllowList => 7,
            Self::NoRoom => 8,
            Self::DigestConflict => 9,
            Self::NearAllowed => 10,
            Self::Flood => 11,
            Self::Frames => 12,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.number() == number)
    }
}

impl From<HygieneFlag> for Reason {
    fn from(flag: HygieneFlag) -> Self {
        match flag {
            HygieneFlag::EmptyInput => Self::EmptyInput,
            HygieneFlag::Uniform => Self::UniformValue,
            HygieneFlag::UnbalancedPdq { .. } => Self::UnbalancedPdq,
            HygieneFlag::LowQuality { .. } => Self::LowQuality,
        }
    }
}

/// Names a lot: a reason, and [`WHOLE_LEAF`] or the number of a kind of signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LotName {
    /// Why its leaves are held.
    pub reason: Reason,
    /// What of them is held.
    pub kind: u8,
}

/// What the operator says of leaves in quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// They count.
    Release,
    /// They never count, and are no longer listed as waiting.
    Drop,
}

/// The leaves of one lot.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Lot {
    pub(crate) held: RoaringTreemap,
    pub(crate) released: RoaringTreemap,
    pub(crate) dropped: RoaringTreemap,
}

/// All lots of a feed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Quarantine {
    pub(crate) lots: BTreeMap<LotName, Lot>,
}

/// Leaves to be held, on their way into a commit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks(pub(crate) BTreeMap<LotName, RoaringTreemap>, RoaringTreemap);

/// The lot of leaves of which the payload had no room.
pub(crate) const NO_ROOM: LotName = LotName {
    reason: Reason::NoRoom,
    kind: WHOLE_LEAF,
};

impl Marks {
    pub(crate) fn add(&mut self, lot: LotName, index: u64) {
        self.0.entry(lot).or_default().insert(index);
    }

    /// A leaf has got its payload.
    pub(crate) fn has_room(&mut self, index: u64) {
        self.1.insert(index);
    }

    pub(crate) fn extend(&mut self, other: Self) {
        for (lot, indexes) in other.0 {
            *self.0.entry(lot).or_default() |= indexes;
        }
        self.1 |= other.1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty() && self.1.is_empty()
    }
}

impl Lot {
    pub(crate) fn withholds(&self, index: u64) -> bool {
        self.held.contains(index) || self.dropped.contains(index)
    }

    /// Holds leaves that nobody has decided on.
    fn take(&mut self, indexes: &RoaringTreemap) -> RoaringTreemap {
        let mut new = indexes - &self.held;
        new -= &self.released;
        new -= &self.dropped;
        self.held |= &new;
        new
    }

    fn decide(&mut self, chosen: &RoaringTreemap, decision: Decision) -> RoaringTreemap {
        let (from, to) = match decision {
            Decision::Release => {
                let mut from = &self.held | &self.dropped;
                from &= chosen;
                (from, &mut self.released)
            }
            Decision::Drop => (&self.held & chosen, &mut self.dropped),
        };
        *to |= &from;
        self.held -= &from;
        if decision == Decision::Release {
            self.dropped -= &from;
        }
        from
    }

    pub(crate) fn sets(&self) -> [&RoaringTreemap; 3] {
        [&self.held, &self.released, &self.dropped]
    }

    /// All leaves of the lot, whatever was decided.
    pub(crate) fn all(&self) -> RoaringTreemap {
        let mut all = &self.held | &self.released;
        all |= &self.dropped;
        all
    }

    fn is_empty(&self) -> bool {
        self.sets().into_iter().all(RoaringTreemap::is_empty)
    }
}

impl Quarantine {
    /// Whether a signal of this kind of the leaf is withheld.
    pub(crate) fn withholds(&self, kind: u8, index: u64) -> bool {
        let mut lots = self.lots.iter();
        lots.any(|(name, lot)| {
            (name.kind == WHOLE_LEAF || name.kind == kind) && lot.withholds(index)
        })
    }

    /// Whether the leaf as a whole is withheld for another reason than a stale roster.
    pub(crate) fn withholds_leaf(&self, index: u64) -> bool {
        let mut lots = self.lots.iter();
        lots.any(|(name, lot)| {
            let other = name.reason != Reason::StaleRoster;
            name.kind == WHOLE_LEAF && other && lot.withholds(index)
        })
    }

    /// Whether the leaf as a whole is withheld since the roster is stale.
    pub(crate) fn is_stale(&self, index: u64) -> bool {
        let mut lots = self.lots.iter();
        lots.any(|(name, lot)| {
            let stale = name.reason == Reason::StaleRoster;
            name.kind == WHOLE_LEAF && stale && lot.withholds(index)
        })
    }

    /// The leaves of which the payload had no room, whatever was decided of them.
    pub(crate) fn without_room(&self) -> RoaringTreemap {
        self.lots.get(&NO_ROOM).map(Lot::all).unwrap_or_default()
    }

    /// Whether any whole leaf is withheld.
    pub(crate) fn withholds_leaves(&self) -> bool {
        let mut lots = self.lots.iter();
        lots.any(|(name, lot)| {
            name.kind == WHOLE_LEAF && !(lot.held.is_empty() && lot.dropped.is_empty())
        })
    }

    /// Takes marks; answers what changed in each lot.
    fn take(&mut self, marks: &Marks) -> BTreeMap<LotName, RoaringTreemap> {
        let mut changed = BTreeMap::new();
        if let Some(lot) = self.lots.get_mut(&NO_ROOM) {
            let room = &lot.held & &marks.1;
            lot.held -= &room;
            changed.insert(NO_ROOM, room);
        }
        for (name, indexes) in &marks.0 {
            let new = self.lots.entry(*name).or_default().take(indexes);
            if !new.is_empty() {
                *changed.entry(*name).or_default() |= new;
            }
        }
        self.lots.retain(|_, lot| !lot.is_empty());
        changed
    }

    /// Reads the lots of a feed.
    pub(crate) fn load(inner: &Inner, no: FeedNo) -> Result<Self> {
        let mut quarantine = Self::default();
        inner.scan_feed(Family::Quarantine, no, |key, value| {
            let name = read_key(key)?;
            let record: QuarantineRecord = unseal(value, "a row of the quarantine")?;
            let lot = quarantine.lots.entry(name).or_default();
            lot.held |= read_set(&record.held)?;
            lot.released |= read_set(&record.released)?;
            lot.dropped |= read_set(&record.dropped)?;
            Ok(true)
        })?;
        Ok(quarantine)
    }

    /// Adds the rows that hold any of `changed` to a batch.
    fn put(
        &self,
        inner: &Inner,
        batch: &mut WriteBatch,
        no: FeedNo,
        changed: &BTreeMap<LotName, RoaringTreemap>,
    ) -> Result<()> {
        let family = inner.cf(Family::Quarantine)?;
        for (name, indexes) in changed {
            for row in rows_of(indexes) {
                let key = key(no, *name, row);
                let record = self.lots.get(name).map(|lot| record(lot, row));
                match record {
                    Some(record) if record != QuarantineRecord::default() => {
                        batch.put_cf(family, key, seal(&record));
                    }
                    Some(_) | None => batch.delete_cf(family, key),
                }
            }
        }
        Ok(())
    }
}

/// A change of the quarantine that is in a batch and not in force yet.
pub(crate) struct Pending {
    next: Arc<Quarantine>,
}

impl FeedState {
    /// Adds marks to a batch. The caller holds [`FeedState::quarantine_turn`] until
    /// the batch is written and [`FeedState::set_quarantine`] was told.
    pub(crate) fn put_marks(
        &self,
        inner: &Inner,
        batch: &mut WriteBatch,
        marks: &Marks,
    ) -> Result<Pending> {
        let mut next = Arc::clone(&read(&self.live).quarantine);
        if !marks.is_empty() {
            let quarantine = Arc::make_mut(&mut next);
            let changed = quarantine.take(marks);
            quarantine.put(inner, batch, self.no, &changed)?;
        }
        Ok(Pending { next })
    }

    /// Adds a decision on leaves of one lot to a batch. The caller holds the turn, as for
    /// [`FeedState::put_marks`].
    pub(crate) fn put_decision(
        &self,
        inner: &Inner,
        batch: &mut WriteBatch,
        name: LotName,
        leaves: &RoaringTreemap,
        decision: Decision,
    ) -> Result<Pending> {
        let mut next = Arc::clone(&read(&self.live).quarantine);
        let quarantine = Arc::make_mut(&mut next);
        if let Some(lot) = quarantine.lots.get_mut(&name) {
            let changed = BTreeMap::from([(name, lot.decide(leaves, decision))]);
            quarantine.put(inner, batch, self.no, &changed)?;
        }
        Ok(Pending { next })
    }

    /// Puts in force what is durable.
    pub(crate) fn set_quarantine(&self, pending: Pending) {
        self.live_mut().quarantine = pending.next;
    }

    /// Changes the lots durably, then in memory, then what answers because of them.
    pub(crate) fn change_quarantine(
        &self,
        inner: &Inner,
        change: impl FnOnce(&mut Quarantine) -> BTreeMap<LotName, RoaringTreemap>,
    ) -> Result<u64> {
        let _turn = hold(&self.quarantine_turn);
        let mut next = Arc::clone(&read(&self.live).quarantine);
        let quarantine = Arc::make_mut(&mut next);
        let changed = change(quarantine);
        quarantine.lots.retain(|_, lot| !lot.is_empty());
        if changed.values().all(RoaringTreemap::is_empty) {
            return Ok(0);
        }
        // Crash: before, the old lots stand; after, the new ones. What answers because
        // of them is computed anew at each open.
        let mut batch = WriteBatch::default();
        quarantine.put(inner, &mut batch, self.no, &changed)?;
        inner.write_synced(batch, "changing the quarantine")?;
        self.set_quarantine(Pending { next });
        // What answers though it is dead follows from whole leaves alone, and is dear.
        if changed.keys().any(|name| name.kind == WHOLE_LEAF) {
            held::refresh(inner, self)?;
        }
        let mut leaves = RoaringTreemap::new();
        for indexes in changed.values() {
            leaves |= indexes;
        }
        Ok(leaves.len())
    }
}

/// The rows that indexes fall into.
pub(crate) fn rows_of(indexes: &RoaringTreemap) -> Vec<u32> {
    let mut rows = Vec::new();
    let mut iter = indexes.iter();
    while let Some(index) = iter.next() {
        let row = index / ROW_LEAVES;
        rows.extend(u32::try_from(row));
        iter.advance_to(row.saturating_add(1).saturating_mul(ROW_LEAVES));
    }
    rows
}

fn record(lot: &Lot, row: u32) -> QuarantineRecord {
    let start = u64::from(row).saturating_mul(ROW_LEAVES);
    let mut window = RoaringTreemap::new();
    window.insert_range(start..start.saturating_add(ROW_LEAVES));
    let bytes = |set: &RoaringTreemap| {
        let mut part = set & &window;
        let mut bytes = Vec::new();
        if !part.is_empty() {
            part.optimize();
            // Writing to memory cannot fail.
            let _ = part.serialize_into(&mut bytes);
        }
        Bytes::from(bytes)
    };
    let [held, released, dropped] = lot.sets().map(bytes);
    QuarantineRecord {
        held,
        released,
        dropped,
    }
}

fn read_set(bytes: &Bytes) -> Result<RoaringTreemap> {
    if bytes.is_empty() {
        return Ok(RoaringTreemap::new());
    }
    RoaringTreemap::deserialize_from(bytes.as_ref())
        .map_err(|_| StoreError::corrupt("a bitmap of the quarantine"))
}

/// `feed ‖ reason ‖ kind ‖ row`.
fn key(no: FeedNo, name: LotName, row: u32) -> [u8; 10] {
    let mut key = [0; 10];
    key[..4].copy_from_slice(&keys::feed_prefix(no));
    key[4] = name.reason.number();
    key[5] = name.kind;
    key[6..].copy_from_slice(&row.to_be_bytes());
    key
}

fn read_key(key: &[u8]) -> Result<LotName> {
    let reason = key.get(4).copied().and_then(Reason::from_number);
    let kind = key.get(5).copied();
    reason
        .zip(kind)
        .map(|(reason, kind)| LotName { reason, kind })
        .ok_or(StoreError::corrupt("a key of the quarantine"))
}
