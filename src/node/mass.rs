//! A stolen feed key must not disarm everybody.
//!
//! Retractions within 24 hours of more entries than the larger of 100 and one per
//! cent of the set count only with the identity key's signature; until then what
//! they name goes to review, not away. New versions that take something out count
//! as well ([`versions`]). The set is taken as it was a day ago. The rule is the core's
//! ([`standing::held_for_review`]); this applies it to a feed before each commit, so that
//! nothing takes effect that is held, and once more after it.

mod signed;
pub(crate) mod versions;

use std::collections::BTreeMap;

use hashpact_core::access::{Grants, Snapshot};
use hashpact_core::chunk::VerifiedChunk;
use hashpact_core::id::UnixMillis;
use hashpact_core::leaf::{self, Describe, IndexRange, Leaf, RawLeaf, Retract};
use hashpact_core::limits::{DAY_MS, RETRACT_FREE_PER_DAY};
use hashpact_core::standing::{self, Retraction};
use hashpact_store::{FeedInfo, FeedNo, FeedWriter, RetractionRow, Taking};
use tracing::warn;

use self::signed::Checks;
use crate::error::NodeError;
use crate::node::Node;

/// Retractions looked back at before those that are new: some 10 days of one a minute.
/// A thief who makes more in a day has long been held by the first of them.
const LOOK_BACK: usize = 16_384;
/// Describe leaves, and others that take nothing out, looked back at for the grants of
/// a day ago.
const DESCRIBES_MAX: usize = 4_096;
/// Heads looked back at for when leaves came.
const HEADS_MAX: usize = 4_096;

impl Node {
    /// Decides which of the retractions that a commit is about to let count are held, so
    /// that none acts while it is looked at. Nothing of a first pull acts before the head
    /// over it. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn foresee_commit(&self, writer: &mut FeedWriter) -> Result<(), NodeError> {
        let feed = writer.info();
        if feed.own || feed.applied.is_none() {
            return Ok(());
        }
        let taking = writer.taking()?;
        self.foresee(feed.no, feed.indexed, &taking)
    }

    /// The same for leaves that a chunk puts where records are held.
    ///
    /// # Errors
    /// What the store answers.
    pub fn foresee_refill(
        &self,
        writer: &FeedWriter,
        chunk: &VerifiedChunk,
    ) -> Result<(), NodeError> {
        let feed = writer.info();
        if feed.own || feed.applied.is_none() {
            return Ok(());
        }
        self.foresee(feed.no, feed.indexed, &writer.taking_of(chunk))
    }

    fn foresee(&self, no: FeedNo, from: u64, taking: &Taking) -> Result<(), NodeError> {
        // Crash: between the two batches retractions are held that do not count yet;
        // they are the same when they do.
        if taking.is_empty() {
            return Ok(());
        }
        let first = taking
            .retractions
            .keys()
            .chain(taking.replaces.keys())
            .min();
        self.review(no, first.map_or(from, |first| from.min(*first)), taking)
    }

    /// Decides which retractions of a pulled feed are held, after leaves from
    /// `from` on were indexed. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn review_retractions(&self, no: FeedNo, from: u64) -> Result<(), NodeError> {
        self.review(no, from, &Taking::default())
    }

    fn review(&self, no: FeedNo, from: u64, taking: &Taking) -> Result<(), NodeError> {
        let store = self.store();
        let feed = store.feed(no)?;
        let retracts =
            !taking.retractions.is_empty() || !store.retractions(no, from, 1)?.is_empty();
        let held = store.held_retractions(no)?;
        let mut new = Vec::new();
        // In a first pull nobody can tell what was replaced before it was elided.
        if from > 0 {
            new = self.takes(&feed, (from, u64::MAX), taking, &held)?;
        }
        if taking.is_empty() {
            match from {
                0 => self.counted.forget(no),
                _ => self.counted.remember(no, (from, feed.indexed), &new),
            }
        }
        if !retracts && new.is_empty() && held.is_empty() {
            return Ok(());
        }
        let mut recent = self.recent_retractions(&feed, from, taking)?;
        if from > 0 {
            let since = self.day_before(&feed)?.min(from);
            let mut takes = self.earlier_takes(&feed, (since, from), &held)?;
            takes.extend(new);
            // What was signed for is asked for only where there is something to spare.
            if !takes.is_empty() {
                let signed = recent.iter().filter(|one| one.signed).map(|one| one.index);
                let spoken = self.spoken(&feed, taking, &signed.collect::<Vec<_>>())?;
                self.counted.speak(no, &spoken);
                versions::spare(&mut takes, &spoken);
            }
            let now = self.clock().now();
            recent.extend(takes.iter().map(|takes| takes.retraction(now)));
        }
        let taken = recent.iter().fold(0_u64, |sum, one| {
            sum.saturating_add(if one.signed { 0 } else { one.entries })
        });
        let mut next = held.clone();
        // Up to this many, whatever the set's size.
        if taken > RETRACT_FREE_PER_DAY {
            let before = self.day_before(&feed)?;
            let living = self.counted.living(no, before, || {
                let dead = store.liveness_at(no, before)?.dead_count();
                Ok(before.saturating_sub(dead))
            })?;
            for one in &mut recent {
                one.set_entries = living;
            }
            // Time alone releases nothing: only the identity key's word does.
            next.extend(standing::held_for_review(&recent));
        }
        // What is dead by these alone is reckoned with each leaf that kills.
        if next.len() > held.len() {
            metrics::counter!("hashpact_mass_retractions_total").increment(1);
            warn!(
                feed = %feed.id.0.short(), retractions = next.len(),
                "a mass retraction without the identity key's signature: its entries are held \
                 for review until the publisher signs for it"
            );
            store.hold_retractions(no, next)?;
        }
        Ok(())
    }

    /// Whether a describe leaf after which this member may not read any more ends the
    /// grants of so many readers, as they were a day ago, that it takes the publisher's
    /// identity key, and has not got it. Blocking.
    ///
    /// PROTOCOL 15.10. Where it was not the leaf that took this member's grant, but roster
    /// or suspension, it is not.
    ///
    /// # Errors
    /// What the store answers.
    pub fn ends_for_many(
        &self,
        feed: &FeedInfo,
        snapshot: &Snapshot,
        (index, describe): (u64, &Describe),
    ) -> Result<bool, NodeError> {
        let member = self.membership().member(feed.publisher);
        let signed = member.is_some_and(|member| {
            let mut identities = member.identities();
            identities.any(|key| describe.verify_grants(&feed.id, index, &key).is_ok())
        });
        if signed {
            return Ok(false);
        }
        let size = self.day_before(feed)?;
        let found = self.store().describes(feed.no, None, DESCRIBES_MAX)?;
        let mut granting = found.into_iter().filter(|(at, _)| *at < size);
        let before = granting.find_map(|(at, leaf)| match leaf::read(&leaf, at) {
            Leaf::Describe(describe) => Some(Grants::of(&describe)),
            Leaf::Publish(_)
            | Leaf::Retract(_)
            | Leaf::Opinion(_)
            | Leaf::Erase(_)
            | Leaf::Unknown(_)
            | Leaf::Void(_)
            | Leaf::Elided => None,
        });
        let own = self.membership().own()?;
        Ok(match before {
            Some(before) => {
                snapshot
                    .may_read(own, feed.publisher, Some(&before))
                    .is_ok()
                    && snapshot.ends_for_many(feed.publisher, &before, &Grants::of(describe))
            }
            // ⚠ So many leaves within a day that what was before them is out of sight: leaf
            // 0 describes.
            None => size > 0,
        })
    }

    /// Leaves that the feed had a day ago, as far as this node knows: below the
    /// newest head that it has had for so long, else below the first that it had.
    /// What is published within the day does not raise what may be taken back in it.
    fn day_before(&self, feed: &FeedInfo) -> Result<u64, NodeError> {
        let now = self.clock().now();
        let mut size = feed.indexed;
        for head in self.store().heads(feed.no, usize::MAX)? {
            size = head.at().size.min(size);
            if now.since(head.received) >= DAY_MS {
                break;
            }
        }
        Ok(size)
    }

    /// All retractions from leaf `from` on, and before them those within two days of
    /// them, the last one first.
    ///
    /// ⚠ All: a thief makes as many as he likes under one head, and says any time of
    /// them. So nothing new is left out, and times are held to when this node heard of
    /// the leaves (PROTOCOL 12.7).
    fn recent_retractions(
        &self,
        feed: &FeedInfo,
        from: u64,
        taking: &Taking,
    ) -> Result<Vec<Retraction>, NodeError> {
        let rows = self.store().retraction_rows(feed.no, from, LOOK_BACK)?;
        let mut looked_at: BTreeMap<u64, Option<RetractionRow>> =
            rows.into_iter().map(|row| (row.index, Some(row))).collect();
        // Leaves that are put back lie among the others.
        looked_at.extend(taking.retractions.keys().map(|index| (*index, None)));
        let arrivals = self.arrivals(feed)?;
        let mut checks = Checks::new(self, feed);
        let mut recent: Vec<Retraction> = Vec::new();
        let mut earliest = u64::MAX;
        for (index, row) in looked_at.into_iter().rev() {
            let coming = taking.retractions.get(&index);
            let (created, entries, signed) = match (row, coming) {
                (Some(row), _) => (row.created, row.entries, checks.is_signed(&row)?),
                (None, Some(raw)) => match said(index, raw) {
                    Some((created, entries, None)) => (created, entries, false),
                    Some((created, entries, Some(retract))) => {
                        (created, entries, checks.verifies(&retract))
                    }
                    None => continue,
                },
                (None, None) => continue,
            };
            let created_ms = arrived(&arrivals, index, created.0);
            let before = earliest.saturating_sub(created_ms);
            if index < from && earliest < u64::MAX && before > 2 * DAY_MS {
                break;
            }
            earliest = earliest.min(created_ms);
            // Versions of one entry count each: the rule is stricter for it, never laxer.
            recent.push(Retraction {
                index,
                created_ms,
                entries,
                set_entries: 0,
                signed,
            });
        }
        checks.keep()?;
        Ok(recent)
    }

    /// How many leaves the feed had by when, newest first; what has no head yet came
    /// just now.
    fn arrivals(&self, feed: &FeedInfo) -> Result<Vec<(u64, u64)>, NodeError> {
        let now = self.clock().now().0;
        let mut arrivals = vec![(u64::MAX, now)];
        for head in self.store().heads(feed.no, HEADS_MAX)? {
            arrivals.push((head.at().size, head.received.0.min(now)));
        }
        Ok(arrivals)
    }
}

/// What a retract or erase leaf says: when it was made, how many leaves it names, and
/// itself where it may be signed.
fn said(index: u64, raw: &RawLeaf) -> Option<(UnixMillis, u64, Option<Box<Retract>>)> {
    let count = |ranges: &[IndexRange]| {
        let counts = ranges.iter().map(|range| range.count);
        counts.fold(0, u64::saturating_add)
    };
    match leaf::read(raw, index) {
        Leaf::Retract(retract) => {
            let entries = count(&retract.indexes);
            let created = retract.created;
            let bears = retract.identity_signature.is_some();
            Some((created, entries, bears.then_some(retract)))
        }
        Leaf::Erase(erase) => Some((erase.created, count(&erase.indexes), None)),
        Leaf::Describe(_)
        | Leaf::Publish(_)
        | Leaf::Opinion(_)
        | Leaf::Unknown(_)
        | Leaf::Void(_)
        | Leaf::Elided => None,
    }
}

/// When a leaf was made, by what it says itself, but not later than it came, and not
/// earlier than the head before it.
fn arrived(arrivals: &[(u64, u64)], index: u64, created_ms: u64) -> u64 {
    // Newest first: those that cover the leaf, then those that do not.
    let covering = arrivals.partition_point(|(size, _)| *size > index);
    let at = |place: Option<usize>| Some(arrivals.get(place?)?.1);
    let latest = at(covering.checked_sub(1)).unwrap_or(created_ms);
    let earliest = at(Some(covering)).unwrap_or(0).min(latest);
    created_ms.clamp(earliest, latest)
}
