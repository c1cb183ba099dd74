//! The four calls between simulated members: the real messages, encoded, counted and
//! decoded as on the wire, asked and answered by the real node.

use std::sync::Arc;

use hashpact_core::chunk::ProofParts;
use hashpact_core::puller::JobId;

use super::sessions::{CALLEE, CALLER, SessionId};
use super::world::{Due, World};
use crate::error::NetError;
use crate::exchange::fork::Search;
use crate::exchange::inbox::Said;
use crate::exchange::inside::Done;
use crate::exchange::pipeline::{self, Order};
use crate::exchange::serve::{check_node_info, node_info, roster_for};
use crate::exchange::served::{Pull, Reader};
use crate::exchange::{documents_in, targets};
use crate::server;
use crate::service::{Call, ServiceError};
use crate::types::{Announcement, PullPart, PullRequest, RosterItem};
use crate::{codec, convert, status, wire};
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
    session: SessionId,
    pull: Arc<Pull>,
    from: u64,
    to: u64,
}

fn encoded(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}

impl World {
    /// Makes a call; answers its name.
    pub(crate) fn request(
        &mut self,
        session: SessionId,
        body: Body,
        waiting: Waiting,
    ) -> Option<CallId> {
        let (who, _) = self.end_of(session, CALLER)?;
        self.next_call = self.next_call.saturating_add(1);
        let call = CallId(self.next_call);
        let running = self.running(who.at)?;
        running.calls.insert(call, (session, waiting));
        self.send(session, CALLER, Message::Request(call, body));
        Some(call)
    }

    pub(crate) fn greet(&mut self, session: SessionId) {
        let Some((who, _)) = self.end_of(session, CALLER) else {
            return;
        };
        if let Some(running) = self.running(who.at) {
            let info = node_info(&running.node);
            let node = Some((&info).into());
            let hello = Body::Hello(encoded(&wire::HelloRequest { node }));
            self.request(session, hello, Waiting::Hello);
        }
    }

    /// Asks for what the peer knows of rosters after ours, of cards and suspensions.
    pub(crate) fn ask_roster(&mut self, session: SessionId, waiting: Waiting) {
        let Some((who, _)) = self.end_of(session, CALLER) else {
            return;
        };
        if let Some(running) = self.running(who.at) {
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

    /// An end announces something.
    pub(crate) fn say(&mut self, session: SessionId, end: usize, said: Announcement) {
        let message = Message::Said(encoded(&wire::Announcement::from(said)));
        self.send(session, end, message);
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

    fn said(&mut self, session: SessionId, end: usize, bytes: Bytes) {
        let read = codec::decoded::<wire::Announcement>(bytes).and_then(convert::announcement);
        match read {
            Ok(Some(announcement)) => self.hear(session, end, Said::Announced(announcement)),
            Ok(None) => {}
            Err(rejection) => self.hear(session, end, Said::Refused(rejection)),
        }
    }

    // --- The side that is called.

    fn asked(&mut self, session: SessionId, call: CallId, body: Body) {
        let kind = match &body {
            Body::Hello(_) => Call::Hello,
            Body::Roster(_) => Call::Roster,
            Body::Watch => Call::Watch,
            Body::Pull(_) => Call::Pull,
        };
        if let Err(error) = self.admit(session, kind) {
            return self.send(session, CALLEE, Message::Ended(call, Err(error)));
        }
        let end = match body {
            Body::Hello(bytes) => self.hello(session, call, bytes),
            Body::Roster(bytes) => self.roster(session, call, bytes),
            Body::Watch => {
                self.send(session, CALLEE, Message::Answer(call, Bytes::new()));
                self.hear(session, CALLEE, Said::Began);
                return self.begin_telling(session, CALLEE);
            }
            Body::Pull(bytes) => match self.begin_pull(session, call, bytes) {
                Ok(()) => return,
                Err(error) => Err(error),
            },
        };
        self.send(session, CALLEE, Message::Ended(call, end));
    }

    /// Who calls at this moment, and whether it may.
    pub(crate) fn admit(&mut self, session: SessionId, call: Call) -> Result<(), ServiceError> {
        let (who, met) = self
            .end_of(session, CALLEE)
            .ok_or(ServiceError::NotActive)?;
        let running = self.running(who.at).ok_or(ServiceError::Unavailable)?;
        let Some(peer) = server::still(&*running.directory, &met) else {
            self.cut(session, who.at);
            return Err(ServiceError::NotActive);
        };
        if let Some(end) = self
            .sessions
            .get_mut(&session)
            .and_then(|s| s.end_mut(CALLEE))
        {
            end.met = peer.clone();
        }
        if server::may_call(&peer, call) {
            Ok(())
        } else {
            Err(ServiceError::NotActive)
        }
    }

    fn hello(
        &mut self,
        session: SessionId,
        call: CallId,
        bytes: Bytes,
    ) -> Result<(), ServiceError> {
        let (who, met) = self
            .end_of(session, CALLEE)
            .ok_or(ServiceError::Unavailable)?;
        let running = self.running(who.at).ok_or(ServiceError::Unavailable)?;
        let request = codec::decoded::<wire::HelloRequest>(bytes)?;
        let theirs = convert::node_info(request.node)?;
        check_node_info(&running.node, &theirs)?;
        let own = node_info(&running.node);
        let newer = theirs.roster_version > own.roster_version && met.status.is_active();
        let node = Some((&own).into());
        let answer = encoded(&wire::HelloResponse { node });
        self.send(session, CALLEE, Message::Answer(call, answer));
        if newer {
            let said = Announcement::Roster {
                version: theirs.roster_version,
                digest: theirs.roster_digest,
                cosignatures: Vec::new(),
            };
            self.hear(session, CALLEE, Said::Announced(said));
        }
        Ok(())
    }

    fn roster(
        &mut self,
        session: SessionId,
        call: CallId,
        bytes: Bytes,
    ) -> Result<(), ServiceError> {
        let (who, met) = self
            .end_of(session, CALLEE)
            .ok_or(ServiceError::Unavailable)?;
        let running = self.running(who.at).ok_or(ServiceError::Unavailable)?;
        let from = codec::decoded::<wire::GetRosterRequest>(bytes)?.from_version;
        let items = roster_for(&running.node, &running.snapshots, &met, from)?;
        for item in items {
            let item = encoded(&wire::RosterItem::from(item));
            self.send(session, CALLEE, Message::Answer(call, item));
        }
        Ok(())
    }

    fn begin_pull(
        &mut self,
        session: SessionId,
        call: CallId,
        bytes: Bytes,
    ) -> Result<(), ServiceError> {
        let (who, met) = self
            .end_of(session, CALLEE)
            .ok_or(ServiceError::Unavailable)?;
        let running = self.running(who.at).ok_or(ServiceError::Unavailable)?;
        let request = codec::decoded::<wire::PullRequest>(bytes)?;
        let request = convert::pull_request(&request)?;
        let (node, snapshots) = (Arc::clone(&running.node), Arc::clone(&running.snapshots));
        let pull = Arc::new(Pull::begin(
            node,
            snapshots,
            Reader::Member(met.member),
            request,
        )?);
        if request.proof_only {
            let part = PullPart::Proof(pull.proof()?);
            let part = encoded(&wire::PullItem::from(part));
            self.send(session, CALLEE, Message::Answer(call, part));
            self.send(session, CALLEE, Message::Ended(call, Ok(())));
            return Ok(());
        }
        let serving = Serving {
            session,
            pull,
            from: request.from,
            to: request.to,
        };
        running.serving.insert(call, serving);
        self.later(0, Due::Serve(who, session, call));
        Ok(())
    }

    /// Reads and sends the next chunk of a pull.
    pub(crate) fn serve(&mut self, at: usize, session: SessionId, call: CallId) {
        let Some(running) = self.running(at) else {
            return;
        };
        let Some(serving) = running.serving.get(&call) else {
            return;
        };
        let (from, to, pull) = (serving.from, serving.to, Arc::clone(&serving.pull));
        let done = from >= to;
        // PROTOCOL 15: access is decided at the start and before each chunk.
        let part = self
            .admit(session, Call::Pull)
            .and_then(|()| pull.chunk(from));
        let end = match part {
            _ if done => Ok(()),
            Ok(chunk) => {
                let next = chunk.to;
                let part = encoded(&wire::PullItem::from(PullPart::Chunk(chunk)));
                let message = Message::Answer(call, part);
                let wait = message.transit_ms();
                self.send(session, CALLEE, message);
                if let Some(serving) = self.running(at).and_then(|r| r.serving.get_mut(&call))
                    && next > from
                {
                    serving.from = next;
                    if let Some(who) = self.who(at) {
                        self.later(wait, Due::Serve(who, session, call));
                    }
                }
                return;
            }
            Err(error) => Err(error),
        };
        if let Some(running) = self.running(at) {
            running.serving.remove(&call);
        }
        self.send(session, CALLEE, Message::Ended(call, end));
    }

    // --- The side that calls.

    fn answered(&mut self, session: SessionId, call: CallId, bytes: Bytes) {
        let Some((who, _)) = self.end_of(session, CALLER) else {
            return;
        };
        let Some(running) = self.running(who.at) else {
            return;
        };
        let Some((_, waiting)) = running.calls.get_mut(&call) else {
            return;
        };
        match waiting {
            Waiting::Hello => {
                running.calls.remove(&call);
                self.greeted(session, bytes);
            }
            Waiting::Greeting | Waiting::Roster | Waiting::Inactive | Waiting::Stranger => {
                self.document(session, bytes);
            }
            Waiting::Watch => self.hear(session, CALLER, Said::Began),
            Waiting::Pull(order) => {
                let order = order.clone();
                self.part_of(session, call, bytes, &order);
            }
            Waiting::Proof(search, _) => {
                let part = codec::decoded::<wire::PullItem>(bytes)
                    .and_then(|part| convert::pull_part(part, true));
                if let Ok(Some(part)) = part {
                    search.answered(part);
                }
            }
            Waiting::Extension(_, answer) => {
                let part = codec::decoded::<wire::PullItem>(bytes)
                    .and_then(|part| convert::pull_part(part, true));
                if let Ok(Some(PullPart::Proof(proof))) = part {
                    *answer = Some(proof);
                }
            }
        }
    }

    fn greeted(&mut self, session: SessionId, bytes: Bytes) {
        let Some((who, _)) = self.end_of(session, CALLER) else {
            return;
        };
        let theirs = codec::decoded::<wire::HelloResponse>(bytes)
            .and_then(|answer| convert::node_info(answer.node));
        let Some(running) = self.running(who.at) else {
            return;
        };
        let own = node_info(&running.node);
        match theirs.and_then(|theirs| targets::greeted(&own, &theirs)) {
            Ok(true) => self.ask_roster(session, Waiting::Greeting),
            Ok(false) => self.open(session),
            Err(_) => self.cut(session, who.at),
        }
    }

    fn document(&mut self, session: SessionId, bytes: Bytes) {
        let Some((who, met)) = self.end_of(session, CALLER) else {
            return;
        };
        let item = codec::decoded::<wire::RosterItem>(bytes).and_then(convert::roster_item);
        let item: Option<RosterItem> = item.unwrap_or_default();
        let Some(running) = self.running(who.at) else {
            return;
        };
        let Some(item) = item else { return };
        if let Err(hashpact_node::NodeError::Rejected(rejection)) =
            documents_in::accept(&running.node, item)
        {
            running.rejections.note(&met.to_string(), None, &rejection);
        }
    }

    fn part_of(&mut self, session: SessionId, call: CallId, bytes: Bytes, order: &Order) {
        let Some((who, _)) = self.end_of(session, CALLER) else {
            return;
        };
        let Some(running) = self.running(who.at) else {
            return;
        };
        let part = codec::decoded::<wire::PullItem>(bytes)
            .and_then(|part| convert::pull_part(part, false));
        let verified = match part {
            Ok(Some(part)) => pipeline::verify(&running.node, part, order),
            Ok(None) => return,
            Err(rejection) => Err(rejection),
        };
        let job = order.job;
        match verified {
            Ok(pulled) => {
                let pulled = Box::new(pulled);
                if let Some(begun) = running.jobs.get_mut(&job) {
                    begun.began = u64::MAX; // it brought something
                }
                running.driver.take(Done::Pulled { job, pulled });
            }
            Err(rejection) => {
                running.calls.remove(&call);
                running.jobs.remove(&job);
                running.driver.take(Done::PullRejected { job, rejection });
                self.send(session, CALLER, Message::Cancel(call));
            }
        }
    }

    fn ended(&mut self, session: SessionId, call: CallId, result: Result<(), ServiceError>) {
        let Some((who, _)) = self.end_of(session, CALLER) else {
            return;
        };
        let Some(running) = self.running(who.at) else {
            return;
        };
        let Some((_, waiting)) = running.calls.remove(&call) else {
            return;
        };
        // As a client reads what a server answered.
        let result = result.map_err(|error| status::read(&status::of_service(&error)));
        match waiting {
            Waiting::Greeting if result.is_ok() => self.open(session),
            Waiting::Hello | Waiting::Greeting | Waiting::Inactive => self.cut(session, who.at),
            Waiting::Roster => {}
            Waiting::Stranger => self.stranger_said(session),
            Waiting::Watch => match result {
                Err(NetError::Peer(refusal)) if refusal.code == ServiceError::NotActive.code() => {
                    self.ask_roster(session, Waiting::Inactive);
                }
                Ok(()) | Err(_) => self.cut(session, who.at),
            },
            Waiting::Pull(order) => {
                running.jobs.remove(&order.job);
                let job = order.job;
                running.driver.take(match result {
                    Ok(()) => Done::PullEnded { job },
                    Err(NetError::Rejected(rejection)) => Done::PullRejected { job, rejection },
                    Err(error) => Done::PullFailed { job, error },
                });
            }
            Waiting::Proof(search, rest) => self.seek_proof(who.at, *search, rest),
            Waiting::Extension(job, answer) => {
                running.driver.take(Done::Extended { job, answer });
            }
        }
    }

    /// What a stranger gave is taken in: the key that was met must be on the card of
    /// the member that was meant.
    fn stranger_said(&mut self, session: SessionId) {
        use crate::peer::PeerDirectory as _;
        let Some((who, met)) = self.end_of(session, CALLER) else {
            return;
        };
        if let Some(running) = self.running(who.at) {
            let known = running.directory.peer_of(&met.tls_key);
            if known.is_some_and(|known| known.member == met.member) {
                let strangers =
                    |key: &super::sessions::LoopKey| key.1 == super::sessions::Kind::Stranger;
                running.loops.retain(|key, _| !strangers(key));
            }
        }
        self.cut(session, who.at);
    }

    /// Asks the next peer for the proof of a fork, or makes do with what there is.
    pub(crate) fn seek_proof(&mut self, at: usize, search: Search, mut rest: Vec<SessionId>) {
        while let Some(request) = search.request() {
            let Some(session) = rest.pop() else { break };
            if self
                .end_of(session, CALLER)
                .is_some_and(|(who, _)| who.at == at)
            {
                let waiting = Waiting::Proof(Box::new(search), rest);
                self.ask_pull(session, &request, waiting);
                return;
            }
        }
        let Some(running) = self.running(at) else {
            return;
        };
        let feed = search.feed();
        if search.finish(&running.node) {
            running.driver.take(Done::Proven { feed });
        }
        running.driver.take(Done::Sought { feed });
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
