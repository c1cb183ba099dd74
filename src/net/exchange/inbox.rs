//! Where all that peers announce comes together, whoever dialled.
//!
//! Bounded in number and in rate: a peer that says more than is taken in waits, over its
//! own stream, and nobody else does for long. Nothing said here was verified.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use hashpact_core::id::MemberNumber;
use hashpact_core::reject::Rejection;
use tokio::sync::mpsc;

use crate::error::NetError;
use crate::peer::PeerIdentity;
use crate::types::{Announcement, Incoming};

/// Announcements that wait for the driver: a burst of heads of one peer's feeds,
/// some 1 KiB each. Longer bursts wait in their streams.
const WAITING_MAX: usize = 1_024;

/// Heads that a member may announce in a second, over all its connections: each costs a
/// signature, some 0.1 ms. Five feeds that sign a hundred times a second are far below.
const HEADS_PER_SECOND: u32 = 500;
/// Heads at once: all feeds that one may announce, at the beginning of a watch.
const HEADS_BURST: u32 = 20_000;
/// Documents and evidence in a second: a card costs a signature for each key on it.
const DOCUMENTS_PER_SECOND: u32 = 100;
/// Documents at once: the cards and suspensions of the largest coalition.
const DOCUMENTS_BURST: u32 = 10_000;

/// How much each member may announce.
struct Rates {
    heads: DefaultKeyedRateLimiter<MemberNumber>,
    documents: DefaultKeyedRateLimiter<MemberNumber>,
}

impl Rates {
    fn new(heads: (u32, u32), documents: (u32, u32)) -> Self {
        let quota = |(rate, burst)| {
            let whole = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
            Quota::per_second(whole(rate)).allow_burst(whole(burst))
        };
        Self {
            heads: RateLimiter::keyed(quota(heads)),
            documents: RateLimiter::keyed(quota(documents)),
        }
    }

    /// Takes one announcement out of the member's bucket, or says how long until it can.
    fn take(
        &self,
        member: MemberNumber,
        announcement: &Announcement,
    ) -> Result<(), (Duration, Rejection)> {
        let (bucket, what, limit) = match announcement {
            Announcement::NodeCard(_)
            | Announcement::Suspension(_)
            | Announcement::Evidence(_)
            | Announcement::DocumentEvidence(_)
            | Announcement::GrantEnded(_) => (
                &self.documents,
                "documents announced in a second",
                DOCUMENTS_PER_SECOND,
            ),
            Announcement::Head(_)
            | Announcement::Roster { .. }
            | Announcement::SnapshotEnd
            | Announcement::Alive { .. } => {
                (&self.heads, "heads announced in a second", HEADS_PER_SECOND)
            }
        };
        let now = DefaultClock::default().now();
        bucket.check_key(&member).map_err(|early| {
            let limit = u64::from(limit);
            let rejection = Rejection::RateLimited { what, limit };
            (early.wait_time_from(now), rejection)
        })
    }
}

impl std::fmt::Debug for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rates").finish_non_exhaustive()
    }
}

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
    /// More at once than is taken in: it waits.
    Slowed(Rejection),
    /// The peer's watch ended.
    Ended,
}

/// The way in to the driver. Clones share it.
#[derive(Debug, Clone)]
pub struct Inbox {
    sender: mpsc::Sender<Heard>,
    rates: Arc<Rates>,
}

impl Inbox {
    /// Makes an inbox and the end that the driver reads.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Heard>) {
        let heads = (HEADS_PER_SECOND, HEADS_BURST);
        Self::with(Rates::new(heads, (DOCUMENTS_PER_SECOND, DOCUMENTS_BURST)))
    }

    fn with(rates: Rates) -> (Self, mpsc::Receiver<Heard>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let rates = Arc::new(rates);
        (Self { sender, rates }, receiver)
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
                Ok(announcement) => {
                    self.pace(peer, &announcement).await && self.said(peer, announcement).await
                }
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

    /// Waits until the member may announce this.
    async fn pace(&self, peer: &PeerIdentity, announcement: &Announcement) -> bool {
        while let Err((wait, rejection)) = self.rates.take(peer.member, announcement) {
            if !self.put(peer, Said::Slowed(rejection)).await {
                return false;
            }
            tokio::time::sleep(wait).await;
        }
        true
    }

    async fn put(&self, peer: &PeerIdentity, said: Said) -> bool {
        let peer = peer.clone();
        self.sender.send(Heard { peer, said }).await.is_ok()
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
    async fn a_peer_that_announces_faster_than_it_may_waits_and_the_code_says_so() {
        let (inbox, mut heard) = Inbox::with(Rates::new((1, 1), (1, 2)));
        let card = || Ok(Announcement::NodeCard(bytes::Bytes::from_static(b"card")));
        let end = Ok(Announcement::SnapshotEnd);
        let incoming = Box::pin(stream::iter([card(), card(), end, card()]));
        assert!(inbox.listen(&peer(), incoming).await.is_none());
        drop(inbox);
        let mut said = Vec::new();
        while let Some(Heard { said: one, .. }) = heard.recv().await {
            said.push(match one {
                Said::Slowed(rejection) => rejection.code(),
                Said::Began => "began",
                Said::Announced(_) => "announced",
                Said::Refused(_) => "refused",
                Said::Ended => "ended",
            });
        }
        said.dedup();
        assert_eq!(
            said,
            ["began", "announced", "rate_limited", "announced", "ended"]
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
