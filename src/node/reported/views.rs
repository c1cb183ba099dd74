//! What this node says of others' feeds, and what of its own it was told.

use std::collections::{BTreeMap, BTreeSet};

use hashpact_core::id::{EntryName, FeedId, MemberNumber, SetName, Slug, UnixMillis};
use hashpact_core::leaf::{self, IndexRange, Leaf};
use hashpact_core::reject::Rejection;
use hashpact_store::quarantine::LotName;
use hashpact_store::{FeedInfo, StoreError};

use super::{LOTS_MAX, RANGES_MAX, Report, ReportedLot, is_told};
use crate::error::NodeError;
use crate::node::Node;
use crate::views;
use crate::words::name_of;

/// Entries in one answer.
pub const REPORTED_MAX: usize = 10_000;
/// Leaves that are looked at for one answer, as many of each lot: a peer may name leaves
/// that are no entries.
const LOOKED_MAX: usize = 2 * REPORTED_MAX;

/// A report, as it is listed.
#[derive(Debug, Clone)]
pub struct ReportView {
    /// The set.
    pub set: String,
    /// Who holds something back.
    pub member: MemberNumber,
    /// The node.
    pub node: Slug,
    /// When it said so, by this node's clock.
    pub heard: UnixMillis,
    /// What it says.
    pub report: Report,
}

/// An own entry that peers hold back.
#[derive(Debug, Clone)]
pub struct ReportedEntry {
    /// The set.
    pub set: String,
    /// The entry; `None` while its feed is not described.
    pub entry: Option<EntryName>,
    /// The index of the version that is held back.
    pub index: u64,
    /// When it was published.
    pub published: UnixMillis,
    /// Who holds it back, and why.
    pub by: Vec<ReportedBy>,
}

/// Who holds an entry back, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedBy {
    /// The member.
    pub member: MemberNumber,
    /// Its node.
    pub node: Slug,
    /// The code of the reason.
    pub reason: String,
    /// The number of a kind of signal; 0 for whole entries.
    pub kind: u32,
}

impl Node {
    /// What this node holds back of somebody else's feed, for its publisher: what waits,
    /// not what was decided of it. `None` where the operator does not tell. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn report_of(&self, feed: &FeedInfo) -> Result<Option<Report>, StoreError> {
        if !self.desk().floods().options().tell_publishers || feed.own {
            return Ok(None);
        }
        let allow_sets = self.store().has_allow_sets();
        let told = |name: &LotName| is_told(name.reason, allow_sets);
        let lots = self.store().waiting_ranges(feed.no, told, RANGES_MAX)?;
        let lot = |(name, leaves, ranges): (LotName, u64, Vec<(u64, u64)>)| ReportedLot {
            reason: name.reason.code().to_owned(),
            kind: name.kind.into(),
            leaves,
            ranges: ranges
                .into_iter()
                .map(|(first, count)| IndexRange { first, count })
                .collect(),
        };
        Ok(Some(Report {
            epoch: feed.epoch,
            size: feed.indexed,
            lots: lots.into_iter().take(LOTS_MAX).map(lot).collect(),
        }))
    }

    /// Takes what a peer says of an own feed. The caller has checked who says it, and
    /// that it may read the feed. Of a feed that another node of this member writes, or
    /// of an epoch that is not open here, nothing is kept.
    ///
    /// # Errors
    /// [`Rejection::WrongOrigin`] for another member's feed, [`Rejection::Invalid`] for
    /// leaves that were not published, [`Rejection::RateLimited`] for more than one
    /// member may say, and as [`Report::check`].
    pub fn take_report(
        &self,
        peer: (MemberNumber, Slug),
        feed: FeedId,
        report: Report,
    ) -> Result<(), NodeError> {
        report.check()?;
        let store = self.store();
        let Some(held) = store.feed_no(&feed).and_then(|no| store.feed(no).ok()) else {
            return Ok(());
        };
        if self.membership().own().ok() != Some(held.publisher) {
            return Err(Rejection::WrongOrigin { feed }.into());
        }
        let is_over = report.lots.is_empty();
        if !held.own || (report.epoch != held.epoch && !is_over) {
            return Ok(());
        }
        // A restored node does not know yet all that it published.
        let knows_all = !self.publisher().is_behind(&feed);
        let entries = held.counts.publish.saturating_add(held.counts.elided);
        let too_many = report.lots.iter().any(|lot| lot.leaves > entries);
        if knows_all && (report.size > held.stored || too_many) {
            let why = "it is of more leaves than its publisher signed";
            return Err(Rejection::invalid("report of a quarantine", why).into());
        }
        let heard = self.clock().now();
        Ok(self.reported.take(peer, feed, report, heard)?)
    }

    /// A watch of a peer begins: what it said before counts until it has said all.
    pub fn reports_begin(&self, peer: (MemberNumber, &Slug)) {
        self.reported.begin(peer);
    }

    /// A peer has said all that stood when its watch began.
    pub fn reports_said(&self, peer: (MemberNumber, &Slug)) {
        self.reported.said_all(peer);
    }

    /// Forgets what nodes say of feeds that they may not read any more.
    pub fn forget_reports(&self, reads: &dyn Fn(&FeedId, MemberNumber, &Slug) -> bool) {
        self.reported.forget(reads);
    }

    /// What peers hold back of an own set, or of all of them, by set. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NotFound`]; [`NodeError::Misuse`] for a set of another member's.
    pub fn reports(&self, set: Option<&SetName>) -> Result<Vec<ReportView>, NodeError> {
        let feeds = match set {
            Some(set) => vec![self.feed_of(set)?],
            None => self.store().feeds(),
        };
        if set.is_some() && feeds.iter().any(|feed| !feed.own) {
            let why = "it is not of this node: peers tell each publisher of its own sets";
            return Err(NodeError::Misuse(why.to_owned()));
        }
        let all = self.reported.all();
        let mut views = Vec::new();
        for feed in feeds.iter().filter(|feed| feed.own) {
            for (member, of) in all.iter() {
                let words = of.words.iter().filter(|((about, _), _)| *about == feed.id);
                views.extend(words.map(|((_, node), kept)| ReportView {
                    set: name_of(feed),
                    member: *member,
                    node: node.clone(),
                    heard: kept.heard,
                    report: kept.report.clone(),
                }));
            }
        }
        Ok(views)
    }

    /// Own entries that peers hold back, in the order of sets and indexes, at most
    /// `limit`. ⚠ What a peer names and no live entry is stands in none. Blocking.
    ///
    /// # Errors
    /// As [`Node::reports`]; what the store answers.
    pub fn reported_entries(
        &self,
        set: Option<&SetName>,
        reason: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ReportedEntry>, NodeError> {
        let limit = limit.min(REPORTED_MAX);
        let views = self.reports(set)?;
        if limit == 0 {
            return Ok(Vec::new());
        }
        let lots = views.iter().map(|view| view.report.lots.len());
        let lots = lots.fold(0, usize::saturating_add).max(1);
        let each = LOOKED_MAX.checked_div(lots).unwrap_or(0).max(1);
        let mut feeds = self.store().feeds();
        feeds.retain(|feed| feed.own);
        let mut entries = Vec::new();
        for feed in feeds {
            let set = name_of(&feed);
            let mut by_leaf: BTreeMap<u64, Vec<ReportedBy>> = BTreeMap::new();
            for view in views.iter().filter(|view| view.set == set) {
                for lot in &view.report.lots {
                    if reason.is_some_and(|reason| reason != lot.reason) {
                        continue;
                    }
                    let leaves = lot.ranges.iter().flat_map(|r| r.first..r.end());
                    for index in leaves.take(each) {
                        by_leaf.entry(index).or_default().push(ReportedBy {
                            member: view.member,
                            node: view.node.clone(),
                            reason: lot.reason.clone(),
                            kind: lot.kind,
                        });
                    }
                }
            }
            for (index, by) in by_leaf {
                if entries.len() >= limit {
                    return Ok(entries);
                }
                entries.extend(self.reported_entry(&feed, index, by)?);
            }
        }
        Ok(entries)
    }

    /// The entry of a leaf; `None` where it is none, or dead.
    fn reported_entry(
        &self,
        feed: &FeedInfo,
        index: u64,
        by: Vec<ReportedBy>,
    ) -> Result<Option<ReportedEntry>, NodeError> {
        if index >= feed.indexed || self.store().is_dead(feed.no, index)? {
            return Ok(None);
        }
        let raw = self.store().read_leaf(feed.no, index)?;
        let (first, published) = match leaf::read(&raw, index) {
            Leaf::Publish(publish) => (publish.first_index(index), publish.published),
            Leaf::Describe(_)
            | Leaf::Retract(_)
            | Leaf::Opinion(_)
            | Leaf::Erase(_)
            | Leaf::Unknown(_)
            | Leaf::Void(_)
            | Leaf::Elided => return Ok(None),
        };
        Ok(Some(ReportedEntry {
            set: name_of(feed),
            entry: views::describe_of(feed).map(|describe| EntryName {
                set: describe.name,
                first,
            }),
            index,
            published,
            by,
        }))
    }

    /// How many entries some peer holds back, by reason: of each set and reason the
    /// largest number that one node says.
    #[must_use]
    pub fn reported_by_reason(&self) -> BTreeMap<String, u64> {
        let mut most: BTreeMap<(FeedId, String), u64> = BTreeMap::new();
        for of in self.reported.all().values() {
            for ((feed, _), kept) in &of.words {
                let mut leaves: BTreeMap<&str, u64> = BTreeMap::new();
                for lot in &kept.report.lots {
                    let sum = leaves.entry(lot.reason.as_str()).or_default();
                    *sum = sum.saturating_add(lot.leaves);
                }
                for (reason, leaves) in leaves {
                    let known = most.entry((*feed, reason.to_owned())).or_default();
                    *known = leaves.max(*known);
                }
            }
        }
        let mut sums = BTreeMap::new();
        for ((_, reason), leaves) in most {
            let sum: &mut u64 = sums.entry(reason).or_default();
            *sum = leaves.saturating_add(*sum);
        }
        sums
    }

    /// That peers hold back entries of own sets, where some do.
    pub(crate) fn reported_notice(&self) -> Option<String> {
        let all = self.reported.all();
        let some = all.values().filter(|of| !of.words.is_empty());
        let members = some.clone().count();
        let words = some.flat_map(|of| of.words.keys());
        let sets: BTreeSet<FeedId> = words.map(|(feed, _)| *feed).collect();
        let of = if sets.len() == 1 { "set" } else { "sets" };
        let who = if members == 1 {
            "member holds"
        } else {
            "members hold"
        };
        (members > 0).then(|| {
            format!(
                "{members} {who} back entries of {} {of} of this node: `hashpact quarantine \
                 reported` says which, and why",
                sets.len()
            )
        })
    }
}
