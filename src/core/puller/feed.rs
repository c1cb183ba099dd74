//! What the puller knows of one feed: what is held, what is offered, and the round
//! that is under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::ahead::Ahead;
use super::growth::{Growth, GrowthLimit};
use super::peers::Offer;
use super::spans::Spans;
use super::types::{Action, ChunkFacts, ChunkId, Head, PeerId, Span};
use crate::id::{Digest, FeedId, MemberNumber, UnixMillis};

/// Verified heads remembered per feed, to find two roots at one size. Older ones
/// are compared with the tree that is held.
const SEEN_MAX: usize = 64;
/// Spans of elided leaves whose supplier is remembered within a round.
const SUPPLIERS_MAX: usize = 4_096;
/// Spans of pages that are pulled again because of elided leaves.
pub(super) const REFILL_SPANS_MAX: usize = 1_024;
/// What a leaf is taken to need before any was seen.
const LEAF_BYTES_GUESS: u64 = 256;

/// A verified chunk that the driver keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) chunk: ChunkId,
    pub(super) facts: ChunkFacts,
}

/// A pull of everything up to one head, to which all its proofs lead.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) head: Head,
    /// A chunk at the cursor proved that the head extends what is held.
    pub(super) opened: bool,
    /// What no job has, and what is not buffered.
    pub(super) gaps: Spans,
}

/// A second pull of pages that hold leaves elided without reason.
#[derive(Debug)]
pub(super) struct Refill {
    pub(super) head: Head,
    pub(super) gaps: Spans,
    /// All pages in question, as told with the head.
    pub(super) missing: Vec<Span>,
    pub(super) storing: BTreeSet<ChunkId>,
    pub(super) since: UnixMillis,
    /// The head was applied without them.
    pub(super) applied: bool,
}

impl Refill {
    pub(super) const fn new(
        head: Head,
        gaps: Spans,
        missing: Vec<Span>,
        since: UnixMillis,
        applied: bool,
    ) -> Self {
        Self {
            head,
            gaps,
            missing,
            storing: BTreeSet::new(),
            since,
            applied,
        }
    }
}

/// A stretch of chunks with elided leaves, as one peer sent them for one head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Supplied {
    pub(super) to: u64,
    pub(super) peer: PeerId,
    pub(super) head_size: u64,
}

/// A verified head that was told.
#[derive(Debug)]
pub(super) struct Seen {
    head: Head,
    /// It was compared with the tree, or led to it.
    compared: bool,
}

/// A head that cannot be true beside what is known.
#[derive(Debug)]
pub(super) struct Conflict {
    pub(super) held: Option<Head>,
}

/// How far [`Feed::drain`] came.
#[derive(Debug)]
pub(super) enum Drained {
    /// All that continues what is held.
    All,
    /// This chunk does not continue what is held: its head is not an extension.
    Odd(Held),
    /// The feed is at its growth cap.
    Capped,
}

#[derive(Debug)]
pub(super) struct Feed {
    pub(super) publisher: MemberNumber,
    /// Leaves stored, and their root.
    pub(super) cursor: u64,
    pub(super) root: Digest,
    /// Leaves stored or on their way to the store, and their root.
    pub(super) next: u64,
    pub(super) next_root: Digest,
    pub(super) applied: Option<Head>,
    /// The newest head that what is held was verified against.
    pub(super) basis: Option<Head>,
    pub(super) best: Option<Head>,
    /// Epoch and size of the newest verified head that anybody told of, whether its
    /// leaves may be pulled from there or not.
    pub(super) heard: Option<(u32, u64)>,
    pub(super) frozen: bool,
    pub(super) offers: BTreeMap<PeerId, Offer>,
    pub(super) seen: BTreeMap<(u32, u64), Seen>,
    pub(super) ahead: Ahead,
    pub(super) round: Option<Round>,
    pub(super) buffer: BTreeMap<u64, Held>,
    pub(super) storing: VecDeque<Held>,
    pub(super) checking: Option<Head>,
    /// Leaves are held as their record alone: what was dead may live again, so every
    /// head is checked.
    pub(super) elided: bool,
    pub(super) refill: Option<Refill>,
    /// Who sent leaves elided: where they begin, and for which head.
    pub(super) suppliers: BTreeMap<u64, Supplied>,
    /// Leaves that only held retractions make dead are asked for again from then on.
    pub(super) held_again: UnixMillis,
    pub(super) leaf_bytes: u64,
    pub(super) growth: Growth,
    /// What of the growth is set aside for chunks that refill, until it is known how
    /// much of them was wanted.
    pub(super) set_aside: BTreeMap<ChunkId, u64>,
    pub(super) rest_until: UnixMillis,
    /// The last job of this feed, so that feeds take turns.
    pub(super) served: u64,
    pub(super) wake: Option<UnixMillis>,
}

impl Feed {
    pub(super) fn new(publisher: MemberNumber) -> Self {
        let empty = crate::merkle::empty_root();
        Self {
            publisher,
            cursor: 0,
            root: empty,
            next: 0,
            next_root: empty,
            applied: None,
            basis: None,
            best: None,
            heard: None,
            frozen: false,
            offers: BTreeMap::new(),
            seen: BTreeMap::new(),
            ahead: Ahead::default(),
            round: None,
            buffer: BTreeMap::new(),
            storing: VecDeque::new(),
            checking: None,
            elided: false,
            refill: None,
            suppliers: BTreeMap::new(),
            held_again: UnixMillis::default(),
            leaf_bytes: LEAF_BYTES_GUESS,
            growth: Growth::default(),
            set_aside: BTreeMap::new(),
            rest_until: UnixMillis::default(),
            served: 0,
            wake: None,
        }
    }

    /// Takes over what the store says it holds.
    pub(super) fn hold(&mut self, cursor: u64, root: Digest, applied: Option<Head>, frozen: bool) {
        self.cursor = cursor;
        self.root = root;
        self.next = cursor;
        self.next_root = root;
        self.storing.clear();
        if self.frozen && !frozen {
            // A new epoch: what was announced under the old one is void.
            self.seen.clear();
            self.ahead.clear();
            self.best = None;
            self.heard = None;
            for offer in self.offers.values_mut() {
                offer.head = None;
            }
        }
        self.frozen = frozen;
        if let Some(head) = &applied {
            self.remember(head);
            self.compared(head);
        }
        self.basis.clone_from(&applied);
        self.applied = applied;
    }

    /// Takes over how fast the feed has grown, as of the last leaves stored. Where none
    /// came after the first pull, all that is held was that.
    pub(super) fn hold_growth(&mut self, growth: Growth) {
        self.growth = growth;
        self.set_aside.clear();
        if self.growth.from == 0 && self.applied.is_some() {
            self.growth.from = self.cursor;
        }
    }

    /// Sets growth aside for a chunk that refills: at most its publish leaves count.
    /// Answers the growth before it, or that the feed is at its cap.
    pub(super) fn set_growth_aside(
        &mut self,
        now: UnixMillis,
        held: &Held,
        limit: GrowthLimit,
    ) -> Option<Growth> {
        if self.growth.is_capped(now, limit) {
            return None;
        }
        let before = self.growth;
        if self.growth.counts(held.facts.span.to.saturating_sub(1)) {
            let publishes = held.facts.publishes;
            let _ = self.growth.add_now(publishes, limit);
            self.set_aside.insert(held.chunk, publishes);
        }
        Some(before)
    }

    /// Gives back what of it did not count.
    pub(super) fn refilled(&mut self, chunk: ChunkId, counted: u64) {
        if let Some(aside) = self.set_aside.remove(&chunk) {
            self.growth.give_back(aside.saturating_sub(counted));
        }
    }

    /// Takes over what the store says is held as records alone; what is missing of
    /// it at the head that was applied is pulled again.
    pub(super) fn hold_elided(&mut self, elided: bool, missing: &[Span], now: UnixMillis) {
        self.elided = elided;
        let Some(head) = self.applied.clone().filter(|_| !missing.is_empty()) else {
            return;
        };
        let pages = Spans::pages_of(missing, head.size, REFILL_SPANS_MAX);
        self.refill = Some(Refill::new(
            head,
            pages.clone(),
            pages.into_vec(),
            now,
            true,
        ));
    }

    /// Compares a head with every head and root known here.
    pub(super) fn conflict(&self, head: &Head) -> Option<Conflict> {
        if let Some(other) = self.seen.get(&head.rank()) {
            let other = &other.head;
            return (other.root != head.root).then(|| Conflict {
                held: Some(other.clone()),
            });
        }
        let settled = self.storing.is_empty() && self.round.is_none();
        let same_size = settled && head.size == self.cursor && head.epoch >= self.epoch();
        (same_size && head.root != self.root).then(|| Conflict {
            held: self.basis.clone(),
        })
    }

    fn epoch(&self) -> u32 {
        self.applied.as_ref().map_or(0, |head| head.epoch)
    }

    /// Remembers a verified head.
    pub(super) fn remember(&mut self, head: &Head) {
        if self
            .best
            .as_ref()
            .is_none_or(|best| best.rank() < head.rank())
        {
            self.best = Some(head.clone());
        }
        self.remember_beside(head);
    }

    /// Remembers a verified head without wanting its leaves.
    pub(super) fn remember_beside(&mut self, head: &Head) {
        self.heard = self.heard.max(Some(head.rank()));
        let seen = || Seen {
            head: head.clone(),
            compared: false,
        };
        let known = self.seen.entry(head.rank()).or_insert_with(seen);
        if known.head.root != head.root {
            *known = seen();
        }
        if self.seen.len() > SEEN_MAX {
            self.seen.pop_first();
        }
    }

    /// Answers a head that the tree is to be compared with now; one above the cursor
    /// waits until the cursor is past it.
    pub(super) fn comparable_now(&mut self, peer: PeerId, head: Head) -> Option<Head> {
        if head.size > self.cursor {
            self.ahead.keep(peer, &head);
            return None;
        }
        // Whether it was told before does not matter: it may have waited, and not been kept.
        self.compared(&head).then_some(head)
    }

    /// Notes that a head is compared; says whether it was not yet, as far as is known.
    fn compared(&mut self, head: &Head) -> bool {
        match self.seen.get_mut(&head.rank()) {
            Some(seen) if seen.head.root == head.root => {
                !std::mem::replace(&mut seen.compared, true)
            }
            Some(_) | None => true,
        }
    }

    /// The heads that waited and that the tree held can be compared with.
    fn comparable(&mut self) -> Vec<Head> {
        let mut ready = self.ahead.take(self.epoch(), self.cursor);
        ready.retain(|head| self.compared(head));
        ready
    }

    /// Learns from a chunk what a leaf of this feed needs.
    pub(super) fn learn(&mut self, facts: &ChunkFacts) {
        let mean = facts.bytes.checked_div(facts.span.leaves()).unwrap_or(0);
        self.leaf_bytes = self
            .leaf_bytes
            .saturating_mul(3)
            .saturating_add(mean)
            .wrapping_shr(2)
            .max(16);
    }

    /// Remembers who sent leaves elided.
    pub(super) fn supplied(&mut self, facts: &ChunkFacts, peer: PeerId, head_size: u64) {
        let Span { from, to } = facts.span;
        let inside: Vec<u64> = self.suppliers.range(from..to).map(|(at, _)| *at).collect();
        for at in inside {
            self.suppliers.remove(&at);
        }
        if facts.elided == 0 {
            return;
        }
        self.elided = true;
        let before = self.suppliers.range_mut(..from).next_back();
        if let Some((_, supplied)) = before
            && (supplied.to, supplied.peer, supplied.head_size) == (from, peer, head_size)
        {
            supplied.to = to;
        } else if self.suppliers.len() < SUPPLIERS_MAX {
            let supplied = Supplied {
                to,
                peer,
                head_size,
            };
            self.suppliers.insert(from, supplied);
        }
    }

    /// Who sent any of `spans` elided for the head of `head_size` leaves, each with
    /// one such leaf. What was dead at an earlier head may live again at this one:
    /// who sent it for that head told no lie.
    pub(super) fn blame(&self, spans: &[Span], head_size: u64) -> BTreeMap<PeerId, u64> {
        let mut blamed = BTreeMap::new();
        for span in spans {
            for (from, supplied) in self.suppliers.range(..span.to).rev() {
                if supplied.to <= span.from {
                    break;
                }
                if supplied.head_size == head_size {
                    blamed.entry(supplied.peer).or_insert(span.from.max(*from));
                }
            }
        }
        blamed
    }

    /// Names the chunks at the cursor to the store, in order, up to the growth cap.
    pub(super) fn drain(
        &mut self,
        id: FeedId,
        now: UnixMillis,
        limit: GrowthLimit,
        out: &mut Vec<Action>,
    ) -> Drained {
        // PROTOCOL 18.1: the first pull brings what there is.
        let counts = self.applied.is_some();
        while self.buffer.contains_key(&self.next) {
            if counts && self.growth.is_capped(now, limit) {
                return Drained::Capped;
            }
            let Some(held) = self.buffer.remove(&self.next) else {
                break;
            };
            if held.facts.root_before != self.next_root {
                return Drained::Odd(held);
            }
            self.next = held.facts.span.to;
            self.next_root = held.facts.root_after;
            let over_growth = if counts {
                self.growth.add(now, held.facts.publishes, limit)
            } else {
                0
            };
            self.storing.push_back(held);
            out.push(Action::Store {
                feed: id,
                chunk: held.chunk,
                span: held.facts.span,
                over_growth,
                growth: self.growth,
            });
        }
        Drained::All
    }

    /// Bytes of chunks that wait for others or for the store.
    pub(super) fn waiting_bytes(&self) -> u64 {
        let buffered = self.buffer.values().chain(self.storing.iter());
        buffered.fold(0, |sum, held| sum.saturating_add(held.facts.bytes))
    }

    /// Pins a head: everything from here to there that is not buffered is to be
    /// pulled. What is buffered beyond the head is given back.
    pub(super) fn pin(&mut self, head: Head, out: &mut Vec<Action>) {
        let beyond: Vec<u64> = self
            .buffer
            .iter()
            .filter(|(_, held)| held.facts.span.to > head.size)
            .map(|(from, _)| *from)
            .collect();
        for from in beyond {
            if let Some(held) = self.buffer.remove(&from) {
                out.push(Action::Drop { chunk: held.chunk });
            }
        }
        let mut gaps = Spans::default();
        let mut at = self.next;
        for held in self.buffer.values() {
            gaps.insert(Span {
                from: at,
                to: held.facts.span.from,
            });
            at = held.facts.span.to;
        }
        gaps.insert(Span {
            from: at,
            to: head.size,
        });
        self.round = Some(Round {
            head,
            opened: false,
            gaps,
        });
    }

    /// Gives up what is under way, but not what the store was told.
    pub(super) fn abandon(&mut self, out: &mut Vec<Action>) {
        for held in std::mem::take(&mut self.buffer).into_values() {
            out.push(Action::Drop { chunk: held.chunk });
        }
        self.round = None;
        self.checking = None;
        self.refill = None;
    }

    /// Everything below a head is stored: it takes effect.
    pub(super) fn apply(&mut self, id: FeedId, head: Head, out: &mut Vec<Action>) {
        if self.growth.from == 0 {
            self.growth.from = head.size;
        }
        // Its root is that of what was stored.
        self.compared(&head);
        self.applied = Some(head.clone());
        self.basis = Some(head.clone());
        let missing = self.refill.as_mut().map_or_else(Vec::new, |refill| {
            refill.applied = true;
            refill.missing.clone()
        });
        out.push(Action::HeadApplied {
            feed: id,
            head,
            missing,
        });
        let ready = self.comparable();
        out.extend(
            ready
                .into_iter()
                .map(|head| Action::CompareHead { feed: id, head }),
        );
    }

    /// Says whether a head is worth a round: it is newer than what was applied,
    /// and not behind what is held.
    pub(super) fn wants(&self, head: &Head) -> bool {
        let newer = self
            .applied
            .as_ref()
            .is_none_or(|held| held.rank() < head.rank());
        newer && head.size >= self.next
    }

    /// Epoch and size of the newest head that was heard of and not applied.
    pub(super) fn ahead_of_applied(&self) -> Option<(u32, u64)> {
        let applied = self.applied.as_ref().map(Head::rank);
        self.heard.filter(|heard| Some(*heard) > applied)
    }

    /// Says whether anybody who is connected offers the leaves below a head.
    pub(super) fn is_offered(&self, rank: (u32, u64)) -> bool {
        let mut offered = self.offers.values().filter_map(|offer| offer.head.as_ref());
        offered.any(|head| head.rank() >= rank)
    }

    /// Says whether there may be anything to do.
    pub(super) fn busy(&self) -> bool {
        let behind = self.best.as_ref().is_some_and(|best| self.wants(best));
        !self.frozen && (behind || self.round.is_some() || self.refill.is_some())
    }
}
