//! The coalition's life as its people live it, with real processes: joining, a new
//! identity key, being cut off.

use std::time::{Duration, Instant};

use crate::world::signals::entries;
use crate::world::{COALITION, World, list, number, text, until_true};

/// From the request to the first entry that a newcomer can look up: a minute, and in
/// a test, on a machine that does other things, ten.
const ENROLMENT_MAX: Duration = Duration::from_secs(600);

fn caught_up(world: &World, slug: &str) -> bool {
    world.member(slug).json(&["status"])["caught_up"] == true
}

#[test]
fn a_newcomer_reads_its_first_entry_within_a_minute_of_its_request() {
    let mut world = World::founded(&["north"]);
    world.member("north").import_roster(&world.roster_file());
    world.start_all();
    let here = entries("ceremony", 0..40);
    world.member("north").create_set("confirmed", &["all"]);
    world.member("north").import("confirmed", &here);

    let began = Instant::now();
    world.newcomer("tidepool");
    let request = world.member("tidepool").request().display().to_string();
    // The member reads the words out; the administrator types them.
    let drafted = world.coalition(&["admit", &request, "--yes"]);
    let words = text(&drafted["newcomers"][0], "words");
    std::fs::remove_file(text(&drafted, "draft")).unwrap();
    let drafted = world.coalition(&["admit", &request, "--fingerprint", &words]);
    assert_eq!(drafted["approved"], false);
    let published = world.approve("north");
    assert_eq!(published["handed_to_node"], true);

    let (genesis, endpoint) = (world.genesis(), world.member("north").endpoint().to_owned());
    let newcomer = world.member("tidepool");
    let wrong = [
        "enrol",
        "accept",
        "--genesis",
        &"01".repeat(32),
        "--address",
        &endpoint,
    ];
    newcomer.run(&wrong).expect(&[1]);
    let accept = [
        "enroll",
        "accept",
        "--genesis",
        &genesis,
        "--address",
        &endpoint,
    ];
    newcomer.json(&accept);
    newcomer.json(&accept);
    let config = std::fs::read_to_string(newcomer.config()).unwrap();
    assert_eq!(config.matches(&endpoint).count(), 1, "it is there once");
    newcomer.start();
    newcomer.wait_hits(&here, here.len());
    assert!(began.elapsed() < ENROLMENT_MAX, "{:?}", began.elapsed());
    until_true("the newcomer to have caught up", || {
        caught_up(&world, "tidepool")
    });
}

#[test]
fn an_identity_key_is_replaced_and_the_node_goes_on() {
    let world = World::new(&["north", "south"]);
    world.start_all();
    let (north, south) = (world.member("north"), world.member("south"));
    north.create_set("confirmed", &["all"]);
    let key = north
        .folder()
        .join("keys/identity-2.key")
        .display()
        .to_string();
    let made = north.json(&["enrol", "rotate-identity", &key]);
    assert_eq!(made["signed_by_old_key"], true);
    let request = north
        .folder()
        .join(text(&made, "request"))
        .display()
        .to_string();
    let words = text(&made, "words");
    world.coalition(&["rotate-identity", &request, "--fingerprint", &words]);
    world.approve("south");
    until_true("the new card at south", || {
        let shown = south.json(&["roster", "show"]);
        let row = &shown["members"][0];
        row["identity_key"] == made["identity_key"] && number(row, "card_version") == 2
    });
    let here = entries("rotated", 0..5);
    north.wait_open("confirmed");
    north.import("confirmed", &here);
    south.wait_hits(&here, here.len());
}

#[test]
fn a_lost_identity_key_is_replaced_only_when_the_administrators_say_so() {
    let world = World::new(&["north"]);
    let north = world.member("north");
    let key = north
        .folder()
        .join("keys/identity-2.key")
        .display()
        .to_string();
    let made = north.json(&["enrol", "rotate-identity", &key, "--lost"]);
    assert_eq!(made["signed_by_old_key"], false);
    let request = north
        .folder()
        .join(text(&made, "request"))
        .display()
        .to_string();
    let admins = world.roster_file();
    let admins = admins.parent().unwrap().display().to_string();
    let line = [
        "coalition",
        "rotate-identity",
        &request,
        "--yes",
        "--dir",
        &admins,
    ];
    let refused = world.call().run(&line).expect(&[1]);
    assert!(refused.stderr.contains("--lost"), "{refused}");
    world.coalition(&["rotate-identity", &request, "--yes", "--lost"]);
    let published = world.approve("north");
    assert_eq!(published["version"], 3);
}

#[test]
fn one_administrator_cuts_a_member_off_through_any_node() {
    let world = World::new(&["north", "south"]);
    world.start_all();
    let north = world.member("north");
    let connected = || {
        let peers = north.json(&["peers"]);
        list(&peers, "peers")
            .iter()
            .any(|peer| peer["state"] == "connected")
    };
    until_true("north and south to meet", connected);
    let key = world.roster_file().with_file_name("admin.key");
    let key = key.display().to_string();
    let admins = world.roster_file();
    let admins = admins.parent().unwrap().display().to_string();
    let line = [
        "coalition",
        "suspend",
        "south",
        "--reason",
        "a leak",
        "--key",
        &key,
    ];
    let line = [&line[..], &["--to-node", "--dir", &admins]].concat();
    north.json(&line);
    until_true("south to be cut off", || !connected());
    world.coalition(&["reinstate", "south"]);
    world.approve("north");
    until_true("south to be back", connected);
}

#[test]
fn a_coalition_that_lost_its_keys_is_anchored_anew_and_keeps_its_feeds() {
    let mut world = World::new(&["north", "south"]);
    world.start_all();
    let (north, south) = (world.member("north"), world.member("south"));
    north.create_set("confirmed", &["all"]);
    north.wait_open("confirmed");
    let before = entries("before", 0..20);
    north.import("confirmed", &before);
    south.wait_hits(&before, before.len());
    // Heads of an earlier key are held as well, whose card goes with the old chain.
    north.json(&["keys", "rotate", "feed"]);
    let head = north.head("confirmed");
    for member in [north, south] {
        assert!(member.stop().success());
    }

    // The administrator's key is gone; others found the coalition again.
    let lost = world.path().join("lost");
    std::fs::rename(world.roster_file().parent().unwrap(), &lost).unwrap();
    std::fs::remove_file(lost.join("admin.key")).unwrap();
    let (old, new) = (lost.join("roster.hashpact"), world.roster_file());
    let old = old.display().to_string();
    let founding = [
        "init",
        "--name",
        COALITION,
        "--succeeds",
        &old,
        "--no-passphrase",
    ];
    let genesis = text(&world.coalition(&founding), "genesis");
    let file = new.display().to_string();

    // Each node goes over to it; its card goes to the administrators.
    let mut cards = Vec::new();
    for member in [north, south] {
        let wrong = ["roster", "re-anchor", &file, "--genesis", &"01".repeat(32)];
        member.run(&wrong).expect(&[1]);
        let line = ["roster", "re-anchor", &file, "--genesis", &genesis];
        let done = member.json(&line);
        cards.push(
            member
                .folder()
                .join(text(&done, "card"))
                .display()
                .to_string(),
        );
        // Again, as after a crash before the configuration was written.
        member.json(&line);
    }
    let line: Vec<&str> = ["update"]
        .into_iter()
        .chain(cards.iter().map(String::as_str))
        .collect();
    assert_eq!(number(&world.coalition(&line), "new"), 2);
    for member in [north, south] {
        member.import_roster(&new);
        member.start();
    }
    assert_eq!(
        south.hits(&before),
        before.len(),
        "what was held answers at once"
    );
    north.wait_open("confirmed");
    assert_eq!(north.head("confirmed"), head, "the feed is the same");
    let after = entries("after", 0..5);
    north.import("confirmed", &after);
    south.wait_hits(&after, after.len());
    north.assert_sound();
    south.assert_sound();

    // Who joins under the new genesis reads the feed from its first leaf on.
    let endpoint = format!("north={}", north.endpoint());
    world.newcomer("tidepool");
    let request = world.member("tidepool").request().display().to_string();
    world.coalition(&["admit", &request, "--yes"]);
    world.approve("north");
    let newcomer = world.member("tidepool");
    newcomer.json(&[
        "enrol",
        "accept",
        "--genesis",
        &genesis,
        "--address",
        &endpoint,
    ]);
    newcomer.start();
    newcomer.wait_hits(&before, before.len());
    newcomer.wait_hits(&after, after.len());
}
