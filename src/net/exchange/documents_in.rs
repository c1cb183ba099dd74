//! Rosters, cards and suspensions that a peer gave, taken in in order.

use std::sync::Arc;

use futures_util::StreamExt as _;
use hashpact_core::limits::CARDS_KEPT_MAX;
use hashpact_core::reject::Rejection;
use hashpact_node::{Node, NodeError};
use tokio::task::spawn_blocking;

use super::rejections::{Rejections, is_stale};
use crate::error::NetError;
use crate::types::{Incoming, RosterItem};

/// Documents read from one answer: every card of the largest coalition, its chain
/// and suspensions besides.
const DOCUMENTS_MAX: usize = 16 * CARDS_KEPT_MAX;

/// Takes one document in; answers whether it is new. What only is older than the
/// one held is not new.
///
/// # Errors
/// Why it is refused, or what the store answers.
pub(crate) fn accept(node: &Node, item: RosterItem) -> Result<bool, NodeError> {
    let membership = node.membership();
    let accepted = match item {
        RosterItem::Roster(bytes) => membership.accept_roster(bytes),
        RosterItem::NodeCard(bytes) => membership.accept_card(bytes),
        RosterItem::Suspension(bytes) => membership.accept_suspension(bytes),
    };
    match accepted {
        Err(NodeError::Rejected(rejection)) if is_stale(&rejection) => Ok(false),
        other => other,
    }
}

/// Reads the answer to `GetRoster` and takes its documents in, one by one: what is
/// refused is counted, the others count.
///
/// # Errors
/// What ended the stream; a failure of ours as [`NetError::Closed`].
pub(crate) async fn take_in(
    node: &Arc<Node>,
    rejections: &Arc<Rejections>,
    peer: &str,
    mut documents: Incoming<RosterItem>,
) -> Result<(), NetError> {
    let mut count = 0_usize;
    while let Some(item) = documents.next().await {
        count = count.saturating_add(1);
        Rejection::cap("documents", count, DOCUMENTS_MAX)?;
        let (node, item) = (Arc::clone(node), item?);
        let accepted = spawn_blocking(move || accept(&node, item)).await;
        match accepted {
            Ok(Ok(_)) => {}
            Ok(Err(NodeError::Rejected(rejection))) => rejections.note(peer, None, &rejection),
            Ok(Err(error)) => {
                tracing::error!(%error, code = error.code(), peer, "taking documents in");
                return Err(NetError::Closed("documents could not be stored".to_owned()));
            }
            Err(_) => return Err(NetError::Closed("stopping".to_owned())),
        }
    }
    Ok(())
}
