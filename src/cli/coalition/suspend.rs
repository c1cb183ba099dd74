//! `hashpact coalition suspend`: what one administrator may do alone.

use std::path::PathBuf;

use hashpact_core::id::UnixMillis;
use hashpact_core::keys::{Admin, SecretKey};
use hashpact_core::limits::DAY_MS;
use hashpact_core::reject::Rejection;
use hashpact_core::roster::RosterFile;
use hashpact_core::suspension::Suspension;
use hashpact_node::clock::Clock;
use serde::Serialize;

use super::ROSTER_FILE;
use super::add::admin_key_files;
use super::args::SuspendArgs;
use super::change::refused;
use super::draft::in_force;
use super::state::State;
use crate::cli::Context;
use crate::cli::error::CliError;
use crate::cli::new_files::at;
use crate::cli::output::time;
use crate::cli::roster;
use crate::roster_file;

#[derive(Serialize)]
struct Suspended {
    member: String,
    digest: String,
    until_ms: u64,
    file: String,
    roster: String,
    handed_to_node: bool,
}

pub(super) fn run(args: &SuspendArgs, context: &Context) -> Result<(), CliError> {
    let now = Clock::system().now();
    let dir = &args.draft.folder.dir;
    let mut state = in_force(dir)?;
    let key: SecretKey<Admin> = args.passphrase.load(&key_file(args)?)?;
    let suspension = Suspension {
        genesis: state.chain.genesis(),
        roster_version: state.chain.version(),
        member: state.member(&args.member)?.number,
        issued: now,
        expires: now.plus(u64::from(args.for_days) * DAY_MS),
        reason: args.reason.clone().unwrap_or_default(),
        admin: key.public(),
    };
    let file = sign(&mut state, &suspension, &key, now)?;
    let roster_path = dir.join(ROSTER_FILE);
    state.write(&roster_path)?;
    let path = dir.join(format!("suspension-{}.hashpact", args.member));
    roster_file::write(&path, &file).map_err(|error| at(&path, &error))?;
    if args.to_node {
        roster::hand_over(file.clone(), context)?;
    }
    let output = &context.output;
    let until = time(suspension.expires.0);
    output.line(format_args!("{} is cut off until {until}", args.member))?;
    if !args.to_node {
        output.line("")?;
        output.line("next: hand it to any node, which tells the others at once:")?;
        output.line(format_args!(
            "      hashpact roster import {}",
            path.display()
        ))?;
    }
    let digest = state
        .suspensions
        .all()
        .last()
        .map(|held| held.digest().to_string());
    output.json(&Suspended {
        member: args.member.to_string(),
        digest: digest.unwrap_or_default(),
        until_ms: suspension.expires.0,
        file: path.display().to_string(),
        roster: roster_path.display().to_string(),
        handed_to_node: args.to_node,
    })
}

/// Signs it and takes it in as every node will: a second one of its kind is refused
/// here already.
fn sign(
    state: &mut State,
    suspension: &Suspension,
    key: &SecretKey<Admin>,
    now: UnixMillis,
) -> Result<RosterFile, CliError> {
    let mut draft = suspension.to_envelope().map_err(refused)?;
    let envelope = draft.sign(key).finish().map_err(refused)?;
    let bytes = envelope.as_bytes().clone();
    let next = "one administrator suspends one member at a time, once under a roster version; \
                more than that takes a draft: --lasting";
    let of = |s: &Suspension| (s.admin, s.member, s.roster_version);
    let mut before = state.suspensions.all().iter();
    if before.any(|held| of(held.suspension()) == of(suspension)) {
        let why = "this key has suspended the member under this roster before";
        return Err(refused(Rejection::invalid("suspension", why)).next(next));
    }
    let taken = state.suspensions.accept(envelope, &state.chain, now);
    taken.map_err(|rejection| refused(rejection).next(next))?;
    Ok(RosterFile {
        suspensions: vec![bytes],
        ..RosterFile::default()
    })
}

fn key_file(args: &SuspendArgs) -> Result<PathBuf, CliError> {
    if let Some(path) = &args.key {
        return Ok(path.clone());
    }
    let found = admin_key_files(&args.draft.folder.dir)?;
    match found.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(CliError::usage(format!(
            "{} keys of administrators lie in the folder",
            found.len()
        ))
        .next("say whose it is with --key FILE")),
    }
}
