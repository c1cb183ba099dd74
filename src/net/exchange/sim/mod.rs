//! A whole coalition in one process: real nodes over real stores, with a network and
//! a time that are made up.
//!
//! Every decision is the real node's: what is announced to whom, what is taken, asked
//! and kept, who is dialled and let in, and how leaves are served and verified. Made
//! up are connections (latency, late messages, cuts, partitions), the clock, chance
//! and what people do. One thread does everything in the order of virtual time, so
//! that the same seed gives the same trace.
//!
//! Not here: TLS and HTTP/2 themselves, backpressure, and disks that lose what was
//! synced. A crash loses what a node had not made durable.

mod called;
mod calling;
mod calls;
mod check;
mod coalition;
mod cost;
mod dice;
mod errands;
mod meddling;
mod member;
mod message;
mod pacing;
mod script;
mod sessions;
mod trace;
mod world;

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use hashpact_core::id::Digest;
use hashpact_core::puller;
use hashpact_core::reject::Rejection;
use hashpact_node::NodeError;
use hashpact_store::StoreError;

pub use cost::Spent;

use coalition::{Bench, CardPlan, Coalition};
use member::Member;
use script::{Document, Step};
use world::{Due, World};

use super::inbox::{DOCUMENTS_BURST, DOCUMENTS_PER_SECOND, HEADS_BURST, HEADS_PER_SECOND};

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Chance, keys and all follow from it.
    pub seed: u64,
    /// Members in the end.
    pub members: u32,
    /// How many of them listen; the others only dial them.
    pub listening: u32,
    /// How many publish a set that everybody may read; each other one publishes a
    /// second one for a third of the members.
    pub publishers: u32,
    /// How many are admitted while everything runs.
    pub joiners: u32,
    /// Partitions, crashes, rotations of keys, late messages and cuts, before rounds.
    pub trouble: bool,
    /// Rounds that are measured: each publisher publishes once in each.
    pub rounds: u32,
    /// Entries that it publishes then.
    pub entries: u64,
    /// How many of the members, from the second on, are witnesses as well.
    pub witnesses: u32,
    /// Whether the witnesses are the last members instead, and do nothing else.
    pub neutral_witnesses: bool,
    /// Whether the trace is kept as text.
    pub keep_trace: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            seed: 1,
            members: 100,
            listening: 6,
            publishers: 8,
            joiners: 3,
            trouble: true,
            rounds: 3,
            entries: 10,
            witnesses: 0,
            neutral_witnesses: false,
            keep_trace: false,
        }
    }
}

impl Plan {
    fn bench(&self) -> Bench {
        if self.neutral_witnesses {
            Bench {
                first: self.members.saturating_sub(self.witnesses).max(1) + 1,
                count: self.witnesses,
                only: true,
            }
        } else {
            Bench::among_members(self.witnesses)
        }
    }
}

/// What nodes take in: as shipped, but where a play wants to see bounds reached.
#[derive(Debug, Clone)]
struct Limits {
    puller: puller::Settings,
    /// Of each member in a second, and at once.
    heads: (u32, u32),
    documents: (u32, u32),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            puller: puller::Settings::default(),
            heads: (HEADS_PER_SECOND, HEADS_BURST),
            documents: (DOCUMENTS_PER_SECOND, DOCUMENTS_BURST),
        }
    }
}

/// What one part of a simulation took.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Virtual time.
    pub virtual_ms: u64,
    /// All members together.
    pub all: Spent,
    /// The member that sent the most messages.
    pub most: Spent,
}

/// What came of a simulation in which everybody ended in the same place.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Everything that happened, in order.
    pub trace: Digest,
    /// How much that was.
    pub events: u64,
    /// What every member holds in the end.
    pub state: Digest,
    /// Sets that are published.
    pub sets: usize,
    /// Connections at the end.
    pub connections: usize,
    /// From the first start until all documents are everywhere.
    pub start: Part,
    /// The troubled time, and until all is well again.
    pub trouble: Part,
    /// The measured rounds.
    pub rounds: Part,
    /// A minute in which nothing changes.
    pub idle: Part,
    /// What it took on this machine.
    pub took: Duration,
    /// The trace as text, where it was kept.
    pub lines: Vec<String>,
}

/// Says why a simulation has failed. The seed plays it again.
#[derive(Debug)]
pub struct SimError {
    why: String,
    lines: Vec<String>,
}

impl SimError {
    fn new(why: impl fmt::Display) -> Self {
        Self {
            why: why.to_string(),
            lines: Vec::new(),
        }
    }

    /// The trace up to there as text, where it was kept.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

impl fmt::Display for SimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for SimError {}

impl From<Rejection> for SimError {
    fn from(error: Rejection) -> Self {
        Self::new(error)
    }
}

impl From<NodeError> for SimError {
    fn from(error: NodeError) -> Self {
        Self::new(error)
    }
}

impl From<StoreError> for SimError {
    fn from(error: StoreError) -> Self {
        Self::new(error)
    }
}

/// How long, in virtual time, everything may take to be everywhere.
const PATIENCE_MS: u64 = 900_000;
const SLICE_MS: u64 = 500;
const TROUBLE_MS: u64 = 120_000;
const IDLE_MS: u64 = 60_000;
/// Differences that are told of.
const TOLD_MAX: usize = 12;

/// Simulates a coalition with its stores in `dir`, which is empty.
///
/// # Errors
/// [`SimError`] when the members do not all end in the same place, with the seed that
/// shows it again.
pub fn run(plan: &Plan, dir: &Path) -> Result<Outcome, SimError> {
    let with_seed = |why: String| SimError {
        why: format!("seed {}: {why}", plan.seed),
        lines: Vec::new(),
    };
    let began = Instant::now();
    let mut world = found(plan, &Limits::default(), dir).map_err(|e| with_seed(e.why))?;
    simulate(plan, &mut world, began).map_err(|error| SimError {
        lines: world.trace.lines().to_vec(),
        ..with_seed(error.why)
    })
}

fn simulate(plan: &Plan, world: &mut World, began: Instant) -> Result<Outcome, SimError> {
    let start = world.until_same()?;
    make_sets(world, plan)?;
    world.until_same()?;
    world.cost.take();
    if plan.trouble {
        trouble(world, plan)?;
    }
    let trouble = world.until_same()?;
    let rounds = rounds(world, plan)?;
    let (before, end) = (world.now, world.now + IDLE_MS);
    world.run_until(end)?;
    let idle = world.spent_since(before);
    let mut wrong = world.verify_all()?;
    wrong.extend(world.told_after_suspension()?);
    world.nothing(wrong)?;
    Ok(Outcome {
        trace: world.trace.digest(),
        events: world.trace.events(),
        state: world.state()?,
        sets: world.sets.len(),
        connections: world.sessions.len(),
        start,
        trouble,
        rounds,
        idle,
        took: began.elapsed(),
        lines: world.trace.lines().to_vec(),
    })
}

/// Makes all members and starts those of the beginning. The first one is given what
/// the administrators published; each other one what it needs to dial.
fn found(plan: &Plan, limits: &Limits, dir: &Path) -> Result<World, SimError> {
    let founders = plan.members.saturating_sub(plan.joiners).max(2);
    let coalition = Coalition::found(plan.seed, founders, plan.bench())?;
    let mut world = World::new(plan.seed, coalition, limits, plan.keep_trace);
    for number in 1..=plan.members.max(founders) {
        let card = CardPlan {
            version: 1,
            listens: number <= plan.listening,
            tls: vec![0],
            feed: vec![0],
        };
        let ahead_ms = world.dice.below(2_000);
        let folder = dir.join(format!("m{number:03}"));
        world
            .members
            .push(Member::new(number, folder, ahead_ms, card, limits)?);
        world.sides.push(0);
    }
    let count = usize::try_from(founders).unwrap_or(usize::MAX);
    let listening = usize::try_from(plan.listening).unwrap_or(usize::MAX);
    let mut cards = Vec::new();
    for at in 0..count {
        cards.push(Document::Card(world.card(at)?));
    }
    let rosters: Vec<Document> = world
        .coalition
        .rosters
        .iter()
        .cloned()
        .map(Document::Roster)
        .collect();
    for at in 0..count {
        let own = cards.get(at).into_iter();
        let known = match at {
            0 => cards.iter().collect::<Vec<_>>(),
            _ => own.chain(cards.iter().take(listening)).collect(),
        };
        let given: Vec<Document> = rosters.iter().chain(known).cloned().collect();
        world.start(at, &given)?;
        world.settle(at)?;
    }
    Ok(world)
}

fn make_sets(world: &mut World, plan: &Plan) -> Result<(), SimError> {
    let founders = plan.members.saturating_sub(plan.joiners).max(2);
    let listening = usize::try_from(plan.listening.min(founders)).unwrap_or(0);
    let listening: Vec<usize> = (0..listening).collect();
    let all: Vec<usize> = (0..usize::try_from(founders).unwrap_or(0)).collect();
    let count = usize::try_from(plan.publishers).unwrap_or(0);
    // Never the last one, which is suspended.
    let able = all.get(..all.len().saturating_sub(1)).unwrap_or_default();
    let publishers = world.dice.some(able, count);
    for (n, at) in publishers.into_iter().enumerate() {
        let set = world.make_set(at, "open", None, &[])?;
        world.later(0, Due::Step(Step::Publish(set, plan.entries)));
        if n % 2 == 1 {
            let mut readers = world.dice.some(&all, all.len() / 3);
            readers.extend(&listening);
            readers.sort_unstable();
            readers.dedup();
            readers.retain(|reader| *reader != at);
            let set = world.make_set(at, "closed", Some(readers), &listening)?;
            world.later(0, Due::Step(Step::Publish(set, plan.entries)));
        }
    }
    Ok(())
}

fn trouble(world: &mut World, plan: &Plan) -> Result<(), SimError> {
    let founders = plan.members.saturating_sub(plan.joiners).max(2);
    let founders = usize::try_from(founders).unwrap_or(0);
    let joiners: Vec<usize> = (founders..world.members.len()).collect();
    let last = founders.saturating_sub(1);
    let others: Vec<usize> = (1..last).collect();
    world.trouble(TROUBLE_MS, &joiners, &others);
    let when = world.dice.below(TROUBLE_MS);
    world.later(when, Due::Step(Step::Suspend(last, 1)));
    let end = world.now + TROUBLE_MS + TROUBLE_MS;
    world.run_until(end)?;
    world.calm()
}

fn rounds(world: &mut World, plan: &Plan) -> Result<Part, SimError> {
    world.until_open()?;
    world.cost.take();
    let before = world.now;
    for _ in 0..plan.rounds {
        for set in 0..world.sets.len() {
            world.later(0, Due::Step(Step::Publish(set, plan.entries)));
        }
        let before: Vec<u64> = world.sets.iter().map(|set| set.published).collect();
        world.come_to_rest()?;
        let grew = world.sets.iter().zip(before);
        if !grew.clone().all(|(set, before)| set.published > before) {
            return Err(SimError::new(
                "a publisher cannot publish after all is well again",
            ));
        }
    }
    Ok(world.spent_since(before))
}

impl World {
    /// Lets time pass until everybody holds the same; what it took since the last
    /// time.
    fn until_same(&mut self) -> Result<Part, SimError> {
        let before = self.now;
        self.come_to_rest()?;
        Ok(self.spent_since(before))
    }

    fn come_to_rest(&mut self) -> Result<(), SimError> {
        let end = self.now.saturating_add(PATIENCE_MS);
        loop {
            self.run_until_rest(end)?;
            let wrong = self.differences()?;
            if wrong.is_empty() {
                return Ok(());
            }
            if self.now >= end {
                return self.nothing(wrong);
            }
            self.run_until(self.now.saturating_add(SLICE_MS))?;
        }
    }

    /// Lets time pass until every publisher may sign: after a start it asks its peers
    /// first.
    fn until_open(&mut self) -> Result<(), SimError> {
        let end = self.now.saturating_add(PATIENCE_MS);
        while let Some(why) = self.closed() {
            if self.now >= end {
                return self.nothing(vec![why]);
            }
            self.run_until(self.now.saturating_add(SLICE_MS))?;
        }
        Ok(())
    }

    /// Why a set cannot be signed.
    fn closed(&self) -> Option<String> {
        self.sets.iter().find_map(|set| {
            let running = self.members.get(set.publisher)?.run.as_ref()?;
            running.node.publisher().closed(&set.feed)
        })
    }

    fn spent_since(&mut self, before: u64) -> Part {
        let (all, most) = self.cost.take();
        Part {
            virtual_ms: self.now.saturating_sub(before),
            all,
            most,
        }
    }

    fn nothing(&self, mut wrong: Vec<String>) -> Result<(), SimError> {
        if wrong.is_empty() {
            return Ok(());
        }
        let count = wrong.len();
        wrong.truncate(TOLD_MAX);
        let wrong = wrong.join("; ");
        Err(SimError::new(format_args!(
            "after {} s of virtual time {count} things differ: {wrong}",
            self.now / 1_000
        )))
    }
}

#[cfg(test)]
mod foes;
#[cfg(test)]
mod tests;
