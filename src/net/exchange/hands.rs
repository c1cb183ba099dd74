//! Runs the driver of a real node: feeds it what is heard and reported, and carries
//! its errands out over connections, on tasks and threads that report back.
//!
//! The driver has a thread of its own, beside the async reactor: signatures of heads
//! are checked there and documents stored, and nobody's stream waits for it.
//! Nothing here waits for anybody who waits for it: orders to desks are queued,
//! reports come over one bounded channel that only this thread reads.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use hashpact_core::chunk::ProofParts;
use hashpact_core::id::{FeedId, UnixMillis};
use hashpact_core::puller::{JobId, PeerId};
use hashpact_node::hub::Change;
use hashpact_node::{Node, NodeError};
use tokio::runtime::Handle;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::task::{AbortHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bulk::{Bulk, Size};
use super::bundle::{Leaves, Source, Told};
use super::driver::{Driver, Parts};
use super::errand::Errand;
use super::inbox::Heard;
use super::inside::{Done, Inside};
use super::links::Links;
use super::purging::Purger;
use super::rechecking::Rechecker;
use super::rejections::Rejections;
use super::room::Rooms;
use super::storing::{self, Desk};
use super::turns::Turns;
use super::{documents_in, fork, pipeline};
use crate::client::Peer;
use crate::types::{PullPart, PullRequest};

/// Between looks at what only time changes: the board, desks that rest, expiries.
const TIDY: Duration = Duration::from_millis(500);
/// A peer that was asked for leaves and brought nothing for so long is left for
/// another, if there is one: long enough for a busy disk.
pub(crate) const QUIET_MS: u64 = 3_000;
/// What pings and words on a watch bring meanwhile; a chunk is more.
const QUIET_BYTES: u64 = 4 * 1024;
/// A desk without an order for so long gives its writer back.
pub(crate) const DESK_REST_MS: u64 = 3_000;

/// The driver, its hands, and the ways in to both.
pub(crate) struct Runner {
    pub(crate) parts: Parts,
    pub(crate) heard: mpsc::Receiver<Heard>,
    pub(crate) reports: mpsc::Receiver<Inside>,
    pub(crate) report: mpsc::Sender<Inside>,
    pub(crate) tasks: TaskTracker,
    pub(crate) bulk: Arc<Bulk>,
    pub(crate) stop: CancellationToken,
}

impl Runner {
    /// Drives until told to stop. What was pulled and not made durable is, then.
    pub(crate) async fn run(self) {
        let Self {
            parts,
            mut heard,
            mut reports,
            report,
            tasks,
            bulk,
            stop,
        } = self;
        let mut hands = Hands::new(&parts, report, tasks, bulk);
        let mut changes = parts.node.hub().watch();
        let mut driver = Driver::new(parts);
        driver.begin();
        let mut tidy = tokio::time::interval(TIDY);
        tidy.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            for errand in driver.errands() {
                hands.carry_out(errand);
            }
            let wake = driver.wake().map(|at| at.since(hands.now()));
            // Reports first: a link is up before its peer is heard.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(inside) = reports.recv() => hands.take(&mut driver, inside),
                change = changes.recv() => hands.changed(&mut driver, change, &mut changes),
                () = tokio::time::sleep(Duration::from_millis(wake.unwrap_or(0))), if wake.is_some() => {
                    driver.tick();
                }
                _ = tidy.tick() => {
                    hands.tidy(&mut driver);
                }
                Some(heard) = heard.recv() => driver.hear(heard),
            }
        }
        hands.end();
    }
}

/// A pull under way.
struct Job {
    peer: PeerId,
    task: AbortHandle,
    began: UnixMillis,
    /// Bytes that the peer's connection had brought then.
    read: u64,
}

/// A desk, with when it was last given an order.
struct Seat {
    desk: Arc<Desk>,
    used: UnixMillis,
}

/// What carries errands out.
struct Hands {
    node: Arc<Node>,
    links: Links,
    /// Bundles that are taken in: whom to ask for leaves without a connection.
    files: HashMap<PeerId, Arc<Leaves>>,
    jobs: HashMap<JobId, Job>,
    desks: BTreeMap<FeedId, Seat>,
    turns: Arc<Turns<Arc<Desk>>>,
    bulk: Arc<Bulk>,
    rejections: Arc<Rejections>,
    rooms: Arc<Rooms>,
    purger: Purger,
    rechecker: Rechecker,
    report: mpsc::Sender<Inside>,
    tasks: TaskTracker,
}

impl Hands {
    fn new(
        parts: &Parts,
        report: mpsc::Sender<Inside>,
        tasks: TaskTracker,
        bulk: Arc<Bulk>,
    ) -> Self {
        Self {
            node: Arc::clone(&parts.node),
            links: Links::default(),
            files: HashMap::new(),
            jobs: HashMap::new(),
            desks: BTreeMap::new(),
            turns: Arc::default(),
            bulk,
            rejections: Arc::clone(&parts.rejections),
            rooms: Arc::clone(&parts.rooms),
            purger: Purger::new(&parts.node),
            rechecker: Rechecker::new(&parts.node),
            report,
            tasks,
        }
    }

    fn now(&self) -> UnixMillis {
        self.node.clock().now()
    }

    /// Takes a report in, for itself or for the driver.
    fn take(&mut self, driver: &mut Driver, inside: Inside) {
        match inside {
            Inside::LinkUp { peer } => {
                let identity = peer.identity().clone();
                if self.links.add(driver.peer_id(&identity), *peer) {
                    driver.link_up(&identity);
                }
            }
            Inside::LinkDown { peer, connection } => {
                if self.links.remove(driver.peer_id(&peer), connection) {
                    driver.link_down(&peer);
                }
            }
            Inside::Bundle(told) => {
                match &told {
                    Told::Begin(begin) => {
                        let leaves = Arc::clone(&begin.leaves);
                        self.files.insert(begin.peer, leaves);
                    }
                    Told::End(peer) => {
                        self.files.remove(peer);
                    }
                    Told::Flush(_) | Told::Drop(_) | Told::Evidence(..) | Told::Sync(_) => {}
                }
                driver.told_of_bundle(told);
            }
            Inside::Done(done) => {
                self.note(&done);
                driver.take(done);
            }
        }
    }

    /// Forgets what has ended.
    fn note(&mut self, done: &Done) {
        match done {
            Done::PullEnded { job }
            | Done::PullRejected { job, .. }
            | Done::PullFailed { job, .. } => {
                self.jobs.remove(job);
            }
            Done::Dropped { feed } => {
                self.desks.remove(feed);
            }
            Done::Pulled { .. }
            | Done::Stored { .. }
            | Done::Refilled { .. }
            | Done::ElisionsChecked { .. }
            | Done::StoreFailed { .. }
            | Done::Applied { .. }
            | Done::Differs { .. }
            | Done::EpochOpened { .. }
            | Done::Proven { .. }
            | Done::Sought { .. }
            | Done::Extended { .. }
            | Done::Flushed { .. } => {}
        }
    }

    fn changed(
        &self,
        driver: &mut Driver,
        change: Result<Change, RecvError>,
        from: &mut broadcast::Receiver<Change>,
    ) {
        match change {
            Ok(change) => driver.changed(Some(change)),
            Err(RecvError::Lagged(_)) => driver.changed(None),
            Err(RecvError::Closed) => *from = self.node.hub().watch(),
        }
    }

    fn carry_out(&mut self, errand: Errand) {
        match errand {
            Errand::Pull { peer, order } => self.pull(peer, order),
            Errand::CancelPull { job } => {
                if let Some(job) = self.jobs.remove(&job) {
                    job.task.abort();
                }
            }
            Errand::Desk {
                feed,
                publisher,
                own,
                order,
            } => {
                let seat = self.desks.entry(feed).or_insert_with(|| {
                    let report = self.report.clone();
                    // Without a driver the exchange has stopped; the store has what counts.
                    let tell = move |done| drop(report.blocking_send(Inside::Done(done)));
                    let (node, rooms) = (Arc::clone(&self.node), Arc::clone(&self.rooms));
                    Seat {
                        desk: Desk::new(node, feed, publisher, own, rooms, tell),
                        used: UnixMillis(0),
                    }
                });
                seat.used = self.node.clock().now();
                let desk = Arc::clone(&seat.desk);
                order_at(&desk, &self.threads(), order);
            }
            Errand::AskRoster { peer, from } => self.ask_roster(peer, from),
            Errand::Prove(case) => {
                // Files first: they are at hand.
                let files = self.files.values().cloned().map(Source::Bundle);
                let links =
                    files.chain(self.links.all().into_iter().map(Box::new).map(Source::Peer));
                let (node, links, report) =
                    (Arc::clone(&self.node), links.collect(), self.report.clone());
                self.tasks.spawn(async move {
                    let feed = case.feed;
                    if fork::prove(&node, *case, links).await {
                        let _ = report.send(Inside::Done(Done::Proven { feed })).await;
                    }
                    let _ = report.send(Inside::Done(Done::Sought { feed })).await;
                });
            }
            Errand::Extend { job, peer, request } => self.extend(job, peer, request),
            Errand::OpenOwnEpochs => {
                self.tasks.spawn(open_own(Arc::clone(&self.node)));
            }
            Errand::RecheckConflicts => self.rechecker.look(&self.tasks, &self.bulk),
            Errand::Cut { peer } => {
                if let Some(link) = self.links.get(peer) {
                    link.connection().cut();
                }
            }
        }
    }

    fn pull(&mut self, peer: PeerId, order: pipeline::Order) {
        let job = order.job;
        let link = self.links.get(peer);
        let read = link.map_or(0, |link| link.connection().traffic().read());
        let link = link.cloned().map(Box::new).map(Source::Peer);
        let file = || self.files.get(&peer).cloned().map(Source::Bundle);
        let Some(source) = link.or_else(file) else {
            return; // the driver orders over links that stand
        };
        metrics::counter!("hashpact_pulls_total").increment(1);
        let pull = pipeline::pull(
            Arc::clone(&self.node),
            source,
            order,
            Arc::clone(&self.bulk),
            self.report.clone(),
        );
        let started = Job {
            peer,
            task: self.tasks.spawn(pull).abort_handle(),
            began: self.now(),
            read,
        };
        self.jobs.insert(job, started);
    }

    /// Asks for a proof, and reports whatever comes: the witness counts its jobs.
    fn extend(&self, job: JobId, peer: PeerId, request: PullRequest) {
        let link = self.links.get(peer).cloned();
        let report = self.report.clone();
        self.tasks.spawn(async move {
            let answer = match link {
                Some(link) => proof(&link, &request).await,
                None => None,
            };
            let done = Done::Extended { job, answer };
            let _ = report.send(Inside::Done(done)).await;
        });
    }

    fn ask_roster(&self, peer: PeerId, from: u64) {
        let Some(link) = self.links.get(peer).cloned() else {
            return;
        };
        let (node, rejections) = (Arc::clone(&self.node), Arc::clone(&self.rejections));
        self.tasks.spawn(async move {
            let name = link.identity().to_string();
            let taken = match link.roster(from).await {
                Ok(documents) => documents_in::take_in(&node, &rejections, &name, documents).await,
                Err(error) => Err(error),
            };
            if let Err(error) = taken {
                tracing::info!(peer = name, code = error.code(), %error, "asking for the roster");
            }
        });
    }

    fn tidy(&mut self, driver: &mut Driver) {
        let (now, threads) = (self.now(), self.threads());
        self.desks.retain(|_, seat| {
            let idle = now.since(seat.used) >= DESK_REST_MS;
            if idle && !seat.desk.is_at_rest() && seat.desk.is_quiet() {
                order_at(&seat.desk, &threads, storing::Order::Rest);
            }
            !idle || !seat.desk.is_at_rest()
        });
        self.purger.look(&self.tasks);
        for job in self.quiet() {
            driver.quiet(job);
        }
        driver.tidy();
    }

    /// Streams whose connections brought nothing since they began.
    fn quiet(&self) -> Vec<JobId> {
        let now = self.now();
        let quiet = |job: &Job| {
            let read = self.links.get(job.peer);
            let read = read.map_or(0, |link| link.connection().traffic().read());
            now.since(job.began) >= QUIET_MS && read.saturating_sub(job.read) < QUIET_BYTES
        };
        let jobs = self.jobs.iter().filter(|(_, job)| quiet(job));
        jobs.map(|(id, _)| *id).collect()
    }

    fn end(&self) {
        for job in self.jobs.values() {
            job.task.abort();
        }
        for seat in self.desks.values() {
            order_at(&seat.desk, &self.threads(), storing::Order::Rest);
        }
    }

    fn threads(&self) -> Threads {
        Threads {
            tasks: self.tasks.clone(),
            handle: self.bulk.handle(Size::Small).clone(),
            turns: Arc::clone(&self.turns),
        }
    }
}

/// Where desks are at work. ⚠ However much it is, with the small: who writes may hold what
/// all who write wait for, a mute or a retraction too.
struct Threads {
    tasks: TaskTracker,
    handle: Handle,
    turns: Arc<Turns<Arc<Desk>>>,
}

/// Queues an order, and puts a thread to the desk if there is none, once it is the turn of
/// its publisher.
fn order_at(desk: &Arc<Desk>, threads: &Threads, order: storing::Order) {
    if !desk.queue_order(order) {
        return;
    }
    let Some(begins) = threads.turns.begin(desk.publisher(), Arc::clone(desk)) else {
        return;
    };
    let turns = Arc::clone(&threads.turns);
    let work = move || {
        let mut next = Some(begins);
        while let Some((of, desk)) = next {
            let more = desk.run_until(|| turns.is_wanted(of));
            next = turns.end(of, more.then_some(desk));
        }
    };
    threads.tasks.spawn_blocking_on(work, &threads.handle);
}

/// The proof that a peer gives, if it gives one.
async fn proof(link: &Peer, request: &PullRequest) -> Option<ProofParts> {
    let mut parts = link.pull(request).await.ok()?;
    match parts.next().await? {
        Ok(PullPart::Proof(proof)) => Some(proof),
        Ok(PullPart::Chunk(_)) | Err(_) => None,
    }
}

/// Takes own feeds to their epochs, on a thread for the store.
async fn open_own(node: Arc<Node>) {
    let opened = spawn_blocking(move || node.publisher().open_epochs());
    if let Ok(Err(error)) = opened.await {
        let error: NodeError = error;
        tracing::error!(%error, code = error.code(), "opening an epoch of an own set");
    }
}
