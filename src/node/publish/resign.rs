//! Another feed key: what stands is signed again, the identical state.

use std::sync::Arc;

use hashpact_core::checkpoint::{self, Checkpoint, Origin};
use hashpact_core::keys::{Feed, PublicKey, SecretKey};
use hashpact_store::sign_state::SignedState;
use hashpact_store::{FeedInfo, Head};

use super::Publisher;
use crate::error::NodeError;
use crate::hub::Change;

impl Publisher {
    /// The key that signs heads.
    #[must_use]
    pub fn feed_key(&self) -> PublicKey<Feed> {
        self.feed_key.load().public()
    }

    /// Signs with another key from here on. What stands is signed again by
    /// [`resign_heads`](Self::resign_heads).
    pub fn use_feed_key(&self, key: SecretKey<Feed>) {
        self.feed_key.store(Arc::new(key));
    }

    /// Signs the heads of all own feeds with the key in use where another one did,
    /// and announces them. Only states that the sign-state file has: never a new
    /// one. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn resign_heads(&self) -> Result<(), NodeError> {
        for feed in self.feeds() {
            if self.resign_head(&feed)? {
                self.hub.tell(Change::Head(feed.id));
            }
        }
        Ok(())
    }

    fn resign_head(&self, feed: &FeedInfo) -> Result<bool, NodeError> {
        let Some(at) = feed.applied else {
            return Ok(false);
        };
        let state = SignedState {
            epoch: at.epoch,
            size: at.size,
            root: at.root,
        };
        // A newer state is being signed, with the new key; or the feed is closed.
        if self.sign_state().state(&feed.id) != Some(state) {
            return Ok(false);
        }
        let Some(held) = self.store.head(feed.no, at.epoch, at.size)? else {
            return Ok(false);
        };
        let checkpoint = Checkpoint {
            origin: Origin {
                coalition: self.membership.coalition()?,
                feed: feed.id,
                epoch: at.epoch,
            },
            size: at.size,
            root: at.root,
        };
        let key = self.feed_key.load_full();
        let note = checkpoint::sign(&checkpoint, &key);
        if held.note() == &note {
            return Ok(false);
        }
        let coalition = &checkpoint.origin.coalition;
        let verified = checkpoint::verify(&note, coalition, &feed.id, |_| vec![key.public()])?;
        let mut head = Head::new(&verified, held.received);
        // Cosignatures and receipts are about the state, not about its signature.
        head.cosignatures = held.cosignatures;
        head.receipts = held.receipts;
        // Crash: before, the head is signed again at the next look.
        self.store.put_head(feed.no, &head)?;
        Ok(true)
    }
}
