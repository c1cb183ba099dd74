//! Bundles over the local API: written to a client, and read from one.
//!
//! The client has the file, and perhaps the node may not read it: so the node asks for
//! the pieces that it needs, in any order and as often as it needs them. What it holds
//! already is never sent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use hashpact_core::id::{Slug, UnixMillis};
use hashpact_core::leaf::audit::{Act, OK};
use hashpact_node::audit::Ticket;
use hashpact_node::bundle::{
    BundleFile, BundleMade, BundleOrder, BundleProgress, BundleRefusal, BundleTaken, Bundles,
    Doing, Recipient, SetTaken,
};
use hashpact_node::{Node, NodeError};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::warn;

use crate::convert::set_name;
use crate::error::{lost, misuse, status};
use crate::recorded::finish;
use crate::wire;

/// Records of a bundle that wait for a slow client.
const WAITING: usize = 4;
/// The largest piece that is asked for at once: the longest record, and to spare.
const PIECE_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Sets that one bundle may name.
const SETS_MAX: usize = 16_384;

pub(crate) type Exported = BoxStream<'static, Result<wire::ExportBundleResponse, Status>>;
pub(crate) type Imported = ReceiverStream<Result<wire::ImportBundleResponse, Status>>;

/// What a bundle is to be, for the record: before anything of it goes out.
pub(crate) fn described(mut act: Act, request: &wire::ExportBundleRequest) -> Act {
    act.said("member", &request.for_member);
    act.said("authority", &request.for_authority);
    for set in &request.sets {
        act.said("set", set);
    }
    act
}

/// Writes a bundle: its bytes, then what was made. What it was for and what was in it
/// is recorded; one that is given up, as interrupted.
pub(crate) async fn export(
    node: &Node,
    bundles: &dyn Bundles,
    request: &wire::ExportBundleRequest,
    mut ticket: Ticket,
) -> Result<Exported, Status> {
    let order = match order(node, request) {
        Ok(order) => order,
        Err(error) => {
            finish(ticket, error.code().to_owned()).await;
            return Err(status(&error));
        }
    };
    let named = !request.sets.is_empty();
    let (out, written) = mpsc::channel(WAITING);
    let making = tokio::spawn(bundles.export(order, out));
    let data = ReceiverStream::new(written).map(|data| {
        Ok(wire::ExportBundleResponse {
            data,
            ..wire::ExportBundleResponse::default()
        })
    });
    let made = stream::once(async move {
        let made = making.await.map_err(|_| lost("an export"))?;
        let act = ticket.act();
        let outcome = match &made {
            Ok(made) => {
                act.count("documents", made.documents);
                act.count("sets", u64::try_from(made.sets.len()).unwrap_or(u64::MAX));
                for set in &made.sets {
                    // Those that were asked for by name stand there.
                    if !named {
                        act.detail("set", &set.set);
                    }
                }
                OK.to_owned()
            }
            Err(error) => error.code().to_owned(),
        };
        finish(ticket, outcome).await;
        let made = made.map_err(|error| status(&error))?;
        Ok(wire::ExportBundleResponse {
            made: Some(exported(made)),
            ..wire::ExportBundleResponse::default()
        })
    });
    Ok(data.chain(made).boxed())
}

fn order(node: &Node, request: &wire::ExportBundleRequest) -> Result<BundleOrder, NodeError> {
    let wrong = |why: &str| NodeError::Misuse(why.to_owned());
    if request.sets.len() > SETS_MAX || request.held.len() > SETS_MAX {
        return Err(wrong("too many sets for one bundle"));
    }
    let to = match (request.for_member.as_str(), request.for_authority.as_str()) {
        ("", "") => return Err(wrong("a bundle is for a member, or for an authority")),
        (member, "") => {
            Recipient::Member(Slug::parse(member).map_err(|_| NodeError::NotFound {
                what: "member",
                name: member.to_owned(),
            })?)
        }
        ("", authority) => Recipient::Authority(authority.to_owned()),
        (_, _) => return Err(wrong("a bundle is for one recipient")),
    };
    let named = request.sets.iter().map(|set| Ok(set_name(node, set)?));
    let held = request.held.iter();
    let held = held.map(|held| Ok((set_name(node, &held.set)?.to_string(), held.size)));
    Ok(BundleOrder {
        sets: named.collect::<Result<_, NodeError>>()?,
        held: held.collect::<Result<_, NodeError>>()?,
        to,
        history: request.history,
    })
}

fn exported(made: BundleMade) -> wire::ExportedBundle {
    wire::ExportedBundle {
        documents: made.documents,
        evidence: made.evidence,
        sets: made
            .sets
            .into_iter()
            .map(|set| wire::BundleSet {
                set: set.set,
                feed_id: Bytes::copy_from_slice(set.feed.as_bytes()),
                from: set.from,
                size: set.size,
            })
            .collect(),
        left_out: made.left_out,
    }
}

/// Takes a bundle in that the client has.
pub(crate) async fn import(
    bundles: Arc<dyn Bundles>,
    mut requests: Streaming<wire::ImportBundleRequest>,
    mut ticket: Ticket,
) -> Result<Imported, Status> {
    let first = requests.message().await?;
    let first = first.ok_or_else(|| misuse("the first message says how long the bundle is"))?;
    let (tell, told) = mpsc::channel(WAITING);
    let file = Arc::new(Remote {
        size: first.size,
        next: AtomicU64::new(0),
        asked: Arc::new(Mutex::new(Some(HashMap::new()))),
        tell: tell.clone(),
    });
    let asked = Arc::clone(&file.asked);
    tokio::spawn(async move {
        while let Ok(Some(piece)) = requests.message().await {
            let waits = waiting(&asked)
                .as_mut()
                .and_then(|all| all.remove(&piece.id));
            if let Some(waits) = waits {
                // Whoever asked may have given up.
                let _ = waits.send(piece.data);
            }
        }
        // Nothing more comes: whoever waits is told, and whoever asks later as well.
        *waiting(&asked) = None;
    });
    tokio::spawn(async move {
        let (progress, mut goes_on) = mpsc::channel(WAITING);
        let taking = bundles.import(file, progress);
        let telling = async {
            while let Some(progress) = goes_on.recv().await {
                let item = wire::import_bundle_response::Item::Progress(said(progress));
                // The client may be gone: that ends the import where it reads next.
                let _ = tell.send(Ok(response(item))).await;
            }
        };
        let (taken, ()) = futures_util::future::join(taking, telling).await;
        let act = ticket.act();
        let outcome = match &taken {
            Ok(taken) => {
                act.detail("made by", &taken.header.by);
                act.count("documents", taken.documents_new);
                for set in &taken.sets {
                    act.detail("set", &set.set);
                    act.add("stored", set.stored);
                }
                let refused = u64::try_from(taken.refused.len()).unwrap_or(u64::MAX);
                act.count("refused", refused);
                OK.to_owned()
            }
            Err(error) => error.code().to_owned(),
        };
        finish(ticket, outcome).await;
        let last = match taken {
            Ok(taken) => Ok(response(wire::import_bundle_response::Item::Done(
                imported(taken),
            ))),
            Err(error) => {
                warn!(code = error.code(), %error, "a bundle was not taken in");
                Err(status(&error))
            }
        };
        let _ = tell.send(last).await;
    });
    Ok(ReceiverStream::new(told))
}

const fn response(item: wire::import_bundle_response::Item) -> wire::ImportBundleResponse {
    wire::ImportBundleResponse { item: Some(item) }
}

/// Pieces that were asked for; `None` once no more can come.
type Asked = Mutex<Option<HashMap<u64, oneshot::Sender<Bytes>>>>;

fn waiting(asked: &Asked) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Bytes>>>> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file that the client has.
struct Remote {
    size: u64,
    next: AtomicU64,
    asked: Arc<Asked>,
    tell: mpsc::Sender<Result<wire::ImportBundleResponse, Status>>,
}

impl BundleFile for Remote {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, length: usize) -> Doing<Bytes> {
        const GONE: NodeError = NodeError::Busy("whoever has the bundle has gone");
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (asked, tell) = (Arc::clone(&self.asked), self.tell.clone());
        Box::pin(async move {
            if length > PIECE_MAX_BYTES {
                return Err(NodeError::Internal(
                    "too large a piece was asked for".to_owned(),
                ));
            }
            let (answer, answered) = oneshot::channel();
            match waiting(&asked).as_mut() {
                Some(all) => all.insert(id, answer),
                None => return Err(GONE),
            };
            let piece = wire::BundlePiece {
                id,
                offset,
                length: u32::try_from(length).unwrap_or(u32::MAX),
            };
            let item = wire::import_bundle_response::Item::Read(piece);
            tell.send(Ok(response(item))).await.map_err(|_| GONE)?;
            let data = answered.await.map_err(|_| GONE)?;
            if data.len() == length {
                Ok(data)
            } else {
                Err(NodeError::Misuse(
                    "the bundle changed while it was read".to_owned(),
                ))
            }
        })
    }
}

fn said(progress: BundleProgress) -> wire::BundleProgress {
    wire::BundleProgress {
        set: progress.set,
        done: progress.done,
        of: progress.of,
    }
}

fn imported(taken: BundleTaken) -> wire::ImportedBundle {
    let UnixMillis(made_ms) = taken.header.made;
    let (for_member, for_authority) = match taken.header.to {
        Recipient::Member(slug) => (slug.to_string(), String::new()),
        Recipient::Authority(name) => (String::new(), name),
    };
    wire::ImportedBundle {
        made_by: taken.header.by.to_string(),
        made_ms,
        for_member,
        for_authority,
        documents_new: taken.documents_new,
        documents_known: taken.documents_known,
        evidence: taken.evidence,
        sets: taken.sets.into_iter().map(set).collect(),
        refused: taken.refused.into_iter().map(refusal).collect(),
    }
}

fn set(taken: SetTaken) -> wire::ImportedSet {
    wire::ImportedSet {
        set: taken.set,
        feed_id: Bytes::copy_from_slice(taken.feed.as_bytes()),
        from: taken.from,
        size: taken.size,
        stored: taken.stored,
        held: taken.held,
        outcome: taken.outcome.word().to_owned(),
        refused: taken.refused.into_iter().map(refusal).collect(),
    }
}

fn refusal(refused: BundleRefusal) -> wire::BundleRefusal {
    wire::BundleRefusal {
        what: refused.what,
        code: refused.code.to_owned(),
        why: refused.why,
    }
}
