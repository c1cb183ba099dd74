//! A spill: records partitioned by the front of their keys, in bounded memory.
//!
//! A partition is a family and the first byte of the key that tells its records
//! apart: the first byte of a signal's value (digests are even in it), of a
//! reference's digest. Partitions fill buffers; when all of them together reach
//! the bound, they go to one temporary file in the store's folder, and from then on
//! each goes there whenever its buffer is full. The partitions of a family in order
//! are its key order, so each is sorted by itself.
//!
//! The file is as sensitive as the store, and on the same volume.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::store::Inner;

/// A record is `key length ‖ value length ‖ key ‖ value`; both fit a byte.
const HEADER_BYTES: usize = 2;
/// What is written at once once records go to the file, where the bound allows.
const EXTENT_MAX_BYTES: usize = 32 << 10;
const EXTENT_MIN_BYTES: usize = 2 << 10;
/// Partitions of signals (two bytes of their keys), then of references (one byte).
const SIGNAL_SLOTS: usize = 1 << 16;
const SLOTS: usize = SIGNAL_SLOTS + 256;
/// The slot has no partition yet.
const NONE: u32 = u32::MAX;

/// Which partition a record is in, in key order within a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(usize);

/// Records on their way into sorted files.
pub(crate) struct Spill {
    /// Where a slot's partition is; most slots never have one.
    places: Box<[u32]>,
    partitions: Vec<(Slot, Partition)>,
    held: usize,
    bound: usize,
    /// Buffers of this size go to the file, once there is one.
    extent: usize,
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
            places: vec![NONE; SLOTS].into_boxed_slice(),
            partitions: Vec::new(),
            held: 0,
            bound: inner.options.bulk_memory_bytes,
            extent: EXTENT_MAX_BYTES,
            path: super::file::new_path(inner, Family::Signals).with_extension("spill"),
            file: None,
            file_end: 0,
        }
    }

    /// Adds a record.
    pub(crate) fn put(&mut self, family: Family, key: &[u8], value: &[u8]) -> Result<()> {
        let lengths = u8::try_from(key.len())
            .ok()
            .zip(u8::try_from(value.len()).ok());
        let (key_len, value_len) =
            lengths.ok_or(StoreError::corrupt("a record is too long to spill"))?;
        let added = HEADER_BYTES + key.len() + value.len();
        let place = self.place(Slot::of(family, key))?;
        let extent = self.extent;
        let Some((_, partition)) = self.partitions.get_mut(place) else {
            return Err(LOST);
        };
        if let Some(file) = &self.file {
            if partition.buffer.len().saturating_add(added) > extent {
                partition.write(file, &mut self.file_end)?;
            }
            if partition.buffer.capacity() == 0 {
                partition.buffer.reserve_exact(extent);
                self.held = self.held.saturating_add(extent);
            }
        }
        let before = partition.buffer.capacity();
        partition.buffer.extend_from_slice(&[key_len, value_len]);
        partition.buffer.extend_from_slice(key);
        partition.buffer.extend_from_slice(value);
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
        let mut partitions = std::mem::take(&mut self.partitions);
        partitions.sort_unstable_by_key(|(slot, _)| *slot);
        let path = std::mem::take(&mut self.path);
        (partitions, self.file.take(), path)
    }

    /// Where the slot's partition is; a new one where there was none.
    fn place(&mut self, slot: Slot) -> Result<usize> {
        let place = self.places.get_mut(slot.0).ok_or(LOST)?;
        if *place == NONE {
            *place = u32::try_from(self.partitions.len()).map_err(|_| LOST)?;
            self.partitions.push((slot, Partition::default()));
        }
        usize::try_from(*place).map_err(|_| LOST)
    }

    /// Writes all that is held to the file. From here on each partition has a
    /// buffer of such a size that all of them together keep the bound; with very
    /// many partitions they do not, and are all written again.
    fn flush(&mut self) -> Result<()> {
        if self.file.is_none() {
            let file = File::options()
                .create_new(true)
                .read(true)
                .write(true)
                .open(&self.path)
                .map_err(StoreError::io(WRITING))?;
            self.file = Some(file);
        }
        let Some(file) = &self.file else {
            return Err(LOST);
        };
        for (_, partition) in &mut self.partitions {
            partition.write(file, &mut self.file_end)?;
            partition.buffer = Vec::new();
        }
        self.held = 0;
        // Room for as many partitions again: later leaves may bring other kinds.
        let most = self.bound / self.partitions.len().saturating_add(1) / 5 * 4;
        self.extent = most.clamp(EXTENT_MIN_BYTES, EXTENT_MAX_BYTES);
        Ok(())
    }
}

const WRITING: &str = "writing to the spill file";
const LOST: StoreError = StoreError::corrupt("a spill lost a partition");

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
        let at = |n: usize| usize::from(key.get(n).copied().unwrap_or(0));
        if family == Family::Signals {
            Self(at(0) << 8 | at(1))
        } else {
            // One feed's references: the first byte of the digest tells them apart.
            Self(SIGNAL_SLOTS + at(4))
        }
    }

    pub(super) const fn family(self) -> Family {
        if self.0 < SIGNAL_SLOTS {
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

    /// Moves what is in memory to the end of the file; the buffer stays.
    fn write(&mut self, file: &File, end: &mut u64) -> Result<()> {
        let len = self.buffer.len();
        if len == 0 {
            return Ok(());
        }
        file.write_all_at(&self.buffer, *end)
            .map_err(StoreError::io(WRITING))?;
        self.extents.push((*end, len));
        *end = end.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
        self.buffer.clear();
        Ok(())
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
