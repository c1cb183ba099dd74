//! `hashpact coalition`: what administrators do, offline.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hashpact_core::id::CoalitionName;

use super::error::CliError;
use super::{Context, not_available};

/// Found a coalition and add members, as an administrator; needs no node
#[derive(Debug, Args)]
pub struct CoalitionArgs {
    /// What to do
    #[command(subcommand)]
    pub command: CoalitionCommand,
}

/// What an administrator does.
#[derive(Debug, Subcommand)]
pub enum CoalitionCommand {
    /// Found a coalition: make administrators' keys and version 1 of the roster
    Init(FoundArgs),
    /// Add members to the roster from their enrolment requests
    Add(AddArgs),
    /// Show a roster file: version, administrators, members, expiry, signatures
    Show {
        /// The roster's file
        roster: PathBuf,
    },
}

/// What a new coalition is.
#[derive(Debug, Args)]
pub struct FoundArgs {
    /// The coalition's name, such as csa-coalition.example
    #[arg(long, value_name = "NAME", value_parser = CoalitionName::parse)]
    pub name: CoalitionName,
    /// Folder for the roster and the administrators' keys
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// An administrator's name; may be repeated
    #[arg(long = "admin", value_name = "NAME", default_values = ["admin"])]
    pub admins: Vec<String>,
    /// Administrators that must sign: at least 2 as soon as there are 2
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=255))]
    pub threshold: u32,
    /// Days until the roster expires
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(30..=400))]
    pub days: u32,
}

/// Which members to add.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The roster's file; the next version is added to it
    #[arg(long, value_name = "FILE", default_value = "roster.hashpact")]
    pub roster: PathBuf,
    /// Enrolment requests
    #[arg(required = true, value_name = "REQUEST")]
    pub requests: Vec<PathBuf>,
    /// An administrator's key; may be repeated
    #[arg(long = "admin-key", value_name = "FILE", default_values = ["admin.key"])]
    pub admin_keys: Vec<PathBuf>,
    /// Days until the roster expires
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(30..=400))]
    pub days: u32,
    /// Do not ask whether the fingerprints were read out and match
    #[arg(long)]
    pub yes: bool,
}

/// Runs the command.
///
/// # Errors
/// When a document breaks a rule or a file cannot be written.
pub fn run(_args: CoalitionArgs, _context: &Context) -> Result<(), CliError> {
    Err(not_available("coalition"))
}
