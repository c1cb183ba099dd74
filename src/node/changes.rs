//! Changes of what this node would act on, for members that keep matchers of their own.
//!
//! The store compares and logs ([`Store::note_changes`]); here stands what a feed counts
//! for as a whole, who does the comparing, and what a change is in words. A keeper's
//! thread compares soon after anything changed; it is there only while somebody follows.
//! What it misses, since a node was stopped or killed, it finds at the next start.

mod siblings;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use hashpact_core::id::{EntryName, FeedId, Slug, UnixMillis};
use hashpact_core::leaf::{self, Leaf, Publish};
use hashpact_core::limits::PAGE_LEAVES;
pub use hashpact_store::{ChangeCursor, Consumer};
use hashpact_store::{
    ChangePulse, ChangedLeaf, CursorError, FeedInfo, FeedNo, FeedStatus, Seen, Step, Store,
    StoreError, Whole, WholeStanding,
};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::error::NodeError;
use crate::membership::Membership;
use crate::model::ExportedEntry;
use crate::node::Node;
use crate::opinions::Heard;
use crate::policy::{Desk, Judge};
use crate::removed::{RemovedMembers, Setting, is_removed};
use crate::views;

/// Changes that come together are logged together.
const GATHER: Duration = Duration::from_millis(20);
/// Between looks where nothing tells that something changed: rosters, settings.
const LOOK: Duration = Duration::from_secs(1);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// Characters that an owner is remembered by.
const OWNER_MAX: usize = 128;

/// One change.
#[derive(Debug, Clone)]
pub enum Change {
    /// The node acts on this entry, from here on, or otherwise than before.
    Entry(Box<PresentEntry>),
    /// The node no longer acts on this version of an entry.
    Withdrawn {
        /// The feed.
        feed: FeedId,
        /// The set's name.
        set: String,
        /// The index of the version.
        index: u64,
    },
    /// The node no longer acts on anything of a set.
    SetWithdrawn {
        /// The feed.
        feed: FeedId,
        /// The set's name.
        set: String,
    },
}

/// An entry that the node acts on.
#[derive(Debug, Clone)]
pub struct PresentEntry {
    /// The feed; with the index it names the version for ever.
    pub feed: FeedId,
    /// The entry, in state `active`, `disputed` or `review`, with the signals that count.
    pub entry: ExportedEntry,
    /// The classification as answers give it, with its scheme.
    pub classification: String,
    /// Whether it was not acted on before.
    pub added: bool,
    /// Whether the set's terms let it be shared on.
    pub may_share: bool,
}

/// Some changes, and where to go on.
#[derive(Debug)]
pub struct Changed {
    /// In order.
    pub changes: Vec<Change>,
    /// What whoever has them goes on from.
    pub next: ChangeCursor,
    /// Whether there are no more at present.
    pub caught_up: bool,
    /// Whether these are of everything that there is, not of what changed.
    pub in_snapshot: bool,
    /// Whether everything has been told with these.
    pub snapshot_over: bool,
    /// When the newest was logged; 0 in a snapshot.
    pub at: UnixMillis,
}

/// Who compares, and who is told.
pub(crate) struct Following {
    newest: watch::Sender<u64>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    stopping: Arc<AtomicBool>,
    pulse: ChangePulse,
}

impl Following {
    pub(crate) fn new(store: &Store) -> Self {
        Self {
            newest: watch::Sender::new(0),
            keeper: Mutex::default(),
            stopping: Arc::default(),
            pulse: store.pulse(),
        }
    }

    /// Something changed that the store does not see.
    pub(crate) fn wake(&self) {
        self.pulse.beat();
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.pulse.beat();
        let keeper = self
            .keeper
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = keeper.take() {
            // It lets go of the store before whoever drops the node opens it again. One
            // that panicked has let go, too.
            let _ = keeper.join();
        }
    }
}

/// What the keeper needs; it keeps nothing alive.
struct Keeper {
    store: Weak<Store>,
    membership: Weak<Membership>,
    removed: Arc<Setting>,
    desk: Arc<Desk>,
    clock: Clock,
    newest: watch::Sender<u64>,
    stopping: Arc<AtomicBool>,
    pulse: ChangePulse,
}

impl Keeper {
    fn keep(self) {
        let mut seen = 0;
        while !self.stopping.load(Ordering::Acquire) {
            let noted = {
                let (Some(store), Some(membership)) =
                    (self.store.upgrade(), self.membership.upgrade())
                else {
                    return;
                };
                let now = self.clock.now();
                let whole =
                    |feed: &FeedInfo| whole(feed, &membership, &self.removed, (&self.desk, now));
                store.note_changes(&whole, now)
            };
            match noted {
                Ok(newest) => {
                    let newest = newest.unwrap_or_default();
                    self.newest.send_if_modified(|told| {
                        let changed = *told != newest;
                        *told = newest;
                        changed
                    });
                    let beat = self.pulse.wait(seen, LOOK);
                    if beat != seen && !self.stopping.load(Ordering::Acquire) {
                        std::thread::sleep(GATHER);
                    }
                    seen = beat;
                }
                Err(error) => {
                    tracing::error!(%error, "changes could not be logged; tried again");
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }
}

/// What a feed counts for as a whole: its status, and its publisher's place.
fn whole(
    feed: &FeedInfo,
    membership: &Membership,
    removed: &Setting,
    (desk, now): (&Desk, UnixMillis),
) -> Whole {
    let Some(describe) = views::describe_of(feed) else {
        return Whole::default();
    };
    let by_status = match feed.status {
        FeedStatus::Active if feed.unconfirmed => WholeStanding::Review,
        FeedStatus::Active => WholeStanding::Active,
        FeedStatus::Frozen | FeedStatus::Leaving => WholeStanding::Review,
        FeedStatus::Silent | FeedStatus::Dropping => WholeStanding::Nothing,
    };
    let by_member = if is_removed(&membership.state(), feed.publisher) {
        match removed.get() {
            RemovedMembers::Count => WholeStanding::Active,
            RemovedMembers::Review => WholeStanding::Review,
            RemovedMembers::Ignore => WholeStanding::Nothing,
        }
    } else {
        WholeStanding::Active
    };
    let scheme = describe.classification_scheme.as_ref();
    Whole {
        standing: by_status.min(by_member),
        name: describe.name.to_string(),
        // Policy and mutes are among them: where they change, what is made of every entry
        // may, and consumers are told all of them again.
        words: format!(
            "{} {}{}",
            scheme.map(ToString::to_string).unwrap_or_default(),
            describe.terms.may_share,
            desk.words_of(&describe.name, now)
        ),
    }
}

impl Node {
    /// What a feed counts for here as a whole.
    pub(crate) fn whole(&self, feed: &FeedInfo) -> Whole {
        let desk = (&**self.desk(), self.clock().now());
        whole(feed, self.membership(), &self.removed_members, desk)
    }

    /// Begins to compare and log, on a thread of its own; later calls change nothing.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub fn keep_changes(&self) -> Result<(), NodeError> {
        let following = self.following();
        let mut running = following
            .keeper
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if running.is_some() {
            return Ok(());
        }
        let keeper = Keeper {
            store: Arc::downgrade(self.store()),
            membership: Arc::downgrade(self.membership()),
            removed: Arc::clone(&self.removed_members),
            desk: Arc::clone(self.desk()),
            clock: self.clock().clone(),
            newest: following.newest.clone(),
            stopping: Arc::clone(&following.stopping),
            pulse: following.pulse.clone(),
        };
        let thread = std::thread::Builder::new().name("changes".to_owned());
        let started = thread.spawn(move || keeper.keep());
        let started = started.map_err(|error| NodeError::Internal(format!("changes: {error}")))?;
        *running = Some(started);
        Ok(())
    }

    /// Is told whenever there is more to read. What it holds is a number of the log.
    #[must_use]
    pub fn changes_logged(&self) -> watch::Receiver<u64> {
        self.following().newest.subscribe()
    }

    /// Compares now, where anybody follows. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn note_changes(&self) -> Result<(), NodeError> {
        let whole = |feed: &FeedInfo| self.whole(feed);
        self.store().note_changes(&whole, self.clock().now())?;
        Ok(())
    }

    /// Lets a consumer start with everything, as a new one or over. Blocking.
    ///
    /// # Errors
    /// [`NodeError::Misuse`] where there is no room for another; what the store answers.
    pub fn begin_snapshot(&self, name: &Slug, owner: &str) -> Result<ChangeCursor, NodeError> {
        let owner: String = owner.chars().take(OWNER_MAX).collect();
        let whole = |feed: &FeedInfo| self.whole(feed);
        let now = self.clock().now();
        let begun = self.store().begin_snapshot(name, &owner, &whole, now)?;
        begun.ok_or_else(|| {
            NodeError::Misuse(format!(
                "{} consumers follow already, or {} of one client, which is the limit; hashpact \
                 consumers list shows them, and consumers remove forgets one",
                hashpact_store::CONSUMERS_MAX,
                hashpact_store::CONSUMERS_PER_OWNER
            ))
        })
    }

    /// The changes after `cursor`, at most `limit`. Blocking.
    ///
    /// # Errors
    /// [`NodeError::StartOver`] where the cursor does not say where to go on; what the
    /// store answers.
    pub fn changes(&self, cursor: &ChangeCursor, limit: usize) -> Result<Changed, NodeError> {
        let batch = self.store().changes_after(cursor, limit)?;
        let batch = batch.map_err(NodeError::StartOver)?;
        let mut words = Words {
            node: self,
            judge: self.judge("", "")?,
            in_snapshot: cursor.in_snapshot(),
            heard: self.heard(),
            changes: Vec::with_capacity(limit),
            feeds: BTreeMap::new(),
        };
        for step in batch.steps {
            words.tell(step)?;
        }
        Ok(Changed {
            changes: words.changes,
            caught_up: batch.caught_up,
            in_snapshot: cursor.in_snapshot(),
            snapshot_over: cursor.in_snapshot() && !batch.next.in_snapshot(),
            at: batch.at,
            next: batch.next,
        })
    }

    /// Takes a consumer's word that it acts on everything up to `cursor`. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NotFound`]; [`NodeError::StartOver`]; what the store answers.
    pub fn acknowledge(&self, name: &Slug, cursor: &ChangeCursor) -> Result<Consumer, NodeError> {
        let taken = self.store().acknowledge(name, cursor, self.clock().now())?;
        let taken = taken.ok_or_else(|| no_consumer(name))?;
        taken.map_err(NodeError::StartOver)
    }

    /// Everybody who follows. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn consumers(&self) -> Result<Vec<Consumer>, NodeError> {
        Ok(self.store().consumers()?)
    }

    /// One that follows. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NotFound`]; what the store answers.
    pub fn consumer(&self, name: &Slug) -> Result<Consumer, NodeError> {
        let mut all = self.store().consumers()?.into_iter();
        all.find(|consumer| consumer.name == *name)
            .ok_or_else(|| no_consumer(name))
    }

    /// Forgets a consumer. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NotFound`]; what the store answers.
    pub fn remove_consumer(&self, name: &Slug) -> Result<(), NodeError> {
        if self.store().remove_consumer(name)? {
            Ok(())
        } else {
            Err(no_consumer(name))
        }
    }
}

fn no_consumer(name: &Slug) -> NodeError {
    NodeError::NotFound {
        what: "consumer",
        name: name.to_string(),
    }
}

/// A cursor as a consumer hands it in.
///
/// # Errors
/// [`NodeError::StartOver`].
pub fn cursor(bytes: &[u8]) -> Result<ChangeCursor, NodeError> {
    ChangeCursor::from_bytes(bytes).map_err(NodeError::StartOver)
}

/// Whether a cursor's error is the caller's mistake rather than the course of things.
#[must_use]
pub const fn is_mistake(error: CursorError) -> bool {
    match error {
        CursorError::NoCursor => true,
        CursorError::TooOld | CursorError::OtherHistory => false,
    }
}

/// A feed, as far as its changes name it.
struct Told {
    publisher: Slug,
    describe: leaf::Describe,
}

/// Turns leaves into words.
struct Words<'n> {
    node: &'n Node,
    judge: Judge<'n>,
    /// Everything is told, so that nothing need be told beside it.
    in_snapshot: bool,
    heard: Heard,
    changes: Vec<Change>,
    feeds: BTreeMap<FeedNo, Option<Told>>,
}

impl Words<'_> {
    fn tell(&mut self, step: Step) -> Result<(), NodeError> {
        match step {
            Step::Gone { id, set } => self.changes.push(Change::SetWithdrawn { feed: id, set }),
            Step::Leaves {
                feed,
                id,
                set,
                review,
                leaves,
            } => {
                let page = |leaf: &ChangedLeaf| leaf.index / PAGE_LEAVES;
                for some in leaves.chunk_by(|a, b| page(a) == page(b)) {
                    self.tell_page((feed, id), &set, review, some)?;
                }
            }
        }
        Ok(())
    }

    /// Tells leaves of one page, which is read once.
    fn tell_page(
        &mut self,
        (feed, id): (FeedNo, FeedId),
        set: &str,
        review: bool,
        leaves: &[ChangedLeaf],
    ) -> Result<(), NodeError> {
        let seen = leaves.iter().filter(|leaf| leaf.seen.is_some());
        let range = seen.clone().map(|leaf| leaf.index).min();
        let range = range.zip(seen.map(|leaf| leaf.index).max());
        let raw = match range {
            None => Vec::new(),
            Some((first, last)) => {
                match self
                    .node
                    .store()
                    .read_leaves(feed, first, last.saturating_add(1))
                {
                    // It was dropped or cut meanwhile, which a later record tells.
                    Err(StoreError::UnknownFeed(_) | StoreError::OutOfRange { .. }) => Vec::new(),
                    other => other?,
                }
            }
        };
        let first = range.map_or(0, |(first, _)| first);
        let told = self.changes.len();
        for ChangedLeaf { index, seen } in leaves {
            let at = usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX);
            let leaf = raw.get(at).map(|raw| leaf::read(raw, *index));
            let change = match (seen, leaf) {
                (Some(seen), Some(Leaf::Publish(body))) => {
                    self.present((feed, id), review, *index, seen, *body)?
                }
                // No entry, and so none was told of.
                (
                    Some(_),
                    Some(
                        Leaf::Describe(_)
                        | Leaf::Retract(_)
                        | Leaf::Opinion(_)
                        | Leaf::Erase(_)
                        | Leaf::Unknown(_)
                        | Leaf::Void(_),
                    ),
                ) => continue,
                (Some(_), Some(Leaf::Elided) | None) | (None, _) => None,
            };
            self.changes
                .push(change.unwrap_or_else(|| Change::Withdrawn {
                    feed: id,
                    set: set.to_owned(),
                    index: *index,
                }));
        }
        self.tell_siblings((feed, id), leaves)?;
        self.judge_since(told)
    }

    /// Puts what the policy makes of them to the entries told since a place.
    fn judge_since(&mut self, place: usize) -> Result<(), NodeError> {
        let told = self.changes.get_mut(place..).unwrap_or_default();
        let mut entries: Vec<(FeedId, &mut ExportedEntry)> = told
            .iter_mut()
            .filter_map(|change| match change {
                Change::Entry(present) => Some((present.feed, &mut present.entry)),
                Change::Withdrawn { .. } | Change::SetWithdrawn { .. } => None,
            })
            .collect();
        self.judge.put_verdicts(&mut entries)
    }

    /// An entry as it counts; `None` where nothing of it does.
    fn present(
        &mut self,
        (feed, id): (FeedNo, FeedId),
        review: bool,
        index: u64,
        seen: &Seen,
        mut body: Publish,
    ) -> Result<Option<Change>, NodeError> {
        without(&mut body, &seen.withheld);
        if body.signals.is_empty() {
            return Ok(None);
        }
        let named = (id, body.first_index(index));
        let disputed = self.heard.disputed(self.node.store(), named, &body)?;
        let Some(told) = self.told(feed)? else {
            return Ok(None);
        };
        let scheme = told.describe.classification_scheme.as_ref();
        let class = body.classification.as_ref();
        let entry = EntryName {
            set: told.describe.name.clone(),
            first: body.first_index(index),
        };
        let review = review || seen.review;
        Ok(Some(Change::Entry(Box::new(PresentEntry {
            feed: id,
            classification: crate::lookup::qualified(
                &class.map(ToString::to_string).unwrap_or_default(),
                &scheme.map(ToString::to_string).unwrap_or_default(),
            ),
            added: seen.added,
            may_share: told.describe.terms.may_share,
            entry: ExportedEntry {
                entry,
                index,
                publisher: told.publisher.clone(),
                state: state(review, !disputed.is_empty()),
                verdict: None,
                disputed_kinds: disputed,
                body,
            },
        }))))
    }

    fn told(&mut self, no: FeedNo) -> Result<Option<&Told>, NodeError> {
        if !self.feeds.contains_key(&no) {
            let feed = match self.node.store().feed(no) {
                Err(StoreError::UnknownFeed(_)) => None,
                other => Some(other?),
            };
            let told = feed.and_then(|feed| {
                Some(Told {
                    describe: views::describe_of(&feed)?,
                    publisher: self.node.publisher_of(&feed),
                })
            });
            self.feeds.insert(no, told);
        }
        Ok(self.feeds.get(&no).and_then(Option::as_ref))
    }
}

/// Takes the signals away that do not count.
pub(crate) fn without(body: &mut Publish, withheld: &[u8]) {
    body.signals
        .retain(|signal| !withheld.contains(&signal.kind().number_byte()));
}

/// The word for how an entry counts.
pub(crate) const fn state(review: bool, disputed: bool) -> &'static str {
    match (review, disputed) {
        (true, _) => "review",
        (false, true) => "disputed",
        (false, false) => "active",
    }
}
