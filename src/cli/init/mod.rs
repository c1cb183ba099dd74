//! `hashpact init`: makes a node's folder, keys, configuration and enrolment request.

mod request;
mod template;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hashpact_core::id::{CoalitionName, Digest, Slug};
use hashpact_core::keys::{Feed, Identity, Receipt, SecretKey, Witness};
use hashpact_core::roster::Role;
use hashpact_node::clock::Clock;
use serde::Serialize;

use super::Context;
use super::error::CliError;
use super::new_files::{NewFiles, key_file, refuse_existing};
use super::open::{certificate_name, private_folder};
use super::values::{BootstrapPeer, RoleArg, slug};
use crate::config::{Config, Endpoint, Files};
use crate::keyfile::{self, TlsKind};
use request::NodeKeys;

/// Make a node's keys, its configuration and its enrolment request
///
/// Everything is made on this machine and no key leaves it. Nothing that exists
/// is overwritten. Send the request file to the administrators and read its
/// fingerprint out to them over another channel.
#[derive(Debug, Args)]
#[command(override_usage = "\
hashpact init [OPTIONS] --coalition <NAME> --genesis <DIGEST>
                     --member <SLUG> --contact-name <TEXT>
                     --contact-email <ADDRESS>")]
pub struct InitArgs {
    /// Folder to make the node in
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// The coalition's name, such as csa-coalition.example
    #[arg(long, value_name = "NAME", value_parser = CoalitionName::parse)]
    pub coalition: CoalitionName,
    /// The genesis digest that the administrators read out, 64 hexadecimal digits
    #[arg(long, value_name = "DIGEST", value_parser = Digest::from_hex)]
    pub genesis: Digest,
    /// The member's slug: 1 to 32 of a-z, 0-9 and -; unique for ever
    #[arg(long, value_name = "SLUG", value_parser = slug)]
    pub member: Slug,
    /// The node's name, unique at the member
    #[arg(long, value_name = "SLUG", default_value = "main", value_parser = slug)]
    pub node: Slug,
    /// The member's name for people [default: the slug]
    #[arg(long, value_name = "TEXT")]
    pub display_name: Option<String>,
    /// The kind of organisation, such as platform, hotline or vendor
    #[arg(long, value_name = "TEXT", default_value = "platform")]
    pub organisation: String,
    /// A role to ask for; may be repeated
    #[arg(long = "role", value_name = "ROLE", default_values = ["publish", "subscribe"])]
    pub roles: Vec<RoleArg>,
    /// Address to listen at for other members, or "off" to only dial
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:7443", value_parser = address_or_off)]
    pub listen: ListenArg,
    /// Where other members reach this node; may be repeated
    #[arg(long = "advertise", value_name = "HOST:PORT", value_parser = Endpoint::parse)]
    pub advertise: Vec<Endpoint>,
    /// HTTP proxy to dial other members through (CONNECT)
    #[arg(long, value_name = "HOST:PORT", value_parser = Endpoint::parse)]
    pub proxy: Option<Endpoint>,
    /// A node to ask for the roster first; may be repeated
    #[arg(long = "bootstrap", value_name = "MEMBER=HOST:PORT")]
    pub bootstrap: Vec<BootstrapPeer>,
    /// Address of /live, /ready and /metrics, or "off"
    #[arg(long, alias = "http", value_name = "ADDR:PORT", default_value = "127.0.0.1:9464", value_parser = address_or_off)]
    pub http_listen: ListenArg,
    /// Unix socket of the local API and of the commands, relative to the folder
    #[arg(long, value_name = "PATH", default_value = "hashpact.sock")]
    pub api_socket: PathBuf,
    /// The roster's file, taken at every start, relative to the folder
    #[arg(long, value_name = "FILE")]
    pub roster_file: Option<PathBuf>,
    /// Allow endpoints on this machine itself; for trials only
    #[arg(long)]
    pub allow_loopback_endpoints: bool,
    /// Name of the 24/7 contact
    #[arg(long, value_name = "TEXT")]
    pub contact_name: String,
    /// E-mail address of the 24/7 contact
    #[arg(long, value_name = "ADDRESS")]
    pub contact_email: String,
    /// Telephone number of the 24/7 contact
    #[arg(long, value_name = "NUMBER", default_value = "")]
    pub contact_phone: String,
    /// An identity key that exists already, such as that of the member's first node
    #[arg(long, value_name = "FILE")]
    pub identity_key: Option<PathBuf>,
    /// Algorithm of the TLS key
    #[arg(long, value_name = "KIND", default_value = "p256")]
    pub tls_key_kind: TlsKeyKind,
}

impl InitArgs {
    /// Whether the member asks to be a witness, and so needs a key for it.
    fn is_witness(&self) -> bool {
        self.roles.iter().any(|role| role.role() == Role::Witness)
    }
}

/// Algorithms of TLS keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TlsKeyKind {
    /// ECDSA on P-256
    P256,
    /// Ed25519
    Ed25519,
}

/// An address to listen at, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenArg(pub Option<SocketAddr>);

fn address_or_off(text: &str) -> Result<ListenArg, String> {
    if text == "off" {
        return Ok(ListenArg(None));
    }
    let parsed = text.parse().map(|address| ListenArg(Some(address)));
    parsed.map_err(|_| "write ADDRESS:PORT, such as 0.0.0.0:7443, or off".to_owned())
}

/// The files and folders of a node, in its own folder.
const CONFIG: &str = "hashpact.toml";
const KEYS: &str = "keys";
const IDENTITY_KEY: &str = "keys/identity.key";
const FEED_KEY: &str = "keys/feed.key";
const RECEIPT_KEY: &str = "keys/receipt.key";
const TLS_KEY: &str = "keys/tls.key";
const WITNESS_KEY: &str = "keys/witness.key";
const DATA: &str = "data";
const SIGN_STATE: &str = "sign-state";
/// Words of a fingerprint in a line.
const WORDS_IN_LINE: usize = 4;

#[derive(Serialize)]
struct Made {
    dir: String,
    config: String,
    request: String,
    fingerprint: String,
    words: String,
    member: String,
    node: String,
    identity_key: String,
}

/// Runs the command.
///
/// # Errors
/// When a file exists already or cannot be written.
pub fn run(args: InitArgs, context: &Context) -> Result<(), CliError> {
    private_folder(&args.dir, "--dir")?;
    let text = template::config(&args);
    // What would not start is refused before anything is made.
    let config = Config::parse(&text, &args.dir, Files::Ignore)
        .map_err(|problems| not_usable(&args, &problems))?;
    let mut files = NewFiles::default();
    let request_name = format!("enrolment-{}.request", args.member);
    refuse_existing(&args.dir, &[CONFIG, &request_name])?;
    let made = make(&args, &config, &text, &request_name, &mut files)?;
    files.keep();
    print(context, &args, &made)
}

fn make(
    args: &InitArgs,
    config: &Config,
    text: &str,
    request_name: &str,
    files: &mut NewFiles,
) -> Result<Made, CliError> {
    let now = Clock::system().now();
    for folder in [KEYS, DATA, SIGN_STATE] {
        private_folder(&args.dir.join(folder), "--dir")?;
    }
    let identity = match &args.identity_key {
        Some(path) => keyfile::load::<Identity>(path).map_err(CliError::failed)?,
        None => files.key(&args.dir.join(IDENTITY_KEY))?,
    };
    let feed: SecretKey<Feed> = files.key(&args.dir.join(FEED_KEY))?;
    let receipt: SecretKey<Receipt> = files.key(&args.dir.join(RECEIPT_KEY))?;
    let witness = args.is_witness();
    let witness: Option<SecretKey<Witness>> = witness
        .then(|| files.key(&args.dir.join(WITNESS_KEY)))
        .transpose()?;
    let kind = match args.tls_key_kind {
        TlsKeyKind::P256 => TlsKind::P256,
        TlsKeyKind::Ed25519 => TlsKind::Ed25519,
    };
    let tls_path = args.dir.join(TLS_KEY);
    let name = certificate_name(args.node.as_str(), args.member.as_str());
    let tls = keyfile::create_tls(&tls_path, &name, now, kind).map_err(key_file)?;
    files.note(tls_path);
    let keys = NodeKeys {
        identity: &identity,
        feed: &feed,
        receipt: &receipt,
        witness: witness.as_ref(),
        tls: &tls,
    };
    let request = request::make(args, &keys, now)?;
    files.write(&args.dir.join(request_name), request.bytes())?;
    files.write(&args.dir.join(CONFIG), text.as_bytes())?;
    Ok(Made {
        dir: args.dir.display().to_string(),
        config: args.dir.join(CONFIG).display().to_string(),
        request: args.dir.join(request_name).display().to_string(),
        fingerprint: request.fingerprint,
        words: request.words.to_string(),
        member: config.member.slug.to_string(),
        node: config.node.name.to_string(),
        identity_key: identity.public().to_string(),
    })
}

fn print(context: &Context, args: &InitArgs, made: &Made) -> Result<(), CliError> {
    let output = &context.output;
    output.line(format_args!(
        "made node {} of {} in {}",
        made.node, made.member, made.dir
    ))?;
    output.line(format_args!("  configuration      {}", made.config))?;
    output.line(format_args!("  enrolment request  {}", made.request))?;
    output.line("  its fingerprint, to be read out")?;
    for line in made
        .words
        .split(' ')
        .collect::<Vec<_>>()
        .chunks(WORDS_IN_LINE)
    {
        output.line(format_args!("    {}", line.join(" ")))?;
    }
    if args.identity_key.is_none() {
        output.line("")?;
        output
            .line("keys/identity.key speaks for the member. Keep a copy offline. The node signs")?;
        output
            .line("new node cards with it: when one runs out, and for every new key. So it does")?;
        output
            .line("retractions and erasures of many entries, ends of many grants, new epochs.")?;
    }
    output.line("")?;
    output.line(format_args!(
        "next: send the request to the administrators of {} and read its",
        args.coalition
    ))?;
    output.line("      fingerprint out to them over another channel. When they have agreed:")?;
    output.line(format_args!(
        "      hashpact --config {} enrol accept \\",
        made.config
    ))?;
    output.line(format_args!("        --genesis {} \\", args.genesis))?;
    output.line("        --address HOST:PORT (or --roster FILE)")?;
    output.json(made)
}

fn not_usable(args: &InitArgs, problems: &[crate::config::ConfigProblem]) -> CliError {
    let facts: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}: {}; {}", problem.key, problem.what, problem.fix))
        .collect();
    let error = CliError::usage(facts.join("\n       "));
    let local = !args.allow_loopback_endpoints && args.advertise.iter().any(Endpoint::is_loopback);
    if local {
        return error.next("for a trial on one machine add --allow-loopback-endpoints");
    }
    error
}

#[cfg(test)]
mod tests;
