//! A store that was restored: what this node holds of others is older than what it acted
//! on before, and what was taken back since is alive in it.
//!
//! The audit feed notices it, whose sign-state lies outside the store; so do own receipts
//! that are newer than what is held. Then every feed of others is answered for review at
//! most, and the node is not ready at first ([`NOT_READY_MS`]), until of each feed the
//! newest head that anybody has told of is held, and its publisher, or all peers within
//! reach, have said what they have; or an operator says so.
//!
//! ⚠ Nobody can hold a node up: a peer that says nothing is waited for as long as
//! [`confirm`](crate::publish) waits; a publisher that signs a head of which there are no
//! leaves keeps its own feed at review, and the node unready no longer than anybody does.
//! Where only peers that lie are within reach, they are believed.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashpact_core::access::Grants;
use hashpact_core::id::{FeedId, MemberNumber, SetName};
use hashpact_core::leaf::audit::careful;
use hashpact_store::{FeedInfo, Store};
use tracing::{error, info, warn};

use crate::error::NodeError;
use crate::hub::Change;
use crate::model::SetInfo;
use crate::node::Node;
use crate::publish::{PeerKey, Round, Said, Waiting};
use crate::views;
use crate::words::name_of;

/// How long after a start the node is not ready for it: as long as it waits for what its
/// own receipts name. Afterwards it is ready, and what is not confirmed is at review.
pub const NOT_READY_MS: u64 = crate::receipts::RENEW_MS;

/// What was heard since the start of the feeds of others.
#[derive(Default)]
pub(crate) struct Heard(Mutex<State>);

#[derive(Default)]
struct State {
    said: Said,
    /// Feeds of which their publisher has told a head.
    by_publisher: HashSet<FeedId>,
}

impl Heard {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks all that is held of others: the audit feed goes on in another segment, since
/// what was signed of it last is not in the store, or the sign-state is gone.
pub(crate) fn noticed(store: &Store) -> Result<(), NodeError> {
    let feeds = store.doubt_feeds()?;
    if feeds > 0 {
        error!(
            feeds,
            "the store was restored, or lost what it had: what others publish is answered for \
             review at most, until it is known to be the newest"
        );
    }
    Ok(())
}

impl Node {
    /// Whether a feed of others may be older here than it was.
    pub(crate) fn is_restored(&self) -> bool {
        self.store().has_unconfirmed()
    }

    /// Whether the node is not ready for it.
    pub(crate) fn waits_for_others(&self) -> bool {
        self.clock().now().since(self.started()) < NOT_READY_MS && self.is_restored()
    }

    /// Takes epoch and size of a verified head of a feed that others publish; `by` is
    /// the peer's member, where a peer that is connected told of it.
    pub fn heard_of(&self, feed: &FeedInfo, head: (u32, u64), by: Option<MemberNumber>) {
        let mut state = self.heard_of_others().state();
        state.said.head(feed.id, head);
        if by == Some(feed.publisher) {
            state.by_publisher.insert(feed.id);
        }
        if by.is_some() {
            state.said.no_more(feed.id, self.clock().now());
        }
    }

    /// A peer has said all that it may of what it holds.
    pub fn peer_said_all(&self, peer: &PeerKey) {
        let now = self.clock().now();
        self.heard_of_others().state().said.all_by(peer, now);
    }

    /// This node's own word on a feed is newer than what it holds of it.
    pub(crate) fn doubts_own_store(
        &self,
        feed: &FeedInfo,
        said: (u32, u64),
    ) -> Result<(), NodeError> {
        if feed.own || self.membership().epoch(feed.id) > said.0 {
            return Ok(());
        }
        self.heard_of(feed, said, None);
        self.store().doubt_feed(feed.no)?;
        Ok(())
    }

    /// Lets the feeds count that are known to be the newest; `round` is how the peers
    /// stand. To be called from time to time. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn follow_restored(&self, round: impl FnOnce() -> Round) -> Result<(), NodeError> {
        if !self.is_restored() {
            return Ok(());
        }
        let round = round();
        for feed in self.store().unconfirmed() {
            if self.is_newest(&feed, &round) && self.store().confirm_feed(feed.no)? {
                info!(set = %name_of(&feed), "nobody holds more of the set: it counts again");
                self.hub().tell(Change::Head(feed.id));
            }
        }
        Ok(())
    }

    /// Whether all that is known of says that nothing newer is to be had.
    fn is_newest(&self, feed: &FeedInfo, round: &Round) -> bool {
        // Also where it has as many leaves as this node signed for, and others.
        if self.receipts().is_behind_on(&feed.id) {
            return false;
        }
        let (snapshot, now) = (self.membership().snapshot(), self.clock().now());
        let state = self.heard_of_others().state();
        if is_behind(feed, state.said.newest(&feed.id), self.epoch_of(feed)) {
            return false;
        }
        if state.by_publisher.contains(&feed.id) {
            return true;
        }
        let grants = views::describe_of(feed).map(|describe| Grants::of(&describe));
        let reads = |member| {
            let read = snapshot
                .as_ref()
                .map(|s| s.may_read(member, feed.publisher, grants.as_ref()));
            read.is_some_and(|read| read.is_ok())
        };
        let waiting = Waiting {
            feed: feed.id,
            is_granted: true,
            reads,
        };
        state.said.awaits(&waiting, round, now).is_none()
    }

    fn epoch_of(&self, feed: &FeedInfo) -> u32 {
        self.membership().epoch(feed.id)
    }

    /// Lets a feed of others count on the operator's word that it is the newest. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NotFound`]; what the store answers.
    pub fn confirm_held(&self, set: &SetName, reason: &str) -> Result<SetInfo, NodeError> {
        let feed = self.feed_of(set)?;
        if self.store().confirm_feed(feed.no)? {
            let reason = careful(reason);
            warn!(%set, reason, "the set counts again on the operator's word");
            self.hub().tell(Change::Head(feed.id));
        }
        self.info_of(&feed)
    }
}

/// Whether more was told of than is applied. What an epoch that the roster has closed had
/// does not count.
fn is_behind(feed: &FeedInfo, newest: (u32, u64), epoch: u32) -> bool {
    let applied = feed.applied.map_or((0, 0), |at| (at.epoch, at.size));
    newest.0 >= epoch && newest > applied
}
