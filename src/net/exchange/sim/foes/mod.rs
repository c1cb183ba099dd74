//! Hostile members in a simulated coalition: seven nodes and four witnesses, of which
//! some lie.
//!
//! Everybody's node is real. A hostile member's connections, greetings and documents are
//! its node's too; what it announces and serves goes through [`Kit`], which adds, changes
//! and leaves out by what the seed made of the member ([`cast`]). Members that are
//! hostile know each other, and all keys of each other.
//!
//! | what they do | place |
//! |---|---|
//! | two histories of one feed, for groups of readers, mixed in pulls | [`fork`] |
//! | witnesses that cosign both | [`fork`] |
//! | withheld, cut, changed and elided leaves | [`serving`] |
//! | old heads, cards, cosignatures, receipts | [`replay`] |
//! | what others are to have signed | [`claims`] |
//! | made-up evidence | [`frame`] |
//! | receipts of what nobody holds | [`words`] |
//! | too much of all that | [`flood`] |
//!
//! What must hold whatever they do stands in [`invariants`]; [`broken`] has worlds in
//! which it does not, so that each check is seen to fail.

mod bounds;
mod broken;
mod cast;
mod claims;
mod flood;
mod fork;
mod frame;
mod invariants;
mod play;
mod replay;
mod serving;
mod tests;
mod words;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use hashpact_core::id::{CoalitionName, Digest};

use super::dice::Dice;
use super::meddling::{Meddler, Served, Way};
use crate::types::{Announcement, ChunkParts, PullPart, PullRequest, RosterItem};
use cast::{Foe, Habit};
use fork::Fork;

/// All that hostile members share.
struct Kit {
    seed: u64,
    genesis: Digest,
    dice: Dice,
    /// Whether they lie at present.
    hostile: bool,
    foes: BTreeMap<usize, Foe>,
    forks: Vec<Fork>,
    /// How often something was done, so that it is known that it was.
    did: BTreeMap<Habit, u64>,
    /// What is broken about the world, to see that a check fails.
    broken: Option<broken::Broken>,
}

/// The kit as the world asks it.
struct Hook(pub(super) Rc<RefCell<Kit>>);

impl Meddler for Hook {
    fn says(&mut self, way: Way, said: Vec<Announcement>) -> Vec<Announcement> {
        self.0.borrow_mut().says(way, said)
    }

    fn hears(&mut self, way: Way, said: &Announcement) -> bool {
        self.0.borrow_mut().hears(way, said)
    }

    fn answers(&mut self, way: Way, request: &PullRequest) -> Served {
        self.0.borrow_mut().answers(way, request)
    }

    fn serves(&mut self, way: Way, request: &PullRequest, chunk: ChunkParts) -> Vec<PullPart> {
        self.0.borrow_mut().serves(way, request, chunk)
    }

    fn papers(&mut self, way: Way, papers: Vec<RosterItem>) -> Vec<RosterItem> {
        self.0.borrow_mut().old_papers(way, papers)
    }
}

impl Kit {
    /// Whether a member is hostile in this play, lying at present or not.
    fn is_foe(&self, at: usize) -> bool {
        self.foes.contains_key(&at)
    }

    /// Whether a member lies in this way at present.
    fn has(&self, at: usize, habit: Habit) -> bool {
        let foe = self.foes.get(&at).filter(|_| self.hostile);
        foe.is_some_and(|foe| foe.habits.contains(&habit))
    }

    /// Whether a member that lies in this way is to do so this time.
    fn tries(&mut self, at: usize, habit: Habit, per_mille: u64) -> bool {
        self.has(at, habit) && self.dice.happens(per_mille)
    }

    /// The same, and counts it: where what it then does always changes something.
    fn does(&mut self, at: usize, habit: Habit, per_mille: u64) -> bool {
        let does = self.tries(at, habit, per_mille);
        if does {
            self.count(habit);
        }
        does
    }

    fn count(&mut self, habit: Habit) {
        *self.did.entry(habit).or_default() += 1;
    }

    fn says(&mut self, way: Way, said: Vec<Announcement>) -> Vec<Announcement> {
        if !self.is_foe(way.at) || !self.hostile {
            return said;
        }
        let mut told = Vec::new();
        for mut one in said {
            self.tape(way.at, &one);
            if one == Announcement::SnapshotEnd {
                told.extend(self.forks_for(way));
            }
            if let Announcement::Head(head) = &mut one {
                self.words(way, head);
                if self.does(way.at, Habit::Withhold, 200) {
                    continue;
                }
            }
            let old = self.old_heads(way, &one);
            told.push(one);
            told.extend(old);
        }
        told
    }

    fn hears(&mut self, way: Way, said: &Announcement) -> bool {
        self.tape(way.at, said);
        // A hostile publisher's node knows nothing of the feeds that it forks.
        let is_fork = if let Announcement::Head(head) = said {
            self.forks.iter().any(|fork| fork.feed == head.feed)
        } else {
            false
        };
        let deaf = self.is_foe(way.at) && (is_fork || matches!(said, Announcement::Evidence(_)));
        !deaf && !broken::loses(self, way, said, is_fork)
    }

    fn answers(&mut self, way: Way, request: &PullRequest) -> Served {
        if !self.is_foe(way.at) {
            return Served::Truth;
        }
        if let Some(served) = self.serve_fork(way, request) {
            return served;
        }
        self.withheld(way)
    }

    fn serves(&mut self, way: Way, request: &PullRequest, chunk: ChunkParts) -> Vec<PullPart> {
        if !self.is_foe(way.at) {
            return vec![PullPart::Chunk(chunk)];
        }
        self.tampered(way, request, chunk)
    }
}

fn coalition_name() -> CoalitionName {
    CoalitionName::parse("sim.example").unwrap()
}
