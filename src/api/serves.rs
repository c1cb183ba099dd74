//! What the service has of its node, and how it is begun.

use std::sync::Arc;

use hashpact_node::Node;
use hashpact_node::bundle::Bundles;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::about::About;
use crate::asking::Asking;
use crate::changes::Watchers;
use crate::error::misuse;
use crate::export::Exports;
use crate::wire;

/// Serves one node to the member's own systems and people.
#[derive(Clone)]
pub struct NodeService {
    pub(crate) node: Arc<Node>,
    pub(crate) asking: Asking,
    pub(crate) exports: Exports,
    pub(crate) watchers: Watchers,
    pub(crate) about: Arc<About>,
    pub(crate) bundles: Option<Arc<dyn Bundles>>,
}

impl NodeService {
    /// Serves `node`.
    #[must_use]
    pub fn new(node: Arc<Node>, about: About) -> Self {
        Self::until(node, about, CancellationToken::new())
    }

    /// As [`NodeService::new`]; streams that have no end of their own end with `stop`.
    #[must_use]
    pub fn until(node: Arc<Node>, about: About, stop: CancellationToken) -> Self {
        Self {
            asking: Asking::new(Arc::clone(&node)),
            exports: Exports::default(),
            watchers: Watchers::new(stop),
            node,
            about: Arc::new(about),
            bundles: None,
        }
    }

    /// The node that is served.
    pub(crate) fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node)
    }

    /// Makes bundles and takes them in as well.
    #[must_use]
    pub fn with_bundles(mut self, bundles: Arc<dyn Bundles>) -> Self {
        self.bundles = Some(bundles);
        self
    }

    pub(crate) fn bundles(&self) -> Result<&Arc<dyn Bundles>, Status> {
        let bundles = self.bundles.as_ref();
        bundles.ok_or_else(|| misuse("bundles are not made here"))
    }

    /// Whoever answers questions, for another door.
    pub(crate) fn asking(&self) -> Asking {
        self.asking.clone()
    }

    /// The gRPC server over it, with the limits of the local socket.
    pub(crate) fn server(self) -> wire::node_server::NodeServer<Self> {
        wire::node_server::NodeServer::new(self)
            .max_decoding_message_size(crate::MESSAGE_MAX_BYTES)
            .max_encoding_message_size(crate::MESSAGE_MAX_BYTES)
    }
}
