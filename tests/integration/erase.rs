//! What is erased leaves the disk of every member, and nothing else changes.

use std::fs;
use std::path::{Path, PathBuf};

use crate::world::signals::{Entry, entries};
use crate::world::{Member, World, number, text, until_true};

const SET: &str = "northstar/confirmed";

#[test]
fn what_is_erased_leaves_every_members_disk_and_proofs_hold() {
    let world = World::new(&["northstar", "tidepool", "gamma"]);
    let publisher = world.member("northstar");
    let readers = [world.member("tidepool"), world.member("gamma")];
    world.start_all();
    publisher.create_set("confirmed", &["all"]);
    let said = entries("erase", 0..600);
    publisher.import("confirmed", &said);
    for reader in readers {
        reader.wait_hits(&said, 600);
    }
    let gone = [&said[20], &said[21], &said[590]];
    for member in [publisher, readers[0], readers[1]] {
        for entry in gone {
            assert!(
                !files_with(member, entry).is_empty(),
                "at {}",
                member.slug()
            );
        }
    }
    // One was retracted before; one member is away.
    let retracted = [
        "retract",
        "--set",
        "confirmed",
        "--reference",
        &gone[1].reference,
    ];
    publisher.json(&[&retracted[..], &["--reason", "wrong", "--yes"]].concat());
    readers[0].wait_hits(&said, 599);
    assert!(readers[1].stop().success());
    erase(publisher, gone);
    publisher.wait_hits(&said, 597);
    for entry in gone {
        assert_eq!(files_with(publisher, entry), Vec::<PathBuf>::new());
    }
    let (size, root) = publisher.head(SET);
    readers[0].wait_indexed(SET, size);
    readers[1].start();
    readers[1].wait_indexed(SET, size);
    for reader in readers {
        reader.wait_hits(&said, 597);
        until_true("the files are rewritten", || {
            gone.iter()
                .all(|entry| files_with(reader, entry).is_empty())
        });
        assert_eq!(reader.head(SET), (size, root.clone()));
    }
    // The boundaries of files are gone with a start, too.
    for member in [publisher, readers[0], readers[1]] {
        assert!(member.stop().success());
        member.start();
        for entry in gone {
            for value in entry.values() {
                assert_eq!(files(member, &value, true), Vec::<PathBuf>::new());
            }
        }
        member.wait_hits(&said, 597);
        member.assert_sound();
    }
}

/// Erases one by name, one by its reference, one by a signal.
fn erase(publisher: &Member, gone: [&Entry; 3]) {
    const BASIS: [&str; 3] = ["--basis", "order 4711", "--yes"];
    let found = publisher.lookup(&[gone[0].clone()]);
    let name = text(&found[0][0], "entry");
    let by_name = publisher.json(&[&["erase", &name][..], &BASIS].concat());
    assert_eq!(
        (number(&by_name, "erased"), number(&by_name, "payloads")),
        (1, 1)
    );
    let signal = gone[2].spec();
    let line = [
        "erase",
        "--set",
        "confirmed",
        "--reference",
        &gone[1].reference,
        "--signal",
        &signal,
    ];
    let others = publisher.json(&[&line[..], &BASIS].concat());
    assert_eq!(
        (number(&others, "erased"), number(&others, "payloads")),
        (2, 2)
    );
    let again = publisher.json(&[&["erase", &name][..], &BASIS].concat());
    assert_eq!(
        (number(&again, "erased"), number(&again, "already_erased")),
        (0, 1)
    );
    let unknown = ["erase", "--set", "confirmed", "#9999"];
    let answer = publisher
        .call()
        .json_ending(&[3], &[&unknown[..], &BASIS].concat());
    assert_eq!(number(&answer, "erased"), 0);
    // One that stands is not erased unasked.
    let line = ["erase", "--set", "confirmed", "#1", "--basis", "order 4711"];
    let silent = publisher.run(&line).expect(&[2]);
    assert!(silent.stderr.contains("--yes"), "{silent}");
}

/// The files of a member's store in which anything of an entry lies.
fn files_with(member: &Member, entry: &Entry) -> Vec<PathBuf> {
    let mut found = files(member, entry.reference.as_bytes(), false);
    // Other references begin like this one.
    if entry.reference.len() < "erase-100".len() {
        found.clear();
    }
    for value in entry.values() {
        found.extend(files(member, &value, false));
    }
    found
}

/// The files of a member's store in which bytes lie, as they are or in a page; the
/// manifests, where the boundaries of files stay until a start, if those are asked.
fn files(member: &Member, needle: &[u8], manifests: bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![member.folder().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let named = |what: &str| {
                path.file_name()
                    .is_some_and(|n| n.to_string_lossy().starts_with(what))
            };
            if path.is_dir() {
                folders.push(path);
            } else if is_of_store(&path) && (manifests || !named("MANIFEST")) {
                // A file may go meanwhile.
                let bytes = fs::read(&path).unwrap_or_default();
                if holds(&bytes, needle) || pages(&bytes).any(|page| holds(&page, needle)) {
                    found.push(path);
                }
            }
        }
    }
    found
}

fn is_of_store(path: &Path) -> bool {
    let folder = path.parent().and_then(Path::file_name);
    folder.is_some_and(|folder| folder == "db" || folder == "bulk")
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// The pages that lie in a file whole, decompressed.
fn pages(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let frames = bytes.windows(4).enumerate();
    let frames = frames.filter(|(_, window)| *window == b"\x28\xb5\x2f\xfd");
    frames.filter_map(|(at, _)| {
        let frame = bytes.get(at..)?;
        let size = zstd::zstd_safe::find_frame_compressed_size(frame).ok()?;
        zstd::bulk::decompress(frame.get(..size)?, 3 << 20).ok()
    })
}
