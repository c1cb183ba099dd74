//! `hashpact keys`: what keys this node has, and new ones in their place.
//!
//! A rotation is a file beside the key: `feed.key.next`. Whoever runs the node sees it
//! (`keeper`), puts both keys on the card, waits until peers know it, uses the new
//! one, drops the old one from the card, and renames the file. So it goes on after a
//! crash or a restart wherever it was.

mod files;
mod keeper;
mod rests;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use hashpact_core::keys::{Feed, Receipt, Witness};
use hashpact_node::clock::Clock;
use serde::Serialize;

use super::Context;
use super::error::CliError;
use super::new_files::key_file;
use super::open::certificate_name;
use super::recorded::recorded;
use crate::config::Config;
use crate::keyfile::{self, TlsKind};

pub(in crate::cli) use files::{NodeKeys, recover, witness_key};
pub(in crate::cli) use keeper::{EVERY, Keeper, write_over};

pub(super) use files::next;

/// How long a command waits for the running node to end a rotation.
const WAIT_MAX: Duration = Duration::from_secs(10 * 60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Show this node's keys, or put new ones in their place while it runs
#[derive(Debug, Args)]
pub struct KeysArgs {
    /// What to do
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// What to do with the keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Put a new key in the place of one, without an interruption
    ///
    /// The running node publishes a node card with both keys, waits until its peers
    /// have it, uses the new key (heads are signed or cosigned again), and publishes a card
    /// without the old one. Where the identity key is offline, or the member has
    /// other nodes, each card waits as a draft for `hashpact card sign`. The old key
    /// stays beside the new one as FILE.old.
    Rotate(RotateArgs),
    /// Show this node's keys by their public halves, and rotations under way
    Show,
}

/// Which key, and what to wait for.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// Which key
    #[arg(value_name = "KEY")]
    pub key: Rotated,
    /// A TLS key that exists already, such as the company's own; it is copied
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub from: Option<PathBuf>,
    /// The certificate around it
    #[arg(long, value_name = "FILE", requires = "from")]
    pub certificate: Option<PathBuf>,
    /// Do not wait until the running node is done
    #[arg(long)]
    pub no_wait: bool,
}

/// Keys that can be rotated without an administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rotated {
    /// The TLS key
    Tls,
    /// The key that signs heads
    Feed,
    /// The key that signs receipts
    Receipt,
    /// The key that cosigns heads; what it cosigned before stays on record
    Witness,
}

#[derive(Serialize)]
struct Begun {
    key: &'static str,
    next: String,
    /// Whether the rotation has ended.
    done: bool,
}

#[derive(Serialize)]
struct Shown {
    tls: String,
    tls_next: Option<String>,
    feed: String,
    feed_next: Option<String>,
    receipt: String,
    receipt_next: Option<String>,
    /// Only where the configuration names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    witness: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    witness_next: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// A key that is being rotated already, or files that cannot be written.
pub fn run(args: KeysArgs, context: &Context) -> Result<(), CliError> {
    let config = context.config()?;
    match args.command {
        KeysCommand::Rotate(args) => rotate(&args, &config, context),
        KeysCommand::Show => show(&config, context),
    }
}

fn rotate(args: &RotateArgs, config: &Config, context: &Context) -> Result<(), CliError> {
    let (name, path) = match args.key {
        Rotated::Tls => ("tls", &config.keys.tls_key),
        Rotated::Feed => ("feed", &config.keys.feed),
        Rotated::Receipt => ("receipt", &config.keys.receipt),
        Rotated::Witness => match &config.keys.witness {
            Some(path) => ("witness", path),
            None => {
                return Err(
                    CliError::usage("keys.witness is not set: this node is no witness")
                        .next("see docs/OPERATORS.md, Witnesses"),
                );
            }
        },
    };
    let beside = next(path);
    if beside.exists() {
        let file = beside.display();
        return Err(CliError::failed(format!("{file}: a rotation is under way"))
            .next("start the node if it does not run; it goes on with it"));
    }
    let what = [("key", name.to_owned())];
    recorded(context, &what, || make_next(args, config, &beside))?;
    let running = std::os::unix::net::UnixStream::connect(&config.api.socket).is_ok();
    let output = &context.output;
    output.line(format_args!("made {}", beside.display()))?;
    if !running {
        output.line("no node runs: it takes the key into use, step by step, once it does")?;
    }
    let done = running && !args.no_wait && wait(&beside);
    if done {
        output.line(format_args!(
            "the {name} key is the new one; the card names no other"
        ))?;
    } else if running && !args.no_wait {
        output.line("not done yet: hashpact status says what it waits for")?;
    }
    output.json(&Begun {
        key: name,
        next: beside.display().to_string(),
        done,
    })
}

/// Makes the next key beside the one in use.
fn make_next(args: &RotateArgs, config: &Config, beside: &Path) -> Result<(), CliError> {
    match (args.key, &args.from, &args.certificate) {
        (Rotated::Feed, None, _) => make::<Feed>(beside)?,
        (Rotated::Receipt, None, _) => make::<Receipt>(beside)?,
        (Rotated::Witness, None, _) => make::<Witness>(beside)?,
        (Rotated::Tls, None, _) if config.keys.tls_certificate.is_some() => {
            return Err(CliError::usage(
                "keys.tls_certificate names a certificate of your own: a new key needs a new one",
            )
            .next("hashpact keys rotate tls --from KEY --certificate CERTIFICATE"));
        }
        (Rotated::Tls, None, _) => make_tls(config, beside)?,
        (Rotated::Tls, Some(key), Some(certificate)) => {
            files::copy_company_pair(config, key, certificate)?;
        }
        (_, Some(_), _) => {
            return Err(CliError::usage("--from is for the TLS key alone"));
        }
    }
    Ok(())
}

fn make<P: hashpact_core::keys::Purpose>(path: &Path) -> Result<(), CliError> {
    let key = keyfile::generate::<P>().map_err(CliError::failed)?;
    keyfile::create(path, &key).map_err(key_file)
}

fn make_tls(config: &Config, path: &Path) -> Result<(), CliError> {
    let name = certificate_name(config.node.name.as_str(), config.member.slug.as_str());
    let made = keyfile::create_tls(path, &name, Clock::system().now(), TlsKind::P256);
    made.map(drop).map_err(key_file)
}

/// Waits until the node has renamed the file.
fn wait(beside: &Path) -> bool {
    let began = Instant::now();
    while beside.exists() {
        if began.elapsed() > WAIT_MAX {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

fn show(config: &Config, context: &Context) -> Result<(), CliError> {
    let keys = NodeKeys::load(config)?;
    let digest = |tls: &hashpact_net::Credentials| {
        tls.key_digest()
            .map_or_else(|_| String::new(), |d| d.to_string())
    };
    let shown = Shown {
        tls: digest(&keys.tls.now),
        tls_next: keys.tls.next.as_ref().map(digest),
        feed: keys.feed.now.public().to_string(),
        feed_next: keys.feed.next.as_ref().map(|key| key.public().to_string()),
        receipt: keys.receipt.now.public().to_string(),
        receipt_next: keys
            .receipt
            .next
            .as_ref()
            .map(|key| key.public().to_string()),
        witness: (keys.witness.as_ref()).map(|pair| pair.now.public().to_string()),
        witness_next: (keys.witness.as_ref())
            .and_then(|pair| pair.next.as_ref())
            .map(|key| key.public().to_string()),
    };
    let output = &context.output;
    let rows = [
        ("tls", &shown.tls, &shown.tls_next),
        ("feed", &shown.feed, &shown.feed_next),
        ("receipt", &shown.receipt, &shown.receipt_next),
    ];
    let witness = shown
        .witness
        .iter()
        .map(|now| ("witness", now, &shown.witness_next));
    for (name, now, next) in rows.into_iter().chain(witness) {
        output.line(format_args!("{name:<8} {now}"))?;
        if let Some(next) = next {
            output.line(format_args!("   next  {next}"))?;
        }
    }
    output.json(&shown)
}
