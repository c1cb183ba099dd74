//! Rechecks in messages: what was answered because of entries that are withdrawn, who asks
//! that somebody looks; and what goes into the match journal.

use hashpact_core::id::{Digest, EntryName, FeedId, SetName};
use hashpact_core::leaf::audit::Act;
use hashpact_core::policy::Verdict;
use hashpact_core::signal::Signal;
use hashpact_node::journal::{Answered, REFERENCE_MAX_BYTES, RecheckOf, RecheckRequest, Rechecked};
use hashpact_node::model::JournalEntry;
use hashpact_node::{Node, NodeError};
use tonic::Status;

use crate::convert::{self, set_name};
use crate::recorded::Asked;
use crate::service::NodeService;
use crate::wire;

/// Signals of one recheck.
const SIGNALS_MAX: usize = 1_000;

/// Finds one page of answers. The first one is recorded.
pub(crate) async fn recheck(
    service: &NodeService,
    asked: Asked,
    request: wire::RecheckRequest,
) -> Result<wire::RecheckResponse, Status> {
    let mut act = asked.act("recheck");
    if request.from > 0 {
        let work = move |node: &Node| page(node, request, &mut act);
        return service.call("recheck", work).await;
    }
    let work = move |node: &Node, act: &mut Act| page(node, request, act);
    service.act("recheck", act, work).await
}

fn page(
    node: &Node,
    request: wire::RecheckRequest,
    act: &mut Act,
) -> Result<wire::RecheckResponse, NodeError> {
    if request.signals.len() > SIGNALS_MAX {
        let why = format!("a recheck is of {SIGNALS_MAX} signals at most; ask in several");
        return Err(NodeError::Misuse(why));
    }
    let mut of = subject(node, &request.set, request.index)?;
    note(act, &of);
    for signal in request.signals {
        of.signals.push(convert::signal(signal)?);
    }
    let page = node.recheck(&of, request.from)?;
    let first = request.from == 0;
    let asked = if first {
        node.recheck_requests(&of)?
    } else {
        Vec::new()
    };
    act.count("answers", u64::try_from(page.rows.len()).unwrap_or(0));
    Ok(wire::RecheckResponse {
        rechecked: page.rows.into_iter().map(rechecked).collect(),
        next: page.next,
        journal_on: node.journal().is_some(),
        journal_entries: page.kept,
        journal_since_ms: page.since.unwrap_or_default().0,
        asked: asked.into_iter().map(asked_to_wire).collect(),
    })
}

/// Takes requests off the list. Blocking.
pub(crate) fn acknowledge(
    node: &Node,
    request: &wire::AcknowledgeRechecksRequest,
    act: &mut Act,
) -> Result<wire::AcknowledgeRechecksResponse, NodeError> {
    let of = subject(node, &request.set, request.index)?;
    note(act, &of);
    let ended = node.acknowledge_rechecks(&of)?;
    act.count("requests", u64::try_from(ended.len()).unwrap_or(0));
    Ok(wire::AcknowledgeRechecksResponse {
        acknowledged: ended.into_iter().map(asked_to_wire).collect(),
    })
}

fn subject(node: &Node, set: &str, leaf: Option<u64>) -> Result<RecheckOf, NodeError> {
    let set: Option<SetName> = match set {
        "" if leaf.is_some() => {
            let why = "a leaf is one of a set: name that as well";
            return Err(NodeError::Misuse(why.to_owned()));
        }
        "" => None,
        name => Some(set_name(node, name)?),
    };
    Ok(RecheckOf {
        set,
        leaf,
        signals: Vec::new(),
    })
}

fn note(act: &mut Act, of: &RecheckOf) {
    if let Some(set) = &of.set {
        act.detail("set", set);
    }
    if let Some(leaf) = of.leaf {
        act.count("leaf", leaf);
    }
}

fn rechecked(row: Rechecked) -> wire::Rechecked {
    wire::Rechecked {
        at_ms: row.at.0,
        entry: row.entry.to_string(),
        index: row.index,
        kind: row.kind.map_or_else(String::new, |kind| kind.to_string()),
        verdict: row.verdict.name().to_owned(),
        reference: row.reference,
        digest: row.digest,
        matched: row.matched,
        withdrawn_by: row.withdrawal.leaf,
        reason: row.withdrawal.reason.to_owned(),
        note: row.withdrawal.note.clone(),
        asked: row.withdrawal.asked,
    }
}

fn asked_to_wire(request: RecheckRequest) -> wire::RecheckAsked {
    wire::RecheckAsked {
        set: request.set,
        index: request.withdrawal.leaf,
        reason: request.withdrawal.reason.to_owned(),
        note: request.withdrawal.note,
        leaves: request.leaves,
        at_ms: request.at.0,
    }
}

/// Checks the names that a caller gives to its signals.
pub(crate) fn references(given: &[String], signals: usize) -> Result<(), NodeError> {
    if given.is_empty() {
        return Ok(());
    }
    if given.len() != signals {
        let why = format!(
            "{} references for {signals} signals: give one for each, or none",
            given.len()
        );
        return Err(NodeError::Misuse(why));
    }
    if given.iter().any(|one| one.len() > REFERENCE_MAX_BYTES) {
        let why = format!("a reference has at most {REFERENCE_MAX_BYTES} bytes");
        return Err(NodeError::Misuse(why));
    }
    Ok(())
}

/// Notes an answer in the journal's terms, if somebody may act on it.
pub(crate) fn answered(
    signal: &Signal,
    answer: &wire::Answer,
    reference: Option<&String>,
) -> Option<Answered> {
    let verdict = Verdict::parse(&answer.verdict).ok()?;
    if verdict < Verdict::Review {
        return None;
    }
    let entries = answer.matches.iter().filter_map(|found| {
        let feed = FeedId(Digest::from_slice(&found.feed_id).ok()?);
        let name = EntryName::parse(&found.entry).ok()?;
        Some(JournalEntry {
            feed,
            index: found.index,
            first: name.first,
        })
    });
    Some(Answered {
        key: signal.index_key(),
        verdict,
        reference: reference.cloned().unwrap_or_default(),
        entries: entries.collect(),
    })
}
