//! A bundle on this machine's disk: its bytes, trusted for nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use hashpact_node::NodeError;
use hashpact_node::bundle::{BundleFile, Doing};

use crate::cli::error::CliError;

/// A file that is read in pieces, in any order.
#[derive(Clone)]
pub(super) struct OnDisk {
    path: PathBuf,
    file: Arc<File>,
    size: u64,
}

impl OnDisk {
    /// Opens a file.
    ///
    /// # Errors
    /// What the system answers; something that is no plain file.
    pub(super) fn open(path: &Path) -> Result<Self, CliError> {
        let failed = |error: io::Error| CliError::failed(format!("{}: {error}", path.display()));
        let file = File::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        if !about.is_file() {
            let what = format!("{} is no plain file", path.display());
            let next = "copy it to a disk first: a bundle is read in any order";
            return Err(CliError::failed(what).next(next));
        }
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(file),
            size: about.len(),
        })
    }

    /// Its name, for messages.
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Reads exactly so many bytes. Blocking.
    ///
    /// # Errors
    /// What the system answers; a file that became shorter.
    pub(super) fn piece(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut piece = vec![0; length];
        self.file.read_exact_at(&mut piece, offset)?;
        Ok(piece.into())
    }
}

impl BundleFile for OnDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, length: usize) -> Doing<Bytes> {
        let file = self.clone();
        Box::pin(async move {
            let name = file.name();
            let read = tokio::task::spawn_blocking(move || file.piece(offset, length));
            let read = read.await.map_err(|_| NodeError::Busy("stopping"))?;
            read.map_err(|error| NodeError::Misuse(format!("{name}: {error}")))
        })
    }
}
