//! What a feed shows: which of its leaves look-ups answer, and how.
//!
//! Kept as what is *not* plain: leaves that are not shown, those to be reviewed, and
//! those of which some kinds of signals are held back. Whatever is none of these and
//! below the size is shown; leaves that are no entries are among them and say nothing.

use std::collections::BTreeMap;

use roaring::RoaringTreemap;

use super::{FeedShown, WholeStanding};
use crate::feeds::Live;
use crate::quarantine::WHOLE_LEAF;

/// What one feed shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Shown {
    /// Leaves that look-ups answer from.
    pub(crate) size: u64,
    /// Below it, not shown: dead, elided, in quarantine.
    pub(crate) absent: RoaringTreemap,
    /// Shown, and to be looked at.
    pub(crate) review: RoaringTreemap,
    /// Shown without the signals of a kind.
    pub(crate) partial: BTreeMap<u8, RoaringTreemap>,
}

impl Shown {
    /// As look-ups see the feed; the same rule as theirs, for all leaves at once.
    pub(crate) fn of(live: &Live) -> Self {
        let size = live.row.indexed;
        let dead = live.liveness.dead();
        let answering = live.held.leaves();
        // Alive because a roster cut off what had killed it, or dead by what is held.
        let mut review = &live.doubted - &dead;
        review |= live.held.marked();
        let mut absent = dead - answering;
        absent |= &live.elided;
        let mut partial: BTreeMap<u8, RoaringTreemap> = BTreeMap::new();
        for (name, lot) in &live.quarantine.lots {
            let withheld = &lot.held | &lot.dropped;
            if name.kind == WHOLE_LEAF {
                absent |= withheld;
            } else {
                *partial.entry(name.kind).or_default() |= withheld;
            }
        }
        absent.remove_range(size..);
        review.remove_range(size..);
        review -= &absent;
        for leaves in partial.values_mut() {
            leaves.remove_range(size..);
            *leaves -= &absent;
        }
        partial.retain(|_, leaves| !leaves.is_empty());
        Self {
            size,
            absent,
            review,
            partial,
        }
    }

    pub(crate) fn shows(&self, index: u64) -> bool {
        index < self.size && !self.absent.contains(index)
    }

    /// The leaves `[from, size)` that are shown.
    fn from(&self, from: u64) -> RoaringTreemap {
        let mut leaves = RoaringTreemap::new();
        if from < self.size {
            leaves.insert_range(from..self.size);
            leaves -= &self.absent;
        }
        leaves
    }
}

/// What differs between two looks at a feed.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Difference {
    /// Nothing of the feed counts any more; then nothing else is said.
    pub(crate) gone: bool,
    /// Shown, and not before.
    pub(crate) added: RoaringTreemap,
    /// Shown otherwise, or no longer.
    pub(crate) others: RoaringTreemap,
    /// Whether the size grew, be it by leaves that are not shown.
    pub(crate) grew: bool,
}

impl Difference {
    pub(crate) fn says_something(&self) -> bool {
        self.gone || self.grew || !self.added.is_empty() || !self.others.is_empty()
    }
}

/// What whoever knows `before` has to be told. Leaves from `cut` on are others than
/// those of the same indexes before.
pub(super) fn difference(
    before: Option<&FeedShown>,
    after: &FeedShown,
    cut: Option<u64>,
) -> Difference {
    let nothing = WholeStanding::Nothing;
    let known = before.filter(|before| before.whole.standing != nothing);
    if after.whole.standing == nothing {
        return Difference {
            gone: known.is_some(),
            ..Difference::default()
        };
    }
    let new = &after.shown;
    let Some(before) = known else {
        return Difference {
            added: new.from(0),
            grew: new.size > 0,
            ..Difference::default()
        };
    };
    let old = &before.shown;
    // Below this the same indexes are the same leaves.
    let same = old.size.min(new.size).min(cut.unwrap_or(u64::MAX));
    let mut added = &old.absent - &new.absent;
    added.remove_range(same..);
    added |= new.from(same);
    let mut others = &new.absent - &old.absent;
    others.remove_range(same..);
    others |= old.from(same);
    if before.whole.standing != after.whole.standing || before.whole.words != after.whole.words {
        others |= new.from(0);
    } else {
        let mut otherwise = &old.review ^ &new.review;
        let kinds = old.partial.keys().chain(new.partial.keys());
        for kind in kinds {
            let none = RoaringTreemap::new();
            let of = |shown: &Shown| shown.partial.get(kind).cloned();
            otherwise |= of(old).unwrap_or_default() ^ of(new).unwrap_or(none);
        }
        otherwise.remove_range(same..);
        others |= otherwise;
    }
    others -= &added;
    Difference {
        gone: false,
        added,
        others,
        grew: new.size != old.size,
    }
}
