//! Asks nodes over their sockets, as a member's own systems do.

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use hashpact_api::MESSAGE_MAX_BYTES;
use hashpact_api::wire::node_client::NodeClient;
use hashpact_api::wire::{
    Feed, FeedsRequest, LookupRequest, PeersRequest, ReceiptsRequest, ReceiptsResponse, Signal,
    StatusRequest, StatusResponse,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::cli::error::CliError;

/// Between two looks at something that is about to change.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long nothing may change where something should.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a page of metrics may be long.
const METRICS_MAX_BYTES: u64 = 4 << 20;

/// A node's local API.
#[derive(Clone)]
pub(super) struct Node(NodeClient<Channel>);

impl Node {
    /// Connects to the socket of a node that runs.
    pub(super) async fn connect(socket: &Path) -> Result<Self, CliError> {
        let socket = socket.to_owned();
        let channel = Endpoint::from_static("http://node.invalid")
            .connect_with_connector(service_fn(move |_| {
                let socket = socket.clone();
                async move { UnixStream::connect(socket).await.map(TokioIo::new) }
            }))
            .await
            .map_err(|error| CliError::failed(format!("the node does not answer: {error}")))?;
        Ok(Self(
            NodeClient::new(channel).max_decoding_message_size(MESSAGE_MAX_BYTES),
        ))
    }

    /// The node at a glance.
    pub(super) async fn status(&mut self) -> Result<StatusResponse, CliError> {
        let answered = self.0.status(StatusRequest {}).await;
        answered
            .map(tonic::Response::into_inner)
            .map_err(CliError::failed)
    }

    /// Who acts on a leaf of a set of the node's.
    pub(super) async fn receipts(
        &mut self,
        set: &str,
        index: u64,
    ) -> Result<ReceiptsResponse, CliError> {
        let asked = ReceiptsRequest {
            set: set.to_owned(),
            index: Some(index),
            published: false,
        };
        let answered = self.0.receipts(asked).await;
        answered
            .map(tonic::Response::into_inner)
            .map_err(CliError::failed)
    }

    /// Whether the node is connected with one of a member's.
    pub(super) async fn is_connected(&mut self, member: &str) -> Result<bool, CliError> {
        let answered = self.0.peers(PeersRequest {}).await;
        let peers = answered.map_err(CliError::failed)?.into_inner().peers;
        let mut peers = peers.iter().filter(|peer| peer.member == member);
        Ok(peers.any(|peer| peer.state == "connected"))
    }

    /// Every feed that the node holds.
    pub(super) async fn feeds(&mut self) -> Result<Vec<Feed>, CliError> {
        let answered = self.0.feeds(FeedsRequest {}).await;
        let answered = answered.map_err(CliError::failed)?;
        Ok(answered.into_inner().feeds)
    }

    /// The feed of a set, once the node knows its name.
    pub(super) async fn feed(&mut self, set: &str) -> Result<Option<Feed>, CliError> {
        let feeds = self.feeds().await?;
        Ok(feeds.into_iter().find(|feed| feed.name == set))
    }

    /// For each signal, the sets that have it.
    pub(super) async fn lookup(
        &mut self,
        signals: Vec<Signal>,
    ) -> Result<Vec<Vec<String>>, CliError> {
        let request = LookupRequest {
            signals,
            ..LookupRequest::default()
        };
        let answered = self.0.lookup(request).await;
        let answers = answered.map_err(CliError::failed)?.into_inner().answers;
        let sets = answers.into_iter().map(|answer| {
            let matches = answer.matches.into_iter();
            matches.map(|found| found.set).collect()
        });
        Ok(sets.collect())
    }

    /// Waits until the node answers from every leaf of a set up to `size`.
    pub(super) async fn caught_up(&mut self, set: &str, size: u64) -> Result<(), CliError> {
        let mut changed = Instant::now();
        let mut held = 0;
        loop {
            let feeds = self.feeds().await?;
            let feed = feeds.iter().find(|feed| feed.name == set);
            let (stored, indexed) = feed.map_or((0, 0), |feed| (feed.stored, feed.indexed));
            if indexed >= size {
                return Ok(());
            }
            // A feed that is pulled first has no name yet: what moves may be any.
            let all = feeds.iter().map(|feed| feed.stored + feed.indexed).sum();
            if all != held {
                (held, changed) = (all, Instant::now());
            }
            if changed.elapsed() > PATIENCE {
                return Err(CliError::failed(format!(
                    "{set} stands at {stored} of {size} leaves and does not move"
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until a signal matches nothing, and says when that was.
    pub(super) async fn forgets(mut self, signal: Signal) -> Result<Instant, CliError> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let answers = self.lookup(vec![signal.clone()]).await?;
            if answers.iter().all(Vec::is_empty) {
                return Ok(Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err(CliError::failed("a retracted entry still matches"))
    }
}

/// Looks again and again until there is something, for as long as a node may take.
pub(super) async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> Result<T, CliError>
where
    F: Future<Output = Result<Option<T>, CliError>>,
{
    let began = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if began.elapsed() > PATIENCE {
            return Err(CliError::failed(format!("waited in vain for {what}")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The sample lines of a metric on a node's page of metrics.
pub(super) async fn metric(port: u16, name: &str) -> Result<Vec<String>, CliError> {
    let fail = |error: std::io::Error| CliError::failed(format!("/metrics: {error}"));
    let connected = TcpStream::connect(("127.0.0.1", port)).await;
    let mut stream = connected.map_err(fail)?;
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.map_err(fail)?;
    let mut page = Vec::new();
    let mut limited = stream.take(METRICS_MAX_BYTES);
    limited.read_to_end(&mut page).await.map_err(fail)?;
    let page = String::from_utf8_lossy(&page);
    let lines = page.lines().filter(|line| line.starts_with(name));
    Ok(lines.map(str::to_owned).collect())
}
