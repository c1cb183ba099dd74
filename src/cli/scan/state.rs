//! What a scan has done, so that a second run goes on: a file that is only appended
//! to. It names files by digests, and holds no path, no signal and no match.
//!
//! Crash: a file counts as done once its answer was printed. One that was printed and
//! not yet noted is asked for again; the beginning of a record is cut off.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::cli::error::CliError;

/// What every state file begins with; then the digest of the settings.
const MAGIC: &[u8; 16] = b"hashpact scan 1\n";
const HEADER_BYTES: u64 = 48;
const RECORD_BYTES: usize = 17;

/// A file as it was: path, length and time of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(u128);

impl Key {
    pub(super) fn of(path: &Path, metadata: &Metadata) -> Self {
        let path = path.as_os_str().as_bytes();
        let mut hasher = Sha256::new();
        hasher.update((path.len() as u64).to_be_bytes());
        hasher.update(path);
        hasher.update(metadata.len().to_be_bytes());
        hasher.update(metadata.mtime().to_be_bytes());
        hasher.update(metadata.mtime_nsec().to_be_bytes());
        let digest = hasher.finalize();
        let first = digest.first_chunk::<16>().copied().unwrap_or_default();
        Self(u128::from_be_bytes(first))
    }
}

/// What was done by earlier runs: 16 bytes of memory a file.
#[derive(Debug, Default)]
pub(super) struct Done {
    keys: Vec<Key>,
    /// How many of them were known.
    pub(super) known: u64,
    /// The state file itself, which is no file to be scanned.
    own: Option<(u64, u64)>,
}

impl Done {
    pub(super) fn has(&self, key: Key) -> bool {
        self.keys.binary_search(&key).is_ok()
    }

    pub(super) fn is_own(&self, metadata: &Metadata) -> bool {
        self.own == Some((metadata.dev(), metadata.ino()))
    }
}

/// The file, open for this run alone.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    file: File,
}

impl State {
    /// Opens or makes the file; `settings` are what answers depend on.
    pub(super) fn open(path: &Path, settings: &str) -> Result<(Self, Done), CliError> {
        let fail = |error: std::io::Error| {
            CliError::failed(format!("the state file {}: {error}", path.display()))
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.mode(0o600).open(path).map_err(fail)?;
        if file.try_lock().is_err() {
            return Err(CliError::failed(format!(
                "the state file {} is in use by another scan",
                path.display()
            )));
        }
        let metadata = file.metadata().map_err(fail)?;
        let settings = Sha256::digest(settings);
        let mut done = Done {
            own: Some((metadata.dev(), metadata.ino())),
            ..Done::default()
        };
        if metadata.len() == 0 {
            file.write_all(MAGIC).map_err(fail)?;
            file.write_all(&settings).map_err(fail)?;
        } else {
            let mut header = Vec::new();
            let read = (&mut file).take(HEADER_BYTES).read_to_end(&mut header);
            read.map_err(fail)?;
            let Some((magic, made_with)) = header.split_at_checked(MAGIC.len()) else {
                return Err(no_state(path));
            };
            if magic != MAGIC || made_with.len() != settings.len() {
                return Err(no_state(path));
            }
            if made_with != settings.as_slice() {
                return Err(CliError::usage(format!(
                    "{} is of a scan with other settings",
                    path.display()
                ))
                .next("give the same settings, or another --state"));
            }
            done.read(&file).map_err(fail)?;
            let records = done.keys.len() as u64;
            let length = HEADER_BYTES + records * RECORD_BYTES as u64;
            file.set_len(length).map_err(fail)?;
            file.seek(SeekFrom::End(0)).map_err(fail)?;
            done.keys.sort_unstable();
        }
        let path = path.to_owned();
        Ok((Self { path, file }, done))
    }

    /// Notes files that are done, each with whether it is known.
    pub(super) fn add(&mut self, files: &[(Key, bool)]) -> Result<(), CliError> {
        let mut records = Vec::with_capacity(files.len().saturating_mul(RECORD_BYTES));
        for (Key(key), known) in files {
            records.extend_from_slice(&key.to_be_bytes());
            records.push(u8::from(*known));
        }
        self.file.write_all(&records).map_err(|error| {
            CliError::failed(format!("the state file {}: {error}", self.path.display()))
        })
    }

    /// Removes the file: all was done.
    pub(super) fn remove(self) -> Result<(), CliError> {
        std::fs::remove_file(&self.path).map_err(|error| {
            CliError::failed(format!("the state file {}: {error}", self.path.display()))
        })
    }
}

impl Done {
    fn read(&mut self, file: &File) -> std::io::Result<()> {
        let mut input = BufReader::new(file);
        let mut record = [0; RECORD_BYTES];
        loop {
            match input.read_exact(&mut record) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
            if let Some((key, [known])) = record.split_first_chunk::<16>() {
                self.keys.push(Key(u128::from_be_bytes(*key)));
                self.known += u64::from(*known == 1);
            }
        }
    }
}

fn no_state(path: &Path) -> CliError {
    CliError::usage(format!(
        "{} exists and is no state file, so it is left as it is",
        path.display()
    ))
    .next("name another place with --state")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_known_again_and_a_torn_record_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let (mut state, done) = State::open(&path, "settings").unwrap();
        assert!(!done.has(Key(7)));
        state.add(&[(Key(7), true), (Key(3), false)]).unwrap();
        let busy = State::open(&path, "settings").unwrap_err();
        assert!(busy.to_string().contains("in use"), "{busy}");
        drop(state);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&[9; 5]).unwrap();
        drop(file);
        let (mut state, done) = State::open(&path, "settings").unwrap();
        assert!(done.has(Key(7)) && done.has(Key(3)) && !done.has(Key(9)));
        assert_eq!(done.known, 1);
        state.add(&[(Key(9), true)]).unwrap();
        drop(state);
        let (state, done) = State::open(&path, "settings").unwrap();
        assert!(done.has(Key(9)));
        assert_eq!(done.known, 2);
        state.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_state_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("photo.jpg");
        for content in ["x".repeat(5), "x".repeat(500)] {
            std::fs::write(&path, &content).unwrap();
            assert!(State::open(&path, "settings").is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        std::fs::remove_file(&path).unwrap();
        drop(State::open(&path, "settings").unwrap());
        let error = State::open(&path, "others").unwrap_err();
        assert!(error.to_string().contains("other settings"), "{error}");
    }

    #[test]
    fn a_file_that_changed_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let key = || Key::of(&path, &std::fs::metadata(&path).unwrap());
        std::fs::write(&path, "abc").unwrap();
        let before = key();
        assert_eq!(before, key());
        std::fs::write(&path, "abcd").unwrap();
        assert_ne!(before, key());
    }
}
