//! Export: the entries of a set, in the order of the feed.

use hashpact_core::id::{EntryName, Slug};
use hashpact_core::leaf::{self, Leaf, Publish};
use hashpact_core::limits::PAGE_LEAVES;
use hashpact_store::quarantine::{LotName, WHOLE_LEAF};
use hashpact_store::{FeedInfo, FeedStatus, Store};

use crate::error::NodeError;
use crate::model::ExportedEntry;
use crate::views;

/// Hands the entries of a feed to `sink`, a page at a time, until it answers false.
///
/// # Errors
/// [`NodeError::Terms`] for a set that may not be shared on; what the store answers.
pub(crate) fn export(
    store: &Store,
    feed: &FeedInfo,
    publisher: &Slug,
    include_dead: bool,
    sink: &mut dyn FnMut(Vec<ExportedEntry>) -> bool,
) -> Result<(), NodeError> {
    let Some(describe) = views::describe_of(feed) else {
        return Ok(());
    };
    if !describe.terms.may_share {
        return Err(NodeError::Terms {
            set: describe.name.to_string(),
            terms: views::terms_text(&describe.terms),
        });
    }
    let mut from = 0;
    while from < feed.indexed {
        let to = from.saturating_add(PAGE_LEAVES).min(feed.indexed);
        let mut entries = Vec::new();
        for (index, raw) in (from..to).zip(store.read_leaves(feed.no, from, to)?) {
            let Leaf::Publish(body) = leaf::read(&raw, index) else {
                continue;
            };
            let dead = store.is_dead(feed.no, index)?;
            // What does not count here is handed to nobody as if it did.
            let withheld = store.withheld(feed.no, index)?;
            let body = without_withheld(*body, &withheld);
            if body.signals.is_empty() {
                continue;
            }
            if !dead || include_dead {
                let name = EntryName {
                    set: describe.name.clone(),
                    first: body.first_index(index),
                };
                entries.push(exported(name, index, publisher, state(feed, dead), body));
            }
        }
        from = to;
        if !entries.is_empty() && !sink(entries) {
            return Ok(());
        }
    }
    Ok(())
}

/// An entry without the signals that are in quarantine, none for all of it.
fn without_withheld(mut body: Publish, withheld: &[LotName]) -> Publish {
    body.signals.retain(|signal| {
        let of =
            |lot: &LotName| lot.kind == WHOLE_LEAF || u32::from(lot.kind) == signal.kind().number();
        !withheld.iter().any(of)
    });
    body
}

fn state(feed: &FeedInfo, dead: bool) -> &'static str {
    if dead {
        "withdrawn"
    } else if feed.status == FeedStatus::Frozen {
        "review"
    } else {
        "active"
    }
}

fn exported(
    entry: EntryName,
    index: u64,
    publisher: &Slug,
    state: &'static str,
    body: Publish,
) -> ExportedEntry {
    ExportedEntry {
        entry,
        index,
        publisher: publisher.clone(),
        state,
        body,
    }
}
