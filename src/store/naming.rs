//! Who speaks of a leaf, and which head was held when: what proofs and look-ups into the
//! past are made from.

use hashpact_core::id::UnixMillis;
use hashpact_core::liveness::Kills;

use crate::error::Result;
use crate::families::Family;
use crate::heads::{self, Head, stretch};
use crate::index::killers;
use crate::keys::{self, FeedNo};
use crate::store::Store;

/// Leaves of either kind that are told: one shows that it is so.
const TOLD_MAX: usize = 64;

/// The leaves below a size that name one before them, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Naming {
    /// Retract and erase leaves, the first 64.
    pub withdrawn_by: Vec<u64>,
    /// Leaves that replace it, dead or not: the last 64.
    pub replaced_by: Vec<u64>,
}

/// Which head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    /// The one that was applied last.
    Now,
    /// The newest that was here by then.
    Time(UnixMillis),
    /// The newest of so many leaves at most.
    Size(u64),
}

/// A head of the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastHead {
    /// The head.
    pub head: Head,
    /// The one kept after it; none where it is the newest that is applied.
    pub next: Option<Head>,
    /// Whether no head was forgotten that was newer by then.
    pub exact: bool,
}

impl Store {
    /// The leaves below `size` that withdraw or replace the one at `index`.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`](crate::StoreError::UnknownFeed), or what RocksDB
    /// answers.
    pub fn naming(&self, no: FeedNo, index: u64, size: u64) -> Result<Naming> {
        let size = self.feed(no)?.indexed.min(size);
        let mut naming = Naming::default();
        let from = keys::numbered(no, index.saturating_add(1));
        let to = keys::numbered(no, size);
        if from >= to {
            return Ok(naming);
        }
        self.inner.scan(Family::Killers, &from, &to, |key, value| {
            match killers::read((key, value))? {
                (at, Kills::Always(ranges)) => {
                    let names = ranges.iter().any(|r| r.first <= index && index < r.end());
                    if names && naming.withdrawn_by.len() < TOLD_MAX {
                        naming.withdrawn_by.push(at);
                    }
                }
                (at, Kills::WhileAlive(replaced)) if replaced.contains(&index) => {
                    naming.replaced_by.push(at);
                    if naming.replaced_by.len() > TOLD_MAX {
                        naming.replaced_by.remove(0);
                    }
                }
                (_, Kills::WhileAlive(_) | Kills::Nothing) => {}
            }
            Ok(true)
        })?;
        Ok(naming)
    }

    /// The head of a feed that was the newest then, of those applied and still kept.
    /// `None` where none was held yet. `now` tells how heads are thinned out by age.
    ///
    /// # Errors
    /// As [`Store::naming`].
    pub fn past_head(&self, no: FeedNo, as_of: AsOf, now: UnixMillis) -> Result<Option<PastHead>> {
        let Some(applied) = self.feed(no)?.applied else {
            return Ok(None);
        };
        let order = |head: &Head| (head.at().epoch, head.at().size);
        let mut next: Option<Head> = None;
        let newest = (applied.epoch, applied.size);
        let heads = self.heads(no, usize::MAX)?.into_iter();
        for (place, head) in heads.filter(|head| order(head) <= newest).enumerate() {
            let was_newest = match as_of {
                AsOf::Now => true,
                AsOf::Time(time) => head.received <= time,
                AsOf::Size(size) => head.at().size <= size,
            };
            if was_newest {
                let exact = match (as_of, &next) {
                    (AsOf::Time(time), Some(next)) if place >= heads::NEWEST_KEPT => {
                        // Of each stretch the last stays, or the last that others vouch
                        // for: what was forgotten is of one with the next head, or came
                        // after this one.
                        let apart = stretch(time, now) != stretch(next.received, now);
                        apart && head.cosignatures.is_empty() && head.receipts.is_empty()
                    }
                    (AsOf::Time(_) | AsOf::Now | AsOf::Size(_), _) => true,
                };
                return Ok(Some(PastHead { head, next, exact }));
            }
            next = Some(head);
        }
        Ok(None)
    }
}
