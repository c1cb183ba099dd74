//! Changes against look-ups: whoever follows, however it is interrupted, ends at what
//! the store answers.

use std::collections::BTreeMap;

use hashpact_core::id::Slug;
use hashpact_core::leaf::{self, Leaf};

use super::*;
use crate::quarantine::{Chosen, Decision, Reason};
use crate::{ChangeCursor, CursorError, FeedInfo, Step, StoreError, Whole, WholeStanding};

const LATER: UnixMillis = UnixMillis(1_800_000_000_000);

fn name() -> Slug {
    Slug::parse("matcher").unwrap()
}

fn whole(feed: &FeedInfo) -> Whole {
    Whole {
        standing: match feed.status {
            FeedStatus::Active => WholeStanding::Active,
            FeedStatus::Frozen | FeedStatus::Leaving => WholeStanding::Review,
            FeedStatus::Silent | FeedStatus::Dropping => WholeStanding::Nothing,
        },
        name: feed.id.0.short(),
        words: String::new(),
    }
}

fn note(store: &Store) -> Option<u64> {
    store.note_changes(&whole, LATER).unwrap()
}

/// Entry `n` of an index, to be reviewed or not, without the kinds that are withheld.
type Held = BTreeMap<(FeedId, u64), (u64, bool, Vec<u8>)>;

/// A matcher of a member's own: it keeps what it is told, and where it is.
struct Follower {
    held: Held,
    at: ChangeCursor,
    /// What it will go on from after a crash of its own.
    acked: ChangeCursor,
}

impl Follower {
    fn start(store: &Store) -> Self {
        let begun = store.begin_snapshot(&name(), "test", &whole, LATER);
        let at = begun.unwrap().unwrap();
        Self {
            held: Held::new(),
            at,
            acked: at,
        }
    }

    /// Takes one batch; answers whether there is nothing more.
    fn take(&mut self, store: &Store, limit: usize) -> bool {
        let batch = store.changes_after(&self.at, limit).unwrap().unwrap();
        for step in batch.steps {
            match step {
                Step::Gone { id, .. } => self.held.retain(|(of, _), _| *of != id),
                Step::Leaves {
                    feed,
                    id,
                    review,
                    leaves,
                    ..
                } => {
                    for leaf in leaves {
                        let body = read(store, feed, leaf.index);
                        match (leaf.seen, body) {
                            (Some(seen), Some(n)) => {
                                let kept = (n, review || seen.review, seen.withheld);
                                self.held.insert((id, leaf.index), kept);
                            }
                            (Some(_) | None, _) => {
                                self.held.remove(&(id, leaf.index));
                            }
                        }
                    }
                }
            }
        }
        self.at = batch.next;
        batch.caught_up
    }

    fn ack(&mut self, store: &Store) {
        let taken = store.acknowledge(&name(), &self.at, LATER);
        taken.unwrap().unwrap().unwrap();
        self.acked = self.at;
    }

    fn catch_up(&mut self, store: &Store) {
        note(store);
        while !self.take(store, 7) {}
    }

    /// That it holds exactly what look-ups answer, for every entry there ever was.
    fn agrees(&self, store: &Store, entries: u64) {
        let mut answered = BTreeSet::new();
        for n in 0..entries {
            for (kind, signal) in signals(n).iter().enumerate() {
                for posting in &store.lookup(&[signal.index_key()]).unwrap()[0] {
                    let feed = store.feed(posting.feed).unwrap();
                    let review = posting.held || feed.status == FeedStatus::Frozen;
                    answered.insert((feed.id, posting.index, n, kind, review));
                }
            }
        }
        let mut held = BTreeSet::new();
        for ((id, index), (n, review, withheld)) in &self.held {
            for (kind, signal) in signals(*n).iter().enumerate() {
                if !withheld.contains(&signal.kind().number_byte()) {
                    held.insert((*id, *index, *n, kind, *review));
                }
            }
        }
        assert_eq!(held, answered);
    }
}

/// The number of the entry that a leaf publishes, as far as it is here.
fn read(store: &Store, no: FeedNo, index: u64) -> Option<u64> {
    let raw = match store.read_leaf(no, index) {
        Err(StoreError::UnknownFeed(_) | StoreError::OutOfRange { .. }) => return None,
        other => other.unwrap(),
    };
    match leaf::read(&raw, index) {
        Leaf::Publish(publish) => publish.source_reference.strip_prefix("case ")?.parse().ok(),
        Leaf::Describe(_)
        | Leaf::Retract(_)
        | Leaf::Opinion(_)
        | Leaf::Erase(_)
        | Leaf::Unknown(_)
        | Leaf::Void(_)
        | Leaf::Elided => None,
    }
}

/// As [`publish`], with a PDQ that the gate holds back.
fn dubious(n: u64) -> RawLeaf {
    let Leaf::Publish(mut body) = leaf::read(&publish(n, &[]), 0) else {
        panic!("no publish leaf");
    };
    let [sha, pdq] = signals(n);
    let pdq = Signal::new(pdq.kind(), pdq.value().clone(), Some(10)).unwrap();
    body.signals = vec![sha, pdq];
    RawLeaf::new(PUBLISH, body.encode([7; 16]).unwrap())
}

/// A store that all sorts of things happen to.
struct World {
    dir: tempfile::TempDir,
    store: Option<Store>,
    feeds: u64,
    entries: u64,
    no: FeedNo,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let no = store.create_feed(&new_feed(false, b"0")).unwrap();
        Self {
            dir,
            store: Some(store),
            feeds: 1,
            entries: 0,
            no,
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn append(&mut self, leaves: &[RawLeaf], held: bool) {
        let mut writer = self.store().writer(self.no).unwrap();
        if held {
            writer.quarantine(Reason::OverGrowth, [writer.size()]);
        }
        writer.append(leaves).unwrap();
        commit_signed(&mut writer);
    }

    fn next(&mut self) -> u64 {
        self.entries += 1;
        self.entries - 1
    }

    fn happens(&mut self, what: u8, a: u64, b: u64) {
        let info = self.store().feed(self.no).unwrap();
        let size = info.stored;
        let some = a.checked_rem(size).unwrap_or(0);
        match what {
            0..=3 => {
                let leaves: Vec<_> = (0..=a % 4).map(|_| publish(self.next(), &[])).collect();
                self.append(&leaves, b.is_multiple_of(4));
            }
            4 => {
                let n = self.next();
                self.append(&[dubious(n)], false);
            }
            5 if size > 0 => {
                let n = self.next();
                self.append(&[publish(n, &[some])], b.is_multiple_of(3));
            }
            6 | 7 if size > 0 => {
                let range = IndexRange {
                    first: some,
                    count: 1 + b % 3,
                };
                self.append(&[retract(vec![range])], false);
            }
            8 => {
                let found = self.store().retractions(self.no, 0, 3).unwrap();
                let held = if b.is_multiple_of(3) {
                    Vec::new()
                } else {
                    found
                };
                self.store()
                    .hold_retractions(self.no, held.into_iter().collect())
                    .unwrap();
            }
            9 => {
                let decision = if b.is_multiple_of(3) {
                    Decision::Drop
                } else {
                    Decision::Release
                };
                let chosen = Chosen {
                    reason: None,
                    leaves: None,
                };
                let store = self.store();
                store.decide_quarantine(self.no, &chosen, decision).unwrap();
            }
            10 => {
                let status = [
                    FeedStatus::Active,
                    FeedStatus::Frozen,
                    FeedStatus::Silent,
                    FeedStatus::Active,
                ][at(b % 4)];
                self.store().set_feed_status(self.no, status).unwrap();
            }
            11 => {
                // What is cut off comes again as something else.
                let mut writer = self.store().writer(self.no).unwrap();
                writer.open_epoch(info.epoch + 1, some).unwrap();
                drop(writer);
                let leaves: Vec<_> = (0..b % 3).map(|_| publish(self.next(), &[])).collect();
                self.append(&leaves, false);
            }
            12 => {
                let leaves: Vec<_> = (0..=b % 3).map(|_| publish(self.next(), &[])).collect();
                let mut writer = self.store().writer(self.no).unwrap();
                writer.append(&leaves).unwrap();
                writer.commit(None).unwrap();
                if a.is_multiple_of(2) {
                    let kept = info.applied.map_or(0, |head| head.size).max(size);
                    writer.truncate_unsigned(kept).unwrap();
                }
            }
            13 if b.is_multiple_of(3) => {
                self.store().drop_feed(self.no).unwrap();
                let new = new_feed(false, &self.feeds.to_be_bytes());
                self.feeds += 1;
                self.no = self.store().create_feed(&new).unwrap();
            }
            14 if size > 0 => {
                let erase = Erase {
                    indexes: vec![IndexRange {
                        first: some,
                        count: 1 + b % 2,
                    }],
                    legal_basis: "order".to_owned(),
                    created: UnixMillis(1),
                };
                let leaf = RawLeaf::new(ERASE, erase.encode([7; 16]).unwrap());
                self.append(&[leaf], false);
                let mut writer = self.store().writer(self.no).unwrap();
                writer.drop_erased().unwrap();
            }
            15 => {
                self.store = None;
                self.store = Some(open(self.dir.path()));
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whoever_follows_ends_at_what_the_store_answers(
        before in prop::collection::vec((0_u8..16, any::<u64>(), any::<u64>()), 0..12),
        then in prop::collection::vec((0_u8..22, any::<u64>(), any::<u64>()), 0..40),
    ) {
        let mut world = World::new();
        for (what, a, b) in before {
            world.happens(what, a, b);
        }
        let mut follower = Follower::start(world.store());
        for (what, a, b) in then {
            match what {
                16 | 17 => { note(world.store()); }
                18 | 19 => { follower.take(world.store(), at(1 + a % 9)); }
                20 => follower.ack(world.store()),
                // Killed, it knows where it was when it said so last, and holds more.
                21 => follower.at = follower.acked,
                _ => world.happens(what, a, b),
            }
        }
        follower.catch_up(world.store());
        follower.agrees(world.store(), world.entries);
        follower.ack(world.store());
        let consumers = world.store().consumers().unwrap();
        prop_assert_eq!(consumers[0].behind, 0);
        for feed in world.store().feeds() {
            if feed.status.answers() && feed.indexed > 0 {
                prop_assert_eq!(world.store().consumed(feed.no).unwrap(), Some(feed.indexed));
            }
        }
        // One that begins now is told the same.
        let mut fresh = Follower::start(world.store());
        fresh.catch_up(world.store());
        prop_assert_eq!(fresh.held, follower.held);
    }
}

#[test]
fn without_a_consumer_nothing_is_logged_and_with_the_last_one_the_log_goes() {
    let mut world = World::new();
    world.happens(0, 3, 1);
    assert_eq!(note(world.store()), None);
    let follower = Follower::start(world.store());
    world.happens(0, 3, 1);
    assert_eq!(note(world.store()), Some(1));
    assert!(world.store().remove_consumer(&name()).unwrap());
    assert!(!world.store().remove_consumer(&name()).unwrap());
    assert_eq!(note(world.store()), None);
    let refused = world.store().changes_after(&follower.at, 9).unwrap();
    assert_eq!(refused, Err(CursorError::OtherHistory));
    // A log that begins again is another one, whatever its numbers.
    let after = UnixMillis(LATER.0 + 1);
    let begun = world.store().begin_snapshot(&name(), "test", &whole, after);
    assert_eq!(begun.unwrap().unwrap().number, follower.at.number);
    let refused = world.store().changes_after(&follower.at, 9).unwrap();
    assert_eq!(refused, Err(CursorError::OtherHistory));
}

#[test]
fn what_everybody_acknowledged_is_let_go_and_who_comes_back_to_it_starts_over() {
    let mut world = World::new();
    let mut follower = Follower::start(world.store());
    let begun = follower.at;
    world.happens(0, 3, 1);
    follower.catch_up(world.store());
    let other = Slug::parse("other").unwrap();
    let begin = || world.store().begin_snapshot(&other, "test", &whole, LATER);
    let slow = begin().unwrap().unwrap();
    follower.ack(world.store());
    assert!(world.store().changes_after(&slow, 9).unwrap().is_ok());
    let old = world.store().changes_after(&begun, 9).unwrap();
    assert_eq!(old, Err(CursorError::TooOld));
    let refused = world.store().acknowledge(&name(), &begun, LATER).unwrap();
    assert_eq!(refused, Some(Err(CursorError::TooOld)));
    let unknown = Slug::parse("nobody").unwrap();
    let refused = world.store().acknowledge(&unknown, &slow, LATER).unwrap();
    assert_eq!(refused, None);
}

/// Opens a store anew: before and after, the consumer acts on as much of a feed.
fn opened_anew(store: Store, dir: &Path, (no, acts_on): (FeedNo, Option<u64>)) -> Store {
    let sizes = |store: &Store| store.consumers().unwrap()[0].sizes.get(&no).copied();
    assert_eq!(sizes(&store), acts_on);
    drop(store);
    let store = open(dir);
    assert_eq!(sizes(&store), acts_on);
    store
}

// ⚠ Whatever was written last before a crash.
#[test]
fn after_a_cut_a_consumer_acts_on_nothing_of_a_feed_until_it_has_acknowledged_the_cut() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
    let grow = |store: &Store, leaves: std::ops::Range<u64>| {
        let mut writer = store.writer(no).unwrap();
        let leaves: Vec<_> = leaves.map(|n| publish(n, &[])).collect();
        writer.append(&leaves).unwrap();
        commit_signed(&mut writer);
    };
    let acts_on = |store, size| opened_anew(store, dir.path(), (no, size));
    grow(&store, 0..20);
    let mut follower = Follower::start(&store);
    follower.catch_up(&store);
    follower.ack(&store);
    let store = acts_on(store, Some(20));
    // Noted and not acknowledged, then cut off, and others in their place.
    grow(&store, 20..31);
    note(&store);
    let store = acts_on(store, Some(20));
    store.writer(no).unwrap().open_epoch(1, 11).unwrap();
    let store = acts_on(store, None);
    grow(&store, 40..43);
    let store = acts_on(store, None);
    note(&store);
    let store = acts_on(store, None);
    // What was logged before the cut is not the cut.
    while follower.at.number() == follower.acked.number() {
        follower.take(&store, 1);
    }
    follower.ack(&store);
    let store = acts_on(store, None);
    follower.catch_up(&store);
    follower.ack(&store);
    let store = acts_on(store, Some(14));
    // Leaves that nobody was shown go without a word.
    grow(&store, 43..46);
    note(&store);
    let mut writer = store.writer(no).unwrap();
    writer.append(&[publish(50, &[])]).unwrap();
    writer.sync().unwrap();
    writer.truncate_unsigned(17).unwrap();
    drop(writer);
    let store = acts_on(store, Some(14));
    note(&store);
    acts_on(store, Some(14));
}

#[test]
fn a_store_that_was_restored_tells_cursors_of_what_it_lost() {
    let mut world = World::new();
    let mut follower = Follower::start(world.store());
    world.happens(0, 3, 1);
    follower.catch_up(world.store());
    let lost = follower.at;
    // The same numbers, another history.
    let mut restored = World::new();
    let mut other = Follower::start(restored.store());
    restored.happens(12, 1, 2);
    restored.happens(0, 1, 1);
    other.catch_up(restored.store());
    let refused = restored.store().changes_after(&lost, 9).unwrap();
    assert_eq!(refused, Err(CursorError::OtherHistory));
}

#[test]
fn there_is_room_for_so_many_consumers_and_for_the_first_of_everybody() {
    let world = World::new();
    let begin = |owner: &str, n: usize| {
        let name = Slug::parse(&format!("{owner}-{n}")).unwrap();
        let begun = world.store().begin_snapshot(&name, owner, &whole, LATER);
        begun.unwrap().is_some()
    };
    let share = crate::CONSUMERS_PER_OWNER;
    assert!((0..share).all(|n| begin("one", n)));
    assert!(!begin("one", share), "an owner has its share");
    assert!((share..crate::CONSUMERS_MAX).all(|n| begin("two", n)));
    assert!(
        begin("three", 0),
        "the first of each is let in all the same"
    );
    assert!(!begin("three", 1));
    assert!(begin("one", 3), "one that is there may start over");
}
