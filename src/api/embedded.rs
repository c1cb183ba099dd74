//! The same service within one process, for commands that run without a node.

use hashpact_node::caller::Caller;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

use crate::service::NodeService;
use crate::serving::{DoorLimits, look, served};

/// Bytes that one side may be ahead of the other: a window of HTTP/2.
const BUFFER_BYTES: usize = 1024 * 1024;

/// A service and the one connection to it.
pub struct Embedded {
    /// What a client speaks over.
    pub stream: DuplexStream,
    /// The server; ends when the client's side is dropped.
    pub server: JoinHandle<()>,
}

/// Serves in this process, to one client. Needs a Tokio runtime.
#[must_use]
pub fn embedded(service: NodeService) -> Embedded {
    let (stream, ours) = tokio::io::duplex(BUFFER_BYTES);
    let server = tokio::spawn(async move {
        let incoming = tokio_stream::once(Ok::<_, std::io::Error>(ours));
        let node = service.node();
        let ended = match served(service, |(): &()| Caller::process(), DoorLimits::LOCAL) {
            Ok(served) => {
                look(&node, &served.reporter).await;
                drop(node);
                served.router.serve_with_incoming(incoming).await.err()
            }
            Err(error) => return tracing::error!(%error, "the service in this process"),
        };
        if let Some(error) = ended {
            tracing::error!(%error, "the service in this process ended");
        }
    });
    Embedded { stream, server }
}
