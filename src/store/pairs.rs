//! One MD5 or SHA-1 beside two SHA-256: one of the entries is wrong, or somebody made
//! two files of one value.
//!
//! Asked when a leaf is indexed. The newcomer waits, with its MD5 or SHA-1 alone
//! ([`Reason::DigestConflict`]); its other signals count. ⚠ So publishing first disarms
//! nothing: the value still matches by the entry that was here, the newcomer's SHA-256
//! and perceptual values match by themselves, and when the other entry goes the newcomer
//! is let in ([`Store::recheck_conflicts`]). What counts already is never held: a pair
//! that any counted entry says is known, and an entry that said the value before keeps
//! it in its next version.
//!
//! Bounded: an entry without MD5 and SHA-1, or without SHA-256, costs nothing; one with
//! both one seek a value, mostly answered by the filter. What else is read is bounded by
//! the commit, and what is beyond counts, as before.

use std::collections::{BTreeMap, HashMap};

use hashpact_core::leaf::{self, Leaf};
use hashpact_core::signal::{Signal, SignalKind};
use roaring::RoaringTreemap;

use crate::error::Result;
use crate::families::Family;
use crate::index::derive::Derived;
use crate::keys::{self, FeedNo, IndexKey};
use crate::lookup::{Postings, Seeker};
use crate::quarantine::{Lot, LotName, Reason};
use crate::record::PostingRecord;
use crate::store::{Inner, Store, hold, read};

/// Entries of one feed that are compared for one value.
const PER_FEED: usize = 8;
/// Entries of all feeds.
const ENTRIES_MAX: usize = 32;
/// Postings of one feed passed by for one value since they say nothing: below 1 ms.
const PASSED_MAX: usize = 256;
/// Leaves of others read for one commit: some 0.5 s.
const LEAVES_MAX: usize = 8_192;
/// Pairs of one commit that are remembered: some 20 MB.
const PAIRS_MAX: usize = 1 << 19;

/// The pairs of one commit, which look-ups do not see yet, and what may still be read.
pub(crate) struct Pairs {
    /// A value's first bytes, with those of its SHA-256 and the entry's first index.
    coming: HashMap<[u8; 9], ([u8; 8], u64)>,
    leaves_left: usize,
}

impl Default for Pairs {
    fn default() -> Self {
        Self {
            coming: HashMap::new(),
            leaves_left: LEAVES_MAX,
        }
    }
}

/// What an entry says: its digests, by kind.
struct Said<'d> {
    no: FeedNo,
    first: u64,
    weak: Vec<&'d IndexKey>,
    strong: Vec<&'d IndexKey>,
}

impl Pairs {
    /// Adds to what the gate holds of a leaf the kinds of which a counted entry says
    /// another SHA-256.
    pub(crate) fn check(&mut self, inner: &Inner, no: FeedNo, derived: &mut Derived) -> Result<()> {
        let Some(said) = said(no, derived) else {
            return Ok(());
        };
        let mut held = Vec::new();
        for key in &said.weak {
            let known = known(inner, &said, key, &mut self.leaves_left)?;
            let conflict = match known {
                Known::Conflict => true,
                Known::Pair => false,
                Known::Nothing => self.conflicts_here(&said, key),
            };
            if conflict {
                held.extend(lot_of(key));
            }
        }
        held.dedup();
        derived.held.extend(held);
        Ok(())
    }

    /// Whether an earlier entry of the commit says another SHA-256. Entries with
    /// several of them say nothing here.
    fn conflicts_here(&mut self, said: &Said<'_>, key: &IndexKey) -> bool {
        let [strong] = said.strong.as_slice() else {
            return false;
        };
        let (Some(front), Some((_, value))) = (key.first_chunk::<9>(), strong.split_first()) else {
            return false;
        };
        let Some(mark) = value.first_chunk::<8>() else {
            return false;
        };
        if let Some((before, first)) = self.coming.get(front) {
            return before != mark && *first != said.first;
        }
        if self.coming.len() < PAIRS_MAX {
            self.coming.insert(*front, (*mark, said.first));
        }
        false
    }
}

/// What counted entries say of a value beside an entry's SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing of this value and any SHA-256.
    Nothing,
    /// The same, or the entry itself said the value before.
    Pair,
    /// Another one, and none the same.
    Conflict,
}

fn known(inner: &Inner, said: &Said<'_>, key: &IndexKey, leaves_left: &mut usize) -> Result<Known> {
    let mut found = Postings::default();
    let mut seeker = Seeker::new(inner)?;
    seeker.seek(key, (PER_FEED, PASSED_MAX), &mut found)?;
    let same = |feed, first| feed == said.no && first == said.first;
    if found.postings.iter().any(|p| same(p.feed, p.first)) {
        return Ok(Known::Pair);
    }
    found.postings.truncate(ENTRIES_MAX);
    let family = inner.cf(Family::Signals)?;
    for posting in &found.postings {
        for strong in &said.strong {
            let key = keys::signal(strong, posting.feed, posting.index);
            let row = inner.db.get_pinned_cf(family, key);
            let row = row.map_err(crate::StoreError::engine("comparing digests"))?;
            if row.is_some() {
                return Ok(Known::Pair);
            }
        }
    }
    for posting in &found.postings {
        let Some(left) = leaves_left.checked_sub(1) else {
            return Ok(Known::Nothing);
        };
        *leaves_left = left;
        if has_sha256(inner, posting.feed, posting.index)? {
            return Ok(Known::Conflict);
        }
    }
    Ok(Known::Nothing)
}

/// Whether the entry in a leaf has a SHA-256 at all.
fn has_sha256(inner: &Inner, no: FeedNo, index: u64) -> Result<bool> {
    let has = |signals: &[Signal]| signals.iter().any(|s| s.kind() == SignalKind::Sha256);
    Ok(read_publish(inner, no, index)?.is_some_and(|signals| has(&signals)))
}

/// The signals of a publish leaf; `None` for any other, and where the feed went.
fn read_publish(inner: &Inner, no: FeedNo, index: u64) -> Result<Option<Vec<Signal>>> {
    let Some(state) = inner.feeds().by_no.get(&no).cloned() else {
        return Ok(None);
    };
    let stored = read(&state.live).row.stored;
    let leaves = match inner.leaves(no, stored, index, index.saturating_add(1)) {
        // It is being removed: its leaves go before its table does, or after.
        Err(_) if !inner.feeds().by_no.contains_key(&no) => return Ok(None),
        other => other?,
    };
    Ok(match leaves.first().map(|raw| leaf::read(raw, index)) {
        Some(Leaf::Publish(publish)) => Some(publish.signals),
        Some(
            Leaf::Describe(_)
            | Leaf::Retract(_)
            | Leaf::Opinion(_)
            | Leaf::Erase(_)
            | Leaf::Unknown(_)
            | Leaf::Void(_)
            | Leaf::Elided,
        )
        | None => None,
    })
}

/// `None` for an entry that pairs nothing, which is told without reading anything.
fn said(no: FeedNo, derived: &Derived) -> Option<Said<'_>> {
    let back = derived.postings.first().map_or(0, |(_, r)| r.first_back);
    let mut said = Said {
        no,
        first: derived.index.saturating_sub(back),
        weak: Vec::new(),
        strong: Vec::new(),
    };
    for (key, _) in &derived.postings {
        match SignalKind::from_number(key.first().copied().unwrap_or(0).into()) {
            Some(SignalKind::Md5 | SignalKind::Sha1) => said.weak.push(key),
            Some(SignalKind::Sha256) => said.strong.push(key),
            Some(_) | None => {}
        }
    }
    (!said.weak.is_empty() && !said.strong.is_empty()).then_some(said)
}

fn lot_of(key: &IndexKey) -> Option<LotName> {
    let reason = Reason::DigestConflict;
    key.first().map(|kind| LotName {
        reason,
        kind: *kind,
    })
}

/// Where the next look at what waits begins.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Recheck {
    feed: u32,
    index: u64,
}

impl Store {
    /// Lets in what waits for a conflict of digests that is over, since the other entry
    /// went or the pair is known by now. Looks at up to `limit` leaves, in turn; answers
    /// the feeds in which some were let in, and how many.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn recheck_conflicts(&self, limit: usize) -> Result<Vec<(FeedNo, u64)>> {
        let inner = &*self.inner;
        let waiting = self.feeds_waiting(Reason::DigestConflict);
        if waiting.is_empty() {
            return Ok(Vec::new());
        }
        let mut turn = hold(&inner.conflicts);
        let start = *turn;
        let mut left = limit;
        let mut lifted = Vec::new();
        let (later, earlier): (Vec<FeedNo>, Vec<FeedNo>) =
            waiting.into_iter().partition(|no| no.0 >= start.feed);
        *turn = Recheck::default();
        for no in later.into_iter().chain(earlier) {
            let from = if no.0 == start.feed { start.index } else { 0 };
            let leaves = inner.waiting_of(no, Reason::DigestConflict, from, left)?;
            left = left.saturating_sub(leaves.len());
            let mut over: BTreeMap<LotName, RoaringTreemap> = BTreeMap::new();
            for (index, lots) in leaves {
                *turn = Recheck {
                    feed: no.0,
                    index: index.saturating_add(1),
                };
                for lot in lots {
                    if !inner.still_conflicts(no, index, lot.kind)? {
                        over.entry(lot).or_default().insert(index);
                    }
                }
            }
            let count = inner.let_in(no, over)?;
            if count > 0 {
                lifted.push((no, count));
            }
            if left == 0 {
                return Ok(lifted);
            }
        }
        *turn = Recheck::default();
        Ok(lifted)
    }
}

impl Inner {
    /// Leaves that wait for a reason, with their lots of it.
    fn waiting_of(
        &self,
        no: FeedNo,
        reason: Reason,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<LotName>)>> {
        let state = self.feed(no)?;
        let live = read(&state.live);
        let mut found: BTreeMap<u64, Vec<LotName>> = BTreeMap::new();
        for (name, lot) in &live.quarantine.lots {
            if name.reason == reason {
                let mut held = lot.held.iter();
                held.advance_to(from);
                for index in held.filter(|i| !live.liveness.is_dead(*i)).take(limit) {
                    found.entry(index).or_default().push(*name);
                }
            }
        }
        Ok(found.into_iter().take(limit).collect())
    }

    /// Whether counted entries still say another SHA-256 of the values of a kind in a
    /// leaf.
    fn still_conflicts(&self, no: FeedNo, index: u64, kind: u8) -> Result<bool> {
        let Some(signals) = read_publish(self, no, index)? else {
            return Ok(false);
        };
        let of = |wanted: u8| {
            let of = signals.iter().map(Signal::index_key);
            of.filter(move |key| key.first() == Some(&wanted))
        };
        let strong: Vec<IndexKey> = of(SignalKind::Sha256.number_byte()).collect();
        for key in of(kind) {
            let row = self.get(Family::Signals, keys::signal(&key, no, index))?;
            let Some(row) = row else { continue };
            let back = PostingRecord::read(&row)?.first_back;
            let said = Said {
                no,
                first: index.saturating_sub(back),
                weak: Vec::new(),
                strong: strong.iter().collect(),
            };
            let mut leaves = ENTRIES_MAX;
            if known(self, &said, &key, &mut leaves)? == Known::Conflict {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes leaves out of their lots, as if they had never been held.
    fn let_in(&self, no: FeedNo, over: BTreeMap<LotName, RoaringTreemap>) -> Result<u64> {
        if over.is_empty() {
            return Ok(0);
        }
        self.feed(no)?.change_quarantine(self, |quarantine| {
            let mut changed = BTreeMap::new();
            for (name, indexes) in over {
                let lot: Option<&mut Lot> = quarantine.lots.get_mut(&name);
                if let Some(lot) = lot {
                    let indexes = indexes & &lot.held;
                    lot.held -= &indexes;
                    changed.insert(name, indexes);
                }
            }
            changed
        })
    }
}
