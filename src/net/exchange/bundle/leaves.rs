//! The chunks of one feed in a bundle, as a peer that serves them.
//!
//! The puller asks for spans as it asks anybody, the pipeline verifies what comes as it
//! verifies what anybody sends. A chunk that begins before the span, or ends after it, is
//! cut, which verifies it once more.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use hashpact_core::chunk::{self, PinnedHead};
use hashpact_core::id::FeedId;
use hashpact_core::reject::Rejection;
use hashpact_node::NodeError;
use hashpact_node::bundle::BundleFile;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use super::read::{self, ChunkAt, FeedAt};
use crate::client::Peer;
use crate::error::{NetError, PeerRefusal};
use crate::types::{Incoming, PullPart, PullRequest};

/// Whom leaves are asked from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A peer, over a connection.
    Peer(Box<Peer>),
    /// A file.
    Bundle(Arc<Leaves>),
}

impl Source {
    /// Asks for leaves, or for a proof.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) async fn pull(&self, request: &PullRequest) -> Result<Incoming<PullPart>, NetError> {
        match self {
            Self::Peer(peer) => peer.pull(request).await,
            Self::Bundle(leaves) => leaves.pull(request).await,
        }
    }

    /// Waits until it is this pull's turn, and until it is dropped it is nobody else's: of
    /// a file all that is good before a damage is verified and handed on first.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        match self {
            Self::Peer(_) => None,
            Self::Bundle(leaves) => Arc::clone(&leaves.turn).acquire_owned().await.ok(),
        }
    }
}

/// The leaves of one feed in a file.
pub(crate) struct Leaves {
    file: Arc<dyn BundleFile>,
    feed: FeedId,
    head: PinnedHead,
    at: FeedAt,
    turn: Arc<Semaphore>,
}

impl std::fmt::Debug for Leaves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Leaves").field(&self.feed).finish()
    }
}

impl Leaves {
    pub(crate) fn new(
        file: Arc<dyn BundleFile>,
        feed: FeedId,
        head: PinnedHead,
        at: FeedAt,
    ) -> Arc<Self> {
        Arc::new(Self {
            file,
            feed,
            head,
            at,
            turn: Arc::new(Semaphore::new(1)),
        })
    }

    async fn pull(self: &Arc<Self>, request: &PullRequest) -> Result<Incoming<PullPart>, NetError> {
        let asked = (request.feed, request.head_size, request.head_root);
        if asked != (self.feed, self.head.size, self.head.root) {
            // As a peer that has another head: nobody's lie.
            return Err(PeerRefusal {
                code: "not_found".to_owned(),
                message: "the bundle proves another head".to_owned(),
                retry_after: None,
            }
            .into());
        }
        if request.proof_only {
            let proof = self.proof(request.from, request.to).await?;
            return Ok(Box::pin(stream::iter([Ok(proof)])));
        }
        let (leaves, to) = (Arc::clone(self), request.to);
        let parts = stream::unfold(Some(request.from), move |at| {
            let leaves = Arc::clone(&leaves);
            async move {
                let at = at.filter(|at| *at < to)?;
                Some(match leaves.part(at, to).await {
                    Ok((part, next)) => (Ok(part), Some(next)),
                    Err(error) => (Err(error), None),
                })
            }
        });
        Ok(parts.boxed())
    }

    /// The chunk at a leaf, or as much of it as was asked for.
    async fn part(&self, at: u64, to: u64) -> Result<(PullPart, u64), NetError> {
        let place = self.place(at, |chunk| chunk.to <= at)?;
        let chunk = read::chunk(&self.file, place).await.map_err(of_file)?;
        let to = to.min(chunk.to);
        if (chunk.from, chunk.to) == (at, to) {
            return Ok((PullPart::Chunk(chunk), to));
        }
        let head = self.head;
        let part = spawn_blocking(move || chunk::cut(&chunk, &head, at, to));
        let part = part.await.map_err(|_| stopping())??;
        Ok((PullPart::Chunk(part), to))
    }

    async fn proof(&self, at: u64, to: u64) -> Result<PullPart, NetError> {
        if to != self.head.size {
            return Err(Rejection::NotFound.into());
        }
        let place = self.place(at, |chunk| chunk.to < at)?;
        let chunk = read::chunk(&self.file, place).await.map_err(of_file)?;
        let head = self.head;
        let proof = spawn_blocking(move || chunk::prove_at(&chunk, &head, at));
        let proof = proof.await.map_err(|_| stopping())??;
        Ok(PullPart::Proof(proof))
    }

    /// The chunk that has a leaf: the first that does not end `before` it.
    fn place(&self, at: u64, before: impl Fn(&ChunkAt) -> bool) -> Result<&ChunkAt, Rejection> {
        let chunks = &self.at.chunks;
        if chunks.first().is_some_and(|first| at < first.from) {
            return Err(Rejection::NotFound); // the bundle begins later
        }
        let found = chunks.get(chunks.partition_point(before));
        found.ok_or_else(|| {
            self.at.broken.clone().unwrap_or(Rejection::Truncated {
                at,
                of: self.head.size,
            })
        })
    }
}

/// What a file brings that does not fit is its fault; a file that cannot be read any more
/// is like a connection that broke.
fn of_file(error: NodeError) -> NetError {
    if let NodeError::Rejected(rejection) = error {
        return rejection.into();
    }
    NetError::Closed(error.to_string())
}

fn stopping() -> NetError {
    NetError::Closed("stopping".to_owned())
}
