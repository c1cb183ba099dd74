//! What is held back: look-ups, restarts, decisions, replacing leaves, verification.

use hashpact_core::puller::Growth;

use super::*;
use crate::AllowList;
use crate::quarantine::{Chosen, Decision, LotName, Reason, WHOLE_LEAF};
use crate::verify::FindingKind;

struct Held {
    dir: tempfile::TempDir,
    store: Store,
    no: FeedNo,
}

/// A feed of `leaves`, of which `held` are held back for `reason`.
fn feed_with(leaves: &[RawLeaf], held: std::ops::Range<u64>, reason: Reason) -> Held {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
    let mut writer = store.writer(no).unwrap();
    let split = at(held.start);
    writer.append(&leaves[..split]).unwrap();
    commit_signed(&mut writer);
    writer.quarantine(reason, held);
    writer.append(&leaves[split..]).unwrap();
    commit_signed(&mut writer);
    drop(writer);
    Held { dir, store, no }
}

pub(super) fn plain(count: u64) -> Vec<RawLeaf> {
    (0..count).map(|n| publish(n, &[])).collect()
}

/// The indexes and marks that a signal of entry `n` is answered with.
fn answers(store: &Store, n: u64) -> Vec<(u64, bool)> {
    let found = store.lookup(&[signals(n)[0].index_key()]).unwrap();
    found[0].iter().map(|p| (p.index, p.held)).collect()
}

impl Held {
    fn reopen(self) -> Self {
        let Self { dir, store, no } = self;
        drop(store);
        let store = open(dir.path());
        Self { dir, store, no }
    }

    fn decide(&self, leaves: &[u64], decision: Decision) -> u64 {
        let chosen = Chosen {
            reason: None,
            leaves: Some(leaves.iter().copied().collect()),
        };
        self.store
            .decide_quarantine(self.no, &chosen, decision)
            .unwrap()
    }
}

#[test]
fn what_is_held_back_is_stored_and_not_answered_also_after_a_restart() {
    // In small commits, and as a bulk load with sorted files.
    for count in [20, 400] {
        let held = feed_with(&plain(count), 10..count, Reason::OverGrowth);
        {
            let held = held.reopen();
            assert_eq!(answers(&held.store, 9), [(9, false)]);
            assert_eq!(answers(&held.store, 10), []);
            assert_eq!(answers(&held.store, count - 1), []);
            assert_eq!(held.store.waiting(held.no).unwrap(), count - 10);
            let info = held.store.feed(held.no).unwrap();
            assert_eq!((info.stored, info.counts.publish), (count, count));
            sound(&held.store);
        }
    }
}

#[test]
fn leaves_that_a_crash_left_unindexed_stay_held_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
    let mut writer = store.writer(no).unwrap();
    let growth = Growth {
        level: 7,
        at: UnixMillis(99),
        from: 5,
    };
    writer.quarantine(Reason::OverGrowth, 2..5);
    writer.note_growth(growth);
    writer.append(&plain(5)).unwrap();
    writer.sync().unwrap();
    drop(writer);
    drop(store);
    let store = open(dir.path());
    store.writer(no).unwrap().commit(None).unwrap();
    assert_eq!(answers(&store, 1), [(1, false)]);
    assert_eq!(answers(&store, 2), []);
    assert_eq!(store.growth(no).unwrap(), growth);
    sound(&store);
}

#[test]
fn a_release_lets_leaves_count_and_a_drop_never_does() {
    let held = feed_with(&plain(20), 10..20, Reason::OverGrowth);
    assert_eq!(held.decide(&[10, 11, 3], Decision::Release), 2);
    assert_eq!(held.decide(&[12], Decision::Drop), 1);
    let held = held.reopen();
    assert_eq!(answers(&held.store, 10), [(10, false)]);
    assert_eq!(answers(&held.store, 12), []);
    assert_eq!(held.store.waiting(held.no).unwrap(), 7);
    let lot = held.store.quarantine(held.no).unwrap()[0];
    assert_eq!(
        (lot.name.kind, lot.released, lot.dropped),
        (WHOLE_LEAF, 2, 1)
    );
    let all = Chosen::default();
    let release = held
        .store
        .decide_quarantine(held.no, &all, Decision::Release);
    assert_eq!(
        release.unwrap(),
        7,
        "what was dropped is not among what waits"
    );
    assert_eq!(answers(&held.store, 12), []);
    assert_eq!(
        held.decide(&[12], Decision::Release),
        1,
        "where it is named"
    );
    assert_eq!(answers(&held.store, 12), [(12, false)]);
    sound(&held.store);
}

#[test]
fn what_waits_is_named_in_few_ranges_without_what_is_dead_or_decided() {
    let held = feed_with(&plain(40), 10..40, Reason::OverGrowth);
    held.decide(&[12], Decision::Release);
    held.decide(&[20, 21], Decision::Drop);
    let mut writer = held.store.writer(held.no).unwrap();
    let ranges = vec![IndexRange {
        first: 30,
        count: 2,
    }];
    writer.append(&[retract(ranges)]).unwrap();
    commit_signed(&mut writer);
    drop(writer);
    let waiting = |asked: bool, limit| {
        let lots = held.store.waiting_ranges(held.no, |_| asked, limit);
        lots.unwrap()
    };
    let name = lot(Reason::OverGrowth, WHOLE_LEAF);
    let all = vec![(10, 2), (13, 7), (22, 8), (32, 8)];
    assert_eq!(waiting(true, 100), [(name, 25, all.clone())]);
    assert_eq!(waiting(true, 2), [(name, 25, all[..2].to_vec())]);
    assert_eq!(waiting(true, 0), [(name, 25, Vec::new())]);
    assert_eq!(waiting(false, 100), []);
    held.decide(&(10..40).collect::<Vec<_>>(), Decision::Release);
    assert_eq!(waiting(true, 100), []);
}

#[test]
fn what_was_released_is_not_held_again_for_the_same_reason() {
    let held = feed_with(&plain(20), 10..20, Reason::StaleRoster);
    held.decide(&[10], Decision::Release);
    let mut writer = held.store.writer(held.no).unwrap();
    writer.quarantine(Reason::StaleRoster, 10..11);
    writer.append(&[publish(20, &[])]).unwrap();
    commit_signed(&mut writer);
    assert_eq!(answers(&held.store, 10), [(10, false)]);
}

#[test]
fn what_waits_for_a_fresh_roster_is_lifted_and_the_rest_stays() {
    let held = feed_with(&plain(20), 10..20, Reason::StaleRoster);
    held.decide(&[12], Decision::Drop);
    let mut writer = held.store.writer(held.no).unwrap();
    writer.quarantine(Reason::OverGrowth, [20]);
    writer.quarantine(Reason::StaleRoster, [20]);
    writer.append(&[publish(20, &[])]).unwrap();
    commit_signed(&mut writer);
    drop(writer);
    let lifted = held
        .store
        .lift_quarantine(held.no, Reason::StaleRoster)
        .unwrap();
    assert_eq!(lifted, 10);
    let held = held.reopen();
    assert_eq!(answers(&held.store, 10), [(10, false)]);
    assert_eq!(answers(&held.store, 12), [], "dropped");
    assert_eq!(answers(&held.store, 20), [], "for another reason");
    sound(&held.store);
}

#[test]
fn what_a_held_leaf_replaces_goes_on_answering_marked() {
    let mut leaves = plain(5);
    leaves.push(publish(100, &[3]));
    let held = feed_with(&leaves, 5..6, Reason::OverGrowth);
    {
        let held = held.reopen();
        assert_eq!(answers(&held.store, 3), [(3, true)]);
        assert_eq!(answers(&held.store, 100), []);
        held.decide(&[5], Decision::Release);
        assert_eq!(answers(&held.store, 3), []);
        assert_eq!(answers(&held.store, 100), [(5, false)]);
        sound(&held.store);
    }
}

#[test]
fn a_stale_roster_disarms_nothing_that_is_replaced() {
    let mut leaves = plain(5);
    leaves.push(publish(100, &[3]));
    let held = feed_with(&leaves, 5..6, Reason::StaleRoster);
    assert_eq!(answers(&held.store, 3), [(3, false)]);
    held.store
        .lift_quarantine(held.no, Reason::StaleRoster)
        .unwrap();
    assert_eq!(answers(&held.store, 3), []);
    assert_eq!(answers(&held.store, 100), [(5, false)]);
}

#[test]
fn what_answers_though_it_is_dead_keeps_its_payload() {
    for reason in [Reason::OverGrowth, Reason::StaleRoster] {
        let mut leaves = plain(5);
        leaves.push(publish(100, &[3]));
        leaves.push(retract(vec![IndexRange { first: 1, count: 1 }]));
        let held = feed_with(&leaves, 5..6, reason);
        let drop_dead = || {
            let mut writer = held.store.writer(held.no).unwrap();
            writer.drop_dead(7, 10).unwrap().payloads
        };
        assert_eq!(drop_dead(), 1, "what was retracted");
        assert!(!held.store.has_dead_payloads(held.no).unwrap());
        assert_eq!(answers(&held.store, 3).len(), 1);
        held.decide(&[5], Decision::Release);
        assert_eq!(drop_dead(), 1, "what is replaced for good");
        assert_eq!(answers(&held.store, 3), []);
        sound(&held.store);
    }
}

#[test]
fn a_retraction_takes_back_what_is_held_and_what_that_replaced() {
    let mut leaves = plain(5);
    leaves.push(publish(100, &[3]));
    let range = |first, count| IndexRange { first, count };
    leaves.push(retract(vec![range(3, 1), range(5, 1)]));
    let held = feed_with(&leaves, 5..6, Reason::OverGrowth);
    assert_eq!(answers(&held.store, 3), []);
    assert_eq!(answers(&held.store, 100), []);
    assert_eq!(
        held.store.waiting(held.no).unwrap(),
        0,
        "dead ones do not wait"
    );
}

#[test]
fn verification_finds_leaves_held_that_are_not_there() {
    let mut leaves = plain(20);
    leaves.push(retract(vec![IndexRange { first: 1, count: 1 }]));
    let held = feed_with(&leaves, 10..20, Reason::OverGrowth);
    sound(&held.store);
    let mut writer = held.store.writer(held.no).unwrap();
    writer.quarantine(Reason::OverGrowth, [20, 70_000]);
    writer.append(&[publish(21, &[])]).unwrap();
    commit_signed(&mut writer);
    drop(writer);
    let report = held.store.verify(|_, _| Ok(()), |_, _| ()).unwrap();
    assert_eq!(report.findings.len(), 1);
    assert_eq!(report.findings[0].kind, FindingKind::Quarantine);
}

#[test]
fn a_removed_feed_leaves_nothing_in_quarantine() {
    let held = feed_with(&plain(20), 10..20, Reason::OverGrowth);
    held.store.drop_feed(held.no).unwrap();
    let mut rows = 0;
    let count = |_: &[u8], _: &[u8]| {
        rows += 1;
        Ok(true)
    };
    held.store
        .inner
        .scan(crate::families::Family::Quarantine, &[], &[0xff; 12], count)
        .unwrap();
    assert_eq!(rows, 0);
}

pub(super) fn pdq(bits: usize, quality: u8) -> Signal {
    let mut value = vec![0_u8; 32];
    for bit in 0..bits {
        value[bit / 8] |= 1 << (bit % 8);
    }
    Signal::new(SignalKind::Pdq, value.into(), Some(quality)).unwrap()
}

pub(super) fn with_signals(n: u64, signals: Vec<Signal>) -> RawLeaf {
    let publish = Publish {
        media_kind: MediaKind::Image,
        signals,
        classification: None,
        labels: Vec::new(),
        basis: Basis::Human,
        source_reference: format!("case {n}"),
        first_seen: None,
        expires: None,
        replaces: Vec::new(),
        published: UnixMillis(1),
    };
    RawLeaf::new(PUBLISH, publish.encode([7; 16]).unwrap())
}

pub(super) fn of(signal: &Signal, store: &Store) -> usize {
    store.lookup(&[signal.index_key()]).unwrap()[0].len()
}

fn lot(reason: Reason, kind: u8) -> LotName {
    LotName { reason, kind }
}

const PDQ: u8 = 5;

#[test]
fn signals_that_say_nothing_are_held_back_and_the_others_of_the_entry_answer() {
    let empty = Signal::parse_spec("MD5:d41d8cd98f00b204e9800998ecf8427e").unwrap();
    let leaves = vec![
        with_signals(0, vec![signals(0)[0].clone(), pdq(128, 49)]),
        with_signals(1, vec![signals(1)[0].clone(), pdq(20, 80)]),
        with_signals(2, vec![empty.clone(), pdq(0, 80)]),
        with_signals(3, vec![pdq(128, 50)]),
    ];
    // By a batch, and by a bulk load.
    for more in [0, 400] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
        let mut writer = store.writer(no).unwrap();
        writer.append(&leaves).unwrap();
        let rest: Vec<_> = (4..4 + more).map(|n| publish(n, &[])).collect();
        writer.append(&rest).unwrap();
        commit_signed(&mut writer);
        drop(writer);
        for _ in 0..2 {
            assert_eq!(
                (of(&signals(0)[0], &store), of(&signals(1)[0], &store)),
                (1, 1)
            );
            assert_eq!(of(&pdq(128, 50), &store), 1, "of entry 3 alone");
            assert_eq!((of(&pdq(20, 80), &store), of(&empty, &store)), (0, 0));
            let held = |index| store.withheld(no, index).unwrap();
            assert_eq!(held(0), [lot(Reason::LowQuality, PDQ)]);
            assert_eq!(held(1), [lot(Reason::UnbalancedPdq, PDQ)]);
            let whole = |reason| lot(reason, WHOLE_LEAF);
            assert_eq!(
                held(2),
                [whole(Reason::EmptyInput), whole(Reason::UniformValue)]
            );
            assert_eq!(held(3), []);
            let own = store.live_with(no, &empty.index_key()).unwrap();
            assert_eq!(own, [2], "whoever retracts it finds it");
            sound(&store);
            drop(store);
            store = open(dir.path());
        }
    }
}

#[test]
fn an_allow_list_counts_from_the_next_start_for_what_is_held_and_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
    let mut writer = store.writer(no).unwrap();
    writer.append(&plain(4)).unwrap();
    commit_signed(&mut writer);
    drop(writer);
    drop(store);
    let listed = |signals: &[Signal]| StoreOptions {
        allow_list: AllowList::of(signals),
        ..options()
    };
    let allowed = [signals(1)[0].clone(), signals(4)[0].clone()];
    let store = Store::open(dir.path(), &listed(&allowed)).unwrap();
    assert_eq!(of(&signals(1)[0], &store), 0);
    assert_eq!(of(&signals(1)[1], &store), 1, "its other signal answers");
    let mut writer = store.writer(no).unwrap();
    writer.append(&[publish(4, &[])]).unwrap();
    commit_signed(&mut writer);
    drop(writer);
    assert_eq!(of(&signals(4)[0], &store), 0);
    sound(&store);
    let chosen = Chosen {
        reason: None,
        leaves: Some(BTreeSet::from([4])),
    };
    store
        .decide_quarantine(no, &chosen, Decision::Release)
        .unwrap();
    drop(store);
    let store = Store::open(dir.path(), &listed(&allowed[1..])).unwrap();
    assert_eq!(of(&signals(1)[0], &store), 1, "no longer on the list");
    assert_eq!(of(&signals(4)[0], &store), 1, "the operator's word stays");
    sound(&store);
}

/// Pictures with as many bits set as an allowed one, give or take 31.
struct NearBits(u32);

impl crate::NearAllowed for NearBits {
    fn is_near(&self, pdq: &[u8; 32]) -> bool {
        let bits: u32 = pdq.iter().map(|byte| byte.count_ones()).sum();
        bits.abs_diff(self.0) <= 31
    }
}

#[test]
fn pictures_near_an_allowed_one_are_held_back_those_held_and_those_that_come() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
    let mut writer = store.writer(no).unwrap();
    let near = |n: u64, bits| with_signals(n, vec![signals(n)[0].clone(), pdq(bits, 80)]);
    writer.append(&[near(0, 100), near(1, 159)]).unwrap();
    commit_signed(&mut writer);
    drop(writer);
    drop(store);
    let listed = StoreOptions {
        allow_list: AllowList::of(&[pdq(128, 80)]).with_near(std::sync::Arc::new(NearBits(128))),
        ..options()
    };
    let store = Store::open(dir.path(), &listed).unwrap();
    let mut writer = store.writer(no).unwrap();
    let film = |n: u64, bits: [usize; 2]| {
        let frames = bits.map(|bits| format!("\"{},90,{bits}\"", pdq(bits, 80).to_text()));
        let film = Signal::parse_spec(&format!("VPDQ:[{}]", frames.join(","))).unwrap();
        with_signals(n, vec![signals(n)[0].clone(), film])
    };
    let coming = [
        near(2, 101),
        near(3, 160),
        film(4, [110, 120]),
        film(5, [110, 160]),
    ];
    writer.append(&coming).unwrap();
    commit_signed(&mut writer);
    drop(writer);
    let held = |index| store.withheld(no, index).unwrap();
    for index in [0, 2] {
        assert_eq!(held(index), [lot(Reason::NearAllowed, PDQ)]);
    }
    assert_eq!(held(1), [lot(Reason::NearAllowed, PDQ)], "31 bits away");
    assert_eq!(held(3), [], "32 bits away");
    assert_eq!(
        held(4),
        [lot(Reason::NearAllowed, 7)],
        "nothing else to be seen in it"
    );
    assert_eq!(held(5), [], "one frame is another");
    assert_eq!(of(&signals(0)[0], &store), 1, "its SHA-256 answers");
    sound(&store);
    drop(store);
    let store = Store::open(dir.path(), &options()).unwrap();
    assert_eq!(
        store.waiting(no).unwrap(),
        0,
        "without the list all of it counts"
    );
    sound(&store);
}

#[test]
fn truncation_takes_what_was_held_back_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(true, b"feed")).unwrap();
    let mut writer = store.writer(no).unwrap();
    writer.append(&plain(3)).unwrap();
    commit_signed(&mut writer);
    writer.append(&[with_signals(3, vec![pdq(0, 80)])]).unwrap();
    writer.commit(None).unwrap();
    writer.truncate_unsigned(3).unwrap();
    writer.append(&[publish(3, &[])]).unwrap();
    commit_signed(&mut writer);
    drop(writer);
    assert_eq!(of(&signals(3)[0], &store), 1);
    sound(&store);
}
