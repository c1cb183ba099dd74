//! Heads that their publisher signed again with a newer key.
//!
//! A publisher that gives up a feed key signs the states that stand with the next
//! one. Whoever serves such a feed on must hand out the newer signature: for one
//! who reads it first after the old key has left the card, the other is none.

use hashpact_core::checkpoint::{self, SignedCheckpoint};
use hashpact_core::keys::{Feed, PublicKey};
use hashpact_core::verified::Verified;
use hashpact_node::NodeError;
use hashpact_node::hub::Change;
use hashpact_store::{FeedInfo, Head, HeadRef};

use super::driver::Driver;

impl Driver {
    /// Keeps a verified head in place of the same one under an older key of the
    /// publisher, and tells others of it.
    pub(super) fn take_resigned(&self, head: &Verified<SignedCheckpoint>, held: Option<&FeedInfo>) {
        let Some(held) = held.filter(|held| !held.own) else {
            return;
        };
        let same = HeadRef {
            epoch: head.checkpoint.origin.epoch,
            size: head.size(),
            root: head.root(),
        };
        if held.applied != Some(same) {
            return;
        }
        match self.keep_newer(head, held, same) {
            Ok(false) => {}
            Ok(true) => self.node.hub().tell(Change::Head(held.id)),
            Err(error) => {
                tracing::error!(feed = %held.id.0.short(), %error, code = error.code(), "keeping a head");
            }
        }
    }

    fn keep_newer(
        &self,
        head: &Verified<SignedCheckpoint>,
        held: &FeedInfo,
        at: HeadRef,
    ) -> Result<bool, NodeError> {
        let store = self.node.store();
        let Some(kept) = store.head(held.no, at.epoch, at.size)? else {
            return Ok(false);
        };
        if kept.note() == &head.note || self.age(held, &head.key) <= self.age_of(held, &kept) {
            return Ok(false);
        }
        let mut newer = Head::new(head, kept.received);
        newer.cosignatures = kept.cosignatures;
        newer.receipts = kept.receipts;
        // Crash: before, the older signature is announced, and replaced another time.
        store.put_head(held.no, &newer)?;
        Ok(true)
    }

    /// Where a key stands on the publisher's card: PROTOCOL 5.17, the last is the
    /// newest. `None` is on it no more.
    fn age(&self, held: &FeedInfo, key: &PublicKey<Feed>) -> Option<usize> {
        let state = self.node.membership().state();
        let nodes = &state.cards.newest(held.publisher)?.card().nodes;
        let mut keys = nodes.iter().flat_map(|node| &node.feed_keys);
        keys.position(|listed| listed.key == *key)
    }

    fn age_of(&self, held: &FeedInfo, kept: &Head) -> Option<usize> {
        let coalition = self.node.membership().coalition().ok()?;
        let membership = self.node.membership();
        let set = Self::set_of(held);
        let keys = |epoch| membership.feed_keys(held.publisher, set.as_ref(), held.id, epoch);
        let signed = checkpoint::verify(kept.note(), &coalition, &held.id, keys).ok()?;
        self.age(held, &signed.key)
    }
}
