//! Ed25519 keys, one type per purpose.
//!
//! A key of one purpose cannot be used for another: the purpose is part of the
//! type. Public keys that are weak (of small order) or not canonically encoded
//! cannot be constructed, and every check is `verify_strict`; there is no batch
//! verification, whose answer can differ from that of single verification.
//!
//! Source: RFC 8032; "Taming the many `EdDSAs`" (2020) for strictness.

use std::fmt;
use std::marker::PhantomData;

use ed25519_dalek::Signer as _;

use crate::id::Digest;

/// What a key is for.
pub trait Purpose: Copy + Eq + std::hash::Hash + Ord + Send + Sync + 'static {
    /// The purpose's word in the glossary, as in error texts.
    const NAME: &'static str;
}

macro_rules! purposes {
    ($($(#[$doc:meta])* $purpose:ident, $name:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $purpose;
        impl Purpose for $purpose {
            const NAME: &'static str = $name;
        }
    )*};
}

purposes! {
    /// An administrator's key: signs rosters and suspensions.
    Admin, "admin";
    /// A member's identity key: signs its node cards and mass retractions.
    Identity, "identity";
    /// Signs checkpoints of feeds.
    Feed, "feed";
    /// Cosigns checkpoints.
    Witness, "witness";
    /// Signs receipts.
    Receipt, "receipt";
}

/// Says why a key or a signature was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 32 bytes.
    #[error("an Ed25519 key is 32 bytes, this has {0}")]
    Length(usize),
    /// Not the canonical encoding of a point of the curve.
    #[error("these 32 bytes are no canonical Ed25519 public key")]
    Encoding,
    /// A point of small order.
    #[error("this Ed25519 public key is weak")]
    Weak,
    /// A signature that is not 64 bytes.
    #[error("an Ed25519 signature is 64 bytes, this has {0}")]
    SignatureLength(usize),
    /// The signature is not of this key over these bytes.
    #[error("the signature does not verify")]
    Signature,
}

/// A public key for the purpose `P`: canonical, not weak.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey<P: Purpose>([u8; 32], PhantomData<P>);

impl<P: Purpose> PublicKey<P> {
    /// Takes the 32 bytes of RFC 8032.
    ///
    /// # Errors
    /// [`KeyError::Length`], [`KeyError::Encoding`] or [`KeyError::Weak`].
    pub fn from_slice(bytes: &[u8]) -> Result<Self, KeyError> {
        let array: [u8; 32] = bytes
            .try_into()
            .map_err(|_| KeyError::Length(bytes.len()))?;
        let key =
            ed25519_dalek::VerifyingKey::from_bytes(&array).map_err(|_| KeyError::Encoding)?;
        // Decompression accepts y coordinates beyond the field's prime and the
        // wrong sign of x = 0; only the canonical bytes come back unchanged.
        if key.to_edwards().compress().to_bytes() != array {
            return Err(KeyError::Encoding);
        }
        if key.is_weak() {
            return Err(KeyError::Weak);
        }
        Ok(Self(array, PhantomData))
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The SHA-256 of the 32 bytes, which people compare.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.0)
    }

    /// Checks a 64-byte signature over `message`, strictly.
    ///
    /// # Errors
    /// [`KeyError::SignatureLength`] or [`KeyError::Signature`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let bytes: [u8; 64] = signature
            .try_into()
            .map_err(|_| KeyError::SignatureLength(signature.len()))?;
        let signature = ed25519_dalek::Signature::from_bytes(&bytes);
        ed25519_dalek::VerifyingKey::from_bytes(&self.0)
            .map_err(|_| KeyError::Encoding)?
            .verify_strict(message, &signature)
            .map_err(|_| KeyError::Signature)
    }
}

impl<P: Purpose> fmt::Debug for PublicKey<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", P::NAME, Digest(self.0).short())
    }
}

impl<P: Purpose> fmt::Display for PublicKey<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digest(self.0).fmt(f)
    }
}

/// A secret key for the purpose `P`. Wiped from memory when dropped; `Debug`
/// shows the public half only.
pub struct SecretKey<P: Purpose>(ed25519_dalek::SigningKey, PhantomData<P>);

impl<P: Purpose> SecretKey<P> {
    /// Takes the 32-byte seed of RFC 8032. The caller brings the randomness.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed), PhantomData)
    }

    /// The seed, for writing the key to its file.
    #[must_use]
    pub fn seed(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey<P> {
        PublicKey(self.0.verifying_key().to_bytes(), PhantomData)
    }

    /// Signs `message`; 64 bytes.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl<P: Purpose> fmt::Debug for SecretKey<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({:?})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_verifies_only_for_its_key_and_message() {
        let key = SecretKey::<Feed>::from_seed(&[7; 32]);
        let other = SecretKey::<Feed>::from_seed(&[8; 32]);
        let signature = key.sign(b"m");
        assert_eq!(key.public().verify(b"m", &signature), Ok(()));
        assert_eq!(
            key.public().verify(b"n", &signature),
            Err(KeyError::Signature)
        );
        assert_eq!(
            other.public().verify(b"m", &signature),
            Err(KeyError::Signature)
        );
    }

    #[test]
    fn weak_and_non_canonical_keys_are_refused() {
        // The identity element has small order.
        let mut identity = [0_u8; 32];
        identity[0] = 1;
        assert_eq!(
            PublicKey::<Feed>::from_slice(&identity),
            Err(KeyError::Weak)
        );
        // y = p + 1 encodes the same point, not canonically.
        let mut beyond = [0xff_u8; 32];
        beyond[0] = 0xee;
        beyond[31] = 0x7f;
        assert_eq!(
            PublicKey::<Feed>::from_slice(&beyond),
            Err(KeyError::Encoding)
        );
        assert_eq!(
            PublicKey::<Feed>::from_slice(&[1; 31]),
            Err(KeyError::Length(31))
        );
    }

    #[test]
    fn debug_of_a_secret_key_shows_no_secret() {
        let key = SecretKey::<Identity>::from_seed(&[0xab; 32]);
        assert!(!format!("{key:?}").contains("abab"));
    }
}
