//! Sealed segments that are older than they are to be kept go, oldest first, and so do
//! the oldest of too many.
//!
//! What is left still verifies: the oldest segment left names the last state of the one
//! before it, and that one's removal is recorded after it was sealed, so in a segment
//! that is left as long as anything is.

use std::sync::PoisonError;

use hashpact_core::id::FeedId;
use hashpact_core::leaf::audit::{Act, Actor, OK, Segment};

use super::Audit;
use super::read::Said;
use crate::error::NodeError;

/// The act by which a segment goes.
pub(super) const REMOVE: &str = "audit.remove";
/// The detail that names it.
pub(super) const SEGMENT_ID: &str = "segment_id";

impl Audit {
    pub(super) fn retain(&self) {
        // A check of everything goes first; the next look is soon.
        let Ok(_keeping) = self.keeping.try_lock() else {
            return;
        };
        loop {
            match self.remove_oldest() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(%error, "an old segment of the audit feed stays");
                    return;
                }
            }
        }
    }

    /// Removes the oldest segment if it is time; answers whether it was.
    fn remove_oldest(&self) -> Result<bool, NodeError> {
        let segments = self.store.audit_segments()?;
        let [(number, id), (after, _), ..] = segments.as_slice() else {
            return Ok(false);
        };
        let Some(next) = self.first_of(*after)? else {
            return Ok(false);
        };
        // It was sealed when the next one began.
        let age = self.clock.now().since(next.created);
        let old = self.settings.retain_ms.is_some_and(|keep| age >= keep);
        if !old && segments.len() <= self.settings.segments_max {
            return Ok(false);
        }
        let mut act = Act::new(REMOVE, Actor::node());
        act.began = self.clock.now();
        act.ended = act.began;
        OK.clone_into(&mut act.outcome);
        act.count("segment", *number);
        act.detail(SEGMENT_ID, id);
        if let Some(before) = next.predecessor.filter(|before| before.feed == *id) {
            act.count("size", before.size);
            act.detail("root", before.root);
        }
        // Crash: before, it is still there and goes at the next look; after, it is gone
        // and the leaf that says so is there.
        self.append(&act, None, Some(*number))?;
        tracing::info!(
            segment = number,
            "an old segment of the audit feed was removed"
        );
        Ok(true)
    }

    /// What a segment begins with.
    pub(super) fn first_of(&self, segment: u64) -> Result<Option<Segment>, NodeError> {
        let first = self.store.audit_leaf(segment, 0)?;
        Ok(match first.as_ref().map(Said::of) {
            Some(Said::Segment(segment)) => Some(*segment),
            Some(Said::Act(_) | Said::Unread) | None => None,
        })
    }

    /// Waits until nothing removes segments, and holds that off.
    pub(super) fn keep(&self) -> std::sync::MutexGuard<'_, ()> {
        self.keeping.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which segment an act removed.
pub(super) fn removed(act: &Act) -> Option<FeedId> {
    let mut details = act.details.iter();
    let (_, id) = details.find(|(name, _)| name == SEGMENT_ID)?;
    let id = hashpact_core::id::Digest::from_hex(id).ok()?;
    (act.act == REMOVE && act.outcome == OK).then_some(FeedId(id))
}
