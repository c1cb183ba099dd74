//! The content of one file: its digests in one pass, and its bytes where they are to
//! be decoded.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use data_encoding::HEXLOWER;
use md5::Md5;
use rustix::fs::OFlags;
use serde::Serialize;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// What is read at a time: large enough that reads cost nothing beside hashing.
const BLOCK_BYTES: usize = 256 * 1024;
/// What of a file tells its kind: an MPEG transport stream repeats after 188 bytes.
const START_BYTES: usize = 4_096;

/// The digests of one file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileHashes {
    /// Bytes read.
    pub bytes: u64,
    /// Lower-case hexadecimal, 32 digits.
    pub md5: String,
    /// Lower-case hexadecimal, 40 digits.
    pub sha1: String,
    /// Lower-case hexadecimal, 64 digits.
    pub sha256: String,
}

/// Why a file has no digests.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// What the file system said.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A pipe, a device or a socket, which may never end.
    #[error("neither a file nor a folder")]
    Special,
    /// Its length or time of change moved while it was read, twice.
    #[error("it changed while it was read; ask again when it is at rest")]
    Changed,
}

impl FileError {
    /// The stable reason code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io(error) => {
                let codes = [
                    (io::ErrorKind::NotFound, "not_found"),
                    (io::ErrorKind::PermissionDenied, "permission_denied"),
                    (io::ErrorKind::IsADirectory, "is_a_folder"),
                ];
                let known = codes.into_iter().find(|(kind, _)| *kind == error.kind());
                known.map_or("unreadable", |(_, code)| code)
            }
            Self::Special => "special_file",
            Self::Changed => "changed",
        }
    }
}

/// What was read.
pub(crate) struct Content {
    pub(crate) exact: FileHashes,
    /// The first bytes.
    pub(crate) start: Vec<u8>,
    /// All bytes, where they were asked for and are not too many.
    pub(crate) kept: Option<Vec<u8>>,
}

/// Whether a file is at rest: how it looked when it was opened.
#[derive(PartialEq, Eq)]
pub(crate) struct Seen {
    length: u64,
    changed: (i64, i64),
}

impl Seen {
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            length: metadata.len(),
            changed: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// Opens what a person named: pipes are read as well.
pub(crate) fn open_named(path: &Path) -> Result<File, FileError> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory).into());
    }
    Ok(file)
}

/// Opens a plain file that was found in a folder. Whatever stands there by then:
/// opening never waits, and what is no plain file is not read.
pub(crate) fn open_found(path: &Path, follow: bool) -> Result<File, FileError> {
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    let flags = i32::try_from(flags.bits()).map_err(|_| FileError::Special)?;
    let opened = File::options().read(true).custom_flags(flags).open(path);
    let file = match opened {
        // A symbolic link that took a file's place, or a socket.
        Err(error)
            if [rustix::io::Errno::LOOP, rustix::io::Errno::NXIO]
                .iter()
                .any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) =>
        {
            return Err(FileError::Special);
        }
        opened => opened?,
    };
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(FileError::Special)
    }
}

/// Reads to the end. `keep` is asked, with the first bytes, how many bytes to keep at
/// most; `read` is told of every block's bytes.
pub(crate) fn read(
    mut reader: impl Read,
    keep: impl FnOnce(&[u8]) -> usize,
    mut read: impl FnMut(u64),
) -> io::Result<Content> {
    let mut digests = Digests::default();
    let mut block = vec![0_u8; BLOCK_BYTES];
    let mut start = Vec::with_capacity(START_BYTES);
    (&mut reader)
        .take(START_BYTES as u64)
        .read_to_end(&mut start)?;
    digests.add(&start);
    read(start.len() as u64);
    let keep_max = keep(&start);
    let mut kept = (keep_max >= start.len()).then(|| start.clone());
    loop {
        let length = match reader.read(&mut block) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let Some(filled) = block.get(..length) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        digests.add(filled);
        kept = kept.filter(|kept| kept.len().saturating_add(filled.len()) <= keep_max);
        if let Some(kept) = &mut kept {
            kept.extend_from_slice(filled);
        }
        read(filled.len() as u64);
    }
    Ok(Content {
        exact: digests.finish(),
        start,
        kept,
    })
}

#[derive(Default)]
struct Digests {
    bytes: u64,
    md5: Md5,
    sha1: Sha1,
    sha256: Sha256,
}

impl Digests {
    fn add(&mut self, block: &[u8]) {
        self.md5.update(block);
        self.sha1.update(block);
        self.sha256.update(block);
        self.bytes = self.bytes.saturating_add(block.len() as u64);
    }

    fn finish(self) -> FileHashes {
        FileHashes {
            bytes: self.bytes,
            md5: HEXLOWER.encode(&self.md5.finalize()),
            sha1: HEXLOWER.encode(&self.sha1.finalize()),
            sha256: HEXLOWER.encode(&self.sha256.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_standards() {
        let abc = read(&b"abc"[..], |_| 0, |_| ()).unwrap().exact;
        assert_eq!(abc.bytes, 3);
        assert_eq!(abc.md5, "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(abc.sha1, "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(
            abc.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_file_larger_than_a_block_is_hashed_whole_and_kept_within_the_limit() {
        let content = vec![7_u8; BLOCK_BYTES * 2 + 5];
        for (keep, kept) in [
            (0, None),
            (content.len() - 1, None),
            (content.len(), Some(&content)),
        ] {
            let mut seen = 0;
            let read = read(content.as_slice(), |_| keep, |read| seen += read).unwrap();
            assert_eq!(seen, content.len() as u64);
            assert_eq!(
                read.exact.sha256,
                HEXLOWER.encode(&Sha256::digest(&content))
            );
            assert_eq!(read.kept.as_ref(), kept);
            assert_eq!(read.start.len(), START_BYTES);
        }
    }

    #[test]
    fn what_is_found_is_a_plain_file_or_is_not_read_and_opening_never_waits() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("plain"), "abc").unwrap();
        std::os::unix::fs::symlink(at("plain"), at("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let code = |name: &str, follow| {
            open_found(&at(name), follow)
                .err()
                .map(|error| error.code())
        };
        assert_eq!(code("plain", false), None);
        assert_eq!(code("link", false), Some("special_file"));
        assert_eq!(code("link", true), None);
        assert_eq!(code("pipe", false), Some("special_file"));
        assert_eq!(code("socket", false), Some("special_file"));
        assert_eq!(code("nothing", false), Some("not_found"));
        assert_eq!(code("", false), Some("special_file"));
    }
}
