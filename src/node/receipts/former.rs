//! What this node said before and its store is behind: a backup was restored, or leaves
//! were lost. Until it has caught up the node is not ready. Of a feed that has as many leaves
//! by then, and others, its publisher signed two histories: nothing is caught up with there,
//! so that the node is ready, but the feed stays at review.
//!
//! Its own words come back from its store, and from peers, who keep genuine ones for ever
//! and say them when they like. ⚠ So none that a peer says counts for longer than a feed
//! that is not held may take to come ([`WAIT_MS`]); one of a feed that this node dropped
//! itself since does not count at all; and a publisher whose feed did not come makes it
//! wait for none that is not held again, as long as this process lives: only a start
//! brings a restored store.

use std::collections::{HashMap, HashSet};

use hashpact_core::access::Snapshot;
use hashpact_core::id::{FeedId, MemberNumber, UnixMillis};
use hashpact_store::{FeedInfo, FeedStatus, HeadRef, StoreError};

use super::{RENEW_MS, is_more};
use crate::node::Node;

/// How long is waited for a feed that is not held: all readers are told of it meanwhile.
pub(super) const WAIT_MS: u64 = RENEW_MS;
/// Feeds of one publisher that are waited for: as many as it may have (PROTOCOL 16.11).
const OF_PUBLISHER_MAX: usize = 1_024;
/// Drops remembered beside the notes in the store: as many as there may be feeds.
const DROPPED_MAX: usize = 16_384;

/// Words of this node that its store is behind, and what is known of such.
#[derive(Default)]
pub(super) struct Words {
    waits: HashMap<FeedId, Former>,
    /// Whether any of these can be caught up with.
    behind: bool,
    /// Of how many there are as many leaves here, and others.
    others: usize,
    /// When this process dropped what feeds.
    dropped: HashMap<FeedId, UnixMillis>,
    /// Publishers of feeds that did not come in time; members of the roster.
    given_up: HashSet<MemberNumber>,
}

/// What this node said of a feed.
#[derive(Clone, Copy)]
struct Former {
    publisher: MemberNumber,
    at: HeadRef,
    signed: UnixMillis,
    /// When it was heard first, of whatever state.
    heard: UnixMillis,
}

impl Words {
    pub(super) const fn is_behind(&self) -> bool {
        self.behind
    }

    /// Whether this feed is waited for.
    pub(super) fn waits_for(&self, feed: &FeedId) -> bool {
        self.waits.contains_key(feed)
    }

    /// Takes a word; says whether it is news.
    fn take(&mut self, feed: FeedId, is_held: bool, word: Former) -> bool {
        if !is_held && self.given_up.contains(&word.publisher) {
            return false;
        }
        if let Some(known) = self.waits.get_mut(&feed) {
            let newer = is_more(word.at, known.at);
            if newer {
                // Not when it was heard: newer ones may come one by one, for ever.
                (known.at, known.signed) = (word.at, word.signed);
            }
            return newer;
        }
        let of_publisher = self.waits.values();
        let of_publisher = of_publisher.filter(|other| other.publisher == word.publisher);
        if of_publisher.count() >= OF_PUBLISHER_MAX {
            return false;
        }
        self.waits.insert(feed, word);
        true
    }

    fn note_dropped(&mut self, feed: FeedId, at: UnixMillis) {
        if self.dropped.len() >= DROPPED_MAX && !self.dropped.contains_key(&feed) {
            let oldest = self.dropped.iter().min_by_key(|(_, at)| **at);
            if let Some(oldest) = oldest.map(|(feed, _)| *feed) {
                self.dropped.remove(&oldest);
            }
        }
        self.dropped.insert(feed, at);
    }
}

impl Node {
    /// Takes this node's own word on a state, and when it was signed, as others or its
    /// store have it: the store may be a restored one. Blocking.
    pub fn note_former_receipt(
        &self,
        feed: FeedId,
        publisher: MemberNumber,
        (at, signed): (HeadRef, UnixMillis),
    ) {
        let held = self.held_of(&feed);
        let place = self.place(held.as_ref(), at);
        if place == Place::CaughtUp || self.was_dropped_since(&feed, signed) {
            return;
        }
        let word = Former {
            publisher,
            at,
            signed,
            heard: self.clock().now(),
        };
        let mut state = self.receipts().state();
        let news = state.former.take(feed, held.is_some(), word);
        drop(state);
        if news {
            let doubted = held.map(|held| self.doubts_own_store(&held, (at.epoch, at.size)));
            if let Some(Err(error)) = doubted {
                tracing::error!(%error, code = error.code(), "marking a feed that is old");
            }
            self.follow_former();
        }
    }

    /// Remembers that this node itself drops a feed: what it said of it till now does not
    /// count any more.
    pub(crate) fn forget_own_word(&self, feed: FeedId, at: UnixMillis) {
        self.receipts().state().former.note_dropped(feed, at);
    }

    fn held_of(&self, feed: &FeedId) -> Option<FeedInfo> {
        let no = self.store().feed_no(feed);
        no.and_then(|no| self.store().feed(no).ok())
    }

    /// Whether this node dropped a feed itself after it signed a word on it.
    fn was_dropped_since(&self, feed: &FeedId, signed: UnixMillis) -> bool {
        let known = self.receipts().state().former.dropped.get(feed).copied();
        let noted = self.store().lost_at(feed).unwrap_or_else(|error| {
            tracing::error!(%error, code = error.code(), "reading what was dropped");
            None
        });
        known.max(noted).is_some_and(|dropped| signed <= dropped)
    }

    /// Looks whether the store has caught up with what this node said before; until then
    /// it is not ready. To be called from time to time. Blocking.
    pub fn follow_former(&self) {
        let snapshot = self.membership().snapshot();
        let former: Vec<_> = {
            let state = self.receipts().state();
            let waits = state.former.waits.iter();
            waits.map(|(id, of)| (*id, *of)).collect()
        };
        let (mut over, mut given_up) = (Vec::new(), Vec::new());
        let (mut waits, mut others) = (0_usize, 0_usize);
        let now = self.clock().now();
        for (id, former) in former {
            let held = self.held_of(&id);
            let closed = self.membership().epoch(id) > former.at.epoch;
            let place = self.place(held.as_ref(), former.at);
            if closed || place == Place::CaughtUp || self.was_dropped_since(&id, former.signed) {
                over.push(id);
                continue;
            }
            // A set that does not come was taken from this member.
            if held.is_none() && now.since(former.heard) >= WAIT_MS {
                over.push(id);
                given_up.push(former.publisher);
                continue;
            }
            // What nobody can catch up with stands in nobody's way.
            let other = place == Place::OtherLeaves;
            others = others.saturating_add(usize::from(other));
            let active = held.is_none_or(|held| held.status == FeedStatus::Active);
            let publishes = |s: &Snapshot| s.may_publish(former.publisher);
            let can = active && !other && snapshot.as_ref().is_some_and(publishes);
            waits = waits.saturating_add(usize::from(can));
        }
        let mut state = self.receipts().state();
        for id in over {
            state.former.waits.remove(&id);
        }
        state.former.given_up.extend(given_up);
        let was = std::mem::replace(&mut state.former.behind, waits > 0);
        let were_others = std::mem::replace(&mut state.former.others, others);
        drop(state);
        if was != (waits > 0) {
            self.show_behind(waits);
        }
        if were_others != others {
            self.show_others(others);
        }
    }

    /// How what is applied stands to a state that this node said it acts on.
    fn place(&self, held: Option<&FeedInfo>, said: HeadRef) -> Place {
        let Some((held, applied)) = held.and_then(|held| Some((held, held.applied?))) else {
            return Place::Behind;
        };
        if applied.epoch > said.epoch {
            return Place::CaughtUp;
        }
        if is_more(said, applied) {
            return Place::Behind;
        }
        // Whether an own set goes on from what was signed its gate says.
        if held.own {
            return Place::CaughtUp;
        }
        match self.store().root_at(held.no, said.size) {
            Ok(root) if root == said.root => Place::CaughtUp,
            Ok(_) => Place::OtherLeaves,
            // It was cut off just now.
            Err(StoreError::OutOfRange { .. } | StoreError::UnknownFeed(_)) => Place::Behind,
            Err(error) => {
                tracing::error!(%error, code = error.code(), "comparing an own receipt");
                Place::Behind
            }
        }
    }

    fn show_others(&self, others: usize) {
        let notice = (others > 0).then(|| {
            format!(
                "ALARM: of {others} feeds this node holds other leaves than it signed receipts \
                 for: their publishers signed two histories; they stay at review until the roster \
                 opens a new epoch of them"
            )
        });
        if let Some(notice) = &notice {
            tracing::error!("{notice}");
        }
        self.set_notice("former_receipts_of_others", notice);
    }

    fn show_behind(&self, waits: usize) {
        let notice = (waits > 0).then(|| {
            format!(
                "ALARM: the store is behind this node's own receipts of {waits} feeds: it was \
                 restored, or lost what it had; the node is not ready until it has caught up"
            )
        });
        match &notice {
            Some(notice) => tracing::error!("{notice}"),
            None => tracing::info!("the store has caught up with this node's own receipts"),
        }
        self.set_notice("former_receipts", notice);
    }
}

/// How what is applied stands to what was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is less.
    Behind,
    /// It is no less, and in another history.
    OtherLeaves,
    /// All of it is there, or of a later epoch.
    CaughtUp,
}

#[cfg(test)]
mod tests {
    use hashpact_core::id::Digest;

    use super::*;

    fn feed(n: usize) -> FeedId {
        FeedId(Digest::of(&n.to_be_bytes()))
    }

    fn word(publisher: u32, size: u64, heard: u64) -> Former {
        Former {
            publisher: MemberNumber::new(publisher).unwrap(),
            at: HeadRef {
                epoch: 0,
                size,
                root: Digest::of(b"root"),
            },
            signed: UnixMillis(size),
            heard: UnixMillis(heard),
        }
    }

    #[test]
    fn no_word_however_new_puts_off_when_a_feed_is_given_up() {
        let mut words = Words::default();
        assert!(words.take(feed(0), false, word(1, 10, 100)));
        assert!(!words.take(feed(0), false, word(1, 10, 200)), "said again");
        assert!(words.take(feed(0), false, word(1, 11, 300)));
        let waits = words.waits[&feed(0)];
        assert_eq!((waits.at.size, waits.heard), (11, UnixMillis(100)));
    }

    #[test]
    fn one_publisher_is_waited_for_within_its_own_room() {
        let mut words = Words::default();
        for n in 0..OF_PUBLISHER_MAX {
            assert!(words.take(feed(n), false, word(1, 10, 0)));
        }
        let more = feed(OF_PUBLISHER_MAX);
        assert!(!words.take(more, false, word(1, 10, 0)));
        assert!(words.take(more, false, word(2, 10, 0)));
    }

    #[test]
    fn what_was_dropped_is_remembered_within_a_bound_the_newest_longest() {
        let mut words = Words::default();
        for n in 0..=DROPPED_MAX {
            words.note_dropped(feed(n), UnixMillis(n as u64));
        }
        assert_eq!(words.dropped.len(), DROPPED_MAX);
        assert!(!words.dropped.contains_key(&feed(0)));
        assert!(words.dropped.contains_key(&feed(DROPPED_MAX)));
    }
}
