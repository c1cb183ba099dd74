//! What new versions take out: PROTOCOL 12.7.
//!
//! A leaf that replaces leaves of other entries than its own takes those out. A version
//! that no longer says what its entry said (a signal, what it is about) takes the entry
//! out for whoever asks for that. Both count as a retraction without a signature does,
//! unless a signed retraction names the versions that go.
//!
//! Only payloads that are held can be compared, so this is each node's own count, made
//! when the leaf arrives. What was counted is kept in memory for the day that it
//! matters; a restart counts it again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use hashpact_core::id::UnixMillis;
use hashpact_core::leaf::{self, IndexRange, Leaf, RawLeaf};
use hashpact_core::limits::PAGE_LEAVES;
use hashpact_core::standing::Retraction;
use hashpact_store::{FeedInfo, FeedNo, Store, Taking};

use crate::error::NodeError;
use crate::node::Node;

/// Rows looked at in one go.
const ROWS: usize = 16_384;
/// Pages at hand: versions of neighbours lie beside each other.
const PAGES: usize = 16;
/// Leaves remembered of a feed, some 60 bytes each. Beyond it the older half goes: what
/// it holds is held already, and the rest is far above every bound.
const REMEMBERED: usize = 1_000_000;

/// What one leaf takes out by what it replaces.
#[derive(Debug, Clone)]
pub(super) struct Takes {
    index: u64,
    /// Leaves of other entries than its own.
    foreign: u64,
    /// Versions of its own that said what it does not say any more.
    dropped: Vec<u64>,
}

impl Takes {
    fn is_nothing(&self) -> bool {
        self.foreign == 0 && self.dropped.is_empty()
    }

    /// As the rule on mass retractions sees it.
    pub(super) fn retraction(&self, now: UnixMillis) -> Retraction {
        let own = u64::from(!self.dropped.is_empty());
        Retraction {
            index: self.index,
            // When it came: within the day, by how far back was looked.
            created_ms: now.0,
            entries: self.foreign.saturating_add(own),
            set_entries: 0,
            signed: false,
        }
    }
}

/// What was counted of each feed, within the day.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    feeds: Mutex<HashMap<FeedNo, OfFeed>>,
    /// Retract leaves that were read for their signatures since the start.
    pub(crate) checked: AtomicU64,
}

/// All of a feed's leaves `[from, to)` that take something out.
#[derive(Debug, Default)]
struct OfFeed {
    from: u64,
    to: u64,
    takes: Vec<Takes>,
    /// Entries of the first so many leaves that were alive then.
    living: Option<(u64, u64)>,
}

impl Counted {
    fn with<T>(&self, no: FeedNo, act: impl FnOnce(&mut OfFeed) -> T) -> T {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        act(feeds.entry(no).or_default())
    }

    /// Leaves came beside those that were counted: they are counted again.
    pub(super) fn forget(&self, no: FeedNo) {
        self.with(no, |of| *of = OfFeed::default());
    }

    /// Remembers what the leaves `[from, to)` take out, where all before them is known.
    pub(super) fn remember(&self, no: FeedNo, (from, to): (u64, u64), new: &[Takes]) {
        self.with(no, |of| {
            if (of.from..=of.to).contains(&from) && of.to > 0 {
                of.takes.retain(|takes| takes.index < from);
                of.takes.extend_from_slice(new);
                of.to = to;
                if of.takes.len() > REMEMBERED {
                    of.takes.drain(..of.takes.len() / 2);
                }
            }
        });
    }

    /// Entries of the first `size` leaves that are alive by these, reckoned once while
    /// that size matters.
    pub(super) fn living(
        &self,
        no: FeedNo,
        size: u64,
        reckon: impl FnOnce() -> Result<u64, NodeError>,
    ) -> Result<u64, NodeError> {
        let known = self.with(no, |of| of.living.filter(|(at, _)| *at == size));
        if let Some((_, living)) = known {
            return Ok(living);
        }
        let living = reckon()?;
        self.with(no, |of| of.living = Some((size, living)));
        Ok(living)
    }

    /// A signed retraction speaks for these versions, from now on.
    pub(super) fn speak(&self, no: FeedNo, spoken: &[IndexRange]) {
        self.with(no, |of| spare(&mut of.takes, spoken));
    }
}

/// Leaves out what signed retractions name.
pub(super) fn spare(takes: &mut Vec<Takes>, spoken: &[IndexRange]) {
    if spoken.is_empty() {
        return;
    }
    let mut spoken: Vec<_> = spoken
        .iter()
        .map(|range| (range.first, range.first.saturating_add(range.count)))
        .collect();
    spoken.sort_unstable();
    // The end of the furthest of all that begin no later.
    let mut furthest = 0;
    for range in &mut spoken {
        furthest = range.1.max(furthest);
        range.1 = furthest;
    }
    let is_spoken = |index: &u64| {
        let after = spoken.partition_point(|(first, _)| first <= index);
        let range = after.checked_sub(1).and_then(|at| spoken.get(at));
        range.is_some_and(|(_, end)| index < end)
    };
    for one in takes.iter_mut() {
        one.dropped.retain(|version| !is_spoken(version));
    }
    takes.retain(|one| !one.is_nothing());
}

impl Node {
    /// What leaves `[from, to)` take out, and those that are about to be counted.
    ///
    /// ⚠ All of them: harmless ones after it must not hide one.
    pub(super) fn takes(
        &self,
        feed: &FeedInfo,
        (from, to): (u64, u64),
        taking: &Taking,
        held: &BTreeSet<u64>,
    ) -> Result<Vec<Takes>, NodeError> {
        // Those of a range that has an end were decided on when they came.
        let decided = if to == u64::MAX { from } else { to };
        let mut versions = Versions::new(self.store(), feed, taking, (decided, held));
        let mut found = Vec::new();
        let mut note = |index: u64, named: &[u64]| -> Result<(), NodeError> {
            let takes = versions.takes(index, named)?;
            found.extend((!takes.is_nothing()).then_some(takes));
            Ok(())
        };
        for (index, named) in &taking.replaces {
            note(*index, named)?;
        }
        let mut to = to;
        loop {
            let some = self.store().replacements(feed.no, from, to, ROWS)?;
            let more = some.len() == ROWS;
            to = some.last().map_or(from, |(index, _)| *index);
            for (index, named) in some {
                note(index, &named)?;
            }
            if !more {
                break;
            }
        }
        found.sort_unstable_by_key(|takes| takes.index);
        Ok(found)
    }

    /// The same of the leaves `[from, to)`, which were counted when they came.
    pub(super) fn earlier_takes(
        &self,
        feed: &FeedInfo,
        (from, to): (u64, u64),
        held: &BTreeSet<u64>,
    ) -> Result<Vec<Takes>, NodeError> {
        let counted = &self.counted;
        let known = counted.with(feed.no, |of| {
            // An epoch may have cut leaves off.
            if of.from > from || of.to > feed.indexed || of.to < from {
                *of = OfFeed {
                    from,
                    to: from,
                    ..OfFeed::default()
                };
            }
            of.from = from;
            of.takes.retain(|takes| takes.index >= from);
            of.to
        });
        if known < to {
            let missing = self.takes(feed, (known, to), &Taking::default(), held)?;
            counted.with(feed.no, |of| {
                of.takes.retain(|takes| takes.index < known);
                of.takes.extend(missing);
                of.to = to;
            });
        }
        Ok(counted.with(feed.no, |of| {
            let before = of.takes.iter().filter(|takes| takes.index < to);
            before.cloned().collect()
        }))
    }
}

/// Reads versions of entries, those that are about to be counted among them.
struct Versions<'a> {
    store: &'a Store,
    feed: &'a FeedInfo,
    taking: &'a Taking,
    /// Leaves below it were decided on: what they replace is gone, where they are not held.
    decided: u64,
    held: &'a BTreeSet<u64>,
    pages: BTreeMap<u64, Vec<RawLeaf>>,
}

impl<'a> Versions<'a> {
    const fn new(
        store: &'a Store,
        feed: &'a FeedInfo,
        taking: &'a Taking,
        (decided, held): (u64, &'a BTreeSet<u64>),
    ) -> Self {
        Self {
            store,
            feed,
            taking,
            decided,
            held,
            pages: BTreeMap::new(),
        }
    }

    fn takes(&mut self, index: u64, named: &[u64]) -> Result<Takes, NodeError> {
        let mut takes = Takes {
            index,
            foreign: 0,
            dropped: Vec::new(),
        };
        let Some(first) = named.first() else {
            return Ok(takes);
        };
        let Some(new) = self.leaf(index)? else {
            return Ok(takes);
        };
        let mut own = Vec::new();
        for version in named {
            if version == first || self.is_of(*first, *version)? {
                own.push(*version);
            } else {
                takes.foreign = takes.foreign.saturating_add(1);
            }
        }
        for version in &own {
            if self.is_gone(*version, &own) {
                continue;
            }
            if let Some(old) = self.leaf(*version)?
                && drops((index, &new), (*version, &old))
            {
                takes.dropped.push(*version);
            }
        }
        Ok(takes)
    }

    /// Whether a leaf is of the entry that began at `first`, as far as its payload is
    /// here: what is elided may be of any.
    fn is_of(&mut self, first: u64, version: u64) -> Result<bool, NodeError> {
        Ok(match self.replaces(version) {
            Some(replaced) => replaced.first() == Some(&first),
            None => self.leaf(version)?.is_none(),
        })
    }

    fn replaces(&self, index: u64) -> Option<Vec<u64>> {
        let coming = self.taking.replaces.get(&index).cloned();
        coming.or_else(|| self.store.replaces(self.feed.no, index))
    }

    /// Whether a version was not live before: replaced, by one that was counted then.
    ///
    /// ⚠ Not by one that is held, nor by one that comes at the same time: of two leaves
    /// the first would drop a signal and be held, and the second, which drops nothing of
    /// the first, would take it out.
    fn is_gone(&self, version: u64, all: &[u64]) -> bool {
        // Nor was what comes at the same time live before.
        if version >= self.decided {
            return true;
        }
        let later = all.iter().filter(|one| **one > version);
        let mut counted = later.filter(|one| **one < self.decided && !self.held.contains(one));
        counted.any(|one| {
            let replaced = self.replaces(*one);
            replaced.is_some_and(|replaced| replaced.contains(&version))
        })
    }

    /// A leaf with its payload; `None` where that is not here.
    fn leaf(&mut self, index: u64) -> Result<Option<RawLeaf>, NodeError> {
        if let Some(raw) = self.taking.versions.get(&index) {
            return Ok(Some(raw.clone()));
        }
        if index >= self.feed.stored || self.taking.elided.contains(&index) {
            return Ok(None);
        }
        let page = index / PAGE_LEAVES;
        let first = page.saturating_mul(PAGE_LEAVES);
        if !self.pages.contains_key(&page) {
            if self.pages.len() >= PAGES {
                self.pages.clear();
            }
            let end = first.saturating_add(PAGE_LEAVES).min(self.feed.stored);
            let leaves = self.store.read_leaves(self.feed.no, first, end)?;
            self.pages.insert(page, leaves);
        }
        let at = usize::try_from(index.saturating_sub(first)).ok();
        let leaf = self.pages.get(&page).zip(at).and_then(|(p, at)| p.get(at));
        Ok(leaf.filter(|leaf| !leaf.is_elided()).cloned())
    }
}

/// Whether a new version says less than an earlier one did.
fn drops(new: (u64, &RawLeaf), old: (u64, &RawLeaf)) -> bool {
    match (leaf::read(old.1, old.0), leaf::read(new.1, new.0)) {
        (Leaf::Publish(old), Leaf::Publish(new)) => new.takes_from(&old),
        (Leaf::Opinion(old), Leaf::Opinion(new)) => new.subject != old.subject,
        (Leaf::Publish(_), Leaf::Opinion(_)) | (Leaf::Opinion(_), Leaf::Publish(_)) => true,
        // What is void says nothing, and takes nothing out.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(index: u64, dropped: &[u64]) -> Takes {
        Takes {
            index,
            foreign: 0,
            dropped: dropped.to_vec(),
        }
    }

    #[test]
    fn what_a_signed_retraction_names_is_spoken_for_and_nothing_else() {
        let mut all = vec![takes(20, &[1]), takes(21, &[2, 9]), takes(22, &[7])];
        let range = |first, count| IndexRange { first, count };
        spare(&mut all, &[range(7, 1), range(1, 4), range(2, 1)]);
        let left: Vec<_> = all.iter().map(|t| (t.index, t.dropped.clone())).collect();
        assert_eq!(left, [(21, vec![9])]);
    }

    #[test]
    fn what_is_remembered_goes_on_where_it_ended() {
        let (counted, no) = (Counted::default(), FeedNo(3));
        // Nothing before it is known: it is counted when it is asked for.
        counted.remember(no, (5, 9), &[takes(6, &[1])]);
        assert_eq!(counted.with(no, |of| of.takes.len()), 0);
        counted.with(no, |of| (of.from, of.to) = (2, 5));
        counted.remember(no, (5, 9), &[takes(6, &[1])]);
        counted.remember(no, (9, 12), &[takes(10, &[2])]);
        assert_eq!(counted.with(no, |of| (of.takes.len(), of.to)), (2, 12));
        counted.speak(no, &[IndexRange { first: 1, count: 1 }]);
        assert_eq!(counted.with(no, |of| of.takes.len()), 1);
        counted.forget(no);
        assert_eq!(counted.with(no, |of| (of.takes.len(), of.to)), (0, 0));
    }
}
