//! Sets travel as files between real processes that never meet.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::world::signals::entries;
use crate::world::{Member, World, has_open, list, number, text};

fn path(file: &Path) -> String {
    file.display().to_string()
}

/// Has a member write a bundle of northstar's set.
fn export(member: &Member, file: &Path, more: &[&str]) -> Value {
    let file = path(file);
    let line = ["bundle", "export", &file, "--set", "northstar/confirmed"];
    member.json(&[&line[..], more].concat())
}

/// Has a member take a bundle in, with nothing refused.
fn import(member: &Member, file: &Path) -> Value {
    member.json(&["bundle", "import", &path(file)])
}

/// What came of the one set in a bundle.
fn outcome(taken: &Value) -> (String, u64) {
    let [set] = list(taken, "sets") else {
        panic!("{taken}");
    };
    (text(set, "outcome"), number(set, "stored"))
}

fn codes(taken: &Value) -> Vec<String> {
    let sets = list(taken, "sets").iter();
    let of_sets = sets.flat_map(|set| list(set, "refused"));
    let all = list(taken, "refused").iter().chain(of_sets);
    all.map(|refused| text(refused, "code")).collect()
}

#[test]
fn what_one_member_publishes_another_finds_without_a_connection() {
    let world = World::founded(&["northstar", "tidepool", "gamma"]);
    let (publisher, reader) = (world.member("northstar"), world.member("tidepool"));
    let stranger = world.member("gamma");
    publisher.import_roster(&world.roster_file());
    publisher.start();
    publisher.create_set("confirmed", &["tidepool"]);
    let said = entries("bundle", 0..650);
    publisher.import("confirmed", &said[..600]);
    let first = world.path().join("first.bundle");
    let made = export(publisher, &first, &["--for", "tidepool"]);
    assert_eq!(number(&list(&made, "sets")[0], "size"), 601);
    // Who is not granted the set gets none; a file that is there is left alone.
    let other = path(&world.path().join("other.bundle"));
    let line = [
        "bundle",
        "export",
        &other,
        "--set",
        "confirmed",
        "--for",
        "gamma",
    ];
    let refused = publisher.run(&line);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("not granted"), "{refused}");
    assert!(!Path::new(&other).exists());
    let again = ["bundle", "export", &path(&first), "--for", "tidepool"];
    assert_eq!(publisher.run(&again).code, Some(1));
    // What happens afterwards goes into a delta.
    for entry in &said[7..10] {
        let line = [
            "retract",
            "--set",
            "confirmed",
            "--reference",
            &entry.reference,
        ];
        publisher.json(&[&line[..], &["--reason", "wrong", "--yes"]].concat());
    }
    publisher.import("confirmed", &said[600..]);
    let delta = world.path().join("delta.bundle");
    let since = ["--for", "tidepool", "--from-bundle", &path(&first)];
    let made = export(publisher, &delta, &since);
    assert_eq!(number(&list(&made, "sets")[0], "from"), 601);
    let police = world.path().join("police.bundle");
    let to = ["--for-authority", "Police of Exampleton"];
    export(publisher, &police, &to);
    publisher.stop();

    // The reader has nothing but the genesis digest, and no node runs.
    let taken = import(reader, &first);
    assert_eq!(outcome(&taken), ("taken".to_owned(), 601));
    assert_eq!(reader.hits(&said[..600]), 600);
    let found = &reader.lookup(&said[..1])[0][0];
    assert_eq!(found["publisher"], "northstar");
    assert_eq!(found["contact_email"], "desk@northstar.example");
    // What it says it holds makes the same delta; the publisher is at rest as well.
    let held = reader.run(&["--json", "feeds"]).stdout;
    let held = world.write("held.json", held);
    let by_held = world.path().join("by-held.bundle");
    let made = export(
        publisher,
        &by_held,
        &["--for", "tidepool", "--held", &path(&held)],
    );
    assert_eq!(number(&list(&made, "sets")[0], "from"), 601);
    // Through the socket of a node that runs.
    reader.start();
    let taken = import(reader, &delta);
    assert_eq!(outcome(&taken).0, "taken");
    assert_eq!(reader.hits(&said), 647);
    assert_eq!(reader.hits(&said[7..10]), 0, "what was taken back");
    assert_eq!(outcome(&import(reader, &by_held)).0, "held");
    assert_eq!(
        outcome(&import(reader, &first)).0,
        "held",
        "older, and harmless"
    );
    assert_eq!(reader.hits(&said), 647);
    reader.stop();
    reader.assert_sound();

    // Whom it is not for may have the file, and takes nothing.
    let taken = stranger
        .call()
        .json_ending(&[3], &["bundle", "import", &path(&first)]);
    assert_eq!(outcome(&taken), ("refused".to_owned(), 0));
    assert_eq!(codes(&taken), ["not_granted"]);
    assert!(stranger.feeds().is_empty());
    verifies_anywhere(&world, &police);
}

/// An authority needs no node and no configuration.
fn verifies_anywhere(world: &World, police: &Path) {
    let genesis = world.genesis();
    let police = path(police);
    let line = ["bundle", "show", &police, "--genesis", &genesis];
    let shown = world.call().json(&line);
    assert_eq!(shown["for_authority"], "Police of Exampleton");
    assert_eq!(shown["genesis_given"], true);
    let set = &list(&shown, "sets")[0];
    assert_eq!(
        (text(set, "set"), &set["verified"]),
        ("northstar/confirmed".to_owned(), &Value::from(true))
    );
    assert_eq!(number(set, "entries"), 647);
    let other = "00".repeat(32);
    let wrong = world
        .call()
        .run(&["bundle", "show", &police, "--genesis", &other]);
    assert_eq!(wrong.code, Some(1), "{wrong}");
}

#[test]
fn a_damaged_bundle_says_so_and_an_import_that_is_killed_goes_on() {
    let world = World::founded(&["northstar", "tidepool"]);
    let (publisher, reader) = (world.member("northstar"), world.member("tidepool"));
    publisher.import_roster(&world.roster_file());
    publisher.start();
    publisher.create_set("confirmed", &["all"]);
    let said = entries("killed", 0..20_000);
    publisher.import("confirmed", &said);
    let file = world.path().join("all.bundle");
    export(publisher, &file, &["--for", "tidepool"]);
    publisher.stop();
    let bytes = std::fs::read(&file).unwrap();
    let damaged = |name: &str, change: &dyn Fn(&mut Vec<u8>)| -> PathBuf {
        let mut changed = bytes.clone();
        change(&mut changed);
        world.write(name, changed)
    };
    let cut = damaged("cut.bundle", &|bytes| bytes.truncate(bytes.len() / 3));
    let no_end = bytes.len() - 9;
    let byte = damaged("byte.bundle", &|bytes| bytes[no_end] ^= 1);
    let line = ["bundle", "import", &path(&cut)];
    let taken = reader.call().json_ending(&[3], &line);
    assert_eq!(codes(&taken), ["truncated", "truncated"]);
    let plain = reader.run(&line);
    assert!(plain.stderr.contains("(truncated)"), "{plain}");
    // Killed at whatever moment after it began, the next one goes on.
    let mut in_the_middle = 0;
    for after_ms in [0, 20, 60, 120] {
        let mut killed = reader.call().begin(&["bundle", "import", &path(&file)]);
        let pid = killed.child().id();
        while !killed.has_ended() && !has_open(pid, &file) {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(after_ms));
        in_the_middle += usize::from(!killed.has_ended());
        killed.kill();
        killed.wait();
    }
    assert!(in_the_middle > 0, "every one was done before it was killed");
    let taken = reader
        .call()
        .json_ending(&[3], &["bundle", "import", &path(&byte)]);
    assert_eq!(codes(&taken), ["malformed"], "its end, and nothing else");
    let taken = import(reader, &file);
    assert_eq!(outcome(&taken), ("held".to_owned(), 0));
    assert_eq!(reader.hits(&said[..500]), 500);
    reader.assert_sound();
    let none = world.write("none.bundle", b"PK\x03\x04 something else");
    let refused = reader.run(&["bundle", "import", &path(&none)]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("no bundle"), "{refused}");
}
