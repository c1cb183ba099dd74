//! What was dead at heads before the newest: whether leaves that are held as their records
//! alone may be served so to whoever asks under one of them.
//!
//! ⚠ It is reckoned from all that ever killed a leaf of the feed, however few leaves are
//! asked for. So it is done beside what is large, once for a head while that is asked for,
//! one at a time for each reader, and no more than a few for all.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashpact_core::id::{Digest, FeedId};
use hashpact_core::liveness::Liveness;
use hashpact_node::Node;
use hashpact_store::FeedInfo;
use tokio::sync::Semaphore;

use super::bulk::{Bulk, Size};
use super::served::{Reader, of_store};
use crate::service::ServiceError;

/// Heads that are remembered: some megabytes each, for a feed of ten million leaves.
const KEPT_MAX: usize = 4;
/// Reckoned at once for one reader, and for all.
const PER_READER: usize = 1;
const AT_ONCE: usize = 2;

/// A head, as far as what is held below it stays the same: leaves that are missing may
/// come, and kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HeadKey {
    feed: FeedId,
    root: Digest,
    missing: u64,
}

/// Older heads that were asked for.
pub(crate) struct OlderHeads {
    kept: Mutex<VecDeque<(HeadKey, Arc<Liveness>)>>,
    /// At most one for each member, and one for all others.
    readers: Mutex<HashMap<Reader, Arc<Semaphore>>>,
    all: Arc<Semaphore>,
    /// How many were reckoned.
    reckoned: AtomicU64,
}

impl Default for OlderHeads {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            readers: Mutex::default(),
            all: Arc::new(Semaphore::new(AT_ONCE)),
            reckoned: AtomicU64::new(0),
        }
    }
}

impl OlderHeads {
    /// What was dead in a feed at a head that the leaves held lead to.
    ///
    /// # Errors
    /// As [`Pull::begin`](super::served::Pull::begin).
    pub(crate) async fn at(
        self: &Arc<Self>,
        (node, bulk): (&Arc<Node>, &Bulk),
        reader: Reader,
        feed: &FeedInfo,
        (size, root): (u64, Digest),
    ) -> Result<Arc<Liveness>, ServiceError> {
        let key = HeadKey {
            feed: feed.id,
            root,
            missing: feed.missing,
        };
        if let Some(known) = self.known(&key) {
            return Ok(known);
        }
        let waiting = self.turn_of(reader).acquire_owned();
        let own = waiting.await.map_err(|_| ServiceError::Unavailable)?;
        let waiting = Arc::clone(&self.all).acquire_owned();
        let shared = waiting.await.map_err(|_| ServiceError::Unavailable)?;
        let (heads, node, no) = (Arc::clone(self), Arc::clone(node), feed.no);
        // Whoever asked may be gone before it is done: what it took is given back here.
        let reckoned = bulk.run(Size::Large, move || {
            let _turns = (own, shared);
            if let Some(known) = heads.known(&key) {
                return Ok(known);
            }
            heads.reckoned.fetch_add(1, Ordering::Relaxed);
            let liveness = node.store().liveness_at(no, size).map_err(of_store)?;
            Ok(heads.keep(key, Arc::new(liveness)))
        });
        reckoned.await.unwrap_or(Err(ServiceError::Internal))
    }

    fn known(&self, key: &HeadKey) -> Option<Arc<Liveness>> {
        let kept = self.kept();
        let mut kept = kept.iter();
        kept.find(|(of, _)| of == key)
            .map(|(_, liveness)| Arc::clone(liveness))
    }

    fn keep(&self, key: HeadKey, liveness: Arc<Liveness>) -> Arc<Liveness> {
        let mut kept = self.kept();
        kept.push_back((key, Arc::clone(&liveness)));
        if kept.len() > KEPT_MAX {
            kept.pop_front();
        }
        liveness
    }

    fn turn_of(&self, reader: Reader) -> Arc<Semaphore> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = readers.entry(reader);
        Arc::clone(turn.or_insert_with(|| Arc::new(Semaphore::new(PER_READER))))
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(HeadKey, Arc<Liveness>)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many were reckoned so far.
    #[cfg(test)]
    pub(crate) fn reckoned(&self) -> u64 {
        self.reckoned.load(Ordering::Relaxed)
    }

    /// Takes the turn of a reader.
    #[cfg(test)]
    pub(crate) async fn hold(&self, reader: Reader) -> tokio::sync::OwnedSemaphorePermit {
        self.turn_of(reader).acquire_owned().await.unwrap()
    }
}
