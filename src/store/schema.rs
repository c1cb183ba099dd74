//! The schema's version and the chain of migrations that leads to it.

use rocksdb::WriteBatch;

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::store::Inner;

/// Where the version stands.
const KEY: &[u8] = b"schema";
/// A migration: reads and writes what it must, idempotently, in bounded batches.
type Migration = fn(&Inner) -> Result<()>;
/// `MIGRATIONS[n]` leads from schema n + 1 to n + 2.
const MIGRATIONS: &[Migration] = &[
    // Opinions are indexed.
    crate::opinions::migrate,
    // Mutes and the policy are kept.
    crate::mutes::migrate,
    // Receipts are kept by themselves.
    crate::receipts::migrate,
    // The match journal.
    crate::journal::migrate,
    // Retractions have rows of their own.
    crate::retractions::migrate,
    // Evidence of forks has names.
    crate::forks::migrate,
    // Frames are counted, and may wait; feeds may be unconfirmed.
    crate::frame_room::migrate,
    // The status of feeds has a record of its own.
    crate::status::migrate,
];

/// The schema that this program writes.
pub(crate) fn current() -> u32 {
    u32::try_from(MIGRATIONS.len())
        .unwrap_or(u32::MAX)
        .saturating_add(1)
}

/// Brings the store to [`current`].
pub(crate) fn migrate(inner: &Inner) -> Result<()> {
    let Some(found) = inner.get(Family::Meta, KEY)? else {
        return record(inner, current());
    };
    let found = <[u8; 4]>::try_from(found)
        .map(u32::from_be_bytes)
        .map_err(|_| StoreError::corrupt("the schema's version cannot be read"))?;
    let refused = StoreError::Schema {
        found,
        supported: current(),
    };
    let done = found.checked_sub(1).and_then(|n| usize::try_from(n).ok());
    let Some(rest) = done.and_then(|done| MIGRATIONS.get(done..)) else {
        return Err(refused);
    };
    let mut version = found;
    for migration in rest {
        migration(inner)?;
        version = version.saturating_add(1);
        record(inner, version)?;
    }
    Ok(())
}

/// Crash: before, the migration runs again, which it must bear; after, it is done.
fn record(inner: &Inner, version: u32) -> Result<()> {
    let mut batch = WriteBatch::default();
    batch.put_cf(inner.cf(Family::Meta)?, KEY, version.to_be_bytes());
    inner.write_synced(batch, "recording the schema")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Store, StoreOptions};

    #[test]
    fn a_store_of_a_newer_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
        record(&store.inner, current() + 1).unwrap();
        drop(store);
        let error = Store::open(dir.path(), &StoreOptions::default()).unwrap_err();
        assert!(matches!(error, StoreError::Schema { .. }), "{error}");
    }

    #[test]
    fn a_second_process_is_told_who_has_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let _store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
        let error = Store::open(dir.path(), &StoreOptions::default()).unwrap_err();
        assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    }
}
