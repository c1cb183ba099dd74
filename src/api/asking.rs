//! Asking: look-ups and matches, with turns so that an overload slows nobody who was
//! let in.
//!
//! A turn is one call's work on a thread. As many run as there are processors; some
//! more wait; what comes beyond that is refused at once with how long to wait, or, in
//! a stream, is read later. So the time of an accepted call has a bound.

use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashpact_core::reject::Rejection;
use hashpact_core::signal::Signal;
use hashpact_node::model::MatchOptions;
use hashpact_node::{Node, NodeError};
use metrics::{counter, histogram};
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::convert::{self, Matches};
use crate::error::{lost, misuse, overloaded, status};
use crate::wire;

/// Signals in one call: some 20 ms of exact look-ups.
pub const LOOKUP_MAX: usize = hashpact_node::lookup::LOOKUP_MAX;
/// Bytes of answers in one message; what does not fit is answered with that.
const ANSWERS_MAX_BYTES: usize = crate::MESSAGE_MAX_BYTES / 4 * 3;
/// Calls that wait for a turn, for each that runs.
const WAITING_PER_TURN: usize = 32;
/// What a refused caller is told to wait: about what the queue ahead of it takes.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Answers questions, so many at one time.
#[derive(Clone)]
pub(crate) struct Asking {
    node: Arc<Node>,
    /// Calls that run.
    turns: Arc<Semaphore>,
    /// Calls that run or wait.
    places: Arc<Semaphore>,
}

impl Asking {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        let turns = std::thread::available_parallelism().map_or(2, NonZero::get);
        let places = turns.saturating_mul(WAITING_PER_TURN.saturating_add(1));
        Self {
            node,
            turns: Arc::new(Semaphore::new(turns)),
            places: Arc::new(Semaphore::new(places)),
        }
    }

    /// The node that is asked.
    pub(crate) const fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Takes a place in the queue, or says when to come again.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.map_err(|_| {
            counter!("hashpact_api_refused_total", "code" => "overloaded").increment(1);
            overloaded(RETRY_AFTER)
        })
    }

    /// Waits for a place in the queue: for streams, whose callers feel it as
    /// back-pressure.
    pub(crate) async fn wait_for_place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        place.map_err(|_| lost("waiting for a turn"))
    }

    pub(crate) async fn lookup(
        &self,
        _place: OwnedSemaphorePermit,
        request: wire::LookupRequest,
    ) -> Result<wire::LookupResponse, Status> {
        let answers = self.ask("look-up", request.signals, look_up).await?;
        Ok(wire::LookupResponse { answers })
    }

    pub(crate) async fn matches(
        &self,
        _place: OwnedSemaphorePermit,
        request: wire::MatchRequest,
    ) -> Result<wire::MatchResponse, Status> {
        let percent =
            |asked: Option<u32>| asked.map(|asked| u8::try_from(asked).unwrap_or(u8::MAX));
        let options = MatchOptions {
            max_distance: request.max_distance,
            video_query_percent: percent(request.video_query_percent),
            video_compared_percent: percent(request.video_compared_percent),
        };
        // Asked before: a value that goes in meanwhile may be missed all the same.
        let (near_ready, near_pending) = self.node.near_loading();
        let work = move |node: &Node, signals: &[Signal]| match_all(node, signals, options);
        let answers = self.ask("match", request.signals, work).await?;
        Ok(wire::MatchResponse {
            answers,
            near_pending,
            near_ready,
        })
    }

    async fn ask(
        &self,
        what: &'static str,
        signals: Vec<wire::Signal>,
        work: impl FnOnce(&Node, &[Signal]) -> Result<Vec<wire::Answer>, NodeError> + Send + 'static,
    ) -> Result<Vec<wire::Answer>, Status> {
        let (count, began) = (signals.len(), Instant::now());
        if count > LOOKUP_MAX {
            return Err(misuse(format!(
                "{count} signals in one message, the limit is {LOOKUP_MAX}; ask in several"
            )));
        }
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|_| lost(what))?;
        let node = Arc::clone(&self.node);
        let task = tokio::task::spawn_blocking(move || {
            let answers = answers(&node, signals, work);
            drop(turn);
            answers
        });
        let answers = task.await.map_err(|_| lost(what))?;
        histogram!("hashpact_api_ask_seconds", "what" => what).record(began.elapsed());
        answers.map_err(|error| status(&error))
    }
}

/// Answers every item, in order; one that cannot be read is answered with the reason.
fn answers(
    node: &Node,
    messages: Vec<wire::Signal>,
    work: impl FnOnce(&Node, &[Signal]) -> Result<Vec<wire::Answer>, NodeError>,
) -> Result<Vec<wire::Answer>, NodeError> {
    let mut signals: Vec<Signal> = Vec::with_capacity(messages.len());
    let mut refused: Vec<Option<Rejection>> = Vec::with_capacity(messages.len());
    for message in messages {
        match convert::signal(message) {
            Ok(signal) => {
                signals.push(signal);
                refused.push(None);
            }
            Err(rejection) => refused.push(Some(rejection)),
        }
    }
    let mut found = work(node, &signals)?.into_iter();
    count_kinds(&signals, found.as_slice());
    let mut bytes = 0_usize;
    let answers = refused.into_iter().map(|refused| {
        let answer = match refused {
            None => found.next().unwrap_or_default(),
            Some(rejection) => convert::refused_answer(&rejection),
        };
        bytes = bytes.saturating_add(answer.encoded_len());
        if bytes > ANSWERS_MAX_BYTES {
            convert::too_large_answer()
        } else {
            answer
        }
    });
    Ok(answers.collect())
}

fn look_up(node: &Node, signals: &[Signal]) -> Result<Vec<wire::Answer>, NodeError> {
    let found = node.matches(signals, MatchOptions::exact())?;
    let mut matches = Matches::new(node);
    let both = signals.iter().zip(found);
    Ok(both
        .map(|(signal, found)| matches.answer(signal.kind(), found))
        .collect())
}

fn match_all(
    node: &Node,
    signals: &[Signal],
    options: MatchOptions,
) -> Result<Vec<wire::Answer>, NodeError> {
    let found = node.matches(signals, options)?;
    let mut matches = Matches::new(node);
    let both = signals.iter().zip(found);
    Ok(both
        .map(|(signal, found)| matches.matched(signal.kind(), found))
        .collect())
}

/// Counts what was asked and what was known, by kind.
fn count_kinds(signals: &[Signal], answers: &[wire::Answer]) {
    let mut counts: Vec<(&'static str, u64, u64)> = Vec::new();
    for (signal, answer) in signals.iter().zip(answers) {
        let (name, hit) = (signal.kind().name(), u64::from(!answer.matches.is_empty()));
        if let Some((_, asked, known)) = counts.iter_mut().find(|(kind, ..)| *kind == name) {
            *asked = asked.saturating_add(1);
            *known = known.saturating_add(hit);
        } else {
            counts.push((name, 1, hit));
        }
    }
    for (kind, asked, known) in counts {
        counter!("hashpact_api_signals_asked_total", "kind" => kind).increment(asked);
        counter!("hashpact_api_signals_known_total", "kind" => kind).increment(known);
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tonic::Code;

    use super::*;
    use crate::RETRY_AFTER_MS;

    #[tokio::test]
    async fn a_call_beyond_the_queue_is_told_when_to_come_again() {
        let folder = TempDir::new().unwrap();
        let asking = Asking::new(crate::tests::node(&folder));
        let mut places = Vec::new();
        let refused = loop {
            match asking.place() {
                Ok(place) => places.push(place),
                Err(refused) => break refused,
            }
        };
        assert!(places.len() > WAITING_PER_TURN);
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.metadata().get(RETRY_AFTER_MS).unwrap(), "50");
        places.pop();
        assert!(asking.place().is_ok());
    }
}
