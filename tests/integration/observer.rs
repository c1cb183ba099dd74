//! Coalition staff see who takes part, and nothing of what is exchanged.

use serde_json::Value;

use crate::world::signals::{Entry, entries};
use crate::world::{Member, Reader, World, list, number, text, until, until_true};

/// The row of a member in `coalition status`.
fn row(status: &Value, member: &str) -> Value {
    let rows = list(status, "members").iter();
    let mut found = rows.filter(|row| row["member"] == member);
    found.next().cloned().unwrap_or(Value::Null)
}

fn status(of: &Member) -> Value {
    of.json(&["coalition", "status"])
}

#[test]
fn an_observer_sees_who_takes_part_and_how_current_they_are_and_no_feed() {
    let world = World::founded(&["north", "south", "desk"]);
    world.coalition(&["set-role", "desk", "observe"]);
    for member in world.members() {
        member.import_roster(&world.roster_file());
    }
    let north = world.member("north");
    let desk = world.member("desk");
    world.approve("north");
    north.set("overdue_after_s", "1");
    north.start();
    desk.start();
    north.create_set("confirmed", &["all:relay"]);
    north.create_set("hers", &["desk"]);
    let said = entries("observed", 0..20);
    north.import("confirmed", &said);

    let seen = until("desk to reach north under the new roster", || {
        let seen = status(desk);
        let met = row(&seen, "north")["nodes"][0]["reach"] == "connected";
        (met && number(&seen, "roster_version") == 3).then_some(seen)
    });
    let of_north = row(&seen, "north");
    let node = &of_north["nodes"][0];
    assert_eq!(number(node, "roster_version"), 3);
    assert_eq!(node["behind"], false);
    assert!(text(node, "software").starts_with("hashpact "));
    assert!(node["last_heard"].is_string(), "{node}");
    assert!(node["certificate_expires"].is_string(), "{node}");
    assert!(of_north["card_expires"].is_string());
    assert_eq!(of_north["overdue_receipts"], 0);
    assert_eq!(row(&seen, "desk")["roles"][0], "observe");
    assert_eq!(row(&seen, "desk")["nodes"][0]["reach"], "this node");
    // Who does not run is not reached, and whoever was cut off is said to be.
    let away = until("desk to miss south", || {
        let south = row(&status(desk), "south");
        (south["nodes"][0]["reach"] == "unreachable").then_some(south)
    });
    assert_eq!(away["nodes"][0]["reachable"], false);
    assert_eq!(away["nodes"][0]["roster_version"], 0);
    // How much it owes is told, and not of which sets.
    until_true("desk to hear that south's word is overdue", || {
        row(&status(desk), "south")["overdue_receipts"] == 1
    });
    // What hangs on a member is shown first, and nothing is done.
    let line = ["coalition", "suspend", "north", "--preview"];
    let shown = north.json(&line);
    assert_eq!(number(&shown["previews"][0], "without_other"), 20);
    assert_eq!(list(&shown["previews"][0], "examples").len(), 20);
    let line = ["coalition", "remove", "south", "north", "--preview"];
    assert_eq!(list(&north.json(&line), "previews").len(), 2);
    let left = std::fs::read_dir(north.folder()).unwrap();
    let left = left.map(|file| file.unwrap().file_name().into_string().unwrap());
    let made = left.filter(|name| name.contains("suspension") || name.contains("draft"));
    assert_eq!(made.collect::<Vec<_>>(), [""; 0]);
    assert_eq!(row(&status(desk), "north")["status"], "active");

    let key = world.roster_file().with_file_name("admin.key");
    let key = key.display().to_string();
    let line = ["suspend", "south", "--reason", "trial", "--key", &key];
    let file = text(&world.coalition(&line), "file");
    north.json(&["roster", "import", &file]);
    until_true("desk to hear of the suspension", || {
        row(&status(desk), "south")["status"] == "suspended"
    });

    // What people read fits their terminals.
    let shown = desk.run(&["coalition", "status"]).expect(&[0]).stdout;
    assert!(
        shown.lines().all(|line| line.chars().count() <= 80),
        "{shown}"
    );
    assert!(shown.contains("overdue receipts: "), "{shown}");

    // Shown again and again it is one object a line.
    let mut watching = desk
        .call()
        .begin(&["coalition", "status", "--watch=1", "--json"]);
    until_true("it is shown twice", || {
        watching.so_far().matches('\n').count() >= 2 || watching.has_ended()
    });
    assert!(!watching.has_ended());
    watching.kill();
    let rounds = watching.wait().objects();
    assert!(rounds.len() >= 2, "{} rounds", rounds.len());

    assert_no_feed_is_named(desk, north, &said);
    desk.stop();
    // At rest it says what it goes by, and that nobody was asked.
    let rest = status(desk);
    assert_eq!(row(&rest, "north")["nodes"][0]["reach"], "not asked");
    assert_eq!(row(&rest, "desk")["nodes"][0]["reach"], "not running");
    desk.run(&["coalition", "status", "--watch"]).expect(&[1]);
    assert!(Reader::dial(desk, north).heads().is_empty());
}

/// Of feeds the observer was told nothing, whatever it asks its own node.
fn assert_no_feed_is_named(desk: &Member, north: &Member, said: &[Entry]) {
    let set = north.json(&["set", "show", "confirmed"]);
    let names = [
        text(&set, "feed"),
        "north/confirmed".to_owned(),
        "north/hers".to_owned(),
    ];
    for line in [
        &["coalition", "status"][..],
        &["status"],
        &["peers"],
        &["feeds"],
        &["set", "list"],
        &["roster", "show"],
        &["quarantine", "list"],
    ] {
        let said = desk.json(line).to_string();
        for name in &names {
            assert!(!said.contains(name), "{line:?} names {name}: {said}");
        }
    }
    assert!(desk.feeds().is_empty());
    assert_eq!(desk.hits(said), 0);
    let log = std::fs::read_to_string(desk.log_file()).unwrap();
    for name in &names {
        assert!(!log.contains(name), "the log names {name}");
    }
}
