//! An older copy of a store, restored, does not fork its feed: nothing is signed
//! until the leaves that are missing have been pulled back from a reader.

use std::fs;
use std::path::Path;

use crate::world::signals::{Entry, entries};
use crate::world::{World, copy, number, text, until, until_true};

const SET: &str = "kept";
const NAME: &str = "northstar/kept";

/// What of the disk goes back to an older state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restored {
    /// The store; the sign-state file stays the newest.
    Store,
    /// The store, and no sign-state file is there.
    StoreWithoutSignState,
    /// Both: the whole disk.
    WholeDisk,
}

#[test]
fn a_restored_store_waits_for_its_leaves_and_goes_on() {
    scenario(Restored::Store);
}

#[test]
fn a_restored_store_without_its_sign_state_waits_for_its_leaves_and_goes_on() {
    scenario(Restored::StoreWithoutSignState);
}

#[test]
fn a_restored_disk_is_told_by_its_readers_what_it_had_signed() {
    scenario(Restored::WholeDisk);
}

fn scenario(restored: Restored) {
    let world = World::new(&["northstar", "tidepool"]);
    let (publisher, reader) = (world.member("northstar"), world.member("tidepool"));
    world.start_all();
    publisher.create_set(SET, &["all"]);
    let first = entries("first", 0..300);
    publisher.import(SET, &first);
    reader.wait_hits(&first, 300);
    assert_eq!(publisher.stop().code(), Some(0));
    let folder = publisher.folder();
    copy(&folder.join("data"), &folder.join("old/data"));
    copy(&folder.join("sign-state"), &folder.join("old/sign-state"));
    publisher.start();
    publisher.wait_open(SET);
    let second = entries("second", 0..500);
    publisher.import(SET, &second);
    let line = [
        "retract",
        "--set",
        SET,
        "--reference",
        "first-1",
        "--reason",
        "wrong",
        "--yes",
    ];
    publisher.json(&line);
    let (size, root) = publisher.head(SET);
    reader.wait_indexed(NAME, size);
    assert_eq!(publisher.stop().code(), Some(0));
    assert_eq!(reader.stop().code(), Some(0));
    restore(folder, restored);

    // Alone, nothing is signed, and it says why.
    publisher.start();
    let third = entries("third", 0..10);
    let file = publisher.csv("third", &third);
    let refused = publisher.run(&["import", "--set", SET, &file]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("next:"), "{refused}");
    let closed = publisher.json(&["set", "show", SET]);
    assert_eq!(closed["open"], false, "{closed}");
    assert!(!text(&closed, "closed_because").is_empty());
    assert!(number(&closed, "size") < size);
    if restored == Restored::Store {
        // What is known to be behind is not opened by anybody's word.
        let forced = publisher.run(&["set", "confirm-head", SET, "--reason", "a test"]);
        assert_eq!(forced.code, Some(1), "{forced}");
    }

    // With a reader, the leaves come back, the very ones.
    reader.start();
    let open = until("the publisher to be open again", || {
        let set = publisher.json(&["set", "show", SET]);
        (set["open"] == true && number(&set, "size") >= size).then_some(set)
    });
    assert_eq!(
        (number(&open, "size"), text(&open, "root")),
        (size, root),
        "{open}"
    );
    assert_eq!(publisher.hits(&second), 500);
    assert_eq!(publisher.hits(&first), 299, "what was taken back stays so");
    publisher.import(SET, &third);
    let (longer, root) = publisher.head(SET);
    assert_eq!(longer, size + 10);
    let feed = reader.wait_indexed(NAME, longer);
    assert_eq!(text(&feed, "root"), root, "one chain at the reader");
    reader.wait_hits(&third, 10);
    for member in [publisher, reader] {
        assert_eq!(member.stop().code(), Some(0));
        member.assert_sound();
    }
}

#[test]
fn without_readers_the_operator_opens_a_set_that_lost_its_sign_state() {
    let world = World::new(&["northstar"]);
    let member = world.member("northstar");
    member.create_set(SET, &["all"]);
    let first = entries("alone", 0..20);
    member.import(SET, &first);
    fs::remove_dir_all(member.folder().join("sign-state")).unwrap();
    let more = entries("alone", 20..30);
    let file = member.csv("more", &more);
    let refused = member.run(&["import", "--set", SET, &file]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert_eq!(member.hits(&first), 20, "look-ups go on");
    member.json(&[
        "set",
        "confirm-head",
        SET,
        "--reason",
        "the only node there ever was",
    ]);
    member.json(&["import", "--set", SET, &file]);
    assert_eq!(member.hits(&more), 10);
    member.assert_sound();
}

#[test]
fn a_restored_reader_enforces_nothing_until_it_is_the_newest_again() {
    let world = World::new(&["northstar", "tidepool", "lumen"]);
    let (publisher, peer) = (world.member("northstar"), world.member("tidepool"));
    let reader = world.member("lumen");
    let policy = "[[rules]]\nname = \"all\"\nverdict = \"enforce\"\nmembers = 1\n";
    fs::write(reader.folder().join("policy.toml"), policy).unwrap();
    world.start_all();
    publisher.create_set(SET, &["all"]);
    let said = entries("reader", 0..20);
    publisher.import(SET, &said);
    reader.wait_hits(&said, 20);
    let verdict = |entry: &Entry| {
        let told = reader.run(&["lookup", &entry.spec(), "--distance", "0", "--json"]);
        told.expect(&[0, 3]).object()["verdict"]
            .as_str()
            .map(ToOwned::to_owned)
    };
    let [stays, goes] = [&said[0], &said[1]];
    assert_eq!(verdict(stays).as_deref(), Some("enforce"));
    assert_eq!(reader.stop().code(), Some(0));
    let folder = reader.folder();
    copy(&folder.join("data"), &folder.join("old/data"));
    reader.start();
    let line = [
        "retract",
        "--set",
        SET,
        "--reference",
        "reader-1",
        "--reason",
        "wrong",
        "--yes",
    ];
    publisher.json(&line);
    let (size, _) = publisher.head(SET);
    for reads in [peer, reader] {
        reads.wait_indexed(NAME, size);
    }
    assert_eq!(publisher.stop().code(), Some(0));
    assert_eq!(reader.stop().code(), Some(0));
    restore(folder, Restored::Store);

    // Without its publisher: who is connected holds more, and may not serve it.
    reader.spawn();
    until_true("the reader to answer", || reader.is_up());
    let feed = until("the reader to know that it is behind", || {
        let feed = reader.feed(NAME)?;
        (feed["state"] == "behind").then_some(feed)
    });
    assert_eq!(
        (number(&feed, "lag"), &feed["unconfirmed"]),
        (1, &true.into())
    );
    for entry in [stays, goes] {
        assert_eq!(verdict(entry).as_deref(), Some("review"));
    }
    let status = reader.json(&["status"]);
    assert_eq!(status["ready"], false);
    assert!(
        status["notices"].to_string().contains("restored"),
        "{status}"
    );
    let (code, ready) = reader.http("/ready").unwrap();
    assert_eq!(code, 503, "{ready}");
    assert!(ready.contains("restored"), "{ready}");

    publisher.start();
    until_true("the reader to be ready again", || {
        reader.json(&["status"])["ready"] == true
    });
    assert_eq!(verdict(goes), None, "what was taken back stays so");
    assert_eq!(verdict(stays).as_deref(), Some("enforce"));
    assert_eq!(reader.feed(NAME).unwrap()["unconfirmed"], false);

    // A disk of its own for the sign-state, and nobody to ask: an operator says so.
    for member in [publisher, peer, reader] {
        assert_eq!(member.stop().code(), Some(0));
    }
    fs::remove_dir_all(folder.join("sign-state")).unwrap();
    reader.spawn();
    until_true("the reader to answer", || reader.is_up());
    assert_eq!(verdict(stays).as_deref(), Some("review"));
    reader.json(&["set", "confirm-head", NAME, "--reason", "read out to us"]);
    assert_eq!(verdict(stays).as_deref(), Some("enforce"));
    assert_eq!(reader.stop().code(), Some(0));
    reader.assert_sound();
}

fn restore(folder: &Path, restored: Restored) {
    fs::remove_dir_all(folder.join("data")).unwrap();
    copy(&folder.join("old/data"), &folder.join("data"));
    match restored {
        Restored::Store => {}
        Restored::StoreWithoutSignState => {
            fs::remove_dir_all(folder.join("sign-state")).unwrap();
        }
        Restored::WholeDisk => {
            fs::remove_dir_all(folder.join("sign-state")).unwrap();
            copy(&folder.join("old/sign-state"), &folder.join("sign-state"));
        }
    }
}
