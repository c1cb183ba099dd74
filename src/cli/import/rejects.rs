//! The rejects file of one input file: made when there is a first reject, for its
//! owner alone, since it holds signals.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use hashpact_formats::{Reject, RejectsWriter};

/// Counts rejected lines and writes them down.
pub(super) struct Rejects {
    path: PathBuf,
    writer: Option<RejectsWriter<BufWriter<File>>>,
    /// Lines that the reader refused.
    pub(super) by_reader: u64,
    /// Lines that the node refused.
    pub(super) by_node: u64,
}

impl Rejects {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self {
            path,
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
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&self.path)?;
            self.writer = Some(RejectsWriter::new(BufWriter::new(file))?);
        }
        self.writer
            .as_mut()
            .ok_or_else(|| io::ErrorKind::Other.into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn there_is_no_file_without_a_reject_and_one_for_the_owner_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.rejects.csv");
        let mut rejects = Rejects::new(path.clone());
        assert_eq!(rejects.finish().unwrap(), None);
        assert!(!path.exists());
        rejects.refused((7, "invalid", "no"), "MD5:00").unwrap();
        assert_eq!(rejects.finish().unwrap(), Some(path.as_path()));
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text, "line,reason,original\n7,invalid: no,MD5:00\n");
    }
}
