//! A new epoch of an own feed, on the publisher's side.
//!
//! The roster names the size and root that the epoch goes on from. So its first
//! head is given: leaves beyond go, the sign-state file follows, and the new feed
//! key signs exactly that. Any node that does this signs the identical head.

use hashpact_core::roster::Opening;
use hashpact_store::FeedInfo;
use hashpact_store::sign_state::SignedState;
use tracing::{error, info, warn};

use super::{Awaited, Gate, Publisher};
use crate::error::NodeError;
use crate::hub::Change;
use crate::views;
use crate::words::name_of;

impl Publisher {
    /// Takes every own feed to the epoch that the roster has opened. Blocking. What
    /// cannot be taken there is closed, with the reason.
    ///
    /// # Errors
    /// What the store or the sign-state file answer.
    pub fn open_epochs(&self) -> Result<(), NodeError> {
        for feed in self.feeds() {
            self.follow_epoch(&feed)?;
        }
        Ok(())
    }

    /// Takes one feed to the epoch that the roster has opened, if it is not there.
    pub(super) fn follow_epoch(&self, feed: &FeedInfo) -> Result<(), NodeError> {
        let state = self.membership.state();
        let Some(chain) = state.chain.as_ref() else {
            return Ok(());
        };
        let epoch = chain.roster().epoch(feed.id);
        let applied = feed.applied.map_or(0, |head| head.epoch);
        let signed = self.sign_state().state(&feed.id);
        // Without its sign-state an announced feed stays closed: the gate says so.
        let unknown = signed.is_none() && feed.applied.is_some();
        let recorded = signed.map_or(0, |signed| signed.epoch);
        if feed.stored == 0 || unknown || epoch <= applied.min(recorded) {
            return Ok(());
        }
        let gate = self.open_epoch(feed, epoch)?;
        match &gate {
            None => {
                info!(set = %name_of(feed), epoch, "the set goes on under a new epoch");
                let others = self.others_may_hold_more();
                let mut gates = self.gates();
                if let Some(Gate::Closed(_)) = gates.get(&feed.id) {
                    let gate = if others {
                        Gate::AwaitingPeers(Awaited::default())
                    } else {
                        Gate::Open
                    };
                    gates.insert(feed.id, gate);
                }
            }
            Some(gate) => {
                error!(set = %name_of(feed), epoch, why = gate.reason(), "publishing is closed");
                self.gates().insert(feed.id, gate.clone());
            }
        }
        Ok(())
    }

    /// Opens an epoch; answers why it cannot be.
    fn open_epoch(&self, feed: &FeedInfo, epoch: u32) -> Result<Option<Gate>, NodeError> {
        let roster = self.membership.roster()?;
        let opened = roster.roster().opened_after(feed.id, 0);
        let Some(named) = opened.iter().rfind(|opening| opening.next_epoch == epoch) else {
            return Ok(None);
        };
        let set = views::describe_of(feed).map(|describe| describe.name.set);
        let own = self.membership.own()?;
        let keys = self.membership.feed_keys(own, set.as_ref(), feed.id, epoch);
        if !keys.contains(&self.feed_key.load().public()) {
            return Ok(Some(Gate::Closed(format!(
                "the roster revoked a key of it and opened epoch {epoch}, for which this node's \
                 feed key may not sign: `hashpact keys rotate feed` makes a new one and publishes \
                 the node card that names it"
            ))));
        }
        if feed.stored < named.last_good_size {
            return Ok(Some(Gate::Behind {
                signed: named.last_good_size,
                held: feed.stored,
            }));
        }
        let root_at = |size| self.store.root_at(feed.no, size);
        let size = named.last_good_size;
        if Opening::decide(std::slice::from_ref(named), feed.stored, root_at)?
            != Opening::CutTo(size)
        {
            return Ok(Some(Gate::Closed(format!(
                "the roster opened epoch {epoch} at {size} leaves with another root than these \
                 leaves have; restore the leaves that the roster names"
            ))));
        }
        let mut session = self.session_unchecked(feed)?;
        let gone = session.writer.open_epoch_anew(epoch, size)?;
        if gone > 0 {
            warn!(
                set = %name_of(feed), void = gone,
                "leaves beyond what the roster names are cut off; publish what was good among them again"
            );
        }
        // Crash from here on: the sign-state file or the head lags behind, and the
        // next start opens the same epoch once more.
        let new = SignedState {
            epoch,
            size,
            root: named.last_good_root,
        };
        let range = self.store.frontier(feed.no, size)?;
        let recorded = self.sign_state().state(&feed.id);
        if recorded.is_none_or(|recorded| recorded.epoch < epoch) {
            self.sign_state()
                .open_epoch(&feed.id, new, &range)
                .map_err(|error| NodeError::Internal(error.to_string()))?;
        }
        let signed = self.sign_state().state(&feed.id).unwrap_or(new);
        if signed.size > size {
            // A store from before the epoch, beside the sign-state of after.
            return Ok(Some(Gate::Behind {
                signed: signed.size,
                held: size,
            }));
        }
        session.resign(new)?;
        self.hub.tell(Change::Access);
        Ok(None)
    }
}
