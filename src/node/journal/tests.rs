//! What the journal keeps, for how long, and how it is found again.

use std::sync::Arc;

use hashpact_core::id::{Digest, SetName};
use hashpact_core::leaf::RetractReason;
use hashpact_core::limits::DAY_MS;
use hashpact_core::signal::SignalKind;

use super::*;
use crate::model::{Retraction, Selector};
use crate::scenes::{Scene, entry, import, own_work, sha256_of, slug};

const KEPT: JournalSettings = JournalSettings {
    max_entries: 100,
    keep_ms: 7 * DAY_MS,
};

/// A node with a set of 20 entries.
fn node(scene: &Scene) -> Arc<Node> {
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    let said = (0..20).map(|n| entry(n, "a")).collect();
    import(&node, "confirmed", said);
    node
}

/// That entry `n` answered to its own signal.
fn answered(node: &Node, n: u64) -> Answered {
    let feed = node.publisher().own_set(&slug("confirmed")).unwrap().id;
    Answered {
        key: sha256_of(n).index_key(),
        verdict: Verdict::Enforce,
        reference: format!("upload-{n}"),
        entries: vec![JournalEntry {
            feed,
            index: n + 1,
            first: n + 1,
        }],
    }
}

fn retract(node: &Node, n: u64, recheck: bool) {
    let retraction = Retraction {
        reason: RetractReason::Wrong,
        note: "a stock photo".to_owned(),
        recheck,
        selectors: vec![(1, Selector::Entry(n + 1))],
    };
    let retracted = node.retract(&slug("confirmed"), &retraction).unwrap();
    assert_eq!(retracted.retracted, 1);
}

fn kept(node: &Node) -> u64 {
    let numbers = node.store().journal_numbers().unwrap();
    numbers.end - numbers.start
}

fn all(node: &Node) -> Vec<Rechecked> {
    let page = node.recheck(&RecheckOf::default(), 0).unwrap();
    assert_eq!(page.next, None);
    page.rows
}

/// What waits is written when the node ends.
fn again(scene: &Scene, node: Arc<Node>, settings: JournalSettings) -> Arc<Node> {
    drop(node);
    let node = scene.open();
    node.keep_journal(settings).unwrap();
    node
}

#[test]
fn answers_are_found_again_once_their_entry_is_withdrawn_and_not_before() {
    let scene = Scene::new();
    let opened = node(&scene);
    opened.keep_journal(KEPT).unwrap();
    let notes = [3, 4, 5].map(|n| answered(&opened, n));
    opened.journal().unwrap().note(notes.to_vec());
    let node = again(&scene, opened, KEPT);
    assert_eq!(kept(&node), 3);
    assert_eq!(all(&node), []);
    retract(&node, 4, true);
    let rows = all(&node);
    let [row] = rows.as_slice() else {
        panic!("{rows:?}")
    };
    assert_eq!(row.entry.to_string(), "north/confirmed#5");
    assert_eq!((row.index, row.reference.as_str()), (5, "upload-4"));
    assert_eq!((row.verdict, row.at), (Verdict::Enforce, scene.clock.now()));
    assert_eq!(row.kind, Some(SignalKind::Sha256));
    let expected = Withdrawal {
        leaf: 21,
        reason: "wrong",
        note: "a stock photo".to_owned(),
        asked: true,
    };
    assert_eq!(*row.withdrawal, expected);

    // By the value, by the entry, by the retraction, and by others of each.
    let found = |of: RecheckOf| node.recheck(&of, 0).unwrap().rows.len();
    let of_signal = |n| RecheckOf {
        signals: vec![sha256_of(n)],
        ..RecheckOf::default()
    };
    assert_eq!((found(of_signal(4)), found(of_signal(3))), (1, 0));
    let of_leaf = |leaf| RecheckOf {
        set: Some(SetName::parse("north/confirmed").unwrap()),
        leaf,
        ..RecheckOf::default()
    };
    assert_eq!(found(of_leaf(None)), 1);
    assert_eq!((found(of_leaf(Some(5))), found(of_leaf(Some(4)))), (1, 0));
    assert_eq!(found(of_leaf(Some(21))), 1);
    assert!(node.recheck(&of_leaf(Some(22)), 0).is_err());
}

#[test]
fn a_new_version_withdraws_nothing() {
    let scene = Scene::new();
    let opened = node(&scene);
    opened.keep_journal(KEPT).unwrap();
    opened.journal().unwrap().note(vec![answered(&opened, 3)]);
    import(&opened, "confirmed", vec![entry(3, "b")]);
    let node = again(&scene, opened, KEPT);
    assert_eq!(all(&node), []);
    retract(&node, 3, false);
    assert_eq!(all(&node).len(), 1, "by any of its versions");
}

#[test]
fn the_journal_has_no_more_than_its_bound_and_the_newest_stay() {
    let scene = Scene::new();
    let opened = node(&scene);
    opened.keep_journal(KEPT).unwrap();
    for round in 0..30 {
        let notes: Vec<_> = (0..10)
            .map(|n| Answered {
                reference: format!("{}", round * 10 + n),
                ..answered(&opened, 3)
            })
            .collect();
        opened.journal().unwrap().note(notes);
    }
    let node = again(&scene, opened, KEPT);
    assert!((90..=100).contains(&kept(&node)), "{}", kept(&node));
    retract(&node, 3, false);
    assert_eq!(all(&node).last().unwrap().reference, "299");
    // A lower bound counts from the next start.
    let fewer = JournalSettings {
        max_entries: 10,
        ..KEPT
    };
    let node = again(&scene, node, fewer);
    assert_eq!(kept(&node), 10);
    assert_eq!(all(&node).first().unwrap().reference, "290");
}

#[test]
fn answers_are_let_go_when_they_are_too_old_and_all_when_it_is_turned_off() {
    let scene = Scene::new();
    let opened = node(&scene);
    opened.keep_journal(KEPT).unwrap();
    opened.journal().unwrap().note(vec![answered(&opened, 3)]);
    let node = again(&scene, opened, KEPT);
    let later = scene.clock.now().plus(5 * DAY_MS);
    scene.clock.set(later);
    node.journal().unwrap().note(vec![answered(&node, 4)]);
    scene.clock.set(later.plus(3 * DAY_MS));
    let node = again(&scene, node, KEPT);
    retract(&node, 3, false);
    retract(&node, 4, false);
    let left: Vec<_> = all(&node).into_iter().map(|row| row.reference).collect();
    assert_eq!(left, ["upload-4"]);
    scene.clock.set(later.plus(9 * DAY_MS));
    let node = again(&scene, node, KEPT);
    assert_eq!(kept(&node), 0, "the last one as well");
    node.journal().unwrap().note(vec![answered(&node, 4)]);
    let off = JournalSettings {
        max_entries: 0,
        ..KEPT
    };
    let node = again(&scene, node, off);
    assert!(node.journal().is_none());
    assert_eq!(kept(&node), 0);
}

#[test]
fn digests_are_of_this_node_alone_and_no_value_is_kept() {
    let scenes = [Scene::new(), Scene::new()];
    let digests = scenes.each_ref().map(|scene| {
        let opened = node(scene);
        opened.keep_journal(KEPT).unwrap();
        opened.journal().unwrap().note(vec![answered(&opened, 3)]);
        let node = again(scene, opened, KEPT);
        retract(&node, 3, false);
        let [row] = all(&node).try_into().unwrap();
        row.digest
    });
    assert_ne!(digests[0], digests[1]);
    let value = Digest::of(&3_u64.to_be_bytes());
    for digest in digests {
        assert_eq!(digest.len(), 32);
        for guess in [value, Digest::of(value.as_bytes())] {
            assert!(!guess.to_string().contains(&digest));
        }
    }
}

#[test]
fn what_finds_no_room_is_lost_and_nobody_waits() {
    let scene = Scene::new();
    let opened = node(&scene);
    opened.keep_journal(KEPT).unwrap();
    let one = answered(&opened, 3);
    let journal = opened.journal().unwrap();
    journal.note(vec![one.clone(); WAITING_MAX + 1]);
    journal.note(vec![one; 2]);
    let node = again(&scene, opened, KEPT);
    assert_eq!(kept(&node), 2);
}
