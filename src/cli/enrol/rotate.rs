//! `hashpact enrol rotate-identity`: a new identity key, and the request for it.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use hashpact_api::wire;
use hashpact_core::card::NodeCard;
use hashpact_core::enrol::{EnrolmentRequest, VerifiedRequest};
use hashpact_core::envelope::{Envelope, PayloadType};
use hashpact_core::keys::{Identity, SecretKey};
use hashpact_core::limits::DAY_MS;
use hashpact_core::reject::Rejection;
use hashpact_core::roster::{Member, Roster};
use hashpact_node::card::CARD_DAYS;
use hashpact_node::clock::Clock;
use serde::Serialize;

use crate::cli::Context;
use crate::cli::client::connect_or_embed;
use crate::cli::error::CliError;
use crate::cli::fingerprint::Fingerprint;
use crate::cli::keys::NodeKeys;
use crate::cli::new_files::{NewFiles, key_file};
use crate::cli::recorded::recorded;
use crate::config::Config;
use crate::keyfile;

/// Where the new key and the request go.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// The new key's file; not written over
    #[arg(value_name = "FILE")]
    pub new_key: PathBuf,
    /// The request's file; not written over
    #[arg(long, value_name = "FILE", default_value = "identity.request")]
    pub request: PathBuf,
    /// The old identity key, where the configuration does not name it
    #[arg(long, value_name = "FILE", conflicts_with = "lost")]
    pub old_key: Option<PathBuf>,
    /// The old identity key is lost: the administrators have only the fingerprint
    #[arg(long)]
    pub lost: bool,
}

#[derive(Serialize)]
struct Rotated {
    member: String,
    identity_key: String,
    key: String,
    request: String,
    words: String,
    signed_by_old_key: bool,
}

pub(super) fn run(args: &RotateArgs, context: &Context) -> Result<(), CliError> {
    let config = context.config()?;
    let (member, card) = in_force(&config, context)?;
    // The node is asked no more from here on.
    recorded(context, &[], || make(args, &config, context, member, card))
}

/// Makes the new key and the request.
fn make(
    args: &RotateArgs,
    config: &Config,
    context: &Context,
    member: Member,
    card: NodeCard,
) -> Result<(), CliError> {
    let old = old_key(args, config, &member)?;
    let now = Clock::system().now();
    let mut files = NewFiles::default();
    let new: SecretKey<Identity> = files.key(&args.new_key)?;
    let card = NodeCard {
        // The request says whose it is, by the slug.
        member: None,
        version: card.version.saturating_add(1),
        issued: now,
        expires: now.plus(CARD_DAYS * DAY_MS),
        ..card
    };
    let card = NodeKeys::load(config)?.sign_card(&card, &new)?;
    let request = EnrolmentRequest {
        genesis: config.coalition.genesis,
        slug: member.slug.clone(),
        display_name: member.display_name.clone(),
        organisation_kind: member.organisation_kind.clone(),
        roles: member.roles.clone(),
        identity: new.public(),
        created: now,
        card,
    };
    let mut draft = request.to_envelope().map_err(refused)?;
    draft.sign(&new);
    if let Some(old) = &old {
        draft.sign(old);
    }
    let envelope = draft.finish().map_err(refused)?;
    let verified = VerifiedRequest::verify(envelope.clone(), now).map_err(elsewhere)?;
    files.write(&args.request, envelope.as_bytes())?;
    files.keep();
    print(args, context, &member, &verified, old.is_some())
}

/// This member in the roster in force, and its newest card.
fn in_force(config: &Config, context: &Context) -> Result<(Member, NodeCard), CliError> {
    let client = connect_or_embed(context)?;
    let answer = client.call(client.node().show_roster(wire::ShowRosterRequest {}))?;
    let slug = &config.member.slug;
    let nothing = || {
        CliError::failed(format!("{slug} is in no roster that this node has"))
            .next("hashpact enrol request joins a coalition")
    };
    let newest = answer.rosters.last().cloned().ok_or_else(nothing)?;
    let roster = read(newest, PayloadType::Roster, Roster::read)?;
    let member = roster.member_by_slug(slug).cloned().ok_or_else(nothing)?;
    let mut cards = Vec::new();
    for card in answer.node_cards {
        cards.push(read(card, PayloadType::NodeCard, NodeCard::read)?);
    }
    let own = cards.into_iter().filter(|card| card.slug == *slug);
    let card = own.max_by_key(|card| card.version).ok_or_else(nothing)?;
    Ok((member, card))
}

fn read<T>(
    bytes: Bytes,
    kind: PayloadType,
    payload: impl FnOnce(&Bytes) -> Result<T, Rejection>,
) -> Result<T, CliError> {
    let envelope = Envelope::decode(bytes, kind).map_err(CliError::failed)?;
    payload(envelope.payload()).map_err(CliError::failed)
}

fn old_key(
    args: &RotateArgs,
    config: &Config,
    member: &Member,
) -> Result<Option<SecretKey<Identity>>, CliError> {
    if args.lost {
        return Ok(None);
    }
    let path = args.old_key.as_deref().or(config.keys.identity.as_deref());
    let Some(path) = path else {
        return Err(CliError::usage("keys.identity is not set")
            .next("give the old key with --old-key, or --lost where it is lost"));
    };
    let key: SecretKey<Identity> = keyfile::load(path).map_err(key_file)?;
    if key.public() == member.identity {
        Ok(Some(key))
    } else {
        Err(CliError::failed(format!(
            "{} is not the identity key that the roster has of {}",
            path.display(),
            member.slug
        ))
        .next("give it with --old-key, or --lost where it is lost"))
    }
}

fn print(
    args: &RotateArgs,
    context: &Context,
    member: &Member,
    request: &VerifiedRequest,
    signed_by_old_key: bool,
) -> Result<(), CliError> {
    let output = &context.output;
    let words = Fingerprint::of(&request.digest());
    let (key, file) = (args.new_key.display(), args.request.display());
    output.line(format_args!(
        "made a new identity key of {} in {key}",
        member.slug
    ))?;
    output.line(format_args!("  request      {file}"))?;
    if !signed_by_old_key {
        output.line("  the old key has not signed it")?;
    }
    output.line("  its fingerprint")?;
    words.print(context, "    ")?;
    output.line("")?;
    output.line("next: send the request to the administrators and read the words out to them")?;
    output.line("      over another channel. When the roster with the new key is in force,")?;
    output.line(format_args!(
        "      set keys.identity to {}",
        shown(&args.new_key)
    ))?;
    output.json(&Rotated {
        member: member.slug.to_string(),
        identity_key: request.request().identity.to_string(),
        key: args.new_key.display().to_string(),
        request: args.request.display().to_string(),
        words: words.to_string(),
        signed_by_old_key,
    })
}

fn shown(path: &Path) -> String {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    whole.display().to_string()
}

fn refused(rejection: Rejection) -> CliError {
    CliError::failed(format!("the coalition would refuse this: {rejection}"))
}

/// A card of several nodes names keys that lie with the others.
fn elsewhere(rejection: Rejection) -> CliError {
    refused(rejection).next(
        "every key on the card must sign; where the member has several nodes, take the others \
         off the card first, and add them again after the rotation",
    )
}
