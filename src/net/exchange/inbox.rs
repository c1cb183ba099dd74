//! Where all that peers announce comes together, whoever dialled.
//!
//! Bounded in number, in bytes and in rate, for each member: one that says more than is
//! taken in waits, over its own stream, and nobody else does for long. Nothing said here
//! was verified.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use hashpact_core::id::MemberNumber;
use hashpact_core::reject::Rejection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::error::NetError;
use crate::peer::PeerIdentity;
use crate::types::{Announcement, Head, Incoming};

/// Announcements that wait for the driver: a burst of heads of one peer's feeds,
/// some 1 KiB each. Longer bursts wait in their streams.
const WAITING_MAX: usize = 1_024;
/// What counts as one announcement. A longer one counts as often as it is longer: what
/// stands in it, receipts, cosignatures, signatures on a card, costs work by its length.
const UNIT_BYTES: usize = 1_024;
/// Units of one member that wait for the driver. ⚠ A suspension of that member, or
/// another member's retraction, waits behind no more than this: some 0.1 s of work. One
/// that is longer waits alone.
const MEMBER_WAITING_MAX: u32 = 256;

/// Units of heads that a member may announce in a second, over all its connections: each
/// costs a signature, some 0.1 ms, or a few. Five feeds that sign a hundred times a second
/// are at it.
pub(super) const HEADS_PER_SECOND: u32 = 500;
/// Heads at once: all feeds that one may announce, at the beginning of a watch.
pub(super) const HEADS_BURST: u32 = 20_000;
/// Units of documents and evidence in a second: a card costs a signature for each key on
/// it, some eight in 1 KiB.
pub(super) const DOCUMENTS_PER_SECOND: u32 = 100;
/// Documents at once: the cards and suspensions of the largest coalition.
pub(super) const DOCUMENTS_BURST: u32 = 10_000;

/// What each member has left, by one clock.
type Bucket<C> = RateLimiter<
    MemberNumber,
    DefaultKeyedStateStore<MemberNumber>,
    C,
    NoOpMiddleware<<C as Clock>::Instant>,
>;

/// How much each member may announce.
pub(super) struct Rates<C: Clock + Clone = DefaultClock> {
    heads: Bucket<C>,
    documents: Bucket<C>,
    /// The most that each has at once.
    bursts: (u32, u32),
    clock: C,
}

impl<C: Clock + Clone> Rates<C> {
    /// So many heads, and documents, in a second and at once.
    pub(super) fn new(heads: (u32, u32), documents: (u32, u32), clock: C) -> Self {
        let bucket = |(rate, burst)| {
            let whole = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
            let quota = Quota::per_second(whole(rate)).allow_burst(whole(burst));
            RateLimiter::new(quota, DefaultKeyedStateStore::default(), clock.clone())
        };
        Self {
            heads: bucket(heads),
            documents: bucket(documents),
            bursts: (heads.1, documents.1),
            clock,
        }
    }

    /// Takes one announcement out of the member's bucket, or says how long until it can.
    pub(super) fn take(
        &self,
        member: MemberNumber,
        announcement: &Announcement,
    ) -> Result<(), (Duration, Rejection)> {
        let (bucket, burst, what, limit) = match announcement {
            Announcement::NodeCard(_)
            | Announcement::Suspension(_)
            | Announcement::Evidence(_)
            | Announcement::DocumentEvidence(_)
            | Announcement::GrantEnded(_) => (
                &self.documents,
                self.bursts.1,
                "documents announced in a second",
                DOCUMENTS_PER_SECOND,
            ),
            Announcement::Head(_)
            | Announcement::Roster { .. }
            | Announcement::SnapshotEnd
            | Announcement::Overdue(_)
            | Announcement::Quarantined(..)
            | Announcement::Alive { .. } => (
                &self.heads,
                self.bursts.0,
                "heads announced in a second",
                HEADS_PER_SECOND,
            ),
        };
        let units = NonZeroU32::new(units(announcement).min(burst)).unwrap_or(NonZeroU32::MIN);
        let now = self.clock.now();
        // None is more than a burst: there is always room for it in time.
        let Ok(taken) = bucket.check_key_n(&member, units) else {
            return Ok(());
        };
        taken.map_err(|early| {
            let limit = u64::from(limit);
            let rejection = Rejection::RateLimited { what, limit };
            (early.wait_time_from(now), rejection)
        })
    }
}

/// How many announcements one counts as, by its length.
fn units(announcement: &Announcement) -> u32 {
    let bytes = match announcement {
        Announcement::NodeCard(bytes)
        | Announcement::Suspension(bytes)
        | Announcement::Evidence(bytes)
        | Announcement::DocumentEvidence(bytes) => bytes.len(),
        Announcement::GrantEnded(ended) => weight(&ended.head).saturating_add(ended.leaf.len()),
        Announcement::Head(head) => weight(head),
        Announcement::Overdue(counts) => counts.len().saturating_mul(16),
        Announcement::Quarantined(_, report) => {
            let ranges = report.lots.iter().map(|lot| lot.ranges.len());
            let ranges = ranges.fold(report.lots.len(), usize::saturating_add);
            ranges.saturating_mul(16)
        }
        Announcement::Roster { cosignatures, .. } => long(cosignatures),
        Announcement::SnapshotEnd | Announcement::Alive { .. } => 0,
    };
    u32::try_from(bytes.div_ceil(UNIT_BYTES))
        .unwrap_or(u32::MAX)
        .max(1)
}

/// What a head and all that stands beside it weigh, in bytes.
fn weight(head: &Head) -> usize {
    let beside = [&head.cosignatures, &head.receipts];
    let beside = beside.map(|list| long(list));
    beside
        .into_iter()
        .fold(head.note.len(), usize::saturating_add)
}

fn long(list: &[Bytes]) -> usize {
    // An empty one is not free either.
    list.iter().fold(0, |sum, bytes| {
        sum.saturating_add(bytes.len()).saturating_add(32)
    })
}

impl<C: Clock + Clone> std::fmt::Debug for Rates<C> {
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
    /// The room that it takes of its member's, until the driver has dealt with it.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

impl Heard {
    /// One thing that takes no room.
    #[must_use]
    pub const fn new(peer: PeerIdentity, said: Said) -> Self {
        Self {
            peer,
            said,
            room: None,
        }
    }
}

/// The room of each member.
#[derive(Debug, Default)]
struct Rooms(Mutex<HashMap<MemberNumber, Arc<Semaphore>>>);

impl Rooms {
    /// Waits for a member's room for so many units.
    async fn take(&self, member: MemberNumber, units: u32) -> Option<OwnedSemaphorePermit> {
        let room = {
            let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let whole = || Arc::new(Semaphore::new(MEMBER_WAITING_MAX as usize));
            Arc::clone(rooms.entry(member).or_insert_with(whole))
        };
        let units = units.min(MEMBER_WAITING_MAX);
        room.acquire_many_owned(units).await.ok()
    }
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
    rooms: Arc<Rooms>,
}

impl Inbox {
    /// Makes an inbox and the end that the driver reads.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Heard>) {
        let heads = (HEADS_PER_SECOND, HEADS_BURST);
        let documents = (DOCUMENTS_PER_SECOND, DOCUMENTS_BURST);
        Self::with(Rates::new(heads, documents, DefaultClock::default()))
    }

    fn with(rates: Rates) -> (Self, mpsc::Receiver<Heard>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let inbox = Self {
            sender,
            rates: Arc::new(rates),
            rooms: Arc::default(),
        };
        (inbox, receiver)
    }

    /// Hands one announcement in; waits while the inbox is full. Answers false when
    /// the exchange stops.
    pub async fn said(&self, peer: &PeerIdentity, announcement: Announcement) -> bool {
        let units = units(&announcement);
        // The driver takes nothing in any more where there is none.
        let room = tokio::select! {
            room = self.rooms.take(peer.member, units) => room,
            () = self.sender.closed() => return false,
        };
        let heard = Heard {
            room,
            ..Heard::new(peer.clone(), Said::Announced(announcement))
        };
        self.sender.send(heard).await.is_ok()
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
        self.sender
            .send(Heard::new(peer.clone(), said))
            .await
            .is_ok()
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
        let (inbox, mut heard) = Inbox::with(Rates::new((1, 1), (1, 2), DefaultClock::default()));
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

    fn head(receipts: usize) -> Announcement {
        Announcement::Head(Box::new(Head {
            feed: hashpact_core::id::FeedId(Digest([1; 32])),
            publisher: MemberNumber::new(1).unwrap(),
            note: bytes::Bytes::from(vec![0; 300]),
            cosignatures: vec![],
            receipts: vec![bytes::Bytes::from(vec![0; 4_000]); receipts],
        }))
    }

    #[test]
    fn a_long_announcement_counts_as_many_against_the_rate_of_its_member() {
        let rates = Rates::new((1, 100), (1, 100), DefaultClock::default());
        let (member, other) = (MemberNumber::new(1).unwrap(), MemberNumber::new(2).unwrap());
        // As much as a burst at most: it comes in time, alone.
        assert!(rates.take(member, &head(480)).is_ok());
        let (_, refused) = rates.take(member, &head(0)).unwrap_err();
        assert_eq!(refused.code(), "rate_limited");
        for _ in 0..100 {
            assert!(rates.take(other, &head(0)).is_ok());
        }
        assert!(rates.take(other, &head(0)).is_err());
        let card = Announcement::NodeCard(bytes::Bytes::from(vec![0; 16 * 1024]));
        assert_eq!(
            (units(&head(0)), units(&head(480)), units(&card)),
            (1, 1_891, 16)
        );
    }

    #[tokio::test]
    async fn what_waits_of_one_member_is_bounded_in_bytes_and_in_nobodys_way() {
        let (inbox, mut heard) = Inbox::new();
        let hostile = peer();
        let honest = PeerIdentity {
            member: MemberNumber::new(2).unwrap(),
            ..peer()
        };
        let (flood, by) = (inbox.clone(), hostile.clone());
        let flooding = tokio::spawn(async move {
            for _ in 0..3 {
                assert!(flood.said(&by, head(480)).await);
            }
        });
        // The first is taken; the second has no room until the driver is done with it.
        let first = heard.recv().await.unwrap();
        tokio::task::yield_now().await;
        let suspension = Announcement::Suspension(bytes::Bytes::from_static(b"of the hostile"));
        assert!(inbox.said(&honest, suspension).await);
        let second = heard.recv().await.unwrap();
        assert_eq!(second.peer, honest);
        drop(first);
        assert_eq!(heard.recv().await.unwrap().peer, hostile);
        assert_eq!(heard.recv().await.unwrap().peer, hostile);
        flooding.await.unwrap();
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
