//! Sets that this member may not read any longer: noted, recorded, shown.

use hashpact_core::id::{FeedId, UnixMillis};
use hashpact_core::leaf::audit::{Act, Actor, OK};
use hashpact_core::limits::DAY_MS;
use hashpact_store::{FeedInfo, LostSet};

use crate::error::NodeError;
use crate::node::Node;
use crate::views;

/// How long the status says that a set was lost; the list of feeds says it for longer.
const SAID_MS: u64 = 30 * DAY_MS;
/// Leaves of the audit feed for it in a day.
const RECORDED_MAX: usize = 32;
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
        metrics::counter!("hashpact_sets_lost_total").increment(1);
        let now = self.clock().now();
        // Not before this node's own last word on it, if the clock went back since.
        let own = self.membership().own().ok();
        let said = own.map(|own| self.store().receipt(feed.no, own, self.name()));
        let said = said.transpose()?.flatten().map(|kept| kept.signed);
        let at = said.map_or(now, |said| said.max(now));
        let before = self.store().note_lost(&LostSet {
            feed: feed.id,
            at,
            name: name.clone(),
        })?;
        self.forget_own_word(feed.id, at);
        if !is_recorded(&before, feed.id, now) {
            return Ok(());
        }
        let mut act = Act::new("set.lost", Actor::node());
        act.count("leaves", feed.indexed);
        if views::describe_of(feed).is_some() {
            act = act.of_set(name);
        }
        self.audit().note(act, OK);
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

/// Whether a loss gets a leaf of the audit feed. ⚠ Each is another member's doing: one
/// that grants and takes away, again and again, must not fill the record, whose oldest
/// segments go. The same set has one a day, all sets together so many.
fn is_recorded(before: &[LostSet], feed: FeedId, now: UnixMillis) -> bool {
    let today = before.iter().filter(|one| now.since(one.at) < DAY_MS);
    today.clone().all(|one| one.feed != feed) && today.count() < RECORDED_MAX
}

#[cfg(test)]
mod tests {
    use hashpact_core::id::Digest;

    use super::*;

    #[test]
    fn who_grants_and_takes_away_again_and_again_does_not_fill_the_record() {
        let lost = |name: u64, at: u64| LostSet {
            feed: FeedId(Digest::of(&name.to_be_bytes())),
            at: UnixMillis(at),
            name: String::new(),
        };
        let (one, now) = (lost(0, DAY_MS), UnixMillis(2 * DAY_MS));
        assert!(is_recorded(&[], one.feed, now));
        assert!(is_recorded(std::slice::from_ref(&one), one.feed, now));
        let again = UnixMillis(now.0 - 1);
        assert!(!is_recorded(std::slice::from_ref(&one), one.feed, again));
        let many: Vec<LostSet> = (1..=32).map(|name| lost(name, now.0)).collect();
        assert!(is_recorded(&many[1..], one.feed, now));
        assert!(!is_recorded(&many, one.feed, now));
    }
}
