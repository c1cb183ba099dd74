//! Files, pictures, videos and links are found at another member by what they hash to,
//! one by one and folder by folder; and a scan that was stopped goes on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::world::{Member, World, binary, list, number, text, until, until_true};

fn picture(name: &str) -> String {
    let path = crate::checkout().join("tests/data/images").join(name);
    path.display().to_string()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Two members whose nodes run, and a set of the first that the second reads.
fn two() -> World {
    let world = World::new(&["northstar", "tidepool"]);
    world.start_all();
    let publisher = world.member("northstar");
    publisher.create_set("confirmed", &["all"]);
    world
}

/// Imports lines of a list and waits until the reader answers for all of the set.
fn publish(world: &World, format: &str, lines: &str) {
    let publisher = world.member("northstar");
    let file = shown(&world.write("input.txt", lines));
    publisher.json(&["import", "--set", "confirmed", "--format", format, &file]);
    fs::remove_file(file).unwrap();
    let (size, _) = publisher.head("northstar/confirmed");
    let reader = world.member("tidepool");
    reader.wait_indexed("northstar/confirmed", size);
}

/// The PDQ of a picture, as a line of a list.
fn pdq_of(member: &Member, name: &str) -> String {
    let hashed = member.json(&["hash", &picture(name)]);
    let file = &list(&hashed, "files")[0];
    assert!(number(file, "pdq_quality") >= 50);
    format!("PDQ:{}\n", text(file, "pdq"))
}

#[test]
fn a_picture_that_was_resized_and_encoded_anew_is_known_at_another_member() {
    let world = two();
    let pdq = pdq_of(world.member("northstar"), "shapes.png");
    publish(&world, "list", &pdq);
    let reader = world.member("tidepool");
    until_true("near matches to be loaded", || {
        let line = ["lookup", "--hash-of", &picture("shapes-half.jpg"), "--json"];
        reader.run(&line).objects()[0]["known"] == true
    });
    let known = reader.json(&["lookup", "--hash-of", &picture("shapes-half.jpg")]);
    let found = &list(&known, "matches")[0];
    assert_eq!(text(found, "entry"), "northstar/confirmed#1");
    assert!((1..=31).contains(&number(found, "distance")), "{found}");
    let none = reader.call();
    none.json_ending(&[3], &["lookup", "--hash-of", &picture("noise.png")]);
}

#[test]
fn a_picture_that_was_turned_is_known_where_all_turns_are_asked_for() {
    let world = two();
    let reader = world.member("tidepool");
    let noise = picture("noise.png");
    let hashed = reader.json(&["hash", "--dihedral", &noise]);
    let turns = list(&list(&hashed, "files")[0], "turns");
    assert_eq!(turns.len(), 8);
    let turned = turns.iter().find(|turn| turn["turn"] == "rotate180");
    publish(
        &world,
        "list",
        &format!("PDQ:{}\n", text(turned.unwrap(), "pdq")),
    );
    let line = ["lookup", "--hash-of", &noise];
    reader.call().json_ending(&[3], &line);
    let known = reader.json(&[&line[..], &["--dihedral"]].concat());
    assert_eq!(text(&list(&known, "matches")[0], "aspect"), "rotate180");
}

#[test]
fn links_are_known_by_their_digests_and_are_written_nowhere() {
    let world = two();
    let publisher = world.member("northstar");
    let links = "# a list\nhttps://zorgblat-host.example/folder/\n\
        http://other-zorgblat.example/page?x=1\nno link at all\nhttps://bad zorgblat.example/\n";
    let input = world.write("links", links);
    let line = ["import", "--set", "confirmed", &shown(&input), "--json"];
    // A list with lines that are no links is not guessed to be one.
    let guessed = publisher.run(&line).expect(&[3]).object();
    assert_eq!(text(&list(&guessed, "files")[0], "format"), "list");
    assert_eq!(number(&guessed, "added"), 0);
    let line = [&line[..], &["--format", "urls"]].concat();
    let done = publisher.run(&line).expect(&[3]).object();
    assert_eq!((number(&done, "added"), number(&done, "rejected")), (2, 2));
    let rejects = PathBuf::from(text(&list(&done, "files")[0], "rejects_file"));
    let written = fs::read_to_string(&rejects).unwrap();
    assert!(!written.contains("zorgblat"), "{written}");
    let asked = [&line[..], &["--rejects-with-links"]].concat();
    publisher.run(&asked).expect(&[3]);
    let written = fs::read_to_string(&rejects).unwrap();
    assert!(
        written.contains("https://bad zorgblat.example/"),
        "{written}"
    );
    fs::remove_file(rejects).unwrap();
    fs::remove_file(input).unwrap();
    let (size, _) = publisher.head("northstar/confirmed");
    let reader = world.member("tidepool");
    reader.wait_indexed("northstar/confirmed", size);
    let inside = "https://www.zorgblat-host.example/folder/page.html?x=2";
    let call = reader
        .call()
        .stdin(format!("{inside}\nhttps://else.example/\n"));
    let answers = call.run(&["lookup", "--url", "-", "--json"]).expect(&[0]);
    let answers = answers.objects();
    assert_eq!(text(&answers[0], "item"), "link 1");
    let found = &list(&answers[0], "matches")[0];
    assert_eq!(text(found, "aspect"), "parent domain, folder");
    assert_eq!(answers[1]["known"], false);
    for member in world.members() {
        member.stop();
    }
    let mut seen = 0;
    for entry in files_below(world.path()) {
        let content = fs::read(&entry).unwrap();
        let has = content.windows(8).any(|window| window == b"zorgblat");
        assert!(!has, "{}", entry.display());
        seen += 1;
    }
    assert!(seen > 20, "{seen} files");
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.is_file() {
            files.push(path);
        }
    }
    files
}

/// The lines of a scan: by item, and the summary.
fn lines(objects: Vec<Value>) -> (BTreeMap<String, Value>, Value) {
    let mut items = BTreeMap::new();
    let mut summary = Value::Null;
    for object in objects {
        match object.get("summary") {
            Some(sums) => summary = sums.clone(),
            None => {
                let name = text(&object, "item");
                let name = name.rsplit('/').next().unwrap().to_owned();
                items.insert(name, object);
            }
        }
    }
    (items, summary)
}

/// Every file is in one of the counts.
fn assert_balanced(summary: &Value) {
    let unread = summary["unread"].as_object().unwrap().values();
    let unread: u64 = unread.map(|count| count.as_u64().unwrap()).sum();
    let earlier = number(&summary["earlier"], "files");
    assert_eq!(
        number(summary, "files"),
        number(summary, "asked") + unread + earlier,
        "{summary}"
    );
}

#[test]
fn a_scan_finds_what_is_known_and_accounts_for_everything_else() {
    let world = two();
    let reader = world.member("tidepool");
    let pdq = pdq_of(reader, "shapes.png");
    publish(
        &world,
        "list",
        &format!("{pdq}MD5:900150983cd24fb0d6963f7d28e17f72\n"),
    );
    let folder = world.path().join("to scan");
    let inner = folder.join("inner");
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("known.bin"), "abc").unwrap();
    fs::write(folder.join("unknown.txt"), "def").unwrap();
    fs::write(folder.join("empty.jpg"), "").unwrap();
    fs::copy(picture("shapes-420.jpg"), folder.join("near.jpg")).unwrap();
    let whole = fs::read(picture("noise.png")).unwrap();
    fs::write(folder.join("cut.png"), &whole[..whole.len() / 2]).unwrap();
    symlink(inner.join("known.bin"), folder.join("link")).unwrap();
    symlink(&folder, inner.join("loop")).unwrap();
    let pipe = folder.join("pipe");
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let folder = shown(&folder);
    let missing = shown(&world.path().join("missing"));
    let (items, sums) = lines(
        reader
            .run(&["scan", &folder, &missing, "--all", "--json"])
            .expect(&[10])
            .objects(),
    );
    assert_balanced(&sums);
    assert_eq!((number(&sums, "files"), number(&sums, "folders")), (6, 2));
    assert_eq!((number(&sums, "asked"), number(&sums, "known")), (5, 2));
    assert_eq!(
        (
            number(&sums, "symbolic_links"),
            number(&sums, "special_files")
        ),
        (2, 1)
    );
    assert_eq!(sums["unread"]["not_found"], 1);
    assert_eq!(number(&sums["not_seen"], "image_truncated"), 1, "{sums}");
    assert_eq!(items["known.bin"]["known"], true);
    assert_eq!(items["unknown.txt"]["known"], false);
    assert_eq!(
        text(&items["cut.png"]["not_seen"], "code"),
        "image_truncated"
    );
    assert!(number(&list(&items["near.jpg"], "matches")[0], "distance") <= 31);
    assert_eq!(text(&items["missing"]["unread"], "code"), "not_found");
    // Links are followed where that is asked for, and a loop of them ends.
    let followed = reader
        .run(&["scan", &folder, "--follow-links", "--json"])
        .expect(&[10]);
    let (_, sums) = lines(followed.objects());
    assert_balanced(&sums);
    assert_eq!(
        (number(&sums, "known"), number(&sums["unread"], "loop")),
        (3, 1)
    );
    // Nothing known, everything read; nothing known, not everything read.
    let unknown = format!("{folder}/unknown.txt");
    reader.run(&["scan", &unknown, "--json"]).expect(&[0]);
    reader
        .run(&["scan", &unknown, &missing, "--json"])
        .expect(&[3]);
    // Nobody reads on: what was known by then is said all the same.
    for (line, code) in [
        (vec![folder.as_str()], 10),
        (vec![unknown.as_str(), "--all"], 1),
    ] {
        let mut child = Command::new(binary())
            .args(["--config", &shown(&reader.config()), "scan"])
            .args(&line)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(code), "{line:?}");
    }
    // A file or a pipe gets whole names.
    let inner = format!("{folder}/inner/known.bin");
    let printed = reader
        .run(&["scan", &inner, &unknown, &inner, "--all"])
        .expect(&[10]);
    let mut named: Vec<&str> = printed
        .stdout
        .lines()
        .filter_map(|line| line.split_once("  ").map(|(name, _)| name.trim_end()))
        .filter(|name| name.starts_with('/'))
        .collect();
    named.sort_unstable();
    assert_eq!(named, [&inner, &inner, &unknown]);
    // Hashes in place of files.
    let hashes = "SHA256:00\nMD5:900150983cd24fb0d6963f7d28e17f72\n";
    let call = reader.call().stdin(hashes);
    let (_, sums) = lines(call.run(&["scan", "-", "--json"]).expect(&[10]).objects());
    assert_eq!(
        (number(&sums, "known"), number(&sums["unread"], "bad_line")),
        (1, 1)
    );
}

/// A program in ffmpeg's place that waits until a file is there, and then finds nothing.
fn waiting_ffmpeg(world: &World) -> (String, PathBuf) {
    let go = world.path().join("go");
    let script = format!(
        "#!/bin/sh\nwhile [ ! -e {} ]; do sleep 0.05; done\n",
        go.display()
    );
    let program = world.write("fake-ffmpeg", script);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (shown(&program), go)
}

#[test]
fn a_scan_that_was_killed_goes_on_where_it_was() {
    let world = two();
    publish(&world, "list", "MD5:900150983cd24fb0d6963f7d28e17f72\n");
    let reader = world.member("tidepool");
    let folder = world.path().join("many");
    fs::create_dir_all(&folder).unwrap();
    for number in 0..400 {
        fs::write(
            folder.join(format!("{number}.txt")),
            format!("file {number}"),
        )
        .unwrap();
    }
    fs::write(folder.join("known.bin"), "abc").unwrap();
    fs::write(folder.join("video.mp4"), b"\0\0\0\x18ftypmp42").unwrap();
    let state = world.path().join("state");
    let (ffmpeg, go) = waiting_ffmpeg(&world);
    let (folder_shown, state_shown) = (shown(&folder), shown(&state));
    let line = [
        "scan",
        &folder_shown,
        "--state",
        &state_shown,
        "--ffmpeg",
        &ffmpeg,
        "--threads",
        "2",
        "--json",
    ];
    let mut first = reader.call().begin(&line);
    let header = 48;
    until("everything but the video to be noted", || {
        let length = fs::metadata(&state).ok()?.len();
        (length == header + 401 * 17).then_some(())
    });
    first.kill();
    drop(first.wait());
    fs::write(folder.join("1.txt"), "changed since then").unwrap();
    fs::write(go, "").unwrap();
    let (items, sums) = lines(reader.run(&line).expect(&[10]).objects());
    assert_balanced(&sums);
    let earlier = &sums["earlier"];
    assert_eq!(
        (number(earlier, "files"), number(earlier, "known")),
        (400, 1)
    );
    // The video, and the file that is another one now.
    assert_eq!(number(&sums, "asked"), 2, "{sums}");
    assert_eq!(number(&sums, "known"), 0);
    assert!(
        items.is_empty(),
        "what is not known is not printed: {items:?}"
    );
    assert!(!state.exists(), "all is done");
    // With other settings a state file is of no use, and what is none is left alone.
    let photo = shown(&world.write(
        "photo",
        "not a state file, and longer than its header is, by far",
    ));
    let wrong = reader
        .run(&["scan", &folder_shown, "--state", &photo])
        .expect(&[2]);
    assert!(wrong.stderr.contains("no state file"), "{wrong}");
}

/// A program in ffmpeg's place: of a file that says `frames 3 7 …` behind its beginning
/// it gives these, which are noise of a kind that is told apart.
fn frames_ffmpeg(world: &World) -> String {
    let frames = world.path().join("frames");
    fs::create_dir_all(&frames).unwrap();
    for number in 0..12_u32 {
        let mut state = number.wrapping_mul(0x9e37_79b9) | 1;
        let mut squares = Vec::new();
        for _ in 0..16 * 16 {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            squares.push(u8::try_from(state >> 24).unwrap());
        }
        let mut picture = b"P6\n128 128\n255\n".to_vec();
        for y in 0..128 {
            for x in 0..128 {
                let light = squares[y / 8 * 16 + x / 8];
                picture.extend([light; 3]);
            }
        }
        fs::write(frames.join(number.to_string()), picture).unwrap();
    }
    let script = format!(
        "#!/bin/sh\nfor frame in $(tail -n 1); do cat {}/$frame; done\n",
        frames.display()
    );
    let program = world.write("fake-ffmpeg", script);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    shown(&program)
}

#[test]
fn a_video_that_was_cut_is_known_at_another_member_by_its_frames() {
    let world = two();
    let ffmpeg = frames_ffmpeg(&world);
    let video = |name: &str, frames: &str| {
        let content = [&b"\0\0\0\x18ftypmp42"[..], b"\n", frames.as_bytes()].concat();
        shown(&world.write(name, content))
    };
    let publisher = world.member("northstar");
    let whole = video("whole.mp4", "0 1 2 3 4 5 6 7 8 9");
    let hashed = publisher.json(&["hash", "--ffmpeg", &ffmpeg, &whole]);
    let hashed = &list(&hashed, "files")[0];
    assert_eq!(number(hashed, "video_frames"), 10);
    publish(&world, "list", &format!("VPDQ:{}\n", text(hashed, "vpdq")));
    let reader = world.member("tidepool");
    let ask = |file: &str, more: &[&str], code: i32| {
        let line = [
            &["lookup", "--ffmpeg", &ffmpeg, "--hash-of", file, "--json"],
            more,
        ]
        .concat();
        reader.run(&line).expect(&[code]).objects().remove(0)
    };
    let cut = video("cut.mp4", "2 3 4 5 11");
    until_true("near matches to be loaded", || {
        let line = ["lookup", "--ffmpeg", &ffmpeg, "--hash-of", &cut, "--json"];
        reader.run(&line).objects()[0]["known"] == true
    });
    let known = ask(&cut, &[], 0);
    let found = &list(&known, "matches")[0];
    assert_eq!(text(found, "entry"), "northstar/confirmed#1");
    assert_eq!(
        (
            number(found, "query_percent"),
            number(found, "compared_percent")
        ),
        (80, 40)
    );
    ask(&cut, &["--video-query-percent", "81"], 3);
    ask(&cut, &["--video-compared-percent", "41"], 3);
    ask(&video("other.mp4", "10 11"), &[], 3);
    let line = ["scan", &cut, &whole, "--ffmpeg", &ffmpeg, "--json"];
    let (_, sums) = lines(reader.run(&line).expect(&[10]).objects());
    assert_eq!((number(&sums, "asked"), number(&sums, "known")), (2, 2));
    // Without ffmpeg only digests are asked for, and that is said.
    let without = reader.run(&["scan", &cut, "--ffmpeg", "no-such-program", "--json"]);
    let without = without.expect(&[3]);
    assert!(without.stderr.contains("install ffmpeg"), "{without}");
    let (_, sums) = lines(without.objects());
    assert_eq!(number(&sums["not_seen"], "video_no_ffmpeg"), 1);
}

#[test]
fn pictures_that_lie_or_blow_up_are_refused_with_the_reason_within_bounded_memory() {
    let corpus = crate::checkout().join("tests/corpus/image");
    let mut files: Vec<String> = files_below(&corpus)
        .iter()
        .map(|file| shown(file))
        .collect();
    files.sort();
    // Some 1 GiB of address space for all of it, whatever the files claim.
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -v 1200000; exec \"$0\" hash --json \"$@\""])
        .arg(binary())
        .args(&files);
    let hashed = command.output().unwrap();
    assert_eq!(hashed.status.code(), Some(3));
    let hashed: Value = serde_json::from_slice(&hashed.stdout).unwrap();
    let hashed = list(&hashed, "files");
    assert_eq!(hashed.len(), files.len());
    for (file, object) in files.iter().zip(hashed) {
        let name = file.rsplit('/').next().unwrap();
        let expected = name.split("--").next().unwrap();
        let code = object["not_seen"]["code"].as_str();
        match expected {
            "ok" => assert_eq!(code, None, "{name}"),
            // These are files, and no pictures.
            "image_empty" | "image_unsupported" => assert_eq!(object["media"], "other", "{name}"),
            expected => assert_eq!(code, Some(expected), "{name}"),
        }
        assert_eq!(text(object, "sha256").len(), 64);
    }
}
