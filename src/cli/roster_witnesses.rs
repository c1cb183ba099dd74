//! Who stands at which version of the roster since when, as `status` and `coalition
//! status` show it.

use hashpact_api::wire;
use hashpact_core::witness::judge::PREVENTION_MIN;
use serde::Serialize;

use super::Context;
use super::error::CliError;
use super::output::{stamp, time};

#[derive(Debug, Serialize)]
pub(super) struct RosterWitnessed {
    /// Up to which version a quorum stands; 0 for none.
    quorum: u64,
    threshold: u32,
    stale: bool,
    witnesses: Vec<RosterWitness>,
}

#[derive(Debug, Serialize)]
struct RosterWitness {
    member: String,
    /// 0 where it has said nothing.
    version: u64,
    since: Option<String>,
    cosigned: Option<String>,
    fresh: bool,
}

impl RosterWitnessed {
    pub(super) fn of(status: &wire::StatusResponse) -> Self {
        let witnesses = status.roster_witnesses.iter();
        let witnesses = witnesses.map(|witness| RosterWitness {
            member: witness.member.clone(),
            version: witness.size,
            since: stamp(witness.since_ms),
            cosigned: stamp(witness.cosigned_ms),
            fresh: witness.fresh,
        });
        Self {
            quorum: status.roster_witness_quorum,
            threshold: status.roster_witness_threshold,
            stale: status.roster_stale,
            witnesses: witnesses.collect(),
        }
    }
}

/// In one line: how many stand at the newest version.
pub(super) fn short(status: &wire::StatusResponse) -> String {
    let all = status.roster_witnesses.len();
    if all == 0 {
        return "none: nobody says how fresh the roster is".to_owned();
    }
    let version = status.roster_version;
    let witnesses = status.roster_witnesses.iter();
    let there = witnesses.filter(|witness| witness.size >= version && witness.fresh);
    let stand = there.count();
    let needed = status.roster_witness_threshold;
    let quorum = match (needed, status.roster_witness_quorum) {
        (0, _) => String::new(),
        (_, reached) if reached >= version => format!("; quorum ({needed})"),
        (_, 0) => format!("; no quorum ({needed}) yet"),
        (_, reached) => format!("; quorum ({needed}) up to {reached}"),
    };
    let mut said = format!("{stand} of {all} say so lately{quorum}");
    if status.roster_stale {
        said.push_str("; STALE");
    }
    if all < PREVENTION_MIN {
        said.push_str("; detection only");
    }
    said
}

/// A line for each witness.
pub(super) fn print(status: &wire::StatusResponse, context: &Context) -> Result<(), CliError> {
    let output = &context.output;
    output.line(format_args!("roster witnesses: {}", short(status)))?;
    for witness in &status.roster_witnesses {
        let member = &witness.member;
        match witness.size {
            0 => output.line(format_args!("  {member} has said nothing"))?,
            version => {
                let (since, last) = (time(witness.since_ms), time(witness.cosigned_ms));
                output.line(format_args!(
                    "  {member} at version {version} since {since}, last {last}"
                ))?;
            }
        }
    }
    Ok(())
}
