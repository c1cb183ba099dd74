//! Passphrases of administrators' keys: typed, or from a file.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use clap::Args;
use hashpact_core::keys::{Purpose, SecretKey};
use zeroize::Zeroizing;

use super::error::CliError;
use super::new_files::key_file;
use crate::keyfile::{self, KeyFileError, Passphrase};

/// The shortest passphrase of a new key, in characters. Whoever finds the file can
/// try as fast as scrypt lets them.
const SHORTEST: usize = 12;

/// Where the passphrase of a key comes from.
#[derive(Debug, Clone, Default, Args)]
pub struct PassphraseArgs {
    /// File with the key's passphrase, mode 0600 [default: it is asked for]
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// Where the passphrase of a new key comes from.
#[derive(Debug, Clone, Default, Args)]
pub struct NewPassphraseArgs {
    /// File with the passphrase of the new keys, mode 0600 [default: it is asked for]
    #[arg(long, value_name = "FILE", conflicts_with = "no_passphrase")]
    pub passphrase_file: Option<PathBuf>,
    /// Write new keys without a passphrase; for trials, and where something else
    /// encrypts them
    #[arg(long)]
    pub no_passphrase: bool,
}

impl PassphraseArgs {
    /// Reads a key; asks for its passphrase where it lies under one.
    ///
    /// # Errors
    /// When the key cannot be read, or nobody is there to ask.
    pub fn load<P: Purpose>(&self, path: &Path) -> Result<SecretKey<P>, CliError> {
        match keyfile::load(path) {
            Err(KeyFileError::Sealed(_)) => {}
            other => return other.map_err(key_file),
        }
        let passphrase = match &self.passphrase_file {
            Some(file) => keyfile::read_passphrase(file).map_err(key_file)?,
            None => ask(&format!("passphrase of {}: ", path.display()), "")?,
        };
        keyfile::load_sealed(path, &passphrase).map_err(key_file)
    }
}

impl NewPassphraseArgs {
    /// The passphrase for a new key; `None` where it lies under none.
    ///
    /// # Errors
    /// When it is too short, or nobody is there to ask.
    pub fn choose(&self, whose: &str) -> Result<Option<Passphrase>, CliError> {
        if self.no_passphrase {
            return Ok(None);
        }
        let chosen = match &self.passphrase_file {
            Some(file) => keyfile::read_passphrase(file).map_err(key_file)?,
            None => ask_twice(whose)?,
        };
        if chosen.length() < SHORTEST {
            return Err(CliError::usage(format!(
                "the passphrase has {} characters, it needs {SHORTEST}",
                chosen.length()
            ))
            .next("take a few words at random"));
        }
        Ok(Some(chosen))
    }
}

fn ask_twice(whose: &str) -> Result<Passphrase, CliError> {
    let or = " or --no-passphrase";
    let first = ask(&format!("new passphrase for the key of {whose}: "), or)?;
    let again = ask("the same again: ", or)?;
    if first.same_as(&again) {
        Ok(first)
    } else {
        Err(CliError::failed("the two are not the same").next("run the command again"))
    }
}

fn ask(prompt: &str, or: &str) -> Result<Passphrase, CliError> {
    if !io::stdin().is_terminal() {
        return Err(
            CliError::usage("nobody is at the terminal to type a passphrase")
                .next(format!("give --passphrase-file{or}")),
        );
    }
    let typed = rpassword::prompt_password(prompt).map_err(CliError::failed)?;
    Ok(Passphrase::new(Zeroizing::new(typed)))
}
