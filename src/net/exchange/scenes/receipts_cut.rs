//! Receipts beside a roster that cuts leaves off: of which leaves a word then is.

use hashpact_core::checkpoint;
use hashpact_core::id::{Digest, SetName};
use hashpact_node::publish::Round;
use hashpact_node::receipts::judge::Standing;
use hashpact_node::receipts::{Hold, RENEW_MS};
use hashpact_store::{HeadRef, KeptReceipt};

use super::epochs::{new_key, rekeyed, revoking};
use super::hostile::{feed_key, note_of};
use super::live::{Live, until};
use super::receipts::{Still, acknowledge_all, done};
use super::*;
use crate::exchange::epochs::{self, Why};

/// Epoch, size and root of what a node said last of a feed.
fn said(node: &Node, feed: &FeedId) -> Option<HeadRef> {
    let no = node.store().feed_no(feed).unwrap();
    let own = node.membership().own().unwrap();
    let kept = node.store().receipt(no, own, &slug("n1")).unwrap();
    kept.map(|kept| kept.at)
}

fn size_said(node: &Node, feed: &FeedId) -> Option<(u32, u64)> {
    said(node, feed).map(|at| (at.epoch, at.size))
}

fn standing_of_south(publisher: &Node, index: u64) -> Standing {
    let set = SetName::parse("north/set").unwrap();
    let receipts = publisher.receipts_of(&set, index, true).unwrap();
    let mut members = receipts.members.into_iter();
    let south = members.find(|of| of.member.as_str() == "south");
    south.unwrap().standing
}

#[tokio::test]
async fn what_was_acknowledged_of_leaves_that_were_cut_off_counts_for_none_in_their_place() {
    let scene = Still::new().await;
    let good = feed_of(&scene.north, &scene.feed).applied.unwrap();
    publish(&scene.north, "set", 10, 30);
    bring(&scene.north, &scene.south, &scene.feed, false).await;
    let begun = scene.south.begin_snapshot(&slug("matcher"), "test");
    acknowledge_all(&scene.south, "matcher", begun.unwrap());
    let acked = scene.south.consumer(&slug("matcher")).unwrap().acked;
    scene.later(2_000);
    scene.south.make_receipts(None).unwrap();
    assert_eq!(size_said(&scene.south, &scene.feed), Some((0, 31)));
    // From here on the consumer is paused, and the roster cuts off most of what it has.
    let roster = revoking(&scene.north, scene.feed, good.root, good.size);
    let card = rekeyed(&scene.coalition, None);
    for node in [&scene.north, &scene.south] {
        let membership = node.membership();
        membership.accept_roster(roster.clone()).unwrap();
        membership.accept_card(card.clone()).unwrap();
    }
    let no = scene.south.store().feed_no(&scene.feed).unwrap();
    let mut writer = scene.south.store().writer(no).unwrap();
    epochs::open(&scene.south, &mut writer, Why::Roster).unwrap();
    drop(writer);
    scene.south.make_receipts(None).unwrap();
    let Still {
        coalition,
        north,
        south,
        feed,
    } = scene;
    drop(north);
    let north = coalition.open_keyed("north", NORTH, &[], new_key());
    north.confirm_head(&slug("set"), "a test").unwrap();
    publish(&north, "set", 40, 42);
    retract(&north, "set", 3..4);
    bring(&north, &south, &feed, false).await;
    let later = || coalition.clock.set(coalition.clock.now().plus(2_000));
    later();
    south.make_receipts(None).unwrap();
    let held = feed_of(&south, &feed).applied.unwrap();
    assert_eq!((held.epoch, held.size), (1, 14));
    assert_eq!(size_said(&south, &feed), Some((0, 31)));
    let name = slug("matcher");
    let hold = Hold::Consumer { name, size: 0 };
    assert_eq!(south.receipt_hold(&feed), Some(hold));
    acknowledge_all(&south, "matcher", acked);
    later();
    south.make_receipts(None).unwrap();
    assert_eq!(said(&south, &feed), Some(held));
}

#[tokio::test]
async fn a_word_that_was_compared_with_nothing_says_nothing_of_what_was_below_a_cut() {
    let Still {
        coalition,
        north,
        south: _south,
        feed,
    } = Still::new().await;
    retract(&north, "set", 3..4);
    let good = feed_of(&north, &feed).applied.unwrap();
    publish(&north, "set", 10, 30);
    // A thief's head of 100 leaves, which fork at leaf 5, is shown to the publisher.
    let (size, root) = (100, Digest::of(b"fork"));
    let note = note_of(feed, 0, &feed_key(NORTH), (size, root));
    let name = CoalitionName::parse(COALITION).unwrap();
    let keys = |_| vec![feed_key(NORTH).public()];
    let head = checkpoint::verify(&note, &name, &feed, keys).unwrap();
    let held = feed_of(&north, &feed);
    north.publisher().saw_own_head(&held, &head).unwrap();
    assert!(
        north.publisher().is_behind(&feed),
        "so receipts of more leaves than it holds are kept"
    );
    let kept = KeptReceipt {
        member: number(SOUTH),
        node: slug("n1"),
        at: HeadRef {
            epoch: 0,
            size,
            root,
        },
        since: NOW,
        signed: NOW,
        heard: NOW,
        compared: false,
        envelope: Bytes::from_static(b"x"),
    };
    north.store().put_receipt(held.no, &kept, true).unwrap();
    assert_eq!(standing_of_south(&north, 11), Standing::Unreachable);
    let roster = revoking(&north, feed, good.root, good.size);
    north.membership().accept_roster(roster).unwrap();
    assert_eq!(standing_of_south(&north, 11), Standing::Unreachable);
    let steps = north
        .store()
        .receipt_steps(held.no, number(SOUTH), &slug("n1"));
    assert_eq!(steps.unwrap().all(), []);
    drop(coalition);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_was_done_before_a_cut_is_done_with_what_is_below_it() {
    let mut live = Live::new();
    let (north, south) = (live.run(NORTH).await, live.run(SOUTH).await);
    let feed = create_set(&north.node, "set", &[("all", true)]);
    publish(&north.node, "set", 0, 10);
    retract(&north.node, "set", 3..4);
    let good = feed_of(&north.node, &feed).applied.unwrap();
    live.introduce(&[(NORTH, &north), (SOUTH, &south)]);
    publish(&north.node, "set", 10, 30);
    until("south is done with all", || done(&north, 31) == 1).await;
    south.stop().await;
    let roster = revoking(&north.node, feed, good.root, good.size);
    north.node.membership().accept_roster(roster).unwrap();
    assert_eq!(standing_of_south(&north.node, 11), Standing::Done);
    north.stop().await;
}

#[tokio::test]
async fn what_is_held_in_place_of_leaves_that_were_signed_for_stays_at_review() {
    let scene = Still::new().await;
    let (south, feed) = (&scene.south, scene.feed);
    south.set_ready(true);
    let held = feed_of(south, &feed).applied.unwrap();
    let other = HeadRef {
        root: Digest::of(b"the other side"),
        ..held
    };
    let hears = |at| {
        south.note_former_receipt(feed, number(NORTH), (at, NOW.plus(1)));
        south.follow_former();
    };
    hears(held);
    assert!(south.is_ready(), "{:?}", south.notices());
    hears(other);
    let named = || {
        let notices = south.notices();
        notices
            .iter()
            .any(|n| n.contains("other leaves than it signed"))
    };
    assert!(named(), "{:?}", south.notices());
    // Nothing brings it those leaves: it is at review, whatever its publisher says, and
    // the node ready again once it would be anyway.
    let follow = || {
        south.heard_of(&feed_of(south, &feed), (0, held.size), Some(number(NORTH)));
        south.follow_restored(Round::default).unwrap();
        south.follow_former();
    };
    follow();
    assert!(feed_of(south, &feed).unconfirmed && !south.is_ready());
    scene.later(RENEW_MS);
    follow();
    assert!(feed_of(south, &feed).unconfirmed && south.is_ready());
    scene.grows(10, 12).await;
    south.make_receipts(None).unwrap();
    assert_eq!(size_said(south, &feed), Some((0, 11)));
    let roster = revoking(south, feed, held.root, held.size);
    south.membership().accept_roster(roster).unwrap();
    south.follow_former();
    follow();
    assert!(!named() && !feed_of(south, &feed).unconfirmed);
}
