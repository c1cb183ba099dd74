//! Floods as the operator meets them: the alarm, what lies in them, and the word that
//! ends one.

use hashpact_core::id::{EntryName, UnixMillis};
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_store::quarantine::Reason;
use hashpact_store::{FeedInfo, FeedNo, IndexKey, Posting};
use tracing::{error, info};

use crate::error::NodeError;
use crate::model::{Matched, QuarantineLot, QuarantinedEntry};
use crate::node::Node;
use crate::policy::Flood;
use crate::views;
use crate::words::name_of;

/// Entries of one set that are told of one flooding signal.
const PER_FEED: usize = 32;
/// Floods of one moment that are logged one by one.
const LOGGED_MAX: usize = 16;

impl Node {
    /// Counts what a caller asked and what was found, for floods. To be told of callers'
    /// questions alone, not of the node's own.
    pub fn note_asked(&self, signals: &[Signal], matched: &[Matched]) {
        let (floods, now) = (self.desk().floods(), self.clock().now());
        let new = floods.note(now, signals.iter().zip(matched));
        self.say_floods(&new);
    }

    /// Ends what has run out, and says what floods. To be called from time to time.
    pub(crate) fn follow_floods(&self) {
        let new = self.desk().floods().look(self.clock().now());
        self.say_floods(&new);
        self.note_floods();
    }

    /// Signals that are held at review since they match too much.
    #[must_use]
    pub fn floods(&self) -> Vec<(IndexKey, Flood)> {
        let (held, now) = (self.desk().floods().held(), self.clock().now());
        let held = held.iter().filter(|(_, flood)| now < flood.until);
        held.map(|(key, flood)| (*key, *flood)).collect()
    }

    fn say_floods(&self, new: &[(IndexKey, Flood)]) {
        if new.is_empty() {
            return;
        }
        let count = u64::try_from(new.len()).unwrap_or(u64::MAX);
        metrics::counter!("hashpact_floods_total").increment(count);
        for (key, flood) in new.iter().take(LOGGED_MAX) {
            error!(
                signal = self.desk().signal_name(key),
                values = flood.values,
                of_values = flood.of_values,
                "a signal matches so much of what is asked that it is held at review; \
                 hashpact quarantine list --reason flood shows whose it is"
            );
        }
        self.note_floods();
    }

    fn note_floods(&self) {
        let floods = self.floods().len();
        let notice = (floods > 0).then(|| {
            let signals = if floods == 1 {
                "1 signal matches".to_owned()
            } else {
                format!("{floods} signals match")
            };
            format!(
                "{signals} so much of what is asked that people look at it first; hashpact \
                 quarantine list --reason flood shows whose"
            )
        });
        self.set_notice("floods", notice);
    }

    /// The entries in a feed that carry flooding signals.
    fn flooded(&self, only: Option<FeedNo>) -> Result<Vec<(IndexKey, Vec<Posting>)>, NodeError> {
        let keys: Vec<IndexKey> = self.floods().into_iter().map(|(key, _)| key).collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.store().lookup_bounded(&keys, PER_FEED)?;
        let both = keys.into_iter().zip(found);
        Ok(both
            .map(|(key, mut found)| {
                found
                    .postings
                    .retain(|p| only.is_none_or(|no| no == p.feed));
                (key, found.postings)
            })
            .collect())
    }

    /// One line a set and kind of signal.
    pub(crate) fn flooded_lots(&self, feeds: &[FeedInfo]) -> Result<Vec<QuarantineLot>, NodeError> {
        let flooded = self.flooded(None)?;
        let mut lots = Vec::new();
        for feed in feeds {
            for kind in [SignalKind::Pdq, SignalKind::Vpdq] {
                let of_kind = flooded.iter().filter(|(key, _)| kind_of(key) == Some(kind));
                let held = of_kind
                    .flat_map(|(_, postings)| postings)
                    .filter(|posting| posting.feed == feed.no)
                    .count();
                if held > 0 {
                    lots.push(QuarantineLot {
                        set: name_of(feed),
                        reason: Reason::Flood,
                        kind: Some(kind),
                        held: u64::try_from(held).unwrap_or(u64::MAX),
                        released: 0,
                        dropped: 0,
                        conflicts_with: Vec::new(),
                    });
                }
            }
        }
        Ok(lots)
    }

    /// The entries of feeds one by one, at most `limit`.
    pub(crate) fn flooded_entries(
        &self,
        feeds: &[FeedInfo],
        limit: usize,
    ) -> Result<Vec<QuarantinedEntry>, NodeError> {
        let mut entries = Vec::new();
        for (key, postings) in self.flooded(None)? {
            for posting in postings {
                let Some(feed) = feeds.iter().find(|feed| feed.no == posting.feed) else {
                    continue;
                };
                if entries.len() >= limit {
                    return Ok(entries);
                }
                entries.push(QuarantinedEntry {
                    entry: views::describe_of(feed).map(|describe| EntryName {
                        set: describe.name,
                        first: posting.first,
                    }),
                    set: name_of(feed),
                    index: posting.index,
                    reasons: vec![Reason::Flood],
                    kinds: kind_of(&key).into_iter().collect(),
                    published: posting.published,
                    conflicts_with: None,
                });
            }
        }
        Ok(entries)
    }

    /// Ends the floods of entries of a set, of all or of those named; answers the first
    /// indexes of the entries that carry one. A signal is released for every set.
    pub(crate) fn release_floods(
        &self,
        feed: &FeedInfo,
        named: Option<&[u64]>,
    ) -> Result<Vec<u64>, NodeError> {
        let now: UnixMillis = self.clock().now();
        let mut released = Vec::new();
        for (key, postings) in self.flooded(Some(feed.no))? {
            let firsts = postings.iter().map(|posting| posting.first);
            let firsts: Vec<u64> = firsts
                .filter(|first| named.is_none_or(|named| named.contains(first)))
                .collect();
            if !firsts.is_empty() && self.desk().floods().release(&key, now) {
                info!(
                    signal = self.desk().signal_name(&key),
                    "released: it may match as much as it does"
                );
                released.extend(firsts);
            }
        }
        self.note_floods();
        Ok(released)
    }
}

fn kind_of(key: &IndexKey) -> Option<SignalKind> {
    let kind = key.first().copied()?;
    SignalKind::from_number(u32::from(kind))
}
