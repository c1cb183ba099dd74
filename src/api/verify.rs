//! Recomputing everything over the local API: how far it is, and what came of it.

use std::sync::Arc;

use hashpact_node::Node;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::info;

use crate::error::status;
use crate::{export, places, wire};

pub(crate) type Verified = ReceiverStream<Result<wire::VerifyResponse, Status>>;

/// Verifies on a thread of its own.
pub(crate) fn verify(node: Arc<Node>) -> Verified {
    let (tell, told) = mpsc::channel(export::EXPORT_WAITING);
    tokio::task::spawn_blocking(move || {
        let mut last = wire::VerifyResponse::default();
        let done = node.verify_in_words(&mut |leaves_done, leaves_total| {
            last.leaves_done = leaves_done;
            last.leaves_total = leaves_total;
            // A reader that is behind misses a step and no more.
            let _ = tell.try_send(Ok(last.clone()));
        });
        let ended = done.map_err(|error| status(&error)).map(|report| {
            info!(
                feeds = report.feeds,
                problems = report.problems.len(),
                "store verified"
            );
            wire::VerifyResponse {
                problems: report.problems,
                done: true,
                feeds_checked: report.feeds,
                postings_checked: report.postings,
                heads_checked: report.heads,
                leaves_done: report.leaves,
                leaves_total: report.leaves,
                audit_leaves: report.audit_leaves,
                ..last
            }
        });
        places::hand(&tell, ended);
    });
    ReceiverStream::new(told)
}
