//! What the driver does about a publisher with two histories: it holds the feed and
//! seeks a proof.
//!
//! A fork can be known before anything of the feed lies in the store: told by others, or
//! while its first chunk is being stored. Then it is remembered here, and across a restart
//! by the evidence.

use std::collections::HashMap;

use hashpact_core::id::FeedId;
use hashpact_core::merkle;
use hashpact_core::puller::{Event, Growth, Head};
use hashpact_core::reject::Rejection;
use hashpact_store::{FeedNo, Store};

use super::driver::Driver;
use super::errand::Errand;
use super::pipeline::Pulled;
use super::{fork, storing};

/// Feeds that were found to be forked while nothing of them lay in the store.
#[derive(Default)]
pub(super) struct Unheld(HashMap<FeedId, Found>);

struct Found {
    /// The epoch that was open then.
    epoch: u32,
    /// Whether the puller knows.
    told: bool,
}

impl Driver {
    /// Forks as far as they are remembered: feeds that are not held are not pulled, and one
    /// that a crash left unfrozen is frozen.
    pub(super) fn remember_forks(&mut self) {
        let store = self.node.store();
        for fork in store.forks().unwrap_or_default() {
            let (feed, epoch) = (fork.feed, fork.epoch);
            if epoch != self.node.membership().epoch(feed) {
                continue;
            }
            match store.feed_no(&feed) {
                Some(no) => freeze(store, no),
                None => {
                    let told = false;
                    self.unheld.0.insert(feed, Found { epoch, told });
                }
            }
        }
    }

    /// ⚠ Nothing is pulled of a feed that was found to be forked before it was held.
    pub(super) fn keep_unheld(&mut self, feed: FeedId) {
        let Some(found) = self.unheld.0.get_mut(&feed).filter(|found| !found.told) else {
            return;
        };
        found.told = true;
        let Some(publisher) = self.publishers.get(&feed).copied() else {
            return;
        };
        self.tell(Event::FeedHeld {
            feed,
            publisher,
            cursor: 0,
            root: merkle::empty_root(),
            applied: None,
            growth: Growth::default(),
            frozen: true,
            elided: false,
            missing: Vec::new(),
        });
    }

    /// What was being stored when the fork was found lies in the store now.
    pub(super) fn freeze_stored(&mut self, feed: FeedId) {
        if self.unheld.0.remove(&feed).is_some() {
            self.freeze(feed);
            if let Some(held) = self.held_feed(&feed) {
                self.hold(&held);
            }
        }
    }

    /// The roster has opened another epoch of feeds that were never held: they begin anew.
    pub(super) fn unheld_epochs(&mut self) {
        let membership = self.node.membership();
        let opened = |(feed, found): (&FeedId, &Found)| {
            (membership.epoch(*feed) > found.epoch).then_some(*feed)
        };
        let opened: Vec<FeedId> = self.unheld.0.iter().filter_map(opened).collect();
        for feed in opened {
            self.unheld.0.remove(&feed);
            self.tell(Event::FeedGone { feed });
            self.again_later(feed);
        }
    }

    /// The feed stays as it was verified, and a proof is sought.
    pub(super) fn forked(
        &mut self,
        feed: FeedId,
        held: Option<Head>,
        offered: Head,
        chunk: Option<Box<Pulled>>,
        rejection: &Rejection,
    ) {
        let code = rejection.code();
        tracing::error!(feed = %feed.0.short(), size = offered.size(), code, "the publisher forked a feed");
        metrics::counter!("hashpact_forks_total").increment(1);
        self.freeze(feed);
        let Some(publisher) = self.publishers.get(&feed).copied() else {
            return;
        };
        let case = fork::Case {
            feed,
            publisher,
            held,
            offered,
            chunk,
        };
        self.errand(Errand::Prove(Box::new(case)));
    }

    pub(super) fn freeze(&mut self, feed: FeedId) {
        let store = self.node.store();
        if let Some(no) = store.feed_no(&feed) {
            freeze(store, no);
        } else {
            let epoch = self.node.membership().epoch(feed);
            let told = false;
            self.unheld.0.insert(feed, Found { epoch, told });
        }
        self.desk(feed, storing::Order::Rest);
        self.witness_forked(feed);
    }
}

fn freeze(store: &Store, no: FeedNo) {
    if let Err(error) = store.freeze_feed(no) {
        tracing::error!(%error, code = error.code(), "freezing a feed");
    }
}
