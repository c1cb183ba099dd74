//! Has the files rewritten in which erased payloads may lie, beside everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashpact_node::Node;
use tokio_util::task::TaskTracker;

/// Rewrites files one at a time, whenever that is due.
pub(crate) struct Purger {
    node: Arc<Node>,
    running: Arc<AtomicBool>,
}

impl Purger {
    pub(crate) fn new(node: &Arc<Node>) -> Self {
        Self {
            node: Arc::clone(node),
            running: Arc::default(),
        }
    }

    /// Begins if there is something to do and nothing under way.
    pub(crate) fn look(&self, tasks: &TaskTracker) {
        if !self.node.store().purge_due() || self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let (node, running) = (Arc::clone(&self.node), Arc::clone(&self.running));
        tasks.spawn_blocking(move || {
            if let Err(error) = node.purge_erased() {
                tracing::error!(%error, code = error.code(), "rewriting files with erased payloads");
            }
            running.store(false, Ordering::Release);
        });
    }
}
