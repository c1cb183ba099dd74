//! Elided leaves among real nodes: first pulls without what is dead, a relay that
//! leaves out what lives, and erasure at every holder.

use hashpact_core::leaf::{ERASE, Erase, IndexRange, RawLeaf};
use hashpact_node::model::Erasure;

use super::hostile::*;
use super::*;
use crate::exchange::served::Reader;

const ENTRIES: u64 = 1_000;

/// A publisher and a relay that has its feed.
struct Stage {
    coalition: Coalition,
    honest: Hostile,
    relay: Hostile,
    feed: FeedId,
}

impl Stage {
    async fn new() -> Self {
        let coalition = ticking();
        let honest = Hostile::start(&coalition, NORTH, Script::default()).await;
        let relay = Hostile::start(&coalition, WEST, Script::default()).await;
        let feed = create_set(&honest.node, "set", &[("west", true), ("south", true)]);
        publish(&honest.node, "set", 0, ENTRIES);
        Self {
            coalition,
            honest,
            relay,
            feed,
        }
    }

    async fn relayed(self) -> Self {
        bring(&self.honest.node, &self.relay.node, &self.feed, false).await;
        self
    }

    /// The relay leaves out the payloads of these leaves.
    fn leaves_out(&self, which: std::ops::Range<usize>) {
        let feed = feed_of(&self.honest.node, &self.feed);
        let leaves = self
            .honest
            .node
            .store()
            .read_leaves(feed.no, 0, feed.stored);
        let mut forged = Forged {
            publisher: NORTH,
            feed: self.feed,
            leaves: leaves.unwrap(),
        };
        for leaf in &mut forged.leaves[which] {
            *leaf = leaf.elided();
        }
        self.relay.plays(Script {
            give: Some(forged.give()),
            ..Script::default()
        });
    }
}

fn erase(node: &Node, entries: std::ops::Range<u64>) -> u64 {
    let erasure = Erasure {
        legal_basis: "court order 7".to_owned(),
        selectors: entries
            .map(|n| (n, Selector::SourceReference(format!("ref-{n}"))))
            .collect(),
    };
    node.erase(&slug("set"), &erasure).unwrap().payloads
}

fn all_answers(node: &Node) -> Vec<usize> {
    let signals = (0..ENTRIES).map(|n| entry(n).body.signals.remove(0));
    let signals: Vec<Signal> = signals.collect();
    node.lookup(&signals)
        .unwrap()
        .iter()
        .map(Vec::len)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_pull_without_what_is_dead_ends_at_the_same_root_and_answers() {
    let stage = Stage::new().await;
    retract(&stage.honest.node, "set", 100..200);
    let victim = Victim::start(&stage.coalition).await;
    victim.meet(&stage.coalition, &stage.honest);
    let size = feed_of(&stage.honest.node, &stage.feed).stored;
    until("all is there", || victim.applied(&stage.feed) == size).await;
    let (theirs, ours) = (
        feed_of(&stage.honest.node, &stage.feed),
        victim.held(&stage.feed).unwrap(),
    );
    assert_eq!(theirs.applied.map(|h| h.root), ours.applied.map(|h| h.root));
    assert_eq!((theirs.elided, ours.elided, ours.missing), (0, 100, 0));
    assert_eq!(all_answers(&stage.honest.node), all_answers(&victim.node));
    // What dies later stays: whoever follows a feed keeps its history.
    retract(&stage.honest.node, "set", 300..301);
    until("one more", || victim.answers(300) == 0).await;
    publish(&stage.honest.node, "set", ENTRIES, ENTRIES + 1);
    let size = feed_of(&stage.honest.node, &stage.feed).stored;
    until("and another", || victim.applied(&stage.feed) == size).await;
    assert_eq!(victim.answers(ENTRIES), 1);
    assert_eq!(victim.held(&stage.feed).unwrap().elided, 100);
    assert!(victim.refused(&stage.honest).is_empty());
    victim.stop(&stage.coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_relay_leaves_out_without_reason_is_kept_unmatched_and_comes_from_elsewhere() {
    let stage = Stage::new().await.relayed().await;
    stage.leaves_out(700..705);
    let victim = Victim::start(&stage.coalition).await;
    victim.meet(&stage.coalition, &stage.relay);
    let codes = ["elided_without_reason"];
    victim.refuses("elision", &stage.relay, &codes).await;
    // Nobody else is there: the head takes effect without them.
    until("the rest", || victim.applied(&stage.feed) == ENTRIES + 1).await;
    assert_eq!(victim.held(&stage.feed).unwrap().missing, 5);
    // Leaf 0 describes the set.
    assert_eq!((victim.answers(698), victim.answers(699)), (1, 0));
    victim.verify();
    victim.meet(&stage.coalition, &stage.honest);
    until("what was missing", || {
        victim.held(&stage.feed).unwrap().missing == 0
    })
    .await;
    assert_eq!(victim.answers(699), 1);
    assert_eq!(victim.held(&stage.feed).unwrap().elided, 0);
    assert!(victim.refused(&stage.honest).is_empty());
    victim.stop(&stage.coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_asked_for_again_after_a_restart() {
    let stage = Stage::new().await.relayed().await;
    stage.leaves_out(700..705);
    let victim = Victim::start(&stage.coalition).await;
    victim.meet(&stage.coalition, &stage.relay);
    until("the rest", || victim.applied(&stage.feed) == ENTRIES + 1).await;
    let victim = victim.restart(&stage.coalition).await;
    assert_eq!(victim.held(&stage.feed).unwrap().missing, 5);
    victim.meet(&stage.coalition, &stage.honest);
    until("what was missing", || victim.answers(699) == 1).await;
    victim.stop(&stage.coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_leaves_out_a_retraction_does_not_get_its_entry_matched_for_long() {
    let stage = Stage::new().await;
    retract(&stage.honest.node, "set", 10..11);
    let stage = stage.relayed().await;
    let size = feed_of(&stage.honest.node, &stage.feed).stored;
    stage.leaves_out(usize::try_from(size).unwrap() - 1..usize::try_from(size).unwrap());
    let victim = Victim::start(&stage.coalition).await;
    victim.meet(&stage.coalition, &stage.relay);
    let codes = ["elided_without_reason"];
    victim.refuses("elision", &stage.relay, &codes).await;
    victim.meet(&stage.coalition, &stage.honest);
    until("the retraction", || {
        victim.applied(&stage.feed) == size && victim.answers(10) == 0
    })
    .await;
    assert_eq!(victim.held(&stage.feed).unwrap().missing, 0);
    victim.stop(&stage.coalition).await;
}

/// The files under a member's store in which bytes lie as they are.
fn files_with(node: &Node, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![node.store().dir().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // A file may go meanwhile; the boundaries of files stay until a start.
            let bytes = std::fs::read(&path).unwrap_or_default();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let holds = bytes.windows(needle.len()).any(|window| window == needle);
            if holds && !name.starts_with("MANIFEST") {
                found.push(name);
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_empties_the_payloads_at_every_holder_and_proofs_hold() {
    let stage = Stage::new().await;
    let victim = Victim::start(&stage.coalition).await;
    victim.meet(&stage.coalition, &stage.honest);
    bring(&stage.honest.node, &stage.relay.node, &stage.feed, false).await;
    until("all is there", || victim.answers(ENTRIES - 1) == 1).await;
    let nodes = [&stage.honest.node, &stage.relay.node, &victim.node];
    let value = |n| entry(n).body.signals.remove(0).value().to_vec();
    for node in nodes {
        assert!(!files_with(node, &value(40)).is_empty());
    }

    assert_eq!(erase(&stage.honest.node, 40..42), 2);
    let size = feed_of(&stage.honest.node, &stage.feed).stored;
    until("the erasure", || victim.applied(&stage.feed) == size).await;
    bring(&stage.honest.node, &stage.relay.node, &stage.feed, false).await;
    until("the files are rewritten", || {
        !victim.node.store().purge_due() && victim.held(&stage.feed).unwrap().elided == 2
    })
    .await;
    for node in nodes {
        assert_eq!(feed_of(node, &stage.feed).elided, 2);
        for n in [40, 41] {
            assert_eq!(files_with(node, &value(n)), Vec::<String>::new());
        }
        let applied = feed_of(node, &stage.feed).applied.unwrap();
        assert_eq!(applied.size, size);
        let report = node.store().verify(|_, _| Ok(()), |_, _| ()).unwrap();
        assert_eq!((report.findings, report.elided), (Vec::new(), 2));
    }
    assert_eq!((victim.answers(40), victim.answers(43)), (0, 1));

    // Erased leaves stay servable: as their records, under the same head.
    let request = PullRequest {
        elide_dead: false,
        ..all_of(&victim.node, &stage.feed)
    };
    let parts = pull(&victim.node, WEST, request).await.unwrap();
    let chunks = verified(&parts, &request);
    let leaves = chunks.iter().flat_map(VerifiedChunk::leaves);
    assert_eq!(leaves.filter(|(_, leaf)| leaf.is_elided()).count(), 2);
    victim.stop(&stage.coalition).await;
}

/// A publisher whose feed key was stolen: 300 entries, 200 of which it erases.
fn stolen(coalition: &Coalition) -> Forged {
    let mut forged = Forged::new(coalition, NORTH, "set", 301);
    let erase = Erase {
        indexes: vec![IndexRange {
            first: 1,
            count: 200,
        }],
        legal_basis: "none".to_owned(),
        created: NOW,
    };
    forged
        .leaves
        .push(RawLeaf::new(ERASE, erase.encode([7; 16]).unwrap()));
    forged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mass_erasure_by_the_feed_key_alone_erases_nothing() {
    let coalition = ticking();
    let thief = Hostile::start(&coalition, NORTH, Script::default()).await;
    let forged = stolen(&coalition);
    thief.plays(forged.script());
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &thief);
    until("the head", || victim.applied(&forged.feed) == 302).await;
    let feed = victim.held(&forged.feed).unwrap();
    let store = victim.node.store();
    until("they are held", || store.is_held(feed.no, 200).unwrap()).await;
    assert_eq!((feed.dead, feed.elided), (200, 0));
    assert!(!store.purge_due());
    victim.stop(&coalition).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_mass_erasure_left_out_is_wanted_whole_and_nobody_is_blamed() {
    let coalition = ticking();
    let thief = Hostile::start(&coalition, NORTH, Script::default()).await;
    let whole = stolen(&coalition);
    let mut without = whole.clone();
    for leaf in &mut without.leaves[1..201] {
        *leaf = leaf.elided();
    }
    // Asked for all, it gives all.
    let (feed, some, all) = (whole.feed, without.give(), whole.clone().give());
    thief.plays(Script {
        give: Some(Arc::new(move |caller, request: PullRequest| {
            let give = if request.elide_dead { &some } else { &all };
            give(caller, request)
        })),
        ..whole.script()
    });
    let victim = Victim::start(&coalition).await;
    victim.meet(&coalition, &thief);
    until("the payloads", || {
        let held = victim.held(&feed);
        held.is_some_and(|held| held.applied.is_some() && held.elided == 0)
    })
    .await;
    assert_eq!(thief.pulls(), 2);
    assert!(victim.refused(&thief).is_empty());
    victim.stop(&coalition).await;
}

async fn drained(pulls: &Pulls, caller: u32, request: PullRequest) -> usize {
    let parts = pulls.serve(number(caller), request).await.unwrap();
    let parts: Vec<_> = parts.collect().await;
    parts.iter().filter(|part| part.is_ok()).count()
}

#[tokio::test]
async fn what_was_dead_at_an_older_head_is_reckoned_once_and_by_turns() {
    let coalition = Coalition::new();
    let north = coalition.open(NORTH);
    let feed = create_set(&north, "set", &[("south", false), ("west", false)]);
    publish(&north, "set", 0, 10);
    let before = all_of(&north, &feed);
    assert_eq!(erase(&north, 0..3), 3);
    // The erased leaf alone, under one head after the other.
    let older = [10, 20, 30].map(|n| {
        publish(&north, "set", n, n + 10);
        PullRequest {
            from: 1,
            to: 2,
            ..all_of(&north, &feed)
        }
    });
    publish(&north, "set", 40, 50);
    let pulls = pulls(&north);
    for _ in 0..5 {
        assert_eq!(drained(&pulls, SOUTH, older[0]).await, 1);
    }
    assert_eq!(drained(&pulls, WEST, older[0]).await, 1);
    assert_eq!(pulls.older.reckoned(), 1);
    // The newest is known without.
    let newest = all_of(&north, &feed);
    assert_eq!(drained(&pulls, SOUTH, newest).await, 1);
    // While something is reckoned for one reader, others are served.
    let turn = pulls.older.hold(Reader::Member(number(SOUTH))).await;
    let (shared, request) = (pulls.clone(), older[1]);
    let waiting = tokio::spawn(async move { drained(&shared, SOUTH, request).await });
    assert_eq!(drained(&pulls, WEST, older[2]).await, 1);
    assert_eq!(pulls.older.reckoned(), 2);
    assert!(!waiting.is_finished());
    drop(turn);
    assert_eq!(waiting.await.unwrap(), 1);
    assert_eq!(pulls.older.reckoned(), 3);
    // Nothing below this head had killed it.
    assert_eq!(drained(&pulls, SOUTH, before).await, 0);
}
