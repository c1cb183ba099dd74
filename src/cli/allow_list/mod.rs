//! `hashpact allow-list`: lists of what never matches on this node.
//!
//! Kept as files of one `KIND:VALUE` a line in `quarantine.allow_list_dir`, which the
//! node reads at its start. They hold digests alone, also of links.

mod keep;
mod read;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Context;
use super::error::CliError;
use super::output::{count, counted, note, table};

pub(super) use self::read::read;

/// Keep lists of what never matches on this node
///
/// Whoever publishes a value of them: it is held back here, as "hashpact quarantine
/// list" shows, and so are pictures that look like one (PDQ within 31 bits). Lists
/// are read when the node starts.
#[derive(Debug, Args)]
pub struct AllowListArgs {
    #[command(subcommand)]
    command: AllowListCommand,
}

#[derive(Debug, Subcommand)]
enum AllowListCommand {
    Add(AddArgs),
    List(ListArgs),
    Remove(RemoveArgs),
}

/// Add a list, or put another in its place
///
/// From a file of hashes as "hashpact import" reads them, or with --misp from a MISP
/// warninglist: digests, and links and hosts as their digests. What is no hash is
/// left out and counted; lists of patterns are refused.
#[derive(Debug, Args)]
struct AddArgs {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// It is a MISP warninglist, in JSON
    #[arg(long)]
    misp: bool,
    /// What to call it, in a to z, 0 to 9 and -; as the file if left out
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// List the lists
#[derive(Debug, Args)]
struct ListArgs {}

/// Remove a list
#[derive(Debug, Args)]
struct RemoveArgs {
    /// Its name, as listed
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Serialize)]
struct Added {
    name: String,
    /// What the list calls itself, with its version.
    #[serde(skip_serializing_if = "String::is_empty")]
    title: String,
    values: u64,
    skipped: Vec<Left>,
}

#[derive(Serialize)]
struct Left {
    why: &'static str,
    values: u64,
}

#[derive(Serialize)]
struct Listed {
    lists: Vec<keep::Kept>,
    /// Sets that are lists, as the configuration names them.
    sets: Vec<String>,
}

#[derive(Serialize)]
struct Removed {
    name: String,
}

/// Said after each change.
const AT_START: &str = "in force when the node starts again";

/// Runs the command.
///
/// # Errors
/// A file that cannot be read, or says nothing of hashes; what the disk answers.
pub fn run(args: AllowListArgs, context: &Context) -> Result<(), CliError> {
    let quarantine = context.config_text()?.quarantine;
    let dir = quarantine.allow_list_dir;
    match args.command {
        AllowListCommand::Add(args) => {
            let list = keep::take(&args.file, args.misp)?;
            let name = keep::name(args.name.as_deref(), &args.file)?;
            keep::put(&dir, &name, &list)?;
            let values = u64::try_from(list.signals.len()).unwrap_or(u64::MAX);
            let said = counted(values, "value", "values");
            context.output.line(format_args!("{name}: {said}"))?;
            for (why, values) in &list.skipped {
                let said = counted(*values, "value", "values");
                note(format_args!("{said} left out: {why}"));
            }
            note(AT_START);
            let skipped = list.skipped.into_iter();
            context.output.json(&Added {
                name,
                title: list.title,
                values,
                skipped: skipped.map(|(why, values)| Left { why, values }).collect(),
            })
        }
        AllowListCommand::List(ListArgs {}) => {
            let lists = keep::all(&dir)?;
            let sets = quarantine.allow_sets.iter().map(ToString::to_string);
            let sets: Vec<String> = sets.collect();
            if lists.is_empty() && sets.is_empty() {
                context.output.line("there are no lists")?;
            } else if !lists.is_empty() {
                let mut shown = table(&["LIST", "VALUES", "TITLE"], &[1]);
                for list in &lists {
                    shown.add_row([list.name.clone(), count(list.values), list.title.clone()]);
                }
                context.output.table(&shown)?;
            }
            for set in &sets {
                context
                    .output
                    .line(format_args!("{set}: a set, as long as its entries stand"))?;
            }
            context.output.json(&Listed { lists, sets })
        }
        AllowListCommand::Remove(args) => {
            keep::remove(&dir, &args.name)?;
            context
                .output
                .line(format_args!("{}: removed", args.name))?;
            note(AT_START);
            context.output.json(&Removed { name: args.name })
        }
    }
}
