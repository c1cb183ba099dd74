//! Feeds that grow too fast, and rosters that grow too old: what is held back.

use std::sync::atomic::{AtomicU64, Ordering};

use hashpact_node::model::{Decision, Reason};

use super::hostile::*;
use super::*;

/// A next roster of the coalition, of so many days, that allows feeds so much growth.
fn next_roster(node: &Node, days: u64, growth: Option<u64>) {
    let chain = node.membership().roster().unwrap();
    let now = node.clock().now();
    let mut roster = Roster::after(chain.current(), chain.genesis(), now, days * DAY_MS);
    roster.feed_growth_per_hour = growth;
    assert!(node.membership().accept_roster(signed(&roster)).unwrap());
}

fn set_name() -> hashpact_core::id::SetName {
    hashpact_core::id::SetName::parse("north/set").unwrap()
}

fn slow_growth(options: &mut crate::exchange::ExchangeOptions) {
    options.pull.growth_per_hour = 100;
    options.pull.growth_cap_factor = 2;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_the_growth_limit_waits_and_the_rest_counts() {
    let coalition = ticking();
    let mut forged = Forged::new(&coalition, NORTH, "set", 201);
    forged.leaves.push(retract_leaf(5));
    let script = Script {
        first: vec![forged.head(51)],
        ..forged.script()
    };
    let hostile = Hostile::start(&coalition, NORTH, script).await;
    let victim = Victim::start_with(&coalition, slow_growth).await;
    victim.meet(&coalition, &hostile);
    until("the first is there", || victim.applied(&forged.feed) == 51).await;
    hostile.says(forged.head(202));
    until("the rest", || victim.applied(&forged.feed) == 202).await;
    // 150 more of which 100 may come in an hour.
    assert_eq!(victim.waiting(), [(Reason::OverGrowth, 50)]);
    assert_eq!((victim.answers(150), victim.answers(151)), (1, 0));
    assert_eq!(victim.answers(5), 0, "the retraction behind them counts");
    victim.verify();
    // What is held back is relayed all the same.
    let request = all_of(&victim.node, &forged.feed);
    let parts = pull(&victim.node, WEST, request).await.unwrap();
    let relayed: u64 = verified(&parts, &request)
        .iter()
        .map(|c| c.to - c.from)
        .sum();
    assert_eq!(relayed, 202);
    let exported = || {
        let mut count = 0;
        let mut sink = |entries: Vec<_>| {
            count += entries.len();
            true
        };
        victim.node.export(None, (false, false), &mut sink).unwrap();
        count
    };
    assert_eq!(exported(), 149, "and is exported to nobody");
    let entries = victim.node.quarantined(None, None, false, 1).unwrap();
    assert_eq!(
        entries[0].entry.as_ref().unwrap().to_string(),
        "north/set#151"
    );
    let decided =
        victim
            .node
            .decide_quarantine(&set_name(), None, Some(&[151, 3]), Decision::Release);
    assert_eq!(decided.unwrap(), (1, vec![3]));
    assert_eq!(victim.answers(151), 1);
    assert_eq!(exported(), 150);
    victim.stop(&coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_a_restart_nor_a_new_connection_allows_more_growth() {
    let coalition = ticking();
    let forged = Forged::new(&coalition, NORTH, "set", 300);
    let script = |size| Script {
        first: vec![forged.head(size)],
        ..forged.script()
    };
    let hostile = Hostile::start(&coalition, NORTH, script(51)).await;
    let victim = Victim::start_with(&coalition, slow_growth).await;
    victim.meet(&coalition, &hostile);
    until("the first", || victim.applied(&forged.feed) == 51).await;
    hostile.says(forged.head(141));
    until("90 more", || victim.applied(&forged.feed) == 141).await;
    assert_eq!(victim.waiting(), []);
    hostile.plays(script(200));
    victim.rest().await;
    let victim = Victim::start_with(&coalition, slow_growth).await;
    until("59 more", || victim.applied(&forged.feed) == 200).await;
    let over = victim.waiting();
    assert_eq!(over.len(), 1);
    assert!((48..=49).contains(&over[0].1), "{over:?}");
    assert_eq!((victim.answers(149), victim.answers(199)), (1, 0));
    victim.rest().await;
    let victim = Victim::start_with(&coalition, slow_growth).await;
    assert_eq!(victim.waiting(), over);
    assert_eq!(victim.answers(199), 0);
    victim.stop(&coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_growth_cap_nothing_more_is_stored_and_the_code_says_so() {
    let coalition = ticking();
    let forged = Forged::new(&coalition, NORTH, "set", 900);
    let script = Script {
        first: vec![forged.head(50)],
        ..forged.script()
    };
    let hostile = Hostile::start(&coalition, NORTH, script).await;
    let victim = Victim::start_with(&coalition, slow_growth).await;
    victim.meet(&coalition, &hostile);
    until("the first", || victim.applied(&forged.feed) == 50).await;
    hostile.says(forged.head(400));
    until("what went over", || victim.applied(&forged.feed) == 400).await;
    hostile.says(forged.head(900));
    let noted = || victim.exchange.rejections().noted();
    let capped = |(who, feed, code): &(String, Option<FeedId>, &str)| {
        who == "north" && *feed == Some(forged.feed) && *code == "growth_cap"
    };
    until("it is refused", || noted().iter().any(capped)).await;
    assert!(
        victim.refused(&hostile).is_empty(),
        "who serves it is not to blame"
    );
    assert_eq!(victim.stored(&forged.feed), 400);
    let pulls = hostile.pulls();
    let view = victim.node.exchange().unwrap().feed(&forged.feed).unwrap();
    assert_eq!(view.last_error, "growth_cap");
    assert_eq!(hostile.pulls(), pulls, "it is asked for nothing more");
    victim.stop(&coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rosters_growth_limit_counts_where_it_is_lower() {
    let coalition = ticking();
    let forged = Forged::new(&coalition, NORTH, "set", 121);
    let script = Script {
        first: vec![forged.head(51)],
        ..forged.script()
    };
    let hostile = Hostile::start(&coalition, NORTH, script).await;
    let victim = Victim::start_with(&coalition, slow_growth).await;
    next_roster(&victim.node, 365, Some(40));
    victim.meet(&coalition, &hostile);
    until("the first", || victim.applied(&forged.feed) == 51).await;
    hostile.says(forged.head(121));
    until("the rest", || victim.applied(&forged.feed) == 121).await;
    assert_eq!(victim.waiting(), [(Reason::OverGrowth, 30)]);
    victim.stop(&coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_stale_roster_new_entries_wait_for_a_fresh_one_and_retractions_count() {
    let ahead = Arc::new(AtomicU64::new(0));
    let coalition = ticking_from(Arc::clone(&ahead));
    let mut forged = Forged::new(&coalition, NORTH, "set", 60);
    forged.leaves.push(retract_leaf(5));
    forged.leaves.push(publish_leaf(61));
    let script = Script {
        first: vec![forged.head(50)],
        ..forged.script()
    };
    let hostile = Hostile::start(&coalition, NORTH, script).await;
    let victim = Victim::start(&coalition).await;
    next_roster(&victim.node, 30, None);
    next_roster(&hostile.node, 30, None);
    victim.meet(&coalition, &hostile);
    until("the first", || victim.applied(&forged.feed) == 50).await;
    // 13 days after the expiry new entries count, with an alarm.
    ahead.store(43 * DAY_MS, Ordering::SeqCst);
    until("the clock", || {
        victim.node.clock().now() > NOW.plus(43 * DAY_MS)
    })
    .await;
    hostile.says(forged.head(52));
    until("two more", || victim.applied(&forged.feed) == 52).await;
    assert_eq!(victim.answers(51), 1);
    let status = victim.node.status().unwrap();
    assert_eq!(status.roster_state, "grace");
    // 15 days after it they do not; retractions do.
    ahead.store(45 * DAY_MS, Ordering::SeqCst);
    until("the clock", || !victim.node.takes_publish_leaves()).await;
    hostile.says(forged.head(62));
    until("all", || victim.applied(&forged.feed) == 62).await;
    assert_eq!(victim.waiting(), [(Reason::StaleRoster, 9)]);
    assert_eq!(
        (victim.answers(51), victim.answers(52), victim.answers(61)),
        (1, 0, 0)
    );
    assert_eq!(victim.answers(5), 0, "the retraction counts");
    let status = victim.node.status().unwrap();
    assert_eq!((status.roster_state, status.quarantined), ("stale", 9));
    let alarm = |notice: &String| notice.contains("expired more than 14 days ago");
    assert!(status.notices.iter().any(alarm), "{:?}", status.notices);
    next_roster(&victim.node, 365, None);
    until("they count", || victim.answers(61) == 1).await;
    assert_eq!(victim.waiting(), []);
    assert_eq!(victim.answers(52), 1);
    victim.stop(&coalition).await;
}
