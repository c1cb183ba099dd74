//! Sets that are allow lists: what they name is held back, and follows them.

use std::sync::Arc;

use hashpact_core::id::SetName;
use hashpact_core::leaf::{DESCRIBE, Describe, FeedKind as DescribedKind, Source, Terms};

use super::quarantine::{of, pdq, with_signals};
use super::*;
use crate::quarantine::Reason;
use crate::{AllowList, NearAllowed};

const SET: &str = "harbor/known";

/// Pictures within 31 bits of one of these.
struct Near(Vec<[u8; 32]>);

impl NearAllowed for Near {
    fn is_near(&self, asked: &[u8; 32]) -> bool {
        let apart = |value: &[u8; 32]| {
            let bits = value.iter().zip(asked).map(|(a, b)| (a ^ b).count_ones());
            bits.sum::<u32>()
        };
        self.0.iter().any(|value| apart(value) <= 31)
    }
}

fn near(pictures: Vec<[u8; 32]>) -> Arc<dyn NearAllowed> {
    Arc::new(Near(pictures))
}

fn open_with(dir: &Path) -> Store {
    let options = StoreOptions {
        allow_list: AllowList::default().with_near_by(near),
        allow_sets: vec![SetName::parse(SET).unwrap()],
        ..options()
    };
    Store::open(dir, &options).unwrap()
}

fn describe() -> RawLeaf {
    let describe = Describe {
        genesis: Digest::of(b"genesis"),
        feed_kind: DescribedKind::HashSet,
        name: SetName::parse(SET).unwrap(),
        title: String::new(),
        grants: Vec::new(),
        terms: Terms {
            source: Source::OwnWork,
            may_share: true,
            text: String::new(),
        },
        classification_scheme: None,
        created: UnixMillis(1),
        identity_signature: None,
    };
    RawLeaf::new(DESCRIBE, describe.encode([4; 16]).unwrap())
}

fn say(store: &Store, no: FeedNo, leaves: &[RawLeaf]) {
    let mut writer = store.writer(no).unwrap();
    writer.append(leaves).unwrap();
    commit_signed(&mut writer);
}

fn take_back(first: u64) -> RawLeaf {
    retract(vec![IndexRange { first, count: 1 }])
}

#[test]
fn what_a_set_names_is_held_back_as_long_as_it_stands_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(dir.path());
    let [theirs, known] =
        [b"theirs", b"knownn"].map(|name| store.create_feed(&new_feed(false, name)).unwrap());
    say(&store, theirs, &[publish(0, &[]), publish(1, &[])]);
    let digest = |n: u64| signals(n)[0].clone();
    say(
        &store,
        known,
        &[describe(), with_signals(90, vec![digest(1)])],
    );
    assert!(store.allow_sets_changed());
    store.follow_allow_sets().unwrap();
    assert!((of(&digest(0), &store), of(&digest(1), &store)) == (1, 0));
    assert_eq!(of(&signals(1)[1], &store), 1, "its other signal answers");
    // What comes later goes by it as well.
    say(&store, theirs, &[publish(1, &[])]);
    assert_eq!(of(&digest(1), &store), 0);
    sound(&store);
    drop(store);
    let store = open_with(dir.path());
    assert_eq!(of(&digest(1), &store), 0, "after a start too");
    store.follow_allow_sets().unwrap();
    assert!(!store.allow_sets_changed());

    say(&store, known, &[take_back(1)]);
    store.follow_allow_sets().unwrap();
    assert_eq!(of(&digest(1), &store), 2, "it follows what is taken back");
    sound(&store);
    drop(store);
    let store = open_with(dir.path());
    assert_eq!(of(&digest(1), &store), 2);
    sound(&store);
}

#[test]
fn pictures_near_one_of_the_set_are_held_back_those_held_and_those_that_come() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(dir.path());
    let [theirs, known] =
        [b"theirs", b"knownn"].map(|name| store.create_feed(&new_feed(false, name)).unwrap());
    let picture = |n: u64, bits| with_signals(n, vec![signals(n)[0].clone(), pdq(bits, 80)]);
    say(&store, theirs, &[picture(0, 120), picture(1, 159)]);
    say(&store, known, &[describe(), picture(90, 128)]);
    store.follow_allow_sets().unwrap();
    say(&store, theirs, &[picture(2, 140)]);
    let answers = |store: &Store| [120, 159, 140].map(|bits| of(&pdq(bits, 80), store));
    assert_eq!(answers(&store), [0, 0, 0]);
    assert_eq!(of(&signals(0)[0], &store), 1, "its SHA-256 answers");
    sound(&store);
    say(&store, known, &[take_back(1)]);
    store.follow_allow_sets().unwrap();
    assert_eq!(answers(&store), [1, 1, 1]);
    sound(&store);
}

#[test]
fn what_waits_in_the_set_itself_is_on_no_list() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(dir.path());
    let [theirs, known] =
        [b"theirs", b"knownn"].map(|name| store.create_feed(&new_feed(false, name)).unwrap());
    say(&store, theirs, &[publish(0, &[])]);
    let mut writer = store.writer(known).unwrap();
    writer.quarantine(Reason::OverGrowth, [1]);
    let named = with_signals(90, vec![signals(0)[0].clone()]);
    writer.append(&[describe(), named]).unwrap();
    commit_signed(&mut writer);
    drop(writer);
    store.follow_allow_sets().unwrap();
    assert_eq!(of(&signals(0)[0], &store), 1);
    // Nor is a set that nobody named.
    drop(store);
    let store = open(dir.path());
    assert!(!store.allow_sets_changed());
}

#[test]
fn a_load_that_began_under_another_list_goes_by_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(dir.path());
    let [theirs, known] =
        [b"theirs", b"knownn"].map(|name| store.create_feed(&new_feed(false, name)).unwrap());
    let mut writer = store.writer(theirs).unwrap();
    let many: Vec<RawLeaf> = (0..400).map(|n| publish(n, &[])).collect();
    writer.append(&many).unwrap();
    say(
        &store,
        known,
        &[describe(), with_signals(900, vec![signals(7)[0].clone()])],
    );
    store.follow_allow_sets().unwrap();
    commit_signed(&mut writer);
    drop(writer);
    assert_eq!(of(&signals(7)[0], &store), 0);
    assert_eq!(of(&signals(8)[0], &store), 1);
    sound(&store);
}
