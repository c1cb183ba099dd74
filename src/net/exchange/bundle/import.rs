//! Taking a bundle in: documents as a peer's answer to `GetRoster`, each feed as a peer
//! that announces one head and serves its leaves, evidence as if it had been told.
//!
//! Everything that decides, verifies and stores is the driver's, the puller's and the
//! desk's. Here stands what a connection would decide by itself: which feeds of the file
//! this node may read, when each has come to an end, and what came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hashpact_core::access::Grants;
use hashpact_core::chunk::PinnedHead;
use hashpact_core::id::SetName;
use hashpact_core::leaf::Describe;
use hashpact_core::merkle::proof::verify_inclusion;
use hashpact_core::page;
use hashpact_core::puller::PeerId;
use hashpact_core::reject::Rejection;
use hashpact_node::bundle::{
    BundleFile, BundleProgress, BundleRefusal, BundleTaken, SetOutcome, SetTaken,
};
use hashpact_node::{Node, NodeError};
use hashpact_store::{FeedInfo, FeedStatus};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::driven::{Begin, NAME, Standing, Told};
use super::leaves::Leaves;
use super::read::{self, Contents, FeedAt, Record};
use crate::exchange::documents_in;
use crate::exchange::inside::Inside;
use crate::exchange::pipeline::{describe_of, read_describe, verify_head};
use crate::exchange::rejections::Rejections;
use crate::types::BundleFeed;

/// A feed of which nothing is asked, and of which nothing was refused, is given up after
/// so long: another peer's head is being pulled, and that peer does not go on.
const PATIENCE: Duration = Duration::from_secs(20);
/// Peers of the driver's have lower names.
const FIRST_PEER: u64 = 1 << 63;

static NEXT_PEER: AtomicU64 = AtomicU64::new(FIRST_PEER);

/// One import.
pub(crate) struct Importing {
    pub(crate) node: Arc<Node>,
    pub(crate) driver: mpsc::Sender<Inside>,
    pub(crate) rejections: Arc<Rejections>,
    pub(crate) file: Arc<dyn BundleFile>,
    pub(crate) progress: mpsc::Sender<BundleProgress>,
}

/// What a feed of a bundle is held to before anything of it is asked for.
struct Admitted {
    set: SetName,
    head: PinnedHead,
    rank: (u32, u64),
    held: Option<FeedInfo>,
}

impl Importing {
    /// Takes everything in that can be.
    ///
    /// # Errors
    /// A file that is no bundle of this coalition; a store that fails; a node that stops.
    pub(crate) async fn run(self) -> Result<BundleTaken, NodeError> {
        let contents = read::contents(&self.file).await?;
        if contents.header.genesis != self.node.membership().genesis() {
            return Err(Rejection::WrongGenesis { what: "bundle" }.into());
        }
        let Contents {
            header,
            documents,
            evidence,
            feeds,
            refused,
        } = contents;
        let mut taken = BundleTaken {
            header,
            documents_new: 0,
            documents_known: 0,
            evidence: 0,
            sets: Vec::new(),
            refused,
        };
        let parts = (documents.as_slice(), feeds.as_slice(), evidence.as_slice());
        if let Err(error) = self.take_all(parts, &mut taken).await {
            // What was taken in before stands: it is said, and recorded, with what ended it.
            if taken.documents_new == 0 && taken.sets.is_empty() {
                return Err(error);
            }
            tracing::warn!(code = error.code(), %error, "a bundle was taken in in part");
            let why = format!("what follows was not taken in: {error}");
            let ended = BundleRefusal::new(read::FILE, error.code(), why);
            taken.refused.insert(0, ended);
        }
        taken.refused.truncate(read::REFUSED_MAX);
        tracing::info!(
            call = "bundle_import", by = %taken.header.by, sets = taken.sets.len(),
            documents = taken.documents_new,
            stored = taken.sets.iter().map(|set| set.stored).sum::<u64>(),
        );
        Ok(taken)
    }

    async fn take_all(
        &self,
        (documents, feeds, evidence): (&[Record], &[FeedAt], &[Record]),
        taken: &mut BundleTaken,
    ) -> Result<(), NodeError> {
        for (at, record) in documents.iter().enumerate() {
            self.document(at, record, taken).await?;
        }
        let node = Arc::clone(&self.node);
        blocking(move || node.follow_roster()).await?;
        let of = feeds.iter().map(leaves_of).fold(0, u64::saturating_add);
        let mut done = 0_u64;
        for at in feeds {
            taken.sets.push(self.feed(at, done, of).await?);
            done = done.saturating_add(leaves_of(at));
        }
        for (at, record) in evidence.iter().enumerate() {
            self.evidence(at, record, taken).await?;
        }
        let (answer, synced) = oneshot::channel();
        self.tell(Told::Sync(answer)).await?;
        synced.await.map_err(|_| stopping())
    }

    async fn document(
        &self,
        at: usize,
        record: &Record,
        taken: &mut BundleTaken,
    ) -> Result<(), NodeError> {
        let accepted = match read::document(&self.file, record).await {
            Ok(None) => return Ok(()),
            Ok(Some(item)) => {
                let node = Arc::clone(&self.node);
                blocking(move || documents_in::accept(&node, item)).await
            }
            Err(error) => Err(error),
        };
        match accepted {
            Ok(true) => taken.documents_new += 1,
            Ok(false) => taken.documents_known += 1,
            Err(error) => {
                let what = format!("document {}", at + 1);
                self.refuse(&what, error, &mut taken.refused)?;
            }
        }
        Ok(())
    }

    async fn evidence(
        &self,
        at: usize,
        record: &Record,
        taken: &mut BundleTaken,
    ) -> Result<(), NodeError> {
        let checked = match read::evidence(&self.file, record).await {
            Ok(None) => return Ok(()),
            Ok(Some(said)) => {
                let (answer, answered) = oneshot::channel();
                self.tell(Told::Evidence(said, answer)).await?;
                answered.await.unwrap_or(Err(stopping()))
            }
            Err(error) => Err(error),
        };
        match checked {
            Ok(()) => taken.evidence += 1,
            Err(error) => {
                let what = format!("evidence {}", at + 1);
                self.refuse(&what, error, &mut taken.refused)?;
            }
        }
        Ok(())
    }

    /// Notes what is the file's fault; answers what is not.
    fn refuse(
        &self,
        what: &str,
        error: NodeError,
        refused: &mut Vec<BundleRefusal>,
    ) -> Result<(), NodeError> {
        if let NodeError::Rejected(rejection) = &error {
            self.rejections.note(NAME, None, rejection);
            refused.push(BundleRefusal::of(what, rejection));
            return Ok(());
        }
        // A card where no roster is.
        if let NodeError::Misuse(why) = &error {
            refused.push(BundleRefusal::new(what, "unknown", why));
            return Ok(());
        }
        Err(error)
    }

    async fn feed(&self, at: &FeedAt, done: u64, of: u64) -> Result<SetTaken, NodeError> {
        let said = match read::feed(&self.file, &at.record).await {
            Ok(said) => said,
            Err(NodeError::Rejected(rejection)) => {
                self.rejections.note(NAME, None, &rejection);
                return Ok(unread(at, &rejection));
            }
            Err(error) => return Err(error),
        };
        let (node, feed) = (Arc::clone(&self.node), said.clone());
        let mut taken = SetTaken {
            set: said.head.feed.to_string(),
            feed: said.head.feed,
            from: said.from,
            size: at.chunks.last().map_or(said.from, |last| last.to),
            stored: 0,
            held: 0,
            outcome: SetOutcome::Refused,
            refused: Vec::new(),
        };
        let admitted = match blocking(move || Ok(admit(&node, &feed))).await? {
            Ok(admitted) => admitted,
            Err(refusal) => {
                tracing::warn!(feed = %taken.feed.0.short(), code = refusal.code, why = refusal.why,
                    "a feed of a bundle is refused");
                taken.refused.push(refusal);
                return Ok(taken);
            }
        };
        taken.set = admitted.set.to_string();
        taken.size = admitted.head.size;
        let standing = self.bring(at, &said, &admitted, (done, of)).await?;
        let before = admitted.held.as_ref().map_or(0, |held| held.stored);
        let (node, feed) = (Arc::clone(&self.node), taken.feed);
        let held = blocking(move || Ok(held_feed(&node, &feed))).await?;
        taken.held = held.as_ref().map_or(0, |held| held.stored);
        taken.stored = taken.held.saturating_sub(before);
        let refused = standing.refused.iter();
        taken.refused = refused
            .map(|rejection| BundleRefusal::of(&taken.set, rejection))
            .collect();
        self.conclude(&mut taken, &standing, &admitted, held)
            .await?;
        Ok(taken)
    }

    /// Lets the driver take a feed in, until that has come to an end.
    async fn bring(
        &self,
        at: &FeedAt,
        said: &BundleFeed,
        admitted: &Admitted,
        (done, of): (u64, u64),
    ) -> Result<Standing, NodeError> {
        let peer = PeerId(NEXT_PEER.fetch_add(1, Ordering::Relaxed));
        let (shown, mut standing) = watch::channel(Standing::default());
        let file = Arc::clone(&self.file);
        let leaves = Leaves::new(file, said.head.feed, admitted.head, at.clone());
        let begin = Begin {
            peer,
            head: said.head.clone(),
            leaves,
            shown,
        };
        self.tell(Told::Begin(Box::new(begin))).await?;
        let _ended = Ended {
            driver: self.driver.clone(),
            peer,
        };
        let first = at.chunks.first().map_or(0, |first| first.from);
        let (mut flushes, mut ending, mut stuck) = (0, None, false);
        loop {
            let now = standing.borrow_and_update().clone();
            let come = now.cursor.clamp(first, admitted.head.size.max(first)) - first;
            // Whoever watches may be slow, or gone.
            let _ = self.progress.try_send(BundleProgress {
                set: admitted.set.to_string(),
                done: done.saturating_add(come),
                of,
            });
            // What looks like the end counts once all that was ordered before is done.
            match (is_over(&now, admitted), ending) {
                (true, Some(flush)) if now.flushed >= flush => return Ok(now),
                (true, Some(_)) => {}
                (true, None) => {
                    flushes += 1;
                    ending = Some(flushes);
                    self.tell(Told::Flush(peer)).await?;
                }
                (false, _) => ending = None,
            }
            match timeout(PATIENCE, standing.changed()).await {
                Ok(Ok(())) => stuck = false,
                Ok(Err(_)) => return Err(stopping()),
                // A desk that is busy answers when it is done.
                Err(_) if now.flushed < flushes || !now.idle => {}
                Err(_) if stuck => return Ok(now),
                Err(_) => {
                    flushes += 1;
                    self.tell(Told::Flush(peer)).await?;
                    let flushed = standing.wait_for(|now| now.flushed >= flushes).await;
                    flushed.map_err(|_| stopping())?;
                    stuck = true;
                }
            }
        }
    }

    /// Says what came of a feed, and sees that what may not be read does not stay.
    async fn conclude(
        &self,
        taken: &mut SetTaken,
        standing: &Standing,
        admitted: &Admitted,
        held: Option<FeedInfo>,
    ) -> Result<(), NodeError> {
        let set = taken.set.clone();
        let mut refuse =
            |code, why: String| taken.refused.push(BundleRefusal::new(&set, code, why));
        if standing.frozen {
            taken.outcome = SetOutcome::Forked;
            refuse(
                "two_roots",
                "its publisher has shown two histories: it stays as it was verified, and brings \
                 nothing new until the administrators open a new epoch"
                    .to_owned(),
            );
        } else if standing.applied >= Some(admitted.rank) {
            let before = admitted.held.as_ref().and_then(|held| held.applied);
            let before = before.map(|applied| (applied.epoch, applied.size));
            taken.outcome = if before >= Some(admitted.rank) {
                SetOutcome::Held
            } else {
                SetOutcome::Taken
            };
            if held.is_some_and(|held| !may_read(&self.node, &held)) {
                taken.outcome = SetOutcome::Refused;
                refuse("not_granted", NOT_GRANTED.to_owned());
                // What was held before is not for a file to take away.
                if admitted.held.is_none() {
                    self.drop_feed(taken).await?;
                }
            }
        } else if let Some(resting) = &standing.resting {
            taken.outcome = SetOutcome::Resting;
            refuse(resting.code(), resting.to_string());
        } else if standing.failed {
            refuse(
                "store",
                "it could not be stored; the node's log says why".to_owned(),
            );
        } else if let Some(no_room) = standing.no_room.as_ref().filter(|_| standing.denied) {
            taken.outcome = SetOutcome::Resting;
            refuse(no_room.code(), no_room.to_string());
        } else if standing.denied {
            refuse("not_granted", NOT_GRANTED.to_owned());
        } else if standing.refused.is_empty() {
            refuse(
                "busy",
                "it is being pulled from another member: try again, or wait for that".to_owned(),
            );
        }
        Ok(())
    }

    async fn drop_feed(&self, taken: &mut SetTaken) -> Result<(), NodeError> {
        self.tell(Told::Drop(taken.feed)).await?;
        (taken.stored, taken.held) = (0, 0);
        Ok(())
    }

    async fn tell(&self, told: Told) -> Result<(), NodeError> {
        let sent = self.driver.send(told.into()).await;
        sent.map_err(|_| stopping())
    }
}

const NOT_GRANTED: &str = "this member is not granted the set; its publisher can grant it";

/// Whether nothing more is to come of a feed, as far as can be seen.
fn is_over(now: &Standing, admitted: &Admitted) -> bool {
    let held = admitted.held.as_ref();
    let frozen_before = held.is_some_and(|held| held.status == FeedStatus::Frozen);
    let applied = now.applied >= Some(admitted.rank);
    let forked = now.frozen && (now.sought || frozen_before);
    let refused = !now.refused.is_empty() && now.idle;
    let stopped = now.resting.is_some() || now.failed || now.denied;
    now.begun && (applied || forked || refused || stopped)
}

/// PROTOCOL 15.4, 11.6 and 13.6: decides, before anything of a feed is stored, whether
/// its head is the publisher's, whether the describe leaf in force grants this member,
/// and whether the leaves follow those that are held. Blocking.
fn admit(node: &Node, said: &BundleFeed) -> Result<Admitted, BundleRefusal> {
    let feed = said.head.feed;
    let refused = |rejection: Rejection| BundleRefusal::of(feed, &rejection);
    let not_active = |why: &dyn std::fmt::Display| BundleRefusal::new(feed, "not_active", why);
    let membership = node.membership();
    let own = membership.own().map_err(|error| not_active(&error))?;
    let snapshot = membership.snapshot();
    let snapshot = snapshot.ok_or_else(|| not_active(&"this node has no roster yet"))?;
    let publisher = said.head.publisher;
    if publisher != own && !snapshot.may_publish(publisher) {
        return Err(not_active(&"its publisher is not an active publisher"));
    }
    let describe = described(node, said).map_err(refused)?;
    let set = describe.name.clone();
    let named = |rejection: Rejection| BundleRefusal::of(&set, &rejection);
    let head = verify_head(node, publisher, Some(&set.set), feed, &said.head.note);
    let head = head.map_err(named)?;
    let leaf = describe_leaf(said).map_err(named)?;
    let (index, size, root) = (said.describe_index, head.size(), head.root());
    let inclusion = verify_inclusion(&leaf.hash(), index, size, &said.inclusion, &root);
    inclusion.map_err(named)?;
    let grants = Grants::of(&describe);
    let granted = snapshot.may_read(own, publisher, Some(&grants));
    if granted.is_err() {
        return Err(BundleRefusal::new(&set, "not_granted", NOT_GRANTED));
    }
    let held = held_feed(node, &feed);
    if held
        .as_ref()
        .is_some_and(|held| held.publisher != publisher)
    {
        return Err(named(Rejection::WrongOrigin { feed }));
    }
    let stored = held.as_ref().map_or(0, |held| held.stored);
    if said.from > stored {
        let why = format!(
            "the bundle begins at leaf {}, and {stored} are held: ask for one with --since {stored}",
            said.from
        );
        return Err(BundleRefusal::new(&set, "wrong_range", why));
    }
    Ok(Admitted {
        set,
        head: PinnedHead { size, root },
        rank: (head.checkpoint.origin.epoch, size),
        held,
    })
}

fn describe_leaf(said: &BundleFeed) -> Result<hashpact_core::leaf::RawLeaf, Rejection> {
    let mut leaves = page::decode_plain(&said.describe, 1)?;
    let no_leaf = || Rejection::invalid("feed of a bundle", "no describe leaf");
    leaves.pop().ok_or_else(no_leaf)
}

/// The describe leaf that a bundle shows, if it belongs to the feed's publisher.
fn described(node: &Node, said: &BundleFeed) -> Result<Describe, Rejection> {
    let leaf = describe_leaf(said)?;
    let describe = read_describe(&leaf, said.describe_index);
    let describes_nothing = || Rejection::invalid("feed of a bundle", "the leaf describes nothing");
    let describe = describe.ok_or_else(describes_nothing)?;
    let membership = node.membership();
    let unknown = || Rejection::Unknown {
        what: "publisher",
        why: format!("no member has number {}", said.head.publisher),
    };
    let member = membership.member(said.head.publisher).ok_or_else(unknown)?;
    let belongs = membership.geneses().into_iter();
    let mut belongs = belongs.map(|genesis| describe.check_belongs(&genesis, &member.slug));
    belongs
        .find(Result::is_ok)
        .unwrap_or_else(|| describe.check_belongs(&membership.genesis(), &member.slug))?;
    Ok(describe)
}

/// Whether this node may read a feed as it is held.
fn may_read(node: &Node, held: &FeedInfo) -> bool {
    let membership = node.membership();
    let (Ok(own), Some(snapshot)) = (membership.own(), membership.snapshot()) else {
        return false;
    };
    let grants = describe_of(held).map(|describe| Grants::of(&describe));
    let read = snapshot.may_read(own, held.publisher, grants.as_ref());
    held.own || read.is_ok()
}

fn held_feed(node: &Node, feed: &hashpact_core::id::FeedId) -> Option<FeedInfo> {
    let store = node.store();
    store.feed(store.feed_no(feed)?).ok()
}

/// A feed of which not even its head could be read.
fn unread(at: &FeedAt, rejection: &Rejection) -> SetTaken {
    let what = format!("the feed at byte {}", at.record.offset);
    SetTaken {
        refused: vec![BundleRefusal::of(&what, rejection)],
        set: what,
        feed: hashpact_core::id::FeedId(hashpact_core::id::Digest([0; 32])),
        from: at.chunks.first().map_or(0, |first| first.from),
        size: at.chunks.last().map_or(0, |last| last.to),
        stored: 0,
        held: 0,
        outcome: SetOutcome::Refused,
    }
}

fn leaves_of(at: &FeedAt) -> u64 {
    let from = at.chunks.first().map_or(0, |first| first.from);
    at.chunks
        .last()
        .map_or(0, |last| last.to.saturating_sub(from))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NodeError> + Send + 'static,
) -> Result<T, NodeError> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(stopping()))
}

const fn stopping() -> NodeError {
    NodeError::Busy("the node is stopping")
}

/// Tells the driver that a feed's import has ended, when dropped.
struct Ended {
    driver: mpsc::Sender<Inside>,
    peer: PeerId,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let ended = Inside::Bundle(Told::End(self.peer));
        if let Err(mpsc::error::TrySendError::Full(ended)) = self.driver.try_send(ended) {
            let driver = self.driver.clone();
            tokio::spawn(async move { driver.send(ended).await });
        }
    }
}
