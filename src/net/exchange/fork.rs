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
use hashpact_store::{ForkName, StoreError};
use tokio::task::spawn_blocking;

use super::bundle::Source;
use super::pipeline::{Pulled, coalition, describe_of};
use crate::types::{ProofParts, PullPart, PullRequest};

/// Pieces of evidence kept of one publisher about feeds that this node tells nobody of.
pub(crate) const UNTOLD_MAX: usize = 16;

/// Two heads of one feed that do not agree.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) feed: FeedId,
    pub(crate) publisher: MemberNumber,
    /// What is held was verified against this head; `None` for the applied one.
    pub(crate) held: Option<Head>,
    pub(crate) offered: Head,
    /// A chunk at the cursor, proved against `offered`.
    pub(crate) chunk: Option<Box<Pulled>>,
}

/// The ranges of the larger tree that evidence consists of.
#[derive(Debug)]
struct Ranges {
    before: Vec<Digest>,
    between: Vec<Digest>,
}

/// The search for the proof of one fork, step by step.
pub(crate) struct Search {
    case: Case,
    smaller: Noted,
    larger: Noted,
    found: Option<Ranges>,
}

impl Search {
    /// Begins with what is at hand; `None` without a head that is held. Blocking.
    pub(crate) fn begin(node: &Node, case: Case) -> Option<Self> {
        let (smaller, larger) = notes(node, &case)?;
        let found = at_hand(node, &case, &smaller, &larger);
        Some(Self {
            case,
            smaller,
            larger,
            found,
        })
    }

    /// Whose fork it is.
    pub(crate) const fn feed(&self) -> FeedId {
        self.case.feed
    }

    /// What to ask a peer for, while there is no proof: one without leaves.
    pub(crate) fn request(&self) -> Option<PullRequest> {
        self.found.is_none().then_some(PullRequest {
            feed: self.case.feed,
            from: self.smaller.size,
            to: self.larger.size,
            head_size: self.larger.size,
            head_root: self.larger.root,
            proof_only: true,
            elide_dead: false,
        })
    }

    /// Takes what a peer answered.
    pub(crate) fn answered(&mut self, part: PullPart) {
        if let PullPart::Proof(proof) = part
            && proof.from == self.smaller.size
        {
            self.found = ranges(proof, self.larger.size);
        }
    }

    /// Makes evidence, checks it as anybody will, and stores it; answers whether
    /// there is some that is new. Blocking.
    pub(crate) fn finish(self, node: &Node) -> bool {
        let Some(ranges) = self.found else {
            tracing::warn!(feed = %self.case.feed.0.short(), "nobody within reach proves the fork");
            return false;
        };
        let evidence = ForkEvidence {
            feed: self.case.feed,
            smaller: self.smaller.note,
            larger: self.larger.note,
            before: ranges.before,
            between: ranges.between,
            node_cards: cards(node, self.case.publisher),
        };
        // A peer may have proved it meanwhile: then it is known.
        let stored = check(node, self.case.publisher, &evidence)
            .map_err(NodeError::from)
            .and_then(|fork| Ok(keep(node, self.case.publisher, (evidence, &fork))?));
        match stored {
            Ok(new) => new,
            Err(error) => {
                let feed = self.case.feed.0.short();
                tracing::warn!(%feed, %error, code = error.code(), "no evidence");
                false
            }
        }
    }
}

/// Whether a fork is known here as well as it is wanted: with evidence where others are
/// told of it, else at all.
pub(super) fn is_known(
    node: &Node,
    publisher: MemberNumber,
    fork: &ForkName,
) -> Result<bool, StoreError> {
    let store = node.store();
    if store.has_fork(fork)? {
        return Ok(true);
    }
    Ok(store.knows_fork(publisher, fork)? && !tells_of(node, &fork.feed))
}

/// Keeps evidence that was checked; answers whether it says something new.
///
/// PROTOCOL 14.13. ⚠ A publisher makes up as many feeds as it likes and forks them all: of
/// what this node tells nobody of, a few pieces show what the publisher does, and of the
/// rest it remembers that they are forked.
pub(super) fn keep(
    node: &Node,
    publisher: MemberNumber,
    (evidence, fork): (ForkEvidence, &Verified<Fork>),
) -> Result<bool, StoreError> {
    let name = ForkName {
        feed: evidence.feed,
        epoch: fork.larger.checkpoint.origin.epoch,
    };
    if is_known(node, publisher, &name)? {
        return Ok(false);
    }
    let wanted = tells_of(node, &name.feed) || {
        let kept = node.store().forks_of(publisher)?;
        let untold = kept.iter().filter(|kept| !tells_of(node, &kept.feed));
        untold.count() < UNTOLD_MAX
    };
    let evidence = wanted.then_some(evidence);
    node.store().put_fork(publisher, &name, evidence)
}

/// Whether this node tells others of a feed: it holds it, or witnesses it.
fn tells_of(node: &Node, feed: &FeedId) -> bool {
    let witnesses = |feed| node.witnessing().is_some_and(|w| w.has_record(feed));
    node.store().feed_no(feed).is_some() || witnesses(feed)
}

/// The ranges of a proof up to a size, if they meet.
fn ranges(proof: ProofParts, size: u64) -> Option<Ranges> {
    let mut between = CompactRange::from_hashes(proof.from, proof.to, proof.range).ok()?;
    let after = CompactRange::from_hashes(proof.to, size, proof.after).ok()?;
    between.merge(&after).ok()?;
    Some(Ranges {
        before: proof.before,
        between: between.hashes().to_vec(),
    })
}

/// Seeks the proof of a fork, at hand or from one peer after the other; answers
/// whether there is new evidence.
pub(crate) async fn prove(node: &Arc<Node>, case: Case, links: Vec<Source>) -> bool {
    let at_node = Arc::clone(node);
    let begun = spawn_blocking(move || Search::begin(&at_node, case)).await;
    let Ok(Some(mut search)) = begun else {
        return false;
    };
    for link in links {
        let Some(request) = search.request() else {
            break;
        };
        if let Ok(mut parts) = link.pull(&request).await
            && let Some(Ok(part)) = parts.next().await
        {
            search.answered(part);
        }
    }
    let node = Arc::clone(node);
    let finished = spawn_blocking(move || search.finish(&node));
    finished.await.unwrap_or(false)
}

/// Checks evidence with all keys that the publisher ever had in an epoch of the feed that
/// the roster has opened.
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
        // ⚠ No key signs for an epoch that the roster has not opened.
        Some(_) if epoch > roster.epoch(evidence.feed) => Vec::new(),
        Some(set) => state
            .cards
            .feed_keys(publisher, set, evidence.feed, epoch, roster),
        None => node
            .membership()
            .feed_keys(publisher, None, evidence.feed, epoch),
    };
    let closed_at = |epoch| {
        let closing = roster.closing(evidence.feed, epoch);
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
fn notes(node: &Node, case: &Case) -> Option<(Noted, Noted)> {
    let held = match &case.held {
        Some(head) => Noted::from(head),
        None => applied(node, case.feed)?,
    };
    let offered = Noted::from(&case.offered);
    Some(if held.size < offered.size {
        (held, offered)
    } else {
        (offered, held)
    })
}

fn applied(node: &Node, feed: FeedId) -> Option<Noted> {
    let store = node.store();
    let head = store.applied_head(store.feed_no(&feed)?).ok()??;
    Some(Noted {
        size: head.at().size,
        root: head.at().root,
        note: head.note().clone(),
    })
}

/// The ranges as the chunk has them, or, where the larger tree is the one that is
/// held, as the store has.
fn at_hand(node: &Node, case: &Case, smaller: &Noted, larger: &Noted) -> Option<Ranges> {
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
    let (store, m, n) = (node.store(), smaller.size, larger.size);
    let no = store.feed_no(&case.feed)?;
    if store.root_at(no, n).ok()? != larger.root {
        return None;
    }
    Some(Ranges {
        before: store.frontier(no, m).ok()?.hashes().to_vec(),
        between: store.range(no, m, n).ok()?.hashes().to_vec(),
    })
}

/// The card that names the keys.
pub(super) fn cards(node: &Node, publisher: MemberNumber) -> Vec<Bytes> {
    let state = node.membership().state();
    let newest = state.cards.newest(publisher);
    newest
        .map(|card| card.as_bytes().clone())
        .into_iter()
        .collect()
}
