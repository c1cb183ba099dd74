//! What peers hold back of a publisher's own feeds: told to it, and heard by it.
//!
//! Told to a node of the publisher alone, over the watch with it, and never on: it names
//! leaves, no value. What is heard counts only of a member that may read the feed.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use hashpact_core::id::{Digest, FeedId, MemberNumber, UnixMillis};
use hashpact_core::puller::PeerId;
use hashpact_node::reported::{Report, ReportedLot};
use hashpact_node::{Node, NodeError};
use hashpact_store::{FeedInfo, StoreError};

use super::driver::Driver;
use super::reach::Reach;
use crate::types::Announcement;

/// Between two words on one feed in a watch: a publisher whose every head brings
/// something that is held back hears of it as often, 10 KB each.
const PAUSE_MS: u64 = 2_000;

impl Driver {
    /// PROTOCOL 16.13b: a reader's word on an own feed.
    pub(super) fn report(
        &self,
        peer: PeerId,
        feed: FeedId,
        report: Report,
    ) -> Result<(), NodeError> {
        let Some(known) = self.peers.get(&peer) else {
            return Ok(());
        };
        let key = known.key.clone();
        self.check_reader(feed, key.0)?;
        self.node.take_report(key, feed, report)
    }

    /// The peer has said all that stood when its watch began.
    pub(super) fn reports_said(&self, peer: PeerId) {
        if let Some(known) = self.peers.get(&peer) {
            let (member, node) = &known.key;
            self.node.reports_said((*member, node));
        }
    }

    /// Who may read own feeds has changed, or who has which nodes.
    pub(super) fn forget_reports(&self, own: &HashMap<FeedId, Reach>) {
        let state = self.node.membership().state();
        self.node.forget_reports(&|feed, member, node| {
            let card = state.cards.newest(member);
            let on_card = card.is_some_and(|card| card.card().node(node).is_some());
            let reach = own.get(feed);
            on_card && reach.is_some_and(|reach| reach.may_read(member).is_ok())
        });
    }
}

/// What one watch was told of quarantines. ⚠ Digests: a publisher decides how many sets
/// it has, and how much of them is held back.
#[derive(Default)]
pub(super) struct ToldReports {
    told: HashMap<FeedId, Told>,
    /// Of which there may be more to tell when the pause is over.
    late: BTreeSet<FeedId>,
}

/// The last word on a feed.
struct Told {
    /// `None` for nothing held back.
    lots: Option<Digest>,
    at: UnixMillis,
}

impl ToldReports {
    /// What is new for `to` of what this node holds back of a feed. Nothing is told only
    /// to end what was.
    ///
    /// # Errors
    /// What the store answers.
    pub(super) fn new_of(
        &mut self,
        node: &Node,
        reach: &Reach,
        to: MemberNumber,
    ) -> Result<Option<Announcement>, StoreError> {
        let feed = &reach.feed;
        if to != feed.publisher || feed.own {
            return Ok(None);
        }
        let own = node.membership().own();
        if !own.is_ok_and(|own| reach.may_read(own).is_ok()) {
            return Ok(self.over(&feed.id));
        }
        let now = node.clock().now();
        if self.is_early(&feed.id, now) {
            self.late.insert(feed.id);
            return Ok(None);
        }
        self.late.remove(&feed.id);
        let Some(report) = node.report_of(feed)? else {
            return Ok(None);
        };
        let lots = digest_of(&report.lots, feed);
        let before = self.told.get(&feed.id).and_then(|told| told.lots);
        if before == lots {
            return Ok(None);
        }
        self.told.insert(feed.id, Told { lots, at: now });
        Ok(Some(Announcement::Quarantined(feed.id, report)))
    }

    /// The feed is read here no more: nothing of it is held back.
    pub(super) fn over(&mut self, feed: &FeedId) -> Option<Announcement> {
        self.late.remove(feed);
        let before = self.told.remove(feed)?;
        let held = before.lots.is_some();
        held.then(|| Announcement::Quarantined(*feed, Report::default()))
    }

    /// Feeds that something was told of, also of ones that went since.
    pub(super) fn feeds(&self) -> impl Iterator<Item = FeedId> {
        self.told.keys().copied()
    }

    /// How long until something may be told that waits.
    pub(super) fn due_in(&self, now: UnixMillis) -> Option<Duration> {
        let left = |feed: &FeedId| {
            let told = self.told.get(feed)?;
            Some(PAUSE_MS.saturating_sub(now.since(told.at)))
        };
        let first = self.late.iter().filter_map(left).min()?;
        Some(Duration::from_millis(first.saturating_add(1)))
    }

    /// Feeds whose pause is over.
    pub(super) fn due(&self, now: UnixMillis) -> Vec<FeedId> {
        let late = self.late.iter();
        late.filter(|feed| !self.is_early(feed, now))
            .copied()
            .collect()
    }

    fn is_early(&self, feed: &FeedId, now: UnixMillis) -> bool {
        let told = self.told.get(feed);
        // A clock that was set back silences nobody.
        told.is_some_and(|told| now >= told.at && now.since(told.at) < PAUSE_MS)
    }
}

/// Tells two words apart; `None` for nothing held back. What is said of an epoch that is
/// not open at the publisher it lets fall: so the same is another word once the feed is of
/// another epoch here, and once a head of it is, by which the publisher has it as well.
fn digest_of(lots: &[ReportedLot], feed: &FeedInfo) -> Option<Digest> {
    let mut bytes = feed.epoch.to_be_bytes().to_vec();
    let applied = feed.applied.map(|head| head.epoch);
    bytes.extend_from_slice(&applied.unwrap_or_default().to_be_bytes());
    for lot in lots {
        bytes.extend_from_slice(lot.reason.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&lot.kind.to_be_bytes());
        bytes.extend_from_slice(&lot.leaves.to_be_bytes());
        for range in &lot.ranges {
            bytes.extend_from_slice(&range.first.to_be_bytes());
            bytes.extend_from_slice(&range.count.to_be_bytes());
        }
    }
    (!lots.is_empty()).then(|| Digest::of(&bytes))
}
