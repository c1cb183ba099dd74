//! Counters without labels: described, and there from the start.
//!
//! A counter that appears with its first event hides that event from whoever alarms on
//! an increase. Those with labels come with what they name.

use metrics::{Unit, counter, describe_counter};

/// Name, and what is counted. `docs/OPERATORS.md` says what to do about which.
const COUNTERS: [(&str, &str); 26] = [
    (
        "hashpact_audit_failures_total",
        "acts that could not be recorded in the audit feed",
    ),
    ("hashpact_changes_told_total", "changes told to consumers"),
    (
        "hashpact_equivocations_total",
        "documents of one version that differ",
    ),
    (
        "hashpact_erased_payloads_total",
        "payloads dropped for an erasure",
    ),
    (
        "hashpact_floods_total",
        "signals that began to match too much of what is asked",
    ),
    (
        "hashpact_forks_total",
        "feeds of which two histories were signed",
    ),
    (
        "hashpact_grants_ended_for_many_total",
        "grants that ended for many at once, unsigned",
    ),
    (
        "hashpact_mass_retractions_total",
        "retractions of more than may be taken back unsigned",
    ),
    (
        "hashpact_match_journal_lost_total",
        "answers that the match journal had no time for",
    ),
    (
        "hashpact_match_journal_noted_total",
        "answers noted in the match journal",
    ),
    (
        "hashpact_no_room_leaves_total",
        "leaves that were not stored for want of room",
    ),
    (
        "hashpact_over_growth_leaves_total",
        "leaves beyond what a feed may grow by",
    ),
    ("hashpact_pulled_leaves_total", "leaves pulled and verified"),
    (
        "hashpact_pulls_served_total",
        "pulls of others that were answered",
    ),
    ("hashpact_pulls_total", "pulls begun"),
    (
        "hashpact_refilled_leaves_total",
        "payloads fetched for leaves held as records",
    ),
    (
        "hashpact_retention_payloads_total",
        "payloads dropped since their leaves were dead for long",
    ),
    (
        "hashpact_roster_cosigned_total",
        "times that this node, as a witness, cosigned the roster",
    ),
    (
        "hashpact_roster_elsewhere_total",
        "witnesses that cosigned another roster of a version that is held",
    ),
    ("hashpact_served_bytes_total", "bytes of leaves sent"),
    ("hashpact_served_chunks_total", "chunks sent"),
    ("hashpact_served_leaves_total", "leaves sent"),
    (
        "hashpact_sets_lost_total",
        "sets dropped since this member may not read them any longer",
    ),
    ("hashpact_verify_failures_total", "chunks that proved wrong"),
    ("hashpact_wire_read_bytes_total", "bytes read from peers"),
    (
        "hashpact_wire_written_bytes_total",
        "bytes written to peers",
    ),
];

/// Describes all of them and sets them to 0 in this process' recorder.
pub(super) fn register() {
    for (name, what) in COUNTERS {
        let unit = if name.contains("_bytes_") {
            Unit::Bytes
        } else {
            Unit::Count
        };
        describe_counter!(name, unit, what);
        counter!(name).increment(0);
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn counters_are_there_from_the_start_at_0_with_what_they_count() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, register);
        let page = recorder.handle().render();
        for (name, what) in COUNTERS {
            assert!(page.contains(&format!("\n{name} 0\n")), "{name}: {page}");
            assert!(
                page.contains(&format!("# HELP {name} {what}\n")),
                "{name}: {page}"
            );
        }
    }
}
