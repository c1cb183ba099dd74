//! Which peers have said what they hold of this node's own feeds, so that these may be
//! signed. What follows from it is the publisher's to say.

use hashpact_core::id::FeedId;
use hashpact_core::puller::PeerId;
use hashpact_node::publish::{PeerKey, Round};

use super::driver::Driver;

impl Driver {
    /// A peer has said all that it may.
    pub(super) fn said_all(&mut self, peer: PeerId) {
        if let Some(known) = self.peers.get(&peer) {
            self.node.publisher().peer_said_all(&known.key);
        }
        self.ask_all();
        self.witness_said_all(peer);
    }

    /// Says how the peers stand to own feeds that wait for them.
    pub(super) fn ask_all(&self) {
        if !self.node.publisher().awaits_peers() {
            return;
        }
        let round = Round {
            peers: self.board.asked(),
            unheard: self.unheard(),
            wait_ms: self.confirm_wait_ms,
        };
        self.node.publisher().peers_stand(&round);
    }

    /// Heads that wait for a roster or a card.
    fn unheard(&self) -> std::collections::BTreeSet<(PeerKey, FeedId)> {
        let later = self.epochs.waiting();
        let named = later.filter_map(|(peer, feed)| {
            let known = self.peers.get(peer)?;
            Some((known.key.clone(), *feed))
        });
        named.collect()
    }
}
