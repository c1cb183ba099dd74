//! Suspension and removal, live: in force everywhere within one announcement round.

use hashpact_node::removed::RemovedMembers;

use super::live::{Live, Running, until, verify};
use super::*;

/// Connections that stand with a member.
fn with(running: &Running, member: u32) -> usize {
    let open = running.exchange.connections().open();
    open.iter()
        .filter(|one| one.peer.member == number(member))
        .count()
}

fn suspended(running: &Running, member: u32) -> bool {
    let snapshot = running.node.membership().snapshot().unwrap();
    !snapshot.may_connect(number(member))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspension_handed_to_one_node_is_in_force_at_all_and_nothing_goes_either_way() {
    let mut live = Live::new();
    let (north, south, west) = (
        live.run(NORTH).await,
        live.run(SOUTH).await,
        live.run(WEST).await,
    );
    create_set(&north.node, "ours", &[("all", true)]);
    create_set(&west.node, "theirs", &[("all", true)]);
    publish(&north.node, "ours", 0, 100);
    publish(&west.node, "theirs", 1_000, 1_100);
    live.introduce(&[(NORTH, &north), (SOUTH, &south), (WEST, &west)]);
    for (reader, entry) in [(&south, 99), (&west, 99), (&north, 1_099), (&south, 1_099)] {
        until("all have all", || reader.answers(entry) == 1).await;
    }
    // One node is told; the others hear it from there.
    suspend(&south.node, WEST);
    for one in [&north, &south] {
        until("it is in force", || suspended(one, WEST)).await;
        until("no connection is left", || with(one, WEST) == 0).await;
    }
    publish(&north.node, "ours", 100, 110);
    publish(&west.node, "theirs", 1_100, 1_110);
    until("south goes on with north", || south.answers(109) == 1).await;
    for one in [&north, &south] {
        assert_eq!(one.answers(1_109), 0, "nothing is pulled from it");
        assert_eq!(one.answers(1_099), 1, "access changes, not standing");
    }
    assert_eq!(west.answers(109), 0, "nothing is served to it");
    for one in [north, south, west] {
        verify(&one.node);
        one.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_removed_member_said_stays_attributed_and_counts_as_the_receiver_says() {
    let mut live = Live::new();
    let (north, south, west) = (
        live.run(NORTH).await,
        live.run(SOUTH).await,
        live.run(WEST).await,
    );
    create_set(&west.node, "theirs", &[("all", true)]);
    create_set(&north.node, "ours", &[("all", true)]);
    publish(&west.node, "theirs", 0, 10);
    publish(&north.node, "ours", 8, 12);
    live.introduce(&[(NORTH, &north), (SOUTH, &south), (WEST, &west)]);
    until("south has it", || {
        south.answers(0) == 1 && south.answers(9) == 2
    })
    .await;
    let radius = south.node.blast_radius(&slug("west")).unwrap();
    assert_eq!(
        (radius.entries, radius.without_other, radius.with_one_other),
        (10, 8, 2)
    );
    assert_eq!((radius.sets.len(), radius.examples.len()), (1, 8));
    let deciding = ["west/theirs#9", "west/theirs#10"];
    assert_eq!(radius.examples_with_one_other, deciding);
    set_status(&north.node, WEST, MemberStatus::Removed);
    until("south has the roster", || suspended(&south, WEST)).await;
    for one in [&north, &south] {
        until("no connection is left", || with(one, WEST) == 0).await;
    }
    let signal = entry(0).body.signals.remove(0);
    let found = || {
        south
            .node
            .lookup(std::slice::from_ref(&signal))
            .unwrap()
            .remove(0)
    };
    assert_eq!(found()[0].publisher, number(WEST), "it stays attributed");
    assert_eq!(found()[0].standing, MatchStanding::Active);
    south.node.set_removed_members(RemovedMembers::Review);
    assert_eq!(found()[0].standing, MatchStanding::Review);
    south.node.set_removed_members(RemovedMembers::Ignore);
    assert!(found().is_empty());
    assert_eq!(south.answers(9), 1, "what another says counts");
    south.node.set_removed_members(RemovedMembers::Count);
    assert_eq!(south.answers(0), 1, "nothing was thrown away");
    for one in [north, south, west] {
        verify(&one.node);
        one.stop().await;
    }
}
