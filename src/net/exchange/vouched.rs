//! What a watch is told of cosignatures: those of this node, to whom; and when those of
//! others are worth a word.

use std::sync::Arc;

use hashpact_core::access::Snapshot;
use hashpact_core::checkpoint;
use hashpact_core::id::{Digest, FeedId};
use hashpact_core::witness::judge::Judged;
use hashpact_store::StoreError;

use super::announce::{Teller, digest_of, stored_head};
use super::reach::Reach;
use crate::types::{Announcement, Head};

/// Heads looked through for the last one that a witness cosigned.
const HEADS_MAX: usize = 256;
/// Cosignatures of others' feeds are told on once in so long, where nothing else is new:
/// their witnesses and their publisher tell them at once.
pub(super) const AGAIN_MS: u64 = 10 * 60 * 1_000;

impl Teller {
    /// Feeds of which this node has cosigned something.
    pub(super) fn cosigned_feeds(&self) -> Vec<FeedId> {
        let witnessing = self.node.witnessing();
        witnessing.map_or_else(Vec::new, |witnessing| witnessing.feeds())
    }

    /// PROTOCOL 16.10a: of a feed that it does not hold a witness tells the head that it
    /// has cosigned, to the publisher, to other witnesses, and to whoever showed it
    /// that very head.
    pub(super) fn cosigned(&mut self, snapshot: &Snapshot, feed: &FeedId) -> Option<Announcement> {
        let said = self.node.witnessing().and_then(|w| w.said(feed));
        let Some(said) = said.filter(|_| self.may_be_told(snapshot, feed)) else {
            self.told.heads.remove(feed);
            return None;
        };
        let head = Head {
            feed: *feed,
            publisher: said.cosigned.publisher,
            note: said.cosigned.note,
            cosignatures: vec![said.line],
            receipts: Vec::new(),
        };
        let digest = digest_of(&head);
        if self.told.heads.insert(*feed, digest) == Some(digest) {
            return None;
        }
        Some(Announcement::Head(Box::new(head)))
    }

    fn may_be_told(&self, snapshot: &Snapshot, feed: &FeedId) -> bool {
        let Some(witnessing) = self.node.witnessing() else {
            return false;
        };
        let Some(said) = witnessing.said(feed) else {
            return false;
        };
        let publisher = said.cosigned.publisher;
        snapshot.may_publish(publisher)
            && (self.to == publisher
                || snapshot.is_witness(self.to)
                || witnessing.is_known_to(feed, self.to))
    }

    /// Whether a member knows of a feed that this node does not hold: it publishes it,
    /// showed a head of it, or is a witness.
    pub(super) fn knows_of(&self, snapshot: &Arc<Snapshot>, feed: &FeedId) -> bool {
        let Some(witnessing) = self.node.witnessing() else {
            return false;
        };
        snapshot.is_witness(self.to) || witnessing.showed_by(feed, self.to)
    }

    /// PROTOCOL 16.10b: a witness is told first of the last head that it cosigned itself,
    /// once a watch. ⚠ Its own disk may have been restored since.
    pub(super) fn cosigned_by_watcher(
        &self,
        reach: &Reach,
    ) -> Result<Option<Announcement>, StoreError> {
        let feed = reach.feed.id;
        let first = !self.told.heads.contains_key(&feed);
        let Some(at) = reach.feed.applied.filter(|_| first) else {
            return Ok(None);
        };
        if !reach.snapshot.is_witness(self.to) {
            return Ok(None);
        }
        let roster = reach.snapshot.roster().roster();
        let Some(member) = roster.member(self.to) else {
            return Ok(None);
        };
        let name = checkpoint::witness_name(&roster.coalition, &member.slug);
        let by = format!("\u{2014} {name} ");
        let store = self.node.store();
        for head in store.heads(reach.feed.no, HEADS_MAX)? {
            let kept = head.at();
            let is_below = kept.epoch == at.epoch && kept.size <= at.size;
            let mut lines = head.cosignatures.iter();
            if !is_below || !lines.any(|line| line.starts_with(by.as_bytes())) {
                continue;
            }
            if kept == at {
                return Ok(None); // the head itself says it
            }
            let mut said = stored_head(store, reach, kept)?;
            if let Some(said) = &mut said {
                said.receipts.clear();
                said.cosignatures
                    .retain(|line| line.starts_with(by.as_bytes()));
            }
            return Ok(said.map(|said| Announcement::Head(Box::new(said))));
        }
        Ok(None)
    }

    /// Tells two states of a head apart. Of an own feed every cosignature counts; of
    /// another's, whether a quorum has cosigned it, and roughly when.
    pub(super) fn what_is_new(&self, reach: &Reach, head: &Head) -> Digest {
        if reach.feed.own || head.cosignatures.is_empty() {
            return digest_of(head);
        }
        let Ok(judged) = self.node.judged(&reach.feed) else {
            return digest_of(head);
        };
        let size = reach.feed.applied.map_or(0, |at| at.size);
        let mut coarse = head.clone();
        coarse.cosignatures = vec![word(&judged, size).into()];
        digest_of(&coarse)
    }
}

fn word(judged: &Judged, size: u64) -> String {
    let reached = judged.reached(size);
    let at = if reached {
        Some(judged.quorum_at)
    } else {
        judged.last
    };
    let stretch = at.and_then(|at| at.0.checked_div(AGAIN_MS)).unwrap_or(0);
    format!("{reached} {stretch}")
}
