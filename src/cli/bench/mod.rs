//! `hashpact bench`: measures import, pull, watch and look-up.
//!
//! Each measurement is complete in itself: it founds a coalition of two members in
//! a folder of its own, runs real nodes over real TLS and RocksDB, prints one
//! object and removes what it made. Numbers are never judged here.

mod coalition;
mod corrections;
mod entries;
mod import;
mod latency;
mod limit;
mod lookup;
mod machine;
mod meters;
mod mixed;
mod overload;
mod pacing;
mod pdq;
mod pull;
mod serve;
mod watch;

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use hashpact_core::id::Slug;
use hashpact_core::signal::Signal;
use hashpact_node::Node;
use hashpact_node::model::{Grantee, NewSet, SetSource};
use serde::Serialize;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use self::entries::Which;
use self::machine::Machine;
use super::error::CliError;
use super::output::note;
use super::{Context, output};

/// The set that entries go to.
const SET: &str = "bench";
/// Entries whose signals are looked up to see that the figures are of work done.
const SAMPLE: u64 = 2_000;
/// The longest that the index of near values is waited for.
const NEAR_WITHIN: Duration = Duration::from_secs(600);
/// How often, and how long apart, the folder is tried to be removed when stopped.
const REMOVALS_MAX: u32 = 50;
const BETWEEN_REMOVALS: Duration = Duration::from_millis(20);

/// Measure this machine: import, pull, watch, look-up, near values
///
/// An entry is one SHA-256 and one PDQ signal with quality, classification, one
/// label and times. Figures are printed as lines, or as one object with --json.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to measure
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// CSV lines into a feed: parse, dedupe, hash, sign, index
    Import {
        /// How much
        #[command(flatten)]
        common: CommonArgs,
    },
    /// A first pull between two nodes over mutual TLS, beside its limit
    ///
    /// The limit is the same bytes over the same TLS, hashed, the same keys
    /// through the same SST path with as many threads, and no protocol.
    Pull {
        /// How much
        #[command(flatten)]
        common: CommonArgs,
    },
    /// One new entry until the other node answers for it, while others are published
    Watch {
        /// How much
        #[command(flatten)]
        common: CommonArgs,
        /// Entries published per second meanwhile
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        rate: u32,
        /// How long to measure, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3_600))]
        seconds: u32,
    },
    /// Exact look-ups over the local API, half of them hits
    Lookup {
        /// How much
        #[command(flatten)]
        common: CommonArgs,
        /// Signals in a batch
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        batch: u32,
        /// Streams that ask for one signal at a time
        #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=256))]
        streams: u32,
        /// How long to measure each way, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3_600))]
        seconds: u32,
    },
    /// The index of PDQ values: near ones found, beside a linear scan
    Pdq(pdq::PdqArgs),
    /// Look-ups at half their rate while a set is pulled
    ///
    /// First each kind of look-up is measured alone, then at half of that rate with
    /// nothing beside it, then at the same rate while a set of as many entries is
    /// pulled by the node that answers. The other node is on this machine too.
    Mixed {
        /// How much
        #[command(flatten)]
        common: CommonArgs,
        /// Streams that ask for one signal at a time
        #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=256))]
        streams: u32,
        /// How long to measure without a pull, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3_600))]
        seconds: u32,
    },
    /// Many members in one process: what each pays for a round of announcements
    ///
    /// Real nodes over real stores, with a network and a time that are made up.
    /// The same seed gives the same trace. Fails if they do not all end with the
    /// same roster, cards and heads.
    Coalition(CoalitionArgs),
    /// The other node of a measurement; run by the others
    #[command(hide = true)]
    Serve,
}

/// What every measurement takes.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Entries in the feed
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    pub entries: u64,
    /// Folder to work in, which must be empty [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the folder as it is afterwards
    #[arg(long)]
    pub keep: bool,
}

/// What is simulated.
#[derive(Debug, Clone, Args)]
pub struct CoalitionArgs {
    /// Members
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(3..=250))]
    pub members: u32,
    /// How many of them listen; the others only dial these [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=250))]
    pub listening: Option<u32>,
    /// How many publish
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub publishers: u32,
    /// Rounds measured: each set grows once in each
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// Entries that a set grows by
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub entries: u64,
    /// What chance follows from
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Partitions, crashes and rotated keys before the rounds
    #[arg(long)]
    pub trouble: bool,
    /// Folder to work in, which must be empty [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the folder as it is afterwards
    #[arg(long)]
    pub keep: bool,
}

/// Runs the command.
///
/// # Errors
/// When a measurement fails.
pub fn run(args: BenchArgs, context: &Context) -> Result<(), CliError> {
    match args.command {
        BenchCommand::Import { common } => import::run(&common, context),
        BenchCommand::Lookup {
            common,
            batch,
            streams,
            seconds,
        } => {
            let asking = lookup::Asking {
                batch,
                streams,
                seconds,
            };
            lookup::run(&common, asking, context)
        }
        BenchCommand::Pull { common } => pull::run(&common, context),
        BenchCommand::Watch {
            common,
            rate,
            seconds,
        } => watch::run(&common, rate, seconds, context),
        BenchCommand::Pdq(args) => pdq::run(&args, context),
        BenchCommand::Mixed {
            common,
            streams,
            seconds,
        } => mixed::run(&common, streams, seconds, context),
        BenchCommand::Coalition(args) => coalition::run(&args, context),
        BenchCommand::Serve => serve::run(),
    }
}

/// The folder of one measurement.
struct Bench {
    dir: PathBuf,
    keep: bool,
}

impl Bench {
    /// Makes the folder, or takes an empty one.
    fn begin(what: &str, common: &CommonArgs) -> Result<Self, CliError> {
        let given = common.dir.clone();
        let dir = match given {
            Some(dir) => dir,
            None => std::env::temp_dir().join(format!("hashpact-bench-{what}-{}", random()?)),
        };
        let failed = |error| CliError::failed(format!("{}: {error}", dir.display()));
        // For its owner alone: keys and a socket lie in it.
        let mut maker = fs::DirBuilder::new();
        maker
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(failed)?;
        if fs::read_dir(&dir).map_err(failed)?.next().is_some() {
            return Err(CliError::usage(format!("{} is not empty", dir.display())));
        }
        if !common.keep {
            remove_when_stopped(dir.clone())?;
        }
        Ok(Self {
            dir,
            keep: common.keep,
        })
    }

    fn dir(&self) -> &Path {
        &self.dir
    }

    /// Removes what was made; on failure the drop does.
    fn end(self) -> Result<(), CliError> {
        if self.keep {
            say(format!("kept in {}", self.dir.display()));
            return Ok(());
        }
        fs::remove_dir_all(&self.dir)
            .map_err(|error| CliError::failed(format!("{}: {error}", self.dir.display())))
    }
}

/// Removes the folder when the measurement is stopped by Ctrl-C or SIGTERM, which no
/// drop sees, and ends the process.
fn remove_when_stopped(dir: PathBuf) -> Result<(), CliError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(CliError::failed)?;
    let (int, term) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt()).map_err(CliError::failed)?,
            signal(SignalKind::terminate()).map_err(CliError::failed)?,
        )
    };
    let stopped = async move {
        let (mut int, mut term) = (int, term);
        tokio::select! {
            _ = int.recv() => 130,
            _ = term.recv() => 143,
        }
    };
    let work = move || {
        let code = runtime.block_on(stopped);
        // What still runs here, or the other node, may write a file in between.
        for _ in 0..REMOVALS_MAX {
            if fs::remove_dir_all(&dir).is_ok() || !dir.exists() {
                break;
            }
            std::thread::sleep(BETWEEN_REMOVALS);
        }
        say("stopped before the end");
        std::process::exit(code);
    };
    let spawned = std::thread::Builder::new().name("bench-stop".to_owned());
    spawned.spawn(work).map(drop).map_err(CliError::failed)
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !self.keep {
            // What ended the measurement is being told; nothing else helps here.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// What the store of a node takes on disk.
#[derive(Debug, Serialize)]
struct Disk {
    bytes: u64,
    bytes_per_entry: f64,
    /// Bytes of files, by column family, of those that have any.
    families: std::collections::BTreeMap<&'static str, u64>,
}

impl Disk {
    fn of(node: &Node, entries: u64) -> Result<Self, CliError> {
        let stats = node.store().stats().map_err(CliError::failed)?;
        let families = stats.families.iter().filter(|family| family.file_bytes > 0);
        Ok(Self {
            bytes: stats.disk_bytes,
            bytes_per_entry: rounded(ratio(stats.disk_bytes, entries)),
            families: families
                .map(|family| (family.name, family.file_bytes))
                .collect(),
        })
    }
}

/// Waits until the store has nothing left to flush or to compact.
fn settle(node: &Node) -> Result<Duration, CliError> {
    let began = Instant::now();
    node.store().settle().map_err(CliError::failed)?;
    Ok(began.elapsed())
}

/// Waits until near values of everything held are found.
fn wait_for_near(node: &Node) -> Result<(), CliError> {
    let until = Instant::now() + NEAR_WITHIN;
    while Instant::now() < until {
        if node.near_loading() == (true, 0) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(CliError::failed(format!(
        "the index of near values is not ready after {}",
        output::duration(NEAR_WITHIN)
    )))
}

/// Looks up both signals of entries all over the set, and ones that are in none.
fn check_answers(node: &Arc<Node>, count: u64) -> Result<(), CliError> {
    let step = (count / SAMPLE).max(1);
    let step = usize::try_from(step).map_err(CliError::failed)?;
    let numbers: Vec<u64> = (0..count).step_by(step).collect();
    for part in numbers.chunks(1_000) {
        let (mut asked, mut expected) = (Vec::new(), Vec::new());
        for n in part {
            for (n, hits) in [(*n, 1), (entries::MISS + n, 0)] {
                asked.extend(signals(n)?);
                expected.extend([hits, hits]);
            }
        }
        let found = node.lookup(&asked).map_err(CliError::failed)?;
        if found.iter().map(Vec::len).ne(expected) {
            return Err(CliError::failed(
                "look-ups answer something else than was published",
            ));
        }
    }
    Ok(())
}

fn signals(n: u64) -> Result<[Signal; 2], CliError> {
    let signal = |which| entries::signal(n, which).map_err(CliError::failed);
    Ok([signal(Which::Sha256)?, signal(Which::Pdq)?])
}

/// The set, which every member may read.
fn new_set() -> Result<NewSet, CliError> {
    Ok(NewSet {
        set: set_slug()?,
        title: "Entries to measure with".to_owned(),
        source: SetSource::OwnWork,
        classification_scheme: "tc".to_owned(),
        grants: vec![Grantee {
            who: "all".to_owned(),
            relay: true,
        }],
    })
}

fn set_slug() -> Result<Slug, CliError> {
    Slug::parse(SET).map_err(CliError::failed)
}

fn random() -> Result<String, CliError> {
    let mut bytes = [0_u8; 6];
    getrandom::fill(&mut bytes).map_err(CliError::failed)?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

/// Tells what is being done, on standard error.
fn say(what: impl std::fmt::Display) {
    note(format!("bench: {what}"));
}

/// Prints the figures: rows for people, or the report as one object.
fn print(
    report: &impl Serialize,
    rows: &[(&str, String)],
    machine: &Machine,
    context: &Context,
) -> Result<(), CliError> {
    let mut table = output::table(&["figure", "value"], &[1]);
    for (name, value) in rows {
        table.add_row([name, value.as_str()]);
    }
    context.output.line(machine.line())?;
    context.output.table(&table)?;
    context.output.json(report)
}

fn seconds(time: Duration) -> f64 {
    rounded(time.as_secs_f64())
}

/// To thousandths.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

fn per_second(count: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 {
        (count_of(count) / seconds).round()
    } else {
        0.0
    }
}

fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 {
        0.0
    } else {
        count_of(a) / count_of(b)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures are shown to a few digits"
)]
fn count_of(number: u64) -> f64 {
    number as f64
}

/// A figure without its fraction: `12,345`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are positive and far below 2^53"
)]
fn whole(value: f64) -> String {
    output::count(value.max(0.0).round() as u64)
}
