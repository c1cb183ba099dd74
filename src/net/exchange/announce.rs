//! What this node tells one member over a watch, whoever dialled.
//!
//! First all that the member may see, then what changes. Access is decided for each
//! item, from one snapshot, before the database is read. A member hears of a feed
//! only if it may read or prove it: no grant means no existence.
//!
//! The hub says what changed and not what it became, so each change becomes work
//! that reads the state; work that waits already is not queued twice, and what was
//! told already is not told again. A watcher that the hub left behind looks at
//! everything once more.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, future, stream};
use hashpact_core::access::Snapshot;
use hashpact_core::id::{Digest, FeedId, MemberNumber};
use hashpact_core::limits::{COSIGNATURES_MAX, RECEIPTS_MAX};
use hashpact_core::page;
use hashpact_core::reject::Rejection;
use hashpact_node::Node;
use hashpact_node::hub::Change;
use hashpact_store::{ForkName, HeadRef, Store, StoreError};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::directory::Snapshots;
use super::documents;
use super::reach::{self, Reach};
use super::receipts::ToldReceipts;
use super::reports::ToldReports;
use super::telling_work::{Queue, Work};
use crate::convert::OVERDUE_MAX;
use crate::service::ServiceError;
use crate::types::{Announcement, Answers, GrantEnded, Head, Outgoing};

/// Time alone changes access too: suspensions end, rosters and cards expire.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Describe leaves looked at for who had a grant: a change of grants every day for
/// ten years.
const DESCRIBES_MAX: usize = 4_096;
/// Pieces of evidence read at a time, some kilobytes each.
const EVIDENCE_AT_ONCE: usize = 16;
/// Receipts beside one head, so that an announcement stays within a message.
const RECEIPTS_MAX_BYTES: usize = 2 * 1024 * 1024;

/// All that `to` may see, then what changes. Ends when the member may not be
/// spoken to any more, or when the store fails.
#[cfg(test)]
pub(crate) fn announcements(node: Arc<Node>, to: MemberNumber) -> Outgoing {
    let snapshots = Arc::new(Snapshots::of(&node));
    outgoing(node, snapshots, to)
}

/// All that a member may see, then what changes; see [`told_with`].
pub(crate) fn outgoing(node: Arc<Node>, snapshots: Arc<Snapshots>, to: MemberNumber) -> Outgoing {
    let said = told_with(node, snapshots, to);
    Box::pin(said.scan((), |(), item| future::ready(item.ok())))
}

/// As [`announcements`], with the reason why it ends.
#[cfg(test)]
pub(crate) fn told_to(node: Arc<Node>, to: MemberNumber) -> Answers<Announcement> {
    let snapshots = Arc::new(Snapshots::of(&node));
    told_with(node, snapshots, to)
}

/// What a member that watches is told, or the reason why that ends.
pub(crate) fn told_with(
    node: Arc<Node>,
    snapshots: Arc<Snapshots>,
    to: MemberNumber,
) -> Answers<Announcement> {
    let announcer = Announcer::new(node, snapshots, to);
    Box::pin(stream::unfold(Some(announcer), |announcer| async move {
        let mut announcer = announcer?;
        match announcer.next().await {
            Ok(item) => Some((Ok(item), Some(announcer))),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

struct Announcer {
    changes: Receiver<Change>,
    /// Absent while a blocking thread has it.
    telling: Option<Telling>,
}

impl Announcer {
    fn new(node: Arc<Node>, snapshots: Arc<Snapshots>, to: MemberNumber) -> Self {
        Self {
            // Before the state is read, so that no change falls between.
            changes: node.hub().watch(),
            telling: Some(Telling::new(node, snapshots, to)),
        }
    }

    async fn next(&mut self) -> Result<Announcement, ServiceError> {
        loop {
            let telling = self.telling.as_mut().ok_or(ServiceError::Internal)?;
            if let Some(item) = telling.ready.pop_front() {
                return Ok(item);
            }
            self.take_changes()?;
            if !self.look().await? {
                self.wait().await?;
            }
        }
    }

    /// Looks at what waits, on a blocking thread: the database is read.
    async fn look(&mut self) -> Result<bool, ServiceError> {
        let mut telling = self.telling.take().ok_or(ServiceError::Internal)?;
        if telling.work.is_empty() {
            self.telling = Some(telling);
            return Ok(false);
        }
        let looked = spawn_blocking(move || {
            let looked = telling.look();
            (telling, looked)
        });
        let (telling, looked) = looked.await.map_err(|_| ServiceError::Internal)?;
        self.telling = Some(telling);
        looked
    }

    async fn wait(&mut self) -> Result<(), ServiceError> {
        let telling = self.telling.as_mut().ok_or(ServiceError::Internal)?;
        match timeout(telling.patience(), self.changes.recv()).await {
            Ok(Ok(change)) => self.queue(Some(change)),
            Err(_) if telling.queue_late() => Ok(()),
            Ok(Err(RecvError::Lagged(_))) | Err(_) => self.queue(None),
            Ok(Err(RecvError::Closed)) => Err(ServiceError::Unavailable),
        }
    }

    fn take_changes(&mut self) -> Result<(), ServiceError> {
        loop {
            match self.changes.try_recv() {
                Ok(change) => self.queue(Some(change))?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Lagged(_)) => self.queue(None)?,
                Err(TryRecvError::Closed) => return Err(ServiceError::Unavailable),
            }
        }
    }

    fn queue(&mut self, change: Option<Change>) -> Result<(), ServiceError> {
        let telling = self.telling.as_mut().ok_or(ServiceError::Internal)?;
        telling.changed(change);
        Ok(())
    }
}

/// All that one watch is told, and what waits to be looked at: decided without
/// waiting for anybody.
pub(crate) struct Telling {
    work: Queue,
    ready: VecDeque<Announcement>,
    teller: Teller,
}

impl Telling {
    /// Begins with all that there is.
    pub(crate) fn new(node: Arc<Node>, snapshots: Arc<Snapshots>, to: MemberNumber) -> Self {
        let mut telling = Self {
            work: Queue::default(),
            ready: VecDeque::new(),
            teller: Teller::new(node, snapshots, to),
        };
        telling.queue_all();
        telling.work.push(Work::SnapshotEnd);
        telling
    }

    /// Something changed in the node; `None` where it is not known what.
    pub(crate) fn changed(&mut self, change: Option<Change>) {
        self.queue_late();
        match change {
            Some(Change::Roster | Change::RosterWord) => self.work.push(Work::Roster),
            Some(Change::Card(member)) => self.work.push(Work::Card(member)),
            Some(Change::Suspension) => self.work.push(Work::Suspensions),
            Some(Change::Head(feed) | Change::Receipt(feed)) => self.work.push(Work::Feed(feed)),
            Some(Change::Overdue) => self.work.push(Work::Overdue),
            Some(Change::Evidence(feed)) => self.work.push(Work::EvidenceOf(feed)),
            Some(Change::Equivocation) => self.work.push(Work::Equivocations),
            Some(Change::Cosigned(feed, member)) => {
                if member == self.teller.to {
                    self.work.push(Work::Feed(feed));
                    self.work.push(Work::EvidenceOf(feed));
                }
            }
            Some(Change::Access) => self.queue_feeds(),
            None => self.queue_all(),
        }
    }

    /// Queues what is told with a pause, where that is over; answers whether any is.
    fn queue_late(&mut self) -> bool {
        let due = self.teller.told.reports.due(self.teller.node.clock().now());
        for feed in &due {
            self.work.push(Work::Feed(*feed));
        }
        !due.is_empty()
    }

    /// How long to wait for a change before all is looked at again, or what is late.
    fn patience(&self) -> Duration {
        let late = &self.teller.told.reports;
        let now = self.teller.node.clock().now();
        late.due_in(now)
            .map_or(LOOK_AGAIN, |wait| wait.min(LOOK_AGAIN))
    }

    /// What is told next; `None` until something changes. Blocking.
    ///
    /// # Errors
    /// Why nothing more is told: the member may not be spoken to any more, or the
    /// store failed.
    pub(crate) fn next_now(&mut self) -> Result<Option<Announcement>, ServiceError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            if !self.look()? {
                return Ok(None);
            }
        }
    }

    /// Looks at one thing that waits; answers whether there was one. Blocking.
    fn look(&mut self) -> Result<bool, ServiceError> {
        let Some(work) = self.work.pop() else {
            return Ok(false);
        };
        self.ready = self.teller.tell(work)?.into();
        if let Some(more) = self.teller.more.take() {
            self.work.push_first(more);
        }
        Ok(true)
    }

    fn queue_all(&mut self) {
        self.work.push(Work::Roster);
        let state = self.teller.node.membership().state();
        for card in state.cards.newest_of_all() {
            self.work.push(Work::Card(card.member()));
        }
        self.work.push(Work::Suspensions);
        self.work.push(Work::Equivocations);
        self.work.push(Work::Overdue);
        self.queue_feeds();
    }

    fn queue_feeds(&mut self) {
        for feed in self.teller.node.store().feed_ids() {
            self.work.push(Work::Feed(feed));
        }
        for feed in self.teller.cosigned_feeds() {
            self.work.push(Work::Feed(feed));
        }
        for feed in self.teller.told.reports.feeds() {
            self.work.push(Work::Feed(feed));
        }
        self.work.push(Work::Evidence(None));
    }
}

/// A head as it is told, with the cosignatures that stand beside it.
///
/// # Errors
/// What the store answers.
pub(super) fn stored_head(
    store: &Store,
    reach: &Reach,
    at: HeadRef,
) -> Result<Option<Head>, StoreError> {
    let head = store.head(reach.feed.no, at.epoch, at.size)?;
    Ok(head.map(|head| Head {
        feed: reach.feed.id,
        publisher: reach.feed.publisher,
        note: head.note().clone(),
        cosignatures: within(head.cosignatures, COSIGNATURES_MAX),
        receipts: Vec::new(),
    }))
}

/// Reads the state and makes announcements of it. Blocking.
pub(super) struct Teller {
    pub(super) node: Arc<Node>,
    snapshots: Arc<Snapshots>,
    pub(super) to: MemberNumber,
    pub(super) told: Told,
    /// What goes on from where the last work ended.
    more: Option<Work>,
}

/// What this watch told already.
#[derive(Default)]
pub(super) struct Told {
    pub(super) roster: Option<Digest>,
    cards: HashMap<MemberNumber, Digest>,
    suspensions: HashSet<Digest>,
    pub(super) heads: HashMap<FeedId, Digest>,
    receipts: ToldReceipts,
    reports: ToldReports,
    overdue: Option<Vec<(MemberNumber, u64)>>,
    forks: HashSet<ForkName>,
    equivocations: HashSet<Digest>,
    /// Per feed, the describe leaf in force when it was last decided whether the
    /// member lost a grant.
    grants: HashMap<FeedId, u64>,
    grants_ended: HashSet<(FeedId, u64)>,
}

impl Teller {
    fn new(node: Arc<Node>, snapshots: Arc<Snapshots>, to: MemberNumber) -> Self {
        Self {
            snapshots,
            node,
            to,
            told: Told::default(),
            more: None,
        }
    }

    fn tell(&mut self, work: Work) -> Result<Vec<Announcement>, ServiceError> {
        let snapshot = self.snapshots.newest().ok_or(ServiceError::Unavailable)?;
        if !snapshot.may_connect(self.to) {
            return Err(ServiceError::NotActive);
        }
        let said = match work {
            Work::Roster => Ok(self.roster(&snapshot)),
            Work::Card(member) => Ok(self.card(member)),
            Work::Suspensions => Ok(self.suspensions()),
            Work::Feed(feed) => self.feed(snapshot, &feed),
            Work::Evidence(after) => self.evidence_after(&snapshot, after),
            Work::EvidenceOf(feed) => {
                let epoch = snapshot.roster().roster().epoch(feed);
                let name = ForkName { feed, epoch };
                let piece = self.node.store().evidence_of(&name);
                let pieces = piece.map(|piece| piece.map(|piece| (name, piece)));
                pieces.map(|pieces| self.evidence(&snapshot, pieces.into_iter().collect()))
            }
            Work::Equivocations => self.equivocations(),
            Work::Overdue => Ok(self.overdue(&snapshot)),
            Work::SnapshotEnd => Ok(vec![Announcement::SnapshotEnd]),
        };
        match said {
            Ok(said) => Ok(said),
            // The feed went while it was looked at.
            Err(StoreError::UnknownFeed(_)) => Ok(Vec::new()),
            Err(error) => {
                tracing::error!(%error, code = error.code(), "announcing");
                Err(ServiceError::Internal)
            }
        }
    }

    fn card(&mut self, member: MemberNumber) -> Vec<Announcement> {
        let state = self.node.membership().state();
        let Some(card) = documents::card_in_force(&state, member, self.node.clock().now()) else {
            return Vec::new();
        };
        if self.told.cards.insert(member, card.digest()) == Some(card.digest()) {
            return Vec::new();
        }
        vec![Announcement::NodeCard(card.as_bytes().clone())]
    }

    fn suspensions(&mut self) -> Vec<Announcement> {
        let state = self.node.membership().state();
        let in_force = documents::suspensions_in_force(&state, self.node.clock().now());
        in_force
            .filter(|suspension| self.told.suspensions.insert(suspension.digest()))
            .map(|suspension| Announcement::Suspension(suspension.as_bytes().clone()))
            .collect()
    }

    fn feed(
        &mut self,
        snapshot: Arc<Snapshot>,
        feed: &FeedId,
    ) -> Result<Vec<Announcement>, StoreError> {
        let Ok(reach) = Reach::of(self.node.store(), Arc::clone(&snapshot), feed) else {
            let over = self.told.reports.over(feed);
            let cosigned = self.cosigned(&snapshot, feed);
            return Ok(cosigned.into_iter().chain(over).collect());
        };
        let ended = self.grant_ended(&reach)?;
        let own = self.cosigned_by_watcher(&reach)?;
        let head = self.head(&reach)?;
        let told = &mut self.told.reports;
        let report = told.new_of(&self.node, &reach, self.to)?;
        let said = ended.into_iter().chain(own).chain(head);
        Ok(said.chain(report).collect())
    }

    /// The head that this node has applied, if the member hears of the feed and did
    /// not hear of this head yet.
    fn head(&mut self, reach: &Reach) -> Result<Option<Announcement>, StoreError> {
        let feed = reach.feed.id;
        let Some(at) = reach.feed.applied.filter(|_| reach.hears_heads(self.to)) else {
            self.told.heads.remove(&feed);
            self.told.receipts.forget(&feed);
            return Ok(None);
        };
        let Some(mut head) = stored_head(self.node.store(), reach, at)? else {
            return Ok(None);
        };
        let digest = self.what_is_new(reach, &head);
        let known = self.told.heads.insert(feed, digest) == Some(digest);
        head.receipts = self.new_receipts(reach)?;
        if known && head.receipts.is_empty() {
            return Ok(None);
        }
        Ok(Some(Announcement::Head(Box::new(head))))
    }

    /// PROTOCOL 16.12a: what the member may hear of who acts on the feed, each once.
    fn new_receipts(&mut self, reach: &Reach) -> Result<Vec<Bytes>, StoreError> {
        let Ok(own) = self.node.membership().own() else {
            return Ok(Vec::new());
        };
        let (store, own) = (self.node.store(), (own, self.node.name()));
        let new = self.told.receipts.new_of(store, reach, own, self.to)?;
        Ok(within(new, RECEIPTS_MAX))
    }

    /// PROTOCOL 16.13a: observers hear how many receipts are overdue, and of no feed.
    fn overdue(&mut self, snapshot: &Snapshot) -> Vec<Announcement> {
        if !snapshot.may_observe(self.to) {
            return Vec::new();
        }
        let overdue = self.node.overdue_receipts().into_iter();
        let overdue: Vec<_> = overdue.take(OVERDUE_MAX).collect();
        if self.told.overdue.as_ref() == Some(&overdue)
            || (self.told.overdue.is_none() && overdue.is_empty())
        {
            return Vec::new();
        }
        self.told.overdue = Some(overdue.clone());
        vec![Announcement::Overdue(overdue)]
    }

    /// PROTOCOL 16.13: a member that loses its grant gets that one describe leaf, with its
    /// inclusion proof and head. Once in a watch, so that a member that was away
    /// learns of it as well.
    fn grant_ended(&mut self, reach: &Reach) -> Result<Option<Announcement>, StoreError> {
        let feed = reach.feed.id;
        let in_force = reach.feed.describe.as_ref().map(|(index, _)| *index);
        let (Some(in_force), Some(at)) = (in_force, reach.feed.applied) else {
            return Ok(None);
        };
        if reach.feed.counts.describe < 2 || !reach.is_ungranted(self.to) {
            return Ok(None);
        }
        let decided = self.told.grants.insert(feed, in_force);
        if decided == Some(in_force) {
            return Ok(None);
        }
        let Some((index, leaf)) = self.ending_leaf(reach, decided)? else {
            return Ok(None);
        };
        if index >= at.size || !self.told.grants_ended.insert((feed, index)) {
            return Ok(None);
        }
        // Without receipts: who acts on the feed is no business of who is out.
        let Some(head) = stored_head(self.node.store(), reach, at)? else {
            return Ok(None);
        };
        let inclusion = self
            .node
            .store()
            .inclusion_proof(reach.feed.no, index, at.size)?;
        Ok(Some(Announcement::GrantEnded(Box::new(GrantEnded {
            head,
            index,
            leaf: page::encode_plain(&[leaf])?,
            inclusion,
        }))))
    }

    /// The first describe leaf after the last that granted: later ones are not for
    /// who is out. What was `decided` of before is not looked at again: a publisher
    /// can describe its set as often as it likes.
    fn ending_leaf(
        &self,
        reach: &Reach,
        decided: Option<u64>,
    ) -> Result<Option<(u64, hashpact_core::leaf::RawLeaf)>, StoreError> {
        let store = self.node.store();
        let mut ending = None;
        for (index, leaf) in store.describes(reach.feed.no, decided, DESCRIBES_MAX)? {
            let grants = reach::grants(&leaf, index);
            if reach.granted_by(self.to, grants.as_ref()) {
                return Ok(ending);
            }
            // A void leaf changes nothing, so it ends nothing.
            if grants.is_some() {
                ending = Some((index, leaf));
            }
        }
        Ok(None)
    }

    /// Some of what there is: however much that is, little is in memory at a time.
    fn evidence_after(
        &mut self,
        snapshot: &Arc<Snapshot>,
        after: Option<ForkName>,
    ) -> Result<Vec<Announcement>, StoreError> {
        let store = self.node.store();
        let pieces = store.evidence_after(after.as_ref(), EVIDENCE_AT_ONCE)?;
        let last = pieces.last().map(|(name, _)| Work::Evidence(Some(*name)));
        self.more = last.filter(|_| pieces.len() == EVIDENCE_AT_ONCE);
        Ok(self.evidence(snapshot, pieces))
    }

    /// Evidence goes to whoever may see heads and proofs of the feed.
    fn evidence(
        &mut self,
        snapshot: &Arc<Snapshot>,
        pieces: Vec<(ForkName, Bytes)>,
    ) -> Vec<Announcement> {
        let mut said = Vec::new();
        for (name, evidence) in pieces {
            if self.may_hear_of(&name, snapshot).is_ok() && self.told.forks.insert(name) {
                said.push(Announcement::Evidence(evidence));
            }
        }
        said
    }

    /// Rosters and cards are everybody's, and so is what contradicts itself in them.
    fn equivocations(&mut self) -> Result<Vec<Announcement>, StoreError> {
        let mut all = self.node.store().open_equivocations()?;
        all.retain(|evidence| self.told.equivocations.insert(Digest::of(evidence)));
        let said = all.into_iter().map(Announcement::DocumentEvidence);
        Ok(said.collect())
    }

    /// Whoever may see heads of the feed, while the epoch that it is about is open.
    fn may_hear_of(&self, fork: &ForkName, snapshot: &Arc<Snapshot>) -> Result<(), Rejection> {
        if fork.epoch < snapshot.roster().roster().epoch(fork.feed) {
            return Err(Rejection::NotFound);
        }
        match Reach::of(self.node.store(), Arc::clone(snapshot), &fork.feed) {
            Ok(reach) => reach.may_prove(self.to),
            Err(rejection) => self
                .knows_of(snapshot, &fork.feed)
                .then_some(())
                .ok_or(rejection),
        }
    }
}

/// As many of a list as one announcement takes.
fn within(list: Vec<Bytes>, count: usize) -> Vec<Bytes> {
    let mut room = RECEIPTS_MAX_BYTES;
    let fits = |item: &Bytes| {
        let left = room.checked_sub(item.len());
        room = left.unwrap_or(0);
        left.is_some()
    };
    list.into_iter().take(count).take_while(fits).collect()
}

/// Tells two states of a head apart, with its cosignatures.
pub(super) fn digest_of(head: &Head) -> Digest {
    let parts = std::iter::once(&head.note).chain(&head.cosignatures);
    let digests: Vec<u8> = parts.flat_map(|part| Digest::of(part).0).collect();
    Digest::of(&digests)
}
