//! Connections between simulated members: who dials whom, who may, and what happens
//! at their ends. Who is dialled, who is let in and what a greeting means is the real
//! node's decision; only the wire is made up.

use std::sync::Arc;

use hashpact_core::puller::Waits;

use super::calls::{Body, Message, Waiting};
use super::world::{Due, Who, World};
use crate::exchange::announce::Telling;
use crate::exchange::inbox::{Heard, Said};
use crate::exchange::targets;
use crate::peer::{Expected, PeerDirectory as _, PeerIdentity};

/// Names a session: one connection, from its handshake to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(crate) u64);

/// What a connection is dialled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// To call on it.
    Call,
    /// To be called on it: the member opens no port.
    Reverse,
    /// To read the roster of whoever answers: no card is known yet.
    Stranger,
}

/// What a dial loop is for: whom, by its place, and what for.
pub(crate) type LoopKey = (usize, Kind);

/// Keeps a connection with one node, one after the other.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Loop {
    failures: u32,
}

/// The end of a session that calls, and the one that is called.
pub(crate) const CALLER: usize = 0;
pub(crate) const CALLEE: usize = 1;

/// One end of a session.
pub(crate) struct End {
    pub(crate) who: Who,
    /// Whom it met.
    pub(crate) met: PeerIdentity,
    pub(crate) open: bool,
    /// What it tells the other on the watch.
    pub(crate) telling: Option<Telling>,
    /// Whether its driver heard that a watch began.
    pub(crate) heard: bool,
    /// Nothing reaches it earlier: what is sent in order arrives in order.
    clear: u64,
}

/// One connection.
pub(crate) struct Session {
    dialler: usize,
    key: LoopKey,
    began: u64,
    pub(crate) ends: [End; 2],
    /// Whether the caller's driver was told of it.
    linked: bool,
    /// Nothing comes through any more: a partition was between its ends.
    broken: bool,
}

impl Session {
    pub(crate) fn end(&self, end: usize) -> Option<&End> {
        self.ends.get(end).filter(|end| end.open)
    }

    pub(crate) fn end_mut(&mut self, end: usize) -> Option<&mut End> {
        self.ends.get_mut(end).filter(|end| end.open)
    }
}

/// A refused or unanswered dial takes so long.
const REFUSED_MS: u64 = 50;
const UNANSWERED_MS: u64 = 5_000;
/// A connection of which nothing comes is given up after so long, and some.
const SILENCE_MS: u64 = 20_000;
/// A session that lasted so long was a good one.
const GOOD_MS: u64 = 10_000;
/// Signs of life, as on a real watch.
const ALIVE_MS: u64 = 10_000;
/// A retransmission.
const LATE_MS: u64 = 200;

impl World {
    /// Begins and ends dial loops, and cuts what may not stand.
    pub(crate) fn align(&mut self, at: usize) {
        let Some(running) = self.running(at) else {
            return;
        };
        running.align_due = false;
        let (wanted, rows) = targets::targets(&running.node, &running.snapshots);
        running.board.plan(rows);
        let places = wanted.keys().map(|(member, _)| member.value());
        let places: Vec<usize> = places
            .filter_map(|number| usize::try_from(number).ok()?.checked_sub(1))
            .collect();
        let reverse = self.members.get(at).is_some_and(|m| !m.card.listens);
        let mut keys = Vec::new();
        for place in places {
            keys.push((place, Kind::Call));
            if reverse {
                keys.push((place, Kind::Reverse));
            }
        }
        let Some(running) = self.running(at) else {
            return;
        };
        let stays = |key: &LoopKey| key.1 == Kind::Stranger || keys.contains(key);
        let gone: Vec<LoopKey> = running
            .loops
            .keys()
            .filter(|k| !stays(k))
            .copied()
            .collect();
        running.loops.retain(|key, _| stays(key));
        keys.retain(|key| !running.loops.contains_key(key));
        for key in keys {
            self.begin_loop(at, key);
        }
        let unfit = self.unfit(at, &gone);
        for session in unfit {
            self.cut(session, at);
        }
    }

    /// Sessions of a member whose loop ended, or whose peer may not stand.
    fn unfit(&self, at: usize, gone: &[LoopKey]) -> Vec<SessionId> {
        let Some(running) = self.members.get(at).and_then(|m| m.run.as_ref()) else {
            return Vec::new();
        };
        let is_unfit = |(id, end): &&(SessionId, usize)| {
            let Some(session) = self.sessions.get(id) else {
                return false;
            };
            if session.dialler == at && gone.contains(&session.key) {
                return true;
            }
            session.end(*end).is_some_and(|end| {
                session.key.1 != Kind::Stranger
                    && !targets::may_stand(&running.node, &running.snapshots, &end.met)
            })
        };
        let unfit = running.ends.iter().filter(is_unfit);
        unfit.map(|(id, _)| *id).collect()
    }

    pub(crate) fn begin_loop(&mut self, at: usize, key: LoopKey) {
        let Some(who) = self.who(at) else { return };
        if let Some(running) = self.running(at) {
            running.loops.insert(key, Loop::default());
        }
        let wait = self.dice.below(20);
        self.later(wait, Due::Dial(who, key));
    }

    /// Dials, if the loop still runs.
    pub(crate) fn dial(&mut self, who: Who, key: LoopKey) {
        let at = who.at;
        if !self.running(at).is_some_and(|r| r.loops.contains_key(&key)) {
            return;
        }
        let (peer, kind) = key;
        let Some(other) = self.who(peer).filter(|_| !self.parted(at, peer)) else {
            let took = if self.parted(at, peer) {
                UNANSWERED_MS
            } else {
                REFUSED_MS
            };
            return self.again(who, key, None, took);
        };
        let (Some(met), Some(met_by)) = (self.meets(at, peer, kind), self.meets(peer, at, kind))
        else {
            self.trace
                .add(self.now, &format_args!("{at} refused by {peer}"));
            return self.again(who, key, None, REFUSED_MS);
        };
        let end = |who, met| End {
            who,
            met,
            open: true,
            telling: None,
            heard: false,
            clear: 0,
        };
        let ends = match kind {
            Kind::Call | Kind::Stranger => [end(who, met), end(other, met_by)],
            Kind::Reverse => [end(other, met_by), end(who, met)],
        };
        self.next_session = self.next_session.saturating_add(1);
        let id = SessionId(self.next_session);
        let session = Session {
            dialler: at,
            key,
            began: self.now,
            ends,
            linked: false,
            broken: false,
        };
        for (end, of) in session.ends.iter().enumerate() {
            if let Some(running) = self.running(of.who.at) {
                running.ends.insert((id, end));
            }
        }
        self.sessions.insert(id, session);
        // TCP, and TLS with both certificates.
        let handshake = self.latency(at, peer).saturating_mul(4);
        self.later(handshake, Due::Connected(id));
    }

    /// Whom one member takes another for in a handshake; `None` where it refuses.
    fn meets(&self, one: usize, other: usize, kind: Kind) -> Option<PeerIdentity> {
        let met = self.members.get(other)?;
        let key = super::coalition::tls_digest(self.seed, met.number, met.tls).ok()?;
        let running = self.members.get(one)?.run.as_ref()?;
        let number = super::coalition::member(met.number).ok()?;
        let node = super::coalition::node_name().ok()?;
        self.set_clock(one);
        match running.directory.peer_of(&key) {
            Some(peer) => Expected::Node(number, node).is(&peer).then_some(peer),
            // A stranger is gone on with as far as the roster.
            None if kind == Kind::Stranger => Some(PeerIdentity {
                member: number,
                slug: met.slug.clone(),
                node,
                status: crate::peer::PeerStatus::Suspended,
                tls_key: key,
            }),
            None => None,
        }
    }

    /// A handshake is done: the caller begins.
    pub(crate) fn connected(&mut self, id: SessionId) -> Option<usize> {
        let session = self.sessions.get(&id)?;
        let (key, caller) = (session.key, session.end(CALLER)?.who);
        let alive = session.ends.iter().all(|end| self.runs(end.who));
        if !alive || self.parted(session.dialler, key.0) {
            let dialler = session.dialler;
            self.cut(id, dialler);
            return Some(dialler);
        }
        let line = format!("session {} {key:?}", id.0);
        self.trace.add(self.now, &line);
        self.set_clock(caller.at);
        match key.1 {
            Kind::Stranger => self.ask_roster(id, Waiting::Stranger),
            Kind::Reverse if !self.may_be_called(id) => self.cut(id, caller.at),
            Kind::Reverse | Kind::Call => self.greet(id),
        }
        Some(caller.at)
    }

    /// PROTOCOL 15.2: nothing is asked of a member that is not active.
    fn may_be_called(&self, id: SessionId) -> bool {
        let Some(end) = self.sessions.get(&id).and_then(|s| s.end(CALLER)) else {
            return false;
        };
        let running = self.members.get(end.who.at).and_then(|m| m.run.as_ref());
        let snapshot = running.and_then(|r| r.snapshots.newest());
        snapshot.is_some_and(|s| s.may_connect(end.met.member)) && end.met.status.is_active()
    }

    /// The greeting is over: the peer can be called, and is watched.
    pub(crate) fn open(&mut self, id: SessionId) {
        let Some((who, met)) = self.end_of(id, CALLER) else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.linked = true;
        }
        if let Some(running) = self.running(who.at) {
            let peer = running.driver.peer_id(&met);
            let ways = running.links.entry(peer).or_default();
            ways.push(id);
            if ways.len() == 1 {
                running.driver.link_up(&met);
            }
            let key = (met.member, met.node.clone());
            running.board.tried(&key);
            running.board.peer(&key, |row| row.state = "connected");
        }
        self.request(id, Body::Watch, Waiting::Watch);
        self.begin_telling(id, CALLER);
        let wait = self.dice.between(ALIVE_MS / 2, ALIVE_MS);
        self.later(wait, Due::Alive(id));
    }

    /// From here on an end tells the other what that may see.
    pub(crate) fn begin_telling(&mut self, id: SessionId, end: usize) {
        let Some((who, met)) = self.end_of(id, end) else {
            return;
        };
        let Some(running) = self.running(who.at) else {
            return;
        };
        let (node, snapshots) = (Arc::clone(&running.node), Arc::clone(&running.snapshots));
        let telling = Telling::new(node, snapshots, met.member);
        if let Some(end) = self.sessions.get_mut(&id).and_then(|s| s.end_mut(end)) {
            end.telling = Some(telling);
        }
        self.tell_soon(who.at);
    }

    /// An end's driver hears something of the other.
    pub(crate) fn hear(&mut self, id: SessionId, end: usize, said: Said) {
        let Some((who, peer)) = self.end_of(id, end) else {
            return;
        };
        if let Said::Began = said
            && let Some(end) = self.sessions.get_mut(&id).and_then(|s| s.end_mut(end))
        {
            end.heard = true;
        }
        if let Some(running) = self.running(who.at) {
            running.driver.hear(Heard::new(peer, said));
        }
    }

    /// Both ends of a watch give signs of life.
    pub(crate) fn alive(&mut self, id: SessionId) -> Option<usize> {
        use crate::types::Announcement;
        let session = self.sessions.get(&id)?;
        let caller = session.end(CALLER)?.who.at;
        for end in [CALLER, CALLEE] {
            let tells = self.sessions.get(&id).and_then(|s| s.end(end));
            let tells = tells.filter(|end| end.telling.is_some()).map(|end| end.who);
            let member = tells.filter(|who| self.runs(*who));
            if let Some(member) = member.and_then(|who| self.members.get(who.at)) {
                let clock = member.at(self.now);
                self.say(id, end, Announcement::Alive { clock });
            }
        }
        self.later(ALIVE_MS, Due::Alive(id));
        Some(caller)
    }

    /// Sends a message from an end of a session to the other.
    pub(crate) fn send(&mut self, id: SessionId, from: usize, message: Message) {
        let to = CALLER + CALLEE - from;
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let (Some(here), Some(there)) = (session.end(from), session.ends.get(to)) else {
            return;
        };
        let (sender, receiver, clear) = (here.who.at, there.who.at, there.clear);
        let broken = session.broken;
        self.cost.sent(sender, &message);
        if broken || self.parted(sender, receiver) {
            return; // lost; the silence will be noticed
        }
        if self.dice.below(10_000) < self.weather.cut_per_10_000 {
            return self.cut(id, sender);
        }
        let mut wait = self.latency(sender, receiver) + self.dice.below(5);
        wait = wait.saturating_add(message.transit_ms());
        if self.dice.happens(self.weather.late_per_mille) {
            wait = wait.saturating_add(LATE_MS);
        }
        let arrives = self.now.saturating_add(wait).max(clear);
        if let Some(end) = self.sessions.get_mut(&id).and_then(|s| s.ends.get_mut(to)) {
            end.clear = arrives;
        }
        let wait = arrives.saturating_sub(self.now);
        self.later(wait, Due::Deliver(id, to, message));
    }

    /// Ends a session from one side; the other notices when it can.
    pub(crate) fn cut(&mut self, id: SessionId, by: usize) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let places = [CALLER, CALLEE].map(|end| session.ends.get(end).map(|e| (end, e.who.at)));
        for (end, at) in places.into_iter().flatten() {
            if at == by {
                self.end_here(id, end);
            } else {
                let wait = if self.parted(by, at) {
                    SILENCE_MS + self.dice.below(SILENCE_MS / 2)
                } else {
                    self.latency(by, at)
                };
                self.later(wait, Due::Gone(id, end));
            }
        }
    }

    /// A partition has begun: both ends notice after a silence.
    pub(crate) fn break_apart(&mut self) {
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            let Some(session) = self.sessions.get(&id) else {
                continue;
            };
            let [one, other] = &session.ends;
            if self.parted(one.who.at, other.who.at) {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.broken = true;
                }
                for end in [CALLER, CALLEE] {
                    let wait = SILENCE_MS + self.dice.below(SILENCE_MS / 2);
                    self.later(wait, Due::Gone(id, end));
                }
            }
        }
    }

    /// A node is gone without a word.
    pub(crate) fn crashed(&mut self, at: usize) {
        let ends = self.running(at).map(|running| running.ends.clone());
        for (id, _) in ends.unwrap_or_default() {
            self.cut(id, at);
        }
    }

    /// An end notices that the session is over.
    pub(crate) fn gone(&mut self, id: SessionId, end: usize) -> Option<usize> {
        let who = self.sessions.get(&id)?.end(end)?.who;
        self.set_clock(who.at);
        self.end_here(id, end);
        Some(who.at)
    }

    fn end_here(&mut self, id: SessionId, end: usize) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let (linked, dialler, key, began) =
            (session.linked, session.dialler, session.key, session.began);
        let Some(here) = session.end_mut(end) else {
            return;
        };
        here.open = false;
        here.telling = None;
        let (who, met, heard) = (here.who, here.met.clone(), here.heard);
        if session.ends.iter().all(|end| !end.open) {
            self.sessions.remove(&id);
        }
        self.pacing.forget((id, end));
        if !self.runs(who) {
            return;
        }
        if let Some(running) = self.running(who.at) {
            running.ends.remove(&(id, end));
        }
        self.trace
            .add(self.now, &format_args!("{} left by {}", id.0, who.at));
        if heard && let Some(running) = self.running(who.at) {
            let (peer, said) = (met.clone(), Said::Ended);
            running.driver.hear(Heard::new(peer, said));
        }
        self.drop_calls(who.at, id);
        if end == CALLER
            && linked
            && let Some(running) = self.running(who.at)
        {
            let peer = running.driver.peer_id(&met);
            let ways = running.links.entry(peer).or_default();
            ways.retain(|way| *way != id);
            if ways.is_empty() {
                running.links.remove(&peer);
                running.driver.link_down(&met);
                if key.1 == Kind::Reverse {
                    let of = (met.member, met.node.clone());
                    running.board.peer(&of, |row| row.state = "no endpoint");
                }
            }
        }
        if who.at == dialler {
            self.again(who, key, Some(began), 0);
        }
    }

    /// Dials again after a while, if the loop still runs.
    fn again(&mut self, who: Who, key: LoopKey, began: Option<u64>, took: u64) {
        let now = self.now;
        let good = began.is_some_and(|began| now.saturating_sub(began) >= GOOD_MS);
        let Some(looped) = self.running(who.at).and_then(|r| r.loops.get_mut(&key)) else {
            return;
        };
        looped.failures = if good {
            0
        } else {
            looped.failures.saturating_add(1)
        };
        let failures = looped.failures;
        self.show_failed(who.at, key.0);
        let span = Waits::default().span_ms(failures);
        let wait = self.dice.below(span.saturating_add(1));
        self.later(took.saturating_add(wait), Due::Dial(who, key));
    }

    /// A dial failed, or its session ended.
    fn show_failed(&mut self, at: usize, peer: usize) {
        let now = self.members.get(at).map(|member| member.at(self.now));
        let number = super::coalition::member(self.number(peer));
        let (Some(now), Ok(member), Ok(node)) = (now, number, super::coalition::node_name()) else {
            return;
        };
        if let Some(running) = self.running(at) {
            let key = (member, node);
            running.board.tried(&key);
            running.board.dial_failed(&key, now);
            running.board.peer(&key, |row| row.state = "backing off");
        }
    }

    /// Who stands at an end of a session that is open, and whom it met.
    pub(crate) fn end_of(&self, id: SessionId, end: usize) -> Option<(Who, PeerIdentity)> {
        let end = self.sessions.get(&id)?.end(end)?;
        Some((end.who, end.met.clone()))
    }
}
