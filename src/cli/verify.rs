//! `hashpact verify`: recomputes everything from leaves.

use clap::Args;

use super::error::CliError;
use super::values::SetReference;
use super::{Context, not_available};

/// Recompute every feed from its leaves, and compare with its signed head
///
/// Reads the whole store: leaves, tree, heads, postings and the sign-state file.
/// The store is never trusted for this. Exit code 1 when anything differs.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Only these sets' feeds: SET of this member, or MEMBER/SET
    #[arg(value_name = "SET")]
    pub sets: Vec<SetReference>,
    /// Threads to use [default: one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
}

/// Runs the command.
///
/// # Errors
/// When anything differs, or the store cannot be read.
pub fn run(_args: VerifyArgs, _context: &Context) -> Result<(), CliError> {
    Err(not_available("verify"))
}
