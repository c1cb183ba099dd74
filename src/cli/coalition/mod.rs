//! `hashpact coalition`: what administrators do, offline.

mod add;
mod found;
mod show;
mod state;

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use hashpact_core::id::CoalitionName;

use super::Context;
use super::error::CliError;

/// The roster's file in the administrators' folder.
pub const ROSTER_FILE: &str = "roster.hashpact";
/// The life of a roster where none is given.
const DEFAULT_DAYS: u32 = 365;

/// Found a coalition and add members, as an administrator; needs no node
#[derive(Debug, Args)]
pub struct CoalitionArgs {
    /// What to do
    #[command(subcommand)]
    pub command: CoalitionCommand,
}

/// What an administrator does.
#[derive(Debug, Subcommand)]
pub enum CoalitionCommand {
    /// Found a coalition: make administrators' keys and version 1 of the roster
    Init(FoundArgs),
    /// Add members to the roster from their enrolment requests
    Add(AddArgs),
    /// Show a roster file: version, administrators, members, expiry, signatures
    Show {
        /// The roster's file
        #[arg(value_name = "FILE", default_value = ROSTER_FILE)]
        roster: PathBuf,
    },
}

/// What a new coalition is.
#[derive(Debug, Args)]
pub struct FoundArgs {
    /// The coalition's name, such as csa-coalition.example
    #[arg(long, value_name = "NAME", value_parser = CoalitionName::parse)]
    pub name: CoalitionName,
    /// Folder for the roster and the administrators' keys
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// An administrator, and the file of its key where there is one; may be repeated
    ///
    /// Without a file the key is made, as NAME.key in the folder.
    #[arg(long = "admin", value_name = "NAME[=KEYFILE]", default_values = ["admin"])]
    pub admins: Vec<AdminArg>,
    /// Administrators that must sign [default: 2, or 1 where there is only one]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=255))]
    pub threshold: Option<u32>,
    /// Days until the roster expires
    #[arg(long, alias = "life-days", value_name = "DAYS", default_value_t = DEFAULT_DAYS, value_parser = clap::value_parser!(u32).range(30..=400))]
    pub days: u32,
}

/// An administrator by name, with the file of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminArg {
    /// For people.
    pub name: String,
    /// The file of a key that exists.
    pub key: Option<PathBuf>,
}

impl FromStr for AdminArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, key) = match text.split_once('=') {
            Some((name, key)) => (name, Some(PathBuf::from(key))),
            None => (text, None),
        };
        if name.trim().is_empty() {
            return Err("write it as NAME or NAME=KEYFILE".to_owned());
        }
        Ok(Self {
            name: name.trim().to_owned(),
            key,
        })
    }
}

/// Which members to add.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Folder with the roster, roster.hashpact, and the administrators' keys
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Enrolment requests
    #[arg(required = true, value_name = "REQUEST")]
    pub requests: Vec<PathBuf>,
    /// An administrator's key; may be repeated [default: those in the folder]
    #[arg(long = "admin-key", value_name = "FILE")]
    pub admin_keys: Vec<PathBuf>,
    /// Days until the roster expires
    #[arg(long, alias = "life-days", value_name = "DAYS", default_value_t = DEFAULT_DAYS, value_parser = clap::value_parser!(u32).range(30..=400))]
    pub days: u32,
    /// Do not ask whether the fingerprints were read out and match
    #[arg(long)]
    pub yes: bool,
}

/// Runs the command.
///
/// # Errors
/// When a document breaks a rule or a file cannot be written.
pub fn run(args: CoalitionArgs, context: &Context) -> Result<(), CliError> {
    match args.command {
        CoalitionCommand::Init(args) => found::run(&args, context),
        CoalitionCommand::Add(args) => add::run(&args, context),
        CoalitionCommand::Show { roster } => show::run(&roster, context),
    }
}

#[cfg(test)]
mod tests;
