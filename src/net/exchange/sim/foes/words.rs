//! Receipts that lie: of leaves that nobody signed, of states that never were, in others'
//! names, of the future.

use bytes::Bytes;
use hashpact_core::id::{Digest, FeedId, UnixMillis};
use hashpact_core::limits::DAY_MS;
use hashpact_core::receipt::Receipt;

use super::super::coalition::{self, BEGIN};
use super::cast::{Habit, NODES};
use super::fork::number_of;
use super::{Kit, Way};
use crate::types::Head;

impl Kit {
    /// Puts false receipts beside a head.
    pub(super) fn words(&mut self, way: Way, head: &mut Head) {
        if !self.does(way.at, Habit::LieInReceipts, 600) {
            return;
        }
        for _ in 0..self.dice.between(1, 4) {
            let receipt = self.word(way, head.feed);
            head.receipts.push(receipt);
        }
    }

    fn word(&mut self, way: Way, feed: FeedId) -> Bytes {
        let now = BEGIN.plus(way.now);
        let mut said = Receipt {
            genesis: self.genesis,
            member: coalition::member(number_of(way.at)).unwrap(),
            node: coalition::node_name().unwrap(),
            feed,
            epoch: 0,
            size: self.dice.between(1, 40),
            root: Digest::of(&self.dice.seed().to_be_bytes()),
            since: now,
            signed: now,
        };
        let mut signer = number_of(way.at);
        match self.dice.below(5) {
            // Of more than there is, or of another history.
            0 => said.size = 1_000_000,
            1 => {}
            // In somebody's name.
            2 => {
                let whose = usize::try_from(self.dice.below(NODES as u64)).unwrap();
                said.member = coalition::member(number_of(whose)).unwrap();
            }
            // Of the future; of an epoch that is not open.
            3 => said.signed = UnixMillis(now.0 + DAY_MS),
            _ => {
                said.epoch = 7;
                signer = number_of(usize::try_from(self.dice.below(NODES as u64)).unwrap());
            }
        }
        signed(&said, self.seed, signer)
    }
}

/// A receipt with a member's receipt key.
pub(super) fn signed(said: &Receipt, seed: u64, signer: u32) -> Bytes {
    let mut draft = said.to_envelope().unwrap();
    draft.sign(&coalition::receipt_key(seed, signer));
    draft.finish().unwrap().as_bytes().clone()
}
