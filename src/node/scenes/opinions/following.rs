//! Opinions as changes: whoever follows knows what is disputed.

use std::collections::BTreeMap;

use super::*;
use crate::changes::{Change, ChangeCursor};

/// What a matcher of the member's own keeps: the state of each version of an entry.
struct Follower {
    kept: BTreeMap<(FeedId, u64), &'static str>,
    at: ChangeCursor,
}

impl Follower {
    fn start(node: &Node) -> Self {
        Self {
            kept: BTreeMap::new(),
            at: node.begin_snapshot(&slug("matcher"), "test").unwrap(),
        }
    }

    fn catch_up(&mut self, node: &Node) {
        node.note_changes().unwrap();
        loop {
            let changed = node.changes(&self.at, 3).unwrap();
            for change in changed.changes {
                match change {
                    Change::Entry(present) => {
                        let at = (present.feed, present.entry.index);
                        self.kept.insert(at, present.entry.state);
                    }
                    Change::Withdrawn { feed, index, .. } => {
                        self.kept.remove(&(feed, index));
                    }
                    Change::SetWithdrawn { feed, .. } => self.kept.retain(|(of, _), _| *of != feed),
                }
            }
            self.at = changed.next;
            if changed.caught_up {
                return;
            }
        }
    }

    /// That it holds what look-ups answer, and as these say that it stands.
    fn agrees(&self, node: &Node, entries: u64) {
        let mut answered = BTreeMap::new();
        for n in 0..entries {
            for found in &node.lookup(&[sha256_of(n)]).unwrap()[0] {
                let state = match found.standing {
                    MatchStanding::Active => "active",
                    MatchStanding::Disputed => "disputed",
                    MatchStanding::Review | MatchStanding::Retracted => "review",
                };
                answered.insert((found.feed, found.index), state);
            }
        }
        assert_eq!(self.kept, answered);
    }
}

fn harbor_retracts(node: &Node, index: u64) {
    let retract = Retract {
        indexes: vec![IndexRange {
            first: index,
            count: 1,
        }],
        reason: RetractReason::Other,
        note: String::new(),
        recheck: false,
        created: NOW,
        identity_signature: None,
    };
    let leaf = RawLeaf::new(RETRACT, retract.encode([6; 16]).unwrap());
    foreign(node, b"harbor/opinions", &[leaf]);
}

/// One thing that happens, by a number.
fn happens(scene: &Scene, node: &mut Option<Arc<Node>>, what: u8, n: u64) {
    let own = node.as_ref().unwrap();
    let about = on(&format!("north/confirmed#{}", n + 1), None);
    match what {
        0 | 1 => drop(own.opine(&no(about))),
        2 => drop(own.opine(&yes(about))),
        3 => drop(own.opine(&withdraw(about))),
        4 => drop(harbor_says(own, n + 1, Stance::Negative)),
        5 => {
            let held = own.store().feed_no(&FeedId(Digest::of(b"harbor/opinions")));
            let size = held.map_or(0, |no| own.store().feed(no).unwrap().stored);
            if size > 0 {
                harbor_retracts(own, n % size);
            }
        }
        6 => drop(import(
            own,
            "confirmed",
            vec![entry(n, if n.is_multiple_of(2) { "a" } else { "b" })],
        )),
        7 => {
            let held = own.store().feed_no(&FeedId(Digest::of(b"harbor/opinions")));
            if let Some(no) = held.filter(|_| n < 3) {
                own.store().drop_feed(no).unwrap();
            }
        }
        8 => {
            let retraction = Retraction {
                reason: RetractReason::Wrong,
                note: String::new(),
                recheck: false,
                selectors: vec![(1, Selector::SourceReference(format!("ref-{n}")))],
            };
            own.retract(&slug("confirmed"), &retraction).unwrap();
        }
        11 => drop(own.opine(&no(OpineAbout::Signal(sha256_of(n))))),
        12 => drop(own.opine(&withdraw(OpineAbout::Signal(sha256_of(n))))),
        _ => {
            *node = None;
            *node = Some(scene.open());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn whoever_follows_knows_what_is_disputed(
        history in prop::collection::vec((0_u8..13, 0_u64..5), 1..24),
        begins in 0_usize..6,
    ) {
        let scene = Scene::new();
        let mut node = Some(with_entries(&scene));
        let mut follower = None;
        for (at, (what, n)) in history.into_iter().enumerate() {
            if at >= begins && follower.is_none() {
                follower = Some(Follower::start(node.as_ref().unwrap()));
            }
            match (what, &mut follower) {
                (10, Some(follower)) => follower.catch_up(node.as_ref().unwrap()),
                _ => happens(&scene, &mut node, what, n),
            }
        }
        let node = node.unwrap();
        let mut follower = follower.unwrap_or_else(|| Follower::start(&node));
        follower.catch_up(&node);
        follower.agrees(&node, 10);
    }
}

#[test]
fn a_word_on_a_signal_is_a_change_of_all_that_carry_it_as_long_as_its_writer_publishes_it() {
    let scene = Scene::new();
    let node = with_entries(&scene);
    let mut follower = Follower::start(&node);
    follower.catch_up(&node);
    let disputed = |follower: &Follower| {
        let states = follower.kept.values();
        states.filter(|state| **state == "disputed").count()
    };
    let signal = || OpineAbout::Signal(sha256_of(3));
    node.opine(&no(signal())).unwrap();
    follower.catch_up(&node);
    assert_eq!(disputed(&follower), 1);
    follower.agrees(&node, 10);
    node.opine(&withdraw(signal())).unwrap();
    // Somebody else's signal is nobody's to dispute.
    let own = Subject::OwnSignal(sha256_of(3));
    let other = opinion(own, Stance::Negative, Vec::new());
    foreign(&node, b"harbor/opinions", &[other]);
    follower.catch_up(&node);
    assert_eq!(disputed(&follower), 0);
    follower.agrees(&node, 10);
}

#[test]
fn an_opinion_that_changes_a_standing_is_a_change() {
    let scene = Scene::new();
    let node = with_entries(&scene);
    let mut follower = Follower::start(&node);
    follower.catch_up(&node);
    node.opine(&no(on("north/confirmed#4", None))).unwrap();
    follower.catch_up(&node);
    let disputed = follower.kept.values().filter(|state| **state == "disputed");
    assert_eq!(disputed.count(), 1);
    follower.agrees(&node, 10);
}
