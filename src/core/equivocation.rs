//! Two documents of one version: the portable proof that administrators approved two
//! rosters, or that a member signed two node cards.
//!
//! Evidence is the two envelopes as they came. Whoever has the roster chain up to the
//! version before checks it offline: each of the two would have been accepted by
//! itself, and their payloads differ. More signatures make no other document.

use bytes::Bytes;
use prost::Message as _;

use crate::card;
use crate::envelope::{Envelope, PayloadType};
use crate::id::MemberNumber;
use crate::limits::{CARD_MAX_BYTES, ROSTER_MAX_BYTES};
use crate::reject::Rejection;
use crate::roster::RosterChain;
use crate::verified::Verified;
use crate::wire;

const WHAT: &str = "document evidence";
/// The longest encoding: two rosters, with their tags and lengths.
pub const DOCUMENT_EVIDENCE_MAX_BYTES: usize = 2 * (ROSTER_MAX_BYTES + 8);

/// Two envelopes, nothing verified. Ordered by their digests, so that one pair has
/// one encoding whoever met which first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentEvidence {
    first: Envelope,
    second: Envelope,
}

/// Who signed two documents of one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Equivocation {
    /// A threshold of administrators, two rosters.
    Roster {
        /// The version.
        version: u64,
    },
    /// A member, two node cards.
    NodeCard {
        /// The member.
        member: MemberNumber,
        /// The version.
        version: u64,
        /// The roster that replaced the identity key which signed both. ⚠ Whoever finds
        /// a key that was replaced can make such a pair: it blames nobody.
        replaced_in: Option<u64>,
    },
}

impl DocumentEvidence {
    /// Takes a pair as it was met.
    #[must_use]
    pub fn new(one: Envelope, other: Envelope) -> Self {
        let (first, second) = if one.payload_digest() <= other.payload_digest() {
            (one, other)
        } else {
            (other, one)
        };
        Self { first, second }
    }

    /// Encodes the evidence, to be sent to anybody.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let message = wire::DocumentEvidence {
            first: self.first.as_bytes().clone(),
            second: self.second.as_bytes().clone(),
        };
        message.encode_to_vec()
    }

    /// Reads evidence: two rosters or two node cards, each within its bound.
    ///
    /// # Errors
    /// [`Rejection::TooLarge`] before anything is decoded, or for a part;
    /// [`Rejection::Malformed`]; [`Rejection::Invalid`] for two kinds, other kinds,
    /// or the wrong order.
    pub fn decode(bytes: &Bytes) -> Result<Self, Rejection> {
        Rejection::cap(WHAT, bytes.len(), DOCUMENT_EVIDENCE_MAX_BYTES)?;
        let message = wire::DocumentEvidence::decode(bytes.clone())
            .map_err(|_| Rejection::malformed(WHAT, "no protobuf message"))?;
        // A card is told from a roster by its size first: what is larger is none.
        let longest = message.first.len().max(message.second.len());
        let cards = |bytes: &Bytes| Envelope::decode(bytes.clone(), PayloadType::NodeCard);
        let rosters = |bytes: &Bytes| Envelope::decode(bytes.clone(), PayloadType::Roster);
        let (first, second) = match (longest <= CARD_MAX_BYTES).then(|| cards(&message.first)) {
            Some(Ok(first)) => (first, cards(&message.second)?),
            Some(Err(_)) | None => (rosters(&message.first)?, rosters(&message.second)?),
        };
        if first.payload_digest() >= second.payload_digest() {
            return Err(invalid("the two are one, or in the wrong order"));
        }
        Ok(Self { first, second })
    }

    /// Checks the evidence against a roster chain.
    ///
    /// # Errors
    /// [`Rejection::Unknown`] without the roster that both follow; what is wrong with
    /// either document; [`Rejection::Invalid`] when they are not of one version and
    /// signer.
    pub fn verify(&self, chain: &RosterChain) -> Result<Verified<Equivocation>, Rejection> {
        if self.first.payload_digest() == self.second.payload_digest() {
            return Err(invalid("the two have one payload"));
        }
        let proven = match self.first.kind() {
            PayloadType::NodeCard => self.two_cards(chain)?,
            PayloadType::Roster => self.two_rosters(chain)?,
            PayloadType::EnrolmentRequest | PayloadType::Suspension | PayloadType::Receipt => {
                return Err(invalid("neither rosters nor node cards"));
            }
        };
        Ok(Verified::new(proven))
    }

    fn two_rosters(&self, chain: &RosterChain) -> Result<Equivocation, Rejection> {
        let first = chain.check_in_place(self.first.clone())?;
        let second = chain.check_in_place(self.second.clone())?;
        if first != second {
            return Err(invalid("the rosters are of two versions"));
        }
        Ok(Equivocation::Roster { version: first })
    }

    fn two_cards(&self, chain: &RosterChain) -> Result<Equivocation, Rejection> {
        let first = card::verify(self.first.clone(), chain)?;
        let second = card::verify(self.second.clone(), chain)?;
        let of = |card: &card::CardVersion| (card.member(), *card.signer(), card.card().version);
        if of(&first) != of(&second) {
            return Err(invalid(
                "the cards are of two versions, members or identity keys",
            ));
        }
        Ok(Equivocation::NodeCard {
            member: first.member(),
            version: first.card().version,
            replaced_in: chain.replaced_in(first.member(), first.signer()),
        })
    }
}

impl Equivocation {
    /// A stable short name of what it is about, under which one piece is kept: another
    /// for a member's present identity key than for those that were replaced.
    #[must_use]
    pub fn subject(&self) -> Vec<u8> {
        match self {
            Self::Roster { version } => [&b"r"[..], &version.to_be_bytes()].concat(),
            Self::NodeCard {
                member,
                replaced_in,
                ..
            } => {
                let sort = if replaced_in.is_some() { b"f" } else { b"c" };
                [&sort[..], &member.value().to_be_bytes()].concat()
            }
        }
    }

    /// Whether it is about nobody any more: an identity key that was replaced signed it.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        match self {
            Self::Roster { .. } => false,
            Self::NodeCard { replaced_in, .. } => replaced_in.is_some(),
        }
    }
}

fn invalid(why: &str) -> Rejection {
    Rejection::invalid(WHAT, why)
}

#[cfg(test)]
#[path = "equivocation_tests.rs"]
mod tests;
