//! Verdicts by a policy, and the brake, over a real store.

use std::collections::BTreeMap;

use hashpact_core::id::{EntryName, SetName};
use hashpact_core::leaf::RetractReason;
use hashpact_core::policy::{
    Action, Needs, NotFired, Policy, Rule, Scope, SetPattern, Verdict, Word,
};

use super::near::{pdq, wait_until_ready};
use super::videos::{frames, video};
use super::*;
use crate::changes::{Change, ChangeCursor};
use crate::error::NodeError;
use crate::model::{MatchOptions, Retraction, Selector};
use crate::policy::{MuteOf, SHIPPED, Shift};

use Verdict::{Enforce, Observe, Review};

const HOUR: u64 = 3_600_000;

fn enforcing(name: &str, set: &str) -> Rule {
    let mut scope = Scope::default();
    scope.add([SetPattern::parse(set).unwrap()]);
    Rule {
        name: name.to_owned(),
        scope,
        action: Action::AtLeast(Enforce, Needs::default()),
    }
}

fn policy(rules: Vec<Rule>) -> Policy {
    Policy::new(Review, rules).unwrap()
}

/// A node with two sets, of which one is enforced.
fn scene() -> (Scene, Arc<Node>) {
    let scene = Scene::new();
    let node = scene.open_with_near_index();
    for set in ["confirmed", "other"] {
        node.create_set(&own_work(set)).unwrap();
    }
    import(&node, "confirmed", (0..5).map(|n| entry(n, "a")).collect());
    import(&node, "other", (3..8).map(|n| entry(n, "b")).collect());
    take(
        &node,
        policy(vec![enforcing("ours", "north/confirmed")]),
        b"one",
    );
    (scene, node)
}

fn take(node: &Node, policy: Policy, text: &[u8]) {
    node.set_policy(Some((policy, text))).unwrap();
}

fn ask_at(node: &Node, signal: &Signal, options: MatchOptions, surface: &str) -> Option<Verdict> {
    let judge = node.judge(surface, "").unwrap();
    let matched = node.matches(std::slice::from_ref(signal), options).unwrap();
    judge.verdict(signal, &matched[0])
}

fn ask(node: &Node, n: u64) -> Option<Verdict> {
    ask_at(node, &sha256_of(n), MatchOptions::exact(), "")
}

fn mute(node: &Node, of: &MuteOf, hours: u64) {
    let expires = node.clock().now().plus(hours * HOUR);
    node.mute(of, "case 7", "test", expires).unwrap();
}

#[test]
fn a_policy_is_in_force_once_it_is_taken_and_the_shipped_one_before() {
    let (scene, node) = scene();
    assert_eq!(ask(&node, 0), Some(Enforce));
    assert_eq!(ask(&node, 3), Some(Enforce), "in both sets");
    assert_eq!(ask(&node, 7), Some(Review));
    assert_eq!(ask(&node, 99), None);
    assert_ne!(node.policy().name, SHIPPED);
    assert_eq!(node.kept_policy().unwrap().unwrap(), b"one");
    drop(node);
    // Which policy a node starts with is for whoever opens it; its text is kept.
    let node = scene.open();
    assert_eq!(node.policy().name, SHIPPED);
    assert_eq!(node.kept_policy().unwrap().unwrap(), b"one");
    assert_eq!(ask(&node, 0), Some(Review));
}

#[test]
fn a_refused_policy_is_an_alarm_until_the_next_good_one() {
    let (_scene, node) = scene();
    let name = node.policy().name.clone();
    node.refuse_policy("policy.toml: line 3: what");
    assert!(node.policy_is_refused());
    assert!(node.notices()[0].contains("line 3"), "{:?}", node.notices());
    assert_eq!(node.policy().name, name);
    assert_eq!(ask(&node, 0), Some(Enforce));
    take(&node, policy(vec![]), b"two");
    assert!(!node.policy_is_refused() && node.notices().is_empty());
    assert_eq!(ask(&node, 0), Some(Review));
}

#[test]
fn a_rule_of_a_surface_is_for_questions_from_there() {
    let (_scene, node) = scene();
    let mut rule = enforcing("uploads", "north/*");
    rule.scope.surfaces.insert(Word::parse("upload").unwrap());
    take(&node, policy(vec![rule]), b"two");
    let ask = |surface| ask_at(&node, &sha256_of(0), MatchOptions::exact(), surface);
    assert_eq!(ask("Upload"), Some(Enforce));
    assert_eq!(ask("chat"), Some(Review));
    assert_eq!(ask(""), Some(Review));
    assert!(matches!(node.judge("a b", ""), Err(NodeError::Misuse(_))));
}

#[test]
fn what_is_removed_from_the_coalition_is_reviewed_at_most_where_the_setting_says_so() {
    let (scene, node) = scene();
    scene.remove_north(&node);
    node.set_removed_members(crate::removed::RemovedMembers::Review);
    assert_eq!(ask(&node, 0), Some(Review));
}

#[test]
fn a_case_that_may_hold_a_signals_value_is_refused_and_kept_nowhere() {
    let (_scene, node) = scene();
    let of = MuteOf::Member(slug("north"));
    let expires = node.clock().now().plus(HOUR);
    for case in [
        "see 0123456789abcdef0123456789abcdef",
        "see QUJDREVGR0hJSktMTU5PUFFSU1RVVg==",
    ] {
        let refused = node
            .mute(&of, case, "test", expires)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("signal's value"), "{refused}");
        assert!(!refused.contains("0123456789"), "{refused}");
    }
    assert!(node.mutes().unwrap().is_empty());
}

#[test]
fn a_slip_in_a_name_of_the_policy_is_told_and_refuses_nothing() {
    let (_scene, node) = scene();
    let told = |node: &Node| {
        let notices = node.status().unwrap().notices;
        notices
            .into_iter()
            .find(|notice| notice.contains("the policy names"))
    };
    assert_eq!(told(&node), None);
    let slips = vec![
        enforcing("one", "nroth/confirmed"),
        enforcing("two", "north/confirmd"),
    ];
    take(&node, policy(slips.clone()), b"slips");
    let notice = told(&node).unwrap();
    assert!(
        notice.contains("rule one: the roster has no member nroth (1 more)"),
        "{notice}"
    );
    let unknown = node.unknown_policy_names(&policy(slips));
    assert_eq!(
        unknown.last().unwrap(),
        "rule two: no set north/confirmd is held here"
    );
    // It may come later.
    node.create_set(&own_work("confirmd")).unwrap();
    assert_eq!(node.unknown_policy_names(&node.policy().policy).len(), 1);
}

#[test]
fn a_mute_of_a_member_a_set_or_a_signal_is_in_force_at_once_and_after_a_start() {
    let (scene, node) = scene();
    let set = MuteOf::Set(SetName::parse("north/confirmed").unwrap());
    mute(&node, &set, 1);
    assert_eq!(ask(&node, 0), Some(Observe));
    assert_eq!(ask(&node, 3), Some(Review), "the other set says it, too");
    node.unmute(&set).unwrap();
    assert_eq!(ask(&node, 0), Some(Enforce));
    mute(&node, &MuteOf::Signal(sha256_of(0)), 1);
    assert_eq!(
        (ask(&node, 0), ask(&node, 1)),
        (Some(Observe), Some(Enforce))
    );
    mute(&node, &MuteOf::Member(slug("north")), 2);
    assert_eq!(
        (ask(&node, 1), ask(&node, 7)),
        (Some(Observe), Some(Observe))
    );
    drop(node);
    let node = scene.open();
    take(
        &node,
        policy(vec![enforcing("ours", "north/confirmed")]),
        b"one",
    );
    assert_eq!(ask(&node, 7), Some(Observe));
    assert_eq!(node.mutes().unwrap().len(), 2);
    // They end by the clock, whether anybody clears them away or not.
    scene.clock.set(UnixMillis(NOW.0 + HOUR));
    assert_eq!(node.mutes().unwrap().len(), 1);
    scene.clock.set(UnixMillis(NOW.0 + 2 * HOUR));
    assert_eq!(
        (ask(&node, 0), ask(&node, 1)),
        (Some(Enforce), Some(Enforce))
    );
    assert_eq!(node.follow_mutes().unwrap().len(), 2);
    assert!(node.store().mutes().unwrap().is_empty());
    assert!(node.follow_mutes().unwrap().is_empty());
}

#[test]
fn the_shipped_policy_is_braked_as_any_other() {
    let scene = Scene::new();
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    import(&node, "confirmed", vec![entry(1, "a")]);
    assert_eq!(ask(&node, 1), Some(Review));
    mute(&node, &MuteOf::Signal(sha256_of(1)), 1);
    assert_eq!(ask(&node, 1), Some(Observe));
}

#[test]
fn a_muted_picture_is_braked_as_what_is_asked_and_as_what_is_found_near() {
    let (_scene, node) = scene();
    let mut picture = entry(50, "a");
    picture.body.signals.push(pdq(50, 0));
    import(&node, "confirmed", vec![picture]);
    wait_until_ready(&node);
    let (said, seen) = (pdq(50, 0), pdq(50, 8));
    let ask = |signal: &Signal| ask_at(&node, signal, MatchOptions::default(), "");
    assert_eq!((ask(&said), ask(&seen)), (Some(Enforce), Some(Enforce)));
    mute(&node, &MuteOf::Signal(seen.clone()), 1);
    assert_eq!((ask(&said), ask(&seen)), (Some(Enforce), Some(Observe)));
    mute(&node, &MuteOf::Signal(said.clone()), 1);
    assert_eq!((ask(&said), ask(&seen)), (Some(Observe), Some(Observe)));
    node.unmute(&MuteOf::Signal(seen.clone())).unwrap();
    assert_eq!(ask(&seen), Some(Observe), "what it is near to is muted");
}

#[test]
fn a_muted_video_is_braked_where_its_frames_are_found() {
    let (_scene, node) = scene();
    let mut said = entry(60, "a");
    said.body.media_kind = MediaKind::Video;
    said.body.signals.push(video(&frames(0..20)));
    import(&node, "confirmed", vec![said]);
    wait_until_ready(&node);
    let asked = video(&frames(0..18));
    let ask = || ask_at(&node, &asked, MatchOptions::default(), "");
    assert_eq!(ask(), Some(Enforce));
    mute(&node, &MuteOf::Signal(video(&frames(0..20))), 1);
    assert_eq!(ask(), Some(Observe));
}

#[test]
fn a_mute_names_a_case_an_end_and_something_that_is_there_and_no_value() {
    let (_scene, node) = scene();
    let signal = MuteOf::Signal(sha256_of(0));
    let at = |hours: u64| UnixMillis(NOW.0 + hours * HOUR);
    let refused =
        |of: &MuteOf, case: &str, expires| node.mute(of, case, "test", expires).unwrap_err().code();
    assert_eq!(refused(&signal, " ", at(1)), "misuse");
    assert_eq!(refused(&signal, "case", at(0)), "misuse");
    assert_eq!(refused(&signal, "case", at(24 * 400)), "misuse");
    let nowhere = MuteOf::Set(SetName::parse("north/nowhere").unwrap());
    assert_eq!(refused(&nowhere, "case", at(1)), "not_found");
    assert_eq!(
        refused(&MuteOf::Member(slug("nobody")), "case", at(1)),
        "not_found"
    );
    let muted = node.mute(&signal, "case", "test", at(1)).unwrap();
    let value = data_encoding::HEXLOWER.encode(sha256_of(0).value());
    assert!(muted.name.starts_with("signal:") && !format!("{muted:?}").contains(&value));
    // It is named by its digest afterwards.
    let named = MuteOf::Named(muted.name);
    assert_eq!(node.unmute(&named).unwrap().case, "case");
    assert_eq!(node.unmute(&named).unwrap_err().code(), "not_found");
    assert_eq!(ask(&node, 0), Some(Enforce));
}

type Verdicts = BTreeMap<String, Option<Verdict>>;

/// What a consumer is told from `at` on: the last verdict of each entry.
fn told(node: &Node, at: &mut ChangeCursor) -> Verdicts {
    node.note_changes().unwrap();
    let mut told = Verdicts::new();
    loop {
        let changed = node.changes(at, 100).unwrap();
        for change in changed.changes {
            if let Change::Entry(present) = change {
                told.insert(present.entry.entry.to_string(), present.entry.verdict);
            }
        }
        *at = changed.next;
        if changed.caught_up {
            return told;
        }
    }
}

#[test]
fn consumers_are_told_again_when_policy_or_mutes_change_what_is_made_of_entries() {
    let (scene, node) = scene();
    let mut at = node.begin_snapshot(&slug("matcher"), "test").unwrap();
    let count = |told: &Verdicts, verdict| {
        let verdicts = told.values();
        verdicts.filter(|told| **told == Some(verdict)).count()
    };
    let all = told(&node, &mut at);
    // Of an entry that stands in both sets, what becomes of one is not that of the other.
    assert_eq!((count(&all, Enforce), count(&all, Review)), (5, 5));
    assert!(told(&node, &mut at).is_empty());
    // The same policy again is no change.
    take(
        &node,
        policy(vec![enforcing("ours", "north/confirmed")]),
        b"one",
    );
    assert!(told(&node, &mut at).is_empty());
    take(&node, policy(vec![enforcing("all", "north/*")]), b"two");
    assert_eq!(count(&told(&node, &mut at), Enforce), 10);
    // Of a set all of it, and what stands beside it elsewhere.
    mute(
        &node,
        &MuteOf::Set(SetName::parse("north/other").unwrap()),
        1,
    );
    let again = told(&node, &mut at);
    assert_eq!((count(&again, Observe), count(&again, Enforce)), (5, 2));
    // Of a signal those that carry it, and no others.
    mute(&node, &MuteOf::Signal(sha256_of(1)), 2);
    let only = |verdict| Verdicts::from([("north/confirmed#2".to_owned(), Some(verdict))]);
    assert_eq!(told(&node, &mut at), only(Observe));
    scene.clock.set(UnixMillis(NOW.0 + HOUR));
    node.follow_mutes().unwrap();
    let again = told(&node, &mut at);
    assert_eq!((again.len(), count(&again, Enforce)), (7, 7));
    scene.clock.set(UnixMillis(NOW.0 + 2 * HOUR));
    node.follow_mutes().unwrap();
    assert_eq!(told(&node, &mut at), only(Enforce));
}

#[test]
fn what_stands_beside_an_entry_that_comes_or_goes_is_told_again() {
    let (_scene, node) = scene();
    let mut at = node.begin_snapshot(&slug("matcher"), "test").unwrap();
    told(&node, &mut at);
    import(&node, "confirmed", vec![entry(7, "a")]);
    let again = told(&node, &mut at);
    let names: Vec<&str> = again.keys().map(String::as_str).collect();
    assert_eq!(names, ["north/confirmed#6", "north/other#5"]);
    assert_eq!(again["north/other#5"], Some(Review));
    let retraction = Retraction {
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        selectors: vec![(1, Selector::Entry(6))],
    };
    node.retract(&slug("confirmed"), &retraction).unwrap();
    let again = told(&node, &mut at);
    assert!(again.contains_key("north/other#5"), "{again:?}");
}

#[test]
fn an_explanation_names_the_leaves_behind_every_rule() {
    let (_scene, node) = scene();
    let judge = node.judge("", "").unwrap();
    let explained = node
        .explain(&judge, &sha256_of(3), MatchOptions::exact())
        .unwrap();
    assert_eq!(explained.verdict, Some(Enforce));
    let names: Vec<String> = explained
        .leaves
        .iter()
        .map(|leaf| leaf.found.entry.entry.to_string())
        .collect();
    assert_eq!(names, ["north/confirmed#4", "north/other#1"]);
    assert_eq!(explained.evaluation.rules[0].voices, [0]);
    let leaf = &explained.leaves[0];
    let no = node.store().feed_no(&leaf.found.entry.feed).unwrap();
    let raw = node.store().read_leaf(no, 4).unwrap();
    assert_eq!(leaf.leaf_hash, Some(raw.hash()));
    let none = node
        .explain(&judge, &sha256_of(99), MatchOptions::exact())
        .unwrap();
    assert_eq!(none.verdict, None);
    assert_eq!(none.evaluation.rules[0].not_fired, Some(NotFired::NoEntry));
    let entry = explained.leaves[0].found.entry.entry.clone();
    let signals = node.signals_of(&entry).unwrap();
    assert_eq!(signals[0].kind(), SignalKind::Sha256);
    let beyond = EntryName {
        first: 999,
        ..entry
    };
    assert!(matches!(
        node.signals_of(&beyond),
        Err(NodeError::NotFound { .. })
    ));
}

#[test]
fn a_comparison_counts_what_would_change_by_set_and_verdict() {
    let (_scene, node) = scene();
    let old = node.policy().policy.clone();
    let mut cap = enforcing("away", "north/confirmed");
    cap.action = Action::AtMost {
        verdict: Observe,
        negative_members: 0,
    };
    let new = policy(vec![cap, enforcing("other", "north/other")]);
    let judge = node.judge("", "").unwrap();
    let mut last = (0, 0);
    let progress = |done, total| {
        last = (done, total);
        true
    };
    let compared = node.compare_policies(&judge, &old, &new, progress).unwrap();
    assert_eq!(last.0, last.1);
    assert_eq!(compared.entries, 10);
    let shifts: Vec<(String, Verdict, Verdict, u64, usize)> = compared
        .shifts
        .iter()
        .map(|(Shift { set, from, to }, (count, examples))| {
            (set.to_string(), *from, *to, *count, examples.len())
        })
        .collect();
    assert_eq!(
        shifts,
        [
            ("north/confirmed".to_owned(), Enforce, Observe, 5, 5),
            ("north/other".to_owned(), Review, Enforce, 5, 5),
        ]
    );
    let same = node
        .compare_policies(&judge, &old, &old, |_, _| true)
        .unwrap();
    assert!(same.shifts.is_empty());
    assert_eq!(same.same.values().sum::<u64>(), 10);
}

#[test]
fn an_export_has_the_verdict_of_each_entry_where_it_is_asked_for() {
    let (_scene, node) = scene();
    let mut verdicts = BTreeMap::new();
    let mut sink = |page: Vec<crate::model::ExportedEntry>| {
        for entry in page {
            verdicts.insert(entry.entry.to_string(), entry.verdict);
        }
        true
    };
    node.export(None, (false, true), &mut sink).unwrap();
    assert_eq!(verdicts["north/confirmed#1"], Some(Enforce));
    assert_eq!(verdicts["north/other#5"], Some(Review));
    let mut none = |page: Vec<crate::model::ExportedEntry>| {
        assert!(page.iter().all(|entry| entry.verdict.is_none()));
        true
    };
    node.export(None, (false, false), &mut none).unwrap();
}
