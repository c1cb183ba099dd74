//! One pull: from the peer's stream to verified chunks.
//!
//! Receiving, verifying and storing overlap: a stream is read by its own task,
//! chunks are verified on [bulk](Bulk) threads (as many at once as there are cores, at
//! most two per pull), and go to the driver in order. What waits is bounded: two
//! chunks per pull here, the stream's window before, the puller's window after.

use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use hashpact_core::checkpoint;
use hashpact_core::chunk::{self, PinnedHead, VerifiedChunk};
use hashpact_core::id::{CoalitionName, Digest, FeedId, MemberNumber, Slug};
use hashpact_core::leaf::{self, DESCRIBE, Describe, Leaf, RawLeaf};
use hashpact_core::puller::{ChunkFacts, Head, JobId, Span};
use hashpact_core::reject::Rejection;
use hashpact_node::Node;
use hashpact_priority::let_others;
use tokio::sync::mpsc;

use super::bulk::{Bulk, Size};
use super::bundle::Source;
use super::busy::busy;
use super::inside::{Done, Inside};
use crate::error::NetError;
use crate::types::{PullPart, PullRequest};

/// Chunks of one pull that are verified at once.
const VERIFYING_PER_PULL: usize = 2;

/// A chunk that was verified, with what a proof of a fork needs of it.
#[derive(Debug)]
pub(crate) struct Pulled {
    pub(crate) chunk: VerifiedChunk,
    pub(crate) facts: ChunkFacts,
    /// The compact range from the chunk's end to the head, as it came.
    pub(crate) after: Vec<Digest>,
}

/// What one pull is for.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) job: JobId,
    pub(crate) publisher: MemberNumber,
    pub(crate) head: Head,
    pub(crate) span: Span,
    pub(crate) elide: bool,
}

impl Order {
    /// The call that is made for it.
    pub(crate) const fn request(&self) -> PullRequest {
        PullRequest {
            feed: self.head.feed(),
            from: self.span.from,
            to: self.span.to,
            head_size: self.head.size(),
            head_root: self.head.root(),
            proof_only: false,
            elide_dead: self.elide,
        }
    }
}

/// Carries one pull out, and tells the driver of every chunk and of the end.
pub(crate) async fn pull(
    node: Arc<Node>,
    source: Source,
    order: Order,
    bulk: Arc<Bulk>,
    driver: mpsc::Sender<Inside>,
) {
    let job = order.job;
    let end = match run(node, source, order, bulk, &driver).await {
        Ok(()) => Done::PullEnded { job },
        Err(NetError::Rejected(rejection)) => Done::PullRejected { job, rejection },
        Err(error) => Done::PullFailed { job, error },
    };
    // Without a driver the exchange has stopped.
    let _ = driver.send(Inside::Done(end)).await;
}

async fn run(
    node: Arc<Node>,
    source: Source,
    order: Order,
    bulk: Arc<Bulk>,
    driver: &mpsc::Sender<Inside>,
) -> Result<(), NetError> {
    let request = order.request();
    let job = order.job;
    let turn = source.turn().await;
    let parts = source.pull(&request).await?;
    let mut chunks = Box::pin(verified(node, parts, Arc::new(order), bulk));
    while let Some(pulled) = chunks.next().await {
        let pulled = Box::new(pulled?);
        let pulled = Inside::Done(Done::Pulled { job, pulled });
        if driver.send(pulled).await.is_err() {
            return Ok(());
        }
    }
    drop(turn);
    Ok(())
}

/// Verifies what comes, several chunks at once, and yields them in order.
fn verified(
    node: Arc<Node>,
    parts: impl Stream<Item = Result<PullPart, NetError>> + Send,
    order: Arc<Order>,
    bulk: Arc<Bulk>,
) -> impl Stream<Item = Result<Pulled, NetError>> + Send {
    parts
        .map(move |part| {
            let (node, order) = (Arc::clone(&node), Arc::clone(&order));
            let bulk = Arc::clone(&bulk);
            async move {
                let part = part?;
                let stopping = |_| NetError::Closed("stopping".to_owned());
                let size = match &part {
                    PullPart::Chunk(chunk) => Size::of(chunk.to.saturating_sub(chunk.from)),
                    PullPart::Proof(_) => Size::Small,
                };
                let permit = Arc::clone(bulk.verifiers(size))
                    .acquire_owned()
                    .await
                    .map_err(stopping)?;
                let verified = bulk.run(size, move || {
                    let verified = busy("verify", || verify(&node, part, &order));
                    drop(permit);
                    verified
                });
                let lost = |_| NetError::Closed("a verifier was lost".to_owned());
                Ok(verified.await.map_err(lost)??)
            }
        })
        .buffered(VERIFYING_PER_PULL)
}

/// All checks of one chunk. Blocking.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn verify(node: &Node, part: PullPart, order: &Order) -> Result<Pulled, Rejection> {
    let mut parts = match part {
        PullPart::Chunk(parts) => parts,
        PullPart::Proof(_) => {
            return Err(Rejection::invalid("pull", "a proof where leaves are due"));
        }
    };
    let head = PinnedHead {
        size: order.head.size(),
        root: order.head.root(),
    };
    let checked = chunk::verify_by_pages(&parts, &head, let_others);
    if checked.is_err() {
        metrics::counter!("hashpact_verify_failures_total").increment(1);
    }
    let chunk = checked?;
    let facts = ChunkFacts::of(&chunk)?;
    if chunk.from == 0 {
        check_first(node, &chunk, order)?;
    }
    metrics::counter!("hashpact_pulled_leaves_total")
        .increment(chunk.to.saturating_sub(chunk.from));
    Ok(Pulled {
        chunk,
        facts,
        after: std::mem::take(&mut parts.after),
    })
}

/// PROTOCOL 2.6: the feed id is a digest over publisher and first payload. The leaf
/// names the set, too, and with it which keys may sign its heads.
fn check_first(node: &Node, chunk: &VerifiedChunk, order: &Order) -> Result<(), Rejection> {
    let feed = order.head.feed();
    let wrong = || Rejection::WrongFirstLeaf { feed };
    let (_, first) = chunk.leaves().next().ok_or_else(wrong)?;
    let payload = first.payload().ok_or_else(wrong)?;
    let describe = read_describe(first, 0).ok_or_else(wrong)?;
    let member = node
        .membership()
        .member(order.publisher)
        .ok_or_else(wrong)?;
    // A feed that was begun before the coalition was anchored anew stays what it is.
    let geneses = node.membership().geneses();
    let begun_under = |genesis: &&Digest| FeedId::derive(genesis, &member.slug, payload) == feed;
    let genesis = geneses.iter().find(begun_under).ok_or_else(wrong)?;
    describe.check_belongs(genesis, &member.slug)?;
    verify_head(
        node,
        order.publisher,
        Some(&describe.name.set),
        feed,
        order.head.note(),
    )?;
    Ok(())
}

/// What is not known where a publisher has no key that may sign.
pub(crate) const NO_FEED_KEY: &str = "feed key";

/// Verifies a head's note with the keys that its set has.
///
/// # Errors
/// As [`checkpoint::verify`]; [`Rejection::Unknown`] without a roster.
pub(crate) fn verify_head(
    node: &Node,
    publisher: MemberNumber,
    set: Option<&Slug>,
    feed: FeedId,
    note: &[u8],
) -> Result<hashpact_core::verified::Verified<checkpoint::SignedCheckpoint>, Rejection> {
    let membership = node.membership();
    let asked = std::cell::Cell::new((0, 0));
    let keys = |epoch| {
        let keys = membership.feed_keys(publisher, set, feed, epoch);
        asked.set((epoch, keys.len()));
        keys
    };
    let verified = checkpoint::verify(note, &coalition(node)?, &feed, keys);
    let open = membership.epoch(feed);
    let verified = verified.map_err(|rejection| match (rejection, asked.get()) {
        // Nobody's fault: one of the two has an older roster, or an older card.
        (Rejection::BadSignature { .. }, (got, _)) if got != open => {
            Rejection::WrongEpoch { open, got }
        }
        (Rejection::BadSignature { .. }, (_, 0))
            if membership.feed_keys(publisher, None, feed, open).is_empty() =>
        {
            Rejection::Unknown {
                what: NO_FEED_KEY,
                why: "no card held here has one that may sign for the feed".to_owned(),
            }
        }
        (rejection, _) => rejection,
    })?;
    let origin = &verified.checkpoint.origin;
    membership.check_epoch_head(feed, origin.epoch, (verified.size(), verified.root()))?;
    Ok(verified)
}

/// The coalition's name.
pub(crate) fn coalition(node: &Node) -> Result<CoalitionName, Rejection> {
    node.membership()
        .coalition()
        .map_err(|_| Rejection::Unknown {
            what: "coalition",
            why: "this node has no roster yet".to_owned(),
        })
}

/// Reads a describe leaf; `None` for one that is void, or another leaf.
pub(crate) fn read_describe(leaf: &RawLeaf, index: u64) -> Option<Describe> {
    match leaf::read(leaf, index) {
        Leaf::Describe(describe) => Some(*describe),
        Leaf::Publish(_)
        | Leaf::Retract(_)
        | Leaf::Opinion(_)
        | Leaf::Erase(_)
        | Leaf::Unknown(_)
        | Leaf::Void(_)
        | Leaf::Elided => None,
    }
}

/// The describe leaf in force of a feed that is held.
pub(crate) fn describe_of(feed: &hashpact_store::FeedInfo) -> Option<Describe> {
    let (index, payload) = feed.describe.clone()?;
    read_describe(&RawLeaf::new(DESCRIBE, payload), index)
}
