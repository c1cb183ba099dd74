//! New epochs of feeds, as the roster opens them.
//!
//! A revocation cuts a feed off at the size and root that it names; the next epoch
//! extends exactly that. Here the leaves beyond go, a frozen feed thaws, and heads and
//! evidence that came before the roster, or while leaves are cut off, are heard again.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use hashpact_core::checkpoint::SignedCheckpoint;
use hashpact_core::id::{FeedId, MemberNumber};
use hashpact_core::puller::{Event, Head, PeerId};
use hashpact_core::reject::Rejection;
use hashpact_core::roster::Opening;
use hashpact_core::verified::Verified;
use hashpact_node::hub::Change;
use hashpact_node::{Node, NodeError};
use hashpact_store::{FeedInfo, FeedStatus, FeedWriter, ForkName};

use super::driver::Driver;
use super::errand::Errand;
use super::pipeline::NO_FEED_KEY;
use super::storing;
use crate::types;

/// Heads of one peer that wait for a roster, of 4 KiB at most each.
const LATER_PER_PEER: usize = 256;
/// Heads of all peers that do.
const LATER_MAX: usize = 4_096;

/// Pieces of evidence of one member's nodes that wait for a roster, and as many for a card.
const PROOFS_PER_MEMBER: usize = 16;
/// Pieces of all that wait for either.
const PROOFS_MAX: usize = 256;
/// Bytes of a piece that waits: two notes, a proof and some cards.
const PROOF_MAX_BYTES: usize = 64 * 1024;

/// Evidence that waits.
struct Waiting {
    /// Whose node said it.
    member: MemberNumber,
    what: Lacks,
    evidence: Bytes,
}

/// What evidence waits for; each has places of its own, so that neither takes the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lacks {
    Roster,
    Card,
}

/// What new epochs wait for.
#[derive(Default)]
pub(super) struct Epochs {
    /// Heads of epochs that are not open here yet, without what stood beside them.
    later: BTreeMap<(PeerId, FeedId), types::Head>,
    /// Evidence of forks in such epochs, or by keys that no card held here has.
    proofs: BTreeMap<(PeerId, FeedId), Waiting>,
    /// Feeds that a desk is moving to another epoch.
    opening: HashSet<FeedId>,
    /// Feeds that a desk failed to move.
    failed: HashSet<FeedId>,
}

impl Epochs {
    /// Whose heads of which feeds wait.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &(PeerId, FeedId)> {
        self.later.keys()
    }
}

/// What made a feed move to its newest epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The roster: what is of another history than it names stays, frozen.
    Roster,
    /// A verified head of the epoch: what is of another history goes.
    Head,
    /// What is held does not lead to such a head: it goes, unless it is what the
    /// roster names. Then the publisher does not go on from there.
    Conflict,
}

impl Epochs {
    /// Forgets the heads of a peer that is gone for ever.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.later.retain(|(of, _), _| *of != peer);
        self.proofs.retain(|(of, _), _| *of != peer);
    }

    /// Keeps evidence until its epoch is open here, or its key is known; of each peer the
    /// newest piece for each feed.
    pub(super) fn prove_later(
        &mut self,
        (peer, member): (PeerId, MemberNumber),
        feed: FeedId,
        (what, evidence): (Lacks, &Bytes),
    ) {
        let alike = |one: &&Waiting| one.what == what;
        let all = self.proofs.values().filter(alike);
        let of_member = all.clone().filter(|one| one.member == member).count();
        let is_room = of_member < PROOFS_PER_MEMBER && all.count() < PROOFS_MAX;
        let fits = evidence.len() <= PROOF_MAX_BYTES;
        let is_newer = self
            .proofs
            .get(&(peer, feed))
            .is_some_and(|held| held.what == what);
        if fits && (is_room || is_newer) {
            let waiting = Waiting {
                member,
                what,
                evidence: evidence.clone(),
            };
            self.proofs.insert((peer, feed), waiting);
        }
    }
}

impl Driver {
    /// Takes all feeds to the epochs that the roster has opened, own ones too, and
    /// hears heads again that waited for it.
    pub(super) fn epochs_changed(&mut self) {
        self.errand(Errand::OpenOwnEpochs);
        for feed in self.node.store().feeds() {
            let open = self.node.membership().epoch(feed.id);
            if !feed.own && feed.status != FeedStatus::Dropping && open > feed.epoch {
                self.open_epoch(feed.id, Why::Roster);
            }
        }
        self.unheld_epochs();
        self.prove_again();
        self.hear_again(|_| true);
    }

    /// What waited is looked at again; what must wait on does.
    fn prove_again(&mut self) {
        for ((peer, feed), waiting) in std::mem::take(&mut self.epochs.proofs) {
            if let Err(error) = self.evidence(Some(peer), &waiting.evidence) {
                let feed = feed.0.short();
                tracing::debug!(%feed, %error, code = error.code(), "evidence that waited");
            }
        }
    }

    /// A desk could not do what it was to do: moving a feed is tried again from time to time.
    pub(super) fn open_failed(&mut self, feed: FeedId) {
        if self.epochs.opening.remove(&feed) {
            self.epochs.failed.insert(feed);
        }
    }

    pub(super) fn open_again(&mut self) {
        for feed in std::mem::take(&mut self.epochs.failed) {
            // It may have been dropped meanwhile.
            if self.held_feed(&feed).is_some() {
                self.open_epoch(feed, Why::Roster);
            }
        }
    }

    /// Whether a verified head has to wait until its feed has been moved to its
    /// epoch; a feed that stays behind is moved because of it.
    pub(super) fn awaits_epoch(&mut self, held: Option<&FeedInfo>, epoch: u32) -> bool {
        let Some(held) = held.filter(|held| !held.own) else {
            return false;
        };
        if held.stored > 0 && held.epoch < epoch {
            self.open_epoch(held.id, Why::Head);
        }
        self.epochs.opening.contains(&held.id)
    }

    /// Whether a head that does not extend what is held is of a later epoch than
    /// that: the roster chose another history, and it is pulled from the start.
    pub(super) fn goes_on_elsewhere(&mut self, basis: Option<&Head>, offered: &Head) -> bool {
        let older = basis.is_none_or(|basis| basis.epoch() < offered.epoch());
        if offered.epoch() == 0 || !older {
            return false;
        }
        self.open_epoch(offered.feed(), Why::Conflict);
        true
    }

    fn open_epoch(&mut self, feed: FeedId, why: Why) {
        if !self.epochs.opening.insert(feed) {
            return;
        }
        // Nothing is pulled until the desk has done it.
        self.tell(Event::ForkFound { feed });
        self.again_later(feed);
        self.desk(feed, storing::Order::OpenEpoch(why));
    }

    /// Heads of the open epoch that peers announced already are heard again after.
    pub(super) fn again_later(&mut self, feed: FeedId) {
        let open = self.node.membership().epoch(feed);
        let mut again = Vec::new();
        self.announced.retain(|(peer, of), head| {
            if *of == feed && head.epoch() == open {
                again.push((*peer, head.note().clone()));
            }
            *of != feed
        });
        let Some(publisher) = self.publishers.get(&feed).copied() else {
            return;
        };
        for (peer, note) in again {
            let said = types::Head {
                feed,
                publisher,
                note,
                cosignatures: Vec::new(),
                receipts: Vec::new(),
            };
            self.hear_later(peer, said);
        }
    }

    /// A desk has moved a feed: it is pulled again, if it is not frozen still.
    pub(super) fn epoch_opened(&mut self, feed: FeedId) {
        self.epochs.opening.remove(&feed);
        if let Some(held) = self.held_feed(&feed) {
            self.hold(&held);
        }
        self.access_changed();
        self.hear_again(|of| *of == feed);
    }

    /// Keeps a head until its epoch is open here.
    pub(super) fn hear_later(&mut self, peer: PeerId, head: types::Head) {
        let key = (peer, head.feed);
        let later = &mut self.epochs.later;
        let of_peer = later.keys().filter(|(of, _)| *of == peer).count();
        let full = of_peer >= LATER_PER_PEER || later.len() >= LATER_MAX;
        if !full || later.contains_key(&key) {
            let head = types::Head {
                cosignatures: Vec::new(),
                receipts: Vec::new(),
                ..head
            };
            later.insert(key, head);
        }
    }

    fn hear_again(&mut self, which: impl Fn(&FeedId) -> bool) {
        let open = |feed: &FeedId| !self.epochs.opening.contains(feed) && which(feed);
        let ready: Vec<_> = self
            .epochs
            .later
            .keys()
            .filter(|(_, feed)| open(feed))
            .copied()
            .collect();
        for key in ready {
            if let Some(head) = self.epochs.later.remove(&key) {
                self.head(key.0, head);
            }
        }
    }
}

/// Whether a head that was refused may hold once a roster or card has come that the
/// peer has already.
pub(super) fn may_hold_later(rejection: &Rejection) -> bool {
    if let Rejection::WrongEpoch { open, got } = rejection {
        return got > open;
    }
    matches!(rejection, Rejection::Unknown { what, .. } if *what == NO_FEED_KEY)
}

/// Moves a pulled feed to its newest epoch. Blocking.
///
/// # Errors
/// What the store answers.
pub(crate) fn open(node: &Node, writer: &mut FeedWriter, why: Why) -> Result<(), NodeError> {
    let stored = writer.sync()?;
    let feed = writer.info();
    let roster = node.membership().roster()?;
    let epoch = roster.roster().epoch(feed.id);
    if why != Why::Conflict && feed.epoch >= epoch {
        return Ok(()); // asked for twice
    }
    let forked = feed.stored > 0 && is_forked(node, &feed, epoch)?;
    let opened = roster.roster().opened_after(feed.id, 0);
    let relevant = match (why, opened.as_slice()) {
        (Why::Conflict, [.., newest]) => std::slice::from_ref(newest),
        (Why::Conflict, []) => return Ok(()),
        (Why::Roster | Why::Head, all) => {
            let first = all.iter().position(|r| r.next_epoch > feed.epoch);
            first.and_then(|first| all.get(first..)).unwrap_or_default()
        }
    };
    let root_at = |size| node.store().root_at(feed.no, size);
    let cut = match (Opening::decide(relevant, stored, root_at)?, why) {
        // ⚠ Too little is held to compare it with what the roster names, and the publisher
        // has two histories: these leaves may be of the other one.
        (Opening::Keep, Why::Roster) if forked => {
            tracing::error!(
                feed = %feed.id.0.short(), epoch, size = stored,
                "less is held of a forked feed than the roster names: frozen until the new \
                 epoch's leaves can be pulled"
            );
            node.store().freeze_feed(feed.no)?;
            return Ok(());
        }
        (Opening::Keep, Why::Head) if forked => 0,
        (Opening::Keep, Why::Roster | Why::Head) => stored,
        (Opening::CutTo(size), Why::Roster | Why::Head) => size,
        (Opening::Keep | Opening::Other, Why::Conflict) | (Opening::Other, Why::Head) => 0,
        (Opening::Other, Why::Roster) => {
            tracing::error!(
                feed = %feed.id.0.short(), epoch,
                "the roster goes on from another history than is held here: frozen until the \
                 new epoch's leaves can be pulled"
            );
            node.store().freeze_feed(feed.no)?;
            return Ok(());
        }
        (Opening::CutTo(size), Why::Conflict) => {
            tracing::error!(
                feed = %feed.id.0.short(), epoch, size,
                "the publisher does not go on from the leaves that the roster names: frozen"
            );
            node.store().freeze_feed(feed.no)?;
            return Ok(());
        }
    };
    let good = relevant.iter().map(|named| named.last_good_size).min();
    // What froze the feed is over; so is what ended its grant, if that is cut off.
    let good = good.unwrap_or(cut);
    let ended = feed.leaving.is_some_and(|leaving| leaving.index < good);
    let void = if ended {
        writer.open_epoch(epoch, cut)?
    } else {
        writer.open_epoch_anew(epoch, cut)?
    };
    let doubted = node.store().doubted(feed.no)?;
    tracing::warn!(
        feed = %feed.id.0.short(), epoch, void, doubted, size = cut,
        "the roster opened a new epoch of a feed: void leaves are cut off"
    );
    node.hub().tell(Change::Head(feed.id));
    node.hub().tell(Change::Access);
    Ok(())
}

/// Whether the publisher is known to have forked a feed in an epoch before `epoch`.
fn is_forked(node: &Node, feed: &FeedInfo, epoch: u32) -> Result<bool, NodeError> {
    if feed.status == FeedStatus::Frozen {
        return Ok(true);
    }
    for epoch in feed.epoch..epoch {
        let fork = ForkName {
            feed: feed.id,
            epoch,
        };
        if node.store().knows_fork(feed.publisher, &fork)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a head is the first of a later epoch than the first that takes effect.
pub(crate) fn begins(feed: &FeedInfo, head: &Verified<SignedCheckpoint>) -> bool {
    let epoch = head.checkpoint.origin.epoch;
    epoch > 0 && feed.applied.is_none_or(|applied| applied.epoch != epoch)
}

/// Whether the leaves below the first head of an epoch contain what the roster
/// names. Later heads extend that head. Blocking.
///
/// # Errors
/// What the store answers.
pub(crate) fn extends_named(
    node: &Node,
    writer: &mut FeedWriter,
    head: &Verified<SignedCheckpoint>,
) -> Result<bool, NodeError> {
    writer.sync()?;
    let (feed, epoch) = (writer.info(), head.checkpoint.origin.epoch);
    let roster = node.membership().roster()?;
    for named in roster.roster().revocations_of(feed.id) {
        let within = named.next_epoch <= epoch && named.last_good_size <= head.size();
        if within && node.store().root_at(feed.no, named.last_good_size)? != named.last_good_root {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Leaves of a head that does not extend what the roster names go again, and the
/// feed is frozen as it was. Blocking.
///
/// # Errors
/// What the store answers.
pub(crate) fn give_up(
    node: &Node,
    writer: &mut FeedWriter,
    before: &FeedInfo,
) -> Result<(), NodeError> {
    tracing::error!(
        feed = %before.id.0.short(),
        "a head of a new epoch does not extend what the roster names: refused, and the feed frozen"
    );
    metrics::counter!("hashpact_rejections_total", "code" => "not_an_extension").increment(1);
    let size = before.applied.map_or(0, |applied| applied.size);
    writer.open_epoch(before.epoch, size)?;
    node.store().freeze_feed(before.no)?;
    Ok(())
}
