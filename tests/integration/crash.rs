//! SIGKILL at random points: what was acknowledged is there, nothing is forked, and
//! every store is whole.
//!
//! Rounds are drawn from a seed that is printed; `HASHPACT_CRASH_SEED` repeats one,
//! `HASHPACT_CRASH_ROUNDS` makes more.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::thread;
use std::time::{Duration, Instant};

use crate::world::signals::{Entry, entries};
use crate::world::{Member, Outcome, PATIENCE, World, list, number, text, until_true};

/// At least this many kills.
const ROUNDS: u32 = 24;
/// The most entries of one import: a kill can come before, in and after it.
const BATCH_MAX: usize = 6_000;
/// Entries asked for after a restart.
const ASKED: usize = 200;
const SET: &str = "crash";
const NAME: &str = "northstar/crash";

#[test]
fn kills_at_random_points_lose_nothing_acknowledged_and_fork_nothing() {
    let seed = setting("HASHPACT_CRASH_SEED", seed_of_now());
    let rounds = setting("HASHPACT_CRASH_ROUNDS", u64::from(ROUNDS));
    eprintln!("HASHPACT_CRASH_SEED={seed} HASHPACT_CRASH_ROUNDS={rounds}");
    let world = World::new(&["northstar", "tidepool", "gamma"]);
    world.start_all();
    let publisher = world.member("northstar");
    publisher.create_set(SET, &["all:relay"]);
    let mut scene = Scene {
        world: &world,
        random: Random(seed),
        heads: Heads::default(),
        model: Model::default(),
        kills: 0,
        cut: 0,
    };
    for round in 0..rounds {
        scene.round(round);
    }
    scene.settle();
    assert!(u64::from(scene.kills) >= rounds, "{} kills", scene.kills);
    eprintln!(
        "{} kills, {} commands cut off, {} entries, {} heads seen",
        scene.kills,
        scene.cut,
        scene.model.entries.len(),
        scene.heads.0.len()
    );
}

struct Scene<'a> {
    world: &'a World,
    random: Random,
    heads: Heads,
    model: Model,
    kills: u32,
    /// Commands that did not end well because of a kill.
    cut: u32,
}

/// What must be true of the publisher's set.
#[derive(Default)]
struct Model {
    /// Every entry whose import or retraction was acknowledged: whether it lives.
    entries: BTreeMap<String, (Entry, bool)>,
    /// The largest head that was acknowledged.
    acknowledged: u64,
    batches: usize,
}

/// All heads that any node showed: one root for a size, whoever shows it.
#[derive(Default)]
struct Heads(BTreeMap<u64, String>);

impl Heads {
    fn see(&mut self, size: u64, root: &str, at: &str) {
        let first = self.0.entry(size).or_insert_with(|| root.to_owned());
        assert_eq!(first, root, "two roots at size {size}; the second at {at}");
    }
}

impl<'a> Scene<'a> {
    fn round(&mut self, round: u64) {
        let what = self.random.below(6);
        let name = [
            "import",
            "import, its command",
            "import at rest",
            "retract",
            "grants",
            "pull",
        ];
        eprintln!("round {round}: {}", name[what]);
        match what {
            0 => self.import(false),
            1 => self.import(true),
            2 => self.import_at_rest(),
            3 => self.retract(),
            4 => self.grants(),
            _ => self.pull(),
        }
        self.look();
    }

    /// Kills the publisher's node, or the command, while a batch is imported; then
    /// the same batch again, which must end well.
    fn import(&mut self, the_command: bool) {
        let publisher = self.publisher();
        let batch = self.batch();
        let file = publisher.csv("batch", &batch);
        let line = ["import", "--set", SET, &file];
        let mut first = publisher.call().begin(&[&line[..], &["--json"]].concat());
        self.random.pause(160);
        if the_command {
            first.kill();
        } else {
            publisher.kill();
        }
        self.kills += 1;
        let first = first.wait();
        self.count(&first);
        if first.is_done() {
            self.acknowledge_import(&first.object(), &batch);
        }
        if !the_command {
            restart(publisher);
        }
        self.check_acknowledged();
        // A killed command's import ends in the node a moment later.
        let again = self.patiently(&line);
        assert_eq!(number(&again, "rejected"), 0, "{again}");
        let outcomes = number(&again, "added") + number(&again, "unchanged");
        assert_eq!(outcomes, batch.len() as u64, "{again}");
        self.acknowledge_import(&again, &batch);
    }

    /// Kills a command that imports into the store of a node that does not run.
    fn import_at_rest(&mut self) {
        let publisher = self.publisher();
        publisher.kill();
        let batch = self.batch();
        let file = publisher.csv("batch", &batch);
        let line = ["import", "--set", SET, &file, "--json"];
        let mut first = publisher.call().begin(&line);
        self.random.pause(400);
        first.kill();
        self.kills += 1;
        let first = first.wait();
        self.count(&first);
        if first.is_done() {
            self.acknowledge_import(&first.object(), &batch);
        }
        restart(publisher);
        self.check_acknowledged();
        let again = self.patiently(&line[..4]);
        self.acknowledge_import(&again, &batch);
    }

    fn batch(&mut self) -> Vec<Entry> {
        self.model.batches += 1;
        let count = 1 + self.random.below(BATCH_MAX);
        entries(&format!("batch{}", self.model.batches), 0..count)
    }

    /// Counts what a kill cut off.
    fn count(&mut self, outcome: &Outcome) {
        self.cut += u32::from(!outcome.is_done());
    }

    /// Kills the publisher's node while it retracts a few entries.
    fn retract(&mut self) {
        let publisher = self.publisher();
        let candidates: Vec<Entry> = self.model.living().take(400).collect();
        if candidates.is_empty() {
            return self.import(false);
        }
        let chosen: Vec<Entry> = (0..5)
            .map(|_| candidates[self.random.below(candidates.len())].clone())
            .collect();
        let references: String = chosen
            .iter()
            .map(|entry| entry.reference.clone() + "\n")
            .collect();
        let file = publisher.folder().join("retract.txt");
        std::fs::write(&file, references).unwrap();
        let file = file.display().to_string();
        let line = [
            "retract", "--set", SET, "--file", &file, "--reason", "wrong", "--yes",
        ];
        let first = publisher.call().begin(&[&line[..], &["--json"]].concat());
        self.random.pause(60);
        publisher.kill();
        self.kills += 1;
        let first = first.wait();
        self.count(&first);
        restart(publisher);
        if first.is_done() {
            self.acknowledge_retraction(&first.object(), &chosen);
            self.check_acknowledged();
            assert_eq!(publisher.hits(&chosen), 0, "what was acknowledged stands");
        }
        let again = self.patiently(&line);
        self.acknowledge_retraction(&again, &chosen);
        assert_eq!(publisher.hits(&chosen), 0);
    }

    /// Kills the publisher's node while its grants change.
    fn grants(&mut self) {
        let publisher = self.publisher();
        let grant = ["set", "grant", SET, "tidepool"];
        let revoke = ["set", "revoke", SET, "tidepool"];
        for line in [grant, revoke] {
            let first = publisher.call().begin(&[&line[..], &["--json"]].concat());
            self.random.pause(40);
            publisher.kill();
            self.kills += 1;
            let first = first.wait();
            self.count(&first);
            restart(publisher);
            if first.is_done() {
                self.model.acknowledge(number(&first.object(), "size"));
            }
            self.check_acknowledged();
            let again = self.patiently(&line);
            self.model.acknowledge(number(&again, "size"));
        }
    }

    /// Kills a reader while it pulls a batch; it goes on where it was.
    fn pull(&mut self) {
        let publisher = self.publisher();
        let reader = self
            .world
            .member(["tidepool", "gamma"][self.random.below(2)]);
        let batch = self.batch();
        let summary = publisher.import(SET, &batch);
        self.acknowledge_import(&summary, &batch);
        self.random.pause(150);
        let before = reader.feed(NAME).map_or(0, |feed| number(&feed, "indexed"));
        reader.kill();
        self.kills += 1;
        self.random.pause(20);
        reader.start();
        let after = reader.feed(NAME).map_or(0, |feed| number(&feed, "indexed"));
        assert!(
            after >= before,
            "{} answered from {before} leaves, now {after}",
            reader.slug()
        );
    }

    /// Repeats a command until the set is free: an import whose command was killed
    /// may still hold it.
    fn patiently(&self, line: &[&str]) -> serde_json::Value {
        let publisher = self.publisher();
        let started = Instant::now();
        loop {
            let outcome = publisher.run(&[line, &["--json"]].concat());
            if outcome.is_done() {
                return outcome.object();
            }
            let busy = outcome.stderr.contains("busy") || outcome.stderr.contains("another");
            assert!(busy && started.elapsed() < PATIENCE, "{outcome}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn acknowledge_retraction(&mut self, outcome: &serde_json::Value, chosen: &[Entry]) {
        self.model.acknowledge(number(outcome, "head_size"));
        for entry in chosen {
            let gone = (entry.clone(), false);
            self.model.entries.insert(entry.reference.clone(), gone);
        }
    }

    fn acknowledge_import(&mut self, summary: &serde_json::Value, batch: &[Entry]) {
        let file = &list(summary, "files")[0];
        assert_eq!(file["published"], true, "{summary}");
        let size = number(file, "head_size");
        self.heads
            .see(size, &text(file, "head_root"), "the import's answer");
        self.model.acknowledge(size);
        for entry in batch {
            let known = self.model.entries.entry(entry.reference.clone());
            known.or_insert_with(|| (entry.clone(), true));
        }
    }

    /// What was acknowledged is there: as many leaves, and a sample of the entries.
    fn check_acknowledged(&mut self) {
        let publisher = self.publisher();
        let (size, root) = publisher.head(SET);
        let acknowledged = self.model.acknowledged;
        assert!(
            size >= acknowledged,
            "{size} leaves, {acknowledged} were acknowledged"
        );
        self.heads.see(size, &root, "northstar after a restart");
        let some = self.sample();
        assert!(
            agrees(publisher, &some),
            "what was acknowledged is not what is found"
        );
    }

    fn sample(&mut self) -> Vec<(Entry, bool)> {
        let all: Vec<_> = self.model.entries.values().cloned().collect();
        let count = all.len().min(ASKED);
        (0..count)
            .map(|_| all[self.random.below(all.len())].clone())
            .collect()
    }

    /// Remembers the head that every node shows at the moment.
    fn look(&mut self) {
        for member in self.world.members() {
            let shown = member.run(&["set", "show", NAME, "--json"]);
            if shown.is_done() {
                let set = shown.object();
                self.heads
                    .see(number(&set, "size"), &text(&set, "root"), member.slug());
            }
        }
    }

    /// Everybody holds the same in the end, finds what lives, and is whole.
    fn settle(&mut self) {
        let (size, root) = self.publisher().head(SET);
        for member in self.world.members() {
            let feed = member.wait_indexed(NAME, size);
            assert_eq!(number(&feed, "stored"), size, "at {}", member.slug());
            assert_eq!(text(&feed, "root"), root, "at {}", member.slug());
            let everything: Vec<_> = self.model.entries.values().cloned().collect();
            for part in everything.chunks(10_000) {
                until_true(&format!("{} to agree", member.slug()), || {
                    agrees(member, part)
                });
            }
        }
        self.look();
        for member in self.world.members() {
            assert_eq!(member.stop().code(), Some(0), "{}", member.slug());
            member.assert_sound();
        }
    }

    fn publisher(&self) -> &'a Member {
        self.world.member("northstar")
    }
}

impl Model {
    fn acknowledge(&mut self, size: u64) {
        self.acknowledged = self.acknowledged.max(size);
    }

    /// Entries that are not taken back.
    fn living(&self) -> impl Iterator<Item = Entry> {
        let living = self.entries.values().filter(|(_, lives)| *lives);
        living.map(|(entry, _)| entry.clone())
    }
}

/// The publisher runs again and, as its readers hold no more, publishes again.
fn restart(publisher: &Member) {
    publisher.start();
    publisher.wait_open(SET);
}

/// Whether a member finds exactly what lives.
fn agrees(member: &Member, some: &[(Entry, bool)]) -> bool {
    let asked: Vec<Entry> = some.iter().map(|(entry, _)| entry.clone()).collect();
    let answers = member.lookup(&asked);
    let mut both = answers.iter().zip(some);
    both.all(|(matches, (_, lives))| matches.len() == usize::from(*lives))
}

/// Numbers from a seed (`SplitMix64`).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    /// Lets a random time pass, up to `longest_ms`: the point at which a kill comes.
    fn pause(&mut self, longest_ms: u64) {
        thread::sleep(Duration::from_micros(self.next() % (longest_ms * 1_000)));
    }
}

fn setting(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |text| text.parse().unwrap())
}

/// Another seed in every process.
fn seed_of_now() -> u64 {
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}
