//! Keys under a passphrase: PKCS #8 `EncryptedPrivateKeyInfo`, scrypt and AES-256-CBC.
//!
//! Written with parameters that OpenSSL 3 reads; read with whatever a file says.

use pkcs8::pkcs5::pbes2;
use pkcs8::pkcs5::scrypt;
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef, SecretDocument};
use zeroize::Zeroizing;

/// What PEM calls an encrypted key.
const LABEL: &str = "ENCRYPTED PRIVATE KEY";
/// scrypt: N = 2^14, r = 8, p = 5, one of the settings of OWASP's Password Storage
/// Cheat Sheet. OpenSSL refuses what needs more than 32 MiB, which N = 2^15 does.
const LOG_N: u8 = 14;
const R: u32 = 8;
const P: u32 = 5;
const SALT_BYTES: usize = 16;
const IV_BYTES: usize = 16;

/// A passphrase, wiped from memory when dropped.
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Takes a passphrase as typed or read.
    #[must_use]
    pub const fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// How many characters it has.
    #[must_use]
    pub fn length(&self) -> usize {
        self.0.chars().count()
    }

    /// Whether the other one says the same.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase")
    }
}

/// Why a sealed key does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// It is no encrypted PKCS #8 key.
    Malformed,
    /// It is one, and this passphrase does not open it.
    Passphrase,
}

/// Whether a key file's text holds an encrypted key.
pub(super) fn is_sealed(text: &str) -> bool {
    text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}

/// Encrypts the DER of a PKCS #8 key; the PEM. `None` where the system has no random
/// bytes, or the DER is none.
pub(super) fn seal(der: &[u8], passphrase: &Passphrase) -> Option<Zeroizing<String>> {
    let (mut salt, mut iv) = ([0_u8; SALT_BYTES], [0_u8; IV_BYTES]);
    getrandom::fill(&mut salt).ok()?;
    getrandom::fill(&mut iv).ok()?;
    let cost = scrypt::Params::new(LOG_N, R, P).ok()?;
    let parameters = pbes2::Parameters::generate_scrypt_aes256cbc(cost, &salt, iv).ok()?;
    let key = PrivateKeyInfoRef::try_from(der).ok()?;
    let sealed = key
        .encrypt_with_params(parameters, passphrase.bytes())
        .ok()?;
    sealed.to_pem(LABEL, LineEnding::LF).ok()
}

/// Decrypts a key file's text; the DER of the key.
pub(super) fn open(text: &str, passphrase: &Passphrase) -> Result<SecretDocument, Closed> {
    let (label, document) = SecretDocument::from_pem(text).map_err(|_| Closed::Malformed)?;
    if label != LABEL {
        return Err(Closed::Malformed);
    }
    let sealed = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes());
    let sealed = sealed.map_err(|_| Closed::Malformed)?;
    let opened = sealed.decrypt(passphrase.bytes());
    opened.map_err(|_| Closed::Passphrase)
}
