//! Erasing over the local API: all selectors are gathered first, so that a stream
//! that is cut off erases nothing.

use hashpact_core::leaf::audit::Act;
use hashpact_node::model::Erasure;
use hashpact_node::{Node, NodeError};
use tonic::{Status, Streaming};

use crate::error::misuse;
use crate::gather::Gathered;
use crate::{convert, wire};

/// Takes an erasure in, up to its limit.
pub(crate) async fn gather(
    mut requests: Streaming<wire::EraseRequest>,
) -> Result<wire::EraseRequest, Status> {
    let mut whole = requests
        .message()
        .await?
        .ok_or_else(|| misuse("the first message of an erasure names set and legal basis"))?;
    let mut gathered = Gathered::default();
    gathered.add("erasure", &whole.selectors)?;
    while !whole.last {
        let request = requests
            .message()
            .await?
            .ok_or_else(|| misuse("the erasure ended without its last message"))?;
        whole.last = request.last;
        gathered.add("erasure", &request.selectors)?;
        whole.selectors.extend(request.selectors);
    }
    Ok(whole)
}

/// Carries it out.
pub(crate) fn erase(
    node: &Node,
    request: wire::EraseRequest,
    act: &mut Act,
) -> Result<wire::EraseResponse, NodeError> {
    let asked = u64::try_from(request.selectors.len()).unwrap_or(u64::MAX);
    act.count("selectors", asked);
    act.said("legal_basis", &request.legal_basis);
    let set = convert::own_set(node, &request.set)?;
    let name = convert::set_name(node, set.as_str())?;
    let mut erasure = Erasure {
        legal_basis: request.legal_basis,
        selectors: Vec::with_capacity(request.selectors.len()),
    };
    let mut not_found = Vec::new();
    for message in request.selectors {
        let line = message.line;
        match convert::selector(message, &name) {
            Ok(selector) => erasure.selectors.push((line, selector)),
            Err(rejection) => not_found.push(convert::refused_line(line, &rejection)),
        }
    }
    let outcome = if request.dry_run {
        node.would_erase(&set, &erasure)?
    } else {
        node.erase(&set, &erasure)?
    };
    act.count("erased", outcome.erased);
    act.count("payloads", outcome.payloads);
    act.count("identity_signed", outcome.identity_signed.into());
    if let Some(leaf) = outcome.leaf_index {
        act.count("leaf_index", leaf);
    }
    not_found.extend(outcome.not_found.into_iter().map(convert::line_rejection));
    Ok(wire::EraseResponse {
        erased: outcome.erased,
        payloads: outcome.payloads,
        already_erased: outcome.already_erased,
        not_found,
        leaf_index: outcome.leaf_index.unwrap_or_default(),
        head_size: outcome.head.0,
        head_root: outcome.head.1.0.to_vec().into(),
        identity_signed: outcome.identity_signed,
    })
}
