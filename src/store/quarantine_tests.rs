//! What is held back: look-ups, restarts, decisions, replacing leaves, verification.

use hashpact_core::puller::Growth;

use super::*;
use crate::quarantine::{Chosen, Decision, Reason, WHOLE_LEAF};
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

fn plain(count: u64) -> Vec<RawLeaf> {
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
        for held in [held.reopen()] {
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
    for held in [held.reopen()] {
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
