//! Small files that are whole after a crash: what was signed last is kept in such ones.
//!
//! A new text is written beside the file, synced, renamed over it, and the folder is
//! synced. Before the rename the old text stands, after it the new one. Only the owner
//! may read or write them.

use std::fs::File;
use std::io::{Result, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// A step on the way to a durable file; tests make each of them fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Write,
    SyncFile,
    Rename,
    SyncFolder,
}

/// Asked before each step; an error stands for a crash there.
pub(crate) type Fault = fn(Step) -> Result<()>;

/// Puts `bytes` in the place of what is at `path`.
///
/// # Errors
/// What the system answers; the old text stands then, or the new one, whole.
pub(crate) fn replace(path: &Path, bytes: &[u8], fault: Fault) -> Result<()> {
    let beside = path.with_extension("new");
    fault(Step::Write)?;
    let mut file = private(&beside, true)?;
    file.write_all(bytes)?;
    fault(Step::SyncFile)?;
    file.sync_all()?;
    fault(Step::Rename)?;
    std::fs::rename(&beside, path)?;
    fault(Step::SyncFolder)?;
    File::open(folder(path))?.sync_all()
}

/// Opens a file that only its owner may read or write, and makes it where there is none.
///
/// # Errors
/// What the system answers.
pub(crate) fn private(path: &Path, anew: bool) -> Result<File> {
    let mut options = File::options();
    options.create(true).write(true).truncate(anew).mode(0o600);
    options.open(path)
}

/// The folder of a path; the current one for a bare name.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}
