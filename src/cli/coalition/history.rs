//! `hashpact coalition history`: every version, what it changed, who signed it.

use std::path::Path;

use hashpact_core::roster::{Roster, RosterVersion};
use hashpact_core::suspension::AcceptedSuspension;
use serde::Serialize;

use super::diff;
use super::state::{State, day};
use crate::cli::Context;
use crate::cli::error::CliError;

#[derive(Serialize)]
struct History {
    coalition: String,
    genesis: String,
    versions: Vec<VersionObject>,
}

#[derive(Serialize)]
struct VersionObject {
    version: u64,
    digest: String,
    issued_ms: u64,
    expires_ms: u64,
    changes: Vec<String>,
    signed: Vec<String>,
}

pub(super) fn run(path: &Path, context: &Context) -> Result<(), CliError> {
    let state = State::read(path)?;
    let mut versions = Vec::new();
    let mut before: Option<&Roster> = None;
    for version in state.chain.from_version(1) {
        versions.push(object(before, version, state.suspensions.all()));
        before = Some(version.roster());
    }
    let output = &context.output;
    for version in &versions {
        output.line(format_args!(
            "version {}, {}, signed by {}",
            version.version,
            day(hashpact_core::id::UnixMillis(version.issued_ms)),
            version.signed.join(", ")
        ))?;
        for change in &version.changes {
            output.item("  * ", change)?;
        }
    }
    output.json(&History {
        coalition: state.chain.roster().coalition.to_string(),
        genesis: state.chain.genesis().to_string(),
        versions,
    })
}

/// A version and the administrators, of the one before or its own, that signed it.
fn object(
    before: Option<&Roster>,
    version: &RosterVersion,
    suspensions: &[AcceptedSuspension],
) -> VersionObject {
    let roster = version.roster();
    let mut admins: Vec<_> = before.map_or(Vec::new(), |before| before.admins.iter().collect());
    let is_new = |key| before.is_none_or(|before| before.admin_keys().all(|held| held != key));
    admins.extend(roster.admins.iter().filter(|admin| is_new(admin.key)));
    let signers = version
        .envelope()
        .signers(admins.iter().map(|admin| admin.key));
    let signed = admins
        .into_iter()
        .filter(|admin| signers.contains(&admin.key));
    VersionObject {
        version: roster.version,
        digest: version.digest().to_string(),
        issued_ms: roster.issued.0,
        expires_ms: roster.expires.0,
        changes: diff::changes(before, roster, suspensions),
        signed: signed.map(|admin| admin.name.clone()).collect(),
    }
}
