//! `hashpact export`: writes live entries to a file.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::error::CliError;
use super::values::SetReference;
use super::{Context, not_available};

/// Write the live entries of sets as CSV or JSON Lines
///
/// The output holds signal values: keep it as safe as the store. A set that its
/// terms keep local is refused, with the terms.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Sets to write: SET of this member, or MEMBER/SET
    #[arg(required = true, value_name = "SET")]
    pub sets: Vec<SetReference>,
    /// The format
    #[arg(long, value_name = "FORMAT", default_value = "csv")]
    pub format: ExportFormat,
    /// File to write, which must not exist; "-" is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
}

/// Formats of exported files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Comma-separated, one signal a line; hashpact import reads it back
    Csv,
    /// One JSON object per entry and line; hashpact import reads it back
    Jsonl,
}

/// Runs the command.
///
/// # Errors
/// When a set is not held, may not leave, or the file cannot be written.
pub fn run(_args: ExportArgs, _context: &Context) -> Result<(), CliError> {
    Err(not_available("export"))
}
