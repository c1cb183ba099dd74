//! `hashpact demo`: three members and an administrator on this machine.

use std::path::PathBuf;

use clap::Args;

use super::error::CliError;
use super::{Context, not_available};

/// Show three members exchanging hash sets, on this machine
///
/// Real processes, mutual TLS and stores in a temporary folder; every step is
/// shown with its rate. Ends by itself. With --json the last line is one JSON
/// object with every figure.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Entries of the generated set
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    pub entries: u64,
    /// Folder to work in, which must be empty [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the nodes running, and say how to ask them
    #[arg(long)]
    pub keep: bool,
}

/// Runs the command.
///
/// # Errors
/// When a step fails.
pub fn run(_args: DemoArgs, _context: &Context) -> Result<(), CliError> {
    Err(not_available("demo"))
}
