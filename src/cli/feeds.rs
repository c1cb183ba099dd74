//! `hashpact feeds`: the feeds that the node holds.

use clap::Args;

use super::error::CliError;
use super::values::SetReference;
use super::{Context, not_available};

/// List the feeds that the node holds: size, head, cursor, age, state
#[derive(Debug, Args)]
pub struct FeedsArgs {
    /// Only this set's feed: SET of this member, or MEMBER/SET
    #[arg(value_name = "SET")]
    pub set: Option<SetReference>,
}

/// Runs the command.
///
/// # Errors
/// When no node runs.
pub fn run(_args: FeedsArgs, _context: &Context) -> Result<(), CliError> {
    Err(not_available("feeds"))
}
