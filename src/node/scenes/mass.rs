//! A mass retraction by the feed key alone goes to review, not away.

use std::collections::BTreeSet;

use hashpact_core::keys::{Identity, SecretKey};
use hashpact_core::leaf::RetractReason;

use super::{Scene, entry, import, own_work, sha256_of, slug};
use crate::model::{MatchStanding, Retraction, Selector};
use crate::node::Node;

fn standings(node: &Node, n: u64) -> Vec<MatchStanding> {
    let found = node.lookup(&[sha256_of(n)]).unwrap();
    found[0].iter().map(|found| found.standing).collect()
}

/// A set of 400 entries, of which `count` are taken back, with or without the
/// identity key, and then looked at as a reader would.
fn after_retracting(
    count: u64,
    identity: Option<SecretKey<Identity>>,
) -> (Scene, std::sync::Arc<Node>) {
    let scene = Scene::new();
    let node = scene.open_with(identity);
    node.create_set(&own_work("confirmed")).unwrap();
    import(
        &node,
        "confirmed",
        (0..400).map(|n| entry(n, "a")).collect(),
    );
    let feed = node.publisher().own_set(&slug("confirmed")).unwrap();
    // In two turns, each below the limit that a publisher's own node knows.
    for part in [0..count / 2, count / 2..count] {
        let retraction = Retraction {
            reason: RetractReason::Wrong,
            note: String::new(),
            recheck: false,
            selectors: part.map(|n| (n, Selector::Entry(n + 1))).collect(),
        };
        node.retract(&slug("confirmed"), &retraction).unwrap();
    }
    node.review_retractions(feed.no, 0).unwrap();
    (scene, node)
}

#[test]
fn a_mass_retraction_by_the_feed_key_alone_goes_to_review() {
    let (scene, node) = after_retracting(150, None);
    assert_eq!(standings(&node, 0), [MatchStanding::Review]);
    assert_eq!(standings(&node, 149), [MatchStanding::Review]);
    assert_eq!(standings(&node, 150), [MatchStanding::Active]);
    drop(node);
    let node = scene.open();
    assert_eq!(
        standings(&node, 0),
        [MatchStanding::Review],
        "also after a restart"
    );
}

#[test]
fn a_mass_retraction_with_the_identity_key_counts_at_once() {
    let (_scene, node) = after_retracting(150, Some(SecretKey::from_seed(&[2; 32])));
    assert!(standings(&node, 0).is_empty());
}

#[test]
fn a_small_retraction_needs_no_identity_key() {
    let (_scene, node) = after_retracting(100, None);
    assert!(standings(&node, 0).is_empty());
}

#[test]
fn what_is_held_goes_when_the_identity_key_has_signed_for_it() {
    let (scene, node) = after_retracting(150, None);
    let feed = node.publisher().own_set(&slug("confirmed")).unwrap();
    assert_eq!(
        node.store().held_retractions(feed.no).unwrap(),
        BTreeSet::from([401, 402])
    );
    drop(node);
    let node = scene.open();
    let again = Retraction {
        reason: RetractReason::Wrong,
        note: "confirmed by the identity key".to_owned(),
        recheck: false,
        selectors: (0..150).map(|n| (n, Selector::Entry(n + 1))).collect(),
    };
    node.retract(&slug("confirmed"), &again).unwrap();
    node.review_retractions(feed.no, 0).unwrap();
    assert!(standings(&node, 0).is_empty());
}
