//! Asking: look-ups and matches, with turns so that an overload slows nobody who was
//! let in.
//!
//! A turn is one call's work on a thread. Twice as many run as there are processors, since
//! some wait for the disk, on as many threads of their own: with more, those that are woken
//! for nothing keep a processor from those that have work. Some more single calls wait,
//! half of them of one client at most; what comes beyond that is refused at once with how
//! long to wait. Of streams no more than two calls for each turn run or wait at one time,
//! the rest is read later: however many streams there are, a single call stands behind so
//! many of theirs. So the time of an accepted call has a bound.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashpact_core::reject::Rejection;
use hashpact_core::signal::Signal;
use hashpact_node::caller::Who;
use hashpact_node::model::MatchOptions;
use hashpact_node::{Node, NodeError};
use metrics::{counter, histogram};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::convert;
use crate::error::{lost, misuse, overloaded, status};
use crate::matches::Matches;
use crate::places::{Place, Places};
use crate::{recheck, wire};

/// Signals in one call: some 20 ms of exact look-ups.
pub const LOOKUP_MAX: usize = hashpact_node::lookup::LOOKUP_MAX;
/// Bytes of answers in one message; what does not fit is answered with that.
const ANSWERS_MAX_BYTES: usize = crate::MESSAGE_MAX_BYTES / 4 * 3;
/// Calls that run at one time for each core: some of them wait for the disk.
const TURNS_PER_CORE: usize = 2;
/// Single calls that wait for a turn, for each that runs.
const WAITING_PER_TURN: usize = 16;
/// Calls of streams that run or wait for a turn, for each turn: enough that none stands
/// still between two.
const STREAMED_PER_TURN: usize = 2;
/// What a refused caller is told to wait: about what the queue ahead of it takes.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// The answers of one call, and the policy that their verdicts are of.
type Answered = (Vec<wire::Answer>, String);

/// Answers questions, so many at one time.
#[derive(Clone)]
pub(crate) struct Asking {
    node: Arc<Node>,
    /// Calls that run.
    turns: Arc<Semaphore>,
    threads: Arc<Threads>,
    /// Single calls that run or wait, half of them of one client at most.
    places: Places,
    /// Calls of streams that run or wait.
    streamed: Arc<Semaphore>,
}

/// A place in the queue, until it is dropped.
pub(crate) enum Queued {
    Single { _place: Place },
    Streamed { _place: OwnedSemaphorePermit },
}

impl Asking {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, NonZero::get);
        let turns = cores.saturating_mul(TURNS_PER_CORE);
        let places = turns.saturating_mul(WAITING_PER_TURN.saturating_add(1));
        Self {
            node,
            turns: Arc::new(Semaphore::new(turns)),
            threads: Arc::new(Threads::new(turns)),
            places: Places::new(places, places.div_ceil(2)),
            streamed: Arc::new(Semaphore::new(turns.saturating_mul(STREAMED_PER_TURN))),
        }
    }

    /// The node that is asked.
    pub(crate) const fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Takes a place in the queue, or says when to come again.
    pub(crate) fn place(&self, who: &Who) -> Result<Queued, Status> {
        let place = self.places.take(who).ok_or_else(|| {
            counter!("hashpact_api_refused_total", "code" => "overloaded").increment(1);
            overloaded(RETRY_AFTER)
        })?;
        Ok(Queued::Single { _place: place })
    }

    /// Waits for a place in the queue: for streams, whose callers feel it as
    /// back-pressure.
    pub(crate) async fn wait_for_place(&self) -> Result<Queued, Status> {
        let place = Arc::clone(&self.streamed).acquire_owned().await;
        let place = place.map_err(|_| lost("waiting for a turn"))?;
        Ok(Queued::Streamed { _place: place })
    }

    pub(crate) async fn lookup(
        &self,
        _place: Queued,
        request: wire::LookupRequest,
    ) -> Result<wire::LookupResponse, Status> {
        let wire::LookupRequest {
            signals,
            surface,
            region,
            references,
        } = request;
        let work = move |node: &Node, signals: &[Signal]| {
            look_up(node, signals, (surface.as_str(), region.as_str()))
        };
        let (answers, policy) = self.ask("look-up", (signals, references), work).await?;
        Ok(wire::LookupResponse { answers, policy })
    }

    pub(crate) async fn matches(
        &self,
        _place: Queued,
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
        let (surface, region) = (request.surface, request.region);
        let work = move |node: &Node, signals: &[Signal]| {
            match_all(node, signals, options, (surface.as_str(), region.as_str()))
        };
        let (answers, policy) = self
            .ask("match", (request.signals, request.references), work)
            .await?;
        Ok(wire::MatchResponse {
            answers,
            near_pending,
            near_ready,
            policy,
        })
    }

    async fn ask(
        &self,
        what: &'static str,
        (signals, references): (Vec<wire::Signal>, Vec<String>),
        work: impl FnOnce(&Node, &[Signal]) -> Result<Answered, NodeError> + Send + 'static,
    ) -> Result<Answered, Status> {
        let (count, began) = (signals.len(), Instant::now());
        if count > LOOKUP_MAX {
            return Err(misuse(format!(
                "{count} signals in one message, the limit is {LOOKUP_MAX}; ask in several"
            )));
        }
        recheck::references(&references, count).map_err(|error| status(&error))?;
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|_| lost(what))?;
        let node = Arc::clone(&self.node);
        let task = self.threads.handle().spawn_blocking(move || {
            let answers = answers(&node, (signals, &references), work);
            drop(turn);
            answers
        });
        let answers = task.await.map_err(|_| lost(what))?;
        histogram!("hashpact_api_ask_seconds", "what" => what).record(began.elapsed());
        answers.map_err(|error| status(&error))
    }
}

/// The threads that turns run on.
struct Threads {
    /// Taken when it is dropped, and only then.
    own: Option<Runtime>,
    handle: Handle,
}

impl Threads {
    /// So many, each begins when it is needed; where the system has none left for a runtime
    /// of their own, calls run on those of the runtime that is here.
    fn new(most: usize) -> Self {
        let own = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(most.max(1))
            .thread_name("asking")
            .build();
        if let Err(error) = &own {
            tracing::warn!(%error, "look-ups have no threads of their own");
        }
        let own = own.ok();
        let handle = own.as_ref().map(|own| own.handle().clone());
        Self {
            handle: handle.unwrap_or_else(Handle::current),
            own,
        }
    }

    const fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(own) = self.own.take() {
            // Dropped in a task, which must not wait.
            own.shutdown_background();
        }
    }
}

/// Answers every item, in order; one that cannot be read is answered with the reason.
fn answers(
    node: &Node,
    (messages, references): (Vec<wire::Signal>, &[String]),
    work: impl FnOnce(&Node, &[Signal]) -> Result<Answered, NodeError>,
) -> Result<Answered, NodeError> {
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
    // What is asked more than once in one call is looked for once.
    let mut places: HashMap<&Signal, usize> = HashMap::with_capacity(signals.len());
    let mut distinct: Vec<Signal> = Vec::new();
    let mut place_of: Vec<usize> = Vec::with_capacity(signals.len());
    for signal in &signals {
        let place = *places.entry(signal).or_insert_with(|| {
            distinct.push(signal.clone());
            distinct.len().saturating_sub(1)
        });
        place_of.push(place);
    }
    let (found, policy) = work(node, &distinct)?;
    count_kinds(&signals, &place_of, &found);
    let journal = node.journal();
    let read: Vec<bool> = match journal {
        Some(_) => refused.iter().map(Option::is_none).collect(),
        None => Vec::new(),
    };
    let (mut bytes, mut place_of) = (0_usize, place_of.into_iter());
    let answers = refused.into_iter().map(|refused| {
        let answer = match refused {
            None => place_of.next().and_then(|place| found.get(place)),
            Some(rejection) => return convert::refused_answer(&rejection),
        };
        let length = answer.map_or(0, prost::Message::encoded_len);
        bytes = bytes.saturating_add(length);
        match answer {
            Some(_) if bytes > ANSWERS_MAX_BYTES => convert::too_large_answer(),
            answer => answer.cloned().unwrap_or_default(),
        }
    });
    let answers: Vec<wire::Answer> = answers.collect();
    if let Some(journal) = journal {
        let given = answers.iter().zip(read).enumerate();
        let given = given.filter(|(_, (_, read))| *read).zip(&signals);
        let told = given.filter_map(|((at, (answer, _)), signal)| {
            recheck::answered(signal, answer, references.get(at))
        });
        journal.note(told.collect());
    }
    Ok((answers, policy))
}

fn look_up(
    node: &Node,
    signals: &[Signal],
    (surface, region): (&str, &str),
) -> Result<Answered, NodeError> {
    let judge = node.judge(surface, region)?;
    let found = node.matches(signals, MatchOptions::exact())?;
    let mut matches = Matches::new(node);
    let both = signals.iter().zip(found);
    let answers = both.map(|(signal, found)| {
        if found.over {
            convert::too_large_answer()
        } else {
            matches.answer(&judge, signal, found)
        }
    });
    Ok((answers.collect(), judge.in_force().name.clone()))
}

fn match_all(
    node: &Node,
    signals: &[Signal],
    options: MatchOptions,
    (surface, region): (&str, &str),
) -> Result<Answered, NodeError> {
    let judge = node.judge(surface, region)?;
    let found = node.matches(signals, options)?;
    node.note_asked(signals, &found);
    let mut matches = Matches::new(node);
    let both = signals.iter().zip(found);
    let answers = both.map(|(signal, found)| {
        if found.over {
            convert::too_large_answer()
        } else {
            matches.matched(&judge, signal, found)
        }
    });
    Ok((answers.collect(), judge.in_force().name.clone()))
}

/// Counts what was asked and what was known, by kind.
fn count_kinds(signals: &[Signal], place_of: &[usize], answers: &[wire::Answer]) {
    let mut counts: Vec<(&'static str, u64, u64)> = Vec::new();
    for (signal, place) in signals.iter().zip(place_of) {
        let known = answers.get(*place).is_some_and(|a| !a.matches.is_empty());
        let (name, hit) = (signal.kind().name(), u64::from(known));
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
        let full = |who: &Who| {
            let mut places = Vec::new();
            loop {
                match asking.place(who) {
                    Ok(place) => places.push(place),
                    Err(refused) => break (places, refused),
                }
            }
        };
        let (greedy, other) = (Who::Socket { uid: Some(1) }, Who::Socket { uid: Some(2) });
        let (mut places, refused) = full(&greedy);
        assert!(places.len() > WAITING_PER_TURN / 2);
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.metadata().get(RETRY_AFTER_MS).unwrap(), "50");
        let (others, _) = full(&other);
        assert!(!others.is_empty(), "one client leaves room for others");
        assert!(asking.place(&Who::Process).is_err(), "now all are taken");
        places.pop();
        assert!(asking.place(&greedy).is_ok());
    }

    #[tokio::test]
    async fn streams_that_wait_keep_no_single_call_out() {
        let folder = TempDir::new().unwrap();
        let asking = Asking::new(crate::tests::node(&folder));
        let mut streams = Vec::new();
        while asking.streamed.available_permits() > 0 {
            streams.push(asking.wait_for_place().await.unwrap());
        }
        let waiting = asking.clone();
        let waiting = tokio::spawn(async move { waiting.wait_for_place().await.map(drop) });
        assert!(asking.place(&Who::Process).is_ok());
        streams.pop();
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_is_asked_twice_is_looked_for_once() {
        let folder = TempDir::new().unwrap();
        let node = crate::tests::node(&folder);
        let signal = |digit: &str| {
            let signal = Signal::parse_spec(&format!("sha256:{}", digit.repeat(64))).unwrap();
            wire::Signal {
                kind: signal.kind().number(),
                value: signal.value().clone(),
                quality: None,
            }
        };
        let (a, b) = (signal("a"), signal("b"));
        let asked = vec![a.clone(), b, a, wire::Signal::default()];
        let given = answers(&node, (asked, &[]), |_, signals| {
            assert_eq!(signals.len(), 2);
            let answer = |signal: &Signal| wire::Answer {
                verdict: format!("{:x?}", signal.value().first()),
                ..wire::Answer::default()
            };
            Ok((signals.iter().map(answer).collect(), String::new()))
        });
        let given: Vec<String> = given.unwrap().0.into_iter().map(|a| a.verdict).collect();
        assert_eq!(given[0], given[2]);
        assert_ne!(given[0], given[1]);
        assert_eq!(given.len(), 4);
    }
}
