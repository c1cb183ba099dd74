//! DSSE envelopes: what carries every document that evolves.
//!
//! An [`Envelope`] keeps its bytes as received: those bytes are verified, stored
//! and relayed, and the payload inside them is what is decoded. Nothing signed is
//! ever encoded again. A digest of a document is over its payload, so that more
//! signatures leave it the same document.
//!
//! The envelope trusts nothing and decides nothing: it says which of the keys
//! that the caller trusts have signed. Signatures of other keys are ignored, up
//! to a cap on their number.
//!
//! Source: secure-systems-lab/dsse, `protocol.md` version 1.

mod draft;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{DecodeContext, decode_key, skip_field};

use crate::id::Digest;
use crate::keys::{PublicKey, Purpose};
use crate::limits::{
    CARD_MAX_BYTES, ENVELOPE_SIGNATURES_MAX, REQUEST_MAX_BYTES, ROSTER_MAX_BYTES,
    SMALL_DOCUMENT_MAX_BYTES,
};
use crate::reject::Rejection;
use crate::wire;

pub use draft::EnvelopeDraft;
pub use tls::TlsKey;
pub(crate) use tls::{ed25519_digest, key_digest};

/// What an envelope carries; part of what is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PayloadType {
    /// A version of the roster.
    Roster,
    /// A member's node card.
    NodeCard,
    /// A newcomer's enrolment request.
    EnrolmentRequest,
    /// One administrator's suspension of a member.
    Suspension,
    /// A node's receipt for a feed.
    Receipt,
}

impl PayloadType {
    /// The text that is signed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Roster => "application/vnd.hashpact.roster.v1+protobuf",
            Self::NodeCard => "application/vnd.hashpact.node-card.v1+protobuf",
            Self::EnrolmentRequest => "application/vnd.hashpact.enrolment-request.v1+protobuf",
            Self::Suspension => "application/vnd.hashpact.suspension.v1+protobuf",
            Self::Receipt => "application/vnd.hashpact.receipt.v1+protobuf",
        }
    }

    /// The word for error texts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Roster => "roster",
            Self::NodeCard => "node card",
            Self::EnrolmentRequest => "enrolment request",
            Self::Suspension => "suspension",
            Self::Receipt => "receipt",
        }
    }

    /// The longest envelope of this type, in bytes.
    #[must_use]
    pub const fn max_bytes(self) -> usize {
        match self {
            Self::Roster => ROSTER_MAX_BYTES,
            Self::NodeCard => CARD_MAX_BYTES,
            Self::EnrolmentRequest => REQUEST_MAX_BYTES,
            Self::Suspension | Self::Receipt => SMALL_DOCUMENT_MAX_BYTES,
        }
    }
}

/// Encodes what is signed: `DSSEv1 SP LEN(type) SP type SP LEN(payload) SP payload`,
/// lengths in decimal.
#[must_use]
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    );
    let mut bytes = Vec::with_capacity(head.len().saturating_add(payload.len()));
    bytes.extend_from_slice(head.as_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A document and its signatures, with its bytes as received.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    received: Bytes,
    kind: PayloadType,
    payload: Bytes,
    signatures: Vec<Signature>,
}

#[derive(Clone, PartialEq, Eq)]
struct Signature {
    algorithm: i32,
    public_key: Bytes,
    bytes: Bytes,
}

impl Envelope {
    /// Takes an envelope apart, after its size and its number of signatures were
    /// found within their caps. Checks no signature. Of one key it carries one, so that
    /// whoever made it cannot choose how many are checked; a roster, which administrators
    /// sign in turn, may carry more.
    ///
    /// # Errors
    /// [`Rejection::TooLarge`], [`Rejection::Malformed`], or [`Rejection::Invalid`]
    /// where it carries another type than `kind`.
    pub fn decode(received: Bytes, kind: PayloadType) -> Result<Self, Rejection> {
        Rejection::cap(kind.name(), received.len(), kind.max_bytes())?;
        count_fields(kind.name(), &received)?;
        let message = wire::Envelope::decode(received.clone())
            .map_err(|error| Rejection::malformed(kind.name(), error.to_string()))?;
        if message.payload_type != kind.as_str() {
            return Err(Rejection::invalid(
                kind.name(),
                "the envelope carries another payload type",
            ));
        }
        let signatures = message.signatures.into_iter().map(Signature::from);
        let signatures: Vec<Signature> = signatures.collect();
        // PROTOCOL 4.4: junk before a good signature would each cost a check.
        let mut keys = BTreeSet::new();
        let mut named = signatures.iter().map(|s| (s.algorithm, &s.public_key));
        if kind != PayloadType::Roster && !named.all(|key| keys.insert(key)) {
            return Err(Rejection::malformed(kind.name(), "a key signs it twice"));
        }
        Ok(Self {
            received,
            kind,
            payload: message.payload,
            signatures,
        })
    }

    /// The bytes as received: what is stored and relayed.
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        &self.received
    }

    /// What the envelope carries.
    #[must_use]
    pub const fn kind(&self) -> PayloadType {
        self.kind
    }

    /// The payload's bytes, as signed.
    #[must_use]
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// How many signatures it carries, valid or not.
    #[must_use]
    pub fn signature_count(&self) -> usize {
        self.signatures.len()
    }

    /// The SHA-256 of the payload, which names the document.
    #[must_use]
    pub fn payload_digest(&self) -> Digest {
        Digest::of(&self.payload)
    }

    /// Returns those of `keys` that have a valid signature: distinct keys, however
    /// often each signed.
    #[must_use]
    pub fn signers<P: Purpose>(
        &self,
        keys: impl IntoIterator<Item = PublicKey<P>>,
    ) -> BTreeSet<PublicKey<P>> {
        let signed = pae(self.kind.as_str(), &self.payload);
        let distinct: BTreeSet<_> = keys.into_iter().collect();
        let has_signed = |key: &PublicKey<P>| {
            self.signatures
                .iter()
                .filter(|s| s.is_of(wire::KeyAlgorithm::Ed25519, key.as_bytes()))
                .any(|s| key.verify(&signed, &s.bytes).is_ok())
        };
        distinct.into_iter().filter(has_signed).collect()
    }

    /// The valid signature of `key`, if it has signed.
    #[must_use]
    pub fn signature_of<P: Purpose>(&self, key: &PublicKey<P>) -> Option<Bytes> {
        let signed = pae(self.kind.as_str(), &self.payload);
        let of_key = |s: &&Signature| s.is_of(wire::KeyAlgorithm::Ed25519, key.as_bytes());
        let mut valid = self.signatures.iter().filter(of_key);
        valid
            .find(|s| key.verify(&signed, &s.bytes).is_ok())
            .map(|s| s.bytes.clone())
    }

    /// Counts the distinct keys among `keys` that signed.
    ///
    /// # Errors
    /// [`Rejection::ThresholdNotMet`] for fewer than `need`.
    pub fn require_threshold<P: Purpose>(
        &self,
        keys: impl IntoIterator<Item = PublicKey<P>>,
        need: usize,
    ) -> Result<usize, Rejection> {
        let have = self.signers(keys).len();
        if have < need {
            return Err(Rejection::ThresholdNotMet {
                what: self.kind.name(),
                have,
                need,
            });
        }
        Ok(have)
    }

    /// Checks that `key` signed.
    ///
    /// # Errors
    /// [`Rejection::BadSignature`].
    pub fn require_signature<P: Purpose>(&self, key: PublicKey<P>) -> Result<(), Rejection> {
        if self.signers([key]).is_empty() {
            return Err(Rejection::BadSignature {
                what: self.kind.name(),
                why: format!("no valid signature of the {} key {key}", P::NAME),
            });
        }
        Ok(())
    }

    /// Returns the TLS keys among `wanted` (SHA-256 of the `SubjectPublicKeyInfo`)
    /// that have a valid signature.
    #[must_use]
    pub fn tls_signers(&self, wanted: &BTreeSet<Digest>) -> BTreeMap<Digest, TlsKey> {
        let signed = pae(self.kind.as_str(), &self.payload);
        let mut found = BTreeMap::new();
        for signature in &self.signatures {
            if signature.algorithm != wire::KeyAlgorithm::TlsSpki as i32 {
                continue;
            }
            let digest = Digest::of(&signature.public_key);
            if !wanted.contains(&digest) || found.contains_key(&digest) {
                continue;
            }
            let Ok(key) = TlsKey::from_spki(&signature.public_key) else {
                continue;
            };
            if key.verify(&signed, &signature.bytes).is_ok() {
                found.insert(digest, key);
            }
        }
        found
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("kind", &self.kind)
            .field("digest", &self.payload_digest())
            .field("signatures", &self.signatures.len())
            .finish_non_exhaustive()
    }
}

impl Signature {
    fn is_of(&self, algorithm: wire::KeyAlgorithm, public_key: &[u8]) -> bool {
        self.algorithm == algorithm as i32 && self.public_key == public_key
    }
}

impl From<wire::EnvelopeSignature> for Signature {
    fn from(message: wire::EnvelopeSignature) -> Self {
        Self {
            algorithm: message.algorithm,
            public_key: message.public_key,
            bytes: message.signature,
        }
    }
}

/// Counts the envelope's fields before anything is allocated for them: an empty
/// signature is 2 bytes on the wire and some 70 in memory.
fn count_fields(what: &'static str, bytes: &Bytes) -> Result<(), Rejection> {
    let malformed = |error: prost::DecodeError| Rejection::malformed(what, error.to_string());
    let mut rest = bytes.clone();
    let (mut singles, mut signatures) = ([0_usize; 2], 0_usize);
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest).map_err(malformed)?;
        skip_field(wire_type, tag, &mut rest, DecodeContext::default()).map_err(malformed)?;
        match (tag, &mut singles) {
            (1, [count, _]) | (2, [_, count]) => *count = count.saturating_add(1),
            (3, _) => signatures = signatures.saturating_add(1),
            _ => {}
        }
    }
    if singles.iter().any(|count| *count > 1) {
        return Err(Rejection::malformed(what, "a field comes twice"));
    }
    Rejection::cap("signatures", signatures, ENVELOPE_SIGNATURES_MAX)
}

#[cfg(test)]
mod tests;
