//! Looks again at what waits for a conflict of digests ([`crate::pairs`]), a little at a
//! time.
//!
//! ⚠ Members decide how much waits and what a look costs: a round has a budget, and it
//! goes round by publishers, then by their feeds, a few values at a time. However much of
//! one publisher waits, the others have their turns; and what is not reached in a round
//! is where the next one begins.

use std::collections::{BTreeMap, VecDeque};
use std::sync::TryLockError;
use std::time::{Duration, Instant};

use hashpact_core::id::MemberNumber;
use hashpact_core::signal::{Signal, SignalKind};
use roaring::RoaringTreemap;

use crate::error::Result;
use crate::families::Family;
use crate::keys::{self, FeedNo, IndexKey};
use crate::pairs::{ENTRIES_MAX, Known, LEAVES_MAX, Pages, Said, known};
use crate::quarantine::{Lot, LotName, Reason, WHOLE_LEAF};
use crate::record::PostingRecord;
use crate::store::{Inner, Store, read};

/// Pages that one look may read: that of the leaf, and those of others.
const LOOK_PAGES: usize = ENTRIES_MAX + 1;
/// Pages after which a feed's turn is over.
const TURN_PAGES: usize = 8;
/// Leaves of one feed in a turn.
const TURN_LEAVES: usize = 16;
/// Leaves passed by in a turn since they are dead.
const PASSED_MAX: usize = 4_096;

/// What one round of looks may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecheckBudget {
    /// Pages read; not below 33, which one look may take.
    pub pages: usize,
    /// Values looked at.
    pub looks: usize,
    /// No look begins later; the last one may take as long as 33 pages do.
    pub time: Duration,
}

/// What came of a round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rechecked {
    /// Feeds in which leaves were let in, and how many.
    pub lifted: Vec<(FeedNo, u64)>,
    /// Pages that were read.
    pub pages: usize,
}

/// Where the next round begins.
#[derive(Debug, Default)]
pub(crate) struct Recheck {
    publisher: Option<MemberNumber>,
    feeds: BTreeMap<FeedNo, Place>,
    /// Counts turns.
    turn: u64,
}

/// Where the next turn of a feed begins.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    index: u64,
    /// Of that leaf, the lot and its value to be looked at next; those before it are
    /// disputed by nobody.
    kind: u8,
    value: usize,
    /// When the feed had its last turn.
    turn: u64,
}

/// A publisher, and its feeds, the next one first.
type Turns = (MemberNumber, VecDeque<FeedNo>);

/// A round under way.
struct Round {
    pages: Pages,
    looks: usize,
    end: Option<Instant>,
    over: BTreeMap<FeedNo, BTreeMap<LotName, RoaringTreemap>>,
}

/// Waiting leaves with their kinds, and where the next ones begin.
type WaitingOf = (BTreeMap<u64, Vec<u8>>, Option<u64>);

impl Round {
    fn may_look(&self) -> bool {
        let late = self.end.is_some_and(|end| Instant::now() > end);
        self.looks > 0 && self.pages.left() >= LOOK_PAGES && !late
    }
}

impl Store {
    /// Lets in what waits for a conflict of digests that is over, since the other entry
    /// went, counts no more, or the pair is known by now. One round at a time: while
    /// another one runs nothing is done.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn recheck_conflicts(&self, budget: &RecheckBudget) -> Result<Rechecked> {
        let inner = &*self.inner;
        let mut recheck = match inner.conflicts.try_lock() {
            Ok(recheck) => recheck,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(Rechecked::default()),
        };
        let pages = budget.pages.max(LOOK_PAGES);
        let mut round = Round {
            pages: Pages::new(pages),
            looks: budget.looks,
            end: Instant::now().checked_add(budget.time),
            over: BTreeMap::new(),
        };
        let waiting = self.feeds_waiting(Reason::DigestConflict);
        let mut failed = None;
        let mut queue = recheck.queue(inner, &waiting);
        while let Some((publisher, mut feeds)) = queue.pop_front() {
            let Some(no) = feeds.pop_front() else {
                continue;
            };
            if !round.may_look() {
                break;
            }
            recheck.publisher = Some(publisher);
            let turn = recheck.turn.saturating_add(1);
            recheck.turn = turn;
            let place = recheck.feeds.entry(no).or_default();
            place.turn = turn;
            match inner.take_turn(no, place, &mut round) {
                Ok(true) => feeds.push_back(no),
                Ok(false) => {}
                // ⚠ What cannot be read of one feed keeps no other waiting.
                Err(error) => failed = Some(error),
            }
            if !feeds.is_empty() {
                queue.push_back((publisher, feeds));
            }
        }
        let mut done = Rechecked {
            lifted: Vec::new(),
            pages: pages.saturating_sub(round.pages.left()),
        };
        for (no, over) in round.over {
            let count = inner.let_in(no, over)?;
            if count > 0 {
                done.lifted.push((no, count));
            }
        }
        failed.map_or(Ok(done), Err)
    }

    /// Of leaves that wait for a conflict of digests, each a counted entry that says
    /// another SHA-256: its feed and first index. `None` where there is none any more, and
    /// where finding it would take more than one answer may.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn disputed_by(&self, leaves: &[(FeedNo, u64)]) -> Result<Vec<Option<(FeedNo, u64)>>> {
        let inner = &*self.inner;
        let mut pages = Pages::new(LEAVES_MAX);
        let each = leaves.iter();
        each.map(|(no, index)| inner.disputed(*no, *index, &mut pages))
            .collect()
    }
}

impl Recheck {
    /// Publishers in turn, each with its feeds in turn.
    fn queue(&mut self, inner: &Inner, waiting: &[FeedNo]) -> VecDeque<Turns> {
        let table = inner.feeds();
        let mut by_publisher: BTreeMap<MemberNumber, Vec<FeedNo>> = BTreeMap::new();
        for no in waiting {
            if let Some(state) = table.by_no.get(no) {
                by_publisher.entry(state.publisher).or_default().push(*no);
            }
        }
        // In order, as the table of feeds is.
        self.feeds.retain(|no, _| waiting.binary_search(no).is_ok());
        let last = |no: &FeedNo| self.feeds.get(no).map_or(0, |place| place.turn);
        let in_turn = by_publisher.into_iter().map(|(publisher, mut feeds)| {
            feeds.sort_by_key(last);
            (publisher, VecDeque::from(feeds))
        });
        let (later, earlier): (Vec<Turns>, Vec<Turns>) =
            in_turn.partition(|(publisher, _)| Some(*publisher) > self.publisher);
        later.into_iter().chain(earlier).collect()
    }
}

impl Inner {
    /// Looks at a few leaves of a feed; answers whether more of it waits.
    fn take_turn(&self, no: FeedNo, place: &mut Place, round: &mut Round) -> Result<bool> {
        let before = round.pages.left();
        let (leaves, next) = self.waiting_of(no, place.index)?;
        for (index, kinds) in leaves {
            if index != place.index {
                place.at(index);
            }
            for kind in kinds {
                if kind < place.kind {
                    continue;
                }
                if kind > place.kind {
                    (place.kind, place.value) = (kind, 0);
                }
                loop {
                    let read = before.saturating_sub(round.pages.left());
                    if read >= TURN_PAGES || !round.may_look() {
                        return Ok(true);
                    }
                    round.looks = round.looks.saturating_sub(1);
                    match self.look(no, place, &mut round.pages)? {
                        Look::Undisputed => place.value = place.value.saturating_add(1),
                        Look::Conflict(..) => break,
                        Look::Over => {
                            let reason = Reason::DigestConflict;
                            let over = round.over.entry(no).or_default();
                            let lot = over.entry(LotName { reason, kind }).or_default();
                            lot.insert(index);
                            break;
                        }
                    }
                }
                (place.kind, place.value) = (kind.saturating_add(1), 0);
            }
            place.at(index.saturating_add(1));
        }
        place.at(next.unwrap_or(0));
        Ok(next.is_some())
    }

    /// Live leaves from `from` on that wait, with the kinds of their lots, and where to
    /// go on.
    fn waiting_of(&self, no: FeedNo, from: u64) -> Result<WaitingOf> {
        let state = self.feed(no)?;
        let live = read(&state.live);
        let mut found: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut next: Option<u64> = None;
        for (name, lot) in &live.quarantine.lots {
            if name.reason != Reason::DigestConflict {
                continue;
            }
            let mut held = lot.held.iter();
            held.advance_to(from);
            let (mut taken, mut passed) = (0, 0);
            for index in held {
                if taken == TURN_LEAVES || passed == PASSED_MAX {
                    next = Some(next.map_or(index, |next| next.min(index)));
                    break;
                }
                if live.liveness.is_dead(index) {
                    passed += 1;
                } else {
                    taken += 1;
                    found.entry(index).or_default().push(name.kind);
                }
            }
        }
        if let Some(next) = next {
            // Beyond, a lot was not looked at.
            found.retain(|index, _| *index < next);
        }
        Ok((found, next))
    }

    fn disputed(&self, no: FeedNo, index: u64, pages: &mut Pages) -> Result<Option<(FeedNo, u64)>> {
        let kinds: Vec<u8> = {
            let state = self.feed(no)?;
            let live = read(&state.live);
            let lots = live.quarantine.lots.iter();
            lots.filter(|(name, lot)| name.reason == Reason::DigestConflict && lot.withholds(index))
                .map(|(name, _)| name.kind)
                .collect()
        };
        for kind in kinds {
            let mut place = Place {
                index,
                kind,
                ..Place::default()
            };
            while pages.left() > 0 {
                match self.look(no, &place, pages)? {
                    Look::Undisputed => place.value = place.value.saturating_add(1),
                    Look::Conflict(no, first) => return Ok(Some((no, first))),
                    Look::Over => break,
                }
            }
        }
        Ok(None)
    }

    /// Looks at one value: whether counted entries still say another SHA-256 of it.
    fn look(&self, no: FeedNo, place: &Place, pages: &mut Pages) -> Result<Look> {
        let index = place.index;
        let Some(signals) = pages.publish(self, no, index)? else {
            return Ok(Look::Over);
        };
        let keys: Vec<IndexKey> = signals.iter().map(Signal::index_key).collect();
        let of = |key: &IndexKey, kind: SignalKind| key.first() == Some(&kind.number_byte());
        let is_strong = |key: &&IndexKey| of(key, SignalKind::Sha256);
        let is_weak = |key: &&IndexKey| match place.kind {
            WHOLE_LEAF => of(key, SignalKind::Md5) || of(key, SignalKind::Sha1),
            kind => key.first() == Some(&kind),
        };
        let strong: Vec<&IndexKey> = keys.iter().filter(is_strong).collect();
        let Some(key) = keys.iter().filter(is_weak).nth(place.value) else {
            return Ok(Look::Over);
        };
        let row = self.get(Family::Signals, keys::signal(key, no, index))?;
        let Some(row) = row else {
            return Ok(Look::Undisputed);
        };
        let back = PostingRecord::read(&row)?.first_back;
        let said = Said {
            no,
            first: index.saturating_sub(back),
            weak: Vec::new(),
            strong,
        };
        Ok(match known(self, &said, key, pages)? {
            Known::Conflict(no, first) => Look::Conflict(no, first),
            Known::Pair | Known::Nothing => Look::Undisputed,
        })
    }

    /// Takes leaves out of their lots, as if they had never been held.
    fn let_in(&self, no: FeedNo, over: BTreeMap<LotName, RoaringTreemap>) -> Result<u64> {
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

impl Place {
    const fn at(&mut self, index: u64) {
        (self.index, self.kind, self.value) = (index, 0, 0);
    }
}

/// What a look found.
enum Look {
    /// Nobody disputes this value; the next one is to be looked at.
    Undisputed,
    /// This entry does, by its first index: the signal waits.
    Conflict(FeedNo, u64),
    /// No value is left, and none was disputed.
    Over,
}
