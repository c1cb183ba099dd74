//! The four calls between simulated members: the real messages, encoded, counted and
//! decoded as on the wire. Who is called answers in [`called`](super::called); what the
//! answers mean stands in [`calling`](super::calling).

use std::sync::Arc;

use hashpact_core::chunk::ProofParts;
use hashpact_core::puller::JobId;

use super::member::Running;
use super::sessions::{CALLER, SessionId};
use super::world::{Who, World};
use crate::error::NetError;
use crate::exchange::fork::Search;
use crate::exchange::inside::Done;
use crate::exchange::pipeline::Order;
use crate::exchange::serve::node_info;
use crate::exchange::served::Pull;
use crate::peer::PeerIdentity;
use crate::service::ServiceError;
use crate::types::{Announcement, PullRequest};
use crate::wire;
use bytes::Bytes;

/// Names a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CallId(pub(crate) u64);

/// What travels.
#[derive(Debug)]
pub(crate) enum Message {
    /// A call begins.
    Request(CallId, Body),
    /// A message of its answer.
    Answer(CallId, Bytes),
    /// Its end.
    Ended(CallId, Result<(), ServiceError>),
    /// The caller wants no more of it.
    Cancel(CallId),
    /// An announcement, on the watch of the session.
    Said(Bytes),
}

/// What a call asks.
#[derive(Debug)]
pub(crate) enum Body {
    Hello(Bytes),
    Roster(Bytes),
    Watch,
    Pull(Bytes),
}

/// What waits for an answer.
pub(crate) enum Waiting {
    /// The greeting.
    Hello,
    /// The roster, because the greeting showed a newer one.
    Greeting,
    /// The roster, because an announcement named a newer one.
    Roster,
    /// The roster, because no watch is let in.
    Inactive,
    /// The roster of a stranger.
    Stranger,
    /// The watch.
    Watch,
    /// Leaves.
    Pull(Box<Order>),
    /// The proof of a fork, and whom else to ask.
    Proof(Box<Search>, Vec<SessionId>),
    /// A proof for the witness, once it came.
    Extension(JobId, Option<ProofParts>),
}

/// A pull that is answered.
pub(crate) struct Serving {
    pub(super) session: SessionId,
    pub(super) pull: Arc<Pull>,
    pub(super) request: PullRequest,
    /// The first leaf that was not read yet.
    pub(super) from: u64,
}

pub(super) fn encoded(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}

impl World {
    /// The node at an end of a session, and whom it met there; `None` where the end is
    /// gone or the node does not run.
    pub(super) fn stands(
        &mut self,
        session: SessionId,
        end: usize,
    ) -> Option<(Who, PeerIdentity, &mut Running)> {
        let (who, met) = self.end_of(session, end)?;
        Some((who, met, self.running(who.at)?))
    }

    /// Makes a call; answers its name.
    pub(crate) fn request(
        &mut self,
        session: SessionId,
        body: Body,
        waiting: Waiting,
    ) -> Option<CallId> {
        self.next_call = self.next_call.saturating_add(1);
        let call = CallId(self.next_call);
        let (_, _, running) = self.stands(session, CALLER)?;
        running.calls.insert(call, (session, waiting));
        self.send(session, CALLER, Message::Request(call, body));
        Some(call)
    }

    pub(crate) fn greet(&mut self, session: SessionId) {
        if let Some((_, _, running)) = self.stands(session, CALLER) {
            let info = node_info(&running.node);
            let node = Some((&info).into());
            let hello = Body::Hello(encoded(&wire::HelloRequest { node }));
            self.request(session, hello, Waiting::Hello);
        }
    }

    /// Asks for what the peer knows of rosters after ours, of cards and suspensions.
    pub(crate) fn ask_roster(&mut self, session: SessionId, waiting: Waiting) {
        if let Some((_, _, running)) = self.stands(session, CALLER) {
            let from = node_info(&running.node).roster_version.saturating_add(1);
            self.ask_roster_from(session, from, waiting);
        }
    }

    pub(crate) fn ask_roster_from(&mut self, session: SessionId, from: u64, waiting: Waiting) {
        let request = wire::GetRosterRequest { from_version: from };
        self.request(session, Body::Roster(encoded(&request)), waiting);
    }

    pub(crate) fn ask_pull(
        &mut self,
        session: SessionId,
        request: &PullRequest,
        waiting: Waiting,
    ) -> Option<CallId> {
        let body = Body::Pull(encoded(&wire::PullRequest::from(request)));
        self.request(session, body, waiting)
    }

    /// An end announces something, or what its member says in place of it.
    pub(crate) fn say(&mut self, session: SessionId, end: usize, said: Announcement) {
        let way = self.way(session, end);
        for said in self.meddle(way, vec![said], |m, way, said| m.says(way, said)) {
            self.say_plainly(session, end, said);
        }
    }

    /// A message arrives.
    pub(crate) fn deliver(
        &mut self,
        session: SessionId,
        end: usize,
        message: Message,
    ) -> Option<usize> {
        let (who, _) = self.end_of(session, end)?;
        if !self.runs(who) {
            return None;
        }
        self.set_clock(who.at);
        self.trace_delivery(session, who.at, &message);
        match message {
            Message::Request(call, body) => self.asked(session, call, body),
            Message::Answer(call, bytes) => self.answered(session, call, bytes),
            Message::Ended(call, result) => self.ended(session, call, result),
            Message::Cancel(call) => {
                if let Some(running) = self.running(who.at) {
                    running.serving.remove(&call);
                }
            }
            Message::Said(bytes) => self.said(session, end, bytes),
        }
        Some(who.at)
    }

    fn trace_delivery(&mut self, session: SessionId, at: usize, message: &Message) {
        use hashpact_core::id::Digest;
        let id = session.0;
        let (what, call, bytes) = match message {
            Message::Request(call, Body::Hello(bytes)) => ("hello", call.0, bytes.clone()),
            Message::Request(call, Body::Roster(bytes)) => ("roster", call.0, bytes.clone()),
            Message::Request(call, Body::Watch) => ("watch", call.0, Bytes::new()),
            Message::Request(call, Body::Pull(bytes)) => ("pull", call.0, bytes.clone()),
            Message::Answer(call, bytes) => ("answer", call.0, bytes.clone()),
            Message::Ended(call, Ok(())) => ("ended", call.0, Bytes::new()),
            Message::Ended(call, Err(error)) => (
                "failed",
                call.0,
                Bytes::from_static(error.code().as_bytes()),
            ),
            Message::Cancel(call) => ("cancel", call.0, Bytes::new()),
            Message::Said(bytes) => ("said", 0, bytes.clone()),
        };
        let digest = Digest::of(&bytes).short();
        self.trace
            .add(self.now, &format_args!("{id} {at} {what} {call} {digest}"));
    }

    /// A session is over: what was asked or answered on it ends.
    pub(crate) fn drop_calls(&mut self, at: usize, session: SessionId) {
        let Some(running) = self.running(at) else {
            return;
        };
        running
            .serving
            .retain(|_, serving| serving.session != session);
        let of_session = running.calls.iter().filter(|(_, call)| call.0 == session);
        let calls: Vec<CallId> = of_session.map(|(id, _)| *id).collect();
        for call in calls {
            let Some(running) = self.running(at) else {
                return;
            };
            match running.calls.remove(&call) {
                Some((_, Waiting::Pull(order))) => {
                    let (job, error) = (order.job, NetError::Closed("by the peer".to_owned()));
                    running.jobs.remove(&job);
                    running.driver.take(Done::PullFailed { job, error });
                }
                Some((_, Waiting::Proof(search, rest))) => self.seek_proof(at, *search, rest),
                Some((_, Waiting::Extension(job, _))) => {
                    let answer = None;
                    running.driver.take(Done::Extended { job, answer });
                }
                Some(_) | None => {}
            }
        }
    }
}
