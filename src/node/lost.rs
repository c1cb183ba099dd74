//! Sets that this member may not read any longer: noted, recorded, shown.

use hashpact_core::leaf::audit::{Act, Actor, OK};
use hashpact_store::{FeedInfo, LostSet};

use crate::error::NodeError;
use crate::node::Node;
use crate::views;

/// How long the status says that a set was lost; the list of feeds says it for longer.
const SAID_MS: u64 = 30 * hashpact_core::limits::DAY_MS;
/// Names in one notice.
const NAMED_MAX: usize = 3;

impl Node {
    /// Notes that a set is dropped since its grant ended, before it is. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn note_lost(&self, feed: &FeedInfo) -> Result<(), NodeError> {
        let name = views::describe_of(feed)
            .map_or_else(|| feed.id.to_string(), |describe| describe.name.to_string());
        self.store().note_lost(&LostSet {
            feed: feed.id,
            at: self.clock().now(),
            name: name.clone(),
        })?;
        let mut act = Act::new("set.lost", Actor::node());
        act.count("leaves", feed.indexed);
        if views::describe_of(feed).is_some() {
            act = act.of_set(name);
        }
        self.audit().note(act, OK);
        metrics::counter!("hashpact_sets_lost_total").increment(1);
        Ok(())
    }

    /// The sets that were lost and are not held again, the newest first. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn lost_sets(&self) -> Result<Vec<LostSet>, NodeError> {
        let mut lost = self.store().lost()?;
        lost.reverse();
        Ok(lost)
    }

    /// What the status says of the sets that were lost of late.
    pub(crate) fn lost_notice(&self) -> Result<Option<String>, NodeError> {
        let now = self.clock().now();
        let mut lost = self.lost_sets()?;
        lost.retain(|one| now.since(one.at) < SAID_MS);
        let named = lost.iter().take(NAMED_MAX).map(|one| one.name.as_str());
        let mut named = named.collect::<Vec<_>>().join(", ");
        if lost.is_empty() {
            return Ok(None);
        }
        let more = lost.len().saturating_sub(NAMED_MAX);
        if more > 0 {
            named = format!("{named} and {more} more");
        }
        Ok(Some(format!(
            "no longer granted to this member, and dropped: {named}; `hashpact feeds` says when"
        )))
    }
}
