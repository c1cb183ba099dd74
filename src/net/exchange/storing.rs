//! Storing what was pulled of one feed: in order, one thread at a time.
//!
//! A desk keeps the feed's writer between orders, so that a round of many chunks
//! goes through one, and gives it back once a head is applied or the feed rests.
//! Its queue is bounded by the puller's window. After a failure it does nothing
//! until it is told to begin anew: what was named before does not follow any more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashpact_core::chunk::VerifiedChunk;
use hashpact_core::id::{FeedId, MemberNumber};
use hashpact_core::leaf::{FeedKind as DescribedKind, PUBLISH};
use hashpact_core::puller::{ChunkId, Growth, GrowthLimit, Head, PeerId};
use hashpact_node::hub::Change;
use hashpact_node::{Node, NodeError};
use hashpact_store::quarantine::Reason;
use hashpact_store::{FeedKind, FeedStatus, FeedWriter, NewFeed, RefillTerms, Room, StoreError};

use super::busy::busy;
use super::epochs;
use super::inside::Done;
use super::pipeline::{describe_of, read_describe, verify_head};
use super::room::Rooms;
use super::standing::spans;

/// How fast the feed grows, as of one chunk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Publish leaves of the chunk, from its end, that are over the limit.
    pub(crate) over_growth: u64,
    /// The feed's growth with the chunk.
    pub(crate) growth: Growth,
}

/// What a desk is asked to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// Append a chunk.
    Store(ChunkId, Box<VerifiedChunk>, Pace),
    /// Put a chunk's payloads where leaves are held elided without reason.
    Refill(ChunkId, Box<VerifiedChunk>, (Growth, GrowthLimit)),
    /// Index all that is below a head, and find what is held elided without reason.
    Check(Head),
    /// Make all durable and indexed, with a head over it.
    Apply(Head),
    /// Compare a head with the tree that is held.
    Compare(Head),
    /// Move the feed to the epoch that the roster has opened.
    OpenEpoch(epochs::Why),
    /// Make durable what there is and give the writer back.
    Rest,
    /// Make durable what there is, and say so.
    Flush(PeerId),
    /// Begin anew after a failure.
    Reset,
    /// Remove the feed and all that was derived from it.
    DropFeed,
}

/// The one place where a pulled feed is written.
pub(crate) struct Desk {
    node: Arc<Node>,
    feed: FeedId,
    publisher: MemberNumber,
    /// This node's own feed, which comes back.
    own: bool,
    tell: Box<dyn Fn(Done) + Send + Sync>,
    rooms: Arc<Rooms>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    orders: VecDeque<Order>,
    /// A thread is at the desk.
    running: bool,
    work: Option<Work>,
}

/// What stays at the desk between orders; the thread that is there has it.
#[derive(Default)]
struct Work {
    writer: Option<FeedWriter>,
    /// Leaves came back, retractions perhaps among them, that were not reviewed.
    refilled: bool,
    failed: bool,
}

impl Desk {
    pub(crate) fn new(
        node: Arc<Node>,
        feed: FeedId,
        publisher: MemberNumber,
        own: bool,
        rooms: Arc<Rooms>,
        tell: impl Fn(Done) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let queue = Mutex::default();
        Arc::new(Self {
            node,
            feed,
            publisher,
            own,
            tell: Box::new(tell),
            rooms,
            queue,
        })
    }

    /// Queues an order; answers whether somebody is to [`run`](Self::run) the desk.
    #[must_use]
    pub(crate) fn queue_order(&self, order: Order) -> bool {
        let mut queue = self.queue();
        queue.orders.push_back(order);
        !std::mem::replace(&mut queue.running, true)
    }

    /// Whether nothing is to do and no writer is held.
    pub(crate) fn is_at_rest(&self) -> bool {
        let queue = self.queue();
        let holds = queue
            .work
            .as_ref()
            .is_some_and(|work| work.writer.is_some());
        !queue.running && !holds
    }

    /// Whether no thread is at the desk.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.queue().running
    }

    /// Whose feed it is.
    pub(crate) const fn publisher(&self) -> MemberNumber {
        self.publisher
    }

    /// Carries orders out until there are none, or after one of them it is to give way;
    /// answers whether it is to go on later. Blocking.
    pub(crate) fn run_until(&self, gives_way: impl Fn() -> bool) -> bool {
        let mut work = self.queue().work.take().unwrap_or_default();
        loop {
            let order = self.queue().orders.pop_front();
            if let Some(order) = order {
                self.carry_out(&mut work, order);
            }
            let yields = gives_way();
            let mut queue = self.queue();
            let more = !queue.orders.is_empty();
            if !more || yields {
                queue.running = more;
                queue.work = Some(work);
                return more;
            }
        }
    }

    fn carry_out(&self, work: &mut Work, order: Order) {
        if let Order::Reset = order {
            work.failed = false;
            return;
        }
        if work.failed {
            if let Order::Flush(peer) = order {
                self.tell(Done::Flushed { peer });
            }
            return;
        }
        let done = match order {
            Order::Store(chunk, verified, pace) => self.store(work, chunk, &verified, pace),
            Order::Refill(chunk, verified, growth) => self.refill(work, chunk, &verified, growth),
            Order::Check(head) => self.check(work, &head),
            Order::Apply(head) => self.apply(work, head),
            Order::Compare(head) => self.compare(work, head),
            Order::OpenEpoch(why) => self.open_epoch(work, why),
            Order::Rest => Self::rest(work),
            Order::DropFeed => self.drop_feed(work),
            Order::Flush(peer) => self.flush(work, peer),
            Order::Reset => Ok(()),
        };
        if let Err(error) = done {
            tracing::error!(feed = %self.feed.0.short(), %error, code = error.code(), "storing a pull");
            // What was appended and is not durable goes with the writer.
            work.writer = None;
            work.failed = true;
            self.tell(Done::StoreFailed { feed: self.feed });
        }
    }

    fn store(
        &self,
        work: &mut Work,
        chunk: ChunkId,
        verified: &VerifiedChunk,
        pace: Pace,
    ) -> Result<(), NodeError> {
        let writer = self.writer(work, Some(verified))?;
        if !self.own {
            self.hold_back(writer, verified, pace);
        }
        // PROTOCOL 18.2: without room a feed that answers goes on as records.
        if self.has_room() || writer.info().applied.is_none() {
            busy("store", || writer.append_verified(verified))?;
        } else {
            let left_out = busy("store", || writer.append_records(verified))?;
            metrics::counter!("hashpact_no_room_leaves_total").increment(left_out);
        }
        self.tell(Done::Stored {
            feed: self.feed,
            chunk,
        });
        Ok(())
    }

    /// PROTOCOL 5.7a and 18.1: what is over the growth limit, and what comes under a stale
    /// roster, is stored and proved like the rest, and does not count.
    fn hold_back(&self, writer: &mut FeedWriter, chunk: &VerifiedChunk, pace: Pace) {
        writer.note_growth(pace.growth);
        if !self.node.takes_publish_leaves() {
            writer.quarantine(Reason::StaleRoster, publishes(chunk));
        }
        if pace.over_growth > 0 {
            let all: Vec<u64> = publishes(chunk).collect();
            let over = usize::try_from(pace.over_growth).unwrap_or(usize::MAX);
            let first = all.len().saturating_sub(over);
            writer.quarantine(Reason::OverGrowth, all.into_iter().skip(first));
        }
    }

    fn refill(
        &self,
        work: &mut Work,
        chunk: ChunkId,
        verified: &VerifiedChunk,
        growth: (Growth, GrowthLimit),
    ) -> Result<(), NodeError> {
        work.refilled = true;
        let writer = self.writer(work, None)?;
        let terms = RefillTerms {
            stale: !self.own && !self.node.takes_publish_leaves(),
            records_only: !self.has_room(),
            growth: (!self.own).then_some(growth),
        };
        if !self.own {
            self.node.foresee_refill(writer, verified)?;
        }
        let refilled = busy("store", || writer.refill(verified, &terms))?;
        metrics::counter!("hashpact_refilled_leaves_total").increment(refilled.leaves);
        metrics::counter!("hashpact_over_growth_leaves_total").increment(refilled.over_growth);
        self.tell(Done::Refilled {
            feed: self.feed,
            chunk,
            counted: refilled.counted,
        });
        Ok(())
    }

    /// Whether there is room for everything of the feed. An own one comes back whole.
    fn has_room(&self) -> bool {
        self.own || self.rooms.of(self.publisher) == Room::Ample
    }

    /// PROTOCOL 12.4: what is dead is known once all leaves below the head are counted.
    fn check(&self, work: &mut Work, head: &Head) -> Result<(), NodeError> {
        let refilled = std::mem::take(&mut work.refilled);
        let writer = self.writer(work, None)?;
        if !self.own {
            self.node.foresee_commit(writer)?;
        }
        let committed = busy("commit", || writer.commit(None))?;
        let no = writer.feed_no();
        if !self.own {
            let from = if refilled { 0 } else { committed.indexed_from };
            self.node.review_retractions(no, from)?;
        }
        let elisions = self.node.store().elisions(no)?;
        let mut held = spans(&elisions.held);
        if self.has_room() {
            held.extend(spans(&elisions.no_room));
        }
        self.tell(Done::ElisionsChecked {
            feed: self.feed,
            size: head.size(),
            unjustified: spans(&elisions.unjustified),
            held,
        });
        Ok(())
    }

    fn apply(&self, work: &mut Work, head: Head) -> Result<(), NodeError> {
        let refilled = std::mem::take(&mut work.refilled);
        let writer = self.writer(work, None)?;
        let before = writer.info();
        let set = describe_of(&before).map(|describe| describe.name.set);
        let verified = verify_head(
            &self.node,
            self.publisher,
            set.as_ref(),
            self.feed,
            head.note(),
        )?;
        if epochs::begins(&before, &verified)
            && !epochs::extends_named(&self.node, writer, &verified)?
        {
            epochs::give_up(&self.node, writer, &before)?;
            work.writer = None;
            self.tell(Done::EpochOpened { feed: self.feed });
            return Ok(());
        }
        let kept = hashpact_store::Head::new(&verified, self.node.clock().now());
        if !self.own {
            self.node.foresee_commit(writer)?;
        }
        busy("commit", || writer.commit(Some(&kept)))?;
        let from = if refilled { 0 } else { before.indexed };
        self.node.settle(writer, from)?;
        let after = writer.info();
        self.node.hear_rechecks(writer, before.indexed)?;
        // Given back before anybody is told: a publisher may want it at once.
        work.writer = None;
        if self.own {
            self.node.publisher().recovered(&self.feed, &verified)?;
        }
        self.node.hub().tell(Change::Head(self.feed));
        if before.describe.as_ref().map(|d| d.0) != after.describe.as_ref().map(|d| d.0) {
            self.node.hub().tell(Change::Access);
        }
        self.tell(Done::Applied {
            feed: self.feed,
            head,
        });
        Ok(())
    }

    fn open_epoch(&self, work: &mut Work, why: epochs::Why) -> Result<(), NodeError> {
        if self.node.store().feed_no(&self.feed).is_some() {
            let writer = self.writer(work, None)?;
            epochs::open(&self.node, writer, why)?;
            work.writer = None;
        }
        self.tell(Done::EpochOpened { feed: self.feed });
        Ok(())
    }

    fn compare(&self, work: &mut Work, head: Head) -> Result<(), NodeError> {
        if let Some(writer) = &mut work.writer {
            writer.sync()?;
        }
        let store = self.node.store();
        let Some(no) = store.feed_no(&self.feed) else {
            return Ok(());
        };
        if store.root_at(no, head.size())? != head.root() {
            self.tell(Done::Differs { head });
        }
        Ok(())
    }

    fn rest(work: &mut Work) -> Result<(), NodeError> {
        if let Some(mut writer) = work.writer.take() {
            writer.sync()?;
        }
        Ok(())
    }

    fn flush(&self, work: &mut Work, peer: PeerId) -> Result<(), NodeError> {
        let synced = work.writer.as_mut().map(FeedWriter::sync);
        self.tell(Done::Flushed { peer });
        synced.transpose()?;
        Ok(())
    }

    fn drop_feed(&self, work: &mut Work) -> Result<(), NodeError> {
        work.writer = None;
        let store = self.node.store();
        if let Some(no) = store.feed_no(&self.feed) {
            store.set_feed_status(no, FeedStatus::Silent)?;
            // First: a crash in between has it said once too often, not never.
            if let Err(error) = self.node.note_lost(&store.feed(no)?) {
                tracing::error!(%error, code = error.code(), "noting that a set was lost");
            }
            store.drop_feed(no)?;
        }
        self.tell(Done::Dropped { feed: self.feed });
        Ok(())
    }

    /// The feed's writer, and the feed itself if it is new.
    fn writer<'a>(
        &self,
        work: &'a mut Work,
        first: Option<&VerifiedChunk>,
    ) -> Result<&'a mut FeedWriter, NodeError> {
        if work.writer.is_none() {
            let store = self.node.store();
            let no = match (store.feed_no(&self.feed), first) {
                (Some(no), _) => no,
                (None, Some(first)) => store.create_feed(&self.new_feed(first))?,
                (None, None) => return Err(no_feed()),
            };
            work.writer = Some(store.writer(no)?);
        }
        work.writer.as_mut().ok_or_else(no_feed)
    }

    fn new_feed(&self, first: &VerifiedChunk) -> NewFeed {
        let describe = first
            .leaves()
            .next()
            .and_then(|(i, leaf)| read_describe(leaf, i));
        let kind = match describe.map(|describe| describe.feed_kind) {
            Some(DescribedKind::Opinions) => FeedKind::Opinions,
            Some(DescribedKind::HashSet) | None => FeedKind::HashSet,
        };
        NewFeed {
            id: self.feed,
            publisher: self.publisher,
            own: self.own,
            kind,
        }
    }

    fn tell(&self, done: Done) {
        (self.tell)(done);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The publish leaves of a chunk that came with their payload.
fn publishes(chunk: &VerifiedChunk) -> impl Iterator<Item = u64> {
    let leaves = chunk.leaves();
    leaves
        .filter(|(_, leaf)| leaf.kind == PUBLISH && !leaf.is_elided())
        .map(|(index, _)| index)
}

fn no_feed() -> NodeError {
    NodeError::Store(StoreError::OutOfRange {
        from: 0,
        to: 0,
        held: 0,
    })
}
