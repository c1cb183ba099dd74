//! Entries over the local socket, page by page.

use std::sync::Arc;

use hashpact_core::leaf::audit::OK;
use hashpact_node::Node;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};
use tracing::info;

use crate::error::{refused, status};
use crate::recorded::{self, Asked};
use crate::{convert, wire};

/// Pages of an export, or of what a check says, that wait for a slow reader.
pub(crate) const EXPORT_WAITING: usize = 4;

pub(crate) type Exported = ReceiverStream<Result<wire::ExportResponse, Status>>;

/// Writes one set, or all that may be shared on; recorded before the first entry goes
/// out.
pub(crate) async fn export(
    node: &Arc<Node>,
    request: Request<wire::ExportRequest>,
) -> Result<Exported, Status> {
    let act = Asked::of(&request).act("export");
    let request = request.into_inner();
    let set = match request.set.as_str() {
        "" => None,
        text => {
            let name = convert::set_name(node, text);
            Some(name.map_err(|error| refused(&error))?)
        }
    };
    let act = match &set {
        Some(set) => act.of_set(set),
        None => act,
    };
    // Before the first entry goes out.
    let mut ticket = recorded::begin(node, act).await?;
    let (pages, stream) = mpsc::channel(EXPORT_WAITING);
    let node = Arc::clone(node);
    tokio::task::spawn_blocking(move || {
        let mut exported = 0;
        let mut heard = true;
        let done = node.export(set.as_ref(), request.include_dead, &mut |page| {
            exported += page.len();
            let entries = page.into_iter().map(convert::exported).collect();
            let sent = pages.blocking_send(Ok(wire::ExportResponse { entries }));
            heard = sent.is_ok();
            heard
        });
        let act = ticket.act();
        act.count("exported", u64::try_from(exported).unwrap_or(u64::MAX));
        act.count("include_dead", request.include_dead.into());
        match &done {
            Ok(()) if heard => ticket.finish(OK),
            Ok(()) => ticket.finish("cancelled"),
            Err(error) => ticket.finish(error.code()),
        }
        info!(
            set = set.map(|set| set.to_string()),
            exported, "entries exported"
        );
        if let Err(error) = done {
            // Nobody is left to tell when the receiver is gone.
            let _ = pages.blocking_send(Err(status(&error)));
        }
    });
    Ok(ReceiverStream::new(stream))
}
