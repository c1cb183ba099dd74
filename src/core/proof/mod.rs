//! Proofs: that a member published an entry, and at which head it stood.
//!
//! A proof is a file that anybody verifies offline by the genesis digest alone: the
//! roster chain says who the members are, a node card whose key signed, the head what
//! the feed held, RFC 6962 proofs that the entry's leaf was among it, and leaf 0 whose
//! feed it is. Cosignatures stand beside the head.
//!
//! Owns: the file, and what it shows. Does not own: where its parts come from.
//!
//! Trust: nothing in a proof is trusted, who made it neither. It shows that something
//! was said, never that nothing else was: a maker can leave out a leaf that withdrew
//! the entry, a cosignature, or a newer roster. What is shown says which. The time of a
//! cosignature is its witness's word, and decides nothing.

mod verify;

use bytes::Bytes;
use prost::Message as _;

use crate::checkpoint::SignedCheckpoint;
use crate::id::{CoalitionName, Digest, EntryName, FeedId, MemberNumber, Slug, UnixMillis};
use crate::keys::{PublicKey, Witness};
use crate::leaf::{Publish, RawLeaf, RetractReason};
use crate::limits::{
    CARD_MAX_BYTES, COSIGNATURES_MAX, LEAF_PAYLOAD_MAX_BYTES, NOTE_MAX_BYTES, PROOF_MAX_BYTES,
    PROOF_NAMED_BY_MAX, PROOF_ROSTERS_MAX, ROSTER_MAX_BYTES,
};
use crate::page;
use crate::reject::Rejection;
use crate::roster::{MemberStatus, bytes_of};
use crate::sealed::{self, Form, Part};
use crate::wire;
use crate::witness::judge;

pub(crate) use verify::Known;

const WHAT: &str = "proof";
const FORM: Form = Form {
    what: WHAT,
    begins: "hashpact proof ",
    version: '1',
    max_bytes: PROOF_MAX_BYTES,
};
/// A path in the largest feed, 2^40 leaves, with room.
const INCLUSION_MAX_HASHES: usize = 64;
/// Kind and length before a payload.
const PLAIN_MAX_BYTES: usize = LEAF_PAYLOAD_MAX_BYTES + 3;
/// Its index, its plain form, its path, and their framing.
const LEAF_MAX_BYTES: usize = PLAIN_MAX_BYTES + INCLUSION_MAX_HASHES * 34 + 32;
/// Longer than any cosignature line.
const COSIGNATURE_MAX_BYTES: usize = 512;
/// Leaf 0, the describe leaf, the entry, and what names it.
const LEAVES_MAX: usize = 3 + PROOF_NAMED_BY_MAX;

/// A proof as it came, within its bounds, nothing verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The feed.
    pub feed: FeedId,
    /// The leaf that it is about.
    pub index: u64,
    /// The newest roster in it.
    pub roster_version: u64,
    /// Envelopes of the roster chain, from version 1 on.
    pub rosters: Vec<Bytes>,
    /// Envelopes of the node cards that name the keys.
    pub node_cards: Vec<Bytes>,
    /// The signed head.
    pub note: Bytes,
    /// Cosignature lines over it.
    pub cosignatures: Vec<Bytes>,
    /// The describe leaf that says what the feed is called.
    pub describe_index: u64,
    /// Leaves that withdraw or replace the entry's version, ascending.
    pub named_by: Vec<u64>,
    /// Leaf 0 and all the leaves named above, ascending.
    pub leaves: Vec<ProofLeaf>,
}

/// A leaf with the path from it to the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofLeaf {
    /// Its index.
    pub index: u64,
    /// The leaf.
    pub leaf: RawLeaf,
    /// The RFC 6962 inclusion proof.
    pub inclusion: Vec<Digest>,
}

/// What a proof shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The coalition.
    pub coalition: CoalitionName,
    /// The roster that it was judged by.
    pub roster: RosterShown,
    /// Who published the entry.
    pub publisher: Publisher,
    /// The entry's name, by the describe leaf shown.
    pub entry: EntryName,
    /// The set's title, by that leaf.
    pub title: String,
    /// The scheme of classifications that name none, by that leaf.
    pub scheme: Option<Slug>,
    /// The feed.
    pub feed: FeedId,
    /// The leaf that is proved.
    pub index: u64,
    /// What it says; none where its payload is gone and only its record is shown.
    pub said: Option<Publish>,
    /// The digest of its payload.
    pub payload: Digest,
    /// The head below which it stood.
    pub head: SignedCheckpoint,
    /// What rosters in the proof say of that head.
    pub doubt: Doubt,
    /// What the leaves shown make of the entry's version.
    pub state: Shown,
    /// The leaves that withdraw or replace it, oldest first.
    pub named_by: Vec<Naming>,
    /// Who cosigned the head.
    pub cosigned: Vec<CosignedBy>,
    /// Whether they are enough.
    pub quorum: Quorum,
}

/// The roster that a proof was judged by: the newest in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RosterShown {
    /// Its version.
    pub version: u64,
    /// When it was made.
    pub issued: UnixMillis,
    /// When it ends.
    pub expires: UnixMillis,
}

/// Who published, by the roster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    /// The member's number.
    pub number: MemberNumber,
    /// Its slug.
    pub slug: Slug,
    /// Its name for people.
    pub display_name: String,
    /// Whether it takes part.
    pub status: MemberStatus,
    /// The node whose key signed the head.
    pub node: Slug,
    /// The version of the card that says so.
    pub card_version: u64,
    /// The roster that replaced the identity key which signed that card: whoever found
    /// the old key could have made the card since.
    pub replaced_in: Option<u64>,
}

/// What rosters in a file say of a head in it that verifies: that is below the last good
/// size of its epoch, so nothing says that it is void. Nothing of the very head with which
/// the epoch was closed, for which administrators vouch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Doubt {
    /// The roster that closed the head's epoch: nothing shows that the head is of the
    /// history that went on.
    pub epoch_closed_in: Option<u64>,
    /// The first roster that revoked the key which signed the head, for its feed: whoever
    /// found the key could have made the head since.
    pub key_revoked_in: Option<u64>,
}

impl Doubt {
    /// What is said of either of two heads.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let first = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        Self {
            epoch_closed_in: first(self.epoch_closed_in, other.epoch_closed_in),
            key_revoked_in: first(self.key_revoked_in, other.key_revoked_in),
        }
    }
}

/// What the leaves in a proof make of an entry's version. None of them says that
/// nothing else below the head speaks of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shown {
    /// Nothing in the proof withdraws or replaces it.
    Published,
    /// A later version of the entry replaces it.
    Replaced,
    /// It was withdrawn.
    Retracted,
    /// It was withdrawn, and its content is to be dropped.
    Erased,
}

impl Shown {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Replaced => "replaced",
            Self::Retracted => "retracted",
            Self::Erased => "erased",
        }
    }
}

/// A leaf that speaks of the entry's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// Its index.
    pub index: u64,
    /// When, by the publisher's clock.
    pub at: UnixMillis,
    /// What it does.
    pub how: How,
}

/// What a leaf does to the entry's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// It is a later version.
    Replaces,
    /// It withdraws it.
    Retracts {
        /// Why.
        reason: RetractReason,
        /// In words.
        note: String,
        /// Whether receivers are to recheck what they did.
        recheck: bool,
        /// Whether the publisher's identity key signed it as well.
        identity_signed: bool,
    },
    /// It withdraws it, and its content is to be dropped.
    Erases {
        /// The law that it rests on.
        legal_basis: String,
    },
}

/// A witness that cosigned the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CosignedBy {
    /// The witness.
    pub member: MemberNumber,
    /// Its slug.
    pub slug: Slug,
    /// Its key.
    pub key: PublicKey<Witness>,
    /// Seconds since 1970-01-01T00:00:00Z, by its own word: nothing here binds it.
    pub time_s: u64,
    /// The roster that replaced the identity key which signed the card with its key: as
    /// of [`Publisher`].
    pub replaced_in: Option<u64>,
    /// Whether it is a witness of this feed by the newest roster in the proof, with a key
    /// of its present identity: never the publisher, nor who left since.
    pub counts: bool,
}

/// Whether enough witnesses cosigned, by the newest roster in the proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    /// The roster whose witnesses count: the newest in the proof.
    pub roster_version: u64,
    /// Its witnesses, without the publisher.
    pub witnesses: usize,
    /// Of these, how many cosigned.
    pub cosigned: usize,
    /// How many it takes, as nodes judge it; 0 where there are no witnesses.
    pub threshold: usize,
}

impl Quorum {
    /// Whether there are witnesses, and enough of them cosigned.
    #[must_use]
    pub const fn is_reached(&self) -> bool {
        self.threshold > 0 && self.cosigned >= self.threshold
    }

    /// Whether so many cannot stand behind two histories: see [`judge::prevents`].
    #[must_use]
    pub fn prevents(&self) -> bool {
        judge::prevents(self.witnesses, self.threshold)
    }
}

impl Proof {
    /// Writes the file.
    ///
    /// # Errors
    /// [`Rejection::TooLarge`] for a payload over its limit.
    pub fn encode(&self) -> Result<Vec<u8>, Rejection> {
        Ok(FORM.seal(&self.to_wire()?.encode_to_vec()))
    }

    /// Reads a file, and checks that every part is within its bound.
    ///
    /// # Errors
    /// [`Rejection::TooLarge`] before anything is decoded; [`Rejection::Malformed`] for
    /// damage and for another spelling; [`Rejection::Invalid`] for another version.
    pub fn decode(file: &Bytes) -> Result<Self, Rejection> {
        Self::from_body(&FORM.open(file)?)
    }

    /// Reads what is between the first line and the digest.
    pub(crate) fn from_body(body: &Bytes) -> Result<Self, Rejection> {
        const PARTS: [Part; 10] = [
            Part::new(1, "feed id", 1, 32),
            Part::new(2, "index", 1, 0),
            Part::new(3, "roster version", 1, 0),
            Part::new(4, "roster", PROOF_ROSTERS_MAX, ROSTER_MAX_BYTES),
            Part::new(5, "node card", COSIGNATURES_MAX + 1, CARD_MAX_BYTES),
            Part::new(6, "note", 1, NOTE_MAX_BYTES),
            Part::new(7, "cosignature", COSIGNATURES_MAX, COSIGNATURE_MAX_BYTES),
            Part::new(8, "describe index", 1, 0),
            Part::new(9, "indexes", 1, 10 * PROOF_NAMED_BY_MAX),
            Part::new(10, "leaf of a proof", LEAVES_MAX, LEAF_MAX_BYTES),
        ];
        sealed::check_parts(WHAT, body, &PARTS)?;
        let message = wire::Proof::decode(body.clone())
            .map_err(|_| Rejection::malformed(WHAT, "no protobuf message"))?;
        sealed::check_spelling(WHAT, &message, body)?;
        let named_by = message.named_by;
        Rejection::cap("indexes", named_by.len(), PROOF_NAMED_BY_MAX)?;
        let leaves = message.leaves.into_iter().map(ProofLeaf::read);
        Ok(Self {
            feed: FeedId(digest(&message.feed_id)?),
            index: message.index,
            roster_version: message.roster_version,
            rosters: message.rosters,
            node_cards: message.node_cards,
            note: message.note,
            cosignatures: message.cosignatures,
            describe_index: message.describe_index,
            named_by,
            leaves: leaves.collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn to_wire(&self) -> Result<wire::Proof, Rejection> {
        let leaves = self.leaves.iter().map(ProofLeaf::to_wire);
        Ok(wire::Proof {
            feed_id: bytes_of(self.feed.0),
            index: self.index,
            roster_version: self.roster_version,
            rosters: self.rosters.clone(),
            node_cards: self.node_cards.clone(),
            note: self.note.clone(),
            cosignatures: self.cosignatures.clone(),
            describe_index: self.describe_index,
            named_by: self.named_by.clone(),
            leaves: leaves.collect::<Result<_, _>>()?,
        })
    }

    /// The indexes of the leaves that belong in the proof, ascending.
    #[must_use]
    pub fn wanted(index: u64, describe_index: u64, named_by: &[u64]) -> Vec<u64> {
        let mut wanted = vec![0, describe_index, index];
        wanted.extend_from_slice(named_by);
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }
}

impl ProofLeaf {
    fn read(message: wire::ProofLeaf) -> Result<Self, Rejection> {
        Rejection::cap("leaf", message.plain.len(), PLAIN_MAX_BYTES)?;
        Rejection::cap(
            "inclusion proof",
            message.inclusion.len(),
            INCLUSION_MAX_HASHES,
        )?;
        let leaf = page::decode_leaf(&message.plain)?;
        Ok(Self {
            index: message.index,
            leaf,
            inclusion: message
                .inclusion
                .iter()
                .map(digest)
                .collect::<Result<_, _>>()?,
        })
    }

    fn to_wire(&self) -> Result<wire::ProofLeaf, Rejection> {
        Ok(wire::ProofLeaf {
            index: self.index,
            plain: page::encode_plain(std::slice::from_ref(&self.leaf))?,
            inclusion: self.inclusion.iter().copied().map(bytes_of).collect(),
        })
    }
}

fn digest(bytes: &Bytes) -> Result<Digest, Rejection> {
    Digest::from_slice(bytes).map_err(|error| Rejection::malformed(WHAT, error.to_string()))
}

#[cfg(test)]
pub(crate) mod tests;
