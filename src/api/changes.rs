//! Changes over the local API: a stream that is read on from what is stored, as fast as
//! its reader takes it.
//!
//! A consumer belongs to whoever registered it: over a network another reader's
//! consumer is neither followed nor acknowledged, since receipts wait for its word.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use hashpact_core::id::Slug;
use hashpact_node::caller::{Caller, Role};
use hashpact_node::changes::{self, Change, ChangeCursor, Changed};
use hashpact_node::{Node, NodeError};
use metrics::{counter, gauge};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::error::{lost, not_yours, overloaded, status, stopping};
use crate::places::{Place, Places};
use crate::{convert, wire};

/// Changes in one message: a page of leaves. At 8,000 bytes a leaf that is 2 MB, which
/// every client takes by default.
const BATCH: usize = 256;
/// Messages that wait for a slow reader.
const WAITING: usize = 4;
/// Streams at one time, and of them those of one client.
const WATCHERS_MAX: usize = 64;
const CLIENT_MAX: usize = 16;
/// Between messages on a quiet stream.
const ALIVE: Duration = Duration::from_secs(10);
/// What one that found no room waits.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(crate) type Watched = ReceiverStream<Result<wire::WatchChangesResponse, Status>>;

/// Streams of changes, so many at one time.
#[derive(Clone)]
pub(crate) struct Watchers {
    places: Places,
    stop: CancellationToken,
}

impl Watchers {
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self {
            places: Places::new(WATCHERS_MAX, CLIENT_MAX),
            stop,
        }
    }

    /// Ends a stream of answers, which has no end of its own, when the node stops.
    pub(crate) fn until_stop<T: Send + 'static>(
        &self,
        answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> BoxStream<'static, Result<T, Status>> {
        let (stop, stopped) = (self.stop.clone(), self.stop.clone());
        let ending = stream::once(async move { stopped.is_cancelled().then(|| Err(stopping())) });
        let ending = ending.filter_map(std::future::ready);
        answers
            .take_until(stop.cancelled_owned())
            .chain(ending)
            .boxed()
    }

    /// Begins a stream.
    pub(crate) async fn watch(
        &self,
        node: Arc<Node>,
        caller: Caller,
        request: wire::WatchChangesRequest,
    ) -> Result<Watched, Status> {
        let place = self.places.take(&caller.who);
        let place = place.ok_or_else(|| overloaded(RETRY_AFTER))?;
        let until_caught_up = request.until_caught_up;
        let begin = Arc::clone(&node);
        let begun = tokio::task::spawn_blocking(move || begin_watch(&begin, &caller, &request));
        let at = begun.await.map_err(|_| lost("watching changes"))??;
        let (sender, receiver) = mpsc::channel(WAITING);
        let following = Follow {
            node,
            at,
            until_caught_up,
            sender,
            _place: place,
        };
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let sender = following.sender.clone();
            gauge!("hashpact_change_streams").increment(1);
            let ended = tokio::select! {
                ended = following.run() => ended,
                () = stop.cancelled() => Err(stopping()),
            };
            gauge!("hashpact_change_streams").decrement(1);
            if let Err(status) = ended {
                // Nobody is left to tell when the receiver is gone.
                let _ = sender.try_send(Err(status));
            }
        });
        Ok(ReceiverStream::new(receiver))
    }
}

/// One stream.
struct Follow {
    node: Arc<Node>,
    at: ChangeCursor,
    until_caught_up: bool,
    sender: mpsc::Sender<Result<wire::WatchChangesResponse, Status>>,
    _place: Place,
}

impl Follow {
    async fn run(mut self) -> Result<(), Status> {
        let mut logged = self.node.changes_logged();
        let mut said_caught_up = false;
        loop {
            // Before it is read: what is logged meanwhile is read the next time.
            logged.borrow_and_update();
            let changed = self.read().await?;
            let caught_up = changed.caught_up;
            self.at = changed.next;
            let says = !changed.changes.is_empty() || changed.snapshot_over;
            if says || (caught_up && !said_caught_up) {
                let told = u64::try_from(changed.changes.len()).unwrap_or(u64::MAX);
                counter!("hashpact_changes_told_total").increment(told);
                if self.sender.send(Ok(message(changed))).await.is_err() {
                    return Ok(());
                }
            }
            said_caught_up = caught_up;
            if !caught_up {
                continue;
            }
            if self.until_caught_up {
                return Ok(());
            }
            if !self.wait(&mut logged).await {
                return Ok(());
            }
        }
    }

    async fn read(&self) -> Result<Changed, Status> {
        let (node, at) = (Arc::clone(&self.node), self.at);
        let read = tokio::task::spawn_blocking(move || node.changes(&at, BATCH));
        let read = read.await.map_err(|_| lost("reading changes"))?;
        read.map_err(|error| status(&error))
    }

    /// Waits until more is logged; answers false when nobody listens any more.
    async fn wait(&self, logged: &mut tokio::sync::watch::Receiver<u64>) -> bool {
        loop {
            tokio::select! {
                more = logged.changed() => return more.is_ok(),
                () = self.sender.closed() => return false,
                () = tokio::time::sleep(ALIVE) => {
                    let alive = wire::WatchChangesResponse {
                        cursor: self.at.to_bytes().into(),
                        caught_up: true,
                        ..wire::WatchChangesResponse::default()
                    };
                    if self.sender.send(Ok(alive)).await.is_err() {
                        return false;
                    }
                }
            }
        }
    }
}

/// Where a stream begins. Blocking.
fn begin_watch(
    node: &Node,
    caller: &Caller,
    request: &wire::WatchChangesRequest,
) -> Result<ChangeCursor, Status> {
    let said = |error: NodeError| status(&error);
    let name = consumer_name(&request.consumer)?;
    let known = node.consumer(&name);
    if let Ok(known) = &known {
        check_owner(caller, &known.owner)?;
    }
    if request.snapshot {
        let begun = node
            .begin_snapshot(&name, &caller.to_string())
            .map_err(said)?;
        node.keep_changes().map_err(said)?;
        tracing::info!(consumer = %name, %caller, "a consumer starts with everything");
        return Ok(begun);
    }
    let known = known.map_err(said)?;
    node.note_changes().map_err(said)?;
    node.keep_changes().map_err(said)?;
    if request.cursor.is_empty() {
        return Ok(known.acked);
    }
    changes::cursor(&request.cursor).map_err(said)
}

/// Takes a consumer's word. Blocking.
pub(crate) fn acknowledge(
    node: &Node,
    caller: &Caller,
    request: &wire::AcknowledgeChangesRequest,
) -> Result<wire::Consumer, Status> {
    let said = |error: NodeError| status(&error);
    let name = consumer_name(&request.consumer)?;
    check_owner(caller, &node.consumer(&name).map_err(said)?.owner)?;
    let cursor = changes::cursor(&request.cursor).map_err(said)?;
    let taken = node.acknowledge(&name, &cursor).map_err(said)?;
    Ok(convert::consumer(taken))
}

pub(crate) fn consumer_name(text: &str) -> Result<Slug, Status> {
    Slug::parse(text).map_err(|error| crate::error::misuse(format!("a consumer's name: {error}")))
}

/// Whoever administers the node speaks for every consumer.
fn check_owner(caller: &Caller, owner: &str) -> Result<(), Status> {
    if caller.role < Role::Administer && caller.to_string() != owner {
        return Err(not_yours());
    }
    Ok(())
}

fn message(changed: Changed) -> wire::WatchChangesResponse {
    wire::WatchChangesResponse {
        changes: changed.changes.into_iter().map(change).collect(),
        cursor: changed.next.to_bytes().into(),
        caught_up: changed.caught_up,
        in_snapshot: changed.in_snapshot,
        snapshot_over: changed.snapshot_over,
        noted_ms: changed.at.0,
    }
}

fn change(change: Change) -> wire::Change {
    use wire::change::Kind;
    let of = |kind: Kind, feed: hashpact_core::id::FeedId, set: String| wire::Change {
        kind: kind.into(),
        feed_id: feed.as_bytes().to_vec().into(),
        set,
        ..wire::Change::default()
    };
    match change {
        Change::Entry(present) => {
            let kind = if present.added {
                Kind::Added
            } else {
                Kind::Changed
            };
            wire::Change {
                index: present.entry.index,
                classification: present.classification,
                may_share: present.may_share,
                ..of(kind, present.feed, present.entry.entry.set.to_string())
            }
            .with(convert::exported(present.entry))
        }
        Change::Withdrawn { feed, set, index } => wire::Change {
            index,
            ..of(Kind::Withdrawn, feed, set)
        },
        Change::SetWithdrawn { feed, set } => of(Kind::SetWithdrawn, feed, set),
    }
}

impl wire::Change {
    fn with(self, entry: wire::ExportedEntry) -> Self {
        Self {
            entry: Some(entry),
            ..self
        }
    }
}
