//! One MD5 or SHA-1 beside two SHA-256: one of the entries is wrong, or somebody made
//! two files of one value.
//!
//! Asked when a leaf is indexed. The newcomer waits, with its MD5 or SHA-1 alone
//! ([`Reason::DigestConflict`]); its other signals count. ⚠ So publishing first disarms
//! nothing: the value still matches by the entry that was here, the newcomer's SHA-256
//! and perceptual values match by themselves, and when the other entry goes the newcomer
//! is let in ([`crate::Store::recheck_conflicts`]). What counts already is never held: a pair
//! that any counted entry says is known, and an entry that said the value before keeps
//! it in its next version. An entry of a feed that is not active, or of which the node
//! says that it counts for nothing here, disputes nobody ([`Store::set_counting`]).
//!
//! Bounded: an entry without MD5 and SHA-1, or without SHA-256, costs nothing; one with
//! both one seek a value, mostly answered by the filter. What else is read is bounded by
//! the commit, and what is beyond counts, as before.

use std::collections::{BTreeMap, HashMap, VecDeque};

use hashpact_core::leaf::{self, Leaf, RawLeaf};
use hashpact_core::signal::{Signal, SignalKind};

use crate::error::Result;
use crate::families::Family;
use crate::feeds::FeedStatus;
use crate::index::derive::Derived;
use crate::keys::{self, FeedNo, IndexKey};
use crate::leaves::{page_end, page_start};
use crate::lookup::{Postings, Seeker};
use crate::quarantine::{LotName, Reason};
use crate::store::{Inner, Store, read};

/// Entries of one feed that are compared for one value.
const PER_FEED: usize = 8;
/// Entries of all feeds.
pub(crate) const ENTRIES_MAX: usize = 32;
/// Postings of one feed passed by for one value since they say nothing: below 1 ms.
const PASSED_MAX: usize = 256;
/// Leaves of others read for one commit, or one answer: some 0.5 s.
pub(crate) const LEAVES_MAX: usize = 8_192;
/// Pairs of one commit that are remembered: some 20 MB.
const PAIRS_MAX: usize = 1 << 19;
/// Decoded pages that are remembered: 8 MB at most.
const PAGES_KEPT: usize = 4;

/// Whether what a feed says counts here.
pub(crate) type Counting = Box<dyn Fn(FeedNo) -> bool + Send + Sync>;

/// The pairs of one commit, which look-ups do not see yet, and what may still be read.
pub(crate) struct Pairs {
    /// A value's first bytes, with those of its SHA-256 and the entry's first index.
    coming: HashMap<[u8; 9], ([u8; 8], u64)>,
    pages: Pages,
}

impl Default for Pairs {
    fn default() -> Self {
        Self {
            coming: HashMap::new(),
            pages: Pages::new(LEAVES_MAX),
        }
    }
}

/// Leaves of others: how many may still be read, and the pages that were read last.
pub(crate) struct Pages {
    left: usize,
    recent: VecDeque<((FeedNo, u64), Vec<RawLeaf>)>,
    counting: BTreeMap<FeedNo, bool>,
}

impl Pages {
    pub(crate) const fn new(left: usize) -> Self {
        Self {
            left,
            recent: VecDeque::new(),
            counting: BTreeMap::new(),
        }
    }

    pub(crate) const fn left(&self) -> usize {
        self.left
    }

    /// Whether what the feed says disputes anything; the answer is remembered.
    fn counts(&mut self, inner: &Inner, no: FeedNo) -> bool {
        let ask = || {
            let state = inner.feeds().by_no.get(&no).cloned();
            let active = state.is_some_and(|s| read(&s.live).status == FeedStatus::Active);
            active && inner.counting.get().is_none_or(|counts| counts(no))
        };
        *self.counting.entry(no).or_insert_with(ask)
    }

    /// The signals of a publish leaf; `None` for any other, and where the feed went.
    pub(crate) fn publish(
        &mut self,
        inner: &Inner,
        no: FeedNo,
        index: u64,
    ) -> Result<Option<Vec<Signal>>> {
        let Some(state) = inner.feeds().by_no.get(&no).cloned() else {
            return Ok(None);
        };
        let stored = read(&state.live).row.stored;
        let start = page_start(index);
        let key = (no, start);
        if let Some((_, leaves)) = self.recent.iter().find(|(kept, _)| *kept == key) {
            let leaf = usize::try_from(index.saturating_sub(start)).ok();
            return Ok(leaf.and_then(|at| signals(leaves.get(at), index)));
        }
        self.left = self.left.saturating_sub(1);
        // The tail has rows of its own: no page is read for one of its leaves.
        let whole = page_end(index) <= stored;
        let (from, to) = if whole {
            (start, page_end(index))
        } else {
            (index, index.saturating_add(1))
        };
        let leaves = match inner.leaves(no, stored, from, to) {
            // It is being removed: its leaves go before its table does, or after.
            Err(_) if !inner.feeds().by_no.contains_key(&no) => return Ok(None),
            other => other?,
        };
        let at = usize::try_from(index.saturating_sub(from)).unwrap_or(usize::MAX);
        let found = signals(leaves.get(at), index);
        if whole {
            self.recent.push_back((key, leaves));
            if self.recent.len() > PAGES_KEPT {
                self.recent.pop_front();
            }
        }
        Ok(found)
    }
}

/// What an entry says: its digests, by kind.
pub(crate) struct Said<'d> {
    pub(crate) no: FeedNo,
    pub(crate) first: u64,
    pub(crate) weak: Vec<&'d IndexKey>,
    pub(crate) strong: Vec<&'d IndexKey>,
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
            let known = known(inner, &said, key, &mut self.pages)?;
            let conflict = match known {
                Known::Conflict(..) => true,
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
pub(crate) enum Known {
    /// Nothing of this value and any SHA-256.
    Nothing,
    /// The same, or the entry itself said the value before.
    Pair,
    /// Another one, and none the same: an entry that says so, by its first index.
    Conflict(FeedNo, u64),
}

/// Reads at most [`ENTRIES_MAX`] leaves of others.
pub(crate) fn known(
    inner: &Inner,
    said: &Said<'_>,
    key: &IndexKey,
    pages: &mut Pages,
) -> Result<Known> {
    let mut found = Postings::default();
    let mut seeker = Seeker::new(inner)?;
    seeker.seek(key, (PER_FEED, PASSED_MAX), &mut found)?;
    let same = |feed, first| feed == said.no && first == said.first;
    if found.postings.iter().any(|p| same(p.feed, p.first)) {
        return Ok(Known::Pair);
    }
    // ⚠ First, so that what does not count takes no places from what does.
    found.postings.retain(|p| pages.counts(inner, p.feed));
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
        if pages.left() == 0 {
            return Ok(Known::Nothing);
        }
        let signals = pages.publish(inner, posting.feed, posting.index)?;
        let has = |signals: Vec<Signal>| signals.iter().any(|s| s.kind() == SignalKind::Sha256);
        if signals.is_some_and(has) {
            return Ok(Known::Conflict(posting.feed, posting.first));
        }
    }
    Ok(Known::Nothing)
}

fn signals(raw: Option<&RawLeaf>, index: u64) -> Option<Vec<Signal>> {
    match leaf::read(raw?, index) {
        Leaf::Publish(publish) => Some(publish.signals),
        Leaf::Describe(_)
        | Leaf::Retract(_)
        | Leaf::Opinion(_)
        | Leaf::Erase(_)
        | Leaf::Unknown(_)
        | Leaf::Void(_)
        | Leaf::Elided => None,
    }
}

impl Store {
    /// Says once whose entries count here, beside those of feeds that are not active,
    /// whose never do: others dispute no digest. Asked on threads that write.
    pub fn set_counting(&self, counts: impl Fn(FeedNo) -> bool + Send + Sync + 'static) {
        let _ = self.inner.counting.set(Box::new(counts));
    }
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
