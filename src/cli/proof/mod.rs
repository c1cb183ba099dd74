//! `hashpact prove` and `hashpact proof`: proofs of entries, made by a node and verified
//! without one.

pub(super) mod file;
pub mod make;
pub(super) mod summary;
mod verify;

use clap::{Args, Subcommand};

use super::Context;
use super::error::CliError;

/// Verify proofs that "hashpact prove" made
#[derive(Debug, Args)]
pub struct ProofArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(verify::VerifyArgs),
}

/// Runs the command.
///
/// # Errors
/// What the subcommand fails with.
pub fn run(args: &ProofArgs, context: &Context) -> Result<(), CliError> {
    match &args.command {
        Command::Verify(args) => verify::run(args, context),
    }
}
