//! The service `hashpact.node.v1.Node` over a [`Node`](hashpact_node::Node).
//!
//! Each method: convert → call the node, on a thread that may wait → convert →
//! audit. Who calls, and that it may, was decided at the door ([`crate::access`]); the
//! request carries its [`Caller`](hashpact_node::caller::Caller) as an extension.

use std::sync::Arc;

use futures_util::TryFutureExt as _;
use hashpact_core::id::Slug;
use hashpact_core::leaf::audit::Act;
use hashpact_node::caller::Caller;
use hashpact_node::{Node, RosterDocuments};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use crate::error::{lost, misuse, nobody, refused};
use crate::recorded::{self, Asked};
pub use crate::serves::NodeService;
use crate::{
    audit, bundle, convert, erase, export, import, looking, opinions, past, policy, proving,
    receipts, recheck, retract, sets, wire,
};

#[tonic::async_trait]
impl wire::node_server::Node for NodeService {
    type LookupStreamStream = looking::Stream<wire::LookupResponse>;
    type MatchStreamStream = looking::Stream<wire::MatchResponse>;
    type ImportStream = import::Responses;
    type ExportStream = export::Exported;
    type WatchChangesStream = crate::changes::Watched;
    type ExportBundleStream = bundle::Exported;
    type ImportBundleStream = bundle::Imported;
    type ComparePoliciesStream = policy::Compares;
    type ProveStream = proving::Pieces;
    type ExportEvidenceStream = proving::Pieces;
    type VerifyStream = crate::verify::Verified;
    type AuditStream = ReceiverStream<Result<wire::AuditResponse, Status>>;
    type RecordStream = ReceiverStream<Result<wire::RecordResponse, Status>>;

    async fn lookup(
        &self,
        request: Request<wire::LookupRequest>,
    ) -> Result<Response<wire::LookupResponse>, Status> {
        looking::lookup(&self.asking, &self.node, request).await
    }

    async fn lookup_stream(
        &self,
        request: Request<Streaming<wire::LookupRequest>>,
    ) -> Result<Response<Self::LookupStreamStream>, Status> {
        let answers = looking::lookup_stream(&self.asking, &self.node, request).await?;
        Ok(answers.map(|answers| self.watchers.until_stop(answers)))
    }

    async fn r#match(
        &self,
        request: Request<wire::MatchRequest>,
    ) -> Result<Response<wire::MatchResponse>, Status> {
        looking::matches(&self.asking, &self.node, request).await
    }

    async fn match_stream(
        &self,
        request: Request<Streaming<wire::MatchRequest>>,
    ) -> Result<Response<Self::MatchStreamStream>, Status> {
        let answers = looking::match_stream(&self.asking, &self.node, request).await?;
        Ok(answers.map(|answers| self.watchers.until_stop(answers)))
    }

    async fn create_set(
        &self,
        request: Request<wire::CreateSetRequest>,
    ) -> Result<Response<wire::SetInfo>, Status> {
        sets::create(self, request).await
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
        sets::change_grants(self, request).await
    }

    async fn confirm_head(
        &self,
        request: Request<wire::ConfirmHeadRequest>,
    ) -> Result<Response<wire::SetInfo>, Status> {
        sets::confirm_head(self, request).await
    }

    async fn import(
        &self,
        request: Request<Streaming<wire::ImportRequest>>,
    ) -> Result<Response<Self::ImportStream>, Status> {
        let act = Asked::of(&request).act("import");
        import::run(Arc::clone(&self.node), act, request.into_inner())
            .map_ok(Response::new)
            .await
    }

    async fn retract(
        &self,
        request: Request<Streaming<wire::RetractRequest>>,
    ) -> Result<Response<wire::RetractResponse>, Status> {
        let asked = Asked::of(&request);
        let request = retract::gather(request.into_inner()).await?;
        let (_, name) = self.own_set(&request.set)?;
        let mut act = asked.act("retract").of_set(name);
        if request.dry_run {
            // Nothing is done, so nothing is recorded.
            let told = self.call("retract", move |node| {
                retract::retract(node, request, &mut act)
            });
            return told.await.map(Response::new);
        }
        let outcome = self
            .act("retract", act, move |node, act| {
                retract::retract(node, request, act)
            })
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
        let asked = Asked::of(&request);
        let request = erase::gather(request.into_inner()).await?;
        let (_, name) = self.own_set(&request.set)?;
        let mut act = asked.act("erase").of_set(name);
        if request.dry_run {
            let told = self.call("erase", move |node| erase::erase(node, request, &mut act));
            return told.await.map(Response::new);
        }
        let outcome = self
            .act("erase", act, move |node, act| {
                erase::erase(node, request, act)
            })
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
        let exported = export::export(&self.node, &self.exports, request);
        exported.await.map(Response::new)
    }

    async fn opine(
        &self,
        request: Request<wire::OpineRequest>,
    ) -> Result<Response<wire::OpineResponse>, Status> {
        opinions::opine(self, request).await
    }

    async fn list_opinions(
        &self,
        request: Request<wire::ListOpinionsRequest>,
    ) -> Result<Response<wire::ListOpinionsResponse>, Status> {
        opinions::list(self, request).await
    }

    async fn watch_changes(
        &self,
        request: Request<wire::WatchChangesRequest>,
    ) -> Result<Response<Self::WatchChangesStream>, Status> {
        let (caller, asked) = (caller(&request)?, Asked::of(&request));
        let request = request.into_inner();
        let begun = self.exports.begin_follow(&self.node, &asked, &request);
        let begun = begun.await?;
        let watched = self.watchers.watch(self.node(), caller, request).await;
        recorded::begun(begun, watched.as_ref().err()).await;
        watched.map(Response::new)
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
        let mut act = Asked::of(&request).act("consumer.remove");
        act.said("consumer", name.as_str());
        let gone = name.clone();
        self.act("consumers remove", act, move |node, _| {
            node.remove_consumer(&gone)
        })
        .await?;
        info!(consumer = %name, %by, "a consumer was removed");
        Ok(Response::new(wire::RemoveConsumerResponse {}))
    }

    async fn export_bundle(
        &self,
        request: Request<wire::ExportBundleRequest>,
    ) -> Result<Response<Self::ExportBundleStream>, Status> {
        let bundles = self.bundles()?;
        let act = bundle::described(Asked::of(&request).act("bundle.export"), request.get_ref());
        // Before the first byte goes out.
        let ticket = recorded::begin(&self.node, act).await?;
        let exported = bundle::export(&self.node, bundles.as_ref(), request.get_ref(), ticket);
        exported.await.map(Response::new)
    }

    async fn import_bundle(
        &self,
        request: Request<Streaming<wire::ImportBundleRequest>>,
    ) -> Result<Response<Self::ImportBundleStream>, Status> {
        let bundles = Arc::clone(self.bundles()?);
        let act = Asked::of(&request).act("bundle.import");
        let ticket = recorded::begin(&self.node, act).await?;
        let imported = bundle::import(bundles, request.into_inner(), ticket).await?;
        Ok(Response::new(imported))
    }

    async fn prove(
        &self,
        request: Request<wire::ProveRequest>,
    ) -> Result<Response<Self::ProveStream>, Status> {
        let act = Asked::of(&request).act("prove");
        let work = move |node: &Node, act: &mut Act| proving::prove(node, request.get_ref(), act);
        Ok(Response::new(proving::pieces(
            self.act("prove", act, work).await?,
        )))
    }

    async fn list_evidence(
        &self,
        _: Request<wire::ListEvidenceRequest>,
    ) -> Result<Response<wire::ListEvidenceResponse>, Status> {
        self.call("evidence", proving::list)
            .await
            .map(Response::new)
    }

    async fn export_evidence(
        &self,
        request: Request<wire::ExportEvidenceRequest>,
    ) -> Result<Response<Self::ExportEvidenceStream>, Status> {
        let act = Asked::of(&request).act("evidence.export");
        let work = move |node: &Node, act: &mut Act| proving::export(node, request.get_ref(), act);
        Ok(Response::new(proving::pieces(
            self.act("evidence", act, work).await?,
        )))
    }

    async fn lookup_past(
        &self,
        request: Request<wire::LookupPastRequest>,
    ) -> Result<Response<wire::LookupPastResponse>, Status> {
        let act = Asked::of(&request).act("lookup.past");
        let work = move |node: &Node, act: &mut Act| past::lookup(node, request.into_inner(), act);
        self.act("look-up", act, work).await.map(Response::new)
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
        let held = self.call("feeds", crate::status::feeds).await?;
        Ok(Response::new(held))
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

    async fn receipts(
        &self,
        request: Request<wire::ReceiptsRequest>,
    ) -> Result<Response<wire::ReceiptsResponse>, Status> {
        let work = move |node: &Node| receipts::receipts(node, request.get_ref());
        Ok(Response::new(self.call("receipts", work).await?))
    }

    async fn recheck(
        &self,
        request: Request<wire::RecheckRequest>,
    ) -> Result<Response<wire::RecheckResponse>, Status> {
        let asked = Asked::of(&request);
        Ok(Response::new(
            recheck::recheck(self, asked, request.into_inner()).await?,
        ))
    }

    async fn acknowledge_rechecks(
        &self,
        request: Request<wire::AcknowledgeRechecksRequest>,
    ) -> Result<Response<wire::AcknowledgeRechecksResponse>, Status> {
        let act = Asked::of(&request).act("recheck.acknowledge");
        let request = request.into_inner();
        let work = move |node: &Node, act: &mut Act| recheck::acknowledge(node, &request, act);
        Ok(Response::new(self.act("acknowledge", act, work).await?))
    }

    async fn decide_quarantine(
        &self,
        request: Request<wire::DecideQuarantineRequest>,
    ) -> Result<Response<wire::DecideQuarantineResponse>, Status> {
        let asked = Asked::of(&request);
        let request = request.into_inner();
        let set = convert::set_name(&self.node, &request.set).map_err(|error| refused(&error))?;
        let act = asked.act(crate::quarantine::act(&request)).of_set(set);
        let decided = self.act("quarantine", act, move |node, act| {
            crate::quarantine::decide(node, &request, act)
        });
        Ok(Response::new(decided.await?))
    }

    async fn explain_policy(
        &self,
        request: Request<wire::ExplainPolicyRequest>,
    ) -> Result<Response<wire::ExplainPolicyResponse>, Status> {
        let act = Asked::of(&request).act("policy.explain");
        let work =
            move |node: &Node, act: &mut Act| policy::explain(node, request.into_inner(), act);
        Ok(Response::new(self.act("policy explain", act, work).await?))
    }

    async fn compare_policies(
        &self,
        request: Request<wire::ComparePoliciesRequest>,
    ) -> Result<Response<Self::ComparePoliciesStream>, Status> {
        policy::compare(self.node(), request.into_inner()).map(Response::new)
    }

    async fn mute(
        &self,
        request: Request<wire::MuteRequest>,
    ) -> Result<Response<wire::Muted>, Status> {
        let by = caller(&request)?.to_string();
        let act = Asked::of(&request).act("mute");
        let request = request.into_inner();
        let muted = self.act("mute", act, move |node, act| {
            policy::mute(node, request, &by, act)
        });
        Ok(Response::new(muted.await?))
    }

    async fn unmute(
        &self,
        request: Request<wire::UnmuteRequest>,
    ) -> Result<Response<wire::Muted>, Status> {
        let act = Asked::of(&request).act("unmute");
        let work =
            move |node: &Node, act: &mut Act| policy::unmute(node, request.into_inner(), act);
        Ok(Response::new(self.act("unmute", act, work).await?))
    }

    async fn list_mutes(
        &self,
        _request: Request<wire::ListMutesRequest>,
    ) -> Result<Response<wire::ListMutesResponse>, Status> {
        Ok(Response::new(self.call("mutes", policy::mutes).await?))
    }

    async fn verify(
        &self,
        _request: Request<wire::VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        Ok(Response::new(crate::verify::verify(self.node())))
    }

    async fn import_roster(
        &self,
        request: Request<wire::ImportRosterRequest>,
    ) -> Result<Response<wire::ImportRosterResponse>, Status> {
        let mut act = Asked::of(&request).roster_act(request.get_ref());
        let request = request.into_inner();
        let documents = RosterDocuments {
            rosters: request.rosters,
            node_cards: request.node_cards,
            suspensions: request.suspensions,
        };
        for (what, documents) in [
            ("rosters", &documents.rosters),
            ("node_cards", &documents.node_cards),
            ("suspensions", &documents.suspensions),
        ] {
            act.count(what, u64::try_from(documents.len()).unwrap_or(u64::MAX));
        }
        let outcome = self
            .act("roster import", act, |node, act| {
                let outcome = node.import_roster(documents)?;
                recorded::imported(act, &outcome);
                Ok(outcome)
            })
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
        let act = Asked::of(&request).act("preview");
        let member = Slug::parse(&request.into_inner().member);
        let member = member.map_err(|error| misuse(error.to_string()))?;
        let act = act.of_member(&member);
        let previewed = self.act("preview", act, move |node, act| {
            crate::status::preview(node, &member, act)
        });
        Ok(Response::new(previewed.await?))
    }

    async fn audit(
        &self,
        request: Request<wire::AuditRequest>,
    ) -> Result<Response<Self::AuditStream>, Status> {
        let node = Arc::clone(&self.node);
        Ok(Response::new(audit::read(node, request.into_inner())))
    }

    async fn verify_audit(
        &self,
        _request: Request<wire::VerifyAuditRequest>,
    ) -> Result<Response<wire::VerifyAuditResponse>, Status> {
        let report = self.call("audit verify", |node| node.audit().verify());
        Ok(Response::new(audit::report(report.await?)))
    }

    async fn record(
        &self,
        request: Request<Streaming<wire::RecordRequest>>,
    ) -> Result<Response<Self::RecordStream>, Status> {
        let asked = Asked::of(&request);
        let node = Arc::clone(&self.node);
        let told = audit::record(node, asked, request.into_inner()).await?;
        Ok(Response::new(told))
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
