//! Bulk loads: sorted files with disjoint key ranges, ingested past log and memory.
//!
//! Files of overlapping ranges would leave RocksDB to merge them, 13 to 26 seconds
//! for ten million leaves; disjoint ones go to the level they fit and stay.

mod file;
mod finish;
mod spill;

pub(crate) use self::file::SortedFile;
pub(crate) use self::finish::load;
pub(crate) use self::spill::Spill;
