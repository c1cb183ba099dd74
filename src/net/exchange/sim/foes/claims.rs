//! What others are to have signed: heads of their feeds under a key of one's own, feeds of
//! theirs that there are not, cards of theirs.

use hashpact_core::id::{Digest, FeedId};

use super::super::coalition::{BEGIN, CardPlan, Coalition};
use super::super::world::World;
use super::Kit;
use super::cast::{Habit, NODES};
use super::fork::{note, number_of, told};
use crate::types::Announcement;

impl Kit {
    /// What a member says in others' names.
    pub(super) fn claims(&mut self, at: usize, world: &World) -> Vec<Announcement> {
        if !self.has(at, Habit::Claim) {
            return Vec::new();
        }
        let honest: Vec<usize> = (0..NODES).filter(|one| !self.is_foe(*one)).collect();
        let sets: Vec<_> = world
            .sets
            .iter()
            .filter(|set| honest.contains(&set.publisher))
            .collect();
        let (Some(set), Some(whom)) = (
            self.dice.some(&sets, 1).pop(),
            self.dice.some(&honest, 1).pop(),
        ) else {
            return Vec::new();
        };
        let root = Digest::of(&self.dice.seed().to_be_bytes());
        let size = self.dice.between(1, 1_000);
        let feed = set.feed;
        let unknown = FeedId(Digest::of(&self.dice.seed().to_be_bytes()));
        let head = |head| Announcement::Head(Box::new(head));
        let seed = self.seed;
        self.count(Habit::Claim);
        vec![
            // Another's feed, signed by who says it.
            head(told(feed, set.publisher, note(seed, at, feed, size, root))),
            // The same, as its own.
            head(told(feed, at, note(seed, at, feed, size, root))),
            // A feed of another's that there is not.
            head(told(unknown, whom, note(seed, at, unknown, size, root))),
            // One of its own that there is not: nobody can serve it.
            head(told(unknown, at, note(seed, at, unknown, size, root))),
            Announcement::NodeCard(card(at, whom, &world.coalition)),
            Announcement::Head(Box::new(cut(told(
                feed,
                set.publisher,
                note(seed, at, feed, size, root),
            )))),
        ]
    }
}

/// A newer card of somebody's, signed by another, who would be the member with it.
fn card(at: usize, whose: usize, coalition: &Coalition) -> bytes::Bytes {
    let plan = CardPlan {
        version: 99,
        listens: true,
        tls: vec![0],
        feed: vec![0],
    };
    let (signer, number) = (number_of(at), number_of(whose));
    coalition.card_by(signer, number, &plan, BEGIN).unwrap()
}

/// A head whose note ends early.
fn cut(mut head: crate::types::Head) -> crate::types::Head {
    head.note = head.note.slice(..head.note.len() / 2);
    head
}
