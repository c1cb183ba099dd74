//! This node's own TLS key and certificate: made here, or a company's own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hashpact_core::id::{Digest, UnixMillis};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{TlsError, certificate};
use crate::settings::CERTIFICATE_MAX_BYTES;

/// The life of a certificate made here. Nobody decides by it: the node card, which
/// names the key, expires much earlier.
const SELF_SIGNED_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Schemes that a TLS key may sign with, as on node cards.
const SCHEMES: [SignatureScheme; 2] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
];

/// A certificate and its key as PEM text.
pub struct PemPair {
    /// The certificate.
    pub certificate: String,
    /// The key, PKCS #8. A secret: a file of mode 0600, never a log.
    pub key: String,
}

impl PemPair {
    /// Makes a P-256 key and a certificate that it signs itself, with `name` as its
    /// only name.
    ///
    /// # Errors
    /// [`TlsError::Key`] without randomness, [`TlsError::Certificate`] for a name
    /// that cannot stand in a certificate.
    pub fn generate(name: &str, now: UnixMillis) -> Result<Self, TlsError> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|error| TlsError::Key(error.to_string()))?;
        Ok(Self {
            certificate: certificate_around(&key, name, now)?,
            key: key.serialize_pem(),
        })
    }
}

/// Makes a certificate around a key that is there, PEM in and out: the key signs
/// it itself, with `name` as its only name.
///
/// # Errors
/// [`TlsError::Key`] for a text without a key that can be used,
/// [`TlsError::Certificate`] for a name that cannot stand in a certificate.
pub fn self_signed(key: &str, name: &str, now: UnixMillis) -> Result<String, TlsError> {
    // What the library says of a broken key may quote it.
    let key = rcgen::KeyPair::from_pem(key)
        .map_err(|_| TlsError::Key("the file has no private key that can be used".to_owned()))?;
    certificate_around(&key, name, now)
}

fn certificate_around(
    key: &rcgen::KeyPair,
    name: &str,
    now: UnixMillis,
) -> Result<String, TlsError> {
    let refused = |error: rcgen::Error| TlsError::Certificate(error.to_string());
    let mut params = rcgen::CertificateParams::new([name.to_owned()]).map_err(refused)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    let subject = rcgen::DnValue::Utf8String(name.to_owned());
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, subject);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(now.0);
    params.not_after = params.not_before + SELF_SIGNED_LIFE;
    Ok(params.self_signed(key).map_err(refused)?.pem())
}

impl fmt::Debug for PemPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PemPair(…)")
    }
}

/// The key and certificate in use, which can be replaced while running.
///
/// Handshakes that begin after [`replace`](Self::replace) use the new pair;
/// connections that stand are left alone.
#[derive(Debug, Clone)]
pub struct Credentials {
    current: Arc<Current>,
}

struct Current(ArcSwap<CertifiedKey>);

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current(…)")
    }
}

impl Credentials {
    /// Reads a certificate and its key from PEM. Of a chain, only the first
    /// certificate is used: it carries the key, and peers take no other.
    ///
    /// # Errors
    /// [`TlsError`] when either cannot be read, they do not belong together, or the
    /// key is neither P-256 nor Ed25519.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let pair = certified_key(certificate, key)?;
        Ok(Self {
            current: Arc::new(Current(ArcSwap::from_pointee(pair))),
        })
    }

    /// Takes another pair for all handshakes to come.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem); then the old pair stays in use.
    pub fn replace(&self, certificate: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let pair = certified_key(certificate, key)?;
        self.current.0.store(Arc::new(pair));
        Ok(())
    }

    /// Takes the pair of others for all handshakes to come.
    pub fn take(&self, others: &Self) {
        self.current.0.store(others.current.0.load_full());
    }

    /// The public key as a DER `SubjectPublicKeyInfo`, as node cards carry it.
    ///
    /// # Errors
    /// [`TlsError::Key`] when the key does not tell its public half.
    pub fn spki_der(&self) -> Result<Vec<u8>, TlsError> {
        spki_der(&self.current.0.load())
    }

    /// SHA-256 of [`spki_der`](Self::spki_der): what node cards name the key by.
    ///
    /// # Errors
    /// As [`spki_der`](Self::spki_der).
    pub fn key_digest(&self) -> Result<Digest, TlsError> {
        self.spki_der().map(|der| Digest::of(&der))
    }

    /// Signs `message` with the TLS key: ECDSA P-256 over SHA-256 in DER, or
    /// Ed25519. For the key's proof of possession on a node card, over the PAE of
    /// the card's envelope, which no TLS transcript can look like.
    ///
    /// # Errors
    /// [`TlsError::Key`] when the key cannot sign.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, TlsError> {
        let pair = self.current.0.load();
        let signer = pair
            .key
            .choose_scheme(&SCHEMES)
            .ok_or_else(|| TlsError::Key(WRONG_KIND.to_owned()))?;
        signer
            .sign(message)
            .map_err(|error| TlsError::Key(error.to_string()))
    }

    /// When the certificate runs out; peers do not ask, but an operator's other
    /// tools may.
    #[must_use]
    pub fn not_after(&self) -> Option<UnixMillis> {
        let pair = self.current.0.load();
        pair.cert.first().and_then(certificate::not_after)
    }

    /// Whole days until the certificate runs out, 0 once it has.
    #[must_use]
    pub fn days_left(&self, now: UnixMillis) -> Option<u64> {
        let left_ms = self.not_after()?.since(now);
        Some(left_ms / hashpact_core::limits::DAY_MS)
    }

    /// What rustls asks for the pair of each handshake.
    pub(super) fn resolver(&self) -> Arc<Resolver> {
        Arc::new(Resolver(self.current.clone()))
    }
}

const WRONG_KIND: &str = "neither P-256 nor Ed25519";

fn certified_key(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, TlsError> {
    let bad_certificate = |why: String| TlsError::Certificate(why);
    let leaf = CertificateDer::pem_slice_iter(certificate)
        .next()
        .ok_or_else(|| bad_certificate("the file has no certificate".to_owned()))?
        .map_err(|error| bad_certificate(error.to_string()))?;
    if leaf.len() > CERTIFICATE_MAX_BYTES {
        let why = format!("{} bytes, peers take {CERTIFICATE_MAX_BYTES}", leaf.len());
        return Err(bad_certificate(why));
    }
    let digest =
        certificate::spki_digest(&leaf).map_err(|error| bad_certificate(error.to_string()))?;
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Key(pem_fault(&error)))?;
    let key = any_supported_type(&key).map_err(|error| TlsError::Key(error.to_string()))?;
    if key.choose_scheme(&SCHEMES).is_none() {
        return Err(TlsError::Key(WRONG_KIND.to_owned()));
    }
    let pair = CertifiedKey::new(vec![leaf], key);
    if Digest::of(&spki_der(&pair)?) != digest {
        return Err(TlsError::Mismatch);
    }
    Ok(pair)
}

/// Says what is wrong with a key file without any of its bytes.
fn pem_fault(error: &rustls::pki_types::pem::Error) -> String {
    let empty = matches!(error, rustls::pki_types::pem::Error::NoItemsFound);
    let fault = if empty {
        "the file has no private key"
    } else {
        "the file is no PEM"
    };
    fault.to_owned()
}

fn spki_der(pair: &CertifiedKey) -> Result<Vec<u8>, TlsError> {
    let public = pair.key.public_key();
    let public = public.ok_or_else(|| TlsError::Key("it has no public half".to_owned()))?;
    Ok(public.to_vec())
}

#[derive(Debug)]
pub(super) struct Resolver(Arc<Current>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.0.load_full())
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.0.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_325_998_000);

    fn generated() -> (PemPair, Credentials) {
        let pair = PemPair::generate("node.northstar.example", NOW).unwrap();
        let credentials =
            Credentials::from_pem(pair.certificate.as_bytes(), pair.key.as_bytes()).unwrap();
        (pair, credentials)
    }

    #[test]
    fn a_certificate_made_here_carries_the_key_and_ends_in_ten_years() {
        let (pair, credentials) = generated();
        let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
        let digest = certificate::spki_digest(&der).unwrap();
        assert_eq!(credentials.key_digest().unwrap(), digest);
        assert_eq!(credentials.days_left(NOW), Some(3_650));
        assert_eq!(credentials.days_left(UnixMillis(u64::MAX)), Some(0));
    }

    #[test]
    fn a_proof_of_possession_verifies_under_the_key_on_the_certificate() {
        let (pair, credentials) = generated();
        let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
        let leaf = webpki::EndEntityCert::try_from(&der).unwrap();
        let signature = credentials.sign(b"pae").unwrap();
        let algorithm = webpki::aws_lc_rs::ECDSA_P256_SHA256;
        assert!(leaf.verify_signature(algorithm, b"pae", &signature).is_ok());
        assert!(
            leaf.verify_signature(algorithm, b"pae2", &signature)
                .is_err()
        );
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_and_the_old_pair_stays() {
        let (pair, credentials) = generated();
        let other = PemPair::generate("b.example", NOW).unwrap();
        let before = credentials.key_digest().unwrap();
        let refused = credentials.replace(pair.certificate.as_bytes(), other.key.as_bytes());
        assert!(matches!(refused, Err(TlsError::Mismatch)));
        assert_eq!(credentials.key_digest().unwrap(), before);
        let taken = credentials.replace(other.certificate.as_bytes(), other.key.as_bytes());
        assert!(taken.is_ok());
        assert_ne!(credentials.key_digest().unwrap(), before);
    }

    #[test]
    fn a_p384_key_is_refused() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let pem = key.serialize_pem();
        let refused = Credentials::from_pem(certificate.as_bytes(), pem.as_bytes());
        assert!(matches!(refused, Err(TlsError::Key(_))));
    }

    #[test]
    fn ed25519_keys_are_taken() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let pem = key.serialize_pem();
        let taken = Credentials::from_pem(certificate.as_bytes(), pem.as_bytes()).unwrap();
        assert_eq!(taken.sign(b"m").unwrap().len(), 64);
    }

    #[test]
    fn files_without_a_key_are_refused_in_words_without_their_bytes() {
        let (pair, _) = generated();
        let refused = Credentials::from_pem(pair.certificate.as_bytes(), b"hunter2");
        let text = refused.unwrap_err().to_string();
        assert!(
            text.contains("no private key") && !text.contains("hunter2"),
            "{text}"
        );
    }

    #[test]
    fn debug_shows_no_key() {
        let (pair, credentials) = generated();
        let shown = format!("{pair:?} {credentials:?}");
        assert_eq!(shown, "PemPair(…) Credentials { current: Current(…) }");
    }
}
