//! What entries become: known again, replaced, taken back, exported.

use hashpact_core::leaf::{Classification, RetractReason};
use hashpact_store::FindingKind;

use super::{Scene, entry, hits, import, own_work, sha256_of, slug};
use crate::error::NodeError;
use crate::model::{Erasure, Grantee, Retraction, Selector, SetSource};
use crate::node::Node;

fn retract(node: &Node, selectors: Vec<Selector>) -> crate::model::Retracted {
    let retraction = Retraction {
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        selectors: (1..).zip(selectors).collect(),
    };
    node.retract(&slug("confirmed"), &retraction).unwrap()
}

#[test]
fn the_same_entry_again_adds_nothing_and_a_changed_one_replaces() {
    let scene = Scene::new();
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    let first = import(
        &node,
        "confirmed",
        (0..10).map(|n| entry(n, "one")).collect(),
    );
    assert_eq!((first.added, first.unchanged, first.replaced), (10, 0, 0));
    let again = import(
        &node,
        "confirmed",
        (0..10).map(|n| entry(n, "one")).collect(),
    );
    assert_eq!((again.added, again.unchanged, again.replaced), (0, 10, 0));
    assert_eq!(again.head, first.head, "nothing was signed for nothing");
    let changed = import(&node, "confirmed", vec![entry(3, "two"), entry(3, "three")]);
    assert_eq!(
        (changed.added, changed.unchanged, changed.replaced),
        (0, 0, 2)
    );
    let found = &node.lookup(&[sha256_of(3)]).unwrap()[0];
    assert_eq!(found.len(), 1, "only the last version counts");
    assert_eq!(found[0].entry.to_string(), "north/confirmed#4");
    assert_eq!(found[0].index, 12);
    assert_eq!(found[0].classification, "tc:A1");
}

#[test]
fn a_repetition_within_one_import_is_said_once() {
    let scene = Scene::new();
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    let progress = import(
        &node,
        "confirmed",
        vec![entry(1, "a"), entry(1, "a"), entry(2, "a")],
    );
    assert_eq!(
        (progress.received, progress.added, progress.unchanged),
        (3, 2, 1)
    );
}

#[test]
fn a_long_import_is_as_a_short_one() {
    let scene = Scene::new();
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    let mut session = node.import(&slug("confirmed")).unwrap();
    // Appending moves to a thread of its own in between.
    for from in (0..40_000).step_by(4_000) {
        let batch = (from..from + 4_000).map(|n| entry(n % 30_000, "one"));
        session.push(batch.collect()).unwrap();
    }
    session.push(vec![entry(29_999, "two")]).unwrap();
    let progress = session.finish().unwrap();
    assert_eq!(
        (progress.added, progress.unchanged, progress.replaced),
        (30_000, 10_000, 1)
    );
    assert_eq!(progress.head.unwrap().0, 30_002);
    assert_eq!([0, 17_000, 29_999].map(|n| hits(&node, n)), [1, 1, 1]);
    // Without node cards in this scene no head's key is known.
    let mut findings = node.verify(|_, _| ()).unwrap().findings;
    findings.retain(|finding| finding.kind != FindingKind::HeadSignature);
    assert!(findings.is_empty(), "{findings:?}");
    // Given up, it leaves the set as it was, and free for the next.
    let mut given_up = node.import(&slug("confirmed")).unwrap();
    let more = (50_000..70_000).map(|n| entry(n, "one"));
    given_up.push(more.collect()).unwrap();
    drop(given_up);
    assert_eq!(hits(&node, 60_000), 0);
    assert_eq!(
        import(&node, "confirmed", vec![entry(60_000, "one")]).added,
        1
    );
}

#[test]
fn a_retraction_takes_every_version_of_an_entry_out() {
    let scene = Scene::new();
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    import(
        &node,
        "confirmed",
        (0..5).map(|n| entry(n, "one")).collect(),
    );
    import(&node, "confirmed", vec![entry(0, "two")]);
    import(&node, "confirmed", vec![entry(0, "three")]);
    let outcome = retract(
        &node,
        vec![
            Selector::SourceReference("ref-0".to_owned()),
            Selector::Signal(sha256_of(1)),
            Selector::Entry(3),
            Selector::SourceReference("nobody".to_owned()),
        ],
    );
    assert_eq!((outcome.retracted, outcome.already_dead), (3, 0));
    assert_eq!(outcome.not_found.len(), 1);
    assert_eq!(outcome.not_found[0].line, 4);
    assert_eq!([0, 1, 2, 3, 4].map(|n| hits(&node, n)), [0, 0, 0, 1, 1]);
    let again = retract(&node, vec![Selector::SourceReference("ref-0".to_owned())]);
    assert_eq!((again.retracted, again.already_dead), (0, 1));
    let back = import(&node, "confirmed", vec![entry(0, "three")]);
    assert_eq!(
        back.added, 1,
        "published again, a retracted entry is a new one"
    );
    assert_eq!(hits(&node, 0), 1);
}

#[test]
fn one_bad_entry_does_not_spoil_the_others() {
    let scene = Scene::new();
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    let mut bad = entry(1, "x");
    bad.body.labels = vec!["x".repeat(10_000)];
    let mut session = node.import(&slug("confirmed")).unwrap();
    let progress = session
        .push(vec![entry(0, "a"), bad, entry(2, "a")])
        .unwrap();
    assert_eq!(progress.rejected.len(), 1);
    assert_eq!(progress.rejected[0].line, 1);
    assert_eq!(session.finish().unwrap().added, 2);
}

#[test]
fn a_list_without_the_right_to_share_stays_here() {
    let scene = Scene::of(&["north", "harbor"]);
    let node = scene.open();
    let mut new = own_work("bought");
    new.source = SetSource::ThirdParty {
        list_owner: "a hotline".to_owned(),
        may_share: false,
        terms: "for the licensee's own use".to_owned(),
    };
    let all = Grantee {
        who: "all".to_owned(),
        relay: false,
    };
    let mut shared = new.clone();
    shared.grants = vec![all.clone()];
    let quotes_terms = |error: NodeError| {
        assert!(matches!(error, NodeError::Terms { .. }), "{error}");
        assert!(
            error.to_string().contains("for the licensee's own use"),
            "{error}"
        );
    };
    quotes_terms(node.create_set(&shared).unwrap_err());
    let set = node.create_set(&new).unwrap();
    import(&node, "bought", vec![entry(1, "a")]);
    assert_eq!(hits(&node, 1), 1, "it answers locally");
    quotes_terms(
        node.change_grants(&slug("bought"), &[all], &[])
            .unwrap_err(),
    );
    let exported = node.export(Some(&set.name), (false, false), &mut |_| true);
    quotes_terms(exported.unwrap_err());
}

#[test]
fn the_longest_classification_is_answered_as_it_was_said() {
    let scene = Scene::new();
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    let longest = format!("{}:{}", "s".repeat(32), "V".repeat(32));
    let mut said = entry(1, "one");
    said.body.classification = Some(Classification::parse(&longest).unwrap());
    import(&node, "confirmed", vec![said]);
    let found = node.lookup(&[sha256_of(1)]).unwrap().remove(0);
    assert_eq!(found[0].classification, longest);
}

#[test]
fn what_would_be_taken_back_is_counted_and_nothing_is_changed() {
    let scene = Scene::new();
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    let head = import(
        &node,
        "confirmed",
        (0..10).map(|n| entry(n, "one")).collect(),
    );
    let selectors = [
        Selector::Signal(sha256_of(3)),
        Selector::Signal(sha256_of(4)),
        Selector::Signal(sha256_of(400)),
    ];
    let selectors: Vec<(u64, Selector)> = (1..).zip(selectors).collect();
    let retraction = Retraction {
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        selectors: selectors.clone(),
    };
    let would = node.would_retract(&slug("confirmed"), &retraction).unwrap();
    assert_eq!((would.retracted, would.not_found.len()), (2, 1));
    let erasure = Erasure {
        legal_basis: "an order".to_owned(),
        selectors,
    };
    let would = node.would_erase(&slug("confirmed"), &erasure).unwrap();
    assert_eq!((would.erased, would.payloads), (2, 2));
    let signed = head.head.map(|(size, _)| size);
    assert_eq!(Some(would.head.0), signed, "nothing was signed");
    assert_eq!(hits(&node, 3), 1);
    // What the real one refuses, it does.
    assert!(node.would_retract(&slug("another"), &retraction).is_err());
    let too_long = Retraction {
        note: "x".repeat(501),
        ..retraction
    };
    assert!(node.would_retract(&slug("confirmed"), &too_long).is_err());
}
