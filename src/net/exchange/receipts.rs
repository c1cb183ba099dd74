//! Receipts: heard from peers, made here, and told to whom.
//!
//! A node tells its own newest word on a feed to everybody who may read it. A publisher's
//! word goes on from reader to reader, since it dates the head; everybody else's goes on
//! to the publisher alone, who may not reach the node that gave it, and back to the
//! member that gave it, whose store may be a restored one. Witnesses that read nothing
//! hear none: who acts on what is no business of theirs.
//!
//! What is heard is verified before it is kept or told on, and what is no newer than what
//! is kept costs no signature check.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use hashpact_core::envelope::{Envelope, PayloadType};
use hashpact_core::id::{FeedId, MemberNumber, Slug, UnixMillis};
use hashpact_core::limits::RECEIPTS_MAX;
use hashpact_core::puller::PeerId;
use hashpact_core::receipt::{self, Receipt};
use hashpact_core::reject::Rejection;
use hashpact_core::roster::RosterChain;
use hashpact_node::NodeError;
use hashpact_node::hub::Change;
use hashpact_store::{FeedInfo, HeadRef, KeptReceipt, Store, StoreError};

use super::driver::Driver;
use super::reach::Reach;
use super::rejections::is_stale;
use crate::types;

/// Refusals of one announcement after which the rest is not looked at.
const REFUSED_MAX: usize = 16;
/// Between looks at whose receipts are overdue.
const LOOK_MS: u64 = 5_000;

/// What the driver remembers of receipts.
#[derive(Default)]
pub(super) struct Receipts {
    /// Feeds of which something was heard that is to be told on.
    to_tell: BTreeSet<FeedId>,
    looked: UnixMillis,
}

impl Driver {
    /// Takes in the receipts that a peer says beside a verified head.
    pub(super) fn receipts_heard(&mut self, peer: PeerId, announced: &types::Head) {
        let mut refused = 0_usize;
        let said = newest_words(announced.receipts.iter().take(RECEIPTS_MAX));
        for word in said {
            let taken = word.map_err(NodeError::from).and_then(|(said, bytes)| {
                self.receipt(announced.feed, announced.publisher, said, bytes)
            });
            match taken {
                Ok(true) => {
                    self.receipts.to_tell.insert(announced.feed);
                }
                Ok(false) => {}
                // Whoever lags behind says what is known; so does a liar, to no effect.
                Err(NodeError::Rejected(rejection)) if is_stale(&rejection) => {
                    metrics::counter!("hashpact_receipts_older_total").increment(1);
                }
                Err(NodeError::Rejected(rejection)) => {
                    self.note_rejected(peer, Some(announced.feed), &rejection);
                    refused = refused.saturating_add(1);
                    if refused >= REFUSED_MAX {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, code = error.code(), "keeping a receipt");
                    return;
                }
            }
        }
    }

    /// Verifies one receipt and keeps it, if it is its node's newest word.
    fn receipt(
        &self,
        feed: FeedId,
        publisher: MemberNumber,
        said: Receipt,
        bytes: &Bytes,
    ) -> Result<bool, NodeError> {
        if said.feed != feed {
            return Err(Rejection::invalid("receipt", "it is of another feed").into());
        }
        let store = self.node.store();
        let held = self.held_feed(&feed);
        if let Some(held) = &held
            && let Some(kept) = store.receipt(held.no, said.member, &said.node)?
        {
            if kept.envelope == *bytes {
                return Ok(false);
            }
            if kept.signed >= said.signed {
                return Err(Rejection::VersionGap {
                    what: "receipt",
                    held: kept.signed.0,
                    got: said.signed.0,
                }
                .into());
            }
        }
        let (membership, now) = (self.node.membership(), self.node.clock().now());
        let state = membership.state();
        let keys = |member, name: &Slug| {
            let roster = state.chain.as_ref().map(RosterChain::roster);
            let card = roster.and_then(|roster| state.cards.current(member, roster, now));
            let node = card.and_then(|card| card.card().node(name));
            node.map(|node| node.receipt_keys.clone())
                .unwrap_or_default()
        };
        let verified = receipt::verify(bytes.clone(), &membership.genesis(), now, keys)?;
        self.check_reader(feed, said.member)?;
        let is_own_word =
            membership.own().ok() == Some(said.member) && said.node == *self.node.name();
        if is_own_word {
            // What this node says next is newer than whatever it said.
            let at = state_of(&said);
            self.node
                .note_former_receipt(feed, publisher, (at, said.signed));
            return Ok(false);
        }
        let Some(held) = held else {
            return Ok(false);
        };
        let compared = self.check_state(&held, &said)?;
        let kept = KeptReceipt {
            at: state_of(&said),
            member: said.member,
            node: said.node,
            since: said.since,
            signed: said.signed,
            heard: now,
            compared,
            envelope: verified.envelope.clone(),
        };
        match store.put_receipt(held.no, &kept, held.own) {
            Err(StoreError::Rejected(_)) => {
                // Nodes that are on no card any more take nobody's place.
                self.forget_strangers(&held)?;
                store.put_receipt(held.no, &kept, held.own)?;
            }
            other => other?,
        }
        Ok(true)
    }

    /// Checks that the state that a receipt is about is one of the feed, as far as is known
    /// here; answers whether that is known.
    fn check_state(&self, held: &FeedInfo, said: &Receipt) -> Result<bool, Rejection> {
        let open = self.node.membership().epoch(held.id);
        if said.epoch > open {
            // PROTOCOL 11.3: it may have a newer roster; what follows says it again.
            let got = said.epoch;
            return Err(Rejection::WrongEpoch { open, got });
        }
        let state = self.node.membership().state();
        let chain = state.chain.as_ref();
        let later = chain.map(|chain| chain.roster().opened_after(held.id, said.epoch));
        let good = later
            .into_iter()
            .flatten()
            .map(|named| named.last_good_size);
        if good.min().is_some_and(|good| said.size > good) {
            let got = said.epoch;
            return Err(Rejection::WrongEpoch { open, got });
        }
        if held.epoch < said.epoch || said.size > held.stored {
            let knows_all = held.own && !self.node.publisher().is_behind(&held.id);
            if knows_all {
                let why = "it is of more leaves than its publisher signed";
                return Err(Rejection::invalid("receipt", why));
            }
            // Not to be told apart here; the publisher can.
            return Ok(false);
        }
        let root = self.node.store().root_at(held.no, said.size);
        match root {
            Ok(root) if root != said.root => Err(Rejection::TwoRoots { size: said.size }),
            Ok(_) => Ok(true),
            Err(_) => Ok(false),
        }
    }

    /// A receipt of a member that may not read the feed says nothing. Before the feed's
    /// grants are known here, any active member's is taken.
    pub(super) fn check_reader(&self, feed: FeedId, member: MemberNumber) -> Result<(), Rejection> {
        let no_reader = || Rejection::Unknown {
            what: "reader",
            why: "the member may not read the feed".to_owned(),
        };
        let snapshot = self.snapshot().ok_or_else(no_reader)?;
        if !snapshot.may_connect(member) {
            return Err(no_reader());
        }
        match Reach::of(self.node.store(), snapshot, &feed) {
            Ok(reach) if reach.feed.describe.is_some() => {
                reach.may_read(member).map_err(|_| no_reader())
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Who may read has changed: whoever may not any more has said nothing, also once it
    /// may again.
    pub(super) fn forget_non_readers(&self) {
        let Some(snapshot) = self.snapshot() else {
            return;
        };
        let mut own = HashMap::new();
        for feed in self.node.store().feeds() {
            let reach = Reach::of(self.node.store(), Arc::clone(&snapshot), &feed.id);
            let Some(reach) = reach.ok().filter(|reach| reach.feed.describe.is_some()) else {
                continue;
            };
            let reads = |member: MemberNumber, _: &Slug| reach.may_read(member).is_ok();
            if let Err(error) = self.node.store().forget_receipts(feed.no, &reads) {
                tracing::error!(%error, code = error.code(), "forgetting receipts");
            }
            if feed.own {
                own.insert(feed.id, reach);
            }
        }
        self.forget_reports(&own);
    }

    fn forget_strangers(&self, held: &FeedInfo) -> Result<(), NodeError> {
        let state = self.node.membership().state();
        let on_card = |member: MemberNumber, name: &Slug| {
            let card = state.cards.newest(member);
            card.is_some_and(|card| card.card().node(name).is_some())
        };
        self.node.store().forget_receipts(held.no, &on_card)?;
        Ok(())
    }

    /// A feed has a new head: its receipt is made at once, if nothing is in the way.
    pub(super) fn receipt_due(&self, feed: &FeedId) {
        if let Err(error) = self.node.make_receipts(Some(feed)) {
            tracing::error!(%error, code = error.code(), "making a receipt");
        }
    }

    /// Makes what receipts are due, tells on what was heard, and looks who is late.
    pub(super) fn keep_receipts(&mut self) {
        for feed in std::mem::take(&mut self.receipts.to_tell) {
            self.node.hub().tell(Change::Receipt(feed));
        }
        self.node.follow_former();
        let now = self.node.clock().now();
        let mut done = self.node.make_receipts(None);
        if now.since(self.receipts.looked) >= LOOK_MS {
            self.receipts.looked = now;
            done = done.and_then(|()| self.node.watch_receipts());
        }
        if let Err(error) = done {
            tracing::error!(%error, code = error.code(), "keeping receipts");
        }
    }
}

/// The state that a receipt is about.
const fn state_of(said: &Receipt) -> HeadRef {
    HeadRef {
        epoch: said.epoch,
        size: said.size,
        root: said.root,
    }
}

/// What an announcement says, not verified, with one word of each node, its newest: many
/// of one node are looked at once.
fn newest_words<'b>(
    all: impl Iterator<Item = &'b Bytes>,
) -> impl Iterator<Item = Result<(Receipt, &'b Bytes), Rejection>> {
    let mut words = BTreeMap::<_, (Receipt, &Bytes)>::new();
    let mut broken = Vec::new();
    for bytes in all {
        let envelope = Envelope::decode(bytes.clone(), PayloadType::Receipt);
        match envelope.and_then(|envelope| Receipt::read(envelope.payload())) {
            Ok(said) => {
                let key = (said.member, said.node.clone());
                let newer = words
                    .get(&key)
                    .is_none_or(|(known, _)| known.signed < said.signed);
                if newer {
                    words.insert(key, (said, bytes));
                }
            }
            Err(rejection) => broken.push(Err(rejection)),
        }
    }
    broken.into_iter().chain(words.into_values().map(Ok))
}

/// What one watch was told of receipts: of each feed, when each node signed its word.
#[derive(Default)]
pub(super) struct ToldReceipts(HashMap<FeedId, BTreeMap<(MemberNumber, Slug), UnixMillis>>);

impl ToldReceipts {
    pub(super) fn forget(&mut self, feed: &FeedId) {
        self.0.remove(feed);
    }

    /// The receipts of a feed that `to` may hear of from the node `own` and did not yet.
    ///
    /// # Errors
    /// What the store answers.
    pub(super) fn new_of(
        &mut self,
        store: &Store,
        reach: &Reach,
        (own, node): (MemberNumber, &Slug),
        to: MemberNumber,
    ) -> Result<Vec<Bytes>, StoreError> {
        let feed = &reach.feed;
        if reach.may_read(to).is_err() {
            self.forget(&feed.id);
            return Ok(Vec::new());
        }
        let mut said: Vec<KeptReceipt> = if to == feed.publisher {
            store.receipts(feed.no, None)?
        } else {
            let mut said: Vec<_> = store.receipt(feed.no, own, node)?.into_iter().collect();
            let others: BTreeSet<_> = [feed.publisher, to].into_iter().collect();
            for member in others {
                said.extend(store.receipts(feed.no, Some(member))?);
            }
            said
        };
        // A member that lost its grant says nothing any more.
        said.retain(|kept| reach.may_read(kept.member).is_ok());
        let told = self.0.entry(feed.id).or_default();
        said.retain(|kept| {
            let key = (kept.member, kept.node.clone());
            told.insert(key, kept.signed) != Some(kept.signed)
        });
        Ok(said.into_iter().map(|kept| kept.envelope).collect())
    }
}
