//! What a key has signed: a line for each draft, beside the key's file.
//!
//! Two approved rosters of one version are evidence against the administrators, and
//! split the coalition until people mend it. So a key signs a second draft of a
//! version only when it is told that the first will never be published.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use hashpact_core::id::Digest;

use crate::cli::error::CliError;
use crate::cli::new_files::at;

/// A log longer than this is something else.
const LOG_MAX_BYTES: u64 = 1024 * 1024;

/// A draft by what it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signed {
    /// The version before.
    pub(super) previous: Digest,
    /// The draft itself.
    pub(super) draft: Digest,
}

/// Says whether the key has signed another draft that stands on the same version.
pub(super) fn other(key: &Path, draft: Signed) -> Result<bool, CliError> {
    let path = log(key);
    let size = match fs::metadata(&path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(at(&path, &error)),
    };
    if size > LOG_MAX_BYTES {
        return Err(CliError::failed(format!(
            "{} is no log of a key",
            path.display()
        )));
    }
    let text = fs::read_to_string(&path).map_err(|error| at(&path, &error))?;
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let (previous, draft) = (draft.previous.to_string(), draft.draft.to_string());
    let mut others = lines.filter(|(on, signed)| *on == previous && *signed != draft);
    Ok(others.next().is_some())
}

/// Adds a line. It is on disk before the signature leaves this process.
pub(super) fn note(key: &Path, draft: Signed) -> Result<(), CliError> {
    let path = log(key);
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path);
    let written = opened.and_then(|mut file| {
        file.write_all(format!("{} {}\n", draft.previous, draft.draft).as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| at(&path, &error))
}

fn log(key: &Path) -> PathBuf {
    let mut path = key.as_os_str().to_owned();
    path.push(".signed");
    path.into()
}
