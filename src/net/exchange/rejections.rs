//! What peers sent that was refused: counted each time, logged once.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use hashpact_core::id::FeedId;
use hashpact_core::reject::Rejection;

/// Different refusals remembered as logged; beyond it they are logged again.
const LOGGED_MAX: usize = 4_096;

/// A refusal, as far as it says something new: who, about what, why.
pub(crate) type Seen = (String, Option<FeedId>, &'static str);

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

    /// What was refused so far.
    #[cfg(test)]
    pub(crate) fn noted(&self) -> Vec<Seen> {
        let logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logged.iter().cloned().collect()
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};

    use super::*;

    /// Counts whatever is counted, in one number, and keeps the names.
    #[derive(Default)]
    struct Recorder {
        total: Arc<AtomicU64>,
        names: Mutex<HashSet<String>>,
    }

    impl metrics::Recorder for Recorder {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            let labels = key
                .labels()
                .map(|label| format!("{}={}", label.key(), label.value()));
            let labels = labels.collect::<Vec<_>>().join(",");
            let name = format!("{}{{{labels}}}", key.name());
            self.names.lock().unwrap().insert(name);
            Counter::from_arc(Arc::clone(&self.total))
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn a_refusal_is_counted_each_time_by_code_and_peer_and_noted_once() {
        let (recorder, rejections) = (Recorder::default(), Rejections::default());
        metrics::with_local_recorder(&recorder, || {
            rejections.note("west/n1", None, &Rejection::NotFound);
            rejections.note("west/n1", None, &Rejection::NotFound);
        });
        assert_eq!(recorder.total.load(Ordering::SeqCst), 2);
        let name = "hashpact_rejections_total{code=not_found,peer=west/n1}";
        assert!(recorder.names.lock().unwrap().contains(name));
        let noted = rejections.noted();
        assert_eq!(noted, [("west/n1".to_owned(), None, "not_found")]);
    }
}
