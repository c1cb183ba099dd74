//! The rejects file of one input file: made when there is a first reject, for its
//! owner alone, since it holds signals.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use hashpact_formats::{Reject, RejectsWriter};

/// What every rejects file begins with.
const REJECTS_HEADER: &[u8] = b"line,reason,original\n";

/// Counts rejected lines and writes them down.
pub(super) struct Rejects {
    path: PathBuf,
    keep_links: bool,
    writer: Option<RejectsWriter<BufWriter<File>>>,
    /// Lines that the reader refused.
    pub(super) by_reader: u64,
    /// Lines that the node refused.
    pub(super) by_node: u64,
}

impl Rejects {
    pub(super) const fn new(path: PathBuf, keep_links: bool) -> Self {
        Self {
            path,
            keep_links,
            writer: None,
            by_reader: 0,
            by_node: 0,
        }
    }

    /// Writes down what the reader refused.
    pub(super) fn read(&mut self, reject: &Reject) -> io::Result<()> {
        self.by_reader = self.by_reader.saturating_add(1);
        self.writer()?.write(reject)
    }

    /// Writes down what the node refused.
    pub(super) fn refused(
        &mut self,
        (line, code, reason): (u64, &str, &str),
        original: &str,
    ) -> io::Result<()> {
        self.by_node = self.by_node.saturating_add(1);
        self.writer()?
            .write_refused(line, code, reason, original.as_bytes())
    }

    /// Removes the rejects file of an earlier run, unless there were rejects in this one:
    /// nothing of the input is rejected any longer. Says whether there was one.
    pub(super) fn remove_stale(&self) -> io::Result<bool> {
        if self.by_reader > 0 || self.by_node > 0 || !is_rejects(&self.path)? {
            return Ok(false);
        }
        std::fs::remove_file(&self.path).map(|()| true)
    }

    /// Writes everything out; names the file if there is one.
    pub(super) fn finish(&mut self) -> io::Result<Option<&Path>> {
        let Some(writer) = self.writer.take() else {
            return Ok(None);
        };
        writer.finish()?.flush()?;
        Ok(Some(&self.path))
    }

    fn writer(&mut self) -> io::Result<&mut RejectsWriter<BufWriter<File>>> {
        if self.writer.is_none() {
            if !may_replace(&self.path)? {
                let what = "it exists and is no rejects file, so it is left as it is";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
            }
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&self.path)?;
            // ⚠ One that lay there may be open to others, or theirs: then it is refused.
            if file.metadata()?.is_file() {
                file.set_permissions(Permissions::from_mode(0o600))?;
                file.set_len(0)?;
            }
            let writer = RejectsWriter::new(BufWriter::new(file))?;
            self.writer = Some(if self.keep_links {
                writer.keep_links()
            } else {
                writer
            });
        }
        self.writer
            .as_mut()
            .ok_or_else(|| io::ErrorKind::Other.into())
    }
}

/// Whether nothing is lost by writing the file: there is none, it is empty or no
/// plain file, or it is the rejects file of an earlier run.
fn may_replace(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Ok(true);
    }
    let mut start = Vec::new();
    file.take(REJECTS_HEADER.len() as u64)
        .read_to_end(&mut start)?;
    Ok(start.is_empty() || start == REJECTS_HEADER)
}

/// Whether a plain file is there that an earlier run wrote rejects into.
fn is_rejects(path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_file() && found.len() > 0 => may_replace(path),
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_file_that_is_no_rejects_file_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("input.csv");
        std::fs::write(&path, "id,md5\n").unwrap();
        let error = Rejects::new(path.clone(), false)
            .refused((7, "invalid", "no"), "MD5:00")
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "id,md5\n");
        for replaced in ["", "line,reason,original\n3,old,x\n"] {
            std::fs::write(&path, replaced).unwrap();
            let mut rejects = Rejects::new(path.clone(), false);
            rejects.refused((7, "invalid", "no"), "MD5:00").unwrap();
            rejects.finish().unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text, "line,reason,original\n7,invalid: no,MD5:00\n");
            // Written anew by the system's habit, open to others.
            assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn rejects_of_an_earlier_run_go_once_nothing_is_rejected_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.rejects.csv");
        let clean = || Rejects::new(path.clone(), false);
        assert!(!clean().remove_stale().unwrap());
        for (content, goes) in [
            ("line,reason,original\n3,old,x\n", true),
            ("line,reason,original\n", true),
            ("id,md5\n", false),
            ("", false),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(clean().remove_stale().unwrap(), goes, "{content:?}");
            assert_eq!(path.exists(), !goes);
        }
        let mut rejects = clean();
        rejects.refused((7, "invalid", "no"), "MD5:00").unwrap();
        rejects.finish().unwrap();
        assert!(!rejects.remove_stale().unwrap());
        assert!(path.exists());
    }

    #[test]
    fn there_is_no_file_without_a_reject_and_one_for_the_owner_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.rejects.csv");
        let mut rejects = Rejects::new(path.clone(), false);
        assert_eq!(rejects.finish().unwrap(), None);
        assert!(!path.exists());
        rejects.refused((7, "invalid", "no"), "MD5:00").unwrap();
        assert_eq!(rejects.finish().unwrap(), Some(path.as_path()));
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text, "line,reason,original\n7,invalid: no,MD5:00\n");
    }
}
