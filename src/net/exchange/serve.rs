//! What this node answers to the federation's four calls.
//!
//! Who calls, rates, sizes and deadlines are dealt with before these methods; what
//! the caller may have is decided here, from one access snapshot at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt as _, stream};
use hashpact_core::card::{CardState, KeyOwner};
use hashpact_core::id::{Digest, MemberNumber, Slug, UnixMillis};
use hashpact_core::leaf::audit::Actor;
use hashpact_core::reject::Rejection;
use hashpact_core::roster::RosterChain;
use hashpact_node::Node;
use tokio_util::sync::CancellationToken;

use super::announce;
use super::bulk::Bulk;
use super::directory::Snapshots;
use super::documents;
use super::inbox::Inbox;
use super::served::Pulls;
use crate::connections::Direction;
use crate::peer::PeerIdentity;
use crate::service::{Call, Caller, FederationService, ServiceError};
use crate::settings::MESSAGE_MAX_BYTES;
use crate::types::{Announcement, Answers, Incoming, NodeInfo, PullPart, PullRequest, RosterItem};

/// The protocol versions that this program speaks.
pub const PROTOCOL_VERSIONS: &[u32] = &[1];
/// What it calls itself.
const SOFTWARE: &str = concat!("hashpact ", env!("CARGO_PKG_VERSION"));

/// What a node says of itself, to whomever it greets or is greeted by.
#[must_use]
pub fn node_info(node: &Node) -> NodeInfo {
    let state = node.membership().state();
    let newest = state.chain.as_ref().map(RosterChain::current);
    NodeInfo {
        protocol_versions: PROTOCOL_VERSIONS.to_vec(),
        software: SOFTWARE.to_owned(),
        genesis: node.membership().genesis(),
        roster_version: newest.map_or(0, |version| version.roster().version),
        roster_digest: newest.map_or(Digest([0; 32]), |version| version.digest()),
        max_message_bytes: u32::try_from(MESSAGE_MAX_BYTES).unwrap_or(u32::MAX),
        clock: node.clock().now(),
    }
}

/// Refuses a peer of another coalition, or one without a protocol version in
/// common.
///
/// # Errors
/// [`Rejection::WrongGenesis`], [`Rejection::Invalid`].
pub fn check_node_info(node: &Node, peer: &NodeInfo) -> Result<(), Rejection> {
    if peer.genesis != node.membership().genesis() {
        return Err(Rejection::WrongGenesis { what: "hello" });
    }
    let speaks = |version: &u32| peer.protocol_versions.contains(version);
    if PROTOCOL_VERSIONS.iter().any(speaks) {
        return Ok(());
    }
    let why = format!("no protocol version in common with {PROTOCOL_VERSIONS:?}");
    Err(Rejection::invalid("hello", why))
}

/// The documents that a caller is given, from a version of the roster on.
///
/// # Errors
/// [`ServiceError::Unavailable`] until this node's member is in a roster.
pub(crate) fn roster_for(
    node: &Node,
    snapshots: &Snapshots,
    caller: &PeerIdentity,
    from_version: u64,
) -> Result<Vec<RosterItem>, ServiceError> {
    let snapshot = snapshots.newest().ok_or(ServiceError::Unavailable)?;
    let state = node.membership().state();
    let reach = snapshot.may_get_roster(&KeyOwner {
        member: caller.member,
        node: caller.node.clone(),
        card: CardState::Current,
    });
    let now = node.clock().now();
    Ok(documents::roster_items(&state, reach, from_version, now))
}

/// Answers the federation's calls for a node.
pub struct NodeService {
    node: Arc<Node>,
    inbox: Inbox,
    snapshots: Arc<Snapshots>,
    pulls: Pulls,
    /// What each node said of itself last; at most one per node on a card.
    greeted: Mutex<BTreeMap<(MemberNumber, Slug), NodeInfo>>,
    /// Ends every watch, which would never end by itself.
    stop: CancellationToken,
}

impl NodeService {
    /// Serves `node` until `stop`; what peers announce goes into `inbox`.
    #[must_use]
    pub fn new(
        node: Arc<Node>,
        inbox: Inbox,
        bulk: Arc<Bulk>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let snapshots = Arc::new(Snapshots::of(&node));
        Arc::new(Self {
            pulls: Pulls::new(Arc::clone(&node), Arc::clone(&snapshots), bulk),
            node,
            inbox,
            snapshots,
            greeted: Mutex::default(),
            stop,
        })
    }

    /// What a node that called said of itself last.
    #[must_use]
    pub fn greeted(&self, member: MemberNumber, node: &Slug) -> Option<NodeInfo> {
        self.greetings().get(&(member, node.clone())).cloned()
    }

    fn greetings(&self) -> MutexGuard<'_, BTreeMap<(MemberNumber, Slug), NodeInfo>> {
        self.greeted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a caller announces goes on until it or this node ends the watch.
    fn listen(&self, caller: &Caller, incoming: Incoming<Announcement>) -> Listening {
        let heard = self.stop.child_token();
        let told = self.stop.child_token();
        let until = told.clone().cancelled_owned();
        let incoming: Incoming<Announcement> = Box::pin(incoming.take_until(until));
        let (inbox, connection) = (self.inbox.clone(), caller.clone());
        let (ended, by_us) = (heard.clone(), told.clone());
        tokio::spawn(async move {
            let ended = ended.drop_guard();
            let peer = &connection.peer;
            match inbox.listen(peer, incoming).await {
                Some(error) => tracing::debug!(%peer, code = error.code(), "a watch ended"),
                // PROTOCOL 19.7a: on a connection that this node dialled to be called on,
                // the peer asks for another one so.
                None if connection.direction == Direction::Outbound && !by_us.is_cancelled() => {
                    connection.ask_renewal();
                }
                None => {}
            }
            drop(ended);
        });
        Listening { heard, told }
    }
}

/// The two ends of a watch: each ends the other.
struct Listening {
    heard: CancellationToken,
    told: CancellationToken,
}

impl FederationService for NodeService {
    fn now(&self) -> UnixMillis {
        self.node.clock().now()
    }

    async fn hello(&self, caller: &Caller, peer: NodeInfo) -> Result<NodeInfo, ServiceError> {
        check_node_info(&self.node, &peer)?;
        let said = Announcement::Roster {
            version: peer.roster_version,
            digest: peer.roster_digest,
            cosignatures: Vec::new(),
        };
        let name = (caller.peer.member, caller.peer.node.clone());
        let newer = peer.roster_version > node_info(&self.node).roster_version;
        self.greetings().insert(name, peer);
        if newer && caller.peer.status.is_active() {
            self.inbox.said(&caller.peer, said).await;
        }
        Ok(node_info(&self.node))
    }

    async fn roster(
        &self,
        caller: &Caller,
        from_version: u64,
    ) -> Result<Answers<RosterItem>, ServiceError> {
        let items = roster_for(&self.node, &self.snapshots, &caller.peer, from_version)?;
        Ok(Box::pin(stream::iter(items.into_iter().map(Ok))))
    }

    async fn watch(
        &self,
        caller: &Caller,
        incoming: Incoming<Announcement>,
    ) -> Result<Answers<Announcement>, ServiceError> {
        let Listening { heard, told } = self.listen(caller, incoming);
        let told = told.drop_guard();
        let said = announce::told_with(
            Arc::clone(&self.node),
            Arc::clone(&self.snapshots),
            caller.peer.member,
        );
        // A watch that ends without an error asks the peer for another connection.
        let over = caller.renewal_asked();
        let said = said.take_until(heard.cancelled_owned()).take_until(over);
        Ok(Box::pin(said.inspect(move |_| {
            let _ = &told;
        })))
    }

    async fn pull(
        &self,
        caller: &Caller,
        request: PullRequest,
    ) -> Result<Answers<PullPart>, ServiceError> {
        self.pulls.serve(caller.peer.member, request).await
    }

    fn audit(&self, caller: &Caller, call: Call, outcome: &'static str) {
        if !matches!(outcome, "ok" | "cancelled") {
            let labels = [("call", call.name()), ("code", outcome)];
            metrics::counter!("hashpact_refusals_total", &labels).increment(1);
            let (member, node) = (&caller.peer.slug, &caller.peer.node);
            let actor = Actor::peer(member, node);
            let audit = self.node.audit();
            audit.refused(actor, member.as_str(), call.name(), outcome);
        }
        tracing::info!(
            member = %caller.peer.slug,
            node = %caller.peer.node,
            call = call.name(),
            outcome,
        );
    }
}
