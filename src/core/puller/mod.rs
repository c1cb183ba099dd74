//! Decides what to pull from whom: the puller as a pure state machine.
//!
//! It is told events and answers actions; the node drives it and there is no
//! second implementation beside it. It owns no connection, no bytes and no clock:
//! verified chunks lie with the driver under a [`ChunkId`], and `now` and the
//! seed of its jitter come in as arguments.
//!
//! How a feed is pulled: the newest verified head that a usable peer offers is
//! pinned, and a first job asks for the leaves at the cursor. Only when its first
//! chunk proves that the head extends what is held do other jobs start, at any
//! peer that announced as much; what they bring out of order waits within a
//! bounded window, and the store is told in order. At the head, elided leaves are
//! checked, and the head is applied.
//!
//! Trust: peers are trusted with nothing; what they send arrives here as facts of
//! chunks that were verified against the pinned head. A head was verified with
//! the publisher's keys, and may still be one of a fork.
//!
//! Bounds: feeds, peers, jobs, and bytes per feed, as [`Settings`] says. No event
//! order makes it panic.

mod ahead;
mod backoff;
mod feed;
mod growth;
mod heads;
mod intake;
mod peers;
mod plan;
mod settings;
mod spans;
mod types;

#[cfg(test)]
mod bounds_tests;
#[cfg(test)]
mod elision_tests;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

pub use backoff::{Backoff, Fault, Jitter, Waits};
pub use growth::{Growth, GrowthLimit};
pub use settings::Settings;
pub use types::{Action, ChunkFacts, ChunkId, Denied, Event, Failure, Head, JobId, PeerId, Span};

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{FeedId, MemberNumber, UnixMillis};
use feed::Feed;
use peers::{Job, Peer};

/// The state machine.
#[derive(Debug)]
pub struct Puller {
    settings: Settings,
    growth_limit: GrowthLimit,
    jitter: Jitter,
    now: UnixMillis,
    denied: Denied,
    feeds: BTreeMap<FeedId, Feed>,
    peers: BTreeMap<PeerId, Peer>,
    jobs: BTreeMap<JobId, Job>,
    next_job: u64,
    /// Feeds that there may be something to do for.
    busy: BTreeSet<FeedId>,
    /// When a feed that waits is to be looked at again.
    wakes: BTreeSet<(UnixMillis, FeedId)>,
    /// The wake that was said last.
    wake: Option<UnixMillis>,
}

/// What an event may have made possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Nothing,
    One(FeedId),
    All,
}

/// How far a feed is, for `status` and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The feed.
    pub feed: FeedId,
    /// Its publisher.
    pub publisher: MemberNumber,
    /// Leaves stored.
    pub cursor: u64,
    /// The size of the newest head that was applied.
    pub applied: Option<u64>,
    /// Its epoch, and that size.
    pub applied_at: Option<(u32, u64)>,
    /// The size of the newest verified head that was not applied, whoever told of it.
    pub ahead: Option<u64>,
    /// Somebody who is connected offers its leaves.
    pub offered: bool,
    /// Pulls that run.
    pub jobs: usize,
    /// A fork was found.
    pub frozen: bool,
    /// Pages with leaves that were elided without reason.
    pub missing: Vec<Span>,
}

impl Puller {
    /// Makes a puller that knows nothing; the same seed and events give the same
    /// actions.
    #[must_use]
    pub const fn new(settings: Settings, seed: u64) -> Self {
        Self {
            growth_limit: settings.growth_limit(settings.growth_per_hour),
            jitter: Jitter::over(settings.waits, seed),
            settings,
            now: UnixMillis(0),
            denied: Denied {
                feeds: BTreeSet::new(),
                peers: BTreeSet::new(),
                pairs: BTreeSet::new(),
            },
            feeds: BTreeMap::new(),
            peers: BTreeMap::new(),
            jobs: BTreeMap::new(),
            next_job: 0,
            busy: BTreeSet::new(),
            wakes: BTreeSet::new(),
            wake: None,
        }
    }

    /// Takes in what happened and answers what to do, in order.
    ///
    /// A time before one already told counts as that one.
    pub fn handle(&mut self, now: UnixMillis, event: Event) -> Vec<Action> {
        self.now = self.now.max(now);
        let mut out = Vec::new();
        let scope = self.take(event, &mut out);
        self.plan(scope, &mut out);
        self.say_wake(&mut out);
        out
    }

    /// Its bounds.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Every feed's progress.
    pub fn progress(&self) -> impl Iterator<Item = Progress> + '_ {
        self.feeds.iter().map(|(id, feed)| Progress {
            feed: *id,
            publisher: feed.publisher,
            cursor: feed.cursor,
            applied: feed.applied.as_ref().map(Head::size),
            applied_at: feed.applied.as_ref().map(Head::rank),
            ahead: feed.ahead_of_applied().map(|(_, size)| size),
            offered: feed
                .ahead_of_applied()
                .is_some_and(|rank| feed.is_offered(rank)),
            jobs: peers::running(&self.jobs, |job| job.feed == *id),
            frozen: feed.frozen,
            missing: feed
                .refill
                .as_ref()
                .map_or_else(Vec::new, |refill| refill.missing.clone()),
        })
    }

    /// Every feed with its publisher and the peers that announced it: what a
    /// change of access is computed over.
    pub fn offers(&self) -> impl Iterator<Item = (FeedId, MemberNumber, PeerId)> + '_ {
        self.feeds.iter().flat_map(|(id, feed)| {
            let peers = feed.offers.keys();
            peers.map(|peer| (*id, feed.publisher, *peer))
        })
    }

    /// Every peer with its member, whether it is up, and until when it is left
    /// alone for all feeds.
    pub fn peers(&self) -> impl Iterator<Item = (PeerId, MemberNumber, bool, UnixMillis)> + '_ {
        self.peers
            .iter()
            .map(|(id, peer)| (*id, peer.member, peer.up, peer.backoff.until()))
    }

    fn take(&mut self, event: Event, out: &mut Vec<Action>) -> Scope {
        match event {
            Event::PeerUp { peer, member } => self.peer_up(peer, member),
            Event::PeerDown { peer } => self.peer_down(peer, out),
            Event::PeerHeard { peer } => self.peer_heard(peer),
            Event::FeedHeld {
                feed,
                publisher,
                cursor,
                root,
                applied,
                frozen,
                growth,
                elided,
                missing,
            } => {
                self.abandon(feed, out);
                let entry = self
                    .feeds
                    .entry(feed)
                    .or_insert_with(|| Feed::new(publisher));
                entry.hold(cursor, root, applied, frozen);
                entry.hold_growth(growth);
                entry.hold_elided(elided, &missing, self.now);
                Scope::All
            }
            Event::FeedGone { feed } => {
                self.abandon(feed, out);
                self.forget(feed);
                Scope::All
            }
            Event::HeadAnnounced {
                peer,
                publisher,
                head,
            } => self.head_announced(peer, publisher, head, out),
            Event::HeadRejected {
                peer,
                feed,
                rejection,
            } => self.head_rejected(peer, feed, rejection, out),
            Event::ChunkVerified { job, chunk, facts } => {
                self.chunk_verified(job, chunk, facts, out)
            }
            Event::ChunkRejected { job, rejection } => self.lie(job, rejection, out),
            Event::ChunkStored { feed, chunk } => self.chunk_stored(feed, chunk),
            Event::Refilled {
                feed,
                chunk,
                counted,
            } => self.refilled(feed, chunk, counted, out),
            Event::StoreFailed { feed } => self.store_failed(feed, out),
            Event::StreamEnded { job } => self.stream_ended(job, out),
            Event::StreamFailed { job, failure } => self.stream_failed(job, failure),
            Event::Quiet { job } => self.quiet(job, out),
            Event::ElisionsChecked {
                feed,
                size,
                unjustified,
                held,
            } => self.elisions_checked(feed, size, &unjustified, &held, out),
            Event::LeftOut { feed, missing } => {
                let entry = self.feeds.get_mut(&feed);
                if let Some(entry) = entry.filter(|entry| entry.refill.is_none()) {
                    entry.hold_elided(true, &missing, self.now);
                }
                Scope::All
            }
            Event::ForkFound { feed } => {
                self.abandon(feed, out);
                if let Some(entry) = self.feeds.get_mut(&feed) {
                    entry.frozen = true;
                }
                Scope::All
            }
            Event::GrowthLimit { per_hour } => {
                // The lower of what the operator and the roster allow.
                let lower = per_hour.map_or(self.settings.growth_per_hour, |roster| {
                    roster.min(self.settings.growth_per_hour)
                });
                self.growth_limit = self.settings.growth_limit(lower);
                Scope::Nothing
            }
            Event::AccessChanged(denied) => self.access_changed(denied, out),
            Event::Tick => self.tick(out),
        }
    }

    fn forget(&mut self, feed: FeedId) {
        if let Some(wake) = self.feeds.remove(&feed).and_then(|entry| entry.wake) {
            self.wakes.remove(&(wake, feed));
        }
        self.busy.remove(&feed);
    }
}
