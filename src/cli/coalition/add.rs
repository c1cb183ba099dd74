//! `hashpact coalition add`: admits, signs and publishes in one step.

use std::fs;
use std::path::{Path, PathBuf};

use hashpact_core::enrol::VerifiedRequest;
use hashpact_core::envelope::EnvelopeDraft;
use hashpact_core::keys::{Admin, SecretKey};
use hashpact_node::clock::Clock;
use serde::Serialize;

use super::args::{AddArgs, DraftArgs, FolderArgs};
use super::change::{refused, take_in};
use super::draft::{Approval, Draft, Sheet};
use super::state::{State, day};
use super::{ROSTER_FILE, newcomer, publish};
use crate::cli::Context;
use crate::cli::error::CliError;
use crate::cli::new_files::{at, key_file};
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
    let now = Clock::system().now();
    // A draft of its own: nothing that others drafted goes along.
    let scratch = tempfile_in(&args.dir);
    let mut sheet = Sheet::open(
        &DraftArgs {
            folder: FolderArgs {
                dir: args.dir.clone(),
            },
            draft: Some(scratch.0.clone()),
            days: Some(args.days),
        },
        now,
    )?;
    let mut requests = Vec::new();
    for path in &args.requests {
        let state = &sheet.state;
        let fits = |request: &VerifiedRequest| request.check_against(&state.chain, &state.cards);
        let (request, ()) = newcomer::read(path, now, fits)?;
        newcomer::show(context, &request)?;
        requests.push(request);
    }
    newcomer::compare(&requests, &args.compared)?;
    let keys = admin_keys(args)?;
    for request in requests {
        take_in(&mut sheet, request)?;
    }
    let (state, mut draft, _) = sheet.close()?;
    draft.envelope = signed(&state, &draft, &keys)?;
    let members = members(&draft);
    let state = publish::put_in_force(Some(state), draft, now)?;
    let path = args.dir.join(ROSTER_FILE);
    state.write(&path)?;
    print(context, &state, members, &path)
}

/// Where the draft lies for a moment.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may not be there; then nothing is to be done.
        let _ = fs::remove_file(&self.0);
    }
}

fn tempfile_in(dir: &Path) -> Scratch {
    Scratch(dir.join(format!("add-{}.draft", std::process::id())))
}

fn signed(
    state: &State,
    draft: &Draft,
    keys: &[SecretKey<Admin>],
) -> Result<hashpact_core::envelope::Envelope, CliError> {
    let mut envelope = EnvelopeDraft::resume(&draft.envelope);
    let asked = keys
        .iter()
        .filter(|key| draft.is_asked(Some(state), &key.public()));
    for key in asked {
        envelope.sign(key);
    }
    let envelope = envelope.finish().map_err(refused)?;
    let checked = Draft {
        envelope: envelope.clone(),
        roster: draft.roster.clone(),
        requests: Vec::new(),
    };
    let missing = checked
        .approvals(Some(state))
        .into_iter()
        .find(|a: &Approval| !a.is_enough());
    match missing {
        None => Ok(envelope),
        Some(missing) => Err(CliError::failed(format!(
            "{} of the {} signatures that it takes",
            missing.signed.len(),
            missing.needed
        ))
        .next(format!(
            "give the keys of {} administrators with --admin-key; where they lie with several \
             people: hashpact coalition admit, sign, publish",
            missing.needed
        ))),
    }
}

fn members(draft: &Draft) -> Vec<AddedMember> {
    let added = draft.requests.iter().filter_map(|request| {
        let member = draft.roster.member_by_slug(&request.request().slug)?;
        Some(AddedMember {
            slug: member.slug.to_string(),
            number: member.number.value(),
            fingerprint: request.fingerprint(),
        })
    });
    added.collect()
}

/// The keys that were given, or those of administrators in the folder.
fn admin_keys(args: &AddArgs) -> Result<Vec<SecretKey<Admin>>, CliError> {
    let given = if args.admin_keys.is_empty() {
        admin_key_files(&args.dir)?
    } else {
        args.admin_keys.clone()
    };
    if given.is_empty() {
        let dir = args.dir.display();
        return Err(
            CliError::failed(format!("{dir} has no key of an administrator"))
                .next("give their files with --admin-key"),
        );
    }
    given
        .iter()
        .map(|path| args.passphrase.load(path))
        .collect()
}

/// The files in a folder that hold a key of an administrator.
pub(super) fn admin_key_files(dir: &Path) -> Result<Vec<PathBuf>, CliError> {
    let entries = fs::read_dir(dir).map_err(|error| at(dir, &error))?;
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "key"))
        .collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        if keyfile::purpose(&path).map_err(key_file)?.as_deref() == Some("admin") {
            found.push(path);
        }
    }
    Ok(found)
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
    output.line("next: send the file to the new members, and to one that was there before and")?;
    output.line("      passes it on to the others. They run")?;
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
