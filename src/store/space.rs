//! Room on the volume that the store lies on, and what each publisher takes of it.
//!
//! Says how much is free and how much of that is to stay free; what a node does about
//! it is its callers' to decide. Nothing here frees anything.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use hashpact_core::id::MemberNumber;
use hashpact_core::leaf::RawLeaf;

use crate::error::{Result, StoreError};
use crate::store::{BULK_FOLDER, Store, read};

/// What a leaf takes beside its payload: its record, its part of the tree, its rows in
/// the index. With it the bench entry comes to 194 bytes; 187 were measured.
const LEAF_OVERHEAD_BYTES: u64 = 64;
/// What a leaf is taken to have cost that was stored before this was counted.
pub(crate) const LEAF_BYTES_GUESS: u64 = 192;
/// Below this part of what is to stay free nothing more is taken from peers at all:
/// what is left is for retractions, and for the node's own books.
const LAST_PART: u64 = 4;

/// Bytes of the store's volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Free, less what running bulk loads are about to need.
    pub free_bytes: u64,
    /// What is to stay free.
    pub min_bytes: u64,
}

/// What there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Everything.
    Ample,
    /// What retracts, erases or describes; of the rest the records alone.
    RecordsOnly,
    /// Nothing that a peer sends.
    Nothing,
}

impl Room {
    /// The word for metrics and `/ready`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ample => "ample",
            Self::RecordsOnly => "records_only",
            Self::Nothing => "nothing",
        }
    }
}

impl Space {
    /// What there is room for, where it was `before`: a little more than the minimum
    /// must be free again before it counts as ample, so that it does not flicker.
    #[must_use]
    const fn room(self, before: Room) -> Room {
        let back = match before {
            Room::Ample => 0,
            Room::RecordsOnly | Room::Nothing => self.min_bytes / 8,
        };
        if self.free_bytes < self.min_bytes / LAST_PART {
            Room::Nothing
        } else if self.free_bytes < self.min_bytes.saturating_add(back) {
            Room::RecordsOnly
        } else {
            Room::Ample
        }
    }
}

impl Store {
    /// Measures the volume, and says what there is room for: the one place where that
    /// is decided, for pulls, imports, `status`, `/ready` and metrics alike.
    ///
    /// # Errors
    /// What the system answers.
    pub fn room(&self) -> Result<(Room, Space)> {
        let space = self.space()?;
        let mut room = self
            .inner
            .room
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *room = space.room(*room);
        Ok((*room, space))
    }

    fn space(&self) -> Result<Space> {
        let what = "asking for the free space of the store's volume";
        let stat =
            rustix::fs::statvfs(self.dir()).map_err(|error| StoreError::io(what)(error.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        // Sorted files are written beside the spill that they are made from.
        let owed = files_bytes(&self.dir().join(BULK_FOLDER));
        Ok(Space {
            free_bytes: free.saturating_sub(owed),
            min_bytes: self.inner.free_min.load(Ordering::Relaxed),
        })
    }

    /// Sets what is to stay free of the volume.
    pub fn set_free_min_bytes(&self, bytes: u64) {
        self.inner.free_min.store(bytes, Ordering::Relaxed);
    }

    /// What the pulled feeds of each publisher take of the disk, roughly.
    #[must_use]
    pub fn bytes_by_publisher(&self) -> BTreeMap<MemberNumber, u64> {
        let mut bytes: BTreeMap<MemberNumber, u64> = BTreeMap::new();
        for state in self.inner.feeds().by_no.values().filter(|state| !state.own) {
            let sum = bytes.entry(state.publisher).or_default();
            *sum = sum.saturating_add(read(&state.live).row.bytes);
        }
        bytes
    }
}

/// What a leaf takes of the disk, roughly: as if nothing was compressed.
pub(crate) fn leaf_bytes(leaf: &RawLeaf) -> u64 {
    let payload = leaf.payload().map_or(0, bytes::Bytes::len);
    u64::try_from(payload)
        .unwrap_or(u64::MAX)
        .saturating_add(LEAF_OVERHEAD_BYTES)
}

/// Bytes of the files in a folder, as far as they can be asked.
fn files_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| entry.metadata().ok());
    sizes.fold(0, |sum, file| sum.saturating_add(file.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn space(free_bytes: u64) -> Space {
        Space {
            free_bytes,
            min_bytes: 800,
        }
    }

    #[test]
    fn below_the_minimum_records_alone_are_taken_and_near_the_end_nothing() {
        assert_eq!(space(800).room(Room::Ample), Room::Ample);
        assert_eq!(space(799).room(Room::Ample), Room::RecordsOnly);
        assert_eq!(space(200).room(Room::Ample), Room::RecordsOnly);
        assert_eq!(space(199).room(Room::RecordsOnly), Room::Nothing);
    }

    #[test]
    fn room_that_is_back_does_not_flicker() {
        assert_eq!(space(850).room(Room::RecordsOnly), Room::RecordsOnly);
        assert_eq!(space(899).room(Room::Nothing), Room::RecordsOnly);
        assert_eq!(space(900).room(Room::RecordsOnly), Room::Ample);
        assert_eq!(space(850).room(Room::Ample), Room::Ample);
    }
}
