//! Which retractions the publisher's identity key signed. ⚠ A publisher makes as many as
//! it likes, each of which takes a page to be read and a signature to be verified: so
//! each is looked at once, and again only when the member's identity keys are others.

use std::sync::atomic::Ordering;

use hashpact_core::id::Digest;
use hashpact_core::keys::{Identity, PublicKey};
use hashpact_core::leaf::{self, IndexRange, Leaf, RawLeaf, Retract};
use hashpact_core::limits::PAGE_LEAVES;
use hashpact_core::standing;
use hashpact_store::{FeedInfo, RetractionRow, Signed, Taking};

use crate::error::NodeError;
use crate::node::Node;

/// Looks at the retractions of one feed, the last one first.
pub(super) struct Checks<'a> {
    node: &'a Node,
    feed: &'a FeedInfo,
    keys: Vec<PublicKey<Identity>>,
    /// Stands for the keys.
    tag: u64,
    /// Leaves beside those that were read.
    page: Option<(u64, Vec<RawLeaf>)>,
    checked: Vec<RetractionRow>,
}

impl<'a> Checks<'a> {
    pub(super) fn new(node: &'a Node, feed: &'a FeedInfo) -> Self {
        let member = node.membership().member(feed.publisher);
        let keys: Vec<_> = member.map_or_else(Vec::new, |member| member.identities().collect());
        let bytes: Vec<u8> = keys.iter().flat_map(|key| *key.as_bytes()).collect();
        let tag = Digest::of(&bytes).0.first_chunk().copied();
        Self {
            node,
            feed,
            keys,
            tag: u64::from_be_bytes(tag.unwrap_or_default()),
            page: None,
            checked: Vec::new(),
        }
    }

    /// Whether a leaf that is stored is signed.
    pub(super) fn is_signed(&mut self, row: &RetractionRow) -> Result<bool, NodeError> {
        match row.signed {
            Signed::No => return Ok(false),
            Signed::Checked { keys, good } if keys == self.tag => return Ok(good),
            Signed::Unchecked | Signed::Checked { .. } => {}
        }
        self.node.counted.checked.fetch_add(1, Ordering::Relaxed);
        let good = if let Leaf::Retract(retract) = self.leaf(row.index)? {
            self.verifies(&retract)
        } else {
            false
        };
        let keys = self.tag;
        self.checked.push(RetractionRow {
            signed: Signed::Checked { keys, good },
            ..*row
        });
        Ok(good)
    }

    /// Whether one of the identity keys, present or former, signed a leaf.
    pub(super) fn verifies(&self, retract: &Retract) -> bool {
        let feed = &self.feed.id;
        let mut keys = self.keys.iter();
        keys.any(|key| standing::verify_retraction(feed, retract, key).is_ok())
    }

    /// Notes what was found.
    pub(super) fn keep(&mut self) -> Result<(), NodeError> {
        let checked = std::mem::take(&mut self.checked);
        if !checked.is_empty() {
            self.node.store().note_signed(self.feed.no, &checked)?;
        }
        Ok(())
    }

    fn leaf(&mut self, index: u64) -> Result<Leaf, NodeError> {
        let first = index.saturating_sub(index % PAGE_LEAVES);
        if self.page.as_ref().is_none_or(|(at, _)| *at != first) {
            let end = first.saturating_add(PAGE_LEAVES).min(self.feed.stored);
            let leaves = self.node.store().read_leaves(self.feed.no, first, end)?;
            self.page = Some((first, leaves));
        }
        let at = usize::try_from(index.saturating_sub(first)).ok();
        let page = self.page.as_ref().zip(at);
        let raw = page.and_then(|((_, leaves), at)| leaves.get(at));
        Ok(raw.map_or(Leaf::Elided, |raw| leaf::read(raw, index)))
    }
}

impl Node {
    /// What signed retractions name.
    pub(super) fn spoken(
        &self,
        feed: &FeedInfo,
        taking: &Taking,
        signed: &[u64],
    ) -> Result<Vec<IndexRange>, NodeError> {
        let mut spoken = Vec::new();
        for index in signed {
            let coming = taking.retractions.get(index);
            match coming.map(|raw| leaf::read(raw, *index)) {
                Some(Leaf::Retract(retract)) => spoken.extend(retract.indexes),
                Some(_) => {}
                None => spoken.extend(self.store().named_by(feed.no, *index)?),
            }
        }
        Ok(spoken)
    }
}
