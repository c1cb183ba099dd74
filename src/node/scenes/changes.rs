//! Changes against export: whoever follows ends at what an export has.

use std::collections::{BTreeMap, BTreeSet};

use hashpact_core::leaf::RetractReason;
use hashpact_store::FeedStatus;
use hashpact_store::quarantine::Decision;
use proptest::prelude::*;

use super::*;
use crate::changes::{Change, ChangeCursor};
use crate::model::{Retraction, Selector};
use crate::removed::RemovedMembers;

/// What a matcher of the member's own keeps: by feed and index the entry, its state, its
/// classification, and its signals.
type Kept = BTreeMap<(Digest, u64), (String, &'static str, String, usize)>;

struct Follower {
    kept: Kept,
    at: ChangeCursor,
}

impl Follower {
    fn start(node: &Node) -> Self {
        Self {
            kept: Kept::new(),
            at: node.begin_snapshot(&slug("matcher"), "test").unwrap(),
        }
    }

    fn take(&mut self, node: &Node, limit: usize) -> bool {
        let changed = node.changes(&self.at, limit).unwrap();
        for change in changed.changes {
            match change {
                Change::Entry(present) => {
                    let entry = present.entry;
                    let class = entry.body.classification.map(|class| class.to_string());
                    let kept = (
                        entry.entry.to_string(),
                        entry.state,
                        class.unwrap_or_default(),
                        entry.body.signals.len(),
                    );
                    self.kept.insert((present.feed.0, entry.index), kept);
                }
                Change::Withdrawn { feed, index, .. } => {
                    self.kept.remove(&(feed.0, index));
                }
                Change::SetWithdrawn { feed, .. } => self.kept.retain(|(of, _), _| *of != feed.0),
            }
        }
        self.at = changed.next;
        changed.caught_up
    }

    fn agrees(&mut self, node: &Node) {
        node.note_changes().unwrap();
        while !self.take(node, 3) {}
        let mut exported = BTreeSet::new();
        let mut sink = |page: Vec<crate::model::ExportedEntry>| {
            for entry in page {
                let class = entry.body.classification.map(|class| class.to_string());
                exported.insert((
                    entry.index,
                    entry.entry.to_string(),
                    entry.state,
                    class.unwrap_or_default(),
                    entry.body.signals.len(),
                ));
            }
            true
        };
        node.export(None, (false, false), &mut sink).unwrap();
        let kept = self.kept.iter();
        let kept: BTreeSet<_> = kept
            .map(|((_, index), (name, state, class, signals))| {
                (*index, name.clone(), *state, class.clone(), *signals)
            })
            .collect();
        assert_eq!(kept, exported);
    }
}

fn retract(node: &Node, n: u64) {
    let retraction = Retraction {
        reason: RetractReason::Wrong,
        note: String::new(),
        recheck: false,
        selectors: vec![(1, Selector::SourceReference(format!("ref-{n}")))],
    };
    node.retract(&slug("confirmed"), &retraction).unwrap();
}

/// An entry with a second signal that the gate holds back.
fn dubious(n: u64) -> NewEntry {
    let mut dubious = entry(n, "dubious");
    let pdq = Signal::new(SignalKind::Pdq, vec![0x3c; 32].into(), Some(10)).unwrap();
    dubious.body.signals.push(pdq);
    dubious
}

fn happens(scene: &Scene, node: &mut Option<Arc<Node>>, what: u8, n: u64) {
    let own = node.as_ref().unwrap();
    let no = own.store().feeds()[0].no;
    match what {
        0 | 1 => drop(import(own, "confirmed", vec![entry(n, "first")])),
        2 => drop(import(own, "confirmed", vec![entry(n, "second")])),
        3 => drop(import(own, "confirmed", vec![dubious(n)])),
        4 => retract(own, n),
        5 => {
            let held = own.store().retractions(no, 0, 2).unwrap();
            let held = held.into_iter().filter(|_| n.is_multiple_of(2));
            own.store().hold_retractions(no, held.collect()).unwrap();
        }
        6 => {
            let set = own.sets().remove(0).name;
            let decision = if n.is_multiple_of(3) {
                Decision::Drop
            } else {
                Decision::Release
            };
            own.decide_quarantine(&set, None, None, decision).unwrap();
        }
        7 => {
            let all = [FeedStatus::Active, FeedStatus::Frozen, FeedStatus::Active];
            let status = all[usize::try_from(n % 3).unwrap()];
            own.store().set_feed_status(no, status).unwrap();
        }
        _ => {
            *node = None;
            *node = Some(scene.open());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn whoever_follows_a_node_ends_at_what_it_exports(
        history in prop::collection::vec((0_u8..11, 0_u64..8), 1..30),
        begins in 0_usize..10,
    ) {
        let scene = Scene::new();
        let mut node = Some(scene.open());
        node.as_ref().unwrap().create_set(&own_work("confirmed")).unwrap();
        let mut follower = None;
        for (at, (what, n)) in history.into_iter().enumerate() {
            if at >= begins && follower.is_none() {
                follower = Some(Follower::start(node.as_ref().unwrap()));
            }
            match (what, &mut follower) {
                (9, Some(_)) => node.as_ref().unwrap().note_changes().unwrap(),
                (10, Some(follower)) => drop(follower.take(node.as_ref().unwrap(), 2)),
                _ => happens(&scene, &mut node, what.min(8), n),
            }
        }
        let node = node.unwrap();
        let mut follower = follower.unwrap_or_else(|| Follower::start(&node));
        follower.agrees(&node);
    }
}

#[test]
fn the_setting_for_removed_members_is_followed() {
    let scene = Scene::new();
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    import(
        &node,
        "confirmed",
        vec![entry(1, "first"), entry(2, "first")],
    );
    let mut follower = Follower::start(&node);
    follower.agrees(&node);
    assert_eq!(follower.kept.len(), 2);
    scene.remove_north(&node);
    let states = |follower: &Follower| {
        let kept = follower.kept.values();
        kept.map(|(_, state, ..)| *state).collect::<Vec<_>>()
    };
    for (setting, expected) in [
        (RemovedMembers::Count, vec!["active"; 2]),
        (RemovedMembers::Review, vec!["review"; 2]),
        (RemovedMembers::Ignore, vec![]),
        (RemovedMembers::Count, vec!["active"; 2]),
    ] {
        node.set_removed_members(setting);
        follower.agrees(&node);
        assert_eq!(states(&follower), expected);
    }
}

#[test]
fn what_changes_is_logged_without_being_asked_and_told_to_whoever_waits() {
    let scene = Scene::new();
    let node = scene.open();
    node.create_set(&own_work("confirmed")).unwrap();
    let mut follower = Follower::start(&node);
    while !follower.take(&node, 9) {}
    node.keep_changes().unwrap();
    let mut logged = node.changes_logged();
    let before = *logged.borrow_and_update();
    import(&node, "confirmed", vec![entry(1, "first")]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(logged.changed()).unwrap();
    assert!(*logged.borrow() > before);
    while !follower.take(&node, 9) {}
    assert_eq!(follower.kept.len(), 1);
    // The keeper lets go of the store with the node.
    drop(node);
    drop(scene.open());
}
