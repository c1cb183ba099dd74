//! Puts the exchange together, and takes it apart again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hashpact_core::card::EndpointPolicy;
use hashpact_core::puller;
use hashpact_node::bundle::Bundles;
use hashpact_node::{ExchangeView, Node};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bulk::Bulk;
use super::bundle::{Carrier, Drive};
use super::dial::{Bootstrap, Dialling};
use super::directory::{Directory, Snapshots};
use super::driver::Parts;
use super::hands::Runner;
use super::inbox::Inbox;
use super::inside::Inside;
use super::rejections::Rejections;
use super::room::Rooms;
use super::serve::NodeService;
use super::view::Board;
use crate::accept::{Acceptor, Entrance, Reversals};
use crate::client::{Clock, Dialler};
use crate::connections::Connections;
use crate::error::NetError;
use crate::server::{self, Identity};
use crate::settings::Settings;
use crate::tls::Credentials;

/// Connections on which peers want to be called, before they are.
const REVERSED_MAX: usize = 16;
/// Reports that wait for the driver: each pull has at most a few.
const REPORTS_MAX: usize = 256;
/// Between looks at whether the node is ready.
const READY_LOOK: Duration = Duration::from_millis(50);

/// What the feeds of one publisher may take: some 170 million entries of one kind of
/// signal, which is more than any list there is.
pub const PUBLISHER_MAX_BYTES: u64 = 32 << 30;

/// What an exchange is started with.
#[derive(Debug, Clone)]
pub struct ExchangeOptions {
    /// The node's TLS key and certificate.
    pub credentials: Credentials,
    /// Limits of connections, streams and calls.
    pub settings: Settings,
    /// Limits of pulls.
    pub pull: puller::Settings,
    /// What the pulled feeds of one publisher may take of the disk.
    pub publisher_max_bytes: u64,
    /// Where to listen; `None` for a node that only dials.
    pub listen: Option<SocketAddr>,
    /// Whether peers cannot dial this node: it dials each of them once more, to be
    /// called on that connection. `None` is: if it does not listen.
    pub outbound_only: Option<bool>,
    /// Whom to ask for the roster first.
    pub bootstrap: Vec<Bootstrap>,
    /// Which addresses are dialled.
    pub endpoint_policy: EndpointPolicy,
    /// The HTTP proxy to dial through, `host:port`.
    pub proxy: Option<String>,
    /// How long streams may take to end.
    pub grace: Duration,
    /// How long, once a peer has said what it holds of this node's own feeds, the
    /// others are waited for before these may be published to.
    pub confirm_wait: Duration,
    /// The longest that readiness waits for peers to be tried.
    pub ready_within: Duration,
}

impl ExchangeOptions {
    /// Everything as shipped, for a node that only dials.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            settings: Settings::default(),
            pull: puller::Settings::default(),
            publisher_max_bytes: PUBLISHER_MAX_BYTES,
            listen: None,
            outbound_only: None,
            bootstrap: Vec::new(),
            endpoint_policy: EndpointPolicy::default(),
            proxy: None,
            grace: Duration::from_secs(10),
            confirm_wait: Duration::from_secs(60),
            ready_within: Duration::from_secs(15),
        }
    }
}

/// A node's running exchange with others.
pub struct Exchange {
    local_addr: Option<SocketAddr>,
    board: Arc<Board>,
    connections: Arc<Connections>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    bulk: Arc<Bulk>,
    grace: Duration,
    report: mpsc::Sender<Inside>,
    rejections: Arc<Rejections>,
}

impl Exchange {
    /// Listens, dials and pulls until `shutdown`, or until it is dropped. Sets the node ready once every
    /// peer that can be dialled was tried, or at the latest after
    /// [`ready_within`](ExchangeOptions::ready_within).
    ///
    /// # Errors
    /// [`NetError::Connect`] when the address cannot be listened on,
    /// [`NetError::Tls`] when the credentials cannot be used.
    pub async fn start(
        node: Arc<Node>,
        options: ExchangeOptions,
        shutdown: CancellationToken,
    ) -> Result<Self, NetError> {
        let listener = match options.listen {
            Some(address) => Some(
                TcpListener::bind(address)
                    .await
                    .map_err(NetError::Connect)?,
            ),
            None => None,
        };
        let address = listener.as_ref().map(TcpListener::local_addr);
        let rejections = Arc::new(Rejections::default());
        let (report, reports) = mpsc::channel(REPORTS_MAX);
        let exchange = Self {
            local_addr: address.transpose().map_err(NetError::Connect)?,
            board: Arc::default(),
            connections: Connections::new(),
            tasks: TaskTracker::new(),
            // Its own, so that it ends with what it belongs to.
            shutdown: shutdown.child_token(),
            bulk: Bulk::start()?,
            grace: options.grace,
            report: report.clone(),
            rejections: Arc::clone(&rejections),
        };
        let identity = Identity {
            credentials: options.credentials.clone(),
            directory: Directory::of(&node),
            connections: Arc::clone(&exchange.connections),
            settings: options.settings,
        };
        let (inbox, heard) = Inbox::new();
        let clock = node.clock().clone();
        let clock: Clock = Arc::new(move || clock.now());
        let outbound_only = options.outbound_only.unwrap_or(listener.is_none());
        let (to, reversed) = mpsc::channel(REVERSED_MAX);
        let entrance = exchange.serve(&node, identity.clone(), inbox.clone());
        if let Some(listener) = listener {
            let clock = Arc::clone(&clock);
            let acceptor = Acceptor::new(identity.clone(), Some(Reversals { to, clock }))?;
            acceptor.begin(listener, entrance.clone(), exchange.shutdown.clone());
        }
        let parts = Parts {
            node: Arc::clone(&node),
            settings: options.pull.clone(),
            confirm_wait: options.confirm_wait,
            seed: rand::random(),
            rooms: Rooms::new(options.publisher_max_bytes),
            board: Arc::clone(&exchange.board),
            rejections: Arc::clone(&rejections),
        };
        let runner = Runner {
            parts,
            heard,
            reports,
            report: report.clone(),
            tasks: exchange.tasks.clone(),
            bulk: Arc::clone(&exchange.bulk),
            stop: exchange.shutdown.clone(),
        };
        let handle = Handle::current();
        exchange
            .tasks
            .spawn_blocking(move || handle.block_on(runner.run()));
        let dialler = Dialler::new(identity, clock);
        let dialling = Dialling {
            dialler: match options.proxy.clone() {
                Some(proxy) => dialler.through(proxy),
                None => dialler,
            },
            connections: Arc::clone(&exchange.connections),
            snapshots: Arc::new(Snapshots::of(&node)),
            inbox,
            driver: report,
            board: Arc::clone(&exchange.board),
            rejections,
            tasks: exchange.tasks.clone(),
            stop: exchange.shutdown.clone(),
            policy: options.endpoint_policy,
            waits: options.pull.waits,
            proxied: options.proxy.is_some(),
            bootstrap: options.bootstrap,
            reverse: outbound_only.then_some(entrance),
            node: Arc::clone(&node),
        };
        let dialling = Arc::new(dialling);
        exchange
            .tasks
            .spawn(Arc::clone(&dialling).call_all(reversed));
        exchange.tasks.spawn(dialling.supervise());
        exchange.await_ready(&node, options.ready_within);
        node.set_exchange(exchange.view());
        Ok(exchange)
    }

    /// Answers the calls on every connection that enters.
    fn serve(&self, node: &Arc<Node>, identity: Identity, inbox: Inbox) -> Entrance {
        let (entrance, entering) = Entrance::new();
        let (bulk, stop) = (Arc::clone(&self.bulk), self.shutdown.clone());
        let service = NodeService::new(Arc::clone(node), inbox, bulk, stop);
        // What has not ended by half of the grace is cut, with time to spare.
        let (stop, grace) = (self.shutdown.clone(), self.grace / 2);
        self.tasks.spawn(async move {
            let serving = server::serve_entering(entering, identity, service, stop, grace);
            if let Err(error) = serving.await {
                tracing::error!(%error, code = error.code(), "the federation server ended");
            }
        });
        entrance
    }

    fn await_ready(&self, node: &Arc<Node>, within: Duration) {
        let (node, board) = (Arc::clone(node), Arc::clone(&self.board));
        let stop = self.shutdown.clone();
        self.tasks.spawn(async move {
            let tried = async {
                while !board.all_tried() {
                    tokio::time::sleep(READY_LOOK).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tried => {}
                () = tokio::time::sleep(within) => {}
            }
            node.set_ready(true);
        });
    }

    /// Where it listens, with the port that the system gave.
    #[must_use]
    pub const fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addr
    }

    /// How it stands; the node has it, too.
    #[must_use]
    pub fn view(&self) -> Arc<dyn ExchangeView> {
        Arc::clone(&self.board) as Arc<dyn ExchangeView>
    }

    /// What makes bundles of the node's sets and takes them in, while it runs.
    #[must_use]
    pub fn bundles(&self, node: &Arc<Node>) -> Arc<dyn Bundles> {
        let drive = Drive::Running {
            driver: self.report.clone(),
            rejections: Arc::clone(&self.rejections),
        };
        Carrier::new(Arc::clone(node), Arc::clone(&self.bulk), drive)
    }

    /// The connections of both directions.
    #[must_use]
    pub const fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// How many pulls of leaves were asked for.
    #[cfg(test)]
    pub(crate) fn pulls(&self) -> u64 {
        self.board.pulls()
    }

    /// How many pulls failed.
    #[cfg(test)]
    pub(crate) fn failed_pulls(&self) -> u64 {
        self.board.failed_pulls()
    }

    /// How often the driver looked at what only time changes.
    #[cfg(test)]
    pub(crate) fn looks(&self) -> u64 {
        self.board.looks()
    }

    /// What peers sent that was refused.
    #[cfg(test)]
    pub(crate) fn rejections(&self) -> &Rejections {
        &self.rejections
    }

    /// Whether no feed is behind a head that was heard of.
    #[must_use]
    pub fn caught_up(&self) -> bool {
        self.board.caught_up()
    }

    /// Waits, after the shutdown was asked for, until everything has ended, at most
    /// the grace; then connections are cut. Answers whether it ended in time.
    pub async fn wait(self) -> bool {
        self.shutdown.cancelled().await;
        self.tasks.close();
        let in_time = tokio::time::timeout(self.grace, self.tasks.wait()).await;
        if in_time.is_err() {
            self.connections.cut(|_| true);
        }
        in_time.is_ok()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
