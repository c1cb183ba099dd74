//! Entries whose verdict may hang on one that changed: they are told again with it.
//!
//! Where a policy counts members, what becomes of an entry follows from others that carry
//! its signals, too. So when an entry comes, changes or goes, those beside it are told
//! once more, as changed, with the verdict that they have by then. What cannot be told
//! so: those beside a set that goes as a whole, and beside an entry that was erased, of
//! which nobody holds the signals any more.

use std::collections::BTreeSet;

use hashpact_core::id::FeedId;
use hashpact_core::leaf::{self, Leaf};
use hashpact_core::signal::Signal;
use hashpact_store::{ChangedLeaf, FeedNo, StoreError, WholeStanding};

use super::{Change, Words};
use crate::error::NodeError;

/// Entries beside those of one page that are told again: at 8,000 bytes a leaf a message
/// with a page and these stays below 4 MB.
const SIBLINGS_MAX: usize = 200;

impl Words<'_> {
    /// Tells the entries again that carry a signal of these leaves, which are of one page.
    pub(super) fn tell_siblings(
        &mut self,
        (no, id): (FeedNo, FeedId),
        leaves: &[ChangedLeaf],
    ) -> Result<(), NodeError> {
        if self.in_snapshot || !self.judge.counts_members() {
            return Ok(());
        }
        let signals = self.signals_of(no, leaves)?;
        let told: BTreeSet<u64> = leaves.iter().map(|leaf| leaf.index).collect();
        let mut beside = BTreeSet::new();
        for matched in self.node.matches_in_turn(&signals)? {
            let others = matched.found.iter().map(|found| &found.entry);
            let others = others.filter(|entry| entry.feed != id || !told.contains(&entry.index));
            beside.extend(others.map(|entry| (entry.feed, entry.index)));
        }
        for (feed, index) in beside.into_iter().take(SIBLINGS_MAX) {
            if let Some(change) = self.as_it_stands(feed, index)? {
                self.changes.push(change);
            }
        }
        Ok(())
    }

    /// The signals of leaves, shown or not, as far as their payloads are held.
    fn signals_of(&self, no: FeedNo, leaves: &[ChangedLeaf]) -> Result<Vec<Signal>, NodeError> {
        let indexes = leaves.iter().map(|leaf| leaf.index);
        let Some((first, last)) = indexes.clone().min().zip(indexes.max()) else {
            return Ok(Vec::new());
        };
        let raw = match self
            .node
            .store()
            .read_leaves(no, first, last.saturating_add(1))
        {
            Err(StoreError::UnknownFeed(_) | StoreError::OutOfRange { .. }) => Vec::new(),
            other => other?,
        };
        let mut signals = Vec::new();
        for ChangedLeaf { index, .. } in leaves {
            let at = usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX);
            let leaf = raw.get(at).map(|raw| leaf::read(raw, *index));
            if let Some(Leaf::Publish(mut body)) = leaf {
                signals.append(&mut body.signals);
            }
        }
        Ok(signals)
    }

    /// An entry as the node acts on it now; `None` where it does not.
    fn as_it_stands(&mut self, id: FeedId, index: u64) -> Result<Option<Change>, NodeError> {
        let store = self.node.store();
        let Some(no) = store.feed_no(&id) else {
            return Ok(None);
        };
        let read = store.feed(no).and_then(|feed| {
            let seen = store.seen(no, index, index.saturating_add(1))?;
            Ok((feed, seen, store.read_leaf(no, index)?))
        });
        let (feed, seen, raw) = match read {
            // It went meanwhile, which a later record tells.
            Err(StoreError::UnknownFeed(_) | StoreError::OutOfRange { .. }) => return Ok(None),
            other => other?,
        };
        let standing = self.node.whole(&feed).standing;
        let seen = seen.into_iter().flatten().next();
        let (Some(seen), Leaf::Publish(body)) = (seen, leaf::read(&raw, index)) else {
            return Ok(None);
        };
        if standing == WholeStanding::Nothing {
            return Ok(None);
        }
        let review = standing == WholeStanding::Review;
        self.present((no, id), review, index, &seen, *body)
    }
}
