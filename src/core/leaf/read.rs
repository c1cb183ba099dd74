//! Reading: every leaf has a meaning, if only that it is void.

use super::{DESCRIBE, Describe, ERASE, Erase, LeafBody, OPINION, Opinion, PUBLISH, Publish};
use super::{RETRACT, RawLeaf, Retract};
use crate::reject::Rejection;

/// What a leaf says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaf {
    /// What the feed is.
    Describe(Box<Describe>),
    /// One version of one entry.
    Publish(Box<Publish>),
    /// Entries withdrawn.
    Retract(Box<Retract>),
    /// A view of an entry.
    Opinion(Box<Opinion>),
    /// Entries withdrawn whose payloads are to be dropped.
    Erase(Box<Erase>),
    /// A kind that this version does not know: kept, relayed and counted.
    Unknown(u8),
    /// It breaks a rule, and says nothing; kept, relayed and counted.
    Void(Rejection),
    /// Only the record is held.
    Elided,
}

/// Reads the leaf at `index`. Never fails: one that breaks a rule is void.
/// Protobuf fields that this version does not know are ignored.
#[must_use]
pub fn read(leaf: &RawLeaf, index: u64) -> Leaf {
    let payload = match &leaf.body {
        LeafBody::Payload(payload) => payload,
        LeafBody::Elided(_) => return Leaf::Elided,
    };
    let read = match leaf.kind {
        DESCRIBE => Describe::read(payload).map(|d| Leaf::Describe(d.into())),
        PUBLISH => Publish::read(payload, index).map(|p| Leaf::Publish(p.into())),
        RETRACT => Retract::read(payload, index).map(|r| Leaf::Retract(r.into())),
        OPINION => Opinion::read(payload, index).map(|o| Leaf::Opinion(o.into())),
        ERASE => Erase::read(payload, index).map(|e| Leaf::Erase(e.into())),
        unknown => Ok(Leaf::Unknown(unknown)),
    };
    read.unwrap_or_else(Leaf::Void)
}
