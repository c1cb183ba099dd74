//! Roster files on disk: what administrators write and nodes read.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use hashpact_core::limits::ROSTER_FILE_MAX_BYTES;
use hashpact_core::reject::Rejection;
use hashpact_core::roster::RosterFile;

/// Says why a roster file was not read.
#[derive(Debug, thiserror::Error)]
pub enum RosterFileError {
    /// The file system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is no roster file.
    #[error("it is no roster file: {0}")]
    Rejected(#[from] Rejection),
}

/// Reads a roster file. What is in it is not verified.
///
/// # Errors
/// [`RosterFileError`].
pub fn read(path: &Path) -> Result<RosterFile, RosterFileError> {
    let mut bytes = Vec::new();
    let one_more = ROSTER_FILE_MAX_BYTES as u64 + 1;
    File::open(path)?.take(one_more).read_to_end(&mut bytes)?;
    Ok(RosterFile::decode(bytes.into())?)
}

/// Writes a roster file in one step: a crash leaves the file before or this one.
///
/// # Errors
/// What the file system says.
pub fn write(path: &Path, file: &RosterFile) -> io::Result<()> {
    write_bytes(path, &file.encode())
}

/// Writes a file in one step: a crash leaves the file before or this one.
///
/// # Errors
/// What the file system says.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut new = File::create(&beside)?;
    new.write_all(bytes)?;
    new.sync_all()?;
    fs::rename(&beside, path)?;
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roster_file_is_replaced_in_one_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roster.hashpact");
        let file = |text: &'static [u8]| RosterFile {
            rosters: vec![text.into()],
            ..RosterFile::default()
        };
        write(&path, &file(b"one")).unwrap();
        write(&path, &file(b"two")).unwrap();
        assert_eq!(read(&path).unwrap(), file(b"two"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_roster_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "<html>").unwrap();
        assert!(matches!(read(&path), Err(RosterFileError::Rejected(_))));
        assert!(matches!(
            read(&folder.path().join("none")),
            Err(RosterFileError::Io(_))
        ));
    }
}
