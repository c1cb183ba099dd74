//! Files that a command makes and never writes over.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use hashpact_core::keys::{Purpose, SecretKey};

use super::error::CliError;
use crate::keyfile::{self, KeyFileError, Passphrase};

/// Files that this run made; they go away again unless all were made.
#[derive(Default)]
pub(super) struct NewFiles(Vec<PathBuf>);

impl NewFiles {
    /// Makes a key in a file of its own.
    pub(super) fn key<P: Purpose>(&mut self, path: &Path) -> Result<SecretKey<P>, CliError> {
        let key = keyfile::generate().map_err(CliError::failed)?;
        keyfile::create(path, &key).map_err(key_file)?;
        self.0.push(path.to_owned());
        Ok(key)
    }

    /// Makes a key under a passphrase in a file of its own.
    pub(super) fn sealed_key<P: Purpose>(
        &mut self,
        path: &Path,
        passphrase: &Passphrase,
    ) -> Result<SecretKey<P>, CliError> {
        let key = keyfile::generate().map_err(CliError::failed)?;
        keyfile::create_sealed(path, &key, passphrase).map_err(key_file)?;
        self.0.push(path.to_owned());
        Ok(key)
    }

    /// Counts a file that was made elsewhere.
    pub(super) fn note(&mut self, path: PathBuf) {
        self.0.push(path);
    }

    /// Writes a file of mode 0600, to disk.
    pub(super) fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<(), CliError> {
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        let mut file = opened.map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                exists(path)
            } else {
                at(path, &error)
            }
        })?;
        self.0.push(path.to_owned());
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(|error| at(path, &error))
    }

    /// All was made; the files stay.
    pub(super) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        for path in &self.0 {
            // The error that stopped the command is the one to report.
            let _ = fs::remove_file(path);
        }
    }
}

/// Refuses to begin where one of these files is there.
pub(super) fn refuse_existing(dir: &Path, names: &[&str]) -> Result<(), CliError> {
    let mut there = names.iter().map(|name| dir.join(name));
    match there.find(|path| path.exists()) {
        Some(path) => Err(exists(&path)),
        None => Ok(()),
    }
}

/// What the file system says of a path.
pub(super) fn at(path: &Path, error: &io::Error) -> CliError {
    CliError::failed(format!("{}: {error}", path.display()))
}

/// Why a key file was not made or read.
pub(super) fn key_file(error: KeyFileError) -> CliError {
    if let KeyFileError::Exists(path) = &error {
        return exists(path);
    }
    CliError::failed(error)
}

fn exists(path: &Path) -> CliError {
    CliError::failed(format!(
        "{} exists already and is left as it is",
        path.display()
    ))
    .next("move it away if it is not wanted, or name another place for the new one")
}
