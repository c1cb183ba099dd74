//! Every measurement runs and says all that it measures. No figure is judged here.

use serde_json::Value;

use crate::world::{Call, Evidence, list};

/// Runs one with few entries; its object.
fn measured(line: &[&str]) -> Value {
    let evidence = Evidence::default();
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("bench").display().to_string();
    let line = [&["bench"], line, &["--dir", &dir]].concat();
    let measured = Call::new(&evidence, folder.path()).json(&line);
    assert!(
        !folder.path().join("bench").exists(),
        "{line:?} leaves its folder"
    );
    measured
}

#[test]
fn each_measurement_runs_and_names_the_machine() {
    for (line, figure) in [
        (&["import", "--entries", "1000"][..], "rows_per_s"),
        (&["pull", "--entries", "2000"], "entries_per_s"),
        (
            &[
                "watch",
                "--entries",
                "1000",
                "--rate",
                "20",
                "--seconds",
                "1",
            ],
            "latency_ms",
        ),
        (
            &[
                "lookup",
                "--entries",
                "1000",
                "--streams",
                "2",
                "--seconds",
                "1",
            ],
            "batches",
        ),
        (
            &[
                "mixed",
                "--entries",
                "2000",
                "--streams",
                "2",
                "--seconds",
                "1",
            ],
            "exact",
        ),
        (
            &[
                "coalition",
                "--members",
                "4",
                "--publishers",
                "2",
                "--rounds",
                "1",
            ],
            "round",
        ),
    ] {
        let measured = measured(line);
        assert!(!measured["machine"].is_null(), "{line:?}: {measured}");
        assert!(!measured[figure].is_null(), "{line:?}: {measured}");
    }
}

#[test]
fn near_values_are_measured_and_compared_with_brute_force() {
    let evidence = Evidence::default();
    let folder = tempfile::tempdir().unwrap();
    let line = [
        "bench",
        "pdq",
        "--entries",
        "1000",
        "--queries",
        "100",
        "--check",
    ];
    let measured = Call::new(&evidence, folder.path()).json(&line);
    for data in list(&measured, "data") {
        assert_eq!(data["checked"]["distances"], 41, "{data}");
    }
}
