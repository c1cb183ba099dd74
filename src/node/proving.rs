//! Proofs of entries, from what this node holds.
//!
//! A proof is verified here by the core before it leaves, as whoever gets it will.

use bytes::Bytes;
use hashpact_core::card::CardVersion;
use hashpact_core::checkpoint::{self, SignedCheckpoint};
use hashpact_core::id::{EntryName, MemberNumber};
use hashpact_core::keys::{PublicKey, Witness};
use hashpact_core::leaf::{self, DESCRIBE, Describe, Leaf, PUBLISH};
use hashpact_core::limits::PROOF_NAMED_BY_MAX;
use hashpact_core::note::SignatureLine;
use hashpact_core::proof::{Proof, ProofLeaf, Proven};
use hashpact_core::roster::RosterChain;
use hashpact_core::verified::Verified;
pub use hashpact_store::AsOf;
use hashpact_store::{FeedInfo, FeedNo, Head};

use crate::bundle::check_may_leave;
use crate::error::NodeError;
use crate::membership::State;
use crate::node::Node;
use crate::views;

/// Describe leaves, and others that take nothing out, looked through for the one in force
/// at an earlier head.
const DESCRIBES_MAX: usize = 4_096;

/// What is to be proved, and how.
#[derive(Debug, Clone)]
pub struct ProofOrder {
    /// The entry, by its first version; or one later version of it.
    pub entry: EntryName,
    /// At which head.
    pub as_of: AsOf,
    /// This very version, though a later one replaced it by then.
    pub exact: bool,
    /// The record alone, without what the entry says.
    pub record_only: bool,
}

/// A proof that was made.
#[derive(Debug)]
pub struct ProofMade {
    /// The file.
    pub file: Bytes,
    /// What it shows.
    pub proven: Verified<Proven>,
}

impl Node {
    /// Proves an entry. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NotFound`] for an entry that is not held or was not published by
    /// then; [`NodeError::Terms`] where its content may not leave this node;
    /// [`NodeError::Misuse`] before a roster came, and for a moment that has not come
    /// here; what the store answers.
    pub fn prove(&self, order: &ProofOrder) -> Result<ProofMade, NodeError> {
        let feed = self.feed_of(&order.entry.set)?;
        if !order.record_only {
            check_may_leave(&feed)?;
        }
        let state = self.membership().state();
        let chain = self.membership().roster()?;
        let head = self.head_to_prove(&feed, order)?;
        let size = head.at().size;
        let index = self.version_at(feed.no, order, size)?;
        let named_by = self.named_by(feed.no, index, size)?;
        let describe_index = self.described_at(&feed, size)?;
        let mut leaves = Vec::new();
        for at in Proof::wanted(index, describe_index, &named_by) {
            let mut shown = self.proved(feed.no, at, size)?;
            if at == index && order.record_only {
                shown.leaf = shown.leaf.elided();
            }
            leaves.push(shown);
        }
        let signed = signed_head(&feed, &head, (&state, &chain))?;
        let mut cards = vec![card_with(&state, feed.publisher, |card| {
            let mut nodes = card.card().nodes.iter();
            nodes.any(|node| node.feed_keys.iter().any(|named| named.key == signed.key))
        })?];
        let mut cosignatures = Vec::new();
        for line in &head.cosignatures {
            // What no card here proves any more stands in no proof.
            if let Some(card) = cosigner(line, &signed, (&state, &chain)) {
                cosignatures.push(line.clone());
                if !cards.contains(&card) {
                    cards.push(card);
                }
            }
        }
        let proof = Proof {
            feed: feed.id,
            index,
            roster_version: chain.version(),
            rosters: envelopes(&chain),
            node_cards: cards,
            note: head.note().clone(),
            cosignatures,
            describe_index,
            named_by,
            leaves,
        };
        let proven = proof.verify(&self.membership().genesis())?;
        let file = proof.encode()?.into();
        Ok(ProofMade { file, proven })
    }

    fn head_to_prove(&self, feed: &FeedInfo, order: &ProofOrder) -> Result<Head, NodeError> {
        let missing = || NodeError::NotFound {
            what: "entry",
            name: order.entry.to_string(),
        };
        self.check_is_past(feed, order.as_of)?;
        let past = self
            .store()
            .past_head(feed.no, order.as_of, self.clock().now())?;
        let Some(past) = past else {
            if order.as_of == AsOf::Now {
                return Err(missing());
            }
            let heads = self.store().heads(feed.no, usize::MAX)?;
            let oldest = heads.last().ok_or_else(missing)?;
            return Err(NodeError::Misuse(format!(
                "no head of so early is held here: the oldest one has {} leaves",
                oldest.at().size
            )));
        };
        let head = past.head;
        let at = head.at();
        if order.entry.first >= at.size {
            if order.entry.first >= feed.indexed {
                return Err(missing());
            }
            return Err(NodeError::Misuse(format!(
                "{} was not published by then: the head of {} leaves ends before it",
                order.entry, at.size
            )));
        }
        // What was cut off since is of another history than the one held.
        if at.size > feed.indexed || self.store().root_at(feed.no, at.size)? != at.root {
            return Err(NodeError::Misuse(format!(
                "the head of {} leaves is of leaves that the roster cut off",
                at.size
            )));
        }
        Ok(head)
    }

    /// The version that stood for the entry at a size.
    fn version_at(&self, no: FeedNo, order: &ProofOrder, size: u64) -> Result<u64, NodeError> {
        let index = order.entry.first;
        let raw = self.store().read_leaf(no, index)?;
        if raw.kind != PUBLISH {
            return Err(NodeError::NotFound {
                what: "entry",
                name: order.entry.to_string(),
            });
        }
        let is_later = match leaf::read(&raw, index) {
            Leaf::Publish(said) => !said.replaces.is_empty(),
            Leaf::Void(_) => {
                return Err(NodeError::Misuse(format!(
                    "leaf {index} is void: it says nothing that could be proved"
                )));
            }
            Leaf::Elided
            | Leaf::Describe(_)
            | Leaf::Retract(_)
            | Leaf::Opinion(_)
            | Leaf::Erase(_)
            | Leaf::Unknown(_) => false,
        };
        if order.exact || is_later {
            return Ok(index);
        }
        let mut versions = self.store().naming(no, index, size)?.replaced_by;
        // Later versions of this entry name its first one first; other leaves that
        // replace it are none.
        versions.retain(|at| {
            let replaced = self.store().replaces(no, *at).unwrap_or_default();
            replaced.first() == Some(&index)
        });
        versions.insert(0, index);
        let liveness = self.store().liveness_at(no, size)?;
        let newest = versions.last().copied();
        let mut standing = versions.into_iter().filter(|at| !liveness.is_dead(*at));
        Ok(standing.next_back().or(newest).unwrap_or(index))
    }

    /// The leaves that withdraw or replace a version, as many as a proof has.
    fn named_by(&self, no: FeedNo, index: u64, size: u64) -> Result<Vec<u64>, NodeError> {
        let mut naming = self.store().naming(no, index, size)?;
        // PROTOCOL 12.2: what is dead itself replaces nothing.
        let liveness = self.store().liveness_at(no, size)?;
        naming.replaced_by.retain(|at| !liveness.is_dead(*at));
        let mut named = Vec::new();
        // First what withdraws it.
        for at in naming
            .withdrawn_by
            .iter()
            .chain(naming.replaced_by.iter().rev())
        {
            // Without its payload it shows nothing.
            if named.len() < PROOF_NAMED_BY_MAX && !self.store().read_leaf(no, *at)?.is_elided() {
                named.push(*at);
            }
        }
        named.sort_unstable();
        Ok(named)
    }

    /// The describe leaf that was in force at a size.
    fn described_at(&self, feed: &FeedInfo, size: u64) -> Result<u64, NodeError> {
        let newest = feed.describe.as_ref().map_or(0, |(index, _)| *index);
        if newest < size {
            return Ok(newest);
        }
        // What it is called and what it holds never change: PROTOCOL 14.9.
        let is = views::describe_of(feed).map(|is| (is.name, is.feed_kind));
        let earlier = self.store().describes(feed.no, None, DESCRIBES_MAX)?;
        let mut earlier = earlier.into_iter().filter(|(index, _)| *index < size);
        let said = |(index, raw): &(u64, leaf::RawLeaf)| {
            let of_it = |said: &Describe| is.as_ref() == Some(&(said.name.clone(), said.feed_kind));
            raw.kind == DESCRIBE
                && matches!(leaf::read(raw, *index), Leaf::Describe(said) if of_it(&said))
        };
        Ok(earlier.find(said).map_or(0, |(index, _)| index))
    }

    fn proved(&self, no: FeedNo, index: u64, size: u64) -> Result<ProofLeaf, NodeError> {
        Ok(ProofLeaf {
            index,
            leaf: self.store().read_leaf(no, index)?,
            inclusion: self.store().inclusion_proof(no, index, size)?,
        })
    }
}

/// The head with the key that signed it, by all cards that the publisher ever had.
fn signed_head(
    feed: &FeedInfo,
    head: &Head,
    (state, chain): (&State, &RosterChain),
) -> Result<SignedCheckpoint, NodeError> {
    let roster = chain.roster();
    let describe = views::describe_of(feed).ok_or_else(|| NodeError::NotFound {
        what: "set",
        name: feed.id.to_string(),
    })?;
    let (publisher, set) = (feed.publisher, &describe.name.set);
    let keys = |epoch| {
        state
            .cards
            .feed_keys(publisher, set, feed.id, epoch, roster)
    };
    let signed = checkpoint::verify(head.note(), &roster.coalition, &feed.id, keys)?;
    Ok(signed.into_inner())
}

/// The envelopes of a chain, as received.
pub(crate) fn envelopes(chain: &RosterChain) -> Vec<Bytes> {
    let versions = chain.from_version(1);
    versions.map(|version| version.as_bytes().clone()).collect()
}

/// The newest card of a member that has what is asked for.
pub(crate) fn card_with(
    state: &State,
    member: MemberNumber,
    has: impl Fn(&CardVersion) -> bool,
) -> Result<Bytes, NodeError> {
    let of_member = state.cards.all().filter(|card| card.member() == member);
    let newest = of_member.filter(|card| has(card)).last();
    let missing = || NodeError::Internal("the card that names a key is not held".to_owned());
    newest
        .map(|card| card.as_bytes().clone())
        .ok_or_else(missing)
}

/// The card of whoever cosigned, if it verifies.
fn cosigner(
    line: &Bytes,
    head: &SignedCheckpoint,
    (state, chain): (&State, &RosterChain),
) -> Option<Bytes> {
    let parsed = SignatureLine::parse(line).ok()?;
    let roster = chain.roster();
    let mut members = roster.members.iter();
    let coalition = &roster.coalition;
    let witness =
        members.find(|member| checkpoint::witness_name(coalition, &member.slug) == parsed.name)?;
    let body = head.checkpoint.body();
    let signed = |key: &PublicKey<Witness>| {
        checkpoint::verify_cosignature(&body, line, &parsed.name, key).is_ok()
    };
    card_with(state, witness.number, |card| {
        let mut nodes = card.card().nodes.iter();
        nodes.any(|node| node.witness_keys.iter().any(signed))
    })
    .ok()
}
