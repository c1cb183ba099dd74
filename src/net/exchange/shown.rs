//! What the driver shows: the board's rows of feeds, and how far peers are ahead.

use std::collections::HashMap;

use hashpact_core::id::FeedId;
use hashpact_node::model::PeerLag;

use super::driver::Driver;

impl Driver {
    /// Writes the feeds' rows and the lags.
    pub(super) fn show(&self) {
        for progress in self.puller.progress() {
            let applied = progress.applied.unwrap_or(0);
            let from = self.jobs.values().find(|job| job.feed == progress.feed);
            let from = from.map(|job| self.name(job.peer).to_owned());
            let state = match (progress.frozen, progress.ahead, progress.jobs) {
                (true, _, _) => "frozen",
                (false, None, _) => "caught up",
                (false, Some(_), 1..) => "pulling",
                (false, Some(_), 0) if progress.offered => "waiting",
                (false, Some(_), 0) => "behind",
            };
            self.board.feed(progress.feed, |row| {
                row.newest = progress.ahead.unwrap_or(applied);
                row.state = state;
                row.from = from;
            });
        }
        self.show_lags();
    }

    fn show_lags(&self) {
        let applied: HashMap<FeedId, u64> = self
            .puller
            .progress()
            .map(|progress| (progress.feed, progress.applied.unwrap_or(0)))
            .collect();
        let lags = self.announced.iter().map(|((peer, feed), head)| {
            let applied = applied.get(feed).copied().unwrap_or(0);
            PeerLag {
                peer: self.name(*peer).to_owned(),
                feed: *feed,
                leaves: head.size().saturating_sub(applied),
            }
        });
        self.board.show_lags(lags.collect());
    }
}
