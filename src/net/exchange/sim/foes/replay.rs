//! What was true once: old heads with the cosignatures and receipts of their time, and old
//! node cards.

use super::super::coalition::{BEGIN, CardPlan, Coalition};
use super::cast::{Habit, NODES};
use super::fork::number_of;
use super::{Kit, Way};
use crate::types::{Announcement, Head, RosterItem};

/// What is kept of what went by, of one member.
const TAPE_MAX: usize = 64;

impl Kit {
    /// Keeps what a hostile member hears and says.
    pub(super) fn tape(&mut self, at: usize, said: &Announcement) {
        if let Announcement::Head(head) = said {
            let Some(foe) = self.foes.get_mut(&at) else {
                return;
            };
            // Every third is thrown out once it is full, so that old ones stay.
            if foe.tape.len() >= TAPE_MAX {
                let mut n = 0;
                foe.tape.retain(|_| {
                    n += 1;
                    n % 3 != 0
                });
            }
            foe.tape.push((**head).clone());
        }
    }

    /// An old head in place of a newer one, or beside it.
    pub(super) fn old_heads(&mut self, way: Way, said: &Announcement) -> Vec<Announcement> {
        let Announcement::Head(newer) = said else {
            return Vec::new();
        };
        if !self.does(way.at, Habit::Replay, 400) {
            return Vec::new();
        }
        let tape = &self.foes[&way.at].tape;
        let of_feed = tape.iter().filter(|old| old.feed == newer.feed);
        let of_feed: Vec<Head> = of_feed.cloned().collect();
        let mut old = self.dice.some(&of_feed, 2);
        // Cosignatures and receipts of another time beside it.
        if let [one, other] = &mut old[..] {
            std::mem::swap(&mut one.cosignatures, &mut other.cosignatures);
            std::mem::swap(&mut one.receipts, &mut other.receipts);
        }
        let heads = old.into_iter();
        heads
            .map(|head| Announcement::Head(Box::new(head)))
            .collect()
    }

    /// Cards of versions that are over, one of them with another's signatures.
    pub(super) fn old_cards(&mut self, at: usize, coalition: &Coalition) -> Vec<Announcement> {
        if !self.has(at, Habit::Replay) {
            return Vec::new();
        }
        self.count(Habit::Replay);
        let whose = usize::try_from(self.dice.below(NODES as u64)).unwrap();
        let plan = CardPlan {
            version: 1,
            listens: true,
            tls: vec![0],
            feed: vec![0],
        };
        let card = coalition.card(number_of(whose), &plan, BEGIN).unwrap();
        vec![Announcement::NodeCard(card)]
    }

    /// Roster, cards and suspensions, some twice and in another order.
    pub(super) fn old_papers(&mut self, way: Way, papers: Vec<RosterItem>) -> Vec<RosterItem> {
        if papers.is_empty() || !self.does(way.at, Habit::Replay, 500) {
            return papers;
        }
        let again = self.dice.some(&papers, papers.len() / 2);
        let mut papers = papers;
        papers.extend(again);
        papers
    }
}
