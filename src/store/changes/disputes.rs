//! Which entries opinions dispute, as it was logged last.
//!
//! An opinion stands in one feed and changes what is made of another. So when feeds are
//! compared, the entries that new, changed and withdrawn opinions are on are looked at
//! again, and where one stands otherwise than it was logged, its leaves are logged as
//! changed. Whoever reads the log asks how they stand by then.
//!
//! Opinions on signals are [`signals`](super::signals)' own.

use std::collections::{BTreeMap, BTreeSet};

use hashpact_core::id::{Digest, FeedId};
use hashpact_core::leaf::{self, Leaf, OPINION, Stance, Subject};
use hashpact_core::limits::PAGE_LEAVES;
use hashpact_core::standing::{self, EntryState, Standing};
use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use super::rows::{self, DISPUTED};
use super::shown::Difference;
use super::{FeedShown, WholeStanding};
use crate::error::{Result, StoreError};
use crate::families::Family;
use crate::feeds::{FeedKind, FeedState};
use crate::keys;
use crate::opinions::{SaidOpinion, on_entry, opinion_of, subjects};
use crate::record::{unseal_index, version};
use crate::store::{FeedTable, Inner, read};

/// Entries that are looked at one by one; for more, all that have opinions are.
const TOUCHED_MAX: usize = 65_536;

/// The entries that changed opinions are on.
#[derive(Debug, Default)]
pub(super) struct Touched {
    entries: BTreeSet<(FeedId, u64)>,
    /// What some were on cannot be said any more: all are looked at.
    all: bool,
}

/// Entries by the first indexes, of each feed.
pub(super) type Changed = BTreeMap<FeedId, BTreeSet<u64>>;

impl Touched {
    /// Everything is to be looked at.
    pub(super) fn everything(&mut self) {
        self.all = true;
    }

    /// Whether nothing changed.
    pub(super) fn is_empty(&self) -> bool {
        !self.all && self.entries.is_empty()
    }

    /// Takes what changed of one feed.
    pub(super) fn take(
        &mut self,
        inner: &Inner,
        state: &FeedState,
        (before, after): (Option<&FeedShown>, &FeedShown),
        difference: &Difference,
        was_cut: bool,
    ) -> Result<()> {
        match state.kind {
            FeedKind::HashSet => return Ok(()),
            FeedKind::Opinions => {}
        }
        let nothing = WholeStanding::Nothing;
        let counts = after.whole.standing != nothing;
        let counted = before.is_some_and(|before| before.whole.standing != nothing);
        // What begins to count is all told as added; of what ends nothing is.
        self.all |= was_cut || (counted && !counts) || difference.gone;
        if self.all {
            return Ok(());
        }
        self.leaves(inner, state, &(&difference.added | &difference.others))
    }

    fn leaves(&mut self, inner: &Inner, state: &FeedState, leaves: &RoaringTreemap) -> Result<()> {
        let mut indexes = leaves.iter().peekable();
        while let Some(first) = indexes.next() {
            let mut page = vec![first];
            while let Some(next) = indexes.next_if(|next| next / PAGE_LEAVES == first / PAGE_LEAVES)
            {
                page.push(next);
            }
            let end = page.last().map_or(first, |last| last.saturating_add(1));
            let stored = read(&state.live).row.stored;
            let raw = match inner.leaves(state.no, stored, first, end) {
                // Cut off meanwhile, which the next comparison sees.
                Err(StoreError::OutOfRange { .. } | StoreError::Corrupt { .. }) => {
                    self.all = true;
                    return Ok(());
                }
                other => other?,
            };
            for index in page {
                let at = usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX);
                let Some(raw) = raw.get(at).filter(|raw| raw.kind == OPINION) else {
                    continue;
                };
                // Of an erased one nobody knows any more what it was on.
                self.all |= raw.is_elided();
                if let Some(opinion) = opinion_of(raw, index)
                    && let Subject::Entry { feed, first, .. } = opinion.subject
                {
                    self.entries.insert((feed, first));
                }
            }
            self.all |= self.entries.len() > TOUCHED_MAX;
            if self.all {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Compares how the entries stand with what was logged, adds what differs to the
    /// batch, and answers which entries do. Opinions count whose feed `counts`.
    pub(super) fn compare(
        self,
        inner: &Inner,
        batch: &mut WriteBatch,
        counts: &dyn Fn(&SaidOpinion) -> bool,
    ) -> Result<Changed> {
        let mut entries = self.entries;
        if self.all {
            subjects(inner, &mut |feed, first| {
                entries.insert((feed, first));
                Ok(())
            })?;
            // What was disputed and has no opinion any more.
            let from = rows::disputed_key(&FeedId(Digest([0; 32])), 0);
            inner.scan(Family::Changes, &from, &[DISPUTED + 1], |key, _| {
                entries.extend(rows::read_disputed(key));
                Ok(true)
            })?;
        }
        let mut changed = Changed::new();
        let family = inner.cf(Family::Changes)?;
        for (feed, first) in entries {
            let mut said = on_entry(inner, &feed, first)?;
            said.retain(counts);
            let disputes = disputes_of((feed, first), &said);
            let key = rows::disputed_key(&feed, first);
            let logged = inner.get(Family::Changes, &key)?;
            if logged.as_deref().unwrap_or_default() == disputes {
                continue;
            }
            if disputes.is_empty() {
                batch.delete_cf(family, key);
            } else {
                batch.put_cf(family, key, disputes);
            }
            changed.entry(feed).or_default().insert(first);
        }
        Ok(changed)
    }
}

/// How an entry stands by opinions: how many members are against, 0 where the whole of
/// it is disputed, and the kinds of signals that stand otherwise than the whole. Empty where nothing is disputed.
fn disputes_of(entry: (FeedId, u64), said: &[SaidOpinion]) -> Vec<u8> {
    let is_disputed = |kind| {
        let live = said.iter().map(SaidOpinion::live);
        standing::of_entry(entry, kind, EntryState::Live, live) == Standing::Disputed
    };
    let whole = is_disputed(None);
    let mut kinds = BTreeSet::new();
    for said in said {
        if let Subject::Entry { kind: Some(k), .. } = said.opinion.subject
            && let Ok(kind) = u8::try_from(k)
            && is_disputed(Some(k)) != whole
        {
            kinds.insert(kind);
        }
    }
    if !whole && kinds.is_empty() {
        return Vec::new();
    }
    let against = said
        .iter()
        .filter(|said| said.opinion.stance == Stance::Negative)
        .map(|said| said.member);
    let against: BTreeSet<_> = against.collect();
    // A policy may wait for so many: each more is told.
    let against = u8::try_from(against.len()).unwrap_or(u8::MAX);
    let mut bytes = vec![version(), against];
    bytes.extend(whole.then_some(0));
    bytes.extend(kinds);
    bytes
}

/// The leaves of entries that are shown, all versions.
pub(super) fn leaves_of(
    inner: &Inner,
    table: &FeedTable,
    shown: &FeedShown,
    firsts: &BTreeSet<u64>,
) -> Result<RoaringTreemap> {
    let mut leaves = RoaringTreemap::new();
    let no = table.by_id.get(&shown.id);
    let Some(state) = no.and_then(|no| table.by_no.get(no)) else {
        return Ok(leaves);
    };
    let stored = read(&state.live).row.stored;
    for first in firsts.iter().copied() {
        leaves.insert(first);
        let row = inner.get(Family::Entries, keys::numbered(state.no, first))?;
        let Some(latest) = row.map(|row| unseal_index(&row)).transpose()? else {
            continue;
        };
        if latest >= stored {
            continue;
        }
        leaves.insert(latest);
        for raw in inner.leaves(state.no, stored, latest, latest.saturating_add(1))? {
            if let Leaf::Publish(publish) = leaf::read(&raw, latest) {
                leaves.extend(publish.replaces);
            }
        }
    }
    leaves.remove_range(shown.shown.size..);
    Ok(leaves - &shown.shown.absent)
}
