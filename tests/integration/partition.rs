//! A retraction reaches everybody through a partition, a restored backup, compaction and
//! restarts, and nothing brings back what it withdrew.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use hashpact_store::{Store, StoreOptions};
use serde_json::Value;

use crate::world::signals::{Entry, entries};
use crate::world::{Cable, Member, Place, World, copy, list, number, until_true};

const SET: &str = "confirmed";
const NAME: &str = "northstar/confirmed";
const READERS: [&str; 5] = ["tidepool", "harbor", "gamma", "delta", "studio"];
const ENFORCE: &str =
    "[[rules]]\nname = \"north\"\nverdict = \"enforce\"\nsets = [\"northstar/confirmed\"]\n";
/// After the partition healed everybody is done by then.
const HEALED_MAX: Duration = Duration::from_secs(10);

/// What each entry's SHA-256 and its PDQ are answered with; empty where nothing is known.
fn verdicts(member: &Member, of: &[Entry]) -> Vec<String> {
    let lines = of.iter().flat_map(|entry| {
        let pdq = format!("PDQ:{}\n", entry.pdq());
        [entry.spec() + "\n", pdq]
    });
    let lines: String = lines.collect();
    let asked = member.call().stdin(lines);
    let told = asked.run(&["lookup", "--file", "-", "--json"]);
    let told = told.expect(&[0, 3]).objects();
    let verdict = |object: &Value| object["verdict"].as_str().unwrap_or_default().to_owned();
    assert_eq!(told.len(), 2 * of.len(), "each is answered");
    told.iter().map(verdict).collect()
}

fn all(member: &Member, of: &[Entry], verdict: &str) -> bool {
    let told = verdicts(member, of);
    !told.is_empty() && told.iter().all(|told| told == verdict)
}

fn receipts(publisher: &Member, leaf: &str) -> Value {
    publisher.json(&["receipts", leaf])
}

fn state_of(receipts: &Value, member: &str) -> String {
    let mut of = list(receipts, "members").iter();
    let of = of.find(|one| one["member"] == member).unwrap();
    of["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_retraction_is_done_everywhere_soon_after_a_partition_heals_and_nothing_resurrects() {
    let cable = Cable::new();
    let proxy = ["--proxy".to_owned(), cable.proxy()];
    let behind = Place {
        endpoint: None,
        namespace: None,
        more: proxy.to_vec(),
    };
    let here = |slug: &'static str| (slug, Place::here());
    let mut places = vec![here("northstar")];
    places.extend(READERS[..4].iter().map(|slug| here(slug)));
    places.push(("studio", behind));
    let world = World::founded_at(&places);
    for member in world.members() {
        member.import_roster(&world.roster_file());
        fs::write(member.folder().join("policy.toml"), ENFORCE).unwrap();
    }
    world.start_all();
    let (publisher, restored) = (world.member("northstar"), world.member("gamma"));
    let cut_off = world.member("studio");
    publisher.create_set(SET, &["all:relay"]);
    let said = entries("parted", 0..60);
    publisher.import(SET, &said);
    for member in world.members() {
        until_true(&format!("{} to enforce", member.slug()), || {
            all(member, &said, "enforce")
        });
    }
    assert!(cable.through() > 0, "the cable carries something");

    // A backup of one node, older than all that follows.
    assert_eq!(restored.stop().code(), Some(0));
    let folder = restored.folder();
    copy(&folder.join("data"), &folder.join("old"));
    restored.start();

    // One is cut off; then three entries turn out to be wrong.
    cable.cut();
    let (gone, kept) = said.split_at(3);
    let mut retract = vec!["retract", "--set", SET, "--reason", "wrong", "--yes"];
    for entry in gone {
        retract.extend(["--reference", &entry.reference]);
    }
    publisher.json(&retract);
    let leaf = format!("{SET}#61");
    until_true("all but one to be done", || {
        number(&receipts(publisher, &leaf), "done") == 4
    });
    assert_ne!(state_of(&receipts(publisher, &leaf), "studio"), "done");
    assert!(all(cut_off, gone, "enforce"), "it cannot know");

    // Another one, which had said that it was done, comes back from its backup as the
    // partition heals.
    restored.kill();
    fs::remove_dir_all(folder.join("data")).unwrap();
    copy(&folder.join("old"), &folder.join("data"));
    restored.spawn();
    cable.mend();
    let healed = Instant::now();
    loop {
        let told = receipts(publisher, &leaf);
        // What the restored node said before is no word about what it holds.
        let nobody_enforces = || {
            let mut members = world.members().iter();
            members.all(|member| verdicts(member, gone).iter().all(String::is_empty))
        };
        if number(&told, "done") == 5 && restored.is_ready() && nobody_enforces() {
            break;
        }
        assert!(healed.elapsed() < HEALED_MAX, "not done in time: {told}");
        thread::sleep(Duration::from_millis(50));
    }
    for member in world.members() {
        assert!(all(member, kept, "enforce"), "at {}", member.slug());
    }

    // Every file is rewritten, everybody starts anew.
    for member in world.members() {
        assert_eq!(member.stop().code(), Some(0));
        let data = member.folder().join("data");
        let store = Store::open(&data, &StoreOptions::default()).unwrap();
        store.compact().unwrap();
    }
    world.start_all();
    for member in world.members() {
        let told = verdicts(member, gone);
        assert!(told.iter().all(String::is_empty), "at {}", member.slug());
        assert!(all(member, kept, "enforce"), "at {}", member.slug());
    }
    let done = publisher.json(&["receipts", &leaf, "--wait", "60"]);
    assert_eq!(number(&done, "done"), 5);
    let (size, root) = publisher.head(SET);
    for reader in READERS {
        let reader = world.member(reader);
        let feed = reader.wait_indexed(NAME, size);
        assert_eq!(feed["root"], root.as_str());
        assert_eq!(verdicts(reader, gone), vec![""; 6], "at {}", reader.slug());
        reader.assert_sound();
    }
}
