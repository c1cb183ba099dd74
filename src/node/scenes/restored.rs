//! A store that was restored: what others publish is at review until it is known to be
//! the newest.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashpact_core::id::{MemberNumber, SetName};
use hashpact_core::leaf::audit::{Act, Actor, OK};
use hashpact_core::leaf::{
    FeedKind as DescribedKind, IndexRange, PUBLISH, RETRACT, RawLeaf, Retract, RetractReason,
};
use hashpact_store::{FeedInfo, FeedKind};

use super::opinions::{described, others};
use super::{NOW, Scene, entry, import, own_work, sha256_of, slug};
use crate::model::MatchStanding;
use crate::node::Node;
use crate::publish::{AskedPeer, Contact, PeerKey, Round};
use crate::restored::NOT_READY_MS;

const SET: &str = "harbor/confirmed";

fn harbor() -> MemberNumber {
    MemberNumber::new(2).unwrap()
}

fn vale() -> PeerKey {
    (MemberNumber::new(3).unwrap(), slug("n1"))
}

fn bring(node: &Node, leaves: &[RawLeaf]) {
    let describe = described(SET, DescribedKind::HashSet);
    others(node, (SET.as_bytes(), FeedKind::HashSet), describe, leaves);
}

fn publish(n: u64) -> RawLeaf {
    let body = entry(n, "theirs").body;
    RawLeaf::new(PUBLISH, body.encode([6; 16]).unwrap())
}

fn retract(first: u64) -> RawLeaf {
    let retract = Retract {
        indexes: vec![IndexRange { first, count: 1 }],
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        created: NOW,
        identity_signature: None,
    };
    RawLeaf::new(RETRACT, retract.encode([6; 16]).unwrap())
}

fn act(node: &Node) {
    node.audit().note(Act::new("test.act", Actor::node()), OK);
}

fn standing(node: &Node, n: u64) -> Option<MatchStanding> {
    let found = node.lookup(&[sha256_of(n)]).unwrap();
    found[0].first().map(|found| found.standing)
}

fn feed(node: &Node) -> FeedInfo {
    node.feed_of(&SetName::parse(SET).unwrap()).unwrap()
}

/// How the peers stand: one within reach, that holds the set.
fn round() -> Round {
    Round {
        peers: Some(vec![AskedPeer {
            key: vale(),
            name: "vale/n1".to_owned(),
            contact: Contact::Awaited,
        }]),
        unheard: BTreeSet::new(),
        wait_ms: 60_000,
    }
}

/// A node with a set of its own and one of another, of which the store is that of before
/// its last act.
fn restored(scene: &Scene) -> Arc<Node> {
    let node = scene.open();
    node.create_set(&own_work("mine")).unwrap();
    import(&node, "mine", vec![entry(7, "mine")]);
    bring(&node, &[publish(1), publish(2)]);
    act(&node);
    assert_eq!(standing(&node, 1), Some(MatchStanding::Active));
    drop(node);
    scene.copy_store_to("backup");
    let node = scene.open();
    assert!(node.is_ready(), "a start alone is no restore");
    act(&node);
    drop(node);
    scene.restore_store_from("backup");
    scene.open()
}

fn scene() -> Scene {
    Scene::of(&["north", "harbor", "vale"])
}

#[test]
fn what_others_publish_is_at_review_until_the_newest_head_of_the_publisher_is_held() {
    let scene = scene();
    let node = restored(&scene);
    assert_eq!(standing(&node, 1), Some(MatchStanding::Review));
    assert_eq!(standing(&node, 7), Some(MatchStanding::Active), "own words");
    assert!(!node.is_ready());
    let why = node.why_not_ready();
    assert!(why[0].contains("restored"), "{why:?}");
    let notices = node.status().unwrap().notices.join("\n");
    assert!(notices.contains(SET), "{notices}");
    // The audit feed goes on, and the next start sees nothing of it any more.
    act(&node);
    drop(node);
    let node = scene.open();
    assert_eq!(standing(&node, 1), Some(MatchStanding::Review));

    // A peer has told of more, then the publisher of as much.
    node.heard_of(&feed(&node), (0, 4), Some(vale().0));
    node.heard_of(&feed(&node), (0, 4), Some(harbor()));
    node.follow_restored(round).unwrap();
    assert_eq!(standing(&node, 1), Some(MatchStanding::Review), "behind");
    bring(&node, &[retract(1)]);
    node.follow_restored(round).unwrap();
    assert_eq!(standing(&node, 1), None);
    assert_eq!(standing(&node, 2), Some(MatchStanding::Active));
    assert!(node.is_ready());
}

#[test]
fn without_the_publisher_all_peers_within_reach_are_asked() {
    let scene = scene();
    let node = restored(&scene);
    let (of, stands) = (feed(&node), (0, 3));
    node.peer_said_all(&vale());
    node.follow_restored(round).unwrap();
    let review = Some(MatchStanding::Review);
    assert_eq!(standing(&node, 1), review, "nobody has told a head");
    // A bundle says what there was, and nobody is asked by it.
    node.heard_of(&of, stands, None);
    node.follow_restored(round).unwrap();
    assert_eq!(standing(&node, 1), review);
    node.heard_of(&of, stands, Some(vale().0));
    node.follow_restored(round).unwrap();
    assert_eq!(standing(&node, 1), Some(MatchStanding::Active));
}

#[test]
fn a_peer_that_says_nothing_is_waited_for_and_not_for_ever() {
    let scene = scene();
    let node = restored(&scene);
    let two = || {
        let mut two = round();
        let mute = (MemberNumber::new(2).unwrap(), slug("n2"));
        two.peers.as_mut().unwrap().push(AskedPeer {
            key: mute,
            name: "harbor/n2".to_owned(),
            contact: Contact::Awaited,
        });
        two
    };
    node.heard_of(&feed(&node), (0, 3), Some(vale().0));
    node.peer_said_all(&vale());
    node.follow_restored(two).unwrap();
    assert_eq!(standing(&node, 1), Some(MatchStanding::Review));
    scene.clock.set(NOW.plus(60_000));
    node.follow_restored(two).unwrap();
    assert_eq!(standing(&node, 1), Some(MatchStanding::Active));
}

#[test]
fn a_head_without_leaves_keeps_its_own_set_at_review_and_the_node_ready_in_the_end() {
    let scene = scene();
    let node = restored(&scene);
    node.heard_of(&feed(&node), (0, 1_000_000), Some(harbor()));
    node.follow_restored(round).unwrap();
    assert!(!node.is_ready());
    scene.clock.set(NOW.plus(NOT_READY_MS));
    node.follow_restored(round).unwrap();
    assert!(node.is_ready(), "{:?}", node.why_not_ready());
    assert_eq!(standing(&node, 1), Some(MatchStanding::Review));
    // Until an operator says so.
    let set = SetName::parse(SET).unwrap();
    node.confirm_held(&set, "the publisher says 3").unwrap();
    assert_eq!(standing(&node, 1), Some(MatchStanding::Active));
}
