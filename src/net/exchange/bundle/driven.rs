//! What the driver knows of the feeds that are taken in from bundles.
//!
//! A feed of a bundle is a peer of the puller's, of its own for every feed, so that what
//! is wrong with one says nothing of another. It stands for the publisher: who made the
//! file is not known, and need not be. Here begins and ends such a peer, and whoever
//! imports is shown how its feed stands.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use hashpact_core::id::{FeedId, Slug};
use hashpact_core::puller::{Event, PeerId};
use hashpact_core::reject::Rejection;
use hashpact_node::NodeError;
use tokio::sync::{oneshot, watch};

use super::leaves::Leaves;
use crate::exchange::driver::{Driver, Known};
use crate::exchange::inside::Inside;
use crate::exchange::storing;
use crate::types::{self, Announcement};

/// What names a bundle among peers, in logs and metrics.
pub(crate) const NAME: &str = "bundle";
/// Refusals remembered of one feed.
const REFUSED_MAX: usize = 16;

/// What whoever imports tells the driver.
#[derive(Debug)]
pub(crate) enum Told {
    /// A feed of a bundle is to be taken in.
    Begin(Box<Begin>),
    /// All that was ordered for the feed so far is to be done first, then to be shown.
    Flush(PeerId),
    /// The feed may not be read, and what there is of it goes.
    Drop(FeedId),
    /// All that was told before is to be begun; answered then.
    Sync(oneshot::Sender<()>),
    /// The feed's import has ended.
    End(PeerId),
    /// Evidence that stood in the file; answered once it is checked.
    Evidence(Announcement, oneshot::Sender<Result<(), NodeError>>),
}

/// A feed of a bundle.
#[derive(Debug)]
pub(crate) struct Begin {
    pub(crate) peer: PeerId,
    pub(crate) head: types::Head,
    pub(crate) leaves: Arc<Leaves>,
    pub(crate) shown: watch::Sender<Standing>,
}

/// How a feed stands that is taken in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that hold or not, each by itself"
)]
pub(crate) struct Standing {
    /// The driver knows of it.
    pub(crate) begun: bool,
    /// Leaves stored.
    pub(crate) cursor: u64,
    /// Epoch and size of the head that was applied last.
    pub(crate) applied: Option<(u32, u64)>,
    /// It may not be pulled.
    pub(crate) denied: bool,
    /// There is no room for all of it.
    pub(crate) no_room: Option<Rejection>,
    /// Two histories were found, or the feed was frozen before.
    pub(crate) frozen: bool,
    /// A proof of that was sought.
    pub(crate) sought: bool,
    /// Nothing is asked of the file; what it brought may wait to be stored.
    pub(crate) idle: bool,
    /// How often all that was ordered was done.
    pub(crate) flushed: u64,
    /// The feed grows too fast.
    pub(crate) resting: Option<Rejection>,
    /// The store failed.
    pub(crate) failed: bool,
    /// What was refused.
    pub(crate) refused: Vec<Rejection>,
}

/// The feeds that are taken in.
#[derive(Default)]
pub(crate) struct Files(HashMap<PeerId, Import>);

struct Import {
    feed: FeedId,
    shown: watch::Sender<Standing>,
}

impl Files {
    /// Whether a peer is a bundle.
    pub(crate) fn has(&self, peer: PeerId) -> bool {
        self.0.contains_key(&peer)
    }

    /// Something was refused of what a peer brought, if that is a bundle.
    pub(crate) fn refused(&self, peer: PeerId, rejection: &Rejection) {
        if let Some(import) = self.0.get(&peer) {
            import.shown.send_modify(|standing| {
                if standing.refused.len() < REFUSED_MAX {
                    standing.refused.push(rejection.clone());
                }
            });
        }
    }

    /// Something happened to a feed.
    pub(crate) fn happened(&self, feed: FeedId, change: impl Fn(&mut Standing)) {
        for import in self.0.values().filter(|import| import.feed == feed) {
            import.shown.send_modify(&change);
        }
    }
}

impl Driver {
    pub(in crate::exchange) fn told_of_bundle(&mut self, told: Told) {
        match told {
            Told::Begin(begin) => self.begin_import(*begin),
            Told::Flush(peer) => self.flush_import(peer),
            Told::Drop(feed) => self.lost(feed),
            Told::Sync(answer) => {
                let _ = answer.send(());
            }
            Told::End(peer) => self.end_import(peer),
            Told::Evidence(evidence, answer) => {
                // Whoever asked may have gone.
                let _ = answer.send(self.evidence_of_bundle(&evidence));
            }
        }
    }

    fn begin_import(&mut self, begin: Begin) {
        let Begin {
            peer,
            head,
            shown,
            leaves: _,
        } = begin;
        let (feed, publisher) = (head.feed, head.publisher);
        let Ok(node) = Slug::parse(NAME) else {
            return;
        };
        // Documents of the same file may have come just before.
        self.access_changed();
        let known = Known {
            key: (publisher, node),
            name: NAME.to_owned(),
        };
        self.peers.insert(peer, known);
        self.files.0.insert(peer, Import { feed, shown });
        self.reached.insert(peer);
        self.tell(Event::PeerUp {
            peer,
            member: publisher,
        });
        self.head(peer, head);
        self.files.happened(feed, |standing| standing.begun = true);
        self.show_imports();
    }

    fn flush_import(&mut self, peer: PeerId) {
        let Some(feed) = self.files.0.get(&peer).map(|import| import.feed) else {
            return;
        };
        if self.publishers.contains_key(&feed) {
            self.desk(feed, storing::Order::Flush(peer));
        } else {
            self.flushed(peer); // nothing was ever ordered
        }
    }

    /// A desk has done all that was ordered before.
    pub(in crate::exchange) fn flushed(&mut self, peer: PeerId) {
        self.show_imports();
        if let Some(import) = self.files.0.get(&peer) {
            let flushed = |standing: &mut Standing| standing.flushed += 1;
            import.shown.send_modify(flushed);
        }
    }

    fn end_import(&mut self, peer: PeerId) {
        self.announced.retain(|(of, _), _| *of != peer);
        self.epochs.forget(peer);
        self.reached.remove(&peer);
        self.tell(Event::PeerDown { peer });
        self.files.0.remove(&peer);
        self.peers.remove(&peer);
    }

    fn evidence_of_bundle(&mut self, said: &Announcement) -> Result<(), NodeError> {
        match said {
            Announcement::Evidence(bytes) => self.evidence(None, bytes),
            Announcement::DocumentEvidence(bytes) => self.equivocation(bytes),
            Announcement::Roster { .. }
            | Announcement::NodeCard(_)
            | Announcement::Suspension(_)
            | Announcement::Head(_)
            | Announcement::SnapshotEnd
            | Announcement::Alive { .. }
            | Announcement::Overdue(_)
            | Announcement::Quarantined(..)
            | Announcement::GrantEnded(_) => Ok(()),
        }
    }

    fn equivocation(&self, bytes: &Bytes) -> Result<(), NodeError> {
        let membership = self.node.membership();
        membership.accept_equivocation(bytes).map(drop)
    }

    /// Shows whoever imports how its feed stands.
    pub(in crate::exchange) fn show_imports(&self) {
        for (peer, import) in &self.files.0 {
            let mut all = self.puller.progress();
            let progress = all.find(|progress| progress.feed == import.feed);
            let asked = self.jobs.values().any(|job| job.peer == *peer);
            let denied = self.denied.feeds.contains(&import.feed);
            let publisher = self.publishers.get(&import.feed);
            let no_room = publisher.and_then(|publisher| self.rooms.why(*publisher));
            import.shown.send_if_modified(|standing| {
                let before = standing.clone();
                standing.denied = denied;
                standing.no_room.clone_from(&no_room);
                standing.idle = !asked;
                if let Some(progress) = &progress {
                    standing.cursor = progress.cursor;
                    standing.applied = progress.applied_at;
                    standing.frozen = progress.frozen;
                }
                *standing != before
            });
        }
    }
}

impl From<Told> for Inside {
    fn from(told: Told) -> Self {
        Self::Bundle(told)
    }
}
