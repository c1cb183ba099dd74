//! How methods of the service reach the node: on a thread that may wait for the disk, and
//! recorded where they are acts.

use hashpact_core::id::Slug;
use hashpact_core::leaf::audit::Act;
use hashpact_node::{Node, NodeError};
use tonic::Status;

use crate::convert;
use crate::error::{lost, status};
use crate::recorded::recorded;
use crate::service::NodeService;

impl NodeService {
    /// Calls the node on a thread that may wait for disk.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Node) -> Result<T, NodeError> + Send + 'static,
    ) -> Result<T, Status> {
        let node = self.node();
        let task = tokio::task::spawn_blocking(move || work(&node));
        let done = task.await.map_err(|_| lost(what))?;
        done.map_err(|error| status(&error))
    }

    /// As [`call`](Self::call), recorded in the audit feed.
    pub(crate) async fn act<T: Send + 'static>(
        &self,
        what: &'static str,
        act: Act,
        work: impl FnOnce(&Node, &mut Act) -> Result<T, NodeError> + Send + 'static,
    ) -> Result<T, Status> {
        self.call(what, move |node| recorded(node, act, |act| work(node, act)))
            .await
    }

    /// The full name of an own set, which need not exist.
    pub(crate) fn own_set(&self, text: &str) -> Result<(Slug, String), Status> {
        let node = self.node();
        let set = convert::own_set(&node, text).map_err(|error| status(&error))?;
        let name = format!("{}/{set}", node.member_slug());
        Ok((set, name))
    }
}
