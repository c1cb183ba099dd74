//! Three members exchange: what one publishes the others find, until it is taken
//! back; what may not leave does not; and a node ends when told to.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hashpact_core::id::FeedId;
use hashpact_net::types::PullRequest;
use serde_json::Value;

use crate::world::signals::{Entry, entries};
use crate::world::{
    COALITION, Member, Reader, World, checkpoint, list, number, text, until, until_true,
};

const THREE: [&str; 3] = ["northstar", "tidepool", "gamma"];

#[test]
fn what_one_member_publishes_the_others_find_until_it_is_taken_back() {
    // Only the publisher is given the roster's file; the others ask it.
    let world = World::founded(&THREE);
    let publisher = world.member("northstar");
    publisher.import_roster(&world.roster_file());
    for member in ["tidepool", "gamma"] {
        world.member(member).bootstrap_from(publisher);
    }
    world.start_all();
    publisher.create_set("confirmed", &["all"]);
    let said = entries("exchange", 0..600);
    let summary = publisher.import("confirmed", &said);
    assert_eq!(number(&summary, "added"), 600);
    let readers = [world.member("tidepool"), world.member("gamma")];
    for reader in readers {
        reader.wait_hits(&said, 600);
        check_match(&reader.lookup(&said[..1])[0], &said[0]);
    }
    let taken_back = take_back(publisher, &said);
    for member in [publisher, readers[0], readers[1]] {
        member.wait_hits(&said, 597);
        assert_eq!(member.hits(&taken_back), 0, "at {}", member.slug());
    }
    // What is asked one by one is answered as in a file.
    let spec = said[5].spec();
    let alone = readers[0].json(&["lookup", &spec]);
    assert_eq!(
        (alone["known"].as_bool(), list(&alone, "matches").len()),
        (Some(true), 1)
    );
    let none = readers[0]
        .call()
        .json_ending(&[3], &["lookup", &taken_back[0].spec()]);
    assert_eq!(
        (none["known"].as_bool(), list(&none, "matches").len()),
        (Some(false), 0)
    );
}

/// Takes three entries back: one by name, one by signal, one by its reference.
fn take_back(publisher: &Member, said: &[Entry]) -> Vec<Entry> {
    let chosen = [&said[7], &said[8], &said[9]];
    let name = text(&publisher.lookup(&said[7..8])[0][0], "entry");
    let reason = ["--reason", "wrong", "--yes"];
    publisher.json(&[&["retract", &name][..], &reason].concat());
    let signal = format!("PDQ:{}", chosen[1].pdq());
    publisher.json(
        &[
            &["retract", "--set", "confirmed", "--signal", &signal][..],
            &reason,
        ]
        .concat(),
    );
    let reference = &chosen[2].reference;
    let line = ["retract", "--set", "confirmed", "--reference", reference];
    publisher.json(&[&line[..], &reason].concat());
    chosen.into_iter().cloned().collect()
}

/// An answer names publisher, set, classification, contact, time and entry.
fn check_match(matches: &[Value], entry: &Entry) {
    let [found] = matches else {
        panic!("{} matches", matches.len());
    };
    assert_eq!(found["set"], "northstar/confirmed");
    assert_eq!(
        found["entry"],
        format!("northstar/confirmed#{}", found["index"])
    );
    assert_eq!(
        found["classification"],
        format!("tc:{}", entry.classification)
    );
    assert_eq!(found["standing"], "active");
    assert!(text(found, "published").starts_with("20"), "{found}");
    assert_eq!(found["publisher"], "northstar");
    assert_eq!(found["publisher_name"], "The northstar organisation");
    assert_eq!(found["contact_name"], "Night desk");
    assert_eq!(found["contact_email"], "desk@northstar.example");
    assert_eq!(found["contact_phone"], "+31 20 555 0100");
}

#[test]
fn a_list_that_may_not_be_shared_on_never_leaves() {
    const TERMS: &str = "for the checks of the member itself, not to be shared on";
    let world = World::new(&THREE[..2]);
    let (owner, other) = (world.member("northstar"), world.member("tidepool"));
    world.start_all();
    let line = [
        "set",
        "create",
        "bought",
        "--source",
        "Hotline Nord",
        "--terms",
        TERMS,
    ];
    let set = owner.json(&line);
    let kept = entries("bought", 0..20);
    owner.import("bought", &kept);
    assert_eq!(owner.hits(&kept), 20, "it answers at home");
    // Every way out is refused, with the terms.
    let ways_out: [&[&str]; 3] = [
        &["set", "grant", "bought", "all"],
        &["export", "--set", "bought"],
        &["export", "--set", "northstar/bought", "--format", "jsonl"],
    ];
    for line in ways_out {
        let refused = owner.run(line);
        assert_eq!(refused.code, Some(1), "{refused}");
        assert!(refused.stderr.contains(TERMS), "{refused}");
        assert!(refused.stdout.is_empty(), "{refused}");
    }
    // What is published after it arrives, so the other has been told of everything.
    owner.create_set("confirmed", &["all"]);
    let shared = entries("shared", 0..5);
    owner.import("confirmed", &shared);
    other.wait_hits(&shared, 5);
    assert_eq!(other.hits(&kept), 0);
    assert_eq!(
        names(other),
        BTreeSet::from(["northstar/confirmed".to_owned()])
    );
    other.kill();
    let heads = Reader::dial(other, owner).heads();
    assert_eq!(heads.len(), 1, "one feed is announced");
    assert!(!heads.contains_key(&text(&set, "feed")));
}

#[test]
fn a_member_without_a_grant_sees_nothing_and_one_that_loses_it_stops_matching() {
    let world = World::new(&THREE);
    world.start_all();
    let [owner, granted, other] = THREE.map(|slug| world.member(slug));
    let set = owner.create_set("narrow", &["tidepool"]);
    let narrow = entries("narrow", 0..50);
    owner.import("narrow", &narrow);
    owner.create_set("wide", &["all"]);
    let wide = entries("wide", 0..5);
    owner.import("wide", &wide);
    granted.wait_hits(&narrow, 50);
    other.wait_hits(&wide, 5);
    assert_eq!(other.hits(&narrow), 0);
    assert_eq!(names(other), BTreeSet::from(["northstar/wide".to_owned()]));
    ungranted_is_as_unknown(owner, other, &text(&set, "feed"));
    owner.json(&["set", "revoke", "narrow", "tidepool"]);
    granted.wait_hits(&narrow, 0);
    granted.wait_hits(&wide, 5);
    until_true("tidepool to drop the set", || {
        !names(granted).contains("northstar/narrow")
    });
    // It says so, for as long as it is so: over a start, and once.
    let lost = |member: &Member| list(&member.json(&["feeds"]), "lost").to_vec();
    let told = |member: &Member| {
        let notices = member.json(&["status"])["notices"].to_string();
        notices.contains("dropped: northstar/narrow")
    };
    granted.stop();
    granted.start();
    assert_eq!(text(&lost(granted)[0], "name"), "northstar/narrow");
    assert!(told(granted) && lost(other).is_empty() && !told(other));
    let audit = granted.run(&["audit", "--act", "set.lost", "--json"]);
    assert_eq!(audit.expect(&[0]).objects().len(), 1);
    let log = std::fs::read_to_string(granted.log_file()).unwrap();
    assert_eq!(log.matches("the grant has ended").count(), 1, "{log}");
    owner.json(&["set", "grant", "northstar/narrow", "tidepool"]);
    granted.wait_hits(&narrow, 50);
    assert!(lost(granted).is_empty() && !told(granted));
}

/// A pull of a feed that is not granted gets the answer that one of a feed that is
/// not there gets.
fn ungranted_is_as_unknown(owner: &Member, other: &Member, feed: &str) {
    other.kill();
    let reader = Reader::dial(other, owner);
    let heads = reader.heads();
    assert!(!heads.contains_key(feed), "it is not announced");
    let head = heads.values().next().unwrap();
    let known = checkpoint(head);
    let ask = |feed: FeedId| {
        let request = PullRequest {
            feed,
            from: 0,
            to: 1,
            head_size: known.size,
            head_root: known.root,
            proof_only: false,
            elide_dead: false,
        };
        reader.pull_exactly(&request).unwrap_err().to_string()
    };
    let there = hashpact_core::id::Digest::from_hex(feed).unwrap();
    let nowhere = hashpact_core::id::Digest::of(b"no feed");
    assert_eq!(ask(FeedId(there)), ask(FeedId(nowhere)));
}

#[test]
fn a_relay_serves_a_feed_whose_publisher_is_away_if_the_grant_says_so() {
    let world = World::new(&THREE);
    let [publisher, relay, late] = THREE.map(|slug| world.member(slug));
    publisher.start();
    relay.start();
    publisher.create_set("relayed", &["all:relay"]);
    publisher.create_set("direct", &["all"]);
    let relayed = entries("relayed", 0..700);
    let direct = entries("direct", 0..10);
    publisher.import("relayed", &relayed);
    publisher.import("direct", &direct);
    relay.wait_hits(&relayed, 700);
    relay.wait_hits(&direct, 10);
    publisher.kill();
    late.start();
    late.wait_hits(&relayed, 700);
    assert_eq!(late.hits(&direct), 0, "only its publisher serves it");
    assert_eq!(
        late.feed("northstar/relayed").unwrap()["root"],
        relay.feed("northstar/relayed").unwrap()["root"]
    );
    publisher.start();
    late.wait_hits(&direct, 10);
}

#[test]
fn logs_are_one_json_object_a_line_where_that_is_set() {
    let world = World::new(&["northstar"]);
    let node = world.member("northstar");
    node.set("format", "\"json\"");
    world.start_all();
    node.create_set("confirmed", &["all"]);
    node.stop();
    let log = std::fs::read_to_string(node.log_file()).unwrap();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    let runs = lines
        .iter()
        .find(|line| line["message"] == "everything is bound; the node runs");
    let runs = runs.unwrap();
    assert_eq!(
        (&runs["level"], &runs["member"]),
        (&"INFO".into(), &"northstar".into())
    );
    assert!(
        runs["timestamp"].is_string() && runs["target"].is_string(),
        "{runs}"
    );
    assert!(lines.iter().any(|line| line["message"] == "stopped"));
}

#[test]
fn a_node_says_that_it_lives_and_ends_with_0_when_told_to() {
    let world = World::new(&THREE[..2]);
    let node = world.member("northstar");
    node.set("grace_s", "80");
    world.start_all();
    node.create_set("confirmed", &["all"]);
    node.import("confirmed", &entries("sigterm", 0..5));
    world
        .member("tidepool")
        .wait_hits(&entries("sigterm", 0..5), 5);
    assert_eq!(node.http("/live"), Some((200, "live\n".to_owned())));
    let (code, ready) = node.http("/ready").unwrap();
    assert_eq!(
        (code, ready.contains("\"ready\":true")),
        (200, true),
        "{ready}"
    );
    // The other one may have come over its own connection before this one's stood.
    crate::world::until_true("northstar to be connected", || {
        list(&node.json(&["peers"]), "peers")[0]["state"] == "connected"
    });
    let (code, metrics) = node.http("/metrics").unwrap();
    assert_eq!(code, 200);
    for name in [
        "hashpact_ready 1",
        "hashpact_leaves ",
        "hashpact_store_bytes ",
        "hashpact_certificate_days_left ",
        "hashpact_feed_lag_leaves{feed=\"northstar/confirmed\"} 0",
        "hashpact_peer_connected{member=\"tidepool\",node=\"main\"} 1",
    ] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
    assert_eq!(node.http("/").map(|(code, _)| code), Some(404));
    let status = node.json(&["status"]);
    assert_eq!(status["ready"], true, "{status}");
    assert_eq!(status["coalition"], COALITION);
    let peers = node.json(&["peers"]);
    assert_eq!(list(&peers, "peers")[0]["state"], "connected", "{peers}");
    // Peers, a watch and an idle command's connection stand; it ends all the same.
    let started = Instant::now();
    let ended = node.stop();
    assert_eq!(ended.code(), Some(0));
    let took = started.elapsed();
    assert!(
        took < Duration::from_secs(60),
        "its grace ran out: {took:?}"
    );
    node.start();
    assert_eq!(node.hits(&entries("sigterm", 0..5)), 5);
    assert_eq!(node.stop().code(), Some(0));
}

#[test]
fn a_store_is_in_use_by_one_process() {
    let world = World::new(&THREE[..1]);
    let node = world.member("northstar");
    node.start();
    let second = node.run(&["run"]);
    assert_eq!(second.code, Some(1), "{second}");
    assert!(second.stderr.contains("next:"), "{second}");
    assert!(node.http("/live").is_some(), "the first goes on");
}

#[test]
fn a_command_without_a_node_works_on_the_store_itself() {
    let world = World::new(&THREE[..1]);
    let member = world.member("northstar");
    member.create_set("confirmed", &[]);
    let some = entries("alone", 0..30);
    let summary = member.import("confirmed", &some);
    assert_eq!(member.hits(&some), 30);
    let head = until("the set's head", || Some(member.head("confirmed")));
    let files = list(&summary, "files");
    assert_eq!(
        (number(&files[0], "head_size"), text(&files[0], "head_root")),
        head
    );
    let exported = member.run(&["export", "--set", "confirmed"]).expect(&[0]);
    assert_eq!(
        exported.stdout.lines().count(),
        31,
        "a header and one line an entry"
    );
    member.assert_sound();
}

/// The names of the feeds that a node holds.
fn names(member: &Member) -> BTreeSet<String> {
    let feeds = member.feeds();
    feeds.iter().map(|feed| text(feed, "name")).collect()
}
