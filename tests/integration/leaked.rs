//! A feed key is stolen, used, and revoked: docs/OPERATORS.md's runbook, command by
//! command, over real nodes.

use std::fs;

use serde_json::Value;

use crate::world::signals::{Entry, entries};
use crate::world::{Member, World, copy, list, number, text, until_true};

const SET: &str = "confirmed";
const NAME: &str = "northstar/confirmed";

/// The standings under which these entries answer.
fn standings(member: &Member, of: &[Entry]) -> Vec<String> {
    let answers = member.lookup(of);
    let found = answers.iter().flatten();
    found.map(|found| text(found, "standing")).collect()
}

fn all(member: &Member, of: &[Entry], standing: &str) -> bool {
    standings(member, of) == vec![standing.to_owned(); of.len()]
}

/// What the publisher finds on its own disk before it starts again.
struct LastGood {
    feed: String,
    size: String,
    root: String,
    key: String,
}

impl LastGood {
    fn of(publisher: &Member) -> Self {
        let set = publisher.json(&["set", "show", SET]);
        Self {
            feed: text(&set, "feed"),
            size: number(&set, "size").to_string(),
            root: text(&set, "root"),
            key: text(&publisher.json(&["keys", "show"]), "feed"),
        }
    }

    fn revoking(&self) -> [&str; 9] {
        [
            "revoke-feed-key",
            "--feed",
            &self.feed,
            "--key",
            &self.key,
            "--size",
            &self.size,
            "--root",
            &self.root,
        ]
    }
}

fn retract(member: &Member, reference: &str) -> Value {
    let line = ["retract", "--set", SET, "--reference", reference];
    member.json(&[&line[..], &["--reason", "wrong", "--yes"]].concat())
}

#[test]
fn a_stolen_feed_key_is_revoked_and_its_set_goes_on_at_every_node() {
    let world = World::new(&["northstar", "tidepool", "harborgames"]);
    let north = world.member("northstar");
    let readers = [world.member("tidepool"), world.member("harborgames")];
    world.start_all();
    north.create_set(SET, &["all"]);
    let good = entries("good", 0..40);
    north.import(SET, &good);
    let (size, _) = north.head(SET);
    for reader in readers {
        reader.wait_hits(&good, 40);
    }
    north.stop();

    // The thief has a copy of the disk.
    let folder = north.folder();
    for part in ["data", "sign-state"] {
        copy(&folder.join(part), &folder.join("honest").join(part));
    }
    north.start();
    north.wait_open(SET);
    let (taken, kept) = good.split_at(5);
    for n in 0..5 {
        retract(north, &format!("good-{n}"));
    }
    let planted = entries("planted", 0..10);
    north.import(SET, &planted);
    for reader in readers {
        reader.wait_hits(&planted, 10);
        reader.wait_hits(taken, 0);
    }
    north.stop();
    for part in ["data", "sign-state"] {
        fs::remove_dir_all(folder.join(part)).unwrap();
        copy(&folder.join("honest").join(part), &folder.join(part));
    }

    // The runbook. The publisher, before it starts: what did it sign itself?
    let last = LastGood::of(north);
    assert_eq!(last.size, size.to_string());
    // The administrators.
    world.coalition(&last.revoking());
    world.approve("tidepool");
    for reader in readers {
        until_true("what the thief published is void", || {
            reader.hits(&planted) == 0
        });
        assert_eq!(number(&reader.feed(NAME).unwrap(), "indexed"), size);
        until_true("what it retracted is back, for review", || {
            all(reader, taken, "review")
        });
        assert!(all(reader, kept, "active"), "{:?}", standings(reader, kept));
    }
    // The publisher: the roster, a new feed key.
    north.import_roster(&world.roster_file());
    north.start();
    let closed = north.json(&["set", "show", SET]);
    assert_eq!(closed["open"], false, "{closed}");
    let why = text(&closed, "closed_because");
    assert!(why.contains("the roster revoked a key of it"), "{why}");
    let rotated = north.json(&["keys", "rotate", "feed"]);
    assert_eq!(rotated["done"], true, "{rotated}");
    world.evidence().keep_keys_of(world.path());
    north.wait_open(SET);
    let after = entries("after", 0..10);
    north.import(SET, &after);
    // What it had meant to retract itself, it retracts again.
    retract(north, "good-0");
    for reader in readers {
        reader.wait_hits(&after, 10);
        reader.wait_hits(&taken[..1], 0);
        assert!(all(reader, &taken[1..], "review"), "the others still wait");
        assert_eq!(reader.hits(&planted), 0);
        let feed = reader.feed(NAME).unwrap();
        assert_ne!(feed["state"], "frozen", "{feed}");
    }
    let card = north.json(&["card", "show"]);
    let keys = list(&list(&card, "nodes")[0], "feed_keys");
    assert!(!keys.iter().any(|key| *key == last.key.as_str()), "{card}");
    for member in world.members() {
        member.stop();
        member.assert_sound();
    }
}
