//! The world that simulated members live in: virtual time, one queue of what happens
//! next, and what the network does to what they send each other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::coalition::Coalition;
use super::cost::Cost;
use super::dice::Dice;
use super::meddling::Meddler;
use super::member::{Member, Running};
use super::pacing::Pacing;
use super::script::{SimSet, Step};
use super::sessions::{LoopKey, Session, SessionId};
use super::trace::Trace;
use super::{Limits, SimError};
use super::{calls::CallId, calls::Message};
use bytes::Bytes;
use hashpact_core::id::{Digest, FeedId};

/// Names a member's node between two of its crashes: its place, and its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Who {
    pub(crate) at: usize,
    pub(crate) incarnation: u64,
}

/// What happens at a time.
pub(crate) enum Due {
    /// What waited for a rate is let in.
    Resume(SessionId, usize),
    /// A node dials.
    Dial(Who, LoopKey),
    /// A connection stands, or the handshake failed.
    Connected(SessionId),
    /// A message arrives at an end of a session.
    Deliver(SessionId, usize, Message),
    /// An end of a session notices that the other is gone.
    Gone(SessionId, usize),
    /// The driver is told of the time that it asked for.
    Wake(Who, u64),
    /// Watches are looked at.
    Tell(Who),
    /// What only time changes is looked at.
    Tidy(Who),
    /// Connections are put in line with cards and access.
    Align(Who),
    /// A desk carries its orders out.
    Desk(Who, FeedId),
    /// The next chunk of a pull is read.
    Serve(Who, SessionId, CallId),
    /// Both ends of a watch give signs of life.
    Alive(SessionId),
    /// Something of the script.
    Step(Step),
}

/// How the network behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// Messages of a thousand that are late by a retransmission.
    pub(crate) late_per_mille: u64,
    /// Messages of ten thousand with which the connection breaks.
    pub(crate) cut_per_10_000: u64,
}

/// The side of a member that every side of a partition reaches.
pub(crate) const EVERYWHERE: u8 = u8::MAX;

/// All of it.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) now: u64,
    pub(crate) dice: Dice,
    pub(crate) trace: Trace,
    pub(crate) coalition: Coalition,
    pub(crate) members: Vec<Member>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) cost: Cost,
    pub(crate) weather: Weather,
    /// What is let in of what is announced.
    pub(crate) pacing: Pacing,
    /// Who has members do otherwise than their nodes.
    pub(crate) meddler: Option<Box<dyn Meddler>>,
    /// Which side of a partition each member is on, or [`EVERYWHERE`].
    pub(crate) sides: Vec<u8>,
    /// Messages on their way, and what wakes nobody by itself.
    pub(crate) busy: u64,
    queue: BTreeMap<(u64, u64), Due>,
    next: u64,
    pub(crate) next_session: u64,
    pub(crate) next_call: u64,
    /// Members that take no part any more: removed or suspended.
    pub(crate) out: BTreeSet<usize>,
    pub(crate) sets: Vec<SimSet>,
    /// The newest card of each member.
    pub(crate) cards: BTreeMap<usize, Digest>,
    /// Cards whose member's node did not run.
    pub(crate) unpublished: Vec<(usize, Bytes)>,
}

impl World {
    pub(crate) fn new(seed: u64, coalition: Coalition, limits: &Limits, keep_trace: bool) -> Self {
        Self {
            seed,
            now: 0,
            dice: Dice::new(seed),
            trace: Trace::new(keep_trace),
            coalition,
            members: Vec::new(),
            sessions: BTreeMap::new(),
            cost: Cost::default(),
            weather: Weather {
                late_per_mille: 0,
                cut_per_10_000: 0,
            },
            pacing: Pacing::new(limits.heads, limits.documents),
            meddler: None,
            sides: Vec::new(),
            busy: 0,
            queue: BTreeMap::new(),
            next: 0,
            next_session: 0,
            next_call: 0,
            out: BTreeSet::new(),
            sets: Vec::new(),
            cards: BTreeMap::new(),
            unpublished: Vec::new(),
        }
    }

    /// Has something happen after so many milliseconds.
    pub(crate) fn later(&mut self, ms: u64, due: Due) {
        self.next = self.next.saturating_add(1);
        self.busy = self.busy.saturating_add(u64::from(is_work(&due)));
        let at = self.now.saturating_add(ms);
        self.queue.insert((at, self.next), due);
    }

    /// Lets time pass up to a moment.
    pub(crate) fn run_until(&mut self, end: u64) -> Result<(), SimError> {
        while self.step(end)? {}
        self.now = self.now.max(end);
        Ok(())
    }

    /// Lets time pass until nothing is under way, at most up to a moment; answers
    /// whether it came to rest.
    pub(crate) fn run_until_rest(&mut self, end: u64) -> Result<bool, SimError> {
        while self.busy > 0 {
            if !self.step(end)? {
                self.now = self.now.max(end);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Does the next thing that is due by `end`, if there is one.
    fn step(&mut self, end: u64) -> Result<bool, SimError> {
        let Some(entry) = self.queue.first_entry() else {
            return Ok(false);
        };
        let (at, _) = *entry.key();
        if at > end {
            return Ok(false);
        }
        let due = entry.remove();
        self.now = self.now.max(at);
        self.busy = self.busy.saturating_sub(u64::from(is_work(&due)));
        let began = Instant::now();
        let whose = self.happen(due)?;
        if let Some(at) = whose {
            self.settle(at)?;
            self.cost.spent(at, began.elapsed());
        }
        Ok(true)
    }

    /// Does one thing; answers which member it happened to.
    fn happen(&mut self, due: Due) -> Result<Option<usize>, SimError> {
        Ok(match due {
            Due::Dial(who, key) => self.of(who, |world| world.dial(who, key)),
            Due::Connected(session) => self.connected(session),
            Due::Deliver(session, end, message) => self.deliver(session, end, message),
            Due::Gone(session, end) => self.gone(session, end),
            Due::Resume(session, end) => self.resume(session, end),
            Due::Wake(who, at) => self.of(who, |world| world.wake(who.at, at)),
            Due::Tell(who) => self.of(who, |world| world.tell(who.at)),
            Due::Tidy(who) => self.of(who, |world| world.tidy(who)),
            Due::Align(who) => self.of(who, |world| world.align(who.at)),
            Due::Desk(who, feed) => self.of(who, |world| world.desk(who.at, feed)),
            Due::Serve(who, session, call) => {
                self.of(who, |world| world.serve(who.at, session, call))
            }
            Due::Alive(session) => self.alive(session),
            Due::Step(step) => self.take_step(step)?,
        })
    }

    /// Does something to a member that has not been started anew meanwhile.
    fn of(&mut self, who: Who, act: impl FnOnce(&mut Self)) -> Option<usize> {
        self.runs(who).then(|| {
            self.set_clock(who.at);
            act(self);
            who.at
        })
    }

    pub(crate) fn set_clock(&self, at: usize) {
        if let Some(member) = self.members.get(at) {
            member.at(self.now);
        }
    }

    /// Whether this start of the member's node still runs.
    pub(crate) fn runs(&self, who: Who) -> bool {
        let member = self.members.get(who.at);
        member.is_some_and(|m| m.incarnation == who.incarnation && m.run.is_some())
    }

    /// The member's node as it runs now.
    pub(crate) fn who(&self, at: usize) -> Option<Who> {
        let member = self.members.get(at).filter(|m| m.run.is_some())?;
        Some(Who {
            at,
            incarnation: member.incarnation,
        })
    }

    pub(crate) fn running(&mut self, at: usize) -> Option<&mut Running> {
        self.members.get_mut(at)?.run.as_mut()
    }

    /// The number of a member, for the trace.
    pub(crate) fn number(&self, at: usize) -> u32 {
        self.members.get(at).map_or(0, |member| member.number)
    }

    /// Whether two members cannot reach each other.
    pub(crate) fn parted(&self, one: usize, other: usize) -> bool {
        let (one, other) = (self.sides.get(one), self.sides.get(other));
        one != other && ![one, other].contains(&Some(&EVERYWHERE))
    }

    /// The way between two members, always the same.
    pub(crate) fn latency(&self, one: usize, other: usize) -> u64 {
        let (low, high) = (one.min(other) as u64, one.max(other) as u64);
        let mixed = (low.wrapping_mul(0x9E37_79B9) ^ high.wrapping_mul(0x85EB_CA6B) ^ self.seed)
            .wrapping_mul(0x2545_F491_4F6C_DD1D);
        5 + (mixed >> 33) % 75
    }
}

/// Whether something is under way because of it: signs of life, looks at the time and
/// dials that fail go on for ever.
const fn is_work(due: &Due) -> bool {
    match due {
        Due::Connected(_)
        | Due::Deliver(..)
        | Due::Gone(..)
        | Due::Resume(..)
        | Due::Tell(_)
        | Due::Align(_)
        | Due::Desk(..)
        | Due::Serve(..)
        | Due::Step(_) => true,
        Due::Dial(..) | Due::Wake(..) | Due::Tidy(_) | Due::Alive(_) => false,
    }
}
