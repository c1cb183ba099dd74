//! Node cards: what a member itself signs about its nodes.
//!
//! A [`NodeCard`] is the content; [`verify`] checks what needs no clock and no
//! other card: the identity key's signature, every key's proof of possession, and
//! that it fits the roster. A [`CardBook`] is the cards that this node accepted.
//!
//! Trust: a member is trusted for which keys are its own, and each key says so
//! itself. Nobody can put another's key on a card.

mod book;
mod endpoint;
mod read;

use bytes::Bytes;

use crate::envelope::{Envelope, EnvelopeDraft, PayloadType};
use crate::id::{Digest, MemberNumber, Slug, UnixMillis};
use crate::keys::{Feed, Identity, PublicKey, Receipt, Witness};
use crate::reject::Rejection;

pub use book::{CardAccepted, CardBook, CardEvidence, CardState, KeyOwner};
pub use endpoint::{Endpoint, EndpointPolicy, Host};
pub(crate) use read::check_possession;
use read::keys_of;
pub use read::verify;

/// What a member says about its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCard {
    /// The coalition, by the digest of its first roster.
    pub genesis: Digest,
    /// `None` until the roster gives a number; then the slug alone says who.
    pub member: Option<MemberNumber>,
    /// The member's slug.
    pub slug: Slug,
    /// From 1, increasing; gaps are allowed.
    pub version: u64,
    /// When it was made.
    pub issued: UnixMillis,
    /// When it ends, at most 400 days later.
    pub expires: UnixMillis,
    /// The member's nodes, at least one.
    pub nodes: Vec<Node>,
    /// Who answers around the clock.
    pub contact: Contact,
}

/// One node on a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Unique on the card.
    pub name: Slug,
    /// Where it can be dialled; none where it only dials.
    pub endpoints: Vec<Endpoint>,
    /// SHA-256 of the `SubjectPublicKeyInfo` of its 1 to 4 TLS keys.
    pub tls_keys: Vec<Digest>,
    /// Keys that sign its feeds' checkpoints.
    pub feed_keys: Vec<FeedKey>,
    /// Keys that cosign.
    pub witness_keys: Vec<PublicKey<Witness>>,
    /// Keys that sign receipts.
    pub receipt_keys: Vec<PublicKey<Receipt>>,
}

/// A feed key and what it may sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedKey {
    /// The key.
    pub key: PublicKey<Feed>,
    /// The sets whose feeds it signs.
    pub sets: SetScope,
}

/// Which of a member's sets a key may sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetScope {
    /// All of them; `*` on the wire.
    All,
    /// These.
    Only(Vec<Slug>),
}

impl SetScope {
    /// Whether `set` is one of them.
    #[must_use]
    pub fn covers(&self, set: &Slug) -> bool {
        match self {
            Self::All => true,
            Self::Only(sets) => sets.contains(set),
        }
    }
}

/// Who answers around the clock: a name, and an address or a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// A person or a desk.
    pub name: String,
    /// May be empty where there is a phone number.
    pub email: String,
    /// May be empty where there is an address.
    pub phone: String,
}

impl NodeCard {
    /// Finds a node by its name.
    #[must_use]
    pub fn node(&self, name: &Slug) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// The keys that the member's cosignatures count by: those of the first node on the
    /// card that has any.
    ///
    /// ⚠ PROTOCOL 11.15a: each node keeps a record of its own. Two of them could be
    /// shown two histories, and an honest member would stand on both sides.
    #[must_use]
    pub fn witness_keys(&self) -> &[PublicKey<Witness>] {
        let mut nodes = self.nodes.iter().map(|node| node.witness_keys.as_slice());
        nodes.find(|keys| !keys.is_empty()).unwrap_or_default()
    }

    /// Encodes the card, once, to be signed by the identity key and by every key
    /// on it.
    ///
    /// # Errors
    /// What breaks a rule, as [`NodeCard::read`].
    pub fn to_envelope(&self) -> Result<EnvelopeDraft, Rejection> {
        Ok(EnvelopeDraft::new(PayloadType::NodeCard, self.encode()?))
    }
}

/// A card whose signature and proofs of possession were checked, with the envelope
/// it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardVersion {
    card: NodeCard,
    envelope: Envelope,
    digest: Digest,
    member: MemberNumber,
    signer: PublicKey<Identity>,
}

impl CardVersion {
    /// The card.
    #[must_use]
    pub const fn card(&self) -> &NodeCard {
        &self.card
    }

    /// The member, by the roster.
    #[must_use]
    pub const fn member(&self) -> MemberNumber {
        self.member
    }

    /// The identity key that signed it, the member's present one or a former one.
    #[must_use]
    pub const fn signer(&self) -> &PublicKey<Identity> {
        &self.signer
    }

    /// The envelope's bytes as received, which are stored and relayed.
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        self.envelope.as_bytes()
    }

    /// The SHA-256 of the payload.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }
}

#[cfg(test)]
pub(crate) mod tests;
