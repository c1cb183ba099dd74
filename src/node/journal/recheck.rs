//! What of the journal rests on entries that were withdrawn since, and which publishers
//! ask that somebody looks.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use hashpact_core::id::{EntryName, FeedId, SetName, UnixMillis};
use hashpact_core::leaf::{self, IndexRange, Leaf, RetractReason};
use hashpact_core::policy::Verdict;
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_store::{FeedInfo, FeedWriter, JournalEntry, JournalRow, RecheckAsked};
use tracing::{info, warn};

use super::digest;
use crate::error::NodeError;
use crate::node::Node;
use crate::views;
use crate::words::name_of;

/// Answers of the journal looked at for one page, some 300 bytes each.
const ROWS_PER_PAGE: usize = 20_000;
/// Matches told in one page, some 300 bytes each.
const TOLD_PER_PAGE: usize = 2_000;
/// New retractions of one head that are looked at, the newest: as many as may wait.
const LOOKED_AT: usize = hashpact_store::RECHECKS_PER_PUBLISHER;

/// What is to be rechecked; nothing given: all there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecheckOf {
    /// Entries of this set.
    pub set: Option<SetName>,
    /// Of that set: an entry, or the leaf of a retraction.
    pub leaf: Option<u64>,
    /// Answers to one of these questions only.
    pub signals: Vec<Signal>,
}

/// How an entry was withdrawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawal {
    /// The leaf that did so.
    pub leaf: u64,
    /// Why, in one word; `erased` for an erasure.
    pub reason: &'static str,
    /// What the publisher noted.
    pub note: String,
    /// Whether the publisher asked to recheck.
    pub asked: bool,
}

/// An answer that rests on an entry that was withdrawn since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rechecked {
    /// When it was given.
    pub at: UnixMillis,
    /// The kind of signal that was asked for.
    pub kind: Option<SignalKind>,
    /// What was asked for, as a digest that only this node makes, in hexadecimal.
    pub digest: String,
    /// What was made of it then.
    pub verdict: Verdict,
    /// The caller's own name for it.
    pub reference: String,
    /// How many entries matched in all.
    pub matched: u64,
    /// The entry.
    pub entry: EntryName,
    /// The version that answered.
    pub index: u64,
    /// How it was withdrawn.
    pub withdrawal: Arc<Withdrawal>,
}

/// A retraction whose publisher asks to recheck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecheckRequest {
    /// The set.
    pub set: String,
    /// What was retracted.
    pub withdrawal: Withdrawal,
    /// How many leaves it names.
    pub leaves: u64,
    /// When this node took it.
    pub at: UnixMillis,
}

/// One page of a recheck.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecheckPage {
    /// The answers, oldest first.
    pub rows: Vec<Rechecked>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<u64>,
    /// How many answers the journal has.
    pub kept: u64,
    /// When the oldest of them was given.
    pub since: Option<UnixMillis>,
}

/// What was found out about entries, for one page.
struct Finder<'n> {
    node: &'n Node,
    /// The feed that is meant, with the leaves of the one that is.
    only: Option<(FeedId, Option<Meant>)>,
    feeds: HashMap<FeedId, Option<(FeedInfo, SetName)>>,
    found: HashMap<(FeedId, u64), Option<Arc<Withdrawal>>>,
}

/// The leaf that a recheck is about.
struct Meant {
    leaf: u64,
    /// What it withdraws, where it is a retraction.
    ranges: Vec<IndexRange>,
}

impl Meant {
    fn is(&self, entry: &JournalEntry) -> bool {
        let named = |index: u64| {
            let mut ranges = self.ranges.iter();
            ranges.any(|range| range.first <= index && index < range.end())
        };
        let has = |index: u64| index == self.leaf || named(index);
        has(entry.index) || has(entry.first)
    }
}

impl Node {
    /// What was answered because of entries that were withdrawn since, from a number of
    /// the journal on. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NotFound`] for a set or leaf that is not held; what the store answers.
    pub fn recheck(&self, of: &RecheckOf, from: u64) -> Result<RecheckPage, NodeError> {
        let mut finder = Finder::new(self, of)?;
        let keys = of.signals.iter().map(Signal::index_key);
        let asked: BTreeSet<[u8; 16]> = keys.map(|key| digest(&self.desk().salt, &key)).collect();
        let numbers = self.store().journal_numbers()?;
        let mut page = RecheckPage {
            kept: numbers.end.saturating_sub(numbers.start),
            ..RecheckPage::default()
        };
        self.store().scan_journal(0, |_, row| {
            page.since = Some(row.at);
            Ok(false)
        })?;
        let mut waiting = Vec::new();
        self.store().scan_journal(from, |number, row| {
            if waiting.len() == ROWS_PER_PAGE {
                page.next = Some(number);
                return Ok(false);
            }
            waiting.push((number, row));
            Ok(true)
        })?;
        for (number, row) in waiting {
            if page.rows.len() >= TOLD_PER_PAGE {
                page.next = Some(number);
                break;
            }
            if asked.is_empty() || asked.contains(&row.digest) {
                finder.tell(&row, &mut page.rows)?;
            }
        }
        Ok(page)
    }

    /// The retractions whose publishers ask to recheck, as far as they are held and not
    /// acknowledged. Blocking.
    ///
    /// # Errors
    /// As [`Node::recheck`].
    pub fn recheck_requests(&self, of: &RecheckOf) -> Result<Vec<RecheckRequest>, NodeError> {
        let mut told = Vec::new();
        for one in self.asked_for(of)? {
            told.extend(self.request(&one)?);
        }
        Ok(told)
    }

    /// Takes requests to recheck off the list; answers which. Blocking.
    ///
    /// # Errors
    /// As [`Node::recheck`].
    pub fn acknowledge_rechecks(&self, of: &RecheckOf) -> Result<Vec<RecheckRequest>, NodeError> {
        let ended = self.asked_for(of)?;
        let mut told = Vec::new();
        for one in &ended {
            told.extend(self.request(one)?);
        }
        self.store().end_rechecks(&ended)?;
        Ok(told)
    }

    /// The requests that a question is about. Those of sets that are no longer held are
    /// of no use to anybody, and go with all others.
    fn asked_for(&self, of: &RecheckOf) -> Result<Vec<RecheckAsked>, NodeError> {
        let finder = Finder::new(self, of)?;
        let all = self.store().rechecks()?.into_iter();
        let meant = |asked: &RecheckAsked| match &finder.only {
            None => true,
            Some((feed, leaf)) => {
                *feed == asked.feed && leaf.as_ref().is_none_or(|meant| meant.leaf == asked.leaf)
            }
        };
        Ok(all.filter(meant).collect())
    }

    fn request(&self, asked: &RecheckAsked) -> Result<Option<RecheckRequest>, NodeError> {
        let Some(no) = self.store().feed_no(&asked.feed) else {
            return Ok(None);
        };
        let feed = self.store().feed(no)?;
        if asked.leaf >= feed.indexed {
            return Ok(None);
        }
        let read = withdrawal(self, &feed, asked.leaf)?;
        Ok(read.map(|(withdrawal, ranges)| RecheckRequest {
            set: name_of(&feed),
            withdrawal,
            leaves: ranges.iter().map(|range| range.count).sum(),
            at: asked.at,
        }))
    }

    /// Notes which of the retractions that nobody heard yet, and that count, ask to recheck;
    /// after each commit of a head, once it is settled. Where it was never noted how far
    /// they were heard, `before` is: nothing was answered from a set before its first pull,
    /// so nothing is asked then. Blocking.
    ///
    /// # Errors
    /// What the store answers; they are heard the next time.
    pub fn hear_rechecks(&self, writer: &mut FeedWriter, before: u64) -> Result<(), NodeError> {
        let feed = writer.info();
        if feed.own {
            return Ok(());
        }
        let from = match writer.heard() {
            0 => before,
            heard => heard,
        };
        let asked = from > 0 && self.hear(&feed, from)?;
        Ok(writer.heard_to(feed.indexed, asked)?)
    }

    /// Notes those from leaf `from` on; answers whether there are any.
    fn hear(&self, feed: &FeedInfo, from: u64) -> Result<bool, NodeError> {
        let store = self.store();
        let mut any = false;
        let held = store.held_retractions(feed.no)?;
        for leaf in store.retractions(feed.no, from, LOOKED_AT)? {
            let raw = store.read_leaf(feed.no, leaf)?;
            let Leaf::Retract(retract) = leaf::read(&raw, leaf) else {
                continue;
            };
            if !retract.recheck || held.contains(&leaf) {
                continue;
            }
            let asked = RecheckAsked {
                feed: feed.id,
                leaf,
                at: self.clock().now(),
            };
            if store.put_recheck(&asked)? {
                info!(set = name_of(feed), leaf, "a retraction asks to recheck");
            } else {
                warn!(
                    set = name_of(feed),
                    leaf, "too many retractions ask to recheck"
                );
            }
            any = true;
        }
        Ok(any)
    }

    /// What wants attention of it.
    pub(crate) fn recheck_notice(&self) -> Result<Option<String>, NodeError> {
        let requests = self.recheck_requests(&RecheckOf::default())?;
        Ok(requests.first().map(|first| {
            let (count, set, leaf) = (requests.len(), &first.set, first.withdrawal.leaf);
            let (who, whose) = match count {
                1 => (format!("a retraction, {set}#{leaf}, asks"), "its"),
                _ => (
                    format!("{count} retractions, {set}#{leaf} among them, ask"),
                    "their",
                ),
            };
            format!(
                "ALARM: {who} to recheck what was done because of {whose} entries: hashpact \
                 receipts --recheck, then with --ack"
            )
        }))
    }
}

impl<'n> Finder<'n> {
    fn new(node: &'n Node, of: &RecheckOf) -> Result<Self, NodeError> {
        let only = match &of.set {
            None => None,
            Some(set) => {
                let feed = node.feed_of(set)?;
                let meant = of.leaf.map(|leaf| meant(node, &feed, set, leaf));
                Some((feed.id, meant.transpose()?))
            }
        };
        Ok(Self {
            node,
            only,
            feeds: HashMap::new(),
            found: HashMap::new(),
        })
    }

    /// Adds what a row's entries say, if any was withdrawn.
    fn tell(&mut self, row: &JournalRow, told: &mut Vec<Rechecked>) -> Result<(), NodeError> {
        for entry in &row.entries {
            let is_meant = match &self.only {
                None => true,
                Some((feed, meant)) => {
                    *feed == entry.feed && meant.as_ref().is_none_or(|meant| meant.is(entry))
                }
            };
            if !is_meant {
                continue;
            }
            let Some((set, withdrawal)) = self.withdrawn(entry)? else {
                continue;
            };
            told.push(Rechecked {
                at: row.at,
                kind: SignalKind::from_number(u32::from(row.kind)),
                digest: HEXLOWER.encode(&row.digest),
                verdict: row.verdict,
                reference: row.reference.clone(),
                matched: u64::try_from(row.entries.len()).unwrap_or(u64::MAX),
                entry: EntryName {
                    set,
                    first: entry.first,
                },
                index: entry.index,
                withdrawal,
            });
        }
        Ok(())
    }

    /// How an entry was withdrawn, if it was: the latest version of it counts.
    fn withdrawn(
        &mut self,
        entry: &JournalEntry,
    ) -> Result<Option<(SetName, Arc<Withdrawal>)>, NodeError> {
        let store = self.node.store();
        let feed = self.feeds.entry(entry.feed).or_insert_with(|| {
            let feed = store.feed(store.feed_no(&entry.feed)?).ok()?;
            let name = views::describe_of(&feed)?.name;
            Some((feed, name))
        });
        let Some((feed, set)) = feed else {
            return Ok(None);
        };
        let key = (entry.feed, entry.first);
        if let Some(known) = self.found.get(&key) {
            return Ok(known.clone().map(|known| (set.clone(), known)));
        }
        let found = how(self.node, feed, entry)?.map(Arc::new);
        self.found.insert(key, found.clone());
        Ok(found.map(|found| (set.clone(), found)))
    }
}

fn how(
    node: &Node,
    feed: &FeedInfo,
    entry: &JournalEntry,
) -> Result<Option<Withdrawal>, NodeError> {
    let store = node.store();
    // Cut off meanwhile, or never there: a journal outlives a restored store.
    if entry.first >= feed.indexed {
        return Ok(None);
    }
    let latest = store.latest_version(feed.no, entry.first)?;
    if !store.is_dead(feed.no, latest)? || store.is_held(feed.no, latest)? {
        return Ok(None);
    }
    let Some(by) = store.withdrawn_by(feed.no, latest)? else {
        return Ok(None);
    };
    Ok(withdrawal(node, feed, by)?.map(|(withdrawal, _)| withdrawal))
}

/// What a leaf withdraws and why, if it does.
fn withdrawal(
    node: &Node,
    feed: &FeedInfo,
    by: u64,
) -> Result<Option<(Withdrawal, Vec<IndexRange>)>, NodeError> {
    let raw = node.store().read_leaf(feed.no, by)?;
    Ok(match leaf::read(&raw, by) {
        Leaf::Retract(retract) => {
            let withdrawal = Withdrawal {
                leaf: by,
                reason: word(retract.reason),
                note: retract.note.clone(),
                asked: retract.recheck,
            };
            Some((withdrawal, retract.indexes.clone()))
        }
        Leaf::Erase(erase) => {
            let withdrawal = Withdrawal {
                leaf: by,
                reason: "erased",
                note: String::new(),
                asked: false,
            };
            Some((withdrawal, erase.indexes.clone()))
        }
        Leaf::Describe(_)
        | Leaf::Publish(_)
        | Leaf::Opinion(_)
        | Leaf::Unknown(_)
        | Leaf::Void(_)
        | Leaf::Elided => None,
    })
}

fn meant(node: &Node, feed: &FeedInfo, set: &SetName, leaf: u64) -> Result<Meant, NodeError> {
    if leaf >= feed.indexed {
        return Err(NodeError::NotFound {
            what: "leaf",
            name: format!("{set}#{leaf}"),
        });
    }
    let ranges = withdrawal(node, feed, leaf)?.map(|(_, ranges)| ranges);
    Ok(Meant {
        leaf,
        ranges: ranges.unwrap_or_default(),
    })
}

/// As `hashpact retract --reason` takes it.
const fn word(reason: RetractReason) -> &'static str {
    match reason {
        RetractReason::Wrong => "wrong",
        RetractReason::Duplicate => "duplicate",
        RetractReason::SourceWithdrew => "source-withdrew",
        RetractReason::Legal => "legal",
        RetractReason::Other => "other",
    }
}
