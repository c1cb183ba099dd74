//! A node that has a member's keys and store, and alters what it serves.
//!
//! It speaks the real protocol with the program's own server; only the answer to
//! `Pull` is changed, by one bit of one leaf's payload, encoded again as a page, so
//! that nothing but the proof can tell.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use hashpact_core::chunk::ChunkParts;
use hashpact_core::id::UnixMillis;
use hashpact_core::leaf::{LeafBody, RawLeaf};
use hashpact_core::page;
use hashpact_net::exchange::directory::Directory;
use hashpact_net::exchange::serve::NodeService;
use hashpact_net::exchange::{Bulk, Heard, Inbox};
use hashpact_net::types::{
    Announcement, Answers, Incoming, NodeInfo, PullPart, PullRequest, RosterItem,
};
use hashpact_net::{
    Caller, Connections, FederationService, Identity, NetError, ServiceError, serve,
};
use hashpact_node::Node;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cli::error::CliError;
use crate::cli::open::{credentials, open_node};
use crate::config::{Config, Files};

/// How long its streams may take to end.
const GRACE: Duration = Duration::from_millis(200);

/// The hostile node, while it runs.
pub(super) struct Hostile {
    altered: Arc<AtomicU64>,
    stop: CancellationToken,
    server: JoinHandle<Result<(), NetError>>,
    inbox: JoinHandle<()>,
}

impl Hostile {
    /// Opens the member's store and serves what it holds.
    pub(super) async fn start(config: &Path) -> Result<Self, CliError> {
        let path = config.to_owned();
        let opened = tokio::task::spawn_blocking(move || open(&path));
        let (config, node) = opened.await.map_err(CliError::failed)??;
        let address = config.federation.listen;
        let address = address.ok_or_else(|| CliError::failed("this member does not listen"))?;
        let listener = TcpListener::bind(address).await.map_err(CliError::failed)?;
        let identity = Identity {
            credentials: credentials(&config)?,
            directory: Directory::of(&node),
            connections: Connections::new(),
            settings: config.federation.limits.settings(),
        };
        let (inbox, heard) = Inbox::new();
        let altered = Arc::new(AtomicU64::new(0));
        let service = Arc::new(Altering {
            honest: NodeService::new(
                node,
                inbox,
                Bulk::start().map_err(CliError::failed)?,
                CancellationToken::new(),
            ),
            altered: Arc::clone(&altered),
        });
        let stop = CancellationToken::new();
        Ok(Self {
            altered,
            server: tokio::spawn(serve(listener, identity, service, stop.clone(), GRACE)),
            inbox: tokio::spawn(forget(heard)),
            stop,
        })
    }

    /// Chunks that went out altered.
    pub(super) fn altered(&self) -> u64 {
        self.altered.load(Ordering::SeqCst)
    }

    /// Stops serving and lets go of the store.
    pub(super) async fn stop(self) -> Result<(), CliError> {
        self.stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), self.server).await;
        self.inbox.abort();
        match ended {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(CliError::failed(error)),
            Err(_) => Err(CliError::failed("the altering node does not stop")),
        }
    }
}

/// Opens the store of a node that does not run.
fn open(path: &Path) -> Result<(Config, Arc<Node>), CliError> {
    let config = Config::load(path, Files::Check)?;
    let node = open_node(&config, false)?;
    Ok((config, node))
}

/// What others say to it goes nowhere.
async fn forget(mut heard: mpsc::Receiver<Heard>) {
    while heard.recv().await.is_some() {}
}

/// Answers as a node does, but for one bit.
struct Altering {
    honest: Arc<NodeService>,
    altered: Arc<AtomicU64>,
}

impl FederationService for Altering {
    fn now(&self) -> UnixMillis {
        self.honest.now()
    }

    async fn hello(&self, caller: &Caller, peer: NodeInfo) -> Result<NodeInfo, ServiceError> {
        self.honest.hello(caller, peer).await
    }

    async fn roster(
        &self,
        caller: &Caller,
        from_version: u64,
    ) -> Result<Answers<RosterItem>, ServiceError> {
        self.honest.roster(caller, from_version).await
    }

    async fn watch(
        &self,
        caller: &Caller,
        incoming: Incoming<Announcement>,
    ) -> Result<Answers<Announcement>, ServiceError> {
        self.honest.watch(caller, incoming).await
    }

    async fn pull(
        &self,
        caller: &Caller,
        request: PullRequest,
    ) -> Result<Answers<PullPart>, ServiceError> {
        let honest = self.honest.pull(caller, request).await?;
        let altered = Arc::clone(&self.altered);
        Ok(Box::pin(honest.map(move |part| match part {
            Ok(PullPart::Chunk(mut parts)) => {
                if alter(&mut parts) {
                    altered.fetch_add(1, Ordering::SeqCst);
                }
                Ok(PullPart::Chunk(parts))
            }
            other => other,
        })))
    }
}

/// Flips one bit of the last leaf that has a payload.
fn alter(parts: &mut ChunkParts) -> bool {
    if let Some(wire) = parts.pages.last_mut() {
        let Ok(mut leaves) = page::decode(wire) else {
            return false;
        };
        let done = flip(&mut leaves);
        return match page::encode(&leaves) {
            Ok(encoded) => {
                *wire = encoded;
                done
            }
            Err(_) => false,
        };
    }
    flip_plain(&mut parts.trailing) || flip_plain(&mut parts.leading)
}

fn flip(leaves: &mut [RawLeaf]) -> bool {
    for leaf in leaves.iter_mut().rev() {
        if let LeafBody::Payload(payload) = &mut leaf.body {
            *payload = flipped(payload);
            return true;
        }
    }
    false
}

/// Ragged ends travel as plain leaves; the last byte is one of the last payload.
fn flip_plain(plain: &mut Bytes) -> bool {
    if plain.is_empty() {
        return false;
    }
    *plain = flipped(plain);
    true
}

fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    bytes.into()
}
