//! `hashpact roster`: the roster that this node goes by.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::error::CliError;
use super::{Context, not_available};

/// Show the roster that this node goes by, or take a newer one from a file
#[derive(Debug, Args)]
pub struct RosterArgs {
    /// What to do
    #[command(subcommand)]
    pub command: RosterCommand,
}

/// What to do with the roster.
#[derive(Debug, Subcommand)]
pub enum RosterCommand {
    /// Take roster versions, node cards and suspensions from a file
    ///
    /// They are verified as if a peer had sent them: nothing older is taken, and
    /// nothing that is not signed by enough administrators.
    Import {
        /// The file that the administrators sent
        file: PathBuf,
    },
    /// Show version, members, roles, groups and expiry
    Show,
}

/// Runs the command.
///
/// # Errors
/// When a document is refused, with the reason.
pub fn run(_args: RosterArgs, _context: &Context) -> Result<(), CliError> {
    Err(not_available("roster"))
}
