//! What a simulated member makes of the answers to its calls.

use bytes::Bytes;

use super::calls::{CallId, Message, Waiting};
use super::sessions::{CALLER, SessionId};
use super::world::World;
use crate::error::NetError;
use crate::exchange::fork::Search;
use crate::exchange::inbox::Said;
use crate::exchange::inside::Done;
use crate::exchange::pipeline::{self, Order};
use crate::exchange::serve::node_info;
use crate::exchange::{documents_in, targets};
use crate::service::ServiceError;
use crate::types::{PullPart, RosterItem};
use crate::{codec, convert, status, wire};

impl World {
    pub(super) fn answered(&mut self, session: SessionId, call: CallId, bytes: Bytes) {
        let Some((_, _, running)) = self.stands(session, CALLER) else {
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
        let theirs = codec::decoded::<wire::HelloResponse>(bytes)
            .and_then(|answer| convert::node_info(answer.node));
        let Some((who, _, running)) = self.stands(session, CALLER) else {
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
        let item = codec::decoded::<wire::RosterItem>(bytes).and_then(convert::roster_item);
        let item: Option<RosterItem> = item.unwrap_or_default();
        let Some((_, met, running)) = self.stands(session, CALLER) else {
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
        let Some((_, _, running)) = self.stands(session, CALLER) else {
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

    pub(super) fn ended(
        &mut self,
        session: SessionId,
        call: CallId,
        result: Result<(), ServiceError>,
    ) {
        let Some((who, _, running)) = self.stands(session, CALLER) else {
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
        let Some((who, met, running)) = self.stands(session, CALLER) else {
            return;
        };
        let known = running.directory.peer_of(&met.tls_key);
        if known.is_some_and(|known| known.member == met.member) {
            let strangers =
                |key: &super::sessions::LoopKey| key.1 == super::sessions::Kind::Stranger;
            running.loops.retain(|key, _| !strangers(key));
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
}
