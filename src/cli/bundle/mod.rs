//! `hashpact bundle`: sets as one file, for members and authorities without a connection.

mod export;
mod file;
mod import;
mod show;

use clap::{Args, Subcommand};
use hashpact_api::wire;
use hashpact_node::bundle::BundleRefusal;
use serde::Serialize;

use super::Context;
use super::error::CliError;
use super::output::note;

/// Make sets into one file, and take such files in
///
/// A bundle carries the roster, node cards, heads and leaves of chosen sets to who
/// has no connection. Everything in it is signed and proved by itself, so it may
/// travel by any way; but it holds signal values: keep it as safe as the store.
#[derive(Debug, Args)]
pub struct BundleArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Export(Box<export::ExportArgs>),
    Import(import::ImportArgs),
    Show(show::ShowArgs),
}

/// Runs the command.
///
/// # Errors
/// What the subcommand fails with.
pub fn run(args: BundleArgs, context: &Context) -> Result<(), CliError> {
    match args.command {
        Command::Export(args) => export::run(&args, context),
        Command::Import(args) => import::run(&args, context),
        Command::Show(args) => show::run(&args, context),
    }
}

/// Something that was refused, for programs.
#[derive(Debug, Serialize)]
struct Refused {
    what: String,
    code: String,
    why: String,
}

impl From<wire::BundleRefusal> for Refused {
    fn from(refusal: wire::BundleRefusal) -> Self {
        Self {
            what: refusal.what,
            code: refusal.code,
            why: refusal.why,
        }
    }
}

impl From<BundleRefusal> for Refused {
    fn from(refusal: BundleRefusal) -> Self {
        Self {
            what: refusal.what,
            code: refusal.code.to_owned(),
            why: refusal.why,
        }
    }
}

/// Says on standard error what was refused.
fn note_refused<'a>(refused: impl IntoIterator<Item = &'a Refused>) {
    for Refused { what, code, why } in refused {
        note(format_args!("refused: {what}: {why} ({code})"));
    }
}
