//! How a simulated member answers the four calls: the real node decides and reads,
//! messages are encoded and decoded as on the wire.

use std::sync::Arc;

use bytes::Bytes;

use super::calls::{Body, CallId, Message, Serving, encoded};
use super::meddling::Served;
use super::sessions::{CALLEE, SessionId};
use super::world::{Due, World};
use crate::exchange::inbox::Said;
use crate::exchange::serve::{check_node_info, node_info, roster_for};
use crate::exchange::served::{Pull, Reader};
use crate::server;
use crate::service::{Call, ServiceError};
use crate::types::{Announcement, PullPart};
use crate::{codec, convert, wire};

impl World {
    pub(super) fn asked(&mut self, session: SessionId, call: CallId, body: Body) {
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
        let callee = self.stands(session, CALLEE);
        let (_, met, running) = callee.ok_or(ServiceError::Unavailable)?;
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
        let callee = self.stands(session, CALLEE);
        let (_, met, running) = callee.ok_or(ServiceError::Unavailable)?;
        let from = codec::decoded::<wire::GetRosterRequest>(bytes)?.from_version;
        let items = roster_for(&running.node, &running.snapshots, &met, from)?;
        let way = self.way(session, CALLEE);
        for item in self.meddle(way, items, |m, way, items| m.papers(way, items)) {
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
        let request = codec::decoded::<wire::PullRequest>(bytes)?;
        let request = convert::pull_request(&request)?;
        let way = self.way(session, CALLEE);
        match self.meddle(way, Served::Truth, |m, way, _| m.answers(way, &request)) {
            Served::Truth => {}
            Served::Never => return Ok(()),
            Served::Refused(error) => return Err(error),
            Served::Parts(parts) => {
                for part in parts {
                    let part = encoded(&wire::PullItem::from(part));
                    self.send(session, CALLEE, Message::Answer(call, part));
                }
                self.send(session, CALLEE, Message::Ended(call, Ok(())));
                return Ok(());
            }
        }
        let callee = self.stands(session, CALLEE);
        let (who, met, running) = callee.ok_or(ServiceError::Unavailable)?;
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
            request,
            from: request.from,
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
        let (from, request, pull) = (serving.from, serving.request, Arc::clone(&serving.pull));
        let done = from >= request.to;
        // PROTOCOL 15: access is decided at the start and before each chunk.
        let part = self
            .admit(session, Call::Pull)
            .and_then(|()| pull.chunk(from));
        let end = match part {
            _ if done => Ok(()),
            Ok(chunk) => {
                let next = chunk.to;
                let way = self.way(session, CALLEE);
                let parts = vec![PullPart::Chunk(chunk)];
                let parts = self.meddle(way, parts, |m, way, parts| {
                    let tampered = parts.into_iter().flat_map(|part| match part {
                        PullPart::Chunk(chunk) => m.serves(way, &request, chunk),
                        PullPart::Proof(_) => vec![part],
                    });
                    tampered.collect()
                });
                let mut wait = 0;
                for part in parts {
                    let part = encoded(&wire::PullItem::from(part));
                    let message = Message::Answer(call, part);
                    wait += message.transit_ms();
                    self.send(session, CALLEE, message);
                }
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
}
