//! One play: a coalition is founded, honest members publish and retract, some lie for a
//! while, and what must hold is looked at all the time and in the end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use hashpact_core::id::Digest;
use hashpact_core::policy::{Action, Needs, Policy, Rule, Scope, Verdict};
use hashpact_node::policy::SHIPPED;

use super::super::dice::Dice;
use super::super::script::Step;
use super::super::sessions::SessionId;
use super::super::world::{Due, EVERYWHERE, World};
use super::super::{Limits, Plan, SLICE_MS, SimError, found};
use super::bounds;
use super::broken::{self, Broken};
use super::cast::{Habit, NODES, WITNESSES, cast};
use super::fork::Fork;
use super::invariants::Watch;
use super::{Hook, Kit, Way};
use crate::types::Announcement;

/// Whether a member enforces only what the threshold of witnesses stands behind.
pub(super) const fn asks_for_witnesses(at: usize) -> bool {
    at % 2 == 1
}

/// Until everybody has met everybody.
const MEETING_MS: u64 = 8_000;
/// For how long members lie.
const HOSTILE_MS: u64 = 45_000;
/// Between two looks.
const LOOK_MS: u64 = 2_500;

/// What is played.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Play {
    pub(in super::super) seed: u64,
    pub(in super::super) broken: Option<Broken>,
    /// How long it may take until all is well again.
    pub(in super::super) patience_ms: u64,
    pub(in super::super) keep_trace: bool,
}

impl Play {
    pub(in super::super) const fn of(seed: u64) -> Self {
        Self {
            seed,
            broken: None,
            patience_ms: 300_000,
            keep_trace: false,
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub(in super::super) struct Played {
    pub(in super::super) trace: Digest,
    pub(in super::super) lines: Vec<String>,
    /// How often was lied in which way.
    pub(in super::super) did: BTreeMap<Habit, u64>,
    /// Forks of which there is evidence.
    pub(in super::super) proven: usize,
}

/// Announcements of heads, and of documents, that one member gets in in a second, and at
/// once: less than as shipped, so that a flood is soon one.
pub(super) const HEADS: (u32, u32) = (40, 200);
pub(super) const DOCUMENTS: (u32, u32) = (10, 100);
/// Feeds of one publisher.
pub(super) const FEEDS_MAX: usize = 30;

fn limits() -> Limits {
    let mut limits = Limits {
        heads: HEADS,
        documents: DOCUMENTS,
        ..Limits::default()
    };
    limits.puller.feeds_per_publisher_max = FEEDS_MAX;
    limits
}

/// Something that happens at a moment.
enum Beat {
    Lie(usize),
    Look,
}

/// Plays, with stores in a folder that is empty.
pub(in super::super) fn play(play: &Play, dir: &Path) -> Result<Played, SimError> {
    let with_seed = |error: SimError| SimError::new(format!("seed {}: {error}", play.seed));
    stage(play, dir).map_err(with_seed)
}

fn stage(play: &Play, dir: &Path) -> Result<Played, SimError> {
    let members = u32::try_from(NODES + WITNESSES).unwrap();
    let mut world = found(
        &Plan {
            seed: play.seed,
            members,
            listening: members,
            joiners: 0,
            witnesses: u32::try_from(WITNESSES).unwrap(),
            neutral_witnesses: true,
            keep_trace: play.keep_trace,
            ..Plan::default()
        },
        &match play.broken {
            Some(Broken::Unpaced) => Limits::default(),
            Some(_) | None => limits(),
        },
        dir,
    )?;
    let mut dice = Dice::new(world.dice.seed());
    let liars = match play.broken {
        Some(Broken::Bench) => 3,
        Some(_) | None => usize::try_from(dice.below(2)).unwrap(),
    };
    let kit = Rc::new(RefCell::new(Kit {
        seed: play.seed,
        genesis: world.coalition.genesis,
        foes: cast(play.seed, &mut dice, liars),
        dice,
        hostile: false,
        forks: Vec::new(),
        did: BTreeMap::new(),
        broken: play.broken,
    }));
    world.meddler = Some(Box::new(Hook(Rc::clone(&kit))));
    let mut show = Show {
        world,
        kit,
        watch: Watch::default(),
    };
    show.judge();
    show.run_to(MEETING_MS)?;
    show.sets()?;
    show.hostility()?;
    show.end(play.patience_ms)?;
    let kit = show.kit.borrow();
    Ok(Played {
        trace: show.world.trace.digest(),
        lines: show.world.trace.lines().to_vec(),
        did: kit.did.clone(),
        proven: show.watch.forks_proven.len(),
    })
}

struct Show {
    world: World,
    kit: Rc<RefCell<Kit>>,
    watch: Watch,
}

impl Show {
    /// Everybody enforces all that may be: half of the members only what the threshold of
    /// witnesses stands behind.
    fn judge(&self) {
        for (at, member) in self.world.members.iter().enumerate() {
            let node = member.run.as_ref().map(|running| &running.node);
            let Some(node) = node.filter(|node| node.policy().name == SHIPPED) else {
                continue;
            };
            let careless = self.kit.borrow().broken == Some(Broken::Careless);
            let needs = Needs {
                witnesses: asks_for_witnesses(at) && !careless,
                ..Needs::default()
            };
            let rule = Rule {
                name: "all".to_owned(),
                scope: Scope::default(),
                action: Action::AtLeast(Verdict::Enforce, needs),
            };
            let policy = Policy::new(Verdict::Review, vec![rule]).unwrap();
            node.set_policy(Some((policy, b"all"))).unwrap();
        }
    }

    fn run_to(&mut self, end: u64) -> Result<(), SimError> {
        self.world.run_until(end)
    }

    /// Each honest node publishes a set, for everybody or for some.
    fn sets(&mut self) -> Result<(), SimError> {
        let honest: Vec<usize> = (0..NODES)
            .filter(|at| !self.kit.borrow().is_foe(*at))
            .collect();
        let all: Vec<usize> = (0..NODES).collect();
        for at in honest {
            let closed = self.world.dice.happens(400);
            let mut readers = self.world.dice.some(&all, 4);
            readers.retain(|reader| *reader != at);
            readers.sort_unstable();
            let relays = self.world.dice.some(&readers, 2);
            let readers = closed.then_some(readers);
            let set = self.world.make_set(at, "open", readers, &relays)?;
            let count = self.world.dice.between(3, 12);
            self.world.later(0, Due::Step(Step::Publish(set, count)));
        }
        let end = self.world.now + 4_000;
        self.run_to(end)?;
        self.world.cost.take();
        self.watch.begin(&self.world);
        Ok(())
    }

    /// The time in which members lie.
    fn hostility(&mut self) -> Result<(), SimError> {
        let begin = self.world.now;
        let sides = self.plan_trouble();
        let mut beats = BTreeMap::new();
        {
            let kit = &mut *self.kit.borrow_mut();
            kit.hostile = true;
            let genesis = kit.genesis;
            let forking: Vec<usize> = kit.foes.keys().copied().collect();
            for (nth, at) in (0..).zip(forking) {
                if kit.has(at, Habit::Fork) {
                    let fork = Fork::made((nth, at), genesis, &sides, &mut kit.dice);
                    kit.forks.push(fork);
                }
            }
            for at in kit.foes.keys() {
                for _ in 0..kit.dice.between(4, 8) {
                    let when = begin + kit.dice.below(HOSTILE_MS);
                    beats.insert((when, kit.dice.seed()), Beat::Lie(*at));
                }
            }
        }
        for look in 1..=HOSTILE_MS / LOOK_MS {
            beats.insert((begin + look * LOOK_MS, 0), Beat::Look);
        }
        for ((when, _), beat) in beats {
            self.run_to(when)?;
            match beat {
                Beat::Lie(at) => self.lie(at),
                Beat::Look => self.look()?,
            }
        }
        let kit = self.kit.borrow();
        let changes =
            self.world.sets.len() * 6 + kit.forks.iter().map(Fork::heads_shown).sum::<usize>();
        let wrong = bounds::traffic(&self.world, &kit, (begin, changes as u64));
        fails(&self.world, wrong)
    }

    /// What befalls the honest meanwhile; answers the sides of the partition, if there is
    /// one.
    fn plan_trouble(&mut self) -> Vec<u8> {
        let world = &mut self.world;
        for set in 0..world.sets.len() {
            for _ in 0..3 {
                let (when, count) = (world.dice.below(HOSTILE_MS), world.dice.between(1, 8));
                world.later(when, Due::Step(Step::Publish(set, count)));
            }
            for _ in 0..2 {
                let when = world.dice.below(HOSTILE_MS);
                world.later(when, Due::Step(Step::Retract(set)));
            }
        }
        let honest: Vec<usize> = (0..NODES)
            .filter(|at| !self.kit.borrow().is_foe(*at))
            .collect();
        let world = &mut self.world;
        if world.dice.happens(350) {
            let at = world.dice.some(&honest, 1)[0];
            let when = world.dice.below(HOSTILE_MS / 2);
            let away = world.dice.between(500, 15_000);
            world.later(when, Due::Step(Step::Crash(at)));
            world.later(when + away, Due::Step(Step::Start(at)));
        }
        if !world.dice.happens(650) {
            return Vec::new();
        }
        let mut sides = Vec::new();
        for at in 0..world.members.len() {
            let side = u8::from(world.dice.happens(500));
            let foe = self.kit.borrow().is_foe(at);
            sides.push(if foe { EVERYWHERE } else { side });
        }
        let when = world.dice.below(5_000);
        let length = world.dice.between(10_000, 30_000);
        world.later(when, Due::Step(Step::Part(sides.clone())));
        world.later(when + length, Due::Step(Step::Heal));
        sides
    }

    /// Where a member tells others something: session, end, and whom.
    fn ways(&self, at: usize) -> Vec<(SessionId, usize, usize)> {
        let mut ways = Vec::new();
        for (id, session) in &self.world.sessions {
            for end in [0, 1] {
                let tells = session.end(end).filter(|end| end.who.at == at);
                if let (Some(Some(_)), Some(way)) =
                    (tells.map(|end| &end.telling), self.world.way(*id, end))
                {
                    ways.push((*id, end, way.other));
                }
            }
        }
        ways
    }

    /// A member does what it is there for.
    fn lie(&mut self, at: usize) {
        let ways = self.ways(at);
        let now = self.world.now;
        let mut said: Vec<(SessionId, usize, Announcement)> = Vec::new();
        {
            let kit = &mut *self.kit.borrow_mut();
            kit.next_heads(at);
            for (session, end, other) in &ways {
                let other = *other;
                for one in kit.forks_for(Way { now, at, other }) {
                    said.push((*session, *end, one));
                }
            }
            let coalition = &self.world.coalition;
            let node = self.world.members[at].run.as_ref().map(|r| &r.node);
            let mut to_all = kit.old_cards(at, coalition);
            to_all.extend(kit.claims(at, &self.world));
            to_all.extend(node.map_or_else(Vec::new, |node| kit.frames(at, node, coalition)));
            to_all.extend(kit.flood(at));
            for (session, end, _) in &ways {
                let all = to_all.iter().cloned();
                said.extend(all.map(|one| (*session, *end, one)));
            }
        }
        for (session, end, one) in said {
            self.world.say_plainly(session, end, one);
        }
    }

    fn look(&mut self) -> Result<(), SimError> {
        self.judge();
        let kit = self.kit.borrow();
        broken::meddle(&self.world, &kit);
        for at in 0..self.world.members.len() {
            self.world.set_clock(at);
        }
        let wrong = self.watch.look(&self.world, &kit);
        fails(&self.world, wrong)
    }

    /// All is calm, and ends as it must.
    fn end(&mut self, patience_ms: u64) -> Result<(), SimError> {
        let stops = self.kit.borrow_mut().dice.happens(500);
        self.kit.borrow_mut().hostile = !stops;
        self.world.calm()?;
        let end = self.world.now + patience_ms;
        loop {
            self.world.run_until_rest(end)?;
            self.look()?;
            let wrong = Watch::unsettled(&self.world, &self.kit.borrow());
            if wrong.is_empty() {
                break;
            }
            if self.world.now >= end {
                return fails(&self.world, wrong);
            }
            let next = self.world.now + SLICE_MS;
            self.run_to(next)?;
        }
        let broken = self.world.verify_all()?;
        fails(&self.world, broken)
    }
}

fn fails(world: &World, mut wrong: Vec<String>) -> Result<(), SimError> {
    if wrong.is_empty() {
        return Ok(());
    }
    let (count, at) = (wrong.len(), world.now);
    wrong.truncate(6);
    let wrong = wrong.join("; ");
    Err(SimError::new(format!(
        "at {at} ms {count} things are wrong: {wrong}"
    )))
}
