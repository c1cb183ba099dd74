//! `hashpact enrol`: how a member joins, from its own side.

mod accept;
mod rotate;

use clap::{Args, Subcommand};

use super::Context;
use super::error::CliError;
use super::init::{self, InitArgs};

/// Join a coalition: ask for it, and go on once the administrators have agreed
#[derive(Debug, Args)]
pub struct EnrolArgs {
    /// What to do
    #[command(subcommand)]
    pub command: EnrolCommand,
}

/// What a member does to join.
#[derive(Debug, Subcommand)]
pub enum EnrolCommand {
    /// Make a node's keys, configuration and enrolment request, as hashpact init does
    ///
    /// Send the request to the administrators, and read its fingerprint, twelve
    /// words, out to them over another channel.
    #[command(override_usage = "\
hashpact enrol request [OPTIONS] --coalition <NAME> --genesis <DIGEST>
                              --member <SLUG> --contact-name <TEXT>
                              --contact-email <ADDRESS>")]
    Request(Box<InitArgs>),
    /// Go on once the administrators have published the roster with this member
    Accept(accept::AcceptArgs),
    /// Make a new identity key, and the request that puts it into the roster
    RotateIdentity(rotate::RotateArgs),
}

/// Runs the command.
///
/// # Errors
/// When a file exists already or cannot be written; when what was given does not fit
/// the node.
pub fn run(args: EnrolArgs, context: &Context) -> Result<(), CliError> {
    match args.command {
        EnrolCommand::Request(args) => init::run(*args, context),
        EnrolCommand::Accept(args) => accept::run(&args, context),
        EnrolCommand::RotateIdentity(args) => rotate::run(&args, context),
    }
}
