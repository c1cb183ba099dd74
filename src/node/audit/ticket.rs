//! An act under way.

use std::sync::Arc;

use hashpact_core::leaf::audit::{Act, INTERRUPTED};

use super::Audit;

/// An act that was noted and has not ended. Dropped without a word it is recorded as
/// interrupted, with what was counted by then.
pub struct Ticket {
    audit: Arc<Audit>,
    /// Its number among those begun, until it has ended.
    number: Option<u64>,
    act: Act,
}

impl Ticket {
    pub(super) const fn new(audit: Arc<Audit>, number: u64, act: Act) -> Self {
        Self {
            audit,
            number: Some(number),
            act,
        }
    }

    /// What will be recorded, to count and to add to.
    pub const fn act(&mut self) -> &mut Act {
        &mut self.act
    }

    /// Records how it ended: [`OK`](hashpact_core::leaf::audit::OK) or a reason code.
    /// Where that fails the log says so, and the next start records that the act began:
    /// what was done stays done. Blocking.
    pub fn finish(mut self, outcome: &str) {
        if let Some(number) = self.number.take() {
            end(&self.audit, number, &mut self.act, outcome);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(number) = self.number.take() else {
            return;
        };
        let audit = Arc::clone(&self.audit);
        let mut act = std::mem::take(&mut self.act);
        let mut end = move || end(&audit, number, &mut act, INTERRUPTED);
        // Whoever gives a stream up may be a thread of the reactor, which never waits
        // for the disk. A process that ends first leaves the note.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(end)),
            Err(_) => end(),
        }
    }
}

fn end(audit: &Audit, number: u64, act: &mut Act, outcome: &str) {
    act.ended = audit.clock.now();
    outcome.clone_into(&mut act.outcome);
    if let Err(error) = audit.append(act, Some(number), None) {
        super::not_recorded(act, &error);
    }
}
