//! Too much at once: heads of feeds that there are not, each well signed, heads again and
//! again, evidence, cards, receipts.

use bytes::Bytes;
use hashpact_core::id::{Digest, FeedId};

use super::Kit;
use super::cast::Habit;
use super::fork::{note, told};
use crate::types::Announcement;

/// Announcements of one burst, to each of the others.
const BURST: u64 = 400;
/// Bursts of one member in a play.
const FLOODS_MAX: u32 = 2;

impl Kit {
    /// What a member floods all others with, this time; every announcement goes to all.
    pub(super) fn flood(&mut self, at: usize) -> Vec<Announcement> {
        let flooded = self.foes.get(&at).map_or(0, |foe| foe.flooded);
        if flooded >= FLOODS_MAX || !self.has(at, Habit::Flood) {
            return Vec::new();
        }
        if let Some(foe) = self.foes.get_mut(&at) {
            foe.flooded += 1;
        }
        self.count(Habit::Flood);
        let what = self.dice.below(4);
        let seed = self.seed;
        let mut of = |n: u64| match what {
            0 => {
                let feed = FeedId(Digest::of(&(n ^ self.dice.seed()).to_be_bytes()));
                let note = note(seed, at, feed, n + 1, Digest::of(&n.to_be_bytes()));
                Announcement::Head(Box::new(told(feed, at, note)))
            }
            1 => Announcement::Evidence(Bytes::from(vec![0x0a; 4_000])),
            2 => Announcement::NodeCard(Bytes::from(vec![0x0a; 8_000])),
            _ => {
                let feed = FeedId(Digest::of(b"one"));
                let note = note(seed, at, feed, 1, Digest::of(b"root"));
                let mut head = told(feed, at, note);
                head.receipts = vec![Bytes::from(vec![0x0a; 1_000]); 30];
                Announcement::Head(Box::new(head))
            }
        };
        (0..BURST).map(&mut of).collect()
    }
}
