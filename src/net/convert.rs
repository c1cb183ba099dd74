//! Between messages on the wire and [`crate::types`], both ways.
//!
//! The only place, with the codec, that knows the generated messages. What comes
//! in is measured against [`hashpact_core::limits`] before anything is kept of it.

use bytes::Bytes;
use hashpact_core::equivocation::DOCUMENT_EVIDENCE_MAX_BYTES;
use hashpact_core::id::{Digest, FeedId, MemberNumber, UnixMillis};
use hashpact_core::limits::{
    CARD_MAX_BYTES, CHUNK_MAX_LEAVES, CHUNK_PLAIN_MAX_BYTES, COSIGNATURES_MAX, EVIDENCE_MAX_BYTES,
    FEED_MAX_LEAVES, LEAF_PAYLOAD_MAX_BYTES, NOTE_MAX_BYTES, PAGE_LEAVES, PAGE_PLAIN_MAX_BYTES,
    RECEIPTS_MAX, ROSTER_MAX_BYTES, SMALL_DOCUMENT_MAX_BYTES,
};
use hashpact_core::reject::Rejection;

use crate::reported;
use crate::types::{
    Announcement, BundleFeed, ChunkParts, GrantEnded, Head, NodeInfo, ProofParts, PullPart,
    PullRequest, RosterItem,
};
use crate::wire;

/// Whole pages in a chunk.
pub(crate) const PAGES_MAX: usize = (CHUNK_MAX_LEAVES / PAGE_LEAVES) as usize;
/// Hashes in a compact range or an inclusion proof: twice the levels of the
/// largest feed, and to spare. Their exact number is the core's to check.
pub(crate) const PROOF_MAX_HASHES: usize = 128;
/// A cosignature line: a name of a coalition's length and 76 bytes in base64.
const COSIGNATURE_MAX_BYTES: usize = 512;
const PROTOCOL_VERSIONS_MAX: usize = 16;
/// Members whose receipts are overdue, in one announcement.
pub(crate) const OVERDUE_MAX: usize = 512;
const SOFTWARE_MAX_BYTES: usize = 100;
/// A leaf in plain form: kind, length, payload.
const LEAF_PLAIN_MAX_BYTES: usize = LEAF_PAYLOAD_MAX_BYTES + 3;
/// A page as stored: zstd may grow what does not compress, by a little.
const PAGE_WIRE_MAX_BYTES: usize = PAGE_PLAIN_MAX_BYTES + PAGE_PLAIN_MAX_BYTES / 128 + 64;

fn present<T>(value: Option<T>, what: &'static str) -> Result<T, Rejection> {
    value.ok_or_else(|| Rejection::malformed(what, "it is missing"))
}

fn capped(bytes: Bytes, what: &'static str, limit: usize) -> Result<Bytes, Rejection> {
    Rejection::cap(what, bytes.len(), limit)?;
    Ok(bytes)
}

fn each_capped(
    list: Vec<Bytes>,
    what: &'static str,
    count: usize,
    limit: usize,
) -> Result<Vec<Bytes>, Rejection> {
    Rejection::cap(what, list.len(), count)?;
    for item in &list {
        Rejection::cap(what, item.len(), limit)?;
    }
    Ok(list)
}

fn digest(bytes: &Bytes, what: &'static str) -> Result<Digest, Rejection> {
    Digest::from_slice(bytes).map_err(|error| Rejection::invalid(what, error.to_string()))
}

fn hashes(list: &[Bytes], what: &'static str) -> Result<Vec<Digest>, Rejection> {
    Rejection::cap(what, list.len(), PROOF_MAX_HASHES)?;
    list.iter().map(|hash| digest(hash, what)).collect()
}

fn to_bytes(digest: &Digest) -> Bytes {
    Bytes::copy_from_slice(digest.as_bytes())
}

fn to_hashes(list: &[Digest]) -> Vec<Bytes> {
    list.iter().map(to_bytes).collect()
}

/// Reads what a node says of itself.
pub(crate) fn node_info(node: Option<wire::NodeInfo>) -> Result<NodeInfo, Rejection> {
    let node = present(node, "hello")?;
    let versions = node.protocol_versions.len();
    Rejection::cap("protocol versions", versions, PROTOCOL_VERSIONS_MAX)?;
    Rejection::cap("software name", node.software.len(), SOFTWARE_MAX_BYTES)?;
    Ok(NodeInfo {
        protocol_versions: node.protocol_versions,
        software: node.software.chars().filter(|c| !c.is_control()).collect(),
        genesis: digest(&node.genesis_digest, "genesis digest")?,
        roster_version: node.roster_version,
        roster_digest: digest(&node.roster_digest, "roster digest")?,
        max_message_bytes: node.max_message_bytes,
        clock: UnixMillis(node.clock_ms),
    })
}

impl From<&NodeInfo> for wire::NodeInfo {
    fn from(node: &NodeInfo) -> Self {
        Self {
            protocol_versions: node.protocol_versions.clone(),
            software: node.software.clone(),
            genesis_digest: to_bytes(&node.genesis),
            roster_version: node.roster_version,
            roster_digest: to_bytes(&node.roster_digest),
            max_message_bytes: node.max_message_bytes,
            clock_ms: node.clock.0,
        }
    }
}

/// Reads a document of the roster's stream; `None` for a kind that a later version
/// of the protocol added.
pub(crate) fn roster_item(item: wire::RosterItem) -> Result<Option<RosterItem>, Rejection> {
    use wire::roster_item::Item;
    item.item
        .map(|item| {
            Ok(match item {
                Item::Roster(bytes) => {
                    RosterItem::Roster(capped(bytes, "roster", ROSTER_MAX_BYTES)?)
                }
                Item::NodeCard(bytes) => {
                    RosterItem::NodeCard(capped(bytes, "node card", CARD_MAX_BYTES)?)
                }
                Item::Suspension(bytes) => {
                    RosterItem::Suspension(capped(bytes, "suspension", SMALL_DOCUMENT_MAX_BYTES)?)
                }
            })
        })
        .transpose()
}

impl From<RosterItem> for wire::RosterItem {
    fn from(item: RosterItem) -> Self {
        use wire::roster_item::Item;
        let item = match item {
            RosterItem::Roster(bytes) => Item::Roster(bytes),
            RosterItem::NodeCard(bytes) => Item::NodeCard(bytes),
            RosterItem::Suspension(bytes) => Item::Suspension(bytes),
        };
        Self { item: Some(item) }
    }
}

/// Reads an announcement; `None` for a kind that a later version added.
pub(crate) fn announcement(item: wire::Announcement) -> Result<Option<Announcement>, Rejection> {
    item.item.map(announced).transpose()
}

fn announced(item: wire::announcement::Item) -> Result<Announcement, Rejection> {
    use wire::announcement::Item;
    Ok(match item {
        Item::Roster(roster) => Announcement::Roster {
            version: roster.version,
            digest: digest(&roster.digest, "roster digest")?,
            cosignatures: each_capped(
                roster.cosignatures,
                "cosignatures",
                COSIGNATURES_MAX,
                COSIGNATURE_MAX_BYTES,
            )?,
        },
        Item::NodeCard(bytes) => {
            Announcement::NodeCard(capped(bytes, "node card", CARD_MAX_BYTES)?)
        }
        Item::Suspension(bytes) => {
            Announcement::Suspension(capped(bytes, "suspension", SMALL_DOCUMENT_MAX_BYTES)?)
        }
        Item::Head(item) => Announcement::Head(Box::new(head(item)?)),
        Item::SnapshotEnd(wire::SnapshotEnd {}) => Announcement::SnapshotEnd,
        Item::Alive(alive) => Announcement::Alive {
            clock: UnixMillis(alive.clock_ms),
        },
        Item::Evidence(bytes) => {
            Announcement::Evidence(capped(bytes, "evidence", EVIDENCE_MAX_BYTES)?)
        }
        Item::DocumentEvidence(bytes) => Announcement::DocumentEvidence(capped(
            bytes,
            "document evidence",
            DOCUMENT_EVIDENCE_MAX_BYTES,
        )?),
        Item::GrantEnded(ended) => Announcement::GrantEnded(Box::new(GrantEnded {
            head: head(present(ended.head, "head")?)?,
            index: ended.index,
            leaf: capped(ended.leaf, "leaf", LEAF_PLAIN_MAX_BYTES)?,
            inclusion: hashes(&ended.inclusion, "inclusion proof")?,
        })),
        Item::Overdue(overdue) => Announcement::Overdue(overdue_of(overdue)?),
        Item::Quarantined(said) => reported::read(said)?,
    })
}

fn overdue_of(overdue: wire::Overdue) -> Result<Vec<(MemberNumber, u64)>, Rejection> {
    Rejection::cap("overdue receipts", overdue.members.len(), OVERDUE_MAX)?;
    let members = overdue.members.into_iter();
    members
        .map(|of| Ok((MemberNumber::new(of.member)?, of.sets)))
        .collect()
}

fn head(head: wire::Head) -> Result<Head, Rejection> {
    Ok(Head {
        feed: FeedId::from_slice(&head.feed_id)?,
        publisher: MemberNumber::new(head.publisher)?,
        note: capped(head.note, "note", NOTE_MAX_BYTES)?,
        cosignatures: each_capped(
            head.cosignatures,
            "cosignatures",
            COSIGNATURES_MAX,
            COSIGNATURE_MAX_BYTES,
        )?,
        receipts: each_capped(
            head.receipts,
            "receipts",
            RECEIPTS_MAX,
            SMALL_DOCUMENT_MAX_BYTES,
        )?,
    })
}

impl From<Announcement> for wire::Announcement {
    fn from(announcement: Announcement) -> Self {
        use wire::announcement::Item;
        let item = match announcement {
            Announcement::Roster {
                version,
                digest,
                cosignatures,
            } => Item::Roster(wire::RosterState {
                version,
                digest: to_bytes(&digest),
                cosignatures,
            }),
            Announcement::NodeCard(bytes) => Item::NodeCard(bytes),
            Announcement::Suspension(bytes) => Item::Suspension(bytes),
            Announcement::Head(head) => Item::Head((*head).into()),
            Announcement::SnapshotEnd => Item::SnapshotEnd(wire::SnapshotEnd {}),
            Announcement::Alive { clock } => Item::Alive(wire::Alive { clock_ms: clock.0 }),
            Announcement::Evidence(bytes) => Item::Evidence(bytes),
            Announcement::DocumentEvidence(bytes) => Item::DocumentEvidence(bytes),
            Announcement::GrantEnded(ended) => Item::GrantEnded(wire::GrantEnded {
                inclusion: to_hashes(&ended.inclusion),
                head: Some(ended.head.into()),
                index: ended.index,
                leaf: ended.leaf,
            }),
            Announcement::Quarantined(feed, report) => reported::write(feed, report),
            Announcement::Overdue(overdue) => Item::Overdue(wire::Overdue {
                members: overdue
                    .into_iter()
                    .map(|(member, sets)| wire::OverdueMember {
                        member: member.value(),
                        sets,
                    })
                    .collect(),
            }),
        };
        Self { item: Some(item) }
    }
}

impl From<Head> for wire::Head {
    fn from(head: Head) -> Self {
        Self {
            feed_id: Bytes::copy_from_slice(head.feed.as_bytes()),
            publisher: head.publisher.value(),
            note: head.note,
            cosignatures: head.cosignatures,
            receipts: head.receipts,
        }
    }
}

/// Reads what a bundle says of a feed.
pub(crate) fn bundle_feed(feed: wire::BundleFeed) -> Result<BundleFeed, Rejection> {
    Ok(BundleFeed {
        head: head(present(feed.head, "head")?)?,
        from: feed.from,
        describe_index: feed.describe_index,
        describe: capped(feed.describe, "leaf", LEAF_PLAIN_MAX_BYTES)?,
        inclusion: hashes(&feed.inclusion, "inclusion proof")?,
    })
}

impl From<BundleFeed> for wire::BundleFeed {
    fn from(feed: BundleFeed) -> Self {
        Self {
            inclusion: to_hashes(&feed.inclusion),
            head: Some(feed.head.into()),
            from: feed.from,
            describe_index: feed.describe_index,
            describe: feed.describe,
        }
    }
}

/// Reads a request for leaves. `to` of 0 means all up to the head.
pub(crate) fn pull_request(request: &wire::PullRequest) -> Result<PullRequest, Rejection> {
    let size = request.head_size;
    let to = if request.to == 0 { size } else { request.to };
    if size == 0 || size > FEED_MAX_LEAVES || request.from > to || to > size {
        let why = format!("leaves {} to {to} of a head of size {size}", request.from);
        return Err(Rejection::invalid("pull request", why));
    }
    Ok(PullRequest {
        feed: FeedId::from_slice(&request.feed_id)?,
        from: request.from,
        to,
        head_size: size,
        head_root: digest(&request.head_root, "head root")?,
        proof_only: request.proof_only,
        elide_dead: request.elide_dead,
    })
}

impl From<&PullRequest> for wire::PullRequest {
    fn from(request: &PullRequest) -> Self {
        Self {
            feed_id: Bytes::copy_from_slice(request.feed.as_bytes()),
            from: request.from,
            to: request.to,
            head_size: request.head_size,
            head_root: to_bytes(&request.head_root),
            proof_only: request.proof_only,
            elide_dead: request.elide_dead,
        }
    }
}

/// Reads one message of the answer to `request`; `None` for a kind that a later
/// version added.
pub(crate) fn pull_part(
    item: wire::PullItem,
    proof_only: bool,
) -> Result<Option<PullPart>, Rejection> {
    use wire::pull_item::Item;
    item.item
        .map(|Item::Chunk(chunk)| {
            if proof_only {
                proof(&chunk).map(PullPart::Proof)
            } else {
                leaves(chunk).map(PullPart::Chunk)
            }
        })
        .transpose()
}

fn proof(chunk: &wire::Chunk) -> Result<ProofParts, Rejection> {
    if !(chunk.leading.is_empty() && chunk.pages.is_empty() && chunk.trailing.is_empty()) {
        return Err(Rejection::invalid(
            "chunk",
            "leaves where proofs were asked",
        ));
    }
    range(chunk, FEED_MAX_LEAVES)?;
    Ok(ProofParts {
        from: chunk.from,
        to: chunk.to,
        before: hashes(&chunk.before, "range before")?,
        range: hashes(&chunk.range, "range")?,
        after: hashes(&chunk.after, "range after")?,
    })
}

fn leaves(chunk: wire::Chunk) -> Result<ChunkParts, Rejection> {
    if !chunk.range.is_empty() {
        return Err(Rejection::invalid("chunk", "a range beside the leaves"));
    }
    range(&chunk, CHUNK_MAX_LEAVES)?;
    Ok(ChunkParts {
        from: chunk.from,
        to: chunk.to,
        before: hashes(&chunk.before, "range before")?,
        after: hashes(&chunk.after, "range after")?,
        leading: capped(chunk.leading, "leading leaves", CHUNK_PLAIN_MAX_BYTES)?,
        pages: each_capped(chunk.pages, "pages", PAGES_MAX, PAGE_WIRE_MAX_BYTES)?,
        trailing: capped(chunk.trailing, "trailing leaves", CHUNK_PLAIN_MAX_BYTES)?,
    })
}

fn range(chunk: &wire::Chunk, longest: u64) -> Result<(), Rejection> {
    let length = chunk.to.checked_sub(chunk.from);
    if length.is_none_or(|length| length > longest) || chunk.to > FEED_MAX_LEAVES {
        let why = format!("leaves {} to {}", chunk.from, chunk.to);
        return Err(Rejection::invalid("chunk", why));
    }
    Ok(())
}

impl From<PullPart> for wire::PullItem {
    fn from(part: PullPart) -> Self {
        let chunk = match part {
            PullPart::Chunk(chunk) => wire::Chunk {
                from: chunk.from,
                to: chunk.to,
                before: to_hashes(&chunk.before),
                after: to_hashes(&chunk.after),
                range: Vec::new(),
                leading: chunk.leading,
                pages: chunk.pages,
                trailing: chunk.trailing,
            },
            PullPart::Proof(proof) => wire::Chunk {
                from: proof.from,
                to: proof.to,
                before: to_hashes(&proof.before),
                range: to_hashes(&proof.range),
                after: to_hashes(&proof.after),
                ..wire::Chunk::default()
            },
        };
        Self {
            item: Some(wire::pull_item::Item::Chunk(chunk)),
        }
    }
}
