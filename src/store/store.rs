//! The open store: the database, the table of feeds in memory, and its lock.
//!
//! Every call blocks on disk: callers on an async reactor go through
//! `spawn_blocking`. All methods take `&self` and may be called from many threads;
//! a feed has one [`FeedWriter`](crate::FeedWriter) at a time.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashpact_core::id::FeedId;
use rocksdb::{Cache, ColumnFamily, DB, DBRawIterator, ReadOptions, WriteBatch, WriteOptions};

use crate::allowed::Allowed;
use crate::changes::{ChangePulse, Changes};
use crate::classes::Classes;
use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::FeedState;
use crate::keys::{self, FeedNo};
use crate::leaves::PageHashes;
use crate::opinions::OpinionFilter;
use crate::options::StoreOptions;
use crate::purge::{self, Purges};
use crate::schema;
use crate::space::Room;
use crate::watch::Watch;

/// Where bulk operations put their spill files and the files to ingest, inside
/// the store's folder; emptied at open.
pub(crate) const BULK_FOLDER: &str = "bulk";
/// RocksDB's own folder.
const DATABASE_FOLDER: &str = "db";
/// The file whose lock says that a process has the store.
const LOCK_FILE: &str = "lock";

/// The store of one node. Cloning gives another handle of the same store.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// What all handles and writers of a store share.
pub(crate) struct Inner {
    pub(crate) db: DB,
    pub(crate) cache: Cache,
    pub(crate) options: StoreOptions,
    pub(crate) dir: PathBuf,
    pub(crate) classes: Classes,
    feeds: RwLock<Arc<FeedTable>>,
    /// Serialises what makes and removes feeds.
    pub(crate) catalogue: Mutex<()>,
    pub(crate) page_hashes: Mutex<PageHashes>,
    pub(crate) watch: Watch,
    /// Where the next look at conflicts of digests begins.
    pub(crate) conflicts: Mutex<crate::rechecks::Recheck>,
    /// Whose entries count here.
    pub(crate) counting: std::sync::OnceLock<crate::pairs::Counting>,
    pub(crate) changes: Changes,
    /// What never matches.
    pub(crate) allowed: Allowed,
    /// What may have opinions.
    pub(crate) opinions: OpinionFilter,
    pub(crate) pulse: ChangePulse,
    /// Feeds of which dropped payloads may still lie in files.
    pub(crate) purges: Mutex<Purges>,
    /// One rewriting of files at a time.
    pub(crate) purging: Mutex<()>,
    /// What is to stay free of the volume.
    pub(crate) free_min: AtomicU64,
    /// What there was room for when it was last measured.
    pub(crate) room: Mutex<Room>,
    _lock: File,
}

/// All feeds of the store, by both their names.
#[derive(Clone, Default)]
pub(crate) struct FeedTable {
    pub(crate) by_no: BTreeMap<FeedNo, Arc<FeedState>>,
    pub(crate) by_id: HashMap<FeedId, FeedNo>,
}

impl Store {
    /// Opens the store in `dir`, making it if there is none, migrates it to this
    /// program's schema, and loads the table of feeds with what is dead in each.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process has it, [`StoreError::Schema`]
    /// for a store of a newer program, or what disk and RocksDB answer.
    pub fn open(dir: &Path, options: &StoreOptions) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(StoreError::io("making the store's folder"))?;
        let lock = lock(dir)?;
        empty_bulk_folder(dir)?;
        let cache = Cache::new_hyper_clock_cache(options.block_cache_bytes, 0);
        let families = Family::ALL.map(|family| family.descriptor(&cache));
        let database = options.database();
        let db = DB::open_cf_descriptors(&database, dir.join(DATABASE_FOLDER), families)
            .map_err(StoreError::engine("opening the store"))?;
        let inner = Inner {
            db,
            cache,
            options: options.clone(),
            dir: dir.to_owned(),
            classes: Classes::default(),
            feeds: RwLock::default(),
            catalogue: Mutex::default(),
            page_hashes: Mutex::default(),
            watch: Watch::default(),
            conflicts: Mutex::default(),
            counting: <_>::default(),
            changes: Changes::default(),
            allowed: Allowed::default(),
            opinions: OpinionFilter::default(),
            pulse: ChangePulse::default(),
            purges: Mutex::default(),
            purging: Mutex::default(),
            free_min: AtomicU64::new(options.free_min_bytes),
            room: Mutex::new(Room::Ample),
            _lock: lock,
        };
        schema::migrate(&inner)?;
        inner.classes.load(&inner)?;
        inner.opinions.load(&inner)?;
        let store = Self {
            inner: Arc::new(inner),
        };
        store.load_feeds()?;
        crate::allowed::load(&store.inner)?;
        crate::gate::apply(&store.inner)?;
        crate::frames::apply(&store.inner)?;
        Ok(store)
    }

    /// The folder that the store is in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Writes all that is in memory to files. A start after it reads no log.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn flush(&self) -> Result<()> {
        for family in Family::ALL {
            let handle = self.inner.cf(family)?;
            self.inner
                .db
                .flush_cf(handle)
                .map_err(StoreError::engine("flushing the store"))?;
        }
        Ok(())
    }

    fn load_feeds(&self) -> Result<()> {
        let mut table = FeedTable::default();
        for state in FeedState::load_all(&self.inner)? {
            purge::load(&self.inner, state.no)?;
            table.insert(Arc::new(state));
        }
        self.inner.replace_feeds(table);
        Ok(())
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("dir", &self.inner.dir)
            .finish_non_exhaustive()
    }
}

impl FeedTable {
    pub(crate) fn insert(&mut self, state: Arc<FeedState>) {
        self.by_id.insert(state.id, state.no);
        self.by_no.insert(state.no, state);
    }

    pub(crate) fn remove(&mut self, no: FeedNo) {
        if let Some(state) = self.by_no.remove(&no) {
            self.by_id.remove(&state.id);
        }
    }
}

impl Inner {
    /// A family's handle.
    pub(crate) fn cf(&self, family: Family) -> Result<&ColumnFamily> {
        self.db
            .cf_handle(family.name())
            .ok_or(StoreError::corrupt("a column family is missing"))
    }

    /// Reads one value.
    pub(crate) fn get(&self, family: Family, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.db
            .get_cf(self.cf(family)?, key)
            .map_err(StoreError::engine("reading the store"))
    }

    /// Writes a batch and syncs the log.
    pub(crate) fn write_synced(&self, batch: WriteBatch, what: &'static str) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db
            .write_opt(batch, &options)
            .map_err(StoreError::engine(what))
    }

    /// Writes a batch whose loss the next synced write makes up for.
    pub(crate) fn write_unsynced(&self, batch: WriteBatch, what: &'static str) -> Result<()> {
        self.db.write(batch).map_err(StoreError::engine(what))
    }

    /// Calls `visit` with every key and value from `from` up to but not `to`, in
    /// order, until it answers false.
    pub(crate) fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        options.set_iterate_upper_bound(to.to_vec());
        options.set_auto_readahead_size(true);
        let mut iterator: DBRawIterator<'_> =
            self.db.raw_iterator_cf_opt(self.cf(family)?, options);
        iterator.seek(from);
        while let Some((key, value)) = iterator.item() {
            if !visit(key, value)? {
                return Ok(());
            }
            iterator.next();
        }
        iterator
            .status()
            .map_err(StoreError::engine("scanning the store"))
    }

    /// Calls `visit` with every key and value of one feed, in order.
    pub(crate) fn scan_feed(
        &self,
        family: Family,
        feed: FeedNo,
        visit: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        self.scan(
            family,
            &keys::feed_prefix(feed),
            &keys::feed_end(feed),
            visit,
        )
    }

    /// The table of feeds as it stands.
    pub(crate) fn feeds(&self) -> Arc<FeedTable> {
        Arc::clone(&read(&self.feeds))
    }

    /// Puts another table of feeds in place.
    pub(crate) fn replace_feeds(&self, table: FeedTable) {
        *write(&self.feeds) = Arc::new(table);
        self.pulse.beat();
    }

    /// One feed's state.
    pub(crate) fn feed(&self, no: FeedNo) -> Result<Arc<FeedState>> {
        self.feeds()
            .by_no
            .get(&no)
            .cloned()
            .ok_or(StoreError::UnknownFeed(no))
    }

    /// A new path for a file of a bulk operation.
    pub(crate) fn bulk_path(&self, name: &str) -> PathBuf {
        self.dir.join(BULK_FOLDER).join(name)
    }
}

/// Takes a lock whether or not a thread died with it: what it guards is replaced
/// whole, after the database has it.
pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// As [`read`], to write.
pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// As [`read`], for a mutex.
pub(crate) fn hold<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A flag that says whether a feed has a writer.
pub(crate) type Busy = AtomicBool;

fn lock(dir: &Path) -> Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join(LOCK_FILE))
        .map_err(StoreError::io("opening the store's lock file"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked {
            dir: dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(StoreError::Io {
            what: "locking the store",
            source,
        }),
    }
}

/// Removes what a bulk operation that was cut off left: nothing there counts.
fn empty_bulk_folder(dir: &Path) -> Result<()> {
    let folder = dir.join(BULK_FOLDER);
    match std::fs::remove_dir_all(&folder) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(StoreError::io("emptying the bulk folder")(error)),
    }
    std::fs::create_dir_all(&folder).map_err(StoreError::io("making the bulk folder"))
}
