//! Reading opinions: of each feed the last word about a subject, as far as it is alive.

use std::collections::{BTreeMap, BTreeSet};

use hashpact_core::id::{FeedId, MemberNumber};
use hashpact_core::leaf::{Opinion, Subject};
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_core::standing::LiveOpinion;
use rocksdb::{DBRawIterator, ReadOptions};

use super::rows::{self, Value};
use super::{opinion_of, prefix_of};
use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::FeedState;
use crate::keys::{FeedNo, IndexKey};
use crate::store::{Inner, Store, read};

/// Of one feed, leaves about one subject that are looked at, the newest first. Whoever
/// changes an opinion names what was before it, so that its newest leaf is its word;
/// who does not speaks at the cost of its own voice alone.
const LEAVES_PER_FEED: usize = 256;
/// Of one member, feeds with an opinion about one subject that are looked at.
const FEEDS_PER_MEMBER: usize = 8;

/// A live opinion: the last word of its feed about its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaidOpinion {
    /// Who says it.
    pub member: MemberNumber,
    /// The opinions feed.
    pub feed: FeedId,
    /// The same, in this store.
    pub feed_no: FeedNo,
    /// The leaf's index.
    pub index: u64,
    /// Whether it counts in doubt: only what is held for review takes it back, or a
    /// roster cut off what had.
    pub in_doubt: bool,
    /// What it says; its note and what it replaces stand in the leaf alone.
    pub opinion: Opinion,
}

impl SaidOpinion {
    /// The same, as standing is reckoned from.
    #[must_use]
    pub const fn live(&self) -> LiveOpinion<'_> {
        LiveOpinion {
            feed: self.feed,
            index: self.index,
            opinion: &self.opinion,
        }
    }
}

/// Opinions about a signal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpinionsOf {
    /// Those that count.
    pub said: Vec<SaidOpinion>,
    /// How many do not: their writer does not publish the signal, as far as is held here.
    pub ignored: u64,
}

/// Some opinions, and where to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListedOpinions {
    /// All about one subject together.
    pub said: Vec<SaidOpinion>,
    /// What to go on after; `None` at the end.
    pub next: Option<Vec<u8>>,
}

impl Store {
    /// The live opinions about an entry, named by its feed and first index, the whole of
    /// it or one kind of its signals: of each opinions feed the last word about each, in
    /// the order of members and feeds. Of a feed the 256 newest leaves about the entry
    /// are looked at, of a member 8 feeds; kinds that nobody knows are left out.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn opinions_on(&self, feed: &FeedId, first: u64) -> Result<Vec<SaidOpinion>> {
        on_entry(&self.inner, feed, first)
    }

    /// The opinions about an entry as they stood at a moment of the past, within the bounds
    /// of [`Store::opinions_on`], and whether anything was left out by these. `size` says
    /// how many leaves a feed had then, `stood` which of them lived.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn opinions_then(
        &self,
        feed: &FeedId,
        first: u64,
        size: &dyn Fn(FeedNo) -> Option<u64>,
        stood: &dyn Fn(FeedNo, u64) -> bool,
    ) -> Result<(Vec<SaidOpinion>, bool)> {
        let then = Moment {
            size: &|state| state.and_then(|state| size(state.no)),
            says: &|state, index| stood(state.no, index).then_some(false),
        };
        let prefix = rows::entry_prefix(feed, first);
        said_at(&self.inner, &prefix, &about_entry(*feed, first), &then)
    }

    /// Whether, of all that was ever said of a signal, dead or alive, in the feeds held
    /// here, there is a leaf that `is_meant`.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn any_opinion_on_signal(
        &self,
        signal: &Signal,
        is_meant: impl Fn(FeedNo, u64) -> bool,
    ) -> Result<bool> {
        let prefix = prefix_of(&Subject::OwnSignal(signal.clone()));
        if !self.inner.opinions.may_have(&prefix) {
            return Ok(false);
        }
        let (table, end) = (self.inner.feeds(), after_all(&prefix));
        let mut found = false;
        self.inner.scan(Family::Opinions, &prefix, &end, |key, _| {
            let by = rows::read_key(key)?;
            let no = table.by_id.get(&by.feed);
            found = no.is_some_and(|no| is_meant(*no, by.index));
            Ok(!found)
        })?;
        Ok(found)
    }

    /// The live opinions about a signal. One counts only where its writer publishes the
    /// signal itself, in a set that is held here and answers: else it would be a word
    /// about somebody else's.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn opinions_on_signal(&self, signal: &Signal) -> Result<OpinionsOf> {
        let prefix = prefix_of(&Subject::OwnSignal(signal.clone()));
        if !self.inner.opinions.may_have(&prefix) {
            return Ok(OpinionsOf::default());
        }
        let subject = Subject::OwnSignal(signal.clone());
        let mut said = said_of(&self.inner, &prefix, &|_, _, _| Ok(Some(subject.clone())))?;
        let all = said.len();
        if all > 0 {
            let publishers = self.publishers_of(signal)?;
            said.retain(|said| publishers.contains(&said.member));
        }
        let ignored = u64::try_from(all.saturating_sub(said.len())).unwrap_or(0);
        Ok(OpinionsOf { said, ignored })
    }

    /// Whether there may be opinions on the signal of a key: a no is always right.
    #[must_use]
    pub fn may_have_opinions(&self, signal: &IndexKey) -> bool {
        self.inner.opinions.may_have(&rows::signal_prefix(signal))
    }

    /// The last word of one feed about a subject, whether or not it counts; `None` where
    /// there is none that lives.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn last_word(&self, no: FeedNo, subject: &Subject) -> Result<Option<SaidOpinion>> {
        let kind = match subject {
            Subject::Entry { kind, .. } => *kind,
            Subject::OwnSignal(_) => None,
        };
        let about = |state: &FeedState, _: u64, value: &Value| {
            let same = state.no == no && value.kind == kind;
            Ok(same.then(|| subject.clone()))
        };
        let said = said_of(&self.inner, &prefix_of(subject), &about)?;
        Ok(said.into_iter().next())
    }

    /// The opinion at an index of a feed, where it lives; its subject with the rest.
    ///
    /// # Errors
    /// [`StoreError::UnknownFeed`], or what RocksDB answers.
    pub fn opinion_at(&self, no: FeedNo, index: u64) -> Result<Option<SaidOpinion>> {
        let state = self.inner.feed(no)?;
        let Some(in_doubt) = state.says(index) else {
            return Ok(None);
        };
        let opinion = opinion_of(&self.read_leaf(no, index)?, index);
        Ok(opinion.map(|opinion| SaidOpinion {
            member: state.publisher,
            feed: state.id,
            feed_no: no,
            index,
            in_doubt,
            opinion,
        }))
    }

    /// The members that publish a signal, as far as is held here and answers.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn publishers_of(&self, signal: &Signal) -> Result<BTreeSet<MemberNumber>> {
        let found = self.lookup_bounded(&[signal.index_key()], 1)?;
        let feeds = self.inner.feeds();
        let found = found.into_iter().flat_map(|found| found.postings);
        let publishers = found.filter_map(|posting| {
            let state = feeds.by_no.get(&posting.feed)?;
            Some(state.publisher)
        });
        Ok(publishers.collect())
    }

    /// Lists live opinions: about the entries of one feed, or about everything, from
    /// after where an earlier answer ended; at least `limit` where there are so many, and
    /// never half of those about one subject. Some that do not count are among them:
    /// whether they do is asked of each signal.
    ///
    /// # Errors
    /// What RocksDB answers.
    pub fn list_opinions(
        &self,
        about: Option<&FeedId>,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<ListedOpinions> {
        let inner = &*self.inner;
        let prefix = about.map_or_else(Vec::new, |feed| rows::feed_prefix(feed).to_vec());
        let mut listed = ListedOpinions::default();
        let mut at = match after {
            Some(after) if after.starts_with(&prefix) => after_all(after),
            Some(_) | None => prefix.clone(),
        };
        while let Some(subject) = next_subject(inner, &at, &prefix)? {
            if listed.said.len() >= limit {
                return Ok(listed);
            }
            let mut said = said_of(inner, &subject, &|state, index, value| {
                subject_in(inner, &subject, state, index, value)
            })?;
            listed.said.append(&mut said);
            at = after_all(&subject);
            listed.next = Some(subject);
        }
        listed.next = None;
        Ok(listed)
    }
}

/// As [`Store::opinions_on`].
pub(crate) fn on_entry(inner: &Inner, feed: &FeedId, first: u64) -> Result<Vec<SaidOpinion>> {
    let prefix = rows::entry_prefix(feed, first);
    if !inner.opinions.may_have(&prefix) {
        return Ok(Vec::new());
    }
    said_of(inner, &prefix, &about_entry(*feed, first))
}

/// What a row about an entry is about.
fn about_entry(
    feed: FeedId,
    first: u64,
) -> impl Fn(&FeedState, u64, &Value) -> Result<Option<Subject>> {
    move |_, _, value| {
        let kind = value.kind;
        Ok(Some(Subject::Entry { feed, first, kind }))
    }
}

/// Calls `visit` with every entry that has opinions, alive or dead.
pub(crate) fn subjects(
    inner: &Inner,
    visit: &mut dyn FnMut(FeedId, u64) -> Result<()>,
) -> Result<()> {
    let mut at = vec![rows::ENTRY];
    while let Some(subject) = next_subject(inner, &at, &[rows::ENTRY])? {
        if let Some((feed, first)) = rows::entry_of(&subject) {
            visit(feed, first)?;
        }
        at = after_all(&subject);
    }
    Ok(())
}

/// The signals that have opinions, alive or dead, the first `limit` of them.
pub(crate) fn signal_subjects(inner: &Inner, limit: usize) -> Result<BTreeSet<IndexKey>> {
    let mut signals = BTreeSet::new();
    let mut at = vec![rows::SIGNAL];
    while signals.len() < limit
        && let Some(subject) = next_subject(inner, &at, &[rows::SIGNAL])?
    {
        let key = subject.get(1..).unwrap_or_default();
        signals.extend(IndexKey::try_from(key).ok());
        at = after_all(&subject);
    }
    Ok(signals)
}

/// The live opinions about the signal of a key, whether or not they count.
pub(crate) fn on_key(inner: &Inner, signal: &IndexKey) -> Result<Vec<SaidOpinion>> {
    let prefix = rows::signal_prefix(signal);
    if !inner.opinions.may_have(&prefix) {
        return Ok(Vec::new());
    }
    said_of(inner, &prefix, &|state, index, value| {
        subject_in(inner, &prefix, state, index, value)
    })
}

/// The first key after all that begin so.
fn after_all(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    vec![0xff]
}

/// The first subject at or after a key.
fn next_subject(inner: &Inner, from: &[u8], prefix: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut found = None;
    inner.scan(Family::Opinions, from, &[0xff], |key, _| {
        if key.starts_with(prefix) {
            found = Some(rows::subject_of(key).to_vec());
        }
        Ok(false)
    })?;
    Ok(found)
}

/// What a row's opinion is about; of a signal only the leaf has it whole.
fn subject_in(
    inner: &Inner,
    subject: &[u8],
    state: &FeedState,
    index: u64,
    value: &Value,
) -> Result<Option<Subject>> {
    if let Some((feed, first)) = rows::entry_of(subject) {
        let kind = value.kind;
        return Ok(Some(Subject::Entry { feed, first, kind }));
    }
    let stored = read(&state.live).row.stored;
    let leaves = match inner.leaves(state.no, stored, index, index.saturating_add(1)) {
        // It was cut off meanwhile.
        Err(StoreError::OutOfRange { .. }) => return Ok(None),
        other => other?,
    };
    let opinion = leaves.first().and_then(|leaf| opinion_of(leaf, index));
    Ok(opinion.map(|opinion| opinion.subject))
}

/// What a row's opinion is about, by its feed, index and value.
type SubjectOf<'s> = dyn Fn(&FeedState, u64, &Value) -> Result<Option<Subject>> + 's;

/// Of when the opinions are.
struct Moment<'m> {
    /// How many leaves a feed had; `None` where it was not there. A feed that is not here
    /// now takes a place among its member's all the same.
    size: &'m dyn Fn(Option<&FeedState>) -> Option<u64>,
    /// Whether a leaf counted, and if so, whether in doubt.
    says: &'m dyn Fn(&FeedState, u64) -> Option<bool>,
}

/// The last words about a subject, in the order of members, feeds and kinds.
fn said_of(inner: &Inner, subject: &[u8], about: &SubjectOf<'_>) -> Result<Vec<SaidOpinion>> {
    let now = Moment {
        size: &|_| Some(u64::MAX),
        says: &FeedState::says,
    };
    Ok(said_at(inner, subject, about, &now)?.0)
}

/// The same at a moment, and whether anything was left out.
fn said_at(
    inner: &Inner,
    subject: &[u8],
    about: &SubjectOf<'_>,
    moment: &Moment<'_>,
) -> Result<(Vec<SaidOpinion>, bool)> {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(subject.to_vec());
    options.set_iterate_upper_bound(after_all(subject));
    let family = inner.cf(Family::Opinions)?;
    let mut iterator = inner.db.raw_iterator_cf_opt(family, options);
    iterator.seek_to_last();
    let table = inner.feeds();
    let (mut all, mut left_out) = (Vec::new(), false);
    let mut member: Option<(MemberNumber, usize)> = None;
    while let Some((key, _)) = iterator.item() {
        let by = rows::read_key(key)?;
        let begin = key.get(..key.len().saturating_sub(8)).unwrap_or(key);
        let begin = begin.to_vec();
        let state = table.by_id.get(&by.feed).and_then(|no| table.by_no.get(no));
        let size = (moment.size)(state.map(|state| &**state)).unwrap_or(0);
        if by.index >= size {
            // What came later: on to the last leaf of the moment, or to another feed.
            match size.checked_sub(1) {
                Some(last) => {
                    seek_before(&mut iterator, &[&begin[..], &last.to_be_bytes()].concat());
                }
                None => seek_before(&mut iterator, &begin),
            }
            continue;
        }
        let feeds = match member {
            Some((last, feeds)) if last == by.member => feeds,
            Some(_) | None => 0,
        };
        member = Some((by.member, feeds.saturating_add(1)));
        if feeds == FEEDS_PER_MEMBER {
            left_out = true;
            let begin = [subject, &by.member.value().to_be_bytes()].concat();
            seek_before(&mut iterator, &begin);
            continue;
        }
        let mut words: BTreeMap<Option<u32>, SaidOpinion> = BTreeMap::new();
        let mut looked = 0;
        while let Some((key, value)) = iterator.item() {
            let at = rows::read_key(key)?;
            if (at.member, at.feed) != (by.member, by.feed) {
                break;
            }
            if looked == LEAVES_PER_FEED {
                left_out = true;
                seek_before(&mut iterator, &begin);
                break;
            }
            looked += 1;
            if let Some((state, in_doubt)) =
                state.and_then(|state| Some((state, (moment.says)(state, at.index)?)))
            {
                let value = rows::read_value(value)?;
                let is_known = value
                    .kind
                    .is_none_or(|kind| SignalKind::from_number(kind).is_some());
                if is_known
                    && let std::collections::btree_map::Entry::Vacant(word) =
                        words.entry(value.kind)
                    && let Some(subject) = about(state, at.index, &value)?
                {
                    word.insert(said(state, at.index, in_doubt, subject, &value));
                }
            }
            iterator.prev();
        }
        all.extend(words.into_values().rev());
    }
    iterator
        .status()
        .map_err(StoreError::engine("reading opinions"))?;
    all.reverse();
    Ok((all, left_out))
}

/// Goes to the last key below `begin`.
fn seek_before(iterator: &mut DBRawIterator<'_>, begin: &[u8]) {
    iterator.seek_for_prev(begin);
}

fn said(
    state: &FeedState,
    index: u64,
    in_doubt: bool,
    subject: Subject,
    value: &Value,
) -> SaidOpinion {
    SaidOpinion {
        member: state.publisher,
        feed: state.id,
        feed_no: state.no,
        index,
        in_doubt,
        opinion: Opinion {
            subject,
            stance: value.stance,
            confidence: value.confidence,
            reason_id: value.reason_id,
            note: String::new(),
            replaces: Vec::new(),
            created: value.created,
        },
    }
}

impl FeedState {
    /// Whether an opinion leaf counts, and if so, whether in doubt.
    fn says(&self, index: u64) -> Option<bool> {
        let live = read(&self.live);
        if index >= live.row.indexed || !live.status.answers() {
            return None;
        }
        if live.liveness.is_dead(index) {
            live.held.answers(index)
        } else {
            Some(live.doubted.contains(index))
        }
    }
}
