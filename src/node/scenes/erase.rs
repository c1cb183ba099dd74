//! Erasing entries of an own set.

use hashpact_core::leaf::RetractReason;

use super::{Scene, entry, hits, import, own_work, slug};
use crate::error::NodeError;
use crate::model::{Erased, Erasure, Retraction, Selector};
use crate::node::Node;

fn erase(node: &Node, references: impl IntoIterator<Item = u64>) -> Result<Erased, NodeError> {
    let by_reference = |n| (n, Selector::SourceReference(format!("ref-{n}")));
    let erasure = Erasure {
        legal_basis: "order 4711".to_owned(),
        selectors: references.into_iter().map(by_reference).collect(),
    };
    node.erase(&slug("confirmed"), &erasure)
}

fn sound(node: &Node) {
    let report = node.store().verify(|_, _| Ok(()), |_, _| ()).unwrap();
    assert_eq!(report.findings, []);
}

#[test]
fn every_version_of_an_entry_goes_and_a_retracted_one_too() {
    let scene = Scene::new();
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    import(
        &node,
        "confirmed",
        vec![entry(0, "a"), entry(1, "a"), entry(2, "a")],
    );
    import(&node, "confirmed", vec![entry(0, "b")]);
    let retraction = Retraction {
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        selectors: vec![(1, Selector::Entry(2))],
    };
    node.retract(&slug("confirmed"), &retraction).unwrap();
    let erased = erase(&node, [0, 1, 9]).unwrap();
    assert_eq!(
        (erased.erased, erased.payloads, erased.already_erased),
        (2, 3, 0)
    );
    assert_eq!(erased.not_found.len(), 1);
    assert!(erased.identity_signed && !node.store().purge_due());
    assert_eq!((hits(&node, 0), hits(&node, 1), hits(&node, 2)), (0, 0, 1));
    sound(&node);
    let again = import(&node, "confirmed", vec![entry(0, "b")]);
    assert_eq!((again.added, hits(&node, 0)), (1, 1));
    drop(node);
    let node = scene.open();
    sound(&node);
    let by_name = Erasure {
        legal_basis: "order 4711".to_owned(),
        selectors: vec![(1, Selector::Entry(1)), (2, Selector::Entry(77))],
    };
    let erased = node.erase(&slug("confirmed"), &by_name).unwrap();
    assert_eq!((erased.erased, erased.already_erased), (0, 1));
    assert_eq!((erased.not_found.len(), erased.leaf_index), (1, None));
}

#[test]
fn an_erasure_by_signal_finds_what_no_longer_stands() {
    let scene = Scene::new();
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    import(&node, "confirmed", vec![entry(0, "a"), entry(1, "a")]);
    let retraction = Retraction {
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        selectors: vec![(1, Selector::Entry(1))],
    };
    node.retract(&slug("confirmed"), &retraction).unwrap();
    let erasure = Erasure {
        legal_basis: "order 4711".to_owned(),
        selectors: vec![(1, Selector::Signal(super::sha256_of(0)))],
    };
    let erased = node.erase(&slug("confirmed"), &erasure).unwrap();
    assert_eq!((erased.erased, erased.payloads), (1, 1));
    sound(&node);
}

#[test]
fn a_mass_erasure_needs_the_identity_key_and_a_legal_basis_is_never_empty() {
    let scene = Scene::new();
    let node = scene.open_with(None);
    node.create_set(&own_work("confirmed")).unwrap();
    import(
        &node,
        "confirmed",
        (0..200).map(|n| entry(n, "a")).collect(),
    );
    assert!(matches!(erase(&node, 0..101), Err(NodeError::Misuse(_))));
    let erasure = Erasure {
        legal_basis: String::new(),
        selectors: vec![(1, Selector::Entry(1))],
    };
    assert!(node.erase(&slug("confirmed"), &erasure).is_err());
    assert_eq!((hits(&node, 0), hits(&node, 100)), (1, 1));
    assert_eq!(erase(&node, 0..100).unwrap().payloads, 100);
    sound(&node);
}
