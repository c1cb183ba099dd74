//! Decides what a witness cosigns: a pure state machine, told events, answering actions.
//!
//! Of every feed it keeps the last head that it cosigned. A newer one is proved to
//! contain that, recorded durably, and only then signed. Of two heads that do not
//! merge the second is never signed: the proof that they do not is the evidence.
//!
//! Owns: what is proved, recorded, signed, in which order, and when again. Does not
//! own: connections, the record on disk, keys, who may be told (its driver).
//!
//! Trust: heads were verified with the publisher's keys; who shows them is trusted
//! for nothing. ⚠ The record may be older than what was signed (a restored disk). So
//! nothing is recorded or signed until the peers within reach have said what they
//! hold, and a head that carries this witness's own cosignature counts as recorded:
//! the feed goes on from there or not at all. No order of events makes it panic.

mod feed;
pub mod judge;
pub mod roster;

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::chunk::{PinnedHead, ProofParts};
use crate::id::{Digest, FeedId, MemberNumber, UnixMillis};
use crate::merkle::{self, CompactRange};
use crate::puller::{Head, JobId, PeerId};
use crate::reject::Rejection;
use feed::{Feed, Next};

/// How long after a cosignature the same head is cosigned again: within the ten
/// minutes that PROTOCOL 11.13 names, with time for it to travel.
pub const RENEW_MS: u64 = 9 * 60 * 1_000;
/// Between two new heads of one feed: a publisher that signs ten a second costs its
/// witnesses one.
pub const PACE_MS: u64 = 1_000;
/// Between looks at heads below the one cosigned, of one feed.
pub const BELOW_MS: u64 = 5_000;
/// Proofs asked for at once, over all feeds; each is one small call.
const JOBS_MAX: usize = 32;
/// The same of one publisher, so that none keeps the others waiting.
const JOBS_PER_PUBLISHER: usize = 8;
/// Feeds, as many as a puller knows of.
const FEEDS_MAX: usize = 16_384;

/// A state that was cosigned, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned {
    /// The feed's publisher.
    pub publisher: MemberNumber,
    /// The feed's epoch.
    pub epoch: u32,
    /// Leaves.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Digest,
    /// The publisher's note, as received.
    pub note: Bytes,
}

impl Cosigned {
    fn of(publisher: MemberNumber, head: &Head) -> Self {
        Self {
            publisher,
            epoch: head.epoch(),
            size: head.size(),
            root: head.root(),
            note: head.note().clone(),
        }
    }

    /// Epoch, size and root: what two records are compared by.
    #[must_use]
    pub const fn state(&self) -> (u32, u64, Digest) {
        (self.epoch, self.size, self.root)
    }

    const fn rank(&self) -> (u32, u64) {
        (self.epoch, self.size)
    }
}

/// Where an epoch of a feed begins, as the roster says: a head of it contains exactly
/// that. Epoch 0 begins with no leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Leaves.
    pub size: u64,
    /// Their root.
    pub root: Digest,
}

impl Base {
    /// Of epoch 0.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            size: 0,
            root: merkle::empty_root(),
        }
    }
}

/// A proof that led to its head: the head's tree up to a smaller size, and from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// The head's compact range `[0, from)`.
    pub before: Vec<Digest>,
    /// The head's compact range `[from, size)`.
    pub between: Vec<Digest>,
    /// The root of the head's first `from` leaves.
    pub root: Digest,
}

impl Extension {
    /// Checks a proof-only answer for `[from, head.size)` against its head.
    ///
    /// # Errors
    /// [`Rejection::WrongRange`] for another range than was asked for,
    /// [`Rejection::ProofLength`], [`Rejection::WrongRoot`]: all blame the sender alone.
    pub fn check(parts: ProofParts, from: u64, head: &PinnedHead) -> Result<Self, Rejection> {
        if parts.from != from || parts.to != head.size {
            return Err(Rejection::WrongRange {
                expected: from,
                got: parts.from,
            });
        }
        let before = CompactRange::from_hashes(0, from, parts.before)?;
        let mut between = CompactRange::from_hashes(from, head.size, parts.range)?;
        // PROTOCOL 13.3: nothing is left after the head's own size.
        between.merge(&CompactRange::from_hashes(
            head.size,
            head.size,
            parts.after,
        )?)?;
        let mut whole = before.clone();
        whole.merge(&between)?;
        if whole.root() != Some(head.root) {
            let to = head.size;
            return Err(Rejection::WrongRoot { from, to });
        }
        Ok(Self {
            root: before.root().unwrap_or_else(merkle::empty_root),
            before: before.hashes().to_vec(),
            between: between.hashes().to_vec(),
        })
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// What is recorded of a feed: at start, and after a record that failed.
    Held {
        /// The feed.
        feed: FeedId,
        /// The record.
        cosigned: Cosigned,
    },
    /// Nothing is recorded of a feed: said after a record that failed.
    NotHeld {
        /// The feed.
        feed: FeedId,
    },
    /// The peers within reach have said what they hold.
    Settled,
    /// A peer showed a verified head of the feed's open epoch.
    Shown {
        /// The peer.
        peer: PeerId,
        /// The feed's publisher.
        publisher: MemberNumber,
        /// The head.
        head: Head,
        /// Where its epoch begins.
        base: Base,
        /// It carries this witness's own cosignature, which was verified.
        own: bool,
        /// The peer holds the feed, and so can be asked for proofs.
        holds: bool,
    },
    /// The last connection to a peer is gone.
    PeerGone {
        /// The peer.
        peer: PeerId,
    },
    /// A proof came and led to its head.
    Proved {
        /// Of which [`Action::Prove`].
        job: JobId,
        /// The proof.
        extension: Extension,
    },
    /// No proof came, or one that was refused.
    NotProved {
        /// Of which [`Action::Prove`].
        job: JobId,
    },
    /// The record that [`Action::Record`] named is durable.
    Recorded {
        /// The feed.
        feed: FeedId,
    },
    /// Evidence of a fork in an epoch of a feed was accepted.
    Forked {
        /// The feed.
        feed: FeedId,
        /// The epoch.
        epoch: u32,
    },
    /// Another key than before signs: all that is recorded is signed again. The
    /// record is the same for every key.
    Rekeyed,
    /// Time passed: said at the latest [`Action::Wake`].
    Tick,
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask a peer for the proof, without leaves, of `[from, head.size)`.
    Prove {
        /// The name of the job.
        job: JobId,
        /// Whom to ask.
        peer: PeerId,
        /// The feed.
        feed: FeedId,
        /// How many leaves the smaller tree has.
        from: u64,
        /// The head that the proof leads to.
        head: PinnedHead,
    },
    /// Record a state durably, if what is recorded is still `expected`; then say
    /// [`Event::Recorded`]. Where it may or may not have been recorded, read the record
    /// again and say [`Event::Held`] or [`Event::NotHeld`].
    Record {
        /// The feed.
        feed: FeedId,
        /// What the record says before.
        expected: Option<(u32, u64, Digest)>,
        /// What it says after.
        new: Cosigned,
    },
    /// Cosign a recorded state with the time that it is, and tell of it.
    Sign {
        /// The feed.
        feed: FeedId,
        /// The state.
        cosigned: Cosigned,
    },
    /// The publisher forked the feed: the notes, smaller size first, and the larger
    /// tree's compact ranges.
    Fork {
        /// The feed.
        feed: FeedId,
        /// The publisher.
        publisher: MemberNumber,
        /// The note of the smaller size.
        smaller: Bytes,
        /// The note of the larger size.
        larger: Bytes,
        /// The proof.
        extension: Extension,
    },
    /// A head does not contain what the roster says its epoch begins with.
    Refuse {
        /// Who showed it.
        peer: PeerId,
        /// The feed.
        feed: FeedId,
        /// Why.
        rejection: Rejection,
    },
    /// Say [`Event::Tick`] then.
    Wake {
        /// When.
        at: UnixMillis,
    },
}

/// A proof that is being asked for.
#[derive(Debug, Clone, Copy)]
struct Job {
    feed: FeedId,
    peer: PeerId,
    publisher: MemberNumber,
}

/// How a feed stands, for `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The feed.
    pub feed: FeedId,
    /// What is recorded.
    pub cosigned: Option<Cosigned>,
    /// Nothing more of this epoch is cosigned.
    pub forked: bool,
    /// A head with this witness's own cosignature is ahead of the record, and nobody
    /// has proved yet how they go together.
    pub behind: bool,
}

/// The state machine.
#[derive(Debug, Default)]
pub struct Witness {
    now: UnixMillis,
    settled: bool,
    feeds: BTreeMap<FeedId, Feed>,
    jobs: BTreeMap<JobId, Job>,
    next_job: u64,
    /// When feeds are to be looked at.
    due: BTreeSet<(UnixMillis, FeedId)>,
    /// Epochs in which feeds are known to be forked of which nothing else is known.
    forked: BTreeMap<FeedId, u32>,
    /// Feeds that wait for a job to end.
    queued: BTreeSet<FeedId>,
    wake: Option<UnixMillis>,
}

impl Witness {
    /// Makes one that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in what happened and answers what to do, in order. A time before one
    /// already told counts as that one.
    pub fn handle(&mut self, now: UnixMillis, event: Event) -> Vec<Action> {
        self.now = self.now.max(now);
        let mut out = Vec::new();
        for feed in self.take(event) {
            self.plan(feed, &mut out);
        }
        self.say_wake(&mut out);
        out
    }

    /// Whether the peers within reach have been heard.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.settled
    }

    /// How every feed stands.
    pub fn standings(&self) -> impl Iterator<Item = Standing> + '_ {
        self.feeds.iter().map(|(id, feed)| Standing {
            feed: *id,
            cosigned: feed.recorded.clone(),
            forked: feed.is_forked(),
            behind: feed.own.is_some(),
        })
    }

    /// Takes an event in; answers the feeds to look at.
    fn take(&mut self, event: Event) -> Vec<FeedId> {
        match event {
            Event::Held { feed, cosigned } => {
                let publisher = cosigned.publisher;
                if let Some(entry) = self.entry(feed, publisher) {
                    entry.hold(Some(cosigned));
                }
                vec![feed]
            }
            Event::NotHeld { feed } => {
                if let Some(entry) = self.feeds.get_mut(&feed) {
                    entry.hold(None);
                }
                vec![feed]
            }
            Event::Settled => {
                self.settled = true;
                self.feeds.keys().copied().collect()
            }
            Event::Rekeyed => {
                self.feeds.values_mut().for_each(Feed::rekeyed);
                self.feeds.keys().copied().collect()
            }
            Event::Shown {
                peer,
                publisher,
                head,
                base,
                own,
                holds,
            } => {
                let feed = head.feed();
                if let Some(entry) = self.entry(feed, publisher) {
                    entry.shown(peer, head, base, own, holds);
                }
                vec![feed]
            }
            Event::PeerGone { peer } => {
                let of_peer: Vec<JobId> = self
                    .jobs
                    .iter()
                    .filter(|(_, job)| job.peer == peer)
                    .map(|(id, _)| *id)
                    .collect();
                for feed in self.feeds.values_mut() {
                    feed.offers.remove(&peer);
                }
                of_peer
                    .into_iter()
                    .flat_map(|job| self.ended(job, None))
                    .collect()
            }
            Event::Proved { job, extension } => self.ended(job, Some(extension)),
            Event::NotProved { job } => self.ended(job, None),
            Event::Recorded { feed } => {
                if let Some(entry) = self.feeds.get_mut(&feed) {
                    entry.recorded();
                }
                vec![feed]
            }
            Event::Forked { feed, epoch } => {
                match self.feeds.get_mut(&feed) {
                    Some(entry) => entry.fork(epoch),
                    None if self.forked.len() < FEEDS_MAX => {
                        self.forked.insert(feed, epoch);
                    }
                    None => {}
                }
                vec![feed]
            }
            Event::Tick => {
                self.wake = None;
                let due = self.due.iter().take_while(|(at, _)| *at <= self.now);
                due.map(|(_, feed)| *feed).collect()
            }
        }
    }

    fn entry(&mut self, feed: FeedId, publisher: MemberNumber) -> Option<&mut Feed> {
        if !self.feeds.contains_key(&feed) && self.feeds.len() >= FEEDS_MAX {
            return None;
        }
        let forked = self.forked.remove(&feed);
        let entry = self
            .feeds
            .entry(feed)
            .or_insert_with(|| Feed::new(publisher));
        if let Some(epoch) = forked {
            entry.fork(epoch);
        }
        // A feed has one publisher: its id is a digest over it.
        (entry.publisher == publisher).then_some(entry)
    }

    /// A job is over: its feed is looked at again, and those that waited for one.
    fn ended(&mut self, job: JobId, extension: Option<Extension>) -> Vec<FeedId> {
        let Some(Job { feed, .. }) = self.jobs.remove(&job) else {
            return Vec::new();
        };
        if let Some(entry) = self.feeds.get_mut(&feed) {
            entry.answered(self.now, job, extension);
        }
        let mut next = vec![feed];
        next.extend(std::mem::take(&mut self.queued));
        next
    }

    fn plan(&mut self, id: FeedId, out: &mut Vec<Action>) {
        loop {
            let Some(feed) = self.feeds.get_mut(&id) else {
                return;
            };
            if let Some(at) = feed.due.take() {
                self.due.remove(&(at, id));
            }
            if !self.settled {
                return;
            }
            match feed.next(id, self.now) {
                Next::Say(action) => out.push(*action),
                Next::Prove { peer, from, head } => {
                    let publisher = feed.publisher;
                    let of_publisher = |job: &&Job| job.publisher == publisher;
                    let busy = self.jobs.values().filter(of_publisher).count();
                    if self.jobs.len() >= JOBS_MAX || busy >= JOBS_PER_PUBLISHER {
                        self.queued.insert(id);
                        return;
                    }
                    let job = JobId(self.next_job);
                    self.next_job = self.next_job.saturating_add(1);
                    feed.begin(job);
                    let of = Job {
                        feed: id,
                        peer,
                        publisher,
                    };
                    self.jobs.insert(job, of);
                    out.push(Action::Prove {
                        job,
                        peer,
                        feed: id,
                        from,
                        head,
                    });
                    return;
                }
                Next::Wait(until) => {
                    if let Some(at) = until {
                        feed.due = Some(at);
                        self.due.insert((at, id));
                    }
                    return;
                }
            }
        }
    }

    fn say_wake(&mut self, out: &mut Vec<Action>) {
        let Some((at, _)) = self.due.first().copied() else {
            return;
        };
        if self.wake.is_none_or(|wake| at < wake) {
            self.wake = Some(at);
            out.push(Action::Wake { at });
        }
    }
}
