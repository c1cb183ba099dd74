//! What is counted is what the docs name, both ways, on nodes that exchange.

use std::collections::BTreeSet;

use crate::world::signals::entries;
use crate::world::{Member, World, until_true};

/// What counts something that does not happen in a quiet exchange: named in the docs,
/// and in the code by the first test.
const RARE: [&str; 26] = [
    "hashpact_api_connections",
    "hashpact_api_handshakes_total",
    "hashpact_api_refused_total",
    "hashpact_audit_failures_total",
    "hashpact_cosigned_total",
    "hashpact_dial_failures_total",
    "hashpact_equivocations_total",
    "hashpact_erased_payloads_total",
    "hashpact_forks_total",
    "hashpact_grants_ended_for_many_total",
    "hashpact_mass_retractions_total",
    "hashpact_no_room_leaves_total",
    "hashpact_over_growth_leaves_total",
    "hashpact_policy_loads_total",
    "hashpact_pull_failures_total",
    "hashpact_receipts_older_total",
    "hashpact_receipts_open",
    "hashpact_receipts_overdue",
    "hashpact_refilled_leaves_total",
    "hashpact_refusals_total",
    "hashpact_rejections_total",
    "hashpact_reverse_connections",
    "hashpact_verify_failures_total",
    "hashpact_witnessed_feeds",
    "hashpact_witnessed_feeds_behind",
    "hashpact_witnessed_feeds_forked",
];

/// Names of metrics in the docs: `hashpact_name`, `hashpact_name{label}`,
/// `hashpact_{one,other}_name`.
fn documented() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for page in [
        include_str!("../../docs/OPERATORS.md"),
        include_str!("../../docs/API.md"),
    ] {
        for quoted in page.split('`').skip(1).step_by(2) {
            if quoted.starts_with("hashpact_") {
                names.extend(expanded(quoted));
            }
        }
    }
    names
}

fn expanded(quoted: &str) -> Vec<String> {
    let Some((before, rest)) = quoted.split_once('{') else {
        return vec![quoted.to_owned()];
    };
    let (within, after) = rest.split_once('}').unwrap();
    if before.ends_with('_') {
        let each = within.split(',');
        each.map(|one| format!("{before}{one}{after}")).collect()
    } else {
        vec![before.to_owned()]
    }
}

/// Names that the sources count under.
fn counted(folder: &std::path::Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            counted(&path, names);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let source = std::fs::read_to_string(path).unwrap();
            for kind in ["gauge!(", "counter!(", "histogram!("] {
                let calls = source.split(kind).skip(1);
                let named = calls.filter_map(|call| call.trim_start().strip_prefix('"'));
                let names_of = named.filter_map(|rest| rest.split('"').next());
                let ours = names_of.filter(|name| name.starts_with("hashpact_"));
                names.extend(ours.map(str::to_owned));
            }
        }
    }
}

/// Names on a node's page.
fn rendered(member: &Member) -> BTreeSet<String> {
    let (code, page) = member.http("/metrics").unwrap();
    assert_eq!(code, 200);
    let lines = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names = lines.filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

#[test]
fn the_docs_name_every_metric_of_the_code_and_no_other() {
    let mut names = BTreeSet::new();
    counted(&crate::checkout().join("src"), &mut names);
    assert!(names.len() > 60, "{names:?}");
    assert_eq!(names, documented());
}

#[test]
fn nodes_that_exchange_show_every_metric_that_the_docs_name() {
    let world = World::new(&["northstar", "tidepool"]);
    let (north, tide) = (world.member("northstar"), world.member("tidepool"));
    world.start_all();
    north.create_set("confirmed", &["all"]);
    let said = entries("counted", 0..50);
    north.import("confirmed", &said);
    tide.wait_hits(&said, 50);
    let mut following = tide.call().begin(&[
        "export",
        "--follow",
        "--consumer",
        "matcher",
        "--format",
        "jsonl",
    ]);
    until_true("the matcher to be told", || {
        following.so_far().lines().count() >= 50
            && rendered(tide).contains("hashpact_change_streams")
    });
    until_true("near values to be found", || {
        tide.http("/ready")
            .unwrap()
            .1
            .contains("\"near_ready\":true")
    });
    let (_, ready) = tide.http("/ready").unwrap();
    assert!(ready.contains("\"store_room\":\"ample\""), "{ready}");
    let documented = documented();
    let seen = &rendered(north) | &rendered(tide);
    let unnamed: Vec<_> = seen.difference(&documented).collect();
    assert_eq!(unnamed, Vec::<&String>::new(), "in no document");
    let rare: BTreeSet<String> = RARE.into_iter().map(str::to_owned).collect();
    let missing: Vec<_> = documented.difference(&(&seen | &rare)).cloned().collect();
    assert_eq!(missing, Vec::<String>::new(), "never shown");
    let page = |member: &Member| member.http("/metrics").unwrap().1;
    for (member, line) in [
        (
            tide,
            "hashpact_feed_lag_leaves{feed=\"northstar/confirmed\"} 0",
        ),
        (
            tide,
            "hashpact_feed_lag_leaves{peer=\"northstar/main\",feed=\"northstar/confirmed\"} 0",
        ),
        (
            tide,
            "hashpact_feed_indexed_leaves{feed=\"northstar/confirmed\"} 51",
        ),
        (tide, "hashpact_feed_stale{feed=\"northstar/confirmed\"} 0"),
        (
            tide,
            "hashpact_feed_witnesses_fresh{feed=\"northstar/confirmed\"} 0",
        ),
        (tide, "hashpact_pulled_leaves_total 51"),
        (north, "hashpact_live_entries 50"),
        (
            tide,
            "hashpact_change_consumer_lost{consumer=\"matcher\"} 0",
        ),
    ] {
        until_true(line, || page(member).contains(line));
    }
    following.kill();
    following.wait();
    until_true("the consumer to be free", || {
        tide.run(&["consumers", "remove", "matcher"]).is_done()
    });
    assert!(!page(tide).contains("consumer=\"matcher\""));
}
