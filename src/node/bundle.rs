//! Bundles, as the local API asks for them and what carries exchanges answers.
//!
//! Owns: what is asked, what came of it, and whether terms let a set leave. Does not
//! own: the file, what is in it, and how it is verified; that is the exchange's, since a
//! bundle is taken in by the very code that takes in what peers send.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
pub use hashpact_core::bundle::{Header, Recipient};
use hashpact_core::id::{FeedId, SetName};
use hashpact_core::reject::Rejection;
use hashpact_store::FeedInfo;
use tokio::sync::mpsc;

use crate::error::NodeError;
use crate::views;

/// What is being done.
pub type Doing<T> = Pin<Box<dyn Future<Output = Result<T, NodeError>> + Send>>;

/// The bytes of a bundle, wherever they lie.
pub trait BundleFile: Send + Sync + 'static {
    /// How many there are.
    fn size(&self) -> u64;

    /// Reads exactly so many of them.
    fn read(&self, offset: u64, length: usize) -> Doing<Bytes>;
}

/// Makes bundles and takes them in.
pub trait Bundles: Send + Sync + 'static {
    /// Writes a bundle, piece by piece, into `out`.
    fn export(&self, order: BundleOrder, out: mpsc::Sender<Bytes>) -> Doing<BundleMade>;

    /// Takes a bundle in, as if a peer had served what is in it, and tells how it goes.
    fn import(
        &self,
        file: Arc<dyn BundleFile>,
        progress: mpsc::Sender<BundleProgress>,
    ) -> Doing<BundleTaken>;
}

/// What is to be in a bundle, and for whom.
#[derive(Debug, Clone)]
pub struct BundleOrder {
    /// The sets. None: every set that a member may be given; of an authority each is
    /// named.
    pub sets: Vec<SetName>,
    /// How many leaves of a set the recipient holds, by its name: they are left out.
    pub held: BTreeMap<String, u64>,
    /// For whom.
    pub to: Recipient,
    /// Also what is dead, with its payloads.
    pub history: bool,
}

/// A bundle that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleMade {
    /// Rosters, cards, suspensions.
    pub documents: u64,
    /// Pieces of evidence.
    pub evidence: u64,
    /// Its sets.
    pub sets: Vec<BundleSet>,
    /// Sets that were not named and may not be given to the recipient.
    pub left_out: u64,
}

/// A set in a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleSet {
    /// Its name.
    pub set: String,
    /// Its feed.
    pub feed: FeedId,
    /// The first leaf in the bundle.
    pub from: u64,
    /// The size of its head.
    pub size: u64,
}

/// Something of a bundle that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleRefusal {
    /// What: the file, a document, or what of a set.
    pub what: String,
    /// The stable reason code.
    pub code: &'static str,
    /// Why, in words.
    pub why: String,
}

impl BundleRefusal {
    /// What was refused as a peer's would be.
    #[must_use]
    pub fn of(what: impl fmt::Display, rejection: &Rejection) -> Self {
        Self::new(what, rejection.code(), rejection)
    }

    /// Something else.
    #[must_use]
    pub fn new(what: impl fmt::Display, code: &'static str, why: impl fmt::Display) -> Self {
        Self {
            what: what.to_string(),
            code,
            why: why.to_string(),
        }
    }
}

/// How an import goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleProgress {
    /// The set that is taken in.
    pub set: String,
    /// Leaves of all sets that are stored or held already.
    pub done: u64,
    /// Leaves of all sets in the bundle.
    pub of: u64,
}

/// What came of a set in a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SetOutcome {
    /// Its head has taken effect.
    Taken,
    /// It was held already, up to this head or beyond.
    Held,
    /// It was refused; verified leaves below the head may be stored, and answer nothing.
    Refused,
    /// The publisher has two histories: the feed is frozen, and evidence is kept.
    Forked,
    /// It grows faster than it may: the rest is taken later.
    Resting,
}

impl SetOutcome {
    /// The stable word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Held => "held",
            Self::Refused => "refused",
            Self::Forked => "forked",
            Self::Resting => "resting",
        }
    }
}

/// What was taken of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetTaken {
    /// Its name; the feed's, where that is not known.
    pub set: String,
    /// Its feed.
    pub feed: FeedId,
    /// The first leaf in the bundle.
    pub from: u64,
    /// The size of the head in the bundle.
    pub size: u64,
    /// Leaves that are stored and were not before.
    pub stored: u64,
    /// Leaves that are held after it.
    pub held: u64,
    /// What came of it.
    pub outcome: SetOutcome,
    /// What was refused of it.
    pub refused: Vec<BundleRefusal>,
}

/// What came of a bundle. Everything in it is in here once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleTaken {
    /// What it says of itself.
    pub header: Header,
    /// Documents that were new here.
    pub documents_new: u64,
    /// Documents that were known, or older than those held.
    pub documents_known: u64,
    /// Pieces of evidence in it.
    pub evidence: u64,
    /// Its sets, in its order.
    pub sets: Vec<SetTaken>,
    /// What was refused beside them: the file's own damage, documents, evidence.
    pub refused: Vec<BundleRefusal>,
}

/// PROTOCOL 15.9: a set whose terms give no right to share leaves its node in no way.
///
/// # Errors
/// [`NodeError::Terms`], which quotes them.
pub fn check_may_leave(feed: &FeedInfo) -> Result<(), NodeError> {
    let describe = views::describe_of(feed).filter(|describe| !describe.terms.may_share);
    match describe {
        None => Ok(()),
        Some(describe) => Err(NodeError::Terms {
            set: describe.name.to_string(),
            terms: views::terms_text(&describe.terms),
        }),
    }
}
