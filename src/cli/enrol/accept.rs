//! `hashpact enrol accept`: tells a new node whom to ask for the roster.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use hashpact_core::id::Digest;
use serde::Serialize;

use crate::cli::Context;
use crate::cli::error::CliError;
use crate::cli::new_files::at;
use crate::cli::recorded::recorded;
use crate::cli::roster;
use crate::cli::values::BootstrapPeer;
use crate::config::{Config, Files};
use crate::roster_file;

/// What the administrators answered.
#[derive(Debug, Args)]
pub struct AcceptArgs {
    /// The genesis digest, once more as the administrators read it out
    #[arg(long, value_name = "DIGEST", value_parser = Digest::from_hex)]
    pub genesis: Digest,
    /// A node that runs already, to ask for the roster; may be repeated
    ///
    /// With MEMBER, a node of anybody else is refused; without, whoever answers is
    /// asked, and the answer is verified from the genesis digest all the same.
    #[arg(
        long = "address",
        value_name = "[MEMBER=]HOST:PORT",
        required_unless_present = "roster"
    )]
    pub addresses: Vec<BootstrapPeer>,
    /// The roster's file, where the administrators sent one
    #[arg(long, value_name = "FILE")]
    pub roster: Option<PathBuf>,
}

#[derive(Serialize)]
struct Accepted {
    config: String,
    genesis: String,
    addresses: Vec<String>,
}

pub(super) fn run(args: &AcceptArgs, context: &Context) -> Result<(), CliError> {
    let path = &context.config_path;
    let config = context.config_text()?;
    if config.coalition.genesis != args.genesis {
        return Err(CliError::failed(format!(
            "the node was made for genesis {}, this is {}",
            config.coalition.genesis, args.genesis
        ))
        .next(
            "ask the administrators which is right over another channel; for another coalition \
             make another node: hashpact enrol request",
        ));
    }
    recorded(context, &[], || add_peers(path, &config, &args.addresses))?;
    if let Some(file) = &args.roster {
        let read = roster_file::read(file)
            .map_err(|error| CliError::failed(format!("{}: {error}", file.display())))?;
        roster::hand_over(read, context)?;
    }
    let output = &context.output;
    let slug = &config.member.slug;
    output.line(format_args!("{slug} joins {}", config.coalition.name))?;
    for peer in &args.addresses {
        output.line(format_args!("  asks {peer} for the roster"))?;
    }
    let shown = path.display();
    output.line("")?;
    output.line(format_args!("next: hashpact --config {shown} run"))?;
    output.line(format_args!(
        "      hashpact --config {shown} status says when it has caught up"
    ))?;
    output.json(&Accepted {
        config: path.display().to_string(),
        genesis: args.genesis.to_string(),
        addresses: args.addresses.iter().map(ToString::to_string).collect(),
    })
}

/// Adds the peers that are not there yet to the configuration, in one step: a crash
/// leaves the file before or this one.
fn add_peers(path: &Path, config: &Config, peers: &[BootstrapPeer]) -> Result<(), CliError> {
    let before = fs::read_to_string(path).map_err(|error| at(path, &error))?;
    let known = |peer: &&BootstrapPeer| {
        let mut known = config.coalition.bootstrap.iter();
        known.any(|held| held.endpoint == peer.endpoint)
    };
    let mut after = before.clone();
    for peer in peers.iter().filter(|peer| !known(peer)) {
        after.push_str(&table(peer));
    }
    if after == before {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    if let Err(problems) = Config::parse(&after, folder, Files::Ignore) {
        let facts = problems
            .iter()
            .map(|problem| format!("{}; {}", problem.what, problem.fix));
        return Err(CliError::usage(facts.collect::<Vec<_>>().join("\n       ")));
    }
    let mode = fs::metadata(path)
        .map_err(|error| at(path, &error))?
        .permissions();
    roster_file::write_bytes(path, after.as_bytes())
        .and_then(|()| fs::set_permissions(path, mode))
        .map_err(|error| at(path, &error))
}

fn table(peer: &BootstrapPeer) -> String {
    let quoted = |text: String| toml::Value::String(text).to_string();
    let mut table = "\n[[coalition.bootstrap]]\n".to_owned();
    // Writing to a string does not fail.
    if let Some(member) = &peer.member {
        let _ = writeln!(table, "member = {}", quoted(member.to_string()));
    }
    let _ = writeln!(table, "endpoint = {}", quoted(peer.endpoint.to_string()));
    table
}
