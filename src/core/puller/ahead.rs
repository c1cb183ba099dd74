//! Heads above what is held: they wait here until the tree can be compared with them.
//!
//! ⚠ A publisher signs as many heads as it likes and tells them to whom it likes. So what
//! one peer says takes the room of no other peer: a reader that may not relay says a head
//! of a second history once, and is waited for however many heads of the first come.

use std::collections::BTreeMap;

use super::types::{Head, PeerId};

/// Peers of which heads wait, a feed: 64 members with 16 nodes.
const PEERS_MAX: usize = 1_024;

/// What waits of one feed: two heads of a peer at most.
#[derive(Debug, Default)]
pub(super) struct Ahead(BTreeMap<PeerId, Waiting>);

/// What one peer said. What lies between the two is in the newest one, or it is a fork
/// by itself; the first is waited for, so that a peer that grows faster is compared.
#[derive(Debug)]
struct Waiting {
    first: Head,
    newest: Option<Head>,
}

impl Ahead {
    /// Keeps a head until the cursor is past it. What is not kept may come again.
    pub(super) fn keep(&mut self, peer: PeerId, head: &Head) {
        if let Some(waiting) = self.0.get_mut(&peer) {
            waiting.keep(head);
        } else if self.0.len() < PEERS_MAX {
            let waiting = Waiting {
                first: head.clone(),
                newest: None,
            };
            self.0.insert(peer, waiting);
        }
    }

    /// Takes out what `cursor` leaves can be compared with, in order. What is of an epoch
    /// before `epoch` is void, and goes: PROTOCOL 14.3.
    pub(super) fn take(&mut self, epoch: u32, cursor: u64) -> Vec<Head> {
        let mut ready: Vec<Head> = Vec::new();
        for waiting in std::mem::take(&mut self.0) {
            let (peer, Waiting { first, newest }) = waiting;
            for head in [Some(first), newest].into_iter().flatten() {
                if head.epoch < epoch {
                    continue;
                }
                if head.size > cursor {
                    self.keep(peer, &head);
                } else {
                    ready.push(head);
                }
            }
        }
        ready.sort_by_key(|head| (head.rank(), head.root));
        ready.dedup_by(|one, other| one.is_same_as(other));
        ready
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Waiting {
    fn keep(&mut self, head: &Head) {
        if head.is_same_as(&self.first) {
            return;
        }
        if head.rank() < self.first.rank() {
            let first = std::mem::replace(&mut self.first, head.clone());
            self.newest.get_or_insert(first);
        } else if self
            .newest
            .as_ref()
            .is_none_or(|newest| newest.rank() <= head.rank())
        {
            self.newest = Some(head.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sim::{feed, head};
    use super::*;

    const ONE: PeerId = PeerId(1);

    fn sizes(heads: &[Head]) -> Vec<u64> {
        heads.iter().map(Head::size).collect()
    }

    #[test]
    fn of_a_peer_the_first_head_and_the_newest_wait() {
        let mut ahead = Ahead::default();
        for size in [40, 50, 60, 70] {
            ahead.keep(ONE, &head(feed(1), 0, size));
        }
        ahead.keep(PeerId(2), &head(feed(1), 0, 40));
        assert_eq!(sizes(&ahead.take(0, 39)), [0; 0]);
        assert_eq!(sizes(&ahead.take(0, 65)), [40], "of two peers, once");
        ahead.keep(ONE, &head(feed(1), 0, 66));
        assert_eq!(sizes(&ahead.take(0, 70)), [66, 70]);
        assert_eq!(sizes(&ahead.take(0, 1_000)), [0; 0]);
    }

    #[test]
    fn two_roots_of_one_size_both_wait() {
        let mut ahead = Ahead::default();
        for history in [0, 1] {
            ahead.keep(ONE, &head(feed(1), history, 6_000));
        }
        assert_eq!(sizes(&ahead.take(0, 6_000)), [6_000, 6_000]);
    }

    #[test]
    fn heads_of_a_closed_epoch_are_compared_with_nothing() {
        let mut ahead = Ahead::default();
        ahead.keep(ONE, &head(feed(1), 0, 40));
        ahead.keep(PeerId(2), &head(feed(1), 0, 90));
        assert_eq!(sizes(&ahead.take(2, 50)), [0; 0]);
        assert_eq!(sizes(&ahead.take(0, 100)), [0; 0], "nor later");
    }

    #[test]
    fn no_more_peers_are_waited_for_than_the_bound() {
        let mut ahead = Ahead::default();
        let many = 2 * u64::try_from(PEERS_MAX).unwrap();
        for peer in 0..many {
            ahead.keep(PeerId(peer), &head(feed(1), 0, 10 + peer));
        }
        assert_eq!(ahead.take(0, many * 2).len(), PEERS_MAX);
        ahead.keep(PeerId(many), &head(feed(1), 0, 10));
        assert_eq!(ahead.take(0, 10).len(), 1, "there is room again");
    }
}
