//! What must hold whatever hostile members do. Each violation names its invariant:
//!
//! 1. no honest node answers with, or enforces, what was forged, nor goes on with a fork
//!    once it is known;
//! 2. no feed reaches the threshold of witnesses on both sides of a fork, and who asks for
//!    the threshold enforces nothing that only one side has before so many stand there;
//! 3. a fork that two honest members see ends in evidence at all who may see the feed;
//! 4. nobody honest is accused, and no honest feed is frozen;
//! 5. memory and traffic stay bounded;
//! 6. honest feeds end the same at all who may read them, retractions included;
//! 7. what a publisher keeps as receipts is true: of a state that it signed, said by now,
//!    and in an honest member's name only where that member has the state.

use std::collections::{BTreeMap, BTreeSet};

use hashpact_core::evidence::ForkEvidence;
use hashpact_core::id::{Digest, FeedId};
use hashpact_core::limits::CLOCK_SKEW_MS;
use hashpact_core::policy::Verdict;
use hashpact_node::Node;
use hashpact_node::model::MatchOptions;
use hashpact_store::{FeedInfo, FeedStatus, KeptReceipt};

use super::super::world::World;
use super::Kit;
use super::bounds::Bounds;
use super::cast::{NODES, WITNESSES};
use super::fork::{Fork, number_of, signal_of};
use super::play::asks_for_witnesses;
use super::serving::forged_entries;

/// More than two thirds of four witnesses.
const THRESHOLD: usize = 3;

/// What was seen over the whole of a play.
#[derive(Default)]
pub(super) struct Watch {
    /// On which sides of each fork a threshold of witnesses was seen.
    reached: BTreeMap<FeedId, BTreeSet<usize>>,
    /// On which sides each honest witness cosigned.
    cosigned: BTreeMap<(usize, FeedId), BTreeSet<usize>>,
    /// What each member had applied of a forked feed when it was found to be one.
    frozen: BTreeMap<(usize, FeedId), Option<(u64, Digest)>>,
    bounds: Bounds,
    /// Forks of which there is evidence.
    pub(super) forks_proven: BTreeSet<FeedId>,
}

/// The honest members whose nodes run, by place.
fn honest<'w>(world: &'w World, kit: &'w Kit) -> impl Iterator<Item = (usize, &'w Node)> {
    let members = world.members.iter().enumerate();
    members.filter_map(|(at, member)| {
        let running = member.run.as_ref().filter(|_| !kit.is_foe(at))?;
        Some((at, &*running.node))
    })
}

fn held(node: &Node, feed: &FeedId) -> Option<FeedInfo> {
    let store = node.store();
    store.feed(store.feed_no(feed)?).ok()
}

fn accused(node: &Node) -> BTreeSet<FeedId> {
    let kept = node.store().evidence().unwrap();
    let feed = |bytes| ForkEvidence::decode(bytes).unwrap().feed;
    kept.iter().map(feed).collect()
}

/// What becomes of entries' signals at a node; `None` where nothing is known of one.
fn verdicts(node: &Node, entries: impl Iterator<Item = u64>) -> Vec<Option<Verdict>> {
    let signals: Vec<_> = entries.map(signal_of).collect();
    let matched = node.matches(&signals, MatchOptions::exact()).unwrap();
    let judge = node.judge("", "").unwrap();
    let each = signals.iter().zip(&matched);
    each.map(|(signal, matched)| judge.verdict(signal, matched))
        .collect()
}

impl Watch {
    /// From here on what is let in is counted.
    pub(super) fn begin(&mut self, world: &World) {
        self.bounds.begin(world);
    }

    /// Looks at every honest node; says what is wrong at this moment.
    pub(super) fn look(&mut self, world: &World, kit: &Kit) -> Vec<String> {
        let mut wrong = Vec::new();
        self.look_at_witnesses(world, kit);
        for (at, node) in honest(world, kit) {
            let slug = &world.members[at].slug;
            let evidence = accused(node);
            wrong.extend(believed(world, kit, at).map(|why| format!("7: {slug}: {why}")));
            self.forks_proven.extend(&evidence);
            wrong.extend(innocent(node, kit, &evidence).map(|why| format!("4: {slug}: {why}")));
            wrong.extend(forged(world, kit, node).map(|why| format!("1: {slug}: {why}")));
            for fork in &kit.forks {
                let known = evidence.contains(&fork.feed);
                let on = self.on_fork((at, node), fork, (known, kit));
                wrong.extend(
                    on.into_iter()
                        .map(|why| format!("{}: {slug}: {}", why.0, why.1)),
                );
            }
        }
        let beyond = self.bounds.look(world, kit);
        wrong.extend(beyond.into_iter().map(|why| format!("5: {why}")));
        for (feed, sides) in &self.reached {
            if sides.len() > 1 {
                wrong.push(format!(
                    "2: a threshold on both sides of {}",
                    feed.0.short()
                ));
            }
        }
        for ((at, _), sides) in &self.cosigned {
            if sides.len() > 1 {
                wrong.push(format!("2: honest witness {at} cosigned both sides"));
            }
        }
        wrong
    }

    /// Notes on which sides honest witnesses stand.
    fn look_at_witnesses(&mut self, world: &World, kit: &Kit) {
        for (at, node) in honest(world, kit) {
            for fork in &kit.forks {
                let said = node.witnessing().and_then(|w| w.said(&fork.feed));
                let side = said.and_then(|said| {
                    let cosigned = said.cosigned;
                    fork.side_of(cosigned.size, cosigned.root)
                });
                let sides = self.cosigned.entry((at, fork.feed)).or_default();
                sides.extend(side);
            }
        }
    }

    /// How many witnesses may have cosigned a side of a fork: the honest ones that were
    /// seen there, and all that lie.
    fn may_stand(&self, fork: &Fork, side: usize, kit: &Kit) -> usize {
        let bench = NODES..NODES + WITNESSES;
        let stands = |at: &usize| {
            let sides = self.cosigned.get(&(*at, fork.feed));
            kit.is_foe(*at) || sides.is_some_and(|sides| sides.contains(&side))
        };
        bench.filter(stands).count()
    }

    fn on_fork(
        &mut self,
        (at, node): (usize, &Node),
        fork: &Fork,
        (known, kit): (bool, &Kit),
    ) -> Vec<(u8, String)> {
        let mut wrong = Vec::new();
        let Some(feed) = held(node, &fork.feed) else {
            return wrong;
        };
        let applied = feed.applied.map(|head| (head.size, head.root));
        if let Some((size, root)) = applied {
            if !fork.has(size, root) {
                wrong.push((1, "holds a state of a feed that nobody signed".to_owned()));
            }
            let judged = node.judged(&feed).unwrap();
            let past_split = judged.quorum.is_some_and(|quorum| quorum > fork.split);
            if let (true, Some(side)) = (past_split, fork.side_of(size, root)) {
                self.reached.entry(fork.feed).or_default().insert(side);
            }
        }
        if known {
            if feed.status != FeedStatus::Frozen {
                wrong.push((1, format!("a feed is {:?} with evidence", feed.status)));
            }
            let before = self.frozen.entry((at, fork.feed));
            let before = before.or_insert(applied);
            if *before != applied {
                wrong.push((1, "a forked feed went on after that was known".to_owned()));
            }
        }
        let answered = |side: usize| {
            let entries = fork.entries[side].iter().copied();
            verdicts(node, entries).into_iter().max().flatten()
        };
        let both = [answered(0), answered(1)];
        if both.iter().all(Option::is_some) {
            wrong.push((1, "it answers with both sides of a fork".to_owned()));
        }
        for (side, answered) in both.into_iter().enumerate() {
            let stand = self.may_stand(fork, side, kit);
            if asks_for_witnesses(at) && answered == Some(Verdict::Enforce) && stand < THRESHOLD {
                let why =
                    format!("it enforces of a side of a fork on which {stand} witnesses stand");
                wrong.push((2, why));
            }
        }
        if known && both.contains(&Some(Verdict::Enforce)) {
            wrong.push((
                1,
                "it enforces of a feed that is known to be forked".to_owned(),
            ));
        }
        wrong
    }

    /// What has not ended as it is to end.
    pub(super) fn unsettled(world: &World, kit: &Kit) -> Vec<String> {
        let mut wrong = Vec::new();
        for fork in &kit.forks {
            wrong.extend(Self::unproven(world, kit, fork));
        }
        for (at, node) in honest(world, kit).filter(|(at, _)| *at < NODES) {
            let slug = &world.members[at].slug;
            for why in behind(world, kit, (at, node)) {
                wrong.push(format!("6: {slug}: {why}"));
            }
        }
        wrong
    }

    /// Who has no evidence of a fork that is seen: an honest member holds one side, and
    /// another holds or has cosigned no more of the other side. Who proves it needs the
    /// larger tree: a witness that cosigned that has none.
    fn unproven(world: &World, kit: &Kit, fork: &Fork) -> Vec<String> {
        let (mut held_at, mut known) = (BTreeSet::new(), BTreeSet::new());
        for (_, node) in honest(world, kit) {
            let applied = held(node, &fork.feed).and_then(|feed| feed.applied);
            let stands = |size, root| Some((fork.side_of(size, root)?, size));
            held_at.extend(applied.and_then(|head| stands(head.size, head.root)));
            let said = node.witnessing().and_then(|w| w.said(&fork.feed));
            known.extend(said.and_then(|said| stands(said.cosigned.size, said.cosigned.root)));
        }
        known.extend(&held_at);
        let seen = |(side, size): &(usize, u64)| {
            known
                .iter()
                .any(|(other, less)| other != side && less <= size)
        };
        if !held_at.iter().any(seen) {
            return Vec::new();
        }
        let may_see = |at: &usize| fork.readers.contains(at) || *at >= NODES;
        let all = honest(world, kit).filter(|(at, _)| may_see(at));
        let without = all.filter(|(_, node)| !accused(node).contains(&fork.feed));
        let told = |(at, _): (usize, &Node)| {
            let slug = &world.members[at].slug;
            format!("3: {slug} has no evidence of a fork that is seen: {known:?}")
        };
        without.map(told).collect()
    }
}

/// Who is accused or frozen without having done anything.
fn innocent<'n>(
    node: &'n Node,
    kit: &'n Kit,
    evidence: &'n BTreeSet<FeedId>,
) -> impl Iterator<Item = String> + 'n {
    let forks: BTreeSet<FeedId> = kit.forks.iter().map(|fork| fork.feed).collect();
    let accused = evidence.difference(&forks).count();
    let cards = node.store().equivocations().unwrap().len();
    let feeds = node.store().feeds().into_iter();
    let frozen =
        feeds.filter(move |feed| !forks.contains(&feed.id) && feed.status != FeedStatus::Active);
    let frozen = frozen.map(|feed| format!("an honest feed is {:?}", feed.status));
    let evidence = (accused > 0).then(|| "evidence against an honest member".to_owned());
    let cards = (cards > 0).then(|| "evidence against an honest member's card".to_owned());
    frozen.chain(evidence).chain(cards)
}

/// What a node holds of honest feeds that their publishers never signed, and what it
/// answers with of what nobody published.
fn forged<'n>(world: &'n World, kit: &'n Kit, node: &'n Node) -> impl Iterator<Item = String> + 'n {
    let sets = world.sets.iter().filter(|set| !kit.is_foe(set.publisher));
    let other = sets.filter(|set| {
        let publisher = world.members[set.publisher].run.as_ref();
        let (Some(publisher), Some(ours)) = (publisher, held(node, &set.feed)) else {
            return false;
        };
        let store = publisher.node.store();
        let no = store.feed_no(&set.feed).unwrap();
        let wrong =
            |head: hashpact_store::HeadRef| store.root_at(no, head.size).ok() != Some(head.root);
        ours.applied.is_some_and(wrong)
    });
    let other = other.map(|set| format!("{} is not what its publisher signed", set.name));
    let answered = verdicts(node, forged_entries()).into_iter().flatten();
    other.chain(answered.map(|_| "it answers with an entry that nobody published".to_owned()))
}

/// What an honest publisher keeps of receipts of its own sets that are not true.
fn believed(world: &World, kit: &Kit, at: usize) -> impl Iterator<Item = String> {
    let mut wrong = Vec::new();
    let node = world.members[at].run.as_ref().map(|running| &running.node);
    for set in world.sets.iter().filter(|set| set.publisher == at) {
        let Some((node, feed)) = node.and_then(|node| Some((node, held(node, &set.feed)?))) else {
            continue;
        };
        let now = node.clock().now();
        for kept in node.store().receipts(feed.no, None).unwrap() {
            let (size, root) = (kept.at.size, node.store().root_at(feed.no, kept.at.size));
            if root.ok() != Some(kept.at.root) {
                wrong.push(format!(
                    "it keeps a receipt of {size} leaves that it never signed"
                ));
            }
            if kept.signed > now.plus(CLOCK_SKEW_MS) {
                wrong.push("it keeps a receipt of the future".to_owned());
            }
            if !is_meant(world, kit, &set.feed, &kept) {
                wrong.push(format!(
                    "it keeps a receipt of {} for {size} leaves that it has not got",
                    kept.member
                ));
            }
        }
    }
    wrong.into_iter()
}

/// Whether a receipt is of a hostile member, or of one that has the state; of one that does
/// not run that cannot be said.
fn is_meant(world: &World, kit: &Kit, feed: &FeedId, kept: &KeptReceipt) -> bool {
    let mut places = 0..world.members.len();
    let Some(of) = places.find(|at| number_of(*at) == kept.member.value()) else {
        return false;
    };
    let Some(running) = world.members[of].run.as_ref().filter(|_| !kit.is_foe(of)) else {
        return true;
    };
    let (node, at) = (&running.node, kept.at);
    held(node, feed).is_some_and(|held| {
        let applied = held.applied.is_some_and(|applied| applied.size >= at.size);
        applied && node.store().root_at(held.no, at.size).ok() == Some(at.root)
    })
}

/// What a node lacks of honest sets that it may read, or answers wrongly.
fn behind(world: &World, kit: &Kit, (at, node): (usize, &Node)) -> Vec<String> {
    let mut wrong = Vec::new();
    for (nth, set) in world.sets.iter().enumerate() {
        let reads = set
            .readers
            .as_ref()
            .is_none_or(|readers| readers.contains(&at));
        if kit.is_foe(set.publisher) || !(reads || set.publisher == at) {
            continue;
        }
        let publisher = world.members[set.publisher].run.as_ref().unwrap();
        let wanted = held(&publisher.node, &set.feed).unwrap();
        let ours = held(node, &set.feed);
        let size = ours.as_ref().and_then(|feed| feed.applied);
        if size != wanted.applied {
            let [size, wanted] = [size, wanted.applied].map(|head| head.map_or(0, |h| h.size));
            wrong.push(format!(
                "{} of {} at {size} of {wanted}",
                set.name, set.publisher
            ));
            continue;
        }
        if ours.is_some_and(|feed| feed.missing > 0) {
            wrong.push(format!("{} of {} lacks leaves", set.name, set.publisher));
        }
        let entries = (0..set.published).map(|n| (nth as u64) << 32 | n);
        for (n, is) in (0..).zip(verdicts(node, entries)) {
            let retracted = n < set.retracted;
            // No retraction here is so large that it would be held.
            if is.is_some() == retracted {
                let what = if retracted { "retracted" } else { "published" };
                wrong.push(format!(
                    "entry {n} of {nth} is {what}, and it answers {is:?}"
                ));
            }
        }
    }
    wrong
}
