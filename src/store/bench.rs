//! The raw path of a bulk load, without leaves, proofs or protocol: the limit that
//! `hashpact bench pull` is measured against.

use std::path::Path;

use bytes::Bytes;
use hashpact_core::id::UnixMillis;

use crate::bulk::{self, SortedFile, Spill};
use crate::error::Result;
use crate::families::Family;
use crate::keys::{self, FeedNo, IndexKey};
use crate::options::StoreOptions;
use crate::record::{POSTING_MAX_BYTES, PostingRecord};
use crate::store::Store;

/// Page bytes that go in as one file.
const PAGES_BYTES: usize = 32 << 20;
/// The feed that the records name; it does not exist.
const FEED: FeedNo = FeedNo(1);

/// Pages and postings on their way into a store of their own, through the same
/// spill and files as a bulk load, with as many threads. Nothing is read, checked
/// or counted, and no look-up finds any of it.
pub struct RawLoad {
    store: Store,
    spill: Spill,
    pages: Vec<(u64, Bytes)>,
    page_bytes: usize,
    value: Vec<u8>,
}

impl RawLoad {
    /// Begins in an empty folder.
    ///
    /// # Errors
    /// What disk and RocksDB answer.
    pub fn begin(dir: &Path, options: &StoreOptions) -> Result<Self> {
        let store = Store::open(dir, options)?;
        Ok(Self {
            spill: Spill::new(&store.inner),
            store,
            pages: Vec::new(),
            page_bytes: 0,
            value: Vec::with_capacity(POSTING_MAX_BYTES),
        })
    }

    /// Keeps a page; numbers ascend.
    ///
    /// # Errors
    /// What disk and RocksDB answer.
    pub fn page(&mut self, number: u64, wire: Bytes) -> Result<()> {
        self.page_bytes = self.page_bytes.saturating_add(wire.len());
        self.pages.push((number, wire));
        if self.page_bytes >= PAGES_BYTES {
            self.write_pages()?;
        }
        Ok(())
    }

    /// Keeps a posting of leaf `index`.
    ///
    /// # Errors
    /// What the disk answers.
    pub fn posting(&mut self, key: &IndexKey, index: u64) -> Result<()> {
        let record = PostingRecord {
            media_kind: 1,
            basis: 1,
            quality: Some(100),
            class: 0,
            published: UnixMillis(1_767_225_600_000),
            first_back: 0,
        };
        self.value.clear();
        record.write(&mut self.value);
        let key = keys::signal(key, FEED, index);
        self.spill.put(Family::Signals, &key, &self.value)
    }

    /// Sorts, writes and ingests what is left. From here on all of it is durable.
    ///
    /// # Errors
    /// What disk and RocksDB answer.
    pub fn finish(mut self) -> Result<Store> {
        self.write_pages()?;
        bulk::load(&self.store.inner, self.spill)?;
        Ok(self.store)
    }

    fn write_pages(&mut self) -> Result<()> {
        self.page_bytes = 0;
        if self.pages.is_empty() {
            return Ok(());
        }
        let mut file = SortedFile::create(&self.store.inner, Family::Pages);
        for (number, wire) in self.pages.drain(..) {
            file.put(&keys::numbered(FEED, number), &wire);
        }
        file.ingest(&self.store.inner)
    }
}

impl std::fmt::Debug for RawLoad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawLoad").finish_non_exhaustive()
    }
}
