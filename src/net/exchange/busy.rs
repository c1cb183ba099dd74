//! How long threads work at each stage of pulls, as a metric.

use std::time::Instant;

/// Does `work` and counts its time under `stage`, over all threads.
pub(crate) fn busy<T>(stage: &'static str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    let spent = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    metrics::counter!("hashpact_pull_busy_microseconds_total", "stage" => stage).increment(spent);
    done
}
