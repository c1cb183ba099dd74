//! Where a node's audit feed lies: segments with their leaves and newest heads, and
//! the acts that have begun and not ended.
//!
//! It is no feed of the store's table: nothing that serves, announces, pulls or looks
//! up knows of it. What a leaf says, what is signed and when a segment is sealed is
//! the node's; here are one key space and one atomic batch.
//!
//! | key | value |
//! |---|---|
//! | 1, segment | feed id |
//! | 2, segment, index | kind, payload |
//! | 3, segment | note of the newest head |
//! | 4, number | payload of an act that has begun |

use bytes::Bytes;
use hashpact_core::id::{Digest, FeedId};
use hashpact_core::leaf::RawLeaf;
use rocksdb::WriteBatch;

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::sign_state::{SignState, SignStateError};
use crate::store::{Inner, Store};

const SEGMENT: u8 = 1;
const LEAF: u8 = 2;
const HEAD: u8 = 3;
const BEGUN: u8 = 4;

/// What one atomic write changes.
#[derive(Debug, Default)]
pub struct AuditBatch {
    /// A segment that begins, with its id as a feed.
    pub begin: Option<(u64, FeedId)>,
    /// Leaves, each with its segment and index.
    pub leaves: Vec<(u64, u64, RawLeaf)>,
    /// An act that has ended, by its number among those begun.
    pub ended: Option<u64>,
    /// A segment that goes, with all its leaves and its head.
    pub remove: Option<u64>,
}

impl Store {
    /// The segments held, oldest first.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn audit_segments(&self) -> Result<Vec<(u64, FeedId)>> {
        let mut segments = Vec::new();
        self.inner.scan_audit(SEGMENT, 0, |key, value| {
            let id = Digest::from_slice(value).map_err(|_| corrupt("an audit segment's id"))?;
            segments.push((read_key(key)?.0, FeedId(id)));
            Ok(true)
        })?;
        Ok(segments)
    }

    /// Calls `visit` with the leaves of a segment from index `from` on, until it
    /// answers false.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn audit_leaves(
        &self,
        segment: u64,
        from: u64,
        mut visit: impl FnMut(u64, RawLeaf) -> Result<bool>,
    ) -> Result<()> {
        let (begin, end) = (key(LEAF, segment, from), key(LEAF, segment, u64::MAX));
        let visit = |key: &[u8], value: &[u8]| visit(read_key(key)?.1, read_leaf(value)?);
        self.inner.scan(Family::Audit, &begin, &end, visit)
    }

    /// One leaf, as it lies on the disk.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn audit_leaf(&self, segment: u64, index: u64) -> Result<Option<RawLeaf>> {
        let value = self.inner.get(Family::Audit, key(LEAF, segment, index))?;
        value.map(|value| read_leaf(&value)).transpose()
    }

    /// The note of a segment's newest head.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn audit_head(&self, segment: u64) -> Result<Option<Bytes>> {
        let note = self.inner.get(Family::Audit, key(HEAD, segment, 0))?;
        Ok(note.map(Bytes::from))
    }

    /// Keeps the note of a segment's newest head.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn put_audit_head(&self, segment: u64, note: &[u8]) -> Result<()> {
        let mut batch = WriteBatch::default();
        let family = self.inner.cf(Family::Audit)?;
        batch.put_cf(family, key(HEAD, segment, 0), note);
        // Crash: before, or before the next synced write, the identical head is signed
        // again at the next start, as the sign-state file says.
        self.inner.write_unsynced(batch, "keeping an audit head")
    }

    /// Notes that an act begins, durably; answers its number.
    ///
    /// # Errors
    /// What RocksDB answers: then the act must not begin.
    pub fn begin_audit(&self, number: u64, payload: &[u8]) -> Result<()> {
        let mut batch = WriteBatch::default();
        self.inner.begin_audit(&mut batch, number, payload)?;
        // Crash: before, the act did not begin; after, the next start says that it did
        // and that nobody knows how it ended.
        self.inner.write_synced(batch, "noting an act")
    }

    /// The acts that have begun and not ended, in the order of their numbers.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn audit_begun(&self) -> Result<Vec<(u64, Bytes)>> {
        let mut begun = Vec::new();
        self.inner.scan_audit(BEGUN, 0, |key, value| {
            begun.push((read_key(key)?.0, Bytes::copy_from_slice(value)));
            Ok(true)
        })?;
        Ok(begun)
    }

    /// Appends what ended, and what goes with it, in one durable step.
    ///
    /// # Errors
    /// What RocksDB answers; then nothing of it was written.
    pub fn write_audit(&self, change: &AuditBatch) -> Result<()> {
        let family = self.inner.cf(Family::Audit)?;
        let mut batch = WriteBatch::default();
        if let Some((segment, id)) = change.begin {
            batch.put_cf(family, key(SEGMENT, segment, 0), id.0.as_bytes());
        }
        for (segment, index, leaf) in &change.leaves {
            batch.put_cf(family, key(LEAF, *segment, *index), leaf_value(leaf)?);
        }
        if let Some(number) = change.ended {
            batch.delete_cf(family, key(BEGUN, number, 0));
        }
        if let Some(segment) = change.remove {
            batch.delete_cf(family, key(SEGMENT, segment, 0));
            batch.delete_cf(family, key(HEAD, segment, 0));
            let (begin, end) = (key(LEAF, segment, 0), key(LEAF, segment, u64::MAX));
            batch.delete_range_cf(family, begin, end);
        }
        // Crash: before, an act that has begun is still noted as such, and a segment
        // that was to go is still there; after, the leaf stands in place of the note.
        self.inner.write_synced(batch, "recording an act")
    }
}

impl Inner {
    /// Adds the note that an act begins to a batch.
    pub(crate) fn begin_audit(
        &self,
        batch: &mut WriteBatch,
        number: u64,
        payload: &[u8],
    ) -> Result<()> {
        batch.put_cf(self.cf(Family::Audit)?, key(BEGUN, number, 0), payload);
        Ok(())
    }

    fn scan_audit(
        &self,
        of: u8,
        from: u64,
        visit: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let (begin, end) = (key(of, from, 0), [of.saturating_add(1)]);
        self.scan(Family::Audit, &begin, &end, visit)
    }
}

impl SignState {
    /// Forgets a feed of which nothing will be signed any more, since another signed
    /// one names its last state: a sealed segment.
    ///
    /// # Errors
    /// [`SignStateError::Io`] when it may or may not be forgotten.
    pub fn end(&mut self, feed: &FeedId) -> std::result::Result<(), SignStateError> {
        let mut states = self.states.clone();
        if states.remove(feed).is_some() {
            self.replace(&states)?;
            self.states = states;
        }
        Ok(())
    }
}

fn key(of: u8, number: u64, index: u64) -> [u8; 17] {
    let mut key = [0; 17];
    key[0] = of;
    key[1..9].copy_from_slice(&number.to_be_bytes());
    key[9..].copy_from_slice(&index.to_be_bytes());
    key
}

fn read_key(key: &[u8]) -> Result<(u64, u64)> {
    let wrong = || corrupt("a key of the audit feed");
    let (_, rest) = key.split_first().ok_or_else(wrong)?;
    let (number, index) = rest.split_first_chunk::<8>().ok_or_else(wrong)?;
    let index: [u8; 8] = index.try_into().map_err(|_| wrong())?;
    Ok((u64::from_be_bytes(*number), u64::from_be_bytes(index)))
}

fn leaf_value(leaf: &RawLeaf) -> Result<Vec<u8>> {
    let payload = leaf
        .payload()
        .ok_or_else(|| corrupt("an audit leaf without its payload"))?;
    Ok([&[leaf.kind], payload.as_ref()].concat())
}

fn read_leaf(value: &[u8]) -> Result<RawLeaf> {
    let (kind, payload) = value
        .split_first()
        .ok_or_else(|| corrupt("an audit leaf"))?;
    Ok(RawLeaf::new(*kind, Bytes::copy_from_slice(payload)))
}

const fn corrupt(what: &'static str) -> StoreError {
    StoreError::corrupt(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreOptions;

    fn leaf(text: &'static str) -> RawLeaf {
        RawLeaf::new(65, Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn what_ended_takes_the_place_of_what_began_and_a_segment_goes_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &StoreOptions::default()).unwrap();
        let id = |n: u8| FeedId(Digest([n; 32]));
        store.begin_audit(7, b"began").unwrap();
        let mut write = AuditBatch {
            begin: Some((0, id(1))),
            leaves: vec![(0, 0, leaf("first")), (0, 1, leaf("act"))],
            ended: Some(7),
            remove: None,
        };
        store.write_audit(&write).unwrap();
        store.put_audit_head(0, b"note").unwrap();
        assert!(store.audit_begun().unwrap().is_empty());
        assert_eq!(store.audit_leaf(0, 1).unwrap(), Some(leaf("act")));
        write = AuditBatch {
            begin: Some((1, id(2))),
            leaves: vec![(1, 0, leaf("second"))],
            ended: None,
            remove: Some(0),
        };
        store.write_audit(&write).unwrap();
        drop(store);
        let store = Store::open(folder.path(), &StoreOptions::default()).unwrap();
        assert_eq!(store.audit_segments().unwrap(), [(1, id(2))]);
        assert_eq!(store.audit_head(0).unwrap(), None);
        let mut left = Vec::new();
        for segment in 0..2 {
            let visit = |index, leaf| {
                left.push((segment, index, leaf));
                Ok(true)
            };
            store.audit_leaves(segment, 0, visit).unwrap();
        }
        assert_eq!(left, [(1, 0, leaf("second"))]);
    }

    #[test]
    fn a_feed_that_ended_is_forgotten_and_the_others_stay() {
        use crate::sign_state::SignedState;
        use hashpact_core::merkle::CompactRange;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let mut state = SignState::create(&path).unwrap();
        let signed = SignedState {
            epoch: 0,
            size: 1,
            root: Digest([3; 32]),
        };
        let [a, b] = [1, 2].map(|n| FeedId(Digest([n; 32])));
        for feed in [a, b] {
            let none = CompactRange::default();
            state.advance(&feed, None, signed, &none).unwrap();
        }
        state.end(&a).unwrap();
        drop(state);
        let state = SignState::open(&path).unwrap();
        assert_eq!(state.states().collect::<Vec<_>>(), [(b, signed)]);
    }
}
