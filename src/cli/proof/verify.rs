//! `hashpact proof verify`: by the core alone, without node, store or network.

use std::path::PathBuf;

use clap::Args;
use hashpact_core::id::Digest;
use hashpact_core::proof::Proof;
use hashpact_core::reject::Rejection;
use serde::Serialize;

use super::file;
use super::summary::Summary;
use crate::cli::Context;
use crate::cli::error::{CliError, Exit};

/// Verify a proof and say what it shows, and what it cannot show
///
/// Needs no node, no member and no network: the roster chain in the file is verified
/// from the genesis digest on, the head by the publisher's card, the entry by its
/// path to the head, cosignatures by the witnesses' cards. Signal values are left out
/// unless --show-values is given. Exit code 1: it proves nothing.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The proof; - reads standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The coalition's genesis digest, which somebody trusted gave you; without it,
    /// that of the configuration
    #[arg(long, value_name = "DIGEST", value_parser = Digest::from_hex)]
    genesis: Option<Digest>,
    /// Print the entry's signals too
    #[arg(long)]
    show_values: bool,
}

/// A file that proves nothing, for programs.
#[derive(Serialize)]
struct Refused {
    verified: bool,
    code: &'static str,
    why: String,
}

/// Runs the command.
///
/// # Errors
/// A file that cannot be read, or proves nothing.
pub(super) fn run(args: &VerifyArgs, context: &Context) -> Result<(), CliError> {
    let name = file::called(&args.file);
    let Some(genesis) = file::genesis(args.genesis, context) else {
        return Err(
            CliError::usage("by which genesis is not said: anybody can found a coalition")
                .next("--genesis DIGEST, with what somebody you trust tells you"),
        );
    };
    let bytes = file::read(&args.file)?;
    let proven = Proof::decode(&bytes).and_then(|proof| proof.verify(&genesis));
    match proven {
        Ok(proven) => {
            let summary = Summary::of(&proven, (&bytes, &genesis), args.show_values);
            summary.print(&name, &context.output)?;
            context.output.json(&summary)
        }
        Err(rejection) => refused(&name, &rejection, context),
    }
}

fn refused(name: &str, rejection: &Rejection, context: &Context) -> Result<(), CliError> {
    let code = rejection.code();
    context.output.json(&Refused {
        verified: false,
        code,
        why: rejection.to_string(),
    })?;
    if context.output.is_json() {
        return Err(CliError::Quiet(Exit::Failed));
    }
    let failed = CliError::failed(format!("{name} proves nothing: {rejection} ({code})"));
    let next = if matches!(rejection, Rejection::WrongGenesis { .. }) {
        "compare the genesis digest with somebody you trust"
    } else {
        "ask whoever made it for another copy"
    };
    Err(failed.next(next))
}
