//! A mass retraction by the feed key alone goes to review, not away.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashpact_core::id::UnixMillis;
use hashpact_core::keys::{Identity, SecretKey};
use hashpact_core::leaf::{
    Basis, IndexRange, MediaKind, Publish, RETRACT, RawLeaf, Retract, RetractReason,
};
use hashpact_core::limits::DAY_MS;

use super::{Scene, entry, import, own_work, sha256_of, slug};
use crate::model::{MatchStanding, NewEntry, Retraction, Selector};
use crate::node::Node;

fn standings(node: &Node, n: u64) -> Vec<MatchStanding> {
    let found = node.lookup(&[sha256_of(n)]).unwrap();
    found[0].iter().map(|found| found.standing).collect()
}

/// A set of 400 entries, of which `count` are taken back, with or without the
/// identity key, and then looked at as a reader would.
fn after_retracting(count: u64, identity: Option<SecretKey<Identity>>) -> (Scene, Arc<Node>) {
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
fn after(leaves: &[RawLeaf]) -> (Scene, Arc<Node>) {
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

/// A retract leaf with a signature that nobody made.
fn falsely_signed() -> RawLeaf {
    let mut retract = Retract {
        indexes: vec![IndexRange { first: 1, count: 1 }],
        reason: RetractReason::Wrong,
        recheck: false,
        note: String::new(),
        created: super::NOW,
        identity_signature: None,
    };
    retract.identity_signature = Some([9; 64]);
    RawLeaf::new(RETRACT, retract.encode([7; 16]).unwrap())
}

#[test]
fn a_retraction_is_read_for_its_signature_once_and_again_for_another_key() {
    let looked = |node: &Node| {
        node.counted
            .checked
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    let leaves: Vec<RawLeaf> = (0..300).map(|_| falsely_signed()).collect();
    let (scene, node) = after(&leaves);
    assert_eq!((looked(&node), held(&node)), (300, 300));
    let feed = node.publisher().own_set(&slug("confirmed")).unwrap();
    let one_more = |node: &Node| {
        let mut session = node.publisher().session(&feed).unwrap();
        let from = session.append(&[falsely_signed()]).unwrap();
        session.sign().unwrap();
        node.review_retractions(feed.no, from).unwrap();
        from
    };
    one_more(&node);
    assert_eq!((looked(&node), held(&node)), (301, 301));
    drop(node);
    let node = scene.open();
    let last = one_more(&node);
    assert_eq!((looked(&node), held(&node)), (1, 302), "also over a start");
    // One that was checked with other keys.
    let mut row = node.store().retraction_rows(feed.no, last, 0).unwrap()[0];
    row.signed = hashpact_store::Signed::Checked {
        keys: 0,
        good: true,
    };
    node.store().note_signed(feed.no, &[row]).unwrap();
    one_more(&node);
    assert_eq!((looked(&node), held(&node)), (3, 303));
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

/// A reader's view of a set of 400 entries, to which somebody appends versions under so
/// many heads: the store knows nothing of who wrote them.
fn versions(heads: &[Vec<NewEntry>]) -> (Scene, Arc<Node>) {
    let scene = Scene::new();
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    let entries = (0..400).map(|n| entry(n, "a")).collect();
    import(&node, "confirmed", entries);
    for head in heads {
        append(&node, head);
    }
    (scene, node)
}

/// Under one head.
fn append(node: &Node, versions: &[NewEntry]) {
    let feed = node.publisher().own_set(&slug("confirmed")).unwrap();
    let mut session = node.publisher().session(&feed).unwrap();
    let from = session.size();
    for version in versions {
        let payload = version.body.encode([3; 16]).unwrap();
        let leaf = RawLeaf::new(hashpact_core::leaf::PUBLISH, payload);
        session.append(&[leaf]).unwrap();
    }
    session.sign().unwrap();
    node.review_retractions(feed.no, from).unwrap();
}

fn replacing_with(named: &[Vec<u64>], body: impl Fn(u64, u64) -> NewEntry) -> Vec<NewEntry> {
    let versions = named.iter().enumerate().map(|(n, replaces)| {
        let mut version = body(u64::try_from(n).unwrap(), replaces[0] - 1);
        version.body.replaces.clone_from(replaces);
        version
    });
    versions.collect()
}

fn replacing(named: &[Vec<u64>]) -> Vec<MatchStanding> {
    let new = replacing_with(named, |n, _| entry(10_000 + n, "new"));
    let (_scene, node) = versions(&[new]);
    standings(&node, 5)
}

fn held(node: &Node) -> usize {
    let feed = node.publisher().own_set(&slug("confirmed")).unwrap();
    node.store().held_retractions(feed.no).unwrap().len()
}

/// New versions of the first entries, each under its own name.
fn updates(count: u64, body: impl Fn(u64) -> NewEntry) -> Vec<NewEntry> {
    let named: Vec<_> = (1..=count).map(|first| vec![first]).collect();
    replacing_with(&named, |_, of| body(of))
}

#[test]
fn new_versions_that_drop_what_their_entries_said_count_as_a_mass_retraction() {
    let other = |n| entry(10_000 + n, "b");
    let (_scene, node) = versions(&[updates(150, other)]);
    assert_eq!(standings(&node, 5), [MatchStanding::Review]);
    assert_eq!(standings(&node, 149), [MatchStanding::Review]);
    assert_eq!(standings(&node, 150), [MatchStanding::Active]);
    assert_eq!(
        standings(&node, 10_005),
        [MatchStanding::Active],
        "what is new counts"
    );
    // A few are no mass.
    let (_scene, node) = versions(&[updates(100, other)]);
    assert!(standings(&node, 5).is_empty());
    // Spread over heads they are, and each is looked at once.
    let heads: Vec<_> = updates(150, other).chunks(30).map(<[_]>::to_vec).collect();
    let (_scene, node) = versions(&heads);
    assert_eq!(standings(&node, 5), [MatchStanding::Review]);
    assert_eq!(held(&node), 150);
}

#[test]
fn so_do_versions_that_are_about_something_else_or_end() {
    let changes: [fn(&mut Publish); 4] = [
        |body| body.classification = None,
        |body| body.media_kind = MediaKind::Other,
        |body| body.basis = Basis::Inherited,
        |body| body.expires = Some(super::NOW),
    ];
    for (no, change) in changes.into_iter().enumerate() {
        let changed = |n| {
            let mut version = entry(n, "b");
            change(&mut version.body);
            version
        };
        let (_scene, node) = versions(&[updates(150, changed)]);
        assert_eq!(held(&node), 150, "{no}");
    }
}

#[test]
fn new_versions_that_say_all_that_was_said_take_nothing_out() {
    let more = |n| {
        let mut version = entry(n, "b");
        version.body.signals.push(sha256_of(20_000 + n));
        version
    };
    let (_scene, node) = versions(&[updates(150, more)]);
    assert_eq!(
        (held(&node), standings(&node, 5)),
        (0, vec![MatchStanding::Active])
    );
}

// What the first drops is held; the second drops nothing of the first.
#[test]
fn a_second_version_does_not_take_out_what_the_first_could_not() {
    let other = |n| entry(10_000 + n, "b");
    let again: Vec<_> = (1..=150).map(|first| vec![first, 400 + first]).collect();
    let again = replacing_with(&again, |_, of| entry(10_000 + of, "c"));
    let first = updates(150, other);
    let (_scene, node) = versions(&[first.clone(), again.clone()]);
    assert_eq!(standings(&node, 5), [MatchStanding::Review]);
    // Nor under one head.
    let (_scene, node) = versions(&[[first, again].concat()]);
    assert_eq!(standings(&node, 5), [MatchStanding::Review]);
}

#[test]
fn an_import_that_says_less_of_many_entries_needs_the_identity_key() {
    let changed = || {
        let other = |n: u64| {
            let mut new = entry(10_000 + n, "b");
            new.body.source_reference = format!("ref-{n}");
            new
        };
        (0..150).map(other).collect::<Vec<_>>()
    };
    let entries = || (0..400).map(|n| entry(n, "a")).collect();
    let scene = Scene::new();
    let node = scene.open_with(None);
    node.create_set(&own_work("confirmed")).unwrap();
    import(&node, "confirmed", entries());
    let mut importing = node.import(&slug("confirmed")).unwrap();
    let done = importing.push(changed()).unwrap();
    assert_eq!((done.replaced, done.rejected.len()), (100, 50));
    assert_eq!(done.rejected[0].code, "identity_key_needed");
    importing.finish().unwrap();
    assert_eq!(standings(&node, 149), [MatchStanding::Active]);

    // With it all go, and nobody holds anything.
    let scene = Scene::new();
    let node = scene.open_with(Some(SecretKey::from_seed(&[2; 32])));
    node.create_set(&own_work("confirmed")).unwrap();
    import(&node, "confirmed", entries());
    let feed = node.publisher().own_set(&slug("confirmed")).unwrap();
    assert_eq!(import(&node, "confirmed", changed()).replaced, 150);
    node.review_retractions(feed.no, 401).unwrap();
    assert_eq!(held(&node), 0);
    assert!(standings(&node, 5).is_empty());
    assert_eq!(standings(&node, 10_005), [MatchStanding::Active]);
    assert_eq!(import(&node, "confirmed", changed()).unchanged, 150);
}

#[test]
fn a_leaf_that_replaces_other_entries_than_its_own_counts_as_a_mass_retraction() {
    // One leaf names 200 live entries as its earlier versions.
    assert_eq!(replacing(&[(1..=200).collect()]), [MatchStanding::Review]);
    // A few are no mass.
    assert!(replacing(&[(1..=50).collect()]).is_empty());
    // Spread over many leaves they are.
    let spread: Vec<Vec<u64>> = (0..40).map(|n| (n * 5 + 1..n * 5 + 6).collect()).collect();
    assert_eq!(replacing(&spread), [MatchStanding::Review]);
    // Nor do any number of harmless ones hide it.
    let mut hidden: Vec<Vec<u64>> = vec![(1..=200).collect()];
    for n in 0..20_000 {
        let second = 402 + 2 * n;
        hidden.extend([vec![300], vec![300, second]]);
    }
    assert_eq!(replacing(&hidden), [MatchStanding::Review]);
}

#[test]
fn a_new_version_that_names_all_earlier_ones_of_its_entry_takes_nothing_out() {
    let mut named = Vec::new();
    // Entries 1 to 150, three versions each, one after the other.
    for first in 1..=150_u64 {
        named.push(vec![first]);
        let second = 401 + u64::try_from(named.len()).unwrap() - 1;
        named.push(vec![first, second]);
    }
    let same = replacing_with(&named, |n, of| entry(of, &format!("version {n}")));
    let (_scene, node) = versions(&[same]);
    assert_eq!(
        (held(&node), standings(&node, 5)),
        (0, vec![MatchStanding::Active])
    );
}

#[test]
fn filler_published_within_the_day_does_not_raise_what_may_be_retracted() {
    let scene = Scene::new();
    let node = scene.open_with(None);
    node.create_set(&own_work("confirmed")).unwrap();
    import(
        &node,
        "confirmed",
        (0..400).map(|n| entry(n, "a")).collect(),
    );
    let filler = (1_000..31_000).map(|n| entry(n, "b")).collect();
    import(&node, "confirmed", filler);
    let feed = node.publisher().own_set(&slug("confirmed")).unwrap();
    let retraction = Retraction {
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        selectors: (0..200).map(|n| (n, Selector::Entry(n + 1))).collect(),
    };
    node.retract(&slug("confirmed"), &retraction).unwrap();
    // One per cent of the set as it stands would be 304.
    node.review_retractions(feed.no, 401).unwrap();
    assert_eq!(standings(&node, 0), [MatchStanding::Review]);
    // What the set had a day before counts.
    let scene = Scene::new();
    let node = scene.open_with(None);
    node.create_set(&own_work("confirmed")).unwrap();
    let many = (0..30_400).map(|n| entry(n, "a")).collect();
    import(&node, "confirmed", many);
    let feed = node.publisher().own_set(&slug("confirmed")).unwrap();
    scene
        .clock
        .set(scene.clock.now().plus(hashpact_core::limits::DAY_MS));
    node.retract(&slug("confirmed"), &retraction).unwrap();
    node.review_retractions(feed.no, 401).unwrap();
    assert!(standings(&node, 0).is_empty());
}
