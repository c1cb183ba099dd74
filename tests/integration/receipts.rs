//! A publisher is told who acts on what it published and withdrew, whatever happens on
//! the way.

use std::fs;

use serde_json::Value;

use crate::world::signals::entries;
use crate::world::{Member, World, copy, list, number, until_true};

const FOLLOW: [&str; 7] = [
    "export",
    "--follow",
    "--consumer",
    "matcher",
    "--format",
    "jsonl",
    "--until-caught-up",
];

fn of(publisher: &Member, subject: &str) -> Value {
    publisher.json(&["receipts", subject])
}

fn state(receipts: &Value, member: &str) -> String {
    let members = list(receipts, "members").iter();
    let mut found = members.filter(|one| one["member"] == member);
    let state = found.next().and_then(|one| one["state"].as_str());
    state.unwrap_or("no reader").to_owned()
}

fn retract(publisher: &Member, reference: &str) {
    let line = ["retract", "--set", "confirmed", "--reference", reference];
    publisher.json(&[&line[..], &["--reason", "wrong", "--yes"]].concat());
}

#[test]
fn receipts_say_who_acts_on_a_retraction_through_pauses_kills_and_restored_backups() {
    let world = World::new(&["northstar", "tidepool", "harbor"]);
    let publisher = world.member("northstar");
    let (reader, relay) = (world.member("tidepool"), world.member("harbor"));
    world.start_all();
    publisher.create_set("confirmed", &["all:relay"]);
    let said = entries("receipt", 0..50);
    publisher.import("confirmed", &said);
    let all = publisher.json(&["receipts", "confirmed", "--wait", "60"]);
    assert_eq!((number(&all, "done"), number(&all, "late")), (2, 0));
    assert!(all["p50_ms"].is_u64() && all["p99_ms"].is_u64(), "{all}");
    // What people read fits their terminals.
    let shown = publisher
        .run(&["receipts", "confirmed"])
        .expect(&[0])
        .stdout;
    let fits = shown.lines().all(|line| line.chars().count() <= 80);
    assert!(
        fits && shown.contains("2 done, 0 late, 0 unreachable"),
        "{shown}"
    );
    reader
        .run(&["receipts", "northstar/confirmed"])
        .expect(&[1, 2]);

    // A consumer that pauses keeps its node's word back, and nobody else's.
    reader.run(&FOLLOW).expect(&[0]);
    retract(publisher, "receipt-3");
    reader.wait_hits(&said, 49);
    let leaf = "confirmed#51";
    until_true("harbor to be done with the retraction", || {
        state(&of(publisher, leaf), "harbor") == "done"
    });
    assert_eq!(state(&of(publisher, leaf), "tidepool"), "late");
    reader.run(&FOLLOW).expect(&[0]);
    let done = publisher.json(&["receipts", leaf, "--wait", "60"]);
    assert_eq!(
        (number(&done, "done"), done["kind"].as_str()),
        (2, Some("retraction"))
    );

    // The entry stands for what withdrew it, unless it is asked for itself.
    let of_entry = of(publisher, "confirmed#4");
    assert_eq!(
        (number(&of_entry, "index"), number(&of_entry, "withdrew")),
        (51, 4)
    );
    let line = ["receipts", "confirmed#4", "--published"];
    assert_eq!(publisher.json(&line)["kind"], "entry");

    // Away, restored from an older store, killed: in the end it says that it is done.
    reader.json(&["consumers", "remove", "matcher"]);
    assert_eq!(reader.stop().code(), Some(0));
    let folder = reader.folder();
    copy(&folder.join("data"), &folder.join("old"));
    retract(publisher, "receipt-5");
    let leaf = "confirmed#52";
    until_true("the publisher to miss its reader", || {
        state(&of(publisher, leaf), "tidepool") == "unreachable"
    });
    reader.start();
    publisher.json(&["receipts", leaf, "--wait", "60"]);
    reader.kill();
    fs::remove_dir_all(folder.join("data")).unwrap();
    copy(&folder.join("old"), &folder.join("data"));
    // While the publisher is away the relay tells the restored node what it missed.
    assert_eq!(publisher.stop().code(), Some(0));
    reader.start();
    reader.wait_hits(&said, 48);
    publisher.start();
    let done = publisher.json(&["receipts", leaf, "--wait", "60"]);
    assert_eq!(number(&done, "done"), 2);
    relay.assert_sound();
    reader.assert_sound();
}
