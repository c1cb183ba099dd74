//! Serving gRPC at a door: the services, who stands before them, and every limit of
//! HTTP/2.
//!
//! tonic and hyper leave streams and resets without a limit; here each is set.

use std::time::Duration;

use hashpact_node::Node;
use hashpact_node::caller::Caller;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::Stream;
use tonic::server::NamedService as _;
use tonic::transport::Server;
use tonic::transport::server::{Connected, Router};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::layer::util::{Identity, Stack};

use crate::access::Doorkeeper;
use crate::error::ApiError;
use crate::refusals::Refusals;
use crate::service::NodeService;
use crate::wire::node_server::NodeServer;

/// Streams that our side resets for the caller's errors before the connection is cut
/// (CVE-2025-8671).
const LOCAL_ERROR_RESETS_MAX: usize = 64;
/// Streams that the caller resets before we took them (CVE-2023-44487).
const PENDING_ACCEPT_RESETS_MAX: usize = 20;
/// A header list: ours are far below 1 KiB, a client library's own some more.
const HEADER_LIST_MAX_BYTES: u32 = 16 * 1024;
/// Bytes of a stream in flight towards the node: imports are bulk.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes of a connection in flight towards the node.
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// The smallest frame that HTTP/2 allows, and enough.
const FRAME_MAX_BYTES: u32 = 16 * 1024;
/// Between looks at whether the node answers.
const HEALTH_EVERY: Duration = Duration::from_millis(500);

/// What differs between doors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoorLimits {
    /// Streams at once on a connection.
    pub streams_max: u32,
    /// Between HTTP/2 pings, and for the answer to one; `None` where the system tells
    /// at once that the other side is gone.
    pub keepalive: Option<Duration>,
    /// A connection takes no new streams after this.
    pub connection_age: Option<Duration>,
}

impl DoorLimits {
    /// On this machine: one process of the member's own, that may ask over many streams.
    pub const LOCAL: Self = Self {
        streams_max: 1_024,
        keepalive: None,
        connection_age: None,
    };
    /// Over a network: a service with a pool of workers.
    pub const REMOTE: Self = Self {
        streams_max: 128,
        keepalive: Some(Duration::from_secs(10)),
        connection_age: Some(Duration::from_secs(60 * 60)),
    };
}

/// What stands before services: the last of it is the last that a call meets.
type Kept<C> = Stack<Doorkeeper<C>, Stack<Refusals<C>, Identity>>;

/// The services of one door, and how their health is told.
pub(crate) struct Served<C> {
    pub(crate) router: Router<Kept<C>>,
    pub(crate) reporter: HealthReporter,
}

/// Puts the services behind a door whose connections tell `C`.
pub(crate) fn served<C: Clone + Send + Sync + 'static>(
    service: NodeService,
    caller_of: fn(&C) -> Caller,
    limits: DoorLimits,
) -> Result<Served<C>, ApiError> {
    let only_witnesses = service.node().only_witnesses();
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(crate::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| ApiError::Server(error.to_string()))?;
    let mut server = Server::builder()
        .max_concurrent_streams(limits.streams_max)
        .http2_max_local_error_reset_streams(Some(LOCAL_ERROR_RESETS_MAX))
        .http2_max_pending_accept_reset_streams(Some(PENDING_ACCEPT_RESETS_MAX))
        .http2_max_header_list_size(HEADER_LIST_MAX_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_adaptive_window(Some(false))
        .max_frame_size(FRAME_MAX_BYTES)
        .http2_keepalive_interval(limits.keepalive)
        .http2_keepalive_timeout(limits.keepalive)
        .accept_http1(false);
    if let Some(age) = limits.connection_age {
        server = server.max_connection_age(age);
    }
    let router = server
        .layer(Refusals::new(service.node(), caller_of))
        .layer(Doorkeeper::new(caller_of, only_witnesses))
        .add_service(service.server())
        .add_service(health)
        .add_service(reflection);
    Ok(Served { router, reporter })
}

/// Serves connections whose callers are decided until `shutdown`, then lets calls that
/// are under way end.
///
/// # Errors
/// [`ApiError::Server`].
pub async fn serve_incoming<IO, E>(
    incoming: impl Stream<Item = Result<IO, E>>,
    service: NodeService,
    caller_of: fn(&IO::ConnectInfo) -> Caller,
    limits: DoorLimits,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ApiError>
where
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let node = service.node();
    let Served { router, reporter } = served(service, caller_of, limits)?;
    // Before the first call, which might ask for it.
    look(&node, &reporter).await;
    let mut ending = reporter.clone();
    let shutdown = async move {
        shutdown.await;
        // Whoever watches health would keep its connection, and this door, open.
        for name in ["", NodeServer::<NodeService>::NAME] {
            ending.clear_service_status(name).await;
        }
    };
    let serving = router.serve_with_incoming_shutdown(incoming, shutdown);
    tokio::select! {
        served = serving => served.map_err(|error| ApiError::Server(error.to_string())),
        never = tell_health(&node, &reporter) => match never {},
    }
}

/// Tells health for as long as the door is served.
async fn tell_health(node: &Node, reporter: &HealthReporter) -> std::convert::Infallible {
    let mut ticks = tokio::time::interval(HEALTH_EVERY);
    loop {
        ticks.tick().await;
        look(node, reporter).await;
    }
}

/// Tells health as it is.
pub(crate) async fn look(node: &Node, reporter: &HealthReporter) {
    let status = if node.is_ready() {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    for name in ["", NodeServer::<NodeService>::NAME] {
        reporter.set_service_status(name, status).await;
    }
}
