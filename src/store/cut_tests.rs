//! What a cut gives back.

use super::*;

#[test]
fn what_only_held_leaves_had_killed_is_as_before_when_they_are_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
    let leaves: Vec<RawLeaf> = (0..10).map(|n| publish(n, &[])).collect();
    let mut writer = store.writer(no).unwrap();
    writer.append(&leaves).unwrap();
    // Of 4 both say that it goes, of 3 only the leaf that is held.
    writer
        .append(&[publish(900, &[3, 4]), publish(901, &[4, 7])])
        .unwrap();
    commit_signed(&mut writer);
    store.hold_retractions(no, BTreeSet::from([10])).unwrap();
    assert!(store.is_held(no, 3).unwrap());
    assert_eq!(writer.open_epoch(1, 10).unwrap(), 2);
    assert_eq!(store.doubted(no).unwrap(), 2, "4 and 7");
    let keys = [3, 7].map(|n| signals(n)[0].index_key());
    let found = store.lookup_bounded(&keys, 8);
    let review = found.unwrap().into_iter().flat_map(|found| found.postings);
    assert_eq!(
        review.map(|one| one.held).collect::<Vec<_>>(),
        [false, true]
    );
}

#[test]
fn versions_are_found_again_when_a_leaf_that_replaced_other_entries_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(true, b"feed")).unwrap();
    let mut leaves: Vec<RawLeaf> = (0..10).map(|n| publish(n, &[])).collect();
    leaves.push(publish(2, &[2]));
    let mut writer = store.writer(no).unwrap();
    writer.append(&leaves).unwrap();
    commit_signed(&mut writer);
    // Named as versions of entries 2 and 3, with others' leaves among theirs.
    writer
        .append(&[publish(900, &[2, 5, 9, 10]), publish(3, &[3, 4, 8])])
        .unwrap();
    commit_signed(&mut writer);
    writer.open_epoch(1, 11).unwrap();
    assert_eq!(store.latest_version(no, 2).unwrap(), 10);
    assert_eq!(store.latest_version(no, 3).unwrap(), 3);
    drop(writer);
    let report = store.verify(|_, _| Ok(()), |_, _| ()).unwrap();
    assert_eq!(report.findings, []);
}
