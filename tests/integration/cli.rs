//! What people see: the help of every command, what commands print, and how errors
//! read.
//!
//! After an intended change: `INSTA_UPDATE=always cargo test --release --test
//! integration cli`, and look at the difference.

use std::process::{Command, Stdio};

use crate::world::signals::entries;
use crate::world::{Call, Evidence, Member, World, binary, list, until_true};

/// Columns that help and tables keep to.
const WIDTH: usize = 80;

fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn the_help_of_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let evidence = Evidence::default();
    let mut todo = vec![Vec::new()];
    let mut seen = 0;
    while let Some(command) = todo.pop() {
        let mut line: Vec<&str> = command.iter().map(String::as_str).collect();
        line.push("--help");
        let help = Call::new(&evidence, folder.path()).run(&line).expect(&[0]);
        assert!(help.stderr.is_empty(), "{help}");
        let mut lines = help.stdout.lines();
        let long = lines.find(|line| line.chars().count() > WIDTH);
        assert_eq!(
            long,
            None,
            "wider than {WIDTH} columns: hashpact {}",
            command.join(" ")
        );
        for inner in commands_of(&help.stdout) {
            todo.push([command.clone(), vec![inner]].concat());
        }
        let name = if command.is_empty() {
            "help".to_owned()
        } else {
            format!("help-{}", command.join("-"))
        };
        snapshot(&name, &help.stdout);
        seen += 1;
    }
    assert!(seen >= 25, "{seen} commands");
}

/// The commands that a help text lists.
fn commands_of(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| {
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        (!name.is_empty() && name != "help").then(|| name.to_owned())
    });
    names.collect()
}

#[test]
fn what_commands_print() {
    let world = World::new(&["northstar", "tidepool"]);
    let member = world.member("northstar");
    world.start_all();
    until_true("the two to meet", || {
        list(&member.json(&["peers"]), "peers")[0]["state"] == "connected"
    });
    let show = Printer {
        world: &world,
        member,
    };
    show.prints(
        "set-create",
        &[
            "set",
            "create",
            "confirmed",
            "--source",
            "own",
            "--grant",
            "all",
        ],
    );
    member.create_set("reviewed", &["tidepool:relay"]);
    let some = entries("printed", 0..40);
    let file = member.csv("printed", &some);
    show.prints("import", &["import", "--set", "confirmed", &file]);
    world.evidence().guard(&some);
    let mixed = world.write(
        "mixed.txt",
        format!("{}\n\nnothing\n", entries("more", 0..1)[0].spec()),
    );
    let mixed = mixed.display().to_string();
    show.prints(
        "import-with-rejects",
        &["import", "--set", "reviewed", &mixed],
    );
    let unknown = entries("unknown", 0..1)[0].spec();
    show.prints("lookup", &["lookup", &some[0].spec(), &unknown]);
    show.prints("lookup-json", &["lookup", &some[0].spec(), "--json"]);
    show.prints("set-list", &["set", "list"]);
    show.prints("set-show", &["set", "show", "confirmed"]);
    show.prints("set-grant", &["set", "grant", "reviewed", "all"]);
    show.prints("set-revoke", &["set", "revoke", "reviewed", "all"]);
    let line = [
        "retract",
        "northstar/confirmed#3",
        "--reason",
        "wrong",
        "--yes",
    ];
    show.prints("retract", &line);
    show.prints(
        "export-jsonl",
        &["export", "--set", "reviewed", "--format", "jsonl"],
    );
    show.prints("feeds", &["feeds"]);
    show.prints("quarantine-list", &["quarantine", "list"]);
    show.prints(
        "quarantine-release",
        &["quarantine", "release", "confirmed", "#3"],
    );
    show.prints("feeds-json", &["feeds", "--json"]);
    show.prints("peers", &["peers"]);
    show.prints("status", &["status"]);
    show.prints("verify", &["verify"]);
    show.prints("roster-show", &["roster", "show"]);
    show.prints("config-check", &["config", "check"]);
    let no = [
        "opine",
        "northstar/confirmed#2",
        "negative",
        "--reason",
        "adult",
    ];
    show.prints("opine", &no);
    show.prints("opine-reasons", &["opine", "--reasons"]);
    show.prints("opinions", &["opinions"]);
    show.prints("lookup-disputed", &["lookup", &some[1].spec()]);
}

struct Printer<'a> {
    world: &'a World,
    member: &'a Member,
}

impl Printer<'_> {
    fn prints(&self, name: &str, line: &[&str]) {
        let outcome = self.member.run(line);
        let folder = self.world.path().display().to_string();
        let whole = format!(
            "exit code {}\n{}{}",
            outcome.code.unwrap(),
            outcome.stdout,
            if outcome.stderr.is_empty() {
                String::new()
            } else {
                format!("--- standard error\n{}", outcome.stderr)
            }
        );
        let whole = whole.replace(&folder, "/world");
        if !line.contains(&"--json") && line[0] != "export" {
            let long = whole.lines().find(|line| line.chars().count() > WIDTH + 60);
            assert_eq!(long, None, "hashpact {}", line.join(" "));
        }
        snapshot(&format!("prints-{name}"), &redacted(&whole));
    }
}

/// The text without what differs from run to run: long hexadecimal numbers, dates,
/// sizes, durations, ports.
fn redacted(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    let end = |word: &mut String, out: &mut String| {
        out.push_str(&redacted_word(word));
        word.clear();
    };
    for character in text.chars() {
        if character.is_ascii_alphanumeric() || ".:-_".contains(character) {
            word.push(character);
        } else {
            end(&mut word, &mut out);
            out.push(character);
        }
    }
    end(&mut word, &mut out);
    let mut lines: Vec<String> = out.lines().map(without_measures).collect();
    lines.push(String::new());
    lines.join("\n")
}

fn redacted_word(word: &str) -> String {
    let is_hex = |text: &str| text.len() >= 16 && text.chars().all(|c| c.is_ascii_hexdigit());
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    if let Some((kind, value)) = word.split_once(':') {
        if is_hex(value.trim_end_matches('.')) {
            return format!("{kind}:[hex]");
        }
        if kind == "127.0.0.1" && digits(value) {
            return "127.0.0.1:[port]".to_owned();
        }
    }
    if is_hex(word) {
        return "[hex]".to_owned();
    }
    let bytes = word.as_bytes();
    if bytes.len() >= 10 && bytes.starts_with(b"20") && bytes[4] == b'-' && bytes[7] == b'-' {
        return "[date]".to_owned();
    }
    let is_time = bytes.len() >= 8 && bytes[2] == b':' && bytes[5] == b':';
    if is_time && bytes[0].is_ascii_digit() {
        return "[time]".to_owned();
    }
    word.to_owned()
}

/// A line in which sizes and times, number and unit, are left out.
fn without_measures(line: &str) -> String {
    const UNITS: [&str; 8] = ["B", "KiB", "MiB", "GiB", "ms", "s", "min", "h"];
    let words: Vec<&str> = line.split(' ').collect();
    let is_number = |at: usize| words[at].parse::<f64>().is_ok();
    let is_unit = |at: usize| words.get(at).is_some_and(|word| UNITS.contains(word));
    let kept = (0..words.len()).filter_map(|at| {
        if is_number(at) && is_unit(at + 1) {
            return Some("[measure]");
        }
        let told = at > 0 && is_unit(at) && is_number(at - 1);
        (!told).then_some(words[at])
    });
    kept.collect::<Vec<&str>>().join(" ")
}

#[test]
fn a_reader_that_goes_away_ends_a_command_quietly() {
    let world = World::new(&["northstar"]);
    let member = world.member("northstar");
    member.create_set("confirmed", &[]);
    member.import("confirmed", &entries("piped", 0..3_000));
    let config = member.config().display().to_string();
    for line in [
        &["--help"][..],
        &["--config", &config, "export", "--set", "confirmed"],
        &["--config", &config, "set", "list"],
        &["--config", &config, "status", "--json"],
        &["--config", &config, "coalition", "status"],
    ] {
        let mut child = Command::new(binary())
            .args(line)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let quiet = said.lines().all(|line| line.starts_with("no node runs"));
        assert!(quiet, "hashpact {}: {said}", line.join(" "));
        assert_eq!(output.status.code(), Some(0), "hashpact {}", line.join(" "));
    }
}

#[test]
fn a_node_that_starts_waits_for_a_command_that_has_the_store() {
    let world = World::new(&["northstar"]);
    let member = world.member("northstar");
    let lock = member.folder().join("data/lock");
    let lock = std::fs::File::options().write(true).open(lock).unwrap();
    lock.try_lock().unwrap();
    let said = || std::fs::read_to_string(member.log_file()).unwrap_or_default();
    member.spawn();
    until_true("the node to wait", || {
        said().contains("another process has the store")
    });
    assert!(member.runs());
    lock.unlock().unwrap();
    member.wait_ready();
}

#[test]
fn every_error_says_what_to_do_next() {
    let world = World::new(&["northstar"]);
    let member = world.member("northstar");
    member.create_set("confirmed", &[]);
    let config = member.config().display().to_string();
    let nowhere = world.path().join("nowhere.toml").display().to_string();
    let broken = world
        .write("broken.toml", "[node]\nnmae = 1\n")
        .display()
        .to_string();
    let here = world.path().display().to_string();
    let errors: [&[&str]; 24] = [
        &["--config", &nowhere, "status"],
        &["--config", &broken, "status"],
        &["--config", &nowhere, "run"],
        &["no-such-command"],
        &["set", "create", "UPPER", "--source", "own"],
        &[
            "--config",
            &config,
            "set",
            "create",
            "confirmed",
            "--source",
            "own",
        ],
        &[
            "--config", &config, "set", "create", "other", "--source", "own", "--grant", "nobody",
        ],
        &[
            "--config",
            &config,
            "set",
            "create",
            "other",
            "--source",
            "own",
            "--may-share",
        ],
        &[
            "--config", &config, "set", "create", "other", "--source", "X", "--grant", "all",
        ],
        &["--config", &config, "set", "show", "absent"],
        &["--config", &config, "set", "grant", "absent", "all"],
        &["--config", &config, "set", "grant", "confirmed", "nobody"],
        &["--config", &config, "import", "--set", "absent", &config],
        &[
            "--config",
            &config,
            "import",
            "--set",
            "confirmed",
            &nowhere,
        ],
        &[
            "--config",
            &config,
            "retract",
            "tidepool/x#1",
            "--reason",
            "wrong",
        ],
        &[
            "--config", &config, "retract", "nonsense", "--reason", "wrong", "--yes",
        ],
        &[
            "--config",
            &config,
            "retract",
            "tidepool/x#1",
            "--reason",
            "wrong",
            "--yes",
        ],
        &["--config", &config, "lookup", "MD5:xyz"],
        &["--config", &config, "export", "--set", "absent"],
        &["--config", &config, "roster", "import", &nowhere],
        &["--config", &config, "roster", "import", &config],
        &["--config", &config, "feeds", "absent"],
        &["coalition", "add", "--dir", &here, "--yes", &config],
        &["coalition", "show", &nowhere],
    ];
    let mut without = Vec::new();
    for line in errors {
        let outcome = world.call().run(line);
        let code = outcome.code.unwrap();
        assert!(code == 1 || code == 2, "{outcome}");
        let said = &outcome.stderr;
        // A problem of the configuration has its remedy on the line below it.
        let remedy = said.contains(" problem") && said.contains("\n    ");
        let says_next = said.contains("next:") || said.contains("--help") || remedy;
        if !said.contains("error:") || !says_next || said.contains("panicked") {
            without.push(outcome.to_string());
        }
    }
    assert!(without.is_empty(), "{}", without.join("\n\n"));
}

#[test]
fn a_measurement_that_is_stopped_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("bench");
    let mut child = Command::new(binary())
        .args(["bench", "import", "--entries", "5000000", "--dir"])
        .arg(&dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until_true("the measurement to begin", || {
        std::fs::read_dir(&dir).is_ok_and(|mut found| found.next().is_some())
    });
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!dir.exists());
}
