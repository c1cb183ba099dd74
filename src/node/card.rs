//! This member's next node card, made from the newest one and what this node has.
//!
//! A card is signed by the identity key and by every key on it, so a node alone can
//! publish one only where it has them all: the member has one node, and the identity
//! key is online. Otherwise the card is a draft, which is signed where the keys are.

use std::sync::Arc;

use hashpact_core::card::{
    CardState, CardVersion, Endpoint, FeedKey, Node as CardNode, NodeCard, SetScope,
};
use hashpact_core::envelope::EnvelopeDraft;
use hashpact_core::id::{Digest, UnixMillis};
use hashpact_core::keys::{Feed, PublicKey, Receipt, Witness};
use hashpact_core::limits::DAY_MS;

use crate::error::NodeError;
use crate::node::Node;

/// How long a card holds.
pub const CARD_DAYS: u64 = 365;

/// What a node has, and so says on its member's card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnNode {
    /// Where it can be dialled.
    pub endpoints: Vec<Endpoint>,
    /// Its TLS keys.
    pub tls_keys: Vec<Digest>,
    /// Its feed keys, the newest last.
    pub feed_keys: Vec<PublicKey<Feed>>,
    /// Its receipt keys.
    pub receipt_keys: Vec<PublicKey<Receipt>>,
    /// Its witness keys, the newest last; none leaves on the card what stands there.
    pub witness_keys: Vec<PublicKey<Witness>>,
}

impl OwnNode {
    /// The entry on the card: sets stay as they were.
    fn entry(&self, before: &CardNode) -> CardNode {
        let scope = before.feed_keys.last().map(|key| key.sets.clone());
        let scope = scope.unwrap_or(SetScope::All);
        let listed = |key: &PublicKey<Feed>| {
            let same = before.feed_keys.iter().find(|held| held.key == *key);
            let sets = same.map_or_else(|| scope.clone(), |held| held.sets.clone());
            FeedKey { key: *key, sets }
        };
        CardNode {
            name: before.name.clone(),
            endpoints: self.endpoints.clone(),
            tls_keys: self.tls_keys.clone(),
            feed_keys: self.feed_keys.iter().map(listed).collect(),
            witness_keys: if self.witness_keys.is_empty() {
                before.witness_keys.clone()
            } else {
                self.witness_keys.clone()
            },
            receipt_keys: self.receipt_keys.clone(),
        }
    }
}

/// Whether a card is to be renewed: less than a quarter of its life is left.
#[must_use]
pub fn is_due(card: &NodeCard, now: UnixMillis) -> bool {
    card.expires.since(now) < card.expires.since(card.issued) / 4
}

impl Node {
    /// This member's newest card, in force or not.
    #[must_use]
    pub fn own_card(&self) -> Option<Arc<CardVersion>> {
        let own = self.membership().own().ok()?;
        self.membership().state().cards.newest(own).cloned()
    }

    /// This member's newest card, where it is in force.
    #[must_use]
    pub fn own_card_in_force(&self) -> Option<Arc<CardVersion>> {
        let own = self.membership().own().ok()?;
        let state = self.membership().state();
        let roster = state.chain.as_ref()?.roster();
        let now = self.clock().now();
        state.cards.current(own, roster, now).cloned()
    }

    /// This node's entry on it.
    #[must_use]
    pub fn own_entry(&self) -> Option<CardNode> {
        self.own_card()?.card().node(self.name()).cloned()
    }

    /// The card after the newest one, if that is due, or says other than this node
    /// has.
    #[must_use]
    pub fn next_card(&self, own: &OwnNode) -> Option<NodeCard> {
        let newest = self.own_card()?;
        let card = newest.card();
        let before = card.node(self.name())?;
        let now = self.clock().now();
        let entry = own.entry(before);
        // A card of a former identity key is not in force: the present one signs.
        let state = self.membership().state();
        let roster = state.chain.as_ref()?.roster();
        let former = newest.state(roster, now) == CardState::FormerIdentity;
        if entry == *before && !is_due(card, now) && !former {
            return None;
        }
        let mut nodes = card.nodes.clone();
        for node in &mut nodes {
            if node.name == *self.name() {
                *node = entry.clone();
            }
        }
        Some(self.card_of(card, nodes, now))
    }

    fn card_of(&self, before: &NodeCard, nodes: Vec<CardNode>, now: UnixMillis) -> NodeCard {
        NodeCard {
            genesis: before.genesis,
            member: self.membership().own().ok(),
            slug: before.slug.clone(),
            version: before.version.saturating_add(1),
            issued: now,
            expires: now.plus(CARD_DAYS * DAY_MS),
            nodes,
            contact: before.contact.clone(),
        }
    }

    /// Signs a card's draft with the member's identity key, where it is online;
    /// answers whether it is.
    pub fn sign_card(&self, draft: &mut EnvelopeDraft) -> bool {
        match &self.publisher().identity_key {
            Some(key) => {
                draft.sign(key);
                true
            }
            None => false,
        }
    }

    /// Takes a finished card in, and announces it.
    ///
    /// # Errors
    /// Why it is refused, or what the store answers.
    pub fn publish_card(&self, draft: &EnvelopeDraft) -> Result<bool, NodeError> {
        let envelope = draft.finish()?;
        self.membership().accept_card(envelope.as_bytes().clone())
    }
}
