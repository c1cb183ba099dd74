//! What this node may pull and match, worked out whenever access changes.

use std::collections::BTreeSet;

use hashpact_core::access::{Grants, MemberAccess};
use hashpact_core::id::{FeedId, MemberNumber};
use hashpact_core::leaf::Describe;
use hashpact_core::puller::{Denied, Event, PeerId};
use hashpact_node::NodeError;
use hashpact_store::{FeedInfo, FeedStatus};

use super::driver::Driver;
use super::pipeline::describe_of;

impl Driver {
    /// Works out what may be pulled from whom, and says again what was announced of
    /// what may be pulled again.
    pub(super) fn access_changed(&mut self) {
        // Also said when a new roster came, whose limit may be another.
        let per_hour = self.snapshot();
        let per_hour = per_hour.and_then(|s| s.roster().roster().feed_growth_per_hour);
        self.tell(Event::GrowthLimit { per_hour });
        let before = std::mem::take(&mut self.denied);
        self.denied = self.denials();
        self.silence();
        self.forget_non_readers();
        if self.denied == before {
            return;
        }
        self.tell(Event::AccessChanged(self.denied.clone()));
        let now = &self.denied;
        let back: Vec<_> = self
            .announced
            .iter()
            .filter(|((peer, feed), _)| covers(&before, *peer, *feed) && !covers(now, *peer, *feed))
            .filter_map(|((peer, feed), head)| {
                Some((*peer, *self.publishers.get(feed)?, head.clone()))
            })
            .collect();
        for (peer, publisher, head) in back {
            self.tell(Event::HeadAnnounced {
                peer,
                publisher,
                head,
            });
        }
    }

    fn denials(&self) -> Denied {
        let mut denied = Denied::default();
        let Some(snapshot) = self.snapshot() else {
            // Without a place in the roster nothing is pulled.
            denied.feeds = self.publishers.keys().copied().collect();
            denied.peers = self.peers.keys().copied().collect();
            return denied;
        };
        let member = |peer: &PeerId| self.peers.get(peer).map(|known| known.key.0);
        let away = |peer: &PeerId| !member(peer).is_some_and(|m| snapshot.may_connect(m));
        denied.peers = self
            .peers
            .keys()
            .filter(|peer| away(peer))
            .copied()
            .collect();
        let feeds = self.publishers.iter();
        denied.feeds = feeds
            .filter(|(feed, publisher)| !self.may_pull(**feed, **publisher))
            .map(|(feed, _)| *feed)
            .collect();
        let pairs: BTreeSet<(PeerId, FeedId)> = self
            .announced
            .keys()
            .filter(|(peer, feed)| !self.may_pull_from(*peer, *feed))
            .copied()
            .collect();
        denied.pairs = pairs;
        denied
    }

    /// Adds what is denied of a peer's feed that was not announced before; says
    /// whether anything is.
    pub(super) fn deny_pair(&mut self, peer: PeerId, feed: FeedId) -> bool {
        let publisher = self.publishers.get(&feed).copied();
        let mut more = false;
        if let Some(publisher) = publisher.filter(|publisher| !self.may_pull(feed, *publisher)) {
            more |= self.denied.feeds.insert(feed);
            self.show_room(feed, publisher);
        }
        if !self.may_pull_from(peer, feed) {
            more |= self.denied.pairs.insert((peer, feed));
        }
        more
    }

    /// Whether this node pulls no leaves of others: it is a witness and nothing else, or
    /// its member reads no feeds.
    ///
    /// PROTOCOL 15.5: a witness hears of all feeds, and asks for no leaves.
    pub(super) fn only_witnesses(&self) -> bool {
        let only = self.node.witnessing().is_some_and(|witness| witness.only());
        let own = self.node.membership().own().ok();
        let reads = own
            .zip(self.snapshot())
            .is_none_or(|(own, snapshot)| snapshot.may_subscribe(own));
        only || !reads
    }

    /// Whether a feed may be pulled at all. Of a feed that is not held yet, who
    /// serves it decides.
    fn may_pull(&self, feed: FeedId, publisher: MemberNumber) -> bool {
        if self.returning.contains(&feed) {
            return true;
        }
        let Some(snapshot) = self.snapshot() else {
            return false;
        };
        if !self.has_room(feed, publisher) {
            return false;
        }
        match self.grants(feed) {
            Some((held, grants)) => held.own || self.may_read(&held, &grants),
            // Its own member's feeds a publisher pulls without a role.
            None if self.node.membership().own().ok() == Some(publisher) => true,
            None => snapshot.may_publish(publisher) && !self.only_witnesses(),
        }
    }

    /// Whether a peer may serve a feed: its publisher, a relay, or to its own
    /// publisher anybody.
    fn may_pull_from(&self, peer: PeerId, feed: FeedId) -> bool {
        let (Some(snapshot), Some(known)) = (self.snapshot(), self.peers.get(&peer)) else {
            return false;
        };
        if self.returning.contains(&feed) {
            return true;
        }
        let relay = known.key.0;
        // A witness shows heads of feeds of which it holds no leaves.
        let publisher = self.publishers.get(&feed);
        if publisher != Some(&relay) && !snapshot.may_subscribe(relay) {
            return false;
        }
        self.grants(feed).is_none_or(|(held, grants)| {
            relay == held.publisher
                || snapshot
                    .may_relay(relay, held.publisher, Some(&grants))
                    .is_ok()
        })
    }

    /// Whether this node may read a feed under these grants.
    pub(super) fn may_read(&self, feed: &FeedInfo, grants: &Grants) -> bool {
        let own = self.node.membership().own().ok();
        let (Some(snapshot), Some(own)) = (self.snapshot(), own) else {
            return false;
        };
        snapshot.may_read(own, feed.publisher, Some(grants)).is_ok()
    }

    fn grants(&self, feed: FeedId) -> Option<(FeedInfo, Grants)> {
        let held = self.held_feed(&feed)?;
        let describe = describe_of(&held)?;
        Some((held, Grants::of(&describe)))
    }

    /// A feed that this node may not read answers nothing; one that it may read
    /// again does. ⚠ A suspension takes nothing away, neither one of the publisher nor
    /// one of this member: one administrator alone makes it, and it changes access, never
    /// standing.
    fn silence(&self) {
        let Some(snapshot) = self.snapshot() else {
            return;
        };
        let own = self.node.membership().own();
        if own.is_ok_and(|own| snapshot.member(own) == MemberAccess::Suspended) {
            return;
        }
        for feed in self.node.store().feeds() {
            let Some(describe) = describe_of(&feed).filter(|_| !feed.own) else {
                continue;
            };
            if !snapshot.may_publish(feed.publisher) {
                continue;
            }
            if let Err(error) = self.silence_one(&feed, &describe) {
                tracing::error!(%error, code = error.code(), "silencing a feed");
            }
        }
    }

    fn silence_one(&self, feed: &FeedInfo, describe: &Describe) -> Result<(), NodeError> {
        let reads = self.may_read(feed, &Grants::of(describe));
        let status = match (feed.status, reads) {
            (FeedStatus::Active, false) => {
                let index = feed.describe.as_ref().map_or(0, |(index, _)| *index);
                if self.leaves_slowly(feed, (index, describe))? {
                    return self.leave(feed, index);
                }
                FeedStatus::Silent
            }
            (FeedStatus::Silent, true) => FeedStatus::Active,
            (FeedStatus::Leaving, _) if Self::stays(feed, reads) => FeedStatus::Active,
            (
                FeedStatus::Active
                | FeedStatus::Frozen
                | FeedStatus::Leaving
                | FeedStatus::Dropping,
                _,
            )
            | (FeedStatus::Silent, false) => return Ok(()),
        };
        tracing::info!(set = %describe.name, answers = reads, "access to a set changed");
        let store = self.node.store();
        if status == FeedStatus::Active {
            let open = self.node.membership().epoch(feed.id);
            store.follow_feed(feed.no, feed.epoch..=open.max(feed.epoch))?;
        } else {
            store.set_feed_status(feed.no, status)?;
        }
        Ok(())
    }
}

fn covers(denied: &Denied, peer: PeerId, feed: FeedId) -> bool {
    denied.feeds.contains(&feed)
        || denied.peers.contains(&peer)
        || denied.pairs.contains(&(peer, feed))
}
