//! Erasing entries: taken back, and their content dropped by every holder.
//!
//! Every version of an entry goes, whether it stood or not. The leaves' records stay,
//! and with them every proof; the salt in each payload keeps the record's digest from
//! saying anything.

use std::collections::BTreeSet;

use hashpact_core::id::{Digest, Slug};
use hashpact_core::leaf::RetractReason;
use hashpact_core::leaf::{ERASE, Erase, IndexRange, PUBLISH, RANGES_PER_LEAF, RawLeaf};
use hashpact_store::FeedInfo;

use super::import::versions;
use super::retract::referenced;
use super::{Publisher, no_value};
use crate::error::NodeError;
use crate::model::{Erased, Erasure, LineRejection, Retraction, Selector};

/// What the selectors of an erasure came to.
#[derive(Default)]
struct Resolved {
    /// Every version with content, of all entries.
    indexes: BTreeSet<u64>,
    erased: u64,
    already_erased: u64,
    not_found: Vec<LineRejection>,
}

impl Publisher {
    /// Erases entries of an own set, signs it, and drops their content from this
    /// node's disk. Selectors that name nothing are listed; the others count all the
    /// same.
    ///
    /// Where the identity key is here it signs a retraction of the same leaves: an
    /// erase leaf has no place for its signature, and without it a mass erasure is
    /// held for review by everybody.
    ///
    /// # Errors
    /// [`NodeError::Misuse`] where so many entries need the identity key and it is not
    /// here; a legal basis that is empty or too long; what the store answers.
    pub fn erase(&self, set: &Slug, erasure: &Erasure) -> Result<Erased, NodeError> {
        no_value("legal basis", &erasure.legal_basis)?;
        let feed = self.own_set(set)?;
        let mut session = self.session(&feed)?;
        let feed = session.info().clone();
        let (mut outcome, indexes) = self.contents_of(&feed, erasure)?;
        if !indexes.is_empty() {
            self.require_identity(&feed, indexes.len())?;
            let mut leaves = Vec::new();
            if self.identity_key.is_some() {
                let speaks = Retraction {
                    reason: RetractReason::Legal,
                    note: String::new(),
                    recheck: false,
                    selectors: Vec::new(),
                };
                leaves = self.retract_leaves(&feed, &speaks, &indexes)?;
            }
            leaves.extend(self.erase_leaves(erasure, &indexes)?);
            outcome.identity_signed = self.identity_key.is_some();
            outcome.leaf_index = Some(session.append(&leaves)?);
            let (head, payloads) = session.sign_and_drop()?;
            outcome.payloads = payloads;
            outcome.head = (head.size, head.root);
        }
        // Also what an earlier command that was cut off left to do.
        self.store.purge()?;
        Ok(outcome)
    }

    /// What [`Publisher::erase`] would erase; changes nothing.
    ///
    /// # Errors
    /// As [`Publisher::erase`].
    pub fn would_erase(&self, set: &Slug, erasure: &Erasure) -> Result<Erased, NodeError> {
        no_value("legal basis", &erasure.legal_basis)?;
        let feed = self.own_set(set)?;
        let (mut outcome, indexes) = self.contents_of(&feed, erasure)?;
        if !indexes.is_empty() {
            self.require_identity(&feed, indexes.len())?;
            // Text that no leaf takes is refused here already.
            self.erase_leaves(erasure, &indexes)?;
        }
        outcome.payloads = u64::try_from(indexes.len()).unwrap_or(u64::MAX);
        Ok(outcome)
    }

    /// What is named, with all the leaves of it that have content.
    fn contents_of(
        &self,
        feed: &FeedInfo,
        erasure: &Erasure,
    ) -> Result<(Erased, BTreeSet<u64>), NodeError> {
        let resolved = self.contents(feed, &erasure.selectors)?;
        let outcome = Erased {
            erased: resolved.erased,
            payloads: 0,
            already_erased: resolved.already_erased,
            not_found: resolved.not_found,
            leaf_index: None,
            head: feed
                .applied
                .map_or((0, Digest::of(b"")), |head| (head.size, head.root)),
            identity_signed: false,
        };
        Ok((outcome, resolved.indexes))
    }

    fn contents(
        &self,
        feed: &FeedInfo,
        selectors: &[(u64, Selector)],
    ) -> Result<Resolved, NodeError> {
        let mut resolved = Resolved::default();
        let mut seen = BTreeSet::new();
        for (line, selector) in selectors {
            let found = self.latest(feed, selector)?;
            if found.is_empty() {
                resolved.not_found.push(LineRejection {
                    line: *line,
                    code: "not_found",
                    reason: "nothing in the set was published under this".to_owned(),
                });
            }
            for latest in found {
                if !seen.insert(latest) {
                    continue;
                }
                if self.store.read_leaf(feed.no, latest)?.is_elided() {
                    resolved.already_erased += 1;
                } else {
                    resolved.erased += 1;
                    resolved.indexes.extend(versions(self, feed, latest)?);
                }
            }
        }
        Ok(resolved)
    }

    /// The latest versions of the entries that a selector names, dead or alive.
    fn latest(&self, feed: &FeedInfo, selector: &Selector) -> Result<BTreeSet<u64>, NodeError> {
        let firsts = match selector {
            Selector::Entry(first) => {
                let is_entry =
                    *first < feed.indexed && self.store.read_leaf(feed.no, *first)?.kind == PUBLISH;
                is_entry.then_some(*first).into_iter().collect()
            }
            Selector::Signal(signal) => self.store.entries_with(feed.no, &signal.index_key())?,
            Selector::SourceReference(reference) => {
                let digest = hashpact_store::reference_digest(&referenced(reference));
                let held = self.store.lookup_refs(feed.no, &[digest])?;
                return Ok(held.into_iter().flatten().map(|held| held.index).collect());
            }
        };
        let latest = firsts
            .into_iter()
            .map(|first| self.store.latest_version(feed.no, first));
        Ok(latest.collect::<Result<_, _>>()?)
    }

    fn erase_leaves(
        &self,
        erasure: &Erasure,
        indexes: &BTreeSet<u64>,
    ) -> Result<Vec<RawLeaf>, NodeError> {
        let ranges = IndexRange::gather(indexes.iter().copied());
        ranges
            .chunks(RANGES_PER_LEAF)
            .map(|ranges| {
                let leaf = Erase {
                    indexes: ranges.to_vec(),
                    legal_basis: erasure.legal_basis.clone(),
                    created: self.clock.now(),
                };
                Ok(RawLeaf::new(ERASE, leaf.encode(self.salt())?))
            })
            .collect()
    }
}
