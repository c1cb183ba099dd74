//! Peers that come and go, what they announce, and what access allows.

use super::backoff::Fault;
use super::feed::{Conflict, Feed};
use super::peers::Peer;
use super::types::{Action, ChunkId, Denied, Head, JobId, PeerId};
use super::{Puller, Scope};
use crate::id::{FeedId, MemberNumber};
use crate::reject::Rejection;

impl Puller {
    pub(super) fn peer_up(&mut self, id: PeerId, member: MemberNumber) -> Scope {
        if !self.peers.contains_key(&id) && self.peers.len() >= self.settings.peers_max {
            return Scope::Nothing; // it can be asked again when others were forgotten
        }
        let peer = self.peers.entry(id).or_insert_with(|| Peer::new(member));
        peer.member = member;
        peer.up = true;
        peer.heard(self.now, self.settings.poll_ms, &mut self.jitter);
        Scope::Nothing
    }

    pub(super) fn peer_down(&mut self, id: PeerId, out: &mut Vec<Action>) -> Scope {
        let Some(peer) = self.peers.get_mut(&id) else {
            return Scope::Nothing;
        };
        peer.up = false;
        let cut = self.jobs_where(|job| job.peer == id);
        for job in cut {
            self.end_job(job, Some(Fault::Cut));
            out.push(Action::CancelPull { job });
        }
        for feed in self.feeds.values_mut() {
            if let Some(offer) = feed.offers.get_mut(&id) {
                offer.head = None; // it says again what it has when it is back
            }
        }
        Scope::All
    }

    pub(super) fn peer_heard(&mut self, id: PeerId) -> Scope {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.heard(self.now, self.settings.poll_ms, &mut self.jitter);
        }
        Scope::Nothing
    }

    pub(super) fn head_rejected(
        &mut self,
        peer: PeerId,
        feed: Option<FeedId>,
        rejection: Rejection,
        out: &mut Vec<Action>,
    ) -> Scope {
        out.push(Action::Reject {
            peer,
            feed,
            rejection,
        });
        let Some(known) = self.peers.get_mut(&peer) else {
            return Scope::Nothing;
        };
        known.strike(self.now, &mut self.jitter);
        let offers = feed.and_then(|id| self.feeds.get_mut(&id));
        if let Some(offer) = offers.and_then(|feed| feed.offers.get_mut(&peer)) {
            offer.backoff.fail(self.now, Fault::Lie, &mut self.jitter);
        }
        Scope::Nothing
    }

    pub(super) fn head_announced(
        &mut self,
        peer: PeerId,
        publisher: MemberNumber,
        head: Head,
        out: &mut Vec<Action>,
    ) -> Scope {
        let id = head.feed;
        let up = self.peers.get(&peer).is_some_and(|known| known.up);
        if !up || self.denied.covers(peer, id) {
            self.head_witnessed(peer, head, out);
            return Scope::Nothing;
        }
        self.peer_heard(peer);
        let reject = |rejection| Action::Reject {
            peer,
            feed: Some(id),
            rejection,
        };
        if let Err(rejection) = self.admit(id, publisher) {
            out.push(reject(rejection));
            return Scope::Nothing;
        }
        let Some(feed) = self.feeds.get_mut(&id) else {
            return Scope::Nothing;
        };
        if let Some(conflict) = feed.conflict(&head) {
            let rejection = Rejection::TwoRoots { size: head.size };
            out.push(reject(rejection.clone()));
            self.fork(id, conflict, head, None, rejection, out);
            return Scope::All;
        }
        let offer = feed.offers.entry(peer).or_default();
        if let Some(before) = &offer.head
            && head.rank() < before.rank()
        {
            // PROTOCOL "pulling": one peer's head of a feed never goes back.
            out.push(reject(Rejection::HeadWentBack {
                held: before.size,
                got: head.size,
            }));
            return Scope::Nothing;
        }
        offer.head = Some(head.clone());
        feed.remember(&head);
        if !feed.frozen {
            let compare = feed.comparable_now(peer, head);
            out.extend(compare.map(|head| Action::CompareHead { feed: id, head }));
        }
        Scope::One(id)
    }

    /// A head of a peer from which no leaves are pulled: it may not relay the feed, or
    /// only dials. Still two heads that cannot both be true are a fork, whoever shows them.
    fn head_witnessed(&mut self, peer: PeerId, head: Head, out: &mut Vec<Action>) {
        let id = head.feed;
        if self.denied.peers.contains(&peer) || self.denied.feeds.contains(&id) {
            return;
        }
        let Some(feed) = self.feeds.get_mut(&id).filter(|feed| !feed.frozen) else {
            return;
        };
        if let Some(conflict) = feed.conflict(&head) {
            let rejection = Rejection::TwoRoots { size: head.size };
            out.push(Action::Reject {
                peer,
                feed: Some(id),
                rejection: rejection.clone(),
            });
            self.fork(id, conflict, head, None, rejection, out);
        } else {
            feed.remember_beside(&head);
            let compare = feed.comparable_now(peer, head);
            out.extend(compare.map(|head| Action::CompareHead { feed: id, head }));
        }
    }

    /// Makes room for a feed, within the bounds.
    fn admit(&mut self, id: FeedId, publisher: MemberNumber) -> Result<(), Rejection> {
        if let Some(feed) = self.feeds.get(&id) {
            return if feed.publisher == publisher {
                Ok(())
            } else {
                Err(Rejection::WrongOrigin { feed: id })
            };
        }
        let limited = |what, limit: usize| Rejection::RateLimited {
            what,
            limit: u64::try_from(limit).unwrap_or(u64::MAX),
        };
        if self.feeds.len() >= self.settings.feeds_max {
            return Err(limited("feeds", self.settings.feeds_max));
        }
        let of_publisher = self
            .feeds
            .values()
            .filter(|feed| feed.publisher == publisher);
        if of_publisher.count() >= self.settings.feeds_per_publisher_max {
            let limit = self.settings.feeds_per_publisher_max;
            return Err(limited("feeds of one publisher", limit));
        }
        self.feeds.insert(id, Feed::new(publisher));
        Ok(())
    }

    /// Freezes a feed whose publisher signed two states that cannot both be true.
    pub(super) fn fork(
        &mut self,
        id: FeedId,
        conflict: Conflict,
        offered: Head,
        chunk: Option<ChunkId>,
        rejection: Rejection,
        out: &mut Vec<Action>,
    ) {
        let again = self.feeds.get(&id).is_some_and(|feed| feed.frozen);
        self.abandon(id, out);
        if let Some(feed) = self.feeds.get_mut(&id) {
            feed.frozen = true;
        }
        if again {
            out.extend(chunk.map(|chunk| Action::Drop { chunk }));
            return;
        }
        out.push(Action::Fork {
            feed: id,
            held: conflict.held,
            offered,
            chunk,
            rejection,
        });
    }

    pub(super) fn access_changed(&mut self, denied: Denied, out: &mut Vec<Action>) -> Scope {
        self.denied = denied;
        let covered: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| self.denied.covers(job.peer, job.feed))
            .map(|(id, _)| *id)
            .collect();
        for job in covered {
            self.end_job(job, None);
            out.push(Action::CancelPull { job });
        }
        let lost: Vec<FeedId> = self.denied.feeds.iter().copied().collect();
        for feed in lost {
            self.abandon(feed, out);
        }
        for (id, feed) in &mut self.feeds {
            let denied = &self.denied;
            feed.offers.retain(|peer, _| !denied.covers(*peer, *id));
        }
        Scope::All
    }

    /// Gives up every pull of a feed and what waits of it.
    pub(super) fn abandon(&mut self, id: FeedId, out: &mut Vec<Action>) {
        for job in self.jobs_where(|job| job.feed == id) {
            self.jobs.remove(&job);
            out.push(Action::CancelPull { job });
        }
        if let Some(feed) = self.feeds.get_mut(&id) {
            feed.abandon(out);
        }
    }
}
