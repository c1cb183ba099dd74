//! How long the payloads of others' dead leaves stay: as the operator set, or for ever.
//! Those of own sets stay: others ask here for what lives again, and what is to be erased
//! everywhere is found by what it said.
//!
//! What goes is dead today, and was dead under the newest head that this node had so many
//! days ago: a head counts from when it came here, so a payload that is pulled dead stays as
//! long as one that died here. Nothing goes of a feed that is in doubt, whose epoch changed
//! since, or of which a retraction is held for review: there the dead may live again. What
//! publishers take back of their own newest versions later on, and what a roster cuts off
//! further back than that, lives again without its payload, and is asked for from others.
//!
//! Small steps, each of which gives the feed's writer back, an hour apart once nothing is
//! left. A step is atomic by the page; after a crash, or on a store that was restored, what
//! is due is found again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use hashpact_core::id::UnixMillis;
use hashpact_core::limits::DAY_MS;
use hashpact_store::{AsOf, DroppedDead, FeedInfo, FeedNo, FeedStatus, StoreError};
use tracing::info;

use crate::error::NodeError;
use crate::node::Node;
use crate::words::name_of;

/// Between two looks at all feeds.
const LOOK_MS: u64 = 60 * 60 * 1_000;
/// Pages of one feed that are rewritten before its writer is given back.
const PAGES_MAX: usize = 256;

/// What was set, and where the look at all feeds is.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    days: AtomicU64,
    place: Mutex<Place>,
}

#[derive(Debug, Default)]
struct Place {
    /// When the last look at all feeds ended.
    looked: Option<UnixMillis>,
    /// Where the look goes on that is under way.
    from: Option<FeedNo>,
}

/// What one step dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retired {
    /// The set, or the feed where it has no name.
    pub set: String,
    /// How many payloads went.
    pub payloads: u64,
}

impl Node {
    /// Drops payloads of others' leaves that have been dead for so many days; 0 keeps all
    /// for ever.
    pub fn set_retention(&self, dead_payload_days: u64) {
        let days = &self.retention.days;
        days.store(dead_payload_days, Ordering::SeqCst);
    }

    /// Takes the next step, where one is due; answers what went. To be called often.
    /// Blocking.
    ///
    /// # Errors
    /// What the store answers; the next call goes on with the next feed, and comes back.
    pub fn follow_retention(&self) -> Result<Option<Retired>, NodeError> {
        let days = self.retention.days.load(Ordering::SeqCst);
        let now = self.clock().now();
        let place = &self.retention.place;
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        let rests = |looked: UnixMillis| now.0.abs_diff(looked.0) < LOOK_MS;
        if days == 0 || (place.from.is_none() && place.looked.is_some_and(rests)) {
            return Ok(None);
        }
        let before = UnixMillis(now.0.saturating_sub(days.saturating_mul(DAY_MS)));
        let mut feeds = self.store().feeds();
        feeds.sort_unstable_by_key(|feed| feed.no);
        for feed in feeds {
            if place.from.is_some_and(|from| feed.no < from) {
                continue;
            }
            place.from = Some(FeedNo(feed.no.0.saturating_add(1)));
            // What is in doubt stands as it was verified, until somebody says what counts.
            if feed.own || feed.status != FeedStatus::Active {
                continue;
            }
            let dropped = self.drop_dead_of(&feed, before)?;
            if dropped.more {
                place.from = Some(feed.no);
            }
            if dropped.payloads > 0 {
                let (set, payloads) = (name_of(&feed), dropped.payloads);
                metrics::counter!("hashpact_retention_payloads_total").increment(payloads);
                info!(
                    set,
                    payloads, "payloads of leaves that were dead for long were dropped"
                );
                return Ok(Some(Retired { set, payloads }));
            }
        }
        *place = Place {
            looked: Some(now),
            from: None,
        };
        Ok(None)
    }

    fn drop_dead_of(&self, feed: &FeedInfo, before: UnixMillis) -> Result<DroppedDead, NodeError> {
        let (store, as_of) = (self.store(), AsOf::Time(before));
        if !store.has_dead_payloads(feed.no)? {
            return Ok(DroppedDead::default());
        }
        let past = store.past_head(feed.no, as_of, self.clock().now())?;
        // What an epoch that was cut off said is no part of the feed.
        let epoch = feed.applied.map(|applied| applied.epoch);
        let past = past.map(|past| past.head.at());
        let Some(past) = past.filter(|past| Some(past.epoch) == epoch) else {
            return Ok(DroppedDead::default());
        };
        match store.writer(feed.no) {
            // It is being written: the next time.
            Err(StoreError::FeedBusy(_)) => Ok(DroppedDead::default()),
            Err(error) => Err(error.into()),
            Ok(mut writer) => Ok(writer.drop_dead(past.size, PAGES_MAX)?),
        }
    }
}
