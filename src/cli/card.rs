//! `hashpact card`: this member's node card, where one node alone cannot sign it.
//!
//! A card carries the signatures of the identity key and of every key on it. A draft
//! travels as a file from node to node, and to where the identity key is; each adds
//! what it has. It is a card once nothing is missing.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Args, Subcommand};
use hashpact_api::wire;
use hashpact_core::card::{Node as CardNode, NodeCard};
use hashpact_core::enrol::VerifiedRequest;
use hashpact_core::envelope::{Envelope, EnvelopeDraft, PayloadType};
use hashpact_core::id::Slug;
use hashpact_core::keys::Identity;
use hashpact_core::limits::{CARD_MAX_BYTES, DAY_MS, REQUEST_MAX_BYTES};
use hashpact_node::card::CARD_DAYS;
use hashpact_node::clock::Clock;
use serde::Serialize;

use super::Context;
use super::client::connect_or_embed;
use super::error::CliError;
use super::keys::{NodeKeys, write_over};
use super::output::time;
use super::recorded::recorded;
use super::values::slug;
use crate::config::Config;
use crate::keyfile;

/// Make, sign and publish this member's node card
///
/// A node with the identity key online, the only one of its member, keeps its card
/// by itself. Otherwise: `draft` (or the draft that the node left), `sign` at each
/// node and where the identity key is, `publish` at any node.
#[derive(Debug, Args)]
pub struct CardArgs {
    /// What to do
    #[command(subcommand)]
    pub command: CardCommand,
}

/// What to do with the card.
#[derive(Debug, Subcommand)]
pub enum CardCommand {
    /// Show the card in force
    Show,
    /// Begin the next card, from the one in force
    Draft(DraftArgs),
    /// Add the signatures of the keys that are here
    Sign(SignArgs),
    /// Hand a card with all its signatures to the node, which announces it
    Publish {
        /// The card
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// What the next card says.
#[derive(Debug, Args)]
pub struct DraftArgs {
    /// Where to write it
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Add a node, from the request that `hashpact init` made for it
    #[arg(long, value_name = "REQUEST")]
    pub add: Option<PathBuf>,
    /// Take a node off
    #[arg(long, value_name = "NODE", value_parser = slug)]
    pub remove: Option<Slug>,
}

/// What to sign with.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// The draft; it is written over
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The identity key, where it is kept offline; no node is needed then
    #[arg(long, value_name = "KEY")]
    pub identity_key: Option<PathBuf>,
}

#[derive(Serialize)]
struct CardObject {
    member: String,
    version: u64,
    expires: String,
    nodes: Vec<NodeObject>,
    signatures: usize,
}

#[derive(Serialize)]
struct NodeObject {
    name: String,
    endpoints: Vec<String>,
    tls_keys: Vec<String>,
    feed_keys: Vec<String>,
    receipt_keys: Vec<String>,
    witness_keys: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// A file that is no card, keys that cannot be read, a card that is refused.
pub fn run(args: CardArgs, context: &Context) -> Result<(), CliError> {
    match args.command {
        CardCommand::Show => {
            let (_, envelope) = in_force(context)?;
            print(context, &read(&envelope)?, &envelope)
        }
        CardCommand::Draft(args) => draft(&args, context),
        CardCommand::Sign(args) => recorded(context, &[], || sign(&args, context)),
        CardCommand::Publish { file } => publish(&file, context),
    }
}

fn draft(args: &DraftArgs, context: &Context) -> Result<(), CliError> {
    if args.file.exists() {
        let file = args.file.display();
        return Err(CliError::failed(format!(
            "{file} exists and is left as it is"
        )));
    }
    let (config, envelope) = in_force(context)?;
    let mut card = read(&envelope)?;
    let now = Clock::system().now();
    card.version = card.version.saturating_add(1);
    card.issued = now;
    card.expires = now.plus(CARD_DAYS * DAY_MS);
    if let Some(name) = &args.remove {
        let before = card.nodes.len();
        card.nodes.retain(|node| node.name != *name);
        if card.nodes.len() == before {
            return Err(CliError::usage(format!("no node {name} is on the card")));
        }
    }
    if let Some(request) = &args.add {
        card.nodes.extend(nodes_of(request, &card)?);
    }
    let mut draft = card.to_envelope().map_err(refused)?;
    recorded(context, &[], || {
        NodeKeys::load(&config)?.sign(&mut draft)?;
        if let Some(identity) = &config.keys.identity {
            draft.sign(&keyfile::load::<Identity>(identity).map_err(CliError::failed)?);
        }
        write(context, &args.file, &draft)
    })
}

/// The nodes on the card of a request of the same member.
fn nodes_of(request: &Path, card: &NodeCard) -> Result<Vec<CardNode>, CliError> {
    let envelope = envelope(request, PayloadType::EnrolmentRequest, REQUEST_MAX_BYTES)?;
    let verified = VerifiedRequest::verify(envelope, Clock::system().now()).map_err(refused)?;
    let theirs = verified.card();
    if theirs.slug != card.slug || theirs.genesis != card.genesis {
        let why = format!("{}: the request is not of {}", request.display(), card.slug);
        return Err(CliError::usage(why));
    }
    Ok(theirs.nodes.clone())
}

fn sign(args: &SignArgs, context: &Context) -> Result<(), CliError> {
    let envelope = envelope(&args.file, PayloadType::NodeCard, CARD_MAX_BYTES)?;
    let card = read(&envelope)?;
    let mut draft = EnvelopeDraft::resume(&envelope);
    if let Some(path) = &args.identity_key {
        draft.sign(&keyfile::load::<Identity>(path).map_err(CliError::failed)?);
    } else {
        let config = context.config()?;
        if config.member.slug != card.slug {
            let why = format!(
                "the card is of {}, this node of {}",
                card.slug, config.member.slug
            );
            return Err(CliError::usage(why));
        }
        NodeKeys::load(&config)?.sign(&mut draft)?;
        if let Some(identity) = &config.keys.identity {
            draft.sign(&keyfile::load::<Identity>(identity).map_err(CliError::failed)?);
        }
    }
    write(context, &args.file, &draft)
}

fn write(context: &Context, file: &Path, draft: &EnvelopeDraft) -> Result<(), CliError> {
    let envelope = draft.finish().map_err(refused)?;
    write_over(file, envelope.as_bytes())?;
    print(context, &read(&envelope)?, &envelope)?;
    context
        .output
        .line(format_args!("written to {}", file.display()))
}

fn publish(file: &Path, context: &Context) -> Result<(), CliError> {
    let envelope = envelope(file, PayloadType::NodeCard, CARD_MAX_BYTES)?;
    let client = connect_or_embed(context)?;
    let request = wire::ImportRosterRequest {
        node_cards: vec![envelope.as_bytes().clone()],
        ..Default::default()
    };
    let answer = client.call(client.node().import_roster(request))?;
    if let Some(why) = answer.refused.first() {
        return Err(CliError::failed(format!("{}: {why}", file.display()))
            .next("hashpact card sign it wherever a key on it is, and where the identity key is"));
    }
    print(context, &read(&envelope)?, &envelope)
}

/// The configuration, and the newest card of its member.
fn in_force(context: &Context) -> Result<(Config, Envelope), CliError> {
    let config = context.config()?;
    let client = connect_or_embed(context)?;
    let shown = client.call(client.node().show_roster(wire::ShowRosterRequest {}))?;
    let cards = shown.node_cards.into_iter().map(|bytes| {
        let envelope = Envelope::decode(bytes, PayloadType::NodeCard).map_err(refused)?;
        Ok((read(&envelope)?, envelope))
    });
    let cards: Vec<_> = cards.collect::<Result<_, CliError>>()?;
    let own = cards
        .into_iter()
        .find(|(card, _)| card.slug == config.member.slug);
    let (_, envelope) = own.ok_or_else(|| {
        CliError::failed(format!("no node card of {} is known", config.member.slug))
            .next("the first one goes with the enrolment request that hashpact init made")
    })?;
    Ok((config, envelope))
}

fn read(envelope: &Envelope) -> Result<NodeCard, CliError> {
    NodeCard::read(envelope.payload()).map_err(refused)
}

fn envelope(path: &Path, kind: PayloadType, max: usize) -> Result<Envelope, CliError> {
    let at = |error: std::io::Error| CliError::failed(format!("{}: {error}", path.display()));
    let length = std::fs::metadata(path).map_err(at)?.len();
    if length > max as u64 {
        let why = format!("{}: {length} bytes, the limit is {max}", path.display());
        return Err(CliError::failed(why));
    }
    let bytes = Bytes::from(std::fs::read(path).map_err(at)?);
    Envelope::decode(bytes, kind).map_err(refused)
}

fn print(context: &Context, card: &NodeCard, envelope: &Envelope) -> Result<(), CliError> {
    let output = &context.output;
    let object = CardObject {
        member: card.slug.to_string(),
        version: card.version,
        expires: time(card.expires.0),
        nodes: card.nodes.iter().map(node).collect(),
        signatures: envelope.signature_count(),
    };
    let (version, expires) = (object.version, &object.expires);
    output.line(format_args!(
        "card of {}, version {version}, until {expires}",
        object.member
    ))?;
    for node in &object.nodes {
        let reached = match node.endpoints.as_slice() {
            [] => "only dials".to_owned(),
            endpoints => endpoints.join(", "),
        };
        output.line(format_args!("  {}: {reached}", node.name))?;
        let keys = [
            ("tls", &node.tls_keys),
            ("feed", &node.feed_keys),
            ("witness", &node.witness_keys),
        ];
        for (purpose, keys) in keys {
            for key in keys {
                output.line(format_args!("    {purpose:<7} {key}"))?;
            }
        }
    }
    let signatures = object.signatures;
    output.line(format_args!("  {signatures} signatures"))?;
    output.json(&object)
}

fn node(node: &CardNode) -> NodeObject {
    NodeObject {
        name: node.name.to_string(),
        endpoints: node.endpoints.iter().map(ToString::to_string).collect(),
        tls_keys: node.tls_keys.iter().map(ToString::to_string).collect(),
        feed_keys: node
            .feed_keys
            .iter()
            .map(|key| key.key.to_string())
            .collect(),
        receipt_keys: node.receipt_keys.iter().map(ToString::to_string).collect(),
        witness_keys: node.witness_keys.iter().map(ToString::to_string).collect(),
    }
}

fn refused(rejection: hashpact_core::reject::Rejection) -> CliError {
    CliError::failed(format!("this is refused: {rejection}"))
}
