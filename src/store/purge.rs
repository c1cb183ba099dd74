//! Getting dropped payloads off the disk: until the files that held them are
//! rewritten, their bytes lie there still.
//!
//! A batch that drops payloads says so in the feed's row; [`Store::purge`] empties
//! memory and log, rewrites the files in question and takes that back. A crash in
//! between leaves it said, and everything of the feed is rewritten the next time.
//!
//! The first and last keys of files also stand in RocksDB's manifest, where a value
//! that was one of them stays until the store is opened again. Blocks that the file
//! system freed are the encrypted volume's to protect.

use std::collections::BTreeMap;

use rocksdb::{BottommostLevelCompaction, CompactOptions, WriteBatch};

use crate::error::Result;
use crate::families::Family;
use crate::feeds::{PART_PURGE, part};
use crate::keys::{self, FeedNo};
use crate::store::{Inner, Store, hold};

/// Single keys and pages that are rewritten one by one; for more, the family is.
const PLACES_MAX: usize = 32;

/// Where dropped payloads may still lie.
#[derive(Default)]
pub(crate) struct Purges {
    /// By feed, what nobody has begun to rewrite.
    pub(crate) due: BTreeMap<FeedNo, Purge>,
    /// Files are being rewritten.
    running: bool,
}

/// Where dropped payloads of one feed may still lie.
#[derive(Default)]
pub(crate) struct Purge {
    /// More places than are kept, or a crash: all of the feed.
    everywhere: bool,
    pages: Vec<u64>,
    /// Keys that themselves say what was dropped, of signals, references and opinions.
    keys: Vec<(Family, Vec<u8>)>,
}

impl Purge {
    /// Adds places; when they are too many, all of the feed.
    pub(crate) fn add(&mut self, page: u64, keys: Vec<(Family, Vec<u8>)>) {
        self.pages.push(page);
        self.keys.extend(keys);
        self.everywhere |= self.pages.len() > PLACES_MAX || self.keys.len() > PLACES_MAX;
        if self.everywhere {
            self.pages = Vec::new();
            self.keys = Vec::new();
        }
    }
}

impl Store {
    /// Whether dropped payloads may still lie in files.
    #[must_use]
    pub fn purge_due(&self) -> bool {
        let purges = hold(&self.inner.purges);
        purges.running || !purges.due.is_empty()
    }

    /// Rewrites the files in which dropped payloads may lie. Long for a large store,
    /// with many of them; reads and writes go on. When it answers, all that was dropped
    /// before is off the disk, whoever saw to it.
    ///
    /// # Errors
    /// What RocksDB answers; then it is due still.
    pub fn purge(&self) -> Result<()> {
        let inner = &*self.inner;
        let _turn = hold(&inner.purging);
        let due = {
            let mut purges = hold(&inner.purges);
            purges.running = !purges.due.is_empty();
            std::mem::take(&mut purges.due)
        };
        if due.is_empty() {
            return Ok(());
        }
        let done = self.rewrite(&due);
        let mut purges = hold(&inner.purges);
        purges.running = false;
        if let Err(error) = done {
            for no in due.into_keys() {
                purges.due.entry(no).or_default().everywhere = true;
            }
            return Err(error);
        }
        // Crash: before, all of these feeds are rewritten once more; after, nothing
        // of what was dropped is left. What was dropped meanwhile is said anew.
        let mut batch = WriteBatch::default();
        for no in due.into_keys().filter(|no| !purges.due.contains_key(no)) {
            batch.delete_cf(inner.cf(Family::Feeds)?, part(no, PART_PURGE));
        }
        inner.write_synced(batch, "noting a purge")
    }

    fn rewrite(&self, due: &BTreeMap<FeedNo, Purge>) -> Result<()> {
        let inner = &*self.inner;
        // Memory and log first: a log goes once all that it holds is in files.
        self.flush()?;
        let mut families = Vec::new();
        for (no, purge) in due {
            let (from, to) = (keys::feed_prefix(*no).to_vec(), keys::feed_end(*no));
            inner.rewrite(Family::Tail, Some(&from), Some(&to))?;
            if purge.everywhere {
                inner.rewrite(Family::Pages, Some(&from), Some(&to))?;
                inner.rewrite(Family::Refs, Some(&from), Some(&to))?;
                families = vec![Family::Signals, Family::Opinions];
                continue;
            }
            for page in &purge.pages {
                let key = keys::numbered(*no, *page);
                inner.rewrite(Family::Pages, Some(&key), Some(&key))?;
            }
            for (family, key) in &purge.keys {
                inner.rewrite(*family, Some(key), Some(key))?;
            }
        }
        for family in families {
            inner.rewrite(family, None, None)?;
        }
        Ok(())
    }
}

impl Inner {
    /// Rewrites the files that may hold keys from `from` to `to`, both included.
    fn rewrite(&self, family: Family, from: Option<&[u8]>, to: Option<&[u8]>) -> Result<()> {
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        // Else a value that was deleted would stay, as a deletion's key.
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        let family = self.cf(family)?;
        self.db.compact_range_cf_opt(family, from, to, &options);
        Ok(())
    }
}

/// Adds to a batch that drops payloads of a feed that they may lie in files. The
/// caller holds the purges until the batch is written and its places are added.
pub(crate) fn put(inner: &Inner, batch: &mut WriteBatch, no: FeedNo) -> Result<()> {
    batch.put_cf(inner.cf(Family::Feeds)?, part(no, PART_PURGE), [1]);
    Ok(())
}

/// Takes up what a crash left to be done.
pub(crate) fn load(inner: &Inner, no: FeedNo) -> Result<()> {
    if inner.get(Family::Feeds, part(no, PART_PURGE))?.is_some() {
        let mut purges = hold(&inner.purges);
        purges.due.entry(no).or_default().everywhere = true;
    }
    Ok(())
}
