//! Digests that other entries dispute, and whose entries dispute none here.

use hashpact_core::id::SetName;
use hashpact_core::leaf::RetractReason;

use super::*;
use crate::model::{Retraction, Selector};
use crate::policy::MuteOf;
use crate::quarantine::RECHECK;
use crate::removed::RemovedMembers;

fn md5() -> Signal {
    Signal::new(SignalKind::Md5, vec![0x5a; 16].into(), None).unwrap()
}

/// An entry with the MD5 of all of them.
fn paired(n: u64) -> NewEntry {
    let mut new = entry(n, "one");
    new.body.signals.insert(0, md5());
    new
}

/// A node with two sets that say the same MD5 beside another SHA-256 each.
fn scene() -> (Scene, Arc<Node>) {
    let scene = Scene::new();
    let node = scene.open();
    for (set, n) in [("other", 1), ("confirmed", 2)] {
        node.create_set(&own_work(set)).unwrap();
        import(&node, set, vec![paired(n)]);
    }
    (scene, node)
}

/// Which sets answer the MD5.
fn answered(node: &Node) -> Vec<String> {
    let found = node.lookup(&[md5()]).unwrap().remove(0);
    let found = found.into_iter().map(|found| found.entry.set.to_string());
    found.collect()
}

#[test]
fn what_is_muted_disputes_nothing_from_the_mute_on() {
    let (_scene, node) = scene();
    assert_eq!(answered(&node), ["north/other"]);
    let set = MuteOf::Set(SetName::parse("north/other").unwrap());
    let expires = node.clock().now().plus(DAY_MS);
    node.mute(&set, "case 7", "test", expires).unwrap();
    assert_eq!(answered(&node), ["north/other", "north/confirmed"]);
    node.unmute(&set).unwrap();
    node.follow_conflicts(&RECHECK).unwrap();
    assert_eq!(answered(&node).len(), 2, "what counts never waits again");
}

#[test]
fn who_is_removed_and_ignored_disputes_nothing() {
    let (scene, node) = scene();
    let waiting = || node.quarantine(None, None).unwrap().len();
    scene.remove_north(&node);
    node.follow_conflicts(&RECHECK).unwrap();
    assert_eq!(waiting(), 1, "it counts as before");
    node.set_removed_members(RemovedMembers::Ignore);
    node.follow_conflicts(&RECHECK).unwrap();
    assert_eq!(waiting(), 0);
}

#[test]
fn neither_opening_a_node_nor_its_roster_waits_for_looks_at_conflicts() {
    let (scene, node) = scene();
    let retraction = Retraction {
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        selectors: vec![(1, Selector::Entry(1))],
    };
    node.retract(&slug("other"), &retraction).unwrap();
    drop(node);
    let node = scene.open();
    node.follow_roster().unwrap();
    assert!(node.conflicts_wait());
    node.follow_conflicts(&RECHECK).unwrap();
    assert!(!node.conflicts_wait());
    assert_eq!(answered(&node), ["north/confirmed"]);
}
