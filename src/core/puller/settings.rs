//! The puller's bounds, each with its reason.

use super::backoff::Waits;
use super::growth::GrowthLimit;
use crate::limits::{FEED_GROWTH_CAP_FACTOR, FEED_GROWTH_PER_HOUR};

/// What bounds the puller. The default suits a machine of 512 MiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Pulls at once.
    pub jobs_total: usize,
    /// Pulls at once from one peer: less than the 16 streams that a connection
    /// carries.
    pub jobs_per_peer: usize,
    /// Pulls at once of one feed, which bounds what comes out of order.
    pub jobs_per_feed: usize,
    /// Pulls, in total and per peer, that bulk leaves free for small tails.
    pub jobs_reserved: usize,
    /// What a job aims at: a few chunks, so that jobs spread over peers and a
    /// cut gives back little.
    pub job_bytes: u64,
    /// Verified, waiting or expected bytes of one feed beyond its cursor.
    pub window_bytes: u64,
    /// Up to this many leaves a pull is a small tail, which goes first.
    pub small_tail_leaves: u64,
    /// Pull dead leaves as their records in a feed's first pull.
    pub elide: bool,
    /// Feeds known at once.
    pub feeds_max: usize,
    /// Feeds of one publisher.
    pub feeds_per_publisher_max: usize,
    /// Peers known at once.
    pub peers_max: usize,
    /// A peer that said nothing for so long is polled, with jitter of as much
    /// again.
    pub poll_ms: u64,
    /// A job without an event for so long is given up: the driver's own limit
    /// (30 s) comes first.
    pub stall_ms: u64,
    /// A job that runs so long is given to another peer, if there is one: a
    /// trickle must not hold up the feed.
    pub slow_ms: u64,
    /// Publish leaves per hour after the first pull; more are quarantined.
    pub growth_per_hour: u64,
    /// How many times that may wait in quarantine before the feed is not pulled for
    /// a while.
    pub growth_cap_factor: u64,
    /// How long a head waits for leaves that were elided without reason before it
    /// is applied without them: retractions must not wait for a liar.
    pub refill_patience_ms: u64,
    /// How long a feed rests after the store failed.
    pub store_rest_ms: u64,
    /// How long a peer is left alone after faults that are no lies.
    pub waits: Waits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            jobs_total: 12,
            jobs_per_peer: 4,
            jobs_per_feed: 6,
            jobs_reserved: 1,
            job_bytes: 4 * 1024 * 1024,
            window_bytes: 32 * 1024 * 1024,
            small_tail_leaves: 4_096,
            elide: true,
            feeds_max: 16_384,
            feeds_per_publisher_max: 1_024,
            peers_max: 4_096,
            poll_ms: 30_000,
            stall_ms: 60_000,
            slow_ms: 60_000,
            growth_per_hour: FEED_GROWTH_PER_HOUR,
            growth_cap_factor: FEED_GROWTH_CAP_FACTOR,
            refill_patience_ms: 60_000,
            store_rest_ms: 2_000,
            waits: Waits::default(),
        }
    }
}

impl Settings {
    /// The limit and its cap for so many publish leaves in an hour.
    pub(super) const fn growth_limit(&self, per_hour: u64) -> GrowthLimit {
        GrowthLimit {
            per_hour,
            cap: per_hour.saturating_mul(self.growth_cap_factor),
        }
    }
}
