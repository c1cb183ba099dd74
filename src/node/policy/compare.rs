//! What another policy would change, on what the node holds at present.

use std::collections::BTreeMap;

use hashpact_core::id::{EntryName, SetName};
use hashpact_core::leaf::{self, Leaf};
use hashpact_core::limits::PAGE_LEAVES;
use hashpact_core::policy::{Policy, Verdict};
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_store::{FeedInfo, StoreError, WholeStanding};

use super::Judge;
use crate::changes;
use crate::error::NodeError;
use crate::model::{MatchOptions, Matched};
use crate::node::Node;
use crate::views;

/// Entries named of each change of a set.
pub(super) const EXAMPLES: usize = 5;

/// Entries of a set of which the verdict changes in one way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shift {
    /// The set.
    pub set: SetName,
    /// By the old policy.
    pub from: Verdict,
    /// By the new one.
    pub to: Verdict,
}

/// An entry, for looking at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The entry.
    pub entry: EntryName,
    /// A kind of signal of which it changes.
    pub kind: SignalKind,
}

/// What changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    /// Live entries that were looked at.
    pub entries: u64,
    /// Those of which the verdict stays, by verdict.
    pub same: BTreeMap<Verdict, u64>,
    /// Those of which it changes, with the first of them.
    pub shifts: BTreeMap<Shift, (u64, Vec<Example>)>,
}

impl Node {
    /// Compares what two policies make of every live entry. An entry's verdict is the
    /// highest that it gets by any of its signals, asked for exactly. `progress` is told
    /// leaves done and leaves in all, and ends it by answering false. Blocking.
    ///
    /// # Errors
    /// What the store answers.
    pub fn compare_policies(
        &self,
        judge: &Judge<'_>,
        old: &Policy,
        new: &Policy,
        mut progress: impl FnMut(u64, u64) -> bool,
    ) -> Result<Compared, NodeError> {
        let mut compared = Compared::default();
        let feeds: Vec<FeedInfo> = self.store().feeds();
        let total = feeds.iter().map(|feed| feed.indexed).sum();
        let mut before = 0_u64;
        for feed in feeds {
            let counts = self.whole(&feed).standing != WholeStanding::Nothing;
            if let Some(describe) = views::describe_of(&feed).filter(|_| counts) {
                let mut from = 0;
                while from < feed.indexed {
                    let to = from.saturating_add(PAGE_LEAVES).min(feed.indexed);
                    self.compare_page(
                        judge,
                        (old, new),
                        &describe.name,
                        (&feed, from, to),
                        &mut compared,
                    )?;
                    from = to;
                    if !progress(before.saturating_add(from), total) {
                        return Ok(compared);
                    }
                }
            }
            before = before.saturating_add(feed.indexed);
        }
        Ok(compared)
    }

    fn compare_page(
        &self,
        judge: &Judge<'_>,
        (old, new): (&Policy, &Policy),
        set: &SetName,
        (feed, from, to): (&FeedInfo, u64, u64),
        compared: &mut Compared,
    ) -> Result<(), NodeError> {
        let store = self.store();
        let read = store.seen(feed.no, from, to);
        let read = read.and_then(|seen| Ok((seen, store.read_leaves(feed.no, from, to)?)));
        let (seen, leaves) = match read {
            // The feed went meanwhile, or leaves were cut off.
            Err(StoreError::UnknownFeed(_) | StoreError::OutOfRange { .. }) => return Ok(()),
            other => other?,
        };
        let mut entries: Vec<(u64, u64, usize)> = Vec::new();
        let mut signals: Vec<Signal> = Vec::new();
        for ((index, raw), seen) in (from..to).zip(leaves).zip(seen) {
            let (Some(seen), Leaf::Publish(mut body)) = (seen, leaf::read(&raw, index)) else {
                continue;
            };
            changes::without(&mut body, &seen.withheld);
            entries.push((index, body.first_index(index), body.signals.len()));
            signals.append(&mut body.signals);
        }
        let mut found = self.matches_in_turn(&signals)?.into_iter().zip(&signals);
        for (index, first, count) in entries {
            let (mut was, mut is) = (None, None);
            let mut kind = None;
            for (matched, signal) in found.by_ref().take(count) {
                let at = matched
                    .found
                    .iter()
                    .position(|found| (found.entry.feed, found.entry.index) == (feed.id, index));
                // It is told of by its own word; more than are told of one set are not.
                let Some(at) = at else { continue };
                let verdict = |policy: &Policy| {
                    let verdicts = judge.evaluate(policy, signal, &matched).voices;
                    verdicts.get(at).copied()
                };
                let (before, after) = (verdict(old), verdict(new));
                if before != after {
                    kind.get_or_insert(signal.kind());
                }
                (was, is) = (was.max(before), is.max(after));
            }
            let (Some(was), Some(is)) = (was, is) else {
                continue;
            };
            compared.entries = compared.entries.saturating_add(1);
            let Some(kind) = kind.filter(|_| was != is) else {
                let same = compared.same.entry(was).or_default();
                *same = same.saturating_add(1);
                continue;
            };
            let shift = Shift {
                set: set.clone(),
                from: was,
                to: is,
            };
            let (count, examples) = compared.shifts.entry(shift).or_default();
            *count = count.saturating_add(1);
            if examples.len() < EXAMPLES {
                let entry = EntryName {
                    set: set.clone(),
                    first,
                };
                examples.push(Example { entry, kind });
            }
        }
        Ok(())
    }

    /// The very values, however many signals there are: what does not fit in one answer
    /// with the others is asked for alone.
    pub(crate) fn matches_in_turn(&self, signals: &[Signal]) -> Result<Vec<Matched>, NodeError> {
        let mut all = Vec::with_capacity(signals.len());
        for some in signals.chunks(crate::lookup::LOOKUP_MAX) {
            let found = self.matches(some, MatchOptions::exact())?;
            for (matched, signal) in found.into_iter().zip(some) {
                let alone = std::slice::from_ref(signal);
                all.push(if matched.over {
                    let found = self.matches(alone, MatchOptions::exact())?;
                    found.into_iter().next().unwrap_or_default()
                } else {
                    matched
                });
            }
        }
        Ok(all)
    }
}
