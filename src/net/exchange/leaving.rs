//! Grants that end for many at once, by the feed key's word alone.
//!
//! ⚠ A stolen feed key must not disarm everybody. A describe leaf after which this
//! member may not read any more is acted on at once if few lose the set by it, or the
//! publisher's identity key signed it. Else the set answers at *review*, with an alarm,
//! and goes a day later, unless a later describe leaf grants it again or a new epoch
//! cuts that leaf off (PROTOCOL 15.10).

use hashpact_core::id::FeedId;
use hashpact_core::leaf::Describe;
use hashpact_core::limits::DAY_MS;
use hashpact_node::NodeError;
use hashpact_store::{FeedInfo, FeedStatus, Leaving};

use super::driver::Driver;

impl Driver {
    /// Whether a describe leaf that takes this member's grant takes those of so many
    /// that it is not acted on at once.
    pub(super) fn leaves_slowly(
        &self,
        feed: &FeedInfo,
        describe: (u64, &Describe),
    ) -> Result<bool, NodeError> {
        // What answers nothing has nothing to lose.
        match self.snapshot().filter(|_| feed.status.answers()) {
            Some(snapshot) => self.node.ends_for_many(feed, &snapshot, describe),
            None => Ok(false),
        }
    }

    /// The set answers at review from here on, and goes in a day.
    pub(super) fn leave(&self, feed: &FeedInfo, index: u64) -> Result<(), NodeError> {
        // ⚠ What is said again puts nothing off. What is frozen is at review already,
        // and nothing of it is believed before the roster has spoken.
        if feed.leaving.is_some() || feed.status == FeedStatus::Frozen {
            return Ok(());
        }
        let due = self.node.clock().now().plus(DAY_MS);
        if !self
            .node
            .store()
            .set_leaving(feed.no, Leaving { due, index })?
        {
            return Ok(());
        }
        metrics::counter!("hashpact_grants_ended_for_many_total").increment(1);
        tracing::error!(
            feed = %feed.id.0.short(),
            "a set's grants ended for many members at once, without the signature of its \
             publisher's identity key: it answers at review for a day, and is dropped then; ask \
             its publisher whether it meant this"
        );
        Ok(())
    }

    /// A describe leaf that is held, the ending one or a later one, lets this member
    /// read, or does again by a new roster.
    pub(super) fn stays(feed: &FeedInfo, reads: bool) -> bool {
        let held = feed.describe.as_ref().map(|(index, _)| *index);
        let leaving = feed.leaving.map(|leaving| leaving.index);
        reads && held >= leaving
    }

    /// Drops what is due, and says what is to go.
    pub(super) fn leave_due(&mut self) {
        let now = self.node.clock().now();
        let feeds = self.node.store().feeds();
        let leaving = feeds
            .iter()
            .filter(|feed| feed.status == FeedStatus::Leaving);
        let (due, waits): (Vec<_>, Vec<_>) =
            leaving.partition(|feed| feed.leaving.is_none_or(|leaving| leaving.due <= now));
        let notice = (!waits.is_empty()).then(|| {
            format!(
                "ALARM: the grants of {} sets ended for many at once, unsigned: they answer at \
                 review and are dropped within a day; ask their publishers (hashpact feeds)",
                waits.len()
            )
        });
        self.node.set_notice("leaving", notice);
        #[expect(clippy::cast_precision_loss, reason = "a gauge of a few feeds")]
        metrics::gauge!("hashpact_sets_leaving").set(waits.len() as f64);
        let due: Vec<FeedId> = due.iter().map(|feed| feed.id).collect();
        for feed in due {
            tracing::warn!(feed = %feed.0.short(), "a day after its grants ended the set is dropped");
            self.lost(feed);
        }
    }
}
