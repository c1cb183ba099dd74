//! Members that send more than there is room for, and helpers that bring it later.

use hashpact_core::leaf::RawLeaf;
use hashpact_node::model::Reason;

use super::hostile::*;
use super::*;

/// Has the node keep twice as much free as there is.
fn run_short(node: &Node) {
    let free = node.store().room().unwrap().1.free_bytes;
    node.store().set_free_min_bytes(free.saturating_mul(2));
}

fn noted(victim: &Victim, code: &str) -> bool {
    let noted = victim.exchange.rejections().noted();
    noted.iter().any(|(_, _, noted)| *noted == code)
}

fn notices(victim: &Victim) -> String {
    victim.node.status().unwrap().notices.join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_on_the_disk_retractions_count_and_entries_come_when_there_is_room() {
    let coalition = ticking();
    let mut forged = Forged::new(&coalition, NORTH, "set", 400);
    forged.leaves.push(retract_leaf(5));
    let script = Script {
        first: vec![forged.head(51)],
        ..forged.script()
    };
    let hostile = Hostile::start(&coalition, NORTH, script).await;
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &hostile);
    until("the first", || victim.applied(&forged.feed) == 51).await;
    run_short(&victim.node);
    until("it is noticed", || noted(&victim, "disk_low")).await;
    assert!(
        notices(&victim).contains("disk_low"),
        "{}",
        notices(&victim)
    );
    hostile.says(forged.head(401));
    until("the head", || victim.applied(&forged.feed) == 401).await;
    assert_eq!(victim.answers(5), 0, "the retraction counts");
    assert_eq!((victim.answers(50), victim.answers(51)), (1, 0));
    assert_eq!(victim.waiting(), [(Reason::NoRoom, 349)]);
    assert_eq!(victim.held(&forged.feed).unwrap().elided, 349);
    assert!(victim.refused(&hostile).is_empty(), "nobody is to blame");
    victim.verify();
    victim.node.store().set_free_min_bytes(0);
    until("all of it", || victim.answers(399) == 1).await;
    until("nothing waits", || victim.waiting().is_empty()).await;
    assert_eq!((victim.answers(51), victim.answers(5)), (1, 0));
    // Counted after the entries are there.
    until("nothing is left out", || {
        let held = victim.held(&forged.feed).unwrap();
        (held.elided, held.missing) == (0, 0)
    })
    .await;
    assert!(!notices(&victim).contains("disk_low"));
    victim.verify();
    victim.stop(&coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_there_was_no_room_for_comes_after_a_restart_too() {
    let coalition = ticking();
    let forged = Forged::new(&coalition, NORTH, "set", 300);
    let script = Script {
        first: vec![forged.head(51)],
        ..forged.script()
    };
    let hostile = Hostile::start(&coalition, NORTH, script).await;
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &hostile);
    until("the first", || victim.applied(&forged.feed) == 51).await;
    run_short(&victim.node);
    until("it is noticed", || noted(&victim, "disk_low")).await;
    hostile.says(forged.head(300));
    until("the head", || victim.applied(&forged.feed) == 300).await;
    hostile.plays(forged.script());
    victim.rest().await;
    // As set by default there is room.
    let victim = Victim::start(&coalition).await;
    until("all of it", || victim.answers(299) == 1).await;
    until("nothing waits", || victim.waiting().is_empty()).await;
    victim.verify();
    victim.stop(&coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_no_first_pull_begins_before_there_is_room() {
    let coalition = ticking();
    let forged = Forged::new(&coalition, NORTH, "set", 51);
    let hostile = Hostile::start(&coalition, NORTH, forged.script()).await;
    // Short of room before it looks for the first time.
    let node = coalition.open(SOUTH);
    run_short(&node);
    let victim = Victim::start_of(&coalition, SOUTH, node, |_| ()).await;
    victim.meet(&coalition, &hostile);
    until("it is refused", || noted(&victim, "disk_low")).await;
    assert_eq!(victim.stored(&forged.feed), 0);
    let view = victim.node.exchange().unwrap().feed(&forged.feed).unwrap();
    assert_eq!(view.last_error, "disk_low");
    victim.node.store().set_free_min_bytes(0);
    until("it comes", || victim.applied(&forged.feed) == 51).await;
    assert_eq!(victim.answers(50), 1);
    victim.stop(&coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_takes_no_more_of_the_disk_than_its_bound_with_all_its_sets() {
    let coalition = ticking();
    let forged = Forged::new(&coalition, NORTH, "set", 400);
    let second = Forged::new(&coalition, NORTH, "second", 51);
    let script = Script {
        first: vec![forged.head(51)],
        ..forged.script()
    };
    let hostile = Hostile::start(&coalition, NORTH, script).await;
    // The first 51 fit.
    let takes = |leaf: &RawLeaf| 64 + u64::try_from(leaf.payload().unwrap().len()).unwrap();
    let max: u64 = forged.leaves[..51].iter().map(takes).sum::<u64>() + 1;
    let bound = |options: &mut crate::exchange::ExchangeOptions| {
        options.publisher_max_bytes = max;
    };
    let victim = Victim::start_with(&coalition, bound).await;
    victim.meet(&coalition, &hostile);
    until("the first", || victim.applied(&forged.feed) == 51).await;
    assert!(!noted(&victim, "publisher_cap"));
    hostile.says(forged.head(100));
    until("it is over", || noted(&victim, "publisher_cap")).await;
    let held = victim.held(&forged.feed).unwrap();
    assert!(held.bytes > max, "{}", held.bytes);
    assert!(notices(&victim).contains("publisher_cap"));
    // Neither more of it nor another set.
    hostile.says(forged.head(400));
    hostile.says(second.head(51));
    let refused = || victim.exchange.rejections().noted();
    until("the second is refused", || {
        refused().iter().any(|(who, feed, code)| {
            who == "north" && *feed == Some(second.feed) && *code == "publisher_cap"
        })
    })
    .await;
    assert_eq!(victim.stored(&second.feed), 0);
    assert_eq!((victim.answers(99), victim.answers(399)), (1, 0));
    // Others have room.
    let other = Forged::new(&coalition, WEST, "set", 51);
    let west = Hostile::start(&coalition, WEST, other.script()).await;
    victim.meet(&coalition, &west);
    until("another's", || victim.applied(&other.feed) == 51).await;
    victim.verify();
    victim.stop(&coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_first_left_out_and_brought_later_counts_as_growth() {
    let coalition = ticking();
    let forged = Forged::new(&coalition, NORTH, "set", 202);
    let script = Script {
        first: vec![forged.head(51)],
        ..forged.script()
    };
    let hostile = Hostile::start(&coalition, NORTH, script).await;
    let slow_growth = |options: &mut crate::exchange::ExchangeOptions| {
        options.pull.growth_per_hour = 100;
    };
    let victim = Victim::start_with(&coalition, slow_growth).await;
    victim.meet(&coalition, &hostile);
    until("the first", || victim.applied(&forged.feed) == 51).await;
    // The publisher leaves out what is new, ...
    let mut sparse = forged.clone();
    for leaf in &mut sparse.leaves[51..] {
        *leaf = leaf.elided();
    }
    hostile.plays(Script {
        give: Some(sparse.give()),
        ..Script::default()
    });
    hostile.says(forged.head(202));
    until("the head", || victim.applied(&forged.feed) == 202).await;
    assert_eq!(victim.held(&forged.feed).unwrap().missing, 151);
    // ... and a helper brings it.
    let helper = Hostile::start(&coalition, WEST, forged.script()).await;
    victim.meet(&coalition, &helper);
    until("it is there", || {
        victim.held(&forged.feed).unwrap().missing == 0
    })
    .await;
    assert_eq!(victim.waiting(), [(Reason::OverGrowth, 51)]);
    assert_eq!((victim.answers(150), victim.answers(151)), (1, 0));
    victim.verify();
    // It counts for what comes after it, also after a restart.
    victim.rest().await;
    let victim = Victim::start_with(&coalition, slow_growth).await;
    let level = victim.node.store();
    let no = level.feed_no(&forged.feed).unwrap();
    assert!(level.growth(no).unwrap().level >= 150);
    victim.stop(&coalition).await;
}
