//! `hashpact import`: brings files of hashes into a set.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hashpact_core::id::Slug;

use super::error::CliError;
use super::values::{BasisArg, MediaArg, slug};
use super::{Context, not_available};

/// Bring files of hashes into a set and publish them
///
/// Takes CSV (columns by header), JSON Lines, plain lists (one hash a line, and
/// what md5sum and sha256sum print) and VICS JSON 1.3 and 2.0. File names, paths
/// and EXIF are dropped while reading. An entry is known by its source reference,
/// else by its signals: the same again adds nothing, a changed one replaces.
///
/// Every line is accounted for: added, replaced, unchanged or rejected. Exit code
/// 3 when lines were rejected.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A set of this member
    #[arg(long, value_name = "SET", value_parser = slug)]
    pub set: Slug,
    /// Files to read; "-" is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// What the files are
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub format: FormatArg,
    /// The kind of the hashes in a plain list [default: by their length]
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Classification where the file names none, such as A1 or scheme:value
    #[arg(long, value_name = "CLASS")]
    pub classification: Option<String>,
    /// Label to add to every entry; may be repeated
    #[arg(long = "label", value_name = "LABEL")]
    pub labels: Vec<String>,
    /// What the entries are about where the file does not say
    #[arg(long, value_name = "MEDIA", default_value = "image")]
    pub media: MediaArg,
    /// How the classification came about where the file does not say
    #[arg(long, value_name = "BASIS", default_value = "human")]
    pub basis: BasisArg,
    /// Where rejected lines go: line, reason, original [default: FILE.rejects.csv]
    #[arg(long, value_name = "FILE")]
    pub rejects: Option<PathBuf>,
    /// Read and check everything, and publish nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Formats of input files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// By the file's content
    Auto,
    /// Comma-separated, columns by header
    Csv,
    /// One JSON object a line
    Jsonl,
    /// One hash a line, or what md5sum and sha256sum print
    List,
    /// VICS JSON 1.3 or 2.0
    Vics,
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read or the set cannot be published.
pub fn run(_args: ImportArgs, _context: &Context) -> Result<(), CliError> {
    Err(not_available("import"))
}
