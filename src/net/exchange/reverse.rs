//! Connections on which the side that was dialled calls: how a member without an
//! open port is watched and pulled from.
//!
//! The member that cannot be dialled dials each peer once more, says so in the
//! handshake, and answers the calls on that connection with the same service, the
//! same limits and the same access as on one that it accepted. The peer greets,
//! watches and pulls over it as over one that it dialled. Both keys are pinned as
//! always; who dialled decides nothing about what may be read.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::dial::Dialling;
use super::links::Cut;
use super::targets::Target;
use super::waits::pause;
use crate::accept::{Entrance, retire};
use crate::client::Peer;
use crate::connections::Connection;
use crate::error::NetError;
use crate::tls::CallingSide;

impl Dialling {
    /// Keeps one connection with a node on which that node calls, one after the
    /// other.
    pub(super) async fn keep_reverse(
        self: Arc<Self>,
        target: Target,
        entrance: Entrance,
        stop: CancellationToken,
    ) {
        let mut failures = 0;
        let mut before: Option<Cut> = None;
        loop {
            let began = tokio::time::Instant::now();
            let ended = tokio::select! {
                () = stop.cancelled() => break,
                ended = self.offer(&target, &entrance, &mut before) => ended,
            };
            let wait = pause(self.waits, &mut failures, began);
            if let Err(error) = ended {
                let (member, node, code) = (&target.slug, &target.key.1, error.code());
                tracing::info!(%member, %node, code, %error, "no connection to be called on");
                metrics::counter!("hashpact_dial_failures_total", "code" => code).increment(1);
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One connection on which the peer calls, from the dial to its end, or until
    /// another is asked for: `before` is open until that one stands.
    async fn offer(
        &self,
        target: &Target,
        entrance: &Entrance,
        before: &mut Option<Cut>,
    ) -> Result<(), NetError> {
        let stream = self.reach(target, CallingSide::Dialled).await?;
        let connection = stream.connection().clone();
        // However this ends, dropped in the middle as well: the connection goes.
        let cut = Cut(connection.clone());
        retire(&connection, self.dialler.settings());
        entrance.put(stream).await;
        tracing::info!(peer = %connection.peer, "may be called");
        let _count = Counted::new();
        if let Some(before) = before.take() {
            self.let_go(before);
        }
        tokio::select! {
            () = connection.closed() => {}
            () = connection.renewal_asked() => *before = Some(cut),
        }
        Ok(())
    }

    /// Calls every peer that dialled to be called, until told to stop.
    pub(super) async fn call_all(self: Arc<Self>, mut reversed: mpsc::Receiver<Peer>) {
        loop {
            let peer = tokio::select! {
                () = self.stop.cancelled() => return,
                peer = reversed.recv() => peer,
            };
            let Some(peer) = peer else { return };
            let dialling = Arc::clone(&self);
            self.tasks.spawn(async move { dialling.call(peer).await });
        }
    }

    /// One peer that dialled to be called, until the connection ends.
    async fn call(&self, peer: Peer) {
        let connection = peer.connection().clone();
        let _cut = Cut(connection.clone());
        let who = &connection.peer;
        let snapshot = self.snapshots.newest();
        // PROTOCOL 15.2: nothing is asked of, or told to, a member that is not active or
        // whose card is not in force. It learns why over the connection on which it calls.
        let active = snapshot.is_some_and(|snapshot| snapshot.may_connect(who.member));
        if !active || !who.status.is_active() {
            tracing::info!(peer = %who, "a peer that is not active is not called");
            return;
        }
        let key = (who.member, who.node.clone());
        let mut none = None;
        let ended = tokio::select! {
            () = self.stop.cancelled() => Ok(()),
            () = connection.closed() => Err(NetError::Closed("by the peer".to_owned())),
            ended = self.exchange(&key, &peer, &mut none) => match ended {
                // It dials another. Until it closes this one, what runs goes on.
                Ok(_down) => {
                    connection.closed().await;
                    Ok(())
                }
                Err(error) => Err(error),
            },
        };
        if let Err(error) = ended {
            tracing::info!(peer = %who, code = error.code(), %error, "a peer is called no more");
        }
        self.show_uncalled(&connection);
    }

    /// The board says that a node without an endpoint is out of reach, unless it
    /// dialled again.
    fn show_uncalled(&self, ended: &Connection) {
        let open = self.connections.open();
        let again = |other: &&Connection| {
            let same = other.peer.member == ended.peer.member && other.peer.node == ended.peer.node;
            same && other.id != ended.id && !other.is_served() && !other.is_closed()
        };
        if open.iter().any(|other| again(&other)) {
            return;
        }
        let key = (ended.peer.member, ended.peer.node.clone());
        self.board.peer(&key, |row| {
            if row.endpoints.is_empty() && row.state == "connected" {
                row.state = "no endpoint";
            }
        });
    }
}

/// Counts a connection on which peers may call, while it lives.
struct Counted(metrics::Gauge);

impl Counted {
    fn new() -> Self {
        let gauge = metrics::gauge!("hashpact_reverse_connections");
        gauge.increment(1);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}
