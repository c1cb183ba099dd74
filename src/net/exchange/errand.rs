//! What the driver wants done elsewhere: all that takes long, or needs a connection.
//!
//! The driver only decides. Whoever runs it carries its errands out, in order, and
//! tells it what came of them: [`Hands`](super::hands::Hands) over real connections,
//! the simulation over those that it makes up.

use hashpact_core::id::{FeedId, MemberNumber};
use hashpact_core::puller::{JobId, PeerId};

use super::{fork, pipeline, storing};
use crate::types::PullRequest;

/// One thing to do.
#[derive(Debug)]
pub(crate) enum Errand {
    /// Pull leaves from a peer and verify them.
    Pull {
        peer: PeerId,
        order: pipeline::Order,
    },
    /// Break a pull off.
    CancelPull { job: JobId },
    /// Give the desk of a feed an order.
    Desk {
        feed: FeedId,
        publisher: MemberNumber,
        /// This node's own feed, which comes back.
        own: bool,
        order: storing::Order,
    },
    /// Ask a peer for the roster from a version on.
    AskRoster { peer: PeerId, from: u64 },
    /// Seek the proof of a fork.
    Prove(Box<fork::Case>),
    /// Ask a peer for a proof without leaves, for the witness.
    Extend {
        job: JobId,
        peer: PeerId,
        request: PullRequest,
    },
    /// Take own feeds to the epochs that the roster has opened.
    OpenOwnEpochs,
    /// Look again at what waits for a conflict of digests.
    RecheckConflicts,
    /// End the connection to a peer, so that its watch is begun anew.
    Cut { peer: PeerId },
}
