//! `hashpact run`: runs the node until it is told to stop.

use clap::Args;

use super::error::CliError;
use super::{Context, not_available};

/// Run the node until SIGTERM or SIGINT
///
/// Logs go to standard error, as the configuration says. On SIGTERM the node
/// takes no new work, ends what is under way within the
/// grace time of the configuration (20 s by default), and exits with 0. A second signal ends it at once.
#[derive(Debug, Args)]
pub struct RunArgs {}

/// Runs the command.
///
/// # Errors
/// When the configuration is wrong, or the node cannot start.
pub fn run(_args: RunArgs, _context: &Context) -> Result<(), CliError> {
    Err(not_available("run"))
}
