//! What is held back of what members publish, and the operator's word on it.
//!
//! The store keeps it; here stand names, the rule of the roster's age, and the audit
//! lines. Publishers are told what of theirs waits ([`crate::reported`]), nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use hashpact_core::id::{EntryName, SetName, UnixMillis};
use hashpact_core::leaf::{self, Leaf};
use hashpact_core::roster::RosterState;
use hashpact_core::signal::SignalKind;
use hashpact_store::quarantine::{Chosen, Decision, LotName, QuarantinedLeaf, Reason};
use hashpact_store::{FeedInfo, FeedNo, RecheckBudget};
use tracing::{error, info, warn};

use crate::error::NodeError;
use crate::hub::Change;
use crate::model::{QuarantineLot, QuarantinedEntry};
use crate::node::Node;
use crate::removed::RemovedMembers;
use crate::views;
use crate::words::name_of;

/// The roster's state that was said last, so that a change is said once.
#[derive(Debug, Default)]
pub(crate) struct SaidState(AtomicU8);

/// What one round of looks at conflicts of digests may take.
pub const RECHECK: RecheckBudget = RecheckBudget {
    pages: 64,
    looks: 1_024,
    time: Duration::from_millis(20),
};
/// Entries in one answer.
pub const ENTRIES_MAX: usize = 10_000;
/// Entries that a lot names as those it conflicts with.
const CONFLICTS_NAMED: usize = 3;
/// Leaves that are looked at for them.
const CONFLICTS_LOOKED: usize = 16;

impl Node {
    /// Whether new publish leaves count, by the roster's age.
    #[must_use]
    pub fn takes_publish_leaves(&self) -> bool {
        let state = self.membership().state();
        let chain = state.chain.as_ref();
        chain.is_none_or(|chain| chain.state(self.clock().now()).takes_publish_leaves())
    }

    /// Says once when the roster grows old, and lets leaves that waited for a fresh
    /// one count as soon as there is one. To be called from time to time. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn follow_roster(&self) -> Result<(), NodeError> {
        self.say_roster_state();
        self.follow_floods();
        if !self.takes_publish_leaves() {
            return Ok(());
        }
        for no in self.store().feeds_waiting(Reason::StaleRoster) {
            let feed = self.store().feed(no)?;
            let leaves = self.store().lift_quarantine(no, Reason::StaleRoster)?;
            info!(set = %name_of(&feed), leaves, "the roster is fresh: what waited for it counts");
            self.hub().tell(Change::Head(feed.id));
        }
        Ok(())
    }

    /// Whether anything waits for a conflict of digests.
    #[must_use]
    pub fn conflicts_wait(&self) -> bool {
        let waiting = self.store().feeds_waiting(Reason::DigestConflict);
        !waiting.is_empty()
    }

    /// Lets in what waited for a conflict of digests that is over: one round, that goes
    /// on where the last one ended. To be called from time to time, where it may take as
    /// long as it takes. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn follow_conflicts(&self, budget: &RecheckBudget) -> Result<(), NodeError> {
        for (no, leaves) in self.store().recheck_conflicts(budget)?.lifted {
            let feed = self.store().feed(no)?;
            info!(set = %name_of(&feed), leaves, "digests that no other entry disputes any more count");
            self.hub().tell(Change::Head(feed.id));
        }
        Ok(())
    }

    /// Whether a set that is an allow list changed.
    #[must_use]
    pub fn allow_sets_changed(&self) -> bool {
        self.store().allow_sets_changed()
    }

    /// Follows the sets that are allow lists. To be called as [`Node::follow_conflicts`] is.
    /// Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn follow_allow_sets(&self) -> Result<(), NodeError> {
        let leaves = self.store().follow_allow_sets()?;
        if leaves > 0 {
            info!(
                leaves,
                "a set that is an allow list changed: what it names was looked at again"
            );
        }
        Ok(())
    }

    /// Whether videos wait for room in memory, and there is some.
    #[must_use]
    pub fn frames_wait(&self) -> bool {
        !self.store().feeds_with_frame_room().is_empty()
    }

    /// Lets videos in that waited for room in memory, some of each set. To be called as
    /// [`Node::follow_conflicts`] is. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn follow_frames(&self) -> Result<(), NodeError> {
        for no in self.store().feeds_with_frame_room() {
            let feed = self.store().feed(no)?;
            let videos = self.store().let_frames_in(no)?;
            if videos > 0 {
                info!(set = %name_of(&feed), videos, "there is room for frames of videos again");
                self.hub().tell(Change::Head(feed.id));
            }
        }
        Ok(())
    }

    /// A round at once, since less may count here than before. What it does not reach is
    /// for the next ones.
    pub(crate) fn recheck_conflicts(&self) {
        if let Err(error) = self.follow_conflicts(&RECHECK) {
            error!(%error, code = error.code(), "looking at conflicts of digests");
        }
    }

    /// Whether what a feed says disputes what others say: not where its member or set is
    /// muted, nor where its member was removed and is ignored here.
    pub(crate) fn may_dispute(&self, no: FeedNo) -> bool {
        let Ok(feed) = self.store().feed(no) else {
            return false;
        };
        if self.counts(feed.publisher) == RemovedMembers::Ignore {
            return false;
        }
        views::describe_of(&feed).is_some_and(|describe| !self.is_muted(&describe.name))
    }

    fn say_roster_state(&self) {
        let state = self.membership().state();
        let Some(chain) = state.chain.as_ref() else {
            return;
        };
        let (number, expires) = (
            chain.state(self.clock().now()),
            chain.roster().expires.0 / 1_000,
        );
        let (version, now) = (chain.version(), number);
        let code = match now {
            RosterState::Fresh => 1,
            RosterState::Grace => 2,
            RosterState::Stale => 3,
        };
        let before = self.roster_said().0.swap(code, Ordering::SeqCst);
        if before == code {
            return;
        }
        match now {
            RosterState::Fresh if before > 1 => info!(version, "the roster is fresh again"),
            RosterState::Fresh => {}
            RosterState::Grace => warn!(
                version,
                expired_s = expires,
                "the roster has expired: 14 days after that no new entry counts; ask the \
                 administrators for a new one"
            ),
            RosterState::Stale => error!(
                version,
                expired_s = expires,
                "the roster expired more than 14 days ago: new entries wait in quarantine, \
                 retractions count; ask the administrators for a new one"
            ),
        }
    }

    /// What lies in quarantine, of one set or of all: one line a reason and kind of
    /// signal. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NotFound`]; what the store answers.
    pub fn quarantine(
        &self,
        set: Option<&SetName>,
        reason: Option<Reason>,
    ) -> Result<Vec<QuarantineLot>, NodeError> {
        let mut lots = Vec::new();
        let feeds = self.feeds_of(set)?;
        if reason.is_none_or(|reason| reason == Reason::Flood) {
            lots.extend(self.flooded_lots(&feeds)?);
        }
        for feed in feeds {
            let of = self.store().quarantine(feed.no)?.into_iter();
            let of = of.filter(|lot| reason.is_none_or(|reason| reason == lot.name.reason));
            for lot in of {
                let waits = lot.name.reason == Reason::DigestConflict && lot.held > 0;
                lots.push(QuarantineLot {
                    set: name_of(&feed),
                    reason: lot.name.reason,
                    kind: kind_of(lot.name),
                    held: lot.held,
                    released: lot.released,
                    dropped: lot.dropped,
                    conflicts_with: if waits {
                        self.conflicts_of(feed.no, lot.name)?
                    } else {
                        Vec::new()
                    },
                });
            }
        }
        Ok(lots)
    }

    /// Entries that wait, or with `dropped` those that were dropped, in the order of
    /// sets and indexes, at most `limit`. Blocking.
    ///
    /// # Errors
    /// As [`Node::quarantine`].
    pub fn quarantined(
        &self,
        set: Option<&SetName>,
        reason: Option<Reason>,
        dropped: bool,
        limit: usize,
    ) -> Result<Vec<QuarantinedEntry>, NodeError> {
        let limit = limit.min(ENTRIES_MAX);
        let feeds = self.feeds_of(set)?;
        let mut entries = Vec::new();
        if !dropped && reason.is_none_or(|reason| reason == Reason::Flood) {
            entries = self.flooded_entries(&feeds, limit)?;
        }
        for feed in feeds {
            let rest = limit.saturating_sub(entries.len());
            let leaves = self
                .store()
                .quarantined(feed.no, reason, dropped, 0, rest)?;
            let mut conflicts = self.conflicts(feed.no, &leaves)?;
            for leaf in leaves {
                let (first, published) = self.named(&feed, leaf.index)?;
                entries.push(QuarantinedEntry {
                    entry: views::describe_of(&feed).map(|describe| EntryName {
                        set: describe.name,
                        first,
                    }),
                    set: name_of(&feed),
                    index: leaf.index,
                    reasons: leaf.lots.iter().map(|lot| lot.reason).collect(),
                    kinds: leaf.lots.iter().filter_map(|lot| kind_of(*lot)).collect(),
                    published,
                    conflicts_with: conflicts.remove(&leaf.index),
                });
            }
        }
        Ok(entries)
    }

    /// The first few entries with which one lot of a feed conflicts.
    fn conflicts_of(&self, no: FeedNo, lot: LotName) -> Result<Vec<EntryName>, NodeError> {
        let reason = Some(lot.reason);
        let mut leaves = self
            .store()
            .quarantined(no, reason, false, 0, CONFLICTS_LOOKED)?;
        leaves.retain(|leaf| leaf.lots.contains(&lot));
        let mut others: Vec<EntryName> = Vec::new();
        for other in self.conflicts(no, &leaves)?.into_values() {
            if others.len() < CONFLICTS_NAMED && !others.contains(&other) {
                others.push(other);
            }
        }
        Ok(others)
    }

    /// Of leaves that wait for a conflict of digests, by index, the entry that each is with.
    fn conflicts(
        &self,
        no: FeedNo,
        leaves: &[QuarantinedLeaf],
    ) -> Result<BTreeMap<u64, EntryName>, NodeError> {
        let waits = |leaf: &&QuarantinedLeaf| {
            let mut lots = leaf.lots.iter();
            lots.any(|lot| lot.reason == Reason::DigestConflict)
        };
        let waiting: Vec<_> = leaves.iter().filter(waits).map(|l| (no, l.index)).collect();
        let mut named = BTreeMap::new();
        for ((_, index), by) in waiting.iter().zip(self.store().disputed_by(&waiting)?) {
            let other = by.and_then(|(no, first)| {
                let describe = views::describe_of(&self.store().feed(no).ok()?)?;
                let set = describe.name;
                Some(EntryName { set, first })
            });
            named.extend(other.map(|other| (*index, other)));
        }
        Ok(named)
    }

    /// Carries out what the operator decides on entries of a set: of all that wait,
    /// or of those named by their first indexes. Answers how many it changed, and
    /// which of the named do not wait. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NotFound`]; what the store answers.
    pub fn decide_quarantine(
        &self,
        set: &SetName,
        reason: Option<Reason>,
        entries: Option<&[u64]>,
        decision: Decision,
    ) -> Result<(u64, Vec<u64>), NodeError> {
        let feed = self.feed_of(set)?;
        let flood = reason == Some(Reason::Flood);
        if flood && decision == Decision::Drop {
            let why = "a flood is at review and told; hashpact mute keeps it from more";
            return Err(NodeError::Misuse(why.to_owned()));
        }
        let floods = if decision == Decision::Release && (flood || reason.is_none()) {
            self.release_floods(&feed, entries)?
        } else {
            Vec::new()
        };
        let mut missing = Vec::new();
        let leaves = match entries {
            None => None,
            Some(named) => {
                let mut leaves = BTreeSet::new();
                for first in named {
                    let of = self.withheld_of(&feed, *first)?;
                    if of.is_empty() && !floods.contains(first) {
                        missing.push(*first);
                    }
                    leaves.extend(of);
                }
                Some(leaves)
            }
        };
        let chosen = Chosen { reason, leaves };
        let changed = self.store().decide_quarantine(feed.no, &chosen, decision)?;
        let released = u64::try_from(floods.len()).unwrap_or(u64::MAX);
        let changed = changed.saturating_add(released);
        let reason = reason.map_or("any", Reason::code);
        match decision {
            Decision::Release => info!(%set, changed, reason, "released from quarantine"),
            Decision::Drop => info!(%set, changed, reason, "dropped from quarantine"),
        }
        if changed > 0 {
            self.hub().tell(Change::Head(feed.id));
        }
        Ok((changed, missing))
    }

    /// The versions in quarantine of the entry that began at `first`.
    fn withheld_of(&self, feed: &FeedInfo, first: u64) -> Result<Vec<u64>, NodeError> {
        if first >= feed.indexed {
            return Ok(Vec::new());
        }
        let latest = self.store().latest_version(feed.no, first)?;
        let mut withheld = Vec::new();
        for index in BTreeSet::from([first, latest]) {
            if !self.store().withheld(feed.no, index)?.is_empty() {
                withheld.push(index);
            }
        }
        Ok(withheld)
    }

    fn feeds_of(&self, set: Option<&SetName>) -> Result<Vec<FeedInfo>, NodeError> {
        match set {
            Some(name) => Ok(vec![self.feed_of(name)?]),
            None => Ok(self.store().feeds()),
        }
    }

    /// The first version of a leaf's entry, and when it was published.
    fn named(&self, feed: &FeedInfo, index: u64) -> Result<(u64, UnixMillis), NodeError> {
        let raw = self.store().read_leaf(feed.no, index)?;
        Ok(match leaf::read(&raw, index) {
            Leaf::Publish(publish) => (publish.first_index(index), publish.published),
            Leaf::Describe(_)
            | Leaf::Retract(_)
            | Leaf::Opinion(_)
            | Leaf::Erase(_)
            | Leaf::Unknown(_)
            | Leaf::Void(_)
            | Leaf::Elided => (index, UnixMillis::default()),
        })
    }
}

/// The kind of signal that a lot is of; `None` for whole entries.
fn kind_of(lot: LotName) -> Option<SignalKind> {
    SignalKind::from_number(u32::from(lot.kind))
}
