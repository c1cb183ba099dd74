//! What follows from retractions once they are applied: which of them are held for
//! review, and that what was erased leaves the disk.
//!
//! In this order, after each commit of a pulled feed: review, drop, and some time
//! later, without anybody waiting, the files are rewritten. Whatever a crash cuts off
//! is done when the node is opened, or by the next commit.

use hashpact_store::{FeedNo, FeedWriter};
use tracing::info;

use crate::error::NodeError;
use crate::node::Node;

impl Node {
    /// Holds what retractions from leaf `from` on need review, and drops what erase
    /// leaves name that are not held. Blocking.
    ///
    /// # Errors
    /// What the store answers; the next commit makes up for it.
    pub fn settle(&self, writer: &mut FeedWriter, from: u64) -> Result<(), NodeError> {
        let feed = writer.info();
        if !feed.own {
            self.review_retractions(feed.no, from)?;
        }
        let dropped = writer.drop_erased()?;
        if dropped > 0 {
            metrics::counter!("hashpact_erased_payloads_total").increment(dropped);
            info!(feed = %feed.id.0.short(), payloads = dropped, "erased payloads were dropped");
        }
        Ok(())
    }

    /// Does what a crash left undone.
    pub(crate) fn settle_all(&self) -> Result<(), NodeError> {
        for feed in self.store().feeds() {
            if let Some(from) = self.store().unsettled(feed.no)? {
                self.settle_feed(feed.no, from)?;
            }
        }
        Ok(())
    }

    fn settle_feed(&self, no: FeedNo, from: u64) -> Result<(), NodeError> {
        let mut writer = self.store().writer(no)?;
        self.settle(&mut writer, from)?;
        self.hear_rechecks(&mut writer, from)
    }

    /// Rewrites the files in which dropped payloads may still lie, if there are any.
    /// Blocking, and long for a large store.
    ///
    /// # Errors
    /// What the store answers; then it is due still.
    pub fn purge_erased(&self) -> Result<(), NodeError> {
        if self.store().purge_due() {
            self.store().purge()?;
            info!("files with erased payloads were rewritten");
        }
        Ok(())
    }
}
