//! The publishing discipline: nothing acknowledged is lost, and no restore forks.

use hashpact_core::id::MemberNumber;

use super::{Scene, entry, hits, import, own_work, slug};
use crate::error::NodeError;
use crate::publish::{AskedPeer, Contact, PeerKey, Round};

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let scene = Scene::new();
    let head = {
        let node = scene.open();
        node.create_set(&own_work("confirmed")).unwrap();
        import(
            &node,
            "confirmed",
            (0..600).map(|n| entry(n, "a")).collect(),
        )
        .head
    };
    let node = scene.open();
    let set = node.sets().remove(0);
    assert_eq!(Some((set.size, set.root)), head);
    assert_eq!(hits(&node, 599), 1);
    assert_eq!(set.closed, None);
}

#[test]
fn an_import_that_was_not_finished_leaves_nothing() {
    let scene = Scene::new();
    {
        let node = scene.open();
        node.create_set(&own_work("confirmed")).unwrap();
        let mut session = node.import(&slug("confirmed")).unwrap();
        session
            .push((0..600).map(|n| entry(n, "a")).collect())
            .unwrap();
    }
    let node = scene.open();
    assert_eq!(node.sets()[0].size, 1);
    assert_eq!(hits(&node, 1), 0);
    let progress = import(
        &node,
        "confirmed",
        (0..600).map(|n| entry(n, "a")).collect(),
    );
    assert_eq!(progress.added, 600);
}

#[test]
fn a_restored_store_publishes_nothing() {
    let scene = Scene::new();
    {
        let node = scene.open();
        node.create_set(&own_work("confirmed")).unwrap();
        import(&node, "confirmed", vec![entry(1, "a")]);
    }
    scene.copy_store_to("backup");
    {
        let node = scene.open();
        import(&node, "confirmed", vec![entry(2, "a")]);
    }
    scene.restore_store_from("backup");
    let node = scene.open();
    let closed = node.sets().remove(0).closed;
    assert!(closed.is_some_and(|why| why.contains("restored")));
    let refused = node.import(&slug("confirmed")).err();
    assert!(matches!(refused, Some(NodeError::PublishingClosed { .. })));
    let refused = node.confirm_head(&slug("confirmed"), "trust me");
    assert!(
        refused.is_err(),
        "not even the operator's word makes a fork"
    );
    assert_eq!(hits(&node, 1), 1, "it answers all the same");
}

#[test]
fn a_lost_sign_state_file_closes_the_set_until_the_operator_confirms() {
    let scene = Scene::new();
    {
        let node = scene.open();
        node.create_set(&own_work("confirmed")).unwrap();
        import(&node, "confirmed", vec![entry(1, "a")]);
    }
    std::fs::remove_dir_all(scene.sign_state_dir()).unwrap();
    let node = scene.open();
    assert!(node.import(&slug("confirmed")).is_err());
    node.confirm_head(&slug("confirmed"), "the disk of the file died")
        .unwrap();
    assert_eq!(import(&node, "confirmed", vec![entry(2, "a")]).added, 1);
}

#[test]
fn where_others_exist_a_restart_waits_for_a_peer() {
    let scene = Scene::of(&["north", "harbor"]);
    {
        let node = scene.open();
        node.create_set(&own_work("confirmed")).unwrap();
        import(&node, "confirmed", vec![entry(1, "a")]);
    }
    let node = scene.open();
    let closed = node.sets().remove(0).closed;
    assert!(closed.is_some_and(|why| why.contains("no peer has said")));
    let publisher = node.publisher();
    let harbor = (MemberNumber::new(2).unwrap(), slug("n1"));
    let other = (MemberNumber::new(2).unwrap(), slug("n2"));
    let asked = |key: &PeerKey| AskedPeer {
        key: key.clone(),
        name: format!("harbor/{}", key.1),
        contact: Contact::Awaited,
    };
    let round = Round {
        peers: Some(vec![asked(&harbor), asked(&other)]),
        wait_ms: 60_000,
        ..Round::default()
    };
    publisher.peer_said_all(&harbor);
    publisher.peers_stand(&round);
    let closed = node.sets().remove(0).closed.unwrap();
    assert!(closed.contains("waiting for harbor/n2"), "{closed}");
    assert!(node.import(&slug("confirmed")).is_err());
    publisher.peer_said_all(&other);
    publisher.peers_stand(&round);
    assert_eq!(node.sets().remove(0).closed, None, "nobody holds more");
}

#[test]
fn two_writers_of_one_set_wait_for_each_other() {
    let scene = Scene::new();
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    let first = node.import(&slug("confirmed")).unwrap();
    assert!(node.import(&slug("confirmed")).is_err());
    drop(first);
    assert!(node.import(&slug("confirmed")).is_ok());
}

#[test]
fn a_describe_leaf_that_renames_the_set_is_not_in_force() {
    let scene = Scene::new();
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    let publisher = node.publisher();
    let feed = publisher.own_set(&slug("confirmed")).unwrap();
    let mut describe = crate::views::describe_of(&feed).unwrap();
    describe.name.set = slug("other");
    let payload = describe.encode([3; 16]).unwrap();
    let mut session = publisher.session(&feed).unwrap();
    let leaf = hashpact_core::leaf::RawLeaf::new(hashpact_core::leaf::DESCRIBE, payload);
    session.append(&[leaf]).unwrap();
    assert_eq!(session.sign().unwrap().size, 2);
    assert_eq!(node.sets()[0].name.to_string(), "north/confirmed");
}
