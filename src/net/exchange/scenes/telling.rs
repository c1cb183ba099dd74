//! What a member hears on a watch.

use hashpact_core::evidence::ForkEvidence;
use hashpact_core::leaf::RawLeaf;
use hashpact_core::merkle::proof::verify_inclusion;
use hashpact_core::page;
use hashpact_node::hub::Change;
use hashpact_store::ForkName;

use super::*;
use crate::exchange::announce::{announcements, told_to};
use crate::types::GrantEnded;

fn watch(node: &Arc<Node>, to: u32) -> Answers<Announcement> {
    told_to(Arc::clone(node), number(to))
}

fn feeds(said: &[Announcement]) -> Vec<FeedId> {
    let mut feeds = Vec::new();
    for item in said {
        if let Announcement::Head(head) = item {
            feeds.push(head.feed);
        }
    }
    feeds
}

fn ended(said: &[Announcement]) -> Vec<&GrantEnded> {
    let mut ended = Vec::new();
    for item in said {
        if let Announcement::GrantEnded(leaf) = item {
            ended.push(&**leaf);
        }
    }
    ended
}

#[tokio::test]
async fn a_watch_begins_with_roster_cards_and_the_heads_that_the_member_may_read() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let granted = create_set(&north, "granted", &[("south", false)]);
    create_set(&north, "private", &[]);
    let said = snapshot_of(&mut watch(&north, SOUTH)).await;
    let Announcement::Roster {
        version: 2, digest, ..
    } = &said[0]
    else {
        panic!("the roster comes first: {said:?}");
    };
    assert_eq!(
        *digest,
        north.membership().roster().unwrap().current().digest()
    );
    let cards = said
        .iter()
        .filter(|i| matches!(i, Announcement::NodeCard(_)));
    assert_eq!(cards.count(), 4);
    assert_eq!(feeds(&said), [granted]);
    assert!(ended(&said).is_empty());
}

#[tokio::test]
async fn a_new_head_is_told_and_an_old_one_not_again() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let feed = create_set(&north, "set", &[("south", false)]);
    let mut said = watch(&north, SOUTH);
    snapshot_of(&mut said).await;
    publish(&north, "set", 0, 5);
    let Announcement::Head(head) = next(&mut said).await else {
        panic!("no head");
    };
    let stored = north
        .store()
        .applied_head(feed_of(&north, &feed).no)
        .unwrap()
        .unwrap();
    assert_eq!(head.note, stored.note());
    assert_eq!(head.publisher, number(NORTH));
    north.hub().tell(Change::Access);
    north.hub().tell(Change::Head(feed));
    are_quiet(&coalition, &north, &mut [&mut said]).await;
}

#[tokio::test]
async fn a_feed_is_named_once_it_is_granted_and_to_nobody_else() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let feed = create_set(&north, "set", &[]);
    let (mut south, mut west) = (watch(&north, SOUTH), watch(&north, WEST));
    assert!(feeds(&snapshot_of(&mut south).await).is_empty());
    assert!(feeds(&snapshot_of(&mut west).await).is_empty());
    publish(&north, "set", 0, 3);
    are_quiet(&coalition, &north, &mut [&mut south, &mut west]).await;
    change_grants(&north, "set", &[("south", false)], &[]);
    assert_eq!(feeds(&[next(&mut south).await]), [feed]);
    are_quiet(&coalition, &north, &mut [&mut west]).await;
}

#[tokio::test]
async fn a_witness_hears_all_heads() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let feed = create_set(&north, "private", &[]);
    let said = snapshot_of(&mut watch(&north, WITNESS)).await;
    assert_eq!(feeds(&said), [feed]);
}

#[tokio::test]
async fn a_lost_grant_is_told_once_with_the_leaf_that_ends_it_and_its_proof() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let feed = create_set(&north, "set", &[("south", false)]);
    publish(&north, "set", 0, 300);
    let mut live = watch(&north, SOUTH);
    snapshot_of(&mut live).await;
    change_grants(&north, "set", &[], &["south"]);
    let live_said = [next(&mut live).await];
    let ended_at = |said: &[Announcement]| {
        let GrantEnded {
            head,
            index,
            leaf,
            inclusion,
        } = ended(said)[0].clone();
        assert_eq!(head.feed, feed);
        assert!(head.receipts.is_empty());
        let leaf = page::decode_leaf(&leaf).unwrap();
        let keys = |epoch| {
            let membership = north.membership();
            membership.feed_keys(number(NORTH), None, feed, epoch)
        };
        let name = CoalitionName::parse(COALITION).unwrap();
        let head = checkpoint::verify(&head.note, &name, &feed, keys).unwrap();
        verify_inclusion(&leaf.hash(), index, head.size(), &inclusion, &head.root()).unwrap();
        (index, leaf)
    };
    let (index, leaf): (u64, RawLeaf) = ended_at(&live_said);
    assert_eq!((index, leaf.kind), (301, hashpact_core::leaf::DESCRIBE));
    // Later changes are not for who is out.
    change_grants(&north, "set", &[("west", false)], &[]);
    publish(&north, "set", 300, 310);
    are_quiet(&coalition, &north, &mut [&mut live]).await;
    // A member that was away hears of the same leaf.
    let said = snapshot_of(&mut watch(&north, SOUTH)).await;
    assert_eq!(ended_at(&said), (index, leaf));
    assert!(feeds(&said).is_empty());
    // One that never had a grant hears nothing, and one that has it no end.
    for other in [WEST, WITNESS] {
        let said = snapshot_of(&mut watch(&north, other)).await;
        assert!(ended(&said).is_empty());
    }
}

#[tokio::test]
async fn every_reader_tells_every_reader_of_heads_and_nobody_else() {
    let coalition = Coalition::new();
    let (north, west) = (coalition.open(NORTH), coalition.open(WEST));
    let feed = create_set(&north, "set", &[("west", false)]);
    bring(&north, &west, &feed, false).await;
    let mut south = watch(&west, SOUTH);
    assert!(feeds(&snapshot_of(&mut south).await).is_empty());
    for other in [NORTH, WITNESS] {
        let said = snapshot_of(&mut watch(&west, other)).await;
        assert_eq!(feeds(&said), [feed]);
    }
    // A reader hears the head of one that may not relay, and gets no leaves there.
    change_grants(&north, "set", &[("south", false)], &[]);
    bring(&north, &west, &feed, false).await;
    assert_eq!(feeds(&[next(&mut south).await]), [feed]);
    let request = all_of(&west, &feed);
    assert!(pull(&west, SOUTH, request).await.is_err());
    let proof = PullRequest {
        proof_only: true,
        ..request
    };
    assert!(pull(&west, SOUTH, proof).await.is_ok());
}

#[tokio::test]
async fn a_suspended_member_s_watch_ends_and_the_others_hear_why() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let (mut south, mut west) = (watch(&north, SOUTH), watch(&north, WEST));
    snapshot_of(&mut south).await;
    snapshot_of(&mut west).await;
    suspend(&north, SOUTH);
    let last = timeout(super::hostile::PATIENCE, south.next())
        .await
        .unwrap();
    assert_eq!(last, Some(Err(ServiceError::NotActive)));
    assert_eq!(south.next().await, None);
    assert!(matches!(next(&mut west).await, Announcement::Suspension(_)));
    let mut dialled = announcements(Arc::clone(&north), number(SOUTH));
    assert_eq!(dialled.next().await, None);
}

#[tokio::test]
async fn a_watcher_that_falls_behind_starts_again_from_the_state() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    create_set(&north, "set", &[("south", false)]);
    let mut said = watch(&north, SOUTH);
    snapshot_of(&mut said).await;
    let feed = create_set(&north, "other", &[("south", false)]);
    for _ in 0..10_000 {
        north.hub().tell(Change::Card(number(WEST)));
    }
    assert_eq!(feeds(&[next(&mut said).await]), [feed]);
    are_quiet(&coalition, &north, &mut [&mut said]).await;
}

/// Gives a member other roles.
pub(super) fn set_roles(node: &Node, member: u32, roles: Vec<Role>) {
    let chain = node.membership().roster().unwrap();
    let now = node.clock().now();
    let mut roster = Roster::after(chain.current(), chain.genesis(), now, 365 * DAY_MS);
    roster
        .change_member(number(member), |member| member.roles = roles)
        .unwrap();
    node.membership().accept_roster(signed(&roster)).unwrap();
}

#[tokio::test]
async fn an_observer_is_told_of_no_feed_even_of_one_that_is_granted_to_it_or_to_all() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let granted = create_set(&north, "granted", &[("south", true), ("all", false)]);
    let lost = create_set(&north, "lost", &[("south", false)]);
    publish(&north, "granted", 0, 5);
    // While it subscribes it hears of both.
    assert_eq!(
        feeds(&snapshot_of(&mut watch(&north, SOUTH)).await).len(),
        2
    );
    set_roles(&north, SOUTH, vec![Role::Observe]);
    let mut live = watch(&north, SOUTH);
    let tells_of_feeds = |said: &Announcement| match said {
        Announcement::Head(_) | Announcement::GrantEnded(_) | Announcement::Evidence(_) => true,
        Announcement::Roster { .. }
        | Announcement::NodeCard(_)
        | Announcement::Suspension(_)
        | Announcement::SnapshotEnd
        | Announcement::Alive { .. }
        | Announcement::Overdue(_)
        | Announcement::Quarantined(..)
        | Announcement::DocumentEvidence(_) => false,
    };
    let said = snapshot_of(&mut live).await;
    assert!(!said.iter().any(tells_of_feeds), "{said:?}");
    let cards = said
        .iter()
        .filter(|i| matches!(i, Announcement::NodeCard(_)));
    assert_eq!(cards.count(), 4, "it hears who takes part");
    // Nor when something happens to them.
    publish(&north, "granted", 5, 9);
    change_grants(&north, "lost", &[("west", false)], &["south"]);
    create_set(&north, "new", &[("all", false)]);
    are_quiet(&coalition, &north, &mut [&mut live]).await;
    for feed in [granted, lost] {
        let request = all_of(&north, &feed);
        let no_such = PullRequest {
            feed: FeedId(Digest::of(b"no such feed")),
            ..request
        };
        for proof_only in [false, true] {
            let ask = |request: PullRequest| {
                pull(
                    &north,
                    SOUTH,
                    PullRequest {
                        proof_only,
                        ..request
                    },
                )
            };
            let refused = ask(request).await;
            assert!(refused.is_err());
            assert_eq!(refused, ask(no_such).await);
        }
    }
}

#[tokio::test]
async fn evidence_of_many_forks_is_told_before_the_end_and_to_readers_alone() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let keep = |set: &str| {
        let feed = create_set(&north, set, &[("south", false)]);
        let fork = ForkName { feed, epoch: 0 };
        let evidence = ForkEvidence {
            feed,
            smaller: Bytes::new(),
            larger: Bytes::new(),
            before: Vec::new(),
            between: Vec::new(),
            node_cards: Vec::new(),
        };
        let store = north.store();
        assert!(
            store
                .put_fork(number(NORTH), &fork, Some(evidence))
                .unwrap()
        );
        feed
    };
    for n in 0..50 {
        keep(&format!("set-{n}"));
    }
    let told = |said: &[Announcement]| {
        let mut told = BTreeSet::new();
        for item in said {
            if let Announcement::Evidence(piece) = item {
                assert!(told.insert(ForkEvidence::decode(piece).unwrap().feed));
            }
        }
        told.len()
    };
    let mut south = watch(&north, SOUTH);
    assert_eq!(told(&snapshot_of(&mut south).await), 50);
    assert_eq!(told(&snapshot_of(&mut watch(&north, WEST)).await), 0);
    // One that is found later is told alone.
    let last = keep("last");
    north.hub().tell(Change::Evidence(last));
    loop {
        if let Announcement::Evidence(piece) = next(&mut south).await {
            assert_eq!(ForkEvidence::decode(&piece).unwrap().feed, last);
            return;
        }
    }
}
