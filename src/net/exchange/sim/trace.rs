//! Everything that happened, in order, as one digest; and as text where it is wanted.

use sha2::{Digest as _, Sha256};

use hashpact_core::id::Digest;

/// The trace of one run.
#[derive(Default)]
pub(crate) struct Trace {
    hasher: Sha256,
    events: u64,
    /// Kept where it is to be read.
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(keep: bool) -> Self {
        Self {
            lines: keep.then(Vec::new),
            ..Self::default()
        }
    }

    /// Adds one event.
    pub(crate) fn add(&mut self, now: u64, line: &dyn std::fmt::Display) {
        let line = format!("{now} {line}\n");
        self.hasher.update(line.as_bytes());
        self.events = self.events.saturating_add(1);
        if let Some(lines) = &mut self.lines {
            lines.push(line);
        }
    }

    pub(crate) const fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest(self.hasher.clone().finalize().into())
    }

    pub(crate) fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}
