//! Which peers have said what they hold: of this node's own feeds, so that these may be
//! signed, and of others' after a restore. What follows from it is the node's to say.

use hashpact_core::id::FeedId;
use hashpact_core::puller::PeerId;
use hashpact_node::publish::{PeerKey, Round};

use super::driver::Driver;

impl Driver {
    /// A peer has said all that it may.
    pub(super) fn said_all(&mut self, peer: PeerId) {
        if let Some(known) = self.peers.get(&peer) {
            self.node.publisher().peer_said_all(&known.key);
            self.node.peer_said_all(&known.key);
        }
        self.ask_all();
        self.witness_said_all(peer);
    }

    /// Says how the peers stand to feeds that wait for them: own ones, and those of others
    /// in a store that was restored.
    pub(super) fn ask_all(&self) {
        let round = || Round {
            peers: self.board.asked(),
            unheard: self.unheard(),
            wait_ms: self.confirm_wait_ms,
        };
        if let Err(error) = self.node.follow_restored(round) {
            tracing::error!(%error, code = error.code(), "looking at a restored store");
        }
        if self.node.publisher().awaits_peers() {
            self.node.publisher().peers_stand(&round());
        }
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
