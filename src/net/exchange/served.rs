//! One pull, as it is served: chunk after chunk, each under access decided anew.
//!
//! Access is decided when the call starts, before each chunk is read, and again
//! when it leaves: what was read ahead does not outlast a grant. What is unknown,
//! not granted, of another root or beyond the applied head is one and the same
//! [`Rejection::NotFound`].
//!
//! The database is read on blocking threads, a few at a time over all pulls, and a
//! little ahead of the connection, so that TLS does not wait for disk.

use std::sync::{Arc, OnceLock};

use futures_util::{StreamExt as _, future, stream};
use hashpact_core::chunk::{ChunkParts, ProofParts};
use hashpact_core::id::MemberNumber;
use hashpact_core::limits::{CHUNK_MAX_LEAVES, CHUNK_TARGET_BYTES};
use hashpact_core::liveness::Liveness;
use hashpact_core::reject::Rejection;
use hashpact_node::Node;
use hashpact_store::StoreError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::bulk::{Bulk, Size};
use super::directory::Snapshots;
use super::reach::Reach;
use crate::service::ServiceError;
use crate::types::{Answers, PullPart, PullRequest};

/// Chunks that wait, read, for the connection: 1 MiB each, and one more in the
/// making.
const READ_AHEAD: usize = 2;

/// Who is given leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A member, as its grants say.
    Member(MemberNumber),
    /// An authority that is no member, by a bundle.
    Authority,
}

/// What all pulls of a node share.
#[derive(Clone)]
pub(crate) struct Pulls {
    node: Arc<Node>,
    snapshots: Arc<Snapshots>,
    bulk: Arc<Bulk>,
}

impl Pulls {
    pub(crate) fn new(node: Arc<Node>, snapshots: Arc<Snapshots>, bulk: Arc<Bulk>) -> Self {
        Self {
            node,
            snapshots,
            bulk,
        }
    }

    /// Answers one pull.
    pub(crate) async fn serve(
        &self,
        caller: MemberNumber,
        request: PullRequest,
    ) -> Result<Answers<PullPart>, ServiceError> {
        self.serve_to(Reader::Member(caller), request).await
    }

    /// The same, also to who is no member.
    pub(crate) async fn serve_to(
        &self,
        reader: Reader,
        request: PullRequest,
    ) -> Result<Answers<PullPart>, ServiceError> {
        let (node, snapshots) = (Arc::clone(&self.node), Arc::clone(&self.snapshots));
        let begin = move || Pull::begin(node, snapshots, reader, request);
        let pull = Arc::new(self.reading(Size::Small, begin).await?);
        metrics::counter!("hashpact_pulls_served_total").increment(1);
        if request.proof_only {
            let proof = self.reading(Size::Small, move || pull.proof()).await?;
            let part = PullPart::Proof(proof);
            return Ok(Box::pin(stream::once(future::ready(Ok(part)))));
        }
        let (sender, chunks) = mpsc::channel(READ_AHEAD);
        tokio::spawn(read_ahead(self.clone(), Arc::clone(&pull), sender));
        let leaving = move |chunk: Result<ChunkParts, ServiceError>| {
            let chunk = chunk?;
            pull.reach()?;
            count(&chunk);
            Ok(PullPart::Chunk(chunk))
        };
        Ok(Box::pin(ReceiverStream::new(chunks).map(leaving)))
    }

    /// Runs what reads the database on a bulk thread, in turn.
    async fn reading<T: Send + 'static>(
        &self,
        size: Size,
        read: impl FnOnce() -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let turn = Arc::clone(self.bulk.readers(size)).acquire_owned().await;
        let turn = turn.map_err(|_| ServiceError::Unavailable)?;
        let read = self.bulk.run(size, move || {
            let read = read();
            drop(turn);
            read
        });
        read.await.unwrap_or(Err(ServiceError::Internal))
    }
}

async fn read_ahead(
    pulls: Pulls,
    pull: Arc<Pull>,
    chunks: mpsc::Sender<Result<ChunkParts, ServiceError>>,
) {
    let mut from = pull.request.from;
    while from < pull.request.to {
        // Nothing is read for a connection that has enough, or that is gone.
        let Ok(room) = chunks.reserve().await else {
            return;
        };
        let reader = Arc::clone(&pull);
        let size = Size::of(pull.request.to.saturating_sub(from));
        let chunk = pulls.reading(size, move || reader.chunk(from)).await;
        let next = chunk.as_ref().ok().map(|chunk| chunk.to);
        room.send(chunk);
        match next {
            Some(to) if to > from => from = to,
            Some(_) | None => return,
        }
    }
}

/// One pull, from the caller's request to its last chunk. Each answer is decided and
/// read anew; nothing waits. Blocking.
pub(crate) struct Pull {
    node: Arc<Node>,
    snapshots: Arc<Snapshots>,
    reader: Reader,
    request: PullRequest,
    /// What is dead at the head asked for, once it matters.
    at_head: OnceLock<Liveness>,
}

impl Pull {
    /// Begins: the caller may have what it asks for, and the leaves held lead to its
    /// head.
    ///
    /// # Errors
    /// [`Rejection::NotFound`] for all that it may not have.
    pub(crate) fn begin(
        node: Arc<Node>,
        snapshots: Arc<Snapshots>,
        reader: Reader,
        request: PullRequest,
    ) -> Result<Self, ServiceError> {
        let pull = Self {
            node,
            snapshots,
            reader,
            request,
            at_head: OnceLock::new(),
        };
        pull.check_head()?;
        Ok(pull)
    }

    /// Decides whether the caller may have what it asks for, from memory alone, and
    /// that this node has applied that much.
    fn reach(&self) -> Result<Reach, ServiceError> {
        let snapshot = self.snapshots.newest().ok_or(ServiceError::Unavailable)?;
        let request = &self.request;
        let reach = Reach::of(self.node.store(), snapshot, &request.feed)?;
        // Relaying governs leaves only.
        match self.reader {
            Reader::Member(caller) if request.proof_only => reach.may_prove(caller)?,
            Reader::Member(caller) => reach.may_serve(caller)?,
            Reader::Authority => reach.may_hand_over()?,
        }
        if let Reader::Member(caller) = self.reader
            && !request.proof_only
            && !reach.feed.own
            && caller != reach.feed.publisher
            && self.is_stale(&reach)?
        {
            return Err(Rejection::NotFound.into());
        }
        let applied = reach.feed.applied.map_or(0, |head| head.size);
        let within = request.from <= request.to
            && request.to <= request.head_size
            && request.head_size <= applied;
        if within {
            Ok(reach)
        } else {
            Err(Rejection::NotFound.into())
        }
    }

    /// PROTOCOL 15.6a: a relay serves no leaves under a head that no witness has cosigned
    /// for half an hour.
    fn is_stale(&self, reach: &Reach) -> Result<bool, ServiceError> {
        self.node.is_stale(&reach.feed).map_err(|error| {
            tracing::error!(%error, code = error.code(), "judging a feed");
            ServiceError::Internal
        })
    }

    /// The head asked for is one that the leaves held lead to.
    fn check_head(&self) -> Result<(), ServiceError> {
        let reach = self.reach()?;
        let root = self
            .node
            .store()
            .root_at(reach.feed.no, self.request.head_size);
        if root.map_err(of_store)? == self.request.head_root {
            Ok(())
        } else {
            Err(Rejection::NotFound.into())
        }
    }

    /// The proof without leaves.
    ///
    /// # Errors
    /// As [`Pull::begin`].
    pub(crate) fn proof(&self) -> Result<ProofParts, ServiceError> {
        let reach = self.reach()?;
        let PullRequest {
            from,
            to,
            head_size,
            ..
        } = self.request;
        let range = |begin, end| {
            let range = self.node.store().range(reach.feed.no, begin, end);
            range.map(|range| range.hashes().to_vec()).map_err(of_store)
        };
        Ok(ProofParts {
            from,
            to,
            before: range(0, from)?,
            range: range(from, to)?,
            after: range(to, head_size)?,
        })
    }

    /// The chunk that begins at a leaf.
    ///
    /// # Errors
    /// As [`Pull::begin`].
    pub(crate) fn chunk(&self, from: u64) -> Result<ChunkParts, ServiceError> {
        let reach = self.reach()?;
        let request = &self.request;
        let store = self.node.store();
        let (no, most) = (reach.feed.no, from.saturating_add(CHUNK_MAX_LEAVES));
        // Before and after: leaves are dropped and refilled meanwhile.
        let mut elided = store.elided_within(no, from, most).map_err(of_store)?;
        let chunk = store
            .chunk_with(
                reach.feed.no,
                from,
                request.to,
                request.head_size,
                CHUNK_TARGET_BYTES,
                request.elide_dead,
            )
            .map_err(of_store)?;
        elided.retain(|index| *index < chunk.to);
        elided.extend(store.elided_within(no, from, chunk.to).map_err(of_store)?);
        // What is held without its payload is served only where leaves below the head
        // asked for justify it: a puller would blame this node.
        if elided.is_empty() || self.justified(&reach, &elided)? {
            Ok(chunk)
        } else {
            Err(Rejection::NotFound.into())
        }
    }

    /// Whether leaves below the head asked for, and no later ones, killed all of
    /// these. Computed once in a pull: publishing goes on meanwhile.
    fn justified(&self, reach: &Reach, elided: &[u64]) -> Result<bool, ServiceError> {
        let head_size = self.request.head_size;
        let at_head = if let Some(at_head) = self.at_head.get() {
            at_head
        } else {
            let at_head = self.node.store().liveness_at(reach.feed.no, head_size);
            let at_head = at_head.map_err(of_store)?;
            self.at_head.get_or_init(|| at_head)
        };
        let mut elided = elided.iter();
        Ok(elided.all(|index| at_head.may_elide(*index, head_size)))
    }
}

fn count(chunk: &ChunkParts) {
    let pages: usize = chunk.pages.iter().map(bytes::Bytes::len).sum();
    let bytes = pages + chunk.leading.len() + chunk.trailing.len();
    let leaves = chunk.to.saturating_sub(chunk.from);
    metrics::counter!("hashpact_served_chunks_total").increment(1);
    metrics::counter!("hashpact_served_leaves_total").increment(leaves);
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    metrics::counter!("hashpact_served_bytes_total").increment(bytes);
}

/// What the store answers: a feed that went or shrank meanwhile is not there; the
/// rest is our own fault.
#[expect(
    clippy::needless_pass_by_value,
    reason = "an error is mapped by what it was"
)]
fn of_store(error: StoreError) -> ServiceError {
    if matches!(
        error,
        StoreError::UnknownFeed(_) | StoreError::OutOfRange { .. }
    ) {
        return Rejection::NotFound.into();
    }
    tracing::error!(%error, code = error.code(), "serving a pull");
    ServiceError::Internal
}
