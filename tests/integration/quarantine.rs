//! What a reader's node holds back: its publisher is told which entries, and why, until
//! that is over; and whom to ask about a digest that two entries say.

use serde_json::{Value, json};

use crate::world::signals::entries;
use crate::world::{Member, World, list, text, until, until_true};

const NAME: &str = "northstar/confirmed";

fn reported(member: &Member) -> Value {
    member.json(&["quarantine", "reported", "--entries", "10"])
}

/// Set, member and reason of what is reported.
fn rows(told: &Value) -> Vec<[String; 3]> {
    let rows = list(told, "reported").iter();
    rows.map(|row| ["set", "member", "reason"].map(|key| text(row, key)))
        .collect()
}

fn alarm(member: &Member) -> bool {
    let status = member.json(&["status"]);
    status["notices"]
        .to_string()
        .contains("quarantine reported")
}

#[test]
fn a_publisher_is_told_what_a_reader_holds_back() {
    let world = World::new(&["northstar", "tidepool"]);
    let (north, tide) = (world.member("northstar"), world.member("tidepool"));
    world.start_all();
    north.create_set("confirmed", &["all"]);
    let said = entries("weak", 0..2);
    world.evidence().guard(&said);
    let empty = "md5:d41d8cd98f00b204e9800998ecf8427e";
    let zeros = format!("pdq:{}", "00".repeat(32));
    let content = format!("{empty}\n{zeros}\n{}\n", said[0].spec());
    let path = world.write("weak.txt", content).display().to_string();
    north
        .run(&["import", "--set", "confirmed", &path])
        .expect(&[0]);
    let expected = ["empty_input", "uniform_value"]
        .map(|reason| [NAME, "tidepool", reason].map(str::to_owned));
    let told = until("the publisher to hear of it", || {
        let told = reported(north);
        (rows(&told).len() == 2).then_some(told)
    });
    assert_eq!(rows(&told), expected);
    assert_eq!(told["reported"][0]["node"], "main");
    let entries_of = |told: &Value| {
        let of = list(told, "entries").iter();
        of.map(|entry| (entry["entry"].clone(), entry["by"][0]["reason"].clone()))
            .collect::<Vec<_>>()
    };
    let first = json!(format!("{NAME}#1"));
    let second = json!(format!("{NAME}#2"));
    assert_eq!(
        entries_of(&told),
        [
            (first, json!("empty_input")),
            (second.clone(), json!("uniform_value"))
        ]
    );
    assert!(alarm(north) && !alarm(tide));
    assert!(rows(&reported(tide)).is_empty());
    let metric = "hashpact_reported_quarantined{reason=\"empty_input\"} 1";
    assert!(north.http("/metrics").unwrap().1.contains(metric));
    let shown = north.run(&["quarantine", "reported", "--entries", "2"]);
    assert!(
        shown
            .expect(&[0])
            .stdout
            .contains("tidepool: uniform_value")
    );

    // One is released; the publisher hears of the other after a kill as well.
    let line = ["quarantine", "release", NAME, "--all", "--reason"];
    tide.run(&[&line[..], &["empty_input"]].concat())
        .expect(&[0]);
    north.kill();
    north.start();
    let told = until("it is told again", || {
        let told = reported(north);
        (!rows(&told).is_empty()).then_some(told)
    });
    assert_eq!(entries_of(&told), [(second, json!("uniform_value"))]);
    tide.run(&[&line[..], &["uniform_value"]].concat())
        .expect(&[0]);
    until_true("it is over", || {
        rows(&reported(north)).is_empty() && !alarm(north)
    });

    // Of a digest that two entries say the other one is named.
    let doubt = |n: usize| {
        format!(
            "id,md5,sha256\nd{n},{},{}\n",
            "5a".repeat(16),
            said[n].sha256()
        )
    };
    for n in [0, 1] {
        let path = world.write(&format!("doubt{n}.csv"), doubt(n));
        let path = path.display().to_string();
        north
            .run(&["import", "--set", "confirmed", &path])
            .expect(&[0]);
    }
    let waits = |line: &[&str]| {
        let line = [&["quarantine", "list", "--reason", "digest_conflict"], line].concat();
        until("the conflict", || {
            let listed = tide.json(&line);
            (!list(&listed, "lots").is_empty()).then_some(listed)
        })
    };
    let other = json!(format!("{NAME}#4"));
    assert_eq!(waits(&[])["lots"][0]["conflicts_with"], json!([other]));
    let listed = waits(&["--entries", "5"]);
    assert_eq!(listed["entries"][0]["entry"], format!("{NAME}#5"));
    assert_eq!(listed["entries"][0]["conflicts_with"], other);
    let shown = tide.run(&["quarantine", "list"]).expect(&[0]).stdout;
    assert!(
        shown.contains(&format!("in conflict with {NAME}#4")),
        "{shown}"
    );
    assert!(rows(&reported(north)).is_empty(), "⚠ nobody is told of it");

    // It is heard by a node that runs, and of its own sets.
    tide.run(&["quarantine", "reported", NAME]).expect(&[1]);
    north.stop();
    north.run(&["quarantine", "reported"]).expect(&[1]);
    tide.assert_sound();
}
