//! Payloads of what is long dead go, where the operator says so, and nothing else does.

use hashpact_store::FeedStatus;

use super::feeds::{History, Reader, id_of, publishing};
use super::*;
use crate::past::{PastOf, PastUnknown};

const DAY: u64 = DAY_MS;

fn sound(node: &Node) {
    let report = node.store().verify(|_, _| Ok(()), |_, _| ()).unwrap();
    assert_eq!(report.findings, []);
}

/// The leaves of harbor's set that are records alone.
fn elided(node: &Node) -> Vec<u64> {
    let no = node.store().feed_no(&id_of(0)).unwrap();
    let stored = node.store().feed(no).unwrap().stored;
    node.store().elided_within(no, 0, stored).unwrap()
}

/// Harbor's set: media 0 to 2 at leaves 1 to 3, medium 0 again at leaf 4, and leaf 2
/// retracted by leaf 5.
fn with_dead() -> History {
    let mut history = publishing(0, 3);
    history.publish(0, vec![1]);
    history.retract(2, 1);
    history
}

/// A node that has all of it.
fn reader(history: &History) -> Reader {
    let reader = Reader::new();
    bring(&reader, history);
    reader
}

fn bring(reader: &Reader, history: &History) {
    reader.bring(0, history, history.len(), |_| false);
}

fn at(reader: &Reader, day: u64) {
    reader.scene.clock.set(UnixMillis(NOW.0 + day * DAY));
}

/// How many payloads go, until nothing is left to do.
fn gone(node: &Node) -> u64 {
    let steps = std::iter::from_fn(|| node.follow_retention().unwrap());
    steps.map(|step| step.payloads).sum()
}

#[test]
fn payloads_go_once_their_leaves_have_been_dead_for_so_long_and_nothing_else_changes() {
    let mut history = with_dead();
    let mut reader = reader(&history);
    let node = reader.node();
    node.set_retention(30);
    at(&reader, 29);
    assert_eq!(gone(node), 0);
    history.retract(3, 1);
    bring(&reader, &history);
    at(&reader, 30);
    assert_eq!(gone(node), 2);
    // The replaced version and the retracted one; not what was retracted yesterday, and
    // neither the describe leaf nor the retractions.
    assert_eq!(elided(node), [1, 2]);
    assert_eq!((hits(node, 0), hits(node, 1), hits(node, 2)), (1, 0, 0));
    sound(node);
    assert!(
        node.store().purge_due(),
        "files are rewritten as after an erasure"
    );
    node.purge_erased().unwrap();
    reader.restart();
    let node = reader.node();
    sound(node);
    assert_eq!((hits(node, 0), hits(node, 1)), (1, 0));
    // What is published again is an entry as any.
    history.publish(1, Vec::new());
    bring(&reader, &history);
    assert_eq!(hits(node, 1), 1);
    node.set_retention(30);
    at(&reader, 60);
    assert_eq!(gone(node), 1);
    assert_eq!(elided(node), [1, 2, 3]);
    sound(node);
}

#[test]
fn nothing_goes_unless_that_is_set_and_own_sets_keep_theirs() {
    let reader = reader(&with_dead());
    let node = reader.node();
    node.create_set(&own_work("confirmed")).unwrap();
    import(node, "confirmed", vec![entry(900, "a")]);
    import(node, "confirmed", vec![entry(900, "b")]);
    at(&reader, 3_000);
    assert_eq!(gone(node), 0);
    assert_eq!(elided(node), [0; 0]);
    node.set_retention(1);
    assert_eq!(gone(node), 2);
    let own = node.publisher().feeds()[0].clone();
    assert_eq!(
        node.store().elided_within(own.no, 0, own.stored).unwrap(),
        [0; 0]
    );
}

#[test]
fn what_was_dropped_is_unknown_where_the_past_is_asked_for_and_nowhere_else() {
    let mut history = publishing(0, 3);
    let reader = reader(&history);
    let node = reader.node();
    history.retract(2, 1);
    at(&reader, 1);
    bring(&reader, &history);
    at(&reader, 40);
    node.set_retention(30);
    assert_eq!(gone(node), 1);
    let unknown = |day: u64| {
        let of = PastOf::Time(UnixMillis(NOW.0 + day * DAY));
        let past = node.past(&[sha256_of(1)], &of).unwrap();
        past.answers[0].unknown.first().map(|(_, why)| *why)
    };
    assert_eq!(unknown(0), Some(PastUnknown::PayloadsGone(1)));
    assert_eq!(unknown(1), None);
}

#[test]
fn every_set_is_looked_at_and_one_that_is_being_written_the_next_time() {
    let reader = Reader::new();
    let node = reader.node();
    for feed in 0..3 {
        let mut history = publishing(feed, 1);
        history.publish(0, vec![1]);
        reader.bring(feed, &history, history.len(), |_| false);
    }
    node.set_retention(1);
    at(&reader, 2);
    let no = node.store().feed_no(&id_of(1)).unwrap();
    let busy = node.store().writer(no).unwrap();
    assert_eq!(gone(node), 2);
    drop(busy);
    // Not before the hour is over.
    assert_eq!(gone(node), 0);
    let hour = 60 * 60 * 1_000;
    reader.scene.clock.set(reader.scene.clock.now().plus(hour));
    assert_eq!(gone(node), 1);
}

#[test]
fn what_a_backup_brings_back_goes_again_and_a_step_that_was_cut_off_goes_on() {
    let mut history = publishing(0, 300);
    for medium in 0..300 {
        history.publish(medium, vec![medium + 1]);
    }
    let mut reader = Reader::new();
    for to in [200, 400, history.len()] {
        reader.bring(0, &history, to, |_| false);
    }
    reader.while_off(|scene| scene.copy_store_to("backup"));
    at(&reader, 2);
    let node = reader.node();
    let no = node.store().feed_no(&id_of(0)).unwrap();
    let step = {
        let mut writer = node.store().writer(no).unwrap();
        writer.drop_dead(601, 1).unwrap()
    };
    assert_eq!((step.payloads, step.more), (255, true), "the first page");
    sound(node);
    reader.restart();
    reader.node().set_retention(1);
    assert_eq!(gone(reader.node()), 45);
    sound(reader.node());
    reader.while_off(|scene| scene.restore_store_from("backup"));
    let node = reader.node();
    assert_eq!(elided(node), [0; 0]);
    node.set_retention(1);
    assert_eq!(gone(node), 300);
    assert_eq!((hits(node, 0), hits(node, 299)), (1, 1));
    sound(node);
}

#[test]
fn what_is_held_for_review_or_in_doubt_drops_nothing_of_its_set() {
    let mut history = publishing(0, 150);
    history.retract(1, 150);
    let mut held = reader(&history);
    held.settle(0);
    held.retire();
    held.restart();
    assert_eq!(hits(held.node(), 7), 1, "under review");

    let frozen = reader(&with_dead());
    let node = frozen.node();
    let no = node.store().feed_no(&id_of(0)).unwrap();
    node.store()
        .set_feed_status(no, FeedStatus::Frozen)
        .unwrap();
    frozen.retire();
    assert_eq!(elided(node), [0; 0]);
    node.store()
        .set_feed_status(no, FeedStatus::Active)
        .unwrap();
    frozen.retire();
    assert_eq!(elided(node), [1, 2]);
}
