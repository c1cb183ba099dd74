//! `hashpact lookup`: asks the running node whether signals are known.

use std::path::PathBuf;

use clap::Args;

use super::error::CliError;
use super::{Context, not_available};

/// Ask the running node whether signals are known
///
/// An answer names publishers, set, classification, contact, time and entry.
/// Exit code 0 when something is known, 3 when nothing is.
#[derive(Debug, Args)]
pub struct LookupArgs {
    /// Signals such as MD5:HEX or PDQ:HEX; hexadecimal of any case, base64, base32
    #[arg(value_name = "KIND:VALUE", required_unless_present_any = ["file", "hash_of"])]
    pub signals: Vec<String>,
    /// A file with one KIND:VALUE a line; "-" is standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Files to hash (MD5, SHA-1, SHA-256) and ask for
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub hash_of: Vec<PathBuf>,
    /// The kind of values that name none
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Print what is known only
    #[arg(long)]
    pub hits_only: bool,
}

/// Runs the command.
///
/// # Errors
/// When no node runs or a signal cannot be read.
pub fn run(_args: LookupArgs, _context: &Context) -> Result<(), CliError> {
    Err(not_available("lookup"))
}
