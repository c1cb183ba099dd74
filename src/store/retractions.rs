//! Retract and erase leaves, a row each: what the rule on mass retractions asks of them,
//! so that none is read or verified for it again and again.
//!
//! Time and entries follow from the leaf and are written when it is indexed. Whether the
//! publisher's identity key signed it is the node's to say: its word stands in the row,
//! with the keys that it was checked with, and goes with the leaf.

use hashpact_core::id::UnixMillis;
use hashpact_core::leaf::{self, IndexRange, Leaf};
use hashpact_core::limits::PAGE_LEAVES;
use hashpact_core::liveness::Kills;
use rocksdb::WriteBatch;

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::{identities, part_row};
use crate::keys::{self, FeedNo};
use crate::record::{KillerRecord, unseal};
use crate::store::{Inner, Store};

const VERSION: u8 = 1;
/// Version, time, entries, mark, keys.
const ROW_BYTES: usize = 1 + 8 + 8 + 1 + 8;

/// What is known of a retract or erase leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetractionRow {
    /// The leaf's index.
    pub index: u64,
    /// When it was made, by its own word.
    pub created: UnixMillis,
    /// How many leaves it names.
    pub entries: u64,
    /// Whether the identity key signed it.
    pub signed: Signed,
}

/// What is known of the signature of a retract leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// It has none.
    No,
    /// It has one that nobody checked.
    Unchecked,
    /// It was checked.
    Checked {
        /// Stands for the keys that it was checked with.
        keys: u64,
        /// Whether one of them made it.
        good: bool,
    },
}

impl RetractionRow {
    /// What a leaf says; `None` for one that is no retract or erase leaf.
    pub(crate) fn of(index: u64, leaf: &Leaf) -> Option<Self> {
        let (ranges, created, signed) = match leaf {
            Leaf::Retract(retract) => {
                let bears = retract.identity_signature.is_some();
                let signed = if bears { Signed::Unchecked } else { Signed::No };
                (&retract.indexes, retract.created, signed)
            }
            Leaf::Erase(erase) => (&erase.indexes, erase.created, Signed::No),
            Leaf::Describe(_)
            | Leaf::Publish(_)
            | Leaf::Opinion(_)
            | Leaf::Unknown(_)
            | Leaf::Void(_)
            | Leaf::Elided => return None,
        };
        let counts = ranges.iter().map(|range| range.count);
        Some(Self {
            index,
            created,
            entries: counts.fold(0, u64::saturating_add),
            signed,
        })
    }

    /// Adds the row to a batch.
    pub(crate) fn put(&self, inner: &Inner, batch: &mut WriteBatch, no: FeedNo) -> Result<()> {
        let family = inner.cf(Family::Retractions)?;
        batch.put_cf(family, keys::numbered(no, self.index), self.write());
        Ok(())
    }

    fn write(&self) -> [u8; ROW_BYTES] {
        let (mark, keys) = match self.signed {
            Signed::No => (0, 0),
            Signed::Unchecked => (1, 0),
            Signed::Checked { keys, good: false } => (2, keys),
            Signed::Checked { keys, good: true } => (3, keys),
        };
        let mut row = [0; ROW_BYTES];
        row[0] = VERSION;
        row[1..9].copy_from_slice(&self.created.0.to_be_bytes());
        row[9..17].copy_from_slice(&self.entries.to_be_bytes());
        row[17] = mark;
        row[18..].copy_from_slice(&u64::to_be_bytes(keys));
        row
    }

    fn read(key: &[u8], row: &[u8]) -> Result<Self> {
        let wrong = || StoreError::corrupt("a retraction's row");
        let row: &[u8; ROW_BYTES] = row.try_into().map_err(|_| wrong())?;
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&row[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        let keys = number(18);
        let signed = match (row[0], row[17]) {
            (VERSION, 0) => Signed::No,
            (VERSION, 1) => Signed::Unchecked,
            (VERSION, 2) => Signed::Checked { keys, good: false },
            (VERSION, 3) => Signed::Checked { keys, good: true },
            _ => return Err(wrong()),
        };
        Ok(Self {
            index: keys::read_numbered(key)?.1,
            created: UnixMillis(number(1)),
            entries: number(9),
            signed,
        })
    }

    /// Whether the row that is kept says the same of the leaf; what became of its
    /// signature stands in no leaf.
    pub(crate) fn is_kept(&self, inner: &Inner, no: FeedNo) -> Result<bool> {
        let key = keys::numbered(no, self.index);
        let Some(row) = inner.get(Family::Retractions, key)? else {
            return Ok(false);
        };
        let mut kept = Self::read(&key, &row)?;
        if let Signed::Checked { .. } = kept.signed {
            kept.signed = Signed::Unchecked;
        }
        Ok(kept == *self)
    }
}

/// The rows of the leaves below `indexed`, counted.
pub(crate) fn count(inner: &Inner, no: FeedNo, indexed: u64) -> Result<u64> {
    let mut rows = 0_u64;
    let (from, to) = (keys::numbered(no, 0), keys::numbered(no, indexed));
    inner.scan(Family::Retractions, &from, &to, |_, _| {
        rows = rows.saturating_add(1);
        Ok(true)
    })?;
    Ok(rows)
}

/// Writes the rows of what was stored before there were any. It runs before feeds are
/// loaded, and writes the same rows when it runs again.
pub(crate) fn migrate(inner: &Inner) -> Result<()> {
    for (no, _) in identities(inner)? {
        let stored = part_row(inner, no)?.stored;
        let mut indexes = Vec::new();
        inner.scan_feed(Family::Killers, no, |key, record| {
            let record: KillerRecord = unseal(record, "a killer's row")?;
            let index = keys::read_numbered(key)?.1;
            if record.names_ranges() && index < stored {
                indexes.push(index);
            }
            Ok(true)
        })?;
        for page in indexes.chunk_by(|a, b| a / PAGE_LEAVES == b / PAGE_LEAVES) {
            let (Some(first), Some(last)) = (page.first(), page.last()) else {
                continue;
            };
            let leaves = inner.leaves(no, stored, *first, last.saturating_add(1))?;
            // Crash: before, the page is read again; after, its leaves have their rows.
            let mut batch = WriteBatch::default();
            for (index, raw) in (*first..).zip(&leaves) {
                if page.binary_search(&index).is_ok()
                    && let Some(row) = RetractionRow::of(index, &leaf::read(raw, index))
                {
                    row.put(inner, &mut batch, no)?;
                }
            }
            inner.write_unsynced(batch, "noting retractions")?;
        }
    }
    Ok(())
}

impl Store {
    /// What is known of the retract and erase leaves of a feed from `from` on, below what is
    /// indexed, and of `before` that many that come before them; the last one first.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`], or what RocksDB answers.
    pub fn retraction_rows(
        &self,
        no: FeedNo,
        from: u64,
        before: usize,
    ) -> Result<Vec<RetractionRow>> {
        let (mut rows, mut left) = (Vec::new(), before);
        self.backwards(no, 0, |row| {
            if row.index < from {
                let Some(rest) = left.checked_sub(1) else {
                    return false;
                };
                left = rest;
            }
            rows.push(row);
            true
        })?;
        Ok(rows)
    }

    /// The retract and erase leaves of a feed from `from` on, below what is indexed,
    /// the last one first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`], or what RocksDB answers.
    pub fn retractions(&self, no: FeedNo, from: u64, limit: usize) -> Result<Vec<u64>> {
        let mut found = Vec::new();
        self.backwards(no, from, |row| {
            let room = found.len() < limit;
            found.extend(room.then_some(row.index));
            room
        })?;
        Ok(found)
    }

    /// Shows the rows from `from` on, the last one first, until `visit` answers false.
    fn backwards(
        &self,
        no: FeedNo,
        from: u64,
        mut visit: impl FnMut(RetractionRow) -> bool,
    ) -> Result<()> {
        let inner = &*self.inner;
        let indexed = self.feed(no)?.indexed;
        let mut options = rocksdb::ReadOptions::default();
        options.set_iterate_lower_bound(keys::numbered(no, from));
        options.set_iterate_upper_bound(keys::numbered(no, indexed.max(from)));
        let family = inner.cf(Family::Retractions)?;
        let mut iterator = inner.db.raw_iterator_cf_opt(family, options);
        iterator.seek_to_last();
        while let Some((key, row)) = iterator.item() {
            if !visit(RetractionRow::read(key, row)?) {
                return Ok(());
            }
            iterator.prev();
        }
        iterator
            .status()
            .map_err(StoreError::engine("reading retractions"))
    }

    /// Notes what became of the signatures of retract leaves, which the caller checked
    /// while it had the feed's writer.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn note_signed(&self, no: FeedNo, checked: &[RetractionRow]) -> Result<()> {
        // Crash: what is not noted is checked again.
        let mut batch = WriteBatch::default();
        for row in checked {
            row.put(&self.inner, &mut batch, no)?;
        }
        self.inner.write_unsynced(batch, "noting signatures")
    }

    /// What a retract or erase leaf names; nothing for another one.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn named_by(&self, no: FeedNo, index: u64) -> Result<Vec<IndexRange>> {
        let key = keys::numbered(no, index);
        let Some(record) = self.inner.get(Family::Killers, key)? else {
            return Ok(Vec::new());
        };
        let record: KillerRecord = unseal(&record, "a killer's row")?;
        Ok(match record.read()? {
            Kills::Always(ranges) => ranges,
            Kills::WhileAlive(_) | Kills::Nothing => Vec::new(),
        })
    }
}
