//! A mass retraction by the feed key alone goes to review, not away.

use std::collections::BTreeSet;

use hashpact_core::id::UnixMillis;
use hashpact_core::keys::{Identity, SecretKey};
use hashpact_core::leaf::{IndexRange, RETRACT, RawLeaf, Retract, RetractReason};
use hashpact_core::limits::DAY_MS;

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

/// A retraction as a thief of the feed key makes it, who says any time.
fn stolen(first: u64, count: u64, created: UnixMillis) -> RawLeaf {
    let retract = Retract {
        indexes: vec![IndexRange { first, count }],
        reason: RetractReason::Wrong,
        recheck: false,
        note: String::new(),
        created,
        identity_signature: None,
    };
    RawLeaf::new(RETRACT, retract.encode([7; 16]).unwrap())
}

/// A set of 400 entries that a reader has, and leaves that come under one head.
fn after(leaves: &[RawLeaf]) -> (Scene, std::sync::Arc<Node>) {
    let scene = Scene::new();
    let node = scene.open_with(None);
    node.create_set(&own_work("confirmed")).unwrap();
    import(
        &node,
        "confirmed",
        (0..400).map(|n| entry(n, "a")).collect(),
    );
    let feed = node.publisher().own_set(&slug("confirmed")).unwrap();
    let mut session = node.publisher().session(&feed).unwrap();
    let from = session.append(leaves).unwrap();
    session.sign().unwrap();
    node.review_retractions(feed.no, from).unwrap();
    (scene, node)
}

#[test]
fn a_time_to_come_hides_no_mass_retraction_before_it() {
    let later = super::NOW.plus(3 * DAY_MS);
    let (_scene, node) = after(&[stolen(1, 200, super::NOW), stolen(201, 1, later)]);
    assert_eq!(standings(&node, 0), [MatchStanding::Review]);
}

#[test]
fn invented_days_spread_no_mass_retraction() {
    for forwards in [true, false] {
        let day = |n: u64| {
            let ms = n * DAY_MS;
            if forwards {
                super::NOW.plus(ms)
            } else {
                UnixMillis(super::NOW.0 - (40 - n) * DAY_MS)
            }
        };
        let leaves: Vec<RawLeaf> = (0..4)
            .map(|n| stolen(1 + 90 * n, 90, day(10 * n)))
            .collect();
        let (_scene, node) = after(&leaves);
        assert_eq!(standings(&node, 0), [MatchStanding::Review], "{forwards}");
        assert_eq!(standings(&node, 350), [MatchStanding::Review], "{forwards}");
        assert_eq!(standings(&node, 399), [MatchStanding::Active], "{forwards}");
    }
}

#[test]
fn many_small_retractions_hide_no_large_one_before_them() {
    let mut leaves = vec![stolen(1, 200, super::NOW)];
    leaves.extend((0..20_000).map(|_| stolen(1, 1, super::NOW)));
    let (_scene, node) = after(&leaves);
    assert_eq!(standings(&node, 150), [MatchStanding::Review]);
}
