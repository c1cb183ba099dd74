//! Enrolment requests: a newcomer's public keys, each with its proof.
//!
//! A request carries the first node card, so all that an administrator needs in
//! order to admit, and that every node needs in order to let the newcomer in. It
//! proves that one party holds all the keys, not who that is: administrators
//! compare its fingerprint over another channel.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use prost::Message as _;

use crate::card::{CardBook, NodeCard, check_possession};
use crate::envelope::{Envelope, EnvelopeDraft, PayloadType};
use crate::id::{Digest, Slug, UnixMillis};
use crate::keys::{Identity, PublicKey};
use crate::limits::{CLOCK_SKEW_MS, NAME_MAX_BYTES};
use crate::reject::Rejection;
use crate::roster::{
    MemberStatus, NewMember, Role, RosterChain, bytes_of, read_roles, write_roles,
};
use crate::{text, wire};

/// What a newcomer says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolmentRequest {
    /// The coalition, by the digest of its first roster.
    pub genesis: Digest,
    /// The slug that it asks for.
    pub slug: Slug,
    /// For people.
    pub display_name: String,
    /// For people, such as "platform" or "hotline".
    pub organisation_kind: String,
    /// What it asks to do, in ascending order.
    pub roles: Vec<Role>,
    /// Its identity key; signs the request and the card.
    pub identity: PublicKey<Identity>,
    /// When it was made.
    pub created: UnixMillis,
    /// Its first node card, signed by the identity key and every key on it. It has
    /// no member number: the slug says whose it is once the roster lists that.
    pub card: Envelope,
}

/// A request whose signature and proofs of possession were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRequest {
    request: EnrolmentRequest,
    card: NodeCard,
    envelope: Envelope,
}

impl EnrolmentRequest {
    /// Encodes the request, once, to be signed by the identity key.
    ///
    /// # Errors
    /// [`Rejection::Invalid`] or [`Rejection::TooLarge`] for a broken rule.
    pub fn to_envelope(&self) -> Result<EnvelopeDraft, Rejection> {
        let message = wire::EnrolmentRequest {
            genesis_digest: bytes_of(self.genesis),
            slug: self.slug.to_string(),
            display_name: self.display_name.clone(),
            organisation_kind: self.organisation_kind.clone(),
            roles: write_roles(&self.roles),
            identity_key: Bytes::copy_from_slice(self.identity.as_bytes()),
            created_ms: self.created.0,
            node_card: self.card.as_bytes().clone(),
        };
        let payload = Bytes::from(message.encode_to_vec());
        read(&payload)?;
        Ok(EnvelopeDraft::new(PayloadType::EnrolmentRequest, payload))
    }
}

impl VerifiedRequest {
    /// Checks a request by itself: one party holds every key that it names. Whether
    /// the coalition can take it is [`check_against`](Self::check_against).
    ///
    /// # Errors
    /// [`Rejection::BadSignature`], [`Rejection::Invalid`], [`Rejection::Expired`]
    /// and others.
    pub fn verify(envelope: Envelope, now: UnixMillis) -> Result<Self, Rejection> {
        if envelope.kind() != PayloadType::EnrolmentRequest {
            return Err(invalid("this is no enrolment request"));
        }
        let request = read(envelope.payload())?;
        envelope.require_signature(request.identity)?;
        let card = NodeCard::read(request.card.payload())?;
        if card.genesis != request.genesis || card.slug != request.slug || card.member.is_some() {
            return Err(invalid("its node card is not of this newcomer"));
        }
        request.card.require_signature(request.identity)?;
        check_possession(&card, &request.card)?;
        if request.created > now.plus(CLOCK_SKEW_MS) {
            return Err(Rejection::FromTheFuture {
                what: "enrolment request",
            });
        }
        if now > card.expires.plus(CLOCK_SKEW_MS) {
            return Err(Rejection::Expired { what: "node card" });
        }
        Ok(Self {
            request,
            card,
            envelope,
        })
    }

    /// Checks that the coalition can take it: the slug is free or that of a removed
    /// member with this very key, and no key of it is somebody else's.
    ///
    /// # Errors
    /// [`Rejection::WrongGenesis`] or [`Rejection::Invalid`].
    pub fn check_against(&self, chain: &RosterChain, book: &CardBook) -> Result<(), Rejection> {
        if self.request.genesis != chain.genesis() {
            return Err(Rejection::WrongGenesis {
                what: "enrolment request",
            });
        }
        let before = chain.roster().member_by_slug(&self.request.slug);
        let returns = before.is_some_and(|m| {
            m.status == MemberStatus::Removed && m.identity == self.request.identity
        });
        if before.is_some() && !returns {
            return Err(invalid(format!(
                "slug {} was used before",
                self.request.slug
            )));
        }
        if !returns && chain.knows_key(self.request.identity.as_bytes()) {
            return Err(invalid("its identity key is somebody's already"));
        }
        book.check_keys(&self.card, before.map(|m| m.number), chain)
    }

    /// Checks that the coalition can take it as a member's new identity key: the slug
    /// is that of a member who is not out, the key is nobody's, and no key of its card
    /// is somebody else's. Says whether the member's present identity key has signed
    /// it too; where it has not, that key must be lost, and only the fingerprint says
    /// who asks.
    ///
    /// # Errors
    /// [`Rejection::WrongGenesis`], [`Rejection::Unknown`] or [`Rejection::Invalid`].
    pub fn check_rotation(&self, chain: &RosterChain, book: &CardBook) -> Result<bool, Rejection> {
        if self.request.genesis != chain.genesis() {
            return Err(Rejection::WrongGenesis {
                what: "enrolment request",
            });
        }
        let slug = &self.request.slug;
        let member = chain.roster().member_by_slug(slug);
        let member = member.filter(|m| m.status != MemberStatus::Removed);
        let member = member.ok_or_else(|| Rejection::Unknown {
            what: "member",
            why: format!("no member {slug} takes part"),
        })?;
        if chain.knows_key(self.request.identity.as_bytes()) {
            return Err(invalid("its identity key is somebody's already"));
        }
        book.check_keys(&self.card, Some(member.number), chain)?;
        Ok(self.envelope.signature_of(&member.identity).is_some())
    }

    /// The request.
    #[must_use]
    pub const fn request(&self) -> &EnrolmentRequest {
        &self.request
    }

    /// Its node card.
    #[must_use]
    pub const fn card(&self) -> &NodeCard {
        &self.card
    }

    /// What the roster is to say of the newcomer.
    #[must_use]
    pub fn new_member(&self) -> NewMember {
        NewMember {
            slug: self.request.slug.clone(),
            display_name: self.request.display_name.clone(),
            organisation_kind: self.request.organisation_kind.clone(),
            identity: self.request.identity,
            roles: self.request.roles.clone(),
        }
    }

    /// The envelope it came in.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The SHA-256 of the payload, so of every key and proof.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.envelope.payload_digest()
    }

    /// The fingerprint that is read out over another channel: the SHA-256 of the
    /// payload, so of every key and proof, as 16 groups of 4 hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.envelope.payload_digest())
    }
}

/// Writes a digest as 16 groups of 4 hexadecimal digits.
#[must_use]
pub fn fingerprint(digest: &Digest) -> String {
    let groups = digest.as_bytes().chunks(2).map(|two| HEXLOWER.encode(two));
    groups.collect::<Vec<_>>().join(" ")
}

fn read(payload: &Bytes) -> Result<EnrolmentRequest, Rejection> {
    let message = wire::EnrolmentRequest::decode(payload.clone())
        .map_err(|error| Rejection::malformed("enrolment request", error.to_string()))?;
    Ok(EnrolmentRequest {
        genesis: Digest::from_slice(&message.genesis_digest)?,
        slug: Slug::parse(&message.slug)?,
        display_name: text::required("display name", message.display_name, NAME_MAX_BYTES)?,
        organisation_kind: text::optional(
            "organisation kind",
            message.organisation_kind,
            NAME_MAX_BYTES,
        )?,
        roles: read_roles(&message.roles)?,
        identity: PublicKey::from_slice(&message.identity_key)?,
        created: UnixMillis(message.created_ms),
        card: Envelope::decode(message.node_card, PayloadType::NodeCard)?,
    })
}

fn invalid(why: impl Into<String>) -> Rejection {
    Rejection::invalid("enrolment request", why)
}
