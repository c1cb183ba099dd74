//! What would have been answered at a moment of the past.

use hashpact_core::id::{EntryName, SetName, UnixMillis};
use hashpact_core::leaf::{Reason, RetractReason, Stance, Subject};
use hashpact_core::policy::{Action, Needs, Negative, Policy, Rule, Scope, Verdict};
use hashpact_core::standing::Standing;

use super::opinions::{foreign, opinion};
use super::{Scene, entry, import, own_work, sha256_of, slug};
use crate::error::NodeError;
use crate::model::{Erasure, Opine, OpineAbout, Retraction, Saying, Selector};
use crate::node::Node;
use crate::past::{Past, PastOf, PastUnknown};
use crate::policy::{PolicyAt, VerdictUnknown};
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

#[test]
fn a_verdict_of_the_past_is_that_of_the_policy_of_then_or_said_to_be_unknown() {
    let scene = Scene::new();
    let node = scene.open();
    let begun = scene.clock.now();
    let later = |minutes: u64| {
        let to = begun.plus(minutes * MINUTE);
        scene.clock.set(to);
        to
    };
    let policy = |negative, witnesses| {
        let needs = Needs {
            negative,
            witnesses,
            ..Needs::default()
        };
        let rule = Rule {
            name: "all".to_owned(),
            scope: Scope::default(),
            action: Action::AtLeast(Verdict::Enforce, needs),
        };
        Policy::new(Verdict::Observe, vec![rule]).unwrap()
    };
    let strict = policy(Negative::Block, false);
    later(1);
    node.create_set(&own_work("confirmed")).unwrap();
    import(&node, "confirmed", vec![entry(0, "a")]);
    let known = later(2);
    node.set_policy(Some((strict.clone(), b"strict"))).unwrap();
    let disputed = later(3);
    let opine = Opine {
        about: OpineAbout::Entry {
            entry: EntryName::parse("north/confirmed#1").unwrap(),
            kind: None,
        },
        says: Some(Saying {
            stance: Stance::Negative,
            confidence: 80,
            reason: Reason::parse("benign").unwrap(),
        }),
        note: String::new(),
        set: None,
    };
    node.opine(&opine).unwrap();
    later(4);
    node.set_policy(None).unwrap();
    let now = later(5);

    let text = |time| match node.policy_at(time).unwrap() {
        PolicyAt::Known(policy) => policy.text,
        other @ (PolicyAt::Before | PolicyAt::Between) => panic!("{other:?}"),
    };
    assert_eq!(node.policy_at(begun).unwrap(), PolicyAt::Before);
    assert_eq!(text(known), Some(b"strict".to_vec()));
    assert_eq!(text(now), None, "the shipped one");
    let verdict = |policy: &Policy, time| {
        let past = at(&node, 0, time);
        node.past_verdict(policy, &sha256_of(0), &past.answers[0], time)
    };
    assert_eq!(verdict(&strict, begun), Ok(None));
    assert_eq!(verdict(&strict, known), Ok(Some(Verdict::Enforce)));
    assert_eq!(verdict(&strict, disputed), Ok(Some(Verdict::Observe)));
    assert_eq!(verdict(&Policy::default(), now), Ok(Some(Verdict::Review)));
    let witnessed = policy(Negative::Accept, true);
    let unknown = Err(VerdictUnknown::Witnesses);
    assert_eq!(verdict(&witnessed, now), unknown);
    assert_eq!(verdict(&witnessed, begun), Ok(None));
    let mut past = at(&node, 0, now);
    let gone = (
        SetName::parse("north/confirmed").unwrap(),
        PastUnknown::PayloadsGone(1),
    );
    past.answers[0].unknown.push(gone);
    let answer = &past.answers[0];
    let partly = node.past_verdict(&strict, &sha256_of(0), answer, now);
    assert_eq!(partly, Err(VerdictUnknown::Answer));
    // Of a word on the signal itself it is not known whether it counted.
    let on_signal = Opine {
        about: OpineAbout::Signal(sha256_of(0)),
        ..opine
    };
    later(6);
    node.opine(&on_signal).unwrap();
    assert_eq!(verdict(&Policy::default(), now), Ok(Some(Verdict::Review)));
    let unknown = Err(VerdictUnknown::SignalOpinions);
    assert_eq!(verdict(&Policy::default(), later(7)), unknown);
}

#[test]
fn while_no_node_ran_or_one_on_a_store_that_is_gone_no_policy_is_known() {
    let scene = Scene::new();
    let node = scene.open();
    let begun = scene.clock.now();
    let policy = || Policy::new(Verdict::Observe, Vec::new()).unwrap();
    let minute = |n: u64| begun.plus(n * MINUTE);
    let at = |node: &Node, n| match node.policy_at(minute(n)).unwrap() {
        PolicyAt::Known(policy) => policy.text.map_or("shipped".to_owned(), |text| {
            String::from_utf8(text).unwrap()
        }),
        PolicyAt::Before => "before".to_owned(),
        PolicyAt::Between => "between".to_owned(),
    };
    node.set_policy(Some((policy(), b"one"))).unwrap();
    scene.clock.set(minute(10));
    node.stand_by_policy().unwrap();
    drop(node);
    scene.copy_store_to("backup");
    // After the backup another is in force for a while.
    let node = scene.open();
    scene.clock.set(minute(20));
    node.set_policy(Some((policy(), b"two"))).unwrap();
    scene.clock.set(minute(30));
    assert_eq!(at(&node, 25), "two");
    drop(node);
    scene.restore_store_from("backup");
    scene.clock.set(minute(40));
    let node = scene.open();
    node.set_policy(Some((policy(), b"one"))).unwrap();
    scene.clock.set(minute(50));
    let told: Vec<String> = [5, 10, 15, 25, 39, 40, 50].map(|n| at(&node, n)).into();
    let expected = ["one", "one", "between", "between", "between", "one", "one"];
    assert_eq!(told, expected);
    // The same policy again is no other.
    node.set_policy(Some((policy(), b"one"))).unwrap();
    assert_eq!(at(&node, 45), "one");
}
