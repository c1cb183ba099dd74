//! Where all that peers announce comes together, whoever dialled.
//!
//! Bounded: a peer that says more than is taken in waits, over its own stream, and
//! nobody else does for long. Nothing said here was verified.

use futures_util::StreamExt as _;
use hashpact_core::reject::Rejection;
use tokio::sync::mpsc;

use crate::error::NetError;
use crate::peer::PeerIdentity;
use crate::types::{Announcement, Incoming};

/// Announcements that wait for the driver: a burst of heads of one peer's feeds,
/// some 1 KiB each. Longer bursts wait in their streams.
const WAITING_MAX: usize = 1_024;

/// One thing heard from a peer.
#[derive(Debug)]
pub struct Heard {
    /// Who said it.
    pub peer: PeerIdentity,
    /// What.
    pub said: Said,
}

/// What was heard.
#[derive(Debug)]
pub enum Said {
    /// The peer's watch began, in either direction.
    Began,
    /// An announcement, not verified.
    Announced(Announcement),
    /// Something that breaks a rule of the wire.
    Refused(Rejection),
    /// The peer's watch ended.
    Ended,
}

/// The way in to the driver. Clones share it.
#[derive(Debug, Clone)]
pub struct Inbox(mpsc::Sender<Heard>);

impl Inbox {
    /// Makes an inbox and the end that the driver reads.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Heard>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    /// Hands one announcement in; waits while the inbox is full. Answers false when
    /// the exchange stops.
    pub async fn said(&self, peer: &PeerIdentity, announcement: Announcement) -> bool {
        self.put(peer, Said::Announced(announcement)).await
    }

    /// Hands in that a peer broke a rule: counted and logged with its code.
    pub async fn refused(&self, peer: &PeerIdentity, rejection: Rejection) -> bool {
        self.put(peer, Said::Refused(rejection)).await
    }

    /// Reads a watch to its end and hands in all of it, what breaks a rule and the
    /// end as well. Answers what ended it; `None` for a peer that just ended it, or
    /// when the exchange stops.
    pub async fn listen(
        &self,
        peer: &PeerIdentity,
        mut incoming: Incoming<Announcement>,
    ) -> Option<NetError> {
        if !self.put(peer, Said::Began).await {
            return None;
        }
        let mut error = None;
        while let Some(item) = incoming.next().await {
            let taken = match item {
                Ok(announcement) => self.said(peer, announcement).await,
                Err(NetError::Rejected(rejection)) => {
                    let taken = self.refused(peer, rejection.clone()).await;
                    error = Some(NetError::Rejected(rejection));
                    taken
                }
                Err(other) => {
                    error = Some(other);
                    break;
                }
            };
            if !taken {
                return None;
            }
        }
        self.put(peer, Said::Ended).await;
        error
    }

    async fn put(&self, peer: &PeerIdentity, said: Said) -> bool {
        let peer = peer.clone();
        self.0.send(Heard { peer, said }).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use hashpact_core::id::{Digest, MemberNumber, Slug};

    use crate::peer::PeerStatus;

    fn peer() -> PeerIdentity {
        PeerIdentity {
            member: MemberNumber::new(1).unwrap(),
            slug: Slug::parse("north").unwrap(),
            node: Slug::parse("n1").unwrap(),
            status: PeerStatus::Active,
            tls_key: Digest::of(b"key"),
        }
    }

    #[tokio::test]
    async fn a_watch_is_heard_to_its_end_with_what_broke_a_rule() {
        let (inbox, mut heard) = Inbox::new();
        let broken = NetError::Rejected(Rejection::NotFound);
        let incoming = Box::pin(stream::iter([Ok(Announcement::SnapshotEnd), Err(broken)]));
        let error = inbox.listen(&peer(), incoming).await;
        assert!(matches!(error, Some(NetError::Rejected(_))));
        drop(inbox);
        let mut said = Vec::new();
        while let Some(Heard { said: one, .. }) = heard.recv().await {
            said.push(format!("{one:?}"));
        }
        assert_eq!(
            said,
            [
                "Began",
                "Announced(SnapshotEnd)",
                "Refused(NotFound)",
                "Ended"
            ]
        );
    }

    #[tokio::test]
    async fn a_listener_stops_when_the_exchange_does() {
        let (inbox, heard) = Inbox::new();
        drop(heard);
        assert!(!inbox.said(&peer(), Announcement::SnapshotEnd).await);
        let incoming = Box::pin(stream::pending());
        assert!(inbox.listen(&peer(), incoming).await.is_none());
    }
}
