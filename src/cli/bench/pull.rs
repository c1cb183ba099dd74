//! `bench pull`: a first pull of a whole set over mutual TLS, and beside it, in the
//! same run, its limit.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashpact_net::exchange::Exchange;
use hashpact_node::Node;
use hashpact_store::{FeedInfo, StoreOptions};
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::limit::{self, Limit};
use super::machine::{Machine, Memory, cpu_seconds};
use super::meters::Meters;
use super::serve::{self, Serving, Upstream};
use super::{Bench, CommonArgs, Disk, per_second, rounded, say, seconds};
use crate::cli::error::CliError;
use crate::cli::trial::{Seat, Trial};
use crate::cli::{Context, output};

const LEAVES: &str = "hashpact_pulled_leaves_total";
const READ: &str = "hashpact_wire_read_bytes_total";
const BUSY: &str = "hashpact_pull_busy_microseconds_total";
/// Between looks at how far it is.
const LOOK: Duration = Duration::from_millis(5);
/// The same by what the program counts, which takes some work to read.
const LOOK_AT_METERS: Duration = Duration::from_millis(20);
/// A pull that is slower than this is given up.
const LEAST_PER_SECOND: u64 = 10_000;
/// What a pull may take whatever its size.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    entries: u64,
    entries_per_s: f64,
    limit_per_s: f64,
    ratio: f64,
    pull: Pulled,
    limit: Limit,
    /// From opening the store again until it answered exactly.
    start_s: f64,
    pending_compaction_bytes: u64,
    disk: Disk,
    /// Of the pulling node: at the peak of the pull, and after it.
    memory: Memory,
    /// The node that was pulled from, a process of its own.
    upstream: Serving,
    machine: Machine,
}

/// How a pull went.
#[derive(Debug, Serialize)]
pub(super) struct Pulled {
    /// From the start of the exchange until verified, answered, durable and settled.
    elapsed_s: f64,
    stages: Stages,
    wire_bytes_per_entry: f64,
    /// Processor time of the pulling node.
    cpu_s: f64,
}

/// The first four follow each other and make up the whole; after them near values are
/// waited for. The rest went on beside receiving, each as the sum over its threads.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "units stand in names")]
struct Stages {
    /// Until the first chunk was verified: dial, handshake, roster, watch, head.
    connect_s: f64,
    /// From then on until the last was verified.
    receive_s: f64,
    /// From then on until all was durable, indexed and answered.
    index_s: f64,
    /// Until nothing was left to flush or compact.
    settle_s: f64,
    /// From then on until near values of all were found too.
    near_s: f64,
    verify_busy_s: f64,
    store_busy_s: f64,
    commit_busy_s: f64,
}

/// Measures and prints.
pub(super) fn run(common: &CommonArgs, context: &Context) -> Result<(), CliError> {
    let meters = Meters::start()?;
    let bench = Bench::begin("pull", common)?;
    let (trial, dir) = (trial()?, bench.dir().join("harbor"));
    let (upstream, serving) =
        Upstream::start(&trial, bench.dir().join("north"), (common.entries, false))?;
    let mut running = Running::start(&trial, &dir)?;
    let pull = running.pull(&meters, common.entries)?;
    let disk = Disk::of(&running.node, common.entries)?;
    let stats = running.node.store().stats().map_err(CliError::failed)?;
    super::check_answers(&running.node, common.entries)?;
    let memory = running.memory;
    running.stop()?;
    let began = Instant::now();
    let node = trial.open(trial.seat(1)?, &dir, StoreOptions::default())?;
    super::check_answers(&node, common.entries)?;
    let start = began.elapsed();
    drop(node);
    let limit = run_limit(&trial, serving.limit_port, bench.dir(), common.entries)?;
    upstream.stop()?;
    let entries_per_s = rounded(pull.rate(common.entries));
    let report = Report {
        bench: "pull",
        entries: common.entries,
        entries_per_s,
        limit_per_s: limit.entries_per_s,
        ratio: rounded(entries_per_s / limit.entries_per_s.max(1.0)),
        pull,
        limit,
        start_s: seconds(start),
        pending_compaction_bytes: stats.pending_compaction_bytes,
        disk,
        memory,
        upstream: serving,
        machine: Machine::here(),
    };
    bench.end()?;
    print(&report, context)
}

/// A publisher that listens, and a reader that dials it.
pub(super) fn trial() -> Result<Trial, CliError> {
    Trial::found(&[("north", true), ("harbor", false)])
}

fn run_limit(trial: &Trial, port: u16, dir: &Path, entries: u64) -> Result<Limit, CliError> {
    say("the limit: the same bytes and keys without a protocol");
    let runtime = Runtime::new().map_err(CliError::failed)?;
    let dir = dir.join("limit");
    let limit = limit::run(trial, port, &dir, entries, StoreOptions::default());
    runtime.block_on(limit)
}

/// Counters before a pull, where nodes pulled before in this process.
#[derive(Debug, Default)]
pub(super) struct Before {
    leaves: f64,
    read: f64,
    verify: f64,
    store: f64,
    commit: f64,
}

impl Before {
    pub(super) fn of(meters: &Meters) -> Self {
        Self {
            leaves: meters.sum(LEAVES, ""),
            read: meters.sum(READ, ""),
            verify: meters.sum(BUSY, "verify"),
            store: meters.sum(BUSY, "store"),
            commit: meters.sum(BUSY, "commit"),
        }
    }
}

/// The reading node, at work.
pub(super) struct Running {
    pub(super) node: Arc<Node>,
    exchange: Exchange,
    stop: CancellationToken,
    runtime: Runtime,
    began: Instant,
    cpu: f64,
    memory: Memory,
}

impl Running {
    pub(super) fn start(trial: &Trial, dir: &Path) -> Result<Self, CliError> {
        let seat = trial.seat(1)?;
        Self::on(trial.open(seat, dir, StoreOptions::default())?, seat)
    }

    /// Starts the exchange of a node that is open.
    pub(super) fn on(node: Arc<Node>, seat: &Seat) -> Result<Self, CliError> {
        let runtime = Runtime::new().map_err(CliError::failed)?;
        let stop = CancellationToken::new();
        Memory::reset_peak();
        let (began, cpu) = (Instant::now(), cpu_seconds());
        let exchange = runtime.block_on(serve::exchange(&node, seat, stop.clone()))?;
        Ok(Self {
            node,
            exchange,
            stop,
            runtime,
            began,
            cpu,
            memory: Memory::default(),
        })
    }

    /// Waits until the whole set is here, answers and rests.
    pub(super) fn pull(&mut self, meters: &Meters, entries: u64) -> Result<Pulled, CliError> {
        say("pulling");
        self.pull_more(meters, &Before::default(), entries)
    }

    /// The same where so many leaves were pulled before, by other nodes.
    pub(super) fn pull_more(
        &mut self,
        meters: &Meters,
        before: &Before,
        entries: u64,
    ) -> Result<Pulled, CliError> {
        let leaves = super::count_of(entries + 1);
        let pulled = || meters.sum(LEAVES, "") - before.leaves;
        let patience = PATIENCE + Duration::from_secs(entries / LEAST_PER_SECOND);
        self.wait_until((patience, LOOK_AT_METERS), || pulled() > 0.0)?;
        let connected = Instant::now();
        self.wait_until((patience, LOOK_AT_METERS), || pulled() >= leaves)?;
        let received = Instant::now();
        self.wait_until((patience, LOOK), || self.applied() == Some(entries + 1))?;
        // The first and the last entry, and what is in no set.
        super::check_answers(&self.node, 1)?;
        let indexed = Instant::now();
        let settle = super::settle(&self.node)?;
        let elapsed = self.began.elapsed();
        super::wait_for_near(&self.node)?;
        let near = self.began.elapsed().saturating_sub(elapsed);
        self.memory = Memory::here();
        let busy = |stage, before| rounded((meters.sum(BUSY, stage) - before) / 1e6);
        let read = meters.sum(READ, "") - before.read;
        Ok(Pulled {
            elapsed_s: seconds(elapsed),
            stages: Stages {
                connect_s: seconds(connected - self.began),
                receive_s: seconds(received - connected),
                index_s: seconds(indexed - received),
                settle_s: seconds(settle),
                near_s: seconds(near),
                verify_busy_s: busy("verify", before.verify),
                store_busy_s: busy("store", before.store),
                commit_busy_s: busy("commit", before.commit),
            },
            wire_bytes_per_entry: rounded(read / super::count_of(entries)),
            cpu_s: rounded(cpu_seconds() - self.cpu),
        })
    }

    /// The size of the applied head of the other member's set.
    pub(super) fn applied(&self) -> Option<u64> {
        let feeds = self.node.store().feeds();
        let applied = |feed: &FeedInfo| feed.applied.map(|head| head.size);
        feeds.iter().find(|feed| !feed.own).and_then(applied)
    }

    fn wait_until(
        &self,
        (patience, step): (Duration, Duration),
        done: impl Fn() -> bool,
    ) -> Result<(), CliError> {
        let until = self.began + patience;
        while !done() {
            if Instant::now() > until {
                let state = self.exchange.view().peers();
                let state = state
                    .first()
                    .map(|peer| (peer.state, peer.last_error.clone()));
                return Err(CliError::failed(format!(
                    "not there after {}: {state:?}",
                    output::duration(patience)
                )));
            }
            std::thread::sleep(step);
        }
        Ok(())
    }

    pub(super) fn stop(self) -> Result<(), CliError> {
        self.stop.cancel();
        self.runtime.block_on(self.exchange.wait());
        // Tasks that hold the node end with the runtime.
        self.runtime.shutdown_timeout(Duration::from_secs(10));
        let freed = Arc::try_unwrap(self.node).map(drop);
        freed.map_err(|_| CliError::failed("something still holds the node"))
    }
}

impl Pulled {
    pub(super) fn rate(&self, entries: u64) -> f64 {
        per_second(entries, Duration::from_secs_f64(self.elapsed_s))
    }
}

fn print(report: &Report, context: &Context) -> Result<(), CliError> {
    let (pull, limit) = (&report.pull.stages, &report.limit);
    let time = |seconds: f64| format!("{seconds:.2} s");
    let rows = [
        ("entries", output::count(report.entries)),
        ("entries/s", super::whole(report.entries_per_s)),
        ("limit, entries/s", super::whole(report.limit_per_s)),
        ("ratio", format!("{:.2}", report.ratio)),
        ("elapsed", time(report.pull.elapsed_s)),
        ("connect", time(pull.connect_s)),
        ("receive", time(pull.receive_s)),
        ("index", time(pull.index_s)),
        ("settle", time(pull.settle_s)),
        ("near values, after that", time(pull.near_s)),
        ("verifying, all threads", time(pull.verify_busy_s)),
        ("storing", time(pull.store_busy_s)),
        ("limit: receive", time(limit.receive_s)),
        ("limit: files", time(limit.files_s)),
        ("start", time(report.start_s)),
        (
            "disk per entry",
            format!("{:.0} B", report.disk.bytes_per_entry),
        ),
        ("memory, peak", output::bytes(report.memory.peak_bytes)),
        ("memory, after", output::bytes(report.memory.resident_bytes)),
    ];
    super::print(report, &rows, &report.machine, context)
}
