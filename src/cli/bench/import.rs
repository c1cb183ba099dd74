//! `bench import`: CSV lines into a feed, in one process.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use hashpact_core::id::UnixMillis;
use hashpact_core::leaf::{Basis, MediaKind, Publish};
use hashpact_formats::{Format, Item, Options, Reader, Record};
use hashpact_node::Node;
use hashpact_node::model::{ImportProgress, NewEntry};
use hashpact_store::StoreOptions;
use serde::Serialize;

use super::machine::{Machine, Memory, cpu_seconds};
use super::{Bench, CommonArgs, Disk, SET, entries, per_second, say, seconds};
use crate::cli::error::CliError;
use crate::cli::output::Progress;
use crate::cli::trial::Trial;
use crate::cli::{Context, output};

/// Entries that are handed to the node at once.
const BATCH: usize = 4_096;
/// Batches that the parser may be ahead.
const AHEAD: usize = 4;

#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    entries: u64,
    /// From the first byte of the file to a signed head that covers all of it,
    /// with everything indexed and durable.
    elapsed_s: f64,
    rows_per_s: f64,
    stages: Stages,
    csv_bytes: u64,
    /// Until RocksDB had nothing left to flush or to compact, after that.
    settle_s: f64,
    pending_compaction_bytes: u64,
    disk: Disk,
    memory: Memory,
    /// From opening the store again until it answered exactly.
    start_s: f64,
    machine: Machine,
}

/// Parsing runs beside the node; the other two follow each other.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "units stand in names")]
struct Stages {
    /// The parser at work, not waiting for the node.
    parse_s: f64,
    /// Known entries found, leaves encoded, hashed, packed and appended.
    node_s: f64,
    /// The node waiting for the parser.
    node_waits_s: f64,
    /// Leaves synced, root recomputed, head signed, index written.
    sign_and_index_s: f64,
    /// Processor time of all threads together.
    cpu_s: f64,
}

/// Measures and prints.
pub(super) fn run(common: &CommonArgs, context: &Context) -> Result<(), CliError> {
    let bench = Bench::begin("import", common)?;
    let csv = bench.dir().join("entries.csv");
    let csv_bytes = generate(&csv, common.entries)?;
    let trial = Trial::found(&[("north", false)])?;
    let seat = trial.seat(0)?;
    let dir = bench.dir().join("north");
    let node = trial.open(seat, &dir, StoreOptions::default())?;
    node.create_set(&super::new_set()?)
        .map_err(CliError::failed)?;
    Memory::reset_peak();
    say("importing");
    let began = Instant::now();
    let (outcome, stages) = import(&node, &csv, common.entries)?;
    let elapsed = began.elapsed();
    check(&outcome, common.entries)?;
    let settle = super::settle(&node)?;
    let memory = Memory::here();
    let disk = Disk::of(&node, common.entries)?;
    let stats = node.store().stats().map_err(CliError::failed)?;
    super::check_answers(&node, common.entries)?;
    drop(node);
    let began = Instant::now();
    let node = trial.open(seat, &dir, StoreOptions::default())?;
    super::check_answers(&node, common.entries)?;
    let report = Report {
        bench: "import",
        entries: common.entries,
        elapsed_s: seconds(elapsed),
        rows_per_s: per_second(common.entries, elapsed),
        stages,
        csv_bytes,
        settle_s: seconds(settle),
        pending_compaction_bytes: stats.pending_compaction_bytes,
        disk,
        memory,
        start_s: seconds(began.elapsed()),
        machine: Machine::here(),
    };
    drop(node);
    bench.end()?;
    print(&report, context)
}

fn generate(path: &Path, count: u64) -> Result<u64, CliError> {
    say(format!("writing {} lines of CSV", output::count(count)));
    let mut progress = Progress::count(Some(count));
    let mut file = BufWriter::new(File::create(path).map_err(CliError::failed)?);
    entries::write_csv(count, &mut file, |done| progress.add(done)).map_err(CliError::failed)?;
    file.flush().map_err(CliError::failed)?;
    let metadata = std::fs::metadata(path).map_err(CliError::failed)?;
    Ok(metadata.len())
}

/// Makes a node hold entries `0..count`, without a file: what other measurements
/// begin with.
pub(super) fn fill(node: &Arc<Node>, count: u64) -> Result<Duration, CliError> {
    fill_range(node, 0..count)
}

/// Makes a node hold these entries.
pub(super) fn fill_range(node: &Arc<Node>, numbers: Range<u64>) -> Result<Duration, CliError> {
    let count = numbers.end.saturating_sub(numbers.start);
    say(format!("publishing {} entries", output::count(count)));
    let began = Instant::now();
    let (sender, batches) = sync_channel(AHEAD);
    std::thread::scope(|scope| {
        let maker = scope.spawn(move || make(numbers, &sender));
        let (outcome, _) = publish(node, &batches, count)?;
        drop(batches);
        maker.join().map_err(|_| lost())??;
        check(&outcome, count)
    })?;
    super::settle(node)?;
    Ok(began.elapsed())
}

fn make(numbers: Range<u64>, to: &SyncSender<Vec<NewEntry>>) -> Result<(), CliError> {
    let mut batch = Vec::with_capacity(BATCH);
    for n in numbers {
        batch.push(entry(n)?);
        if batch.len() == BATCH {
            let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
            if to.send(full).is_err() {
                // The other end failed, and says why.
                return Ok(());
            }
        }
    }
    let _ = to.send(batch);
    Ok(())
}

/// Entry `n`, as from line `n`.
pub(super) fn entry(n: u64) -> Result<NewEntry, CliError> {
    let body = entries::publish(n).map_err(CliError::failed)?;
    Ok(NewEntry { body, line: n })
}

fn lost() -> CliError {
    CliError::failed("a thread did not end as it should")
}

fn import(node: &Arc<Node>, csv: &Path, count: u64) -> Result<(ImportProgress, Stages), CliError> {
    let (sender, batches) = sync_channel(AHEAD);
    let cpu = cpu_seconds();
    std::thread::scope(|scope| {
        let parser = scope.spawn(move || parse(csv, &sender));
        let (outcome, mut stages) = publish(node, &batches, count)?;
        drop(batches);
        stages.parse_s = seconds(parser.join().map_err(|_| lost())??);
        stages.cpu_s = super::rounded(cpu_seconds() - cpu);
        Ok((outcome, stages))
    })
}

/// Parses and hands batches on; answers how long it was at work.
fn parse(csv: &Path, to: &SyncSender<Vec<NewEntry>>) -> Result<Duration, CliError> {
    let file = File::open(csv).map_err(CliError::failed)?;
    let mut work = Duration::ZERO;
    let mut began = Instant::now();
    let mut batch = Vec::with_capacity(BATCH);
    for item in Reader::new(Format::Csv, file, Options::default()) {
        match item.map_err(CliError::failed)? {
            Item::Record(record) => batch.push(entry_of(record)),
            Item::Reject(reject) => return Err(CliError::failed(reject.reason)),
        }
        if batch.len() == BATCH {
            work += began.elapsed();
            let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
            if to.send(full).is_err() {
                // The other end failed, and says why.
                return Ok(work);
            }
            began = Instant::now();
        }
    }
    work += began.elapsed();
    let _ = to.send(batch);
    Ok(work)
}

fn entry_of(record: Record) -> NewEntry {
    NewEntry {
        line: record.line,
        body: Publish {
            media_kind: record.media_kind.unwrap_or(MediaKind::Image),
            signals: record.signals,
            classification: record.classification,
            labels: record.labels,
            basis: record.basis.unwrap_or(Basis::Human),
            source_reference: record.reference.unwrap_or_default(),
            first_seen: record.first_seen_ms.map(UnixMillis),
            expires: record.expires_ms.map(UnixMillis),
            replaces: Vec::new(),
            published: UnixMillis(0),
        },
    }
}

fn publish(
    node: &Arc<Node>,
    batches: &Receiver<Vec<NewEntry>>,
    count: u64,
) -> Result<(ImportProgress, Stages), CliError> {
    let mut progress = Progress::count(Some(count));
    let mut import = node.import(&super::set_slug()?).map_err(CliError::failed)?;
    let (mut work, mut wait) = (Duration::ZERO, Duration::ZERO);
    let mut began = Instant::now();
    while let Ok(batch) = batches.recv() {
        wait += began.elapsed();
        began = Instant::now();
        progress.add(u64::try_from(batch.len()).unwrap_or(0));
        let state = import.push(batch).map_err(CliError::failed)?;
        if let Some(rejected) = state.rejected.first() {
            return Err(CliError::failed(&rejected.reason));
        }
        work += began.elapsed();
        began = Instant::now();
    }
    let signing = Instant::now();
    let outcome = import.finish().map_err(CliError::failed)?;
    let stages = Stages {
        parse_s: 0.0,
        node_s: seconds(work),
        node_waits_s: seconds(wait),
        sign_and_index_s: seconds(signing.elapsed()),
        cpu_s: 0.0,
    };
    Ok((outcome, stages))
}

fn check(outcome: &ImportProgress, count: u64) -> Result<(), CliError> {
    if outcome.added == count && outcome.head.is_some_and(|(size, _)| size == count + 1) {
        return Ok(());
    }
    Err(CliError::failed(format!(
        "{} of {count} entries were added to {SET}",
        outcome.added
    )))
}

fn print(report: &Report, context: &Context) -> Result<(), CliError> {
    let rows = [
        ("rows", output::count(report.entries)),
        ("elapsed", format!("{:.2} s", report.elapsed_s)),
        ("rows/s", super::whole(report.rows_per_s)),
        (
            "parse (beside it)",
            format!("{:.2} s", report.stages.parse_s),
        ),
        ("node", format!("{:.2} s", report.stages.node_s)),
        (
            "sign and index",
            format!("{:.2} s", report.stages.sign_and_index_s),
        ),
        ("settle, after it", format!("{:.2} s", report.settle_s)),
        (
            "pending compaction",
            output::bytes(report.pending_compaction_bytes),
        ),
        (
            "disk per entry",
            format!("{:.0} B", report.disk.bytes_per_entry),
        ),
        ("memory, peak", output::bytes(report.memory.peak_bytes)),
        ("memory, after", output::bytes(report.memory.resident_bytes)),
        ("start", format!("{:.2} s", report.start_s)),
    ];
    super::print(report, &rows, &report.machine, context)
}
