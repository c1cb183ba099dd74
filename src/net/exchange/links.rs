//! The connections on which this node calls its peers, whoever dialled them, and how
//! one makes way for the next.

use std::collections::HashMap;

use hashpact_core::puller::PeerId;
use tokio::sync::mpsc;

use super::inside::Inside;
use crate::client::Peer;
use crate::connections::Connection;

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
    pub(crate) fn get(&self, id: PeerId) -> Option<&Peer> {
        let ways = self.0.get(&id)?;
        let stands = |peer: &&Peer| !peer.connection().is_closed();
        ways.iter().rev().find(stands).or_else(|| ways.last())
    }

    /// One way to call each peer.
    pub(crate) fn all(&self) -> Vec<Peer> {
        let ids = self.0.keys();
        ids.filter_map(|id| self.get(*id)).cloned().collect()
    }
}

/// Cuts a connection when dropped.
pub(super) struct Cut(pub(super) Connection);

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// A connection in whose place another was asked for: a way to call the peer until
/// that one stands.
pub(super) struct Leaving {
    pub(super) down: Down,
    pub(super) cut: Cut,
}

/// Tells the driver that a link is down when dropped.
pub(super) struct Down {
    pub(super) driver: mpsc::Sender<Inside>,
    pub(super) peer: Peer,
}

impl Drop for Down {
    fn drop(&mut self) {
        let down = Inside::LinkDown {
            peer: self.peer.identity().clone(),
            connection: self.peer.connection().id,
        };
        if let Err(mpsc::error::TrySendError::Full(down)) = self.driver.try_send(down) {
            let driver = self.driver.clone();
            tokio::spawn(async move { driver.send(down).await });
        }
    }
}
