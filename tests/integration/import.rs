//! Import of bad input: every line is accounted for, by the exit code, the counts
//! and the rejects file; what cannot be read to its end is not published.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::skipped::skipped;
use crate::world::signals::{Entry, csv, entries};
use crate::world::{Member, Outcome, PATIENCE, World, has_open, list, number, text};

const SET: &str = "imported";
/// What an import may take of memory, whatever its input: most of it is the store's.
const MEMORY_MAX_KIB: u64 = 300 * 1024;

/// One member with an empty set; no node runs.
fn world() -> World {
    let world = World::new(&["northstar"]);
    world.member("northstar").create_set(SET, &[]);
    world
}

/// Imports a file of this content and checks that every line is accounted for.
fn import(world: &World, name: &str, content: impl AsRef<[u8]>, code: i32) -> Value {
    let path = world.write(name, content);
    let member = world.member("northstar");
    let line = [
        "import",
        "--set",
        SET,
        &path.display().to_string(),
        "--json",
    ];
    let outcome = member.run(&line).expect(&[code]);
    accounted(&outcome, &rejects_of(&path))
}

fn rejects_of(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.rejects.csv", path.display()))
}

/// Every line is in one of the counts, every refused one in the rejects file.
fn accounted(outcome: &Outcome, rejects: &Path) -> Value {
    let summary = outcome.object();
    let file = list(&summary, "files")[0].clone();
    let count = |field: &str| number(&file, field);
    let refused = count("rejected_by_reader") + count("rejected_by_node");
    let skipped = count("header") + count("blank") + count("comments") + count("continued");
    let lines = count("records") + count("rejected_by_reader") + skipped;
    if file["format"] != "vics" {
        assert_eq!(count("lines"), lines, "{file}");
    }
    if file["published"] == true {
        let outcomes = count("added") + count("replaced") + count("unchanged");
        assert_eq!(
            outcomes + count("rejected_by_node"),
            count("records"),
            "{file}"
        );
    }
    assert_eq!(rejected_lines(rejects).len() as u64, refused, "{file}");
    file
}

/// Line and reason code of every row of a rejects file.
fn rejected_lines(path: &Path) -> Vec<(u64, String)> {
    let Ok(rejects) = fs::read_to_string(path) else {
        return Vec::new();
    };
    let mut rows = rejects.lines();
    assert_eq!(rows.next(), Some("line,reason,original"));
    let row = |row: &str| {
        let (line, rest) = row.split_once(',').unwrap();
        let code = rest.trim_start_matches('"').split(':').next().unwrap();
        (line.parse().unwrap(), code.to_owned())
    };
    rows.map(row).collect()
}

fn codes(world: &World, name: &str) -> Vec<(u64, String)> {
    rejected_lines(&rejects_of(&world.path().join(name)))
}

fn expected(rows: &[(u64, &str)]) -> Vec<(u64, String)> {
    let owned = rows.iter().map(|(line, code)| (*line, (*code).to_owned()));
    owned.collect()
}

#[test]
fn an_empty_file_is_no_error_and_publishes_nothing() {
    let world = world();
    let before = world.member("northstar").head(SET);
    for (name, content) in [
        ("empty.csv", ""),
        ("bom.txt", "\u{feff}"),
        ("blank.txt", "\n\n"),
    ] {
        let file = import(&world, name, content, 0);
        assert_eq!(number(&file, "records"), 0, "{name}");
    }
    assert_eq!(world.member("northstar").head(SET), before);
}

#[test]
fn a_bom_and_windows_line_ends_are_not_part_of_the_data() {
    let world = world();
    let some = entries("windows", 0..20);
    world.evidence().guard(&some);
    let windows = format!("\u{feff}{}", csv(&some).replace('\n', "\r\n"));
    let file = import(&world, "windows.csv", windows, 0);
    assert_eq!(
        (number(&file, "added"), number(&file, "header")),
        (20, 1),
        "{file}"
    );
    let member = world.member("northstar");
    assert_eq!(member.hits(&some), 20);
    // The same without them is the same.
    let file = import(&world, "unix.csv", csv(&some), 0);
    assert_eq!(
        (number(&file, "added"), number(&file, "unchanged")),
        (0, 20),
        "{file}"
    );
}

#[test]
fn every_bad_line_is_written_down_with_its_reason_and_the_good_ones_go_on() {
    let world = world();
    let good = entries("good", 0..3);
    world.evidence().guard(&good);
    let sha256 = |at: usize| good[at].sha256();
    let bad = "00112233445566778899aabbccddee";
    let lines = [
        "kind,value,id".to_owned(),
        format!("SHA256,{},a", sha256(0)),
        format!("MD5,{bad},too-short"),
        "MD5,zz112233445566778899aabbccddeeff,not-hex".to_owned(),
        "CRC32,00112233,unknown-kind".to_owned(),
        String::new(),
        format!("SHA256,{},b", sha256(1).to_uppercase()),
        format!("SHA256,{},b", sha256(1)),
        format!("SHA256,{}", sha256(2)),
        format!("SHA256,{},c,d", sha256(2)),
        "SHA256,,nothing".to_owned(),
    ];
    let file = import(&world, "mixed.csv", lines.join("\n") + "\n", 3);
    assert_eq!(
        (number(&file, "added"), number(&file, "unchanged")),
        (2, 1),
        "{file}"
    );
    let rows = expected(&[
        (3, "bad_signal"),
        (4, "bad_signal"),
        (5, "unknown_kind"),
        (9, "cell_count"),
        (10, "cell_count"),
        (11, "half_signal"),
    ]);
    assert_eq!(codes(&world, "mixed.csv"), rows);
    let member = world.member("northstar");
    assert_eq!(member.hits(&good), 2);
    // What was mended comes in by itself.
    let mended = format!("kind,value,id\nSHA256,{},c\n", sha256(2));
    let file = import(&world, "mended.csv", mended, 0);
    assert_eq!(number(&file, "added"), 1);
    assert_eq!(member.hits(&good), 3);
}

#[test]
fn duplicate_lines_are_one_entry_and_a_changed_one_replaces() {
    let world = world();
    let some = entries("twice", 0..10);
    world.evidence().guard(&some);
    let twice: Vec<Entry> = some.iter().chain(&some).cloned().collect();
    let file = import(&world, "twice.csv", csv(&twice), 0);
    assert_eq!(
        (number(&file, "added"), number(&file, "unchanged")),
        (10, 10),
        "{file}"
    );
    let changed = [some[3].classified("A2"), some[4].classified("A2")];
    let file = import(&world, "changed.csv", csv(&changed), 0);
    assert_eq!(number(&file, "replaced"), 2, "{file}");
    let found = &world.member("northstar").lookup(&some[3..4])[0];
    assert_eq!(
        (found.len(), &found[0]["classification"]),
        (1, &Value::from("tc:A2"))
    );
}

#[test]
fn json_that_is_cut_off_is_refused_where_it_is_cut() {
    let world = world();
    let some = entries("json", 0..3);
    world.evidence().guard(&some);
    let line = |entry: &Entry| {
        format!(
            "{{\"id\":\"{}\",\"sha256\":\"{}\"}}\n",
            entry.reference,
            entry.sha256()
        )
    };
    let whole: String = some.iter().map(line).collect();
    let cut = &whole[..whole.len() - 20];
    let file = import(&world, "cut.jsonl", cut, 3);
    assert_eq!(
        (number(&file, "added"), number(&file, "rejected_by_reader")),
        (2, 1),
        "{file}"
    );
    assert_eq!(codes(&world, "cut.jsonl").len(), 1);
    let media = |at: usize| {
        let md5 = &some[at].sha256()[..32];
        format!("{{\"MediaID\":{at},\"Category\":1,\"MD5\":\"{md5}\",\"MediaFiles\":[]}}")
    };
    let context =
        "http://github.com/VICSDATAMODEL/ProjectVic/DataModels/2.0.xml/US/$metadata#Media";
    let vics = format!(
        "{{\"@odata.context\":\"{context}\",\"value\":[{},{},{}",
        media(0),
        media(1),
        &media(2)[..30]
    );
    let file = import(&world, "cut.json", vics, 3);
    assert_eq!(
        (
            number(&file, "records"),
            number(&file, "rejected_by_reader")
        ),
        (2, 1),
        "{file}"
    );
    assert_eq!(codes(&world, "cut.json")[0].1, "truncated");
}

#[test]
fn a_file_that_is_no_list_at_all_publishes_nothing() {
    let world = world();
    let member = world.member("northstar");
    let before = member.head(SET);
    for (name, content) in [
        ("a.csv", &b"name,size\nx,1\n"[..]),
        ("utf16.csv", b"\xff\xfem\0d\x005\0\n\0"),
        ("md5twice.csv", b"id,id\n1,2\n"),
    ] {
        let path = world.write(name, content);
        let outcome = member.run(&["import", "--set", SET, &path.display().to_string()]);
        assert_eq!(outcome.code, Some(1), "{name}: {outcome}");
    }
    let missing = member.run(&["import", "--set", SET, "/nonexistent/x.csv"]);
    assert_eq!(missing.code, Some(1), "{missing}");
    assert_eq!(member.head(SET), before);
}

#[test]
fn a_line_of_a_gigabyte_is_one_reject_in_bounded_memory() {
    const LINE_BYTES: usize = 1 << 30;
    /// A gigabyte through a pipe, on a busy machine.
    const LONG: Duration = Duration::from_secs(600);
    let world = world();
    let member = world.member("northstar");
    let some = entries("around", 0..2);
    world.evidence().guard(&some);
    let rejects = world.path().join("long.rejects.csv");
    let rejects_name = rejects.display().to_string();
    let line = [
        "import",
        "--set",
        SET,
        "-",
        "--format",
        "list",
        "--rejects",
        &rejects_name,
        "--json",
    ];
    let mut call = member.call().begin_piped(&line);
    let mut pipe = call.child().stdin.take().unwrap();
    let [first, last] = [0, 1].map(|at| some[at].spec() + "\n");
    let writer = thread::spawn(move || {
        let block = vec![b'a'; 1 << 20];
        pipe.write_all(first.as_bytes())?;
        for _ in 0..LINE_BYTES / block.len() {
            pipe.write_all(&block)?;
        }
        pipe.write_all(format!("\n{last}").as_bytes())
    });
    let pid = call.child().id();
    let mut most_kib = 0;
    let began = Instant::now();
    while !call.has_ended() {
        most_kib = most_kib.max(memory_kib(pid));
        assert!(began.elapsed() < LONG, "the import does not end");
        thread::sleep(Duration::from_millis(25));
    }
    writer.join().unwrap().unwrap();
    let outcome = call.wait().expect(&[3]);
    let file = accounted(&outcome, &rejects);
    assert_eq!(
        (number(&file, "lines"), number(&file, "added")),
        (3, 2),
        "{file}"
    );
    assert_eq!(rejected_lines(&rejects), expected(&[(2, "line_too_long")]));
    assert!(fs::metadata(&rejects).unwrap().len() < 10_000);
    assert!(most_kib > 0 && most_kib < MEMORY_MAX_KIB, "{most_kib} KiB");
    assert_eq!(member.hits(&some), 2);
}

/// The most memory that a process has had, while it lives.
fn memory_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.map_or(0, |number| number.parse().unwrap())
}

#[test]
fn a_file_that_changes_while_it_is_read_is_not_published() {
    const ENTRIES: usize = 120_000;
    let world = world();
    let member = world.member("northstar");
    let before = member.head(SET);
    let many = entries("changing", 0..ENTRIES);
    world.evidence().guard(&many[..100]);
    let path = world.write("changing.csv", csv(&many));
    let name = path.display().to_string();
    let line = ["import", "--set", SET, &name, "--json"];
    let mut call = member.call().begin(&line);
    let pid = call.child().id();
    // It stands still while the file changes.
    let began = Instant::now();
    while !has_open(pid, &path) {
        assert!(!call.has_ended() && began.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(1));
    }
    let process = Pid::from_child(call.child());
    kill_process(process, Signal::STOP).unwrap();
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    writeln!(
        file,
        "{}",
        csv(&entries("late", 0..1)).lines().nth(1).unwrap()
    )
    .unwrap();
    drop(file);
    kill_process(process, Signal::CONT).unwrap();
    let outcome = call.wait().expect(&[1]);
    let summary = outcome.object();
    let read = &list(&summary, "files")[0];
    assert_eq!(read["published"], false, "{read}");
    assert!(text(read, "error").contains("changed"), "{read}");
    assert_eq!(member.head(SET), before, "nothing of it was signed");
    assert_eq!(member.hits(&many[..10]), 0);
    let file = accounted(&member.run(&line).expect(&[0]), &rejects_of(&path));
    assert_eq!(number(&file, "added"), ENTRIES as u64 + 1);
}

#[test]
fn a_full_disk_loses_nothing_acknowledged_and_the_import_goes_on_when_there_is_room() {
    let world = World::founded(&["northstar"]);
    let member = world.member("northstar");
    let Some(disk) = SmallDisk::mount(&member.folder().join("data"), "size=48m") else {
        skipped("a full disk: no tmpfs can be mounted here (not root)");
        return;
    };
    // What the reserve is there to prevent.
    member.set("free_min_bytes", "0");
    member.import_roster(&world.roster_file());
    member.create_set(SET, &[]);
    let first = entries("before", 0..200);
    member.import(SET, &first);
    let acknowledged = member.head(SET);
    let many = entries("many", 0..300_000);
    world.evidence().guard(&many[..100]);
    let path = world.write("many.csv", csv(&many));
    let line = ["import", "--set", SET, &path.display().to_string()];
    let full = member.run(&line);
    assert_eq!(full.code, Some(1), "{full}");
    assert!(full.stderr.contains("next:"), "{full}");
    disk.remount("size=1g");
    assert_eq!(member.head(SET), acknowledged, "what was signed stands");
    assert_eq!(member.hits(&first), 200);
    member.run(&line).expect(&[0]);
    assert_eq!(member.hits(&many[..100]), 100);
    member.assert_sound();
    member.kill();
    disk.unmount();
}

#[test]
fn an_import_is_refused_before_the_disk_is_full_and_a_retraction_is_not() {
    let world = world();
    let member = world.member("northstar");
    let first = entries("before", 0..20);
    member.import(SET, &first);
    // More than there is of any disk here.
    member.set("free_min_bytes", "1000000000000000");
    let more = entries("more", 0..20);
    let path = world.write("more.csv", csv(&more));
    let line = ["import", "--set", SET, &path.display().to_string()];
    let refused = member.run(&line);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("store.free_min_bytes"), "{refused}");
    assert!(refused.stderr.contains("next: make room"), "{refused}");
    let status = member.json(&["status"]);
    let notices = list(&status, "notices");
    let said = |notice: &Value| notice.as_str().unwrap().contains("disk_low");
    assert!(notices.iter().any(said), "{status}");
    let name = format!("northstar/{SET}#1");
    let retract = ["retract", &name, "--reason", "wrong", "--yes"];
    member.run(&retract).expect(&[0]);
    assert_eq!(member.hits(&first), 19);
    member.set("free_min_bytes", "0");
    member.run(&line).expect(&[0]);
    assert_eq!(member.hits(&more), 20);
    member.assert_sound();
}

#[test]
fn files_that_may_not_grow_lose_nothing_acknowledged() {
    // RLIMIT_FSIZE needs no root: every file ends at so many KiB.
    const LIMITED: &str = "trap '' XFSZ; ulimit -f 12000; exec \"$@\"";
    let world = world();
    let member = world.member("northstar");
    let first = entries("before", 0..200);
    member.import(SET, &first);
    let acknowledged = member.head(SET);
    let many = entries("many", 0..150_000);
    world.evidence().guard(&many[..100]);
    let path = world.write("many.csv", csv(&many));
    let line = ["import", "--set", SET, &path.display().to_string()];
    let through = ["-c", LIMITED, "bash"];
    let call = member
        .call()
        .begin_through("bash", &through, &line, Stdio::null());
    let full = call.wait();
    assert_eq!(full.code, Some(1), "{full}");
    assert!(full.stderr.contains("next:"), "{full}");
    assert_eq!(member.head(SET), acknowledged, "what was signed stands");
    assert_eq!(member.hits(&first), 200);
    member.run(&line).expect(&[0]);
    assert_eq!(member.hits(&many[..100]), 100);
    member.assert_sound();
}

/// A file system of a few MiB; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, options: &str) -> Option<Self> {
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("{options},mode=0700"),
                "hashpact-test",
            ])
            .arg(at)
            .stderr(Stdio::null())
            .status();
        let done = mounted.is_ok_and(|status| status.success() && status.signal().is_none());
        done.then(|| Self(at.to_owned()))
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount")
            .args(["-o", &options])
            .arg(&self.0)
            .status();
        assert!(status.unwrap().success());
    }

    fn unmount(self) {
        drop(self);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process of a failed test may still have it open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_dry_run_counts_the_same_and_publishes_nothing() {
    let world = world();
    let member: &Member = world.member("northstar");
    let before = member.head(SET);
    let some = entries("dry", 0..30);
    world.evidence().guard(&some);
    let path = world.write("dry.csv", csv(&some) + "x,y\n");
    let line = [
        "import",
        "--set",
        SET,
        &path.display().to_string(),
        "--dry-run",
        "--json",
    ];
    let outcome = member.run(&line).expect(&[3]);
    let file = accounted(&outcome, &rejects_of(&path));
    assert_eq!(
        (number(&file, "records"), &file["published"]),
        (30, &Value::from(false))
    );
    assert_eq!(member.head(SET), before);
}

#[test]
fn values_that_identify_nothing_are_published_held_back_and_shown() {
    let world = world();
    let empty = "md5:d41d8cd98f00b204e9800998ecf8427e";
    let zeros = format!("pdq:{}", "00".repeat(32));
    let good = entries("good", 0..1)[0].spec();
    let content = format!("{empty}\n{zeros}\n{good}\n");
    let path = world.write("degenerate.txt", content).display().to_string();
    let member = world.member("northstar");
    let summary = member.run(&["import", "--set", SET, &path, "--json"]);
    let summary = summary.expect(&[0]).object();
    assert_eq!(number(&summary, "added"), 3, "{summary}");
    assert_eq!(number(&summary, "quarantined"), 2, "{summary}");
    let listed = member.run(&["quarantine", "list", "--entries", "10", "--json"]);
    let listed = listed.expect(&[0]).object();
    let reasons: Vec<String> = list(&listed, "lots")
        .iter()
        .map(|lot| text(lot, "reason"))
        .collect();
    assert_eq!(reasons, ["empty_input", "uniform_value"]);
    assert_eq!(list(&listed, "entries").len(), 2);
    member.run(&["lookup", empty]).expect(&[3]);
    let release = [
        "quarantine",
        "release",
        SET,
        "--all",
        "--reason",
        "empty_input",
    ];
    member.run(&release).expect(&[0]);
    member.run(&["lookup", empty]).expect(&[0]);
    member.run(&["lookup", &zeros]).expect(&[3]);
    member.run(&["verify"]).expect(&[0]);
}
