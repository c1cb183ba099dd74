//! A stolen feed key must not disarm everybody.
//!
//! Retractions within 24 hours of more entries than the larger of 100 and one per
//! cent of the set count only with the identity key's signature; until then what
//! they name goes to review, not away. The rule is the core's
//! ([`standing::held_for_review`]); this applies it to a feed after each commit.

use std::collections::BTreeSet;

use hashpact_core::leaf::{self, IndexRange, Leaf};
use hashpact_core::limits::DAY_MS;
use hashpact_core::standing::{self, Retraction};
use hashpact_store::{FeedInfo, FeedNo};
use tracing::warn;

use crate::error::NodeError;
use crate::node::Node;
use crate::views;

/// Retractions looked back at: some 10 days of one a minute. A thief who makes
/// more in a day has long been held by the first of them.
const LOOK_BACK: usize = 16_384;

impl Node {
    /// Decides which retractions of a pulled feed are held, after leaves from
    /// `from` on were indexed. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn review_retractions(&self, no: FeedNo, from: u64) -> Result<(), NodeError> {
        let store = self.store();
        let new = store.retractions(no, from, 1)?;
        let held = store.held_retractions(no)?;
        if new.is_empty() && held.is_empty() {
            return Ok(());
        }
        let feed = store.feed(no)?;
        let recent = self.recent_retractions(&feed)?;
        let mut next: BTreeSet<u64> = standing::held_for_review(&recent).into_iter().collect();
        // Time alone releases nothing: only the identity key's word does.
        next.extend(held.iter().copied());
        if next.len() > held.len() {
            metrics::counter!("hashpact_mass_retractions_total").increment(1);
            warn!(
                feed = %feed.id.0.short(), retractions = next.len(),
                "a mass retraction without the identity key's signature: its entries are held \
                 for review until the publisher signs for it"
            );
        }
        store.hold_retractions(no, next)?;
        Ok(())
    }

    /// The retractions within a day of the last one, the last one first.
    fn recent_retractions(&self, feed: &FeedInfo) -> Result<Vec<Retraction>, NodeError> {
        let mut recent: Vec<Retraction> = Vec::new();
        for index in self.store().retractions(feed.no, 0, LOOK_BACK)? {
            let Some(retraction) = self.retraction(feed, index)? else {
                continue;
            };
            let newest = recent
                .first()
                .map_or(retraction.created_ms, |r| r.created_ms);
            if newest.saturating_sub(retraction.created_ms) > 2 * DAY_MS {
                break;
            }
            recent.push(retraction);
        }
        Ok(recent)
    }

    fn retraction(&self, feed: &FeedInfo, index: u64) -> Result<Option<Retraction>, NodeError> {
        let raw = self.store().read_leaf(feed.no, index)?;
        let (ranges, created, signed) = match leaf::read(&raw, index) {
            Leaf::Retract(retract) => {
                let member = self.membership().member(feed.publisher);
                let signed = member.is_some_and(|member| {
                    member.identities().any(|identity| {
                        standing::verify_retraction(&feed.id, &retract, &identity).is_ok()
                    })
                });
                (retract.indexes, retract.created, signed)
            }
            Leaf::Erase(erase) => (erase.indexes, erase.created, false),
            Leaf::Describe(_)
            | Leaf::Publish(_)
            | Leaf::Opinion(_)
            | Leaf::Unknown(_)
            | Leaf::Void(_)
            | Leaf::Elided => return Ok(None),
        };
        // Versions of one entry count each: the rule is stricter for it, never laxer.
        let entries = ranges.iter().map(|range: &IndexRange| range.count).sum();
        Ok(Some(Retraction {
            index,
            created_ms: created.0,
            entries,
            set_entries: views::live_entries(feed).saturating_add(entries),
            signed,
        }))
    }
}
