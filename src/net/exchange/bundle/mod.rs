//! Bundles: chosen sets with all that proves them, as one file.
//!
//! A bundle is a peer without a connection. What goes into one is what this node would
//! serve the recipient over a connection, under the same access, decided again for each
//! chunk; what comes out of one goes through the driver, the puller, the pipeline and the
//! desk, as what a peer serves. Nothing here verifies or stores by a way of its own.
//!
//! `docs/FORMATS.md` has the file byte by byte.

mod driven;
mod import;
mod leaves;
mod read;
mod show;
mod write;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hashpact_core::puller;
use hashpact_node::bundle::{
    BundleFile, BundleMade, BundleOrder, BundleProgress, BundleTaken, Bundles, Doing,
};
use hashpact_node::{Node, NodeError};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use driven::{Files, Told};
pub(crate) use leaves::{Leaves, Source};
pub use show::{BundleView, FeedView, show};

use super::bulk::Bulk;
use super::directory::Snapshots;
use super::driver::Parts;
use super::hands::Runner;
use super::inbox::Inbox;
use super::inside::Inside;
use super::rejections::Rejections;
use super::room::Rooms;
use super::served::Pulls;
use super::view::Board;
use crate::error::NetError;
use import::Importing;
use write::Exporting;

/// Reports that wait for a driver that works alone.
const REPORTS_MAX: usize = 256;

/// Makes bundles of a node's sets, and takes them in.
pub(crate) struct Carrier {
    node: Arc<Node>,
    exporting: Arc<Exporting>,
    drive: Drive,
    /// One import at a time.
    turn: Arc<Mutex<()>>,
}

/// Who takes feeds in.
#[derive(Clone)]
pub(crate) enum Drive {
    /// The exchange that runs.
    Running {
        driver: mpsc::Sender<Inside>,
        rejections: Arc<Rejections>,
    },
    /// Nobody else: a driver without peers, for as long as it takes.
    Alone {
        settings: puller::Settings,
        publisher_max_bytes: u64,
        bulk: Arc<Bulk>,
    },
}

impl Carrier {
    pub(crate) fn new(node: Arc<Node>, bulk: Arc<Bulk>, drive: Drive) -> Arc<Self> {
        let snapshots = Arc::new(Snapshots::of(&node));
        let pulls = Pulls::new(Arc::clone(&node), Arc::clone(&snapshots), bulk);
        let exporting = Exporting {
            node: Arc::clone(&node),
            snapshots,
            pulls,
        };
        Arc::new(Self {
            node,
            exporting: Arc::new(exporting),
            drive,
            turn: Arc::default(),
        })
    }
}

/// What makes bundles and takes them in for a command that works without a node that
/// runs; `settings` limits growth, and `publisher_max_bytes` what the feeds of one publisher
/// take of the disk, as a node's do.
///
/// # Errors
/// As [`Bulk::start`].
pub fn alone(
    node: Arc<Node>,
    settings: puller::Settings,
    publisher_max_bytes: u64,
) -> Result<Arc<dyn Bundles>, NetError> {
    let bulk = Bulk::start()?;
    let drive = Drive::Alone {
        settings,
        publisher_max_bytes,
        bulk: Arc::clone(&bulk),
    };
    Ok(Carrier::new(node, bulk, drive))
}

impl Bundles for Carrier {
    fn export(&self, order: BundleOrder, out: mpsc::Sender<Bytes>) -> Doing<BundleMade> {
        let exporting = Arc::clone(&self.exporting);
        Box::pin(async move { exporting.run(order, out).await })
    }

    fn import(
        &self,
        file: Arc<dyn BundleFile>,
        progress: mpsc::Sender<BundleProgress>,
    ) -> Doing<BundleTaken> {
        let (node, drive, turn) = (
            Arc::clone(&self.node),
            self.drive.clone(),
            self.turn.clone(),
        );
        Box::pin(async move {
            let _turn = turn
                .try_lock_owned()
                .map_err(|_| NodeError::Busy("another bundle is being taken in"))?;
            match drive {
                Drive::Running { driver, rejections } => {
                    let importing = Importing {
                        node,
                        driver,
                        rejections,
                        file,
                        progress,
                    };
                    importing.run().await
                }
                Drive::Alone {
                    settings,
                    publisher_max_bytes,
                    bulk,
                } => {
                    let rooms = Rooms::new(publisher_max_bytes);
                    import_alone(node, (settings, rooms, bulk), file, progress).await
                }
            }
        })
    }
}

/// Runs a driver that nobody is connected to, until the file is taken in.
async fn import_alone(
    node: Arc<Node>,
    (settings, rooms, bulk): (puller::Settings, Arc<Rooms>, Arc<Bulk>),
    file: Arc<dyn BundleFile>,
    progress: mpsc::Sender<BundleProgress>,
) -> Result<BundleTaken, NodeError> {
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    // Also where whoever asked is gone.
    let stopping = stop.clone().drop_guard();
    let (report, reports) = mpsc::channel(REPORTS_MAX);
    let (_inbox, heard) = Inbox::new();
    let rejections = Arc::new(Rejections::default());
    let parts = Parts {
        node: Arc::clone(&node),
        settings,
        seed: rand::random(),
        rooms,
        // Nobody is asked what he holds: a bundle opens no set for publishing.
        confirm_wait: Duration::MAX,
        board: Arc::<Board>::default(),
        rejections: Arc::clone(&rejections),
    };
    let runner = Runner {
        parts,
        heard,
        reports,
        report: report.clone(),
        tasks: tasks.clone(),
        bulk,
        stop,
    };
    let handle = Handle::current();
    tasks.spawn_blocking(move || handle.block_on(runner.run()));
    let importing = Importing {
        node: Arc::clone(&node),
        driver: report,
        rejections,
        file,
        progress,
    };
    let taken = importing.run().await;
    drop(stopping);
    tasks.close();
    tasks.wait().await;
    // What was erased leaves the disk before the command ends.
    let purged = tokio::task::spawn_blocking(move || node.purge_erased()).await;
    purged.unwrap_or(Err(NodeError::Busy("the node is stopping")))?;
    taken
}
