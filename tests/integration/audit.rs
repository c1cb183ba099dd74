//! The audit feed of nodes that run: every act of an administrator is in it, one leaf a
//! command, and nothing of it is lost or changed unseen.

use std::io::Write as _;

use serde_json::Value;

use crate::world::signals::{csv, entries};
use crate::world::{Member, World, list, number, text, until_true};

/// The acts in the audit feed, oldest first.
fn acts(member: &Member, filter: &[&str]) -> Vec<Value> {
    let line = [&["audit"], filter, &["--json"]].concat();
    let mut objects = member.run(&line).expect(&[0]).objects();
    objects.retain(|object| object.get("act").is_some());
    objects
}

/// Code, outcome and set of each.
fn said(acts: &[Value]) -> Vec<String> {
    let of = |act: &Value, name: &str| act[name].as_str().unwrap_or("-").to_owned();
    let said = acts.iter().map(|act| {
        let [code, outcome, set] = ["act", "outcome", "set"].map(|name| of(act, name));
        format!("{code} {outcome} {set}")
    });
    said.collect()
}

fn assert_audit_sound(member: &Member) -> Value {
    let report = member.json(&["audit", "verify"]);
    assert_eq!(report["sound"], true, "{report}");
    assert_eq!(report["unsigned"], 0, "{report}");
    report
}

#[test]
fn every_command_of_an_administrator_is_one_signed_leaf() {
    let world = World::new(&["northstar", "tidepool"]);
    let (north, tide) = (world.member("northstar"), world.member("tidepool"));
    world.start_all();
    north.create_set("confirmed", &[]);
    north.json(&["set", "grant", "confirmed", "tidepool:relay"]);
    let given = entries("audited", 0..30);
    north.import("confirmed", &given);
    tide.wait_hits(&given, 30);
    // 5,000 items are asked for in several messages, and are one act all the same.
    let mut many = String::new();
    for entry in entries("unknown", 0..4_990).iter().chain(&given[..10]) {
        many.push_str(&entry.spec());
        many.push('\n');
    }
    let file = world.write("many.txt", many).display().to_string();
    north.run(&["lookup", "--file", &file]).expect(&[0]);
    let line = ["retract", "confirmed#3", "--reason", "wrong", "--yes"];
    north.json(&line);
    let basis = ["--basis", "Court order 2026/114", "--yes"];
    north.json(&[&["erase", "--set", "confirmed", "#4"][..], &basis].concat());
    north.run(&["export", "--set", "confirmed"]).expect(&[0]);
    north.json(&["preview", "tidepool"]);
    north.json(&["set", "revoke", "confirmed", "tidepool"]);
    let held = acts(north, &[]);
    let held = said(&held);
    let expected = [
        "roster.import ok -",
        "node.start ok -",
        "set.create ok northstar/confirmed",
        "set.grant ok northstar/confirmed",
        "import ok northstar/confirmed",
        "lookup ok -",
        "retract ok northstar/confirmed",
        "erase ok northstar/confirmed",
        "export ok northstar/confirmed",
        "preview ok -",
        "set.revoke ok northstar/confirmed",
    ];
    assert_eq!(held, expected);
    let looked = &acts(north, &["--act", "lookup"])[0];
    assert_eq!(looked["counts"]["asked"], 5_000, "{looked}");
    assert_eq!(looked["counts"]["known"], 10, "{looked}");
    assert_eq!(looked["via"], "socket");
    assert_eq!(looked["command"], "lookup");
    let about = said(&acts(north, &["--member", "tidepool"]));
    assert_eq!(about.len(), 3, "grant, preview, revoke: {about:?}");
    let erased = &acts(north, &["--act", "erase"])[0];
    assert_eq!(list(erased, "details")[0]["text"], "Court order 2026/114");
    assert!(acts(north, &["--until", "2026-01-01"]).is_empty());
    north.run(&["audit", "--act", "nosuch"]).expect(&[2]);
    assert_eq!(acts(north, &["--since", "1h", "--last", "2"]).len(), 2);
    assert_audit_sound(north);
    for member in world.members() {
        member.stop();
        assert_audit_sound(member);
        member.assert_sound();
    }
    let ended = said(&acts(north, &["--last", "1"]));
    assert_eq!(ended, ["node.stop ok -"]);
    // The feed is this node's alone: nobody else has heard of it.
    let feeds = tide.json(&["feeds"]);
    assert_eq!(list(&feeds, "feeds").len(), 0, "{feeds}");
}

#[test]
fn an_import_that_a_kill_cut_off_is_in_the_record() {
    let world = World::new(&["northstar"]);
    let north = world.member("northstar");
    world.start_all();
    north.create_set("confirmed", &[]);
    let mut importing =
        north
            .call()
            .begin_piped(&["import", "--set", "confirmed", "--format", "csv", "-"]);
    let mut pipe = importing.child().stdin.take().unwrap();
    pipe.write_all(csv(&entries("cut", 0..5_000)).as_bytes())
        .unwrap();
    pipe.flush().unwrap();
    until_true("the import to begin", || {
        north.json(&["audit", "verify"])["under_way"] == 1
    });
    north.kill();
    drop(pipe);
    importing.kill();
    north.start();
    let held = said(&acts(north, &["--act", "import"]));
    assert_eq!(held, ["import interrupted northstar/confirmed"]);
    let report = assert_audit_sound(north);
    assert_eq!(report["under_way"], 0);
}

#[test]
fn whoever_follows_hears_of_an_act_as_soon_as_it_is_done() {
    let world = World::new(&["northstar"]);
    let north = world.member("northstar");
    let refused = north.run(&["audit", "--follow"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("hashpact run"), "{refused}");
    world.start_all();
    let following = north.call().begin(&["audit", "--follow", "--json"]);
    until_true("what was there", || {
        following.so_far().contains("node.start")
    });
    assert!(!following.so_far().contains("set.create"));
    north.create_set("confirmed", &[]);
    until_true("what came", || following.so_far().contains("set.create"));
}

#[test]
fn refused_calls_of_a_peer_are_counted_and_recorded() {
    let world = World::new(&["northstar", "tidepool"]);
    world.start_all();
    let (north, tide) = (world.member("northstar"), world.member("tidepool"));
    north.create_set("confirmed", &["tidepool"]);
    let given = entries("refused", 0..5);
    north.import("confirmed", &given);
    tide.wait_hits(&given, 5);
    // A suspended member may not watch: it is refused until the suspension ends.
    let key = world.roster_file().with_file_name("admin.key");
    let key = key.display().to_string();
    world.coalition(&["suspend", "tidepool", "--reason", "a test", "--key", &key]);
    north.import_roster(&world.roster_file());
    until_true("a refusal to be counted", || {
        let metrics = north.http("/metrics").unwrap_or_default().1;
        metrics.contains("hashpact_refusals_total")
    });
    north.stop();
    let held = acts(north, &["--act", "refused"]);
    assert!(!held.is_empty());
    for act in &held {
        assert_eq!(act["role"], "peer", "{act}");
        assert_eq!(act["name"], "tidepool/main", "{act}");
        assert_eq!(act["member"], "tidepool", "{act}");
    }
    assert_eq!(
        acts(north, &["--member", "tidepool", "--act", "refused"]).len(),
        held.len()
    );
    assert_audit_sound(north);
}

#[test]
fn segments_are_sealed_and_what_is_left_after_a_removal_verifies() {
    let world = World::new(&["northstar"]);
    let north = world.member("northstar");
    north.set("segment_leaves", "16");
    world.start_all();
    let item = entries("sealed", 0..1)[0].spec();
    for _ in 0..40 {
        north.run(&["lookup", &item]).expect(&[3]);
    }
    let report = assert_audit_sound(north);
    assert!(number(&report, "segments") >= 3, "{report}");
    let head = text(&report, "head");
    assert!(head.starts_with("csa-coalition.example/feed/"), "{head}");
    let begun = north.run(&["audit", "--json"]).expect(&[0]).objects();
    let named = begun
        .iter()
        .filter(|leaf| !leaf["predecessor"].is_null())
        .count();
    assert_eq!(
        u64::try_from(named + 1).unwrap(),
        number(&report, "segments")
    );
    north.stop();
    north.start();
    assert_audit_sound(north);
}

#[test]
fn what_a_command_does_in_files_is_recorded_where_a_node_is_configured() {
    let world = World::new(&["northstar"]);
    let north = world.member("northstar");
    let folder = world.path().join("others").display().to_string();
    let line = [
        "coalition",
        "init",
        "--name",
        "other.example",
        "--dir",
        &folder,
    ];
    let line = [&line[..], &["--no-passphrase"]].concat();
    // At rest, then at the node that runs.
    north.json(&line);
    world.start_all();
    north.json(&["keys", "rotate", "receipt"]);
    let held = said(&acts(north, &["--act", "command"]));
    assert_eq!(
        held,
        ["command.coalition.init ok -", "command.keys.rotate ok -"]
    );
    // The node's own part of it: both cards, and the file.
    let cards = said(&acts(north, &["--act", "card.publish"]));
    assert_eq!(cards.len(), 2, "{cards:?}");
    assert_eq!(said(&acts(north, &["--act", "keys.replace"])).len(), 1);
    // Elsewhere nothing is configured, and nothing is said.
    let elsewhere = world.path().join("third").display().to_string();
    let line = [
        "coalition",
        "init",
        "--name",
        "third.example",
        "--dir",
        &elsewhere,
    ];
    let line = [&line[..], &["--no-passphrase"]].concat();
    let quiet = world.call().run(&line).expect(&[0]);
    assert!(!quiet.stderr.contains("audit"), "{quiet}");
    world.evidence().keep_keys_of(world.path());
}
