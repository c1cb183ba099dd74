//! The quarantine in messages: what lies there, and what the operator decides.

use hashpact_core::id::{MemberNumber, SetName};
use hashpact_core::leaf::audit::Act;
use hashpact_core::signal::SignalKind;
use hashpact_node::model::{Decision, Reason};
use hashpact_node::reported::{ReportedBy, ReportedEntry};
use hashpact_node::{Node, NodeError};

use crate::convert::{entry_of, set_name};
use crate::wire;

/// Entries that the record of a decision names.
const ENTRIES_NAMED: usize = 16;

/// What lies in quarantine. Blocking.
pub(crate) fn list(
    node: &Node,
    request: &wire::QuarantineRequest,
) -> Result<wire::QuarantineResponse, NodeError> {
    let set = match request.set.as_str() {
        "" => None,
        name => Some(set_name(node, name)?),
    };
    let reason = reason(&request.reason)?;
    let limit = usize::try_from(request.entries).unwrap_or(usize::MAX);
    if request.reported {
        return reported(node, set.as_ref(), reason, limit);
    }
    let lots = node.quarantine(set.as_ref(), reason)?;
    let entries = node.quarantined(set.as_ref(), reason, request.dropped, limit)?;
    Ok(wire::QuarantineResponse {
        lots: lots
            .into_iter()
            .map(|lot| wire::QuarantineLot {
                set: lot.set,
                reason: lot.reason.code().to_owned(),
                kind: lot.kind.map_or_else(String::new, |kind| kind.to_string()),
                held: lot.held,
                released: lot.released,
                dropped: lot.dropped,
                conflicts_with: lot.conflicts_with.iter().map(ToString::to_string).collect(),
            })
            .collect(),
        entries: entries
            .into_iter()
            .map(|entry| wire::QuarantinedEntry {
                set: entry.set,
                entry: entry
                    .entry
                    .map_or_else(String::new, |name| name.to_string()),
                index: entry.index,
                reasons: entry.reasons.iter().map(|r| r.code().to_owned()).collect(),
                kinds: entry.kinds.iter().map(ToString::to_string).collect(),
                published_ms: entry.published.0,
                conflicts_with: entry
                    .conflicts_with
                    .map_or_else(String::new, |name| name.to_string()),
            })
            .collect(),
        ..wire::QuarantineResponse::default()
    })
}

/// What peers hold back of own sets.
fn reported(
    node: &Node,
    set: Option<&SetName>,
    reason: Option<Reason>,
    limit: usize,
) -> Result<wire::QuarantineResponse, NodeError> {
    let reason = reason.map(Reason::code);
    let mut reported = Vec::new();
    for view in node.reports(set)? {
        let contact = node.member(view.member).and_then(|member| member.contact);
        let (name, email) = contact.map_or_else(<_>::default, |c| (c.name, c.email));
        for lot in view.report.lots {
            if reason.is_some_and(|reason| reason != lot.reason) {
                continue;
            }
            let ranges = lot.ranges.iter();
            reported.push(wire::ReportedQuarantine {
                set: view.set.clone(),
                member: slug_of(node, view.member),
                node: view.node.to_string(),
                kind: kind_of(lot.kind),
                reason: lot.reason,
                held: lot.leaves,
                ranges: ranges
                    .flat_map(|range| [range.first, range.count])
                    .collect(),
                heard_ms: view.heard.0,
                contact_name: name.clone(),
                contact_email: email.clone(),
            });
        }
    }
    let entries = node.reported_entries(set, reason, limit)?;
    let by = |by: ReportedBy| wire::ReportedBy {
        member: slug_of(node, by.member),
        node: by.node.to_string(),
        reason: by.reason,
        kind: kind_of(by.kind),
    };
    let entry = |entry: ReportedEntry| wire::ReportedEntry {
        set: entry.set,
        entry: entry
            .entry
            .map_or_else(String::new, |name| name.to_string()),
        index: entry.index,
        published_ms: entry.published.0,
        by: entry.by.into_iter().map(by).collect(),
    };
    Ok(wire::QuarantineResponse {
        reported,
        reported_entries: entries.into_iter().map(entry).collect(),
        ..wire::QuarantineResponse::default()
    })
}

fn slug_of(node: &Node, member: MemberNumber) -> String {
    let known = node.member(member);
    known.map_or_else(|| member.to_string(), |member| member.slug.to_string())
}

/// The kind of signal in a peer's word; empty for whole entries.
fn kind_of(number: u32) -> String {
    let kind = SignalKind::from_number(number).map(|kind| kind.to_string());
    let unknown = || (number > 0).then(|| format!("kind {number}"));
    kind.or_else(unknown).unwrap_or_default()
}

/// What the audit feed calls a decision.
pub(crate) fn act(request: &wire::DecideQuarantineRequest) -> &'static str {
    use wire::decide_quarantine_request::Decision as Asked;
    match request.decision() {
        Asked::Release => "quarantine.release",
        Asked::Drop => "quarantine.drop",
        Asked::Unspecified => "quarantine",
    }
}

/// Carries a decision out. Blocking.
pub(crate) fn decide(
    node: &Node,
    request: &wire::DecideQuarantineRequest,
    act: &mut Act,
) -> Result<wire::DecideQuarantineResponse, NodeError> {
    use wire::decide_quarantine_request::Decision as Asked;
    let decision = match request.decision() {
        Asked::Release => Decision::Release,
        Asked::Drop => Decision::Drop,
        Asked::Unspecified => {
            return Err(NodeError::Misuse(
                "release or drop is to be said".to_owned(),
            ));
        }
    };
    if request.all != request.entries.is_empty() {
        let why = "either all that waits is meant, or entries are named";
        return Err(NodeError::Misuse(why.to_owned()));
    }
    let set = set_name(node, &request.set)?;
    let entries: Result<Vec<u64>, _> = request
        .entries
        .iter()
        .map(|text| entry_of(text, &set))
        .collect();
    let entries = entries?;
    let of = reason(&request.reason)?;
    act.count("all", request.all.into());
    act.count("named", u64::try_from(entries.len()).unwrap_or(u64::MAX));
    if let Some(of) = of {
        act.detail("reason", of.code());
    }
    for entry in entries.iter().take(ENTRIES_NAMED) {
        act.detail("entry", format_args!("{set}#{entry}"));
    }
    let named = (!request.all).then_some(entries.as_slice());
    let (changed, missing) = node.decide_quarantine(&set, of, named, decision)?;
    act.count("changed", changed);
    Ok(wire::DecideQuarantineResponse {
        changed,
        not_found: missing
            .into_iter()
            .map(|first| format!("{set}#{first}"))
            .collect(),
    })
}

fn reason(code: &str) -> Result<Option<Reason>, NodeError> {
    if code.is_empty() {
        return Ok(None);
    }
    let reason = Reason::from_code(code);
    reason.map(Some).ok_or_else(|| {
        let codes = Reason::ALL.map(Reason::code).join(", ");
        NodeError::Misuse(format!("there is no reason {code:?}; there are {codes}"))
    })
}
