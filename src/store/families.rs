//! The static catalogue of column families and how each is tuned.
//!
//! | family | key | value |
//! |---|---|---|
//! | `meta` | name | schema version and such |
//! | `pages` | feed, page | 256 leaves, wire form (one zstd frame) |
//! | `tail` | feed, index | one leaf, plain form, of the page that is not full |
//! | `tree` | feed, level ≥ 8, index | hash of a perfect subtree |
//! | `feeds` | feed, part | row (cursors, counts), description |
//! | `heads` | feed, epoch, size | note, cosignatures, receipts |
//! | `signals` | kind, 32 bytes, feed, index | posting |
//! | `refs` | feed, 16-byte digest | latest index, 16-byte content digest (own sets) |
//! | `killers` | feed, index | what the leaf makes dead |
//! | `entries` | feed, first index | latest index (only where replaced) |
//! | `elided` | feed, index / 65,536 | bitmap of the leaves held as their record alone |
//! | `classes` | code | classification |
//! | `roster` | version | envelope |
//! | `cards` | member, version, digest | envelope |
//! | `suspensions` | member, roster version, digest | envelope |
//! | `evidence` | subject of two documents; or see `forks.rs` | bytes |
//! | `audit` | see `audit.rs` | the node's own audit feed |
//! | `quarantine` | feed, reason, kind, index / 65,536 | bitmaps of leaves held, released, dropped |
//! | `opinions` | subject, member, feed id, index | opinion |
//! | `changes` | see `changes` | what consumers follow, and how far each is |
//! | `mutes` | see `mutes` | what this node mutes |
//! | `receipts` | see `receipts.rs` | what each node says that it acts on of a feed |
//! | `retractions` | feed, index | what a retract or erase leaf says, whether it is signed |
//! | `journal` | see `journal.rs` | what was answered for a while; what asks to be rechecked |

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType,
    DataBlockIndexType, Options, SliceTransform,
};

/// A column family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    Meta,
    Pages,
    Tail,
    Tree,
    Feeds,
    Heads,
    Signals,
    Refs,
    Killers,
    Entries,
    Elided,
    Classes,
    Roster,
    Cards,
    Suspensions,
    Evidence,
    Audit,
    Quarantine,
    Changes,
    Opinions,
    Mutes,
    Receipts,
    Journal,
    Retractions,
}

/// Target size of the files of a bulk load, and of compaction.
pub(crate) const FILE_BYTES: u64 = 64 << 20;
/// Bits of filter per prefix: a miss reads a block in 1 of 100 cases.
const FILTER_BITS: f64 = 10.0;

impl Family {
    /// All families, in the order that they are opened in.
    pub(crate) const ALL: [Self; 24] = [
        Self::Meta,
        Self::Pages,
        Self::Tail,
        Self::Tree,
        Self::Feeds,
        Self::Heads,
        Self::Signals,
        Self::Refs,
        Self::Killers,
        Self::Entries,
        Self::Elided,
        Self::Classes,
        Self::Roster,
        Self::Cards,
        Self::Suspensions,
        Self::Evidence,
        Self::Audit,
        Self::Quarantine,
        Self::Changes,
        Self::Opinions,
        Self::Mutes,
        Self::Receipts,
        Self::Journal,
        Self::Retractions,
    ];

    /// The name in RocksDB. `meta` is RocksDB's `default`, which always exists.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Meta => "default",
            Self::Pages => "pages",
            Self::Tail => "tail",
            Self::Tree => "tree",
            Self::Feeds => "feeds",
            Self::Heads => "heads",
            Self::Signals => "signals",
            Self::Refs => "refs",
            Self::Killers => "killers",
            Self::Entries => "entries",
            Self::Elided => "elided",
            Self::Classes => "classes",
            Self::Roster => "roster",
            Self::Cards => "cards",
            Self::Suspensions => "suspensions",
            Self::Evidence => "evidence",
            Self::Audit => "audit",
            Self::Quarantine => "quarantine",
            Self::Changes => "changes",
            Self::Opinions => "opinions",
            Self::Mutes => "mutes",
            Self::Receipts => "receipts",
            Self::Journal => "journal",
            Self::Retractions => "retractions",
        }
    }

    /// The options that the family is opened with and that its files are written with.
    pub(crate) fn options(self, cache: &Cache) -> Options {
        let mut options = Options::default();
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_target_file_size_base(FILE_BYTES);
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(cache);
        table.set_format_version(6);
        match self {
            Self::Signals => signals(&mut options, &mut table),
            // Pages and bitmaps are compressed by themselves.
            Self::Pages => {
                options.set_compression_type(DBCompressionType::None);
                options.set_write_buffer_size(8 << 20);
                table.set_block_size(32 << 10);
            }
            Self::Refs => {
                options.set_compression_type(DBCompressionType::None);
                options.set_write_buffer_size(8 << 20);
                table.set_block_size(4 << 10);
                table.set_bloom_filter(FILTER_BITS, false);
                table.set_optimize_filters_for_memory(true);
            }
            Self::Meta
            | Self::Tail
            | Self::Tree
            | Self::Feeds
            | Self::Heads
            | Self::Killers
            | Self::Entries
            | Self::Elided
            | Self::Classes
            | Self::Roster
            | Self::Cards
            | Self::Suspensions
            | Self::Evidence
            | Self::Audit
            | Self::Quarantine
            | Self::Changes
            | Self::Opinions
            | Self::Mutes
            | Self::Receipts
            | Self::Journal
            | Self::Retractions => {
                options.set_compression_type(DBCompressionType::Lz4);
                options.set_write_buffer_size(4 << 20);
                table.set_block_size(8 << 10);
            }
        }
        options.set_block_based_table_factory(&table);
        options
    }

    /// The descriptor to open the family with.
    pub(crate) fn descriptor(self, cache: &Cache) -> ColumnFamilyDescriptor {
        ColumnFamilyDescriptor::new(self.name(), self.options(cache))
    }
}

/// Look-ups seek by kind and 32 bytes: the filter is over that prefix, and no
/// filter is kept for whole keys, which nobody asks for.
fn signals(options: &mut Options, table: &mut BlockBasedOptions) {
    options.set_prefix_extractor(SliceTransform::create_fixed_prefix(33));
    options.set_memtable_prefix_bloom_ratio(0.1);
    options.set_write_buffer_size(16 << 20);
    options.set_compression_type(DBCompressionType::Lz4);
    table.set_block_size(4 << 10);
    table.set_whole_key_filtering(false);
    table.set_bloom_filter(FILTER_BITS, false);
    table.set_optimize_filters_for_memory(true);
    table.set_index_type(BlockBasedIndexType::BinarySearch);
    table.set_data_block_index_type(DataBlockIndexType::BinarySearch);
}
