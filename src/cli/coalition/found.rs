//! `hashpact coalition init`: administrators' keys and version 1 of the roster.

use std::path::{Path, PathBuf};

use hashpact_core::keys::{Admin, SecretKey};
use hashpact_core::limits::DAY_MS;
use hashpact_core::roster::{Roster, RosterAdmin, RosterChain};
use hashpact_node::clock::Clock;
use serde::Serialize;

use super::state::{State, day};
use super::{FoundArgs, ROSTER_FILE};
use crate::cli::Context;
use crate::cli::error::CliError;
use crate::cli::new_files::{NewFiles, key_file, refuse_existing};
use crate::cli::open::private_folder;
use crate::keyfile;

#[derive(Serialize)]
struct Founded {
    coalition: String,
    genesis: String,
    threshold: usize,
    admins: Vec<FoundedAdmin>,
    expires_ms: u64,
    roster: String,
}

#[derive(Serialize)]
struct FoundedAdmin {
    name: String,
    key: String,
    file: String,
}

pub(super) fn run(args: &FoundArgs, context: &Context) -> Result<(), CliError> {
    private_folder(&args.dir, "--dir")?;
    refuse_existing(&args.dir, &[ROSTER_FILE])?;
    let mut files = NewFiles::default();
    let keys = keys(args, &mut files)?;
    let now = Clock::system().now();
    let admins = args.admins.iter().zip(&keys);
    let admins = admins.map(|(admin, (key, _))| RosterAdmin {
        name: admin.name.clone(),
        key: key.public(),
    });
    let life = u64::from(args.days) * DAY_MS;
    let mut roster = Roster::found(args.name.clone(), admins.collect(), now, life);
    if let Some(threshold) = args.threshold {
        roster.threshold = threshold as usize;
    }
    let refused = |rejection| CliError::usage(format!("no such coalition: {rejection}"));
    let mut draft = roster.to_envelope().map_err(refused)?;
    for (key, _) in &keys {
        draft.sign(key);
    }
    let envelope = draft.finish().map_err(refused)?;
    let genesis = envelope.payload_digest();
    let chain = RosterChain::begin(envelope, &genesis, now).map_err(refused)?;
    let path = args.dir.join(ROSTER_FILE);
    State::new(chain).write(&path)?;
    files.keep();
    let admins = args.admins.iter().zip(&keys);
    let founded = Founded {
        coalition: args.name.to_string(),
        genesis: genesis.to_string(),
        threshold: roster.threshold,
        admins: admins
            .map(|(admin, (key, file))| FoundedAdmin {
                name: admin.name.clone(),
                key: key.public().to_string(),
                file: file.display().to_string(),
            })
            .collect(),
        expires_ms: roster.expires.0,
        roster: path.display().to_string(),
    };
    print(context, &founded, &day(roster.expires))
}

/// The key of each administrator, in their order, with its file.
fn keys(
    args: &FoundArgs,
    files: &mut NewFiles,
) -> Result<Vec<(SecretKey<Admin>, PathBuf)>, CliError> {
    let keys = args.admins.iter().map(|admin| match &admin.key {
        Some(path) => keyfile::load(path)
            .map_err(key_file)
            .map(|key| (key, path.clone())),
        None => {
            let path = args.dir.join(key_file_name(&admin.name));
            files.key(&path).map(|key| (key, path))
        }
    });
    keys.collect()
}

/// A name for people as a file's: letters, digits and `-`.
fn key_file_name(name: &str) -> PathBuf {
    let plain = |c: char| if c.is_alphanumeric() { c } else { '-' };
    let stem: String = name.to_lowercase().chars().map(plain).collect();
    Path::new(&stem).with_extension("key")
}

fn print(context: &Context, founded: &Founded, expires: &str) -> Result<(), CliError> {
    let output = &context.output;
    let count = founded.admins.len();
    output.line(format_args!("founded {}", founded.coalition))?;
    output.line(format_args!("  roster      {}", founded.roster))?;
    output.line(format_args!(
        "  approval    {} of {count} administrators",
        founded.threshold
    ))?;
    output.line(format_args!("  expires     {expires}"))?;
    for admin in &founded.admins {
        output.line(format_args!("  {}", admin.name))?;
        output.line(format_args!("    key file  {}", admin.file))?;
    }
    output.line("genesis digest, which every new node is given:")?;
    output.line(format_args!("  {}", founded.genesis))?;
    output.line("")?;
    output.line("next: keep the administrators' keys offline, each with its own person;")?;
    output.line("      members run hashpact init --genesis, and you hashpact coalition add")?;
    output.json(founded)
}
