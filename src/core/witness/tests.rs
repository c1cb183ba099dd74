//! Each rule by itself.

use std::sync::Mutex;

use super::*;
use crate::checkpoint::{Checkpoint, Origin};
use crate::id::CoalitionName;
use crate::keys::{Feed as FeedKey, SecretKey};
use crate::merkle::leaf_hash;

pub(super) const FEED: FeedId = FeedId(Digest([7; 32]));
/// Histories part here.
const PARTS_AT: u64 = 7;

pub(super) fn publisher() -> MemberNumber {
    MemberNumber::new(1).unwrap()
}

fn leaf(history: u8, index: u64) -> Digest {
    let mut record = [2; 33];
    record[1..9].copy_from_slice(&index.to_be_bytes());
    record[9] = if index < PARTS_AT { 0 } else { history };
    leaf_hash(&record)
}

fn range(history: u8, from: u64, to: u64) -> CompactRange {
    let mut range = CompactRange::empty(from);
    range.extend((from..to).map(|index| leaf(history, index)));
    range
}

pub(super) fn head(history: u8, size: u64) -> Head {
    head_of(0, history, size)
}

/// The root of a history at a size.
pub(super) fn root(history: u8, size: u64) -> Digest {
    static MADE: Mutex<BTreeMap<(u8, u64), Digest>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap();
    let root = || range(history, 0, size).root();
    let root = || root().unwrap_or_else(merkle::empty_root);
    *made.entry((history, size)).or_insert_with(root)
}

/// Signing is slow without optimisation: each head is made once.
fn head_of(epoch: u32, history: u8, size: u64) -> Head {
    static MADE: Mutex<BTreeMap<(u32, u8, u64), Head>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap();
    let of = (epoch, history, size);
    made.entry(of).or_insert_with(|| make(of)).clone()
}

fn make((epoch, history, size): (u32, u8, u64)) -> Head {
    let coalition = CoalitionName::parse("test.example").unwrap();
    let key = SecretKey::<FeedKey>::from_seed(&[1; 32]);
    let feed = FEED;
    let checkpoint = Checkpoint {
        origin: Origin {
            coalition: coalition.clone(),
            feed,
            epoch,
        },
        size,
        root: root(history, size),
    };
    let note = crate::checkpoint::sign(&checkpoint, &key);
    let keys = |_| vec![key.public()];
    let verified = crate::checkpoint::verify(&note, &coalition, &feed, keys).unwrap();
    Head::from(verified)
}

pub(super) fn base() -> Base {
    Base::empty()
}

pub(super) fn proof(history: u8, from: u64, to: u64) -> ProofParts {
    ProofParts {
        from,
        to,
        before: range(history, 0, from).hashes().to_vec(),
        range: range(history, from, to).hashes().to_vec(),
        after: Vec::new(),
    }
}

const ONE: PeerId = PeerId(1);
const TWO: PeerId = PeerId(2);

fn shown(peer: PeerId, head: Head) -> Event {
    Event::Shown {
        peer,
        publisher: publisher(),
        head,
        base: base(),
        own: false,
        holds: true,
    }
}

fn own(peer: PeerId, head: Head) -> Event {
    Event::Shown {
        peer,
        publisher: publisher(),
        head,
        base: base(),
        own: true,
        holds: true,
    }
}

fn cosigned(head: &Head) -> Cosigned {
    Cosigned::of(publisher(), head)
}

/// A witness whose disk and peers answer by themselves, and what it did.
struct Scene {
    witness: Witness,
    now: u64,
    did: Vec<Action>,
    histories: BTreeMap<PeerId, u8>,
}

impl Scene {
    fn new() -> Self {
        Self {
            witness: Witness::new(),
            now: 10,
            did: Vec::new(),
            histories: BTreeMap::from([(ONE, 1), (TWO, 2)]),
        }
    }

    fn settled() -> Self {
        let mut scene = Self::new();
        scene.tell(Event::Settled);
        scene
    }

    fn tell(&mut self, event: Event) {
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.witness.handle(UnixMillis(self.now), event) {
                match &action {
                    Action::Prove {
                        job,
                        peer,
                        from,
                        head,
                        ..
                    } => {
                        let parts = proof(self.histories[peer], *from, head.size);
                        events.push_back(match Extension::check(parts, *from, head) {
                            Ok(extension) => Event::Proved {
                                job: *job,
                                extension,
                            },
                            Err(_) => Event::NotProved { job: *job },
                        });
                    }
                    Action::Record { feed, .. } => {
                        events.push_back(Event::Recorded { feed: *feed });
                    }
                    Action::Wake { at } => assert!(at.0 > self.now, "it never spins"),
                    Action::Sign { .. } | Action::Fork { .. } | Action::Refuse { .. } => {}
                }
                self.did.push(action);
            }
        }
    }

    fn later(&mut self, ms: u64) {
        self.now += ms;
        self.tell(Event::Tick);
    }

    fn signed(&self) -> Vec<u64> {
        let mut signed = Vec::new();
        for action in &self.did {
            if let Action::Sign { cosigned, .. } = action {
                signed.push(cosigned.size);
            }
        }
        signed
    }

    fn forks(&self) -> Vec<(Bytes, Bytes)> {
        let mut forks = Vec::new();
        for action in &self.did {
            if let Action::Fork {
                smaller, larger, ..
            } = action
            {
                forks.push((smaller.clone(), larger.clone()));
            }
        }
        forks
    }
}

#[test]
fn the_first_head_is_recorded_then_signed_and_a_later_one_after_its_proof() {
    let mut scene = Scene::settled();
    scene.tell(shown(ONE, head(1, 3)));
    let order: Vec<&str> = scene
        .did
        .iter()
        .map(|action| match action {
            Action::Record { .. } => "record",
            Action::Sign { .. } => "sign",
            Action::Wake { .. } => "wake",
            Action::Prove { .. } | Action::Fork { .. } | Action::Refuse { .. } => "other",
        })
        .collect();
    assert_eq!(order, ["record", "sign", "wake"]);
    scene.later(PACE_MS);
    scene.did.clear();
    scene.tell(shown(ONE, head(1, 20)));
    assert!(matches!(scene.did[0], Action::Prove { from: 3, .. }));
    assert!(matches!(
        scene.did[1],
        Action::Record {
            expected: Some((0, 3, _)),
            ..
        }
    ));
    assert_eq!(scene.signed(), [20]);
}

#[test]
fn nothing_is_recorded_or_signed_before_the_peers_have_been_heard() {
    let mut scene = Scene::new();
    let held = cosigned(&head(1, 5));
    scene.tell(Event::Held {
        feed: FEED,
        cosigned: held,
    });
    scene.tell(shown(ONE, head(1, 9)));
    scene.later(RENEW_MS);
    assert_eq!(scene.did, []);
    scene.tell(Event::Settled);
    assert_eq!(
        scene.signed(),
        [5],
        "what is recorded may not have been told"
    );
    scene.later(PACE_MS);
    assert_eq!(scene.signed(), [5, 9]);
}

#[test]
fn a_head_is_signed_again_within_ten_minutes() {
    let mut scene = Scene::settled();
    scene.tell(shown(ONE, head(1, 3)));
    scene.later(RENEW_MS - 1);
    assert_eq!(scene.signed(), [3]);
    scene.later(1);
    assert_eq!(scene.signed(), [3, 3]);
    scene.later(PACE_MS);
    const { assert!(RENEW_MS < 10 * 60_000) };
    let due = Action::Wake {
        at: UnixMillis(10 + 2 * RENEW_MS),
    };
    assert!(scene.did.contains(&due), "it asks to be told");
}

#[test]
fn with_another_key_what_is_recorded_is_signed_again_a_second_later_and_no_other_history() {
    let mut scene = Scene::settled();
    scene.tell(shown(ONE, head(1, 9)));
    scene.did.clear();
    scene.tell(Event::Rekeyed);
    assert!(
        scene.signed().is_empty(),
        "of two words in one second the first counts"
    );
    scene.later(PACE_MS);
    assert_eq!(scene.signed(), [9]);
    scene.later(PACE_MS);
    scene.later(RENEW_MS / 2);
    assert_eq!(scene.signed(), [9], "once");
    let records = |action: &Action| matches!(action, Action::Record { .. });
    assert!(
        !scene.did.iter().any(records),
        "the record is for every key"
    );
    scene.tell(Event::Rekeyed);
    scene.tell(shown(TWO, head(2, 20)));
    scene.later(PACE_MS);
    scene.later(RENEW_MS);
    assert_eq!((scene.signed(), scene.forks().len()), (vec![9, 9], 1));
}

#[test]
fn many_new_heads_are_signed_once_a_second() {
    let mut scene = Scene::settled();
    for size in 1..30 {
        scene.tell(shown(ONE, head(1, size)));
        scene.now += 10;
    }
    assert_eq!(scene.signed(), [1]);
    scene.later(PACE_MS);
    assert_eq!(scene.signed(), [1, 29]);
}

#[test]
fn of_two_heads_that_do_not_merge_the_second_is_never_signed_and_the_proof_is_evidence() {
    for (first, second) in [(9, 12), (12, 9), (9, 9)] {
        let mut scene = Scene::settled();
        scene.tell(shown(ONE, head(1, first)));
        scene.tell(shown(TWO, head(2, second)));
        scene.later(PACE_MS + BELOW_MS);
        assert_eq!(scene.signed(), [first]);
        let (one, two) = (
            head(1, first).note().clone(),
            head(2, second).note().clone(),
        );
        let expected = if first <= second {
            (one, two)
        } else {
            (two, one)
        };
        assert_eq!(scene.forks(), [expected], "{first} and {second}");
        scene.tell(shown(ONE, head(1, 20)));
        scene.later(2 * RENEW_MS);
        assert_eq!(scene.signed(), [first], "the feed is not cosigned any more");
        assert_eq!(scene.forks().len(), 1, "said once");
    }
}

#[test]
fn a_shorter_head_of_the_same_history_is_no_fork() {
    let mut scene = Scene::settled();
    scene.tell(shown(ONE, head(1, 12)));
    scene.histories.insert(TWO, 1);
    scene.tell(shown(TWO, head(1, 9)));
    scene.later(PACE_MS + BELOW_MS);
    assert_eq!(scene.forks(), []);
    scene.tell(shown(TWO, head(1, 15)));
    assert_eq!(scene.signed(), [12, 15]);
}

#[test]
fn what_it_cosigned_before_counts_whatever_the_record_says() {
    // Restored: the record knows 5 leaves, and it had cosigned 10 of the first history.
    let mut scene = Scene::new();
    scene.tell(Event::Held {
        feed: FEED,
        cosigned: cosigned(&head(1, 5)),
    });
    scene.tell(shown(TWO, head(2, 40)));
    scene.tell(own(ONE, head(1, 10)));
    scene.tell(shown(ONE, head(1, 11)));
    scene.tell(Event::Settled);
    scene.later(PACE_MS);
    scene.later(PACE_MS);
    assert!(!scene.signed().contains(&40), "{:?}", scene.signed());
    assert_eq!(scene.signed()[0], 10);
    assert_eq!(scene.forks().len(), 1, "and the other history is evidence");
}

#[test]
fn while_nobody_proves_what_it_cosigned_before_nothing_is_signed() {
    let mut scene = Scene::new();
    scene.tell(Event::Held {
        feed: FEED,
        cosigned: cosigned(&head(1, 5)),
    });
    // Who shows it cannot prove it.
    scene.histories.insert(ONE, 2);
    scene.tell(own(ONE, head(1, 10)));
    scene.tell(shown(TWO, head(2, 40)));
    scene.tell(Event::Settled);
    scene.later(10 * 60_000);
    assert_eq!(scene.signed(), []);
    assert!(scene.witness.standings().next().unwrap().behind);
    scene.histories.insert(ONE, 1);
    scene.later(10 * 60_000);
    assert_eq!(scene.signed(), [10]);
}

#[test]
fn its_own_word_for_another_history_closes_the_feed() {
    let mut scene = Scene::settled();
    scene.tell(shown(ONE, head(1, 12)));
    scene.tell(own(TWO, head(2, 20)));
    scene.later(PACE_MS);
    scene.later(2 * RENEW_MS);
    assert_eq!(scene.signed(), [12]);
    assert_eq!(scene.forks().len(), 1);
}

#[test]
fn a_peer_without_a_proof_is_left_for_another_and_asked_again_later() {
    let mut scene = Scene::settled();
    scene.tell(shown(ONE, head(1, 3)));
    scene.later(PACE_MS);
    scene.did.clear();
    scene.histories.insert(ONE, 2);
    scene.tell(shown(ONE, head(1, 20)));
    assert_eq!(scene.signed(), []);
    scene.histories.insert(TWO, 1);
    scene.tell(shown(TWO, head(1, 20)));
    assert_eq!(scene.signed(), [20]);
}

#[test]
fn who_holds_nothing_of_a_feed_is_not_asked_for_a_proof() {
    let mut scene = Scene::settled();
    scene.tell(shown(ONE, head(1, 3)));
    scene.later(PACE_MS);
    scene.did.clear();
    scene.tell(Event::Shown {
        peer: TWO,
        publisher: publisher(),
        head: head(1, 20),
        base: base(),
        own: false,
        holds: false,
    });
    assert_eq!(scene.did, []);
    scene.tell(shown(ONE, head(1, 20)));
    assert_eq!(scene.signed(), [20]);
}

#[test]
fn a_new_epoch_begins_where_the_roster_says_also_below_what_was_cosigned() {
    let mut scene = Scene::settled();
    scene.tell(shown(ONE, head(1, 20)));
    scene.later(PACE_MS);
    let opened = Base {
        size: 9,
        root: head(1, 9).root(),
    };
    let next = |size, history| Event::Shown {
        peer: PeerId(u64::from(history)),
        publisher: publisher(),
        head: head_of(1, history, size),
        base: opened,
        own: false,
        holds: true,
    };
    scene.tell(next(15, 1));
    assert_eq!(scene.signed(), [20, 15]);
    // One that does not contain what the roster names is refused, and proves nothing.
    let mut other = Scene::settled();
    other.tell(shown(ONE, head(1, 20)));
    other.later(PACE_MS);
    other.tell(next(15, 2));
    other.later(RENEW_MS);
    let refused = |action: &Action| matches!(action, Action::Refuse { peer: TWO, .. });
    assert!(other.did.iter().any(refused));
    assert_eq!(other.forks(), []);
    assert!(!other.signed().contains(&15));
}

#[test]
fn after_evidence_from_elsewhere_nothing_of_that_epoch_is_signed() {
    let mut scene = Scene::settled();
    scene.tell(shown(ONE, head(1, 3)));
    scene.tell(Event::Forked {
        feed: FEED,
        epoch: 0,
    });
    scene.tell(shown(ONE, head(1, 9)));
    scene.later(RENEW_MS);
    assert_eq!(scene.signed(), [3]);
    let epoch = Event::Shown {
        peer: ONE,
        publisher: publisher(),
        head: head_of(1, 1, 9),
        base: Base {
            size: 9,
            root: head(1, 9).root(),
        },
        own: false,
        holds: true,
    };
    scene.tell(epoch);
    assert_eq!(scene.signed(), [3, 9]);
}

#[test]
fn evidence_that_was_there_first_counts_as_much() {
    let mut scene = Scene::new();
    scene.tell(Event::Forked {
        feed: FEED,
        epoch: 0,
    });
    scene.tell(shown(ONE, head(1, 9)));
    scene.tell(Event::Settled);
    assert_eq!(scene.signed(), []);
}

#[test]
fn a_proof_against_a_record_that_was_read_again_meanwhile_counts_for_nothing() {
    let mut witness = Witness::new();
    let at = UnixMillis(10);
    let held = |size| Event::Held {
        feed: FEED,
        cosigned: cosigned(&head(1, size)),
    };
    witness.handle(at, held(5));
    witness.handle(at, Event::Settled);
    let did = witness.handle(at.plus(PACE_MS), shown(TWO, head(2, 12)));
    let Some(Action::Prove { job, head: to, .. }) = did.first() else {
        panic!("{did:?}")
    };
    witness.handle(at.plus(PACE_MS), held(10));
    let extension = Extension::check(proof(2, 5, 12), 5, to).unwrap();
    let did = witness.handle(
        at.plus(PACE_MS),
        Event::Proved {
            job: *job,
            extension,
        },
    );
    let records = |action: &Action| matches!(action, Action::Record { .. });
    assert!(!did.iter().any(records), "{did:?}");
}

#[test]
fn every_field_of_a_proof_is_checked() {
    let to = PinnedHead {
        size: 20,
        root: head(1, 20).root(),
    };
    assert!(Extension::check(proof(1, 5, 20), 5, &to).is_ok());
    let code = |change: fn(&mut ProofParts)| {
        let mut parts = proof(1, 5, 20);
        change(&mut parts);
        Extension::check(parts, 5, &to).unwrap_err().code()
    };
    assert_eq!(code(|p| p.from = 4), "wrong_range");
    assert_eq!(code(|p| p.to = 19), "wrong_range");
    assert_eq!(code(|p| p.before.push(Digest([0; 32]))), "proof_length");
    assert_eq!(code(|p| p.range.truncate(1)), "proof_length");
    assert_eq!(code(|p| p.after.push(Digest([0; 32]))), "proof_length");
    assert_eq!(code(|p| p.before[0] = Digest([0; 32])), "wrong_root");
    assert_eq!(code(|p| p.range[0] = Digest([0; 32])), "wrong_root");
}
