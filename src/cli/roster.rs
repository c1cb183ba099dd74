//! `hashpact roster`: the roster that this node goes by.

use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, Subcommand};
use hashpact_api::wire;
use hashpact_core::id::{MemberNumber, UnixMillis};
use hashpact_core::roster::{Member, MemberStatus, Role, RosterFile};
use hashpact_node::clock::Clock;
use serde::Serialize;

use super::Context;
use super::client::{Client, connect_or_embed};
use super::coalition::State;
use super::error::{CliError, Exit};
use super::output::{note, stamp, table};
use crate::roster_file;

/// Bytes of documents in one message: well within what one may have.
const MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// Show the roster that this node goes by, or take a newer one from a file
#[derive(Debug, Args)]
pub struct RosterArgs {
    /// What to do
    #[command(subcommand)]
    pub command: RosterCommand,
}

/// What to do with the roster.
#[derive(Debug, Subcommand)]
pub enum RosterCommand {
    /// Take roster versions, node cards and suspensions from files
    ///
    /// They are verified as if a peer had sent them: nothing older is taken, and
    /// nothing that is not signed by enough administrators.
    Import {
        /// Files that the administrators sent
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Show version, members, roles, groups and expiry
    Show,
    /// Go by a new genesis: when so many administrators' keys are lost that nobody can
    /// approve a roster any longer
    ///
    /// The node is stopped first. Feeds and what is held of them stay; roster, cards
    /// and suspensions are replaced, and kept in a file. The new card of this member
    /// is written to a file for the administrators.
    ReAnchor(super::re_anchor::ReAnchorArgs),
}

#[derive(Serialize)]
struct Imported {
    roster_version: u64,
    accepted: u32,
    known: u32,
    refused: Vec<String>,
}

#[derive(Serialize)]
struct Shown {
    coalition: String,
    version: u64,
    digest: String,
    issued: Option<String>,
    expires: Option<String>,
    threshold: usize,
    administrators: Vec<String>,
    members: Vec<MemberObject>,
    groups: Vec<GroupObject>,
    suspensions: usize,
}

#[derive(Serialize)]
struct MemberObject {
    number: u32,
    slug: String,
    display_name: String,
    organisation: String,
    status: &'static str,
    roles: Vec<&'static str>,
    identity_key: String,
    /// 0 where none is known.
    card_version: u64,
    card_expires: Option<String>,
    nodes: Vec<String>,
}

#[derive(Serialize)]
struct GroupObject {
    name: String,
    members: Vec<u32>,
    slugs: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// When a document is refused, with the reason.
pub fn run(args: RosterArgs, context: &Context) -> Result<(), CliError> {
    match args.command {
        RosterCommand::Import { files } => import(&files, context),
        RosterCommand::Show => show(context),
        RosterCommand::ReAnchor(args) => super::re_anchor::run(&args, context),
    }
}

fn import(files: &[PathBuf], context: &Context) -> Result<(), CliError> {
    let mut read = Vec::new();
    for path in files {
        let file = roster_file::read(path).map_err(|error| {
            CliError::failed(format!("{}: {error}", path.display()))
                .next("ask the administrators for the coalition's roster file")
        })?;
        read.push(file);
    }
    let total = import_files(read, context)?;
    for refused in &total.refused {
        note(format!("refused: {refused}"));
    }
    let (version, accepted, known) = (total.roster_version, total.accepted, total.known);
    let refused = total.refused.len();
    context.output.line(format_args!(
        "roster version {version}; documents: {accepted} new, {known} known, {refused} refused"
    ))?;
    context.output.json(&total)?;
    match (refused, accepted) {
        (0, _) => Ok(()),
        (_, 0) => Err(CliError::Quiet(Exit::Failed)),
        _ => Err(CliError::Quiet(Exit::Partial)),
    }
}

/// Hands documents to the node of the configuration, which serves them on.
///
/// # Errors
/// When the node cannot be reached or refuses one of them.
pub(super) fn hand_over(file: RosterFile, context: &Context) -> Result<(), CliError> {
    let total = import_files(vec![file], context)?;
    match total.refused.first() {
        None => Ok(()),
        Some(refused) => Err(CliError::failed(format!("the node refuses {refused}"))
            .next("the file is written; hashpact roster show says what the node goes by")),
    }
}

fn import_files(files: Vec<RosterFile>, context: &Context) -> Result<Imported, CliError> {
    let client = connect_or_embed(context)?;
    let mut total = Imported {
        roster_version: 0,
        accepted: 0,
        known: 0,
        refused: Vec::new(),
    };
    for file in files {
        // The order matters: cards are checked against the roster.
        let rosters = file.rosters.into_iter().map(Document::Roster);
        let cards = file.node_cards.into_iter().map(Document::Card);
        let suspensions = file.suspensions.into_iter().map(Document::Suspension);
        send(&client, rosters.chain(cards).chain(suspensions), &mut total)?;
    }
    Ok(total)
}

enum Document {
    Roster(Bytes),
    Card(Bytes),
    Suspension(Bytes),
}

fn send(
    client: &Client,
    documents: impl Iterator<Item = Document>,
    total: &mut Imported,
) -> Result<(), CliError> {
    let mut request = wire::ImportRosterRequest::default();
    let mut bytes = 0;
    for document in documents {
        let (list, document) = match document {
            Document::Roster(document) => (&mut request.rosters, document),
            Document::Card(document) => (&mut request.node_cards, document),
            Document::Suspension(document) => (&mut request.suspensions, document),
        };
        bytes += document.len();
        list.push(document);
        if bytes >= MESSAGE_BYTES {
            send_some(client, std::mem::take(&mut request), total)?;
            bytes = 0;
        }
    }
    send_some(client, request, total)
}

fn send_some(
    client: &Client,
    request: wire::ImportRosterRequest,
    total: &mut Imported,
) -> Result<(), CliError> {
    let answer = client.call(client.node().import_roster(request))?;
    total.roster_version = answer.roster_version;
    total.accepted = total.accepted.saturating_add(answer.accepted);
    total.known = total.known.saturating_add(answer.known);
    total.refused.extend(answer.refused);
    Ok(())
}

fn show(context: &Context) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    let answer = client.call(client.node().show_roster(wire::ShowRosterRequest {}))?;
    let suspensions = answer.suspensions.len();
    let state = super::coalition::verified(answer)?;
    let shown = shown(&state, suspensions, Clock::system().now());
    print(&shown, context)?;
    context.output.json(&shown)
}

fn shown(state: &State, suspensions: usize, now: UnixMillis) -> Shown {
    let roster = state.chain.roster();
    let newest = state.chain.at(roster.version);
    let suspended = state.suspensions.members(&state.chain, now);
    let members = roster.members.iter();
    let members = members.map(|member| object(state, member, suspended.contains(&member.number)));
    let slug = |number: &MemberNumber| {
        let member = roster.member(*number);
        member.map_or_else(
            || format!("member {number}"),
            |member| member.slug.to_string(),
        )
    };
    let groups = roster.groups.iter().map(|group| GroupObject {
        name: group.name.to_string(),
        members: group.members.iter().map(|number| number.value()).collect(),
        slugs: group.members.iter().map(slug).collect(),
    });
    Shown {
        coalition: roster.coalition.to_string(),
        version: roster.version,
        digest: newest.map_or_else(String::new, |newest| newest.digest().to_string()),
        issued: stamp(roster.issued.0),
        expires: stamp(roster.expires.0),
        threshold: roster.threshold,
        administrators: roster
            .admins
            .iter()
            .map(|admin| admin.name.clone())
            .collect(),
        members: members.collect(),
        groups: groups.collect(),
        suspensions,
    }
}

fn object(state: &State, member: &Member, is_suspended: bool) -> MemberObject {
    let card = state.cards.newest(member.number);
    let card = card.map(|card| card.card());
    MemberObject {
        number: member.number.value(),
        slug: member.slug.to_string(),
        display_name: member.display_name.clone(),
        organisation: member.organisation_kind.clone(),
        status: match member.status {
            // By one administrator alone, for some days: the roster does not say it.
            MemberStatus::Active if is_suspended => "suspended",
            MemberStatus::Active => "active",
            MemberStatus::Suspended => "suspended",
            MemberStatus::Removed => "removed",
        },
        roles: member.roles.iter().copied().map(Role::as_str).collect(),
        identity_key: member.identity.to_string(),
        card_version: card.map_or(0, |card| card.version),
        card_expires: stamp(card.map_or(0, |card| card.expires.0)),
        nodes: card
            .into_iter()
            .flat_map(|card| &card.nodes)
            .map(|node| node.name.to_string())
            .collect(),
    }
}

fn print(shown: &Shown, context: &Context) -> Result<(), CliError> {
    let output = &context.output;
    let (name, version) = (&shown.coalition, shown.version);
    output.line(format_args!(
        "{name}, roster version {version}, expires {}",
        shown
            .expires
            .as_deref()
            .unwrap_or("never")
            .replace('T', " ")
    ))?;
    output.line(format_args!("  digest     {}", shown.digest))?;
    let admins = shown.administrators.join(", ");
    output.line(format_args!(
        "  approved by {} of: {admins}",
        shown.threshold
    ))?;
    let mut members = table(
        &["NO", "MEMBER", "NAME", "STATUS", "ROLES", "CARD"],
        &[0, 5],
    );
    for member in &shown.members {
        members.add_row([
            member.number.to_string(),
            member.slug.clone(),
            member.display_name.clone(),
            member.status.to_owned(),
            member.roles.join(" "),
            member.card_version.to_string(),
        ]);
    }
    output.table(&members)?;
    for group in &shown.groups {
        let slugs = group.slugs.join(", ");
        output.line(format_args!("group {}: {slugs}", group.name))?;
    }
    if shown.suspensions > 0 {
        output.line(format_args!("suspensions known: {}", shown.suspensions))?;
    }
    Ok(())
}
