//! Taking entries back: permanent, with a reason, everywhere.

use std::collections::BTreeSet;

use hashpact_core::id::{Digest, Slug};
use hashpact_core::leaf::{
    Basis, IndexRange, MediaKind, PUBLISH, Publish, RANGES_PER_LEAF, RETRACT, RawLeaf, Retract,
};
use hashpact_core::limits::RETRACT_FREE_PER_DAY;
use hashpact_core::standing;
use hashpact_store::FeedInfo;

use super::import::versions;
use super::{Publisher, no_value};
use crate::error::NodeError;
use crate::model::{LineRejection, Retracted, Retraction, Selector};
use crate::views;

/// What the selectors of a retraction came to.
#[derive(Default)]
struct Resolved {
    /// Latest indexes of the entries to take back.
    latest: BTreeSet<u64>,
    already_dead: u64,
    not_found: Vec<LineRejection>,
}

impl Publisher {
    /// Takes entries of an own set back and signs it. Selectors that name nothing
    /// are listed; the others count all the same.
    ///
    /// # Errors
    /// [`NodeError::Misuse`] where so many entries need the identity key and it is
    /// not here; what the store answers.
    pub fn retract(&self, set: &Slug, retraction: &Retraction) -> Result<Retracted, NodeError> {
        no_value("note", &retraction.note)?;
        let feed = self.own_set(set)?;
        let mut session = self.session(&feed)?;
        let feed = session.info().clone();
        let (mut outcome, indexes) = self.named(&feed, retraction)?;
        if indexes.is_empty() {
            return Ok(outcome);
        }
        let leaves = self.retract_leaves(&feed, retraction, &indexes)?;
        outcome.identity_signed = self.identity_key.is_some();
        outcome.leaf_index = Some(session.append(&leaves)?);
        let head = session.sign()?;
        outcome.head = (head.size, head.root);
        Ok(outcome)
    }

    /// What [`Publisher::retract`] would take back, as far as that is known beforehand;
    /// changes nothing.
    ///
    /// # Errors
    /// As [`Publisher::retract`].
    pub fn would_retract(
        &self,
        set: &Slug,
        retraction: &Retraction,
    ) -> Result<Retracted, NodeError> {
        no_value("note", &retraction.note)?;
        let feed = self.own_set(set)?;
        let (outcome, indexes) = self.named(&feed, retraction)?;
        if !indexes.is_empty() {
            // Text that no leaf takes is refused here already.
            self.retract_leaves(&feed, retraction, &indexes)?;
        }
        Ok(outcome)
    }

    /// What is named, with all the leaves of it.
    fn named(
        &self,
        feed: &FeedInfo,
        retraction: &Retraction,
    ) -> Result<(Retracted, BTreeSet<u64>), NodeError> {
        let resolved = self.resolve(feed, &retraction.selectors)?;
        let outcome = Retracted {
            retracted: u64::try_from(resolved.latest.len()).unwrap_or(u64::MAX),
            already_dead: resolved.already_dead,
            not_found: resolved.not_found,
            leaf_index: None,
            head: feed
                .applied
                .map_or((0, Digest::of(b"")), |head| (head.size, head.root)),
            identity_signed: false,
        };
        let mut indexes = BTreeSet::new();
        for latest in resolved.latest {
            indexes.extend(versions(self, feed, latest)?);
        }
        Ok((outcome, indexes))
    }

    fn resolve(
        &self,
        feed: &FeedInfo,
        selectors: &[(u64, Selector)],
    ) -> Result<Resolved, NodeError> {
        let mut resolved = Resolved::default();
        for (line, selector) in selectors {
            let found = match selector {
                Selector::Entry(first) => self.entry(feed, *first)?,
                Selector::Signal(signal) => {
                    let live = self.store.live_with(feed.no, &signal.index_key())?;
                    live.into_iter().map(|index| (index, true)).collect()
                }
                Selector::SourceReference(reference) => {
                    let digest = hashpact_store::reference_digest(&referenced(reference));
                    let held = self.store.lookup_refs(feed.no, &[digest])?;
                    let held = held.into_iter().flatten();
                    held.map(|held| (held.index, held.live)).collect()
                }
            };
            if found.is_empty() {
                resolved.not_found.push(LineRejection {
                    line: *line,
                    code: "not_found",
                    reason: "nothing in the set stands under this".to_owned(),
                });
            }
            for (index, live) in found {
                if live {
                    resolved.latest.insert(index);
                } else {
                    resolved.already_dead += 1;
                }
            }
        }
        Ok(resolved)
    }

    /// The latest version of the entry that began at `first`, and whether it lives.
    fn entry(&self, feed: &FeedInfo, first: u64) -> Result<Vec<(u64, bool)>, NodeError> {
        if first >= feed.indexed || self.store.read_leaf(feed.no, first)?.kind != PUBLISH {
            return Ok(Vec::new());
        }
        let latest = self.store.latest_version(feed.no, first)?;
        let dead = self.store.is_dead(feed.no, latest)? && !self.store.is_held(feed.no, latest)?;
        Ok(vec![(latest, !dead)])
    }

    pub(super) fn retract_leaves(
        &self,
        feed: &FeedInfo,
        retraction: &Retraction,
        indexes: &BTreeSet<u64>,
    ) -> Result<Vec<RawLeaf>, NodeError> {
        self.require_identity(feed, indexes.len())?;
        let ranges = IndexRange::gather(indexes.iter().copied());
        ranges
            .chunks(RANGES_PER_LEAF)
            .map(|ranges| {
                let mut leaf = Retract {
                    indexes: ranges.to_vec(),
                    reason: retraction.reason,
                    note: retraction.note.clone(),
                    recheck: retraction.recheck,
                    created: self.clock.now(),
                    identity_signature: None,
                };
                if let Some(key) = &self.identity_key {
                    let bytes = standing::retraction_signing_bytes(&feed.id, &leaf);
                    leaf.identity_signature = Some(key.sign(&bytes));
                }
                Ok(RawLeaf::new(RETRACT, leaf.encode(self.salt())?))
            })
            .collect()
    }

    /// A mass retraction counts at its readers only with the identity key's
    /// signature; better said here than noticed there.
    pub(super) fn require_identity(&self, feed: &FeedInfo, count: usize) -> Result<(), NodeError> {
        let free = RETRACT_FREE_PER_DAY.max(views::live_entries(feed) / 100);
        if self.identity_key.is_none() && u64::try_from(count).unwrap_or(u64::MAX) > free {
            return Err(NodeError::Misuse(format!(
                "retracting {count} leaves within 24 hours needs the identity key, which is not on \
                 this node; up to {free} go without it"
            )));
        }
        Ok(())
    }
}

/// An entry of which only the source reference is known.
pub(super) fn referenced(reference: &str) -> Publish {
    Publish {
        media_kind: MediaKind::Other,
        signals: Vec::new(),
        classification: None,
        labels: Vec::new(),
        basis: Basis::Human,
        source_reference: reference.to_owned(),
        first_seen: None,
        expires: None,
        replaces: Vec::new(),
        published: hashpact_core::id::UnixMillis(0),
    }
}
