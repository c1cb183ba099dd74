//! Whether an own feed may be signed: the guard against forks after a restore.
//!
//! | store against sign-state | what follows |
//! |---|---|
//! | equal, or ahead by unsigned leaves | those leaves go; the identical head may be signed again |
//! | behind, or no sign-state for it | closed until readers supply the leaves, or the operator says otherwise |
//!
//! Then, where other members could hold a newer head (the whole disk may have been
//! restored), the feed stays closed until one of them has said what it holds.

use hashpact_core::checkpoint::SignedCheckpoint;
use hashpact_core::id::FeedId;
use hashpact_core::verified::Verified;
use hashpact_store::FeedInfo;
use hashpact_store::sign_state::SignedState;
use tracing::{error, info, warn};

use super::Publisher;
use crate::error::NodeError;
use crate::views;
use crate::words::name_of;

/// Whether a feed may be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Open,
    /// Store and sign-state agree; a peer has yet to say what it holds.
    AwaitingPeers,
    /// The store is behind what was signed, here or by what a peer shows.
    Behind {
        /// Leaves under the newest head that was signed.
        signed: u64,
        /// Leaves held.
        held: u64,
    },
    /// The sign-state file does not know a feed that has heads.
    NoSignState,
    /// What is stored contradicts what was signed.
    Contradiction(String),
    /// The roster has opened an epoch that this node cannot sign in.
    Closed(String),
}

impl Gate {
    /// Why it is closed, and what opens it.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Open => String::new(),
            Self::AwaitingPeers => "no peer has said yet which head of it it holds; connect to a \
                 peer, or `hashpact set confirm-head` if none can be reached"
                .to_owned(),
            Self::Behind { signed, held } => format!(
                "{held} leaves are held, {signed} were signed: the store was restored; the \
                 missing leaves are pulled from peers that hold them"
            ),
            Self::NoSignState => "the sign-state file does not know this set: it was lost or is \
                 another one; put it back, or `hashpact set confirm-head` once no peer holds more"
                .to_owned(),
            Self::Contradiction(what) => format!("{what}; run `hashpact verify`"),
            Self::Closed(why) => why.clone(),
        }
    }
}

impl Publisher {
    /// Compares every own feed with the sign-state file, at start and before
    /// anything is appended. With `peers_expected`, feeds that have a head wait
    /// for a peer besides.
    ///
    /// # Errors
    /// What the store answers.
    pub fn check_feeds(&self, peers_expected: bool) -> Result<(), NodeError> {
        for feed in self.feeds() {
            self.follow_epoch(&feed)?;
            if let Some(Gate::Closed(_)) = self.gates().get(&feed.id) {
                continue;
            }
            let feed = self.store.feed(feed.no)?;
            let gate = self.check_feed(&feed, peers_expected)?;
            match &gate {
                Gate::Open => {}
                Gate::AwaitingPeers => {
                    info!(set = %name_of(&feed), "publishing waits for a peer to say what it holds");
                }
                Gate::Behind { .. }
                | Gate::NoSignState
                | Gate::Contradiction(_)
                | Gate::Closed(_) => {
                    error!(set = %name_of(&feed), why = gate.reason(), "publishing is closed");
                }
            }
            self.gates().insert(feed.id, gate);
        }
        Ok(())
    }

    fn check_feed(&self, feed: &FeedInfo, peers_expected: bool) -> Result<Gate, NodeError> {
        let Some(signed) = self.sign_state().state(&feed.id) else {
            return Ok(match feed.applied {
                None => Gate::Open,
                Some(_) => Gate::NoSignState,
            });
        };
        if feed.stored < signed.size {
            return Ok(Gate::Behind {
                signed: signed.size,
                held: feed.stored,
            });
        }
        if self.store.root_at(feed.no, signed.size)? != signed.root {
            let what = format!(
                "the {} leaves held have another root than was signed",
                signed.size
            );
            return Ok(Gate::Contradiction(what));
        }
        self.settle(feed, signed)?;
        let announced = feed.applied.is_some();
        Ok(if peers_expected && announced {
            Gate::AwaitingPeers
        } else {
            Gate::Open
        })
    }

    /// Takes a feed back to what was signed: unsigned leaves go, and a head that a
    /// crash kept from being stored is signed again, the identical one.
    fn settle(&self, feed: &FeedInfo, signed: SignedState) -> Result<(), NodeError> {
        if feed.stored > signed.size {
            warn!(
                set = %name_of(feed), unsigned = feed.stored - signed.size,
                "leaves that were never signed are dropped: nobody was told of them"
            );
            self.store.writer(feed.no)?.truncate_unsigned(signed.size)?;
        }
        let applied = feed.applied.map(|head| (head.epoch, head.size));
        if applied != Some((signed.epoch, signed.size)) {
            self.session_unchecked(feed)?.resign(signed)?;
        }
        Ok(())
    }

    /// A peer has said all that it holds. Feeds that nobody may read open: nobody
    /// can hold more of them. The others wait for a reader of theirs.
    pub fn peer_confirmed(&self) {
        let feeds = self.feeds();
        for (id, gate) in self.gates().iter_mut() {
            let unread = feeds.iter().any(|feed| {
                feed.id == *id
                    && views::describe_of(feed).is_some_and(|describe| describe.grants.is_empty())
            });
            if *gate == Gate::AwaitingPeers && unread {
                *gate = Gate::Open;
            }
        }
    }

    /// A peer showed a verified head of an own feed. One that is ahead closes the
    /// feed until its leaves are here; one that is not opens a feed that waits.
    ///
    /// # Errors
    /// What the store answers.
    pub fn saw_own_head(&self, feed: &FeedInfo, head: &SignedCheckpoint) -> Result<(), NodeError> {
        let applied = feed.applied.map_or(0, |applied| applied.size);
        let gate = if head.size() > applied {
            Gate::Behind {
                signed: head.size(),
                held: feed.stored,
            }
        } else if self.store.root_at(feed.no, head.size())? != head.root() {
            let size = head.size();
            Gate::Contradiction(format!("a peer holds another signed head of {size} leaves"))
        } else if self.gates().get(&feed.id) == Some(&Gate::AwaitingPeers) {
            info!(set = %name_of(feed), "publishing is open: a peer holds no more than this node");
            Gate::Open
        } else {
            return Ok(());
        };
        if gate != Gate::Open {
            error!(set = %name_of(feed), why = gate.reason(), "publishing is closed");
        }
        self.gates().insert(feed.id, gate);
        Ok(())
    }

    /// The leaves that were missing have been pulled back up to a verified head:
    /// the sign-state follows, and the feed opens again.
    ///
    /// # Errors
    /// What the store or the sign-state file answer.
    pub fn recovered(
        &self,
        feed: &FeedId,
        head: &Verified<SignedCheckpoint>,
    ) -> Result<(), NodeError> {
        let Some(no) = self.store.feed_no(feed) else {
            return Ok(());
        };
        let mut sign_state = self.sign_state();
        let recorded = sign_state.state(feed);
        if recorded.is_none_or(|recorded| recorded.size <= head.size()) {
            let at_recorded = self.store.frontier(no, recorded.map_or(0, |r| r.size))?;
            let new = SignedState {
                epoch: head.checkpoint.origin.epoch,
                size: head.size(),
                root: head.root(),
            };
            sign_state
                .advance(feed, recorded, new, &at_recorded)
                .map_err(|error| NodeError::Internal(error.to_string()))?;
            self.gates().insert(*feed, Gate::Open);
            info!(feed = %feed.0.short(), size = head.size(), "the set's own leaves are back: publishing is open");
        }
        Ok(())
    }

    /// Opens a feed on the operator's word that nobody holds more of it.
    ///
    /// # Errors
    /// [`NodeError::PublishingClosed`] when the store is known to be behind;
    /// what the store answers.
    pub fn confirm_head(&self, feed: &FeedInfo, reason: &str) -> Result<(), NodeError> {
        let gate = self
            .gates()
            .get(&feed.id)
            .cloned()
            .unwrap_or(Gate::AwaitingPeers);
        match gate {
            Gate::Open => return Ok(()),
            Gate::AwaitingPeers => {}
            Gate::NoSignState => self.adopt_applied(feed)?,
            Gate::Behind { .. } | Gate::Contradiction(_) | Gate::Closed(_) => {
                return Err(NodeError::PublishingClosed {
                    set: name_of(feed),
                    why: gate.reason(),
                });
            }
        }
        warn!(set = %name_of(feed), reason, "publishing was opened by the operator");
        self.gates().insert(feed.id, Gate::Open);
        Ok(())
    }

    fn adopt_applied(&self, feed: &FeedInfo) -> Result<(), NodeError> {
        let Some(applied) = feed.applied else {
            return Ok(());
        };
        let new = SignedState {
            epoch: applied.epoch,
            size: applied.size,
            root: applied.root,
        };
        let empty = self.store.frontier(feed.no, 0)?;
        self.sign_state()
            .advance(&feed.id, None, new, &empty)
            .map_err(|error| NodeError::Internal(error.to_string()))?;
        if feed.stored > applied.size {
            self.store
                .writer(feed.no)?
                .truncate_unsigned(applied.size)?;
        }
        Ok(())
    }

    /// Opens a feed that was made just now.
    pub(super) fn open_new(&self, feed: FeedId) {
        self.gates().insert(feed, Gate::Open);
    }
}
