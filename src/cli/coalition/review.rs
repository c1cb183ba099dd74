//! `hashpact coalition review`: what a draft changes, and who has signed it.

use std::path::Path;

use hashpact_core::enrol::VerifiedRequest;
use hashpact_core::id::UnixMillis;
use hashpact_core::roster::Roster;
use hashpact_node::clock::Clock;
use serde::Serialize;

use super::args::ReviewArgs;
use super::draft::{Approval, Draft, draft_path};
use super::newcomer;
use super::state::State;
use super::{diff, warn};
use crate::cli::Context;
use crate::cli::error::CliError;
use crate::cli::fingerprint::Fingerprint;

#[derive(Serialize)]
struct Reviewed {
    draft: String,
    version: u64,
    digest: String,
    issued_ms: u64,
    expires_ms: u64,
    changes: Vec<String>,
    warnings: Vec<String>,
    newcomers: Vec<Newcomer>,
    approvals: Vec<ApprovalObject>,
    approved: bool,
}

#[derive(Serialize)]
struct Newcomer {
    slug: String,
    words: String,
    fingerprint: String,
}

#[derive(Serialize)]
struct ApprovalObject {
    /// Whose administrators.
    version: u64,
    needed: usize,
    signed: Vec<String>,
    missing: Vec<String>,
}

pub(super) fn run(args: &ReviewArgs, context: &Context) -> Result<(), CliError> {
    let now = Clock::system().now();
    let state = State::read_in(&args.folder.dir)?;
    let version = next_version(state.as_ref());
    let path = draft_path(&args.folder.dir, args.draft.as_deref(), version);
    let draft = Draft::read(&path, state.as_ref(), now)?;
    for request in &draft.requests {
        newcomer::show(context, request)?;
        context.output.line("")?;
    }
    print(context, state.as_ref(), &draft, &path, now)
}

/// The version that a draft here has.
pub(super) fn next_version(state: Option<&State>) -> u64 {
    state
        .map_or(0, |state| state.chain.version())
        .saturating_add(1)
}

/// Shows a draft and what is next.
pub(super) fn print(
    context: &Context,
    state: Option<&State>,
    draft: &Draft,
    path: &Path,
    now: UnixMillis,
) -> Result<(), CliError> {
    lines(context, state, draft, path, now)?;
    let output = &context.output;
    let approvals = draft.approvals(state);
    let approved = approvals.iter().all(Approval::is_enough);
    let shown = path.display();
    output.line("")?;
    if approved {
        output.line(format_args!("next: hashpact coalition publish {shown}"))?;
    } else {
        output.line("next: each administrator, on the own machine,")?;
        output.line(format_args!("      hashpact coalition review {shown}"))?;
        output.line(format_args!(
            "      hashpact coalition sign {shown} --key KEY"
        ))?;
    }
    output.json(&Reviewed {
        draft: path.display().to_string(),
        version: draft.roster.version,
        digest: draft.envelope.payload_digest().to_string(),
        issued_ms: draft.roster.issued.0,
        expires_ms: draft.roster.expires.0,
        changes: changes(state, &draft.roster),
        warnings: warn::warnings(state, draft, now),
        newcomers: draft.requests.iter().map(newcomer_object).collect(),
        approvals: approvals.iter().map(approval_object).collect(),
        approved,
    })
}

/// What a roster changes of the one in force.
pub(super) fn changes(state: Option<&State>, after: &Roster) -> Vec<String> {
    let suspensions = state.map_or(&[][..], |state| state.suspensions.all());
    let before = state.map(|state| state.chain.roster());
    diff::changes(before, after, suspensions)
}

/// The draft in lines: what changes, what it would break, who has signed.
pub(super) fn lines(
    context: &Context,
    state: Option<&State>,
    draft: &Draft,
    path: &Path,
    now: UnixMillis,
) -> Result<(), CliError> {
    let output = &context.output;
    let roster = &draft.roster;
    output.line(format_args!(
        "draft of {}, version {}: {}",
        roster.coalition,
        roster.version,
        path.display()
    ))?;
    let changes = changes(state, roster);
    if changes.is_empty() {
        output.line("  * nothing changes but the date")?;
    }
    for change in changes {
        output.item("  * ", &change)?;
    }
    for warning in warn::warnings(state, draft, now) {
        output.item("  ! ", &warning)?;
    }
    for approval in draft.approvals(state) {
        let (have, need) = (approval.signed.len(), approval.needed);
        let signed = names(&approval.signed).join(", ");
        let of = approval.version;
        let by = if signed.is_empty() {
            "nobody yet"
        } else {
            &signed
        };
        output.line(format_args!(
            "  signed by {by}: {have} of the {need} that version {of} asks for"
        ))?;
    }
    Ok(())
}

fn newcomer_object(request: &VerifiedRequest) -> Newcomer {
    Newcomer {
        slug: request.request().slug.to_string(),
        words: Fingerprint::of(&request.digest()).to_string(),
        fingerprint: request.fingerprint(),
    }
}

fn approval_object(approval: &Approval) -> ApprovalObject {
    ApprovalObject {
        version: approval.version,
        needed: approval.needed,
        signed: names(&approval.signed),
        missing: names(&approval.missing),
    }
}

fn names(admins: &[hashpact_core::roster::RosterAdmin]) -> Vec<String> {
    admins.iter().map(|admin| admin.name.clone()).collect()
}
