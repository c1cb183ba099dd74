//! What peers say that they hold back of this member's own sets.
//!
//! Each node's word about itself, for the publisher alone: signed by nobody but its TLS
//! connection, told again with each watch, kept in memory, and by nothing acted on. The
//! newest word replaces the one before. Whoever may not read a set any more has said
//! nothing of it, and what a node does not say again when it begins anew it says no more.
//!
//! Bounded for each member: what one says takes no room of what others say.

mod views;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashpact_core::id::{FeedId, MemberNumber, Slug, UnixMillis};
use hashpact_core::leaf::IndexRange;
use hashpact_core::reject::Rejection;
use hashpact_store::quarantine::Reason;

pub use self::views::{REPORTED_MAX, ReportView, ReportedBy, ReportedEntry};

/// Lots of one word: every reason, of whole entries and of some kinds of signals.
pub const LOTS_MAX: usize = 64;
/// Ranges of one word, over all lots: 16 KB.
pub const RANGES_MAX: usize = 1_024;
/// Bytes of a reason's code.
pub const REASON_MAX_BYTES: usize = 32;
/// Lots of one member that are kept, over all its nodes and all sets: some 300 KB. Ten
/// reasons of each of two hundred sets.
const MEMBER_LOTS_MAX: usize = 2_048;
/// Ranges of one member: 256 KB. Beyond, counts are kept without them.
const MEMBER_RANGES_MAX: usize = 16_384;

/// Leaves that are held back for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedLot {
    /// The code of the reason.
    pub reason: String,
    /// The number of a kind of signal; 0 for whole entries.
    pub kind: u32,
    /// How many.
    pub leaves: u64,
    /// Which, ascending and apart; the first of them, where there are many.
    pub ranges: Vec<IndexRange>,
}

/// What a node says of a feed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The epoch that it holds.
    pub epoch: u32,
    /// Up to where it has looked.
    pub size: u64,
    /// What it holds back; empty for nothing.
    pub lots: Vec<ReportedLot>,
}

/// Whether a publisher is told of it. ⚠ Not that another entry disputes a digest: who
/// publishes a guess beside a made-up SHA-256 would learn what is in sets that it may not
/// read. For the same reason not what sets are on the allow list for, where any are. Nor how
/// old this node's roster is, nor what is asked of it.
const fn is_told(reason: Reason, allow_sets: bool) -> bool {
    match reason {
        Reason::AllowList | Reason::NearAllowed => !allow_sets,
        Reason::OverGrowth
        | Reason::EmptyInput
        | Reason::UniformValue
        | Reason::UnbalancedPdq
        | Reason::LowQuality
        | Reason::NoRoom
        | Reason::Frames => true,
        Reason::StaleRoster | Reason::DigestConflict | Reason::Flood => false,
    }
}

impl Report {
    fn ranges(&self) -> usize {
        let ranges = self.lots.iter().map(|lot| lot.ranges.len());
        ranges.fold(0, usize::saturating_add)
    }

    /// Leaves out ranges beyond so many.
    fn cut(&mut self, mut room: usize) {
        for lot in &mut self.lots {
            lot.ranges.truncate(room);
            room = room.saturating_sub(lot.ranges.len());
        }
    }

    /// Checks what can be checked of it without the feed.
    ///
    /// # Errors
    /// Too many lots or ranges, ranges that do not follow one another or lie beyond the
    /// size, a code that is none, one lot twice.
    pub fn check(&self) -> Result<(), Rejection> {
        let wrong = |why| Err(Rejection::invalid("report of a quarantine", why));
        Rejection::cap("lots", self.lots.len(), LOTS_MAX)?;
        Rejection::cap("ranges", self.ranges(), RANGES_MAX)?;
        let mut names = Vec::with_capacity(self.lots.len());
        for lot in &self.lots {
            let letter = |b: u8| b.is_ascii_lowercase() || b == b'_';
            let length = 1..=REASON_MAX_BYTES;
            if !length.contains(&lot.reason.len()) || !lot.reason.bytes().all(letter) {
                return wrong("a reason is no code");
            }
            let name = (lot.reason.as_str(), lot.kind);
            if names.contains(&name) {
                return wrong("one lot comes twice");
            }
            names.push(name);
            let mut from = 0_u64;
            let mut named = 0_u64;
            for range in &lot.ranges {
                let end = range.first.checked_add(range.count);
                let good = end.is_some_and(|end| end <= self.size);
                if range.first < from || range.count == 0 || !good {
                    return wrong("its ranges do not ascend within the feed");
                }
                named = named.saturating_add(range.count);
                from = end.unwrap_or(u64::MAX).saturating_add(1);
            }
            if lot.leaves < named || lot.leaves > self.size || lot.leaves == 0 {
                return wrong("its number is not that of its ranges");
            }
        }
        Ok(())
    }
}

/// All that was said, by member.
#[derive(Debug, Default)]
pub(crate) struct Reported(Mutex<BTreeMap<MemberNumber, OfMember>>);

/// What one member's nodes say.
#[derive(Debug, Default)]
struct OfMember {
    words: BTreeMap<(FeedId, Slug), Kept>,
    lots: usize,
    ranges: usize,
}

#[derive(Debug)]
struct Kept {
    heard: UnixMillis,
    report: Report,
    /// Said before the node's newest watch began, and not again since.
    old: bool,
}

impl OfMember {
    fn remove(&mut self, key: &(FeedId, Slug)) {
        if let Some(kept) = self.words.remove(key) {
            self.lots = self.lots.saturating_sub(kept.report.lots.len());
            self.ranges = self.ranges.saturating_sub(kept.report.ranges());
        }
    }

    /// Takes a word in place of the one before.
    fn take(&mut self, key: (FeedId, Slug), mut kept: Kept) -> Result<(), Rejection> {
        self.remove(&key);
        let lots = self.lots.saturating_add(kept.report.lots.len());
        if lots > MEMBER_LOTS_MAX {
            let what = "lots that one member reports";
            let limit = u64::try_from(MEMBER_LOTS_MAX).unwrap_or(u64::MAX);
            return Err(Rejection::RateLimited { what, limit });
        }
        kept.report
            .cut(MEMBER_RANGES_MAX.saturating_sub(self.ranges));
        self.ranges = self.ranges.saturating_add(kept.report.ranges());
        self.lots = lots;
        if !kept.report.lots.is_empty() {
            self.words.insert(key, kept);
        }
        Ok(())
    }

    fn retain(&mut self, keeps: impl Fn(&(FeedId, Slug), &Kept) -> bool) {
        let gone = self.words.iter().filter(|(key, kept)| !keeps(key, kept));
        let gone: Vec<_> = gone.map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.remove(&key);
        }
    }
}

impl Reported {
    fn all(&self) -> MutexGuard<'_, BTreeMap<MemberNumber, OfMember>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a word that was checked; an empty one ends what was said.
    fn take(
        &self,
        (member, node): (MemberNumber, Slug),
        feed: FeedId,
        report: Report,
        heard: UnixMillis,
    ) -> Result<(), Rejection> {
        let kept = Kept {
            heard,
            report,
            old: false,
        };
        self.all()
            .entry(member)
            .or_default()
            .take((feed, node), kept)
    }

    /// A watch of a node begins: all that it still says it says again.
    fn begin(&self, (member, node): (MemberNumber, &Slug)) {
        if let Some(of) = self.all().get_mut(&member) {
            let words = of.words.iter_mut().filter(|((_, by), _)| by == node);
            words.for_each(|(_, kept)| kept.old = true);
        }
    }

    /// It has said all: what it did not say again is over.
    fn said_all(&self, (member, node): (MemberNumber, &Slug)) {
        if let Some(of) = self.all().get_mut(&member) {
            of.retain(|(_, by), kept| by != node || !kept.old);
        }
    }

    /// Forgets what nodes say of feeds that they may not read any more.
    fn forget(&self, reads: &dyn Fn(&FeedId, MemberNumber, &Slug) -> bool) {
        for (member, of) in self.all().iter_mut() {
            of.retain(|(feed, node), _| reads(feed, *member, node));
        }
    }
}

#[cfg(test)]
mod tests;
