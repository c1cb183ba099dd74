//! The sample configurations of deploy/ are ones that a node takes.

use crate::world::{Call, Evidence};

fn check(name: &str) -> serde_json::Value {
    let sample = crate::checkout().join("deploy").join(name);
    let evidence = Evidence::default();
    let folder = tempfile::tempdir().unwrap();
    let call = Call::new(&evidence, folder.path()).config(&sample);
    call.json(&["config", "check", "--text-only"])
}

#[test]
fn the_minimal_sample_is_good() {
    let checked = check("hashpact.minimal.toml");
    assert_eq!(checked["ok"], true, "{checked}");
    assert_eq!(checked["config"]["member"]["slug"], "northstar");
}

#[test]
fn the_full_sample_is_good_and_names_every_key() {
    let full = check("hashpact.full.toml");
    assert_eq!(full["ok"], true, "{full}");
    let minimal = check("hashpact.minimal.toml");
    assert_eq!(keys(&full["config"]), keys(&minimal["config"]));
    let sample = include_str!("../../deploy/hashpact.full.toml");
    for key in keys(&full["config"]) {
        let stands = sample
            .lines()
            .any(|line| line.starts_with(&format!("{key} = ")));
        let is_table = sample.contains(&format!("{key}]"));
        assert!(stands || is_table, "{key} is not in the full sample");
    }
}

#[test]
fn the_unit_lets_a_node_write_where_it_writes_and_lower_its_priority() {
    let unit = include_str!("../../deploy/hashpact.service");
    let mut settings = unit.lines().filter(|line| !line.starts_with('#'));
    assert!(
        settings
            .clone()
            .any(|line| line == "ReadWritePaths=/etc/hashpact")
    );
    // nice, setpriority and ioprio_set are in the second, which the first includes.
    assert!(
        settings
            .clone()
            .any(|line| line == "SystemCallFilter=@system-service")
    );
    let denied = settings
        .find(|line| line.starts_with("SystemCallFilter=~"))
        .unwrap();
    assert!(!denied.contains("@resources"), "{denied}");
}

#[test]
fn a_sample_with_one_more_key_is_refused() {
    let evidence = Evidence::default();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hashpact.toml");
    let sample = include_str!("../../deploy/hashpact.full.toml");
    std::fs::write(
        &path,
        sample.replace("[shutdown]", "[shutdown]\ngrace = 20"),
    )
    .unwrap();
    let call = Call::new(&evidence, folder.path()).config(&path);
    let refused = call.run(&["config", "check", "--text-only"]).expect(&[2]);
    assert!(refused.stderr.contains("shutdown.grace"), "{refused}");
}

/// The names of all keys in a configuration as JSON, at any depth.
fn keys(value: &serde_json::Value) -> std::collections::BTreeSet<String> {
    let mut names = std::collections::BTreeSet::new();
    if let Some(object) = value.as_object() {
        for (name, inner) in object {
            names.insert(name.clone());
            names.extend(keys(inner));
        }
    }
    names
}
