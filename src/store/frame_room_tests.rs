//! Videos of one publisher take so much memory at most: what is beyond waits, and comes
//! in when there is room or by an operator's word.

use super::videos::{found, frames_held, video};
use super::*;
use crate::quarantine::{Chosen, Decision, LotName, Reason};

/// Frames of one video that have postings.
const FRAMES: u64 = 2;

fn open_with(dir: &Path, publisher_frames_max: u64) -> Store {
    let options = StoreOptions {
        publisher_frames_max,
        ..options()
    };
    Store::open(dir, &options).unwrap()
}

/// A video that has a SHA-256 as well.
fn beside(n: u64) -> RawLeaf {
    let (leaf, _) = video(n);
    let hashpact_core::leaf::Leaf::Publish(mut publish) = hashpact_core::leaf::read(&leaf, 9)
    else {
        panic!("a video");
    };
    publish.signals.push(signals(n)[0].clone());
    RawLeaf::new(PUBLISH, publish.encode([7; 16]).unwrap())
}

fn say(store: &Store, no: FeedNo, leaves: &[RawLeaf]) {
    let mut writer = store.writer(no).unwrap();
    writer.append(leaves).unwrap();
    commit_signed(&mut writer);
    writer.drop_erased().unwrap();
}

fn videos(numbers: std::ops::Range<u64>) -> Vec<RawLeaf> {
    numbers.map(beside).collect()
}

/// Which of some videos are found by a frame.
fn seen(store: &Store, numbers: std::ops::Range<u64>) -> Vec<u64> {
    let by_frame = |n: &u64| !found(store, &video(*n).1[0]).is_empty();
    numbers.filter(by_frame).collect()
}

fn by_digest(store: &Store, n: u64) -> bool {
    let found = store.lookup(&[signals(n)[0].index_key()]).unwrap();
    !found[0].is_empty()
}

fn release(store: &Store, no: FeedNo, leaves: &[u64]) -> u64 {
    let chosen = Chosen {
        reason: Some(Reason::Frames),
        leaves: Some(leaves.iter().copied().collect()),
    };
    let decided = store.decide_quarantine(no, &chosen, Decision::Release);
    decided.unwrap()
}

fn erase(first: u64, count: u64) -> RawLeaf {
    let erase = Erase {
        indexes: vec![IndexRange { first, count }],
        legal_basis: "a test".to_owned(),
        created: UnixMillis(1),
    };
    RawLeaf::new(ERASE, erase.encode([7; 16]).unwrap())
}

#[test]
fn videos_beyond_a_publishers_bound_are_found_by_their_other_signals_alone() {
    // In one small commit, and as a bulk load.
    for count in [10, 400] {
        let dir = tempfile::tempdir().unwrap();
        let store = open_with(dir.path(), 3 * FRAMES);
        let [one, two] = [b"one", b"two"].map(|n| store.create_feed(&new_feed(false, n)).unwrap());
        say(&store, one, &videos(0..2));
        // What one of its sets has taken is not there for another.
        say(&store, two, &videos(2..count));
        assert_eq!(seen(&store, 0..count), [0, 1, 2]);
        assert_eq!(frames_held(&store), 6, "nothing of the others is in memory");
        assert!(by_digest(&store, count - 1));
        let last = store.feed(two).unwrap().stored - 1;
        let lot = LotName {
            reason: Reason::Frames,
            kind: SignalKind::Vpdq.number_byte(),
        };
        assert_eq!(store.withheld(two, last).unwrap(), [lot]);
        assert_eq!(store.feed(two).unwrap().counts.frames, FRAMES);
        sound(&store);
        // Others, and this member itself, have room of their own.
        let other = NewFeed {
            publisher: MemberNumber::new(2).unwrap(),
            ..new_feed(false, b"other")
        };
        let other = store.create_feed(&other).unwrap();
        say(&store, other, &videos(1_000..1_003));
        let own = store.create_feed(&new_feed(true, b"own")).unwrap();
        say(&store, own, &videos(2_000..2_010));
        assert_eq!(seen(&store, 1_000..1_003).len(), 3);
        assert_eq!(seen(&store, 2_000..2_010).len(), 10);
        drop(store);
        let store = open_with(dir.path(), 3 * FRAMES);
        say(&store, one, &videos(5_000..5_001));
        assert!(seen(&store, 5_000..5_001).is_empty(), "known after a start");
        sound(&store);
    }
}

#[test]
fn what_waits_comes_in_when_there_is_room_the_first_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(dir.path(), 2 * FRAMES);
    let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
    say(&store, no, &videos(0..5));
    assert_eq!(store.feeds_with_frame_room(), []);
    assert_eq!(store.let_frames_in(no).unwrap(), 0);
    say(&store, no, &[erase(0, 1)]);
    assert_eq!(store.frames(no).unwrap(), FRAMES);
    assert_eq!(store.feeds_with_frame_room(), [no]);
    assert_eq!(store.let_frames_in(no).unwrap(), 1);
    assert_eq!(seen(&store, 0..5), [1, 2]);
    sound(&store);
    // What was let in makes room again when it goes.
    say(&store, no, &[erase(2, 1)]);
    assert_eq!(store.let_frames_in(no).unwrap(), 1);
    assert_eq!(seen(&store, 0..5), [1, 3]);
    sound(&store);
    drop(store);
    // A start counts the same; with a larger bound all come in.
    let store = open_with(dir.path(), 2 * FRAMES);
    assert_eq!(store.frames(no).unwrap(), 2 * FRAMES);
    drop(store);
    let store = open_with(dir.path(), 100);
    assert_eq!(store.let_frames_in(no).unwrap(), 1);
    assert_eq!(seen(&store, 0..5), [1, 3, 4]);
    assert_eq!(store.feeds_with_frame_room(), []);
    sound(&store);
}

#[test]
fn an_operator_lets_videos_in_whatever_the_bound_and_drops_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(dir.path(), 0);
    let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
    say(&store, no, &videos(0..4));
    assert!(seen(&store, 0..4).is_empty());
    assert_eq!(release(&store, no, &[1]), 1);
    assert_eq!(release(&store, no, &[1]), 0, "once");
    let drop_it = Chosen {
        reason: None,
        leaves: Some([2].into()),
    };
    let dropped = store.decide_quarantine(no, &drop_it, Decision::Drop);
    assert_eq!(dropped.unwrap(), 1);
    assert_eq!(seen(&store, 0..4), [1]);
    assert_eq!(release(&store, no, &[2]), 1, "a dropped one, by name");
    assert_eq!(seen(&store, 0..4), [1, 2]);
    assert_eq!(store.frames(no).unwrap(), 2 * FRAMES);
    sound(&store);
    drop(store);
    let store = open_with(dir.path(), 0);
    assert_eq!(seen(&store, 0..4), [1, 2]);
    sound(&store);
}

#[test]
fn a_commit_that_fails_takes_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(dir.path(), 2 * FRAMES);
    let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
    // Enough for a bulk load, which takes its room as leaves come.
    let mut writer = store.writer(no).unwrap();
    writer.append(&videos(0..400)).unwrap();
    assert_eq!(store.frames(no).unwrap(), 2 * FRAMES);
    drop(writer);
    assert_eq!(store.frames(no).unwrap(), 0);
}

#[test]
fn a_released_videos_frames_are_in_no_count_when_its_payload_comes_back() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let full = open_with(dirs[0].path(), 100);
    let store = open_with(dirs[1].path(), FRAMES);
    let no = full.create_feed(&new_feed(false, b"feed")).unwrap();
    assert_eq!(store.create_feed(&new_feed(false, b"feed")).unwrap(), no);
    let mut leaves = videos(0..3);
    leaves.push(erase(1, 1));
    let mut writer = full.writer(no).unwrap();
    writer.append(&leaves).unwrap();
    commit_signed(&mut writer);
    drop(writer);
    let size = full.feed(no).unwrap().stored;

    say(&store, no, &leaves[..3]);
    let waiting = size - 3;
    assert_eq!(release(&store, no, &[waiting]), 1);
    assert_eq!(store.frames(no).unwrap(), 2 * FRAMES);
    sound(&store);
    // It goes, and what took it away is held: so it is wanted again.
    say(&store, no, &leaves[3..]);
    assert_eq!(store.frames(no).unwrap(), FRAMES);
    store.hold_retractions(no, [size - 1].into()).unwrap();
    let mut writer = store.writer(no).unwrap();
    let whole = super::elisions::chunk_of(&full, no, 0, size, |_| false);
    let refilled = writer
        .refill(&whole, &crate::RefillTerms::default())
        .unwrap();
    assert_eq!(refilled.leaves, 1);
    drop(writer);
    assert_eq!(store.frames(no).unwrap(), 2 * FRAMES);
    sound(&store);
}
