//! `hashpact roster re-anchor`: a node goes by a new genesis.
//!
//! In this order, so that a crash leaves a node that starts or a command that can be
//! run again: the old documents are kept in a file, the store goes over in one step,
//! the configuration names the new genesis.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use hashpact_core::card::NodeCard;
use hashpact_core::id::Digest;
use hashpact_core::leaf::audit::Act;
use hashpact_core::limits::DAY_MS;
use hashpact_core::roster::RosterFile;
use hashpact_node::caller::Caller;
use hashpact_node::card::CARD_DAYS;
use hashpact_node::clock::Clock;
use hashpact_node::{NodeError, ReAnchoring, RosterDocuments};
use serde::Serialize;

use super::Context;
use super::client::answers;
use super::error::CliError;
use super::keys::NodeKeys;
use super::new_files::{at, key_file};
use super::open::store_options;
use super::output::note;
use crate::config::{Config, Files};
use crate::keyfile;
use crate::roster_file;

/// What the new administrators gave out.
#[derive(Debug, Args)]
pub struct ReAnchorArgs {
    /// The roster's file of the new founding
    #[arg(value_name = "FILE")]
    pub roster: PathBuf,
    /// The new genesis digest, as it was read out over another channel
    #[arg(long, value_name = "DIGEST", value_parser = Digest::from_hex)]
    pub genesis: Digest,
}

#[derive(Serialize)]
struct ReAnchored {
    genesis: String,
    former_genesis: String,
    roster_version: Option<u64>,
    kept: Option<String>,
    card: Option<String>,
}

pub(super) fn run(args: &ReAnchorArgs, context: &Context) -> Result<(), CliError> {
    let config = context.config()?;
    if answers(&config.api.socket)? {
        return Err(CliError::failed("the node runs").next("stop it, then run the command again"));
    }
    let file = roster_file::read(&args.roster)
        .map_err(|error| CliError::failed(format!("{}: {error}", args.roster.display())))?;
    let opened = ReAnchoring::open(&config.node.data_dir, &store_options(&config)?);
    let anchoring = opened.map_err(|error| refused(&error))?;
    let mut done = ReAnchored {
        genesis: args.genesis.to_string(),
        former_genesis: anchoring.genesis().to_string(),
        roster_version: None,
        kept: None,
        card: None,
    };
    if anchoring.genesis() != args.genesis {
        replace(anchoring, file, args, &config, context, &mut done)?;
    }
    name_genesis(&context.config_path, args.genesis)?;
    print(context, &done)
}

fn replace(
    anchoring: ReAnchoring,
    file: RosterFile,
    args: &ReAnchorArgs,
    config: &Config,
    context: &Context,
    done: &mut ReAnchored,
) -> Result<(), CliError> {
    let folder = context.config_path.parent().unwrap_or(Path::new(""));
    let held = anchoring.held().map_err(|error| refused(&error))?;
    let kept = folder.join(format!("roster-{}.hashpact", anchoring.genesis().short()));
    write(&kept, &held)?;
    let mut new = RosterDocuments {
        rosters: file.rosters,
        node_cards: file.node_cards,
        suspensions: Vec::new(),
    };
    if let Some(card) = card(&anchoring, args.genesis, config)? {
        let path = folder.join(format!("card-{}.hashpact", config.member.slug));
        let alone = RosterDocuments {
            rosters: Vec::new(),
            node_cards: vec![card.clone()],
            suspensions: Vec::new(),
        };
        write(&path, &alone)?;
        new.node_cards.push(card);
        done.card = Some(path.display().to_string());
    }
    let mut act = Act::new(
        "roster.re-anchor",
        Caller::process().actor("roster-re-anchor"),
    );
    act.began = Clock::system().now();
    act.ended = act.began;
    let version = anchoring.replace(&args.genesis, new, act);
    done.roster_version = Some(version.map_err(|error| refused(&error))?);
    done.kept = Some(kept.display().to_string());
    Ok(())
}

/// This member's card under the new genesis, where its identity key is here.
fn card(
    anchoring: &ReAnchoring,
    genesis: Digest,
    config: &Config,
) -> Result<Option<Bytes>, CliError> {
    let before = anchoring.newest_card(&config.member.slug);
    let (Some(before), Some(identity)) = (before, &config.keys.identity) else {
        note("no new card is made: the identity key is not here, or there was no card before");
        return Ok(None);
    };
    let identity = keyfile::load(identity).map_err(key_file)?;
    let now = Clock::system().now();
    let card = NodeCard {
        genesis,
        version: before.version.saturating_add(1),
        issued: now,
        expires: now.plus(CARD_DAYS * DAY_MS),
        ..before.clone()
    };
    let envelope = NodeKeys::load(config)?.sign_card(&card, &identity)?;
    Ok(Some(envelope.as_bytes().clone()))
}

fn write(path: &Path, documents: &RosterDocuments) -> Result<(), CliError> {
    let file = RosterFile {
        rosters: documents.rosters.clone(),
        node_cards: documents.node_cards.clone(),
        suspensions: documents.suspensions.clone(),
    };
    roster_file::write(path, &file).map_err(|error| at(path, &error))
}

/// Puts the new genesis into the configuration, in one step.
fn name_genesis(path: &Path, genesis: Digest) -> Result<(), CliError> {
    let before = fs::read_to_string(path).map_err(|error| at(path, &error))?;
    let line = |line: &str| {
        if line.trim_start().starts_with("genesis = ") {
            format!("genesis = \"{genesis}\"\n")
        } else {
            format!("{line}\n")
        }
    };
    let after: String = before.lines().map(line).collect();
    let folder = path.parent().unwrap_or(Path::new(""));
    let named = Config::parse(&after, folder, Files::Ignore)
        .is_ok_and(|config| config.coalition.genesis == genesis);
    if !named {
        return Err(
            CliError::failed(format!("{} was not changed", path.display()))
                .next(format!("set coalition.genesis to {genesis} in it")),
        );
    }
    let mode = fs::metadata(path)
        .map_err(|error| at(path, &error))?
        .permissions();
    roster_file::write_bytes(path, after.as_bytes())
        .and_then(|()| fs::set_permissions(path, mode))
        .map_err(|error| at(path, &error))
}

fn print(context: &Context, done: &ReAnchored) -> Result<(), CliError> {
    let output = &context.output;
    output.line(format_args!("the node goes by genesis {}", done.genesis))?;
    if let Some(kept) = &done.kept {
        output.line(format_args!(
            "  the old roster and cards are kept in {kept}"
        ))?;
    }
    output.line("")?;
    match &done.card {
        Some(card) => {
            output.line(format_args!(
                "next: send {card} to the administrators; take the roster"
            ))?;
            output.line("      file with everybody's card from them:")?;
        }
        None => output.line("next: take the roster file with everybody's card:")?,
    }
    output.line("      hashpact roster import FILE, then hashpact run")?;
    output.json(done)
}

fn refused(error: &NodeError) -> CliError {
    CliError::failed(format!("nothing was changed: {error}"))
        .next("compare the genesis digest with the administrators over another channel")
}
