//! Retracting over the local API: all selectors are gathered first, so that a stream
//! that is cut off retracts nothing.

use hashpact_core::leaf::audit::Act;
use hashpact_node::model::{Retraction, Selector};
use hashpact_node::{Node, NodeError};
use tonic::{Status, Streaming};

use crate::error::misuse;
use crate::gather::Gathered;
use crate::{convert, wire};

/// Takes a retraction in, up to its limit.
pub(crate) async fn gather(
    mut requests: Streaming<wire::RetractRequest>,
) -> Result<wire::RetractRequest, Status> {
    let mut whole = requests
        .message()
        .await?
        .ok_or_else(|| misuse("the first message of a retraction names set and reason"))?;
    let mut gathered = Gathered::default();
    gathered.add("retraction", &whole.selectors)?;
    while !whole.last {
        let request = requests
            .message()
            .await?
            .ok_or_else(|| misuse("the retraction ended without its last message"))?;
        whole.last = request.last;
        gathered.add("retraction", &request.selectors)?;
        whole.selectors.extend(request.selectors);
    }
    Ok(whole)
}

/// Carries it out.
pub(crate) fn retract(
    node: &Node,
    request: wire::RetractRequest,
    act: &mut Act,
) -> Result<wire::RetractResponse, NodeError> {
    let set = convert::own_set(node, &request.set)?;
    let name = convert::set_name(node, set.as_str())?;
    let asked = u64::try_from(request.selectors.len()).unwrap_or(u64::MAX);
    act.count("selectors", asked);
    let mut selectors: Vec<(u64, Selector)> = Vec::with_capacity(request.selectors.len());
    let mut refused = Vec::new();
    for message in request.selectors {
        let line = message.line;
        match convert::selector(message, &name) {
            Ok(selector) => selectors.push((line, selector)),
            Err(rejection) => refused.push(convert::refused_line(line, &rejection)),
        }
    }
    let retraction = Retraction {
        reason: convert::retract_reason(&request.reason)?,
        note: request.note,
        recheck: request.recheck,
        selectors,
    };
    act.detail("reason", &request.reason);
    let outcome = if request.dry_run {
        node.would_retract(&set, &retraction)?
    } else {
        node.retract(&set, &retraction)?
    };
    act.count("retracted", outcome.retracted);
    act.count("already_dead", outcome.already_dead);
    act.count("identity_signed", outcome.identity_signed.into());
    if let Some(leaf) = outcome.leaf_index {
        act.count("leaf_index", leaf);
    }
    Ok(convert::retracted(outcome, refused))
}
