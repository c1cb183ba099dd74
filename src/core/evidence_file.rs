//! Evidence as a file: that somebody signed two things that cannot both be true, with
//! the roster chain and the cards that it takes to check that offline.
//!
//! The evidence itself is what nodes tell each other ([`crate::evidence`],
//! [`crate::equivocation`]). Trust: as there. A file that does not verify says
//! something about who made it and nothing about whom it names.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;

use crate::card::CardVersion;
use crate::equivocation::{DOCUMENT_EVIDENCE_MAX_BYTES, DocumentEvidence, Equivocation};
use crate::evidence::{Fork, ForkEvidence};
use crate::id::{CoalitionName, Digest, FeedId, MemberNumber, SetName, Slug};
use crate::keys::{Feed, PublicKey};
use crate::leaf::{self, DESCRIBE, Leaf, RawLeaf};
use crate::limits::{
    EVIDENCE_MAX_BYTES, LEAF_PAYLOAD_MAX_BYTES, PROOF_MAX_BYTES, PROOF_ROSTERS_MAX,
    ROSTER_MAX_BYTES,
};
use crate::proof::{Doubt, Known};
use crate::reject::Rejection;
use crate::roster::Roster;
use crate::sealed::{self, Form, Part};
use crate::verified::Verified;
use crate::wire;

const WHAT: &str = "evidence file";
const FORM: Form = Form {
    what: WHAT,
    begins: "hashpact evidence ",
    version: '1',
    max_bytes: PROOF_MAX_BYTES,
};

/// A file of evidence as it came, within its bounds, nothing verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidenceFile {
    /// The newest roster in it.
    pub roster_version: u64,
    /// Envelopes of the roster chain, from version 1 on.
    pub rosters: Vec<Bytes>,
    /// What it shows.
    pub evidence: Evidence,
}

/// What a file of evidence shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// Two heads of one feed.
    Fork {
        /// As nodes tell it, with the cards that name the keys.
        fork: ForkEvidence,
        /// The payload of leaf 0, where the maker shows whose feed it is.
        first_payload: Option<Bytes>,
    },
    /// Two rosters, or two node cards, of one version.
    Documents(DocumentEvidence),
}

/// What was proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guilt {
    /// The coalition.
    pub coalition: CoalitionName,
    /// The version of the newest roster in the file.
    pub roster_version: u64,
    /// Of what.
    pub proven: ProvenEvidence,
}

/// Who signed two things that cannot both be true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProvenEvidence {
    /// A member, two heads of a feed.
    Fork {
        /// Whose keys signed both.
        member: MemberNumber,
        /// Its slug.
        slug: Slug,
        /// The feed.
        feed: FeedId,
        /// The set, where leaf 0 was shown: then the feed is this member's by its id.
        set: Option<SetName>,
        /// The two heads.
        fork: Box<Fork>,
        /// As of [`Self::NodeCards`], where such a key signed a card that the keys are of.
        replaced_in: Option<u64>,
        /// What rosters in the file say of either head: whoever found a revoked feed key
        /// could have made one, or both.
        doubt: Doubt,
    },
    /// A member, two node cards.
    NodeCards {
        /// The member.
        member: MemberNumber,
        /// Its slug.
        slug: Slug,
        /// The version of both.
        version: u64,
        /// The roster that replaced the identity key which signed: whoever found the old
        /// key could have made this.
        replaced_in: Option<u64>,
    },
    /// A threshold of administrators, two rosters.
    Rosters {
        /// The version of both.
        version: u64,
    },
}

impl EvidenceFile {
    /// Writes the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        FORM.seal(&self.to_wire().encode_to_vec())
    }

    /// Reads a file, and checks that every part is within its bound.
    ///
    /// # Errors
    /// [`Rejection::TooLarge`] before anything is decoded; [`Rejection::Malformed`] for
    /// damage and for another spelling; [`Rejection::Invalid`] for another version, or
    /// for none or both of the kinds.
    pub fn decode(file: &Bytes) -> Result<Self, Rejection> {
        Self::from_body(&FORM.open(file)?)
    }

    pub(crate) fn from_body(body: &Bytes) -> Result<Self, Rejection> {
        const PARTS: [Part; 5] = [
            Part::new(1, "roster version", 1, 0),
            Part::new(2, "roster", PROOF_ROSTERS_MAX, ROSTER_MAX_BYTES),
            Part::new(3, "fork evidence", 1, EVIDENCE_MAX_BYTES),
            Part::new(4, "leaf payload", 1, LEAF_PAYLOAD_MAX_BYTES),
            Part::new(5, "document evidence", 1, DOCUMENT_EVIDENCE_MAX_BYTES),
        ];
        sealed::check_parts(WHAT, body, &PARTS)?;
        let message = wire::EvidenceFile::decode(body.clone())
            .map_err(|_| Rejection::malformed(WHAT, "no protobuf message"))?;
        sealed::check_spelling(WHAT, &message, body)?;
        let payload = Some(message.first_payload).filter(|payload| !payload.is_empty());
        let evidence = match (message.fork.is_empty(), message.documents.is_empty()) {
            (false, true) => Evidence::Fork {
                fork: fork(&message.fork)?,
                first_payload: payload,
            },
            (true, false) if payload.is_none() => {
                Evidence::Documents(documents(&message.documents)?)
            }
            (true, false) => return Err(invalid("documents are of no feed")),
            (true, true) | (false, false) => {
                return Err(invalid("it has to show exactly one thing"));
            }
        };
        Ok(Self {
            roster_version: message.roster_version,
            rosters: message.rosters,
            evidence,
        })
    }

    pub(crate) fn to_wire(&self) -> wire::EvidenceFile {
        let (fork, first_payload, documents) = match &self.evidence {
            Evidence::Fork {
                fork,
                first_payload,
            } => (fork.encode(), first_payload.clone(), Vec::new()),
            Evidence::Documents(documents) => (Vec::new(), None, documents.encode()),
        };
        wire::EvidenceFile {
            roster_version: self.roster_version,
            rosters: self.rosters.clone(),
            fork: fork.into(),
            first_payload: first_payload.unwrap_or_default(),
            documents: documents.into(),
        }
    }

    /// Verifies the evidence. `genesis` is what somebody trusted told.
    ///
    /// # Errors
    /// What is wrong with the first part that is: of the roster chain as
    /// [`crate::roster::RosterChain::restore`], of cards as [`crate::card::verify`], of
    /// the evidence as [`ForkEvidence::verify`] and [`DocumentEvidence::verify`].
    pub fn verify(&self, genesis: &Digest) -> Result<Verified<Guilt>, Rejection> {
        let cards: &[Bytes] = match &self.evidence {
            Evidence::Fork { fork, .. } => &fork.node_cards,
            Evidence::Documents(_) => &[],
        };
        let known = Known::read(genesis, &self.rosters, cards)?;
        let roster = known.chain.roster();
        if roster.version != self.roster_version {
            return Err(invalid("its rosters do not end where it says"));
        }
        let proven = match &self.evidence {
            Evidence::Fork {
                fork,
                first_payload,
            } => forked(&known, fork, first_payload.as_ref())?,
            Evidence::Documents(documents) => match documents.verify(&known.chain)?.into_inner() {
                Equivocation::Roster { version } => ProvenEvidence::Rosters { version },
                Equivocation::NodeCard {
                    member,
                    version,
                    replaced_in,
                } => ProvenEvidence::NodeCards {
                    slug: slug(roster, member)?,
                    member,
                    version,
                    replaced_in,
                },
            },
        };
        Ok(Verified::new(Guilt {
            coalition: roster.coalition.clone(),
            roster_version: roster.version,
            proven,
        }))
    }
}

/// Evidence of a fork, in the one spelling.
fn fork(bytes: &Bytes) -> Result<ForkEvidence, Rejection> {
    let fork = ForkEvidence::decode(bytes)?;
    if fork.encode() == bytes[..] {
        Ok(fork)
    } else {
        Err(Rejection::malformed(
            WHAT,
            "it is not spelled as it should be",
        ))
    }
}

/// Evidence of two documents, in the one spelling.
fn documents(bytes: &Bytes) -> Result<DocumentEvidence, Rejection> {
    let documents = DocumentEvidence::decode(bytes)?;
    if documents.encode() == bytes[..] {
        Ok(documents)
    } else {
        Err(Rejection::malformed(
            WHAT,
            "it is not spelled as it should be",
        ))
    }
}

/// Checks two heads by the cards in the file, which are all of one member.
fn forked(
    known: &Known,
    evidence: &ForkEvidence,
    first_payload: Option<&Bytes>,
) -> Result<ProvenEvidence, Rejection> {
    let roster = known.chain.roster();
    let members: BTreeSet<MemberNumber> = known.cards.all().map(|card| card.member()).collect();
    let (Some(member), 1) = (members.first().copied(), members.len()) else {
        return Err(invalid("its node cards are not of one member"));
    };
    let slug = slug(roster, member)?;
    let set = first_payload
        .map(|payload| set_of(known, evidence.feed, &slug, payload))
        .transpose()?;
    let keys = |epoch| match &set {
        Some(name) => {
            let cards = &known.cards;
            cards.feed_keys(member, &name.set, evidence.feed, epoch, roster)
        }
        // Which set it is of is not shown, so which keys may sign it is not known.
        None => all_keys(known, |key| !roster.is_revoked(evidence.feed, key, epoch)),
    };
    let closed_at = |epoch| {
        let closing = roster.closing(evidence.feed, epoch);
        closing.map(|closing| closing.last_good_size)
    };
    let fork = evidence.verify(&roster.coalition, keys, closed_at)?;
    check_cards_are_needed(known, &fork)?;
    // PROTOCOL 14.15: which keys could sign in it nobody said.
    let (open, got) = (
        roster.epoch(evidence.feed),
        fork.larger.checkpoint.origin.epoch,
    );
    if got > open {
        return Err(Rejection::WrongEpoch { open, got });
    }
    let of = |head| known.doubt(evidence.feed, head);
    Ok(ProvenEvidence::Fork {
        member,
        slug,
        feed: evidence.feed,
        set,
        doubt: of(&fork.smaller).or(of(&fork.larger)),
        fork: Box::new(fork.into_inner()),
        replaced_in: known
            .cards
            .all()
            .filter_map(|card| known.replaced_in(card))
            .max(),
    })
}

/// The name that leaf 0 gives, once it gives the feed's id as well.
fn set_of(known: &Known, feed: FeedId, slug: &Slug, payload: &Bytes) -> Result<SetName, Rejection> {
    let (_, genesis) = known.publisher(feed, slug, payload)?;
    match leaf::read(&RawLeaf::new(DESCRIBE, payload.clone()), 0) {
        Leaf::Describe(describe) => {
            describe.check_belongs(&genesis, slug)?;
            Ok(describe.name)
        }
        Leaf::Publish(_)
        | Leaf::Retract(_)
        | Leaf::Opinion(_)
        | Leaf::Erase(_)
        | Leaf::Unknown(_)
        | Leaf::Void(_)
        | Leaf::Elided => Err(Rejection::WrongFirstLeaf { feed }),
    }
}

fn all_keys(known: &Known, allowed: impl Fn(&PublicKey<Feed>) -> bool) -> Vec<PublicKey<Feed>> {
    let keys = known.cards.all().flat_map(|card| feed_keys(card));
    let keys: BTreeSet<PublicKey<Feed>> = keys.filter(allowed).collect();
    keys.into_iter().collect()
}

fn feed_keys(card: &CardVersion) -> impl Iterator<Item = PublicKey<Feed>> {
    let nodes = card.card().nodes.iter();
    nodes.flat_map(|node| node.feed_keys.iter().map(|named| named.key))
}

/// Each card names one of the two keys, which no card before it names.
fn check_cards_are_needed(known: &Known, fork: &Fork) -> Result<(), Rejection> {
    let mut open = BTreeSet::from([fork.smaller.key, fork.larger.key]);
    for card in known.cards.all() {
        let before = open.len();
        for key in feed_keys(card) {
            open.remove(&key);
        }
        if open.len() == before {
            return Err(invalid("a node card that it does not need"));
        }
    }
    Ok(())
}

fn slug(roster: &Roster, member: MemberNumber) -> Result<Slug, Rejection> {
    let found = roster.member(member);
    found
        .map(|m| m.slug.clone())
        .ok_or_else(|| Rejection::Unknown {
            what: "member",
            why: format!("no member has number {member}"),
        })
}

fn invalid(why: &str) -> Rejection {
    Rejection::invalid(WHAT, why)
}

#[cfg(test)]
#[path = "evidence_file_tests.rs"]
pub(crate) mod tests;
