//! `bench lookup`: exact look-ups over the local API's socket.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashpact_api::socket::Socket;
use hashpact_api::wire::node_client::NodeClient;
use hashpact_api::{About, NodeService, wire};
use hashpact_node::Node;
use hashpact_store::StoreOptions;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::entries::{self, Which};
use super::latency::{Latency, Times};
use super::machine::{Machine, Memory, cpu_seconds};
use super::overload::{Overload, overload};
use super::{Bench, CommonArgs, Disk, import, per_second, rounded, say, seconds};
use crate::cli::client::{self, SOFTWARE};
use crate::cli::error::CliError;
use crate::cli::trial::Trial;
use crate::cli::{Context, output};

/// Calls of a batch that are under way at once.
const CALLERS: u32 = 4;
/// Batches that are made before the clock starts, and asked in turn.
const POOL: u64 = 256;

/// How to ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    pub(super) batch: u32,
    pub(super) streams: u32,
    pub(super) seconds: u32,
}

#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    entries: u64,
    batches: Asked,
    one_at_a_time: Asked,
    overload: Overload,
    /// From opening the store until its first exact answer.
    start_s: f64,
    /// From opening the store until all near values are found.
    start_near_s: f64,
    disk: Disk,
    memory: Memory,
    machine: Machine,
}

/// Half of the signals are known; SHA-256 and PDQ take turns.
#[derive(Debug, Serialize)]
struct Asked {
    signals_per_call: u32,
    callers: u32,
    lookups: u64,
    elapsed_s: f64,
    lookups_per_s: f64,
    /// Of one call.
    latency_ms: Latency,
    /// Client and node are one process here.
    cpu_s: f64,
}

/// Measures and prints.
pub(super) fn run(common: &CommonArgs, asking: Asking, context: &Context) -> Result<(), CliError> {
    let bench = Bench::begin("lookup", common)?;
    let trial = Trial::found(&[("north", false)])?;
    let dir = bench.dir().join("north");
    let node = trial.open(trial.seat(0)?, &dir, StoreOptions::default())?;
    node.create_set(&super::new_set()?)
        .map_err(CliError::failed)?;
    import::fill(&node, common.entries)?;
    let disk = Disk::of(&node, common.entries)?;
    drop(node);
    let began = Instant::now();
    let node = trial.open(trial.seat(0)?, &dir, StoreOptions::default())?;
    node.lookup(&super::signals(0)?).map_err(CliError::failed)?;
    let start = began.elapsed();
    super::wait_for_near(&node)?;
    let start_near = began.elapsed();
    super::check_answers(&node, common.entries)?;
    Memory::reset_peak();
    let runtime = tokio::runtime::Runtime::new().map_err(CliError::failed)?;
    let (batches, one_at_a_time, overload) =
        runtime.block_on(ask(&node, bench.dir(), common.entries, asking))?;
    drop(runtime);
    let report = Report {
        bench: "lookup",
        entries: common.entries,
        batches,
        one_at_a_time,
        overload,
        start_s: seconds(start),
        start_near_s: seconds(start_near),
        disk,
        memory: Memory::here(),
        machine: Machine::here(),
    };
    drop(node);
    bench.end()?;
    print(&report, context)
}

async fn ask(
    node: &Arc<Node>,
    dir: &Path,
    entries: u64,
    asking: Asking,
) -> Result<(Asked, Asked, Overload), CliError> {
    let path = dir.join("api.sock");
    let door = Door::open(node, &path).await?;
    let time = Duration::from_secs(u64::from(asking.seconds));
    say(format!("asking in batches of {}", asking.batch));
    let batches = batches(&path, entries, asking.batch, time).await?;
    say(format!(
        "asking one at a time over {} streams",
        asking.streams
    ));
    let singles = singles(&path, entries, asking.streams, time).await?;
    say("asking in batches with far too many callers");
    let requests = Arc::new(pool(entries, asking.batch));
    let overload = overload(&path, requests, asking.batch, time).await?;
    door.close().await?;
    Ok((batches, singles, overload))
}

/// The local API of a node, on a socket.
pub(super) struct Door {
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), CliError>>,
}

impl Door {
    pub(super) async fn open(node: &Arc<Node>, path: &Path) -> Result<Self, CliError> {
        let socket = Socket::bind(path).await.map_err(CliError::failed)?;
        let about = About {
            software: SOFTWARE.to_owned(),
            certificate_expires: None,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let service = NodeService::new(Arc::clone(node), about);
        let serving = socket.serve(service, async {
            let _ = stopped.await;
        });
        let server = tokio::spawn(async { serving.await.map_err(CliError::failed) });
        Ok(Self { stop, server })
    }

    pub(super) async fn close(self) -> Result<(), CliError> {
        let _ = self.stop.send(());
        let outcome = tokio::time::timeout(Duration::from_secs(10), self.server).await;
        if let Ok(Ok(ended)) = outcome {
            ended?;
        }
        Ok(())
    }
}

async fn batches(path: &Path, entries: u64, batch: u32, time: Duration) -> Result<Asked, CliError> {
    let requests = Arc::new(pool(entries, batch));
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let mut callers = Vec::new();
    for caller in 0..CALLERS {
        let (requests, node) = (Arc::clone(&requests), connect(path).await?);
        let from = usize::try_from(caller).unwrap_or(0) * requests.len() / 4;
        callers.push(tokio::spawn(call(node, requests, from, began + time)));
    }
    let mut times = Times::default();
    for caller in callers {
        times.add(caller.await.map_err(CliError::failed)??);
    }
    let lookups = times.count() * u64::from(batch);
    Ok(asked(
        (batch, CALLERS),
        lookups,
        began.elapsed(),
        &times,
        cpu,
    ))
}

fn pool(entries: u64, batch: u32) -> Vec<wire::LookupRequest> {
    let request = |n| request(n * u64::from(batch), batch, entries);
    (0..POOL).map(request).collect()
}

async fn call(
    mut node: NodeClient<Channel>,
    requests: Arc<Vec<wire::LookupRequest>>,
    from: usize,
    until: Instant,
) -> Result<Times, CliError> {
    let mut times = Times::default();
    for request in requests.iter().cycle().skip(from) {
        let began = Instant::now();
        if began >= until {
            break;
        }
        let answered = node.lookup(request.clone()).await;
        let answered = answered.map_err(|status| client::failed(&status))?;
        check(request, &answered.into_inner())?;
        times.push(began.elapsed());
    }
    Ok(times)
}

async fn singles(
    path: &Path,
    entries: u64,
    streams: u32,
    time: Duration,
) -> Result<Asked, CliError> {
    let node = connect(path).await?;
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let mut askers = Vec::new();
    for stream in 0..streams {
        let from = u64::from(stream) << 32;
        askers.push(tokio::spawn(stream_of(
            node.clone(),
            from,
            entries,
            began + time,
        )));
    }
    let mut times = Times::default();
    for asker in askers {
        times.add(asker.await.map_err(CliError::failed)??);
    }
    Ok(asked(
        (1, streams),
        times.count(),
        began.elapsed(),
        &times,
        cpu,
    ))
}

/// Asks for one signal, waits for the answer, asks for the next.
async fn stream_of(
    mut node: NodeClient<Channel>,
    from: u64,
    entries: u64,
    until: Instant,
) -> Result<Times, CliError> {
    let (ask, asks) = mpsc::channel(1);
    let answers = node.lookup_stream(ReceiverStream::new(asks)).await;
    let mut answers = answers
        .map_err(|status| client::failed(&status))?
        .into_inner();
    let mut times = Times::default();
    for n in from.. {
        let request = request(n, 1, entries);
        let began = Instant::now();
        if began >= until || ask.send(request.clone()).await.is_err() {
            break;
        }
        let Some(answer) = answers.next().await else {
            return Err(CliError::failed("the node ended a stream"));
        };
        check(&request, &answer.map_err(|status| client::failed(&status))?)?;
        times.push(began.elapsed());
    }
    Ok(times)
}

pub(super) async fn connect(path: &Path) -> Result<NodeClient<Channel>, CliError> {
    client::over_socket(path.to_owned(), None).await
}

/// Signals spread over the set, every other one in no set.
fn request(from: u64, count: u32, entries: u64) -> wire::LookupRequest {
    let numbers = from..from + u64::from(count);
    let signals = numbers.map(|n| {
        let known = entries::scattered(n) % entries;
        let (known, which) = match n % 4 {
            0 => (known, Which::Sha256),
            1 => (known, Which::Pdq),
            2 => (entries::MISS + known, Which::Sha256),
            _ => (entries::MISS + known, Which::Pdq),
        };
        wire::Signal {
            kind: which.kind().number(),
            value: entries::value(known, which).to_vec().into(),
            quality: None,
        }
    });
    wire::LookupRequest {
        signals: signals.collect(),
        ..wire::LookupRequest::default()
    }
}

/// Half of the answers must have a match; of a single one it is not known here.
pub(super) fn check(
    request: &wire::LookupRequest,
    response: &wire::LookupResponse,
) -> Result<(), CliError> {
    let hits = response.answers.iter().filter(|a| !a.matches.is_empty());
    let (asked, hits) = (request.signals.len(), hits.count());
    let expected = asked == 1 || hits == asked / 2;
    if response.answers.len() == asked && expected {
        return Ok(());
    }
    Err(CliError::failed(format!(
        "{hits} of {asked} signals were known"
    )))
}

fn asked(
    (signals_per_call, callers): (u32, u32),
    lookups: u64,
    elapsed: Duration,
    times: &Times,
    cpu: f64,
) -> Asked {
    Asked {
        signals_per_call,
        callers,
        lookups,
        elapsed_s: seconds(elapsed),
        lookups_per_s: per_second(lookups, elapsed),
        latency_ms: times.latency(),
        cpu_s: rounded(cpu_seconds() - cpu),
    }
}

fn print(report: &Report, context: &Context) -> Result<(), CliError> {
    let (many, one) = (&report.batches, &report.one_at_a_time);
    let rows = [
        ("entries", output::count(report.entries)),
        ("in batches, signals/s", super::whole(many.lookups_per_s)),
        ("a batch, p50 / p99", many.latency_ms.line()),
        ("one at a time, signals/s", super::whole(one.lookups_per_s)),
        ("one, p50 / p99", one.latency_ms.line()),
        (
            "far too many callers, signals/s",
            super::whole(report.overload.lookups_per_s),
        ),
        (
            "an accepted batch, p50 / p99",
            report.overload.latency_ms.line(),
        ),
        (
            "start, until exact answers",
            format!("{:.2} s", report.start_s),
        ),
        (
            "start, until near values are found",
            format!("{:.2} s", report.start_near_s),
        ),
        ("memory, peak", output::bytes(report.memory.peak_bytes)),
    ];
    super::print(report, &rows, &report.machine, context)
}
