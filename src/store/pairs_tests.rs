//! One MD5 or SHA-1 beside two SHA-256: who waits, who never does, and until when.

use super::*;
use std::time::Duration;

use crate::quarantine::{Chosen, Decision, LotName, Reason};
use crate::{RecheckBudget, Rechecked};

const MD5: u8 = 1;

fn digest(kind: SignalKind, length: usize, n: u64) -> Signal {
    let value = Digest::of(&[&[kind.number_byte()][..], &n.to_be_bytes()].concat());
    Signal::new(kind, value.0[..length].to_vec().into(), None).unwrap()
}

fn md5(n: u64) -> Signal {
    digest(SignalKind::Md5, 16, n)
}

fn sha(n: u64) -> Signal {
    digest(SignalKind::Sha256, 32, n)
}

fn entry(signals: &[Signal], replaces: &[u64]) -> RawLeaf {
    let publish = Publish {
        media_kind: MediaKind::Image,
        signals: signals.to_vec(),
        classification: None,
        labels: Vec::new(),
        basis: Basis::Human,
        source_reference: String::new(),
        first_seen: None,
        expires: None,
        replaces: replaces.to_vec(),
        published: UnixMillis(1),
    };
    RawLeaf::new(PUBLISH, publish.encode([7; 16]).unwrap())
}

fn take_back(index: u64) -> RawLeaf {
    retract(vec![IndexRange {
        first: index,
        count: 1,
    }])
}

struct Two {
    dir: tempfile::TempDir,
    store: Store,
    one: FeedNo,
    other: FeedNo,
}

impl Two {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let feed = |name: &[u8]| store.create_feed(&new_feed(false, name)).unwrap();
        let (one, other) = (feed(b"one"), feed(b"other"));
        Self {
            dir,
            store,
            one,
            other,
        }
    }

    fn say(&self, no: FeedNo, leaves: &[RawLeaf]) {
        let mut writer = self.store.writer(no).unwrap();
        writer.append(leaves).unwrap();
        commit_signed(&mut writer);
    }

    /// One round of at most so many pages and values.
    fn round(&self, pages: usize, looks: usize) -> Rechecked {
        let time = Duration::MAX;
        let budget = RecheckBudget { pages, looks, time };
        self.store.recheck_conflicts(&budget).unwrap()
    }

    fn lifted(&self, looks: usize) -> Vec<(FeedNo, u64)> {
        self.round(1_000, looks).lifted
    }

    fn held(&self, no: FeedNo, index: u64) -> Vec<LotName> {
        self.store.withheld(no, index).unwrap()
    }

    fn answers(&self, signal: &Signal) -> Vec<(FeedNo, u64)> {
        let found = self.store.lookup(&[signal.index_key()]).unwrap();
        found[0].iter().map(|p| (p.feed, p.index)).collect()
    }
}

fn conflict(kind: u8) -> Vec<LotName> {
    let reason = Reason::DigestConflict;
    vec![LotName { reason, kind }]
}

#[test]
fn an_md5_that_comes_beside_another_sha_256_waits_and_nothing_else_does() {
    let two = Two::new();
    two.say(two.one, &[entry(&[md5(1), sha(1)], &[])]);
    let sha1 = |n| digest(SignalKind::Sha1, 20, n);
    two.say(two.one, &[entry(&[sha1(2), sha(2)], &[])]);
    let coming = [
        entry(&[md5(1), sha(9)], &[]),
        entry(&[md5(1), sha(1)], &[]),
        entry(&[md5(1)], &[]),
        entry(&[sha1(2), sha(9)], &[]),
        entry(&[md5(3), sha(9)], &[]),
    ];
    two.say(two.other, &coming);
    assert_eq!(two.held(two.other, 0), conflict(MD5));
    assert_eq!(two.held(two.other, 1), [], "the pair is known");
    assert_eq!(two.held(two.other, 2), [], "it pairs nothing");
    assert_eq!(two.held(two.other, 3), conflict(2));
    assert_eq!(two.held(two.other, 4), []);
    assert_eq!(two.answers(&sha(9)).len(), 3, "its SHA-256 counts");
    let (one, other) = (two.one, two.other);
    assert_eq!(two.answers(&md5(1)), [(one, 0), (other, 1), (other, 2)]);
    sound(&two.store);
}

#[test]
fn a_bulk_load_is_held_to_the_same_rule_also_against_itself() {
    let two = Two::new();
    two.say(two.one, &[entry(&[md5(1), sha(1)], &[])]);
    let mut leaves: Vec<RawLeaf> = (0..400).map(|n| publish(n, &[])).collect();
    leaves.push(entry(&[md5(1), sha(9)], &[]));
    leaves.push(entry(&[md5(2), sha(2)], &[]));
    leaves.push(entry(&[md5(2), sha(3)], &[]));
    // A correction of its own pair is none of two.
    leaves.push(entry(&[md5(4), sha(4)], &[]));
    leaves.push(entry(&[md5(4), sha(5)], &[403]));
    two.say(two.other, &leaves);
    let held: Vec<u64> = (0..405)
        .filter(|index| !two.held(two.other, *index).is_empty())
        .collect();
    assert_eq!(held, [400, 402]);
    sound(&two.store);
}

#[test]
fn who_publishes_first_disarms_nobody_and_the_newcomer_is_let_in_when_it_goes() {
    let two = Two::new();
    let (hostile, honest) = (two.one, two.other);
    two.say(hostile, &[entry(&[md5(1), sha(66)], &[])]);
    two.say(honest, &[entry(&[md5(1), sha(1)], &[])]);
    assert_eq!(two.held(honest, 0), conflict(MD5));
    assert_eq!(two.answers(&md5(1)), [(hostile, 0)], "the value matches");
    assert_eq!(two.answers(&sha(1)), [(honest, 0)]);
    assert_eq!(two.lifted(10), []);
    two.say(hostile, &[take_back(0)]);
    assert_eq!(two.lifted(10), [(honest, 1)]);
    assert_eq!(two.answers(&md5(1)), [(honest, 0)]);
    sound(&two.store);
    let Two { dir, store, .. } = two;
    drop(store);
    assert_eq!(open(dir.path()).waiting(honest).unwrap(), 0);
}

#[test]
fn a_digest_that_waits_names_the_entry_that_it_conflicts_with() {
    let two = Two::new();
    let (one, other) = (two.one, two.other);
    two.say(one, &[entry(&[md5(1), sha(1)], &[])]);
    // Its next version is named by its first.
    two.say(one, &[entry(&[md5(1), sha(1)], &[0])]);
    let leaves = [
        entry(&[md5(1), sha(9)], &[]),
        entry(&[md5(2), sha(2)], &[]),
        // One of the same commit.
        entry(&[md5(2), sha(3)], &[]),
    ];
    two.say(other, &leaves);
    let asked = [(other, 0), (other, 1), (other, 2)];
    let named = || two.store.disputed_by(&asked).unwrap();
    assert_eq!(named(), [Some((one, 0)), None, Some((other, 1))]);
    two.say(one, &[take_back(1), take_back(0)]);
    assert_eq!(named()[0], None, "it is over, and let in soon");
}

#[test]
fn what_counts_already_never_waits_in_its_next_version_either() {
    let two = Two::new();
    two.say(
        two.one,
        &[entry(&[md5(1)], &[]), entry(&[md5(2), sha(2)], &[])],
    );
    // Both values count before anybody pairs them otherwise.
    let hostile = [
        entry(&[md5(1), sha(66)], &[]),
        entry(&[md5(2), sha(66)], &[]),
    ];
    two.say(two.other, &hostile);
    assert_eq!(
        two.held(two.other, 0),
        [],
        "nobody says another SHA-256 of it"
    );
    assert_eq!(two.held(two.other, 1), conflict(MD5));
    two.say(
        two.one,
        &[
            entry(&[md5(1), sha(1)], &[0]),
            entry(&[md5(2), sha(2)], &[1]),
        ],
    );
    assert_eq!(two.held(two.one, 2), []);
    assert_eq!(two.held(two.one, 3), []);
}

#[test]
fn what_itself_waits_makes_nobody_wait_and_a_release_stays() {
    let two = Two::new();
    let mut writer = two.store.writer(two.one).unwrap();
    writer.quarantine(Reason::OverGrowth, [0]);
    writer.append(&[entry(&[md5(1), sha(66)], &[])]).unwrap();
    commit_signed(&mut writer);
    drop(writer);
    two.say(two.other, &[entry(&[md5(1), sha(1)], &[])]);
    assert_eq!(two.held(two.other, 0), []);
    two.say(two.one, &[entry(&[md5(1), sha(67)], &[])]);
    assert_eq!(two.held(two.one, 1), conflict(MD5));
    let chosen = Chosen {
        reason: Some(Reason::DigestConflict),
        leaves: Some(BTreeSet::from([1])),
    };
    let changed = two
        .store
        .decide_quarantine(two.one, &chosen, Decision::Release);
    assert_eq!(changed.unwrap(), 1);
    assert_eq!(two.lifted(10), []);
    assert_eq!(two.answers(&md5(1)), [(two.one, 1), (two.other, 0)]);
}

#[test]
fn a_look_at_what_waits_goes_on_where_the_last_one_ended() {
    let two = Two::new();
    let first: Vec<RawLeaf> = (0..6).map(|n| entry(&[md5(n), sha(n)], &[])).collect();
    let later: Vec<RawLeaf> = (0..6)
        .map(|n| entry(&[md5(n), sha(100 + n)], &[]))
        .collect();
    two.say(two.one, &first);
    two.say(two.other, &later);
    two.say(two.one, &[take_back(5)]);
    let looks: Vec<u64> = (0..4)
        .map(|_| two.lifted(2))
        .map(|lifted| lifted.iter().map(|(_, count)| count).sum())
        .collect();
    // Of a value that nobody disputes the end is looked at, too.
    assert_eq!(looks.iter().sum::<u64>(), 1, "{looks:?}");
    assert_eq!(looks[..2], [0, 0]);
    sound(&two.store);
}

#[test]
fn a_round_reads_no_more_pages_than_it_may_and_rounds_get_to_the_end() {
    const LEAVES: u64 = 2_048;
    let two = Two::new();
    // Neighbours here are pages apart there, so that no page serves twice.
    let apart = |n: u64| n * 257 % LEAVES;
    let first: Vec<RawLeaf> = (0..LEAVES).map(|n| entry(&[md5(n), sha(n)], &[])).collect();
    let later = (0..LEAVES).map(|n| entry(&[md5(apart(n)), sha(LEAVES + n)], &[]));
    let later: Vec<RawLeaf> = later.collect();
    two.say(two.one, &first);
    two.say(two.other, &later);
    assert_eq!(two.store.waiting(two.other).unwrap(), LEAVES);
    let rounds: Vec<usize> = (0..4).map(|_| two.round(40, 1_000).pages).collect();
    assert!(rounds.iter().all(|pages| *pages <= 40), "{rounds:?}");
    assert!(rounds.iter().any(|pages| *pages > 1), "{rounds:?}");
    two.store.drop_feed(two.one).unwrap();
    let lifted = (0..64).flat_map(|_| two.round(40, 1_000).lifted);
    assert_eq!(lifted.map(|(_, count)| count).sum::<u64>(), LEAVES);
    sound(&two.store);
}

#[test]
fn however_much_of_one_publisher_waits_the_other_ones_are_let_in() {
    let two = Two::new();
    let honest = NewFeed {
        publisher: MemberNumber::new(2).unwrap(),
        ..new_feed(false, b"honest")
    };
    let honest = two.store.create_feed(&honest).unwrap();
    let first: Vec<RawLeaf> = (0..250).map(|n| entry(&[md5(n), sha(n)], &[])).collect();
    two.say(two.one, &first);
    two.say(honest, &[entry(&[md5(0), sha(900)], &[])]);
    let of_one = |n: u64| entry(&[md5(n), sha(1_000 + n)], &[]);
    for name in [&b"x"[..], b"y", b"z"] {
        let no = two.store.create_feed(&new_feed(false, name)).unwrap();
        two.say(no, &(1..250).map(of_one).collect::<Vec<_>>());
    }
    two.say(two.other, &(1..250).map(of_one).collect::<Vec<_>>());
    two.say(two.one, &[take_back(0)]);
    // The thousand that wait would take 25 rounds.
    let lifted: Vec<_> = (0..2).flat_map(|_| two.lifted(40)).collect();
    assert_eq!(lifted, [(honest, 1)]);
    sound(&two.store);
}

#[test]
fn what_counts_for_nothing_here_disputes_nobody() {
    let two = Two::new();
    let (one, other) = (two.one, two.other);
    let muted = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_muted = std::sync::Arc::clone(&muted);
    let counts = move |no| no != one || !is_muted.load(std::sync::atomic::Ordering::SeqCst);
    two.store.set_counting(counts);
    let hostile: Vec<RawLeaf> = (0..3).map(|n| entry(&[md5(n), sha(66)], &[])).collect();
    two.say(one, &hostile);
    two.say(other, &[entry(&[md5(0), sha(10)], &[])]);
    assert_eq!(two.held(other, 0), conflict(MD5));
    assert_eq!(two.lifted(10), []);
    muted.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(two.lifted(10), [(other, 1)]);
    two.say(other, &[entry(&[md5(1), sha(11)], &[])]);
    assert_eq!(two.held(other, 1), [], "what comes later does not wait");
    // A pair that counts for nothing vouches for nobody either.
    let third = two.store.create_feed(&new_feed(false, b"third")).unwrap();
    two.say(third, &[entry(&[md5(1), sha(66)], &[])]);
    assert_eq!(two.held(third, 0), conflict(MD5));
    muted.store(false, std::sync::atomic::Ordering::SeqCst);
    two.say(other, &[entry(&[md5(2), sha(12)], &[])]);
    assert_eq!(two.held(other, 2), conflict(MD5));
    two.store.set_feed_status(one, FeedStatus::Frozen).unwrap();
    assert_eq!(two.lifted(10), [(other, 1)], "a fork disputes nobody");
    sound(&two.store);
}
