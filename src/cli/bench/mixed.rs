//! `bench mixed`: look-ups at half of their rate while a set is pulled.
//!
//! Times of paced calls count from when a call was due, if the call before it on the
//! same stream was answered too late, and else from when it was to be made: what a slow
//! answer keeps waiting is counted, what the timer of the asking side is late is not.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hashpact_api::wire;
use hashpact_api::wire::node_client::NodeClient;
use hashpact_node::model::NewSet;
use hashpact_store::StoreOptions;
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::corrections::{self, Corrections};
use super::entries::{self, Which};
use super::latency::{Latency, Times};
use super::lookup::Door;
use super::machine::{Machine, Memory};
use super::meters::Meters;
use super::pacing::{Pacer, Turns};
use super::pull::{self, Before, Pulled, Running};
use super::serve::{Serving, Upstream};
use super::{Bench, CommonArgs, import, per_second, say, seconds};
use crate::cli::error::CliError;
use crate::cli::trial::Trial;
use crate::cli::{Context, client, output};

/// Bits in which a look-up of a near value differs from it.
const FLIPPED: u8 = 12;

#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    /// Of the set that answers and of the one that is pulled, each.
    entries: u64,
    streams: u32,
    /// Exact look-ups, one signal at a time.
    exact: Phase,
    /// PDQ within 31, one value at a time.
    pdq: Phase,
    /// Of the node that answers and asks, at the peak.
    memory: Memory,
    upstream: Serving,
    machine: Machine,
}

/// One kind of look-up.
#[derive(Debug, Serialize)]
struct Phase {
    /// As fast as it goes.
    alone: Asked,
    /// At half of that rate, with nothing beside it.
    half: Asked,
    /// At half of that rate, until the pull was over.
    beside_pull: Asked,
    /// Meanwhile.
    corrections: Corrections,
    pull: Pulled,
    pull_entries_per_s: f64,
}

#[derive(Debug, Serialize)]
struct Asked {
    calls: u64,
    elapsed_s: f64,
    per_s: f64,
    latency_ms: Latency,
    /// By how much calls were made later than planned, since the asking side itself was
    /// late: they are fewer for it.
    put_off_s: f64,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Exact,
    Pdq,
}

/// Measures and prints.
pub(super) fn run(
    common: &CommonArgs,
    streams: u32,
    time: u32,
    context: &Context,
) -> Result<(), CliError> {
    let meters = Meters::start()?;
    let bench = Bench::begin("mixed", common)?;
    let trial = pull::trial()?;
    let (upstream, serving) =
        Upstream::start(&trial, bench.dir().join("north"), (common.entries, true))?;
    Memory::reset_peak();
    let asking = Asking {
        entries: common.entries,
        streams,
        time: Duration::from_secs(u64::from(time)),
    };
    let exact = asking.phase(Ask::Exact, &trial, &meters, bench.dir())?;
    let pdq = asking.phase(Ask::Pdq, &trial, &meters, bench.dir())?;
    upstream.stop()?;
    let report = Report {
        bench: "mixed",
        entries: common.entries,
        streams,
        exact,
        pdq,
        memory: Memory::here(),
        upstream: serving,
        machine: Machine::here(),
    };
    bench.end()?;
    print(&report, context)
}

/// How it is asked.
#[derive(Debug, Clone, Copy)]
struct Asking {
    entries: u64,
    streams: u32,
    time: Duration,
}

/// When the calls of a stream are made.
#[derive(Debug)]
enum Pace {
    /// One after the other, until then.
    Fast(Instant),
    /// When it is said.
    Steady(Turns),
}

impl Asking {
    fn phase(
        self,
        ask: Ask,
        trial: &Trial,
        meters: &Meters,
        dir: &Path,
    ) -> Result<Phase, CliError> {
        let name = match ask {
            Ask::Exact => "exact",
            Ask::Pdq => "pdq",
        };
        let dir = dir.join(name);
        let node = trial.open(trial.seat(1)?, &dir, StoreOptions::default())?;
        // For nobody: the node of the other phase would find this member's set at the
        // upstream, and pull it as its own.
        let set = NewSet {
            grants: Vec::new(),
            ..super::new_set()?
        };
        node.create_set(&set).map_err(CliError::failed)?;
        // Other values than those of the set that is pulled; some that nobody asks for.
        let asked_end = self.entries.saturating_mul(2);
        let end = asked_end.saturating_add(corrections::ENTRIES);
        import::fill_range(&node, self.entries..end)?;
        super::wait_for_near(&node)?;
        let runtime = Runtime::new().map_err(CliError::failed)?;
        let socket = dir.join("api.sock");
        let door = runtime.block_on(Door::open(&node, &socket))?;
        say(format!("{name}: asking as fast as it goes"));
        let began = Instant::now();
        let until = began + self.time;
        let alone = self.start(&runtime, &socket, ask, || Pace::Fast(until))?;
        let alone = finish(&runtime, alone, began)?;
        let per_s = alone.per_s / 2.0;
        say(format!("{name}: asking at half of that rate"));
        let (mut pacer, began) = (Pacer::default(), Instant::now());
        let half = self.start(&runtime, &socket, ask, || Pace::Steady(pacer.stream()))?;
        let pacing = pacer.begin(per_s);
        std::thread::sleep(self.time);
        let put_off = pacing.end()?;
        let half = finish(&runtime, half, began)?.put_off(put_off);
        say(format!("{name}: the same beside a pull"));
        let before = Before::of(meters);
        let (mut pacer, began) = (Pacer::default(), Instant::now());
        let beside = self.start(&runtime, &socket, ask, || Pace::Steady(pacer.stream()))?;
        let (pacing, stop) = (pacer.begin(per_s), Arc::new(AtomicBool::new(false)));
        let client = runtime.block_on(client::over_socket(socket.clone(), None))?;
        let set = super::SET.to_owned();
        let correcting = corrections::correct(client, set, asked_end, Arc::clone(&stop));
        let correcting = runtime.spawn(correcting);
        let mut running = Running::on(node, trial.seat(1)?)?;
        let pull = running.pull_more(meters, &before, self.entries);
        stop.store(true, Ordering::Relaxed);
        let put_off = pacing.end()?;
        let beside_pull = finish(&runtime, beside, began);
        let corrected = runtime.block_on(correcting).map_err(CliError::failed);
        // All ends in order, whatever was answered.
        let closed = runtime.block_on(door.close());
        runtime.shutdown_timeout(Duration::from_secs(10));
        running.stop()?;
        let (beside_pull, pull) = (beside_pull?, pull?);
        closed?;
        Ok(Phase {
            corrections: corrected??,
            alone,
            half,
            beside_pull: beside_pull.put_off(put_off),
            pull_entries_per_s: pull.rate(self.entries),
            pull,
        })
    }

    /// Starts one task a stream.
    fn start(
        self,
        runtime: &Runtime,
        socket: &Path,
        ask: Ask,
        mut pace: impl FnMut() -> Pace,
    ) -> Result<Vec<JoinHandle<Result<Times, CliError>>>, CliError> {
        let node = runtime.block_on(client::over_socket(socket.to_owned(), None))?;
        let asker = |stream| runtime.spawn(self.stream(node.clone(), ask, stream, pace()));
        Ok((0..self.streams).map(asker).collect())
    }

    async fn stream(
        self,
        node: NodeClient<Channel>,
        ask: Ask,
        stream: u32,
        mut pace: Pace,
    ) -> Result<Times, CliError> {
        let mut calls = Calls::open(node, ask).await?;
        let mut times = Times::default();
        // A call more than the stream will make.
        let first = u64::from(stream) << 32;
        let mut free_at = Instant::now();
        for turn in 0_u32.. {
            let from = match &mut pace {
                Pace::Fast(until) if Instant::now() >= *until => break,
                Pace::Fast(_) => Instant::now(),
                Pace::Steady(turns) => {
                    let Some(turn) = turns.recv().await else {
                        break;
                    };
                    if free_at > turn.due {
                        turn.due
                    } else {
                        turn.said
                    }
                }
            };
            calls.ask(self.signal(ask, first + u64::from(turn))).await?;
            times.push(from.elapsed());
            free_at = Instant::now();
        }
        Ok(times)
    }

    /// Every other one is known; of PDQ, something near it.
    fn signal(self, ask: Ask, n: u64) -> (wire::Signal, bool) {
        let known = self.entries + entries::scattered(n) % self.entries;
        let (known, hits) = if n.is_multiple_of(2) {
            (known, true)
        } else {
            (entries::MISS + known, false)
        };
        let which = match ask {
            Ask::Exact if n % 4 < 2 => Which::Sha256,
            Ask::Exact | Ask::Pdq => Which::Pdq,
        };
        let mut value = entries::value(known, which);
        if ask == Ask::Pdq {
            for byte in value.iter_mut().take(usize::from(FLIPPED)) {
                *byte ^= 1;
            }
        }
        let signal = wire::Signal {
            kind: which.kind().number(),
            value: value.to_vec().into(),
            quality: None,
        };
        (signal, hits)
    }
}

/// One stream of calls, the next after the answer of the one before.
enum Calls {
    Exact(
        mpsc::Sender<wire::LookupRequest>,
        Streaming<wire::LookupResponse>,
    ),
    Pdq(
        mpsc::Sender<wire::MatchRequest>,
        Streaming<wire::MatchResponse>,
    ),
}

impl Calls {
    async fn open(mut node: NodeClient<Channel>, ask: Ask) -> Result<Self, CliError> {
        let failed = |status: tonic::Status| client::failed(&status);
        Ok(match ask {
            Ask::Exact => {
                let (sender, asks) = mpsc::channel(1);
                let answers = node.lookup_stream(ReceiverStream::new(asks)).await;
                Self::Exact(sender, answers.map_err(failed)?.into_inner())
            }
            Ask::Pdq => {
                let (sender, asks) = mpsc::channel(1);
                let answers = node.match_stream(ReceiverStream::new(asks)).await;
                Self::Pdq(sender, answers.map_err(failed)?.into_inner())
            }
        })
    }

    /// Asks, waits for the answer, and looks whether it is right.
    async fn ask(&mut self, (signal, hits): (wire::Signal, bool)) -> Result<(), CliError> {
        let ended = || CliError::failed("the node ended a stream");
        let failed = |status: tonic::Status| client::failed(&status);
        let signals = vec![signal];
        let answers = match self {
            Self::Exact(asks, answers) => {
                let request = wire::LookupRequest {
                    signals,
                    ..wire::LookupRequest::default()
                };
                asks.send(request).await.map_err(|_| ended())?;
                let answer = answers.next().await.ok_or_else(ended)?;
                answer.map_err(failed)?.answers
            }
            Self::Pdq(asks, answers) => {
                let request = wire::MatchRequest {
                    signals,
                    ..wire::MatchRequest::default()
                };
                asks.send(request).await.map_err(|_| ended())?;
                let answer = answers.next().await.ok_or_else(ended)?;
                answer.map_err(failed)?.answers
            }
        };
        let right = |answer: &wire::Answer| answer.matches.is_empty() != hits;
        if answers.len() == 1 && answers.iter().all(right) {
            return Ok(());
        }
        let what = if hits { "a known" } else { "an unknown" };
        Err(CliError::failed(format!(
            "{what} signal was answered wrongly, with {} answers",
            answers.len()
        )))
    }
}

/// Waits for all streams.
fn finish(
    runtime: &Runtime,
    streams: Vec<JoinHandle<Result<Times, CliError>>>,
    began: Instant,
) -> Result<Asked, CliError> {
    let mut times = Times::default();
    for stream in streams {
        times.add(runtime.block_on(stream).map_err(CliError::failed)??);
    }
    let elapsed = began.elapsed();
    Ok(Asked {
        calls: times.count(),
        elapsed_s: seconds(elapsed),
        per_s: per_second(times.count(), elapsed),
        latency_ms: times.latency(),
        put_off_s: 0.0,
    })
}

impl Asked {
    fn put_off(self, put_off: Duration) -> Self {
        let put_off_s = seconds(put_off);
        Self { put_off_s, ..self }
    }
}

fn print(report: &Report, context: &Context) -> Result<(), CliError> {
    let mut rows = vec![("entries, each set", output::count(report.entries))];
    for (name, phase) in [("exact", &report.exact), ("PDQ", &report.pdq)] {
        rows.extend([
            (name, String::new()),
            ("  alone, calls/s", super::whole(phase.alone.per_s)),
            ("  p50 / p99 / p99.9", phase.alone.latency_ms.tail()),
            ("  half, calls/s", super::whole(phase.half.per_s)),
            ("  p50 / p99 / p99.9", phase.half.latency_ms.tail()),
            (
                "  beside a pull, calls/s",
                super::whole(phase.beside_pull.per_s),
            ),
            ("  p50 / p99 / p99.9", phase.beside_pull.latency_ms.tail()),
            (
                "  a mute meanwhile",
                phase.corrections.mutes.latency_ms.worst(),
            ),
            (
                "  a retraction meanwhile",
                phase.corrections.retractions.latency_ms.worst(),
            ),
            ("  pull, entries/s", super::whole(phase.pull_entries_per_s)),
        ]);
    }
    rows.push(("memory, peak", output::bytes(report.memory.peak_bytes)));
    super::print(report, &rows, &report.machine, context)
}
