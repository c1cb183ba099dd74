//! How large the store is and what RocksDB still has to do.

use rocksdb::{BottommostLevelCompaction, CompactOptions, properties};

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::store::Store;

/// Sizes of one column family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyStats {
    /// The family's name.
    pub name: &'static str,
    /// Bytes of its files.
    pub file_bytes: u64,
    /// Records, as RocksDB estimates them.
    pub records_estimate: u64,
    /// Bytes in memory that are not in files yet.
    pub memory_bytes: u64,
}

/// Sizes of the whole store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes of all files in the store's folder.
    pub disk_bytes: u64,
    /// What compaction has yet to rewrite, as RocksDB estimates it.
    pub pending_compaction_bytes: u64,
    /// Compactions and flushes that run.
    pub running_jobs: u64,
    /// Bytes of the block cache in use.
    pub cache_bytes: u64,
    /// Bytes of filters and indexes in memory.
    pub reader_bytes: u64,
    /// Every family, in the catalogue's order.
    pub families: Vec<FamilyStats>,
}

impl Store {
    /// Measures the store.
    ///
    /// # Errors
    /// What disk and RocksDB answer.
    pub fn stats(&self) -> Result<StoreStats> {
        let mut stats = StoreStats {
            disk_bytes: folder_bytes(self.dir())?,
            pending_compaction_bytes: 0,
            running_jobs: 0,
            cache_bytes: u64::try_from(self.inner.cache.get_usage()).unwrap_or(u64::MAX),
            reader_bytes: 0,
            families: Vec::with_capacity(Family::ALL.len()),
        };
        for family in Family::ALL {
            let pending = self.property(family, properties::ESTIMATE_PENDING_COMPACTION_BYTES)?;
            stats.pending_compaction_bytes = stats.pending_compaction_bytes.saturating_add(pending);
            let readers = self.property(family, properties::ESTIMATE_TABLE_READERS_MEM)?;
            stats.reader_bytes = stats.reader_bytes.saturating_add(readers);
            stats.families.push(FamilyStats {
                name: family.name(),
                file_bytes: self.property(family, properties::TOTAL_SST_FILES_SIZE)?,
                records_estimate: self.property(family, properties::ESTIMATE_NUM_KEYS)?,
                memory_bytes: self.property(family, properties::CUR_SIZE_ALL_MEM_TABLES)?,
            });
        }
        let compactions = self.property(Family::Meta, properties::NUM_RUNNING_COMPACTIONS)?;
        let flushes = self.property(Family::Meta, properties::NUM_RUNNING_FLUSHES)?;
        stats.running_jobs = compactions.saturating_add(flushes);
        Ok(stats)
    }

    /// Waits until RocksDB has flushed and compacted all that it wants to.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn settle(&self) -> Result<()> {
        let mut options = rocksdb::WaitForCompactOptions::default();
        options.set_flush(true);
        self.inner
            .db
            .wait_for_compact(&options)
            .map_err(StoreError::engine("waiting for compaction"))
    }

    /// Rewrites every file of every family once, as RocksDB does by itself in the course
    /// of time. Long for a large store; reads and writes go on.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn compact(&self) -> Result<()> {
        self.flush()?;
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        let (from, to) = (None::<&[u8]>, None::<&[u8]>);
        for family in Family::ALL {
            let family = self.inner.cf(family)?;
            self.inner
                .db
                .compact_range_cf_opt(family, from, to, &options);
        }
        self.settle()
    }

    fn property(&self, family: Family, name: &properties::PropName) -> Result<u64> {
        let value = self
            .inner
            .db
            .property_int_value_cf(self.inner.cf(family)?, name)
            .map_err(StoreError::engine("reading a property"))?;
        Ok(value.unwrap_or(0))
    }
}

/// Bytes of all files below a folder; those that go away meanwhile count nothing.
fn folder_bytes(folder: &std::path::Path) -> Result<u64> {
    let what = "measuring the store's folder";
    let mut sum = 0_u64;
    for entry in std::fs::read_dir(folder).map_err(StoreError::io(what))? {
        let entry = entry.map_err(StoreError::io(what))?;
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let bytes = if metadata.is_dir() {
            folder_bytes(&entry.path())?
        } else {
            metadata.len()
        };
        sum = sum.saturating_add(bytes);
    }
    Ok(sum)
}
