//! Heads: the signed states of feeds, with what witnesses and readers added.

use bytes::Bytes;
use hashpact_core::checkpoint::SignedCheckpoint;
use hashpact_core::id::{Digest, UnixMillis};
use hashpact_core::verified::Verified;
use rocksdb::WriteBatch;

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::HeadRef;
use crate::keys::{self, FeedNo};
use crate::record::{HeadRecord, seal, unseal};
use crate::store::{Inner, Store};

/// A signed head as it is kept and announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    at: HeadRef,
    note: Bytes,
    /// C2SP cosignature lines, checked by the caller.
    pub cosignatures: Vec<Bytes>,
    /// Envelopes with receipts, checked by the caller.
    pub receipts: Vec<Bytes>,
    /// When this node had it first.
    pub received: UnixMillis,
}

impl Head {
    /// Takes a verified checkpoint.
    #[must_use]
    pub fn new(checkpoint: &Verified<SignedCheckpoint>, received: UnixMillis) -> Self {
        Self {
            at: HeadRef {
                epoch: checkpoint.checkpoint.origin.epoch,
                size: checkpoint.checkpoint.size,
                root: checkpoint.checkpoint.root,
            },
            note: checkpoint.note.clone(),
            cosignatures: Vec::new(),
            receipts: Vec::new(),
            received,
        }
    }

    /// Epoch, size and root.
    #[must_use]
    pub const fn at(&self) -> HeadRef {
        self.at
    }

    /// The note as the publisher signed it.
    #[must_use]
    pub const fn note(&self) -> &Bytes {
        &self.note
    }

    pub(crate) fn record(&self) -> Vec<u8> {
        seal(&HeadRecord {
            root: self.at.root.0.to_vec(),
            note: self.note.clone(),
            cosignatures: self.cosignatures.clone(),
            receipts: self.receipts.clone(),
            received_ms: self.received.0,
        })
    }

    pub(crate) fn read(epoch: u32, size: u64, record: &[u8]) -> Result<Self> {
        let record: HeadRecord = unseal(record, "a head")?;
        let root =
            Digest::from_slice(&record.root).map_err(|_| StoreError::corrupt("a head's root"))?;
        Ok(Self {
            at: HeadRef { epoch, size, root },
            note: record.note,
            cosignatures: record.cosignatures,
            receipts: record.receipts,
            received: UnixMillis(record.received_ms),
        })
    }
}

impl Store {
    /// Keeps a head, or what was added to one, durably. It need not be applied yet.
    ///
    /// # Errors
    /// [`StoreError::HeadMismatch`] when another root is kept for its epoch and
    /// size: that is evidence, and the caller has both.
    pub fn put_head(&self, no: FeedNo, head: &Head) -> Result<()> {
        self.inner.feed(no)?;
        // Crash: before, the head is asked for again; after, it is kept.
        let mut batch = WriteBatch::default();
        self.inner.put_head(&mut batch, no, head)?;
        self.inner.write_synced(batch, "keeping a head")
    }

    /// The head of one epoch and size.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn head(&self, no: FeedNo, epoch: u32, size: u64) -> Result<Option<Head>> {
        let record = self.inner.get(Family::Heads, keys::head(no, epoch, size))?;
        record
            .map(|record| Head::read(epoch, size, &record))
            .transpose()
    }

    /// The head that was committed last.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`], or what RocksDB answers.
    pub fn applied_head(&self, no: FeedNo) -> Result<Option<Head>> {
        match self.feed(no)?.applied {
            Some(at) => self.head(no, at.epoch, at.size),
            None => Ok(None),
        }
    }

    /// The heads kept of a feed, newest first, at most `limit`.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn heads(&self, no: FeedNo, limit: usize) -> Result<Vec<Head>> {
        let mut options = rocksdb::ReadOptions::default();
        options.set_iterate_lower_bound(keys::feed_prefix(no));
        let family = self.inner.cf(Family::Heads)?;
        let mut iterator = self.inner.db.raw_iterator_cf_opt(family, options);
        iterator.seek_for_prev(keys::head(no, u32::MAX, u64::MAX));
        let mut heads = Vec::new();
        while let Some((key, record)) = iterator.item() {
            if heads.len() == limit {
                break;
            }
            let (_, epoch, size) = keys::read_head(key)?;
            heads.push(Head::read(epoch, size, record)?);
            iterator.prev();
        }
        iterator
            .status()
            .map_err(StoreError::engine("reading heads"))?;
        Ok(heads)
    }

    /// Forgets all heads but the newest `keep` and the applied one; answers how
    /// many went.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn prune_heads(&self, no: FeedNo, keep: usize) -> Result<usize> {
        let applied = self.feed(no)?.applied;
        let old = self.heads(no, usize::MAX)?;
        let mut batch = WriteBatch::default();
        for head in old.iter().skip(keep) {
            if Some(head.at) != applied {
                let key = keys::head(no, head.at.epoch, head.at.size);
                batch.delete_cf(self.inner.cf(Family::Heads)?, key);
            }
        }
        let gone = batch.len();
        // Crash: before, the heads are pruned another time.
        self.inner.write_unsynced(batch, "pruning heads")?;
        Ok(gone)
    }
}

impl Inner {
    /// Adds a head to a batch, unless another root is kept for its epoch and size.
    pub(crate) fn put_head(&self, batch: &mut WriteBatch, no: FeedNo, head: &Head) -> Result<()> {
        let HeadRef { epoch, size, root } = head.at;
        let key = keys::head(no, epoch, size);
        let mut head = head.clone();
        if let Some(record) = self.get(Family::Heads, key)? {
            let kept = Head::read(epoch, size, &record)?;
            if kept.at.root != root {
                return Err(StoreError::HeadMismatch {
                    size,
                    held: self.stored(no)?,
                });
            }
            // The same head again takes nothing away that stands beside it.
            if head.cosignatures.is_empty() {
                head.cosignatures = kept.cosignatures;
            }
            if head.receipts.is_empty() {
                head.receipts = kept.receipts;
            }
        }
        batch.put_cf(self.cf(Family::Heads)?, key, head.record());
        Ok(())
    }
}
