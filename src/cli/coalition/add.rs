//! `hashpact coalition add`: the next roster version, with new members.

use std::fs::{self, File};
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use hashpact_core::card::{CardAccepted, EndpointPolicy};
use hashpact_core::enrol::VerifiedRequest;
use hashpact_core::envelope::{Envelope, PayloadType};
use hashpact_core::id::UnixMillis;
use hashpact_core::keys::{Admin, SecretKey};
use hashpact_core::limits::{DAY_MS, REQUEST_MAX_BYTES};
use hashpact_core::reject::Rejection;
use hashpact_core::roster::Roster;
use hashpact_node::clock::Clock;
use serde::Serialize;

use super::state::{State, day};
use super::{AddArgs, ROSTER_FILE};
use crate::cli::Context;
use crate::cli::error::CliError;
use crate::cli::init::request_halves;
use crate::cli::new_files::{at, key_file};
use crate::cli::output::note;
use crate::keyfile;

#[derive(Serialize)]
struct Added {
    version: u64,
    digest: String,
    genesis: String,
    expires_ms: u64,
    members: Vec<AddedMember>,
    roster: String,
}

#[derive(Serialize)]
struct AddedMember {
    slug: String,
    number: u32,
    fingerprint: String,
}

pub(super) fn run(args: &AddArgs, context: &Context) -> Result<(), CliError> {
    let path = args.dir.join(ROSTER_FILE);
    let mut state = State::read(&path)?;
    let now = Clock::system().now();
    let mut requests = Vec::new();
    for path in &args.requests {
        let request = read_request(path, &state, now)?;
        show(context, &request)?;
        requests.push(request);
    }
    if !args.yes {
        confirm()?;
    }
    let keys = admin_keys(args, state.chain.roster())?;
    let members = admit(&mut state, &requests, &keys, args.days, now)?;
    state.write(&path)?;
    print(context, &state, members, &path)
}

fn read_request(path: &Path, state: &State, now: UnixMillis) -> Result<VerifiedRequest, CliError> {
    let mut bytes = Vec::new();
    let one_more = REQUEST_MAX_BYTES as u64 + 1;
    let file = File::open(path).map_err(|error| at(path, &error))?;
    let read = file.take(one_more).read_to_end(&mut bytes);
    read.map_err(|error| at(path, &error))?;
    let verified = Envelope::decode(bytes.into(), PayloadType::EnrolmentRequest)
        .and_then(|envelope| VerifiedRequest::verify(envelope, now))
        .and_then(|request| {
            request.check_against(&state.chain, &state.cards)?;
            Ok(request)
        });
    verified.map_err(|rejection| {
        CliError::failed(format!("{} is refused: {rejection}", path.display()))
    })
}

/// Signs the next version with the new members, and takes their cards.
fn admit(
    state: &mut State,
    requests: &[VerifiedRequest],
    keys: &[SecretKey<Admin>],
    days: u32,
    now: UnixMillis,
) -> Result<Vec<AddedMember>, CliError> {
    let refused = |rejection: Rejection| CliError::failed(format!("refused: {rejection}"));
    let chain = &mut state.chain;
    let life = u64::from(days) * DAY_MS;
    let mut roster = Roster::after(chain.current(), chain.genesis(), now, life);
    let mut members = Vec::new();
    for request in requests {
        let number = roster.admit(request.new_member()).map_err(refused)?;
        members.push(AddedMember {
            slug: request.request().slug.to_string(),
            number: number.value(),
            fingerprint: request.fingerprint(),
        });
    }
    let mut draft = roster.to_envelope().map_err(refused)?;
    for key in keys {
        draft.sign(key);
    }
    let envelope = draft.finish().map_err(refused)?;
    chain.accept(envelope, now).map_err(|rejection| {
        let needed = roster.threshold;
        refused(rejection).next(format!(
            "give the keys of {needed} administrators with --admin-key"
        ))
    })?;
    for request in requests {
        let card = request.request().card.clone();
        match state.cards.accept(card, chain, now).map_err(refused)? {
            CardAccepted::New(_) | CardAccepted::Known => {}
        }
    }
    Ok(members)
}

/// The keys that were given, or those of administrators in the folder.
fn admin_keys(args: &AddArgs, roster: &Roster) -> Result<Vec<SecretKey<Admin>>, CliError> {
    if !args.admin_keys.is_empty() {
        let keys = args.admin_keys.iter().map(|path| keyfile::load(path));
        return keys.collect::<Result<_, _>>().map_err(key_file);
    }
    let mut keys = Vec::new();
    for path in key_files(&args.dir)? {
        if keyfile::purpose(&path).map_err(key_file)?.as_deref() != Some("admin") {
            continue;
        }
        let key: SecretKey<Admin> = keyfile::load(&path).map_err(key_file)?;
        if roster.admin_keys().any(|public| public == key.public()) {
            keys.push(key);
        }
    }
    if keys.is_empty() {
        let dir = args.dir.display();
        return Err(
            CliError::failed(format!("{dir} has no key of an administrator"))
                .next("give their files with --admin-key"),
        );
    }
    Ok(keys)
}

fn key_files(dir: &Path) -> Result<Vec<PathBuf>, CliError> {
    let entries = fs::read_dir(dir).map_err(|error| at(dir, &error))?;
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "key"))
        .collect();
    paths.sort();
    Ok(paths)
}

/// Shows a newcomer: who, which keys, and what is read out.
fn show(context: &Context, verified: &VerifiedRequest) -> Result<(), CliError> {
    let output = &context.output;
    let request = verified.request();
    let card = verified.card();
    let roles: Vec<&str> = request.roles.iter().map(|role| role.as_str()).collect();
    output.line(format_args!("{}  {}", request.slug, request.display_name))?;
    output.line(format_args!("  kind       {}", request.organisation_kind))?;
    output.line(format_args!("  roles      {}", roles.join(", ")))?;
    let contact = &card.contact;
    output.line(format_args!(
        "  contact    {} {} {}",
        contact.name, contact.email, contact.phone
    ))?;
    output.line(format_args!("  identity   {}", request.identity))?;
    for node in &card.nodes {
        let endpoints: Vec<String> = node.endpoints.iter().map(ToString::to_string).collect();
        let reached = if endpoints.is_empty() {
            "only dials".to_owned()
        } else {
            endpoints.join(", ")
        };
        output.line(format_args!("  node       {}: {reached}", node.name))?;
        for digest in &node.tls_keys {
            output.line(format_args!("    TLS      {digest}"))?;
        }
        for feed in &node.feed_keys {
            output.line(format_args!("    feed     {}", feed.key))?;
        }
        for endpoint in &node.endpoints {
            if EndpointPolicy::Public.check(endpoint).is_err() {
                note(format_args!(
                    "note: {endpoint} is local; only nodes that allow that take this card"
                ));
            }
        }
    }
    output.line("  fingerprint, to be read out by the member:")?;
    for half in request_halves(&verified.fingerprint()) {
        output.line(format_args!("    {half}"))?;
    }
    Ok(())
}

/// Asks at the terminal; nobody there means no.
fn confirm() -> Result<(), CliError> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(
            CliError::usage("nobody is at the terminal to compare the fingerprints")
                .next("compare them with what the members read out, then add --yes"),
        );
    }
    note("Did each member read out this very fingerprint over another channel? (yes/no)");
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    read.map_err(CliError::failed)?;
    if answer.trim() == "yes" {
        Ok(())
    } else {
        Err(CliError::failed("nothing was added"))
    }
}

fn print(
    context: &Context,
    state: &State,
    members: Vec<AddedMember>,
    path: &Path,
) -> Result<(), CliError> {
    let current = state.chain.current();
    let output = &context.output;
    for member in &members {
        output.line(format_args!(
            "added {} as member {}",
            member.slug, member.number
        ))?;
    }
    output.line(format_args!(
        "roster version {} in {}, until {}",
        current.roster().version,
        path.display(),
        day(current.roster().expires)
    ))?;
    output.line("")?;
    output.line("next: send the file to the members, who run")?;
    output.line("      hashpact roster import FILE")?;
    output.json(&Added {
        version: current.roster().version,
        digest: current.digest().to_string(),
        genesis: state.chain.genesis().to_string(),
        expires_ms: current.roster().expires.0,
        members,
        roster: path.display().to_string(),
    })
}
