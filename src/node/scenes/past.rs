//! What would have been answered at a moment of the past.

use hashpact_core::id::{EntryName, SetName, UnixMillis};
use hashpact_core::leaf::{RetractReason, Stance, Subject};
use hashpact_core::standing::Standing;

use super::opinions::{foreign, opinion};
use super::{Scene, entry, import, own_work, sha256_of, slug};
use crate::error::NodeError;
use crate::model::{Erasure, Retraction, Selector};
use crate::node::Node;
use crate::past::{Past, PastOf, PastUnknown};
use crate::proving::{AsOf, ProofOrder};

const MINUTE: u64 = 60_000;

fn at(node: &Node, n: u64, time: UnixMillis) -> Past {
    node.past(&[sha256_of(n)], &PastOf::Time(time)).unwrap()
}

/// The versions that were answered, and what was not known.
fn told(past: &Past) -> (Vec<(u64, Standing)>, Vec<PastUnknown>) {
    let answer = &past.answers[0];
    let found = answer
        .found
        .iter()
        .map(|found| (found.index, found.standing));
    let unknown = answer.unknown.iter().map(|(_, why)| *why);
    (found.collect(), unknown.collect())
}

fn take_back(node: &Node, first: u64) {
    let retraction = Retraction {
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        selectors: vec![(1, Selector::Entry(first))],
    };
    node.retract(&slug("confirmed"), &retraction).unwrap();
}

#[test]
fn the_past_is_answered_as_it_was_then_or_said_to_be_unknown() {
    let scene = Scene::new();
    let node = scene.open();
    let begun = scene.clock.now();
    let later = |minutes: u64| {
        let to = begun.plus(minutes * MINUTE);
        scene.clock.set(to);
        to
    };
    later(1);
    node.create_set(&own_work("confirmed")).unwrap();
    import(&node, "confirmed", vec![entry(0, "a"), entry(1, "a")]);
    later(2);
    import(&node, "confirmed", vec![entry(0, "b")]);
    later(3);
    take_back(&node, 1);
    later(4);

    let active = |index| vec![(index, Standing::Active)];
    // Nothing was here, then one version, then the other, then nothing again.
    let before = at(&node, 0, begun);
    assert_eq!(told(&before), (vec![], vec![]));
    assert_eq!(before.sets[0].head, None);
    let first = at(&node, 0, begun.plus(MINUTE));
    assert_eq!(told(&first), (active(1), vec![]));
    assert_eq!(first.answers[0].found[0].said.labels, ["a"]);
    assert_eq!(first.answers[0].found[0].classification, "tc:A1");
    assert_eq!(first.sets[0].head.unwrap().1, 3);
    let second = at(&node, 0, begun.plus(2 * MINUTE + 1));
    assert_eq!(told(&second), (active(3), vec![]));
    assert_eq!(
        told(&at(&node, 0, begun.plus(3 * MINUTE))),
        (vec![], vec![])
    );
    assert_eq!(node.lookup(&[sha256_of(0)]).unwrap()[0].len(), 0);
    // The same by sizes; no head of four leaves was ever signed.
    let set = SetName::parse("north/confirmed").unwrap();
    for (size, expected) in [(3, active(1)), (4, active(3)), (5, vec![])] {
        let of = PastOf::Sizes(vec![(set.clone(), size)]);
        let past = node.past(&[sha256_of(0)], &of).unwrap();
        assert_eq!(told(&past), (expected, vec![]), "{size}");
    }
    // What is not here yet is not answered as if it were.
    let refused = |of: &PastOf| {
        let error = node.past(&[sha256_of(0)], of).unwrap_err();
        assert!(matches!(error, NodeError::Misuse(_)), "{error}");
        error.to_string()
    };
    let beyond = refused(&PastOf::Sizes(vec![(set.clone(), 6)]));
    let newest = "the newest head of north/confirmed here is 5";
    assert!(beyond.contains(newest), "{beyond}");
    let later = refused(&PastOf::Time(scene.clock.now().plus(1)));
    assert!(later.contains("has not come"), "{later}");
    for as_of in [AsOf::Size(6), AsOf::Time(scene.clock.now().plus(1))] {
        let order = ProofOrder {
            entry: EntryName::parse("north/confirmed#1").unwrap(),
            as_of,
            exact: false,
            record_only: false,
        };
        let error = node.prove(&order).unwrap_err().to_string();
        assert!(error.contains(newest), "{error}");
    }
    // What stands now is what the past says of now.
    assert_eq!(told(&at(&node, 1, scene.clock.now())), (active(2), vec![]));

    // Once content is gone, what was there cannot be said any more; the rest can.
    let erasure = Erasure {
        legal_basis: "order 4711".to_owned(),
        selectors: vec![(1, Selector::Entry(1))],
    };
    node.erase(&slug("confirmed"), &erasure).unwrap();
    let gone = |count| vec![PastUnknown::PayloadsGone(count)];
    let first = at(&node, 0, begun.plus(MINUTE));
    assert_eq!(told(&first), (vec![], gone(1)));
    assert_eq!(first.sets[0].unknown, gone(1));
    assert_eq!(
        told(&at(&node, 1, begun.plus(MINUTE))),
        (active(2), gone(1))
    );
    assert_eq!(
        told(&at(&node, 1, begun.plus(3 * MINUTE))),
        (active(2), vec![])
    );
}

#[test]
fn heads_that_were_pruned_make_what_changed_between_them_unknown() {
    let scene = Scene::new();
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    let begun = scene.clock.now();
    // Ten heads within one minute, then so many that these are old.
    for n in 0..110 {
        let step = if n < 10 { n * 1_000 } else { n * MINUTE };
        scene.clock.set(begun.plus(step));
        import(&node, "confirmed", vec![entry(n, "a")]);
    }
    let set = SetName::parse("north/confirmed").unwrap();
    let no = node.feed_of(&set).unwrap().no;
    assert!(node.store().prune_heads(no, scene.clock.now()).unwrap() > 0);
    let pruned = vec![PastUnknown::HeadsPruned];
    let active = |index| vec![(index, Standing::Active)];
    // Of the ten only the last is kept, with the first of all.
    let asked = begun.plus(4_500);
    assert_eq!(told(&at(&node, 3, asked)), (vec![], pruned));
    assert_eq!(
        told(&at(&node, 50, asked)),
        (vec![], vec![]),
        "by none of the two"
    );
    // After these ten nothing came for minutes: nothing can have been forgotten.
    let asked = begun.plus(30_000);
    assert_eq!(told(&at(&node, 3, asked)), (active(4), vec![]));
    assert_eq!(told(&at(&node, 10, asked)), (vec![], vec![]));
}

#[test]
fn where_more_was_said_of_an_entry_than_is_looked_at_the_past_is_unknown() {
    let scene = Scene::new();
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    import(&node, "confirmed", vec![entry(0, "a")]);
    let set = SetName::parse("north/confirmed").unwrap();
    let subject = Subject::Entry {
        feed: node.feed_of(&set).unwrap().id,
        first: 1,
        kind: None,
    };
    let says = |count| {
        let leaf = opinion(subject.clone(), Stance::Negative, Vec::new());
        foreign(&node, b"harbor's", &vec![leaf; count]);
        told(&at(&node, 0, scene.clock.now()))
    };
    let disputed = vec![(1, Standing::Disputed)];
    assert_eq!(says(256), (disputed.clone(), vec![]));
    assert_eq!(says(1), (disputed, vec![PastUnknown::TooManyOpinions]));
}
