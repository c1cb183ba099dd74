//! Who stands at which version of the roster since when, as `status` and `coalition
//! status` show it.

use hashpact_api::wire;
use hashpact_core::witness::judge::{self, PREVENTION_MIN};
use serde::Serialize;

use super::Context;
use super::error::CliError;
use super::output::{counted, stamp, time};

#[derive(Debug, Serialize)]
pub(super) struct RosterWitnessed {
    /// Up to which version a quorum stands; 0 for none.
    quorum: u64,
    threshold: u32,
    /// So many find a fork and do not prevent one.
    detection_only: bool,
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
        let threshold = status.roster_witness_threshold;
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
            threshold,
            detection_only: detection_only(status.roster_witnesses.len(), threshold).is_some(),
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
    if detection_only(all, needed).is_some() {
        said.push_str("; detection only");
    }
    said
}

/// Why so many witnesses, of whom so many are a quorum, find forks and prevent none; `None`
/// where they prevent them. A quorum of 0: none of them has a key on its card yet.
pub(super) fn detection_only(witnesses: usize, quorum: u32) -> Option<String> {
    let needed = usize::try_from(quorum).unwrap_or(usize::MAX);
    if witnesses < PREVENTION_MIN {
        let all = counted(
            u64::try_from(witnesses).unwrap_or(u64::MAX),
            "witness",
            "witnesses",
        );
        return Some(format!(
            "detection only: {all}; from {PREVENTION_MIN} on forks are prevented"
        ));
    }
    if needed == 0 {
        return Some("detection only, until they have".to_owned());
    }
    let enough = judge::threshold(witnesses, 0).unwrap_or(0);
    (!judge::prevents(witnesses, needed)).then(|| {
        format!("detection only: {needed} of {witnesses}; from {enough} on forks are prevented")
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_witnesses_and_low_thresholds_are_said_to_prevent_nothing() {
        let said = |witnesses, quorum| detection_only(witnesses, quorum).unwrap();
        let one = "detection only: 1 witness; from 4 on forks are prevented";
        assert_eq!(said(1, 1), one);
        let low = "detection only: 2 of 5; from 4 on forks are prevented";
        assert_eq!(said(5, 2), low);
        assert_eq!(said(5, 0), "detection only, until they have");
        assert_eq!(detection_only(5, 4), None);
        assert_eq!(detection_only(4, 3), None);
    }
}
