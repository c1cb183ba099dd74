//! One sorted file on its way into a family.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use hashpact_priority::let_others;
use rocksdb::{IngestExternalFileOptions, Options, SstFileWriter};

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::store::Inner;

/// Distinguishes the files of one process; the folder is emptied at open.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Keys and values of a file that is small enough to be held while it is built.
pub(crate) struct SortedFile {
    family: Family,
    path: PathBuf,
    records: Vec<(Vec<u8>, bytes::Bytes)>,
}

impl SortedFile {
    /// Begins a file of `family`.
    pub(crate) fn create(inner: &Inner, family: Family) -> Self {
        Self {
            family,
            path: new_path(inner, family),
            records: Vec::new(),
        }
    }

    /// Adds a record; keys come in ascending order.
    pub(crate) fn put(&mut self, key: &[u8], value: &bytes::Bytes) {
        self.records.push((key.to_vec(), value.clone()));
    }

    /// Writes, syncs and ingests the file.
    pub(crate) fn ingest(self, inner: &Inner) -> Result<()> {
        let options = self.family.options(&inner.cache);
        write_file(&options, &self.path, |writer| {
            for (key, value) in &self.records {
                let_others();
                writer
                    .put(key, value)
                    .map_err(StoreError::engine("writing a file to ingest"))?;
            }
            Ok(())
        })?;
        ingest(inner, self.family, vec![self.path])
    }
}

/// A path that no other file of this process has.
pub(crate) fn new_path(inner: &Inner, family: Family) -> PathBuf {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    inner.bulk_path(&format!("{}-{number}.sst", family.name()))
}

/// Writes one file; RocksDB syncs it.
pub(crate) fn write_file(
    options: &Options,
    path: &std::path::Path,
    fill: impl FnOnce(&mut SstFileWriter<'_>) -> Result<()>,
) -> Result<()> {
    let mut writer = SstFileWriter::create(options);
    writer
        .open(path)
        .map_err(StoreError::engine("making a file to ingest"))?;
    fill(&mut writer)?;
    writer
        .finish()
        .map_err(StoreError::engine("finishing a file to ingest"))
}

/// Ingests files with disjoint key ranges in one step, by moving them.
///
/// Crash: before, the files are removed at the next open; after, all records are
/// there, durably. What they mean is for the row of their feed to say.
pub(crate) fn ingest(inner: &Inner, family: Family, paths: Vec<PathBuf>) -> Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let mut options = IngestExternalFileOptions::default();
    options.set_move_files(true);
    inner
        .db
        .ingest_external_file_cf_opts(inner.cf(family)?, &options, paths)
        .map_err(StoreError::engine("ingesting files"))
}
