//! What was published can be proved to anybody, offline, by the genesis digest alone;
//! and who signs two histories is named by a file.

use std::fs;
use std::path::Path;
use std::process::Command;

use data_encoding::HEXLOWER;
use serde_json::Value;

use crate::world::signals::entries;
use crate::world::{Call, Evidence, World, number, text};

#[test]
fn an_entry_is_proved_by_a_reader_and_verified_without_a_node() {
    let world = World::new(&["northstar", "tidepool"]);
    let (publisher, reader) = (world.member("northstar"), world.member("tidepool"));
    world.start_all();
    publisher.create_set("confirmed", &["all"]);
    let said = entries("proved", 0..300);
    publisher.import("confirmed", &said);
    reader.wait_hits(&said, 300);
    let entry = text(&reader.lookup(&said[7..8])[0][0], "entry");
    let before = publisher.head("northstar/confirmed").0;

    // The reader proves what the publisher said; nobody is asked.
    let file = world.path().join("match.proof");
    let out = file.to_str().unwrap();
    let made = reader.json(&["prove", &entry, "--out", out]);
    assert_eq!(text(&made, "state"), "published");
    assert_eq!(text(&made["publisher"], "slug"), "northstar");
    let genesis = world.genesis();
    // Without a configuration.
    let verify = |file: &Path, genesis: &str, codes: &[i32]| {
        let file = file.to_str().unwrap();
        let line = ["proof", "verify", file, "--genesis", genesis];
        world.call().json_ending(codes, &line)
    };
    let shown = verify(&file, &genesis, &[0]);
    assert_eq!(text(&shown, "entry"), entry);
    assert_eq!(number(&shown["head"], "size"), before);
    assert_eq!(
        shown["said"]["signals"],
        Value::Null,
        "values are shown when asked for"
    );
    // From a pipe as well; what is not there is said with what to do.
    let piped = world.call().stdin(fs::read(&file).unwrap());
    let piped = piped.json(&["proof", "verify", "-", "--genesis", &genesis]);
    assert_eq!(piped, shown);
    for command in ["proof", "evidence"] {
        let line = [command, "verify", "-", "--genesis", &genesis];
        let refused = world.call().stdin("none").run(&line).expect(&[1]).stderr;
        assert!(refused.contains("standard input"), "{refused}");
        let line = [command, "verify", "gone.file", "--genesis", &genesis];
        let refused = world.call().run(&line).expect(&[1]).stderr;
        assert!(refused.contains("- for standard input"), "{refused}");
    }
    let (accepted, told) = python(&[&file, Path::new(&genesis)]);
    assert!(accepted, "{told}");
    let (accepted, told) = python(&[Path::new("--self-test"), &file, Path::new(&genesis)]);
    assert!(accepted, "{told}");

    // Withdrawn later: both moments are proved.
    publisher.json(&["retract", &entry, "--reason", "wrong", "--yes"]);
    reader.wait_hits(&said, 299);
    let after = world.path().join("after.proof");
    let made = reader.json(&["prove", &entry, "--out", after.to_str().unwrap()]);
    assert_eq!(text(&made, "state"), "retracted");
    assert_eq!(text(&made["named_by"][0], "reason"), "wrong");
    let earlier = world.path().join("earlier.proof");
    let size = before.to_string();
    let line = [
        "prove",
        &entry,
        "--as-of",
        &size,
        "--out",
        earlier.to_str().unwrap(),
    ];
    assert_eq!(text(&reader.json(&line), "state"), "published");
    let (accepted, told) = python(&[&after, Path::new(&genesis)]);
    assert!(
        accepted && told.contains(&format!("\"named_by\": [{before}]")),
        "{told}"
    );

    // No head is taken for one that is not here yet.
    for moment in ["99999", "2999-01-01T00:00:00Z"] {
        let line = ["prove", &entry, "--as-of", moment, "--out", "later.proof"];
        let refused = reader.run(&line).expect(&[1]).stderr;
        assert!(
            refused.contains("the newest head of northstar/confirmed here is"),
            "{refused}"
        );
    }
    for moment in ["northstar/confirmed=99999", "2999-01-01T00:00:00Z"] {
        let spec = said[0].spec();
        reader
            .run(&["lookup", "--as-of", moment, &spec])
            .expect(&[1]);
    }

    // Changed anywhere, or of another coalition, it proves nothing.
    let other = "0".repeat(64);
    let refused = verify(&after, &other, &[1]);
    assert_eq!(text(&refused, "code"), "wrong_genesis");
    let mut bytes = fs::read(&after).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    let damaged = world.path().join("damaged.proof");
    fs::write(&damaged, bytes).unwrap();
    let refused = verify(&damaged, &genesis, &[1]);
    assert_eq!(text(&refused, "code"), "malformed");
    assert!(!python(&[&damaged, Path::new(&genesis)]).0);
    // What is not there is said as such.
    let missing = ["prove", "northstar/confirmed#9999", "--out", "x.proof"];
    reader.run(&missing).expect(&[1]);
    let none = reader.json(&["evidence", "list"]);
    assert_eq!(none["evidence"], Value::Array(Vec::new()));
}

#[test]
fn what_the_rosters_in_a_file_say_of_its_keys_is_shown() {
    let vectors = fs::read(crate::checkout().join("tests/vectors/proof.json")).unwrap();
    let vectors: Value = serde_json::from_slice(&vectors).unwrap();
    let genesis = text(&vectors, "genesis");
    let (evidence, folder) = (Evidence::default(), tempfile::tempdir().unwrap());
    let mut revoked = 0;
    for (name, case) in vectors["files"].as_object().unwrap() {
        let file = HEXLOWER.decode(text(case, "file").as_bytes()).unwrap();
        let told = &case["shows"];
        let is_proof = told["kind"] == "proof";
        let command = if is_proof { "proof" } else { "evidence" };
        let line = [command, "verify", "-", "--genesis", &genesis];
        let call = || Call::new(&evidence, folder.path()).stdin(file.clone());
        let shown = call().json(&line);
        let of_head = if is_proof { &shown["head"] } else { &shown };
        for field in ["key_revoked_in", "epoch_closed_in"] {
            assert_eq!(of_head[field], told[field], "{name}: {field}");
        }
        let read = call().run(&line).expect(&[0]).stdout;
        let is_revoked = !told["key_revoked_in"].is_null();
        assert_eq!(read.contains("was revoked in roster"), is_revoked, "{read}");
        revoked += u32::from(is_revoked);
    }
    assert_eq!(revoked, 2, "a proof and a fork");
}

/// Runs `tests/verify_proof_file.py`: whether it accepts, and what it says.
fn python(arguments: &[&Path]) -> (bool, String) {
    let script = crate::checkout().join("tests/verify_proof_file.py");
    let output = Command::new("python3").arg(script).args(arguments).output();
    let output = output.expect("python3, which this test needs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn every_test_that_the_page_on_trust_names_exists() {
    let page = fs::read_to_string(crate::checkout().join("docs/TRUST.md")).unwrap();
    let protection = fs::read_to_string(crate::checkout().join("docs/DATA-PROTECTION.md")).unwrap();
    let mut sources = String::new();
    for folder in ["src", "tests/integration"] {
        read_all(&crate::checkout().join(folder), &mut sources);
    }
    let mut named = 0;
    for text in [&page, &protection] {
        // A name of a test is a sentence: several words in one code span.
        let spans = text.split('`').skip(1).step_by(2);
        for name in spans.filter(|span| span.matches('_').count() > 2) {
            named += 1;
            assert!(sources.contains(&format!("fn {name}(")), "{name}");
        }
    }
    assert!(named > 40, "{named}");
}

fn read_all(folder: &Path, sources: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}
