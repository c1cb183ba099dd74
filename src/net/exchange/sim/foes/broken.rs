//! Worlds in which something that must hold does not, so that each check is seen to fail.

use hashpact_core::id::{Digest, FeedId};
use hashpact_core::receipt::Receipt;
use hashpact_store::{FeedStatus, HeadRef, KeptReceipt};

use super::super::coalition::{self, BEGIN};
use super::super::world::World;
use super::cast::NODES;
use super::fork::number_of;
use super::words::signed;
use super::{Kit, Way};
use crate::types::Announcement;

/// What is broken about a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Broken {
    /// Feeds that are known to be forked are taken up again.
    Thawed,
    /// Three of the four witnesses cosign everything.
    Bench,
    /// Neither evidence nor heads of forked feeds get through among honest members.
    Silence,
    /// Somebody holds evidence against an honest feed that nobody checked.
    Framed,
    /// Nodes take in as much as anybody says.
    Unpaced,
    /// Heads of honest feeds do not get through to one member.
    Deaf,
    /// Nobody asks for the threshold of witnesses before it enforces.
    Careless,
    /// Publishers keep receipts that nobody checked.
    Believed,
}

/// Whether what was said gets lost on its way.
pub(super) fn loses(kit: &Kit, way: Way, said: &Announcement, is_fork: bool) -> bool {
    let honest = !kit.is_foe(way.other);
    match kit.broken {
        Some(Broken::Silence) => honest && (is_fork || matches!(said, Announcement::Evidence(_))),
        Some(Broken::Deaf) => {
            let first = (0..NODES).find(|at| !kit.is_foe(*at));
            Some(way.at) == first && matches!(said, Announcement::Head(_))
        }
        Some(
            Broken::Thawed
            | Broken::Bench
            | Broken::Framed
            | Broken::Unpaced
            | Broken::Careless
            | Broken::Believed,
        )
        | None => false,
    }
}

/// A member's word on a state of a feed that never was.
fn believed(kit: &Kit, feed: FeedId, of: usize, now: u64) -> KeptReceipt {
    let (number, now) = (number_of(of), BEGIN.plus(now));
    let said = Receipt {
        genesis: kit.genesis,
        member: coalition::member(number).unwrap(),
        node: coalition::node_name().unwrap(),
        feed,
        epoch: 0,
        size: 1,
        root: Digest::of(b"another history"),
        since: now,
        signed: now,
    };
    KeptReceipt {
        at: HeadRef {
            epoch: said.epoch,
            size: said.size,
            root: said.root,
        },
        member: said.member,
        node: said.node.clone(),
        since: now,
        signed: now,
        heard: now,
        compared: true,
        envelope: signed(&said, kit.seed, number),
    }
}

/// Breaks what is broken by hand, before a look.
pub(super) fn meddle(world: &World, kit: &Kit) {
    for (at, member) in world.members.iter().enumerate() {
        let Some(running) = member.run.as_ref().filter(|_| !kit.is_foe(at)) else {
            continue;
        };
        let store = running.node.store();
        for feed in store.feeds() {
            let forked = kit.forks.iter().any(|fork| fork.feed == feed.id);
            if forked && kit.broken == Some(Broken::Thawed) {
                store.set_feed_status(feed.no, FeedStatus::Active).unwrap();
            }
            if !forked && kit.broken == Some(Broken::Framed) {
                store.set_feed_status(feed.no, FeedStatus::Frozen).unwrap();
            }
            if !forked && feed.own && kit.broken == Some(Broken::Believed) {
                let of = (0..NODES).find(|other| *other != at && !kit.is_foe(*other));
                let said = believed(kit, feed.id, of.unwrap(), world.now);
                store.put_receipt(feed.no, &said, true).unwrap();
            }
        }
    }
}
