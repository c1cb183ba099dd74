//! Receipts in messages: who acts on what of an own set.

use hashpact_node::receipts::judge::{
    LeafReceipts, MemberReceipts, NodeReceipts, Overdue, Standing,
};
use hashpact_node::{Node, NodeError};

use crate::convert::set_name;
use crate::wire;

/// Who acts on a leaf, or on a set. Blocking.
pub(crate) fn receipts(
    node: &Node,
    request: &wire::ReceiptsRequest,
) -> Result<wire::ReceiptsResponse, NodeError> {
    let set = set_name(node, &request.set)?;
    let receipts = match request.index {
        Some(index) => node.receipts_of(&set, index, !request.published)?,
        None => node.receipts_of_set(&set)?,
    };
    Ok(response(receipts))
}

/// Whose receipts are overdue, by name.
pub(crate) fn overdue(node: &Node, overdue: Overdue) -> Vec<wire::OverdueReceipts> {
    let members = overdue.into_iter().map(|(number, sets)| {
        let member = node.membership().member(number);
        let member = member.map_or_else(|| number.value().to_string(), |m| m.slug.to_string());
        wire::OverdueReceipts { member, sets }
    });
    members.collect()
}

fn response(receipts: LeafReceipts) -> wire::ReceiptsResponse {
    let count = |standing| u32::try_from(receipts.count(standing)).unwrap_or(u32::MAX);
    wire::ReceiptsResponse {
        done: count(Standing::Done),
        late: count(Standing::Late),
        unreachable: count(Standing::Unreachable),
        silent: count(Standing::Silent),
        p50_ms: receipts.percentile(50),
        p99_ms: receipts.percentile(99),
        set: receipts.set,
        index: receipts.index,
        kind: receipts.sort.as_str().to_owned(),
        withdrew: receipts.withdrew,
        published_ms: receipts.published.0,
        published_after_ms: receipts.published_after.unwrap_or_default().0,
        overdue_after_ms: receipts.overdue_after_ms,
        members: receipts.members.into_iter().map(member).collect(),
    }
}

fn member(member: MemberReceipts) -> wire::MemberReceipts {
    wire::MemberReceipts {
        member: member.member.to_string(),
        state: member.standing.as_str().to_owned(),
        size: member.size,
        since_ms: member.since.unwrap_or_default().0,
        at_latest: member.at_latest,
        took_ms: member.took_ms,
        overdue: member.overdue,
        nodes: member.nodes.into_iter().map(of_node).collect(),
    }
}

fn of_node(node: NodeReceipts) -> wire::NodeReceipts {
    wire::NodeReceipts {
        node: node.node.to_string(),
        state: node.standing.as_str().to_owned(),
        size: node.size,
        since_ms: node.since.unwrap_or_default().0,
        signed_ms: node.signed.unwrap_or_default().0,
    }
}
