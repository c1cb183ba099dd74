//! No signal value and no key stands in a log, a metric or an error text.
//!
//! Every world is searched when it ends. A value is found in hexadecimal of any
//! case, in base64, and as Rust prints bytes; a key as its seed, and as any line of
//! its PEM body. Only results that were asked for (look-up, export, hash) and the
//! rejects file may hold values; they are not searched.

use std::collections::HashMap;

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use sha2::{Digest as _, Sha256};

use crate::world::signals::entries;
use crate::world::{Call, Evidence, World};

/// So much of a value's text gives it away.
const WINDOW: usize = 16;

/// Fails when anything in the evidence gives a value or a key away.
pub(crate) fn assert_silent(evidence: &Evidence) {
    let found = findings(evidence);
    assert!(
        found.is_empty(),
        "secrets were written:\n{}",
        found.join("\n")
    );
}

/// Where which secret stands; the secret itself is not shown.
fn findings(evidence: &Evidence) -> Vec<String> {
    let needles = Needles::of(evidence);
    let mut found = Vec::new();
    for piece in evidence.pieces() {
        for line in piece.text.lines() {
            if let Some(what) = needles.find(line) {
                let shown: String = line.chars().take(60).collect();
                found.push(format!("{what} in {}: {shown}…", piece.from));
            }
        }
    }
    found.truncate(20);
    found
}

/// The first characters of every way to write every secret.
struct Needles {
    /// Compared without regard to case.
    hex: HashMap<String, &'static str>,
    exact: HashMap<String, &'static str>,
}

impl Needles {
    fn of(evidence: &Evidence) -> Self {
        let mut needles = Self {
            hex: HashMap::new(),
            exact: HashMap::new(),
        };
        for value in evidence.values() {
            needles.add(&value, "a signal");
        }
        for file in evidence.key_files() {
            needles.add_key(&file);
        }
        needles
    }

    fn add(&mut self, secret: &[u8], what: &'static str) {
        let window = |text: &str| text.chars().take(WINDOW).collect::<String>();
        self.hex.insert(window(&HEXLOWER.encode(secret)), what);
        self.exact.insert(window(&BASE64.encode(secret)), what);
        self.exact
            .insert(window(&BASE64URL_NOPAD.encode(secret)), what);
        let listed: Vec<String> = secret.iter().map(u8::to_string).collect();
        self.exact.insert(window(&listed.join(", ")), what);
    }

    fn add_key(&mut self, pem: &str) {
        let body: Vec<&str> = pem
            .lines()
            .filter(|line| !line.starts_with("-----") && !line.starts_with('#'))
            .collect();
        let der = BASE64.decode(body.concat().as_bytes()).unwrap();
        // An Ed25519 key's PKCS #8 ends with its seed. A line of the body that holds
        // no more than what all keys of a kind begin with gives nothing away.
        if der.len() == 48 {
            self.add(&der[16..], "a key's seed");
        } else {
            // P-256: the secret stands at 36, after the same bytes in every file.
            self.add(&der[36..68], "a key's secret");
        }
        let last: String = body.concat().chars().skip(48).take(WINDOW).collect();
        if last.len() == WINDOW {
            self.exact.insert(last, "a line of a key file");
        }
    }

    fn find(&self, line: &str) -> Option<&'static str> {
        if line.len() < WINDOW {
            return None;
        }
        let lower = line.to_ascii_lowercase();
        let windows = |text: &str, table: &HashMap<String, &'static str>| {
            (0..=text.len() - WINDOW).find_map(|at| {
                let window = text.get(at..at + WINDOW)?;
                table.get(window).copied()
            })
        };
        windows(&lower, &self.hex).or_else(|| windows(line, &self.exact))
    }
}

#[test]
fn the_search_finds_a_secret_however_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let value: Vec<u8> = (100..132).collect();
    let evidence = Evidence::default();
    evidence.guard_value(&value);
    let hex = HEXLOWER.encode(&value);
    std::fs::write(folder.path().join("a.key"), pem()).unwrap();
    evidence.keep_keys_of(folder.path());
    assert_silent(&evidence);
    let seed = vec![9_u8; 32];
    let spoken = [
        hex.clone(),
        hex.to_uppercase(),
        BASE64.encode(&value),
        format!("{value:?}"),
        HEXLOWER.encode(&seed),
        format!("{seed:?}"),
        pem().lines().nth(2).unwrap().to_owned(),
    ];
    for text in spoken {
        let evidence_now = Evidence::default();
        evidence_now.guard_value(&value);
        evidence_now.keep_keys_of(folder.path());
        evidence_now.keep("a log", &format!("said {text} here"));
        assert_eq!(findings(&evidence_now).len(), 1, "{text}");
    }
}

#[test]
fn no_audit_leaf_holds_a_value_a_key_or_a_passphrase() {
    let world = World::new(&["northstar"]);
    let north = world.member("northstar");
    world.start_all();
    north.create_set("confirmed", &[]);
    let given = entries("silent", 0..20);
    world.evidence().guard(&given);
    north.import("confirmed", &given);
    let (value, pdq) = (given[0].sha256(), given[1].pdq());
    north
        .run(&["lookup", &given[0].spec(), &given[2].spec()])
        .expect(&[0]);
    // Values where none belongs: in words that people write, and as names.
    let reason = format!("nobody holds {value}, nor {}", pdq.to_uppercase());
    north.json(&["set", "confirm-head", "confirmed", "--reason", &reason]);
    // What would go to all readers is refused, and done with a word for it.
    let basis = format!("order about {value}");
    let erase = ["erase", "--set", "confirmed", "#3", "--yes", "--basis"];
    north.run(&[&erase[..], &[&basis]].concat()).expect(&[1]);
    north.json(&[&erase[..], &["order 17"]].concat());
    let signal = given[5].spec();
    let retract = [
        "retract",
        "--set",
        "confirmed",
        "--reason",
        "wrong",
        "--yes",
        "--signal",
        &signal,
        "--note",
    ];
    north.run(&[&retract[..], &[&reason]].concat()).expect(&[1]);
    north.json(&[&retract[..], &["case 17"]].concat());
    // Names in the shape of a value; the error repeats what was typed to who typed it.
    let slip = "d41d8cd98f00b204e9800998ecf8427e";
    north.run(&["set", "grant", "confirmed", slip]).expect(&[1]);
    north
        .run(&["set", "create", slip, "--source", "own"])
        .expect(&[0]);
    north.run(&["preview", slip]).expect(&[1]);
    let passphrase = "correct horse battery staple";
    let file = north.folder().join("passphrase.txt");
    std::fs::write(&file, passphrase).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let [file, dir] = [&file, &world.path().join("others")].map(|p| p.display().to_string());
    let line = [
        "coalition",
        "init",
        "--name",
        "other.example",
        "--dir",
        &dir,
    ];
    north.json(&[&line[..], &["--passphrase-file", &file]].concat());
    north.stop();
    let record = north.run(&["audit", "--json"]).expect(&[0]).stdout;
    for act in [
        "set.confirm-head",
        "erase",
        "retract",
        "refused",
        "command.coalition.init",
    ] {
        assert!(record.contains(&format!("\"{act}\"")), "{act}: {record}");
    }
    assert!(record.contains("order about [taken out]"), "{record}");
    assert!(!record.contains(passphrase));
    // Whatever way a value is written; the searched output is that of the record, too.
    let evidence = Evidence::default();
    evidence.guard(&given);
    evidence.keep_keys_of(north.folder());
    evidence.keep("the audit feed", &record);
    assert_silent(&evidence);
    assert!(!record.contains(&slip[..16]), "{record}");
}

#[test]
fn the_demo_writes_no_secret_either() {
    const ENTRIES: u32 = 1_000;
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("demo");
    let evidence = Evidence::default();
    for number in 0..ENTRIES {
        for what in ["file", "picture"] {
            let made_up = format!("hashpact demo: {what} {number} of lumen");
            evidence.guard_value(&Sha256::digest(made_up));
        }
    }
    let [count, place] = [ENTRIES.to_string(), dir.display().to_string()];
    let line = ["demo", "--entries", &count, "--dir", &place, "--json"];
    let demo = Call::new(&evidence, folder.path()).run(&line).expect(&[0]);
    let figures = demo.objects().pop().unwrap();
    for figure in ["onboarding_ms", "suspension_everywhere_ms", "total_ms"] {
        assert!(figures[figure].is_u64(), "{figure}: {figures}");
    }
    // What each act came to, and that none was left out.
    assert!(figures["lookup_hits"].as_u64() > Some(0), "{figures}");
    assert_eq!(figures["lookup_hits"], figures["lookup_files"], "{figures}");
    assert_eq!(figures["lookup_unknown_hits"], 0, "{figures}");
    assert!(figures["retraction_everywhere_ms"].is_u64(), "{figures}");
    assert!(
        figures["picture_distance_bits"].as_u64() <= Some(31),
        "{figures}"
    );
    assert!(figures["crash_hit_the_middle"].is_boolean(), "{figures}");
    assert_eq!(figures["verify_clean"], true, "{figures}");
    assert_eq!(figures["tampered_code"], "wrong_root", "{figures}");
    assert!(figures["tampered_answers"].as_u64() > Some(0), "{figures}");
    assert_eq!(figures["tampered_stored"], 0, "{figures}");
    assert_eq!(figures["ended_well"], true, "{figures}");
    evidence.keep_keys_of(&dir);
    for member in ["northstar", "harbor", "lumen", "tidepool"] {
        let log = std::fs::read_to_string(dir.join(member).join("node.log")).unwrap();
        assert!(log.contains("the node runs"), "{member}");
        evidence.keep(format!("log of {member}"), &log);
    }
    assert_silent(&evidence);
}

fn pem() -> String {
    let mut der = HEXLOWER
        .decode(b"302e020100300506032b657004220420")
        .unwrap();
    der.extend([9_u8; 32]);
    let body = BASE64.encode(&der);
    format!("# hashpact feed key\n-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
}
