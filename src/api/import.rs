//! Import: a stream of entries in, a stream of progress out.
//!
//! The node's import runs on one blocking thread, fed by a bounded channel: a client
//! that is faster waits. Only the message that says it is the last one signs the rest;
//! a stream that ends otherwise ends the import as a crash would. (The end of the
//! stream itself says nothing: hyper reports a cancelled one as ended.)

use std::sync::Arc;
use std::time::Duration;

use hashpact_core::id::Slug;
use hashpact_core::leaf::audit::{Act, OK};
use hashpact_node::model::ImportProgress;
use hashpact_node::{Node, NodeError};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::{info, warn};

use crate::error::{misuse, status};
use crate::places::hand;
use crate::recorded::begin;
use crate::{convert, wire};

/// Messages that wait between the socket and the importing thread: enough that
/// neither stands still, little enough that memory stays small.
const WAITING: usize = 4;

/// The longest that a client is silent. One whose source is slow says something empty.
const SILENT_MAX: Duration = Duration::from_secs(60);

/// The outcome of an import whose client went away before its end.
const CUT_OFF: &str = "cut_off";

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
    act: Act,
    mut requests: Streaming<wire::ImportRequest>,
) -> Result<Responses, Status> {
    let first = requests
        .message()
        .await?
        .ok_or_else(|| misuse("the first message of an import names the set"))?;
    let set = convert::own_set(&node, &first.set).map_err(|error| status(&error))?;
    let act = act.of_set(format_args!("{}/{set}", node.member_slug()));
    let mut ticket = begin(&node, act).await?;
    let (steps, waiting) = mpsc::channel(WAITING);
    let (tell, told) = mpsc::channel(WAITING);
    let progress = tell.clone();
    let importing = tokio::task::spawn_blocking(move || {
        let done = import(&node, &set, waiting, &progress, ticket.act());
        // Recorded before the client hears of it.
        match &done {
            Ok(Some(_)) => ticket.finish(OK),
            Ok(None) => ticket.finish(CUT_OFF),
            Err(error) => ticket.finish(error.code()),
        }
        // Nobody is left to tell when the receiver is gone.
        let _ = match done {
            Ok(Some(done)) => hand(&progress, Ok(convert::progress(done, Vec::new(), true))),
            Ok(None) => true,
            Err(error) => {
                warn!(%set, code = error.code(), %error, "an import failed");
                hand(&progress, Err(status(&error)))
            }
        };
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
        // Whoever holds the set's writer and says nothing keeps others from writing.
        let next = timeout(SILENT_MAX, requests.message()).await;
        let next = next.map_err(|_| {
            misuse(format!(
                "nothing came for {} s: the import was ended, and what it had signed counts; run it \
                 again, it adds what is missing",
                SILENT_MAX.as_secs()
            ))
        })?;
        match next? {
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
    act: &mut Act,
) -> Result<Option<ImportProgress>, NodeError> {
    let mut import = node.import(set)?;
    // Entries that could not be read never reach the node, and count as received.
    let mut unread = 0;
    while let Some(step) = steps.blocking_recv() {
        let entries = match step {
            Step::Entries(entries) => entries,
            Step::End => {
                let done = counted(import.finish()?, unread);
                said(act, &done);
                info!(
                    %set, received = done.received, added = done.added, replaced = done.replaced,
                    unchanged = done.unchanged, "imported"
                );
                return Ok(Some(done));
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
        said(act, &progress);
        let response = convert::progress(progress, refused, false);
        if !hand(tell, Ok(response)) {
            break;
        }
    }
    // The client's doing, which it knows of: nothing that a node's operator must mend.
    info!(%set, "an import was cut off: what was not signed by then does not count");
    Ok(None)
}

/// Counts for the record, up to where the import has come.
fn said(act: &mut Act, progress: &ImportProgress) {
    act.count("received", progress.received);
    act.count("added", progress.added);
    act.count("replaced", progress.replaced);
    act.count("unchanged", progress.unchanged);
    if let Some((size, _)) = progress.head {
        act.count("head_size", size);
    }
}

fn counted(progress: ImportProgress, unread: u64) -> ImportProgress {
    ImportProgress {
        received: progress.received.saturating_add(unread),
        ..progress
    }
}
