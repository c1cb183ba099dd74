//! What a simulated member's driver wants done, carried out in virtual time; and what
//! its node changed, told to its driver and to whoever watches it.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hashpact_core::puller::{JobId, PeerId};
use hashpact_node::hub::Change;
use hashpact_node::quarantine::RECHECK;
use hashpact_store::RecheckBudget;
use tokio::sync::broadcast::error::TryRecvError;

use super::SimError;
use super::calls::{Message, Waiting};
use super::member::Job;
use super::sessions::{CALLEE, CALLER, SessionId};
use super::world::{Due, Who, World};
use crate::error::NetError;
use crate::exchange::errand::Errand;
use crate::exchange::fork::Search;
use crate::exchange::hands::{DESK_REST_MS, QUIET_MS};
use crate::exchange::inside::Done;
use crate::exchange::pipeline::Order;
use crate::exchange::storing::{self, Desk};
use crate::service::Call;
use crate::types::PullRequest;

/// Between looks at what only time changes; a real node looks ten times as often.
const TIDY_MS: u64 = 5_000;
/// Between looks at who may be dialled, where nothing has changed but the time.
const LOOK_AGAIN_MS: u64 = 60_000;
/// What the disk takes for an order, at most.
const DISK_MS: u64 = 8;

impl World {
    /// Lets a member's driver and watches catch up with what happened.
    pub(crate) fn settle(&mut self, at: usize) -> Result<(), SimError> {
        let mut rounds = 0_u32;
        while self.take_changes(at) | self.take_done(at) | self.take_errands(at) {
            rounds = rounds.saturating_add(1);
            if rounds > 10_000 {
                return Err(SimError::new(format!("member {at} never comes to rest")));
            }
        }
        self.wake_when_asked(at);
        Ok(())
    }

    fn take_changes(&mut self, at: usize) -> bool {
        let Some(running) = self.running(at) else {
            return false;
        };
        let mut changes: Vec<Option<Change>> = Vec::new();
        loop {
            match running.changes.try_recv() {
                Ok(change) => changes.push(Some(change)),
                Err(TryRecvError::Lagged(_)) => changes.push(None),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        // What is said twice in one moment changes nothing.
        changes.dedup();
        for change in &changes {
            running.driver.changed(*change);
        }
        let aligns = |change: &Option<Change>| match change {
            Some(
                Change::Head(_)
                | Change::Evidence(_)
                | Change::Equivocation
                | Change::Receipt(_)
                | Change::Overdue
                | Change::Cosigned(..)
                | Change::RosterWord,
            ) => false,
            Some(Change::Roster | Change::Card(_) | Change::Suspension | Change::Access) | None => {
                true
            }
        };
        if changes.iter().any(aligns) {
            self.align_soon(at);
        }
        if changes.is_empty() {
            return false;
        }
        for (id, end) in self.ends_of(at) {
            let end = self.sessions.get_mut(&id).and_then(|s| s.end_mut(end));
            if let Some(telling) = end.and_then(|end| end.telling.as_mut()) {
                for change in &changes {
                    telling.changed(*change);
                }
            }
        }
        self.tell_soon(at);
        true
    }

    fn take_done(&mut self, at: usize) -> bool {
        let Some(running) = self.running(at) else {
            return false;
        };
        let done = running.take_done();
        let any = !done.is_empty();
        for done in done {
            if let Done::Dropped { feed } = &done {
                running.desks.remove(feed);
            }
            running.driver.take(done);
        }
        any
    }

    fn take_errands(&mut self, at: usize) -> bool {
        let Some(running) = self.running(at) else {
            return false;
        };
        let errands = running.driver.errands();
        let any = !errands.is_empty();
        for errand in errands {
            self.carry_out(at, errand);
        }
        any
    }

    fn carry_out(&mut self, at: usize, errand: Errand) {
        match errand {
            Errand::Pull { peer, order } => self.pull(at, peer, order),
            Errand::CancelPull { job } => self.cancel(at, job),
            Errand::Desk {
                feed,
                publisher,
                own,
                order,
            } => {
                let now = self.now;
                let Some(running) = self.running(at) else {
                    return;
                };
                let (node, done) = (Arc::clone(&running.node), Arc::clone(&running.done));
                let rooms = Arc::clone(&running.rooms);
                let (desk, used) = running.desks.entry(feed).or_insert_with(|| {
                    let tell = move |report| {
                        done.lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(report);
                    };
                    (Desk::new(node, feed, publisher, own, rooms, tell), now)
                });
                *used = now;
                if desk.queue_order(order) {
                    self.run_desk(at, feed);
                }
            }
            Errand::AskRoster { peer, from } => {
                if let Some(session) = self.link(at, peer) {
                    self.ask_roster_from(session, from, Waiting::Roster);
                }
            }
            Errand::Prove(case) => {
                let Some(running) = self.running(at) else {
                    return;
                };
                let links = running.links.values().filter_map(|ways| ways.last());
                let links: Vec<SessionId> = links.copied().collect();
                let feed = case.feed;
                match Search::begin(&running.node, *case) {
                    Some(search) => self.seek_proof(at, search, links),
                    None => running.driver.take(Done::Sought { feed }),
                }
            }
            Errand::Extend { job, peer, request } => self.extend(at, job, peer, &request),
            Errand::OpenOwnEpochs => {
                if let Some(running) = self.running(at)
                    && let Err(error) = running.node.publisher().open_epochs()
                {
                    tracing::error!(%error, code = error.code(), "opening an epoch of an own set");
                }
            }
            Errand::RecheckConflicts => {
                // By pages alone: how long a disk takes is no part of a trace.
                let budget = RecheckBudget {
                    time: Duration::MAX,
                    ..RECHECK
                };
                if let Some(running) = self.running(at)
                    && let Err(error) = running
                        .node
                        .follow_conflicts(&budget)
                        .and_then(|()| running.node.follow_frames())
                {
                    tracing::error!(%error, code = error.code(), "looking at conflicts of digests");
                }
            }
            Errand::Cut { peer } => {
                if let Some(session) = self.link(at, peer) {
                    self.cut(session, at);
                }
            }
        }
    }

    fn run_desk(&mut self, at: usize, feed: hashpact_core::id::FeedId) {
        let wait = self.dice.between(1, DISK_MS);
        if let Some(who) = self.who(at) {
            self.later(wait, Due::Desk(who, feed));
        }
    }

    fn link(&mut self, at: usize, peer: PeerId) -> Option<SessionId> {
        self.running(at)?.links.get(&peer)?.last().copied()
    }

    fn pull(&mut self, at: usize, peer: PeerId, order: Order) {
        let (job, request, now) = (order.job, order.request(), self.now);
        let waiting = Waiting::Pull(Box::new(order));
        let session = self.link(at, peer);
        let call = session.and_then(|session| {
            let call = self.ask_pull(session, &request, waiting)?;
            Some((session, call))
        });
        let Some(running) = self.running(at) else {
            return;
        };
        match call {
            Some((_, call)) => {
                let began = now;
                running.jobs.insert(job, Job { call, began });
            }
            None => {
                let error = NetError::Closed("no connection".to_owned());
                running.driver.take(Done::PullFailed { job, error });
            }
        }
    }

    /// Asks for a proof; where nobody can be asked, that is the answer.
    fn extend(&mut self, at: usize, job: JobId, peer: PeerId, request: &PullRequest) {
        let session = self.link(at, peer);
        let waiting = Waiting::Extension(job, None);
        let asked = session.and_then(|session| self.ask_pull(session, request, waiting));
        if asked.is_none()
            && let Some(running) = self.running(at)
        {
            let answer = None;
            running.driver.take(Done::Extended { job, answer });
        }
    }

    fn cancel(&mut self, at: usize, job: JobId) {
        let Some(running) = self.running(at) else {
            return;
        };
        let call = running.jobs.remove(&job).map(|job| job.call);
        if let Some(call) = call
            && let Some((session, _)) = running.calls.remove(&call)
        {
            self.send(session, CALLER, Message::Cancel(call));
        }
    }

    fn wake_when_asked(&mut self, at: usize) {
        let Some(who) = self.who(at) else { return };
        let Some(now) = self.members.get(at).map(|m| m.at(self.now)) else {
            return;
        };
        let moment = self.now;
        let Some(running) = self.running(at) else {
            return;
        };
        let wake = running.driver.wake();
        let wake = wake.map(|wake| moment.saturating_add(wake.since(now).max(1)));
        if wake != running.wake {
            running.wake = wake;
            if let Some(wake) = wake {
                self.later(wake.saturating_sub(moment), Due::Wake(who, wake));
            }
        }
    }

    /// Tells the driver of the time, if it still wants to know.
    pub(crate) fn wake(&mut self, at: usize, wake: u64) {
        if let Some(running) = self.running(at)
            && running.wake == Some(wake)
        {
            running.wake = None;
            running.driver.tick();
        }
    }

    pub(crate) fn desk(&mut self, at: usize, feed: hashpact_core::id::FeedId) {
        if let Some(running) = self.running(at)
            && let Some((desk, _)) = running.desks.get(&feed)
        {
            desk.run_until(|| false);
        }
    }

    /// Looks at what only time changes.
    pub(crate) fn tidy(&mut self, who: Who) {
        self.later(TIDY_MS, Due::Tidy(who));
        let (at, now) = (who.at, self.now);
        let Some(running) = self.running(at) else {
            return;
        };
        let mut to_run = Vec::new();
        running.desks.retain(|feed, (desk, used)| {
            let idle = now.saturating_sub(*used) >= DESK_REST_MS;
            if idle
                && !desk.is_at_rest()
                && desk.is_quiet()
                && desk.queue_order(storing::Order::Rest)
            {
                to_run.push(*feed);
            }
            !idle || !desk.is_at_rest()
        });
        let quiet = |job: &&Job| now.saturating_sub(job.began) >= QUIET_MS;
        let jobs = running.jobs.iter();
        let jobs: Vec<JobId> = jobs
            .filter(|(_, job)| quiet(job))
            .map(|(id, _)| *id)
            .collect();
        for job in jobs {
            running.driver.quiet(job);
        }
        running.driver.tidy();
        for feed in to_run {
            self.run_desk(at, feed);
        }
        if now % LOOK_AGAIN_MS < TIDY_MS {
            self.align_soon(at);
        }
    }

    pub(crate) fn align_soon(&mut self, at: usize) {
        let Some(who) = self.who(at) else { return };
        if let Some(running) = self.running(at)
            && !std::mem::replace(&mut running.align_due, true)
        {
            self.later(1, Due::Align(who));
        }
    }

    pub(crate) fn tell_soon(&mut self, at: usize) {
        let Some(who) = self.who(at) else { return };
        if let Some(running) = self.running(at)
            && !std::mem::replace(&mut running.tell_due, true)
        {
            self.later(1, Due::Tell(who));
        }
    }

    /// Everybody who watches a member is told what there is to tell.
    pub(crate) fn tell(&mut self, at: usize) {
        if let Some(running) = self.running(at) {
            running.tell_due = false;
        }
        for (id, end) in self.ends_of(at) {
            let telling = self.sessions.get_mut(&id).and_then(|s| s.end_mut(end));
            let Some(mut telling) = telling.and_then(|end| end.telling.take()) else {
                continue;
            };
            let ended = loop {
                match telling.next_now() {
                    Ok(Some(said)) => {
                        if end == CALLEE && self.admit(id, Call::Watch).is_err() {
                            break true;
                        }
                        self.say(id, end, said);
                    }
                    Ok(None) => break false,
                    Err(_) => break true,
                }
            };
            if ended {
                self.cut(id, at);
            } else if let Some(end) = self.sessions.get_mut(&id).and_then(|s| s.end_mut(end)) {
                end.telling = Some(telling);
            }
        }
    }

    /// The ends of sessions at which a member's node stands.
    fn ends_of(&self, at: usize) -> Vec<(SessionId, usize)> {
        let running = self.members.get(at).and_then(|m| m.run.as_ref());
        running.map_or_else(Vec::new, |running| running.ends.iter().copied().collect())
    }
}
