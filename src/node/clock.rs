//! The one place that reads the clock, so that tests can set it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use hashpact_core::id::UnixMillis;

/// Tells the time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` until [`set`](Self::set).
    #[must_use]
    pub fn manual(start: UnixMillis) -> Self {
        Self(Source::Manual(Arc::new(AtomicU64::new(start.0))))
    }

    /// Sets a manual clock; the machine's clock stays as it is.
    pub fn set(&self, now: UnixMillis) {
        match &self.0 {
            Source::System => {}
            Source::Manual(millis) => millis.store(now.0, Ordering::SeqCst),
        }
    }

    /// Milliseconds since 1970; 0 for a clock that stands before.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn now(&self) -> UnixMillis {
        match &self.0 {
            Source::System => UnixMillis(
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| {
                        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
                    }),
            ),
            Source::Manual(millis) => UnixMillis(millis.load(Ordering::SeqCst)),
        }
    }
}
