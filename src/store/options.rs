//! What an operator may set about the store, and the options of the whole database.

use hashpact_core::id::SetName;
use rocksdb::{Env, Options};

use crate::frame_room::PUBLISHER_FRAMES_MAX;
use crate::gate::AllowList;

/// How much memory and how many threads the store may use.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Blocks kept decompressed for reads.
    pub block_cache_bytes: usize,
    /// Memory for writes that are not yet in files, over all families.
    pub write_buffer_bytes: usize,
    /// Postings that a bulk operation keeps in memory before they go to its spill file.
    pub bulk_memory_bytes: usize,
    /// Threads that sort and write postings at the end of a bulk operation.
    pub bulk_threads: usize,
    /// Threads of RocksDB for flushes and compactions.
    pub background_jobs: i32,
    /// Bytes of whole pages that wait before they are made durable without being asked:
    /// what a crash can cost a pull or an import.
    pub unsynced_max_bytes: usize,
    /// What the store leaves free of its volume, in bytes: see [`crate::Store::space`].
    pub free_min_bytes: u64,
    /// Values that never match, whoever publishes them.
    pub allow_list: AllowList,
    /// Sets whose living entries are on the list as well.
    pub allow_sets: Vec<SetName>,
    /// Frames of videos that the feeds of one other member may have in the index.
    pub publisher_frames_max: u64,
    /// Leaves that wait for indexing from which on they go in as files, not as a batch.
    pub bulk_from_leaves: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: 64 << 20,
            write_buffer_bytes: 48 << 20,
            bulk_memory_bytes: 32 << 20,
            bulk_threads: 2,
            background_jobs: 2,
            unsynced_max_bytes: 32 << 20,
            free_min_bytes: 1 << 30,
            allow_list: AllowList::default(),
            allow_sets: Vec::new(),
            publisher_frames_max: PUBLISHER_FRAMES_MAX,
            bulk_from_leaves: 50_000,
        }
    }
}

impl StoreOptions {
    /// The options of the database, apart from its families'.
    pub(crate) fn database(&self) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_background_jobs(self.background_jobs);
        // Compactions give way to who asks; without the handle they run as all else.
        if let Ok(mut env) = Env::new() {
            env.lower_thread_pool_cpu_priority();
            options.set_env(&env);
        }
        options.set_db_write_buffer_size(self.write_buffer_bytes);
        // A start reads at most this much of the log back.
        options.set_max_total_wal_size(64 << 20);
        options.set_max_open_files(-1);
        options.set_max_file_opening_threads(2);
        options.set_bytes_per_sync(1 << 20);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(4 << 20);
        options.set_log_level(rocksdb::LogLevel::Warn);
        options.set_skip_stats_update_on_db_open(true);
        options
    }
}
