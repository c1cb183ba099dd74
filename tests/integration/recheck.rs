//! A publisher that was wrong asks the others to look again at what they did, and they
//! find it.

use serde_json::{Value, json};

use crate::world::signals::entries;
use crate::world::{Member, World, list, number, text, until, until_true};

const NAME: &str = "northstar/confirmed";

fn recheck(member: &Member, line: &[&str]) -> Value {
    member.json(&[&["receipts", "--recheck"], line].concat())
}

fn alarm(member: &Member) -> bool {
    let status = member.json(&["status"]);
    status["notices"]
        .to_string()
        .contains("to recheck what was done")
}

#[test]
fn readers_are_asked_to_recheck_and_find_what_they_answered_then() {
    let world = World::new(&["northstar", "tidepool", "harbor"]);
    let north = world.member("northstar");
    let (tide, harbor) = (world.member("tidepool"), world.member("harbor"));
    tide.set("max_entries", "1000");
    world.start_all();
    north.create_set("confirmed", &["all"]);
    let said = entries("recheck", 0..20);
    north.import("confirmed", &said);
    for reader in [tide, harbor] {
        reader.wait_hits(&said, 20);
    }
    // A picture near the fourth one; what is unknown leaves nothing behind.
    let near = format!("PDQ:{}", said[3].pdq());
    tide.run(&["lookup", &near]).expect(&[0]);
    tide.run(&["lookup", &entries("unknown", 0..1)[0].spec()])
        .expect(&[3]);
    let line = ["retract", "--set", "confirmed", "--reference"];
    let why = ["--reason", "wrong", "--note", "a stock photo", "--yes"];
    let quiet = &said[5].reference;
    north.json(&[&line[..], &[quiet], &why].concat());
    tide.wait_hits(&said, 19);
    assert!(!alarm(tide), "nobody asked");
    let asked = [&line[..], &[&said[3].reference], &why, &["--recheck"]];
    north.json(&asked.concat());
    let leaf = format!("{NAME}#22");
    for reader in [tide, harbor] {
        reader.wait_hits(&said, 18);
        until_true("the alarm", || alarm(reader));
        let metrics = reader.http("/metrics").unwrap().1;
        assert!(metrics.contains("hashpact_rechecks_asked 1"), "{metrics}");
    }

    // The one that keeps a journal finds its answers, after a kill as well.
    until("the answers in the journal", || {
        let told = recheck(tide, &[&leaf]);
        (number(&told, "journal_entries") >= 21).then_some(told)
    });
    tide.kill();
    tide.start();
    let told = recheck(tide, &[&leaf]);
    assert_eq!(told["journal_on"], true);
    assert_eq!(list(&told, "asked").len(), 1);
    assert_eq!(told["asked"][0]["index"], 22);
    let rows = list(&told, "rechecked");
    let kinds: Vec<String> = rows.iter().map(|row| text(row, "kind")).collect();
    assert!(kinds.contains(&"PDQ".to_owned()) && kinds.contains(&"SHA256".to_owned()));
    for row in rows {
        assert_eq!(row["entry"], format!("{NAME}#4"));
        assert_eq!(row["verdict"], "review");
        assert_eq!(
            (&row["withdrawn_by"], &row["asked"]),
            (&json!(22), &json!(true))
        );
        assert_eq!(
            (&row["reason"], &row["note"]),
            (&json!("wrong"), &json!("a stock photo"))
        );
    }
    let by_value = recheck(tide, &["--signal", &near]);
    assert_eq!(list(&by_value, "rechecked").len(), 1);
    assert_eq!(by_value["rechecked"][0]["kind"], "PDQ");
    let both = recheck(tide, &[NAME]);
    assert!(
        list(&both, "rechecked").len() > rows.len(),
        "the quiet one, too"
    );
    let shown = tide.run(&["receipts", "--recheck", &leaf]).expect(&[0]);
    let fits = shown.stdout.lines().all(|line| line.chars().count() <= 80);
    assert!(fits && shown.stdout.contains("asks to recheck"), "{shown}");

    // One without a journal is asked all the same, and says that it has none.
    let nothing = recheck(harbor, &[]);
    assert_eq!(nothing["journal_on"], false);
    assert_eq!(list(&nothing, "rechecked").len(), 0);
    assert_eq!(list(&nothing, "asked").len(), 1);

    for reader in [tide, harbor] {
        let ended = recheck(reader, &["--ack"]);
        assert_eq!(ended["acknowledged"][0]["index"], 22);
        assert!(!alarm(reader));
    }
    let acts = tide
        .run(&["audit", "--act", "recheck", "--json"])
        .expect(&[0]);
    assert!(acts.stdout.contains("recheck.acknowledge"), "{acts}");
    // Turned off, it is empty with the next start.
    assert!(tide.stop().success());
    tide.set("max_entries", "0");
    tide.start();
    assert_eq!(number(&recheck(tide, &[]), "journal_entries"), 0);
    for member in world.members() {
        member.assert_sound();
    }
}

#[test]
fn a_reader_that_was_restarted_after_an_erasure_is_asked_all_the_same() {
    let world = World::new(&["northstar", "tidepool"]);
    let (north, tide) = (world.member("northstar"), world.member("tidepool"));
    world.start_all();
    north.create_set("confirmed", &["all"]);
    let said = entries("recheck", 0..20);
    north.import("confirmed", &said);
    tide.wait_hits(&said, 20);
    let why = ["--basis", "a court order", "--yes"];
    north.json(&[&["erase", "confirmed#8"], &why[..]].concat());
    tide.wait_hits(&said, 19);
    // What it holds without a payload makes it check a head before it applies it.
    assert!(tide.stop().success());
    tide.start();
    let why = ["--reason", "wrong", "--recheck", "--yes"];
    for (entry, left) in [("confirmed#9", 18), ("confirmed#10", 17)] {
        north.json(&[&["retract", entry], &why[..]].concat());
        tide.wait_hits(&said, left);
        until_true("the alarm", || alarm(tide));
        assert_eq!(list(&recheck(tide, &["--ack"]), "acknowledged").len(), 1);
    }
}
