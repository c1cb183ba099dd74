//! A stolen feed key that takes back all of a large set, empties another by new versions
//! and erases a third disarms nobody; the revocation at the last good size restores all.
//!
//! `HASHPACT_STOLEN_ENTRIES` sets how large the first set is, up to a million.

use std::fmt::Write as _;
use std::fs;

use hashpact_core::id::{Digest, FeedId};
use hashpact_core::signal::Signal;
use serde_json::Value;

use crate::world::signals::{Entry, entries};
use crate::world::thief::{Thief, erasure, in_place_of, retraction};
use crate::world::{Member, World, copy, list, number, text, until_true};

/// Entries of the large set, in what `make test` runs.
const ENTRIES: usize = 200_000;
/// Entries of the two others.
const FEWER: usize = 3_000;
/// Entries that are asked for, of each set: those at its ends, and others evenly between.
const ASKED: usize = 500;
const ENFORCE: &str = "[[rules]]\nname = \"north\"\nverdict = \"enforce\"\nsets = \
                       [\"northstar/*\"]\n";

/// A set and what it is asked for.
struct Stock {
    set: &'static str,
    feed: FeedId,
    count: u64,
    sample: Vec<Entry>,
    /// The publisher's own last words: size, root.
    head: (u64, String),
}

impl Stock {
    /// Creates a set with so many entries.
    fn fill(publisher: &Member, world: &World, set: &'static str, count: usize) -> Self {
        let created = publisher.create_set(set, &["all"]);
        let mut csv = "id,sha256,pdq,pdq_quality,classification\n".to_owned();
        let step = (count / ASKED).max(1);
        let mut sample = Vec::new();
        for n in 0..count {
            let entry = Entry::new(set, n);
            let (sha256, pdq) = (entry.sha256(), entry.pdq());
            writeln!(csv, "{set}-{n},{sha256},{pdq},90,A1").unwrap();
            if n % step == 0 || n + 1 == count {
                sample.push(entry);
            }
        }
        world.evidence().guard(&sample);
        let file = publisher.folder().join(format!("{set}.csv"));
        fs::write(&file, csv).unwrap();
        let file = file.display().to_string();
        let imported = publisher.json(&["import", "--set", set, &file]);
        assert_eq!(number(&imported, "added"), count as u64, "{imported}");
        fs::remove_file(file).unwrap();
        Self {
            set,
            feed: FeedId(Digest::from_hex(&text(&created, "feed")).unwrap()),
            count: count as u64,
            sample,
            head: publisher.head(set),
        }
    }

    fn name(&self) -> String {
        format!("northstar/{}", self.set)
    }
}

/// What a member makes of a sample: how each entry stands, and the verdicts.
fn told(member: &Member, of: &[Entry]) -> Vec<(String, String)> {
    let lines: String = of.iter().map(|entry| entry.spec() + "\n").collect();
    let asked = member.call().stdin(lines);
    let answers = asked.run(&["lookup", "--file", "-", "--json"]);
    let answers = answers.expect(&[0, 3]).objects();
    let told = answers.iter().map(|answer: &Value| {
        let standing = answer["matches"][0]["standing"].as_str();
        let verdict = answer["verdict"].as_str();
        let text = |found: Option<&str>| found.unwrap_or("nothing").to_owned();
        (text(standing), text(verdict))
    });
    let told: Vec<_> = told.collect();
    assert_eq!(told.len(), of.len(), "each is answered");
    told
}

fn all(member: &Member, of: &[Entry], standing: &str, verdict: &str) -> bool {
    let wanted = (standing.to_owned(), verdict.to_owned());
    let told = told(member, of);
    !told.is_empty() && told.iter().all(|told| *told == wanted)
}

fn until_all(member: &Member, stock: &Stock, standing: &str, verdict: &str) {
    let what = format!("{} to {verdict} {}", member.slug(), stock.set);
    until_true(&what, || all(member, &stock.sample, standing, verdict));
}

#[test]
fn a_stolen_feed_key_that_takes_back_whole_sets_disarms_nobody_and_revocation_restores_all() {
    let count = std::env::var("HASHPACT_STOLEN_ENTRIES").ok();
    let count = count.map_or(ENTRIES, |count| count.parse().unwrap());
    let world = World::new(&["northstar", "tidepool", "harbor"]);
    let north = world.member("northstar");
    let readers = [world.member("tidepool"), world.member("harbor")];
    for reader in readers {
        fs::write(reader.folder().join("policy.toml"), ENFORCE).unwrap();
    }
    world.start_all();
    let stocks = [
        Stock::fill(north, &world, "retracted", count),
        Stock::fill(north, &world, "replaced", FEWER),
        Stock::fill(north, &world, "erased", FEWER),
    ];
    for (reader, stock) in pairs(readers, &stocks) {
        until_all(reader, stock, "active", "enforce");
    }
    north.stop();
    let folder = north.folder();
    for part in ["data", "sign-state"] {
        copy(&folder.join(part), &folder.join("honest").join(part));
    }

    steal(north, &stocks);
    north.start();
    for stock in &stocks {
        north.wait_open(stock.set);
    }
    for (reader, stock) in pairs(readers, &stocks) {
        reader.wait_indexed(&stock.name(), stock.head.0 + 1);
        until_all(reader, stock, "review", "review");
    }
    // Everybody is alarmed, and nobody says that it acts on that.
    for reader in readers {
        let status = reader.json(&["status"]);
        let notices = list(&status, "notices").iter();
        let alarms = notices.filter(|notice| notice.to_string().contains("feed key stolen?"));
        assert_eq!(alarms.count(), 3, "{status}");
        let metrics = reader.http("/metrics").unwrap().1;
        let counted = "hashpact_mass_retractions_total";
        let line = metrics.lines().find(|line| line.starts_with(counted));
        assert!(line.is_some_and(|line| !line.ends_with(" 0")), "{line:?}");
    }
    for stock in &stocks {
        let leaf = format!("{}#{}", stock.set, stock.head.0);
        let receipts = north.json(&["receipts", &leaf]);
        assert_eq!(number(&receipts, "done"), 0, "{receipts}");
    }
    north.stop();
    for part in ["data", "sign-state"] {
        fs::remove_dir_all(folder.join(part)).unwrap();
        copy(&folder.join("honest").join(part), &folder.join(part));
    }

    revoke(&world, &stocks);
    for (reader, stock) in pairs(readers, &stocks) {
        until_all(reader, stock, "active", "enforce");
        let feed = reader.feed(&stock.name()).unwrap();
        assert_eq!(number(&feed, "indexed"), stock.head.0, "{feed}");
        assert_eq!(number(&feed, "live_entries"), stock.count, "{feed}");
        assert_eq!(text(&feed, "root"), stock.head.1);
        // What is pulled is told a moment after what is answered.
        until_true("the feed to be pulled again", || {
            reader.feed(&stock.name()).unwrap()["state"] != "frozen"
        });
    }
    for reader in readers {
        let notices = reader.json(&["status"])["notices"].to_string();
        assert!(!notices.contains("stolen?"), "{notices}");
    }

    // The publisher goes on with a new key, and everybody acts on what it says.
    north.import_roster(&world.roster_file());
    north.start();
    north.json(&["keys", "rotate", "feed"]);
    world.evidence().keep_keys_of(world.path());
    for stock in &stocks {
        north.wait_open(stock.set);
        let more = entries(&format!("after-{}", stock.set), 0..5);
        north.import(stock.set, &more);
        let done = north.json(&["receipts", stock.set, "--wait", "60"]);
        assert_eq!(number(&done, "done"), 2, "{done}");
        for reader in readers {
            assert!(all(reader, &more, "active", "enforce"));
            assert!(all(reader, &stock.sample, "active", "enforce"));
        }
    }
    for member in world.members() {
        member.stop();
        member.assert_sound();
    }
}

/// Takes back the first set, empties the second by new versions, erases the third.
fn steal(north: &Member, [retracted, replaced, erased]: &[Stock; 3]) {
    /// A leaf of 8,000 bytes names some 2,500.
    const PER_LEAF: usize = 1_500;
    let mut thief = Thief::at(north);
    let leaf = retraction(1, retracted.count);
    assert_eq!(thief.sign(&retracted.feed, &[leaf]), retracted.head.0);
    let mut body = thief.publish_at(&replaced.feed, 1);
    let other = Entry::new("thief", 0).spec();
    body.signals = vec![Signal::parse_spec(&other).unwrap()];
    let indexes: Vec<u64> = (1..=replaced.count).collect();
    let versions = indexes.chunks(PER_LEAF);
    let versions = versions.map(|some| in_place_of(body.clone(), some.to_vec()));
    thief.sign(&replaced.feed, &versions.collect::<Vec<_>>());
    thief.sign(&erased.feed, &[erasure(1, erased.count)]);
}

/// The administrators cut all three off where the publisher says.
fn revoke(world: &World, stocks: &[Stock]) {
    let north = world.member("northstar");
    let key = text(&north.json(&["keys", "show"]), "feed");
    for stock in stocks {
        let set = north.json(&["set", "show", stock.set]);
        let (feed, size) = (text(&set, "feed"), number(&set, "size"));
        let (size, root) = (size.to_string(), text(&set, "root"));
        assert_eq!(
            (size.clone(), root.clone()),
            (stock.head.0.to_string(), stock.head.1.clone())
        );
        let line = ["revoke-feed-key", "--feed", &feed, "--key", &key];
        world.coalition(&[&line[..], &["--size", &size, "--root", &root]].concat());
    }
    world.approve("tidepool");
}

fn pairs<'a>(
    readers: [&'a Member; 2],
    stocks: &'a [Stock],
) -> impl Iterator<Item = (&'a Member, &'a Stock)> {
    let each = readers.into_iter();
    each.flat_map(move |reader| stocks.iter().map(move |stock| (reader, stock)))
}
