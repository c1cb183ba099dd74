//! What of one feed may go to whom: decided from one snapshot and the feed's last
//! describe leaf, both in memory. Nothing here reads the database.

use std::sync::Arc;

use hashpact_core::access::{Grants, Snapshot};
use hashpact_core::id::{FeedId, MemberNumber};
use hashpact_core::leaf::{self, DESCRIBE, Leaf, RawLeaf};
use hashpact_core::reject::Rejection;
use hashpact_store::{FeedInfo, FeedStatus, Store};

use super::pipeline::describe_of;

/// One feed under one snapshot.
pub(crate) struct Reach {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) feed: FeedInfo,
    grants: Option<Grants>,
}

impl Reach {
    /// Looks a feed up.
    ///
    /// # Errors
    /// [`Rejection::NotFound`] for a feed that this node does not have, or has no
    /// more.
    pub(crate) fn of(
        store: &Store,
        snapshot: Arc<Snapshot>,
        feed: &FeedId,
    ) -> Result<Self, Rejection> {
        let no = store.feed_no(feed).ok_or(Rejection::NotFound)?;
        let feed = store.feed(no).map_err(|_| Rejection::NotFound)?;
        match feed.status {
            FeedStatus::Active | FeedStatus::Frozen => {}
            FeedStatus::Silent | FeedStatus::Leaving | FeedStatus::Dropping => {
                return Err(Rejection::NotFound);
            }
        }
        let in_force = feed.describe.clone();
        let grants =
            in_force.and_then(|(index, payload)| grants(&RawLeaf::new(DESCRIBE, payload), index));
        Ok(Self {
            snapshot,
            feed,
            grants,
        })
    }

    /// Whether this node serves the feed's leaves to a member.
    ///
    /// # Errors
    /// [`Rejection::NotFound`], the same for every reason.
    pub(crate) fn may_serve(&self, to: MemberNumber) -> Result<(), Rejection> {
        let publisher = self.feed.publisher;
        self.snapshot.may_serve(to, publisher, self.grants.as_ref())
    }

    /// Whether a member may read the feed's leaves, whoever serves them.
    ///
    /// # Errors
    /// [`Rejection::NotFound`], the same for every reason.
    pub(crate) fn may_read(&self, member: MemberNumber) -> Result<(), Rejection> {
        let publisher = self.feed.publisher;
        self.snapshot
            .may_read(member, publisher, self.grants.as_ref())
    }

    /// Whether this node hands the feed's leaves to an authority that is no member: only
    /// what its own member publishes, and only where the terms give the right to share.
    /// ⚠ A grant to members is none to others, so no member hands on what another
    /// publishes.
    ///
    /// # Errors
    /// [`Rejection::NotFound`], the same for every reason.
    pub(crate) fn may_hand_over(&self) -> Result<(), Rejection> {
        let shared = describe_of(&self.feed).is_some_and(|describe| describe.terms.may_share);
        if self.feed.own && shared {
            Ok(())
        } else {
            Err(Rejection::NotFound)
        }
    }

    /// Whether a member may see the feed's heads and proofs.
    ///
    /// # Errors
    /// [`Rejection::NotFound`], the same for every reason.
    pub(crate) fn may_prove(&self, to: MemberNumber) -> Result<(), Rejection> {
        let publisher = self.feed.publisher;
        self.snapshot.may_prove(to, publisher, self.grants.as_ref())
    }

    /// Whether a member hears of the feed's heads from this node: every reader and
    /// every witness, whoever serves it the leaves. That is how two readers find out
    /// that they were shown two histories.
    pub(crate) fn hears_heads(&self, to: MemberNumber) -> bool {
        self.may_prove(to).is_ok()
    }

    /// Whether a member was cut off by the publisher, and by nothing else: it may
    /// connect, the publisher publishes, and the describe leaf in force does not
    /// name it.
    pub(crate) fn is_ungranted(&self, to: MemberNumber) -> bool {
        let publisher = self.feed.publisher;
        let open = self.snapshot.may_connect(to) && self.snapshot.may_publish(publisher);
        open && self.grants.is_some() && !self.granted_by(to, self.grants.as_ref())
    }

    /// Whether a describe leaf of the feed lets a member read.
    pub(crate) fn granted_by(&self, to: MemberNumber, grants: Option<&Grants>) -> bool {
        let publisher = self.feed.publisher;
        self.snapshot.may_read(to, publisher, grants).is_ok()
    }
}

/// The grants of a describe leaf; none where it is void or another leaf.
pub(crate) fn grants(leaf: &RawLeaf, index: u64) -> Option<Grants> {
    match leaf::read(leaf, index) {
        Leaf::Describe(describe) => Some(Grants::of(&describe)),
        Leaf::Publish(_)
        | Leaf::Retract(_)
        | Leaf::Opinion(_)
        | Leaf::Erase(_)
        | Leaf::Unknown(_)
        | Leaf::Void(_)
        | Leaf::Elided => None,
    }
}
