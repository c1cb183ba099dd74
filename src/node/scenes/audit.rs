//! The audit feed over a real store: nothing is lost silently, nothing is changed
//! unseen, and it stays bounded.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashpact_core::leaf::RawLeaf;
use hashpact_core::leaf::audit::{Act, Actor, INTERRUPTED, OK};
use hashpact_core::limits::DAY_MS;
use hashpact_store::{AuditBatch, Store};
use proptest::prelude::*;

use super::{NOW, Scene, import, own_work, slug};
use crate::audit::{At, Audit, AuditFilter, AuditParts, AuditSettings, Fault, Said, Step};
use crate::caller::Caller;
use crate::error::NodeError;
use crate::node::Node;

fn act(code: &str) -> Act {
    Act::new(code, Caller::socket(Some(7)).actor("test"))
}

/// Records an act that was done.
fn done(node: &Node, code: &str) {
    node.audit().begin(act(code)).unwrap().finish(OK);
}

fn acts(audit: &Audit, filter: &AuditFilter) -> Vec<Act> {
    let mut acts = Vec::new();
    audit
        .read(At::default(), filter, &mut |leaf| {
            if let Said::Act(act) = leaf.said {
                acts.push(*act);
            }
            true
        })
        .unwrap();
    acts
}

/// Codes and outcomes, in order.
fn said(audit: &Audit) -> Vec<(String, String)> {
    let acts = acts(audit, &AuditFilter::default());
    acts.into_iter().map(|act| (act.act, act.outcome)).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
    of.iter().map(owned).collect()
}

fn assert_sound(audit: &Audit) {
    let report = audit.verify().unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!(report.unsigned, 0, "{:?}", report.notices);
}

/// The audit feed of a closed node, whose every step may fail.
fn open_audit(node: &Arc<Node>, scene: &Scene, name: &str, fault: Fault) -> Arc<Audit> {
    Audit::open(AuditParts {
        store: Arc::clone(node.store()),
        membership: Arc::clone(node.membership()),
        publisher: Arc::clone(node.publisher()),
        clock: scene.clock.clone(),
        node: slug("n1"),
        settings: scene.audit,
        sign_state_dir: &scene.sign_state_dir().join(name),
        fault,
    })
    .unwrap()
}

#[test]
fn an_act_is_one_leaf_signed_by_the_feed_key() {
    let scene = Scene::new();
    let node = scene.open();
    let mut ticket = node.audit().begin(act("set.create")).unwrap();
    ticket.act().count("grants", 2);
    scene.clock.set(NOW.plus(5));
    ticket.finish(OK);
    let held = acts(node.audit(), &AuditFilter::default());
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].began, held[0].ended), (NOW, NOW.plus(5)));
    assert_eq!(held[0].actor.uid, Some(7));
    let report = node.audit().verify().unwrap();
    assert_eq!((report.segments, report.leaves, report.heads), (1, 2, 1));
    assert_sound(node.audit());
    drop(node);
    let node = scene.open();
    assert_eq!(said(node.audit()), pairs(&[("set.create", OK)]));
    assert_sound(node.audit());
}

#[test]
fn what_was_done_before_the_first_roster_is_signed_once_it_is_there() {
    let mut scene = Scene::new();
    let rosters = std::mem::take(&mut scene.rosters);
    let node = scene.open();
    done(&node, "node.start");
    let report = node.audit().verify().unwrap();
    assert_eq!((report.problems.len(), report.unsigned), (0, 2));
    for roster in rosters {
        node.membership().accept_roster(roster).unwrap();
    }
    done(&node, "roster.import");
    assert_sound(node.audit());
    assert_eq!(said(node.audit()).len(), 2);
}

#[test]
fn an_act_that_a_crash_cut_off_is_recorded_as_interrupted_at_the_next_start() {
    let scene = Scene::new();
    let node = scene.open();
    done(&node, "first");
    // The process ends in the middle: nobody hears of the ticket again.
    std::mem::forget(node.audit().begin(act("erase")).unwrap());
    assert_eq!(said(node.audit()), pairs(&[("first", OK)]));
    assert_eq!(node.audit().verify().unwrap().under_way, 1);
    let copy = scene.store_dir().with_extension("copy");
    // The ticket that was forgotten keeps the store open: a crash does not.
    super::copy_dir(&scene.store_dir(), &copy);
    let mut after = Scene::new();
    std::fs::remove_dir_all(after.store_dir()).unwrap_or_default();
    super::copy_dir(&copy, &after.store_dir());
    super::copy_dir(&scene.sign_state_dir(), &after.sign_state_dir());
    after.genesis = scene.genesis;
    let node = after.open();
    let expected = pairs(&[("first", OK), ("erase", INTERRUPTED)]);
    assert_eq!(said(node.audit()), expected);
    assert_sound(node.audit());
    assert_eq!(node.audit().verify().unwrap().under_way, 0);
}

#[test]
fn an_act_that_is_given_up_is_interrupted_with_what_was_counted() {
    let scene = Scene::new();
    let node = scene.open();
    let mut ticket = node.audit().begin(act("export")).unwrap();
    ticket.act().count("exported", 12);
    drop(ticket);
    let held = acts(node.audit(), &AuditFilter::default());
    assert_eq!(held[0].outcome, INTERRUPTED);
    assert_eq!(held[0].counts, [("exported".to_owned(), 12)]);
}

fn fail_at(step: Step) -> Fault {
    fn fail<const N: u8>(step: Step) -> Result<(), NodeError> {
        if step as u8 == N {
            Err(NodeError::Internal("a fault".to_owned()))
        } else {
            Ok(())
        }
    }
    match step {
        Step::Begin => fail::<{ Step::Begin as u8 }>,
        Step::Append => fail::<{ Step::Append as u8 }>,
        Step::Record => fail::<{ Step::Record as u8 }>,
        Step::Sign => fail::<{ Step::Sign as u8 }>,
    }
}

#[test]
fn whatever_step_fails_the_act_is_recorded_or_did_not_begin() {
    for step in [Step::Begin, Step::Append, Step::Record, Step::Sign] {
        let scene = Scene::new();
        let node = scene.open();
        let audit = open_audit(&node, &scene, "a", |_| Ok(()));
        audit.begin(act("before")).unwrap().finish(OK);
        drop(audit);
        let audit = open_audit(&node, &scene, "a", fail_at(step));
        let begun = audit.begin(act("cut")).map(|ticket| ticket.finish(OK));
        assert_eq!(begun.is_err(), step == Step::Begin, "{step:?}");
        drop(audit);
        let audit = open_audit(&node, &scene, "a", |_| Ok(()));
        let expected = match step {
            Step::Begin => pairs(&[("before", OK)]),
            // The leaf was not written: that it began was.
            Step::Append => pairs(&[("before", OK), ("cut", INTERRUPTED)]),
            Step::Record | Step::Sign => pairs(&[("before", OK), ("cut", OK)]),
        };
        assert_eq!(said(&audit), expected, "{step:?}");
        assert_sound(&audit);
        audit.begin(act("after")).unwrap().finish(OK);
        assert_sound(&audit);
        assert_eq!(audit.verify().unwrap().segments, 1, "{step:?}");
    }
}

#[test]
fn a_full_segment_is_sealed_and_the_next_names_its_head() {
    let mut scene = Scene::new();
    scene.audit.segment_leaves = 4;
    let node = scene.open();
    for n in 0..10 {
        done(&node, &format!("act-{n}"));
    }
    assert_eq!(said(node.audit()).len(), 10);
    // Three acts a segment beside its first leaf.
    let report = node.audit().verify().unwrap();
    assert_eq!((report.segments, report.heads), (4, 4));
    assert_sound(node.audit());
    drop(node);
    let node = scene.open();
    assert_eq!(said(node.audit()).len(), 10);
    assert_sound(node.audit());
}

#[test]
fn an_old_segment_is_sealed_though_it_is_not_full() {
    let scene = Scene::new();
    let node = scene.open();
    done(&node, "early");
    scene.clock.set(NOW.plus(31 * DAY_MS));
    done(&node, "late");
    assert_eq!(node.audit().verify().unwrap().segments, 2);
    assert_sound(node.audit());
}

#[test]
fn segments_go_after_their_time_and_what_is_left_verifies() {
    let mut scene = Scene::new();
    scene.audit = AuditSettings {
        segment_leaves: 4,
        segment_ms: 365 * DAY_MS,
        retain_ms: Some(10 * DAY_MS),
        ..AuditSettings::default()
    };
    let node = scene.open();
    for n in 0..9 {
        scene.clock.set(NOW.plus(n * 3 * DAY_MS));
        done(&node, &format!("act-{n}"));
    }
    node.audit().upkeep();
    let left = said(node.audit());
    assert!(left.iter().all(|(act, _)| act != "act-0"), "{left:?}");
    assert!(
        left.iter().any(|(act, _)| act == "audit.remove"),
        "{left:?}"
    );
    assert_sound(node.audit());
    let report = node.audit().verify().unwrap();
    assert!(
        report
            .notices
            .iter()
            .any(|notice| notice.contains("were removed"))
    );
    drop(node);
    assert_sound(scene.open().audit());
    // For ever.
    scene.audit.retain_ms = None;
    scene.clock.set(NOW.plus(10_000 * DAY_MS));
    let node = scene.open();
    node.audit().upkeep();
    assert_eq!(said(node.audit()), left);
    drop(node);
    // Too many go, however young they are.
    scene.audit.segments_max = 2;
    let node = scene.open();
    for n in 0..40 {
        done(&node, &format!("many-{n}"));
    }
    node.audit().upkeep();
    let report = node.audit().verify().unwrap();
    assert!(report.segments <= 3, "{}", report.segments);
    assert_sound(node.audit());
}

#[test]
fn a_segment_that_went_without_a_word_is_found_out() {
    let mut scene = Scene::new();
    scene.audit.segment_leaves = 4;
    let node = scene.open();
    for n in 0..10 {
        done(&node, &format!("act-{n}"));
    }
    for (gone, says) in [
        (0, "nothing says that it was removed"),
        (2, "does not name"),
    ] {
        let change = AuditBatch {
            remove: Some(gone),
            ..AuditBatch::default()
        };
        node.store().write_audit(&change).unwrap();
        let problems = node.audit().verify().unwrap().problems;
        assert!(
            problems.iter().any(|problem| problem.contains(says)),
            "{problems:?}"
        );
    }
}

#[test]
fn a_restored_store_goes_on_in_a_new_segment_and_says_so() {
    let scene = Scene::new();
    let node = scene.open();
    done(&node, "early");
    drop(node);
    scene.copy_store_to("backup");
    let node = scene.open();
    done(&node, "lost");
    drop(node);
    scene.restore_store_from("backup");
    let node = scene.open();
    done(&node, "late");
    assert_eq!(said(node.audit()), pairs(&[("early", OK), ("late", OK)]));
    let report = node.audit().verify().unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!(report.segments, 2);
    assert!(
        report
            .notices
            .iter()
            .any(|notice| notice.contains("store_behind"))
    );
}

#[test]
fn a_lost_sign_state_goes_on_in_a_new_segment_and_says_so() {
    let scene = Scene::new();
    let node = scene.open();
    done(&node, "early");
    drop(node);
    std::fs::remove_file(scene.sign_state_dir().join("audit-state.json")).unwrap();
    let node = scene.open();
    done(&node, "late");
    let report = node.audit().verify().unwrap();
    assert_eq!((report.problems.len(), report.segments), (0, 2));
    assert!(
        report
            .notices
            .iter()
            .any(|notice| notice.contains("state_lost"))
    );
}

#[test]
fn a_store_that_was_put_back_with_its_signed_head_is_found_out() {
    let scene = Scene::new();
    let node = scene.open();
    done(&node, "early");
    let first: Vec<_> = node.store().audit_segments().unwrap();
    let (note, leaves) = (node.store().audit_head(0).unwrap(), first.len());
    assert_eq!(leaves, 1);
    done(&node, "hidden");
    // Somebody takes the last leaf and the head away while the node runs.
    node.store().put_audit_head(0, &note.unwrap()).unwrap();
    let problems = node.audit().verify().unwrap().problems;
    assert!(
        problems.iter().any(|p| p.contains("recorded as signed")),
        "{problems:?}"
    );
}

#[test]
fn leaves_are_found_by_time_member_and_act() {
    let scene = Scene::of(&["north", "harbor"]);
    let node = scene.open();
    done(&node, "set.create");
    scene.clock.set(NOW.plus(10));
    let about = act("set.grant")
        .of_set("north/confirmed")
        .of_member("harbor");
    node.audit().begin(about).unwrap().finish(OK);
    scene.clock.set(NOW.plus(20));
    let peer = Actor::peer(&slug("harbor"), &slug("main"));
    node.audit().refused(peer, "harbor", "pull", "not_found");
    node.audit().upkeep();
    assert_eq!(said(node.audit()).len(), 2, "the minute is not over");
    scene.clock.set(NOW.plus(60_000));
    node.audit().upkeep();
    let found = |filter: AuditFilter| {
        let acts = acts(node.audit(), &filter).into_iter();
        acts.map(|act| act.act).collect::<Vec<_>>()
    };
    let filter = AuditFilter::default;
    let of = |text: &str| Some(text.to_owned());
    assert_eq!(
        found(AuditFilter {
            act: of("set"),
            ..filter()
        }),
        ["set.create", "set.grant"]
    );
    assert_eq!(
        found(AuditFilter {
            act: of("set.g"),
            ..filter()
        }),
        Vec::<String>::new()
    );
    let member = |member| {
        found(AuditFilter {
            member: of(member),
            ..filter()
        })
    };
    assert_eq!(member("harbor"), ["set.grant", "refused"]);
    assert_eq!(member("north"), ["set.grant"]);
    assert_eq!(member("harb"), Vec::<String>::new());
    let since = Some(NOW.plus(10));
    assert_eq!(
        found(AuditFilter {
            since,
            until: Some(NOW.plus(11)),
            ..filter()
        }),
        ["set.grant"]
    );
    let refused = acts(
        node.audit(),
        &AuditFilter {
            act: of("refused"),
            ..filter()
        },
    );
    assert_eq!(refused[0].counts, [("pull not_found".to_owned(), 1)]);
    assert_eq!(refused[0].actor.name, "harbor/main");
}

#[test]
fn what_was_refused_is_recorded_when_the_node_ends() {
    let scene = Scene::new();
    let node = scene.open();
    let caller = Caller::loopback().actor("");
    node.audit().refused(caller, "", "CreateSet", "not_allowed");
    drop(node);
    let node = scene.open();
    let held = acts(node.audit(), &AuditFilter::default());
    assert_eq!(held[0].counts, [("CreateSet not_allowed".to_owned(), 1)]);
}

#[test]
fn whoever_follows_is_told_of_every_leaf() {
    let scene = Scene::new();
    let node = scene.open();
    let mut follow = node.audit().follow();
    let mut next = At::default();
    for n in 0..3 {
        done(&node, &format!("act-{n}"));
        assert!(follow.has_changed().unwrap());
        follow.mark_unchanged();
        let mut new = Vec::new();
        let sink = &mut |leaf: crate::audit::AuditLeaf| {
            new.push(leaf.at);
            true
        };
        next = node
            .audit()
            .read(next, &AuditFilter::default(), sink)
            .unwrap();
        // With the first act comes the beginning of its segment.
        assert_eq!(new.len(), if n == 0 { 2 } else { 1 });
    }
}

#[test]
fn the_audit_feed_is_no_feed_that_could_be_granted_pulled_or_looked_up() {
    let scene = Scene::new();
    let node = scene.open();
    done(&node, "act");
    assert!(node.store().feeds().is_empty());
    assert!(node.feeds().is_empty() && node.sets().is_empty());
    let refused = node.create_set(&own_work("audit")).unwrap_err();
    assert_eq!(refused.code(), "misuse");
    node.create_set(&own_work("confirmed")).unwrap();
    import(&node, "confirmed", vec![super::entry(1, "a")]);
    let feeds: BTreeSet<_> = node.store().feeds().iter().map(|feed| feed.id).collect();
    let segments = node.store().audit_segments().unwrap();
    assert!(segments.iter().all(|(_, id)| !feeds.contains(id)));
}

/// A store with a sealed segment and an open one, to be tampered with.
fn two_segments(scene: &Scene) -> Arc<Node> {
    let node = scene.open();
    for n in 0..5 {
        done(&node, &format!("act-{n}"));
    }
    node
}

fn leaf_at(store: &Store, segment: u64, index: u64) -> RawLeaf {
    store.audit_leaf(segment, index).unwrap().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_leaf_that_was_changed_in_any_byte_is_found_out(
        segment in 0..2_u64, index in 0..3_u64, at: prop::sample::Index, bit in 0..8_u32,
    ) {
        let mut scene = Scene::new();
        scene.audit.segment_leaves = 3;
        let node = two_segments(&scene);
        let leaf = leaf_at(node.store(), segment, index);
        let mut bytes = leaf.payload().unwrap().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let change = AuditBatch {
            leaves: vec![(segment, index, RawLeaf::new(leaf.kind, bytes.into()))],
            ..AuditBatch::default()
        };
        node.store().write_audit(&change).unwrap();
        prop_assert!(!node.audit().verify().unwrap().problems.is_empty());
        drop(node);
        // The next start neither signs nor hides it.
        let node = scene.open();
        prop_assert!(!node.audit().verify().unwrap().problems.is_empty());
    }
}

#[test]
fn a_head_of_another_key_is_found_out() {
    use hashpact_core::checkpoint::{self, Checkpoint};
    use hashpact_core::keys::{Feed, SecretKey};
    use hashpact_core::note::Note;
    let scene = Scene::new();
    let node = scene.open();
    done(&node, "act");
    let note = node.store().audit_head(0).unwrap().unwrap();
    let text = Note::parse(&note).unwrap().text;
    let other = SecretKey::<Feed>::from_seed(&[9; 32]);
    let forged = checkpoint::sign(&Checkpoint::parse_body(&text).unwrap(), &other);
    node.store().put_audit_head(0, &forged).unwrap();
    let problems = node.audit().verify().unwrap().problems;
    assert!(
        problems.iter().any(|p| p.contains("refused")),
        "{problems:?}"
    );
}
