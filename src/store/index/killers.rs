//! What makes leaves dead, kept in order, so that liveness is rebuilt at open
//! without reading a page.

use std::collections::HashMap;

use hashpact_core::leaf::{DESCRIBE, ERASE, IndexRange, RawLeaf};
use hashpact_core::liveness::{Kills, Liveness};

use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::keys::{self, FeedNo};
use crate::record::{KillerRecord, unseal};
use crate::store::{Inner, Store};

const ALWAYS: u32 = 1;
const WHILE_ALIVE: u32 = 2;
const NOTHING: u32 = 3;
const ERASING: u32 = 4;

/// Rebuilds what is dead below `indexed`, from the last killer backwards.
pub(crate) fn rebuild(inner: &Inner, no: FeedNo, indexed: u64) -> Result<Liveness> {
    rebuild_without(inner, no, indexed, |_| false)
}

/// The same as if the leaves that `ignored` names killed nothing.
pub(crate) fn rebuild_without(
    inner: &Inner,
    no: FeedNo,
    indexed: u64,
    ignored: impl Fn(u64) -> bool,
) -> Result<Liveness> {
    let mut options = rocksdb::ReadOptions::default();
    options.set_iterate_lower_bound(keys::feed_prefix(no));
    options.set_iterate_upper_bound(keys::numbered(no, indexed));
    let family = inner.cf(Family::Killers)?;
    let mut iterator = inner.db.raw_iterator_cf_opt(family, options);
    iterator.seek_to_last();
    let mut failed = None;
    let killers = std::iter::from_fn(|| {
        let killer = iterator.item().map(read)?;
        iterator.prev();
        let (index, kills) = killer.map_err(|error| failed = Some(error)).ok()?;
        let counts = !ignored(index);
        Some((index, if counts { kills } else { Kills::Nothing }))
    });
    let liveness = Liveness::rebuild(indexed, killers);
    if let Some(error) = failed {
        return Err(error);
    }
    iterator
        .status()
        .map_err(StoreError::engine("reading killers"))?;
    liveness.map_err(|_| StoreError::corrupt("killers are out of order"))
}

/// Of each entry that a leaf from `size` on is a version of, the latest version below it,
/// where that is not the entry's first leaf: what a leaf names in its `replaces` may be
/// of other entries.
pub(crate) fn versions_below(inner: &Inner, no: FeedNo, size: u64) -> Result<HashMap<u64, u64>> {
    let mut latest: HashMap<u64, Option<u64>> = HashMap::new();
    let (start, end) = (keys::feed_prefix(no), keys::feed_end(no));
    let cut = keys::numbered(no, size);
    let each = |from: &[u8], to: &[u8], of: &mut dyn FnMut(u64, u64)| {
        inner.scan(Family::Killers, from, to, |key, record| {
            if let (index, Kills::WhileAlive(named)) = read((key, record))?
                && let Some(first) = named.first()
            {
                of(*first, index);
            }
            Ok(true)
        })
    };
    each(&cut, &end, &mut |first, _| {
        latest.insert(first, None);
    })?;
    if !latest.is_empty() {
        each(&start, &cut, &mut |first, index| {
            if let Some(found) = latest.get_mut(&first) {
                *found = Some(index);
            }
        })?;
    }
    let latest = latest.into_iter();
    Ok(latest
        .filter_map(|(first, found)| Some((first, found?)))
        .collect())
}

impl Store {
    /// What is dead by the first `size` leaves alone, at most those that are indexed:
    /// from memory for all of them, else from every leaf below that kills.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] beyond what is indexed, or what RocksDB answers.
    pub fn liveness_at(&self, no: FeedNo, size: u64) -> Result<Liveness> {
        let newest = self.with_liveness(no, |liveness| {
            (liveness.size() == size).then(|| liveness.clone())
        })?;
        if let Some(newest) = newest {
            return Ok(newest);
        }
        let indexed = self.feed(no)?.indexed;
        if size > indexed {
            return Err(StoreError::OutOfRange {
                from: 0,
                to: size,
                held: indexed,
            });
        }
        rebuild(&self.inner, no, size)
    }

    /// Whether all of these are dead by the first `size` leaves; `None` where more leaves
    /// are indexed, and it is not known from memory.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`].
    pub fn all_dead(&self, no: FeedNo, size: u64, leaves: &[u64]) -> Result<Option<bool>> {
        self.with_liveness(no, |liveness| {
            let mut leaves = leaves.iter();
            (liveness.size() == size).then(|| leaves.all(|index| liveness.is_dead(*index)))
        })
    }

    /// The describe leaves that are indexed after leaf `after`, newest first with their
    /// indexes. At most `limit` leaves are read, others that kill nothing among them.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn describes(
        &self,
        no: FeedNo,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, RawLeaf)>> {
        let from = after.map_or(0, |after| after.saturating_add(1));
        let indexed = self.feed(no)?.indexed;
        let mut options = rocksdb::ReadOptions::default();
        options.set_iterate_lower_bound(keys::numbered(no, from));
        options.set_iterate_upper_bound(keys::numbered(no, indexed.max(from)));
        let family = self.inner.cf(Family::Killers)?;
        let mut iterator = self.inner.db.raw_iterator_cf_opt(family, options);
        iterator.seek_to_last();
        let mut describes = Vec::new();
        let mut left = limit;
        while let Some(killer) = iterator.item() {
            let (index, kills) = read(killer)?;
            if kills == Kills::Nothing {
                let Some(rest) = left.checked_sub(1) else {
                    break;
                };
                left = rest;
                let leaf = self.read_leaf(no, index)?;
                if leaf.kind == DESCRIBE {
                    describes.push((index, leaf));
                }
            }
            iterator.prev();
        }
        iterator
            .status()
            .map_err(StoreError::engine("reading describe leaves"))?;
        Ok(describes)
    }
}

impl Store {
    /// The leaves from `from` on and below `to` that name any in their `replaces`, with
    /// what they name, the last one first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`], or what RocksDB answers.
    pub fn replacements(
        &self,
        no: FeedNo,
        from: u64,
        to: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<u64>)>> {
        let indexed = self.feed(no)?.indexed.min(to);
        let mut options = rocksdb::ReadOptions::default();
        options.set_iterate_lower_bound(keys::numbered(no, from));
        options.set_iterate_upper_bound(keys::numbered(no, indexed));
        let family = self.inner.cf(Family::Killers)?;
        let mut iterator = self.inner.db.raw_iterator_cf_opt(family, options);
        iterator.seek_to_last();
        let mut found = Vec::new();
        while let Some(killer) = iterator.item() {
            if let (index, Kills::WhileAlive(named)) = read(killer)?
                && !named.is_empty()
            {
                found.push((index, named));
                if found.len() == limit {
                    break;
                }
            }
            iterator.prev();
        }
        iterator
            .status()
            .map_err(StoreError::engine("reading killers"))?;
        Ok(found)
    }

    /// What a leaf names in its `replaces`; `None` where it names nothing, or is held
    /// without its payload.
    #[must_use]
    pub fn replaces(&self, no: FeedNo, index: u64) -> Option<Vec<u64>> {
        replaces_of(&self.inner, no, index)
    }
}

/// What a leaf replaces, if it replaces anything.
pub(crate) fn replaces_of(inner: &Inner, no: FeedNo, index: u64) -> Option<Vec<u64>> {
    let row = inner
        .get(Family::Killers, keys::numbered(no, index))
        .ok()??;
    match unseal::<KillerRecord>(&row, "a killer's row").ok()?.read() {
        Ok(Kills::WhileAlive(indexes)) => Some(indexes),
        Ok(Kills::Always(_) | Kills::Nothing) | Err(_) => None,
    }
}

pub(crate) fn read((key, record): (&[u8], &[u8])) -> Result<(u64, Kills)> {
    let (_, index) = keys::read_numbered(key)?;
    let record: KillerRecord = unseal(record, "a killer's row")?;
    Ok((index, record.read()?))
}

impl KillerRecord {
    /// Writes what a leaf of kind byte `kind` kills.
    pub(crate) fn of(kind: u8, kills: &Kills) -> Self {
        match kills {
            Kills::Always(ranges) => Self {
                kind: if kind == ERASE { ERASING } else { ALWAYS },
                indexes: ranges.iter().flat_map(|r| [r.first, r.count]).collect(),
            },
            Kills::WhileAlive(indexes) => Self {
                kind: WHILE_ALIVE,
                indexes: indexes.clone(),
            },
            Kills::Nothing => Self {
                kind: NOTHING,
                indexes: Vec::new(),
            },
        }
    }

    /// Whether the leaf is a retract or an erase.
    pub(crate) const fn names_ranges(&self) -> bool {
        self.kind == ALWAYS || self.kind == ERASING
    }

    /// Whether one of its ranges has a leaf.
    pub(crate) fn names(&self, index: u64) -> bool {
        let mut ranges = self.indexes.chunks_exact(2);
        ranges.any(|range| match range {
            [first, count] => index.checked_sub(*first).is_some_and(|at| at < *count),
            _ => false,
        })
    }

    /// Whether the leaf is an erase.
    pub(crate) const fn erases(&self) -> bool {
        self.kind == ERASING
    }

    /// Reads what a leaf kills.
    pub(crate) fn read(&self) -> Result<Kills> {
        let range = |[first, count]: &[u64; 2]| IndexRange {
            first: *first,
            count: *count,
        };
        match self.kind {
            ALWAYS | ERASING => {
                let pairs = self.indexes.as_chunks::<2>().0;
                Ok(Kills::Always(pairs.iter().map(range).collect()))
            }
            WHILE_ALIVE => Ok(Kills::WhileAlive(self.indexes.clone())),
            NOTHING => Ok(Kills::Nothing),
            _ => Err(StoreError::corrupt("a killer's row")),
        }
    }
}
