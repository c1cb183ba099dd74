//! The counters that the program keeps anyway, read by the measurements.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::cli::error::CliError;

/// Of histograms, which no measurement reads.
const BUCKETS: [f64; 1] = [1.0];

/// All metrics of this process.
pub(super) struct Meters(PrometheusHandle);

impl Meters {
    /// Begins to keep them; once in a process.
    pub(super) fn start() -> Result<Self, CliError> {
        // Without buckets every look at a counter would go through all times of look-ups.
        let builder = PrometheusBuilder::new().set_buckets(&BUCKETS);
        let handle = builder.and_then(PrometheusBuilder::install_recorder);
        handle.map(Self).map_err(CliError::failed)
    }

    /// The sum over all series of this name whose labels hold `label`.
    pub(super) fn sum(&self, name: &str, label: &str) -> f64 {
        let text = self.0.render();
        let series = text.lines().filter_map(|line| line.strip_prefix(name));
        let series = series.filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label));
        let values = series.filter_map(|rest| rest.rsplit_once(' '));
        values
            .filter_map(|(_, value)| value.parse::<f64>().ok())
            .sum()
    }
}
