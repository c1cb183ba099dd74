//! Recomputing everything from the leaves.
//!
//! Leaves give the tree, the heads' roots and every derived row. Rows that are too many to
//! look up one by one are compared as multisets: the sum of a digest of each row that should
//! be there against the sum over those that are. Memory: one page and some sums per feed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hashpact_core::id::Digest;
use hashpact_core::leaf::{PUBLISH, RawLeaf};
use hashpact_core::merkle::CompactRange;
use hashpact_core::reject::Rejection;
use roaring::RoaringTreemap;

use crate::counts::FeedCounts;
use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::{FeedInfo, FeedState};
use crate::heads::Head;
use crate::index::derive::{Derived, derive, is_frame};
use crate::keys::{self, FRAME_KIND, FeedNo};
use crate::leaves::{PAGE_LEVEL, page_end};
use crate::quarantine::{Lot, LotName, Marks, Quarantine};
use crate::record::{seal, unseal_index, unseal_reference};
use crate::store::{Inner, Store, read};
use crate::sums::Sum;
use crate::{frame_room, retractions};

/// What is wrong somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FindingKind {
    /// Leaves that cannot be read.
    Leaves,
    /// A tree node or the frontier that the leaves do not lead to.
    Tree,
    /// A head whose root the leaves do not lead to.
    HeadRoot,
    /// A head whose note the caller's check refused.
    HeadSignature,
    /// Postings that are not exactly those of the leaves.
    Signals,
    /// Killers that are not exactly those of the leaves.
    Killers,
    /// Opinions that are not exactly those of the leaves.
    Opinions,
    /// An entry's row that is not its latest version.
    Entries,
    /// A reference that is not its latest version.
    References,
    /// Leaves in quarantine that are no publish leaves, or not what the gate says.
    Quarantine,
    /// Counts, or what is dead, that are not those of the leaves.
    Counts,
    /// The set of leaves that are held as records alone is another.
    Elided,
}

/// One thing that is wrong, without keys or values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The feed.
    pub feed: FeedNo,
    /// What is wrong.
    pub kind: FindingKind,
    /// Where: a leaf index, a size, or a count, as the text says.
    pub text: String,
}

/// What [`Store::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Feeds checked.
    pub feeds: u64,
    /// Leaves hashed.
    pub leaves: u64,
    /// Heads checked.
    pub heads: u64,
    /// Postings compared.
    pub postings: u64,
    /// Leaves that are held as records alone.
    pub elided: u64,
    /// Of these, those that nothing makes dead: they are still to come.
    pub missing: u64,
    /// What is wrong; empty for a sound store. At most 100 per feed.
    pub findings: Vec<Finding>,
}

/// How often, and how long apart, leaves that are not where they should be are read
/// again while their feed has a writer.
const READS_MAX: u32 = 100;
const BETWEEN_READS: Duration = Duration::from_millis(10);

/// Findings of one feed that are reported.
const FINDINGS_MAX: usize = 100;

impl Store {
    /// Recomputes every feed from its leaves: page hashes, tree, heads, postings,
    /// killers, opinions, entries, references, counts. `check_note` verifies a head's note
    /// with the publisher's keys; `progress` is told leaves done and leaves in all.
    /// A feed is checked as it stands when its turn comes; what is appended to it
    /// meanwhile is not looked at.
    ///
    /// # Errors
    /// What RocksDB answers; what is wrong with the data is in the report.
    pub fn verify(
        &self,
        mut check_note: impl FnMut(&FeedInfo, &Head) -> Result<(), Rejection>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<VerifyReport> {
        let feeds = self.inner.feeds();
        let total = feeds.by_no.values().map(|feed| feed.info().stored).sum();
        let mut report = VerifyReport::default();
        let mut wanted = BTreeMap::new();
        for state in feeds.by_no.values() {
            let mut check = FeedCheck::new(&self.inner, state);
            check.run(&mut report, &mut |done| progress(done, total))?;
            check.heads(&mut check_note, &mut report)?;
            let sums = Sums {
                indexed: check.info.indexed,
                signals: check.signals,
                opinions: check.opinions,
                without_frames: check.without_frames,
            };
            wanted.insert(state.no, sums);
            report.findings.append(&mut check.findings);
            report.feeds = report.feeds.saturating_add(1);
            report.elided = report.elided.saturating_add(check.info.elided);
            report.missing = report.missing.saturating_add(check.info.missing);
        }
        self.compare_signals(&wanted, &mut report)?;
        self.compare_opinions(&wanted, &mut report)?;
        Ok(report)
    }

    /// No posting without a leaf, no leaf without its postings, below where each feed
    /// was indexed when it was checked.
    fn compare_signals(&self, wanted: &Wanted, report: &mut VerifyReport) -> Result<()> {
        let mut found: BTreeMap<FeedNo, Sum> = BTreeMap::new();
        self.inner
            .scan(Family::Signals, &[], &[0xff; 64], |key, value| {
                let (no, index) = keys::read_signal(key)?;
                report.postings = report.postings.saturating_add(1);
                // A load that a crash cut off may have left frames of what waits now.
                let waits = |sums: &Sums| sums.without_frames.contains(index);
                if key.first() == Some(&FRAME_KIND) && wanted.get(&no).is_some_and(waits) {
                    return Ok(true);
                }
                if !self.is_later(no, index, wanted) {
                    found.entry(no).or_default().add(key, value);
                }
                Ok(true)
            })?;
        let sums = wanted.iter().map(|(no, sums)| (*no, sums.signals));
        let what = (FindingKind::Signals, "postings");
        compare(what, &sums.collect(), &found, report);
        Ok(())
    }

    /// The same of opinions.
    fn compare_opinions(&self, wanted: &Wanted, report: &mut VerifyReport) -> Result<()> {
        let mut found: BTreeMap<FeedNo, Sum> = BTreeMap::new();
        let feeds = self.inner.feeds();
        self.inner
            .scan(Family::Opinions, &[], &[0xff; 64], |key, value| {
                let by = crate::opinions::read_key(key)?;
                // Of a feed that is not there: no feed has this number.
                let no = feeds.by_id.get(&by.feed).copied().unwrap_or(FeedNo(0));
                if !self.inner.opinions.knows(key) {
                    let text = format!("leaf {} is not known in memory", by.index);
                    let (feed, kind) = (no, FindingKind::Opinions);
                    report.findings.push(Finding { feed, kind, text });
                }
                if !self.is_later(no, by.index, wanted) {
                    found.entry(no).or_default().add(key, value);
                }
                Ok(true)
            })?;
        let sums = wanted.iter().map(|(no, sums)| (*no, sums.opinions));
        let what = (FindingKind::Opinions, "opinions");
        compare(what, &sums.collect(), &found, report);
        Ok(())
    }

    /// Whether a posting belongs to a leaf that was not indexed yet when its feed was
    /// checked: of a load that was cut off, of which the next commit writes the same,
    /// or of one since then.
    fn is_later(&self, no: FeedNo, index: u64, wanted: &Wanted) -> bool {
        let state = self.inner.feeds().by_no.get(&no).cloned();
        let Some(state) = state else {
            return false;
        };
        match wanted.get(&no) {
            Some(sums) if index < sums.indexed => false,
            Some(_) => index < state.info().stored,
            // The feed was made since then.
            None => true,
        }
    }
}

/// Compares rows of all feeds that are too many to be looked up one by one.
fn compare(
    (kind, what): (FindingKind, &str),
    wanted: &BTreeMap<FeedNo, Sum>,
    found: &BTreeMap<FeedNo, Sum>,
    report: &mut VerifyReport,
) {
    let feeds: BTreeSet<FeedNo> = wanted.keys().chain(found.keys()).copied().collect();
    for feed in feeds {
        let of = |sums: &BTreeMap<FeedNo, Sum>| sums.get(&feed).copied().unwrap_or_default();
        let (wanted, found) = (of(wanted), of(found));
        if wanted != found {
            let text = format!("{} {what} instead of {}", found.rows, wanted.rows);
            report.findings.push(Finding { feed, kind, text });
        }
    }
}

/// What the leaves of each feed give.
type Wanted = BTreeMap<FeedNo, Sums>;

/// What the leaves of one feed give, up to where it was indexed.
struct Sums {
    indexed: u64,
    signals: Sum,
    opinions: Sum,
    without_frames: RoaringTreemap,
}

/// The check of one feed.
struct FeedCheck<'s> {
    inner: &'s Inner,
    state: &'s FeedState,
    info: FeedInfo,
    /// The compact range and the dead leaves that go with `info`.
    frontier: CompactRange,
    dead: RoaringTreemap,
    range: CompactRange,
    signals: Sum,
    opinions: Sum,
    killers: Sum,
    retractions: u64,
    replaced: u64,
    counts: FeedCounts,
    /// Leaves without frames, and those whose frames are in no count.
    without_frames: RoaringTreemap,
    uncounted: RoaringTreemap,
    /// Leaves that may be in quarantine.
    publishes: RoaringTreemap,
    /// What the gate holds back.
    gate: Marks,
    roots: BTreeMap<u64, Option<Digest>>,
    /// Leaves that are records alone.
    elided: RoaringTreemap,
    /// The last leaf that is: an entry's latest version may be one.
    last_elided: Option<u64>,
    findings: Vec<Finding>,
}

impl<'s> FeedCheck<'s> {
    fn new(inner: &'s Inner, state: &'s FeedState) -> Self {
        let (info, frontier, dead) = state.standing();
        let quarantine = Arc::clone(&read(&state.live).quarantine);
        Self {
            without_frames: frame_room::without_frames(&quarantine),
            uncounted: frame_room::uncounted(&quarantine),
            inner,
            state,
            info,
            frontier,
            dead,
            range: CompactRange::empty(0),
            signals: Sum::default(),
            opinions: Sum::default(),
            killers: Sum::default(),
            retractions: 0,
            replaced: 0,
            counts: FeedCounts::default(),
            publishes: RoaringTreemap::new(),
            gate: Marks::default(),
            roots: BTreeMap::new(),
            elided: RoaringTreemap::new(),
            last_elided: read(&state.live).elided.max(),
            findings: Vec::new(),
        }
    }

    fn run(&mut self, report: &mut VerifyReport, progress: &mut impl FnMut(u64)) -> Result<()> {
        self.inner
            .scan_feed(Family::Heads, self.info.no, |key, _| {
                self.roots.insert(keys::read_head(key)?.2, None);
                Ok(true)
            })?;
        self.note_root();
        let stored = self.info.stored;
        while self.range.end() < stored {
            let from = self.range.end();
            let to = page_end(from).min(stored);
            match self.leaves(from, to) {
                Ok(leaves) => self.page(&leaves)?,
                Err(StoreError::Corrupt { what }) => {
                    let text = format!("leaves {from} to {to}: {what}");
                    self.find(FindingKind::Leaves, text);
                    return Ok(());
                }
                Err(other) => return Err(other),
            }
            report.leaves = report.leaves.saturating_add(to.saturating_sub(from));
            progress(report.leaves);
        }
        self.compare_row();
        self.compare_quarantine()?;
        self.compare_killers()?;
        self.compare_entries()?;
        self.compare_refs()
    }

    fn page(&mut self, leaves: &[RawLeaf]) -> Result<()> {
        let mut nodes = Vec::new();
        for leaf in leaves {
            let index = self.range.end();
            self.range.push_with(leaf.hash(), &mut |node, hash| {
                if node.level >= PAGE_LEVEL {
                    nodes.push((node, hash));
                }
            });
            self.note_root();
            if leaf.kind == PUBLISH {
                self.publishes.insert(index);
            }
            if leaf.is_elided() {
                self.elided.insert(index);
            }
            if index < self.info.indexed {
                self.leaf(index, leaf)?;
            }
        }
        for (node, hash) in nodes {
            let key = keys::tree(self.info.no, node.level, node.index);
            if self.inner.get(Family::Tree, key)?.as_deref() != Some(hash.as_bytes()) {
                let text = format!("node {} of level {}", node.index, node.level);
                self.find(FindingKind::Tree, text);
            }
        }
        Ok(())
    }

    fn leaf(&mut self, index: u64, leaf: &RawLeaf) -> Result<()> {
        let derived = derive(self.inner, self.state, index, leaf)?;
        for lot in &derived.held {
            self.gate.add(*lot, index);
        }
        let counter = derived.sort.counter(&mut self.counts);
        *counter = counter.saturating_add(1);
        let mut value = Vec::new();
        for (key, record) in &derived.postings {
            let frame = is_frame(key);
            if frame && self.without_frames.contains(index) {
                continue;
            }
            value.clear();
            record.write(&mut value);
            let key = keys::signal(key, self.info.no, index);
            self.signals.add(&key, &value);
            if !frame || !self.uncounted.contains(index) {
                let counts = &mut self.counts;
                counts.postings = counts.postings.saturating_add(1);
                counts.frames = counts.frames.saturating_add(u64::from(frame));
            }
        }
        if let Some(opinion) = &derived.opinion {
            self.opinions.add(&opinion.key, &opinion.value);
        }
        if let Some(killer) = &derived.killer {
            let key = keys::numbered(self.info.no, index);
            self.killers.add(&key, &seal(killer));
        }
        if let Some(row) = &derived.retraction {
            let kept = row.is_kept(self.inner, self.info.no)?;
            self.retractions = self.retractions.saturating_add(u64::from(kept));
        }
        self.latest(index, &derived)
    }

    /// The rows that name a latest version name this one or a later one; whether a
    /// later one is of the same entry is checked from the row's side.
    fn latest(&mut self, index: u64, derived: &Derived) -> Result<()> {
        let no = self.info.no;
        if let Some(replaces) = derived.replaces {
            self.replaced = self.replaced.saturating_add(1);
            let row = self
                .inner
                .get(Family::Entries, keys::numbered(no, replaces.first))?;
            let latest = row.map(|row| unseal_index(&row)).transpose()?;
            if latest.is_none_or(|latest| latest < index) && !self.erased_after(index) {
                self.find(FindingKind::Entries, format!("entry of leaf {index}"));
            }
        }
        if let Some((digest, _)) = &derived.reference {
            let row = self.inner.get(Family::Refs, keys::reference(no, digest))?;
            let latest = row.map(|row| unseal_reference(&row)).transpose()?;
            if latest.is_none_or(|(latest, _)| latest < index) && !self.erased_after(index) {
                self.find(
                    FindingKind::References,
                    format!("reference of leaf {index}"),
                );
            }
        }
        Ok(())
    }

    /// Whether a later leaf is its record alone: it may have been the latest version,
    /// and the row went with its payload.
    fn erased_after(&self, index: u64) -> bool {
        self.last_elided.is_some_and(|last| last > index)
    }

    fn compare_row(&mut self) {
        if read(&self.state.live).elided != self.elided {
            let text = format!("{} leaves are their record alone", self.elided.len());
            self.find(FindingKind::Elided, text);
        }
        if self.frontier != self.range {
            let text = format!("the frontier at {}", self.info.stored);
            self.find(FindingKind::Tree, text);
        }
        if self.counts != self.info.counts {
            let text = format!("counts below {}", self.info.indexed);
            self.find(FindingKind::Counts, text);
        }
    }

    /// Only publish leaves are held back, and memory says what the rows say.
    fn compare_quarantine(&mut self) -> Result<()> {
        let stored = Quarantine::load(self.inner, self.info.no)?;
        let same = *read(&self.state.live).quarantine == stored;
        let strangers: u64 = stored
            .lots
            .values()
            .flat_map(Lot::sets)
            .map(|set| set.difference_len(&self.publishes))
            .sum();
        if !same || strangers > 0 {
            let text = format!("{strangers} leaves in quarantine are no publish leaves");
            self.find(FindingKind::Quarantine, text);
        }
        let derived = stored.lots.keys().filter(|name| name.reason.is_derived());
        let names: BTreeSet<LotName> = derived.chain(self.gate.0.keys()).copied().collect();
        for name in names {
            let said = self.gate.0.get(&name).cloned().unwrap_or_default();
            let held = stored.lots.get(&name).map(Lot::all).unwrap_or_default();
            let wrong = (&said ^ &held) - &self.elided;
            if !wrong.is_empty() {
                let text = format!("{}: {} leaves", name.reason.code(), wrong.len());
                self.find(FindingKind::Quarantine, text);
            }
        }
        Ok(())
    }

    fn compare_killers(&mut self) -> Result<()> {
        let mut found = Sum::default();
        let (no, indexed) = (self.info.no, self.info.indexed);
        self.inner.scan_feed(Family::Killers, no, |key, value| {
            let (_, index) = keys::read_numbered(key)?;
            if index < indexed {
                found.add(key, value);
            }
            Ok(true)
        })?;
        if found != self.killers {
            let text = format!("{} killers instead of {}", found.rows, self.killers.rows);
            self.find(FindingKind::Killers, text);
        }
        // One row a leaf, all of which say what their leaves do.
        let (kept, said) = (self.retractions, self.counts.retract + self.counts.erase);
        if kept != said || retractions::count(self.inner, no, indexed)? != said {
            let text = format!("rows of {kept} retractions instead of {said}");
            self.find(FindingKind::Killers, text);
        }
        let rebuilt = crate::index::killers::rebuild(self.inner, no, indexed)?;
        if self.dead != rebuilt.dead() {
            self.find(FindingKind::Counts, format!("the dead below {indexed}"));
        }
        Ok(())
    }

    fn compare_entries(&mut self) -> Result<()> {
        let no = self.info.no;
        let mut wrong = Vec::new();
        self.inner.scan_feed(Family::Entries, no, |key, value| {
            let (_, first) = keys::read_numbered(key)?;
            let latest = unseal_index(value)?;
            let says = self.derived(latest)?.and_then(|derived| derived.replaces);
            if latest < self.info.indexed && says.is_none_or(|r| r.first != first) {
                wrong.push(latest);
            }
            Ok(wrong.len() < FINDINGS_MAX)
        })?;
        for latest in wrong {
            let text = format!("the row that names leaf {latest}");
            self.find(FindingKind::Entries, text);
        }
        Ok(())
    }

    fn compare_refs(&mut self) -> Result<()> {
        let mut wrong = Vec::new();
        self.inner
            .scan_feed(Family::Refs, self.info.no, |key, value| {
                let (index, content) = unseal_reference(value)?;
                let says = self.derived(index)?.and_then(|derived| derived.reference);
                let digest = key.get(4..).unwrap_or_default();
                let same = says.is_some_and(|(d, c)| d.as_slice() == digest && c == content);
                if index < self.info.indexed && !same {
                    wrong.push(index);
                }
                Ok(wrong.len() < FINDINGS_MAX)
            })?;
        for index in wrong {
            let text = format!("the row that names leaf {index}");
            self.find(FindingKind::References, text);
        }
        Ok(())
    }

    fn derived(&self, index: u64) -> Result<Option<Derived>> {
        if index >= self.info.stored {
            return Ok(None);
        }
        let leaves = self.leaves(index, index.saturating_add(1))?;
        leaves
            .first()
            .map(|leaf| derive(self.inner, self.state, index, leaf))
            .transpose()
    }

    /// Reads leaves where they lie now: a writer moves the last ones into a page, which
    /// shows in the rows a moment before it shows in memory.
    fn leaves(&self, from: u64, to: u64) -> Result<Vec<RawLeaf>> {
        for _ in 0..READS_MAX {
            let stored = self.state.info().stored;
            match self.inner.leaves(self.info.no, stored, from, to) {
                Err(StoreError::Corrupt { .. }) if self.state.busy.load(Ordering::Acquire) => {
                    std::thread::sleep(BETWEEN_READS);
                }
                Err(StoreError::Corrupt { .. }) if self.state.info().stored != stored => {}
                read => return read,
            }
        }
        let stored = self.state.info().stored;
        self.inner.leaves(self.info.no, stored, from, to)
    }

    fn heads(
        &mut self,
        check_note: &mut impl FnMut(&FeedInfo, &Head) -> Result<(), Rejection>,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let mut heads = Vec::new();
        self.inner
            .scan_feed(Family::Heads, self.info.no, |key, value| {
                let (_, epoch, size) = keys::read_head(key)?;
                heads.push(Head::read(epoch, size, value)?);
                Ok(true)
            })?;
        for head in heads {
            report.heads = report.heads.saturating_add(1);
            let at = head.at();
            // A head beyond what is stored waits to be pulled.
            let root = self.roots.get(&at.size).copied().flatten();
            if at.size <= self.info.stored && root != Some(at.root) {
                let text = format!("the head of size {}", at.size);
                self.find(FindingKind::HeadRoot, text);
            }
            if let Err(rejection) = check_note(&self.info, &head) {
                let text = format!("the head of size {}: {}", at.size, rejection.code());
                self.find(FindingKind::HeadSignature, text);
            }
        }
        Ok(())
    }

    fn note_root(&mut self) {
        let end = self.range.end();
        if let Some(root) = self.roots.get_mut(&end) {
            *root = self.range.root();
        }
    }

    fn find(&mut self, kind: FindingKind, text: String) {
        if self.findings.len() < FINDINGS_MAX {
            let feed = self.info.no;
            self.findings.push(Finding { feed, kind, text });
        }
    }
}
