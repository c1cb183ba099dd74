//! The verifiers of both sides: one certificate, its key on a node card, and the
//! signature of the handshake by that key.
//!
//! A certificate is a carrier of a key. Its names, issuer and dates mean nothing
//! here; the node cards say whose key it is and until when.

use std::sync::Arc;

use hashpact_core::id::Digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, SignatureScheme,
};
use webpki::aws_lc_rs::{ECDSA_P256_SHA256, ED25519};

use super::certificate::spki_digest;
use crate::peer::{Expected, PeerDirectory, PeerIdentity};
use crate::settings::CERTIFICATE_MAX_BYTES;

/// What a TLS key may sign with. PROTOCOL 3.4: P-256 or Ed25519.
pub(super) const ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[ECDSA_P256_SHA256, ED25519],
    mapping: &[
        (SignatureScheme::ECDSA_NISTP256_SHA256, &[ECDSA_P256_SHA256]),
        (SignatureScheme::ED25519, &[ED25519]),
    ],
};

/// Says why a certificate was refused in a handshake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More certificates than the one that carries the key.
    #[error("{0} certificates where one is taken")]
    Chain(usize),
    /// A certificate above its limit; nothing of it was read.
    #[error("the certificate has {0} bytes, the limit is {CERTIFICATE_MAX_BYTES}")]
    TooLarge(usize),
    /// A key that is on no node card in force.
    #[error("the TLS key {0} is on no node card")]
    UnknownKey(Digest),
    /// A key of none of the clients that the configuration names.
    #[error("the TLS key {0} is none of api.clients")]
    UnknownClient(Digest),
    /// A known key, but of another node than the one that was dialled.
    #[error("reached {got} where {expected:?} was meant")]
    WrongPeer {
        /// Who was meant.
        expected: Expected,
        /// Who answered.
        got: Box<PeerIdentity>,
    },
}

impl Refusal {
    /// The stable code for logs and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Chain(_) => "tls_chain",
            Self::TooLarge(_) => "tls_certificate_too_large",
            Self::UnknownKey(_) => "tls_unknown_key",
            Self::UnknownClient(_) => "tls_unknown_client",
            Self::WrongPeer { .. } => "tls_wrong_peer",
        }
    }

    /// Finds the refusal in what rustls made of it.
    #[must_use]
    pub fn in_error(error: &Error) -> Option<&Self> {
        let Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) = error else {
            return None;
        };
        inner.downcast_ref()
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        CertificateError::Other(OtherError(Arc::new(refusal))).into()
    }
}

/// Refuses whatever is not exactly one certificate within its limit, and names
/// its key. Both before anything of it is parsed.
fn sole_key(
    certificate: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
) -> Result<Digest, Error> {
    if !others.is_empty() {
        return Err(Refusal::Chain(others.len() + 1).into());
    }
    if certificate.len() > CERTIFICATE_MAX_BYTES {
        return Err(Refusal::TooLarge(certificate.len()).into());
    }
    spki_digest(certificate)
}

fn known(directory: &dyn PeerDirectory, key: &Digest) -> Result<PeerIdentity, Error> {
    directory
        .peer_of(key)
        .ok_or_else(|| Refusal::UnknownKey(*key).into())
}

/// The half of a verifier that checks the signature of the handshake.
macro_rules! tls13_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signature, &ALGORITHMS)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            ALGORITHMS.supported_schemes()
        }
    };
}

/// Which clients' keys a door knows. Called inside handshakes: it must not block.
pub(crate) trait KnownClients: std::fmt::Debug + Send + Sync + 'static {
    /// Whether it knows the key.
    ///
    /// # Errors
    /// The refusal of one that it does not.
    fn check(&self, key: &Digest) -> Result<(), Refusal>;
}

/// Any client whose key is on a known card, whatever its member's status (PROTOCOL
/// 15.2), so that nobody deadlocks; what it may call is decided per call.
#[derive(Debug)]
pub(super) struct OnCards(pub(super) Arc<dyn PeerDirectory>);

impl KnownClients for OnCards {
    fn check(&self, key: &Digest) -> Result<(), Refusal> {
        let peer = self.0.peer_of(key);
        peer.map(|_| ()).ok_or(Refusal::UnknownKey(*key))
    }
}

/// Takes clients whose key is known, and no other.
#[derive(Debug)]
pub(super) struct PinnedClients {
    known: Arc<dyn KnownClients>,
}

impl PinnedClients {
    pub(super) const fn new(known: Arc<dyn KnownClients>) -> Self {
        Self { known }
    }
}

impl ClientCertVerifier for PinnedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let key = sole_key(end_entity, intermediates)?;
        self.known.check(&key)?;
        Ok(ClientCertVerified::assertion())
    }

    tls13_signatures!();
}

/// Takes the server that was meant, and no other.
#[derive(Debug)]
pub struct Pinned {
    directory: Arc<dyn PeerDirectory>,
    expected: Expected,
}

impl Pinned {
    /// Makes a verifier for one dial.
    #[must_use]
    pub const fn new(directory: Arc<dyn PeerDirectory>, expected: Expected) -> Self {
        Self {
            directory,
            expected,
        }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let key = sole_key(end_entity, intermediates)?;
        let peer = known(&*self.directory, &key)?;
        if self.expected.is(&peer) {
            Ok(ServerCertVerified::assertion())
        } else {
            let expected = self.expected.clone();
            let got = Box::new(peer);
            Err(Refusal::WrongPeer { expected, got }.into())
        }
    }

    tls13_signatures!();
}

/// Takes any server that proves to hold the key of its certificate. Whose key it
/// is must be decided before anything but the roster is asked of it.
#[derive(Debug)]
pub struct Unpinned;

impl ServerCertVerifier for Unpinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        sole_key(end_entity, intermediates).map(|_| ServerCertVerified::assertion())
    }

    tls13_signatures!();
}
