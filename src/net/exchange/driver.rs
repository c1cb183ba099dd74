//! The one owner of the core's puller: tells it what happened, does what it asks.
//!
//! A state machine over the node: told of peers, of what they say, of changes, of
//! time and of what became of its errands, it decides what is taken, what is asked
//! of whom and what is kept. Everything long (a pull, verifying, storing) and
//! everything that needs a connection leaves as an [`Errand`]; it waits for nothing
//! and draws no chance. Blocking: documents and small rows are stored here.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hashpact_core::access::Snapshot;
use hashpact_core::id::{Digest, FeedId, MemberNumber, UnixMillis};
use hashpact_core::puller::{
    Action, ChunkId, Event, Failure, Growth, Head, JobId, PeerId, Puller, Settings,
};
use hashpact_core::reject::Rejection;
use hashpact_node::Node;
use hashpact_node::hub::Change;
use hashpact_store::FeedInfo;

use super::beside::Beside;
use super::bundle::Files;
use super::cosigning::Cosigning;
use super::directory::Snapshots;
use super::epochs::Epochs;
use super::errand::Errand;
use super::forked::Unheld;
use super::inside::Done;
use super::pipeline::{self, Pulled, describe_of};
use super::receipts::Receipts;
use super::rejections::Rejections;
use super::room::Rooms;
use super::roster_cosigning::RosterCosigning;
use super::standing;
use super::storing::{self, Pace};
use super::view::{Board, PeerKey};
use crate::error::NetError;
use crate::peer::PeerIdentity;

/// Between looks at which feeds are STALE.
const STALE_LOOK_MS: u64 = 5_000;

/// What a driver is made of.
pub(crate) struct Parts {
    pub(crate) node: Arc<Node>,
    pub(crate) settings: Settings,
    /// Of the puller's jitter.
    pub(crate) seed: u64,
    pub(crate) rooms: Arc<Rooms>,
    /// How long other peers are waited for after the first has said what it holds.
    pub(crate) confirm_wait: Duration,
    pub(crate) board: Arc<Board>,
    pub(crate) rejections: Arc<Rejections>,
}

/// A peer, whether connected or not.
pub(super) struct Known {
    pub(super) key: PeerKey,
    pub(super) name: String,
}

/// A pull under way.
pub(super) struct Job {
    pub(super) feed: FeedId,
    pub(super) peer: PeerId,
}

pub(crate) struct Driver {
    pub(super) node: Arc<Node>,
    pub(super) snapshots: Snapshots,
    pub(super) board: Arc<Board>,
    pub(super) rejections: Arc<Rejections>,
    pub(super) rooms: Arc<Rooms>,
    pub(super) puller: Puller,
    wake: Option<UnixMillis>,
    errands: Vec<Errand>,
    ids: HashMap<PeerKey, PeerId>,
    pub(super) peers: BTreeMap<PeerId, Known>,
    /// Peers that can be called.
    pub(super) reached: BTreeSet<PeerId>,
    pub(super) jobs: BTreeMap<JobId, Job>,
    chunks: HashMap<ChunkId, Box<Pulled>>,
    next_chunk: u64,
    pub(super) publishers: HashMap<FeedId, MemberNumber>,
    /// Own feeds that came from a peer's head: they are written as own.
    pub(super) returning: HashSet<FeedId>,
    /// Sets that are being dropped: said once, however many peers say that the grant ended.
    pub(super) going: HashSet<FeedId>,
    /// The newest head of each feed that each connected peer announced.
    pub(super) announced: BTreeMap<(PeerId, FeedId), Head>,
    pub(super) denied: hashpact_core::puller::Denied,
    /// Forks of feeds that are not held.
    pub(super) unheld: Unheld,
    /// Rosters that were asked for because a peer named them.
    pub(super) asked_for: HashSet<Digest>,
    /// See [`Parts::confirm_wait`].
    pub(super) confirm_wait_ms: u64,
    /// What new epochs wait for.
    pub(super) epochs: Epochs,
    /// Cosignatures that wait for their heads.
    pub(super) beside: Beside,
    /// Receipts that are to be told on.
    pub(super) receipts: Receipts,
    /// Feeds that are taken in from bundles.
    pub(super) files: Files,
    /// What it cosigns; `None` without a witness key.
    pub(super) cosigning: Option<Cosigning>,
    /// What it cosigns of the roster chain, and what waits for rosters and cards.
    pub(super) roster: RosterCosigning,
    /// When it was last looked which feeds are STALE.
    looked_for_stale: UnixMillis,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            snapshots: Snapshots::of(&parts.node),
            confirm_wait_ms: u64::try_from(parts.confirm_wait.as_millis()).unwrap_or(u64::MAX),
            node: parts.node,
            board: parts.board,
            rejections: parts.rejections,
            rooms: parts.rooms,
            puller: Puller::new(parts.settings, parts.seed),
            wake: None,
            errands: Vec::new(),
            ids: HashMap::new(),
            peers: BTreeMap::new(),
            reached: BTreeSet::new(),
            jobs: BTreeMap::new(),
            chunks: HashMap::new(),
            next_chunk: 0,
            publishers: HashMap::new(),
            returning: HashSet::new(),
            going: HashSet::new(),
            announced: BTreeMap::new(),
            denied: hashpact_core::puller::Denied::default(),
            unheld: Unheld::default(),
            asked_for: HashSet::new(),
            epochs: Epochs::default(),
            beside: Beside::default(),
            receipts: Receipts::default(),
            files: Files::default(),
            cosigning: None,
            roster: RosterCosigning::default(),
            looked_for_stale: UnixMillis::default(),
        }
    }

    /// Takes the errands that came up, in order.
    pub(crate) fn errands(&mut self) -> Vec<Errand> {
        std::mem::take(&mut self.errands)
    }

    pub(super) fn errand(&mut self, errand: Errand) {
        self.errands.push(errand);
    }

    /// When it wants to be told of the time, by [`tick`](Self::tick).
    pub(crate) fn wake(&self) -> Option<UnixMillis> {
        let wakes = [self.wake, self.witness_wake(), self.roster.wake()];
        wakes.into_iter().flatten().min()
    }

    /// Tells of the time that it asked for.
    pub(crate) fn tick(&mut self) {
        let now = self.node.clock().now();
        self.witness_tick();
        self.roster_tick();
        if self.wake.take_if(|at| *at <= now).is_some() {
            self.tell(Event::Tick);
        }
    }

    /// Tells the puller of all that is held.
    pub(crate) fn begin(&mut self) {
        self.look_at_room();
        self.remember_forks();
        for feed in self.node.store().feeds() {
            self.publishers.insert(feed.id, feed.publisher);
            if !feed.own {
                self.hold(&feed);
            }
        }
        self.access_changed();
        self.epochs_changed();
        self.begin_cosigning();
    }

    /// Says what the store holds of a feed.
    pub(super) fn hold(&mut self, feed: &FeedInfo) {
        let held = standing::held(&self.node, feed, self.rooms.of(feed.publisher));
        match held {
            Ok(event) => self.tell(event),
            Err(error) => {
                tracing::error!(feed = %feed.id.0.short(), %error, code = error.code(), "reading a feed");
            }
        }
    }

    /// The puller's name of a peer, the same for as long as the exchange runs.
    pub(crate) fn peer_id(&mut self, peer: &PeerIdentity) -> PeerId {
        let key = (peer.member, peer.node.clone());
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        let id = PeerId(u64::try_from(self.ids.len()).unwrap_or(u64::MAX));
        self.ids.insert(key.clone(), id);
        let name = peer.to_string();
        self.peers.insert(id, Known { key, name });
        id
    }

    /// Takes in what became of an errand.
    pub(crate) fn take(&mut self, done: Done) {
        match done {
            Done::Pulled { job, pulled } => self.pulled(job, pulled),
            Done::PullEnded { job } => {
                self.jobs.remove(&job);
                self.tell(Event::StreamEnded { job });
            }
            Done::PullRejected { job, rejection } => {
                self.jobs.remove(&job);
                self.tell(Event::ChunkRejected { job, rejection });
            }
            Done::PullFailed { job, error } => self.pull_failed(job, &error),
            Done::Stored { feed, chunk } => {
                self.tell(Event::ChunkStored { feed, chunk });
                self.freeze_stored(feed);
            }
            Done::Refilled {
                feed,
                chunk,
                counted,
            } => self.tell(Event::Refilled {
                feed,
                chunk,
                counted,
            }),
            Done::ElisionsChecked {
                feed,
                size,
                unjustified,
                held,
            } => self.tell(Event::ElisionsChecked {
                feed,
                size,
                unjustified,
                held,
            }),
            Done::StoreFailed { feed } => self.store_failed(feed),
            Done::Applied { feed, head } => self.applied(feed, &head),
            Done::Differs { head } => self.differs(head),
            Done::EpochOpened { feed } => self.epoch_opened(feed),
            Done::Proven { feed } => self.node.hub().tell(Change::Evidence(feed)),
            Done::Extended { job, answer } => self.extended(job, answer),
            Done::Sought { feed } => self.files.happened(feed, |standing| standing.sought = true),
            Done::Flushed { peer } => self.flushed(peer),
            Done::Dropped { feed } => {
                self.going.remove(&feed);
                self.publishers.remove(&feed);
                self.board.keep_feeds(|kept| *kept != feed);
                self.tell(Event::FeedGone { feed });
                self.remember_forks();
            }
        }
    }

    /// The first connection to call a peer on stands.
    pub(crate) fn link_up(&mut self, peer: &PeerIdentity) {
        let id = self.peer_id(peer);
        self.reached.insert(id);
        let member = peer.member;
        self.tell(Event::PeerUp { peer: id, member });
    }

    /// The last one is gone.
    pub(crate) fn link_down(&mut self, peer: &PeerIdentity) {
        let id = self.peer_id(peer);
        self.reached.remove(&id);
        self.roster.forget(id);
        self.announced.retain(|(peer, _), _| *peer != id);
        self.tell(Event::PeerDown { peer: id });
        self.tell_witness(hashpact_core::witness::Event::PeerGone { peer: id });
    }

    fn pulled(&mut self, job: JobId, pulled: Box<Pulled>) {
        let chunk = ChunkId(self.next_chunk);
        self.next_chunk += 1;
        let facts = pulled.facts;
        self.chunks.insert(chunk, pulled);
        self.tell(Event::ChunkVerified { job, chunk, facts });
    }

    fn pull_failed(&mut self, job: JobId, error: &NetError) {
        self.board.pull_failed();
        let failure = error.failure().unwrap_or(Failure::Cut);
        if let Some(job) = self.jobs.remove(&job) {
            let peer = self.name(job.peer).to_owned();
            tracing::info!(peer, feed = %job.feed.0.short(), code = error.code(), %error, "a pull failed");
            metrics::counter!("hashpact_pull_failures_total", "code" => error.code()).increment(1);
        }
        self.tell(Event::StreamFailed { job, failure });
    }

    fn store_failed(&mut self, feed: FeedId) {
        self.going.remove(&feed);
        self.files.happened(feed, |standing| standing.failed = true);
        self.tell(Event::StoreFailed { feed });
        let store = self.node.store();
        let held = store.feed_no(&feed).and_then(|no| store.feed(no).ok());
        match held {
            Some(held) => self.hold(&held),
            None => self.tell(Event::FeedGone { feed }),
        }
        self.desk(feed, storing::Order::Reset);
        self.open_failed(feed);
    }

    fn applied(&mut self, feed: FeedId, head: &Head) {
        let now = self.node.clock().now();
        // A peer may have shown a head that is further still.
        if !self.node.publisher().is_behind(&feed) && self.returning.remove(&feed) {
            tracing::info!(feed = %feed.0.short(), size = head.size(), "an own feed is back");
            self.ask_all();
        }
        self.beside_applied(feed, (head.epoch(), head.size()));
        self.board.feed(feed, |row| row.updated = now);
        self.show();
    }

    fn differs(&mut self, head: Head) {
        let feed = head.feed();
        let rejection = Rejection::TwoRoots { size: head.size() };
        self.forked(feed, None, head, None, &rejection);
        self.tell(Event::ForkFound { feed });
    }

    /// Tells the puller, and does all that it asks for.
    pub(super) fn tell(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.puller.handle(self.node.clock().now(), event) {
                events.extend(self.act(action));
            }
        }
        self.show_imports();
    }

    /// Does one thing; answers what that made happen at once.
    fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::StartPull {
                job,
                peer,
                feed,
                head,
                span,
                elide,
            } => {
                let publisher = self.publishers.get(&feed).copied();
                let Some(publisher) = publisher.filter(|_| self.reached.contains(&peer)) else {
                    let failure = Failure::Cut;
                    return Some(Event::StreamFailed { job, failure });
                };
                // A publisher wants back all that it wrote.
                let elide = elide && !self.returning.contains(&feed);
                let order = pipeline::Order {
                    job,
                    publisher,
                    head,
                    span,
                    elide,
                };
                self.jobs.insert(job, Job { feed, peer });
                self.board.pull_asked();
                self.errand(Errand::Pull { peer, order });
            }
            Action::CancelPull { job } => {
                self.jobs.remove(&job);
                self.errand(Errand::CancelPull { job });
            }
            Action::Store {
                feed,
                chunk,
                over_growth,
                growth,
                ..
            } => self.store(feed, chunk, over_growth, growth),
            Action::Refill {
                feed,
                chunk,
                growth,
                limit,
                ..
            } => {
                if let Some(pulled) = self.chunks.remove(&chunk) {
                    let whole = Box::new(pulled.chunk);
                    self.desk(feed, storing::Order::Refill(chunk, whole, (growth, limit)));
                }
            }
            Action::CheckElisions { feed, head } => self.desk(feed, storing::Order::Check(head)),
            Action::Drop { chunk } => {
                self.chunks.remove(&chunk);
            }
            Action::HeadApplied { feed, head, .. } => self.desk(feed, storing::Order::Apply(head)),
            Action::CompareHead { feed, head } => self.desk(feed, storing::Order::Compare(head)),
            Action::Reject {
                peer,
                feed,
                rejection,
            } => self.reject(peer, feed, &rejection),
            Action::Fork {
                feed,
                held,
                offered,
                chunk,
                rejection,
            } => {
                let chunk = chunk.and_then(|chunk| self.chunks.remove(&chunk));
                if self.goes_on_elsewhere(held.as_ref(), &offered) {
                    return None;
                }
                self.forked(feed, held, offered, chunk, &rejection);
            }
            Action::Throttled {
                feed,
                until,
                rejection,
            } => self.throttled(feed, until, &rejection),
            // A silent watch is begun anew, and says all heads again.
            Action::Ask { peer } => self.errand(Errand::Cut { peer }),
            Action::Wake { at } => self.wake = Some(at),
        }
        None
    }

    /// Tells of a stream whose connection brought nothing since it began.
    pub(crate) fn quiet(&mut self, job: JobId) {
        self.tell(Event::Quiet { job });
    }

    fn store(&mut self, feed: FeedId, chunk: ChunkId, over_growth: u64, growth: Growth) {
        if over_growth > 0 {
            tracing::warn!(
                feed = %feed.0.short(), leaves = over_growth,
                "a feed grows faster than it may: the rest waits in quarantine"
            );
            metrics::counter!("hashpact_over_growth_leaves_total").increment(over_growth);
        }
        if let Some(pulled) = self.chunks.remove(&chunk) {
            let pace = Pace {
                over_growth,
                growth,
            };
            let order = storing::Order::Store(chunk, Box::new(pulled.chunk), pace);
            self.desk(feed, order);
        }
    }

    /// The publisher's doing, whoever served it.
    fn throttled(&self, feed: FeedId, until: UnixMillis, rejection: &Rejection) {
        self.files
            .happened(feed, |standing| standing.resting = Some(rejection.clone()));
        let publisher = self.publishers.get(&feed);
        let publisher = publisher.and_then(|number| self.node.member(*number));
        let name = publisher.map_or_else(String::new, |member| member.slug.to_string());
        self.rejections.note(&name, Some(feed), rejection);
        self.board
            .feed(feed, |row| rejection.code().clone_into(&mut row.last_error));
        let rest_ms = until.since(self.node.clock().now());
        tracing::warn!(feed = %feed.0.short(), publisher = name, rest_ms, "a feed grows too fast and rests");
    }

    /// Gives a feed's desk an order.
    pub(super) fn desk(&mut self, feed: FeedId, order: storing::Order) {
        let Some(publisher) = self.publishers.get(&feed).copied() else {
            return;
        };
        let own = self.returning.contains(&feed);
        self.errand(Errand::Desk {
            feed,
            publisher,
            own,
            order,
        });
    }

    pub(super) fn reject(&self, peer: PeerId, feed: Option<FeedId>, rejection: &Rejection) {
        self.files.refused(peer, rejection);
        self.note_rejected(peer, feed, rejection);
    }

    /// As [`reject`](Self::reject), of what stands beside what counts.
    pub(super) fn note_rejected(&self, peer: PeerId, feed: Option<FeedId>, rejection: &Rejection) {
        self.rejections.note(self.name(peer), feed, rejection);
        if let Some(feed) = feed.filter(|feed| self.publishers.contains_key(feed)) {
            let code = rejection.code();
            self.board
                .feed(feed, |row| code.clone_into(&mut row.last_error));
        }
    }

    pub(super) fn name(&self, peer: PeerId) -> &str {
        self.peers
            .get(&peer)
            .map_or("", |known| known.name.as_str())
    }

    /// Something changed in the node; `None` where it is not known what.
    pub(crate) fn changed(&mut self, change: Option<Change>) {
        match change {
            Some(Change::Head(feed)) => self.receipt_due(&feed),
            Some(
                Change::Evidence(_)
                | Change::Equivocation
                | Change::Receipt(_)
                | Change::Overdue
                | Change::Cosigned(..)
                | Change::RosterWord,
            ) => {}
            Some(Change::Suspension | Change::Access) => self.access_changed(),
            Some(Change::Roster | Change::Card(_)) | None => {
                self.access_changed();
                self.epochs_changed();
                self.roster_changed();
            }
        }
    }

    /// What access is decided from.
    pub(super) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshots.newest()
    }

    /// Looks at what only time changes.
    pub(crate) fn tidy(&mut self) {
        if let Err(error) = self.node.follow_roster() {
            tracing::error!(%error, code = error.code(), "following the roster's age");
        }
        let node = &self.node;
        if node.conflicts_wait() || node.frames_wait() || node.allow_sets_changed() {
            self.errand(Errand::RecheckConflicts);
        }
        self.look_at_room();
        self.leave_due();
        self.open_again();
        self.keep_receipts();
        self.tidy_witness();
        self.look_for_stale();
        self.ask_all();
        self.show();
        self.board.looked();
    }

    fn look_for_stale(&mut self) {
        let now = self.node.clock().now();
        if now.since(self.looked_for_stale) < STALE_LOOK_MS {
            return;
        }
        self.looked_for_stale = now;
        if let Err(error) = self.node.look_for_stale() {
            tracing::error!(%error, code = error.code(), "judging feeds");
        }
    }

    /// A feed as the store has it.
    pub(super) fn held_feed(&self, feed: &FeedId) -> Option<FeedInfo> {
        let store = self.node.store();
        store.feed(store.feed_no(feed)?).ok()
    }

    /// The set of a feed that is held and described.
    pub(super) fn set_of(feed: &FeedInfo) -> Option<hashpact_core::id::Slug> {
        describe_of(feed).map(|describe| describe.name.set)
    }
}
