//! Who is at the other end: decided once per connection, from its TLS key.
//!
//! The node cards say which key belongs to which node of which member; this
//! module only asks, through [`PeerDirectory`], and never sees a card.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hashpact_core::id::{Digest, MemberNumber, Slug};

/// What the roster makes of a member at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerStatus {
    /// May make every call.
    Active,
    /// May say hello and read the roster, nothing else.
    Suspended,
    /// May say hello and read the roster up to its removal, nothing else.
    Removed,
}

impl PeerStatus {
    /// Tells whether the member may watch and pull.
    #[must_use]
    pub const fn is_active(self) -> bool {
        match self {
            Self::Active => true,
            Self::Suspended | Self::Removed => false,
        }
    }
}

/// The one node of the one member that a TLS key belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The member.
    pub member: MemberNumber,
    /// The member's slug.
    pub slug: Slug,
    /// The node's name on the member's card.
    pub node: Slug,
    /// The member's status when this was looked up.
    pub status: PeerStatus,
    /// SHA-256 of the key's `SubjectPublicKeyInfo`.
    pub tls_key: Digest,
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.slug, self.node)
    }
}

/// Knows which node a TLS key belongs to, from the node cards in force.
///
/// Called inside handshakes and at the start of every call: it must not block.
/// A key on the card of any member is known, whatever the member's status.
pub trait PeerDirectory: fmt::Debug + Send + Sync + 'static {
    /// The node whose card names the key with this SPKI digest; exactly one.
    fn peer_of(&self, tls_key: &Digest) -> Option<PeerIdentity>;
}

/// A directory as a table that is replaced whole.
#[derive(Debug, Default)]
pub struct PeerTable {
    peers: ArcSwap<HashMap<Digest, PeerIdentity>>,
}

impl PeerTable {
    /// Makes a table of these peers.
    pub fn new(peers: impl IntoIterator<Item = PeerIdentity>) -> Self {
        let table = Self::default();
        table.replace(peers);
        table
    }

    /// Replaces all peers; what was looked up before stays as it was.
    pub fn replace(&self, peers: impl IntoIterator<Item = PeerIdentity>) {
        let peers = peers.into_iter().map(|peer| (peer.tls_key, peer));
        self.peers.store(Arc::new(peers.collect()));
    }
}

impl PeerDirectory for PeerTable {
    fn peer_of(&self, tls_key: &Digest) -> Option<PeerIdentity> {
        self.peers.load().get(tls_key).cloned()
    }
}

/// Whom a dialler means to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Any node of this member.
    Member(MemberNumber),
    /// This node of this member.
    Node(MemberNumber, Slug),
}

impl Expected {
    /// Tells whether `peer` is who was meant.
    #[must_use]
    pub fn is(&self, peer: &PeerIdentity) -> bool {
        match self {
            Self::Member(member) => peer.member == *member,
            Self::Node(member, node) => peer.member == *member && peer.node == *node,
        }
    }
}
