//! What a peer is to be told next.

use std::collections::{HashSet, VecDeque};

use hashpact_core::id::{FeedId, MemberNumber};
use hashpact_store::ForkName;

/// One thing to look at, and to tell of if the member may hear it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Work {
    Roster,
    Card(MemberNumber),
    Suspensions,
    Feed(FeedId),
    /// Evidence of forks, from after one of them on.
    Evidence(Option<ForkName>),
    EvidenceOf(FeedId),
    Equivocations,
    Overdue,
    SnapshotEnd,
}

/// Work in order, each once.
#[derive(Debug, Default)]
pub(super) struct Queue {
    order: VecDeque<Work>,
    waiting: HashSet<Work>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(super) fn push(&mut self, work: Work) {
        if self.waiting.insert(work) {
            self.order.push_back(work);
        }
    }

    /// What is to be told before all that waits.
    pub(super) fn push_first(&mut self, work: Work) {
        if self.waiting.insert(work) {
            self.order.push_front(work);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Work> {
        let work = self.order.pop_front()?;
        self.waiting.remove(&work);
        Some(work)
    }
}
