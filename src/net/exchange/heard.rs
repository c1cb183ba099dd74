//! What peers announce, taken in: heads, documents, evidence, ended grants.
//!
//! Each is verified here, by the core, before the puller or the store hears of it.
//! Heads of this node's own feeds go to the publisher: they say whether it may sign.

use bytes::Bytes;
use hashpact_core::access::Grants;
use hashpact_core::checkpoint::SignedCheckpoint;
use hashpact_core::evidence::ForkEvidence;
use hashpact_core::id::{Digest, FeedId, MemberNumber};
use hashpact_core::merkle::proof::verify_inclusion;
use hashpact_core::page;
use hashpact_core::puller::{Event, Head, PeerId};
use hashpact_core::reject::Rejection;
use hashpact_core::verified::Verified;
use hashpact_node::NodeError;
use hashpact_node::hub::Change;
use hashpact_store::{FeedInfo, ForkName};

use super::documents_in;
use super::driver::Driver;
use super::epochs::{self, Lacks};
use super::errand::Errand;
use super::fork;
use super::inbox::{Heard, Said};
use super::pipeline::{read_describe, verify_head};
use super::storing;
use crate::types::{self, Announcement, GrantEnded, RosterItem};

/// Heads remembered, over all peers and feeds; beyond it a change of access waits
/// for the next announcement.
const ANNOUNCED_MAX: usize = 200_000;
/// Rosters remembered as asked for.
const ASKED_MAX: usize = 256;

impl Driver {
    /// Takes in one thing that a peer said.
    pub(crate) fn hear(&mut self, heard: Heard) {
        // Its room is free again when it was dealt with.
        let Heard {
            peer,
            said,
            room: _room,
        } = heard;
        let id = self.peer_id(&peer);
        let watches = metrics::gauge!("hashpact_watches");
        match said {
            Said::Began => {
                watches.increment(1);
                self.node.reports_begin((peer.member, &peer.node));
            }
            Said::Ended => watches.decrement(1),
            Said::Refused(rejection) => {
                let feed = None;
                self.tell(Event::HeadRejected {
                    peer: id,
                    feed,
                    rejection,
                });
            }
            // It waits; nothing else follows for it.
            Said::Slowed(rejection) => self.reject(id, None, &rejection),
            // It may have been cut off since: nothing of it is looked at.
            Said::Announced(_) if self.is_cut_off(peer.member) => {}
            Said::Announced(announcement) => {
                let key = (peer.member, peer.node);
                self.board.heard(&key, self.node.clock().now());
                self.tell(Event::PeerHeard { peer: id });
                self.announcement(id, announcement);
            }
        }
    }

    fn is_cut_off(&self, member: MemberNumber) -> bool {
        self.snapshot().is_some_and(|s| !s.may_connect(member))
    }

    fn announcement(&mut self, peer: PeerId, announcement: Announcement) {
        let taken = match announcement {
            Announcement::Roster {
                version,
                digest,
                cosignatures,
            } => {
                self.roster_named(peer, version, digest);
                self.roster_words(peer, version, digest, cosignatures);
                Ok(())
            }
            Announcement::NodeCard(bytes) => self.document(RosterItem::NodeCard(bytes)),
            Announcement::Suspension(bytes) => self.document(RosterItem::Suspension(bytes)),
            Announcement::Head(head) => return self.head(peer, *head),
            Announcement::SnapshotEnd => {
                self.said_all(peer);
                self.reports_said(peer);
                Ok(())
            }
            Announcement::Alive { .. } => Ok(()),
            Announcement::Evidence(bytes) => self.evidence(Some(peer), &bytes),
            Announcement::DocumentEvidence(bytes) => {
                let membership = self.node.membership();
                membership.accept_equivocation(&bytes).map(drop)
            }
            Announcement::GrantEnded(ended) => self.grant_ended(&ended),
            Announcement::Quarantined(feed, report) => self.report(peer, feed, report),
            Announcement::Overdue(overdue) => {
                if let Some(known) = self.peers.get(&peer) {
                    self.board
                        .peer(&known.key, |row| row.overdue_receipts = overdue);
                }
                Ok(())
            }
        };
        match taken {
            Ok(()) => {}
            Err(NodeError::Rejected(rejection)) => self.reject(peer, None, &rejection),
            Err(error) => failed(&error),
        }
    }

    fn document(&self, item: RosterItem) -> Result<(), NodeError> {
        documents_in::accept(&self.node, item).map(drop)
    }

    /// A peer names its newest roster: a newer one, or another of the same version,
    /// is asked for, over a connection to call it on.
    fn roster_named(&mut self, peer: PeerId, version: u64, digest: Digest) {
        let state = self.node.membership().state();
        let held = state.chain.as_ref();
        let (held_version, held_digest) = held.map_or((0, None), |chain| {
            (chain.version(), Some(chain.current().digest()))
        });
        self.show_roster(peer, version);
        if version < held_version || held_digest == Some(digest) {
            return;
        }
        if !self.reached.contains(&peer) {
            return;
        }
        if self.asked_for.len() >= ASKED_MAX {
            self.asked_for.clear();
        }
        // The same roster of another peer is asked for only if this peer fails, by
        // the next greeting.
        if !self.asked_for.insert(digest) {
            return;
        }
        let from = version.min(held_version.saturating_add(1));
        self.errand(Errand::AskRoster { peer, from });
    }

    fn show_roster(&self, peer: PeerId, version: u64) {
        if let Some(known) = self.peers.get(&peer) {
            self.board
                .peer(&known.key, |row| row.roster_version = version);
        }
    }

    /// A head: verified with the publisher's keys, then the puller's.
    pub(super) fn head(&mut self, peer: PeerId, announced: types::Head) {
        let feed = announced.feed;
        let held = self.held_feed(&feed);
        let verified = self.verified(&announced, held.as_ref());
        if let Ok(Some(head)) = &verified {
            if let Some(held) = held.as_ref().filter(|held| !held.own) {
                let rank = (head.checkpoint.origin.epoch, head.size());
                let connected = self.peers.get(&peer).filter(|_| !self.files.has(peer));
                let by = connected.map(|known| known.key.0);
                self.node.heard_of(held, rank, by);
            }
            self.beside(peer, &announced, head);
            self.show_witness(peer, &announced, head);
        }
        match verified {
            Ok(None) => {}
            // No fault of the peer's: one of the two has older documents.
            Err(rejection) if epochs::may_hold_later(&rejection) => {
                self.reject(peer, Some(feed), &rejection);
                self.hear_later(peer, announced);
            }
            Err(rejection @ Rejection::WrongEpoch { .. }) => {
                self.reject(peer, Some(feed), &rejection);
            }
            Err(rejection) => self.tell(Event::HeadRejected {
                peer,
                feed: Some(feed),
                rejection,
            }),
            Ok(Some(head)) if self.is_own(&head, held.as_ref(), &announced) => {
                if let Err(error) = self.own_head(peer, &announced, head, held) {
                    failed(&error);
                }
            }
            Ok(Some(head)) => {
                let epoch = head.checkpoint.origin.epoch;
                if self.awaits_epoch(held.as_ref(), epoch) {
                    self.hear_later(peer, announced);
                } else {
                    self.take_resigned(&head, held.as_ref());
                    self.offer(peer, &announced, Head::from(head));
                }
            }
        }
    }

    /// Checks a head; `None` for one of a publisher whose feeds are not pulled.
    fn verified(
        &self,
        announced: &types::Head,
        held: Option<&FeedInfo>,
    ) -> Result<Option<Verified<SignedCheckpoint>>, Rejection> {
        let (feed, publisher) = (announced.feed, announced.publisher);
        let own = self.node.membership().own().ok();
        let publishes = self.snapshot().is_some_and(|s| s.may_publish(publisher));
        if !publishes && own != Some(publisher) {
            return Ok(None);
        }
        if held.is_some_and(|held| held.publisher != publisher) {
            return Err(Rejection::WrongOrigin { feed });
        }
        let set = held.and_then(Self::set_of);
        verify_head(&self.node, publisher, set.as_ref(), feed, &announced.note).map(Some)
    }

    /// Whether this node publishes the feed: by its store, or, when the store has
    /// lost it, by the node on the card whose key signed.
    fn is_own(
        &self,
        head: &Verified<SignedCheckpoint>,
        held: Option<&FeedInfo>,
        announced: &types::Head,
    ) -> bool {
        if let Some(held) = held {
            return held.own;
        }
        let membership = self.node.membership();
        if membership.own().ok() != Some(announced.publisher) {
            return false;
        }
        let state = membership.state();
        let card = state.cards.newest(announced.publisher);
        let node = card.and_then(|card| card.card().node(self.node.name()));
        node.is_some_and(|node| node.feed_keys.iter().any(|key| key.key == head.key))
    }

    /// A head of an own feed that is ahead of what is held closes the feed
    /// for publishing, and its leaves are pulled back.
    fn own_head(
        &mut self,
        peer: PeerId,
        announced: &types::Head,
        head: Verified<SignedCheckpoint>,
        held: Option<FeedInfo>,
    ) -> Result<(), NodeError> {
        let feed = announced.feed;
        self.node.publisher().heard_own_head(&head);
        if let Some(held) = held {
            if !self.returning.contains(&feed) {
                self.node.publisher().saw_own_head(&held, &head)?;
            }
            if head.size() <= held.applied.map_or(0, |applied| applied.size) {
                return Ok(());
            }
            if self.returning.insert(feed) {
                self.hold(&held);
            }
        } else {
            self.returning.insert(feed);
        }
        self.offer(peer, announced, Head::from(head));
        Ok(())
    }

    /// Tells the puller of a head that a peer can serve.
    fn offer(&mut self, peer: PeerId, announced: &types::Head, head: Head) {
        let (feed, publisher) = (announced.feed, announced.publisher);
        if let Err(rejection) = self.remember_publisher(feed, publisher) {
            return self.reject(peer, Some(feed), &rejection);
        }
        let pair = (peer, feed);
        let is_new = !self.announced.contains_key(&pair);
        if self.reached.contains(&peer) && (!is_new || self.announced.len() < ANNOUNCED_MAX) {
            self.announced.insert(pair, head.clone());
        }
        if is_new && self.deny_pair(peer, feed) {
            self.tell(Event::AccessChanged(self.denied.clone()));
        }
        self.keep_unheld(feed);
        self.tell(Event::HeadAnnounced {
            peer,
            publisher,
            head,
        });
    }

    /// Notes whose a feed is. ⚠ A publisher can sign heads of as many feeds as it
    /// likes, none of which need exist: what one may have takes no room of others.
    pub(super) fn remember_publisher(
        &mut self,
        feed: FeedId,
        publisher: MemberNumber,
    ) -> Result<(), Rejection> {
        if self.publishers.contains_key(&feed) {
            return Ok(());
        }
        // PROTOCOL 16.11: so many feeds of one publisher, and so many in all.
        let of_publisher = self.publishers.values().filter(|of| **of == publisher);
        let settings = self.puller.settings();
        let bounds = [
            (
                "feeds of one publisher",
                of_publisher.count(),
                settings.feeds_per_publisher_max,
            ),
            ("feeds", self.publishers.len(), settings.feeds_max),
        ];
        for (what, known, max) in bounds {
            if known >= max {
                let limit = u64::try_from(max).unwrap_or(u64::MAX);
                return Err(Rejection::RateLimited { what, limit });
            }
        }
        self.publishers.insert(feed, publisher);
        Ok(())
    }

    /// Evidence of a fork from elsewhere: checked as strictly as a chunk, kept, and
    /// the feed freezes.
    ///
    /// ⚠ What is about an epoch that the roster has not opened waits for a roster that does,
    /// a piece of a peer for each feed: whoever has a feed key can sign as many epochs as
    /// there are numbers, also such that a revocation opens later.
    pub(super) fn evidence(
        &mut self,
        peer: Option<PeerId>,
        bytes: &Bytes,
    ) -> Result<(), NodeError> {
        let evidence = ForkEvidence::decode(bytes)?;
        let feed = evidence.feed;
        let Some(publisher) = self.publishers.get(&feed).copied() else {
            return Ok(()); // nothing of the feed is known here
        };
        let epoch = evidence.epoch()?;
        let open = self.node.membership().epoch(feed);
        if epoch < open {
            return Ok(()); // the roster has closed that epoch, and what it says of it
        }
        if epoch > open {
            self.prove_later(peer, feed, (Lacks::Roster, bytes));
            return Ok(());
        }
        // One piece shows what happened. ⚠ Whoever has one makes any number of others of it.
        if fork::is_known(&self.node, publisher, &ForkName { feed, epoch })? {
            return Ok(());
        }
        let proven = fork::check(&self.node, publisher, &evidence);
        // The card with the key may be on its way; nobody says the piece again.
        if let Err(Rejection::BadSignature { .. }) = proven {
            self.prove_later(peer, feed, (Lacks::Card, bytes));
        }
        let proven = proven?;
        if fork::keep(&self.node, publisher, (evidence, &proven))? {
            tracing::error!(feed = %feed.0.short(), "a peer proved that the publisher forked a feed");
            self.freeze(feed);
            self.tell(Event::ForkFound { feed });
            self.node.hub().tell(Change::Evidence(feed));
        }
        Ok(())
    }

    fn prove_later(&mut self, peer: Option<PeerId>, feed: FeedId, evidence: (Lacks, &Bytes)) {
        let peer = peer.and_then(|peer| Some((peer, self.peers.get(&peer)?.key.0)));
        if let Some(peer) = peer {
            self.epochs.prove_later(peer, feed, evidence);
        }
    }

    /// PROTOCOL 16.13: a member that loses its grant gets that one describe leaf, stops
    /// matching and drops the data; 15.10 says when it waits with that.
    fn grant_ended(&mut self, ended: &GrantEnded) -> Result<(), NodeError> {
        let feed = ended.head.feed;
        let Some(held) = self.held_feed(&feed).filter(|held| !held.own) else {
            return Ok(());
        };
        if self.going.contains(&feed) {
            return Ok(()); // it is being dropped
        }
        if held
            .describe
            .as_ref()
            .is_some_and(|(index, _)| ended.index <= *index)
        {
            return Ok(()); // an older leaf than the one in force
        }
        if held
            .leaving
            .is_some_and(|leaving| ended.index >= leaving.index)
        {
            return Ok(()); // that it goes is known
        }
        if self.was_told_more(&held, ended.index) {
            return Ok(()); // a later leaf grants this member again
        }
        let set = Self::set_of(&held);
        let note = &ended.head.note;
        let head = verify_head(&self.node, held.publisher, set.as_ref(), feed, note)?;
        let mut leaves = page::decode_plain(&ended.leaf, 1)?;
        let what = "ended grant";
        let leaf = leaves
            .pop()
            .ok_or_else(|| Rejection::invalid(what, "no leaf"))?;
        let (index, size) = (ended.index, head.size());
        verify_inclusion(&leaf.hash(), index, size, &ended.inclusion, &head.root())?;
        let describe = read_describe(&leaf, index)
            .ok_or_else(|| Rejection::invalid(what, "the leaf describes nothing"))?;
        if self.may_read(&held, &Grants::of(&describe)) {
            return Err(Rejection::invalid(what, "the leaf grants this member").into());
        }
        if self.leaves_slowly(&held, (index, &describe))? {
            return self.leave(&held, index);
        }
        tracing::warn!(set = %describe.name, "the grant has ended: the set is dropped");
        self.lost(feed);
        Ok(())
    }

    /// Whether the publisher itself told this member of a head beyond a leaf: it tells
    /// its readers alone. ⚠ Else whoever keeps the leaf that once ended a grant could
    /// have a set dropped again and again, until this node has pulled past it.
    fn was_told_more(&self, held: &FeedInfo, index: u64) -> bool {
        let own = self.node.membership().own().ok();
        let witness = own
            .zip(self.snapshot())
            .is_some_and(|(own, s)| s.is_witness(own));
        let of_publisher = |peer: &PeerId| {
            let known = self.peers.get(peer);
            let is_it = known.is_some_and(|known| known.key.0 == held.publisher);
            is_it && !self.files.has(*peer)
        };
        let mut told = self.announced.iter();
        !witness
            && told.any(|((peer, feed), head)| {
                *feed == held.id && head.size() > index && of_publisher(peer)
            })
    }

    /// Stops matching at once, and drops the data.
    pub(super) fn lost(&mut self, feed: FeedId) {
        self.going.insert(feed);
        self.tell(Event::FeedGone { feed });
        self.announced.retain(|(_, of), _| *of != feed);
        self.desk(feed, storing::Order::DropFeed);
    }
}

fn failed(error: &NodeError) {
    tracing::error!(%error, code = error.code(), "taking an announcement in");
}
