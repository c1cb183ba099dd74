//! Has the files rewritten in which erased payloads may lie, beside everything else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashpact_node::Node;
use tokio_util::task::TaskTracker;

/// Rests as many times as long as the last run took: rewriting is no more than a tenth
/// of what the disk does, however often members erase.
const REST_FACTOR: u32 = 9;
/// The longest rest: what was erased leaves the disk within hours.
const REST_MAX: Duration = Duration::from_secs(6 * 60 * 60);

/// Rewrites files one at a time, whenever that is due.
pub(crate) struct Purger {
    node: Arc<Node>,
    turn: Arc<Mutex<Turn>>,
}

/// Whether files are rewritten at present, and from when on they may be again.
#[derive(Debug, Default)]
pub(super) struct Turn {
    running: bool,
    rest_until: Option<Instant>,
}

impl Turn {
    /// Begins a run, unless one runs or the last one is too short ago.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let rests = self.rest_until.is_some_and(|until| now < until);
        !rests && !std::mem::replace(&mut self.running, true)
    }

    pub(super) fn end(&mut self, began: Instant, now: Instant) {
        let took = now.saturating_duration_since(began);
        let rest = took.saturating_mul(REST_FACTOR).min(REST_MAX);
        self.rest_until = now.checked_add(rest);
        self.running = false;
    }
}

impl Purger {
    pub(crate) fn new(node: &Arc<Node>) -> Self {
        Self {
            node: Arc::clone(node),
            turn: Arc::default(),
        }
    }

    /// Begins if there is something to do and nothing under way.
    pub(crate) fn look(&self, tasks: &TaskTracker) {
        let began = Instant::now();
        if !self.node.store().purge_due() || !turn(&self.turn).begin(began) {
            return;
        }
        let (node, shared) = (Arc::clone(&self.node), Arc::clone(&self.turn));
        tasks.spawn_blocking(move || {
            if let Err(error) = node.purge_erased() {
                tracing::error!(%error, code = error.code(), "rewriting files with erased payloads");
            }
            turn(&shared).end(began, Instant::now());
        });
    }
}

pub(super) fn turn(turn: &Mutex<Turn>) -> MutexGuard<'_, Turn> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewriting_takes_no_more_than_a_tenth_of_the_time() {
        let mut turn = Turn::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(turn.begin(at(0)));
        assert!(!turn.begin(at(1)), "one at a time");
        turn.end(at(0), at(10));
        assert!(!turn.begin(at(99)));
        assert!(turn.begin(at(100)));
        turn.end(at(100), at(100_000));
        assert!(turn.begin(at(100_000 + 6 * 60 * 60)), "a rest has an end");
    }
}
