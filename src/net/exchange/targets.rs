//! Who is dialled, which connections may stand, and what a greeting means: decided
//! from the roster, the cards and what the two sides say of themselves.

use std::collections::BTreeMap;

use hashpact_core::card::{CardState, Endpoint, KeyOwner};
use hashpact_core::id::{Slug, UnixMillis};
use hashpact_core::reject::Rejection;
use hashpact_node::Node;
use hashpact_node::model::PeerView;

use super::directory::Snapshots;
use super::view::PeerKey;
use crate::peer::PeerIdentity;
use crate::types::NodeInfo;

/// A node that is dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) key: PeerKey,
    /// The member's slug, for people.
    pub(crate) slug: Slug,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// The nodes to dial, and the rows of all nodes for the board.
pub(crate) fn targets(
    node: &Node,
    snapshots: &Snapshots,
) -> (BTreeMap<PeerKey, Target>, Vec<PeerView>) {
    let (mut targets, mut rows) = (BTreeMap::new(), Vec::new());
    let state = node.membership().state();
    let (Some(snapshot), Some(chain)) = (snapshots.newest(), state.chain.as_ref()) else {
        return (targets, rows);
    };
    let (roster, now) = (chain.roster(), node.clock().now());
    for member in &roster.members {
        let Some(card) = state.cards.current(member.number, roster, now) else {
            continue;
        };
        let may = snapshot.may_connect(member.number);
        let own = member.slug == *node.member_slug();
        let others = card.card().nodes.iter();
        for other in others.filter(|other| !own || other.name != *node.name()) {
            let key = (member.number, other.name.clone());
            let (dial, status) = match (may, other.endpoints.is_empty()) {
                (false, _) => (false, "not active"),
                (true, true) => (false, "no endpoint"),
                (true, false) => (true, "connecting"),
            };
            rows.push(row(&key, member.slug.clone(), &other.endpoints, status));
            if dial {
                let target = Target {
                    key: key.clone(),
                    slug: member.slug.clone(),
                    endpoints: other.endpoints.clone(),
                };
                targets.insert(key, target);
            }
        }
    }
    (targets, rows)
}

/// Whether a connection's key still belongs to that node of an active member, whose
/// card is in force. A member that is not active may dial again, for the roster.
pub(crate) fn may_stand(node: &Node, snapshots: &Snapshots, peer: &PeerIdentity) -> bool {
    let state = node.membership().state();
    let Some(chain) = state.chain.as_ref() else {
        return true;
    };
    let now = node.clock().now();
    let owner = state.cards.by_tls_key(&peer.tls_key, chain.roster(), now);
    let same = |owner: &KeyOwner| owner.member == peer.member && owner.node == peer.node;
    let Some(owner) = owner.filter(same) else {
        return false;
    };
    let was_active = peer.status.is_active();
    let active = snapshots
        .newest()
        .is_none_or(|s| s.may_connect(peer.member));
    !was_active || (active && owner.card == CardState::Current)
}

/// What follows from a greeting: whether the peer is asked for its newer roster.
///
/// # Errors
/// [`Rejection::WrongGenesis`].
pub(crate) fn greeted(own: &NodeInfo, theirs: &NodeInfo) -> Result<bool, Rejection> {
    if theirs.genesis == own.genesis {
        Ok(theirs.roster_version > own.roster_version)
    } else {
        Err(Rejection::WrongGenesis { what: "hello" })
    }
}

fn row(key: &PeerKey, slug: Slug, endpoints: &[Endpoint], state: &'static str) -> PeerView {
    PeerView {
        member: key.0,
        slug,
        node: key.1.clone(),
        endpoints: endpoints.iter().map(Endpoint::to_string).collect(),
        state,
        last_seen: UnixMillis(0),
        next_attempt: UnixMillis(0),
        last_error: (String::new(), String::new()),
        roster_version: 0,
        software: String::new(),
        certificate_expires: UnixMillis(0),
        overdue_receipts: Vec::new(),
    }
}
