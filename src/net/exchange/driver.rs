//! The one owner of the core's puller: tells it what happened, does what it asks.
//!
//! Runs on a thread of its own, beside the async reactor: signatures of heads are
//! checked here and documents stored, and nobody's stream waits for it. Everything
//! long (a pull, verifying, storing) is a task elsewhere that reports back.
//!
//! Nothing here waits for anybody who waits for it: orders to desks are queued,
//! reports come over one bounded channel that only this thread reads.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
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
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::beside::Beside;
use super::bulk::Bulk;
use super::directory::Snapshots;
use super::epochs::Epochs;
use super::inbox::Heard;
use super::inside::Inside;
use super::links::Links;
use super::pipeline::{self, Pulled, describe_of};
use super::purging::Purger;
use super::rejections::Rejections;
use super::standing;
use super::storing::{self, Desk, Pace};
use super::view::{Board, PeerKey};
use crate::client::Peer;
use crate::error::NetError;
use crate::peer::PeerIdentity;

/// Between looks at what only time changes: the board, desks that rest, expiries.
const TIDY: Duration = Duration::from_millis(500);
/// A peer that was asked for leaves and brought nothing for so long is left for
/// another, if there is one: long enough for a busy disk.
const QUIET_MS: u64 = 3_000;
/// What pings and words on a watch bring meanwhile; a chunk is more.
const QUIET_BYTES: u64 = 4 * 1024;
/// A desk without an order for so long gives its writer back.
const DESK_REST_MS: u64 = 3_000;

/// What a driver is made of.
pub(crate) struct Parts {
    pub(crate) node: Arc<Node>,
    pub(crate) settings: Settings,
    pub(crate) heard: mpsc::Receiver<Heard>,
    pub(crate) reports: mpsc::Receiver<Inside>,
    pub(crate) report: mpsc::Sender<Inside>,
    pub(crate) board: Arc<Board>,
    pub(crate) rejections: Arc<Rejections>,
    pub(crate) tasks: TaskTracker,
    pub(crate) bulk: Arc<Bulk>,
    pub(crate) stop: CancellationToken,
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
    pub(super) task: AbortHandle,
    pub(super) began: UnixMillis,
    /// Bytes that the peer's connection had brought then.
    pub(super) read: u64,
}

/// A desk, with when it was last given an order.
struct Seat {
    desk: Arc<Desk>,
    used: UnixMillis,
}

pub(crate) struct Driver {
    pub(super) node: Arc<Node>,
    pub(super) snapshots: Snapshots,
    pub(super) board: Arc<Board>,
    pub(super) rejections: Arc<Rejections>,
    pub(super) tasks: TaskTracker,
    pub(super) report: mpsc::Sender<Inside>,
    heard: mpsc::Receiver<Heard>,
    reports: mpsc::Receiver<Inside>,
    stop: CancellationToken,
    pub(super) puller: Puller,
    wake: Option<UnixMillis>,
    bulk: Arc<Bulk>,
    ids: HashMap<PeerKey, PeerId>,
    pub(super) peers: BTreeMap<PeerId, Known>,
    pub(super) links: Links,
    pub(super) jobs: HashMap<JobId, Job>,
    chunks: HashMap<ChunkId, Box<Pulled>>,
    next_chunk: u64,
    desks: HashMap<FeedId, Seat>,
    pub(super) publishers: HashMap<FeedId, MemberNumber>,
    /// Own feeds that came from a peer's head: they are written as own.
    pub(super) returning: HashSet<FeedId>,
    /// The newest head of each feed that each connected peer announced.
    pub(super) announced: HashMap<(PeerId, FeedId), Head>,
    pub(super) denied: hashpact_core::puller::Denied,
    /// Feeds and epochs of which there is evidence of a fork.
    pub(super) proven: HashSet<(FeedId, u32)>,
    /// Rosters that were asked for because a peer named them.
    pub(super) asked_for: HashSet<Digest>,
    purger: Purger,
    /// What new epochs wait for.
    pub(super) epochs: Epochs,
    /// Cosignatures and receipts that wait for their heads.
    pub(super) beside: Beside,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            snapshots: Snapshots::of(&parts.node),
            purger: Purger::new(&parts.node),
            node: parts.node,
            board: parts.board,
            rejections: parts.rejections,
            tasks: parts.tasks,
            report: parts.report,
            heard: parts.heard,
            reports: parts.reports,
            stop: parts.stop,
            puller: Puller::new(parts.settings, rand::random()),
            wake: None,
            bulk: parts.bulk,
            ids: HashMap::new(),
            peers: BTreeMap::new(),
            links: Links::default(),
            jobs: HashMap::new(),
            chunks: HashMap::new(),
            next_chunk: 0,
            desks: HashMap::new(),
            publishers: HashMap::new(),
            returning: HashSet::new(),
            announced: HashMap::new(),
            denied: hashpact_core::puller::Denied::default(),
            proven: HashSet::new(),
            asked_for: HashSet::new(),
            epochs: Epochs::default(),
            beside: Beside::default(),
        }
    }

    /// Drives until told to stop. What was pulled and not made durable is, then.
    pub(crate) async fn run(mut self) {
        let mut changes = self.node.hub().watch();
        self.begin();
        let mut tidy = tokio::time::interval(TIDY);
        tidy.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let wake = self.until_wake();
            // Reports first: a link is up before its peer is heard.
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(inside) = self.reports.recv() => self.take(inside),
                change = changes.recv() => self.changed(change, &mut changes),
                () = tokio::time::sleep(wake), if self.wake.is_some() => {
                    self.wake = None;
                    self.tell(Event::Tick);
                }
                _ = tidy.tick() => self.tidy(),
                Some(heard) = self.heard.recv() => self.hear(heard),
            }
        }
        self.end();
    }

    /// Tells the puller of all that is held.
    fn begin(&mut self) {
        for feed in self.node.store().feeds() {
            self.publishers.insert(feed.id, feed.publisher);
            if !feed.own {
                self.hold(&feed);
            }
        }
        self.access_changed();
        self.epochs_changed();
    }

    fn end(&mut self) {
        for job in self.jobs.values() {
            job.task.abort();
        }
        let tasks = self.tasks.clone();
        for seat in self.desks.values() {
            seat.desk.order(&tasks, storing::Order::Rest);
        }
    }

    /// Says what the store holds of a feed.
    pub(super) fn hold(&mut self, feed: &FeedInfo) {
        let held = standing::held(&self.node, feed);
        match held {
            Ok(event) => self.tell(event),
            Err(error) => {
                tracing::error!(feed = %feed.id.0.short(), %error, code = error.code(), "reading a feed");
            }
        }
    }

    /// The puller's name of a peer, the same for as long as the exchange runs.
    pub(super) fn peer_id(&mut self, peer: &PeerIdentity) -> PeerId {
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

    fn take(&mut self, inside: Inside) {
        match inside {
            Inside::LinkUp { peer } => self.link_up(*peer),
            Inside::LinkDown { peer, connection } => self.link_down(&peer, connection),
            Inside::Pulled { job, pulled } => self.pulled(job, pulled),
            Inside::PullEnded { job } => {
                self.jobs.remove(&job);
                self.tell(Event::StreamEnded { job });
            }
            Inside::PullRejected { job, rejection } => {
                self.jobs.remove(&job);
                self.tell(Event::ChunkRejected { job, rejection });
            }
            Inside::PullFailed { job, error } => self.pull_failed(job, &error),
            Inside::Stored { feed, chunk } => self.tell(Event::ChunkStored { feed, chunk }),
            Inside::ElisionsChecked {
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
            Inside::StoreFailed { feed } => self.store_failed(feed),
            Inside::Applied { feed, head } => self.applied(feed, &head),
            Inside::Differs { head } => self.differs(head),
            Inside::EpochOpened { feed } => self.epoch_opened(feed),
            Inside::Proven { feed } => self.node.hub().tell(Change::Evidence(feed)),
            Inside::Dropped { feed } => {
                self.desks.remove(&feed);
                self.publishers.remove(&feed);
                self.board.keep_feeds(|kept| *kept != feed);
                self.tell(Event::FeedGone { feed });
            }
        }
    }

    fn link_up(&mut self, peer: Peer) {
        let id = self.peer_id(peer.identity());
        let member = peer.identity().member;
        if self.links.add(id, peer) {
            self.tell(Event::PeerUp { peer: id, member });
        }
    }

    fn link_down(&mut self, peer: &PeerIdentity, connection: u64) {
        let id = self.peer_id(peer);
        if self.links.remove(id, connection) {
            self.announced.retain(|(peer, _), _| *peer != id);
            self.tell(Event::PeerDown { peer: id });
        }
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
        self.tell(Event::StoreFailed { feed });
        let store = self.node.store();
        let held = store.feed_no(&feed).and_then(|no| store.feed(no).ok());
        match held {
            Some(held) => self.hold(&held),
            None => self.tell(Event::FeedGone { feed }),
        }
        self.desk(feed, storing::Order::Reset);
    }

    fn applied(&mut self, feed: FeedId, head: &Head) {
        let now = self.node.clock().now();
        if self.returning.remove(&feed) {
            tracing::info!(feed = %feed.0.short(), size = head.size(), "an own feed is back");
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
                let (Some(link), Some(publisher)) = (self.links.get(peer), publisher) else {
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
                self.start_pull(link.clone(), peer, order);
            }
            Action::CancelPull { job } => {
                if let Some(job) = self.jobs.remove(&job) {
                    job.task.abort();
                }
            }
            Action::Store {
                feed,
                chunk,
                over_growth,
                growth,
                ..
            } => self.store(feed, chunk, over_growth, growth),
            Action::Refill { feed, chunk, .. } => {
                if let Some(pulled) = self.chunks.remove(&chunk) {
                    self.desk(feed, storing::Order::Refill(chunk, Box::new(pulled.chunk)));
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
            Action::Ask { peer } => {
                if let Some(link) = self.links.get(peer) {
                    link.connection().cut();
                }
            }
            Action::Wake { at } => self.wake = Some(at),
        }
        None
    }

    fn start_pull(&mut self, link: Peer, peer: PeerId, order: pipeline::Order) {
        let (job, feed) = (order.job, order.head.feed());
        let read = link.connection().traffic().read();
        metrics::counter!("hashpact_pulls_total").increment(1);
        let pull = pipeline::pull(
            Arc::clone(&self.node),
            link,
            order,
            Arc::clone(&self.bulk),
            self.report.clone(),
        );
        let task = self.tasks.spawn(pull).abort_handle();
        let began = self.node.clock().now();
        let started = Job {
            feed,
            peer,
            task,
            began,
            read,
        };
        self.jobs.insert(job, started);
    }

    /// Tells the puller of streams whose connections brought nothing since they began.
    fn note_quiet(&mut self) {
        let now = self.node.clock().now();
        let quiet = |job: &Job| {
            let read = self.links.get(job.peer);
            let read = read.map_or(0, |link| link.connection().traffic().read());
            now.since(job.began) >= QUIET_MS && read.saturating_sub(job.read) < QUIET_BYTES
        };
        let jobs = self.jobs.iter().filter(|(_, job)| quiet(job));
        let jobs: Vec<JobId> = jobs.map(|(id, _)| *id).collect();
        for job in jobs {
            self.tell(Event::Quiet { job });
        }
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
        let seat = self.desks.entry(feed).or_insert_with(|| Seat {
            desk: Desk::new(
                Arc::clone(&self.node),
                feed,
                publisher,
                own,
                (Arc::clone(&self.bulk), self.report.clone()),
            ),
            used: UnixMillis(0),
        });
        seat.used = self.node.clock().now();
        seat.desk.order(&self.tasks, order);
    }

    pub(super) fn reject(&self, peer: PeerId, feed: Option<FeedId>, rejection: &Rejection) {
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

    fn changed(
        &mut self,
        change: Result<Change, RecvError>,
        from: &mut broadcast::Receiver<Change>,
    ) {
        match change {
            Ok(Change::Head(_) | Change::Evidence(_) | Change::Equivocation) => {}
            Ok(Change::Suspension | Change::Access) => self.access_changed(),
            Ok(Change::Roster | Change::Card(_)) | Err(RecvError::Lagged(_)) => {
                self.access_changed();
                self.epochs_changed();
            }
            Err(RecvError::Closed) => *from = self.node.hub().watch(),
        }
    }

    /// What access is decided from.
    pub(super) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshots.newest()
    }

    fn until_wake(&self) -> Duration {
        let now = self.node.clock().now();
        Duration::from_millis(self.wake.map_or(0, |at| at.since(now)))
    }

    fn tidy(&mut self) {
        if let Err(error) = self.node.follow_roster() {
            tracing::error!(%error, code = error.code(), "following the roster's age");
        }
        let now = self.node.clock().now();
        let tasks = self.tasks.clone();
        self.desks.retain(|_, seat| {
            let idle = now.since(seat.used) >= DESK_REST_MS;
            if idle && !seat.desk.is_at_rest() && seat.desk.is_quiet() {
                seat.desk.order(&tasks, storing::Order::Rest);
            }
            !idle || !seat.desk.is_at_rest()
        });
        self.purger.look(&tasks);
        self.note_quiet();
        self.show();
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
