//! Decides what to pull from whom: the puller as a pure state machine.
//!
//! It is told events and answers actions; the node drives it and there is no
//! second implementation beside it. It owns no connection, no bytes and no clock:
//! verified chunks lie with the driver under a [`ChunkId`], and `now` and the
//! seed of its jitter come in as arguments.

mod backoff;
mod settings;
mod types;

pub use backoff::{Backoff, Fault, Jitter};
pub use settings::Settings;
pub use types::{Action, ChunkFacts, ChunkId, Denied, Event, Failure, Head, JobId, PeerId, Span};

use crate::id::UnixMillis;

/// The state machine.
#[derive(Debug)]
pub struct Puller {
    settings: Settings,
    jitter: Jitter,
}

impl Puller {
    /// Makes a puller that knows nothing; the same seed and events give the same
    /// actions.
    #[must_use]
    pub const fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            jitter: Jitter::new(seed),
        }
    }

    /// Takes in what happened and answers what to do.
    pub fn handle(&mut self, _now: UnixMillis, _event: Event) -> Vec<Action> {
        let _ = (&self.settings, &self.jitter);
        Vec::new()
    }
}
