//! What can go wrong in the store, split by whose fault it is.
//!
//! No variant carries a key or a value of the database: keys hold signals.

use std::path::PathBuf;

use hashpact_core::reject::Rejection;

use crate::keys::FeedNo;

/// Says why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the store open.
    #[error(
        "{dir} is in use by another process; commands go through the running node's socket, or stop it first"
    )]
    Locked {
        /// The store's folder.
        dir: PathBuf,
    },
    /// The store is of a newer program, or of none of ours.
    #[error("the store has schema {found}, this program knows schemas up to {supported}")]
    Schema {
        /// What the store says.
        found: u32,
        /// The newest that this program knows.
        supported: u32,
    },
    /// A file operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// RocksDB failed; `kind` is its class of error.
    #[error("{what}: RocksDB says {kind}")]
    Engine {
        /// What was attempted.
        what: &'static str,
        /// RocksDB's class of error, without keys or values.
        kind: String,
    },
    /// No space is left on the volume.
    #[error("{what}: no space left on the store's volume")]
    DiskFull {
        /// What was attempted.
        what: &'static str,
    },
    /// A record that cannot be read, or that contradicts another: `hashpact verify` says more.
    #[error("the store is damaged: {what}")]
    Corrupt {
        /// What does not fit.
        what: &'static str,
    },
    /// A feed that the store does not have.
    #[error("the store has no feed {0}")]
    UnknownFeed(FeedNo),
    /// A second writer for one feed.
    #[error("feed {0} is being written already")]
    FeedBusy(FeedNo),
    /// A feed id that the store has already.
    #[error("feed {0} has this id already")]
    FeedExists(FeedNo),
    /// Leaves that do not follow the stored ones.
    #[error("expected leaves from {expected}, got leaves from {got}")]
    IndexGap {
        /// The feed's size.
        expected: u64,
        /// The first index offered.
        got: u64,
    },
    /// A range that the feed does not hold.
    #[error("leaves {from} to {to} are not within the {held} leaves held")]
    OutOfRange {
        /// The first index asked for.
        from: u64,
        /// One past the last index asked for.
        to: u64,
        /// Leaves held.
        held: u64,
    },
    /// A head that the leaves held do not lead to.
    #[error("the head of size {size} does not fit the {held} leaves held")]
    HeadMismatch {
        /// The head's size.
        size: u64,
        /// Leaves held.
        held: u64,
    },
    /// Bytes that break a rule of the core.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// A thread of a bulk operation ended without an answer.
    #[error("a worker of {what} ended without an answer")]
    WorkerLost {
        /// The operation.
        what: &'static str,
    },
}

impl StoreError {
    /// The stable code that logs and metrics share.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "store_locked",
            Self::Schema { .. } => "store_schema",
            Self::Io { .. } => "store_io",
            Self::Engine { .. } => "store_engine",
            Self::DiskFull { .. } => "disk_full",
            Self::Corrupt { .. } => "store_corrupt",
            Self::UnknownFeed(_) => "unknown_feed",
            Self::FeedBusy(_) => "feed_busy",
            Self::FeedExists(_) => "feed_exists",
            Self::IndexGap { .. } => "index_gap",
            Self::OutOfRange { .. } => "out_of_range",
            Self::HeadMismatch { .. } => "head_mismatch",
            Self::Rejected(rejection) => rejection.code(),
            Self::WorkerLost { .. } => "worker_lost",
        }
    }

    /// Names what a file operation was for.
    pub(crate) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| {
            if source.kind() == std::io::ErrorKind::StorageFull {
                Self::DiskFull { what }
            } else {
                Self::Io { what, source }
            }
        }
    }

    /// Names what a call of RocksDB was for, and drops RocksDB's text: it can
    /// quote keys.
    pub(crate) fn engine(what: &'static str) -> impl FnOnce(rocksdb::Error) -> Self {
        move |error| {
            if error.to_string().contains("No space left") {
                Self::DiskFull { what }
            } else {
                Self::Engine {
                    what,
                    kind: format!("{:?}", error.kind()),
                }
            }
        }
    }

    /// A record that cannot be read.
    pub(crate) const fn corrupt(what: &'static str) -> Self {
        Self::Corrupt { what }
    }
}

/// What a call of the store answers.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;
