//! Import: a stream of entries in, a stream of progress out.
//!
//! The node's import runs on one blocking thread, fed by a bounded channel: a client
//! that is faster waits. Only the message that says it is the last one signs the rest;
//! a stream that ends otherwise ends the import as a crash would. (The end of the
//! stream itself says nothing: hyper reports a cancelled one as ended.)

use std::sync::Arc;

use hashpact_core::id::Slug;
use hashpact_node::model::ImportProgress;
use hashpact_node::{Node, NodeError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::{info, warn};

use crate::error::{misuse, status};
use crate::{convert, wire};

/// Messages that wait between the socket and the importing thread: enough that
/// neither stands still, little enough that memory stays small.
const WAITING: usize = 4;

pub(crate) type Responses = ReceiverStream<Result<wire::ImportResponse, Status>>;

/// What the importing thread is told.
enum Step {
    Entries(Vec<wire::Entry>),
    /// The client has said all.
    End,
}

/// Runs an import to its end; the returned stream tells how it goes.
pub(crate) async fn run(
    node: Arc<Node>,
    mut requests: Streaming<wire::ImportRequest>,
) -> Result<Responses, Status> {
    let first = requests
        .message()
        .await?
        .ok_or_else(|| misuse("the first message of an import names the set"))?;
    let set = convert::own_set(&node, &first.set).map_err(|error| status(&error))?;
    let (steps, waiting) = mpsc::channel(WAITING);
    let (tell, told) = mpsc::channel(WAITING);
    let progress = tell.clone();
    let importing = tokio::task::spawn_blocking(move || {
        if let Err(error) = import(&node, &set, waiting, &progress) {
            warn!(%set, code = error.code(), %error, "an import failed");
            // Nobody is left to tell when the receiver is gone.
            let _ = progress.blocking_send(Err(status(&error)));
        }
    });
    tokio::spawn(async move {
        if let Err(status) = feed(first, &mut requests, &steps).await {
            // The thread ends, and lets go of the set's writer, before the client
            // hears of it: whoever hears may write at once.
            drop(steps);
            let _ = importing.await;
            let _ = tell.send(Err(status)).await;
        }
    });
    Ok(ReceiverStream::new(told))
}

/// Hands the client's messages on. Ends early when the importing thread has ended,
/// which has told why.
async fn feed(
    first: wire::ImportRequest,
    requests: &mut Streaming<wire::ImportRequest>,
    steps: &mpsc::Sender<Step>,
) -> Result<(), Status> {
    let mut request = first;
    request.set.clear();
    loop {
        if !request.set.is_empty() {
            return Err(misuse("only the first message of an import names the set"));
        }
        let last = request.last;
        if !request.entries.is_empty() && steps.send(Step::Entries(request.entries)).await.is_err()
        {
            return Ok(());
        }
        if last {
            let _ = steps.send(Step::End).await;
            return Ok(());
        }
        match requests.message().await? {
            Some(next) => request = next,
            None => return Err(misuse("the import ended without its last message")),
        }
    }
}

fn import(
    node: &Node,
    set: &Slug,
    mut steps: mpsc::Receiver<Step>,
    tell: &mpsc::Sender<Result<wire::ImportResponse, Status>>,
) -> Result<(), NodeError> {
    let mut import = node.import(set)?;
    // Entries that could not be read never reach the node, and count as received.
    let mut unread = 0;
    while let Some(step) = steps.blocking_recv() {
        let entries = match step {
            Step::Entries(entries) => entries,
            Step::End => {
                let done = counted(import.finish()?, unread);
                info!(
                    %set, received = done.received, added = done.added, replaced = done.replaced,
                    unchanged = done.unchanged, "imported"
                );
                let _ = tell.blocking_send(Ok(convert::progress(done, Vec::new(), true)));
                return Ok(());
            }
        };
        let mut good = Vec::with_capacity(entries.len());
        let mut refused = Vec::new();
        for entry in entries {
            let line = entry.line;
            match convert::entry(entry) {
                Ok(entry) => good.push(entry),
                Err(rejection) => refused.push(convert::refused_line(line, &rejection)),
            }
        }
        unread += u64::try_from(refused.len()).unwrap_or(u64::MAX);
        let progress = counted(import.push(good)?, unread);
        let response = convert::progress(progress, refused, false);
        if tell.blocking_send(Ok(response)).is_err() {
            break;
        }
    }
    // The client's doing, which it knows of: nothing that a node's operator must mend.
    info!(%set, "an import was cut off: what was not signed by then does not count");
    Ok(())
}

fn counted(progress: ImportProgress, unread: u64) -> ImportProgress {
    ImportProgress {
        received: progress.received.saturating_add(unread),
        ..progress
    }
}
