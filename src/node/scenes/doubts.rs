//! Doubts that a node has by itself: classifications that exclude each other, floods.

use hashpact_core::id::SetName;
use hashpact_core::leaf::{FeedKind as DescribedKind, PUBLISH, RawLeaf};
use hashpact_core::policy::{Action, Needs, Negative, Policy, Rule, Scope, Verdict};
use hashpact_store::FeedKind;
use hashpact_store::quarantine::{Decision, Reason};

use super::near::{pdq, wait_until_ready};
use super::opinions::{described, others};
use super::*;
use crate::error::NodeError;
use crate::model::{MatchOptions, Matched};
use crate::policy::MuteOf;

const MINUTE: u64 = 60_000;

fn enforce_all(node: &Node) {
    let rule = Rule {
        name: "all".to_owned(),
        scope: Scope::default(),
        action: Action::AtLeast(Verdict::Enforce, Needs::default()),
    };
    let policy = Policy::new(Verdict::Review, vec![rule]).unwrap();
    node.set_policy(Some((policy, b"all"))).unwrap();
}

fn asked(node: &Node, signal: &Signal) -> Matched {
    let options = MatchOptions::default();
    let matched = node.matches(std::slice::from_ref(signal), options);
    matched.unwrap().remove(0)
}

fn judged(node: &Node, signal: &Signal) -> (Option<Verdict>, Vec<Vec<&'static str>>) {
    let judge = node.judge("", "").unwrap();
    let matched = asked(node, signal);
    let doubts = judge.doubts(&matched).into_iter();
    let codes = doubts.map(|doubts| doubts.codes().collect()).collect();
    (judge.verdict(signal, &matched), codes)
}

fn classed(n: u64, class: &str) -> NewEntry {
    let mut new = entry(n, "one");
    new.body.classification = Some(Classification::parse(class).unwrap());
    new
}

#[test]
fn one_signal_under_classifications_that_exclude_each_other_is_reviewed_and_says_so() {
    let scene = Scene::new();
    let node = scene.open();
    for set in ["confirmed", "other"] {
        node.create_set(&own_work(set)).unwrap();
    }
    enforce_all(&node);
    import(
        &node,
        "confirmed",
        vec![classed(1, "tc:A1"), classed(2, "tc:A1")],
    );
    import(
        &node,
        "other",
        vec![classed(1, "tc:B2"), classed(2, "tc:A2")],
    );
    let conflict = vec!["class_conflict"];
    let both = vec![conflict.clone(), conflict];
    assert_eq!(judged(&node, &sha256_of(1)), (Some(Verdict::Review), both));
    let (verdict, codes) = judged(&node, &sha256_of(2));
    assert_eq!(verdict, Some(Verdict::Enforce), "one step is no conflict");
    assert!(codes.iter().all(Vec::is_empty));
    let judge = node.judge("", "").unwrap();
    let explained = node.explain(&judge, &sha256_of(1), MatchOptions::exact());
    let explained = explained.unwrap();
    assert!(
        explained
            .leaves
            .iter()
            .all(|leaf| leaf.doubts.class_conflict)
    );
    assert_eq!(explained.evaluation.ceilings, [Verdict::Review; 2]);
}

/// What another member says of the entry `n`, in a set of its own.
fn harbor_classes(node: &Node, n: u64, class: &str) {
    let body = classed(n, class).body;
    let leaf = RawLeaf::new(PUBLISH, body.encode([6; 16]).unwrap());
    let describe = described("harbor/list", DescribedKind::HashSet);
    others(node, (b"harbor/list", FeedKind::HashSet), describe, &[leaf]);
}

#[test]
fn who_classifies_the_other_way_disputes_and_no_more_and_nothing_once_it_is_muted() {
    let scene = Scene::new();
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    import(&node, "confirmed", vec![classed(1, "tc:A1")]);
    harbor_classes(&node, 1, "tc:B2");
    let by = |negative| {
        let needs = Needs {
            alone: [slug("north")].into(),
            negative,
            ..Needs::default()
        };
        let rule = Rule {
            name: "north".to_owned(),
            scope: Scope::default(),
            action: Action::AtLeast(Verdict::Enforce, needs),
        };
        let policy = Policy::new(Verdict::Review, vec![rule]).unwrap();
        let text = format!("{negative:?}");
        node.set_policy(Some((policy, text.as_bytes()))).unwrap();
        judged(&node, &sha256_of(1))
    };
    let conflict = vec!["class_conflict"];
    let both = vec![conflict.clone(), conflict];
    let (verdict, codes) = by(Negative::Block);
    assert_eq!((verdict, codes), (Some(Verdict::Review), both));
    let (verdict, _) = by(Negative::Accept);
    assert_eq!(verdict, Some(Verdict::Enforce), "the policy says so");
    by(Negative::Block);
    let expires = node.clock().now().plus(60 * MINUTE);
    let list = MuteOf::Set(SetName::parse("harbor/list").unwrap());
    node.mute(&list, "case 7", "test", expires).unwrap();
    let (verdict, codes) = judged(&node, &sha256_of(1));
    assert_eq!(
        verdict,
        Some(Verdict::Enforce),
        "what is muted disputes nothing"
    );
    assert!(codes.iter().all(Vec::is_empty));
}

#[test]
fn a_conflict_that_is_only_shown_changes_no_verdict() {
    let mut scene = Scene::new();
    scene.hygiene.class_conflicts_review = false;
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    enforce_all(&node);
    import(&node, "confirmed", vec![classed(1, "tc:A1")]);
    let mut other = classed(1, "tc:B2");
    other.body.source_reference = "another".to_owned();
    import(&node, "confirmed", vec![other]);
    let (verdict, codes) = judged(&node, &sha256_of(1));
    assert_eq!(verdict, Some(Verdict::Enforce));
    assert_eq!(codes, [["class_conflict"], ["class_conflict"]]);
}

/// A value near the picture `n`, another for each `variant`.
fn near(n: u64, variant: u32) -> Signal {
    let mut value = pdq(n, 0).value().to_vec();
    for (bit, byte) in value.iter_mut().enumerate().take(20) {
        *byte ^= u8::from(variant >> bit & 1 == 1);
    }
    Signal::new(SignalKind::Pdq, value.into(), Some(90)).unwrap()
}

fn flooding() -> (Scene, Arc<Node>) {
    let mut scene = Scene::new();
    scene.hygiene.flood_min_values = 20;
    let node = scene.open_with_near_index();
    node.create_set(&own_work("confirmed")).unwrap();
    enforce_all(&node);
    let pictures = [1, 2].map(|n| {
        let mut picture = entry(n, "one");
        picture.body.signals.push(pdq(n, 0));
        picture
    });
    import(&node, "confirmed", pictures.to_vec());
    wait_until_ready(&node);
    (scene, node)
}

/// Asks as a caller does, in one call.
fn ask_all(node: &Node, signals: &[Signal]) {
    let matched = node.matches(signals, MatchOptions::default()).unwrap();
    node.note_asked(signals, &matched);
}

fn later(scene: &Scene, millis: u64) {
    scene.clock.set(scene.clock.now().plus(millis));
}

fn unknown(from: u64, count: u64) -> Vec<Signal> {
    (from..from + count).map(|n| pdq(1_000 + n, 0)).collect()
}

#[test]
fn a_signal_that_matches_much_of_what_is_asked_is_reviewed_listed_and_released() {
    let (scene, node) = flooding();
    let many: Vec<Signal> = (0..40).map(|variant| near(1, variant)).collect();
    ask_all(&node, &many);
    ask_all(&node, &unknown(0, 300));
    assert_eq!(
        judged(&node, &many[0]).0,
        Some(Verdict::Enforce),
        "the minute lasts"
    );
    later(&scene, MINUTE);
    node.follow_roster().unwrap();
    let (verdict, codes) = judged(&node, &many[0]);
    assert_eq!(verdict, Some(Verdict::Review), "held, and never ignored");
    assert_eq!(codes, [["flood"]]);
    assert_eq!(
        judged(&node, &pdq(2, 0)).0,
        Some(Verdict::Enforce),
        "no other is"
    );
    assert!(
        node.notices()
            .iter()
            .any(|notice| notice.starts_with("1 signal matches"))
    );
    let lots = node.quarantine(None, Some(Reason::Flood)).unwrap();
    assert_eq!(
        (lots.len(), lots[0].held, lots[0].kind),
        (1, 1, Some(SignalKind::Pdq))
    );
    let listed = node
        .quarantined(None, Some(Reason::Flood), false, 10)
        .unwrap();
    let entry = listed[0].entry.clone().unwrap();
    let named = [entry.first];
    let decide =
        |decision| node.decide_quarantine(&entry.set, Some(Reason::Flood), Some(&named), decision);
    assert!(matches!(decide(Decision::Drop), Err(NodeError::Misuse(_))));
    assert_eq!(decide(Decision::Release).unwrap(), (1, vec![]));
    assert_eq!(judged(&node, &many[0]).0, Some(Verdict::Enforce));
    assert_eq!(node.quarantine(None, Some(Reason::Flood)).unwrap().len(), 0);
    assert!(node.notices().is_empty());
    // What was released is let alone for a while.
    ask_all(&node, &many);
    later(&scene, MINUTE);
    node.follow_roster().unwrap();
    assert_eq!(judged(&node, &many[0]).0, Some(Verdict::Enforce));
}

#[test]
fn one_value_however_often_it_is_asked_is_no_flood_and_few_of_many_are_none() {
    let (scene, node) = flooding();
    let same = vec![near(1, 7)];
    for _ in 0..500 {
        ask_all(&node, &same);
    }
    later(&scene, MINUTE);
    node.follow_roster().unwrap();
    assert_eq!(judged(&node, &same[0]).0, Some(Verdict::Enforce));
    // 40 of 440, which is below 10 of 100.
    let many: Vec<Signal> = (0..40).map(|variant| near(1, variant)).collect();
    ask_all(&node, &many);
    ask_all(&node, &unknown(0, 400));
    later(&scene, MINUTE);
    node.follow_roster().unwrap();
    assert_eq!(judged(&node, &many[0]).0, Some(Verdict::Enforce));
    // Fewer than the least number, though all that was asked.
    ask_all(&node, &many[..19]);
    later(&scene, MINUTE);
    node.follow_roster().unwrap();
    assert_eq!(judged(&node, &many[0]).0, Some(Verdict::Enforce));
}

#[test]
fn a_flood_ends_by_itself_unless_it_goes_on() {
    let (scene, node) = flooding();
    let many: Vec<Signal> = (0..40).map(|variant| near(1, variant)).collect();
    ask_all(&node, &many);
    later(&scene, MINUTE);
    node.follow_roster().unwrap();
    later(&scene, 23 * 60 * MINUTE);
    ask_all(&node, &many);
    later(&scene, MINUTE);
    node.follow_roster().unwrap();
    later(&scene, 23 * 60 * MINUTE);
    assert_eq!(
        judged(&node, &many[0]).0,
        Some(Verdict::Review),
        "it went on"
    );
    later(&scene, 2 * 60 * MINUTE);
    assert_eq!(judged(&node, &many[0]).0, Some(Verdict::Enforce));
    node.follow_roster().unwrap();
    assert!(node.notices().is_empty() && node.floods().is_empty());
}
