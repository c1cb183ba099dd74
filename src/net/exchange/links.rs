//! The connections on which this node calls its peers, whoever dialled them.

use std::collections::HashMap;

use hashpact_core::puller::PeerId;

use crate::client::Peer;

/// Ways to call each peer, the newest last: one that we dialled, one that the peer
/// dialled to be called, and for moments those that they replace.
#[derive(Debug, Default)]
pub(crate) struct Links(HashMap<PeerId, Vec<Peer>>);

impl Links {
    /// Adds a way; answers whether it is the peer's first.
    pub(crate) fn add(&mut self, id: PeerId, peer: Peer) -> bool {
        let ways = self.0.entry(id).or_default();
        ways.push(peer);
        ways.len() == 1
    }

    /// Takes a way out; answers whether it was the peer's last.
    pub(crate) fn remove(&mut self, id: PeerId, connection: u64) -> bool {
        let Some(ways) = self.0.get_mut(&id) else {
            return false;
        };
        ways.retain(|peer| peer.connection().id != connection);
        let last = ways.is_empty();
        if last {
            self.0.remove(&id);
        }
        last
    }

    /// The way to call a peer: the newest that stands.
    pub(crate) fn get(&self, id: &PeerId) -> Option<&Peer> {
        let ways = self.0.get(id)?;
        let stands = |peer: &&Peer| !peer.connection().is_closed();
        ways.iter().rev().find(stands).or_else(|| ways.last())
    }

    /// Whether there is a way to call a peer.
    pub(crate) fn reaches(&self, id: &PeerId) -> bool {
        self.0.contains_key(id)
    }

    /// One way to call each peer.
    pub(crate) fn all(&self) -> Vec<Peer> {
        let ids = self.0.keys();
        ids.filter_map(|id| self.get(id)).cloned().collect()
    }
}
