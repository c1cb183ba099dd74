//! What the puller is told and what it asks for: events and actions.

use bytes::Bytes;

use std::collections::BTreeSet;

use super::backoff::Fault;
use super::growth::{Growth, GrowthLimit};
use crate::checkpoint::SignedCheckpoint;
use crate::chunk::VerifiedChunk;
use crate::id::{Digest, FeedId, MemberNumber, UnixMillis};
use crate::leaf::{self, LeafBody, RawLeaf};
use crate::merkle::{self, CompactRange};
use crate::reject::Rejection;
use crate::verified::Verified;

/// Names a peer: one node of one member. The driver gives the numbers and keeps
/// one for a node across its connections, so that faults are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

/// Names one `Pull` call that the puller asked for. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// Names a verified chunk that the driver keeps until it is told what to do with
/// it. The driver gives the numbers and never uses one twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId(pub u64);

/// A verified head, as small as the puller needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub(super) feed: FeedId,
    pub(super) epoch: u32,
    pub(super) size: u64,
    pub(super) root: Digest,
    pub(super) note: Bytes,
}

impl From<Verified<SignedCheckpoint>> for Head {
    fn from(head: Verified<SignedCheckpoint>) -> Self {
        let SignedCheckpoint {
            checkpoint, note, ..
        } = head.into_inner();
        Self {
            feed: checkpoint.origin.feed,
            epoch: checkpoint.origin.epoch,
            size: checkpoint.size,
            root: checkpoint.root,
            note,
        }
    }
}

impl Head {
    /// The feed.
    #[must_use]
    pub const fn feed(&self) -> FeedId {
        self.feed
    }

    /// The epoch of the feed that signed it.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Leaves in the feed at this head.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root at that size.
    #[must_use]
    pub const fn root(&self) -> Digest {
        self.root
    }

    /// The signed note, as received.
    #[must_use]
    pub const fn note(&self) -> &Bytes {
        &self.note
    }

    /// Says whether a peer with this head can serve the leaves below `other`.
    pub(super) const fn covers(&self, other: &Self) -> bool {
        self.size >= other.size && self.epoch >= other.epoch
    }

    /// Heads are ordered by epoch, then size.
    pub(crate) const fn rank(&self) -> (u32, u64) {
        (self.epoch, self.size)
    }

    /// Says whether both name the same tree.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.rank() == other.rank() && self.root == other.root
    }
}

/// Leaves `[from, to)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The first index.
    pub from: u64,
    /// One past the last index.
    pub to: u64,
}

impl Span {
    /// The number of leaves; 0 when the bounds are the wrong way round.
    #[must_use]
    pub const fn leaves(self) -> u64 {
        self.to.saturating_sub(self.from)
    }
}

/// What the puller needs to know of a chunk that was verified against its job's
/// head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkFacts {
    pub(super) span: Span,
    pub(super) root_before: Digest,
    pub(super) root_after: Digest,
    pub(super) elided: u64,
    pub(super) publishes: u64,
    pub(super) bytes: u64,
}

impl ChunkFacts {
    /// Takes the facts of a verified chunk.
    ///
    /// # Errors
    /// [`Rejection::Invalid`] when its ranges do not meet, which a verified
    /// chunk's do.
    pub fn of(chunk: &VerifiedChunk) -> Result<Self, Rejection> {
        let root = |range: &CompactRange| {
            let gone = || Rejection::invalid("chunk", "does not begin at leaf 0");
            if range.end() == 0 {
                Ok(merkle::empty_root())
            } else {
                range.root().ok_or_else(gone)
            }
        };
        let mut through = chunk.before.clone();
        through.merge(&chunk.range)?;
        let mut facts = Self {
            span: Span {
                from: chunk.from,
                to: chunk.to,
            },
            root_before: root(&chunk.before)?,
            root_after: root(&through)?,
            elided: 0,
            publishes: 0,
            bytes: 0,
        };
        let pages = chunk.pages.iter().flat_map(|page| &page.leaves);
        for leaf in chunk.lead.iter().chain(pages).chain(&chunk.trail) {
            facts.count(leaf);
        }
        Ok(facts)
    }

    fn count(&mut self, raw: &RawLeaf) {
        /// What a leaf takes beside its payload.
        const OVERHEAD_BYTES: u64 = 48;
        let payload = match &raw.body {
            LeafBody::Payload(payload) => {
                let publish = raw.kind == leaf::PUBLISH;
                self.publishes = self.publishes.saturating_add(u64::from(publish));
                payload.len()
            }
            LeafBody::Elided(_) => {
                self.elided = self.elided.saturating_add(1);
                0
            }
        };
        let payload = u64::try_from(payload).unwrap_or(u64::MAX);
        self.bytes = self
            .bytes
            .saturating_add(payload)
            .saturating_add(OVERHEAD_BYTES);
    }
}

/// Why a pull's stream failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The stream or connection broke.
    Cut,
    /// No progress for the time that a stream may go without (30 s).
    Silent,
    /// The peer has too much to do (`RESOURCE_EXHAUSTED`, `UNAVAILABLE`).
    Busy,
    /// The peer answered that there is no such feed or head (`NOT_FOUND`).
    Refused,
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Cut => Self::Cut,
            Failure::Silent => Self::Silent,
            Failure::Busy => Self::Busy,
            Failure::Refused => Self::Refused,
        }
    }
}

/// What this node may not pull, computed by the driver from its access snapshot
/// over [`offers`](super::Puller::offers).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Denied {
    /// Feeds that this node may not read, or that its operator does not want.
    pub feeds: BTreeSet<FeedId>,
    /// Peers that are suspended, removed or denied locally.
    pub peers: BTreeSet<PeerId>,
    /// Peers that may not relay a feed.
    pub pairs: BTreeSet<(PeerId, FeedId)>,
}

impl Denied {
    /// Says whether a feed may not be pulled from a peer.
    pub(super) fn covers(&self, peer: PeerId, feed: FeedId) -> bool {
        self.feeds.contains(&feed)
            || self.peers.contains(&peer)
            || self.pairs.contains(&(peer, feed))
    }
}

/// What happened. Events about jobs, chunks or peers that the puller does not
/// know (any more) are harmless in any order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A connection to a peer stands, in whichever direction it was dialled.
    PeerUp {
        /// The peer.
        peer: PeerId,
        /// Whose node it is.
        member: MemberNumber,
    },
    /// The last connection to a peer is gone. Its pulls count as cut.
    PeerDown {
        /// The peer.
        peer: PeerId,
    },
    /// A peer's watch said something: it lives and need not be polled.
    PeerHeard {
        /// The peer.
        peer: PeerId,
    },
    /// What the store holds of a feed: said at start, whenever this node's own
    /// feed grows, and to thaw a feed after a new epoch. It replaces what the
    /// puller knew, and cancels pulls of the feed.
    FeedHeld {
        /// The feed.
        feed: FeedId,
        /// Its publisher.
        publisher: MemberNumber,
        /// Leaves held.
        cursor: u64,
        /// The root of these leaves.
        root: Digest,
        /// The newest head that was applied.
        applied: Option<Head>,
        /// Evidence of a fork is held: nothing is pulled.
        frozen: bool,
        /// The growth that [`Action::Store`] named with the last chunk stored.
        growth: Growth,
        /// Leaves are held as their record alone.
        elided: bool,
        /// Leaves held elided that nothing below the head that was applied makes dead.
        missing: Vec<Span>,
    },
    /// The store dropped a feed; the puller forgets it.
    FeedGone {
        /// The feed.
        feed: FeedId,
    },
    /// A peer announced a head, which was verified with the publisher's keys.
    HeadAnnounced {
        /// The peer, which says that it can serve the feed up to there.
        peer: PeerId,
        /// The feed's publisher.
        publisher: MemberNumber,
        /// The head.
        head: Head,
    },
    /// A peer announced a head that was refused.
    HeadRejected {
        /// The peer.
        peer: PeerId,
        /// The feed it named, if that could be read.
        feed: Option<FeedId>,
        /// Why.
        rejection: Rejection,
    },
    /// A chunk was verified against the head of its job.
    ChunkVerified {
        /// The job.
        job: JobId,
        /// The driver's name for it.
        chunk: ChunkId,
        /// Its facts.
        facts: ChunkFacts,
    },
    /// What came was refused: it did not verify, or broke the protocol.
    ChunkRejected {
        /// The job.
        job: JobId,
        /// Why.
        rejection: Rejection,
    },
    /// A chunk that [`Action::Store`] named is stored, and all that were named before
    /// it for the feed.
    ChunkStored {
        /// The feed.
        feed: FeedId,
        /// The chunk.
        chunk: ChunkId,
    },
    /// A chunk that [`Action::Refill`] named is stored.
    Refilled {
        /// The feed.
        feed: FeedId,
        /// The chunk.
        chunk: ChunkId,
        /// Publish leaves that it put back and that count as growth.
        counted: u64,
    },
    /// The store could not take a chunk: nothing named since the last
    /// [`Event::ChunkStored`] of the feed is stored.
    StoreFailed {
        /// The feed.
        feed: FeedId,
    },
    /// A stream ended well. Said after the events of all its chunks.
    StreamEnded {
        /// The job.
        job: JobId,
    },
    /// A stream failed. Said after the events of all its chunks.
    StreamFailed {
        /// The job.
        job: JobId,
        /// How.
        failure: Failure,
    },
    /// A stream has brought nothing at all for a few seconds. It is given up if
    /// another peer can be asked.
    Quiet {
        /// The job.
        job: JobId,
    },
    /// The answer to [`Action::CheckElisions`].
    ElisionsChecked {
        /// The feed.
        feed: FeedId,
        /// The size of the head that was checked.
        size: u64,
        /// Leaves held elided that nothing below the head makes dead.
        unjustified: Vec<Span>,
        /// Leaves held elided that are dead by retractions alone that are held for
        /// review. They are wanted, and nobody is blamed for them: what is held is
        /// each node's own to say.
        held: Vec<Span>,
    },
    /// Leaves below the head that was applied, held as records since this node had no
    /// room for them: there is room, and they are wanted. Nobody is to blame.
    LeftOut {
        /// The feed.
        feed: FeedId,
        /// The leaves.
        missing: Vec<Span>,
    },
    /// Evidence of a fork was accepted from elsewhere: the feed freezes.
    ForkFound {
        /// The feed.
        feed: FeedId,
    },
    /// The roster allows feeds to grow by so many publish leaves in an hour; `None`
    /// where it does not say. The lower of this and the settings counts.
    GrowthLimit {
        /// By the roster in force.
        per_hour: Option<u64>,
    },
    /// What may not be pulled changed. Replaces what was said before.
    AccessChanged(Denied),
    /// Time passed: said at the latest [`Action::Wake`].
    Tick,
}

/// What the driver is to do. Every chunk named by [`Event::ChunkVerified`] is
/// named by exactly one of `Store`, `Refill`, `Drop` and `Fork`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Call `Pull` at a peer and verify what comes against the head.
    StartPull {
        /// The name of the job.
        job: JobId,
        /// The peer to ask.
        peer: PeerId,
        /// The feed.
        feed: FeedId,
        /// The head that all proofs lead to.
        head: Head,
        /// The leaves wanted.
        span: Span,
        /// Dead leaves may come as records.
        elide: bool,
    },
    /// Drop the stream of a job and what was read of it. No event of the job
    /// needs to follow.
    CancelPull {
        /// The job.
        job: JobId,
    },
    /// Append a chunk at the cursor. Chunks of a feed are named in order.
    Store {
        /// The feed.
        feed: FeedId,
        /// The chunk.
        chunk: ChunkId,
        /// Its leaves.
        span: Span,
        /// How many of its publish leaves, from the end, are more than the feed
        /// may grow by: they are stored and quarantined.
        over_growth: u64,
        /// The feed's growth with this chunk, to be stored with it.
        growth: Growth,
    },
    /// Put the payloads of a chunk where the store holds elided leaves, and say
    /// [`Event::Refilled`].
    Refill {
        /// The feed.
        feed: FeedId,
        /// The chunk.
        chunk: ChunkId,
        /// Its leaves, all below the cursor.
        span: Span,
        /// The feed's growth before it.
        growth: Growth,
        /// What the feed may grow by. Publish leaves that are put back and
        /// [count](Growth::counts) are stored and quarantined above it.
        limit: GrowthLimit,
    },
    /// Forget a chunk.
    Drop {
        /// The chunk.
        chunk: ChunkId,
    },
    /// Find which leaves below the head are held elided without reason, and say
    /// [`Event::ElisionsChecked`].
    CheckElisions {
        /// The feed.
        feed: FeedId,
        /// The head.
        head: Head,
    },
    /// Everything below the head is stored: it takes effect. Said again when
    /// missing leaves have come.
    HeadApplied {
        /// The feed.
        feed: FeedId,
        /// The head.
        head: Head,
        /// Leaves elided without reason that nobody within reach has: not to be
        /// enforced, and no receipt while there are any. They are pulled as soon
        /// as somebody has them.
        missing: Vec<Span>,
    },
    /// Compare a verified head at or below the cursor with the root that the tree
    /// held has at that size. If they differ, write the evidence and say
    /// [`Event::ForkFound`].
    CompareHead {
        /// The feed.
        feed: FeedId,
        /// The head.
        head: Head,
    },
    /// Count and log what a peer sent that was refused.
    Reject {
        /// The peer.
        peer: PeerId,
        /// The feed, where it is known.
        feed: Option<FeedId>,
        /// Why.
        rejection: Rejection,
    },
    /// The publisher signed two heads that cannot both be true; the feed is
    /// frozen as it is held. The driver writes the evidence.
    Fork {
        /// The feed.
        feed: FeedId,
        /// The newest head that what is held was verified against.
        held: Option<Head>,
        /// The head that does not agree with it.
        offered: Head,
        /// The chunk that proves it against `offered`, which is the driver's from
        /// here. It starts at the cursor; where `held` is not of that size, the
        /// portable evidence needs a proof-only pull from `held`'s size.
        chunk: Option<ChunkId>,
        /// The reason code.
        rejection: Rejection,
    },
    /// A feed grows beyond the hard cap and is not pulled for a while.
    Throttled {
        /// The feed.
        feed: FeedId,
        /// Until when.
        until: UnixMillis,
        /// The reason code.
        rejection: Rejection,
    },
    /// Ask a peer for all its heads: it has said nothing for long.
    Ask {
        /// The peer.
        peer: PeerId,
    },
    /// Say [`Event::Tick`] at this time. Replaces the wake said before.
    Wake {
        /// When.
        at: UnixMillis,
    },
}
