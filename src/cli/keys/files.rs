//! The key files of a node, and those of keys that are to take their place.

use std::path::{Path, PathBuf};

use hashpact_core::card::NodeCard;
use hashpact_core::envelope::{Envelope, EnvelopeDraft};
use hashpact_core::keys::{Feed, Identity, Purpose, Receipt, SecretKey, Witness};
use hashpact_core::reject::Rejection;
use hashpact_net::Credentials;
use hashpact_node::clock::Clock;

use crate::cli::error::CliError;
use crate::cli::open::certificate_name;
use crate::config::Config;
use crate::keyfile;

/// The file of the key that is to take the place of this one.
pub(in crate::cli) fn next(path: &Path) -> PathBuf {
    with_end(path, "next")
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    PathBuf::from(name)
}

/// A key, and the one that is to take its place.
pub(in crate::cli) struct Pair<K> {
    pub(in crate::cli) now: K,
    pub(in crate::cli) next: Option<K>,
}

impl<K> Pair<K> {
    /// Both, the newest last.
    pub(in crate::cli) fn all(&self) -> impl Iterator<Item = &K> {
        std::iter::once(&self.now).chain(&self.next)
    }
}

/// All keys of this node that stand on its card.
pub(in crate::cli) struct NodeKeys {
    pub(in crate::cli) tls: Pair<Credentials>,
    pub(in crate::cli) feed: Pair<SecretKey<Feed>>,
    pub(in crate::cli) receipt: Pair<SecretKey<Receipt>>,
    pub(in crate::cli) witness: Option<Pair<SecretKey<Witness>>>,
}

impl NodeKeys {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// A file that cannot be read or used, by its key in the configuration.
    pub(in crate::cli) fn load(config: &Config) -> Result<Self, CliError> {
        Ok(Self {
            tls: tls(config)?,
            feed: pair("feed", &config.keys.feed)?,
            receipt: pair("receipt", &config.keys.receipt)?,
            witness: (config.keys.witness.as_deref())
                .map(|path| pair("witness", path))
                .transpose()?,
        })
    }

    /// A card signed by an identity key and every key at hand, also by those that are
    /// to take another's place: in the middle of a rotation both are on the card.
    /// Whether that is all that it names is for its reader to say.
    ///
    /// # Errors
    /// A card that breaks a rule, a TLS key that does not sign.
    pub(in crate::cli) fn sign_card(
        &self,
        card: &NodeCard,
        identity: &SecretKey<Identity>,
    ) -> Result<Envelope, CliError> {
        let refused = |rejection: Rejection| {
            CliError::failed(format!("the coalition would refuse this card: {rejection}"))
        };
        let mut draft = card.to_envelope().map_err(refused)?;
        draft.sign(identity);
        self.sign(&mut draft)?;
        draft.finish().map_err(refused)
    }

    /// Signs a card with every key at hand: the proofs of possession.
    ///
    /// # Errors
    /// A TLS key that does not sign.
    pub(in crate::cli) fn sign(&self, draft: &mut EnvelopeDraft) -> Result<(), CliError> {
        for key in self.feed.all() {
            draft.sign(key);
        }
        for key in self.receipt.all() {
            draft.sign(key);
        }
        for key in self.witness.iter().flat_map(Pair::all) {
            draft.sign(key);
        }
        for key in self.tls.all() {
            let possession = key.sign(&draft.to_sign()).map_err(CliError::failed)?;
            let spki = key.spki_der().map_err(CliError::failed)?;
            draft
                .add_tls(&spki, &possession)
                .map_err(CliError::failed)?;
        }
        Ok(())
    }
}

/// The witness key in use, where the configuration names one.
///
/// # Errors
/// A file that cannot be read or used.
pub(in crate::cli) fn witness_key(config: &Config) -> Result<Option<SecretKey<Witness>>, CliError> {
    let path = config.keys.witness.as_deref();
    let load = |path: &Path| keyfile::load(path).map_err(|error| keyed("witness", error));
    path.map(load).transpose()
}

fn pair<P: Purpose>(name: &str, path: &Path) -> Result<Pair<SecretKey<P>>, CliError> {
    let load = |path: &Path| keyfile::load(path).map_err(|error| keyed(name, error));
    let beside = next(path);
    Ok(Pair {
        now: load(path)?,
        next: beside.exists().then(|| load(&beside)).transpose()?,
    })
}

fn tls(config: &Config) -> Result<Pair<Credentials>, CliError> {
    let certificate = config.keys.tls_certificate.as_deref();
    let load = |key: &Path, certificate: Option<&Path>| {
        let name = certificate_name(config.node.name.as_str(), config.member.slug.as_str());
        let loaded = keyfile::load_tls(key, certificate, &name, Clock::system().now());
        loaded.map_err(|error| keyed("tls_key", error))
    };
    let beside = next(&config.keys.tls_key);
    let carried = certificate.map(next);
    Ok(Pair {
        now: load(&config.keys.tls_key, certificate)?,
        next: beside
            .exists()
            .then(|| load(&beside, carried.as_deref()))
            .transpose()?,
    })
}

fn keyed(name: &str, error: keyfile::KeyFileError) -> CliError {
    CliError::failed(format!("keys.{name}: {error}"))
}

/// Lays a company's own next TLS key and certificate beside the ones in use, the key
/// last: it is what begins the rotation.
///
/// # Errors
/// A pair that does not belong together; what the file system says.
pub(super) fn copy_company_pair(
    config: &Config,
    key: &Path,
    certificate: &Path,
) -> Result<(), CliError> {
    let Some(carried) = &config.keys.tls_certificate else {
        return Err(CliError::usage("the node makes its own certificate")
            .next("set keys.tls_certificate to use one of your own"));
    };
    // Read as the node will read it, before anything is written.
    keyfile::load_tls(key, Some(certificate), "", Clock::system().now())
        .map_err(|error| keyed("tls_key", error))?;
    let at = |path: &Path, error: std::io::Error| {
        CliError::failed(format!("{}: {error}", path.display()))
    };
    let text = std::fs::read(certificate).map_err(|error| at(certificate, error))?;
    let secret = zeroize::Zeroizing::new(std::fs::read(key).map_err(|error| at(key, error))?);
    let mut files = crate::cli::new_files::NewFiles::default();
    files.write(&next(carried), &text)?;
    files.write(&next(&config.keys.tls_key), &secret)?;
    files.keep();
    Ok(())
}

/// Puts a next key in the place of the one in use, which stays as `.old`.
///
/// # Errors
/// What the file system says. Crash in the middle: the key in use is missing and the
/// next one is there; see [`recover`].
pub(super) fn promote(path: &Path) -> std::io::Result<()> {
    std::fs::rename(path, with_end(path, "old"))?;
    std::fs::rename(next(path), path)?;
    sync_folder(path)
}

/// Sees whether files beside this one can be renamed.
///
/// # Errors
/// What the file system says: no permission, or mounted to be read only.
pub(super) fn may_rename_in(path: &Path) -> std::io::Result<()> {
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::access(folder_of(path), access).map_err(std::io::Error::from)
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    folder.unwrap_or(Path::new("."))
}

/// Ends a renaming that a crash cut in two.
///
/// # Errors
/// What the file system says.
pub(in crate::cli) fn recover(path: &Path) -> std::io::Result<()> {
    if path.exists() || !next(path).exists() {
        return Ok(());
    }
    std::fs::rename(next(path), path)?;
    sync_folder(path)
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(folder_of(path))?.sync_all()
}
