//! `hashpact bench`: measures import, pull, watch and look-up.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::error::CliError;
use super::{Context, not_available};

/// Measure this machine: import, pull, watch, look-up
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

/// Runs the command.
///
/// # Errors
/// When a measurement fails.
pub fn run(_args: BenchArgs, _context: &Context) -> Result<(), CliError> {
    Err(not_available("bench"))
}
