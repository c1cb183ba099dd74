//! One member of a simulated coalition: its node, as it runs between two crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hashpact_core::card::EndpointPolicy;
use hashpact_core::id::{Digest, FeedId, Slug, UnixMillis};
use hashpact_core::puller::{self, JobId, PeerId};
use hashpact_node::audit::AuditSettings;
use hashpact_node::clock::Clock;
use hashpact_node::hub::Change;
use hashpact_node::publish::Salts;
use hashpact_node::witnessing::WitnessOptions;
use hashpact_node::{Node, NodeOptions};
use hashpact_store::StoreOptions;
use tokio::sync::broadcast::Receiver;

use super::calls::{CallId, Serving, Waiting};
use super::coalition::{self, BEGIN, CardPlan};
use super::sessions::{Loop, LoopKey, SessionId};
use super::{Limits, SimError};
use crate::exchange::directory::{Directory, Snapshots};
use crate::exchange::driver::{Driver, Parts};
use crate::exchange::inside::Done;
use crate::exchange::rejections::Rejections;
use crate::exchange::room::Rooms;
use crate::exchange::start::PUBLISHER_MAX_BYTES;
use crate::exchange::storing::Desk;
use crate::exchange::view::Board;

/// As shipped.
const CONFIRM_WAIT: Duration = Duration::from_secs(60);

/// A member, whether its node runs or not.
pub(crate) struct Member {
    pub(crate) number: u32,
    pub(crate) slug: Slug,
    dir: PathBuf,
    clock: Clock,
    /// How much its clock is ahead.
    ahead_ms: u64,
    /// Counts its starts: what was meant for an earlier one is nobody's.
    pub(crate) incarnation: u64,
    /// The TLS key that it shows.
    pub(crate) tls: u8,
    pub(crate) card: CardPlan,
    settings: puller::Settings,
    pub(crate) run: Option<Running>,
}

/// A node that runs.
pub(crate) struct Running {
    pub(crate) node: Arc<Node>,
    pub(crate) driver: Driver,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) rejections: Arc<Rejections>,
    pub(crate) rooms: Arc<Rooms>,
    /// How its dials stand: own sets wait for peers that can be asked.
    pub(crate) board: Arc<Board>,
    pub(crate) changes: Receiver<Change>,
    /// What desks report.
    pub(crate) done: Arc<Mutex<Vec<Done>>>,
    /// Desks, with when each was last given an order.
    pub(crate) desks: BTreeMap<FeedId, (Arc<Desk>, u64)>,
    /// Ways to call each peer, the newest last.
    pub(crate) links: BTreeMap<PeerId, Vec<SessionId>>,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    /// The ends of sessions at which it stands.
    pub(crate) ends: BTreeSet<(SessionId, usize)>,
    /// Calls made, until their end.
    pub(crate) calls: BTreeMap<CallId, (SessionId, Waiting)>,
    /// Pulls that are answered.
    pub(crate) serving: BTreeMap<CallId, Serving>,
    pub(crate) loops: BTreeMap<LoopKey, Loop>,
    /// When the driver is woken.
    pub(crate) wake: Option<u64>,
    /// Whether watches are to be looked at, and connections to be aligned.
    pub(crate) tell_due: bool,
    pub(crate) align_due: bool,
}

/// A pull under way that brought nothing yet.
pub(crate) struct Job {
    pub(crate) call: CallId,
    pub(crate) began: u64,
}

impl Running {
    /// Takes what desks reported.
    pub(crate) fn take_done(&self) -> Vec<Done> {
        std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Member {
    pub(crate) fn new(
        number: u32,
        dir: PathBuf,
        ahead_ms: u64,
        card: CardPlan,
        limits: &Limits,
    ) -> Result<Self, SimError> {
        Ok(Self {
            number,
            slug: coalition::slug(number)?,
            dir,
            clock: Clock::manual(BEGIN),
            ahead_ms,
            incarnation: 0,
            tls: 0,
            card,
            settings: limits.puller.clone(),
            run: None,
        })
    }

    /// Sets the member's clock and tells its time.
    pub(crate) fn at(&self, now: u64) -> UnixMillis {
        let at = BEGIN.plus(now).plus(self.ahead_ms);
        self.clock.set(at);
        at
    }

    /// Opens its store and begins its node, as of now.
    pub(crate) fn start(
        &mut self,
        now: u64,
        (genesis, seed): (Digest, u64),
        witness: Option<WitnessOptions>,
        chance: u64,
    ) -> Result<(), SimError> {
        self.at(now);
        self.incarnation = self.incarnation.saturating_add(1);
        let newest = self.card.feed.last().copied().unwrap_or_default();
        let node = Node::open(NodeOptions {
            store_dir: self.dir.join("store"),
            store: small(),
            sign_state_dir: self.dir.join("sign-state"),
            member: self.slug.clone(),
            node: coalition::node_name()?,
            genesis,
            endpoint_policy: EndpointPolicy::AllowLocal,
            denied: BTreeSet::new(),
            feed_key: coalition::feed_key(seed, self.number, newest),
            identity_key: Some(coalition::identity(seed, self.number)),
            clock: self.clock.clone(),
            connects: true,
            witness,
            near_index: false,
            audit: AuditSettings::default(),
            hygiene: hashpact_node::hygiene::HygieneOptions::default(),
        })?;
        node.publisher().set_salts(Salts::seeded(chance));
        node.use_receipt_keys(vec![coalition::receipt_key(seed, self.number)]);
        let rejections = Arc::new(Rejections::default());
        let changes = node.hub().watch();
        let board = Arc::new(Board::default());
        let rooms = Rooms::new(PUBLISHER_MAX_BYTES);
        let mut driver = Driver::new(Parts {
            node: Arc::clone(&node),
            settings: self.settings.clone(),
            rooms: Arc::clone(&rooms),
            seed: chance,
            board: Arc::clone(&board),
            confirm_wait: CONFIRM_WAIT,
            rejections: Arc::clone(&rejections),
        });
        driver.begin();
        // A real node waits until its peers were dialled, at most for some seconds.
        node.set_ready(true);
        self.run = Some(Running {
            snapshots: Arc::new(Snapshots::of(&node)),
            directory: Directory::of(&node),
            node,
            driver,
            rejections,
            rooms,
            board,
            changes,
            done: Arc::default(),
            desks: BTreeMap::new(),
            links: BTreeMap::new(),
            jobs: BTreeMap::new(),
            ends: BTreeSet::new(),
            calls: BTreeMap::new(),
            serving: BTreeMap::new(),
            loops: BTreeMap::new(),
            wake: None,
            tell_due: false,
            align_due: false,
        });
        Ok(())
    }
}

/// A store for a hundred in one process.
fn small() -> StoreOptions {
    StoreOptions {
        block_cache_bytes: 1 << 20,
        write_buffer_bytes: 2 << 20,
        background_jobs: 1,
        bulk_threads: 1,
        ..StoreOptions::default()
    }
}
