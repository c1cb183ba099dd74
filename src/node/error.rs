//! What can go wrong in the node, split by whose fault it is.
//!
//! A peer's fault is a [`Rejection`] and never ends here as an error of ours,
//! except where a caller on this machine hands in the bytes.

use hashpact_core::reject::Rejection;
use hashpact_store::{CursorError, StoreError};

/// Why the node did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The caller asked for something that cannot be; the text says what to do.
    #[error("{0}")]
    Misuse(String),
    /// A set, entry, peer or file that does not exist.
    #[error("{what} {name:?} does not exist here")]
    NotFound {
        /// Such as "set".
        what: &'static str,
        /// The name asked for.
        name: String,
    },
    /// The terms of a set forbid this; they are quoted.
    #[error("{set} is not shared on: {terms}")]
    Terms {
        /// The set.
        set: String,
        /// The terms, as the set's describe leaf quotes them.
        terms: String,
    },
    /// The grants of a set do not allow this.
    #[error("{set} is not for {who}: {why}")]
    NotGranted {
        /// The set.
        set: String,
        /// Whom it was meant for.
        who: String,
        /// Which grant is missing.
        why: String,
    },
    /// The set is closed for publishing at present.
    #[error("{set} takes nothing at present: {why}")]
    PublishingClosed {
        /// The set.
        set: String,
        /// Why, and what opens it.
        why: String,
    },
    /// The store's volume is short of room.
    #[error(
        "{free_mib} MiB are free on the store's volume, {min_mib} MiB are to stay so \
         (store.free_min_bytes): nothing is imported; make room, or set it lower"
    )]
    DiskLow {
        /// Free.
        free_mib: u64,
        /// What is to stay free.
        min_mib: u64,
    },
    /// Bytes that were handed in are refused.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// A consumer of changes cannot go on from where it was.
    #[error("{0}; start over with a snapshot of everything")]
    StartOver(CursorError),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
    /// Something passing: a shutdown, a full queue. Trying again helps.
    #[error("{0}; try again")]
    Busy(&'static str),
    /// A defect or damage of ours.
    #[error("{0}")]
    Internal(String),
}

impl From<StoreError> for NodeError {
    fn from(error: StoreError) -> Self {
        if let StoreError::FeedBusy(_) = error {
            Self::Busy("another command is writing this set")
        } else if let StoreError::Rejected(rejection) = error {
            Self::Rejected(rejection)
        } else {
            Self::Store(error)
        }
    }
}

impl NodeError {
    /// The stable code that the local API, logs and metrics share.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Misuse(_) => "misuse",
            Self::NotFound { .. } => "not_found",
            Self::Terms { .. } => "terms",
            Self::NotGranted { .. } => "not_granted",
            Self::PublishingClosed { .. } => "publishing_closed",
            Self::DiskLow { .. } => "disk_low",
            Self::Rejected(rejection) => rejection.code(),
            Self::StartOver(error) => error.code(),
            Self::Store(_) => "store",
            Self::Busy(_) => "busy",
            Self::Internal(_) => "internal",
        }
    }
}
