//! Evidence against the innocent: miscounted ranges, failed merges, notes that nobody
//! signed, cards that others are to have signed, grants that are to have ended.

use hashpact_core::envelope::{Envelope, PayloadType};
use hashpact_core::equivocation::DocumentEvidence;
use hashpact_core::evidence::ForkEvidence;
use hashpact_core::id::{Digest, FeedId};
use hashpact_core::merkle::CompactRange;
use hashpact_core::page;
use hashpact_node::Node;
use hashpact_store::FeedInfo;

use super::super::coalition::{BEGIN, CardPlan, Coalition};
use super::Kit;
use super::cast::Habit;
use super::fork::{note, number_of, publish_leaf, told};
use crate::types::{Announcement, GrantEnded};

/// What evidence against a feed is made of: two of its heads, and its tree.
struct Case<'n> {
    node: &'n Node,
    feed: FeedInfo,
    /// The publisher's place.
    publisher: usize,
    smaller: (u64, bytes::Bytes),
    larger: (u64, bytes::Bytes),
}

impl<'n> Case<'n> {
    /// Against a feed of somebody else that a node holds with two heads.
    fn find(kit: &mut Kit, node: &'n Node) -> Option<Self> {
        let store = node.store();
        let held = store.feeds().into_iter();
        let large = |feed: &FeedInfo| feed.applied.is_some_and(|head| head.size > 3);
        let held: Vec<FeedInfo> = held.filter(|feed| !feed.own && large(feed)).collect();
        let feed = kit.dice.some(&held, 1).pop()?;
        let heads = store.heads(feed.no, 16).unwrap();
        let size = feed.applied?.size;
        let at = |head: &hashpact_store::Head| (head.at().size, head.note().clone());
        let mut heads: Vec<_> = heads.iter().map(at).filter(|head| head.0 <= size).collect();
        heads.sort_by_key(|head| head.0);
        let (smaller, larger) = (heads.first()?.clone(), heads.last()?.clone());
        (smaller.0 > 1).then_some(Self {
            node,
            publisher: usize::try_from(feed.publisher.value()).unwrap() - 1,
            feed,
            smaller,
            larger,
        })
    }

    fn hashes(&self, from: u64, to: u64) -> Vec<Digest> {
        let range = self.node.store().range(self.feed.no, from, to).unwrap();
        range.hashes().to_vec()
    }

    fn evidence(&self, before: Vec<Digest>, between: Vec<Digest>) -> ForkEvidence {
        ForkEvidence {
            feed: self.feed.id,
            smaller: self.smaller.1.clone(),
            larger: self.larger.1.clone(),
            before,
            between,
            node_cards: Vec::new(),
        }
    }
}

impl Kit {
    /// Evidence against somebody honest, made up by a member.
    pub(super) fn made_up(
        &mut self,
        at: usize,
        node: &Node,
        coalition: &Coalition,
    ) -> Option<Announcement> {
        let case = Case::find(self, node)?;
        let (m, n) = (case.smaller.0, case.larger.0);
        let (before, between) = (case.hashes(0, m), case.hashes(m, n));
        let flipped = |hashes: &[Digest]| {
            let mut hashes = hashes.to_vec();
            hashes.iter_mut().take(1).for_each(|hash| hash.0[5] ^= 1);
            hashes
        };
        let evidence = match self.dice.below(9) {
            // Counted wrongly, they merge to the larger root, and the first part is not
            // the smaller one.
            0 => case.evidence(
                case.hashes(0, m / 2),
                [case.hashes(m / 2, m), between].concat(),
            ),
            1 => case.evidence(case.hashes(0, n), Vec::new()),
            2 => case.evidence(flipped(&before), between),
            3 => case.evidence(before, flipped(&between)),
            4 => case.evidence(before, between),
            5 => self.signed_by_itself(at, &case, flipped(&before), between),
            6 => ForkEvidence {
                feed: FeedId(Digest::of(b"another feed")),
                ..case.evidence(before, between)
            },
            7 => return Some(grant_ended(&case)),
            _ => return two_cards(at, &case, coalition),
        };
        Some(Announcement::Evidence(evidence.encode().into()))
    }

    /// Two histories that do not agree, the larger one signed by who makes this up.
    fn signed_by_itself(
        &self,
        at: usize,
        case: &Case<'_>,
        before: Vec<Digest>,
        between: Vec<Digest>,
    ) -> ForkEvidence {
        let (m, n) = (case.smaller.0, case.larger.0);
        let mut whole = CompactRange::from_hashes(0, m, before.clone()).unwrap();
        let rest = CompactRange::from_hashes(m, n, between.clone()).unwrap();
        whole.merge(&rest).unwrap();
        let root = whole.root().unwrap();
        ForkEvidence {
            larger: note(self.seed, at, case.feed.id, n, root).into(),
            ..case.evidence(before, between)
        }
    }

    /// Has a member say what it made up.
    pub(super) fn frames(
        &mut self,
        at: usize,
        node: &Node,
        coalition: &Coalition,
    ) -> Vec<Announcement> {
        if !self.has(at, Habit::Frame) {
            return Vec::new();
        }
        let count = self.dice.between(1, 4);
        let made = (0..count).filter_map(|_| self.made_up(at, node, coalition));
        let made: Vec<Announcement> = made.collect();
        for _ in &made {
            self.count(Habit::Frame);
        }
        made
    }
}

/// A leaf that the publisher never wrote is to have ended everybody's grant.
fn grant_ended(case: &Case<'_>) -> Announcement {
    let store = case.node.store();
    let (size, note) = case.larger.clone();
    Announcement::GrantEnded(Box::new(GrantEnded {
        head: told(case.feed.id, case.publisher, note.to_vec()),
        index: size - 1,
        leaf: page::encode_plain(&[publish_leaf(1)]).unwrap(),
        inclusion: store.inclusion_proof(case.feed.no, size - 1, size).unwrap(),
    }))
}

/// A second card of somebody's, of the version that there is, signed by who makes it up.
fn two_cards(at: usize, case: &Case<'_>, coalition: &Coalition) -> Option<Announcement> {
    let state = case.node.membership().state();
    let theirs = state.cards.newest(case.feed.publisher)?;
    let plan = CardPlan {
        version: theirs.card().version,
        listens: false,
        tls: vec![0],
        feed: vec![0],
    };
    let (number, signer) = (number_of(case.publisher), number_of(at));
    let other = coalition.card_by(signer, number, &plan, BEGIN).ok()?;
    let envelope = |bytes| Envelope::decode(bytes, PayloadType::NodeCard).unwrap();
    let pair = DocumentEvidence::new(envelope(theirs.as_bytes().clone()), envelope(other));
    Some(Announcement::DocumentEvidence(pair.encode().into()))
}
