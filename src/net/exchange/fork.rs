//! Evidence of forks: made from what is at hand, or with a proof that is pulled.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use hashpact_core::evidence::{Fork, ForkEvidence};
use hashpact_core::id::{Digest, FeedId, MemberNumber};
use hashpact_core::merkle::CompactRange;
use hashpact_core::puller::Head;
use hashpact_core::reject::Rejection;
use hashpact_core::verified::Verified;
use hashpact_node::{Node, NodeError};
use tokio::task::spawn_blocking;

use super::pipeline::{Pulled, coalition, describe_of};
use crate::client::Peer;
use crate::types::{PullPart, PullRequest};

/// Two heads of one feed that do not agree.
pub(crate) struct Case {
    pub(crate) feed: FeedId,
    pub(crate) publisher: MemberNumber,
    /// What is held was verified against this head; `None` for the applied one.
    pub(crate) held: Option<Head>,
    pub(crate) offered: Head,
    /// A chunk at the cursor, proved against `offered`.
    pub(crate) chunk: Option<Box<Pulled>>,
    /// Whom a proof can be asked from.
    pub(crate) links: Vec<Peer>,
}

/// The ranges of the larger tree that evidence consists of.
struct Ranges {
    before: Vec<Digest>,
    between: Vec<Digest>,
}

/// Makes evidence, checks it as anybody will, and stores it; answers whether there
/// is some.
pub(crate) async fn prove(node: &Arc<Node>, case: Case) -> bool {
    let Some((smaller, larger)) = notes(node, &case).await else {
        return false;
    };
    let found = match at_hand(node, &case, &smaller, &larger).await {
        Some(ranges) => Some(ranges),
        None => from_peers(&case, &smaller, &larger).await,
    };
    let Some(ranges) = found else {
        tracing::warn!(feed = %case.feed.0.short(), "nobody within reach proves the fork");
        return false;
    };
    let evidence = ForkEvidence {
        feed: case.feed,
        smaller: smaller.note,
        larger: larger.note,
        before: ranges.before,
        between: ranges.between,
        node_cards: cards(node, case.publisher),
    };
    let (node, publisher) = (Arc::clone(node), case.publisher);
    let stored = spawn_blocking(move || {
        check(&node, publisher, &evidence)?;
        Ok::<_, NodeError>(node.store().put_evidence(&evidence.encode())?)
    });
    match stored.await {
        Ok(Ok(new)) => new,
        Ok(Err(error)) => {
            tracing::warn!(feed = %case.feed.0.short(), %error, code = error.code(), "no evidence");
            false
        }
        Err(_) => false,
    }
}

/// Checks evidence with all keys that the publisher ever had.
///
/// # Errors
/// As [`ForkEvidence::verify`].
pub(crate) fn check(
    node: &Node,
    publisher: MemberNumber,
    evidence: &ForkEvidence,
) -> Result<Verified<Fork>, Rejection> {
    let state = node.membership().state();
    let unknown = || Rejection::Unknown {
        what: "feed",
        why: "evidence of a feed that this node does not know".to_owned(),
    };
    let chain = state.chain.as_ref().ok_or_else(unknown)?;
    let roster = chain.roster();
    let store = node.store();
    let held = store
        .feed_no(&evidence.feed)
        .and_then(|no| store.feed(no).ok());
    let set = held
        .as_ref()
        .and_then(describe_of)
        .map(|describe| describe.name.set);
    let keys = |epoch| match &set {
        Some(set) => state
            .cards
            .feed_keys(publisher, set, evidence.feed, epoch, roster),
        None => node
            .membership()
            .feed_keys(publisher, None, evidence.feed, epoch),
    };
    let closed_at = |epoch: u32| {
        let mut closed = roster.revocations_of(evidence.feed);
        let closing = closed.find(|closing| closing.next_epoch.checked_sub(1) == Some(epoch));
        closing.map(|closing| closing.last_good_size)
    };
    evidence.verify(&coalition(node)?, keys, closed_at)
}

#[derive(Clone)]
struct Noted {
    size: u64,
    root: Digest,
    note: Bytes,
}

impl From<&Head> for Noted {
    fn from(head: &Head) -> Self {
        Self {
            size: head.size(),
            root: head.root(),
            note: head.note().clone(),
        }
    }
}

/// Both notes, the smaller one first; of one size, the held one is last: its tree is
/// the one at hand.
async fn notes(node: &Arc<Node>, case: &Case) -> Option<(Noted, Noted)> {
    let held = match &case.held {
        Some(head) => Noted::from(head),
        None => applied(node, case.feed).await?,
    };
    let offered = Noted::from(&case.offered);
    Some(if held.size < offered.size {
        (held, offered)
    } else {
        (offered, held)
    })
}

async fn applied(node: &Arc<Node>, feed: FeedId) -> Option<Noted> {
    let node = Arc::clone(node);
    let read = spawn_blocking(move || {
        let store = node.store();
        let head = store.applied_head(store.feed_no(&feed)?).ok()??;
        Some(Noted {
            size: head.at().size,
            root: head.at().root,
            note: head.note().clone(),
        })
    });
    read.await.ok()?
}

/// The ranges as the chunk has them, or, where the larger tree is the one that is
/// held, as the store has.
async fn at_hand(node: &Arc<Node>, case: &Case, smaller: &Noted, larger: &Noted) -> Option<Ranges> {
    if let Some(pulled) = &case.chunk
        && pulled.chunk.from == smaller.size
        && larger.root == case.offered.root()
    {
        let mut between = pulled.chunk.range.clone();
        let after = CompactRange::from_hashes(pulled.chunk.to, larger.size, pulled.after.clone());
        between.merge(&after.ok()?).ok()?;
        return Some(Ranges {
            before: pulled.chunk.before.hashes().to_vec(),
            between: between.hashes().to_vec(),
        });
    }
    let (node, feed) = (Arc::clone(node), case.feed);
    let (m, n, root) = (smaller.size, larger.size, larger.root);
    let read = spawn_blocking(move || {
        let store = node.store();
        let no = store.feed_no(&feed)?;
        if store.root_at(no, n).ok()? != root {
            return None;
        }
        Some(Ranges {
            before: store.frontier(no, m).ok()?.hashes().to_vec(),
            between: store.range(no, m, n).ok()?.hashes().to_vec(),
        })
    });
    read.await.ok()?
}

/// Asks one peer after the other for the proof without leaves.
async fn from_peers(case: &Case, smaller: &Noted, larger: &Noted) -> Option<Ranges> {
    let request = PullRequest {
        feed: case.feed,
        from: smaller.size,
        to: larger.size,
        head_size: larger.size,
        head_root: larger.root,
        proof_only: true,
        elide_dead: false,
    };
    for link in &case.links {
        let Ok(mut parts) = link.pull(&request).await else {
            continue;
        };
        if let Some(Ok(PullPart::Proof(proof))) = parts.next().await {
            let mut between = CompactRange::from_hashes(proof.from, proof.to, proof.range).ok()?;
            let after = CompactRange::from_hashes(proof.to, larger.size, proof.after).ok()?;
            if between.merge(&after).is_ok() && proof.from == smaller.size {
                return Some(Ranges {
                    before: proof.before,
                    between: between.hashes().to_vec(),
                });
            }
        }
    }
    None
}

/// The card that names the keys.
fn cards(node: &Node, publisher: MemberNumber) -> Vec<Bytes> {
    let state = node.membership().state();
    let newest = state.cards.newest(publisher);
    newest
        .map(|card| card.as_bytes().clone())
        .into_iter()
        .collect()
}
