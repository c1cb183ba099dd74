//! A spill: records partitioned by the front of their keys, in bounded memory.
//!
//! A partition is a family and the first byte of the key that tells its records
//! apart: the first byte of a signal's value (digests are even in it), of a
//! reference's digest. Partitions fill buffers; when all of them together reach
//! the bound, the largest go to one temporary file in the store's folder. The
//! partitions of a family in order are its key order, so each is sorted by itself.
//!
//! The file is as sensitive as the store, and on the same volume.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::keys::SIGNAL_KEY_BYTES;
use crate::store::Inner;

/// A record is `key length ‖ value length ‖ key ‖ value`; both fit a byte.
const HEADER_BYTES: usize = 2;
/// A buffer that is worth a write by itself.
const EXTENT_BYTES: usize = 32 << 10;

/// Which partition a record is in, in key order within a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    /// Signals before references.
    rank: u8,
    front: u8,
    next: u8,
}

/// Records on their way into sorted files.
pub(crate) struct Spill {
    partitions: BTreeMap<Slot, Partition>,
    held: usize,
    bound: usize,
    path: PathBuf,
    file: Option<File>,
    file_end: u64,
}

/// The records of one partition, as bytes in memory and extents of the file.
#[derive(Default)]
pub(super) struct Partition {
    buffer: Vec<u8>,
    extents: Vec<(u64, usize)>,
    bytes: usize,
}

impl Spill {
    /// Makes an empty spill.
    pub(crate) fn new(inner: &Inner) -> Self {
        Self {
            partitions: BTreeMap::new(),
            held: 0,
            bound: inner.options.bulk_memory_bytes,
            path: super::file::new_path(inner, Family::Signals).with_extension("spill"),
            file: None,
            file_end: 0,
        }
    }

    /// Adds a record.
    pub(crate) fn put(&mut self, family: Family, key: &[u8], value: &[u8]) -> Result<()> {
        let partition = self.partitions.entry(Slot::of(family, key)).or_default();
        let before = partition.buffer.capacity();
        let lengths = u8::try_from(key.len())
            .ok()
            .zip(u8::try_from(value.len()).ok());
        let (key_len, value_len) =
            lengths.ok_or(StoreError::corrupt("a record is too long to spill"))?;
        partition.buffer.extend_from_slice(&[key_len, value_len]);
        partition.buffer.extend_from_slice(key);
        partition.buffer.extend_from_slice(value);
        let added = HEADER_BYTES + key.len() + value.len();
        partition.bytes = partition.bytes.saturating_add(added);
        let grown = partition.buffer.capacity().saturating_sub(before);
        self.held = self.held.saturating_add(grown);
        if self.held > self.bound {
            self.flush()?;
        }
        Ok(())
    }

    /// All partitions in key order, by family, with the file that they read from.
    pub(super) fn into_parts(mut self) -> (Vec<(Slot, Partition)>, Option<File>, PathBuf) {
        let partitions = std::mem::take(&mut self.partitions);
        let path = std::mem::take(&mut self.path);
        (partitions.into_iter().collect(), self.file.take(), path)
    }

    /// Writes what is held to the file, all of it when no buffer is large.
    fn flush(&mut self) -> Result<()> {
        let what = "writing to the spill file";
        if self.file.is_none() {
            let file = File::options()
                .create_new(true)
                .read(true)
                .write(true)
                .open(&self.path)
                .map_err(StoreError::io(what))?;
            self.file = Some(file);
        }
        let Some(file) = &self.file else {
            return Ok(());
        };
        let large = self
            .partitions
            .values()
            .any(|p| p.buffer.len() >= EXTENT_BYTES);
        let least = if large { EXTENT_BYTES } else { 1 };
        for partition in self.partitions.values_mut() {
            if partition.buffer.len() < least {
                continue;
            }
            file.write_all_at(&partition.buffer, self.file_end)
                .map_err(StoreError::io(what))?;
            let len = partition.buffer.len();
            partition.extents.push((self.file_end, len));
            self.file_end = self
                .file_end
                .saturating_add(u64::try_from(len).unwrap_or(0));
            self.held = self.held.saturating_sub(partition.buffer.capacity());
            partition.buffer = Vec::new();
        }
        Ok(())
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        if self.file.is_some() {
            // At the latest the next open removes it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Slot {
    fn of(family: Family, key: &[u8]) -> Self {
        let at = |n: usize| key.get(n).copied().unwrap_or(0);
        if key.len() == SIGNAL_KEY_BYTES && family == Family::Signals {
            Self {
                rank: 0,
                front: at(0),
                next: at(1),
            }
        } else {
            // One feed's references: the first byte of the digest tells them apart.
            Self {
                rank: 1,
                front: 0,
                next: at(4),
            }
        }
    }

    pub(super) const fn family(self) -> Family {
        if self.rank == 0 {
            Family::Signals
        } else {
            Family::Refs
        }
    }
}

impl Partition {
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reads the whole partition into memory.
    pub(super) fn read(mut self, file: Option<&File>) -> Result<Vec<u8>> {
        if self.extents.is_empty() {
            return Ok(self.buffer);
        }
        let mut all = vec![0; self.bytes.saturating_sub(self.buffer.len())];
        let mut rest = all.as_mut_slice();
        for (offset, len) in &self.extents {
            let (part, after) = rest
                .split_at_mut_checked(*len)
                .ok_or(StoreError::corrupt("a spill is cut short"))?;
            file.ok_or(StoreError::corrupt("a spill has no file"))?
                .read_exact_at(part, *offset)
                .map_err(StoreError::io("reading the spill file"))?;
            rest = after;
        }
        all.append(&mut self.buffer);
        Ok(all)
    }
}

/// Calls `visit` with the place of each record: its offset, key and value.
pub(super) fn records(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8], &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (lengths, rest) = bytes.get(at..)?.split_first_chunk::<HEADER_BYTES>()?;
        let (key, rest) = rest.split_at_checked(usize::from(lengths[0]))?;
        let value = rest.get(..usize::from(lengths[1]))?;
        let offset = at;
        at = at.saturating_add(HEADER_BYTES + key.len() + value.len());
        Some((offset, key, value))
    })
}

/// The record at an offset that [`records`] gave.
pub(super) fn record_at(bytes: &[u8], offset: usize) -> Option<(&[u8], &[u8])> {
    let (lengths, rest) = bytes.get(offset..)?.split_first_chunk::<HEADER_BYTES>()?;
    let (key, rest) = rest.split_at_checked(usize::from(lengths[0]))?;
    Some((key, rest.get(..usize::from(lengths[1]))?))
}
