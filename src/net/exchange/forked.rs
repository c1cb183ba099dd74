//! What the driver does about a publisher with two histories: it holds the feed and
//! seeks a proof.

use hashpact_core::id::FeedId;
use hashpact_core::puller::Head;
use hashpact_core::reject::Rejection;
use hashpact_store::FeedStatus;

use super::driver::Driver;
use super::errand::Errand;
use super::pipeline::Pulled;
use super::{fork, storing};

impl Driver {
    /// The feed stays as it was verified, and a proof is sought.
    pub(super) fn forked(
        &mut self,
        feed: FeedId,
        held: Option<Head>,
        offered: Head,
        chunk: Option<Box<Pulled>>,
        rejection: &Rejection,
    ) {
        let code = rejection.code();
        tracing::error!(feed = %feed.0.short(), size = offered.size(), code, "the publisher forked a feed");
        metrics::counter!("hashpact_forks_total").increment(1);
        self.freeze(feed);
        let Some(publisher) = self.publishers.get(&feed).copied() else {
            return;
        };
        let case = fork::Case {
            feed,
            publisher,
            held,
            offered,
            chunk,
        };
        self.errand(Errand::Prove(Box::new(case)));
    }

    pub(super) fn freeze(&mut self, feed: FeedId) {
        let store = self.node.store();
        if let Some(no) = store.feed_no(&feed)
            && let Err(error) = store.set_feed_status(no, FeedStatus::Frozen)
        {
            tracing::error!(%error, code = error.code(), "freezing a feed");
        }
        self.desk(feed, storing::Order::Rest);
        self.witness_forked(feed);
    }
}
