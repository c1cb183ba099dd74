//! `hashpact coalition show`: what a roster file says.

use std::path::Path;

use hashpact_core::keys::{Admin, PublicKey};
use hashpact_core::roster::{Role, RosterVersion};
use hashpact_node::clock::Clock;
use serde::Serialize;

use super::state::{State, day};
use crate::cli::Context;
use crate::cli::error::CliError;
use crate::cli::output::table;

#[derive(Serialize)]
struct Shown {
    coalition: String,
    genesis: String,
    version: u64,
    digest: String,
    state: String,
    issued_ms: u64,
    expires_ms: u64,
    threshold: usize,
    admins: Vec<ShownAdmin>,
    members: Vec<ShownMember>,
}

#[derive(Serialize)]
struct ShownAdmin {
    name: String,
    key: String,
    signed: bool,
}

#[derive(Serialize)]
struct ShownMember {
    number: u32,
    slug: String,
    display_name: String,
    organisation: String,
    status: String,
    roles: Vec<&'static str>,
    identity: String,
    card_version: Option<u64>,
    card_expires_ms: Option<u64>,
}

pub(super) fn run(path: &Path, context: &Context) -> Result<(), CliError> {
    let state = State::read(path)?;
    let shown = shown(&state);
    let output = &context.output;
    output.line(format_args!(
        "{}, version {}",
        shown.coalition, shown.version
    ))?;
    output.line(format_args!("  genesis   {}", shown.genesis))?;
    output.line(format_args!("  digest    {}", shown.digest))?;
    let roster = state.chain.roster();
    output.line(format_args!(
        "  in force  {} to {} ({})",
        day(roster.issued),
        day(roster.expires),
        shown.state
    ))?;
    output.line(format_args!(
        "  approval  {} of {} administrators",
        shown.threshold,
        shown.admins.len()
    ))?;
    output.line("")?;
    let mut admins = table(&["administrator", "signed"], &[]);
    for admin in &shown.admins {
        admins.add_row([admin.name.as_str(), yes(admin.signed)]);
    }
    output.table(&admins)?;
    output.line("")?;
    if shown.members.is_empty() {
        output.line("no members yet")?;
    } else {
        let mut members = table(&["no", "member", "name", "status", "roles", "card"], &[0]);
        for member in &shown.members {
            let card = member
                .card_version
                .map_or("none".to_owned(), |v| format!("v{v}"));
            members.add_row([
                member.number.to_string(),
                member.slug.clone(),
                member.display_name.clone(),
                member.status.clone(),
                member.roles.join(", "),
                card,
            ]);
        }
        output.table(&members)?;
    }
    output.json(&shown)
}

fn shown(state: &State) -> Shown {
    let current = state.chain.current();
    let roster = current.roster();
    let now = Clock::system().now();
    let members = roster.members.iter().map(|member| {
        let card = state.cards.newest(member.number).map(|card| card.card());
        ShownMember {
            number: member.number.value(),
            slug: member.slug.to_string(),
            display_name: member.display_name.clone(),
            organisation: member.organisation_kind.clone(),
            status: member.status.to_string(),
            roles: member
                .roles
                .iter()
                .map(|role: &Role| role.as_str())
                .collect(),
            identity: member.identity.to_string(),
            card_version: card.map(|card| card.version),
            card_expires_ms: card.map(|card| card.expires.0),
        }
    });
    Shown {
        coalition: roster.coalition.to_string(),
        genesis: state.chain.genesis().to_string(),
        version: roster.version,
        digest: current.digest().to_string(),
        state: format!("{:?}", state.chain.state(now)).to_lowercase(),
        issued_ms: roster.issued.0,
        expires_ms: roster.expires.0,
        threshold: roster.threshold,
        admins: admins(current),
        members: members.collect(),
    }
}

fn admins(version: &RosterVersion) -> Vec<ShownAdmin> {
    let signers = version.envelope().signers(version.roster().admin_keys());
    let signed = |key: &PublicKey<Admin>| signers.contains(key);
    let admins = version.roster().admins.iter();
    admins
        .map(|admin| ShownAdmin {
            name: admin.name.clone(),
            key: admin.key.to_string(),
            signed: signed(&admin.key),
        })
        .collect()
}

const fn yes(signed: bool) -> &'static str {
    if signed { "yes" } else { "no" }
}
