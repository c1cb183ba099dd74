//! What feeds said at heads of the past, as far as it is still held.

use hashpact_core::liveness::Liveness;
use roaring::RoaringTreemap;

use crate::error::Result;
use crate::families::Family;
use crate::index::killers;
use crate::keys::{self, FeedNo, IndexKey};
use crate::store::{Store, read};

/// A feed as it stood below a size.
#[derive(Debug, Clone)]
pub struct PastFeed {
    /// What was dead.
    pub liveness: Liveness,
    /// What was dead if all that is held for review today had killed nothing.
    pub without_held: Liveness,
    /// Leaves that were alive and of which only the record is held today.
    pub gone: RoaringTreemap,
}

impl Store {
    /// How a feed stood at a size, which is at most what is indexed.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`](crate::StoreError::OutOfRange) beyond what is indexed,
    /// or what RocksDB answers.
    pub fn past_feed(&self, no: FeedNo, size: u64) -> Result<PastFeed> {
        let liveness = self.liveness_at(no, size)?;
        let state = self.inner.feed(no)?;
        let (held, elided) = {
            let live = read(&state.live);
            (live.held.retractions().clone(), live.elided.clone())
        };
        let without_held = if held.iter().any(|index| *index < size) {
            killers::rebuild_without(&self.inner, no, size, |index| held.contains(&index))?
        } else {
            liveness.clone()
        };
        let mut gone = elided;
        gone.remove_range(size..);
        gone -= liveness.dead();
        Ok(PastFeed {
            liveness,
            without_held,
            gone,
        })
    }

    /// The publish leaves below a size that carry a signal, dead or alive, as far as they
    /// are held whole: at most `limit`, and whether there are more.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn carriers(
        &self,
        no: FeedNo,
        key: &IndexKey,
        size: u64,
        limit: usize,
    ) -> Result<(Vec<u64>, bool)> {
        let (from, to) = (keys::signal(key, no, 0), keys::signal(key, no, size));
        let (mut found, mut more) = (Vec::new(), false);
        self.inner.scan(Family::Signals, &from, &to, |key, _| {
            more = found.len() == limit;
            if !more {
                found.push(keys::read_signal(key)?.1);
            }
            Ok(!more)
        })?;
        Ok((found, more))
    }
}
