//! What a publisher makes of the receipts of others: who acts on a leaf since when, who
//! is late, who is away; and whose are overdue.
//!
//! Members count that may read the set now and have a node with a receipt key on their
//! card; a member is done when all of these are. Times of members are by their clocks,
//! times of publication by this node's.

use std::collections::BTreeMap;

use hashpact_core::access::{Grants, Snapshot};
use hashpact_core::id::{FeedId, MemberNumber, SetName, Slug, UnixMillis};
use hashpact_core::leaf::{self, Leaf};
use hashpact_core::roster::Member;
use hashpact_store::{FeedInfo, KeptReceipt};

use super::Hold;
use crate::error::NodeError;
use crate::hub::Change;
use crate::membership::State;
use crate::node::Node;
use crate::views;
use crate::words::name_of;

/// On how many sets of this node each member's receipts are overdue.
pub type Overdue = BTreeMap<MemberNumber, u64>;

/// What a leaf is, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeafSort {
    /// An entry, or a version of one.
    Entry,
    /// A retraction.
    Retraction,
    /// An erasure, which retracts as well.
    Erasure,
    /// Any other: a description of the set, an opinion.
    Other,
}

impl LeafSort {
    /// As commands say it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Retraction => "retraction",
            Self::Erasure => "erasure",
            Self::Other => "other",
        }
    }
}

/// How a member or node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It signed that it acts on it.
    Done,
    /// It did not, and is connected.
    Late,
    /// It did not, and is not connected.
    Unreachable,
    /// It signs no receipts: no node of its card has a key for them.
    Silent,
}

impl Standing {
    /// As commands say it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Late => "late",
            Self::Unreachable => "unreachable",
            Self::Silent => "no receipts",
        }
    }
}

/// One node of a member.
#[derive(Debug, Clone)]
pub struct NodeReceipts {
    /// Its name.
    pub node: Slug,
    /// How it stands.
    pub standing: Standing,
    /// Leaves that it acts on, by its newest word; 0 without one.
    pub size: u64,
    /// Since when it acts on the leaf; of a set, on its size.
    pub since: Option<UnixMillis>,
    /// Whether it may have been earlier: what it said before is not kept.
    pub at_latest: bool,
    /// When it last said so.
    pub signed: Option<UnixMillis>,
}

/// One member.
#[derive(Debug, Clone)]
pub struct MemberReceipts {
    /// Its number.
    pub number: MemberNumber,
    /// Its slug.
    pub member: Slug,
    /// How it stands: as the node that is the furthest behind.
    pub standing: Standing,
    /// Leaves that all its nodes act on.
    pub size: u64,
    /// Since when all of them act on the leaf.
    pub since: Option<UnixMillis>,
    /// Whether it may have been earlier.
    pub at_latest: bool,
    /// From publication here to that; 0 where its clock is behind this one.
    pub took_ms: Option<u64>,
    /// Whether it is later than agreed.
    pub overdue: bool,
    /// Its nodes with a receipt key.
    pub nodes: Vec<NodeReceipts>,
}

/// Who acts on one leaf of an own set, or on all of it.
#[derive(Debug, Clone)]
pub struct LeafReceipts {
    /// The set.
    pub set: String,
    /// The leaf; of a set, its last one.
    pub index: u64,
    /// What it is.
    pub sort: LeafSort,
    /// The entry that was asked for, where the leaf is what withdrew it.
    pub withdrew: Option<u64>,
    /// When a head of this node first covered it.
    pub published: UnixMillis,
    /// When the head before that was signed, where that one is kept.
    pub published_after: Option<UnixMillis>,
    /// After how long a receipt is overdue.
    pub overdue_after_ms: u64,
    /// What keeps this node's own receipt open.
    pub own_hold: Option<Hold>,
    /// Every member that may read the set, but this one.
    pub members: Vec<MemberReceipts>,
}

impl LeafReceipts {
    /// How many members stand so.
    #[must_use]
    pub fn count(&self, standing: Standing) -> usize {
        let members = self.members.iter();
        members.filter(|member| member.standing == standing).count()
    }

    /// So many of a hundred members that are done took no longer; `None` with none done.
    #[must_use]
    pub fn percentile(&self, of_100: usize) -> Option<u64> {
        let mut took: Vec<u64> = self.members.iter().filter_map(|m| m.took_ms).collect();
        took.sort_unstable();
        let rank = took.len().saturating_mul(of_100).div_ceil(100);
        took.get(rank.saturating_sub(1)).copied()
    }
}

/// A member that may read a set.
struct Reader {
    number: MemberNumber,
    slug: Slug,
    nodes: Vec<Slug>,
    /// Since when it may have known of the set, at the earliest.
    card_issued: UnixMillis,
}

/// What is asked of every reader.
struct Question {
    index: u64,
    published: UnixMillis,
    now: UnixMillis,
    overdue_after_ms: u64,
}

impl Node {
    /// Who acts on a leaf of an own set. With `withdrawal` an entry that was withdrawn
    /// stands for the leaf that did so. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NotFound`]; [`NodeError::Misuse`] for another member's set.
    pub fn receipts_of(
        &self,
        set: &SetName,
        index: u64,
        withdrawal: bool,
    ) -> Result<LeafReceipts, NodeError> {
        let feed = self.published(set)?;
        let size = feed.applied.map_or(0, |at| at.size);
        if index >= size {
            return Err(NodeError::NotFound {
                what: "leaf",
                name: format!("{set}#{index}"),
            });
        }
        let sort = self.sort_of(&feed, index)?;
        let by = if withdrawal && sort == LeafSort::Entry {
            self.store().withdrawn_by(feed.no, index)?
        } else {
            None
        };
        match by {
            None => self.judged_leaf(&feed, index, sort, None),
            Some(by) => {
                let sort = self.sort_of(&feed, by)?;
                self.judged_leaf(&feed, by, sort, Some(index))
            }
        }
    }

    /// Who acts on all of an own set. Blocking.
    ///
    /// # Errors
    /// As [`Node::receipts_of`].
    pub fn receipts_of_set(&self, set: &SetName) -> Result<LeafReceipts, NodeError> {
        let feed = self.published(set)?;
        let size = feed.applied.map_or(0, |at| at.size);
        let last = size.checked_sub(1).ok_or_else(|| NodeError::NotFound {
            what: "signed head of",
            name: set.to_string(),
        })?;
        let sort = self.sort_of(&feed, last)?;
        self.judged_leaf(&feed, last, sort, None)
    }

    fn published(&self, set: &SetName) -> Result<FeedInfo, NodeError> {
        let feed = self.feed_of(set)?;
        if feed.own {
            return Ok(feed);
        }
        Err(NodeError::Misuse(format!(
            "receipts of {set} go to its publisher: only a node that publishes the set can say who \
             acts on it"
        )))
    }

    fn sort_of(&self, feed: &FeedInfo, index: u64) -> Result<LeafSort, NodeError> {
        let raw = self.store().read_leaf(feed.no, index)?;
        Ok(match leaf::read(&raw, index) {
            Leaf::Publish(_) => LeafSort::Entry,
            Leaf::Elided | Leaf::Void(_) if raw.kind == leaf::PUBLISH => LeafSort::Entry,
            Leaf::Retract(_) => LeafSort::Retraction,
            Leaf::Erase(_) => LeafSort::Erasure,
            Leaf::Describe(_)
            | Leaf::Opinion(_)
            | Leaf::Unknown(_)
            | Leaf::Void(_)
            | Leaf::Elided => LeafSort::Other,
        })
    }

    fn judged_leaf(
        &self,
        feed: &FeedInfo,
        index: u64,
        sort: LeafSort,
        withdrew: Option<u64>,
    ) -> Result<LeafReceipts, NodeError> {
        let now = self.clock().now();
        let covered = self.store().first_covered(feed.no, index)?;
        let (published, published_after) = covered.unwrap_or((now, None));
        let question = Question {
            index,
            published,
            now,
            overdue_after_ms: self.overdue_after_ms(),
        };
        let mut members = Vec::new();
        for reader in self.readers(feed, now) {
            members.push(self.judge_member(feed, &reader, &question)?);
        }
        members.sort_by(|a, b| (a.standing, &a.member).cmp(&(b.standing, &b.member)));
        Ok(LeafReceipts {
            set: name_of(feed),
            index,
            sort,
            withdrew,
            published,
            published_after,
            overdue_after_ms: question.overdue_after_ms,
            own_hold: self.receipt_hold(&feed.id),
            members,
        })
    }

    fn judge_member(
        &self,
        feed: &FeedInfo,
        reader: &Reader,
        question: &Question,
    ) -> Result<MemberReceipts, NodeError> {
        let mut nodes = Vec::new();
        for node in &reader.nodes {
            nodes.push(self.judge_node(feed, reader.number, node, question.index)?);
        }
        let worst = nodes.iter().map(|node| node.standing).max();
        let standing = worst.unwrap_or(Standing::Silent);
        let done = standing == Standing::Done;
        let since = nodes.iter().filter_map(|node| node.since).max();
        let since = since.filter(|_| done);
        let waited = question.now.since(question.published);
        let took_ms = since.map(|since| since.since(question.published));
        let late = match standing {
            Standing::Done => took_ms.unwrap_or(0),
            Standing::Late | Standing::Unreachable => waited,
            Standing::Silent => 0,
        };
        Ok(MemberReceipts {
            number: reader.number,
            member: reader.slug.clone(),
            standing,
            size: nodes.iter().map(|node| node.size).min().unwrap_or(0),
            since,
            at_latest: nodes.iter().any(|node| node.at_latest),
            took_ms,
            overdue: !done && late > question.overdue_after_ms,
            nodes,
        })
    }

    fn judge_node(
        &self,
        feed: &FeedInfo,
        member: MemberNumber,
        node: &Slug,
        index: u64,
    ) -> Result<NodeReceipts, NodeError> {
        let kept = self.sound_receipt(feed, member, node)?;
        let good = self.good_sizes(feed.id);
        let size = kept
            .as_ref()
            .map_or(0, |kept| kept.at.size.min(good(kept.at.epoch)));
        let signed = kept.as_ref().map(|kept| kept.signed);
        if let Some(kept) = kept.filter(|_| size > index) {
            let steps = self.store().receipt_steps(feed.no, member, node)?;
            let since = steps.since(index, good);
            return Ok(NodeReceipts {
                node: node.clone(),
                standing: Standing::Done,
                size,
                since: Some(since.map_or(kept.since, |since| since.at)),
                at_latest: since.is_none_or(|since| since.thinned),
                signed,
            });
        }
        Ok(NodeReceipts {
            node: node.clone(),
            standing: self.reached(member, node),
            size,
            since: None,
            at_latest: false,
            signed,
        })
    }

    /// A node's newest word, if it is about the very feed that was published.
    fn sound_receipt(
        &self,
        feed: &FeedInfo,
        member: MemberNumber,
        node: &Slug,
    ) -> Result<Option<KeptReceipt>, NodeError> {
        let Some(kept) = self.store().receipt(feed.no, member, node)? else {
            return Ok(None);
        };
        let good = self.good_sizes(feed.id)(kept.at.epoch);
        let size = kept.at.size;
        if size > good {
            // What it says of leaves that the roster cut off says it of those before, if it
            // was of the same history: these leaves are gone, and the roots with them.
            return Ok(Some(kept).filter(|kept| kept.compared));
        }
        let same = size <= feed.stored && self.store().root_at(feed.no, size)? == kept.at.root;
        Ok(Some(kept).filter(|_| same))
    }

    /// Up to which size each epoch of a feed stands, by the roster.
    fn good_sizes(&self, feed: FeedId) -> impl Fn(u32) -> u64 + use<> {
        let state = self.membership().state();
        move |epoch| {
            let chain = state.chain.as_ref();
            let opened = chain.map(|chain| chain.roster().opened_after(feed, epoch));
            let sizes = opened
                .into_iter()
                .flatten()
                .map(|named| named.last_good_size);
            sizes.min().unwrap_or(u64::MAX)
        }
    }

    fn reached(&self, member: MemberNumber, node: &Slug) -> Standing {
        let peers = self.exchange().map(|view| view.peers()).unwrap_or_default();
        let mut peers = peers.iter();
        let peer = peers.find(|peer| peer.member == member && peer.node == *node);
        match peer.map(|peer| peer.state) {
            Some("connected") => Standing::Late,
            Some(_) | None => Standing::Unreachable,
        }
    }

    /// Members that may read a feed, but this one.
    fn readers(&self, feed: &FeedInfo, now: UnixMillis) -> Vec<Reader> {
        let state = self.membership().state();
        let (Some(snapshot), Ok(own)) = (self.membership().snapshot(), self.membership().own())
        else {
            return Vec::new();
        };
        let grants = views::describe_of(feed).map(|describe| Grants::of(&describe));
        let reads = |member: &&Member| {
            let number = member.number;
            let may = Snapshot::may_read(&snapshot, number, feed.publisher, grants.as_ref());
            number != own && may.is_ok()
        };
        let roster = snapshot.roster().roster();
        let members = roster.members.iter().filter(reads);
        members.map(|member| reader(&state, member, now)).collect()
    }

    /// Looks whose receipts are overdue, says so, and tells observers where that has
    /// changed. To be called from time to time. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn watch_receipts(&self) -> Result<(), NodeError> {
        let overdue = self.look_for_overdue()?;
        let before = {
            let mut state = self.receipts().state();
            std::mem::replace(&mut state.overdue, overdue.clone())
        };
        if before == overdue {
            return Ok(());
        }
        let slug = |number: MemberNumber| {
            let member = self.membership().member(number);
            member.map_or_else(|| number.value().to_string(), |m| m.slug.to_string())
        };
        for number in before.keys().chain(overdue.keys()) {
            let count = overdue.get(number).copied().unwrap_or(0);
            #[expect(clippy::cast_precision_loss, reason = "a gauge of some sets")]
            metrics::gauge!("hashpact_receipts_overdue", "member" => slug(*number))
                .set(count as f64);
        }
        let after_s = self.overdue_after_ms() / 1_000;
        for (number, sets) in &overdue {
            if !before.contains_key(number) {
                let member = slug(*number);
                tracing::warn!(
                    member,
                    sets,
                    after_s,
                    "receipts are overdue: the member has not said that it acts on what was \
                     published; hashpact receipts SET shows more"
                );
            }
        }
        for number in before.keys().filter(|number| !overdue.contains_key(number)) {
            let member = slug(*number);
            tracing::info!(member, "no receipt of the member is overdue any more");
        }
        let named: Vec<String> = overdue
            .iter()
            .map(|(number, sets)| format!("{} {sets}", slug(*number)))
            .collect();
        let notice = (!named.is_empty()).then(|| {
            format!(
                "receipts overdue after {after_s} s, sets by member: {}; hashpact receipts SET",
                named.join(", ")
            )
        });
        self.set_notice("overdue_receipts", notice);
        self.hub().tell(Change::Overdue);
        Ok(())
    }

    /// On how many sets of this node each member's receipts are overdue, as it was looked
    /// for last.
    #[must_use]
    pub fn overdue_receipts(&self) -> Overdue {
        self.receipts().state().overdue.clone()
    }

    fn look_for_overdue(&self) -> Result<Overdue, NodeError> {
        let (now, limit) = (self.clock().now(), self.overdue_after_ms());
        let due = UnixMillis(now.0.saturating_sub(limit));
        let mut overdue = Overdue::new();
        for feed in self.publisher().feeds() {
            let Some((head, _)) = self.store().head_as_of(feed.no, due)? else {
                continue;
            };
            let good = self.good_sizes(feed.id);
            let expected = head.size.min(good(head.epoch));
            for reader in self.readers(&feed, now) {
                if self.is_overdue(&feed, &reader, (expected, due))? {
                    let sets = overdue.entry(reader.number).or_default();
                    *sets = sets.saturating_add(1);
                }
            }
        }
        Ok(overdue)
    }

    fn is_overdue(
        &self,
        feed: &FeedInfo,
        reader: &Reader,
        (expected, due): (u64, UnixMillis),
    ) -> Result<bool, NodeError> {
        let good = self.good_sizes(feed.id);
        let mut never = true;
        let mut behind = false;
        for node in &reader.nodes {
            let kept = self.sound_receipt(feed, reader.number, node)?;
            never &= kept.is_none();
            let size = kept.map_or(0, |kept| kept.at.size.min(good(kept.at.epoch)));
            behind |= size < expected;
        }
        if !behind || !never {
            return Ok(behind);
        }
        // Whoever never said anything may just have been granted the set, or admitted.
        let granted = feed.describe.as_ref().map(|(index, _)| *index);
        let granted = granted.map(|index| self.store().first_covered(feed.no, index));
        let granted = granted.transpose()?.flatten().map(|(at, _)| at);
        let began = granted.unwrap_or_default().max(reader.card_issued);
        Ok(began <= due)
    }
}

fn reader(state: &State, member: &Member, now: UnixMillis) -> Reader {
    let chain = state.chain.as_ref();
    let card = chain.and_then(|chain| state.cards.current(member.number, chain.roster(), now));
    let nodes = card.into_iter().flat_map(|card| &card.card().nodes);
    let nodes = nodes.filter(|node| !node.receipt_keys.is_empty());
    Reader {
        number: member.number,
        slug: member.slug.clone(),
        nodes: nodes.map(|node| node.name.clone()).collect(),
        card_issued: card.map_or(UnixMillis(0), |card| card.card().issued),
    }
}
