//! Removing a feed, after a lost grant or a set given up.

use rocksdb::WriteBatch;

use crate::error::Result;
use crate::families::Family;
use crate::feeds::{FeedState, FeedStatus};
use crate::index::derive::derive;
use crate::keys::{self, FeedNo};
use crate::leaves::page_end;
use crate::store::{Inner, Store, hold, read};

impl Store {
    /// Removes a feed with everything derived from it. It answers nothing from the
    /// first moment; the rest takes a while for a large one. A removal that a crash
    /// cut off leaves the feed [`FeedStatus::Dropping`], to be asked for again.
    ///
    /// # Errors
    /// [`crate::StoreError::FeedBusy`] while it has a writer; what RocksDB answers.
    pub fn drop_feed(&self, no: FeedNo) -> Result<()> {
        let inner = &*self.inner;
        let state = inner.feed(no)?;
        state.take()?;
        // The feed stays taken: nobody writes it again.
        self.set_feed_status(no, FeedStatus::Dropping)?;
        remove_postings(inner, &state)?;
        let _turn = hold(&inner.catalogue);
        // Crash: before, the feed is dropping; after, nothing of it is left.
        let mut batch = WriteBatch::default();
        for family in [
            Family::Pages,
            Family::Tail,
            Family::Tree,
            Family::Heads,
            Family::Refs,
            Family::Killers,
            Family::Entries,
            Family::Quarantine,
            Family::Elided,
            Family::Receipts,
            Family::Retractions,
        ] {
            let (from, to) = (keys::feed_prefix(no).to_vec(), keys::feed_end(no));
            batch.delete_range_cf(inner.cf(family)?, from, to);
        }
        state.delete_row(inner, &mut batch)?;
        inner.write_synced(batch, "removing a feed")?;
        hold(&inner.page_hashes).forget(no);
        hold(&inner.purges).due.remove(&no);
        let mut table = (*inner.feeds()).clone();
        table.remove(no);
        inner.replace_feeds(table);
        inner.tell_dropped();
        Ok(())
    }
}

/// Crash: some postings and opinions are gone, none of which answered any more.
fn remove_postings(inner: &Inner, state: &FeedState) -> Result<()> {
    let stored = read(&state.live).row.stored;
    let mut at = 0;
    while at < stored {
        let end = page_end(at).min(stored);
        let mut batch = WriteBatch::default();
        for (index, leaf) in (at..).zip(inner.leaves(state.no, stored, at, end)?) {
            let derived = derive(inner, state, index, &leaf)?;
            for (key, _) in derived.postings {
                let key = keys::signal(&key, state.no, index);
                batch.delete_cf(inner.cf(Family::Signals)?, key);
            }
            if let Some(opinion) = derived.opinion {
                batch.delete_cf(inner.cf(Family::Opinions)?, opinion.key);
            }
        }
        inner.write_unsynced(batch, "removing postings")?;
        at = end;
    }
    Ok(())
}
