//! `hashpact peers`: the other members' nodes.

use clap::Args;
use hashpact_core::id::Slug;

use super::error::CliError;
use super::values::slug;
use super::{Context, not_available};

/// List the other members' nodes: connected or not, since when, how far behind
#[derive(Debug, Args)]
pub struct PeersArgs {
    /// Only the nodes of this member
    #[arg(value_name = "MEMBER", value_parser = slug)]
    pub member: Option<Slug>,
}

/// Runs the command.
///
/// # Errors
/// When no node runs.
pub fn run(_args: PeersArgs, _context: &Context) -> Result<(), CliError> {
    Err(not_available("peers"))
}
