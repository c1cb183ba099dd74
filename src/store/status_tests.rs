//! A feed's status beside what its writer stores.

use super::*;
use crate::families::Family;
use crate::feeds::{part, part_row};
use crate::status::PART_STATUS;
use crate::{ForkName, Leaving};

#[test]
fn a_freeze_during_a_commit_outlives_a_start_and_takes_back_nothing_that_was_stored() {
    let dir = tempfile::tempdir().unwrap();
    // Once, at moments all over the commit; nothing is written afterwards.
    for wait_ms in [0_u64, 1, 2, 4, 8, 16, 32, 64] {
        let name = format!("feed {wait_ms}");
        let store = open(dir.path());
        let no = store
            .create_feed(&new_feed(false, name.as_bytes()))
            .unwrap();
        let mut writer = store.writer(no).unwrap();
        let leaves: Vec<_> = (0..10_000).map(|n| publish(n, &[])).collect();
        writer.append(&leaves).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| commit_signed(&mut writer));
            std::thread::sleep(std::time::Duration::from_millis(wait_ms));
            assert!(store.freeze_feed(no).unwrap());
        });
        drop((writer, store));
        let feed = open(dir.path()).feed(no).unwrap();
        assert_eq!(feed.status, FeedStatus::Frozen, "{wait_ms} ms");
        assert_eq!((feed.stored, feed.indexed), (10_000, 10_000));
    }
}

#[test]
fn a_frozen_feed_is_followed_with_its_next_epoch_unless_it_is_forked_there_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let new = new_feed(false, b"feed");
    let no = store.create_feed(&new).unwrap();
    let status = || store.feed(no).unwrap().status;
    let mut writer = store.writer(no).unwrap();
    let leaves: Vec<RawLeaf> = (0..10).map(|n| publish(n, &[])).collect();
    writer.append(&leaves).unwrap();
    commit_signed(&mut writer);
    store.freeze_feed(no).unwrap();
    writer.open_epoch(1, 8).unwrap();
    assert_eq!(status(), FeedStatus::Frozen);
    writer.open_epoch_anew(2, 8).unwrap();
    assert_eq!(status(), FeedStatus::Active);
    store.freeze_feed(no).unwrap();
    let fork = ForkName {
        feed: new.id,
        epoch: 3,
    };
    store.put_fork(new.publisher, &fork, None).unwrap();
    writer.open_epoch_anew(3, 8).unwrap();
    assert_eq!(status(), FeedStatus::Frozen);
    // What answers nothing does not begin to.
    store.set_feed_status(no, FeedStatus::Silent).unwrap();
    writer.open_epoch_anew(4, 8).unwrap();
    assert_eq!(status(), FeedStatus::Silent);
    drop((writer, store));
    assert_eq!(open(dir.path()).feed(no).unwrap().epoch, 4);
}

#[test]
fn a_feed_whose_fork_is_known_is_not_followed_and_one_that_answers_nothing_does_not_begin_to() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let new = new_feed(false, b"feed");
    let no = store.create_feed(&new).unwrap();
    let status = || store.feed(no).unwrap().status;
    let (feed, epoch) = (new.id, 1);
    let evidence = None;
    store
        .put_fork(new.publisher, &ForkName { feed, epoch }, evidence)
        .unwrap();
    assert_eq!(store.follow_feed(no, 0..=0).unwrap(), FeedStatus::Active);
    assert_eq!(store.follow_feed(no, 0..=1).unwrap(), FeedStatus::Frozen);
    assert_eq!(status(), FeedStatus::Frozen);
    assert_eq!(store.follow_feed(no, 2..=2).unwrap(), FeedStatus::Active);
    store.set_feed_status(no, FeedStatus::Silent).unwrap();
    assert!(!store.freeze_feed(no).unwrap());
    assert_eq!(status(), FeedStatus::Silent);
    let leaving = Leaving {
        due: UnixMillis(1),
        index: 1,
    };
    assert!(!store.set_leaving(no, leaving).unwrap());
    assert_eq!(status(), FeedStatus::Silent);
}

#[test]
fn what_rows_said_of_the_status_is_kept_by_a_store_of_an_older_program() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let no = store.create_feed(&new_feed(false, b"feed")).unwrap();
    let inner = &store.inner;
    let mut row = part_row(inner, no).unwrap();
    row.status_before = FeedStatus::Frozen.number();
    let mut batch = rocksdb::WriteBatch::default();
    let feeds = inner.cf(Family::Feeds).unwrap();
    batch.put_cf(feeds, crate::feeds::row_key(no), crate::record::seal(&row));
    batch.delete_cf(feeds, part(no, PART_STATUS));
    inner.write_synced(batch, "an older row").unwrap();
    crate::status::migrate(inner).unwrap();
    drop(store);
    let status = open(dir.path()).feed(no).unwrap().status;
    assert_eq!(status, FeedStatus::Frozen);
}
