//! The whole life of a coalition, in one piece: founded by three administrators of
//! whom two decide, members onboarded, keys rotated under load, one member suspended,
//! removed and taken back, a feed key revoked. At its end every store is recomputed.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::world::signals::{Entry, entries};
use crate::world::{Member, Place, Reader, World, list, number, text, until, until_true};

/// A suspension is in force everywhere within five seconds; in a test, on a machine
/// that does other things, within this.
const SUSPENDED_MAX: Duration = Duration::from_secs(50);
/// Entries of the set that takes long to pull, each of about 2 kB: more than one
/// stream may have in flight.
const BULK: usize = 9_000;

/// A coalition as it grows, with its administrators.
struct Life {
    world: World,
}

impl Life {
    fn member(&self, slug: &str) -> &Member {
        self.world.member(slug)
    }

    /// A change that two administrators sign, handed to one member's node.
    fn decide(&self, line: &[&str], administrators: [&str; 2], node: &str) {
        self.world.coalition(line);
        self.world.sign_and_publish(&administrators);
        self.member(node).import_roster(&self.world.roster_file());
    }

    /// A newcomer joins as `docs/JOINING.md` says, through the node of `through`.
    fn onboard(&mut self, slug: &str, place: Place, through: &str) {
        self.world.newcomer_at(slug, place);
        let request = self.member(slug).request().display().to_string();
        let drafted = self.world.coalition(&["admit", &request, "--yes"]);
        let words = text(&drafted["newcomers"][0], "words");
        std::fs::remove_file(text(&drafted, "draft")).unwrap();
        self.decide(
            &["admit", &request, "--fingerprint", &words],
            ["Ann", "Cleo"],
            through,
        );
        let address = format!("{through}={}", self.member(through).endpoint());
        let genesis = self.world.genesis();
        let accept = ["enrol", "accept", "--genesis", &genesis, "--address"];
        self.member(slug).json(&[&accept[..], &[&address]].concat());
        self.member(slug).start();
        until_true(&format!("{slug} to have caught up"), || {
            self.member(slug).json(&["status"])["caught_up"] == true
        });
    }

    /// How `of` sees the member.
    fn seen(of: &Member, member: &str) -> Value {
        let status = of.json(&["coalition", "status"]);
        let mut rows = list(&status, "members").iter();
        let row = rows.find(|row| row["member"] == member);
        row.cloned().unwrap_or(Value::Null)
    }
}

/// A CSV file of entries that are long and do not compress.
fn bulk(member: &Member) -> (PathBuf, Vec<Entry>) {
    let said = entries("bulk", 0..BULK);
    let mut csv = "id,sha256,labels\n".to_owned();
    for entry in &said {
        let label = |n: u32| {
            let half = |side: u8| Sha256::digest(format!("{} {n} {side}", entry.reference));
            let text = BASE64URL_NOPAD.encode(&[half(0), half(1)].concat());
            text[..64].to_owned()
        };
        let labels: Vec<String> = (0..30).map(label).collect();
        let (id, sha256) = (&entry.reference, entry.sha256());
        writeln!(csv, "{id},{sha256},{}", labels.join(";")).unwrap();
    }
    let path = member.folder().join("bulk.csv");
    std::fs::write(&path, csv).unwrap();
    (path, said)
}

#[test]
fn a_coalition_lives_from_its_founding_to_its_last_check() {
    let mut life = Life {
        world: World::founded_by(&["Ann", "Bea", "Cleo"]),
    };
    found_three(&mut life);
    onboard_two(&mut life);
    rotate_every_key_under_load(&life);
    suspend_remove_and_take_back(&life);
    revoke_a_feed_key(&life);
    check_everything(&life);
}

fn found_three(life: &mut Life) {
    let slugs = ["north", "south", "harbor"];
    for slug in slugs {
        life.world.newcomer(slug);
    }
    let requests = slugs.map(|slug| life.member(slug).request().display().to_string());
    let line: Vec<&str> = ["admit", "--yes"]
        .into_iter()
        .chain(requests.iter().map(String::as_str))
        .collect();
    life.world.coalition(&line);
    // One administrator alone decides nothing.
    let key = life.world.admin_key_file("Bea").display().to_string();
    life.world.coalition(&["sign", "--key", &key, "--yes"]);
    let dir = life.world.roster_file();
    let dir = dir.parent().unwrap().display().to_string();
    let early = ["coalition", "publish", "--dir", &dir];
    life.world.call().run(&early).expect(&[1]);
    life.world.sign_and_publish(&["Ann"]);
    for member in life.world.members() {
        member.import_roster(&life.world.roster_file());
    }
    life.world.start_all();
    for (slug, grants) in [
        ("north", &["all:relay"][..]),
        ("south", &["all"]),
        ("harbor", &["all"]),
    ] {
        let member = life.member(slug);
        member.create_set("own", grants);
        member.import("own", &entries(slug, 0..50));
    }
    for reader in life.world.members() {
        for slug in slugs {
            reader.wait_hits(&entries(slug, 0..50), 50);
        }
    }
}

fn onboard_two(life: &mut Life) {
    life.onboard("tide", Place::here(), "north");
    let outbound_only = Place {
        endpoint: None,
        ..Place::here()
    };
    life.onboard("studio", outbound_only, "south");
    for slug in ["tide", "studio"] {
        let newcomer = life.member(slug);
        for publisher in ["north", "south", "harbor"] {
            newcomer.wait_hits(&entries(publisher, 0..50), 50);
        }
        newcomer.create_set("own", &["all"]);
        newcomer.import("own", &entries(slug, 0..50));
    }
    for reader in life.world.members() {
        // What one that nobody dials publishes reaches all whom it reaches.
        let said = [entries("tide", 0..50), entries("studio", 0..50)].concat();
        if reader.slug() != "studio" && reader.slug() != "tide" {
            reader.wait_hits(&said, 100);
        }
    }
}

/// One publishes all the while, and everybody pulls.
fn rotate_every_key_under_load(life: &Life) {
    let north = life.member("north");
    let members = life.world.members();
    let before: Vec<Vec<String>> = members.iter().map(failed_pulls).collect();
    let over = AtomicBool::new(false);
    let published = thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut published = 0;
            while !over.load(Ordering::Relaxed) {
                let more = entries("load", published..published + 20);
                north.import("own", &more);
                published += 20;
            }
            published
        });
        let rotating = ["tls", "feed", "receipt"]
            .map(|key| (key, north.call().begin(&["keys", "rotate", key, "--json"])));
        let key = north.folder().join("keys/identity-2.key");
        for (key, rotating) in rotating {
            let outcome = rotating.wait().expect(&[0]);
            assert_eq!(outcome.object()["done"], true, "{key}: {outcome}");
        }
        rotate_identity(life, &key.display().to_string());
        rotate_administrator(life);
        over.store(true, Ordering::Relaxed);
        load.join().unwrap()
    });
    assert!(published > 0);
    life.world.evidence().keep_keys_of(life.world.path());
    let last = entries("load", published - 20..published);
    for (reader, before) in members.iter().zip(before) {
        reader.wait_hits(&last, 20);
        assert_eq!(failed_pulls(reader), before, "at {}", reader.slug());
    }
}

/// What a node counts of pulls that failed.
fn failed_pulls(reader: &Member) -> Vec<String> {
    let (_, metrics) = reader.http("/metrics").unwrap();
    let lines = metrics.lines();
    lines
        .filter(|line| line.starts_with("hashpact_pull_failures_total"))
        .map(str::to_owned)
        .collect()
}

fn rotate_identity(life: &Life, key: &str) {
    let north = life.member("north");
    let made = north.json(&["enrol", "rotate-identity", key]);
    let request = north.folder().join(text(&made, "request"));
    let request = request.display().to_string();
    let words = text(&made, "words");
    let line = ["rotate-identity", &request, "--fingerprint", &words];
    life.decide(&line, ["Ann", "Bea"], "south");
    until_true("studio to know the new identity key", || {
        let shown = life.member("studio").json(&["roster", "show"]);
        shown["members"][0]["identity_key"] == made["identity_key"]
            && number(&shown["members"][0], "card_version") > 1
    });
    let path = format!("identity = \"{key}\"");
    north.edit_config(|text| {
        let line = text.lines().find(|line| line.starts_with("identity = "));
        let line = line.expect("the identity key's line").to_owned();
        text.replace(&line, &path)
    });
}

/// Bea leaves, Dora comes; it takes the old administrators and the new ones.
fn rotate_administrator(life: &Life) {
    let dora = format!("Dora={}", life.world.admin_key("Dora"));
    life.world.coalition(&["add-admin", &dora]);
    let line = ["remove-admin", "Bea"];
    life.decide(&line, ["Ann", "Cleo"], "harbor");
    let version = number(&life.member("harbor").json(&["status"]), "roster_version");
    for member in life.world.members() {
        until_true("everybody to know Dora", || {
            number(&member.json(&["status"]), "roster_version") == version
        });
    }
}

fn suspend_remove_and_take_back(life: &Life) {
    let (north, harbor) = (life.member("north"), life.member("harbor"));
    let (path, bulk) = bulk(north);
    north.create_set("bulk", &["harbor"]);
    north.json(&["import", "--set", "bulk", &path.display().to_string()]);
    let feed = text(&north.json(&["set", "show", "bulk"]), "feed");
    harbor.wait_hits(&bulk[BULK - 10..], 10);
    let thief = Reader::dial(harbor, north);
    let held = thief.hold(&feed);

    let key = life.world.admin_key_file("Dora").display().to_string();
    let dir = life.world.roster_file();
    let dir = dir.parent().unwrap().display().to_string();
    let line = ["coalition", "suspend", "harbor", "--dir", &dir];
    let why = ["--key", &key, "--reason", "stolen laptop", "--to-node"];
    let began = Instant::now();
    life.member("tide").json(&[&line[..], &why].concat());
    for member in life.world.members() {
        if member.slug() != "harbor" {
            until_true("harbor to be cut off", || {
                let seen = Life::seen(member, "harbor");
                seen["status"] == "suspended" && seen["nodes"][0]["reachable"] == false
            });
        }
    }
    held.assert_cut();
    until_true("harbor to talk with nobody", || {
        number(&harbor.json(&["status"]), "peers_connected") == 0
    });
    let took = began.elapsed();
    assert!(took < SUSPENDED_MAX, "in force after {took:?}");
    // It can see why.
    until_true("harbor to know that it is suspended", || {
        let notices = harbor.json(&["status"])["notices"].to_string();
        notices.contains("this member is suspended")
    });
    // Nothing goes to it, nothing is taken of it, and what it said stands.
    let after = entries("after", 0..10);
    north.import("own", &after);
    harbor.wait_open("own");
    harbor.import("own", &entries("cut-off", 0..10));
    for reader in ["south", "tide", "studio"] {
        life.member(reader).wait_hits(&after, 10);
    }
    assert_eq!(harbor.hits(&after), 0);
    // One administrator alone disarms nobody: what it holds goes on matching there.
    assert_eq!(harbor.hits(&entries("north", 0..50)), 50);
    assert_eq!(north.hits(&entries("cut-off", 0..10)), 0);
    assert_eq!(north.hits(&entries("harbor", 0..50)), 50);

    life.decide(&["remove", "harbor"], ["Ann", "Dora"], "south");
    until_true("studio to know that harbor is removed", || {
        Life::seen(life.member("studio"), "harbor").is_null()
    });
    // Its slug is nobody else's from then on.
    let dir = life.world.path().join("impostor");
    let again = impostor(life, &dir.display().to_string());
    let refused = ["coalition", "admit", &again, "--yes", "--dir"];
    let admins = life.world.roster_file();
    let admins = admins.parent().unwrap().display().to_string();
    let refused = [&refused[..], &[&admins]].concat();
    life.world.call().run(&refused).expect(&[1]);
    // With its own identity key it comes back under its number.
    life.decide(&["reinstate", "harbor"], ["Ann", "Dora"], "south");
    for reader in ["north", "south", "tide", "studio"] {
        let reader = life.member(reader);
        reader.wait_hits(&entries("cut-off", 0..10), 10);
    }
    harbor.wait_hits(&after, 10);
}

/// A request of somebody else for harbor's slug.
fn impostor(life: &Life, dir: &str) -> String {
    let genesis = life.world.genesis();
    let line = ["enrol", "request", "--dir", dir, "--genesis", &genesis];
    let who = ["--coalition", crate::world::COALITION, "--member", "harbor"];
    let desk = ["--contact-name", "Desk", "--contact-email", "a@b.example"];
    let listen = ["--listen", "off"];
    life.world
        .call()
        .json(&[&line[..], &who, &desk, &listen].concat());
    life.world.evidence().keep_keys_of(life.world.path());
    format!("{dir}/enrolment-harbor.request")
}

/// South's feed key leaks: what it signed beyond the last good size is void.
fn revoke_a_feed_key(life: &Life) {
    let south = life.member("south");
    let good = south.json(&["set", "show", "own"]);
    let card = south.json(&["card", "show"]);
    let key = list(&card["nodes"][0], "feed_keys")[0].as_str().unwrap();
    let stolen = entries("stolen", 0..10);
    south.import("own", &stolen);
    for reader in life.world.members() {
        reader.wait_hits(&stolen, 10);
    }
    let size = number(&good, "size").to_string();
    let (feed, root) = (text(&good, "feed"), text(&good, "root"));
    let line = ["revoke-feed-key", "--feed", &feed, "--key", key];
    let to = ["--size", &size, "--root", &root];
    life.decide(&[&line[..], &to].concat(), ["Cleo", "Dora"], "harbor");
    for reader in life.world.members() {
        if reader.slug() != "south" {
            reader.wait_hits(&stolen, 0);
        }
    }
    south.json(&["keys", "rotate", "feed"]);
    life.world.evidence().keep_keys_of(life.world.path());
    until("south to go on under the next epoch", || {
        let feed = south.feed("south/own")?;
        (number(&feed, "epoch") == 1).then_some(())
    });
    south.wait_open("own");
    let again = entries("again", 0..10);
    south.import("own", &again);
    for reader in life.world.members() {
        reader.wait_hits(&again, 10);
        reader.wait_hits(&stolen, 0);
        assert_eq!(reader.hits(&entries("south", 0..50)), 50);
    }
}

/// Everybody holds the same, and every store is what its leaves say.
fn check_everything(life: &Life) {
    let heads = |member: &Member| {
        let mut heads: Vec<(String, String)> = member
            .feeds()
            .iter()
            .filter(|feed| feed["name"] != "north/bulk")
            .map(|feed| (text(feed, "name"), text(feed, "root")))
            .collect();
        heads.sort();
        heads
    };
    // Two that nobody can dial would have to meet through a relay: there is one alone.
    let all = heads(life.member("north"));
    assert_eq!(all.len(), 5, "{all:?}");
    for member in life.world.members() {
        until_true("everybody to hold the same", || heads(member) == all);
        let status = member.json(&["status"]);
        assert_eq!(status["caught_up"], true, "{}: {status}", member.slug());
        assert_eq!(status["quarantined"], 0, "{}: {status}", member.slug());
    }
    for member in life.world.members() {
        assert!(member.stop().success());
        member.assert_sound();
    }
}
