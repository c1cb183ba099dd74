//! `hashpact retract`: takes this member's entries back.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hashpact_core::id::{EntryName, Slug};

use super::error::CliError;
use super::values::slug;
use super::{Context, not_available};

/// Take entries of this member back; look-ups of them stop at every member
///
/// Permanent. More entries in 24 hours than the larger of 100 and 1 % of the set
/// need the identity key's signature as well; until it comes, members review
/// those entries instead of dropping them.
#[derive(Debug, Args)]
pub struct RetractArgs {
    /// Entries by name: MEMBER/SET#INDEX
    #[arg(value_name = "ENTRY", value_parser = EntryName::parse, required_unless_present_any = ["signals", "references", "file"])]
    pub entries: Vec<EntryName>,
    /// The set, where entries are named by signal, source reference or file
    #[arg(long, value_name = "SET", value_parser = slug)]
    pub set: Option<Slug>,
    /// Every entry with this signal, such as MD5:HEX; may be repeated
    #[arg(long = "signal", value_name = "KIND:VALUE", requires = "set")]
    pub signals: Vec<String>,
    /// The entry with this source reference; may be repeated
    #[arg(long = "source-reference", value_name = "REF", requires = "set")]
    pub references: Vec<String>,
    /// A file with one entry name, KIND:VALUE or source reference a line
    #[arg(long, value_name = "FILE", requires = "set")]
    pub file: Option<PathBuf>,
    /// Why
    #[arg(long, value_name = "REASON")]
    pub reason: ReasonArg,
    /// A note for the other members; at most 500 bytes
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
    /// Ask the others to recheck what they did because of these entries
    #[arg(long)]
    pub recheck: bool,
    /// The identity key to sign a mass retraction with [default: keys.identity]
    #[arg(long, value_name = "FILE")]
    pub identity_key: Option<PathBuf>,
    /// Show what would be retracted, and retract nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Why an entry is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReasonArg {
    /// It is not what it was said to be
    Wrong,
    /// Another entry says the same
    Duplicate,
    /// The source took it back
    SourceWithdrew,
    /// The law asks for it
    Legal,
    /// Anything else; say it in --note
    Other,
}

/// Runs the command.
///
/// # Errors
/// When an entry is not known or not this member's.
pub fn run(_args: RetractArgs, _context: &Context) -> Result<(), CliError> {
    Err(not_available("retract"))
}
