//! `hashpact coalition publish`: from signed drafts to the roster in force.

use std::path::{Path, PathBuf};

use hashpact_core::card::CardAccepted;
use hashpact_core::enrol::VerifiedRequest;
use hashpact_core::envelope::{Envelope, EnvelopeDraft, PayloadType};
use hashpact_core::id::UnixMillis;
use hashpact_core::keys::{Admin, PublicKey};
use hashpact_core::limits::CLOCK_SKEW_MS;
use hashpact_core::reject::Rejection;
use hashpact_core::roster::RosterChain;
use hashpact_node::clock::Clock;
use serde::Serialize;

use super::ROSTER_FILE;
use super::args::{PublishArgs, UpdateArgs};
use super::change::refused;
use super::draft::{Approval, Draft, draft_path};
use super::review::{self, next_version};
use super::state::{State, day};
use crate::cli::Context;
use crate::cli::error::CliError;
use crate::cli::roster;
use crate::roster_file;

#[derive(Serialize)]
struct Published {
    version: u64,
    digest: String,
    genesis: String,
    expires_ms: u64,
    changes: Vec<String>,
    roster: String,
    handed_to_node: bool,
}

pub(super) fn run(args: &PublishArgs, context: &Context) -> Result<(), CliError> {
    let now = Clock::system().now();
    let dir = &args.folder.dir;
    let state = State::read_in(dir)?;
    let (draft, path) = merged(args, state.as_ref(), now)?;
    let enough = draft
        .approvals(state.as_ref())
        .iter()
        .all(Approval::is_enough);
    if !enough || draft.roster.issued > now.plus(CLOCK_SKEW_MS) {
        // What was collected is kept: the next copy is merged with it.
        draft.write(&path)?;
        return Err(not_yet(&draft, state.as_ref(), &path));
    }
    let changes = review::changes(state.as_ref(), &draft.roster);
    let state = put_in_force(state, draft, now)?;
    let file = dir.join(ROSTER_FILE);
    state.write(&file)?;
    if args.to_node {
        roster::hand_over(state.to_file(), context)?;
    }
    print(context, &state, changes, &file, args.to_node)
}

/// One draft with the valid signatures of all copies, and the first copy's file.
fn merged(
    args: &PublishArgs,
    state: Option<&State>,
    now: UnixMillis,
) -> Result<(Draft, PathBuf), CliError> {
    let given = draft_path(&args.folder.dir, None, next_version(state));
    let paths = if args.drafts.is_empty() {
        vec![given]
    } else {
        args.drafts.clone()
    };
    let mut copies = Vec::new();
    for path in &paths {
        copies.push((Draft::read(path, state, now)?, path));
    }
    let mut copies = copies.into_iter();
    let Some((mut first, path)) = copies.next() else {
        return Err(CliError::usage("no draft was given"));
    };
    let digest = first.envelope.payload_digest();
    let mut envelopes = vec![first.envelope.clone()];
    for (copy, other) in copies {
        if copy.envelope.payload_digest() != digest {
            return Err(CliError::failed(format!(
                "{} and {} are different drafts",
                path.display(),
                other.display()
            ))
            .next("hashpact coalition review shows each; one of them must go"));
        }
        envelopes.push(copy.envelope);
    }
    let before = state
        .into_iter()
        .flat_map(|state| state.chain.roster().admin_keys());
    let keys: Vec<_> = before.chain(first.roster.admin_keys()).collect();
    first.envelope = merge(&envelopes, &keys).map_err(refused)?;
    Ok((first, path.clone()))
}

/// The payload with the valid signatures of these keys alone.
fn merge(envelopes: &[Envelope], keys: &[PublicKey<Admin>]) -> Result<Envelope, Rejection> {
    let first = envelopes.first();
    let payload = first
        .map(|envelope| envelope.payload().clone())
        .unwrap_or_default();
    let mut draft = EnvelopeDraft::new(PayloadType::Roster, payload);
    for envelope in envelopes {
        for key in keys {
            if let Some(signature) = envelope.signature_of(key) {
                draft.add(key, &signature)?;
            }
        }
    }
    draft.finish()
}

fn not_yet(draft: &Draft, state: Option<&State>, path: &Path) -> CliError {
    let missing = draft
        .approvals(state)
        .into_iter()
        .find(|approval| !approval.is_enough());
    let Some(missing) = missing else {
        return CliError::failed(format!(
            "it is issued on {}: nodes take it from then on",
            day(draft.roster.issued)
        ))
        .next(format!(
            "keep {} and publish it on that day",
            path.display()
        ));
    };
    let names = missing.missing.iter().map(|admin| admin.name.as_str());
    CliError::failed(format!(
        "{} of the {} administrators that version {} asks for have signed",
        missing.signed.len(),
        missing.needed,
        missing.version
    ))
    .next(format!(
        "let {} sign: hashpact coalition sign {} --key KEY",
        names.collect::<Vec<_>>().join(" or "),
        path.display()
    ))
}

/// Takes the draft in as every node will, and the cards that come with it.
pub(super) fn put_in_force(
    state: Option<State>,
    draft: Draft,
    now: UnixMillis,
) -> Result<State, CliError> {
    let mut state = match state {
        None => {
            let genesis = draft.envelope.payload_digest();
            let chain = RosterChain::begin(draft.envelope, &genesis, now).map_err(refused)?;
            State::new(chain)
        }
        Some(mut state) => {
            state.chain.accept(draft.envelope, now).map_err(refused)?;
            state
        }
    };
    // PROTOCOL 5.3: nobody founds or admits with a roster that has expired meanwhile.
    state.chain.require_fresh(now).map_err(refused)?;
    take_cards(&mut state, &draft.requests, now)?;
    Ok(state)
}

fn take_cards(
    state: &mut State,
    requests: &[VerifiedRequest],
    now: UnixMillis,
) -> Result<(), CliError> {
    for request in requests {
        let card = request.request().card.clone();
        match state
            .cards
            .accept(card, &state.chain, now)
            .map_err(refused)?
        {
            CardAccepted::New(_) | CardAccepted::Known => {}
        }
    }
    Ok(())
}

fn print(
    context: &Context,
    state: &State,
    changes: Vec<String>,
    path: &Path,
    handed_to_node: bool,
) -> Result<(), CliError> {
    let current = state.chain.current();
    let roster = current.roster();
    let output = &context.output;
    output.line(format_args!(
        "roster version {} of {} in {}, until {}",
        roster.version,
        roster.coalition,
        path.display(),
        day(roster.expires)
    ))?;
    for change in &changes {
        output.line(format_args!("  * {change}"))?;
    }
    if roster.version == 1 {
        output.line("genesis digest, which every new node is given:")?;
        output.line(format_args!("  {}", state.chain.genesis()))?;
    }
    output.line("")?;
    if handed_to_node {
        output.line("next: the node serves it on; the other administrators take the file with")?;
        output.line("      hashpact coalition update")?;
    } else {
        output.line("next: hand it to any node, which serves it on:")?;
        output.line(format_args!(
            "      hashpact roster import {}",
            path.display()
        ))?;
    }
    output.json(&Published {
        version: roster.version,
        digest: current.digest().to_string(),
        genesis: state.chain.genesis().to_string(),
        expires_ms: roster.expires.0,
        changes,
        roster: path.display().to_string(),
        handed_to_node,
    })
}

#[derive(Serialize)]
struct Updated {
    version: u64,
    new: usize,
    roster: String,
}

/// `hashpact coalition update`: takes what is newer in other copies.
pub(super) fn update(args: &UpdateArgs, context: &Context) -> Result<(), CliError> {
    let now = Clock::system().now();
    let path = args.folder.dir.join(ROSTER_FILE);
    let mut state = match State::read_in(&args.folder.dir)? {
        Some(state) => state,
        None => begin(&args.files)?,
    };
    let mut new = 0;
    for path in &args.files {
        let file = roster_file::read(path)
            .map_err(|error| CliError::failed(format!("{}: {error}", path.display())))?;
        let taken = take(&mut state, file, now);
        new += taken.map_err(|rejection| {
            CliError::failed(format!("{} is refused: {rejection}", path.display()))
        })?;
    }
    state.write(&path)?;
    let version = state.chain.version();
    context.output.line(format_args!(
        "roster version {version}; documents: {new} new, in {}",
        path.display()
    ))?;
    context.output.json(&Updated {
        version,
        new,
        roster: path.display().to_string(),
    })
}

/// An administrator who has no copy yet begins with the first that is given.
fn begin(files: &[PathBuf]) -> Result<State, CliError> {
    let first = files
        .first()
        .ok_or_else(|| CliError::usage("no file was given"))?;
    State::read(first)
}

fn take(
    state: &mut State,
    file: hashpact_core::roster::RosterFile,
    now: UnixMillis,
) -> Result<usize, Rejection> {
    use hashpact_core::roster::Accepted;
    let mut new = 0;
    for bytes in file.rosters {
        let roster = Envelope::decode(bytes, PayloadType::Roster)?;
        match state.chain.accept(roster, now)? {
            Accepted::New | Accepted::MoreSignatures { .. } => new += 1,
            Accepted::Known => {}
        }
    }
    for bytes in file.node_cards {
        let card = Envelope::decode(bytes, PayloadType::NodeCard)?;
        match state.cards.accept(card, &state.chain, now) {
            Ok(CardAccepted::New(_)) => new += 1,
            // Old cards lie in every file; what they are good for is done.
            Ok(CardAccepted::Known)
            | Err(Rejection::VersionGap { .. } | Rejection::Expired { .. }) => {}
            Err(rejection) => return Err(rejection),
        }
    }
    for bytes in file.suspensions {
        let suspension = Envelope::decode(bytes, PayloadType::Suspension)?;
        match state.suspensions.accept(suspension, &state.chain, now) {
            Ok(true) => new += 1,
            Ok(false) | Err(Rejection::Expired { .. }) => {}
            Err(rejection) => return Err(rejection),
        }
    }
    Ok(new)
}
