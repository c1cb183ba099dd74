//! Drives the core's witness: tells it what peers show, asks for the proofs that it
//! wants, records what it says, signs, and has it told.
//!
//! Blocking: a record is synced here, in its place in the order of things.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hashpact_core::checkpoint::SignedCheckpoint;
use hashpact_core::chunk::{PinnedHead, ProofParts};
use hashpact_core::evidence::ForkEvidence;
use hashpact_core::id::{FeedId, MemberNumber, Slug, UnixMillis};
use hashpact_core::keys::{PublicKey, Witness as WitnessKey};
use hashpact_core::note::Note;
use hashpact_core::puller::{Head, JobId, PeerId};
use hashpact_core::verified::Verified;
use hashpact_core::witness::{Action, Base, Cosigned, Event, Extension, Witness};
use hashpact_node::cosignatures::OwnWords;
use hashpact_node::hub::Change;
use hashpact_node::publish::{Contact, PeerKey};
use hashpact_store::HeadRef;

use super::driver::Driver;
use super::errand::Errand;
use super::fork;
use crate::types::{self, PullRequest};

/// The witness of a driver whose node has a witness key.
#[derive(Default)]
pub(super) struct Cosigning {
    machine: Witness,
    jobs: BTreeMap<JobId, Proof>,
    wake: Option<UnixMillis>,
    /// Peers that have said all that they hold, and when the first had.
    said: BTreeSet<PeerKey>,
    first_said: Option<UnixMillis>,
    /// Feeds whose cosignature waits for a role, a card or an epoch.
    unsigned: BTreeSet<FeedId>,
    /// The key that signed last.
    key: Option<PublicKey<WitnessKey>>,
}

/// A proof that is asked for.
struct Proof {
    peer: PeerId,
    feed: FeedId,
    from: u64,
    head: PinnedHead,
}

impl Driver {
    /// Tells the witness what it has recorded, and which feeds are known to be forked.
    pub(super) fn begin_cosigning(&mut self) {
        let Some(witnessing) = self.node.witnessing().cloned() else {
            return;
        };
        self.cosigning = Some(Cosigning {
            key: Some(witnessing.key()),
            ..Cosigning::default()
        });
        self.begin_roster(&witnessing);
        for (feed, cosigned) in witnessing.recorded() {
            self.publishers.entry(feed).or_insert(cosigned.publisher);
            self.tell_witness(Event::Held { feed, cosigned });
        }
        for fork in self.node.store().forks().unwrap_or_default() {
            let (feed, epoch) = (fork.feed, fork.epoch);
            if epoch <= self.node.membership().epoch(feed) {
                self.tell_witness(Event::Forked { feed, epoch });
            }
        }
    }

    /// A peer showed a verified head.
    pub(super) fn show_witness(
        &mut self,
        peer: PeerId,
        announced: &types::Head,
        head: &Verified<SignedCheckpoint>,
    ) {
        if self.cosigning.is_none() || !self.witnesses(announced.publisher) {
            return;
        }
        let (feed, publisher) = (announced.feed, announced.publisher);
        let epoch = head.checkpoint.origin.epoch;
        // PROTOCOL 11.9: new heads are of the epoch that the newest roster has opened.
        if epoch != self.node.membership().epoch(feed) {
            return;
        }
        let Some(member) = self.peers.get(&peer).map(|known| known.key.0) else {
            return;
        };
        if let Err(rejection) = self.remember_publisher(feed, publisher) {
            return self.reject(peer, Some(feed), &rejection);
        }
        let reads = self.snapshot().is_some_and(|s| s.may_subscribe(member));
        let own = self.carries_own(announced, head);
        if let Some(witnessing) = self.node.witnessing()
            && witnessing.shown(feed, (epoch, head.size(), head.root()), member)
        {
            self.node.hub().tell(Change::Cosigned(feed, member));
        }
        self.tell_witness(Event::Shown {
            peer,
            publisher,
            head: Head::from(head.clone()),
            base: self.base_of(feed, epoch),
            own,
            holds: member == publisher || reads,
        });
    }

    /// Whether a cosignature of this node's member stands beside a head.
    fn carries_own(&self, announced: &types::Head, head: &Verified<SignedCheckpoint>) -> bool {
        if announced.cosignatures.is_empty() {
            return false;
        }
        let (Some(own), Ok(note)) = (OwnWords::of(&self.node), Note::parse(&head.note)) else {
            return false;
        };
        let name = own.name().as_bytes();
        let mut lines = announced.cosignatures.iter();
        lines.any(|line| {
            // Cheap before dear: all lines but one are of others.
            let named = line
                .get(..line.len().min(512))
                .is_some_and(|line| line.windows(name.len()).any(|part| part == name));
            named && own.has(&note.text, line)
        })
    }

    /// Where an epoch of a feed begins, as the roster says.
    fn base_of(&self, feed: FeedId, epoch: u32) -> Base {
        let state = self.node.membership().state();
        let roster = state
            .chain
            .as_ref()
            .map(hashpact_core::roster::RosterChain::roster);
        let opened = roster.and_then(|roster| {
            let mut opened = roster.revocations_of(feed);
            opened
                .find(|revocation| revocation.next_epoch == epoch)
                .cloned()
        });
        opened.map_or_else(Base::empty, |opened| Base {
            size: opened.last_good_size,
            root: opened.last_good_root,
        })
    }

    /// Whether this node cosigns the feeds of a publisher: not its own member's.
    fn witnesses(&self, publisher: MemberNumber) -> bool {
        let own = self.node.membership().own().ok();
        let (Some(own), Some(snapshot)) = (own, self.snapshot()) else {
            return false;
        };
        own != publisher && snapshot.is_witness(own) && snapshot.may_publish(publisher)
    }

    /// A fork of a feed is known.
    pub(super) fn witness_forked(&mut self, feed: FeedId) {
        let epoch = self.node.membership().epoch(feed);
        self.tell_witness(Event::Forked { feed, epoch });
    }

    pub(super) fn tell_witness(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.node.clock().now();
            let Some(cosigning) = self.cosigning.as_mut() else {
                return;
            };
            for action in cosigning.machine.handle(now, event) {
                events.extend(self.do_for_witness(action));
            }
        }
    }

    fn do_for_witness(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Prove {
                job,
                peer,
                feed,
                from,
                head,
            } => {
                let proof = Proof {
                    peer,
                    feed,
                    from,
                    head,
                };
                let request = PullRequest {
                    feed,
                    from,
                    to: head.size,
                    head_size: head.size,
                    head_root: head.root,
                    proof_only: true,
                    elide_dead: false,
                };
                if let Some(cosigning) = self.cosigning.as_mut() {
                    cosigning.jobs.insert(job, proof);
                }
                self.errand(Errand::Extend { job, peer, request });
            }
            Action::Record {
                feed,
                expected,
                new,
            } => return self.record_cosigned(feed, expected, new),
            Action::Sign { feed, cosigned } => self.cosign(feed, &cosigned),
            Action::Fork {
                feed,
                publisher,
                smaller,
                larger,
                extension,
            } => {
                let evidence = ForkEvidence {
                    feed,
                    smaller,
                    larger,
                    before: extension.before,
                    between: extension.between,
                    node_cards: fork::cards(&self.node, publisher),
                };
                tracing::error!(feed = %feed.0.short(), "the publisher forked a feed: not cosigned");
                if let Err(error) = self.evidence(None, &evidence.encode().into()) {
                    tracing::error!(%error, code = error.code(), "keeping evidence of a fork");
                }
            }
            Action::Refuse {
                peer,
                feed,
                rejection,
            } => self.reject(peer, Some(feed), &rejection),
            Action::Wake { at } => {
                if let Some(cosigning) = self.cosigning.as_mut() {
                    cosigning.wake = Some(at);
                }
            }
        }
        None
    }

    /// What a peer answered to a request for a proof; `None` for nothing.
    pub(super) fn extended(&mut self, job: JobId, answer: Option<ProofParts>) {
        let proof = self.cosigning.as_mut().and_then(|c| c.jobs.remove(&job));
        let Some(proof) = proof else {
            return;
        };
        let Some(parts) = answer else {
            return self.tell_witness(Event::NotProved { job });
        };
        match Extension::check(parts, proof.from, &proof.head) {
            Ok(extension) => self.tell_witness(Event::Proved { job, extension }),
            Err(rejection) => {
                self.reject(proof.peer, Some(proof.feed), &rejection);
                self.tell_witness(Event::NotProved { job });
            }
        }
    }

    fn record_cosigned(
        &self,
        feed: FeedId,
        expected: Option<(u32, u64, hashpact_core::id::Digest)>,
        new: Cosigned,
    ) -> Option<Event> {
        let witnessing = self.node.witnessing()?;
        let Err(error) = witnessing.record(feed, expected, new) else {
            return Some(Event::Recorded { feed });
        };
        tracing::error!(feed = %feed.0.short(), %error, code = error.code(), "recording what is to be cosigned");
        // It may be there all the same.
        match witnessing.read_again(feed) {
            Ok(Some(cosigned)) => Some(Event::Held { feed, cosigned }),
            Ok(None) => Some(Event::NotHeld { feed }),
            // Nothing more of the feed until the next start.
            Err(error) => {
                tracing::error!(feed = %feed.0.short(), %error, code = error.code(), "reading what was cosigned");
                None
            }
        }
    }

    /// Signs what is recorded, if it still may, and has it told.
    fn cosign(&mut self, feed: FeedId, cosigned: &Cosigned) {
        if !self.may_cosign(feed, cosigned) {
            if let Some(cosigning) = self.cosigning.as_mut() {
                cosigning.unsigned.insert(feed);
            }
            return;
        }
        let now = self.node.clock().now();
        let (Some(witnessing), Ok(coalition)) =
            (self.node.witnessing(), self.node.membership().coalition())
        else {
            return;
        };
        let of = (&coalition, self.node.member_slug());
        let Some(said) = witnessing.cosign(feed, cosigned, of, now) else {
            return;
        };
        metrics::counter!("hashpact_cosigned_total").increment(1);
        // Where the feed is held, its own head carries the line.
        let at = HeadRef {
            epoch: cosigned.epoch,
            size: cosigned.size,
            root: cosigned.root,
        };
        self.beside_own(feed, at, said.line, now);
        self.node.hub().tell(Change::Head(feed));
    }

    /// Whether others would count the cosignature: this member is a witness of the
    /// publisher, its key stands on its card in force, and the epoch is open.
    fn may_cosign(&self, feed: FeedId, cosigned: &Cosigned) -> bool {
        self.has_listed_key()
            && self.witnesses(cosigned.publisher)
            && self.node.membership().epoch(feed) == cosigned.epoch
    }

    /// Whether this node's witness key stands on its member's card in force, where others
    /// count it.
    pub(super) fn has_listed_key(&self) -> bool {
        let Some(witnessing) = self.node.witnessing() else {
            return false;
        };
        let card = self.node.own_card_in_force();
        card.is_some_and(|card| card.card().witness_keys().contains(&witnessing.key()))
    }

    /// The node of this member whose cosignatures count, where it is another one than
    /// this: PROTOCOL 11.15a.
    fn stands_in_for(&self) -> Option<Slug> {
        let key = self.node.witnessing()?.key();
        let card = self.node.own_card_in_force()?;
        let mut nodes = card.card().nodes.iter();
        let first = nodes.find(|node| !node.witness_keys.is_empty())?;
        let later = nodes.any(|node| node.witness_keys.contains(&key));
        (later && !first.witness_keys.contains(&key)).then(|| first.name.clone())
    }

    /// Has everything cosigned again where the keeper of the keys has taken another one
    /// into use.
    fn follow_key(&mut self) {
        let key = self.node.witnessing().map(|witnessing| witnessing.key());
        let Some(cosigning) = self.cosigning.as_mut().filter(|c| c.key != key) else {
            return;
        };
        cosigning.key = key;
        self.roster.rekeyed();
        self.tell_witness(Event::Rekeyed);
    }

    /// A peer has said all that it holds.
    pub(super) fn witness_said_all(&mut self, peer: PeerId) {
        let now = self.node.clock().now();
        let key = self.peers.get(&peer).map(|known| known.key.clone());
        if let (Some(cosigning), Some(key)) = (self.cosigning.as_mut(), key) {
            cosigning.said.insert(key);
            cosigning.first_said.get_or_insert(now);
        }
        self.settle_witness();
    }

    /// ⚠ PROTOCOL 11.13: after a start the witness hears everybody within reach, for they
    /// know what it cosigned before, whatever its disk says; at most for the time that
    /// own sets are confirmed in.
    fn settle_witness(&mut self) {
        let now = self.node.clock().now();
        let Some(cosigning) = self.cosigning.as_ref() else {
            return;
        };
        let (Some(first), false) = (cosigning.first_said, cosigning.machine.is_settled()) else {
            return;
        };
        let Some(asked) = self.board.asked() else {
            return;
        };
        let missing = asked.iter().any(|peer| {
            let silent = !cosigning.said.contains(&peer.key);
            silent
                && match peer.contact {
                    Contact::Awaited | Contact::Dials => true,
                    Contact::Failed(at) => at < first,
                }
        });
        if missing && now.since(first) < self.confirm_wait_ms {
            return;
        }
        tracing::info!("the peers within reach have said what was cosigned: the witness begins");
        self.tell_witness(Event::Settled);
        self.roster.settle();
        self.cosign_roster();
    }

    /// Looks at what only time, roles or cards change.
    pub(super) fn tidy_witness(&mut self) {
        if self.cosigning.is_none() {
            return;
        }
        self.settle_witness();
        self.follow_key();
        self.cosign_roster();
        if self.has_listed_key() {
            self.cosign_unsigned();
        }
        self.show_witnessed();
    }

    /// What waited for a role, a card or an epoch: signed, or it waits on.
    fn cosign_unsigned(&mut self) {
        let Some(cosigning) = self.cosigning.as_mut() else {
            return;
        };
        let unsigned = std::mem::take(&mut cosigning.unsigned);
        let standings = cosigning.machine.standings();
        let waiting = standings.filter(|standing| unsigned.contains(&standing.feed));
        let again: Vec<(FeedId, Cosigned)> = waiting
            .filter_map(|standing| Some((standing.feed, standing.cosigned?)))
            .collect();
        for (feed, cosigned) in again {
            self.cosign(feed, &cosigned);
        }
    }

    /// Notes how many feeds wait or are forked, for `status` and metrics.
    fn show_witnessed(&self) {
        let Some(cosigning) = self.cosigning.as_ref() else {
            return;
        };
        let settled = cosigning.machine.is_settled();
        let (mut feeds, mut behind, mut forked) = (0_u32, 0_u32, 0_u32);
        for standing in cosigning.machine.standings() {
            feeds = feeds.saturating_add(u32::from(standing.cosigned.is_some()));
            behind = behind.saturating_add(u32::from(standing.behind));
            forked = forked.saturating_add(u32::from(standing.forked));
        }
        let first = self.stands_in_for();
        if first.is_some() {
            // It follows the words of another node, and is behind them as a rule.
            behind = 0;
        }
        metrics::gauge!("hashpact_witnessed_feeds").set(f64::from(feeds));
        metrics::gauge!("hashpact_witnessed_feeds_forked").set(f64::from(forked));
        metrics::gauge!("hashpact_witnessed_feeds_behind").set(f64::from(behind));
        let waits = !settled && cosigning.first_said.is_some();
        let notice = if let Some(first) = first {
            Some(format!(
                "this node cosigns nothing: of a member's nodes the first with a witness key on its \
                 card does, which is {first} (`hashpact card show`)"
            ))
        } else if waits {
            Some("the witness waits until its peers have said what it cosigned before".to_owned())
        } else if behind > 0 {
            Some(format!(
                "ALARM: {behind} feeds are not cosigned: peers show newer cosignatures of this \
                 witness than its records have (a restored disk?), and nobody proves yet that \
                 they go together"
            ))
        } else {
            None
        };
        self.node.set_notice("witness", notice);
    }

    /// When the witness wants to be told of the time.
    pub(super) fn witness_wake(&self) -> Option<UnixMillis> {
        self.cosigning.as_ref()?.wake
    }

    /// Tells it of the time, where it has come.
    pub(super) fn witness_tick(&mut self) {
        let now = self.node.clock().now();
        let cosigning = self.cosigning.as_mut();
        if cosigning.is_some_and(|c| c.wake.take_if(|at| *at <= now).is_some()) {
            self.tell_witness(Event::Tick);
        }
    }
}
