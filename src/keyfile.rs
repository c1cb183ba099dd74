//! Key files: one secret key each, PKCS #8 as PEM, of mode 0600.
//!
//! The first line says what the key is for (`# hashpact feed key`) and is checked
//! when the file is read: a key of one purpose is never loaded for another.
//! OpenSSL ignores that line. Files are made anew and never written over; no
//! error text carries a byte of a key. Administrators' keys lie under a passphrase
//! ([`sealed`]), nodes' keys do not: a node starts without a person.

mod sealed;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use hashpact_core::id::UnixMillis;
use hashpact_core::keys::{Purpose, SecretKey};
use hashpact_net::tls::{self, Credentials, TlsError};
use zeroize::Zeroizing;

use crate::config::files;

pub use sealed::Passphrase;

/// What the first line of a TLS key's file names.
const TLS: &str = "tls";
/// No key file is longer; a longer file is something else.
const FILE_MAX_BYTES: u64 = 16 * 1024;

/// Says why a key file was not made or not read.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// A file of this name is there; it is left alone.
    #[error("{} exists already and is left as it is", .0.display())]
    Exists(PathBuf),
    /// The file system refuses.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may open the file, or it is not this user's.
    #[error("{what}; {fix}")]
    Unsafe {
        /// What is wrong.
        what: String,
        /// What to do.
        fix: String,
    },
    /// The key is for something else.
    #[error("{} holds a {found} key, not the {wanted} key", .path.display())]
    Purpose {
        /// The file.
        path: PathBuf,
        /// What it is for.
        found: String,
        /// What was asked for.
        wanted: &'static str,
    },
    /// The first line does not say what the key is for.
    #[error(
        "{} does not begin with the line \"# hashpact {wanted} key\", which says what the key is for",
        .path.display()
    )]
    Unmarked {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        wanted: &'static str,
    },
    /// What follows the first line is no key of the kind.
    #[error("{} holds no {kind} key as PKCS #8 PEM", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Such as "Ed25519".
        kind: &'static str,
    },
    /// The key lies under a passphrase, and none was given.
    #[error("{} lies under a passphrase", .0.display())]
    Sealed(PathBuf),
    /// The key lies under another passphrase.
    #[error("the passphrase does not open {}", .0.display())]
    Passphrase(PathBuf),
    /// The system gives no random bytes.
    #[error("no random bytes: {0}")]
    Random(String),
    /// The TLS key or its certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Makes a new key from the system's random bytes. It is in memory only.
///
/// # Errors
/// [`KeyFileError::Random`].
pub fn generate<P: Purpose>() -> Result<SecretKey<P>, KeyFileError> {
    let mut seed = Zeroizing::new([0_u8; 32]);
    getrandom::fill(seed.as_mut_slice())
        .map_err(|error| KeyFileError::Random(error.to_string()))?;
    Ok(SecretKey::from_seed(&seed))
}

/// Writes a key to a new file and to disk.
///
/// # Errors
/// [`KeyFileError::Exists`] or what the file system says.
pub fn create<P: Purpose>(path: &Path, key: &SecretKey<P>) -> Result<(), KeyFileError> {
    let pem = pair(key).to_pkcs8_pem(LineEnding::LF);
    let pem = pem.map_err(|_| malformed(path, "Ed25519"))?;
    write_new(path, P::NAME, &pem)
}

/// As [`create`], under a passphrase.
///
/// # Errors
/// As [`create`].
pub fn create_sealed<P: Purpose>(
    path: &Path,
    key: &SecretKey<P>,
    passphrase: &Passphrase,
) -> Result<(), KeyFileError> {
    let der = pair(key).to_pkcs8_der();
    let der = der.map_err(|_| malformed(path, "Ed25519"))?;
    let pem = sealed::seal(der.as_bytes(), passphrase);
    let pem = pem.ok_or_else(|| KeyFileError::Random("the key was not encrypted".to_owned()))?;
    write_new(path, P::NAME, &pem)
}

fn pair<P: Purpose>(key: &SecretKey<P>) -> KeypairBytes {
    let mut pair = KeypairBytes::from(&SigningKey::from_bytes(&key.seed()));
    // Without its public half it is version 1, which every OpenSSL reads.
    pair.public_key = None;
    pair
}

/// Reads the key of this purpose from its file.
///
/// # Errors
/// [`KeyFileError`]: a file that others may open, a key for something else, or none.
pub fn load<P: Purpose>(path: &Path) -> Result<SecretKey<P>, KeyFileError> {
    let text = read_secret(path)?;
    check_purpose(path, &text, P::NAME)?;
    if sealed::is_sealed(&text) {
        return Err(KeyFileError::Sealed(path.to_owned()));
    }
    let key = SigningKey::from_pkcs8_pem(&text).map_err(|_| malformed(path, "Ed25519"))?;
    Ok(SecretKey::from_seed(&Zeroizing::new(key.to_bytes())))
}

/// Reads the key of this purpose from a file under a passphrase.
///
/// # Errors
/// As [`load`], and [`KeyFileError::Passphrase`].
pub fn load_sealed<P: Purpose>(
    path: &Path,
    passphrase: &Passphrase,
) -> Result<SecretKey<P>, KeyFileError> {
    let text = read_secret(path)?;
    check_purpose(path, &text, P::NAME)?;
    let der = sealed::open(&text, passphrase).map_err(|closed| match closed {
        sealed::Closed::Malformed => malformed(path, "encrypted Ed25519"),
        sealed::Closed::Passphrase => KeyFileError::Passphrase(path.to_owned()),
    })?;
    let key = SigningKey::from_pkcs8_der(der.as_bytes());
    let key = key.map_err(|_| malformed(path, "encrypted Ed25519"))?;
    Ok(SecretKey::from_seed(&Zeroizing::new(key.to_bytes())))
}

/// Reads a passphrase from a file that only its owner can open: its text without the
/// newline at the end.
///
/// # Errors
/// [`KeyFileError::Unsafe`] or what the file system says.
pub fn read_passphrase(path: &Path) -> Result<Passphrase, KeyFileError> {
    let mut text = read_secret(path)?;
    while text.ends_with(['\n', '\r']) {
        text.pop();
    }
    Ok(Passphrase::new(text))
}

/// Makes a P-256 TLS key, writes it to a new file and to disk, and says what a node
/// presents with it.
///
/// # Errors
/// As [`create`], and [`KeyFileError::Tls`].
pub fn create_tls(
    path: &Path,
    name: &str,
    now: UnixMillis,
    kind: TlsKind,
) -> Result<Credentials, KeyFileError> {
    let algorithm = match kind {
        TlsKind::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        TlsKind::Ed25519 => &rcgen::PKCS_ED25519,
    };
    let key = rcgen::KeyPair::generate_for(algorithm);
    let key = key.map_err(|error| TlsError::Key(error.to_string()))?;
    let pem = Zeroizing::new(key.serialize_pem());
    let credentials = self_signed(&pem, name, now)?;
    write_new(path, TLS, &pem)?;
    Ok(credentials)
}

/// Algorithms of TLS keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsKind {
    /// ECDSA on P-256.
    P256,
    /// Ed25519.
    Ed25519,
}

/// Reads the TLS key and the certificate around it; without a certificate one is
/// made around the key, with `name` as its only name.
///
/// A company's own key file need not have the first line; one that names another
/// purpose is refused.
///
/// # Errors
/// As [`load`], and [`KeyFileError::Tls`].
pub fn load_tls(
    key: &Path,
    certificate: Option<&Path>,
    name: &str,
    now: UnixMillis,
) -> Result<Credentials, KeyFileError> {
    let text = read_secret(key)?;
    if purpose_of(&text).is_some() {
        check_purpose(key, &text, TLS)?;
    }
    let Some(certificate) = certificate else {
        return self_signed(&text, name, now);
    };
    let carried = std::fs::read(certificate).map_err(|source| io_error(certificate, source))?;
    Ok(Credentials::from_pem(&carried, text.as_bytes())?)
}

fn self_signed(key: &str, name: &str, now: UnixMillis) -> Result<Credentials, KeyFileError> {
    let certificate = tls::self_signed(key, name, now)?;
    Ok(Credentials::from_pem(
        certificate.as_bytes(),
        key.as_bytes(),
    )?)
}

/// Which purpose the key of a file has, if its first line says so.
///
/// # Errors
/// As [`load`].
pub fn purpose(path: &Path) -> Result<Option<String>, KeyFileError> {
    Ok(purpose_of(&read_secret(path)?).map(str::to_owned))
}

fn write_new(path: &Path, purpose: &str, pem: &str) -> Result<(), KeyFileError> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| {
            if source.kind() == io::ErrorKind::AlreadyExists {
                KeyFileError::Exists(path.to_owned())
            } else {
                io_error(path, source)
            }
        })?;
    let text = Zeroizing::new(format!("{}\n{}\n", first_line(purpose), pem.trim_end()));
    let written = file.write_all(text.as_bytes());
    written
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_folder(path))
        .map_err(|source| io_error(path, source))
}

/// Makes the file's name durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if folder != Path::new("") => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn read_secret(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    files::check_secret(path, files::KEY_FIX)
        .map_err(|(what, fix)| KeyFileError::Unsafe { what, fix })?;
    let file = File::open(path).map_err(|source| io_error(path, source))?;
    // Room for the whole file, so that no copy stays behind when the text grows.
    let room = usize::try_from(FILE_MAX_BYTES).unwrap_or_default();
    let mut text = Zeroizing::new(String::with_capacity(room));
    let read = file.take(FILE_MAX_BYTES).read_to_string(&mut text);
    read.map_err(|source| io_error(path, source))?;
    Ok(text)
}

fn check_purpose(path: &Path, text: &str, wanted: &'static str) -> Result<(), KeyFileError> {
    match purpose_of(text) {
        Some(found) if found == wanted => Ok(()),
        Some(found) => Err(KeyFileError::Purpose {
            path: path.to_owned(),
            found: found.to_owned(),
            wanted,
        }),
        None => Err(KeyFileError::Unmarked {
            path: path.to_owned(),
            wanted,
        }),
    }
}

fn first_line(purpose: &str) -> String {
    format!("# hashpact {purpose} key")
}

/// The purpose that the first line names. Only words are taken, so that an error
/// text can repeat it.
fn purpose_of(text: &str) -> Option<&str> {
    let line = text.lines().next()?.trim_end();
    let name = line.strip_prefix("# hashpact ")?.strip_suffix(" key")?;
    let word = name.len() <= 16 && name.bytes().all(|b| b.is_ascii_lowercase());
    word.then_some(name)
}

fn io_error(path: &Path, source: io::Error) -> KeyFileError {
    KeyFileError::Io {
        path: path.to_owned(),
        source,
    }
}

fn malformed(path: &Path, kind: &'static str) -> KeyFileError {
    KeyFileError::Malformed {
        path: path.to_owned(),
        kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashpact_core::keys::{Admin, Feed, Identity};
    use std::os::unix::fs::PermissionsExt as _;

    const NOW: UnixMillis = UnixMillis(1_795_325_998_000);

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_key_comes_back_from_its_file_which_only_its_owner_can_open() {
        let folder = folder();
        let path = folder.path().join("feed.key");
        let key = generate::<Feed>().unwrap();
        create(&path, &key).unwrap();
        assert_eq!(load::<Feed>(&path).unwrap().public(), key.public());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(purpose(&path).unwrap().as_deref(), Some("feed"));
    }

    #[test]
    fn a_key_of_another_purpose_is_refused() {
        let folder = folder();
        let path = folder.path().join("a.key");
        create(&path, &generate::<Admin>().unwrap()).unwrap();
        let refused = load::<Identity>(&path).unwrap_err();
        assert!(matches!(refused, KeyFileError::Purpose { .. }), "{refused}");
        let refused = load_tls(&path, None, "main", NOW).unwrap_err();
        assert!(matches!(refused, KeyFileError::Purpose { .. }), "{refused}");
    }

    #[test]
    fn a_key_that_does_not_say_what_it_is_for_is_refused() {
        let folder = folder();
        let path = folder.path().join("a.key");
        create(&path, &generate::<Feed>().unwrap()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let (_, pem) = text.split_once('\n').unwrap();
        std::fs::write(&path, pem).unwrap();
        let refused = load::<Feed>(&path).unwrap_err();
        assert!(
            matches!(refused, KeyFileError::Unmarked { .. }),
            "{refused}"
        );
    }

    #[test]
    fn no_key_file_is_written_over() {
        let folder = folder();
        let path = folder.path().join("a.key");
        let first = generate::<Feed>().unwrap();
        create(&path, &first).unwrap();
        let refused = create(&path, &generate::<Feed>().unwrap()).unwrap_err();
        assert!(matches!(refused, KeyFileError::Exists(_)), "{refused}");
        assert_eq!(load::<Feed>(&path).unwrap().public(), first.public());
    }

    #[test]
    fn a_key_file_that_others_can_open_is_refused() {
        let folder = folder();
        let path = folder.path().join("a.key");
        create(&path, &generate::<Feed>().unwrap()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let refused = load::<Feed>(&path).unwrap_err();
        assert!(matches!(refused, KeyFileError::Unsafe { .. }), "{refused}");
    }

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn a_key_under_a_passphrase_opens_with_it_alone() {
        let folder = folder();
        let path = folder.path().join("ann.key");
        let key = generate::<Admin>().unwrap();
        create_sealed(&path, &key, &passphrase("correct horse")).unwrap();
        let opened = load_sealed::<Admin>(&path, &passphrase("correct horse")).unwrap();
        assert_eq!(opened.public(), key.public());
        let refused = load_sealed::<Admin>(&path, &passphrase("correct house")).unwrap_err();
        assert!(matches!(refused, KeyFileError::Passphrase(_)), "{refused}");
        let refused = load::<Admin>(&path).unwrap_err();
        assert!(matches!(refused, KeyFileError::Sealed(_)), "{refused}");
        let refused = load_sealed::<Feed>(&path, &passphrase("correct horse")).unwrap_err();
        assert!(matches!(refused, KeyFileError::Purpose { .. }), "{refused}");
    }

    #[test]
    fn openssl_reads_a_key_under_a_passphrase() {
        let folder = folder();
        let path = folder.path().join("ann.key");
        let key = generate::<Admin>().unwrap();
        create_sealed(&path, &key, &passphrase("correct horse")).unwrap();
        let openssl = |word: &str| {
            std::process::Command::new("openssl")
                .args(["pkey", "-pubout", "-outform", "DER", "-passin"])
                .arg(format!("pass:{word}"))
                .arg("-in")
                .arg(&path)
                .output()
        };
        let Ok(read) = openssl("correct horse") else {
            crate::skipped::skipped("OpenSSL on a key under a passphrase: no openssl");
            return;
        };
        let said = String::from_utf8_lossy(&read.stderr).into_owned();
        assert!(read.stdout.ends_with(key.public().as_bytes()), "{said}");
        assert!(!openssl("correct house").unwrap().status.success());
    }

    #[test]
    fn a_passphrase_file_is_its_owners_alone_and_loses_its_newline() {
        let folder = folder();
        let path = folder.path().join("passphrase");
        std::fs::write(&path, "correct horse\r\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read_passphrase(&path).is_err());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let read = read_passphrase(&path).unwrap();
        assert!(read.same_as(&passphrase("correct horse")));
        assert_eq!(format!("{read:?}"), "Passphrase");
    }

    #[test]
    fn errors_carry_no_byte_of_a_broken_key() {
        let folder = folder();
        let path = folder.path().join("a.key");
        create(&path, &generate::<Feed>().unwrap()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let body = text.lines().nth(2).unwrap().to_owned();
        std::fs::write(&path, text.replace("END", "end")).unwrap();
        let refused = load::<Feed>(&path).unwrap_err();
        let shown = format!("{refused} {refused:?}");
        assert!(!shown.contains(&body), "{shown}");
    }

    #[test]
    fn a_tls_key_gets_a_certificate_of_its_own_that_carries_the_same_key() {
        for kind in [TlsKind::P256, TlsKind::Ed25519] {
            let folder = folder();
            let path = folder.path().join("tls.key");
            let made = create_tls(&path, "main.northstar", NOW, kind).unwrap();
            let again = load_tls(&path, None, "main.northstar", NOW).unwrap();
            assert_eq!(made.key_digest().unwrap(), again.key_digest().unwrap());
        }
    }
}
