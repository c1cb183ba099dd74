//! TLS keys by their `SubjectPublicKeyInfo`, as far as documents need them.
//!
//! One key has one encoding here: ECDSA P-256 with an uncompressed point (91
//! bytes) or Ed25519 (44 bytes, RFC 8410). Another encoding of the same key would
//! have another digest, and the same key could stand in two places.

use std::fmt;

use p256::ecdsa::signature::Verifier as _;

use crate::id::Digest;
use crate::keys::{KeyError, PublicKey, Purpose};
use crate::reject::Rejection;

/// DER before the 65 bytes of an uncompressed P-256 point (RFC 5480).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// DER before the 32 bytes of an Ed25519 key (RFC 8410).
const ED25519_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// A TLS public key that a certificate may carry.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsKey {
    digest: Digest,
    key: Key,
}

#[derive(Clone, PartialEq, Eq)]
enum Key {
    P256(p256::ecdsa::VerifyingKey),
    Ed25519(PublicKey<Tls>),
}

/// Marks an Ed25519 key that a certificate carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Tls;

impl Purpose for Tls {
    const NAME: &'static str = "TLS";
}

impl TlsKey {
    /// Reads the DER of a `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// [`Rejection::Invalid`] for any other kind or encoding of key.
    pub fn from_spki(der: &[u8]) -> Result<Self, Rejection> {
        let key = if let Some(point) = der.strip_prefix(&P256_PREFIX) {
            if point.len() != 65 || point.first() != Some(&0x04) {
                return Err(unusable());
            }
            Key::P256(p256::ecdsa::VerifyingKey::from_sec1_bytes(point).map_err(|_| unusable())?)
        } else if let Some(bytes) = der.strip_prefix(&ED25519_PREFIX) {
            Key::Ed25519(PublicKey::from_slice(bytes)?)
        } else {
            return Err(unusable());
        };
        Ok(Self {
            digest: Digest::of(der),
            key,
        })
    }

    /// The SHA-256 of the `SubjectPublicKeyInfo`, as on node cards.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Checks a signature: ECDSA with SHA-256 in DER, or 64 bytes of Ed25519.
    ///
    /// # Errors
    /// [`Rejection::BadSignature`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Rejection> {
        match &self.key {
            Key::Ed25519(key) => key.verify(message, signature).map_err(Rejection::from),
            Key::P256(key) => p256::ecdsa::DerSignature::from_bytes(signature)
                .and_then(|signature| key.verify(message, &signature))
                .map_err(|_| KeyError::Signature.into()),
        }
    }
}

impl fmt::Debug for TlsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS:{}", self.digest.short())
    }
}

/// The digest by which a key is known whatever its purpose: the SHA-256 of its
/// `SubjectPublicKeyInfo`. So an Ed25519 key cannot be a feed key here and a TLS
/// key there.
pub(crate) fn key_digest<P: Purpose>(key: &PublicKey<P>) -> Digest {
    ed25519_digest(key.as_bytes())
}

/// As [`key_digest`], from a key's 32 bytes.
pub(crate) fn ed25519_digest(key: &[u8; 32]) -> Digest {
    let mut der = ED25519_PREFIX.to_vec();
    der.extend_from_slice(key);
    Digest::of(&der)
}

fn unusable() -> Rejection {
    Rejection::invalid(
        "TLS key",
        "neither ECDSA P-256 with an uncompressed point nor Ed25519",
    )
}
