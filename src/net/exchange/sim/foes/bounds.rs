//! The fifth invariant: what honest members take in, keep and say stays bounded.

use std::collections::BTreeMap;

use super::super::world::World;
use super::Kit;
use super::play::{DOCUMENTS, FEEDS_MAX, HEADS};

/// Messages of one honest member, of all sorts, for each change of a feed and each other
/// member: the head, told at both ends of a connection and again with each cosignature and
/// receipt that comes, and a pull of it.
const MESSAGES_PER_CHANGE: u64 = 4;
/// The same for each second and each other member: signs of life, cosignatures renewed.
const MESSAGES_PER_SECOND: u64 = 1;
/// The same for each hostile member, whatever that does: connections that are made anew,
/// pulls that are tried again.
const MESSAGES_PER_FOE: u64 = 1_000;
/// What a message has at most on average, in bytes.
const BYTES_PER_MESSAGE: u64 = 1_500;

/// What was let in by when.
#[derive(Default)]
pub(super) struct Bounds {
    looked: u64,
    let_in: BTreeMap<(usize, usize), u64>,
}

impl Bounds {
    pub(super) fn begin(&mut self, world: &World) {
        self.looked = world.now;
        self.let_in = world.pacing.let_in().clone();
    }

    /// What is beyond its bound since the last look.
    pub(super) fn look(&mut self, world: &World, kit: &Kit) -> Vec<String> {
        let mut wrong = self.rates(world);
        let feeds = world.sets.len() + kit.foes.len() * FEEDS_MAX;
        for (at, member) in world.members.iter().enumerate() {
            let Some(running) = member.run.as_ref().filter(|_| !kit.is_foe(at)) else {
                continue;
            };
            let (driver, store) = (&running.driver, running.node.store());
            let known = driver.publishers.len();
            if known > feeds {
                wrong.push(format!("{} knows {known} feeds", member.slug));
            }
            if driver.announced.len() > known * world.members.len() {
                wrong.push(format!("{} remembers too many heads", member.slug));
            }
            if store.evidence().unwrap().len() > kit.forks.len() {
                wrong.push(format!("{} keeps a fork twice", member.slug));
            }
            for feed in store.feeds() {
                let receipts = store.receipts(feed.no, None).unwrap().len();
                if receipts > world.members.len() {
                    wrong.push(format!("{} keeps {receipts} receipts", member.slug));
                }
            }
        }
        wrong
    }

    /// Who let in more of somebody than its rate.
    fn rates(&mut self, world: &World) -> Vec<String> {
        let seconds = (world.now - self.looked).div_ceil(1_000);
        let most = |(rate, burst): (u32, u32)| u64::from(rate) * seconds + u64::from(burst);
        let most = most(HEADS) + most(DOCUMENTS);
        let now = world.pacing.let_in().clone();
        let mut wrong = Vec::new();
        for (pair, count) in &now {
            let new = count - self.let_in.get(pair).copied().unwrap_or_default();
            if new > most {
                let (at, other) = pair;
                wrong.push(format!(
                    "{at} let {new} announcements of {other} in at once"
                ));
            }
        }
        (self.looked, self.let_in) = (world.now, now);
        wrong
    }
}

/// Who said more than follows from what was published, and a little for each hostile member.
pub(super) fn traffic(world: &World, kit: &Kit, (since, changes): (u64, u64)) -> Vec<String> {
    let others = world.members.len() as u64 - 1;
    let seconds = (world.now - since) / 1_000;
    let messages = (changes * MESSAGES_PER_CHANGE + seconds * MESSAGES_PER_SECOND) * others
        + kit.foes.len() as u64 * MESSAGES_PER_FOE;
    let mut wrong = Vec::new();
    for (at, spent) in world.cost.each().iter().enumerate() {
        if kit.is_foe(at) {
            continue;
        }
        if spent.messages > messages || spent.bytes > messages * BYTES_PER_MESSAGE {
            wrong.push(format!(
                "5: {at} sent {} messages of {} bytes, {messages} are the bound",
                spent.messages, spent.bytes
            ));
        }
    }
    wrong
}
