//! The service `hashpact.node.v1.Node` over a [`Node`].
//!
//! Each method: convert → call the node, on a thread that may wait → convert →
//! audit. Who calls, and that it may, was decided at the door ([`crate::access`]); the
//! request carries its [`Caller`](hashpact_node::caller::Caller) as an extension.

use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryFutureExt as _};
use hashpact_core::id::{Slug, UnixMillis};
use hashpact_node::caller::Caller;
use hashpact_node::model::{Retraction, Selector};
use hashpact_node::{Node, NodeError, RosterDocuments};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use crate::asking::Asking;
use crate::changes::Watchers;
use crate::convert;
use crate::error::{lost, misuse, nobody, refused, status};
use crate::{erase, import, wire};

/// Selectors of one retraction, all of which are held in memory.
pub const SELECTORS_MAX: usize = 1_000_000;
/// Look-ups of one stream that are under way at one time.
const LOOKUPS_IN_FLIGHT: usize = 8;
/// Pages of an export that wait for a slow reader.
const EXPORT_WAITING: usize = 4;

/// What the node cannot know of the process it runs in.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Name and version of the program.
    pub software: String,
    /// When the TLS certificate expires; `None` where there is none.
    pub certificate_expires: Option<UnixMillis>,
}

/// Serves one node to the member's own systems and people.
#[derive(Clone)]
pub struct NodeService {
    node: Arc<Node>,
    asking: Asking,
    watchers: Watchers,
    about: Arc<About>,
}

impl NodeService {
    /// Serves `node`.
    #[must_use]
    pub fn new(node: Arc<Node>, about: About) -> Self {
        Self::until(node, about, CancellationToken::new())
    }

    /// As [`NodeService::new`]; streams that have no end of their own end with `stop`.
    #[must_use]
    pub fn until(node: Arc<Node>, about: About, stop: CancellationToken) -> Self {
        Self {
            asking: Asking::new(Arc::clone(&node)),
            watchers: Watchers::new(stop),
            node,
            about: Arc::new(about),
        }
    }

    /// The node that is served.
    pub(crate) fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node)
    }

    /// The gRPC server over it, with the limits of the local socket.
    pub(crate) fn server(self) -> wire::node_server::NodeServer<Self> {
        wire::node_server::NodeServer::new(self)
            .max_decoding_message_size(crate::MESSAGE_MAX_BYTES)
            .max_encoding_message_size(crate::MESSAGE_MAX_BYTES)
    }

    /// Calls the node on a thread that may wait for disk.
    async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Node) -> Result<T, NodeError> + Send + 'static,
    ) -> Result<T, Status> {
        let node = Arc::clone(&self.node);
        let task = tokio::task::spawn_blocking(move || work(&node));
        let done = task.await.map_err(|_| lost(what))?;
        done.map_err(|error| status(&error))
    }
}

type Stream<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl wire::node_server::Node for NodeService {
    type LookupStreamStream = Stream<wire::LookupResponse>;
    type MatchStreamStream = Stream<wire::MatchResponse>;
    type ImportStream = import::Responses;
    type ExportStream = ReceiverStream<Result<wire::ExportResponse, Status>>;
    type WatchChangesStream = crate::changes::Watched;
    type VerifyStream = ReceiverStream<Result<wire::VerifyResponse, Status>>;

    async fn lookup(
        &self,
        request: Request<wire::LookupRequest>,
    ) -> Result<Response<wire::LookupResponse>, Status> {
        let place = self.asking.place()?;
        let answered = self.asking.lookup(place, request.into_inner()).await;
        answered.map(Response::new)
    }

    async fn lookup_stream(
        &self,
        request: Request<Streaming<wire::LookupRequest>>,
    ) -> Result<Response<Self::LookupStreamStream>, Status> {
        let asking = self.asking.clone();
        let answers = request.into_inner().map(move |request| {
            let asking = asking.clone();
            async move {
                asking
                    .lookup(asking.wait_for_place().await?, request?)
                    .await
            }
        });
        Ok(Response::new(answers.buffered(LOOKUPS_IN_FLIGHT).boxed()))
    }

    async fn r#match(
        &self,
        request: Request<wire::MatchRequest>,
    ) -> Result<Response<wire::MatchResponse>, Status> {
        let place = self.asking.place()?;
        let answered = self.asking.matches(place, request.into_inner()).await;
        answered.map(Response::new)
    }

    async fn match_stream(
        &self,
        request: Request<Streaming<wire::MatchRequest>>,
    ) -> Result<Response<Self::MatchStreamStream>, Status> {
        let asking = self.asking.clone();
        let answers = request.into_inner().map(move |request| {
            let asking = asking.clone();
            async move {
                asking
                    .matches(asking.wait_for_place().await?, request?)
                    .await
            }
        });
        Ok(Response::new(answers.buffered(LOOKUPS_IN_FLIGHT).boxed()))
    }

    async fn create_set(
        &self,
        request: Request<wire::CreateSetRequest>,
    ) -> Result<Response<wire::SetInfo>, Status> {
        let new = convert::new_set(request.into_inner()).map_err(|error| refused(&error))?;
        let set = self
            .call("set create", move |node| node.create_set(&new))
            .await?;
        info!(set = %set.name, grants = set.grants.len(), "set created");
        Ok(Response::new(convert::set_info(set)))
    }

    async fn list_sets(
        &self,
        _request: Request<wire::ListSetsRequest>,
    ) -> Result<Response<wire::ListSetsResponse>, Status> {
        let sets = self.call("set list", |node| Ok(node.sets())).await?;
        let sets = sets.into_iter().map(convert::set_info).collect();
        Ok(Response::new(wire::ListSetsResponse { sets }))
    }

    async fn show_set(
        &self,
        request: Request<wire::ShowSetRequest>,
    ) -> Result<Response<wire::SetInfo>, Status> {
        let name = convert::set_name(&self.node, &request.get_ref().set);
        let name = name.map_err(|error| refused(&error))?;
        let set = self.call("set show", move |node| node.set(&name)).await?;
        Ok(Response::new(convert::set_info(set)))
    }

    async fn change_grants(
        &self,
        request: Request<wire::ChangeGrantsRequest>,
    ) -> Result<Response<wire::SetInfo>, Status> {
        let request = request.into_inner();
        let set = self
            .call("change of grants", move |node| {
                let set = convert::own_set(node, &request.set)?;
                let grant: Vec<_> = request.grant.into_iter().map(convert::grantee).collect();
                node.change_grants(&set, &grant, &request.revoke)
            })
            .await?;
        info!(set = %set.name, grants = set.grants.len(), "grants changed");
        Ok(Response::new(convert::set_info(set)))
    }

    async fn confirm_head(
        &self,
        request: Request<wire::ConfirmHeadRequest>,
    ) -> Result<Response<wire::SetInfo>, Status> {
        let request = request.into_inner();
        if request.reason.trim().is_empty() {
            return Err(misuse(
                "say why nobody can hold more of the set: a reason is kept",
            ));
        }
        let set = self
            .call("confirm-head", move |node| {
                let set = convert::own_set(node, &request.set)?;
                node.confirm_head(&set, &request.reason)
            })
            .await?;
        Ok(Response::new(convert::set_info(set)))
    }

    async fn import(
        &self,
        request: Request<Streaming<wire::ImportRequest>>,
    ) -> Result<Response<Self::ImportStream>, Status> {
        import::run(Arc::clone(&self.node), request.into_inner())
            .map_ok(Response::new)
            .await
    }

    async fn retract(
        &self,
        request: Request<Streaming<wire::RetractRequest>>,
    ) -> Result<Response<wire::RetractResponse>, Status> {
        let request = gather(request.into_inner()).await?;
        let outcome = self
            .call("retract", move |node| retract(node, request))
            .await?;
        info!(
            retracted = outcome.retracted,
            not_found = outcome.not_found.len(),
            identity_signed = outcome.identity_signed,
            "entries retracted"
        );
        Ok(Response::new(outcome))
    }

    async fn erase(
        &self,
        request: Request<Streaming<wire::EraseRequest>>,
    ) -> Result<Response<wire::EraseResponse>, Status> {
        let request = erase::gather(request.into_inner()).await?;
        let outcome = self
            .call("erase", move |node| erase::erase(node, request))
            .await?;
        info!(
            erased = outcome.erased,
            payloads = outcome.payloads,
            not_found = outcome.not_found.len(),
            identity_signed = outcome.identity_signed,
            "entries erased"
        );
        Ok(Response::new(outcome))
    }

    async fn export(
        &self,
        request: Request<wire::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let request = request.into_inner();
        let set = match request.set.as_str() {
            "" => None,
            text => {
                let name = convert::set_name(&self.node, text);
                Some(name.map_err(|error| refused(&error))?)
            }
        };
        let (pages, stream) = mpsc::channel(EXPORT_WAITING);
        let node = Arc::clone(&self.node);
        tokio::task::spawn_blocking(move || {
            let mut exported = 0;
            let done = node.export(set.as_ref(), request.include_dead, &mut |page| {
                exported += page.len();
                let entries = page.into_iter().map(convert::exported).collect();
                pages
                    .blocking_send(Ok(wire::ExportResponse { entries }))
                    .is_ok()
            });
            info!(
                set = set.map(|set| set.to_string()),
                exported, "entries exported"
            );
            if let Err(error) = done {
                // Nobody is left to tell when the receiver is gone.
                let _ = pages.blocking_send(Err(status(&error)));
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn watch_changes(
        &self,
        request: Request<wire::WatchChangesRequest>,
    ) -> Result<Response<Self::WatchChangesStream>, Status> {
        let caller = caller(&request)?;
        let watched = self
            .watchers
            .watch(self.node(), caller, request.into_inner());
        watched.await.map(Response::new)
    }

    async fn acknowledge_changes(
        &self,
        request: Request<wire::AcknowledgeChangesRequest>,
    ) -> Result<Response<wire::Consumer>, Status> {
        let (caller, node) = (caller(&request)?, self.node());
        let request = request.into_inner();
        let taken = tokio::task::spawn_blocking(move || {
            crate::changes::acknowledge(&node, &caller, &request)
        });
        let taken = taken.await.map_err(|_| lost("acknowledging changes"))?;
        taken.map(Response::new)
    }

    async fn list_consumers(
        &self,
        _request: Request<wire::ListConsumersRequest>,
    ) -> Result<Response<wire::ListConsumersResponse>, Status> {
        let consumers = self.call("consumers", Node::consumers).await?;
        let consumers = consumers.into_iter().map(convert::consumer).collect();
        Ok(Response::new(wire::ListConsumersResponse { consumers }))
    }

    async fn remove_consumer(
        &self,
        request: Request<wire::RemoveConsumerRequest>,
    ) -> Result<Response<wire::RemoveConsumerResponse>, Status> {
        let by = caller(&request)?;
        let name = crate::changes::consumer_name(&request.get_ref().consumer)?;
        let gone = name.clone();
        self.call("consumers remove", move |node| node.remove_consumer(&gone))
            .await?;
        info!(consumer = %name, %by, "a consumer was removed");
        Ok(Response::new(wire::RemoveConsumerResponse {}))
    }

    async fn status(
        &self,
        _request: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        let about = Arc::clone(&self.about);
        let status = self.call("status", move |node| crate::status::status(node, &about));
        Ok(Response::new(status.await?))
    }

    async fn peers(
        &self,
        _request: Request<wire::PeersRequest>,
    ) -> Result<Response<wire::PeersResponse>, Status> {
        let peers = self
            .call("peers", |node| {
                let peers = node.exchange().map(|view| view.peers()).unwrap_or_default();
                let peers = peers
                    .into_iter()
                    .map(|peer| crate::status::peer(node, peer));
                Ok(peers.collect())
            })
            .await?;
        Ok(Response::new(wire::PeersResponse { peers }))
    }

    async fn feeds(
        &self,
        _request: Request<wire::FeedsRequest>,
    ) -> Result<Response<wire::FeedsResponse>, Status> {
        let feeds = self.call("feeds", |node| Ok(node.feeds())).await?;
        let feeds = feeds.into_iter().map(crate::status::feed).collect();
        Ok(Response::new(wire::FeedsResponse { feeds }))
    }

    async fn quarantine(
        &self,
        request: Request<wire::QuarantineRequest>,
    ) -> Result<Response<wire::QuarantineResponse>, Status> {
        let request = request.into_inner();
        let listed = self.call("quarantine", move |node| {
            crate::quarantine::list(node, &request)
        });
        Ok(Response::new(listed.await?))
    }

    async fn decide_quarantine(
        &self,
        request: Request<wire::DecideQuarantineRequest>,
    ) -> Result<Response<wire::DecideQuarantineResponse>, Status> {
        let request = request.into_inner();
        let decided = self.call("quarantine", move |node| {
            crate::quarantine::decide(node, &request)
        });
        Ok(Response::new(decided.await?))
    }

    async fn verify(
        &self,
        _request: Request<wire::VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        let (tell, told) = mpsc::channel(EXPORT_WAITING);
        let node = Arc::clone(&self.node);
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
                    ..last
                }
            });
            let _ = tell.blocking_send(ended);
        });
        Ok(Response::new(ReceiverStream::new(told)))
    }

    async fn import_roster(
        &self,
        request: Request<wire::ImportRosterRequest>,
    ) -> Result<Response<wire::ImportRosterResponse>, Status> {
        let request = request.into_inner();
        let documents = RosterDocuments {
            rosters: request.rosters,
            node_cards: request.node_cards,
            suspensions: request.suspensions,
        };
        let outcome = self
            .call("roster import", |node| node.import_roster(documents))
            .await?;
        info!(
            version = outcome.version,
            accepted = outcome.accepted,
            refused = outcome.refused.len(),
            "roster documents taken in"
        );
        Ok(Response::new(convert::roster_import(outcome)))
    }

    async fn preview(
        &self,
        request: Request<wire::PreviewRequest>,
    ) -> Result<Response<wire::PreviewResponse>, Status> {
        let member = request.into_inner().member;
        let radius = self.call("preview", move |node| {
            let member = Slug::parse(&member);
            let member = member.map_err(|error| NodeError::Misuse(error.to_string()))?;
            node.blast_radius(&member)
        });
        let radius = radius.await?;
        let sets = radius.sets.into_iter().map(|(name, live_entries)| {
            let name = name.to_string();
            wire::PreviewedSet { name, live_entries }
        });
        Ok(Response::new(wire::PreviewResponse {
            sets: sets.collect(),
            entries: radius.entries,
            without_other: radius.without_other,
            with_one_other: radius.with_one_other,
            examples: radius.examples,
            examples_with_one_other: radius.examples_with_one_other,
        }))
    }

    async fn show_roster(
        &self,
        _request: Request<wire::ShowRosterRequest>,
    ) -> Result<Response<wire::ShowRosterResponse>, Status> {
        let documents = self.node.roster_documents();
        Ok(Response::new(wire::ShowRosterResponse {
            rosters: documents.rosters,
            node_cards: documents.node_cards,
            suspensions: documents.suspensions,
        }))
    }
}

/// Who calls, as the door decided.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get().cloned().ok_or_else(nobody)
}

/// Takes a retraction in, up to its limit.
async fn gather(
    mut requests: Streaming<wire::RetractRequest>,
) -> Result<wire::RetractRequest, Status> {
    let mut whole = requests
        .message()
        .await?
        .ok_or_else(|| misuse("the first message of a retraction names set and reason"))?;
    while !whole.last {
        let request = requests
            .message()
            .await?
            .ok_or_else(|| misuse("the retraction ended without its last message"))?;
        whole.last = request.last;
        whole.selectors.extend(request.selectors);
        if whole.selectors.len() > SELECTORS_MAX {
            return Err(misuse(format!(
                "more than {SELECTORS_MAX} selectors in one retraction; send several"
            )));
        }
    }
    Ok(whole)
}

fn retract(node: &Node, request: wire::RetractRequest) -> Result<wire::RetractResponse, NodeError> {
    let set = convert::own_set(node, &request.set)?;
    let name = convert::set_name(node, set.as_str())?;
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
    Ok(convert::retracted(
        node.retract(&set, &retraction)?,
        refused,
    ))
}
