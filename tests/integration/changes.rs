//! A member's own matcher follows its node's changes, and holds what the node answers
//! whatever is killed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::world::signals::entries;
use crate::world::{Member, World, text, until_true};

/// What a matcher keeps: the reference of every entry, by set and index.
#[derive(Default)]
struct Matcher {
    kept: BTreeMap<(String, u64), String>,
    /// Since a snapshot began: what was told of again.
    marked: Option<BTreeSet<(String, u64)>>,
}

impl Matcher {
    fn take(&mut self, line: &Value) {
        let set = line["set"].as_str().unwrap_or_default().to_owned();
        let key = (set.clone(), line["index"].as_u64().unwrap_or_default());
        match line["change"].as_str().unwrap() {
            "snapshot_begins" => self.marked = Some(BTreeSet::new()),
            "snapshot_over" => {
                if let Some(marked) = self.marked.take() {
                    self.kept.retain(|key, _| marked.contains(key));
                }
            }
            "added" | "changed" => {
                if let Some(marked) = &mut self.marked {
                    marked.insert(key.clone());
                }
                self.kept
                    .insert(key, text(&line["entry"], "source_reference"));
            }
            "withdrawn" => {
                self.kept.remove(&key);
            }
            "set_withdrawn" => self.kept.retain(|(of, _), _| *of != set),
            other => panic!("an unknown change {other:?}"),
        }
    }

    /// Takes what a run of the command printed; a last line that was cut off comes again.
    fn take_all(&mut self, printed: &str) {
        let whole = printed.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            self.take(&serde_json::from_str(line).unwrap());
        }
    }

    fn catch_up(&mut self, member: &Member) {
        let told = member.run(&[&FOLLOW[..], &["--until-caught-up"]].concat());
        self.take_all(&told.expect(&[0]).stdout);
    }

    /// That it holds what an export of all sets has.
    fn agrees(&self, member: &Member) {
        let exported = member.run(&["export", "--all", "--format", "jsonl"]);
        let exported = exported.expect(&[0]).objects();
        let mut references: Vec<String> = exported
            .iter()
            .map(|entry| text(entry, "source_reference"))
            .collect();
        let mut kept: Vec<String> = self.kept.values().cloned().collect();
        references.sort();
        kept.sort();
        assert_eq!(kept, references);
    }
}

const FOLLOW: [&str; 6] = [
    "export",
    "--follow",
    "--consumer",
    "matcher",
    "--format",
    "jsonl",
];

#[test]
fn a_consumer_that_is_killed_and_a_node_that_is_killed_lose_no_change() {
    let world = World::new(&["northstar", "tidepool"]);
    let (publisher, reader) = (world.member("northstar"), world.member("tidepool"));
    world.start_all();
    publisher.create_set("confirmed", &["all"]);
    let said = entries("change", 0..900);
    publisher.import("confirmed", &said[..300]);
    reader.wait_hits(&said, 300);

    // Told everything, then killed while more comes.
    let mut matcher = Matcher::default();
    let mut following = reader.call().begin(&FOLLOW);
    until_true("the matcher to be registered", || {
        let listed = reader.json(&["consumers", "list"]);
        listed["consumers"][0]["in_snapshot"] == false
    });
    publisher.import("confirmed", &said[300..600]);
    let retracted = ["retract", "--set", "confirmed", "--reference", "change-7"];
    publisher.json(&[&retracted[..], &["--reason", "wrong", "--yes"]].concat());
    reader.wait_hits(&said, 599);
    following.kill();
    matcher.take_all(&following.wait().stdout);

    // The node is killed with changes that nobody was told of.
    publisher.import("confirmed", &said[600..900]);
    reader.wait_hits(&said, 899);
    reader.kill();
    reader.start();
    reader.wait_hits(&said, 899);
    matcher.catch_up(reader);
    assert_eq!(matcher.kept.len(), 899);
    matcher.agrees(reader);

    // A lost grant takes the set away, another one gives it back.
    publisher.json(&["set", "revoke", "confirmed", "all"]);
    reader.wait_hits(&said, 0);
    until_true("the loss of the set to be told", || {
        matcher.catch_up(reader);
        matcher.kept.is_empty()
    });
    publisher.json(&["set", "grant", "confirmed", "tidepool"]);
    reader.wait_hits(&said, 899);
    until_true("the set to be told again", || {
        matcher.catch_up(reader);
        matcher.kept.len() == 899
    });
    matcher.agrees(reader);

    // One that starts over is told the same.
    let mut fresh = Matcher::default();
    let restart = ["--until-caught-up", "--restart"];
    let told = reader.run(&[&FOLLOW[..], &restart].concat());
    fresh.take_all(&told.expect(&[0]).stdout);
    assert_eq!(fresh.kept.len(), matcher.kept.len());
    let removed = reader.json(&["consumers", "remove", "matcher"]);
    assert_eq!(removed["removed"], "matcher");
    reader.assert_sound();
}

#[test]
fn a_node_with_a_consumer_stops_at_once() {
    let world = World::new(&["northstar"]);
    let member = world.member("northstar");
    member.set("grace_s", "80");
    world.start_all();
    member.create_set("confirmed", &["all"]);
    let mut following = member.call().begin(&FOLLOW);
    until_true("the matcher to be registered", || {
        let listed = member.json(&["consumers", "list"]);
        listed["consumers"][0]["in_snapshot"] == false
    });
    let began = std::time::Instant::now();
    assert!(member.stop().success());
    let took = began.elapsed();
    assert!(took.as_secs() < 60, "its grace ran out: {took:?}");
    until_true("the command to end", || following.has_ended());
    let ended = following.wait().expect(&[1]);
    assert!(ended.stderr.contains("the node stops"), "{ended}");
}
