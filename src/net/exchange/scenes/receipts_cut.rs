//! Receipts beside a roster that cuts leaves off: of which leaves a word then is.

use hashpact_node::receipts::Hold;
use hashpact_store::HeadRef;

use super::epochs::{new_key, rekeyed, revoking};
use super::receipts::{Still, acknowledge_all};
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
