//! Whether an own feed may be signed: the guard against forks after a restore.
//!
//! | store against sign-state | what follows |
//! |---|---|
//! | equal, or ahead by unsigned leaves | those leaves go; the identical head may be signed again |
//! | behind, or no sign-state for it | closed until readers supply the leaves, or the operator says otherwise |
//!
//! Then, where other members could hold a newer head (the whole disk may have been
//! restored), the feed stays closed until they have said what they hold
//! ([`confirm`](super::confirm)).

use hashpact_core::access::Grants;
use hashpact_core::checkpoint::SignedCheckpoint;
use hashpact_core::id::{FeedId, MemberNumber};
use hashpact_core::leaf::audit::careful;
use hashpact_core::verified::Verified;
use hashpact_store::FeedInfo;
use hashpact_store::sign_state::SignedState;
use tracing::{error, info, warn};

use super::Publisher;
use super::confirm::{Awaited, PeerKey, Round, Waiting};
use crate::error::NodeError;
use crate::views;
use crate::words::name_of;

/// Whether a feed may be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Open,
    /// Store and sign-state agree; peers have yet to say what they hold.
    AwaitingPeers(Awaited),
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
            Self::AwaitingPeers(awaited) => awaited.reason(),
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
    /// anything is appended. Where there are other members, feeds that have a head
    /// wait for peers besides.
    ///
    /// # Errors
    /// What the store answers.
    pub fn check_feeds(&self) -> Result<(), NodeError> {
        let peers_expected = self.others_may_hold_more();
        for feed in self.feeds() {
            self.follow_epoch(&feed)?;
            if let Some(Gate::Closed(_)) = self.gates().get(&feed.id) {
                continue;
            }
            let feed = self.store.feed(feed.no)?;
            let gate = self.check_feed(&feed, peers_expected)?;
            match &gate {
                Gate::Open => {}
                Gate::AwaitingPeers(_) => {
                    info!(set = %name_of(&feed), "publishing waits for peers to say what they hold");
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

    /// Whether there is another member, which may hold a newer head than a restored
    /// store. Whom the store says it granted does not count: it may be the old one.
    pub(super) fn others_may_hold_more(&self) -> bool {
        let state = self.membership.state();
        let members = state.chain.as_ref().map(|chain| &chain.roster().members);
        members.is_some_and(|members| members.iter().any(|member| member.slug != self.slug))
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
            Gate::AwaitingPeers(Awaited::default())
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

    /// A peer has said all that it holds.
    pub fn peer_said_all(&self, peer: &PeerKey) {
        self.said().all_by(peer, self.clock.now());
    }

    /// Whether a feed waits for peers.
    #[must_use]
    pub fn awaits_peers(&self) -> bool {
        let gates = self.gates();
        let mut gates = gates.values();
        gates.any(|gate| matches!(gate, Gate::AwaitingPeers(_)))
    }

    /// Opens the feeds that have waited for peers, as these stand, and says of the
    /// others whom they wait for.
    pub fn peers_stand(&self, round: &Round) {
        let snapshot = self.membership.snapshot();
        for feed in self.feeds() {
            let waits = matches!(self.gates().get(&feed.id), Some(Gate::AwaitingPeers(_)));
            if !waits {
                continue;
            }
            let describe = views::describe_of(&feed);
            let grants = describe.as_ref().map(Grants::of).unwrap_or_default();
            let reads = |member: MemberNumber| {
                let snapshot = snapshot.as_ref();
                snapshot.is_none_or(|s| s.may_read(member, feed.publisher, Some(&grants)).is_ok())
            };
            let waiting = Waiting {
                feed: feed.id,
                is_granted: describe.is_some_and(|describe| !describe.grants.is_empty()),
                reads,
            };
            let awaited = self.said().awaits(&waiting, round, self.clock.now());
            let gate = match awaited {
                Some(awaited) => Gate::AwaitingPeers(awaited),
                None => {
                    info!(set = %name_of(&feed), "publishing is open: no peer that answers holds more");
                    Gate::Open
                }
            };
            // Meanwhile a head that is ahead may have closed it.
            if let Some(held @ Gate::AwaitingPeers(_)) = self.gates().get_mut(&feed.id) {
                *held = gate;
            }
        }
    }

    /// Whether leaves of a feed are missing.
    #[must_use]
    pub fn is_behind(&self, feed: &FeedId) -> bool {
        matches!(self.gates().get(feed), Some(Gate::Behind { .. }))
    }

    /// A peer showed a verified head of an own feed, held or not.
    pub fn heard_own_head(&self, head: &SignedCheckpoint) {
        let origin = &head.checkpoint.origin;
        self.said().head(origin.feed, (origin.epoch, head.size()));
    }

    /// A peer showed a verified head of an own feed that is held. One that is ahead
    /// closes the feed until its leaves are here; one that is not is an answer for a
    /// feed that waits.
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
        } else {
            self.said().no_more(feed.id, self.clock.now());
            return Ok(());
        };
        error!(set = %name_of(feed), why = gate.reason(), "publishing is closed");
        self.gates().insert(feed.id, gate);
        Ok(())
    }

    /// Leaves that were missing have been pulled back up to a verified head: the
    /// sign-state follows. ⚠ There may be more: who showed that head may be behind
    /// itself, or hide what it holds. So all others are waited for, as after a start.
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
        if recorded.is_some_and(|recorded| recorded.size > head.size()) {
            return Ok(());
        }
        let at_recorded = self.store.frontier(no, recorded.map_or(0, |r| r.size))?;
        let new = SignedState {
            epoch: head.checkpoint.origin.epoch,
            size: head.size(),
            root: head.root(),
        };
        sign_state
            .advance(feed, recorded, new, &at_recorded)
            .map_err(|error| NodeError::Internal(error.to_string()))?;
        let (size, now) = (head.size(), self.clock.now());
        let newest = self.said().newest(feed);
        let gate = if newest > (new.epoch, size) {
            Gate::Behind {
                signed: newest.1,
                held: size,
            }
        } else {
            self.said().leaves_came(*feed, now);
            Gate::AwaitingPeers(Awaited::default())
        };
        self.gates().insert(*feed, gate);
        info!(feed = %feed.0.short(), size, "leaves of an own set are back");
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
            .unwrap_or_else(|| Gate::AwaitingPeers(Awaited::default()));
        match gate {
            Gate::Open => return Ok(()),
            Gate::AwaitingPeers(_) => {}
            Gate::NoSignState => self.adopt_applied(feed)?,
            Gate::Behind { .. } | Gate::Contradiction(_) | Gate::Closed(_) => {
                return Err(NodeError::PublishingClosed {
                    set: name_of(feed),
                    why: gate.reason(),
                });
            }
        }
        let reason = careful(reason);
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
