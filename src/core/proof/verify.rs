//! What a proof shows, from the genesis digest on. No clock decides: what was proved
//! when the proof was made is proved for ever.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{
    CosignedBy, Doubt, How, Naming, Proof, ProofLeaf, Proven, Publisher, Quorum, RosterShown,
};
use super::{Shown, WHAT};
use crate::card::{CardBook, CardVersion, EndpointPolicy, Node};
use crate::checkpoint::{self, SignedCheckpoint};
use crate::envelope::{Envelope, PayloadType};
use crate::id::{Digest, EntryName, FeedId, MemberNumber, Slug};
use crate::keys::{Feed, PublicKey, Witness};
use crate::leaf::{self, DESCRIBE, Describe, IndexRange, Leaf, PUBLISH, Publish};
use crate::merkle::proof::verify_inclusion;
use crate::note::SignatureLine;
use crate::reject::Rejection;
use crate::roster::{Member, Revocation, Roster, RosterChain};
use crate::standing;
use crate::verified::Verified;
use crate::witness::judge;

impl Proof {
    /// Verifies the proof. `genesis` is what somebody trusted told.
    ///
    /// # Errors
    /// What is wrong with the first part that is: of the roster chain as
    /// [`RosterChain::restore`], of the cards as [`crate::card::verify`], of the head as
    /// [`checkpoint::verify`], of paths as [`verify_inclusion`]; and
    /// [`Rejection::WrongFirstLeaf`], [`Rejection::Unknown`], [`Rejection::Invalid`].
    pub fn verify(&self, genesis: &Digest) -> Result<Verified<Proven>, Rejection> {
        let known = Known::read(genesis, &self.rosters, &self.node_cards)?;
        let roster = known.chain.roster();
        if roster.version != self.roster_version {
            return Err(invalid("its rosters do not end where it says"));
        }
        self.check_leaves()?;
        let (publisher, describe) = self.feed(&known)?;
        let head = self.head(&known, publisher, &describe.name.set)?;
        for shown in &self.leaves {
            let (size, root) = (head.size(), head.root());
            let hash = shown.leaf.hash();
            verify_inclusion(&hash, shown.index, size, &shown.inclusion, &root)?;
        }
        let (said, payload) = self.entry()?;
        let named_by = self.namings(publisher)?;
        let (cosigned, quorum) = cosigned(&known, &self.cosignatures, &head, publisher.number)?;
        known.check_cards_are_needed(&head.key, &cosigned)?;
        let (node, card_version, replaced_in) = known.signer(publisher, &head.key)?;
        let first = said
            .as_ref()
            .map_or(self.index, |said| said.first_index(self.index));
        Ok(Verified::new(Proven {
            coalition: roster.coalition.clone(),
            roster: RosterShown {
                version: roster.version,
                issued: roster.issued,
                expires: roster.expires,
            },
            publisher: Publisher {
                number: publisher.number,
                slug: publisher.slug.clone(),
                display_name: publisher.display_name.clone(),
                status: publisher.status,
                node,
                card_version,
                replaced_in,
            },
            entry: EntryName {
                set: describe.name,
                first,
            },
            title: describe.title,
            scheme: describe.classification_scheme,
            feed: self.feed,
            index: self.index,
            said,
            payload,
            doubt: known.doubt(self.feed, &head),
            head,
            state: state(&named_by),
            named_by,
            cosigned,
            quorum,
        }))
    }

    /// Exactly the leaves that the proof says it has, in order.
    fn check_leaves(&self) -> Result<(), Rejection> {
        if !self.named_by.is_sorted_by(|a, b| a < b) {
            return Err(invalid("indexes that do not ascend"));
        }
        if self
            .named_by
            .first()
            .is_some_and(|first| *first <= self.index)
        {
            return Err(invalid("a leaf names one that is not before it"));
        }
        let wanted = Self::wanted(self.index, self.describe_index, &self.named_by);
        let shown = self.leaves.iter().map(|shown| shown.index);
        if shown.eq(wanted) {
            Ok(())
        } else {
            Err(invalid("other leaves than it says, or in another order"))
        }
    }

    fn leaf(&self, index: u64) -> Result<&ProofLeaf, Rejection> {
        let found = self.leaves.iter().find(|shown| shown.index == index);
        found.ok_or_else(|| invalid("a leaf is missing"))
    }

    /// Whose feed it is, by leaf 0, and what it is called.
    fn feed<'k>(&self, known: &'k Known) -> Result<(&'k Member, Describe), Rejection> {
        let wrong = || Rejection::WrongFirstLeaf { feed: self.feed };
        let first = &self.leaf(0)?.leaf;
        let payload = first.payload().ok_or_else(wrong)?;
        let described = |index| match leaf::read(&self.leaf(index)?.leaf, index) {
            Leaf::Describe(describe) => Ok(*describe),
            Leaf::Publish(_)
            | Leaf::Retract(_)
            | Leaf::Opinion(_)
            | Leaf::Erase(_)
            | Leaf::Unknown(_)
            | Leaf::Void(_)
            | Leaf::Elided => Err(invalid("its describe leaf describes nothing")),
        };
        if first.kind != DESCRIBE {
            return Err(wrong());
        }
        let began = described(0)?;
        let slug = &began.name.member;
        let (publisher, genesis) = known.publisher(self.feed, slug, payload)?;
        let describe = described(self.describe_index)?;
        began.check_belongs(&genesis, slug)?;
        describe.check_belongs(&genesis, slug)?;
        // PROTOCOL 14.9: else its publisher could choose whose keys may sign the head.
        if (&describe.name, describe.feed_kind) != (&began.name, began.feed_kind) {
            return Err(invalid("its describe leaf is of another set than leaf 0"));
        }
        Ok((publisher, describe))
    }

    fn head(
        &self,
        known: &Known,
        publisher: &Member,
        set: &Slug,
    ) -> Result<SignedCheckpoint, Rejection> {
        let roster = known.chain.roster();
        let keys = |epoch| {
            let (number, feed) = (publisher.number, self.feed);
            known.cards.feed_keys(number, set, feed, epoch, roster)
        };
        let head = checkpoint::verify(&self.note, &roster.coalition, &self.feed, keys)?;
        check_stands(&head, roster)?;
        Ok(head.into_inner())
    }

    /// What the entry's leaf says.
    fn entry(&self) -> Result<(Option<Publish>, Digest), Rejection> {
        let shown = &self.leaf(self.index)?.leaf;
        if shown.kind != PUBLISH {
            return Err(invalid("the leaf that it is about publishes nothing"));
        }
        let said = match leaf::read(shown, self.index) {
            Leaf::Publish(publish) => Some(*publish),
            Leaf::Elided => None,
            Leaf::Void(_) => return Err(invalid("the leaf is void: it says nothing")),
            Leaf::Describe(_)
            | Leaf::Retract(_)
            | Leaf::Opinion(_)
            | Leaf::Erase(_)
            | Leaf::Unknown(_) => return Err(invalid("the leaf publishes nothing")),
        };
        Ok((said, shown.payload_digest()))
    }

    fn namings(&self, publisher: &Member) -> Result<Vec<Naming>, Rejection> {
        let each = self.named_by.iter().map(|index| {
            let shown = self.leaf(*index)?;
            let naming = naming(shown, self.index, self.feed, publisher);
            naming.ok_or_else(|| invalid("a leaf does not name the entry"))
        });
        each.collect()
    }
}

/// What a leaf does to the one at `about`, if it does anything.
fn naming(shown: &ProofLeaf, about: u64, feed: FeedId, publisher: &Member) -> Option<Naming> {
    let covers = |ranges: &[IndexRange]| {
        let covers = |range: &IndexRange| range.first <= about && about < range.end();
        ranges.iter().any(covers)
    };
    let index = shown.index;
    let (at, how) = match leaf::read(&shown.leaf, index) {
        Leaf::Publish(publish) if publish.replaces.contains(&about) => {
            (publish.published, How::Replaces)
        }
        Leaf::Retract(retract) if covers(&retract.indexes) => {
            let mut identities = publisher.identities();
            let signed = |key| standing::verify_retraction(&feed, &retract, &key).is_ok();
            let how = How::Retracts {
                identity_signed: identities.any(signed),
                reason: retract.reason,
                recheck: retract.recheck,
                note: retract.note,
            };
            (retract.created, how)
        }
        Leaf::Erase(erase) if covers(&erase.indexes) => {
            let legal_basis = erase.legal_basis;
            (erase.created, How::Erases { legal_basis })
        }
        Leaf::Publish(_)
        | Leaf::Retract(_)
        | Leaf::Erase(_)
        | Leaf::Describe(_)
        | Leaf::Opinion(_)
        | Leaf::Unknown(_)
        | Leaf::Void(_)
        | Leaf::Elided => return None,
    };
    Some(Naming { index, at, how })
}

/// An erasure outweighs a retraction, and that a later version: PROTOCOL 12.2.
fn state(named_by: &[Naming]) -> Shown {
    let states = named_by.iter().map(|naming| match naming.how {
        How::Replaces => (1, Shown::Replaced),
        How::Retracts { .. } => (2, Shown::Retracted),
        How::Erases { .. } => (3, Shown::Erased),
    });
    let gravest = states.max_by_key(|(weight, _)| *weight);
    gravest.map_or(Shown::Published, |(_, state)| state)
}

/// Refuses a head that the roster has cut off: PROTOCOL 11.9, 11.10.
fn check_stands(head: &SignedCheckpoint, roster: &Roster) -> Result<(), Rejection> {
    let origin = &head.checkpoint.origin;
    let (open, got) = (roster.epoch(origin.feed), origin.epoch);
    if got > open {
        return Err(Rejection::WrongEpoch { open, got });
    }
    let Some(closing) = roster.closing(origin.feed, origin.epoch) else {
        return Ok(());
    };
    let (size, last) = (head.size(), closing.last_good_size);
    if size > last || (size == last && head.root() != closing.last_good_root) {
        let epoch = origin.epoch;
        let why = format!("the roster closed epoch {epoch} at size {last}: this head is void");
        return Err(invalid(why));
    }
    Ok(())
}

/// Who is who, by the documents of a file alone.
pub(crate) struct Known {
    pub(crate) chain: RosterChain,
    pub(crate) cards: CardBook,
}

impl Known {
    /// Verifies the roster chain from the genesis on, and the cards by it.
    pub(crate) fn read(
        genesis: &Digest,
        rosters: &[Bytes],
        cards: &[Bytes],
    ) -> Result<Self, Rejection> {
        let decode = |bytes: &Bytes| Envelope::decode(bytes.clone(), PayloadType::Roster);
        let rosters: Vec<_> = rosters.iter().map(decode).collect::<Result<_, _>>()?;
        let chain = RosterChain::restore(rosters, genesis)?;
        let mut book = CardBook::new(EndpointPolicy::AllowLocal);
        for bytes in cards {
            let card = Envelope::decode(bytes.clone(), PayloadType::NodeCard)?;
            if book.holds(&card.payload_digest()) {
                return Err(invalid("a node card comes twice"));
            }
            book.restore(card, &chain)?;
        }
        Ok(Self { chain, cards: book })
    }

    /// The member that a feed is of, and the genesis that the feed was begun under.
    pub(crate) fn publisher(
        &self,
        feed: FeedId,
        slug: &Slug,
        first_payload: &[u8],
    ) -> Result<(&Member, Digest), Rejection> {
        let mut geneses = self.chain.geneses();
        let genesis = geneses
            .find(|genesis| FeedId::derive(genesis, slug, first_payload) == feed)
            .ok_or(Rejection::WrongFirstLeaf { feed })?;
        let member = self.chain.roster().member_by_slug(slug);
        let member = member.ok_or_else(|| Rejection::Unknown {
            what: "publisher",
            why: format!("no member {slug} in the roster"),
        })?;
        Ok((member, genesis))
    }

    /// The roster that replaced the identity key which signed a card.
    pub(crate) fn replaced_in(&self, card: &CardVersion) -> Option<u64> {
        self.chain.replaced_in(card.member(), card.signer())
    }

    /// What the rosters say of a head that verifies: PROTOCOL 14.14.
    pub(crate) fn doubt(&self, feed: FeedId, head: &SignedCheckpoint) -> Doubt {
        let closing =
            |r: &Revocation| r.next_epoch.checked_sub(1) == Some(head.checkpoint.origin.epoch);
        let names =
            |r: &Revocation| (r.last_good_size, r.last_good_root) == (head.size(), head.root());
        let roster = self.chain.roster();
        if roster.revocations_of(feed).any(|r| closing(r) && names(r)) {
            return Doubt::default();
        }
        let first = |which: &dyn Fn(&Revocation) -> bool| {
            let rosters = self.chain.from_version(1).map(|one| one.roster());
            let mut saying = rosters.filter(|roster| roster.revocations_of(feed).any(which));
            saying.next().map(|roster| roster.version)
        };
        Doubt {
            epoch_closed_in: first(&closing),
            key_revoked_in: first(&|r| r.key == head.key),
        }
    }

    /// The node and the version of the card by which a key may sign, and what replaced
    /// the identity key that signed the card.
    fn signer(
        &self,
        member: &Member,
        key: &PublicKey<Feed>,
    ) -> Result<(Slug, u64, Option<u64>), Rejection> {
        let of_member = self.cards.all().filter(|c| c.member() == member.number);
        let nodes = of_member.flat_map(|card| card.card().nodes.iter().map(move |n| (n, card)));
        let has = |node: &Node| node.feed_keys.iter().any(|named| named.key == *key);
        // Where the present identity key names it as well, it is the member's.
        let named = nodes
            .filter(|(node, _)| has(node))
            .min_by_key(|(_, card)| self.replaced_in(card));
        let (node, card) = named.ok_or_else(|| invalid("no card names the key"))?;
        let version = card.card().version;
        Ok((node.name.clone(), version, self.replaced_in(card)))
    }

    /// Each card names a key that signed here and that no card before it names: so none
    /// can be put in that says nothing.
    fn check_cards_are_needed(
        &self,
        feed_key: &PublicKey<Feed>,
        cosigned: &[CosignedBy],
    ) -> Result<(), Rejection> {
        let mut open: BTreeSet<[u8; 32]> = cosigned.iter().map(|by| *by.key.as_bytes()).collect();
        open.insert(*feed_key.as_bytes());
        for card in self.cards.all() {
            let named = keys_named(card);
            let before = open.len();
            open.retain(|key| !named.contains(key));
            if open.len() == before {
                return Err(invalid("a node card that it does not need"));
            }
        }
        Ok(())
    }
}

/// The keys on a card that sign heads and cosign.
fn keys_named(card: &CardVersion) -> BTreeSet<[u8; 32]> {
    let nodes = card.card().nodes.iter();
    let keys = nodes.flat_map(|node| {
        let feed = node.feed_keys.iter().map(|named| *named.key.as_bytes());
        feed.chain(node.witness_keys.iter().map(|key| *key.as_bytes()))
    });
    keys.collect()
}

/// Checks every cosignature, and says whether they are enough.
///
/// PROTOCOL 14.10: the bench is that of the newest roster in the file, whatever times the
/// cosignatures bear. A time is a witness's own word: by it, one that left long ago, or a
/// few who were all there once were, could choose a roster that asks for no others.
fn cosigned(
    known: &Known,
    lines: &[Bytes],
    head: &SignedCheckpoint,
    publisher: MemberNumber,
) -> Result<(Vec<CosignedBy>, Quorum), Rejection> {
    let body = head.checkpoint.body();
    let mut all: Vec<CosignedBy> = Vec::with_capacity(lines.len());
    for line in lines {
        let by = cosigner(known, line, &body)?;
        if all.iter().any(|other| other.key == by.key) {
            return Err(invalid("two cosignatures of one key"));
        }
        all.push(by);
    }
    let roster = known.chain.roster();
    let bench: BTreeSet<MemberNumber> = judge::bench(roster, publisher).collect();
    for by in &mut all {
        // ⚠ PROTOCOL 14.14: else whoever finds the old identity keys of enough witnesses
        // makes cards for keys of its own, and a quorum with them.
        by.counts &= bench.contains(&by.member) && by.replaced_in.is_none();
    }
    let counted = all.iter().filter(|by| by.counts).map(|by| by.member);
    let threshold = judge::threshold(bench.len(), roster.witness_threshold);
    let quorum = Quorum {
        roster_version: roster.version,
        witnesses: bench.len(),
        cosigned: counted.collect::<BTreeSet<_>>().len(),
        threshold: threshold.unwrap_or(0),
    };
    Ok((all, quorum))
}

fn cosigner(known: &Known, line: &Bytes, body: &str) -> Result<CosignedBy, Rejection> {
    let parsed = SignatureLine::parse(line)?;
    let roster = known.chain.roster();
    let mut members = roster.members.iter();
    let named = |m: &&Member| checkpoint::witness_name(&roster.coalition, &m.slug) == parsed.name;
    let member = members.find(named).ok_or_else(|| Rejection::Unknown {
        what: "witness",
        why: "a cosignature by no member of the roster".to_owned(),
    })?;
    // Of a key on several cards that of the present identity key says whose it is.
    let mut keys: BTreeMap<PublicKey<Witness>, Option<u64>> = BTreeMap::new();
    let cards = || {
        let all = known.cards.all();
        all.filter(|card| card.member() == member.number)
    };
    for card in cards() {
        let replaced_in = known.replaced_in(card);
        let named = card.card().nodes.iter().flat_map(|node| &node.witness_keys);
        for key in named {
            let said = keys.entry(*key).or_insert(replaced_in);
            *said = said.and(replaced_in);
        }
    }
    let mut refused = Rejection::BadSignature {
        what: "cosignature",
        why: "no card in the proof names the key".to_owned(),
    };
    for (key, replaced_in) in keys {
        match checkpoint::verify_cosignature(body, line, &parsed.name, &key) {
            Ok(verified) => {
                return Ok(CosignedBy {
                    member: member.number,
                    slug: member.slug.clone(),
                    key,
                    time_s: verified.time_s,
                    replaced_in,
                    // PROTOCOL 11.15a: one node of a member counts.
                    counts: cards().any(|card| card.card().witness_keys().contains(&key)),
                });
            }
            Err(rejection) => refused = rejection,
        }
    }
    Err(refused)
}

fn invalid(why: impl Into<String>) -> Rejection {
    Rejection::invalid(WHAT, why)
}
