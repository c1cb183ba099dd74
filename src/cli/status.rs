//! `hashpact status`: how the node is.

use clap::Args;

use super::error::CliError;
use super::{Context, not_available};

/// Show how the node is: roster, feeds, peers, store, certificates, alarms
#[derive(Debug, Args)]
pub struct StatusArgs {}

/// Runs the command.
///
/// # Errors
/// When no node runs.
pub fn run(_args: StatusArgs, _context: &Context) -> Result<(), CliError> {
    Err(not_available("status"))
}
