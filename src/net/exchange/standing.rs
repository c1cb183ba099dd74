//! What the store holds of a feed, in the puller's terms.

use hashpact_core::checkpoint;
use hashpact_core::leaf::IndexRange;
use hashpact_core::puller::{Event, Head, Span};
use hashpact_node::{Node, NodeError};
use hashpact_store::{FeedInfo, FeedStatus, Room};

use super::pipeline::describe_of;

/// Says what is held of a feed. What was left out is missing where there is room for it.
///
/// # Errors
/// What the store answers.
pub(crate) fn held(node: &Node, feed: &FeedInfo, room: Room) -> Result<Event, NodeError> {
    let root = node.store().root_at(feed.no, feed.stored)?;
    let elisions = node.store().elisions(feed.no)?;
    let mut missing = spans(&elisions.unjustified);
    if room == Room::Ample {
        missing.extend(spans(&elisions.no_room));
    }
    Ok(Event::FeedHeld {
        feed: feed.id,
        publisher: feed.publisher,
        cursor: feed.stored,
        root,
        applied: applied(node, feed)?,
        growth: node.store().growth(feed.no)?,
        frozen: match feed.status {
            FeedStatus::Frozen | FeedStatus::Dropping => true,
            FeedStatus::Active | FeedStatus::Silent | FeedStatus::Leaving => false,
        },
        elided: feed.elided > 0,
        missing,
    })
}

/// Ranges of leaves in the puller's terms.
pub(crate) fn spans(ranges: &[IndexRange]) -> Vec<Span> {
    let span = |range: &IndexRange| Span {
        from: range.first,
        to: range.end(),
    };
    ranges.iter().map(span).collect()
}

/// The head that was applied last, if a key that ever was the feed's signed it.
fn applied(node: &Node, feed: &FeedInfo) -> Result<Option<Head>, NodeError> {
    let Some(head) = node.store().applied_head(feed.no)? else {
        return Ok(None);
    };
    let state = node.membership().state();
    let (Some(chain), Some(describe)) = (state.chain.as_ref(), describe_of(feed)) else {
        return Ok(None);
    };
    let (roster, set) = (chain.roster(), &describe.name.set);
    let keys = |epoch| {
        let cards = &state.cards;
        cards.feed_keys(feed.publisher, set, feed.id, epoch, roster)
    };
    let verified = checkpoint::verify(head.note(), &roster.coalition, &feed.id, keys);
    Ok(verified.ok().map(Head::from))
}
