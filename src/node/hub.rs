//! Tells whoever watches that something changed; not what it became.
//!
//! A watcher reads the state itself, so a change that is told twice or in another
//! order does no harm, and one that falls behind starts again from the state.

use hashpact_core::id::{FeedId, MemberNumber};
use tokio::sync::broadcast;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A new roster version.
    Roster,
    /// A member's node card.
    Card(MemberNumber),
    /// A suspension began.
    Suspension,
    /// A feed has a new head that this node serves.
    Head(FeedId),
    /// A member showed its first head of a feed, or the one that this node has cosigned: it
    /// may be told of evidence, and of that.
    Cosigned(FeedId, MemberNumber),
    /// A witness's newer word on the roster chain is kept.
    RosterWord,
    /// Who may read what: grants, members, suspensions, the deny list.
    Access,
    /// Fork evidence was stored.
    Evidence(FeedId),
    /// Evidence of two documents of one version was stored.
    Equivocation,
    /// A node's newer word on a feed is kept.
    Receipt(FeedId),
    /// On how many sets whose receipts are overdue.
    Overdue,
}

/// How many changes a slow watcher may fall behind before it starts again from
/// the state: a burst of heads of all feeds of a coalition of 100 members.
const BACKLOG: usize = 4_096;

/// The node's one channel of changes.
#[derive(Debug, Clone)]
pub struct Hub(broadcast::Sender<Change>);

impl Default for Hub {
    fn default() -> Self {
        Self(broadcast::channel(BACKLOG).0)
    }
}

impl Hub {
    /// Tells everyone who watches.
    pub fn tell(&self, change: Change) {
        // No receiver is no error: nobody watches.
        let _ = self.0.send(change);
    }

    /// Watches from here on.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Change> {
        self.0.subscribe()
    }
}
