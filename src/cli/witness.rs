//! `hashpact witness`: runs a node that witnesses and does nothing else.

use clap::Args;

use super::Context;
use super::error::CliError;
use super::run::{Kind, run_as};
use crate::config::Config;

/// Run a node that only witnesses: it cosigns heads and holds no hashes
///
/// For a neutral body whose member has the role witness. The node hears the heads
/// of all feeds, asks for proofs and never for leaves, and cosigns what extends all
/// that it cosigned before. Its local API has status, feeds and peers, and answers
/// no look-ups. Signals and logs are as in `hashpact run`, which witnesses as well
/// where keys.witness is set, beside all else that its member does.
#[derive(Debug, Args)]
pub struct WitnessArgs {
    /// Stop as on SIGTERM when standard input ends
    #[arg(long, hide = true)]
    pub until_stdin_closes: bool,
}

/// Runs the command.
///
/// # Errors
/// When the configuration is wrong, or the node cannot start.
pub fn run(args: &WitnessArgs, context: &Context) -> Result<(), CliError> {
    run_as(args.until_stdin_closes, context, Kind::Witness)
}

/// What a node needs that only witnesses, and what it cannot have.
pub(super) fn check(config: &Config) -> Result<(), CliError> {
    if config.keys.witness.is_none() {
        return Err(
            CliError::usage("keys.witness: a witness needs a key to cosign with")
                .next("hashpact init --role witness makes one with all else; or set keys.witness"),
        );
    }
    let doors = [
        ("api.grpc_listen", config.api.grpc_listen.is_some()),
        ("api.json_listen", config.api.json_listen.is_some()),
    ];
    match doors.into_iter().find(|(_, set)| *set) {
        Some((key, _)) => Err(CliError::usage(format!(
            "{key}: a node that only witnesses answers no look-ups"
        ))
        .next(format!("remove {key}, or use hashpact run"))),
        None => Ok(()),
    }
}
