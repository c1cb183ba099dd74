//! Looks again at what waits for a conflict of digests, or for room for frames of videos,
//! and at what allow lists name that changed, beside everything else: members decide how
//! much that is, and what letting a leaf in costs.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use hashpact_node::Node;
use hashpact_node::quarantine::RECHECK;
use tokio_util::task::TaskTracker;

use super::bulk::{Bulk, Size};
use super::purging::{Turn, turn};

/// One round at a time; it rests nine times as long as the last one took.
pub(crate) struct Rechecker {
    node: Arc<Node>,
    turn: Arc<Mutex<Turn>>,
}

impl Rechecker {
    pub(crate) fn new(node: &Arc<Node>) -> Self {
        Self {
            node: Arc::clone(node),
            turn: Arc::default(),
        }
    }

    /// Begins a round on a thread that gives way, unless one runs or rests.
    pub(crate) fn look(&self, tasks: &TaskTracker, bulk: &Bulk) {
        let began = Instant::now();
        if !turn(&self.turn).begin(began) {
            return;
        }
        let (node, shared) = (Arc::clone(&self.node), Arc::clone(&self.turn));
        let round = move || {
            if let Err(error) = node.follow_conflicts(&RECHECK) {
                tracing::error!(%error, code = error.code(), "looking at conflicts of digests");
            }
            if let Err(error) = node.follow_frames() {
                tracing::error!(%error, code = error.code(), "looking at videos that wait");
            }
            if let Err(error) = node.follow_allow_sets() {
                tracing::error!(%error, code = error.code(), "following sets that are allow lists");
            }
            turn(&shared).end(began, Instant::now());
        };
        tasks.spawn_blocking_on(round, bulk.handle(Size::Small));
    }
}
