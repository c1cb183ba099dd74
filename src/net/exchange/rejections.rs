//! What peers sent that was refused: counted each time, logged once.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use hashpact_core::id::FeedId;
use hashpact_core::reject::Rejection;

/// Different refusals remembered as logged; beyond it they are logged again.
const LOGGED_MAX: usize = 4_096;

/// A refusal, as far as it says something new: who, about what, why.
type Seen = (String, Option<FeedId>, &'static str);

/// Counts and logs refusals.
#[derive(Debug, Default)]
pub(crate) struct Rejections(Mutex<HashSet<Seen>>);

impl Rejections {
    /// Counts a refusal, and logs it if this peer, feed and reason are new.
    pub(crate) fn note(&self, peer: &str, feed: Option<FeedId>, rejection: &Rejection) {
        let code = rejection.code();
        let labels = [("code", code.to_owned()), ("peer", peer.to_owned())];
        metrics::counter!("hashpact_rejections_total", &labels).increment(1);
        if self.is_new((peer.to_owned(), feed, code)) {
            let feed = feed.map(|feed| feed.0.short()).unwrap_or_default();
            tracing::warn!(peer, feed, code, %rejection, "refused what a peer sent");
        }
    }

    fn is_new(&self, seen: Seen) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() >= LOGGED_MAX {
            logged.clear();
        }
        logged.insert(seen)
    }
}

/// Whether a refused document is only older than the one held: a peer that lags
/// behind is at no fault.
pub(crate) const fn is_stale(rejection: &Rejection) -> bool {
    matches!(rejection, Rejection::VersionGap { held, got, .. } if *got <= *held)
}
