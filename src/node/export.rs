//! Export: the entries of a set, in the order of the feed.

use hashpact_core::id::{EntryName, Slug};
use hashpact_core::leaf::{self, Leaf};
use hashpact_core::limits::PAGE_LEAVES;
use hashpact_store::{FeedInfo, Seen, Store, Whole, WholeStanding};

use crate::bundle::check_may_leave;
use crate::changes;
use crate::error::NodeError;
use crate::model::ExportedEntry;
use crate::opinions::Heard;
use crate::policy::Judge;
use crate::views;

/// Hands the entries of a feed to `sink`, a page at a time, until it answers false:
/// those that this node acts on, by what the feed counts for as a `whole`, and with
/// `include_dead` those that were withdrawn; with a judge also what becomes of each.
///
/// # Errors
/// [`NodeError::Terms`] for a set that may not be shared on; what the store answers.
pub(crate) fn export(
    store: &Store,
    feed: &FeedInfo,
    whole: &Whole,
    (publisher, heard, judge): (&Slug, &Heard, Option<&Judge<'_>>),
    include_dead: bool,
    sink: &mut dyn FnMut(Vec<ExportedEntry>) -> bool,
) -> Result<(), NodeError> {
    let Some(describe) = views::describe_of(feed) else {
        return Ok(());
    };
    check_may_leave(feed)?;
    let mut from = 0;
    while from < feed.indexed {
        let to = from.saturating_add(PAGE_LEAVES).min(feed.indexed);
        let mut entries = Vec::new();
        // Before the leaves: what is dropped meanwhile is not exported as if it counted.
        let seen = store.seen(feed.no, from, to)?;
        let leaves = store.read_leaves(feed.no, from, to)?;
        for ((index, raw), seen) in (from..to).zip(leaves).zip(seen) {
            let Leaf::Publish(mut body) = leaf::read(&raw, index) else {
                continue;
            };
            let Some(state) = state(store, feed, whole, index, seen.as_ref())? else {
                continue;
            };
            // What does not count here is handed to nobody as if it did.
            match &seen {
                Some(seen) => changes::without(&mut body, &seen.withheld),
                None => changes::without(&mut body, &store.withheld_kinds(feed.no, index)?),
            }
            if body.signals.is_empty() || (state == WITHDRAWN && !include_dead) {
                continue;
            }
            let entry = EntryName {
                set: describe.name.clone(),
                first: body.first_index(index),
            };
            let disputed = heard.disputed(store, (feed.id, entry.first), &body)?;
            let state = match state {
                ACTIVE => changes::state(false, !disputed.is_empty()),
                other => other,
            };
            entries.push(ExportedEntry {
                entry,
                index,
                publisher: publisher.clone(),
                state,
                verdict: None,
                disputed_kinds: disputed,
                body: *body,
            });
        }
        from = to;
        if let Some(judge) = judge {
            let live = entries.iter_mut().filter(|entry| entry.state != WITHDRAWN);
            let mut live: Vec<_> = live.map(|entry| (feed.id, entry)).collect();
            judge.put_verdicts(&mut live)?;
        }
        if !entries.is_empty() && !sink(entries) {
            return Ok(());
        }
    }
    Ok(())
}

const WITHDRAWN: &str = "withdrawn";
const ACTIVE: &str = "active";

/// The word for how an entry stands; `None` for one that waits in quarantine, or whose
/// set counts for nothing here.
fn state(
    store: &Store,
    feed: &FeedInfo,
    whole: &Whole,
    index: u64,
    seen: Option<&Seen>,
) -> Result<Option<&'static str>, NodeError> {
    let review = match whole.standing {
        WholeStanding::Nothing => return Ok(None),
        WholeStanding::Review => true,
        WholeStanding::Active => false,
    };
    if let Some(seen) = seen {
        return Ok(Some(changes::state(review || seen.review, false)));
    }
    Ok(store.is_dead(feed.no, index)?.then_some(WITHDRAWN))
}
