//! `bench pdq`: the index of PDQ values, in process and beside a linear scan.
//!
//! Values are made from a number, or read from a file so that other programs can be
//! asked the same.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use data_encoding::HEXLOWER;
use hashpact_matching::pdq::bench::{self, Data, Reference};
use hashpact_matching::pdq::{DEFAULT_DISTANCE, MAX_DISTANCE, PdqIndex};
use serde::Serialize;

use super::latency::{Latency, Times};
use super::machine::{Machine, Memory};
use super::{per_second, ratio, rounded, say, seconds};
use crate::cli::error::CliError;
use crate::cli::{Context, output};

/// Passes of which the fastest is told.
const PASSES: usize = 3;
/// Queries that the linear scan is asked, which is slow.
const SCANNED: usize = 40;
/// Queries whose answers are compared with `--check`, at each distance.
const CHECKED: usize = 200;
/// The largest distance that `--check` compares at.
const CHECK_MAX: u32 = 40;
/// Names the values, and, another one, the queries.
const SEEDS: (u64, u64) = (1, 2);
/// Longest line of a file of values.
const LINE_MAX: usize = 256;

/// How the index is asked.
#[derive(Debug, Args)]
pub struct PdqArgs {
    /// Distinct values in the index
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    entries: u64,
    /// Queries: every other one is a value with some bits flipped
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    queries: u64,
    /// Distance within which a value matches, in bits
    #[arg(long, value_name = "BITS", default_value_t = DEFAULT_DISTANCE, value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_DISTANCE)))]
    distance: u32,
    /// Threads that ask at once [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// How values are distributed
    #[arg(long, value_enum, default_value_t = Spread::All, hide_possible_values = false)]
    data: Spread,
    /// Compare answers with brute force at every distance from 0 to 40
    #[arg(long)]
    check: bool,
    /// Take the values from a file instead: 64 hex digits a line
    #[arg(long, value_name = "FILE", requires = "asked")]
    values: Option<PathBuf>,
    /// Take the queries from a file as well
    #[arg(long = "ask", id = "asked", value_name = "FILE", requires = "values")]
    asked: Option<PathBuf>,
    /// Write every answer to a file: number of the query, distance, value
    #[arg(long, value_name = "FILE", requires = "asked")]
    answers: Option<PathBuf>,
}

/// How values are distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Spread {
    /// Each of the others in turn
    All,
    /// Each bit by chance
    Random,
    /// Families of 64 near-duplicates
    Clustered,
    /// The first 128 bits are the same in all
    EqualPrefix,
    /// Each 16-bit word is one of four
    EqualWords,
}

impl Spread {
    fn all(self) -> &'static [Data] {
        match self {
            Self::All => &Data::ALL,
            Self::Random => &[Data::Random],
            Self::Clustered => &[Data::Clustered],
            Self::EqualPrefix => &[Data::EqualPrefix],
            Self::EqualWords => &[Data::EqualWords],
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    entries: u64,
    distance: u32,
    threads: usize,
    data: Vec<Measured>,
    memory: Memory,
    machine: Machine,
}

/// What was measured with values of one kind.
#[derive(Debug, Serialize)]
struct Measured {
    data: &'static str,
    values: u64,
    queries: u64,
    matches: u64,
    build_s: f64,
    index_bytes: u64,
    bytes_per_value: f64,
    /// A SIMD scan of the packed values, one thread, one query at a time.
    linear_per_s: f64,
    /// One query at a time; the fastest of three passes, after one that warms up, as
    /// all figures below.
    one_thread: Asked,
    all_threads: Asked,
    /// Queries handed over together, on one thread and on all.
    batch_per_s: f64,
    batch_all_threads_per_s: f64,
    /// One query at a time and one thread, against the scan.
    to_linear: f64,
    /// Present with `--check`.
    #[serde(skip_serializing_if = "Option::is_none")]
    checked: Option<Checked>,
}

#[derive(Debug, Serialize)]
struct Asked {
    per_s: f64,
    latency_ms: Latency,
}

/// Answers that were found equal to brute force; a difference ends the measurement.
#[derive(Debug, Serialize)]
struct Checked {
    queries: u64,
    distances: u32,
    matches: u64,
}

/// Measures and prints.
pub(super) fn run(args: &PdqArgs, context: &Context) -> Result<(), CliError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.unwrap_or(cores).clamp(1, 1_024);
    let mut measured = Vec::new();
    match (&args.values, &args.asked) {
        (Some(values), Some(asked)) => {
            let (values, asked) = (read(values)?, read(asked)?);
            measured.push(measure("file", &values, &asked, threads, args)?);
        }
        _ => {
            for data in args.data.all() {
                let count = |number: u64| usize::try_from(number).map_err(CliError::failed);
                let values = data.values(count(args.entries)?, SEEDS.0);
                let asked = bench::queries(&values, count(args.queries)?, args.distance, SEEDS.1);
                measured.push(measure(data.name(), &values, &asked, threads, args)?);
            }
        }
    }
    let report = Report {
        bench: "pdq",
        entries: measured.first().map_or(0, |measured| measured.values),
        distance: args.distance,
        threads,
        data: measured,
        memory: Memory::here(),
        machine: Machine::here(),
    };
    print(&report, context)
}

fn measure(
    name: &'static str,
    values: &[[u8; 32]],
    asked: &[[u8; 32]],
    threads: usize,
    args: &PdqArgs,
) -> Result<Measured, CliError> {
    let max = args.distance;
    say(format!(
        "{name}: indexing {} values",
        output::count(many(values.len()))
    ));
    let began = Instant::now();
    let index = PdqIndex::build(values.iter().copied(), threads);
    let build = began.elapsed();
    let reference = Reference::new(values);
    let checked = if args.check {
        Some(check(name, &index, &reference, values)?)
    } else {
        None
    };
    say(format!(
        "{name}: asking {} queries",
        output::count(many(asked.len()))
    ));
    let few = asked.get(..asked.len().min(SCANNED)).unwrap_or(asked);
    let began = Instant::now();
    for query in few {
        reference.query(query, max, |_, _| {});
    }
    let linear = per_second(many(few.len()), began.elapsed());
    // The scan left other memory in the caches than a node that is asked has there.
    one_by_one(&index, asked, max, threads)?;
    let one_thread = best(|| one_by_one(&index, asked, max, 1), |asked| asked.per_s)?;
    let all_threads = best(
        || one_by_one(&index, asked, max, threads),
        |asked| asked.per_s,
    )?;
    let (batch, matches) = best(|| in_batches(&index, asked, max, 1), |(per_s, _)| *per_s)?;
    let (batch_all, _) = best(
        || in_batches(&index, asked, max, threads),
        |(per_s, _)| *per_s,
    )?;
    if let Some(path) = &args.answers {
        write_answers(path, &index, asked, max)?;
    }
    let stats = index.stats();
    Ok(Measured {
        data: name,
        values: many(index.len()),
        queries: many(asked.len()),
        matches,
        build_s: seconds(build),
        index_bytes: many(stats.memory_bytes),
        bytes_per_value: rounded(ratio(many(stats.memory_bytes), many(index.len()))),
        linear_per_s: linear,
        to_linear: rounded(one_thread.per_s / linear.max(1.0)),
        one_thread,
        all_threads,
        batch_per_s: batch,
        batch_all_threads_per_s: batch_all,
        checked,
    })
}

/// The fastest of a few passes: what else ran beside one of them is not measured.
fn best<T>(
    pass: impl Fn() -> Result<T, CliError>,
    per_s: impl Fn(&T) -> f64,
) -> Result<T, CliError> {
    let mut best = pass()?;
    for _ in 1..PASSES {
        let next = pass()?;
        if per_s(&next) > per_s(&best) {
            best = next;
        }
    }
    Ok(best)
}

/// Asks one query at a time, on so many threads that share the queries.
fn one_by_one(
    index: &PdqIndex,
    asked: &[[u8; 32]],
    max: u32,
    threads: usize,
) -> Result<Asked, CliError> {
    let work = |queries: &[[u8; 32]]| -> Result<Times, CliError> {
        let mut times = Times::default();
        for query in queries {
            let began = Instant::now();
            let found = index.query(query, max, |_, distance| {
                std::hint::black_box(distance);
            });
            found.map_err(CliError::failed)?;
            times.push(began.elapsed());
        }
        Ok(times)
    };
    let (elapsed, parts) = shared(asked, threads, work)?;
    let mut times = Times::default();
    for part in parts {
        times.add(part);
    }
    Ok(Asked {
        per_s: per_second(times.count(), elapsed),
        latency_ms: times.latency(),
    })
}

/// Hands all queries over together, a share to each thread.
fn in_batches(
    index: &PdqIndex,
    asked: &[[u8; 32]],
    max: u32,
    threads: usize,
) -> Result<(f64, u64), CliError> {
    let work = |queries: &[[u8; 32]]| -> Result<u64, CliError> {
        let mut matches = 0_u64;
        let found = index.query_batch(queries, max, |_, _, _| matches += 1);
        found.map_err(CliError::failed)?;
        Ok(matches)
    };
    let (elapsed, parts) = shared(asked, threads, work)?;
    Ok((per_second(many(asked.len()), elapsed), parts.iter().sum()))
}

/// Does the work on so many threads, each with its share of the queries.
fn shared<T: Send>(
    asked: &[[u8; 32]],
    threads: usize,
    work: impl Fn(&[[u8; 32]]) -> Result<T, CliError> + Sync,
) -> Result<(Duration, Vec<T>), CliError> {
    let share = asked.len().div_ceil(threads).max(1);
    let began = Instant::now();
    let parts = std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = asked
            .chunks(share)
            .map(|queries| scope.spawn(move || work(queries)))
            .collect();
        let lost = |_| CliError::failed("a thread did not end as it should");
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(lost)?)
            .collect::<Result<Vec<_>, _>>()
    })?;
    Ok((began.elapsed(), parts))
}

/// Compares answers with brute force, one by one and in a batch, at every distance.
fn check(
    name: &str,
    index: &PdqIndex,
    reference: &Reference,
    values: &[[u8; 32]],
) -> Result<Checked, CliError> {
    say(format!("{name}: comparing with brute force"));
    let asked = bench::queries(values, CHECKED, CHECK_MAX + 5, SEEDS.1);
    let matches = reference.check_each(index, &asked, 0..=CHECK_MAX);
    Ok(Checked {
        queries: many(asked.len()),
        distances: CHECK_MAX + 1,
        matches: many(matches.map_err(CliError::failed)?),
    })
}

fn write_answers(
    path: &Path,
    index: &PdqIndex,
    asked: &[[u8; 32]],
    max: u32,
) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::failed(format!("{}: {error}", path.display()));
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    for (number, query) in asked.iter().enumerate() {
        let mut found = Vec::new();
        let answered = index.query(query, max, |value, distance| found.push((distance, *value)));
        answered.map_err(CliError::failed)?;
        found.sort_unstable();
        for (distance, value) in found {
            writeln!(file, "{number} {distance} {}", HEXLOWER.encode(&value)).map_err(failed)?;
        }
    }
    file.flush().map_err(failed)
}

/// Reads values: 64 hex digits a line, empty lines skipped.
fn read(path: &Path) -> Result<Vec<[u8; 32]>, CliError> {
    let failed = |error: std::io::Error| CliError::failed(format!("{}: {error}", path.display()));
    let mut lines = BufReader::new(File::open(path).map_err(failed)?);
    let (mut values, mut line) = (Vec::new(), Vec::new());
    for number in 1_u64.. {
        line.clear();
        let mut limited = std::io::Read::take(&mut lines, many(LINE_MAX));
        if limited.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            break;
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let mut value = [0; 32];
        let decoded = if text.len() == 64 {
            data_encoding::HEXLOWER_PERMISSIVE.decode_mut(text, &mut value)
        } else {
            Ok(0)
        };
        if !matches!(decoded, Ok(32)) {
            return Err(CliError::usage(format!(
                "{}, line {number}: 64 hex digits are needed",
                path.display()
            )));
        }
        values.push(value);
    }
    Ok(values)
}

fn print(report: &Report, context: &Context) -> Result<(), CliError> {
    let mut rows = Vec::new();
    for measured in &report.data {
        let one = &measured.one_thread;
        let all = &measured.all_threads;
        rows.extend([
            ("data", measured.data.to_owned()),
            ("  values", output::count(measured.values)),
            (
                "  scan, one thread, queries/s",
                super::whole(measured.linear_per_s),
            ),
            ("  one by one, one thread", super::whole(one.per_s)),
            ("  one, p50 / p99 / p99.9", one.latency_ms.tail()),
            ("  one, worst", format!("{:.2} ms", one.latency_ms.max)),
            ("  one by one, all threads", super::whole(all.per_s)),
            (
                "  in batches, one thread",
                super::whole(measured.batch_per_s),
            ),
            (
                "  in batches, all threads",
                super::whole(measured.batch_all_threads_per_s),
            ),
            (
                "  bytes per value",
                format!("{:.0}", measured.bytes_per_value),
            ),
            ("  build", format!("{:.2} s", measured.build_s)),
        ]);
        if let Some(checked) = &measured.checked {
            let equal = format!(
                "{} queries x {} distances",
                checked.queries, checked.distances
            );
            rows.push(("  equal to brute force", equal));
        }
    }
    super::print(report, &rows, &report.machine, context)
}

fn many(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
