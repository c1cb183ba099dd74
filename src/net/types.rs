//! What the four calls carry, in types of the core.
//!
//! Sizes and counts of these were checked on the way in; signatures, proofs and
//! rules were not: that is the core's work, for whoever holds one of these.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
pub use hashpact_core::chunk::{ChunkParts, ProofParts};
use hashpact_core::id::{Digest, FeedId, MemberNumber, UnixMillis};
use hashpact_node::reported::Report;

use crate::error::NetError;
use crate::service::ServiceError;

/// What a node says of itself in a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Protocol versions that the node speaks, at most 16.
    pub protocol_versions: Vec<u32>,
    /// For people and statistics, at most 100 bytes.
    pub software: String,
    /// The coalition, by the digest of its genesis.
    pub genesis: Digest,
    /// The newest roster version that the node holds, 0 without one.
    pub roster_version: u64,
    /// That version's digest, all zeros without one.
    pub roster_digest: Digest,
    /// The longest message that the node takes.
    pub max_message_bytes: u32,
    /// The node's clock.
    pub clock: UnixMillis,
}

/// One document of the answer to a roster request: an envelope as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RosterItem {
    /// A version of the roster.
    Roster(Bytes),
    /// A node card.
    NodeCard(Bytes),
    /// A suspension.
    Suspension(Bytes),
}

/// What one side of a watch tells the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announcement {
    /// A roster that the sender holds; the last said is the newest.
    Roster {
        /// Its version.
        version: u64,
        /// Its digest.
        digest: Digest,
        /// What witnesses say of the chain up to it: C2SP `cosignature/v1` lines.
        cosignatures: Vec<Bytes>,
    },
    /// A node card's envelope.
    NodeCard(Bytes),
    /// A suspension's envelope.
    Suspension(Bytes),
    /// A head that the sender can serve.
    Head(Box<Head>),
    /// All that stood when the watch began has been said.
    SnapshotEnd,
    /// The stream lives.
    Alive {
        /// The sender's clock.
        clock: UnixMillis,
    },
    /// Evidence of a fork.
    Evidence(Bytes),
    /// Evidence of two documents of one version.
    DocumentEvidence(Bytes),
    /// The receiver lost its grant on a feed.
    GrantEnded(Box<GrantEnded>),
    /// To observers: on how many of the sender's sets each member's receipts are overdue.
    Overdue(Vec<(MemberNumber, u64)>),
    /// To a feed's publisher: what the sender holds back of it.
    Quarantined(FeedId, Report),
}

/// The newest state of a feed and what stands beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The feed.
    pub feed: FeedId,
    /// Its publisher.
    pub publisher: MemberNumber,
    /// The signed checkpoint.
    pub note: Bytes,
    /// Cosignature lines.
    pub cosignatures: Vec<Bytes>,
    /// Envelopes with receipts, of this head or of others of the feed.
    pub receipts: Vec<Bytes>,
}

/// The one leaf that a reader without its grant still gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantEnded {
    /// The head that the proof leads to.
    pub head: Head,
    /// The leaf's index.
    pub index: u64,
    /// The describe leaf in plain form.
    pub leaf: Bytes,
    /// Its inclusion proof in RFC 6962 form.
    pub inclusion: Vec<Digest>,
}

/// What a bundle says of one feed: a head, and the describe leaf in force below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleFeed {
    /// The head that the chunks lead to.
    pub head: Head,
    /// The first leaf in the bundle.
    pub from: u64,
    /// The describe leaf's index.
    pub describe_index: u64,
    /// The describe leaf in plain form.
    pub describe: Bytes,
    /// Its inclusion proof in RFC 6962 form.
    pub inclusion: Vec<Digest>,
}

/// A request for a range of a feed, proved against one head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullRequest {
    /// The feed.
    pub feed: FeedId,
    /// The first index wanted.
    pub from: u64,
    /// One past the last index wanted, at most `head_size`.
    pub to: u64,
    /// The size of the head that all proofs lead to.
    pub head_size: u64,
    /// Its root.
    pub head_root: Digest,
    /// Only compact ranges, no leaves.
    pub proof_only: bool,
    /// Dead publish and opinion leaves may come as their records.
    pub elide_dead: bool,
}

/// One message of the answer to a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullPart {
    /// Leaves with their proof.
    Chunk(ChunkParts),
    /// Only the proof.
    Proof(ProofParts),
}

/// A boxed stream.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send>>;
/// What a service answers with, item by item; an error ends the stream.
pub type Answers<T> = BoxStream<Result<T, ServiceError>>;
/// What comes from a peer, item by item; an error ends the stream.
pub type Incoming<T> = BoxStream<Result<T, NetError>>;
/// What this side of a watch tells.
pub type Outgoing = BoxStream<Announcement>;
