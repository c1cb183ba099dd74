//! Appending where there is no room: what retracts, erases or describes whole, of the
//! rest the record alone.
//!
//! So the feed's tree goes on and its retractions take effect. What came without its
//! payload lies in quarantine and is pulled again once there is room.

use hashpact_core::chunk::VerifiedChunk;
use hashpact_core::leaf::{DESCRIBE, ERASE, RETRACT, RawLeaf};

use super::FeedWriter;
use crate::error::Result;
use crate::quarantine::Reason;

impl FeedWriter {
    /// Appends a verified chunk without the payloads that there is no room for;
    /// answers how many were left out.
    ///
    /// # Errors
    /// As [`FeedWriter::append_verified`].
    pub fn append_records(&mut self, chunk: &VerifiedChunk) -> Result<u64> {
        let first = self.continues(chunk)?;
        self.catch_up()?;
        let mut left_out = Vec::new();
        let mut leaves = Vec::new();
        for (index, leaf) in chunk.leaves() {
            if needs_room(leaf) {
                left_out.push(index);
                leaves.push(leaf.elided());
            } else {
                leaves.push(leaf.clone());
            }
        }
        let count = u64::try_from(left_out.len()).unwrap_or(u64::MAX);
        self.quarantine(Reason::NoRoom, left_out);
        self.push_all(first, &leaves)?;
        self.sync_when_full()?;
        Ok(count)
    }
}

/// Whether the payload of a leaf is one that can wait. ⚠ Never that of one that takes
/// something back, or says who may read.
pub(super) fn needs_room(leaf: &RawLeaf) -> bool {
    !leaf.is_elided() && !matches!(leaf.kind, DESCRIBE | RETRACT | ERASE)
}
