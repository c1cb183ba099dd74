//! Whose a TLS key is and what its member may do, from the node's membership.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use hashpact_core::access::{Admission, MemberAccess, Snapshot};
use hashpact_core::id::{Digest, MemberNumber};
use hashpact_node::Node;
use hashpact_node::clock::Clock;
use hashpact_node::membership::{Membership, State};

use crate::peer::{PeerDirectory, PeerIdentity, PeerStatus};

/// The newest access snapshot, computed once for each state of the membership and
/// again when time alone changes its answers.
pub(crate) struct Snapshots {
    membership: Arc<Membership>,
    clock: Clock,
    newest: ArcSwapOption<Computed>,
}

struct Computed {
    state: Arc<State>,
    snapshot: Option<Arc<Snapshot>>,
}

impl Computed {
    fn holds(&self, state: &Arc<State>, clock: &Clock) -> bool {
        let until = self.snapshot.as_ref().and_then(|s| s.valid_until());
        Arc::ptr_eq(&self.state, state) && until.is_none_or(|until| clock.now() < until)
    }
}

impl Snapshots {
    pub(crate) fn of(node: &Node) -> Self {
        Self {
            membership: Arc::clone(node.membership()),
            clock: node.clock().clone(),
            newest: ArcSwapOption::empty(),
        }
    }

    /// What access is decided from at this moment; `None` until this node's member
    /// is in a roster.
    pub(crate) fn newest(&self) -> Option<Arc<Snapshot>> {
        let state = self.membership.state();
        if let Some(computed) = self.newest.load_full()
            && computed.holds(&state, &self.clock)
        {
            return computed.snapshot.clone();
        }
        let snapshot = self.membership.snapshot().map(Arc::new);
        let computed = Computed {
            state,
            snapshot: snapshot.clone(),
        };
        self.newest.store(Some(Arc::new(computed)));
        snapshot
    }
}

/// [`PeerDirectory`] over the node cards that the node accepted.
pub struct Directory(Snapshots);

impl Directory {
    /// The directory of a node; it follows every change of the membership.
    #[must_use]
    pub fn of(node: &Node) -> Arc<Self> {
        Arc::new(Self(Snapshots::of(node)))
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Directory")
    }
}

impl PeerDirectory for Directory {
    fn peer_of(&self, tls_key: &Digest) -> Option<PeerIdentity> {
        let state = self.0.membership.state();
        let roster = state.chain.as_ref()?.roster();
        let owner = state
            .cards
            .by_tls_key(tls_key, roster, self.0.clock.now())?;
        let snapshot = self.0.newest();
        // Before this node is in a roster itself it exchanges rosters and no more.
        let admission = snapshot.as_ref().map(|snapshot| snapshot.admission(&owner));
        let status = match (admission, snapshot) {
            (Some(Admission::Full), _) => PeerStatus::Active,
            (_, Some(snapshot)) => inactive(&snapshot, owner.member),
            (_, None) => PeerStatus::Suspended,
        };
        Some(PeerIdentity {
            member: owner.member,
            slug: roster.member(owner.member)?.slug.clone(),
            node: owner.node,
            status,
            tls_key: *tls_key,
        })
    }
}

fn inactive(snapshot: &Snapshot, member: MemberNumber) -> PeerStatus {
    match snapshot.member(member) {
        MemberAccess::Removed => PeerStatus::Removed,
        MemberAccess::Active
        | MemberAccess::Suspended
        | MemberAccess::Denied
        | MemberAccess::Unknown => PeerStatus::Suspended,
    }
}
