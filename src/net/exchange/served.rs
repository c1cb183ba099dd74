//! One pull, as it is served: chunk after chunk, each under access decided anew.
//!
//! Access is decided when the call starts, before each chunk is read, and again
//! when it leaves: what was read ahead does not outlast a grant. What is unknown,
//! not granted, of another root or beyond the applied head is one and the same
//! [`Rejection::NotFound`].
//!
//! The database is read on blocking threads, a few at a time over all pulls, and a
//! little ahead of the connection, so that TLS does not wait for disk.
//!
//! What is held as its record alone is served only where leaves below the head asked for
//! justify it: a puller would blame this node. Under older heads that takes long
//! ([`OlderHeads`]).

use std::sync::{Arc, OnceLock};

use futures_util::{StreamExt as _, future, stream};
use hashpact_core::chunk::{ChunkParts, ProofParts};
use hashpact_core::id::MemberNumber;
use hashpact_core::limits::{CHUNK_MAX_LEAVES, CHUNK_TARGET_BYTES};
use hashpact_core::liveness::Liveness;
use hashpact_core::reject::Rejection;
use hashpact_node::Node;
use hashpact_store::{FeedInfo, StoreError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::bulk::{Bulk, Size};
use super::directory::Snapshots;
use super::older::OlderHeads;
use super::reach::Reach;
use crate::service::ServiceError;
use crate::types::{Answers, PullPart, PullRequest};

/// Chunks that wait, read, for the connection: 1 MiB each, and one more in the
/// making.
const READ_AHEAD: usize = 2;

/// Who is given leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    pub(crate) older: Arc<OlderHeads>,
}

impl Pulls {
    pub(crate) fn new(node: Arc<Node>, snapshots: Arc<Snapshots>, bulk: Arc<Bulk>) -> Self {
        Self {
            node,
            snapshots,
            bulk,
            older: Arc::default(),
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

    /// The chunk that begins at a leaf.
    async fn chunk(
        &self,
        pull: &Arc<Pull>,
        from: u64,
        size: Size,
    ) -> Result<ChunkParts, ServiceError> {
        let reader = Arc::clone(pull);
        let (chunk, doubtful) = self.reading(size, move || reader.read(from)).await?;
        if let Some((feed, elided)) = doubtful {
            if pull.at_head.get().is_none() {
                let head = (pull.request.head_size, pull.request.head_root);
                let by = (&self.node, &*self.bulk);
                let at_head = self.older.at(by, pull.reader, &feed, head).await?;
                let _ = pull.at_head.set(at_head);
            }
            pull.justify(&elided)?;
        }
        Ok(chunk)
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
        let size = Size::of(pull.request.to.saturating_sub(from));
        let chunk = tokio::select! {
            chunk = pulls.chunk(&pull, from, size) => chunk,
            () = chunks.closed() => return,
        };
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
    /// What is dead at the head asked for, once it matters: publishing goes on meanwhile.
    at_head: OnceLock<Arc<Liveness>>,
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

    /// The chunk that begins at a leaf, for who may wait as long as it takes.
    ///
    /// # Errors
    /// As [`Pull::begin`].
    pub(crate) fn chunk(&self, from: u64) -> Result<ChunkParts, ServiceError> {
        let (chunk, doubtful) = self.read(from)?;
        if let Some((feed, elided)) = doubtful {
            if self.at_head.get().is_none() {
                let at_head = self
                    .node
                    .store()
                    .liveness_at(feed.no, self.request.head_size);
                let _ = self.at_head.set(Arc::new(at_head.map_err(of_store)?));
            }
            self.justify(&elided)?;
        }
        Ok(chunk)
    }

    /// The chunk that begins at a leaf; and where it has leaves as their records that the
    /// newest leaves do not justify at once, these and the feed.
    fn read(&self, from: u64) -> Result<(ChunkParts, Option<Doubtful>), ServiceError> {
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
        if elided.is_empty() {
            return Ok((chunk, None));
        }
        let dead = store.all_dead(no, request.head_size, &elided);
        match dead.map_err(of_store)? {
            Some(true) => Ok((chunk, None)),
            Some(false) => Err(Rejection::NotFound.into()),
            None => Ok((chunk, Some((reach.feed, elided)))),
        }
    }

    /// Leaves below the head asked for, and no later ones, killed all of these.
    fn justify(&self, elided: &[u64]) -> Result<(), ServiceError> {
        let at_head = self.at_head.get().ok_or(ServiceError::Internal)?;
        let size = self.request.head_size;
        if elided.iter().all(|index| at_head.may_elide(*index, size)) {
            Ok(())
        } else {
            Err(Rejection::NotFound.into())
        }
    }
}

/// A feed, and leaves of it that are held as their records.
type Doubtful = (FeedInfo, Vec<u64>);

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
pub(super) fn of_store(error: StoreError) -> ServiceError {
    if matches!(
        error,
        StoreError::UnknownFeed(_) | StoreError::OutOfRange { .. }
    ) {
        return Rejection::NotFound.into();
    }
    tracing::error!(%error, code = error.code(), "serving a pull");
    ServiceError::Internal
}
