//! Envelopes in the making: signed in turn by keys that may lie elsewhere.

use bytes::Bytes;
use prost::Message as _;

use super::{Envelope, PayloadType, TlsKey, pae};
use crate::keys::{PublicKey, Purpose, SecretKey};
use crate::reject::Rejection;
use crate::wire;

/// A payload, encoded once, that collects signatures.
#[derive(Debug, Clone)]
pub struct EnvelopeDraft {
    kind: PayloadType,
    payload: Bytes,
    signatures: Vec<wire::EnvelopeSignature>,
}

impl EnvelopeDraft {
    /// Begins with a payload and no signatures.
    #[must_use]
    pub const fn new(kind: PayloadType, payload: Bytes) -> Self {
        Self {
            kind,
            payload,
            signatures: Vec::new(),
        }
    }

    /// Goes on with an envelope that others have signed; its payload's bytes and
    /// its signatures stay as they are.
    #[must_use]
    pub fn resume(envelope: &Envelope) -> Self {
        let signatures = envelope.signatures.iter().cloned();
        Self {
            kind: envelope.kind,
            payload: envelope.payload.clone(),
            signatures: signatures
                .map(|s| wire::EnvelopeSignature {
                    algorithm: s.algorithm,
                    public_key: s.public_key,
                    signature: s.bytes,
                })
                .collect(),
        }
    }

    /// The bytes that each key signs, for keys that sign elsewhere.
    #[must_use]
    pub fn to_sign(&self) -> Vec<u8> {
        pae(self.kind.as_str(), &self.payload)
    }

    /// Signs with a key at hand. A second time replaces the first.
    pub fn sign<P: Purpose>(&mut self, key: &SecretKey<P>) -> &mut Self {
        let signature = key.sign(&self.to_sign());
        self.put(
            wire::KeyAlgorithm::Ed25519,
            key.public().as_bytes(),
            &signature,
        );
        self
    }

    /// Adds an Ed25519 signature over [`to_sign`](Self::to_sign) made elsewhere.
    ///
    /// # Errors
    /// [`Rejection::BadSignature`] where it does not verify.
    pub fn add<P: Purpose>(
        &mut self,
        key: &PublicKey<P>,
        signature: &[u8],
    ) -> Result<&mut Self, Rejection> {
        key.verify(&self.to_sign(), signature)?;
        self.put(wire::KeyAlgorithm::Ed25519, key.as_bytes(), signature);
        Ok(self)
    }

    /// Adds a TLS key's signature over [`to_sign`](Self::to_sign): its proof of
    /// possession, made where the TLS key lies. `spki` is the DER of its
    /// `SubjectPublicKeyInfo`; the signature is ECDSA with SHA-256 in DER, or
    /// Ed25519.
    ///
    /// # Errors
    /// [`Rejection::Invalid`] for a key of another kind, [`Rejection::BadSignature`]
    /// where it does not verify.
    pub fn add_tls(&mut self, spki: &[u8], signature: &[u8]) -> Result<&mut Self, Rejection> {
        TlsKey::from_spki(spki)?.verify(&self.to_sign(), signature)?;
        self.put(wire::KeyAlgorithm::TlsSpki, spki, signature);
        Ok(self)
    }

    /// Makes the envelope: from here on its bytes are what they are.
    ///
    /// # Errors
    /// [`Rejection::TooLarge`] where it grew beyond a cap.
    pub fn finish(&self) -> Result<Envelope, Rejection> {
        let message = wire::Envelope {
            payload_type: self.kind.as_str().to_owned(),
            payload: self.payload.clone(),
            signatures: self.signatures.clone(),
        };
        Envelope::decode(message.encode_to_vec().into(), self.kind)
    }

    fn put(&mut self, algorithm: wire::KeyAlgorithm, public_key: &[u8], signature: &[u8]) {
        let same = |s: &wire::EnvelopeSignature| {
            s.algorithm == algorithm as i32 && s.public_key == public_key
        };
        self.signatures.retain(|s| !same(s));
        self.signatures.push(wire::EnvelopeSignature {
            algorithm: algorithm.into(),
            public_key: Bytes::copy_from_slice(public_key),
            signature: Bytes::copy_from_slice(signature),
        });
    }
}
