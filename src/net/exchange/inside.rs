//! What the driver's own tasks tell it: links, pulls, stored chunks, heads.

use hashpact_core::chunk::ProofParts;
use hashpact_core::id::FeedId;
use hashpact_core::puller::{ChunkId, Head, JobId, PeerId, Span};
use hashpact_core::reject::Rejection;

use super::bundle::Told;
use super::pipeline::Pulled;
use crate::client::Peer;
use crate::error::NetError;
use crate::peer::PeerIdentity;

/// What comes in from tasks: links, and what became of errands.
#[derive(Debug)]
pub(crate) enum Inside {
    /// A connection to call a peer on stands, and its watch begins.
    LinkUp { peer: Box<Peer> },
    /// It is gone.
    LinkDown { peer: PeerIdentity, connection: u64 },
    /// Whoever takes a bundle in says what is next.
    Bundle(Told),
    /// Something that was ordered was done, or failed.
    Done(Done),
}

/// What became of an errand.
#[derive(Debug)]
pub(crate) enum Done {
    /// A pull brought a chunk, which was verified.
    Pulled { job: JobId, pulled: Box<Pulled> },
    /// A pull's stream ended well.
    PullEnded { job: JobId },
    /// What a pull brought was refused.
    PullRejected { job: JobId, rejection: Rejection },
    /// A pull's stream failed.
    PullFailed { job: JobId, error: NetError },
    /// A chunk is stored, and all before it.
    Stored { feed: FeedId, chunk: ChunkId },
    /// The payloads of a chunk are back in their places; so many count as growth.
    Refilled {
        feed: FeedId,
        chunk: ChunkId,
        counted: u64,
    },
    /// The leaves below a head were looked through that are held as records alone.
    ElisionsChecked {
        feed: FeedId,
        size: u64,
        unjustified: Vec<Span>,
        held: Vec<Span>,
    },
    /// A desk gave up.
    StoreFailed { feed: FeedId },
    /// A head took effect.
    Applied { feed: FeedId, head: Head },
    /// A verified head that the tree held does not lead to.
    Differs { head: Head },
    /// A feed stands in the epoch that the roster has opened, as far as it can.
    EpochOpened { feed: FeedId },
    /// A proof of a fork was stored.
    Proven { feed: FeedId },
    /// What a peer answered to a request for a proof; `None` for nothing.
    Extended {
        job: JobId,
        answer: Option<ProofParts>,
    },
    /// A proof of a fork was sought, whether one was found or not.
    Sought { feed: FeedId },
    /// A feed and all that was derived from it are gone.
    Dropped { feed: FeedId },
    /// A desk has done all that was ordered before it was asked to say so.
    Flushed { peer: PeerId },
}
