//! Why a peer's message is refused.
//!
//! A rejection is the sender's fault or a stranger's bytes; it is never an error
//! of this node. Every variant has a stable [`code`](Rejection::code), which logs,
//! metrics and gRPC details share. No variant carries a signal's value.

use crate::id::{FeedId, IdError};
use crate::keys::KeyError;

/// Says why bytes from outside were refused, with the facts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// Larger than its limit; nothing of it was decoded.
    #[error("{what} has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// What was too large, such as "leaf payload".
        what: &'static str,
        /// Its size in bytes (or its count, where it is counted).
        size: usize,
        /// The limit in the same unit.
        limit: usize,
    },
    /// Not the encoding that it should be.
    #[error("{what} cannot be read: {why}")]
    Malformed {
        /// What was read.
        what: &'static str,
        /// What is wrong, without the bytes.
        why: String,
    },
    /// A field that breaks a rule.
    #[error("{what}: {why}")]
    Invalid {
        /// The document and field.
        what: &'static str,
        /// The rule that it breaks.
        why: String,
    },
    /// A signature that is missing, of an unknown key, or does not verify.
    #[error("{what}: {why}")]
    BadSignature {
        /// What should have been signed.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Fewer valid signatures of distinct keys than needed.
    #[error("{what} has {have} of {need} signatures needed")]
    ThresholdNotMet {
        /// What should have been signed.
        what: &'static str,
        /// Distinct keys with a valid signature.
        have: usize,
        /// The threshold.
        need: usize,
    },
    /// A document for another coalition.
    #[error("{what} is for another coalition")]
    WrongGenesis {
        /// The document.
        what: &'static str,
    },
    /// A version that does not follow the one held.
    #[error("{what} version {got} does not follow version {held}")]
    VersionGap {
        /// The document.
        what: &'static str,
        /// The version held.
        held: u64,
        /// The version offered.
        got: u64,
    },
    /// A predecessor other than the one held.
    #[error("roster version {version} names another predecessor")]
    WrongPredecessor {
        /// The version offered.
        version: u64,
    },
    /// Two different documents of one version: evidence.
    #[error("{what} version {version} exists with two contents")]
    Equivocation {
        /// The document.
        what: &'static str,
        /// The version.
        version: u64,
    },
    /// Past its expiry.
    #[error("{what} expired")]
    Expired {
        /// The document.
        what: &'static str,
    },
    /// Issued in the future by more than the tolerated skew.
    #[error("{what} is issued in the future")]
    FromTheFuture {
        /// The document.
        what: &'static str,
    },
    /// A key, member, group or role that is not known or does not fit.
    #[error("{what} is not known: {why}")]
    Unknown {
        /// What was looked up.
        what: &'static str,
        /// Which, in words.
        why: String,
    },
    /// A checkpoint of another feed, epoch or coalition.
    #[error("the checkpoint's origin is not that of feed {feed}")]
    WrongOrigin {
        /// The feed that was meant.
        feed: FeedId,
    },
    /// A head of an epoch that the roster held here has not opened, or has closed:
    /// who sends it may only have another roster.
    #[error("a head of epoch {got}, while epoch {open} is open")]
    WrongEpoch {
        /// The epoch that is open by the roster held here.
        open: u32,
        /// The head's.
        got: u32,
    },
    /// A head below one already verified.
    #[error("head of size {got} is behind the verified head of size {held}")]
    HeadWentBack {
        /// The size held.
        held: u64,
        /// The size offered.
        got: u64,
    },
    /// Two roots at one size, both signed by the publisher.
    #[error("two roots at size {size}")]
    TwoRoots {
        /// The size.
        size: u64,
    },
    /// A proof with another number of hashes than its bounds dictate.
    #[error("{what} has {have} hashes, its bounds dictate {need}")]
    ProofLength {
        /// Which compact range.
        what: &'static str,
        /// Hashes sent.
        have: usize,
        /// Hashes that the bounds dictate.
        need: usize,
    },
    /// Leaves and proofs do not merge to the head's root.
    #[error("leaves {from} to {to} do not lead to the head's root")]
    WrongRoot {
        /// The first index.
        from: u64,
        /// One past the last index.
        to: u64,
    },
    /// The head does not extend what is held.
    #[error("the head does not extend the {held} leaves held")]
    NotAnExtension {
        /// Leaves held.
        held: u64,
    },
    /// Another index than was asked for.
    #[error("expected leaves from {expected}, got leaves from {got}")]
    WrongRange {
        /// The first index that was expected.
        expected: u64,
        /// The first index that came.
        got: u64,
    },
    /// A leaf that was elided though nothing in the feed makes it dead.
    #[error("leaf {index} was elided without reason")]
    ElidedWithoutReason {
        /// The index.
        index: u64,
    },
    /// Leaf 0 is not this feed's.
    #[error("leaf 0 does not belong to feed {feed}")]
    WrongFirstLeaf {
        /// The feed that was meant.
        feed: FeedId,
    },
    /// The stream ended before what it promised.
    #[error("the stream ended at {at} of {of}")]
    Truncated {
        /// How far it came.
        at: u64,
        /// How far it should have come.
        of: u64,
    },
    /// More than the sender is allowed now.
    #[error("{what}: more than the limit of {limit}")]
    RateLimited {
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A feed at its growth cap; nobody's lie, and asked for again later.
    #[error("the feed grows beyond {cap} publish leaves, at {per_hour} an hour")]
    GrowthCap {
        /// The limit that applies.
        per_hour: u64,
        /// What is stored above it before the feed rests.
        cap: u64,
    },
    /// The store's volume is short of room; nobody's lie.
    #[error("{free} bytes are free on the store's volume, {min} are to stay so")]
    DiskLow {
        /// Free.
        free: u64,
        /// What is to stay free.
        min: u64,
    },
    /// A publisher's feeds take all that they may of the disk; nobody's lie.
    #[error("the publisher's feeds take {bytes} bytes here, the limit is {limit}")]
    PublisherCap {
        /// What they take.
        bytes: u64,
        /// What they may.
        limit: u64,
    },
    /// The caller may not do this; also for what does not exist.
    #[error("not found")]
    NotFound,
}

impl Rejection {
    /// The stable code that logs, metrics and gRPC details share.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Malformed { .. } => "malformed",
            Self::Invalid { .. } => "invalid",
            Self::BadSignature { .. } => "bad_signature",
            Self::ThresholdNotMet { .. } => "threshold_not_met",
            Self::WrongGenesis { .. } => "wrong_genesis",
            Self::VersionGap { .. } => "version_gap",
            Self::WrongPredecessor { .. } => "wrong_predecessor",
            Self::Equivocation { .. } => "equivocation",
            Self::Expired { .. } => "expired",
            Self::FromTheFuture { .. } => "from_the_future",
            Self::Unknown { .. } => "unknown",
            Self::WrongOrigin { .. } => "wrong_origin",
            Self::WrongEpoch { .. } => "wrong_epoch",
            Self::HeadWentBack { .. } => "head_went_back",
            Self::TwoRoots { .. } => "two_roots",
            Self::ProofLength { .. } => "proof_length",
            Self::WrongRoot { .. } => "wrong_root",
            Self::NotAnExtension { .. } => "not_an_extension",
            Self::WrongRange { .. } => "wrong_range",
            Self::ElidedWithoutReason { .. } => "elided_without_reason",
            Self::WrongFirstLeaf { .. } => "wrong_first_leaf",
            Self::Truncated { .. } => "truncated",
            Self::RateLimited { .. } => "rate_limited",
            Self::GrowthCap { .. } => "growth_cap",
            Self::DiskLow { .. } => "disk_low",
            Self::PublisherCap { .. } => "publisher_cap",
            Self::NotFound => "not_found",
        }
    }

    /// Refuses `bytes` of more than `limit`, before anything is decoded.
    ///
    /// # Errors
    /// [`Rejection::TooLarge`].
    pub const fn cap(what: &'static str, size: usize, limit: usize) -> Result<(), Self> {
        if size > limit {
            Err(Self::TooLarge { what, size, limit })
        } else {
            Ok(())
        }
    }

    /// A field that breaks a rule.
    pub fn invalid(what: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid {
            what,
            why: why.into(),
        }
    }

    /// Bytes that are not the encoding they should be.
    pub fn malformed(what: &'static str, why: impl Into<String>) -> Self {
        Self::Malformed {
            what,
            why: why.into(),
        }
    }
}

impl From<IdError> for Rejection {
    fn from(error: IdError) -> Self {
        Self::invalid("name", error.to_string())
    }
}

impl From<KeyError> for Rejection {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Length(_) | KeyError::Encoding | KeyError::Weak => {
                Self::invalid("key", error.to_string())
            }
            KeyError::SignatureLength(_) | KeyError::Signature => Self::BadSignature {
                what: "signature",
                why: error.to_string(),
            },
        }
    }
}
